//! Differences between the releases of PostgreSQL: each has a name here, with the release that brought it, and no other
//! module compares version numbers.
//!
//! Columns that only newer catalogs have are not listed where `to_jsonb(row) ->> 'column'` reads them, which is null on
//! older ones.

use std::fmt;

/// The version of a server, as `server_version_num` has it: 150018, or 90624 before PostgreSQL 10.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ServerVersion(u32);

impl ServerVersion {
    /// The oldest supported version, the first with publications and pgoutput.
    pub(crate) const OLDEST: ServerVersion = ServerVersion(100_000);

    /// Parses the setting `server_version`, as libpq's PQserverVersion reads it.
    pub(crate) fn parse(text: &str) -> ServerVersion {
        let mut parts = text.split_ascii_whitespace().next().unwrap_or("").split('.').map(|part| {
            let digits = part.chars().map_while(|c| c.to_digit(10));
            digits.fold(0, |n: u32, digit| n.saturating_mul(10).saturating_add(digit))
        });
        let [major, minor, patch] = std::array::from_fn(|_| parts.next().unwrap_or(0).min(9999));
        ServerVersion(major * 10_000 + if major >= 10 { minor } else { minor * 100 + patch })
    }

    fn is(self, major: u32) -> bool {
        self.0 >= major * 10_000
    }

    /// Returns whether a partitioned table has indexes that its partitions follow (11).
    pub(crate) fn indexes_partitioned(self) -> bool {
        self.is(11)
    }

    /// Returns whether `pg_replication_slot_advance` exists (11), with which a bulk read acknowledges.
    pub(crate) fn has_slot_advance(self) -> bool {
        self.is(11)
    }

