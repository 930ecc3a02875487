//! The evidence about a provider and its Mac, as anybody may have it: with what proves each claim.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;

use super::append_to_log::{Log, append};
use super::read_binding::read_binding;
use super::read_posture::judge;
use super::restore_backup::log_began_anew_at;
use super::sign_result::{freshness_nonce, sealed_result};
use super::tell_log::place_of;
use super::watch_clock::demand;
use super::witness_log::{prove, prove_under, published};
use super::{Context, Failure};
use crate::attestation::Evidence as AppleEvidence;
use crate::attestation::freshness::{Minted, Scheme};
use crate::ids::{CommandUuid, DeviceId, SessionId, sha256};
use crate::mdm::device_information::{Attestation, DeviceInformation};
use crate::mdm::report::Report;
use crate::posture::{Occasion, Posture};
use crate::provider::{BinaryHash, Platform, Session};
use crate::publication::bundle::result::seal_of;
use crate::publication::bundle::v1::{
    BundleV1, Challenge, Head, Logged, Mda, Nonce, Opening, Policy, Registration, Release,
    SecurityInfo,
};
use crate::publication::ear::Ear;
use crate::publication::feed::Disclosure;
use crate::publication::subject::{DEFINITION, Subject};
use crate::store::{MacGlance, Read, StoreError};
use crate::time::Timestamp;
use crate::transparency::Proof;
use crate::transparency::entry::Entry;

/// An answer to a challenge that is older says nothing of the present (C.5, step 4), with a minute for the
/// way to whoever checks.
const OLDEST_CHALLENGE: Duration = Duration::from_secs(15 * 60);

/// How old a bundle may get here.
const KEPT: Duration = Duration::from_secs(5);
/// Bundles in memory; with more, all are forgotten. One has some twenty kilobytes.
const MOST: usize = 512;
/// Bundles that are made at a time: each reads several rows and is signed.
const AT_ONCE: usize = 4;

/// Apple's freshness code is one of our nonces.
const NONCE: usize = 32;

/// The bundles of one process, as they were made a moment ago.
#[derive(Debug)]
pub struct Bundles {
    kept: RwLock<HashMap<SessionId, Kept>>,
    making: Semaphore,
    disclosure: Disclosure,
}

#[derive(Debug, Clone)]
struct Kept {
    from: Timestamp,
    bundle: Arc<Bundle>,
}

/// A bundle as it is sent.
#[derive(Debug)]
pub struct Bundle {
    pub body: Bytes,
    pub sha256: [u8; 32],
    /// The proof in it leads to a head that is witnessed.
    is_witnessed: bool,
}

impl Bundle {
    fn new(body: Vec<u8>, is_witnessed: bool) -> Self {
        Self {
            sha256: sha256(&body),
            body: body.into(),
            is_witnessed,
        }
    }
}

impl Bundles {
    /// Bundles that say so much.
    pub fn new(disclosure: Disclosure) -> Self {
        Self {
            kept: RwLock::default(),
            making: Semaphore::new(AT_ONCE),
            disclosure,
        }
    }

    /// As [`publish_evidence`], made now or a moment ago.
    ///
    /// # Errors
    /// As [`publish_evidence`].
    pub async fn read(
        &self,
        ctx: &Context,
        session_id: &SessionId,
    ) -> Result<Option<Arc<Bundle>>, Failure> {
        demand(ctx)?;
        match self.newest(ctx, session_id).await? {
            Some(bundle) => self.witnessed(ctx, session_id, bundle).await.map(Some),
            None => Ok(None),
        }
    }

    async fn newest(
        &self,
        ctx: &Context,
        session_id: &SessionId,
    ) -> Result<Option<Arc<Bundle>>, Failure> {
        if let Some(kept) = self.kept(session_id, ctx.clock.now()) {
            return Ok(Some(kept));
        }
        let closed = |_| Failure::Inconsistent("bundles are not made any more");
        let _turn = self.making.acquire().await.map_err(closed)?;
        let now = ctx.clock.now();
        if let Some(kept) = self.kept(session_id, now) {
            return Ok(Some(kept));
        }
        self.make(ctx, session_id).await
    }

