//! Attestation chains.

use attestd_sim::apple::{AttestationAuthority, AttestedState, BootPolicy, LeafProperty, oid};
use attestd_sim::certs::{self, Identity};
use attestd_sim::keys::{self, KeyKind};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::{X509, X509NameRef};

use super::{DAY_MS, ISSUED_MS, Shelf};

pub(super) const NONCE: [u8; 32] = [0xa9; 32];

pub(super) fn state() -> AttestedState {
    AttestedState {
        serial: "SIMQ4T2W7P".into(),
        provisioning_udid: "00006040-001A2B3C4D5E801C".into(),
        software_update_device_id: "J773sAP".into(),
        os_version: "26.6.2".into(),
        sepos_version: "26.6".into(),
        llb_version: "26.5".into(),
        boot: BootPolicy::default(),
    }
}

/// The root is the same in every made chain, so that replies can name it too.
pub(super) fn put(shelf: &Shelf<'_>) -> Result<(), ErrorStack> {
    let apple = AttestationAuthority::new()?;
    let other = AttestationAuthority::new()?;
    let key = keys::generate(KeyKind::P384)?;
    let (root, sub) = apple.parts();

    let good = apple.attest(&state(), &key, Some(&NONCE), ISSUED_MS)?;
    shelf.put("root.pem", apple.root_pem()?);
    shelf.put("root.der", root.certificate.to_der()?);
    shelf.put("other-root.pem", other.root_pem()?);
    shelf.put("sub.pem", apple.sub_ca_pem()?);
    shelf.put("sub.der", &good.intermediate);
    shelf.put("other-sub.pem", other.sub_ca_pem()?);
    shelf.put("leaf.der", &good.leaf);
    let leaf = X509::from_der(&good.leaf)?.to_pem()?;
    shelf.put("leaf.pem", &leaf);
    let chain = |parts: &[&[u8]]| parts.concat();
    let (sub_pem, root_pem) = (apple.sub_ca_pem()?, apple.root_pem()?);
    shelf.put("chain.pem", chain(&[&leaf, &sub_pem]));
    shelf.put("chain-reversed.pem", chain(&[&sub_pem, &leaf]));
    shelf.put("chain-with-root.pem", chain(&[&leaf, &sub_pem, &root_pem]));
    shelf.put(
        "chain-with-other-root.pem",
        chain(&[&leaf, &sub_pem, &other.root_pem()?]),
    );
    shelf.put(
        "chain-with-leaf-again.pem",
        chain(&[&leaf, &sub_pem, &leaf]),
    );
    shelf.put(
        "chain-of-four.pem",
        chain(&[&leaf, &sub_pem, &root_pem, &root_pem]),
    );
    shelf.put(
        "chain-with-garbage.pem",
        chain(&[
            &leaf,
            b"-----BEGIN CERTIFICATE-----\nnot base64\n-----END CERTIFICATE-----\n",
        ]),
    );
    shelf.put(
        "chain-in-text.pem",
        chain(&[b"subject=leaf\r\n\r\n", &leaf, b"\nsubject=sub\n", &sub_pem]),
    );
    shelf.put(
        "chain-concatenated.der",
        chain(&[&good.leaf, &good.intermediate]),
    );
    shelf.put("leaf-trailing.der", chain(&[&good.leaf, b"\0"]));
    shelf.put("leaf-cut.der", &good.leaf[..good.leaf.len() - 20]);
    shelf.put(
        "leaf-crlf.pem",
        String::from_utf8_lossy(&leaf).replace('\n', "\r\n"),
    );
    let mut tampered = good.leaf.clone();
    let last = tampered.len() - 1;
    tampered[last] ^= 1;
    shelf.put("leaf-tampered.der", tampered);
    shelf.put("key.pem", key.private_key_to_pem_pkcs8()?);
    shelf.put("empty", "");
    shelf.put("text", "a leaf, they said\n");
    shelf.put("large.pem", [&leaf[..], &vec![b'\n'; 300 * 1024]].concat());
    shelf.put("huge-spaces", vec![b' '; 5 * 1024 * 1024]);

    let foreign = other.attest(&state(), &key, Some(&NONCE), ISSUED_MS)?;
    shelf.put("leaf-untrusted.der", &foreign.leaf);
    let p256 = keys::generate(KeyKind::P256)?;
    shelf.put(
        "leaf-p256.der",
        apple.attest(&state(), &p256, Some(&NONCE), ISSUED_MS)?.leaf,
    );
    let older = AttestedState {
        os_version: "14.1".into(),
        ..state()
    };
    shelf.put(
        "leaf-macos-14.1.der",
        apple.attest(&older, &key, Some(&NONCE), ISSUED_MS)?.leaf,
    );

    for (name, properties) in variants() {
        let issued = apple.issue(&key, &properties, ISSUED_MS)?;
        shelf.put(&format!("leaf-{name}.der"), issued.leaf);
    }
    put_forged(shelf, root, sub, &key)
}

