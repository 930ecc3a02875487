//! What a push says: "connect", to one Mac, under one topic.

use std::time::Duration;

use crate::ids::Topic;
use crate::secret::Secret;
use crate::time::Timestamp;

/// Device tokens have 32 bytes; Apple says not to rely on it. Twice the longest seen.
const MAX_TOKEN: usize = 128;
/// PushMagic is a UUID in practice; the whole payload may have 4,096 bytes.
const MAX_MAGIC: usize = 1024;

/// How long APNs keeps trying to deliver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiration {
    /// Once, now. A sleeping Mac never hears of it.
    Once,
    /// Until this time; APNs keeps one push per Mac and topic and delivers it when the Mac is online.
    Until(Timestamp),
}

/// One push, ready to be sent.
#[derive(Debug)]
pub struct Wake {
    topic: Topic,
    path: Secret<String>,
    payload: Secret<Vec<u8>>,
    expiration: Expiration,
}

/// What was given does not make a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WakeRefusal {
    #[error("a push token has 1 to {MAX_TOKEN} bytes")]
    Token,
    #[error("a push magic has 1 to {MAX_MAGIC} bytes")]
    Magic,
}

impl Expiration {
    /// The value of `apns-expiration`: seconds since 1970, 0 for once.
    pub fn header(self) -> i64 {
        match self {
            Self::Once => 0,
            Self::Until(time) => time.seconds(),
        }
    }

    /// Kept for a week: as long as a Mac is reasonably asleep before somebody asks.
    pub fn usual(now: Timestamp) -> Self {
        Self::Until(now.plus(Duration::from_hours(7 * 24)))
    }
}

impl Wake {
    /// `apns-push-type` of every MDM push.
    pub const PUSH_TYPE: &'static str = "mdm";
    /// `apns-priority`: at once.
    pub const PRIORITY: &'static str = "10";

    /// A push to the Mac with this token and PushMagic, both as its TokenUpdate gave them.
    ///
    /// # Errors
    /// [`WakeRefusal`] when one of them is empty or larger than any honest one.
    pub fn new(
        topic: Topic,
        token: &Secret<Vec<u8>>,
        magic: &Secret<String>,
        expiration: Expiration,
    ) -> Result<Self, WakeRefusal> {
        let (token, magic) = (token.expose(), magic.expose());
        if !(1..=MAX_TOKEN).contains(&token.len()) {
            return Err(WakeRefusal::Token);
        }
        if !(1..=MAX_MAGIC).contains(&magic.len()) {
            return Err(WakeRefusal::Magic);
        }
        Ok(Self {
            topic,
            path: Secret::new(format!("/3/device/{}", hex::encode(token))),
            payload: Secret::new(payload(magic)),
            expiration,
        })
    }

    /// `apns-topic`.
    pub fn topic(&self) -> &Topic {
        &self.topic
    }

    /// The path: it holds the token.
    pub fn path(&self) -> &Secret<String> {
        &self.path
    }

    /// The body: it holds the PushMagic.
    pub fn payload(&self) -> &Secret<Vec<u8>> {
        &self.payload
    }

    /// How long APNs keeps it.
    pub fn expiration(&self) -> Expiration {
        self.expiration
    }
}

/// `{"mdm":"<PushMagic>"}`, and nothing else: no `aps`. The magic is from outside, so it is escaped.
fn payload(magic: &str) -> Vec<u8> {
    let text = serde_json::Value::from(magic).to_string();
    [br#"{"mdm":"#, text.as_bytes(), b"}"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wake(token: &[u8], magic: &str) -> Result<Wake, WakeRefusal> {
        Wake::new(
            Topic::parse("com.apple.mgmt.External.test").expect("a topic"),
            &Secret::new(token.to_vec()),
            &Secret::new(magic.to_owned()),
            Expiration::Once,
        )
    }

    #[test]
    fn the_payload_is_the_magic_and_nothing_else() {
        let made = wake(&[0xab, 0x01], "6F3C2B1A-9D8E-4F70-8A5B-1C2D3E4F5A6B").expect("made");
        let expected = br#"{"mdm":"6F3C2B1A-9D8E-4F70-8A5B-1C2D3E4F5A6B"}"#;
        assert_eq!(made.payload().expose(), expected);
        assert_eq!(made.path().expose(), "/3/device/ab01");
    }

    #[test]
    fn a_hostile_magic_stays_inside_its_string() {
        let hostile = "\"},\"aps\":{\"alert\":\"\u{0}\n\\";
        let made = wake(&[1], hostile).expect("made");
        let read: serde_json::Value =
            serde_json::from_slice(made.payload().expose()).expect("JSON");
        assert_eq!(read, serde_json::json!({ "mdm": hostile }));
    }

    #[test]
    fn empty_and_oversized_parts_are_refused() {
        assert_eq!(wake(&[], "m").err(), Some(WakeRefusal::Token));
        assert_eq!(wake(&[0; 129], "m").err(), Some(WakeRefusal::Token));
        assert_eq!(wake(&[0; 32], "").err(), Some(WakeRefusal::Magic));
        assert_eq!(
            wake(&[0; 32], &"m".repeat(1025)).err(),
            Some(WakeRefusal::Magic)
        );
    }

    #[test]
    fn expiration_is_in_seconds_and_usually_a_week_ahead() {
        let now = Timestamp::from_millis(1_800_000_000_999);
        assert_eq!(Expiration::Once.header(), 0);
        assert_eq!(Expiration::usual(now).header(), 1_800_000_000 + 604_800);
    }

    #[test]
    fn debug_shows_neither_token_nor_magic() {
        let made = wake(&[0xab; 32], "canary-4711").expect("made");
        let shown = format!("{made:?}");
        assert!(
            !shown.contains("canary") && !shown.contains("abab"),
            "{shown}"
        );
    }
}
