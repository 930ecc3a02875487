//! The simulated Enterprise Attestation hierarchy: root, Sub CA 1, and the leaves it issues.

use openssl::asn1::Asn1Type;
use openssl::bn::BigNum;
use openssl::ec::PointConversionForm;
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::{X509Name, X509NameBuilder};

use super::leaf::{AttestedState, BASIC_CONSTRAINTS, KEY_USAGE, LeafProperty};
use crate::certs::{self, Identity};
use crate::clock::DAY_MS;
use crate::keys::{self, KeyKind};

const ORGANIZATION: &str = "Simulated, not Apple";
/// 2022-02-16T19:01:24Z, when Apple's own root and intermediate begin (apple-protocol 6.2).
const BEGIN_MS: i64 = 1_645_038_084_000;
/// 2047-02-20 and 2032-02-20.
const ROOT_END_MS: i64 = 2434233600000;
const SUB_CA_END_MS: i64 = 1960848000000;

/// A leaf and its intermediate, DER: exactly what a Mac puts into DevicePropertiesAttestation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    pub leaf: Vec<u8>,
    pub intermediate: Vec<u8>,
}

/// The double of Apple's attestation servers.
#[derive(Debug, Clone)]
pub struct AttestationAuthority {
    root: Identity,
    sub_ca: Identity,
}

impl AttestationAuthority {
    /// A new hierarchy. Its names say SIMULATED: it can never be taken for Apple's.
    pub fn new() -> Result<Self, ErrorStack> {
        let root_name = authority_name("SIMULATED Enterprise Attestation Root CA")?;
        let root = authority(None, &root_name, ROOT_END_MS)?;
        let sub_name = authority_name("SIMULATED Enterprise Attestation Sub CA 1")?;
        let sub_ca = authority(Some(&root), &sub_name, SUB_CA_END_MS)?;
        Ok(Self { root, sub_ca })
    }

    /// A hierarchy made before, for a world that is started again.
    pub fn from_parts(root: Identity, sub_ca: Identity) -> Self {
        Self { root, sub_ca }
    }

    /// Root and Sub CA with their keys, for [`AttestationAuthority::from_parts`].
    pub fn parts(&self) -> (&Identity, &Identity) {
        (&self.root, &self.sub_ca)
    }

    /// The root to pin instead of Apple's, PEM.
    pub fn root_pem(&self) -> Result<Vec<u8>, ErrorStack> {
        self.root.certificate_pem()
    }

    /// The Sub CA's certificate, PEM.
    pub fn sub_ca_pem(&self) -> Result<Vec<u8>, ErrorStack> {
        self.sub_ca.certificate_pem()
    }

    /// Attests `state` for `key`, freshness being `nonce` verbatim.
    pub fn attest(
        &self,
        state: &AttestedState,
        key: &PKey<Private>,
        nonce: Option<&[u8]>,
        now_ms: i64,
    ) -> Result<Chain, ErrorStack> {
        self.issue(key, &state.properties(nonce), now_ms)
    }

    /// Issues a leaf with any properties in any order: for evidence Apple would not make.
    pub fn issue(
        &self,
        key: &PKey<Private>,
        properties: &[LeafProperty],
        now_ms: i64,
    ) -> Result<Chain, ErrorStack> {
        let public = certs::public_half(key)?;
        let subject = leaf_subject(key)?;
        // Validity begins a day before issue and ends 90 days after; the serial number is the
        // issue time in milliseconds (apple-protocol 6.1).
        let issuer = self.sub_ca.certificate.subject_name();
        let mut builder = certs::begin(
            &subject,
            issuer,
            &public,
            now_ms - DAY_MS,
            now_ms + 90 * DAY_MS,
        )?;
        let serial = BigNum::from_slice(&now_ms.to_be_bytes())?.to_asn1_integer()?;
        builder.set_serial_number(&serial)?;
        builder.append_extension(certs::extension("2.5.29.19", true, &BASIC_CONSTRAINTS)?)?;
        builder.append_extension(certs::extension("2.5.29.15", true, &KEY_USAGE)?)?;
        for (oid, contents) in properties {
            builder.append_extension(certs::extension(oid, false, contents)?)?;
        }
        builder.sign(&self.sub_ca.key, MessageDigest::sha384())?;
        Ok(Chain {
            leaf: builder.build().to_der()?,
            intermediate: self.sub_ca.certificate.to_der()?,
        })
    }
}

/// CN is the lower-case hexadecimal SHA-256 of the uncompressed point (apple-protocol 6.1).
fn leaf_subject(key: &PKey<Private>) -> Result<X509Name, ErrorStack> {
    let ec = key.ec_key()?;
    let mut context = openssl::bn::BigNumContext::new()?;
    let point =
        ec.public_key()
            .to_bytes(ec.group(), PointConversionForm::UNCOMPRESSED, &mut context)?;
    let digest = hex::encode(openssl::sha::sha256(&point));
    let mut builder = X509NameBuilder::new()?;
    for (kind, value) in [
        (Nid::COMMONNAME, digest.as_str()),
        (Nid::ORGANIZATIONALUNITNAME, "AAA Certification"),
        (Nid::ORGANIZATIONNAME, ORGANIZATION),
        (Nid::STATEORPROVINCENAME, "California"),
    ] {
        builder.append_entry_by_nid_with_type(kind, value, Asn1Type::UTF8STRING)?;
    }
    Ok(builder.build())
}