    /// As [`publish_evidence`], made now, for whoever reads next.
    ///
    /// # Errors
    /// As [`publish_evidence`].
    pub async fn renew(&self, ctx: &Context, session_id: &SessionId) -> Result<(), Failure> {
        let closed = |_| Failure::Inconsistent("bundles are not made any more");
        let _turn = self.making.acquire().await.map_err(closed)?;
        self.make(ctx, session_id).await.map(drop)
    }

    async fn make(
        &self,
        ctx: &Context,
        session_id: &SessionId,
    ) -> Result<Option<Arc<Bundle>>, Failure> {
        let now = ctx.clock.now();
        let Some(body) = publish_evidence(ctx, session_id, self.disclosure).await? else {
            return Ok(None);
        };
        let bundle = Arc::new(Bundle::new(body, false));
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MOST {
            kept.clear();
        }
        let made = Kept {
            from: now,
            bundle: Arc::clone(&bundle),
        };
        kept.insert(session_id.clone(), made);
        Ok(Some(bundle))
    }

    /// The same with a proof that witnesses stand for, where they do in time.
    async fn witnessed(
        &self,
        ctx: &Context,
        session_id: &SessionId,
        bundle: Arc<Bundle>,
    ) -> Result<Arc<Bundle>, Failure> {
        // Where nobody watches, there is nothing to be read anew for.
        let is_due = |log: &&Log| !bundle.is_witnessed && !log.witnesses.each().is_empty();
        let Some(log) = ctx.log.as_ref().filter(is_due) else {
            return Ok(bundle);
        };
        let read = || {
            let written: Map<String, Value> = serde_json::from_slice(&bundle.body).ok()?;
            let index = Proof::read(written.get("tlog_proof")?.as_str()?)
                .ok()?
                .index;
            Some((written, index))
        };
        let Some((mut written, index)) = read() else {
            return Ok(bundle);
        };
        let Some(proof) = prove(ctx, log, index).await? else {
            return Ok(bundle);
        };
        written.insert("tlog_proof".to_owned(), json!(proof));
        let body = Value::Object(written).to_string().into_bytes();
        let with_proof = Arc::new(Bundle::new(body, true));
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        // Unless it was made anew meanwhile.
        let same = kept.get_mut(session_id);
        if let Some(kept) = same.filter(|kept| Arc::ptr_eq(&kept.bundle, &bundle)) {
            kept.bundle = Arc::clone(&with_proof);
        }
        Ok(with_proof)
    }

    fn kept(&self, session_id: &SessionId, now: Timestamp) -> Option<Arc<Bundle>> {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        let found = kept.get(session_id)?;
        // A clock that was set back makes nothing new.
        let is_new = found.from <= now && now < found.from.plus(KEPT);
        is_new.then(|| Arc::clone(&found.bundle))
    }
}

