//! Push certificates that end, and certificates that APNs refuses: whoever looks after the service is
//! told, whatever number of nodes saw it, once.

use super::{Context, Failure};
use crate::ids::Topic;
use crate::publication::event::{self, Expiring};
use crate::push::Standing;
use crate::push::expiry::{days_left, due};
use crate::push::trouble::{Observed, Trouble, of_topic};
use crate::store::{Event, PushCertificate, Write};
use crate::time::Timestamp;

/// Runs once: tells of what is due, and measures.
pub async fn run_once(ctx: &Context) -> Result<(), Failure> {
    let now = ctx.clock.now();
    let certificates = ctx.store.read().await?.push_certificates().await?;
    let in_use: Vec<_> = certificates
        .iter()
        .filter(|one| one.standing == Standing::Active)
        .collect();
    let first = in_use.iter().map(|one| one.not_after.seconds()).min();
    ctx.metrics
        .push_certificate_not_after
        .set(first.unwrap_or(0));
    for certificate in in_use {
        let not_after = certificate.not_after;
        let observed = observe(ctx, certificate, now);
        let stopped = observed.is_some_and(|one| one.trouble.is_some());
        let left = days_left(not_after, now);
        ctx.metrics
            .push_certificate(certificate.topic.as_str(), left, stopped);
        if let Some(days) = due(not_after, now, certificate.expiry_told) {
            tell_of_expiry(ctx, certificate, days, now).await?;
        }
        if let Some(observed) = observed {
            tell_of_trouble(ctx, &certificate.topic, observed, now).await?;
        }
    }
    Ok(())
}

/// What this node saw last of a topic; nothing before its first push.
fn observe(ctx: &Context, certificate: &PushCertificate, now: Timestamp) -> Option<Observed> {
    let states = ctx.apns.state();
    let state = states.iter().find(|one| one.topic == certificate.topic);
    // What a former certificate met says nothing about this one.
    let state = state.filter(|one| one.certificate == certificate.sha256);
    let stopped = state.and_then(|one| one.stopped.as_ref());
    if let Some((at, trouble)) = of_topic(certificate.not_after, stopped, now) {
        return Some(Observed {
            at,
            trouble: Some(trouble),
        });
    }
    let success = state.and_then(|one| one.last_success);
    let at = success.max(certificate.activated_at)?;
    Some(Observed { at, trouble: None })
}

async fn tell_of_expiry(
    ctx: &Context,
    certificate: &PushCertificate,
    days: u16,
    now: Timestamp,
) -> Result<(), Failure> {
    let mut tx = ctx.store.write().await?;
    let id = &certificate.push_certificate_id;
    if !tx.push_certificate_expiry_is_told(id, days).await? {
        return Ok(());
    }
    let body = event::push_certificate_expiring(&Expiring {
        push_certificate_id: id,
        topic: &certificate.topic,
        not_after: certificate.not_after,
        days: days.into(),
        macs: tx.enrolled_under(&certificate.topic).await?,
        apple_account: certificate.apple_account.as_deref(),
    });
    let event = Event::new(event::SERVICE_PUSH_CERTIFICATE_EXPIRING, now, body);
    tx.append_event_about(None, &event).await?;
    tx.commit().await?;
    tracing::warn!(
        topic = certificate.topic.as_str(),
        not_after = %certificate.not_after,
        days,
        "the push certificate expires soon: renew it under the same Apple Account"
    );
    Ok(())
}

async fn tell_of_trouble(
    ctx: &Context,
    topic: &Topic,
    observed: Observed,
    now: Timestamp,
) -> Result<(), Failure> {
    let name = format!("push_trouble:{topic}");
    let known = ctx.store.read().await?.fact(&name).await?;
    if !observed.is_news(read(known.as_deref())?.as_ref()) {
        return Ok(());
    }
    let mut tx = ctx.store.write().await?;
    let Some(before) = keep(&mut tx, &name, observed).await? else {
        return Ok(());
    };
    let cause = observed.trouble.or(before).map(Trouble::as_str);
    let body = event::pushes_degraded(topic, observed.trouble.is_some(), cause);
    let event = Event::new(event::SERVICE_DEGRADED, now, body);
    tx.append_event_about(None, &event).await?;
    tx.commit().await?;
    match observed.trouble {
        Some(trouble) => tracing::error!(
            topic = topic.as_str(),
            cause = trouble.as_str(),
            "no Mac of this topic can be woken: the push certificate is at fault"
        ),
        None => tracing::info!(
            topic = topic.as_str(),
            "Macs of this topic can be woken again"
        ),
    }
    Ok(())
}

/// Keeps what was seen, unless another node was faster. Returns what was the matter before.
async fn keep(
    tx: &mut Write,
    name: &str,
    observed: Observed,
) -> Result<Option<Option<Trouble>>, Failure> {
    let text = observed.to_text();
    let known = match tx.fact_to_change(name).await? {
        Some(known) => known,
        None => {
            let stands = tx.state_fact(name, &text).await?;
            if stands == text {
                return Ok(Some(None));
            }
            stands
        }
    };
    let known = read(Some(&known))?;
    if !observed.is_news(known.as_ref()) {
        return Ok(None);
    }
    tx.set_fact(name, &text).await?;
    Ok(Some(known.and_then(|known| known.trouble)))
}

fn read(kept: Option<&str>) -> Result<Option<Observed>, Failure> {
    let unreadable = Failure::Inconsistent("kept trouble of a topic that cannot be read");
    match kept {
        None => Ok(None),
        Some(text) => Observed::parse(text).map(Some).ok_or(unreadable),
    }
}
