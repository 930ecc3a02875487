//! How far the messages to one receiver are, and what follows from how they fared.
//!
//! Messages about one Mac are sent one after the other; those about others need not wait for them. What
//! the receiver refuses is tried again some times and then given up, so that it holds up nobody for ever;
//! where the receiver is not reached at all, everything waits, and what has waited for a day is given up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// How often a message is refused before it is given up: over some ten minutes.
pub const MOST_REFUSALS: u32 = 8;
/// How long a webhook's receiver may be out before messages are given up.
pub const PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);
/// The first wait; each is twice the one before,
const FIRST_WAIT: Duration = Duration::from_secs(5);
/// up to this.
const LONGEST_WAIT: Duration = Duration::from_secs(15 * 60);

/// How far it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Course {
    /// Everything up to here is settled: delivered, given up, or not wanted.
    pub cursor: i64,
    /// What is settled beyond the cursor.
    #[serde(default)]
    pub ahead: BTreeSet<i64>,
    /// What was refused, and is tried again.
    #[serde(default)]
    pub held: BTreeMap<i64, Held>,
    /// How often in a row the receiver was not reached.
    #[serde(default)]
    pub failures: u32,
    /// Nothing is sent before.
    pub next_at: Option<Timestamp>,
    /// What went wrong last, until something goes well.
    pub fault: Option<String>,
}

/// A message that was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub refusals: u32,
    pub next_at: Timestamp,
}

/// How a message fared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Delivered,
    /// The receiver was there and did not take it.
    Refused(String),
    /// Nobody took it, and that is not the message's fault.
    Unreached(String),
}

/// A message that is given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenUp {
    pub seq: i64,
    pub why: String,
}

/// Some messages in the order of their numbers: those between the cursor and `up_to` that are wanted.
#[derive(Debug)]
pub struct Page<'a> {
    /// Number, and when it became true.
    pub messages: &'a [(i64, Timestamp)],
    pub up_to: i64,
    /// How long the receiver may be out before they are given up.
    pub patience: Duration,
}

impl Course {
    /// A receiver that is told of everything after `cursor`.
    pub fn from(cursor: i64) -> Self {
        Self {
            cursor,
            ..Self::default()
        }
    }

    /// Whether anything may be sent now.
    pub fn may_send(&self, now: Timestamp) -> bool {
        self.next_at.is_none_or(|at| is_over(at, now))
    }

    /// Whether this message is still to be sent, and may be now.
    pub fn is_due(&self, seq: i64, now: Timestamp) -> bool {
        let held = self.held.get(&seq);
        !self.is_settled(seq) && held.is_none_or(|held| is_over(held.next_at, now))
    }

    /// Whether this message needs no sending any more.
    pub fn is_settled(&self, seq: i64) -> bool {
        seq <= self.cursor || self.ahead.contains(&seq)
    }

    /// Takes note of how the messages of a page fared that were sent; those that were not are absent.
    /// `jitter` is random. Returns what is given up.
    pub fn note(
        &mut self,
        page: &Page<'_>,
        outcomes: &BTreeMap<i64, Outcome>,
        now: Timestamp,
        jitter: u16,
    ) -> Vec<GivenUp> {
        let mut given_up = Vec::new();
        let mut unreached = None;
        for (seq, outcome) in outcomes {
            match outcome {
                Outcome::Delivered => {
                    self.held.remove(seq);
                    self.ahead.insert(*seq);
                }
                Outcome::Refused(why) => {
                    let refusals = 1 + self.held.get(seq).map_or(0, |held| held.refusals);
                    self.fault = Some(why.clone());
                    if refusals >= MOST_REFUSALS {
                        given_up.push((*seq, why.clone()));
                    } else {
                        let next_at = now.plus(wait(refusals, jitter));
                        self.held.insert(*seq, Held { refusals, next_at });
                    }
                }
                Outcome::Unreached(why) => unreached = Some(why.clone()),
            }
        }
        match unreached {
            Some(why) => {
                self.failures = self.failures.saturating_add(1);
                self.next_at = Some(now.plus(wait(self.failures, jitter)));
                let old = |at: Timestamp| now.since(at) >= page.patience;
                for (seq, at) in page.messages {
                    let is_new = given_up.iter().all(|(other, _)| other != seq);
                    if !self.is_settled(*seq) && old(*at) && is_new {
                        given_up.push((*seq, why.clone()));
                    }
                }
                self.fault = Some(why);
            }
            // Nothing was sent: nothing was learnt.
            None if outcomes.is_empty() => {}
            None => {
                self.failures = 0;
                self.next_at = None;
                if self.held.is_empty() && outcomes.values().any(|it| *it == Outcome::Delivered) {
                    self.fault = None;
                }
            }
        }
        given_up.sort();
        for (seq, _) in &given_up {
            self.held.remove(seq);
            self.ahead.insert(*seq);
        }
        self.advance(page);
        let given_up = given_up.into_iter();
        given_up.map(|(seq, why)| GivenUp { seq, why }).collect()
    }

