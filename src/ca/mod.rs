//! What our own certificates look like, and the making of them.
//!
//! One device authority signs everything: the identities of Macs, the registration authority that
//! SCEP clients encrypt to (its key is RSA, the authority's need not be), and the keys that sign
//! profiles and results. Each kind has one profile; nothing a client wishes for gets into a
//! certificate but its key.
//!
//! Making one takes three steps: [`issuance::prepare`] writes what is to be signed and lints it with
//! a decoder of other hands (`x509-cert`), [`issuance::ToBeSigned::sign`] has it signed and verifies
//! the result (for Macs [`issuance::ToBeSigned::sign_by_proved`], by a key that was verified at
//! start-up), and the caller records it.
//!
//! There is no intermediate: an authority whose key is lost or stolen means new profiles for its
//! Macs either way, and a chain of one is what Macs send with every message.

pub mod certificate_profile;
pub mod issuance;
pub mod lint;

pub use certificate_profile::{CertificateKind, CertificateProfile};
pub use issuance::{Issuer, ProvedSigner, ToBeSigned, prepare};

use crate::pki::PkiError;

/// Why a certificate is not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IssuanceError {
    /// The key is of a kind or size that this kind of certificate may not have.
    #[error("the key may not have a certificate of this kind")]
    KeyRejected,
    /// The subject is empty, too long, or has characters that do not belong into a name.
    #[error("the subject is not well formed")]
    SubjectRejected,
    /// It would be valid when its issuer is not.
    #[error("it would outlive its issuer")]
    OutlivesIssuer,
    /// The issuing certificate may not issue this.
    #[error("the issuer may not issue it")]
    IssuerRejected,
    /// What was prepared breaks a rule of its profile: a defect here, caught before signing.
    #[error("what was prepared breaks its profile: {0}")]
    Lint(&'static str),
    /// The key did not sign, or what came out does not verify.
    #[error("signing failed: {0}")]
    Signing(#[from] PkiError),
}
