//! A provider session begins, is joined to its Mac, or claims one that is another's.

use std::time::Duration;

use attestd_sim::{KeyText, Mac, Provider, ProviderLie};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::inside::eventually;
use crate::harness::plane::{OWNER, Plane};

/// How often a word stands in a list of events.
fn count(told: &[String], word: &str) -> usize {
    told.iter().filter(|one| *one == word).count()
}

fn reasons(binding: &Value) -> Vec<&str> {
    let reasons = binding["reasons"].as_array().expect("a list");
    reasons.iter().filter_map(Value::as_str).collect()
}

/// Registers the Mac's provider and has it answer until its Mac is trusted.
async fn trusted(plane: &Plane, session: &str, provider: &Provider) -> Value {
    let api = &plane.scene.api;
    api.bound(session, provider, Some(OWNER)).await;
    plane
        .once(session, "hardware", |it| it["trust_level"] == "hardware")
        .await;
    api.challenge(session, provider).await;
    let binding = api.binding(session).await;
    assert_eq!(binding["routable"], true, "{binding:#}");
    binding
}

/// The keys that nonces for this Mac ever named.
async fn named(plane: &Plane, mac: &Mac) -> Option<String> {
    let posture = plane.scene.api.posture(&mac.serial()).await;
    posture["freshness"]["se_public_key"]
        .as_str()
        .map(str::to_owned)
}

journey! {
    async fn a_session_that_began_first_is_joined_when_its_mac_enrols(backend: Backend) {
        let plane = Plane::new(backend).await;
        let (scene, api) = (&plane.scene, &plane.scene.api);
        let mac = scene.honest_mac();
        let provider = plane.provider_on(&mac);
        let bound = api.bound("session-1", &provider, Some(OWNER)).await;
        assert_eq!((&bound["device_id"], &bound["posture"]), (&Value::Null, &Value::Null));
        assert_eq!(bound["blob"], json!({ "valid": true, "reasons": [] }));
        assert_eq!((&bound["trust_level"], &bound["se_key_bound"]), (&json!("self_signed"), &json!("none")));
        assert_eq!((&bound["routable"], reasons(&bound)[0]), (&json!(false), "device_not_found"));

        plane.enroll(&mac, Some(OWNER), None).await;
        let life = mac.live();
        let binding = plane.once("session-1", "trusted", |it| it["trust_level"] == "hardware").await;
        assert_eq!((&binding["se_key_bound"], &binding["residence_proved"]), (&json!("bound"), &json!(false)));
        assert_eq!(binding["device_id"], api.device_id(&mac.serial()).await);
        assert_eq!((&binding["routable"], reasons(&binding)), (&json!(false), vec!["challenge_stale"]));
        assert_eq!(named(&plane, &mac).await, Some(provider.public_key().expect("a key")));

        let told = api.challenge("session-1", &provider).await;
        assert_eq!((&told["outcome"], &told["routable"]), (&json!("good"), &json!(true)));
        let binding = api.binding("session-1").await;
        assert_eq!((&binding["routable"], reasons(&binding)), (&json!(true), vec![]));
        let until = scene.now().plus(Duration::from_secs(360)).to_string();
        assert_eq!(binding["routable_until"], until);
        let posture = api.posture(&mac.serial()).await;
        assert_eq!((&posture["trust_level"], &posture["reasons"]), (&json!("hardware"), &json!([])));
        assert_eq!(posture["binding"]["proof"], "account");

        // Nobody need do anything for it to end.
        scene.pass(Duration::from_secs(361));
        let binding = api.binding("session-1").await;
        assert_eq!((&binding["routable"], reasons(&binding)), (&json!(false), vec!["challenge_stale"]));
        assert_eq!((&binding["trust_level"], &binding["routable_until"]), (&json!("hardware"), &Value::Null));
        drop(life);
        let told = plane.told(&mac).await;
        assert_eq!(count(&told, "binding.changed proved"), 1, "{told:?}");
        assert_eq!(count(&told, "binding.changed answered"), 1, "{told:?}");
    }
}

