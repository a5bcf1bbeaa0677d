//! How much memory a process took at most.

use std::fs;
use std::process::Child;
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Looks at a process until it ends, and returns its peak in bytes: that never falls, and is gone with the process.
pub(crate) fn watch(child: &Child) -> JoinHandle<u64> {
    let status = format!("/proc/{}/status", child.id());
    thread::spawn(move || {
        let mut last = 0;
        while let Some(peak) = high_water_mark(&status) {
            last = peak;
            thread::sleep(Duration::from_millis(2));
        }
        last
    })
}

fn high_water_mark(status: &str) -> Option<u64> {
    let status = fs::read_to_string(status).ok()?;
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().strip_suffix("kB")?;
    Some(kilobytes.trim().parse::<u64>().ok()? * 1024)
}
