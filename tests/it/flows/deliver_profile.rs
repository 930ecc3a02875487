//! A profile is asked for, and its owner follows how far the enrolment is.

use std::collections::HashSet;
use std::process::Command;
use std::time::Duration;

use attestd_sim::mac::IdentityPayload;
use attestd_sim::scep::ScepError;
use attestd_sim::{Mac, MacError};
use plist::{Dictionary, Value};
use reqwest::Method;

use crate::harness::public_side::step_of;
use crate::harness::scene::Scene;

/// The serial number of the sample requests.
const SERIAL: &str = "C02XL3FHJG5J";

/// What a CMS-signed profile says, its signature verified by OpenSSL down to the server's CA.
async fn content(scene: &Scene, profile: &[u8]) -> Dictionary {
    let authority = scene.anybody(Method::GET, "/scep?operation=GetCACert");
    let authority = scene.answer(authority).await.body;
    let file = |name: &str| scene.home.path().join(name);
    std::fs::write(file("profile.der"), profile).expect("written");
    std::fs::write(file("authority.p7"), authority).expect("written");
    let openssl = |arguments: &[&str]| {
        let run = Command::new("openssl")
            .args(arguments)
            .current_dir(scene.home.path())
            .output();
        let run = run.expect("openssl runs");
        assert!(
            run.status.success(),
            "{}",
            String::from_utf8_lossy(&run.stderr)
        );
        run.stdout
    };
    let roots = openssl(&[
        "pkcs7",
        "-inform",
        "DER",
        "-in",
        "authority.p7",
        "-print_certs",
    ]);
    std::fs::write(file("roots.pem"), roots).expect("written");
    let verify = ["cms", "-verify", "-inform", "DER", "-in", "profile.der"];
    let with = ["-CAfile", "roots.pem", "-purpose", "any"];
    let content = openssl(&[&verify[..], &with].concat());
    let value: Value = plist::from_bytes(&content).expect("a property list");
    value.into_dictionary().expect("a dictionary")
}

fn payload<'a>(profile: &'a Dictionary, kind: &str) -> &'a Dictionary {
    let payloads = profile["PayloadContent"].as_array().expect("payloads");
    let mut payloads = payloads.iter().filter_map(Value::as_dictionary);
    payloads
        .find(|payload| payload["PayloadType"].as_string() == Some(kind))
        .expect("a payload")
}

fn text<'a>(dictionary: &'a Dictionary, key: &str) -> &'a str {
    dictionary.get(key).and_then(Value::as_string).expect(key)
}

/// PayloadUUID and PayloadIdentifier of the profile and of every payload in it.
fn names(profile: &Dictionary) -> Vec<(String, String)> {
    let payloads = profile["PayloadContent"].as_array().expect("payloads");
    let all = payloads
        .iter()
        .filter_map(Value::as_dictionary)
        .chain([profile]);
    all.map(|of| {
        (
            text(of, "PayloadUUID").to_owned(),
            text(of, "PayloadIdentifier").to_owned(),
        )
    })
    .collect()
}

