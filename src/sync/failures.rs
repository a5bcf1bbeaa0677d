//! Failures that are one stream's: the others are read all the same, and the run ends with exit code 1.

use super::plan::StreamPlan;
use crate::error::{Error, ErrorKind, Result};
use crate::pg::error::is_of_a_statement;

/// The streams that failed, each told of in an ERROR of its own when it did: a run may go on for hours, or end by a signal.
#[derive(Default)]
pub(crate) struct Failures(Vec<String>);

impl Failures {
    /// Takes a failure, whatever it is, for the stream's alone.
    pub(crate) fn add(&mut self, stream: &str, error: &Error) {
        if self.has(stream) {
            return;
        }
        let text = error.to_string();
        if text.starts_with(&format!("{stream}: ")) || text.contains(&format!("\"{stream}\"")) {
            tracing::error!("{text}");
        } else {
            tracing::error!("{stream}: {text}");
        }
        self.0.push(stream.to_owned());
    }

    /// Returns what the work on a stream came to; `None` where it failed, and nothing but this stream with it.
    ///
    /// # Errors
    /// What no stream can go on after: a connection is lost, or stdout.
    pub(crate) fn take<T>(&mut self, stream: &str, worked: Result<T>) -> Result<Option<T>> {
        match worked {
            Ok(result) => Ok(Some(result)),
            Err(error) if is_of_one_stream(&error) => {
                self.add(stream, &error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Takes out of `plans` those of which `refused` says why they can't be read.
    pub(crate) fn refuse(
        &mut self,
        plans: &mut Vec<StreamPlan>,
        mut refused: impl FnMut(&StreamPlan) -> Option<Error>,
    ) {
        plans.retain(|plan| {
            let error = refused(plan);
            error.iter().for_each(|error| self.add(&plan.id, error));
            error.is_none()
        });
    }

    /// Whether a stream has failed.
    pub(crate) fn has(&self, stream: &str) -> bool {
        self.0.iter().any(|failed| failed == stream)
    }

    /// Returns the streams that have failed.
    pub(crate) fn streams(&self) -> &[String] {
        &self.0
    }
}

/// Whether an error that came of the work on a stream leaves what the others need: the connection, stdout, the slot.
fn is_of_one_stream(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::Stream | ErrorKind::Usage => true,
        ErrorKind::Run => is_of_a_statement(error),
        ErrorKind::Output | ErrorKind::Transient => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::error::{ServerError, lost, protocol, server};

    #[test]
    fn what_the_others_need_is_no_failure_of_one_stream() {
        let reported = |severity: &str, code: &str| {
            let body = format!("V{severity}\0C{code}\0Mmessage\0\0");
            server("reading", ServerError::parse(body.as_bytes()))
        };
        for (error, of_one) in [
            (reported("ERROR", "22012"), true),
            (reported("ERROR", "42P01"), true),
            (Error::run("around").source(reported("ERROR", "55000")), true),
            (Error::usage("no such column"), true),
            (Error::stream("dropped"), true),
            (reported("FATAL", "57P01"), false),
            (reported("FATAL", "XX000"), false),
            (reported("ERROR", "53300"), false),
            (lost(std::io::ErrorKind::ConnectionReset.into()), false),
            (protocol("garbage"), false),
            (Error::new(ErrorKind::Output, "the reader is gone"), false),
            (Error::run("anything else"), false),
        ] {
            let shown = error.to_string();
            let mut failures = Failures::default();
            assert_eq!(failures.take("s", Err::<(), _>(error)).is_ok(), of_one, "{shown}");
            assert_eq!(failures.has("s"), of_one, "{shown}");
        }
    }
}
