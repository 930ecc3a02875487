//! What Apple's leaf says of a Mac.

use serde::{Deserialize, Serialize};

use crate::ids::{ProvisioningUdid, SerialNumber};

/// The properties of one attestation. `None` is "Apple did not say", never good and never bad.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    pub serial: Option<SerialNumber>,
    pub provisioning_udid: Option<ProvisioningUdid>,
    pub os_version: Option<String>,
    pub sepos_version: Option<String>,
    pub llb_version: Option<String>,
    pub sip_enabled: Option<bool>,
    pub secure_boot: Option<SecureBoot>,
    pub third_party_kexts: Option<bool>,
}

/// Secure Boot in Apple's words for MDA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecureBoot {
    /// "Full Security"
    Full,
    /// "Reduced Security"
    Reduced,
    /// "Permissive Security"
    Permissive,
}

impl Statement {
    /// Whether a property says that this Mac is not in the state a policy could want.
    pub fn contradicts_full_security(&self) -> bool {
        self.sip_enabled == Some(false)
            || matches!(
                self.secure_boot,
                Some(SecureBoot::Reduced | SecureBoot::Permissive)
            )
            || self.third_party_kexts == Some(true)
    }
}
