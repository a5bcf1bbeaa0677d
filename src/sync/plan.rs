//! What a stream needs while it is read, compiled once: its columns with their codecs, its schema, its key.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Map, Value, json};

use crate::catalog::{CatalogEntry, Patterns};
use crate::method::ReplicationMethod;
use crate::pg::binary::text::Binary;
use crate::pg::quote;
use crate::pg::table::{Column, Generated, Table, TableKind};
use crate::singer::{JsonBuf, messages};
use crate::sync::env::Env;
use crate::sync::form::{Form, RecordEnd, is_singers};
use crate::types::{self, Codec, ColumnType, Dialect, Limit};

/// The replication key of INCREMENTAL streams that need no column: the system column that says which transaction wrote a row.
pub(crate) const XMIN: &str = "xmin";

/// A stream as it is read in this run.
#[derive(Clone)]
pub(crate) struct StreamPlan {
    /// `tap_stream_id`
    pub id: String,
    /// The table as the server has it now.
    pub table: Table,
    /// How it is read.
    pub method: ReplicationMethod,
    /// Column of an INCREMENTAL stream's bookmark.
    pub replication_key: Option<String>,
    /// The key that the target knows rows by; empty for none.
    pub key_properties: Vec<String>,
    /// The selected columns, in the table's order.
    pub columns: Vec<PlanColumn>,
    /// The JSON schema of a record, without the columns of the stream phase.
    pub schema: Value,
    /// What its messages have besides.
    pub form: Form,
    /// Which of the table's rows are read, SQL of the user's; `None`: all of them.
    pub filter: Option<String>,
    types: types::Options,
    /// What is selected of streams without an entry.
    patterns: Arc<Patterns>,
    entry: Option<CatalogEntry>,
    left_out: Vec<String>,
    record_start: Vec<u8>,
}

/// A selected column.
#[derive(Clone)]
pub(crate) struct PlanColumn {
    /// Its name.
    pub name: String,
    /// The codec of its values.
    pub codec: Codec,
    /// Whether it is a generated column.
    pub generated: bool,
    limit: Limit,
    /// How its binary form becomes text; `None` where the server has to print it.
    pub binary: Option<Binary>,
    /// `"name":`, escaped.
    label: Vec<u8>,
    /// Whether it was reported, by this plan or a clone, that the column holds bytes that are not UTF-8.
    reported: Arc<AtomicBool>,
    /// Whether it was reported that values of the column were left out.
    reported_left_out: bool,
}

impl StreamPlan {
    /// Compiles the plan of a table, as far as the catalog's entry selects it.
    pub(crate) fn new(
        table: Table,
        entry: Option<CatalogEntry>,
        method: ReplicationMethod,
        replication_key: Option<String>,
        env: &Env,
    ) -> Self {
        let mut record_start = JsonBuf::new();
        let id = entry.as_ref().map_or_else(|| table.stream_id(), |e| e.tap_stream_id.clone());
        messages::begin_record(&mut record_start, &id);
        let mut plan = StreamPlan {
            filter: env.config.where_clauses(&id),
            id,
            table,
            method,
            replication_key,
            key_properties: Vec::new(),
            columns: Vec::new(),
            schema: Value::Null,
            form: Form::of(&env.config),
            types: env.types,
            patterns: Arc::clone(&env.patterns),
            entry,
            left_out: Vec::new(),
            record_start: record_start.replace(Vec::new()),
        };
        plan.compile();
        plan
    }

    /// Takes over the table as it was discovered anew.
    pub(crate) fn refresh(&mut self, table: Table) {
        self.table = table;
        self.compile();
    }

    /// Leaves columns out of the schema and of every record.
    pub(crate) fn leave_out(&mut self, columns: Vec<String>) {
        if columns != self.left_out {
            self.left_out = columns;
            self.compile();
        }
    }

    /// Returns the key that the catalog names where the table has none.
    pub(crate) fn named_key(&self) -> Vec<String> {
        let named = self.entry.as_ref().map(|entry| entry.key_properties(self.table.kind.is_view()));
        named.unwrap_or_default().into_iter().map(str::to_owned).collect()
    }

