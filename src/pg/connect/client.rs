//! Connections for queries, through tokio-postgres.

use std::collections::HashMap;
use std::future::poll_fn;
use std::ops::Deref;

use tokio::sync::{Mutex, watch};
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Row, SimpleQueryMessage, SimpleQueryRow, Statement};

use crate::error::{Context as _, Result};
use crate::pg::ServerVersion;
use crate::pg::error::{ServerError, query_error};
use crate::pg::wire::guard::Guarded;
use crate::pg::wire::warn_once;

/// A tokio-postgres client, with what is known of its connection.
pub(crate) struct Client {
    client: tokio_postgres::Client,
    /// Closed when the connection ends.
    alive: watch::Receiver<()>,
    server_version: ServerVersion,
    tls: Option<&'static str>,
    schemas: Vec<String>,
    /// The statements that are asked again and again.
    kept: Mutex<HashMap<String, Statement>>,
}

impl Client {
    /// Starts a task of the current runtime that drives the connection, and returns the client.
    pub(super) fn new(
        client: tokio_postgres::Client,
        mut connection: tokio_postgres::Connection<Guarded, Guarded>,
        tls: Option<&'static str>,
    ) -> Client {
        let server_version = connection.parameter("server_version").map(ServerVersion::parse).unwrap_or_default();
        let (open, alive) = watch::channel(());
        tokio::spawn(async move {
            while let Some(message) = poll_fn(|cx| connection.poll_message(cx)).await {
                match message {
                    Ok(AsyncMessage::Notice(notice)) if notice.severity() == "WARNING" => {
                        warn_once(&ServerError::from(&notice));
                    }
                    Ok(_) => {}
                    Err(error) => {
                        tracing::warn!("{}", query_error("a connection to the server ended", error));
                        break;
                    }
                }
            }
            drop(open);
        });
        Client { client, alive, server_version, tls, schemas: Vec::new(), kept: Mutex::default() }
    }

    /// Runs the statement that sets up the session, which returns the schemas that were on its search_path before.
    pub(super) async fn set_up(&mut self, statement: &str) -> Result<()> {
        let rows =
            self.client.simple_query(statement).await.map_err(|e| query_error("cannot set up the session", e))?;
        let row = rows.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.try_get(0).ok().flatten(),
            _ => None,
        });
        self.schemas = serde_json::from_str(row.unwrap_or_default())
            .context(|| "the server does not say which schemas are on its search_path".to_owned())?;
        Ok(())
    }

    /// Runs a query and returns its rows, as texts.
    pub(crate) async fn text_rows(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
        let messages = self.client.simple_query(sql).await.map_err(|e| query_error("a query failed", e))?;
        let text = |row: &SimpleQueryRow, at: usize| {
            let text = row.try_get(at).map_err(|e| query_error("a query failed", e))?;
            Ok(text.map(str::to_owned))
        };
        let row = |message: &SimpleQueryMessage| match message {
            SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|at| text(row, at)).collect()),
            _ => None,
        };
        messages.iter().filter_map(row).collect()
    }

    /// Runs a query that the session is asked often: it is parsed once, and planned once where it has no parameters. `doing` says what
    /// could not be done when it fails.
    pub(crate) async fn query_often(&self, sql: &str, params: &[&(dyn ToSql + Sync)], doing: &str) -> Result<Vec<Row>> {
        let failed = |e| query_error(doing, e);
        let mut kept = self.kept.lock().await;
        let statement = match kept.get(sql) {
            Some(statement) => statement.clone(),
            None => {
                let statement = self.client.prepare(sql).await.map_err(failed)?;
                kept.entry(sql.to_owned()).or_insert(statement).clone()
            }
        };
        drop(kept);
        self.client.query(&statement, params).await.map_err(failed)
    }

    /// Returns the schemas on the search_path that the role has elsewhere; the session's own is pg_catalog.
    pub(crate) fn schemas(&self) -> &[String] {
        &self.schemas
    }

    /// Returns the negotiated version of TLS, such as `TLS 1.3`; `None` on a connection that is not encrypted.
    pub(crate) fn tls(&self) -> Option<&'static str> {
        self.tls
    }

    /// Returns the server's version.
    pub(crate) fn server_version(&self) -> ServerVersion {
        self.server_version
    }

    /// Waits until the connection ends. While this client exists, only the server or the network ends it.
    pub(crate) async fn ended(&self) {
        let mut alive = self.alive.clone();
        while alive.changed().await.is_ok() {}
    }
}

impl Deref for Client {
    type Target = tokio_postgres::Client;

    fn deref(&self) -> &tokio_postgres::Client {
        &self.client
    }
}
