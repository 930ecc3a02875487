//! What a Mac can do, as far as it is said before it enrols, and which identity its profile asks for.
//!
//! A Secure Enclave key that Apple attests needs Apple silicon and macOS 14 (Apple
//! `com.apple.security.acme.yaml`: HardwareBound, Attest); a profile that asks another Mac for one
//! cannot be installed there.

use serde::{Deserialize, Serialize};

/// How a Mac gets the identity it speaks with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = IdentityProtocol)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// ACME with device-attest-01: a hardware-bound key that Apple vouches for.
    Acme,
    /// SCEP: a key in software, for Macs that can do no better.
    #[default]
    Scep,
}

/// What a Mac is made of, in the words of whoever asks for its profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MacKind {
    AppleSilicon,
    Intel,
    VirtualMachine,
}

/// What is said of the Mac a profile is for. Nobody has proved any of it: it chooses the profile
/// that has a chance to be installed, and nothing else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Platform {
    /// The identity that is asked for by name; decides alone.
    pub wanted: Option<Protocol>,
    pub hardware: Option<MacKind>,
    /// The first number of the macOS version.
    pub macos: Option<u32>,
}

/// The first macOS that attests keys for ACME.
const ATTESTING: u32 = 14;

impl Protocol {
    /// The stored and published word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Acme => "acme",
            Self::Scep => "scep",
        }
    }

    /// The protocol with this word.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Acme, Self::Scep]
            .into_iter()
            .find(|protocol| protocol.as_str() == word)
    }
}

impl Platform {
    /// The identity for this Mac's profile; `otherwise` where nothing speaks for one.
    pub fn protocol(&self, otherwise: Protocol) -> Protocol {
        let cannot_attest = self
            .hardware
            .is_some_and(|hardware| hardware != MacKind::AppleSilicon)
            || self.macos.is_some_and(|macos| macos < ATTESTING);
        match self.wanted {
            Some(wanted) => wanted,
            None if cannot_attest => Protocol::Scep,
            None => otherwise,
        }
    }
}

/// The first number of a version such as `26.6.2`.
pub fn major(version: &str) -> Option<u32> {
    let number = version.split('.').next()?;
    // `parse` takes a sign.
    number
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| number.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_that_cannot_attest_gets_a_profile_it_can_install() {
        use MacKind::{AppleSilicon, Intel, VirtualMachine};
        let of = |wanted, hardware, macos, otherwise| {
            let platform = Platform {
                wanted,
                hardware,
                macos,
            };
            platform.protocol(otherwise)
        };
        let (acme, scep) = (Protocol::Acme, Protocol::Scep);
        for (wanted, hardware, macos, otherwise, chosen) in [
            (None, None, None, acme, acme),
            (None, None, None, scep, scep),
            (None, Some(AppleSilicon), Some(14), acme, acme),
            (None, Some(AppleSilicon), Some(26), scep, scep),
            (None, Some(AppleSilicon), Some(13), acme, scep),
            (None, None, Some(13), acme, scep),
            (None, Some(Intel), Some(15), acme, scep),
            (None, Some(VirtualMachine), None, acme, scep),
            (Some(acme), Some(Intel), None, scep, acme),
            (Some(scep), Some(AppleSilicon), Some(26), acme, scep),
        ] {
            assert_eq!(
                of(wanted, hardware, macos, otherwise),
                chosen,
                "{wanted:?} {hardware:?} {macos:?} {otherwise:?}"
            );
        }
    }

    #[test]
    fn words_and_versions_are_read() {
        for protocol in [Protocol::Acme, Protocol::Scep] {
            assert_eq!(Protocol::from_word(protocol.as_str()), Some(protocol));
        }
        assert_eq!(Protocol::from_word("ACME"), None);
        for (text, number) in [
            ("26.6.2", Some(26)),
            ("13", Some(13)),
            ("", None),
            ("+14.1", None),
            ("x", None),
            ("99999999999", None),
        ] {
            assert_eq!(major(text), number, "{text}");
        }
    }
}
