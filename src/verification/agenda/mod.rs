//! What is next for one Mac, and when.
//!
//! Each kind of evidence has a [`clock`] of its own, pushes have a [`budget`] of their own, and the
//! open attempt is known as far as waking the Mac for it needs. All of it follows from what is stored
//! about the Mac; whoever stores that lets the agenda follow in the same step (`store::agendas`).
//!
//! Nothing here is random: jitter is computed from the Mac and the round, so that a fleet spreads
//! evenly and a run can be repeated.

pub mod budget;
pub mod clock;
#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use self::budget::Pushes;
pub use self::budget::{Hold, Unreached};
use self::clock::Clock;
pub use self::clock::{How, Wish};
use super::{Command, CommandState, Kind, Part, Priority, Progress, Verification};
use crate::ids::{DeviceId, VerificationId};
use crate::posture::policy::{Lifetime, Policy};
use crate::posture::{Attested, Occasion, Posture};
use crate::reason::Reason;
use crate::time::{Span, Timestamp};

/// A reading that says that the Mac is not as it should be is confirmed once, after this long
/// (coordinator-and-standards C.3: one confirm query, no loop).
const CONFIRM_AFTER: Duration = Duration::from_secs(2 * 60);

/// By what an agenda is kept: from the policy and the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    pub security_info: Lifetime,
    pub mda: Lifetime,
    /// How often one Mac is woken within any hour.
    pub pushes_per_hour: u32,
    /// How long a Mac may take to answer.
    pub patience: Duration,
}

/// Why something is asked for earlier than its age calls for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The Mac runs another version of its system.
    SystemChanged,
    /// The Mac, or the provider's software on it, started anew.
    Restarted,
    /// The provider has another Secure Enclave key: only a new statement of Apple's can name it.
    KeyChanged,
    /// A reading said that the Mac is not as it should be.
    Confirm,
    /// Somebody asked.
    Asked(Priority),
}

/// What the open attempt needs of the agenda.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Open {
    verification_id: VerificationId,
    priority: Priority,
    /// When the next of its parts is over.
    deadline: Timestamp,
    /// When a part is, or will be, owed.
    #[serde(skip_serializing_if = "Option::is_none")]
    owes_from: Option<Timestamp>,
    /// A push asked for everything that is owed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    woken: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    said_not_now: bool,
}

/// What is next for one Mac.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agenda {
    pub device_id: DeviceId,
    /// The Mac is enrolled now, and trust in it was not withdrawn.
    enrolled: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    revoked: bool,
    /// When the present enrollment began.
    since: Timestamp,
    #[serde(default)]
    security_info: Clock,
    #[serde(default)]
    mda: Clock,
    #[serde(default)]
    pushes: Pushes,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    open: Option<Open>,
    /// A question is out since then, in a session that may still be under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    talking_since: Option<Timestamp>,
    /// A negative reading was asked to be confirmed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    confirming: bool,
}

/// When something must be done about a Mac, and what a message of its own would meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Next {
    /// `None`: nothing will ever be, unless something else happens first.
    pub due_at: Option<Timestamp>,
    pub priority: Priority,
    /// From here on the Mac is asked something if it connects.
    pub owes_from: Option<Timestamp>,
}

/// What is to be done about a Mac now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Nothing,
    /// Parts of the open attempt are over.
    Expire,
    /// These kinds are asked for, and the Mac is woken.
    Ask(Vec<Kind>, Priority),
    /// The Mac is woken (again).
    Wake(Priority),
}

impl Rules {
    /// What a policy and the settings come to.
    pub fn new(policy: &Policy, pushes_per_hour: u32, patience: Duration) -> Self {
        Self {
            security_info: policy.rules.security_info.clone(),
            mda: policy.rules.attestation.clone(),
            pushes_per_hour,
            patience,
        }
    }

    /// Those of the policy that ships as the default, and of the settings' defaults: for whoever was
    /// told no others.
    pub fn usual() -> Self {
        let minutes = |minutes: u64| Span(Duration::from_secs(minutes * 60));
        let days = |days: u64| minutes(days * 24 * 60);
        Self {
            security_info: Lifetime {
                fresh_for: minutes(120),
                usable_for: days(1),
                ask_again: minutes(48),
                spread: minutes(24),
            },
            mda: Lifetime {
                fresh_for: days(7),
                usable_for: days(14),
                ask_again: days(7),
                spread: minutes(12 * 60),
            },
            pushes_per_hour: 2,
            patience: Duration::from_secs(60 * 60),
        }
    }

    fn lifetime(&self, kind: Kind) -> &Lifetime {
        match kind {
            Kind::SecurityInfo => &self.security_info,
            Kind::Mda => &self.mda,
        }
    }
}

