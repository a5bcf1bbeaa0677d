//! The `tap-postgres-rs` executable: arguments, logging, exit code.

use std::process::ExitCode;

use clap::Parser;
use tap_postgres_rs::{cli::Cli, logging, run};

fn main() -> ExitCode {
    let cli = Cli::parse();
    logging::init();
    let done = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| tap_postgres_rs::error::Error::run("cannot start the runtime").source(error))
        .and_then(|runtime| runtime.block_on(run::run(cli)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::from(error.kind().exit_code())
        }
    }
}
