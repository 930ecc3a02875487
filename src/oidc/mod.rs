//! Access tokens of an OpenID provider, as a resource server reads them: RFC 9068 and RFC 7519, by the rules of
//! RFC 8725; the provider's keys (RFC 7517) and where they are (OpenID Connect Discovery 1.0).
//!
//! A token that has the form of one is [`AccessToken::parse`]d first, so that what is refused for its form
//! costs no cryptography; only [`AccessToken::verify`] makes a [`Bearer`].

mod claims;
mod key_set;
mod metadata;
mod refused;
mod token;
#[cfg(test)]
mod token_test;

pub use self::claims::{Bearer, Expected, LEEWAY};
pub use self::key_set::{KeySet, MAX_KEY_SET, UnusableKeySet};
pub use self::metadata::{MAX_METADATA, UnusableMetadata, address, jwks_uri};
pub use self::refused::Refused;
pub use self::token::{AccessToken, MAX_TOKEN, has_form};
