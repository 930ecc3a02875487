//! The keys that results are signed by are made, follow one another, and are withdrawn.

use super::Failure;
use crate::audit::{Entry, Verb, Who, Words};
use crate::keys::{KeyKind, KeyPair};
use crate::pki::Signer as _;
use crate::publication::jwk::{Algorithm, Jwk};
use crate::publication::keyring::{LEAD, ResultKey};
use crate::store::{Store, StoreError, Write};
use crate::time::Timestamp;

/// Why no other key is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// One was made that does not sign yet.
    #[error("the next key is made already and signs from {0}")]
    UnderWay(Timestamp),
    #[error("there is no such key, or it was withdrawn before")]
    Unknown,
}

/// Makes the first key of an algorithm, if there is none: it signs at once, because nobody has a key
/// set yet.
///
/// # Errors
/// When it cannot be made or kept.
pub async fn begin(store: &Store, alg: Algorithm, now: Timestamp) -> Result<(), Failure> {
    let mut tx = store.write().await?;
    let known = tx.result_keys().await?;
    if known.iter().any(|key| key.jwk.alg == alg) {
        return Ok(());
    }
    let kept = match make(&mut tx, alg, now, now).await {
        Ok(key) => {
            tx.record(made(&Who::Service, Verb::ResultKeyMake, &key, now));
            tx.commit().await
        }
        Err(Failure::Store(error)) => Err(error),
        Err(failure) => return Err(failure),
    };
    match kept {
        // Another node was faster.
        Err(StoreError::Conflict) => Ok(()),
        kept => Ok(kept?),
    }
}

/// Makes the next key of an algorithm: published now, signing in place of the present one after
/// [`LEAD`].
///
/// # Errors
/// When it cannot be made or kept.
pub async fn rotate(
    store: &Store,
    alg: Algorithm,
    who: &Who,
    now: Timestamp,
) -> Result<Result<ResultKey, Refusal>, Failure> {
    let mut tx = store.write().await?;
    let known = tx.result_keys().await?;
    let waiting = known.iter().find(|key| {
        key.jwk.alg == alg && key.withdrawn_at.is_none() && key.signs_from.is_to_come(now)
    });
    if let Some(waiting) = waiting {
        return Ok(Err(Refusal::UnderWay(waiting.signs_from)));
    }
    let signs_from = now.plus(LEAD);
    tx.end_result_keys(alg, signs_from).await?;
    let key = make(&mut tx, alg, signs_from, now).await?;
    tx.record(made(who, Verb::ResultKeyRotate, &key, now));
    tx.commit().await?;
    Ok(Ok(key))
}

/// Withdraws a key that may be in other hands: nothing signed by it counts, whenever it is dated. Where
/// nothing else signs, a new key does at once. Returns that key.
///
/// # Errors
/// When it cannot be made or kept.
pub async fn withdraw(
    store: &Store,
    kid: &str,
    who: &Who,
    now: Timestamp,
) -> Result<Result<Option<ResultKey>, Refusal>, Failure> {
    let mut tx = store.write().await?;
    if !tx.withdraw_result_key(kid, now).await? {
        return Ok(Err(Refusal::Unknown));
    }
    let known = tx.result_keys().await?;
    let Some(alg) = known
        .iter()
        .find(|key| key.jwk.kid == kid)
        .map(|key| key.jwk.alg)
    else {
        return Ok(Err(Refusal::Unknown));
    };
    let others_sign = known.iter().any(|key| key.jwk.alg == alg && key.signs(now));
    let next = if others_sign {
        None
    } else {
        // One that waits for its time takes over later, as planned.
        let next = known
            .iter()
            .filter(|key| key.jwk.alg == alg && key.withdrawn_at.is_none());
        let until = next
            .map(|key| key.signs_from)
            .filter(|from| from.is_to_come(now))
            .min();
        let key = make(&mut tx, alg, now, now).await?;
        if let Some(until) = until {
            tx.end_result_key(&key.jwk.kid, until).await?;
        }
        Some(key)
    };
    let entry = Entry::new(who, Verb::ResultKeyWithdraw, Words(kid), now)
        .after("withdrawn_at", now)
        .after(
            "signs_instead",
            next.as_ref().map(|key| Words(&key.jwk.kid)),
        );
    tx.record(entry);
    tx.commit().await?;
    Ok(Ok(next))
}

fn made(who: &Who, what: Verb, key: &ResultKey, now: Timestamp) -> Entry {
    Entry::new(who, what, Words(&key.jwk.kid), now)
        .after("alg", key.jwk.alg.as_str())
        .after("signs_from", key.signs_from)
}

async fn make(
    tx: &mut Write,
    alg: Algorithm,
    signs_from: Timestamp,
    now: Timestamp,
) -> Result<ResultKey, Failure> {
    let kind = match alg {
        Algorithm::Es256 => KeyKind::P256,
        Algorithm::Rs256 => KeyKind::Rsa2048,
    };
    let pair = KeyPair::generate(kind).map_err(|_| Failure::KeyNotMade)?;
    let jwk = Jwk::of(pair.public_key_spki()).ok_or(Failure::KeyNotMade)?;
    let key = ResultKey {
        jwk,
        made_at: now,
        signs_from,
        signs_until: None,
        withdrawn_at: None,
    };
    tx.keep_result_key(&key, pair.pkcs8()).await?;
    Ok(key)
}
