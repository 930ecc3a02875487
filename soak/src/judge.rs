//! The all-knowing judge of one Mac: it keeps what was really handed over, what the Mac really
//! answered and when, and says what may be believed at a moment.
//!
//! It is written from the rules (DESIGN 2, and the figures of `strict.toml`) and not from the server's
//! code, and shares nothing with it: a fault there must not cancel out here. It is told only what
//! happened at the Mac's end of the line.

use crate::time::{DAY, HOUR, MINUTE, Ms};

/// SecurityInfo counts this long from when it was heard.
pub const REPORT_USABLE: Ms = 24 * HOUR;
/// An attestation counts this long from when its nonce was handed over.
pub const CHAIN_USABLE: Ms = 14 * DAY;
/// Apple makes a new attestation at most this often.
pub const APPLE_WINDOW: Ms = 7 * DAY;
/// A late answer counts this long.
pub const ANSWER_LIFETIME: Ms = 30 * MINUTE;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    Report,
    Chain,
}

/// What may be said of a Mac.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    Affirming,
    Warning,
    Contraindicated,
    Unknown,
}

/// What may be said of a Mac, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowed {
    pub verdict: Verdict,
    /// Only for what is good.
    pub until: Option<Ms>,
}

/// A state as it was said, by whomever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// SIP on, Full Security, no third-party kernel extensions: as far as the source says.
    pub secure: bool,
    /// Only SecurityInfo says so.
    pub filevault: bool,
}

impl State {
    fn is_good(self) -> bool {
        self.secure && self.filevault
    }
}

/// A provider's Secure Enclave key: how many its Mac had before.
pub type Key = u32;

/// How far a provider's key is joined to its Mac.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grade {
    /// Not proved to be this Mac's.
    None,
    /// A statement of Apple's within its age names it.
    Bound,
    /// No statement names it yet.
    Pending,
    /// The one that names it is too old, or older than a negative.
    Stale,
}

/// A nonce that was handed over.
#[derive(Debug, Clone)]
struct Minted {
    nonce: Vec<u8>,
    at: Ms,
    /// The key it names.
    key: Option<Key>,
}

/// The newest statement that names a key.
#[derive(Debug, Clone, Copy)]
struct Named {
    key: Key,
    minted_at: Ms,
    ends_at: Ms,
}

/// A command the Mac was given and has not answered.
#[derive(Debug, Clone)]
struct Asked {
    uuid: String,
    at: Ms,
}

/// The last SecurityInfo that counts.
#[derive(Debug, Clone, Copy)]
pub struct Report {
    pub asked_at: Ms,
    pub heard_at: Ms,
    state: State,
}

/// The last chain that counts.
#[derive(Debug, Clone, Copy)]
pub struct Chain {
    /// When the nonce in it was handed over.
    pub minted_at: Ms,
    pub heard_at: Ms,
    /// The leaf's end.
    ends_at: Ms,
    secure: bool,
    /// Answered from Apple's cache.
    cached: bool,
}

/// The whole story of one Mac.
#[derive(Debug, Clone, Default)]
pub struct Judge {
    enrolled: bool,
    /// When its identity ends.
    identity_ends: Ms,
    asked: [Option<Asked>; 2],
    /// Nonces of the present enrollment.
    ledger: Vec<Minted>,
    /// Keys proved under the present enrollment, the one that is named from now on last.
    keys: Vec<Key>,
    named: Option<Named>,
    /// The provider's software admitted then that SIP or Secure Boot is off, and Apple has not said
    /// otherwise since.
    admitted_at: Option<Ms>,
    report: Option<Report>,
    chain: Option<Chain>,
    /// When a negative on SIP, Secure Boot or kernel extensions was heard last.
    negative_at: Option<Ms>,
    /// When a nonce was handed over that came back in a new chain, under this enrollment.
    fresh_at: Option<Ms>,
}

impl Judge {
    /// Authenticate: what was good before is history, what was bad is not. The ticket may name a key.
    pub fn begins(&mut self, identity_ends: Ms, key: Option<Key>) {
        self.enrolled = false;
        self.keys = key.into_iter().collect();
        self.named = None;
        self.identity_ends = identity_ends;
        self.asked = [None, None];
        self.ledger.clear();
        self.fresh_at = None;
        self.report = self.report.filter(|report| !report.state.is_good());
        self.chain = self.chain.filter(|chain| !chain.secure);
    }

