//! The certificate authorities of a world, and its push certificate: made once, kept in a folder,
//! or shared by many worlds.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use openssl::asn1::Asn1Time;
use openssl::error::ErrorStack;
use openssl::pkey::PKey;
use openssl::x509::X509;

use crate::apns::{PushAuthority, PushCertificate};
use crate::apple::AttestationAuthority;
use crate::certs::{Identity, Issuer};
use crate::clock::{Clock, DAY_MS};
use crate::keys::KeyKind;
use crate::world::WorldError;

/// Everything in a world that signs.
///
/// Making them costs two RSA keys; a test suite makes them once and starts each world with a clone.
#[derive(Debug, Clone)]
pub struct Authorities {
    /// The root of the push service's server certificate.
    pub apns_root: Issuer,
    pub push_authority: PushAuthority,
    pub push_certificate: PushCertificate,
    pub apple: AttestationAuthority,
    /// Of a server the Macs were enrolled at before.
    pub former_device_ca: Issuer,
}

/// The files a server under test is configured with.
#[derive(Debug, Clone)]
pub struct WorldFiles {
    /// The root of the push service's server certificate.
    pub apns_root: PathBuf,
    pub push_certificate: PathBuf,
    pub push_key: PathBuf,
    /// The root to pin instead of Apple's.
    pub attestation_root: PathBuf,
    /// A former server's device CA, for servers that adopt its Macs.
    pub adopted_ca: PathBuf,
}

impl WorldFiles {
    /// Where they are in a world's folder.
    pub fn within(folder: &Path) -> Self {
        Self {
            apns_root: folder.join("apns-root.pem"),
            push_certificate: folder.join("push-cert.pem"),
            push_key: folder.join("push-key.pem"),
            attestation_root: folder.join("attestation-root.pem"),
            adopted_ca: folder.join("adopted-ca.pem"),
        }
    }
}

impl Authorities {
    /// New ones, with a push certificate for `topic` or for a new topic, valid from the day before
    /// `now_ms`: the time of the worlds they are for, which may be a simulated one.
    pub fn new(topic: Option<&str>, now_ms: i64) -> Result<Self, ErrorStack> {
        let push_authority = PushAuthority::new(now_ms)?;
        let topic = topic.map_or_else(PushAuthority::new_topic, |topic| Ok(topic.to_owned()))?;
        Ok(Self {
            apns_root: new_apns_root()?,
            push_certificate: push_authority.issue(&topic, now_ms - DAY_MS)?,
            push_authority,
            apple: AttestationAuthority::new()?,
            former_device_ca: new_former_device_ca(now_ms)?,
        })
    }

    /// Those of a folder, by the system clock; what is missing is made and kept. The push certificate stays while it
    /// has the wanted topic (any, where none is wanted) and a month to go.
    pub fn in_folder(folder: &Path, topic: Option<&str>) -> Result<Self, WorldError> {
        let now = Clock::system().now_ms();
        let root = || Ok(new_apns_root()?.identity);
        let apns_root = Issuer {
            identity: keep(folder, "apns-root", root)?,
        };
        let push_ca = keep(folder, "push-ca", || {
            Ok(PushAuthority::new(now)?.identity().clone())
        })?;
        let push_authority = PushAuthority::from_identity(push_ca);
        let attestation = AttestationAuthority::new()?;
        let (root, sub_ca) = attestation.parts();
        let apple = AttestationAuthority::from_parts(
            keep(folder, "attestation-root", || Ok(root.clone()))?,
            keep(folder, "attestation-sub-ca", || Ok(sub_ca.clone()))?,
        );
        let former_device_ca = Issuer {
            identity: keep(folder, "former-device-ca", || {
                Ok(new_former_device_ca(now)?.identity)
            })?,
        };
        let files = WorldFiles::within(folder);
        let kept = match read_identity(&files.push_certificate, &files.push_key)? {
            Some(identity) => still_good(identity, &push_authority, topic, now)?,
            None => None,
        };
        let push_certificate = match kept {
            Some(kept) => kept,
            None => {
                let topic =
                    topic.map_or_else(PushAuthority::new_topic, |topic| Ok(topic.to_owned()))?;
                push_authority.issue(&topic, now - DAY_MS)?
            }
        };
        let authorities = Self {
            apns_root,
            push_authority,
            push_certificate,
            apple,
            former_device_ca,
        };
        authorities.write_files(folder)?;
        Ok(authorities)
    }

