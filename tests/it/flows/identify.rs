//! Who sent this message? Every form of a Mac's signature, and everything that is none.
//!
//! RSA only: Macs get no other identity by SCEP. ECDSA signatures with P-256 and P-384 are covered
//! by the vectors of the unit tests beside `pki::cms::signed_data`.

use std::time::Duration;

use attestd::reason::Reason;
use attestd::time::Timestamp;
use attestd_sim::cms::{SignatureDigest, SignatureStyle, mdm_signature, signed_data};
use attestd_sim::der::{read, sequence, tlv};
use attestd_sim::mac::messages::{check_out, idle, token_update};
use attestd_sim::plist_xml::{PlistStyle, write};
use attestd_sim::{Identity, Mac, MacSpec, Signing};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use plist::Value;
use serde_json::{Value as Json, json};

use crate::harness::inside::eventually;
use crate::harness::keys::rsa;
use crate::harness::public_side::{accepted, refused, told};
use crate::harness::scene::Scene;

const REPORT: &str = "application/x-apple-aspen-mdm";
const CHECK_IN: &str = "application/x-apple-aspen-mdm-checkin";

fn bytes(body: plist::Dictionary) -> Vec<u8> {
    write(&Value::Dictionary(body), PlistStyle::CoreFoundation).expect("written")
}

fn every_style(now: i64) -> Vec<SignatureStyle> {
    let mut styles = Vec::new();
    for digest in [SignatureDigest::Sha1, SignatureDigest::Sha256] {
        for indefinite in [true, false] {
            for signing_time in [None, Some(now)] {
                for names_digest_in_algorithm in [false, true] {
                    styles.push(SignatureStyle {
                        indefinite,
                        digest,
                        signing_time,
                        names_digest_in_algorithm,
                        ..SignatureStyle::default()
                    });
                }
            }
        }
    }
    styles
}

/// What must be the same before and after a refusal. When the Mac was heard last is part of it; the
/// reasons are not: they name what was refused in the Mac's name.
async fn state(scene: &Scene, serial: &str) -> (Json, Json) {
    let mut posture = scene.api.posture(serial).await;
    for moving in ["evaluated_at", "reasons", "next_action"] {
        posture.as_object_mut().expect("an object").remove(moving);
    }
    (posture, scene.api.device(serial).await.expect("a device"))
}

journey! {
    async fn every_form_in_which_macs_sign_is_accepted(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(1);
        let mac = scene.honest_mac();
        mac.enroll(&scene.base_url).await.expect("enrols");
        let identity = mac.identity().expect("an identity");
        let styles = every_style(scene.now().millis() / 1000);
        assert_eq!(styles.len(), 16);
        for style in &styles {
            // TokenUpdate, because a report could be answered with a command.
            let (token, magic) = mac.push_address().expect("an address");
            let update = token_update(&mac.spec(), scene.world.topic(), &token, &magic);
            let signing = Signing::ByInStyle(&identity, style);
            assert_eq!(told(mac.check_in(&update, signing).await), accepted(), "{style:?}");
        }
        // Base64 as MIME breaks it, and the same body by either content type's URL.
        let body = bytes(idle(&mac.spec()));
        let header = mdm_signature(&identity, &body, &SignatureStyle::default()).expect("signed");
        let spaced = header.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("text"));
        let spaced = spaced.collect::<Vec<_>>().join(" ");
        for path in ["/mdm/connect", "/mdm/checkin"] {
            for kind in [REPORT, "application/x-apple-aspen-mdm; charset=UTF-8"] {
                let url = scene.url(path);
                let answer = mac.signed_put(&url, kind, &body, Signing::Header(&spaced)).await;
                assert_eq!(answer.expect("an answer").status, 200, "{path} {kind}");
            }
        }
        assert_eq!(scene.refusals("connect", "signature_invalid").await, 0);
    }
}

/// A SignedData with the SignerInfo given twice.
fn with_two_signers(identity: &Identity, body: &[u8]) -> String {
    let made = signed_data(identity, body, &SignatureStyle::sha256_der()).expect("signed");
    let (content_info, _) = read(&made).expect("DER");
    let parts = content_info.children().expect("parts");
    let signed = parts[1].children().expect("SignedData").remove(0);
    let fields = signed.children().expect("fields");
    let (signers, others) = fields.split_last().expect("signerInfos");
    let doubled = tlv(0x31, &[signers.contents, signers.contents].concat());
    let others: Vec<u8> = others
        .iter()
        .flat_map(|field| field.whole.to_vec())
        .collect();
    let signed = sequence(&[&others, &doubled]);
    STANDARD.encode(sequence(&[parts[0].whole, &tlv(0xa0, &signed)]))
}

