//! The types of the contract's Values table: for each its extremes and a generator of its input texts.

use proptest::prelude::*;

use crate::harness::{needs, release};

/// How the text that Postgres prints becomes JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Number,
    Real,
    Double,
    Boolean,
    Json,
    Hstore,
    Date,
    Timestamp,
    Timestamptz,
    Time,
    Timetz,
}

/// A type and what can be stored in it.
pub(super) struct Type {
    pub(super) sql: &'static str,
    pub(super) kind: Kind,
    /// Texts that every run stores.
    pub(super) extremes: Vec<String>,
    pub(super) random: BoxedStrategy<String>,
}

/// What the table's types need.
pub(super) const SETUP: &str = r#"
create extension hstore; create extension citext;
create type mood as enum ('sad', 'ok', 'O''Hara, "q" \ {x}', 'NULL', '');
create type pair as (a integer, b text);
create domain positive as integer check (value > 0);
create domain amount as numeric(10, 2);
create domain note as text;
create domain raw as bytea;
create domain moment as timestamptz;
create domain list as integer[];
create domain of_domain as positive;
"#;

/// Those of them that are domains over a scalar.
pub(super) const DOMAINS: [&str; 6] = ["positive", "of_domain", "amount", "note", "raw", "moment"];

/// Characters that JSON, COPY, arrays, composites or line readers treat in a way of their own.
const TEXTS: [&str; 16] = [
    "",
    " ",
    "NULL",
    "null",
    r"\N",
    r"\",
    r#"""#,
    "{a,b}",
    "a,b;c",
    "line\nfeed\r\ttab",
    "\u{1}\u{8}\u{1f}\u{7f}",
    "\u{2028}\u{2029}\u{85}",
    "日本語 é 😀 \u{10ffff}",
    r#"{"bookmarks": {}}"#,
    r"\x00",
    "(1,)",
];

const JSONS: [&str; 17] = [
    "{}",
    "[]",
    "null",
    "true",
    r#""text""#,
    "12345678901234567890",
    "-0",
    "1.10",
    "1e2",
    "[1,\n 2,\t\r\n  {\"a\" : [ ] }]",
    r#"{"a": {"b": [null, {"c": 0.000000000000000000012345678901234567890}]}}"#,
    r#"{"a": 1, "a": 2}"#,
    r#"["\u00e9\ud83d\ude00\/\b\f\n\r\t\"\\"]"#,
    "[\"\u{2028}\u{7f}\"]",
    "99999999999999999999e10",
    r#"{"": "", " ": " "}"#,
    r#"[[[[[[[[[[1]]]]]]]]]]"#,
];

const DATES: [&str; 10] = [
    "infinity",
    "-infinity",
    "0001-01-01",
    "9999-12-31",
    "10000-01-01",
    "5874897-12-31",
    "4714-11-24 BC",
    "0001-12-31 BC",
    "1970-01-01",
    "2024-02-29",
];

const TIMESTAMPS: [&str; 12] = [
    "infinity",
    "-infinity",
    "0001-01-01 00:00:00",
    "9999-12-31 23:59:59.999999",
    "10000-01-01 00:00:00",
    "294276-12-31 23:59:59.999999",
    "4714-11-24 00:00:00 BC",
    "0001-12-31 23:59:59.999999 BC",
    "1969-12-31 23:59:59.9",
    "2024-02-29 24:00:00",
    "1883-11-18 12:03:58",
    "2000-01-01 00:00:00.000001",
];

fn ty(sql: &'static str, kind: Kind, extremes: &[&str], random: impl Strategy<Value = String> + 'static) -> Type {
    Type { sql, kind, extremes: extremes.iter().map(|text| (*text).to_owned()).collect(), random: random.boxed() }
}

/// A type whose values are these.
fn of(sql: &'static str, values: &[&str]) -> Type {
    let owned: Vec<String> = values.iter().map(|text| (*text).to_owned()).collect();
    ty(sql, Kind::Text, values, prop::sample::select(owned))
}

