//! The enrollment profile: a template with empty slots, filled by key path.
//!
//! Nothing is ever replaced in text: a value cannot become markup. Payload identifiers and UUIDs are
//! distinct within the profile and constant per server, because macOS takes a changed UUID for
//! another payload and would remove the former enrollment (Apple `TopLevel.yaml`).

use std::borrow::Cow;

use crate::ids::{Topic, sha256};
use crate::mdm::plist::{Dictionary, Malformed, Value, read_dictionary, to_xml};
use crate::secret::Secret;

/// The shipped template with an identity by SCEP.
pub const SCEP_TEMPLATE: &[u8] = include_bytes!("../../profiles/enroll_scep.mobileconfig");

/// The shipped template with an attested identity by ACME.
pub const ACME_TEMPLATE: &[u8] = include_bytes!("../../profiles/enroll_acme.mobileconfig");

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
    /// Of the SCEP payload.
    pub identity: String,
    /// Of the ACME payload: another kind of payload is another payload.
    pub attested_identity: String,
    pub mdm: String,
    pub tls_root: String,
}

/// What differs from profile to profile.
#[derive(Debug, Clone)]
pub struct Slots<'a> {
    pub topic: &'a Topic,
    pub identity: IdentitySlots<'a>,
}

/// By which secret the Mac gets its identity.
#[derive(Debug, Clone)]
pub enum IdentitySlots<'a> {
    /// The ticket's secret is the SCEP challenge.
    Scep { challenge: &'a Secret<String> },
    /// The ticket's secret is in the path of the directory.
    Acme {
        directory_url: &'a Secret<String>,
        /// The serial number of the one Mac the ticket is for, or a code that is good once.
        client_identifier: &'a Secret<String>,
    },
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
            attested_identity: uuid("attested-identity"),
            mdm: uuid("mdm"),
            tls_root: uuid("tls-root"),
        }
    }
}

/// Fills the template for this kind of identity. The result is the unsigned profile, XML.
///
/// # Errors
/// What is missing in a template that ships with the server.
pub fn fill(constants: &Constants, slots: &Slots<'_>) -> Result<Vec<u8>, Unusable> {
    let template = match slots.identity {
        IdentitySlots::Scep { .. } => SCEP_TEMPLATE,
        IdentitySlots::Acme { .. } => ACME_TEMPLATE,
    };
    fill_template(template, constants, slots)
}

