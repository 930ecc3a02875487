//! `[transparency]`: the log in which everything that is published can be found again.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Unusable;
use super::url::check_target;
use crate::transparency::note::{Kind, VerifierKey};

/// More would sign no better, and each is asked about every head.
const MOST_WITNESSES: usize = 16;

/// Whether there is one, and who watches it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Transparency {
    /// Results, withdrawals, policies, keys and releases are added to a log that only grows, below `/log`.
    pub enabled: bool,
    /// How many witnesses must have signed a head before it is published as witnessed.
    pub witness_quorum: NonZeroUsize,
    /// Who is asked to sign each head (C2SP `tlog-witness`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub witnesses: Vec<Witness>,
}

/// A witness.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Witness {
    /// Its submission prefix, `https://host[:port][/path]`: what `/add-checkpoint` follows.
    pub url: String,
    /// Its verifier key, of type 04 (Ed25519).
    pub vkey: String,
    /// A root for its certificate instead of the public ones, PEM.
    pub root: Option<PathBuf>,
    /// It may be on a private network or on this machine, and may then be plain http.
    #[serde(default)]
    pub allow_private: bool,
}

impl Default for Transparency {
    fn default() -> Self {
        Self {
            enabled: true,
            witness_quorum: NonZeroUsize::MIN,
            witnesses: Vec::new(),
        }
    }
}

impl Transparency {
    pub(super) fn check(&self) -> Result<(), Unusable> {
        let refused = |why: String| Err(Unusable::Witnesses(why));
        let (count, quorum) = (self.witnesses.len(), self.witness_quorum.get());
        if count == 0 {
            return match quorum {
                1 => Ok(()),
                _ => refused(format!("{quorum} must sign, but none is named")),
            };
        }
        if !self.enabled {
            return refused("there is no log to watch: enabled = false".to_owned());
        }
        if count > MOST_WITNESSES || quorum > count {
            return refused(format!(
                "{count} are named, of which {quorum} must sign; at most {MOST_WITNESSES} are asked"
            ));
        }
        let mut names = Vec::new();
        for witness in &self.witnesses {
            let key = match VerifierKey::read(&witness.vkey, Kind::Witness) {
                Ok(key) => key,
                Err(unusable) => return refused(format!("vkey {:?}: {unusable}", witness.vkey)),
            };
            if names.contains(&key.name) {
                return refused(format!("{} is named twice", key.name));
            }
            names.push(key.name);
            if witness.url.contains('?') || witness.url.ends_with('/') {
                return refused("url has neither a query nor a slash at its end".to_owned());
            }
            if let Err(why) = check_target(
                &witness.url,
                witness.allow_private,
                "transparency.witnesses",
            ) {
                return refused(format!("url {:?}: {why}", witness.url));
            }
        }
        Ok(())
    }

    /// Paths, which are relative to the configuration.
    pub(super) fn files(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let roots = self.witnesses.iter_mut();
        roots.filter_map(|witness| witness.root.as_mut())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "witness1.example+c0364380+BK4KgnGdmAZcknATa5u7glThgng+0+QEabhNOgJ+u6oY";
    const LOG: &str =
        "log.darkbloom.example/posture/2026+d508762f+Adr9GtLINdpUcu9YScScaJZF6RVA35lVLBFcQLBUUpi/";

    #[test]
    fn a_witness_is_one_that_can_be_asked_and_believed() {
        let check = |text: &str| {
            let read: Transparency = toml::from_str(text).map_err(|fault| fault.to_string())?;
            read.check().map_err(|unusable| unusable.to_string())
        };
        let witness = |url: &str, vkey: &str, more: &str| {
            format!("[[witnesses]]\nurl = \"{url}\"\nvkey = \"{vkey}\"\n{more}\n")
        };
        let fine = witness("https://witness.example/w", KEY, "");
        let local = witness("http://127.0.0.1:1", KEY, "allow_private = true");
        for text in ["", &fine, &local, &format!("witness_quorum = 1\n{fine}")] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
        for (text, says) in [
            (format!("enabled = false\n{fine}"), "no log to watch"),
            (format!("witness_quorum = 2\n{fine}"), "2 must sign"),
            ("witness_quorum = 2".to_owned(), "none is named"),
            (format!("witness_quorum = 0\n{fine}"), "nonzero"),
            (format!("{fine}{fine}"), "named twice"),
            (witness("https://witness.example", LOG, ""), "of type 01"),
            (
                witness("https://witness.example", "w", ""),
                "no verifier key",
            ),
            (witness("http://witness.example", KEY, ""), "allow_private"),
            (witness("https://10.0.0.1", KEY, ""), "allow_private"),
            (witness("https://witness.example/", KEY, ""), "slash"),
            (witness("https://witness.example?a", KEY, ""), "query"),
            (
                witness("https://u@witness.example", KEY, ""),
                "without user",
            ),
            (
                witness("https://witness.example", KEY, "rot = \"r\""),
                "rot",
            ),
        ] {
            let refusal = check(&text).expect_err(says);
            assert!(refusal.contains(says), "{refusal} / {says}");
        }
    }
}
