//! A row, `[{"name":"id","value":1},…]`, becomes values in the order of the columns that are known.

use std::ops::Range;

use super::known::{KnownColumn, KnownTable};
use super::scan::{Malformed, Scanner};
use crate::replication::Cell;

/// What stands before a column's name and after it, where wal2json puts no white space.
const BEFORE_NAME: &[u8] = br#"{"name":""#;
const AFTER_NAME: &[u8] = br#"","value":"#;

/// A row that was scanned.
pub(super) enum Row {
    /// Its values stand in these cells, one for each known column.
    Placed {
        cells: Range<usize>,
        /// Whether it has a value for each.
        complete: bool,
    },
    /// It shows other columns, or in another order, than are known.
    Named(Vec<(KnownColumn, Cell)>),
}

/// Scans a row of a table that has these columns, or of one that is not known.
pub(super) fn scan(
    scanner: &mut Scanner<'_, '_>,
    cells: &mut Vec<Cell>,
    known: Option<&[KnownColumn]>,
) -> Result<Row, Malformed> {
    if let Some(columns) = known {
        let (mark, start) = (scanner.mark(), cells.len());
        if let Some(row) = scan_known(scanner, cells, columns)? {
            return Ok(row);
        }
        scanner.go_back(mark);
        cells.truncate(start);
    }
    scan_names(scanner).map(Row::Named)
}

/// Scans a row as long as all its names are known ones; `None` where one is not, or where all are and in another order.
fn scan_known(
    scanner: &mut Scanner<'_, '_>,
    cells: &mut Vec<Cell>,
    columns: &[KnownColumn],
) -> Result<Option<Row>, Malformed> {
    let start = cells.len();
    cells.resize(start + columns.len(), Cell::Unchanged);
    let placed = &mut cells[start..];
    let (mut next, mut named, mut in_order) = (0, 0, true);
    let mut more = scanner.begin_array()?;
    while more {
        let expected = match columns.get(next) {
            Some(column) if in_order || placed[next] == Cell::Unchanged => value_after(scanner, &column.head)?,
            _ => None,
        };
        let (place, value) = match expected {
            Some(value) => (next, value),
            None => match search(scanner, columns, placed, next)? {
                Some(found) => found,
                None => return Ok(None),
            },
        };
        in_order &= place >= next;
        placed[place] = value;
        next = place + 1;
        named += 1;
        more = scanner.next_item()?;
    }
    let complete = named == columns.len();
    let cells = start..start + columns.len();
    Ok((in_order || !complete).then_some(Row::Placed { cells, complete }))
}

/// Scans a column's value and the end of its object, if it begins and ends like this column's.
#[inline]
fn value_after(scanner: &mut Scanner<'_, '_>, head: &[u8]) -> Result<Option<Cell>, Malformed> {
    let mark = scanner.mark();
    if !head.is_empty() && scanner.follows(head) {
        let value = scanner.scalar()?;
        if scanner.eat(b'}') {
            return Ok(Some(value));
        }
        scanner.go_back(mark);
    }
    Ok(None)
}

/// Scans a column that is not the expected one. Returns its place among the known columns, those aside that the row has a
/// value of already; `None` if it has none there.
#[inline(never)]
fn search(
    scanner: &mut Scanner<'_, '_>,
    columns: &[KnownColumn],
    placed: &[Cell],
    next: usize,
) -> Result<Option<(usize, Cell)>, Malformed> {
    let free = || free_places(placed, next);
    for place in free() {
        if let Some(value) = value_after(scanner, &columns[place].head)? {
            return Ok(Some((place, value)));
        }
    }
    let (column, value) = scan_column(scanner)?;
    let place = free().find(|&place| columns[place].name == column.name);
    Ok(place.map(|place| (place, value)))
}

/// Returns the places without a value: those from here on, then those before.
fn free_places(placed: &[Cell], next: usize) -> impl Iterator<Item = usize> {
    (next..placed.len()).chain(0..next.min(placed.len())).filter(|&place| placed[place] == Cell::Unchanged)
}

/// Scans a row with its names.
fn scan_names(scanner: &mut Scanner<'_, '_>) -> Result<Vec<(KnownColumn, Cell)>, Malformed> {
    let mut row = Vec::new();
    scanner.array(|scanner| {
        row.push(scan_column(scanner)?);
        Ok(())
    })?;
    Ok(row)
}

/// Scans `{"name":"id","value":1}`, whatever else it holds and in whatever order.
fn scan_column(scanner: &mut Scanner<'_, '_>) -> Result<(KnownColumn, Cell), Malformed> {
    let start = scanner.position();
    let (mut name, mut value, mut name_at, mut value_at) = (None, None, start..start, start);
    scanner.object(|scanner, key| {
        match scanner.text(key) {
            b"name" => {
                let at = scanner.position();
                name = Some(scanner.string()?);
                name_at = at..scanner.position();
            }
            b"value" => {
                value_at = scanner.position();
                value = Some(scanner.scalar()?);
            }
            _ => scanner.skip()?,
        }
        Ok(())
    })?;
    let name = name.ok_or_else(|| scanner.malformed("a column without a name"))?;
    let value = value.ok_or_else(|| scanner.malformed("a column without a value"))?;
    let head = scanner.since(start, value_at);
    // Their quotes are the name's own.
    let is_plain = head.starts_with(BEFORE_NAME)
        && head.ends_with(AFTER_NAME)
        && name_at == (start + BEFORE_NAME.len() - 1..value_at + 1 - AFTER_NAME.len());
    let column = KnownColumn {
        name: String::from_utf8_lossy(scanner.text(name)).into_owned(),
        head: if is_plain { head.to_vec() } else { Vec::new() },
    };
    Ok((column, value))
}

/// Gives the rows of a change the columns of their table, which learns what they show of it. `whole`: the rows have a
/// value for each column that there is. Returns their cells.
pub(super) fn settle<const N: usize>(
    table: &mut KnownTable,
    cells: &mut Vec<Cell>,
    rows: [Row; N],
    whole: bool,
) -> [Range<usize>; N] {
    let is_settled = |row: &Row| matches!(row, Row::Placed { complete, .. } if *complete || !whole);
    if rows.iter().all(is_settled) {
        return rows.map(|row| match row {
            Row::Placed { cells, .. } => cells,
            Row::Named(_) => 0..0,
        });
    }
    let rows = rows.map(|row| match row {
        Row::Placed { cells: placed, .. } => with_names(table.columns(), &cells[placed]),
        Row::Named(row) => row,
    });
    for row in &rows {
        let columns: Vec<KnownColumn> = row.iter().map(|(column, _)| column.clone()).collect();
        table.learn(&columns, whole);
    }
    rows.map(|row| place(table.columns(), cells, row))
}

/// Returns the values that a row has, each with its column.
fn with_names(columns: &[KnownColumn], placed: &[Cell]) -> Vec<(KnownColumn, Cell)> {
    let values = columns.iter().cloned().zip(placed.iter().copied());
    values.filter(|(_, value)| *value != Cell::Unchanged).collect()
}

/// Appends the cells of a row whose names are all known.
fn place(columns: &[KnownColumn], cells: &mut Vec<Cell>, row: Vec<(KnownColumn, Cell)>) -> Range<usize> {
    let start = cells.len();
    cells.resize(start + columns.len(), Cell::Unchanged);
    let placed = &mut cells[start..];
    let mut next = 0;
    for (column, value) in row {
        let found = free_places(placed, next).find(|&place| columns[place].name == column.name);
        if let Some(place) = found {
            placed[place] = value;
            next = place + 1;
        }
    }
    start..start + columns.len()
}
