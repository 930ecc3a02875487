//! A server takes the place of another, and its Macs go on as if nothing had happened.

use std::time::Duration;

use attestd_sim::certs::{Issuer, fingerprint};
use attestd_sim::keys::KeyKind;
use attestd_sim::mac::messages::idle;
use attestd_sim::{Identity, Mac, MacError, MacSpec, Signing};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use openssl::nid::Nid;
use serde_json::{Value, json};

use crate::harness::inside::eventually;
use crate::harness::keys::rsa;
use crate::harness::public_side::{accepted, refused, told};
use crate::harness::scene::{Scene, attestd};

const DAY_MS: i64 = 86_400_000;

fn former_ca(scene: &Scene) -> Issuer {
    Issuer::root("Former CA", "Former", KeyKind::P256, scene.now().millis()).expect("an authority")
}

/// An identity the former server issued, valid for these days from now.
fn issued(scene: &Scene, ca: &Issuer, name: &str, key: usize, days: i64) -> Identity {
    let now = scene.now().millis();
    let subject = [(Nid::COMMONNAME, name)];
    let ends = now + days * DAY_MS;
    ca.client(&subject, rsa(key), now - 400 * DAY_MS, ends)
        .expect("an identity")
}

/// A Mac that the former server enrolled, and its line in the file.
async fn enrolled_before(scene: &Scene, ca: &Issuer, key: usize) -> (Mac, Value) {
    let mac = scene.honest_mac();
    let profile = scene.deliver("{}").await.profile;
    let identity = issued(scene, ca, &mac.serial(), key, 100);
    let (token, magic) = mac
        .enrolled_before(&profile, identity.clone())
        .expect("a profile");
    let read = mac.profile().expect("a profile");
    let line = json!({
        "udid": mac.udid(),
        "serial_number": mac.serial(),
        "certificate": STANDARD.encode(identity.certificate.to_der().expect("DER")),
        "topic": scene.world.topic(),
        "push_token": hex::encode(token),
        "push_magic": magic,
        "profile_identifier": read.identifier,
        "profile_uuid": read.uuid,
    });
    (mac, line)
}

/// The command on these lines, as an operator runs it: its exit status and what it says.
async fn import(scene: &mut Scene, lines: &[Value], flags: &[&str]) -> (bool, Value) {
    let file = scene.home.path().join("fleet.jsonl");
    let text: Vec<_> = lines.iter().map(ToString::to_string).collect();
    // An empty line is none.
    std::fs::write(&file, text.join("\n\n")).expect("written");
    let alone = scene.ctx().store.backend() == "sqlite";
    if alone {
        scene.stop().await;
    }
    let config = scene.config().to_str().expect("a path").to_owned();
    let file = file.to_str().expect("a path");
    let run = [
        &[
            "import",
            "fleet",
            file,
            "--config",
            &config,
            "--insecure-http",
            "--json",
        ],
        flags,
    ];
    let done = attestd(&run.concat());
    if alone {
        scene.start().await;
    }
    let said: Option<Value> = serde_json::from_slice(&done.stdout).ok();
    assert!(said.is_some(), "{done:?}");
    (done.status.success(), said.unwrap_or_default())
}

/// How a Mac's installation was refused.
fn told_of(outcome: Result<(), MacError>) -> (u16, String) {
    let refusal = outcome.expect_err("a refusal");
    told(refusal.reply().cloned().ok_or(refusal))
}

async fn heard(mac: &Mac) -> (u16, String) {
    told(mac.connect_with(&idle(&mac.spec()), Signing::Own).await)
}

