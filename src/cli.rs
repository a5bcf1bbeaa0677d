//! The command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// Singer tap for PostgreSQL: writes Singer messages to stdout, logs to stderr.
#[derive(Clone, Debug, Parser)]
#[command(name = "tap-postgres-rs", version, about, max_term_width = 120)]
pub struct Cli {
    /// Config file (JSON); may be given more than once, later files win key by key
    #[arg(short, long, value_name = "FILE", required_unless_present = "about")]
    pub config: Vec<PathBuf>,

    /// State file: where the last run stopped
    #[arg(short, long, value_name = "FILE")]
    pub state: Option<PathBuf>,

    /// Catalog file: which streams and columns to read; without one every table is read
    #[arg(long, value_name = "FILE")]
    pub catalog: Option<PathBuf>,

    /// Same as --catalog, which wins
    #[arg(short, long, value_name = "FILE")]
    pub properties: Option<PathBuf>,

    /// Print the catalog of the database and exit; in it set for INCREMENTAL "replication-key" to a column that grows, or to "xmin":
    /// what was written to a table since the run before, whatever columns it has
    #[arg(short, long)]
    pub discover: bool,

    /// Select streams (schema-table) or columns (schema-table.column) by a pattern with * and ?, without a catalog, or in the one that
    /// --discover prints; may be given more than once
    #[arg(long, value_name = "PATTERN", conflicts_with_all = ["catalog", "properties"])]
    pub select: Vec<String>,

    /// Leave out streams or columns in the same way, whatever --select says
    #[arg(long, value_name = "PATTERN", conflicts_with_all = ["catalog", "properties"])]
    pub deselect: Vec<String>,

    /// Connect, check what the selected streams need, and print the SCHEMA and one RECORD of each
    #[arg(long, value_name = "OUTPUT", num_args = 0..=1, default_missing_value = "records")]
    pub test: Option<TestOutput>,

    /// Print settings, capabilities and version and exit
    #[arg(long)]
    pub about: bool,

    /// Format of --about
    #[arg(long, value_name = "FORMAT", requires = "about", default_value = "text")]
    pub format: AboutFormat,
}

impl Cli {
    /// Returns the catalog file: `--catalog`, else `--properties`.
    pub fn catalog_file(&self) -> Option<&PathBuf> {
        self.catalog.as_ref().or(self.properties.as_ref())
    }
}

/// What `--test` prints of each stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TestOutput {
    /// Its SCHEMA.
    Schema,
    /// One RECORD too.
    Records,
}

/// What `--about` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AboutFormat {
    /// For a terminal.
    Text,
    /// For Meltano and other tools.
    Json,
    /// For a manual.
    Markdown,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(arguments: &str) -> Result<Cli, i32> {
        let arguments = ["tap-postgres-rs"].into_iter().chain(arguments.split_whitespace());
        Cli::try_parse_from(arguments).map_err(|error| error.exit_code())
    }

    #[test]
    fn definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn files() {
        let cli = parse("-c a.json --config b.json -s s.json --catalog c.json -p p.json").unwrap();
        assert_eq!(cli.config, [PathBuf::from("a.json"), PathBuf::from("b.json")]);
        assert_eq!(cli.state, Some(PathBuf::from("s.json")));
        assert_eq!(cli.catalog_file(), Some(&PathBuf::from("c.json")));

        let cli = parse("--config a.json --properties p.json --state s.json -d").unwrap();
        assert_eq!(cli.catalog_file(), Some(&PathBuf::from("p.json")));
        assert!(cli.discover);
    }

    #[test]
    fn about_needs_no_config() {
        let cli = parse("--about").unwrap();
        assert!(cli.about);
        assert_eq!(cli.format, AboutFormat::Text);
        assert_eq!(parse("--about --format json").unwrap().format, AboutFormat::Json);
        assert_eq!(parse("--about --format=markdown").unwrap().format, AboutFormat::Markdown);
    }

    #[test]
    fn patterns() {
        let cli = parse("-c a.json --select sales-* --select b.id --deselect sales-*.secret -d").unwrap();
        assert_eq!(
            (cli.select, cli.deselect),
            (vec!["sales-*".to_owned(), "b.id".to_owned()], vec!["sales-*.secret".to_owned()])
        );
        for catalog in ["--catalog", "-p"] {
            assert_eq!(parse(&format!("-c a.json --select b {catalog} c.json")).unwrap_err(), 2);
            assert_eq!(parse(&format!("-c a.json {catalog} c.json --deselect b")).unwrap_err(), 2);
        }
    }

    #[test]
    fn a_test_prints_records_unless_told_otherwise() {
        assert_eq!(parse("-c a.json").unwrap().test, None);
        assert_eq!(parse("--test -c a.json").unwrap().test, Some(TestOutput::Records));
        assert_eq!(parse("-c a.json --test records -s s.json").unwrap().test, Some(TestOutput::Records));
        assert_eq!(parse("-c a.json --test=schema").unwrap().test, Some(TestOutput::Schema));
    }

    #[test]
    fn wrong_usage_exits_with_2_and_help_with_0() {
        for wrong in ["", "-d", "--nonsense", "-c a.json --format json", "--about --format xml", "-c a.json --test all"]
        {
            assert_eq!(parse(wrong).unwrap_err(), 2, "{wrong}");
        }
        for right in ["--version", "--help"] {
            assert_eq!(parse(right).unwrap_err(), 0, "{right}");
        }
    }
}
