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
//!
//! Every row names its columns. From that come the relations that stand in front of changes, and the order of a row's
//! values: see [`known`].

mod encoding;
mod known;
mod row;
mod scan;
mod timestamp;

use std::collections::HashSet;
use std::ops::Range;

pub(crate) use encoding::{ServerEncoding, encoding_for};
use known::KnownTables;
use row::Row;
use scan::{Malformed, Scanner};

use super::{Cell, Change, Heed, Message, OldTuple, OutputPlugin, Span, Tuple};
use crate::error::{Error, Result};
use crate::pg::Lsn;

/// How every logical message starts. Its content can be anything, so it is told apart before anything is decoded.
const LOGICAL_MESSAGE: &[u8] = br#"{"action":"M""#;

/// The decoder. Its buffers are used again for every message.
#[derive(Debug)]
pub struct Wal2json {
    add_tables: String,
    /// The tables whose warnings matter; `None` for all.
    told: Option<HashSet<(String, String)>>,
    encoding: Option<ServerEncoding>,
    transcoded: String,
    cells: Vec<Cell>,
    scratch: Vec<u8>,
    tables: KnownTables,
}

impl Wal2json {
    /// Makes a decoder of the changes of these tables, given as schema and table, or as a schema alone for all of its tables.
    /// No table at all means no change at all. The encoding is the server's, from [`encoding_for`].
    pub fn new(tables: &[(String, Option<String>)], encoding: Option<ServerEncoding>) -> Self {
        let add_tables = tables.iter().map(|(schema, table)| add_table(schema, table.as_deref())).collect::<Vec<_>>();
        Wal2json::with(add_tables.join(","), encoding)
    }

    /// Makes a decoder of the changes of all tables.
    pub(crate) fn of_all(encoding: Option<ServerEncoding>) -> Self {
        Wal2json::with("*.*".to_owned(), encoding)
    }

    /// Has the warnings of a change that wal2json leaves out passed on of these tables only.
    pub(crate) fn telling_of(self, tables: HashSet<(String, String)>) -> Self {
        Wal2json { told: Some(tables), ..self }
    }

    fn with(add_tables: String, encoding: Option<ServerEncoding>) -> Self {
        Wal2json {
            add_tables,
            told: None,
            encoding,
            transcoded: String::new(),
            cells: Vec::new(),
            scratch: Vec::new(),
            tables: KnownTables::default(),
        }
    }
}

/// Returns an item of `add-tables`. Without the backslashes `*` would mean any name, and the others would end this one;
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

    /// `no tuple identifier for UPDATE in table "s"."t"` comes of every table that was asked for.
    fn heed(&self) -> Heed {
        let Some(tables) = self.told.clone() else { return Box::new(|_, _| Ok(true)) };
        Box::new(move |message, _| {
            let of_table =
                message.starts_with("no tuple identifier for ").then(|| message.split_once(" in table ")).flatten();
            let is_of = |(schema, table): &(String, String), named: &str| named == format!("\"{schema}\".\"{table}\"");
            Ok(of_table.is_none_or(|(_, named)| tables.iter().any(|table| is_of(table, named))))
        })
    }

    fn decode<'a>(&'a mut self, payload: &'a [u8]) -> Result<Message<'a>> {
        if payload.starts_with(LOGICAL_MESSAGE) {
            return Ok(Message { relation: None, change: Change::Other });
        }
        let Wal2json { encoding, transcoded, cells, scratch, tables, .. } = self;
        let payload = match encoding {
            Some(encoding) if !payload.is_ascii() => {
                encoding.transcode(payload, transcoded);
                transcoded.as_bytes()
            }
            _ => payload,
        };
        cells.clear();
        Members::scan(payload, cells, scratch, tables)
            .and_then(|members| members.message(Space { payload, scratch }, cells, tables))
            .map_err(|malformed| {
                let Malformed { at, what } = malformed;
                Error::run(format!("malformed message from wal2json at byte {at} of {}: {what}", payload.len()))
            })
    }
}

/// Where the texts of a message are.
#[derive(Clone, Copy)]
struct Space<'a> {
    payload: &'a [u8],
    scratch: &'a [u8],
}

/// The members of a message, wherever they stood in it.
#[derive(Default)]
struct Members {
    action: Option<Span>,
    xid: Option<Span>,
    timestamp: Option<Span>,
    lsn: Option<Span>,
    nextlsn: Option<Span>,
    schema: Option<Span>,
    table: Option<Span>,
    columns: Option<Row>,
    identity: Option<Row>,
    /// The table whose columns the rows were held against.
    of: Option<usize>,
}