journey! {
    async fn a_ticket_that_names_the_key_binds_it_on_the_day_of_enrolment(backend: Backend) {
        let plane = Plane::new(backend).await;
        let api = &plane.scene.api;
        let mac = plane.scene.honest_mac();
        let mut provider = plane.provider_on(&mac);
        plane.enroll(&mac, None, Some(&provider.public_key().expect("a key"))).await;
        let life = mac.live();
        // Without any account: the key itself is proved. By its other text, too.
        provider.key_text = KeyText::Bytes65;
        let bound = api.bound("s", &provider, None).await;
        assert_eq!((&bound["se_key_bound"], &bound["posture"]["binding"]["proof"]), (&json!("bound"), &json!("ticket")));
        plane.once("s", "hardware", |it| it["trust_level"] == "hardware").await;
        assert_eq!(api.challenge("s", &provider).await["routable"], true);
        drop(life);
    }
}

journey! {
    async fn a_mac_is_found_by_the_key_of_a_session_that_stands_on_it(backend: Backend) {
        let plane = Plane::new(backend).await;
        let api = &plane.scene.api;
        let (mac, life) = plane.mac_of(Some(OWNER)).await;
        let mut provider = plane.provider_on(&mac);
        let find = async |key: &str| {
            let url = reqwest::Url::parse_with_params(
                &format!("{}/internal/v1/devices", api.url), [("se_public_key", key)],
            );
            let path = url.expect("a URL").to_string();
            api.json(path.strip_prefix(&api.url).expect("a path")).await["devices"].clone()
        };
        let short = provider.public_key().expect("a key");
        assert_eq!(find(&short).await, json!([]), "no session yet");
        trusted(&plane, "s", &provider).await;
        let device = api.device(&mac.serial()).await.expect("a device");
        provider.key_text = KeyText::Bytes65;
        let long = provider.public_key().expect("a key");
        // It was given in the one text, and is found by both.
        for key in [&short, &long] {
            assert_eq!(find(key).await[0]["device_id"], device["device_id"]);
            assert_eq!(find(key).await.as_array().expect("a list").len(), 1);
        }
        // Whoever merely claims the Mac is not joined to it.
        let stranger = plane.provider_on(&mac);
        api.bound("stranger", &stranger, Some("acct-stranger")).await;
        assert_eq!(find(&stranger.public_key().expect("a key")).await, json!([]));
        for bad in ["AAAA", "", &"AAAA".repeat(40)] {
            let path = format!("/internal/v1/devices?se_public_key={bad}");
            assert_eq!(api.get(&path).await.status(), 400, "{bad}");
        }
        let both = format!("/internal/v1/devices?serial_number={}&se_public_key=AAAA", mac.serial());
        assert_eq!(api.get(&both).await.status(), 400);
        assert_eq!(api.unbind("s", "").await, 204);
        assert_eq!(find(&short).await, json!([]));
        drop(life);
    }
}

journey! {
    async fn a_stranger_who_copied_a_serial_number_gets_nothing_and_costs_nothing(backend: Backend) {
        let plane = Plane::new(backend).await;
        let (scene, api) = (&plane.scene, &plane.scene.api);
        let (mac, life) = plane.mac_of(Some(OWNER)).await;
        let owner = plane.provider_on(&mac);
        let before = trusted(&plane, "owner", &owner).await;
        drop(life);

        let mut stranger = plane.provider_on(&mac);
        for (session, account) in [("stranger", Some("acct-stranger")), ("nobody", None)] {
            let bound = api.bound(session, &stranger, account).await;
            assert_eq!(bound["trust_level"], "self_signed");
            assert_eq!((&bound["se_key_bound"], &bound["device_id"]), (&json!("none"), &before["device_id"]));
            assert!(reasons(&bound).contains(&"binding_unproved"), "{bound:#}");
            let told = api.challenge(session, &stranger).await;
            assert_eq!((&told["outcome"], &told["routable"]), (&json!("good"), &json!(false)));
        }
        // Again and again, from process after process: one conflict of these two keys.
        for _ in 0..3 {
            stranger.restart().expect("restarts");
            api.bound("stranger", &stranger, Some("acct-stranger")).await;
        }
        // What it says against the Mac is said against itself.
        stranger.truth.sip_enabled = false;
        stranger.restart().expect("restarts");
        let bound = api.bound("stranger", &stranger, Some("acct-stranger")).await;
        assert_eq!(bound["blob"], json!({ "valid": false, "reasons": ["sip_disabled"] }));
        assert_eq!((&bound["trust_level"], reasons(&bound)[0]), (&json!("none"), "sip_disabled"));
        assert_eq!(api.challenge("stranger", &stranger).await["reasons"], json!(["sip_disabled"]));

        assert_eq!(api.binding("owner").await, before);
        let key = owner.public_key().expect("a key");
        let posture = api.posture(&mac.serial()).await;
        assert_eq!((&posture["trust_level"], &posture["binding"]["se_public_key"]), (&json!("hardware"), &json!(key)));
        assert_eq!(named(&plane, &mac).await, Some(key));
        let told = plane.told(&mac).await;
        assert_eq!(count(&told, "binding.conflict"), 1, "{told:?}");
        assert_eq!(count(&told, "binding.changed proved"), 1, "{told:?}");
        // Nor is the Mac asked for anything.
        assert_eq!(scene.kept(&mac).await.verifications.len(), 1);
    }
}

