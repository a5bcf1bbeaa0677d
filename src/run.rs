//! What the command line asks for.

use std::io::Write;

use crate::about;
use crate::catalog::Catalog;
use crate::cli::Cli;
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::state::State;

/// Does what the command line asks for.
pub async fn run(cli: Cli) -> Result<()> {
    if cli.about {
        let mut stdout = std::io::stdout().lock();
        return stdout
            .write_all(about::text(cli.format).as_bytes())
            .map_err(|error| Error::new(ErrorKind::Output, "cannot write to stdout").source(error));
    }
    Config::load(&cli.config)?;
    if let Some(path) = cli.catalog_file() {
        Catalog::load(path)?;
    }
    if let Some(path) = &cli.state {
        State::load(path)?;
    }
    Ok(())
}
