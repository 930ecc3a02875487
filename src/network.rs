//! Networks of the Internet Protocol, as settings name them.

// Addresses only: sockets are in `std`.
use core::net::IpAddr;

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
}
