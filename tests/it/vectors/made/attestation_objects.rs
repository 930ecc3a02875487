//! Attestation objects of the device-attest-01 challenge, and certificate requests.

use attestd_sim::apple::{AttestationAuthority, BootPolicy, LeafProperty, oid};
use attestd_sim::certs;
use attestd_sim::keys::{self, KeyKind};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::sha::sha256;
use openssl::stack::Stack;
use openssl::x509::X509ReqBuilder;
use openssl::x509::extension::{KeyUsage, SubjectAlternativeName};

use super::chains::{Forged, state};
use super::{ISSUED_MS, Shelf};

/// Begins with a hyphen, as one of sixty-four tokens of ours does.
const TOKEN: &[u8] = b"-T0kenOfAChallenge_ThatIs43CharactersLong00";

pub(super) fn put(shelf: &Shelf<'_>) -> Result<(), ErrorStack> {
    let apple = AttestationAuthority::new()?;
    let other = AttestationAuthority::new()?;
    let key = keys::generate(KeyKind::P384)?;
    let code = sha256(TOKEN);
    shelf.put("acme-root.pem", apple.root_pem()?);
    put_requests(shelf, &key)?;

    let good = apple.attest(&state(), &key, Some(&code), ISSUED_MS)?;
    let (leaf, sub) = (good.leaf.as_slice(), good.intermediate.as_slice());
    let root = apple.parts().0.certificate.to_der()?;
    for (name, certificates) in [
        ("good", &[leaf, sub][..]),
        ("leaf-only", &[leaf]),
        ("intermediate-only", &[sub]),
        ("reversed", &[sub, leaf]),
        ("leaf-twice", &[leaf, leaf]),
        ("with-root", &[leaf, sub, &root]),
        ("with-sub-again", &[leaf, sub, sub]),
        ("root-for-sub", &[leaf, &root]),
        ("five", &[leaf, sub, &root, &root, &root]),
        ("garbage", &[leaf, b"no certificate"]),
    ] {
        shelf.put(&format!("acme-{name}.cbor"), object(certificates));
    }
    let mut tampered = good.leaf.clone();
    *tampered.last_mut().expect("bytes") ^= 1;
    shelf.put("acme-tampered.cbor", object(&[&tampered, sub]));
    put_spellings(shelf, leaf, sub);

    let foreign = other.attest(&state(), &key, Some(&code), ISSUED_MS)?;
    let foreign = object(&[&foreign.leaf, &foreign.intermediate]);
    shelf.put("acme-untrusted.cbor", foreign);
    let p256 = keys::generate(KeyKind::P256)?;
    let attested = apple.attest(&state(), &p256, Some(&code), ISSUED_MS)?;
    shelf.put("acme-p256.cbor", object(&[&attested.leaf, sub]));
    shelf.put(
        "acme-csr-p256.der",
        request(&p256, MessageDigest::sha256())?,
    );
    let rsa = keys::generate(KeyKind::Rsa2048)?;
    let attested = Forged::leaf_for(&rsa, &code).issued_by(apple.parts().1)?;
    shelf.put("acme-rsa.cbor", object(&[&attested, sub]));
    shelf.put("acme-csr-rsa.der", request(&rsa, MessageDigest::sha256())?);
    for (name, properties) in variants(&code) {
        let issued = apple.issue(&key, &properties, ISSUED_MS)?;
        let object = object(&[&issued.leaf, &issued.intermediate]);
        shelf.put(&format!("acme-{name}.cbor"), object);
    }
    Ok(())
}

fn variants(code: &[u8; 32]) -> Vec<(&'static str, Vec<LeafProperty>)> {
    let with = |name: &'static str, value: Option<&[u8]>| {
        let mut properties = state().properties(Some(code));
        properties.retain(|(property, _)| *property != name);
        properties.extend(value.map(|value| (name, value.to_vec())));
        properties
    };
    let mut twice = state().properties(Some(code));
    twice.push((oid::FRESHNESS, code.to_vec()));
    let mut off = state();
    off.boot = BootPolicy {
        sip_enabled: false,
        ..BootPolicy::default()
    };
    vec![
        ("no-freshness", with(oid::FRESHNESS, None)),
        ("blank-freshness", with(oid::FRESHNESS, Some(b""))),
        ("freshness-twice", twice),
        ("raw-token", with(oid::FRESHNESS, Some(TOKEN))),
        ("short-code", with(oid::FRESHNESS, Some(&code[..31]))),
        (
            "long-code",
            with(oid::FRESHNESS, Some(&[&code[..], b"\0"].concat())),
        ),
        (
            "wrapped-code",
            with(oid::FRESHNESS, Some(&[b"\x04\x20", &code[..]].concat())),
        ),
        ("no-serial", with(oid::SERIAL_NUMBER, None)),
        ("blank-serial", with(oid::SERIAL_NUMBER, Some(b" "))),
        (
            "other-serial",
            with(oid::SERIAL_NUMBER, Some(b"SIMOTHER01")),
        ),
        ("sip-off", off.properties(Some(code))),
    ]
}

