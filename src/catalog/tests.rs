use serde_json::{Value, json};

use super::*;
use crate::method::ReplicationMethod;

fn parse(value: &Value) -> Result<Catalog> {
    Catalog::parse("catalog.json", &value.to_string())
}

/// Reads an entry, selected or not.
fn entry(value: Value) -> CatalogEntry {
    let entry = CatalogEntry::parse(value.clone()).unwrap();
    let catalog = parse(&json!({"streams": [value]})).unwrap();
    assert_eq!(catalog.streams.len(), usize::from(entry.is_selected()));
    entry
}

/// Returns an entry with this metadata of the table.
fn with_table(metadata: Value) -> Value {
    json!({"tap_stream_id": "public-a", "metadata": [{"breadcrumb": [], "metadata": metadata}]})
}

/// Returns what is wrong with a selected stream.
fn error_of(mut stream: Value) -> String {
    if let Some(stream) = stream.as_object_mut() {
        stream.insert("selected".to_owned(), json!(true));
    }
    let error = parse(&json!({"streams": [stream]})).unwrap_err();
    assert_eq!(error.kind().exit_code(), 2);
    error.to_string()
}

#[test]
fn a_stream_is_selected_in_many_ways() {
    let selected = |value: Value| entry(value).is_selected();
    assert!(selected(with_table(json!({"selected": true}))));
    assert!(selected(with_table(json!({"selected": "true"}))));
    assert!(!selected(with_table(json!({"selected": false, "selected-by-default": true}))));
    assert!(selected(with_table(json!({"selected": null, "selected-by-default": true}))));
    assert!(!selected(with_table(json!({}))));
    assert!(selected(json!({"tap_stream_id": "public-a", "selected": true})));
    assert!(selected(json!({"tap_stream_id": "public-a", "schema": {"selected": "true"}})));
    assert!(!selected(json!({"tap_stream_id": "public-a", "selected": false, "schema": {"selected": true}})));

    let mut both = with_table(json!({"selected": false}));
    both["selected"] = json!(true);
    assert!(!selected(both), "metadata counts first");
}

#[test]
fn columns_are_selected_by_inclusion_selection_and_default() {
    let column = |metadata: Value| {
        let entry = entry(json!({
            "tap_stream_id": "public-a",
            "metadata": [{"breadcrumb": ["properties", "c"], "metadata": metadata}]
        }));
        entry.selection().column("c")
    };
    assert_eq!(column(json!({"inclusion": "automatic", "selected": false})), Some(true));
    assert_eq!(column(json!({"inclusion": "unsupported", "selected": true})), Some(false));
    assert_eq!(column(json!({"inclusion": "available", "selected": true, "selected-by-default": false})), Some(true));
    assert_eq!(
        column(json!({"inclusion": "available", "selected": "false", "selected-by-default": true})),
        Some(false)
    );
    assert_eq!(column(json!({"inclusion": "available", "selected-by-default": false})), Some(false));
    assert_eq!(column(json!({"selected-by-default": true})), Some(true));
    assert_eq!(column(json!({"sql-datatype": "integer"})), None);
    assert_eq!(entry(with_table(json!({}))).selection().column("c"), None);
}

#[test]
fn method_and_key_are_found_wherever_they_stand() {
    let of = |value: Value| {
        let entry = entry(value);
        (entry.replication_method(), entry.replication_key().map(str::to_owned))
    };
    let on_entry = |extra: Value, table: Value| {
        let mut value = with_table(table);
        value.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        value
    };
    let incremental = (Some(ReplicationMethod::Incremental), Some("id".to_owned()));
    assert_eq!(of(with_table(json!({"replication-method": "INCREMENTAL", "replication-key": "id"}))), incremental);
    assert_eq!(of(with_table(json!({"replication_method": "INCREMENTAL", "replication_key": "id"}))), incremental);
    assert_eq!(
        of(on_entry(json!({"replication_method": "INCREMENTAL", "replication_key": "id"}), json!({}))),
        incremental
    );
    assert_eq!(
        of(on_entry(json!({"replication-method": "INCREMENTAL", "replication-key": "id"}), json!({}))),
        incremental
    );
    assert_eq!(
        of(on_entry(
            json!({"replication_method": "FULL_TABLE", "replication_key": "x"}),
            json!({"replication-method": "INCREMENTAL", "replication-key": "id"})
        )),
        incremental
    );
    assert_eq!(
        of(on_entry(json!({"replication_method": "LOG_BASED"}), json!({"forced-replication-method": "FULL_TABLE"}))).0,
        Some(ReplicationMethod::LogBased)
    );
    assert_eq!(
        of(with_table(json!({"forced-replication-method": "FULL_TABLE"}))).0,
        Some(ReplicationMethod::FullTable)
    );
    assert_eq!(of(with_table(json!({"replication-method": null, "replication-key": ""}))), (None, None));
}

