//! Streams that are partitions, at any level, alone and beside what they are partitions of; and partitions that no log has.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Source, lsn, numbers, with_both_plugins};
use crate::harness::target::{Target, assert_rows, source_rows};
use crate::harness::{Output, Tap, TestDb, needs, plugins, release};

with_both_plugins!(
    every_level_by_itself_and_beside_others,
    leaves_that_no_log_has,
    leaves_that_lose_their_log,
    leaves_that_are_gone,
    leaves_that_were_attached,
);

/// A root, what lies between, and leaves, one of them in another schema.
const TREE: &str = "create schema far;
    create table r (id integer, a integer, b integer, note text, primary key (id, a, b)) partition by list (a);
    create table m (note text, gone text, id integer not null, b integer not null, a integer not null) partition by list (b);
    alter table m drop column gone;
    alter table r attach partition m for values in (1);
    create table far.l partition of m for values in (1);
    create table l2 partition of m for values in (2);
    create table rest partition of r default;
    create table other (id integer primary key);
    insert into r values (1, 1, 1, 'a'), (2, 1, 2, 'b'), (3, 9, 9, 'c'); insert into other values (1);";

/// Each stream with what it is a partition of.
const ABOVE: [(&str, &[&str]); 5] = [
    ("public-r", &[]),
    ("public-m", &["public-r"]),
    ("far-l", &["public-m", "public-r"]),
    ("public-l2", &["public-m", "public-r"]),
    ("public-other", &[]),
];

const SELECTIONS: [&[&str]; 6] = [
    &["public-m", "public-other"],
    &["far-l", "public-l2", "public-other"],
    &["far-l", "public-other", "public-r"],
    &["public-m", "public-other", "public-r"],
    &["far-l", "public-m", "public-other"],
    &["far-l", "public-l2", "public-m", "public-other", "public-r"],
];

/// How the publication is made.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Published {
    ByTheTap,
    AllTables,
    AllTablesViaRoot,
    /// With wal2json.
    Nowhere,
    /// The same, and the tables are younger than the slot.
    NowhereYet,
}

impl Published {
    /// Which of these streams have their changes come under another's name.
    fn hidden(self, streams: &[&str]) -> BTreeSet<String> {
        let is_hidden = |stream: &&str| {
            let above = ABOVE.iter().find(|(known, _)| known == stream).expect("a stream of the tree").1;
            match self {
                Published::ByTheTap => release() >= 13 && above.iter().any(|root| streams.contains(root)),
                Published::AllTablesViaRoot => !above.is_empty(),
                Published::AllTables | Published::Nowhere | Published::NowhereYet => false,
            }
        };
        streams.iter().copied().filter(is_hidden).map(str::to_owned).collect()
    }
}

fn tap(db: &TestDb, streams: &[&str], state: &Value) -> Tap {
    let catalog = streams.iter().fold(Tap::new(db).discover(), |catalog, id| catalog.select(id, "LOG_BASED"));
    Tap::new(db).catalog(&catalog).state(state).config("create_replication_slot", true)
}

/// The streams that the ERRORs of a run, or the failures of a check, say to be partitions.
fn refused(output: &Output) -> BTreeSet<String> {
    let told = output.stderr.lines().filter(|line| line.contains("level=ERROR") && line.contains("is a partition"));
    let name = |line: &str| line.split('"').nth(1).expect("a name in quotation marks").to_owned();
    told.map(name).collect()
}

#[track_caller]
fn assert_holds(db: &TestDb, target: &Target, stream: &str, streams: &[&str]) {
    let (schema, table) = stream.split_once('-').expect("schema and table");
    let (mut found, expected) = (target.rows(stream), source_rows(db, &format!("{schema}.{table}")));
    found.sort_unstable();
    assert_rows(&format!("{stream} {streams:?}"), &found, &expected);
}