    fn compile(&mut self) {
        let options = &self.types;
        // The log needs a key that the server knows of.
        let keys = match self.table.primary_key() {
            keys if keys.is_empty() && self.method != ReplicationMethod::LogBased => self.named_key(),
            keys => keys,
        };
        let selection = self.entry.as_ref().map(CatalogEntry::selection);
        let mut properties = Map::new();
        let mut definitions = types::base_definitions(options.dialect);
        self.columns.clear();
        // A virtual column is in no log.
        let unlogged = |generated| self.method == ReplicationMethod::LogBased && generated == Generated::Virtual;
        let kept = |column: &&Column| {
            !unlogged(column.generated) && !self.left_out.contains(&column.name) && !is_singers(&column.name)
        };
        for column in self.table.columns.iter().filter(kept) {
            let resolved = types::resolve(column, options);
            let selected = keys.contains(&column.name)
                || match &selection {
                    Some(selection) => selection.column(&column.name).unwrap_or(resolved.supported),
                    None => self.patterns.selects_column(&self.id, &column.name),
                };
            if !resolved.supported {
                // As the reference does, which knows the column but not its type.
                properties.insert(column.name.clone(), resolved.schema);
                continue;
            }
            if !selected {
                continue;
            }
            let edited = self.entry.as_ref().and_then(|e| edited_schema(e, column, &resolved, options));
            definitions.extend(resolved.definition);
            if let Some(own) = edited.as_ref().and_then(|_| self.entry.as_ref()?.definitions()) {
                definitions.extend(own.clone());
            }
            properties.insert(column.name.clone(), edited.unwrap_or(resolved.schema));
            self.columns.push(PlanColumn::new(column, resolved.codec, resolved.limit));
        }
        drop(selection);
        self.form.add_to_rows(self.method, &mut properties);
        self.key_properties = keys;
        self.schema = json!({"type": "object", "properties": properties});
        if !definitions.is_empty() {
            self.schema["definitions"] = Value::Object(definitions);
        }
    }

    /// Returns the schema of the stream phase, which has columns of its own.
    pub(crate) fn stream_schema(&self) -> Value {
        let mut schema = self.schema.clone();
        if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
            self.form.add_to_changes(properties);
        }
        schema
    }

    /// Whether rows of the plan's columns are read in binary form: the server has to print none of them, and some are a work to print.
    pub(crate) fn is_read_in_binary(&self) -> bool {
        let mut forms = self.columns.iter().map(|column| column.binary);
        forms.clone().all(|form| form.is_some()) && forms.any(|form| form.is_some_and(Binary::pays))
    }

    /// Returns the end of the records of its table's rows.
    pub(crate) fn end_of_rows(&self, version: i64) -> RecordEnd {
        self.form.end_of_rows(self.method, version, !self.columns.is_empty())
    }

    /// Whether it is INCREMENTAL by [`XMIN`]. A view may have a column of this name, a table can't.
    pub(crate) fn is_by_xmin(&self) -> bool {
        let is_key = self.replication_key.as_deref() == Some(XMIN);
        self.method == ReplicationMethod::Incremental && is_key && self.table.column(XMIN).is_none()
    }

    /// Returns what to read the stream's rows from. The log brings a table's own rows, so that a LOG_BASED copy must
    /// not take those of tables that inherit from it; the other methods read what a SELECT reads.
    pub(crate) fn own_rows(&self) -> String {
        let only = if self.has_only_own_rows() { "ONLY " } else { "" };
        format!("{only}{}", quote::qualified(&self.table.schema, &self.table.name))
    }

    /// Whether rows of tables that inherit from it don't belong to the stream.
    pub(crate) fn has_only_own_rows(&self) -> bool {
        self.method == ReplicationMethod::LogBased && self.table.kind == TableKind::Table
    }

    /// Opens a RECORD message: everything before the first property.
    pub(crate) fn start_record(&self, out: &mut JsonBuf) {
        out.raw(&self.record_start);
    }

    /// Logs, once, that a value of a column's former type is not sent.
    pub(crate) fn warn_left_out(&mut self, column: usize) {
        let column = &mut self.columns[column];
        if !std::mem::replace(&mut column.reported_left_out, true) {
            tracing::warn!(
                "{}: values of \"{}\" from before it had its present type are left out where that can't hold them; remove \
                 the stream's bookmark to copy the table again",
                self.id,
                column.name
            );
        }
    }

    /// Returns the columns that would be read if Singer had no other use for their names.
    pub(crate) fn singers_columns(&self) -> Vec<&str> {
        let columns = self.table.columns.iter().map(|column| column.name.as_str());
        columns.filter(|name| is_singers(name) && !self.deselects(name)).collect()
    }

    /// Whether the catalog, or a pattern, leaves this column out.
    pub(crate) fn deselects(&self, column: &str) -> bool {
        match &self.entry {
            Some(entry) => entry.selection().column(column) == Some(false),
            None => !self.patterns.selects_column(&self.id, column),
        }
    }

    /// Returns the index of a column among the selected ones.
    pub(crate) fn position(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.name == name)
    }
}

