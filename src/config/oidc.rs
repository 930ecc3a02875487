//! `[internal.oidc]`: an OpenID provider whose access tokens let somebody in.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Unusable;
use super::url::check_target;

/// More than any fleet has; each is a name that somebody must have thought of.
const MOST_ROLES: usize = 100;

/// An OpenID provider, and what its tokens are good for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Oidc {
    /// The provider's issuer identifier, `https://…`, exactly as it writes it.
    pub issuer: String,
    /// What a token must be for: the name of this API at the provider.
    pub audience: String,
    /// The claim that says what somebody may do; with a slash before it, the way to a member of a claim.
    pub role_claim: String,
    /// The role of each value of that claim. A value that is not here gives nothing.
    pub roles: BTreeMap<String, String>,
    /// Where its keys are. Absent: its metadata say so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwks_url: Option<String>,
    /// A root for its certificate instead of the public ones, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<PathBuf>,
    /// It may be on a private network or on this machine.
    #[serde(default)]
    pub allow_private: bool,
}

impl Oidc {
    pub(super) fn check(&self) -> Result<(), Unusable> {
        let refused = |why: String| Err(Unusable::Oidc(why));
        // OpenID Connect Discovery 1.0 section 4: https, no query, no fragment.
        let is_https =
            |url: &str| url.starts_with("https://") && !url.contains(char::is_whitespace);
        let private = self.allow_private;
        if !is_https(&self.issuer) || self.issuer.contains('?') {
            return refused(format!(
                "issuer must be https://host[:port][/path], as the provider writes it, but is {:?}",
                self.issuer
            ));
        }
        if let Err(why) = check_target(&self.issuer, private, "internal.oidc") {
            return refused(format!("issuer: {why}"));
        }
        if let Some(url) = &self.jwks_url {
            if !is_https(url) {
                return refused(format!("jwks_url must be https://…, but is {url:?}"));
            }
            if let Err(why) = check_target(url, private, "internal.oidc") {
                return refused(format!("jwks_url: {why}"));
            }
        }
        if self.audience.is_empty() {
            return refused(
                "audience must be what the provider calls this API: without it every token of the provider would do"
                    .to_owned(),
            );
        }
        if self.role_claim.trim_matches('/').is_empty() {
            return refused("role_claim must name a claim".to_owned());
        }
        if self.roles.is_empty() || self.roles.len() > MOST_ROLES {
            return refused(format!(
                "roles says which values of the claim {:?} are which role, for 1 to {MOST_ROLES} of them",
                self.role_claim
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_is_one_that_can_be_asked_and_is_not_believed_of_everything() {
        let check = |text: &str| {
            let read: Oidc = toml::from_str(text).map_err(|fault| fault.to_string())?;
            read.check().map_err(|unusable| unusable.to_string())
        };
        let fine = "issuer = \"https://id.example.org/realms/fleet\"\naudience = \"attestd\"\n\
                    role_claim = \"groups\"\nroles = { attestd-operators = \"operator\" }\n";
        let local = "issuer = \"https://127.0.0.1:8443\"";
        let issuer = "issuer = \"https://id.example.org/realms/fleet\"";
        let more = |line: &str| format!("{line}\n{fine}");
        for text in [
            fine.to_owned(),
            more("jwks_url = \"https://keys.example.org/a?b=c\""),
            more("allow_private = true").replace(issuer, local),
        ] {
            assert_eq!(check(&text), Ok(()), "{text}");
        }
        for (text, says) in [
            (fine.replace("https:", "http:"), "issuer must be https://"),
            (
                more("allow_private = true").replace("https:", "http:"),
                "issuer must be https://",
            ),
            (
                fine.replace("/fleet", "/fleet?a"),
                "issuer must be https://",
            ),
            (fine.replace("/fleet", "/fleet#a"), "fragment"),
            (fine.replace(issuer, local), "allow_private"),
            (
                more("jwks_url = \"http://keys.example.org\""),
                "jwks_url must be https://",
            ),
            (
                more("jwks_url = \"https://10.0.0.1/keys\""),
                "allow_private",
            ),
            (fine.replace("\"attestd\"", "\"\""), "audience"),
            (fine.replace("\"groups\"", "\"/\""), "role_claim"),
            (
                fine.replace("attestd-operators = \"operator\"", ""),
                "roles",
            ),
            (more("client_secret = \"x\""), "client_secret"),
        ] {
            let refusal = check(&text).expect_err(says);
            assert!(refusal.contains(says), "{refusal} / {says}");
        }
    }
}
