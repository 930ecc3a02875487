//! An ACME client with `device-attest-01`, as strict as macOS's own (apple-protocol 7, 12.9;
//! RFC 8555).

mod client;
mod error;
mod jws;
mod settings;
mod statement;

#[cfg(test)]
pub(crate) mod script;
#[cfg(test)]
mod tests;

pub use client::{AcmeAnswer, AcmeOrder, AcmeRun, Challenge, Standing, USER_AGENT};
pub use error::{AcmeError, AcmeFault, AcmeStep};
pub use jws::{AccountKey, Named};
pub use settings::{AcmeSettings, AcmeTiming, KeyForm};
pub use statement::{ChallengeAnswer, attestation_object, freshness};
