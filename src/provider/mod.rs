//! What the provider's own software says: the third and weakest kind of evidence.
//!
//! A provider session begins with a [`blob`], goes on with [`challenge`]s that keep it [`liveness`],
//! and runs a program that is a [`release`] or is none. A provider that has no Mac here yet asks for
//! a profile by an [`enroll_request`]. All of it is signed by one Secure Enclave key, [`SePublicKey`].
//!
//! # What it proves
//! That the holder of this key said this, and lately. It is the word of a program on somebody's Mac:
//! it lowers trust at once, and raises it no higher than `self_signed`.
//!
//! # What it does not prove
//! That the key lives in the Mac whose serial number is claimed, or that the program is the one whose
//! hash it states.

pub mod blob;
#[cfg(test)]
mod blob_test;
pub mod challenge;
#[cfg(test)]
mod challenge_test;
mod encryption_key;
pub mod enroll_request;
pub mod liveness;
#[cfg(test)]
mod liveness_test;
mod members;
pub mod release;
#[cfg(test)]
mod release_test;
mod se_key;
pub mod session;
mod signature;
pub mod status;
#[cfg(test)]
mod test_provider;
mod version;

use std::time::Duration;

pub use self::blob::{Blob, BlobRefusal, SelfReport, SignedBlob, VerifiedBlob};
pub use self::challenge::{Challenge, Response, VerifiedAnswer};
pub use self::encryption_key::{EncryptionKey, NotAnEncryptionKey};
pub use self::enroll_request::EnrollRequest;
pub use self::liveness::Liveness;
pub use self::members::Malformed;
pub use self::release::{BinaryHash, Platform, Release};
pub use self::se_key::{SeKeyRefusal, SePoint, SePublicKey};
pub use self::session::{Registration, Session};
pub use self::signature::{BadSignature, Signature, SignatureRefusal};
pub use self::status::Status;
pub use self::version::{NotAVersion, Version};

use crate::time::Timestamp;

/// How far the clocks of a Mac, of a coordinator and of this service may be apart.
pub const CLOCK_SKEW: Duration = Duration::from_secs(2 * 60);

/// Whether `stated` is at most `oldest` ago, and not further ahead than clocks may be apart.
fn is_timely(stated: Timestamp, oldest: Duration, now: Timestamp) -> bool {
    now.since(stated) <= oldest && stated.since(now) <= CLOCK_SKEW
}
