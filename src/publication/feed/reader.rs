//! Feeds as they are read back, by whoever checks one: ours, and those of the historic coordinator of
//! April and of September 2026 alike.
//!
//! Unknown members are passed over. Whatever two readers could read differently refuses the whole: a
//! repeated name, a known name in other letters, a provider that stands twice.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::attestation::Anchor;
use crate::json;
use crate::posture::Verdict;
use crate::posture::key_binding::KeyBinding;
use crate::posture::trust::Level;
use crate::time::Timestamp;

use super::Disclosure;

/// The largest feed that is read: 20,000 providers with their chains.
pub const MAX_FEED: usize = 256 * 1024 * 1024;

/// A feed, or the part of one that is about a single provider.
#[derive(Debug, Clone, Deserialize)]
pub struct Feed {
    /// The historic coordinator wrote `null` for none.
    #[serde(deserialize_with = "or_none")]
    pub providers: Vec<Entry>,
    pub apple_root_ca_url: String,
    pub apple_enterprise_root_ca: String,
    pub verification_instructions: String,
    /// Whose root the chains lead to; not said by the historic coordinator.
    pub anchor: Option<Anchor>,
    pub disclosure: Option<Disclosure>,
    pub policy_id: Option<String>,
}

/// One provider. What is optional was not said.
#[derive(Debug, Clone, Deserialize)]
pub struct Entry {
    pub provider_id: String,
    pub serial_number: Option<String>,
    pub trust_level: Level,
    pub status: String,
    pub chip_name: String,
    pub hardware_model: String,
    pub memory_gb: Option<u64>,
    pub gpu_cores: Option<u64>,
    pub models: Option<Vec<String>>,
    pub secure_enclave: bool,
    pub sip_enabled: bool,
    pub secure_boot_enabled: bool,
    pub authenticated_root_enabled: Option<bool>,
    pub system_volume_hash: Option<String>,
    /// The text, which is what nonces hash.
    pub se_public_key: String,
    pub mdm_verified: bool,
    pub acme_verified: bool,
    pub mda_verified: bool,
    /// DER, leaf first.
    #[serde(default, rename = "mda_cert_chain_b64", deserialize_with = "chain")]
    pub mda_cert_chain: Option<Vec<Vec<u8>>>,
    pub mda_serial: Option<String>,
    pub mda_udid: Option<String>,
    pub mda_os_version: Option<String>,
    pub mda_sepos_version: Option<String>,
    pub verification: Option<Verification>,
    pub app_attest_authorized: Option<bool>,
    #[serde(default, deserialize_with = "moment")]
    pub authorization_expires_at: Option<Timestamp>,
    pub se_key_bound: Option<KeyBinding>,
    pub residence_proved: Option<bool>,
    pub posture_verdict: Option<Verdict>,
    /// Codes; another version may have further ones.
    pub reasons: Option<Vec<String>>,
    pub usable_until: Option<Timestamp>,
    pub posture_observed_at: Option<Timestamp>,
    pub nonce_scheme: Option<String>,
    pub mda_leaf_not_before: Option<Timestamp>,
    pub evidence_url: Option<String>,
    /// The bytes that are signed.
    #[serde(default, rename = "attestation_raw_b64", deserialize_with = "octets")]
    pub attestation_raw: Option<Vec<u8>>,
    /// Over them: base64 of DER.
    pub signature_b64: Option<String>,
}

/// What the coordinator of September 2026 says beside the flags.
#[derive(Debug, Clone, Deserialize)]
pub struct Verification {
    #[serde(default, deserialize_with = "moment")]
    pub observed_at: Option<Timestamp>,
    pub app_attest: State,
    pub legacy: State,
}

/// `verified`, `pending`, `expired`, `revoked`, `unsupported` or `offline`.
#[derive(Debug, Clone, Deserialize)]
pub struct State {
    pub state: String,
    #[serde(default, deserialize_with = "moment")]
    pub verified_at: Option<Timestamp>,
    #[serde(default, deserialize_with = "moment")]
    pub expires_at: Option<Timestamp>,
}

