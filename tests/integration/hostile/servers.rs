//! A real server whose answers are cut short or garbled on the way, in every phase of a run.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::Value;

use super::relay::{Fate, Relay};
use super::{failed, integers, measured, unharmed};
use crate::harness::random::{Random, seed, setting};
use crate::harness::{Catalog, Message, Output, Tap, TestDb, check_protocol, plugins};

/// A table that is read whole and one whose log is read, with changes that wait.
struct Source {
    db: TestDb,
    slot: String,
    catalog: Catalog,
    state: Value,
    /// The log's end after each change of `streamed`, whose ids count from 1.
    ends: Vec<u64>,
}

const CHANGES: usize = 5;

impl Source {
    fn new(plugin: &str) -> Source {
        let db = TestDb::new(&format!("hostile_{plugin}"));
        db.psql(
            "create table copied (id integer primary key, note text);
             insert into copied select n, repeat('x', n) from generate_series(1, 50) n;
             create table streamed (id integer primary key, note text)",
        );
        let slot = db.replicate(plugin);
        let catalog =
            Tap::new(&db).discover().select("public-copied", "FULL_TABLE").select("public-streamed", "LOG_BASED");
        let state = Tap::new(&db).catalog(&catalog).run().last_state().clone();
        let ends = (1..=CHANGES).map(|id| {
            db.psql(&format!("insert into streamed values ({id}, repeat('y', {id}0))"));
            db.lsn("pg_current_wal_insert_lsn()")
        });
        let ends = ends.collect();
        Source { db, slot, catalog, state, ends }
    }

    /// A run that goes on from the state, reading the log in one way or the other.
    fn tap(&self, relay: &Relay, reader: &str) -> Tap {
        let tap = Tap::new(&self.db).catalog(&self.catalog).state(&self.state);
        relay.lead(tap).config("wal_reader", reader)
    }

    /// How much the server says in such a run.
    fn length(&self, reader: &str) -> u64 {
        let relay = Relay::before(self.db.cluster(), |_, bytes| Fate::pass(bytes));
        let output = self.tap(&relay, reader).run();
        assert_eq!(integers(&output.messages, "public-streamed", "id").len(), CHANGES);
        relay.passed()
    }

    /// A run failed, or everything came and a STATE after it: the last that it asks is for its log alone, and how much is said differs
    /// a little from run to run.
    #[track_caller]
    fn ended(&self, output: Output) -> Output {
        if !output.status.success() {
            return failed(output);
        }
        let output = unharmed(output);
        assert_eq!(integers(&output.messages, "public-copied", "id").len(), 50);
        assert_eq!(integers(&output.messages, "public-streamed", "id").len(), CHANGES);
        assert!(output.messages.last().is_some_and(Message::is_state));
        output
    }

    /// No STATE is past a change that did not come before it, and the server was told of no more than it had been.
    #[track_caller]
    fn assert_nothing_claimed(&self, messages: &[Message]) {
        check_protocol(messages);
        for (at, state) in messages.iter().enumerate().filter_map(|(at, message)| Some((at, message.as_state()?))) {
            let lsn = state["bookmarks"]["public-streamed"]["lsn"].as_u64().expect("a position");
            let told = integers(&messages[..at], "public-streamed", "id");
            for (id, end) in (1..).zip(&self.ends) {
                assert!(lsn < *end || told.contains(&id), "{state} before change {id}");
            }
        }
        let given = self.state["bookmarks"]["public-streamed"]["lsn"].as_u64().expect("a position");
        assert!(self.db.confirmed_flush(&self.slot) <= given);
    }
}

/// Runs the cases, each of which has a source for itself while it lasts.
fn in_parallel(plugin: &str, cases: usize, case: impl Fn(&Source, usize) + Sync) {
    const WORKERS: usize = 3;
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..WORKERS.min(cases) {
            scope.spawn(|| {
                let source = Source::new(plugin);
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= cases {
                        return;
                    }
                    case(&source, index);
                }
            });
        }
    });
}

/// How many cases a test tries: TAP_HOSTILE_CASES, of which there can be any number.
fn cases(ordinarily: usize) -> usize {
    setting("TAP_HOSTILE_CASES").map_or(ordinarily, |cases| cases as usize)
}

