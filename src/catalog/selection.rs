//! Which columns of a stream are selected.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::Metadata;

/// A catalog's selection of a stream's columns.
#[derive(Debug)]
pub(crate) struct Selection<'a> {
    columns: HashMap<&'a str, &'a Map<String, Value>>,
}

impl<'a> Selection<'a> {
    pub(super) fn new(metadata: &'a [Metadata]) -> Self {
        Selection { columns: metadata.iter().filter_map(|m| Some((m.column()?, &m.metadata))).collect() }
    }

    /// Whether a column is selected; `None` if the catalog does not mention it, as with a column that is younger than
    /// the catalog.
    pub(crate) fn column(&self, name: &str) -> Option<bool> {
        let metadata = self.columns.get(name)?;
        let value = |key: &str| metadata.get(key).filter(|value| !value.is_null());
        match value("inclusion").and_then(Value::as_str) {
            Some("automatic") => Some(true),
            Some("unsupported") => Some(false),
            _ => value("selected").or_else(|| value("selected-by-default")).map(is_true),
        }
    }
}

/// Whether a value is `true`, or the same as a text.
pub(super) fn is_true(value: &Value) -> bool {
    match value {
        Value::Bool(value) => *value,
        Value::String(text) => text.eq_ignore_ascii_case("true"),
        _ => false,
    }
}
