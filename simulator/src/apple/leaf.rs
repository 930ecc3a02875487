//! What an attestation leaf says, property by property, in the real order and encodings
//! (apple-protocol 6.1, 6.3).

use crate::der::{self, tag};

/// The attested properties' object identifiers, below 1.2.840.113635.100.8.
pub mod oid {
    pub const SERIAL_NUMBER: &str = "1.2.840.113635.100.8.9.1";
    pub const PROVISIONING_UDID: &str = "1.2.840.113635.100.8.9.2";
    pub const SOFTWARE_UPDATE_DEVICE_ID: &str = "1.2.840.113635.100.8.9.4";
    pub const OS_VERSION: &str = "1.2.840.113635.100.8.10.1";
    pub const SEPOS_VERSION: &str = "1.2.840.113635.100.8.10.2";
    pub const LLB_VERSION: &str = "1.2.840.113635.100.8.10.3";
    pub const FRESHNESS: &str = "1.2.840.113635.100.8.11.1";
    pub const SIP: &str = "1.2.840.113635.100.8.13.1";
    pub const SECURE_BOOT: &str = "1.2.840.113635.100.8.13.2";
    pub const KERNEL_EXTENSIONS: &str = "1.2.840.113635.100.8.13.3";
}

/// The three boot policies of Apple silicon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SecureBoot {
    #[default]
    Full,
    Reduced,
    Permissive,
}

impl SecureBoot {
    /// The word in OID 13.2.
    pub fn attested(self) -> &'static str {
        match self {
            Self::Full => "Full Security",
            Self::Reduced => "Reduced Security",
            Self::Permissive => "Permissive Security",
        }
    }

    /// The word in SecurityInfo's SecureBootLevel (apple-protocol 4).
    pub fn reported(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Reduced => "medium",
            Self::Permissive => "off",
        }
    }
}

/// What the Secure Enclave measured of the boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootPolicy {
    pub sip_enabled: bool,
    pub secure_boot: SecureBoot,
    pub third_party_kexts: bool,
}

impl Default for BootPolicy {
    fn default() -> Self {
        Self {
            sip_enabled: true,
            secure_boot: SecureBoot::Full,
            third_party_kexts: false,
        }
    }
}

/// One extension of a leaf: its OID and the bytes inside extnValue.
pub type LeafProperty = (&'static str, Vec<u8>);

/// The state of one Mac as Apple knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttestedState {
    pub serial: String,
    /// `%08X-%016X` of chip and ECID; not the MDM UDID.
    pub provisioning_udid: String,
    pub software_update_device_id: String,
    pub os_version: String,
    pub sepos_version: String,
    pub llb_version: String,
    pub boot: BootPolicy,
}

impl AttestedState {
    /// The leaf's extensions for this state, `nonce` verbatim as freshness. Before macOS 14.2
    /// only 10.2, 9.1, 9.2 and 11.1 exist (apple-protocol 6.3, column "since macOS").
    pub fn properties(&self, nonce: Option<&[u8]>) -> Vec<LeafProperty> {
        let full = version_at_least(&self.os_version, 14, 2);
        let integer = |value: bool| der::small_integer(u8::from(value));
        let mut found = vec![(oid::SEPOS_VERSION, self.sepos_version.clone().into_bytes())];
        if full {
            found.push((oid::LLB_VERSION, self.llb_version.clone().into_bytes()));
            found.push((oid::OS_VERSION, self.os_version.clone().into_bytes()));
            found.push((
                oid::SOFTWARE_UPDATE_DEVICE_ID,
                self.software_update_device_id.clone().into_bytes(),
            ));
            found.push((
                oid::SECURE_BOOT,
                self.boot.secure_boot.attested().as_bytes().to_vec(),
            ));
            // 0 says ENABLED (apple-protocol trap 1).
            found.push((oid::SIP, integer(!self.boot.sip_enabled)));
            found.push((oid::KERNEL_EXTENSIONS, integer(self.boot.third_party_kexts)));
        }
        found.push((oid::SERIAL_NUMBER, self.serial.clone().into_bytes()));
        found.push((
            oid::PROVISIONING_UDID,
            self.provisioning_udid.clone().into_bytes(),
        ));
        if let Some(nonce) = nonce {
            found.push((oid::FRESHNESS, nonce.to_vec()));
        }
        found
    }
}

/// Whether a dotted macOS version is `major.minor` or later; a text that is none is earlier.
pub(crate) fn version_at_least(version: &str, major: u32, minor: u32) -> bool {
    let mut parts = version
        .split('.')
        .map(|part| part.parse::<u32>().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (major, minor)
}

/// basicConstraints as the real leaf has it: critical, an empty SEQUENCE.
pub(crate) const BASIC_CONSTRAINTS: [u8; 2] = [tag::SEQUENCE, 0];
/// keyUsage of the real leaf: digitalSignature, nonRepudiation, keyEncipherment, dataEncipherment.
pub(crate) const KEY_USAGE: [u8; 4] = [tag::BIT_STRING, 2, 4, 0xf0];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        for (version, expected) in [
            ("14.2", true),
            ("14.10", true),
            ("15", true),
            ("14.1.9", false),
            ("13.9", false),
            ("", false),
        ] {
            assert_eq!(version_at_least(version, 14, 2), expected, "{version}");
        }
    }
}
