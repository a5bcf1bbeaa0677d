//! State: how far each stream was read, `{"bookmarks": {id: {…}}, "currently_syncing": id or null}`.
//!
//! Bookmarks stay the JSON they were read as, unknown keys and order included, so that another tap can go on from what
//! this one writes. The accessors see through the forms that other programs write:
//!
//! - PipelineWise FastSync's `{"lsn": n, "version": 1}`, and its reset, `lsn` 1;
//! - the MeltanoLabs tap's LOG_BASED `{"replication_key": "_sdc_lsn", "replication_key_value": n}`, the key of which its 0.10 writes
//!   as null;
//! - the reference's unfinished copy: `xmin` set, or `lsn` without an `xmin` key while `currently_syncing` is on it.

mod bookmark;
#[cfg(test)]
mod tests;

use std::path::Path;

use serde_json::{Map, Value, json};

pub(crate) use bookmark::{Bookmark, Definition, Progress};
use bookmark::{DEFINITION_KEY, KEYS, LSN_KEY, MELTANO_LSN, PROGRESS_KEY, UNCHECKED_KEY};

use crate::error::{Error, Result};
use crate::json_file::{self, shown};
use crate::method::ReplicationMethod;
use crate::positions::{Bookmarkable, Resume, TransactionSnapshot};

/// The state of a sync: how far each stream was read.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct State {
    /// Every value is an object: see [`State::parse`].
    bookmarks: Map<String, Value>,
    currently_syncing: Option<String>,
    /// Whether LOG_BASED bookmarks have the MeltanoLabs tap's position beside ours.
    for_meltanolabs: bool,
}

/// Whether every row of a copy has been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Copy {
    /// Not yet; the next run repeats the copy, or goes on with it where it is in slices. Written as `xmin: 1`, on which the
    /// reference copies again too.
    Unfinished,
    /// Yes. Written as `xmin: null`.
    Finished,
}

impl State {
    /// Reads a state file. An empty file is an empty state, and warned of: a target that did not start leaves such.
    pub(crate) fn load(path: &Path) -> Result<State> {
        let (file, text) = (path.display().to_string(), json_file::read(path)?);
        if text.trim().is_empty() {
            tracing::warn!("{file} is empty: everything is read from the beginning");
        }
        State::parse(&file, &text)
    }

