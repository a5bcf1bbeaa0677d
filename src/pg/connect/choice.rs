//! The choice among several servers, by libpq's rules.

use std::sync::Arc;

use super::endpoint::Endpoint;
use super::params::TargetSessionAttrs;
use crate::error::{Error, ErrorKind, Result};
use crate::pg::wire::Session;

/// Returns the first endpoint that accepts the login and is in the wanted state. A server that is unreachable or not
/// ready is skipped; one that refuses the login is an error.
pub(super) async fn choose(endpoints: &[Arc<Endpoint>], wanted: TargetSessionAttrs) -> Result<Arc<Endpoint>> {
    let rounds: &[TargetSessionAttrs] = match &wanted {
        TargetSessionAttrs::PreferStandby => &[TargetSessionAttrs::Standby, TargetSessionAttrs::Any],
        other => std::slice::from_ref(other),
    };
    let mut refusals = Vec::new();
    for &wanted in rounds {
        refusals.clear();
        for endpoint in endpoints {
            let mut session = match endpoint.log_in(false).await {
                Ok(session) => session,
                Err(failure) => {
                    let absent = failure.is_absence();
                    let error = failure.at(endpoint.target(), false);
                    if !absent {
                        return Err(error);
                    }
                    refusals.push(error);
                    continue;
                }
            };
            let fits = endpoint.in_time(is_as_wanted(&mut session, wanted)).await?;
            session.close().await;
            if fits {
                return Ok(Arc::clone(endpoint));
            }
            // A failover may be under way: worth a retry.
            let refusal = Error::transient(format!("{} is not {wanted}", endpoint.target()));
            refusals.push(refusal.hint("`target_session_attrs` wants it so"));
        }
    }
    Err(none_of(refusals))
}

/// Returns whether the server is in the wanted state.
async fn is_as_wanted(session: &mut Session, wanted: TargetSessionAttrs) -> Result<bool> {
    // The session has the role's own search_path: neither operator nor cast may stand here.
    const IS_STANDBY: &str = "SELECT pg_catalog.pg_is_in_recovery()";
    // On a standby it is on, whatever is set.
    const IS_READ_ONLY: &str = "SELECT pg_catalog.current_setting('transaction_read_only')";
    match wanted {
        TargetSessionAttrs::Any => Ok(true),
        TargetSessionAttrs::ReadWrite => Ok(session.query_value(IS_READ_ONLY).await?.as_deref() == Some("off")),
        TargetSessionAttrs::ReadOnly => Ok(session.query_value(IS_READ_ONLY).await?.as_deref() == Some("on")),
        TargetSessionAttrs::Primary => Ok(!session.query_bool(IS_STANDBY).await?),
        TargetSessionAttrs::Standby | TargetSessionAttrs::PreferStandby => session.query_bool(IS_STANDBY).await,
    }
}

/// Returns the error that lists why each endpoint was refused; transient if that of any of them is.
fn none_of(mut refusals: Vec<Error>) -> Error {
    if refusals.len() == 1 {
        return refusals.remove(0);
    }
    let transient = refusals.iter().any(|error| error.kind() == ErrorKind::Transient);
    let why: Vec<String> = refusals.iter().map(Error::to_string).collect();
    let kind = if transient { ErrorKind::Transient } else { ErrorKind::Run };
    Error::new(kind, format!("none of the hosts can be read from: {}", why.join("; ")))
}
