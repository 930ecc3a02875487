//! The kinds of Mac a server meets, and what each can do about an identity.

use clap::ValueEnum;
use openssl::error::ErrorStack;

use super::spec::{MacSpec, random_serial};
use crate::clock::DAY_MS;

/// A kind of Mac, as the command line names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum MacKind {
    /// Apple silicon, current macOS: attested identities, attested posture
    #[default]
    AppleSilicon,
    /// Intel without a security chip: no Secure Enclave, an ACME payload with HardwareBound fails
    Intel,
    /// Intel with a T2 chip: a key in its Secure Enclave, but it ignores Attest and attests nothing
    IntelT2,
    /// A macOS guest (serial number Z…): neither Secure Enclave nor attestation
    VirtualMachine,
    /// Apple silicon with macOS 13: ACME works, HardwareBound and attestation do not
    #[value(name = "macos-13")]
    Macos13,
    /// Apple silicon that cannot reach Apple: the ACME statement has an empty chain
    AppleUnreachable,
    /// Brings an identity of the world's former device CA (adopted-ca.pem) that has expired, and
    /// signs with it
    ExpiredIdentity,
}

impl MacSpec {
    /// A Mac of this kind with unguessable identifiers.
    pub fn of_kind(kind: MacKind) -> Result<Self, ErrorStack> {
        let spec = Self::random()?;
        Ok(match kind {
            MacKind::AppleSilicon => spec,
            // The last macOS for an iMac without T2; and a Mac that has one.
            MacKind::Intel => Self {
                t2: false,
                ..spec.on_intel("iMac19,1", "iMac", "15.7.3", "24G419")
            },
            MacKind::IntelT2 => spec.on_intel("MacBookPro16,1", "MacBook Pro", "26.6.2", "25G83"),
            MacKind::VirtualMachine => Self {
                serial: random_serial("ZSM")?,
                provisioning_udid: spec.provisioning_udid.replace("00006040", "0000FE00"),
                model: "VirtualMac2,1".into(),
                model_name: "Apple Virtual Machine 1".into(),
                device_name: "Sim Virtual Machine".into(),
                software_update_device_id: "VMA2MACOSAP".into(),
                virtual_machine: true,
                ..spec
            },
            MacKind::Macos13 => Self {
                os_version: "13.7.8".into(),
                build_version: "22H730".into(),
                sepos_version: "13.7".into(),
                llb_version: "13.7".into(),
                ..spec
            },
            MacKind::AppleUnreachable => Self {
                reaches_apple: false,
                ..spec
            },
            MacKind::ExpiredIdentity => Self {
                former_identity: Some(-30 * DAY_MS),
                ..spec
            },
        })
    }

    fn on_intel(self, model: &str, name: &str, os_version: &str, build: &str) -> Self {
        Self {
            model: model.into(),
            model_name: name.into(),
            device_name: format!("Sim {name}"),
            os_version: os_version.into(),
            build_version: build.into(),
            // Intel Macs have no identifier of chip and ECID.
            provisioning_udid: self.udid.clone(),
            apple_silicon: false,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_can_do_what_its_hardware_and_system_can() {
        for (kind, enclave, attested, hardware) in [
            (MacKind::AppleSilicon, true, true, "apple_silicon"),
            (MacKind::Intel, false, false, "intel"),
            (MacKind::IntelT2, true, false, "intel"),
            (MacKind::VirtualMachine, false, false, "virtual_machine"),
            (MacKind::Macos13, false, false, "apple_silicon"),
            (MacKind::AppleUnreachable, true, false, "apple_silicon"),
            (MacKind::ExpiredIdentity, true, true, "apple_silicon"),
        ] {
            let spec = MacSpec::of_kind(kind).unwrap();
            assert_eq!(
                (
                    spec.has_secure_enclave(),
                    spec.can_be_attested(),
                    spec.hardware()
                ),
                (enclave, attested, hardware),
                "{kind:?}"
            );
            let virtual_machine = kind == MacKind::VirtualMachine;
            assert_eq!(spec.serial.starts_with('Z'), virtual_machine);
            assert_eq!(spec.serial.len(), 10);
        }
    }
}
