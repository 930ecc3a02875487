//! The transparency log: what is said is said to all, in an order that nobody can change afterwards.
//!
//! An append-only tree of hashes (RFC 9162 section 2.1, with the hashing of RFC 6962), kept as C2SP tiles
//! (`tlog-tiles`), whose head is a signed note (`signed-note`, `tlog-checkpoint`); a proof of one entry is a
//! `tlog-proof`.

pub mod checkpoint;
pub mod entry;
pub mod note;
pub mod proof;
pub mod tile;
pub mod tree;
pub mod witness;

pub use self::checkpoint::Checkpoint;
pub use self::proof::Proof;
pub use self::tile::Tile;
pub use self::tree::{Hash, Hashes, Run};

/// A text that has not the form it must have: which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);
