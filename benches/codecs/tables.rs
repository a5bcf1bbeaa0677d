//! Tables with rows as they are found in the wild, and the forms that the server sends them in.

use serde_json::{Value, json};
use tap_postgres_rs::bench::{ArrayCodec, Codec};

/// A table, and what PostgreSQL prints of the values of its nth row.
pub(crate) struct Table {
    pub(crate) name: &'static str,
    columns: Vec<(&'static str, Codec)>,
    row: fn(usize) -> Vec<Option<String>>,
}

/// Every table that is measured.
pub(crate) fn all() -> Vec<Table> {
    let array = |element| Codec::Array(Box::new(ArrayCodec { element, delimiter: b',' }));
    vec![
        Table {
            // That of scripts/bench.
            name: "orders",
            columns: vec![
                ("id", Codec::Integer),
                ("customer_id", Codec::Integer),
                ("status", Codec::Text),
                ("amount", Codec::Number),
                ("created_at", Codec::Timestamptz),
                ("updated_at", Codec::Timestamp),
                ("payload", Codec::Json),
                ("note", Codec::Text),
                ("flag", Codec::Boolean),
                ("uid", Codec::Text),
            ],
            row: |n| {
                texts([
                    format!("{n}"),
                    format!("{}", n % 10_007),
                    ["new", "paid", "shipped", "done"][n % 4].to_owned(),
                    format!("{}.{:02}", n % 1000, n % 100),
                    format!("2026-01-{:02} {:02}:{:02}:{:02}+00", n % 28 + 1, n % 24, n % 60, n % 59),
                    format!("2026-01-01 00:{:02}:{:02}.{:03}", n % 60, n % 59, n % 999 + 1),
                    format!(r#"{{"k": {n}, "name": "customer {n}", "tags": ["a", "b"]}}"#),
                    format!(r#"note for order {n} "quoted" \ back"#),
                    if n.is_multiple_of(2) { "t" } else { "f" }.to_owned(),
                    format!("c4ca4238-a0b9-2382-0dcc-{n:012x}"),
                ])
            },
        },
        Table {
            name: "numbers",
            columns: named::<12>(Codec::Number),
            row: |n| {
                let wide = "1234567890123456789012345678".repeat(n % 2 + 1);
                (0..12)
                    .map(|at| (at != n % 12).then(|| format!("-{}{wide}.{:06}", n + 1, n * 31 % 1_000_000)))
                    .collect()
            },
        },
        Table {
            name: "escapes",
            columns: named::<6>(Codec::Text),
            row: |n| {
                let text = format!("line {n}\n\tC:\\dir\\file \"quoted\"\r\nund noch größer ");
                (0..6).map(|at| Some(text.repeat(at + 1))).collect()
            },
        },
        Table {
            name: "timestamps",
            columns: vec![
                ("a", Codec::Timestamptz),
                ("b", Codec::Timestamptz),
                ("c", Codec::Timestamp),
                ("d", Codec::Timestamp),
                ("e", Codec::Date),
                ("f", Codec::Time),
                ("g", Codec::Timetz),
            ],
            row: |n| {
                let (day, hour, minute) = (n % 28 + 1, n % 24, n % 60);
                texts([
                    format!("2026-02-{day:02} {hour:02}:{minute:02}:10.123456+00"),
                    format!("1999-12-{day:02} {hour:02}:{minute:02}:10+00"),
                    format!("2026-02-{day:02} {hour:02}:{minute:02}:10.5"),
                    format!("12026-02-{day:02} {hour:02}:{minute:02}:10"),
                    format!("2026-02-{day:02}"),
                    format!("{hour:02}:{minute:02}:10.25"),
                    format!("{hour:02}:{minute:02}:10+05:30"),
                ])
            },
        },
        Table {
            name: "documents",
            columns: vec![("id", Codec::Integer), ("body", Codec::Json)],
            row: |n| {
                let item =
                    format!(r#"{{"sku": "A-{n}", "price": 12.50, "text": "a \"b\" ö", "on": true, "none": null}}"#);
                texts([format!("{n}"), format!(r#"{{"items": [{}]}}"#, vec![item; 12].join(", "))])
            },
        },
        Table {
            name: "arrays",
            columns: vec![
                ("ids", array(Codec::Integer)),
                ("tags", array(Codec::Text)),
                ("at", array(Codec::Timestamptz)),
            ],
            row: |n| {
                let ids: Vec<String> = (n..n + 16).map(|id| id.to_string()).collect();
                texts([
                    format!("{{{}}}", ids.join(",")),
                    r#"{plain,"with space","a \"quoted\" one",NULL,größer,"back\\slash"}"#.to_owned(),
                    r#"{"2026-01-01 10:20:30+00","2026-01-02 10:20:30.123+00"}"#.to_owned(),
                ])
            },
        },
    ]
}

fn texts<const N: usize>(values: [String; N]) -> Vec<Option<String>> {
    values.map(Some).into()
}

fn named<const N: usize>(codec: Codec) -> Vec<(&'static str, Codec)> {
    const NAMES: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
    NAMES[..N].iter().map(|name| (*name, codec.clone())).collect()
}

impl Table {
    /// The columns' names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.columns.iter().map(|(name, _)| *name)
    }

    /// How their values are written.
    pub(crate) fn codecs(&self) -> impl Iterator<Item = &Codec> {
        self.columns.iter().map(|(_, codec)| codec)
    }

    /// A row of COPY in text format.
    pub(crate) fn copy_row(&self, n: usize) -> Vec<u8> {
        let escaped =
            |text: String| text.replace('\\', r"\\").replace('\n', r"\n").replace('\r', r"\r").replace('\t', r"\t");
        let fields: Vec<_> =
            (self.row)(n).into_iter().map(|text| text.map_or_else(|| r"\N".to_owned(), escaped)).collect();
        (fields.join("\t") + "\n").into_bytes()
    }

    /// An Insert message of pgoutput.
    pub(crate) fn pgoutput_insert(&self, n: usize) -> Vec<u8> {
        let row = (self.row)(n);
        let mut message = b"I\0\0\x40\0N".to_vec();
        message.extend_from_slice(&(row.len() as u16).to_be_bytes());
        for text in row {
            match text {
                Some(text) => {
                    message.push(b't');
                    message.extend_from_slice(&(text.len() as u32).to_be_bytes());
                    message.extend_from_slice(text.as_bytes());
                }
                None => message.push(b'n'),
            }
        }
        message
    }

    /// An insert as wal2json prints it.
    pub(crate) fn wal2json_insert(&self, n: usize) -> Vec<u8> {
        let columns: Vec<Value> = self
            .columns
            .iter()
            .zip((self.row)(n))
            .map(|((name, codec), text)| {
                let value = match (codec, text) {
                    (_, None) => Value::Null,
                    (Codec::Boolean, Some(text)) => Value::Bool(text == "t"),
                    // A number keeps its digits.
                    (Codec::Integer | Codec::Number, Some(text)) => serde_json::from_str(&text).expect("a number"),
                    (_, Some(text)) => Value::String(text),
                };
                json!({"name": name, "value": value})
            })
            .collect();
        let message = json!({
            "action": "I", "xid": 767, "timestamp": "2026-11-22 07:04:19.287807+00", "lsn": "0/19D5CC8",
            "nextlsn": "0/19D5CF8", "schema": "public", "table": self.name, "columns": columns,
        });
        message.to_string().into_bytes()
    }
}