impl Cause {
    fn priority(self) -> Priority {
        match self {
            Self::Asked(priority) => priority,
            // What was proved before may not be true any more.
            _ => Priority::Expired,
        }
    }
}

impl Open {
    fn of(verification: &Verification) -> Self {
        let owed = || {
            verification
                .parts
                .iter()
                .filter(|part| part.progress.is_owed() && !part.is_put_off())
        };
        Self {
            verification_id: verification.verification_id.clone(),
            priority: verification.priority,
            deadline: owed()
                .filter_map(|part| part.deadline)
                .min()
                .unwrap_or(verification.deadline),
            owes_from: owed()
                .map(|part| part.not_before.unwrap_or(verification.created_at))
                .min(),
            woken: owed()
                .filter(|part| part.not_before.is_none())
                .all(|part| part.pushed_at.is_some()),
            said_not_now: owed().any(|part| part.progress == Progress::NotNow),
        }
    }
}

impl Agenda {
    /// Of a Mac nobody has heard of yet.
    pub fn new(device_id: DeviceId, since: Timestamp) -> Self {
        Self {
            device_id,
            enrolled: false,
            revoked: false,
            since,
            security_info: Clock::default(),
            mda: Clock::default(),
            pushes: Pushes::default(),
            open: None,
            talking_since: None,
            confirming: false,
        }
    }

    // --- what is stored about the Mac, and followed ------------------------------------------

    /// How the Mac stands to this service. A new enrollment begins anew: its Mac has removed the
    /// former profile, and with it Apple's cache (apple-protocol 5.3). Its pushes still count.
    pub fn stands(&mut self, enrolled: bool, since: Timestamp) {
        self.enrolled = enrolled;
        if since != self.since || !enrolled {
            *self = Self {
                enrolled,
                revoked: self.revoked,
                pushes: std::mem::take(&mut self.pushes),
                open: self.open.take(),
                ..Self::new(self.device_id.clone(), since)
            };
            // Attempts are given up with the former enrollment, in the same step.
        }
    }

    /// What is believed of the Mac.
    pub fn believes(&mut self, posture: &Posture) {
        self.revoked = posture
            .held
            .iter()
            .any(|held| held.reason == Reason::Revoked);
        let voided = |at: Timestamp| posture.void_before.is_some_and(|void| at < void);
        match &posture.reported {
            None => self.security_info.forget(false),
            Some(reading) => {
                let negative = reading.facts.contradicts_full_security();
                if voided(reading.asked_at) && !negative {
                    self.security_info.forget(true);
                } else {
                    let news = self.security_info.known_at != Some(reading.observed_at);
                    self.security_info.know(reading.observed_at, None);
                    if negative && news && !self.confirming {
                        self.confirming = true;
                        let from = reading.observed_at.plus(CONFIRM_AFTER);
                        self.security_info.want(Cause::Confirm, from);
                    }
                    self.confirming &= negative;
                }
            }
        }
        match &posture.attested {
            None => self.mda.forget(false),
            Some(reading) => self.believes_statement(reading, &voided),
        }
    }

    fn believes_statement(&mut self, reading: &Attested, voided: &impl Fn(Timestamp) -> bool) {
        let Some(minted_at) = reading.freshness.minted_at() else {
            self.mda.forget(false);
            return;
        };
        // A statement about the identity's key is another cache entry than one about the Mac, and
        // one of before this enrollment is out of Apple's cache.
        if reading.occasion == Occasion::Mda && minted_at >= self.since {
            self.mda.eligible_at = self.mda.eligible_at.max(reading.renewable_from());
        }
        if voided(minted_at) && !reading.facts.contradicts_full_security() {
            self.mda.forget(true);
        } else if reading.occasion == Occasion::Acme {
            // It counts, but the Mac has not been asked under this enrollment.
            self.mda.forget(false);
        } else {
            self.mda.know(minted_at, Some(reading.not_after));
        }
    }

    /// How an attempt stands. After [`Agenda::believes`] where both changed in one step.
    pub fn attempts(&mut self, verification: &Verification) {
        let is_open = self
            .open
            .as_ref()
            .is_some_and(|open| open.verification_id == verification.verification_id);
        if verification.is_finished() && !is_open {
            return;
        }
        for part in &verification.parts {
            let advanced = self.advanced_by(part);
            self.clock_mut(part.kind).follow(part, advanced);
        }
        self.open = (!verification.is_finished()).then(|| Open::of(verification));
    }

    /// A question was handed over, or answered.
    pub fn talks(&mut self, command: &Command) {
        self.pushes.came();
        self.talking_since =
            (command.state == CommandState::Outstanding).then_some(command.handed_over_at);
    }

