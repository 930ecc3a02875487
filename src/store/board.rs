//! What is asked thousands of times a second, kept in memory: sessions, the Macs they are about, what
//! the registry says of their programs, and the tokens of those who ask.
//!
//! It is filled by whoever asks and finds nothing, and forgotten by whoever changes something:
//! a commit forgets what it changed before the one who made it is answered. Nothing in it expires by
//! itself; what expires is judged by absolute times when it is read.
//!
//! On PostgreSQL other servers change the same rows. What they changed is read from a log a few times
//! a second; as long as that does not succeed, nothing is found here and the database is asked.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use super::ApiToken;
use crate::ids::{DeviceId, SecretHash, SessionId};
use crate::provider::Session;
use crate::publication::posture_v1::Believed;
use crate::reason::Reason;

/// How long a token that was good counts as good without being looked up: a token that another
/// process withdraws is good for so long here.
pub const TOKEN_KEPT: Duration = Duration::from_secs(3);

/// Memory is older than this only if the log of changes could not be read.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(2);

/// Entries of one kind; with more, the shelf is emptied. A Mac has some three kilobytes.
const MOST: usize = 200_000;

/// What can be forgotten.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    Session(SessionId),
    /// What is believed of a Mac.
    Mac(DeviceId),
    /// Which sessions are about a Mac.
    SessionsOf(DeviceId),
    /// The registry of releases.
    Releases,
    /// Who may ask.
    Tokens,
}

/// A session with all that its judgement needs, true at one moment.
#[derive(Debug, Clone)]
pub struct Glance {
    pub session: Arc<Session>,
    pub mac: Option<Arc<Believed>>,
    pub release: Result<(), Reason>,
}

/// A Mac with the sessions about it.
#[derive(Debug, Clone)]
pub struct MacGlance {
    pub mac: Arc<Believed>,
    pub sessions: Vec<(Arc<Session>, Result<(), Reason>)>,
}

/// The memory.
#[derive(Debug)]
pub struct Board {
    shelves: RwLock<Shelves>,
    /// False where another process may change what is kept here, and nobody watches it.
    is_kept: bool,
    /// Whether the log of changes has to be followed.
    follows: bool,
}

#[derive(Debug, Default)]
struct Shelves {
    sessions: HashMap<SessionId, Arc<Session>>,
    macs: HashMap<DeviceId, Arc<Believed>>,
    sessions_of: HashMap<DeviceId, Arc<[SessionId]>>,
    /// By the session's binaries, one after the other.
    releases: HashMap<SessionId, Result<(), Reason>>,
    tokens: HashMap<SecretHash, (Arc<ApiToken>, Instant)>,
    followed_at: Option<Instant>,
    /// Rises with everything that is forgotten.
    epoch: u64,
    /// How many are reading the database to fill this.
    fills: usize,
    /// What was forgotten while they were, and in which epoch: what they read may be older.
    forgotten: HashMap<Key, u64>,
    /// Everything was forgotten in this epoch.
    all_forgotten: u64,
}

/// Somebody reads the database to fill the board. Begun before the read, so that what changes
/// meanwhile is not kept as it was.
#[derive(Debug)]
pub struct Fill<'a> {
    board: &'a Board,
    epoch: u64,
}

impl Board {
    /// `is_kept`: no other process changes this database unseen; `follows`: others do, and the log
    /// says what.
    pub(super) fn new(is_kept: bool, follows: bool) -> Self {
        Self {
            shelves: RwLock::default(),
            is_kept,
            follows,
        }
    }

    /// The session and all that belongs to it, if all is known here.
    pub fn glance(&self, session_id: &SessionId) -> Option<Glance> {
        let shelves = self.current()?;
        let session = shelves.sessions.get(session_id)?;
        let mac = match &session.device_id {
            None => None,
            Some(device_id) => Some(Arc::clone(shelves.macs.get(device_id)?)),
        };
        Some(Glance {
            session: Arc::clone(session),
            mac,
            release: *shelves.releases.get(session_id)?,
        })
    }

    /// The Mac and the sessions about it, if all is known here.
    pub fn glance_at_mac(&self, device_id: &DeviceId) -> Option<MacGlance> {
        let shelves = self.current()?;
        let mac = Arc::clone(shelves.macs.get(device_id)?);
        let sessions = shelves.sessions_of.get(device_id)?.iter();
        let sessions = sessions.map(|session_id| {
            let session = Arc::clone(shelves.sessions.get(session_id)?);
            Some((session, *shelves.releases.get(session_id)?))
        });
        Some(MacGlance {
            mac,
            sessions: sessions.collect::<Option<_>>()?,
        })
    }

    /// A token that was good a moment ago.
    pub(super) fn token(&self, secret: &SecretHash) -> Option<Arc<ApiToken>> {
        let shelves = self.read();
        let (token, since) = shelves.tokens.get(secret)?;
        (since.elapsed() < TOKEN_KEPT).then(|| Arc::clone(token))
    }

