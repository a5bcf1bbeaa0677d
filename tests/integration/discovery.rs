//! The catalog that `--discover` prints: which relations, which columns, which keys.

use serde_json::{Value, json};

use crate::harness::{Catalog, Cluster, Role, Tap, TestDb, needs};

/// The names of a stream's properties, in order.
fn columns<'a>(catalog: &'a Catalog, stream: &str) -> Vec<&'a str> {
    let properties = catalog.stream(stream)["schema"]["properties"].as_object().expect("properties");
    properties.keys().map(String::as_str).collect()
}

fn property<'a>(catalog: &'a Catalog, stream: &str, column: &str) -> &'a Value {
    &catalog.stream(stream)["schema"]["properties"][column]
}

fn keys(catalog: &Catalog, stream: &str) -> Value {
    catalog.metadata(stream, None)["table-key-properties"].clone()
}

#[test]
fn odd_identifiers() {
    let db = TestDb::new("discovery_names");
    let (schema, table) = (r#"Sch-ema "1" 'x'"#, r#"t.\a-b {"#);
    let long = "é".repeat(31);
    let names = ["id", "Ünï", "a b", r#"q"q"#, "it's", r"back\slash", "tab\there", "", "properties", "%s", "{}", &long];
    let names: Vec<&str> = names.into_iter().filter(|name| !name.is_empty()).collect();
    let quote = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let definitions: Vec<String> = names.iter().map(|name| format!("{} integer", quote(name))).collect();
    let relation = format!("{}.{}", quote(schema), quote(table));
    let values: Vec<String> = (1..=names.len()).map(|n| n.to_string()).collect();
    db.psql(&format!(
        "create schema {};
         create table {relation} ({}, primary key (id, {}));
         insert into {relation} values ({});",
        quote(schema),
        definitions.join(", "),
        quote(r#"q"q"#),
        values.join(", ")
    ));
    db.replicate("pgoutput");

    let id = format!("{schema}-{table}");
    let catalog = Tap::new(&db).discover();
    assert_eq!(catalog.ids(), [&id]);
    assert_eq!(columns(&catalog, &id), names);
    assert_eq!(keys(&catalog, &id), json!(["id", r#"q"q"#]));
    let metadata = catalog.metadata(&id, None);
    assert_eq!((&metadata["schema-name"], &metadata["database-name"]), (&json!(schema), &json!(db.name())));
    assert_eq!((&catalog.stream(&id)["table_name"], &catalog.stream(&id)["stream"]), (&json!(table), &json!(table)));

    let expected: Vec<(&str, i64)> = names.iter().copied().zip(1..).collect();
    for method in ["FULL_TABLE", "LOG_BASED"] {
        let tap = || Tap::new(&db).catalog(&catalog.clone().select(&id, method));
        let output = tap().run();
        let record: Vec<(&str, i64)> = output.records(&id)[0]
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_i64().expect("a number")))
            .collect();
        assert_eq!(record, expected, "{method}");
        db.psql(&format!("update {relation} set {} = 99", quote(&long)));
        let changed = tap().state(output.last_state()).run();
        assert_eq!(changed.records(&id)[0][&long], 99, "{method}");
        db.psql(&format!("update {relation} set {} = {}", quote(&long), names.len()));
    }
}

#[test]
fn only_what_the_role_can_read() {
    let db = TestDb::new("discovery_privileges");
    let role = Role::new(&db, "replication");
    db.psql(&format!(
        "create table readable (id integer primary key, a text);
         create table some_columns (id integer primary key, open text, secret text);
         create table without_key (id integer primary key, open text);
         create table half_a_key (a integer, b integer, primary key (a, b));
         create table unreadable (id integer primary key);
         create table writable (id integer primary key);
         create materialized view hidden as select 1 as one;
         create materialized view shown as select 1 as one;
         create schema closed; create table closed.granted (id integer primary key);
         create schema open; create table open.granted (id integer primary key);
         insert into some_columns values (1, 'open', 'secret'); insert into without_key values (1, 'open');
         grant usage on schema open to {0};
         grant select on readable, closed.granted, open.granted, shown to {0};
         grant select (id, open) on some_columns to {0}; grant select (open) on without_key to {0};
         grant select (a) on half_a_key to {0};
         grant insert, update, delete on writable to {0};",
        role.name
    ));
    let tap = || Tap::new(&db).config("user", role.name.as_str());
    let catalog = tap().discover();
    // Not the one in a schema that the role may not enter: a run without a catalog would fail on it.
    let ids = ["half_a_key", "readable", "shown", "some_columns", "without_key"].map(|name| format!("public-{name}"));
    let ids: Vec<&str> = ["open-granted"].into_iter().chain(ids.iter().map(String::as_str)).collect();
    assert_eq!(catalog.ids(), ids);
    assert_eq!(columns(&catalog, "public-some_columns"), ["id", "open"]);
    assert_eq!(keys(&catalog, "public-some_columns"), json!(["id"]));
    assert_eq!(keys(&catalog, "public-without_key"), json!([]));
    assert_eq!(keys(&catalog, "public-half_a_key"), json!([]), "half a key identifies nothing");

    let output = tap().run();
    assert_eq!(Value::from(output.records("public-some_columns")[0].clone()), json!({"id": 1, "open": "open"}));
    assert_eq!(Value::from(output.records("public-without_key")[0].clone()), json!({"open": "open"}));
}

#[test]
fn every_kind_of_relation() {
    if !needs(11, "a partitioned table's key") {
        return;
    }
    let db = TestDb::new("discovery_kinds");
    db.psql(
        "create table plain (id integer primary key); create unlogged table unlogged (id integer primary key);
         create view a_view as select * from plain; create materialized view mat as select * from plain;
         create table part (id integer, k integer, primary key (id, k)) partition by list (k);
         create table part_1 partition of part for values in (1);
         create table part_2 partition of part for values in (2) partition by list (id);
         create table part_2_1 partition of part_2 for values in (1);
         create table parent (id integer primary key); create table child (more text) inherits (parent);
         create foreign data wrapper nothing; create server nowhere foreign data wrapper nothing;
         create foreign table foreign_table (id integer) server nowhere;
         create sequence a_sequence; create type composite as (a integer); create index an_index on plain (id);
         create temporary table a_temporary (id integer);
         insert into plain values (1), (2); insert into part values (1, 1), (1, 2);
         insert into parent values (1); insert into child values (2, 'more');
         analyze;",
    );
    let catalog = Tap::new(&db).discover();
    let names = ["a_view", "child", "mat", "parent", "part", "part_1", "part_2", "part_2_1", "plain", "unlogged"];
    assert_eq!(catalog.ids(), names.map(|name| format!("public-{name}")));
    for name in names {
        let metadata = catalog.metadata(&format!("public-{name}"), None);
        assert_eq!(metadata["is-view"], json!(name == "a_view" || name == "mat"), "{name}");
    }
    assert_eq!(catalog.metadata("public-plain", None)["row-count"], 2);
    assert_eq!(catalog.metadata("public-part", None)["row-count"], 2);
    assert_eq!(columns(&catalog, "public-child"), ["id", "more"]);
    assert_eq!(keys(&catalog, "public-part"), json!(["id", "k"]));

    // Without a catalog the partitions' rows come once, through their root.
    let output = Tap::new(&db).config("default_replication_method", "FULL_TABLE").run();
    assert_eq!(output.records("public-part").len(), 2);
    for leaf in ["public-part_1", "public-part_2", "public-part_2_1"] {
        assert!(output.schemas(leaf).is_empty(), "{leaf}");
    }
    let leaf = Tap::new(&db).catalog(&catalog.select("public-part_2_1", "FULL_TABLE")).run();
    assert_eq!(leaf.records("public-part_2_1").len(), 1, "but a leaf can be chosen");
}

#[test]
fn keys_of_every_kind() {
    if !needs(11, "INCLUDE columns of a key") {
        return;
    }
    let db = TestDb::new("discovery_keys");
    db.psql(
        "create domain code as text;
         create table including (a integer, b integer, c integer, primary key (b) include (c));
         create table on_domain (id code primary key);
         create table is_deferrable (id integer primary key deferrable initially deferred);
         create table two (b integer, x integer, a integer, primary key (a, b));
         create table no_key (id integer unique not null);
         create table on_array (id integer[] primary key);",
    );
    let catalog = Tap::new(&db).discover();
    for (table, key, other) in [
        ("including", json!(["b"]), Some("c")),
        ("on_domain", json!(["id"]), None),
        ("is_deferrable", json!(["id"]), None),
        ("two", json!(["b", "a"]), Some("x")),
        ("no_key", json!([]), Some("id")),
        ("on_array", json!(["id"]), None),
    ] {
        let stream = format!("public-{table}");
        let found = keys(&catalog, &stream);
        let sorted = |value: &Value| -> Vec<String> {
            let mut names: Vec<String> = value.as_array().expect("a list").iter().map(Value::to_string).collect();
            names.sort();
            names
        };
        assert_eq!(sorted(&found), sorted(&key), "{table}");
        for column in found.as_array().expect("a list") {
            let column = column.as_str().expect("a name");
            assert_eq!(catalog.metadata(&stream, Some(column))["inclusion"], "automatic", "{table}.{column}");
        }
        if let Some(other) = other {
            assert_eq!(catalog.metadata(&stream, Some(other))["inclusion"], "available", "{table}.{other}");
        }
    }
    assert_eq!(property(&catalog, "public-on_domain", "id")["type"], json!(["string"]));
}

#[test]
fn types_and_columns() {
    if !needs(12, "generated columns") {
        return;
    }
    let db = TestDb::new("discovery_types");
    db.psql(
        "create schema other; create type other.mood as enum ('sad', 'ok'); create type pair as (a integer, b text);
         create domain positive as integer check (value > 0); create domain amount as numeric(10, 2);
         create domain tags as text[];
         create table t (
           id integer generated always as identity primary key, gone text, moods other.mood[], positives positive[],
           pairs pair[], one positive, one_amount amount, some_tags tags, twice integer generated always as (id * 2) stored,
           pair pair, bits bit(8), name varchar(20), fixed char(3), span interval, raw bytea);
         alter table t drop column gone; alter table t add column late boolean default true;",
    );
    let catalog = Tap::new(&db).discover();
    let stream = "public-t";
    let names = [
        "id",
        "moods",
        "positives",
        "pairs",
        "one",
        "one_amount",
        "some_tags",
        "twice",
        "pair",
        "bits",
        "name",
        "fixed",
        "span",
        "raw",
        "late",
    ];
    assert_eq!(columns(&catalog, stream), names);
    for (column, sql, schema) in [
        ("id", "integer", json!({"type": ["integer"], "minimum": -2147483648, "maximum": 2147483647})),
        ("moods", "other.mood[]", json!({"type": ["array", "null"], "items": {"type": ["string", "array", "null"]}})),
        (
            "positives",
            "positive[]",
            json!({"type": ["array", "null"], "items": {"type": ["integer", "array", "null"]}}),
        ),
        ("pairs", "pair[]", json!({"type": ["array", "null"], "items": {"type": ["string", "array", "null"]}})),
        ("one", "positive", json!({"type": ["integer", "null"], "minimum": -2147483648, "maximum": 2147483647})),
        ("one_amount", "amount", json!({"type": ["number", "null"], "minimum": -100000000, "maximum": 100000000})),
        ("some_tags", "tags", json!({"type": ["array", "null"], "items": {"type": ["string", "array", "null"]}})),
        ("twice", "integer", json!({"type": ["integer", "null"], "minimum": -2147483648, "maximum": 2147483647})),
        ("pair", "pair", json!({"type": ["string", "null"]})),
        ("bits", "bit(8)", json!({"type": ["string", "null"]})),
        ("name", "character varying", json!({"type": ["string", "null"], "maxLength": 20})),
        ("fixed", "character", json!({"type": ["string", "null"], "maxLength": 3})),
        ("late", "boolean", json!({"type": ["boolean", "null"]})),
    ] {
        assert_eq!(property(&catalog, stream, column), &schema, "{column}");
        let metadata = catalog.metadata(stream, Some(column));
        assert_eq!(metadata["sql-datatype"], sql, "{column}");
        assert_eq!(metadata["selected-by-default"], true, "{column}");
        assert_eq!(metadata["inclusion"], if column == "id" { "automatic" } else { "available" }, "{column}");
    }

    let without = Tap::new(&db).config("extended_types", false).discover();
    for column in ["pair", "bits", "span", "raw", "one"] {
        assert_eq!(property(&without, stream, column), &json!({}), "{column}");
        let metadata = without.metadata(stream, Some(column));
        assert_eq!((&metadata["inclusion"], &metadata["selected-by-default"]), (&json!("unsupported"), &json!(false)));
    }
}

#[test]
fn filter_schemas() {
    let db = TestDb::new("discovery_schemas");
    db.psql(
        "create schema a; create table a.t (); create table a.u (id integer); create schema \"B,b\";
             create table \"B,b\".t (id integer); create schema c; create table c.t (id integer);
             create table public.t (id integer)",
    );
    let ids = |filter: Value| {
        let catalog = Tap::new(&db).config("filter_schemas", filter).discover();
        catalog.ids().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(ids(json!("a")), ["a-u"]);
    assert_eq!(ids(json!("c,a")), ["a-u", "c-t"]);
    assert_eq!(ids(json!("c, a")), ["a-u", "c-t"]);
    assert_eq!(ids(json!(["c", "B,b"])), ["B,b-t", "c-t"]);
    for all in [json!(""), json!([]), Value::Null] {
        assert_eq!(ids(all), ["B,b-t", "a-u", "c-t", "public-t"]);
    }
    // It holds for a run without a catalog too.
    let output = Tap::new(&db).config("filter_schemas", "c").run();
    assert_eq!(output.last_state()["bookmarks"].as_object().expect("bookmarks").len(), 1);

    let nothing = Tap::new(&db).config("filter_schemas", "nothing").arg("--discover").output().expect_code(1);
    assert!(nothing.stdout.is_empty() && nothing.stderr.contains("filter_schemas"), "{}", nothing.stderr);
}

#[test]
fn an_empty_database_is_an_error() {
    let db = TestDb::new("discovery_empty");
    let output = Tap::new(&db).arg("--discover").output().expect_code(1);
    assert_eq!((output.stdout.as_str(), output.logged(db.name())), ("", 1), "{}", output.stderr);
}

#[test]
fn the_number_of_queries_does_not_grow_with_the_tables() {
    let cluster = Cluster::start("log_statement = all\nlog_line_prefix = '%a '");
    let db = TestDb::on(&cluster, "discovery_500");
    let queries = || cluster.log().lines().filter(|line| line.starts_with("tap-postgres-rs ")).count();
    let make = |from: u32, to: u32| {
        db.psql(&format!(
            "do $$ begin for n in {from}..{to} loop
                execute format('create type mood_%s as enum (''a''); create table t_%s (id integer primary key,
                    mood mood_%s, moods mood_%s[], price numeric(%s, 2))', n, n, n, n, n % 50 + 3);
             end loop; end $$"
        ));
    };
    make(1, 5);
    let count = |tables: usize| {
        let before = queries();
        assert_eq!(Tap::new(&db).discover().streams().len(), tables);
        queries() - before
    };
    let few = count(5);
    make(6, 500);
    assert_eq!(count(500), few);
    assert!((1..=10).contains(&few), "{few} queries:\n{}", cluster.log());
}
