//! Networks of the Internet Protocol, as settings name them.

// Addresses only: sockets are in `std`.
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// A network: `10.0.0.0/8`, `2001:db8::/32`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    address: IpAddr,
    /// Length of the prefix in bits.
    prefix: u8,
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let unusable = |why| format!("{text:?} is no network: {why}");
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text.as_str(), None),
        };
        let address: IpAddr = address
            .parse()
            .map_err(|_| unusable("write one such as 10.0.0.0/8"))?;
        let (bits, longest) = match address {
            IpAddr::V4(address) => (u128::from(address.to_bits()) << 96, 32),
            IpAddr::V6(address) => (address.to_bits(), 128),
        };
        let prefix = prefix.map_or(Ok(longest), str::parse);
        let prefix = prefix
            .ok()
            .filter(|prefix| *prefix <= longest)
            .ok_or_else(|| unusable("the length of its prefix is not one"))?;
        match bits.checked_shl(prefix.into()) {
            _ if prefix == 0 => Err(unusable("it would be everybody")),
            Some(1..) => Err(unusable("the address has bits beyond the prefix")),
            Some(0) | None => Ok(Self { address, prefix }),
        }
    }
}

impl Network {
    /// Whether an address is in it. One of IPv4 that is written as one of IPv6, as a socket of both
    /// families shows its peers, is the IPv4 address.
    pub fn contains(self, address: IpAddr) -> bool {
        let differing = match (address.to_canonical(), self.address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
            _ => return false,
        };
        differing >= u32::from(self.prefix)
    }
}

/// Whether an address is one of the public Internet: not of this machine, of a network that is nobody
/// else's business, of many at once, or set apart for something else (IANA's special-purpose
/// registries, RFC 6890). One of IPv4 in the clothes of IPv6 is judged as what it is.
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// Prefixes of IPv4 that are not of the public Internet, with their lengths.
const APART_V4: [(Ipv4Addr, u32); 15] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

fn is_public_v4(address: Ipv4Addr) -> bool {
    let is_of = |(prefix, length): &(Ipv4Addr, u32)| {
        (address.to_bits() ^ prefix.to_bits()).leading_zeros() >= *length
    };
    !APART_V4.iter().any(is_of)
}

/// Prefixes within 2000::/3, outside of which nothing is public: protocols and tunnels (Teredo and
/// 6to4, which lead to any address of IPv4), and documentation.
const APART_V6: [(Ipv6Addr, u32); 4] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

fn is_public_v6(address: Ipv6Addr) -> bool {
    let is_of = |(prefix, length): &(Ipv6Addr, u32)| {
        (address.to_bits() ^ prefix.to_bits()).leading_zeros() >= *length
    };
    address.to_bits() >> 125 == 1 && !APART_V6.iter().any(is_of)
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        format!("{}/{}", network.address, network.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        Network::try_from(text.to_owned()).expect(text)
    }

    #[test]
    fn networks_are_read_as_they_are_written() {
        for (text, written) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("192.0.2.1", "192.0.2.1/32"),
            ("192.0.2.254/31", "192.0.2.254/31"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("::1", "::1/128"),
        ] {
            assert_eq!(String::from(network(text)), written);
        }
    }

    #[test]
    fn what_is_no_network_or_everybody_is_refused() {
        for text in [
            "",
            "/8",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0.1/8",
            "10.0.0.0/8/8",
            "::/129",
            "2001:db8::1/32",
            "0.0.0.0/0",
            "::/0",
            "proxy.example.org",
        ] {
            assert!(Network::try_from(text.to_owned()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_network_ends_where_its_prefix_says() {
        for (in_network, address, inside) in [
            ("10.1.0.0/16", "10.1.0.0", true),
            ("10.1.0.0/16", "10.1.255.255", true),
            ("10.1.0.0/16", "10.2.0.0", false),
            ("10.1.0.0/16", "10.0.255.255", false),
            ("10.1.0.0/16", "::ffff:10.1.2.3", true),
            ("10.1.0.0/16", "::ffff:10.2.2.3", false),
            ("10.1.0.0/16", "a01::", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.0", false),
            ("::1", "::", false),
        ] {
            let address = address.parse().expect("an address");
            assert_eq!(network(in_network).contains(address), inside, "{address}");
        }
    }

    #[test]
    fn what_is_not_of_the_public_internet_is_told() {
        for public in [
            "1.1.1.1",
            "9.255.255.255",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.167.255.255",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2001:200::1",
            "2606:4700::1111",
            "3ffe::1",
            "::ffff:1.1.1.1",
        ] {
            assert!(is_public(public.parse().expect("an address")), "{public}");
        }
        for apart in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "100::1",
            "2001::1",
            "2001:1ff::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "4000::1",
            "5f00::1",
            "fc00::1",
            "fdff::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(apart.parse().expect("an address")), "{apart}");
        }
    }
}
