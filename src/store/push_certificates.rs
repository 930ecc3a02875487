//! Our push certificates. At most one per topic is active; the private keys are sealed.

use sea_orm::entity::prelude::*;
use sea_orm::{ActiveValue::Set, QueryOrder, QuerySelect, Statement, sea_query::Expr};

use super::row::{self, Row};
use super::{Read, StoreError, Write};
use crate::enrollment::State;
use crate::ids::{CertificateHash, PushCertificateId, Topic};
use crate::push::rotation::{Held, Standing};
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
    /// Who renews it in Apple's portal, as far as an operator said.
    pub apple_account: Option<String>,
    /// When it came into use last.
    pub activated_at: Option<Timestamp>,
    /// When another took its place.
    pub retired_at: Option<Timestamp>,
    /// Why it was taken into use though no Mac had tried it.
    pub untried_because: Option<String>,
    /// How many days before its end was told last.
    pub expiry_told: Option<u16>,
    /// Rises whenever one is installed or comes into use. Given by the store.
    pub generation: i64,
}

impl PushCertificate {
    /// What is decided by: everything but the key.
    pub fn held(&self) -> Held {
        Held {
            push_certificate_id: self.push_certificate_id.clone(),
            topic: self.topic.clone(),
            standing: self.standing,
            sha256: self.sha256,
            not_before: self.not_before,
            not_after: self.not_after,
            installed_at: self.installed_at,
            retired_at: self.retired_at,
        }
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
        pub apple_account: Option<String>,
        pub activated_at: Option<i64>,
        pub retired_at: Option<i64>,
        pub untried_because: Option<String>,
        pub expiry_told: Option<i64>,
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

    /// A push certificate by its name.
    pub async fn push_certificate(
        &self,
        id: &PushCertificateId,
    ) -> Result<Option<PushCertificate>, StoreError> {
        let found = Entity::find_by_id(id.as_str()).one(self.tx()).await?;
        found.map(|row| self.open_key(row)).transpose()
    }

    /// How many Macs are enrolled under a topic.
    pub async fn enrolled_under(&self, topic: &Topic) -> Result<u64, StoreError> {
        let statement = Statement::from_sql_and_values(
            self.tx().get_database_backend(),
            "SELECT COUNT(*) FROM enrollments WHERE topic = $1 AND state = $2",
            [
                Value::from(topic.as_str()),
                Value::from(State::Enrolled.as_str()),
            ],
        );
        let count: i64 = match self.tx().query_one_raw(statement).await? {
            Some(row) => row.try_get_by_index(0)?,
            None => 0,
        };
        Ok(u64::try_from(count).unwrap_or(0))
    }

    /// Every push certificate; the one that was installed or came into use last is the first.
    pub async fn push_certificates(&self) -> Result<Vec<PushCertificate>, StoreError> {
        let found = Entity::find()
            .order_by_desc(Column::Generation)
            .all(self.tx())
            .await?;
        found.into_iter().map(|row| self.open_key(row)).collect()
    }

    /// Rises whenever one is installed or comes into use; 0 before the first. Whoever keeps certificates in memory
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
    /// Installs a push certificate, under the next generation. An active one takes the place of the
    /// one that was active for its topic, in the same moment.
    ///
    /// # Errors
    /// `Conflict` when the id is taken, or another installation happened at the same time.
    pub async fn install_push_certificate(
        &mut self,
        certificate: &PushCertificate,
    ) -> Result<(), StoreError> {
        let generation = self.push_certificate_generation().await? + 1;
        if certificate.standing == Standing::Active {
            let place_taken = (Standing::Retired, Some(certificate.installed_at));
            self.displace(&certificate.topic, place_taken).await?;
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
            apple_account: Set(certificate.apple_account.clone()),
            activated_at: Set(certificate.activated_at.map(Timestamp::millis)),
            retired_at: Set(certificate.retired_at.map(Timestamp::millis)),
            untried_because: Set(certificate.untried_because.clone()),
            expiry_told: Set(certificate.expiry_told.map(i64::from)),
        };
        Entity::insert(model)
            .exec_without_returning(self.tx())
            .await?;
        Ok(())
    }

    /// Takes a certificate into use, in the place of the one that is active for its topic, which is
    /// `former` from then on: retired, or staged where it is to be tried anew.
    ///
    /// # Errors
    /// `Conflict` when there is no such certificate, or another one came into use at the same time.
    pub async fn take_push_certificate_into_use(
        &mut self,
        (id, topic): (&PushCertificateId, &Topic),
        former: Standing,
        untried_because: Option<&str>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let generation = self.push_certificate_generation().await? + 1;
        let retired_at = (former == Standing::Retired).then_some(now);
        self.displace(topic, (former, retired_at)).await?;
        let changed = Entity::update_many()
            .col_expr(Column::State, Expr::value(Standing::Active.as_str()))
            .col_expr(Column::Generation, Expr::value(generation))
            .col_expr(Column::ActivatedAt, Expr::value(now.millis()))
            .col_expr(Column::RetiredAt, Expr::value(None::<i64>))
            .col_expr(Column::UntriedBecause, Expr::value(untried_because))
            .filter(Column::PushCertificateId.eq(id.as_str()))
            .exec(self.tx())
            .await?;
        if changed.rows_affected == 0 {
            return Err(StoreError::Conflict);
        }
        Ok(())
    }

    /// Notes that so many days before its end is told; false when that, or less, was told before.
    pub async fn push_certificate_expiry_is_told(
        &mut self,
        id: &PushCertificateId,
        days: u16,
    ) -> Result<bool, StoreError> {
        let untold = sea_orm::Condition::any()
            .add(Column::ExpiryTold.is_null())
            .add(Column::ExpiryTold.gt(i64::from(days)));
        let changed = Entity::update_many()
            .col_expr(Column::ExpiryTold, Expr::value(i64::from(days)))
            .filter(Column::PushCertificateId.eq(id.as_str()))
            .filter(untold)
            .exec(self.tx())
            .await?;
        Ok(changed.rows_affected > 0)
    }

    /// Forgets a certificate that is not in use, and its key.
    ///
    /// # Errors
    /// `Conflict` when it is in use, or another change happened at the same time.
    pub async fn forget_push_certificate(
        &mut self,
        id: &PushCertificateId,
    ) -> Result<(), StoreError> {
        let newest = self.push_certificate_generation().await?;
        let gone = Entity::delete_many()
            .filter(Column::PushCertificateId.eq(id.as_str()))
            .filter(Column::State.ne(Standing::Active.as_str()))
            .exec(self.tx())
            .await?;
        if gone.rows_affected == 0 {
            return Err(StoreError::Conflict);
        }
        // Were the highest generation gone, the next change would be given it again, and whoever has seen it
        // would not look.
        let last = self.push_certificates().await?.into_iter().next();
        if let Some(last) = last.filter(|last| last.generation < newest) {
            Entity::update_many()
                .col_expr(Column::Generation, Expr::value(newest + 1))
                .filter(Column::PushCertificateId.eq(last.push_certificate_id.as_str()))
                .exec(self.tx())
                .await?;
        }
        Ok(())
    }

    /// A certificate that is not in use is tried by chosen Macs.
    pub async fn push_certificate_is_tried(
        &mut self,
        id: &PushCertificateId,
    ) -> Result<(), StoreError> {
        Entity::update_many()
            .col_expr(Column::State, Expr::value(Standing::Canary.as_str()))
            .filter(Column::PushCertificateId.eq(id.as_str()))
            .filter(Column::State.eq(Standing::Staged.as_str()))
            .exec(self.tx())
            .await?;
        Ok(())
    }

    /// The active certificate of a topic, if there is one, is so from now on.
    async fn displace(
        &mut self,
        topic: &Topic,
        (standing, retired_at): (Standing, Option<Timestamp>),
    ) -> Result<(), StoreError> {
        Entity::update_many()
            .col_expr(Column::State, Expr::value(standing.as_str()))
            .col_expr(
                Column::RetiredAt,
                Expr::value(retired_at.map(Timestamp::millis)),
            )
            .filter(Column::Topic.eq(topic.as_str()))
            .filter(Column::State.eq(Standing::Active.as_str()))
            .exec(self.tx())
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
            apple_account: row.apple_account,
            activated_at: row::time(row.activated_at),
            retired_at: row::time(row.retired_at),
            untried_because: row.untried_because,
            expiry_told: match row.expiry_told {
                None => None,
                Some(days) => Some(u16::try_from(days).ok()?),
            },
            generation: row.generation,
        })
    }
}
