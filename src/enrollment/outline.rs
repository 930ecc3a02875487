//! What a profile asks a Mac's owner to accept, read back from the profile itself.

use super::profile::{ACCESS_RIGHTS, Unusable};
use crate::mdm::plist::{Dictionary, Value, read_dictionary};

/// A profile in short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    pub name: String,
    pub organization: String,
    pub description: String,
    pub payloads: Vec<Payload>,
    /// Whether its owner can remove it at any time (no PayloadRemovalDisallowed).
    pub removable: bool,
}

/// One payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// PayloadType, such as `com.apple.mdm`.
    pub kind: String,
    pub name: String,
    pub description: String,
}

/// One bit of AccessRights: what a server that has it may do.
///
/// Source: Apple `mdm/profiles/com.apple.mdm.yaml`, AccessRights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Right {
    pub bit: i128,
    pub allows: &'static str,
}

/// Every right there is; together 8191.
pub const RIGHTS: [Right; 13] = [
    Right::new(1, "see which configuration profiles are installed"),
    Right::new(2, "install and remove configuration profiles"),
    Right::new(4, "lock the Mac or remove its passcode"),
    Right::new(8, "erase the Mac"),
    Right::new(
        16,
        "read device information: serial number, model, macOS version, Apple’s attestation",
    ),
    Right::new(32, "read network information, such as addresses"),
    Right::new(64, "see which provisioning profiles are installed"),
    Right::new(128, "install and remove provisioning profiles"),
    Right::new(256, "see which apps are installed"),
    Right::new(512, "read which restrictions are in force"),
    Right::new(
        1024,
        "read the security state: System Integrity Protection, Secure Boot, FileVault, firewall",
    ),
    Right::new(2048, "change settings"),
    Right::new(4096, "install, manage and remove apps"),
];

impl Right {
    const fn new(bit: i128, allows: &'static str) -> Self {
        Self { bit, allows }
    }

    /// Whether profiles of this service ask for it.
    pub fn is_asked_for(self) -> bool {
        ACCESS_RIGHTS & self.bit != 0
    }
}

/// Reads a filled, unsigned profile.
///
/// # Errors
/// What is missing in it.
pub fn outline(profile: &[u8]) -> Result<Outline, Unusable> {
    let top = read_dictionary(profile)?;
    let Some(Value::Array(inner)) = top.value("PayloadContent") else {
        return Err(Unusable::Missing("PayloadContent"));
    };
    let mut payloads = Vec::with_capacity(inner.len());
    for payload in inner {
        let Value::Dictionary(payload) = payload else {
            return Err(Unusable::Missing("PayloadContent"));
        };
        payloads.push(Payload {
            kind: text(payload, "PayloadType")?,
            name: text(payload, "PayloadDisplayName")?,
            description: text(payload, "PayloadDescription")?,
        });
    }
    Ok(Outline {
        name: text(&top, "PayloadDisplayName")?,
        organization: text(&top, "PayloadOrganization")?,
        description: text(&top, "PayloadDescription")?,
        payloads,
        removable: !matches!(
            top.value("PayloadRemovalDisallowed"),
            Some(value) if *value != Value::Boolean(false)
        ),
    })
}

fn text(dictionary: &Dictionary<'_>, key: &'static str) -> Result<String, Unusable> {
    match dictionary.value(key) {
        Some(Value::String(text)) => Ok(text.to_string()),
        _ => Err(Unusable::Missing(key)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::profile::SCEP_TEMPLATE;
    use super::*;

    #[test]
    fn the_rights_asked_for_are_the_ones_that_are_explained() {
        let sum = |rights: &[Right]| rights.iter().map(|right| right.bit).sum::<i128>();
        assert_eq!(sum(&RIGHTS), 8191);
        let asked: Vec<_> = RIGHTS.into_iter().filter(|r| r.is_asked_for()).collect();
        assert_eq!(sum(&asked), ACCESS_RIGHTS);
        assert!(
            asked
                .iter()
                .all(|right| right.allows.starts_with("see") || right.allows.starts_with("read"))
        );
    }

    #[test]
    fn the_outline_is_that_of_the_profile() {
        let outline_of = |profile: &str| outline(profile.as_bytes());
        let template = std::str::from_utf8(SCEP_TEMPLATE).expect("text");
        let shipped = outline_of(template).expect("complete");
        let kinds: Vec<_> = shipped.payloads.iter().map(|p| p.kind.as_str()).collect();
        assert_eq!(kinds, ["com.apple.security.scep", "com.apple.mdm"]);
        assert!(shipped.removable, "owners can always leave");

        let kept = template.replace(
            "<key>PayloadScope</key>",
            "<key>PayloadRemovalDisallowed</key><true/><key>PayloadScope</key>",
        );
        assert!(!outline_of(&kept).expect("complete").removable);
        let nameless = template.replace("PayloadDisplayName", "PayloadOther");
        assert_eq!(
            outline_of(&nameless),
            Err(Unusable::Missing("PayloadDisplayName"))
        );
    }
}
