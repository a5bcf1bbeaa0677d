//! JSON schemas: what each shape of value looks like in the catalog and in SCHEMA messages.

use serde_json::{Map, Number, Value, json};

use super::limit::Limit;

/// The dialect of schemas (config key `schema_dialect`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Valid in every draft of JSON Schema, and of shapes that every target takes: nothing refers to a definition, `null` comes last.
    #[default]
    Portable,
    /// As pipelinewise-tap-postgres writes them: bounds of draft 4, `multipleOf`, arrays that refer to a recursive definition.
    Reference,
    /// As meltanolabs-tap-postgres writes them: numbers without bounds, days as `date`; and values in its forms.
    MeltanoLabs,
}

impl Dialect {
    /// Every dialect.
    pub(crate) const ALL: [Dialect; 3] = [Dialect::Portable, Dialect::Reference, Dialect::MeltanoLabs];
}

/// The shape of a type's JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Signed, of so many bits.
    Integer {
        bits: u32,
    },
    /// Any number.
    Float,
    /// Precision and scale, if the type has them.
    Numeric(Option<(i32, i32)>),
    /// A number as a text, of a precision and a scale that the schema says in the Meltano SDK's way.
    Decimal {
        precision: i32,
        scale: i32,
    },
    Boolean,
    String {
        max_length: Option<i32>,
    },
    DateTime,
    /// A day.
    Date,
    Time,
    /// Any JSON; in the reference an object or an array, which leaves out scalars.
    Json,
    /// JSON of which the schema says that it is an object, whatever it is.
    JsonObject,
    /// An object of strings.
    Map,
    Array(Box<Shape>),
}

/// The largest precision and scale that the reference's schemas know.
const MAX_PRECISION: i32 = 100;
const MAX_SCALE: i32 = 38;
/// Beyond this power of ten a bound is left out: validators that compute in doubles read it as infinity or as zero.
const MAX_EXPONENT: i32 = 100;

impl Shape {
    /// A string of any length.
    pub(super) const STRING: Shape = Shape::String { max_length: None };

    /// Returns the schema of a column.
    pub(super) fn schema(&self, nullable: bool, dialect: Dialect) -> Value {
        let one = |name: &str| typed(nullable, &[name], dialect);
        let schema = match self {
            Shape::Integer { .. } if dialect == Dialect::MeltanoLabs => one("integer"),
            Shape::Integer { bits } => {
                let max = i64::MAX >> (64 - bits);
                with(one("integer"), [("minimum", json!(-max - 1)), ("maximum", json!(max))])
            }
            Shape::Float => one("number"),
            Shape::Numeric(size) => with(one("number"), numeric_bounds(*size, dialect)),
            Shape::Decimal { precision, scale } => {
                let size = [("precision", json!(precision)), ("scale", json!(scale))];
                with(with(one("string"), [("format", json!("x-singer.decimal"))]), size)
            }
            Shape::Boolean => one("boolean"),
            Shape::String { max_length } => with(one("string"), max_length.map(|length| ("maxLength", json!(length)))),
            Shape::DateTime => with(one("string"), [("format", json!("date-time"))]),
            Shape::Date => with(one("string"), [("format", json!("date"))]),
            Shape::Time => with(one("string"), [("format", json!("time"))]),
            Shape::Json => match dialect {
                Dialect::Portable => typed(nullable, &ANY, dialect),
                Dialect::Reference => typed(nullable, &["object", "array"], dialect),
                Dialect::MeltanoLabs => with(typed(nullable, &ANY_OF_MELTANOLABS, dialect), [ANYTHING_IN_IT]),
            },
            Shape::JsonObject => with(one("object"), [ANYTHING_IN_IT]),
            Shape::Map => match dialect {
                Dialect::Portable => with(one("object"), [("additionalProperties", string(None, dialect))]),
                Dialect::Reference => with(one("object"), [("properties", json!({}))]),
                Dialect::MeltanoLabs => with(one("object"), [ANYTHING_IN_IT]),
            },
            // Nullable even in a primary key, as in the reference.
            Shape::Array(element) => {
                let items = match dialect {
                    Dialect::Portable => element.item(),
                    Dialect::Reference => reference_to(&element.definition_name()),
                    Dialect::MeltanoLabs => element.schema(true, dialect),
                };
                with(typed(true, &["array"], dialect), [("items", items)])
            }
        };
        Value::Object(schema)
    }

