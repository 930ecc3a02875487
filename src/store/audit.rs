//! The audit log. An entry is added in the step that changes what it tells of, as the last thing before
//! the commit: whoever changes something else on a PostgreSQL waits for the moment of that commit only.

use sea_orm::entity::prelude::*;
use sea_orm::{QueryOrder, QuerySelect};

use super::edit::{Datum, Edit};
use super::row::{self, Row};
use super::{Read, StoreError, Write};
use crate::audit::{Entry, Head, Link};

/// Holding it, nobody else adds an entry (PostgreSQL); any fixed number of our own.
const AUDIT_LOCK: i64 = 0x6174_7465_7374_6402;

mod table {
    use sea_orm::entity::prelude::*;

    #[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "audit")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub seq: i64,
        pub subject: String,
        pub entry: String,
        pub hash: Vec<u8>,
    }

    #[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

use table::{Column, Entity, Model};

impl Read {
    /// The end of the chain.
    pub async fn audit_head(&self) -> Result<Head, StoreError> {
        let last = Entity::find()
            .order_by_desc(Column::Seq)
            .one(self.tx())
            .await?;
        let last: Option<Link> = row::read_one(last)?;
        Ok(last.map_or(Head::BEGINNING, |link| link.head()))
    }

    /// Links after one of this number, in their order; of one subject, if it is given.
    pub async fn audit_after(
        &self,
        seq: i64,
        subject: Option<&str>,
        at_most: u64,
    ) -> Result<Vec<Link>, StoreError> {
        let mut query = Entity::find().filter(Column::Seq.gt(seq));
        if let Some(subject) = subject {
            query = query.filter(Column::Subject.eq(subject));
        }
        let found = query
            .order_by_asc(Column::Seq)
            .limit(at_most)
            .all(self.tx())
            .await?;
        row::read_all(found)
    }

    /// Links before one of this number, the latest first; of one subject, if it is given.
    pub async fn audit_before(
        &self,
        seq: Option<i64>,
        subject: Option<&str>,
        at_most: u64,
    ) -> Result<Vec<Link>, StoreError> {
        let mut query = Entity::find();
        if let Some(seq) = seq {
            query = query.filter(Column::Seq.lt(seq));
        }
        if let Some(subject) = subject {
            query = query.filter(Column::Subject.eq(subject));
        }
        let found = query
            .order_by_desc(Column::Seq)
            .limit(at_most)
            .all(self.tx())
            .await?;
        row::read_all(found)
    }
}

impl Write {
    /// Adds entries at the end of the chain; nothing else is done in this transaction after it.
    pub(super) async fn append_to_audit(&mut self, entries: &[Entry]) -> Result<(), StoreError> {
        if entries.is_empty() {
            return Ok(());
        }
        if !self.is_alone() {
            let lock = format!("SELECT pg_advisory_xact_lock({AUDIT_LOCK})");
            self.tx().execute_unprepared(&lock).await?;
        }
        let mut head = self.audit_head().await?;
        for entry in entries {
            let link = head.then(entry);
            head = link.head();
            let insert = Edit::new(
                "INSERT INTO audit (seq, subject, entry, hash) VALUES ($1, $2, $3, $4)",
                [
                    Datum::int(link.seq),
                    Datum::text(&entry.subject),
                    Datum::text(&link.text),
                    Datum::bytes(link.hash),
                ],
            );
            insert.apply(self.tx()).await?;
        }
        Ok(())
    }
}

impl Row for Model {
    type Noun = Link;
    const TABLE: &'static str = "audit";

    fn id(&self) -> String {
        self.seq.to_string()
    }

    fn noun(self) -> Option<Link> {
        Some(Link {
            seq: self.seq,
            text: self.entry,
            hash: row::digest(&self.hash)?,
        })
    }
}
