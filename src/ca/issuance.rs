//! From a key and a profile to a certificate.

use std::ops::Deref;
use std::sync::Arc;

use super::certificate_profile::{CertificateKind, CertificateProfile};
use super::{IssuanceError, lint};
use crate::ids::sha256;
use crate::pki::tlv::tag;
use crate::pki::{
    Certificate, LegacyDigest, OwnedCertificate, PkiError, PublicKey, SignatureAlgorithm, Signer,
    oid, write,
};
use crate::time::Timestamp;

/// Who issues.
#[derive(Debug, Clone, Copy)]
pub enum Issuer<'a> {
    /// The certificate signs itself: a device authority.
    Itself,
    /// This authority.
    Authority(&'a Certificate<'a>),
}

/// A TBSCertificate that passed its lint, waiting for the signature of its issuer.
#[derive(Debug)]
pub struct ToBeSigned {
    tbs: Vec<u8>,
    algorithm: SignatureAlgorithm,
    issuer_spki: Vec<u8>,
}

/// Writes a certificate for `key` by `profile`, valid from `now`, to be signed with `algorithm`.
///
/// `serial`: 16 random octets (RFC 5280 section 4.1.2.2 asks for unique ones; 126 random bits are).
///
/// # Errors
/// [`IssuanceError::KeyRejected`], [`IssuanceError::SubjectRejected`],
/// [`IssuanceError::OutlivesIssuer`], [`IssuanceError::IssuerRejected`], [`IssuanceError::Lint`].
pub fn prepare(
    profile: &CertificateProfile,
    key: &PublicKey<'_>,
    issuer: Issuer<'_>,
    algorithm: SignatureAlgorithm,
    now: Timestamp,
    serial: [u8; 16],
) -> Result<ToBeSigned, IssuanceError> {
    let kind = profile.kind;
    if !kind.accepts(key.algorithm()) || has_small_exponent(key) {
        return Err(IssuanceError::KeyRejected);
    }
    let subject = profile.subject()?;
    let (issuer_name, issuer_key) = match issuer {
        Issuer::Itself if kind.is_authority() => (subject.as_slice(), *key),
        Issuer::Authority(authority) if !kind.is_authority() && may_issue(authority) => {
            let issuer_key = authority
                .public_key()
                .map_err(|_| IssuanceError::IssuerRejected)?;
            (authority.subject().as_der(), issuer_key)
        }
        Issuer::Itself | Issuer::Authority(_) => return Err(IssuanceError::IssuerRejected),
    };
    // A leaf that bears its issuer's name looks like an issuer itself to path builders.
    if !kind.is_authority() && issuer_name == subject {
        return Err(IssuanceError::SubjectRejected);
    }
    // An authority of other making may have named its key by another method; the link must hold.
    let issuer_identifier = match issuer {
        Issuer::Authority(authority) => authority.subject_key_identifier().map(<[u8]>::to_vec),
        Issuer::Itself => None,
    };
    let issuer_identifier =
        issuer_identifier.unwrap_or_else(|| key_identifier(&issuer_key).to_vec());
    let (not_before, not_after) = validity(profile, issuer, now)?;

    let tbs = write::sequence(&[
        &write::element(tag::context_constructed(0), &write::unsigned(&[2])),
        &write::unsigned(&positive(serial)),
        &algorithm.to_der(),
        issuer_name,
        &write::sequence(&[&write::time(not_before), &write::time(not_after)]),
        &subject,
        key.spki(),
        &write::element(
            tag::context_constructed(3),
            &extensions(kind, key, &issuer_identifier),
        ),
    ]);
    lint::lint(&tbs, profile, key, issuer, now)?;
    Ok(ToBeSigned {
        tbs,
        algorithm,
        issuer_spki: issuer_key.spki().to_vec(),
    })
}

impl ToBeSigned {
    /// The bytes to be signed.
    pub fn tbs(&self) -> &[u8] {
        &self.tbs
    }

    /// Has it signed by the issuer's key and verifies the result with the issuer's public key, so
    /// that a faulty key keeper never puts a broken certificate into the world.
    pub fn sign(&self, signer: &dyn Signer) -> Result<OwnedCertificate, IssuanceError> {
        let certificate = self.signed(signer)?;
        let issuer_key = PublicKey::parse(&self.issuer_spki)?;
        certificate
            .certificate()
            .verify_signature(&issuer_key, LegacyDigest::Refused)?;
        Ok(certificate)
    }

