//! A second enrollment profile on an enrolled Mac (apple-protocol 1.1, 1.2, 1.7).

use super::profile::{EnrollmentProfile, ProfileError};

/// What a profile is to the one that is installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Replacement {
    /// The same enrollment with a new identity.
    Renews,
    /// The same profile with another MDM payload: the former enrollment is removed first.
    Removes,
}

/// Decides by the identifiers, as macOS does.
pub(super) fn replacement(
    installed: &EnrollmentProfile,
    new: &EnrollmentProfile,
) -> Result<Replacement, ProfileError> {
    if installed.identifier != new.identifier {
        return Err(ProfileError::ManagedAlready(installed.identifier.clone()));
    }
    let (old, new) = (&installed.mdm, &new.mdm);
    if (&old.identifier, &old.uuid) != (&new.identifier, &new.uuid) {
        return Ok(Replacement::Removes);
    }
    let per_user = "com.apple.mdm.per-user-connections";
    for (key, changed) in [
        ("ServerURL", old.server_url != new.server_url),
        ("CheckInURL", old.check_in_url != new.check_in_url),
        ("Topic", old.topic != new.topic),
        // Rights may be given up, never gained.
        ("AccessRights", new.access_rights & !old.access_rights != 0),
        (
            "ServerCapabilities",
            old.declares(per_user) != new.declares(per_user),
        ),
    ] {
        if changed {
            return Err(ProfileError::Immutable(key));
        }
    }
    Ok(Replacement::Renews)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(from: &str, to: &str) -> EnrollmentProfile {
        let text = include_str!("../../fixtures/profile-enroll-acme-identity.mobileconfig");
        assert!(text.contains(from), "{from}");
        EnrollmentProfile::read(text.replace(from, to).as_bytes(), false).unwrap()
    }

    fn installing(from: &str, to: &str) -> Result<Replacement, ProfileError> {
        replacement(&profile("", ""), &profile(from, to))
    }

    #[test]
    fn only_the_identity_may_change() {
        use Replacement::{Removes, Renews};
        assert_eq!(installing("1f6b2d", "another-ticket"), Ok(Renews));
        assert_eq!(installing("<integer>1041<", "<integer>1040<"), Ok(Renews));
        assert_eq!(
            installing("sim.enroll.mdm", "sim.enroll.other"),
            Ok(Removes)
        );
        for (from, to, key) in [
            ("/mdm/connect", "/mdm/connect?x=1", "ServerURL"),
            ("/mdm/checkin", "/mdm/other", "CheckInURL"),
            ("<integer>1041<", "<integer>1043<", "AccessRights"),
            ("External.0f0e", "External.1f0e", "Topic"),
            (
                "mdm.per-user-connections",
                "mdm.token",
                "ServerCapabilities",
            ),
        ] {
            assert_eq!(installing(from, to), Err(ProfileError::Immutable(key)));
        }
        let other = installing("<string>test.sim.enroll</string>", "<string>other</string>");
        assert!(matches!(other, Err(ProfileError::ManagedAlready(_))));
    }
}
