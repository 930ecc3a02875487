//! The provider's X25519 key `K`: what private requests are encrypted to, new for each process.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::reason::Reason;

/// 32 bytes as standard base64 with padding: 44 characters, one text for each key.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EncryptionKey(String);

/// The text is not standard base64 with padding of 32 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the encryption key is not 32 bytes in standard base64")]
pub struct NotAnEncryptionKey;

impl NotAnEncryptionKey {
    /// Its code.
    pub fn reason(self) -> Reason {
        Reason::KeyRejected
    }
}

impl EncryptionKey {
    /// Reads the text of a key.
    pub fn parse(text: &str) -> Result<Self, NotAnEncryptionKey> {
        match STANDARD.decode(text) {
            Ok(bytes) if text.len() == 44 && bytes.len() == 32 => Ok(Self(text.to_owned())),
            _ => Err(NotAnEncryptionKey),
        }
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EncryptionKey({})", self.0)
    }
}

impl Serialize for EncryptionKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for EncryptionKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_32_bytes_and_has_one_text() {
        let text = "ZJ5SnkNniPZOlo0R/Nq/lRlAdDpsEBdgeXKAJjRllG0=";
        let key = EncryptionKey::parse(text).expect("a key");
        assert_eq!(key.as_str(), text);
        let stored = serde_json::to_string(&key).expect("JSON");
        assert_eq!(
            serde_json::from_str::<EncryptionKey>(&stored).ok(),
            Some(key)
        );
        for bad in [
            String::new(),
            text.trim_end_matches('=').to_owned(),
            text.replace('/', "_"),
            text.replace("G0=", "G1="),
            STANDARD.encode([0; 31]),
            STANDARD.encode([0; 33]),
            "z".repeat(10_000),
        ] {
            assert_eq!(EncryptionKey::parse(&bad), Err(NotAnEncryptionKey), "{bad}");
        }
    }
}