    /// As [`ToBeSigned::sign`], by a key that was proved when the service started: the result is not
    /// verified again. For certificates of Macs, where that would cost more than everything else
    /// that is signed for them.
    ///
    /// A fault of the machine in just this signature would give a Mac an identity that no chain
    /// leads to; it is recognised by its hash all the same, and a new profile mends it. It would not
    /// give the key away: what one faulty signature reveals is an RSA key with two primes, and for
    /// RSA the library verifies each result itself.
    pub fn sign_by_proved(&self, signer: &ProvedSigner) -> Result<OwnedCertificate, IssuanceError> {
        self.signed(signer.as_ref())
    }

    fn signed(&self, signer: &dyn Signer) -> Result<OwnedCertificate, IssuanceError> {
        if signer.public_key_spki() != self.issuer_spki || signer.algorithm() != self.algorithm {
            return Err(IssuanceError::IssuerRejected);
        }
        let signature = signer
            .sign(&self.tbs)
            .map_err(|_| PkiError::SigningFailed)?;
        let der = write::sequence(&[
            &self.tbs,
            &self.algorithm.to_der(),
            &write::bit_string(&signature),
        ]);
        Ok(OwnedCertificate::parse(der)?)
    }
}

/// A signer whose signature its own public key has verified.
#[derive(Debug)]
pub struct ProvedSigner(Arc<dyn Signer>);

/// Not the beginning of anything that is signed here otherwise, which is all DER.
const PROOF: &[u8] = b"attestd: a key is proved before it is used";

impl ProvedSigner {
    /// Has something signed, and verifies it.
    ///
    /// # Errors
    /// [`IssuanceError::Signing`] when the key does not sign, or another key or algorithm does.
    pub fn prove(signer: Arc<dyn Signer>) -> Result<Self, IssuanceError> {
        let signature = signer.sign(PROOF).map_err(|_| PkiError::SigningFailed)?;
        let key = PublicKey::parse(signer.public_key_spki())?;
        key.verify(signer.algorithm(), LegacyDigest::Refused, PROOF, &signature)?;
        Ok(Self(signer))
    }
}

impl AsRef<dyn Signer> for ProvedSigner {
    fn as_ref(&self) -> &(dyn Signer + 'static) {
        self.0.as_ref()
    }
}

impl Deref for ProvedSigner {
    type Target = dyn Signer;

    fn deref(&self) -> &Self::Target {
        self.0.as_ref()
    }
}

/// The key identifier we write: RFC 7093 section 2, method 1.
pub fn key_identifier(key: &PublicKey<'_>) -> [u8; 20] {
    let mut identifier = [0; 20];
    identifier.copy_from_slice(&sha256(key.bits())[..20]);
    identifier
}

/// First and last moment. A certificate that would outlive its issuer is refused, not cut: it means
/// that the authority should have been renewed, and somebody must hear of it.
fn validity(
    profile: &CertificateProfile,
    issuer: Issuer<'_>,
    now: Timestamp,
) -> Result<(Timestamp, Timestamp), IssuanceError> {
    let from = now.minus(profile.backdated);
    let until = now.plus(profile.validity);
    let (from, until) = match issuer {
        Issuer::Itself => (from, until),
        Issuer::Authority(authority) => {
            if !authority.is_valid_at(now) || until > authority.not_after() {
                return Err(IssuanceError::OutlivesIssuer);
            }
            (from.max(authority.not_before()), until)
        }
    };
    Ok((
        Timestamp::from_seconds(from.seconds()),
        Timestamp::from_seconds(until.seconds()),
    ))
}

fn may_issue(authority: &Certificate<'_>) -> bool {
    authority.is_ca()
        && authority
            .key_usage()
            .is_some_and(|usage| usage.key_cert_sign())
}

/// Positive and always of 16 octets: the sign bit cleared, the next one set.
fn positive(mut serial: [u8; 16]) -> [u8; 16] {
    serial[0] = serial[0] & 0x7f | 0x40;
    serial
}

