//! SecurityInfo: what the operating system reports about itself.
//!
//! It is a self-report by a harder-to-tamper path: mdmclient runs as root, and a Mac whose
//! integrity protection is off can say anything here. Source: Apple
//! `mdm/commands/information.security.yaml`.

use serde::{Deserialize, Serialize};

use super::Refusal;
use super::plist::{Dictionary, Value, to_xml};

/// Members that are neither personal nor secret; the only ones that are ever stored. Left out on
/// purpose: `FDE_PersonalRecoveryKeyCMS` and `FDE_PersonalRecoveryKeyDeviceKey` (they open the
/// owner's disk) and the firewall's list of applications (it is nobody's business).
pub const KEPT: [&str; 33] = [
    "AuthenticatedRootVolumeEnabled",
    "BootstrapTokenAllowedForAuthentication",
    "BootstrapTokenRequiredForKernelExtensionApproval",
    "BootstrapTokenRequiredForSoftwareUpdate",
    "FDE_Enabled",
    "FDE_HasInstitutionalRecoveryKey",
    "FDE_HasPersonalRecoveryKey",
    "IsRecoveryLockEnabled",
    "RemoteDesktopEnabled",
    "SystemIntegrityProtectionEnabled",
    "FirewallSettings",
    "AllowSigned",
    "AllowSignedApp",
    "BlockAllIncoming",
    "FirewallEnabled",
    "LoggingEnabled",
    "LoggingOption",
    "StealthMode",
    "FirmwarePasswordStatus",
    "AllowOroms",
    "ChangePending",
    "PasswordExists",
    "ManagementStatus",
    "EnrolledViaDEP",
    "IsActivationLockManageable",
    "IsUserEnrollment",
    "UserApprovedEnrollment",
    "SecureBoot",
    "ExternalBootLevel",
    "ReducedSecurity",
    "AllowsAnyAppleSignedOS",
    "AllowsUserKextApproval",
    "SecureBootLevel",
];

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

impl SecurityInfo {
    /// Reads the SecurityInfo dictionary of an acknowledged report.
    ///
    /// A member with another type than Apple's schema gives it makes the whole reply malformed; an
    /// unknown word for a level leaves that level unsaid.
    ///
    /// # Refusals
    /// No SecurityInfo dictionary; a member of the wrong type.
    pub fn read(report: &Dictionary<'_>) -> Result<Self, Refusal> {
        let info = report
            .dictionary("SecurityInfo")?
            .ok_or(Refusal::Key("SecurityInfo"))?;
        let boot = info.dictionary("SecureBoot")?;
        let word = |key| -> Result<Option<&str>, Refusal> {
            match boot {
                Some(boot) => Ok(boot.string(key)?),
                None => Ok(None),
            }
        };
        let firewall = info.dictionary("FirewallSettings")?;
        Ok(Self {
            sip_enabled: info.boolean("SystemIntegrityProtectionEnabled")?,
            secure_boot: match word("SecureBootLevel")? {
                Some("full") => Some(SecureBootLevel::Full),
                Some("medium") => Some(SecureBootLevel::Medium),
                Some("off") => Some(SecureBootLevel::Off),
                Some("not supported") => Some(SecureBootLevel::NotSupported),
                _ => None,
            },
            filevault_enabled: info.boolean("FDE_Enabled")?,
            authenticated_root: info.boolean("AuthenticatedRootVolumeEnabled")?,
            external_boot: match word("ExternalBootLevel")? {
                Some("allowed") => Some(true),
                Some("disallowed") => Some(false),
                _ => None,
            },
            recovery_lock: info.boolean("IsRecoveryLockEnabled")?,
            firewall_enabled: match firewall {
                Some(firewall) => firewall.boolean("FirewallEnabled")?,
                None => None,
            },
        })
    }

    /// Whether it states every property a policy judges that `other` states.
    pub fn states(&self, other: &Self) -> bool {
        self.sip_enabled.is_some() >= other.sip_enabled.is_some()
            && self.secure_boot.is_some() >= other.secure_boot.is_some()
            && self.filevault_enabled.is_some() >= other.filevault_enabled.is_some()
            && self.authenticated_root.is_some() >= other.authenticated_root.is_some()
    }

