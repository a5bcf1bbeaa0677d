//! The literals are what PostgreSQL 15 sent, but for those a test says it made up.

use proptest::prelude::*;

use super::*;
use crate::replication::Value;

const BEGIN: &[u8] = b"B\0\0\0\0\x01\x9d\\\xc8\0\x03\x03\xd6\xda\xd3&\xff\0\0\x02\xff";
const COMMIT: &[u8] = b"C\0\0\0\0\0\x01\x9d\\\xc8\0\0\0\0\x01\x9d\\\xf8\0\x03\x03\xd6\xda\xd3&\xff";
const RELATION: &[u8] = b"R\0\0@\x98Odd \"S\", *x.y\\z\0t\xc3\xa4'b \"le\"*\0d\0\x02\
    \x01id\0\0\0\0\x17\xff\xff\xff\xff\0na\\me \"q\"\x09\xc3\xbc\0\0\0\0\x19\xff\xff\xff\xff";
const RELATION_EMPTY: &[u8] = b"R\0\0@\xcdpublic\0empty_t\0d\0\0";
const INSERT: &[u8] = b"I\0\0@\xc7N\0\x02t\0\0\0\x011n";
const INSERT_EMPTY: &[u8] = b"I\0\0@\xcdN\0\0";
const UPDATE: &[u8] = b"U\0\0@\xbfN\0\x03t\0\0\0\x011t\0\0\0\x01ct\0\0\0\x0210";
const UPDATE_TOAST: &[u8] = b"U\0\0@\xb0N\0\x03t\0\0\0\x011ut\0\0\0\x01t";
const UPDATE_KEY: &[u8] = b"U\0\0@\xb0K\0\x03t\0\0\0\x011nnN\0\x03t\0\0\0\x012ut\0\0\0\x01t";
/// A table with REPLICA IDENTITY FULL (its long value shortened): the old row has what the new one leaves out.
const UPDATE_FULL: &[u8] = b"U\0\0@\xabO\0\x03t\0\0\0\x011t\0\0\0\x02xxnN\0\x03t\0\0\0\x011ut\0\0\0\x01z";
const DELETE_KEY: &[u8] = b"D\0\0@\xbfK\0\x03nnt\0\0\0\x0211";
const DELETE_FULL: &[u8] = b"D\0\0@\xabO\0\x03t\0\0\0\x012t\0\0\0\x01bt\0\0\0\x01c";
const TRUNCATE: &[u8] = b"T\0\0\0\x01\0\0\0@\xd5";
const TRUNCATE_CASCADE: &[u8] = b"T\0\0\0\x02\x01\0\0@\xa4\0\0@\xb0";
const TRUNCATE_RESTART: &[u8] = b"T\0\0\0\x01\x02\0\0@\xb7";
const TYPE: &[u8] = b"Y\0\0@\x06public\0hstore\0";
const ORIGIN: &[u8] = b"O\0\0\0\0\0\0\0\x01o\0";
const MESSAGE: &[u8] = b"M\x01\0\0\0\0\x01\x9d\xd5\x98pfx\0\0\0\0\x0econtent \"q\" \xc3\xa9";

const ALL: [&[u8]; 18] = [
    BEGIN,
    COMMIT,
    RELATION,
    RELATION_EMPTY,
    INSERT,
    INSERT_EMPTY,
    UPDATE,
    UPDATE_TOAST,
    UPDATE_KEY,
    UPDATE_FULL,
    DELETE_KEY,
    DELETE_FULL,
    TRUNCATE,
    TRUNCATE_CASCADE,
    TRUNCATE_RESTART,
    TYPE,
    ORIGIN,
    MESSAGE,
];

fn row(tuple: Tuple<'_>) -> Vec<String> {
    (0..tuple.len())
        .map(|index| match tuple.value(index).unwrap() {
            Value::Null => "NULL".to_owned(),
            Value::Unchanged => "unchanged".to_owned(),
            Value::Text(text) => format!("'{}'", text.escape_ascii()),
        })
        .collect()
}