journey! {
    async fn macs_that_only_idle_are_answered_verified_and_judged(backend: Backend) {
        let mut scene = Scene::new(backend).await;
        let ca = former_ca(&scene);
        let mut macs = Vec::new();
        let mut lines = Vec::new();
        for key in 0..3 {
            let (mac, line) = enrolled_before(&scene, &ca, key).await;
            assert_eq!(heard(&mac).await, refused("identity_unknown"));
            macs.push(mac);
            lines.push(line);
        }
        // Every form of an identity: DER, PEM, and nothing but the hash.
        let identity = macs[1].identity().expect("an identity");
        lines[1]["certificate"] = String::from_utf8(identity.certificate_pem().expect("PEM")).expect("text").into();
        let identity = macs[2].identity().expect("an identity");
        let hash = fingerprint(&identity.certificate).expect("a hash");
        let third = lines[2].as_object_mut().expect("an object");
        third.remove("certificate");
        third.insert("certificate_sha256".to_owned(), hash.clone().into());

        let (good, rehearsed) = import(&mut scene, &lines, &["--dry-run"]).await;
        assert!(good, "{rehearsed:#}");
        assert_eq!((&rehearsed["written"], &rehearsed["adopted"]), (&json!(false), &json!(3)));
        assert!(scene.api.device(&macs[0].serial()).await.is_none());

        let (good, done) = import(&mut scene, &lines, &[]).await;
        assert!(good, "{done:#}");
        assert_eq!((&done["written"], &done["adopted"], &done["refused"]), (&json!(true), &json!(3), &json!(0)));
        for mac in &macs {
            let device = scene.api.device(&mac.serial()).await.expect("a device");
            assert_eq!((&device["enrolled"], &device["identity"]["kind"]), (&json!(true), &json!("adopted")));
            assert_eq!(scene.api.posture(&mac.serial()).await["verdict"], "unknown");
        }
        // They never say anything but Idle and answers, and are woken at the address of the file.
        scene.pass(Duration::from_secs(60));
        let lives: Vec<_> = macs.iter().map(Mac::live).collect();
        scene.sweep().await;
        for mac in &macs {
            let posture = scene.api.verdict(&mac.serial(), "affirming").await;
            assert_eq!(posture["channel"], "software");
            let (token, _) = mac.push_address().expect("an address");
            assert!(!scene.world.apns().seen_for(&token).is_empty());
        }
        drop(lives);
        // The certificate that came with the first message says until when it is good.
        let device = scene.api.device(&macs[2].serial()).await.expect("a device");
        let ends = device["identity"]["not_after"].as_str().expect("a time").to_owned();
        assert!(!ends.starts_with("9999"), "{ends}");
        assert!(device["identity"]["sha256"].as_str().is_some_and(|shown| shown.ends_with(&hash)));

        // Once more, and nothing is different.
        let before = scene.api.posture(&macs[0].serial()).await;
        let (good, again) = import(&mut scene, &lines, &[]).await;
        assert!(good, "{again:#}");
        assert_eq!((&again["written"], &again["known"]), (&json!(false), &json!(3)));
        let after = scene.api.posture(&macs[0].serial()).await;
        assert_eq!((&after["verdict"], &after["revision"]), (&before["verdict"], &before["revision"]));
    }
}

journey! {
    async fn one_broken_line_and_nobody_is_adopted(backend: Backend) {
        let mut scene = Scene::new(backend).await;
        let ca = former_ca(&scene);
        let (alice, life) = scene.living_mac(MacSpec::random().expect("a Mac")).await;
        scene.api.verdict(&alice.serial(), "affirming").await;
        drop(life);
        let mut lines = Vec::new();
        for key in 0..7 {
            lines.push(enrolled_before(&scene, &ca, key).await.1);
        }
        let good = lines[0].clone();
        lines[1]["unlock_token"] = "a member nobody documented".into();
        lines[2]["udid"] = good["udid"].clone();
        lines[2]["certificate"] = good["certificate"].clone();
        let ended = issued(&scene, &ca, "ended", 8, -1);
        lines[3]["certificate"] = STANDARD.encode(ended.certificate.to_der().expect("DER")).into();
        lines[4]["topic"] = "com.apple.mgmt.External.00000000-0000-4000-8000-000000000000".into();
        lines[5]["udid"] = alice.udid().into();
        lines[6]["serial_number"] = alice.serial().into();
        let (imported, said) = import(&mut scene, &lines, &[]).await;
        assert!(!imported);
        assert_eq!((&said["written"], &said["adopted"], &said["refused"]), (&json!(false), &json!(1), &json!(6)));
        let faults = |line: usize| {
            let of_line = said["lines"].as_array().expect("a list").iter();
            let found = of_line.filter(|one| one["line"] == 2 * line + 1).collect::<Vec<_>>();
            assert_eq!(found.len(), 1, "{said:#}");
            found[0]["faults"].to_string()
        };
        for (line, expected) in [
            (1, "unlock_token"),
            (2, "line 1 has the same udid"),
            (2, "line 1 has the same certificate"),
            (3, "not valid now"),
            (4, "no push certificate"),
            (5, "enrolled here as"),
            (6, "Apple proved"),
        ] {
            assert!(faults(line).contains(expected), "{line}: {}", faults(line));
        }
        let serial = good["serial_number"].as_str().expect("text");
        assert!(scene.api.device(serial).await.is_none());
        let (imported, said) = import(&mut scene, &lines[..1], &[]).await;
        assert!(imported, "{said:#}");
        assert!(scene.api.device(serial).await.is_some());
        // Adopted once, it is nobody else's.
        let mut other = good.clone();
        other["udid"] = MacSpec::random().expect("a Mac").udid.into();
        other["serial_number"] = Value::Null;
        let (imported, said) = import(&mut scene, &[other], &["--dry-run"]).await;
        assert!(!imported && said.to_string().contains("another Mac"), "{said:#}");
    }
}

