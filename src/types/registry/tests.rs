//! The reference's catalog, column by column, and what differs from it by intention.

use std::sync::Arc;

use super::*;
use crate::pg::table::Generated;
use crate::types::base_definitions;
use crate::types::codec::tests::array_of as codec_array_of;

const REFERENCE: Options = Options {
    extended_types: false,
    dialect: Dialect::Reference,
    dates_as_string: false,
    json_as_object: false,
    singer_decimal: false,
};
const PORTABLE: Options = Options {
    extended_types: true,
    dialect: Dialect::Portable,
    dates_as_string: false,
    json_as_object: false,
    singer_decimal: false,
};

/// As the MeltanoLabs tap has it.
const MELTANOLABS: Options = Options { dialect: Dialect::MeltanoLabs, ..PORTABLE };

fn ty(name: &str, kind: TypeKind) -> Arc<PgType> {
    let schema = match (&kind, name) {
        (TypeKind::Base, "citext" | "hstore" | "ltree") | (TypeKind::Enum | TypeKind::Composite, _) => "public",
        (TypeKind::Domain { .. }, _) => "public",
        _ => "pg_catalog",
    };
    Arc::new(PgType { oid: 0, name: name.to_owned(), schema: schema.to_owned(), kind, order: None })
}

fn base(name: &str) -> Arc<PgType> {
    ty(name, TypeKind::Base)
}

fn array(element: Arc<PgType>) -> Arc<PgType> {
    ty(&format!("_{}", element.name), TypeKind::Array { element, delimiter: b',' })
}

fn domain(base: Arc<PgType>, typmod: i32) -> Arc<PgType> {
    ty("a_domain", TypeKind::Domain { base, typmod })
}

/// Returns the typmod of `numeric(precision, scale)`.
fn numeric(precision: i32, scale: i32) -> i32 {
    (precision << 16 | scale & 0x7ff) + 4
}

fn column(ty: Arc<PgType>, typmod: i32, data_type: &str) -> Column {
    Column {
        name: "c".to_owned(),
        attnum: 1,
        ty,
        typmod,
        data_type: data_type.into(),
        primary_key: false,
        generated: Generated::No,
    }
}

fn resolved(ty: Arc<PgType>, typmod: i32, options: &Options) -> ColumnType {
    resolve(&column(ty, typmod, "t"), options)
}

/// Parses text that the reference printed; numbers are compared by spelling, which is exact.
fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

const STRING: &str = r#"{"type": ["null", "string"]}"#;
const INTEGER: &str = r#"{"type": ["null", "integer"], "minimum": -2147483648, "maximum": 2147483647}"#;
const INSTANT: &str = r#"{"type": ["null", "string"], "format": "date-time"}"#;