journey! {
    async fn an_account_that_is_absent_is_nobodys(backend: Backend) {
        let plane = Plane::new(backend).await;
        let (mac, life) = plane.mac_of(None).await;
        let provider = plane.provider_on(&mac);
        let bound = plane.scene.api.bound("s", &provider, None).await;
        assert_eq!(bound["se_key_bound"], "none");
        assert!(reasons(&bound).contains(&"binding_unproved"), "{bound:#}");
        drop(life);
    }
}

journey! {
    async fn an_operator_joins_what_nothing_else_proves(backend: Backend) {
        let plane = Plane::new(backend).await;
        let (scene, api) = (&plane.scene, &plane.scene.api);
        let operator = api.with_token(scene.token("operator"));
        let absent = scene.honest_mac();
        api.bound("early", &plane.provider_on(&absent), None).await;
        let approve = |session: &'static str| format!("/internal/v1/bindings/{session}/approve");
        let note = json!({ "reason": "seen on the desk" });
        assert_eq!(api.ask(Method::POST, &approve("early"), &note).await.0, 403);
        assert_eq!(operator.ask(Method::POST, &approve("early"), &note).await.0, 409);
        assert_eq!(operator.ask(Method::POST, &approve("nobody"), &note).await.0, 404);
        assert_eq!(operator.ask(Method::POST, &approve("early"), &json!({ "why": 1 })).await.0, 400);

        let (mac, life) = plane.mac_of(None).await;
        let provider = plane.provider_on(&mac);
        api.bound("s", &provider, None).await;
        let (status, done) = operator.ask(Method::POST, &approve("s"), &note).await;
        assert_eq!((status, done), (200, json!({ "session": "s", "changed": true })));
        assert_eq!(operator.ask(Method::POST, &approve("s"), &note).await.1["changed"], false);
        let posture = api.posture(&mac.serial()).await;
        assert_eq!(posture["binding"]["proof"], "operator");
        assert!(!reasons(&api.binding("s").await).contains(&"binding_unproved"));
        drop(life);
        let events = scene.kept(&mac).await.events;
        let approved = events.iter().find(|it| it.event.body["change"] == "approved");
        assert_eq!(approved.expect("told").event.body["note"], "seen on the desk");

        // A blob that somebody else signed shows nothing that could be approved.
        let mut liar = plane.provider_on(&mac);
        liar.lie = Some(ProviderLie::OtherKey);
        api.bound("liar", &liar, None).await;
        assert_eq!(operator.ask(Method::POST, &approve("liar"), &note).await.0, 409);
    }
}

