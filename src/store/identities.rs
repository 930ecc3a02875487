//! Identity certificates this service issued. One speaks for at most one Mac, for ever.

use sea_orm::entity::prelude::*;
use sea_orm::{
    Condition, ConnectionTrait, DatabaseConnection, QueryOrder, QuerySelect, Statement, Value,
    sea_query::Expr,
};

use super::edit::{Datum, Edit};
use super::row::{self, Row};
use super::{Read, Store, StoreError, Watched, Write, steps, tickets};
use crate::enrollment::trace::Entry;
use crate::enrollment::{Identity, IdentityKind, Ticket};
use crate::ids::{CertificateHash, DeviceId, SerialNumber, TicketId};
use crate::pki::Certificate;
use crate::time::Timestamp;

mod table {
    use sea_orm::entity::prelude::*;

    #[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "identities")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub certificate: Vec<u8>,
        pub der: Vec<u8>,
        pub kind: String,
        pub ticket_id: Option<String>,
        pub serial: Option<String>,
        pub device_id: Option<String>,
        pub issued_at: i64,
        pub not_before: i64,
        pub not_after: i64,
        pub revoked_at: Option<i64>,
        pub transaction_id: Option<String>,
        pub renews: Option<Vec<u8>>,
    }

    #[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

use table::{Column, Entity, Model};

/// The identity, outside a transaction.
pub(super) async fn find(
    connection: &DatabaseConnection,
    certificate: &CertificateHash,
) -> Result<Option<Identity>, StoreError> {
    let key = certificate.as_bytes().to_vec();
    row::read_one(Entity::find_by_id(key).one(connection).await?)
}

impl Read {
    /// The identity with this certificate.
    pub async fn identity(
        &self,
        certificate: CertificateHash,
    ) -> Result<Option<Identity>, StoreError> {
        let key = certificate.as_bytes().to_vec();
        row::read_one(Entity::find_by_id(key).one(self.tx()).await?)
    }

    /// What was issued to a ticket under a SCEP transactionID.
    pub async fn identity_of_transaction(
        &self,
        ticket_id: &TicketId,
        transaction_id: &str,
    ) -> Result<Option<Identity>, StoreError> {
        let found = Entity::find()
            .filter(Column::TicketId.eq(ticket_id.as_str()))
            .filter(Column::TransactionId.eq(transaction_id))
            .one(self.tx())
            .await?;
        row::read_one(found)
    }

    /// What was issued under a SCEP transactionID, whoever chose it, the newest first.
    pub async fn identities_of_transaction(
        &self,
        transaction_id: &str,
        limit: usize,
    ) -> Result<Vec<Identity>, StoreError> {
        let found = Entity::find()
            .filter(Column::TransactionId.eq(transaction_id))
            .order_by_desc(Column::IssuedAt)
            .limit(row::limited(limit))
            .all(self.tx())
            .await?;
        row::read_all(found)
    }

    /// What was issued to renew an identity under a SCEP transactionID.
    pub async fn renewal_of_transaction(
        &self,
        renewed: CertificateHash,
        transaction_id: &str,
    ) -> Result<Option<Identity>, StoreError> {
        let found = Entity::find()
            .filter(Column::Renews.eq(renewed.as_bytes().to_vec()))
            .filter(Column::TransactionId.eq(transaction_id))
            .one(self.tx())
            .await?;
        row::read_one(found)
    }

    /// How many enrolled Macs have an identity that ends before `time`.
    pub async fn identities_ending(&self, time: Timestamp) -> Result<u64, StoreError> {
        let statement = Statement::from_sql_and_values(
            self.tx().get_database_backend(),
            "SELECT COUNT(*) FROM enrollments e JOIN identities i ON i.certificate = e.identity \
             WHERE e.state = 'enrolled' AND i.not_after < $1",
            [Value::from(time.millis())],
        );
        let row = self.tx().query_one_raw(statement).await?;
        let counted: i64 = match row {
            Some(row) => row.try_get_by_index(0)?,
            None => 0,
        };
        Ok(u64::try_from(counted).unwrap_or_default())
    }

    /// The identities with these certificates, of those that were issued here; in no order.
    pub async fn identities(
        &self,
        certificates: &[CertificateHash],
    ) -> Result<Vec<Identity>, StoreError> {
        let keys = certificates.iter().map(|hash| hash.as_bytes().to_vec());
        let found = Entity::find()
            .filter(Column::Certificate.is_in(keys))
            .all(self.tx())
            .await?;
        row::read_all(found)
    }

    /// Every identity that ever spoke for a Mac, the oldest first.
    pub async fn identities_of(&self, device_id: &DeviceId) -> Result<Vec<Identity>, StoreError> {
        let found = Entity::find()
            .filter(Column::DeviceId.eq(device_id.as_str()))
            .order_by_asc(Column::IssuedAt)
            .all(self.tx())
            .await?;
        row::read_all(found)
    }
}

impl Store {
    /// Uses a ticket up and records the identity it bought, before the certificate leaves the
    /// house, all or nothing.
    ///
    /// # Errors
    /// `Conflict` when the ticket is no longer open, or the certificate or the ticket's
    /// transactionID was recorded already.
    pub async fn record_identity(
        &self,
        identity: &Identity,
        ticket: &Ticket,
        step: &Entry,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.carry_out(vec![
            tickets::redeem(&ticket.ticket_id, now),
            insert(identity),
            steps::put(&ticket.ticket_id, step),
        ])
        .await?;
        self.0.announcer.changed(Watched::Steps(&ticket.ticket_id));
        Ok(())
    }
}

