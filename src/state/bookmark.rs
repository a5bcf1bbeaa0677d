//! One stream's bookmark, in this tap's form and in others'.

use serde_json::{Map, Value};

use crate::json_file::shown;
use crate::method::ReplicationMethod;
use crate::pg::Lsn;
use crate::positions::{Resume, TransactionSnapshot};

/// The key of a LOG_BASED bookmark's position.
pub(super) const LSN_KEY: &str = "lsn";

/// The keys whose meaning is known here; every method's bookmark has some of them.
pub(super) const KEYS: [&str; 10] = [
    "last_replication_method",
    LSN_KEY,
    "version",
    "xmin",
    "table_oid",
    DEFINITION_KEY,
    UNCHECKED_KEY,
    PROGRESS_KEY,
    "replication_key",
    "replication_key_value",
];

/// Under which a LOG_BASED bookmark holds its [`Definition`].
pub(super) const DEFINITION_KEY: &str = "definition";

/// Under which a LOG_BASED bookmark holds since when nobody could tell whether its table was altered.
pub(super) const UNCHECKED_KEY: &str = "unchecked_since";

/// Under which a LOG_BASED bookmark holds the [`Progress`] of its copy.
pub(super) const PROGRESS_KEY: &str = "copy";

/// PipelineWise's reset: "start where the slot stands".
const SLOT_POSITION: u64 = 1;

/// The replication key that the MeltanoLabs tap gives to LOG_BASED streams.
pub(super) const MELTANO_LSN: &str = "_sdc_lsn";

/// One stream's bookmark. The values were checked when the state was read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bookmark<'a>(Option<&'a Map<String, Value>>);

impl<'a> Bookmark<'a> {
    pub(super) fn new(object: Option<&'a Map<String, Value>>) -> Self {
        Bookmark(object)
    }

