//! What a virtual provider replies to a request for a chat completion. No model runs here: it says so, and
//! repeats what it was asked. What matters is that it signs its reply.

use openssl::error::ErrorStack;
use serde_json::{Value, json};

use super::Provider;
use crate::keys::random;

/// A reply, and the signature over all of its bytes.
#[derive(Debug, Clone)]
pub struct Completion {
    /// The body: whole, or event by event where a stream was asked for.
    pub parts: Vec<Vec<u8>>,
    /// Base64 of DER: ECDSA P-256 with SHA-256 over the parts one after the other.
    pub signature: String,
}

impl Completion {
    /// What is signed.
    pub fn covered(&self) -> Vec<u8> {
        self.parts.concat()
    }
}

impl Provider {
    /// Replies to a request, streamed where it says `"stream": true`.
    pub fn complete(&self, request: &Value) -> Result<Completion, ErrorStack> {
        let head = Head {
            id: format!("chatcmpl-{}", hex::encode(random::<12>()?)),
            created: self.clock.now_seconds(),
            model: &request["model"],
        };
        let text = format!("No model runs here. You said: {}", said(request));
        let parts = match request["stream"] == json!(true) {
            false => vec![head.whole(&text).to_string().into_bytes()],
            true => head.events(&text),
        };
        let signature = self.sign(&parts.concat())?;
        Ok(Completion { parts, signature })
    }
}

/// The last thing the user said, where it is a plain text.
fn said(request: &Value) -> &str {
    let messages = request["messages"].as_array().into_iter().flatten();
    let mut newest_first = messages.rev();
    let of_user = newest_first.find(|message| message["role"] == json!("user"));
    let last = of_user.and_then(|message| message["content"].as_str());
    last.unwrap_or_default()
}

/// What every object of one reply has.
struct Head<'a> {
    id: String,
    created: i64,
    model: &'a Value,
}

impl Head<'_> {
    fn object(&self, kind: &str, choice: Value) -> Value {
        json!({
            "id": self.id, "object": kind, "created": self.created, "model": self.model,
            "choices": [choice],
        })
    }

    fn whole(&self, text: &str) -> Value {
        let message = json!({ "role": "assistant", "content": text });
        let choice = json!({ "index": 0, "message": message, "finish_reason": "stop" });
        self.object("chat.completion", choice)
    }

    fn events(&self, text: &str) -> Vec<Vec<u8>> {
        let words = text.split_inclusive(' ');
        let words = words.map(|word| (json!({ "content": word }), Value::Null));
        let deltas = [(json!({ "role": "assistant" }), Value::Null)]
            .into_iter()
            .chain(words)
            .chain([(json!({}), json!("stop"))]);
        deltas
            .map(|(delta, end)| {
                let choice = json!({ "index": 0, "delta": delta, "finish_reason": end });
                let chunk = self.object("chat.completion.chunk", choice);
                format!("data: {chunk}\n\n").into_bytes()
            })
            .collect()
    }
}
