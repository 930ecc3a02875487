//! The public listener as anybody reaches it, and what the server counted of it.

use attestd_sim::{MacError, Reply};
use reqwest::header::HeaderMap;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::Value;

use super::keys::rsa;
use super::scene::Scene;

/// An answer of the public listener.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The reason code that refusals to Macs carry as text.
    pub fn reason(&self) -> String {
        String::from_utf8_lossy(&self.body).trim().to_owned()
    }
}

/// A profile as it was delivered.
#[derive(Debug, Clone)]
pub struct Delivered {
    pub profile: Vec<u8>,
    /// The progress id of its ticket.
    pub progress_id: String,
}

/// Whatever happens, a Mac is never told what could make it remove its enrollment: 401, or 403
/// (apple-protocol 2.9). Every answer that a journey gets goes through here.
pub fn never_unenrolls(status: u16) {
    assert!(!matches!(status, 401 | 403), "a Mac was answered {status}");
}

/// A reply to a Mac: its status and, of a refusal, the reason.
pub fn told(reply: Result<Reply, MacError>) -> (u16, String) {
    let reply = reply.expect("an answer");
    never_unenrolls(reply.status);
    let text = if reply.is_success() {
        ""
    } else {
        std::str::from_utf8(&reply.body).expect("text")
    };
    (reply.status, text.trim().to_owned())
}

/// What [`told`] gives for a refusal.
pub fn refused(reason: &str) -> (u16, String) {
    (400, reason.to_owned())
}

/// What [`told`] gives for an accepted message.
pub fn accepted() -> (u16, String) {
    (200, String::new())
}

impl Scene {
    /// A request of somebody without any identity.
    pub fn anybody(&self, method: Method, path: &str) -> RequestBuilder {
        let mut client = Client::builder().no_proxy();
        if let Some(root) = &self.tls_root {
            let root = reqwest::Certificate::from_pem(root).expect("a root");
            client = client.tls_certs_only([root]);
        }
        let client = client.build().expect("a client");
        client.request(method, self.url(path))
    }

    pub async fn answer(&self, request: RequestBuilder) -> Answer {
        let response = request.send().await.expect("an answer");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        never_unenrolls(status);
        Answer {
            status,
            headers,
            body: response.bytes().await.expect("a body").to_vec(),
        }
    }

    /// Asks for a profile with this body.
    pub async fn ask_for_profile(&self, body: &str) -> Answer {
        let request = self.anybody(Method::POST, "/v1/enroll");
        let request = request
            .header("content-type", "application/json")
            .body(body.to_owned());
        self.answer(request).await
    }

    /// A profile for this body.
    pub async fn deliver(&self, body: &str) -> Delivered {
        let answer = self.ask_for_profile(body).await;
        assert_eq!(answer.status, 200, "{}", answer.reason());
        let link = answer.header("link");
        let progress_id = link
            .strip_prefix(&format!("<{}/v1/enrollments/", self.base_url))
            .and_then(|rest| rest.strip_suffix(">; rel=\"status\""));
        let progress_id = progress_id.expect("a link to the progress").to_owned();
        Delivered {
            profile: answer.body,
            progress_id,
        }
    }

    /// A profile for the Mac with this serial number.
    pub async fn deliver_for(&self, serial: &str) -> Delivered {
        self.deliver(&format!("{{\"serial_number\":\"{serial}\"}}"))
            .await
    }

    /// How far the enrolment of this ticket is.
    pub async fn progress(&self, progress_id: &str) -> Value {
        let path = format!("/v1/enrollments/{progress_id}");
        let answer = self.answer(self.anybody(Method::GET, &path)).await;
        assert_eq!(answer.status, 200);
        answer.json()
    }

    /// One step of it.
    pub async fn step(&self, progress_id: &str, step: &str) -> Value {
        step_of(&self.progress(progress_id).await, step)
    }

    /// How often something was refused so far.
    pub async fn refusals(&self, surface: &str, reason: &str) -> u64 {
        let (surface, reason) = (
            format!("surface=\"{surface}\""),
            format!("reason=\"{reason}\""),
        );
        self.counted("attestd_refusals_total", &[&surface, &reason])
            .await
    }

    /// The next Macs of this world get keys that other tests have used already.
    pub fn with_ready_keys(self, count: usize) -> Self {
        for number in 0..count {
            self.world.keys().add(rsa(number));
        }
        self
    }
}

/// One step of a progress answer.
pub fn step_of(progress: &Value, step: &str) -> Value {
    let steps = progress["steps"].as_array().expect("steps");
    steps
        .iter()
        .find(|found| found["step"] == step)
        .expect("the step")
        .clone()
}