/// Returns a schema of one type that may be null, as the portable dialect orders it.
fn portable(schema: &str) -> String {
    let (null, kind) = schema.split_once(r#"["null", "#).unwrap();
    let (kind, rest) = kind.split_once(']').unwrap();
    format!(r#"{null}[{kind}, "null"]{rest}"#)
}

#[test]
fn scalars_of_the_reference() {
    let numeric_schema = |maximum: &str, multiple: &str| {
        format!(
            r#"{{"type": ["null", "number"], "exclusiveMaximum": true, "maximum": {maximum}, "multipleOf": {multiple},
            "exclusiveMinimum": true, "minimum": -{maximum}}}"#
        )
    };
    let any_numeric = numeric_schema("100000000000000000000000000000000000000000000000000000000000000", "1e-38");
    let numeric_12_2 = numeric_schema("10000000000", "0.01");
    let numeric_38_0 = numeric_schema("100000000000000000000000000000000000000", "1");
    for (name, typmod, schema, codec) in [
        ("int2", -1, r#"{"type": ["null", "integer"], "minimum": -32768, "maximum": 32767}"#, Codec::Integer),
        ("int4", -1, INTEGER, Codec::Integer),
        (
            "int8",
            -1,
            r#"{"type": ["null", "integer"], "minimum": -9223372036854775808, "maximum": 9223372036854775807}"#,
            Codec::Integer,
        ),
        ("numeric", -1, &any_numeric, Codec::Number),
        ("numeric", numeric(12, 2), &numeric_12_2, Codec::Number),
        ("numeric", numeric(38, 0), &numeric_38_0, Codec::Number),
        ("float4", -1, r#"{"type": ["null", "number"]}"#, Codec::Number),
        ("float8", -1, r#"{"type": ["null", "number"]}"#, Codec::Number),
        ("money", -1, STRING, Codec::Text),
        ("bool", -1, r#"{"type": ["null", "boolean"]}"#, Codec::Boolean),
        ("bit", 1, r#"{"type": ["null", "boolean"]}"#, Codec::Boolean),
        ("bpchar", 9, r#"{"type": ["null", "string"], "maxLength": 5}"#, Codec::Text),
        ("varchar", 44, r#"{"type": ["null", "string"], "maxLength": 40}"#, Codec::Text),
        ("varchar", -1, STRING, Codec::Text),
        ("text", -1, STRING, Codec::Text),
        ("citext", -1, STRING, Codec::Text),
        ("uuid", -1, STRING, Codec::Text),
        ("json", -1, r#"{"type": ["null", "object", "array"]}"#, Codec::Json),
        ("jsonb", -1, r#"{"type": ["null", "object", "array"]}"#, Codec::Json),
        ("hstore", -1, r#"{"type": ["null", "object"], "properties": {}}"#, Codec::Hstore),
        ("date", -1, INSTANT, Codec::Date),
        ("time", -1, r#"{"type": ["null", "string"], "format": "time"}"#, Codec::Time),
        ("timetz", -1, r#"{"type": ["null", "string"], "format": "time"}"#, Codec::Timetz),
        ("timestamp", -1, INSTANT, Codec::Timestamp),
        ("timestamptz", -1, INSTANT, Codec::Timestamptz),
        ("inet", -1, STRING, Codec::Text),
        ("cidr", -1, STRING, Codec::Text),
        ("macaddr", -1, STRING, Codec::Text),
    ] {
        let column = resolved(base(name), typmod, &REFERENCE);
        assert_eq!(column.schema, json(schema), "{name}");
        assert_eq!(column.codec, codec, "{name}");
        assert!(column.supported && column.definition.is_none(), "{name}");
    }
    assert_eq!(resolved(ty("mood", TypeKind::Enum), -1, &REFERENCE).schema, json(STRING));
}

#[test]
fn arrays_of_the_reference() {
    for (name, typmod, kind, codec) in [
        ("int4", -1, "integer", Codec::Integer),
        ("int8", -1, "integer", Codec::Integer),
        ("int2", -1, "integer", Codec::Integer),
        ("numeric", numeric(10, 3), "decimal_10_3", Codec::Number),
        ("float8", -1, "number", Codec::Number),
        ("float4", -1, "number", Codec::Number),
        ("bool", -1, "boolean", Codec::Boolean),
        ("bit", 1, "boolean", Codec::Boolean),
        ("text", -1, "string", Codec::Text),
        ("varchar", 24, "string", Codec::Text),
        ("uuid", -1, "string", Codec::Text),
        ("json", -1, "object", Codec::Json),
        ("jsonb", -1, "object", Codec::Json),
        ("hstore", -1, "object", Codec::Hstore),
        ("date", -1, "timestamp", Codec::Date),
        ("timestamp", -1, "timestamp", Codec::Timestamp),
        ("timestamptz", -1, "timestamp", Codec::Timestamptz),
        ("time", -1, "string", Codec::Time),
        ("inet", -1, "string", Codec::Text),
        ("cidr", -1, "string", Codec::Text),
        ("money", -1, "string", Codec::Text),
        // Types that the reference leaves out as scalars.
        ("bit", 8, "string", Codec::Text),
        ("bytea", -1, "string", Codec::Text),
        ("interval", -1, "string", Codec::Text),
    ] {
        let column = resolved(array(base(name)), typmod, &REFERENCE);
        let schema = format!(
            r##"{{"type": ["null", "array"], "items": {{"$ref": "#/definitions/sdc_recursive_{kind}_array"}}}}"##
        );
        assert_eq!(column.schema, json(&schema), "{name}");
        assert_eq!(column.codec, codec_array_of(codec), "{name}");
        assert!(column.supported);
        assert_eq!(column.definition.is_some(), name == "numeric");
    }
    let (name, definition) = resolved(array(base("numeric")), numeric(10, 3), &REFERENCE).definition.unwrap();
    assert_eq!(name, "sdc_recursive_decimal_10_3_array");
    assert_eq!(
        definition,
        json(
            r##"{"type": ["null", "number", "array"], "multipleOf": 0.001, "exclusiveMaximum": true, "maximum": 10000000,
            "exclusiveMinimum": true, "minimum": -10000000,
            "items": {"$ref": "#/definitions/sdc_recursive_decimal_10_3_array"}}"##
        )
    );
}

#[test]
fn definitions_of_the_reference() {
    let definitions = json(
        r##"{
        "sdc_recursive_integer_array": {"type": ["null", "integer", "array"], "items": {"$ref": "#/definitions/sdc_recursive_integer_array"}},
        "sdc_recursive_number_array": {"type": ["null", "number", "array"], "items": {"$ref": "#/definitions/sdc_recursive_number_array"}},
        "sdc_recursive_string_array": {"type": ["null", "string", "array"], "items": {"$ref": "#/definitions/sdc_recursive_string_array"}},
        "sdc_recursive_boolean_array": {"type": ["null", "boolean", "array"], "items": {"$ref": "#/definitions/sdc_recursive_boolean_array"}},
        "sdc_recursive_timestamp_array": {"type": ["null", "string", "array"], "format": "date-time", "items": {"$ref": "#/definitions/sdc_recursive_timestamp_array"}},
        "sdc_recursive_object_array": {"type": ["null", "object", "array"], "items": {"$ref": "#/definitions/sdc_recursive_object_array"}}
        }"##,
    );
    assert_eq!(Value::Object(base_definitions(Dialect::Reference)), definitions);
}

/// Returns the types of table `extended`, and a few more that the reference leaves out.
fn left_out() -> Vec<(Arc<PgType>, i32)> {
    let names = [
        "bytea", "interval", "xml", "point", "varbit", "tsvector", "macaddr8", "oid", "name", "char", "pg_lsn", "ltree",
    ];
    let mut types: Vec<_> = names.into_iter().map(|name| (base(name), -1)).collect();
    types.extend([
        (base("bit"), 8),
        (base("bit"), -1),
        (ty("int2vector", TypeKind::Array { element: base("int2"), delimiter: b',' }), -1),
        (ty("int4range", TypeKind::Range), -1),
        (ty("tstzrange", TypeKind::Range), -1),
        (ty("address", TypeKind::Composite), -1),
    ]);
    types
}

#[test]
fn extended_types_are_strings_or_left_out() {
    for (ty, typmod) in left_out() {
        let column = resolved(ty.clone(), typmod, &REFERENCE);
        assert_eq!((column.schema, column.supported), (json("{}"), false), "{}", ty.name);
        let column = resolved(ty.clone(), typmod, &PORTABLE);
        let string = r#"{"type": ["string", "null"]}"#;
        assert_eq!((column.schema, column.supported), (json(string), true), "{}", ty.name);
        assert_eq!(column.codec, if ty.name == "bytea" { Codec::Bytea } else { Codec::Text });
    }
}

#[test]
fn a_domain_is_its_base_type_or_left_out() {
    let positive_int = domain(base("int4"), -1);
    let column = resolved(positive_int.clone(), -1, &REFERENCE);
    assert_eq!((column.schema, column.supported), (json("{}"), false));
    let column = resolved(positive_int.clone(), -1, &PORTABLE);
    assert_eq!((column.schema, column.codec, column.supported), (json(&portable(INTEGER)), Codec::Integer, true));

    // The domain's own typmod counts, the outer one's first.
    let price = domain(domain(base("numeric"), numeric(5, 2)), -1);
    let schema = r#"{"type": ["number", "null"], "minimum": -1000, "maximum": 1000}"#;
    assert_eq!(resolved(price, -1, &PORTABLE).schema, json(schema));
    let name = domain(base("varchar"), 14);
    assert_eq!(resolved(name, -1, &PORTABLE).schema, json(r#"{"type": ["string", "null"], "maxLength": 10}"#));

    let column = resolved(array(positive_int.clone()), -1, &PORTABLE);
    assert_eq!(column.codec, codec_array_of(Codec::Integer));
    assert_eq!(column.schema["items"]["type"], json(r#"["integer", "array", "null"]"#));
    for array_without_entry in [array(positive_int), domain(array(base("int4")), -1)] {
        let column = resolved(array_without_entry, -1, &REFERENCE);
        assert_eq!((column.codec, column.supported), (codec_array_of(Codec::Text), true));
        assert_eq!(column.schema["items"]["$ref"], "#/definitions/sdc_recursive_string_array");
    }
    let column = resolved(array(domain(array(base("int4")), -1)), -1, &PORTABLE);
    assert_eq!(column.codec, codec_array_of(codec_array_of(Codec::Integer)));
    assert_eq!(column.schema["items"]["type"], json(r#"["integer", "array", "null"]"#));
}

#[test]
fn typmods() {
    for (precision, scale) in [(12, 2), (1000, 1000), (3, -2), (1, -1000), (100, 0)] {
        assert_eq!(precision_and_scale(numeric(precision, scale) - 4), (precision, scale));
    }
}

/// The reference says that JSON is an object or an array, of which most is.
#[test]
fn json_is_anything_but_to_the_reference() {
    let any = r#"["object", "array", "string", "number", "integer", "boolean", "null"]"#;
    assert_eq!(resolved(base("json"), -1, &PORTABLE).schema, json(&format!(r#"{{"type": {any}}}"#)));
    let array = resolved(array(base("jsonb")), -1, &PORTABLE);
    assert_eq!(array.schema, json(&format!(r#"{{"type": ["array", "null"], "items": {{"type": {any}}}}}"#)));
    assert_eq!(array.definition, None);
}

#[test]
fn keys_are_not_nullable_but_for_arrays() {
    for (ty, json_type) in [
        (base("int4"), json(r#"["integer"]"#)),
        (base("text"), json(r#"["string"]"#)),
        (base("numeric"), json(r#"["number"]"#)),
        (base("jsonb"), json(r#"["object", "array", "string", "number", "integer", "boolean"]"#)),
        (base("bytea"), json(r#"["string"]"#)),
        (array(base("int4")), json(r#"["array", "null"]"#)),
    ] {
        let column = Column { primary_key: true, ..column(ty, -1, "t") };
        assert_eq!(resolve(&column, &PORTABLE).schema["type"], json_type);
    }
}

#[test]
fn sql_datatypes() {
    for (ty, typmod, data_type, expected) in [
        (base("varchar"), 44, "character varying", "character varying"),
        (base("bit"), 1, "bit", "bit"),
        (base("bit"), 8, "bit", "bit(8)"),
        (array(base("bit")), 8, "bit[]", "bit[]"),
        (base("varbit"), 8, "bit varying", "bit varying"),
        (domain(base("bit"), 8), -1, "flags", "flags"),
    ] {
        assert_eq!(resolve(&column(ty, typmod, data_type), &REFERENCE).sql_datatype, expected);
    }
}

#[test]
fn names_count_in_their_schema_only() {
    let impostor = Arc::new(PgType { schema: "public".to_owned(), ..(*base("int4")).clone() });
    assert_eq!(resolved(impostor, -1, &PORTABLE).codec, Codec::Text);
}

/// What meltanolabs-tap-postgres 0.10 discovers, but that NULL may be in arrays too.
#[test]
fn types_of_the_meltanolabs_tap() {
    let text = r#"{"type": ["string", "null"]}"#;
    let any = r#""string", "number", "integer", "array", "object", "boolean", "null""#;
    let any = format!(r#"{{"type": [{any}], "additionalProperties": true}}"#);
    let object = r#"{"type": ["object", "null"], "additionalProperties": true}"#;
    let quoted = |codec| Codec::Quoted(Box::new(codec));
    for (ty, typmod, schema, codec) in [
        (base("int2"), -1, r#"{"type": ["integer", "null"]}"#, Codec::Integer),
        (base("numeric"), numeric(12, 2), r#"{"type": ["number", "null"]}"#, Codec::Number),
        (base("float8"), -1, r#"{"type": ["number", "null"]}"#, Codec::Number),
        (base("bool"), -1, r#"{"type": ["boolean", "null"]}"#, Codec::Boolean),
        (base("bit"), 1, text, Codec::Text),
        (base("varchar"), 44, r#"{"type": ["string", "null"], "maxLength": 40}"#, Codec::Text),
        (base("bytea"), -1, text, Codec::Hex),
        (base("date"), -1, r#"{"type": ["string", "null"], "format": "date"}"#, Codec::Day),
        (base("timestamp"), -1, r#"{"type": ["string", "null"], "format": "date-time"}"#, Codec::MicroTimestamp),
        (base("timestamptz"), -1, r#"{"type": ["string", "null"], "format": "date-time"}"#, Codec::MicroTimestamptz),
        (base("time"), -1, r#"{"type": ["string", "null"], "format": "time"}"#, Codec::Time),
        (base("timetz"), -1, r#"{"type": ["string", "null"], "format": "time"}"#, Codec::OffsetTime),
        (base("jsonb"), -1, any.as_str(), Codec::Json),
        (base("hstore"), -1, object, Codec::Hstore),
        (base("interval"), -1, text, Codec::Text),
        (
            array(base("timestamptz")),
            -1,
            r#"{"type": ["array", "null"], "items": {"type": ["string", "null"], "format": "date-time"}}"#,
            codec_array_of(Codec::MicroTimestamptz),
        ),
        (
            array(base("int4")),
            -1,
            r#"{"type": ["array", "null"], "items": {"type": ["integer", "null"]}}"#,
            codec_array_of(Codec::Integer),
        ),
        (array(base("xml")), -1, text, Codec::Text),
        (array(ty("address", TypeKind::Composite)), -1, text, Codec::Text),
        (array(base("ltree")), -1, text, Codec::Text),
        (domain(array(base("int4")), -1), -1, text, Codec::Text),
        (domain(base("jsonb"), -1), -1, text, Codec::Text),
        (domain(base("int4"), -1), -1, text, quoted(Codec::Integer)),
        (domain(base("date"), -1), -1, text, quoted(Codec::Day)),
    ] {
        let resolved = resolved(ty.clone(), typmod, &MELTANOLABS);
        assert_eq!((resolved.schema, resolved.codec), (json(schema), codec), "{}", ty.name);
        assert!(resolved.supported && resolved.definition.is_none());
    }
    let strings = Options { dates_as_string: true, json_as_object: true, ..MELTANOLABS };
    for (name, schema, codec) in [
        ("date", text, Codec::Printed(Box::new(Codec::Day))),
        ("timestamptz", text, Codec::Printed(Box::new(Codec::MicroTimestamptz))),
        ("time", r#"{"type": ["string", "null"], "format": "time"}"#, Codec::Time),
        ("json", object, Codec::Json),
    ] {
        let resolved = resolved(base(name), -1, &strings);
        assert_eq!((resolved.schema, resolved.codec), (json(schema), codec), "{name}");
    }
}

/// Targets of the Meltano SDK make a DECIMAL(12, 2) of it, where a number is a DOUBLE.
#[test]
fn decimals_of_the_meltano_sdk() {
    let decimal = |size: i32| resolved(base("numeric"), size, &Options { singer_decimal: true, ..PORTABLE });
    let of_size = decimal(numeric(12, 2));
    let schema = r#"{"type": ["string", "null"], "format": "x-singer.decimal", "precision": 12, "scale": 2}"#;
    assert_eq!((of_size.schema, of_size.codec), (json(schema), Codec::Quoted(Box::new(Codec::Number))));
    // Of any size, or of more digits than warehouses have.
    for other in [-1, numeric(39, 2), numeric(3, 5), numeric(3, -2)] {
        let kept = decimal(other);
        assert_eq!(kept.codec, Codec::Number);
        assert_eq!(kept.schema, resolved(base("numeric"), other, &PORTABLE).schema);
    }
}
