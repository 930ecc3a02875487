//! An old coordinator is told of the answers to what it asked, as MicroMDM told it.
//!
//! A message is sent until it is taken, or until nobody waits for it any more; what it carries is kept
//! sealed until then, and no longer.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};

use super::relay_command::Relaying;
use super::{Context, Failure};
use crate::outbound::Line;
use crate::publication::micromdm::Message;
use crate::store::{Relayed, RelayedAnswer};
use crate::verification::ANSWER_LIFETIME;

/// Messages that are sent in one round.
const ROUND: usize = 64;
/// How long others leave a message to whoever took it: longer than one may take.
const TAKEN: Duration = Duration::from_secs(30);
/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long the names of commands are remembered, so that none is used twice.
const REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);

/// Sends what there is to tell. Returns whether there may be more.
pub async fn run_once(ctx: &Context) -> Result<bool, Failure> {
    let Some(relay) = &ctx.settings.relay else {
        return Ok(false);
    };
    let now = ctx.clock.now();
    let waiting = ctx.store.read().await?.relayed_to_tell(now, ROUND).await?;
    let more = waiting.len() == ROUND;
    let mut line = None;
    for relayed in waiting {
        tell(ctx, relay, &mut line, relayed).await?;
    }
    Ok(more)
}

async fn tell(
    ctx: &Context,
    relay: &Relaying,
    line: &mut Option<Line>,
    relayed: Relayed,
) -> Result<(), Failure> {
    let now = ctx.clock.now();
    let mut tx = ctx.store.write().await?;
    if !tx.take_relayed(&relayed, now.plus(TAKEN)).await? {
        return Ok(());
    }
    tx.commit().await?;
    let Some(answer) = &relayed.answer else {
        return Ok(());
    };
    let sent = send(ctx, relay, line, &relayed, answer).await?;
    let now = ctx.clock.now();
    let mut tx = ctx.store.write().await?;
    let label = match sent {
        Ok(()) => {
            tx.end_relayed(relayed.name.command_uuid(), "told").await?;
            "relayed"
        }
        Err(why) if now.since(answer.at) >= ANSWER_LIFETIME => {
            tx.end_relayed(relayed.name.command_uuid(), "given_up")
                .await?;
            tracing::warn!(
                why,
                command.uuid = relayed.name.command_uuid().as_str(),
                "a relayed answer was given up"
            );
            "relay_given_up"
        }
        Err(why) => {
            tracing::info!(
                why,
                command.uuid = relayed.name.command_uuid().as_str(),
                "a relayed answer was not taken"
            );
            let pause = Duration::from_secs(1 << answer.tries.min(6)).min(LONGEST_PAUSE);
            tx.put_off_relayed(relayed.name.command_uuid(), now.plus(pause))
                .await?;
            "relay_put_off"
        }
    };
    tx.commit().await?;
    ctx.metrics.webhook_message(label);
    Ok(())
}

/// Posts one message; an error says why it was not taken.
async fn send(
    ctx: &Context,
    relay: &Relaying,
    line: &mut Option<Line>,
    relayed: &Relayed,
    answer: &RelayedAnswer,
) -> Result<Result<(), String>, Failure> {
    let tx = ctx.store.read().await?;
    let Some(mac) = tx.enrollment(&relayed.device_id).await? else {
        return Err(Failure::Inconsistent("a relayed command without its Mac"));
    };
    drop(tx);
    let message = Message::about(
        &relayed.name,
        &mac.udid,
        &answer.status,
        answer.reply.expose(),
        answer.at,
    );
    let Ok(body) = serde_json::to_vec(&message) else {
        return Err(Failure::Inconsistent("a message that cannot be written"));
    };
    let mut headers = HeaderMap::new();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    if let Some(token) = &relay.token {
        let Ok(mut token) = HeaderValue::from_str(token.expose()) else {
            return Err(Failure::Inconsistent("a webhook token that is no header"));
        };
        token.set_sensitive(true);
        headers.insert("x-webhook-token", token);
    }
    let line = match line {
        Some(line) => line,
        None => match ctx.outbound.line(relay.webhook.clone(), &relay.reach) {
            Ok(new) => line.insert(new),
            Err(unusable) => return Ok(Err(unusable.to_string())),
        },
    };
    Ok(match line.post(&headers, &Bytes::from(body)).await {
        Ok(said) if (200..300).contains(&said.status) => Ok(()),
        Ok(said) => Err(format!("answered {}", said.status)),
        Err(fault) => Err(fault.as_str().to_owned()),
    })
}

/// Forgets commands of long ago.
pub async fn tidy(ctx: &Context) -> Result<(), Failure> {
    let before = ctx.clock.now().minus(REMEMBERED);
    let mut tx = ctx.store.write().await?;
    tx.forget_relayed(before).await?;
    Ok(tx.commit().await?)
}
