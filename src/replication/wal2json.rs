//! Messages of the output plugin wal2json, format version 2: a JSON object for each start, change and end.
//!
//! ```text
//! {"action":"B","xid":767,"timestamp":"2026-11-22 07:04:19.287807+00","lsn":"0/19D5CC8","nextlsn":"0/19D5CF8"}
//! {"action":"U",…,"schema":"s","table":"t","columns":[{"name":"id","value":2},…],"identity":[{"name":"id","value":1}]}
//! {"action":"C",…,"lsn":"0/19D5CC8","nextlsn":"0/19D5CF8"}
//! ```
//!
//! B and C carry the same two positions: `lsn` is where the commit record starts, `nextlsn` where it ends, as in
//! pgoutput's Begin and Commit. Numbers and booleans are JSON tokens, all other values strings; NaN and infinities of
//! number columns come as null, bytea without its `\x`. An unchanged out-of-line value is left out.

mod encoding;
mod scan;
mod timestamp;

use std::ops::Range;

pub use encoding::{ServerEncoding, encoding_for};
use scan::{Malformed, Scanner, span};

use super::{Cell, CellValue, Change, OldTuple, OutputPlugin, Span, TableRef, Tuple};
use crate::error::{Error, Result};
use crate::pg::Lsn;

/// How every logical message starts. Its content can be anything, so it is told apart before anything is decoded.
const LOGICAL_MESSAGE: &[u8] = br#"{"action":"M""#;

/// The decoder. Its buffers are used again for every message.
#[derive(Debug)]
pub struct Wal2json {
    add_tables: String,
    encoding: Option<ServerEncoding>,
    transcoded: String,
    cells: Vec<Cell>,
    scratch: Vec<u8>,
    heads: Heads,
}

/// How each column of the last row began, `{"name":"id","value":`: the next row is mostly of the same table.
type Heads = Vec<Vec<u8>>;

impl Wal2json {
    /// A decoder of the changes of these tables, given as schema and table, or as a schema alone for all of its tables.
    /// No table at all means no change at all. The encoding is the server's, from [`encoding_for`].
    pub fn new(tables: &[(String, Option<String>)], encoding: Option<ServerEncoding>) -> Self {
        let add_tables = tables.iter().map(|(schema, table)| add_table(schema, table.as_deref())).collect::<Vec<_>>();
        Wal2json {
            add_tables: add_tables.join(","),
            encoding,
            transcoded: String::new(),
            cells: Vec::new(),
            scratch: Vec::new(),
            heads: Heads::new(),
        }
    }
}

/// An item of `add-tables`. Without the backslashes `*` would mean any name, and the others would end this one;
/// wal2json takes any character after a backslash for itself.
fn add_table(schema: &str, table: Option<&str>) -> String {
    let escaped = |name: &str| {
        let mut escaped = String::new();
        for char in name.chars() {
            if char.is_whitespace() || matches!(char, '\'' | ',' | '.' | '*' | '\\') {
                escaped.push('\\');
            }
            escaped.push(char);
        }
        escaped
    };
    format!("{}.{}", escaped(schema), table.map_or_else(|| "*".to_owned(), escaped))
}

impl OutputPlugin for Wal2json {
    fn name(&self) -> &'static str {
        "wal2json"
    }

    fn options(&self) -> Vec<(String, String)> {
        [
            ("format-version", "2"),
            ("include-transaction", "true"),
            ("include-timestamp", "true"),
            ("include-lsn", "true"),
            ("include-xids", "true"),
            ("include-types", "false"),
            ("actions", "insert,update,delete,truncate"),
            ("add-tables", &self.add_tables),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    fn decode<'a>(&'a mut self, payload: &'a [u8]) -> Result<Change<'a>> {
        if payload.starts_with(LOGICAL_MESSAGE) {
            return Ok(Change::Other);
        }
        let Wal2json { encoding, transcoded, cells, scratch, heads, .. } = self;
        let payload = match encoding {
            Some(encoding) if !payload.is_ascii() => {
                encoding.transcode(payload, transcoded);
                transcoded.as_bytes()
            }
            _ => payload,
        };
        cells.clear();
        Message::scan(payload, cells, scratch, heads)
            .and_then(|message| message.change(Space { payload, scratch, cells }))
            .map_err(|malformed| {
                let Malformed { at, what } = malformed;
                Error::run(format!("malformed message from wal2json at byte {at} of {}: {what}", payload.len()))
            })
    }
}

/// Where the pieces of a message are.
#[derive(Clone, Copy)]
struct Space<'a> {
    payload: &'a [u8],
    scratch: &'a [u8],
    cells: &'a [Cell],
}

/// The members of a message, wherever they stood in it.
#[derive(Default)]
struct Message {
    action: Option<Span>,
    xid: Option<Span>,
    timestamp: Option<Span>,
    lsn: Option<Span>,
    nextlsn: Option<Span>,
    schema: Option<Span>,
    table: Option<Span>,
    columns: Option<Range<usize>>,
    identity: Option<Range<usize>>,
}

impl Message {
    fn scan(
        payload: &[u8],
        cells: &mut Vec<Cell>,
        scratch: &mut Vec<u8>,
        heads: &mut Heads,
    ) -> Result<Message, Malformed> {
        let mut message = Message::default();
        let mut scanner = Scanner::new(payload, scratch)?;
        scanner.object(|scanner, key| {
            let member = match scanner.text(key) {
                b"action" => &mut message.action,
                b"xid" => &mut message.xid,
                b"timestamp" => &mut message.timestamp,
                b"lsn" => &mut message.lsn,
                b"nextlsn" => &mut message.nextlsn,
                b"schema" => &mut message.schema,
                b"table" => &mut message.table,
                b"columns" => {
                    message.columns = Some(row(scanner, cells, heads)?);
                    return Ok(());
                }
                b"identity" => {
                    message.identity = Some(row(scanner, cells, heads)?);
                    return Ok(());
                }
                _ => return scanner.skip(),
            };
            *member = match scanner.scalar()? {
                CellValue::Text(span) => Some(span),
                CellValue::Null | CellValue::Unchanged => None,
            };
            Ok(())
        })?;
        scanner.end()?;
        Ok(message)
    }

