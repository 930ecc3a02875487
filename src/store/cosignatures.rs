//! Heads of the transparency log that its witnesses signed: the newest of each.

use sea_orm::QueryOrder;
use sea_orm::entity::prelude::*;

use super::edit::{Datum, Edit};
use super::row;
use super::{Read, StoreError, Write};
use crate::time::Timestamp;

/// How many are kept of each witness: those who are slower sign heads that others signed before.
const KEPT: usize = 16;

/// A witness signed a head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cosigned {
    /// The witness's verifier key.
    pub witness: String,
    /// How large the log was.
    pub size: u64,
    /// The head as the log signed it: a signed note.
    pub head: String,
    /// The witness's signature line.
    pub line: String,
    /// When, by the witness's clock.
    pub signed_at: Timestamp,
}

mod table {
    use sea_orm::entity::prelude::*;

    #[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "log_cosignatures")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub witness: String,
        #[sea_orm(primary_key, auto_increment = false)]
        pub size: i64,
        pub head: String,
        pub line: String,
        pub signed_at: i64,
    }

    #[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

impl Read {
    /// What witnesses signed of late; the largest heads first.
    pub async fn cosignatures(&self) -> Result<Vec<Cosigned>, StoreError> {
        let found = table::Entity::find()
            .order_by_desc(table::Column::Size)
            .order_by_asc(table::Column::Witness)
            .all(self.tx())
            .await?;
        let read = |model: table::Model| {
            let size = u64::try_from(model.size).map_err(|_| StoreError::Inconsistent {
                table: "log_cosignatures",
                id: model.witness.clone(),
            })?;
            Ok(Cosigned {
                witness: model.witness,
                size,
                head: model.head,
                line: model.line,
                signed_at: Timestamp::from_millis(model.signed_at),
            })
        };
        found.into_iter().map(read).collect()
    }
}

impl Write {
    /// A witness signed a head; of its older ones some are forgotten.
    pub async fn keep_cosignature(&mut self, cosigned: &Cosigned) -> Result<(), StoreError> {
        let size = row::counted(cosigned.size);
        let keep = Edit::new(
            "INSERT INTO log_cosignatures (witness, size, head, line, signed_at) \
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT (witness, size) DO UPDATE SET \
             head = excluded.head, line = excluded.line, signed_at = excluded.signed_at",
            [
                Datum::text(&cosigned.witness),
                Datum::int(size),
                Datum::text(&cosigned.head),
                Datum::text(&cosigned.line),
                Datum::int(cosigned.signed_at.millis()),
            ],
        );
        keep.apply(self.tx()).await?;
        let known = self.cosignatures().await?;
        let mine = known.iter().filter(|it| it.witness == cosigned.witness);
        let Some(last) = mine.map(|it| it.size).nth(KEPT - 1) else {
            return Ok(());
        };
        let forget = Edit::new(
            "DELETE FROM log_cosignatures WHERE witness = $1 AND size < $2",
            [
                Datum::text(&cosigned.witness),
                Datum::int(row::counted(last)),
            ],
        );
        forget.apply(self.tx()).await
    }
}
