//! The enrollment profile: a template with empty slots, filled by key path.
//!
//! Nothing is ever replaced in text: a value cannot become markup. Payload identifiers and UUIDs are
//! distinct within the profile and constant per server, because macOS takes a changed UUID for
//! another payload and would remove the former enrollment (Apple `TopLevel.yaml`).

use std::borrow::Cow;

use crate::ids::{Topic, sha256};
use crate::mdm::plist::{Dictionary, Malformed, Value, read_dictionary, to_xml};
use crate::secret::Secret;

/// The shipped template: SCEP identity, MDM payload.
pub const SCEP_TEMPLATE: &[u8] = include_bytes!("../../profiles/enroll_scep.mobileconfig");

/// The rights the profile asks for: inspect profiles (1), device information (16), security queries
/// (1024). Rights can never be added later, and these are a promise to owners.
pub const ACCESS_RIGHTS: i128 = 1041;

/// What is the same in every profile of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Constants {
    /// The profile's identifier, and the prefix of the payloads' where they have none of their own.
    pub identifier: String,
    pub payloads: PayloadIdentifiers,
    pub organization: String,
    pub uuids: Uuids,
    /// Canonical URLs, from configuration only; immutable for an enrolled Mac.
    pub server_url: String,
    pub check_in_url: String,
    pub scep_url: String,
    /// A private TLS root to install before the MDM payload, DER.
    pub tls_root: Option<Vec<u8>>,
}

/// Payload identifiers that differ from the usual: of a fleet whose profiles another server made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PayloadIdentifiers {
    pub identity: Option<String>,
    pub mdm: Option<String>,
}

/// The PayloadUUIDs of a server's profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uuids {
    pub profile: String,
    pub identity: String,
    pub mdm: String,
    pub tls_root: String,
}

/// What differs from profile to profile.
#[derive(Debug, Clone)]
pub struct Slots<'a> {
    pub topic: &'a Topic,
    /// The ticket's secret.
    pub challenge: &'a Secret<String>,
}