fn fill_template(
    template: &[u8],
    constants: &Constants,
    slots: &Slots<'_>,
) -> Result<Vec<u8>, Unusable> {
    let mut top = read_dictionary(template)?;
    set(&mut top, "PayloadIdentifier", &constants.identifier)?;
    set(&mut top, "PayloadOrganization", &constants.organization)?;
    set(&mut top, "PayloadUUID", &constants.uuids.profile)?;

    let (kind, identity_identifier, identity_uuid) = match slots.identity {
        IdentitySlots::Scep { .. } => (
            "com.apple.security.scep",
            constants.identity_identifier(),
            &constants.uuids.identity,
        ),
        IdentitySlots::Acme { .. } => (
            "com.apple.security.acme",
            format!("{}.attested-identity", constants.identifier),
            &constants.uuids.attested_identity,
        ),
    };
    let identity = payload(&mut top, kind)?;
    set(identity, "PayloadIdentifier", &identity_identifier)?;
    set(identity, "PayloadOrganization", &constants.organization)?;
    set(identity, "PayloadUUID", identity_uuid)?;
    match slots.identity {
        IdentitySlots::Scep { challenge } => {
            let Some(Value::Dictionary(scep)) = identity.value_mut("PayloadContent") else {
                return Err(Unusable::Missing(
                    "PayloadContent of com.apple.security.scep",
                ));
            };
            set(scep, "URL", &constants.scep_url)?;
            set(scep, "Challenge", challenge.expose())?;
        }
        IdentitySlots::Acme {
            directory_url,
            client_identifier,
        } => {
            set(identity, "DirectoryURL", directory_url.expose())?;
            set(identity, "ClientIdentifier", client_identifier.expose())?;
        }
    }

    let mdm_identifier = constants.mdm_identifier();
    let mdm = payload(&mut top, "com.apple.mdm")?;
    if mdm.value("AccessRights") != Some(&Value::Integer(ACCESS_RIGHTS)) {
        return Err(Unusable::Rights);
    }
    set(mdm, "PayloadIdentifier", &mdm_identifier)?;
    set(mdm, "PayloadOrganization", &constants.organization)?;
    set(mdm, "PayloadUUID", &constants.uuids.mdm)?;
    set(mdm, "IdentityCertificateUUID", identity_uuid)?;
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
    use crate::enrollment::Protocol;

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

    /// A filled profile for either kind of identity.
    fn filled_for(protocol: Protocol) -> Vec<u8> {
        let topic = Topic::parse("com.apple.mgmt.External.0f0e").expect("valid");
        let one_time = Secret::new("one-time".to_owned());
        let directory = Secret::new("https://mdm.example.org/acme/one-time/directory".to_owned());
        let identity = match protocol {
            Protocol::Scep => IdentitySlots::Scep {
                challenge: &one_time,
            },
            Protocol::Acme => IdentitySlots::Acme {
                directory_url: &directory,
                client_identifier: &one_time,
            },
        };
        let slots = Slots {
            topic: &topic,
            identity,
        };
        fill(&constants(), &slots).expect("filled")
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

    fn of<'d>(payloads: &[&'d Dictionary<'d>], kind: &str) -> &'d Dictionary<'d> {
        payloads
            .iter()
            .find(|payload| payload.string("PayloadType") == Ok(Some(kind)))
            .expect("present")
    }

    #[test]
    fn the_identity_is_the_one_the_mdm_payload_names() {
        let bytes = filled_for(Protocol::Scep);
        let top = read_dictionary(&bytes).expect("well formed");
        let payloads = payloads(&top);
        let scep = of(&payloads, "com.apple.security.scep");
        let mdm = of(&payloads, "com.apple.mdm");
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
            of(&payloads, "com.apple.security.root").data("PayloadContent"),
            Ok(Some(&[0x30, 0][..]))
        );
    }

    #[test]
    fn an_attested_identity_is_hardware_bound_and_speaks_for_the_mac() {
        let bytes = filled_for(Protocol::Acme);
        let top = read_dictionary(&bytes).expect("well formed");
        let payloads = payloads(&top);
        let acme = of(&payloads, "com.apple.security.acme");
        assert_eq!(
            of(&payloads, "com.apple.mdm").string("IdentityCertificateUUID"),
            acme.string("PayloadUUID")
        );
        for flag in ["Attest", "HardwareBound"] {
            assert_eq!(acme.boolean(flag), Ok(Some(true)), "{flag}");
        }
        assert_eq!(acme.boolean("KeyIsExtractable"), Ok(Some(false)));
        assert_eq!(acme.string("ClientIdentifier"), Ok(Some("one-time")));
        assert_eq!(
            acme.string("DirectoryURL"),
            Ok(Some("https://mdm.example.org/acme/one-time/directory"))
        );
    }

    #[test]
    fn identifiers_and_uuids_are_distinct_and_constant() {
        let first = filled_for(Protocol::Scep);
        let attested = filled_for(Protocol::Acme);
        assert_eq!(first, filled_for(Protocol::Scep));
        let (scep, acme) = (
            read_dictionary(&first).expect("well formed"),
            read_dictionary(&attested).expect("well formed"),
        );
        for top in [&scep, &acme] {
            let mut all = vec![top];
            all.extend(payloads(top));
            for key in ["PayloadIdentifier", "PayloadUUID"] {
                let names: HashSet<_> = all.iter().map(|p| p.string(key).expect("typed")).collect();
                assert_eq!(names.len(), all.len(), "{key}");
            }
        }
        // The same enrollment, whichever identity it stands on: a Mac moves from one to the other.
        let mdm = |top| of(&payloads(top), "com.apple.mdm").string("PayloadUUID");
        assert_eq!(mdm(&scep), mdm(&acme));
        assert_eq!(scep.string("PayloadUUID"), acme.string("PayloadUUID"));
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
            identity: IdentitySlots::Scep {
                challenge: &challenge,
            },
        };
        let bytes = fill(&theirs, &slots).expect("filled");
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
        let topic = Topic::parse("com.apple.mgmt.External.0f0e").expect("valid");
        let challenge = Secret::new("one-time".to_owned());
        let slots = Slots {
            topic: &topic,
            identity: IdentitySlots::Scep {
                challenge: &challenge,
            },
        };
        let template = String::from_utf8(SCEP_TEMPLATE.to_vec()).expect("text");
        let filled = |template: &str| fill_template(template.as_bytes(), &constants(), &slots);
        let greedy = template.replace("<integer>1041</integer>", "<integer>8191</integer>");
        assert_eq!(filled(&greedy), Err(Unusable::Rights));
        let renamed = template.replace("com.apple.security.scep", "com.apple.other");
        let missing = Err(Unusable::Missing("com.apple.security.scep"));
        assert_eq!(filled(&renamed), missing);
    }
}
