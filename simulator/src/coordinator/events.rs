//! What the server tells as it happens: the event stream, followed without missing anything.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use reqwest::Response;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::Shared;

/// A heartbeat comes every 15 seconds: whoever hears nothing for so long comes back.
const SILENCE: Duration = Duration::from_secs(45);
/// Before coming back.
const PAUSE: Duration = Duration::from_millis(500);
/// No event is as long.
const LONGEST: usize = 1024 * 1024;

/// Follows the stream for ever: what is open now, and a new one after each end.
pub(super) async fn follow(shared: Arc<Shared>, open: Response) {
    let mut last = None;
    listen(&shared, open, &mut last).await;
    loop {
        tokio::time::sleep(PAUSE).await;
        match shared.api.events(last.as_deref()).await {
            Ok(stream) => {
                if last.is_none() {
                    // Nobody knows what happened since.
                    shared.list().await;
                }
                listen(&shared, stream, &mut last).await;
            }
            // Meanwhile what is known counts, as long as the server said it would.
            Err(error) => tracing::info!(%error, "no event stream"),
        }
    }
}

/// Until the stream ends, is silent for too long, or is no stream of events.
async fn listen(shared: &Arc<Shared>, mut stream: Response, last: &mut Option<String>) {
    let mut text = Vec::new();
    while let Ok(Ok(Some(chunk))) = timeout(SILENCE, stream.chunk()).await {
        text.extend_from_slice(&chunk);
        while let Some(at) = text.windows(2).position(|pair| pair == b"\n\n") {
            let block: Vec<_> = text.drain(..at + 2).collect();
            let Ok(block) = std::str::from_utf8(&block) else {
                return;
            };
            let event = Event::read(block);
            if event.name == "reset" {
                // What we know may lack something: all anew, and on from where the server says.
                *last = event.data["cursor"]
                    .as_i64()
                    .map(|cursor| cursor.to_string());
                shared.list().await;
            } else {
                heard(shared, &event).await;
            }
            // Only now: what was not acted upon is to be told again.
            if let Some(id) = event.id {
                *last = Some(id.to_owned());
                let id = id.parse().unwrap_or_default();
                shared.heard.fetch_max(id, Ordering::Relaxed);
            }
        }
        if text.len() > LONGEST {
            return;
        }
    }
}

/// What happened is looked up: an event says that something is different, the answer to a question what is
/// so now. Until then nothing is sent to whom it concerns, unless it says itself that this is good.
async fn heard(shared: &Arc<Shared>, event: &Event<'_>) {
    if event.name.is_empty() {
        return;
    }
    let in_doubt = !event.is_good();
    match (
        event.data["session"].as_str(),
        event.data["device_id"].as_str(),
    ) {
        (Some(session), _) if event.name == "challenge.due" => shared.challenge(session).await,
        (Some(session), _) => shared.look_at(session, in_doubt).await,
        (None, Some(device_id)) => {
            for session in shared.sessions_of(device_id) {
                shared.look_at(&session, in_doubt).await;
            }
        }
        // A release, the clock: about everybody.
        (None, None) => shared.list().await,
    }
}

/// One block of the stream.
#[derive(Debug, Default, PartialEq)]
struct Event<'a> {
    id: Option<&'a str>,
    name: &'a str,
    data: Value,
}

impl<'a> Event<'a> {
    /// Whether it cannot have ended anything: every provider is challenged every five minutes, and is routed
    /// to all the while.
    fn is_good(&self) -> bool {
        match self.name {
            "binding.changed" => self.data["routable"] == json!(true),
            "posture.changed" => self.data["verdict"] == json!("affirming"),
            "posture.expiring" | "verification.finished" => true,
            _ => false,
        }
    }

    fn read(block: &'a str) -> Self {
        let mut event = Self::default();
        for line in block.lines() {
            match line.split_once(": ") {
                Some(("id", id)) => event.id = Some(id),
                Some(("event", name)) => event.name = name,
                Some(("data", data)) => {
                    event.data = serde_json::from_str(data).unwrap_or(json!(null));
                }
                // Comments, and how long to wait.
                _ => {}
            }
        }
        event
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_an_event_or_only_a_place_in_the_stream() {
        let read =
            Event::read("id: 7\nevent: posture.changed\ndata: {\"device_id\":\"dev_1\"}\n\n");
        let told = Event {
            id: Some("7"),
            name: "posture.changed",
            data: json!({ "device_id": "dev_1" }),
        };
        assert_eq!(read, told);
        assert!(!read.is_good());
        for (data, is_good) in [("true", true), ("false", false), ("null", false)] {
            let block = format!("event: binding.changed\ndata: {{\"routable\":{data}}}\n\n");
            assert_eq!(Event::read(&block).is_good(), is_good, "{data}");
        }
        let place = Event::read("retry: 3000\nid: 9\n\n");
        assert_eq!((place.id, place.name), (Some("9"), ""));
        assert_eq!(Event::read(": still here\n\n"), Event::default());
    }
}
