//! Tables as the catalog that `--discover` prints, in the reference's order of keys.

use std::collections::{HashMap, HashSet};
use std::io::{self, Write};

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::catalog::Patterns;
use crate::pg::table::{Column, Table};
use crate::types::{self, ColumnType};

/// Writes the catalog of these tables, in which what the patterns select is selected, if there are any. Each entry is made while it is written, of types described once: as values the
/// entries of thousands of tables would be hundreds of megabytes.
pub(crate) fn write_catalog(
    tables: &[Table],
    database: &str,
    options: &types::Options,
    patterns: &Patterns,
    mut out: impl Write,
) -> io::Result<()> {
    let mut types = HashMap::new();
    for column in tables.iter().flat_map(|table| &table.columns) {
        types.entry(type_of(column)).or_insert_with(|| types::resolve(column, options));
    }
    let selected = tables.iter().filter(|table| patterns.selects(&table.stream_id())).map(|table| table.oid).collect();
    let selection = (!patterns.is_empty()).then_some(Selection { patterns, selected });
    let definitions = types::base_definitions(options.dialect);
    let catalog = Catalog { tables, database, types, definitions, selection };
    serde_json::to_writer_pretty(&mut out, &catalog)?;
    out.write_all(b"\n")
}

struct Catalog<'a> {
    tables: &'a [Table],
    database: &'a str,
    types: HashMap<TypeKey, ColumnType>,
    definitions: Map<String, Value>,
    selection: Option<Selection<'a>>,
}

/// What is selected.
struct Selection<'a> {
    patterns: &'a Patterns,
    /// The oids of the tables that the patterns select.
    selected: HashSet<u32>,
}

impl Selection<'_> {
    /// Whether a table is selected; a partition is read through its root.
    fn table(&self, table: &Table) -> bool {
        self.selected.contains(&table.oid) && !table.ancestors.iter().any(|root| self.selected.contains(root))
    }
}

/// The inputs of [`types::resolve`]: the type's oid and modifier, and whether the column is of the key.
type TypeKey = (u32, i32, bool);

fn type_of(column: &Column) -> TypeKey {
    (column.ty.oid, column.typmod, column.primary_key)
}

impl Serialize for Catalog<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let streams = Sequence(|| self.tables.iter().map(|table| self.entry(table)));
        serializer.collect_map([("streams", streams)])
    }
}

impl Catalog<'_> {
    fn entry<'a>(&'a self, table: &'a Table) -> impl Serialize {
        let columns = || table.columns.iter().map(|column| (column, &self.types[&type_of(column)]));
        let metadata = move || {
            let stream = table.stream_id();
            let of_columns = columns().map(move |(column, ty)| Metadata {
                breadcrumb: Breadcrumb::Column("properties", &column.name),
                metadata: Known::Column {
                    sql_datatype: &ty.sql_datatype,
                    inclusion: match (ty.supported, column.primary_key) {
                        (false, _) => "unsupported",
                        (true, true) => "automatic",
                        (true, false) => "available",
                    },
                    selected_by_default: ty.supported,
                    selected: self.selection.as_ref().filter(|_| ty.supported).map(|selection| {
                        column.primary_key || selection.patterns.selects_column(&stream, &column.name)
                    }),
                },
            });
            std::iter::once(self.of_table(table)).chain(of_columns)
        };
        let mut definitions: Vec<_> = self.definitions.iter().collect();
        for (name, definition) in columns().filter_map(|(_, ty)| ty.definition.as_ref()) {
            if !definitions.iter().any(|(known, _)| *known == name) {
                definitions.push((name, definition));
            }
        }
        Entry {
            table_name: &table.name,
            stream: &table.name,
            metadata: Sequence(metadata),
            tap_stream_id: table.stream_id(),
            schema: Schema {
                kind: "object",
                properties: Pairs(move || columns().map(|(column, ty)| (&column.name, &ty.schema))),
                definitions: (!definitions.is_empty()).then_some(Pairs(move || definitions.clone().into_iter())),
            },
        }
    }

    fn of_table<'a>(&'a self, table: &'a Table) -> Metadata<'a> {
        Metadata {
            breadcrumb: Breadcrumb::Table([]),
            metadata: Known::Table {
                table_key_properties: table.primary_key(),
                schema_name: &table.schema,
                database_name: self.database,
                row_count: table.row_estimate,
                is_view: table.kind.is_view(),
                selected: self.selection.as_ref().map(|selection| selection.table(table)),
            },
        }
    }
}

#[derive(Serialize)]
struct Entry<'a, M, P, D> {
    table_name: &'a str,
    stream: &'a str,
    metadata: M,
    tap_stream_id: String,
    schema: Schema<P, D>,
}

#[derive(Serialize)]
struct Schema<P, D> {
    #[serde(rename = "type")]
    kind: &'static str,
    properties: P,
    #[serde(skip_serializing_if = "Option::is_none")]
    definitions: Option<D>,
}

