//! An operator looks for Macs, and asks what the matter is with one.

use std::time::Duration;

use attestd_sim::{Mac, MacSpec};
use serde_json::{Value, json};

use crate::harness::provider::Provider;
use crate::harness::scene::{Scene, attestd};

/// What `attestd device` says at the scene's time: its exit status, its words, and its faults.
fn device(scene: &Scene, arguments: &[&str]) -> (Option<i32>, String, String) {
    let (config, at) = (
        scene.config().to_str().expect("a path"),
        scene.now().to_string(),
    );
    let source = ["--config", config, "--insecure-http", "--at", &at];
    let output = attestd(&[&["device"], arguments, &source].concat());
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn json_of(scene: &Scene, arguments: &[&str]) -> Value {
    let (code, said, fault) = device(scene, &[arguments, &["--json"]].concat());
    assert_eq!(code, Some(0), "{fault}");
    serde_json::from_str(&said).expect("JSON")
}

/// The serial numbers of a list.
fn serials(list: &Value) -> Vec<String> {
    let devices = list["devices"].as_array().expect("devices").iter();
    devices
        .map(|mac| {
            mac["serial_number"]
                .as_str()
                .expect("a serial number")
                .to_owned()
        })
        .collect()
}

/// A Mac whose SIP is off.
async fn liar(scene: &Scene) -> (Mac, attestd_sim::Life) {
    let mut spec = MacSpec::random().expect("a Mac");
    spec.boot.sip_enabled = false;
    scene.living_mac(spec).await
}

journey! {
    async fn an_operator_finds_macs_by_verdict_state_and_serial_number_page_by_page(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(3);
        let empty = json_of(&scene, &["list"]);
        assert_eq!(empty, json!({ "devices": [], "next": null }));

        let (good, first) = scene.living_mac(MacSpec::random().expect("a Mac")).await;
        scene.api.verdict(&good.serial(), "affirming").await;
        // Ids that are made within a millisecond have no order.
        scene.pass(Duration::from_secs(1));
        let (bad, second) = liar(&scene).await;
        scene.api.verdict(&bad.serial(), "contraindicated").await;
        scene.pass(Duration::from_secs(1));
        let (gone, third) = scene.living_mac(MacSpec::random().expect("a Mac")).await;
        scene.api.verdict(&gone.serial(), "affirming").await;
        drop((first, second, third));
        gone.remove_profile().await.expect("it leaves");
        let all = [good.serial(), bad.serial(), gone.serial()];

        // Beside the running server, in the order in which they came.
        assert_eq!(serials(&json_of(&scene, &["list"])), all);
        let of = |arguments: &[&str]| serials(&json_of(&scene, &[&["list"], arguments].concat()));
        assert_eq!(of(&["--verdict", "affirming"]), [good.serial()]);
        assert_eq!(of(&["--verdict", "contraindicated"]), [bad.serial()]);
        assert_eq!(of(&["--state", "checked_out"]), [gone.serial()]);
        assert_eq!(of(&["--state", "enrolled", "--verdict", "contraindicated"]), [bad.serial()]);
        assert_eq!(of(&["--serial", &bad.serial()[..9].to_lowercase()]), [bad.serial()]);
        assert!(of(&["--serial", "NOBODY"]).is_empty());

        // Page by page, each Mac once, whether it is looked for by its verdict or not.
        for filter in [&[][..], &["--state", "enrolled", "--verdict", "affirming"], &["--state", "enrolled"]] {
            let (mut after, mut seen) = (None::<String>, Vec::new());
            loop {
                let page = match &after {
                    None => [&["list", "--limit", "1"][..], filter].concat(),
                    Some(after) => [&["list", "--limit", "1", "--after", after][..], filter].concat(),
                };
                let page = json_of(&scene, &page);
                seen.extend(serials(&page));
                match page["next"].as_str() {
                    None => break,
                    Some(next) => after = Some(next.to_owned()),
                }
            }
            assert_eq!(seen, of(filter), "{filter:?}");
        }

        // What a line says is what the coordinator reads.
        let list = json_of(&scene, &["list"]);
        for (line, serial) in list["devices"].as_array().expect("devices").iter().zip(&all) {
            let posture = scene.api.posture(serial).await;
            for name in ["device_id", "verdict", "trust_level", "usable_until", "reasons"] {
                assert_eq!(line[name], posture[name], "{name} of {serial}");
            }
        }
        // A verdict that ended by time alone is found as what it is by then.
        scene.pass(Duration::from_secs(40 * 24 * 3600));
        assert!(of(&["--verdict", "affirming"]).is_empty());
        assert!(of(&["--verdict", "unknown"]).contains(&good.serial()));

        // People read it too.
        let (_, said, _) = device(&scene, &["list", "--limit", "2"]);
        for word in [&good.serial(), "sip_disabled", "more: --after dev_"] {
            assert!(said.contains(word), "{word}: {said}");
        }
        assert!(!said.contains("checked_out"), "{said}");
        assert_eq!(device(&scene, &["list", "--serial", "NOBODY"]).1, "no Mac is so\n");
        for wrong in [&["--verdict", "good"][..], &["--state", "lost"], &["--serial", "%"], &["--limit", "0"], &["--after", "x"]] {
            assert_eq!(device(&scene, &[&["list"], wrong].concat()).0, Some(2), "{wrong:?}");
        }
    }
}

journey! {
    async fn an_operator_reads_the_story_of_a_mac_and_who_acts_next(backend: Backend) {
        let scene = Scene::configured(backend, "[policy]\nname = \"adopted\"\n").await.with_ready_keys(3);
        let provider = Provider::new();
        let mac = scene.honest_mac();
        let request = scene.anybody(reqwest::Method::POST, "/v2/enroll");
        let asked = provider.asks(&scene.base_url, scene.now()).to_string();
        let profile = scene.answer(request.body(asked)).await;
        mac.install_profile(&profile.body).await.expect("enrols");
        // It has not answered anything yet: it was asked, and it is its turn.
        let silent = json_of(&scene, &["show", &mac.serial()]);
        assert_eq!((&silent["device"]["enrolled"], &silent["posture"]["verdict"]), (&json!(true), &json!("unknown")));
        assert_eq!(silent["posture"]["claims"], json!({}));
        let kinds: Vec<_> = silent["asks"].as_array().expect("asks").iter().map(|ask| &ask["kind"]).collect();
        assert_eq!(kinds, ["security_info", "mda"]);

        let life = mac.live();
        scene.api.verdict(&mac.serial(), "affirming").await;
        drop(life);
        let device_id = scene.device_id(&mac).await.to_string();
        let posture = scene.api.posture(&mac.serial()).await;
        for name in [device_id.clone(), mac.serial(), mac.spec().udid.clone()] {
            let story = json_of(&scene, &["show", &name]);
            // When it was last seen the server writes down every few seconds.
            let mut device = scene.api.device(&mac.serial()).await.expect("a device");
            device["last_seen"] = story["device"]["last_seen"].clone();
            assert_eq!(story["device"], device);
            let mut told = story["posture"].clone();
            told["evaluated_at"] = posture["evaluated_at"].clone();
            assert_eq!(told, posture, "no second judgement");
            let steps = story["steps"]["steps"].as_array().expect("steps");
            assert!(steps.iter().all(|step| step["standing"] == "done" && step["at"].is_string()), "{steps:?}");
            assert_eq!(story["verification"]["outcome"], "affirming");
            assert_eq!(story["pushes"]["per_hour"], 2);
            // The provider's software is not there: its owner starts it.
            assert_eq!((&story["why"][0]["reason"], &story["who_acts"]["who"]), (&json!("provider_not_bound"), &json!("owner")));
            assert_eq!(story["why"][0]["text"], story["who_acts"]["text"]);
        }
        let (code, said, _) = device(&scene, &["show", &device_id]);
        assert_eq!(code, Some(0));
        for word in [&device_id, &mac.serial(), "affirming", "apple_signed", "device_reported", "secure_boot#mda", "attestation",
            "No provider session is known for it.", "Who acts next: owner.", "Woken "] {
            assert!(said.contains(word), "{word} is not in {said}");
        }

        let (bad, life) = liar(&scene).await;
        scene.api.verdict(&bad.serial(), "contraindicated").await;
        drop(life);
        let story = json_of(&scene, &["show", &bad.serial()]);
        assert_eq!((&story["why"][0]["reason"], &story["who_acts"]["who"]), (&json!("sip_disabled"), &json!("owner")));
        assert!(story["who_acts"]["text"].as_str().expect("words").contains("csrutil enable"));

        for (name, words) in [
            ("C02NOBODY000", "no Mac has the serial number"),
            ("5B0C1D2E-7F3A-5C41-9A6D-0E1F2A3B4C5D", "no Mac has the UDID"),
            ("dev_01J8ZZZZZZZZZZZZZZZZZZZZZZ", "there is no device"),
            ("nonsense", "neither a device id"),
        ] {
            let (code, said, fault) = device(&scene, &["show", name]);
            assert!(code == Some(1) && said.is_empty() && fault.contains(words), "{name}: {fault}");
        }
    }
}
