//! The key that authorizes a request to cancel a query.

/// The key that a request to cancel a session's query must carry (BackendKeyData); `Server::cancel` sends it.
#[derive(Clone, Copy)]
pub(crate) struct CancelToken {
    pub(crate) process_id: i32,
    pub(crate) secret_key: i32,
}
