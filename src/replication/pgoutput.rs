//! Messages of PostgreSQL's own output plugin, protocol version 1 (its manual: "Logical Replication Message Formats").
//!
//! Integers are big-endian and unaligned, strings end in a zero byte. The server sends text in the client's encoding.

use super::{
    Cell, Change, ColumnType, Heed, Message, OldTuple, OutputPlugin, Relation, RelationColumn, RelationId, Span, Tuple,
};
use crate::error::{Error, Result};
use crate::pg::Lsn;

/// Microseconds from 1970-01-01 to 2000-01-01, PostgreSQL's epoch.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// What went wrong where a publication is younger than what a slot has still to read.
pub(crate) const MISSING: &str = "a publication did not exist at a place of the log that is still to be read: it was made, \
                                  or made again, or renamed after that";
/// What to do about it.
pub(crate) const MISSING_HINT: &str = "changes that were made meanwhile are not in what the slot sends: drop the slot, and set on_slot_lost to copy_again, or start \
     with an empty state after you made it anew; if nothing was read from the slot yet, move it: \
     SELECT pg_replication_slot_advance(slot, pg_current_wal_lsn())";

/// The decoder. Holds the publications to ask for, and the cells of the row at hand, reused from row to row.
#[derive(Debug, Default)]
pub struct Pgoutput {
    publications: Vec<String>,
    cells: Vec<Cell>,
}

impl Pgoutput {
    /// Makes a decoder of the changes that these publications publish.
    pub fn new(publications: Vec<String>) -> Self {
        Pgoutput { publications, cells: Vec::new() }
    }

    fn read<'a>(&'a mut self, payload: &'a [u8]) -> Result<Message<'a>, Malformed> {
        self.cells.clear();
        if u32::try_from(payload.len()).is_err() {
            return Err(Malformed { at: 0, what: "longer than 4 GiB" });
        }
        let mut reader = Reader { payload, at: 0 };
        let tag = reader.u8()?;
        let mut relation = None;
        let change = match tag {
            b'B' => {
                let commit_lsn = reader.lsn()?;
                Change::Begin { commit_lsn, commit_time: reader.time()?, xid: reader.u32()? }
            }
            b'C' => {
                if reader.u8()? != 0 {
                    return Err(reader.malformed("unknown flags of a commit"));
                }
                let _commit_lsn = reader.lsn()?;
                let end_lsn = reader.lsn()?;
                let _commit_time = reader.time()?;
                Change::Commit { end_lsn }
            }
            b'R' => {
                relation = Some(reader.relation()?);
                Change::Other
            }
            b'T' => Change::Truncate { relations: reader.truncated()? },
            b'I' | b'U' | b'D' => return self.row(tag, reader).map(|change| Message { relation: None, change }),
            // Nothing in a Type, an Origin or a logical message is of use here.
            b'Y' | b'O' | b'M' => return Ok(Message { relation: None, change: Change::Other }),
            _ => return Err(Malformed { at: 0, what: "unknown kind of message" }),
        };
        reader.end()?;
        Ok(Message { relation, change })
    }

    /// Reads the rest of Insert, Update or Delete: the old row's cells first, if there is one, then the new row's.
    fn row<'a>(&'a mut self, tag: u8, mut reader: Reader<'a>) -> Result<Change<'a>, Malformed> {
        let relation = RelationId(reader.u32()?);
        let mut kind = reader.u8()?;
        let old_kind = if tag != b'I' && matches!(kind, b'K' | b'O') {
            reader.tuple(&mut self.cells)?;
            Some(kind)
        } else {
            None
        };
        let split = self.cells.len();
        if tag != b'D' {
            if old_kind.is_some() {
                kind = reader.u8()?;
            }
            if kind != b'N' {
                return Err(reader.malformed("unknown kind of row"));
            }
            reader.tuple(&mut self.cells)?;
        }
        reader.end()?;
        let (old_cells, new_cells) = self.cells.split_at(split);
        let tuple = |cells: &'a [Cell]| Tuple { cells, payload: reader.payload, scratch: &[] };
        let old = old_kind.map(|kind| match kind {
            b'O' => OldTuple::Full(tuple(old_cells)),
            _ => OldTuple::Key(tuple(old_cells)),
        });
        match (tag, old) {
            (b'I', _) => Ok(Change::Insert { relation, new: tuple(new_cells) }),
            (b'U', old) => Ok(Change::Update { relation, old, new: tuple(new_cells) }),
            (_, Some(old)) => Ok(Change::Delete { relation, old }),
            (_, None) => Err(reader.malformed("a delete without its old row")),
        }
    }
}

