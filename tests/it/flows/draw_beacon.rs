//! Nonces are made from heads of the transparency log, and anybody finds that the log had them (C.6).

use std::time::Duration;

use attestd::flows::{draw_beacon, tell_log};
use reqwest::Method;
use serde_json::json;

use super::publish_evidence::{checked, published, standings};
use crate::harness::inside::eventually;
use crate::harness::plane::{OWNER, Plane};
use crate::harness::scene::Scene;

const MINUTE: Duration = Duration::from_secs(60);
const BY_HEADS: &str = "[attestation]\nhold = \"24h\"\nnonce_scheme = \"beacon-v2\"\n";

async fn draw(scene: &Scene) {
    draw_beacon::run_once(scene.ctx()).await.expect("drawn");
}

/// How large the log is, and what its last entry is.
async fn log(scene: &Scene) -> (u64, String) {
    let tx = scene.ctx().store.read().await.expect("a database");
    let note = tx.log_head().await.expect("read").expect("a head");
    let size: u64 = note
        .lines()
        .nth(1)
        .and_then(|it| it.parse().ok())
        .expect("a size");
    let entries = tx.log_entries(size - 1..size).await.expect("read");
    let entry: serde_json::Value = serde_json::from_slice(&entries[0]).expect("JSON");
    (size, entry["type"].as_str().expect("a type").to_owned())
}

journey! {
    async fn an_outsider_finds_that_the_log_had_the_head_a_nonce_was_made_from(backend: Backend) {
        let changes = [("release = true", "release = false")];
        let plane = Plane::changed(backend, &changes, BY_HEADS).await;
        let scene = &plane.scene;
        let (mac, life) = plane.mac_of(Some(OWNER)).await;
        scene.pass(11 * MINUTE);
        draw(scene).await;
        let provider = plane.provider_on(&mac);
        scene.api.bound("s", &provider, Some(OWNER)).await;
        plane.once("s", "hardware", |it| it["trust_level"] == "hardware").await;
        assert_eq!(scene.api.challenge("s", &provider).await["routable"], true);
        drop(life);
        let whole = published(&plane).await;
        assert_eq!(whole["mda"]["nonce"]["scheme"], "beacon-v2", "{whole:#}");
        let (status, said) = checked(&plane, &whole, &["--require", "key_named"]).await;
        assert_eq!(status, Some(0), "{said:#}");
        let (_, said) = checked(&plane, &whole, &[]).await;
        assert!(standings(&said).contains(&"key_named proved custom".to_owned()), "{said:#}");
        for (pointer, value) in [
            ("/mda/nonce/inputs/head_at", json!("2026-01-01T00:00:00Z")),
            ("/mda/nonce/inputs/size", json!(1_000_000)),
            ("/mda/nonce/log_entry_b64", whole["log_entry_b64"].clone()),
            ("/mda/nonce/tlog_proof", whole["tlog_proof"].clone()),
        ] {
            let mut changed = whole.clone();
            *changed.pointer_mut(pointer).expect(pointer) = value;
            assert_eq!(checked(&plane, &changed, &[]).await.0, Some(1), "{pointer}");
        }
        let feed = scene.answer(scene.anybody(Method::GET, "/v1/providers/attestation")).await.json();
        assert_eq!(feed["providers"][0]["nonce_scheme"], "beacon-v2");
    }
}

journey! {
    async fn a_log_in_which_nothing_happens_says_the_time(backend: Backend) {
        let tables = "[attestation]\nhold = \"0s\"\nnonce_scheme = \"beacon-v2\"\n";
        let scene = Scene::configured(backend, tables).await;
        tell_log::run_once(scene.ctx()).await.expect("told");
        draw(&scene).await;
        let (size, _) = log(&scene).await;
        let beacon = || scene.ctx().log.as_ref().and_then(|log| log.beacon.newest());
        let first = beacon().expect("drawn");
        assert_eq!(first.size, size);
        scene.pass(9 * MINUTE);
        draw(&scene).await;
        assert_eq!(log(&scene).await.0, size, "it is new enough");
        scene.pass(MINUTE + Duration::from_secs(1));
        draw(&scene).await;
        draw(&scene).await;
        assert_eq!(log(&scene).await, (size + 1, "time".to_owned()));
        // Another node may have said it: what it said is found within a second.
        eventually("the newer one is drawn", async || {
            draw(&scene).await;
            beacon().is_some_and(|it| it.size == size + 1 && it.head_at > first.head_at)
        }).await;
    }
}

journey! {
    async fn where_nobody_wants_it_nothing_is_said_for_the_time(backend: Backend) {
        let scene = Scene::new(backend).await;
        tell_log::run_once(scene.ctx()).await.expect("told");
        let (size, _) = log(&scene).await;
        scene.pass(60 * MINUTE);
        draw(&scene).await;
        assert_eq!(log(&scene).await.0, size);
        assert_eq!(scene.ctx().log.as_ref().and_then(|log| log.beacon.newest()), None);
    }
}
