//! From the files' JSON to settings: merging, other taps' names, and what a value may look like.
//!
//! Everything goes through [`Value`]: pipelines write booleans and numbers as strings as often as not, and an error has
//! to name the file and the key as the user wrote them.

use serde::de::value::{Error as PlainError, MapAccessDeserializer};
use serde::de::{DeserializeOwned, DeserializeSeed, Error as _, IntoDeserializer, MapAccess};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::dsn;
use super::environment::Environment;
use crate::error::{Error, Result};
use crate::json_file::{self, shown};
use crate::method::ReplicationMethod;

/// Other names of our keys: the MeltanoLabs tap's.
const OTHER_NAMES: [(&str, &str); 8] = [
    (SQLALCHEMY_URL, "dsn"),
    ("database", "dbname"),
    ("ssl_certificate_authority", "sslrootcert"),
    ("ssl_client_certificate", "sslcert"),
    ("ssl_client_private_key", "sslkey"),
    ("ssh_tunnel.private_key_password", "ssh_tunnel.private_key_passphrase"),
    ("replication_max_run_seconds", "max_run_seconds"),
    ("replication_idle_exit_seconds", "logical_poll_total_seconds"),
];

/// The key of an object whose keys, with this and a dot before them, are ours.
const SSH_TUNNEL: &str = "ssh_tunnel";

/// The MeltanoLabs tap's key of a dsn. It beats the single keys, while single keys beat `dsn`.
const SQLALCHEMY_URL: &str = "sqlalchemy_url";

/// Keys that set what `sslmode` sets, each in its way.
const SSLMODES: [&str; 4] = ["sslmode", "ssl_mode", "ssl_enable", "ssl"];

/// The key that says which tap's schemas and defaults are meant, and its word for the MeltanoLabs tap.
const DIALECT: &str = "schema_dialect";
const MELTANOLABS: &str = "meltanolabs";

/// Keys that count only as a switch says, as in the MeltanoLabs tap: its defaults name files that need not exist.
const SWITCHED: [(&str, [&str; 2]); 2] = [
    ("ssl_enable", ["ssl_mode", "ssl_certificate_authority"]),
    ("ssl_client_certificate_enable", ["ssl_client_certificate", "ssl_client_private_key"]),
];

/// Settings of the Meltano SDK's taps that hide or change what they read.
const TRANSFORMATIONS: [&str; 4] = ["stream_maps", "stream_map_config", "faker_config", "flattening_enabled"];

/// A key's value, and where it comes from.
struct Entry {
    /// Our name of the key.
    key: String,
    /// The name in the file.
    written: String,
    file: String,
    value: Value,
    /// Whether it is part of the dsn, which is secret as a whole.
    of_dsn: bool,
}

/// The keys of all files, each once.
#[derive(Default)]
pub(super) struct Entries {
    entries: Vec<Entry>,
    files: Vec<String>,
}

impl Entries {
    /// Adds a file, which wins over those before it.
    pub(super) fn merge(&mut self, file: &str, text: &str) -> Result<()> {
        let Value::Object(object) = json_file::parse(file, text)? else {
            return Err(Error::usage(format!("{file}: expected an object of settings, {{\"host\": …}}")));
        };
        let object = flattened(file, object)?;
        self.files.push(file.to_owned());
        for (written, value) in &object {
            let key = our_name(written, &object);
            let entry = Entry {
                key: key.to_owned(),
                written: written.clone(),
                file: file.to_owned(),
                value: value.clone(),
                of_dsn: false,
            };
            match self.entries.iter_mut().find(|e| e.key == key) {
                Some(earlier) => *earlier = entry,
                None => self.entries.push(entry),
            }
        }
        Ok(())
    }