fn every_level_by_itself_and_beside_others(plugin: &str) {
    if !needs(11, "a partitioned table with a key") {
        return;
    }
    let ways: &[Published] = match (plugin, release()) {
        ("wal2json", _) => &[Published::Nowhere, Published::NowhereYet],
        (_, ..13) => &[Published::ByTheTap, Published::AllTables],
        _ => &[Published::ByTheTap, Published::AllTables, Published::AllTablesViaRoot],
    };
    for way in ways {
        for streams in SELECTIONS {
            let db = TestDb::new("log_hierarchy");
            if *way == Published::NowhereYet {
                db.slot(plugin);
            }
            db.psql(TREE);
            match way {
                Published::ByTheTap | Published::NowhereYet => {}
                Published::AllTables | Published::Nowhere => drop(db.replicate(plugin)),
                Published::AllTablesViaRoot => {
                    db.publication("for all tables with (publish_via_partition_root = true)");
                    db.slot(plugin);
                }
            }
            let hidden = way.hidden(streams);
            let run = |state: &Value, args: &[&str]| {
                let tap = args.iter().fold(tap(&db, streams, state), |tap, arg| tap.arg(*arg));
                let output = tap.output().expect_code(i32::from(!hidden.is_empty())).parsed();
                assert_eq!(refused(&output), hidden, "{way:?} {streams:?}: {}", output.stderr);
                output
            };
            let mut target = Target::default();
            let mut state = json!({});
            for round in 0..3 {
                if round < 2 {
                    run(&state, &["--test", "schema"]);
                }
                let output = run(&state, &[]);
                target.apply(&output.messages);
                state = output.last_state().clone();
                for stream in streams {
                    match hidden.contains(*stream) {
                        true => assert_eq!(output.records(stream).len(), 0, "{way:?} {streams:?}: {stream}"),
                        false => assert_holds(&db, &target, stream, streams),
                    }
                }
                db.psql(&format!(
                    "insert into r values ({round}4, 1, 1, 'd'), ({round}5, 1, 2, 'e'), ({round}6, 8, 1, 'f');
                     update r set note = note || '!'; insert into other values ({round}2);
                     delete from r where id = {round}5; update r set b = 2 where id = {round}4 and a = 1;"
                ));
            }
        }
    }
}

/// A root that is selected beside a partition which was there before takes its place, in every run from there on.
#[test]
fn a_root_selected_later() {
    if !needs(13, "publish_via_partition_root") {
        return;
    }
    let db = TestDb::new("log_hierarchy_later");
    db.psql(TREE);
    let (before, both) = (["far-l", "public-other"], ["far-l", "public-other", "public-r"]);
    let mut state = tap(&db, &before, &json!({})).run().last_state().clone();
    let bookmark = state["bookmarks"]["far-l"].clone();
    let mut target = Target::default();
    for id in [7, 8] {
        db.psql(&format!("insert into r values ({id}, 1, 1, 'x'); insert into other values ({id});"));
        assert_eq!(refused(&tap(&db, &both, &state).arg("--test").output()), ["far-l".to_owned()].into());
        let output = tap(&db, &both, &state).run_failing(1);
        assert_eq!(refused(&output), ["far-l".to_owned()].into());
        target.apply(&output.messages);
        assert_holds(&db, &target, "public-r", &both);
        assert_eq!(output.bookmark("far-l"), &bookmark);
        state = output.last_state().clone();
    }
    // The advice.
    let output = tap(&db, &["public-other", "public-r"], &state).run();
    assert!(output.last_state()["bookmarks"].get("far-l").is_none());
}

/// As a table that is unlogged itself.
fn leaves_that_no_log_has(plugin: &str) {
    if !needs(11, "a partitioned table with a key") {
        return;
    }
    for leaf in [
        "create unlogged table far.p2 partition of p for values from (100) to (200)",
        "create foreign data wrapper nothing; create server nowhere foreign data wrapper nothing;
         create foreign table far.p2 partition of p for values from (100) to (200) server nowhere",
        "create table mid partition of p for values from (100) to (200) partition by range (id);
         create unlogged table far.p2 partition of mid for values from (100) to (150)",
    ] {
        let sql = format!(
            "create schema far; create table p (id integer, v text) partition by range (id);
             create table p1 partition of p for values from (0) to (100); alter table p1 add primary key (id);
             {leaf}; insert into p values (1, 'a'); create table other (id integer primary key); insert into other values (1);"
        );
        let source = Source::new(plugin, &sql, &["p", "other"]);
        let told = |output: &Output| {
            let is_told =
                |line: &&str| ["level=ERROR", "\"public-p\"", "LOG_BASED", "far.p2"].iter().all(|t| line.contains(t));
            assert_eq!(output.stderr.lines().filter(is_told).count(), 1, "{}", output.stderr);
        };
        let output = source.tap().run_failing(1);
        told(&output);
        assert_eq!((numbers(&output, "other", "id"), output.records("public-p").len()), (vec![1], 0));
        told(&source.tap().arg("--test").arg("schema").output().expect_code(1));
        // What nobody chose to be LOG_BASED is read whole.
        for tap in [Tap::new(&source.db), Tap::new(&source.db).config("default_replication_method", "LOG_BASED")] {
            let output = tap.output();
            assert_eq!(output.logged("public-p: reading by FULL_TABLE"), 1, "{}", output.stderr);
        }
        // Its leaves that are in the log can be streams.
        let leaf = Tap::new(&source.db).discover().select("public-p1", "LOG_BASED");
        assert_eq!(numbers(&Tap::new(&source.db).catalog(&leaf).run(), "p1", "id"), [1]);
    }
}

