//! Replication slots: finding them, what is wrong with them, and the temporary one that exports a snapshot.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_postgres::Row;

use super::log_end::LOG_END;
use super::pgoutput::MISSING_HINT;
use crate::error::{Error, Result, to_run};
use crate::pg::connect::{Client, Server};
use crate::pg::error::{query_error, sqlstate};
use crate::pg::row::Fields as _;
use crate::pg::sqlstate::{
    CONFIGURATION_LIMIT_EXCEEDED, FEATURE_NOT_SUPPORTED, INSUFFICIENT_PRIVILEGE, LOCK_NOT_AVAILABLE,
    OBJECT_NOT_IN_PREREQUISITE_STATE, TOO_MANY_CONNECTIONS, UNDEFINED_FILE, UNDEFINED_OBJECT,
};
use crate::pg::wire::Session;
use crate::pg::{Lsn, ServerVersion, quote};

/// How long to wait for a slot that somebody is making: as long as [`ExportedSnapshot::create`] would try it.
const MAKING_PATIENCE: Duration = Duration::from_secs(60);

/// Why a standby gave a slot up, where it does not say more (16).
const CONFLICT: &str = "it conflicted with recovery";
/// How long to wait on a standby for its primary to log which transactions are running: a busy one does so every 15 s.
const STANDBY_PATIENCE: Duration = Duration::from_secs(30);

/// A logical replication slot, as `pg_replication_slots` shows it.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    /// Its name.
    pub name: String,
    /// Its output plugin.
    pub plugin: String,
    /// Changes up to here were acknowledged; the server sends nothing before it.
    pub confirmed_flush: Lsn,
    /// From here on WAL is kept for it; a logical slot without it is of no use any more.
    pub restart_lsn: Option<Lsn>,
    /// The server process that uses it now.
    pub active_pid: Option<i32>,
    /// Whether that process is still making it. It goes again if its maker does.
    pub unfinished: bool,
    /// Why the server gave it up, in the server's words.
    pub invalid: Option<String>,
    /// `pg_replication_slots.wal_status` (13+): reserved, extended, unreserved or lost.
    pub wal_status: Option<String>,
    /// How many bytes of WAL the server keeps for it.
    pub kept: u64,
    /// How many bytes may still be written before it is in danger (13+); none where nothing bounds what it keeps.
    pub safe_wal_size: Option<i64>,
    /// Whether standbys are to have it too (17+).
    pub failover: bool,
    /// Whether pgoutput sends transactions at PREPARE TRANSACTION, before they commit (14+).
    pub two_phase: bool,
    /// Whether it is a primary's, which this standby keeps in step for the day it takes over (17+).
    pub synced: bool,
}

/// How long a slot is to last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lifetime {
    /// As long as its session.
    Temporary,
    /// Until it is dropped.
    Permanent {
        /// Whether standbys are to have it too (17+).
        failover: bool,
    },
}

