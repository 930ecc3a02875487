//! The attestation blob: what the provider software says of itself and of its Mac when a session
//! begins, signed by its Secure Enclave key.
//!
//! The signature covers the exact bytes of the JSON value, as Swift's encoder wrote them (`/` as
//! `\/`), so the bytes are kept and never written again.
//!
//! # What it proves
//! That whoever holds the private half of this key wrote these words. Nothing in them is checked by
//! anybody else: the serial number is claimed, and a patched program signs what it likes.

use serde::Serialize;

use super::encryption_key::{EncryptionKey, NotAnEncryptionKey};
use super::members::{Malformed, Members};
use super::se_key::{SeKeyRefusal, SePublicKey};
use super::signature::{BadSignature, Signature, SignatureRefusal};
use super::version::Version;
use super::{CLOCK_SKEW, is_timely};
use crate::ids::SerialNumber;
use crate::reason::Reason;
use crate::time::Timestamp;

/// The largest blob read; real ones have 700 to 1,200 bytes.
pub const MAX_BLOB: usize = 16 * 1024;

/// The oldest blob that is taken from provider software before 0.8.15, which signs once in the life
/// of a process and sends the same blob with each connection.
///
/// What bounds such a blob in the first place is that it names the encryption key `K`, which every
/// process makes anew: a blob that names this session's `K` was signed by this process, and SIP and
/// Secure Boot do not change while it lives. The ceiling is there for processes that live for ever:
/// no word of the provider counts for longer than Apple's own does under the default policy. (The
/// version is the provider's word too; what one gains by claiming an old one is this much and no
/// more.)
pub const OLDEST_CACHED_BLOB: std::time::Duration = std::time::Duration::from_secs(14 * 86_400);

/// What a blob says.
#[derive(Debug, Clone, Serialize)]
pub struct SelfReport {
    /// Claimed; nobody vouches for it.
    pub serial: Option<SerialNumber>,
    pub se_public_key: SePublicKey,
    pub encryption_public_key: Option<EncryptionKey>,
    pub secure_enclave_available: bool,
    pub sip_enabled: bool,
    /// On Apple silicon derived by the provider from the sealed system volume.
    pub secure_boot_enabled: bool,
    /// Recorded; old provider software leaves it out.
    pub authenticated_root_enabled: Option<bool>,
    /// Recorded; old provider software leaves it out.
    pub rdma_disabled: Option<bool>,
    /// Only before 0.6.31.
    pub hypervisor_active: Option<bool>,
    /// SHA-256 of the provider's program in hexadecimal, as it was written.
    pub binary_hash: Option<String>,
    pub metallib_hash: Option<String>,
    pub system_volume_hash: Option<String>,
    pub chip_name: String,
    pub chip_family: Option<String>,
    pub hardware_model: String,
    pub os_version: String,
    pub runtime_capabilities: Vec<String>,
    /// When it was signed, by the Mac's clock.
    pub timestamp: Timestamp,
}

/// A blob whose signature is not verified yet.
#[derive(Debug, Clone)]
pub struct Blob<'a> {
    raw: &'a [u8],
    report: SelfReport,
}

/// A blob that its own key signed. Whether what it says is acceptable is another question.
#[derive(Debug, Clone)]
pub struct SignedBlob {
    raw: Vec<u8>,
    signature: Signature,
    report: SelfReport,
}

/// A blob that a session may begin with. [`SignedBlob::accept`] is the only way to get one.
#[derive(Debug, Clone)]
pub struct VerifiedBlob(SignedBlob);

/// What a blob must be about.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// The session's `K`.
    pub encryption_key: &'a EncryptionKey,
    /// What the provider says its version is; `None` is judged like a new one.
    pub provider_version: Option<&'a Version>,
    pub now: Timestamp,
}

