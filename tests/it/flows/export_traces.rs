//! A posture round is one trace, across push and reply, minutes and restarts; what a collector does not
//! take is dropped and holds up nobody.

use std::collections::HashSet;
use std::time::Duration;

use attestd::flows::verify_now::{Wanted, verify_now};
use attestd::verification::{Kind, Priority};
use attestd_sim::Mac;

use crate::harness::collector::{Collected, Collector};
use crate::harness::inside::eventually;
use crate::harness::scene::Scene;

const MINUTE: Duration = Duration::from_secs(60);
const SPANS: &str = "attestd_trace_spans_total";

/// A Mac whose first round is over.
async fn proved(scene: &Scene) -> Mac {
    let mac = scene.honest_mac();
    mac.enroll(&scene.base_url).await.expect("enrols");
    pushed(scene, &mac, 1).await;
    mac.connect().await.expect("a session");
    mac
}

async fn pushed(scene: &Scene, mac: &Mac, count: usize) {
    let (token, _) = mac.push_address().expect("an address");
    eventually("a push is written down", async || {
        let last = scene.kept(mac).await.verifications[0].last_pushed_at();
        scene.world.apns().seen_for(&token).len() >= count && last.is_some()
    })
    .await;
}

/// The spans of the trace of a round, once it is over.
async fn round(collector: &Collector, verification_id: &str) -> Vec<Collected> {
    let of_round = || {
        let spans = collector.spans().into_iter();
        spans.filter(|it| it.fields["verification.id"] == verification_id)
    };
    eventually("the round arrives", async || {
        of_round().any(|it| it.name == "posture_round") && of_round().any(|it| it.name == "wake")
    })
    .await;
    of_round().collect()
}

journey! {
    async fn a_round_is_one_trace_from_the_sweep_over_the_push_to_the_verdict(backend: Backend) {
        let collector = Collector::start().await;
        let mut scene = Scene::configured(backend, &collector.table()).await;
        let mac = proved(&scene).await;
        scene.pass(80 * MINUTE);
        let due_at = scene.now();
        scene.sweep().await;
        pushed(&scene, &mac, 2).await;
        // The Mac takes its time, and is answered by another process.
        scene.stop().await;
        scene.pass(2 * MINUTE);
        scene.start().await;
        mac.connect().await.expect("a session");

        let id = scene.kept(&mac).await.verifications[0].verification_id.to_string();
        let spans = round(&collector, &id).await;
        let traces: HashSet<_> = spans.iter().map(|it| &it.trace).collect();
        assert_eq!(traces.len(), 1, "{spans:#?}");
        let ids: HashSet<_> = spans.iter().map(|it| &it.id).collect();
        assert_eq!(ids.len(), spans.len(), "{spans:#?}");

        let named = |name: &str| spans.iter().filter(|it| it.name == name).collect::<Vec<_>>();
        let root = named("posture_round")[0];
        assert!(root.parent.is_empty());
        assert_eq!((root.fields["state"].as_str(), root.fields["priority"].as_str()), ("answered", "refresh"));
        let at = |ms: u64| i64::try_from(ms).expect("a time");
        assert_eq!((at(root.from_ms), at(root.to_ms)), (due_at.millis(), scene.now().millis()));
        let reports = named("connect");
        let is = |report: &Collected, status: &str| report.fields["status"] == status;
        let idle = reports.iter().find(|it| is(it, "Idle")).expect("it came");
        let reply = reports.iter().find(|it| is(it, "Acknowledged")).expect("it answered");
        assert_eq!(idle.fields["handed_over"], "security_info");
        assert_eq!((reply.fields["kind"].as_str(), reply.fields["handed_over"].as_str()), ("security_info", "none"));
        for part in named("sweep").into_iter().chain(named("wake")).chain(reports.iter().copied()) {
            assert_eq!(part.parent, root.id, "{part:#?}");
        }
        assert_eq!(named("wake")[0].fields["outcome"], "accepted");
        let judged = named("conclude")[0];
        assert_eq!((&judged.parent, judged.fields["verdict"].as_str()), (&reply.id, "affirming"));
        let counts = ["sweep", "wake", "connect", "conclude", "posture_round"].map(|name| named(name).len());
        assert_eq!(counts, [1, 1, 2, 1, 1]);

        // Another round is another trace.
        let first = scene.kept(&mac).await.verifications[1].verification_id.to_string();
        assert_ne!(round(&collector, &first).await[0].trace, root.trace);
    }
}

