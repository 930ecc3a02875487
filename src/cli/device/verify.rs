//! `attestd device verify`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use comfy_table::Table;
use serde_json::json;

use super::super::progress::Bar;
use super::super::store::{Desk, with_desk};
use super::super::{Configured, output};
use super::named;
use super::words::word;
use crate::flows::ask_to_verify::{Course, Wish, ask, follow};
use crate::flows::revoke::MAX_NOTE;
use crate::posture::Verdict;
use crate::publication::verification_v1::VerificationV1;
use crate::store::Asked;
use crate::time::Span;
use crate::verification::Kind;

/// How often it is looked how far the servers are.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// How many Macs at a time.
const MOST: usize = 100;

/// Ask Macs for fresh evidence now. The wish is kept in the database, and whichever server runs on it
/// wakes the Mac, within the budget of pushes and Apple's seven days.
#[derive(Debug, Args)]
#[command(after_help = "\
Works beside running servers on SQLite and PostgreSQL; without one the wish is good for an hour.

Exit status: 0 asked; with --wait, every Mac was found affirming or with a warning. With --wait: 3 a Mac is
contraindicated; 4 of a Mac nothing was learnt, or not in time. 1 failed; 2 wrong arguments; 64 unusable
configuration.")]
pub(super) struct Verify {
    #[command(flatten)]
    configured: Configured,
    /// Device ids (dev_…), serial numbers or UDIDs.
    #[arg(value_name = "DEVICE|SERIAL|UDID", required = true, num_args = 1..=MOST)]
    devices: Vec<String>,
    /// Only this kind of evidence; without it, both.
    #[arg(long, value_name = "KIND", value_parser = kinds())]
    kind: Option<Kind>,
    /// Why, in your words; the attempt and the audit log say it.
    #[arg(long, value_name = "TEXT", default_value = "asked by an operator")]
    why: String,
    /// Follow the attempts until they are over.
    #[arg(long)]
    wait: bool,
    /// Follow them for so long at most.
    #[arg(long, value_name = "SPAN", default_value = "15m", value_parser = span, requires = "wait")]
    at_most: Span,
    #[arg(long)]
    json: bool,
}

/// What became of it, as an exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ended {
    Well,
    Unknown,
    Badly,
}

impl From<Ended> for ExitCode {
    fn from(ended: Ended) -> Self {
        Self::from(match ended {
            Ended::Well => 0,
            Ended::Badly => 3,
            Ended::Unknown => 4,
        })
    }
}

impl Verify {
    pub(super) fn run(&self) -> anyhow::Result<Ended> {
        if self.why.chars().count() > MAX_NOTE || self.why.chars().any(char::is_control) {
            bail!("--why must be at most {MAX_NOTE} characters, none of them a control character");
        }
        with_desk(&self.configured, async |desk| {
            let asked = self.asked(desk).await?;
            if !self.wait {
                self.tell_asked(&asked);
                return Ok(Ended::Well);
            }
            let courses = self.followed(desk, &asked).await?;
            self.tell(&asked, &courses);
            let ended = courses.iter().map(ended).max();
            Ok(ended.unwrap_or(Ended::Unknown))
        })
    }

    async fn asked(&self, desk: &Desk) -> anyhow::Result<Vec<Asked>> {
        let mut devices = Vec::new();
        for name in &self.devices {
            let device_id = named(&desk.store, name).await?;
            if !devices.contains(&device_id) {
                devices.push(device_id);
            }
        }
        let both = [Kind::SecurityInfo, Kind::Mda];
        let wish = Wish {
            kinds: self.kind.as_ref().map_or(&both[..], std::slice::from_ref),
            why: &self.why,
            who: &desk.who,
            now: desk.now,
        };
        match ask(&desk.store, &devices, &wish, desk.entropy.as_ref()).await? {
            Ok(asked) => Ok(asked),
            Err(device_id) => bail!(
                "{device_id} is not enrolled, so it cannot be asked; nothing was asked of the others. \
                 `attestd device show {device_id}` says how it stands"
            ),
        }
    }