    /// Whether evidence that counts came with what ended this part. Guards against asking again and
    /// again for what does not help.
    fn advanced_by(&self, part: &Part) -> bool {
        let Some(ended_at) = part.ended_at else {
            return false;
        };
        match part.kind {
            Kind::SecurityInfo => self.security_info.known_at >= Some(ended_at),
            Kind::Mda => self.mda.known_at.is_some() && self.mda.eligible_at > Some(ended_at),
        }
    }

    // --- what is done ------------------------------------------------------------------------

    /// Something calls for an earlier question. Apple's seven days stand all the same.
    pub fn bring_forward(&mut self, kinds: &[Kind], cause: Cause, now: Timestamp) {
        for kind in kinds {
            self.clock_mut(*kind).want(cause, now);
        }
    }

    /// Nobody served the Mac for a while, and what it said then was not heard: if it was silent before, it
    /// is asked again soon, never later than it would have been. True if that changed anything.
    pub fn was_unheard(&mut self, rules: &Rules, now: Timestamp) -> bool {
        let mut changed = false;
        for kind in [Kind::SecurityInfo, Kind::Mda] {
            let clock = self.clock(kind);
            let Some(other) = clock.without_silence(now) else {
                continue;
            };
            let ask_at = |clock: &Clock| {
                let wish = clock.wish(kind, &self.device_id, rules.lifetime(kind), self.since);
                wish.ask_at
            };
            if ask_at(&other) < ask_at(clock) {
                *self.clock_mut(kind) = other;
                changed = true;
            }
        }
        changed
    }

    /// Apple has just made a statement, whatever it is worth: before then it makes no other.
    pub fn attested_until(&mut self, renewable_from: Timestamp) {
        self.mda.eligible_at = self.mda.eligible_at.max(Some(renewable_from));
    }

    /// What is known of this kind is taken for true until then, so nobody is woken for it before.
    pub fn stays_true(&mut self, kind: Kind, until: Timestamp) {
        self.clock_mut(kind).stays_true(until);
    }

    /// A contender took the Mac's place: whoever is woken from now on is the one that was woken there.
    pub fn take_over(&mut self, contender: &Self) {
        self.pushes = contender.pushes.clone();
        self.talking_since = None;
    }

    /// There is no open attempt, whatever was followed.
    pub fn forget_attempt(&mut self) {
        self.open = None;
        self.security_info.asking = false;
        self.mda.asking = false;
    }

    /// The Mac has a new push address.
    pub fn readdressed(&mut self, now: Timestamp) {
        self.pushes.readdressed(now);
        // A session may be under way still, and is as lost as a push may be.
        self.talking_since = None;
    }

    /// Takes a push out of the budget, if the Mac owes an answer and may be woken now. `asked` says
    /// that somebody wants it, who is not made to wait as long as the sweep.
    pub fn begin_push(&mut self, asked: bool, rules: &Rules, now: Timestamp) -> bool {
        let may = self.is_heard() && self.wake_from(asked, rules).is_some_and(|from| from <= now);
        if may {
            self.pushes.begin(rules.pushes_per_hour, now);
        }
        may
    }

    /// APNs took the push that was begun.
    pub fn pushed(&mut self) {
        self.pushes.accepted();
    }

    /// The push that was begun was not taken; it costs nothing of the budget unless it may have been
    /// delivered all the same.
    pub fn not_pushed(&mut self, reason: Reason, lost: bool, now: Timestamp) {
        self.pushes.refused(reason, lost, now);
    }

    // --- what is next ------------------------------------------------------------------------

    /// When something must be done about the Mac.
    pub fn next(&self, rules: &Rules) -> Next {
        let priority = self.open.as_ref().map(|open| open.priority);
        let mut next = Next {
            due_at: self.open.as_ref().map(|open| open.deadline),
            priority: priority.unwrap_or(Priority::Refresh),
            owes_from: None,
        };
        if !self.is_heard() {
            return next;
        }
        next.owes_from = self.open.as_ref().and_then(|open| open.owes_from);
        let mut sooner = |at: Timestamp, priority: Priority| {
            if next.due_at.is_none_or(|due_at| at < due_at) {
                next.due_at = Some(at);
                next.priority = priority;
            }
        };
        if let (Some(at), Some(priority)) = (self.wake_from(false, rules), priority) {
            sooner(at, priority);
        }
        let mut ripe_at: Option<Timestamp> = None;
        for (_, wish) in self.wishes(rules) {
            sooner(self.start_from(&wish, rules), wish.priority);
            ripe_at = Some(ripe_at.map_or(wish.ripe_at, |at| at.min(wish.ripe_at)));
        }
        next.owes_from = [next.owes_from, ripe_at].into_iter().flatten().min();
        next
    }

