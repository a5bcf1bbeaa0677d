//! Memory stays flat however many rows a run reads, also in one transaction; only a huge value takes its own size a few
//! times.
//!
//! Each test prints the peak that it saw: `cargo test memory -- --nocapture`.

use std::io::{BufRead, BufReader};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::peak::watch;
use crate::harness::tap::gather;
use crate::harness::{Catalog, Cluster, Tap, TestDb, plugins};

const MB: u64 = 1 << 20;
/// Enough for a run, and a small part of what the rows take.
const FLAT: u64 = 48 * MB;
const ROWS: u64 = 1_000_000;

const TABLE: &str = "create table item (id bigint primary key, name text, price numeric(10,2), at timestamptz);";
const FILL: &str =
    "insert into item select i, 'item number ' || i, i / 100.0, '2024-01-01Z'::timestamptz + i * interval '1 s'
    from generate_series(1, 1000000) i;";

/// What a run printed, in numbers.
struct Sum {
    records: u64,
    bytes: u64,
    state: Value,
    /// Bytes of memory that it held at once, its code included.
    peak: u64,
}

/// Runs a sync and keeps none of its records.
#[track_caller]
fn run(what: &str, tap: &Tap) -> Sum {
    let mut child = tap.command().spawn().expect("run the tap");
    let peak = watch(&child);
    let stderr = gather(child.stderr.take().expect("a piped stderr"));
    let mut stdout = BufReader::new(child.stdout.take().expect("a piped stdout"));
    let mut sum = Sum { records: 0, bytes: 0, state: Value::Null, peak: 0 };
    let mut line = Vec::new();
    while stdout.read_until(b'\n', &mut line).expect("read the tap's output") > 0 {
        if line.starts_with(br#"{"type":"RECORD""#) {
            sum.records += 1;
        } else if line.starts_with(br#"{"type":"STATE""#) {
            let message: Value = serde_json::from_slice(&line).expect("a STATE message");
            sum.state = message["value"].clone();
        }
        sum.bytes += line.len() as u64;
        line.clear();
    }
    // It ends with the process, which is not waited for yet: its id is its own.
    sum.peak = peak.join().expect("the thread that watches the tap");
    let status = child.wait().expect("wait for the tap");
    let stderr = stderr.join().expect("the thread that reads stderr");
    assert!(status.success(), "{what}: {status}; stderr:\n{stderr}");
    assert!(sum.peak > 0, "{what}: no peak was seen");
    let (peak, megabytes) = (sum.peak / MB, sum.bytes / MB);
    tell(&format!("{what}: {} records, {megabytes} MB, peak of {peak} MB", sum.records));
    sum
}

#[expect(clippy::print_stderr, reason = "the number itself is of interest, with --nocapture")]
fn tell(text: &str) {
    eprintln!("{text}");
}

/// The peak stays below a bound that the rows, kept, would be far beyond.
#[track_caller]
fn assert_flat(sum: &Sum, records: u64) {
    assert_eq!(sum.records, records);
    assert!(sum.bytes > 3 * FLAT, "too little to tell anything: {} bytes", sum.bytes);
    assert!(sum.peak < FLAT, "a peak of {} bytes", sum.peak);
}

fn select(db: &TestDb, method: &str) -> Catalog {
    Tap::new(db).discover().select("public-item", method)
}

/// A tap of the table, read in this way.
fn tap(db: &TestDb, method: &str, wal_reader: &str) -> Tap {
    Tap::new(db).catalog(&select(db, method)).config("wal_reader", wal_reader).timeout(Duration::from_secs(300))
}

#[test]
fn tables() {
    let db = TestDb::new("memory_tables");
    db.psql(&format!("{TABLE}{FILL}"));
    assert_flat(&run("FULL_TABLE", &tap(&db, "FULL_TABLE", "auto")), ROWS);
    let catalog = Tap::new(&db).discover().select_incremental("public-item", "id");
    assert_flat(&run("INCREMENTAL", &Tap::new(&db).catalog(&catalog)), ROWS);
    db.replicate("pgoutput");
    assert_flat(&run("the copy of LOG_BASED", &tap(&db, "LOG_BASED", "auto")), ROWS);
}

#[test]
fn one_transaction() {
    for plugin in plugins() {
        // Of its own, so that no test's writer is decoded beside it.
        let db = TestDb::on(&Cluster::start(""), &format!("memory_{plugin}"));
        db.psql(TABLE);
        db.replicate(plugin);
        let copied = run("an empty table", &tap(&db, "LOG_BASED", "auto"));
        db.psql(FILL);
        for reader in ["stream", "bulk"] {
            let sum = run(&format!("{plugin}, {reader}"), &tap(&db, "LOG_BASED", reader).state(&copied.state));
            assert_flat(&sum, ROWS);
        }
    }
}

