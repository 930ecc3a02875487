//! A coordinator at a server that is played here: what a real one does once in two weeks.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::*;

/// A server that keeps the request lines, and tells of a reset when it is told to.
#[derive(Debug, Default)]
struct Played {
    asked: Mutex<Vec<String>>,
    reset: Notify,
    changed: Notify,
}

impl Played {
    async fn start() -> (Arc<Self>, String) {
        let played = Arc::new(Self::default());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serving = Arc::clone(&played);
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let played = Arc::clone(&serving);
                tokio::spawn(async move { played.answer(connection).await });
            }
        });
        (played, url)
    }

    async fn answer(&self, mut connection: TcpStream) {
        let mut request = Vec::new();
        let mut chunk = [0; 4096];
        while !request.windows(4).any(|end| end == b"\r\n\r\n") {
            match connection.read(&mut chunk).await {
                Ok(read) if read > 0 => request.extend_from_slice(&chunk[..read]),
                _ => return,
            }
        }
        let request = String::from_utf8_lossy(&request).to_lowercase();
        let line = request.lines().next().unwrap_or_default();
        let after = request.split("last-event-id: ").nth(1);
        let after = after.and_then(|rest| rest.lines().next());
        let asked = line.replace(" http/1.1", "");
        self.asked.lock().unwrap().push(match after {
            None => asked.clone(),
            Some(after) => format!("{asked} after {after}"),
        });
        let head = "HTTP/1.1 200 OK\r\nconnection: close\r\n";
        if asked.ends_with("/events") {
            let begin = format!("{head}content-type: text/event-stream\r\n\r\nid: 5\n\n");
            connection.write_all(begin.as_bytes()).await.unwrap();
            if after.is_none() {
                self.reset.notified().await;
                let reset =
                    "id: 9\nevent: reset\ndata: {\"reason\":\"cursor_too_old\",\"cursor\":9}\n\n";
                connection.write_all(reset.as_bytes()).await.unwrap();
            } else {
                self.changed.notified().await;
                let changed = "id: 12\nevent: posture.changed\ndata: {\"device_id\":\"dev_1\"}\n\n: still here\n\n";
                connection.write_all(changed.as_bytes()).await.unwrap();
            }
            return;
        }
        let body = "{\"device_id\":\"dev_1\",\"challenge_id\":\"c\",\"nonce\":\"bg==\",\"timestamp\":\"t\",\
                    \"routable_until\":\"2026-10-01T09:40:00Z\",\"headers\":{\"x-provider-attested\":\"true\"}}";
        let whole = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
        let _ = connection.write_all(whole.as_bytes()).await;
    }

    /// What was asked so far and not looked at, once `wanted` is among it.
    async fn once(&self, wanted: &str) -> Vec<String> {
        for _ in 0..600 {
            if self.asked.lock().unwrap().iter().any(|it| it == wanted) {
                return std::mem::take(&mut *self.asked.lock().unwrap());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never {wanted}: {:?}", self.asked.lock().unwrap());
    }
}

#[tokio::test]
async fn after_a_reset_everything_is_asked_anew_and_followed_from_where_the_server_says() {
    let (played, url) = Played::start().await;
    let clock = Clock::fixed(1_790_847_007_123); // 2026-10-01T09:30:07Z
    let coordinator = Coordinator::start(CoordinatorOptions {
        api: Api::new(&url, "token"),
        public_url: url,
        public_root: None,
        clock: clock.clone(),
        port: 0,
    });
    let coordinator = coordinator.await.unwrap();
    let provider = Provider::new("FXSYNTH0001", &clock).unwrap();
    coordinator.connect("s", provider, None).await.unwrap();
    let headers = "get /internal/v1/devices/dev_1/trust-headers?session=s";
    let before = played.once(headers).await;
    assert_eq!(
        before,
        [
            "get /internal/v1/events",
            "put /internal/v1/bindings/s",
            "post /internal/v1/challenges",
            "post /internal/v1/challenges/c/response",
            "get /internal/v1/bindings/s",
            headers,
        ]
    );
    assert!(coordinator.shared.dispatch().is_some());

    played.reset.notify_one();
    let anew = played.once("get /internal/v1/events after 9").await;
    let expected = ["get /internal/v1/bindings/s", headers];
    assert_eq!(anew[..2], expected);

    played.changed.notify_one();
    let changed = played.once("get /internal/v1/events after 12").await;
    assert_eq!(changed[..2], expected);

    // What the server said ends when it said it would.
    assert!(coordinator.shared.dispatch().is_some());
    assert!(clock.advance(10 * 60_000));
    assert!(coordinator.shared.dispatch().is_none());
}
