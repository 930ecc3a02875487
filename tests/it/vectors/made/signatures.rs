//! `Mdm-Signature` headers.

use attestd_sim::certs::{Identity, Issuer};
use attestd_sim::cms::{SignatureDigest, SignatureStyle, mdm_signature};
use attestd_sim::keys::{self, KeyKind};
use attestd_sim::{certs, der};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use openssl::error::ErrorStack;
use openssl::nid::Nid;
use openssl::x509::X509;

use super::{DAY_MS, ISSUED_MS, Shelf};

const BODY: &[u8] = include_bytes!("../../../fixtures/mdm/connect-idle.plist");

pub(super) fn put(shelf: &Shelf<'_>) -> Result<(), ErrorStack> {
    let ca = Issuer::root("Sim Device CA", "Sim Fleet", KeyKind::P256, ISSUED_MS)?;
    let namesake = Issuer::root("Sim Device CA", "Sim Fleet", KeyKind::P256, ISSUED_MS)?;
    shelf.put("device-ca.pem", ca.certificate_pem()?);
    shelf.put("device-ca.der", ca.identity.certificate.to_der()?);
    shelf.put("namesake-ca.pem", namesake.certificate_pem()?);
    let mac = |issuer: &Issuer, kind, from: i64, to: i64| {
        let subject = [(Nid::COMMONNAME, "SIMQ4T2W7P")];
        issuer.client(
            &subject,
            keys::generate(kind)?,
            ISSUED_MS + from,
            ISSUED_MS + to,
        )
    };
    let year = 365 * DAY_MS;

    let mut rsa = None;
    for (kind, key) in [
        ("rsa", KeyKind::Rsa2048),
        ("p256", KeyKind::P256),
        ("p384", KeyKind::P384),
    ] {
        let identity = mac(&ca, key, -DAY_MS, year)?;
        for (digest, name) in [
            (SignatureDigest::Sha1, "sha1"),
            (SignatureDigest::Sha256, "sha256"),
        ] {
            for (indefinite, form) in [(true, "ber"), (false, "der")] {
                for (signing_time, attributes) in
                    [(None, "plain"), (Some(ISSUED_MS / 1000), "attributes")]
                {
                    let style = SignatureStyle {
                        indefinite,
                        digest,
                        signing_time,
                        ..Default::default()
                    };
                    shelf.put(
                        &format!("{kind}-{name}-{attributes}-{form}.b64"),
                        mdm_signature(&identity, BODY, &style)?,
                    );
                }
            }
        }
        rsa.get_or_insert(identity);
    }
    let mac_rsa = rsa.expect("the first kind");
    let der_style = SignatureStyle::sha256_der();
    let with = |change: &dyn Fn(&mut SignatureStyle)| {
        let mut style = der_style.clone();
        change(&mut style);
        mdm_signature(&mac_rsa, BODY, &style)
    };
    let good = with(&|_| {})?;
    shelf.put(
        "named-digest.b64",
        with(&|style| style.names_digest_in_algorithm = true)?,
    );
    shelf.put(
        "no-certificate.b64",
        with(&|style| style.with_certificate = false)?,
    );
    shelf.put(
        "attached.b64",
        with(&|style| style.attached = Some(BODY.to_vec()))?,
    );
    shelf.put(
        "attached-other.b64",
        with(&|style| style.attached = Some(b"other".to_vec()))?,
    );
    shelf.put(
        "attached-empty.b64",
        with(&|style| style.attached = Some(Vec::new()))?,
    );
    // Years from the signer's validity: what a Mac's clock says binds nobody.
    shelf.put(
        "signing-time-2001.b64",
        with(&|style| style.signing_time = Some(1_000_000_000))?,
    );
    shelf.put(
        "other-body.b64",
        mdm_signature(&mac_rsa, b"another body", &der_style)?,
    );
    let attributes = SignatureStyle {
        signing_time: Some(ISSUED_MS / 1000),
        ..der_style.clone()
    };
    let other = mdm_signature(&mac_rsa, b"another body", &attributes)?;
    shelf.put("other-body-attributes.b64", other);

    let lines: Vec<_> = good
        .as_bytes()
        .chunks(64)
        .map(String::from_utf8_lossy)
        .collect();
    shelf.put("lines.b64", lines.join("\r\n") + "\n");
    shelf.put("unpadded.b64", good.trim_end_matches('='));
    let message = STANDARD.decode(&good).expect("base64");
    shelf.put("raw.der", &message);
    shelf.put("cut.b64", STANDARD.encode(&message[..message.len() - 100]));
    shelf.put(
        "trailing.b64",
        STANDARD.encode([&message[..], b"more"].concat()),
    );
    shelf.put("not-base64.b64", "this is no base64!");
    shelf.put("not-cms.b64", STANDARD.encode(b"this is no CMS message"));
    shelf.put("not-cms-sequence.b64", STANDARD.encode([0x30, 3, 2, 1, 1]));
    shelf.put(
        "certificate.b64",
        STANDARD.encode(mac_rsa.certificate.to_der()?),
    );
    shelf.put("large.b64", "A".repeat(20_000));
    let mut tampered = message.clone();
    let last = tampered.len() - 1;
    tampered[last] ^= 1;
    shelf.put("tampered.b64", STANDARD.encode(tampered));
    shelf.put("two-signers.b64", STANDARD.encode(two_signers(&message)));
    shelf.put("no-signer.b64", STANDARD.encode(signers(&message, &[])));

    let expired = mac(&ca, KeyKind::P256, -30 * DAY_MS, -DAY_MS)?;
    shelf.put("expired.b64", mdm_signature(&expired, BODY, &der_style)?);
    let future = mac(&ca, KeyKind::P256, DAY_MS, year)?;
    shelf.put(
        "not-yet-valid.b64",
        mdm_signature(&future, BODY, &der_style)?,
    );
    let foreign = Identity::from_foreign_ca("SIMQ4T2W7P", KeyKind::P256, ISSUED_MS)?;
    shelf.put("foreign.b64", mdm_signature(&foreign, BODY, &der_style)?);
    let same_name = mac(&namesake, KeyKind::P256, -DAY_MS, year)?;
    shelf.put(
        "of-namesake.b64",
        mdm_signature(&same_name, BODY, &der_style)?,
    );
    let self_signed = Identity::self_signed("SIMQ4T2W7P", KeyKind::P256, ISSUED_MS)?;
    shelf.put(
        "self-signed.b64",
        mdm_signature(&self_signed, BODY, &der_style)?,
    );
    // Our own authority speaking as if it were a Mac.
    shelf.put(
        "signed-by-ca.b64",
        mdm_signature(&ca.identity, BODY, &der_style)?,
    );
    // The certificate of one Mac, the signature of another's key.
    let stolen = Identity {
        key: keys::generate(KeyKind::Rsa2048)?,
        certificate: mac_rsa.certificate.clone(),
    };
    shelf.put("other-key.b64", mdm_signature(&stolen, BODY, &der_style)?);
    shelf.put(
        "server-only.b64",
        mdm_signature(&server_only(&ca)?, BODY, &der_style)?,
    );
    Ok(())
}

