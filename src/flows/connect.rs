//! A Mac asks for work and brings answers.
//!
//! An Idle with nothing owed touches no database. An answer is verified here, outside the store's
//! writer, and then judged and written in one durable step ([`super::conclude`]).

use std::sync::Arc;

use super::conclude::{Answer, Content, Decision, Judge, Traced, decide};
use super::identify::{Identified, Proof, identify};
use super::refuse::{Refused, note};
use super::take_over::settle;
use super::{Context, Failure};
use crate::attestation::{Evidence, verify};
use crate::enrollment::State;
use crate::enrollment::trace::Step;
use crate::ids::{DeviceId, TicketId};
use crate::mdm::device_information::{Attestation, DeviceInformation};
use crate::mdm::report::Status;
use crate::mdm::security_info::{SecurityInfo, without_personal_members};
use crate::mdm::{Channel, Report};
use crate::posture::Verdict;
use crate::reason::Reason;
use crate::secret::Sealer as _;
use crate::store::{Known, Speaker, relayed_place};
use crate::telemetry::traces::{Span, Traces};
use crate::time::Timestamp;

/// Its name in metrics, and where refusals are kept.
pub const SURFACE: &str = "connect";

/// How a report is answered.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// The next command, a property list.
    Command(Vec<u8>),
    /// Nothing (more) to do.
    Done,
    Refused(Reason),
}

/// Takes a report.
pub async fn connect(ctx: &Context, proof: Proof<'_>, body: &[u8]) -> Result<Reply, Failure> {
    let now = ctx.clock.now();
    let identified = match identify(ctx, SURFACE, proof, body, now).await? {
        Ok(identified) => identified,
        Err(reason) => return Ok(Reply::Refused(reason)),
    };
    let report = match Report::decode(body) {
        Ok(report) => report,
        Err(refusal) => {
            let reason = refusal.reason();
            note(
                ctx,
                Refused {
                    surface: SURFACE,
                    reason,
                    device_id: None,
                    named: None,
                    detail: refusal.to_string(),
                    at: now,
                },
            );
            return Ok(Reply::Refused(reason));
        }
    };
    ctx.metrics.message("connect", report.status.name());
    let speaker = match identified.speaker_for(&report.sender) {
        Ok(speaker) => Arc::clone(speaker),
        Err(reason) => {
            note(
                ctx,
                Refused {
                    surface: SURFACE,
                    reason,
                    device_id: None,
                    named: Some(report.sender.udid.clone()),
                    detail: report.status.name().to_owned(),
                    at: now,
                },
            );
            return Ok(Reply::Refused(reason));
        }
    };
    // Posture is read from the device channel only, and only of a Mac that is enrolled.
    if report.sender.channel == Channel::User || speaker.state != State::Enrolled {
        return Ok(Reply::Done);
    }
    ctx.store.seen(&speaker.device_id, now);
    let (reply, unsettled) = match &report.status {
        Status::Idle if speaker.owes_from.is_none_or(|from| from > now) => (Reply::Done, false),
        Status::Idle => exchange(ctx, &speaker, None, now).await?,
        status => {
            let sealed = ctx.settings.relay.as_ref().map(|_| {
                let place = relayed_place(&speaker.device_id);
                ctx.sealer.seal(&place, body)
            });
            let answer = read_answer(ctx, status.clone(), &report, &identified, body, sealed, now);
            let exchanged = exchange(ctx, &speaker, Some(answer), now).await?;
            if let Some(relay) = &ctx.settings.relay {
                relay.answered.notify_one();
            }
            exchanged
        }
    };
    // A contender is looked at each time: a proof that was not followed up is found again.
    if !unsettled && speaker.contends_with.is_none() {
        return Ok(reply);
    }
    if settle(ctx, &speaker.device_id).await?.is_none() {
        return Ok(reply);
    }
    // It is another Mac now, and what was chosen for it is not asked any more.
    match ctx.store.identify(identified.certificate).await? {
        Some(Known::Bound(speaker)) => Ok(exchange(ctx, &speaker, None, now).await?.0),
        _ => Ok(Reply::Done),
    }
}

/// Reads and verifies what an answer carries, whatever it was asked for.
fn read_answer(
    ctx: &Context,
    status: Status,
    report: &Report<'_>,
    identified: &Identified,
    body: &[u8],
    sealed: Option<Vec<u8>>,
    now: Timestamp,
) -> Answer {
    let content = if !matches!(status, Status::Acknowledged(_)) {
        Content::None
    } else if report.body.has("SecurityInfo") {
        match SecurityInfo::read(&report.body) {
            Ok(facts) => Content::SecurityInfo {
                facts,
                kept: without_personal_members(&report.body),
            },
            Err(_) => Content::Malformed,
        }
    } else if report.body.has("QueryResponses") {
        match DeviceInformation::read(&report.body) {
            Err(_) => Content::Malformed,
            Ok(DeviceInformation {
                attestation: Attestation::Malformed,
                ..
            }) => Content::ChainMalformed,
            Ok(DeviceInformation {
                attestation: Attestation::Absent,
                ..
            }) => Content::NoAttestation,
            Ok(DeviceInformation {
                queried,
                attestation: Attestation::Chain(certificates),
            }) => {
                let evidence = Evidence { certificates };
                let verified = verify(&evidence, &ctx.anchors, &ctx.intermediates, now);
                Content::Attestation {
                    queried,
                    verified: verified.map(Box::new),
                }
            }
        }
    } else {
        Content::None
    };
    Answer {
        status,
        content,
        body: body.to_vec(),
        signature: identified.signature.clone(),
        identity: identified.certificate,
        sealed,
    }
}