/// The template lacks something the server must fill in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    #[error("the template is not a well-formed property list: {0}")]
    Malformed(#[from] Malformed),
    #[error("the template has no {0}")]
    Missing(&'static str),
    #[error("the template asks for other rights than {ACCESS_RIGHTS}")]
    Rights,
}

impl Constants {
    fn identity_identifier(&self) -> String {
        let own = self.payloads.identity.clone();
        own.unwrap_or_else(|| format!("{}.identity", self.identifier))
    }

    fn mdm_identifier(&self) -> String {
        let own = self.payloads.mdm.clone();
        own.unwrap_or_else(|| format!("{}.mdm", self.identifier))
    }
}

impl Uuids {
    /// UUIDs derived from the server's name, so that they stay the same for ever.
    pub fn of(server_id: &str) -> Self {
        let uuid = |payload: &str| {
            let digest = sha256(format!("attestd-payload-uuid\0{server_id}\0{payload}").as_bytes());
            let mut bytes = [0; 16];
            bytes.copy_from_slice(&digest[..16]);
            // RFC 9562 section 5.8: version 8, vendor-specific.
            let uuid = uuid::Builder::from_custom_bytes(bytes).into_uuid();
            uuid.hyphenated().to_string().to_ascii_uppercase()
        };
        Self {
            profile: uuid("profile"),
            identity: uuid("identity"),
            mdm: uuid("mdm"),
            tls_root: uuid("tls-root"),
        }
    }
}

/// Fills a template. The result is the unsigned profile, XML.
pub fn fill(
    template: &[u8],
    constants: &Constants,
    slots: &Slots<'_>,
) -> Result<Vec<u8>, Unusable> {
    let mut top = read_dictionary(template)?;
    set(&mut top, "PayloadIdentifier", &constants.identifier)?;
    set(&mut top, "PayloadOrganization", &constants.organization)?;
    set(&mut top, "PayloadUUID", &constants.uuids.profile)?;

    let identity_identifier = constants.identity_identifier();
    let identity = payload(&mut top, "com.apple.security.scep")?;
    set(identity, "PayloadIdentifier", &identity_identifier)?;
    set(identity, "PayloadOrganization", &constants.organization)?;
    set(identity, "PayloadUUID", &constants.uuids.identity)?;
    let Some(Value::Dictionary(scep)) = identity.value_mut("PayloadContent") else {
        return Err(Unusable::Missing(
            "PayloadContent of com.apple.security.scep",
        ));
    };
    set(scep, "URL", &constants.scep_url)?;
    set(scep, "Challenge", slots.challenge.expose())?;

    let mdm_identifier = constants.mdm_identifier();
    let mdm = payload(&mut top, "com.apple.mdm")?;
    if mdm.value("AccessRights") != Some(&Value::Integer(ACCESS_RIGHTS)) {
        return Err(Unusable::Rights);
    }
    set(mdm, "PayloadIdentifier", &mdm_identifier)?;
    set(mdm, "PayloadOrganization", &constants.organization)?;
    set(mdm, "PayloadUUID", &constants.uuids.mdm)?;
    set(mdm, "IdentityCertificateUUID", &constants.uuids.identity)?;
    set(mdm, "ServerURL", &constants.server_url)?;
    set(mdm, "CheckInURL", &constants.check_in_url)?;
    set(mdm, "Topic", slots.topic.as_str())?;

    if let Some(root) = &constants.tls_root {
        let root = tls_root(root, constants);
        match top.value_mut("PayloadContent") {
            Some(Value::Array(payloads)) => payloads.insert(0, Value::Dictionary(root)),
            _ => return Err(Unusable::Missing("PayloadContent")),
        }
    }
    Ok(to_xml(&top))
}

/// The name under which browsers save the profile (the historic contract).
pub fn file_name(serial: Option<&crate::ids::SerialNumber>) -> String {
    match serial {
        Some(serial) => format!("Enroll-{serial}.mobileconfig"),
        None => "Enroll.mobileconfig".to_owned(),
    }
}

fn payload<'d, 'a>(
    top: &'d mut Dictionary<'a>,
    kind: &'static str,
) -> Result<&'d mut Dictionary<'a>, Unusable> {
    let Some(Value::Array(payloads)) = top.value_mut("PayloadContent") else {
        return Err(Unusable::Missing("PayloadContent"));
    };
    payloads
        .iter_mut()
        .find_map(|payload| match payload {
            Value::Dictionary(inner) if inner.string("PayloadType") == Ok(Some(kind)) => {
                Some(inner)
            }
            _ => None,
        })
        .ok_or(Unusable::Missing(kind))
}

/// Fills a slot, which must be there and be text.
fn set<'a>(dictionary: &mut Dictionary<'a>, key: &'static str, text: &str) -> Result<(), Unusable> {
    match dictionary.value_mut(key) {
        Some(Value::String(slot)) => {
            *slot = Cow::Owned(text.to_owned());
            Ok(())
        }
        _ => Err(Unusable::Missing(key)),
    }
}