fn integers(bits: u32) -> impl Strategy<Value = String> {
    (any::<i64>(), 0..bits).prop_map(move |(value, shift)| (value >> (64 - bits + shift)).to_string())
}

fn texts() -> impl Strategy<Value = String> {
    prop_oneof!["[^\\x00]{0,12}", "[a-z,;{}()\"'\\\\ \n=>:]{0,12}"]
}

fn dates() -> impl Strategy<Value = String> {
    (1..11000_u32, 1..13_u32, 1..29_u32, prop::bool::weighted(0.1)).prop_map(|(year, month, day, bc)| match bc {
        // Postgres's calendar begins in 4714 BC.
        true => format!("{:04}-{month:02}-{day:02} BC", year % 4713 + 1),
        false => format!("{year:04}-{month:02}-{day:02}"),
    })
}

fn times() -> impl Strategy<Value = String> {
    (0..24_u32, 0..60_u32, 0..60_u32, 0..1_000_000_u32, 0..7_usize).prop_map(
        |(hour, minute, second, micros, digits)| {
            let fraction = format!(".{micros:06}");
            format!("{hour:02}:{minute:02}:{second:02}{}", if digits == 0 { "" } else { &fraction[..=digits] })
        },
    )
}

fn offsets() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["+00", "+05:30", "-08", "-12:59:59", "+15:59:59", "+01:02:03"]).prop_map(str::to_owned)
}

/// BC comes last in Postgres's input too.
fn timestamps() -> impl Strategy<Value = String> {
    (dates(), times()).prop_map(|(date, time)| match date.strip_suffix(" BC") {
        Some(date) => format!("{date} {time} BC"),
        None => format!("{date} {time}"),
    })
}

fn timestamptzs() -> impl Strategy<Value = String> {
    (1..11000_u32, 1..13_u32, 1..29_u32, times(), offsets())
        .prop_map(|(year, month, day, time, offset)| format!("{year:04}-{month:02}-{day:02} {time}{offset}"))
}

/// JSON with whitespace of every kind; `escapes` are what a string may hold.
fn jsons(escapes: &'static [&'static str]) -> impl Strategy<Value = String> {
    let space = || prop::sample::select(vec!["", "", " ", "\n", "\t\r\n  "]);
    let string =
        prop::collection::vec(prop::sample::select(escapes.to_vec()), 0..4).prop_map(|s| format!("\"{}\"", s.concat()));
    let number = "-?(0|[1-9][0-9]{0,25})(\\.[0-9]{1,10})?([eE][+-]?[0-9]{1,2})?";
    let leaf = prop_oneof!["null|true|false", number, string.clone()];
    leaf.prop_recursive(3, 12, 4, move |inner| {
        let spaced = (space(), inner.clone(), space()).prop_map(|(a, value, b)| format!("{a}{value}{b}"));
        let pair =
            (space(), string.clone(), space(), inner).prop_map(|(a, key, b, value)| format!("{a}{key}{b}:{value}"));
        prop_oneof![
            prop::collection::vec(spaced, 0..4).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec(pair, 0..4).prop_map(|items| format!("{{{}}}", items.join(","))),
        ]
    })
}

const ESCAPES: [&str; 8] = ["a", "é", " ", r"\n", r#"\""#, r"\\", r"\u00e9", r"\ud83d\ude00"];
/// What only `json` stores: halves of surrogate pairs, and NUL.
const MORE_ESCAPES: [&str; 5] = ["a", r"\ud800", r"\udc00x", r"\u0000", r"\/"];

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', r"\\").replace('"', r#"\""#))
}

fn hstores() -> impl Strategy<Value = String> {
    let pair = (texts(), prop::option::of(texts())).prop_map(|(key, value)| {
        format!("{}=>{}", quoted(&key), value.map_or("NULL".to_owned(), |value| quoted(&value)))
    });
    prop::collection::vec(pair, 0..4).prop_map(|pairs| pairs.join(","))
}

