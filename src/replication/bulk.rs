//! A bounded piece of the log in one go, over plain SQL: `pg_logical_slot_peek_binary_changes` through a binary COPY.
//!
//! A walsender makes a system call per change; this gets at the same messages in a third of the time. The server gathers
//! all of them (in work_mem, then in temporary files) before the first one leaves, so it has to be told where to end: a
//! read without a bound over a large backlog never finishes. `peek` leaves the slot as it is.

use super::slot::explain_refusal;
use super::{OutputPlugin, on_warning};
use crate::error::{Error, Result};
use crate::pg::wire::{CopyOut, Session};
use crate::pg::{Lsn, quote};

/// What a binary COPY starts with: signature, flags, length of the header's extension.
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
const HEADER: usize = SIGNATURE.len() + 8;

/// The messages of a slot up to a position.
pub(crate) struct BulkRead<'s> {
    rows: CopyOut<'s>,
    started: bool,
}

impl<'s> BulkRead<'s> {
    /// Asks for everything that committed before `upto`. The server refuses, if it does, at the first
    /// [`next`](Self::next).
    pub(crate) async fn start(
        session: &'s mut Session,
        slot: &str,
        plugin: &dyn OutputPlugin,
        upto: Lsn,
    ) -> Result<BulkRead<'s>> {
        let name = plugin.name();
        let options: String = plugin
            .options()
            .iter()
            .map(|(name, value)| format!(", {}, {}", quote::literal(name), quote::literal(value)))
            .collect();
        let sql = format!(
            "COPY (SELECT lsn, data FROM pg_catalog.pg_logical_slot_peek_binary_changes({}, '{upto}', NULL{options})) \
             TO STDOUT (FORMAT binary)",
            quote::literal(slot),
        );
        session.on_warning(on_warning(plugin));
        let rows = session.copy_out(&sql).await.map_err(|e| explain_refusal(e, name))?;
        Ok(BulkRead { rows, started: false })
    }

    /// Has the server look at one record of the slot's log, so that it says what it refuses: the plugin, its options, the
    /// role, or the slot.
    pub(crate) async fn probe(session: &mut Session, slot: &str, plugin: &dyn OutputPlugin) -> Result<()> {
        // It looks at the position after each record that it has decoded.
        let read = BulkRead::start(session, slot, plugin, Lsn(1)).await?;
        read.finish().await.map_err(|e| explain_refusal(e, plugin.name()))
    }

    /// Waits until the server sends: it has gathered everything then, or refuses.
    pub(crate) async fn arrive(&mut self) -> Result<()> {
        self.rows.arrive().await
    }

    /// Reads the next message and the position it stands for; `None` after the last. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Option<(Lsn, &[u8])>> {
        let Some(frame) = self.rows.next().await? else { return Ok(None) };
        let header = if std::mem::replace(&mut self.started, true) { 0 } else { HEADER };
        let row = match header {
            0 => Some(frame),
            _ if frame.starts_with(SIGNATURE) => frame.get(header..),
            _ => None,
        };
        parse(row.ok_or_else(malformed)?)
    }

    /// Reads to the end of the COPY.
    pub(crate) async fn finish(mut self) -> Result<()> {
        while self.rows.next().await?.is_some() {}
        Ok(())
    }
}

/// Reads a row of two columns, pg_lsn and bytea; `None` for the trailer.
pub(crate) fn parse(row: &[u8]) -> Result<Option<(Lsn, &[u8])>> {
    match row.split_at_checked(2) {
        Some(([0xff, 0xff], [])) => return Ok(None),
        Some(([0, 2], fields)) => {
            let lsn = field(fields).and_then(|(lsn, rest)| Some((u64::from_be_bytes(lsn.try_into().ok()?), rest)));
            if let Some((lsn, rest)) = lsn
                && let Some((data, [])) = field(rest)
            {
                return Ok(Some((Lsn(lsn), data)));
            }
        }
        _ => {}
    }
    Err(malformed())
}

/// Reads a field with its length before it; returns it and what follows it.
fn field(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_at_checked(4)?;
    let length = u32::from_be_bytes(length.try_into().ok()?);
    rest.split_at_checked(usize::try_from(length).ok()?)
}

fn malformed() -> Error {
    Error::run("the server's binary COPY is malformed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_and_truncations_refused() {
        let mut row = vec![0, 2, 0, 0, 0, 8];
        row.extend_from_slice(&7u64.to_be_bytes());
        row.extend_from_slice(&[0, 0, 0, 3]);
        row.extend_from_slice(b"abc");
        assert_eq!(parse(&row).unwrap(), Some((Lsn(7), b"abc".as_slice())));
        for len in 0..row.len() {
            assert!(parse(&row[..len]).is_err(), "{len}");
        }
        row.push(0);
        assert!(parse(&row).is_err(), "more than a row");
        assert_eq!(parse(&[0xff, 0xff]).unwrap(), None);
        // NULL has the length -1.
        assert!(parse(&[0, 2, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]).is_err());
    }
}
