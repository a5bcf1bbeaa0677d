//! Whole tables under versions of their own.

use super::held::{Present, describe_held};
use super::parallel;
use super::query::{copy_rows, copy_snapshot};
use super::reading::Reading;
use super::rows::RowQuery;
use super::sessions::Sessions;
use super::snapshot::Snapshot;
use crate::error::Result;
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
    /// Sends what is there now, by a session that is given back to the others then.
    pub(super) async fn copy_now(
        self,
        output: &mut Output,
        env: &Env,
        mut session: Session,
        sessions: &mut Sessions<'_>,
    ) -> Result<()> {
        let server = sessions.server();
        env.query_in_hand.set(server, &session);
        let most = env.config.max_record_count();
        if most.is_none() && parallel::is_possible(env, &session, self.plan) {
            let mut snapshot = Snapshot::begin(session).await?;
            if snapshot.lock_and_see(self.plan).await? {
                describe_held(Present::Client(sessions.client()), server, self.plan).await?;
                let mut reading = Reading::of(RowQuery::of(self.plan), self.version);
                parallel::divide(env, snapshot.session(), self.plan, &mut reading).await?;
                if reading.several {
                    self.begin(output);
                    copy_snapshot(output, env, server, &mut snapshot, self.plan, &mut reading).await?;
                    output.activate_version(&self.plan.id, self.version);
                    sessions.give_back(snapshot.end().await?);
                    return Ok(());
                }
            }
            session = snapshot.end().await?;
        }
        let mut snapshot = Snapshot::begin_with_lock(session, self.plan).await?;
        describe_held(Present::Session(snapshot.session()), server, self.plan).await?;
        self.begin(output);
        let mut query = RowQuery::of(self.plan);
        if let Some(most) = most {
            tracing::info!("{}: {most} rows at most, as max_record_count says", self.plan.id);
            query.order = format!(" LIMIT {most}");
        }
        copy_rows(output, snapshot.session(), self.plan, &mut Reading::of(query, self.version), None).await?;
        if most.is_none() {
            output.activate_version(&self.plan.id, self.version);
        }
        sessions.give_back(snapshot.end().await?);
        Ok(())
    }

    /// Announces the stream.
    pub(super) fn begin(&self, output: &mut Output) {
        let TableCopy { plan, version, first_run } = self;
        output.schema(&plan.id, &plan.schema, &plan.key_properties, &[]);
        if *first_run {
            output.activate_version(&plan.id, *version);
        }
    }
}