    /// Follows all until they are over, or for as long as was said.
    async fn followed(&self, desk: &Desk, asked: &[Asked]) -> anyhow::Result<Vec<Course>> {
        let began = Instant::now();
        let bar = Bar::new("Asking", "Macs");
        loop {
            let mut courses = Vec::with_capacity(asked.len());
            for one in asked {
                courses.push(follow(&desk.store, &one.asked_id).await?);
            }
            let over = courses.iter().filter(|course| is_over(course)).count();
            bar.at(over as u64, courses.len() as u64);
            if over == courses.len() || began.elapsed() >= self.at_most.0 {
                return Ok(courses);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    fn tell_asked(&self, asked: &[Asked]) {
        let devices: Vec<_> = asked.iter().map(|one| &one.device_id).collect();
        let object = json!({ "asked": devices });
        let mut lines: Vec<_> = devices
            .iter()
            .map(|device_id| format!("{device_id} is asked by the next server that looks"))
            .collect();
        lines.push("`attestd device show` tells how far it is; --wait follows it.".to_owned());
        output::result(self.json, &object, &lines);
    }

    fn tell(&self, asked: &[Asked], courses: &[Course]) {
        if self.json {
            let of = |(one, course): (&Asked, &Course)| {
                json!({
                    "device_id": one.device_id,
                    "state": state(course),
                    "refused": refused(course),
                    "verification": attempt(course),
                })
            };
            let list: Vec<_> = asked.iter().zip(courses).map(of).collect();
            output::line(json!({ "devices": list }).to_string());
            return;
        }
        let mut table = Table::new();
        table.set_header(["device", "how far", "verdict", "why"]);
        for (one, course) in asked.iter().zip(courses) {
            let attempt = attempt(course);
            let reasons = attempt.map_or(&[][..], |attempt| &attempt.reasons);
            let why: Vec<_> = reasons
                .iter()
                .copied()
                .chain(refused(course))
                .map(|reason| format!("{}: {}", reason.code(), reason.owner_text()))
                .collect();
            table.add_row([
                one.device_id.to_string(),
                state(course),
                word(attempt.and_then(|attempt| attempt.outcome)),
                why.join("\n"),
            ]);
        }
        output::line(table.to_string());
        if courses
            .iter()
            .any(|course| matches!(course, Course::Waiting))
        {
            output::line("No server has looked yet: is one running on this database?");
        }
    }
}

fn is_over(course: &Course) -> bool {
    match course {
        Course::Waiting => false,
        Course::Refused(_) => true,
        Course::Asked(attempt) => attempt.finished_at.is_some(),
    }
}

fn ended(course: &Course) -> Ended {
    match attempt(course).and_then(|attempt| attempt.outcome) {
        Some(Verdict::Affirming | Verdict::Warning) => Ended::Well,
        Some(Verdict::Contraindicated) => Ended::Badly,
        Some(Verdict::Unknown) | None => Ended::Unknown,
    }
}

fn attempt(course: &Course) -> Option<&VerificationV1> {
    match course {
        Course::Asked(attempt) => Some(attempt),
        Course::Waiting | Course::Refused(_) => None,
    }
}

fn refused(course: &Course) -> Option<crate::reason::Reason> {
    match course {
        Course::Refused(reason) => Some(*reason),
        Course::Waiting | Course::Asked(_) => None,
    }
}

fn state(course: &Course) -> String {
    match course {
        Course::Waiting => "waits for a server".to_owned(),
        Course::Refused(_) => "refused".to_owned(),
        Course::Asked(attempt) => word(attempt.state),
    }
}

fn kinds() -> impl TypedValueParser<Value = Kind> {
    PossibleValuesParser::new([Kind::SecurityInfo.as_str(), Kind::Mda.as_str()])
        .try_map(|text| Kind::from_word(&text).ok_or("there is no such kind"))
}

fn span(text: &str) -> Result<Span, String> {
    Span::parse(text).map_err(|error| error.to_string())
}
