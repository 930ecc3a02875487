//! The keys that results are signed by, and when: published ahead of use, kept for those who check old
//! results.

use std::time::Duration;

use serde::Serialize;

use super::ear;
use super::jwk::{Algorithm, Jwk};
use crate::time::Timestamp;

/// A key is published this long before it signs: whoever keeps the key set has it by then
/// (B.6 of the coordinator's interface).
pub const LEAD: Duration = Duration::from_secs(60 * 60);

/// A security event token has no end, and is checked when it arrives: by then at the latest.
const SIGNALS_CHECKED: Duration = Duration::from_secs(24 * 60 * 60);

/// How long others may keep the key set.
pub const KEPT: Duration = Duration::from_secs(5 * 60);

/// The public half of a key, and its times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultKey {
    pub jwk: Jwk,
    pub made_at: Timestamp,
    /// It signs from then on,
    pub signs_from: Timestamp,
    /// and not any more from here on; `None` while no other is to take its place.
    pub signs_until: Option<Timestamp>,
    /// It was in other hands, or may have been: nothing signed by it counts.
    pub withdrawn_at: Option<Timestamp>,
}

/// `/.well-known/jwks.json` (RFC 7517 section 5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct KeySet<'a> {
    pub keys: Vec<&'a Jwk>,
}

/// `/.well-known/jwks-history.json`: every key there ever was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = KeyHistory)]
pub struct History<'a> {
    pub keys: Vec<Former<'a>>,
}

/// A key of the history, with the times as RFC 7519 writes them, in seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = FormerKey)]
pub struct Former<'a> {
    #[serde(flatten)]
    pub jwk: &'a Jwk,
    /// What it signed is dated from then
    pub nbf: i64,
    /// until then, where it has an end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exp: Option<i64>,
    /// From then on nothing signed by it counts, whenever it is dated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<i64>,
}

impl ResultKey {
    /// Whether it signs at that time.
    pub fn signs(&self, now: Timestamp) -> bool {
        self.withdrawn_at.is_none()
            && self.signs_from <= now
            && self.signs_until.is_none_or(|end| now < end)
    }

    /// Whether something it signed may still be good, or soon will.
    fn is_published(&self, now: Timestamp) -> bool {
        let good_for = match self.jwk.alg {
            Algorithm::Es256 => ear::LIFETIME,
            Algorithm::Rs256 => SIGNALS_CHECKED,
        };
        let last = self.signs_until.map(|end| end.plus(good_for));
        self.withdrawn_at.is_none() && last.is_none_or(|last| now < last)
    }
}

/// The key that signs by this algorithm at that time: the latest of those that may.
pub fn signing(keys: &[ResultKey], alg: Algorithm, now: Timestamp) -> Option<&ResultKey> {
    keys.iter()
        .filter(|key| key.jwk.alg == alg && key.signs(now))
        .max_by_key(|key| key.signs_from)
}

/// The keys by which what is signed now, what is still good and what will be signed next is checked.
pub fn key_set(keys: &[ResultKey], now: Timestamp) -> KeySet<'_> {
    let published = keys.iter().filter(|key| key.is_published(now));
    KeySet {
        keys: published.map(|key| &key.jwk).collect(),
    }
}

/// All of them, the first made first.
pub fn history(keys: &[ResultKey]) -> History<'_> {
    let former = keys.iter().map(|key| Former {
        jwk: &key.jwk,
        nbf: key.signs_from.seconds(),
        exp: key.signs_until.map(Timestamp::seconds),
        revoked_at: key.withdrawn_at.map(Timestamp::seconds),
    });
    History {
        keys: former.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::jwk::Numbers;
    use super::*;

    #[test]
    fn a_key_stays_published_for_as_long_as_what_it_signed_is_checked() {
        let at = |hours: i64| Timestamp::from_seconds(1_790_847_007 + hours * 60 * 60);
        let key = |alg, kid: &str| ResultKey {
            jwk: Jwk {
                numbers: Numbers::Rsa {
                    n: String::new(),
                    e: String::new(),
                },
                alg,
                purpose: "sig".to_owned(),
                kid: kid.to_owned(),
            },
            made_at: at(0),
            signs_from: at(0),
            signs_until: Some(at(10)),
            withdrawn_at: None,
        };
        let keys = [
            key(Algorithm::Es256, "result"),
            key(Algorithm::Rs256, "signal"),
        ];
        let published = |hours| -> Vec<_> {
            let set = key_set(&keys, at(hours)).keys.into_iter();
            set.map(|key| key.kid.as_str()).collect()
        };
        assert_eq!(published(10), ["result", "signal"]);
        assert_eq!(published(11), ["signal"]);
        assert_eq!(published(33), ["signal"]);
        assert_eq!(published(34), [""; 0]);
        let signs = |alg, hours| signing(&keys, alg, at(hours)).map(|key| key.jwk.kid.as_str());
        assert_eq!(signs(Algorithm::Rs256, 9), Some("signal"));
        assert_eq!(signs(Algorithm::Rs256, 10), None);
    }
}
