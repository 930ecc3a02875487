//! Who may have a stream.

use super::access::Scope;
use crate::ids::{ReceiverId, ReceiverName, SecretHash};
use crate::time::Timestamp;

/// Somebody an operator let in; an OAuth client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receiver {
    pub receiver_id: ReceiverId,
    pub name: ReceiverName,
    pub secret: SecretHash,
    /// Whom tokens to it are for.
    pub audience: String,
    /// What it may do at most.
    pub scope: Scope,
    /// It may be pushed to on a private network, and by plain http.
    pub allow_private: bool,
    /// A root instead of the public ones, PEM.
    pub root: Option<String>,
    pub created_at: Timestamp,
}
