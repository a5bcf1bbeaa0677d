//! One error type for the whole program: what went wrong, of which kind, and what to do about it.
//!
//! The kind picks the exit code (see [`ErrorKind::exit_code`]); the hint is printed after the message. Messages are
//! lower case without a full stop; the cause is attached as the source, not pasted into the message.

use std::fmt;

/// A result with the program's own error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Box<dyn std::error::Error + Send + Sync + 'static>;

/// The kind of an error: who has to act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Wrong usage, or a file that cannot be used. Exit code 2.
    Usage,
    /// The run failed: the server, the network, a missing privilege. Exit code 1.
    Run,
    /// One stream failed, and what the others need is as it was. Exit code 1.
    Stream,
    /// The reader of stdout went away or stdout cannot be written. Exit code 1.
    Output,
    /// A passing condition (the server is starting up, no connection slot is free). Worth a retry; exit code 1.
    Transient,
}

impl ErrorKind {
    /// Returns the exit code that a scheduler sees.
    pub fn exit_code(self) -> u8 {
        match self {
            ErrorKind::Usage => 2,
            ErrorKind::Run | ErrorKind::Stream | ErrorKind::Output | ErrorKind::Transient => 1,
        }
    }
}

/// An error: what went wrong, of which kind, and what to do.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    source: Option<Source>,
}

impl Error {
    /// Returns an error of the given kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into(), hint: None, source: None }
    }

    /// Returns an error of kind [`Usage`](ErrorKind::Usage).
    pub fn usage(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Usage, message)
    }

    /// Returns an error of kind [`Run`](ErrorKind::Run).
    pub fn run(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Run, message)
    }

    /// Returns an error of kind [`Stream`](ErrorKind::Stream).
    pub fn stream(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Stream, message)
    }

    /// Returns an error of kind [`Transient`](ErrorKind::Transient).
    pub fn transient(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Transient, message)
    }

    /// Adds a hint: what to do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Attaches the cause.
    pub fn source(mut self, source: impl Into<Source>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Returns the kind.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Returns the hint, if there is one.
    pub fn advice(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Returns the message and its causes, on one line.
    pub fn summary(&self) -> String {
        let mut text = self.message.clone();
        let mut cause = self.source.as_ref().map(|s| s.as_ref() as &dyn std::error::Error);
        while let Some(error) = cause {
            text += ": ";
            text += &one_line(&error.to_string());
            // One of our own includes its causes.
            cause = if error.is::<Error>() { None } else { error.source() };
        }
        text
    }
}

impl fmt::Display for Error {
    /// Writes the message, its causes and the hint, on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.summary())?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

/// Returns the end of an advice that SQL can follow: `run: A; B;`, ready to paste.
pub fn to_run<S: AsRef<str>>(statements: &[S]) -> String {
    let statements = statements.iter().map(|sql| format!(" {};", sql.as_ref()));
    std::iter::once("run:".to_owned()).chain(statements).collect()
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|s| s.as_ref() as &(dyn std::error::Error + 'static))
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Attaches context to the error of a [`Result`].
pub trait Context<T> {
    /// Turns the error into one with this message, the original attached as its source: a run error, or of the kind that
    /// the original has.
    fn context(self, message: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Source>> Context<T> for std::result::Result<T, E> {
    fn context(self, message: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| {
            let source = error.into();
            let kind = source.downcast_ref::<Error>().map_or(ErrorKind::Run, Error::kind);
            Error { kind, message: message(), hint: None, source: Some(source) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_is_one_line_with_cause_and_hint() {
        let cause = std::io::Error::other("refused\nby peer");
        let error = Error::run("cannot connect").source(cause).hint("start the server");
        assert_eq!(error.to_string(), "cannot connect: refused by peer (start the server)");
        assert_eq!(error.summary(), "cannot connect: refused by peer");
        assert_eq!(error.kind().exit_code(), 1);
        assert_eq!(Error::usage("x").kind().exit_code(), 2);
    }

    #[test]
    fn sql_to_run_can_be_pasted() {
        assert_eq!(to_run(&["SELECT 1"]), "run: SELECT 1;");
        assert_eq!(to_run(&["BEGIN".to_owned(), "COMMIT".to_owned()]), "run: BEGIN; COMMIT;");
    }

    #[test]
    fn an_error_of_our_own_tells_its_causes_once_and_keeps_its_kind() {
        let inner: Result<()> = Err(Error::transient("inner").source(std::io::Error::other("root")));
        let outer = inner.context(|| "outer".to_owned()).unwrap_err();
        assert_eq!(outer.to_string(), "outer: inner: root");
        assert_eq!(outer.kind(), ErrorKind::Transient);
    }
}
