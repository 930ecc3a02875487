//! Releases of the provider software, and all that happened to them. No row is ever deleted.

use std::sync::atomic::Ordering;

use sea_orm::entity::prelude::*;
use sea_orm::{ActiveValue::Set, QueryOrder, QuerySelect};
use serde::Serialize;

use super::board::Key;
use super::edit::{Datum, Edit};
use super::row::{self, Row};
use super::{Read, Store, StoreError, Write};
use crate::provider::{BinaryHash, Platform, Release, Version};
use crate::time::Timestamp;

/// Something that was done to a release.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct ReleaseEntry {
    /// Rises; 0 while it is not stored.
    pub seq: i64,
    pub at: Timestamp,
    pub action: ReleaseAction,
    pub binary_hash: BinaryHash,
    pub platform: Platform,
    pub version: Version,
    /// Who asked for it: a token, a key, or the command line.
    pub who: String,
    /// For people; empty for a registration.
    pub why: String,
}

/// What can be done to a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseAction {
    Registered,
    Revoked,
}

impl ReleaseAction {
    /// The stored and published word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Revoked => "revoked",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        [Self::Registered, Self::Revoked]
            .into_iter()
            .find(|action| action.as_str() == word)
    }
}

mod current {
    use sea_orm::entity::prelude::*;

    #[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "releases")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub binary_hash: Vec<u8>,
        #[sea_orm(primary_key, auto_increment = false)]
        pub platform: String,
        pub version: String,
        pub registered_at: i64,
        pub revoked_at: Option<i64>,
        pub body: String,
    }

    #[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

mod history {
    use sea_orm::entity::prelude::*;

    #[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "release_history")]
    pub struct Model {
        #[sea_orm(primary_key)]
        pub seq: i64,
        pub at: i64,
        pub action: String,
        pub binary_hash: Vec<u8>,
        pub platform: String,
        pub version: String,
        pub who: String,
        pub why: String,
    }

    #[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

impl Store {
    /// Forgets what memory holds of the registry if a command has changed it beside this server since
    /// this was called last.
    pub(super) async fn follow_releases(&self) -> Result<(), StoreError> {
        let generation = self.read().await?.release_generation().await?;
        if self.0.releases_seen.swap(generation, Ordering::SeqCst) != generation {
            self.0.board.forget([Key::Releases]);
        }
        Ok(())
    }
}

impl Read {
    /// The release with this hash for this platform.
    pub async fn release(
        &self,
        hash: &BinaryHash,
        platform: &Platform,
    ) -> Result<Option<Release>, StoreError> {
        let key = (hash.as_bytes().to_vec(), platform.as_str().to_owned());
        let found = current::Entity::find_by_id(key).one(self.tx()).await?;
        row::read_one(found)
    }

    /// Every release there ever was, the first registered first.
    pub async fn releases(&self) -> Result<Vec<Release>, StoreError> {
        let found = current::Entity::find()
            .order_by_asc(current::Column::RegisteredAt)
            .order_by_asc(current::Column::BinaryHash)
            .order_by_asc(current::Column::Platform)
            .all(self.tx())
            .await?;
        row::read_all(found)
    }

    /// Everything that was done to releases, the first first.
    pub async fn release_history(&self) -> Result<Vec<ReleaseEntry>, StoreError> {
        let found = history::Entity::find()
            .order_by_asc(history::Column::Seq)
            .all(self.tx())
            .await?;
        row::read_all(found)
    }

    /// Rises with everything that is done to a release; 0 before the first. Whoever keeps the
    /// registry in memory compares it.
    pub async fn release_generation(&self) -> Result<i64, StoreError> {
        let newest: Option<Option<i64>> = history::Entity::find()
            .select_only()
            .column_as(history::Column::Seq.max(), "newest")
            .into_tuple()
            .one(self.tx())
            .await?;
        Ok(newest.flatten().unwrap_or(0))
    }
}

impl Write {
    /// Keeps a new release.
    ///
    /// # Errors
    /// `Conflict` when its hash is registered for its platform.
    pub async fn insert_release(&mut self, release: &Release) -> Result<(), StoreError> {
        self.changes(Key::Releases);
        let model = current::ActiveModel {
            binary_hash: Set(release.binary_hash.as_bytes().to_vec()),
            platform: Set(release.platform.to_string()),
            version: Set(release.version.to_string()),
            registered_at: Set(release.registered_at.millis()),
            revoked_at: Set(row::millis(release.revoked.as_ref().map(|it| it.at))),
            body: Set(row::body("release", release)?),
        };
        current::Entity::insert(model)
            .exec_without_returning(self.tx())
            .await?;
        Ok(())
    }

    /// Keeps the withdrawal of a release.
    ///
    /// # Errors
    /// `Conflict` when it is not there, or was withdrawn before.
    pub async fn withdraw_release(&mut self, release: &Release) -> Result<(), StoreError> {
        self.changes(Key::Releases);
        let revoked_at = release.revoked.as_ref().map(|revoked| revoked.at);
        Edit::that_must_change(
            "UPDATE releases SET revoked_at = $1, body = $2 \
             WHERE binary_hash = $3 AND platform = $4 AND revoked_at IS NULL",
            [
                Datum::Int(row::millis(revoked_at)),
                Datum::text(row::body("release", release)?),
                Datum::bytes(*release.binary_hash.as_bytes()),
                Datum::text(&release.platform),
            ],
        )
        .apply(self.tx())
        .await
    }

    /// Appends to what was done to releases.
    pub async fn record_release(&mut self, entry: &ReleaseEntry) -> Result<(), StoreError> {
        let model = history::ActiveModel {
            at: Set(entry.at.millis()),
            action: Set(entry.action.as_str().to_owned()),
            binary_hash: Set(entry.binary_hash.as_bytes().to_vec()),
            platform: Set(entry.platform.to_string()),
            version: Set(entry.version.to_string()),
            who: Set(entry.who.clone()),
            why: Set(entry.why.clone()),
            ..Default::default()
        };
        history::Entity::insert(model)
            .exec_without_returning(self.tx())
            .await?;
        Ok(())
    }
}

fn named(hash: &[u8], platform: &str) -> String {
    format!("{}/{platform}", hex::encode(hash))
}

impl Row for current::Model {
    type Noun = Release;
    const TABLE: &'static str = "releases";

    fn id(&self) -> String {
        named(&self.binary_hash, &self.platform)
    }

    fn noun(self) -> Option<Release> {
        let release: Release = row::parsed(&self.body, serde_json::from_str)?;
        // The columns decide what is routed to; the body is what people are shown.
        let revoked_at = release.revoked.as_ref().map(|revoked| revoked.at);
        let agrees = self.binary_hash == release.binary_hash.as_bytes()
            && self.platform == release.platform.as_str()
            && row::time(self.revoked_at) == revoked_at;
        agrees.then_some(release)
    }
}

impl Row for history::Model {
    type Noun = ReleaseEntry;
    const TABLE: &'static str = "release_history";

    fn id(&self) -> String {
        self.seq.to_string()
    }

    fn noun(self) -> Option<ReleaseEntry> {
        Some(ReleaseEntry {
            seq: self.seq,
            at: Timestamp::from_millis(self.at),
            action: ReleaseAction::from_word(&self.action)?,
            binary_hash: BinaryHash::from_bytes(row::digest(&self.binary_hash)?),
            platform: Platform::parse(&self.platform)?,
            version: row::parsed(&self.version, Version::parse)?,
            who: self.who,
            why: self.why,
        })
    }
}
