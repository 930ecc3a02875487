//! What a token claims, and what is demanded of it.

use std::time::Duration;

use serde_json::{Map, Value};

use super::refused::Refused;
use crate::time::Timestamp;

/// How far ahead a provider's clock may be: of `nbf` and `iat`. An end is an end.
pub const LEEWAY: Duration = Duration::from_secs(60);
/// OpenID Connect Core 1.0 section 2: `sub` has no more than 255 characters.
const MAX_SUBJECT: usize = 255;
/// Characters of a name that is only shown.
const MAX_NAME: usize = 100;
/// Claims that only ID tokens (OpenID Connect Core 1.0 sections 2, 3.1.3.6, 3.3.2.11), logout tokens and security event
/// tokens (RFC 8417) have.
const NOT_FOR_ACCESS: [&str; 5] = ["nonce", "at_hash", "c_hash", "s_hash", "events"];

/// What is demanded of tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Exactly the `iss`.
    pub issuer: String,
    /// One of the `aud`.
    pub audience: String,
    /// The claim whose value, or values, say what somebody may do: its name, or where it begins with a slash,
    /// a JSON pointer (RFC 6901) to a member of a claim. `scope` is a list with spaces (RFC 8693 section 4.2).
    pub role_claim: String,
}

/// Somebody whom the provider vouches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bearer {
    pub issuer: String,
    /// Together with the issuer it is one person or program, for ever.
    pub subject: String,
    /// `preferred_username`: shown, and nothing else. It may change hands.
    pub name: Option<String>,
    /// What the role claim says; each may mean nothing.
    pub roles: Vec<String>,
    pub expires_at: Timestamp,
}

impl Bearer {
    /// Whoever these claims, whose signature is verified, are about.
    pub(super) fn of(
        claims: &Map<String, Value>,
        expected: &Expected,
        now: Timestamp,
    ) -> Result<Self, Refused> {
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        if text("iss") != Some(&expected.issuer) {
            return Err(Refused::Issuer);
        }
        if !is_for(claims.get("aud"), &expected.audience)? {
            return Err(Refused::Audience);
        }
        if NOT_FOR_ACCESS.iter().any(|name| claims.contains_key(*name)) || says_otherwise(claims) {
            return Err(Refused::NotForAccess);
        }
        // RFC 7800, RFC 8705 section 3, RFC 9449 section 7: a bearer shows no proof of possession.
        if claims.contains_key("cnf") {
            return Err(Refused::Bound);
        }
        let expires_at = time(claims, "exp")?.ok_or(Refused::NoEnd)?;
        if now >= expires_at {
            return Err(Refused::Expired);
        }
        for begins in ["nbf", "iat"] {
            if time(claims, begins)?.is_some_and(|at| at > now.plus(LEEWAY)) {
                return Err(Refused::NotYet);
            }
        }
        let is_plain = |text: &&str, most: usize| {
            (1..=most).contains(&text.chars().count()) && !text.chars().any(char::is_control)
        };
        let subject = text("sub").filter(|sub| is_plain(sub, MAX_SUBJECT));
        let name = text("preferred_username").filter(|name| is_plain(name, MAX_NAME));
        Ok(Self {
            issuer: expected.issuer.clone(),
            subject: subject.ok_or(Refused::Claims)?.to_owned(),
            name: name.map(str::to_owned),
            roles: roles(claims, &expected.role_claim)?,
            expires_at,
        })
    }
}

/// Keycloak says in `typ`, Amazon Cognito in `token_use`, what a token is for.
fn says_otherwise(claims: &Map<String, Value>) -> bool {
    let says = |name: &str, access: &str| {
        let said = claims.get(name).and_then(Value::as_str);
        said.is_some_and(|said| !said.eq_ignore_ascii_case(access))
    };
    says("typ", "Bearer") || says("token_use", "access")
}

/// RFC 7519 section 4.1.3: one text, or a list of them.
fn is_for(aud: Option<&Value>, audience: &str) -> Result<bool, Refused> {
    match aud {
        Some(Value::String(one)) => Ok(one == audience),
        Some(Value::Array(several)) if several.iter().all(Value::is_string) => {
            Ok(several.iter().any(|one| one == audience))
        }
        None => Ok(false),
        Some(_) => Err(Refused::Claims),
    }
}

/// RFC 7519 section 2, NumericDate: seconds since 1970, which may have a fraction.
fn time(claims: &Map<String, Value>, name: &str) -> Result<Option<Timestamp>, Refused> {
    let Some(value) = claims.get(name) else {
        return Ok(None);
    };
    let whole = value.as_i64().filter(|seconds| *seconds >= 0);
    let seconds = whole.or_else(|| {
        let seconds = value.as_f64()?;
        // Exact for every year that can be written.
        (0.0..=253_402_300_799.0)
            .contains(&seconds)
            .then_some(seconds as i64)
    });
    Ok(Some(Timestamp::from_seconds(
        seconds.ok_or(Refused::Claims)?,
    )))
}

fn roles(claims: &Map<String, Value>, claim: &str) -> Result<Vec<String>, Refused> {
    let value = match claim.strip_prefix('/') {
        None => claims.get(claim),
        Some(pointer) => {
            let (name, rest) = pointer.split_once('/').unwrap_or((pointer, ""));
            let rest = if rest.is_empty() {
                String::new()
            } else {
                format!("/{rest}")
            };
            let name = name.replace("~1", "/").replace("~0", "~");
            claims.get(&name).and_then(|value| value.pointer(&rest))
        }
    };
    match value {
        None => Ok(Vec::new()),
        Some(Value::String(scopes)) if claim == "scope" => {
            Ok(scopes.split(' ').map(str::to_owned).collect())
        }
        Some(Value::String(one)) => Ok(vec![one.clone()]),
        Some(Value::Array(several)) => several
            .iter()
            .map(|one| one.as_str().map(str::to_owned).ok_or(Refused::Claims))
            .collect(),
        Some(_) => Err(Refused::Claims),
    }
}