impl Write {
    /// Records an issuance: before the certificate leaves the house.
    ///
    /// # Errors
    /// `Conflict` when the certificate, or the ticket's transactionID, was recorded already.
    pub async fn insert_identity(&mut self, identity: &Identity) -> Result<(), StoreError> {
        insert(identity).apply(self.tx()).await
    }

    /// Binds a certificate to a Mac. False when it is bound to another, or was never issued.
    pub async fn bind(
        &mut self,
        certificate: CertificateHash,
        device_id: &DeviceId,
    ) -> Result<bool, StoreError> {
        self.touch(device_id);
        let free_or_same = Condition::any()
            .add(Column::DeviceId.is_null())
            .add(Column::DeviceId.eq(device_id.as_str()));
        let outcome = Entity::update_many()
            .col_expr(Column::DeviceId, Expr::value(device_id.as_str()))
            .filter(Column::Certificate.eq(certificate.as_bytes().to_vec()))
            .filter(free_or_same)
            .exec(self.tx())
            .await?;
        Ok(outcome.rows_affected == 1)
    }

    /// A contender became the Mac it contended with: its identities and nonces are that Mac's now.
    pub async fn hand_on(
        &mut self,
        contender: &DeviceId,
        holder: &DeviceId,
    ) -> Result<(), StoreError> {
        self.touch(contender);
        self.touch(holder);
        for table in ["identities", "nonces"] {
            Edit::new(
                format!("UPDATE {table} SET device_id = $1 WHERE device_id = $2"),
                [Datum::text(holder), Datum::text(contender)],
            )
            .apply(self.tx())
            .await?;
        }
        Ok(())
    }

    /// The certificate of an identity of which only the hash was known. False when it was known
    /// before.
    pub async fn complete_identity(
        &mut self,
        certificate: &Certificate<'_>,
        device_id: &DeviceId,
    ) -> Result<bool, StoreError> {
        self.touch(device_id);
        let outcome = Entity::update_many()
            .col_expr(Column::Der, Expr::value(certificate.as_der().to_vec()))
            .col_expr(
                Column::NotBefore,
                Expr::value(certificate.not_before().millis()),
            )
            .col_expr(
                Column::NotAfter,
                Expr::value(certificate.not_after().millis()),
            )
            .filter(Column::Certificate.eq(certificate.hash().as_bytes().to_vec()))
            .filter(Column::Der.eq(Vec::<u8>::new()))
            .exec(self.tx())
            .await?;
        Ok(outcome.rows_affected == 1)
    }

    /// Withdraws an identity. False when it was withdrawn before, or was never issued.
    pub async fn revoke_identity(
        &mut self,
        certificate: CertificateHash,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        if let Some(device_id) = self
            .identity(certificate)
            .await?
            .and_then(|identity| identity.device_id)
        {
            self.touch(&device_id);
        }
        let outcome = Entity::update_many()
            .col_expr(Column::RevokedAt, Expr::value(now.millis()))
            .filter(Column::Certificate.eq(certificate.as_bytes().to_vec()))
            .filter(Column::RevokedAt.is_null())
            .exec(self.tx())
            .await?;
        Ok(outcome.rows_affected == 1)
    }
}

pub(super) fn insert(identity: &Identity) -> Edit {
    Edit::new(
        "INSERT INTO identities (certificate, der, kind, ticket_id, serial, device_id, issued_at, \
         not_before, not_after, revoked_at, transaction_id, renews) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        [
            Datum::bytes(*identity.certificate.as_bytes()),
            Datum::bytes(identity.der.as_slice()),
            Datum::text(identity.kind.as_str()),
            Datum::Text(identity.ticket_id.as_ref().map(ToString::to_string)),
            Datum::Text(identity.serial.as_ref().map(ToString::to_string)),
            Datum::Text(identity.device_id.as_ref().map(ToString::to_string)),
            Datum::int(identity.issued_at.millis()),
            Datum::int(identity.not_before.millis()),
            Datum::int(identity.not_after.millis()),
            Datum::Int(row::millis(identity.revoked_at)),
            Datum::Text(identity.transaction_id.clone()),
            Datum::Bytes(identity.renews.map(|renewed| renewed.as_bytes().to_vec())),
        ],
    )
}

impl Row for Model {
    type Noun = Identity;
    const TABLE: &'static str = "identities";

    fn id(&self) -> String {
        hex::encode(&self.certificate)
    }

    fn noun(self) -> Option<Identity> {
        Some(Identity {
            certificate: CertificateHash::from_bytes(row::digest(&self.certificate)?),
            der: self.der,
            kind: IdentityKind::from_word(&self.kind)?,
            ticket_id: row::parsed_if_any(self.ticket_id.as_deref(), TicketId::parse)?,
            serial: row::parsed_if_any(self.serial.as_deref(), SerialNumber::parse)?,
            device_id: row::parsed_if_any(self.device_id.as_deref(), DeviceId::parse)?,
            issued_at: Timestamp::from_millis(self.issued_at),
            not_before: Timestamp::from_millis(self.not_before),
            not_after: Timestamp::from_millis(self.not_after),
            revoked_at: row::time(self.revoked_at),
            transaction_id: self.transaction_id,
            renews: match self.renews {
                None => None,
                Some(renewed) => Some(CertificateHash::from_bytes(row::digest(&renewed)?)),
            },
        })
    }
}
