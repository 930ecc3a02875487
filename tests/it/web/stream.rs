//! The progress as Server-Sent Events.

use std::time::Duration;

use reqwest::{Method, Response};
use serde_json::Value;

use crate::harness::scene::Scene;

/// A client of the stream, that reads it event by event.
pub(super) struct Listener {
    response: Response,
    text: String,
}

impl Listener {
    async fn open(scene: &Scene, progress_id: &str, last: Option<&str>) -> Response {
        let path = format!("/v1/enrollments/{progress_id}");
        let mut request = scene
            .anybody(Method::GET, &path)
            .header("accept", "text/event-stream");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        request.send().await.expect("an answer")
    }

    pub(super) async fn new(scene: &Scene, progress_id: &str) -> Self {
        let response = Self::open(scene, progress_id, None).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            response,
            text: String::new(),
        }
    }

    /// The next event, its id and its data; `None` at the end.
    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let member = |name: &str| {
                    event
                        .lines()
                        .find_map(|line| line.strip_prefix(name).map(str::to_owned))
                };
                let found = member("data: ").map(|data| {
                    assert_eq!(member("event: ").as_deref(), Some("progress"));
                    let data = serde_json::from_str(&data).expect("JSON");
                    (member("id: ").expect("an id"), data)
                });
                self.text = rest.to_owned();
                match found {
                    Some(found) => return Some(found),
                    // A heartbeat.
                    None => continue,
                }
            }
            let chunk = tokio::time::timeout(Duration::from_secs(20), self.response.chunk());
            let chunk = chunk.await.expect("something comes").ok().flatten()?;
            self.text
                .push_str(std::str::from_utf8(&chunk).expect("text"));
        }
    }
}

/// How many steps are done.
fn done(progress: &Value) -> usize {
    let steps = progress["steps"].as_array().expect("steps");
    steps
        .iter()
        .filter(|step| step["standing"] == "done")
        .count()
}

journey! {
    async fn every_step_arrives_as_it_happens_and_the_verdict_ends_the_stream(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(1);
        let mac = scene.honest_mac();
        let delivered = scene.deliver_for(&mac.serial()).await;
        let mut listener = Listener::new(&scene, &delivered.progress_id).await;
        let (_, first) = listener.next().await.expect("the present");
        assert_eq!(first, scene.progress(&delivered.progress_id).await);
        assert_eq!(done(&first), 1);

        let profile = mac.read_profile(&delivered.profile).expect("a profile");
        let identity = mac.identity_for(&profile).await.expect("an identity");
        let (id, second) = listener.next().await.expect("the identity");
        assert_eq!(done(&second), 2);
        // Who comes back is told only what is new.
        let back = Listener::open(&scene, &delivered.progress_id, Some(&id)).await;
        let mut back = Listener { response: back, text: String::new() };

        mac.install_profile_with(&delivered.profile, identity).await.expect("installed");
        let (_, third) = back.next().await.expect("a step");
        assert!(done(&third) >= 3, "{third:#}");
        let _life = mac.live();
        let mut seen = vec![done(&second)];
        let mut last = (String::new(), second);
        while let Some(event) = listener.next().await {
            seen.push(done(&event.1));
            last = event;
        }
        assert!(seen.is_sorted() && seen.len() >= 4, "{seen:?}");
        assert_eq!((&last.1["state"], &last.1["ended"]), (&"done".into(), &true.into()));
        assert_eq!(last.1, scene.progress(&delivered.progress_id).await);

        // Browsers come back after the end until they are told that this is all.
        let again = Listener::open(&scene, &delivered.progress_id, Some(&last.0)).await;
        assert_eq!(again.status(), 204);
        let unknown = Listener::open(&scene, "AAAAAAAAAAAAAAAAAAAAAA", None).await;
        assert_eq!(unknown.status(), 404);
    }
}

journey! {
    async fn a_profile_that_is_not_installed_in_time_ends_the_stream(backend: Backend) {
        let scene = Scene::new(backend).await;
        let delivered = scene.deliver("{}").await;
        let mut listener = Listener::new(&scene, &delivered.progress_id).await;
        listener.next().await.expect("the present");
        // Nobody writes this step: it is time that passes.
        scene.pass(Duration::from_secs(3600));
        let (_, progress) = listener.next().await.expect("the end");
        assert_eq!((&progress["state"], &progress["ended"]), (&"refused".into(), &true.into()));
        assert_eq!(progress["steps"][1]["reason"], "ticket_expired");
        assert_eq!(listener.next().await, None);
    }
}

journey! {
    async fn one_client_has_a_share_of_the_streams_and_none_holds_up_the_end(backend: Backend) {
        let mut scene = Scene::new(backend).await;
        let delivered = scene.deliver("{}").await;
        let mut open = Vec::new();
        for _ in 0..16 {
            open.push(Listener::new(&scene, &delivered.progress_id).await);
        }
        let refused = Listener::open(&scene, &delivered.progress_id, None).await;
        assert_eq!(refused.status(), 429);
        assert_eq!(refused.headers()["retry-after"], "5");
        assert_eq!(refused.headers()["content-type"], "application/problem+json");
        // The answer is to be had without a stream.
        assert_eq!(done(&scene.progress(&delivered.progress_id).await), 1);

        drop(open.split_off(8));
        let again = || async {
            Listener::open(&scene, &delivered.progress_id, None).await.status() == 200
        };
        crate::harness::inside::eventually("a place is given back", again).await;

        // Streams would go on for minutes; a server that stops ends them.
        let stopped = tokio::time::timeout(Duration::from_secs(10), scene.stop()).await;
        assert!(stopped.is_ok(), "the server waits for its streams");
        for mut listener in open {
            listener.next().await.expect("what it was told at first");
            assert_eq!(listener.next().await, None);
        }
    }
}
