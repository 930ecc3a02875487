//! Who may manage and read a stream: OAuth 2.0 client credentials (RFC 6749 section 4.4).
//!
//! An access token is its own record, under a key of the service: none is stored, and whoever asks for
//! many takes no room. It ends soon; before that it ends with its receiver, who is looked up each time.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign, verify};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use crate::ids::{ReceiverId, transcript};
use crate::secret::Secret;
use crate::time::Timestamp;

/// How long a token is good. The profile allows an hour.
pub const LIFETIME: Duration = Duration::from_secs(30 * 60);

const PREFIX: &str = "ssf_";
/// Longest token that is looked at.
const LONGEST: usize = 512;

/// What may be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// `ssf.read`: see the stream, and take its tokens.
    pub read: bool,
    /// `ssf.manage`: change the stream.
    pub manage: bool,
}

impl Scope {
    /// Both.
    pub const ALL: Self = Self {
        read: true,
        manage: true,
    };

    /// Words with single spaces between them; `None` for any that is unknown, and for none.
    pub fn parse(words: &str) -> Option<Self> {
        let mut scope = Self {
            read: false,
            manage: false,
        };
        for word in words.split(' ') {
            match word {
                "ssf.read" => scope.read = true,
                "ssf.manage" => scope.manage = true,
                _ => return None,
            }
        }
        Some(scope)
    }

    /// Whether all of this may be done by who may do `other`.
    pub fn is_within(self, other: Self) -> bool {
        (!self.read || other.read) && (!self.manage || other.manage)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.read, self.manage) {
            (true, true) => "ssf.read ssf.manage",
            (true, false) => "ssf.read",
            (false, true) => "ssf.manage",
            (false, false) => "",
        })
    }
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    pub receiver_id: ReceiverId,
    pub scope: Scope,
    pub until: Timestamp,
}

/// Under which tokens are made, on every node alike.
#[derive(Debug)]
pub struct AccessKey(Secret<[u8; 32]>);

impl AccessKey {
    /// With a secret that nothing else uses.
    pub fn new(secret: [u8; 32]) -> Self {
        Self(Secret::new(secret))
    }

    /// A token that says this.
    pub fn grant(&self, access: &Access) -> Option<Secret<String>> {
        let says = serde_json::to_vec(access).ok()?;
        let tag = sign(&self.key(), &signed(&says));
        let (says, tag) = (URL_SAFE_NO_PAD.encode(says), URL_SAFE_NO_PAD.encode(tag));
        Some(Secret::new(format!("{PREFIX}{says}.{tag}")))
    }

    /// What a token of ours says, be it over; the tag is compared in constant time.
    pub fn read(&self, token: &str) -> Option<Access> {
        let parts = token
            .strip_prefix(PREFIX)
            .filter(|it| it.len() <= LONGEST)?;
        let (says, tag) = parts.split_once('.')?;
        let says = URL_SAFE_NO_PAD.decode(says).ok()?;
        let tag = URL_SAFE_NO_PAD.decode(tag).ok()?;
        verify(&self.key(), &signed(&says), &tag).ok()?;
        serde_json::from_slice(&says).ok()
    }

    fn key(&self) -> Key {
        Key::new(HMAC_SHA256, self.0.expose())
    }
}

fn signed(says: &[u8]) -> Vec<u8> {
    transcript(&[b"attestd shared signals access v1", says])
}

/// Who asks for a token (RFC 6749 section 2.3.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    pub client_id: String,
    pub client_secret: Secret<String>,
}

/// A request for a token (RFC 6749 section 4.4.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRequest {
    pub credentials: Credentials,
    /// Everything the client may have, where it does not say.
    pub scope: Option<String>,
}

/// The form of a request for a token. Credentials may stand in the header instead.
#[derive(Debug, Clone, Copy)]
pub struct TokenForm;

impl utoipa::ToSchema for TokenForm {}

impl utoipa::PartialSchema for TokenForm {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        use crate::json::{text_schema, words_schema};
        utoipa::openapi::ObjectBuilder::new()
            .property("grant_type", words_schema("How.", &["client_credentials"]))
            .property("scope", text_schema("`ssf.read`, `ssf.manage`, or both."))
            .property("client_id", text_schema("The receiver."))
            .property("client_secret", text_schema("Its secret."))
            .required("grant_type")
            .into()
    }
}

/// Why there is no token (RFC 6749 section 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoToken {
    #[error("the request is not a form with each parameter once")]
    InvalidRequest,
    #[error("the client is not known, or its secret is another")]
    InvalidClient,
    #[error("grant_type is client_credentials")]
    UnsupportedGrantType,
    #[error("the scope is some of: ssf.read ssf.manage, and no more than the client has")]
    InvalidScope,
}

impl NoToken {
    /// The word of the standard.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidClient => "invalid_client",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::InvalidScope => "invalid_scope",
        }
    }
}

