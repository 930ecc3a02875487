//! Certificate chains: exact, strict, and refused in every doubt.
//!
//! Two shapes exist and nothing is searched for: a leaf issued by an anchor, and a leaf issued by
//! the one intermediate given, which an anchor issued. Anchors are whole pinned certificates.
//!
//! Checked: names byte for byte, signatures over the bytes received, validity of every certificate
//! (the anchor too) at `now`, who may issue, path lengths, that the leaf may not, unknown critical
//! extensions, the two algorithm identifiers of each certificate. Extended key usage is ignored:
//! Apple's attestation leaf has none, and may have one of Apple's own (apple-protocol 6.1).

use std::collections::HashSet;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use super::key::LegacyDigest;
use super::{Certificate, OwnedCertificate, PkiError, read_certificates};
use crate::ids::{CertificateHash, sha256};
use crate::reason::Reason;
use crate::time::Timestamp;

/// The certificates trust starts from: at least one, each able to issue.
#[derive(Debug, Clone)]
pub struct TrustAnchors(Vec<(CertificateHash, OwnedCertificate)>);

/// How many certificates lie between the leaf and an anchor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainShape {
    /// None: an anchor issued the leaf (our own device authority).
    Direct,
    /// Exactly one, given with the leaf (Managed Device Attestation: Apple's Sub CA).
    OneIntermediate,
}

/// A chain that led to an anchor at a given time. Only [`verify_chain`] makes one.
#[derive(Debug, Clone, Copy)]
pub struct VerifiedChain<'a> {
    leaf: Certificate<'a>,
    anchor: CertificateHash,
    verified_at: Timestamp,
}

/// Which certificate of a chain a refusal is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    Leaf,
    Intermediate,
    Anchor,
}

/// Why a chain leads nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChainRefusal {
    /// No intermediate where one must be.
    #[error("the intermediate certificate is missing")]
    IntermediateMissing,
    /// More certificates than the shape allows.
    #[error("there are more certificates than the chain may have")]
    TooManyCertificates,
    /// No anchor, or not the next certificate, bears the issuer's name.
    #[error("the issuer of the {0} is not the next certificate")]
    IssuerUnknown(Link),
    /// The issuer's key did not make the signature.
    #[error("the signature of the {0} does not verify")]
    SignatureInvalid(Link),
    /// `now` is before its validity.
    #[error("the {0} is not valid yet")]
    NotYetValid(Link),
    /// `now` is after its validity.
    #[error("the {0} has expired")]
    Expired(Link),
    /// The issuing certificate is no authority, or may not sign certificates.
    #[error("the {0} may not issue certificates")]
    MayNotIssue(Link),
    /// More intermediates than the issuer allows below it.
    #[error("the {0} allows no chain of this length below it")]
    PathTooLong(Link),
    /// The leaf says that it is an authority, or may sign certificates: a chain in the wrong order.
    #[error("the leaf is a certificate authority")]
    LeafIsAuthority,
    /// An extension is critical that is not understood here.
    #[error("the {0} has a critical extension that is not understood")]
    UnknownCritical(Link),
    /// A key or signature algorithm that is not accepted.
    #[error("the {0} uses an algorithm that is not accepted")]
    UnsupportedAlgorithm(Link),
}

/// Intermediates whose signature by an anchor was verified before, so that it need not be again.
///
/// Only the signature is remembered; dates and rights are checked every time. Only intermediates
/// that an anchor really signed enter, so no stranger can fill it; when it is full the rest are
/// verified each time.
#[derive(Debug, Default)]
pub struct KnownIntermediates(Mutex<HashSet<[u8; 32]>>);

impl TrustAnchors {
    /// Anchors from certificates.
    ///
    /// # Errors
    /// When there is none, or one is no authority or has a key that is not accepted.
    pub fn new(certificates: Vec<OwnedCertificate>) -> Result<Self, PkiError> {
        if certificates.is_empty() {
            return Err(PkiError::NotACertificate);
        }
        let mut anchors = Vec::with_capacity(certificates.len());
        for owned in certificates {
            let certificate = owned.certificate();
            certificate.public_key()?;
            if may_issue(&certificate, Link::Anchor, 0).is_err() {
                return Err(PkiError::UnsupportedKey);
            }
            anchors.push((owned.hash(), owned));
        }
        Ok(Self(anchors))
    }

    /// Anchors from a PEM or DER file.
    pub fn read(file: &[u8]) -> Result<Self, PkiError> {
        Self::new(read_certificates(file)?)
    }

    /// The anchors.
    pub fn certificates(&self) -> impl Iterator<Item = &OwnedCertificate> {
        self.0.iter().map(|(_, certificate)| certificate)
    }
}

impl KnownIntermediates {
    /// Authorities have few intermediates alive at a time; Apple's has one.
    const CAPACITY: usize = 64;

