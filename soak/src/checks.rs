//! What must be true whatever happens: one function for each rule, each told what was seen and what
//! the judge allows, and nothing else. They find faults; they do not explain them away.

use std::fmt;

use crate::judge::{APPLE_WINDOW, Allowed, Judge, Question, Verdict};
use crate::liveness::AllowedSession;
use crate::time::{HOUR, MINUTE, Ms, told};

/// Pushes to one Mac within an hour at most (DESIGN 2, issue 4: two an hour by default).
pub const PUSHES_AN_HOUR: usize = 2;
/// SecurityInfo of a Mac that can be reached is never older than this: `ask_again` and `spread` of
/// strict.toml, and the time for a push that is lost, the pause after it, and one more.
pub const OLDEST_REPORT: Ms = 48 * MINUTE + 24 * MINUTE + 2 * HOUR;

/// What the server says of a Mac.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    pub verdict: Verdict,
    pub until: Option<Ms>,
    pub revision: u64,
}

/// What the server says of a provider session.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PublishedSession {
    pub routable: bool,
    pub level: &'static str,
    pub bound: &'static str,
    pub until: Option<Ms>,
    pub reasons: Vec<&'static str>,
}

/// A rule was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub rule: &'static str,
    pub mac: usize,
    pub at: Ms,
    pub detail: String,
}

/// Where and when something is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    pub mac: usize,
    pub at: Ms,
}

