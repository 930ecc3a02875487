//! Macs of a server that this one replaces: one line of the file by which they are adopted.
//!
//! They will never say Authenticate again by themselves, so their identities are pinned from the
//! file as they would be at issuance. Everything in a line is the former server's word.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::profile::Constants;
use super::{Enrollment, Hardware, Identity, IdentityKind, PushAddress, State};
use crate::ids::{CertificateHash, DeviceId, SerialNumber, Topic, Udid};
use crate::pki::{OwnedCertificate, read_certificates};
use crate::secret::Secret;
use crate::time::Timestamp;

/// The longest line read: a certificate, and as much again.
pub const MAX_LINE: usize = 64 * 1024;

/// The end of an identity of which only the hash is known: no well-defined one (RFC 5280 section
/// 4.1.2.5). The certificate itself says it when it is first seen.
fn unknown_end() -> Timestamp {
    Timestamp::from_seconds(253_402_300_799)
}

/// One Mac as its former server knew it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adoptee {
    pub udid: Udid,
    pub serial: Option<SerialNumber>,
    pub identity: Pinned,
    pub topic: Topic,
    pub token: Secret<Vec<u8>>,
    pub magic: Secret<String>,
}

/// The certificate that speaks for a Mac.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pinned {
    Certificate(OwnedCertificate),
    /// The certificate comes with the first message that it signs.
    Hash(CertificateHash),
}

/// Why a line cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("it is longer than {MAX_LINE} bytes")]
    TooLong,
    #[error("it is no JSON object of the documented form: {0}")]
    Form(String),
    #[error("{0} is not well formed")]
    Malformed(&'static str),
    #[error("give certificate or certificate_sha256, and not both")]
    Identity,
    #[error(
        "the certificate has a key of a kind or size that is not accepted: the Mac must enrol anew"
    )]
    Key,
    #[error("the certificate is not valid now: the Mac must enrol anew")]
    Expired,
    #[error(
        "{what} is {theirs}, but this server's profiles say {ours}: a renewal would be another profile; set [enrollment.adopted]"
    )]
    Profile {
        what: &'static str,
        theirs: String,
        ours: String,
    },
    #[error("line {0} has the same {1}")]
    Twice(usize, &'static str),
    #[error("no push certificate for topic {0} is installed: nobody could wake the Mac")]
    Topic(Topic),
    #[error("the Mac is enrolled here as {0} with another identity")]
    Enrolled(DeviceId),
    #[error("the certificate speaks for another Mac here")]
    Taken,
    #[error("Apple proved the serial number for {0}")]
    Held(DeviceId),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    udid: String,
    serial_number: Option<String>,
    certificate: Option<String>,
    certificate_sha256: Option<String>,
    topic: String,
    push_token: String,
    push_magic: String,
    profile_identifier: Option<String>,
    profile_uuid: Option<String>,
}

impl Adoptee {
    /// Reads a line, by itself.
    ///
    /// # Errors
    /// The first [`Fault`] that is found.
    pub fn read(line: &str, profiles: &Constants, now: Timestamp) -> Result<Self, Fault> {
        if line.len() > MAX_LINE {
            return Err(Fault::TooLong);
        }
        // Derived readers take a JSON array for an object.
        if !line.trim_start().starts_with('{') {
            return Err(Fault::Form("not an object".to_owned()));
        }
        let line: Line =
            serde_json::from_str(line).map_err(|fault| Fault::Form(fault.to_string()))?;
        let same = |what, theirs: Option<String>, ours: &str| match theirs {
            Some(theirs) if !theirs.eq_ignore_ascii_case(ours) => Err(Fault::Profile {
                what,
                theirs,
                ours: ours.to_owned(),
            }),
            _ => Ok(()),
        };
        same(
            "profile_identifier",
            line.profile_identifier,
            &profiles.identifier,
        )?;
        same("profile_uuid", line.profile_uuid, &profiles.uuids.profile)?;
        let serial = line.serial_number.as_deref().map(SerialNumber::parse);
        let token = hex::decode(&line.push_token)
            .ok()
            .filter(|token| (1..=256).contains(&token.len()))
            .ok_or(Fault::Malformed("push_token"))?;
        if line.push_magic.is_empty() || line.push_magic.len() > 256 {
            return Err(Fault::Malformed("push_magic"));
        }
        Ok(Self {
            udid: Udid::parse(&line.udid).map_err(|_| Fault::Malformed("udid"))?,
            serial: serial
                .transpose()
                .map_err(|_| Fault::Malformed("serial_number"))?,
            identity: pinned(line.certificate, line.certificate_sha256, now)?,
            topic: Topic::parse(&line.topic).map_err(|_| Fault::Malformed("topic"))?,
            token: Secret::new(token),
            magic: Secret::new(line.push_magic),
        })
    }

