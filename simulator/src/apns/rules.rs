//! What Apple checks about one request, and the answers (apple-protocol 9.1, 9.2). Pure.

use http::{HeaderMap, Method};
use serde_json::{Value, json};

/// The largest payload APNs takes.
const MAX_PAYLOAD: usize = 4096;

/// An answer other than 200.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rejection {
    pub(super) status: u16,
    pub(super) reason: &'static str,
    /// Since when the token is dead, milliseconds; only with 410.
    pub(super) timestamp: Option<i64>,
}

impl Rejection {
    pub(super) fn new(status: u16, reason: &'static str) -> Self {
        Self {
            status,
            reason,
            timestamp: None,
        }
    }

    /// The JSON body.
    pub(super) fn body(&self) -> String {
        match self.timestamp {
            None => json!({ "reason": self.reason }).to_string(),
            Some(at) => json!({ "reason": self.reason, "timestamp": at }).to_string(),
        }
    }
}

/// A request that passed the checks that need no knowledge of the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Push {
    pub(super) magic: String,
    pub(super) expiration: Option<i64>,
}

/// The device token in the path of a POST.
pub(super) fn token(method: &Method, path: &str) -> Result<String, Rejection> {
    let Some(token) = path.strip_prefix("/3/device/") else {
        return Err(if path == "/3/device" {
            Rejection::new(400, "MissingDeviceToken")
        } else {
            Rejection::new(404, "BadPath")
        });
    };
    if method != Method::POST {
        return Err(Rejection::new(405, "MethodNotAllowed"));
    }
    if token.is_empty() {
        return Err(Rejection::new(400, "MissingDeviceToken"));
    }
    // Mac tokens are 32 bytes today, in hexadecimal (apple-protocol 2.4, 12).
    if token.len() != 64 || !token.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Rejection::new(400, "BadDeviceToken"));
    }
    Ok(token.to_lowercase())
}

/// Headers and body against the topic the client's certificate names.
pub(super) fn push(
    headers: &HeaderMap,
    body: &[u8],
    certificate_topic: &str,
) -> Result<Push, Rejection> {
    let bad = |reason| Rejection::new(400, reason);
    for name in [
        "apns-topic",
        "apns-push-type",
        "apns-id",
        "apns-expiration",
        "apns-priority",
        "apns-collapse-id",
    ] {
        if headers.get_all(name).iter().count() > 1 {
            return Err(bad("DuplicateHeaders"));
        }
    }
    let header = |name: &str| {
        headers
            .get(name)
            .map(|value| value.to_str().unwrap_or("\u{fffd}"))
    };
    let topic = header("apns-topic").ok_or(bad("MissingTopic"))?;
    if !topic.starts_with("com.apple.mgmt.") {
        return Err(bad("BadTopic"));
    }
    if topic != certificate_topic {
        return Err(bad("TopicDisallowed"));
    }
    if header("apns-push-type").is_some_and(|kind| kind != "mdm") {
        return Err(bad("InvalidPushType"));
    }
    if header("apns-id").is_some_and(|id| uuid::Uuid::try_parse(id).is_err()) {
        return Err(bad("BadMessageId"));
    }
    if header("apns-priority").is_some_and(|priority| !["10", "5", "1"].contains(&priority)) {
        return Err(bad("BadPriority"));
    }
    if header("apns-collapse-id").is_some_and(|id| id.len() > 64) {
        return Err(bad("BadCollapseId"));
    }
    let expiration = match header("apns-expiration") {
        None => None,
        Some(text) => Some(
            text.parse::<u32>()
                .map(i64::from)
                .map_err(|_| bad("BadExpirationDate"))?,
        ),
    };
    if body.len() > MAX_PAYLOAD {
        return Err(Rejection::new(413, "PayloadTooLarge"));
    }
    // Exactly {"mdm": "<PushMagic>"}. What Apple answers to other JSON is not documented; of the
    // documented reasons this is the one about a payload without use.
    let payload: Value = serde_json::from_slice(body).map_err(|_| bad("PayloadEmpty"))?;
    let magic = match payload.as_object() {
        Some(members) if members.len() == 1 => members.get("mdm").and_then(Value::as_str),
        _ => None,
    };
    let magic = magic.ok_or(bad("PayloadEmpty"))?.to_owned();
    Ok(Push { magic, expiration })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: &str = "com.apple.mgmt.External.0f0e0d0c-0b0a-4908-8706-050403020100";
    const BODY: &[u8] = br#"{"mdm":"6F3C2B1A"}"#;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    #[test]
    fn a_complete_request_and_a_minimal_one_pass() {
        let full = headers(&[
            ("apns-topic", TOPIC),
            ("apns-push-type", "mdm"),
            ("apns-priority", "10"),
            ("apns-expiration", "1790847007"),
            ("apns-id", "eabeae54-14a8-11e5-b60b-1697f925ec7b"),
        ]);
        let expected = Push {
            magic: "6F3C2B1A".into(),
            expiration: Some(1_790_847_007),
        };
        assert_eq!(push(&full, BODY, TOPIC), Ok(expected));
        assert!(push(&headers(&[("apns-topic", TOPIC)]), BODY, TOPIC).is_ok());
    }

    #[test]
    fn each_fault_has_apples_reason() {
        let with = |name, value| headers(&[("apns-topic", TOPIC), (name, value)]);
        let large = [b"{\"mdm\":\"", &[b'a'; 5000][..], b"\"}"].concat();
        let cases: [(HeaderMap, &[u8], u16, &str); 12] = [
            (HeaderMap::new(), BODY, 400, "MissingTopic"),
            (
                headers(&[("apns-topic", "com.example.app")]),
                BODY,
                400,
                "BadTopic",
            ),
            (
                headers(&[("apns-topic", "com.apple.mgmt.External.other")]),
                BODY,
                400,
                "TopicDisallowed",
            ),
            (with("apns-topic", TOPIC), BODY, 400, "DuplicateHeaders"),
            (
                with("apns-push-type", "alert"),
                BODY,
                400,
                "InvalidPushType",
            ),
            (with("apns-id", "7"), BODY, 400, "BadMessageId"),
            (with("apns-priority", "11"), BODY, 400, "BadPriority"),
            (
                with("apns-expiration", "tomorrow"),
                BODY,
                400,
                "BadExpirationDate",
            ),
            (with("apns-priority", "5"), b"", 400, "PayloadEmpty"),
            (
                with("apns-priority", "5"),
                br#"{"mdm":"a","aps":{}}"#,
                400,
                "PayloadEmpty",
            ),
            (
                with("apns-priority", "5"),
                br#"{"mdm":7}"#,
                400,
                "PayloadEmpty",
            ),
            (with("apns-priority", "5"), &large, 413, "PayloadTooLarge"),
        ];
        for (headers, body, status, reason) in cases {
            assert_eq!(
                push(&headers, body, TOPIC),
                Err(Rejection::new(status, reason))
            );
        }
    }

    #[test]
    fn paths_and_methods_are_checked() {
        let good = format!("/3/device/{}", "aB".repeat(32));
        assert_eq!(token(&Method::POST, &good), Ok("ab".repeat(32)));
        for (method, path, status, reason) in [
            (Method::GET, good.as_str(), 405, "MethodNotAllowed"),
            (Method::POST, "/2/device/aa", 404, "BadPath"),
            (Method::POST, "/3/device/", 400, "MissingDeviceToken"),
            (Method::POST, "/3/device/xyz", 400, "BadDeviceToken"),
        ] {
            assert_eq!(
                token(&method, path),
                Err(Rejection::new(status, reason)),
                "{path}"
            );
        }
    }
}
