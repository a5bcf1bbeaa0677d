use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::singer::writer::tests::Sink;

/// The properties of each stream but the version, and its key.
const STREAMS: [(&str, &[&str], &[&str]); 3] = [
    ("public-one \"\\", &["id", "a", "b", DELETED_AT], &["id"]),
    ("public-two", &["x", "a", "y", DELETED_AT], &["y", "x"]),
    ("public-keyless", &["a", "b", DELETED_AT], &[]),
];
const DELETED_AT: &str = "_sdc_deleted_at";

#[derive(Clone, Debug)]
enum Step {
    /// A row of a stream, with these of its properties besides the key.
    Row {
        stream: usize,
        key: (u8, u8),
        value: u16,
        has: Vec<bool>,
    },
    Delete {
        stream: usize,
        key: (u8, u8),
    },
    Schema(usize),
    ActivateVersion(usize),
    State,
}

fn step() -> impl Strategy<Value = Step> {
    let (stream, key) = (0..STREAMS.len(), (0..3u8, 0..2u8));
    // Most rows are whole.
    let has = prop_oneof![4 => Just(vec![true; 4]), 1 => prop::collection::vec(any::<bool>(), 4)];
    prop_oneof![
        20 => (stream.clone(), key.clone(), any::<u16>(), has)
            .prop_map(|(stream, key, value, has)| Step::Row { stream, key, value, has }),
        5 => (stream.clone(), key).prop_map(|(stream, key)| Step::Delete { stream, key }),
        1 => stream.clone().prop_map(Step::Schema),
        1 => stream.prop_map(Step::ActivateVersion),
        1 => Just(Step::State),
    ]
}

/// The messages of these steps: SCHEMAs first, and a STATE that counts behind everything.
fn messages(steps: &[Step]) -> Vec<Value> {
    let schema = |stream: usize| {
        let (name, properties, keys) = STREAMS[stream];
        let mut properties: Map<String, Value> =
            properties.iter().map(|name| ((*name).to_owned(), json!({"type": ["null", "string"]}))).collect();
        // A column that is not sent, and the version, which is in files only.
        properties.insert("unsupported".to_owned(), json!({}));
        properties.insert("_sdc_table_version".to_owned(), json!({"type": ["integer", "null"]}));
        json!({"type": "SCHEMA", "stream": name, "schema": {"type": "object", "properties": properties}, "key_properties": keys})
    };
    let mut messages: Vec<Value> = (0..STREAMS.len()).map(schema).collect();
    let mut version = 1;
    for (number, step) in steps.iter().enumerate() {
        messages.push(match step {
            Step::Row { stream, key, value, has } => {
                let (name, properties, keys) = STREAMS[*stream];
                let mut record = record_of(properties, keys, *key);
                for (property, _) in properties.iter().zip(has).filter(|(name, has)| !keys.contains(name) && **has) {
                    let value = if *property == DELETED_AT { Value::Null } else { json!(format!("{value}\n\"")) };
                    record.insert((*property).to_owned(), value);
                }
                // As they are written: in the order of the columns.
                let record: Map<String, Value> =
                    properties.iter().filter_map(|name| Some(((*name).to_owned(), record.remove(*name)?))).collect();
                json!({"type": "RECORD", "stream": name, "record": record, "version": version, "time_extracted": "t"})
            }
            Step::Delete { stream, key } => {
                let (name, properties, keys) = STREAMS[*stream];
                let mut record = record_of(properties, keys, *key);
                record.insert(DELETED_AT.to_owned(), json!("2024-01-01"));
                json!({"type": "RECORD", "stream": name, "record": record, "version": version, "time_extracted": "t"})
            }
            Step::Schema(stream) => schema(*stream),
            Step::ActivateVersion(stream) => {
                version += 1;
                json!({"type": "ACTIVATE_VERSION", "stream": STREAMS[*stream].0, "version": version})
            }
            Step::State => json!({"type": "STATE", "value": number}),
        });
    }
    messages.push(json!({"type": "STATE", "value": "last"}));
    messages
}

fn record_of(properties: &[&str], keys: &[&str], key: (u8, u8)) -> Map<String, Value> {
    let values = [key.0, key.1];
    let in_order = properties.iter().filter(|name| keys.contains(name));
    in_order.zip(values).map(|(name, value)| ((*name).to_owned(), json!(value))).collect()
}

