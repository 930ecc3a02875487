//! An operator asks what a policy would change, before it is switched on.

use std::fs;

use attestd_sim::MacSpec;
use serde_json::{Value, json};

use crate::harness::provider::Provider;
use crate::harness::scene::{Scene, attestd};

const SHIPPED: [(&str, &str); 3] = [
    (
        "strict",
        include_str!("../../../profiles/policies/strict.toml"),
    ),
    (
        "adopted",
        include_str!("../../../profiles/policies/adopted.toml"),
    ),
    (
        "darkbloom-2026",
        include_str!("../../../profiles/policies/darkbloom-2026.toml"),
    ),
];

/// What `policy check` says: its exit status, its lines as JSON, and its faults.
fn check(arguments: &[&str]) -> (Option<i32>, Vec<Value>, String) {
    let output = attestd(&[&["policy", "check", "--json"], arguments].concat());
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    let lines = said
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"));
    (
        output.status.code(),
        lines.collect(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

fn demand(answer: &Value, name: &str) -> Value {
    let demands = answer["explanation"]["demands"]
        .as_array()
        .expect("demands");
    demands
        .iter()
        .find(|demand| demand["demand"] == name)
        .expect(name)
        .clone()
}

journey! {
    async fn an_operator_sees_what_a_policy_would_change_before_it_is_switched_on(backend: Backend) {
        let scene = Scene::configured(backend, "[policy]\nname = \"adopted\"\n").await.with_ready_keys(2);
        // One Mac whose key was named, one that nobody brought a key for.
        let provider = Provider::new();
        let bound = scene.honest_mac();
        let request = scene.anybody(reqwest::Method::POST, "/v2/enroll");
        let asked = provider.asks(&scene.base_url, scene.now()).to_string();
        let profile = scene.answer(request.body(asked)).await;
        bound.install_profile(&profile.body).await.expect("enrols");
        let life = bound.live();
        assert_eq!(scene.api.verdict(&bound.serial(), "affirming").await["policy_waives"], json!(["hardware.attested_channel"]));
        let (plain, other_life) = scene.living_mac(MacSpec::random().expect("a Mac")).await;
        scene.api.verdict(&plain.serial(), "affirming").await;
        drop((life, other_life));
        let before = (scene.kept(&bound).await, scene.kept(&plain).await);

        let config = scene.config().to_str().expect("a path").to_owned();
        let source = ["--config", config.as_str(), "--insecure-http"];
        // The server's clock stands where the scene began; the command must not judge by another.
        let at = scene.now().to_string();
        let run = |arguments: &[&str]| check(&[&source[..], &["--at", &at], arguments].concat());
        let (code, lines, fault) = run(&["strict", "--against", "fleet", "--all"]);
        assert_eq!((code, lines.len()), (Some(3), 3), "{fault}");
        let of = |serial: &str| lines.iter().find(|line| line["serial_number"] == serial).expect("a line").clone();
        let lost = of(&bound.serial());
        assert_eq!((&lost["change"], &lost["session_assumed"]), (&json!("worse"), &json!(true)));
        assert_eq!((&lost["in_force"]["trust_level"], &lost["checked"]["trust_level"]), (&json!("hardware"), &json!("self_signed")));
        assert_eq!(lost["checked"]["reasons"], json!(["channel_not_attested"]));
        assert_eq!((&lost["in_force"]["verdict"], &lost["checked"]["verdict"]), (&json!("affirming"), &json!("affirming")));
        // It was nothing before, and has one reason more now.
        assert_eq!(of(&plain.serial())["change"], "otherwise");
        let totals = &lines[2];
        assert_eq!(totals["summary"]["devices"], 2);
        assert_eq!((&totals["summary"]["worse"], &totals["summary"]["better"]), (&json!(1), &json!(0)));
        assert_eq!(totals["summary"]["trust_levels"]["hardware"], json!({ "in_force": 1, "checked": 0 }));
        assert!(totals["checked"]["policy_id"].as_str().is_some_and(|id| id.starts_with("strict/")));
        assert_eq!((&totals["checked"]["waives"], &totals["in_force"]["waives"]),
            (&json!([]), &json!(["hardware.attested_channel"])));

        // The policy in force against itself: nothing to tell but the totals.
        let (code, same, _) = run(&["adopted", "--against", "fleet"]);
        assert_eq!((code, same.len(), &same[0]["summary"]["same"]), (Some(0), 1, &json!(2)));
        // A looser one: nobody loses.
        let (code, looser, _) = run(&["darkbloom-2026", "--against", "fleet"]);
        assert_eq!((code, &looser[looser.len() - 1]["summary"]["better"]), (Some(0), &json!(1)));

        // One Mac, demand by demand and claim by claim, by either name.
        let device_id = scene.device_id(&bound).await.to_string();
        for name in [device_id.clone(), bound.serial()] {
            let (code, why, _) = run(&["strict", "--against", &name]);
            assert_eq!((code, why.len()), (Some(3), 1));
            assert_eq!(why[0]["device"]["device_id"], device_id.as_str());
            assert_eq!(demand(&why[0], "hardware.attested_channel"), json!({
                "demand": "hardware.attested_channel",
                "in_force": { "demanded": false, "met": false, "reasons": ["channel_not_attested"] },
                "checked": { "demanded": true, "met": false, "reasons": ["channel_not_attested"] },
            }));
            assert_eq!(demand(&why[0], "hardware.key_binding")["checked"]["met"], true);
            let sip = &why[0]["explanation"]["claims"]["sip#mda"];
            assert_eq!((&sip["value"], &sip["assurance"], &sip["checked"]["age"]), (&json!(true), &json!("apple_signed"), &json!("fresh")));
        }
        // A policy of one's own, by its file; what is no policy is none.
        let own = scene.home.path().join("own.toml");
        fs::write(&own, SHIPPED[1].1.replace("adopted", "own").replace("24h", "25h")).expect("written");
        let own = own.to_str().expect("a path");
        let (code, lines, _) = run(&[own, "--against", "fleet"]);
        assert_eq!(code, Some(0));
        assert!(lines[lines.len() - 1]["checked"]["policy_id"].as_str().is_some_and(|id| id.starts_with("own/")));
        fs::write(own, SHIPPED[1].1.replace("filevault", "filevalt")).expect("written");
        for (bad, words) in [
            (&[own, "--against", "fleet"][..], "filevalt"),
            (&["lenient", "--against", "fleet"], "cannot be read"),
            (&["strict", "--against", "C02NOBODY000"], "no Mac"),
            (&["strict", "--against", "dev_01J8ZZZZZZZZZZZZZZZZZZZZZZ"], "no device"),
            (&["strict", "--against", "./none.jsonl"], "cannot be read"),
            (&["strict", "--against", config.as_str()], "no snapshot"),
        ] {
            let (code, lines, fault) = run(bad);
            assert!(code == Some(1) && lines.is_empty() && fault.contains(words), "{bad:?}: {fault}");
        }
        assert_eq!(run(&["strict"]).0, Some(2));
        // People read it too.
        let shown = attestd(&[&["policy", "check", "strict", "--against", "fleet", "--at", &at], &source[..]].concat());
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        for word in [&bound.serial(), "affirming/self_signed [channel_not_attested]", "1 worse", "trust level hardware"] {
            assert!(shown.contains(word), "{word} is not in {shown}");
        }
        // Nothing was changed by all this asking.
        assert_eq!((scene.kept(&bound).await, scene.kept(&plain).await), before);
    }
}

journey! {
    async fn a_snapshot_is_checked_on_another_machine(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(1);
        let (mac, life) = scene.living_mac(MacSpec::random().expect("a Mac")).await;
        scene.api.verdict(&mac.serial(), "affirming").await;
        drop(life);
        let config = scene.config().to_str().expect("a path").to_owned();
        let made = attestd(&["policy", "snapshot", "--config", &config, "--insecure-http"]);
        assert!(made.status.success(), "{made:?}");
        let elsewhere = tempfile::tempdir().expect("a folder");
        let file = elsewhere.path().join("fleet.jsonl");
        fs::write(&file, &made.stdout).expect("written");
        let file = file.to_str().expect("a path");
        let text = String::from_utf8(made.stdout).expect("UTF-8");
        assert_eq!(text.lines().count(), 2);
        for secret in ["token", "magic", "BEGIN"] {
            assert!(!text.contains(secret), "{secret}");
        }

        // The policy in force and the time travel with it.
        let (code, lines, fault) = check(&["darkbloom-2026", "--against", file]);
        assert_eq!(code, Some(0), "{fault}");
        let totals = lines.last().expect("totals");
        assert!(totals["in_force"]["policy_id"].as_str().is_some_and(|id| id.starts_with("strict/")));
        assert_eq!((&totals["summary"]["devices"], &totals["summary"]["better"]), (&json!(1), &json!(1)));
        let (code, why, _) = check(&["adopted", "--against", file, "--device", &mac.serial(), "--in-force", "darkbloom-2026"]);
        assert_eq!((code, &why[0]["device"]["change"]), (Some(3), &json!("worse")));
        assert_eq!(demand(&why[0], "hardware.session")["checked"]["reasons"], json!(["binding_unproved"]));
        // Later, by its own times alone, everything in it has ended.
        let later = scene.now().plus(std::time::Duration::from_secs(30 * 86_400)).to_string();
        let (_, lines, _) = check(&["strict", "--against", file, "--all", "--at", &later]);
        assert_eq!(lines[0]["checked"]["verdict"], "unknown");

        for (text, words) in [
            (String::new(), "no snapshot"),
            ("{}\n".to_owned(), "no snapshot"),
            (format!("{text}{{\"device_id\":7}}\n"), "line 3"),
        ] {
            fs::write(file, text).expect("written");
            let (code, _, fault) = check(&["strict", "--against", file]);
            assert!(code == Some(1) && fault.contains(words), "{fault}");
        }
    }
}

#[test]
fn shipped_policies_are_listed_shown_and_chosen_by_name() {
    let listed = attestd(&["policy", "list", "--json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    for ((name, text), listed) in SHIPPED
        .iter()
        .zip(listed["policies"].as_array().expect("a list"))
    {
        assert_eq!(listed["name"], *name);
        let shown = attestd(&["policy", "show", name]);
        assert_eq!(String::from_utf8_lossy(&shown.stdout), *text);
    }
    assert_eq!(
        attestd(&["policy", "show", "lenient"]).status.code(),
        Some(2)
    );

    let home = tempfile::tempdir().expect("a folder");
    let folder = home.path().join("data");
    let folder = folder.to_str().expect("a path");
    assert!(
        attestd(&["init", folder, "--base-url", "https://mdm.example.org"])
            .status
            .success()
    );
    let config = format!("{folder}/attestd.toml");
    let settings = fs::read_to_string(&config).expect("settings");
    let check = |policy: &str| {
        fs::write(&config, format!("{settings}[policy]\n{policy}\n")).expect("written");
        let checked = attestd(&["check-config", "--config", &config, "--json"]);
        let said = String::from_utf8_lossy(&checked.stderr).into_owned();
        (
            checked.status.code(),
            serde_json::from_slice::<Value>(&checked.stdout).unwrap_or_default(),
            said,
        )
    };
    let (code, chosen, _) = check("name = \"adopted\"");
    assert_eq!(
        (code, &chosen["policy_waives"]),
        (Some(0), &json!(["hardware.attested_channel"]))
    );
    assert_eq!(chosen["policy_id"], listed["policies"][1]["policy_id"]);
    for (bad, words) in [
        ("name = \"lenient\"", "darkbloom-2026"),
        ("name = \"strict\"\nfile = \"x\"", "not both"),
    ] {
        let (code, _, said) = check(bad);
        assert!(code == Some(64) && said.contains(words), "{said}");
    }
}
