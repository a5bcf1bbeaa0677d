//! Killed again and again at random places while the source is written to, the tap loses nothing and invents nothing.
//!
//! `TAP_CRASH_ROUNDS` sets how often (a plugin; 8 otherwise), `TAP_CRASH_SEED` repeats the choices of a run that failed,
//! though not its timing.

mod writer;

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::harness::messages::Record;
use crate::harness::random::{Random, Told, seed, setting};
use crate::harness::tap::{gather, wait};
use crate::harness::target::{Target, assert_rows, source_rows};
use crate::harness::{Catalog, Cluster, Message, Tap, TestDb, check_protocol, plugins, release};
use writer::{DROP_ORIGIN, HUGE_TRANSACTION, PARTITIONED, TABLES, writer};

#[test]
fn pgoutput() {
    crashes("pgoutput");
}

#[test]
fn wal2json() {
    crashes("wal2json");
}

const STREAMS: [&str; 2] = ["public-keyed", "public-keyless"];
/// After so many runs that may be cut short the writer pauses, and all is compared.
const ROUNDS_A_LIFE: u64 = 8;

fn crashes(plugin: &'static str) {
    if !plugins().contains(&plugin) {
        return;
    }
    let rounds = setting("TAP_CRASH_ROUNDS").unwrap_or(8);
    let seed = seed("TAP_CRASH_SEED");
    // Of its own: slots are taken away, and transactions stay open.
    let cluster = Cluster::start("max_replication_slots = 3");
    let mut random = Random(seed);
    let mut round = 0;
    while round < rounds {
        let mut life = Life::new(&cluster, plugin, random.next());
        let _told = Told(format!("TAP_CRASH_SEED={seed}, {plugin}, from round {round}"));
        let writer = writer(&life.db, random.next());
        let rounds_to_come = ROUNDS_A_LIFE.min(rounds - round);
        let huge = life.random.below(rounds_to_come);
        for number in 0..rounds_to_come {
            if number == huge {
                life.db.psql(HUGE_TRANSACTION);
            }
            let cut = Cut::any(&mut life.random);
            life.round(cut);
            round += 1;
        }
        writer.stop();
        life.round(Cut::Never);
        life.assert_equal();
        life.db.psql(DROP_ORIGIN);
    }
}

/// Where a run is cut short.
#[derive(Clone, Copy, Debug)]
enum Cut {
    Never,
    /// By a signal after this time.
    Time(Duration, Signal),
    /// By a signal when so many lines were read.
    Line(u64, Signal),
    /// The reader goes away after so many lines.
    Reader(u64),
}

impl Cut {
    fn any(random: &mut Random) -> Cut {
        let signal = if random.chance(75) { Signal::KILL } else { Signal::TERM };
        // Small numbers as likely as large ones.
        let scale = 1 << random.below(18);
        let line = 1 + random.below(scale);
        match random.below(10) {
            0 => Cut::Never,
            1..6 => Cut::Time(Duration::from_millis(random.below(500)), signal),
            6..9 => Cut::Line(line, signal),
            _ => Cut::Reader(line),
        }
    }
}

/// A database from its slot's making on, and a target of it.
struct Life {
    db: TestDb,
    plugin: &'static str,
    catalog: Catalog,
    random: Random,
    target: Target,
    state: Value,
    log: Vec<String>,
}

impl Life {
    fn new(cluster: &std::sync::Arc<Cluster>, plugin: &'static str, seed: u64) -> Life {
        let db = TestDb::on(cluster, &format!("crash_{plugin}"));
        db.psql(TABLES);
        let mut random = Random(seed);
        if release() >= 13 && random.chance(40) {
            db.psql(PARTITIONED);
        }
        let catalog = STREAMS.iter().fold(Tap::new(&db).discover(), |catalog, id| catalog.select(id, "LOG_BASED"));
        let (target, state) = (Target::default(), json!({}));
        Life { db, plugin, catalog, random, target, state, log: Vec::new() }
    }

