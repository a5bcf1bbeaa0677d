//! JSON values as YAML, in the block style that people write.

use serde_json::Value;

/// The lines of an object or a list, so far indented.
pub(crate) fn block(value: &Value, indent: usize) -> String {
    let margin = " ".repeat(indent);
    match value {
        Value::Object(entries) => {
            entries.iter().map(|(key, value)| format!("{margin}{key}:{}", after(value, indent))).collect()
        }
        Value::Array(items) => items
            .iter()
            .map(|item| match item {
                Value::Object(_) | Value::Array(_) => format!("{margin}- {}", block(item, indent + 2).trim_start()),
                _ => format!("{margin}- {}\n", scalar(item)),
            })
            .collect(),
        _ => format!("{margin}{}\n", scalar(value)),
    }
}

/// What follows a key.
fn after(value: &Value, indent: usize) -> String {
    match value {
        Value::Object(entries) if !entries.is_empty() => format!("\n{}", block(value, indent + 2)),
        Value::Array(items) if !items.is_empty() => format!("\n{}", block(value, indent)),
        Value::String(text) if text.contains('\n') => {
            let margin = " ".repeat(indent + 2);
            let lines =
                text.lines().map(|line| if line.is_empty() { "\n".into() } else { format!("{margin}{line}\n") });
            format!(" |\n{}", lines.collect::<String>())
        }
        _ => format!(" {}\n", scalar(value)),
    }
}

/// Plain where nothing in it means something to YAML, else as JSON, which YAML reads too.
fn scalar(value: &Value) -> String {
    let plain = |text: &str| {
        let words = ["true", "false", "yes", "no", "on", "off", "null", "y", "n"];
        text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
            && !text.ends_with([':', ' '])
            && !text.contains(": ")
            && text.chars().all(|c| c.is_ascii_alphanumeric() || " _-./,;:()<>'=".contains(c))
            && !words.contains(&text.to_ascii_lowercase().as_str())
    };
    match value {
        Value::String(text) if plain(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn blocks() {
        let value = json!({
            "plain": "a word, and more", "quoted": "a: b", "word": "no", "empty": "", "list": [1, "x", [true, null], {"a": 1, "b": {"c": []}}],
            "text": "one\n\ntwo\n",
        });
        let expected = r#"
  plain: a word, and more
  quoted: "a: b"
  word: "no"
  empty: ""
  list:
  - 1
  - x
  - - true
    - null
  - a: 1
    b:
      c: []
  text: |
    one

    two
"#;
        assert_eq!(format!("\n{}", block(&value, 2)), expected);
    }
}