    /// Reads the text of a state file; `file` is its name in errors.
    pub(crate) fn parse(file: &str, text: &str) -> Result<State> {
        if text.trim().is_empty() {
            return Ok(State::default());
        }
        let mut value = json_file::parse(file, text)?;
        // A whole STATE message, as somebody may have saved it.
        if value.get("type").is_some_and(|kind| kind == "STATE") {
            value = value["value"].take();
        }
        let mut object = match value {
            Value::Null => return Ok(State::default()),
            Value::Object(object) => object,
            other => return Err(Error::usage(format!("{file}: expected a state object, found {}", shown(&other)))),
        };
        let bookmarks = match object.remove("bookmarks") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(bookmarks)) => bookmarks,
            Some(other) => {
                return Err(Error::usage(format!(
                    "{file}: key \"bookmarks\": expected an object, found {}",
                    shown(&other)
                )));
            }
        };
        let currently_syncing = match object.remove("currently_syncing") {
            None | Some(Value::Null) => None,
            Some(Value::String(id)) => Some(id).filter(|id| !id.is_empty()),
            Some(other) => {
                return Err(Error::usage(format!(
                    "{file}: key \"currently_syncing\": expected a stream or null, found {}",
                    shown(&other)
                )));
            }
        };
        let bookmarks = bookmarks
            .into_iter()
            .map(|(id, bookmark)| {
                let checked = bookmark::checked(bookmark)
                    .map_err(|problem| Error::usage(format!("{file}: stream {id:?}: {problem}")))?;
                Ok((id, Value::Object(checked)))
            })
            .collect::<Result<_>>()?;
        Ok(State { bookmarks, currently_syncing, for_meltanolabs: false })
    }

    /// Has LOG_BASED bookmarks written so that the MeltanoLabs tap can go on from them. `copies`: whether that tap copies a table before it
    /// reads its changes. A copy that we have not finished it has made then, where it has gone on.
    pub(crate) fn for_meltanolabs(mut self, copies: bool) -> State {
        self.for_meltanolabs = true;
        let has_gone_on = |id: &&String| copies && self.bookmark(id).meltanolabs_has_gone_on();
        let ids: Vec<String> = self.bookmarks.keys().filter(has_gone_on).cloned().collect();
        for id in ids {
            if let Some(lsn) = self.bookmark(&id).lsn() {
                self.replace(&id, LSN_KEY, json!(lsn));
                self.replace(&id, "xmin", Copy::Finished.xmin());
                self.forget_progress(&id);
            }
        }
        self
    }

    /// Reads a state file that another program may be rewriting at this moment. `None` on any problem, and for a file
    /// that is empty.
    pub(crate) fn reread(path: &Path) -> Option<State> {
        let text = json_file::read(path).ok()?;
        State::parse("", &text).ok().filter(|state| !state.bookmarks.is_empty())
    }

    /// Returns the stream that a run was interrupted in; it goes first.
    pub(crate) fn currently_syncing(&self) -> Option<&str> {
        self.currently_syncing.as_deref()
    }

    /// Sets which stream is being read.
    pub(crate) fn set_currently_syncing(&mut self, id: Option<&str>) {
        self.currently_syncing = id.map(str::to_owned);
    }

    /// Returns a stream's bookmark; an empty one if it has none.
    pub(crate) fn bookmark(&self, id: &str) -> Bookmark<'_> {
        Bookmark::new(self.bookmarks.get(id).and_then(Value::as_object))
    }

    /// Whether a stream's copy has to be repeated from the start.
    fn copy_unfinished(&self, id: &str) -> bool {
        self.bookmark(id).copy_unfinished(self.currently_syncing() == Some(id))
    }

    /// Returns from where on a LOG_BASED stream is to be read. `table_oid`: the oid that its table has now, if known. A
    /// table that was dropped and made again has another oid, and is copied again.
    pub(crate) fn resume(&self, id: &str, table_oid: Option<u32>) -> Resume {
        let bookmark = self.bookmark(id);
        let is_same_table = match (bookmark.table_oid(), table_oid) {
            (Some(copied), Some(now)) => copied == now,
            _ => true,
        };
        match bookmark.position() {
            _ if !is_same_table => Resume::Copy,
            position if !self.copy_unfinished(id) => position,
            Resume::At(lsn) if bookmark.progress().is_some() => Resume::Copying(lsn),
            _ => Resume::Copy,
        }
    }

    /// Returns from where on the log has to be kept for a stream's bookmark, whether or not its copy was finished.
    pub(crate) fn kept_from(&self, id: &str) -> Resume {
        self.bookmark(id).position()
    }

    /// Clears a stream's bookmark if it was written under another replication method or replication key; returns
    /// whether it did. A bookmark that names no method is taken as the stream's own.
    pub(crate) fn clear_on_change(
        &mut self,
        id: &str,
        method: ReplicationMethod,
        replication_key: Option<&str>,
    ) -> bool {
        let bookmark = self.bookmark(id);
        let other_method = bookmark.method_name().is_some_and(|last| last != method.as_str());
        let other_key = method == ReplicationMethod::Incremental
            && bookmark.has_position()
            && bookmark.replication_key() != replication_key;
        let changed = other_method || other_key;
        if changed {
            self.bookmarks.insert(id.to_owned(), json!({}));
        }
        changed
    }

    /// Returns the streams with a LOG_BASED bookmark.
    pub(crate) fn log_based(&self) -> impl Iterator<Item = &str> {
        let is_log_based = |bookmark: &Value| Bookmark::new(bookmark.as_object()).is_log_based();
        self.bookmarks.iter().filter(move |(_, bookmark)| is_log_based(bookmark)).map(|(id, _)| id.as_str())
    }

    /// Drops the LOG_BASED bookmarks of streams that are not selected: their positions would hold the slot back.
    pub(crate) fn drop_unselected_log_based(&mut self, is_selected: impl Fn(&str) -> bool) {
        let unselected: Vec<String> = self.log_based().filter(|id| !is_selected(id)).map(str::to_owned).collect();
        self.bookmarks.retain(|id, _| !unselected.contains(id));
    }

    /// Writes a FULL_TABLE bookmark. An unfinished one has no `xmin`: the reference would go on under its version, in which
    /// the target may hold rows that are gone by then.
    pub(crate) fn set_full_table(&mut self, id: &str, version: i64, copy: Copy) {
        let xmin = (copy == Copy::Finished).then(|| ("xmin", copy.xmin()));
        self.set(id, ReplicationMethod::FullTable, [("version", json!(version))].into_iter().chain(xmin));
    }

    /// Writes an INCREMENTAL bookmark; without a value no row has been read yet.
    pub(crate) fn set_incremental(&mut self, id: &str, replication_key: &str, value: Option<Value>, version: i64) {
        let entries = [("replication_key", json!(replication_key)), ("version", json!(version))];
        let value = value.map(|value| ("replication_key_value", value));
        self.set(id, ReplicationMethod::Incremental, entries.into_iter().chain(value));
    }

    /// Notes in a bookmark which table it is of; nothing happens to a stream without a bookmark.
    pub(crate) fn set_table(&mut self, id: &str, table_oid: u32) {
        self.replace(id, "table_oid", json!(table_oid));
    }

    /// Writes a LOG_BASED bookmark.
    pub(crate) fn set_log_based(&mut self, id: &str, position: Bookmarkable, version: i64, copy: Copy, table_oid: u32) {
        self.set_position(id, position.lsn().0, version, copy, table_oid);
    }

    /// Gives a LOG_BASED bookmark whose copy is finished this tap's form; its position and what it knows of the table stay.
    pub(crate) fn adopt(&mut self, id: &str, version: i64, table_oid: u32) {
        let bookmark = self.bookmark(id);
        let (lsn, definition) = (bookmark.lsn(), bookmark.definition());
        if let Some(lsn) = lsn {
            self.set_position(id, lsn, version, Copy::Finished, table_oid);
        }
        if let Some(definition) = definition {
            self.set_definition(id, &definition);
        }
    }

    fn set_position(&mut self, id: &str, lsn: u64, version: i64, copy: Copy, table_oid: u32) {
        let entries = [
            (LSN_KEY, json!(lsn)),
            ("version", json!(version)),
            ("xmin", copy.xmin()),
            ("table_oid", json!(table_oid)),
        ];
        self.set(id, ReplicationMethod::LogBased, entries);
        self.mirror_position(id);
    }

    /// Moves a LOG_BASED bookmark, leaving everything else in it; nothing happens to a stream without a bookmark.
    pub(crate) fn set_lsn(&mut self, id: &str, position: Bookmarkable) {
        self.replace(id, LSN_KEY, json!(position.lsn().0));
        self.mirror_position(id);
    }

    /// Writes a position as the MeltanoLabs tap has it too. It knows of no unfinished copy: it would go on without the rest.
    fn mirror_position(&mut self, id: &str) {
        let position = if self.for_meltanolabs { self.bookmark(id).own_position_of_copied() } else { None };
        let Some(bookmark) = self.bookmarks.get_mut(id).and_then(Value::as_object_mut) else { return };
        match position {
            Some(lsn) => {
                bookmark.insert("replication_key".to_owned(), json!(MELTANO_LSN));
                bookmark.insert("replication_key_value".to_owned(), json!(lsn));
            }
            None => {
                bookmark.shift_remove("replication_key");
                bookmark.shift_remove("replication_key_value");
            }
        }
    }

    /// Marks a stream's copy as complete, with everything that committed before this position.
    pub(crate) fn finish_copy(&mut self, id: &str, position: Bookmarkable) {
        self.replace(id, "xmin", Copy::Finished.xmin());
        self.set_lsn(id, position);
        self.forget_progress(id);
    }

    /// Notes in a LOG_BASED bookmark how far its copy is; nothing happens to a stream without a bookmark.
    pub(crate) fn set_progress(&mut self, id: &str, progress: &Progress) {
        self.replace(id, PROGRESS_KEY, progress.write());
    }

    /// Has a copy begin with the first page.
    fn forget_progress(&mut self, id: &str) {
        if let Some(bookmark) = self.bookmarks.get_mut(id).and_then(Value::as_object_mut) {
            bookmark.shift_remove(PROGRESS_KEY);
        }
    }

    /// Gives a LOG_BASED bookmark another version; nothing happens to a stream without a bookmark.
    pub(crate) fn set_version(&mut self, id: &str, version: i64) {
        self.replace(id, "version", json!(version));
    }

    /// Notes in a LOG_BASED bookmark how the table is defined; nothing happens to a stream without a bookmark.
    pub(crate) fn set_definition(&mut self, id: &str, definition: &Definition) {
        self.replace(id, DEFINITION_KEY, definition.write());
    }

    /// Notes in the LOG_BASED bookmarks that there are that nobody could tell any more, since this snapshot, whether tables that were
    /// read by their names still had them.
    pub(crate) fn set_unchecked(&mut self, seen: &TransactionSnapshot) {
        let ids: Vec<String> = self.log_based().map(str::to_owned).collect();
        for id in ids {
            self.replace(&id, UNCHECKED_KEY, json!(seen.in_short()));
        }
    }

    fn replace(&mut self, id: &str, key: &str, value: Value) {
        if let Some(bookmark) = self.bookmarks.get_mut(id).and_then(Value::as_object_mut) {
            bookmark.insert(key.to_owned(), value);
        }
    }

    /// Marks a LOG_BASED stream that is about to be copied, keeping what its bookmark holds. Without a position there is
    /// nothing to mark: the reference refuses `xmin` without `lsn`, and copies such a stream anyway.
    pub(crate) fn announce_copy(&mut self, id: &str) {
        let lsn = self.bookmark(id).lsn();
        self.forget_progress(id);
        let bookmark = self.bookmark_mut(id);
        bookmark.insert("last_replication_method".to_owned(), json!(ReplicationMethod::LogBased.as_str()));
        if let Some(lsn) = lsn {
            bookmark.insert(LSN_KEY.to_owned(), json!(lsn));
            bookmark.insert("xmin".to_owned(), Copy::Unfinished.xmin());
        }
        // The MeltanoLabs tap would go on without the copy.
        self.mirror_position(id);
    }

    /// Appends the value of a STATE message.
    pub(crate) fn write_state_value(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"bookmarks\":");
        write_json(&self.bookmarks, out);
        out.extend_from_slice(b",\"currently_syncing\":");
        write_json(&self.currently_syncing, out);
        out.push(b'}');
    }

    /// Replaces this tap's keys of a bookmark; keys of others stay.
    fn set(&mut self, id: &str, method: ReplicationMethod, entries: impl IntoIterator<Item = (&'static str, Value)>) {
        let bookmark = self.bookmark_mut(id);
        let foreign: Vec<_> =
            std::mem::take(bookmark).into_iter().filter(|(k, _)| !KEYS.contains(&k.as_str())).collect();
        bookmark.insert("last_replication_method".to_owned(), json!(method.as_str()));
        bookmark.extend(entries.into_iter().map(|(key, value)| (key.to_owned(), value)));
        bookmark.extend(foreign);
    }

    fn bookmark_mut(&mut self, id: &str) -> &mut Map<String, Value> {
        let bookmark = self.bookmarks.entry(id).or_insert_with(|| json!({}));
        if !bookmark.is_object() {
            *bookmark = json!({});
        }
        bookmark.as_object_mut().expect("made an object above")
    }
}

impl Copy {
    fn xmin(self) -> Value {
        match self {
            Copy::Unfinished => json!(1),
            Copy::Finished => Value::Null,
        }
    }
}

fn write_json<T: serde::Serialize>(value: &T, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("maps with string keys serialize, and a Vec takes every write");
}
