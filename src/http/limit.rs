//! How often one client address may ask for what costs.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use axum::extract::ConnectInfo;
use axum::http::HeaderMap;
use governor::clock::DefaultClock;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};

/// Above this many addresses, idle ones are forgotten at a next request.
const REMEMBERED: usize = 100_000;
/// Forgetting looks at every address, so it may not happen at every request.
const FORGETTING: Duration = Duration::from_secs(1);

/// A limit per client address.
#[derive(Debug)]
pub struct PerClient {
    limiter: RateLimiter<IpAddr, DashMapStateStore<IpAddr>, DefaultClock>,
    behind_proxy: bool,
    forgotten: Mutex<Option<Instant>>,
}

impl PerClient {
    /// `per_minute` requests in a minute, which may also come at once.
    pub fn new(per_minute: NonZeroU32, behind_proxy: bool) -> Self {
        let limiter = RateLimiter::keyed(Quota::per_minute(per_minute));
        Self {
            limiter,
            behind_proxy,
            forgotten: Mutex::new(None),
        }
    }

    /// What this client counts under.
    pub fn address(
        &self,
        peer: Option<&ConnectInfo<SocketAddr>>,
        headers: &HeaderMap,
    ) -> Option<IpAddr> {
        self.client(peer, headers).map(network)
    }

    /// Whether this request is within the limit.
    pub fn allows(&self, peer: Option<&ConnectInfo<SocketAddr>>, headers: &HeaderMap) -> bool {
        if self.limiter.len() > REMEMBERED && self.may_forget(Instant::now()) {
            self.limiter.retain_recent();
        }
        match self.client(peer, headers) {
            Some(client) => self.limiter.check_key(&network(client)).is_ok(),
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

    /// The client's address: the peer, or what the proxy in front appended to X-Forwarded-For.
    fn client(
        &self,
        peer: Option<&ConnectInfo<SocketAddr>>,
        headers: &HeaderMap,
    ) -> Option<IpAddr> {
        let forwarded = headers.get_all("x-forwarded-for").iter().next_back();
        if self.behind_proxy
            && let Some(value) = forwarded.and_then(|value| value.to_str().ok())
            && let Some(last) = value.rsplit(',').next()
            && let Ok(client) = last.trim().parse()
        {
            return Some(client);
        }
        peer.map(|ConnectInfo(peer)| peer.ip())
    }
}

/// One household has a whole /64 of IPv6 addresses.
fn network(client: IpAddr) -> IpAddr {
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
        let limit = PerClient::new(NonZeroU32::new(2).expect("two"), false);
        let headers = HeaderMap::new();
        let (a, b) = (peer("192.0.2.1"), peer("192.0.2.2"));
        assert!(limit.allows(Some(&a), &headers) && limit.allows(Some(&a), &headers));
        assert!(!limit.allows(Some(&a), &headers));
        assert!(limit.allows(Some(&b), &headers));
    }

    #[test]
    fn what_a_client_says_of_itself_counts_only_behind_a_proxy() {
        let mut headers = HeaderMap::new();
        headers.insert(
            "x-forwarded-for",
            "198.51.100.9, 203.0.113.7".parse().expect("value"),
        );
        let direct = PerClient::new(NonZeroU32::MIN, false);
        let proxied = PerClient::new(NonZeroU32::MIN, true);
        let peer = peer("192.0.2.1");
        let seen = |limit: &PerClient| limit.client(Some(&peer), &headers).map(|ip| ip.to_string());
        assert_eq!(seen(&direct).as_deref(), Some("192.0.2.1"));
        assert_eq!(seen(&proxied).as_deref(), Some("203.0.113.7"));
    }

    #[test]
    fn idle_addresses_are_forgotten_once_a_second_at_most() {
        let limit = PerClient::new(NonZeroU32::MIN, false);
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