    /// Returns the portable schema of an element of an array; of an array of more dimensions, which any may be, that is an array.
    fn item(&self) -> Value {
        let array = |kind: &str| typed(true, &[kind, "array"], Dialect::Portable);
        let schema = match self {
            Shape::Array(element) => return element.item(),
            Shape::Integer { .. } => array("integer"),
            Shape::Float => array("number"),
            Shape::Numeric(size) => with(array("number"), numeric_bounds(*size, Dialect::Portable)),
            Shape::Boolean => array("boolean"),
            Shape::Decimal { .. } | Shape::String { .. } | Shape::Date | Shape::Time => array("string"),
            Shape::DateTime => with(array("string"), [("format", json!("date-time"))]),
            Shape::Json | Shape::JsonObject => typed(true, &ANY, Dialect::Portable),
            Shape::Map => with(array("object"), [("additionalProperties", string(None, Dialect::Portable))]),
        };
        Value::Object(schema)
    }

    /// Returns the bounds that the schema of a column sets.
    pub(super) fn limit(&self) -> Limit {
        match self {
            Shape::Integer { bits } => Limit::Bits(*bits),
            Shape::Numeric(Some((precision, scale))) | Shape::Decimal { precision, scale } => {
                Limit::Digits(usize::try_from(precision - scale).unwrap_or(0))
            }
            Shape::String { max_length: Some(length) } => Limit::Characters(usize::try_from(*length).unwrap_or(0)),
            _ => Limit::None,
        }
    }

    /// Returns the definition that the schema refers to, if it is not one of [`base_definitions`].
    pub(super) fn definition(&self, dialect: Dialect) -> Option<(String, Value)> {
        let mut element = match self {
            Shape::Array(element) => element,
            _ => return None,
        };
        while let Shape::Array(inner) = &**element {
            element = inner;
        }
        let (Dialect::Reference, Shape::Numeric(size)) = (dialect, &**element) else { return None };
        let name = element.definition_name();
        let mut schema = with(typed(true, &["number", "array"], dialect), numeric_bounds(*size, dialect));
        schema.insert("items".to_owned(), reference_to(&name));
        Some((name, Value::Object(schema)))
    }

    /// Returns the name of the reference's definition for arrays of this shape, at any depth.
    fn definition_name(&self) -> String {
        match self {
            Shape::Array(element) => element.definition_name(),
            Shape::Integer { .. } => "sdc_recursive_integer_array".to_owned(),
            Shape::Boolean => "sdc_recursive_boolean_array".to_owned(),
            Shape::DateTime => "sdc_recursive_timestamp_array".to_owned(),
            Shape::Json | Shape::JsonObject | Shape::Map => "sdc_recursive_object_array".to_owned(),
            Shape::Decimal { .. } | Shape::String { .. } | Shape::Date | Shape::Time => {
                "sdc_recursive_string_array".to_owned()
            }
            Shape::Numeric(size) => {
                let (precision, scale) = capped(*size);
                format!("sdc_recursive_decimal_{precision}_{scale}_array")
            }
            Shape::Float => "sdc_recursive_number_array".to_owned(),
        }
    }
}

/// Every type of JSON, those first that make targets choose a column for JSON.
const ANY: [&str; 6] = ["object", "array", "string", "number", "integer", "boolean"];
/// The same in the MeltanoLabs tap's order.
const ANY_OF_MELTANOLABS: [&str; 6] = ["string", "number", "integer", "array", "object", "boolean"];
/// What an object may have.
const ANYTHING_IN_IT: (&str, Value) = ("additionalProperties", Value::Bool(true));