/// Mdm-Signature headers that must not be accepted for `body`, and why.
fn forgeries(
    mac: &Mac,
    other: &Mac,
    body: &[u8],
    now_ms: i64,
) -> Vec<(&'static str, Option<String>, &'static str)> {
    let own = mac.identity().expect("an identity");
    let other = other.identity().expect("an identity");
    let good = mdm_signature(&own, body, &SignatureStyle::default()).expect("signed");
    let sign = |by: &Identity, over: &[u8], style: SignatureStyle| {
        Some(mdm_signature(by, over, &style).expect("signed"))
    };
    let style = SignatureStyle::sha256_der;
    let attributes = SignatureStyle {
        signing_time: Some(now_ms / 1000),
        ..style()
    };
    let attached = SignatureStyle {
        attached: Some(b"another body".to_vec()),
        ..style()
    };
    let same = SignatureStyle {
        attached: Some(body.to_vec()),
        ..style()
    };
    let bare = SignatureStyle {
        with_certificate: false,
        ..style()
    };
    let self_signed = Identity::self_signed_with(rsa(3), &mac.serial(), now_ms).expect("made");
    let mut foreign = Identity::from_foreign_ca(&mac.serial(), Default::default(), now_ms);
    // The Mac's own certificate under a key that is not its own.
    let stolen = Identity {
        key: rsa(3),
        certificate: own.certificate.clone(),
    };
    let mut damaged = STANDARD.decode(&good).expect("base64");
    let last = damaged.len() - 10;
    damaged[last] ^= 1;
    let invalid = "signature_invalid";
    vec![
        ("none", None, invalid),
        ("empty", Some(String::new()), invalid),
        (
            "no base64",
            Some("-----BEGIN PKCS7-----".to_owned()),
            invalid,
        ),
        (
            "the other base64",
            Some(URL_SAFE.encode([0xfb_u8; 30])),
            invalid,
        ),
        ("rubbish", Some(STANDARD.encode([0x30_u8; 300])), invalid),
        (
            "endless",
            Some(STANDARD.encode([0x30_u8, 0x80].repeat(2000))),
            invalid,
        ),
        ("20 KB", Some("A".repeat(20_000)), invalid),
        (
            "truncated",
            Some(good[..good.len() / 8 * 4].to_owned()),
            invalid,
        ),
        ("damaged", Some(STANDARD.encode(damaged)), invalid),
        (
            "over another body",
            sign(&own, b"another body", style()),
            invalid,
        ),
        (
            "over another body, with attributes",
            sign(&own, b"another body", attributes),
            invalid,
        ),
        (
            "over an attached other body",
            sign(&own, body, attached),
            invalid,
        ),
        ("with the body attached", sign(&own, body, same), invalid),
        ("without a certificate", sign(&own, body, bare), invalid),
        ("by another key", sign(&stolen, body, style()), invalid),
        ("two signers", Some(with_two_signers(&own, body)), invalid),
        (
            "self-signed",
            sign(&self_signed, body, style()),
            "identity_mismatch",
        ),
        (
            "by a foreign authority",
            sign(foreign.as_mut().expect("made"), body, style()),
            "identity_mismatch",
        ),
        (
            "by another Mac",
            sign(&other, body, style()),
            "identity_mismatch",
        ),
    ]
}

