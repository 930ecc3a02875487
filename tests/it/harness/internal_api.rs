//! The internal API as a coordinator uses it.

use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};

/// How long a journey waits for something that happens by itself.
const PATIENCE: Duration = Duration::from_secs(30);

/// A coordinator with its token.
#[derive(Debug, Clone)]
pub struct InternalApi {
    pub url: String,
    pub token: String,
    client: Client,
}

impl InternalApi {
    pub fn nowhere() -> Self {
        Self {
            url: String::new(),
            token: String::new(),
            client: Client::new(),
        }
    }

    /// The same API as the bearer of another token.
    pub fn with_token(&self, token: String) -> Self {
        Self {
            token,
            ..self.clone()
        }
    }

    /// A request with the token.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client
            .request(method, format!("{}{path}", self.url))
            .bearer_auth(&self.token)
    }

    pub async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path)
            .send()
            .await
            .expect("an answer")
    }

    /// The JSON of a successful answer.
    pub async fn json(&self, path: &str) -> Value {
        let answer = self.get(path).await;
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        answer.json().await.expect("JSON")
    }

    /// The device with this serial number.
    pub async fn device(&self, serial: &str) -> Option<Value> {
        let found = self
            .json(&format!("/internal/v1/devices?serial_number={serial}"))
            .await;
        found["devices"]
            .as_array()
            .expect("a list")
            .first()
            .cloned()
    }

    /// The id of the device with this serial number.
    pub async fn device_id(&self, serial: &str) -> String {
        let device = self.device(serial).await.expect("a device");
        device["device_id"].as_str().expect("an id").to_owned()
    }

    pub async fn posture(&self, serial: &str) -> Value {
        let device_id = self.device_id(serial).await;
        self.json(&format!("/internal/v1/devices/{device_id}/posture"))
            .await
    }

    /// Asks for fresh evidence of these kinds.
    pub async fn verify(&self, serial: &str, kinds: &[&str]) -> Value {
        let body = json!({ "device_id": self.device_id(serial).await, "kinds": kinds });
        let request = self
            .request(Method::POST, "/internal/v1/verifications")
            .json(&body);
        let answer = request.send().await.expect("an answer");
        assert!(answer.status().is_success(), "{}", answer.status());
        answer.json().await.expect("JSON")
    }

    /// The posture once it has this verdict.
    ///
    /// # Panics
    /// When it does not come to that.
    pub async fn verdict(&self, serial: &str, verdict: &str) -> Value {
        let wanted = |posture: &Value| posture["verdict"] == verdict;
        self.posture_once(serial, verdict, wanted).await
    }

    /// The posture once its first reason is this.
    pub async fn first_reason(&self, serial: &str, reason: &str) -> Value {
        self.posture_once(serial, reason, |posture| posture["reasons"][0] == reason)
            .await
    }

    async fn posture_once(
        &self,
        serial: &str,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        let mut last = Value::Null;
        let until = std::time::Instant::now() + PATIENCE;
        while std::time::Instant::now() < until {
            if self.device(serial).await.is_some() {
                last = self.posture(serial).await;
                if wanted(&last) {
                    return last;
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(wanted(&last), "{serial} did not come to {what}: {last:#}");
        last
    }
}