    /// Returns the value of a key; null counts as absent.
    fn get(self, key: &str) -> Option<&'a Value> {
        self.0?.get(key).filter(|value| !value.is_null())
    }

    /// Whether the stream has no bookmark, or one without a key.
    #[cfg(test)]
    pub(crate) fn is_empty(self) -> bool {
        self.0.is_none_or(Map::is_empty)
    }

    /// Returns the method that the bookmark was written under, as it is named there.
    pub(super) fn method_name(self) -> Option<&'a str> {
        self.get("last_replication_method")?.as_str()
    }

    /// Returns the method that the bookmark was written under.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn method(self) -> Option<ReplicationMethod> {
        self.method_name()?.parse().ok()
    }

    /// Returns from where on the log has to be there for this bookmark, whether or not its copy was finished.
    pub(super) fn position(self) -> Resume {
        match self.lsn() {
            None => Resume::Copy,
            Some(SLOT_POSITION) => Resume::AtSlot,
            Some(lsn) => Resume::At(Lsn(lsn)),
        }
    }

    /// Whether the bookmark has a position, in whatever form.
    pub(super) fn has_lsn(self) -> bool {
        self.lsn().is_some()
    }

    /// Returns the position as a number; `None` for 0.
    pub(super) fn lsn(self) -> Option<u64> {
        let own = self.get(LSN_KEY).and_then(parse_lsn);
        let meltano = self.get("replication_key_value").filter(|_| self.is_meltano_log_based()).and_then(parse_lsn);
        let lsn = match (own, meltano) {
            // Where both are, that tap may have gone on from ours.
            (Some(own), Some(meltano)) if own > SLOT_POSITION => own.max(meltano),
            (own, meltano) => own.or(meltano)?,
        };
        (lsn != 0).then_some(lsn)
    }

    /// Whether the MeltanoLabs tap has gone on from a bookmark of a copy that was not finished: ours has no position of its then.
    pub(super) fn meltanolabs_has_gone_on(self) -> bool {
        self.is_meltano_log_based() && self.get(LSN_KEY).is_some() && self.copy_unfinished(false)
    }

    /// Returns the position in our form, if the stream's copy is finished.
    pub(super) fn own_position_of_copied(self) -> Option<u64> {
        let lsn = self.get(LSN_KEY).and_then(parse_lsn)?;
        (lsn > SLOT_POSITION && !self.copy_unfinished(false)).then_some(lsn)
    }

    /// Whether no run has begun to copy the table.
    pub(crate) fn is_new(self) -> bool {
        self.version().is_none() && !self.has_lsn()
    }

    /// Returns the version of the table that the target holds.
    pub(crate) fn version(self) -> Option<i64> {
        self.get("version").and_then(parse_number)
    }

    /// Returns the oid of the table that was copied.
    pub(crate) fn table_oid(self) -> Option<u32> {
        self.get("table_oid").and_then(parse_number)
    }

    /// Returns how the table was defined when a run last read its changes.
    pub(crate) fn definition(self) -> Option<Definition> {
        self.get(DEFINITION_KEY).and_then(Definition::read)
    }

    /// Returns what a run saw that read the table by its name and could not ask in the end whether it still had this name.
    pub(crate) fn unchecked_since(self) -> Option<TransactionSnapshot> {
        TransactionSnapshot::parse(self.get(UNCHECKED_KEY)?.as_str()?)
    }

    /// Whether a copy was interrupted; `is_current`: `currently_syncing` is on this stream. The reference writes no
    /// `xmin` before its first batch of rows is through.
    pub(crate) fn copy_unfinished(self, is_current: bool) -> bool {
        let marked = self.get("xmin").and_then(parse_number::<u64>).is_some_and(|xmin| xmin != 0);
        let without_xmin = self.0.is_some_and(|object| !object.contains_key("xmin"));
        marked || (is_current && without_xmin && self.get(LSN_KEY).is_some())
    }

    /// Returns how far an unfinished copy is; without the version of what was sent none is.
    pub(crate) fn progress(self) -> Option<Progress> {
        self.version()?;
        self.get(PROGRESS_KEY).and_then(Progress::read)
    }

    /// Returns the column of an INCREMENTAL bookmark.
    pub(crate) fn replication_key(self) -> Option<&'a str> {
        self.get("replication_key")?.as_str()
    }

    /// Returns the value up to which rows were read, exactly as it was written.
    pub(crate) fn replication_key_value(self) -> Option<&'a Value> {
        self.get("replication_key_value")
    }

    /// Whether the bookmark is one of LOG_BASED, also where it names no method.
    pub(super) fn is_log_based(self) -> bool {
        match self.method_name() {
            Some(name) => name == ReplicationMethod::LogBased.as_str(),
            None => self.get(LSN_KEY).is_some() || self.is_meltano_log_based(),
        }
    }

    /// Whether the bookmark holds anything that a changed replication key would make wrong.
    pub(super) fn has_position(self) -> bool {
        ["replication_key", "replication_key_value", LSN_KEY].iter().any(|key| self.get(key).is_some())
    }

    fn is_meltano_log_based(self) -> bool {
        match self.replication_key() {
            Some(key) => key == MELTANO_LSN,
            // Its INCREMENTAL bookmarks name their key.
            None => {
                self.method_name().is_none_or(|name| name == ReplicationMethod::LogBased.as_str())
                    && self.replication_key_value().is_some_and(Value::is_u64)
            }
        }
    }
}

/// How far a copy in slices of pages is. A bookmark has it as `[page, [file, …], definition]`; one of another form counts as none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    /// The first page that is not known to be sent.
    pub(crate) page: u64,
    /// The files of the table and its partitions (`pg_class.relfilenode`): in others, rows are in other pages.
    pub(crate) files: Vec<u32>,
    /// How the table was defined when the copy began.
    pub(crate) definition: Definition,
}

impl Progress {
    fn read(value: &Value) -> Option<Progress> {
        let [page, files, definition] = value.as_array()?.as_slice() else { return None };
        let page = page.as_u64().filter(|page| *page <= u32::MAX.into())?;
        Some(Progress { page, files: numbers(files)?, definition: Definition::read(definition)? })
    }

    pub(super) fn write(&self) -> Value {
        serde_json::json!([self.page, self.files, self.definition.write()])
    }
}

/// How a table is defined, as far as has to be known to tell later that it was altered. The first three numbers are made of the
/// ids of the transactions that wrote rows of the catalogs, and are others when one of these is written again. A bookmark has all
/// of it as an array; one of another form, from another version of the tap, counts as none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Definition {
    /// Of the row that was written when the table was made; after `pg_upgrade` it is another, and so are the next two.
    pub(crate) created: i64,
    /// Of the columns and their types.
    pub(crate) columns: i64,
    /// Of the key.
    pub(crate) key: i64,
    /// Of the oids of its partitions.
    pub(crate) partitions: i64,
    /// What this snapshot sees had committed before the bookmark's position, and was known to the run.
    pub(crate) seen: TransactionSnapshot,
    /// Writers of which the snapshot alone does not tell, and that were known to the run all the same.
    pub(crate) known: Vec<u32>,
}

