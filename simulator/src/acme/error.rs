//! Where a run broke off, and on what.

use std::fmt;

use openssl::error::ErrorStack;

/// The requests of a run, in their order (apple-protocol 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcmeStep {
    Directory,
    NewNonce,
    NewAccount,
    NewOrder,
    Authorization,
    Challenge,
    Finalize,
    Order,
    Certificate,
}

impl fmt::Display for AcmeStep {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Directory => "the directory",
            Self::NewNonce => "newNonce",
            Self::NewAccount => "newAccount",
            Self::NewOrder => "newOrder",
            Self::Authorization => "the authorization",
            Self::Challenge => "the challenge",
            Self::Finalize => "finalize",
            Self::Order => "the order",
            Self::Certificate => "the certificate",
        })
    }
}

/// Why no identity came of it. Every one of these ends a profile's installation.
#[derive(Debug, thiserror::Error)]
#[error("{step}")]
pub struct AcmeError {
    pub step: AcmeStep,
    #[source]
    pub fault: AcmeFault,
}

/// What was wrong with one step.
#[derive(Debug, thiserror::Error)]
pub enum AcmeFault {
    #[error("the server cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    #[error("no answer within the time limit")]
    TimedOut,
    /// Anything but 200, 201 or, to newNonce, 204; nothing is tried again.
    #[error("answered with status {status}{problem}")]
    Refused { status: u16, problem: String },
    #[error("the answer (status {status}) has no Replay-Nonce")]
    NoReplayNonce { status: u16 },
    #[error("the answer has no Location")]
    NoLocation,
    #[error("the answer is not a JSON object")]
    NotJson,
    #[error("the answer has no {0}")]
    Missing(&'static str),
    #[error("{what} is no https URL: {url:?}")]
    BadUrl { what: &'static str, url: String },
    #[error("the status is {found:?}, not {expected:?}")]
    OtherStatus {
        expected: &'static str,
        found: String,
    },
    #[error("the identifiers are not those of the request")]
    OtherIdentifiers,
    #[error("the authorization has no device-attest-01 challenge")]
    NoChallenge,
    #[error("the answer is no certificate in PEM")]
    NotACertificate,
    #[error("the certificate is for another key")]
    OtherKey,
    #[error("cryptography failed")]
    Crypto(#[from] ErrorStack),
}

impl AcmeFault {
    pub(super) fn at(self, step: AcmeStep) -> AcmeError {
        AcmeError { step, fault: self }
    }
}
