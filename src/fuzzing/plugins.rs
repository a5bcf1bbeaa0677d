//! Messages of a walsender and of the output plugins.

use serde_json::Value as Json;

use crate::pg::binary::Rows;
use crate::replication::pgoutput::Pgoutput;
use crate::replication::stream::{self, Event};
use crate::replication::wal2json::{Wal2json, encoding_for};
use crate::replication::{Change, Message, OldTuple, OutputPlugin, Relation, RelationId, Tuple, Value, bulk};

/// Decodes a message of pgoutput. A change, encoded again as pgoutput does, must give the same bytes; a truncated one
/// must be refused.
pub fn pgoutput(data: &[u8]) {
    let mut plugin = Pgoutput::new(vec!["p".to_owned()]);
    let Ok(message) = plugin.decode(data) else { return };
    if let Some(relation) = &message.relation {
        assert!(relation.columns.len() * 10 < data.len() && message.change == Change::Other);
        assert_eq!(relation.oid, Some(relation.id.0));
        assert!(plugin.decode(&data[..data.len() - 1]).is_err(), "cut short");
        return;
    }
    let table = |out: &mut Vec<u8>, tag: u8, relation: &RelationId| {
        out.push(tag);
        out.extend(relation.0.to_be_bytes());
    };
    let mut out = Vec::new();
    let change = message.change;
    match &change {
        Change::Insert { relation: of, new } => {
            table(&mut out, b'I', of);
            write_tuple(&mut out, b'N', new);
        }
        Change::Update { relation: of, old, new } => {
            table(&mut out, b'U', of);
            write_old(&mut out, old.as_ref());
            write_tuple(&mut out, b'N', new);
        }
        Change::Delete { relation: of, old } => {
            table(&mut out, b'D', of);
            write_old(&mut out, Some(old));
        }
        Change::Truncate { relations } => assert_eq!(data.len(), 6 + 4 * relations.len()),
        Change::Begin { commit_lsn, xid, .. } => {
            assert_eq!((&data[1..9], &data[17..]), (&commit_lsn.0.to_be_bytes()[..], &xid.to_be_bytes()[..]));
        }
        Change::Commit { end_lsn } => assert_eq!(data[10..18], end_lsn.0.to_be_bytes()),
        Change::Other => return,
    }
    assert!(out.is_empty() || out == data, "{change:?}");
    assert!(plugin.decode(&data[..data.len() - 1]).is_err(), "cut short");
}

fn write_old(out: &mut Vec<u8>, old: Option<&OldTuple<'_>>) {
    match old {
        Some(OldTuple::Key(tuple)) => write_tuple(out, b'K', tuple),
        Some(OldTuple::Full(tuple)) => write_tuple(out, b'O', tuple),
        None => {}
    }
}

fn write_tuple(out: &mut Vec<u8>, kind: u8, tuple: &Tuple<'_>) {
    out.push(kind);
    out.extend((tuple.len() as u16).to_be_bytes());
    for value in values(tuple) {
        match value {
            Value::Null => out.push(b'n'),
            Value::Unchanged => out.push(b'u'),
            Value::Text(text) => {
                out.push(b't');
                out.extend((text.len() as u32).to_be_bytes());
                out.extend(text);
            }
        }
    }
}

fn values<'a>(tuple: &Tuple<'a>) -> impl Iterator<Item = Value<'a>> {
    (0..tuple.len()).map(|index| tuple.value(index).expect("a value for each place"))
}