/// A target that upserts what a record has.
#[derive(Clone, Debug, Default, PartialEq)]
struct Target {
    rows: BTreeMap<(String, String), Map<String, Value>>,
    appended: Vec<(String, Value)>,
}

impl Target {
    fn apply(&mut self, stream: &str, record: &Map<String, Value>) {
        let keys = STREAMS.iter().find(|(name, ..)| *name == stream).unwrap().2;
        if keys.is_empty() {
            self.appended.push((stream.to_owned(), Value::Object(record.clone())));
            return;
        }
        let key: Vec<&Value> = keys.iter().map(|key| &record[*key]).collect();
        let key = (stream.to_owned(), json!(key).to_string());
        if record.get(DELETED_AT).is_some_and(|time| !time.is_null()) {
            self.rows.remove(&key);
        } else {
            self.rows.entry(key).or_default().extend(record.clone());
        }
    }
}

/// What a target holds at each message that is no record, with the message, and how many records it took. Rows of streams may come in
/// any order beside each other.
fn targets(messages: &[Value]) -> (Vec<(Value, Target)>, usize) {
    let (mut target, mut held, mut records) = (Target::default(), Vec::new(), 0);
    for message in messages {
        let stream = message["stream"].as_str().unwrap_or_default();
        match message["type"].as_str().unwrap() {
            "RECORD" => {
                let mut record = message["record"].as_object().unwrap().clone();
                record.insert("_sdc_table_version".to_owned(), message["version"].clone());
                target.apply(stream, &record);
                records += 1;
            }
            "BATCH" => {
                let url = message["manifest"][0].as_str().unwrap();
                let text = std::fs::read_to_string(url.strip_prefix("file://").unwrap()).unwrap();
                for line in text.lines() {
                    target.apply(stream, serde_json::from_str::<Value>(line).unwrap().as_object().unwrap());
                    records += 1;
                }
            }
            _ => {
                let mut sorted = target.clone();
                sorted.appended.sort_by_key(|(stream, _)| stream.clone());
                held.push((message.clone(), sorted));
            }
        }
    }
    (held, records)
}

fn window(root: Option<&Path>, compacts: bool, batch_size: usize, most: usize) -> Window {
    let mut config = json!({"host": "h", "user": "u", "dbname": "d", "compact_changes": compacts});
    if let Some(root) = root {
        config["batch_config"] = json!({
            "storage": {"root": format!("file://{}", root.display())},
            "encoding": {"compression": "none"},
            "batch_size": batch_size,
        });
    }
    let config = Config::parse(&[("config.json".to_owned(), config.to_string())]).unwrap();
    let mut window = Window::of(&config).unwrap();
    window.most = most;
    window.begin_changes();
    window
}

/// Has messages pass through a window, so many at a time. `interrupted`: each time it is cut short as soon as it has to wait.
fn passed(window: &mut Window, messages: &[Value], at_a_time: usize, interrupted: bool) -> Vec<Value> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let sink = Sink::default();
        let mut writer = MessageWriter::new(sink.clone());
        for some in messages.chunks(at_a_time) {
            let lines: String = some.iter().map(|message| format!("{message}\n")).collect();
            window.take(lines.as_bytes());
            tokio::select! {
                biased;
                sent = window.send(&mut writer) => sent.unwrap(),
                () = std::future::ready(()), if interrupted => {}
            }
        }
        for _ in 0..if interrupted { 20 } else { 0 } {
            tokio::select! {
                biased;
                finished = window.finish(&mut writer) => finished.unwrap(),
                () = tokio::task::yield_now() => {}
            }
        }
        window.finish(&mut writer).await.unwrap();
        writer.finish().await.unwrap();
        let written = sink.0.lock().unwrap().clone();
        String::from_utf8(written).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    })
}

