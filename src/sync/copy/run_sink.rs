//! Rows as RECORD messages of the run itself.

use super::key_tracker::KeyTracker;
use super::sink::RowSink;
use crate::error::Result;
use crate::logging::RecordCounter;
use crate::singer::JsonBuf;
use crate::sync::form::RecordEnd;
use crate::sync::output::Output;
use crate::sync::plan::StreamPlan;

/// A sink that writes RECORD messages.
pub(super) struct RunSink<'a> {
    pub(super) output: &'a mut Output,
    pub(super) end: RecordEnd,
    pub(super) counter: RecordCounter,
    pub(super) tracker: Option<&'a mut KeyTracker>,
    /// The offset at which the line begins.
    start: usize,
}

impl<'a> RunSink<'a> {
    pub(super) fn new(
        output: &'a mut Output,
        end: RecordEnd,
        counter: RecordCounter,
        tracker: Option<&'a mut KeyTracker>,
    ) -> Self {
        RunSink { output, end, counter, tracker, start: 0 }
    }
}

impl RowSink for RunSink<'_> {
    #[inline]
    fn begin(&mut self, plan: &StreamPlan) {
        let out = self.output.begin_record();
        self.start = out.len();
        plan.start_record(out);
    }

    #[inline]
    fn buf(&mut self) -> &mut JsonBuf {
        self.output.buf()
    }

    #[inline]
    fn tracker(&mut self) -> Option<&mut KeyTracker> {
        self.tracker.as_deref_mut()
    }

    #[inline]
    async fn end(&mut self) -> Result<()> {
        self.end.write(self.output.buf());
        self.output.end_record();
        self.counter.add(1, self.output.buf().len() - self.start);
        if self.tracker.as_mut().is_some_and(|tracker| tracker.row(&mut self.output.state)) {
            self.output.write_state().await?;
        } else if self.output.is_full() {
            self.output.hand_over().await?;
        }
        Ok(())
    }

    async fn hand_over(&mut self) -> Result<()> {
        self.output.hand_over().await
    }
}
