//! Whole tables, by one connection or several.

use super::parallel;
use super::query::copy_rows;
use super::rows::RowQuery;
use super::snapshot::Snapshot;
use crate::error::Result;
use crate::pg::connect::Server;
use crate::pg::wire::Session;
use crate::sync::env::Env;
use crate::sync::output::Output;
use crate::sync::plan::StreamPlan;

/// A copy of a whole table, sent under a version of its own: the target drops rows of others at the end.
pub(super) struct TableCopy<'a> {
    pub(super) plan: &'a mut StreamPlan,
    pub(super) version: i64,
    /// Whether the target has no version yet that it could take for the current one.
    pub(super) first_run: bool,
}

impl TableCopy<'_> {
    /// Sends what a snapshot sees of the table, which its transaction holds.
    pub(super) async fn copy_snapshot(
        self,
        output: &mut Output,
        env: &Env,
        server: &Server,
        snapshot: &mut Snapshot,
    ) -> Result<()> {
        self.begin(output);
        let query = RowQuery::of(self.plan);
        env.query_in_hand.set(server, snapshot.session());
        let copied = parallel::is_possible(env, snapshot.session(), self.plan)
            && parallel::copy(output, env, server, snapshot, self.plan, &query, self.version).await?;
        if !copied {
            copy_rows(output, env, snapshot.session(), self.plan, &query, self.version, None).await?;
        }
        output.activate_version(&self.plan.id, self.version);
        Ok(())
    }

    /// Sends what is there now. Returns the session.
    pub(super) async fn copy_now(
        self,
        output: &mut Output,
        env: &Env,
        server: &Server,
        mut session: Session,
    ) -> Result<Session> {
        self.begin(output);
        let query = RowQuery::of(self.plan);
        env.query_in_hand.set(server, &session);
        let mut copied = false;
        if parallel::is_possible(env, &session, self.plan) {
            let mut snapshot = Snapshot::begin(session).await?;
            copied = snapshot.lock_and_see(self.plan).await?
                && parallel::copy(output, env, server, &mut snapshot, self.plan, &query, self.version).await?;
            session = snapshot.end().await?;
        }
        if !copied {
            let mut snapshot = Snapshot::begin_with_lock(session, self.plan).await?;
            copy_rows(output, env, snapshot.session(), self.plan, &query, self.version, None).await?;
            session = snapshot.end().await?;
        }
        output.activate_version(&self.plan.id, self.version);
        Ok(session)
    }

    fn begin(&self, output: &mut Output) {
        let TableCopy { plan, version, first_run } = self;
        output.schema(&plan.id, &plan.schema, &plan.key_properties, &[]);
        if *first_run {
            output.activate_version(&plan.id, *version);
        }
    }
}
