//! `attestd device show`.

use anyhow::Context as _;
use clap::Args;
use comfy_table::Table;
use serde_json::json;

use super::super::store::with_desk;
use super::super::{Configured, output};
use super::words::{dated, dated_if_any, when, word};
use super::{by, named, time};
use crate::flows::show_device::show_device;
use crate::publication::story_v1::StoryV1;
use crate::time::Timestamp;

/// Tell the story of a Mac on one screen: how it came, what is known and since when, the verdict and
/// why, what is asked next, and who acts next.
#[derive(Debug, Args)]
#[command(after_help = "\
Works beside a running server, which writes down every few seconds when a Mac was last seen. Who acts next is the owner of the Mac (its provider), the Mac, Apple, the
operator, or the service itself.")]
pub(super) struct Show {
    #[command(flatten)]
    configured: Configured,
    /// The device id (dev_…), the serial number, or the UDID.
    #[arg(value_name = "DEVICE|SERIAL|UDID")]
    device: String,
    /// Judge at this time instead of now.
    #[arg(long, value_name = "RFC3339", value_parser = time)]
    at: Option<Timestamp>,
    #[arg(long)]
    json: bool,
}

impl Show {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        with_desk(&self.configured, async |desk| {
            let device_id = named(&desk.store, &self.device).await?;
            let by = by(desk, self.at);
            let story = show_device(&by, &device_id).await?;
            let story = story.with_context(|| format!("there is no device {device_id}"))?;
            let story = story.publish(&by);
            if self.json {
                output::line(json!(story).to_string());
            } else {
                tell(&story);
            }
            Ok(())
        })
    }
}

fn tell(story: &StoryV1<'_>) {
    output::line(of_mac(story).to_string());
    if !story.why.is_empty() {
        let mut table = Table::new();
        table.set_header(["why", "who", "what it means"]);
        for why in &story.why {
            table.add_row([why.reason.code(), &word(why.who), why.text]);
        }
        output::line(table.to_string());
    }
    of_steps(story);
    of_claims(story);
    of_sessions(story);
    of_questions(story);
    let acts = &story.who_acts;
    let from = acts
        .from
        .map(|at| format!(" From {}.", dated(at, story.evaluated_at)));
    output::line(format!(
        "Who acts next: {}. {}{}",
        acts.who.as_str(),
        acts.text,
        from.unwrap_or_default()
    ));
}

fn of_mac(story: &StoryV1<'_>) -> Table {
    let now = story.evaluated_at;
    let (device, posture) = (&story.device, story.posture);
    let identity = match &device.identity {
        None => "-".to_owned(),
        Some(identity) => format!(
            "{}, {}, until {}",
            word(identity.kind),
            identity.state,
            dated(identity.not_after, now)
        ),
    };
    let hardware = device.hardware;
    let of_hardware = [&hardware.model_name, &hardware.model, &hardware.os_version];
    let of_hardware: Vec<_> = of_hardware.into_iter().flatten().cloned().collect();
    let mut table = Table::new();
    let mut row = |name: &str, value: String| {
        table.add_row([name.to_owned(), value]);
    };
    row("device", device.device_id.to_string());
    row("serial number", word(device.serial_number));
    row("UDID", device.udid.to_string());
    row("what it says it is", of_hardware.join(", "));
    row("state", word(device.enrollment_state));
    if let Some(other) = device.contends_with {
        row("stands behind", other.to_string());
    }
    row("began to enrol", dated(device.authenticated_at, now));
    row("enrolled", dated_if_any(device.enrolled_at, now));
    row("identity", identity);
    row(
        "serial number proved",
        dated_if_any(device.serial_held_since, now),
    );
    row("last seen", dated_if_any(device.last_seen, now));
    row("verdict", posture.verdict.as_str().to_owned());
    row("trust level", posture.trust_level.as_str().to_owned());
    row(
        "may be relied on until",
        dated_if_any(posture.usable_until, now),
    );
    row("policy", posture.policy_id.clone());
    if let Some(key) = &posture.binding {
        let proof = key.proof.as_str();
        row(
            "provider key",
            format!("{}, proved by {proof}", key.se_key_bound.as_str()),
        );
    }
    table
}

fn of_steps(story: &StoryV1<'_>) {
    let Some(progress) = story.steps else {
        return output::line(
            "It came in without a ticket: the steps of its enrolment are not known.",
        );
    };
    let mut table = Table::new();
    table.set_header(["step", "how it stands", "when", "reason"]);
    for step in &progress.steps {
        table.add_row([
            step.step.as_str().to_owned(),
            step.standing.as_str().to_owned(),
            dated_if_any(step.at, story.evaluated_at),
            word(step.reason),
        ]);
    }
    output::line(table.to_string());
}

fn of_claims(story: &StoryV1<'_>) {
    let (posture, now) = (story.posture, story.evaluated_at);
    if posture.claims.is_empty() {
        return output::line("There is no evidence.");
    }
    let mut table = Table::new();
    table.set_header([
        "evidence",
        "value",
        "who says so",
        "by",
        "since",
        "age",
        "counts until",
    ]);
    for (name, claim) in &posture.claims {
        let until = claim
            .expires_at
            .map_or_else(|| "-".to_owned(), |at| when(at, now));
        table.add_row([
            (*name).to_owned(),
            claim
                .value
                .as_ref()
                .map_or_else(|| "unknown".to_owned(), word),
            word(claim.assurance),
            claim.source.to_owned(),
            when(claim.observed_at, now),
            word(claim.age),
            until,
        ]);
    }
    output::line(table.to_string());
}

fn of_sessions(story: &StoryV1<'_>) {
    if story.sessions.is_empty() {
        return output::line("No provider session is known for it.");
    }
    let mut table = Table::new();
    table.set_header([
        "provider session",
        "routable",
        "level",
        "key",
        "last good answer",
        "why not",
    ]);
    for session in &story.sessions {
        let why: Vec<_> = session.reasons.iter().map(|reason| reason.code()).collect();
        table.add_row([
            session.session.to_string(),
            if session.routable { "yes" } else { "no" }.to_owned(),
            session.trust_level.as_str().to_owned(),
            session.se_key_bound.as_str().to_owned(),
            dated_if_any(session.last_good_at, story.evaluated_at),
            why.join(", "),
        ]);
    }
    output::line(table.to_string());
}

fn of_questions(story: &StoryV1<'_>) {
    let now = story.evaluated_at;
    if !story.asks.is_empty() {
        let mut table = Table::new();
        table.set_header(["asked next", "how far", "from", "reason"]);
        for ask in &story.asks {
            let from = ask.from.filter(|at| *at > now);
            table.add_row([
                ask.kind.as_str().to_owned(),
                ask.state.map_or_else(|| "not asked yet".to_owned(), word),
                from.map_or_else(|| "now".to_owned(), |at| dated(at, now)),
                word(ask.reason),
            ]);
        }
        output::line(table.to_string());
    }
    let pushes = &story.pushes;
    let mut line = format!(
        "Woken {} of {} times within the hour",
        pushes.within_the_hour, pushes.per_hour
    );
    if let Some(until) = pushes.held_until {
        let why = pushes
            .held_for
            .map_or("woken just now", |reason| reason.code());
        line.push_str(&format!("; not again before {} ({why})", dated(until, now)));
    }
    output::line(format!("{line}."));
}