proptest! {
    /// Whatever is left out, and wherever it stands: at each message that is no record a target holds what it would hold without.
    #[test]
    fn a_target_holds_the_same(
        steps in prop::collection::vec(step(), 0..80),
        (compacts, batches) in prop_oneof![Just((true, false)), Just((false, true)), Just((true, true))],
        batch_size in 1..8usize,
        most in prop_oneof![Just(WINDOW), 200..6000usize],
        at_a_time in 1..20usize,
        interrupted in any::<bool>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let given = messages(&steps);
        let mut window = window(batches.then(|| folder.path()), compacts, batch_size, most);
        let got = passed(&mut window, &given, at_a_time, interrupted);
        let (expected, of) = targets(&given);
        let (held, records) = targets(&got);
        prop_assert_eq!(held, expected);
        prop_assert_eq!(records as u64, of as u64 - window.left_out);
        prop_assert!(compacts || records == of);
        prop_assert!(got.iter().all(|message| (message["type"] == "RECORD") != batches || message["type"] != "RECORD"));
        let files = std::fs::read_dir(folder.path()).unwrap().count();
        prop_assert_eq!(files, got.iter().filter(|message| message["type"] == "BATCH").count(), "every file is told of");
    }
}

fn row(id: u32, a: &str) -> Value {
    let record = json!({"id": id, "a": a, "b": "b", DELETED_AT: null});
    json!({"type": "RECORD", "stream": STREAMS[0].0, "record": record, "version": 1, "time_extracted": "t"})
}

/// Of each key one change is sent, the last, at its place, a delete too; those before a STATE stay before it.
#[test]
fn the_last_of_a_key_is_sent() {
    let mut given = messages(&[]);
    let state = given.pop().unwrap();
    let delete =
        json!({"type": "RECORD", "stream": STREAMS[0].0, "record": {"id": 2, DELETED_AT: "2024-01-01"}, "version": 1});
    let schemas = given.clone();
    given.extend([row(1, "x"), row(2, "x"), row(1, "y"), row(3, "x"), delete.clone(), row(1, "z"), state.clone()]);
    given.extend([row(1, "x"), delete.clone(), row(2, "again"), state.clone()]);
    let expected =
        [schemas, vec![row(3, "x"), delete, row(1, "z"), state.clone(), row(1, "x"), row(2, "again"), state]];
    assert_eq!(passed(&mut window(None, true, 1, WINDOW), &given, 100, false), expected.concat());
}

/// A few hot keys leave a window that holds more changes than fit into it.
#[test]
fn a_window_goes_on_while_the_same_keys_come() {
    let mut given = messages(&[]);
    let state = given.pop().unwrap();
    let schemas = given.len();
    given.extend((0..10_000).map(|change| row(change % 10, &change.to_string())));
    given.push(state);
    assert_eq!(passed(&mut window(None, true, 1, 20_000), &given, 7, false).len(), schemas + 10 + 1);
}

/// A file has as many records as it may, however they come.
#[test]
fn files_are_full() {
    let folder = tempfile::tempdir().unwrap();
    let mut given = messages(&[]);
    given.extend((0..25).map(|id| row(id, "x")));
    let got = passed(&mut window(Some(folder.path()), false, 10, WINDOW), &given, 7, false);
    let sizes = got.iter().filter(|message| message["type"] == "BATCH").map(|batch| {
        let url = batch["manifest"][0].as_str().unwrap();
        std::fs::read_to_string(url.strip_prefix("file://").unwrap()).unwrap().lines().count()
    });
    assert_eq!(sizes.collect::<Vec<_>>(), [10, 10, 5]);
}

/// Nothing that comes behind records which could not be written may leave: a STATE would claim them.
#[test]
fn nothing_leaves_behind_a_file_that_failed() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    let mut window = window(Some(&folder.path().join("file")), false, 10, WINDOW);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let sink = Sink::default();
        let mut writer = MessageWriter::new(sink.clone());
        let mut given = messages(&[]);
        let state = given.pop().unwrap();
        given.extend([row(1, "x"), state.clone()]);
        let lines: String = given.iter().map(|message| format!("{message}\n")).collect();
        window.take(lines.as_bytes());
        let error = window.finish(&mut writer).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Output && error.to_string().contains("cannot write the batch"), "{error}");
        window.take(format!("{state}\n").as_bytes());
        assert!(window.send(&mut writer).await.is_err() && window.finish(&mut writer).await.is_err());
        writer.finish().await.unwrap();
        let written = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        assert!(!written.contains("STATE"), "{written}");
    });
}