impl Slot {
    /// Returns the first of `names` that exists as a logical slot of this database.
    ///
    /// # Errors
    /// A slot of that name that is physical, or belongs to another database.
    pub(crate) async fn find(client: &Client, names: &[String]) -> Result<Option<Slot>> {
        // The columns that only newer servers have are read through jsonb, so that one query serves all versions.
        let sql = format!(
            "SELECT s.slot_name::text, s.plugin::text, s.database::text, pg_catalog.current_database()::text, \
                   s.confirmed_flush_lsn::text, s.restart_lsn::text, s.active_pid, \
                   j ->> 'wal_status', j ->> 'invalidation_reason', j ->> 'conflicting', \
                   coalesce((j ->> 'failover')::bool, false), \
                   coalesce((j ->> 'synced')::bool, false) AND pg_catalog.pg_is_in_recovery(), \
                   ({LOG_END} - s.restart_lsn)::int8, (j ->> 'safe_wal_size')::int8, \
                   coalesce((j ->> 'two_phase')::bool, false) \
                   FROM pg_catalog.pg_replication_slots s, pg_catalog.to_jsonb(s) j WHERE s.slot_name::text = ANY ($1)"
        );
        let rows =
            client.query(&sql, &[&names]).await.map_err(|e| query_error("cannot read pg_replication_slots", e))?;
        let by_name: HashMap<&str, &Row> = rows.iter().map(|row| Ok((row.field(0)?, row))).collect::<Result<_>>()?;
        let Some(row) = names.iter().find_map(|name| by_name.get(name.as_str())) else {
            return Ok(None);
        };
        let name: String = row.field(0)?;
        let (Some(plugin), Some(database)) = (row.field::<Option<String>>(1)?, row.field::<Option<String>>(2)?) else {
            return Err(Error::run(format!("replication slot \"{name}\" is a physical slot"))
                .hint("name a logical slot with replication_slot_name"));
        };
        let here: String = row.field(3)?;
        if database != here {
            return Err(Error::run(format!(
                "replication slot \"{name}\" belongs to the database \"{database}\", not to \"{here}\""
            ))
            .hint("a logical slot reads one database: name another slot with replication_slot_name, or set tap_id"));
        }
        let lsn = |column| Ok::<_, Error>(row.field::<Option<&str>>(column)?.and_then(|text| text.parse::<Lsn>().ok()));
        let wal_status: Option<String> = row.field(7)?;
        let reason: Option<String> = row.field(8)?;
        let conflicting = row.field::<Option<&str>>(9)? == Some("true");
        let active_pid: Option<i32> = row.field(6)?;
        let unfinished = lsn(4)?.is_none() && active_pid.is_some() && reason.is_none();
        let invalid = match (reason, wal_status.as_deref()) {
            _ if unfinished => None,
            (Some(reason), _) => Some(reason),
            // 16 says so of a slot whose WAL was removed, too, and that one has no position any more.
            (None, _) if conflicting && lsn(5)?.is_some() => Some(CONFLICT.to_owned()),
            (None, Some("lost")) => Some("the WAL it needs was removed".to_owned()),
            (None, _) if lsn(5)?.is_none() => Some("it holds no WAL position".to_owned()),
            _ => None,
        };
        Ok(Some(Slot {
            name,
            plugin,
            confirmed_flush: lsn(4)?.unwrap_or(Lsn::INVALID),
            restart_lsn: lsn(5)?,
            active_pid,
            unfinished,
            invalid,
            wal_status,
            kept: row.field::<Option<i64>>(12)?.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0),
            safe_wal_size: row.field(13)?,
            failover: row.field(10)?,
            synced: row.field(11)?,
            two_phase: row.field(14)?,
        }))
    }

    /// As [`find`](Self::find), but waits while the slot is being made: a run that was killed may have left that behind, and
    /// the server notices only when the writers it waits for have finished.
    pub(crate) async fn find_finished(client: &Client, names: &[String]) -> Result<Option<Slot>> {
        let give_up = Instant::now() + MAKING_PATIENCE;
        let mut told = false;
        loop {
            let slot = match Slot::find(client, names).await? {
                Some(slot) if slot.unfinished => slot,
                found => return Ok(found),
            };
            let (name, pid) = (&slot.name, slot.active_pid.unwrap_or_default());
            if Instant::now() >= give_up {
                return Err(Error::transient(format!("replication slot \"{name}\" is still being made by process {pid}"))
                    .hint("it waits for transactions that write: see xact_start in pg_stat_activity; run again when they have ended"));
            }
            if !std::mem::replace(&mut told, true) {
                tracing::info!("waiting for process {pid}, which is making the replication slot \"{name}\"");
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    /// Returns the error for a slot that can't be read here, if it can't.
    pub(crate) fn check_usable(&self) -> Result<()> {
        if self.synced {
            return Err(Error::run(format!(
                "replication slot \"{}\" belongs to this standby's primary: it can't be read here",
                self.name
            ))
            .hint(
                "read from the primary, and from here once it is promoted; or make a slot of another name on this standby, \
                 for a tap with a state of its own",
            ));
        }
        let Some(reason) = &self.invalid else { return Ok(()) };
        let prevention = match reason.as_str() {
            "rows_removed" => "set hot_standby_feedback = on and give the standby a slot with primary_slot_name",
            "wal_level_insufficient" => "keep wal_level = logical on the primary",
            "idle_timeout" => "raise idle_replication_slot_timeout or run more often",
            CONFLICT => "set hot_standby_feedback = on, and keep wal_level = logical on the primary",
            _ => "raise max_slot_wal_keep_size",
        };
        Err(Error::run(format!(
            "replication slot \"{}\" can't be read any more ({reason}): changes since {} are lost",
            self.name, self.confirmed_flush
        ))
        .hint(format!(
            "{prevention}; set on_slot_lost to copy_again to have it made anew and its streams copied again, or start with an \
             empty state after you {}",
            to_run(&[self.drop_sql()]),
        )))
    }

    /// Returns the error for a slot of pgoutput that was made with two_phase: what is prepared in one run may be rolled back
    /// in another, long after its rows were sent.
    pub(crate) fn check_one_phase(&self, version: ServerVersion) -> Result<()> {
        if !self.two_phase {
            return Ok(());
        }
        let name = &self.name;
        let alter = format!("ALTER_REPLICATION_SLOT {} (TWO_PHASE false)", quote::ident(name));
        let altered = match version.alters_two_phase() {
            true => format!("over a connection with replication=database {}; or ", to_run(&[alter])),
            false => String::new(),
        };
        let hint = format!(
            "{altered}set on_slot_lost to copy_again, or remove the bookmarks of its streams, so that they are copied again, and to make \
             it anew {}",
            to_run(&[self.drop_sql(), create_sql(name, &self.plugin, self.failover)])
        );
        Err(Error::run(format!(
            "replication slot \"{name}\" was made with two_phase: it sends prepared transactions before they commit, which this tap \
             does not read"
        ))
        .hint(hint))
    }

    /// Returns the SQL that drops it.
    pub(crate) fn drop_sql(&self) -> String {
        format!("SELECT pg_drop_replication_slot({})", quote::literal(&self.name).trim_start())
    }
}

/// Returns the SQL that makes a slot; `failover`: for standbys to have it too (17+).
pub(crate) fn create_sql(name: &str, plugin: &str, failover: bool) -> String {
    let failover = if failover { ", failover => true" } else { "" };
    format!("SELECT pg_create_logical_replication_slot({}, '{plugin}'{failover})", quote::literal(name).trim_start())
}

/// Returns what to do where the server may not load the plugin.
pub(crate) fn allow_plugin(plugin: &str) -> String {
    let sql = format!("ALTER SYSTEM SET output_plugin_libraries = pgoutput, test_decoding, {plugin}");
    format!("to allow the plugin {}", to_run(&[sql.as_str(), "SELECT pg_reload_conf()"]))
}

/// A slot just made, whose snapshot other sessions can take as long as this lives.
pub(crate) struct ExportedSnapshot {
    session: Session,
    /// For `SET TRANSACTION SNAPSHOT`.
    pub snapshot: String,
    /// The snapshot sees exactly the transactions committed before this; the slot sends exactly the others.
    pub consistent_point: Lsn,
}

impl ExportedSnapshot {
    /// Makes a slot and exports its snapshot. A temporary slot goes with this value.
    ///
    /// The server waits for every transaction that is writing now, anywhere in the cluster: for 10 s for a temporary slot,
    /// which a copy can do without, for a minute otherwise. A standby has no such limit, and waits for a word of its primary
    /// besides.
    pub(crate) async fn create(
        server: &Server,
        name: &str,
        plugin: &str,
        lifetime: Lifetime,
    ) -> Result<ExportedSnapshot> {
        let (mut session, lock_timeout) = match lifetime {
            Lifetime::Temporary => (server.replication_session_now().await?, "SET lock_timeout = '10s'"),
            Lifetime::Permanent { .. } => (server.replication_session().await?, "SET lock_timeout = '60s'"),
        };
        session.query(lock_timeout).await?;
        let (name, plugin_name) = (quote::ident(name), quote::ident(plugin));
        let sql = match lifetime {
            Lifetime::Temporary => {
                format!("CREATE_REPLICATION_SLOT {name} TEMPORARY LOGICAL {plugin_name} EXPORT_SNAPSHOT")
            }
            Lifetime::Permanent { failover: false } => {
                format!("CREATE_REPLICATION_SLOT {name} LOGICAL {plugin_name} EXPORT_SNAPSHOT")
            }
            Lifetime::Permanent { failover: true } => {
                format!("CREATE_REPLICATION_SLOT {name} LOGICAL {plugin_name} (SNAPSHOT 'export', FAILOVER)")
            }
        };
        let patience = if is_standby(&mut session).await? { STANDBY_PATIENCE } else { Duration::MAX };
        let rows = match timeout(patience, session.query(&sql)).await {
            Ok(rows) => rows.map_err(|e| explain_refusal(e, plugin))?,
            Err(_) => {
                return Err(Error::transient(format!(
                    "the standby's primary has not told it within {} s which transactions are running",
                    STANDBY_PATIENCE.as_secs()
                ))
                .hint(
                    "a slot on a standby has to wait for that: run SELECT pg_log_standby_snapshot() on the primary \
                     meanwhile, or look there for a transaction that has been writing for long",
                ));
            }
        };
        let row = rows.into_iter().next().unwrap_or_default();
        let text = |i: usize| row.get(i).cloned().flatten();
        match (text(1).and_then(|lsn| lsn.parse().ok()), text(2)) {
            (Some(consistent_point), Some(snapshot)) => Ok(ExportedSnapshot { session, snapshot, consistent_point }),
            _ => Err(Error::run("the server's answer to CREATE_REPLICATION_SLOT holds no position and snapshot")),
        }
    }

    /// Ends the export; a temporary slot is dropped with it.
    pub(crate) async fn close(self) {
        self.session.close().await;
    }
}

/// Whether the server is a standby.
pub(crate) async fn is_standby(session: &mut Session) -> Result<bool> {
    session.query_bool("SELECT pg_catalog.pg_is_in_recovery()").await
}

/// Whether a slot could not be made for want of a free slot or sender, or because writers did not finish in time: a
/// condition that another way of copying gets around.
pub(crate) fn is_no_slot_now(error: &Error) -> bool {
    matches!(sqlstate(error), Some(CONFIGURATION_LIMIT_EXCEEDED | TOO_MANY_CONNECTIONS | LOCK_NOT_AVAILABLE))
}

/// Adds what to do to a server's refusal to make or read a slot.
pub(crate) fn explain_refusal(error: Error, plugin: &str) -> Error {
    let text = error.to_string();
    let hint = match sqlstate(&error) {
        _ if text.contains("output_plugin_libraries") => Some(allow_plugin(plugin)),
        Some(UNDEFINED_OBJECT) if text.contains("publication") => Some(MISSING_HINT.to_owned()),
        Some(UNDEFINED_FILE) => Some(format!(
            "install the output plugin {plugin} on the server, or make a slot with output_plugin pgoutput, which every server has"
        )),
        Some(CONFIGURATION_LIMIT_EXCEEDED) => Some("raise max_replication_slots, or drop a slot that nobody reads".to_owned()),
        Some(LOCK_NOT_AVAILABLE) => Some(
            "a transaction that writes has been open for too long: see xact_start in pg_stat_activity, and run again"
                .to_owned(),
        ),
        Some(INSUFFICIENT_PRIVILEGE) => Some("give the role the right: ALTER ROLE … REPLICATION".to_owned()),
        // Its own words differ; before 16 no standby decodes.
        Some(FEATURE_NOT_SUPPORTED | OBJECT_NOT_IN_PREREQUISITE_STATE) if text.contains("recovery") => Some(
            "the log of a standby can be read from PostgreSQL 16 on: read from the primary, and only the tables from the \
             standby (use_secondary)"
                .to_owned(),
        ),
        _ if text.contains("wal_level") => Some("set wal_level = logical in postgresql.conf and restart".to_owned()),
        _ => None,
    };
    match hint {
        Some(hint) => Error::new(error.kind(), "the server can't serve logical replication").source(error).hint(hint),
        None => error,
    }
}
