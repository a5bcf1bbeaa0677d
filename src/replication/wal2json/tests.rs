//! The literals are what wal2json 2.5 on PostgreSQL 15 sent, but for those a test says it made up.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::replication::{RelationId, Value};

const BEGIN: &str =
    r#"{"action":"B","xid":767,"timestamp":"2026-11-22 07:04:19.287807+00","lsn":"0/19D5CC8","nextlsn":"0/19D5CF8"}"#;
const COMMIT: &str =
    r#"{"action":"C","xid":767,"timestamp":"2026-11-22 07:04:19.287807+00","lsn":"0/19D5CC8","nextlsn":"0/19D5CF8"}"#;
/// Every kind of value, its columns cut to what differs.
const INSERT: &str = r#"{"action":"I","xid":767,"timestamp":"2026-11-22 07:04:19.287807+00","lsn":"0/19D58B8","schema":"public","table":"wide","columns":[{"name":"id","value":9223372036854775807},{"name":"n","value":123456789012345678901234567890.1234567890},{"name":"f","value":1e+300},{"name":"r","value":1.5e-07},{"name":"b","value":true},{"name":"t","value":"a\"b\\c/\b\f\n\r\t\u0001\u001f é 😀"},{"name":"by","value":"deadbeef"},{"name":"bya","value":"{\"\\\\xde\",\"\\\\x00\"}"},{"name":"pi","value":"7"},{"name":"fl","value":"f"},{"name":"rw","value":"\\xcafe"},{"name":"ta","value":"{\"x,y\",\"\\\"q\\\"\",\"\",NULL}"},{"name":"ba","value":"{t,f,NULL}"},{"name":"hs","value":"\"a\"=>\"1\", \"b c\"=>NULL"},{"name":"mo","value":"$1,234.50"},{"name":"j","value":"{\"a\": [1, \"x\\n\"]}"},{"name":"s2","value":-5},{"name":"f8a","value":"{1.5,Infinity,NaN}"}]}"#;
/// NaN, Infinity and -Infinity in n, f and r.
const INSERT_NAN: &str = r#"{"action":"I","xid":767,"timestamp":"2026-11-22 07:04:19.287807+00","lsn":"0/19D5B88","schema":"public","table":"wide","columns":[{"name":"id","value":1},{"name":"n","value":null},{"name":"f","value":null},{"name":"r","value":null},{"name":"b","value":false}]}"#;
const INSERT_EMPTY: &str = r#"{"action":"I","xid":779,"timestamp":"2026-11-22 07:04:19.291154+00","lsn":"0/19D9D58","schema":"public","table":"empty_t","columns":[]}"#;
const INSERT_ODD: &str = r#"{"action":"I","xid":781,"timestamp":"2026-11-22 07:04:19.291613+00","lsn":"0/19D9ED0","schema":"Odd \"S\", *x.y\\z","table":"tä'b \"le\"*","columns":[{"name":"id","value":1},{"name":"na\\me \"q\"\tü","value":"v"}]}"#;
const UPDATE: &str = r#"{"action":"U","xid":772,"timestamp":"2026-11-22 07:04:19.290154+00","lsn":"0/19D9860","schema":"public","table":"uidx","columns":[{"name":"a","value":1},{"name":"b","value":"c"},{"name":"c","value":10}],"identity":[{"name":"c","value":10}]}"#;
const UPDATE_TOAST: &str = r#"{"action":"U","xid":769,"timestamp":"2026-11-22 07:04:19.28925+00","lsn":"0/19D9270","schema":"public","table":"toasty","columns":[{"name":"id","value":1},{"name":"small","value":"t"}],"identity":[{"name":"id","value":1}]}"#;
const UPDATE_KEY: &str = r#"{"action":"U","xid":769,"timestamp":"2026-11-22 07:04:19.28925+00","lsn":"0/19D9308","schema":"public","table":"toasty","columns":[{"name":"id","value":2},{"name":"small","value":"t"}],"identity":[{"name":"id","value":1}]}"#;
/// REPLICA IDENTITY FULL (the long value shortened): the identity is the whole old row.
const UPDATE_FULL: &str = r#"{"action":"U","xid":768,"timestamp":"2026-11-22 07:04:19.288588+00","lsn":"0/19D6AF8","schema":"public","table":"full_t","columns":[{"name":"a","value":1},{"name":"c","value":"z"}],"identity":[{"name":"a","value":1},{"name":"b","value":"xx"},{"name":"c","value":null}]}"#;
const DELETE: &str = r#"{"action":"D","xid":775,"timestamp":"2026-11-22 07:04:19.29043+00","lsn":"0/19D9AE8","schema":"public","table":"uidx","identity":[{"name":"c","value":11}]}"#;
const TRUNCATE: &str = r#"{"action":"T","xid":784,"timestamp":"2026-11-22 07:04:19.292803+00","lsn":"0/19DAD08","schema":"public","table":"part_1"}"#;
const MESSAGE: &str = r#"{"action":"M","xid":null,"timestamp":null,"lsn":"0/19DD5D8","transactional":false,"prefix":"pfx","content":"nontx"}"#;
/// With the options that this program does not ask for.
const TALKATIVE: &str = r#"{"action":"I","origin":0,"schema":"public","table":"wide","columns":[{"name":"id","type":"bigint","typeoid":20,"value":1,"optional":false,"position":1,"default":null}],"pk":[{"name":"id","type":"bigint","typeoid":20}]}"#;

