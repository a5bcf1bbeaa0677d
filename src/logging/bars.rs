//! Progress bars on a terminal: one for the table that is being copied, and one for the write-ahead log.

use std::fmt::Write;
use std::io::{self, IsTerminal};
use std::sync::OnceLock;

use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};

use super::figures::{bytes, grouped};

const ROWS: &str = "{prefix} {bar:30} {human_pos} of about {human_len} rows, {rate} a second, {eta} left";
const UNKNOWN_ROWS: &str = "{prefix} {human_pos} rows, {rate} a second";
const LOG: &str = "{prefix} {bar:30} {read} of {all} of WAL{msg}";
const ENDLESS_LOG: &str = "{prefix} {read} of WAL{msg}";

static BARS: OnceLock<MultiProgress> = OnceLock::new();

/// Enables bars if stderr is a terminal and stdout is not.
pub(super) fn start() {
    if io::stderr().is_terminal() && !io::stdout().is_terminal() {
        BARS.get_or_init(MultiProgress::new);
    }
}

/// Writes a log line, above the bars where there are any.
pub(super) fn write(line: &str) {
    // An error of stderr cannot be reported anywhere, and does not end a run.
    let write = || _ = io::Write::write_all(&mut io::stderr().lock(), line.as_bytes());
    match BARS.get() {
        Some(bars) => bars.suspend(write),
        None => write(),
    }
}

/// A progress bar, or nothing where bars are not enabled. It is removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Bar(Option<ProgressBar>);

impl Bar {
    /// Returns no bar.
    pub(super) fn none() -> Bar {
        Bar(None)
    }

    /// Adds a bar for the rows of a table, with an estimate of their number.
    pub(super) fn of_rows(stream: &str, expected: Option<u64>) -> Bar {
        Bar::new(stream, expected, if expected.is_some() { ROWS } else { UNKNOWN_ROWS })
    }

    /// Adds a bar for so many bytes of the log; `None` if the read has no end.
    pub(crate) fn of_log(bytes: Option<u64>) -> Bar {
        Bar::new("LOG_BASED", bytes, if bytes.is_some() { LOG } else { ENDLESS_LOG })
    }

    fn new(name: &str, length: Option<u64>, template: &str) -> Bar {
        Bar(BARS.get().map(|bars| {
            let bar = length.map_or_else(ProgressBar::no_length, ProgressBar::new);
            bars.add(bar.with_style(style(template)).with_prefix(name.to_owned()))
        }))
    }

    /// Sets the position. Where it exceeds the length, which may be an estimate, the length is raised.
    pub(crate) fn set(&self, position: u64) {
        if let Bar(Some(bar)) = self {
            if bar.length().is_some_and(|length| length < position) {
                bar.set_length(position);
            }
            bar.set_position(position);
        }
    }

    /// Sets the text behind the bar. `text` is called only where there is a bar.
    pub(crate) fn tell(&self, text: impl FnOnce() -> String) {
        if let Bar(Some(bar)) = self {
            bar.set_message(text());
        }
    }

    /// Removes the bar.
    pub(crate) fn end(&mut self) {
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

/// Parses a template; its figures are formatted as in the log.
fn style(template: &str) -> ProgressStyle {
    // A test parses all of them.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    // Writing to a line of text does not fail.
    style
        .with_key("rate", |state: &ProgressState, out: &mut dyn Write| {
            _ = out.write_str(&grouped(state.per_sec() as u64))
        })
        .with_key("read", |state: &ProgressState, out: &mut dyn Write| _ = out.write_str(&bytes(state.pos())))
        .with_key("all", |state: &ProgressState, out: &mut dyn Write| {
            _ = out.write_str(&bytes(state.len().unwrap_or(0)))
        })
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
