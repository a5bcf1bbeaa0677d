//! Where the rows of a copy go, a line each.

use super::key_tracker::KeyTracker;
use crate::error::Result;
use crate::singer::JsonBuf;
use crate::sync::output::Output;
use crate::sync::plan::StreamPlan;

/// A sink for the lines of a copy.
pub(crate) trait RowSink {
    /// Begins a line: writes everything before its first property.
    fn begin(&mut self, plan: &StreamPlan);

    /// Returns the buffer that the line is written into.
    fn buf(&mut self) -> &mut JsonBuf;

    /// Returns what follows the replication key, if anything does.
    fn tracker(&mut self) -> Option<&mut KeyTracker> {
        None
    }

    /// Ends the line after its last property.
    async fn end(&mut self) -> Result<()>;

    /// Hands over the lines that are complete.
    async fn hand_over(&mut self) -> Result<()>;
}

/// A sink of the run's own, between whose lines a STATE can stand.
pub(crate) trait StateSink: RowSink {
    /// Has all lines so far go before what is written next, and returns where to.
    async fn complete(&mut self) -> Result<&mut Output>;
}