impl OutputPlugin for Pgoutput {
    fn name(&self) -> &'static str {
        "pgoutput"
    }

    fn options(&self) -> Vec<(String, String)> {
        let names: Vec<String> =
            self.publications.iter().map(|name| format!("\"{}\"", name.replace('"', "\"\""))).collect();
        vec![("proto_version".to_owned(), "1".to_owned()), ("publication_names".to_owned(), names.join(","))]
    }

    /// From PostgreSQL 18 on a publication that does not exist at a change's place in the log is passed over with a warning,
    /// and the changes with it. Older servers report an error.
    fn heed(&self) -> Heed {
        Box::new(|_, routine| match routine {
            "LoadPublications" => Err(Error::run(MISSING).hint(MISSING_HINT)),
            _ => Ok(true),
        })
    }

    fn decode<'a>(&'a mut self, payload: &'a [u8]) -> Result<Message<'a>> {
        self.read(payload).map_err(|malformed| {
            let kind = payload.first().map_or_else(|| "empty".to_owned(), |tag| format!("`{}`", tag.escape_ascii()));
            Error::run(format!(
                "malformed {kind} message from pgoutput at byte {} of {}: {}",
                malformed.at,
                payload.len(),
                malformed.what
            ))
        })
    }
}

/// What is wrong with a message, and where.
struct Malformed {
    at: usize,
    what: &'static str,
}

/// Reads a message from front to back; nothing is read before its length is known to be there.
struct Reader<'a> {
    payload: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn malformed(&self, what: &'static str) -> Malformed {
        Malformed { at: self.at, what }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let taken = self.payload[self.at..].get(..len).ok_or_else(|| self.malformed("it ends too early"))?;
        self.at += len;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    fn i32(&mut self) -> Result<i32, Malformed> {
        self.array().map(i32::from_be_bytes)
    }

    fn lsn(&mut self) -> Result<Lsn, Malformed> {
        self.array().map(|bytes| Lsn(u64::from_be_bytes(bytes)))
    }

    /// Reads a timestamp, from 2000-01-01 to 1970-01-01. An origin may set any commit time, infinity too: this saturates.
    fn time(&mut self) -> Result<i64, Malformed> {
        self.array().map(|bytes| i64::from_be_bytes(bytes).saturating_add(EPOCH_MICROS))
    }

    fn string(&mut self) -> Result<&'a str, Malformed> {
        let rest = &self.payload[self.at..];
        let len = memchr::memchr(0, rest).ok_or_else(|| self.malformed("a name without an end"))?;
        let text = std::str::from_utf8(&rest[..len]).map_err(|_| self.malformed("a name that is not UTF-8"))?;
        self.at += len + 1;
        Ok(text)
    }

    fn relation(&mut self) -> Result<Relation<'a>, Malformed> {
        let oid = self.u32()?;
        let schema = match self.string()? {
            "" => "pg_catalog",
            schema => schema,
        };
        let name = self.string()?;
        let replica_identity = Some(self.u8()?);
        let columns = (0..self.u16()?)
            .map(|_| {
                let key = self.u8()? & 1 != 0;
                let name = self.string()?;
                let ty = ColumnType { oid: self.u32()?, typmod: self.i32()? };
                Ok(RelationColumn { name, key, ty: Some(ty) })
            })
            .collect::<Result<_, _>>()?;
        Ok(Relation { id: RelationId(oid), oid: Some(oid), schema, name, replica_identity, columns })
    }

    /// Reads the tables of a Truncate. Its options (CASCADE, RESTART IDENTITY) change nothing for the rows.
    fn truncated(&mut self) -> Result<Vec<RelationId>, Malformed> {
        let count = self.u32()?;
        let _options = self.u8()?;
        (0..count).map(|_| self.u32().map(RelationId)).collect()
    }

    fn tuple(&mut self, cells: &mut Vec<Cell>) -> Result<(), Malformed> {
        for _ in 0..self.u16()? {
            let value = match self.u8()? {
                b'n' => Cell::Null,
                b'u' => Cell::Unchanged,
                b't' => {
                    let len = self.u32()? as usize;
                    let start = self.at;
                    self.take(len)?;
                    // Both fit: the payload's own length does.
                    Cell::Text(Span { scratch: false, start: start as u32, end: self.at as u32 })
                }
                b'b' => return Err(self.malformed("a value in binary form, which was not asked for")),
                _ => return Err(self.malformed("unknown kind of value")),
            };
            cells.push(value);
        }
        Ok(())
    }

    fn end(&self) -> Result<(), Malformed> {
        if self.at == self.payload.len() { Ok(()) } else { Err(self.malformed("bytes after its end")) }
    }
}

#[cfg(test)]
mod tests;
