//! The service's own word, signed: the result, what it seals, and the policy it was judged by.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{By, Common, Fault, Standing, part, text};
use crate::ids::sha256;
use crate::publication::ear::{PROFILE, Status, TYP};
use crate::publication::jws::Token;
use crate::reason::Reason;

/// Clocks differ.
const SKEW: Duration = Duration::from_secs(60);

/// What comes with the result, or after it.
const NOT_SEALED: [&str; 3] = ["ear", "log_entry_b64", "tlog_proof"];

/// The result is the service's, of this time, and consistent.
pub(super) fn ear(
    bundle: &Map<String, Value>,
    common: &Common<'_>,
) -> Option<Result<Standing, Fault>> {
    bundle.get("ear")?;
    Some(verified(bundle, common).and_then(|token| {
        consistent(&token.payload, common)?;
        Ok(Standing::Proved { by: By::Service })
    }))
}

/// The result names everything else in the bundle.
pub(super) fn sealed(
    bundle: &Map<String, Value>,
    common: &Common<'_>,
) -> Option<Result<Standing, Fault>> {
    // One that does not verify has failed already, and seals nothing.
    let token = verified(bundle, common).ok()?;
    let seal = token.payload.get("attestd")?.get("evidence_sha256")?;
    Some(if seal.as_str() == Some(&seal_of(bundle)) {
        Ok(Standing::Proved { by: By::Service })
    } else {
        Err(Fault::new(
            Reason::SignatureInvalid,
            "the bundle is not the one that the result seals",
        ))
    })
}

/// SHA-256, hexadecimal, of what a result seals: the bundle without the result and what follows it, with
/// sorted names and no white space.
pub fn seal_of(bundle: &Map<String, Value>) -> String {
    let sealed: Map<String, Value> = bundle
        .iter()
        .filter(|(name, _)| !NOT_SEALED.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    hex::encode(sha256(Value::Object(sealed).to_string().as_bytes()))
}

/// The policy is the one that the result names.
pub(super) fn policy(
    bundle: &Map<String, Value>,
    common: &Common<'_>,
) -> Option<Result<Standing, Fault>> {
    let policy = bundle.get("policy")?;
    Some(part(policy).and_then(|policy| {
        let hash = sha256(text(policy, "text")?.as_bytes());
        let token = verified(bundle, common)?;
        let device = device(&token.payload)?;
        let named = device.ear_appraisal_policy_ids.iter();
        let mut named = named.filter_map(|id| named_hash(id));
        if named.any(|named| named == hash) {
            Ok(Standing::Proved { by: By::Arithmetic })
        } else {
            Err(Fault::new(
                Reason::EvidenceConflict,
                "the result was judged by another policy",
            ))
        }
    }))
}

/// The hash at the end of a policy's name.
fn named_hash(id: &str) -> Option<Vec<u8>> {
    match id.rsplit_once("#sha256-") {
        Some((_, hash)) => URL_SAFE_NO_PAD.decode(hash).ok(),
        None => hex::decode(id.rsplit('/').next()?).ok(),
    }
}

fn verified(bundle: &Map<String, Value>, common: &Common<'_>) -> Result<Token, Fault> {
    let invalid = |detail: &dyn ToString| Fault::new(Reason::SignatureInvalid, detail.to_string());
    let token = Token::parse(text(bundle, "ear")?, TYP).map_err(|refusal| invalid(&refusal))?;
    let issued_at = token.payload.get("iat").and_then(Value::as_i64);
    let issued_at = issued_at.ok_or_else(|| Fault::form("iat is no integer"))?;
    let keys = common.trust.keys.iter();
    let mut keys = keys.filter(|key| key.jwk.kid == token.kid);
    let key = keys
        .next()
        .ok_or_else(|| invalid(&"the key of the result is not trusted"))?;
    let dated = key.nbf.is_none_or(|from| from <= issued_at)
        && key.exp.is_none_or(|until| issued_at < until);
    if !dated || key.revoked_at.is_some() {
        return Err(invalid(
            &"the key did not sign at that time, or was withdrawn",
        ));
    }
    token
        .verify(&key.jwk)
        .map_err(|refusal| invalid(&refusal))?;
    Ok(token)
}

/// An appraisal, as far as it is checked.
#[derive(Deserialize)]
struct Appraisal {
    ear_status: Status,
    ear_trustworthiness_vector: std::collections::BTreeMap<String, i8>,
    ear_appraisal_policy_ids: Vec<String>,
}

fn device(claims: &Map<String, Value>) -> Result<Appraisal, Fault> {
    let device = claims
        .get("submods")
        .and_then(|submods| submods.get("device"));
    let device = device.ok_or_else(|| Fault::form("the result appraises no device"))?;
    Appraisal::deserialize(device).map_err(|fault| Fault::form(fault.to_string()))
}

fn consistent(claims: &Map<String, Value>, common: &Common<'_>) -> Result<(), Fault> {
    let fault = |detail: &str| Err(Fault::new(Reason::EvidenceConflict, detail));
    if text(claims, "eat_profile")? != PROFILE {
        return fault("the result is of another profile");
    }
    if Some(text(claims, "iss")?) != common.trust.issuer.as_deref() {
        return fault("the result is another issuer's");
    }
    let seconds = |name: &str| claims.get(name).and_then(Value::as_i64);
    let (Some(iat), Some(exp)) = (seconds("iat"), seconds("exp")) else {
        return Err(Fault::form("iat or exp is no integer"));
    };
    if iat > common.at.plus(SKEW).seconds() || common.at.seconds() >= exp {
        return Err(Fault::new(
            Reason::TimestampOutOfWindow,
            "the result is not of this time",
        ));
    }
    if claims
        .get("sub")
        .is_some_and(|sub| sub.as_str() != Some(&common.subject))
    {
        return fault("the result is about another subject");
    }
    let device = device(claims)?;
    let worst = device.ear_trustworthiness_vector.values();
    let worst = worst.copied().map(Status::of_value).max();
    let too_good =
        |status: Status| status != Status::None && worst.is_some_and(|worst| status < worst);
    let overall = claims.get("ear_status");
    let overall = overall.map(Status::deserialize).transpose();
    let overall = overall.map_err(|fault| Fault::form(fault.to_string()))?;
    if too_good(device.ear_status)
        || overall.is_some_and(|status| status < device.ear_status && status != Status::None)
    {
        return fault("the status is better than its vector");
    }
    Ok(())
}
