//! What a coordinator does for the sessions of its providers.

use attestd_sim::Provider;
use reqwest::Method;
use serde_json::{Value, json};

use super::internal_api::InternalApi;

impl InternalApi {
    /// A request with a JSON body; status and JSON of the answer, `null` where it has none.
    pub async fn ask(&self, method: Method, path: &str, body: &Value) -> (u16, Value) {
        let request = self.request(method, path).body(body.to_string());
        let answer = request.send().await.expect("an answer");
        let status = answer.status().as_u16();
        let body = answer.bytes().await.expect("a body");
        let json = match body.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(&body).expect("JSON"),
        };
        (status, json)
    }

    /// Registers a session.
    pub async fn bind(&self, session: &str, request: &Value) -> (u16, Value) {
        let path = format!("/internal/v1/bindings/{session}");
        self.ask(Method::PUT, &path, request).await
    }

    /// Registers a provider's process as a session, which must be taken.
    pub async fn bound(&self, session: &str, provider: &Provider, account: Option<&str>) -> Value {
        let request = provider.binding_request(account).expect("a request");
        let (status, bound) = self.bind(session, &request).await;
        assert_eq!(status, 200, "{bound:#}");
        bound
    }

    /// May it be routed to?
    pub async fn binding(&self, session: &str) -> Value {
        self.json(&format!("/internal/v1/bindings/{session}")).await
    }

    /// Ends a session.
    pub async fn unbind(&self, session: &str, query: &str) -> u16 {
        let path = format!("/internal/v1/bindings/{session}{query}");
        self.ask(Method::DELETE, &path, &Value::Null).await.0
    }

    /// A challenge for the session, which must be had.
    pub async fn challenged(&self, session: &str) -> Value {
        let body = json!({ "session": session });
        let (status, issued) = self
            .ask(Method::POST, "/internal/v1/challenges", &body)
            .await;
        assert_eq!(status, 201, "{issued:#}");
        issued
    }

    /// Brings the answer to a challenge.
    pub async fn respond(&self, issued: &Value, frame: &Value) -> (u16, Value) {
        let challenge_id = issued["challenge_id"].as_str().expect("an id");
        let path = format!("/internal/v1/challenges/{challenge_id}/response");
        self.ask(Method::POST, &path, frame).await
    }

    /// One round: a challenge, and this provider's answer to it.
    pub async fn challenge(&self, session: &str, provider: &Provider) -> Value {
        let issued = self.challenged(session).await;
        let (status, told) = self.respond(&issued, &answer(provider, &issued)).await;
        assert_eq!(status, 200, "{told:#}");
        told
    }
}

/// What a provider answers to a challenge.
pub fn answer(provider: &Provider, issued: &Value) -> Value {
    let text = |name: &str| issued[name].as_str().expect("a text");
    provider
        .answer(text("nonce"), text("timestamp"))
        .expect("an answer")
}
