//! What the provider's Secure Enclave key signed, and what macOS reported.

use std::time::Duration;

use serde_json::{Map, Value};

use super::{By, Common, Fault, Standing, base64, part, text, time};
use crate::provider::challenge::Challenge;
use crate::provider::status::Status;
use crate::provider::{Blob, EncryptionKey, Signature};
use crate::reason::Reason;

/// A challenge older than that is none of the present (C.5, step 4).
const OLDEST: Duration = Duration::from_secs(16 * 60);
/// Clocks differ.
const SKEW: Duration = Duration::from_secs(60);
/// The largest status that is read.
const MAX_STATUS: usize = 64 * 1024;

/// Both, or neither.
const HALVES: [&str; 2] = ["status_raw_b64", "status_signature_b64"];

const PROVED: Standing = Standing::Proved { by: By::SeKey };

/// The session's encryption key belongs to the Secure Enclave key.
pub(super) fn registration(
    bundle: &Map<String, Value>,
    common: &Common<'_>,
) -> Option<Result<Standing, Fault>> {
    bundle.get("registration").map(|value| {
        let part = part(value)?;
        let raw = base64(part, "attestation_raw_b64")?;
        let refused = |refusal: crate::provider::BlobRefusal| Fault::new(refusal.reason(), refusal);
        let blob = Blob::parse(&raw).map_err(refused)?;
        let named = blob.unverified_report().se_public_key.clone();
        if named.point() != common.key.point() {
            return Err(Fault::new(
                Reason::KeyMismatch,
                "the blob names another key",
            ));
        }
        let signed = blob
            .verify(&named, text(part, "signature_b64")?)
            .map_err(refused)?;
        let key = EncryptionKey::parse(text(part, "encryption_public_key")?)
            .map_err(|fault| Fault::new(fault.reason(), fault))?;
        if !signed.names(&key) {
            return Err(Fault::new(
                Reason::KeyMismatch,
                "the blob names another encryption key",
            ));
        }
        let report = signed.report();
        if !report.secure_enclave_available {
            return Err(Fault::new(
                Reason::FieldMissing,
                "secureEnclaveAvailable is false",
            ));
        }
        match signed.negatives().first() {
            Some(reason) => Err(Fault::new(*reason, "the blob says so")),
            None => Ok(PROVED),
        }
    })
}

/// The key answered a challenge.
pub(super) fn challenge(
    bundle: &Map<String, Value>,
    common: &Common<'_>,
) -> Option<Result<Standing, Fault>> {
    bundle.get("challenge").map(|value| {
        let part = part(value)?;
        let asked = asked(part)?;
        let signature = signature(text(part, "signature_b64")?)?;
        let signed = [asked.nonce(), asked.timestamp()].concat();
        let verified = common.key.verify(signed.as_bytes(), &signature);
        verified.map_err(|refusal| Fault::new(refusal.reason(), refusal))?;
        let (at, generated_at) = (asked.issued_at(), common.generated_at);
        let received_at = time(part, "received_at")?;
        let is_timely = at.plus(OLDEST) >= generated_at
            && at <= generated_at.plus(SKEW)
            && received_at.plus(SKEW) >= at;
        if is_timely {
            Ok(PROVED)
        } else {
            Err(Fault::new(
                Reason::TimestampOutOfWindow,
                "the challenge is not of the time of the bundle",
            ))
        }
    })
}

/// What the provider said of itself in that answer.
pub(super) fn status(
    bundle: &Map<String, Value>,
    common: &Common<'_>,
) -> Option<Result<Standing, Fault>> {
    let value = bundle.get("challenge")?;
    let part = match part(value) {
        Ok(part) if HALVES.iter().any(|name| part.contains_key(*name)) => part,
        Ok(_) => return None,
        Err(fault) => return Some(Err(fault)),
    };
    Some(stated(part, common))
}

fn stated(part: &Map<String, Value>, common: &Common<'_>) -> Result<Standing, Fault> {
    let raw = base64(part, "status_raw_b64")?;
    let signature = signature(text(part, "status_signature_b64")?)?;
    let verified = common.key.verify(&raw, &signature);
    verified.map_err(|refusal| Fault::new(refusal.reason(), refusal))?;
    let status = Status::read(&raw, MAX_STATUS)
        .map_err(|malformed| Fault::new(malformed.reason(), malformed))?;
    if status.canonical().as_bytes() != raw {
        return Err(Fault::form("the status is not in its canonical form"));
    }
    let asked = asked(part)?;
    if status.nonce != asked.nonce() || status.timestamp != asked.timestamp() {
        return Err(Fault::new(
            Reason::ChallengeMismatch,
            "the status answers another challenge",
        ));
    }
    match (status.sip_enabled, status.secure_boot_enabled) {
        (None, _) => Err(Fault::new(Reason::FieldMissing, "sip_enabled is not said")),
        (Some(false), _) => Err(Fault::new(Reason::SipDisabled, "sip_enabled is false")),
        (_, Some(false)) => Err(Fault::new(
            Reason::SecureBootOff,
            "secure_boot_enabled is false",
        )),
        _ => Ok(PROVED),
    }
}

/// What macOS reported, by the service's word.
pub(super) fn security_info(
    bundle: &Map<String, Value>,
    _: &Common<'_>,
) -> Option<Result<Standing, Fault>> {
    bundle.get("security_info").map(|value| {
        let fields = part(value)?.get("fields");
        let fields = part(fields.unwrap_or(&Value::Null))?;
        if fields.get("SystemIntegrityProtectionEnabled") != Some(&Value::Bool(true)) {
            return Err(Fault::new(
                Reason::SipDisabled,
                "SIP is not reported to be on",
            ));
        }
        if fields
            .get("SecureBoot.SecureBootLevel")
            .and_then(Value::as_str)
            != Some("full")
        {
            return Err(Fault::new(
                Reason::SecureBootReduced,
                "Full Security is not reported",
            ));
        }
        Ok(Standing::Asserted { by: By::Service })
    })
}

fn asked(part: &Map<String, Value>) -> Result<Challenge, Fault> {
    time(part, "timestamp")?;
    Challenge::retell(text(part, "nonce")?, text(part, "timestamp")?)
        .map_err(|malformed| Fault::new(malformed.reason(), malformed))
}

fn signature(text: &str) -> Result<Signature, Fault> {
    Signature::parse(text).map_err(|refusal| Fault::new(refusal.reason(), refusal))
}
