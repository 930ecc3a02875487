//! An operator lets somebody have a stream of shared signals, looks how that goes, and ends it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::Failure;
use crate::audit::{Entry, Verb, Who, Words};
use crate::entropy::{Entropy, draw};
use crate::ids::{ReceiverId, ReceiverName, SecretHash};
use crate::outbound::{UnusableRoot, check_root};
use crate::publication::shared_signals::access::Scope;
use crate::publication::shared_signals::receiver::Receiver;
use crate::secret::Secret;
use crate::store::{SignalStream, Store, StoreError};
use crate::time::Timestamp;

/// Receivers there can be: each has a stream, and every token is made for each.
pub const MOST: usize = 64;
/// Longest audience.
const LONGEST_AUDIENCE: usize = 512;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub name: ReceiverName,
    /// Whom its tokens are for.
    pub audience: String,
    pub scope: Scope,
    pub allow_private: bool,
    /// PEM.
    pub root: Option<String>,
}

/// Why something is not done.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("there is a receiver of this name already; remove it first, or choose another")]
    NameTaken,
    #[error("another receiver has this audience: tokens for one would be good for the other")]
    AudienceTaken,
    #[error("there is no receiver of this name")]
    NotFound,
    #[error("there are {MOST} receivers, and may be no more")]
    TooMany,
    #[error(
        "an audience is the receiver's URL, or another name that only it has, of 1 to {LONGEST_AUDIENCE} printable characters without spaces"
    )]
    Audience,
    #[error(transparent)]
    Root(#[from] UnusableRoot),
}

/// A receiver and how it goes.
#[derive(Debug, Clone)]
pub struct Report {
    pub receiver: Receiver,
    pub stream: Option<SignalStream>,
    /// Tokens that wait.
    pub waiting: u64,
}

/// Adds a receiver. Its secret is returned once and not kept.
///
/// # Errors
/// When it cannot be kept.
pub async fn add(
    store: &Store,
    wanted: Wanted,
    entropy: &dyn Entropy,
    who: &Who,
    now: Timestamp,
) -> Result<Result<(Receiver, Secret<String>), Refused>, Failure> {
    if let Err(refused) = check(&wanted) {
        return Ok(Err(refused));
    }
    let secret = Secret::new(URL_SAFE_NO_PAD.encode(draw::<32>(entropy)));
    let receiver = Receiver {
        receiver_id: ReceiverId::new(now, entropy),
        name: wanted.name,
        secret: SecretHash::of(secret.expose().as_bytes()),
        audience: wanted.audience,
        scope: wanted.scope,
        allow_private: wanted.allow_private,
        root: wanted.root,
        created_at: now,
    };
    let mut tx = store.write().await?;
    let others = tx.signal_receivers().await?;
    if others.len() >= MOST {
        return Ok(Err(Refused::TooMany));
    }
    if others.iter().any(|it| it.audience == receiver.audience) {
        return Ok(Err(Refused::AudienceTaken));
    }
    match tx.insert_signal_receiver(&receiver).await {
        Ok(()) => {}
        Err(StoreError::Conflict) => return Ok(Err(Refused::NameTaken)),
        Err(error) => return Err(error.into()),
    }
    let entry = Entry::new(who, Verb::ReceiverAdd, &receiver.name, now)
        .after("receiver_id", &receiver.receiver_id)
        .after("audience", Words(&receiver.audience))
        .after("scope", Words(&receiver.scope.to_string()))
        .after("allow_private", receiver.allow_private);
    tx.record(entry);
    tx.commit().await?;
    Ok(Ok((receiver, secret)))
}

fn check(wanted: &Wanted) -> Result<(), Refused> {
    let audience = &wanted.audience;
    let is_word = audience.bytes().all(|b| b.is_ascii_graphic());
    if !(1..=LONGEST_AUDIENCE).contains(&audience.len()) || !is_word {
        return Err(Refused::Audience);
    }
    match &wanted.root {
        Some(root) => Ok(check_root(root.as_bytes())?),
        None => Ok(()),
    }
}

/// Every receiver, and how it goes.
///
/// # Errors
/// When they cannot be read.
pub async fn list(store: &Store) -> Result<Vec<Report>, Failure> {
    let tx = store.read().await?;
    let mut reports = Vec::new();
    for receiver in tx.signal_receivers().await? {
        let stream = tx.signal_stream_of(&receiver.receiver_id).await?;
        let waiting = match &stream {
            Some(held) => tx.signal_count(&held.stream.stream_id).await?,
            None => 0,
        };
        reports.push(Report {
            receiver,
            stream,
            waiting,
        });
    }
    Ok(reports)
}

/// Removes a receiver, its stream and its tokens: whatever it holds is good for nothing from now on.
///
/// # Errors
/// When that cannot be kept.
pub async fn remove(
    store: &Store,
    name: &ReceiverName,
    who: &Who,
    now: Timestamp,
) -> Result<Result<(), Refused>, Failure> {
    let mut tx = store.write().await?;
    if !tx.remove_signal_receiver(name).await? {
        return Ok(Err(Refused::NotFound));
    }
    tx.record(Entry::new(who, Verb::ReceiverRemove, name, now));
    tx.commit().await?;
    Ok(Ok(()))
}
