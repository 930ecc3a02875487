//! How often one client address may ask for what costs.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::extract::ConnectInfo;
use axum::http::HeaderMap;
use governor::clock::DefaultClock;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};

use super::proxies::Proxies;

/// Above this many addresses, idle ones are forgotten at a next request.
const REMEMBERED: usize = 100_000;
/// Forgetting looks at every address, so it may not happen at every request.
const FORGETTING: Duration = Duration::from_secs(1);

/// A limit per client address.
#[derive(Debug)]
pub struct PerClient {
    limiter: RateLimiter<IpAddr, DashMapStateStore<IpAddr>, DefaultClock>,
    proxies: Arc<Proxies>,
    forgotten: Mutex<Option<Instant>>,
}

impl PerClient {
    /// `per_minute` requests in a minute, which may also come at once.
    pub fn new(per_minute: NonZeroU32, proxies: Arc<Proxies>) -> Self {
        let limiter = RateLimiter::keyed(Quota::per_minute(per_minute));
        Self {
            limiter,
            proxies,
            forgotten: Mutex::new(None),
        }
    }

    /// What this client counts under.
    pub fn address(
        &self,
        peer: Option<&ConnectInfo<SocketAddr>>,
        headers: &HeaderMap,
    ) -> Option<IpAddr> {
        self.proxies.client(peer, headers).map(network)
    }

    /// Whether this request is within the limit.
    pub fn allows(&self, peer: Option<&ConnectInfo<SocketAddr>>, headers: &HeaderMap) -> bool {
        if self.limiter.len() > REMEMBERED && self.may_forget(Instant::now()) {
            self.limiter.retain_recent();
        }
        match self.address(peer, headers) {
            Some(client) => self.limiter.check_key(&client).is_ok(),
            None => true,
        }
    }

    /// Whether it is this request's turn to forget idle addresses: one in [`FORGETTING`].
    fn may_forget(&self, now: Instant) -> bool {
        // Who finds it locked leaves it to the one who looks.
        let Ok(mut last) = self.forgotten.try_lock() else {
            return false;
        };
        let due = last.is_none_or(|last| now.saturating_duration_since(last) >= FORGETTING);
        if due {
            *last = Some(now);
        }
        due
    }
}

/// What an address counts as: one household has a whole /64 of IPv6 addresses.
pub(super) fn network(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(address) => {
            let mut octets = address.octets();
            octets[8..].fill(0);
            IpAddr::from(octets)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(address: &str) -> ConnectInfo<SocketAddr> {
        ConnectInfo(SocketAddr::new(address.parse().expect("address"), 1))
    }

    #[test]
    fn each_client_has_its_own_limit() {
        let limit = PerClient::new(NonZeroU32::new(2).expect("two"), Arc::default());
        let headers = HeaderMap::new();
        let (a, b) = (peer("192.0.2.1"), peer("192.0.2.2"));
        assert!(limit.allows(Some(&a), &headers) && limit.allows(Some(&a), &headers));
        assert!(!limit.allows(Some(&a), &headers));
        assert!(limit.allows(Some(&b), &headers));
    }

    #[test]
    fn idle_addresses_are_forgotten_once_a_second_at_most() {
        let limit = PerClient::new(NonZeroU32::MIN, Arc::default());
        let start = Instant::now();
        let turns = [0, 1, 999, 1_000, 1_001, 1_999, 2_000, 9_000];
        let turns = turns.map(|passed| limit.may_forget(start + Duration::from_millis(passed)));
        assert_eq!(turns, [true, false, false, true, false, false, true, true]);
    }

    #[test]
    fn neighbours_in_one_ipv6_network_share_a_limit() {
        let of = |text: &str| network(text.parse().expect("address"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
    }
}