    /// What Apple stated for the identity, in answer to a token made at `minted_at`.
    pub fn stated(&mut self, minted_at: Ms, secure: bool, ends_at: Ms, now: Ms) {
        self.name(self.keys.last().copied(), minted_at, ends_at);
        self.take_chain(Chain {
            minted_at,
            heard_at: now,
            ends_at,
            secure,
            cached: false,
        });
    }

    /// TokenUpdate: it can be asked.
    pub fn joined(&mut self) {
        self.enrolled = true;
    }

    /// CheckOut.
    pub fn left(&mut self) {
        self.enrolled = false;
        self.asked = [None, None];
    }

    /// A command was handed over, an attestation with its nonce. It takes the place of the one
    /// before.
    pub fn handed_over(&mut self, question: Question, uuid: &str, nonce: Option<&[u8]>, now: Ms) {
        self.asked[question as usize] = Some(Asked {
            uuid: uuid.to_owned(),
            at: now,
        });
        if let Some(nonce) = nonce {
            self.ledger.push(Minted {
                nonce: nonce.to_vec(),
                at: now,
                key: self.keys.last().copied(),
            });
        }
    }

    /// NotNow: nothing is known, and the command is done with.
    pub fn put_off(&mut self, question: Question, uuid: &str) {
        let place = &mut self.asked[question as usize];
        if place.as_ref().is_some_and(|asked| asked.uuid == uuid) {
            *place = None;
        }
    }

    /// SecurityInfo arrived. False when nobody waits for it any more.
    pub fn reported(&mut self, uuid: &str, state: State, now: Ms) -> bool {
        let Some(asked_at) = self.solicited(Question::Report, uuid, now) else {
            return false;
        };
        let report = Report {
            asked_at,
            heard_at: now,
            state,
        };
        if state.secure {
            let held_bad = self.report.is_some_and(|held| !held.state.secure);
            if held_bad && self.is_void(asked_at) {
                return true;
            }
        } else {
            self.negative_at = self.negative_at.max(Some(now));
        }
        self.report = Some(report);
        true
    }

    /// A chain arrived, with the nonce in it. False when nobody waits for it any more.
    pub fn attested(
        &mut self,
        uuid: &str,
        nonce: &[u8],
        secure: bool,
        ends_at: Ms,
        now: Ms,
    ) -> bool {
        let asked = self.solicited(Question::Chain, uuid, now);
        if asked.is_none() {
            return false;
        }
        let found = self.ledger.iter().find(|known| known.nonce == nonce);
        // Without a nonce of ours nothing says how old it is; no honest Mac sends such a chain here.
        let Some((minted_at, key)) = found.map(|known| (known.at, known.key)) else {
            return true;
        };
        self.name(key, minted_at, ends_at);
        let cached = self
            .ledger
            .last()
            .is_none_or(|newest| newest.nonce != nonce);
        if !cached {
            self.fresh_at = Some(minted_at);
        }
        self.take_chain(Chain {
            minted_at,
            heard_at: now,
            ends_at,
            secure,
            cached,
        });
        true
    }

    fn take_chain(&mut self, chain: Chain) {
        if !chain.secure {
            self.negative_at = self.negative_at.max(Some(chain.heard_at));
        } else if let Some(held) = self.chain {
            let uncleared = !held.secure && self.is_void(chain.minted_at);
            if uncleared || held.minted_at > chain.minted_at {
                return;
            }
        }
        if chain.secure {
            self.admitted_at = self.admitted_at.filter(|at| *at >= chain.minted_at);
        }
        self.chain = Some(chain);
    }

    fn name(&mut self, key: Option<Key>, minted_at: Ms, ends_at: Ms) {
        if let Some(key) = key
            && self.named.is_none_or(|named| named.minted_at < minted_at)
        {
            self.named = Some(Named {
                key,
                minted_at,
                ends_at,
            });
        }
    }

    /// A key was proved to be this Mac's: questions name it from now on.
    pub fn proves(&mut self, key: Key) {
        self.keys.retain(|known| *known != key);
        self.keys.push(key);
    }

