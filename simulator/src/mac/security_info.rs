//! The SecurityInfo dictionary of a Mac, as real ones send it (apple-protocol 4). Pure.

use plist::{Dictionary, Value};

use super::spec::{MacSpec, ReducedSecurityForm};
use crate::apple::SecureBoot;
use crate::plist_xml::dictionary;

/// What mdmclient would answer. Claims, not truth: see [`super::Lie`].
pub fn security_info(spec: &MacSpec) -> Dictionary {
    let boot = spec.claimed_boot();
    let claims_all_well = matches!(spec.lie, Some(super::Lie::SipOffButClaimsOn));
    let mut info = dictionary([
        ("SystemIntegrityProtectionEnabled", boot.sip_enabled.into()),
        (
            "AuthenticatedRootVolumeEnabled",
            (spec.authenticated_root || claims_all_well).into(),
        ),
        (
            "BootstrapTokenAllowedForAuthentication",
            "disallowed".into(),
        ),
        (
            "BootstrapTokenRequiredForKernelExtensionApproval",
            spec.apple_silicon.into(),
        ),
        (
            "BootstrapTokenRequiredForSoftwareUpdate",
            spec.apple_silicon.into(),
        ),
        ("FDE_Enabled", spec.filevault.into()),
        ("FDE_HasInstitutionalRecoveryKey", false.into()),
        ("FDE_HasPersonalRecoveryKey", spec.filevault.into()),
        ("FirewallSettings", Value::Dictionary(firewall(spec))),
        (
            "ManagementStatus",
            Value::Dictionary(dictionary([
                ("EnrolledViaDEP", false.into()),
                ("IsActivationLockManageable", true.into()),
                ("IsUserEnrollment", false.into()),
                ("UserApprovedEnrollment", true.into()),
            ])),
        ),
        ("RemoteDesktopEnabled", false.into()),
        (
            "SecureBoot",
            Value::Dictionary(secure_boot(spec, boot.secure_boot)),
        ),
    ]);
    if spec.apple_silicon {
        info.insert("IsRecoveryLockEnabled".into(), spec.recovery_lock.into());
    } else {
        let firmware = [
            ("AllowOroms", true.into()),
            ("ChangePending", false.into()),
            ("PasswordExists", false.into()),
        ];
        info.insert(
            "FirmwarePasswordStatus".into(),
            Value::Dictionary(dictionary(firmware)),
        );
    }
    if let Some(escrow) = &spec.recovery_key_cms {
        info.insert(
            "FDE_PersonalRecoveryKeyCMS".into(),
            Value::Data(escrow.clone()),
        );
        info.insert(
            "FDE_PersonalRecoveryKeyDeviceKey".into(),
            spec.serial.as_str().into(),
        );
    }
    info
}

fn firewall(spec: &MacSpec) -> Dictionary {
    let applications = spec.firewall_applications.iter().map(|bundle| {
        let name = bundle.rsplit('.').next().unwrap_or(bundle);
        Value::Dictionary(dictionary([
            ("Allowed", true.into()),
            ("BundleID", bundle.as_str().into()),
            ("Name", name.into()),
        ]))
    });
    dictionary([
        ("AllowSigned", true.into()),
        ("AllowSignedApp", true.into()),
        ("Applications", Value::Array(applications.collect())),
        ("BlockAllIncoming", false.into()),
        ("FirewallEnabled", spec.firewall.into()),
        ("LoggingEnabled", true.into()),
        ("LoggingOption", "throttled".into()),
        ("StealthMode", false.into()),
    ])
}

fn secure_boot(spec: &MacSpec, level: SecureBoot) -> Dictionary {
    let mut found = dictionary([
        (
            "ExternalBootLevel",
            if spec.apple_silicon {
                "allowed"
            } else {
                "not supported"
            }
            .into(),
        ),
        (
            "SecureBootLevel",
            // Secure Boot is Apple silicon's and the T2's (4).
            if spec.apple_silicon || spec.t2 {
                level.reported()
            } else {
                "not supported"
            }
            .into(),
        ),
        ("WindowsBootLevel", "not supported".into()),
    ]);
    // Present on Apple silicon and only where the level is medium.
    if spec.apple_silicon && level == SecureBoot::Reduced {
        let names = [
            ("AllowsAnyAppleSignedOS", true),
            ("AllowsMDM", true),
            ("AllowsUserKextApproval", spec.boot.third_party_kexts),
        ];
        let form = match spec.reduced_security_form {
            ReducedSecurityForm::Booleans => {
                Value::Dictionary(dictionary(names.map(|(name, on)| (name, on.into()))))
            }
            ReducedSecurityForm::Strings => Value::Dictionary(dictionary(
                names.map(|(name, on)| (name, if on { "true" } else { "false" }.into())),
            )),
            ReducedSecurityForm::Names => Value::Array(
                names
                    .into_iter()
                    .filter(|(_, on)| *on)
                    .map(|(name, _)| name.into())
                    .collect(),
            ),
        };
        found.insert("ReducedSecurity".into(), form);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mac::{Lie, MacKind};

    fn fixture(bytes: &[u8]) -> Dictionary {
        let reply: Value = plist::from_bytes(bytes).unwrap();
        reply
            .as_dictionary()
            .unwrap()
            .get("SecurityInfo")
            .unwrap()
            .as_dictionary()
            .unwrap()
            .clone()
    }

    #[test]
    fn a_healthy_mac_answers_as_the_real_one_does() {
        let spec = MacSpec::random().unwrap();
        assert_eq!(
            security_info(&spec),
            fixture(include_bytes!(
                "../../fixtures/securityinfo-full-security.plist"
            ))
        );
    }

    #[test]
    fn secure_boot_needs_the_chip_for_it() {
        let level = |kind| {
            let info = security_info(&MacSpec::of_kind(kind).unwrap());
            let boot = info.get("SecureBoot").unwrap().as_dictionary().unwrap();
            let level = boot.get("SecureBootLevel").unwrap().as_string();
            level.unwrap().to_owned()
        };
        assert_eq!(level(MacKind::Intel), "not supported");
        assert_eq!(level(MacKind::IntelT2), "full");
    }

    #[test]
    fn a_liar_claims_the_same_and_a_reduced_mac_says_so() {
        let healthy = security_info(&MacSpec::random().unwrap());
        assert_eq!(
            security_info(&MacSpec::random().unwrap().lying(Lie::SipOffButClaimsOn)),
            healthy
        );
        let reduced = security_info(&MacSpec::random().unwrap().with_reduced_security());
        assert_eq!(
            reduced,
            fixture(include_bytes!(
                "../../fixtures/securityinfo-reduced-dict-bool.plist"
            ))
        );
    }
}
