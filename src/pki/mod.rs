//! Certificates, chains, requests, signatures: the formats every protocol here stands on.
//!
//! Accepted, and nothing else:
//! - keys: RSA of 2,048 to 8,192 bits, P-256, P-384. What Macs make for SCEP (RSA), what Apple
//!   attests (P-384), and what our own authorities use; 8,192 bounds the cost of one verification;
//! - digests: SHA-256, SHA-384, SHA-512. SHA-1 only where the caller says so by type
//!   ([`LegacyDigest`]): macOS signs `Mdm-Signature` with it by default and old SCEP clients sign
//!   requests with it, and in both places the signer gains nothing by a collision. Never in a chain;
//! - DER, strictly: shortest definite lengths, no trailing bytes, no extension twice. BER only in
//!   front of CMS ([`ber`]), which real Macs send.
//!
//! Sizes are capped before parsing: [`MAX_CERTIFICATE`], [`MAX_REQUEST`] and the caps of `cms`.
//! Verification is by `aws-lc-rs` (P-384 costs OpenSSL 3.0 three times as much, and parsing a key
//! or certificate there costs more than verifying with it); `openssl` does only what the former
//! cannot.
//!
//! Nothing here knows the time, draws random bytes or touches a private key: keys sign behind
//! [`Signer`] and decrypt behind [`Decryptor`]. (A library may blind or pad with randomness of its
//! own inside one operation.)

pub mod ber;
pub mod certificate;
pub mod chain;
#[cfg(test)]
mod chain_test;
pub mod client_certificate;
pub mod cms;
pub mod csr;
pub mod extension;
pub mod key;
pub mod name;
pub mod oid;
pub mod pem;
#[cfg(test)]
pub(crate) mod test_key;
pub mod tlv;
pub mod topic;
pub mod write;
pub mod x509_time;

pub use certificate::{Certificate, OwnedCertificate};
pub use chain::{
    ChainRefusal, ChainShape, KnownIntermediates, TrustAnchors, VerifiedChain, verify_chain,
};
pub use client_certificate::{ClientCertificate, is_spiffe_id};
pub use csr::CertificateRequest;
pub use extension::{BasicConstraints, Extension, KeyUsage};
pub use key::{
    Decryptor, Digest, KeyAlgorithm, LegacyDigest, PublicKey, SignatureAlgorithm, Signer,
};
pub use name::Name;
pub use pem::{read_certificates, read_request};

use tlv::DerFault;

/// The largest certificate read. Apple's attestation leaf has 839 bytes; certificates of the public
/// web stay below 8 KiB.
pub const MAX_CERTIFICATE: usize = 16 * 1024;

/// The largest certificate request read.
pub const MAX_REQUEST: usize = 16 * 1024;

/// Why something is not what it was given as, or could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PkiError {
    /// The outer form is not that of a certificate at all.
    #[error("not a certificate")]
    NotACertificate,
    /// The outer form is not that of a certificate request at all.
    #[error("not a certificate request")]
    NotARequest,
    /// Larger than anything honest.
    #[error("larger than {0} bytes")]
    TooLarge(usize),
    /// Broken inside.
    #[error("malformed {what}: {fault}")]
    Malformed {
        /// The part being read.
        what: &'static str,
        /// What is wrong with it.
        fault: DerFault,
    },
    /// RFC 5280 section 4.2: no extension twice.
    #[error("an extension appears twice")]
    DuplicateExtension,
    /// A key of a kind or size that is not accepted.
    #[error("key of a kind or size that is not accepted")]
    UnsupportedKey,
    /// A signature algorithm that is not accepted, or not with this key, or not here.
    #[error("signature algorithm not accepted")]
    UnsupportedAlgorithm,
    /// A signature that does not verify.
    #[error("the signature does not verify")]
    BadSignature,
    /// The subject of a certificate lacks what must be in it.
    #[error("the subject holds no well-formed {0}")]
    MissingName(&'static str),
    /// A key of ours did not do its work.
    #[error("the private key did not sign")]
    SigningFailed,
}

impl PkiError {
    /// For `map_err` on the strict reader: names the part.
    pub(crate) fn malformed(what: &'static str) -> impl Fn(DerFault) -> Self {
        move |fault| Self::Malformed { what, fault }
    }
}
