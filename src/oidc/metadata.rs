//! Where a provider's keys are: OpenID Connect Discovery 1.0, section 4.

use serde_json::Value;

use crate::json;

/// Most of a provider's metadata that is read.
pub const MAX_METADATA: usize = 128 * 1024;

/// Metadata that say nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnusableMetadata {
    #[error("the metadata are not one JSON object without repeated names")]
    Malformed,
    /// Section 4.3: whoever could answer in another's name could have their tokens believed.
    #[error("the metadata are of another issuer")]
    Issuer,
    #[error("the metadata name no jwks_uri")]
    NoKeys,
}

/// Where an issuer's metadata are (section 4.1).
pub fn address(issuer: &str) -> String {
    let issuer = issuer.trim_end_matches('/');
    format!("{issuer}/.well-known/openid-configuration")
}

/// Where the keys of this issuer are, as its metadata say.
///
/// # Errors
/// [`UnusableMetadata`].
pub fn jwks_uri(metadata: &[u8], issuer: &str) -> Result<String, UnusableMetadata> {
    let members = json::object(metadata).map_err(|_| UnusableMetadata::Malformed)?;
    let says = |name: &str| members.get(name).and_then(Value::as_str);
    if says("issuer") != Some(issuer) {
        return Err(UnusableMetadata::Issuer);
    }
    says("jwks_uri")
        .map(str::to_owned)
        .ok_or(UnusableMetadata::NoKeys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_count_of_the_very_issuer_only() {
        let issuer = "https://id.example.org/realms/fleet";
        for given in [issuer.to_owned(), format!("{issuer}/")] {
            let expected = format!("{issuer}/.well-known/openid-configuration");
            assert_eq!(address(&given), expected);
        }
        let keys = "https://keys.example.org/jwks";
        let good = format!(r#"{{"issuer":"{issuer}","jwks_uri":"{keys}","x":[1]}}"#);
        assert_eq!(jwks_uri(good.as_bytes(), issuer), Ok(keys.to_owned()));
        for (text, expected) in [
            (good.replace("fleet", "Fleet"), UnusableMetadata::Issuer),
            (good.replace("fleet", "fleet/"), UnusableMetadata::Issuer),
            (good.replace("issuer", "iss"), UnusableMetadata::Issuer),
            (good.replace("jwks_uri", "jwks"), UnusableMetadata::NoKeys),
            (
                good.replace("\"x\"", "\"issuer\""),
                UnusableMetadata::Malformed,
            ),
            ("[]".to_owned(), UnusableMetadata::Malformed),
        ] {
            assert_eq!(jwks_uri(text.as_bytes(), issuer), Err(expected), "{text}");
        }
    }
}