fn pairs() -> impl Strategy<Value = String> {
    (prop::option::of(any::<i32>()), prop::option::of(texts())).prop_map(|(a, b)| {
        let a = a.map(|a| a.to_string()).unwrap_or_default();
        format!("({a},{})", b.map(|b| quoted(&b)).unwrap_or_default())
    })
}

fn ranges() -> impl Strategy<Value = String> {
    (any::<i16>(), 0..1000_i32, "[\\[(]")
        .prop_map(|(low, size, open)| format!("{open}{low},{})", i32::from(low) + size + 2))
}

const REALS: [&str; 10] =
    ["NaN", "Infinity", "-Infinity", "-0", "3.4028235e38", "1.17549435e-38", "1e-45", "0.1", "16777217", "1e15"];
const DOUBLES: [&str; 9] =
    ["NaN", "Infinity", "-Infinity", "-0", "1.7976931348623157e308", "5e-324", "0.1", "1e15", "1e-7"];

/// Every type that the table has a column of, and a column of its arrays.
pub(super) fn types() -> Vec<Type> {
    use Kind::*;
    let digits = "9876543210".repeat(100);
    let long = format!("-{digits}.{digits}");
    let mut numerics =
        vec!["NaN", "Infinity", "-Infinity", "0", "-0.00", "0.02", "1e-100", "1.10", "00012.340", &digits, &long];
    numerics.retain(|text| release() >= 14 || !text.ends_with("Infinity"));
    let more_json: Vec<&str> =
        JSONS.into_iter().chain([r#""\ud800""#, r#"["\udc00a\ud800"]"#, r#"{"\ud83dx": "\u0000"}"#]).collect();
    let strings = &TEXTS[..];
    let mut types = vec![
        ty("smallint", Number, &["-32768", "32767", "0"], integers(16)),
        ty("integer", Number, &["-2147483648", "2147483647"], integers(32)),
        ty("bigint", Number, &["-9223372036854775808", "9223372036854775807", "9007199254740993"], integers(64)),
        ty("numeric", Number, &numerics, "-?[0-9]{1,40}(\\.[0-9]{1,30})?"),
        ty("numeric(12,2)", Number, &["NaN", "9999999999.99", "-9999999999.99", "0.02"], "-?[0-9]{1,10}\\.[0-9]{2}"),
        ty("numeric(38,0)", Number, &["99999999999999999999999999999999999999", "-1"], "-?[0-9]{1,38}"),
        ty("real", Real, &REALS, any::<f32>().prop_map(|value| value.to_string())),
        ty("double precision", Double, &DOUBLES, any::<f64>().prop_map(|value| value.to_string())),
        ty("money", Text, &["-92233720368547758.08", "92233720368547758.07", "0"], "-?[0-9]{1,15}\\.[0-9]{2}"),
        ty("boolean", Boolean, &["t", "f"], "[tf]"),
        ty("bit(1)", Boolean, &["0", "1"], "[01]"),
        ty("bit(5)", Text, &["00000", "11111"], "[01]{5}"),
        ty("bit varying", Text, &["", "1"], "[01]{0,70}"),
        ty("\"char\"", Text, &["", "a", "\"", "\\"], "[a-z]"),
        ty("char(5)", Text, &["", "a", "é \"\\", "日本"], "[a-zé \"\\\\]{0,5}"),
        ty("varchar(12)", Text, &["", "NULL", "日本語日本語日本語日本語"], "[^\\x00]{0,12}"),
        ty("text", Text, strings, texts()),
        ty("citext", Text, strings, texts()),
        ty("name", Text, &["", "a\"b"], "[a-z\"' ]{0,20}"),
        ty("uuid", Text, &["00000000-0000-0000-0000-000000000000"], "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
        ty("json", Json, &more_json, prop_oneof![jsons(&ESCAPES), jsons(&MORE_ESCAPES)]),
        ty("jsonb", Json, &JSONS, jsons(&ESCAPES)),
        ty("hstore", Hstore, &["", r#""a"=>NULL, "NULL"=>"NULL""#, r#""=>"=>"a,\"\\ \n""#], hstores()),
        ty("date", Date, &DATES, dates()),
        ty("timestamp", Timestamp, &TIMESTAMPS, timestamps()),
        ty("timestamp(3)", Timestamp, &["2024-12-31 23:59:59.9999"], timestamps()),
        ty(
            "timestamptz",
            Timestamptz,
            &["9999-12-31 23:59:59-05", "0001-01-01 00:00:00+05", "infinity"],
            timestamptzs(),
        ),
        ty("time", Time, &["24:00", "00:00", "23:59:59.999999", "12:00:00.5"], times()),
        ty(
            "timetz",
            Timetz,
            &["24:00+00", "24:00-05", "00:00+15:59:59", "23:59:59.999999-15:59:59", "12:00:00.5+05:30"],
            (times(), offsets()).prop_map(|(time, offset)| time + &offset),
        ),
        of("interval", &["0", "1 year -2 mons +3 days -04:05:06.789", "-178000000 years", "36:00:00.000001"]),
        ty("bytea", Text, &[r"\x", r"\x00ff5c22", r"\xdeadbeef"], "\\\\x([0-9a-f]{2}){0,20}"),
        of("inet", &["1.2.3.4", "1.2.3.4/8", "::1", "fe80::1/64", "0.0.0.0/0"]),
        of("cidr", &["10.0.0.0/8", "1.2.3.4/32", "2001:db8::/32"]),
        of("macaddr", &["08:00:2b:01:02:03", "ff:ff:ff:ff:ff:ff"]),
        of("macaddr8", &["08:00:2b:01:02:03:04:05"]),
        of("mood", &["sad", "ok", r#"O'Hara, "q" \ {x}"#, "NULL", ""]),
        ty("pair", Text, &["(,)", r#"(1,"")"#, r#"(2,"a ""q"" \\ , ()")"#, r#"(3,NULL)"#], pairs()),
        ty("int4range", Text, &["empty", "(,)", "[1,)", "[1,1]"], ranges()),
        of("tstzrange", &["empty", "[2020-01-01 00:00+00,infinity)", "(,2024-02-29 12:00:00.5+05:30]"]),
        of("int8multirange", &["{}", "{[1,3),[5,9)}", "{(,)}"]),
        of("xml", &["<a b=\"c\">é&amp;\n</a>", "plain", "<![CDATA[<x>]]>"]),
        of("point", &["(1.5,-2)", "(NaN,Infinity)", "(0.1,1e300)"]),
        of("box", &["(1,1),(0,0)", "(2.5,3),(-1,-1)"]),
        of("path", &["[(0,0),(1,1)]", "((0,0),(1,1))"]),
        of("circle", &["<(0,0),1.5>"]),
        of("tsvector", &["", "'a':1 'b''s':2A 'c\\\\d':3"]),
        of("tsquery", &["'a' & !'b' <-> 'c'"]),
        of("oid", &["0", "4294967295"]),
        of("pg_lsn", &["0/0", "FFFFFFFF/FFFFFFFF", "16/B374D848"]),
        of("jsonpath", &["$.\"a\"[*]?(@ > 1)"]),
        of("int2vector", &["", "1 2 3"]),
        ty("positive", Number, &["1", "2147483647"], "[1-9][0-9]{0,8}"),
        ty("of_domain", Number, &["1", "2147483647"], "[1-9][0-9]{0,8}"),
        ty("amount", Number, &["NaN", "99999999.99", "-0.01"], "-?[0-9]{1,8}\\.[0-9]{2}"),
        ty("note", Text, strings, texts()),
        ty("raw", Text, &[r"\x", r"\x00ff5c22"], "\\\\x([0-9a-f]{2}){0,20}"),
        ty("moment", Timestamptz, &["infinity", "10000-01-01 00:00+00"], timestamptzs()),
    ];
    let newer = [("jsonpath", 12), ("int8multirange", 14)];
    types.retain(|ty| newer.iter().all(|(sql, since)| ty.sql != *sql || needs(*since, sql)));
    types
}
