//! Pure work on one thread: chains and message signatures against the bare verifications in them.

use std::hint::black_box;
use std::time::{Duration, Instant};

use attestd::attestation::{Anchors, Evidence, verify};
use attestd::mdm::signature;
use attestd::pki::cms::{self, SignedData};
use attestd::pki::{Certificate, KnownIntermediates};
use attestd::time::Timestamp;
use attestd_sim::MacSpec;
use attestd_sim::apple::AttestationAuthority;
use attestd_sim::certs::Identity;
use attestd_sim::cms::{SignatureStyle, mdm_signature};
use attestd_sim::keys::{KeyKind, generate};
use aws_lc_rs::signature::{ECDSA_P384_SHA384_ASN1, UnparsedPublicKey};
use openssl::hash::MessageDigest;
use openssl::sign::{Signer, Verifier};

use super::report::Report;

const ROUNDS: usize = 9;
const SLICE: Duration = Duration::from_millis(60);

/// The yardstick: microseconds of one bare RSA-2048 verification with a key kept.
#[derive(Debug, Clone, Copy)]
pub struct Yardstick(pub f64);

/// CPU time of this thread: what a busy machine does not stretch.
fn thread_cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let nanoseconds = stat.split(' ').next().and_then(|text| text.parse().ok());
    Duration::from_nanos(nanoseconds.expect("nanoseconds"))
}

/// Median microseconds of CPU of each work, the works interleaved so that a drifting machine moves all.
pub(super) fn medians(works: &mut [(&str, &mut dyn FnMut())]) -> Vec<f64> {
    let mut samples = vec![Vec::new(); works.len()];
    for _ in 0..ROUNDS {
        for (work, samples) in works.iter_mut().zip(&mut samples) {
            let (started, cpu) = (Instant::now(), thread_cpu());
            let mut count = 0_u32;
            while started.elapsed() < SLICE {
                (work.1)();
                count += 1;
            }
            samples.push((thread_cpu() - cpu).as_secs_f64() * 1e6 / f64::from(count));
        }
    }
    samples
        .into_iter()
        .map(|mut samples| {
            samples.sort_by(f64::total_cmp);
            samples[samples.len() / 2]
        })
        .collect()
}

pub fn run(report: &mut Report) -> Yardstick {
    let now_ms = 1_790_847_007_000;
    let body = b"<plist><dict><key>Status</key><string>Idle</string></dict></plist>".repeat(4);

    // One bare RSA-2048 verification, OpenSSL, key kept.
    let identity = Identity::self_signed("bench", KeyKind::Rsa2048, now_ms).expect("identity");
    let public = identity.certificate.public_key().expect("key");
    let mut signer = Signer::new(MessageDigest::sha1(), &identity.key).expect("signer");
    let rsa_signature = signer.sign_oneshot_to_vec(&body).expect("signature");
    let mut openssl_rsa = || {
        let mut verifier = Verifier::new(MessageDigest::sha1(), &public).expect("verifier");
        assert!(
            verifier
                .verify_oneshot(&rsa_signature, &body)
                .expect("verified")
        );
    };

    // The same verification in the library the service uses.
    let spki_der = public.public_key_to_der().expect("key");
    let key = attestd::pki::PublicKey::parse(&spki_der).expect("key");
    let rsa = UnparsedPublicKey::new(
        &aws_lc_rs::signature::RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY,
        key.bits(),
    );
    let mut bare_rsa = || rsa.verify(&body, &rsa_signature).expect("verified");

    // An Mdm-Signature as Macs send it, with the look-up of the signer by hash.
    let headers = [SignatureStyle::default(), SignatureStyle::sha256_der()]
        .map(|style| mdm_signature(&identity, &body, &style).expect("signature"));
    let roster: std::collections::HashSet<_> =
        [
            Certificate::parse(&identity.certificate.to_der().expect("der"))
                .expect("certificate")
                .hash(),
        ]
        .into();
    let check = |header: &str| {
        let message = signature::decode(header.as_bytes()).expect("base64");
        let der = cms::read(&message, signature::MAX_MESSAGE).expect("CMS");
        let signed = SignedData::parse(&der).expect("SignedData");
        assert!(roster.contains(&signed.signer().hash()));
        signed.require_detached().expect("detached");
        signed.verify(&body).expect("verified");
    };
    let mut mdm_ber = || check(&headers[0]);
    let mut mdm_der = || check(&headers[1]);

    // One bare P-384 verification.
    let authority = AttestationAuthority::new().expect("authority");
    let nonce = [7; 32];
    let state = MacSpec::random().expect("a Mac").attested_state();
    let attested_key = generate(KeyKind::P384).expect("key");
    let chain = authority
        .attest(&state, &attested_key, Some(&nonce), now_ms)
        .expect("chain");
    let certificates = vec![chain.leaf, chain.intermediate];
    let leaf = Certificate::parse(&certificates[0]).expect("leaf");
    let sub_ca = Certificate::parse(&certificates[1]).expect("sub CA");
    let sub_ca_key = sub_ca.public_key().expect("key");
    let leaf_x509 = openssl::x509::X509::from_der(&certificates[0]).expect("leaf");
    let p384 = UnparsedPublicKey::new(&ECDSA_P384_SHA384_ASN1, sub_ca_key.bits());
    let p384_signature = leaf_x509.signature().as_slice().to_vec();
    let mut bare_p384 = || p384.verify(leaf.tbs(), &p384_signature).expect("verified");

    let anchors = Anchors::custom(&authority.root_pem().expect("root")).expect("anchors");
    let evidence = Evidence {
        certificates: certificates.clone(),
    };
    let at = Timestamp::from_millis(now_ms + 1000);
    let mut mda_new = || {
        let known = KnownIntermediates::default();
        black_box(verify(&evidence, &anchors, &known, at).expect("verified"));
    };
    let known = KnownIntermediates::default();
    verify(&evidence, &anchors, &known, at).expect("verified");
    let mut mda_seen = || {
        black_box(verify(&evidence, &anchors, &known, at).expect("verified"));
    };

    let figures = medians(&mut [
        ("openssl rsa", &mut openssl_rsa),
        ("bare rsa", &mut bare_rsa),
        ("mdm ber", &mut mdm_ber),
        ("mdm der", &mut mdm_der),
        ("bare p384", &mut bare_p384),
        ("mda new", &mut mda_new),
        ("mda seen", &mut mda_seen),
    ]);
    let [
        openssl_rsa,
        bare_rsa,
        mdm_ber,
        mdm_der,
        bare_p384,
        mda_new,
        mda_seen,
    ] = figures[..]
    else {
        panic!("one figure per work");
    };
    report.figure("R: RSA-2048 verification, OpenSSL, key kept", openssl_rsa);
    report.figure("RSA-2048 verification, aws-lc-rs (V)", bare_rsa);
    report.held(
        "Mdm-Signature (BER, SHA-1) and look-up",
        mdm_ber,
        bare_rsa,
        "V",
        2.0,
    );
    report.held(
        "Mdm-Signature (DER, SHA-256) and look-up",
        mdm_der,
        bare_rsa,
        "V",
        2.0,
    );
    report.figure("P-384 verification, aws-lc-rs (E)", bare_p384);
    report.held(
        "MDA chain, intermediate new",
        mda_new,
        2.0 * bare_p384,
        "x 2 E",
        1.15,
    );
    report.held(
        "MDA chain, intermediate seen",
        mda_seen,
        bare_p384,
        "E",
        1.15,
    );
    Yardstick(openssl_rsa)
}