    /// One run; the target keeps what a STATE confirmed.
    #[track_caller]
    fn round(&mut self, cut: Cut) {
        let reader = ["stream", "bulk", "auto"][self.random.below(3) as usize];
        if self.random.chance(20) {
            self.forget_a_stream();
        }
        let spare = self.random.chance(60);
        self.spare_slots(spare);
        let forever = matches!(cut, Cut::Time(..)) && self.random.chance(15);
        let connections = [1, 3][self.random.below(2) as usize];
        let in_steps = !matches!(cut, Cut::Never) && self.random.chance(30);
        let (compacts, batches) = (self.random.chance(40), self.random.chance(40));
        self.log.push(format!(
            "{cut:?} {reader} spare slots: {spare}, forever: {forever}, {connections} connections, in steps: {in_steps}, \
             compacts: {compacts}, batches: {batches}, state {}",
            self.state
        ));
        let before = self.confirmed_flush();
        let tap = Tap::new(&self.db)
            .config("create_replication_slot", true)
            .config("output_plugin", self.plugin)
            .config("wal_reader", reader)
            .config("break_at_end_lsn", !forever)
            .config("copy_parallelism", connections)
            .config("compact_changes", compacts)
            // Slices of a page or two, a STATE after each, snapshots that are soon too old.
            .env("TAP_TEST_SLICING", "16384,0,60")
            .catalog(&self.catalog)
            .state(&self.state)
            .timeout(Duration::from_secs(300));
        let tap = if in_steps { tap.config("max_copy_seconds", 0) } else { tap };
        let root = format!("file://{}", tap.dir().join("batches").display());
        let config = json!({"storage": {"root": root}, "batch_size": 1 + self.random.below(200)});
        let tap = if batches { tap.config("batch_config", config) } else { tap };
        let mut messages = self.run(&tap, cut);
        check_protocol(&messages);
        self.assert_forward(&messages);
        if !forever && self.random.chance(25) {
            self.log.push("the target lost it all: again with the same state".to_owned());
            let again = self.run(&tap, Cut::Never);
            check_protocol(&again);
            // Others are the last of their row in a run that gets further.
            if !compacts && !batches {
                self.assert_repeated(&messages, &again);
            }
            messages = again;
        }
        if let Some((before, after)) = before.zip(self.confirmed_flush()) {
            // A stream that is copied from the start asks for nothing that was.
            let stored = STREAMS.iter().filter_map(|id| needed_lsn(&self.state, id)).min();
            let allowed = before.max(stored.unwrap_or(0));
            assert!(after <= allowed, "acknowledged {after}, past {allowed}: {:#?}", self.log);
        }
        if let Some(state) = self.target.apply_confirmed(&messages) {
            self.state = state;
        }
    }

    /// As a user does who wants a table copied again.
    fn forget_a_stream(&mut self) {
        let id = STREAMS[self.random.below(2) as usize];
        if let Some(bookmarks) = self.state.get_mut("bookmarks").and_then(Value::as_object_mut) {
            bookmarks.remove(id);
        }
    }

    /// Whether there are slots left for a copy of its own. The tap's own slot keeps its place.
    fn spare_slots(&self, spare: bool) {
        self.db.free_spare_slots();
        if !spare && self.confirmed_flush().is_some() {
            // The server may not have noticed yet that a run was killed.
            self.db.wait_until("not exists (select from pg_replication_slots where temporary)");
            self.db.take_spare_slots();
        }
    }

    fn confirmed_flush(&self) -> Option<u64> {
        let sql = format!(
            "select confirmed_flush_lsn - '0/0'::pg_lsn from pg_replication_slots where slot_name = '{}'",
            self.db.slot_name()
        );
        self.db.query(&sql).first()?.first()?.as_ref()?.parse().ok()
    }

    /// Runs until the cut, or to the end. Returns the whole messages that were read.
    #[track_caller]
    fn run(&self, tap: &Tap, cut: Cut) -> Vec<Message> {
        let mut child = tap.command().spawn().expect("run the tap");
        let stderr = gather(child.stderr.take().expect("a piped stderr"));
        let stdout = child.stdout.take().expect("a piped stdout");
        let (lines, reached) = match cut {
            Cut::Line(line, _) => read(stdout, Some(line), false),
            Cut::Reader(line) => read(stdout, Some(line), true),
            Cut::Never | Cut::Time(..) => read(stdout, None, false),
        };
        match cut {
            Cut::Time(after, how) => {
                thread::sleep(after);
                signal(&mut child, how);
            }
            // The sender goes away with the end of stdout.
            Cut::Line(_, how) if reached.recv().is_ok() => signal(&mut child, how),
            _ => {}
        }
        let status = wait(&mut child, tap.time_limit());
        let stderr = stderr.join().expect("the thread that reads stderr");
        let status = status.unwrap_or_else(|| panic!("no end; {stderr}\n{:#?}", self.log));
        let expected = match (cut, status.code()) {
            (_, Some(0)) => true,
            (Cut::Reader(_), Some(1)) => stderr.contains("reader of stdout went away"),
            (Cut::Time(_, Signal::TERM) | Cut::Line(_, Signal::TERM), code) => matches!(code, Some(143) | None),
            (Cut::Time(..) | Cut::Line(..), None) => true,
            _ => false,
        };
        assert!(expected, "{status}; {stderr}\n{:#?}", self.log);
        lines.join().expect("the thread that reads stdout")
    }

