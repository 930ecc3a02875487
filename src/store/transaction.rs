//! Reading and writing transactions. Dropping one rolls it back.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use sea_orm::{ConnectionTrait, DatabaseTransaction, Statement, Value};
use tokio::sync::OwnedMutexGuard;

use super::Inner;
use super::agendas::{self, News};
use super::board::Key;
use super::changes;
use super::error::StoreError;
use super::watch::Watched;
use crate::audit::Entry;
use crate::ids::{DeviceId, TicketId};
use crate::provider::Session;
use crate::verification::Agenda;

/// Holding it makes the other writers of a device, and the reader of the outbox, wait
/// (PostgreSQL); any fixed number of our own.
pub(super) const OUTBOX_LOCK: i64 = 0x6174_7465_7374_6400;

/// A transaction that reads one state of the database.
pub struct Read {
    tx: DatabaseTransaction,
    inner: Arc<Inner>,
}

/// The one write transaction of a flow. It has every look-up of [`Read`].
///
/// On SQLite it is alone. On PostgreSQL it shares the database; look-ups by which a flow goes on to
/// change a Mac (`enrollment`, `verification`, `open_verification`, `posture`) lock that Mac until
/// the end of the transaction, so that what was read is still true when it is written.
pub struct Write {
    // Dropped in this order: the rollback is on its way before the next writer may begin.
    read: Read,
    touched: BTreeSet<DeviceId>,
    /// Enrolments whose steps change.
    stepped: BTreeSet<TicketId>,
    /// What was stored and the agendas of its Macs follow.
    news: BTreeMap<DeviceId, News>,
    /// What memory must forget.
    keys: BTreeSet<Key>,
    /// What the audit log tells of it.
    audited: Vec<Entry>,
    appended: bool,
    /// The lock of the outbox is held.
    in_order: bool,
    baton: Option<OwnedMutexGuard<()>>,
}

impl Read {
    pub(super) fn new(tx: DatabaseTransaction, inner: Arc<Inner>) -> Self {
        Self { tx, inner }
    }

    pub(super) fn tx(&self) -> &DatabaseTransaction {
        &self.tx
    }

    pub(super) fn inner(&self) -> &Inner {
        &self.inner
    }
}

impl Write {
    pub(super) fn new(read: Read, baton: Option<OwnedMutexGuard<()>>) -> Self {
        Self {
            read,
            touched: BTreeSet::new(),
            stepped: BTreeSet::new(),
            news: BTreeMap::new(),
            keys: BTreeSet::new(),
            audited: Vec::new(),
            appended: false,
            in_order: false,
            baton,
        }
    }

    /// Makes everything done so far durable.
    ///
    /// It runs to its end even when the caller goes away meanwhile: what memory says of the
    /// devices must follow what was committed.
    ///
    /// # Errors
    /// `Unavailable`, when nobody knows whether it was committed; `NotTheOwner`.
    pub async fn commit(mut self) -> Result<(), StoreError> {
        for (device_id, news) in std::mem::take(&mut self.news) {
            agendas::follow(&self, &device_id, news).await?;
        }
        self.note_changes().await?;
        let audited = std::mem::take(&mut self.audited);
        self.append_to_audit(&audited).await?;
        let Self {
            read: Read { tx, inner },
            touched,
            stepped,
            keys,
            appended,
            baton,
            ..
        } = self;
        // Tokens are kept for moments only, and the registry is followed, so that a command may change
        // them beside the server.
        let may_change = |key: &Key| matches!(key, Key::Tokens | Key::Releases);
        let needs_owner = !keys.iter().all(may_change);
        if needs_owner && !inner.may_touch_devices() {
            tx.rollback().await?;
            return Err(StoreError::NotTheOwner);
        }
        let finish = tokio::spawn(async move {
            let committed = tx.commit().await;
            inner.board.forget(keys);
            for device_id in &touched {
                inner.renew(device_id).await;
                inner.announcer.changed(Watched::Device(device_id));
            }
            for ticket_id in &stepped {
                inner.announcer.changed(Watched::Steps(ticket_id));
            }
            if appended {
                inner.announcer.appended();
            }
            drop(baton);
            committed
        });
        Ok(finish.await.map_err(StoreError::unavailable)??)
    }

