//! The catalog: what can be read, and what of it is selected.
//!
//! It may be a catalog of this tap, of the reference or of the MeltanoLabs tap, as it is or as Meltano rewrites it:
//! replication method and key may stand in the metadata or on the entry, with hyphens or underscores.

mod entry;
mod outline;
mod patterns;
mod selection;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::path::Path;

use serde_json::Value;

pub(crate) use entry::{CatalogEntry, Metadata};
pub(crate) use patterns::Patterns;
pub(crate) use selection::Selection;

use crate::error::{Error, Result};
use crate::json_file::{self, shown};

/// The streams that a catalog file selects.
#[derive(Clone, Debug, Default)]
pub(crate) struct Catalog {
    /// In the order of the file.
    pub streams: Vec<CatalogEntry>,
}

impl Catalog {
    /// Reads a catalog file.
    pub(crate) fn load(path: &Path) -> Result<Catalog> {
        Catalog::parse(&path.display().to_string(), &json_file::read(path)?)
    }

    /// Reads the text of a catalog file; `file` is its name in errors.
    pub(crate) fn parse(file: &str, text: &str) -> Result<Catalog> {
        match outline::candidates(text) {
            Ok(streams) => Catalog::of(file, streams),
            // Parsed as a whole, to report what is wrong with it.
            Err(_) => Catalog::parse_whole(file, text),
        }
    }

    /// Reads the text of a catalog file, every stream of it, selected or not.
    pub(crate) fn parse_whole(file: &str, text: &str) -> Result<Catalog> {
        match json_file::parse(file, text)?.get_mut("streams").map(Value::take) {
            Some(Value::Array(streams)) => Catalog::of(file, streams.into_iter().enumerate()),
            found => {
                let found = found.map(|value| format!(", found {}", shown(&value))).unwrap_or_default();
                Err(Error::usage(format!("{file}: key \"streams\": expected a list of streams{found}"))
                    .hint("make one with --discover"))
            }
        }
    }

    /// Reads those of these streams that are selected; each comes with its place in the file.
    fn of(file: &str, streams: impl IntoIterator<Item = (usize, Value)>) -> Result<Catalog> {
        let mut selected = Vec::new();
        for (index, value) in streams {
            let entry = CatalogEntry::parse(value).map_err(|(name, problem)| {
                let name = name.map_or_else(|| format!("number {}", index + 1), |name| format!("{name:?}"));
                Error::usage(format!("{file}: stream {name}: {problem}"))
            })?;
            if entry.is_selected() {
                selected.push(entry);
            }
        }
        let mut seen = HashSet::new();
        if let Some(twice) = selected.iter().find(|entry| !seen.insert(&entry.tap_stream_id)) {
            return Err(Error::usage(format!("{file}: stream {:?} is selected twice", twice.tap_stream_id)));
        }
        Ok(Catalog { streams: selected })
    }
}
