//! Evidence as received, named by its bytes and never edited.

use sea_orm::entity::prelude::*;
use sea_orm::{QueryOrder, QuerySelect};

use super::edit::{Datum, Edit};
use super::row::{self, Row};
use super::{Read, StoreError, Write};
use crate::ids::{CommandUuid, DeviceId, EvidenceId};
use crate::time::Timestamp;
use crate::verification::Kind;

/// One reply of one Mac, kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// The hash of the reply as it was received.
    pub evidence_id: EvidenceId,
    pub device_id: DeviceId,
    pub command_uuid: CommandUuid,
    pub kind: Kind,
    pub received_at: Timestamp,
    /// What is kept of the reply.
    pub stored: Vec<u8>,
    /// The Mdm-Signature over the reply, DER or BER, where the reply is kept whole and was signed:
    /// a Mac may also have proved itself by the TLS connection, of which nothing can be kept.
    pub signature: Option<Vec<u8>>,
    /// Whether `stored` is the reply byte for byte. Otherwise its personal or secret members were
    /// left out, and its hash is all that speaks for them.
    pub raw: bool,
}

mod table {
    use sea_orm::entity::prelude::*;

    #[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "evidence")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub evidence_id: Vec<u8>,
        pub device_id: String,
        pub command_uuid: String,
        pub kind: String,
        pub received_at: i64,
        pub stored: Vec<u8>,
        pub signature: Option<Vec<u8>>,
        pub raw: bool,
    }

    #[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

use table::{Column, Entity, Model};

impl Read {
    /// The evidence.
    pub async fn evidence(&self, evidence_id: EvidenceId) -> Result<Option<Evidence>, StoreError> {
        let found = Entity::find_by_id(evidence_id.as_bytes().to_vec())
            .one(self.tx())
            .await?;
        row::read_one(found)
    }

    /// The evidence from a Mac, the newest first.
    pub async fn evidence_of(
        &self,
        device_id: &DeviceId,
        limit: usize,
    ) -> Result<Vec<Evidence>, StoreError> {
        let found = Entity::find()
            .filter(Column::DeviceId.eq(device_id.as_str()))
            .order_by_desc(Column::ReceivedAt)
            .limit(row::limited(limit))
            .all(self.tx())
            .await?;
        row::read_all(found)
    }

    /// Whole replies of a kind that came from a Mac since then, the newest first.
    pub async fn replies_of(
        &self,
        device_id: &DeviceId,
        kind: Kind,
        since: Timestamp,
        limit: usize,
    ) -> Result<Vec<Evidence>, StoreError> {
        let found = Entity::find()
            .filter(Column::DeviceId.eq(device_id.as_str()))
            .filter(Column::ReceivedAt.gte(since.millis()))
            .filter(Column::Kind.eq(kind.as_str()))
            .filter(Column::Raw.eq(true))
            .order_by_desc(Column::ReceivedAt)
            .limit(row::limited(limit))
            .all(self.tx())
            .await?;
        row::read_all(found)
    }
}

impl Write {
    /// Keeps evidence. The same bytes again change nothing.
    pub async fn keep_evidence(&mut self, evidence: Evidence) -> Result<(), StoreError> {
        keep(evidence).apply(self.tx()).await
    }
}

pub(super) fn keep(evidence: Evidence) -> Edit {
    Edit::new(
        "INSERT INTO evidence (evidence_id, device_id, command_uuid, kind, received_at, stored, \
         signature, raw) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
         ON CONFLICT (evidence_id) DO NOTHING",
        [
            Datum::bytes(*evidence.evidence_id.as_bytes()),
            Datum::text(&evidence.device_id),
            Datum::text(&evidence.command_uuid),
            Datum::text(evidence.kind.as_str()),
            Datum::int(evidence.received_at.millis()),
            Datum::Bytes(Some(evidence.stored)),
            Datum::Bytes(evidence.signature),
            Datum::Bool(evidence.raw),
        ],
    )
}

impl Row for Model {
    type Noun = Evidence;
    const TABLE: &'static str = "evidence";

    fn id(&self) -> String {
        hex::encode(&self.evidence_id)
    }

    fn noun(self) -> Option<Evidence> {
        Some(Evidence {
            evidence_id: EvidenceId::from_bytes(row::digest(&self.evidence_id)?),
            device_id: row::parsed(&self.device_id, DeviceId::parse)?,
            command_uuid: row::parsed(&self.command_uuid, CommandUuid::parse)?,
            kind: Kind::from_word(&self.kind)?,
            received_at: Timestamp::from_millis(self.received_at),
            stored: self.stored,
            signature: self.signature,
            raw: self.raw,
        })
    }
}