    /// This transaction changes what is known of a device.
    pub(super) fn touch(&mut self, device_id: &DeviceId) {
        if !self.touched.contains(device_id) {
            self.touched.insert(device_id.clone());
        }
        self.changes(Key::Mac(device_id.clone()));
    }

    /// This transaction changes what memory may hold.
    pub(super) fn changes(&mut self, key: Key) {
        self.keys.insert(key);
    }

    /// Tells the audit log of what this transaction changes: there if it is committed, and only then.
    pub fn record(&mut self, entry: Entry) {
        self.audited.push(entry);
    }

    /// This transaction changes a session.
    pub(super) fn session_changes(&mut self, session: &Session) {
        self.changes(Key::Session(session.session_id.clone()));
        if let Some(device_id) = &session.device_id {
            self.changes(Key::SessionsOf(device_id.clone()));
        }
    }

    /// Whether nobody else can write until the end (SQLite), so that nothing need be locked.
    pub fn is_alone(&self) -> bool {
        self.inner.connections.backend.is_sqlite()
    }

    /// Tells the other servers on a PostgreSQL what changed.
    async fn note_changes(&mut self) -> Result<(), StoreError> {
        if self.is_alone() || self.keys.is_empty() {
            return Ok(());
        }
        self.take_turn().await?;
        let keys: Vec<_> = self.keys.iter().cloned().collect();
        match changes::note(&keys) {
            Some(edit) => edit.apply(self.tx()).await,
            None => Ok(()),
        }
    }

    /// Something that the agenda of this Mac must follow; it does before the end.
    pub(super) fn news(&mut self, device_id: &DeviceId) -> &mut News {
        self.news.entry(device_id.clone()).or_default()
    }

    /// As stored, before what this transaction changes is followed.
    pub(super) fn agenda_to_be(&self, device_id: &DeviceId) -> Option<&Agenda> {
        self.news.get(device_id)?.agenda.as_ref()
    }

    /// This transaction changes the steps of an enrolment.
    pub(super) fn step(&mut self, ticket_id: &TicketId) {
        self.stepped.insert(ticket_id.clone());
    }

    /// Keeps other writers off a Mac until the end. Returns whether there is such a Mac.
    pub(super) async fn lock_device(&self, device_id: &DeviceId) -> Result<bool, StoreError> {
        let sql = if self.inner.connections.backend.is_sqlite() {
            "SELECT 1 FROM enrollments WHERE device_id = $1"
        } else {
            "SELECT 1 FROM enrollments WHERE device_id = $1 FOR UPDATE"
        };
        let statement = Statement::from_sql_and_values(
            self.tx.get_database_backend(),
            sql,
            [Value::from(device_id.as_str())],
        );
        Ok(self.tx.query_one_raw(statement).await?.is_some())
    }

    /// Events are about to be appended: on PostgreSQL the reader of the outbox must wait for this
    /// transaction, or it would skip events that are numbered now and committed later.
    pub(super) async fn lock_outbox(&mut self) -> Result<(), StoreError> {
        self.appended = true;
        self.take_turn().await
    }

    async fn take_turn(&mut self) -> Result<(), StoreError> {
        if !self.in_order {
            self.in_order = true;
            if !self.is_alone() {
                let share = format!("SELECT pg_advisory_xact_lock_shared({OUTBOX_LOCK})");
                self.read.tx.execute_unprepared(&share).await?;
            }
        }
        Ok(())
    }
}

impl Deref for Write {
    type Target = Read;

    fn deref(&self) -> &Read {
        &self.read
    }
}

impl fmt::Debug for Read {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Read")
    }
}

impl fmt::Debug for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Write")
            .field("touched", &self.touched)
            .finish_non_exhaustive()
    }
}