/// The message in words, so that a test can compare a whole one.
fn read(payload: &[u8]) -> Result<String> {
    let mut decoder = Pgoutput::default();
    Ok(show(decoder.decode(payload)?))
}

fn show(message: Message<'_>) -> String {
    if let Some(relation) = message.relation {
        assert_eq!(message.change, Change::Other);
        return format!("{relation:?}");
    }
    let old = |old| match old {
        OldTuple::Key(tuple) => format!("key {}", row(tuple).join(" ")),
        OldTuple::Full(tuple) => format!("full {}", row(tuple).join(" ")),
    };
    match message.change {
        Change::Insert { relation, new } => format!("insert {relation:?} new {}", row(new).join(" ")),
        Change::Update { relation, old: None, new } => format!("update {relation:?} new {}", row(new).join(" ")),
        Change::Update { relation, old: Some(tuple), new } => {
            format!("update {relation:?} {} new {}", old(tuple), row(new).join(" "))
        }
        Change::Delete { relation, old: tuple } => format!("delete {relation:?} {}", old(tuple)),
        other => format!("{other:?}"),
    }
}

fn fails_with(payload: &[u8], message: &str) {
    let error = read(payload).unwrap_err().to_string();
    assert!(error.contains(message), "{error}");
}

#[test]
fn transactions() {
    let mut decoder = Pgoutput::default();
    assert_eq!(
        decoder.decode(BEGIN).unwrap().change,
        Change::Begin { commit_lsn: Lsn(0x19d_5cc8), commit_time: 1_795_331_059_287_807, xid: 767 }
    );
    assert_eq!(decoder.decode(COMMIT).unwrap().change, Change::Commit { end_lsn: Lsn(0x19d_5cf8) });
    for other in [TYPE, ORIGIN, MESSAGE] {
        assert_eq!(decoder.decode(other).unwrap(), Message { relation: None, change: Change::Other });
    }
}

/// Made up: the ends of the range, which an origin's commit time of ±infinity really brings.
#[test]
fn commit_times_saturate() {
    let begin = |time: i64| [&BEGIN[..9], &time.to_be_bytes(), &BEGIN[17..]].concat();
    for (sent, unix) in [(i64::MAX, i64::MAX), (i64::MIN, i64::MIN + EPOCH_MICROS), (0, EPOCH_MICROS)] {
        let payload = begin(sent);
        let mut decoder = Pgoutput::default();
        let Change::Begin { commit_time, .. } = decoder.decode(&payload).unwrap().change else { panic!() };
        assert_eq!(commit_time, unix);
    }
}

#[test]
fn relations() {
    let mut decoder = Pgoutput::default();
    let column = |name, key, oid| RelationColumn { name, key, ty: Some(ColumnType { oid, typmod: -1 }) };
    assert_eq!(
        decoder.decode(RELATION).unwrap().relation,
        Some(Relation {
            id: RelationId(0x4098),
            oid: Some(0x4098),
            schema: r#"Odd "S", *x.y\z"#,
            name: r#"tä'b "le"*"#,
            replica_identity: Some(b'd'),
            columns: vec![column("id", true, 23), column("na\\me \"q\"\tü", false, 25)],
        })
    );
    // Made up: a published table of pg_catalog can't be had on an ordinary server.
    let relation = decoder.decode(b"R\0\0\0\x01\0x\0n\0\0").unwrap().relation;
    assert_eq!(relation.unwrap().schema, "pg_catalog");
}

#[test]
fn rows() {
    for (payload, expected) in [
        (INSERT, "insert RelationId(16583) new '1' NULL"),
        (INSERT_EMPTY, "insert RelationId(16589) new "),
        (UPDATE, "update RelationId(16575) new '1' 'c' '10'"),
        (UPDATE_TOAST, "update RelationId(16560) new '1' unchanged 't'"),
        (UPDATE_KEY, "update RelationId(16560) key '1' NULL NULL new '2' unchanged 't'"),
        (UPDATE_FULL, "update RelationId(16555) full '1' 'xx' NULL new '1' unchanged 'z'"),
        (DELETE_KEY, "delete RelationId(16575) key NULL NULL '11'"),
        (DELETE_FULL, "delete RelationId(16555) full '2' 'b' 'c'"),
        (TRUNCATE, "Truncate { relations: [RelationId(16597)] }"),
        (TRUNCATE_CASCADE, "Truncate { relations: [RelationId(16548), RelationId(16560)] }"),
        (TRUNCATE_RESTART, "Truncate { relations: [RelationId(16567)] }"),
    ] {
        assert_eq!(read(payload).unwrap(), expected);
    }
}

