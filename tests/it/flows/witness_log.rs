//! Witnesses see every head of the log, and what they signed comes with it (C2SP `tlog-witness`).

use std::time::Duration;

use attestd::flows::append_to_log::{append, head};
use attestd::flows::{tell_log, witness_log};
use attestd::time::{Clock as _, SystemClock};
use attestd::transparency::note::{Kind, Note, VerifierKey};
use attestd::transparency::{Checkpoint, witness};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::process::Command;

use super::publish_evidence::{checked_by, published, standings};
use crate::harness::inside::eventually;
use crate::harness::plane::Plane;
use crate::harness::scene::{Backend, Scene};
use crate::harness::witness::{Manner, Witness};

const LONGEST_PAUSE: Duration = Duration::from_secs(15 * 60);

async fn text(scene: &Scene, path: &str) -> String {
    let answer = scene.answer(scene.anybody(Method::GET, path)).await;
    assert_eq!(answer.status, 200, "{path}");
    String::from_utf8(answer.body.to_vec()).expect("text")
}

/// The published head, and how many of these witnesses signed it.
async fn seen(scene: &Scene, witnesses: &[&Witness]) -> (u64, usize) {
    let note = text(scene, "/log/checkpoint").await;
    let note = Note::read(&note).expect("a note");
    let keys: Vec<_> = witnesses.iter().map(|it| it.vkey()).collect();
    let keys = keys.iter().map(|key| VerifierKey::read(key, Kind::Witness));
    let keys: Vec<_> = keys.collect::<Result<_, _>>().expect("keys");
    let size = Checkpoint::read(&note).expect("a head").size;
    (size, witness::count(&note, &keys).expect("nothing wrong"))
}

/// Adds an entry; how many there are then.
async fn grow(scene: &Scene) -> u64 {
    let log = scene.ctx().log.as_ref().expect("a log");
    let entry = b"{\"type\":\"test\"}".to_vec();
    append(scene.ctx(), log, entry).await.expect("added");
    let head = head(scene.ctx(), log).await.expect("read");
    head.expect("a head").checkpoint.size
}

async fn ask(scene: &Scene) {
    witness_log::run_once(scene.ctx()).await.expect("asked");
}

/// The witnesses are told of the log; whoever did not know it is asked again once the pause is over.
async fn introduce(scene: &Scene, witnesses: &[&Witness]) {
    let log = text(scene, "/log/verifier-key").await;
    for witness in witnesses {
        witness.knows(log.trim_end());
    }
    later(scene, witnesses, LONGEST_PAUSE);
}

/// Time goes by, for the service and its witnesses alike.
fn later(scene: &Scene, witnesses: &[&Witness], span: Duration) {
    scene.pass(span);
    for witness in witnesses {
        witness.set_clock(scene.now().millis() / 1000);
    }
}

async fn two() -> (Witness, Witness) {
    let now = SystemClock.now().millis() / 1000;
    (
        Witness::start("one.example/w", now).await,
        Witness::start("two.example/w", now).await,
    )
}

fn settings(quorum: usize, witnesses: &[&Witness]) -> String {
    let each: String = witnesses.iter().map(|it| it.settings()).collect();
    format!("[transparency]\nwitness_quorum = {quorum}\n{each}")
}

/// What `attestd verify log` and docs/verify/log.py find, which must be the same.
async fn watched(scene: &Scene, witness: &Witness, quorum: &str) -> (Option<i32>, Value) {
    let (log, key) = (scene.url("/log"), text(scene, "/log/verifier-key").await);
    let vkey = witness.vkey();
    let words = [
        &log,
        "--vkey",
        key.trim_end(),
        "--witness",
        &vkey,
        "--quorum",
        quorum,
    ];
    let mut ours = Command::new(env!("CARGO_BIN_EXE_attestd"));
    ours.args(["verify", "log"]).args(words);
    let ours = ours.output().await.expect("runs");
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/verify/log.py");
    let mut theirs = Command::new("/usr/bin/python3");
    theirs.args(["-B", program]).args(words);
    let theirs = theirs.output().await.expect("python3-cryptography");
    let found: Value = serde_json::from_slice(&ours.stdout).unwrap_or_default();
    let also: Value = serde_json::from_slice(&theirs.stdout).unwrap_or_default();
    assert_eq!(ours.status.code(), theirs.status.code(), "{found} {also}");
    assert_eq!(found["verdict"], also["verdict"], "{found} {also}");
    (ours.status.code(), found)
}

