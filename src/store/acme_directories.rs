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
#[derive(Debug)]
pub struct OpenDirectory {
    pub ticket: Ticket,
    /// Empty when nothing has happened yet.
    pub directory: Directory,
    /// Of what was read; 0 when nothing has happened yet.
    revision: i64,
}

/// An identity whose key Apple attested, to be recorded with the end of its order.
#[derive(Debug)]
pub struct AttestedIssuance<'a> {
    pub identity: &'a Identity,
    pub attested: &'a AttestedKey,
    pub step: &'a Entry,
    pub now: Timestamp,
}

#[derive(Debug, FromQueryResult)]
struct Found {
    revision: Option<i64>,
    body: Option<String>,
}

impl Store {
    /// The directory whose path has this secret.
    pub async fn acme_directory(
        &self,
        secret: SecretHash,
    ) -> Result<Option<OpenDirectory>, StoreError> {
        let connection = &self.0.connections.read;
        let statement = Statement::from_sql_and_values(
            connection.get_database_backend(),
            "SELECT t.*, d.revision, d.body FROM tickets t \
             LEFT JOIN acme_directories d ON d.ticket_id = t.ticket_id WHERE t.secret = $1",
            [Value::from(secret.as_bytes().to_vec())],
        );
        let Some(found) = connection.query_one_raw(statement).await? else {
            return Ok(None);
        };
        let ticket = row::read(tickets::Model::from_query_result(&found, "")?)?;
        let Found { revision, body } = Found::from_query_result(&found, "")?;
        let directory = match &body {
            None => Directory::default(),
            Some(body) => serde_json::from_str(body).map_err(|_| StoreError::Inconsistent {
                table: "acme_directories",
                id: ticket.ticket_id.to_string(),
            })?,
        };
        Ok(Some(OpenDirectory {
            ticket,
            directory,
            revision: revision.unwrap_or(0),
        }))
    }

    /// Keeps what happened under a directory since it was read, and how the identity step stands,
    /// durably.
    ///
    /// # Errors
    /// `Conflict` when somebody else wrote meanwhile.
    pub async fn save_acme_directory(
        &self,
        open: &OpenDirectory,
        step: Option<&Entry>,
    ) -> Result<(), StoreError> {
        let mut edits = vec![save(open)?];
        edits.extend(step.map(|entry| steps::put(&open.ticket.ticket_id, entry)));
        self.carry_out(edits).await?;
        if step.is_some() {
            self.0
                .announcer
                .changed(Watched::Steps(&open.ticket.ticket_id));
        }
        Ok(())
    }

    /// Uses the ticket up and records the identity, the statement it rests on and the end of its
    /// order: before the certificate leaves the house, all or nothing.
    ///
    /// # Errors
    /// `Conflict` when somebody else wrote meanwhile, or the ticket is no longer open.
    pub async fn record_attested_identity(
        &self,
        open: &OpenDirectory,
        issuance: &AttestedIssuance<'_>,
    ) -> Result<(), StoreError> {
        let ticket_id = &open.ticket.ticket_id;
        let identity = issuance.identity;
        self.carry_out(vec![
            tickets::redeem(ticket_id, issuance.now),
            identities::insert(identity),
            attested_keys::insert(identity.certificate, issuance.attested)?,
            steps::put(ticket_id, issuance.step),
            save(open)?,
        ])
        .await?;
        self.0.announcer.changed(Watched::Steps(ticket_id));
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