journey! {
    async fn a_mac_that_never_answers_ends_its_trace_too(backend: Backend) {
        let collector = Collector::start().await;
        let scene = Scene::configured(backend, &collector.table()).await;
        let mac = scene.honest_mac();
        mac.enroll(&scene.base_url).await.expect("enrols");
        pushed(&scene, &mac, 1).await;
        scene.pass(11 * MINUTE);
        scene.sweep().await;
        let id = scene.kept(&mac).await.verifications[0].verification_id.to_string();
        let spans = round(&collector, &id).await;
        let root = spans.iter().find(|it| it.name == "posture_round").expect("it is over");
        assert_eq!((root.fields["state"].as_str(), root.fields["reasons"].as_str()), ("timed_out", "answer_timeout"));
    }
}

journey! {
    async fn nothing_that_a_mac_or_a_caller_said_is_in_a_trace(backend: Backend) {
        let collector = Collector::start().await;
        let scene = Scene::configured(backend, &collector.table()).await;
        let mac = proved(&scene).await;
        let wanted = Wanted {
            device_id: scene.device_id(&mac).await,
            kinds: vec![Kind::SecurityInfo],
            priority: Priority::Expired,
            occasion: "canary-occasion".to_owned(),
            deadline: None,
            idempotency: Some(("canary-idempotency".to_owned(), [7; 32])),
        };
        scene.pass(MINUTE);
        verify_now(scene.ctx(), &wanted).await.expect("asks");
        pushed(&scene, &mac, 2).await;
        mac.connect().await.expect("a session");
        let id = scene.kept(&mac).await.verifications[0].verification_id.to_string();
        let spans = round(&collector, &id).await;
        assert!(spans.iter().any(|it| it.name == "verify_now"));

        let (token, magic) = mac.push_address().expect("an address");
        let secrets = [mac.serial(), mac.udid(), hex::encode(&token), magic, scene.api.token.clone(),
            "canary-occasion".to_owned(), "canary-idempotency".to_owned()];
        let bodies = collector.bodies();
        for (headers, body) in &bodies {
            assert_eq!(headers["content-type"], "application/x-protobuf");
            assert!(!headers.contains_key("authorization"), "no token was set");
            for secret in &secrets {
                assert!(secret.len() > 8, "{secret}");
                let found = body.windows(secret.len()).any(|part| part.eq_ignore_ascii_case(secret.as_bytes()));
                assert!(!found, "{secret} left for the collector");
            }
            assert!(!body.windows(token.len()).any(|part| part == token), "the push token");
        }
        // What may be in it is a closed list.
        let known = ["verification.id", "device.id", "state", "priority", "reasons", "outcome", "status",
            "kind", "handed_over", "verdict"];
        for name in collector.spans().iter().flat_map(|it| it.fields.keys()) {
            assert!(known.contains(&name.as_str()), "{name}");
        }
    }
}

journey! {
    async fn a_collector_that_is_out_costs_spans_and_nothing_else(backend: Backend) {
        let collector = Collector::start().await;
        collector.answers(503);
        let scene = Scene::configured(backend, &collector.table()).await;
        let mac = proved(&scene).await;
        assert_eq!(scene.api.posture(&mac.serial()).await["verdict"], "affirming");
        eventually("they are dropped, and counted", async || {
            scene.counted(SPANS, &["outcome=\"not_taken\""]).await >= 5
        }).await;
        assert_eq!(scene.counted(SPANS, &["outcome=\"sent\""]).await, 0);
        // Each was tried once, and what comes later is taken.
        collector.answers(200);
        let lost = collector.spans().len();
        scene.pass(80 * MINUTE);
        scene.sweep().await;
        pushed(&scene, &mac, 2).await;
        mac.connect().await.expect("a session");
        eventually("they are sent", async || scene.counted(SPANS, &["outcome=\"sent\""]).await >= 5).await;
        let ids: HashSet<_> = collector.spans().into_iter().map(|it| it.id).collect();
        assert_eq!(ids.len(), collector.spans().len());
        assert!(collector.spans().len() > lost);
    }
}

journey! {
    async fn without_a_collector_there_are_no_spans(backend: Backend) {
        let scene = Scene::new(backend).await;
        proved(&scene).await;
        assert!(scene.ctx().traces.is_none());
        assert_eq!(scene.counted(SPANS, &[]).await, 0);
    }
}