journey! {
    async fn whoever_checks_evidence_finds_that_witnesses_saw_it(backend: Backend) {
        let (one, two) = two().await;
        let changes = [("release = true", "release = false")];
        let plane = Plane::changed(backend, &changes, &settings(2, &[&one, &two])).await;
        let scene = &plane.scene;
        introduce(scene, &[&one, &two]).await;
        let (_mac, life, _provider) = plane.routed().await;
        drop(life);
        let keys = [one.vkey(), two.vkey()];
        let mut whole = published(&plane).await;
        // A machine that is busy lets a witness be late; the next bundle finds it.
        for _ in 0..5 {
            if whole["tlog_proof"].as_str().is_some_and(|it| it.contains("two.example/w")) {
                break;
            }
            whole = published(&plane).await;
        }
        let (status, said) = checked_by(&plane, &whole, &[], (&keys, 2)).await;
        assert_eq!(status, Some(0), "{said:#}");
        assert!(standings(&said).contains(&"log proved log".to_owned()), "{said:#}");

        // Without what a witness signed, and with what it signed of another head.
        let proof = whole["tlog_proof"].as_str().expect("text").to_owned();
        let (without, line) = proof.trim_end().rsplit_once('\n').expect("lines");
        let mut less = whole.clone();
        less["tlog_proof"] = json!(format!("{without}\n"));
        let (status, said) = checked_by(&plane, &less, &[], (&keys, 2)).await;
        assert_eq!((status, &said["verdict"]), (Some(1), &json!("refused")), "{said:#}");
        assert_eq!(checked_by(&plane, &less, &[], (&keys, 1)).await.0, Some(0));
        let other = text(scene, "/log/checkpoint").await;
        let other = other.lines().last().expect("a line").to_owned();
        if other != line {
            less["tlog_proof"] = json!(format!("{without}\n{other}\n"));
            assert_eq!(checked_by(&plane, &less, &[], (&keys, 1)).await.0, Some(1));
        }

        // The head that everybody sees.
        let size = grow(scene).await;
        eventually("a witnessed head", async || seen(scene, &[&one, &two]).await == (size, 2)).await;
        assert_eq!(watched(scene, &one, "1").await.0, Some(0));
        assert_eq!(watched(scene, &one, "2").await.0, Some(1));
        let metrics = async || scene.api.get("/metrics").await.text().await.expect("text");
        eventually("it is measured", async || {
            metrics().await.contains(&format!("attestd_log_entries_witnessed {size}"))
        }).await;
        let metrics = metrics().await;
        assert!(metrics.contains("attestd_log_witness_answers_total{outcome=\"cosigned\"}"), "{metrics}");
        // Each was shown that the log only grew, from what it had seen last.
        for (old, _, status) in one.asked().iter().filter(|(old, ..)| *old > 0) {
            assert_eq!(*status, 200, "from {old}");
        }
    }
}

journey! {
    async fn a_witness_that_is_out_or_lies_holds_nothing_up(backend: Backend) {
        let (one, _) = two().await;
        let scene = Scene::configured(backend, &settings(1, &[&one])).await;
        tell_log::run_once(scene.ctx()).await.expect("told");
        introduce(&scene, &[&one]).await;
        ask(&scene).await;
        let first = grow(&scene).await;
        eventually("it is signed", async || seen(&scene, &[&one]).await == (first, 1)).await;

        for manner in [
            Manner::Out, Manner::Hangs, Manner::SignsSomethingElse, Manner::Forged, Manner::Ahead, Manner::Endless,
            Manner::KnowsMore, Manner::Redirects,
        ] {
            one.is(manner);
            let before = one.asked().len();
            let size = grow(&scene).await;
            if manner != Manner::Hangs {
                eventually("it is asked", async || one.asked().len() > before).await;
            }
            // For a while the last head that was seen is shown, and then one that nobody saw.
            assert_eq!(seen(&scene, &[&one]).await, (size - 1, 1), "{manner:?}");
            later(&scene, &[&one], Duration::from_secs(10));
            assert_eq!(seen(&scene, &[&one]).await, (size, 0), "{manner:?}");
            // It is left alone for a while, whatever happens,
            let asked = one.asked().len();
            if manner != Manner::Hangs {
                later(&scene, &[&one], LONGEST_PAUSE);
                ask(&scene).await;
                ask(&scene).await;
                grow(&scene).await;
                ask(&scene).await;
                assert_eq!(one.asked().len(), asked + 1, "{manner:?}");
            }
            // and signs what is new once it is itself again.
            one.is(Manner::Honest);
            eventually("it signs again", async || {
                later(&scene, &[&one], LONGEST_PAUSE);
                ask(&scene).await;
                let newest = head(scene.ctx(), scene.ctx().log.as_ref().expect("a log")).await;
                let newest = newest.expect("read").expect("a head").checkpoint.size;
                seen(&scene, &[&one]).await == (newest, 1)
            }).await;
        }
    }
}

