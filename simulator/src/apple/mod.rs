//! The double of Apple's attestation: an authority that issues leaves of the real shape under a
//! root of its own, and the client inside a Mac that caches them (apple-protocol 5.2, 5.3, 6).

mod authority;
mod client;
mod leaf;

pub use authority::{AttestationAuthority, Chain};
pub use client::AttestationClient;
pub(crate) use leaf::version_at_least;
pub use leaf::{AttestedState, BootPolicy, LeafProperty, SecureBoot, oid};
