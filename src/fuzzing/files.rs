//! The files that the tap is given.

use serde_json::{Value, json};

use crate::catalog::Catalog;
use crate::config::Config;
use crate::error::{ErrorKind, Result};
use crate::state::State;

const SECRET: &str = "-----BEGIN hunter2 hunter2 -----";

/// Reads one config file or several, separated by zero bytes. Whatever is wrong with them, no error and no `Debug`
/// output shows what stands under the key of a secret.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let files = |texts: Vec<String>| -> Vec<(String, String)> {
        texts.into_iter().enumerate().map(|(index, text)| (format!("{index}.json"), text)).collect()
    };
    let texts: Vec<String> = text.split('\0').map(str::to_owned).collect();
    let _ = checked(Config::parse(&files(texts.clone())));
    let _ = checked(Config::parse(&files(vec![json!({ "dsn": text }).to_string()])));
    for secret in [json!(SECRET), json!([SECRET]), json!({"a": SECRET})] {
        let hide = |text: &String| -> String {
            let Ok(Value::Object(mut object)) = serde_json::from_str(text) else { return text.clone() };
            for key in ["password", "sslkey", "ssl_client_private_key", "ssh_tunnel.private_key_passphrase"] {
                object.insert(key.to_owned(), secret.clone());
            }
            Value::Object(object).to_string()
        };
        let shown = match checked(Config::parse(&files(texts.iter().map(hide).collect()))) {
            Ok(config) => format!("{config:?}"),
            Err(error) => error,
        };
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

/// Reads a catalog. If every stream of it can be read, skipping the deselected ones changes nothing.
pub fn catalog(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let read = checked(Catalog::parse("catalog.json", text));
    if let Ok(whole) = checked(Catalog::parse_whole("catalog.json", text)) {
        let read = read.as_ref().expect("what can be read whole can be read");
        assert_eq!(format!("{read:?}"), format!("{whole:?}"));
    }
    for entry in read.iter().flat_map(|catalog| &catalog.streams) {
        // What a sync asks of it.
        let _ = (entry.schema_name(), entry.replication_method(), entry.replication_key());
        assert!(entry.is_selected());
    }
}

/// Reads a state. Written and read again it is the same, and its bookmarks read alike.
pub fn state(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(state) = checked(State::parse("state.json", text)) else { return };
    let mut written = Vec::new();
    state.write_state_value(&mut written);
    let written = String::from_utf8(written).expect("JSON is UTF-8");
    assert!(!written.contains('\n'), "{written}");
    let again = State::parse("state.json", &written).expect("what was written can be read");
    assert_eq!(again, state);
    let value: Value = serde_json::from_str(&written).expect("what was written is JSON");
    for id in value["bookmarks"].as_object().expect("an object").keys() {
        let positions = |state: &State| {
            let bookmark = state.bookmark(id);
            let read = (state.kept_from(id), bookmark.version(), bookmark.table_oid(), bookmark.method());
            (read, bookmark.replication_key().map(str::to_owned), state.resume(id, None))
        };
        assert_eq!(positions(&state), positions(&again));
    }
}

/// Checks that an error is one line, and the user's to fix.
fn checked<T>(parsed: Result<T>) -> std::result::Result<T, String> {
    parsed.map_err(|error| {
        let text = error.to_string();
        assert!(!text.contains('\n'), "{text}");
        assert_eq!(error.kind(), ErrorKind::Usage, "{text}");
        text
    })
}