/// Why bytes are no feed.
#[derive(Debug, thiserror::Error)]
pub enum FeedRefusal {
    #[error("larger than {MAX_FEED} bytes")]
    TooLarge,
    #[error("not one JSON object in which every name stands once: {0}")]
    NotAnObject(serde_json::Error),
    #[error("a member is called like {0} in other letters")]
    Respelled(&'static str),
    #[error("not a feed: {0}")]
    Form(serde_json::Error),
    #[error("the provider {0} stands twice")]
    Twice(String),
}

const TOP: &[&str] = &[
    "providers",
    "apple_root_ca_url",
    "apple_enterprise_root_ca",
    "verification_instructions",
    "anchor",
    "disclosure",
    "policy_id",
];

const OF_A_PROVIDER: &[&str] = &[
    "provider_id",
    "serial_number",
    "trust_level",
    "status",
    "chip_name",
    "hardware_model",
    "memory_gb",
    "gpu_cores",
    "models",
    "secure_enclave",
    "sip_enabled",
    "secure_boot_enabled",
    "authenticated_root_enabled",
    "system_volume_hash",
    "se_public_key",
    "mdm_verified",
    "acme_verified",
    "mda_verified",
    "mda_cert_chain_b64",
    "mda_serial",
    "mda_udid",
    "mda_os_version",
    "mda_sepos_version",
    "verification",
    "app_attest_authorized",
    "authorization_expires_at",
    "se_key_bound",
    "residence_proved",
    "posture_verdict",
    "reasons",
    "usable_until",
    "posture_observed_at",
    "nonce_scheme",
    "mda_leaf_not_before",
    "evidence_url",
    "attestation_raw_b64",
    "signature_b64",
];

impl Feed {
    /// Reads a feed. Nothing in it is verified by that.
    ///
    /// # Refusals
    /// See [`FeedRefusal`].
    pub fn read(bytes: &[u8]) -> Result<Self, FeedRefusal> {
        if bytes.len() > MAX_FEED {
            return Err(FeedRefusal::TooLarge);
        }
        let members = json::object(bytes).map_err(FeedRefusal::NotAnObject)?;
        refuse_respelled(&members, TOP)?;
        if let Some(Value::Array(providers)) = members.get("providers") {
            for provider in providers.iter().filter_map(Value::as_object) {
                refuse_respelled(provider, OF_A_PROVIDER)?;
            }
        }
        let feed: Self =
            serde_json::from_value(Value::Object(members)).map_err(FeedRefusal::Form)?;
        let mut known = BTreeSet::new();
        for provider in &feed.providers {
            if !known.insert(&provider.provider_id) {
                return Err(FeedRefusal::Twice(provider.provider_id.clone()));
            }
        }
        Ok(feed)
    }
}

fn refuse_respelled(
    members: &Map<String, Value>,
    known: &[&'static str],
) -> Result<(), FeedRefusal> {
    let mut respelled = members
        .keys()
        .filter_map(|name| json::respelled(name, known));
    match respelled.next() {
        Some(known) => Err(FeedRefusal::Respelled(known)),
        None => Ok(()),
    }
}

fn or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Entry>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// The coordinator of September 2026 writes seconds since 1970; its documentation shows RFC 3339.
fn moment<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Moment {
        Seconds(i64),
        Text(Timestamp),
    }
    let moment: Option<Moment> = Option::deserialize(deserializer)?;
    Ok(moment.map(|moment| match moment {
        Moment::Seconds(seconds) => Timestamp::from_seconds(seconds),
        Moment::Text(time) => time,
    }))
}

fn octets<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
    let text: Option<String> = Option::deserialize(deserializer)?;
    let octets = text.map(|text| STANDARD.decode(text)).transpose();
    octets.map_err(serde::de::Error::custom)
}

