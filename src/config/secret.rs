//! Settings that are never printed.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::Value;

use super::read::{Setting, text};

const HIDDEN: &str = "********";

/// A text that is never printed: Debug and Display show asterisks, and there is no Serialize.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Secret {
    /// Hides a text.
    #[cfg(test)]
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }

    /// Returns the text itself, for the one place that needs it.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl Setting for Secret {
    fn read(value: Value) -> Result<Self, String> {
        text(&value).map(Secret).map_err(|_| "expected a text".to_owned())
    }
}

impl JsonSchema for Secret {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "secret": true, "writeOnly": true})
    }
}

/// A certificate or key: the path of a file, or PEM text.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum PemSource {
    /// A file.
    Path(PathBuf),
    /// PEM text.
    Text(Secret),
}

impl fmt::Debug for PemSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // It may be the text of a key, without its first line.
            PemSource::Path(_) => write!(f, "Path({HIDDEN})"),
            PemSource::Text(text) => write!(f, "Text({text})"),
        }
    }
}

impl Setting for PemSource {
    fn read(value: Value) -> Result<Self, String> {
        let text = text(&value).map_err(|_| "expected a path or PEM text".to_owned())?;
        if text.contains("-----BEGIN") {
            // Environment variables often carry the line breaks of a PEM as the two characters \n.
            Ok(PemSource::Text(Secret(text.replace("\\n", "\n"))))
        } else {
            Ok(PemSource::Path(text.into()))
        }
    }
}

impl JsonSchema for PemSource {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "PemSource".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string"})
    }
}
