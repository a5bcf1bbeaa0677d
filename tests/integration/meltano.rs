//! Meltano's definitions of the extractor, in meltano/: what they list of settings and capabilities is what `--about` says.
//!
//! `UPDATE_GOLDEN=1 cargo test meltano` rewrites what is generated; read the diff before you commit it.

mod yaml;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use serde_json::{Map, Value, json};

/// A project; its part between these lines is generated.
const PROJECT: &str = "meltano/meltano.yml";
const BEGIN: &str = "    # What --about says; generated.\n";
const END: &str = "    # End of what is generated.\n";

/// The definition for Meltano Hub, all of it generated.
const HUB: &str = "meltano/hub/tap-postgres/tap-postgres-rs.yml";

/// Settings that `dsn` may say, too. Meltano tells a tap the defaults of its definition as if the user had set them, and a single
/// key beats the `dsn`: these have none there.
const OF_DSN: [&str; 3] = ["port", "channel_binding", "target_session_attrs"];

/// Names of settings, or words of them, that are not just capitalized in a label.
const LABELS: [(&str, &str); 12] = [
    ("dbname", "Database"),
    ("dsn", "DSN"),
    ("id", "ID"),
    ("lsn", "LSN"),
    ("mb", "MB"),
    ("sslcert", "SSL Client Certificate"),
    ("sslkey", "SSL Client Key"),
    ("sslmode", "SSL Mode"),
    ("sslrootcert", "SSL Root Certificate"),
    ("ssl", "SSL"),
    ("toast", "TOAST"),
    ("wal", "WAL"),
];

#[test]
fn the_project_has_what_about_says() {
    let text = fs::read_to_string(path(PROJECT)).expect("read the project");
    let (before, rest) = text.split_once(BEGIN).expect("the line before what is generated");
    let (_, after) = rest.split_once(END).expect("the line after what is generated");
    let about = about();
    let generated = json!({
        "capabilities": about["capabilities"],
        "settings": settings(&about),
        "settings_group_validation": groups(&about),
    });
    check(PROJECT, &text, format!("{before}{BEGIN}{}{END}{after}", yaml::block(&generated, 4)));
}

#[test]
fn the_hub_definition_has_what_about_says() {
    let about = about();
    let mut capabilities: Vec<&str> =
        about["capabilities"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    capabilities.sort_unstable();
    let mut settings = settings(&about);
    settings.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    let definition = json!({
        "capabilities": capabilities,
        "description": "PostgreSQL database extractor",
        "domain_url": "https://www.postgresql.org/",
        "executable": "tap-postgres",
        "keywords": ["database"],
        "label": "Postgres",
        "logo_url": "/assets/logos/extractors/postgres.png",
        "maintenance_status": "beta",
        "name": "tap-postgres",
        "namespace": "tap_postgres",
        // From a folder that the user names: the name alone would be whoever's has it on PyPI.
        "pip_url": "--no-index --find-links=\"${TAP_POSTGRES_RS_DIST}\" tap-postgres-rs",
        "quality": "unknown",
        "settings": settings,
        "settings_group_validation": groups(&about),
        "usage": USAGE,
        "variant": "tap-postgres-rs",
    });
    check(HUB, &fs::read_to_string(path(HUB)).unwrap_or_default(), yaml::block(&definition, 0));
}

const USAGE: &str = "\
## Log-based replication

```yaml
config:
  create_replication_slot: true
select:
- public-*.*
metadata:
  public-*:
    replication-method: LOG_BASED
```

The server needs `wal_level = logical`, and the role `REPLICATION` and the rights to make a publication. Without them leave
`create_replication_slot` out and make slot and publication beforehand.
";

fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

#[track_caller]
fn check(file: &str, found: &str, expected: String) {
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(path(file), expected).expect("write the file");
    } else if found != expected {
        let line = found.lines().zip(expected.lines()).position(|(found, expected)| found != expected);
        let line = line.unwrap_or_else(|| found.lines().count().min(expected.lines().count()));
        panic!(
            "{file} is not what --about says, from line {} on: {:?} should be {:?}\n(UPDATE_GOLDEN=1 rewrites it)",
            line + 1,
            found.lines().nth(line).unwrap_or_default(),
            expected.lines().nth(line).unwrap_or_default(),
        );
    }
}

