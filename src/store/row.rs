//! From rows to nouns.

use super::error::{StoreError, Unwritable};
use crate::time::Timestamp;

/// A row that stands for a noun.
pub(super) trait Row: Sized {
    /// What it stands for.
    type Noun;
    /// The table it comes from.
    const TABLE: &'static str;

    /// Names the row in an error. Never a secret.
    fn id(&self) -> String;

    /// The noun; `None` when the row says something this service never writes.
    fn noun(self) -> Option<Self::Noun>;
}

/// The noun of a row.
pub(super) fn read<R: Row>(row: R) -> Result<R::Noun, StoreError> {
    let id = row.id();
    row.noun().ok_or(StoreError::Inconsistent {
        table: R::TABLE,
        id,
    })
}

/// The noun of a row that may not be there.
pub(super) fn read_one<R: Row>(row: Option<R>) -> Result<Option<R::Noun>, StoreError> {
    row.map(read).transpose()
}

/// The nouns of many rows; one bad row fails them all, because an answer that silently lacks
/// something is worse than none.
pub(super) fn read_all<R: Row>(rows: Vec<R>) -> Result<Vec<R::Noun>, StoreError> {
    rows.into_iter().map(read).collect()
}

/// A required text of a parsed kind.
pub(super) fn parsed<'a, T, E>(
    text: &'a str,
    parse: impl FnOnce(&'a str) -> Result<T, E>,
) -> Option<T> {
    parse(text).ok()
}

/// An optional text of a parsed kind: absent is fine, malformed is not.
pub(super) fn parsed_if_any<'a, T, E>(
    text: Option<&'a str>,
    parse: impl FnOnce(&'a str) -> Result<T, E>,
) -> Option<Option<T>> {
    match text {
        None => Some(None),
        Some(text) => parse(text).ok().map(Some),
    }
}

/// 32 bytes.
pub(super) fn digest(bytes: &[u8]) -> Option<[u8; 32]> {
    bytes.try_into().ok()
}

/// A time that may be absent.
pub(super) fn time(millis: Option<i64>) -> Option<Timestamp> {
    millis.map(Timestamp::from_millis)
}

/// A time that may be absent, as stored.
pub(super) fn millis(time: Option<Timestamp>) -> Option<i64> {
    time.map(Timestamp::millis)
}

/// A counter as stored; those of this service never come near the end of the range.
pub(super) fn counted(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A limit as the database takes it.
pub(super) fn limited(limit: usize) -> u64 {
    u64::try_from(limit).unwrap_or(u64::MAX)
}

/// The JSON body of a noun.
pub(super) fn body(what: &'static str, noun: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(noun).map_err(|error| StoreError::unavailable(Unwritable(what, error)))
}
