//! Simple Certificate Enrolment Protocol (RFC 8894), the server's side, as bytes.
//!
//! A request is a SignedData around an envelope around a PKCS #10 request; the reply is the same
//! form around a list of certificates. What is decided in between (is the challenge a ticket of
//! ours, what goes into the certificate) is not here.
//!
//! ```text
//! read -> PkiMessage::parse -> (signature verified) -> open -> Opened::ask -> issue
//!      -> Responder::success | failure | pending
//! ```
//!
//! Every refusal that happens after the transaction is known can be answered as RFC 8894 demands,
//! by a CertRep with a [`FailInfo`] (and HTTP status 200: macOS ends the installation on any other,
//! apple-protocol 8.1); [`Refused::exchange`] says whether it can.

pub mod ca_certificate;
pub mod capability;
pub mod cert_rep;
#[cfg(test)]
mod exchange_test;
pub mod message;
pub mod refusal;

pub use ca_certificate::CaCertificates;
pub use capability::CAPABILITIES;
pub use cert_rep::Responder;
pub use message::{Ask, Exchange, MessageType, Opened, PkiMessage, read};
pub use refusal::{FailInfo, Refused, ScepRefusal};

/// Object identifiers of the SCEP attributes, RFC 8894 section 3.2.1.
pub mod attribute {
    use const_oid::ObjectIdentifier;

    const fn oid(dotted: &str) -> ObjectIdentifier {
        ObjectIdentifier::new_unwrap(dotted)
    }

    /// Section 3.2.1.2.
    pub const MESSAGE_TYPE: ObjectIdentifier = oid("2.16.840.1.113733.1.9.2");
    /// Section 3.2.1.3.
    pub const PKI_STATUS: ObjectIdentifier = oid("2.16.840.1.113733.1.9.3");
    /// Section 3.2.1.4.
    pub const FAIL_INFO: ObjectIdentifier = oid("2.16.840.1.113733.1.9.4");
    /// Section 3.2.1.5.
    pub const SENDER_NONCE: ObjectIdentifier = oid("2.16.840.1.113733.1.9.5");
    /// Section 3.2.1.5.
    pub const RECIPIENT_NONCE: ObjectIdentifier = oid("2.16.840.1.113733.1.9.6");
    /// Section 3.2.1.1.
    pub const TRANSACTION_ID: ObjectIdentifier = oid("2.16.840.1.113733.1.9.7");
    /// Section 3.2.1.4: text for people beside the code.
    pub const FAIL_INFO_TEXT: ObjectIdentifier = oid("1.3.6.1.5.5.7.24.1");
}