fn about() -> Value {
    let tap = Command::new(env!("CARGO_BIN_EXE_tap-postgres-rs"))
        .args(["--about", "--format", "json"])
        .output()
        .expect("run the tap");
    serde_json::from_slice(&tap.stdout).expect("JSON")
}

/// The settings that a run can't do without: all of one of these groups.
fn groups(about: &Value) -> Value {
    let groups = about["settings"]["anyOf"].as_array().expect("what is required");
    groups.iter().map(|group| group["required"].clone()).collect()
}

fn settings(about: &Value) -> Vec<Value> {
    let schema = &about["settings"];
    let mut settings = Vec::new();
    collect(schema, schema, "", &mut settings);
    assert!(settings.len() > 30, "hardly any setting: {settings:?}");
    settings
}

/// Adds the settings of an object; those of an object within it by Meltano's names, as `outer.inner`.
fn collect(root: &Value, object: &Value, prefix: &str, settings: &mut Vec<Value>) {
    for (name, property) in object["properties"].as_object().into_iter().flatten() {
        let name = format!("{prefix}{name}");
        let inner = alternatives(root, property).into_iter().find(|inner| inner["properties"].is_object());
        match inner {
            Some(inner) => collect(root, inner, &format!("{name}."), settings),
            None => settings.push(setting(root, name, property)),
        }
    }
}

fn setting(root: &Value, name: String, property: &Value) -> Value {
    let options = alternatives(root, property).into_iter().filter(|one| one["const"].is_string());
    let options: Vec<Value> =
        options.map(|one| json!({"label": described(one).trim_end_matches('.'), "value": one["const"]})).collect();
    let mut setting = Map::new();
    let kind = match () {
        () if property["writeOnly"] == true => "password",
        () if !options.is_empty() => "options",
        () if has_type(property, "boolean") => "boolean",
        () if has_type(property, "integer") => "integer",
        () if has_type(property, "object") => "object",
        // A list that may be a string is a string to Meltano: it takes either then.
        () => "string",
    };
    setting.insert("label".into(), label(&name).into());
    setting.insert("kind".into(), kind.into());
    if property["writeOnly"] == true {
        setting.insert("sensitive".into(), true.into());
    }
    let default = &property["default"];
    if !default.is_null() && *default != json!([]) && !OF_DSN.contains(&name.as_str()) {
        setting.insert("value".into(), default.clone());
    }
    setting.insert("description".into(), described(property).into());
    if !options.is_empty() {
        setting.insert("options".into(), options.into());
    }
    setting.shift_insert(0, "name".into(), name.into());
    Value::Object(setting)
}

#[track_caller]
fn described(schema: &Value) -> String {
    let description = schema["description"].as_str().unwrap_or_default();
    assert!(!description.is_empty(), "not described: {schema}");
    description.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A property's schema, and what it may be in its place: a definition, one of some.
fn alternatives<'a>(root: &'a Value, property: &'a Value) -> Vec<&'a Value> {
    let referred = property["$ref"].as_str().and_then(|path| root.pointer(path.trim_start_matches('#')));
    let listed = ["oneOf", "anyOf"].into_iter().filter_map(|key| property[key].as_array()).flatten();
    let inner = referred.into_iter().chain(listed).flat_map(|inner| alternatives(root, inner));
    [property].into_iter().chain(inner).collect()
}

fn has_type(property: &Value, name: &str) -> bool {
    match &property["type"] {
        Value::Array(types) => types.iter().any(|one| one == name),
        one => one == name,
    }
}

fn label(name: &str) -> String {
    let words = name.split(['_', '.']).map(|word| match LABELS.iter().find(|(known, _)| *known == word) {
        Some((_, label)) => (*label).to_owned(),
        None => word[..1].to_uppercase() + &word[1..],
    });
    words.collect::<Vec<_>>().join(" ")
}