/// RSA exponents below 65,537 are legal and nobody's default; a client that has one is not one of
/// those this service is for.
fn has_small_exponent(key: &PublicKey<'_>) -> bool {
    use crate::pki::KeyAlgorithm;
    use crate::pki::tlv::whole;
    if !matches!(key.algorithm(), KeyAlgorithm::Rsa { .. }) {
        return false;
    }
    let exponent = || {
        let mut numbers = whole(key.bits(), tag::SEQUENCE)?.inside();
        numbers.integer()?;
        numbers.integer()
    };
    exponent().is_ok_and(|exponent| exponent.len() < 3)
}

fn extensions(kind: CertificateKind, key: &PublicKey<'_>, issuer_identifier: &[u8]) -> Vec<u8> {
    let basic_constraints = if kind.is_authority() {
        write::sequence(&[
            &write::element(tag::BOOLEAN, &[0xff]),
            &write::unsigned(&[0]),
        ])
    } else {
        write::sequence(&[])
    };
    let usage = kind.key_usage(key.algorithm());
    let unused_bits = usage.trailing_zeros().to_le_bytes()[0];
    let key_usage = write::element(tag::BIT_STRING, &[unused_bits, usage]);
    let authority_key = write::sequence(&[&write::element(tag::context(0), issuer_identifier)]);
    let subject_key = write::octet_string(&key_identifier(key));

    let mut list = vec![
        extension(oid::BASIC_CONSTRAINTS, true, &basic_constraints),
        extension(oid::KEY_USAGE, true, &key_usage),
    ];
    if let Some(purpose) = kind.extended_key_usage() {
        let purposes = write::sequence(&[&write::oid(purpose)]);
        list.push(extension(oid::EXTENDED_KEY_USAGE, false, &purposes));
    }
    list.push(extension(oid::SUBJECT_KEY_IDENTIFIER, false, &subject_key));
    list.push(extension(
        oid::AUTHORITY_KEY_IDENTIFIER,
        false,
        &authority_key,
    ));
    write::element(tag::SEQUENCE, &list.concat())
}

