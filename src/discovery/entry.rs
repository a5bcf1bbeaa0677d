//! A table as a catalog entry.

use serde_json::{Map, Value, json};

use crate::catalog::{CatalogEntry, Metadata};
use crate::pg::table::Table;
use crate::types;

/// The entry of a table in the catalog that `--discover` prints.
pub fn catalog_entry(table: &Table, database: &str, options: &types::Options) -> CatalogEntry {
    let mut properties = Map::new();
    let mut definitions = types::base_definitions();
    let mut metadata = vec![Metadata::of_table(object(json!({
        "table-key-properties": table.primary_key(),
        "schema-name": table.schema,
        "database-name": database,
        "row-count": table.row_estimate,
        "is-view": table.kind.is_view(),
    })))];
    for column in &table.columns {
        let resolved = types::resolve(column, options);
        let inclusion = match (resolved.supported, column.primary_key) {
            (false, _) => "unsupported",
            (true, true) => "automatic",
            (true, false) => "available",
        };
        metadata.push(Metadata::of_column(
            &column.name,
            object(json!({
                "sql-datatype": resolved.sql_datatype,
                "inclusion": inclusion,
                "selected-by-default": resolved.supported,
            })),
        ));
        definitions.extend(resolved.definition);
        properties.insert(column.name.clone(), resolved.schema);
    }
    let schema = json!({"type": "object", "properties": properties, "definitions": definitions});
    CatalogEntry::new(&table.schema, &table.name, metadata, schema)
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}
