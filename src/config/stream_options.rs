//! `stream_options`, as the MeltanoLabs tap defines it: which rows of single streams are read.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::read::Setting;

/// The options of streams, by `tap_stream_id`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub(crate) struct StreamOptions(BTreeMap<String, Option<Options>>);

/// The options of a stream.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
struct Options {
    /// Conditions of its rows, SQL that is true of all that are read.
    #[serde(default)]
    custom_where_clauses: Option<Vec<String>>,
}

impl StreamOptions {
    /// Returns the condition of a stream's rows, if it has any.
    pub(super) fn condition(&self, stream: &str) -> Option<String> {
        let clauses = self.0.get(stream)?.as_ref()?.custom_where_clauses.iter().flatten();
        let clauses = clauses.filter(|clause| !clause.trim().is_empty());
        // On lines of their own: one may end in a comment.
        let clauses: Vec<String> = clauses.map(|clause| format!("({clause}\n)")).collect();
        (!clauses.is_empty()).then(|| clauses.join(" AND "))
    }

    /// Returns the streams that have options.
    pub(super) fn streams(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl Setting for StreamOptions {
    fn read(value: Value) -> Result<Self, String> {
        let expected = "expected an object, {\"a stream\": {\"custom_where_clauses\": [\"a condition\"]}}";
        match value {
            Value::Object(_) => serde_json::from_value(value).map_err(|error| format!("{expected}: {error}")),
            Value::String(text) => serde_json::from_str(&text).map_err(|error| format!("{expected}: {error}")),
            _ => Err(expected.to_owned()),
        }
    }
}
