//! The registry: which type has which shape and codec.

use serde_json::{Value, json};

use super::schema::{Dialect, Shape};
use super::{ArrayCodec, Codec, Limit};
use crate::pg::table::{Column, PgType, TypeKind};

/// The settings that concern types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// Whether types that the reference calls unsupported are sent too.
    pub extended_types: bool,
    /// The dialect of schemas.
    pub dialect: Dialect,
    /// In the MeltanoLabs tap's dialect, whether days and timestamps are sent as they are printed.
    pub dates_as_string: bool,
    /// In the MeltanoLabs tap's dialect, whether the schema of JSON says that it is an object.
    pub json_as_object: bool,
    /// Whether a numeric of a precision that warehouses have is a text, whose schema says precision and scale.
    pub singer_decimal: bool,
}

/// A column's type as a stream uses it.
#[derive(Clone, Debug)]
pub(crate) struct ColumnType {
    /// The codec of its values.
    pub codec: Codec,
    /// The bounds of its values.
    pub limit: Limit,
    /// Its JSON schema; `{}` if unsupported.
    pub schema: Value,
    /// The definition (name, schema) that the schema refers to beyond [`base_definitions`](super::base_definitions).
    pub definition: Option<(String, Value)>,
    /// Whether the column can be selected: false is `"inclusion": "unsupported"`.
    pub supported: bool,
    /// The catalog's `sql-datatype`: `character varying`, `bit(8)`.
    pub sql_datatype: String,
}

/// Returns what a column of this type looks like in the catalog and how its values are written.
pub(crate) fn resolve(column: &Column, options: &Options) -> ColumnType {
    let entry = match options.dialect {
        Dialect::Portable | Dialect::Reference => entry(&column.ty, column.typmod, options.extended_types),
        Dialect::MeltanoLabs => meltanolabs_entry(&column.ty, column.typmod, options),
    };
    let entry = if options.singer_decimal { as_singer_decimal(entry) } else { entry };
    let supported = entry.native || options.extended_types;
    ColumnType {
        schema: if supported { entry.shape.schema(!column.primary_key, options.dialect) } else { json!({}) },
        definition: entry.shape.definition(options.dialect),
        limit: entry.shape.limit(),
        codec: entry.codec,
        supported,
        sql_datatype: sql_datatype(column),
    }
}

/// Returns a numeric as a text with the Meltano SDK's format for decimals. Without precision and scale its targets would choose their own,
/// Snowflake for one without a fraction: such a numeric stays a number.
fn as_singer_decimal(entry: Entry) -> Entry {
    const MOST_DIGITS: i32 = 38;
    match (&entry.shape, &entry.codec) {
        (Shape::Numeric(Some((precision, scale))), Codec::Number)
            if (1..=MOST_DIGITS).contains(precision) && (0..=*precision).contains(scale) =>
        {
            let (precision, scale) = (*precision, *scale);
            Entry { shape: Shape::Decimal { precision, scale }, codec: Codec::Quoted(Box::new(Codec::Number)), ..entry }
        }
        _ => entry,
    }
}

fn sql_datatype(column: &Column) -> String {
    match column.typmod {
        length if length > 1 && column.ty.is_builtin("bit") => format!("bit({length})"),
        _ => column.data_type.to_string(),
    }
}

/// The registry's entry for a type.
struct Entry {
    shape: Shape,
    codec: Codec,
    /// Whether the reference supports it.
    native: bool,
}

fn native(shape: Shape, codec: Codec) -> Entry {
    Entry { shape, codec, native: true }
}

fn extended(codec: Codec) -> Entry {
    Entry { shape: Shape::STRING, codec, native: false }
}

fn array_of(shape: Shape, element: Codec, delimiter: u8) -> Entry {
    native(Shape::Array(Box::new(shape)), Codec::Array(Box::new(ArrayCodec { element, delimiter })))
}

/// Returns the entry of a type; those of arrays and domains follow from the types that they are made of.
fn entry(ty: &PgType, typmod: i32, extended_types: bool) -> Entry {
    match &ty.kind {
        TypeKind::Base => base_entry(ty, typmod),
        TypeKind::LongFloat => native(Shape::Float, if ty.name == "float4" { Codec::Float4 } else { Codec::Float8 }),
        TypeKind::Enum => native(Shape::STRING, Codec::Text),
        TypeKind::Composite | TypeKind::Range => extended(Codec::Text),
        // Arrays to the catalogs, but printed as `1 2 3`.
        TypeKind::Array { .. } if ty.is_builtin("int2vector") || ty.is_builtin("oidvector") => extended(Codec::Text),
        TypeKind::Array { element, delimiter } => {
            let element = entry(element, typmod, extended_types);
            // The reference takes an array for one of strings unless it supports the element.
            let known = element.native || extended_types;
            let (shape, codec) = if known { (element.shape, element.codec) } else { (Shape::STRING, Codec::Text) };
            array_of(shape, codec, *delimiter)
        }
        TypeKind::Domain { base, typmod: own } => {
            let typmod = if *own == -1 { typmod } else { *own };
            let base = entry(base, typmod, extended_types);
            match base.codec {
                _ if extended_types => base,
                // The reference looks at pg_type.typcategory, which a domain has from its base type.
                Codec::Array(array) => array_of(Shape::STRING, Codec::Text, array.delimiter),
                _ => Entry { native: false, ..base },
            }
        }
    }
}