/// The same object in every other spelling, and what is not quite it.
fn put_spellings(shelf: &Shelf<'_>, leaf: &[u8], sub: &[u8]) {
    let chain = [array(2), bytes(leaf), bytes(sub)].concat();
    let (fmt, apple) = (text("fmt"), text("apple"));
    let fmt_apple = [fmt.clone(), apple.clone()].concat();
    let x5c = [text("x5c"), chain.clone()].concat();
    let statement = [text("attStmt"), map(1), x5c.clone()].concat();
    let indefinite = |kind: u8, items: &[u8]| [&[kind], items, b"\xff"].concat();
    let att = |map: &[u8], inside: &[&[u8]]| [&text("attStmt"), map, &inside.concat()].concat();
    let objects = [
        (
            "other-order",
            vec![map(2), statement.clone(), fmt_apple.clone()],
        ),
        (
            "fmt-twice",
            vec![
                map(3),
                fmt_apple.clone(),
                fmt_apple.clone(),
                statement.clone(),
            ],
        ),
        (
            "fmt-in-place-of-statement",
            vec![map(2), fmt_apple.clone(), fmt_apple.clone()],
        ),
        (
            "statement-twice",
            vec![
                map(3),
                fmt_apple.clone(),
                statement.clone(),
                statement.clone(),
            ],
        ),
        (
            "x5c-twice",
            vec![map(2), fmt_apple.clone(), att(&map(2), &[&x5c, &x5c])],
        ),
        ("no-fmt", vec![map(1), statement.clone()]),
        ("no-statement", vec![map(1), fmt_apple.clone()]),
        (
            "empty-statement",
            vec![map(2), fmt_apple.clone(), att(&map(0), &[])],
        ),
        (
            "packed",
            vec![map(2), fmt.clone(), text("packed"), statement.clone()],
        ),
        (
            "capital",
            vec![map(2), fmt.clone(), text("Apple"), statement.clone()],
        ),
        (
            "fmt-number",
            vec![map(2), fmt.clone(), vec![1], statement.clone()],
        ),
        (
            "auth-data",
            vec![
                map(3),
                fmt_apple.clone(),
                statement.clone(),
                text("authData"),
                bytes(&[0; 37]),
            ],
        ),
        (
            "alg",
            vec![
                map(2),
                fmt_apple.clone(),
                att(&map(2), &[&text("alg"), &[0x26], &x5c]),
            ],
        ),
        (
            "x5c-text",
            vec![
                map(2),
                fmt_apple.clone(),
                att(&map(1), &[&text("x5c"), &array(1), &text("MII")]),
            ],
        ),
        (
            "x5c-nested",
            vec![
                map(2),
                fmt_apple.clone(),
                att(&map(1), &[&text("x5c"), &array(1), &chain]),
            ],
        ),
        (
            "x5c-bytes",
            vec![
                map(2),
                fmt_apple.clone(),
                att(&map(1), &[&text("x5c"), &bytes(leaf)]),
            ],
        ),
        (
            "indefinite-map",
            vec![indefinite(
                0xbf,
                &[fmt_apple.clone(), statement.clone()].concat(),
            )],
        ),
        (
            "indefinite-array",
            vec![
                map(2),
                fmt_apple.clone(),
                att(
                    &map(1),
                    &[
                        &text("x5c"),
                        &indefinite(0x9f, &[bytes(leaf), bytes(sub)].concat()),
                    ],
                ),
            ],
        ),
        (
            "indefinite-bytes",
            vec![
                map(2),
                fmt_apple.clone(),
                att(
                    &map(1),
                    &[
                        &text("x5c"),
                        &array(2),
                        &indefinite(0x5f, &bytes(leaf)),
                        &bytes(sub),
                    ],
                ),
            ],
        ),
        (
            "long-form",
            vec![vec![0xb8, 2], fmt_apple.clone(), statement.clone()],
        ),
        (
            "tagged",
            vec![
                vec![0xd9, 0xd9, 0xf7],
                map(2),
                fmt_apple.clone(),
                statement.clone(),
            ],
        ),
        (
            "trailing",
            vec![map(2), fmt_apple.clone(), statement.clone(), vec![0]],
        ),
        (
            "array",
            vec![
                array(4),
                fmt_apple.clone(),
                statement.clone()[..8].to_vec(),
                vec![0xf6],
            ],
        ),
        ("number", vec![vec![0]]),
        ("text", vec![text("apple")]),
    ];
    for (name, parts) in objects {
        shelf.put(&format!("acme-{name}.cbor"), parts.concat());
    }
    let good = [map(2), fmt_apple, statement].concat();
    assert_eq!(good, object(&[leaf, sub]));
    shelf.put("acme-cut.cbor", &good[..good.len() - 1]);
    shelf.put("acme-cut-early.cbor", &good[..3]);
    shelf.put("acme-large.cbor", [&good[..], &vec![0; 64 * 1024]].concat());
    shelf.put("acme-object.txt", openssl::base64::encode_block(&good));
    shelf.put(
        "acme-object.json",
        "{\"fmt\":\"apple\",\"attStmt\":{\"x5c\":[]}}",
    );
}

