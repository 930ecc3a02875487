//! What of a feed is proved, and what is somebody's word. `docs/verify.md` is the contract.

use serde::Serialize;

use super::reader::{Entry, Feed, FeedRefusal};
use crate::ids::sha256;
use crate::posture::key_binding::KeyBinding;
use crate::provider::{Blob, BlobRefusal, SePublicKey};
use crate::publication::bundle::apple::{Leaf, statement};
use crate::publication::bundle::trust::Trust;
use crate::publication::bundle::{By, Fault, Finding, Standing};
use crate::reason::Reason;
use crate::time::Timestamp;

/// The scheme whose nonces are the hash of the key.
const LEGACY: &str = "legacy-se-sha256";

/// What was found of one provider.
#[derive(Debug, Clone, Serialize)]
pub struct Examined {
    pub provider_id: String,
    pub findings: Vec<Finding>,
}

impl FeedRefusal {
    /// As a claim that failed: there is no feed to speak of.
    pub fn fault(&self) -> Fault {
        let reason = match self {
            Self::TooLarge => Reason::RequestTooLarge,
            Self::NotAnObject(_) | Self::Respelled(_) | Self::Form(_) | Self::Twice(_) => {
                Reason::RequestMalformed
            }
        };
        Fault::new(reason, self)
    }
}

/// Examines a feed as of `at`, provider by provider, in its order.
///
/// # Refusals
/// What is no feed.
pub fn examine(bytes: &[u8], trust: &Trust, at: Timestamp) -> Result<Vec<Examined>, FeedRefusal> {
    let feed = Feed::read(bytes)?;
    let examined = feed.providers.iter().map(|entry| Examined {
        provider_id: entry.provider_id.clone(),
        findings: entry.examine(trust, at),
    });
    Ok(examined.collect())
}

impl Entry {
    /// The claims that the feed makes of this provider, in the order of the contract.
    pub fn examine(&self, trust: &Trust, at: Timestamp) -> Vec<Finding> {
        let key = SePublicKey::parse(&self.se_public_key);
        let key = key.map_err(|refusal| Fault::new(refusal.reason(), refusal));
        let leaf = match (&self.mda_cert_chain, self.mda_verified) {
            (Some(chain), _) => Some(statement(chain.clone(), trust, at).map(Some)),
            // Redacted: the service says that there is one.
            (None, true) => Some(Ok(None)),
            (None, false) => None,
        };
        let apple = leaf.as_ref().map(|leaf| match leaf {
            Ok(Some((_, by))) => Ok(Standing::Proved { by: *by }),
            Ok(None) => Ok(Standing::Asserted { by: By::Service }),
            Err(fault) => Err(fault.clone()),
        });
        let shown = match &leaf {
            Some(Ok(Some(shown))) => Some(Ok(shown)),
            Some(Err(fault)) => Some(Err(fault)),
            Some(Ok(None)) | None => None,
        };
        let posture = shown.map(|shown| {
            let (leaf, by) = shown.map_err(Fault::clone)?;
            self.posture(leaf).map(|()| Standing::Proved { by: *by })
        });
        let findings = [
            ("listed", Some(self.listed(key.as_ref()))),
            ("registration", self.registration(key.as_ref())),
            ("apple", apple),
            ("apple_posture", posture),
            ("key_named", self.key_named(shown)),
        ];
        let claimed = findings.into_iter();
        claimed
            .filter_map(|(claim, standing)| {
                Some(Finding {
                    claim,
                    standing: standing?.unwrap_or_else(Standing::from),
                })
            })
            .collect()
    }

    /// That the provider is there, with whatever is said of it beyond what follows.
    fn listed(&self, key: Result<&SePublicKey, &Fault>) -> Result<Standing, Fault> {
        key.map_err(Fault::clone)?;
        if self.residence_proved == Some(true) {
            let nothing = "nothing proves that the key lives in the Mac";
            return Err(Fault::new(Reason::EvidenceConflict, nothing));
        }
        Ok(Standing::Asserted { by: By::Service })
    }

    /// What the provider says of itself, and that the feed says the same.
    fn registration(&self, key: Result<&SePublicKey, &Fault>) -> Option<Result<Standing, Fault>> {
        if self.attestation_raw.is_none() && self.signature_b64.is_none() {
            return None;
        }
        Some(self.registered(key))
    }

    fn registered(&self, key: Result<&SePublicKey, &Fault>) -> Result<Standing, Fault> {
        let key = key.map_err(Fault::clone)?;
        let (Some(raw), Some(signature)) = (&self.attestation_raw, &self.signature_b64) else {
            return Err(Fault::form("a blob without its signature, or the reverse"));
        };
        let refused = |refusal: BlobRefusal| Fault::new(refusal.reason(), refusal);
        let blob = Blob::parse(raw).map_err(refused)?;
        let named = blob.unverified_report().se_public_key.clone();
        if named.point() != key.point() {
            let detail = "the blob names another key";
            return Err(Fault::new(Reason::KeyMismatch, detail));
        }
        let signed = blob.verify(&named, signature).map_err(refused)?;
        let report = signed.report();
        let same = report.chip_name == self.chip_name
            && report.hardware_model == self.hardware_model
            && report.secure_enclave_available == self.secure_enclave
            && (report.sip_enabled || !self.sip_enabled)
            && (report.secure_boot_enabled || !self.secure_boot_enabled);
        if !same {
            let detail = "the feed says something else than the blob";
            return Err(Fault::new(Reason::EvidenceConflict, detail));
        }
        Ok(Standing::Proved { by: By::SeKey })
    }

    /// The state of the Mac in Apple's words, and that it is this Mac.
    fn posture(&self, leaf: &Leaf) -> Result<(), Fault> {
        leaf.is_good()?;
        let serial = leaf.serial();
        let is_other = |said: Option<&str>, stated: &Option<Vec<u8>>| {
            said.is_some_and(|said| Some(said.as_bytes()) != stated.as_deref())
        };
        let blob = self.attestation_raw.as_deref().map(Blob::parse);
        let claimed = match &blob {
            Some(Ok(blob)) => blob.unverified_report().serial.as_ref(),
            Some(Err(refusal)) => return Err(Fault::new(refusal.reason(), refusal)),
            None => None,
        };
        let claimed = claimed.map(ToString::to_string);
        if is_other(self.serial_number.as_deref(), &serial)
            || is_other(self.mda_serial.as_deref(), &serial)
            || is_other(claimed.as_deref(), &serial)
            || is_other(self.mda_udid.as_deref(), &leaf.udid())
        {
            let detail = "the statement is about another Mac";
            return Err(Fault::new(Reason::SerialMismatch, detail));
        }
        Ok(())
    }

    /// Only one scheme's nonces can be made again from what a feed has.
    fn key_named(
        &self,
        shown: Option<Result<&(Leaf, By), &Fault>>,
    ) -> Option<Result<Standing, Fault>> {
        if self.se_key_bound != Some(KeyBinding::Bound) {
            return None;
        }
        let is_legacy = self.nonce_scheme.as_deref() == Some(LEGACY);
        Some(match shown {
            Some(Ok((leaf, by))) if is_legacy => match leaf.freshness() {
                Some(code) if code == sha256(self.se_public_key.as_bytes()) => {
                    Ok(Standing::Proved { by: *by })
                }
                _ => Err(Fault::new(
                    Reason::NonceUnrecognized,
                    "the statement was made for another nonce",
                )),
            },
            Some(Err(fault)) => Err(fault.clone()),
            Some(Ok(_)) | None => Ok(Standing::Asserted { by: By::Service }),
        })
    }
}