/// Returns the entry of a base type. A type of an extension is known by its name alone: its schema can be any.
fn base_entry(ty: &PgType, typmod: i32) -> Entry {
    // Lengths, precisions and scales are stored with 4 (VARHDRSZ) added; -1 is none.
    let stored = (typmod >= 4).then(|| typmod - 4);
    match (ty.schema == "pg_catalog", ty.name.as_str()) {
        (true, "int2") => native(Shape::Integer { bits: 16 }, Codec::Integer),
        (true, "int4") => native(Shape::Integer { bits: 32 }, Codec::Integer),
        (true, "int8") => native(Shape::Integer { bits: 64 }, Codec::Integer),
        (true, "float4" | "float8") => native(Shape::Float, Codec::Number),
        (true, "numeric") => native(Shape::Numeric(stored.map(precision_and_scale)), Codec::Number),
        (true, "bool") => native(Shape::Boolean, Codec::Boolean),
        // Without a length a bit string can have any.
        (true, "bit") if typmod == 1 => native(Shape::Boolean, Codec::Boolean),
        (true, "bpchar" | "varchar") => native(Shape::String { max_length: stored }, Codec::Text),
        (true, "text" | "uuid" | "money" | "inet" | "cidr" | "macaddr") => native(Shape::STRING, Codec::Text),
        (true, "date") => native(Shape::DateTime, Codec::Date),
        (true, "timestamp") => native(Shape::DateTime, Codec::Timestamp),
        (true, "timestamptz") => native(Shape::DateTime, Codec::Timestamptz),
        (true, "time") => native(Shape::Time, Codec::Time),
        (true, "timetz") => native(Shape::Time, Codec::Timetz),
        (true, "json" | "jsonb") => native(Shape::Json, Codec::Json),
        (true, "bytea") => extended(Codec::Bytea),
        (_, "citext") => native(Shape::STRING, Codec::Text),
        (_, "hstore") => native(Shape::Map, Codec::Hstore),
        _ => extended(Codec::Text),
    }
}

/// Returns the entry of a type as the MeltanoLabs tap knows it. Where that prints one thing from a table and another from the log, or
/// what the type's schema does not allow, the text that PostgreSQL prints.
fn meltanolabs_entry(ty: &PgType, typmod: i32, options: &Options) -> Entry {
    let date = |shape: Shape, codec: Codec| match options.dates_as_string {
        true => native(Shape::STRING, Codec::Printed(Box::new(codec))),
        false => native(shape, codec),
    };
    let name = if ty.schema == "pg_catalog" { ty.name.as_str() } else { "" };
    match (&ty.kind, name) {
        (TypeKind::Base, "bit") => native(Shape::STRING, Codec::Text),
        (TypeKind::Base, "bytea") => native(Shape::STRING, Codec::Hex),
        (TypeKind::Base, "date") => date(Shape::Date, Codec::Day),
        (TypeKind::Base, "timestamp") => date(Shape::DateTime, Codec::MicroTimestamp),
        (TypeKind::Base, "timestamptz") => date(Shape::DateTime, Codec::MicroTimestamptz),
        (TypeKind::Base, "timetz") => native(Shape::Time, Codec::OffsetTime),
        (TypeKind::Base, "json" | "jsonb") if options.json_as_object => native(Shape::JsonObject, Codec::Json),
        (TypeKind::Array { .. }, "int2vector" | "oidvector") => native(Shape::STRING, Codec::Text),
        (TypeKind::Array { element, delimiter }, _) if is_known_to_sqlalchemy(element) => {
            let element = meltanolabs_entry(element, typmod, options);
            array_of(element.shape, element.codec, *delimiter)
        }
        (TypeKind::Array { .. }, _) => native(Shape::STRING, Codec::Text),
        // To its library a domain is of no type that it knows.
        (TypeKind::Domain { base, typmod: own }, _) => {
            let typmod = if *own == -1 { typmod } else { *own };
            native(
                Shape::STRING,
                match meltanolabs_entry(base, typmod, options).codec {
                    Codec::Array(_) | Codec::Json | Codec::Hstore => Codec::Text,
                    codec => Codec::Quoted(Box::new(codec)),
                },
            )
        }
        _ => Entry { native: true, ..entry(ty, typmod, true) },
    }
}

/// Whether SQLAlchemy, the MeltanoLabs tap's library, knows a type. An array of another one is a text to it.
fn is_known_to_sqlalchemy(ty: &PgType) -> bool {
    const KNOWN: [&str; 32] = [
        "bit",
        "bool",
        "bpchar",
        "bytea",
        "char",
        "cidr",
        "date",
        "float4",
        "float8",
        "inet",
        "int2",
        "int4",
        "int8",
        "interval",
        "json",
        "jsonb",
        "macaddr",
        "macaddr8",
        "money",
        "name",
        "numeric",
        "oid",
        "regclass",
        "text",
        "time",
        "timestamp",
        "timestamptz",
        "timetz",
        "tsvector",
        "uuid",
        "varbit",
        "varchar",
    ];
    match ty.kind {
        TypeKind::Composite => false,
        TypeKind::Base if ty.schema == "pg_catalog" => KNOWN.contains(&ty.name.as_str()),
        TypeKind::Base => matches!(ty.name.as_str(), "citext" | "hstore"),
        TypeKind::LongFloat | TypeKind::Enum | TypeKind::Range | TypeKind::Array { .. } | TypeKind::Domain { .. } => {
            true
        }
    }
}

/// Returns precision and scale from `numeric`'s typmod less 4: precision in the upper half, scale in the lower 11 bits,
/// signed since PostgreSQL 15.
fn precision_and_scale(stored: i32) -> (i32, i32) {
    (stored >> 16 & 0xffff, ((stored & 0x7ff) ^ 1024) - 1024)
}

#[cfg(test)]
mod tests;
