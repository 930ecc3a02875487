//! What one person wants done with push certificates, until another confirms it: one at a time for each topic.

use sea_orm::entity::prelude::*;
use sea_orm::{ActiveValue::Set, QueryOrder};

use super::row::{self, Row};
use super::{Read, StoreError, Write};
use crate::ids::{PushCertificateId, PushProposalId, Topic};
use crate::push::approval::{Change, Proposal};
use crate::time::Timestamp;

mod table {
    use sea_orm::entity::prelude::*;

    #[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "push_proposals")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub push_proposal_id: String,
        pub topic: String,
        pub act: String,
        pub push_certificate_id: String,
        pub untried_because: Option<String>,
        pub person: String,
        pub proposed_by: String,
        pub proposed_at: i64,
        pub good_until: i64,
    }

    #[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

use table::{ActiveModel, Column, Entity, Model};

impl Read {
    /// A proposal by its name, be its time over or not.
    pub async fn push_proposal(&self, id: &PushProposalId) -> Result<Option<Proposal>, StoreError> {
        row::read_one(Entity::find_by_id(id.as_str()).one(self.tx()).await?)
    }

    /// Proposals that can be confirmed still, in the order of their topics.
    pub async fn push_proposals(&self, now: Timestamp) -> Result<Vec<Proposal>, StoreError> {
        let found = Entity::find()
            .filter(Column::GoodUntil.gt(now.millis()))
            .order_by_asc(Column::Topic)
            .all(self.tx())
            .await?;
        row::read_all(found)
    }
}

impl Write {
    /// Keeps a proposal, in the place of whatever was proposed for its topic before.
    pub async fn propose(&mut self, proposal: &Proposal) -> Result<(), StoreError> {
        Entity::delete_many()
            .filter(Column::Topic.eq(proposal.topic.as_str()))
            .exec(self.tx())
            .await?;
        let model = ActiveModel {
            push_proposal_id: Set(proposal.push_proposal_id.to_string()),
            topic: Set(proposal.topic.to_string()),
            act: Set(proposal.change.as_str().to_owned()),
            push_certificate_id: Set(proposal.push_certificate_id.to_string()),
            untried_because: Set(proposal.untried_because.clone()),
            person: Set(proposal.person.clone()),
            proposed_by: Set(proposal.proposed_by.clone()),
            proposed_at: Set(proposal.proposed_at.millis()),
            good_until: Set(proposal.good_until.millis()),
        };
        Entity::insert(model)
            .exec_without_returning(self.tx())
            .await?;
        Ok(())
    }

    /// Forgets a proposal; false when there is none.
    pub async fn forget_push_proposal(&mut self, id: &PushProposalId) -> Result<bool, StoreError> {
        let gone = Entity::delete_by_id(id.as_str()).exec(self.tx()).await?;
        Ok(gone.rows_affected > 0)
    }

    /// Forgets every proposal.
    pub async fn forget_push_proposals(&mut self) -> Result<(), StoreError> {
        Entity::delete_many().exec(self.tx()).await?;
        Ok(())
    }
}

impl Row for Model {
    type Noun = Proposal;
    const TABLE: &'static str = "push_proposals";

    fn id(&self) -> String {
        self.push_proposal_id.clone()
    }

    fn noun(self) -> Option<Proposal> {
        Some(Proposal {
            push_proposal_id: row::parsed(&self.push_proposal_id, PushProposalId::parse)?,
            topic: row::parsed(&self.topic, Topic::parse)?,
            change: Change::from_word(&self.act)?,
            push_certificate_id: row::parsed(&self.push_certificate_id, PushCertificateId::parse)?,
            untried_because: self.untried_because,
            person: self.person,
            proposed_by: self.proposed_by,
            proposed_at: Timestamp::from_millis(self.proposed_at),
            good_until: Timestamp::from_millis(self.good_until),
        })
    }
}