    /// Whether nothing was remembered yet.
    pub fn is_empty(&self) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
    }

    fn contains(&self, key: &[u8; 32]) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(key)
    }

    fn remember(&self, key: [u8; 32]) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() < Self::CAPACITY {
            known.insert(key);
        }
    }
}

impl<'a> VerifiedChain<'a> {
    /// The leaf, which led to the anchor.
    pub fn leaf(&self) -> Certificate<'a> {
        self.leaf
    }

    /// The anchor it led to.
    pub fn anchor(&self) -> CertificateHash {
        self.anchor
    }

    /// The time the dates were compared with.
    pub fn verified_at(&self) -> Timestamp {
        self.verified_at
    }
}

impl ChainRefusal {
    /// What it is called in answers. Whoever judges a device identity rather than an attestation
    /// may want to tell an expired leaf ([`ChainRefusal::Expired`]) apart first.
    pub fn reason(&self) -> Reason {
        match self {
            Self::IntermediateMissing
            | Self::TooManyCertificates
            | Self::IssuerUnknown(_)
            | Self::SignatureInvalid(_)
            | Self::NotYetValid(_)
            | Self::Expired(_)
            | Self::MayNotIssue(_)
            | Self::PathTooLong(_)
            | Self::LeafIsAuthority
            | Self::UnknownCritical(_)
            | Self::UnsupportedAlgorithm(_) => Reason::ChainInvalid,
        }
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leaf => "leaf",
            Self::Intermediate => "intermediate",
            Self::Anchor => "anchor",
        })
    }
}

/// Verifies that `leaf` leads to one of `anchors` at `now`, by a chain of exactly this shape.
///
/// What it does not say: whom the leaf names, what the leaf may be used for, whether it was revoked.
pub fn verify_chain<'a>(
    leaf: &Certificate<'a>,
    intermediates: &[Certificate<'_>],
    anchors: &TrustAnchors,
    now: Timestamp,
    shape: ChainShape,
    known: &KnownIntermediates,
) -> Result<VerifiedChain<'a>, ChainRefusal> {
    let intermediate = match (shape, intermediates) {
        (ChainShape::Direct, []) => None,
        (ChainShape::OneIntermediate, [only]) => Some(only),
        (ChainShape::OneIntermediate, []) => return Err(ChainRefusal::IntermediateMissing),
        (ChainShape::Direct | ChainShape::OneIntermediate, _) => {
            return Err(ChainRefusal::TooManyCertificates);
        }
    };
    let is_anchor = |one: &&Certificate<'_>| {
        anchors
            .certificates()
            .any(|anchor| anchor.as_der() == one.as_der())
    };
    // An anchor in the intermediate's place would make a chain without any.
    if intermediate.filter(is_anchor).is_some() {
        return Err(ChainRefusal::IntermediateMissing);
    }
    if leaf.is_ca() || leaf.key_usage().is_some_and(|usage| usage.key_cert_sign()) {
        return Err(ChainRefusal::LeafIsAuthority);
    }
    check(leaf, Link::Leaf, now)?;

    let (top, top_link) = match intermediate {
        Some(intermediate) => {
            check(intermediate, Link::Intermediate, now)?;
            may_issue(intermediate, Link::Intermediate, 0)?;
            if leaf.issuer() != intermediate.subject() {
                return Err(ChainRefusal::IssuerUnknown(Link::Leaf));
            }
            (intermediate, Link::Intermediate)
        }
        None => (leaf, Link::Leaf),
    };

    let anchor = issuing_anchor(top, top_link, anchors, now, intermediate.is_some(), known)?;
    if let Some(intermediate) = intermediate {
        signed_by(leaf, Link::Leaf, intermediate)?;
    }
    Ok(VerifiedChain {
        leaf: *leaf,
        anchor,
        verified_at: now,
    })
}

/// Finds the anchor that issued `top`. Several may bear the same name; the signature decides.
fn issuing_anchor(
    top: &Certificate<'_>,
    link: Link,
    anchors: &TrustAnchors,
    now: Timestamp,
    is_intermediate: bool,
    known: &KnownIntermediates,
) -> Result<CertificateHash, ChainRefusal> {
    let mut refusal = ChainRefusal::IssuerUnknown(link);
    for (hash, owned) in &anchors.0 {
        let anchor = owned.certificate();
        if anchor.subject() != top.issuer() {
            continue;
        }
        let verified = check(&anchor, Link::Anchor, now)
            .and_then(|()| may_issue(&anchor, Link::Anchor, u8::from(is_intermediate)))
            .and_then(|()| {
                if !is_intermediate {
                    return signed_by(top, link, &anchor);
                }
                let key = sha256(&[top.hash().as_bytes().as_slice(), hash.as_bytes()].concat());
                if !known.contains(&key) {
                    signed_by(top, link, &anchor)?;
                    known.remember(key);
                }
                Ok(())
            });
        match verified {
            Ok(()) => return Ok(*hash),
            Err(cause) => refusal = cause,
        }
    }
    Err(refusal)
}

