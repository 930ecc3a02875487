//! What holds where the file says nothing.

use std::path::PathBuf;

use super::{AdoptedProfile, Apns, Attestation, Enrollment, Log, LogFormat, Verification};
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
        }
    }
}

impl Default for Attestation {
    fn default() -> Self {
        Self {
            hold: seconds(DAY),
            root: None,
        }
    }
}

impl Default for Verification {
    fn default() -> Self {
        Self {
            patience: seconds(HOUR),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: LogFormat::Text,
        }
    }
}

fn seconds(seconds: u64) -> Span {
    Span(std::time::Duration::from_secs(seconds))
}