/// The server hangs up after every number of bytes that a run can hear: of the login each, of the rest in steps.
fn answers_cut_short(plugin: &str) {
    let source = Source::new(plugin);
    let lengths = ["stream", "bulk"].map(|reader| (reader, source.length(reader)));
    let cases = cases(80);
    in_parallel(plugin, cases, |source, index| {
        let (reader, length) = lengths[index % 2];
        let cut = match index / 2 {
            few @ 0..10 => few as u64,
            _ => length * index as u64 / cases as u64,
        };
        let relay = Relay::before(source.db.cluster(), move |before, bytes| {
            let left = usize::try_from(cut - before.min(cut)).expect("a short conversation");
            Fate { bytes: bytes[..left.min(bytes.len())].to_vec(), cut: left < bytes.len(), meddled: false }
        });
        let output = source.tap(&relay, reader).output();
        source.assert_nothing_claimed(&source.ended(output).messages);
    });
}

#[test]
fn answers_cut_short_pgoutput() {
    answers_cut_short("pgoutput");
}

#[test]
fn answers_cut_short_wal2json() {
    if plugins().contains(&"wal2json") {
        answers_cut_short("wal2json");
    }
}

/// Bytes of the server's answers are others. TAP_HOSTILE_SEED repeats what a failure names.
fn answers_garbled(plugin: &str) {
    let seed = seed("TAP_HOSTILE_SEED");
    let source = Source::new(plugin);
    let lengths = ["stream", "bulk"].map(|reader| (reader, source.length(reader)));
    in_parallel(plugin, cases(60), |source, index| {
        let seed = seed + index as u64;
        let mut random = Random(seed);
        let (reader, length) = lengths[random.below(2) as usize];
        let mut places: Vec<(u64, u8)> = Vec::new();
        for _ in 0..1 + random.below(4) {
            places.push((random.below(length), random.below(255) as u8 + 1));
        }
        let relay = Relay::before(source.db.cluster(), move |before, bytes| {
            let mut bytes = bytes.to_vec();
            let mut meddled = false;
            for (place, flips) in &places {
                let at = place.checked_sub(before).and_then(|at| bytes.get_mut(at as usize));
                if let Some(byte) = at {
                    *byte ^= flips;
                    meddled = true;
                }
            }
            Fate { bytes, cut: false, meddled }
        });
        let ended = std::panic::catch_unwind(|| unharmed(source.tap(&relay, reader).output()));
        let Err(panic) = ended else { return };
        let text = panic.downcast_ref::<String>().map_or("", String::as_str);
        panic!("with TAP_HOSTILE_SEED={seed} TAP_HOSTILE_CASES=1 (or a few more), {plugin}: {text}");
    });
}

#[test]
fn answers_garbled_pgoutput() {
    answers_garbled("pgoutput");
}

#[test]
fn answers_garbled_wal2json() {
    if plugins().contains(&"wal2json") {
        answers_garbled("wal2json");
    }
}

/// In any phase, a message that claims to be as long as they get takes no more memory than of it really comes.
#[test]
fn a_length_alone_takes_no_memory() {
    let source = Source::new("pgoutput");
    let lengths = ["stream", "bulk"].map(|reader| (reader, source.length(reader)));
    in_parallel("pgoutput", 24, |source, index| {
        let (reader, length) = lengths[index % 2];
        let place = length * (index as u64 / 2) / 12;
        let claim: [u8; 4] = [[0x3f, 0xff, 0xff, 0xff], [0x7f, 0xff, 0xff, 0xff], [0xff; 4]][index % 3];
        let relay = Relay::before(source.db.cluster(), move |before, bytes| {
            let Some(left) = place.checked_sub(before).filter(|left| *left <= bytes.len() as u64) else {
                return Fate::pass(bytes);
            };
            let claimed = [&bytes[..left as usize], b"d", &claim, &vec![0; 1 << 20]].concat();
            Fate { bytes: claimed, cut: true, meddled: true }
        });
        let (output, peak) = measured(&source.tap(&relay, reader));
        source.assert_nothing_claimed(&source.ended(output).messages);
        assert!(peak < 64 * 1024, "{peak} kB after {place} bytes");
    });
}
