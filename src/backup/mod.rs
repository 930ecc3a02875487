//! What stands in a backup: a manifest, the files of keys, and every row of every table, as values that
//! both kinds of database have.
//!
//! It is a sequence of pieces ([`Piece`]), which is compressed and then sealed as a whole by whoever
//! writes it. Nothing here depends on the kind of database: a backup of one restores into the other.

mod piece;
mod value;

use serde::{Deserialize, Serialize};

pub use self::piece::{HEAD, Head, Piece, Unreadable};
pub use self::value::Value;
use crate::time::Timestamp;

/// The form of what is written here.
pub const FORMAT: u32 = 1;
/// The longest piece that is read. Rows are written in pieces of a few hundred kilobytes, so that only one
/// row that is larger makes a longer one.
pub const LONGEST_PIECE: usize = 64 * 1024 * 1024;

/// What a backup says of itself, first of all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub format: u32,
    /// The moment whose state this is, by the clock of the machine that made it.
    pub made_at: Timestamp,
    /// The version of the program that made it.
    pub made_by: String,
    /// The base URL of the service.
    pub server_id: String,
    /// `sqlite` or `postgresql`: what it was made of.
    pub database: String,
    /// The steps of the schema history that had been taken, in their order.
    pub schema: Vec<String>,
    /// The tables, each after those it refers to.
    pub tables: Vec<Table>,
    /// The names of the files in the folder of keys.
    pub keys: Vec<String>,
    /// What the configuration names and the backup does not hold.
    pub elsewhere: Vec<Elsewhere>,
    /// How many entries the transparency log had; none where nothing was ever published.
    pub log_size: Option<u64>,
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    pub name: String,
    pub columns: Vec<String>,
    pub rows: u64,
    /// The last number that was given to a row of it, where rows are numbered.
    pub numbered_up_to: Option<i64>,
}

/// A file that is not in the backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Elsewhere {
    /// The setting that names it, or what it is.
    pub what: String,
    pub path: String,
}

impl Manifest {
    /// Every row of every table.
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.rows).sum()
    }

    /// How many rows the table of this name has; none where there is no such table.
    pub fn rows_of(&self, name: &str) -> Option<u64> {
        let table = self.tables.iter().find(|table| table.name == name)?;
        Some(table.rows)
    }
}

/// Brings tables into an order in which each stands after those it refers to; `references` are pairs of
/// who refers and to whom. `None` where they refer to each other in a circle.
pub fn in_order_of_reference(
    tables: Vec<String>,
    references: &[(String, String)],
) -> Option<Vec<String>> {
    let mut waiting = tables;
    let mut ordered: Vec<String> = Vec::with_capacity(waiting.len());
    while !waiting.is_empty() {
        let is_free = |table: &String| {
            let mut to = references.iter().filter(|(from, _)| from == table);
            to.all(|(from, to)| from == to || !waiting.contains(to))
        };
        let (free, bound): (Vec<_>, Vec<_>) = waiting.iter().cloned().partition(is_free);
        if free.is_empty() {
            return None;
        }
        ordered.extend(free);
        waiting = bound;
    }
    Some(ordered)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(from, to): &(&str, &str)| ((*from).to_owned(), (*to).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn a_table_stands_after_those_it_refers_to() {
        let tables = names(&["commands", "enrollments", "identities", "tickets"]);
        let references = pairs(&[
            ("commands", "enrollments"),
            ("enrollments", "identities"),
            ("enrollments", "tickets"),
            ("enrollments", "enrollments"),
            ("identities", "tickets"),
        ]);
        let ordered = in_order_of_reference(tables, &references).expect("no circle");
        assert_eq!(
            ordered,
            ["tickets", "identities", "enrollments", "commands"]
        );
    }

    #[test]
    fn a_circle_has_no_order() {
        let references = pairs(&[("a", "b"), ("b", "a")]);
        assert_eq!(
            in_order_of_reference(names(&["a", "b", "c"]), &references),
            None
        );
    }
}