journey! {
    async fn every_request_of_old_clients_gets_a_signed_profile_of_one_shape(backend: Backend) {
        let scene = Scene::new(backend).await;
        let mut challenges = HashSet::new();
        let mut seen = HashSet::new();
        // The sample requests of both historic contracts that are honest in either.
        for (body, name) in [
            ("{\"serial_number\":\"C02XL3FHJG5J\"}", Some(SERIAL)),
            ("{}", None),
            ("{\"serial_number\":\"\"}", None),
            ("", None),
        ] {
            let request = scene.anybody(Method::POST, "/v1/enroll");
            // What a request says of the server's own name is nobody's word but the sender's.
            let request = request
                .header("host", "evil.example")
                .header("forwarded", "host=evil.example;proto=http")
                .header("x-forwarded-host", "evil.example")
                .header("x-forwarded-proto", "gopher")
                .header("x-forwarded-for", "203.0.113.9");
            let answer = scene.answer(request.body(body)).await;
            assert_eq!(answer.status, 200, "{body}");
            assert_eq!(answer.header("content-type"), "application/x-apple-aspen-config");
            assert_eq!(answer.header("cache-control"), "no-store");
            let disposition = answer.header("content-disposition");
            assert!(disposition.starts_with("attachment; filename=\""), "{disposition}");
            assert!(disposition.ends_with(".mobileconfig\""), "{disposition}");
            assert_eq!(disposition.contains(SERIAL), name.is_some(), "{disposition}");
            let link = format!("<{}/v1/enrollments/", scene.base_url);
            assert!(answer.header("link").starts_with(&link));
            assert!(answer.header("link").ends_with(">; rel=\"status\""));

            let profile = content(&scene, &answer.body).await;
            assert_eq!(text(&profile, "PayloadScope"), "System");
            let mdm = payload(&profile, "com.apple.mdm");
            assert_eq!(mdm["AccessRights"].as_unsigned_integer(), Some(1041));
            assert_eq!(mdm["SignMessage"].as_boolean(), Some(true));
            assert_eq!(text(mdm, "Topic"), scene.world.topic());
            assert_eq!(text(mdm, "ServerURL"), scene.url("/mdm/connect"));
            assert_eq!(text(mdm, "CheckInURL"), scene.url("/mdm/checkin"));
            let identity = payload(&profile, "com.apple.security.scep");
            assert_eq!(text(mdm, "IdentityCertificateUUID"), text(identity, "PayloadUUID"));
            let scep = identity["PayloadContent"].as_dictionary().expect("settings");
            assert_eq!(text(scep, "URL"), scene.url("/scep"));
            assert_eq!(scep["Keysize"].as_unsigned_integer(), Some(2048));
            challenges.insert(text(scep, "Challenge").to_owned());

            let names = names(&profile);
            let distinct = |pick: fn(&(String, String)) -> &String| {
                names.iter().map(pick).collect::<HashSet<_>>().len() == names.len()
            };
            assert!(distinct(|name| &name.0) && distinct(|name| &name.1), "{names:?}");
            seen.insert(names);
        }
        assert_eq!(challenges.len(), 4, "every profile has a ticket of its own");
        assert_eq!(seen.len(), 1, "identifiers and UUIDs are constant per server");
    }
}

journey! {
    async fn what_asks_for_no_profile_is_refused_in_the_old_shape(backend: Backend) {
        let mut scene = Scene::new(backend).await;
        let too_large = format!("{{\"serial_number\":\"{}\"}}", "A".repeat(70_000));
        for (body, status, reason) in [
            ("{\"serial_number\":\"c02xl3fhjg5j\"}", 400, "request_malformed"),
            ("{\"serial_number\":\"SHORT\"}", 400, "request_malformed"),
            ("{\"serial_number\":7}", 400, "request_malformed"),
            ("{\"serial_number\":\"C02XL3FHJG5J\",\"serial_number\":\"\"}", 400, "request_malformed"),
            ("{\"challenge\":\"micromdm\"}", 400, "request_malformed"),
            ("[\"C02XL3FHJG5J\"]", 400, "request_malformed"),
            ("{not json", 400, "request_malformed"),
            (too_large.as_str(), 413, "request_too_large"),
        ] {
            let before = scene.refusals("enroll", reason).await;
            let answer = scene.ask_for_profile(body).await;
            assert_eq!(answer.status, status, "{body:.60}");
            assert_eq!(answer.header("content-type"), "application/json");
            let error = answer.json()["error"].clone();
            assert_eq!(error["type"], "invalid_request_error");
            assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()));
            assert_eq!(scene.refusals("enroll", reason).await, before + 1, "{body:.60}");
        }

        scene.stop().await;
        let settings = std::fs::read_to_string(scene.config()).expect("settings");
        let settings = settings.replace("enroll_per_minute = 100000", "enroll_per_minute = 2");
        std::fs::write(scene.config(), settings).expect("written");
        scene.start().await;
        assert_eq!(scene.ask_for_profile("{}").await.status, 200);
        // Whoever claims to be somebody else is still counted as who he is.
        let other = scene.anybody(Method::POST, "/v1/enroll").header("x-forwarded-for", "203.0.113.9");
        assert_eq!(scene.answer(other.body("{}")).await.status, 200);
        let answer = scene.ask_for_profile("{}").await;
        assert_eq!((answer.status, answer.header("retry-after")), (429, "60"));
        assert_eq!(answer.json()["error"]["type"], "rate_limit_error");
    }
}