/// Returns the definitions that every stream's schema carries; only the reference's have any.
pub(crate) fn base_definitions(dialect: Dialect) -> Map<String, Value> {
    if dialect != Dialect::Reference {
        return Map::new();
    }
    ["integer", "number", "string", "boolean", "timestamp", "object"]
        .into_iter()
        .map(|kind| {
            let name = format!("sdc_recursive_{kind}_array");
            let schema = match kind {
                "timestamp" => with(typed(true, &["string", "array"], dialect), [("format", json!("date-time"))]),
                _ => typed(true, &[kind, "array"], dialect),
            };
            let schema = with(schema, [("items", reference_to(&name))]);
            (name, Value::Object(schema))
        })
        .collect()
}

/// Returns the schema of a text that may be null, with a format if it has one.
pub(crate) fn string(format: Option<&str>, dialect: Dialect) -> Value {
    Value::Object(with(typed(true, &["string"], dialect), format.map(|format| ("format", json!(format)))))
}

/// Returns the schema of a whole number that may be null.
pub(crate) fn integer(dialect: Dialect) -> Value {
    Value::Object(typed(true, &["integer"], dialect))
}

/// Returns `{"type": […]}`.
fn typed(nullable: bool, types: &[&str], dialect: Dialect) -> Map<String, Value> {
    let null = nullable.then_some("null");
    let (first, last) = match dialect {
        Dialect::Portable | Dialect::MeltanoLabs => (None, null),
        Dialect::Reference => (null, None),
    };
    let types: Vec<&str> = first.into_iter().chain(types.iter().copied()).chain(last).collect();
    Map::from_iter([("type".to_owned(), json!(types))])
}

