//! Progress on a terminal: a bar for the table that is being copied, and one for the log.

use std::io::{IsTerminal, Write};
use std::sync::OnceLock;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

const ROWS: &str = "{prefix} {bar:30} {human_pos} of about {human_len} rows, {per_sec}, {eta} left";
const UNKNOWN_ROWS: &str = "{prefix} {human_pos} rows, {per_sec}";
const LOG: &str = "{prefix} {bar:30} {binary_bytes} of {binary_total_bytes} of WAL{msg}";
const ENDLESS_LOG: &str = "{prefix} {binary_bytes} of WAL{msg}";

static BARS: OnceLock<MultiProgress> = OnceLock::new();

/// Shows bars from here on, if somebody looks: at stderr, while stdout goes elsewhere.
pub(super) fn start() {
    if std::io::stderr().is_terminal() && !std::io::stdout().is_terminal() {
        BARS.get_or_init(MultiProgress::new);
    }
}

/// Writes a log line, above the bars where there are any.
pub(super) fn write(line: &str) {
    // Nobody can be told that stderr is gone, and a run need not end for it.
    let write = || _ = std::io::stderr().lock().write_all(line.as_bytes());
    match BARS.get() {
        Some(bars) => bars.suspend(write),
        None => write(),
    }
}

/// A bar, where bars are shown; it goes when it is dropped.
#[derive(Debug)]
pub struct Bar(Option<ProgressBar>);

impl Bar {
    /// No bar.
    pub(super) fn none() -> Bar {
        Bar(None)
    }

    /// Of the rows of a table, of which there are about so many.
    pub(super) fn of_rows(stream: &str, expected: Option<u64>) -> Bar {
        Bar::new(stream, expected, if expected.is_some() { ROWS } else { UNKNOWN_ROWS })
    }

    /// Of so many bytes of the log; of a log without an end where that is `None`.
    pub fn of_log(bytes: Option<u64>) -> Bar {
        Bar::new("LOG_BASED", bytes, if bytes.is_some() { LOG } else { ENDLESS_LOG })
    }

    fn new(name: &str, length: Option<u64>, template: &str) -> Bar {
        Bar(BARS.get().map(|bars| {
            let bar = length.map_or_else(ProgressBar::no_length, ProgressBar::new);
            // The templates can be read: a test does.
            let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            bars.add(bar.with_style(style).with_prefix(name.to_owned()))
        }))
    }

    /// How far it is. An estimate that was too low moves with it.
    pub fn set(&self, position: u64) {
        if let Bar(Some(bar)) = self {
            if bar.length().is_some_and(|length| length < position) {
                bar.set_length(position);
            }
            bar.set_position(position);
        }
    }

    /// What stands behind it. `told` is called only where there is a bar.
    pub fn tell(&self, told: impl FnOnce() -> String) {
        if let Bar(Some(bar)) = self {
            bar.set_message(told());
        }
    }

    /// Takes it away.
    pub fn end(&mut self) {
        if let Some(bar) = self.0.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_can_be_read() {
        for template in [ROWS, UNKNOWN_ROWS, LOG, ENDLESS_LOG] {
            ProgressStyle::with_template(template).unwrap();
        }
    }
}