/// What every certificate of a chain must fulfil by itself.
fn check(certificate: &Certificate<'_>, link: Link, now: Timestamp) -> Result<(), ChainRefusal> {
    if certificate.has_unknown_critical() {
        return Err(ChainRefusal::UnknownCritical(link));
    }
    if now < certificate.not_before() {
        return Err(ChainRefusal::NotYetValid(link));
    }
    if !certificate.is_valid_at(now) {
        return Err(ChainRefusal::Expired(link));
    }
    Ok(())
}

/// RFC 5280 section 6.1.4 (k) to (n). A certificate of version 1 cannot say that it may, so it may
/// not. An intermediate must say so in keyUsage as well, which is stricter than the RFC; an anchor,
/// which was pinned by hand, only must not deny it.
fn may_issue(
    issuer: &Certificate<'_>,
    link: Link,
    intermediates_below: u8,
) -> Result<(), ChainRefusal> {
    let signs = issuer
        .key_usage()
        .map_or(link == Link::Anchor, |usage| usage.key_cert_sign());
    match issuer.basic_constraints() {
        Some(constraints) if constraints.ca && signs => match constraints.path_length {
            Some(most) if intermediates_below > most => Err(ChainRefusal::PathTooLong(link)),
            _ => Ok(()),
        },
        _ => Err(ChainRefusal::MayNotIssue(link)),
    }
}

