//! Reading an enrollment profile as macOS would (apple-protocol 1).

use openssl::pkcs7::{Pkcs7, Pkcs7Flags};
use openssl::stack::Stack;
use openssl::x509::store::X509StoreBuilder;
use plist::{Dictionary, Value};

use super::identity_payload::IdentityPayload;
use crate::ats;

/// Profiles are a few kilobytes; more than this is none.
const MAX_PROFILE: usize = 1 << 20;

/// The parts of a profile that enroll a Mac.
#[derive(Debug, Clone)]
pub struct EnrollmentProfile {
    pub identifier: String,
    pub uuid: String,
    pub mdm: MdmPayload,
    /// The payload IdentityCertificateUUID names.
    pub identity: IdentityPayload,
    /// Roots that travel in the profile, DER; installed before everything else.
    pub roots: Vec<Vec<u8>>,
    /// Whether it came as CMS.
    pub signed: bool,
}

/// The com.apple.mdm payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MdmPayload {
    pub identifier: String,
    pub uuid: String,
    pub topic: String,
    pub server_url: String,
    pub check_in_url: String,
    pub access_rights: i64,
    pub sign_message: bool,
    pub check_out_when_removed: bool,
    pub capabilities: Vec<String>,
}

impl MdmPayload {
    /// Whether ServerCapabilities names this capability.
    pub fn declares(&self, capability: &str) -> bool {
        self.capabilities
            .iter()
            .any(|declared| declared == capability)
    }
}

/// Why macOS would not install it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    #[error("not a property list and not a signed one")]
    Unreadable,
    #[error("the signature on the profile is wrong")]
    SignatureWrong,
    #[error("{0} is missing or of another type")]
    Missing(&'static str),
    #[error("{key} cannot be {value:?}")]
    Wrong { key: &'static str, value: String },
    #[error("a profile has exactly one com.apple.mdm payload, not {0}")]
    MdmPayloads(usize),
    #[error("IdentityCertificateUUID names no identity payload")]
    NoIdentity,
    #[error("an identity of type {0} is not something this simulator can get")]
    IdentityKind(String),
    /// Allowed by the payload's rules, but not on this Mac.
    #[error("{key} cannot be had here: {why}")]
    NotOnThisMac {
        key: &'static str,
        why: &'static str,
    },
    /// A device has one com.apple.mdm payload (apple-protocol 1.2).
    #[error("this Mac is managed by another profile, {0}")]
    ManagedAlready(String),
    #[error("{0} of an installed enrollment cannot be changed")]
    Immutable(&'static str),
    #[error("{0} is not an https URL")]
    NotHttps(String),
}

impl EnrollmentProfile {
    /// Reads a plain or CMS-signed profile.
    pub fn read(bytes: &[u8], allow_http_loopback: bool) -> Result<Self, ProfileError> {
        if bytes.len() > MAX_PROFILE {
            return Err(ProfileError::Unreadable);
        }
        let signed = !bytes.starts_with(b"<") && !bytes.starts_with(b"bplist");
        let content = if signed {
            content_of_signed(bytes)?
        } else {
            bytes.to_vec()
        };
        let value: Value = plist::from_bytes(&content).map_err(|_| ProfileError::Unreadable)?;
        let top = value.as_dictionary().ok_or(ProfileError::Unreadable)?;
        must_be(top, "PayloadType", "Configuration")?;
        check_payload(top)?;
        if let Some(scope) = top.get("PayloadScope").and_then(Value::as_string)
            && scope != "System"
        {
            return Err(ProfileError::Wrong {
                key: "PayloadScope",
                value: scope.to_owned(),
            });
        }
        if let Some(target) = top
            .get("TargetDeviceType")
            .and_then(Value::as_signed_integer)
            && target != 5
        {
            return Err(ProfileError::Wrong {
                key: "TargetDeviceType",
                value: target.to_string(),
            });
        }
        let payloads = top.get("PayloadContent").and_then(Value::as_array);
        let payloads = payloads.ok_or(ProfileError::Missing("PayloadContent"))?;
        let payloads: Option<Vec<&Dictionary>> =
            payloads.iter().map(Value::as_dictionary).collect();
        let payloads = payloads.ok_or(ProfileError::Missing("PayloadContent"))?;
        for payload in &payloads {
            check_payload(payload)?;
        }
        let kind = |payload: &Dictionary| string(payload, "PayloadType").map(str::to_owned);
        let of_kind = |wanted: &'static str| {
            payloads
                .iter()
                .filter(move |payload| kind(payload).is_ok_and(|kind| kind == wanted))
        };
        let all_mdm: Vec<_> = of_kind("com.apple.mdm").collect();
        let [mdm] = all_mdm[..] else {
            return Err(ProfileError::MdmPayloads(all_mdm.len()));
        };
        let identity_uuid = string(mdm, "IdentityCertificateUUID")?;
        let identity = payloads
            .iter()
            .find(|payload| string(payload, "PayloadUUID").is_ok_and(|uuid| uuid == identity_uuid))
            .ok_or(ProfileError::NoIdentity)?;
        let roots = of_kind("com.apple.security.root").map(|payload| {
            let data = payload.get("PayloadContent").and_then(Value::as_data);
            data.map(<[u8]>::to_vec)
                .ok_or(ProfileError::Missing("PayloadContent"))
        });
        Ok(Self {
            identifier: string(top, "PayloadIdentifier")?.to_owned(),
            uuid: string(top, "PayloadUUID")?.to_owned(),
            mdm: mdm_payload(mdm, allow_http_loopback)?,
            identity: IdentityPayload::read(identity, allow_http_loopback)?,
            roots: roots.collect::<Result<_, _>>()?,
            signed,
        })
    }
}

/// The content of an attached CMS signature whose signature is right; who signed does not matter
/// for installation (apple-protocol 1.5).
fn content_of_signed(bytes: &[u8]) -> Result<Vec<u8>, ProfileError> {
    let message = Pkcs7::from_der(bytes).map_err(|_| ProfileError::Unreadable)?;
    let none = Stack::new().map_err(|_| ProfileError::SignatureWrong)?;
    let store = X509StoreBuilder::new()
        .map_err(|_| ProfileError::SignatureWrong)?
        .build();
    let mut content = Vec::new();
    message
        .verify(
            &none,
            &store,
            None,
            Some(&mut content),
            Pkcs7Flags::NOVERIFY | Pkcs7Flags::BINARY,
        )
        .map_err(|_| ProfileError::SignatureWrong)?;
    Ok(content)
}

pub(super) fn string<'a>(
    payload: &'a Dictionary,
    key: &'static str,
) -> Result<&'a str, ProfileError> {
    payload
        .get(key)
        .and_then(Value::as_string)
        .ok_or(ProfileError::Missing(key))
}

