//! What happened under each ticket's ACME directory, as one body with a revision: whoever writes
//! names the revision it read, so that of two requests at once one wins and the other looks again.

use sea_orm::{ConnectionTrait as _, FromQueryResult, Statement, Value};

use super::edit::{Datum, Edit};
use super::row;
use super::{Read, Store, StoreError, Watched, Write, attested_keys, identities, steps, tickets};
use crate::acme::{AttestedKey, Directory};
use crate::enrollment::trace::Entry;
use crate::enrollment::{Identity, Ticket};
use crate::ids::SecretHash;
use crate::time::Timestamp;

/// A ticket and what happened under its directory.
#[derive(Debug, Clone)]
pub struct OpenDirectory {
    pub ticket: Ticket,
    /// Empty when nothing has happened yet.
    pub directory: Directory,
    /// Of what was read; 0 when nothing has happened yet.
    pub(super) revision: i64,
}

/// An identity whose key Apple attested, to be recorded with the end of its order.
#[derive(Debug)]
pub struct AttestedIssuance<'a> {
    pub identity: &'a Identity,
    pub attested: &'a AttestedKey,
    pub step: &'a Entry,
    pub now: Timestamp,
}

/// A ticket's row, and the one of its directory if there is one.
struct Found {
    ticket: tickets::Model,
    revision: Option<i64>,
    body: Option<String>,
}

const FIND: &str = concat!(
    "SELECT ",
    tickets::columns!(),
    ", d.revision, d.body FROM tickets t \
     LEFT JOIN acme_directories d ON d.ticket_id = t.ticket_id WHERE t.secret = $1"
);

impl Store {
    /// The directory whose path has this secret.
    pub async fn acme_directory(
        &self,
        secret: SecretHash,
    ) -> Result<Option<OpenDirectory>, StoreError> {
        let Some(lookup) = &self.0.lookup else {
            return self.find_directory(secret).await?.map(opened).transpose();
        };
        if let Some(open) = self.0.directories.find(&secret) {
            return Ok(Some(open));
        }
        let found = lookup.one(FIND, [secret.as_bytes()], |row| {
            Ok(Found {
                ticket: tickets::Model::from_row(row)?,
                revision: row.get(tickets::Model::COLUMNS)?,
                body: row.get(tickets::Model::COLUMNS + 1)?,
            })
        })?;
        let open = found.map(opened).transpose()?;
        if let Some(open) = &open {
            self.0.directories.keep(open.clone());
        }
        Ok(open)
    }

    async fn find_directory(&self, secret: SecretHash) -> Result<Option<Found>, StoreError> {
        let connection = &self.0.connections.read;
        let statement = Statement::from_sql_and_values(
            connection.get_database_backend(),
            FIND,
            [Value::from(secret.as_bytes().to_vec())],
        );
        let Some(found) = connection.query_one_raw(statement).await? else {
            return Ok(None);
        };
        Ok(Some(Found {
            ticket: tickets::Model::from_query_result(&found, "")?,
            revision: found.try_get("", "revision")?,
            body: found.try_get("", "body")?,
        }))
    }

    /// Keeps what happened under a directory since it was read, and how the identity step stands,
    /// durably.
    ///
    /// # Errors
    /// `Conflict` when somebody else wrote meanwhile.
    pub async fn save_acme_directory(
        &self,
        open: OpenDirectory,
        step: Option<&Entry>,
    ) -> Result<(), StoreError> {
        let mut edits = vec![save(&open)?];
        edits.extend(step.map(|entry| steps::put(&open.ticket.ticket_id, entry)));
        self.change_directory(open, edits, step.is_some()).await
    }

    /// Uses the ticket up and records the identity, the statement it rests on and the end of its
    /// order: before the certificate leaves the house, all or nothing.
    ///
    /// # Errors
    /// `Conflict` when somebody else wrote meanwhile, or the ticket is no longer open.
    pub async fn record_attested_identity(
        &self,
        mut open: OpenDirectory,
        issuance: &AttestedIssuance<'_>,
    ) -> Result<(), StoreError> {
        let ticket_id = &open.ticket.ticket_id;
        let identity = issuance.identity;
        let edits = vec![
            tickets::redeem(ticket_id, issuance.now),
            identities::insert(identity),
            attested_keys::insert(identity.certificate, issuance.attested)?,
            steps::put(ticket_id, issuance.step),
            save(&open)?,
        ];
        open.ticket.used_at = Some(issuance.now);
        self.change_directory(open, edits, true).await
    }

    /// Carries out what makes a directory what it is now.
    async fn change_directory(
        &self,
        mut open: OpenDirectory,
        edits: Vec<Edit>,
        stepped: bool,
    ) -> Result<(), StoreError> {
        let inner = &self.0;
        if let Err(error) = self.carry_out(edits).await {
            inner.directories.forget(&open.ticket.secret);
            return Err(error);
        }
        if stepped {
            let ticket_id = &open.ticket.ticket_id;
            inner.announcer.changed(Watched::Steps(ticket_id));
        }
        if inner.lookup.is_some() {
            open.revision += 1;
            inner.directories.keep(open);
        }
        Ok(())
    }
}

impl Read {
    /// Whether there are directories of tickets that ended before `now`.
    pub async fn has_ended_acme_directories(&self, now: Timestamp) -> Result<bool, StoreError> {
        let statement = Statement::from_sql_and_values(
            self.tx().get_database_backend(),
            "SELECT 1 FROM acme_directories WHERE expires_at <= $1 LIMIT 1",
            [Value::from(now.millis())],
        );
        Ok(self.tx().query_one_raw(statement).await?.is_some())
    }
}

impl Write {
    /// Forgets the directories of tickets that ended before `now`, abandoned orders with them; what
    /// was issued is remembered as an identity. Returns how many.
    pub async fn forget_acme_directories(&mut self, now: Timestamp) -> Result<u64, StoreError> {
        let statement = Statement::from_sql_and_values(
            self.tx().get_database_backend(),
            "DELETE FROM acme_directories WHERE expires_at <= $1",
            [Value::from(now.millis())],
        );
        Ok(self.tx().execute_raw(statement).await?.rows_affected())
    }
}

fn opened(found: Found) -> Result<OpenDirectory, StoreError> {
    let ticket = row::read(found.ticket)?;
    let directory = match &found.body {
        None => Directory::default(),
        Some(body) => serde_json::from_str(body).map_err(|_| StoreError::Inconsistent {
            table: "acme_directories",
            id: ticket.ticket_id.to_string(),
        })?,
    };
    Ok(OpenDirectory {
        ticket,
        directory,
        revision: found.revision.unwrap_or(0),
    })
}

fn save(open: &OpenDirectory) -> Result<Edit, StoreError> {
    Ok(Edit::that_must_change(
        "INSERT INTO acme_directories (ticket_id, revision, expires_at, body) \
         VALUES ($1, $2, $3, $4) ON CONFLICT (ticket_id) DO UPDATE \
         SET revision = excluded.revision, body = excluded.body \
         WHERE acme_directories.revision = excluded.revision - 1",
        [
            Datum::text(&open.ticket.ticket_id),
            Datum::int(open.revision + 1),
            Datum::int(open.ticket.expires_at.millis()),
            Datum::text(row::body("an ACME directory", &open.directory)?),
        ],
    ))
}