impl Definition {
    fn read(value: &Value) -> Option<Definition> {
        match value.as_array()?.as_slice() {
            [created, columns, key, partitions, seen, known] => Some(Definition {
                created: created.as_i64()?,
                columns: columns.as_i64()?,
                key: key.as_i64()?,
                partitions: partitions.as_i64()?,
                seen: TransactionSnapshot::parse(seen.as_str()?)?,
                known: numbers(known)?,
            }),
            _ => None,
        }
    }

    pub(super) fn write(&self) -> Value {
        serde_json::json!([self.created, self.columns, self.key, self.partitions, self.seen.in_short(), self.known])
    }

    /// Makes one up.
    #[cfg(test)]
    pub(crate) fn for_test() -> Definition {
        let seen = TransactionSnapshot::parse("10:10:").expect("a snapshot");
        Definition { created: 1, columns: 2, key: 3, partitions: 4, seen, known: Vec::new() }
    }

    /// Whether the run knew what the owner of this id had written.
    pub(crate) fn knows_of(&self, writer: u32) -> bool {
        self.seen.sees_writer(writer) || self.known.contains(&writer)
    }

    /// Whether the other numbers of the two can be compared.
    pub(crate) fn is_of_the_same_making(&self, other: &Definition) -> bool {
        self.created == other.created
    }
}

/// Returns the bookmark as an object, its known keys checked; the error names the key.
pub(super) fn checked(value: Value) -> Result<Map<String, Value>, String> {
    let object = match value {
        Value::Null => Map::new(),
        Value::Object(object) => object,
        other => return Err(format!("expected an object, found {}", shown(&other))),
    };
    for (key, value) in object.iter().filter(|(_, value)| !value.is_null()) {
        if let Some(expected) = problem(key, value) {
            return Err(format!("key {key:?}: expected {expected}, found {}", shown(value)));
        }
    }
    let bookmark = Bookmark(Some(&object));
    if bookmark.is_meltano_log_based() && bookmark.replication_key_value().is_some_and(|v| parse_lsn(v).is_none()) {
        return Err(format!(
            "key \"replication_key_value\": expected a WAL position, found {}",
            shown(&object["replication_key_value"])
        ));
    }
    Ok(object)
}

/// Returns what a known key should hold, if it holds something else.
fn problem(key: &str, value: &Value) -> Option<&'static str> {
    let (fits, expected) = match key {
        "last_replication_method" | "replication_key" => (value.is_string(), "a text"),
        LSN_KEY => (parse_lsn(value).is_some(), "a WAL position (an integer, or a text like \"16/B374D848\")"),
        "version" => (parse_number::<i64>(value).is_some(), "an integer"),
        "xmin" => (parse_number::<u64>(value).is_some(), "an integer or null"),
        "table_oid" => (parse_number::<u32>(value).is_some(), "an oid"),
        DEFINITION_KEY | PROGRESS_KEY => (value.is_array(), "an array"),
        UNCHECKED_KEY => (value.as_str().is_some_and(|text| TransactionSnapshot::parse(text).is_some()), "a snapshot"),
        "replication_key_value" => (!value.is_object() && !value.is_array(), "a number or a text"),
        _ => (true, ""),
    };
    (!fits).then_some(expected)
}

/// Reads an array of oids or ids of transactions.
fn numbers(value: &Value) -> Option<Vec<u32>> {
    value.as_array()?.iter().map(|number| u32::try_from(number.as_u64()?).ok()).collect()
}

/// Reads an integer, or a text of its digits.
fn parse_number<T: std::str::FromStr>(value: &Value) -> Option<T> {
    match value {
        Value::Number(number) => number.to_string().parse().ok(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// Reads a position: an integer, its digits, or PostgreSQL's text form.
fn parse_lsn(value: &Value) -> Option<u64> {
    let half = |part: &str| {
        let hexadecimal = (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_hexdigit());
        if hexadecimal { u64::from_str_radix(part, 16).ok() } else { None }
    };
    match value.as_str().and_then(|text| text.trim().split_once('/')) {
        Some((high, low)) => Some(half(high)? << 32 | half(low)?),
        None => parse_number(value),
    }
}