    /// A stream that is being streamed goes forward in every STATE.
    #[track_caller]
    fn assert_forward(&self, messages: &[Message]) {
        for id in STREAMS {
            let mut last = finished_lsn(&self.state, id);
            for state in messages.iter().filter_map(Message::as_state) {
                let lsn = finished_lsn(state, id);
                assert!(lsn.is_none() || lsn >= last, "{id} goes back from {last:?} in {state}: {:#?}", self.log);
                last = lsn.or(last);
            }
        }
    }

    /// What was confirmed of the first run's changes comes again, in the same order; then come younger ones.
    #[track_caller]
    fn assert_repeated(&self, first: &[Message], again: &[Message]) {
        let confirmed = first.iter().rposition(Message::is_state).unwrap_or(0);
        let (first, again) = (self.changes(&first[..confirmed]), self.changes(again));
        if !again.starts_with(&first) {
            let at = first.iter().zip(&again).take_while(|(one, other)| one == other).count();
            panic!("{:?} became {:?} in another run: {:#?}", first.get(at), again.get(at), self.log);
        }
    }

    /// The changes of streams that are not copied, but for what is read from the table as it is now.
    fn changes(&self, messages: &[Message]) -> Vec<(String, String)> {
        let streamed = |record: &&Record| finished_lsn(&self.state, &record.stream).is_some();
        let change = |record: &Record| {
            let mut row = record.record.clone();
            row.remove("big");
            (record.stream.clone(), Value::Object(row).to_string())
        };
        messages.iter().filter_map(Message::as_record).filter(streamed).map(change).collect()
    }

    #[track_caller]
    fn assert_equal(&self) {
        for id in STREAMS {
            let table = id.trim_start_matches("public-");
            let expected = source_rows(&self.db, table);
            let found = self.target.rows(id);
            assert!(expected.len() > 100, "too few rows of {table} to tell anything");
            assert_rows(&format!("{table} after {:#?}", self.log), &found, &expected);
        }
    }
}

/// The position of a stream from which the log has to be there.
fn needed_lsn(state: &Value, id: &str) -> Option<u64> {
    let bookmark = &state["bookmarks"][id];
    bookmark["lsn"].as_u64().filter(|_| bookmark["xmin"].is_null() || bookmark["copy"].is_array())
}

/// The position of a stream whose copy is done.
fn finished_lsn(state: &Value, id: &str) -> Option<u64> {
    let bookmark = &state["bookmarks"][id];
    bookmark["lsn"].as_u64().filter(|_| bookmark["xmin"].is_null())
}

fn signal(child: &mut Child, signal: Signal) {
    // It is not waited for yet, so that its id is its own.
    kill_process(Pid::from_child(child), signal).expect("send a signal to the tap");
}

/// Reads whole lines beside the test; says when it has read so many, and then goes on or leaves.
fn read(stdout: ChildStdout, until: Option<u64>, leave: bool) -> (JoinHandle<Vec<Message>>, Receiver<()>) {
    let (sender, reached) = channel();
    let thread = thread::spawn(move || {
        let (mut stdout, mut messages, mut count) = (BufReader::new(stdout), Vec::new(), 0);
        let mut line = String::new();
        while stdout.read_line(&mut line).is_ok_and(|read| read > 0) && line.ends_with('\n') {
            messages.push(Message::parse(line.trim_end()).unwrap_or_else(|error| panic!("{error}")));
            line.clear();
            count += 1;
            if until == Some(count) {
                let _ = sender.send(());
                if leave {
                    break;
                }
            }
        }
        messages
    });
    (thread, reached)
}
