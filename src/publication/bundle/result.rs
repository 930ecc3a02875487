//! The service's own word, signed: the result, what it seals, and the policy it was judged by.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{By, Common, Fault, Standing, part, text};
use crate::ids::sha256;
use crate::publication::ear::{PROFILE, Status, TYP};
use crate::publication::jwk::Algorithm;
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
    Some(good(bundle, common).map(|_| Standing::Proved { by: By::Service }))
}

/// The result names everything else in the bundle.
pub(super) fn sealed(
    bundle: &Map<String, Value>,
    common: &Common<'_>,
) -> Option<Result<Standing, Fault>> {
    // One that cannot be read seals nothing; it has failed already.
    let token = Token::parse(text(bundle, "ear").ok()?, TYP).ok()?;
    let seal = token.payload.get("attestd")?.get("evidence_sha256")?;
    if let Err(fault) = good(bundle, common) {
        return Some(Err(fault));
    }
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
    hex::encode(sha256(
        canonical(&Value::Object(sealed)).to_string().as_bytes(),
    ))
}

/// The same value with the names of every object sorted by their UTF-8 bytes.
fn canonical(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let sorted: BTreeMap<_, _> = members.iter().collect();
            let sorted = sorted.into_iter();
            Value::Object(
                sorted
                    .map(|(name, value)| (name.clone(), canonical(value)))
                    .collect(),
            )
        }
        Value::Array(values) => Value::Array(values.iter().map(canonical).collect()),
        other => other.clone(),
    }
}

/// The policy is the one that the result names.
pub(super) fn policy(
    bundle: &Map<String, Value>,
    common: &Common<'_>,
) -> Option<Result<Standing, Fault>> {
    let policy = bundle.get("policy")?;
    Some(part(policy).and_then(|policy| {
        let hash = sha256(text(policy, "text")?.as_bytes());
        let token = good(bundle, common)?;
        let appraisals = appraisals(&token.payload)?;
        let named = appraisals
            .iter()
            .flat_map(|one| &one.ear_appraisal_policy_ids);
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

/// The result, once everything about it holds: what rests on it fails with it.
pub(super) fn good(bundle: &Map<String, Value>, common: &Common<'_>) -> Result<Token, Fault> {
    let token = verified(bundle, common)?;
    consistent(&token.payload, common)?;
    Ok(token)
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
        && key.exp.is_none_or(|until| issued_at <= until);
    if key.jwk.alg != Algorithm::Es256 {
        return Err(invalid(&"the key is for another algorithm"));
    }
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
    ear_trustworthiness_vector: BTreeMap<String, i8>,
    #[serde(default)]
    ear_appraisal_policy_ids: Vec<String>,
}

impl Appraisal {
    /// No better than the worst of its vector.
    fn is_sound(&self) -> bool {
        let tiers = self.ear_trustworthiness_vector.values();
        no_better(self.ear_status, tiers.copied().map(Status::of_value))
    }
}

/// `none` says nothing; `affirming` needs something that affirms, and nothing worse; the others may be
/// worse than what they are made of.
fn no_better(status: Status, tiers: impl Iterator<Item = Status>) -> bool {
    let worst = tiers.max().unwrap_or(Status::None);
    match status {
        Status::None => true,
        Status::Affirming => worst == Status::Affirming,
        Status::Warning | Status::Contraindicated => status >= worst,
    }
}

fn appraisals(claims: &Map<String, Value>) -> Result<Vec<Appraisal>, Fault> {
    let modules = claims.get("submods").and_then(Value::as_object);
    let modules = modules.filter(|modules| !modules.is_empty());
    let modules = modules.ok_or_else(|| Fault::form("the result appraises nothing"))?;
    let read = modules.values().map(Appraisal::deserialize);
    read.collect::<Result<_, _>>()
        .map_err(|fault| Fault::form(fault.to_string()))
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
    let appraisals = appraisals(claims)?;
    let overall = claims
        .get("ear_status")
        .map(Status::deserialize)
        .transpose();
    let overall = overall.map_err(|fault| Fault::form(fault.to_string()))?;
    let statuses = appraisals.iter().map(|one| one.ear_status);
    let is_sound = appraisals.iter().all(Appraisal::is_sound)
        && overall.is_none_or(|overall| no_better(overall, statuses));
    if !is_sound {
        return fault("the status is better than its vector");
    }
    Ok(())
}
