//! The attestation client inside a Mac: what it caches, and when it asks Apple anew.
//!
//! The order of the tests is the decompiled one (apple-protocol 5.3): a young chain is given
//! whatever the nonce; an equal nonce gives the cached chain for ever; else a new one is made.

use openssl::error::ErrorStack;
use openssl::pkey::{PKey, Private};

use super::authority::{AttestationAuthority, Chain};
use super::leaf::AttestedState;
use crate::clock::DAY_MS;
use crate::keys::{self, KeyKind};

const WINDOW_MS: i64 = 7 * DAY_MS;

#[derive(Debug, Clone)]
struct Cached {
    chain: Chain,
    nonce: Option<Vec<u8>>,
    issued_ms: i64,
}

/// One Mac's cache and attested key, both emptied by [`AttestationClient::reset`].
#[derive(Debug, Clone, Default)]
pub struct AttestationClient {
    key: Option<PKey<Private>>,
    cached: Option<Cached>,
}

impl AttestationClient {
    /// The chain the Mac answers with, and whether Apple was asked for it just now.
    pub fn attestation(
        &mut self,
        authority: &AttestationAuthority,
        state: &AttestedState,
        nonce: Option<&[u8]>,
        now_ms: i64,
    ) -> Result<(Chain, bool), ErrorStack> {
        if let Some(cached) = self.served_from_cache(nonce, now_ms) {
            return Ok((cached, false));
        }
        let key = match &self.key {
            Some(key) => key.clone(),
            None => self.key.insert(keys::generate(KeyKind::P384)?).clone(),
        };
        let chain = authority.attest(state, &key, nonce, now_ms)?;
        self.cached = Some(Cached {
            chain: chain.clone(),
            nonce: nonce.map(<[u8]>::to_vec),
            issued_ms: now_ms,
        });
        Ok((chain, true))
    }

    /// What the cache answers, without asking Apple.
    pub fn served_from_cache(&self, nonce: Option<&[u8]>, now_ms: i64) -> Option<Chain> {
        let cached = self.cached.as_ref()?;
        let young = now_ms < cached.issued_ms + WINDOW_MS;
        // A missing nonce equals nothing: after the window it brings a chain without freshness.
        let same = nonce.is_some() && nonce == cached.nonce.as_deref();
        (young || same).then(|| cached.chain.clone())
    }

    /// Removal of the enrollment destroys the cache and the key.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use openssl::x509::X509;

    use super::*;
    use crate::apple::{BootPolicy, oid};
    use crate::der;

    fn state(os_version: &str) -> AttestedState {
        AttestedState {
            serial: "SIM0000001".into(),
            provisioning_udid: "00006040-0000000000000001".into(),
            software_update_device_id: "J773sAP".into(),
            os_version: os_version.into(),
            sepos_version: os_version.into(),
            llb_version: os_version.into(),
            boot: BootPolicy::default(),
        }
    }

    fn contains(chain: &Chain, dotted: &str) -> bool {
        let oid = der::oid(dotted).unwrap();
        chain.leaf.windows(oid.len()).any(|part| part == oid)
    }

    #[test]
    fn the_seven_day_rule_holds_in_all_its_cases() {
        let authority = AttestationAuthority::new().unwrap();
        let (mut client, state) = (AttestationClient::default(), state("26.6"));
        let mut ask = |nonce: Option<&[u8]>, day: f64| {
            client
                .attestation(&authority, &state, nonce, (day * DAY_MS as f64) as i64)
                .unwrap()
        };
        let (first, fresh) = ask(Some(b"one"), 0.0);
        assert!(fresh);
        assert_eq!(
            ask(Some(b"two"), 6.99),
            (first.clone(), false),
            "young: cached whatever the nonce"
        );
        assert_eq!(ask(None, 6.99), (first.clone(), false));
        assert_eq!(
            ask(Some(b"one"), 200.0),
            (first.clone(), false),
            "equal nonce: cached for ever"
        );
        let (second, fresh) = ask(Some(b"two"), 200.0);
        assert!(fresh && second != first);
        let (third, fresh) = ask(None, 207.0);
        assert!(
            fresh && !contains(&third, oid::FRESHNESS),
            "no nonce: no freshness"
        );
        assert!(contains(&second, oid::FRESHNESS));
    }

    #[test]
    fn the_key_outlives_a_renewal_but_not_a_reset() {
        let authority = AttestationAuthority::new().unwrap();
        let (mut client, state) = (AttestationClient::default(), state("26.6"));
        let key = |chain: &Chain| {
            X509::from_der(&chain.leaf)
                .unwrap()
                .public_key()
                .unwrap()
                .public_key_to_der()
                .unwrap()
        };
        let (first, _) = client
            .attestation(&authority, &state, Some(b"a"), 0)
            .unwrap();
        let (second, _) = client
            .attestation(&authority, &state, Some(b"b"), 8 * DAY_MS)
            .unwrap();
        client.reset();
        let (third, fresh) = client
            .attestation(&authority, &state, Some(b"c"), 8 * DAY_MS)
            .unwrap();
        assert!(fresh && key(&first) == key(&second) && key(&second) != key(&third));
    }

    #[test]
    fn the_boot_policy_is_attested_from_macos_14_2_only() {
        let authority = AttestationAuthority::new().unwrap();
        for (version, expected) in [("14.1", false), ("14.2", true)] {
            let (chain, _) = AttestationClient::default()
                .attestation(&authority, &state(version), Some(b"n"), 0)
                .unwrap();
            assert_eq!(contains(&chain, oid::SIP), expected, "{version}");
            assert!(contains(&chain, oid::SERIAL_NUMBER));
        }
    }
}
