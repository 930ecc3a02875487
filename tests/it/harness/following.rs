//! A coordinator that listens to `GET /internal/v1/events`.

use std::time::Duration;

use reqwest::{Method, Response};
use serde_json::Value;

use super::internal_api::InternalApi;

/// How long a journey waits for something that happens by itself.
const PATIENCE: Duration = Duration::from_secs(20);

/// An event as it was heard.
#[derive(Debug, Clone, PartialEq)]
pub struct Heard {
    pub id: i64,
    pub name: String,
    pub data: Value,
}

/// An open stream, read event by event.
#[derive(Debug)]
pub struct Following {
    response: Response,
    text: String,
    /// The last id that was seen, on an event or by itself: what a client comes back with.
    pub id: i64,
}

impl Following {
    /// Asks for a stream.
    pub async fn ask(api: &InternalApi, query: &str, last: Option<&str>) -> Response {
        let path = format!("/internal/v1/events{query}");
        let mut request = api.request(Method::GET, &path);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        request.send().await.expect("an answer")
    }

    /// A stream that was opened.
    pub async fn open(api: &InternalApi, query: &str, last: Option<&str>) -> Self {
        let response = Self::ask(api, query, last).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut following = Self {
            response,
            text: String::new(),
            id: -1,
        };
        // Where to begin again is said before anything happens.
        let opening = following.block().await.expect("an opening");
        assert_eq!(opening.lines().next(), Some("retry: 3000"));
        assert!(following.id >= 0, "{opening}");
        following
    }

    /// A stream from the present on.
    pub async fn now(api: &InternalApi) -> Self {
        Self::open(api, "", None).await
    }

    /// A stream from this event on.
    pub async fn after(api: &InternalApi, id: i64) -> Self {
        Self::open(api, "", Some(&id.to_string())).await
    }

    /// The next event; `None` at the end.
    pub async fn next(&mut self) -> Option<Heard> {
        loop {
            let block = self.block().await?;
            let member = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
            if let Some(data) = member("data: ") {
                return Some(Heard {
                    id: self.id,
                    name: member("event: ").expect("a name").to_owned(),
                    data: serde_json::from_str(data).expect("JSON"),
                });
            }
        }
    }

    /// The next event of this name.
    pub async fn next_named(&mut self, name: &str) -> Heard {
        loop {
            let heard = self.next().await.expect(name);
            if heard.name == name {
                return heard;
            }
        }
    }

    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let block = block.to_owned();
                self.text = rest.to_owned();
                if let Some(id) = block.lines().find_map(|line| line.strip_prefix("id: ")) {
                    self.id = id.parse().expect("a number");
                }
                return Some(block);
            }
            let chunk = tokio::time::timeout(PATIENCE, self.response.chunk());
            let chunk = chunk.await.expect("something comes").ok().flatten()?;
            self.text
                .push_str(std::str::from_utf8(&chunk).expect("text"));
        }
    }
}
