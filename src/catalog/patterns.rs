//! `--select` and `--deselect`: streams and columns by patterns, as Meltano's `select` has them.

use wildmatch::WildMatch;

use crate::error::{Error, Result};

/// Which streams and columns are selected without a catalog.
#[derive(Clone, Debug, Default)]
pub(crate) struct Patterns {
    /// Those of which one has to match; where there is none, everything does.
    select: Vec<Pattern>,
    /// Those of which none may match.
    deselect: Vec<Pattern>,
}

/// `stream` or `stream.column`, both with `*` and `?`; a point in a stream's name is written `\.`.
#[derive(Clone, Debug)]
struct Pattern {
    /// As it was written, with the option before it.
    written: String,
    stream: WildMatch,
    /// `None`: all of the stream's columns.
    column: Option<WildMatch>,
}

impl Patterns {
    /// Reads the patterns of both options.
    ///
    /// # Errors
    /// One has no stream.
    pub(crate) fn parse(select: &[String], deselect: &[String]) -> Result<Patterns> {
        let parse = |option: &str, patterns: &[String]| {
            patterns.iter().map(|pattern| Pattern::parse(option, pattern)).collect::<Result<Vec<_>>>()
        };
        Ok(Patterns { select: parse("--select", select)?, deselect: parse("--deselect", deselect)? })
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.select.is_empty() && self.deselect.is_empty()
    }

    /// Whether a stream is selected.
    pub(crate) fn selects(&self, stream: &str) -> bool {
        let deselected =
            || self.deselect.iter().any(|pattern| pattern.column.is_none() && pattern.stream.matches(stream));
        (self.select.is_empty() || self.select.iter().any(|pattern| pattern.stream.matches(stream))) && !deselected()
    }

    /// Whether a column of a selected stream is; a key is in any case.
    pub(crate) fn selects_column(&self, stream: &str, column: &str) -> bool {
        let matches = |pattern: &Pattern| pattern.matches_column(stream, column);
        (self.select.is_empty() || self.select.iter().any(matches)) && !self.deselect.iter().any(matches)
    }

    /// Checks that each pattern matches one of these streams, or one of the columns beside it: a name may be misspelt, and what it
    /// would leave out be sent.
    ///
    /// # Errors
    /// One matches nothing.
    pub(crate) fn check(&self, streams: &[(String, Vec<&str>)]) -> Result<()> {
        for pattern in self.select.iter().chain(&self.deselect) {
            let matching = || streams.iter().filter(|(stream, _)| pattern.stream.matches(stream));
            let has = |column: &WildMatch| matching().any(|(_, columns)| columns.iter().any(|c| column.matches(c)));
            let what = match &pattern.column {
                _ if matching().next().is_none() => "stream that the role can read",
                Some(column) if !has(column) => "column of the streams that it matches",
                _ => continue,
            };
            return Err(Error::usage(format!("{} matches no {what}", pattern.written)).hint(
                "--discover lists streams, as `tap_stream_id`, and columns; upper and lower case are different",
            ));
        }
        Ok(())
    }
}

impl Pattern {
    fn parse(option: &str, written: &str) -> Result<Pattern> {
        let point = written.char_indices().find(|(at, c)| *c == '.' && !written[..*at].ends_with('\\'));
        let (stream, column) = match point {
            Some((at, _)) => (&written[..at], Some(&written[at + 1..])),
            None => (written, None),
        };
        if stream.is_empty() || column.is_some_and(str::is_empty) {
            let error =
                Error::usage(format!("{option} {written:?}: expected a stream, or a stream, a point and a column"));
            return Err(error.hint("both may have * and ?; a point in a stream's name is written \\."));
        }
        let all = |column: &&str| *column != "*";
        Ok(Pattern {
            written: format!("{option} {written:?}"),
            stream: WildMatch::new(&stream.replace("\\.", ".")),
            column: column.filter(all).map(WildMatch::new),
        })
    }

    fn matches_column(&self, stream: &str, column: &str) -> bool {
        self.stream.matches(stream) && self.column.as_ref().is_none_or(|pattern| pattern.matches(column))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(select: &[&str], deselect: &[&str]) -> Patterns {
        let owned = |patterns: &[&str]| patterns.iter().map(|pattern| (*pattern).to_owned()).collect::<Vec<_>>();
        Patterns::parse(&owned(select), &owned(deselect)).unwrap()
    }

    #[test]
    fn streams() {
        for (select, deselect, selected, others) in [
            (&[][..], &[][..], &["public-a", "sales-b"][..], &[][..]),
            (&["sales-*"], &[], &["sales-a", "sales-"], &["public-a", "xsales-a", "Sales-a"]),
            (&["sales-*.id", "public-a?"], &[], &["sales-a", "public-ab"], &["public-a"]),
            (&["*"], &["sales-*"], &["public-a"], &["sales-a"]),
            (&[], &["sales-*.*"], &["public-a"], &["sales-a"]),
            (&[], &["sales-*.secret"], &["public-a", "sales-a"], &[]),
            (&["public-a\\.b", "public-c\\.*.id"], &[], &["public-a.b", "public-c.d"], &["public-a", "public-cd"]),
        ] {
            let patterns = patterns(select, deselect);
            assert!(selected.iter().all(|stream| patterns.selects(stream)), "{select:?} {deselect:?}");
            assert!(!others.iter().any(|stream| patterns.selects(stream)), "{select:?} {deselect:?}");
            assert_eq!(patterns.is_empty(), select.is_empty() && deselect.is_empty());
        }
    }

    #[test]
    fn columns() {
        let columns = |select: &[&str], deselect: &[&str]| {
            let patterns = patterns(select, deselect);
            ["id", "name", "secret"]
                .into_iter()
                .filter(|column| patterns.selects_column("sales-a", column))
                .collect::<Vec<_>>()
        };
        assert_eq!(columns(&[], &["sales-*.secret"]), ["id", "name"]);
        assert_eq!(columns(&[], &["public-*.secret"]), ["id", "name", "secret"]);
        assert_eq!(columns(&["sales-a.name", "*.i?"], &[]), ["id", "name"]);
        assert_eq!(columns(&["sales-*", "sales-a.name"], &["*.s*"]), ["id", "name"]);
    }

    #[test]
    fn patterns_that_are_none() {
        for wrong in ["", ".id", "public-a."] {
            let error = Patterns::parse(&[], &[wrong.to_owned()]).unwrap_err().to_string();
            assert!(error.starts_with(&format!("--deselect {wrong:?}: expected a stream")), "{error}");
        }
    }

    #[test]
    fn patterns_that_match_nothing() {
        let streams = [("public-a".to_owned(), vec!["id", "secret"]), ("public-b".to_owned(), vec!["id"])];
        let check = |select: &[&str], deselect: &[&str]| patterns(select, deselect).check(&streams);
        check(&["public-a", "*.id"], &["public-*.secret", "public-b.*"]).unwrap();
        for (select, deselect, expected) in [
            (&["public-a", "publik-*"][..], &[][..], r#"--select "publik-*" matches no stream"#),
            (&[], &["public-x.id"], r#"--deselect "public-x.id" matches no stream"#),
            (&[], &["*.sercet"], r#"--deselect "*.sercet" matches no column"#),
            (&["public-b.secret"], &[], r#"--select "public-b.secret" matches no column"#),
        ] {
            let error = check(select, deselect).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
