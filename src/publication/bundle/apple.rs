//! What Apple stands for: that it is a Mac, what state it is in, and that its statement was made for this
//! key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use const_oid::ObjectIdentifier;
use serde_json::{Map, Value};

use super::log::had_head;
use super::trust::Trust;
use super::{By, Common, Fault, Standing, base64, part, text, time};
use crate::attestation::freshness::Beacon;
use crate::attestation::{Evidence, verify};
use crate::ids::{sha256, transcript};
use crate::pki::key::{Digest, KeyAlgorithm, SignatureAlgorithm};
use crate::pki::{Certificate, KnownIntermediates, PkiError};
use crate::provider::Blob;
use crate::reason::Reason;
use crate::time::Timestamp;

/// Apple's properties of a Mac (apple-protocol 6).
mod oid {
    use const_oid::ObjectIdentifier;

    pub const SERIAL_NUMBER: ObjectIdentifier =
        ObjectIdentifier::new_unwrap("1.2.840.113635.100.8.9.1");
    pub const PROVISIONING_UDID: ObjectIdentifier =
        ObjectIdentifier::new_unwrap("1.2.840.113635.100.8.9.2");
    pub const FRESHNESS: ObjectIdentifier =
        ObjectIdentifier::new_unwrap("1.2.840.113635.100.8.11.1");
    pub const SIP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113635.100.8.13.1");
    pub const SECURE_BOOT: ObjectIdentifier =
        ObjectIdentifier::new_unwrap("1.2.840.113635.100.8.13.2");
    pub const KERNEL_EXTENSIONS: ObjectIdentifier =
        ObjectIdentifier::new_unwrap("1.2.840.113635.100.8.13.3");
}

/// INTEGER 0: enabled, or none allowed.
const ZERO: &[u8] = &[2, 1, 0];
const FULL: &[u8] = b"Full Security";

/// A chain leads to the root.
pub(super) fn chain(
    bundle: &Map<String, Value>,
    common: &Common<'_>,
) -> Option<Result<Standing, Fault>> {
    let mda = bundle.get("mda")?;
    let part = match part(mda) {
        Ok(part) => part,
        Err(fault) => return Some(Err(fault)),
    };
    if !part.contains_key("chain_b64") {
        // Redacted: the service says that there is one.
        let named = text(part, "chain_sha256");
        return Some(named.and_then(|hash| {
            let is_hash = hash.len() == 64
                && hash
                    .bytes()
                    .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            if is_hash {
                Ok(Standing::Asserted { by: By::Service })
            } else {
                Err(Fault::form("chain_sha256 is no hash"))
            }
        }));
    }
    Some(verified(part, common).map(|(_, by)| Standing::Proved { by }))
}

/// Apple's statement was made for this key.
pub(super) fn key_named(
    bundle: &Map<String, Value>,
    common: &Common<'_>,
) -> Option<Result<Standing, Fault>> {
    with_chain(bundle, |part| {
        let (leaf, by) = verified(part, common)?;
        let nonce = super::part(part.get("nonce").unwrap_or(&Value::Null))?;
        let wanted = nonce_of(nonce, common)?;
        match leaf.freshness() {
            Some(code) if code == wanted => Ok(Standing::Proved { by }),
            Some(_) => Err(Fault::new(
                Reason::NonceUnrecognized,
                "the statement was made for another nonce",
            )),
            None => Err(Fault::new(
                Reason::FieldMissing,
                "the statement has no freshness code",
            )),
        }
    })
}

/// The state of the Mac, in Apple's words.
pub(super) fn posture(
    bundle: &Map<String, Value>,
    common: &Common<'_>,
) -> Option<Result<Standing, Fault>> {
    with_chain(bundle, |part| {
        let (leaf, by) = verified(part, common)?;
        leaf.is_good()?;
        let serial = leaf.serial().unwrap_or_default();
        match claimed_serial(bundle)? {
            Some(claimed) if claimed.as_bytes() != serial => Err(Fault::new(
                Reason::SerialMismatch,
                "the provider says another serial number",
            )),
            _ => Ok(Standing::Proved { by }),
        }
    })
}

