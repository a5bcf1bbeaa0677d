//! A bounded piece of the log in one go, over plain SQL: `pg_logical_slot_peek_binary_changes` through a binary COPY.
//!
//! A walsender makes a system call per change; this gets at the same messages in a third of the time. The server gathers
//! all of them (in work_mem, then in temporary files) before the first one leaves, so it has to be told where to end: a
//! read without a bound over a large backlog never finishes. `peek` leaves the slot as it is.

use super::slot::explain_refusal;
use super::{OutputPlugin, on_warning};
use crate::error::Result;
use crate::pg::binary::{Row, Rows, malformed};
use crate::pg::wire::{CopyOut, Session};
use crate::pg::{Lsn, quote};

/// The messages of a slot up to a position.
pub(crate) struct BulkRead<'s> {
    pieces: CopyOut<'s>,
    rows: Rows,
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
        let pieces = session.copy_out(&sql).await.map_err(|e| explain_refusal(e, name))?;
        Ok(BulkRead { pieces, rows: Rows::default() })
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
        self.pieces.arrive().await
    }

    /// Reads the next message and the position it stands for; `None` after the last. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Option<(Lsn, &[u8])>> {
        let Some(piece) = self.pieces.next().await? else { return Ok(None) };
        self.rows.row(piece)?.map(message).transpose()
    }

    /// Reads to the end of the COPY.
    pub(crate) async fn finish(mut self) -> Result<()> {
        while self.pieces.next().await?.is_some() {}
        Ok(())
    }
}

/// Reads a row of two columns, pg_lsn and bytea.
pub(crate) fn message(mut row: Row<'_>) -> Result<(Lsn, &[u8])> {
    let (columns, lsn, data) = (row.columns(), row.field()?, row.field()?);
    let lsn = lsn.and_then(|lsn| lsn.try_into().ok()).map(u64::from_be_bytes);
    lsn.zip(data).filter(|_| columns == 2).map(|(lsn, data)| (Lsn(lsn), data)).ok_or_else(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(row: &[u8]) -> Result<(Lsn, Vec<u8>)> {
        let piece = [b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0", row].concat();
        let row = Rows::default().row(&piece)?.ok_or_else(malformed)?;
        message(row).map(|(lsn, data)| (lsn, data.to_vec()))
    }

    #[test]
    fn messages_have_a_position_and_data() {
        let mut row = vec![0, 2, 0, 0, 0, 8];
        row.extend_from_slice(&7u64.to_be_bytes());
        row.extend_from_slice(&[0, 0, 0, 3]);
        row.extend_from_slice(b"abc");
        assert_eq!(read(&row).unwrap(), (Lsn(7), b"abc".to_vec()));
        for len in 0..row.len() {
            assert!(read(&row[..len]).is_err(), "{len}");
        }
        // NULL has the length -1.
        assert!(read(&[0, 2, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]).is_err());
        assert!(read(&[0, 3, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0]).is_err());
    }
}
