//! The lines of a check, and what they add up to.

use std::fmt::Display;

use crate::error::{Error, Result};

/// Writes a line for each requirement, and counts them.
#[derive(Default)]
pub(super) struct Report {
    met: usize,
    warnings: usize,
    failures: usize,
}

impl Report {
    /// A requirement is met.
    pub(super) fn ok(&mut self, found: impl Display) {
        self.met += 1;
        tracing::info!("ok: {found}");
    }

    /// A run would go on, but somebody should know.
    pub(super) fn warning(&mut self, found: impl Display) {
        self.warnings += 1;
        tracing::warn!("warning: {found}");
    }

    /// The same of an error that the settings have a run go on after.
    pub(super) fn warning_of(&mut self, error: &Error, instead: &str) {
        self.warning(format_args!("{}; {instead}", error.summary()));
    }

    /// A run would fail, or leave a stream out.
    pub(super) fn failure(&mut self, error: &Error) {
        self.failures += 1;
        match error.advice() {
            Some(advice) => tracing::error!("failure: {}; {advice}", error.summary()),
            None => tracing::error!("failure: {}", error.summary()),
        }
    }

    /// Whether it is a failure, which is then told.
    pub(super) fn is_failure(&mut self, checked: Result<()>) -> bool {
        if let Err(error) = &checked {
            self.failure(error);
        }
        checked.is_err()
    }

    /// The end: an error if anything failed.
    pub(super) fn finish(self) -> Result<()> {
        let Report { met, warnings, failures } = self;
        if failures > 0 {
            return Err(Error::run(format!("{failures} failed, {warnings} with a warning, {met} ok")));
        }
        tracing::info!("nothing failed: {warnings} with a warning, {met} ok");
        Ok(())
    }
}