fn extension(oid: const_oid::ObjectIdentifier, critical: bool, value: &[u8]) -> Vec<u8> {
    let critical = if critical {
        write::element(tag::BOOLEAN, &[0xff])
    } else {
        Vec::new()
    };
    write::sequence(&[&write::oid(oid), &critical, &write::octet_string(value)])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use openssl::stack::Stack;
    use openssl::x509::store::X509StoreBuilder;
    use openssl::x509::verify::X509VerifyParam;
    use openssl::x509::{X509, X509StoreContext};

    use super::*;
    use crate::pki::test_key::TestKey;
    use crate::pki::{ChainShape, Digest, KnownIntermediates, TrustAnchors, verify_chain};

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn profile(kind: CertificateKind, validity: Duration) -> CertificateProfile {
        CertificateProfile {
            kind,
            common_name: if kind.is_authority() {
                "Sim Device CA"
            } else {
                "SIMQ4T2W7P"
            }
            .into(),
            organization: "Sim Fleet".into(),
            validity,
            backdated: Duration::from_secs(3600),
        }
    }

    fn now() -> Timestamp {
        Timestamp::parse("2026-10-01T09:30:07Z").expect("time")
    }

    fn issue(
        kind: CertificateKind,
        key: &TestKey,
        issuer: Issuer<'_>,
        signer: &TestKey,
        validity: Duration,
    ) -> Result<OwnedCertificate, IssuanceError> {
        let public = PublicKey::parse(key.public_key_spki()).expect("key");
        let profile = profile(kind, validity);
        prepare(
            &profile,
            &public,
            issuer,
            signer.algorithm(),
            now(),
            [0xff; 16],
        )?
        .sign(signer)
    }

    fn authority(key: &TestKey) -> OwnedCertificate {
        let kind = CertificateKind::DeviceAuthority;
        issue(kind, key, Issuer::Itself, key, DAY * 7300).expect("authority")
    }

    fn verifies_with_openssl(leaf: &OwnedCertificate, authority: &OwnedCertificate) -> bool {
        let x509 =
            |owned: &OwnedCertificate| X509::from_der(owned.as_der()).expect("openssl reads it");
        let mut store = X509StoreBuilder::new().expect("store");
        store.add_cert(x509(authority)).expect("added");
        let mut parameters = X509VerifyParam::new().expect("parameters");
        parameters.set_time(now().seconds());
        store.set_param(&parameters).expect("set");
        let store = store.build();
        let chain = Stack::new().expect("stack");
        let mut context = X509StoreContext::new().expect("context");
        let leaf = x509(leaf);
        context
            .init(&store, &leaf, &chain, |context| context.verify_cert())
            .expect("ran")
    }

    fn text(certificate: &OwnedCertificate) -> String {
        let x509 = X509::from_der(certificate.as_der()).expect("openssl reads it");
        String::from_utf8(x509.to_text().expect("text")).expect("UTF-8")
    }

    #[test]
    fn every_kind_is_issued_and_openssl_verifies_it() {
        let (rsa, p256) = (TestKey::rsa(), TestKey::p256());
        for authority_key in [TestKey::p256(), TestKey::p384()] {
            let root = authority(&authority_key);
            let certificate = root.certificate();
            assert!(text(&root).contains("CA:TRUE, pathlen:0"));
            assert!(text(&root).contains("Certificate Sign, CRL Sign"));
            for (kind, key, usage) in [
                (
                    CertificateKind::RegistrationAuthority,
                    &rsa,
                    "Digital Signature, Key Encipherment",
                ),
                (
                    CertificateKind::DeviceIdentity,
                    &rsa,
                    "Digital Signature, Key Encipherment",
                ),
                (
                    CertificateKind::DeviceIdentity,
                    &p256,
                    "Digital Signature\n",
                ),
                (CertificateKind::ProfileSigner, &p256, "Digital Signature\n"),
            ] {
                let issuer = Issuer::Authority(&certificate);
                let leaf = issue(kind, key, issuer, &authority_key, DAY * 365).expect("issued");
                assert!(verifies_with_openssl(&leaf, &root), "{kind:?}");
                let text = text(&leaf);
                assert!(text.contains(usage), "{kind:?} {text}");
                assert!(text.contains("CA:FALSE"), "{kind:?}");
                let subject = leaf.certificate().subject().to_string();
                assert_eq!(subject, "CN=SIMQ4T2W7P,O=Sim Fleet", "{kind:?}");
                let is_identity = kind == CertificateKind::DeviceIdentity;
                assert_eq!(
                    text.contains("TLS Web Client Authentication"),
                    is_identity,
                    "{kind:?}"
                );
                let anchors = TrustAnchors::new(vec![root.clone()]).expect("authority");
                let known = KnownIntermediates::default();
                let leaf = leaf.certificate();
                assert_eq!(leaf.serial()[0], 0x7f);
                assert_eq!(
                    leaf.not_before(),
                    now()
                        .minus(Duration::from_secs(3600))
                        .max(certificate.not_before())
                );
                assert!(
                    verify_chain(&leaf, &[], &anchors, now(), ChainShape::Direct, &known).is_ok()
                );
            }
        }
    }

    #[test]
    fn keys_that_do_not_fit_their_kind_are_refused() {
        let authority_key = TestKey::p384();
        let root = authority(&authority_key);
        let certificate = root.certificate();
        let issuer = Issuer::Authority(&certificate);
        for (kind, key) in [
            (CertificateKind::RegistrationAuthority, TestKey::p256()),
            (CertificateKind::DeviceAuthority, TestKey::rsa()),
        ] {
            let refused = issue(kind, &key, issuer, &authority_key, DAY);
            assert_eq!(refused, Err(IssuanceError::KeyRejected), "{kind:?}");
        }
        let rsa = TestKey::rsa();
        let refused = issue(
            CertificateKind::DeviceAuthority,
            &rsa,
            Issuer::Itself,
            &rsa,
            DAY,
        );
        assert_eq!(refused, Err(IssuanceError::KeyRejected));

        let three = openssl::bn::BigNum::from_u32(3).expect("3");
        let small = openssl::rsa::Rsa::generate_with_e(2048, &three).expect("key");
        let small = openssl::pkey::PKey::from_rsa(small).expect("key");
        let small = TestKey::new(small, SignatureAlgorithm::Rsa(Digest::Sha256));
        let refused = issue(
            CertificateKind::DeviceIdentity,
            &small,
            issuer,
            &authority_key,
            DAY,
        );
        assert_eq!(refused, Err(IssuanceError::KeyRejected));
    }

    #[test]
    fn only_an_authority_issues_and_nothing_outlives_it() {
        let authority_key = TestKey::p256();
        let root = authority(&authority_key);
        let certificate = root.certificate();
        let kind = CertificateKind::DeviceIdentity;
        let device = TestKey::p256();
        let issuer = Issuer::Authority(&certificate);
        let refused = issue(kind, &device, issuer, &authority_key, DAY * 7301);
        assert_eq!(refused, Err(IssuanceError::OutlivesIssuer));
        let leaf = issue(kind, &device, issuer, &authority_key, DAY).expect("issued");
        let leaf = leaf.certificate();
        for issuer in [Issuer::Authority(&leaf), Issuer::Itself] {
            let refused = issue(kind, &TestKey::p256(), issuer, &device, DAY);
            assert_eq!(refused, Err(IssuanceError::IssuerRejected));
        }
        let by_another = issue(kind, &device, issuer, &TestKey::p256(), DAY);
        assert_eq!(by_another, Err(IssuanceError::IssuerRejected));
    }

    /// Says that it has one key, and signs with another.
    #[derive(Debug)]
    struct Faulty(TestKey, TestKey);

    impl Signer for Faulty {
        fn public_key_spki(&self) -> &[u8] {
            self.0.public_key_spki()
        }

        fn algorithm(&self) -> SignatureAlgorithm {
            self.0.algorithm()
        }

        fn sign(&self, message: &[u8]) -> Result<Vec<u8>, crate::pki::key::KeyFailure> {
            self.1.sign(message)
        }
    }

    #[test]
    fn a_key_that_signs_with_another_is_neither_proved_nor_used() {
        let bad = IssuanceError::Signing(PkiError::BadSignature);
        for (says, does) in [
            (TestKey::p384(), TestKey::p384()),
            (TestKey::p256(), TestKey::p384()),
            (TestKey::rsa(), TestKey::p256()),
        ] {
            let device = TestKey::p256();
            let key = PublicKey::parse(device.public_key_spki()).expect("key");
            let kind = CertificateKind::DeviceIdentity;
            let root =
                (!matches!(says.algorithm(), SignatureAlgorithm::Rsa(_))).then(|| authority(&says));
            let faulty = Faulty(says, does);
            if let Some(root) = root {
                let prepared = prepare(
                    &profile(kind, DAY),
                    &key,
                    Issuer::Authority(&root.certificate()),
                    faulty.algorithm(),
                    now(),
                    [7; 16],
                );
                let signed = prepared.expect("prepared").sign(&faulty);
                assert_eq!(signed, Err(bad));
            }
            let proved = ProvedSigner::prove(Arc::new(faulty)).map(|_| ());
            assert_eq!(proved, Err(bad));
        }
    }

    #[test]
    fn a_proved_key_issues_what_openssl_verifies() {
        for key in [TestKey::p256(), TestKey::p384()] {
            let root = authority(&key);
            let device = TestKey::rsa();
            let prepared = prepare(
                &profile(CertificateKind::DeviceIdentity, DAY),
                &PublicKey::parse(device.public_key_spki()).expect("key"),
                Issuer::Authority(&root.certificate()),
                key.algorithm(),
                now(),
                [7; 16],
            );
            let other = ProvedSigner::prove(Arc::new(TestKey::p256())).expect("signs");
            let signer = ProvedSigner::prove(Arc::new(key)).expect("signs");
            let prepared = prepared.expect("prepared");
            let leaf = prepared.sign_by_proved(&signer).expect("signed");
            assert!(verifies_with_openssl(&leaf, &root));
            let by_another = prepared.sign_by_proved(&other);
            assert_eq!(by_another, Err(IssuanceError::IssuerRejected));
        }
    }

    #[test]
    fn a_subject_that_is_no_name_or_its_issuers_is_refused() {
        let key = TestKey::p256();
        let public = PublicKey::parse(key.public_key_spki()).expect("key");
        for bad in ["", "a\nb", &"x".repeat(65)] {
            let mut profile = profile(CertificateKind::DeviceAuthority, DAY);
            profile.common_name = bad.to_owned();
            let refused = prepare(
                &profile,
                &public,
                Issuer::Itself,
                key.algorithm(),
                now(),
                [1; 16],
            );
            assert_eq!(
                refused.map(|_| ()),
                Err(IssuanceError::SubjectRejected),
                "{bad}"
            );
        }
    }
}
