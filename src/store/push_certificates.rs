//! Our push certificates. At most one per topic is active; the private keys are sealed.

use sea_orm::entity::prelude::*;
use sea_orm::{ActiveValue::Set, QueryOrder, QuerySelect, sea_query::Expr};

use super::row::{self, Row};
use super::{Read, StoreError, Write};
use crate::ids::{CertificateHash, PushCertificateId, Topic};
use crate::secret::Secret;
use crate::time::Timestamp;

/// A push certificate of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushCertificate {
    pub push_certificate_id: PushCertificateId,
    pub topic: Topic,
    pub standing: Standing,
    /// Leaf first, PEM.
    pub chain: String,
    /// PKCS#8, DER.
    pub private_key: Secret<Vec<u8>>,
    /// Names the leaf.
    pub sha256: CertificateHash,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    pub installed_at: Timestamp,
}

/// Whether a push certificate is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Active,
    Retired,
}

impl Standing {
    /// The stored and published word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Retired => "retired",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        [Self::Active, Self::Retired]
            .into_iter()
            .find(|standing| standing.as_str() == word)
    }
}

mod table {
    use sea_orm::entity::prelude::*;

    #[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "push_certificates")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub push_certificate_id: String,
        pub generation: i64,
        pub topic: String,
        pub state: String,
        pub chain: String,
        pub key_sealed: Vec<u8>,
        pub sha256: Vec<u8>,
        pub not_before: i64,
        pub not_after: i64,
        pub installed_at: i64,
    }

    #[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

use table::{ActiveModel, Column, Entity, Model};

impl Read {
    /// The certificate in use for a topic.
    pub async fn active_push_certificate(
        &self,
        topic: &Topic,
    ) -> Result<Option<PushCertificate>, StoreError> {
        let found = Entity::find()
            .filter(Column::Topic.eq(topic.as_str()))
            .filter(Column::State.eq(Standing::Active.as_str()))
            .one(self.tx())
            .await?;
        found.map(|row| self.open_key(row)).transpose()
    }

    /// Every push certificate, the last one installed first.
    pub async fn push_certificates(&self) -> Result<Vec<PushCertificate>, StoreError> {
        let found = Entity::find()
            .order_by_desc(Column::Generation)
            .all(self.tx())
            .await?;
        found.into_iter().map(|row| self.open_key(row)).collect()
    }

    /// Rises with every installation; 0 before the first. Whoever keeps certificates in memory
    /// compares it to know when to read them again.
    pub async fn push_certificate_generation(&self) -> Result<i64, StoreError> {
        let newest: Option<Option<i64>> = Entity::find()
            .select_only()
            .column_as(Column::Generation.max(), "newest")
            .into_tuple()
            .one(self.tx())
            .await?;
        Ok(newest.flatten().unwrap_or(0))
    }

    fn open_key(&self, row: Model) -> Result<PushCertificate, StoreError> {
        let key = self
            .inner()
            .sealer
            .open(&place(&row.push_certificate_id), &row.key_sealed)
            .map_err(|source| StoreError::Unsealable {
                table: "push_certificates",
                id: row.push_certificate_id.clone(),
                source,
            })?;
        row::read(Opened {
            row,
            key: Secret::new(key),
        })
    }
}

impl Write {
    /// Installs a push certificate. An active one takes the place of the one that was active for
    /// its topic, in the same moment.
    ///
    /// # Errors
    /// `Conflict` when the id is taken, or another installation happened at the same time.
    pub async fn install_push_certificate(
        &mut self,
        certificate: &PushCertificate,
    ) -> Result<(), StoreError> {
        let generation = self.push_certificate_generation().await? + 1;
        if certificate.standing == Standing::Active {
            Entity::update_many()
                .col_expr(Column::State, Expr::value(Standing::Retired.as_str()))
                .filter(Column::Topic.eq(certificate.topic.as_str()))
                .filter(Column::State.eq(Standing::Active.as_str()))
                .exec(self.tx())
                .await?;
        }
        let id = certificate.push_certificate_id.to_string();
        let key_sealed = self
            .inner()
            .sealer
            .seal(&place(&id), certificate.private_key.expose());
        let model = ActiveModel {
            push_certificate_id: Set(id),
            generation: Set(generation),
            topic: Set(certificate.topic.to_string()),
            state: Set(certificate.standing.as_str().to_owned()),
            chain: Set(certificate.chain.clone()),
            key_sealed: Set(key_sealed),
            sha256: Set(certificate.sha256.as_bytes().to_vec()),
            not_before: Set(certificate.not_before.millis()),
            not_after: Set(certificate.not_after.millis()),
            installed_at: Set(certificate.installed_at.millis()),
        };
        Entity::insert(model)
            .exec_without_returning(self.tx())
            .await?;
        Ok(())
    }
}

/// Where the sealed key belongs.
fn place(id: &str) -> String {
    format!("push_certificates.key_sealed:{id}")
}

/// A row and its private key in clear.
struct Opened {
    row: Model,
    key: Secret<Vec<u8>>,
}

impl Row for Opened {
    type Noun = PushCertificate;
    const TABLE: &'static str = "push_certificates";

    fn id(&self) -> String {
        self.row.push_certificate_id.clone()
    }

    fn noun(self) -> Option<PushCertificate> {
        let row = self.row;
        Some(PushCertificate {
            push_certificate_id: row::parsed(&row.push_certificate_id, PushCertificateId::parse)?,
            topic: row::parsed(&row.topic, Topic::parse)?,
            standing: Standing::from_word(&row.state)?,
            chain: row.chain,
            private_key: self.key,
            sha256: CertificateHash::from_bytes(row::digest(&row.sha256)?),
            not_before: Timestamp::from_millis(row.not_before),
            not_after: Timestamp::from_millis(row.not_after),
            installed_at: Timestamp::from_millis(row.installed_at),
        })
    }
}