    /// Whether a property says that this Mac is not in the state a policy could want.
    pub fn contradicts_full_security(&self) -> bool {
        self.sip_enabled == Some(false)
            || matches!(self.secure_boot, Some(level) if level != SecureBootLevel::Full)
    }
}

/// The report as it may be stored: personal and secret members dropped, by a list of what stays.
pub fn without_personal_members(report: &Dictionary<'_>) -> Vec<u8> {
    let mut kept = report.clone();
    kept.retain(|key, value| match (key, value) {
        ("CommandUUID" | "RequestType" | "Status" | "UDID", Value::String(_)) => true,
        ("SecurityInfo", Value::Dictionary(info)) => {
            keep_listed(info);
            true
        }
        _ => false,
    });
    to_xml(&kept)
}

fn keep_listed(dictionary: &mut Dictionary<'_>) {
    dictionary.retain(|key, value| {
        let listed = KEPT.contains(&key);
        match value {
            Value::Dictionary(inner) if listed => {
                keep_listed(inner);
                true
            }
            Value::Boolean(_) => listed,
            // Levels and options are short words; anything longer is none.
            Value::String(word) => listed && word.len() <= 32,
            _ => false,
        }
    });
}

#[cfg(test)]
mod tests {
    use super::super::plist::read_dictionary;
    use super::*;

    fn report(info: &str) -> Vec<u8> {
        format!(
            "<plist><dict><key>Status</key><string>Acknowledged</string>\
             <key>DeviceName</key><string>Somebody's Mac</string>\
             <key>SecurityInfo</key><dict>{info}</dict></dict></plist>"
        )
        .into_bytes()
    }

    fn read(info: &str) -> Result<SecurityInfo, Refusal> {
        let bytes = report(info);
        SecurityInfo::read(&read_dictionary(&bytes).expect("well formed"))
    }

    #[test]
    fn what_is_not_said_stays_unknown() {
        assert_eq!(read(""), Ok(SecurityInfo::default()));
        let strange = read(
            "<key>SecureBoot</key><dict><key>SecureBootLevel</key><string>Full</string></dict>",
        );
        assert_eq!(strange.map(|info| info.secure_boot), Ok(None));
    }

    #[test]
    fn levels_are_read_in_apples_words() {
        for (word, level) in [
            ("full", SecureBootLevel::Full),
            ("medium", SecureBootLevel::Medium),
            ("off", SecureBootLevel::Off),
            ("not supported", SecureBootLevel::NotSupported),
        ] {
            let info = read(&format!(
                "<key>SecureBoot</key><dict><key>SecureBootLevel</key><string>{word}</string></dict>"
            ));
            assert_eq!(info.map(|info| info.secure_boot), Ok(Some(level)));
        }
    }

    #[test]
    fn a_property_of_another_type_makes_the_reply_malformed() {
        let text = read("<key>SystemIntegrityProtectionEnabled</key><string>true</string>");
        assert!(matches!(text, Err(Refusal::Plist(_))));
    }

    #[test]
    fn secrets_and_personal_members_are_not_stored() {
        let bytes = report(
            "<key>FDE_Enabled</key><true/><key>FDE_PersonalRecoveryKeyCMS</key><data>Y2FuYXJ5</data>\
             <key>FDE_PersonalRecoveryKeyDeviceKey</key><string>canary</string>\
             <key>FirewallSettings</key><dict><key>FirewallEnabled</key><true/>\
             <key>Applications</key><array><dict><key>Name</key><string>canary</string></dict></array></dict>",
        );
        let stored = without_personal_members(&read_dictionary(&bytes).expect("well formed"));
        let text = String::from_utf8(stored).expect("text");
        assert!(
            !text.contains("canary") && !text.contains("Y2FuYXJ5") && !text.contains("Somebody")
        );
        assert!(text.contains("FDE_Enabled") && text.contains("FirewallEnabled"));
    }
}
