//! The lines of a check, and what they add up to.

use std::fmt::Display;

use crate::error::{Error, Result};

/// The report of a check, which logs a line for each requirement and counts them.
#[derive(Default)]
pub(super) struct Report {
    met: usize,
    warnings: usize,
    failures: usize,
}

impl Report {
    /// Reports a requirement that is met.
    pub(super) fn ok(&mut self, found: impl Display) {
        self.met += 1;
        tracing::info!("ok: {found}");
    }

    /// Reports a problem that a run would go on with.
    pub(super) fn warning(&mut self, found: impl Display) {
        self.warnings += 1;
        tracing::warn!("warning: {found}");
    }

    /// Reports, as a warning, an error after which the settings let a run go on.
    pub(super) fn warning_of(&mut self, error: &Error, instead: &str) {
        self.warning(format_args!("{}; {instead}", error.summary()));
    }

    /// Reports an error that a run would fail with, or leave a stream out for.
    pub(super) fn failure(&mut self, error: &Error) {
        self.failures += 1;
        match error.advice() {
            Some(advice) => tracing::error!("failure: {}; {advice}", error.summary()),
            None => tracing::error!("failure: {}", error.summary()),
        }
    }

    /// Reports the error, if it is one; returns whether it is.
    pub(super) fn is_failure(&mut self, checked: Result<()>) -> bool {
        if let Err(error) = &checked {
            self.failure(error);
        }
        checked.is_err()
    }

    /// Ends the report: an error if anything failed.
    pub(super) fn finish(self) -> Result<()> {
        let Report { met, warnings, failures } = self;
        if failures > 0 {
            return Err(Error::run(format!("{failures} failed, {warnings} with a warning, {met} ok")));
        }
        tracing::info!("nothing failed: {warnings} with a warning, {met} ok");
        Ok(())
    }
}
