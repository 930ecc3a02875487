//! The MDM push certificate: what it must be before it is used.

use crate::ids::{CertificateHash, Topic};
use crate::pki::topic::push_topic;
use crate::pki::{KeyAlgorithm, OwnedCertificate, PkiError, oid, read_certificates};
use crate::time::Timestamp;

/// A push certificate as read: well formed and for MDM, nothing more. It may have expired, and
/// nothing is known of its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushCertificate {
    chain: Vec<OwnedCertificate>,
    topic: Topic,
}

/// A push certificate that may be used: within its dates, and for the private key at hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptedPushCertificate(PushCertificate);

/// Why a push certificate or its key is not taken. The text says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PushCertificateRefusal {
    #[error(
        "no certificate in the file; upload the .pem downloaded from https://identity.apple.com/pushcert"
    )]
    NoCertificate,
    #[error("the certificate in the file is broken ({0}); download it again")]
    Unreadable(PkiError),
    #[error(
        "the subject has no UID that starts with com.apple.mgmt., so this is no MDM push certificate; \
         choose the one listed under \"Mobile Device Management\" at https://identity.apple.com/pushcert"
    )]
    NoTopic,
    #[error("the file holds several push certificates; leave only the one to be used")]
    SeveralCertificates,
    #[error(
        "the key of the certificate is not RSA of at least 2048 bits; request a new certificate with a new key"
    )]
    WeakKey,
    #[error(
        "the certificate was issued for another private key; upload the request of this key to Apple with \"Renew\", \
         or install the certificate with the key it was requested with"
    )]
    KeyMismatch,
    #[error(
        "the certificate expired at {0}; choose \"Renew\" (not \"Create\": that gives a new topic) for it at \
         https://identity.apple.com/pushcert, with the same Apple Account as before"
    )]
    Expired(Timestamp),
    #[error(
        "the certificate was issued by {0}, not by Apple; install the one downloaded from \
         https://identity.apple.com/pushcert"
    )]
    NotByApple(String),
    #[error("the certificate is valid from {0}; wait, or set the clock of this machine right")]
    NotYetValid(Timestamp),
    #[error("no private key in the file; add the key that the certificate was requested with")]
    NoKey,
    #[error(
        "the private key is encrypted; decrypt it first (openssl pkey -in KEY -out NEW) and give the result"
    )]
    EncryptedKey,
    #[error(
        "the file holds several private keys; leave only the one the certificate was requested with"
    )]
    SeveralKeys,
    #[error(
        "the private key is broken or of a kind that is not accepted; it must be RSA of at least 2048 bits"
    )]
    UnreadableKey,
}

impl PushCertificate {
    /// Reads PEM (other blocks, such as a private key, are skipped) or one DER certificate. The
    /// certificate with an MDM topic is the one meant; those that lead upwards from it follow it.
    ///
    /// # Errors
    /// [`PushCertificateRefusal`], by cause.
    pub fn read(bytes: &[u8]) -> Result<Self, PushCertificateRefusal> {
        let mut rest = read_certificates(bytes).map_err(|cause| match cause {
            PkiError::NotACertificate => PushCertificateRefusal::NoCertificate,
            cause => PushCertificateRefusal::Unreadable(cause),
        })?;
        let mut pushing: Vec<_> = rest
            .extract_if(.., |certificate| {
                push_topic(&certificate.certificate()).is_ok()
            })
            .collect();
        // Some tools write the certificate twice, with and without its chain.
        pushing.dedup();
        let leaf = pushing.pop().ok_or(PushCertificateRefusal::NoTopic)?;
        if !pushing.is_empty() {
            return Err(PushCertificateRefusal::SeveralCertificates);
        }
        let topic = push_topic(&leaf.certificate()).map_err(|_| PushCertificateRefusal::NoTopic)?;
        match leaf.certificate().public_key().map(|key| key.algorithm()) {
            Ok(KeyAlgorithm::Rsa { bits }) if bits >= 2048 => {}
            _ => return Err(PushCertificateRefusal::WeakKey),
        }
        Ok(Self {
            chain: upwards(leaf, rest),
            topic,
        })
    }

    /// Whether its issuer bears Apple's name: whoever takes a certificate of the service's own for the
    /// one from the portal is told so at once. That Apple did sign it is APNs' to find out.
    ///
    /// # Errors
    /// [`PushCertificateRefusal::NotByApple`].
    pub fn demand_apple(&self) -> Result<(), PushCertificateRefusal> {
        let leaf = self.leaf().certificate();
        let issuer = leaf.issuer();
        if issuer.text_of(oid::ORGANIZATION) == Some("Apple Inc.") {
            return Ok(());
        }
        Err(PushCertificateRefusal::NotByApple(issuer.to_string()))
    }

