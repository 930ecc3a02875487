//! Stored state: the only place with SQL.
//!
//! [`Store::read`] and [`Store::write`] give transactions; a flow has at most one write and commits
//! it before any effect. [`Store::identify`] and [`Store::exchange`] are the hot path: on SQLite an
//! Idle that is owed nothing is answered from memory, and replies that arrive together are made
//! durable by one commit, each decided under a savepoint of its own. Tickets and their ACME
//! directories, and what a verdict is made of ([`Store::glimpse`]), are looked up there without the
//! ORM's threads.
//!
//! SQLite has one writing server (a lock file sees to it); within it one fair baton lets one writer
//! in at a time. PostgreSQL has any number of equal servers; there a row lock on the enrollment
//! keeps two writers off one Mac, and nothing is answered from memory.
//!
//! Values that must not be read from a stolen disk (private keys, push addresses, bootstrap tokens)
//! are sealed by the [`Sealer`] given at opening, each bound to its table, column and row.

mod acme_directories;
mod agendas;
mod api_tokens;
mod asked_verifications;
mod attested_keys;
mod audit;
mod bindings;
mod board;
mod catalog;
mod changes;
mod commands;
mod cosignatures;
mod database;
mod directories;
mod due;
mod edit;
mod enroll_requests;
mod enrollments;
mod error;
mod events;
mod evidence;
mod exchange;
mod glimpse;
mod identities;
mod log;
mod lookup;
mod meta;
mod nonces;
mod old;
mod policies;
mod postures;
mod push_addresses;
mod push_canaries;
mod push_certificates;
mod push_proposals;
mod push_requests;
mod rebuild;
mod refusals;
mod relayed;
mod releases;
mod restored;
mod result_keys;
mod review;
mod roster;
mod row;
mod sealed_values;
mod seen;
mod signal_receivers;
mod signal_streams;
mod signal_tokens;
mod snapshot;
mod steps;
mod tickets;
mod token_use;
mod transaction;
mod turns;
mod verifications;
mod watch;
mod webhooks;

use std::fs::File;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, PoisonError, RwLock};

use migrations::{Migrator, MigratorTrait};
use tokio::sync::Mutex;
use tokio::sync::watch::Receiver;

pub use self::acme_directories::{AttestedIssuance, OpenDirectory};
pub use self::api_tokens::ApiToken;
pub use self::asked_verifications::{Answered, Asked};
pub use self::bindings::IssuedChallenge;
pub use self::board::{Board, Fill, Glance, MacGlance, Marks, TOKEN_KEPT};
pub use self::cosignatures::Cosigned;
use self::database::{Backend, Connections};
use self::directories::Directories;
pub use self::enrollments::Sieve;
pub use self::error::{Cause, StoreError};
pub use self::events::{Event, EventPage, NumberedEvent};
pub use self::evidence::Evidence;
use self::exchange::sqlite::Writer;
pub use self::exchange::{Changes, Exchange};
pub use self::glimpse::{Glimpse, Standpoint};
use self::lookup::Lookup;
pub use self::old::Removed;
pub use self::push_canaries::Trial;
pub use self::push_certificates::PushCertificate;
pub use self::push_requests::PushRequest;
pub use self::rebuild::{Rebuild, Rebuilt, occupants};
pub use self::refusals::Refusal;
pub use self::relayed::{Relay, Relayed, RelayedAnswer, relayed_place};
pub use self::releases::{ReleaseAction, ReleaseEntry};
pub use self::review::Review;
use self::roster::Roster;
pub use self::roster::{Known, Speaker};
pub use self::sealed_values::{Gone, Look, SEALED, SealedColumn};
use self::seen::Seen;
pub use self::signal_streams::SignalStream;
pub use self::signal_tokens::{HeldSignal, NewSignal};
pub use self::snapshot::Snapshot;
use self::token_use::TokenUse;
pub use self::transaction::{Read, Write};
use self::watch::Announcer;
pub use self::watch::{Watch, Watched};
pub use self::webhooks::{DeadLetter, Webhook};
use crate::ids::{CertificateHash, CommandUuid, DeviceId};
use crate::secret::Sealer;
use crate::verification::agenda::Rules;

