//! Micro-benchmarks of the codecs, for use while working: rows and bytes per second, from what the server sends to
//! RECORD lines in memory. `scripts/bench` measures whole runs.

mod tables;

use std::hint::black_box;

use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime};
use tap_postgres_rs::bench::{Change, Field, JsonBuf, OutputPlugin, Pgoutput, Value, Wal2json, fields, unescape};

use tables::Table;

/// Rows, or messages, of an iteration: as many as a large write to stdout has.
const ROWS: usize = 1000;

/// What stands around the values of a RECORD line, as a stream has it ready.
struct Line {
    start: Vec<u8>,
    labels: Vec<Vec<u8>>,
}

impl Line {
    const END: &[u8] = b"},\"version\":1700000000000,\"time_extracted\":\"2026-01-01T00:00:00.000000Z\"}\n";

    fn of(table: &Table) -> Line {
        let start = format!(r#"{{"type":"RECORD","stream":"public-{}","record":{{"#, table.name);
        let label = |(at, name): (usize, &str)| format!("{}\"{name}\":", if at > 0 { "," } else { "" }).into_bytes();
        Line { start: start.into_bytes(), labels: table.names().enumerate().map(label).collect() }
    }

    /// Appends a line with these values, in the table's order.
    fn write<'v>(&self, table: &Table, out: &mut JsonBuf, mut value: impl FnMut(usize) -> Option<&'v [u8]>) {
        out.raw(&self.start);
        for (at, (label, codec)) in self.labels.iter().zip(table.codecs()).enumerate() {
            out.raw(label);
            if value(at).map(|text| codec.encode(text, out)).is_none() {
                out.raw(b"null");
            }
        }
        out.raw(Self::END);
    }
}

/// Measures what becomes of all of these, each iteration into the same buffer.
fn measure(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    input: &[Vec<u8>],
    mut encode: impl FnMut(&[u8], &mut JsonBuf),
) {
    let bytes = input.iter().map(Vec::len).sum::<usize>() as u64;
    group.throughput(Throughput::ElementsAndBytes { elements: input.len() as u64, bytes });
    let mut out = JsonBuf::new();
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            out.clear();
            for piece in input {
                encode(black_box(piece), &mut out);
            }
            black_box(out.as_bytes().len())
        });
    });
}

/// A row of COPY in text format → its RECORD line.
fn copy(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("copy");
    for table in tables::all() {
        let line = Line::of(&table);
        let rows: Vec<_> = (0..ROWS).map(|row| table.copy_row(row)).collect();
        let mut scratch = Vec::new();
        measure(&mut group, table.name, &rows, |row, out| {
            out.raw(&line.start);
            for ((label, codec), field) in line.labels.iter().zip(table.codecs()).zip(fields(row)) {
                out.raw(label);
                let text = match field {
                    Field::Null => None,
                    Field::Plain(text) => Some(text),
                    Field::Escaped(text) => Some(unescape(text, &mut scratch)),
                };
                if text.map(|text| codec.encode(text, out)).is_none() {
                    out.raw(b"null");
                }
            }
            out.raw(Line::END);
        });
    }
}

/// A message of an output plugin → its RECORD line.
fn messages(criterion: &mut Criterion, plugin: &mut dyn OutputPlugin, message: fn(&Table, usize) -> Vec<u8>) {
    let mut group = criterion.benchmark_group(plugin.name());
    for table in tables::all() {
        let line = Line::of(&table);
        let messages: Vec<_> = (0..ROWS).map(|row| message(&table, row)).collect();
        measure(&mut group, table.name, &messages, |message, out| {
            let decoded = plugin.decode(message).expect("a message");
            let Change::Insert { new, .. } = decoded.change else { panic!("not an insert") };
            line.write(&table, out, |at| match new.value(at) {
                Some(Value::Text(text)) => Some(text),
                _ => None,
            });
        });
    }
}

fn pgoutput(criterion: &mut Criterion) {
    messages(criterion, &mut Pgoutput::new(Vec::new()), Table::pgoutput_insert);
}

fn wal2json(criterion: &mut Criterion) {
    messages(criterion, &mut Wal2json::new(&[], None), Table::wal2json_insert);
}

/// A text → a JSON string.
fn json_string(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("json_string");
    let texts = [
        ("short", "paid".to_owned()),
        ("ascii", "a line of plain text, as most are ".repeat(8)),
        ("quotes", "a \"quoted\" word and a \\ in between ".repeat(8)),
        ("umlauts", "ein größerer Überblick über Äpfel ".repeat(8)),
        ("lines", "one line\nand the next one\r\n\t".repeat(8)),
    ];
    for (name, text) in texts {
        let input = vec![text.into_bytes(); ROWS];
        measure(&mut group, name, &input, |text, out| out.string(text));
    }
}

criterion_group!(codecs, copy, pgoutput, wal2json, json_string);
criterion_main!(codecs);
