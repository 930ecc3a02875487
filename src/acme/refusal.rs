//! Why a request is refused, and the problem document that says so.

use serde::{Deserialize, Serialize};

use super::statement::StatementRefusal;
use crate::pki::PkiError;
use crate::reason::Reason;

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    // About the form of a request.
    /// Not application/jose+json.
    #[error("the content type must be application/jose+json")]
    ContentType,
    #[error("the request is too large")]
    TooLarge,
    #[error("{0}")]
    Malformed(&'static str),
    /// A member that must be a string, and is not there or is not one.
    #[error("{0} must be there and a string")]
    Member(&'static str),
    /// RFC 8555 section 6.1: no padding, no other characters.
    #[error("{0} is not base64url without padding")]
    Base64(&'static str),
    /// RFC 8555 section 6.3: only the directory and newNonce are read without a signature.
    #[error("this resource takes POST only")]
    Method,
    #[error("there is no such resource")]
    NotFound,

    // About who asks.
    #[error("the signature algorithm must be ES256")]
    Algorithm,
    #[error("{0}")]
    AccountKey(&'static str),
    #[error("the nonce is missing, was used, is too old or is not of this directory")]
    Nonce,
    #[error("the url in the header is not the one that was asked")]
    Url,
    #[error("the signature does not verify")]
    Signature,
    #[error("there is no such account")]
    NoAccount,
    #[error("the account was deactivated")]
    Deactivated,
    #[error("this belongs to another account")]
    OtherAccount,
    /// A contact of another scheme than mailto.
    #[error("a contact must be a mailto URL")]
    ContactScheme,
    #[error("a contact must be one address, without header fields")]
    Contact,

    // About what is asked.
    #[error("this profile was tried too often")]
    Exhausted,
    /// The ticket is not open: used up, or too old.
    #[error("{}", .0.owner_text())]
    Ticket(Reason),
    #[error("the identifier must be of type permanent-identifier")]
    IdentifierType,
    #[error("the identifier is not the one this profile was made for")]
    Identifier,
    #[error("the validity cannot be chosen")]
    Validity,
    #[error("the attestation is not acceptable: {0}")]
    Statement(#[from] StatementRefusal),
    /// RFC 8555 section 7.4: only an order that is "ready" is finalized.
    #[error("the order is not ready: it is {0}")]
    NotReady(&'static str),
    #[error("the CSR cannot be accepted: {0}")]
    Csr(PkiError),
    /// The key in the CSR is not the one that was attested.
    #[error("the key in the CSR is not the attested key")]
    OtherKey,
}

/// The error types of RFC 8555 section 6.7 and the device-attest draft that are used here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Problem {
    AccountDoesNotExist,
    BadAttestationStatement,
    #[serde(rename = "badCSR")]
    BadCsr,
    BadNonce,
    BadPublicKey,
    BadSignatureAlgorithm,
    InvalidContact,
    Malformed,
    OrderNotReady,
    RateLimited,
    RejectedIdentifier,
    Unauthorized,
    UnsupportedContact,
    UnsupportedIdentifier,
}

impl Problem {
    /// The value of "type".
    pub fn urn(self) -> &'static str {
        match self {
            Self::AccountDoesNotExist => "urn:ietf:params:acme:error:accountDoesNotExist",
            Self::BadAttestationStatement => "urn:ietf:params:acme:error:badAttestationStatement",
            Self::BadCsr => "urn:ietf:params:acme:error:badCSR",
            Self::BadNonce => "urn:ietf:params:acme:error:badNonce",
            Self::BadPublicKey => "urn:ietf:params:acme:error:badPublicKey",
            Self::BadSignatureAlgorithm => "urn:ietf:params:acme:error:badSignatureAlgorithm",
            Self::InvalidContact => "urn:ietf:params:acme:error:invalidContact",
            Self::Malformed => "urn:ietf:params:acme:error:malformed",
            Self::OrderNotReady => "urn:ietf:params:acme:error:orderNotReady",
            Self::RateLimited => "urn:ietf:params:acme:error:rateLimited",
            Self::RejectedIdentifier => "urn:ietf:params:acme:error:rejectedIdentifier",
            Self::Unauthorized => "urn:ietf:params:acme:error:unauthorized",
            Self::UnsupportedContact => "urn:ietf:params:acme:error:unsupportedContact",
            Self::UnsupportedIdentifier => "urn:ietf:params:acme:error:unsupportedIdentifier",
        }
    }
}

impl Refusal {
    /// What the client is told, and with which HTTP status.
    pub fn problem(&self) -> (Problem, u16) {
        match self {
            Self::ContentType => (Problem::Malformed, 415),
            Self::TooLarge => (Problem::Malformed, 413),
            Self::Malformed(_) | Self::Member(_) | Self::Base64(_) | Self::Validity => {
                (Problem::Malformed, 400)
            }
            Self::Method => (Problem::Malformed, 405),
            Self::NotFound => (Problem::Malformed, 404),
            Self::Algorithm => (Problem::BadSignatureAlgorithm, 400),
            Self::AccountKey(_) => (Problem::BadPublicKey, 400),
            Self::Nonce => (Problem::BadNonce, 400),
            Self::NoAccount => (Problem::AccountDoesNotExist, 400),
            Self::Url | Self::Signature | Self::Deactivated => (Problem::Unauthorized, 401),
            Self::OtherAccount | Self::Ticket(_) => (Problem::Unauthorized, 403),
            Self::ContactScheme => (Problem::UnsupportedContact, 400),
            Self::Contact => (Problem::InvalidContact, 400),
            Self::Exhausted => (Problem::RateLimited, 429),
            Self::IdentifierType => (Problem::UnsupportedIdentifier, 400),
            Self::Identifier => (Problem::RejectedIdentifier, 403),
            Self::Statement(_) => (Problem::BadAttestationStatement, 403),
            Self::NotReady(_) => (Problem::OrderNotReady, 403),
            Self::Csr(_) | Self::OtherKey => (Problem::BadCsr, 400),
        }
    }

    /// The stable code.
    pub fn reason(&self) -> Reason {
        match self {
            Self::ContentType
            | Self::Malformed(_)
            | Self::Member(_)
            | Self::Base64(_)
            | Self::Url
            | Self::ContactScheme
            | Self::Contact
            | Self::Validity => Reason::RequestMalformed,
            Self::TooLarge => Reason::RequestTooLarge,
            Self::Method | Self::NotFound => Reason::MessageUnsupported,
            Self::Algorithm | Self::AccountKey(_) => Reason::KeyRejected,
            Self::Nonce => Reason::NonceUnusable,
            Self::Signature => Reason::SignatureInvalid,
            Self::NoAccount | Self::Deactivated | Self::OtherAccount => Reason::AccountUnknown,
            Self::Exhausted => Reason::TicketExhausted,
            Self::Ticket(reason) => *reason,
            Self::IdentifierType | Self::Identifier => Reason::IdentifierMismatch,
            Self::Statement(refusal) => refusal.reason(),
            Self::NotReady(_) => Reason::OrderNotReady,
            Self::Csr(fault) => csr_reason(*fault),
            Self::OtherKey => Reason::KeyMismatch,
        }
    }
}

/// What is wrong with a CSR.
pub fn csr_reason(fault: PkiError) -> Reason {
    match fault {
        PkiError::UnsupportedKey | PkiError::UnsupportedAlgorithm => Reason::KeyRejected,
        PkiError::BadSignature => Reason::SignatureInvalid,
        PkiError::TooLarge(_) => Reason::RequestTooLarge,
        PkiError::NotACertificate
        | PkiError::NotARequest
        | PkiError::Malformed { .. }
        | PkiError::DuplicateExtension
        | PkiError::MissingName(_)
        | PkiError::SigningFailed => Reason::RequestMalformed,
    }
}