impl Members {
    fn scan(
        payload: &[u8],
        cells: &mut Vec<Cell>,
        scratch: &mut Vec<u8>,
        tables: &mut KnownTables,
    ) -> Result<Members, Malformed> {
        let mut members = Members::default();
        let mut scanner = Scanner::new(payload, scratch)?;
        scanner.object(|scanner, key| {
            let member = match scanner.text(key) {
                b"action" => &mut members.action,
                b"xid" => &mut members.xid,
                b"timestamp" => &mut members.timestamp,
                b"lsn" => &mut members.lsn,
                b"nextlsn" => &mut members.nextlsn,
                b"schema" => &mut members.schema,
                b"table" => &mut members.table,
                key @ (b"columns" | b"identity") => {
                    let is_new = key == b"columns";
                    // The table comes before its row.
                    let table = match (members.schema, members.table) {
                        (Some(schema), Some(table)) => tables.find(scanner.text(schema), scanner.text(table)),
                        _ => None,
                    };
                    if members.of.is_some_and(|of| table != Some(of)) {
                        return Err(scanner.malformed("more than one table in it"));
                    }
                    members.of = table;
                    let row = row::scan(scanner, cells, table.map(|table| tables.get(table).columns()))?;
                    *if is_new { &mut members.columns } else { &mut members.identity } = Some(row);
                    return Ok(());
                }
                _ => return scanner.skip(),
            };
            *member = match scanner.scalar()? {
                Cell::Text(span) => Some(span),
                Cell::Null | Cell::Unchanged => None,
            };
            Ok(())
        })?;
        scanner.end()?;
        Ok(members)
    }

    fn message<'a>(
        self,
        space: Space<'a>,
        cells: &'a mut Vec<Cell>,
        tables: &'a mut KnownTables,
    ) -> Result<Message<'a>, Malformed> {
        let malformed = |what| Malformed { at: space.payload.len(), what };
        let change = match self.action.map(|span| space.bytes(span)).unwrap_or_default() {
            action @ (b"I" | b"U" | b"D" | b"T") => return self.of_table(action[0], space, cells, tables),
            b"B" => Change::Begin {
                commit_lsn: space.read(self.lsn, lsn, "no position `lsn` in it")?,
                commit_time: space.read(self.timestamp, timestamp::unix_micros, "no commit time in it")?,
                xid: space.read(self.xid, |xid| std::str::from_utf8(xid).ok()?.parse().ok(), "no xid in it")?,
            },
            b"C" => Change::Commit { end_lsn: space.read(self.nextlsn, lsn, "no position `nextlsn` in it")? },
            b"M" => Change::Other,
            b"" => return Err(malformed("no action in it")),
            _ => return Err(malformed("unknown action")),
        };
        Ok(Message { relation: None, change })
    }

    /// Returns a change of a table, with the relation where that is news.
    fn of_table<'a>(
        self,
        action: u8,
        space: Space<'a>,
        cells: &'a mut Vec<Cell>,
        tables: &'a mut KnownTables,
    ) -> Result<Message<'a>, Malformed> {
        let text = |name| std::str::from_utf8(name).ok();
        let schema = space.read(self.schema, text, "no schema in UTF-8 in it")?;
        let name = space.read(self.table, text, "no table in UTF-8 in it")?;
        let malformed = |what| Malformed { at: space.payload.len(), what };
        let place = tables.find_or_add(schema, name);
        if self.of.is_some_and(|of| of != place) {
            return Err(malformed("more than one table in it"));
        }
        let table = tables.get(place);
        let relation = table.id();
        let change = match action {
            b'I' => {
                let rows = [self.columns.ok_or_else(|| malformed("no columns in it"))?];
                let [new] = row::settle(table, cells, rows, true);
                let cells: &'a [Cell] = cells;
                Change::Insert { relation, new: space.tuple(cells, new) }
            }
            b'U' => {
                let new = self.columns.ok_or_else(|| malformed("no columns in it"))?;
                let (new, old) = match self.identity {
                    Some(old) => {
                        let [new, old] = row::settle(table, cells, [new, old], false);
                        (new, Some(old))
                    }
                    None => {
                        let [new] = row::settle(table, cells, [new], false);
                        (new, None)
                    }
                };
                let cells: &'a [Cell] = cells;
                let old = old.map(|old| OldTuple::Key(space.tuple(cells, old)));
                Change::Update { relation, old, new: space.tuple(cells, new) }
            }
            b'D' => {
                // Where the server has no old row, wal2json leaves out the identity: then nothing is known of it.
                let rows = [self.identity.unwrap_or_else(|| Row::Named(Vec::new()))];
                let [old] = row::settle(table, cells, rows, false);
                Change::Delete { relation, old: OldTuple::Key(space.tuple(cells, old)) }
            }
            _ => Change::Truncate { relations: vec![relation] },
        };
        Ok(Message { relation: table.announce(), change })
    }
}

impl<'a> Space<'a> {
    fn bytes(self, span: Span) -> &'a [u8] {
        let from = if span.scratch { self.scratch } else { self.payload };
        &from[span.start as usize..span.end as usize]
    }

    /// Returns a member that has to be there and be what `read` takes.
    fn read<T>(
        self,
        member: Option<Span>,
        read: impl FnOnce(&'a [u8]) -> Option<T>,
        what: &'static str,
    ) -> Result<T, Malformed> {
        member.and_then(|span| read(self.bytes(span))).ok_or(Malformed { at: self.payload.len(), what })
    }

    fn tuple(self, cells: &'a [Cell], row: Range<usize>) -> Tuple<'a> {
        Tuple { cells: &cells[row], payload: self.payload, scratch: self.scratch }
    }
}

fn lsn(text: &[u8]) -> Option<Lsn> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod relation_tests;
#[cfg(test)]
mod tests;