/// When the leaf ends, where there is a chain that holds.
pub(super) fn good_until(bundle: &Map<String, Value>, common: &Common<'_>) -> Option<Timestamp> {
    let part = part(bundle.get("mda")?).ok()?;
    let (leaf, _) = verified(part, common).ok()?;
    Some(Certificate::parse(&leaf.0).ok()?.not_after())
}

fn with_chain(
    bundle: &Map<String, Value>,
    judge: impl FnOnce(&Map<String, Value>) -> Result<Standing, Fault>,
) -> Option<Result<Standing, Fault>> {
    match part(bundle.get("mda")?) {
        Ok(part) if part.contains_key("chain_b64") => Some(judge(part)),
        Ok(_) => None,
        Err(fault) => Some(Err(fault)),
    }
}

fn verified(part: &Map<String, Value>, common: &Common<'_>) -> Result<(Leaf, By), Fault> {
    let chain = part.get("chain_b64").and_then(Value::as_array);
    let chain = chain.ok_or_else(|| Fault::form("chain_b64 is no list"))?;
    let certificates = chain.iter().map(|certificate| {
        let text = certificate.as_str().unwrap_or_default();
        let der = STANDARD.decode(text);
        der.map_err(|_| Fault::form("a certificate that is no base64"))
    });
    let certificates = certificates.collect::<Result<_, _>>()?;
    statement(certificates, common.trust, common.at)
}

/// The leaf of a chain that leads to the root, and whose root that is.
pub(crate) fn statement(
    certificates: Vec<Vec<u8>>,
    trust: &Trust,
    at: Timestamp,
) -> Result<(Leaf, By), Fault> {
    let evidence = Evidence { certificates };
    let anchors = trust.anchors.as_ref();
    let anchors = anchors.ok_or_else(|| {
        Fault::new(
            Reason::ChainInvalid,
            "the root is not the one that is pinned",
        )
    })?;
    for der in &evidence.certificates {
        by_p384(der)?;
    }
    let known = KnownIntermediates::default();
    verify(&evidence, anchors, &known, at)
        .map_err(|refusal| Fault::new(refusal.reason(), refusal))?;
    let leaf = evidence.certificates.into_iter().next().unwrap_or_default();
    Ok((Leaf(leaf), By::from(anchors.kind())))
}

/// Apple's certificates have keys on P-384, and signatures with SHA-384.
fn by_p384(der: &[u8]) -> Result<(), Fault> {
    let fault = |fault: PkiError| Fault::new(Reason::ChainInvalid, fault);
    let certificate = Certificate::parse(der).map_err(fault)?;
    let key = certificate.public_key().map_err(fault)?.algorithm();
    let signature = certificate.signature_algorithm().map_err(fault)?;
    if key == KeyAlgorithm::P384 && signature == SignatureAlgorithm::Ecdsa(Digest::Sha384) {
        Ok(())
    } else {
        Err(Fault::new(
            Reason::ChainInvalid,
            "a certificate that is not by P-384 with SHA-384",
        ))
    }
}

/// The leaf of a chain that holds.
pub(crate) struct Leaf(Vec<u8>);

impl Leaf {
    /// What Apple says of the Mac must be so of every Mac that is trusted.
    pub(crate) fn is_good(&self) -> Result<(), Fault> {
        let kernel = "kernel extensions";
        for (oid, good, reason, what) in [
            (oid::SIP, ZERO, Reason::SipDisabled, "SIP"),
            (
                oid::SECURE_BOOT,
                FULL,
                Reason::SecureBootReduced,
                "Secure Boot",
            ),
            (
                oid::KERNEL_EXTENSIONS,
                ZERO,
                Reason::ThirdPartyKexts,
                kernel,
            ),
        ] {
            match self.property(oid) {
                Some(value) if value == good => {}
                Some(_) => return Err(Fault::new(reason, format!("{what}: another value"))),
                None => {
                    let detail = format!("{what}: nothing is said");
                    return Err(Fault::new(Reason::FieldMissing, detail));
                }
            }
        }
        match self.serial() {
            Some(_) => Ok(()),
            None => Err(Fault::new(
                Reason::FieldMissing,
                "no serial number is stated",
            )),
        }
    }