/// One database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Ends first, so that its connection is closed when the others go.
    writer: Option<Writer>,
    /// There with the writer.
    lookup: Option<Lookup>,
    connections: Connections,
    sealer: Arc<dyn Sealer>,
    /// Who holds it may write (SQLite).
    baton: Arc<Mutex<()>>,
    roster: Arc<Roster>,
    directories: Directories,
    announcer: Arc<Announcer>,
    board: Arc<Board>,
    /// Whose turn it is to wait for those who commit late (PostgreSQL).
    late: Mutex<()>,
    /// How far the log of changes was read.
    position: changes::Position,
    /// The generation of the registry of releases that memory was last brought up to.
    releases_seen: AtomicI64,
    seen: Seen,
    token_use: TokenUse,
    /// By what agendas are kept.
    rules: RwLock<Arc<Rules>>,
    /// Held as long as the store is open.
    _lock: Option<File>,
}

impl Store {
    /// Opens a database (`sqlite:///path/to/file.db` or `postgres://…`) beside whoever else has it
    /// open. On SQLite the file must be there, and such a store may not change what is about a Mac.
    /// Does not migrate.
    ///
    /// # Errors
    /// `AddressMalformed`, `Unavailable`.
    pub async fn open(url: &str, sealer: Arc<dyn Sealer>) -> Result<Self, StoreError> {
        Self::assemble(url, sealer, None).await
    }

    /// Opens a database as the server that owns it: on SQLite there is at most one at a time, and
    /// the file is made when it is not there. On PostgreSQL it is the same as [`Store::open`].
    ///
    /// # Errors
    /// As [`Store::open`]; `InUse`, `LockFile`.
    pub async fn open_exclusive(url: &str, sealer: Arc<dyn Sealer>) -> Result<Self, StoreError> {
        let lock = match Backend::of(url)? {
            Backend::Sqlite(path) => Some(database::lock(&path)?),
            Backend::Postgres => None,
        };
        Self::assemble(url, sealer, lock).await
    }

    async fn assemble(
        url: &str,
        sealer: Arc<dyn Sealer>,
        lock: Option<File>,
    ) -> Result<Self, StoreError> {
        let connections = database::connect(url, lock.is_some()).await?;
        let baton = Arc::default();
        let roster = Arc::default();
        let announcer = Arc::new(Announcer::new());
        let is_sqlite = connections.backend.is_sqlite();
        let board = Arc::new(Board::new(lock.is_some() || !is_sqlite, !is_sqlite));
        let (writer, lookup) = match (&connections.backend, &lock) {
            (Backend::Sqlite(path), Some(_)) => {
                let writer = Writer::start(path, &baton, &roster, &announcer, &board)?;
                (Some(writer), Some(Lookup::open(path)?))
            }
            _ => (None, None),
        };
        let store = Self(Arc::new(Inner {
            writer,
            lookup,
            connections,
            sealer,
            baton,
            roster,
            directories: Directories::default(),
            announcer,
            board,
            late: Mutex::default(),
            position: changes::Position::default(),
            releases_seen: AtomicI64::default(),
            seen: Seen::default(),
            token_use: TokenUse::default(),
            rules: RwLock::new(Arc::new(Rules::usual())),
            _lock: lock,
        }));
        if store.schema_is_current().await? {
            store.0.load_roster().await?;
        }
        Ok(store)
    }