journey! {
    async fn a_witness_that_knows_another_head_is_shown_how_the_log_grew_from_there(backend: Backend) {
        let (one, _) = two().await;
        let scene = Scene::configured(backend, &settings(1, &[&one])).await;
        tell_log::run_once(scene.ctx()).await.expect("told");
        introduce(&scene, &[&one]).await;
        // Another node showed it a head that this one knows nothing of.
        let size = grow(&scene).await;
        let newest = head(scene.ctx(), scene.ctx().log.as_ref().expect("a log")).await;
        let newest = newest.expect("read").expect("a head");
        one.is(Manner::Out);
        eventually("it has signed nothing", async || {
            later(&scene, &[&one], LONGEST_PAUSE);
            ask(&scene).await;
            one.asked().last().is_some_and(|(_, _, status)| *status == 503)
        }).await;
        one.has_seen(newest.checkpoint.size, newest.checkpoint.root);
        one.is(Manner::Honest);
        for _ in 0..70 {
            grow(&scene).await;
        }
        eventually("it signs", async || {
            later(&scene, &[&one], LONGEST_PAUSE);
            ask(&scene).await;
            seen(&scene, &[&one]).await == (size + 70, 1)
        }).await;
        let asked = one.asked();
        let conflict = asked.iter().position(|(_, _, status)| *status == 409).expect("a conflict");
        assert_eq!(asked[conflict + 1], (size, size + 70, 200), "{asked:?}");

        // One that saw another tree of this size signs nothing, and neither does one that is shown a longer log of
        // which that is no beginning.
        one.has_seen(size + 70, [7; 32]);
        grow(&scene).await;
        eventually("it is asked", async || {
            later(&scene, &[&one], LONGEST_PAUSE);
            ask(&scene).await;
            one.asked().last().is_some_and(|(_, _, status)| *status == 422)
        }).await;
        assert_eq!(seen(&scene, &[&one]).await, (size + 70, 1));
        later(&scene, &[&one], Duration::from_secs(10));
        assert_eq!(seen(&scene, &[&one]).await, (size + 71, 0));
        assert_eq!(one.seen(), size + 70);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgresql_a_node_publishes_what_a_witness_signed_for_another() {
    let (one, _) = two().await;
    let scene = Scene::configured(Backend::PostgreSql, &settings(1, &[&one])).await;
    let other = scene.second_node().await;
    tell_log::run_once(scene.ctx()).await.expect("told");
    introduce(&scene, &[&one]).await;
    ask(&scene).await;
    let size = grow(&scene).await;
    eventually("it is signed", async || {
        ask(&scene).await;
        seen(&scene, &[&one]).await == (size, 1)
    })
    .await;
    let asked = one.asked().len();
    witness_log::run_once(&other).await.expect("looked");
    let log = other.log.as_ref().expect("a log");
    let head = witness_log::published(&other, log).await.expect("read");
    let head = head.expect("a head");
    assert_eq!(head.checkpoint.size, size);
    assert!(head.note.contains("one.example/w"), "{}", head.note);
    assert_eq!(one.asked().len(), asked, "it is not asked twice");
}

journey! {
    async fn what_witnesses_signed_is_known_after_a_restart(backend: Backend) {
        let (one, two) = two().await;
        let mut scene = Scene::configured(backend, &settings(2, &[&one, &two])).await;
        tell_log::run_once(scene.ctx()).await.expect("told");
        introduce(&scene, &[&one, &two]).await;
        ask(&scene).await;
        let size = grow(&scene).await;
        eventually("it is signed", async || {
            ask(&scene).await;
            seen(&scene, &[&one, &two]).await == (size, 2)
        }).await;
        one.is(Manner::Out);
        two.is(Manner::Out);
        scene.stop().await;
        scene.start().await;
        assert_eq!(seen(&scene, &[&one, &two]).await, (size, 2));
    }
}
