//! What a server, somebody between it and the tap, or a file may do to harm: answers cut short, garbled or without end,
//! names and values made to break out of SQL, errors made to put secrets into the log.

mod garbage;
mod names;
mod relay;
mod servers;
mod values;

use crate::harness::peak::watch;
use crate::harness::tap::{collect, tail};
use crate::harness::{Message, Output, Tap};

/// Whatever is done to it, a run ends by itself, with a code of its own and without a panic, and stdout holds whole
/// messages.
#[track_caller]
fn unharmed(output: Output) -> Output {
    assert!(matches!(output.status.code(), Some(0 | 1)), "{}; stderr:\n{}", output.status, output.stderr);
    assert!(!output.stderr.contains("panicked") && !output.stderr.contains("internal error"), "{}", output.stderr);
    assert!(output.stdout.is_empty() || output.stdout.ends_with('\n'), "{}", tail(&output.stdout));
    output.parsed()
}

/// A failed run: exit code 1 and one line that tells why.
#[track_caller]
fn failed(output: Output) -> Output {
    let output = unharmed(output.expect_code(1));
    assert_eq!(output.logged("level=ERROR"), 1, "not one error:\n{}", output.stderr);
    output
}

/// Runs to the end and says how much memory it had at most, in kB.
#[track_caller]
fn measured(tap: &Tap) -> (Output, u64) {
    let mut child = tap.command().spawn().expect("run the tap");
    let peak = watch(&child);
    let output = collect(&mut child, tap.time_limit());
    (output, peak.join().expect("the thread that watches the tap") / 1024)
}

/// The values of a column among the records of a stream.
fn integers(messages: &[Message], stream: &str, column: &str) -> Vec<i64> {
    let records = messages.iter().filter_map(Message::as_record).filter(|record| record.stream == stream);
    records.filter_map(|record| record.record.get(column)?.as_i64()).collect()
}