#[test]
fn missing_names_are_derived() {
    let names = |value: Value| {
        let entry = entry(value);
        (
            entry.tap_stream_id.clone(),
            entry.stream.clone(),
            entry.table_name.clone(),
            entry.schema_name().map(str::to_owned),
        )
    };
    let expected = |id: &str, stream: &str, table: &str, schema: &str| {
        (id.to_owned(), stream.to_owned(), table.to_owned(), Some(schema.to_owned()))
    };
    assert_eq!(
        names(json!({"table_name": "a", "metadata": [{"breadcrumb": [], "metadata": {"schema-name": "public"}}]})),
        expected("public-a", "a", "a", "public")
    );
    assert_eq!(
        names(json!({"tap_stream_id": "my-schema-a-b", "table_name": "a-b"})),
        expected("my-schema-a-b", "a-b", "a-b", "my-schema")
    );
    assert_eq!(names(json!({"tap_stream_id": "public-a-b"})), expected("public-a-b", "a-b", "a-b", "public"));
    // As the MeltanoLabs tap names them.
    assert_eq!(
        names(json!({
            "tap_stream_id": "my-schema-a", "stream": "my-schema-a",
            "metadata": [{"breadcrumb": [], "metadata": {"schema-name": "my-schema"}}]
        })),
        expected("my-schema-a", "my-schema-a", "a", "my-schema")
    );
}

#[test]
fn keys_of_tables_and_views() {
    let keys = |value: Value| [false, true].map(|is_view| entry(value.clone()).key_properties(is_view).join(","));
    assert_eq!(keys(with_table(json!({"table-key-properties": ["a", "b"]}))), ["a,b", "a,b"]);
    assert_eq!(keys(with_table(json!({"table-key-properties": [], "view-key-properties": ["v"]}))), ["v", "v"]);
    assert_eq!(keys(with_table(json!({"table-key-properties": ["t"], "view-key-properties": ["v"]}))), ["t", "v"]);
    assert_eq!(keys(json!({"tap_stream_id": "public-a", "key_properties": ["k"]})), ["k", "k"]);
    assert_eq!(keys(with_table(json!({"table-key-properties": null}))), ["", ""]);
}

#[test]
fn meltano_catalogs_are_read() {
    let entry = entry(json!({
        "tap_stream_id": "public-a", "table_name": "a", "stream": "a", "replication_method": "LOG_BASED",
        "replication_key": "_sdc_lsn", "key_properties": ["id"], "is_view": false, "database_name": "x", "row_count": 4,
        "selected": true,
        "schema": {"type": "object", "properties": {"id": {"type": "integer"}}},
        "metadata": [
            {"breadcrumb": ["properties", "id"], "metadata": {"inclusion": "automatic", "selected": "true"}},
            {"breadcrumb": [], "metadata": {"inclusion": "available", "selected": true, "schema-name": "public"}}
        ]
    }));
    assert!(entry.is_selected());
    assert_eq!(entry.replication_method(), Some(ReplicationMethod::LogBased));
    assert_eq!(entry.properties().unwrap()["id"], json!({"type": "integer"}));
}

#[test]
fn only_selected_streams_are_checked() {
    let unselected = with_table(json!({"replication-method": "X"}));
    assert_eq!(entry(unselected).replication_method(), None);
    let nameless = entry(json!({"tap_stream_id": "x", "table_name": "a"}));
    assert_eq!(nameless.schema_name(), None);
    let twice = with_table(json!({}));
    assert_eq!(parse(&json!({"streams": [twice, twice, {}, {"stream": 1}]})).unwrap().streams.len(), 0);
}

