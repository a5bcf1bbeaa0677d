//! What the command line asks for: settings shown, a catalog discovered, or streams checked or synced.

use std::io::{BufWriter, Write};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::signal::unix::{SignalKind, signal};

use crate::about;
use crate::catalog::{Catalog, Patterns};
use crate::check::check;
use crate::cli::Cli;
use crate::config::Config;
use crate::discovery::{Scope, discover, nothing_readable, write_catalog};
use crate::error::{Context as _, Error, ErrorKind, Result};
use crate::logging::figures::seconds;
use crate::servers;
use crate::singer::MessageWriter;
use crate::state::State;
use crate::sync::cancel::QueryInHand;
use crate::sync::env::{Env, Names, Slicing};
use crate::sync::form::dialect;
use crate::sync::output::Output;
use crate::sync::plan::XMIN;
use crate::sync::select::check_patterns;
use crate::sync::sync;
use crate::types;

/// The size of the buffer for what is printed: stdout by itself writes each line.
const PRINTED_AT_ONCE: usize = 256 * 1024;

/// The outcome of a run that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was done.
    Done,
    /// Some streams failed, each told of in an ERROR of its own; the others were read.
    Partial,
    /// This signal ended it, after a last valid STATE.
    Signal(u8),
}

/// Does what the command line asks for.
pub async fn run(cli: Cli) -> Result<Outcome> {
    if cli.about {
        return print(|out| out.write_all(about::text(cli.format).as_bytes()));
    }
    let config = Config::load(&cli.config)?;
    let env = environment(config, &cli)?;
    if cli.discover {
        return discovery(&env).await;
    }
    let catalog = cli.catalog_file().map(|path| Catalog::load(path)).transpose()?;
    let state = cli.state.as_deref().map(State::load).transpose()?.unwrap_or_default();
    let state = match env.config.is_of_meltanolabs() {
        true => state.for_meltanolabs(env.config.meltanolabs_copies()),
        false => state,
    };
    if let Some(output) = cli.test {
        check(&env, catalog, state, output).await?;
        return Ok(Outcome::Done);
    }
    Box::pin(synchronize(&env, catalog, state)).await
}

fn print(write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<Outcome> {
    let mut out = BufWriter::with_capacity(PRINTED_AT_ONCE, std::io::stdout().lock());
    write(&mut out)
        .and_then(|()| out.flush())
        .map_err(|error| Error::new(ErrorKind::Output, "cannot write to stdout").source(error))?;
    Ok(Outcome::Done)
}

fn environment(config: Config, cli: &Cli) -> Result<Env> {
    let types = types::Options {
        extended_types: config.extended_types,
        dialect: dialect(&config),
        dates_as_string: config.dates_as_string,
        json_as_object: config.json_as_object,
        singer_decimal: config.use_singer_decimal,
    };
    let (primary, secondary) = servers::of(&config)?;
    Ok(Env {
        types,
        patterns: Arc::new(Patterns::parse(&cli.select, &cli.deselect)?),
        primary,
        secondary,
        slicing: Slicing::from_environment(),
        state_file: cli.state.clone(),
        query_in_hand: QueryInHand::default(),
        names_to_check: Mutex::default(),
        config,
    })
}

async fn discovery(env: &Env) -> Result<Outcome> {
    let client = env.tables().connect().await?;
    let schemas = &env.config.filter_schemas;
    let tables = discover(&client, Scope::All((!schemas.is_empty()).then_some(schemas))).await?;
    if tables.is_empty() {
        return Err(nothing_readable(&env.config.dbname));
    }
    // The catalog can't say so: it is the reference's, key by key.
    tracing::info!(
        "INCREMENTAL: \"replication-key\" may be a column that grows, or, of tables, \"{XMIN}\", the rows that were written since the \
         run before, whatever columns there are"
    );
    check_patterns(env, &tables)?;
    print(|out| write_catalog(&tables, &env.config.dbname, &env.types, &env.patterns, out))
}

/// Ends a run that was cut short, with the bookmarks at what it has read.
async fn cut_short(output: &mut Output, env: &Env) {
    match env.names_hold().await {
        Names::Hold => output.ledger().checked(),
        Names::Unknown(seen) => {
            output.ledger().checked();
            output.state.set_unchecked(&seen);
        }
        Names::Others | Names::NotRead => {}
    }
    output.cut_short();
}

/// Syncs until done, or until a signal comes. In every case what was written is whole and, as long as stdout takes it, ends
/// with a valid STATE; or with the first lines of a transaction that comes again, and a valid STATE before them.
async fn synchronize(env: &Env, catalog: Option<Catalog>, state: State) -> Result<Outcome> {
    let began = Instant::now();
    let mut interrupt = signal(SignalKind::interrupt()).context(|| "cannot handle signals".to_owned())?;
    let mut terminate = signal(SignalKind::terminate()).context(|| "cannot handle signals".to_owned())?;
    let mut output = Output::new(MessageWriter::new(std::io::stdout()), state, &env.config);
    let mut outcome = {
        let work = pin!(sync(&mut output, env, catalog));
        tokio::select! {
            result = work => result.map(|failures| match failures.streams() {
                [] => Outcome::Done,
                failed => {
                    tracing::warn!("{} of the streams failed, each with an ERROR of its own; the others were read", failed.len());
                    Outcome::Partial
                }
            }),
            _ = interrupt.recv() => Ok(Outcome::Signal(2)),
            _ = terminate.recv() => Ok(Outcome::Signal(15)),
        }
    };
    let mut is_lost = false;
    match outcome {
        Ok(Outcome::Done | Outcome::Partial) => {}
        Ok(Outcome::Signal(number)) => {
            tracing::info!("ending on signal {number}");
            cut_short(&mut output, env).await;
            env.query_in_hand.cancel().await;
        }
        Err(ref error) => {
            if !output.has_written() {
                return outcome;
            }
            is_lost = error.kind() == ErrorKind::Output;
            if !is_lost {
                cut_short(&mut output, env).await;
            }
        }
    }
    let finished = {
        let mut finish = pin!(async { if is_lost { output.abandon().await } else { output.finish().await } });
        loop {
            let number = tokio::select! {
                finished = &mut finish => break finished,
                _ = interrupt.recv() => 2,
                _ = terminate.recv() => 15,
            };
            // A second signal while the reader does not read: what it did not take is lost, and the state before it holds.
            if !matches!(outcome, Ok(Outcome::Done | Outcome::Partial)) {
                return Ok(Outcome::Signal(number));
            }
            outcome = Ok(Outcome::Signal(number));
        }
    };
    let (took, waited) = (began.elapsed(), output.waited());
    let share = (100.0 * waited.as_secs_f64() / took.as_secs_f64().max(f64::EPSILON)).min(100.0);
    tracing::info!("the run took {}, {share:.0} % of it waiting for the reader of stdout", seconds(took));
    // Why a run failed matters more than that its last lines could not be written.
    outcome.and_then(|outcome| finished.map(|()| outcome))
}
