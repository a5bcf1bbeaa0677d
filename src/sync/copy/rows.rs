//! `COPY … TO STDOUT` into RECORD messages: the loop that initial copies, FULL_TABLE and INCREMENTAL share.

use std::time::Duration;

use crate::sync::env::Env;
use super::batch::BatchLines;
use crate::sync::output::Context;
use super::incremental::KeyTracker;
use super::parallel;
use crate::sync::plan::{RecordEnd, StreamPlan};
use crate::error::Result;
use crate::logging::RecordCounter;
use crate::pg::connect::Server;
use crate::pg::copy::{Field, fields, unescape};
use crate::pg::quote;
use crate::pg::wire::Session;
use crate::singer::JsonBuf;

/// Lines don't wait for longer than this while no row comes.
const PAUSE: Duration = Duration::from_secs(1);

/// The SELECT of the plan's columns from its table; the caller adds what follows FROM.
pub(crate) fn select(plan: &StreamPlan) -> String {
    let columns: Vec<String> = plan.columns.iter().map(|c| quote::ident(&c.name)).collect();
    let query = format!("SELECT {} FROM {}", columns.join(", "), plan.own_rows());
    // As far as it holds no value.
    tracing::debug!("{}: {query}", plan.id);
    query
}

/// What a whole table is read from.
pub(crate) struct TableSource<'a> {
    pub(crate) session: &'a mut Session,
    /// Where there are more of its kind,
    pub(crate) server: &'a Server,
    /// and how many may read at a time.
    pub(crate) parallelism: usize,
    /// Whether the session is in a transaction, whose snapshot is to be read.
    pub(crate) in_transaction: bool,
}

impl<'a> TableSource<'a> {
    /// A session of this server that is in no transaction.
    pub(crate) fn new(env: &Env, server: &'a Server, session: &'a mut Session) -> Self {
        TableSource { session, server, parallelism: env.config.copy_parallelism.get(), in_transaction: false }
    }

    /// The session is in a transaction.
    pub(crate) fn in_transaction(self) -> Self {
        TableSource { in_transaction: true, ..self }
    }
}

/// Sends a whole table under this version; the target drops rows of others at the end. `first_run`: it has none yet that it
/// could take for the current one.
pub(crate) async fn copy_table(
    ctx: &mut Context,
    source: &mut TableSource<'_>,
    plan: &mut StreamPlan,
    version: i64,
    first_run: bool,
) -> Result<()> {
    ctx.schema(&plan.id, &plan.schema, &plan.key_properties, &[]);
    if first_run {
        ctx.activate_version(&plan.id, version);
    }
    let query = select(plan);
    ctx.cancels(source.server, source.session);
    if !parallel::copy(ctx, source, plan, &query, version).await? {
        if !source.in_transaction {
            // The snapshot of a lone COPY is older than its lock: what is rewritten while it waits looks empty to it.
            let sql = format!("BEGIN ISOLATION LEVEL READ COMMITTED; SELECT FROM {} LIMIT 0", plan.own_rows());
            source.session.query(&sql).await?;
        }
        copy_rows(ctx, source.session, plan, &query, version, None).await?;
        if !source.in_transaction {
            source.session.query("COMMIT").await?;
        }
    }
    ctx.activate_version(&plan.id, version);
    Ok(())
}

/// Sends every row that `query` yields, whose columns are the plan's; keeps `tracker` informed.
pub(crate) async fn copy_rows(
    ctx: &mut Context,
    session: &mut Session,
    plan: &mut StreamPlan,
    query: &str,
    version: i64,
    tracker: Option<&mut KeyTracker>,
) -> Result<()> {
    // How many rows are past a key, only the server could count.
    let expected = tracker.is_none().then_some(plan.table.row_estimate);
    let counter = RecordCounter::of_rows(&plan.id, expected);
    if let Some(config) = ctx.batches.clone() {
        let mut lines = BatchLines::new(ctx, config, plan, version, counter, tracker);
        write_rows(session, plan, query, &mut lines).await?;
        return lines.finish().await;
    }
    let mut lines = RunLines { ctx, end: RecordEnd::new(version), counter, tracker, start: 0 };
    write_rows(session, plan, query, &mut lines).await?;
    lines.counter.finish();
    Ok(())
}

/// What takes the lines of a copy.
pub(crate) trait Lines {
    /// Begins a line: everything before its first property.
    fn begin(&mut self, plan: &StreamPlan);

    /// Where it is written.
    fn buf(&mut self) -> &mut JsonBuf;

    /// What follows the replication key, if anything does.
    fn tracker(&mut self) -> Option<&mut KeyTracker> {
        None
    }

    /// Ends the line after its last property.
    async fn end(&mut self) -> Result<()>;

    /// Passes on the lines that there are.
    async fn hand_over(&mut self) -> Result<()>;
}

/// Those of the run itself.
struct RunLines<'a> {
    ctx: &'a mut Context,
    end: RecordEnd,
    counter: RecordCounter,
    tracker: Option<&'a mut KeyTracker>,
    /// Where the line begins.
    start: usize,
}

impl Lines for RunLines<'_> {
    #[inline]
    fn begin(&mut self, plan: &StreamPlan) {
        self.ctx.before_record();
        self.start = self.ctx.out.buf.len();
        plan.start_record(&mut self.ctx.out.buf);
    }

    #[inline]
    fn buf(&mut self) -> &mut JsonBuf {
        &mut self.ctx.out.buf
    }

    #[inline]
    fn tracker(&mut self) -> Option<&mut KeyTracker> {
        self.tracker.as_deref_mut()
    }

    #[inline]
    async fn end(&mut self) -> Result<()> {
        self.end.write(&mut self.ctx.out.buf);
        self.ctx.mark();
        self.counter.add(1, self.ctx.out.buf.len() - self.start);
        if self.tracker.as_mut().is_some_and(|tracker| tracker.row(&mut self.ctx.state)) {
            self.ctx.write_state().await?;
        } else if self.ctx.out.is_full() {
            self.ctx.hand_over().await?;
        }
        Ok(())
    }

    async fn hand_over(&mut self) -> Result<()> {
        self.ctx.hand_over().await
    }
}

/// Writes a line for every row that `query` yields, whose columns are the plan's.
pub(crate) async fn write_rows(
    session: &mut Session,
    plan: &mut StreamPlan,
    query: &str,
    lines: &mut impl Lines,
) -> Result<()> {
    let mut scratch = Vec::new();
    // The server may think for long before the first row.
    lines.hand_over().await?;
    let mut rows = session.copy_out(&format!("COPY ({query}) TO STDOUT")).await?;
    let mut pause = tokio::time::interval(PAUSE);
    loop {
        let row = tokio::select! {
            biased;
            row = rows.next() => row?,
            // A slow query: what there is goes out meanwhile.
            _ = pause.tick() => {
                lines.hand_over().await?;
                continue;
            }
        };
        let Some(row) = row else { return Ok(()) };
        lines.begin(plan);
        for (index, (column, field)) in plan.columns.iter_mut().zip(fields(row)).enumerate() {
            let out = lines.buf();
            if index > 0 {
                out.byte(b',');
            }
            let text = match field {
                Field::Null => None,
                Field::Plain(text) => Some(text),
                Field::Escaped(text) => Some(unescape(text, &mut scratch)),
            };
            column.encode(text, out);
            if let (Some(text), Some(tracker)) = (text, lines.tracker()) {
                tracker.see(index, &column.codec, text);
            }
        }
        lines.end().await?;
    }
}