/// The reply, and whether it is to be settled who holds the serial number that Apple just proved.
async fn exchange(
    ctx: &Context,
    speaker: &Speaker,
    answer: Option<Answer>,
    now: Timestamp,
) -> Result<(Reply, bool), Failure> {
    let command_uuid = answer
        .as_ref()
        .and_then(|answer| answer.status.command_uuid())
        .cloned();
    let nonce = answer.as_ref().and_then(Answer::freshness_code);
    let judge = Judge {
        policy: Arc::clone(&ctx.policy),
        server_id: ctx.settings.server_id.clone(),
        entropy: Arc::clone(&ctx.entropy),
        rules: Arc::clone(&ctx.settings.rules),
        relays: ctx.settings.relay.is_some(),
        traces: ctx.traces.is_some(),
        beacon: ctx.log.as_ref().and_then(|log| log.beacon.newest()),
        now,
    };
    let status = answer
        .as_ref()
        .map_or("Idle", |answer| answer.status.name());
    // Signature and chain were verified before.
    let judged_from = ctx.clock.now();
    let decision = ctx
        .store
        .exchange(
            &speaker.device_id,
            command_uuid.as_ref(),
            nonce,
            move |exchange| decide(exchange, answer, &judge),
        )
        .await?;
    let Some(Decision {
        command,
        refused,
        verdict,
        affirms_anew,
        answered,
        traced,
        unsettled,
    }) = decision
    else {
        return Err(Failure::Inconsistent(
            "a bound identity without its enrollment",
        ));
    };
    if let Some(reason) = refused {
        note(
            ctx,
            Refused {
                surface: SURFACE,
                reason,
                device_id: Some(speaker.device_id.clone()),
                named: None,
                detail: status.to_owned(),
                at: now,
            },
        );
    }
    if let Some(verdict) = verdict {
        ctx.metrics.verdict(verdict);
        ctx.watched.judged(now);
    }
    if let Some((kind, after)) = answered {
        ctx.metrics.command_answered(kind, after);
    }
    if let (Some(traces), Some(traced)) = (&ctx.traces, traced) {
        let span = (now, judged_from, ctx.clock.now());
        trace(traces, &speaker.device_id, status, *traced, verdict, span);
    }
    if affirms_anew && let Some(ticket_id) = &speaker.ticket_id {
        measure_enrolment(ctx, ticket_id, now).await;
    }
    Ok((command.map_or(Reply::Done, Reply::Command), unsettled))
}

/// Says what an exchange was of a round: the report, what was concluded of it, and the round itself if it
/// ended so.
fn trace(
    traces: &Traces,
    device_id: &DeviceId,
    status: &'static str,
    traced: Traced,
    verdict: Option<Verdict>,
    (from, judged_from, to): (Timestamp, Timestamp, Timestamp),
) {
    let Traced {
        answered,
        handed_over,
        finished,
    } = traced;
    let next = handed_over.as_ref().map(|(_, kind)| kind.as_str());
    if let Some((round, kind)) = &answered {
        let which = format!("{status} {}", kind.as_str());
        let report = Span::new(round, device_id, SURFACE, &which, (from, to));
        let report = report.with("status", status).with("kind", kind.as_str());
        let judged = Span::new(round, device_id, "conclude", &which, (judged_from, to));
        let word = verdict.map_or("none", Verdict::as_str);
        traces.record(judged.with("verdict", word).within(&report));
        traces.record(report.with("handed_over", next.unwrap_or("none")));
    } else if let Some((round, kind)) = &handed_over {
        let which = format!("{status} {}", kind.as_str());
        let report = Span::new(round, device_id, SURFACE, &which, (from, to));
        let report = report.with("status", status);
        traces.record(report.with("handed_over", kind.as_str()));
    }
    let round = finished.as_ref().and_then(Span::of_round);
    round.into_iter().for_each(|span| traces.record(span));
}

/// Measures how long each step of an enrolment took, once it led to a good verdict for the first time.
async fn measure_enrolment(ctx: &Context, ticket_id: &TicketId, now: Timestamp) {
    let done = async {
        let tx = ctx.store.read().await?;
        tx.first_done(ticket_id).await
    };
    let done = match done.await {
        Ok(done) => done,
        // The Mac was answered all the same: what is not measured is missing in a histogram.
        Err(error) => return Failure::from(error).log(),
    };
    let at = |step| done.iter().find(|(known, _)| *known == step);
    if at(Step::Verdict).is_none_or(|(_, at)| *at != now) {
        return;
    }
    if let Some((_, began)) = at(Step::Profile) {
        for (step, at) in &done {
            ctx.metrics.step(*step, at.since(*began));
        }
    }
}
