//! A catalog to select in, as a target's user would.

use serde_json::{Map, Value, json};

/// A catalog as discovery printed it.
#[derive(Clone, Debug)]
pub(crate) struct Catalog(Value);

impl Catalog {
    pub(crate) fn new(value: Value) -> Catalog {
        assert!(value["streams"].is_array(), "a catalog without streams: {value}");
        Catalog(value)
    }

    pub(crate) fn as_value(&self) -> &Value {
        &self.0
    }

    pub(crate) fn streams(&self) -> &[Value] {
        self.0["streams"].as_array().expect("checked by new")
    }

    /// The ids, in the catalog's order.
    pub(crate) fn ids(&self) -> Vec<&str> {
        self.streams().iter().map(|entry| entry["tap_stream_id"].as_str().expect("tap_stream_id")).collect()
    }

    /// One stream's entry.
    #[track_caller]
    pub(crate) fn stream(&self, id: &str) -> &Value {
        let found = self.streams().iter().find(|entry| entry["tap_stream_id"] == id);
        found.unwrap_or_else(|| panic!("no stream {id} among {:?}", self.ids()))
    }

    /// The metadata of a stream (empty breadcrumb) or, with a column, of that.
    #[track_caller]
    pub(crate) fn metadata(&self, id: &str, column: Option<&str>) -> &Value {
        let breadcrumb = breadcrumb(column);
        let list = self.stream(id)["metadata"].as_array().expect("metadata is a list");
        let found = list.iter().find(|item| item["breadcrumb"] == breadcrumb);
        &found.unwrap_or_else(|| panic!("no metadata {breadcrumb} of {id}"))["metadata"]
    }

    /// Selects a stream with a replication method.
    #[track_caller]
    pub(crate) fn select(self, id: &str, method: &str) -> Catalog {
        self.set(id, None, &json!({"selected": true, "replication-method": method}))
    }

    /// Selects a stream as INCREMENTAL.
    #[track_caller]
    pub(crate) fn select_incremental(self, id: &str, key: &str) -> Catalog {
        let catalog = self.select(id, "INCREMENTAL");
        catalog.set(id, None, &json!({"replication-key": key}))
    }

    /// Selects or deselects a column.
    #[track_caller]
    pub(crate) fn column(self, id: &str, column: &str, selected: bool) -> Catalog {
        self.set(id, Some(column), &json!({"selected": selected}))
    }

    /// Adds to the metadata of a stream or column.
    #[track_caller]
    pub(crate) fn set(mut self, id: &str, column: Option<&str>, metadata: &Value) -> Catalog {
        let known = self.ids().join(", ");
        let streams = self.0["streams"].as_array_mut().expect("checked by new");
        let entry = streams.iter_mut().find(|entry| entry["tap_stream_id"] == id);
        let entry = entry.unwrap_or_else(|| panic!("no stream {id} among {known}"));
        let list = entry["metadata"].as_array_mut().expect("metadata is a list");
        let breadcrumb = breadcrumb(column);
        let item = match list.iter().position(|item| item["breadcrumb"] == breadcrumb) {
            Some(index) => &mut list[index],
            None => {
                list.push(json!({"breadcrumb": breadcrumb, "metadata": {}}));
                list.last_mut().expect("just pushed")
            }
        };
        for (key, value) in metadata.as_object().expect("metadata is an object") {
            item["metadata"][key] = value.clone();
        }
        self
    }

    /// Applies the rules of a golden case: `{"<stream or *>": {metadata…, "columns": {"<column>": {metadata…}}}}`.
    /// Every stream with a rule is selected, no other is; a rule of its own adds to the one for `*`.
    #[track_caller]
    pub(crate) fn apply(mut self, rules: &Map<String, Value>) -> Catalog {
        let ids: Vec<String> = self.ids().into_iter().map(str::to_owned).collect();
        if let Some(unknown) = rules.keys().find(|key| *key != "*" && !ids.contains(key)) {
            panic!("a rule for {unknown}, which is not among {ids:?}");
        }
        for id in &ids {
            for rule in [rules.get("*"), rules.get(id)].into_iter().flatten() {
                let mut rule = rule.as_object().expect("a rule is an object").clone();
                let columns = rule.shift_remove("columns").unwrap_or(json!({}));
                rule.entry("selected").or_insert(json!(true));
                self = self.set(id, None, &Value::Object(rule));
                for (column, metadata) in columns.as_object().expect("columns is an object") {
                    self = self.set(id, Some(column), metadata);
                }
            }
        }
        self
    }
}

fn breadcrumb(column: Option<&str>) -> Value {
    column.map_or(json!([]), |column| json!(["properties", column]))
}
