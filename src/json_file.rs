//! What config, catalog and state share: a JSON file whose errors say which file, where and why.

use std::path::Path;

use serde_json::Value;

use crate::error::{Error, Result};

/// Reads the text of a file, without the byte order mark that editors on Windows put before it.
pub(crate) fn read(path: &Path) -> Result<String> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text)),
        Err(error) => {
            let refused = Error::usage(format!("cannot read {}", path.display())).source(error);
            let is_utf16 =
                std::fs::read(path).is_ok_and(|bytes| matches!(bytes.as_slice(), [0xff, 0xfe, ..] | [0xfe, 0xff, ..]));
            Err(if is_utf16 { refused.hint("it is UTF-16: save it as UTF-8") } else { refused })
        }
    }
}

/// Parses the JSON in `text`; the error has the line and the column.
pub(crate) fn parse(file: &str, text: &str) -> Result<Value> {
    serde_json::from_str(text).map_err(|error| Error::usage(format!("{file} is not valid JSON")).source(error))
}

/// Returns a value for an error message: its kind, and short values as they stand.
pub(crate) fn shown(value: &Value) -> String {
    const LONGEST: usize = 60;
    match value {
        Value::Null => "null".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        Value::String(text) if text.chars().count() > LONGEST => "a long text".to_owned(),
        Value::String(_) | Value::Number(_) | Value::Bool(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_file_and_the_place() {
        let error = parse("config.json", "{\n  \"host\": \"x\"\n  \"port\": 1\n}").unwrap_err();
        assert_eq!(error.to_string(), "config.json is not valid JSON: expected `,` or `}` at line 3 column 3");
        assert_eq!(error.kind().exit_code(), 2);

        let error = read(Path::new("/nonexistent/state.json")).unwrap_err();
        assert_eq!(error.to_string(), "cannot read /nonexistent/state.json: No such file or directory (os error 2)");
        assert_eq!(error.kind().exit_code(), 2);
    }

    #[test]
    fn files_of_editors_on_windows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        std::fs::write(&path, "\u{feff}{\"host\": \"x\"}").unwrap();
        assert_eq!(parse("", &read(&path).unwrap()).unwrap(), serde_json::json!({"host": "x"}));
        std::fs::write(&path, [0xff, 0xfe, b'{', 0, b'}', 0]).unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("save it as UTF-8"), "{error}");
    }

    #[test]
    fn values_are_shown_short() {
        assert_eq!(shown(&serde_json::json!({"a": 1})), "an object");
        assert_eq!(shown(&Value::from("abc")), r#""abc""#);
        assert_eq!(shown(&Value::from("a".repeat(61))), "a long text");
        assert_eq!(shown(&serde_json::json!(12345678901234567890_u64)), "12345678901234567890");
    }
}
