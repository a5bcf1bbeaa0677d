//! The `tap-postgres-rs` executable: arguments, logging, exit code.

use std::num::NonZero;
use std::process::ExitCode;
use std::thread::available_parallelism;
use std::time::Duration;

use clap::Parser;
use tap_postgres_rs::cli::Cli;
use tap_postgres_rs::error::{Error, Result};
use tap_postgres_rs::logging;
use tap_postgres_rs::run::{self, Outcome};

fn main() -> ExitCode {
    let cli = Cli::parse();
    logging::init();
    match std::panic::catch_unwind(|| start(cli)) {
        Ok(Ok(Outcome::Done)) => ExitCode::SUCCESS,
        Ok(Ok(Outcome::Partial)) => ExitCode::FAILURE,
        Ok(Ok(Outcome::Signal(number))) => ExitCode::from(128 + number),
        Ok(Err(error)) => {
            tracing::error!("{error}");
            ExitCode::from(error.kind().exit_code())
        }
        // The panic hook has logged it.
        Err(_) => ExitCode::FAILURE,
    }
}

fn start(cli: Cli) -> Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // These write files of batches and look up names: no more at a time than there are cores for.
        .max_blocking_threads(available_parallelism().map_or(1, NonZero::get))
        .build()
        .map_err(|error| Error::run("cannot start the runtime").source(error))?;
    let outcome = runtime.block_on(run::run(cli));
    // A file of a batch may be on a disk that hangs.
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}
