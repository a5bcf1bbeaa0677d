//! Tables and all that inherit from them, partitions first of all.

/// Returns a WITH clause that names `tree(oid)`: the tables that `oids` selects, an SQL expression such as `$1::oid`, and all
/// tables below them, each once.
pub(crate) fn with_tree(oids: &str) -> String {
    format!(
        "WITH RECURSIVE tree(oid) AS (SELECT {oids} UNION \
         SELECT i.inhrelid FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.oid)"
    )
}