journey! {
    async fn without_a_push_certificate_no_mac_is_enrolled(backend: Backend) {
        let scene = Scene::without_push_certificate(backend).await;
        let answer = scene.ask_for_profile("{}").await;
        assert_eq!(answer.status, 503);
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(answer.json()["error"]["type"], "service_unavailable");
    }
}

const STEPS: [&str; 8] = [
    "profile",
    "identity",
    "authenticated",
    "enrolled",
    "pushed",
    "security_info",
    "attestation",
    "verdict",
];

/// Asserts that the first `done` steps are done and the others wait.
async fn assert_done(scene: &Scene, progress_id: &str, done: usize) {
    let progress = scene.progress(progress_id).await;
    let standing = |step: &str| step_of(&progress, step)["standing"].clone();
    for (index, step) in STEPS.iter().enumerate() {
        let expected = if index < done { "done" } else { "waiting" };
        assert_eq!(standing(step), expected, "{step}: {progress:#}");
    }
    assert_eq!(
        progress["state"],
        if done == STEPS.len() {
            "done"
        } else {
            "waiting"
        }
    );
}

journey! {
    async fn the_owner_sees_every_step_as_it_happens(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(1);
        let mac = scene.honest_mac();
        let delivered = scene.deliver_for(&mac.serial()).await;
        let progress_id = &delivered.progress_id;
        assert_done(&scene, progress_id, 1).await;

        let profile = mac.read_profile(&delivered.profile).expect("a profile");
        let identity = mac.identity_for(&profile).await.expect("an identity");
        assert_done(&scene, progress_id, 2).await;

        mac.change(|spec| spec.aborts_after_authenticate = true);
        let rolled_back = mac.install_profile_with(&delivered.profile, identity.clone()).await;
        assert!(matches!(rolled_back, Err(MacError::RolledBack)));
        assert_done(&scene, progress_id, 3).await;

        mac.change(|spec| spec.aborts_after_authenticate = false);
        mac.install_profile_with(&delivered.profile, identity).await.expect("installed");
        assert_eq!(scene.step(progress_id, "enrolled").await["standing"], "done");

        let _life = mac.live();
        scene.api.verdict(&mac.serial(), "affirming").await;
        assert_done(&scene, progress_id, 8).await;
        // Whoever has the link sees steps, not the Mac.
        let shown = scene.progress(progress_id).await.to_string();
        assert!(!shown.contains(&mac.serial()) && !shown.contains(&mac.udid()));
    }
}

/// Tries to enrol with `challenge` in place of the profile's own.
async fn identity_with(mac: &Mac, profile: &[u8], challenge: &str) -> Result<(), MacError> {
    let mut profile = mac.read_profile(profile)?;
    if let IdentityPayload::Scep(settings) = &mut profile.identity {
        settings.challenge = Some(challenge.to_owned());
    }
    mac.identity_for(&profile).await.map(|_| ())
}

journey! {
    async fn the_link_to_the_progress_authorises_nothing_and_outlives_the_ticket(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(1);
        let mac = scene.honest_mac();
        let delivered = scene.deliver_for(&mac.serial()).await;
        let outcome = identity_with(&mac, &delivered.profile, &delivered.progress_id).await;
        let is_refused = matches!(
            &outcome,
            Err(MacError::Scep(ScepError::Refused { fail_info })) if fail_info == "2"
        );
        assert!(is_refused, "{outcome:?}");
        assert_eq!(scene.refusals("scep", "ticket_unknown").await, 1);
        assert_done(&scene, &delivered.progress_id, 1).await;

        scene.pass(Duration::from_secs(3601));
        let step = scene.step(&delivered.progress_id, "identity").await;
        assert_eq!((&step["standing"], &step["reason"]), (&"refused".into(), &"ticket_expired".into()));
        assert!(step["remedy"].as_str().is_some_and(|remedy| remedy.contains("Download a new one")));
        assert_eq!(step["who"], "owner");

        for unknown in ["AAAAAAAAAAAAAAAAAAAAAA", "x", "%00", "..%2f..%2fmetrics"] {
            let path = format!("/v1/enrollments/{unknown}");
            let answer = scene.answer(scene.anybody(Method::GET, &path)).await;
            assert_eq!(answer.status, 404, "{unknown}");
        }
    }
}
