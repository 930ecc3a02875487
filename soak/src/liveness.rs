//! The all-knowing judge of one provider session: what its software really said, when that really
//! arrived, and whether requests may be routed to it.
//!
//! Written from the rules (DESIGN 2, `[challenge]` and `[routing]` of `strict.toml`), like the judge of
//! the Mac, which it asks for the device plane. It shares nothing with the server.

use crate::judge::{Allowed, Grade, Judge, Key};
use crate::time::{MINUTE, Ms, SECOND};

/// A good answer counts this long.
const ANSWER_USABLE: Ms = 6 * MINUTE;
/// A challenge can be answered this long.
pub const ANSWER_WITHIN: Ms = 30 * SECOND;
/// So many challenges unanswered in a row end what the last good answer gave.
const TIME_OUTS: u32 = 3;

/// What came of a challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Signed by the session's key, and nothing bad in it.
    Good,
    /// Signed by the session's key: SIP or Secure Boot is off.
    Admitted,
    /// By another key.
    Forged,
    /// Too late, or never.
    Missed,
}

/// A level of trust.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    None,
    SelfSigned,
    Hardware,
}

/// What may be said of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedSession {
    pub level: Level,
    pub bound: Grade,
    /// Until when requests may be routed to it; not at all without.
    pub routable_until: Option<Ms>,
    /// Reasons that must be named, each by one of these words.
    pub causes: Vec<&'static [&'static str]>,
}

/// The whole story of one session.
#[derive(Debug, Clone, Default)]
pub struct Session {
    live: bool,
    key: Key,
    /// Its blob says that SIP or Secure Boot is off.
    blob_bad: bool,
    /// Its program is a registered release.
    released: bool,
    last_good: Option<Ms>,
    time_outs: u32,
    /// A challenge is out: when it was issued.
    asked_at: Option<Ms>,
    /// When the newest challenge was issued that counted.
    counted: Option<Ms>,
    /// The last answer was by another key.
    forged: bool,
    admitted_at: Option<Ms>,
}

impl Session {
    /// A process registered itself.
    pub fn begins(key: Key, blob_bad: bool, released: bool) -> Self {
        Self {
            live: true,
            key,
            blob_bad,
            released,
            ..Self::default()
        }
    }

    /// The coordinator says that it is gone.
    pub fn ends(&mut self) {
        self.live = false;
    }

    /// The same process is back soon enough.
    pub fn resumes(&mut self) {
        self.live = true;
    }

    /// A challenge of the server's is out.
    pub fn asked(&mut self, now: Ms) {
        self.settle(now);
        self.asked_at = Some(now);
    }

    /// An answer to it arrived. False when it was too late to be one.
    pub fn answered(&mut self, outcome: Outcome, now: Ms) -> bool {
        self.settle(now);
        let Some(asked_at) = self.asked_at.take() else {
            return false;
        };
        self.count(outcome, asked_at, now);
        true
    }

    /// The coordinator handed over what came of a challenge of its own.
    pub fn handed_over(&mut self, outcome: Outcome, issued_at: Ms, now: Ms) {
        self.settle(now);
        if self.counted.is_none_or(|counted| counted < issued_at) {
            self.count(outcome, issued_at, now);
        }
    }

    fn count(&mut self, outcome: Outcome, issued_at: Ms, now: Ms) {
        self.counted = self.counted.max(Some(issued_at));
        if outcome == Outcome::Missed {
            self.time_outs += 1;
            return;
        }
        self.time_outs = 0;
        self.forged = outcome == Outcome::Forged;
        self.last_good = (outcome == Outcome::Good).then_some(now);
        if outcome == Outcome::Admitted {
            self.admitted_at = Some(now);
        }
    }

    fn settle(&mut self, now: Ms) {
        if self.has_missed(now) {
            self.asked_at = None;
            self.time_outs += 1;
        }
    }

    fn has_missed(&self, now: Ms) -> bool {
        self.asked_at.is_some_and(|at| now - at > ANSWER_WITHIN)
    }

    /// Challenges unanswered in a row.
    pub fn time_outs(&self, now: Ms) -> u32 {
        self.time_outs + u32::from(self.has_missed(now))
    }

    /// Whether it has given up answering.
    pub fn is_silent(&self, now: Ms) -> bool {
        self.time_outs(now) >= TIME_OUTS
    }

    /// What its software admitted, unless Apple and the software have said otherwise since.
    fn admitted(&self, mac: &Judge) -> bool {
        let stated_at = mac.good_chain_minted_at();
        self.admitted_at.is_some_and(|at| {
            !(stated_at.is_some_and(|stated| stated > at)
                && self.last_good.is_some_and(|good| good > at))
        })
    }

    fn answered_for(&self, mac: &Judge, now: Ms) -> Option<Ms> {
        if self.admitted(mac) || self.is_silent(now) {
            return None;
        }
        let mut until = self.last_good? + ANSWER_USABLE;
        if let Some(asked_at) = self.asked_at
            && self.time_outs + 1 >= TIME_OUTS
        {
            until = until.min(asked_at + ANSWER_WITHIN + 1);
        }
        (now < until).then_some(until)
    }