    /// Returns the operations to publish of a table without a replica identity; TRUNCATE is among them from 11 on.
    pub(crate) fn insert_operations(self) -> &'static str {
        if self.is(11) { "insert, truncate" } else { "insert" }
    }

    /// Returns the operations that a publication must have for every change to come; TRUNCATE is among them from 11 on.
    pub(crate) fn all_operations(self) -> &'static str {
        if self.is(11) { "insert, update, delete, truncate" } else { "insert, update, delete" }
    }

    /// Returns the expression for `pg_attribute.attgenerated` (12): `s` stored, `v` virtual (18).
    pub(crate) fn attgenerated(self) -> &'static str {
        if self.is(12) { "a.attgenerated" } else { "''::\"char\"" }
    }

    /// Returns whether a float is printed with the fewest digits that read back as the same number (12). Older servers
    /// print as many as `extra_float_digits` asks for: 0.100000000000000006.
    pub(crate) fn prints_shortest_floats(self) -> bool {
        self.is(12)
    }

    /// Returns whether a publication takes a partitioned table, and `publish_via_partition_root` (13). On older servers
    /// its leaves are published instead.
    pub(crate) fn publishes_partitioned(self) -> bool {
        self.is(13)
    }

    /// Returns the call that lists the transactions a snapshot sees: `pg_current_snapshot` (13) or its predecessor.
    pub(crate) fn current_snapshot(self) -> &'static str {
        if self.is(13) { "pg_catalog.pg_current_snapshot()" } else { "pg_catalog.txid_current_snapshot()" }
    }

    /// Returns whether a scan can be limited to a range of a table's pages (14).
    pub(crate) fn scans_tid_ranges(self) -> bool {
        self.is(14)
    }

    /// Returns whether `= ANY` of a long list is a look-up in a hash table rather than a comparison with each of its values (14).
    pub(crate) fn hashes_lists(self) -> bool {
        self.is(14)
    }

    /// Returns whether a publication takes whole schemas (15).
    pub(crate) fn publishes_schemas(self) -> bool {
        self.is(15)
    }

    /// Returns the condition that the publication `p` has the schema of the table `c`; none has before 15.
    pub(crate) fn publication_has_schema(self) -> &'static str {
        if self.publishes_schemas() {
            "EXISTS (SELECT FROM pg_catalog.pg_publication_namespace s WHERE s.pnpubid = p.oid AND s.pnnspid = c.relnamespace)"
        } else {
            "false"
        }
    }

    /// Returns whether the server may compile queries (11).
    pub(crate) fn has_jit(self) -> bool {
        self.is(11)
    }

    /// Returns a query of the transactions that wrote the publication `p`, put the schema of the table `c` into it, and that table,
    /// whose row type is `t`, into its schema, if it was not made since `{since}`.
    pub(crate) fn publication_of_schema(self) -> &'static str {
        if self.publishes_schemas() {
            "SELECT written.xmin FROM pg_catalog.pg_publication_namespace s \
             JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = -1 \
             CROSS JOIN LATERAL (SELECT p.xmin UNION ALL SELECT s.xmin \
                                 UNION ALL SELECT t.xmin \
                                 WHERE NOT pg_catalog.age(a.xmin) BETWEEN 0 AND pg_catalog.age({since})) \
                                written(xmin) \
             WHERE s.pnpubid = p.oid AND s.pnnspid = c.relnamespace"
        } else {
            "SELECT NULL::pg_catalog.xid WHERE false"
        }
    }

    /// Returns whether a publication takes stored generated columns (18).
    pub(crate) fn publishes_generated(self) -> bool {
        self.is(18)
    }

    /// Returns whether `two_phase` of a slot can be altered (18).
    pub(crate) fn alters_two_phase(self) -> bool {
        self.is(18)
    }

    /// Returns whether a walsender answers keepalives while it skips the changes of a transaction that are not
    /// published: any walsender (16), or one that runs pgoutput (15).
    pub(crate) fn answers_while_decoding(self, plugin: &str) -> bool {
        self.is(16) || self.is(15) && plugin == "pgoutput"
    }

    /// Returns whether a failover slot may have to wait for standbys (17).
    pub(crate) fn waits_for_standbys(self) -> bool {
        self.is(17)
    }

    /// Returns whether a standby supports logical decoding (16).
    pub(crate) fn decodes_on_standby(self) -> bool {
        self.is(16)
    }

    /// Returns the settings that limit how long a session may live. `statement_timeout` and `lock_timeout` are older.
    pub(crate) fn session_timeouts(self) -> impl Iterator<Item = &'static str> {
        let all =
            [("idle_in_transaction_session_timeout", 10), ("idle_session_timeout", 14), ("transaction_timeout", 17)];
        all.into_iter().filter(move |(_, major)| self.is(*major)).map(|(name, _)| name)
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, rest) = (self.0 / 10_000, self.0 % 10_000);
        if major >= 10 { write!(f, "{major}.{rest}") } else { write!(f, "{major}.{}.{}", rest / 100, rest % 100) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_numbered_as_libpq_does() {
        for (text, number) in [
            ("15.18 (Debian 15.18-0+deb12u1)", 150_018),
            ("18devel", 180_000),
            ("17beta2", 170_000),
            ("9.6.24", 90_624),
            ("10.23", 100_023),
            ("", 0),
            ("99999999999.1", 99_990_001),
        ] {
            assert_eq!(ServerVersion::parse(text), ServerVersion(number), "{text}");
        }
    }

    #[test]
    fn versions_are_printed_as_the_server_does() {
        for text in ["9.6.24", "10.23", "15.18"] {
            assert_eq!(ServerVersion::parse(text).to_string(), text);
        }
    }

    #[test]
    fn a_capability_begins_with_its_release() {
        let at = |text| ServerVersion::parse(text);
        assert!(!at("10.23").has_slot_advance() && at("11.0").has_slot_advance());
        assert!(!at("12.22").publishes_partitioned() && at("13.0").publishes_partitioned());
        let names = |text| at(text).session_timeouts().collect::<Vec<_>>();
        assert_eq!(names("13.23"), ["idle_in_transaction_session_timeout"]);
        assert_eq!(names("16.14"), ["idle_in_transaction_session_timeout", "idle_session_timeout"]);
        assert_eq!(names("17.0")[2], "transaction_timeout");
        assert!(!at("13.23").scans_tid_ranges() && at("14.0").scans_tid_ranges());
        assert!(!at("14.23").publishes_schemas() && at("15.0").publishes_schemas());
    }
}
