//! One stream of a catalog.

use serde_json::{Map, Value};

use super::Selection;
use super::selection::is_true;
use crate::json_file::shown;
use crate::method::ReplicationMethod;

/// Metadata of a table (empty breadcrumb) or of a column (`["properties", name]`).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Metadata {
    /// The table or column that it describes.
    pub breadcrumb: Vec<String>,
    /// The keys and their values.
    pub metadata: Map<String, Value>,
}

impl Metadata {
    /// Returns the column that it describes; `None` if that is a table.
    pub(crate) fn column(&self) -> Option<&str> {
        match self.breadcrumb.as_slice() {
            [kind, name] if kind == "properties" => Some(name),
            _ => None,
        }
    }
}

/// One stream.
#[derive(Clone, Debug)]
pub(crate) struct CatalogEntry {
    /// The table.
    pub table_name: String,
    /// The table once more: Singer's name of the stream.
    pub stream: String,
    /// Metadata of the table and its columns.
    pub metadata: Vec<Metadata>,
    /// `schema-table`.
    pub tap_stream_id: String,
    /// The JSON schema of a record.
    pub schema: Value,
    /// The other keys of the entry in a catalog file; Meltano writes `selected` and `replication_method` here.
    on_entry: Map<String, Value>,
}

/// A problem, and the stream's name as far as it was found.
type Problem = (Option<String>, String);

impl CatalogEntry {
    pub(super) fn parse(value: Value) -> Result<Self, Problem> {
        let Value::Object(mut object) = value else {
            return Err((None, format!("expected an object, found {}", shown(&value))));
        };
        let name = ["tap_stream_id", "stream", "table_name"].iter().find_map(|key| object.get(*key)?.as_str());
        let name = name.map(str::to_owned);
        Self::from_object(&mut object).map_err(|problem| (name, problem))
    }

