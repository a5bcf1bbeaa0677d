//! Commits that are in the log and that no snapshot sees yet: they wait for a synchronous standby.

use crate::error::Result;
use crate::pg::table::Table;
use crate::pg::wire::Session;

/// The transactions whose commits may be waiting, each with a table that it has written to, or the root of one.
#[derive(Clone, Default)]
pub(crate) struct HeldCommits(Vec<(u32, u32)>);

impl HeldCommits {
    /// Reads them; to be called before the snapshot that is to be compared with the log.
    ///
    /// Where the role may not see what another session does, each of its open transactions counts.
    pub(crate) async fn read(session: &mut Session) -> Result<HeldCommits> {
        // The oldest id of a transaction is its own, the others are its savepoints'. A session that commits a prepared
        // transaction does not hold its locks.
        let sql = "WITH RECURSIVE locks AS (SELECT * FROM pg_catalog.pg_locks), \
            waiting AS (SELECT pid FROM pg_catalog.pg_stat_activity \
              WHERE wait_event = 'SyncRep' OR query = '<insufficient privilege>'), \
            held AS (SELECT l.relation, \
                (SELECT x.transactionid FROM locks x WHERE x.locktype = 'transactionid' AND x.mode = 'ExclusiveLock' \
                   AND x.virtualtransaction = l.virtualtransaction ORDER BY pg_catalog.age(x.transactionid) DESC LIMIT 1) AS xid \
              FROM locks l WHERE l.locktype = 'relation' AND l.mode = 'RowExclusiveLock' \
                AND (l.pid IN (SELECT pid FROM waiting) OR l.pid IS NULL AND EXISTS (SELECT FROM waiting)) \
                AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())), \
            up AS (SELECT relation, xid FROM held WHERE xid IS NOT NULL UNION SELECT i.inhparent, up.xid FROM up \
              JOIN pg_catalog.pg_class c ON c.oid = up.relation AND c.relispartition \
              JOIN pg_catalog.pg_inherits i ON i.inhrelid = up.relation) \
            SELECT relation, xid FROM up WHERE pg_catalog.current_setting('synchronous_standby_names') <> ''";
        let rows = session.query(sql).await?;
        let number = |row: &[Option<String>], at: usize| row.get(at)?.as_deref()?.parse().ok();
        Ok(HeldCommits(rows.iter().filter_map(|row| Some((number(row, 0)?, number(row, 1)?))).collect()))
    }

    /// Returns those that have written to a table.
    pub(crate) fn of(&self, table: &Table) -> Vec<u32> {
        self.0.iter().filter(|(relation, _)| *relation == table.oid).map(|(_, xid)| *xid).collect()
    }
}