    /// Drops what is not set (null and the empty string, which pipelines write for a setting left open), and what is switched off.
    pub(super) fn settled(mut self, environment: &Environment) -> Self {
        self.entries.retain(|e| !is_unset(&e.value));
        if let Some((written, value)) = environment.dialect()
            && !self.entries.iter().any(|e| e.key == DIALECT)
        {
            tracing::info!("{written} is {value}: reading as that tap does ({DIALECT})");
            self.entries.push(Entry::of_environment(DIALECT, written, value));
        }
        let says = |key: &str| {
            let entry = self.entries.iter().find(|e| e.key == key)?;
            bool::read(entry.value.clone()).ok()
        };
        // Its switches are off unless they are on. Elsewhere its keys may stand without them.
        let is_of_meltanolabs = self.entries.iter().any(|e| e.key == DIALECT && e.value == MELTANOLABS);
        let (mut is_on, mut off) = (true, Vec::new());
        for (switch, keys) in SWITCHED {
            is_on = says(switch).unwrap_or(is_on && !is_of_meltanolabs);
            if !is_on {
                off.extend(keys);
            }
        }
        if is_of_meltanolabs {
            // That tap verifies by the authority only where it verifies, and asks nothing but its URL where it has one.
            let verifies = self
                .entries
                .iter()
                .find(|e| e.key == "ssl_mode")
                .is_none_or(|mode| mode.value.as_str().is_some_and(|mode| mode.starts_with("verify")));
            if !verifies {
                off.push("ssl_certificate_authority");
            }
            if self.entries.iter().any(|e| e.written == SQLALCHEMY_URL) {
                off.extend(SWITCHED.iter().flat_map(|(switch, keys)| keys.iter().chain([switch])));
            }
        }
        self.entries.retain(|e| !off.contains(&e.written.as_str()));
        for mode in self.entries.iter_mut().filter(|e| SSLMODES.contains(&e.key.as_str()) && e.value == "allow") {
            // TLS only if the server insists on it: no weaker connection comes of asking for it first.
            mode.value = "prefer".into();
        }
        self
    }

    /// Adds what the dsn sets and no single key does.
    pub(super) fn with_dsn(mut self) -> Result<Self> {
        let Some(dsn) = self.entries.iter().find(|e| e.key == "dsn") else { return Ok(self) };
        let wrong = |problem: String| Error::usage(format!("{}: {problem}", dsn.place()));
        let text = dsn.value.as_str().ok_or_else(|| wrong("expected a text".to_owned()))?;
        let settings = dsn::parse(text).map_err(wrong)?;
        let (written, file) = (dsn.written.clone(), dsn.file.clone());
        for (key, value) in settings {
            if written == SQLALCHEMY_URL {
                self.entries.retain(|e| e.key != key);
            } else if self.entries.iter().any(|e| e.says(&key)) {
                continue;
            }
            let (written, file) = (written.clone(), file.clone());
            self.entries.push(Entry { key, written, file, value: Value::String(value), of_dsn: true });
        }
        Ok(self)
    }

    /// Adds what the environment sets and nothing else does.
    pub(super) fn with_environment(mut self, environment: &Environment) -> Self {
        for (written, key, value) in environment.settings() {
            if !self.entries.iter().any(|e| e.says(key)) {
                self.entries.push(Entry::of_environment(key, &written, &value));
            }
        }
        self
    }

    /// Fails for settings that change records in other taps: columns that they mask would go out as they are.
    pub(super) fn check_transformations(&self) -> Result<()> {
        let asks = |value: &Value| match value {
            Value::Object(object) => !object.is_empty(),
            Value::Array(items) => !items.is_empty(),
            Value::String(text) => !matches!(text.trim(), "{}" | "[]" | "0") && bool::read(value.clone()) != Ok(false),
            Value::Bool(value) => *value,
            Value::Null => false,
            Value::Number(_) => true,
        };
        match self.entries.iter().find(|e| TRANSFORMATIONS.contains(&e.key.as_str()) && asks(&e.value)) {
            Some(entry) => Err(Error::usage(format!("{}: this tap changes no records", entry.place())).hint(
                "what it hides or flattens would go out as it is: put the mapper meltano-map-transform, which has these settings, between \
                 the tap and the target, or deselect columns in the catalog; then remove the key",
            )),
            None => Ok(()),
        }
    }

    /// Whether connections go through an SSH server.
    pub(super) fn has_tunnel(&self) -> bool {
        let value = |key: &str| self.entries.iter().find(|e| e.key == key).map(|e| &e.value);
        match value("ssh_tunnel.enable").map(|value| bool::read(value.clone())) {
            Some(Ok(enable)) => enable,
            _ => value("ssh_tunnel.host").is_some(),
        }
    }

