//! Apple's Managed Device Attestation: the part others will audit.

pub mod freshness;
pub mod statement;

pub use self::freshness::{Freshness, NonceInputs, Scheme};
pub use self::statement::Statement;
