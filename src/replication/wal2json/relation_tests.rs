//! Relations that come of the names in rows. The messages are made up, as wal2json 2.5 writes them.

use super::*;
use crate::replication::{RelationId, Value};

/// A decoder, and how many messages of it had a relation.
struct Reader {
    decoder: Wal2json,
    relations: usize,
}

/// `{"name":"id","value":1},…` of `id=1 …`.
fn columns(row: &str) -> String {
    let column = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap();
        format!(r#"{{"name":"{name}","value":{value}}}"#)
    };
    format!("[{}]", row.split_whitespace().map(column).collect::<Vec<_>>().join(","))
}

impl Reader {
    fn new() -> Reader {
        Reader { decoder: Wal2json::new(&[], None), relations: 0 }
    }

    /// The relation in front, as its names, and the rows with `-` for what is not in the log.
    fn read_of(&mut self, table: &str, action: &str, new: Option<&str>, old: Option<&str>) -> (Option<String>, String) {
        let mut payload = format!(r#"{{"action":"{action}","schema":"s","table":"{table}""#);
        for (member, row) in [("columns", new), ("identity", old)] {
            payload += &row.map(|row| format!(r#","{member}":{}"#, columns(row))).unwrap_or_default();
        }
        payload.push('}');
        let message = self.decoder.decode(payload.as_bytes()).unwrap();
        let names = |columns: Vec<_>| {
            columns
                .iter()
                .map(|column: &crate::replication::RelationColumn<'_>| column.name)
                .collect::<Vec<_>>()
                .join(" ")
        };
        let relation = message.relation.map(|relation| names(relation.columns));
        self.relations += usize::from(relation.is_some());
        let row = |tuple: Tuple<'_>| {
            let value = |at| match tuple.value(at).unwrap() {
                Value::Null => "null".to_owned(),
                Value::Unchanged => "-".to_owned(),
                Value::Text(text) => String::from_utf8_lossy(text).into_owned(),
            };
            (0..tuple.len()).map(value).collect::<Vec<_>>().join(" ")
        };
        let shown = match message.change {
            Change::Insert { new, .. } => row(new),
            Change::Update { old: Some(OldTuple::Key(old)), new, .. } => format!("{} -> {}", row(old), row(new)),
            Change::Update { new, .. } => row(new),
            Change::Delete { old: OldTuple::Key(old), .. } => row(old),
            other => format!("{other:?}"),
        };
        (relation, shown)
    }

    fn insert(&mut self, row: &str) -> (Option<String>, String) {
        self.read_of("t", "I", Some(row), None)
    }

    fn update(&mut self, new: &str, old: &str) -> (Option<String>, String) {
        self.read_of("t", "U", Some(new), Some(old))
    }

    fn delete(&mut self, old: &str) -> (Option<String>, String) {
        self.read_of("t", "D", None, Some(old))
    }
}

#[track_caller]
fn assert_reads(read: (Option<String>, String), relation: Option<&str>, rows: &str) {
    assert_eq!((read.0.as_deref(), read.1.as_str()), (relation, rows));
}

#[test]
fn the_first_row_is_described_and_the_next_is_not() {
    let mut reader = Reader::new();
    assert_reads(reader.insert("id=1 n=2 note=null"), Some("id n note"), "1 2 null");
    assert_reads(reader.insert("id=2 n=3 note=4"), None, "2 3 4");
    assert_reads(reader.update("id=2 n=3 note=5", "id=2"), None, "2 - - -> 2 3 5");
    assert_reads(reader.delete("id=2"), None, "2 - -");
    assert_reads(reader.delete("n=3"), None, "- 3 -");
}

#[test]
fn what_an_update_leaves_out_is_unchanged() {
    let mut reader = Reader::new();
    reader.insert("id=1 a=1 b=2 c=3");
    assert_reads(reader.update("id=1 a=2 c=3", "id=1"), None, "1 - - - -> 1 2 - 3");
    assert_reads(reader.update("c=4", "id=1"), None, "1 - - - -> - - - 4");
    // Under FULL the old row has it.
    assert_reads(reader.update("id=1 a=2", "id=1 a=null b=2 c=3"), None, "1 null 2 3 -> 1 2 - -");
    assert_reads(reader.read_of("t", "U", Some("id=1"), None), None, "1 - - -");
}

#[test]
fn columns_are_added_renamed_and_dropped() {
    let mut reader = Reader::new();
    reader.insert("id=1 n=2");
    assert_reads(reader.insert("id=1 n=2 more=3"), Some("id n more"), "1 2 3");
    assert_reads(reader.insert("id=1 m=2 more=3"), Some("id m more"), "1 2 3");
    assert_reads(reader.insert("id=1 more=3"), Some("id more"), "1 3");
    assert_reads(reader.insert("id=1 more=3"), None, "1 3");
    // An update may have left out the column that was, so that it stays until an insert lacks it.
    assert_reads(reader.update("id=1 less=3", "id=1"), Some("id more less"), "1 - - -> 1 - 3");
    assert_reads(reader.insert("id=1 less=3"), Some("id less"), "1 3");
    // Dropped and made again it stands last.
    assert_reads(reader.insert("id=1 less=3 x=4"), Some("id less x"), "1 3 4");
    assert_reads(reader.insert("id=1 x=4 less=3"), Some("id x less"), "1 4 3");
    assert_reads(reader.update("id=1 less=4 x=5", "id=1"), Some("id less x"), "1 - - -> 1 4 5");
}

#[test]
fn updates_that_leave_out_different_columns_in_turn() {
    let mut reader = Reader::new();
    assert_reads(reader.update("id=1 a=1", "id=1"), Some("id a"), "1 - -> 1 1");
    assert_reads(reader.update("id=1 b=2", "id=1"), Some("id a b"), "1 - - -> 1 - 2");
    for _ in 0..3 {
        assert_reads(reader.update("id=1 a=1", "id=1"), None, "1 - - -> 1 1 -");
        assert_reads(reader.update("id=1 b=2", "id=1"), None, "1 - - -> 1 - 2");
    }
    // The order was a guess, and one row that has them all sets it right.
    assert_reads(reader.update("b=2 a=1", "id=1"), None, "1 - - -> - 1 2");
    assert_reads(reader.update("b=1 id=2 a=3", "id=1"), Some("b id a"), "- 1 - -> 1 2 3");
    assert_reads(reader.insert("b=1 id=2 a=3"), None, "1 2 3");
    // It shows in the old row alone.
    assert_reads(reader.update("b=1 a=3", "b=1 id=2 c=3 a=4"), Some("b id c a"), "1 2 3 4 -> 1 - - 3");
    assert_eq!(reader.relations, 4);
}

#[test]
fn a_delete_comes_first() {
    let mut reader = Reader::new();
    assert_reads(reader.delete("b=1"), Some("b"), "1");
    assert_reads(reader.delete("b=2"), None, "2");
    assert_reads(reader.update("a=1 b=2 c=3", "b=1"), Some("a b c"), "- 1 - -> 1 2 3");
    assert_reads(reader.delete("b=3"), None, "- 3 -");
    // Nothing is known of a row without an identity.
    assert_reads(reader.read_of("t", "D", None, None), None, "- - -");
}

#[test]
fn two_tables_take_turns() {
    let mut reader = Reader::new();
    for relation in [true, false, false] {
        let read = reader.read_of("t", "I", Some("id=1 a=2"), None);
        assert_reads(read, relation.then_some("id a"), "1 2");
        let read = reader.read_of("u", "I", Some("id=1 b=2 a=3"), None);
        assert_reads(read, relation.then_some("id b a"), "1 2 3");
    }
    assert_reads(reader.delete("a=1"), None, "- 1");
    let truncate = |id| format!("{:?}", Change::Truncate { relations: vec![RelationId(id)] });
    assert_reads(reader.read_of("u", "T", None, None), None, &truncate(1));
    // A table without a row is described all the same, and as soon as it has one, anew.
    assert_reads(reader.read_of("v", "T", None, None), Some(""), &truncate(2));
    assert_reads(reader.read_of("v", "I", Some("id=1"), None), Some("id"), "1");
}

#[test]
fn names_with_escapes() {
    let mut reader = Reader::new();
    let row = r#"a\"b=1 c\\d="x\ty" \u00e4="z""#;
    assert_reads(reader.insert(row), Some("a\"b c\\d ä"), "1 x\ty z");
    assert_reads(reader.insert(row), None, "1 x\ty z");
    // Spelt otherwise it is the same column.
    assert_reads(reader.insert(r#"a\u0022b=2 c\\d="x" ä="z""#), None, "2 x z");
    assert_reads(reader.update(r#"ä="z""#, r#"a\"b=1"#), None, "1 - - -> - - z");
    let message = reader.decoder.decode(br#"{"action":"T","schema":"\"s","table":"\\"}"#).unwrap();
    let relation = message.relation.unwrap();
    assert_eq!((relation.schema, relation.name), ("\"s", "\\"));
}

/// wal2json writes nothing of the kind.
#[test]
fn odd_rows() {
    let mut reader = Reader::new();
    assert_reads(reader.insert("x=1 x=2"), Some("x x"), "1 2");
    assert_reads(reader.insert("x=1"), Some("x"), "1");
    assert_reads(reader.update("x=1 x=2 y=3", "y=1"), Some("x x y"), "- - 1 -> 1 2 3");
    assert_reads(reader.insert(""), Some(""), "");
    assert_reads(reader.insert(""), None, "");
    let payload = br#"{"action":"I","schema":"s","columns":[{"name":"y","value":1}],"table":"t"}"#;
    assert_eq!(reader.decoder.decode(payload).unwrap().relation.map(|relation| relation.columns.len()), Some(1));
    assert_eq!(reader.decoder.decode(payload).unwrap().relation, None);
    let row = r#""columns":[{"name":"y","value":1}]"#;
    for tail in [r#""table":"u""#.to_owned(), format!(r#""table":"u",{row}"#)] {
        let payload = format!(r#"{{"action":"U","schema":"s","table":"t",{row},{tail}}}"#);
        let error = reader.decoder.decode(payload.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("more than one table"), "{error}");
    }
    // What it had to say of a message that failed, it says with the next.
    let mut reader = Reader::new();
    assert!(
        reader
            .decoder
            .decode(br#"{"action":"I","schema":"s","table":"t","columns":[{"name":"id","value":1}]"#)
            .is_err()
    );
    assert_reads(reader.insert("id=1"), Some("id"), "1");
}
