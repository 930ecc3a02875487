//! What happens is added to the transparency log, whether or not anybody asks: the results that change, trust
//! that is withdrawn, policies, keys, releases.

use std::collections::BTreeSet;

use super::append_to_log::{Log, append_in};
use super::read_binding::glance_at_mac;
use super::sign_result::known;
use super::watch_clock::trouble;
use super::{Context, Failure};
use crate::ids::{DeviceId, sha256};
use crate::provider::Release;
use crate::publication::event;
use crate::publication::keyring::history;
use crate::publication::subject::Subject;
use crate::store::{NumberedEvent, Read};
use crate::transparency::entry::Entry;

/// Events that are read at once.
const PAGE: usize = 256;

/// Says what there is to say, until there is nothing more. What was told is kept in the step that adds it, so
/// that two nodes do not say it twice. Results are signed after that: one that a sudden end leaves out is
/// followed by the next, within the hour.
///
/// # Errors
/// When something cannot be read or stored; it is said the next time.
pub async fn run_once(ctx: &Context) -> Result<(), Failure> {
    let Some(log) = &ctx.log else { return Ok(()) };
    if trouble(ctx).is_some() {
        // By such a clock nothing is dated, least of all for ever.
        return Ok(());
    }
    say_what_is_in_use(ctx, log).await?;
    while follow_events(ctx, log).await? {}
    Ok(())
}

/// Something that is in use, by the fact that says that it was logged.
struct InUse {
    fact: String,
    /// What was logged last.
    state: String,
    entry: Entry,
}

async fn say_what_is_in_use(ctx: &Context, log: &Log) -> Result<(), Failure> {
    let keys = known(ctx).await?;
    let policy = &ctx.policy;
    let written = serde_json::to_vec(&history(&keys.keys));
    let written = written.map_err(|_| Failure::Inconsistent("keys that cannot be written"))?;
    let jwks = sha256(&written);
    let mut in_use = vec![
        InUse {
            fact: format!("logged_policy:{}", policy.sha256),
            state: "in use".to_owned(),
            entry: Entry::Policy {
                id: policy.id.clone(),
                sha256: policy.sha256.clone(),
            },
        },
        InUse {
            fact: "logged_jwks".to_owned(),
            state: hex::encode(jwks),
            entry: Entry::Jwks { sha256: jwks },
        },
    ];
    let tx = ctx.store.read().await?;
    let generation = tx.release_generation().await?.to_string();
    let releases_changed = tx.fact(RELEASES).await?.as_ref() != Some(&generation);
    if releases_changed {
        in_use.extend(tx.releases().await?.iter().map(of_release));
    }
    let in_use = not_said(&tx, in_use).await?;
    drop(tx);
    if in_use.is_empty() && !releases_changed {
        return Ok(());
    }
    let mut tx = ctx.store.write().await?;
    // Whoever says it at the same moment waits for the head.
    append_in(&mut tx, log, Vec::new()).await?;
    let in_use = not_said(&tx, in_use).await?;
    let now = ctx.clock.now();
    let entries = in_use.iter().map(|said| said.entry.encode(now)).collect();
    let (logged, head) = append_in(&mut tx, log, entries).await?;
    for (said, logged) in in_use.iter().zip(logged) {
        let state = format!("{} {}", said.state, logged.index);
        tx.set_fact(&said.fact, &state).await?;
    }
    if releases_changed {
        tx.set_fact(RELEASES, &generation).await?;
    }
    tx.commit().await?;
    log.keep(head);
    Ok(())
}

/// Up to which generation releases were logged.
const RELEASES: &str = "logged_releases";
const REGISTERED: &str = "registered";
const REVOKED: &str = "revoked";

fn of_release(release: &Release) -> InUse {
    let revoked = release.revoked.is_some();
    let binary_hash = release.binary_hash.to_string();
    let platform = release.platform.to_string();
    InUse {
        fact: fact_of(release),
        state: if revoked { REVOKED } else { REGISTERED }.to_owned(),
        entry: Entry::Release {
            version: release.version.to_string(),
            platform,
            binary_hash,
            revoked,
        },
    }
}

fn fact_of(release: &Release) -> String {
    format!(
        "logged_release:{}:{}",
        release.platform, release.binary_hash
    )
}