fn must_be(payload: &Dictionary, key: &'static str, expected: &str) -> Result<(), ProfileError> {
    let found = string(payload, key)?;
    if found == expected {
        Ok(())
    } else {
        Err(ProfileError::Wrong {
            key,
            value: found.to_owned(),
        })
    }
}

/// What every payload must have (apple-protocol 1.1).
fn check_payload(payload: &Dictionary) -> Result<(), ProfileError> {
    string(payload, "PayloadType")?;
    string(payload, "PayloadIdentifier")?;
    let uuid = string(payload, "PayloadUUID")?;
    if uuid.len() != 36 || uuid::Uuid::try_parse(uuid).is_err() {
        return Err(ProfileError::Wrong {
            key: "PayloadUUID",
            value: uuid.to_owned(),
        });
    }
    match payload
        .get("PayloadVersion")
        .and_then(Value::as_signed_integer)
    {
        Some(1) => Ok(()),
        Some(other) => Err(ProfileError::Wrong {
            key: "PayloadVersion",
            value: other.to_string(),
        }),
        None => Err(ProfileError::Missing("PayloadVersion")),
    }
}

fn mdm_payload(
    payload: &Dictionary,
    allow_http_loopback: bool,
) -> Result<MdmPayload, ProfileError> {
    let wrong = |key, value: &str| {
        Err(ProfileError::Wrong {
            key,
            value: value.to_owned(),
        })
    };
    let flag = |key: &'static str| {
        payload
            .get(key)
            .and_then(Value::as_boolean)
            .unwrap_or(false)
    };
    let topic = string(payload, "Topic")?;
    if !topic.starts_with("com.apple.mgmt.") {
        return wrong("Topic", topic);
    }
    let server_url = string(payload, "ServerURL")?;
    let check_in_url = payload
        .get("CheckInURL")
        .and_then(Value::as_string)
        .unwrap_or(server_url);
    for url in [server_url, check_in_url] {
        check_url(url, allow_http_loopback)?;
    }
    let rights = payload
        .get("AccessRights")
        .and_then(Value::as_signed_integer);
    let rights = rights.ok_or(ProfileError::Missing("AccessRights"))?;
    // 2 needs 1, and 128 needs 64 (apple-protocol 1.2).
    let incomplete =
        (rights & 2 != 0 && rights & 1 == 0) || (rights & 128 != 0 && rights & 64 == 0);
    if !(1..=8191).contains(&rights) || incomplete {
        return wrong("AccessRights", &rights.to_string());
    }
    // Push certificates of the portal are production ones.
    if flag("UseDevelopmentAPNS") {
        return wrong("UseDevelopmentAPNS", "true");
    }
    let capabilities = payload.get("ServerCapabilities").and_then(Value::as_array);
    let capabilities = capabilities.map(|all| {
        all.iter()
            .filter_map(Value::as_string)
            .map(str::to_owned)
            .collect()
    });
    Ok(MdmPayload {
        identifier: string(payload, "PayloadIdentifier")?.to_owned(),
        uuid: string(payload, "PayloadUUID")?.to_owned(),
        topic: topic.to_owned(),
        server_url: server_url.to_owned(),
        check_in_url: check_in_url.to_owned(),
        access_rights: rights,
        sign_message: flag("SignMessage"),
        check_out_when_removed: flag("CheckOutWhenRemoved"),
        capabilities: capabilities.unwrap_or_default(),
    })
}

