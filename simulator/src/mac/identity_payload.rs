//! The payload an enrollment profile takes its identity from (apple-protocol 1.3, 1.4).

use std::time::Duration;

use clap::ValueEnum;
use plist::{Dictionary, Value};
use serde::Serialize;

use super::profile::{ProfileError, check_url, string};
use crate::acme::{AcmeSettings, KeyForm};
use crate::csr::{AlternativeName, Subject};
use crate::scep::ScepSettings;

/// Where the MDM identity comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentityPayload {
    /// com.apple.security.scep
    Scep(ScepSettings),
    /// com.apple.security.acme
    Acme(AcmeSettings),
    /// A former server's payload, of which only the identity is left.
    Former,
}

/// The protocol an identity was got by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum IdentityKind {
    /// By ACME, attested where the profile asks for it
    Acme,
    /// By SCEP
    Scep,
}

impl IdentityKind {
    /// As servers and tables call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Acme => "acme",
            Self::Scep => "scep",
        }
    }
}

impl IdentityPayload {
    pub(super) fn read(
        payload: &Dictionary,
        allow_http_loopback: bool,
    ) -> Result<Self, ProfileError> {
        match string(payload, "PayloadType")? {
            "com.apple.security.scep" => Ok(Self::Scep(scep(payload)?)),
            "com.apple.security.acme" => Ok(Self::Acme(acme(payload, allow_http_loopback)?)),
            other => Err(ProfileError::IdentityKind(other.to_owned())),
        }
    }

    /// The protocol the identity is got by; none where it is of a former server.
    pub fn kind(&self) -> Option<IdentityKind> {
        match self {
            Self::Scep(_) => Some(IdentityKind::Scep),
            Self::Acme(_) => Some(IdentityKind::Acme),
            Self::Former => None,
        }
    }

    /// The settings, where it is SCEP.
    pub fn scep(&self) -> Option<&ScepSettings> {
        match self {
            Self::Scep(settings) => Some(settings),
            _ => None,
        }
    }

    /// The settings, where it is ACME.
    pub fn acme(&self) -> Option<&AcmeSettings> {
        match self {
            Self::Acme(settings) => Some(settings),
            _ => None,
        }
    }
}

fn scep(payload: &Dictionary) -> Result<ScepSettings, ProfileError> {
    let inner = payload.get("PayloadContent").and_then(Value::as_dictionary);
    let inner = inner.ok_or(ProfileError::Missing("PayloadContent"))?;
    let defaults = ScepSettings::default();
    let text = |key: &str| inner.get(key).and_then(Value::as_string).map(str::to_owned);
    let number = |key: &str| inner.get(key).and_then(Value::as_unsigned_integer);
    let key_size = match number("Keysize") {
        None => defaults.key_size,
        Some(size @ (1024 | 2048 | 4096)) => size as u32,
        Some(other) => return wrong("Keysize", &other.to_string()),
    };
    if let Some(kind) = text("Key Type")
        && kind != "RSA"
    {
        return wrong("Key Type", &kind);
    }
    Ok(ScepSettings {
        url: string(inner, "URL")?.to_owned(),
        name: text("Name"),
        challenge: text("Challenge"),
        subject: inner
            .get("Subject")
            .map(subject)
            .transpose()?
            .unwrap_or_default(),
        key_size,
        key_usage: number("Key Usage")
            .and_then(|usage| i64::try_from(usage).ok())
            .unwrap_or(0),
        ca_fingerprint: inner
            .get("CAFingerprint")
            .and_then(Value::as_data)
            .map(<[u8]>::to_vec),
        retries: number("Retries")
            .and_then(|count| u32::try_from(count).ok())
            .unwrap_or(defaults.retries),
        retry_delay: number("RetryDelay").map_or(defaults.retry_delay, Duration::from_secs),
    })
}

/// The settings stand in the payload itself, unlike SCEP's.
fn acme(payload: &Dictionary, allow_http_loopback: bool) -> Result<AcmeSettings, ProfileError> {
    let directory_url = string(payload, "DirectoryURL")?;
    check_url(directory_url, allow_http_loopback)?;
    let client_identifier = string(payload, "ClientIdentifier")?;
    if client_identifier.is_empty() {
        return wrong("ClientIdentifier", client_identifier);
    }
    let hardware_bound =
        flag(payload, "HardwareBound")?.ok_or(ProfileError::Missing("HardwareBound"))?;
    let attest = flag(payload, "Attest")?.unwrap_or(false);
    if attest && !hardware_bound {
        return wrong("Attest", "true without HardwareBound");
    }
    let given = payload
        .get("Subject")
        .ok_or(ProfileError::Missing("Subject"))?;
    let purposes = match payload.get("ExtendedKeyUsage") {
        None => Some(Vec::new()),
        Some(value) => texts(value),
    };
    Ok(AcmeSettings {
        directory_url: directory_url.to_owned(),
        client_identifier: client_identifier.to_owned(),
        key: key_form(payload, hardware_bound)?,
        hardware_bound,
        attest,
        subject: subject(given)?,
        alternative_names: match payload.get("SubjectAltName") {
            None => Vec::new(),
            Some(names) => alternative_names(names)?,
        },
        usage_flags: payload
            .get("UsageFlags")
            .map_or(Some(0), Value::as_signed_integer)
            .ok_or(ProfileError::Missing("UsageFlags"))?,
        extended_key_usage: purposes.ok_or(ProfileError::Missing("ExtendedKeyUsage"))?,
    })
}

