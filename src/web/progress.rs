//! `GET /enroll/{progress_id}`: how far an enrolment is, for its owner's eyes; with the claim that
//! `POST /enroll` made behind it, the profile can be fetched there too.

use std::net::SocketAddr;

use askama::Template;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::enroll::SURFACE;
use super::reply::{Frame, failed, not_found, page as reply, refused, too_often};
use super::words::{Action, Who, action, parts, standing, utc, words};
use crate::enrollment::profile::file_name;
use crate::enrollment::trace::{Standing, Step};
use crate::flows::follow_progress::follow_progress;
use crate::flows::offer_profile::{WINDOW, fetch_profile, may_fetch};
use crate::http::Public;
use crate::http::error::count;
use crate::mdm::PROFILE;
use crate::publication::progress_v1::{ProgressV1, StepV1};
use crate::reason::Reason;
use crate::time::Timestamp;

/// The deep link to the place where a downloaded profile waits (apple-protocol 1.6).
const DEVICE_MANAGEMENT: &str = "x-apple.systempreferences:com.apple.Profiles-Settings.extension";

#[derive(Template)]
#[template(path = "progress.html")]
struct ProgressPage<'a> {
    frame: Frame<'a>,
    progress_id: &'a str,
    /// Present while the profile can be fetched.
    claim: Option<&'a str>,
    /// It was fetched already, and can be once more.
    fetched: bool,
    view: View,
    expires_at: Timestamp,
    /// How long the profile can be fetched, minutes.
    window: u64,
    device_management: &'static str,
}

/// The progress in words.
#[derive(Debug)]
struct View {
    headline: String,
    ended: bool,
    tone: &'static str,
    steps: Vec<StepView>,
}

#[derive(Debug)]
struct StepView {
    step: &'static str,
    title: &'static str,
    tone: &'static str,
    standing: &'static str,
    at: Option<Timestamp>,
    code: Option<&'static str>,
    text: Option<&'static str>,
    who: Option<Who>,
    action: Option<Action>,
    is_current: bool,
}

impl View {
    fn of(progress: &ProgressV1) -> Self {
        let is_waited_for = |step: &StepV1| step.standing == Standing::Waiting;
        let current = match progress.ended {
            true => None,
            false => progress.steps.iter().position(is_waited_for),
        };
        let steps: Vec<_> = progress
            .steps
            .iter()
            .enumerate()
            .map(|(index, step)| StepView::of(step, Some(index) == current))
            .collect();
        let (tone, headline) = headline(progress, current);
        Self {
            headline,
            ended: progress.ended,
            tone,
            steps,
        }
    }
}

/// Where it stands, in one line. What was refused last stands in front of everything.
fn headline(progress: &ProgressV1, current: Option<usize>) -> (&'static str, String) {
    let is_refused = |step: &&StepV1| step.standing == Standing::Refused;
    if let Some(step) = progress.steps.iter().rfind(is_refused) {
        let text = match (step.step, step.reason) {
            (Step::Verdict, _) => "Finished: the verdict is against this Mac.".to_owned(),
            (_, Some(Reason::TicketExpired)) => "Ended: the profile was not installed.".to_owned(),
            (step, _) => format!("Needs attention: {}.", lower_first(words(step).title)),
        };
        return ("refused", text);
    }
    match current.and_then(|index| Some((index, progress.steps.get(index)?))) {
        Some((index, step)) => {
            let (number, of) = (index.saturating_add(1), progress.steps.len());
            let text = format!("Step {number} of {of}: {}.", words(step.step).now);
            ("waiting", text)
        }
        None => {
            let text = "Finished: the evidence is in, and it speaks for this Mac.";
            ("done", text.to_owned())
        }
    }
}

/// A title in the middle of a sentence; none begins with a name.
fn lower_first(title: &str) -> String {
    let mut letters = title.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => String::new(),
    }
}

impl StepView {
    fn of(step: &StepV1, is_current: bool) -> Self {
        let words = words(step.step);
        let (text, who) = match step.remedy {
            Some(remedy) => (Some(remedy), step.who.map(Who::from)),
            None if is_current => (Some(words.waiting), Some(words.who)),
            None => (None, None),
        };
        let tone = match (step.standing, is_current) {
            (Standing::Waiting, true) => "now",
            (standing, _) => standing.as_str(),
        };
        Self {
            step: step.step.as_str(),
            title: words.title,
            tone,
            standing: standing(step.step, step.standing, is_current),
            // A step that waits has not happened at any time.
            at: step.at.filter(|_| step.standing != Standing::Waiting),
            code: step.reason.map(Reason::code),
            text,
            who,
            action: action(step.step, step.standing, step.reason)
                .filter(|_| is_current || step.standing == Standing::Refused),
            is_current,
        }
    }
}

/// `GET /enroll/{progress_id}`.
pub async fn page(State(public): State<Public>, Path(progress_id): Path<String>) -> Response {
    show(&public, &progress_id, None).await
}

/// `GET /enroll/{progress_id}/{claim}`: a claim that is worth nothing (any more) only takes the
/// button away, because the steps are for whoever has the progress id.
pub async fn page_with_claim(
    State(public): State<Public>,
    Path((progress_id, claim)): Path<(String, String)>,
) -> Response {
    let claim = match may_fetch(&public.ctx, &progress_id, &claim).await {
        Ok(Ok(())) => Some(claim),
        Ok(Err(_)) => None,
        Err(failure) => return failed(&public, &failure),
    };
    show(&public, &progress_id, claim.as_deref()).await
}

