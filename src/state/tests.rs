use serde_json::{Value, json};

use super::*;
use crate::pg::Lsn;
use ReplicationMethod::{FullTable, Incremental, LogBased};

fn parse(text: &str) -> State {
    State::parse("state.json", text).unwrap()
}

fn from(value: Value) -> State {
    parse(&value.to_string())
}

/// Returns a state with one bookmark.
fn with(bookmark: Value) -> State {
    from(json!({"bookmarks": {"public-a": bookmark}}))
}

fn written(state: &State) -> String {
    let mut out = Vec::new();
    state.write_state_value(&mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn empty_forms() {
    for text in ["", " \n", "null", "{}", r#"{"bookmarks": null}"#, r#"{"bookmarks": {}, "currently_syncing": null}"#] {
        let state = parse(text);
        assert_eq!(state, State::default(), "{text}");
        assert_eq!(written(&state), r#"{"bookmarks":{},"currently_syncing":null}"#);
    }
}

#[test]
fn order_unknown_keys_and_exact_numbers_survive() {
    let text = concat!(
        r#"{"bookmarks":{"public-z":{"zeta":1.10,"replication_key_value":12345678901234567890.10,"x":{"b":1,"a":2}},"#,
        r#""public-a":{"version":1795324419444,"lsn":841534376}},"currently_syncing":"public-z"}"#
    );
    let state = parse(text);
    assert_eq!(written(&state), text);
    assert_eq!(state.currently_syncing(), Some("public-z"));
    assert_eq!(state.bookmark("public-z").replication_key_value().unwrap().to_string(), "12345678901234567890.10");
    assert_eq!(state.bookmark("public-a").version(), Some(1_795_324_419_444));
}

#[test]
fn a_whole_state_message_is_taken() {
    let state = from(json!({"type": "STATE", "value": {"bookmarks": {"public-a": {"lsn": 5}}}}));
    assert_eq!(state.bookmark("public-a").lsn(), Some(5));
}

#[test]
fn positions_in_every_form() {
    for (lsn, expected) in [
        (json!(841534376), Some(841_534_376)),
        (json!("841534376"), Some(841_534_376)),
        (json!("16/B374D848"), Some(0x16_B374_D848)),
        (json!(u64::MAX), Some(u64::MAX)),
        (json!(1), Some(1)),
        (json!(0), None),
        (Value::Null, None),
    ] {
        assert_eq!(with(json!({"lsn": lsn})).bookmark("public-a").lsn(), expected, "{lsn}");
    }
    let state = with(json!({"replication_key": "_sdc_lsn", "replication_key_value": 77}));
    assert_eq!(state.bookmark("public-a").lsn(), Some(77));
    let state = with(json!({"replication_key": "id", "replication_key_value": 77}));
    assert_eq!(state.bookmark("public-a").lsn(), None);
}

#[test]
fn where_a_stream_goes_on() {
    let resume = |bookmark: Value, oid| {
        let state = with(bookmark);
        (state.resume("public-a", oid), state.kept_from("public-a"))
    };
    let at = Resume::At(Lsn(500));
    let copying = |copy: Value| json!({"lsn": 500, "xmin": 1, "version": 1, "table_oid": 9, "copy": copy});
    let but = |key: &str, value: Value| {
        let mut bookmark = copying(json!([3, [7], [1, 2, 3, 4, "10:10:", []]]));
        bookmark[key] = value;
        bookmark
    };
    for (bookmark, oid, expected) in [
        (json!({}), None, (Resume::Copy, Resume::Copy)),
        (json!({"lsn": 0}), None, (Resume::Copy, Resume::Copy)),
        (json!({"lsn": 1}), Some(9), (Resume::AtSlot, Resume::AtSlot)),
        (json!({"lsn": 500, "version": 1}), Some(9), (at, at)),
        (json!({"lsn": 500, "xmin": 1}), None, (Resume::Copy, at)),
        (copying(json!([3, [7], [1, 2, 3, 4, "10:10:", [5]]])), Some(9), (Resume::Copying(Lsn(500)), at)),
        (copying(json!([3, [7], [1, 2, 3, 4, "10:10:", []]])), Some(10), (Resume::Copy, at)),
        (copying(json!([u64::from(u32::MAX) + 1, [7], [1, 2, 3, 4, "10:10:", []]])), Some(9), (Resume::Copy, at)),
        (copying(json!([3])), Some(9), (Resume::Copy, at)),
        (copying(json!([3, [7]])), Some(9), (Resume::Copy, at)),
        (copying(json!([3, ["x"], [1, 2, 3, 4, "10:10:", []]])), Some(9), (Resume::Copy, at)),
        (but("version", json!(null)), Some(9), (Resume::Copy, at)),
        (but("lsn", json!(1)), Some(9), (Resume::Copy, Resume::AtSlot)),
        (but("xmin", json!(null)), Some(9), (at, at)),
        (json!({"lsn": 500, "xmin": null, "table_oid": 9}), Some(9), (at, at)),
        (json!({"lsn": 500, "xmin": null, "table_oid": 9}), None, (at, at)),
        (json!({"lsn": 500, "xmin": null, "table_oid": 9}), Some(10), (Resume::Copy, at)),
        (json!({"replication_key": "_sdc_lsn", "replication_key_value": 500}), Some(9), (at, at)),
        (
            json!({"replication_key": null, "replication_key_value": 500, "starting_replication_value": 400}),
            Some(9),
            (at, at),
        ),
        (json!({"replication_key_value": 500}), None, (at, at)),
        (json!({"replication_key": "n", "replication_key_value": 500}), None, (Resume::Copy, Resume::Copy)),
        (json!({"replication_key_value": "2020-01-01"}), None, (Resume::Copy, Resume::Copy)),
        // Whichever tap went on last; nothing beats a reset.
        (json!({"lsn": 400, "replication_key": "_sdc_lsn", "replication_key_value": 500}), None, (at, at)),
        (json!({"lsn": 500, "replication_key": "_sdc_lsn", "replication_key_value": 400}), None, (at, at)),
        (
            json!({"lsn": 1, "replication_key": "_sdc_lsn", "replication_key_value": 400}),
            None,
            (Resume::AtSlot, Resume::AtSlot),
        ),
    ] {
        assert_eq!(resume(bookmark.clone(), oid), expected, "{bookmark} {oid:?}");
    }
}

#[test]
fn positions_for_the_meltanolabs_tap() {
    let position = |state: &State| {
        let bookmark = state.bookmark("public-a");
        (bookmark.replication_key().map(str::to_owned), bookmark.replication_key_value().cloned())
    };
    let (none, at) = ((None, None), |lsn: u64| (Some("_sdc_lsn".to_owned()), Some(json!(lsn))));
    let set = |mut state: State, copy| {
        state.set_log_based("public-a", Bookmarkable::for_test(500), 7, copy, 9);
        state
    };
    // It would take an unfinished copy for a whole one.
    let mut state = set(State::default().for_meltanolabs(true), Copy::Unfinished);
    assert_eq!(position(&state), none);
    state.set_lsn("public-a", Bookmarkable::for_test(600));
    assert_eq!(position(&state), none);
    state.finish_copy("public-a", Bookmarkable::for_test(700));
    assert_eq!(position(&state), at(700));
    state.set_lsn("public-a", Bookmarkable::for_test(800));
    assert_eq!(position(&state), at(800));
    assert_eq!(position(&set(state.clone(), Copy::Unfinished)), none);
    assert_eq!(position(&set(state.clone(), Copy::Finished)), at(500));
    // Where it has copied a table that we had not, the copy is complete.
    let gone_on = json!({"lsn": 500, "xmin": 1, "version": 7, "copy": [3], "replication_key": "_sdc_lsn", "replication_key_value": 600});
    let resumed = |copies| with(gone_on.clone()).for_meltanolabs(copies).resume("public-a", None);
    assert_eq!((resumed(true), resumed(false)), (Resume::At(Lsn(600)), Resume::Copy));
    let mut announced =
        with(json!({"replication_key": "_sdc_lsn", "replication_key_value": 600})).for_meltanolabs(true);
    announced.announce_copy("public-a");
    assert_eq!((position(&announced), announced.resume("public-a", None)), (none.clone(), Resume::Copy));
    // A state of any other pipeline has one position.
    let mut state = from(serde_json::from_str(&written(&state)).unwrap());
    state.set_lsn("public-a", Bookmarkable::for_test(900));
    assert_eq!((position(&state), state.bookmark("public-a").lsn()), (none, Some(900)));
}

#[test]
fn fast_sync_bookmark() {
    let state = with(json!({"lsn": 500, "version": 1}));
    let bookmark = state.bookmark("public-a");
    assert_eq!((bookmark.method(), bookmark.lsn(), bookmark.version()), (None, Some(500), Some(1)));
    assert!(!state.copy_unfinished("public-a"));
}

#[test]
fn a_stream_without_a_bookmark_has_an_empty_one() {
    let state = with(Value::Null);
    for id in ["public-a", "public-b"] {
        let bookmark = state.bookmark(id);
        assert!(bookmark.is_empty());
        assert_eq!((bookmark.lsn(), bookmark.version(), bookmark.table_oid()), (None, None, None));
        assert!(!bookmark.copy_unfinished(true));
    }
}

#[test]
fn unfinished_copies() {
    let unfinished = |bookmark: Value, current: Value| {
        from(json!({"bookmarks": {"public-a": bookmark}, "currently_syncing": current})).copy_unfinished("public-a")
    };
    assert!(unfinished(json!({"lsn": 5, "xmin": 1}), Value::Null));
    assert!(unfinished(json!({"lsn": 5, "xmin": "733"}), Value::Null));
    assert!(unfinished(json!({"lsn": 5, "version": 1}), json!("public-a")));
    assert!(!unfinished(json!({"lsn": 5, "version": 1}), json!("public-b")));
    assert!(!unfinished(json!({"lsn": 5, "xmin": null}), json!("public-a")));
    assert!(!unfinished(json!({"lsn": 5, "xmin": null}), Value::Null));
    assert!(!unfinished(json!({"last_replication_method": "INCREMENTAL", "version": 1}), json!("public-a")));
}

#[test]
fn bookmarks_are_written_in_the_reference_s_shape() {
    let mut state = with(json!({"mine": [1], "xmin": 7, "replication_key": "id", "lsn": 3}));
    state.set_full_table("public-a", 9, Copy::Unfinished);
    let full = r#"{"last_replication_method":"FULL_TABLE","version":9,"mine":[1]}"#;
    assert_eq!(written(&state), format!(r#"{{"bookmarks":{{"public-a":{full}}},"currently_syncing":null}}"#));
    state.set_full_table("public-a", 9, Copy::Finished);
    assert!(written(&state).contains(r#""version":9,"xmin":null"#), "{}", written(&state));

    let mut state = State::default();
    state.set_incremental("public-a", "id", None, 9);
    state.set_currently_syncing(Some("public-a"));
    let incremental = r#"{"last_replication_method":"INCREMENTAL","replication_key":"id","version":9}"#;
    assert_eq!(
        written(&state),
        format!(r#"{{"bookmarks":{{"public-a":{incremental}}},"currently_syncing":"public-a"}}"#)
    );
    state.set_incremental("public-a", "id", Some(json!("2020")), 9);
    assert_eq!(state.bookmark("public-a").replication_key_value(), Some(&json!("2020")));
    assert_eq!(state.bookmark("public-a").replication_key(), Some("id"));

    let mut state = State::default();
    state.set_log_based("public-a", Bookmarkable::for_test(42), 9, Copy::Finished, 16384);
    let log_based = r#"{"last_replication_method":"LOG_BASED","lsn":42,"version":9,"xmin":null,"table_oid":16384}"#;
    assert_eq!(written(&state), format!(r#"{{"bookmarks":{{"public-a":{log_based}}},"currently_syncing":null}}"#));
    assert_eq!(state.bookmark("public-a").table_oid(), Some(16384));
    assert_eq!(state.bookmark("public-a").method(), Some(LogBased));
    state.set_lsn("public-a", Bookmarkable::for_test(43));
    state.set_lsn("public-b", Bookmarkable::for_test(43));
    assert_eq!(
        written(&state),
        format!(r#"{{"bookmarks":{{"public-a":{}}},"currently_syncing":null}}"#, log_based.replace("42", "43"))
    );
}

#[test]
fn an_announced_copy_keeps_what_is_there() {
    let mut state = with(json!({"lsn": 5, "version": 1, "xmin": null}));
    state.announce_copy("public-a");
    assert_eq!(state.bookmark("public-a").lsn(), Some(5));
    assert!(state.copy_unfinished("public-a"));

    // The reference fails on xmin without lsn.
    state.announce_copy("public-b");
    let text = written(&state);
    assert!(text.contains(r#""public-b":{"last_replication_method":"LOG_BASED"}"#), "{text}");
}

#[test]
fn a_change_of_method_or_key_clears() {
    let incremental =
        json!({"last_replication_method": "INCREMENTAL", "replication_key": "id", "replication_key_value": 4});
    let log_based = json!({"last_replication_method": "LOG_BASED", "lsn": 5});
    let meltano = json!({"replication_key": "_sdc_lsn", "replication_key_value": 5});
    let cases = [
        (incremental.clone(), Incremental, Some("id"), false),
        (incremental.clone(), Incremental, Some("updated_at"), true),
        (incremental.clone(), FullTable, None, true),
        (incremental, LogBased, None, true),
        (log_based.clone(), LogBased, None, false),
        (log_based.clone(), LogBased, Some("id"), false),
        (log_based, Incremental, Some("id"), true),
        (json!({"last_replication_method": "SOMETHING"}), LogBased, None, true),
        (json!({"lsn": 5, "version": 1}), LogBased, None, false),
        (json!({"lsn": 5, "version": 1}), FullTable, None, false),
        (json!({"lsn": 5, "version": 1}), Incremental, Some("id"), true),
        (json!({"replication_key": "id", "replication_key_value": 4, "version": 1}), Incremental, Some("id"), false),
        (meltano.clone(), LogBased, None, false),
        (meltano, Incremental, Some("id"), true),
        (json!({"last_replication_method": "INCREMENTAL"}), Incremental, Some("id"), false),
        (json!({}), Incremental, Some("id"), false),
    ];
    for (bookmark, method, key, expected) in cases {
        let mut state = with(bookmark.clone());
        assert_eq!(state.clear_on_change("public-a", method, key), expected, "{bookmark} {method} {key:?}");
        assert_eq!(state.bookmark("public-a").is_empty(), expected || bookmark == json!({}));
    }
    assert!(!State::default().clear_on_change("public-a", LogBased, None));
}

#[test]
fn only_log_based_bookmarks_of_unselected_streams_go() {
    let mut state = from(json!({"bookmarks": {
        "full": {"last_replication_method": "FULL_TABLE", "version": 1},
        "gone": {"last_replication_method": "LOG_BASED", "lsn": 5},
        "fast": {"lsn": 5, "version": 1},
        "kept": {"last_replication_method": "LOG_BASED", "lsn": 5},
        "meltano": {"replication_key": "_sdc_lsn", "replication_key_value": 5},
        "empty": {},
    }}));
    state.drop_unselected_log_based(|id| id == "kept");
    let written: Value = serde_json::from_str(&written(&state)).unwrap();
    assert_eq!(written["bookmarks"].as_object().unwrap().keys().collect::<Vec<_>>(), ["full", "kept", "empty"]);
}

#[test]
fn wrong_types_are_named() {
    let wal = r#"a WAL position (an integer, or a text like "16/B374D848")"#;
    let cases = [
        (json!([]), "expected a state object, found a list".to_owned()),
        (json!({"bookmarks": []}), r#"key "bookmarks": expected an object, found a list"#.to_owned()),
        (json!({"currently_syncing": 1}), r#"key "currently_syncing": expected a stream or null, found 1"#.to_owned()),
        (json!({"bookmarks": {"public-a": 1}}), r#"stream "public-a": expected an object, found 1"#.to_owned()),
    ];
    let keys = [
        (json!({"lsn": "zz"}), format!(r#"key "lsn": expected {wal}, found "zz""#)),
        (json!({"lsn": -1}), format!(r#"key "lsn": expected {wal}, found -1"#)),
        (json!({"lsn": 1.5}), format!(r#"key "lsn": expected {wal}, found 1.5"#)),
        (json!({"lsn": "1/2/3"}), format!(r#"key "lsn": expected {wal}, found "1/2/3""#)),
        (json!({"version": "x"}), r#"key "version": expected an integer, found "x""#.to_owned()),
        (json!({"xmin": true}), r#"key "xmin": expected an integer or null, found true"#.to_owned()),
        (json!({"table_oid": -5}), r#"key "table_oid": expected an oid, found -5"#.to_owned()),
        (
            json!({"last_replication_method": 1}),
            r#"key "last_replication_method": expected a text, found 1"#.to_owned(),
        ),
        (json!({"replication_key": {}}), r#"key "replication_key": expected a text, found an object"#.to_owned()),
        (
            json!({"replication_key_value": [1]}),
            r#"key "replication_key_value": expected a number or a text, found a list"#.to_owned(),
        ),
        (
            json!({"replication_key": "_sdc_lsn", "replication_key_value": "x"}),
            r#"key "replication_key_value": expected a WAL position, found "x""#.to_owned(),
        ),
    ];
    let keys = keys.map(|(bookmark, expected)| {
        (json!({"bookmarks": {"public-a": bookmark}}), format!(r#"stream "public-a": {expected}"#))
    });
    for (state, expected) in cases.into_iter().chain(keys) {
        let error = State::parse("state.json", &state.to_string()).unwrap_err();
        assert_eq!(error.to_string(), format!("state.json: {expected}"));
        assert_eq!(error.kind().exit_code(), 2);
    }
    let error = State::parse("state.json", "{\"bookmarks\": {}}\n{}").unwrap_err();
    assert_eq!(error.to_string(), "state.json is not valid JSON: trailing characters at line 2 column 1");
}

#[test]
fn a_file_being_rewritten_is_passed_over() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.json");
    assert_eq!(State::reread(&path), None);
    assert!(State::load(&path).unwrap_err().to_string().starts_with("cannot read "));
    for partial in ["", "{\"bookmarks\": {\"publ", "{}", "[]"] {
        std::fs::write(&path, partial).unwrap();
        assert_eq!(State::reread(&path), None, "{partial}");
    }
    std::fs::write(&path, r#"{"bookmarks": {"public-a": {"lsn": 5}}}"#).unwrap();
    assert_eq!(State::reread(&path).unwrap().bookmark("public-a").lsn(), Some(5));
}