    /// The bytes of the serial number.
    pub(crate) fn serial(&self) -> Option<Vec<u8>> {
        let serial = self.property(oid::SERIAL_NUMBER);
        serial.filter(|serial| !serial.is_empty())
    }

    /// The bytes of the provisioning UDID.
    pub(crate) fn udid(&self) -> Option<Vec<u8>> {
        self.property(oid::PROVISIONING_UDID)
    }

    /// The bytes of the freshness code.
    pub(crate) fn freshness(&self) -> Option<Vec<u8>> {
        self.property(oid::FRESHNESS)
    }

    /// The bytes of a property, as they are: what is wrapped once more is another value.
    fn property(&self, oid: ObjectIdentifier) -> Option<Vec<u8>> {
        let leaf = Certificate::parse(&self.0).ok()?;
        Some(leaf.extension(oid)?.value.to_vec())
    }
}

/// The serial number in the provider's blob, if there is one.
fn claimed_serial(bundle: &Map<String, Value>) -> Result<Option<String>, Fault> {
    let Some(registration) = bundle.get("registration") else {
        return Ok(None);
    };
    let raw = base64(part(registration)?, "attestation_raw_b64")?;
    let blob = Blob::parse(&raw).map_err(|refusal| Fault::new(refusal.reason(), refusal))?;
    let serial = blob.unverified_report().serial.as_ref();
    Ok(serial.map(ToString::to_string))
}

/// The nonce that a scheme and its inputs give for the key of the bundle.
fn nonce_of(nonce: &Map<String, Value>, common: &Common<'_>) -> Result<[u8; 32], Fault> {
    let key = common.key.text();
    let scheme = text(nonce, "scheme")?;
    let nothing = Map::new();
    let inputs = nonce.get("inputs").map_or(Ok(&nothing), part)?;
    let named = inputs.get("se_public_key");
    if named.is_some_and(|named| named.as_str() != Some(key)) {
        return Err(Fault::new(
            Reason::KeyMismatch,
            "the nonce was made for another key",
        ));
    }
    if scheme == "legacy-se-sha256" {
        return Ok(sha256(key.as_bytes()));
    }
    match scheme {
        "transcript-v1" => {
            // Named whatever the key: otherwise the nonce is nobody's.
            text(inputs, "se_public_key")?;
            let minted_at = time(inputs, "minted_at")?.millis().to_string();
            let fields = [
                "attestd-nonce-transcript-v1",
                text(inputs, "server_id")?,
                text(inputs, "device_id")?,
                text(inputs, "command_uuid")?,
                &minted_at,
                key,
            ];
            Ok(sha256(&transcript(&fields.map(str::as_bytes))))
        }
        "beacon-v2" => by_head(nonce, inputs, common),
        other => Err(Fault::new(
            Reason::NonceUnrecognized,
            format!("a nonce of an unknown scheme, {other}"),
        )),
    }
}

/// C.6: a nonce that is not older than a head of the log, which the log is proved to have had.
fn by_head(
    nonce: &Map<String, Value>,
    inputs: &Map<String, Value>,
    common: &Common<'_>,
) -> Result<[u8; 32], Fault> {
    let size = inputs.get("size").and_then(Value::as_u64);
    let root = base64(inputs, "root")?;
    let beacon = Beacon {
        origin: text(inputs, "origin")?.to_owned(),
        size: size.ok_or_else(|| Fault::form("size is no number"))?,
        root: root
            .try_into()
            .map_err(|_| Fault::form("root is no hash"))?,
        head_at: time(inputs, "head_at")?,
    };
    had_head(nonce, &beacon, common)?;
    let made = beacon.nonce(common.key.text());
    made.ok_or_else(|| Fault::form("origin is too long"))
}