/// A leaf that comes without a log ends the stream until it goes; what the log has of the others is not lost.
fn leaves_that_lose_their_log(plugin: &str) {
    if !needs(11, "a partitioned table with a key") {
        return;
    }
    let sql = "create table p (id integer primary key, v text) partition by range (id);
        create table p1 partition of p for values from (0) to (100); insert into p values (1, 'a');
        create table other (id integer primary key);";
    let source = Source::new(plugin, sql, &["p", "other"]);
    let state = source.copied();
    source.db.psql(
        "insert into p values (2, 'b'); create unlogged table p2 partition of p for values from (100) to (200);
         insert into p values (3, 'c'), (150, 'in no log'); insert into other values (1);",
    );
    let failed = source.tap().state(&state).run_failing(1);
    assert_eq!((failed.records("public-p").len(), numbers(&failed, "other", "id")), (0, vec![1]));
    assert_eq!(failed.bookmark("public-p"), &state["bookmarks"]["public-p"]);
    let failed = source.tap().state(failed.last_state()).run_failing(1);
    assert!(source.confirmed_flush() <= lsn(&state, "p"));
    let output = source.run_after("drop table p2", failed.last_state());
    assert_eq!(numbers(&output, "p", "id"), [2, 3]);
}

/// Without a catalog a table is read through the topmost partitioned table that is there to be read, once.
#[test]
fn no_row_is_in_two_streams_without_a_catalog() {
    if !needs(11, "a partitioned table with a key") {
        return;
    }
    let db = TestDb::new("log_hierarchy_all");
    db.psql(&format!("{TREE} create schema top; alter table r set schema top; alter table far.l set schema public;"));
    let ids =
        |tap: Tap| -> BTreeSet<String> { tap.run().record_messages().map(|record| record.stream.clone()).collect() };
    let named = |ids: &[&str]| ids.iter().map(|&id| id.to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(ids(Tap::new(&db)), named(&["public-other", "top-r"]));
    let filtered = Tap::new(&db).config("filter_schemas", "public");
    assert_eq!(ids(filtered), named(&["public-m", "public-other", "public-rest"]));
}

/// A root without leaves has nothing to publish yet; its leaves come with it.
#[test]
fn a_root_without_leaves() {
    if !needs(11, "a partitioned table with a key") {
        return;
    }
    for way in [None, Some("for all tables"), Some("for all tables with (publish_via_partition_root = true)")] {
        if release() < 13 && way.is_none_or(|way| way.contains("via")) {
            continue;
        }
        let db = TestDb::new("log_hierarchy_empty");
        db.psql(
            "create table r (id integer primary key) partition by range (id); create table t (id integer primary key);",
        );
        if let Some(way) = way {
            db.publication(way);
            db.slot("pgoutput");
        }
        let run = |state: &Value| tap(&db, &["public-r", "public-t"], state).run();
        let first = run(&json!({}));
        db.psql("insert into t values (1); create table l partition of r for values from (0) to (10); insert into r values (2);");
        let second = run(first.last_state());
        assert_eq!((numbers(&second, "r", "id"), numbers(&second, "t", "id")), (vec![2], vec![1]), "{way:?}");
    }
}

/// Partitions that are detached or dropped take their rows along without a word in the log: one run says so, and only where there
/// were such. Those that come are in the log.
fn leaves_that_are_gone(plugin: &str) {
    if !needs(13, "a publication of partitioned tables") {
        return;
    }
    let sql = "create table t (id integer, at integer, primary key (id, at)) partition by range (at);
        create table t0 partition of t for values from (0) to (10);
        create table t1 partition of t for values from (10) to (20) partition by range (at);
        create table t1a partition of t1 for values from (10) to (20);
        create table t2 partition of t for values from (20) to (30);
        create table u (id integer primary key);
        insert into t select i, i from generate_series(0, 29) i;";
    let source = Source::new(plugin, sql, &["t", "u"]);
    if plugin == "pgoutput" {
        source.db.psql(&format!("alter publication {} set (publish_via_partition_root = true)", source.slot));
    }
    let mut state = source.copied();
    let gone =
        "create table t9 partition of t for values from (90) to (99); insert into t values (91, 91); drop table t9";
    let steps = [
        ("create table t3 partition of t for values from (30) to (40); insert into t values (31, 31)", false),
        (
            "create table t4 (like t including all); alter table t attach partition t4 for values from (40) to (50)",
            false,
        ),
        ("alter table t detach partition t2", true),
        ("insert into t values (32, 32)", false),
        // The log has its rows as the root's; wal2json has them under a name that nothing has any more.
        (gone, plugin == "pgoutput"),
        ("drop table t1", true),
        ("drop table t3; create table t3 partition of t for values from (30) to (40);", true),
        ("alter table t add v text; update t set v = 'x'", false),
        ("insert into t values (1, 7)", false),
        ("truncate t; insert into u values (1)", false),
        ("insert into t values (35, 35)", false),
        ("update t set id = 36; drop table t3", true),
    ];
    for (sql, is_told) in steps {
        // The run that copied it saw the tables as they were before this.
        source.db.psql(sql);
        let checked = source.tap().state(&state).arg("--test").output().expect_code(0);
        let told = checked.stderr.matches("public-t: partitions were detached or dropped").count();
        assert!(sql == gone || told == usize::from(is_told), "{sql}: {}", checked.stderr);
        let output = source.run(&state);
        let told = output.stderr.matches("public-t: partitions were detached or dropped").count();
        assert_eq!(told, usize::from(is_told), "{sql}: {}", output.stderr);
        state = output.last_state().clone();
    }
}

/// A partition that was a table of its own is told from one that was made as one, whatever was tried with it since.
fn leaves_that_were_attached(plugin: &str) {
    if !needs(11, "a partitioned table with a key") {
        return;
    }
    let sql = "create table t (id integer primary key) partition by range (id);
        create table t0 partition of t for values from (0) to (10); insert into t values (1);";
    let source = Source::new(plugin, sql, &["t"]);
    let mut state = source.copied();
    let made = "begin; create table t1 partition of t for values from (10) to (20); insert into t values (11); commit;";
    let attached = "begin; create table t2 (like t including all); insert into t2 values (21);
        alter table t attach partition t2 for values from (20) to (30); commit;";
    let nearly_gone = "begin; create table t3 (like t including all); insert into t3 values (31);
        alter table t attach partition t3 for values from (30) to (40); commit;
        begin; alter table t detach partition t3; rollback;";
    for (sql, is_told) in [(made, false), (attached, true), (nearly_gone, true)] {
        let output = source.run_after(sql, &state);
        assert_eq!(output.stderr.contains("attached as a partition"), is_told, "{sql}: {}", output.stderr);
        state = output.last_state().clone();
    }
}

/// The server warns of each UPDATE and DELETE of a table without an identity that wal2json is asked for: those of the schemas of
/// partitions, which nobody selected, concern nobody.
#[test]
fn tables_of_nobody_are_not_warned_of() {
    if !plugins().contains(&"wal2json") {
        return;
    }
    let sql = r#"create schema "of ""nobody"""; create table root (id int, primary key (id)) partition by range (id);
        create table root1 partition of root for values from (0) to (100);
        create table bare (a int); create table "in table" (a int); create table moved (id int primary key);
        insert into bare values (1); insert into "in table" values (1);"#;
    let source = Source::new("wal2json", sql, &["root", "bare", "moved"]);
    let mut state = source.copied();
    let changes = r#"update bare set a = a + 1; update "in table" set a = a + 1; delete from "in table";
        insert into "in table" values (1); insert into root select coalesce(max(id), 0) + 1 from root;"#;
    for reader in ["stream", "bulk"] {
        // Behind this, all tables are asked for.
        for before in ["", "alter table moved rename to away; alter table away rename to moved;"] {
            source.db.psql(&format!("{before}{changes}"));
            let output = source.tap().config("wal_reader", reader).state(&state).run();
            let warned = |table: &str| output.warnings().iter().any(|line| line.contains(table));
            assert!(!warned("in table \\\"public\\\".\\\"in table"), "{}", output.stderr);
            assert!(warned("bare"), "what is selected is told of: {}", output.stderr);
            assert_eq!(numbers(&output, "root", "id").len(), 1);
            state = output.last_state().clone();
        }
    }
}
