//! Answers as they were written a moment ago.
//!
//! Judging and writing an answer costs more than all else of a question that is asked thousands of
//! times a second. Every rule about time is one-way: evidence only ages, what has ended stays ended.
//! So an answer that would be the same five seconds from now is the same until then, if what it is made
//! of is the same; and what it is made of is looked up for each question. Only the time of the
//! evaluation is written anew.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use serde::Serialize;

use super::Failure;
use crate::ids::{DeviceId, SessionId};
use crate::store::{Glance, MacGlance};
use crate::time::Timestamp;

/// How far ahead an answer is judged a second time. Near the end of something it is judged for each
/// question.
const STEADY: Duration = Duration::from_secs(5);

/// Answers of one kind; with more, all are forgotten. One has some two kilobytes.
const MOST: usize = 16_384;

/// Opens the time of the evaluation. A quotation mark within a text is escaped, so that no text of
/// anybody's contains this.
const EVALUATED_AT: &[u8] = b"\"evaluated_at\":\"";

/// The answers of one process.
#[derive(Debug, Default)]
pub struct Answers {
    pub(super) postures: Shelf<DeviceId, MacGlance, bool>,
    pub(super) bindings: Shelf<SessionId, Glance, ()>,
}

/// What answers are made of.
pub trait Sources {
    /// Whether nothing was looked up anew in between: both are the same in memory.
    fn are(&self, others: &Self) -> bool;
}

/// Answers to one question about many.
#[derive(Debug)]
pub struct Shelf<K, S, X>(RwLock<HashMap<K, Arc<Answer<S, X>>>>);

#[derive(Debug)]
struct Answer<S, X> {
    sources: S,
    from: Timestamp,
    until: Timestamp,
    written: Written<X>,
}

/// An answer around the time of its evaluation, and what else is to be known of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Written<X> {
    head: Vec<u8>,
    tail: Vec<u8>,
    besides: X,
}

impl<K, S, X> Default for Shelf<K, S, X> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<K: Eq + Hash + Clone, S: Sources, X: Copy + PartialEq> Shelf<K, S, X> {
    /// The answer as of `now`, as JSON, and what else is to be known of it. `write` makes it as of any
    /// time.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn answer(
        &self,
        key: &K,
        sources: S,
        now: Timestamp,
        write: impl Fn(&S, Timestamp) -> Result<Written<X>, Failure>,
    ) -> Result<(Vec<u8>, X), Failure> {
        let known = self.known(key);
        if let Some(known) = known.filter(|known| known.is_good(&sources, now)) {
            return Ok((known.written.at(now), known.written.besides));
        }
        let until = now.plus(STEADY);
        let written = write(&sources, now)?;
        let answer = (written.at(now), written.besides);
        if write(&sources, until)? == written {
            self.keep(
                key,
                Answer {
                    sources,
                    from: now,
                    until,
                    written,
                },
            );
        }
        Ok(answer)
    }

    fn known(&self, key: &K) -> Option<Arc<Answer<S, X>>> {
        let shelf = self.0.read().unwrap_or_else(PoisonError::into_inner);
        shelf.get(key).cloned()
    }

    fn keep(&self, key: &K, answer: Answer<S, X>) {
        let mut shelf = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if shelf.len() >= MOST {
            shelf.clear();
        }
        shelf.insert(key.clone(), Arc::new(answer));
    }
}

impl<S: Sources, X> Answer<S, X> {
    /// A clock that was set back makes no answer good.
    fn is_good(&self, sources: &S, now: Timestamp) -> bool {
        self.from <= now && now <= self.until && self.sources.are(sources)
    }
}

impl<X: Copy> Written<X> {
    /// # Errors
    /// When it is no JSON object with the time of its evaluation.
    pub(super) fn new(answer: &impl Serialize, besides: X) -> Result<Self, Failure> {
        let untold = Failure::Inconsistent("an answer without the time of its evaluation");
        let mut head = serde_json::to_vec(answer)
            .map_err(|_| Failure::Inconsistent("an answer that cannot be written"))?;
        let opens = head
            .windows(EVALUATED_AT.len())
            .position(|bytes| bytes == EVALUATED_AT);
        let Some(opens) = opens.map(|at| at + EVALUATED_AT.len()) else {
            return Err(untold);
        };
        let Some(length) = head[opens..].iter().position(|byte| *byte == b'"') else {
            return Err(untold);
        };
        let tail = head.split_off(opens + length);
        head.truncate(opens);
        Ok(Self {
            head,
            tail,
            besides,
        })
    }

