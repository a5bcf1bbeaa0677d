//! `batch_config`, as the Meltano SDK defines it.

use std::num::NonZeroU64;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde_json::{Map, Value, json};

use super::choices::{BatchCompression, BatchFormat};
use super::read::{Setting, text};
use crate::json_file::shown;

/// Rows of tables go into files, which BATCH messages announce.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(inline)]
pub(crate) struct BatchConfig {
    /// How the files are written.
    #[schemars(with = "Option<Encoding>")]
    pub encoding: Encoding,
    /// Where the files are written.
    pub storage: Storage,
    /// How many rows a file of a batch has at most (10000).
    #[schemars(with = "Option<u64>", range(min = 1))]
    pub batch_size: NonZeroU64,
}

/// How the files of batches are written.
#[derive(Clone, Copy, Debug, JsonSchema)]
#[schemars(inline)]
pub(crate) struct Encoding {
    /// The format of the files of batches (jsonl).
    #[schemars(with = "Option<BatchFormat>")]
    pub format: BatchFormat,
    /// How the files of batches are compressed (gzip).
    #[schemars(with = "Option<BatchCompression>")]
    pub compression: BatchCompression,
}

/// Where the files of batches are written.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(inline)]
pub(crate) struct Storage {
    /// The directory of the files of batches, `file:///…`; it is made where it is missing.
    #[schemars(with = "String")]
    pub root: PathBuf,
    /// What the names of the files of batches begin with.
    #[schemars(with = "Option<String>")]
    pub prefix: String,
}

const BATCH_SIZE: NonZeroU64 = NonZeroU64::new(10_000).expect("not 0");

/// The members of an object; one that nobody takes is an error.
struct Members<'a> {
    path: &'a str,
    members: Map<String, Value>,
}

impl<'a> Members<'a> {
    fn of(path: &'a str, value: Option<Value>) -> Result<Self, String> {
        match value {
            None | Some(Value::Null) => Ok(Members { path, members: Map::new() }),
            Some(Value::Object(members)) => Ok(Members { path, members }),
            Some(other) => Err(format!("{path}expected an object, found {}", shown(&other))),
        }
    }

    /// Takes a member; null and the empty text count as absent.
    fn take(&mut self, key: &str) -> Option<Value> {
        self.members.remove(key).filter(|value| !value.is_null() && *value != json!(""))
    }

    fn read<T: Setting>(&mut self, key: &str) -> Result<Option<T>, String> {
        let path = self.path;
        self.take(key).map(T::read).transpose().map_err(|error| format!("{path}{key:?}: {error}"))
    }

    fn end(self) -> Result<(), String> {
        match self.members.keys().next() {
            None => Ok(()),
            Some(key) => Err(format!("{}unknown key {key:?}", self.path)),
        }
    }
}

impl Setting for BatchConfig {
    fn read(value: Value) -> Result<Self, String> {
        let mut members = Members::of("", Some(value))?;
        let mut encoding = Members::of("\"encoding\": ", members.take("encoding"))?;
        let mut storage = Members::of("\"storage\": ", members.take("storage"))?;
        let config = BatchConfig {
            encoding: Encoding {
                format: encoding.read("format")?.unwrap_or_default(),
                compression: encoding.read("compression")?.unwrap_or_default(),
            },
            storage: Storage {
                root: storage.read::<Root>("root")?.ok_or("\"storage\": key \"root\" is missing")?.0,
                prefix: storage.read("prefix")?.unwrap_or_default(),
            },
            batch_size: members.read("batch_size")?.unwrap_or(BATCH_SIZE),
        };
        encoding.end()?;
        // Parameters of storage other than local files.
        storage.take("params");
        storage.end()?;
        members.end()?;
        Ok(config)
    }
}

impl Setting for NonZeroU64 {
    fn read(value: Value) -> Result<Self, String> {
        NonZeroU64::new(u64::read(value)?).ok_or_else(|| "at least 1 is needed".to_owned())
    }
}

/// A directory as a URL.
struct Root(PathBuf);

impl Setting for Root {
    fn read(value: Value) -> Result<Self, String> {
        let url = text(&value)?;
        match url.strip_prefix("file://") {
            Some(path) if path.starts_with('/') => Ok(Root(path.into())),
            _ => Err(format!("{} is no directory of this machine: file:///… is", shown(&value))),
        }
    }
}