    /// Brings the schema up to date.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        let _baton = self.0.baton.lock().await;
        let connections = &self.0.connections;
        // Other nodes that start at the same moment wait here, then find nothing to do.
        let alone = connections.alone_with_the_schema().await?;
        Migrator::up(&connections.write, None).await?;
        if let Some(alone) = alone {
            alone.commit().await?;
        }
        self.0.load_roster().await
    }

    /// Whether no step of the schema history was ever applied: nobody keeps anything here yet.
    pub async fn is_new(&self) -> Result<bool, StoreError> {
        let pending = Migrator::get_pending_migrations_read_only(&self.0.connections.write).await?;
        Ok(pending.len() == Migrator::migrations().len())
    }

    /// Whether every step of the schema history was applied.
    pub async fn schema_is_current(&self) -> Result<bool, StoreError> {
        let pending = Migrator::get_pending_migrations_read_only(&self.0.connections.write).await?;
        Ok(pending.is_empty())
    }

    /// Keeps agendas by these rules from now on; [`Rules::usual`] until then. An agenda that was kept
    /// by others follows with the next thing that is stored of its Mac.
    pub fn keep_agendas_by(&self, rules: Rules) {
        *self.0.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
    }

    /// A transaction that reads.
    pub async fn read(&self) -> Result<Read, StoreError> {
        let connections = &self.0.connections;
        let tx = connections.backend.begin_read(&connections.read).await?;
        Ok(Read::new(tx, Arc::clone(&self.0)))
    }

    /// A transaction that writes. On SQLite it waits for its turn, so whoever holds one must not
    /// ask for another, nor for an exchange, before it is committed or dropped.
    pub async fn write(&self) -> Result<Write, StoreError> {
        let connections = &self.0.connections;
        let baton = if connections.backend.is_sqlite() {
            Some(Arc::clone(&self.0.baton).lock_owned().await)
        } else {
            None
        };
        let tx = connections.backend.begin_write(&connections.write).await?;
        Ok(Write::new(Read::new(tx, Arc::clone(&self.0)), baton))
    }

    /// Whether the database answers and, on SQLite, its writer runs.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.0.connections.read.ping().await?;
        match &self.0.writer {
            Some(writer) => writer.check(),
            None => Ok(()),
        }
    }

    /// Who speaks with this certificate; `None` when it was never issued here.
    ///
    /// On SQLite the current identity of an enrolled Mac is found in memory.
    pub async fn identify(
        &self,
        certificate: CertificateHash,
    ) -> Result<Option<Known>, StoreError> {
        if let Some(speaker) = self.0.roster.find(&certificate) {
            return Ok(Some(Known::Bound(speaker)));
        }
        let connection = &self.0.connections.read;
        if let Some(speaker) = roster::speaker_of(connection, &certificate).await? {
            return Ok(Some(Known::Bound(Arc::new(speaker))));
        }
        let issued = identities::find(connection, &certificate).await?;
        Ok(issued.map(|identity| Known::Issued(Box::new(identity))))
    }

    /// One message of one Mac: loads what it is about, lets `decide` judge it, and makes what it
    /// decided durable before this returns. `None` when there is no such Mac.
    ///
    /// Nothing else changes the Mac between loading and writing. `decide` runs on the writer's
    /// thread and holds everybody up: it must not wait for anything.
    ///
    /// # Errors
    /// `Unavailable`, `Conflict`, `Inconsistent`, `DecisionPanicked`, `NotTheOwner`. The decision is
    /// then not kept; after an `Unavailable` in the commit nobody knows.
    pub async fn exchange<T: Send + 'static>(
        &self,
        device_id: &DeviceId,
        command_uuid: Option<&CommandUuid>,
        nonce: Option<[u8; 32]>,
        decide: impl FnOnce(Exchange) -> (Changes, T) + Send + 'static,
    ) -> Result<Option<T>, StoreError> {
        let about = exchange::About {
            device_id: device_id.clone(),
            command_uuid: command_uuid.cloned(),
            nonce,
        };
        match (&self.0.writer, &self.0.connections.backend) {
            (Some(writer), _) => writer.exchange(about, self.0.rules(), decide).await,
            (None, Backend::Postgres) => exchange::postgres::exchange(&self.0, about, decide).await,
            (None, Backend::Sqlite(_)) => Err(StoreError::NotTheOwner),
        }
    }

    /// Carries edits out, all or none, durably, in one step. They must not be about a Mac's own rows,
    /// which [`Store::exchange`] keeps in step with memory.
    async fn carry_out(&self, edits: Vec<edit::Edit>) -> Result<(), StoreError> {
        if let Some(writer) = &self.0.writer {
            return writer.write(edits).await;
        }
        let tx = self.write().await?;
        if self.0.connections.backend.is_sqlite() {
            for edit in edits {
                edit.apply(tx.tx()).await?;
            }
        } else {
            exchange::postgres::write_all(tx.tx(), edits).await?;
        }
        tx.commit().await
    }

    /// Waits for commits of this process that change a Mac, or the steps of an enrolment.
    pub fn watch(&self, subject: Watched<'_>) -> Watch {
        self.0.announcer.follow(subject)
    }

    /// What is kept in memory for those who ask often.
    pub fn board(&self) -> &Board {
        &self.0.board
    }

    /// Changes whenever a commit of this process appended events.
    pub fn events_appended(&self) -> Receiver<u64> {
        self.0.announcer.follow_events()
    }

    /// Whether this process is the only one that serves from this database, now and as long as it
    /// is open.
    pub fn is_ours_alone(&self) -> bool {
        self.0.writer.is_some()
    }

    /// `sqlite` or `postgresql`.
    pub fn backend(&self) -> &'static str {
        self.0.connections.backend.name()
    }
}

impl Inner {
    fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether this process may change what is about a Mac.
    fn may_touch_devices(&self) -> bool {
        self.writer.is_some() || !self.connections.backend.is_sqlite()
    }

    async fn load_roster(&self) -> Result<(), StoreError> {
        if self.writer.is_some() {
            self.roster.load(&self.connections.write).await?;
        }
        Ok(())
    }

    async fn renew(&self, device_id: &DeviceId) {
        if self.writer.is_some() {
            self.roster.renew(&self.connections.write, device_id).await;
        }
    }
}
