//! One Mac in one instant: what it does, and what the server publishes of it afterwards.

use std::sync::Arc;

use anyhow::Context as _;
use attestd::flows::Context;
use attestd::flows::read_binding::{read_binding, standing};
use attestd::flows::read_posture::read_posture;
use attestd::posture;
use attestd::time::Timestamp;

use crate::checks::{self, Fault, Place, Published, PublishedSession};
use crate::judge::Verdict;
use crate::mac::{Came, Mac, Origin, Spoke};
use crate::time::Ms;
use crate::world::What;

/// What one Mac did in one instant.
#[derive(Debug)]
pub struct Did {
    pub mac: Box<Mac>,
    pub came: Vec<Came>,
    /// What its software did.
    pub spoke: Option<Spoke>,
    pub faults: Vec<Fault>,
    pub seen: Option<Published>,
}

/// Lets a Mac do what it does now, and looks at what is published of it afterwards.
pub async fn act(
    mut mac: Box<Mac>,
    whats: Vec<What>,
    ctx: Option<Arc<Context>>,
    sim: attestd_sim::World,
    now: Ms,
) -> anyhow::Result<Did> {
    let (mut came, mut spoke) = (Vec::new(), None);
    let server = ctx.as_deref();
    for what in whats {
        came.extend(match what {
            What::Attested(_) => Some(mac.attested(server, &sim, now).await?),
            What::Connect(_) => Some(mac.session(server, now).await?),
            What::Speak(_) => {
                spoke = Some(mac.speak(server, now).await?);
                None
            }
            _ => None,
        });
    }
    let (mut faults, seen) = match server {
        Some(ctx) => look(ctx, &mut mac, now).await?,
        None => (Vec::new(), None),
    };
    if let Some(ctx) = server {
        faults.extend(look_at_session(ctx, &mut mac, now).await?);
    }
    Ok(Did {
        mac,
        came,
        spoke,
        faults,
        seen,
    })
}

/// Compares what is published with what the judge allows.
async fn look(
    ctx: &Context,
    mac: &mut Mac,
    now: Ms,
) -> anyhow::Result<(Vec<Fault>, Option<Published>)> {
    let Some(device_id) = mac.device_id() else {
        return Ok((Vec::new(), None));
    };
    let found = read_posture(ctx, device_id).await?;
    let found = found.context("a Mac without a posture")?;
    let seen = Published {
        verdict: match found.verdict {
            posture::Verdict::Affirming => Verdict::Affirming,
            posture::Verdict::Warning => Verdict::Warning,
            posture::Verdict::Contraindicated => Verdict::Contraindicated,
            posture::Verdict::Unknown => Verdict::Unknown,
        },
        until: found.usable_until.map(Timestamp::millis),
        revision: found.revision,
    };
    let place = Place {
        mac: mac.index,
        at: now,
    };
    let allowed = mac.judge.allows(now);
    let before = mac.tally.published.map_or(0, |seen| seen.revision);
    let faults = [
        checks::verdict_is_what_is_allowed(place, seen, allowed),
        checks::nothing_is_trusted_longer_than_its_evidence(place, seen, allowed),
        checks::revision_never_goes_back(place, before, seen),
        checks::trust_came_back_by_newer_evidence(place, seen, &mac.judge),
    ];
    mac.tally.saw(seen, now);
    Ok((faults.into_iter().flatten().collect(), Some(seen)))
}

/// Compares what is published of its provider's session with what the judge allows.
async fn look_at_session(ctx: &Context, mac: &mut Mac, now: Ms) -> anyhow::Result<Option<Fault>> {
    let Some(software) = mac.software.as_ref().filter(|software| software.is_known()) else {
        return Ok(None);
    };
    let seen = match read_binding(ctx, &software.session_id).await? {
        // Nobody knows it any more.
        None => PublishedSession {
            level: "none",
            bound: "none",
            reasons: vec!["provider_not_bound"],
            ..PublishedSession::default()
        },
        Some(glance) => {
            let binding = standing(&glance).publish(&ctx.policy, ctx.clock.now());
            PublishedSession {
                routable: binding.routable,
                level: binding.trust_level.as_str(),
                bound: binding.se_key_bound.as_str(),
                until: binding.routable_until.map(Timestamp::millis),
                reasons: binding.reasons.iter().map(|reason| reason.code()).collect(),
            }
        }
    };
    let place = Place {
        mac: mac.index,
        at: now,
    };
    let attested = mac.origin == Origin::Attested;
    let allowed = software.judge.allows(&mac.judge, attested, now);
    let fault = checks::a_session_is_what_is_allowed(place, &seen, &allowed);
    mac.tally.saw_session(seen, now);
    Ok(fault)
}