    /// Accepts the certificate for use with the private key whose DER SubjectPublicKeyInfo is
    /// `key_spki`.
    ///
    /// # Errors
    /// [`PushCertificateRefusal::KeyMismatch`], [`PushCertificateRefusal::Expired`],
    /// [`PushCertificateRefusal::NotYetValid`].
    pub fn accept(
        self,
        key_spki: &[u8],
        now: Timestamp,
    ) -> Result<AcceptedPushCertificate, PushCertificateRefusal> {
        if self.leaf().certificate().spki() != key_spki {
            return Err(PushCertificateRefusal::KeyMismatch);
        }
        if now < self.not_before() {
            return Err(PushCertificateRefusal::NotYetValid(self.not_before()));
        }
        if !self.leaf().certificate().is_valid_at(now) {
            return Err(PushCertificateRefusal::Expired(self.not_after()));
        }
        Ok(AcceptedPushCertificate(self))
    }

    /// The topic it pushes to: its subject's UID.
    pub fn topic(&self) -> &Topic {
        &self.topic
    }

    /// First moment of validity.
    pub fn not_before(&self) -> Timestamp {
        self.leaf().certificate().not_before()
    }

    /// Last moment of validity.
    pub fn not_after(&self) -> Timestamp {
        self.leaf().certificate().not_after()
    }

    /// Its subject's common name, such as `APSP:<uuid>`.
    pub fn common_name(&self) -> Option<&str> {
        let der = self.chain.first()?.as_der();
        // Borrowed from the stored bytes, not from the parsed view.
        crate::pki::Certificate::parse(der)
            .ok()?
            .subject()
            .text_of(oid::COMMON_NAME)
    }

    /// Who issued it, as text for people.
    pub fn issuer(&self) -> String {
        self.leaf().certificate().issuer().to_string()
    }

    /// Its public key, SubjectPublicKeyInfo, DER.
    pub fn spki(&self) -> &[u8] {
        self.leaf().certificate().spki()
    }

    /// Its SHA-256.
    pub fn hash(&self) -> CertificateHash {
        self.leaf().hash()
    }

    /// The certificate, then those that lead upwards from it.
    pub fn chain(&self) -> &[OwnedCertificate] {
        &self.chain
    }

    fn leaf(&self) -> &OwnedCertificate {
        self.chain
            .first()
            .expect("a push certificate is read with its leaf in front")
    }
}

impl AcceptedPushCertificate {
    /// The certificate.
    pub fn certificate(&self) -> &PushCertificate {
        &self.0
    }

    /// Its topic.
    pub fn topic(&self) -> &Topic {
        self.0.topic()
    }
}