journey! {
    async fn a_session_is_registered_once_and_stays_with_its_account(backend: Backend) {
        let plane = Plane::new(backend).await;
        let (scene, api) = (&plane.scene, &plane.scene.api);
        let (mac, life) = plane.mac_of(Some(OWNER)).await;
        let mut provider = plane.provider_on(&mac);
        let request = provider.binding_request(Some(OWNER)).expect("a request");
        let (_, first) = api.bind("s", &request).await;
        drop(life);
        api.challenge("s", &provider).await;
        let told = plane.told(&mac).await;
        // Repeated much later, when the blob would be too old: it was taken then.
        scene.pass(Duration::from_secs(240));
        let (status, again) = api.bind("s", &request).await;
        assert_eq!((status, &again["binding_id"], &again["blob"]), (200, &first["binding_id"], &first["blob"]));
        assert_ne!(again["last_good_at"], Value::Null);
        assert_eq!(plane.told(&mac).await, told);

        for account in [Some("acct-other"), None] {
            let taken = provider.binding_request(account).expect("a request");
            let (status, problem) = api.bind("s", &taken).await;
            assert_eq!((status, &problem["type"]), (409, &json!("/problems/binding-mismatch")));
        }
        // The same process signs its words again: the same binding. Another process: another.
        let renewed = api.bound("s", &provider, Some(OWNER)).await;
        assert_eq!((&renewed["binding_id"], &renewed["last_good_at"]), (&first["binding_id"], &again["last_good_at"]));
        provider.restart().expect("restarts");
        let replaced = api.bound("s", &provider, Some(OWNER)).await;
        assert_ne!(replaced["binding_id"], first["binding_id"]);
        assert_eq!(replaced["last_good_at"], Value::Null);

        // It ends for a while, at most two minutes, and goes on where it was.
        api.challenge("s", &provider).await;
        assert_eq!(api.unbind("s", "?resumable_for=9000").await, 204);
        let ended = api.binding("s").await;
        assert_eq!((&ended["routable"], reasons(&ended)[0]), (&json!(false), "provider_not_bound"));
        assert_eq!(ended["resumable_until"], scene.now().plus(Duration::from_secs(120)).to_string());
        assert_eq!(api.posture(&mac.serial()).await["trust_level"], "none");
        let taken = provider.binding_request(Some("acct-other")).expect("a request");
        assert_eq!(api.bind("s", &taken).await.0, 409);
        scene.pass(Duration::from_secs(90));
        let resumed = api.bound("s", &provider, Some(OWNER)).await;
        assert_eq!(resumed["binding_id"], replaced["binding_id"]);
        assert_ne!(resumed["last_good_at"], Value::Null);

        assert_eq!(api.unbind("s", "").await, 204);
        assert_eq!(api.get("/internal/v1/bindings/s").await.status(), 404);
        assert_eq!(api.unbind("s", "").await, 404);
        // Its name is free.
        let other = api.bound("s", &provider, Some("acct-other")).await;
        assert_ne!(other["binding_id"], replaced["binding_id"]);
    }
}

journey! {
    async fn what_a_blob_is_worth_is_said_and_what_no_request_is_is_refused(backend: Backend) {
        let plane = Plane::new(backend).await;
        let (scene, api) = (&plane.scene, &plane.scene.api);
        let mac = scene.honest_mac();
        let honest = plane.provider_on(&mac);
        for (lie, reason) in [
            (ProviderLie::HighS, None),
            (ProviderLie::OtherKey, Some("signature_invalid")),
            (ProviderLie::TrailingByte, Some("signature_invalid")),
            (ProviderLie::ChangedAfterwards, Some("signature_invalid")),
            (ProviderLie::DuplicateMember, Some("answer_malformed")),
        ] {
            let mut liar = plane.provider_on(&mac);
            liar.lie = Some(lie);
            let bound = api.bound("liar", &liar, None).await;
            let expected: Vec<_> = reason.into_iter().collect();
            assert_eq!(bound["blob"], json!({ "valid": reason.is_none(), "reasons": expected }), "{lie:?}");
            let level = if reason.is_none() { "self_signed" } else { "none" };
            assert_eq!(bound["trust_level"], level, "{lie:?}");
        }
        let mut old = plane.provider_on(&mac);
        old.skew_clock(-180_000);
        let bound = api.bound("old", &old, None).await;
        assert_eq!(bound["blob"]["reasons"], json!(["timestamp_out_of_window"]));
        old.truth.provider_version = "0.8.14".to_owned();
        let bound = api.bound("old", &old, None).await;
        assert_eq!(bound["blob"]["valid"], true);

        let request = |name: &str, value: Value| {
            let mut request = honest.binding_request(None).expect("a request");
            request[name] = value;
            request
        };
        let (_, bound) = api.bind("other", &request("claimed_serial_number", json!("FXSYNTH0009"))).await;
        assert_eq!(bound["blob"]["reasons"], json!(["serial_mismatch"]));
        let k = plane.provider_on(&mac);
        let (_, bound) = api.bind("k", &request("encryption_public_key", json!(k.encryption_key()))).await;
        assert_eq!(bound["blob"]["reasons"], json!(["key_mismatch"]));

        for bad in [
            request("more", json!(1)),
            request("se_public_key", json!("AAAA")),
            request("se_public_key", json!(7)),
            request("encryption_public_key", json!("AAAA")),
            request("attestation_raw_b64", json!("not base64")),
            request("account", json!("")),
            request("account", json!("a\nb")),
            request("claimed_serial_number", json!("lower-case")),
            request("provider_version", json!("latest")),
            json!([]),
        ] {
            let (status, problem) = api.bind("bad", &bad).await;
            assert_eq!((status, &problem["type"]), (400, &json!("/problems/invalid-request")), "{bad}");
        }
        let good = honest.binding_request(None).expect("a request").to_string();
        let twice = good.replacen('{', "{\"account\":\"a\",\"account\":\"b\",", 1);
        let put = |body: String| async {
            let request = api.request(Method::PUT, "/internal/v1/bindings/bad").body(body);
            request.send().await.expect("an answer").status().as_u16()
        };
        assert_eq!(put(twice).await, 400);
        assert_eq!(put(format!("{good}{}", " ".repeat(70_000))).await, 413);
        assert_eq!(api.bind("-bad", &honest.binding_request(None).expect("a request")).await.0, 400);
        assert_eq!(api.get("/internal/v1/bindings/bad").await.status(), 404);
        for (role, may) in [("auditor", 403), ("viewer", 403), ("operator", 200)] {
            let api = api.with_token(scene.token(role));
            let request = honest.binding_request(None).expect("a request");
            assert_eq!(api.bind("role", &request).await.0, may, "{role}");
        }
    }
}

