//! What the server says aside of its answers.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use crate::error::Result;
use crate::pg::error::ServerError;

/// What becomes of a warning: it is logged ([`warn_once`]), or not, or an error.
pub(crate) type OnWarning = Box<dyn Fn(&ServerError) -> Result<()> + Send + Sync>;

/// Takes a NoticeResponse. Warnings are logged unless `on_warning` does something else with them; what functions of the database
/// raise may hold values of a row, so that the text of theirs never is.
pub(super) fn take(body: &[u8], on_warning: Option<&OnWarning>) -> Result<()> {
    let notice = ServerError::parse(body);
    if notice.severity != "WARNING" {
        tracing::debug!("the server sent a message of severity {} ({})", notice.severity, notice.code);
        return Ok(());
    }
    match on_warning {
        Some(heed) => heed(&notice),
        None => {
            warn_once(&notice);
            Ok(())
        }
    }
}

/// Logs a warning of the server once, as it may be repeated with every change.
pub(crate) fn warn_once(notice: &ServerError) {
    static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    const MANY: usize = 100;
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    if told.len() < MANY && told.insert(notice.message.clone()) {
        tracing::warn!("the server warns: {notice}");
    }
}
