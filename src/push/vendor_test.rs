use openssl::asn1::Asn1Time;
use openssl::x509::X509Builder;
use openssl::x509::extension::BasicConstraints;

use super::*;
use crate::pki::test_key::{TestKey, issued_with, self_signed_with};
use crate::pki::{Name, csr, name};

fn now() -> Timestamp {
    Timestamp::from_seconds(1_800_000_000)
}

fn authority(made: &mut X509Builder) {
    let ca = BasicConstraints::new().critical().ca().build();
    made.append_extension(ca.expect("built")).expect("appended");
}

/// A root, an intermediate and a vendor, and their keys.
struct World {
    root_key: TestKey,
    middle_key: TestKey,
    vendor_key: TestKey,
    root: OwnedCertificate,
    middle: OwnedCertificate,
    vendor: OwnedCertificate,
}

const NAME: &str = "MDM Vendor: Example";

impl World {
    fn new() -> Self {
        let (root_key, middle_key, vendor_key) = (
            TestKey::rsa_with(Digest::Sha1),
            TestKey::rsa(),
            TestKey::rsa(),
        );
        // As Apple's: the root signs itself with SHA-1, and others with SHA-256.
        let root = self_signed_with(&root_key, "Root", authority);
        let root_key = TestKey::new(root_key.key, SignatureAlgorithm::Rsa(Digest::Sha256));
        let middle = issued_with(&middle_key, "Middle", &root_key, "Root", authority);
        let vendor = issued_with(&vendor_key, NAME, &middle_key, "Middle", |_| {});
        Self {
            root_key,
            middle_key,
            vendor_key,
            root,
            middle,
            vendor,
        }
    }

    fn check(&self, above: &[&OwnedCertificate]) -> Result<VendorChain, VendorRefusal> {
        self.check_of(&self.vendor, &self.vendor_key, above)
    }

    fn check_of(
        &self,
        vendor: &OwnedCertificate,
        key: &TestKey,
        above: &[&OwnedCertificate],
    ) -> Result<VendorChain, VendorRefusal> {
        let above: Vec<_> = above.iter().map(|one| (*one).clone()).collect();
        VendorChain::check(std::slice::from_ref(vendor), &above, key, now())
    }
}

fn request(key: &TestKey) -> Vec<u8> {
    let subject = name::compose(&[(oid::COMMON_NAME, "customer")]);
    csr::build(&Name::parse(&subject).expect("a name"), key).expect("a request")
}

#[test]
fn what_is_uploaded_has_apples_members_and_openssl_verifies_its_signature() {
    let world = World::new();
    let chain = world.check(&[&world.middle, &world.root]).expect("checked");
    let csr = request(&TestKey::rsa());
    let made = chain.sign(&csr, &world.vendor_key).expect("signed");
    let list = STANDARD.decode(made).expect("base64");

    let fixture = include_bytes!("../../tests/fixtures/apns/push-cert-request.plist");
    let skeleton = |list: &[u8]| {
        let text = String::from_utf8(list.to_vec()).expect("text");
        let lines: Vec<_> = text.lines().map(str::to_owned).collect();
        let strings = |line: &String| line.starts_with('<') || line.starts_with("\t<key>");
        lines.into_iter().filter(strings).collect::<Vec<_>>()
    };
    assert_eq!(skeleton(&list), skeleton(fixture));

    let read: plist::Dictionary = plist::from_bytes(&list).expect("a property list");
    let text = |name: &str| {
        read.get(name)
            .and_then(plist::Value::as_string)
            .expect("text")
    };
    let signed = STANDARD.decode(text("PushCertRequestCSR")).expect("base64");
    assert_eq!(signed, csr);
    let signature = STANDARD.decode(text("PushCertSignature")).expect("base64");
    let stack = openssl::x509::X509::stack_from_pem(text("PushCertCertificateChain").as_bytes());
    let stack = stack.expect("PEM");
    assert_eq!(stack.len(), 3);
    let key = stack[0].public_key().expect("a key");
    let digest = openssl::hash::MessageDigest::sha256();
    let mut verifier = openssl::sign::Verifier::new(digest, &key).expect("a verifier");
    assert!(verifier.verify_oneshot(&signature, &csr).expect("verifies"));
}

#[test]
fn the_vendors_own_certificate_may_stand_in_front_of_the_chain() {
    let world = World::new();
    let chain = world
        .check(&[&world.vendor, &world.middle, &world.root])
        .expect("checked");
    assert_eq!(chain.certificates().len(), 3);
}