journey! {
    async fn the_held_first_attestation_is_let_go_when_a_key_is_proved(backend: Backend) {
        let hold = "[attestation]\nhold = \"24h\"\n";
        let plane = Plane::changed(backend, &[("release = true", "release = false")], hold).await;
        let api = &plane.scene.api;
        let (mac, life) = plane.mac_of(Some(OWNER)).await;
        eventually("SecurityInfo is there", || async {
            api.posture(&mac.serial()).await["claims"]["sip"]["value"] == true
        }).await;
        // Apple has vouched for the identity; nobody was asked for a statement that names a key.
        assert_eq!(named(&plane, &mac).await.as_deref(), Some(""));
        // Its push budget is another matter: it was woken a while ago.
        plane.scene.pass(Duration::from_secs(1800));
        let provider = plane.provider_on(&mac);
        api.bound("s", &provider, Some(OWNER)).await;
        plane.once("s", "named", |it| it["se_key_bound"] == "bound").await;
        assert_eq!(named(&plane, &mac).await, Some(provider.public_key().expect("a key")));
        drop(life);
    }
}

journey! {
    async fn sip_off_in_a_proved_blob_counts_against_the_mac_until_apple_says_otherwise(backend: Backend) {
        let plane = Plane::new(backend).await;
        let (scene, api) = (&plane.scene, &plane.scene.api);
        let (mac, life) = plane.mac_of(Some(OWNER)).await;
        let serial = mac.serial();
        let mut provider = plane.provider_on(&mac);
        trusted(&plane, "s", &provider).await;

        scene.pass(Duration::from_secs(60));
        provider.restart().expect("restarts");
        provider.truth.sip_enabled = false;
        let confession = provider.binding_request(Some(OWNER)).expect("a request");
        let (_, bound) = api.bind("s", &confession).await;
        assert_eq!((&bound["routable"], reasons(&bound)[0]), (&json!(false), "sip_disabled"));
        let posture = api.posture(&serial).await;
        assert_eq!((&posture["verdict"], &posture["reasons"][0]), (&json!("contraindicated"), &json!("sip_disabled")));

        // The client is patched, and says that all is well. Apple would only repeat its old statement
        // for days, so it is not asked, and the one that is known counts no longer.
        provider.restart().expect("restarts");
        provider.truth.sip_enabled = true;
        let bound = api.bound("s", &provider, Some(OWNER)).await;
        assert_eq!((&bound["blob"]["valid"], &bound["trust_level"]), (&json!(true), &json!("self_signed")));
        // Its push budget is another matter: each start of the client may have taken one.
        scene.pass(Duration::from_secs(3600));
        api.verify(&serial, &["security_info", "mda"]).await;
        eventually("the Mac says that all is well, too", || async {
            let posture = api.posture(&serial).await;
            posture["claims"]["sip"]["age"] == "fresh"
        }).await;
        let posture = api.posture(&serial).await;
        assert_eq!(posture["claims"]["sip#mda"]["age"], "voided");
        assert_eq!((&posture["verdict"], &posture["reasons"][0]), (&json!("contraindicated"), &json!("sip_disabled")));
        assert_eq!(api.challenge("s", &provider).await["routable"], false);

        // Remove the profile, enrol again: Apple makes a new statement, for a nonce of now.
        scene.pass(Duration::from_secs(60));
        plane.enroll(&mac, Some(OWNER), None).await;
        let after = plane.once("s", "trusted again", |it| it["trust_level"] == "hardware").await;
        assert_eq!(after["se_key_bound"], "bound", "{after:#}");
        // Blobs are public. Shown again by somebody, that one is history.
        let (_, bound) = api.bind("copy", &confession).await;
        assert_eq!(bound["blob"]["valid"], false);
        assert_eq!(api.posture(&serial).await["verdict"], "affirming");
        scene.pass(Duration::from_secs(120));
        let mut old = confession.clone();
        old["provider_version"] = json!("0.8.14");
        api.bind("copy-2", &old).await;
        assert_eq!(api.posture(&serial).await["verdict"], "affirming");
        drop(life);
    }
}