    /// What is to be done now.
    pub fn step(&self, rules: &Rules, now: Timestamp) -> Step {
        if self.open.as_ref().is_some_and(|open| open.deadline <= now) {
            return Step::Expire;
        }
        if !self.is_heard() {
            return Step::Nothing;
        }
        let due = self
            .wishes(rules)
            .filter(|(_, wish)| self.start_from(wish, rules) <= now)
            .map(|(_, wish)| wish.priority_at(now))
            .min();
        if let Some(priority) = due {
            return Step::Ask(self.ripe(rules, now), priority);
        }
        match (&self.open, self.wake_from(false, rules)) {
            (Some(open), Some(from)) if from <= now => Step::Wake(open.priority),
            _ => Step::Nothing,
        }
    }

    /// What a Mac that connects now is asked besides what it owes already: one session, and one push,
    /// serve every kind.
    pub fn ripe(&self, rules: &Rules, now: Timestamp) -> Vec<Kind> {
        if !self.is_heard() {
            return Vec::new();
        }
        self.wishes(rules)
            .filter(|(_, wish)| wish.ripe_at <= now)
            .map(|(kind, _)| kind)
            .collect()
    }

    /// How urgent it is, if these kinds are asked for now.
    pub fn priority(&self, kinds: &[Kind], rules: &Rules, now: Timestamp) -> Priority {
        self.wishes(rules)
            .filter(|(kind, _)| kinds.contains(kind))
            .map(|(_, wish)| wish.priority_at(now))
            .min()
            .unwrap_or(Priority::Refresh)
    }

    /// Whether the Mac was woken just now and is about to connect.
    pub fn is_expected(&self, now: Timestamp) -> bool {
        self.pushes.is_expected(now)
    }

    /// What keeps the Mac from being woken now, though somebody asks.
    pub fn held(&self, rules: &Rules, now: Timestamp) -> Option<Hold> {
        self.pushes.held(rules.pushes_per_hour, now)
    }

    /// The kinds that no open attempt asks for, each with the time from which one does.
    pub fn to_ask(&self, rules: &Rules) -> Vec<(Kind, Timestamp)> {
        if !self.is_heard() {
            return Vec::new();
        }
        self.wishes(rules)
            .map(|(kind, wish)| (kind, self.start_from(&wish, rules)))
            .collect()
    }

    /// How many pushes left for the Mac within the last hour: those its budget counts.
    pub fn pushes_sent(&self, now: Timestamp) -> usize {
        self.pushes.counted(now)
    }

    /// When the present enrollment began.
    pub fn since(&self) -> Timestamp {
        self.since
    }

    /// Before this Apple would only repeat the statement it made last.
    pub fn eligible_at(&self) -> Option<Timestamp> {
        self.mda.eligible_at
    }

    fn is_heard(&self) -> bool {
        self.enrolled && !self.revoked
    }

    /// When the Mac may be woken for the open attempt; `None` when that owes nothing.
    fn wake_from(&self, asked: bool, rules: &Rules) -> Option<Timestamp> {
        let open = self.open.as_ref()?;
        let owes_from = open.owes_from?;
        let per_hour = rules.pushes_per_hour;
        // Whoever is in a session answers in it.
        let silent = self.talking_since.map(|since| since.plus(budget::LEASE));
        let allowed = if asked {
            let quiet = self.talking_since.map(|since| since.plus(budget::QUIET));
            quiet.max(self.pushes.open_from(per_hour))
        } else if open.woken {
            silent.max(self.pushes.again_from(per_hour, open.said_not_now))
        } else {
            silent.max(self.pushes.open_from(per_hour))
        };
        Some(allowed.map_or(owes_from, |allowed| allowed.max(owes_from)))
    }

    /// When an attempt for this is begun: once the Mac can be woken for it.
    fn start_from(&self, wish: &Wish, rules: &Rules) -> Timestamp {
        let open_from = self.pushes.open_from(rules.pushes_per_hour);
        open_from.map_or(wish.ask_at, |from| from.max(wish.ask_at))
    }

    /// The kinds that no open attempt asks for.
    fn wishes(&self, rules: &Rules) -> impl Iterator<Item = (Kind, Wish)> {
        [Kind::SecurityInfo, Kind::Mda]
            .into_iter()
            .filter(|kind| !self.clock(*kind).asking)
            .map(|kind| {
                let lifetime = rules.lifetime(kind);
                let clock = self.clock(kind);
                let wish = clock.wish(kind, &self.device_id, lifetime, self.since);
                (kind, wish)
            })
    }

    fn clock(&self, kind: Kind) -> &Clock {
        match kind {
            Kind::SecurityInfo => &self.security_info,
            Kind::Mda => &self.mda,
        }
    }

    fn clock_mut(&mut self, kind: Kind) -> &mut Clock {
        match kind {
            Kind::SecurityInfo => &mut self.security_info,
            Kind::Mda => &mut self.mda,
        }
    }
}
