//! Policies: data files that say what is demanded and how long evidence counts.

use serde::{Deserialize, Serialize};

use crate::ids::sha256;
use crate::time::Span;

/// The policy that ships as the default.
pub const STRICT: &str = include_str!("../../profiles/policies/strict.toml");

/// A policy and its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// `<name>/<first 16 hexadecimal digits of the file's SHA-256>`: named in every answer.
    pub id: String,
    pub rules: Rules,
}

/// What a policy file says. Unknown members are refused: a misspelt demand must not vanish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    pub name: String,
    pub require: Require,
    pub security_info: Lifetime,
    pub attestation: Lifetime,
}

/// What must be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Require {
    pub apple_chain: bool,
    pub security_info: bool,
    pub filevault: bool,
    pub authenticated_root: bool,
}

/// How long evidence of one kind counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lifetime {
    /// After this a refresh is due.
    pub fresh_for: Span,
    /// After this it is not usable.
    pub usable_for: Span,
}

/// Why a policy file is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    #[error("the policy is not well formed: {0}")]
    Malformed(String),
    #[error("evidence would be fresh for longer than it is usable")]
    FreshLongerThanUsable,
    #[error("a policy that requires neither an Apple chain nor SecurityInfo would affirm any Mac")]
    DemandsNothing,
}

impl Policy {
    /// Reads a policy file.
    pub fn parse(text: &str) -> Result<Self, Unusable> {
        let rules: Rules =
            toml::from_str(text).map_err(|error| Unusable::Malformed(error.to_string()))?;
        for lifetime in [&rules.security_info, &rules.attestation] {
            if lifetime.fresh_for > lifetime.usable_for {
                return Err(Unusable::FreshLongerThanUsable);
            }
        }
        if !rules.require.apple_chain && !rules.require.security_info {
            return Err(Unusable::DemandsNothing);
        }
        let hash = hex::encode(sha256(text.as_bytes()));
        Ok(Self {
            id: format!("{}/{}", rules.name, &hash[..16]),
            rules,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_policy_is_strict() {
        let policy = Policy::parse(STRICT).expect("shipped");
        assert!(policy.id.starts_with("strict/"));
        assert!(policy.rules.require.apple_chain && policy.rules.require.security_info);
    }

    #[test]
    fn refuses_what_it_does_not_understand_or_what_affirms_everything() {
        let misspelt = STRICT.replace("filevault = true", "filevalt = true");
        assert!(matches!(
            Policy::parse(&misspelt),
            Err(Unusable::Malformed(_))
        ));
        let nothing = STRICT
            .replace("apple_chain = true", "apple_chain = false")
            .replace("security_info = true", "security_info = false");
        assert_eq!(Policy::parse(&nothing), Err(Unusable::DemandsNothing));
        let upside_down = STRICT.replace("fresh_for = \"2h\"", "fresh_for = \"2d\"");
        assert_eq!(
            Policy::parse(&upside_down),
            Err(Unusable::FreshLongerThanUsable)
        );
    }
}
