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
pub mod handover;
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
pub use handover::{Handover, HandoverFault};
pub use master::{MasterKey, MasterKeyFault, MasterKeySource};
pub use pair::KeyPair;
pub use seal::MasterSeal;

use crate::pki::{Decryptor, OwnedCertificate, PkiError, Signer};

/// What a key is for. Each has a key and its certificate chain; another generation follows when it is replaced.
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

/// A key: the first of its role, or one that followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyName {
    pub role: KeyRole,
    /// Counted from 1.
    pub generation: u16,
}

/// Keeps keys by role and generation.
///
/// Calls may touch a disk or a network; they belong at start-up and in administration. What they
/// return is meant to be held.
pub trait KeyKeeper: Send + Sync + fmt::Debug {
    /// The keys of a role, the first generation first, be there a certificate or not.
    ///
    /// # Errors
    /// The keeper's failure.
    fn keys(&self, role: KeyRole) -> Result<Vec<KeyName>, KeyError>;

    /// Makes a key. Never replaces one.
    ///
    /// # Errors
    /// [`KeyError::Exists`], [`KeyError::KindNotForRole`], or the keeper's failure.
    fn generate(&self, key: KeyName, kind: KeyKind) -> Result<(), KeyError>;

    /// The public key, as a DER SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// [`KeyError::Absent`], or the keeper's failure.
    fn public_key(&self, key: KeyName) -> Result<Vec<u8>, KeyError> {
        Ok(self.signer(key)?.public_key_spki().to_vec())
    }

    /// What signs with the key.
    ///
    /// # Errors
    /// [`KeyError::Absent`], or the keeper's failure.
    fn signer(&self, key: KeyName) -> Result<Arc<dyn Signer>, KeyError>;

    /// What decrypts with the key.
    ///
    /// # Errors
    /// [`KeyError::Absent`]; [`KeyError::NoDecryptor`] for every role but
    /// [`KeyRole::RegistrationAuthority`]; or the keeper's failure.
    fn decryptor(&self, key: KeyName) -> Result<Arc<dyn Decryptor>, KeyError>;

    /// The certificate chain of a key, leaf first.
    ///
    /// # Errors
    /// [`KeyError::Absent`], or the keeper's failure.
    fn certificates(&self, key: KeyName) -> Result<Vec<OwnedCertificate>, KeyError>;

    /// Keeps the certificate chain of a key, leaf first. Never replaces one.
    ///
    /// # Errors
    /// [`KeyError::Exists`]; [`KeyError::CertificateMismatch`] when the leaf does not certify the
    /// key; or the keeper's failure.
    fn keep_certificates(&self, key: KeyName, chain: &[OwnedCertificate]) -> Result<(), KeyError>;
}

/// Why a key cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("there is no {what} for {key}")]
    Absent { key: KeyName, what: &'static str },
    #[error("{key} already has a {what}; it is never overwritten, move it away first")]
    Exists { key: KeyName, what: &'static str },
    #[error("a {kind:?} key cannot serve as {role}")]
    KindNotForRole { role: KeyRole, kind: KeyKind },
    #[error("{0} does not decrypt")]
    NoDecryptor(KeyRole),
    #[error(
        "the key of {key} was sealed under another master key than {expected}; give the service the one it was sealed under"
    )]
    OtherMasterKey { key: KeyName, expected: String },
    #[error("the sealed key of {0} is damaged, or was made for another role")]
    Damaged(KeyName),
    #[error("the certificate of {0} is for another key")]
    CertificateMismatch(KeyName),
    #[error("the certificates of {key} cannot be read")]
    CertificateUnreadable {
        key: KeyName,
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

    /// Its name in names of keys.
    pub fn name(self) -> &'static str {
        match self {
            Self::DeviceCa => "device-ca",
            Self::RegistrationAuthority => "registration-authority",
            Self::ProfileSigner => "profile-signer",
        }
    }

    /// The role with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
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

impl KeyName {
    /// The first key of a role.
    pub fn first(role: KeyRole) -> Self {
        Self {
            role,
            generation: 1,
        }
    }

    /// The key that follows it.
    #[must_use]
    pub fn next(self) -> Self {
        Self {
            generation: self.generation.saturating_add(1),
            ..self
        }
    }
}

impl fmt::Display for KeyName {
    /// `device-ca`, then `device-ca.2`: its name in file names and in messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.generation {
            1 => write!(f, "{}", self.role),
            generation => write!(f, "{}.{generation}", self.role),
        }
    }
}

impl fmt::Display for KeyRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
