//! Logging: one line per event on stderr, in the format of the reference or, for Meltano's structured logging, as JSON.
//!
//! Other programs read these lines. PipelineWise alerts on the words ERROR and CRITICAL and takes a line that is a JSON
//! object with "bookmarks" for state; Meltano parses structured lines. So a line is formatted here, in one place, and
//! written with one call, newline included.

mod bars;
mod counter;
pub(crate) mod figures;
mod format;

use std::panic::PanicHookInfo;

use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

pub(crate) use bars::Bar;
pub(crate) use counter::RecordCounter;
use format::{Fields, Form};

/// Starts logging as the environment configures it: LOG_LEVEL or TAP_POSTGRES_LOG_LEVEL, and SINGER_SDK_LOG_CONFIG.
pub fn init() {
    let level = ["TAP_POSTGRES_LOG_LEVEL", "LOG_LEVEL"].iter().find_map(|name| parse_level(&std::env::var(name).ok()?));
    let structured = std::env::var("SINGER_SDK_LOG_CONFIG")
        .ok()
        .and_then(|path| std::fs::read_to_string(path).ok())
        .is_some_and(|config| is_structured(&config));
    let form = if structured { Form::Structured } else { Form::Plain };
    if form == Form::Plain {
        bars::start();
    }
    let layer = LogLayer { level: level.unwrap_or(LevelFilter::INFO), form };
    // A program that embeds the library may have a subscriber already, which stays.
    let _ = tracing_subscriber::registry().with(layer).try_init();
    // The default hook prints several lines; a scheduler wants one.
    std::panic::set_hook(Box::new(|panic| tracing::error!("internal error{}", describe(panic))));
}

/// Returns where the program panicked, and the message if it is a constant: one formatted at run time may hold values.
fn describe(panic: &PanicHookInfo<'_>) -> String {
    let place = panic.location().map(|place| format!(" at {place}")).unwrap_or_default();
    match panic.payload().downcast_ref::<&'static str>() {
        Some(text) => format!("{place}: {text}"),
        None => place,
    }
}

fn parse_level(text: &str) -> Option<LevelFilter> {
    match text.trim().to_ascii_lowercase().as_str() {
        "debug" | "trace" => Some(LevelFilter::DEBUG),
        "info" => Some(LevelFilter::INFO),
        "warning" | "warn" => Some(LevelFilter::WARN),
        "error" | "critical" => Some(LevelFilter::ERROR),
        _ => None,
    }
}

/// Returns whether a Python logging config names the Meltano SDK's structured formatter.
fn is_structured(config: &str) -> bool {
    config
        .lines()
        .map(|line| line.split('#').next().unwrap_or(line))
        .any(|line| line.contains("StructuredFormatter") || line.contains("structured"))
}

/// The subscriber's layer that writes lines; of other crates only warnings and errors are logged.
struct LogLayer {
    level: LevelFilter,
    form: Form,
}

impl LogLayer {
    /// Returns whether events of this target and level are logged.
    fn wants(&self, target: &str, level: &Level) -> bool {
        *level <= if format::is_own(target) { self.level } else { self.level.min(LevelFilter::WARN) }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for LogLayer {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.wants(metadata.target(), metadata.level())
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level)
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        bars::write(&self.form.line(event.metadata(), fields));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels() {
        assert_eq!(parse_level("DEBUG"), Some(LevelFilter::DEBUG));
        assert_eq!(parse_level("Warning"), Some(LevelFilter::WARN));
        assert_eq!(parse_level("error"), Some(LevelFilter::ERROR));
        assert_eq!(parse_level("loud"), None);
    }

    /// Panics in the way that the variable asks for; only [`no_panic_tells_a_value`] runs it, in a process of its own.
    #[test]
    #[ignore = "it panics"]
    fn panicking() {
        init();
        let row = std::env::var("PANICKING").unwrap();
        let (kind, value) = row.split_once(' ').unwrap();
        match kind {
            "formatted" => panic!("cannot encode {value}"),
            "unwrapped" => drop(value.parse::<u32>().map_err(|_| value.to_owned()).unwrap()),
            "expected" => drop(value.parse::<u32>().map_err(|_| value.to_owned()).expect("a row")),
            "cut" => assert!(!value[..1].is_empty()),
            "compared" => assert_eq!(value, "another"),
            _ => panic!("a text of the program's own"),
        }
    }

    #[test]
    fn no_panic_tells_a_value() {
        for kind in ["formatted", "unwrapped", "expected", "cut", "compared", "own"] {
            let mut command = std::process::Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", "logging::tests::panicking", "--ignored", "--nocapture"]);
            command.env("RUST_BACKTRACE", "full").env("LOG_LEVEL", "debug");
            let output = command.env("PANICKING", format!("{kind} \u{e9}hunter2")).output().unwrap();
            let told = String::from_utf8(output.stderr).unwrap();
            let told: Vec<&str> = told.lines().filter(|line| line.contains("internal error")).collect();
            assert!(told.len() == 1 && told[0].contains("level=ERROR"), "{kind}: {told:?}");
            // Where it was is enough to find out why.
            assert!(told[0].contains("src/logging/mod.rs:") && !told[0].contains("hunter2"), "{kind}: {told:?}");
            assert_eq!(told[0].contains("a text of the program's own"), kind == "own");
        }
    }

    #[test]
    fn structured_logging_is_found_in_the_config() {
        assert!(is_structured("formatters:\n  structured:\n    (): singer_sdk.logging.StructuredFormatter\n"));
        assert!(!is_structured("formatters:\n  console:  # not structured\n    format: x\n"));
    }

    #[test]
    fn other_crates_are_heard_from_warnings_on() {
        let layer = LogLayer { level: LevelFilter::DEBUG, form: Form::Plain };
        assert!(layer.wants("tap_postgres_rs::run", &Level::DEBUG));
        assert!(!layer.wants("tap_postgres_rs::run", &Level::TRACE));
        assert!(!layer.wants("rustls::client", &Level::INFO));
        assert!(layer.wants("rustls::client", &Level::WARN));
        assert!(!layer.wants("tap_postgres_rs_other", &Level::INFO));

        let layer = LogLayer { level: LevelFilter::ERROR, form: Form::Plain };
        assert!(!layer.wants("rustls::client", &Level::WARN));
    }
}
