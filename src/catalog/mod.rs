//! The catalog: what can be read, and what of it is wanted.
//!
//! Read are the catalogs of this tap, of the reference and of the MeltanoLabs tap, as they are and as Meltano rewrites
//! them: replication method and key may stand in the metadata or on the entry, with hyphens or underscores.

mod entry;
mod selection;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

pub use entry::{CatalogEntry, Metadata};
pub use selection::Selection;

use crate::error::{Error, Result};
use crate::json_file::{self, shown};

/// The streams of a database.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Catalog {
    /// The streams, in the order of the file.
    pub streams: Vec<CatalogEntry>,
}

impl Catalog {
    /// Reads a catalog file.
    pub fn load(path: &Path) -> Result<Catalog> {
        Catalog::parse(&path.display().to_string(), &json_file::read(path)?)
    }

    /// Reads the text of a catalog file; `file` is its name in errors.
    pub fn parse(file: &str, text: &str) -> Result<Catalog> {
        let streams = match json_file::parse(file, text)?.get_mut("streams").map(Value::take) {
            Some(Value::Array(streams)) => streams,
            found => {
                let found = found.map(|value| format!(", found {}", shown(&value))).unwrap_or_default();
                return Err(Error::usage(format!("{file}: key \"streams\": expected a list of streams{found}"))
                    .hint("make one with --discover"));
            }
        };
        let streams = streams
            .into_iter()
            .enumerate()
            .map(|(index, value)| {
                CatalogEntry::parse(value).map_err(|(name, problem)| {
                    let name = name.map_or_else(|| format!("number {}", index + 1), |name| format!("{name:?}"));
                    Error::usage(format!("{file}: stream {name}: {problem}"))
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let mut seen = HashSet::new();
        for entry in streams.iter().filter(|entry| entry.is_selected()) {
            if !seen.insert(&entry.tap_stream_id) {
                return Err(Error::usage(format!("{file}: stream {:?} is selected twice", entry.tap_stream_id)));
            }
        }
        Ok(Catalog { streams })
    }

    /// The streams that are wanted.
    pub fn selected(&self) -> impl Iterator<Item = &CatalogEntry> {
        self.streams.iter().filter(|entry| entry.is_selected())
    }

    /// Writes the catalog as `--discover` prints it.
    pub fn write_pretty(&self, mut out: impl Write) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut out, self)?;
        out.write_all(b"\n")
    }
}
