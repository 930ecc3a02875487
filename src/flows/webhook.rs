//! An operator has a receiver told of events by messages, looks how that goes, and has some sent again.
//!
//! Webhooks are stored and managed by commands, not written into the configuration: several nodes on one
//! PostgreSQL must have the same ones, one cursor each, and one secret, which then need not lie on each
//! machine in a file.

use super::Failure;
use crate::audit::{Entry, Verb, Who, Words};
use crate::entropy::{Entropy, draw};
use crate::ids::{WebhookId, WebhookName};
use crate::outbound::{Target, UnusableRoot, UnusableTarget, check_root};
use crate::publication::delivery::Course;
use crate::publication::event;
use crate::publication::webhook::SigningSecret;
use crate::secret::Secret;
use crate::store::{Store, StoreError, Webhook};
use crate::time::Timestamp;

/// Webhooks there can be: each is delivered to by itself.
pub const MOST: usize = 64;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub name: WebhookName,
    pub url: Secret<String>,
    /// All events where there is none.
    pub events: Option<Vec<String>>,
    pub allow_private: bool,
    /// PEM.
    pub root: Option<String>,
    /// One that is in use already; a new one is made where there is none.
    pub secret: Option<SigningSecret>,
}

/// Why something is not done.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("there is a webhook of this name already; remove it first, or choose another")]
    NameTaken,
    #[error("there is no webhook of this name")]
    NotFound,
    #[error("there are {MOST} webhooks, and may be no more")]
    TooMany,
    #[error("there is no event {0:?}; docs/api.md lists them")]
    NoSuchEvent(String),
    #[error(transparent)]
    Target(#[from] UnusableTarget),
    #[error(transparent)]
    Root(#[from] UnusableRoot),
    #[error("events up to {0} are gone: the first that can be sent again is the one after")]
    Gone(i64),
    #[error("nothing has this number yet: the newest event is {0}")]
    Ahead(i64),
}

/// A webhook and how it goes.
#[derive(Debug, Clone)]
pub struct Report {
    pub webhook: Webhook,
    pub dead_letters: u64,
    /// Events it is behind at most: there are gaps, and some it does not want.
    pub behind: i64,
}

/// Adds a webhook, which is told of everything that happens from now on.
pub async fn add(
    store: &Store,
    wanted: Wanted,
    entropy: &dyn Entropy,
    who: &Who,
    now: Timestamp,
) -> Result<Result<Webhook, Refused>, Failure> {
    let origin = match check(&wanted) {
        Ok(origin) => origin,
        Err(refused) => return Ok(Err(refused)),
    };
    let settled = store.settled_event().await?;
    let mut tx = store.write().await?;
    if tx.webhooks().await?.len() >= MOST {
        return Ok(Err(Refused::TooMany));
    }
    let webhook = Webhook {
        webhook_id: WebhookId::new(now, entropy),
        name: wanted.name,
        url: wanted.url,
        secret: wanted
            .secret
            .unwrap_or_else(|| SigningSecret::new(&draw(entropy))),
        events: wanted.events,
        allow_private: wanted.allow_private,
        root: wanted.root,
        created_at: now,
        course: Course::from(settled),
        taken_until: Timestamp::from_millis(0),
        revision: 0,
    };
    match tx.insert_webhook(&webhook).await {
        Ok(()) => {}
        Err(StoreError::Conflict) => return Ok(Err(Refused::NameTaken)),
        Err(error) => return Err(error.into()),
    }
    // Its path may be a secret, and is for many receivers of other makes.
    let events = webhook.events.as_ref();
    let entry = Entry::new(who, Verb::WebhookAdd, &webhook.name, now)
        .after("webhook_id", &webhook.webhook_id)
        .after("origin", Words(&origin))
        .after("events", events.map(|names| words(names)))
        .after("allow_private", webhook.allow_private);
    tx.record(entry);
    tx.commit().await?;
    Ok(Ok(webhook))
}

fn words(names: &[String]) -> Vec<Words<'_>> {
    names.iter().map(|name| Words(name)).collect()
}

/// Scheme, host and port of its address: all of it that may be shown.
fn check(wanted: &Wanted) -> Result<String, Refused> {
    let target = Target::parse(wanted.url.expose(), wanted.allow_private)?;
    if let Some(root) = &wanted.root {
        check_root(root.as_bytes())?;
    }
    let names = wanted.events.iter().flatten();
    match names
        .into_iter()
        .find(|name| !event::ALL.contains(&name.as_str()))
    {
        Some(name) => Err(Refused::NoSuchEvent(name.clone())),
        None => Ok(target.origin()),
    }
}

/// Every webhook, and how it goes.
pub async fn list(store: &Store) -> Result<Vec<Report>, Failure> {
    let newest = store.newest_event().await?;
    let tx = store.read().await?;
    let mut reports = Vec::new();
    for webhook in tx.webhooks().await? {
        reports.push(Report {
            dead_letters: tx.dead_letter_count(&webhook.webhook_id).await?,
            behind: (newest - webhook.course.cursor).max(0),
            webhook,
        });
    }
    Ok(reports)
}

/// Removes a webhook, its cursor, and what was given up of it.
pub async fn remove(
    store: &Store,
    name: &WebhookName,
    who: &Who,
    now: Timestamp,
) -> Result<Result<(), Refused>, Failure> {
    let mut tx = store.write().await?;
    if !tx.remove_webhook(name).await? {
        return Ok(Err(Refused::NotFound));
    }
    tx.record(Entry::new(who, Verb::WebhookRemove, name, now));
    tx.commit().await?;
    Ok(Ok(()))
}

/// Has what was given up sent again, once, before anything else. How many messages that is.
pub async fn replay_dead(
    store: &Store,
    name: &WebhookName,
    who: &Who,
    now: Timestamp,
) -> Result<Result<u64, Refused>, Failure> {
    let mut tx = store.write().await?;
    let Some(mut webhook) = tx.webhook_to_change(name).await? else {
        return Ok(Err(Refused::NotFound));
    };
    let count = tx.replay_dead_letters(&webhook.webhook_id, now).await?;
    // The receiver is there again, the operator says: nobody waits any longer.
    webhook.course.next_at = None;
    tx.move_course(&webhook).await?;
    tx.record(Entry::new(who, Verb::WebhookReplay, name, now).after("dead_letters", count));
    tx.commit().await?;
    Ok(Ok(count))
}

/// Has everything sent again from the event of this number on.
pub async fn replay_from(
    store: &Store,
    name: &WebhookName,
    seq: i64,
    who: &Who,
    now: Timestamp,
) -> Result<Result<(), Refused>, Failure> {
    let (newest, removed) = (
        store.settled_event().await?,
        store.events_removed_up_to().await?,
    );
    if seq <= removed {
        return Ok(Err(Refused::Gone(removed)));
    }
    if seq > newest {
        return Ok(Err(Refused::Ahead(newest)));
    }
    let mut tx = store.write().await?;
    let Some(mut webhook) = tx.webhook_to_change(name).await? else {
        return Ok(Err(Refused::NotFound));
    };
    let entry = Entry::new(who, Verb::WebhookReplay, name, now)
        .before("cursor", webhook.course.cursor)
        .after("cursor", seq - 1);
    tx.record(entry);
    webhook.course = Course::from(seq - 1);
    tx.move_course(&webhook).await?;
    tx.commit().await?;
    Ok(Ok(()))
}