journey! {
    async fn what_is_not_signed_by_the_mac_itself_changes_nothing(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(2);
        let (mac, life) = scene.living_mac(MacSpec::random().expect("a Mac")).await;
        let other = scene.honest_mac();
        other.enroll(&scene.base_url).await.expect("enrols");
        let serial = mac.serial();
        scene.api.verdict(&serial, "affirming").await;
        drop(life);

        let before = state(&scene, &serial).await;
        let goodbye = bytes(check_out(&mac.spec(), scene.world.topic()));
        for (surface, kind, path, body) in [
            ("connect", REPORT, "/mdm/connect", bytes(idle(&mac.spec()))),
            ("check_in", CHECK_IN, "/mdm/checkin", goodbye),
        ] {
            for (what, header, reason) in forgeries(&mac, &other, &body, scene.now().millis()) {
                let counted = scene.refusals(surface, reason).await;
                let signing = header.as_deref().map_or(Signing::Unsigned, Signing::Header);
                let answer = told(mac.signed_put(&scene.url(path), kind, &body, signing).await);
                assert_eq!(answer, refused(reason), "{what}");
                assert_eq!(scene.refusals(surface, reason).await, counted + 1, "{what}");
            }
        }
        assert_eq!(state(&scene, &serial).await, before);
        assert_eq!(before.0["verdict"], "affirming");
        assert_eq!(before.1["enrolled"], true);

        // A body that names nobody, or nobody known: the signer is unknown, not a mismatch.
        let stranger = Identity::self_signed_with(rsa(3), "x", scene.now().millis()).expect("made");
        let nobody = b"<plist version=\"1.0\"><dict/></plist>".to_vec();
        let unheard_of = bytes(idle(&MacSpec::random().expect("a Mac")));
        let url = scene.url("/mdm/connect");
        let signing = Signing::By(&stranger);
        for body in [nobody, unheard_of] {
            let answer = told(mac.signed_put(&url, REPORT, &body, signing).await);
            assert_eq!(answer, refused("identity_unknown"));
        }
        assert_eq!(scene.refusals("connect", "identity_unknown").await, 2);

        // The Mac itself is still heard.
        assert_eq!(mac.connect().await.expect("a session").answered, 0);
    }
}

/// Waits until a refusal is kept.
async fn audited(scene: &Scene, reason: Reason, times: u64) {
    eventually(reason.code(), async || {
        let tx = scene.ctx().store.read().await.expect("a store");
        let counts = tx
            .refusal_counts(Timestamp::from_millis(0))
            .await
            .expect("counts");
        counts.contains(&(reason, times))
    })
    .await;
}

journey! {
    async fn nobody_else_writes_the_reasons_of_a_mac(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(1);
        let mac = scene.honest_mac();
        mac.enroll(&scene.base_url).await.expect("enrols");
        let serial = mac.serial();
        let reasons = async || scene.api.posture(&serial).await["reasons"].clone();
        let shown = async |reason: &str| {
            reasons().await.as_array().expect("a list").contains(&json!(reason))
        };
        let body = bytes(idle(&mac.spec()));
        let own = mac.identity().expect("an identity");
        let over_another = mdm_signature(&own, b"x", &SignatureStyle::default()).expect("signed");
        let url = scene.url("/mdm/connect");

        // While an attempt is under way: what anyone can send in anyone's name, or what a wire tap
        // can send again, is not the Mac's doing.
        let before = reasons().await;
        for header in [None, Some("AAAA"), Some(over_another.as_str())] {
            let signing = header.map_or(Signing::Unsigned, Signing::Header);
            let answer = told(mac.signed_put(&url, REPORT, &body, signing).await);
            assert_eq!(answer, refused("signature_invalid"));
        }
        audited(&scene, Reason::SignatureInvalid, 3).await;
        let tx = scene.ctx().store.read().await.expect("a store");
        let device_id = scene.device_id(&mac).await;
        let lines = tx.refusals_of(&device_id, Timestamp::from_millis(0), 10).await.expect("lines");
        assert_eq!(lines, []);
        drop(tx);
        assert_eq!(reasons().await, before);

        // A well-formed message in its name says that somebody uses its name.
        let stranger = Identity::self_signed_with(rsa(3), "x", scene.now().millis()).expect("made");
        let mismatch = async || {
            let signing = Signing::By(&stranger);
            let answer = told(mac.signed_put(&url, REPORT, &body, signing).await);
            assert_eq!(answer, refused("identity_mismatch"));
        };
        mismatch().await;
        audited(&scene, Reason::IdentityMismatch, 1).await;
        assert!(shown("identity_mismatch").await);

        // The next attempt begins without it, and what comes once it has ended is no part of it.
        mac.connect().await.expect("a session");
        scene.pass(Duration::from_secs(120));
        scene.api.verify(&serial, &["security_info"]).await;
        assert!(!shown("identity_mismatch").await);
        mac.replay(&mac.exchanges()[0]).await.expect("an answer");
        audited(&scene, Reason::AnswerUnsolicited, 1).await;
        assert!(!shown("answer_unsolicited").await);
        mac.connect().await.expect("a session");
        scene.pass(Duration::from_secs(120));
        mismatch().await;
        audited(&scene, Reason::IdentityMismatch, 2).await;
        assert!(!shown("identity_mismatch").await);
    }
}

