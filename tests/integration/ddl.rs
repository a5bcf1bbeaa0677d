//! Altered again and again while it is written to and read, a table arrives as it is: every RECORD fits the SCHEMA before it,
//! and a target holds in the end what the source does.
//!
//! `TAP_SCHEMA_ROUNDS` sets how many runs there are (a plugin; 6 otherwise), `TAP_SCHEMA_SEED` repeats the choices of a test
//! that failed, though not its timing.

mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::harness::random::{Random, Told, seed, setting};
use crate::harness::target::{Target, assert_rows, source_rows};
use crate::harness::{Cluster, Message, Tap, TestDb, check_protocol, needs, plugins, release};
use crate::log_based::assert_fits;
use writer::{BASE, TABLES, writer};

#[test]
fn pgoutput() {
    alterations("pgoutput");
}

#[test]
fn wal2json() {
    alterations("wal2json");
}

fn alterations(plugin: &'static str) {
    if !plugins().contains(&plugin) {
        return;
    }
    if !needs(11, "a partitioned table's key") {
        return;
    }
    let seed = seed("TAP_SCHEMA_SEED");
    let _told = Told(format!("TAP_SCHEMA_SEED={seed}, {plugin}"));
    let mut random = Random(seed);
    // Of its own: others write, checkpoint and leave transactions open.
    let db = TestDb::on(&Cluster::start(""), &format!("ddl_{plugin}"));
    db.psql(TABLES);
    if plugin == "pgoutput" {
        // Before 13 it is leaves that are published, also those that come.
        let all = release() < 13;
        db.publication(if all {
            "for all tables"
        } else {
            "for table keyed, event with (publish_via_partition_root = true)"
        });
    }
    db.slot(plugin);
    let catalog = Tap::new(&db).discover();
    let catalog = catalog.select("public-keyed", "LOG_BASED").select("public-event", "LOG_BASED");
    let (mut target, mut state) = (Target::default(), json!({}));
    let mut run = |reader: &str, until: Option<Duration>| {
        let tap = Tap::new(&db).config("wal_reader", reader).config("break_at_end_lsn", until.is_none());
        let tap = tap.catalog(&catalog).state(&state);
        let output = match until {
            None => tap.output().parsed(),
            Some(until) => {
                let running = tap.spawn();
                thread::sleep(until);
                running.signal(Signal::TERM);
                running.finish()
            }
        };
        // What a run describes at its start may be altered before a value is looked up: the next one begins anew.
        let altered = output.status.code() == Some(1) && output.stderr.contains("changed during the run");
        let ended = matches!(output.status.code(), Some(0 | 143) | None);
        assert!(ended || altered, "{}: {}", output.status, output.stderr);
        check_protocol(&output.messages);
        assert_fits(&output.messages);
        if let Some(confirmed) = target.apply_confirmed(&output.messages) {
            state = confirmed;
        }
        (output.messages, altered)
    };

    let (copied, _) = run("auto", None);
    assert!(copied.iter().any(|message| matches!(message, Message::Record(_))));
    let runs = Arc::new(AtomicU64::new(0));
    let writer = writer(&db, plugin, random.next(), Arc::clone(&runs));
    for _ in 0..setting("TAP_SCHEMA_ROUNDS").unwrap_or(6) {
        let reader = ["stream", "bulk", "auto"][random.below(3) as usize];
        let until = random.chance(40).then(|| Duration::from_millis(200 + random.below(1500)));
        runs.fetch_add(1, Ordering::Relaxed);
        run(reader, until);
        thread::sleep(Duration::from_millis(random.below(300)));
    }
    let told = writer.stop();
    // The last of what it did.
    let told = &told[told.len().saturating_sub(60)..];
    let (_, altered) = run("auto", None);
    assert!(!altered, "nothing alters it any more");
    // Every row is sent once more, with every column that the table has now.
    db.psql("update keyed set n = n + 1; update event set n = n + 1;");
    let (last, _) = run("stream", None);
    assert!(last.len() > 100, "a test of too few rows");
    for table in ["keyed", "event"] {
        let found = target.rows(&format!("public-{table}"));
        let expected = held(&db, table);
        assert_rows(&format!("{table} after {told:#?}"), &found, &expected);
    }
}

/// The rows of a table, in the model's spelling.
#[track_caller]
fn held(db: &TestDb, table: &str) -> Vec<String> {
    let rows = source_rows(db, table);
    assert!(rows.iter().all(|row| BASE.iter().all(|column| row.contains(column))), "{rows:?}");
    rows
}