    /// Before the database is read.
    pub fn begin(&self) -> Fill<'_> {
        let mut shelves = self.write();
        shelves.fills += 1;
        Fill {
            board: self,
            epoch: shelves.epoch,
        }
    }

    /// A commit changed these, all in one moment.
    pub(super) fn forget(&self, keys: impl IntoIterator<Item = Key>) {
        let mut shelves = self.write();
        shelves.epoch += 1;
        let epoch = shelves.epoch;
        for key in keys {
            match &key {
                Key::Session(session_id) => {
                    shelves.sessions.remove(session_id);
                    shelves.releases.remove(session_id);
                }
                Key::Mac(device_id) => {
                    shelves.macs.remove(device_id);
                }
                Key::SessionsOf(device_id) => {
                    shelves.sessions_of.remove(device_id);
                }
                Key::Releases => shelves.releases.clear(),
                Key::Tokens => shelves.tokens.clear(),
            }
            if shelves.fills > 0 {
                shelves.forgotten.insert(key, epoch);
            }
        }
    }

    /// The log of changes was read to its end, and all it named was forgotten. After a gap longer than
    /// the log is kept, everything was.
    pub(super) fn followed(&self, read_at: Instant, has_gap: bool) {
        let mut shelves = self.write();
        if has_gap {
            shelves.clear();
        }
        shelves.followed_at = Some(read_at);
    }

    /// What is kept, if it can be relied on.
    fn current(&self) -> Option<RwLockReadGuard<'_, Shelves>> {
        let shelves = self.read();
        let is_followed = || {
            let followed_at = shelves.followed_at;
            followed_at.is_some_and(|at| at.elapsed() < FOLLOWED_WITHIN)
        };
        (self.is_kept && (!self.follows || is_followed())).then_some(shelves)
    }

    fn read(&self) -> RwLockReadGuard<'_, Shelves> {
        self.shelves.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Shelves> {
        self.shelves.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelves {
    fn clear(&mut self) {
        self.epoch += 1;
        self.all_forgotten = self.epoch;
        self.sessions.clear();
        self.macs.clear();
        self.sessions_of.clear();
        self.releases.clear();
        self.tokens.clear();
    }

    /// Whether what was read since `epoch` began is what it is now.
    fn is_true(&self, key: &Key, epoch: u64) -> bool {
        self.all_forgotten <= epoch && self.forgotten.get(key).is_none_or(|at| *at <= epoch)
    }
}

fn keep<K: Eq + Hash, V>(shelf: &mut HashMap<K, V>, key: K, value: V) {
    if shelf.len() >= MOST {
        shelf.clear();
    }
    shelf.insert(key, value);
}

impl Fill<'_> {
    /// Keeps what was read, as far as nobody has changed it since.
    pub fn keep(&self, glance: &Glance) {
        if !self.board.is_kept {
            return;
        }
        let mut shelves = self.board.write();
        self.keep_session(&mut shelves, &glance.session, glance.release);
        if let Some(mac) = &glance.mac {
            self.keep_mac(&mut shelves, mac);
        }
    }

    /// Keeps what was read of a Mac and the sessions about it, as far as nobody has changed it since.
    pub fn keep_all(&self, glance: &MacGlance) {
        if !self.board.is_kept {
            return;
        }
        let mut shelves = self.board.write();
        self.keep_mac(&mut shelves, &glance.mac);
        for (session, release) in &glance.sessions {
            self.keep_session(&mut shelves, session, *release);
        }
        let device_id = glance.mac.device_id.clone();
        if shelves.is_true(&Key::SessionsOf(device_id.clone()), self.epoch) {
            let sessions = glance.sessions.iter();
            let sessions = sessions.map(|(session, _)| session.session_id.clone());
            keep(&mut shelves.sessions_of, device_id, sessions.collect());
        }
    }

    /// Keeps a token that was read at this moment.
    pub(super) fn keep_token(&self, token: &Arc<ApiToken>, read_at: Instant) {
        let mut shelves = self.board.write();
        if shelves.is_true(&Key::Tokens, self.epoch) {
            let entry = (Arc::clone(token), read_at);
            keep(&mut shelves.tokens, token.secret, entry);
        }
    }

    fn keep_session(
        &self,
        shelves: &mut Shelves,
        session: &Arc<Session>,
        release: Result<(), Reason>,
    ) {
        let session_id = session.session_id.clone();
        if !shelves.is_true(&Key::Session(session_id.clone()), self.epoch) {
            return;
        }
        keep(
            &mut shelves.sessions,
            session_id.clone(),
            Arc::clone(session),
        );
        if shelves.is_true(&Key::Releases, self.epoch) {
            keep(&mut shelves.releases, session_id, release);
        }
    }

    fn keep_mac(&self, shelves: &mut Shelves, mac: &Arc<Believed>) {
        if shelves.is_true(&Key::Mac(mac.device_id.clone()), self.epoch) {
            keep(&mut shelves.macs, mac.device_id.clone(), Arc::clone(mac));
        }
    }
}

impl Drop for Fill<'_> {
    fn drop(&mut self) {
        let mut shelves = self.board.write();
        shelves.fills -= 1;
        if shelves.fills == 0 {
            shelves.forgotten = HashMap::new();
        }
    }
}

impl Key {
    /// As the log of changes has it.
    pub(super) fn to_text(&self) -> String {
        match self {
            Self::Session(session_id) => format!("session {session_id}"),
            Self::Mac(device_id) => format!("mac {device_id}"),
            Self::SessionsOf(device_id) => format!("sessions_of {device_id}"),
            Self::Releases => "releases".to_owned(),
            Self::Tokens => "tokens".to_owned(),
        }
    }

    /// Reads what the log has.
    pub(super) fn from_text(text: &str) -> Option<Self> {
        let (kind, name) = text.split_once(' ').unwrap_or((text, ""));
        match kind {
            "session" => SessionId::parse(name).ok().map(Self::Session),
            "mac" => DeviceId::parse(name).ok().map(Self::Mac),
            "sessions_of" => DeviceId::parse(name).ok().map(Self::SessionsOf),
            "releases" => Some(Self::Releases),
            "tokens" => Some(Self::Tokens),
            _ => None,
        }
    }

    /// Those of the texts, each once.
    pub(super) fn distinct(texts: &[String]) -> HashSet<Self> {
        texts
            .iter()
            .filter_map(|text| Self::from_text(text))
            .collect()
    }
}
