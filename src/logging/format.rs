//! Formatting of an event as a line.

use std::fmt::{Debug, Write};

use chrono::{Local, Utc};
use serde_json::{Value, json};
use tracing::field::{Field, Visit};
use tracing::{Level, Metadata};

/// The name of this crate, with which the targets of its events begin.
const OWN: &str = env!("CARGO_CRATE_NAME");
/// The logger of the reference, which this crate's events are logged under.
const LOGGER: &str = "tap_postgres";

/// Returns whether an event with this target is of this crate.
pub(super) fn is_own(target: &str) -> bool {
    krate(target) == OWN
}

/// Returns the crate that a target names.
fn krate(target: &str) -> &str {
    target.split_once("::").map_or(target, |(name, _)| name)
}

/// The format of the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `time=… name=… level=… message=…`
    Plain,
    /// One JSON object, as the Meltano SDK's StructuredFormatter writes it.
    Structured,
}

/// The fields of an event: the message, the stream, the parts of a metric, and the others as ` key=value`.
#[derive(Debug, Default)]
pub(super) struct Fields {
    message: String,
    stream: Option<String>,
    /// The count of records, if the event is a metric.
    record_count: Option<u64>,
    others: String,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a String does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            "stream" => write!(self.stream.get_or_insert_default(), "{value:?}"),
            name => write!(self.others, " {name}={value:?}"),
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "record_count" => self.record_count = Some(value),
            _ => self.record_debug(field, &value),
        }
    }
}

impl Form {
    /// Returns the line with its newline; empty for a line that must not be printed.
    pub(super) fn line(self, metadata: &Metadata<'_>, fields: Fields) -> String {
        let name = match krate(metadata.target()) {
            OWN => LOGGER,
            other => other,
        };
        let metric = fields.record_count.map(|count| metric_info(count, fields.stream.as_deref()));
        let message = match &metric {
            Some(metric) => format!("METRIC: {metric}"),
            None => one_line(&(fields.message + &fields.others)),
        };
        let mut line = match self {
            Form::Plain => {
                let stream = fields.stream.filter(|_| metric.is_none()).map(|s| format!(" stream={}", one_line(&s)));
                format!(
                    "time={} name={name} level={} message={message}{}",
                    Local::now().format("%Y-%m-%d %H:%M:%S"),
                    level_name(metadata.level()),
                    stream.unwrap_or_default(),
                )
            }
            Form::Structured => {
                let now = Utc::now();
                let mut line = json!({
                    "level": level_name(metadata.level()).to_ascii_lowercase(),
                    "pid": std::process::id(),
                    "logger_name": name,
                    "ts": now.timestamp_micros() as f64 / 1e6,
                    "thread_name": "MainThread",
                    "app_name": "tap-postgres-rs",
                    "stream_name": fields.stream,
                    "message": message,
                });
                if let Some(metric) = metric {
                    line["metric_info"] = serde_json::from_str(&metric).unwrap_or_default();
                }
                line.to_string()
            }
        };
        if is_state(&line) {
            return String::new();
        }
        line.push('\n');
        line
    }
}

/// Returns a counter in the spelling of Python's json.dumps, which parsers of the reference's logs expect.
fn metric_info(count: u64, stream: Option<&str>) -> String {
    let stream = Value::from(stream.unwrap_or_default());
    format!(r#"{{"type": "counter", "metric": "record_count", "value": {count}, "tags": {{"endpoint": {stream}}}}}"#)
}

fn level_name(level: &Level) -> &'static str {
    match *level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARNING",
        Level::INFO => "INFO",
        _ => "DEBUG",
    }
}

/// Returns the message without control characters, above all line breaks.
fn one_line(text: &str) -> String {
    if !text.contains(char::is_control) {
        return text.to_owned();
    }
    text.split(char::is_control).map(str::trim).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Returns whether PipelineWise would take the line for state. No line looks like that; this makes sure of it.
fn is_state(line: &str) -> bool {
    line.starts_with('{')
        && line.contains("bookmarks")
        && serde_json::from_str::<Value>(line).is_ok_and(|value| value.get("bookmarks").is_some())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::{Event, Subscriber};
    use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

    use super::*;

    /// Collects lines instead of printing them.
    struct Collect(Form, Arc<Mutex<Vec<String>>>);

    impl<S: Subscriber> Layer<S> for Collect {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let mut fields = Fields::default();
            event.record(&mut fields);
            self.1.lock().unwrap().push(self.0.line(event.metadata(), fields));
        }
    }

    fn lines(form: Form, log: impl FnOnce()) -> Vec<String> {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let subscriber = tracing_subscriber::registry().with(Collect(form, lines.clone()));
        tracing::subscriber::with_default(subscriber, log);
        std::mem::take(&mut lines.lock().unwrap())
    }

    /// The line after its time.
    fn untimed(line: &str) -> &str {
        let (time, rest) = line.strip_prefix("time=").unwrap().split_at(20);
        chrono::NaiveDateTime::parse_from_str(time.trim_end(), "%Y-%m-%d %H:%M:%S").unwrap();
        rest
    }

    #[test]
    fn plain_lines_are_the_reference_s() {
        let lines = lines(Form::Plain, || {
            tracing::info!("Selected streams: {}", 2);
            tracing::warn!(stream = "public-a", rows = 3_u64, "no\n  key\r\n");
            tracing::error!(target: "rustls::client", "refused");
            tracing::debug!("{}", r#"{"bookmarks": {}}"#);
            crate::logging::counter::metric("public-\"a", 3);
        });
        let lines: Vec<_> = lines.iter().map(|line| untimed(line)).collect();
        assert_eq!(
            lines,
            [
                "name=tap_postgres level=INFO message=Selected streams: 2\n",
                "name=tap_postgres level=WARNING message=no key rows=3 stream=public-a\n",
                "name=rustls level=ERROR message=refused\n",
                "name=tap_postgres level=DEBUG message={\"bookmarks\": {}}\n",
                "name=tap_postgres level=INFO message=METRIC: {\"type\": \"counter\", \"metric\": \"record_count\", \
                 \"value\": 3, \"tags\": {\"endpoint\": \"public-\\\"a\"}}\n",
            ]
        );
    }

    #[test]
    fn structured_lines_have_what_meltano_asks_for() {
        let lines = lines(Form::Structured, || {
            tracing::warn!(stream = "public-a", "no\nkey");
            crate::logging::counter::metric("public-a", 3);
        });
        let parsed: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let keys: Vec<_> = parsed[0].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["level", "pid", "logger_name", "ts", "thread_name", "app_name", "stream_name", "message"]);
        assert_eq!(parsed[0]["level"], "warning");
        assert_eq!(parsed[0]["stream_name"], "public-a");
        assert_eq!(parsed[0]["message"], "no key");
        assert!(parsed[0]["ts"].as_f64().unwrap() > 1.7e9);
        assert_eq!(
            parsed[1]["metric_info"],
            json!({"type": "counter", "metric": "record_count", "value": 3, "tags": {"endpoint": "public-a"}})
        );
        assert!(lines.iter().all(|line| line.ends_with('\n') && line.lines().count() == 1));
    }

    #[test]
    fn a_state_is_recognized() {
        assert!(is_state(r#"{"bookmarks": {}}"#));
        assert!(!is_state(r#"{"message": "bookmarks"}"#));
        assert!(!is_state(r#"time=1 message={"bookmarks": {}}"#));
    }
}
