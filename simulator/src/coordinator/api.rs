//! The server's internal API, as a coordinator asks it.

use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};

use super::CoordinatorError;
use crate::provider::Provider;

/// How long an answer may take that is not a stream.
const PATIENCE: Duration = Duration::from_secs(10);

/// The internal API, and the token it is asked by.
#[derive(Debug, Clone)]
pub struct Api {
    client: Client,
    url: String,
    token: String,
}

impl Api {
    /// `url` without a slash at its end.
    pub fn new(url: &str, token: &str) -> Self {
        Self {
            client: Client::new(),
            url: url.to_owned(),
            token: token.to_owned(),
        }
    }

    /// The token.
    pub fn token(&self) -> &str {
        &self.token
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.url));
        request.bearer_auth(&self.token)
    }

    /// # Errors
    /// No answer, or one that is no success.
    pub async fn get(&self, path: &str) -> Result<Value, CoordinatorError> {
        ask(self.request(Method::GET, path)).await
    }

    /// # Errors
    /// As [`Api::get`].
    pub async fn put(&self, path: &str, body: &Value) -> Result<Value, CoordinatorError> {
        ask(self.request(Method::PUT, path).json(body)).await
    }

    /// # Errors
    /// As [`Api::get`].
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, CoordinatorError> {
        ask(self.request(Method::POST, path).json(body)).await
    }

    /// # Errors
    /// As [`Api::get`].
    pub async fn delete(&self, path: &str) -> Result<(), CoordinatorError> {
        let request = self.request(Method::DELETE, path).timeout(PATIENCE);
        request.send().await?.error_for_status()?;
        Ok(())
    }

    /// The stream of events, after this one; from now on without one.
    ///
    /// # Errors
    /// As [`Api::get`].
    pub async fn events(&self, after: Option<&str>) -> Result<Response, CoordinatorError> {
        let mut request = self.request(Method::GET, "/internal/v1/events");
        if let Some(after) = after {
            request = request.header("Last-Event-ID", after);
        }
        Ok(request.send().await?.error_for_status()?)
    }

    /// A challenge to a provider that is there, and its answer back. Returns what the server says to that.
    ///
    /// # Errors
    /// As [`Api::get`].
    pub async fn challenge(
        &self,
        session: &str,
        provider: &Provider,
    ) -> Result<Value, CoordinatorError> {
        let asked = json!({ "session": session });
        let challenge = self.post("/internal/v1/challenges", &asked).await?;
        let text = |name: &'static str| {
            let text = challenge[name].as_str();
            text.ok_or(CoordinatorError::Missing(name))
        };
        let answer = provider.answer(text("nonce")?, text("timestamp")?)?;
        let path = format!("/internal/v1/challenges/{}/response", text("challenge_id")?);
        self.post(&path, &answer).await
    }
}

async fn ask(request: RequestBuilder) -> Result<Value, CoordinatorError> {
    let answer = request.timeout(PATIENCE).send().await?;
    Ok(answer.error_for_status()?.json().await?)
}