const ALL: [&str; 14] = [
    BEGIN,
    COMMIT,
    INSERT,
    INSERT_NAN,
    INSERT_EMPTY,
    INSERT_ODD,
    UPDATE,
    UPDATE_TOAST,
    UPDATE_KEY,
    UPDATE_FULL,
    DELETE,
    TRUNCATE,
    MESSAGE,
    TALKATIVE,
];

fn decoder() -> Wal2json {
    Wal2json::new(&[], None)
}

fn in_encoding(name: &str) -> Wal2json {
    Wal2json::new(&[], encoding_for(name).unwrap())
}

/// The relations that a decoder's messages had.
#[derive(Default)]
struct Relations(HashMap<RelationId, (String, Vec<String>)>);

impl Relations {
    /// The message in words, so that a test can compare a whole one. What a row lacks is left out.
    fn show(&mut self, message: Message<'_>) -> String {
        if let Some(relation) = &message.relation {
            assert_eq!((relation.oid, relation.replica_identity), (None, None));
            assert!(relation.columns.iter().all(|column| column.key && column.ty.is_none()));
            let columns = relation.columns.iter().map(|column| column.name.to_owned()).collect();
            self.0.insert(relation.id, (format!("[{}].[{}]", relation.schema, relation.name), columns));
        }
        let table = |relation: &RelationId| &self.0[relation].0;
        let row = |relation: &RelationId, tuple: Tuple<'_>| {
            let columns = &self.0[relation].1;
            assert_eq!(tuple.len(), columns.len());
            let cells = columns.iter().enumerate().filter_map(|(index, name)| match tuple.value(index).unwrap() {
                Value::Null => Some(format!("{name}=NULL")),
                Value::Unchanged => None,
                Value::Text(text) => Some(format!("{name}='{}'", String::from_utf8_lossy(text))),
            });
            cells.collect::<Vec<_>>().join(" ")
        };
        let key = |old| match old {
            OldTuple::Key(tuple) => tuple,
            OldTuple::Full(_) => panic!("wal2json can't tell that it is the whole row"),
        };
        match message.change {
            Change::Insert { relation: of, new } => format!("insert {} new {}", table(&of), row(&of, new)),
            Change::Update { relation: of, old: Some(old), new } => {
                format!("update {} old {} new {}", table(&of), row(&of, key(old)), row(&of, new))
            }
            Change::Update { relation: of, old: None, new } => format!("update {} new {}", table(&of), row(&of, new)),
            Change::Delete { relation: of, old } => format!("delete {} old {}", table(&of), row(&of, key(old))),
            Change::Truncate { relations } => {
                format!("truncate {}", relations.iter().map(table).cloned().collect::<String>())
            }
            other => {
                assert_eq!(message.relation, None);
                format!("{other:?}")
            }
        }
    }
}

fn show(message: Message<'_>) -> String {
    Relations::default().show(message)
}

fn read(payload: impl AsRef<[u8]>) -> Result<String> {
    decoder().decode(payload.as_ref()).map(show)
}

