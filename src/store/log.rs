//! The transparency log: entries and hashes are only ever added, by whoever holds its head.

use std::ops::Range;

use sea_orm::entity::prelude::*;
use sea_orm::{QueryOrder, QuerySelect};

use super::edit::{Datum, Edit};
use super::row;
use super::{Read, StoreError, Write};
use crate::transparency::{Hash, Hashes, Run};

/// The fact that is the newest signed head.
const HEAD: &str = "log_head";
/// The fact that says up to which event the log was told.
const CURSOR: &str = "log_cursor";
/// Rows in one statement: each takes three values, of which SQLite takes 32,766.
const AT_ONCE: usize = 500;

mod hashes {
    use sea_orm::entity::prelude::*;

    #[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "log_hashes")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub level: i16,
        #[sea_orm(primary_key, auto_increment = false)]
        pub position: i64,
        pub hash: Vec<u8>,
    }

    #[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

mod entries {
    use sea_orm::entity::prelude::*;

    #[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "log_entries")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub position: i64,
        pub body: Vec<u8>,
    }

    #[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

impl Read {
    /// The newest head of the log, a signed note; `None` before there was one.
    pub async fn log_head(&self) -> Result<Option<String>, StoreError> {
        self.fact(HEAD).await
    }

    /// Stored hashes of the log, as many of these as there are.
    pub async fn log_hashes(&self, runs: &[Run]) -> Result<Hashes, StoreError> {
        let mut hashes = Hashes::default();
        for run in runs {
            let found = hashes::Entity::find()
                .filter(hashes::Column::Level.eq(i16::from(run.level)))
                .filter(hashes::Column::Position.gte(row::counted(run.positions.start)))
                .filter(hashes::Column::Position.lt(row::counted(run.positions.end)))
                .all(self.tx())
                .await?;
            for model in found {
                let position = model.position;
                let read = || {
                    let hash: Hash = row::digest(&model.hash)?;
                    Some(((run.level, u64::try_from(position).ok()?), hash))
                };
                hashes.extend([read().ok_or_else(|| StoreError::Inconsistent {
                    table: "log_hashes",
                    id: position.to_string(),
                })?]);
            }
        }
        Ok(hashes)
    }

    /// Entries of the log in their order, as many of these as there are.
    pub async fn log_entries(&self, positions: Range<u64>) -> Result<Vec<Vec<u8>>, StoreError> {
        Ok(entries::Entity::find()
            .select_only()
            .column(entries::Column::Body)
            .filter(entries::Column::Position.gte(row::counted(positions.start)))
            .filter(entries::Column::Position.lt(row::counted(positions.end)))
            .order_by_asc(entries::Column::Position)
            .into_tuple()
            .all(self.tx())
            .await?)
    }

    /// Up to which event the log was told; `None` while it follows none.
    pub async fn log_cursor(&self) -> Result<Option<i64>, StoreError> {
        let fact = self.fact(CURSOR).await?;
        let read = |text: String| {
            text.parse().map_err(|_| StoreError::Inconsistent {
                table: "service_meta",
                id: CURSOR.to_owned(),
            })
        };
        fact.map(read).transpose()
    }
}

impl Write {
    /// The newest head; nobody else adds to the log until the end. `first` is the head of the empty log, where
    /// there is none yet.
    pub async fn hold_log_head(&mut self, first: &str) -> Result<String, StoreError> {
        match self.fact_to_change(HEAD).await? {
            Some(head) => Ok(head),
            None => {
                self.state_fact(HEAD, first).await?;
                // Whoever stated it at the same moment may be adding already.
                let head = self.fact_to_change(HEAD).await?;
                Ok(head.unwrap_or_else(|| first.to_owned()))
            }
        }
    }

    /// Adds entries from `first` on, with every hash that is there by them, under a new head.
    pub async fn append_to_log(
        &mut self,
        first: u64,
        entries: &[Vec<u8>],
        hashes: &[((u8, u64), Hash)],
        head: &str,
    ) -> Result<(), StoreError> {
        let bodies: Vec<_> = (first..)
            .zip(entries)
            .map(|(position, body)| {
                vec![
                    Datum::int(row::counted(position)),
                    Datum::bytes(body.as_slice()),
                ]
            })
            .collect();
        self.insert("log_entries (position, body)", bodies).await?;
        let hashes: Vec<_> = hashes
            .iter()
            .map(|((level, position), hash)| {
                vec![
                    Datum::int(i64::from(*level)),
                    Datum::int(row::counted(*position)),
                    Datum::bytes(*hash),
                ]
            })
            .collect();
        self.insert("log_hashes (level, position, hash)", hashes)
            .await?;
        self.set_fact(HEAD, head).await
    }

    /// The log was told up to here.
    pub async fn move_log_cursor(&mut self, cursor: i64) -> Result<(), StoreError> {
        self.set_fact(CURSOR, &cursor.to_string()).await
    }

    async fn insert(&mut self, into: &str, rows: Vec<Vec<Datum>>) -> Result<(), StoreError> {
        let mut rows = rows.into_iter().peekable();
        while rows.peek().is_some() {
            let chunk: Vec<_> = rows.by_ref().take(AT_ONCE).collect();
            let mut number = 0;
            let places: Vec<String> = chunk
                .iter()
                .map(|row| {
                    let places: Vec<String> = row
                        .iter()
                        .map(|_| {
                            number += 1;
                            format!("${number}")
                        })
                        .collect();
                    format!("({})", places.join(", "))
                })
                .collect();
            let sql = format!("INSERT INTO {into} VALUES {}", places.join(", "));
            let values: Vec<_> = chunk.into_iter().flatten().collect();
            Edit::new(sql, values).apply(self.tx()).await?;
        }
        Ok(())
    }
}
