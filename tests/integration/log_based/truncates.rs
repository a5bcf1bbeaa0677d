//! TRUNCATE in the log: a warning, or a new version of the stream.

use serde_json::Value;

use super::{Source, lsn, numbers, with_both_plugins};
use crate::harness::target::Target;
use crate::harness::{Message, Output, TestDb, needs};

with_both_plugins!(
    a_truncate_is_told,
    a_truncate_begins_a_version,
    a_truncate_within_a_transaction,
    a_truncate_of_a_partition,
    a_truncate_of_a_partitioned_table,
    a_run_that_ends_in_the_transaction,
);

const ITEM: &str = "create table item (id integer primary key, note text); insert into item values (1, 'a'), (2, 'b');";
const EVENT: &str = "create table event (id integer primary key) partition by range (id);
    create table event_1 partition of event for values from (1) to (100);
    create table event_2 partition of event for values from (100) to (200);
    insert into event values (1), (101);";

fn a_truncate_is_told(plugin: &str) {
    if !needs(11, "TRUNCATE in the log") {
        return;
    }
    let sql =
        format!("{ITEM} create table other (id integer primary key); create table more (id integer primary key);");
    let source = Source::new(plugin, &sql, &["item", "other"]);
    let output = source.run_after("truncate item, more; insert into item values (7, 'x');", &source.copied());
    assert_eq!(numbers(&output, "item", "id"), [7]);
    let lines: Vec<&str> = output.stderr.lines().filter(|line| line.to_lowercase().contains("truncate")).collect();
    assert_eq!(lines.len(), 1, "{}", output.stderr);
    assert!(lines[0].contains("WARNING") && lines[0].contains("item"), "{}", lines[0]);
    assert!(!lines[0].contains("more"), "a table that is not selected: {}", lines[0]);
}

/// A stream, and a target that takes what its runs print.
struct Pipeline {
    source: Source,
    table: &'static str,
    target: Target,
    state: Value,
}

impl Pipeline {
    /// After the copy.
    fn new(plugin: &str, sql: &str, table: &'static str) -> Pipeline {
        Pipeline::of(Source::new(plugin, sql, &[table]), table)
    }

    fn of(source: Source, table: &'static str) -> Pipeline {
        let copy = source.tap().run();
        let mut target = Target::default();
        target.apply(&copy.messages);
        Pipeline { source, table, target, state: copy.last_state().clone() }
    }

    /// A run after this SQL, after which the target holds what the table does.
    #[track_caller]
    fn run_after(&mut self, sql: &str) -> Output {
        self.source.db.psql(sql);
        let output = self.source.tap().config("on_truncate", "activate_version").state(&self.state).run();
        self.target.apply(&output.messages);
        self.state = output.last_state().clone();
        self.target.assert_holds(&self.source.db, &[self.table]);
        output
    }

    fn id(&self) -> String {
        format!("public-{}", self.table)
    }

    fn version(&self) -> u64 {
        self.state["bookmarks"][self.id()]["version"].as_u64().expect("a version in the state")
    }
}

/// The versions of records and activations, as they follow each other.
fn versions(output: &Output) -> Vec<(&'static str, u64)> {
    let version = |message: &Message| match message {
        Message::Record(record) => Some(("record", record.version.expect("a version"))),
        Message::ActivateVersion { version, .. } => Some(("activate", *version)),
        Message::Schema(_) | Message::State(_) | Message::Batch(_) => None,
    };
    let mut versions: Vec<_> = output.messages.iter().filter_map(version).collect();
    versions.dedup();
    versions
}

fn a_truncate_begins_a_version(plugin: &str) {
    if !needs(11, "TRUNCATE in the log") {
        return;
    }
    let mut pipeline = Pipeline::new(plugin, ITEM, "item");
    let old = pipeline.version();
    let output =
        pipeline.run_after("insert into item values (3, 'c'); truncate item; insert into item values (4, 'd');");
    let new = pipeline.version();
    assert!(new > old);
    assert_eq!(versions(&output), [("record", old), ("activate", new), ("record", new)]);
    assert!(!output.stderr.contains("WARNING"), "{}", output.stderr);

    let output = pipeline.run_after("update item set note = 'e';");
    assert_eq!(versions(&output), [("record", new)], "the version stays");
    let output = pipeline.run_after("truncate item;");
    assert_eq!(versions(&output), [("activate", pipeline.version())], "without a row");
    assert!(pipeline.version() > new);
}

fn a_truncate_within_a_transaction(plugin: &str) {
    if !needs(11, "TRUNCATE in the log") {
        return;
    }
    let mut pipeline = Pipeline::new(plugin, ITEM, "item");
    let old = pipeline.version();
    let output = pipeline.run_after(
        "begin; insert into item values (3, 'c'); truncate item; insert into item values (4, 'd'); truncate item;
         insert into item values (5, 'e'); commit; begin; truncate item; rollback;",
    );
    let new = pipeline.version();
    let seen = versions(&output);
    let between = seen[1].1;
    assert!(old < between && between < new, "{seen:?}");
    assert_eq!(seen, [("record", old), ("activate", between), ("record", between), ("activate", new), ("record", new)]);
}

/// A partitioned table, published as the tap would.
fn partitioned(plugin: &str) -> Pipeline {
    let db = TestDb::new("truncated");
    db.psql(EVENT);
    if plugin == "pgoutput" {
        db.publication("for table event with (publish_via_partition_root = true)");
    }
    let slot = db.slot(plugin);
    Pipeline::of(Source::of(db, slot, &["event"]), "event")
}

fn a_truncate_of_a_partition(plugin: &str) {
    if !needs(13, "changes under the name of the root") {
        return;
    }
    let Pipeline { source, state, .. } = partitioned(plugin);
    source.db.psql("truncate event_1; insert into event values (2);");
    let output = source.tap().config("on_truncate", "activate_version").state(&state).run();
    assert!(output.messages.iter().all(|message| !matches!(message, Message::ActivateVersion { .. })));
    assert_eq!(numbers(&output, "event", "id"), [2]);
    // Through the root pgoutput says nothing of it.
    assert_eq!(output.logged("a partition was truncated"), usize::from(plugin == "wal2json"), "{}", output.stderr);
}

fn a_truncate_of_a_partitioned_table(plugin: &str) {
    if !needs(13, "changes under the name of the root") {
        return;
    }
    let mut pipeline = partitioned(plugin);
    let old = pipeline.version();
    pipeline.run_after("truncate event; insert into event values (2);");
    assert!(pipeline.version() > old);
}

/// The target stored everything but the last STATE: the transaction comes again, and so does its TRUNCATE.
fn a_run_that_ends_in_the_transaction(plugin: &str) {
    if !needs(11, "TRUNCATE in the log") {
        return;
    }
    let mut pipeline = Pipeline::new(plugin, ITEM, "item");
    let given = lsn(&pipeline.state, "item");
    let output = pipeline.run_after(
        "begin; truncate item; insert into item select i, repeat('x', 400) from generate_series(1, 20000) i; commit;",
    );
    let before = output.states().into_iter().rfind(|state| lsn(state, "item") == given);
    pipeline.state = before.expect("a STATE before the transaction").clone();
    let again = pipeline.run_after("delete from item where id > 10000;");
    assert!(matches!(versions(&again).as_slice(), [("activate", _), ("record", _)]), "{:?}", versions(&again));
}