impl Place {
    fn fault(self, rule: &'static str, detail: String) -> Option<Fault> {
        Some(Fault {
            rule,
            mac: self.mac,
            at: self.at,
            detail,
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: Mac {} at {}: {}",
            self.rule,
            self.mac,
            told(self.at),
            self.detail
        )
    }
}

/// DESIGN 2, trust, "unknown is not bad and not good", "a definite negative demotes at once": the
/// published verdict is what an all-knowing judge allows, no more and no less.
pub fn verdict_is_what_is_allowed(
    place: Place,
    seen: Published,
    allowed: Allowed,
) -> Option<Fault> {
    if seen.verdict == allowed.verdict {
        return None;
    }
    let (seen, allowed) = (seen.verdict.word(), allowed.verdict.word());
    place.fault(
        "verdict",
        format!("published {seen}, and {allowed} is allowed"),
    )
}

/// DESIGN 2, "evidence ages by itself": nothing good is said for longer than the evidence lasts.
pub fn nothing_is_trusted_longer_than_its_evidence(
    place: Place,
    seen: Published,
    allowed: Allowed,
) -> Option<Fault> {
    let told_until = |until: Option<Ms>| until.map_or_else(|| "never".to_owned(), told);
    let good = seen.verdict.is_good();
    let within = match (seen.until, allowed.until) {
        (Some(seen), Some(allowed)) => seen <= allowed && place.at < seen,
        (None, _) => !good,
        (Some(_), None) => false,
    };
    if within {
        return None;
    }
    place.fault(
        "usable_until",
        format!(
            "published {} until {}, and the evidence lasts until {}",
            seen.verdict.word(),
            told_until(seen.until),
            told_until(allowed.until)
        ),
    )
}

/// DESIGN 6, `posture` (current, with revision): it never goes back.
pub fn revision_never_goes_back(place: Place, before: u64, seen: Published) -> Option<Fault> {
    if seen.revision >= before {
        return None;
    }
    place.fault("revision", format!("{before}, then {}", seen.revision))
}

/// DESIGN 2, definite negatives: after one on SIP, Secure Boot or kernel extensions, trust comes back
/// only with a chain whose nonce was minted afterwards.
pub fn trust_came_back_by_newer_evidence(
    place: Place,
    seen: Published,
    judge: &Judge,
) -> Option<Fault> {
    let (Some(negative_at), true) = (judge.negative_at(), seen.verdict.is_good()) else {
        return None;
    };
    match judge.chain() {
        Some(chain) if chain.minted_at >= negative_at => None,
        chain => place.fault(
            "newer_evidence",
            format!(
                "good again after a negative of {}, by a chain of {}",
                told(negative_at),
                chain.map_or_else(|| "no time".to_owned(), |chain| told(chain.minted_at))
            ),
        ),
    }
}

/// DESIGN 2, trust: level, grade of the key, and whether requests may be routed are what an all-knowing
/// judge allows, no more and no less; and whatever stands in the way is named.
pub fn a_session_is_what_is_allowed(
    place: Place,
    seen: &PublishedSession,
    allowed: &AllowedSession,
) -> Option<Fault> {
    let (level, bound) = (allowed.level.word(), allowed.bound.word());
    let differs = |what: &str, seen: &dyn fmt::Debug, allowed: &dyn fmt::Debug| {
        place.fault(
            "session",
            format!("{what} {seen:?}, and {allowed:?} is allowed"),
        )
    };
    if seen.level != level {
        return differs("level", &seen.level, &level);
    }
    if seen.bound != bound {
        return differs("se_key_bound", &seen.bound, &bound);
    }
    if seen.routable != allowed.routable_until.is_some() {
        return differs("routable", &seen.routable, &allowed);
    }
    if seen.until != allowed.routable_until {
        return differs("routable_until", &seen.until, &allowed.routable_until);
    }
    let unnamed = |cause: &&&[&'static str]| !cause.iter().any(|word| seen.reasons.contains(word));
    if let Some(unnamed) = allowed.causes.iter().find(unnamed) {
        return differs("reasons", &seen.reasons, unnamed);
    }
    if seen.routable && seen.level == "hardware" && !seen.reasons.is_empty() {
        return differs("reasons", &seen.reasons, &"none");
    }
    None
}

/// Issue 4 point 1: the push budget, in any rolling hour. `pushes` are those APNs took for this Mac,
/// oldest first, the one just taken last. A new address may be pushed to once more, because what
/// went to the former one may be lost.
pub fn pushes_stay_within_the_budget(
    place: Place,
    pushes: &[Ms],
    readdressed_at: Option<Ms>,
) -> Option<Fault> {
    let newest = *pushes.last()?;
    let within = pushes.iter().filter(|at| newest - **at < HOUR).count();
    let extra = readdressed_at.is_some_and(|at| newest - at < HOUR);
    if within <= PUSHES_AN_HOUR + usize::from(extra) {
        return None;
    }
    place.fault("push_budget", format!("{within} pushes in one hour"))
}

/// Issue 4 point 2, "nothing asks Apple more than it can answer": no attestation is asked for within
/// seven days of one that Apple made anew.
pub fn apple_is_not_asked_in_vain(
    place: Place,
    question: Question,
    fresh_at: Option<Ms>,
) -> Option<Fault> {
    let (Question::Chain, Some(fresh_at)) = (question, fresh_at) else {
        return None;
    };
    if place.at - fresh_at >= APPLE_WINDOW {
        return None;
    }
    place.fault(
        "apple_window",
        format!(
            "an attestation was asked for, the last was minted {}",
            told(fresh_at)
        ),
    )
}

/// The fleet does not go dark: a Mac that could be reached all the while has young evidence.
pub fn a_reachable_mac_is_kept_proved(
    place: Place,
    reachable_since: Option<Ms>,
    heard_at: Option<Ms>,
) -> Option<Fault> {
    let since = reachable_since?;
    let known_at = heard_at.map_or(since, |at| at.max(since));
    let age = place.at - known_at;
    if age <= OLDEST_REPORT {
        return None;
    }
    place.fault(
        "dark",
        format!(
            "reachable, and no SecurityInfo for {} minutes",
            age / MINUTE
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::State;
    use crate::time::{DAY, START};

    const GOOD: State = State {
        secure: true,
        filevault: true,
    };
    const SIP_OFF: State = State {
        secure: false,
        filevault: true,
    };

    fn place(at: Ms) -> Place {
        Place { mac: 3, at }
    }

    fn seen(verdict: Verdict, until: Option<Ms>) -> Published {
        Published {
            verdict,
            until,
            revision: 7,
        }
    }

    /// A Mac that enrolled with a statement of Apple's and was asked for SecurityInfo at once.
    fn proved() -> Judge {
        let mut judge = Judge::default();
        judge.begins(START + 400 * DAY, None);
        judge.stated(START, true, START + 90 * DAY, START);
        judge.joined();
        judge.handed_over(Question::Report, "one", None, START);
        assert!(judge.reported("one", GOOD, START));
        judge
    }

    #[test]
    fn a_false_verdict_is_caught_whichever_way_it_is_false() {
        let mut judge = proved();
        let good = seen(Verdict::Affirming, Some(START + DAY));
        assert_eq!(
            verdict_is_what_is_allowed(place(START), good, judge.allows(START)),
            None
        );
        // One millisecond too long.
        let late = place(START + DAY);
        assert!(verdict_is_what_is_allowed(late, good, judge.allows(late.at)).is_some());
        // Too careful is false as well.
        let careful = seen(Verdict::Unknown, None);
        assert!(verdict_is_what_is_allowed(place(START), careful, judge.allows(START)).is_some());
        // A negative that was delivered and had no effect.
        judge.handed_over(Question::Report, "two", None, START + HOUR);
        assert!(judge.reported("two", SIP_OFF, START + HOUR));
        let allowed = judge.allows(START + HOUR);
        assert_eq!(allowed.verdict, Verdict::Contraindicated);
        assert!(verdict_is_what_is_allowed(place(START + HOUR), good, allowed).is_some());
    }

    #[test]
    fn an_end_that_is_too_late_is_caught() {
        let judge = proved();
        let allowed = judge.allows(START);
        for (until, fine) in [
            (Some(START + DAY), true),
            (Some(START + DAY - 1), true),
            (Some(START + DAY + 1), false),
            (Some(START), false),
            (None, false),
        ] {
            let published = seen(Verdict::Affirming, until);
            let fault =
                nothing_is_trusted_longer_than_its_evidence(place(START), published, allowed);
            assert_eq!(fault.is_none(), fine, "{until:?}");
        }
        let unknown = seen(Verdict::Unknown, None);
        let at = place(START + DAY);
        let fault = nothing_is_trusted_longer_than_its_evidence(at, unknown, judge.allows(at.at));
        assert_eq!(fault, None);
    }

    #[test]
    fn a_push_too_many_is_caught_and_a_new_address_excuses_one() {
        let at = place(START + HOUR);
        let three = [START + 1, START + 20 * MINUTE, START + HOUR];
        assert!(pushes_stay_within_the_budget(at, &three, None).is_some());
        assert_eq!(
            pushes_stay_within_the_budget(at, &three, Some(START + 30 * MINUTE)),
            None
        );
        let four = [START + 1, START + 2, START + 3, START + HOUR];
        assert!(pushes_stay_within_the_budget(at, &four, Some(START + 3)).is_some());
        // An hour later the first is forgotten.
        let rolled = [START, START + 20 * MINUTE, START + HOUR];
        assert_eq!(pushes_stay_within_the_budget(at, &rolled, None), None);
    }

    #[test]
    fn a_revision_that_goes_back_is_caught() {
        let published = seen(Verdict::Unknown, None);
        assert_eq!(revision_never_goes_back(place(START), 7, published), None);
        assert!(revision_never_goes_back(place(START), 8, published).is_some());
    }

    #[test]
    fn an_attestation_asked_for_too_early_is_caught() {
        let ask = |at, question| apple_is_not_asked_in_vain(place(at), question, Some(START));
        assert!(ask(START + 7 * DAY - 1, Question::Chain).is_some());
        assert_eq!(ask(START + 7 * DAY, Question::Chain), None);
        assert_eq!(ask(START + 1, Question::Report), None);
    }

    #[test]
    fn trust_that_comes_back_by_an_old_chain_is_caught() {
        let mut judge = proved();
        let (off, on) = (START + HOUR, START + 2 * HOUR);
        judge.handed_over(Question::Report, "two", None, off);
        assert!(judge.reported("two", SIP_OFF, off));
        judge.handed_over(Question::Report, "three", None, on);
        assert!(judge.reported("three", GOOD, on));
        assert_eq!(judge.allows(on).verdict, Verdict::Unknown);
        let good = seen(Verdict::Affirming, Some(on + DAY));
        assert!(trust_came_back_by_newer_evidence(place(on), good, &judge).is_some());
        // Apple's cache does not help; a nonce that was minted afterwards does.
        judge.handed_over(Question::Chain, "four", Some(b"new"), on);
        assert!(judge.attested("four", b"new", true, on + 90 * DAY, on));
        assert_eq!(
            trust_came_back_by_newer_evidence(place(on), good, &judge),
            None
        );
        assert_eq!(judge.allows(on).verdict, Verdict::Affirming);
    }

    #[test]
    fn a_mac_that_is_forgotten_is_caught() {
        let at = place(START + DAY);
        let since = Some(at.at - OLDEST_REPORT - 1);
        assert!(a_reachable_mac_is_kept_proved(at, since, None).is_some());
        assert!(a_reachable_mac_is_kept_proved(at, since, Some(START)).is_some());
        assert_eq!(
            a_reachable_mac_is_kept_proved(at, since, Some(at.at - HOUR)),
            None
        );
        assert_eq!(a_reachable_mac_is_kept_proved(at, None, Some(START)), None);
    }

    #[test]
    fn an_answer_nobody_waits_for_changes_nothing() {
        let mut judge = proved();
        let before = judge.allows(START + HOUR);
        assert!(!judge.reported("one", SIP_OFF, START + 1), "a second time");
        judge.handed_over(Question::Report, "two", None, START);
        judge.handed_over(Question::Report, "three", None, START);
        assert!(!judge.reported("two", SIP_OFF, START + 1), "replaced");
        assert!(
            !judge.reported("three", SIP_OFF, START + 30 * MINUTE + 1),
            "too late"
        );
        assert_eq!(judge.allows(START + HOUR), before);
    }
}
