//! Where the rows of a copy go, a line each.

use super::key_tracker::KeyTracker;
use crate::error::Result;
use crate::singer::JsonBuf;
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