/// The good properties with one of them replaced, added (`None` before) or left out (`None` after).
fn with(oid: &'static str, value: Option<&[u8]>) -> Vec<LeafProperty> {
    let mut properties = state().properties(Some(&NONCE));
    properties.retain(|(name, _)| *name != oid);
    if let Some(value) = value {
        properties.push((oid, value.to_vec()));
    }
    properties
}

fn twice(oid: &'static str, value: &[u8]) -> Vec<LeafProperty> {
    let mut properties = state().properties(Some(&NONCE));
    properties.push((oid, value.to_vec()));
    properties
}

fn variants() -> Vec<(&'static str, Vec<LeafProperty>)> {
    let octets = |length: u8, total: usize| {
        let mut code = vec![0x5a; total];
        code[..2].copy_from_slice(&[0x04, length]);
        code
    };
    let mut reversed = state().properties(Some(&NONCE));
    reversed.reverse();
    let mut anonymous = with(oid::SERIAL_NUMBER, None);
    anonymous.retain(|(name, _)| *name != oid::PROVISIONING_UDID);
    let unknown = "1.2.840.113635.100.8.13.4";
    vec![
        ("order-reversed", reversed),
        (
            "freshness-like-tlv",
            with(oid::FRESHNESS, Some(&octets(30, 32))),
        ),
        (
            "freshness-wrapped",
            with(oid::FRESHNESS, Some(&[&[4, 32], &NONCE[..]].concat())),
        ),
        (
            "freshness-wrapped-20",
            with(oid::FRESHNESS, Some(&octets(20, 22))),
        ),
        (
            "freshness-20-like-tlv",
            with(oid::FRESHNESS, Some(&octets(18, 20))),
        ),
        ("freshness-20", with(oid::FRESHNESS, Some(&[0x5a; 20]))),
        ("freshness-1", with(oid::FRESHNESS, Some(&[0x5a]))),
        (
            "freshness-wrapper-too-long",
            with(oid::FRESHNESS, Some(&octets(21, 22))),
        ),
        ("freshness-blank", with(oid::FRESHNESS, Some(b""))),
        ("freshness-absent", with(oid::FRESHNESS, None)),
        ("freshness-33", with(oid::FRESHNESS, Some(&[0xa9; 33]))),
        ("serial-blank", with(oid::SERIAL_NUMBER, Some(b""))),
        (
            "serial-spaces",
            with(oid::SERIAL_NUMBER, Some(b"          ")),
        ),
        ("serial-absent", with(oid::SERIAL_NUMBER, None)),
        (
            "serial-wrapped",
            with(oid::SERIAL_NUMBER, Some(b"\x0c\x0aSIMQ4T2W7P")),
        ),
        (
            "serial-wrapper-wrong",
            with(oid::SERIAL_NUMBER, Some(b"\x0c\x09SIMQ4T2W7P")),
        ),
        (
            "serial-not-text",
            with(oid::SERIAL_NUMBER, Some(b"SIMQ4T2W7\xff")),
        ),
        (
            "serial-with-nul",
            with(oid::SERIAL_NUMBER, Some(b"SIMQ4T2W7P\0")),
        ),
        ("anonymous", anonymous),
        (
            "udid-of-mdm",
            with(
                oid::PROVISIONING_UDID,
                Some(b"5B0C1D2E-7F3A-5C41-9A6D-0E1F2A3B4C5D"),
            ),
        ),
        ("udid-blank", with(oid::PROVISIONING_UDID, Some(b""))),
        ("unknown-oid", with(unknown, Some(b"\x02\x01\x00"))),
        (
            "unknown-oid-twice",
            [with(unknown, Some(b"1")), vec![(unknown, b"2".to_vec())]].concat(),
        ),
        ("serial-twice", twice(oid::SERIAL_NUMBER, b"SIMQ4T2W7P")),
        ("sip-twice", twice(oid::SIP, &[2, 1, 1])),
        ("freshness-twice", twice(oid::FRESHNESS, &[7; 32])),
        ("sip-off", with(oid::SIP, Some(&[2, 1, 1]))),
        ("sip-2", with(oid::SIP, Some(&[2, 1, 2]))),
        ("sip-negative", with(oid::SIP, Some(&[2, 1, 0xff]))),
        ("sip-boolean-false", with(oid::SIP, Some(&[1, 1, 0]))),
        ("sip-boolean-true", with(oid::SIP, Some(&[1, 1, 0xff]))),
        ("sip-not-minimal", with(oid::SIP, Some(&[2, 2, 0, 0]))),
        ("sip-not-minimal-1", with(oid::SIP, Some(&[2, 2, 0, 1]))),
        (
            "sip-two-integers",
            with(oid::SIP, Some(&[2, 1, 0, 2, 1, 0])),
        ),
        ("sip-long-length", with(oid::SIP, Some(&[2, 0x81, 1, 0]))),
        ("sip-empty-integer", with(oid::SIP, Some(&[2, 0]))),
        ("sip-raw-byte", with(oid::SIP, Some(&[0]))),
        ("sip-text", with(oid::SIP, Some(b"0"))),
        ("sip-blank", with(oid::SIP, Some(b""))),
        (
            "boot-reduced",
            with(oid::SECURE_BOOT, Some(b"Reduced Security")),
        ),
        (
            "boot-permissive",
            with(oid::SECURE_BOOT, Some(b"Permissive Security")),
        ),
        (
            "boot-unknown",
            with(oid::SECURE_BOOT, Some(b"Medium Security")),
        ),
        (
            "boot-lower-case",
            with(oid::SECURE_BOOT, Some(b"full security")),
        ),
        (
            "boot-longer",
            with(oid::SECURE_BOOT, Some(b"Full Security (not)")),
        ),
        (
            "boot-wrapped",
            with(oid::SECURE_BOOT, Some(b"\x0c\x0dFull Security")),
        ),
        ("boot-integer", with(oid::SECURE_BOOT, Some(&[2, 1, 1]))),
        ("boot-blank", with(oid::SECURE_BOOT, Some(b" "))),
        ("kexts-1", with(oid::KERNEL_EXTENSIONS, Some(&[2, 1, 1]))),
        ("kexts-2", with(oid::KERNEL_EXTENSIONS, Some(&[2, 1, 2]))),
        (
            "kexts-256",
            with(oid::KERNEL_EXTENSIONS, Some(&[2, 2, 1, 0])),
        ),
        (
            "kexts-not-minimal",
            with(oid::KERNEL_EXTENSIONS, Some(&[2, 2, 0, 0])),
        ),
        (
            "kexts-boolean",
            with(oid::KERNEL_EXTENSIONS, Some(&[1, 1, 0])),
        ),
        ("versions-long", with(oid::OS_VERSION, Some(&[b'9'; 65]))),
    ]
}