/// Why a blob is not one that its key signed. None of what it says is believed, good or bad.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlobRefusal {
    #[error("the blob is malformed: {0}")]
    Malformed(#[from] Malformed),
    /// `publicKey` is no key.
    #[error(transparent)]
    SeKey(#[from] SeKeyRefusal),
    /// `encryptionPublicKey` is no key.
    #[error(transparent)]
    EncryptionKey(#[from] NotAnEncryptionKey),
    /// `publicKey` is another key, or another text of the same key, than the session's.
    #[error("the blob names another Secure Enclave key than the one that must have signed it")]
    OtherKey,
    #[error(transparent)]
    Signature(#[from] SignatureRefusal),
    #[error(transparent)]
    BadSignature(#[from] BadSignature),
}

/// Why a session cannot begin with a blob that its key did sign.
#[derive(Debug, Clone)]
pub struct NotAccepted {
    /// What was signed all the same.
    pub blob: Box<SignedBlob>,
    /// At least one, definite negatives first.
    pub reasons: Vec<Reason>,
}

impl BlobRefusal {
    /// Its code.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Malformed(malformed) => malformed.reason(),
            Self::SeKey(refusal) => refusal.reason(),
            Self::EncryptionKey(refusal) => refusal.reason(),
            Self::OtherKey => Reason::KeyMismatch,
            Self::Signature(refusal) => refusal.reason(),
            Self::BadSignature(refusal) => refusal.reason(),
        }
    }
}

const KNOWN: &[&str] = &[
    "authenticatedRootEnabled",
    "binaryHash",
    "chipFamily",
    "chipName",
    "encryptionPublicKey",
    "hardwareModel",
    "hypervisorActive",
    "metallibHash",
    "osVersion",
    "publicKey",
    "rdmaDisabled",
    "runtimeCapabilities",
    "secureBootEnabled",
    "secureEnclaveAvailable",
    "serialNumber",
    "sipEnabled",
    "systemVolumeHash",
    "timestamp",
];

impl<'a> Blob<'a> {
    /// Reads the exact bytes of a blob. Members nobody knows are signed bytes and nothing else.
    ///
    /// # Refusals
    /// Anything but the signature's, and [`BlobRefusal::OtherKey`].
    pub fn parse(raw: &'a [u8]) -> Result<Self, BlobRefusal> {
        let mut members = Members::read(raw, MAX_BLOB, KNOWN)?;
        // Writers that do not leave absent texts out write empty ones.
        let mut given = |name| -> Result<_, Malformed> {
            Ok(members.optional_text(name)?.filter(|text| !text.is_empty()))
        };
        let serial = match given("serialNumber")? {
            None => None,
            Some(text) => {
                Some(SerialNumber::parse(&text).map_err(|_| Malformed::Form("serialNumber"))?)
            }
        };
        let encryption_public_key = given("encryptionPublicKey")?
            .map(|text| EncryptionKey::parse(&text))
            .transpose()?;
        let binary_hash = given("binaryHash")?;
        let metallib_hash = given("metallibHash")?;
        let system_volume_hash = given("systemVolumeHash")?;
        let chip_family = given("chipFamily")?;
        let timestamp = Timestamp::parse(&members.text("timestamp")?)
            .map_err(|_| Malformed::Form("timestamp"))?;
        let report = SelfReport {
            serial,
            se_public_key: SePublicKey::parse(&members.text("publicKey")?)?,
            encryption_public_key,
            secure_enclave_available: members.flag("secureEnclaveAvailable")?,
            sip_enabled: members.flag("sipEnabled")?,
            secure_boot_enabled: members.flag("secureBootEnabled")?,
            authenticated_root_enabled: members.optional_flag("authenticatedRootEnabled")?,
            rdma_disabled: members.optional_flag("rdmaDisabled")?,
            hypervisor_active: members.optional_flag("hypervisorActive")?,
            binary_hash,
            metallib_hash,
            system_volume_hash,
            chip_name: members.text("chipName")?,
            chip_family,
            hardware_model: members.text("hardwareModel")?,
            os_version: members.text("osVersion")?,
            runtime_capabilities: members.list("runtimeCapabilities")?,
            timestamp,
        };
        Ok(Self { raw, report })
    }

    /// What it says, although nobody has signed it so far.
    pub fn unverified_report(&self) -> &SelfReport {
        &self.report
    }

    /// The blob, once it names `key` by the same text and `key` signed it.
    ///
    /// # Refusals
    /// [`BlobRefusal::OtherKey`], and the signature's.
    pub fn verify(self, key: &SePublicKey, signature: &str) -> Result<SignedBlob, BlobRefusal> {
        // The text and not the point: the text is what this Mac's nonces will name.
        if self.report.se_public_key.text() != key.text() {
            return Err(BlobRefusal::OtherKey);
        }
        let signature = Signature::parse(signature)?;
        key.verify(self.raw, &signature)?;
        Ok(SignedBlob {
            raw: self.raw.to_vec(),
            signature,
            report: self.report,
        })
    }
}

impl SignedBlob {
    /// What it says.
    pub fn report(&self) -> &SelfReport {
        &self.report
    }

    /// The bytes that were signed.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// The signature over them.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// What the provider says against its own Mac: `sip_disabled`, `secure_boot_off`.
    pub fn negatives(&self) -> Vec<Reason> {
        negatives(
            Some(self.report.sip_enabled),
            Some(self.report.secure_boot_enabled),
        )
    }

    /// Whether it names this encryption key.
    pub fn names(&self, key: &EncryptionKey) -> bool {
        self.report.encryption_public_key.as_ref() == Some(key)
    }

    /// Whether it was signed within two minutes of `now`; before 0.8.15, not longer ago than
    /// [`OLDEST_CACHED_BLOB`]. Never later than two minutes from `now`.
    pub fn is_timely(&self, provider_version: Option<&Version>, now: Timestamp) -> bool {
        let signs_each_time = provider_version.is_none_or(|version| version.is_at_least(0, 8, 15));
        let oldest = match signs_each_time {
            true => CLOCK_SKEW,
            false => OLDEST_CACHED_BLOB,
        };
        is_timely(self.report.timestamp, oldest, now)
    }

    /// Judges what it says.
    ///
    /// # Refusals
    /// `sip_disabled`, `secure_boot_off`, `secure_enclave_unavailable`, `key_mismatch`,
    /// `timestamp_out_of_window`: all that apply.
    pub fn accept(self, terms: &Terms<'_>) -> Result<VerifiedBlob, NotAccepted> {
        let mut reasons = self.negatives();
        if !self.report.secure_enclave_available {
            reasons.push(Reason::SecureEnclaveUnavailable);
        }
        if !self.names(terms.encryption_key) {
            reasons.push(Reason::KeyMismatch);
        }
        if !self.is_timely(terms.provider_version, terms.now) {
            reasons.push(Reason::TimestampOutOfWindow);
        }
        if reasons.is_empty() {
            Ok(VerifiedBlob(self))
        } else {
            Err(NotAccepted {
                blob: Box::new(self),
                reasons,
            })
        }
    }
}

impl VerifiedBlob {
    /// What it says.
    pub fn report(&self) -> &SelfReport {
        &self.0.report
    }

    /// The blob as it was signed.
    pub fn signed(&self) -> &SignedBlob {
        &self.0
    }
}

/// What a provider's words hold against its Mac. What it does not say is held against nobody.
pub(super) fn negatives(sip_enabled: Option<bool>, secure_boot: Option<bool>) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if sip_enabled == Some(false) {
        reasons.push(Reason::SipDisabled);
    }
    if secure_boot == Some(false) {
        reasons.push(Reason::SecureBootOff);
    }
    reasons
}