fn tls_root<'a>(der: &[u8], constants: &Constants) -> Dictionary<'a> {
    let text = |value: &str| Value::String(Cow::Owned(value.to_owned()));
    let mut root = Dictionary::default();
    root.set("PayloadContent", Value::Data(der.to_vec()));
    root.set(
        "PayloadDescription",
        text("The authority of this server's TLS certificate."),
    );
    root.set("PayloadDisplayName", text("Server certificate authority"));
    root.set(
        "PayloadIdentifier",
        text(&format!("{}.tls-root", constants.identifier)),
    );
    root.set("PayloadOrganization", text(&constants.organization));
    root.set("PayloadType", text("com.apple.security.root"));
    root.set("PayloadUUID", text(&constants.uuids.tls_root));
    root.set("PayloadVersion", Value::Integer(1));
    root
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn constants() -> Constants {
        Constants {
            identifier: "org.example.mdm".into(),
            payloads: PayloadIdentifiers::default(),
            organization: "Example & <Sons>".into(),
            uuids: Uuids::of("https://mdm.example.org"),
            server_url: "https://mdm.example.org/mdm/connect".into(),
            check_in_url: "https://mdm.example.org/mdm/checkin".into(),
            scep_url: "https://mdm.example.org/scep".into(),
            tls_root: Some(vec![0x30, 0]),
        }
    }

    fn filled() -> Vec<u8> {
        let topic = Topic::parse("com.apple.mgmt.External.0f0e").expect("valid");
        let challenge = Secret::new("one-time".to_owned());
        let slots = Slots {
            topic: &topic,
            challenge: &challenge,
        };
        fill(SCEP_TEMPLATE, &constants(), &slots).expect("filled")
    }

    fn payloads<'d>(top: &'d Dictionary<'d>) -> Vec<&'d Dictionary<'d>> {
        let inner = top
            .array("PayloadContent")
            .expect("typed")
            .expect("present");
        inner
            .iter()
            .map(|payload| match payload {
                Value::Dictionary(inner) => inner,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn the_identity_is_the_one_the_mdm_payload_names() {
        let bytes = filled();
        let top = read_dictionary(&bytes).expect("well formed");
        let payloads = payloads(&top);
        let of = |kind: &str| {
            *payloads
                .iter()
                .find(|p| p.string("PayloadType") == Ok(Some(kind)))
                .expect("present")
        };
        let (scep, mdm) = (of("com.apple.security.scep"), of("com.apple.mdm"));
        assert_eq!(
            mdm.string("IdentityCertificateUUID"),
            scep.string("PayloadUUID")
        );
        assert_eq!(mdm.boolean("SignMessage"), Ok(Some(true)));
        let settings = scep
            .dictionary("PayloadContent")
            .expect("typed")
            .expect("present");
        assert_eq!(settings.string("Challenge"), Ok(Some("one-time")));
        assert_eq!(
            mdm.string("PayloadOrganization"),
            Ok(Some("Example & <Sons>"))
        );
        assert_eq!(
            of("com.apple.security.root").data("PayloadContent"),
            Ok(Some(&[0x30, 0][..]))
        );
    }

    #[test]
    fn identifiers_and_uuids_are_distinct_and_constant() {
        let (first, second) = (filled(), filled());
        assert_eq!(first, second);
        let top = read_dictionary(&first).expect("well formed");
        let mut all = vec![&top];
        all.extend(payloads(&top));
        for key in ["PayloadIdentifier", "PayloadUUID"] {
            let names: HashSet<_> = all.iter().map(|p| p.string(key).expect("typed")).collect();
            assert_eq!(names.len(), all.len(), "{key}");
        }
        assert_ne!(Uuids::of("https://other.example.org"), constants().uuids);
    }

    #[test]
    fn an_adopted_fleet_keeps_the_names_of_its_payloads() {
        let mut theirs = constants();
        theirs.payloads.identity = Some("com.example.scep".into());
        theirs.payloads.mdm = Some("com.example.enroll".into());
        theirs.uuids.mdm = "A-UUID".into();
        let topic = Topic::parse("com.apple.mgmt.External.0f0e").expect("valid");
        let challenge = Secret::new("one-time".to_owned());
        let slots = Slots {
            topic: &topic,
            challenge: &challenge,
        };
        let bytes = fill(SCEP_TEMPLATE, &theirs, &slots).expect("filled");
        let top = read_dictionary(&bytes).expect("well formed");
        let names: Vec<_> = payloads(&top)
            .iter()
            .map(|payload| payload.string("PayloadIdentifier").expect("typed"))
            .collect();
        assert!(names.contains(&Some("com.example.scep")));
        assert!(names.contains(&Some("com.example.enroll")));
    }

    #[test]
    fn a_template_that_asks_for_more_is_refused() {
        let template = String::from_utf8(SCEP_TEMPLATE.to_vec()).expect("text");
        let topic = Topic::parse("com.apple.mgmt.External.0f0e").expect("valid");
        let challenge = Secret::new("one-time".to_owned());
        let slots = Slots {
            topic: &topic,
            challenge: &challenge,
        };
        let greedy = template.replace("<integer>1041</integer>", "<integer>8191</integer>");
        assert_eq!(
            fill(greedy.as_bytes(), &constants(), &slots),
            Err(Unusable::Rights)
        );
        let renamed = template.replace("com.apple.security.scep", "com.apple.other");
        let missing = Err(Unusable::Missing("com.apple.security.scep"));
        assert_eq!(fill(renamed.as_bytes(), &constants(), &slots), missing);
    }
}