/// What waits to become fewer or larger messages is bounded by its size.
#[test]
fn windows() {
    // A window, what is known of its lines, and as much in files that are being written.
    const MOST: u64 = FLAT + 130 * MB;
    let db = TestDb::on(&Cluster::start(""), "memory_windows");
    db.psql(TABLE);
    db.replicate("pgoutput");
    let copied = run("an empty table", &tap(&db, "LOG_BASED", "auto"));
    db.psql(FILL);
    for (compacts, batches) in [(true, false), (false, true)] {
        let tap = tap(&db, "LOG_BASED", "stream").state(&copied.state).config("compact_changes", compacts);
        let config = json!({
            "storage": {"root": format!("file://{}", tap.dir().join("batches").display())},
            "batch_size": 10_000_000,
        });
        let tap = if batches { tap.config("batch_config", config) } else { tap };
        let sum = run(&format!("compacts: {compacts}, batches: {batches}"), &tap);
        assert_eq!(sum.records, if batches { 0 } else { ROWS });
        assert!(sum.peak < MOST, "a peak of {} bytes", sum.peak);
    }
}

/// Lines wait for the values that the log left out.
#[test]
fn unchanged_toast() {
    for plugin in plugins() {
        let db = TestDb::on(&Cluster::start(""), &format!("memory_toast_{plugin}"));
        db.psql(
            "create table item (id bigint primary key, n integer, big text);
             alter table item alter big set storage external;
             insert into item select i, 0, repeat(md5(i::text), 100) from generate_series(1, 50000) i;
             insert into item select i, 0, repeat(md5(i::text), 32768) from generate_series(50001, 50100) i;",
        );
        db.replicate(plugin);
        let copied = run("the copy", &tap(&db, "LOG_BASED", "auto"));
        // The large ones first: a run learns how many may wait.
        db.psql("update item set n = 1 where id > 50000");
        db.psql("update item set n = 1 where id <= 50000");
        let sum = run(&format!("{plugin}, unchanged values"), &tap(&db, "LOG_BASED", "stream").state(&copied.state));
        assert_flat(&sum, 50_100);
    }
}

/// Many small values that an update left alone, then large ones: what is read at a time is bounded by its size.
#[test]
fn small_values_before_large_ones() {
    const LARGE: u64 = 4_000_000;
    for plugin in plugins() {
        let db = TestDb::on(&Cluster::start(""), &format!("memory_sizes_{plugin}"));
        db.psql(
            "create table item (id bigint primary key, n integer, big text);
             alter table item alter big set storage external;
             insert into item select i, 0, repeat('v', 3000) from generate_series(1, 808) i;
             insert into item select i, 0, repeat('v', 4000000) from generate_series(1001, 1080) i;",
        );
        db.replicate(plugin);
        let copied = run("the copy", &tap(&db, "LOG_BASED", "auto"));
        db.psql("update item set n = 1");
        let sum = run(&format!("{plugin}, small and large"), &tap(&db, "LOG_BASED", "stream").state(&copied.state));
        assert_eq!(sum.records, 888);
        assert!(sum.bytes > 80 * LARGE && sum.peak < 64 * MB + LARGE, "a peak of {} bytes", sum.peak);
    }
}

/// A value is held whole, in what the server sent and in the line that goes out.
#[test]
fn a_huge_value() {
    const SIZE: u64 = 100 * MB;
    for plugin in plugins() {
        let db = TestDb::on(&Cluster::start(""), &format!("memory_value_{plugin}"));
        db.psql("create table item (id bigint primary key, big text)");
        db.replicate(plugin);
        let first = run("an empty table", &tap(&db, "LOG_BASED", "auto"));
        db.psql("insert into item values (1, repeat('a \"value\"!', 10 * 1024 * 1024))");
        for reader in ["stream", "bulk"] {
            let sum = run(&format!("{plugin}, {reader}"), &tap(&db, "LOG_BASED", reader).state(&first.state));
            assert_eq!(sum.records, 1);
            assert!(sum.bytes > SIZE && sum.peak < FLAT + 6 * SIZE, "a peak of {} bytes", sum.peak);
        }
        let sum = run("its copy", &tap(&db, "FULL_TABLE", "auto"));
        assert_eq!(sum.records, 1);
        assert!(sum.bytes > SIZE && sum.peak < FLAT + 6 * SIZE, "a peak of {} bytes", sum.peak);
    }
}
