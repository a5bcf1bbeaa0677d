//! Rights, slots and publications that a run needs: one line says what to do, nothing is acknowledged, and no STATE skips
//! what was not read. More of them in `refusals`.

use serde_json::{Value, json};

use super::{Source, lsn, numbers, select, with_both_plugins};
use crate::harness::{Cluster, Output, Role, Tap, TestDb, release};

with_both_plugins!(
    no_slot_is_free,
    a_role_that_may_not_replicate_is_found_before_a_copy,
    a_table_that_the_role_may_not_read,
    a_schema_that_the_role_may_not_use,
    row_level_security_is_told,
);

const TABLES: &str = "create table item (id integer primary key); create table other (id integer primary key);
    create table whole (id integer primary key);
    insert into item values (1); insert into other values (1); insert into whole values (1);";

/// The one line of the log that tells of a failure.
#[track_caller]
fn error(output: &Output) -> &str {
    let errors: Vec<&str> = output.stderr.lines().filter(|line| line.contains("level=ERROR")).collect();
    let [error] = errors.as_slice() else { panic!("not one error:\n{}", output.stderr) };
    error
}

#[track_caller]
fn assert_says(text: &str, parts: &[&str]) {
    assert!(parts.iter().all(|part| text.contains(part)), "{parts:?} are not all in {text}");
}

fn no_slot_is_free(plugin: &str) {
    let cluster = Cluster::start("max_replication_slots = 1");
    let db = TestDb::on(&cluster, "log_full");
    db.psql(TABLES);
    db.query_one("select slot_name from pg_create_physical_replication_slot('taken')");
    let catalog = select(Tap::new(&db).discover(), &["item"]);
    let tap = Tap::new(&db).catalog(&catalog).config("create_replication_slot", true).config("output_plugin", plugin);
    let failed = tap.run_failing(1);
    assert_says(error(&failed), &["all replication slots are in use", "max_replication_slots"]);
    assert_eq!(failed.messages.len(), 0);
    db.psql("select pg_drop_replication_slot('taken')");
    assert_eq!(numbers(&tap.run(), "item", "id"), [1], "what the failed run has made is no obstacle");
}

/// Not after hours of copying other streams; and nothing is made on the server before.
fn a_role_that_may_not_replicate_is_found_before_a_copy(plugin: &str) {
    let source = Source::new(plugin, TABLES, &["item"]);
    let role = Role::reader(&source.db, "");
    let catalog = source.catalog.clone().select("public-whole", "FULL_TABLE");
    // An interrupted FULL_TABLE stream goes first.
    let state = json!({"bookmarks": {}, "currently_syncing": "public-whole"});
    let before = source.confirmed_flush();
    let tap = || Tap::new(&source.db).catalog(&catalog).state(&state).config("user", role.name.as_str());
    let failed = tap().run_failing(1);
    assert_says(error(&failed), &["ALTER ROLE", "REPLICATION", "rds_replication"]);
    assert_eq!(failed.messages.len(), 0, "{:?}", failed.messages);
    assert_eq!(source.confirmed_flush(), before);
    source.db.psql(&format!("alter role {} replication", role.name));
    assert_eq!(tap().run().record_messages().count(), 2);
}

/// The other streams are read. The one that is not keeps its bookmark, and the slot all that comes after it.
fn unreadable(plugin: &str, hide: &str, show: &str, grant: &str) {
    let source = Source::new(plugin, TABLES, &["item", "other"]);
    let role = Role::reader(&source.db, "replication");
    let tap = |state: &Value| source.tap().state(state).config("user", role.name.as_str());
    let copied = tap(&json!({})).run().last_state().clone();
    source.db.psql("insert into item values (2); insert into other values (2);");
    source.db.psql(&hide.replace("{role}", &role.name));
    let mut state = copied.clone();
    for id in [3, 4] {
        let failed = tap(&state).run_failing(1);
        let errors: Vec<&str> = failed.stderr.lines().filter(|line| line.contains("level=ERROR")).collect();
        let told = errors.iter().find(|line| line.contains("public-item")).expect("an error of the stream");
        assert_says(told, &["the slot keeps what comes after it", grant]);
        if let Some(last) = failed.states().last() {
            state = (*last).clone();
        }
        assert_eq!(state["bookmarks"]["public-item"], copied["bookmarks"]["public-item"]);
        assert!(source.confirmed_flush() <= lsn(&copied, "item"), "what the stream needs was given up");
        source.db.psql(&format!("insert into item values ({id})"));
    }
    source.db.psql(&show.replace("{role}", &role.name));
    let output = tap(&state).run();
    // A schema whose rights change may have had another name: then a row of the other table leads to one of this.
    let mut ids = numbers(&output, "item", "id");
    ids.dedup();
    assert_eq!(ids, [2, 3, 4]);
}