/// The bundle of a session that lives, as JSON; `None` when there is no such session, or its key never
/// spoke itself.
///
/// # Errors
/// While the clock is not believed, and without a key: nothing is signed then.
pub async fn publish_evidence(
    ctx: &Context,
    session_id: &SessionId,
    disclosure: Disclosure,
) -> Result<Option<Vec<u8>>, Failure> {
    let Some(glance) = read_binding(ctx, session_id).await? else {
        return Ok(None);
    };
    let session = &glance.session;
    if !session.is_live() || !session.has_spoken() {
        return Ok(None);
    }
    let now = ctx.clock.now();
    let key = session.key.text();
    let subject = Subject::of_key(key, ctx.subject_secret.expose());
    let mut bundle = BundleV1::new(Head {
        generated_at: now,
        subject: subject.as_str().to_owned(),
        subject_opening: Opening {
            salt_b64: STANDARD.encode(subject.salt()),
            definition: DEFINITION,
        },
        se_public_key: key.to_owned(),
        disclosure,
    });
    let tx = ctx.store.read().await?;
    if disclosure == Disclosure::Full {
        bundle.registration = registration(&tx, session_id).await?;
    }
    bundle.challenge = challenge(&tx, session_id, now).await?;
    let mut result = None;
    if let Some(mac) = &glance.mac {
        let is_joined = mac.posture.proof_of(key).is_some();
        if is_joined {
            bundle.security_info = security_info(&tx, &mac.posture).await?;
            bundle.mda = mda(ctx, &tx, &mac.posture, session, disclosure).await?;
            let looked_at = MacGlance {
                mac: Arc::clone(mac),
                sessions: vec![(Arc::clone(session), glance.release)],
            };
            let freshness = freshness_nonce(ctx, &mac.posture).await?;
            let posture = judge(ctx, &looked_at, now);
            if Ear::is_due(&posture) {
                bundle.policy = Some(policy(ctx));
                if glance.release.is_ok() {
                    bundle.release = release(ctx, &tx, session).await?;
                }
                result = Some((posture, freshness));
            }
        }
    }
    drop(tx);
    let written = serde_json::to_value(&bundle);
    let Ok(Value::Object(mut written)) = written else {
        return Err(Failure::Inconsistent("a bundle that cannot be written"));
    };
    if let Some((posture, freshness)) = &result {
        let seal = seal_of(&written);
        if let Some(token) = sealed_result(ctx, posture, &subject, *freshness, seal).await? {
            if let Some(log) = &ctx.log {
                let entry = Entry::Posture {
                    subject: subject.as_str().to_owned(),
                    ear_sha256: sha256(token.as_bytes()),
                };
                let logged = append(ctx, log, entry.encode(now)).await?;
                let entry = STANDARD.encode(logged.entry);
                written.insert("log_entry_b64".to_owned(), json!(entry));
                written.insert("tlog_proof".to_owned(), json!(logged.proof));
            }
            written.insert("ear".to_owned(), json!(token));
        }
    }
    Ok(Some(Value::Object(written).to_string().into_bytes()))
}

fn policy(ctx: &Context) -> Policy {
    let policy = &ctx.policy;
    Policy {
        id: policy.id.clone(),
        sha256: policy.sha256.clone(),
        url: format!("{}/v1/policies/{}", ctx.settings.server_id, policy.sha256),
        text: policy.text.clone(),
    }
}

/// The registered release that a session runs, once the log has it. A session that was said to run several
/// programs shows none.
async fn release(ctx: &Context, tx: &Read, session: &Session) -> Result<Option<Release>, Failure> {
    let Some(log) = &ctx.log else { return Ok(None) };
    let programs: BTreeSet<_> = session.binaries().collect();
    let program = match programs.first() {
        Some(Some(program)) if programs.len() == 1 => BinaryHash::parse(program),
        _ => None,
    };
    let Some(program) = program else {
        return Ok(None);
    };
    let Some(known) = tx.release(&program, &Platform::default()).await? else {
        return Ok(None);
    };
    let Some(index) = place_of(tx, &known).await? else {
        return Ok(None);
    };
    let Some(logged) = logged(ctx, log, tx, index).await? else {
        return Ok(None);
    };
    Ok(Some(Release {
        version: known.version.to_string(),
        platform: known.platform.to_string(),
        binary_hash: known.binary_hash.to_string(),
        url: format!("{}/v1/releases/{program}", ctx.settings.server_id),
        logged,
    }))
}

async fn registration(tx: &Read, session_id: &SessionId) -> Result<Option<Registration>, Failure> {
    let known = tx.registration(session_id).await?;
    Ok(known.and_then(|known| {
        let text = |name: &str| Some(known.get(name)?.as_str()?.to_owned());
        Some(Registration {
            attestation_raw_b64: text("attestation_raw_b64")?,
            signature_b64: text("signature_b64")?,
            encryption_public_key: text("encryption_public_key")?,
        })
    }))
}

