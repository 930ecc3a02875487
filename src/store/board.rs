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
use crate::time::Timestamp;

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
    /// For whoever keeps a picture of everything; there once somebody does.
    marks: Option<Marks>,
}

/// What changed since it was asked for last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks {
    /// Anything may have changed.
    pub all: bool,
    pub sessions: HashSet<SessionId>,
    /// What is believed of these Macs.
    pub macs: HashSet<DeviceId>,
    pub releases: bool,
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

    /// How long ago the good verdicts were reached of the Macs that somebody asks about; none where
    /// memory cannot be relied on.
    pub fn verdict_ages(&self, now: Timestamp) -> Vec<Duration> {
        let Some(shelves) = self.current() else {
            return Vec::new();
        };
        let postures = shelves.macs.values().map(|mac| &mac.posture);
        postures
            .filter(|posture| posture.usable_until.is_some_and(|until| until > now))
            .map(|posture| now.since(posture.revised_at))
            .collect()
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
        let mut keys = keys.into_iter().peekable();
        if keys.peek().is_none() {
            return;
        }
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
            if let Some(marks) = &mut shelves.marks {
                marks.add(&key);
            }
            if shelves.fills > 0 {
                shelves.forgotten.insert(key, epoch);
            }
        }
    }

    /// What changed since this was called last; whoever reads afterwards reads it as it is now. At
    /// first, and where memory cannot be relied on, anything may have.
    pub fn take_marks(&self) -> Marks {
        let is_reliable = self.current().is_some();
        let marks = self.write().marks.replace(Marks::default());
        marks.filter(|_| is_reliable).unwrap_or_else(Marks::all)
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
        if let Some(marks) = &mut self.marks {
            *marks = Marks::all();
        }
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

impl Marks {
    fn all() -> Self {
        Self {
            all: true,
            ..Self::default()
        }
    }

    fn add(&mut self, key: &Key) {
        if self.all {
            return;
        }
        match key {
            Key::Session(session_id) => drop(self.sessions.insert(session_id.clone())),
            Key::Mac(device_id) => drop(self.macs.insert(device_id.clone())),
            Key::Releases => self.releases = true,
            // A session is named itself when it becomes about another Mac.
            Key::SessionsOf(_) | Key::Tokens => {}
        }
        if self.sessions.len() + self.macs.len() > MOST {
            *self = Self::all();
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SeededEntropy;
    use crate::ids::ApiTokenId;
    use crate::posture::Channel;
    use crate::posture::Posture;
    use crate::posture::appraisal::Relation;
    use crate::time::Timestamp;

    fn now() -> Timestamp {
        Timestamp::from_seconds(1_790_847_007)
    }

    fn mac(number: u64) -> MacGlance {
        let device_id = DeviceId::new(now(), &SeededEntropy::new(number));
        MacGlance {
            mac: Arc::new(Believed {
                posture: Posture::unknown(device_id.clone(), now()),
                device_id,
                serial: None,
                relation: Relation::NONE,
                channel: Channel::Software,
                attempt: Vec::new(),
            }),
            sessions: Vec::new(),
        }
    }

    fn keys(glance: &MacGlance) -> [Key; 1] {
        [Key::Mac(glance.mac.device_id.clone())]
    }

    fn is_kept(board: &Board, glance: &MacGlance) -> bool {
        board.glance_at_mac(&glance.mac.device_id).is_some()
    }

    #[test]
    fn what_was_changed_is_not_found_and_what_was_read_before_the_change_is_not_kept() {
        let board = Board::new(true, false);
        let (one, other) = (mac(1), mac(2));
        let fill = board.begin();
        fill.keep_all(&one);
        assert!(is_kept(&board, &one) && !is_kept(&board, &other));
        board.forget(keys(&one));
        assert!(!is_kept(&board, &one));
        // Read before the change, told of after it.
        fill.keep_all(&one);
        fill.keep_all(&other);
        assert!(!is_kept(&board, &one) && is_kept(&board, &other));
        // Read after it, by somebody who began later.
        board.begin().keep_all(&one);
        assert!(is_kept(&board, &one));
        fill.keep_all(&other);
        drop(fill);
        assert!(board.read().forgotten.is_empty(), "nobody reads any more");
    }

    #[test]
    fn nothing_is_kept_where_others_write_unseen() {
        let board = Board::new(false, false);
        let one = mac(1);
        board.begin().keep_all(&one);
        assert!(!is_kept(&board, &one));
    }

    #[test]
    fn without_the_log_of_changes_nothing_is_found() {
        let board = Board::new(true, true);
        let one = mac(1);
        board.begin().keep_all(&one);
        assert!(!is_kept(&board, &one));
        let fill = board.begin();
        board.followed(Instant::now(), true);
        assert!(
            !is_kept(&board, &one),
            "what was kept before the log was read is older"
        );
        fill.keep_all(&one);
        assert!(!is_kept(&board, &one), "and so is what was read before");
        board.begin().keep_all(&one);
        assert!(is_kept(&board, &one));
        let long_ago = Instant::now().checked_sub(FOLLOWED_WITHIN + Duration::from_millis(1));
        board.followed(long_ago.expect("this machine runs for longer"), false);
        assert!(!is_kept(&board, &one));
        board.followed(Instant::now(), false);
        assert!(is_kept(&board, &one));
    }

    #[test]
    fn whoever_keeps_a_picture_is_told_what_to_look_at_again() {
        let board = Board::new(true, false);
        let one = mac(1);
        board.forget(keys(&one));
        assert!(board.take_marks().all, "nobody has looked before");
        assert_eq!(board.take_marks(), Marks::default());
        board.forget(keys(&one));
        board.forget([Key::Releases, Key::Tokens]);
        let marks = Marks {
            macs: HashSet::from([one.mac.device_id.clone()]),
            releases: true,
            ..Marks::default()
        };
        assert_eq!(board.take_marks(), marks);
        assert_eq!(board.take_marks(), Marks::default());

        let unwatched = Board::new(false, false);
        for _ in 0..2 {
            assert!(unwatched.take_marks().all);
        }
        let follows = Board::new(true, true);
        assert!(follows.take_marks().all && follows.take_marks().all);
        follows.followed(Instant::now(), true);
        assert!(
            follows.take_marks().all,
            "what the log skipped is not known"
        );
        assert_eq!(follows.take_marks(), Marks::default());
    }

    #[test]
    fn a_token_is_kept_for_a_moment() {
        let board = Board::new(true, false);
        let token = Arc::new(ApiToken {
            api_token_id: ApiTokenId::new(now(), &SeededEntropy::new(1)),
            secret: SecretHash::of(b"secret"),
            role: "viewer".to_owned(),
            label: String::new(),
            created_at: now(),
            expires_at: None,
            revoked_at: None,
            last_used_at: None,
        });
        let fill = board.begin();
        fill.keep_token(&token, Instant::now());
        assert!(board.token(&token.secret).is_some());
        board.forget([Key::Tokens]);
        fill.keep_token(&token, Instant::now());
        assert!(board.token(&token.secret).is_none(), "withdrawn meanwhile");
        let long_ago = Instant::now().checked_sub(TOKEN_KEPT);
        let long_ago = long_ago.expect("this machine runs for longer");
        board.begin().keep_token(&token, long_ago);
        assert!(board.token(&token.secret).is_none());
    }

    #[test]
    fn the_log_names_what_is_forgotten() {
        let device_id = mac(1).mac.device_id.clone();
        let session_id = SessionId::parse("s:1").expect("a session");
        for key in [
            Key::Session(session_id),
            Key::Mac(device_id.clone()),
            Key::SessionsOf(device_id),
            Key::Releases,
            Key::Tokens,
        ] {
            assert_eq!(Key::from_text(&key.to_text()), Some(key));
        }
        assert_eq!(Key::from_text("mac nobody"), None);
    }
}