#[test]
fn a_value_keeps_its_bytes() {
    // Made up: what a SQL_ASCII server may send.
    assert_eq!(read(b"I\0\0\0\x01N\0\x01t\0\0\0\x03\xff\0\xe9").unwrap(), r"insert RelationId(1) new '\xff\x00\xe9'");
}

#[test]
fn one_decoder_reads_message_after_message() {
    let mut decoder = Pgoutput::default();
    for payload in ALL.iter().chain(ALL.iter().rev()) {
        assert_eq!(show(decoder.decode(payload).unwrap()), read(payload).unwrap());
        assert!(decoder.decode(&payload[..payload.len() / 2]).is_err() || matches!(payload[0], b'Y' | b'O' | b'M'));
    }
}

#[test]
fn every_truncation_is_an_error() {
    for payload in ALL {
        for len in 0..payload.len() {
            match read(&payload[..len]) {
                Err(_) => {}
                Ok(shown) => assert_eq!(shown, "Other"),
            }
        }
        let longer = [payload, b"\0"].concat();
        assert!(read(&longer).is_err() || read(payload).unwrap() == "Other");
    }
}

#[test]
fn errors_say_what_and_where() {
    fails_with(b"", "malformed empty message from pgoutput at byte 0 of 0: it ends too early");
    fails_with(b"S\0\0\0\x01\x01", "malformed `S` message from pgoutput at byte 0 of 6: unknown kind of message");
    fails_with(b"\xff", r"malformed `\xff` message");
    fails_with(b"C\x01\0\0", "at byte 2 of 4: unknown flags of a commit");
    fails_with(b"I\0\0\0\x01K\0\0", "at byte 6 of 8: unknown kind of row");
    fails_with(b"U\0\0\0\x01K\0\0X\0\0", "at byte 9 of 11: unknown kind of row");
    fails_with(b"D\0\0\0\x01N\0\0", "bytes after its end");
    fails_with(b"D\0\0\0\x01N", "a delete without its old row");
    fails_with(b"I\0\0\0\x01N\0\x01b\0\0\0\x01\0", "at byte 9 of 14: a value in binary form, which was not asked for");
    fails_with(b"I\0\0\0\x01N\0\x01t\xff\xff\xff\xffsecret", "at byte 13 of 19: it ends too early");
    fails_with(b"I\0\0\0\x01N\xff\xffn", "it ends too early");
    fails_with(b"I\0\0\0\x01N\0\x01x", "unknown kind of value");
    fails_with(b"R\0\0\0\x01public", "at byte 5 of 11: a name without an end");
    fails_with(b"R\0\0\0\x01\xe9\0", "at byte 5 of 7: a name that is not UTF-8");
    fails_with(b"T\xff\xff\xff\xff\0\0\0\0\x01", "it ends too early");
}

#[test]
fn options_quote_publication_names() {
    let options = Pgoutput::new(vec!["p1".to_owned(), "we\"ird, p".to_owned()]).options();
    assert_eq!(
        options,
        [("proto_version", "1"), ("publication_names", r#""p1","we""ird, p""#)]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
    );
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(kind in prop::sample::select(b"BCRIUDTYOM?".to_vec()), rest: Vec<u8>) {
        let payload = [&[kind], rest.as_slice()].concat();
        let _ = read(&payload);
    }

    #[test]
    fn no_mutation_makes_it_panic(
        message in prop::sample::select(ALL.to_vec()),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut payload = message.to_vec();
        for (at, byte) in changes {
            let at = at.index(payload.len());
            payload[at] = byte;
        }
        let _ = read(&payload);
    }
}
