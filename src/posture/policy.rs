//! Policies: data files that say what is demanded, how long evidence counts, and when it is asked
//! for again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::APPLE_WINDOW;
use super::trust::Level;
use crate::ids::sha256;
use crate::provider::challenge::StatusSignature;
use crate::provider::liveness;
use crate::time::Span;

/// The policy that ships as the default.
pub const STRICT: &str = include_str!("../../profiles/policies/strict.toml");
/// For a fleet that came from another server: its Macs speak by keys that nobody attested.
pub const ADOPTED: &str = include_str!("../../profiles/policies/adopted.toml");
/// The rule of the coordinator's first years, to migrate from.
pub const DARKBLOOM_2026: &str = include_str!("../../profiles/policies/darkbloom-2026.toml");

/// The policies that ship, by the names that a configuration selects them with.
pub const SHIPPED: [(&str, &str); 3] = [
    ("strict", STRICT),
    ("adopted", ADOPTED),
    ("darkbloom-2026", DARKBLOOM_2026),
];

/// The text of a policy that ships.
pub fn shipped(name: &str) -> Option<&'static str> {
    let found = SHIPPED.iter().find(|(known, _)| *known == name);
    found.map(|(_, text)| *text)
}

/// A policy and its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// `<name>/<first 16 hexadecimal digits of the file's SHA-256>`: named in every answer.
    pub id: String,
    /// SHA-256 of the file, hexadecimal: by it the text can be fetched.
    pub sha256: String,
    pub text: String,
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
    pub hardware: Hardware,
    pub routing: Routing,
    pub challenge: Challenge,
    pub boot_continuity: BootContinuity,
}

/// What a Mac's device plane must show to be affirming.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Require {
    pub apple_chain: bool,
    pub security_info: bool,
    pub filevault: bool,
    pub authenticated_root: bool,
}

/// How long evidence of one kind counts, and when it is asked for again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lifetime {
    /// After this it is stale: usable, a refresh due.
    pub fresh_for: Span,
    /// After this it is not usable.
    pub usable_for: Span,
    /// After this it is asked for again,
    pub ask_again: Span,
    /// or later by up to this, another time for each Mac and each round.
    pub spread: Span,
}

/// What the level `hardware` demands besides an affirming device plane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hardware {
    /// The Mac speaks by a key that Apple attested for the same serial number.
    pub attested_channel: bool,
    /// A statement of Apple's names the session's Secure Enclave key.
    pub key_binding: bool,
    pub session: SessionRule,
}

/// How a provider session is joined to a Mac.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionRule {
    /// The ticket named the session's key, or the accounts are the same, or an operator said so.
    Proved,
    /// The session's software says which serial number it runs on. Proves nothing.
    ClaimedSerial,
}

/// What a session must show to be routed to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Routing {
    pub floor: Level,
    /// The hash of the provider's binary is that of a registered release.
    pub release: bool,
}

/// How a session's key is kept proved alive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Challenge {
    /// From one answer to the next challenge.
    pub interval: Span,
    pub answer_within: Span,
    /// After this long without a good answer a session is not routed to.
    pub max_age: Span,
    /// Time-outs in a row that end routing until a good answer.
    pub max_failures: u32,
    /// Whether an answer without a signature over its status counts.
    pub status_signature_required: bool,
}

/// SIP, boot and kernel extension policy change only across a restart: while one process of the
/// provider lives, what was proved of its Mac stays true.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootContinuity {
    pub enabled: bool,
    /// The longest time between two answers of one process that still counts as unbroken.
    pub gap: Span,
}

/// Why a policy file is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    #[error("the policy is not well formed: {0}")]
    Malformed(String),
    #[error("{0}: evidence would be fresh for longer than it is usable")]
    FreshLongerThanUsable(&'static str),
    #[error("{0}: evidence would be asked for again only when it is not usable any more")]
    AskedTooLate(&'static str),
    #[error("{0}: it would be asked for more often than it can be answered; at least {1} apart")]
    AskedTooOften(&'static str, &'static str),
    #[error("challenge: a good answer would be too old before the next one can be there")]
    ChallengedTooLate,
    #[error("a policy that requires neither an Apple chain nor SecurityInfo would affirm any Mac")]
    DemandsNothing,
    #[error("routing.floor \"none\" would route to sessions that nothing good is known of")]
    RoutesToAnything,
    #[error("hardware.key_binding needs require.apple_chain: only Apple's statement names a key")]
    NothingNamesTheKey,
}

/// SecurityInfo is not asked for more often: APNs takes two or three pushes an hour for one Mac
/// (coordinator-and-standards A.15).
const CLOSEST_REPORTS: Duration = Duration::from_secs(10 * 60);

impl Policy {
    /// Reads a policy file.
    pub fn parse(text: &str) -> Result<Self, Unusable> {
        let rules: Rules =
            toml::from_str(text).map_err(|error| Unusable::Malformed(error.to_string()))?;
        rules.check()?;
        let hash = hex::encode(sha256(text.as_bytes()));
        Ok(Self {
            id: format!("{}/{}", rules.name, &hash[..16]),
            sha256: hash,
            text: text.to_owned(),
            rules,
        })
    }

    /// What this policy does not demand and the strict one does, by the names of its settings:
    /// every answer says so.
    pub fn waives(&self) -> Vec<&'static str> {
        let rules = &self.rules;
        [
            (rules.require.apple_chain, "require.apple_chain"),
            (rules.require.security_info, "require.security_info"),
            (rules.require.filevault, "require.filevault"),
            (rules.hardware.attested_channel, "hardware.attested_channel"),
            (rules.hardware.key_binding, "hardware.key_binding"),
            (
                rules.hardware.session == SessionRule::Proved,
                "hardware.session",
            ),
            (rules.routing.release, "routing.release"),
            (
                rules.challenge.status_signature_required,
                "challenge.status_signature_required",
            ),
        ]
        .into_iter()
        .filter_map(|(demanded, name)| (!demanded).then_some(name))
        .collect()
    }
}

