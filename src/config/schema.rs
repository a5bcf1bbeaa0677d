//! What the JSON schema of the settings needs beyond what their types express.

use schemars::Schema;
use serde_json::{Value, json};

/// Allows strings for numbers, booleans and lists in the schema.
pub(super) fn or_string(schema: &mut Schema) {
    let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
    for (_, property) in properties.into_iter().flatten() {
        let Some(kind) = property.get_mut("type") else { continue };
        let mut kinds = kind.as_array().cloned().unwrap_or_else(|| vec![kind.take()]);
        if !kinds.contains(&json!("string")) {
            kinds.insert(1, json!("string"));
        }
        *kind = if kinds.len() == 1 { kinds.remove(0) } else { Value::Array(kinds) };
    }
}

/// Allows a dsn in place of the required settings in the schema.
pub(super) fn or_dsn(schema: &mut Schema) {
    if let Some(required) = schema.remove("required") {
        schema.insert("anyOf".to_owned(), json!([{"required": required}, {"required": ["dsn"]}]));
    }
}