fn a_table_that_the_role_may_not_read(plugin: &str) {
    unreadable(plugin, "revoke select on item from {role}", "grant select on item to {role}", "GRANT SELECT");
}

fn a_schema_that_the_role_may_not_use(plugin: &str) {
    let show = "grant usage on schema public to public";
    unreadable(plugin, "revoke usage on schema public from public", show, "GRANT USAGE");
}

fn row_level_security_is_told(plugin: &str) {
    let source = Source::new(plugin, TABLES, &["item", "other"]);
    source.db.psql("alter table item enable row level security; create policy p on item for select using (id > 5);");
    let role = Role::reader(&source.db, "replication");
    let told = |output: &Output| -> Vec<String> {
        let warnings = output.stderr.lines().filter(|line| line.contains("row-level security"));
        warnings.map(str::to_owned).collect()
    };
    let output = source.tap().config("user", role.name.as_str()).run();
    let warnings = told(&output);
    let [warning] = warnings.as_slice() else { panic!("{warnings:?}") };
    assert_says(warning, &["level=WARNING", "public-item", "BYPASSRLS"]);
    assert_eq!(numbers(&output, "item", "id"), [0; 0], "a test of rows that are hidden");
    // Of a role that sees everything, there is nothing to say.
    source.db.psql(&format!("alter role {} bypassrls", role.name));
    let output = source.tap().config("user", role.name.as_str()).run();
    assert_eq!((told(&output).len(), numbers(&output, "item", "id")), (0, vec![1]));
}

/// A root may be published leaf by leaf: what any of them lacks is told, and left out.
#[test]
fn a_root_whose_leaves_are_published_with_gaps() {
    let db = TestDb::new("log_leaves");
    // Before 11 leaves have keys, their root has none.
    let (key, leaf) = if release() < 11 { ("", "(primary key (id))") } else { ("primary key", "") };
    db.psql(&format!(
        "create table root (id integer {key}, note text) partition by range (id);
         create table low partition of root {leaf} for values from (0) to (10);
         create table high partition of root {leaf} for values from (10) to (20);"
    ));
    let lists = release() >= 15;
    let low = if lists { "low (id) where (id < 5)" } else { "low" };
    db.publication(&format!("for table {low}, high with (publish = 'insert')"));
    db.slot("pgoutput");
    let catalog = select(Tap::new(&db).discover(), &["root"]);
    let first = Tap::new(&db).catalog(&catalog).run();
    let warned = |parts: &[&str]| {
        let fits = |line: &str| line.contains("level=WARNING") && parts.iter().all(|part| line.contains(part));
        assert!(first.stderr.lines().any(fits), "{parts:?} in {}", first.stderr);
    };
    warned(&["public-root", "update and delete", "ALTER PUBLICATION"]);
    if lists {
        warned(&["public-root", "row filter", "WHERE"]);
        warned(&["public-root", "note", "column list"]);
        let properties = &first.schemas("public-root")[0].schema["properties"];
        assert!(properties.get("note").is_none(), "{properties}");
    }
    db.psql("insert into root values (1, 'a'), (11, 'b')");
    let second = Tap::new(&db).catalog(&catalog).state(first.last_state()).run();
    assert_eq!(numbers(&second, "root", "id"), [1, 11]);
}

/// Only inserts: a warning says so, and what to do about it.
#[test]
fn a_publication_of_inserts_only() {
    let db = TestDb::new("log_inserts");
    db.psql(TABLES);
    db.publication("for table item with (publish = 'insert')");
    db.slot("pgoutput");
    let catalog = select(Tap::new(&db).discover(), &["item"]);
    let first = Tap::new(&db).catalog(&catalog).run();
    let warning = first.stderr.lines().find(|line| line.contains("level=WARNING")).unwrap_or_default();
    assert_says(warning, &["public-item", "update and delete", "ALTER PUBLICATION", "publish"]);
    db.psql("insert into item values (2); delete from item where id = 1;");
    let second = Tap::new(&db).catalog(&catalog).state(first.last_state()).run();
    assert_eq!(numbers(&second, "item", "id"), [2]);
}