fn chain<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Vec<u8>>>, D::Error> {
    let texts: Option<Vec<String>> = Option::deserialize(deserializer)?;
    let decoded = texts.map(|texts| {
        texts
            .into_iter()
            .map(|text| STANDARD.decode(text))
            .collect()
    });
    decoded.transpose().map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const APRIL: &str = include_str!("../../../tests/fixtures/feed/feed.2026-04.json");
    const SEPTEMBER: &str = include_str!("../../../tests/fixtures/feed/feed.2026-09.json");
    const EMPTY: &str = include_str!("../../../tests/fixtures/feed/feed.empty.json");

    fn read(text: &str) -> Result<Feed, FeedRefusal> {
        Feed::read(text.as_bytes())
    }

    #[test]
    fn the_feeds_of_the_historic_coordinator_are_read() {
        let april = read(APRIL).expect("a feed");
        let [first, second] = &april.providers[..] else {
            panic!("two providers");
        };
        assert_eq!(first.trust_level, Level::Hardware);
        assert_eq!(first.serial_number.as_deref(), Some("FXSYNTH0001"));
        assert_eq!((first.memory_gb, first.gpu_cores), (Some(128), Some(40)));
        let chain = first.mda_cert_chain.as_ref().expect("a chain");
        assert_eq!((chain.len(), chain[0][0]), (2, 0x30));
        assert_eq!(first.mda_os_version.as_deref(), Some("26.4.1"));
        assert_eq!(second.trust_level, Level::SelfSigned);
        assert!(second.models.is_none() && second.mda_cert_chain.is_none());
        assert!(!second.mdm_verified && !second.mda_verified);

        let september = read(SEPTEMBER).expect("a feed");
        let only = &september.providers[0];
        assert!(only.serial_number.is_none() && only.mda_cert_chain.is_none());
        let verification = only.verification.as_ref().expect("a verification");
        assert_eq!(verification.app_attest.state, "unsupported");
        assert_eq!(verification.legacy.state, "verified");
        let observed_at = verification.observed_at.expect("a time");
        let text = format!("\"{observed_at}\"");
        let seconds = SEPTEMBER.replace(&text, &observed_at.seconds().to_string());
        assert_ne!(seconds, SEPTEMBER);
        let seconds = read(&seconds).expect("a feed");
        let told = seconds.providers[0].verification.as_ref();
        assert_eq!(told.and_then(|told| told.observed_at), Some(observed_at));
        assert!(only.se_key_bound.is_none() && only.attestation_raw.is_none());

        assert!(read(EMPTY).expect("a feed").providers.is_empty());
        let empty = EMPTY.replace("null", "[]");
        assert!(read(&empty).expect("a feed").providers.is_empty());
    }

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        let id = "6f0c0f5e-2b5e-4a41-9f1a-000000000002";
        let twice = APRIL.replace(id, "6f0c0f5e-2b5e-4a41-9f1a-000000000001");
        assert!(matches!(read(&twice), Err(FeedRefusal::Twice(_))));
        let status = "\"status\": \"online\",";
        for member in ["\"mda_verified\": true,", "\"mda\\u005fverified\": true,"] {
            let repeated = APRIL.replacen(status, &format!("{status}{member}"), 1);
            assert!(matches!(read(&repeated), Err(FeedRefusal::NotAnObject(_))));
        }
        let spelled = APRIL.replacen(status, &format!("{status}\"SE_key_bound\":\"bound\","), 1);
        assert!(matches!(
            read(&spelled),
            Err(FeedRefusal::Respelled("se_key_bound"))
        ));
        let spelled = EMPTY.replacen("\"providers\"", "\"Providers\": [], \"providers\"", 1);
        assert!(matches!(
            read(&spelled),
            Err(FeedRefusal::Respelled("providers"))
        ));
    }

    proptest! {
        #[test]
        fn no_single_changed_byte_makes_it_panic(at in 0..APRIL.len(), to in any::<u8>()) {
            let mut changed = APRIL.as_bytes().to_vec();
            changed[at] = to;
            if let Ok(feed) = Feed::read(&changed) {
                prop_assert_eq!(feed.providers.len(), 2);
            }
        }
    }

    #[test]
    fn what_is_no_feed_is_refused() {
        for (from, to) in [
            (
                "\"trust_level\": \"hardware\"",
                "\"trust_level\": \"platinum\"",
            ),
            ("\"mda_verified\": true", "\"mda_verified\": \"true\""),
            ("\"mda_verified\": true", "\"mda_verified\": 1"),
            ("\"secure_enclave\": true,", ""),
            ("MIIDKzCC", "MIIDKz!!"),
            ("\"providers\":", "\"suppliers\":"),
        ] {
            assert!(APRIL.contains(from), "{from}");
            let refused = read(&APRIL.replace(from, to));
            assert!(matches!(refused, Err(FeedRefusal::Form(_))), "{to}");
        }
        for text in ["", "[]", "null", "{", "{}{}"] {
            assert!(
                matches!(read(text), Err(FeedRefusal::NotAnObject(_))),
                "{text}"
            );
        }
    }
}
