//! Chains that break one rule each, made by OpenSSL.

use openssl::asn1::Asn1OctetString;
use openssl::x509::X509Builder;
use openssl::x509::extension::{BasicConstraints, KeyUsage};

use super::chain::Link;
use super::test_key::{TestKey, issued_with, self_signed_with};
use super::{
    ChainRefusal, ChainShape, Digest, KnownIntermediates, OwnedCertificate, SignatureAlgorithm,
    TrustAnchors, verify_chain,
};
use crate::time::Timestamp;

type Change = fn(&mut X509Builder);

fn authority(builder: &mut X509Builder) {
    constraints(builder, None);
    let usage = KeyUsage::new()
        .critical()
        .key_cert_sign()
        .build()
        .expect("extension");
    builder.append_extension(usage).expect("added");
}

fn constraints(builder: &mut X509Builder, path_length: Option<u32>) {
    let mut constraints = BasicConstraints::new();
    constraints.critical().ca();
    if let Some(path_length) = path_length {
        constraints.pathlen(path_length);
    }
    builder
        .append_extension(constraints.build().expect("extension"))
        .expect("added");
}

fn unknown_critical(builder: &mut X509Builder) {
    let oid = openssl::asn1::Asn1Object::from_str("1.2.3.4.5").expect("oid");
    let value = Asn1OctetString::new_from_bytes(b"raw").expect("value");
    let extension = openssl::x509::X509Extension::new_from_der(&oid, true, &value);
    builder
        .append_extension(extension.expect("extension"))
        .expect("added");
}

struct Keys {
    root: TestKey,
    intermediate: TestKey,
    leaf: TestKey,
}

fn keys() -> Keys {
    Keys {
        root: TestKey::p384(),
        intermediate: TestKey::p384(),
        leaf: TestKey::p384(),
    }
}

fn verify(
    root: OwnedCertificate,
    intermediate: &OwnedCertificate,
    leaf: &OwnedCertificate,
) -> Result<(), ChainRefusal> {
    let anchors = TrustAnchors::new(vec![root]).expect("authority");
    let now = Timestamp::from_seconds(1_790_847_007);
    let (leaf, intermediate) = (leaf.certificate(), intermediate.certificate());
    let known = KnownIntermediates::default();
    let shape = ChainShape::OneIntermediate;
    let outcome = verify_chain(&leaf, &[intermediate], &anchors, now, shape, &known);
    if matches!(
        outcome,
        Err(ChainRefusal::SignatureInvalid(Link::Intermediate))
    ) {
        assert!(known.is_empty(), "only what an anchor signed is remembered");
    }
    outcome.map(|_| ())
}

#[test]
fn each_broken_rule_has_its_refusal() {
    let keys = keys();
    let root = |change: Change| self_signed_with(&keys.root, "root", change);
    let intermediate =
        |change: Change| issued_with(&keys.intermediate, "sub", &keys.root, "root", change);
    let leaf = |change: Change| issued_with(&keys.leaf, "leaf", &keys.intermediate, "sub", change);
    let plain: Change = |_| {};

    assert_eq!(
        verify(root(authority), &intermediate(authority), &leaf(plain)),
        Ok(())
    );
    // An anchor was chosen by hand: it need not carry keyUsage.
    let bare: Change = |builder| constraints(builder, None);
    assert_eq!(
        verify(root(bare), &intermediate(authority), &leaf(plain)),
        Ok(())
    );

    let no_signing: Change = |builder| {
        constraints(builder, None);
        let usage = KeyUsage::new()
            .critical()
            .digital_signature()
            .build()
            .expect("extension");
        builder.append_extension(usage).expect("added");
    };
    for (change, refusal) in [
        (plain, ChainRefusal::MayNotIssue(Link::Intermediate)),
        (bare, ChainRefusal::MayNotIssue(Link::Intermediate)),
        (no_signing, ChainRefusal::MayNotIssue(Link::Intermediate)),
        (
            |builder| {
                authority(builder);
                unknown_critical(builder);
            },
            ChainRefusal::UnknownCritical(Link::Intermediate),
        ),
    ] {
        let refused = verify(root(authority), &intermediate(change), &leaf(plain));
        assert_eq!(refused, Err(refusal));
    }
    for (change, refusal) in [
        (authority as Change, ChainRefusal::LeafIsAuthority),
        (unknown_critical, ChainRefusal::UnknownCritical(Link::Leaf)),
    ] {
        let refused = verify(root(authority), &intermediate(authority), &leaf(change));
        assert_eq!(refused, Err(refusal));
    }
    let no_path: Change = |builder| {
        constraints(builder, Some(0));
        let usage = KeyUsage::new()
            .critical()
            .key_cert_sign()
            .build()
            .expect("extension");
        builder.append_extension(usage).expect("added");
    };
    let refused = verify(root(no_path), &intermediate(authority), &leaf(plain));
    assert_eq!(refused, Err(ChainRefusal::PathTooLong(Link::Anchor)));
    assert_eq!(
        verify(root(authority), &intermediate(no_path), &leaf(plain)),
        Ok(())
    );
}

#[test]
fn names_alone_vouch_for_nothing() {
    let (ours, theirs) = (keys(), keys());
    let root = || self_signed_with(&ours.root, "root", authority);
    let good = issued_with(&ours.intermediate, "sub", &ours.root, "root", authority);
    let forged = issued_with(&theirs.intermediate, "sub", &theirs.root, "root", authority);
    let leaf = issued_with(&ours.leaf, "leaf", &ours.intermediate, "sub", |_| {});
    let forged_leaf = issued_with(&theirs.leaf, "leaf", &theirs.intermediate, "sub", |_| {});

    let refused = verify(root(), &forged, &forged_leaf);
    assert_eq!(
        refused,
        Err(ChainRefusal::SignatureInvalid(Link::Intermediate))
    );
    let refused = verify(root(), &good, &forged_leaf);
    assert_eq!(refused, Err(ChainRefusal::SignatureInvalid(Link::Leaf)));
    assert_eq!(verify(root(), &good, &leaf), Ok(()));
}

#[test]
fn sha_1_is_never_accepted_in_a_chain() {
    let keys = keys();
    let weak = TestKey::new(
        keys.intermediate.key.clone(),
        SignatureAlgorithm::Ecdsa(Digest::Sha1),
    );
    let root = self_signed_with(&keys.root, "root", authority);
    let intermediate = issued_with(&keys.intermediate, "sub", &keys.root, "root", authority);
    let leaf = issued_with(&keys.leaf, "leaf", &weak, "sub", |_| {});
    let refused = verify(root, &intermediate, &leaf);
    assert_eq!(refused, Err(ChainRefusal::UnsupportedAlgorithm(Link::Leaf)));
}