    /// Moves the cursor to before the first message that is not settled.
    fn advance(&mut self, page: &Page<'_>) {
        let open = page.messages.iter().find(|(seq, _)| !self.is_settled(*seq));
        let settled_to = open.map_or(page.up_to, |(seq, _)| seq - 1);
        self.cursor = self.cursor.max(settled_to);
        self.ahead = self.ahead.split_off(&(self.cursor + 1));
        self.held = self.held.split_off(&(self.cursor + 1));
    }

    /// The same for messages that are gone once they are settled: no place among them is remembered.
    #[must_use]
    pub fn without_place(self) -> Self {
        Self {
            cursor: 0,
            ahead: BTreeSet::new(),
            ..self
        }
    }

    /// When something is to be done that is not to be done now: what was refused is tried again, or the
    /// receiver is asked again.
    pub fn due_at(&self) -> Option<Timestamp> {
        let held = self.held.values().map(|held| held.next_at).min();
        self.next_at.max(held)
    }
}

/// Whether a wait is over. One that is longer than any was begun by a clock that was wrong.
fn is_over(until: Timestamp, now: Timestamp) -> bool {
    until <= now || until.since(now) > LONGEST_WAIT
}

/// Between half and all of the wait after so many failures in a row.
fn wait(failures: u32, jitter: u16) -> Duration {
    let doubled = FIRST_WAIT.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)));
    let share = f64::from(jitter) / f64::from(u16::MAX);
    doubled.min(LONGEST_WAIT).mul_f64(0.5 + share / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(1_790_847_007 + seconds)
    }

    const PAGE: [(i64, i64); 4] = [(11, 0), (12, 1), (15, 2), (16, 3)];

    struct Story {
        course: Course,
        messages: Vec<(i64, Timestamp)>,
        now: i64,
    }

    impl Story {
        fn new() -> Self {
            Self {
                course: Course::from(10),
                messages: PAGE.map(|(seq, second)| (seq, at(second))).to_vec(),
                now: 10,
            }
        }

        fn note(&mut self, outcomes: &[(i64, Outcome)]) -> Vec<i64> {
            let messages = self.messages.iter().copied();
            let messages: Vec<_> = messages
                .filter(|(seq, _)| *seq > self.course.cursor)
                .collect();
            let page = Page {
                messages: &messages,
                up_to: 20,
                patience: PATIENCE,
            };
            let outcomes = outcomes.iter().cloned().collect();
            let given_up = self.course.note(&page, &outcomes, at(self.now), u16::MAX);
            given_up.into_iter().map(|given_up| given_up.seq).collect()
        }
    }

    fn refused() -> Outcome {
        Outcome::Refused("answered 400".to_owned())
    }

    fn unreached() -> Outcome {
        Outcome::Unreached("timed_out".to_owned())
    }

    #[test]
    fn the_cursor_stands_before_the_first_that_is_not_settled() {
        let mut story = Story::new();
        story.note(&[(12, Outcome::Delivered), (15, Outcome::Delivered)]);
        assert_eq!(story.course.cursor, 10);
        assert!(story.course.is_due(11, at(10)) && !story.course.is_due(12, at(10)));
        story.note(&[(11, Outcome::Delivered)]);
        // 13 and 14 are nobody's, or not wanted.
        assert_eq!((story.course.cursor, story.course.ahead.len()), (15, 0));
        story.note(&[(16, Outcome::Delivered)]);
        assert_eq!(story.course, Course::from(20));
    }

    #[test]
    fn what_is_refused_is_tried_again_later_each_time_and_then_given_up() {
        let mut story = Story::new();
        let mut waits = Vec::new();
        for round in 1..=MOST_REFUSALS {
            let given_up = story.note(&[(11, refused()), (12, Outcome::Delivered)]);
            assert!(story.course.may_send(at(story.now)), "others need not wait");
            if round < MOST_REFUSALS {
                assert_eq!(given_up, Vec::<i64>::new());
                assert!(!story.course.is_due(11, at(story.now)));
                let next = story
                    .course
                    .due_at()
                    .expect("a time")
                    .since(at(story.now))
                    .as_secs();
                waits.push(next);
                story.now += i64::try_from(next).expect("small");
                assert!(story.course.is_due(11, at(story.now)));
            } else {
                assert_eq!(given_up, [11]);
            }
        }
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320]);
        assert_eq!((story.course.cursor, story.course.held.len()), (14, 0));
        assert_eq!(story.course.fault.as_deref(), Some("answered 400"));
        story.note(&[(15, Outcome::Delivered), (16, Outcome::Delivered)]);
        assert_eq!(story.course.fault, None);
    }

    #[test]
    fn while_nobody_is_there_everything_waits_and_after_a_day_it_is_given_up() {
        let mut story = Story::new();
        let mut waited = 0;
        loop {
            let given_up = story.note(&[(11, unreached())]);
            let next = story
                .course
                .due_at()
                .expect("a time")
                .since(at(story.now))
                .as_secs();
            assert!(!story.course.may_send(at(story.now)));
            assert!(next <= LONGEST_WAIT.as_secs() && next >= 5);
            if !given_up.is_empty() {
                break assert_eq!(given_up, [11, 12, 15, 16]);
            }
            waited += next;
            story.now += i64::try_from(next).expect("small");
        }
        assert!(waited + 10 >= PATIENCE.as_secs());
        assert_eq!((story.course.cursor, story.course.ahead.len()), (20, 0));

        // Somebody is there again.
        let page = Page {
            messages: &[(21, at(story.now))],
            up_to: 21,
            patience: PATIENCE,
        };
        let outcomes = BTreeMap::from([(21, Outcome::Delivered)]);
        story.course.note(&page, &outcomes, at(story.now), 0);
        assert_eq!((story.course.failures, story.course.next_at), (0, None));
    }

    #[test]
    fn waits_are_between_half_and_all_and_no_longer_than_a_quarter_of_an_hour() {
        assert_eq!(wait(1, 0), FIRST_WAIT / 2);
        assert_eq!(wait(1, u16::MAX), FIRST_WAIT);
        assert_eq!(wait(u32::MAX, u16::MAX), LONGEST_WAIT);
    }

    #[test]
    fn no_clock_that_was_wrong_makes_anybody_wait_for_ever() {
        let mut story = Story::new();
        story.now += 365 * 24 * 60 * 60;
        story.note(&[(11, refused())]);
        assert!(!story.course.is_due(11, at(story.now)));
        assert!(story.course.is_due(11, at(10)));
        story.note(&[(11, unreached())]);
        assert!(!story.course.may_send(at(story.now)) && story.course.may_send(at(10)));
    }

    #[test]
    fn a_course_reads_back_as_it_was_kept() {
        let mut story = Story::new();
        story.note(&[(11, refused()), (12, Outcome::Delivered), (15, unreached())]);
        let kept = serde_json::to_string(&story.course).expect("JSON");
        assert_eq!(
            serde_json::from_str::<Course>(&kept).expect("read"),
            story.course
        );
    }
}
