//! What is believed of a Mac is signed, for those who trust this service's key and nobody in between.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::read_binding::glance_at_mac;
use super::read_posture::judge;
use super::watch_clock::demand;
use super::{Context, Failure};
use crate::ids::{DeviceId, ResultId};
use crate::keys::KeyPair;
use crate::pki::Signer;
use crate::posture::Posture;
use crate::publication::ear::{self, Ear};
use crate::publication::jwk::Algorithm;
use crate::publication::keyring::{ResultKey, signing};
use crate::publication::subject::Subject;
use crate::publication::{jws, posture_v1::PostureV1};
use crate::time::Timestamp;

/// How old the keys in memory may get: those of another node are published long before they sign, and
/// one that is withdrawn signs no longer than this.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The secret that subjects are made with.
pub const SUBJECT_SECRET: &str = "subject_secret";

/// What one process signs with.
#[derive(Debug, Default)]
pub struct Signing(Mutex<Option<Arc<Known>>>);

/// What results are signed with and checked by, as it was read.
#[derive(Debug)]
pub struct Known {
    /// The first made first.
    pub keys: Vec<ResultKey>,
    /// The texts of policies, by their SHA-256.
    pub policies: HashMap<String, String>,
    /// Of the keys that sign, or soon will.
    pairs: HashMap<String, KeyPair>,
    read_at: Instant,
}

/// A result, signed.
#[derive(Debug)]
pub enum Signed {
    /// As a token.
    Result(String),
    /// There is no such Mac.
    Nobody,
    /// Nothing was ever appraised of it.
    NotAppraised,
}

/// The keys and policies of results, as of a moment ago. However many ask, one reads.
///
/// # Errors
/// When they cannot be read.
pub async fn known(ctx: &Context) -> Result<Arc<Known>, Failure> {
    let mut held = ctx.signing.0.lock().await;
    if let Some(known) = held.as_ref()
        && known.read_at.elapsed() < LOOK_AGAIN
    {
        return Ok(Arc::clone(known));
    }
    let known = Arc::new(read(ctx).await?);
    *held = Some(Arc::clone(&known));
    Ok(known)
}

async fn read(ctx: &Context) -> Result<Known, Failure> {
    let now = ctx.clock.now();
    let read_at = Instant::now();
    let tx = ctx.store.read().await?;
    let keys = tx.result_keys().await?;
    let mut pairs = HashMap::new();
    for key in &keys {
        let is_over = key.withdrawn_at.is_some() || key.signs_until.is_some_and(|end| end <= now);
        if is_over {
            continue;
        }
        let kid = &key.jwk.kid;
        let pkcs8 = tx.result_key_pkcs8(kid).await?;
        let pair = pkcs8.and_then(|pkcs8| KeyPair::read(pkcs8).ok());
        let pair = pair.ok_or(Failure::Inconsistent("a key of results that is none"))?;
        pairs.insert(kid.clone(), pair);
    }
    Ok(Known {
        policies: tx.policies().await?,
        keys,
        pairs,
        read_at,
    })
}

/// The attestation result of a Mac as of now, with the nonce of whoever asks.
///
/// # Errors
/// While the clock is not believed, and without a key: nothing is signed then.
pub async fn sign_result(
    ctx: &Context,
    device_id: &DeviceId,
    nonce: Option<&[u8]>,
) -> Result<Signed, Failure> {
    demand(ctx)?;
    let Some(glance) = glance_at_mac(ctx, device_id).await? else {
        return Ok(Signed::Nobody);
    };
    let now = ctx.clock.now();
    let posture = judge(ctx, &glance, now);
    let freshness = freshness_nonce(ctx, &glance.mac.posture).await?;
    let subject = Subject::of_mac(&glance.mac.posture, ctx.subject_secret.expose());
    let besides = Besides {
        nonce,
        freshness,
        seal: None,
    };
    let token = result(ctx, &posture, &subject, besides).await?;
    Ok(token.map_or(Signed::NotAppraised, Signed::Result))
}

/// The result that goes with a bundle and seals it; `None` when nothing was ever appraised.
///
/// # Errors
/// As [`sign_result`].
pub(super) async fn sealed_result(
    ctx: &Context,
    posture: &PostureV1,
    subject: &Subject,
    freshness: Option<[u8; 32]>,
    seal: String,
) -> Result<Option<String>, Failure> {
    let besides = Besides {
        nonce: None,
        freshness,
        seal: Some(seal),
    };
    result(ctx, posture, subject, besides).await
}

/// The nonce in the statement of Apple's that is believed.
pub(super) async fn freshness_nonce(
    ctx: &Context,
    posture: &Posture,
) -> Result<Option<[u8; 32]>, Failure> {
    let attested = posture.attested.as_ref();
    let Some(minted_at) = attested.and_then(|attested| attested.freshness.minted_at()) else {
        return Ok(None);
    };
    let mut stored = ctx.store.glimpse().await?;
    Ok(stored
        .nonce_minted_at(&posture.device_id, minted_at)
        .await?)
}

/// What a result says besides the posture.
struct Besides<'a> {
    nonce: Option<&'a [u8]>,
    freshness: Option<[u8; 32]>,
    seal: Option<String>,
}

async fn result(
    ctx: &Context,
    posture: &PostureV1,
    subject: &Subject,
    besides: Besides<'_>,
) -> Result<Option<String>, Failure> {
    let now = posture.evaluated_at;
    let issuer = &ctx.settings.server_id;
    let ear = Ear::new(ear::Sources {
        posture,
        issuer,
        subject: subject.as_str(),
        jti: ResultId::new(now, ctx.entropy.as_ref()).to_string(),
        version: env!("CARGO_PKG_VERSION"),
        policy: format!("{issuer}/v1/policies/{}", ctx.policy.sha256),
        nonce: besides.nonce,
        freshness: besides.freshness,
        seal: besides.seal,
    });
    let Some(ear) = ear else {
        return Ok(None);
    };
    let known = known(ctx).await?;
    let (kid, signer) = known.signer(Algorithm::Es256, now)?;
    let token = jws::compact(&ear, ear::TYP, kid, Algorithm::Es256, signer);
    Ok(Some(token.map_err(Failure::Unsigned)?))
}

impl Known {
    /// Who signs by this algorithm now, and the name of the key.
    ///
    /// # Errors
    /// When nobody does.
    pub fn signer(&self, alg: Algorithm, now: Timestamp) -> Result<(&str, &dyn Signer), Failure> {
        let kid = signing(&self.keys, alg, now).map(|key| key.jwk.kid.as_str());
        let pair = kid.and_then(|kid| Some((kid, self.pairs.get(kid)?)));
        let (kid, pair) = pair.ok_or(Failure::NoSigningKey)?;
        Ok((kid, pair))
    }
}