impl Challenge {
    /// The same for those who count challenges.
    pub fn rules(&self) -> liveness::Rules {
        liveness::Rules {
            every: self.interval.0,
            answer_within: self.answer_within.0,
            max_age: self.max_age.0,
            time_outs: self.max_failures,
        }
    }

    /// Whether the status in an answer must be signed.
    pub fn status_signature(&self) -> StatusSignature {
        match self.status_signature_required {
            true => StatusSignature::Required,
            false => StatusSignature::Optional,
        }
    }
}

impl Rules {
    fn check(&self) -> Result<(), Unusable> {
        for (lifetime, name) in [
            (&self.security_info, "security_info"),
            (&self.attestation, "attestation"),
        ] {
            if lifetime.fresh_for > lifetime.usable_for {
                return Err(Unusable::FreshLongerThanUsable(name));
            }
            if lifetime.ask_again.0 + lifetime.spread.0 >= lifetime.usable_for.0 {
                return Err(Unusable::AskedTooLate(name));
            }
        }
        if self.security_info.ask_again.0 < CLOSEST_REPORTS {
            return Err(Unusable::AskedTooOften("security_info", "10m"));
        }
        if self.attestation.ask_again.0 < APPLE_WINDOW {
            return Err(Unusable::AskedTooOften("attestation", "7d"));
        }
        let challenge = &self.challenge;
        if challenge.interval.0 + challenge.answer_within.0 > challenge.max_age.0
            || challenge.max_failures == 0
        {
            return Err(Unusable::ChallengedTooLate);
        }
        if !self.require.apple_chain && !self.require.security_info {
            return Err(Unusable::DemandsNothing);
        }
        if self.routing.floor == Level::None {
            return Err(Unusable::RoutesToAnything);
        }
        if self.hardware.key_binding && !self.require.apple_chain {
            return Err(Unusable::NothingNamesTheKey);
        }
        Ok(())
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
            .replace("key_binding = true", "key_binding = false")
            .replace("security_info = true", "security_info = false");
        assert_eq!(Policy::parse(&nothing), Err(Unusable::DemandsNothing));
        let bottomless = STRICT.replace("floor = \"hardware\"", "floor = \"none\"");
        assert_eq!(Policy::parse(&bottomless), Err(Unusable::RoutesToAnything));
        let upside_down = STRICT.replace("fresh_for = \"2h\"", "fresh_for = \"2d\"");
        assert_eq!(
            Policy::parse(&upside_down),
            Err(Unusable::FreshLongerThanUsable("security_info"))
        );
    }

    #[test]
    fn refuses_clocks_that_cannot_work() {
        let with = |from: &str, to: &str| {
            assert!(STRICT.contains(from), "{from}");
            Policy::parse(&STRICT.replace(from, to)).map(|policy| policy.id)
        };
        assert_eq!(
            with("ask_again = \"48m\"", "ask_again = \"24h\""),
            Err(Unusable::AskedTooLate("security_info"))
        );
        assert_eq!(
            with("ask_again = \"48m\"", "ask_again = \"5m\""),
            Err(Unusable::AskedTooOften("security_info", "10m"))
        );
        assert_eq!(
            with("ask_again = \"7d\"", "ask_again = \"6d\""),
            Err(Unusable::AskedTooOften("attestation", "7d"))
        );
        assert_eq!(
            with("max_age = \"6m\"", "max_age = \"5m\""),
            Err(Unusable::ChallengedTooLate)
        );
        assert_eq!(
            with("apple_chain = true", "apple_chain = false"),
            Err(Unusable::NothingNamesTheKey)
        );
    }

    #[test]
    fn every_shipped_policy_is_found_by_the_name_it_gives_itself() {
        for (name, text) in SHIPPED {
            assert_eq!(Policy::parse(text).expect("shipped").rules.name, name);
            assert_eq!(shipped(name), Some(text));
        }
        assert_eq!(shipped("Strict"), None);
    }

    #[test]
    fn every_shipped_policy_says_what_it_waives() {
        let waives = |text| Policy::parse(text).expect("shipped").waives();
        assert_eq!(waives(STRICT), [""; 0]);
        assert_eq!(waives(ADOPTED), ["hardware.attested_channel"]);
        assert_eq!(
            waives(DARKBLOOM_2026),
            [
                "require.apple_chain",
                "require.filevault",
                "hardware.attested_channel",
                "hardware.key_binding",
                "hardware.session",
                "routing.release",
                "challenge.status_signature_required",
            ]
        );
    }
}