    /// The provider's software, under a key proved for this Mac, admits that SIP or Secure Boot is off.
    pub fn told_bad(&mut self, now: Ms) {
        self.admitted_at = Some(now);
        self.negative_at = self.negative_at.max(Some(now));
    }

    /// Whether questions name this key.
    pub fn names(&self, key: Key) -> bool {
        self.keys.last() == Some(&key)
    }

    /// Whether this key was proved to be this Mac's, under its present enrollment.
    pub fn is_proved(&self, key: Key) -> bool {
        self.keys.contains(&key)
    }

    /// How far a key is joined to this Mac, and until when it is, where it is.
    pub fn grade(&self, key: Key, now: Ms) -> (Grade, Option<Ms>) {
        if !self.is_proved(key) {
            return (Grade::None, None);
        }
        let Some(named) = self.named.filter(|named| named.key == key) else {
            return (Grade::Pending, None);
        };
        let until = named.ends_at.min(named.minted_at + CHAIN_USABLE);
        if self.is_void(named.minted_at) || now >= until {
            return (Grade::Stale, None);
        }
        (Grade::Bound, Some(until))
    }

    /// When the nonce of the chain that counts was handed over, if that chain says nothing bad.
    pub fn good_chain_minted_at(&self) -> Option<Ms> {
        let good = self.chain.filter(|chain| chain.secure);
        good.map(|chain| chain.minted_at)
    }

    fn solicited(&mut self, question: Question, uuid: &str, now: Ms) -> Option<Ms> {
        let place = &mut self.asked[question as usize];
        let asked = place.take_if(|asked| asked.uuid == uuid)?;
        (self.enrolled && now - asked.at <= ANSWER_LIFETIME).then_some(asked.at)
    }

    /// Whether what was handed over then is older than a negative.
    fn is_void(&self, at: Ms) -> bool {
        self.negative_at.is_some_and(|negative| at < negative)
    }

    /// What may be said at this moment.
    pub fn allows(&self, now: Ms) -> Allowed {
        let only = |verdict| Allowed {
            verdict,
            until: None,
        };
        let report_bad = self.report.is_some_and(|report| !report.state.is_good());
        let chain_bad = self.chain.is_some_and(|chain| !chain.secure);
        if report_bad || chain_bad || self.admitted_at.is_some() {
            return only(Verdict::Contraindicated);
        }
        let (Some(report), Some(chain)) = (self.report, self.chain) else {
            return only(Verdict::Unknown);
        };
        let ends = [
            report.heard_at + REPORT_USABLE,
            chain.minted_at + CHAIN_USABLE,
            chain.ends_at,
            self.identity_ends,
        ];
        let until = ends.into_iter().fold(Ms::MAX, Ms::min);
        let void = self.is_void(report.asked_at) || self.is_void(chain.minted_at);
        if !self.enrolled || void || now >= until {
            return only(Verdict::Unknown);
        }
        let withheld = chain.cached && chain.heard_at - chain.minted_at > APPLE_WINDOW;
        let verdict = if withheld {
            Verdict::Warning
        } else {
            Verdict::Affirming
        };
        Allowed {
            verdict,
            until: Some(until),
        }
    }

    pub fn report(&self) -> Option<Report> {
        self.report
    }

    pub fn chain(&self) -> Option<Chain> {
        self.chain
    }

    /// When a negative on SIP, Secure Boot or kernel extensions was heard last.
    pub fn negative_at(&self) -> Option<Ms> {
        self.negative_at
    }

    /// When the nonce of the last new chain of this enrollment was handed over.
    pub fn fresh_at(&self) -> Option<Ms> {
        self.fresh_at
    }
}

impl Grade {
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Bound => "bound",
            Self::Pending => "pending",
            Self::Stale => "stale",
        }
    }
}

impl Verdict {
    pub fn word(self) -> &'static str {
        match self {
            Self::Affirming => "affirming",
            Self::Warning => "warning",
            Self::Contraindicated => "contraindicated",
            Self::Unknown => "unknown",
        }
    }

    /// Whether the Mac may be used on the strength of it.
    pub fn is_good(self) -> bool {
        matches!(self, Self::Affirming | Self::Warning)
    }
}