/// RSA of 1024 to 4096 bits in steps of 8, never bound to hardware; EC of 192, 256, 384 or 521,
/// of which the Secure Enclave has 256 and 384.
fn key_form(payload: &Dictionary, hardware_bound: bool) -> Result<KeyForm, ProfileError> {
    let kind = string(payload, "KeyType")?;
    let size = payload.get("KeySize").and_then(Value::as_unsigned_integer);
    let size = size.ok_or(ProfileError::Missing("KeySize"))?;
    let bits = u32::try_from(size).unwrap_or(u32::MAX);
    match (kind, bits, hardware_bound) {
        ("RSA", _, true) => wrong("HardwareBound", "true with RSA"),
        ("RSA", 1024..=4096, false) if bits.is_multiple_of(8) => Ok(KeyForm::Rsa(bits)),
        ("ECSECPrimeRandom", 256 | 384, _) | ("ECSECPrimeRandom", 192 | 521, false) => {
            Ok(KeyForm::Ec(bits))
        }
        ("RSA" | "ECSECPrimeRandom", _, _) => wrong("KeySize", &size.to_string()),
        _ => wrong("KeyType", kind),
    }
}

fn flag(payload: &Dictionary, key: &'static str) -> Result<Option<bool>, ProfileError> {
    payload
        .get(key)
        .map(|value| value.as_boolean().ok_or(ProfileError::Missing(key)))
        .transpose()
}

fn texts(value: &Value) -> Option<Vec<String>> {
    let all = value.as_array()?.iter();
    all.map(|one| one.as_string().map(str::to_owned)).collect()
}

/// Arrays of arrays of [name, value] pairs.
fn subject(value: &Value) -> Result<Subject, ProfileError> {
    let pair = |pair: &Value| match pair.as_array().map(Vec::as_slice) {
        Some([name, value]) => Some((name.as_string()?.to_owned(), value.as_string()?.to_owned())),
        _ => None,
    };
    let read = || -> Option<Subject> {
        value
            .as_array()?
            .iter()
            .map(|set| set.as_array()?.iter().map(pair).collect())
            .collect()
    };
    read().ok_or(ProfileError::Missing("Subject"))
}

/// Each kind of name is one text or several.
fn alternative_names(value: &Value) -> Result<Vec<AlternativeName>, ProfileError> {
    const KEY: &str = "SubjectAltName";
    let names = value.as_dictionary().ok_or(ProfileError::Missing(KEY))?;
    let of_kind = |kind: &str| match names.get(kind) {
        None => Some(Vec::new()),
        Some(Value::String(one)) => Some(vec![one.clone()]),
        Some(several) => texts(several),
    };
    let read = || -> Option<Vec<AlternativeName>> {
        let mut found = Vec::new();
        let email = of_kind("rfc822Name")?.into_iter();
        found.extend(email.map(AlternativeName::Email));
        let dns = of_kind("dNSName")?.into_iter();
        found.extend(dns.map(AlternativeName::Dns));
        let uri = of_kind("uniformResourceIdentifier")?.into_iter();
        found.extend(uri.map(AlternativeName::Uri));
        let principal = of_kind("ntPrincipalName")?.into_iter();
        found.extend(principal.map(AlternativeName::NtPrincipal));
        Some(found)
    };
    read().ok_or(ProfileError::Missing(KEY))
}