/// The last answer that was good, if it is of the present.
async fn challenge(
    tx: &Read,
    session_id: &SessionId,
    now: Timestamp,
) -> Result<Option<Challenge>, Failure> {
    let known = tx.last_exchange(session_id).await?;
    Ok(known.and_then(|known| {
        let text = |value: &Value, name: &str| Some(value.get(name)?.as_str()?.to_owned());
        let timestamp = text(&known, "timestamp")?;
        let asked_at = Timestamp::parse(&timestamp).ok()?;
        if asked_at.plus(OLDEST_CHALLENGE) < now {
            return None;
        }
        let response = known.get("response")?;
        let is_signed = known.get("status_signed") == Some(&Value::Bool(true));
        let status = is_signed
            .then(|| text(&known, "status_canonical"))
            .flatten();
        Some(Challenge {
            nonce: text(&known, "nonce")?,
            timestamp,
            signature_b64: text(response, "signature")?,
            status_signature_b64: status
                .as_ref()
                .and_then(|_| text(response, "status_signature")),
            status_raw_b64: status.map(|status| STANDARD.encode(status)),
            received_at: Timestamp::parse(&text(&known, "received_at")?).ok()?,
        })
    }))
}

async fn security_info(tx: &Read, posture: &Posture) -> Result<Option<SecurityInfo>, Failure> {
    let Some(reported) = &posture.reported else {
        return Ok(None);
    };
    let Some(kept) = tx.evidence(reported.evidence_id).await? else {
        return Ok(None);
    };
    let facts = &reported.facts;
    let mut fields = Map::new();
    let flags = [
        ("SystemIntegrityProtectionEnabled", facts.sip_enabled),
        ("AuthenticatedRootVolumeEnabled", facts.authenticated_root),
        ("FDE_Enabled", facts.filevault_enabled),
    ];
    for (name, value) in flags {
        if let Some(value) = value {
            fields.insert(name.to_owned(), Value::Bool(value));
        }
    }
    if let Some(level) = facts.secure_boot {
        fields.insert("SecureBoot.SecureBootLevel".to_owned(), json!(level));
    }
    Ok(Some(SecurityInfo {
        command_uuid: kept.command_uuid,
        sent_at: reported.asked_at,
        observed_at: reported.observed_at,
        assurance: "device_reported",
        channel: reported.channel,
        reply_sha256: hex::encode(reported.evidence_id.as_bytes()),
        fields,
    }))
}

/// The statement that names the session's key, or else the last one, with what its nonce was made from.
async fn mda(
    ctx: &Context,
    tx: &Read,
    posture: &Posture,
    session: &Session,
    disclosure: Disclosure,
) -> Result<Option<Mda>, Failure> {
    let named = posture
        .named
        .as_ref()
        .filter(|named| named.se_public_key == session.key.text())
        .map(|named| (named.evidence_id, named.occasion));
    let last = posture
        .attested
        .as_ref()
        .map(|attested| (attested.evidence_id, attested.occasion));
    // What Apple said when the identity was made is for that identity's key, not for the provider's.
    let Some((evidence_id, Occasion::Mda)) = named.or(last) else {
        return Ok(None);
    };
    let Some(kept) = tx.evidence(evidence_id).await? else {
        return Ok(None);
    };
    let Some(chain) = apple_chain(&kept.stored) else {
        return Ok(None);
    };
    let minted = minted_for(tx, &kept.device_id, &chain).await?;
    // A nonce that is not ours, or was made for another key, says nothing of this one.
    let minted = minted.filter(|minted| minted.inputs.se_public_key == session.key.text());
    let Some(minted) = minted else {
        return Ok(None);
    };
    let Some(nonce) = nonce(ctx, tx, minted).await? else {
        return Ok(None);
    };
    let (command_uuid, observed_at) = (kept.command_uuid, kept.received_at);
    Ok(Some(told(
        &chain,
        nonce,
        command_uuid,
        observed_at,
        disclosure,
    )))
}

