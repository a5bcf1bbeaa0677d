//! What happens to a run when its server or the way to it fails: nothing is lost, nothing comes twice, and it ends in time.
//!
//! The table has no key, so that a row which came twice would be there twice.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::harness::target::Target;
use crate::harness::{Message, Output, TestDb, check_protocol, until};
use crate::log_based::Source;

mod failover;
mod held_back;
mod mid_record;
mod readers;
mod relay;
mod restarts;
mod retries;
mod silence;
mod standby;

const LIMIT: Duration = Duration::from_secs(40);
/// How long a server may take to shut down that waits for nobody.
const SHUTDOWN: Duration = Duration::from_secs(15);
const ITEM: &str = "create table item (id integer, filler text);";

/// SQL that inserts rows with these ids.
fn fill(from: i64, to: i64) -> String {
    format!("insert into item select i, repeat('x', 500) from generate_series({from}, {to}) i;")
}

/// More than all the buffers on the way to a reader that has stopped take, in several transactions.
fn fill_a_lot(from: i64) -> String {
    (0..8).map(|n| fill(from + n * A_LOT / 8, from + (n + 1) * A_LOT / 8 - 1)).collect()
}

const A_LOT: i64 = 16_000;

fn is_row(id: i64) -> impl Fn(&Message) -> bool {
    move |message| message.as_record().is_some_and(|record| record.record["id"] == id)
}

/// What a target holds after the first run, and the state to go on from.
#[track_caller]
fn copied(source: &Source) -> (Target, Value) {
    let mut target = Target::default();
    let state = confirm(&mut target, &source.tap().run(), &Value::Null);
    (target, state)
}

/// Waits until the server waits for the tap to take what it sends, for longer than a slow tap lets it.
#[track_caller]
fn until_blocked(source: &Source) {
    let sql = "select count(*) from pg_stat_activity where datname = current_database() \
               and application_name = 'tap-postgres-rs' and wait_event in ('ClientWrite', 'WalSenderWriteData')";
    let mut since = Instant::now();
    until("the server waits for the tap", || {
        if source.db.query_one(sql) == "0" {
            since = Instant::now();
        }
        since.elapsed() > Duration::from_secs(1)
    });
}

/// Takes what a STATE of a run confirms and returns that STATE, or the one before where the run printed none.
#[track_caller]
fn confirm(target: &mut Target, output: &Output, before: &Value) -> Value {
    assert!(output.stdout.is_empty() || output.stdout.ends_with('\n'), "the last line is not whole");
    check_protocol(&output.messages);
    target.apply_confirmed(&output.messages).unwrap_or_else(|| before.clone())
}

/// A failed run said so in one line of the log, which holds all these texts, and ended with exit code 1.
#[track_caller]
fn failed(output: Output, texts: &[&str]) -> Output {
    let output = output.expect_code(1);
    let is_error = |line: &&str| line.contains("level=ERROR") || line.contains("level=CRITICAL");
    let errors: Vec<&str> = output.stderr.lines().filter(is_error).collect();
    let [error] = errors.as_slice() else { panic!("not one error:\n{}", output.stderr) };
    for text in texts {
        assert!(error.contains(text), "{text:?} is not in: {error}");
    }
    output
}

/// The background writer, which does not log the running transactions while this lives.
struct StoppedWriter(Pid);

impl StoppedWriter {
    #[track_caller]
    fn of(db: &TestDb) -> StoppedWriter {
        let pid = db.query_one("select pid from pg_stat_activity where backend_type = 'background writer'");
        let pid = Pid::from_raw(pid.parse().expect("a process ID")).expect("not 0");
        kill_process(pid, Signal::STOP).expect("stop the background writer");
        StoppedWriter(pid)
    }
}

impl Drop for StoppedWriter {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::CONT);
    }
}
