//! What holds where the file says nothing.

use std::num::NonZeroU32;
use std::path::PathBuf;

use super::{AdoptedProfile, Apns, Attestation, Enrollment, NonceScheme, Verification};
use crate::enrollment::Protocol;
use crate::time::Span;

pub(super) fn data_dir() -> PathBuf {
    PathBuf::from(".")
}

pub(super) fn enroll_per_minute() -> u32 {
    30
}

pub(super) fn scep_per_minute() -> u32 {
    120
}

pub(super) fn acme_per_minute() -> u32 {
    270
}

/// A house with a few hundred Macs behind one address is served, and twenty addresses do not fill the listener.
pub(super) fn connections_per_address() -> u32 {
    1_000
}

/// A log of 150,000 entries is read in a minute.
pub(super) fn log_per_minute() -> u32 {
    600
}

pub(super) fn feed_per_minute() -> u32 {
    60
}

const HOUR: u64 = 60 * 60;
const DAY: u64 = 24 * HOUR;

impl Default for Enrollment {
    fn default() -> Self {
        Self {
            organization: "attestd".to_owned(),
            identifier: None,
            identity_lifetime: seconds(5 * 365 * DAY),
            identity: Protocol::Acme,
            adopted: AdoptedProfile::default(),
        }
    }
}

impl Default for Apns {
    fn default() -> Self {
        Self {
            url: "https://api.push.apple.com".to_owned(),
            root: None,
            // 100,000 Macs whose budget is two pushes an hour are woken 56 times a second.
            pushes_per_second: number(100),
        }
    }
}

impl Default for Attestation {
    fn default() -> Self {
        Self {
            hold: seconds(DAY),
            root: None,
            nonce_scheme: NonceScheme::default(),
        }
    }
}

impl Default for Verification {
    fn default() -> Self {
        Self {
            patience: seconds(HOUR),
            // Two or three an hour were seen to get through.
            pushes_per_hour: number(2),
            queue: number(4096),
        }
    }
}

fn seconds(seconds: u64) -> Span {
    Span(std::time::Duration::from_secs(seconds))
}

fn number(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN)
}
