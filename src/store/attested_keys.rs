//! What Apple stated of the keys that certificates were issued for: the evidence as it came, with
//! what was read from it.

use sea_orm::QuerySelect;
use sea_orm::entity::prelude::*;

use super::edit::{Datum, Edit};
use super::row::{self, Row};
use super::{Read, StoreError};
use crate::acme::AttestedKey;
use crate::ids::{CertificateHash, EvidenceId};

mod table {
    use sea_orm::entity::prelude::*;

    #[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "attested_keys")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub certificate: Vec<u8>,
        pub evidence_id: Vec<u8>,
        pub serial: String,
        pub verified_at: i64,
        pub body: String,
    }

    #[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

use table::{Column, Entity, Model};

impl Read {
    /// What Apple stated of the key in this certificate; `None` for an identity that is not
    /// attested.
    pub async fn attested_key(
        &self,
        certificate: CertificateHash,
    ) -> Result<Option<AttestedKey>, StoreError> {
        let key = certificate.as_bytes().to_vec();
        row::read_one(Entity::find_by_id(key).one(self.tx()).await?)
    }

    /// The attested key whose statement is this evidence.
    pub async fn attested_key_of(
        &self,
        evidence_id: EvidenceId,
    ) -> Result<Option<AttestedKey>, StoreError> {
        let found = Entity::find()
            .filter(Column::EvidenceId.eq(evidence_id.as_bytes().to_vec()))
            .limit(1)
            .one(self.tx())
            .await?;
        row::read_one(found)
    }
}

/// Keeps what Apple stated of the key in a certificate that is issued in the same step.
pub(super) fn insert(
    certificate: CertificateHash,
    attested: &AttestedKey,
) -> Result<Edit, StoreError> {
    Ok(Edit::new(
        "INSERT INTO attested_keys (certificate, evidence_id, serial, verified_at, body) \
         VALUES ($1, $2, $3, $4, $5)",
        [
            Datum::bytes(*certificate.as_bytes()),
            Datum::bytes(*attested.evidence().id().as_bytes()),
            Datum::text(&attested.serial),
            Datum::int(attested.verified_at.millis()),
            Datum::text(row::body("an attested key", attested)?),
        ],
    ))
}

impl Row for Model {
    type Noun = AttestedKey;
    const TABLE: &'static str = "attested_keys";

    fn id(&self) -> String {
        hex::encode(&self.certificate)
    }

    fn noun(self) -> Option<AttestedKey> {
        serde_json::from_str(&self.body).ok()
    }
}