/// What a nonce was made from; with the proof that the log had that head, where it was made from one. `None`
/// where that cannot be proved now.
async fn nonce(ctx: &Context, tx: &Read, minted: Minted) -> Result<Option<Nonce>, Failure> {
    let mut nonce = Nonce {
        scheme: minted.scheme.as_str(),
        inputs: None,
        log_entry_b64: None,
        tlog_proof: None,
    };
    match (minted.scheme, &minted.inputs.beacon) {
        (Scheme::LegacySeSha256, _) => return Ok(Some(nonce)),
        (Scheme::TranscriptV1, _) | (Scheme::BeaconV2, None) => {}
        (Scheme::BeaconV2, Some(beacon)) => {
            let last = beacon.size.checked_sub(1);
            // A head of another log than the one of now is not in it.
            let anew = log_began_anew_at(tx).await?;
            let last = last.filter(|_| anew.is_none_or(|anew| beacon.head_at >= anew));
            let logged = match (&ctx.log, last) {
                (Some(log), Some(last)) => logged(ctx, log, tx, last).await?,
                _ => None,
            };
            let Some(logged) = logged else {
                return Ok(None);
            };
            nonce.log_entry_b64 = Some(logged.log_entry_b64);
            nonce.tlog_proof = Some(logged.tlog_proof);
        }
    }
    nonce.inputs = Some(minted.inputs.into());
    Ok(Some(nonce))
}

/// An entry, and the proof that it is in the log; `None` while no head that is published has it.
async fn logged(
    ctx: &Context,
    log: &Log,
    tx: &Read,
    index: u64,
) -> Result<Option<Logged>, Failure> {
    let head = published(ctx, log).await?;
    let Some(head) = head.filter(|head| index < head.checkpoint.size) else {
        return Ok(None);
    };
    let entry = tx.log_entries(index..index + 1).await?;
    let entry = entry.first();
    let entry = entry.ok_or(Failure::Inconsistent("the log lacks an entry"))?;
    Ok(Some(Logged {
        log_entry_b64: STANDARD.encode(entry),
        tlog_proof: prove_under(tx, &head, index).await?,
    }))
}

fn told(
    chain: &AppleEvidence,
    nonce: Nonce,
    command_uuid: CommandUuid,
    observed_at: Timestamp,
    disclosure: Disclosure,
) -> Mda {
    let certificates = chain.certificates.iter();
    let (chain_b64, chain_sha256) = match disclosure {
        Disclosure::Full => (
            Some(certificates.map(|der| STANDARD.encode(der)).collect()),
            None,
        ),
        Disclosure::Redacted => {
            let all = chain.certificates.concat();
            (None, Some(hex::encode(sha256(&all))))
        }
    };
    Mda {
        chain_b64,
        chain_sha256,
        nonce,
        command_uuid,
        observed_at,
    }
}

/// The nonce of ours that Apple's statement was made for; `None` when it was none.
pub(super) async fn minted_for(
    tx: &Read,
    device_id: &DeviceId,
    chain: &AppleEvidence,
) -> Result<Option<Minted>, StoreError> {
    let code = chain.unverified_statement(NONCE).and_then(|(_, code)| code);
    let code: Option<[u8; NONCE]> = code.and_then(|code| code.try_into().ok());
    match code {
        Some(code) => tx.ledger_entry(device_id, code).await,
        None => Ok(None),
    }
}

/// Apple's chain in a DeviceInformation reply that was kept.
pub(super) fn apple_chain(reply: &[u8]) -> Option<AppleEvidence> {
    let report = Report::decode(reply).ok()?;
    match DeviceInformation::read(&report.body).ok()?.attestation {
        Attestation::Chain(certificates) => Some(AppleEvidence { certificates }),
        Attestation::Absent | Attestation::Malformed => None,
    }
}