/// Decodes a message of wal2json, from a server in UTF-8 and from others. serde_json must find the same names and
/// values in it.
pub fn wal2json(data: &[u8]) {
    for encoding in ["LATIN1", "EUC_JP", "KOI8U"] {
        // What it says depends on the encoding; it must read as far as it goes.
        let _ = Wal2json::new(&[], encoding_for(encoding).expect("a known encoding")).decode(data);
    }
    let mut plugin = Wal2json::new(&[], None);
    let Ok(message) = plugin.decode(data) else { return };
    let first = rows(&message.change).map(|row| row.map(|row| values(row).map(owned).collect::<Vec<_>>()));
    let names = |relation: Relation<'_>| relation.columns.iter().map(|column| column.name.to_owned()).collect();
    let columns: Vec<String> = message.relation.map(names).unwrap_or_default();
    let Message { relation, change } = plugin.decode(data).expect("what it took before");
    assert_eq!(relation, None, "it was described before");
    assert_eq!(rows(&change).map(|row| row.map(|row| values(row).map(owned).collect())), first);
    // A server in SQL_ASCII may send what serde_json does not take.
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(json) = serde_json::from_str::<Json>(text) else { return };
    for (row, member) in rows(&change).into_iter().zip(["identity", "columns"]) {
        if let Some(row) = row
            && !json[member].is_null()
        {
            assert_same(&columns, row, &json[member]);
        }
    }
}

/// The old row of a change, and the new one.
fn rows<'c, 'a>(change: &'c Change<'a>) -> [Option<&'c Tuple<'a>>; 2] {
    let key = |old: &'c OldTuple<'a>| match old {
        OldTuple::Key(tuple) | OldTuple::Full(tuple) => tuple,
    };
    match change {
        Change::Insert { new, .. } => [None, Some(new)],
        Change::Update { old, new, .. } => [old.as_ref().map(key), Some(new)],
        Change::Delete { old, .. } => [Some(key(old)), None],
        _ => [None, None],
    }
}

/// A value without what it borrows; `None` where the log has none.
fn owned(value: Value<'_>) -> Option<Option<Vec<u8>>> {
    match value {
        Value::Text(text) => Some(Some(text.to_vec())),
        Value::Null => Some(None),
        Value::Unchanged => None,
    }
}

fn assert_same(columns: &[String], tuple: &Tuple<'_>, row: &Json) {
    assert_eq!(tuple.len(), columns.len());
    let named: Vec<(&str, Value<'_>)> =
        columns.iter().map(String::as_str).zip(values(tuple)).filter(|(_, value)| *value != Value::Unchanged).collect();
    let mut row: Vec<&Json> = row.as_array().expect("a row is an array").iter().collect();
    for (name, value) in named {
        let column = row.iter().position(|column| column["name"].as_str().expect("a name") == name);
        let column = row.remove(column.expect("the column is named"));
        match (value, &column["value"]) {
            (Value::Null, Json::Null) => {}
            (Value::Text(text), Json::String(string)) => assert_eq!(text, string.as_bytes()),
            (Value::Text(text), Json::Bool(bool)) => assert_eq!(text, if *bool { b"t" } else { b"f" }),
            // serde_json spells an exponent in its own way.
            (Value::Text(text), Json::Number(_)) => assert!(matches!(text[0], b'-' | b'0'..=b'9')),
            (value, json) => panic!("{value:?} for {json}"),
        }
    }
    assert!(row.is_empty(), "{row:?} is missing");
}

/// Decodes a message of the walsender, and a row of the binary COPY that brings the same in bulk.
pub fn walsender(data: &[u8]) {
    match stream::parse(data) {
        Ok(Event::Data { start, payload }) => {
            assert_eq!((data[0], &data[1..9], &data[25..]), (b'w', &start.0.to_be_bytes()[..], payload));
        }
        Ok(Event::Keepalive { wal_end }) => {
            assert_eq!((data[0], &data[1..9], data.len()), (b'k', &wal_end.0.to_be_bytes()[..], 18));
        }
        Err(error) => assert!(error.to_string().starts_with("the server sent a replication message"), "{error}"),
    }
    let piece = [b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0", data].concat();
    if let Ok(Some(row)) = Rows::default().row(&piece)
        && let Ok((lsn, payload)) = bulk::message(row)
    {
        assert_eq!((&data[..6], &data[6..14]), (&[0, 2, 0, 0, 0, 8][..], &lsn.0.to_be_bytes()[..]));
        assert_eq!((&data[14..18], &data[18..]), (&(payload.len() as u32).to_be_bytes()[..], payload));
    }
}