/// `https`, or, where allowed, `http` to this machine.
pub(super) fn check_url(text: &str, allow_http_loopback: bool) -> Result<(), ProfileError> {
    if ats::permits(text, allow_http_loopback) {
        Ok(())
    } else {
        Err(ProfileError::NotHttps(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &[u8] = include_bytes!("../../fixtures/profile-enroll-scep.mobileconfig");

    fn changed(from: &str, to: &str) -> Result<EnrollmentProfile, ProfileError> {
        let text = String::from_utf8(PLAIN.to_vec()).unwrap();
        assert!(text.contains(from), "{from}");
        EnrollmentProfile::read(text.replace(from, to).as_bytes(), false)
    }

    #[test]
    fn plain_signed_and_rooted_profiles_are_read() {
        let plain = EnrollmentProfile::read(PLAIN, false).unwrap();
        let signed = include_bytes!("../../fixtures/profile-enroll-scep-SIGNED.mobileconfig");
        let signed = EnrollmentProfile::read(signed, false).unwrap();
        assert_eq!((plain.signed, signed.signed), (false, true));
        assert_eq!(plain.mdm, signed.mdm);
        assert_eq!(
            (plain.mdm.access_rights, plain.mdm.sign_message),
            (1041, true)
        );
        let scep = plain.identity.scep().unwrap();
        assert_eq!(scep.challenge.as_deref(), Some("one-time-7f1c0d"));
        assert_eq!(scep.subject.len(), 2);
        let rooted = include_bytes!("../../fixtures/profile-enroll-private-tls-root.mobileconfig");
        assert_eq!(
            EnrollmentProfile::read(rooted, false).unwrap().roots.len(),
            1
        );
    }

    #[test]
    fn what_macos_refuses_is_refused() {
        assert!(matches!(
            changed("com.apple.security.scep", "com.apple.security.pkcs12"),
            Err(ProfileError::IdentityKind(_))
        ));
        for (from, to) in [
            ("<integer>1041</integer>", "<integer>0</integer>"),
            ("<integer>1041</integer>", "<integer>2</integer>"),
            ("<string>com.apple.mgmt.", "<string>com.example."),
            ("<string>System</string>", "<string>User</string>"),
            (
                "https://mdm.example.test/mdm/connect",
                "http://mdm.example.test/mdm/connect",
            ),
            (
                "https://mdm.example.test/mdm/checkin",
                "http://localhost/mdm/checkin",
            ),
            (
                "<string>com.apple.mdm</string>",
                "<string>com.apple.other</string>",
            ),
            ("0A1B2C3D-0005-4000-8000-000000000005", "not a uuid"),
        ] {
            assert!(changed(from, to).is_err(), "{from} -> {to}");
        }
        assert_eq!(
            EnrollmentProfile::read(b"-----BEGIN", false).err(),
            Some(ProfileError::Unreadable)
        );
    }

    #[test]
    fn http_to_this_machine_is_taken_when_allowed() {
        let text = String::from_utf8(PLAIN.to_vec())
            .unwrap()
            .replace("https://mdm.example.test", "http://127.0.0.1:1");
        assert!(EnrollmentProfile::read(text.as_bytes(), true).is_ok());
        assert!(EnrollmentProfile::read(text.as_bytes(), false).is_err());
    }
}