    /// Writes what a server needs into `folder`, which is made where it is missing.
    pub fn write_files(&self, folder: &Path) -> Result<WorldFiles, WorldError> {
        let files = WorldFiles::within(folder);
        write(&files.apns_root, &self.apns_root.certificate_pem()?)?;
        write(
            &files.push_certificate,
            &self.push_certificate.identity.certificate_pem()?,
        )?;
        write(&files.push_key, &self.push_certificate.identity.key_pem()?)?;
        write(&files.attestation_root, &self.apple.root_pem()?)?;
        write(&files.adopted_ca, &self.former_device_ca.certificate_pem()?)?;
        Ok(files)
    }
}

/// TLS peers check certificates by the real time, whatever the simulated one is.
fn new_apns_root() -> Result<Issuer, ErrorStack> {
    let now = Clock::system().now_ms();
    Issuer::root(
        "SIMULATED Push Service Root",
        "Simulated, not Apple",
        KeyKind::P256,
        now,
    )
}

fn new_former_device_ca(now_ms: i64) -> Result<Issuer, ErrorStack> {
    Issuer::root(
        "SIMULATED Former Device CA",
        "Simulated",
        KeyKind::P256,
        now_ms,
    )
}

fn still_good(
    identity: Identity,
    authority: &PushAuthority,
    topic: Option<&str>,
    now_ms: i64,
) -> Result<Option<PushCertificate>, ErrorStack> {
    let found = crate::apns::topic_of(&identity.certificate);
    let in_a_month = Asn1Time::from_unix((now_ms + 30 * DAY_MS) / 1000)?;
    let good = topic.is_none_or(|topic| topic == found)
        && identity.certificate.not_after() > &*in_a_month
        && identity.certificate.verify(&authority.identity().key)?;
    Ok(good.then_some(PushCertificate {
        topic: found,
        identity,
    }))
}

/// The identity kept under `name`, or a new one that is kept from now on.
fn keep(
    folder: &Path,
    name: &str,
    make: impl FnOnce() -> Result<Identity, ErrorStack>,
) -> Result<Identity, WorldError> {
    let certificate_file = folder.join("authorities").join(format!("{name}.crt.pem"));
    let key_file = folder.join("authorities").join(format!("{name}.key.pem"));
    if let Some(kept) = read_identity(&certificate_file, &key_file)? {
        return Ok(kept);
    }
    let made = make()?;
    write(&certificate_file, &made.certificate_pem()?)?;
    write(&key_file, &made.key_pem()?)?;
    Ok(made)
}

/// Certificate and key from two files; `None` where one of them is missing.
fn read_identity(certificate: &Path, key: &Path) -> Result<Option<Identity>, WorldError> {
    let read = |path: &Path| match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(WorldError::File {
            path: path.to_owned(),
            source,
        }),
    };
    let (Some(certificate), Some(key)) = (read(certificate)?, read(key)?) else {
        return Ok(None);
    };
    Ok(Some(Identity {
        key: PKey::private_key_from_pem(&key)?,
        certificate: X509::from_pem(&certificate)?,
    }))
}

/// Writes a file for its owner's eyes only, with the folders above it.
fn write(path: &Path, bytes: &[u8]) -> Result<(), WorldError> {
    let attempt = || {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?
            .write_all(bytes)
    };
    attempt().map_err(|source| WorldError::File {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_gives_the_same_authorities_again() {
        let folder = tempfile::tempdir().unwrap();
        let first = Authorities::in_folder(folder.path(), None).unwrap();
        let second = Authorities::in_folder(folder.path(), None).unwrap();
        let seen = |authorities: &Authorities| {
            (
                authorities.push_certificate.topic.clone(),
                authorities
                    .push_certificate
                    .identity
                    .certificate_pem()
                    .unwrap(),
                authorities.apple.root_pem().unwrap(),
                authorities.apns_root.certificate_pem().unwrap(),
            )
        };
        assert_eq!(seen(&first), seen(&second));
        let other =
            Authorities::in_folder(folder.path(), Some("com.apple.mgmt.External.x")).unwrap();
        assert_eq!(other.push_certificate.topic, "com.apple.mgmt.External.x");
        assert!(
            other
                .push_certificate
                .identity
                .certificate
                .verify(&first.push_authority.identity().key)
                .unwrap()
        );
    }
}