fn with(
    mut schema: Map<String, Value>,
    keywords: impl IntoIterator<Item = (&'static str, Value)>,
) -> Map<String, Value> {
    schema.extend(keywords.into_iter().map(|(keyword, value)| (keyword.to_owned(), value)));
    schema
}

fn reference_to(definition: &str) -> Value {
    json!({ "$ref": format!("#/definitions/{definition}") })
}

/// Returns the keywords that bound a numeric of this precision and scale.
fn numeric_bounds(size: Option<(i32, i32)>, dialect: Dialect) -> Vec<(&'static str, Value)> {
    match (dialect, size) {
        (Dialect::Reference, _) => {
            let (precision, scale) = capped(size);
            let limit = power_of_ten(precision - scale);
            vec![
                ("exclusiveMaximum", json!(true)),
                ("maximum", number(limit.clone())),
                ("multipleOf", number(power_of_ten(-scale))),
                ("exclusiveMinimum", json!(true)),
                ("minimum", number(format!("-{limit}"))),
            ]
        }
        (Dialect::Portable, Some((precision, scale))) if bounded(precision, scale) => {
            let limit = power_of_ten(precision - scale);
            // Inclusive, although the limit itself is out of reach: draft 4 wants a boolean for exclusiveMaximum and the
            // later drafts a number, and a validator that computes in doubles takes numeric(38,0)'s largest value for 1e38.
            vec![("minimum", number(format!("-{limit}"))), ("maximum", number(limit))]
        }
        (Dialect::Portable | Dialect::MeltanoLabs, _) => Vec::new(),
    }
}

fn capped(size: Option<(i32, i32)>) -> (i32, i32) {
    let (precision, scale) = size.unwrap_or((MAX_PRECISION, MAX_SCALE));
    (precision.min(MAX_PRECISION), scale.min(MAX_SCALE))
}

fn bounded(precision: i32, scale: i32) -> bool {
    (precision - scale).abs() <= MAX_EXPONENT
}

/// Returns 10^exponent, spelt as Python spells it.
fn power_of_ten(exponent: i32) -> String {
    let size = exponent.unsigned_abs() as usize;
    match exponent {
        0.. => format!("1{}", "0".repeat(size)),
        -4..0 => format!("0.{}1", "0".repeat(size - 1)),
        _ => format!("1e-{size:02}"),
    }
}

/// Returns a number of any size, exactly as spelt.
fn number(text: String) -> Value {
    text.parse::<Number>().map_or(Value::Null, Value::Number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numeric(precision: i32, scale: i32, dialect: Dialect) -> String {
        Shape::Numeric(Some((precision, scale))).schema(true, dialect).to_string()
    }

    #[test]
    fn portable_bounds_are_numbers() {
        for (precision, scale, limit) in [
            (12, 2, "10000000000"),
            (38, 0, "100000000000000000000000000000000000000"),
            (3, 3, "1"),
            (3, 5, "0.01"),
            (3, 9, "1e-06"),
            (3, -2, "100000"),
        ] {
            let json = numeric(precision, scale, Dialect::Portable);
            let bounds = format!(r#""minimum":-{limit},"maximum":{limit}"#);
            assert_eq!(json, format!(r#"{{"type":["number","null"],{bounds}}}"#));
        }
    }

    #[test]
    fn portable_has_no_bounds_that_doubles_cannot_hold() {
        let unbounded = r#"{"type":["number","null"]}"#;
        assert_eq!(Shape::Numeric(None).schema(true, Dialect::Portable).to_string(), unbounded);
        assert_eq!(numeric(1000, 0, Dialect::Portable), unbounded);
        assert_eq!(numeric(3, 500, Dialect::Portable), unbounded);
        assert!(numeric(1000, 900, Dialect::Portable).contains(&format!(r#""maximum":1{}"#, "0".repeat(100))));
    }

    #[test]
    fn reference_bounds_are_exact_and_capped() {
        let bounds = |limit: &str, multiple: &str| {
            format!(
                r#"{{"type":["null","number"],"exclusiveMaximum":true,"maximum":{limit},"multipleOf":{multiple},"exclusiveMinimum":true,"minimum":-{limit}}}"#
            )
        };
        assert_eq!(numeric(1000, 0, Dialect::Reference), bounds(&format!("1{}", "0".repeat(100)), "1"));
        assert_eq!(numeric(50, 40, Dialect::Reference), bounds("1000000000000", "1e-38"));
        assert_eq!(numeric(3, 5, Dialect::Reference), bounds("0.01", "1e-05"));
        assert_eq!(numeric(3, -2, Dialect::Reference), bounds("100000", "100"));
    }

    #[test]
    fn arrays_of_the_reference_refer_to_definitions() {
        let array = |size| Shape::Array(Box::new(Shape::Array(Box::new(Shape::Numeric(size)))));
        let (name, schema) = array(Some((10, 3))).definition(Dialect::Reference).unwrap();
        assert_eq!(name, "sdc_recursive_decimal_10_3_array");
        assert_eq!(schema["items"]["$ref"], "#/definitions/sdc_recursive_decimal_10_3_array");
        let (name, _) = array(None).definition(Dialect::Reference).unwrap();
        assert_eq!(name, "sdc_recursive_decimal_100_38_array");
    }

    #[test]
    fn portable_schemas_refer_to_nothing() {
        let array = |element| Shape::Array(Box::new(element));
        for (shape, schema) in [
            (
                array(Shape::Integer { bits: 32 }),
                r#"{"type":["array","null"],"items":{"type":["integer","array","null"]}}"#,
            ),
            (
                array(array(Shape::Numeric(Some((10, 3))))),
                r#"{"type":["array","null"],"items":{"type":["number","array","null"],"minimum":-10000000,"maximum":10000000}}"#,
            ),
            (
                array(Shape::DateTime),
                r#"{"type":["array","null"],"items":{"type":["string","array","null"],"format":"date-time"}}"#,
            ),
            (
                array(Shape::Json),
                r#"{"type":["array","null"],"items":{"type":["object","array","string","number","integer","boolean","null"]}}"#,
            ),
            (Shape::Map, r#"{"type":["object","null"],"additionalProperties":{"type":["string","null"]}}"#),
        ] {
            assert_eq!(shape.schema(true, Dialect::Portable).to_string(), schema);
            assert_eq!(shape.definition(Dialect::Portable), None);
        }
        assert!(base_definitions(Dialect::Portable).is_empty());
    }
}
