//! What may stand in the audit log.

use serde_json::Value;

use crate::ids::{
    ApiTokenId, CertificateHash, DeviceId, PushCertificateId, PushProposalId, PushRequestId,
    ReceiverId, ReceiverName, SessionId, TicketId, Topic, WebhookId, WebhookName,
};
use crate::provider::BinaryHash;
use crate::time::Timestamp;

/// A value that everybody who may read the audit log may know. Secrets are none: `Secret<T>` is not of
/// this kind, nor is text that was looked at in one, which lives no longer than it. Text of other making is
/// [`Words`], where somebody says whose they are.
pub trait Public {
    /// As it is kept: text, a whole number, a truth value, or a list of these.
    fn shown(&self) -> Value;
}

/// What an operator said to be read by others: a label, an account, a reason.
#[derive(Debug, Clone, Copy)]
pub struct Words<'a>(pub &'a str);

impl Public for Words<'_> {
    fn shown(&self) -> Value {
        self.0.into()
    }
}

impl Public for &'static str {
    fn shown(&self) -> Value {
        (*self).into()
    }
}

impl Public for bool {
    fn shown(&self) -> Value {
        (*self).into()
    }
}

impl Public for u64 {
    fn shown(&self) -> Value {
        (*self).into()
    }
}

impl Public for i64 {
    fn shown(&self) -> Value {
        (*self).into()
    }
}

impl Public for usize {
    fn shown(&self) -> Value {
        (*self).into()
    }
}

impl<T: Public> Public for Option<T> {
    fn shown(&self) -> Value {
        self.as_ref().map_or(Value::Null, Public::shown)
    }
}

impl<T: Public> Public for [T] {
    fn shown(&self) -> Value {
        self.iter().map(Public::shown).collect()
    }
}

impl<T: Public> Public for Vec<T> {
    fn shown(&self) -> Value {
        self.as_slice().shown()
    }
}

impl<T: Public + ?Sized> Public for &T {
    fn shown(&self) -> Value {
        (**self).shown()
    }
}

macro_rules! names {
    ($($name:ty),* $(,)?) => {
        $(impl Public for $name {
            fn shown(&self) -> Value {
                self.to_string().into()
            }
        })*
    };
}

names!(
    ApiTokenId,
    BinaryHash,
    CertificateHash,
    DeviceId,
    PushCertificateId,
    PushProposalId,
    PushRequestId,
    ReceiverId,
    ReceiverName,
    SessionId,
    TicketId,
    Timestamp,
    Topic,
    WebhookId,
    WebhookName,
);