async fn show(public: &Public, progress_id: &str, claim: Option<&str>) -> Response {
    let progress = match follow_progress(&public.ctx, progress_id).await {
        Ok(Some(progress)) => progress,
        Ok(None) => return not_found(public),
        Err(failure) => return failed(public, &failure),
    };
    let shown = ProgressPage {
        frame: Frame::of(public),
        progress_id,
        claim,
        fetched: progress
            .steps
            .iter()
            .any(|step| step.step == Step::Profile && step.standing == Standing::Done),
        view: View::of(&progress),
        expires_at: progress.expires_at,
        window: WINDOW.as_secs() / 60,
        device_management: DEVICE_MANAGEMENT,
    };
    reply(StatusCode::OK, &shown)
}

/// `GET /enroll/{progress_id}/{claim}/profile`. Each is signed anew, so they count like new ones.
pub async fn profile(
    State(public): State<Public>,
    peer: Option<axum::Extension<ConnectInfo<SocketAddr>>>,
    headers: HeaderMap,
    Path((progress_id, claim)): Path<(String, String)>,
) -> Response {
    if !public.enroll_limit.allows(peer.as_deref(), &headers) {
        return too_often(&public);
    }
    match fetch_profile(&public.ctx, &progress_id, &claim).await {
        Ok(Ok(delivered)) => {
            let name = file_name(delivered.ticket.serial.as_ref());
            let headers = [
                (header::CONTENT_TYPE, PROFILE.to_owned()),
                (
                    header::CONTENT_DISPOSITION,
                    format!("attachment; filename=\"{name}\""),
                ),
                (header::CACHE_CONTROL, "no-store".to_owned()),
            ];
            (headers, delivered.profile).into_response()
        }
        Ok(Err(reason)) => {
            count(&public.ctx, SURFACE, reason, "claim");
            refused(&public, reason)
        }
        Err(failure) => failed(&public, &failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrollment::Ticket;
    use crate::enrollment::ticket::Bounds;
    use crate::enrollment::trace::Entry;
    use crate::entropy::SeededEntropy;

    const NOW: i64 = 1_790_847_007;

    fn view(entries: &[Entry], late: bool) -> View {
        let now = Timestamp::from_seconds(NOW);
        let (ticket, _) = Ticket::issue(Bounds::default(), now, &SeededEntropy::new(1));
        let now = if late { ticket.expires_at } else { now };
        View::of(&ProgressV1::new(&ticket, entries, now))
    }

    fn done(steps: usize) -> Vec<Entry> {
        let now = Timestamp::from_seconds(NOW);
        let steps = Step::ALL.into_iter().take(steps);
        steps.map(|step| Entry::done(step, now)).collect()
    }

    #[test]
    fn whoever_acts_next_is_told_what_to_do() {
        let view = view(&done(1), false);
        assert!(
            view.headline.starts_with("Step 2 of 8: "),
            "{}",
            view.headline
        );
        let install = &view.steps[1];
        assert_eq!(
            (install.tone, install.who, install.action),
            ("now", Some(Who::You), Some(Action::OpenDeviceManagement))
        );
        assert!(
            install
                .text
                .is_some_and(|text| text.contains("Device Management"))
        );
        assert!(view.steps[2].text.is_none() && view.steps[0].at.is_some());
    }

    #[test]
    fn a_refusal_is_said_in_front_with_reason_and_remedy() {
        let mut entries = done(6);
        let now = Timestamp::from_seconds(NOW);
        entries.push(Entry::refused(
            Step::Attestation,
            Reason::AttestationUnavailable,
            now,
        ));
        let view = view(&entries, false);
        assert_eq!(view.headline, "Needs attention: attestation, from Apple.");
        let step = &view.steps[6];
        assert_eq!(step.code, Some("attestation_unavailable"));
        assert_eq!(step.who, Some(Who::You));
        assert_eq!(step.text, Some(Reason::AttestationUnavailable.owner_text()));
        assert!(!view.ended);
    }

    #[test]
    fn every_end_has_its_words() {
        let good = view(&done(8), false);
        assert_eq!((good.tone, good.ended), ("done", true));
        let mut entries = done(7);
        let now = Timestamp::from_seconds(NOW);
        entries.push(Entry::refused(Step::Verdict, Reason::SipDisabled, now));
        let bad = view(&entries, false);
        assert_eq!((bad.tone, bad.ended), ("refused", true));
        assert!(bad.headline.contains("verdict"), "{}", bad.headline);
        // Later, something may happen to what was good.
        let mut entries = done(8);
        entries[1] = Entry::refused(Step::Identity, Reason::IdentityExpired, now);
        let lapsed = view(&entries, false);
        assert_eq!(lapsed.headline, "Needs attention: certificate for the Mac.");
        assert_eq!(lapsed.steps[1].action, Some(Action::StartAgain));
        let late = view(&done(1), true);
        assert!(late.ended && late.headline.contains("not installed"));
        assert_eq!(late.steps[1].action, Some(Action::StartAgain));
    }
}
