//! What Apple stands for: that it is a Mac, what state it is in, and that its statement was made for this
//! key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::{By, Common, Fault, Standing, base64, part, text};
use crate::attestation::freshness::NonceInputs;
use crate::attestation::statement::SecureBoot;
use crate::attestation::{Evidence, VerifiedEvidence, verify};
use crate::ids::sha256;
use crate::pki::KnownIntermediates;
use crate::provider::Blob;
use crate::reason::Reason;

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
            let is_hash = hex::decode(hash).is_ok_and(|bytes| bytes.len() == 32);
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
        let (evidence, by) = verified(part, common)?;
        let nonce = super::part(part.get("nonce").unwrap_or(&Value::Null))?;
        let wanted = nonce_of(nonce, common)?;
        match evidence.freshness_code(wanted.len()) {
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
        let (evidence, by) = verified(part, common)?;
        let said = evidence.statement();
        let fault = |reason, detail: &str| Err(Fault::new(reason, detail));
        match said.sip_enabled {
            Some(true) => {}
            Some(false) => return fault(Reason::SipDisabled, "SIP is off"),
            None => return fault(Reason::FieldMissing, "nothing is said of SIP"),
        }
        match said.secure_boot {
            Some(SecureBoot::Full) => {}
            Some(SecureBoot::Reduced) => {
                return fault(Reason::SecureBootReduced, "Reduced Security");
            }
            Some(SecureBoot::Permissive) => {
                return fault(Reason::SecureBootOff, "Permissive Security");
            }
            None => return fault(Reason::FieldMissing, "nothing is said of Secure Boot"),
        }
        match said.third_party_kexts {
            Some(false) => {}
            Some(true) => return fault(Reason::ThirdPartyKexts, "kernel extensions are allowed"),
            None => return fault(Reason::FieldMissing, "nothing is said of kernel extensions"),
        }
        let Some(serial) = &said.serial else {
            return fault(Reason::FieldMissing, "no serial number is stated");
        };
        match claimed_serial(bundle)? {
            Some(claimed) if claimed != serial.as_str() => fault(
                Reason::SerialMismatch,
                "the provider says another serial number",
            ),
            _ => Ok(Standing::Proved { by }),
        }
    })
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

fn verified(
    part: &Map<String, Value>,
    common: &Common<'_>,
) -> Result<(VerifiedEvidence, By), Fault> {
    let chain = part.get("chain_b64").and_then(Value::as_array);
    let chain = chain.ok_or_else(|| Fault::form("chain_b64 is no list"))?;
    let certificates = chain.iter().map(|certificate| {
        let text = certificate.as_str().unwrap_or_default();
        let der = STANDARD.decode(text);
        der.map_err(|_| Fault::form("a certificate that is no base64"))
    });
    let evidence = Evidence {
        certificates: certificates.collect::<Result<_, _>>()?,
    };
    let anchors = &common.trust.anchors;
    let verified = verify(
        &evidence,
        anchors,
        &KnownIntermediates::default(),
        common.at,
    )
    .map_err(|refusal| Fault::new(refusal.reason(), refusal))?;
    Ok((verified, By::from(anchors.kind())))
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
    if scheme == "legacy-se-sha256" {
        return Ok(sha256(key.as_bytes()));
    }
    let inputs = part(nonce.get("inputs").unwrap_or(&Value::Null))?;
    match scheme {
        "transcript-v1" => {
            let inputs: NonceInputs = serde_json::from_value(Value::Object(inputs.clone()))
                .map_err(|fault| Fault::form(format!("the inputs of the nonce: {fault}")))?;
            if inputs.se_public_key != key {
                return Err(Fault::new(
                    Reason::KeyMismatch,
                    "the nonce was made for another key",
                ));
            }
            Ok(inputs.nonce())
        }
        "beacon-v2" => beacon(inputs, key),
        other => Err(Fault::new(
            Reason::NonceUnrecognized,
            format!("a nonce of an unknown scheme, {other}"),
        )),
    }
}

/// C.6: a nonce that is not older than a checkpoint of the log.
fn beacon(inputs: &Map<String, Value>, key: &str) -> Result<[u8; 32], Fault> {
    let origin = text(inputs, "origin")?;
    let length = u16::try_from(origin.len()).map_err(|_| Fault::form("origin is too long"))?;
    let size = inputs.get("size").and_then(Value::as_u64);
    let size = size.ok_or_else(|| Fault::form("size is no number"))?;
    let root = base64(inputs, "root")?;
    if root.len() != 32 {
        return Err(Fault::form("root is no hash"));
    }
    let parts: [&[u8]; 7] = [
        b"darkbloom-mda-nonce-v2",
        &[0],
        &length.to_be_bytes(),
        origin.as_bytes(),
        &size.to_be_bytes(),
        &root,
        key.as_bytes(),
    ];
    Ok(sha256(&parts.concat()))
}
