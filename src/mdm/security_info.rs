//! SecurityInfo: what the operating system reports about itself.

use serde::{Deserialize, Serialize};

/// The properties this service reads. `None` is "not said", never "false".
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityInfo {
    pub sip_enabled: Option<bool>,
    pub secure_boot: Option<SecureBootLevel>,
    pub filevault_enabled: Option<bool>,
    pub authenticated_root: Option<bool>,
    /// Whether starting from external media is allowed (ExternalBootLevel).
    pub external_boot: Option<bool>,
    pub recovery_lock: Option<bool>,
    pub firewall_enabled: Option<bool>,
}

/// SecureBootLevel in Apple's words for MDM; MDA uses other words for the same thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecureBootLevel {
    Full,
    Medium,
    Off,
    NotSupported,
}
