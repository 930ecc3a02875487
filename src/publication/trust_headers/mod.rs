//! The headers of a reply that say which provider made it and how far that is trusted: those of the
//! public documentation, and those that the coordinator has always sent (coordinator-and-standards A.11).
//!
//! # What the signature proves
//! That the holder of the provider's Secure Enclave key signed these bytes of the body. It binds nothing
//! else: not the request, so that an old reply to another question verifies as well; not the other headers,
//! which are the coordinator's word; not the time. That the key lives in an attested Mac is another question,
//! which the public feed answers as far as it can be.

mod file;
mod stream;
#[cfg(test)]
mod trust_headers_test;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

pub use self::file::{HeadersRefusal, MAX_HEADERS};
use crate::ids::sha256;
use crate::posture::trust::Level;
use crate::provider::{SePublicKey, Signature};
use crate::reason::Reason;

/// What the headers of one reply say.
#[derive(Debug, Clone)]
pub struct TrustHeaders {
    /// Whether requests could be routed to the provider when this one was.
    pub attested: bool,
    /// The header is absent for [`Level::None`].
    pub level: Level,
    /// In the text that the provider gave, where that is told, too.
    pub key: Option<SePublicKey>,
    /// What the provider made of its reply.
    pub proof: Option<Proof>,
    /// The provider has a key that requests are encrypted to.
    pub encrypted: bool,
    pub provider_id: Option<String>,
    pub chip: Option<String>,
    pub model: Option<String>,
    pub secure_enclave: Option<bool>,
    pub mda_verified: bool,
    /// Sent until the summer of 2026; read, and never told by this service.
    pub serial: Option<String>,
    /// JSON, as the coordinator of September 2026 has it.
    pub verification: Option<String>,
    pub authorization: Option<Authorization>,
}

/// By what a provider was let serve (`X-Provider-Authorization-Method`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authorization {
    AppAttest,
    /// By MDM.
    Legacy,
    Dual,
    None,
}

/// A provider's signature over the body of its reply, and the hash of that body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    pub signature: Signature,
    pub hash: [u8; 32],
}

/// A reply that its key signed.
#[derive(Debug, Clone)]
pub struct VerifiedReply<'a> {
    pub key: &'a SePublicKey,
    /// What is signed: the body, or of a stream what stands before the event with the signature.
    pub covered: &'a [u8],
}

/// Why a reply is not one that its key signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplyRefusal {
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("x-response-hash is not the hash of this body")]
    Hash,
    #[error("x-se-signature is not by x-se-public-key over this body")]
    Signature,
    #[error("the headers and the end of the stream have different signatures or hashes")]
    Contradiction,
}

impl ReplyRefusal {
    /// Its code: what does not fit the body proves nothing, whichever part it is.
    pub fn reason(self) -> Reason {
        match self {
            Self::Missing(_) => Reason::FieldMissing,
            Self::Hash | Self::Signature | Self::Contradiction => Reason::SignatureInvalid,
        }
    }
}

/// The names in the order they are written.
mod name {
    pub(super) const ATTESTED: &str = "x-provider-attested";
    pub(super) const LEVEL: &str = "x-provider-trust-level";
    pub(super) const SIGNATURE: &str = "x-se-signature";
    pub(super) const HASH: &str = "x-response-hash";
    pub(super) const KEY: &str = "x-se-public-key";
    pub(super) const ENCRYPTED: &str = "x-provider-encrypted";
    pub(super) const ID: &str = "x-provider-id";
    pub(super) const CHIP: &str = "x-provider-chip";
    pub(super) const MODEL: &str = "x-provider-model";
    pub(super) const SECURE_ENCLAVE: &str = "x-provider-secure-enclave";
    pub(super) const MDA: &str = "x-provider-mda-verified";
    pub(super) const KEY_AS_GIVEN: &str = "x-attestation-se-public-key";
    pub(super) const VERIFICATION: &str = "x-provider-verification";
    pub(super) const METHOD: &str = "x-provider-authorization-method";
    pub(super) const SERIAL: &str = "x-provider-serial";
    pub(super) const DEVICE_SERIAL: &str = "x-attestation-device-serial";

    pub(super) const ALL: [&str; 16] = [
        ATTESTED,
        LEVEL,
        SIGNATURE,
        HASH,
        KEY,
        ENCRYPTED,
        ID,
        CHIP,
        MODEL,
        SECURE_ENCLAVE,
        MDA,
        KEY_AS_GIVEN,
        VERIFICATION,
        METHOD,
        SERIAL,
        DEVICE_SERIAL,
    ];
}