fn put_requests(shelf: &Shelf<'_>, key: &PKey<Private>) -> Result<(), ErrorStack> {
    let good = request(key, MessageDigest::sha256())?;
    shelf.put("acme-csr.der", &good);
    shelf.put(
        "acme-csr-sha384.der",
        request(key, MessageDigest::sha384())?,
    );
    shelf.put("acme-csr-sha1.der", request(key, MessageDigest::sha1())?);
    let block = |label: &str| {
        let body = openssl::base64::encode_block(&good);
        let lines: Vec<_> = body
            .as_bytes()
            .chunks(64)
            .map(String::from_utf8_lossy)
            .collect();
        format!(
            "-----BEGIN {label}-----\r\n{}\r\n-----END {label}-----\r\n",
            lines.join("\r\n")
        )
    };
    shelf.put("acme-csr.pem", block("CERTIFICATE REQUEST"));
    shelf.put("acme-csr-new.pem", block("NEW CERTIFICATE REQUEST"));
    let two = [block("CERTIFICATE REQUEST"), block("CERTIFICATE REQUEST")];
    shelf.put("acme-csr-two.pem", two.concat());
    shelf.put(
        "acme-csr-bad.pem",
        block("CERTIFICATE REQUEST").replace('M', "!"),
    );
    for (name, kind) in [("p384", KeyKind::P384), ("p256", KeyKind::P256)] {
        let other = request(&keys::generate(kind)?, MessageDigest::sha256())?;
        shelf.put(&format!("acme-csr-other-{name}.der"), other);
    }
    let mut tampered = good.clone();
    *tampered.last_mut().expect("bytes") ^= 1;
    shelf.put("acme-csr-tampered.der", tampered);
    shelf.put("acme-csr-cut.der", &good[..good.len() - 20]);
    shelf.put("acme-csr-trailing.der", [&good[..], b"\0"].concat());
    // A wish for another Mac's name, and for names of servers: none of it is looked at.
    let mut wishing = X509ReqBuilder::new()?;
    wishing.set_pubkey(key)?;
    wishing.set_subject_name(&*certs::name(&[(Nid::COMMONNAME, "SIMOTHER01")])?)?;
    let mut extensions = Stack::new()?;
    let names = SubjectAlternativeName::new()
        .dns("example.org")
        .build(&wishing.x509v3_context(None))?;
    extensions.push(names)?;
    extensions.push(KeyUsage::new().critical().key_cert_sign().build()?)?;
    wishing.add_extensions(&extensions)?;
    wishing.sign(key, MessageDigest::sha256())?;
    shelf.put("acme-csr-wishing.der", wishing.build().to_der()?);
    Ok(())
}

fn request(key: &PKey<Private>, digest: MessageDigest) -> Result<Vec<u8>, ErrorStack> {
    let mut builder = X509ReqBuilder::new()?;
    builder.set_pubkey(key)?;
    builder.set_subject_name(&*certs::name(&[(Nid::COMMONNAME, "SIMQ4T2W7P")])?)?;
    builder.sign(key, digest)?;
    builder.build().to_der()
}

/// As Apple's client writes it.
fn object(certificates: &[&[u8]]) -> Vec<u8> {
    let mut object = [map(2), text("fmt"), text("apple")].concat();
    object.extend(
        [
            text("attStmt"),
            map(1),
            text("x5c"),
            array(certificates.len()),
        ]
        .concat(),
    );
    for certificate in certificates {
        object.extend(bytes(certificate));
    }
    object
}

fn map(pairs: u8) -> Vec<u8> {
    vec![0xa0 | pairs]
}

fn array(elements: usize) -> Vec<u8> {
    vec![0x80 | u8::try_from(elements).expect("few")]
}

fn text(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).expect("short");
    [&[0x60 | length], text.as_bytes()].concat()
}

fn bytes(bytes: &[u8]) -> Vec<u8> {
    match u16::try_from(bytes.len()).expect("small") {
        length @ 0..24 => [&[0x40 | length as u8], bytes].concat(),
        length @ 24..256 => [&[0x58, length as u8], bytes].concat(),
        length => [&[0x59][..], &length.to_be_bytes(), bytes].concat(),
    }
}