/// `leaf` and, of `rest`, its issuer, the issuer's issuer and so on, without a self-issued root. By
/// name only: APNs checks the chain, and this only decides what is sent along.
fn upwards(leaf: OwnedCertificate, mut rest: Vec<OwnedCertificate>) -> Vec<OwnedCertificate> {
    let mut wanted = leaf.certificate().issuer().as_der().to_vec();
    let mut chain = vec![leaf];
    while let Some(at) = rest.iter().position(|candidate| {
        let candidate = candidate.certificate();
        candidate.subject().as_der() == wanted && candidate.issuer().as_der() != wanted
    }) {
        let next = rest.swap_remove(at);
        wanted = next.certificate().issuer().as_der().to_vec();
        chain.push(next);
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::pem::to_pem;

    const PUSH: &[u8] = include_bytes!("../../tests/fixtures/apns/sim-push-certificate.pem");
    const SUBCA: &[u8] = include_bytes!("../../tests/fixtures/mda/sim-mda-subca1.pem");
    const LEAF: &[u8] = include_bytes!("../../tests/fixtures/mda/sim-mda-leaf-good.pem");
    const ROOT: &[u8] = include_bytes!("../../tests/fixtures/mda/sim-mda-root.pem");

    fn push() -> PushCertificate {
        PushCertificate::read(PUSH).expect("a push certificate")
    }

    fn spki() -> Vec<u8> {
        push().spki().to_vec()
    }

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).expect("a time")
    }

    #[test]
    fn a_push_certificate_says_what_it_is() {
        let push = push();
        let uuid = "0f0e0d0c-0b0a-4908-8706-050403020100";
        assert_eq!(
            push.topic().as_str(),
            format!("com.apple.mgmt.External.{uuid}")
        );
        assert_eq!(push.common_name(), Some(format!("APSP:{uuid}").as_str()));
        assert_eq!(push.not_before(), at("2026-10-01T09:30:07Z"));
        assert!(
            push.issuer().contains("SIMULATED Push CA"),
            "{}",
            push.issuer()
        );
        assert_eq!(push.chain().len(), 1);
    }

    #[test]
    fn it_is_accepted_with_its_key_within_its_dates_only() {
        let mid = at("2027-01-01T00:00:00Z");
        let accept = |now| push().accept(&spki(), now);
        assert_eq!(accept(mid).expect("accepted").topic(), push().topic());
        assert!(accept(at("2026-10-01T09:30:07Z")).is_ok());
        assert!(accept(at("2027-10-01T09:30:07Z")).is_ok());
        assert!(matches!(
            accept(at("2026-10-01T09:30:06Z")),
            Err(PushCertificateRefusal::NotYetValid(_))
        ));
        assert!(matches!(
            accept(at("2027-10-01T09:30:08Z")),
            Err(PushCertificateRefusal::Expired(_))
        ));
        let mut other = spki();
        other[100] ^= 1;
        assert_eq!(
            push().accept(&other, mid),
            Err(PushCertificateRefusal::KeyMismatch)
        );
    }

    #[test]
    fn one_that_does_not_bear_apples_name_is_told_from_the_portals() {
        assert_eq!(
            push().demand_apple(),
            Err(PushCertificateRefusal::NotByApple(push().issuer()))
        );
        let apple = PushCertificate::read(&issued_by("Apple Inc.")).expect("a push certificate");
        assert_eq!(apple.demand_apple(), Ok(()));
        let other = PushCertificate::read(&issued_by("Apple Inc. ")).expect("a push certificate");
        assert!(other.demand_apple().is_err());
    }

    /// A push certificate whose issuer has this organisation.
    fn issued_by(organization: &str) -> Vec<u8> {
        use openssl::nid::Nid;
        use openssl::x509::{X509Builder, X509NameBuilder};

        let name = |nid, text| {
            let mut name = X509NameBuilder::new().expect("a name");
            name.append_entry_by_nid(nid, text).expect("a name");
            name.build()
        };
        let rsa = openssl::rsa::Rsa::generate(2048).expect("a key");
        let key = openssl::pkey::PKey::from_rsa(rsa).expect("a key");
        let mut made = X509Builder::new().expect("a certificate");
        made.set_version(2).expect("set");
        let serial = openssl::bn::BigNum::from_u32(7).expect("a number");
        let serial = openssl::asn1::Asn1Integer::from_bn(&serial).expect("a number");
        made.set_serial_number(&serial).expect("set");
        made.set_subject_name(&name(Nid::USERID, "com.apple.mgmt.External.x"))
            .expect("set");
        made.set_issuer_name(&name(Nid::ORGANIZATIONNAME, organization))
            .expect("set");
        let day = |days| openssl::asn1::Asn1Time::days_from_now(days).expect("a time");
        made.set_not_before(&day(0)).expect("set");
        made.set_not_after(&day(365)).expect("set");
        made.set_pubkey(&key).expect("set");
        made.sign(&key, openssl::hash::MessageDigest::sha256())
            .expect("signed");
        made.build().to_der().expect("der")
    }

    #[test]
    fn other_files_are_refused_by_cause() {
        let der = push().leaf().as_der().to_vec();
        let pem = String::from_utf8(PUSH.to_vec()).expect("text");
        let broken = pem.replacen("MII", "M!I", 1);
        let mut doubled = PUSH.to_vec();
        doubled.extend_from_slice(PUSH);
        assert_eq!(PushCertificate::read(&der), Ok(push()));
        assert_eq!(PushCertificate::read(&doubled), Ok(push()));
        for (bytes, refusal) in [
            (b"".as_slice(), PushCertificateRefusal::NoCertificate),
            (b"hello", PushCertificateRefusal::NoCertificate),
            (LEAF, PushCertificateRefusal::NoTopic),
        ] {
            assert_eq!(PushCertificate::read(bytes), Err(refusal));
        }
        assert!(matches!(
            PushCertificate::read(broken.as_bytes()),
            Err(PushCertificateRefusal::Unreadable(_))
        ));
    }

    #[test]
    fn the_chain_is_put_in_order_without_strangers_and_root() {
        let read = |pem: &[u8]| read_certificates(pem).expect("PEM").remove(0);
        let chain = upwards(read(LEAF), vec![read(ROOT), read(PUSH), read(SUBCA)]);
        assert_eq!(chain, [read(LEAF), read(SUBCA)]);
        let with_strangers = [ROOT, PUSH, to_pem(&read(SUBCA).certificate()).as_bytes()].concat();
        assert_eq!(PushCertificate::read(&with_strangers), Ok(push()));
    }
}
