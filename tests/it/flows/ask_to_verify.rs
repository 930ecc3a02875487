//! An operator at the command line wants fresh evidence of a Mac, beside a running server.

use std::time::Duration;

use attestd_sim::MacSpec;
use serde_json::{Value, json};

use crate::harness::inside::eventually;
use crate::harness::scene::{Scene, attestd};

/// A Mac that was woken is not woken again before one has passed.
const MINUTE: Duration = Duration::from_secs(60);

/// What `attestd device verify` says: its exit status, its words, and its faults.
async fn verify(scene: &Scene, arguments: &[&str]) -> (Option<i32>, String, String) {
    let config = scene.config().to_str().expect("a path").to_owned();
    let arguments: Vec<String> = arguments.iter().map(|&word| word.to_owned()).collect();
    // The server and its Macs live on in this process while the command waits.
    let output = tokio::task::spawn_blocking(move || {
        let mut words = vec!["device", "verify", "--insecure-http", "--config", &config];
        words.extend(arguments.iter().map(String::as_str));
        attestd(&words)
    });
    let output = output.await.expect("no panic");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

async fn followed(scene: &Scene, arguments: &[&str]) -> (Option<i32>, Value) {
    let arguments = [arguments, &["--wait", "--at-most", "60s", "--json"]].concat();
    let (code, said, fault) = verify(scene, &arguments).await;
    let said = serde_json::from_str(&said);
    (code, said.expect(&fault))
}

journey! {
    async fn a_command_has_the_running_server_wake_macs_and_its_exit_status_says_the_verdict(backend: Backend) {
        let scene = Scene::configured(backend, "[verification]\npatience = \"10m\"\npushes_per_hour = 20\n").await.with_ready_keys(2);
        let (good, life) = scene.living_mac(MacSpec::random().expect("a Mac")).await;
        let before = scene.api.verdict(&good.serial(), "affirming").await;
        scene.pass(2 * MINUTE);
        let device_id = scene.api.device_id(&good.serial()).await;
        let (token, _) = good.push_address().expect("an address");
        let pushes = scene.world.apns().seen_for(&token).len();

        let (code, said) = followed(&scene, &[&good.serial(), "--kind", "security_info", "--why", "ticket 17"]).await;
        let one = &said["devices"][0];
        assert_eq!((code, &one["device_id"], &one["refused"]), (Some(0), &json!(device_id), &Value::Null), "{said}");
        assert_eq!((&one["verification"]["outcome"], &one["verification"]["reason"]), (&json!("affirming"), &json!("ticket 17")));
        assert_eq!(one["verification"]["kinds"].as_object().expect("kinds").len(), 1);
        assert!(scene.world.apns().seen_for(&token).len() > pushes, "it was woken");
        let after = scene.api.posture(&good.serial()).await;
        assert_ne!(after["claims"]["sip"]["observed_at"], before["claims"]["sip"]["observed_at"]);
        // Who wanted that, and why, is told.
        let audit = scene.api.with_token(scene.token("auditor")).json("/internal/v1/audit").await;
        let entries = audit["entries"].as_array().expect("entries");
        let mut told = entries.iter().map(|link| &link["entry"]);
        let told = told.find(|entry| entry["what"] == "device.verify").expect("an entry");
        assert_eq!((&told["subject"], &told["why"]), (&json!(device_id), &json!("ticket 17")), "{told}");

        // Another is not as it should be; the worst counts, and each is asked once, whatever it is called.
        let mut spec = MacSpec::random().expect("a Mac");
        spec.boot.sip_enabled = false;
        let (bad, other) = scene.living_mac(spec).await;
        scene.api.verdict(&bad.serial(), "contraindicated").await;
        scene.pass(2 * MINUTE);
        let (code, said) = followed(&scene, &[&bad.serial(), &good.serial(), &device_id, "--kind", "security_info"]).await;
        assert_eq!((code, said["devices"].as_array().map(Vec::len)), (Some(3), Some(2)), "{said}");
        assert_eq!(said["devices"][0]["verification"]["outcome"], "contraindicated");

        // Of one that is away nothing is learnt, and the command says so when it has waited enough.
        drop((life, other));
        scene.pass(2 * MINUTE);
        let silent = [good.serial(), "--wait".into(), "--at-most".into(), "3s".into()];
        let (code, said, _) = verify(&scene, &silent.each_ref().map(String::as_str)).await;
        assert!(code == Some(4) && said.contains(&device_id), "{said}");
    }
}

journey! {
    async fn without_a_server_the_wish_waits_for_one_and_it_asks_once(backend: Backend) {
        let mut scene = Scene::new(backend).await.with_ready_keys(1);
        let (mac, life) = scene.living_mac(MacSpec::random().expect("a Mac")).await;
        scene.api.verdict(&mac.serial(), "affirming").await;
        scene.pass(2 * MINUTE);
        let device_id = scene.api.device_id(&mac.serial()).await;
        scene.stop().await;
        let (code, said, fault) = verify(&scene, &[&mac.serial(), "--kind", "security_info"]).await;
        assert!(code == Some(0) && said.contains("by the next server"), "{fault}");
        let waited = [mac.serial(), "--wait".into(), "--at-most".into(), "1s".into()];
        let (code, said, _) = verify(&scene, &waited.each_ref().map(String::as_str)).await;
        assert!(code == Some(4) && said.contains("is one running on this database?"), "{said}");
        drop(life);

        scene.start().await;
        // Both wishes are one attempt: the second joins it.
        let device_id = attestd::ids::DeviceId::parse(&device_id).expect("an id");
        eventually("the wish is taken up", async || {
            let tx = scene.ctx().store.read().await.expect("a transaction");
            let open = tx.open_wishes(10).await.expect("wishes");
            open.is_empty() && tx.open_verification(&device_id).await.expect("an attempt").is_some()
        }).await;
        let tx = scene.ctx().store.read().await.expect("a transaction");
        let attempts = tx.verifications_of(&device_id, 10).await.expect("attempts");
        assert_eq!(attempts.iter().filter(|attempt| attempt.occasion == "asked by an operator").count(), 1);
        drop(tx);

        // Who left is not asked, nor is anybody else then.
        mac.remove_profile().await.expect("it leaves");
        let (code, said, fault) = verify(&scene, &[device_id.as_str()]).await;
        assert!(code == Some(1) && said.is_empty() && fault.contains("is not enrolled"), "{fault}");
        for wrong in [&[][..], &[device_id.as_str(), "--kind", "blob"], &[device_id.as_str(), "--at-most", "1m"]] {
            assert_eq!(verify(&scene, wrong).await.0, Some(2), "{wrong:?}");
        }
        let (code, _, fault) = verify(&scene, &[device_id.as_str(), "--why", "a\nb"]).await;
        assert!(code == Some(1) && fault.contains("control character"), "{fault}");
    }
}
