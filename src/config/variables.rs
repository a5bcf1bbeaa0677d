//! `--config ENV`: settings in environment variables, `TAP_POSTGRES_` and the key in capitals, as in the Meltano SDK's taps.

use std::env;

use serde_json::{Map, Value};

/// What the variables begin with.
const PREFIX: &str = "TAP_POSTGRES_";

/// Returns the settings among these that have a variable, as a file: its name, and its text.
pub(super) fn settings(names: &[String]) -> (String, String) {
    let value = |name: &String| Some((name.clone(), value(&env::var(variable(name)).ok()?)));
    let settings: Map<String, Value> = names.iter().filter_map(value).collect();
    (format!("the environment ({PREFIX}…)"), Value::Object(settings).to_string())
}

fn variable(name: &str) -> String {
    format!("{PREFIX}{}", name.to_uppercase().replace(['.', '-'], "_"))
}

/// Returns an object or a list from its JSON, anything else as the text that it is.
fn value(text: &str) -> Value {
    let json = || serde_json::from_str(text).ok().filter(|json: &Value| json.is_object() || json.is_array());
    json().unwrap_or_else(|| text.into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn variables_are_named_after_keys() {
        assert_eq!(variable("replication_slot_name"), "TAP_POSTGRES_REPLICATION_SLOT_NAME");
        assert_eq!(variable("ssh_tunnel.private_key"), "TAP_POSTGRES_SSH_TUNNEL_PRIVATE_KEY");
    }

    #[test]
    fn lists_and_objects_are_json() {
        assert_eq!(value(r#"["a", "b"]"#), json!(["a", "b"]));
        assert_eq!(value(r#"{"enable": true}"#), json!({"enable": true}));
        for text in ["a,b", "5432", "true", "null", "[a", ""] {
            assert_eq!(value(text), json!(text));
        }
    }
}