impl TokenRequest {
    /// Reads the form, and the header `Authorization` where there is one. Credentials stand in one of the
    /// two, never in both (RFC 6749 section 2.3).
    ///
    /// # Errors
    /// See [`NoToken`].
    pub fn read(
        parameters: &[(String, String)],
        authorization: Option<&str>,
    ) -> Result<Self, NoToken> {
        let one = |name: &str| -> Result<Option<&String>, NoToken> {
            let mut found = parameters.iter().filter(|(it, _)| it == name);
            match (found.next(), found.next()) {
                (first, None) => Ok(first.map(|(_, value)| value)),
                (_, Some(_)) => Err(NoToken::InvalidRequest),
            }
        };
        let grant = one("grant_type")?.ok_or(NoToken::InvalidRequest)?;
        let (id, secret) = (one("client_id")?, one("client_secret")?);
        let credentials = match (authorization, id, secret) {
            (Some(header), id, None) => {
                let basic = basic(header).ok_or(NoToken::InvalidClient)?;
                if id.is_some_and(|id| *id != basic.client_id) {
                    return Err(NoToken::InvalidRequest);
                }
                basic
            }
            (None, Some(id), Some(secret)) => Credentials {
                client_id: id.clone(),
                client_secret: Secret::new(secret.clone()),
            },
            (Some(_), _, Some(_)) => return Err(NoToken::InvalidRequest),
            (None, ..) => return Err(NoToken::InvalidClient),
        };
        if grant != "client_credentials" {
            return Err(NoToken::UnsupportedGrantType);
        }
        Ok(Self {
            credentials,
            scope: one("scope")?.cloned(),
        })
    }
}

/// RFC 7617. Ids and secrets of ours are the same before and after the encoding of RFC 6749.
fn basic(header: &str) -> Option<Credentials> {
    let (scheme, encoded) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = Secret::new(STANDARD.decode(encoded.trim()).ok()?);
    let text = std::str::from_utf8(decoded.expose()).ok()?;
    let (id, secret) = text.split_once(':')?;
    Some(Credentials {
        client_id: id.to_owned(),
        client_secret: Secret::new(secret.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::entropy::SeededEntropy;

    fn access() -> Access {
        let now = Timestamp::from_seconds(1_790_847_007);
        Access {
            receiver_id: ReceiverId::new(now, &SeededEntropy::new(1)),
            scope: Scope::ALL,
            until: now.plus(LIFETIME),
        }
    }

    #[test]
    fn a_token_says_what_it_was_made_with_under_its_own_key_only() {
        let key = AccessKey::new([7; 32]);
        let token = key.grant(&access()).expect("a token");
        assert_eq!(key.read(token.expose()), Some(access()));
        assert_eq!(AccessKey::new([8; 32]).read(token.expose()), None);
    }

    proptest! {
        #[test]
        fn no_changed_character_makes_another_token(at in 0..400_usize, to in "[A-Za-z0-9._-]") {
            let key = AccessKey::new([7; 32]);
            let token = key.grant(&access()).expect("a token").expose().clone();
            let at = at % token.len();
            let changed = format!("{}{to}{}", &token[..at], &token[at + 1..]);
            prop_assume!(changed != token);
            prop_assert_eq!(key.read(&changed), None);
        }

        #[test]
        fn no_text_makes_it_panic(text in ".*") {
            prop_assert_eq!(AccessKey::new([7; 32]).read(&format!("{PREFIX}{text}")), None);
            let _ = TokenRequest::read(&[("grant_type".to_owned(), text.clone())], Some(&text));
        }
    }

    fn asked(form: &[(&str, &str)], header: Option<&str>) -> Result<TokenRequest, NoToken> {
        let form: Vec<_> = form
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        TokenRequest::read(&form, header)
    }

    const GRANT: (&str, &str) = ("grant_type", "client_credentials");

    #[test]
    fn credentials_stand_in_the_header_or_in_the_form() {
        let header = format!("Basic {}", STANDARD.encode("rcv_1:secret"));
        let by_header = asked(&[GRANT, ("scope", "ssf.read")], Some(&header)).expect("read");
        assert_eq!(by_header.credentials.client_id, "rcv_1");
        assert_eq!(by_header.scope.as_deref(), Some("ssf.read"));
        let form = [GRANT, ("client_id", "rcv_1"), ("client_secret", "secret")];
        let by_form = asked(&form, None).expect("read");
        assert_eq!(by_form.credentials, by_header.credentials);
        assert!(asked(&[GRANT, ("client_id", "rcv_1")], Some(&header)).is_ok());
    }

    #[test]
    fn every_other_request_has_the_word_of_the_standard() {
        let header = format!("Basic {}", STANDARD.encode("rcv_1:secret"));
        let header = Some(header.as_str());
        let secret = ("client_secret", "secret");
        for (form, header, word) in [
            (&[][..], header, "invalid_request"),
            (&[GRANT, GRANT], header, "invalid_request"),
            (&[GRANT, secret], header, "invalid_request"),
            (&[GRANT, ("client_id", "rcv_2")], header, "invalid_request"),
            (
                &[GRANT, ("scope", "a"), ("scope", "b")],
                header,
                "invalid_request",
            ),
            (&[GRANT], None, "invalid_client"),
            (&[GRANT, secret], None, "invalid_client"),
            (&[GRANT], Some("Bearer abc"), "invalid_client"),
            (&[GRANT], Some("Basic !"), "invalid_client"),
            (&[GRANT], Some("Basic"), "invalid_client"),
            (
                &[("grant_type", "password")],
                header,
                "unsupported_grant_type",
            ),
        ] {
            let refused = asked(form, header).expect_err(word);
            assert_eq!(refused.as_str(), word, "{form:?} {header:?}");
        }
    }

    #[test]
    fn a_scope_is_some_of_two_words() {
        assert_eq!(Scope::parse("ssf.manage ssf.read"), Some(Scope::ALL));
        let read = Scope::parse("ssf.read").expect("a scope");
        assert!(read.is_within(Scope::ALL) && !Scope::ALL.is_within(read));
        for bad in ["", " ", "ssf.read  ssf.manage", "ssf.write", "SSF.READ"] {
            assert_eq!(Scope::parse(bad), None, "{bad:?}");
        }
        assert_eq!(Scope::ALL.to_string(), "ssf.read ssf.manage");
    }
}