#[test]
fn a_chain_that_the_portal_would_refuse_is_refused_here_by_cause() {
    let world = World::new();
    let refusal = |above: &[&OwnedCertificate]| world.check(above).expect_err("refused");
    assert_eq!(refusal(&[]), VendorRefusal::NoChain);
    let cn = |text: &str| {
        let name = name::compose(&[(oid::COMMON_NAME, text)]);
        Name::parse(&name).expect("a name").to_string()
    };
    assert_eq!(
        refusal(&[&world.root, &world.middle]),
        VendorRefusal::Order {
            subject: cn(NAME),
            issuer: cn("Middle"),
            next: cn("Root"),
        }
    );
    assert_eq!(
        refusal(&[&world.middle]),
        VendorRefusal::NoRoot(cn("Middle"))
    );
    assert_eq!(refusal(&[&world.middle; 5]), VendorRefusal::TooLong);
    // The trap: another edition of the intermediate, of the same name.
    let other = issued_with(
        &TestKey::rsa(),
        "Middle",
        &world.root_key,
        "Root",
        authority,
    );
    assert_eq!(
        refusal(&[&other, &world.root]),
        VendorRefusal::NotSigned { subject: cn(NAME) }
    );
    let time = |seconds| Asn1Time::from_unix(seconds).expect("a time");
    let expired = issued_with(
        &world.middle_key,
        "Middle",
        &world.root_key,
        "Root",
        |made| {
            authority(made);
            made.set_not_after(&time(1_799_999_999)).expect("set");
        },
    );
    assert!(matches!(
        refusal(&[&expired, &world.root]),
        VendorRefusal::Expired { subject, .. } if subject == cn("Middle")
    ));
    let early = issued_with(
        &world.middle_key,
        "Middle",
        &world.root_key,
        "Root",
        |made| {
            authority(made);
            made.set_not_before(&time(1_800_000_001)).expect("set");
        },
    );
    assert!(matches!(
        refusal(&[&early, &world.root]),
        VendorRefusal::NotYetValid { .. }
    ));
    let powerless = issued_with(&world.middle_key, "Middle", &world.root_key, "Root", |_| {});
    assert_eq!(
        refusal(&[&powerless, &world.root]),
        VendorRefusal::NoAuthority(cn("Middle"))
    );
    let forged = issued_with(&world.root_key, "Root", &TestKey::rsa(), "Root", authority);
    assert_eq!(
        refusal(&[&world.middle, &forged]),
        VendorRefusal::NotSigned {
            subject: cn("Root")
        }
    );
}

#[test]
fn only_a_vendors_certificate_with_its_key_signs_and_only_an_rsa_request() {
    let world = World::new();
    let above = [&world.middle, &world.root];
    let plain = issued_with(
        &world.vendor_key,
        "Example",
        &world.middle_key,
        "Middle",
        |_| {},
    );
    assert!(matches!(
        world.check_of(&plain, &world.vendor_key, &above),
        Err(VendorRefusal::NotAVendor(_))
    ));
    assert!(matches!(
        world.check_of(&world.vendor, &TestKey::rsa(), &above),
        Err(VendorRefusal::KeyMismatch)
    ));
    let elliptic = TestKey::p256();
    let vendor = issued_with(&elliptic, NAME, &world.middle_key, "Middle", |_| {});
    assert!(matches!(
        world.check_of(&vendor, &elliptic, &above),
        Err(VendorRefusal::NotRsa)
    ));
    let two = [world.vendor.clone(), world.middle.clone()];
    assert!(matches!(
        VendorChain::check(&two, &[], &world.vendor_key, now()),
        Err(VendorRefusal::NotOne)
    ));

    let chain = world.check(&above).expect("checked");
    let sign = |csr: &[u8]| chain.sign(csr, &world.vendor_key).expect_err("refused");
    assert_eq!(sign(&request(&elliptic)), VendorRefusal::RequestKey);
    let mut broken = request(&TestKey::rsa());
    let last = broken.len() - 1;
    broken[last] ^= 1;
    assert_eq!(
        sign(&broken),
        VendorRefusal::Request(PkiError::BadSignature)
    );
    let old = TestKey::new(
        world.vendor_key.key.clone(),
        SignatureAlgorithm::Rsa(Digest::Sha1),
    );
    let csr = request(&TestKey::rsa());
    assert_eq!(chain.sign(&csr, &old), Err(VendorRefusal::NotRsa));
}
