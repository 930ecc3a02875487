//! Why a SCEP request is refused, and how the client is told.

use super::message::Exchange;
use crate::pki::cms::{EnvelopeRefusal, SignedDataRefusal};
use crate::pki::{PkiError, tlv};
use crate::reason::Reason;

/// Why a message was refused, and the transaction to answer under once it was read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{cause}")]
pub struct Refused {
    /// Why.
    pub cause: ScepRefusal,
    /// The transaction; without it no CertRep can be made, only an HTTP error.
    pub exchange: Option<Exchange>,
}

/// Why a SCEP message is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScepRefusal {
    /// The outer message is refused.
    #[error("outer message: {0}")]
    Message(#[from] SignedDataRefusal),
    /// A SCEP attribute is missing or not as it must be.
    #[error("the {0} is missing or malformed")]
    Attribute(&'static str),
    /// A message type this service does not take.
    #[error("message type not supported")]
    MessageType,
    /// The key that signed the message is not RSA of an accepted size, so no reply can be sealed.
    #[error("the signing key is not accepted")]
    SignerKey,
    /// The envelope is refused. Also when what is inside is no request at all: the two must not be
    /// told apart ([`crate::pki::cms::EnvelopedData::open`]).
    #[error("{0}")]
    Envelope(#[from] EnvelopeRefusal),
    /// The key that a certificate is wanted for is of a kind or size that is not accepted.
    #[error("the requested key is not accepted")]
    RequestedKey,
    /// The request is signed by an algorithm that is not accepted.
    #[error("the request's signature algorithm is not accepted")]
    RequestAlgorithm,
    /// The request is not signed by the key it names.
    #[error("the request does not prove possession of its key")]
    ProofOfPossession,
    /// RFC 8894 section 2.3: a first request is signed by the key it wants a certificate for.
    #[error("the message is signed by another key than the request names")]
    OtherKey,
}

/// What a client is told: RFC 8894 section 3.2.1.4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailInfo {
    /// Unrecognized or unsupported algorithm.
    BadAlg,
    /// Integrity check failed.
    BadMessageCheck,
    /// Transaction not permitted or supported.
    BadRequest,
    /// The time in the message is too far from ours.
    BadTime,
    /// No certificate matches what was asked for.
    BadCertId,
}

impl ScepRefusal {
    /// What the client is told.
    pub fn fail_info(&self) -> FailInfo {
        match self {
            Self::Message(SignedDataRefusal::UnsupportedAlgorithm)
            | Self::Envelope(EnvelopeRefusal::UnsupportedAlgorithm)
            | Self::SignerKey
            | Self::RequestedKey
            | Self::RequestAlgorithm => FailInfo::BadAlg,
            Self::Message(_)
            | Self::Envelope(
                EnvelopeRefusal::Malformed(_)
                | EnvelopeRefusal::NotForUs
                | EnvelopeRefusal::CannotOpen,
            )
            | Self::ProofOfPossession => FailInfo::BadMessageCheck,
            Self::Attribute(_) | Self::MessageType | Self::OtherKey => FailInfo::BadRequest,
        }
    }

    /// What the owner of the Mac is told.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Message(cause) => cause.reason(),
            Self::Attribute(_) | Self::Envelope(_) | Self::OtherKey => Reason::RequestMalformed,
            Self::MessageType => Reason::MessageUnsupported,
            Self::SignerKey | Self::RequestedKey | Self::RequestAlgorithm => Reason::KeyRejected,
            Self::ProofOfPossession => Reason::SignatureInvalid,
        }
    }

    /// Why the request inside an envelope is refused.
    pub(super) fn of_request(error: PkiError) -> Self {
        match error {
            PkiError::UnsupportedKey => Self::RequestedKey,
            PkiError::UnsupportedAlgorithm => Self::RequestAlgorithm,
            PkiError::BadSignature => Self::ProofOfPossession,
            _ => Self::Envelope(EnvelopeRefusal::CannotOpen),
        }
    }
}

impl From<tlv::DerFault> for ScepRefusal {
    fn from(fault: tlv::DerFault) -> Self {
        Self::Message(fault.into())
    }
}

impl From<crate::pki::cms::Refused> for Refused {
    fn from(refused: crate::pki::cms::Refused) -> Self {
        Self {
            cause: refused.cause.into(),
            exchange: None,
        }
    }
}

impl FailInfo {
    /// Its number, as text.
    pub fn code(self) -> &'static str {
        match self {
            Self::BadAlg => "0",
            Self::BadMessageCheck => "1",
            Self::BadRequest => "2",
            Self::BadTime => "3",
            Self::BadCertId => "4",
        }
    }

    /// Its name in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::BadAlg => "badAlg",
            Self::BadMessageCheck => "badMessageCheck",
            Self::BadRequest => "badRequest",
            Self::BadTime => "badTime",
            Self::BadCertId => "badCertId",
        }
    }
}
