//! The outside world of an MDM server for Macs, over the wire: virtual Macs, a double of Apple's
//! push service and a double of Apple's attestation.
//!
//! It shares no code with any server, and its cryptography is OpenSSL's. "apple-protocol N" in
//! comments names a section of the project's sheet of facts about Apple's protocols.
//!
//! ```no_run
//! use attestd_sim::{Mac, MacSpec, World, WorldOptions};
//!
//! # async fn story() -> Result<(), Box<dyn std::error::Error>> {
//! let world = World::start(WorldOptions::default()).await?;
//! world.trust(&std::fs::read("server-root.pem")?);
//! let mac = Mac::new(MacSpec::random()?, &world);
//! mac.enroll("https://localhost:8443").await?;
//! let _life = mac.live();
//! # Ok(())
//! # }
//! ```

pub mod acme;
pub mod apns;
pub mod apple;
pub mod ats;
pub mod authorities;
pub mod certs;
pub mod clock;
pub mod cms;
pub mod coordinator;
pub mod csr;
pub mod der;
pub mod fleet;
pub mod keys;
pub mod mac;
pub mod plist_xml;
pub mod provider;
#[cfg(test)]
mod rehearsal;
pub mod scep;
pub mod tls;
pub mod world;

pub use authorities::{Authorities, WorldFiles};
pub use certs::Identity;
pub use clock::Clock;
pub use coordinator::{Coordinator, CoordinatorOptions};
pub use fleet::{Fleet, FleetPlan, FleetSummary};
pub use mac::{
    FormerEnrollment, IdentityKind, Lie, Life, Loss, Mac, MacError, MacEvent, MacKind, MacSpec,
    MacStep, Reply, Signing,
};
pub use provider::{KeyText, Provider, ProviderLie};
pub use world::{World, WorldError, WorldOptions};