/// Where in the log a release was registered; `None` while it was not, and once it was withdrawn.
///
/// # Errors
/// When it cannot be read.
pub(super) async fn place_of(tx: &Read, release: &Release) -> Result<Option<u64>, Failure> {
    let known = tx.fact(&fact_of(release)).await?;
    let place = known.as_deref().and_then(placed);
    let place = place.filter(|(state, _)| *state == REGISTERED);
    Ok(place.map(|(_, index)| index))
}

/// What a fact says was logged, and where.
fn placed(fact: &str) -> Option<(&str, u64)> {
    let (state, index) = fact.rsplit_once(' ')?;
    Some((state, index.parse().ok()?))
}

async fn not_said(tx: &Read, in_use: Vec<InUse>) -> Result<Vec<InUse>, Failure> {
    let mut not_said = Vec::new();
    for thing in in_use {
        let known = tx.fact(&thing.fact).await?;
        let said = known.as_deref().and_then(placed).map(|(state, _)| state);
        if said != Some(thing.state.as_str()) {
            not_said.push(thing);
        }
    }
    Ok(not_said)
}

/// Some events; returns whether there may be more.
async fn follow_events(ctx: &Context, log: &Log) -> Result<bool, Failure> {
    let cursor = ctx.store.read().await?.log_cursor().await?;
    let Some(cursor) = cursor else {
        // What was before the log began is said when it is asked for.
        let begins = ctx.store.settled_event().await?;
        let mut tx = ctx.store.write().await?;
        append_in(&mut tx, log, Vec::new()).await?;
        if tx.log_cursor().await?.is_none() {
            tx.move_log_cursor(begins).await?;
        }
        tx.commit().await?;
        return Ok(false);
    };
    let page = ctx.store.event_page(cursor, PAGE).await?;
    if page.up_to <= cursor {
        return Ok(false);
    }
    let mut withdrawn = Vec::new();
    for event in named(&page.events, event::DEVICE_REVOKED) {
        withdrawn.extend(revocation(ctx, event).await?);
    }
    let mut tx = ctx.store.write().await?;
    let (_, head) = append_in(&mut tx, log, withdrawn).await?;
    if tx.log_cursor().await? != Some(cursor) {
        // Another node was faster.
        return Ok(true);
    }
    tx.move_log_cursor(page.up_to).await?;
    tx.commit().await?;
    log.keep(head);
    let changed = named(&page.events, event::POSTURE_CHANGED);
    let changed: BTreeSet<_> = changed
        .filter_map(|event| event.device_id.as_ref())
        .collect();
    for device_id in changed {
        publish_results(ctx, device_id).await?;
    }
    Ok(page.events.len() == PAGE)
}

fn named<'a>(
    events: &'a [NumberedEvent],
    name: &'static str,
) -> impl Iterator<Item = &'a NumberedEvent> {
    events.iter().filter(move |event| event.event.name == name)
}

async fn revocation(ctx: &Context, event: &NumberedEvent) -> Result<Option<Vec<u8>>, Failure> {
    let Some(device_id) = &event.device_id else {
        return Ok(None);
    };
    let epoch = event.event.body.get("revocation_epoch");
    let epoch = epoch.and_then(serde_json::Value::as_u64);
    let epoch = epoch.ok_or(Failure::Inconsistent("a withdrawal without an epoch"))?;
    let Some(glance) = glance_at_mac(ctx, device_id).await? else {
        return Ok(None);
    };
    let subject = Subject::of_mac(&glance.mac.posture, ctx.subject_secret.expose());
    let entry = Entry::Revocation {
        subject: subject.as_str().to_owned(),
        epoch,
    };
    Ok(Some(entry.encode(event.event.at)))
}

/// The evidence of every session of the Mac, which adds its result to the log.
async fn publish_results(ctx: &Context, device_id: &DeviceId) -> Result<(), Failure> {
    let Some(glance) = glance_at_mac(ctx, device_id).await? else {
        return Ok(());
    };
    for (session, _) in &glance.sessions {
        if session.is_live() && session.has_spoken() {
            ctx.bundles.renew(ctx, &session.session_id).await?;
        }
    }
    Ok(())
}