#[test]
fn wrong_catalogs_are_named() {
    let message = |value: Value| parse(&value).unwrap_err().to_string();
    assert_eq!(
        message(json!([])),
        r#"catalog.json: key "streams": expected a list of streams (make one with --discover)"#
    );
    assert_eq!(
        message(json!({"streams": {}})),
        r#"catalog.json: key "streams": expected a list of streams, found an object (make one with --discover)"#
    );
    assert_eq!(
        Catalog::parse("catalog.json", "{\"streams\": [}").unwrap_err().to_string(),
        "catalog.json is not valid JSON: expected value at line 1 column 14"
    );
    let selected = with_table(json!({"selected": true}));
    assert_eq!(
        message(json!({"streams": [selected, selected]})),
        r#"catalog.json: stream "public-a" is selected twice"#
    );

    let form = r#"key "metadata": expected items of the form {"breadcrumb": […], "metadata": {…}}"#;
    for (stream, expected) in [
        (json!(1), "number 1: expected an object, found 1".to_owned()),
        (json!({}), r#"number 1: key "table_name" is missing, and so are "tap_stream_id" and "stream""#.to_owned()),
        (json!({"table_name": "a"}), r#""a": key "tap_stream_id" is missing"#.to_owned()),
        (json!({"tap_stream_id": 1}), r#"number 1: key "tap_stream_id": expected a text, found 1"#.to_owned()),
        (json!({"tap_stream_id": "p-a", "schema": []}), r#""p-a": key "schema": expected an object, found a list"#.to_owned()),
        (json!({"tap_stream_id": "p-a", "metadata": {}}), r#""p-a": key "metadata": expected a list, found an object"#.to_owned()),
        (json!({"tap_stream_id": "p-a", "metadata": [1]}), format!(r#""p-a": {form}"#)),
        (json!({"tap_stream_id": "p-a", "metadata": [{"breadcrumb": [1]}]}), format!(r#""p-a": {form}"#)),
        (json!({"tap_stream_id": "p-a", "metadata": [{"breadcrumb": "x"}]}), format!(r#""p-a": {form}"#)),
        (json!({"tap_stream_id": "p-a", "metadata": [{"metadata": 1}]}), format!(r#""p-a": {form}"#)),
        (json!({"tap_stream_id": "x", "table_name": "a", "selected": true}), r#""x": key "schema-name" is missing in the table's metadata"#.to_owned()),
        (
            with_table(json!({"selected": true, "replication-method": "LOG"})),
            r#""public-a": key "replication-method": "LOG" is not a replication method (use FULL_TABLE, INCREMENTAL or LOG_BASED)"#.to_owned(),
        ),
    ] {
        assert_eq!(error_of(stream), format!("catalog.json: stream {expected}"));
    }
}

#[test]
fn the_text_of_a_selected_stream_may_be_of_any_form() {
    let selected = |stream: &str| {
        let text = format!(r#"{{"x": [1], "streams": [{{"tap_stream_id": "a-1", "selected": true}}, {stream}]}}"#);
        let whole = Catalog::parse_whole("catalog.json", &text).unwrap();
        let catalog = Catalog::parse("catalog.json", &text).unwrap();
        assert_eq!(format!("{catalog:?}"), format!("{whole:?}"));
        assert_eq!(catalog.streams[0].tap_stream_id, "a-1");
        catalog.streams.get(1).map(|entry| entry.tap_stream_id.clone())
    };
    let table = |metadata: &str| {
        selected(&format!(
            r#"{{"schema": {{}}, "metadata": [{{"metadata": {metadata}, "breadcrumb": [ ]}}], "tap_stream_id": "p-a"}}"#
        ))
    };
    let found = Some("p-a".to_owned());
    assert_eq!(table(r#"{"selected": true}"#), found);
    assert_eq!(table(r#"{"selected-by-default": true}"#), found);
    assert_eq!(table(r#"{"s\u0065lected": "true"}"#), found);
    assert_eq!(table(r#"{"selected": false, "selected": true}"#), found);
    assert_eq!(table(r#"{"selected": true, "selected": false}"#), None);
    assert_eq!(table(r#"{"row-count": 1}"#), None);
    assert_eq!(selected(r#"{"metadata": [{"metadata": {"selected": true}}], "tap_stream_id": "p-\u0061"}"#), found);
    assert_eq!(selected(r#"{"s\u0065lected": true, "tap_stream_id": "p-a", "metadata": null}"#), found);
    assert_eq!(selected(r#"{"tap_stream_id": "p-a", "schema": {"properties": {}, "\u0073elected": true}}"#), found);

    // On a column these keys say nothing of the stream.
    let column =
        r#"{"breadcrumb": ["properties", "selected"], "metadata": {"selected": true, "selected-by-default": true}}"#;
    let schema = r#"{"properties": {"selected": {"type": "boolean"}}}"#;
    assert_eq!(selected(&format!(r#"{{"tap_stream_id": "p-a", "metadata": [{column}], "schema": {schema}}}"#)), None);
    let table = r#"{"metadata": {"selected": true}, "breadcrumb": []}"#;
    assert_eq!(
        selected(&format!(r#"{{"tap_stream_id": "p-a", "metadata": [{column}, {table}], "schema": {schema}}}"#)),
        found
    );
    // The table's metadata counts first, and the first if there are several.
    let with = |metadata: &str, entry: &str| {
        selected(&format!(r#"{{"tap_stream_id": "p-a", "metadata": [{metadata}], "selected": {entry}}}"#))
    };
    let deselected = r#"{"metadata": {"selected": false}}"#;
    assert_eq!(with(deselected, "true"), None);
    assert_eq!(with(&format!("{deselected}, {table}"), "true"), None);
    assert_eq!(with(&format!("{table}, {deselected}"), "false"), found);
    assert_eq!(with(r#"{"metadata": {"selected": null}}"#, "true"), found);
    assert_eq!(with(r#"{"metadata": null}"#, "true"), found);
    // Of two values of a key the last counts.
    assert_eq!(selected(&format!(r#"{{"tap_stream_id": "p-a", "metadata": [{table}], "metadata": []}}"#)), None);
}

#[test]
fn a_deselected_stream_is_passed_over() {
    for table in [r#"{"selected": false, "selected-by-default": true}"#, r#"{"row-count": 1}"#] {
        let stream = format!(r#"{{"metadata": [{{"metadata": {table}}}], "schema": "not looked at"}}"#);
        let catalog = Catalog::parse("catalog.json", &format!(r#"{{"streams": [{stream}]}}"#)).unwrap();
        assert!(catalog.streams.is_empty(), "{table}");
    }
}

#[test]
fn what_is_not_json_is_refused_wherever_it_stands() {
    for wrong in
        [r#"{"a": 01}"#, r#"{"a": tru}"#, r#"{"a": "\x"}"#, r#"{"a": 1,}"#, r#"{"a" 1}"#, "{\"a\": \"\n\"}", "{}]"]
    {
        for stream in [
            wrong.to_owned(),
            format!(r#"{{"metadata": [{{"metadata": {wrong}}}]}}"#),
            format!(r#"{{"schema": {wrong}}}"#),
        ] {
            let text = format!("{{\"streams\": [\n{{}}, {stream}]}}");
            let error = Catalog::parse("catalog.json", &text).unwrap_err().to_string();
            assert!(error.starts_with("catalog.json is not valid JSON: "), "{error}");
            assert!(error.contains(" at line 2 column ") || error.contains(" at line 3 column "), "{error}");
        }
    }
}

#[test]
fn the_sample_is_a_catalog() {
    let catalog = Catalog::parse("catalog.sample.json", include_str!("../../catalog.sample.json")).unwrap();
    let [customers, orders] = catalog.streams.as_slice() else { panic!("two streams") };
    assert_eq!(customers.replication_method(), Some(ReplicationMethod::LogBased));
    let selection = customers.selection();
    assert_eq!(["id", "email", "name"].map(|name| selection.column(name)), [Some(true), Some(false), Some(true)]);
    assert_eq!(
        (orders.replication_method(), orders.replication_key()),
        (Some(ReplicationMethod::Incremental), Some("updated_at"))
    );
    assert_eq!(orders.schema_name(), Some("sales"));
}