    /// What may be said of it at this moment, on a Mac whose own key is attested or is not.
    pub fn allows(&self, mac: &Judge, attested: bool, now: Ms) -> AllowedSession {
        let mut allowed = AllowedSession {
            level: Level::None,
            bound: Grade::None,
            routable_until: None,
            causes: Vec::new(),
        };
        if !self.live {
            allowed.causes.push(&["provider_not_bound"]);
            return allowed;
        }
        let answered_for = self.answered_for(mac, now);
        if answered_for.is_none() {
            allowed.causes.push(if self.admitted(mac) {
                &["sip_disabled"]
            } else if self.forged {
                &["signature_invalid"]
            } else {
                &["challenge_stale"]
            });
        }
        if !self.released {
            allowed.causes.push(&["release_unknown"]);
        }
        if self.blob_bad {
            allowed.causes.push(&["sip_disabled"]);
            return allowed;
        }
        let Allowed { verdict, until } = mac.allows(now);
        let (grade, named_until) = mac.grade(self.key, now);
        allowed.bound = grade;
        match grade {
            Grade::Bound => {}
            Grade::None => allowed.causes.push(&["binding_unproved"]),
            Grade::Pending | Grade::Stale => {
                allowed.causes.push(&["apple_rate_limit", "awaiting_push"]);
            }
        }
        if !attested {
            allowed.causes.push(&["channel_not_attested"]);
        }
        let stands = attested && grade == Grade::Bound && verdict.is_good();
        allowed.level = if stands {
            Level::Hardware
        } else {
            Level::SelfSigned
        };
        if stands && self.released {
            let ends = [answered_for, until, named_until];
            let first = ends.into_iter().flatten().min();
            allowed.routable_until = first.filter(|_| answered_for.is_some());
        }
        allowed
    }
}

impl Level {
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::SelfSigned => "self_signed",
            Self::Hardware => "hardware",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::{Question, State};
    use crate::time::{DAY, HOUR, START};

    const GOOD: State = State {
        secure: true,
        filevault: true,
    };

    /// A Mac that is proved, with its key named on the day it enrolled.
    fn mac() -> Judge {
        let mut judge = Judge::default();
        judge.begins(START + 400 * DAY, Some(0));
        judge.stated(START, true, START + 90 * DAY, START);
        judge.joined();
        judge.handed_over(Question::Report, "one", None, START);
        assert!(judge.reported("one", GOOD, START));
        judge
    }

    fn answered(outcome: Outcome, now: Ms) -> Session {
        let mut session = Session::begins(0, false, true);
        session.asked(now);
        assert!(session.answered(outcome, now));
        session
    }

    fn until(session: &Session, mac: &Judge, now: Ms) -> Option<Ms> {
        session.allows(mac, true, now).routable_until
    }

    #[test]
    fn a_good_answer_counts_for_six_minutes_and_not_without_the_rest() {
        let (mac, session) = (mac(), answered(Outcome::Good, START));
        assert_eq!(until(&session, &mac, START), Some(START + 6 * MINUTE));
        assert_eq!(until(&session, &mac, START + 6 * MINUTE), None);
        assert_eq!(session.allows(&mac, false, START).routable_until, None);
        let mut unknown = Session::begins(0, false, false);
        unknown.asked(START);
        unknown.answered(Outcome::Good, START);
        assert_eq!(until(&unknown, &mac, START), None);
        // The device plane ends first.
        let late = START + DAY - MINUTE;
        assert_eq!(
            until(&answered(Outcome::Good, late), &mac, late),
            Some(START + DAY)
        );
    }

    #[test]
    fn the_third_time_out_ends_it_and_two_do_not() {
        let (mac, mut session) = (mac(), answered(Outcome::Good, START));
        for asked in 1..=3 {
            let now = START + asked * 40 * SECOND;
            assert!(until(&session, &mac, now).is_some());
            session.asked(now);
        }
        let third = START + 2 * MINUTE;
        let end = third + ANSWER_WITHIN + 1;
        assert_eq!(until(&session, &mac, third), Some(end));
        assert_eq!(until(&session, &mac, end), None);
        assert!(!session.answered(Outcome::Good, end), "too late");
        session.asked(end);
        assert!(session.answered(Outcome::Good, end));
        assert!(until(&session, &mac, end).is_some());
    }

    #[test]
    fn what_was_admitted_needs_apple_and_the_software_to_be_taken_back() {
        let (mut mac, mut session) = (mac(), answered(Outcome::Admitted, START + 1));
        mac.told_bad(START + 1);
        let good = |session: &mut Session, now| {
            session.asked(now);
            session.answered(Outcome::Good, now);
        };
        good(&mut session, START + 2);
        assert_eq!(until(&session, &mac, START + 2), None);
        mac.handed_over(Question::Chain, "two", Some(b"new"), START + HOUR);
        assert!(mac.attested("two", b"new", true, START + 90 * DAY, START + HOUR));
        mac.handed_over(Question::Report, "three", None, START + HOUR);
        assert!(mac.reported("three", GOOD, START + HOUR));
        assert_eq!(
            until(&session, &mac, START + HOUR),
            None,
            "the answer is too old"
        );
        good(&mut session, START + HOUR);
        assert!(until(&session, &mac, START + HOUR).is_some());
    }

    #[test]
    fn a_new_key_waits_for_a_statement_that_names_it() {
        let mut mac = mac();
        mac.proves(1);
        let mut session = Session::begins(1, false, true);
        session.asked(START);
        session.answered(Outcome::Good, START);
        let allowed = session.allows(&mac, true, START);
        assert_eq!(
            (allowed.level, allowed.bound),
            (Level::SelfSigned, Grade::Pending)
        );
        let now = START + MINUTE;
        mac.handed_over(Question::Chain, "two", Some(b"new"), now);
        assert!(mac.attested("two", b"new", true, START + 90 * DAY, now));
        let allowed = session.allows(&mac, true, now);
        assert_eq!(
            (allowed.level, allowed.bound),
            (Level::Hardware, Grade::Bound)
        );
        assert_eq!(mac.grade(0, now).0, Grade::Pending, "the former key");
        assert_eq!(mac.grade(2, now).0, Grade::None, "a key of nobody's");
    }
}