    /// The hash of the certificate that speaks for it.
    pub fn certificate(&self) -> CertificateHash {
        match &self.identity {
            Pinned::Certificate(certificate) => certificate.hash(),
            Pinned::Hash(hash) => *hash,
        }
    }

    /// Its identity, bound as at issuance.
    pub fn identity(&self, device_id: &DeviceId, now: Timestamp) -> Identity {
        let (der, not_before, not_after) = match &self.identity {
            Pinned::Certificate(owned) => {
                let certificate = owned.certificate();
                let dates = (certificate.not_before(), certificate.not_after());
                (owned.as_der().to_vec(), dates.0, dates.1)
            }
            Pinned::Hash(_) => (Vec::new(), Timestamp::from_millis(0), unknown_end()),
        };
        Identity {
            device_id: Some(device_id.clone()),
            ..adopted(self.certificate(), der, (not_before, not_after), now)
        }
    }

    /// Its enrollment: enrolled, with nothing known of it.
    pub fn enrollment(self, device_id: DeviceId, now: Timestamp) -> Enrollment {
        Enrollment {
            device_id,
            identity: self.certificate(),
            udid: self.udid,
            serial: self.serial,
            state: State::Enrolled,
            ticket_id: None,
            topic: self.topic,
            push: Some(PushAddress {
                token: self.token,
                magic: self.magic,
                updated_at: now,
                dead_since: None,
            }),
            hardware: Hardware::default(),
            authenticated_at: now,
            enrolled_at: Some(now),
            checked_out_at: None,
            contends_with: None,
            held_since: None,
            proved_at: None,
        }
    }
}

/// An identity that another authority issued, not bound to a Mac.
pub fn adopted(
    certificate: CertificateHash,
    der: Vec<u8>,
    (not_before, not_after): (Timestamp, Timestamp),
    now: Timestamp,
) -> Identity {
    Identity {
        certificate,
        der,
        kind: IdentityKind::Adopted,
        ticket_id: None,
        serial: None,
        device_id: None,
        issued_at: now,
        not_before,
        not_after,
        revoked_at: None,
        transaction_id: None,
        renews: None,
    }
}

/// Whether only the hash of this identity is known yet.
pub fn awaits_certificate(kind: IdentityKind, not_after: Timestamp) -> bool {
    kind == IdentityKind::Adopted && not_after == unknown_end()
}

