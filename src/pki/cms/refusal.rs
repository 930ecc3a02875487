//! Why a signed message is refused.

use crate::pki::tlv::DerFault;
use crate::pki::{Digest, OwnedCertificate};
use crate::reason::Reason;

/// Why a message was refused, and what was read from it until then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{cause}")]
pub struct Refused {
    /// Why.
    pub cause: SignedDataRefusal,
    /// The signer's certificate, once found.
    pub signer: Option<OwnedCertificate>,
    /// The digest algorithm, once read.
    pub digest: Option<Digest>,
}

/// Why a SignedData is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignedDataRefusal {
    /// The outer form is not that of a CMS message at all.
    #[error("not a CMS message")]
    NotCms,
    /// Larger than anything honest.
    #[error("larger than any honest message")]
    TooLarge,
    /// A CMS message, but broken or not signed data.
    #[error("malformed message: {0}")]
    Malformed(DerFault),
    /// No signer, or more than one.
    #[error("there must be exactly one signer")]
    SignerCount,
    /// The signer's certificate is not enclosed.
    #[error("the signer's certificate is not enclosed")]
    CertificateMissing,
    /// An enclosed certificate is broken, or two match the signer.
    #[error("the enclosed certificates are not usable")]
    CertificateMalformed,
    /// Content is attached to a signature that must be detached.
    #[error("content is attached to a detached signature")]
    ContentAttached,
    /// There is no content where it must be attached.
    #[error("the content is missing")]
    ContentMissing,
    /// The signed attributes lack one they must have, have one twice, or name another content type.
    #[error("the signed attributes are not as they must be")]
    Attributes,
    /// A digest, key or signature algorithm that is not accepted, or two that contradict.
    #[error("an algorithm is not accepted")]
    UnsupportedAlgorithm,
    /// The signed digest is that of another content.
    #[error("the signature is over another content")]
    DigestMismatch,
    /// The signature is not the signer's.
    #[error("the signature does not verify")]
    SignatureInvalid,
}

impl SignedDataRefusal {
    /// What it is called in answers.
    pub fn reason(&self) -> Reason {
        match self {
            Self::NotCms | Self::Malformed(_) => Reason::RequestMalformed,
            Self::TooLarge => Reason::RequestTooLarge,
            Self::SignerCount
            | Self::CertificateMissing
            | Self::CertificateMalformed
            | Self::ContentAttached
            | Self::ContentMissing
            | Self::Attributes
            | Self::UnsupportedAlgorithm
            | Self::DigestMismatch
            | Self::SignatureInvalid => Reason::SignatureInvalid,
        }
    }
}

impl From<SignedDataRefusal> for Refused {
    fn from(cause: SignedDataRefusal) -> Self {
        Self {
            cause,
            signer: None,
            digest: None,
        }
    }
}

impl From<DerFault> for Refused {
    fn from(fault: DerFault) -> Self {
        SignedDataRefusal::Malformed(fault).into()
    }
}

impl From<DerFault> for SignedDataRefusal {
    fn from(fault: DerFault) -> Self {
        Self::Malformed(fault)
    }
}