    /// Fails with the names of all required keys that are missing.
    pub(super) fn check_required(&self, required: &[&str]) -> Result<()> {
        let missing: Vec<_> = required.iter().filter(|key| !self.entries.iter().any(|e| e.key == **key)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let names: Vec<_> = missing.iter().map(|key| format!("{key:?}")).collect();
        let (noun, verb) = if names.len() == 1 { ("key", "is") } else { ("keys", "are") };
        let files = self.files.join(", ");
        Err(Error::usage(format!("{files}: required {noun} {} {verb} missing", names.join(", "))))
    }

    /// Returns the keys that are no settings.
    pub(super) fn unknown_keys(&self, known: &[String]) -> Vec<&str> {
        self.unknown(known).map(|entry| entry.written.as_str()).collect()
    }

    /// Returns the places of keys that are none of these but nearly one, each with that.
    pub(super) fn misspelt<'k>(&self, known: &'k [String]) -> Vec<(String, &'k str)> {
        self.unknown(known).filter_map(|entry| Some((entry.place(), meant(&entry.written, known)?))).collect()
    }

    fn unknown(&self, known: &[String]) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| !known.contains(&entry.key))
    }

    /// Returns where a key stands, for an error message.
    pub(super) fn place(&self, key: &str) -> String {
        self.entries.iter().find(|e| e.key == key).map(Entry::place).unwrap_or_else(|| self.files.join(", "))
    }

    /// Reads the settings; unknown keys are ignored.
    pub(super) fn into_settings<T: DeserializeOwned>(self) -> Result<T> {
        let access = PlacedMap { entries: self.entries.into_iter(), current: None };
        T::deserialize(MapAccessDeserializer::new(access)).map_err(|error| Error::usage(error.to_string()))
    }
}

impl Entry {
    fn of_environment(key: &str, variable: &str, value: &str) -> Entry {
        let (key, written, file) = (key.to_owned(), variable.to_owned(), "the environment".to_owned());
        Entry { key, written, file, value: value.into(), of_dsn: false }
    }

    fn place(&self) -> String {
        format!("{}: key {:?}", self.file, self.written)
    }

    /// Whether it sets what this key sets.
    fn says(&self, key: &str) -> bool {
        let is_mode = key == "sslmode" && SSLMODES.contains(&self.key.as_str());
        self.key == key || is_mode && bool::read(self.value.clone()) != Ok(false)
    }
}

/// Returns the key that may be meant: a letter of it is another, missing, too many or in the wrong place; of a long one two. Of a short
/// one that says nothing.
pub(super) fn meant<'k>(written: &str, known: &'k [String]) -> Option<&'k str> {
    let most = match written.len() {
        0..4 => return None,
        4..8 => 1,
        _ => 2,
    };
    let near = known.iter().map(|known| (strsim::osa_distance(written, known), known.as_str()));
    near.filter(|(distance, _)| *distance <= most).min().map(|(_, known)| known)
}

/// Returns the names of keys that have another name here.
pub(super) fn other_names() -> impl Iterator<Item = String> {
    OTHER_NAMES.iter().map(|(other, _)| (*other).to_owned()).chain([SSH_TUNNEL.to_owned()])
}

/// Returns our name of a key. Where a file has a key under both names, ours counts.
fn our_name<'a>(written: &'a str, object: &Map<String, Value>) -> &'a str {
    match OTHER_NAMES.iter().find(|(other, _)| *other == written) {
        Some((_, ours)) if object.get(*ours).is_none_or(is_unset) => ours,
        _ => written,
    }
}

/// Returns the object with the keys of `ssh_tunnel` among its own.
fn flattened(file: &str, object: Map<String, Value>) -> Result<Map<String, Value>> {
    let mut flat = Map::new();
    for (key, value) in object {
        match value {
            Value::Object(inner) if key == SSH_TUNNEL => {
                flat.extend(inner.into_iter().map(|(key, value)| (format!("{SSH_TUNNEL}.{key}"), value)));
            }
            other if key == SSH_TUNNEL && !is_unset(&other) => {
                let found = shown(&other);
                return Err(Error::usage(format!("{file}: key \"{SSH_TUNNEL}\": expected an object, found {found}")));
            }
            other => _ = flat.insert(key, other),
        }
    }
    Ok(flat)
}

