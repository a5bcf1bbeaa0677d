//! Messages of a walsender and of the output plugins.

use serde_json::Value as Json;

use crate::replication::pgoutput::Pgoutput;
use crate::replication::stream::{self, Event};
use crate::replication::wal2json::{Wal2json, encoding_for};
use crate::replication::{Change, OldTuple, OutputPlugin, TableRef, Tuple, Value, bulk};

/// Decodes a message of pgoutput. A change, encoded again as pgoutput does, must give the same bytes; a truncated one
/// must be refused.
pub fn pgoutput(data: &[u8]) {
    let mut plugin = Pgoutput::new(vec!["p".to_owned()]);
    let Ok(change) = plugin.decode(data) else { return };
    let table = |out: &mut Vec<u8>, tag: u8, table: &TableRef<'_>| {
        let TableRef::Oid(oid) = table else { panic!("pgoutput names no tables in changes") };
        out.push(tag);
        out.extend(oid.to_be_bytes());
    };
    let mut out = Vec::new();
    match &change {
        Change::Insert { table: of, new } => {
            table(&mut out, b'I', of);
            write_tuple(&mut out, b'N', new);
        }
        Change::Update { table: of, old, new } => {
            table(&mut out, b'U', of);
            write_old(&mut out, old.as_ref());
            write_tuple(&mut out, b'N', new);
        }
        Change::Delete { table: of, old } => {
            table(&mut out, b'D', of);
            write_old(&mut out, Some(old));
        }
        Change::Truncate { tables } => assert_eq!(data.len(), 6 + 4 * tables.len()),
        Change::Relation(relation) => assert!(relation.columns.len() * 10 < data.len()),
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
    let Ok(change) = plugin.decode(data) else { return };
    let shown = format!("{change:?}");
    assert_eq!(format!("{:?}", plugin.decode(data).expect("what it took before")), shown);
    let change = plugin.decode(data).expect("what it took before");
    // A server in SQL_ASCII may send what serde_json does not take.
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (old, new) = match &change {
        Change::Insert { new, .. } => (None, Some(new)),
        Change::Update { old, new, .. } => (old.as_ref(), Some(new)),
        Change::Delete { old, .. } => (Some(old), None),
        _ => return,
    };
    let Ok(json) = serde_json::from_str::<Json>(text) else { return };
    if let Some(new) = new {
        assert_same(new, &json["columns"]);
    }
    if let Some(OldTuple::Key(old) | OldTuple::Full(old)) = old
        && !json["identity"].is_null()
    {
        assert_same(old, &json["identity"]);
    }
}

fn assert_same(tuple: &Tuple<'_>, row: &Json) {
    let row = row.as_array().expect("a row is an array");
    assert_eq!(tuple.len(), row.len());
    for (index, (value, column)) in values(tuple).zip(row).enumerate() {
        assert_eq!(tuple.name(index), column["name"].as_str().expect("a name").as_bytes());
        match (value, &column["value"]) {
            (Value::Null, Json::Null) => {}
            (Value::Text(text), Json::String(string)) => assert_eq!(text, string.as_bytes()),
            (Value::Text(text), Json::Bool(bool)) => assert_eq!(text, if *bool { b"t" } else { b"f" }),
            // serde_json spells an exponent in its own way.
            (Value::Text(text), Json::Number(_)) => assert!(matches!(text[0], b'-' | b'0'..=b'9')),
            (value, json) => panic!("{value:?} for {json}"),
        }
    }
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
    if let Ok(Some((lsn, payload))) = bulk::parse(data) {
        assert_eq!((&data[..6], &data[6..14]), (&[0, 2, 0, 0, 0, 8][..], &lsn.0.to_be_bytes()[..]));
        assert_eq!((&data[14..18], &data[18..]), (&(payload.len() as u32).to_be_bytes()[..], payload));
    }
}