journey! {
    async fn another_system_has_the_mac_asked_again_and_another_process_alone_does_not(backend: Backend) {
        // Its enrolment may have cost two pushes or one.
        let budget = "[verification]\npushes_per_hour = 60\n";
        let plane = Plane::changed(backend, &[("release = true", "release = false")], budget).await;
        let (scene, api) = (&plane.scene, &plane.scene.api);
        let (mac, life) = plane.mac_of(Some(OWNER)).await;
        let mut provider = plane.provider_on(&mac);
        trusted(&plane, "s", &provider).await;
        let asked = |kept: crate::harness::inside::Kept| kept.verifications.len();
        let before = asked(scene.kept(&mac).await);
        scene.pass(Duration::from_secs(600));
        // A release makes every process a new one: nobody is asked for that.
        provider.restart().expect("restarts");
        api.bound("s", &provider, Some(OWNER)).await;
        scene.sweep().await;
        assert_eq!(asked(scene.kept(&mac).await), before);

        provider.restart().expect("restarts");
        provider.truth.os_version = "Version 26.5 (Build 25F70)".to_owned();
        api.bound("s", &provider, Some(OWNER)).await;
        scene.sweep().await;
        eventually("it is asked", || async { asked(scene.kept(&mac).await) == before + 1 }).await;
        // The same, registered anew with nothing new, asks nobody.
        api.bound("s", &provider, Some(OWNER)).await;
        scene.sweep().await;
        assert_eq!(asked(scene.kept(&mac).await), before + 1);
        drop(life);
    }
}

journey! {
    /// What nothing before App Attest prevents: an owner may have any key named by any Mac of theirs.
    async fn two_macs_of_one_owner_and_one_serial_number(backend: Backend) {
        let plane = Plane::new(backend).await;
        let (scene, api) = (&plane.scene, &plane.scene.api);
        let (clean, life) = plane.mac_of(Some(OWNER)).await;
        let honest = plane.provider_on(&clean);
        let before = trusted(&plane, "clean", &honest).await;

        // While the one on the clean Mac answers, the other's is a conflict and nothing more.
        let dirty = plane.provider_on(&clean);
        let bound = api.bound("dirty", &dirty, Some(OWNER)).await;
        assert!(reasons(&bound).contains(&"binding_unproved"), "{bound:#}");
        assert_eq!(api.binding("clean").await, before);
        assert_eq!(count(&plane.told(&clean).await, "binding.conflict"), 1);

        // When it has gone, nobody can tell them apart. The answer says how little is proved, and
        // Apple names no other key for seven days.
        assert_eq!(api.unbind("clean", "").await, 204);
        let binding = api.binding("dirty").await;
        assert_eq!((&binding["se_key_bound"], &binding["residence_proved"]), (&json!("pending"), &json!(false)));
        assert_ne!(binding["eligible_at"], Value::Null);
        assert_eq!(api.challenge("dirty", &dirty).await["routable"], false);

        // Whoever falls silent without a word is as good as gone.
        scene.pass(Duration::from_secs(400));
        let bound = api.bound("clean-2", &honest, Some(OWNER)).await;
        assert_eq!(bound["se_key_bound"], "bound", "{bound:#}");
        drop(life);
    }
}
