//! What a server, somebody between it and the tap, or a file may do to harm: answers cut short, garbled or without end,
//! names and values made to break out of SQL, errors made to put secrets into the log.

mod garbage;
mod names;
mod relay;
mod servers;
mod values;

use std::process::ExitStatus;
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::tap::{gather, tail};
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
    let stdout = gather(child.stdout.take().expect("a piped stdout"));
    let stderr = gather(child.stderr.take().expect("a piped stderr"));
    let path = format!("/proc/{}/status", child.id());
    let deadline = Instant::now() + tap.time_limit();
    let mut peak = 0;
    let status: Option<ExitStatus> = loop {
        // The peak never falls, so that the last look before the end is good.
        peak = high_water_mark(&path).unwrap_or(peak);
        match child.try_wait().expect("wait for the tap") {
            Some(status) => break Some(status),
            None if Instant::now() >= deadline => {
                child.kill().expect("kill the tap");
                child.wait().expect("wait for the killed tap");
                break None;
            }
            None => thread::sleep(Duration::from_millis(2)),
        }
    };
    let stdout = stdout.join().expect("the thread that reads stdout");
    let stderr = stderr.join().expect("the thread that reads stderr");
    let status = status.unwrap_or_else(|| panic!("the tap did not end; stderr:\n{stderr}"));
    (Output { messages: Vec::new(), stdout, stderr, status }, peak)
}

fn high_water_mark(path: &str) -> Option<u64> {
    let status = std::fs::read_to_string(path).ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// The values of a column among the records of a stream.
fn integers(messages: &[Message], stream: &str, column: &str) -> Vec<i64> {
    let records = messages.iter().filter_map(Message::as_record).filter(|record| record.stream == stream);
    records.filter_map(|record| record.record.get(column)?.as_i64()).collect()
}