journey! {
    async fn an_identity_counts_only_while_it_is_valid(backend: Backend) {
        let lifetime = "[enrollment]\nidentity_lifetime = \"1d\"\n";
        let scene = Scene::configured(backend, lifetime).await.with_ready_keys(1);
        let mac = scene.honest_mac();
        mac.enroll(&scene.base_url).await.expect("enrols");
        let serial = mac.serial();
        scene.pass(Duration::from_secs(86_400 - 60));
        assert_eq!(mac.connect_with(&idle(&mac.spec()), Signing::Own).await.expect("heard").status, 200);
        scene.pass(Duration::from_secs(120));
        let before = state(&scene, &serial).await;
        let answer = told(mac.connect_with(&idle(&mac.spec()), Signing::Own).await);
        assert_eq!(answer, refused("identity_expired"));
        let goodbye = check_out(&mac.spec(), scene.world.topic());
        assert_eq!(told(mac.check_in(&goodbye, Signing::Own).await), refused("identity_expired"));
        for surface in ["connect", "check_in"] {
            assert_eq!(scene.refusals(surface, "identity_expired").await, 1);
        }
        assert_eq!(state(&scene, &serial).await, before);

        // A new profile brings it back.
        mac.enroll(&scene.base_url).await.expect("enrols again");
        assert_eq!(state(&scene, &serial).await.1["enrolled"], json!(true));
    }
}

journey! {
    async fn an_expired_identity_is_refused_and_owner_and_operator_read_why(backend: Backend) {
        let scene = Scene::configured(backend, "[enrollment]\nidentity_lifetime = \"90d\"\n").await;
        let mac = scene.honest_mac();
        let delivered = scene.deliver_for(&mac.serial()).await;
        mac.install_profile(&delivered.profile).await.expect("enrols");
        let serial = mac.serial();
        let shown = async || {
            let device = scene.api.device(&serial).await.expect("a device");
            let status = scene.api.json("/internal/v1/status").await;
            (device["identity"]["state"].clone(), status["identities"].clone())
        };
        assert_eq!(shown().await, (json!("valid"), json!({ "expired": 0, "expiring": 0 })));
        scene.pass(Duration::from_secs(40 * 86_400));
        assert_eq!(shown().await, (json!("valid"), json!({ "expired": 0, "expiring": 1 })));
        let life = mac.live();
        scene.api.verify(&serial, &["security_info", "mda"]).await;
        let posture = scene.api.verdict(&serial, "affirming").await;
        drop(life);
        // Nothing that hangs on asking this Mac again is promised for longer than it is heard.
        let ends = scene.api.device(&serial).await.expect("a device")["identity"]["not_after"].clone();
        assert!(posture["usable_until"].as_str() < ends.as_str());

        scene.pass(Duration::from_secs(50 * 86_400) - Duration::from_secs(600));
        let life = mac.live();
        scene.api.verify(&serial, &["security_info", "mda"]).await;
        let last = async || scene.api.posture(&serial).await;
        eventually("it is affirmed until its identity ends", || async {
            last().await["usable_until"] == ends
        }).await;
        drop(life);

        scene.pass(Duration::from_secs(660));
        let before = scene.refusals("connect", "identity_expired").await;
        let answer = mac.connect_with(&idle(&mac.spec()), Signing::Own).await;
        assert_eq!(told(answer), refused("identity_expired"));
        assert_eq!(scene.refusals("connect", "identity_expired").await, before + 1);
        let posture = last().await;
        assert_eq!((&posture["verdict"], &posture["reasons"][0]), (&json!("unknown"), &json!("identity_expired")));
        assert_eq!((&posture["next_action"]["who"], &posture["next_action"]["code"]), (&json!("owner"), &json!("identity_expired")));
        assert_eq!(shown().await, (json!("identity_expired"), json!({ "expired": 1, "expiring": 0 })));
        assert_eq!(scene.counted("attestd_identities_expired", &[]).await, 1);
        let step = scene.step(&delivered.progress_id, "identity").await;
        assert_eq!((&step["standing"], &step["reason"], &step["at"]), (&json!("refused"), &json!("identity_expired"), &ends));
        assert!(step["remedy"].as_str().is_some_and(|remedy| remedy.contains("new enrollment profile")));

        // The remedy works: a new profile, and Apple's proof that it is the same Mac.
        mac.enroll(&scene.base_url).await.expect("enrols");
        let _life = mac.live();
        scene.api.verdict(&serial, "affirming").await;
        assert_eq!(shown().await.0, json!("valid"));
    }
}