/// A signer whose certificate is for TLS servers: its extended key usage is not restricted.
fn server_only(ca: &Issuer) -> Result<Identity, ErrorStack> {
    let key = keys::generate(KeyKind::P256)?;
    let subject = certs::name(&[(Nid::COMMONNAME, "SIMQ4T2W7P")])?;
    let issuer = ca.identity.certificate.subject_name();
    let public = certs::public_half(&key)?;
    let (from, to) = (ISSUED_MS - DAY_MS, ISSUED_MS + DAY_MS);
    let mut builder = certs::begin(&subject, issuer, &public, from, to)?;
    builder.append_extension(certs::extension(
        "2.5.29.37",
        true,
        &[0x30, 10, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 1],
    )?)?;
    builder.sign(&ca.identity.key, certs::digest_for(&ca.identity.key))?;
    let certificate: X509 = builder.build();
    Ok(Identity { key, certificate })
}

fn two_signers(message: &[u8]) -> Vec<u8> {
    let info = parts(message).pop().expect("signerInfos");
    let (set, _) = der::read(&info).expect("DER");
    signers(message, &[set.contents, set.contents])
}

/// The message with other signerInfos.
fn signers(message: &[u8], infos: &[&[u8]]) -> Vec<u8> {
    let mut members = parts(message);
    *members.last_mut().expect("signerInfos") = der::tlv(der::tag::SET, &infos.concat());
    let members: Vec<_> = members.iter().map(Vec::as_slice).collect();
    let wrapped = der::tlv(der::tag::CONTEXT_0, &der::sequence(&members));
    let id = der::oid("1.2.840.113549.1.7.2").expect("an OID");
    der::sequence(&[&id, &wrapped])
}

/// The members of the SignedData, encoded.
fn parts(message: &[u8]) -> Vec<Vec<u8>> {
    let read = |bytes| der::read(bytes).expect("DER").0;
    let outer = read(message).children().expect("ContentInfo");
    let signed = read(outer[1].contents).children().expect("SignedData");
    signed.iter().map(|member| member.whole.to_vec()).collect()
}
