//! Which tables are in the publications, and whether a snapshot sees all that was written before they were.
//!
//! A change is sent only if its table was published when it was made. So what a transaction wrote before is in no log, and
//! the copy has to have it.

use crate::error::{Error, Result};
use crate::pg::quote;
use crate::pg::wire::Session;
use crate::positions::TransactionSnapshot;

/// The publications of a slot as a session sees them.
pub(crate) struct Membership {
    /// The catalog rows that define what is published, each with the transaction that wrote it.
    pub rows: String,
    /// Whether a snapshot sees every transaction that may be older than one of these rows.
    pub settled: bool,
}

impl Membership {
    pub(crate) async fn read(
        session: &mut Session,
        publications: &[String],
        snapshot: &TransactionSnapshot,
    ) -> Result<Membership> {
        let names: Vec<String> = publications.iter().map(|name| quote::literal(name)).collect();
        let of = format!("IN (SELECT oid FROM pg_catalog.pg_publication WHERE pubname IN ({}))", names.join(", "));
        let mut rows = format!(
            "SELECT oid, xmin FROM pg_catalog.pg_publication WHERE oid {of} \
             UNION ALL SELECT oid, xmin FROM pg_catalog.pg_publication_rel WHERE prpubid {of}"
        );
        if session.server_version().publishes_schemas() {
            rows += &format!(" UNION ALL SELECT oid, xmin FROM pg_catalog.pg_publication_namespace WHERE pnpubid {of}");
        }
        // An id from before half of all ids were used up has a negative age.
        let sql = format!(
            "SELECT pg_catalog.string_agg(m.oid || ':' || m.xmin, ',' ORDER BY m.oid), coalesce(pg_catalog.bool_and( \
             pg_catalog.age(m.xmin) NOT BETWEEN 0 AND pg_catalog.age('{}'::xid)), true) FROM ({rows}) m",
            snapshot.oldest()
        );
        match session.query(&sql).await?.pop().as_deref() {
            Some([rows, Some(settled)]) => {
                Ok(Membership { rows: rows.clone().unwrap_or_default(), settled: settled == "t" })
            }
            _ => Err(Error::run("the server does not say what is published")),
        }
    }
}