/// An insert into `s.t` whose only column `c` has this JSON token. Made up.
fn value(token: &str) -> Result<String> {
    read(format!(r#"{{"action":"I","schema":"s","table":"t","columns":[{{"name":"c","value":{token}}}]}}"#))
        .map(|shown| shown.trim_start_matches("insert [s].[t] new c=").to_owned())
}

fn fails_with(payload: impl AsRef<[u8]>, message: &str) {
    let error = read(payload).unwrap_err().to_string();
    assert!(error.contains(message), "{error}");
}

#[test]
fn transactions() {
    assert_eq!(
        decoder().decode(BEGIN.as_bytes()).unwrap().change,
        Change::Begin { commit_lsn: Lsn(0x19d_5cc8), commit_time: 1_795_331_059_287_807, xid: 767 }
    );
    assert_eq!(decoder().decode(COMMIT.as_bytes()).unwrap().change, Change::Commit { end_lsn: Lsn(0x19d_5cf8) });
    assert_eq!(decoder().decode(MESSAGE.as_bytes()).unwrap(), Message { relation: None, change: Change::Other });
}

#[test]
fn values_become_the_text_that_postgres_prints() {
    assert_eq!(
        read(INSERT).unwrap(),
        "insert [public].[wide] new id='9223372036854775807' n='123456789012345678901234567890.1234567890' \
         f='1e+300' r='1.5e-07' b='t' t='a\"b\\c/\u{8}\u{c}\n\r\t\u{1}\u{1f} é 😀' by='deadbeef' \
         bya='{\"\\\\xde\",\"\\\\x00\"}' pi='7' fl='f' rw='\\xcafe' ta='{\"x,y\",\"\\\"q\\\"\",\"\",NULL}' \
         ba='{t,f,NULL}' hs='\"a\"=>\"1\", \"b c\"=>NULL' mo='$1,234.50' j='{\"a\": [1, \"x\\n\"]}' s2='-5' \
         f8a='{1.5,Infinity,NaN}'"
    );
    assert_eq!(read(INSERT_NAN).unwrap(), "insert [public].[wide] new id='1' n=NULL f=NULL r=NULL b='f'");
}

#[test]
fn rows() {
    for (payload, expected) in [
        (INSERT_EMPTY, "insert [public].[empty_t] new "),
        (INSERT_ODD, "insert [Odd \"S\", *x.y\\z].[tä'b \"le\"*] new id='1' na\\me \"q\"\tü='v'"),
        (UPDATE, "update [public].[uidx] old c='10' new a='1' b='c' c='10'"),
        (UPDATE_TOAST, "update [public].[toasty] old id='1' new id='1' small='t'"),
        (UPDATE_KEY, "update [public].[toasty] old id='1' new id='2' small='t'"),
        (UPDATE_FULL, "update [public].[full_t] old a='1' b='xx' c=NULL new a='1' c='z'"),
        (DELETE, "delete [public].[uidx] old c='11'"),
        (TRUNCATE, "truncate [public].[part_1]"),
        (TALKATIVE, "insert [public].[wide] new id='1'"),
        // Made up: without an old row wal2json leaves the identity out.
        (r#"{"action":"U","schema":"s","table":"t","columns":[]}"#, "update [s].[t] new "),
        (r#"{"action":"D","schema":"s","table":"t"}"#, "delete [s].[t] old "),
    ] {
        assert_eq!(read(payload).unwrap(), expected);
    }
}

/// Made up: what JSON allows and wal2json doesn't write.
#[test]
fn order_and_white_space_and_escaped_keys_do_not_matter() {
    let payload = r#" {"identity" : [ {"value":1 , "name":"id"} ] , "x":[[{"y":[1,"]"]}],{}],
        "t\u0061ble":"t", "columns":[{"x":{},"value":"a\tb","name":"n\u00e4\u006de"}], "schema":"\u0073", "action":"U"} "#;
    assert_eq!(read(payload).unwrap(), "update [s].[t] old id='1' new näme='a\tb'");
}

#[test]
fn strings_that_look_like_something_else() {
    for (token, expected) in [
        (r#""""#, "''"),
        (r#""null""#, "'null'"),
        (r#""}],\"identity\":[{""#, r#"'}],"identity":[{'"#),
        (r#""\\\"""#, r#"'\"'"#),
        (r#""\\""#, r"'\'"),
        (r#""a\/b""#, "'a/b'"),
        ("true", "'t'"),
        ("false", "'f'"),
        ("null", "NULL"),
    ] {
        assert_eq!(value(token).unwrap(), expected);
    }
}

#[test]
fn escapes_of_characters() {
    for (token, expected) in [
        (r#""\u00e9\u20AC""#, "'é€'"),
        (r#""\ud83d\ude00!""#, "'😀!'"),
        (r#""\ud83d""#, "'\u{fffd}'"),
        (r#""\ud83dx""#, "'\u{fffd}x'"),
        (r#""\ud83d\n""#, "'\u{fffd}\n'"),
        (r#""\ud83d\u0041""#, "'\u{fffd}A'"),
        (r#""\ude00\ud83d\ude00""#, "'\u{fffd}😀'"),
        (r#""\ud83d\ud83d\ude00""#, "'\u{fffd}😀'"),
        (r#""\u0000""#, "'\0'"),
    ] {
        assert_eq!(value(token).unwrap(), expected);
    }
    for token in [r#""\u12""#, r#""\u12G4""#, r#""\u+123""#, r#""\x41""#, r#""\ud83d\u""#, r#""\"#] {
        assert!(value(token).is_err(), "{token}");
    }
}

#[test]
fn numbers_keep_every_digit() {
    let long = format!("-{}.{}", "9".repeat(1000), "0".repeat(1000));
    for token in ["0", "-0", "0.0200", "1e+300", "1E-7", "-5", &long] {
        assert_eq!(value(token).unwrap(), format!("'{token}'"));
    }
    for token in ["-", "1.", ".5", "1e", "1e+", "+1", "1x", "0x1", "1-2", "NaN", "Infinity", "-Infinity"] {
        assert!(value(token).is_err(), "{token}");
    }
}

#[test]
fn bytes_that_are_not_utf8_pass_in_values() {
    let payload = b"{\"action\":\"I\",\"schema\":\"s\",\"table\":\"t\",\"columns\":[{\"name\":\"\xe9\",\"value\":\"\xff\\n\xe9\"}]}";
    let mut decoder = decoder();
    let message = decoder.decode(payload).unwrap();
    assert_eq!(message.relation.unwrap().columns[0].name, "\u{fffd}");
    let Change::Insert { new, .. } = message.change else { panic!() };
    assert_eq!(new.value(0), Some(Value::Text(b"\xff\n\xe9")));
    fails_with(b"{\"action\":\"T\",\"schema\":\"s\",\"table\":\"\xe9\"}", "no table in UTF-8 in it");
}

#[test]
fn payloads_in_the_servers_encoding() {
    let payload = b"{\"action\":\"I\",\"schema\":\"s\",\"table\":\"t\xe4\",\"columns\":[{\"name\":\"\xfc\",\"value\":\"\xa4\x80\\n\"}]}";
    for (encoding, expected) in [
        ("LATIN1", "insert [s].[tä] new ü='¤\u{80}\n'"),
        ("LATIN9", "insert [s].[tä] new ü='€\u{80}\n'"),
        ("WIN1252", "insert [s].[tä] new ü='¤€\n'"),
        ("WIN1251", "insert [s].[tд] new ь='¤Ђ\n'"),
    ] {
        let mut decoder = in_encoding(encoding);
        let mut relations = Relations::default();
        assert_eq!(relations.show(decoder.decode(payload).unwrap()), expected);
        assert_eq!(relations.show(decoder.decode(payload).unwrap()), expected);
        assert_eq!(relations.show(decoder.decode(DELETE.as_bytes()).unwrap()), "delete [public].[uidx] old c='11'");
    }
}

/// Its content is in no known encoding, and wal2json may even cut it in the middle of a character.
#[test]
fn a_logical_message_is_not_decoded() {
    let payload = [MESSAGE.split("nontx").next().unwrap().as_bytes(), b"\xff\xfe\\"].concat();
    assert_eq!(in_encoding("EUC_JP").decode(&payload).unwrap().change, Change::Other);
    // Made up: with another order it is at least nothing worse.
    assert_eq!(read(r#"{"content":"x","timestamp":null,"action":"M"}"#).unwrap(), "Other");
}

#[test]
fn one_decoder_reads_message_after_message() {
    let mut decoder = decoder();
    let mut relations = Relations::default();
    for payload in ALL.iter().chain(ALL.iter().rev()) {
        assert_eq!(relations.show(decoder.decode(payload.as_bytes()).unwrap()), read(payload).unwrap());
        assert!(decoder.decode(&payload.as_bytes()[..payload.len() / 2]).is_err() || *payload == MESSAGE);
    }
}

#[test]
fn every_truncation_is_an_error() {
    for payload in ALL {
        for len in 0..payload.len() {
            match read(&payload.as_bytes()[..len]) {
                Err(_) => {}
                Ok(shown) => assert_eq!(shown, "Other"),
            }
        }
        assert!(read(format!("{payload}}}")).is_err() || payload == MESSAGE);
    }
}

#[test]
fn errors_say_what_and_where() {
    fails_with("", "malformed message from wal2json at byte 0 of 0: an object was expected");
    fails_with("[]", "at byte 0 of 2: an object was expected");
    fails_with("{}", "at byte 2 of 2: no action in it");
    fails_with(r#"{"action":"X"}"#, "at byte 14 of 14: unknown action");
    fails_with(r#"{"action":"I" "x":1}"#, "at byte 14 of 20: a comma or the end of the object was expected");
    fails_with(r#"{"action":"I",}"#, "at byte 14 of 15: a string was expected");
    fails_with(r#"{"action":"T","schema":"s"}"#, "no table in UTF-8 in it");
    fails_with(r#"{"action":"T","table":"s"}"#, "no schema in UTF-8 in it");
    fails_with(r#"{"action":"I","schema":"s","table":"t"}"#, "no columns in it");
    fails_with(BEGIN.replace("767", "-1"), "no xid in it");
    fails_with(BEGIN.replace(":04:", ":64:"), "no commit time in it");
    fails_with(BEGIN.replace("0/19D5CC8", "19D5CC8"), "no position `lsn` in it");
    fails_with(COMMIT.replace("nextlsn", "nextlsm"), "no position `nextlsn` in it");
    fails_with(r#"{"columns":[{"name":"id"}]}"#, "at byte 25 of 27: a column without a value");
    fails_with(r#"{"columns":[{"value":1}]}"#, "at byte 23 of 25: a column without a name");
    fails_with(r#"{"columns":[{"name":"a","value":{}}]}"#, "at byte 32 of 37: a string, a number, a boolean or null");
    fails_with(r#"{"columns":{}}"#, "an array was expected");
    fails_with(r#"{"x":tru}"#, "at byte 5 of 9: unknown word");
    fails_with(format!(r#"{{"x":{}"#, "[".repeat(1_000_000)), "nested too deep");
}

#[test]
fn options_filter_tables_by_escaped_names() {
    let options = |tables: &[(&str, Option<&str>)]| {
        let tables: Vec<_> =
            tables.iter().map(|(schema, table)| (schema.to_string(), table.map(str::to_owned))).collect();
        Wal2json::new(&tables, None).options()
    };
    let add_tables = |tables: &[(&str, Option<&str>)]| options(tables).pop().unwrap();
    let named = |value: &str| ("add-tables".to_owned(), value.to_owned());
    assert_eq!(add_tables(&[("public", Some("t")), ("my schema", None)]), named(r"public.t,my\ schema.*"));
    assert_eq!(
        add_tables(&[(r#"Odd "S", *x.y\z"#, Some("tä'b \"le\"*"))]),
        named(r#"Odd\ "S"\,\ \*x\.y\\z.tä\'b\ "le"\*"#)
    );
    assert_eq!(add_tables(&[("public", Some("*")), ("s", Some("a\tb\n"))]), named("public.\\*,s.a\\\tb\\\n"));
    assert_eq!(add_tables(&[]), named(""));
    assert!(options(&[]).contains(&("format-version".to_owned(), "2".to_owned())));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(payload: Vec<u8>) {
        let _ = read(payload);
    }

    #[test]
    fn no_mutation_makes_it_panic(
        message in prop::sample::select(ALL.to_vec()),
        changes in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(br#"{}[]":,\u0dt-1e "#.to_vec())), 1..4),
        encoding in prop::sample::select(vec!["UTF8", "LATIN1", "EUC_JP", "KOI8U"]),
    ) {
        let mut payload = message.as_bytes().to_vec();
        for (at, byte) in changes {
            let at = at.index(payload.len());
            payload[at] = byte;
        }
        let fresh = in_encoding(encoding).decode(&payload).map(show).map_err(|error| error.to_string());
        // Nor does what came before change what it says, but for the order of what it names.
        let mut decoder = in_encoding(encoding);
        let mut relations = Relations::default();
        relations.show(decoder.decode(message.as_bytes()).unwrap());
        let next = decoder.decode(&payload).map(|next| relations.show(next)).map_err(|error| error.to_string());
        let sorted = |shown: Result<String, String>| {
            let mut bytes = shown.map(String::into_bytes);
            let _ = bytes.as_mut().map(|bytes| bytes.sort_unstable());
            bytes
        };
        prop_assert_eq!(sorted(next), sorted(fresh));
    }

    #[test]
    fn strings_come_back(text: String) {
        let token = serde_json::to_string(&text).unwrap();
        prop_assert_eq!(value(&token).unwrap(), format!("'{text}'"));
    }
}
