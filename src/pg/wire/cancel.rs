//! The key for cancelling a query.

/// What a backend wants to hear from someone who asks it to cancel its query; see
/// [`Server::cancel`](crate::pg::connect::Server::cancel).
#[derive(Clone, Copy)]
pub(crate) struct CancelToken {
    pub(crate) process_id: i32,
    pub(crate) secret_key: i32,
}