journey! {
    async fn an_adopted_mac_renews_into_an_identity_of_this_server(backend: Backend) {
        let mut scene = Scene::new(backend).await.with_ready_keys(1);
        let ca = former_ca(&scene);
        let (mac, line) = enrolled_before(&scene, &ca, 4).await;
        let (good, said) = import(&mut scene, &[line], &[]).await;
        assert!(good, "{said:#}");
        let device_id = scene.api.device_id(&mac.serial()).await;
        scene.pass(Duration::from_secs(60));
        let life = mac.live();
        scene.sweep().await;
        scene.api.verdict(&mac.serial(), "affirming").await;
        drop(life);
        // The owner installs a new profile: Apple's proof says that it is the same Mac.
        mac.enroll(&scene.base_url).await.expect("enrols");
        let _life = mac.live();
        eventually("the new identity is the Mac's", || async {
            let device = scene.api.device(&mac.serial()).await.expect("a device");
            device["identity"]["kind"] == "scep" && device["device_id"] == device_id.as_str()
        }).await;
    }
}

journey! {
    async fn identities_of_an_adopted_authority_may_say_authenticate_and_no_others(backend: Backend) {
        let folder = tempfile::tempdir().expect("a folder");
        let now = attestd::time::Clock::now(&attestd::time::SystemClock).millis();
        let ca = Issuer::root("Former CA", "Former", KeyKind::P256, now).expect("an authority");
        let file = folder.path().join("former.pem");
        std::fs::write(&file, ca.certificate_pem().expect("PEM")).expect("written");
        let pki = format!("[pki]\nadopted_cas = [\"{}\"]\n", file.display());
        let scene = Scene::configured(backend, &pki).await;

        let mac = scene.honest_mac();
        let profile = scene.deliver("{}").await.profile;
        let own = issued(&scene, &ca, &mac.serial(), 0, 100);
        // Idle is not Authenticate: nobody knows for whom it would speak.
        let url = scene.url("/mdm/connect");
        let body = attestd_sim::plist_xml::write(
            &plist::Value::Dictionary(idle(&mac.spec())),
            attestd_sim::plist_xml::PlistStyle::CoreFoundation,
        ).expect("written");
        let early = mac.signed_put(&url, attestd_sim::mac::CONNECT, &body, Signing::By(&own)).await;
        assert_eq!(told(early), refused("identity_unknown"));

        mac.install_profile_with(&profile, own).await.expect("is adopted");
        let device = scene.api.device(&mac.serial()).await.expect("a device");
        assert_eq!(device["identity"]["kind"], "adopted");
        let life = mac.live();
        let posture = scene.api.verdict(&mac.serial(), "affirming").await;
        assert_eq!(posture["channel"], "software");
        drop(life);
        assert_eq!(heard(&mac).await, accepted());

        // Another authority of the same name, one that ended, and a Mac that is known by another.
        let stranger = former_ca(&scene);
        for (identity, reason) in [
            (issued(&scene, &stranger, "stranger", 1, 100), "identity_unknown"),
            (issued(&scene, &ca, "ended", 2, -1), "identity_unknown"),
        ] {
            let newcomer = scene.honest_mac();
            let outcome = newcomer.install_profile_with(&profile, identity).await;
            assert_eq!(told_of(outcome), refused(reason));
        }
        let copy = scene.mac(MacSpec { udid: MacSpec::random().expect("a Mac").udid, ..mac.spec() });
        let other = issued(&scene, &ca, "other", 3, 100);
        copy.install_profile_with(&profile, other).await.expect("is accepted, and contends");
        let path = format!("/internal/v1/devices?serial_number={}", mac.serial());
        let found = scene.api.json(&path).await;
        assert_eq!(found["devices"][1]["contends_with"], found["devices"][0]["device_id"]);
        assert_eq!(found["devices"][0]["udid"], mac.udid());
    }
}

journey! {
    async fn without_an_adopted_authority_a_foreign_identity_is_a_stranger(backend: Backend) {
        let scene = Scene::new(backend).await;
        let ca = former_ca(&scene);
        let mac = scene.honest_mac();
        let profile = scene.deliver("{}").await.profile;
        let outcome = mac.install_profile_with(&profile, issued(&scene, &ca, &mac.serial(), 0, 100)).await;
        assert_eq!(told_of(outcome), refused("identity_unknown"));
        assert!(scene.api.device(&mac.serial()).await.is_none());
    }
}