    fn from_object(object: &mut Map<String, Value>) -> Result<Self, String> {
        let tap_stream_id = take_text(object, "tap_stream_id")?;
        let stream = take_text(object, "stream")?;
        let table_name = take_text(object, "table_name")?;
        let schema = match object.remove("schema") {
            None | Some(Value::Null) => Value::Object(Map::new()),
            Some(schema @ Value::Object(_)) => schema,
            Some(other) => return Err(format!("key \"schema\": expected an object, found {}", shown(&other))),
        };
        let metadata = match object.remove("metadata") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(items)) => items.into_iter().map(parse_metadata).collect::<Result<_, _>>()?,
            Some(other) => return Err(format!("key \"metadata\": expected a list, found {}", shown(&other))),
        };
        let mut entry = CatalogEntry {
            table_name: String::new(),
            stream: String::new(),
            metadata,
            tap_stream_id: String::new(),
            schema,
            on_entry: std::mem::take(object),
        };
        entry.name(tap_stream_id, stream, table_name)?;
        if entry.is_selected() {
            entry.check_selected()?;
        }
        Ok(entry)
    }

    /// Fills in the names, one from another where some are missing.
    fn name(&mut self, id: Option<String>, stream: Option<String>, table: Option<String>) -> Result<(), String> {
        let schema_name = self.table_text(&["schema-name"]).map(str::to_owned);
        let from_id = || {
            let rest = match &schema_name {
                Some(schema) => id.as_deref()?.strip_prefix(schema.as_str())?.strip_prefix('-')?,
                None => id.as_deref()?.split_once('-')?.1,
            };
            Some(rest.to_owned())
        };
        let table = table.or_else(from_id).or_else(|| stream.clone());
        let table = table.ok_or("key \"table_name\" is missing, and so are \"tap_stream_id\" and \"stream\"")?;
        self.tap_stream_id = match (id, &schema_name) {
            (Some(id), _) => id,
            (None, Some(schema)) => format!("{schema}-{table}"),
            (None, None) => return Err("key \"tap_stream_id\" is missing".to_owned()),
        };
        self.stream = stream.unwrap_or_else(|| table.clone());
        self.table_name = table;
        Ok(())
    }

    /// Checks what matters only for a selected stream.
    fn check_selected(&self) -> Result<(), String> {
        if let Some(name) = self.method_name() {
            name.parse::<ReplicationMethod>().map_err(|error| format!("key \"replication-method\": {error}"))?;
        }
        match self.schema_name() {
            Some(_) => Ok(()),
            None => Err("key \"schema-name\" is missing in the table's metadata".to_owned()),
        }
    }

    /// Returns the metadata of the table.
    pub(crate) fn table_metadata(&self) -> Option<&Map<String, Value>> {
        self.metadata.iter().find(|m| m.breadcrumb.is_empty()).map(|m| &m.metadata)
    }

    fn table_value(&self, key: &str) -> Option<&Value> {
        self.table_metadata()?.get(key).filter(|value| !value.is_null())
    }

    fn table_text(&self, keys: &[&str]) -> Option<&str> {
        keys.iter().find_map(|key| self.table_value(key)?.as_str()).filter(|text| !text.is_empty())
    }

    fn entry_text(&self, keys: &[&str]) -> Option<&str> {
        keys.iter().find_map(|key| self.on_entry.get(*key)?.as_str()).filter(|text| !text.is_empty())
    }

    /// Whether the stream is selected: by `selected` in the metadata, on the entry or in the schema, else by
    /// `selected-by-default`.
    pub(crate) fn is_selected(&self) -> bool {
        self.table_value("selected")
            .or_else(|| self.on_entry.get("selected").filter(|value| !value.is_null()))
            .or_else(|| self.schema.get("selected").filter(|value| !value.is_null()))
            .or_else(|| self.table_value("selected-by-default"))
            .is_some_and(is_true)
    }

    /// Returns what the catalog says of the columns.
    pub(crate) fn selection(&self) -> Selection<'_> {
        Selection::new(&self.metadata)
    }

    fn method_name(&self) -> Option<&str> {
        const KEYS: [&str; 2] = ["replication-method", "replication_method"];
        self.table_text(&KEYS)
            .or_else(|| self.entry_text(&KEYS))
            .or_else(|| self.table_text(&["forced-replication-method"]))
    }

    /// Returns the replication method, where the catalog names one.
    pub(crate) fn replication_method(&self) -> Option<ReplicationMethod> {
        self.method_name()?.parse().ok()
    }

    /// Returns the replication key, where the catalog names one.
    pub(crate) fn replication_key(&self) -> Option<&str> {
        const KEYS: [&str; 2] = ["replication-key", "replication_key"];
        self.table_text(&KEYS).or_else(|| self.entry_text(&KEYS))
    }

    /// Returns the table's schema; a selected stream of a catalog file always has one.
    pub(crate) fn schema_name(&self) -> Option<&str> {
        let from_id = || self.tap_stream_id.strip_suffix(self.table_name.as_str())?.strip_suffix('-');
        self.table_text(&["schema-name"]).or_else(from_id).filter(|name| !name.is_empty())
    }

    /// Returns the SQL type that a column had when the catalog was made.
    pub(crate) fn sql_datatype(&self, column: &str) -> Option<&str> {
        self.metadata.iter().find(|m| m.column() == Some(column))?.metadata.get("sql-datatype")?.as_str()
    }

    /// Returns the key columns that the entry names, in the metadata or on itself; none where it names none.
    pub(crate) fn key_properties(&self, is_view: bool) -> Vec<&str> {
        let mut keys = ["table-key-properties", "view-key-properties"];
        if is_view {
            keys.reverse();
        }
        let named = keys.iter().map(|key| self.table_value(key)).chain([self.on_entry.get("key_properties")]);
        let lists = named.filter_map(|named| named?.as_array());
        let mut lists = lists.filter_map(|list| list.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
        lists.find(|columns| !columns.is_empty()).unwrap_or_default()
    }

    /// Returns the columns in the catalog's schema, with the schema of each as the user may have edited it.
    pub(crate) fn properties(&self) -> Option<&Map<String, Value>> {
        self.schema.get("properties")?.as_object()
    }

    /// Returns the definitions that these may refer to.
    pub(crate) fn definitions(&self) -> Option<&Map<String, Value>> {
        self.schema.get("definitions")?.as_object()
    }
}

/// Takes a text out of an object; null and the empty text count as absent.
fn take_text(object: &mut Map<String, Value>, key: &str) -> Result<Option<String>, String> {
    match object.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text).filter(|text| !text.is_empty())),
        Some(other) => Err(format!("key {key:?}: expected a text, found {}", shown(&other))),
    }
}

fn parse_metadata(value: Value) -> Result<Metadata, String> {
    let wrong = || "key \"metadata\": expected items of the form {\"breadcrumb\": […], \"metadata\": {…}}".to_owned();
    let Value::Object(mut object) = value else { return Err(wrong()) };
    let (breadcrumb, metadata) = (object.remove("breadcrumb"), object.remove("metadata"));
    let breadcrumb = match breadcrumb {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(steps)) => {
            steps.iter().map(|step| step.as_str().map(str::to_owned)).collect::<Option<_>>().ok_or_else(wrong)?
        }
        Some(_) => return Err(wrong()),
    };
    match metadata {
        None | Some(Value::Null) => Ok(Metadata { breadcrumb, metadata: Map::new() }),
        Some(Value::Object(metadata)) => Ok(Metadata { breadcrumb, metadata }),
        Some(_) => Err(wrong()),
    }
}