fn is_unset(value: &Value) -> bool {
    value.is_null() || value == ""
}

/// The entries as a map whose errors name the place of the value.
struct PlacedMap {
    entries: std::vec::IntoIter<Entry>,
    current: Option<Entry>,
}

impl<'de> MapAccess<'de> for PlacedMap {
    type Error = PlainError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, PlainError> {
        self.current = self.entries.next();
        self.current.as_ref().map(|entry| seed.deserialize(entry.key.as_str().into_deserializer())).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, PlainError> {
        let entry = self.current.take().ok_or_else(|| PlainError::custom("value without a key"))?;
        let (place, of_dsn) = (entry.place(), entry.of_dsn);
        seed.deserialize(entry.value).map_err(|error| {
            let problem =
                if of_dsn { format!("the value of its {} can't be used", entry.key) } else { error.to_string() };
            PlainError::custom(format!("{place}: {problem}"))
        })
    }
}

/// Reads a setting by its type, for `#[serde(deserialize_with)]`.
pub(super) fn setting<'de, D: Deserializer<'de>, T: Setting>(deserializer: D) -> Result<T, D::Error> {
    T::read(Value::deserialize(deserializer)?).map_err(D::Error::custom)
}

/// A type of setting, which defines what its values may look like. An error says what is wrong with the value.
pub(super) trait Setting: Sized {
    fn read(value: Value) -> Result<Self, String>;
}

/// Reads a text; a number counts as its digits.
pub(super) fn text(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err(format!("expected a text, found {}", shown(value))),
    }
}

impl<T: Setting> Setting for Option<T> {
    fn read(value: Value) -> Result<Self, String> {
        T::read(value).map(Some)
    }
}

impl Setting for String {
    fn read(value: Value) -> Result<Self, String> {
        text(&value)
    }
}

impl Setting for bool {
    fn read(value: Value) -> Result<Self, String> {
        let word = match &value {
            Value::Bool(value) => return Ok(*value),
            Value::String(text) => text.trim().to_ascii_lowercase(),
            Value::Number(number) => number.to_string(),
            _ => String::new(),
        };
        match word.as_str() {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(format!("{} is neither true nor false", shown(&value))),
        }
    }
}

/// A port.
impl Setting for u16 {
    fn read(value: Value) -> Result<Self, String> {
        let port = text(&value).ok().and_then(|text| port(&text));
        port.ok_or_else(|| format!("{} is not a port number (1–65535)", shown(&value)))
    }
}

/// A port, or several in a text.
impl Setting for Vec<u16> {
    fn read(value: Value) -> Result<Self, String> {
        let ports = text(&value).ok().and_then(|text| text.split(',').map(port).collect());
        ports.ok_or_else(|| format!("{} is not a port number (1–65535)", shown(&value)))
    }
}

fn port(text: &str) -> Option<u16> {
    text.trim().parse().ok().filter(|&port| port > 0)
}

/// A count or a number of seconds; a fraction, which Python's `float` takes, is cut off.
impl Setting for u64 {
    fn read(value: Value) -> Result<Self, String> {
        let whole = text(&value).ok().and_then(|text| {
            let text = text.trim();
            let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
            if fraction.bytes().all(|b| b.is_ascii_digit()) { whole.parse().ok() } else { None }
        });
        whole.ok_or_else(|| format!("{} is not a whole number of 0 or more", shown(&value)))
    }
}

/// A comma-separated string or a list; spaces around the names and empty names are dropped.
impl Setting for Vec<String> {
    fn read(value: Value) -> Result<Self, String> {
        let wrong = || format!("expected a comma-separated text or a list of texts, found {}", shown(&value));
        let names: Vec<&str> = match &value {
            Value::String(text) => text.split(',').collect(),
            Value::Array(items) => {
                items.iter().map(|item| item.as_str().ok_or_else(wrong)).collect::<Result<_, _>>()?
            }
            _ => return Err(wrong()),
        };
        Ok(names.into_iter().map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect())
    }
}

impl Setting for ReplicationMethod {
    fn read(value: Value) -> Result<Self, String> {
        text(&value)?.parse().map_err(|error: crate::method::UnknownMethod| error.to_string())
    }
}