    fn at(&self, now: Timestamp) -> Vec<u8> {
        let now = now.to_string();
        [&self.head, now.as_bytes(), &self.tail].concat()
    }
}

impl Sources for Glance {
    fn are(&self, others: &Self) -> bool {
        let same_mac = match (&self.mac, &others.mac) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        same_mac && Arc::ptr_eq(&self.session, &others.session) && self.release == others.release
    }
}

impl Sources for MacGlance {
    fn are(&self, others: &Self) -> bool {
        let same = |((one, released), (other, released_too)): (&(Arc<_>, _), &(Arc<_>, _))| {
            Arc::ptr_eq(one, other) && released == released_too
        };
        Arc::ptr_eq(&self.mac, &others.mac)
            && self.sessions.len() == others.sessions.len()
            && self.sessions.iter().zip(&others.sessions).all(same)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use serde_json::{Value, json};

    use super::*;

    /// Equal if it is the same number.
    #[derive(Debug, Clone, Copy)]
    struct Number(u64);

    impl Sources for Number {
        fn are(&self, others: &Self) -> bool {
            self.0 == others.0
        }
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(1_790_847_007_000 + millis)
    }

    /// A question whose answer changes at one time, and how often it was judged.
    #[derive(Default)]
    struct Question {
        shelf: Shelf<DeviceId, Number, bool>,
        judged: Cell<u32>,
    }

    impl Question {
        fn ask(&self, source: u64, now: Timestamp) -> (Value, bool) {
            let device_id = DeviceId::new(at(0), &crate::entropy::SeededEntropy::new(1));
            let write = |source: &Number, now: Timestamp| {
                self.judged.set(self.judged.get() + 1);
                let is_good = now < at(60_000);
                let text = "\"evaluated_at\":\"";
                let answer = json!({
                    "a_text": text, "evaluated_at": now, "good": is_good, "source": source.0,
                });
                Written::new(&answer, is_good)
            };
            let answer = self.shelf.answer(&device_id, Number(source), now, write);
            let (body, besides) = answer.expect("is written");
            (serde_json::from_slice(&body).expect("JSON"), besides)
        }

        fn judged(&self) -> u32 {
            self.judged.take()
        }
    }

    #[test]
    fn what_stays_the_same_is_judged_once_and_says_when_it_was_asked() {
        let question = Question::default();
        let (first, _) = question.ask(1, at(0));
        assert_eq!(
            (first["evaluated_at"].clone(), question.judged()),
            (json!(at(0)), 2)
        );
        let (second, is_good) = question.ask(1, at(4_999));
        assert_eq!(second["evaluated_at"], json!(at(4_999)));
        assert_eq!(
            (second["source"].clone(), is_good, question.judged()),
            (json!(1), true, 0)
        );
        // Longer than it was judged for, from other sources, or with a clock that was set back.
        question.ask(1, at(5_001));
        assert_eq!(question.judged(), 2);
        assert_eq!(question.ask(2, at(5_002)).0["source"], 2);
        assert_eq!(question.judged(), 2);
        question.ask(2, at(5_001));
        assert_eq!(question.judged(), 2);
    }

    #[test]
    fn what_is_about_to_end_is_judged_each_time() {
        let question = Question::default();
        for (now, is_good) in [(58_000, true), (59_999, true), (60_000, false)] {
            assert_eq!(question.ask(1, at(now)).0["good"], is_good);
            assert_eq!(question.judged(), 2, "{now}");
        }
        assert!(!question.ask(1, at(60_001)).1);
        assert_eq!(question.judged(), 0);
    }

    #[test]
    fn an_answer_without_its_time_is_a_fault() {
        for answer in [json!({}), json!([]), json!({ "evaluated_at": 7 })] {
            assert!(Written::new(&answer, ()).is_err(), "{answer}");
        }
    }

    #[test]
    fn memory_has_an_end() {
        let shelf: Shelf<u64, Number, ()> = Shelf::default();
        for key in 0..=MOST as u64 {
            let write =
                |_: &Number, now: Timestamp| Written::new(&json!({ "evaluated_at": now }), ());
            shelf
                .answer(&key, Number(key), at(0), write)
                .expect("is written");
        }
        assert_eq!(shelf.0.read().expect("is whole").len(), 1);
    }
}