#[derive(Serialize)]
struct Metadata<'a> {
    breadcrumb: Breadcrumb<'a>,
    metadata: Known<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Breadcrumb<'a> {
    Table([&'a str; 0]),
    Column(&'static str, &'a str),
}

#[derive(Serialize)]
#[serde(untagged, rename_all_fields = "kebab-case")]
enum Known<'a> {
    Table {
        table_key_properties: Vec<String>,
        schema_name: &'a str,
        database_name: &'a str,
        row_count: i64,
        is_view: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        selected: Option<bool>,
    },
    Column {
        sql_datatype: &'a str,
        inclusion: &'static str,
        selected_by_default: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        selected: Option<bool>,
    },
}

/// A list whose items are made while they are written.
struct Sequence<F>(F);

impl<I: Iterator<Item: Serialize>, F: Fn() -> I> Serialize for Sequence<F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((self.0)())
    }
}

/// An object whose members are made while they are written.
struct Pairs<F>(F);

impl<K: Serialize, V: Serialize, I: Iterator<Item = (K, V)>, F: Fn() -> I> Serialize for Pairs<F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map((self.0)())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::pg::table::{Generated, PgType, ReplicaIdentity, TableKind, TypeKind};
    use crate::types::Dialect;

    fn column(name: &str, oid: u32, type_name: &str, primary_key: bool) -> Column {
        let (name, data_type) = (name.to_owned(), type_name.into());
        let [schema, type_name] = ["pg_catalog", type_name].map(str::to_owned);
        let ty = PgType { oid, name: type_name, schema, kind: TypeKind::Base, order: None };
        let generated = Generated::No;
        Column { name, attnum: 1, ty: Arc::new(ty), typmod: -1, data_type, primary_key, generated }
    }

    fn table(name: &str, columns: Vec<Column>) -> Table {
        Table {
            oid: 1,
            schema: "public".to_owned(),
            name: name.to_owned(),
            kind: TableKind::Table,
            row_estimate: -1,
            columns,
            replica_identity: ReplicaIdentity::None,
            ancestors: Vec::new(),
            unlogged_leaves: Vec::new(),
            logged: true,
            row_security: false,
        }
    }

    fn written(tables: &[Table]) -> String {
        let options = types::Options {
            extended_types: false,
            dialect: Dialect::Reference,
            dates_as_string: false,
            json_as_object: false,
            singer_decimal: false,
        };
        let mut out = Vec::new();
        write_catalog(tables, "db", &options, &Patterns::default(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn discovery_prints_what_the_reference_prints() {
        let text = written(&[table("tüb", vec![column("id", 16, "bool", true), column("b", 17, "bytea", false)])]);
        let (start, definitions) = text.split_once("\"definitions\": {\n").unwrap();
        let expected = r#"{
  "streams": [
    {
      "table_name": "tüb",
      "stream": "tüb",
      "metadata": [
        {
          "breadcrumb": [],
          "metadata": {
            "table-key-properties": [
              "id"
            ],
            "schema-name": "public",
            "database-name": "db",
            "row-count": -1,
            "is-view": false
          }
        },
        {
          "breadcrumb": [
            "properties",
            "id"
          ],
          "metadata": {
            "sql-datatype": "bool",
            "inclusion": "automatic",
            "selected-by-default": true
          }
        },
        {
          "breadcrumb": [
            "properties",
            "b"
          ],
          "metadata": {
            "sql-datatype": "bytea",
            "inclusion": "unsupported",
            "selected-by-default": false
          }
        }
      ],
      "tap_stream_id": "public-tüb",
      "schema": {
        "type": "object",
        "properties": {
          "id": {
            "type": [
              "boolean"
            ]
          },
          "b": {}
        },
        "#;
        assert_eq!(start, expected);
        let first = r##"          "sdc_recursive_integer_array": {
            "type": [
              "null",
              "integer",
              "array"
            ],
            "items": {
              "$ref": "#/definitions/sdc_recursive_integer_array"
            }
          },
"##;
        assert!(definitions.starts_with(first), "{definitions}");
        assert!(definitions.ends_with("          }\n        }\n      }\n    }\n  ]\n}\n"), "{definitions}");
    }

    #[test]
    fn a_type_has_a_schema_for_keys_and_one_for_other_columns() {
        let tables =
            ["a", "b"].map(|name| table(name, vec![column("k", 16, "bool", true), column("v", 16, "bool", false)]));
        let catalog: Value = serde_json::from_str(&written(&tables)).unwrap();
        for stream in catalog["streams"].as_array().unwrap() {
            let properties = serde_json::json!({"k": {"type": ["boolean"]}, "v": {"type": ["null", "boolean"]}});
            assert_eq!(stream["schema"]["properties"], properties);
        }
    }
}