/// Chains that break a rule of X.509 itself.
fn put_forged(
    shelf: &Shelf<'_>,
    root: &Identity,
    sub: &Identity,
    key: &PKey<Private>,
) -> Result<(), ErrorStack> {
    let leaf = Forged::leaf(key);
    shelf.put("leaf-by-root.der", leaf.issued_by(root)?);
    let unknown = ("1.2.840.113635.100.8.99.1", true, b"?".to_vec());
    shelf.put(
        "leaf-unknown-critical.der",
        leaf.with(unknown.clone()).issued_by(sub)?,
    );
    // EKU of App Attest, as an audit saw it on live leaves.
    let usage = b"\x30\x0b\x06\x09\x2a\x86\x48\x86\xf7\x63\x64\x04\x18".to_vec();
    shelf.put(
        "leaf-eku.der",
        leaf.with(("2.5.29.37", false, usage)).issued_by(sub)?,
    );
    shelf.put(
        "leaf-sha256.der",
        leaf.signed(sub, MessageDigest::sha256())?,
    );
    shelf.put("leaf-sha1.der", leaf.signed(sub, MessageDigest::sha1())?);
    let mut authority = Forged::leaf(key);
    authority.extensions[0].2 = CA.to_vec();
    shelf.put("leaf-is-ca.der", authority.issued_by(sub)?);
    let mut signer = Forged::leaf(key);
    signer.extensions[1].2 = CERT_SIGN.to_vec();
    shelf.put("leaf-may-sign.der", signer.issued_by(sub)?);

    for (name, constraints, usage) in [
        ("proper", CA, Some(CERT_SIGN)),
        ("no-ca", &[0x30, 0], Some(CERT_SIGN)),
        ("no-cert-sign", CA, Some(&[3, 2, 7, 0x80])),
        ("no-usage", CA, None),
        ("path-length-0", CA_ALONE, Some(CERT_SIGN)),
        ("unknown-critical", CA, Some(CERT_SIGN)),
    ] {
        let mut forged = Forged::authority("Forged Sub CA", constraints, usage)?;
        if name == "unknown-critical" {
            forged = forged.with(unknown.clone());
        }
        let issuer = forged.identity(root)?;
        shelf.put(&format!("sub-{name}.pem"), issuer.certificate_pem()?);
        shelf.put(&format!("leaf-of-{name}.der"), leaf.issued_by(&issuer)?);
    }

    // A root that allows no intermediate, and what it issued all the same.
    let narrow = Forged::authority("Narrow Root", CA_ALONE, Some(CERT_SIGN))?;
    let own_name = certs::name(&[(Nid::COMMONNAME, narrow.subject)])?;
    let der = narrow.build(&own_name, &narrow.key, MessageDigest::sha384())?;
    let root = Identity {
        certificate: X509::from_der(&der)?,
        key: narrow.key,
    };
    let sub = Forged::authority("Narrow Sub", CA_ALONE, Some(CERT_SIGN))?.identity(&root)?;
    shelf.put("narrow-root.pem", root.certificate_pem()?);
    shelf.put("narrow-sub.pem", sub.certificate_pem()?);
    shelf.put("narrow-leaf.der", leaf.issued_by(&sub)?);
    Ok(())
}