fn wrong<T>(key: &'static str, value: &str) -> Result<T, ProfileError> {
    Err(ProfileError::Wrong {
        key,
        value: value.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mac::EnrollmentProfile;
    use crate::plist_xml::dictionary;

    const PROFILE: &[u8] =
        include_bytes!("../../fixtures/profile-enroll-acme-identity.mobileconfig");

    fn fixture() -> AcmeSettings {
        let profile = EnrollmentProfile::read(PROFILE, false).unwrap();
        profile.identity.acme().unwrap().clone()
    }

    /// The fixture's payload after a change.
    fn changed(change: impl FnOnce(&mut Dictionary)) -> Result<AcmeSettings, ProfileError> {
        let whole: Value = plist::from_bytes(PROFILE).unwrap();
        let payloads = whole
            .as_dictionary()
            .unwrap()
            .get("PayloadContent")
            .unwrap();
        let payload = &payloads.as_array().unwrap()[0];
        let mut payload = payload.as_dictionary().unwrap().clone();
        change(&mut payload);
        acme(&payload, false)
    }

    fn with(pairs: &[(&str, Value)]) -> Result<AcmeSettings, ProfileError> {
        changed(|payload| {
            for (key, value) in pairs {
                payload.insert((*key).to_owned(), value.clone());
            }
        })
    }

    #[test]
    fn the_fixture_asks_for_an_attested_p384_key_in_hardware() {
        let read = fixture();
        assert_eq!(read.key, KeyForm::Ec(384));
        assert!(read.hardware_bound && read.attest);
        assert_eq!(read.client_identifier, "SIMQ4T2W7P");
        assert_eq!(read.subject, [[("CN".to_owned(), "SIMQ4T2W7P".to_owned())]]);
        assert_eq!(
            (read.usage_flags, read.extended_key_usage),
            (1, vec!["1.3.6.1.5.5.7.3.2".to_owned()])
        );
    }

    #[test]
    fn the_request_for_it_is_the_fixtures_up_to_key_and_signature() {
        let fixture_csr = include_bytes!("../../fixtures/acme-csr-good.der");
        let key = crate::keys::generate(crate::keys::KeyKind::P384).unwrap();
        let made = fixture().csr(&key).unwrap();
        let masked = |der: &[u8]| {
            let request = openssl::x509::X509Req::from_der(der).unwrap();
            let public = request.public_key().unwrap();
            assert!(request.verify(&public).unwrap());
            let text = String::from_utf8(request.to_text().unwrap()).unwrap();
            let kept: Vec<_> = text
                .lines()
                .filter(|line| {
                    !line
                        .trim()
                        .chars()
                        .all(|c| c.is_ascii_hexdigit() || c == ':')
                })
                .map(str::to_owned)
                .collect();
            kept
        };
        let ours = masked(&made);
        assert_eq!(ours, masked(fixture_csr));
        assert!(ours.iter().any(|line| line.contains("ecdsa-with-SHA256")));
    }

    #[test]
    fn keys_are_only_of_the_forms_macos_makes() {
        let form = |kind: &str, size: i64, bound: bool| {
            with(&[
                ("KeyType", kind.into()),
                ("KeySize", size.into()),
                ("HardwareBound", bound.into()),
                ("Attest", false.into()),
            ])
            .map(|read| read.key)
        };
        assert_eq!(form("RSA", 2048, false), Ok(KeyForm::Rsa(2048)));
        assert_eq!(form("ECSECPrimeRandom", 521, false), Ok(KeyForm::Ec(521)));
        assert_eq!(form("ECSECPrimeRandom", 256, true), Ok(KeyForm::Ec(256)));
        for (kind, size, bound, key) in [
            ("RSA", 2048, true, "HardwareBound"),
            ("RSA", 2050, false, "KeySize"),
            ("RSA", 8192, false, "KeySize"),
            ("ECSECPrimeRandom", 521, true, "KeySize"),
            ("ECSECPrimeRandom", 2048, false, "KeySize"),
            ("Ed25519", 256, false, "KeyType"),
        ] {
            let refused = form(kind, size, bound);
            assert!(
                matches!(refused, Err(ProfileError::Wrong { key: found, .. }) if found == key),
                "{kind} {size} {bound}: {refused:?}"
            );
        }
    }

    #[test]
    fn what_macos_demands_must_be_there() {
        for key in [
            "DirectoryURL",
            "ClientIdentifier",
            "KeyType",
            "KeySize",
            "HardwareBound",
            "Subject",
        ] {
            let refused = changed(|payload| {
                payload.remove(key);
            });
            assert_eq!(refused, Err(ProfileError::Missing(key)));
        }
        let software = with(&[("HardwareBound", false.into())]);
        assert!(matches!(
            software,
            Err(ProfileError::Wrong { key: "Attest", .. })
        ));
        let plain = with(&[("DirectoryURL", "http://mdm.example.test/acme".into())]);
        assert!(matches!(plain, Err(ProfileError::NotHttps(_))));
        let number = with(&[("Attest", 1.into())]);
        assert_eq!(number, Err(ProfileError::Missing("Attest")));
    }

    #[test]
    fn other_names_go_into_the_request() {
        let names = dictionary([
            ("dNSName", "mac.example.test".into()),
            ("rfc822Name", Value::Array(vec!["a@example.test".into()])),
            ("ntPrincipalName", "mac@corp".into()),
        ]);
        let read = with(&[("SubjectAltName", Value::Dictionary(names))]).unwrap();
        let key = crate::keys::generate(crate::keys::KeyKind::P256).unwrap();
        let request = openssl::x509::X509Req::from_der(&read.csr(&key).unwrap()).unwrap();
        let text = String::from_utf8(request.to_text().unwrap()).unwrap();
        for expected in ["DNS:mac.example.test", "email:a@example.test", "othername"] {
            assert!(text.contains(expected), "{text}");
        }
    }
}
