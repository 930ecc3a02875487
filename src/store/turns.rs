//! Whose turn it is to deliver: of several nodes one takes a receiver for a while, and keeps what came of
//! it under the revision it took. Whoever was overtaken, or replaced by a change, keeps nothing.

use super::edit::{Datum, Edit};
use super::row;
use super::{StoreError, Write};
use crate::publication::delivery::Course;
use crate::time::Timestamp;

/// A row with the columns `revision`, `taken_until` and `course`, as it was read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn<'a> {
    pub(super) table: &'static str,
    /// Its primary key.
    pub(super) column: &'static str,
    pub(super) id: &'a str,
    pub(super) revision: i64,
}

impl Turn<'_> {
    /// Takes it until then. False when somebody else was faster.
    pub(super) async fn take(self, tx: &mut Write, until: Timestamp) -> Result<bool, StoreError> {
        let Self { table, column, .. } = self;
        let edit = Edit::that_must_change(
            format!(
                "UPDATE {table} SET taken_until = $1, revision = revision + 1 \
                 WHERE {column} = $2 AND revision = $3"
            ),
            [
                Datum::int(until.millis()),
                Datum::text(self.id),
                Datum::int(self.revision),
            ],
        );
        match edit.apply(tx.tx()).await {
            Ok(()) => Ok(true),
            Err(StoreError::Conflict) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Keeps how far it is, and gives it back.
    ///
    /// # Errors
    /// `Conflict` when it is another's by now, or is no more.
    pub(super) async fn give_back(self, tx: &mut Write, course: &Course) -> Result<(), StoreError> {
        self.save(tx, course, "taken_until = 0, ").await
    }

    /// Moves it to elsewhere, whoever has taken it: what comes of that is not kept, and others leave it
    /// alone for as long as was said.
    ///
    /// # Errors
    /// `Conflict` when it is no longer as it was read.
    pub(super) async fn displace(self, tx: &mut Write, course: &Course) -> Result<(), StoreError> {
        self.save(tx, course, "").await
    }

    async fn save(self, tx: &mut Write, course: &Course, besides: &str) -> Result<(), StoreError> {
        let Self { table, column, .. } = self;
        let edit = Edit::that_must_change(
            format!(
                "UPDATE {table} SET course = $1, {besides}revision = revision + 1 \
                 WHERE {column} = $2 AND revision = $3"
            ),
            [
                Datum::text(row::body("course", course)?),
                Datum::text(self.id),
                Datum::int(self.revision),
            ],
        );
        edit.apply(tx.tx()).await
    }
}