    fn change<'a>(&self, space: Space<'a>) -> Result<Change<'a>, Malformed> {
        let malformed = |what| Malformed { at: space.payload.len(), what };
        let tuple = |row: &Option<Range<usize>>, what| match row {
            Some(row) => Ok(space.tuple(row.clone())),
            None => Err(malformed(what)),
        };
        match self.action.map(|span| space.bytes(span)).unwrap_or_default() {
            b"I" => Ok(Change::Insert { table: self.table(space)?, new: tuple(&self.columns, "no columns in it")? }),
            b"U" => Ok(Change::Update {
                table: self.table(space)?,
                old: self.identity.clone().map(|row| OldTuple::Key(space.tuple(row))),
                new: tuple(&self.columns, "no columns in it")?,
            }),
            // Where the server has no old row, wal2json leaves out the identity: then nothing is known of it.
            b"D" => Ok(Change::Delete {
                table: self.table(space)?,
                old: OldTuple::Key(space.tuple(self.identity.clone().unwrap_or_default())),
            }),
            b"T" => Ok(Change::Truncate { tables: vec![self.table(space)?] }),
            b"B" => Ok(Change::Begin {
                commit_lsn: space.read(self.lsn, lsn, "no position `lsn` in it")?,
                commit_time: space.read(self.timestamp, timestamp::unix_micros, "no commit time in it")?,
                xid: space.read(self.xid, |xid| std::str::from_utf8(xid).ok()?.parse().ok(), "no xid in it")?,
            }),
            b"C" => Ok(Change::Commit { end_lsn: space.read(self.nextlsn, lsn, "no position `nextlsn` in it")? }),
            b"M" => Ok(Change::Other),
            b"" => Err(malformed("no action in it")),
            _ => Err(malformed("unknown action")),
        }
    }

    fn table<'a>(&self, space: Space<'a>) -> Result<TableRef<'a>, Malformed> {
        let schema = space.read(self.schema, |name| std::str::from_utf8(name).ok(), "no schema in UTF-8 in it")?;
        let table = space.read(self.table, |name| std::str::from_utf8(name).ok(), "no table in UTF-8 in it")?;
        Ok(TableRef::Name(schema, table))
    }
}

impl<'a> Space<'a> {
    fn bytes(self, span: Span) -> &'a [u8] {
        let from = if span.scratch { self.scratch } else { self.payload };
        &from[span.start as usize..span.end as usize]
    }

    /// A member that has to be there and be what `read` takes.
    fn read<T>(
        self,
        member: Option<Span>,
        read: impl FnOnce(&'a [u8]) -> Option<T>,
        what: &'static str,
    ) -> Result<T, Malformed> {
        member.and_then(|span| read(self.bytes(span))).ok_or(Malformed { at: self.payload.len(), what })
    }

    fn tuple(self, row: Range<usize>) -> Tuple<'a> {
        Tuple { cells: &self.cells[row], payload: self.payload, scratch: self.scratch }
    }
}

fn lsn(text: &[u8]) -> Option<Lsn> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// `[{"name":"id","value":1},…]`; says which cells it became.
fn row(scanner: &mut Scanner<'_, '_>, cells: &mut Vec<Cell>, heads: &mut Heads) -> Result<Range<usize>, Malformed> {
    let start = cells.len();
    scanner.array(|scanner| {
        let index = cells.len() - start;
        if index == heads.len() {
            heads.push(Vec::new());
        }
        cells.push(cell(scanner, &mut heads[index])?);
        Ok(())
    })?;
    Ok(start..cells.len())
}

/// What is before a column's name and after it, where wal2json puts no white space.
const BEFORE_NAME: &[u8] = br#"{"name":""#;
const AFTER_NAME: &[u8] = br#"","value":"#;

/// `{"name":"id","value":1}`. `head` is how one like it began.
fn cell(scanner: &mut Scanner<'_, '_>, head: &mut Vec<u8>) -> Result<Cell, Malformed> {
    let start = scanner.position();
    if !head.is_empty() && scanner.follows(head) {
        let name = span(false, start + BEFORE_NAME.len(), scanner.position() - AFTER_NAME.len());
        let value = scanner.scalar()?;
        if scanner.eat(b'}') {
            return Ok(Cell { name, value });
        }
        scanner.go_back(start);
    }
    let (mut name, mut value, mut value_start) = (None, None, start);
    scanner.object(|scanner, key| {
        match scanner.text(key) {
            b"name" => name = Some(scanner.string()?),
            b"value" => {
                value_start = scanner.position();
                value = Some(scanner.scalar()?);
            }
            _ => scanner.skip()?,
        }
        Ok(())
    })?;
    let name = name.ok_or_else(|| scanner.malformed("a column without a name"))?;
    let value = value.ok_or_else(|| scanner.malformed("a column without a value"))?;
    head.clear();
    let plain = scanner.since(start, value_start);
    if plain.strip_prefix(BEFORE_NAME).and_then(|rest| rest.strip_suffix(AFTER_NAME)) == Some(scanner.text(name)) {
        head.extend_from_slice(plain);
    }
    Ok(Cell { name, value })
}

#[cfg(test)]
mod tests;
