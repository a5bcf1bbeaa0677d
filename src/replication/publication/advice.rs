//! What a user should know of how tables are published, with the SQL that changes it.

use super::{Publications, Published, inserts_name, member};
use crate::error::to_run;
use crate::pg::quote;
use crate::pg::table::{ReplicaIdentity, Table, TableKind};

impl Publications {
    /// Returns the warnings for operations and rows of a table that never come.
    pub(crate) fn warnings(&self, table: &Table) -> Vec<String> {
        let Some(published) = self.tables.get(&table.oid) else { return Vec::new() };
        let mut warnings = Vec::new();
        let mut warn = |text: String, sql: Option<Vec<String>>| {
            warnings.push(sql.map_or_else(|| text.clone(), |sql| format!("{text}; {}", to_run(&sql))));
        };
        let identified = table.replica_identity != ReplicaIdentity::None;
        let missing: Vec<&str> =
            [("insert", published.insert), ("update", published.update), ("delete", published.delete)]
                .into_iter()
                .filter(|(name, sent)| !sent && (identified || *name == "insert"))
                .map(|(name, _)| name)
                .collect();
        if !missing.is_empty() {
            let missing = missing.join(" and ");
            warn(
                format!("the publication does not publish {missing} of this table: such changes never come"),
                self.all_operations_sql(published, table),
            );
        }
        if published.row_filter {
            warn(
                "the publication has a row filter for this table: rows outside of it are copied, but their changes never come; \
                 add the table to it without WHERE"
                    .to_owned(),
                self.whole_table_sql(published, table),
            );
        }
        warnings
    }

    /// Returns the publication that sends changes of a partitioned table under the names of its partitions, if it need not.
    pub(crate) fn sends_partitions(&self, table: &Table) -> Option<&str> {
        let published = self.tables.get(&table.oid).filter(|published| !published.via_root)?;
        let may_not = table.kind == TableKind::Partitioned && self.version.publishes_partitioned();
        published.by.first().filter(|_| may_not).map(String::as_str)
    }

    /// Returns what publishes the columns that [`unpublished_columns`](Self::unpublished_columns) names, if anything can.
    pub(crate) fn all_columns_sql(&self, table: &Table) -> Option<Vec<String>> {
        let published = self.tables.get(&table.oid)?;
        if published.columns.is_some() {
            return self.whole_table_sql(published, table);
        }
        let publication = published.by.first().filter(|_| self.version.publishes_generated())?;
        Some(vec![format!("ALTER PUBLICATION {} SET (publish_generated_columns = stored)", quote::ident(publication))])
    }

    /// Returns what publishes every operation of a table.
    fn all_operations_sql(&self, published: &Published, table: &Table) -> Option<Vec<String>> {
        let publication = published.by.first()?;
        match self.names.first() {
            // The other tables there have no identity: publishing their updates would make them fail in the application.
            Some(name) if *publication == inserts_name(name) => move_sql(published, table, publication, name),
            _ => {
                let operations = self.version.all_operations();
                Some(vec![format!("ALTER PUBLICATION {} SET (publish = '{operations}')", quote::ident(publication))])
            }
        }
    }

    /// Returns what publishes every row and column of a table.
    fn whole_table_sql(&self, published: &Published, table: &Table) -> Option<Vec<String>> {
        let publication = published.by.first()?;
        move_sql(published, table, publication, publication)
    }
}

/// Returns what takes a table from one publication to another, so that no change of it falls in between. Only if it is itself a
/// member, not its partitions.
fn move_sql(published: &Published, table: &Table, from: &str, to: &str) -> Option<Vec<String>> {
    let is_member = table.kind == TableKind::Table || published.via_root;
    let (from, to, member) = (quote::ident(from), quote::ident(to), member(table));
    is_member.then(|| {
        vec![
            "BEGIN".to_owned(),
            format!("ALTER PUBLICATION {from} DROP TABLE {member}"),
            format!("ALTER PUBLICATION {to} ADD TABLE {member}"),
            "COMMIT".to_owned(),
        ]
    })
}