fn authority_name(common_name: &str) -> Result<X509Name, ErrorStack> {
    let mut builder = X509NameBuilder::new()?;
    builder.append_entry_by_nid_with_type(Nid::COMMONNAME, common_name, Asn1Type::UTF8STRING)?;
    builder.append_entry_by_nid_with_type(
        Nid::ORGANIZATIONNAME,
        ORGANIZATION,
        Asn1Type::UTF8STRING,
    )?;
    builder.append_entry_by_nid_with_type(Nid::COUNTRYNAME, "US", Asn1Type::PRINTABLESTRING)?;
    Ok(builder.build())
}

/// A certificate authority: self-signed, or under `issuer` with path length 0.
fn authority(
    issuer: Option<&Identity>,
    subject: &X509Name,
    end_ms: i64,
) -> Result<Identity, ErrorStack> {
    let key = keys::generate(KeyKind::P384)?;
    let public = certs::public_half(&key)?;
    let issuer_name = issuer.map_or(&**subject, |parent| parent.certificate.subject_name());
    let mut builder = certs::begin(subject, issuer_name, &public, BEGIN_MS, end_ms)?;
    let constraints: &[u8] = match issuer {
        None => &[0x30, 3, 1, 1, 0xff],
        Some(_) => &[0x30, 6, 1, 1, 0xff, 2, 1, 0],
    };
    builder.append_extension(certs::extension("2.5.29.19", true, constraints)?)?;
    let own_id = key_identifier(&key)?;
    let subject_key = [&[4, 20], &own_id[..]].concat();
    builder.append_extension(certs::extension("2.5.29.14", false, &subject_key)?)?;
    let issuer_id = match issuer {
        None => own_id,
        Some(parent) => key_identifier(&parent.key)?,
    };
    let authority_key = [&[0x30, 22, 0x80, 20], &issuer_id[..]].concat();
    builder.append_extension(certs::extension("2.5.29.35", false, &authority_key)?)?;
    // keyCertSign and cRLSign.
    builder.append_extension(certs::extension("2.5.29.15", true, &[3, 2, 1, 6])?)?;
    builder.sign(
        issuer.map_or(&key, |parent| &parent.key),
        MessageDigest::sha384(),
    )?;
    Ok(Identity {
        key,
        certificate: builder.build(),
    })
}

/// SHA-1 of the public point, as RFC 5280 4.2.1.2 (1) says.
fn key_identifier(key: &PKey<Private>) -> Result<[u8; 20], ErrorStack> {
    let ec = key.ec_key()?;
    let mut context = openssl::bn::BigNumContext::new()?;
    let point =
        ec.public_key()
            .to_bytes(ec.group(), PointConversionForm::UNCOMPRESSED, &mut context)?;
    Ok(openssl::sha::sha1(&point))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use openssl::x509::X509;

    use super::*;
    use crate::apple::BootPolicy;

    const ISSUED_MS: i64 = 1_790_847_007_000;

    pub(crate) fn state() -> AttestedState {
        AttestedState {
            serial: "SIMQ4T2W7P".into(),
            provisioning_udid: "00006040-001A2B3C4D5E801C".into(),
            software_update_device_id: "J773sAP".into(),
            os_version: "26.6.2".into(),
            sepos_version: "26.6".into(),
            llb_version: "26.6".into(),
            boot: BootPolicy::default(),
        }
    }

    #[test]
    fn openssl_verifies_the_chain_to_the_root_at_its_time_only() {
        let authority = AttestationAuthority::new().unwrap();
        let key = keys::generate(KeyKind::P384).unwrap();
        let chain = authority
            .attest(&state(), &key, Some(&[9; 32]), ISSUED_MS)
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, bytes: Vec<u8>| std::fs::write(folder.path().join(name), bytes).unwrap();
        write("root.pem", authority.root_pem().unwrap());
        write("sub.pem", authority.sub_ca_pem().unwrap());
        write(
            "leaf.pem",
            X509::from_der(&chain.leaf).unwrap().to_pem().unwrap(),
        );
        let verified_at = |at_ms: i64| {
            Command::new("openssl")
                .current_dir(folder.path())
                .args(["verify", "-attime", &(at_ms / 1000).to_string()])
                .args(["-CAfile", "root.pem", "-untrusted", "sub.pem", "leaf.pem"])
                .output()
                .unwrap()
                .status
                .success()
        };
        assert!(verified_at(ISSUED_MS));
        assert!(!verified_at(ISSUED_MS + 91 * DAY_MS));
    }

    /// `asn1parse -i` of the fixture leaf, without offsets, lengths and values.
    #[test]
    fn the_leaf_has_the_structure_of_the_real_one() {
        let authority = AttestationAuthority::new().unwrap();
        let key = keys::generate(KeyKind::P384).unwrap();
        let chain = authority
            .attest(&state(), &key, Some(&[0xa9; 32]), ISSUED_MS)
            .unwrap();
        let outline = |certificate: &[u8]| {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), certificate).unwrap();
            let out = Command::new("openssl")
                .args(["asn1parse", "-i", "-inform", "DER", "-in"])
                .arg(file.path())
                .output()
                .unwrap();
            let text = String::from_utf8(out.stdout).unwrap();
            text.lines()
                .map(|line| {
                    let shape = line
                        .split_once("cons:")
                        .or_else(|| line.split_once("prim:"))
                        .unwrap()
                        .1;
                    // Values that differ from leaf to leaf: the key's digest and the nonce.
                    let shape = shape.trim_end();
                    if shape.len() > 80 {
                        shape[..25].to_owned()
                    } else {
                        shape.to_owned()
                    }
                })
                .collect::<Vec<_>>()
        };
        let fixture = X509::from_pem(include_bytes!("../../fixtures/leaf-good.pem"))
            .unwrap()
            .to_der()
            .unwrap();
        let (ours, model) = (outline(&chain.leaf), outline(&fixture));
        assert_eq!(ours, model);
    }
}