/// Returns the oids of these streams' tables.
pub(crate) fn oids(plans: &[StreamPlan]) -> Vec<u32> {
    plans.iter().map(|plan| plan.table.oid).collect()
}

impl PlanColumn {
    fn new(column: &Column, codec: Codec, limit: Limit) -> Self {
        let mut label = JsonBuf::new();
        label.string(column.name.as_bytes());
        label.byte(b':');
        PlanColumn {
            name: column.name.clone(),
            codec,
            generated: column.generated != Generated::No,
            limit,
            binary: Binary::of(&column.ty),
            label: label.replace(Vec::new()),
            reported: Arc::default(),
            reported_left_out: false,
        }
    }

    /// Appends `"name":value` if the column's type can hold the value. False if it can't: the value is from before the
    /// column had that type. `of_type`: according to the log the value is of this type, perhaps of a wider one of its
    /// kind.
    #[inline]
    pub(crate) fn encode_held(&mut self, text: Option<&[u8]>, of_type: bool, out: &mut JsonBuf) -> bool {
        let start = out.len();
        let held = text.is_none_or(|text| self.limit.holds(text)) && (self.encode(text, out) || of_type);
        if !held {
            out.truncate(start);
        }
        held
    }

    /// Appends `"name":value`. False if the text is not of the column's type: it is then written as a string.
    #[inline]
    pub(crate) fn encode(&mut self, text: Option<&[u8]>, out: &mut JsonBuf) -> bool {
        out.raw(&self.label);
        match text {
            None => {
                out.raw(b"null");
                true
            }
            Some(text) => {
                let written = self.codec.encode(text, out);
                if out.take_replaced() && !self.reported.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        "column \"{}\" holds bytes that are not UTF-8; they are replaced by U+FFFD",
                        self.name
                    );
                }
                written
            }
        }
    }
}

/// Returns the schema of a column as the user wrote it into the catalog; `None` where it is only what some version of a
/// tap discovered, with whatever settings, or where the column's type has changed since.
fn edited_schema(
    entry: &CatalogEntry,
    column: &Column,
    resolved: &ColumnType,
    options: &types::Options,
) -> Option<Value> {
    let edited = entry.properties()?.get(&column.name)?;
    if edited.as_object().is_none_or(Map::is_empty)
        || entry.sql_datatype(&column.name).is_some_and(|known| known != resolved.sql_datatype)
    {
        return None;
    }
    let is_discovered = |schema: &Value| essence(edited) == essence(schema);
    let with_settings = |dialect, singer_decimal| {
        types::resolve(column, &types::Options { dialect, singer_decimal, ..*options }).schema
    };
    let is_of_other_settings = || {
        let mut dialects = Dialect::ALL.into_iter();
        dialects.any(|dialect| [false, true].iter().any(|decimal| is_discovered(&with_settings(dialect, *decimal))))
    };
    (!is_discovered(&resolved.schema) && !is_of_other_settings()).then(|| edited.clone())
}

/// Returns a schema without what differs between dialects, or follows from a length or a key that may have changed.
fn essence(schema: &Value) -> Value {
    const BOUNDS: [&str; 6] = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "maxLength"];
    let Some(schema) = schema.as_object() else { return schema.clone() };
    let mut essence: Map<String, Value> = schema
        .iter()
        .filter(|(key, _)| !BOUNDS.contains(&key.as_str()) && *key != "items" && *key != "additionalProperties")
        .filter(|(key, value)| *key != "properties" || value.as_object().is_none_or(|known| !known.is_empty()))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    if let Some(Value::Array(types)) = essence.get_mut("type") {
        types.retain(|t| t != "null");
        // JSON, which some taps say has no scalars.
        if ["object", "array"].iter().all(|json| types.iter().any(|t| t == json)) {
            types.retain(|t| t == "object" || t == "array");
        }
    }
    // Meltano marks what is selected inside the schema.
    essence.remove("selected");
    essence.remove("inclusion");
    Value::Object(essence)
}