/// Which lines name somebody whom an earlier line names: by UDID, certificate, serial number or push
/// token, which no two Macs share. Lines count from 1.
pub fn named_twice(adoptees: &[(usize, Adoptee)]) -> Vec<(usize, Fault)> {
    let mut faults = Vec::new();
    let mut seen: HashMap<(&'static str, String), usize> = HashMap::new();
    for (line, adoptee) in adoptees {
        let names = [
            ("udid", Some(adoptee.udid.to_string())),
            ("certificate", Some(adoptee.certificate().to_string())),
            (
                "serial_number",
                adoptee.serial.as_ref().map(ToString::to_string),
            ),
            ("push_token", Some(hex::encode(adoptee.token.expose()))),
        ];
        for (what, name) in names {
            let Some(name) = name else { continue };
            match seen.entry((what, name)) {
                Entry::Vacant(entry) => {
                    entry.insert(*line);
                }
                Entry::Occupied(entry) => faults.push((*line, Fault::Twice(*entry.get(), what))),
            }
        }
    }
    faults
}

fn pinned(
    certificate: Option<String>,
    hash: Option<String>,
    now: Timestamp,
) -> Result<Pinned, Fault> {
    match (certificate, hash) {
        (Some(text), None) => {
            let malformed = || Fault::Malformed("certificate");
            let bytes = if text.trim_start().starts_with("-----BEGIN") {
                text.into_bytes()
            } else {
                let compact: String = text.split_ascii_whitespace().collect();
                STANDARD.decode(compact).map_err(|_| malformed())?
            };
            let mut found = read_certificates(&bytes).map_err(|_| malformed())?;
            let (Some(owned), true) = (found.pop(), found.is_empty()) else {
                return Err(malformed());
            };
            owned.certificate().public_key().map_err(|_| Fault::Key)?;
            if !owned.certificate().is_valid_at(now) {
                return Err(Fault::Expired);
            }
            Ok(Pinned::Certificate(owned))
        }
        (None, Some(hash)) => {
            let mut digest = [0; 32];
            hex::decode_to_slice(&hash, &mut digest)
                .map_err(|_| Fault::Malformed("certificate_sha256"))?;
            Ok(Pinned::Hash(CertificateHash::from_bytes(digest)))
        }
        _ => Err(Fault::Identity),
    }
}

#[cfg(test)]
mod tests {
    use super::super::profile::Uuids;
    use super::*;
    use crate::pki::test_key::{TestKey, self_signed};

    fn now() -> Timestamp {
        Timestamp::from_seconds(1_790_847_007)
    }

    fn profiles() -> Constants {
        Constants {
            identifier: "org.example.mdm".into(),
            payloads: Default::default(),
            organization: "Example".into(),
            uuids: Uuids::of("https://mdm.example.org"),
            server_url: String::new(),
            check_in_url: String::new(),
            scep_url: String::new(),
            tls_root: None,
        }
    }

    fn line(number: u32) -> serde_json::Value {
        serde_json::json!({
            "udid": format!("5B0C1D2E-7F3A-5C41-9A6D-{number:012X}"),
            "serial_number": format!("SIMTEST{number:05}"),
            "certificate_sha256": format!("{number:064x}"),
            "topic": "com.apple.mgmt.External.0f0e0d0c",
            "push_token": format!("{number:064x}"),
            "push_magic": "A-MAGIC",
        })
    }

    fn read(line: &serde_json::Value) -> Result<Adoptee, Fault> {
        Adoptee::read(&line.to_string(), &profiles(), now())
    }

    #[test]
    fn a_line_is_read_strictly() {
        let good = read(&line(1)).expect("well formed");
        assert_eq!(good.token.expose().len(), 32);
        assert!(matches!(good.identity, Pinned::Hash(_)));
        let with = |key: &str, value: serde_json::Value| {
            let mut line = line(1);
            line[key] = value;
            read(&line)
        };
        let malformed = [
            ("udid", "not one"),
            ("serial_number", "short"),
            ("topic", ""),
            ("push_token", "zz"),
            ("push_token", ""),
            ("push_magic", ""),
            ("certificate_sha256", "00"),
        ];
        for (key, value) in malformed {
            assert_eq!(
                with(key, value.into()),
                Err(Fault::Malformed(key)),
                "{value:?}"
            );
        }
        assert_eq!(with("certificate", "AAAA".into()), Err(Fault::Identity));
        assert!(matches!(
            with("unlock_token", "x".into()),
            Err(Fault::Form(_))
        ));
        assert!(matches!(with("udid", 7.into()), Err(Fault::Form(_))));
        let mut none = line(1);
        none.as_object_mut()
            .expect("an object")
            .remove("certificate_sha256");
        assert_eq!(read(&none), Err(Fault::Identity));
        for text in ["", "[]", "{", "{\"udid\":\"a\",\"udid\":\"b\"}"] {
            let found = Adoptee::read(text, &profiles(), now());
            assert!(matches!(found, Err(Fault::Form(_))), "{text}: {found:?}");
        }
        let long = " ".repeat(MAX_LINE + 1);
        assert_eq!(
            Adoptee::read(&long, &profiles(), now()),
            Err(Fault::TooLong)
        );
    }

    #[test]
    fn what_a_renewal_would_install_beside_is_refused() {
        let mut theirs = line(1);
        theirs["profile_identifier"] = "ORG.example.mdm".into();
        theirs["profile_uuid"] = profiles().uuids.profile.to_lowercase().into();
        assert!(read(&theirs).is_ok());
        theirs["profile_uuid"] = "another".into();
        let what = "profile_uuid";
        assert!(matches!(read(&theirs), Err(Fault::Profile { what: found, .. }) if found == what));
    }

    #[test]
    fn a_certificate_is_read_in_either_form_and_must_be_usable() {
        let with = |text: String| {
            let mut line = line(1);
            line.as_object_mut()
                .expect("an object")
                .remove("certificate_sha256");
            line["certificate"] = text.into();
            read(&line)
        };
        let owned = self_signed(&TestKey::rsa(), "a Mac");
        let pem = crate::pki::pem::to_pem(&owned.certificate());
        for text in [STANDARD.encode(owned.as_der()), pem.clone()] {
            assert_eq!(with(text).expect("well formed").certificate(), owned.hash());
        }
        assert_eq!(
            with(format!("{pem}{pem}")),
            Err(Fault::Malformed("certificate"))
        );
        assert_eq!(with("AAAA".into()), Err(Fault::Malformed("certificate")));
        // It is valid from 2023 to 2033.
        let mut line = line(1);
        line.as_object_mut()
            .expect("an object")
            .remove("certificate_sha256");
        line["certificate"] = STANDARD.encode(owned.as_der()).into();
        let late = Timestamp::from_seconds(2_000_000_001);
        let found = Adoptee::read(&line.to_string(), &profiles(), late);
        assert_eq!(found, Err(Fault::Expired));
    }

    #[test]
    fn nobody_is_adopted_twice() {
        let mut other = line(2);
        other["push_token"] = line(1)["push_token"].clone();
        let lines: Vec<_> = [line(1), other, line(1)]
            .iter()
            .enumerate()
            .map(|(index, line)| (index + 1, read(line).expect("well formed")))
            .collect();
        assert_eq!(
            named_twice(&lines),
            [
                (2, Fault::Twice(1, "push_token")),
                (3, Fault::Twice(1, "udid")),
                (3, Fault::Twice(1, "certificate")),
                (3, Fault::Twice(1, "serial_number")),
                (3, Fault::Twice(1, "push_token")),
            ]
        );
    }

    #[test]
    fn a_mac_of_which_only_the_hash_is_known_waits_for_its_certificate() {
        let adoptee = read(&line(1)).expect("well formed");
        let device_id = DeviceId::new(now(), &crate::entropy::SeededEntropy::new(1));
        let identity = adoptee.identity(&device_id, now());
        assert!(awaits_certificate(identity.kind, identity.not_after));
        assert_eq!(identity.usable(now()), Ok(()));
        assert!(!awaits_certificate(IdentityKind::Scep, identity.not_after));
        let enrollment = adoptee.enrollment(device_id.clone(), now());
        assert!(enrollment.hears(&identity));
        assert_eq!(enrollment.state, State::Enrolled);
        assert_eq!(
            enrollment.push.map(|push| push.magic),
            Some(Secret::new("A-MAGIC".to_owned()))
        );
    }
}