impl TrustHeaders {
    /// What is said where nothing is known.
    pub fn of_nobody() -> Self {
        Self {
            attested: false,
            level: Level::None,
            key: None,
            proof: None,
            encrypted: false,
            provider_id: None,
            chip: None,
            model: None,
            secure_enclave: None,
            mda_verified: false,
            serial: None,
            verification: None,
            authorization: None,
        }
    }

    /// Names, in lower case, and values. What a header cannot carry is left out: the provider's own
    /// software says what chip it has.
    pub fn pairs(&self) -> Vec<(&'static str, String)> {
        let flag = |flag: bool| Some(flag.to_string());
        let only = |flag: bool| flag.then(|| flag.to_string());
        let proof = self.proof.as_ref();
        let pairs = [
            (name::ATTESTED, flag(self.attested)),
            (
                name::LEVEL,
                (self.level > Level::None).then(|| self.level.as_str().to_owned()),
            ),
            (name::SIGNATURE, proof.map(Proof::signature_text)),
            (name::HASH, proof.map(Proof::hash_text)),
            (
                name::KEY,
                self.key.as_ref().map(|key| STANDARD.encode(key.to_spki())),
            ),
            (name::ENCRYPTED, only(self.encrypted)),
            (name::ID, self.provider_id.clone()),
            (name::CHIP, self.chip.clone()),
            (name::MODEL, self.model.clone()),
            (name::SECURE_ENCLAVE, self.secure_enclave.and_then(flag)),
            (name::MDA, only(self.mda_verified)),
            (
                name::KEY_AS_GIVEN,
                self.key.as_ref().map(|key| key.text().to_owned()),
            ),
            (name::VERIFICATION, self.verification.clone()),
            (
                name::METHOD,
                self.authorization.map(|it| it.as_str().to_owned()),
            ),
            (name::SERIAL, self.serial.clone()),
            (name::DEVICE_SERIAL, self.serial.clone()),
        ];
        let pairs = pairs.into_iter();
        let pairs = pairs.filter_map(|(name, value)| Some((name, value?)));
        pairs.filter(|(_, value)| is_value(value)).collect()
    }

    /// Verifies the body of the reply: whole, or as the stream of events that says at its end what was
    /// signed.
    ///
    /// # Refusals
    /// See [`ReplyRefusal`].
    pub fn verify<'a>(&'a self, body: &'a [u8]) -> Result<VerifiedReply<'a>, ReplyRefusal> {
        let key = self.key.as_ref().ok_or(ReplyRefusal::Missing(name::KEY))?;
        let (covered, proof) = match (stream::sealed(body), &self.proof) {
            (Some(sealed), Some(proof)) if sealed.proof != *proof => {
                return Err(ReplyRefusal::Contradiction);
            }
            (Some(sealed), _) => (sealed.covered, sealed.proof),
            (None, Some(proof)) => (body, proof.clone()),
            (None, None) => return Err(ReplyRefusal::Missing(name::SIGNATURE)),
        };
        if sha256(covered) != proof.hash {
            return Err(ReplyRefusal::Hash);
        }
        key.verify(covered, &proof.signature)
            .map_err(|_| ReplyRefusal::Signature)?;
        Ok(VerifiedReply { key, covered })
    }
}

/// RFC 9110 section 5.5, without what is obsolete, and not empty.
fn is_value(text: &str) -> bool {
    let visible = |byte: u8| matches!(byte, b' '..=b'~');
    !text.is_empty() && text.trim() == text && text.bytes().all(visible)
}

impl Proof {
    /// A signature over the bytes that hash to this.
    pub fn new(signature: Signature, covered: &[u8]) -> Self {
        Self {
            signature,
            hash: sha256(covered),
        }
    }

    /// Base64 of DER.
    pub fn signature_text(&self) -> String {
        STANDARD.encode(self.signature.as_der())
    }

    /// `sha256:` and 64 lower-case hexadecimal digits.
    pub fn hash_text(&self) -> String {
        format!("sha256:{}", hex::encode(self.hash))
    }

    /// Reads both texts; `Err` names the header that is none.
    fn read(signature: &str, hash: &str) -> Result<Self, &'static str> {
        let digits = hash.strip_prefix("sha256:").ok_or(name::HASH)?;
        let is_lower = !digits.bytes().any(|byte| byte.is_ascii_uppercase());
        let mut digest = [0; 32];
        if !is_lower || hex::decode_to_slice(digits, &mut digest).is_err() {
            return Err(name::HASH);
        }
        Ok(Self {
            signature: Signature::parse(signature).map_err(|_| name::SIGNATURE)?,
            hash: digest,
        })
    }
}

impl Authorization {
    const ALL: [Self; 4] = [Self::AppAttest, Self::Legacy, Self::Dual, Self::None];

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AppAttest => "app_attest",
            Self::Legacy => "legacy",
            Self::Dual => "dual",
            Self::None => "none",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.as_str() == word)
    }
}