fn signed_by(
    subject: &Certificate<'_>,
    link: Link,
    issuer: &Certificate<'_>,
) -> Result<(), ChainRefusal> {
    let key = issuer
        .public_key()
        .map_err(|_| ChainRefusal::UnsupportedAlgorithm(link))?;
    subject
        .verify_signature(&key, LegacyDigest::Refused)
        .map_err(|error| match error {
            PkiError::BadSignature => ChainRefusal::SignatureInvalid(link),
            _ => ChainRefusal::UnsupportedAlgorithm(link),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem(name: &str) -> OwnedCertificate {
        let path = format!(
            "{}/tests/fixtures/mda/sim-mda-{name}.pem",
            env!("CARGO_MANIFEST_DIR")
        );
        let file = std::fs::read(path).expect("fixture");
        read_certificates(&file).expect("PEM").remove(0)
    }

    fn anchors() -> TrustAnchors {
        TrustAnchors::new(vec![pem("root")]).expect("an authority")
    }

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).expect("valid")
    }

    fn verify(
        leaf: &OwnedCertificate,
        intermediates: &[&OwnedCertificate],
        now: &str,
    ) -> Result<CertificateHash, ChainRefusal> {
        let intermediates: Vec<_> = intermediates.iter().map(|one| one.certificate()).collect();
        let known = KnownIntermediates::default();
        let shape = ChainShape::OneIntermediate;
        verify_chain(
            &leaf.certificate(),
            &intermediates,
            &anchors(),
            at(now),
            shape,
            &known,
        )
        .map(|chain| chain.anchor())
    }

    const NOW: &str = "2026-10-01T09:31:00Z";

    #[test]
    fn every_genuine_fixture_leads_to_its_root_and_the_expired_one_does_not() {
        let sub = pem("subca1");
        for leaf in [
            "leaf-good",
            "leaf-sip-disabled",
            "leaf-reduced-security",
            "leaf-stale-nonce",
            "leaf-no-freshness",
            "leaf-other-device",
            "leaf-no-security-oids-macos-14.0",
            "leaf-freshness-octet-string-wrapped",
        ] {
            assert_eq!(
                verify(&pem(leaf), &[&sub], NOW),
                Ok(pem("root").hash()),
                "{leaf}"
            );
        }
        let expired = verify(&pem("leaf-expired"), &[&sub], NOW);
        assert_eq!(expired, Err(ChainRefusal::Expired(Link::Leaf)));
    }

    #[test]
    fn the_chain_has_exactly_its_shape() {
        let (leaf, sub, root) = (pem("leaf-good"), pem("subca1"), pem("root"));
        assert_eq!(
            verify(&leaf, &[], NOW),
            Err(ChainRefusal::IntermediateMissing)
        );
        assert_eq!(
            verify(&leaf, &[&sub, &root], NOW),
            Err(ChainRefusal::TooManyCertificates)
        );
        assert_eq!(
            verify(&sub, &[&leaf], NOW),
            Err(ChainRefusal::LeafIsAuthority)
        );
        assert_eq!(
            verify(&leaf, &[&root], NOW),
            Err(ChainRefusal::IntermediateMissing)
        );
        let not_issuer = verify(&leaf, &[&leaf], NOW);
        assert_eq!(
            not_issuer,
            Err(ChainRefusal::MayNotIssue(Link::Intermediate))
        );
    }

    #[test]
    fn dates_are_judged_at_the_time_given() {
        let (leaf, sub) = (pem("leaf-good"), pem("subca1"));
        for (now, refusal) in [
            (
                "2026-09-30T09:30:06Z",
                ChainRefusal::NotYetValid(Link::Leaf),
            ),
            ("2026-12-31T09:30:08Z", ChainRefusal::Expired(Link::Leaf)),
        ] {
            assert_eq!(verify(&leaf, &[&sub], now), Err(refusal), "{now}");
        }
        let not_after = leaf.certificate().not_after();
        assert!(leaf.certificate().is_valid_at(not_after));
    }

    #[test]
    fn a_foreign_root_of_the_same_shape_vouches_for_nothing() {
        let foreign =
            TrustAnchors::read(include_bytes!("../../tests/fixtures/mdm/sim-device-ca.pem"))
                .expect("an authority");
        let (leaf, sub) = (pem("leaf-good"), pem("subca1"));
        let refused = verify_chain(
            &leaf.certificate(),
            &[sub.certificate()],
            &foreign,
            at(NOW),
            ChainShape::OneIntermediate,
            &KnownIntermediates::default(),
        );
        assert_eq!(
            refused.map(|_| ()),
            Err(ChainRefusal::IssuerUnknown(Link::Intermediate))
        );
    }

    #[test]
    fn a_device_identity_leads_directly_to_its_authority() {
        let ca = TrustAnchors::read(include_bytes!("../../tests/fixtures/mdm/sim-device-ca.pem"))
            .expect("an authority");
        let leaf = include_bytes!("../../tests/fixtures/mdm/sim-device-identity.pem");
        let leaf = read_certificates(leaf).expect("PEM").remove(0);
        let known = KnownIntermediates::default();
        let verify =
            |shape| verify_chain(&leaf.certificate(), &[], &ca, at(NOW), shape, &known).map(|_| ());
        assert_eq!(verify(ChainShape::Direct), Ok(()));
        assert_eq!(
            verify(ChainShape::OneIntermediate),
            Err(ChainRefusal::IntermediateMissing)
        );
    }

    #[test]
    fn a_remembered_intermediate_is_still_judged_by_its_dates() {
        let (leaf, sub) = (pem("leaf-good"), pem("subca1"));
        let known = KnownIntermediates::default();
        let verify = |now: &str| {
            let shape = ChainShape::OneIntermediate;
            let (leaf, sub) = (leaf.certificate(), sub.certificate());
            verify_chain(&leaf, &[sub], &anchors(), at(now), shape, &known).map(|_| ())
        };
        assert_eq!(verify(NOW), Ok(()));
        assert_eq!(verify(NOW), Ok(()));
        assert_eq!(known.0.lock().expect("lock").len(), 1);
        assert!(verify("2033-01-01T00:00:00Z").is_err());
    }

    #[test]
    fn no_single_changed_byte_of_a_certificate_leads_to_the_root() {
        let (leaf, sub) = (pem("leaf-good"), pem("subca1"));
        for (index, _) in leaf.as_der().iter().enumerate() {
            for (original, is_leaf) in [(&leaf, true), (&sub, false)] {
                let mut der = original.as_der().to_vec();
                let Some(byte) = der.get_mut(index) else {
                    continue;
                };
                *byte ^= 1 << (index % 8);
                let Ok(changed) = OwnedCertificate::parse(der) else {
                    continue;
                };
                let verified = if is_leaf {
                    verify(&changed, &[&sub], NOW)
                } else {
                    verify(&leaf, &[&changed], NOW)
                };
                assert!(
                    verified.is_err(),
                    "byte {index} of {}",
                    if is_leaf { "leaf" } else { "sub" }
                );
            }
        }
    }

    #[test]
    fn the_real_apple_root_is_an_anchor_and_the_real_leaf_reads() {
        let folder = std::path::Path::new(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../shared/fixtures/real"
        ));
        let (Ok(root), Ok(leaf)) = (
            std::fs::read(folder.join("Apple_Enterprise_Attestation_Root_CA.pem")),
            std::fs::read(folder.join("apple-mda-leaf-2025.pem")),
        ) else {
            println!("skipped: the real material is not on this machine");
            return;
        };
        assert!(TrustAnchors::read(&root).is_ok());
        let leaf = read_certificates(&leaf).expect("PEM").remove(0);
        assert_eq!(leaf.certificate().extensions().count(), 12);
        assert!(!leaf.certificate().is_ca());
    }
}
