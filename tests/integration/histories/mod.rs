//! Histories of tables that are altered, renamed, swapped, moved, made anew, emptied and written to at random, between runs and
//! while one reads: after each run a stream holds what its table does, or the run says so of it, and what to do makes it right.
//!
//! `TAP_HISTORY_ROUNDS` sets how many there are for a plugin and a reader (2 otherwise), `TAP_HISTORY_SEED` where their seeds begin.
//! One that fails is made as short as it gets, and printed; its seed repeats it.

use std::io::Write as _;

mod play;
mod steps;
mod tables;

use crate::harness::random::{seed, setting};
use crate::harness::{Cluster, needs, plugins};
use play::{Way, failure, shortest};
use steps::history;

#[test]
fn pgoutput_in_bulk() {
    histories(Way { plugin: "pgoutput", reader: "bulk" });
}

#[test]
fn pgoutput_streamed() {
    histories(Way { plugin: "pgoutput", reader: "stream" });
}

#[test]
fn wal2json_in_bulk() {
    histories(Way { plugin: "wal2json", reader: "bulk" });
}

#[test]
fn wal2json_streamed() {
    histories(Way { plugin: "wal2json", reader: "stream" });
}

fn histories(way: Way) {
    if !plugins().contains(&way.plugin) || !needs(13, "a publication of partitioned tables") {
        return;
    }
    let cluster = Cluster::start("max_prepared_transactions = 5\nmax_replication_slots = 20\nautovacuum = off");
    let first = seed("TAP_HISTORY_SEED");
    for round in 0..setting("TAP_HISTORY_ROUNDS").unwrap_or(2) {
        let seed = first.wrapping_add(round);
        let history = history(seed);
        if let Some(why) = failure(&cluster, way, &history) {
            let (history, why) = shortest(&cluster, way, history, why);
            panic!("TAP_HISTORY_SEED={seed} TAP_HISTORY_ROUNDS=1, {way:?}: {why}\n{history:#?}");
        }
        if round % 25 == 24 {
            let told = format!("{way:?}: {} histories from seed {first} on, nothing silent", round + 1);
            let _ = writeln!(std::io::stderr(), "{told}");
        }
    }
}
