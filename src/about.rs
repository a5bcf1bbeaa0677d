//! `--about`: name, version, capabilities and settings, the latter from the config type.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::cli::AboutFormat;
use crate::config::Config;

const NAME: &str = env!("CARGO_PKG_NAME");
const VERSION: &str = env!("CARGO_PKG_VERSION");
const DESCRIPTION: &str = env!("CARGO_PKG_DESCRIPTION");

/// Capabilities by Singer's and Meltano's names.
const CAPABILITIES: [&str; 10] = [
    "catalog",
    "properties",
    "discover",
    "state",
    "about",
    "test",
    "activate-version",
    "batch",
    "log-based",
    "structured-logging",
];

/// Returns what `--about` prints, newline included.
pub(crate) fn text(format: AboutFormat) -> String {
    match format {
        AboutFormat::Text => plain(),
        AboutFormat::Json => format!("{:#}\n", as_json()),
        AboutFormat::Markdown => markdown(),
    }
}

fn as_json() -> Value {
    json!({
        "name": NAME,
        "description": DESCRIPTION,
        "version": VERSION,
        "capabilities": CAPABILITIES,
        "settings": Config::schema(),
    })
}

/// One setting, for a table.
struct Setting {
    name: String,
    /// Whether it is required, unless the dsn has it.
    required: bool,
    default: String,
    description: String,
    /// The words that it may be, each with its meaning.
    choices: Vec<(String, String)>,
}

fn settings() -> Vec<Setting> {
    let schema = Config::schema();
    // The first of the alternatives is the single keys, the other one a dsn that has them.
    let alternatives = schema.get("anyOf").unwrap_or(&Value::Null);
    let required =
        |name: &str| alternatives[0]["required"].as_array().is_some_and(|names| names.iter().any(|n| n == name));
    let properties = schema.get("properties").and_then(Value::as_object);
    properties
        .into_iter()
        .flatten()
        .map(|(name, property)| Setting {
            name: name.clone(),
            required: required(name),
            default: match property.get("default") {
                None | Some(Value::Null) => String::new(),
                Some(Value::String(text)) => text.clone(),
                Some(value) => value.to_string(),
            },
            description: described(property),
            choices: choices(property),
        })
        .collect()
}

fn described(value: &Value) -> String {
    value["description"].as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

fn choices(property: &Value) -> Vec<(String, String)> {
    // An optional choice is wrapped once more: anyOf [oneOf […], null].
    let alternatives = ["oneOf", "anyOf"].iter().find_map(|key| property.get(*key)?.as_array());
    alternatives
        .into_iter()
        .flatten()
        .flat_map(|choice| match choice["const"].as_str() {
            Some(word) => vec![(word.to_owned(), described(choice))],
            None => choices(choice),
        })
        .collect()
}

fn plain() -> String {
    let mut text =
        format!("{NAME} {VERSION}\n{DESCRIPTION}\n\nCapabilities: {}\n\nSettings:\n", CAPABILITIES.join(", "));
    for setting in settings() {
        let note = match (setting.required, setting.default.as_str()) {
            (true, _) => " (required, unless it is in dsn)".to_owned(),
            (false, "") => String::new(),
            (false, default) => format!(" (default: {default})"),
        };
        // Writing to a String does not fail, here and below.
        let _ = writeln!(text, "  {}{note}\n      {}", setting.name, setting.description);
        for (word, meaning) in setting.choices {
            let _ = writeln!(text, "      - {word}: {meaning}");
        }
    }
    text
}

fn markdown() -> String {
    let mut text = format!("# {NAME}\n\n{DESCRIPTION}\n\nVersion {VERSION}\n\n## Capabilities\n\n");
    for capability in CAPABILITIES {
        let _ = writeln!(text, "- `{capability}`");
    }
    text.push_str("\n## Settings\n\n| Setting | Required | Default | Description |\n|---|---|---|---|\n");
    for setting in settings() {
        let required = if setting.required { "or in `dsn`" } else { "" };
        let default = if setting.default.is_empty() { String::new() } else { format!("`{}`", setting.default) };
        let words: Vec<_> = setting.choices.iter().map(|(word, meaning)| format!("`{word}`: {meaning}")).collect();
        let description = [setting.description].into_iter().chain(words).collect::<Vec<_>>().join("<br>");
        let _ = writeln!(text, "| `{}` | {required} | {default} | {} |", setting.name, description.replace('|', "\\|"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_holds_what_meltano_looks_for() {
        let about: Value = serde_json::from_str(&text(AboutFormat::Json)).unwrap();
        assert_eq!(about["name"], "tap-postgres-rs");
        assert_eq!(about["version"], VERSION);
        for capability in ["catalog", "discover", "state", "about"] {
            assert!(about["capabilities"].as_array().unwrap().iter().any(|c| c == capability), "{capability}");
        }
        let settings = &about["settings"];
        let alternatives = json!([{"required": ["host", "user", "dbname"]}, {"required": ["dsn"]}]);
        assert_eq!((&settings["anyOf"], settings.get("required")), (&alternatives, None));
        for secret in ["password", "dsn"] {
            assert_eq!(settings["properties"][secret]["writeOnly"], true);
        }
        assert_eq!(settings["properties"]["logical_poll_total_seconds"]["default"], 10800);
        assert_eq!(settings["properties"]["output_plugin"]["default"], "pgoutput");
        assert_eq!(settings["properties"]["port"]["type"], json!(["integer", "string"]));
        assert_eq!(settings["properties"]["limit"]["type"], json!(["integer", "string", "null"]));
        assert_eq!(settings["properties"]["host"]["type"], "string");
        jsonschema::meta::validate(settings).unwrap();
        jsonschema::validate(settings, &serde_json::from_str(include_str!("../config.sample.json")).unwrap()).unwrap();
        jsonschema::validate(settings, &json!({"dsn": "host=db user=tap dbname=shop"})).unwrap();
        assert!(!jsonschema::is_valid(settings, &json!({"host": "db", "port": 5432, "user": "tap"})));
    }

    #[test]
    fn every_setting_is_described() {
        for setting in settings() {
            assert!(setting.description.ends_with('.'), "{}: {}", setting.name, setting.description);
            assert!(setting.choices.iter().all(|(_, meaning)| meaning.ends_with('.')), "{}", setting.name);
        }
    }

    #[test]
    fn text_and_markdown_list_the_settings() {
        let plain = text(AboutFormat::Text);
        assert!(plain.contains("  user (required, unless it is in dsn)\n      User to connect as"), "{plain}");
        assert!(plain.contains("  port (default: 5432)\n      Port of the server"), "{plain}");
        assert!(plain.contains("  break_at_end_lsn (default: true)\n"), "{plain}");
        assert!(plain.contains("      - wal2json: The reference's.\n"), "{plain}");
        let markdown = text(AboutFormat::Markdown);
        assert!(
            markdown.contains("| `wal_reader` |  | `auto` | How the write-ahead log is read.<br>`auto`:"),
            "{markdown}"
        );
        assert!(markdown.contains("`verify-full`: As verify-ca"), "{markdown}");
    }
}