/// basicConstraints: an authority; one with pathLenConstraint 0. keyUsage: keyCertSign, cRLSign.
const CA: &[u8] = &[0x30, 3, 1, 1, 0xff];
const CA_ALONE: &[u8] = &[0x30, 6, 1, 1, 0xff, 2, 1, 0];
const CERT_SIGN: &[u8] = &[3, 2, 1, 6];

/// A certificate with any extensions: OID, critical, contents.
pub(super) struct Forged {
    subject: &'static str,
    key: PKey<Private>,
    extensions: Vec<(&'static str, bool, Vec<u8>)>,
}

impl Forged {
    fn leaf(key: &PKey<Private>) -> Self {
        Self::leaf_for(key, &NONCE)
    }

    /// A leaf of the real shape for any kind of key.
    pub(super) fn leaf_for(key: &PKey<Private>, nonce: &[u8]) -> Self {
        let mut extensions = vec![
            ("2.5.29.19", true, vec![0x30, 0]),
            ("2.5.29.15", true, vec![3, 2, 4, 0xf0]),
        ];
        for (oid, value) in state().properties(Some(nonce)) {
            extensions.push((oid, false, value));
        }
        Self {
            subject: "forged",
            key: key.clone(),
            extensions,
        }
    }

    fn authority(
        subject: &'static str,
        constraints: &[u8],
        usage: Option<&[u8]>,
    ) -> Result<Self, ErrorStack> {
        let mut extensions = vec![("2.5.29.19", true, constraints.to_vec())];
        extensions.extend(usage.map(|usage| ("2.5.29.15", true, usage.to_vec())));
        Ok(Self {
            subject,
            key: keys::generate(KeyKind::P384)?,
            extensions,
        })
    }

    fn with(&self, extension: (&'static str, bool, Vec<u8>)) -> Self {
        let extensions = self.extensions.iter().cloned().chain([extension]).collect();
        Self {
            subject: self.subject,
            key: self.key.clone(),
            extensions,
        }
    }

    fn identity(self, issuer: &Identity) -> Result<Identity, ErrorStack> {
        Ok(Identity {
            certificate: X509::from_der(&self.issued_by(issuer)?)?,
            key: self.key,
        })
    }

    pub(super) fn issued_by(&self, issuer: &Identity) -> Result<Vec<u8>, ErrorStack> {
        self.signed(issuer, MessageDigest::sha384())
    }

    fn signed(&self, issuer: &Identity, digest: MessageDigest) -> Result<Vec<u8>, ErrorStack> {
        self.build(issuer.certificate.subject_name(), &issuer.key, digest)
    }

    fn build(
        &self,
        issuer: &X509NameRef,
        key: &PKey<Private>,
        digest: MessageDigest,
    ) -> Result<Vec<u8>, ErrorStack> {
        let subject = certs::name(&[(Nid::COMMONNAME, self.subject)])?;
        let public = certs::public_half(&self.key)?;
        let (begin, end) = (ISSUED_MS - DAY_MS, ISSUED_MS + 90 * DAY_MS);
        let mut builder = certs::begin(&subject, issuer, &public, begin, end)?;
        for (oid, critical, contents) in &self.extensions {
            builder.append_extension(certs::extension(oid, *critical, contents)?)?;
        }
        builder.sign(key, digest)?;
        builder.build().to_der()
    }
}
