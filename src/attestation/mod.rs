//! Apple's Managed Device Attestation: the part others will audit.
//!
//! [`verify`] takes a chain as a Mac brought it and says either what Apple vouches for, or why the
//! chain is refused. The chain comes first: nothing in a leaf is believed before it leads to the
//! pinned root.
//!
//! # What it proves
//! That Apple issued this statement about a genuine Apple device with this serial number, in a
//! request that carried this freshness code, and that the device was in the stated condition then.
//!
//! # What it does not prove
//! That the Mac which sent it is the Mac it speaks of (every Apple device has such a chain: the
//! caller compares the serial number, and the freshness code with nonces it minted for this Mac);
//! anything after the moment of issue; FileVault; which programs run; that a key named by the
//! freshness code lives in this Mac.
//!
//! # Source
//! Apple, "Validating a Managed Device Attestation"; `mdm/commands/information.device.yaml`.

pub mod anchor;
pub mod evidence;
pub mod freshness;
pub mod statement;

pub use self::anchor::{Anchor, Anchors};
pub use self::evidence::{Evidence, Refusal, VerifiedEvidence, verify};
pub use self::freshness::{Freshness, Minted, NonceInputs, Scheme};
pub use self::statement::Statement;
