//! Private keys: made, kept and used here, and never seen outside.
//!
//! One seam, [`KeyKeeper`]: whoever needs a signature asks for the signer of a role and gets
//! something that signs, not a key. Kept in sealed files ([`mod@file`]); another keeper (a KMS, an HSM)
//! implements the same trait. Push certificate keys are many and come and go, so they are rows in
//! the store, sealed with the same [`MasterSeal`], and so are the keys that results are signed by;
//! [`KeyPair`] makes and opens those. Backups are files sealed under the master key ([`mod@vault`]).

mod bearer;
mod decrypt;
pub mod file;
pub mod master;
mod pair;
pub mod pkcs12;
pub mod seal;
pub mod vault;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

pub use bearer::{BearerKey, BearerKeyFault};
pub use file::FileKeeper;
pub use master::{MasterKey, MasterKeyFault, MasterKeySource};
pub use pair::KeyPair;
pub use seal::MasterSeal;

use crate::pki::{Decryptor, OwnedCertificate, PkiError, Signer};

/// What a key is for. Each has one key and one certificate chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyRole {
    /// Issues the identities of Macs.
    DeviceCa,
    /// Speaks SCEP: signs replies and opens requests. RSA, because SCEP encrypts to it
    /// (RFC 8894 section 3.2.2 and Apple's client).
    RegistrationAuthority,
    /// Signs enrollment profiles.
    ProfileSigner,
}

/// Kinds of keys that are made here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyKind {
    P256,
    P384,
    Rsa2048,
}

/// Keeps keys by role.
///
/// Calls may touch a disk or a network; they belong at start-up and in administration. What they
/// return is meant to be held.
pub trait KeyKeeper: Send + Sync + fmt::Debug {
    /// Makes the key of a role. Never replaces one.
    ///
    /// # Errors
    /// [`KeyError::Exists`], [`KeyError::KindNotForRole`], or the keeper's failure.
    fn generate(&self, role: KeyRole, kind: KeyKind) -> Result<(), KeyError>;

    /// The public key of a role, as a DER SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// [`KeyError::Absent`], or the keeper's failure.
    fn public_key(&self, role: KeyRole) -> Result<Vec<u8>, KeyError> {
        Ok(self.signer(role)?.public_key_spki().to_vec())
    }

    /// What signs for a role.
    ///
    /// # Errors
    /// [`KeyError::Absent`], or the keeper's failure.
    fn signer(&self, role: KeyRole) -> Result<Arc<dyn Signer>, KeyError>;

    /// What decrypts for a role.
    ///
    /// # Errors
    /// [`KeyError::Absent`]; [`KeyError::NoDecryptor`] for every role but
    /// [`KeyRole::RegistrationAuthority`]; or the keeper's failure.
    fn decryptor(&self, role: KeyRole) -> Result<Arc<dyn Decryptor>, KeyError>;

    /// The certificate chain of a role, leaf first.
    ///
    /// # Errors
    /// [`KeyError::Absent`], or the keeper's failure.
    fn certificates(&self, role: KeyRole) -> Result<Vec<OwnedCertificate>, KeyError>;

    /// Keeps the certificate chain of a role, leaf first. Never replaces one.
    ///
    /// # Errors
    /// [`KeyError::Exists`]; [`KeyError::CertificateMismatch`] when the leaf does not certify the
    /// role's key; or the keeper's failure.
    fn keep_certificates(&self, role: KeyRole, chain: &[OwnedCertificate]) -> Result<(), KeyError>;
}

/// Why a key cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("there is no {what} for {role}")]
    Absent { role: KeyRole, what: &'static str },
    #[error("{role} already has a {what}; it is never overwritten, move it away first")]
    Exists { role: KeyRole, what: &'static str },
    #[error("a {kind:?} key cannot serve as {role}")]
    KindNotForRole { role: KeyRole, kind: KeyKind },
    #[error("{0} does not decrypt")]
    NoDecryptor(KeyRole),
    #[error(
        "the key of {role} was sealed under another master key than {expected}; give the service the one it was sealed under"
    )]
    OtherMasterKey { role: KeyRole, expected: String },
    #[error("the sealed key of {0} is damaged, or was made for another role")]
    Damaged(KeyRole),
    #[error("the certificate of {0} is for another key")]
    CertificateMismatch(KeyRole),
    #[error("the certificates of {role} cannot be read")]
    CertificateUnreadable {
        role: KeyRole,
        #[source]
        cause: PkiError,
    },
    #[error("{path} can be used by others (mode {mode:04o}); set it to {wanted:04o}")]
    TooOpen {
        path: PathBuf,
        mode: u32,
        wanted: u32,
    },
    #[error("{path} cannot be used")]
    Disk {
        path: PathBuf,
        #[source]
        cause: std::io::Error,
    },
    #[error("not a private key of a kind in use here (RSA of 2048 to 8192 bits, P-256, P-384)")]
    NotAKey,
    #[error("a key could not be made")]
    NotMade,
}

impl KeyRole {
    /// Every role.
    pub const ALL: [Self; 3] = [
        Self::DeviceCa,
        Self::RegistrationAuthority,
        Self::ProfileSigner,
    ];

    /// Its name in file names and in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::DeviceCa => "device-ca",
            Self::RegistrationAuthority => "registration-authority",
            Self::ProfileSigner => "profile-signer",
        }
    }

    /// What is made unless somebody asks otherwise.
    pub fn usual_kind(self) -> KeyKind {
        match self {
            Self::DeviceCa => KeyKind::P384,
            Self::RegistrationAuthority => KeyKind::Rsa2048,
            Self::ProfileSigner => KeyKind::P256,
        }
    }

    /// Whether a key of this kind can do this work.
    pub fn takes(self, kind: KeyKind) -> bool {
        match self {
            Self::DeviceCa | Self::ProfileSigner => true,
            Self::RegistrationAuthority => kind == KeyKind::Rsa2048,
        }
    }
}

impl fmt::Display for KeyRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
