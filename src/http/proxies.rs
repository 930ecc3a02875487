//! The reverse proxies in front, and what they alone may say: who the client is, and which
//! certificate it showed.

use std::net::{IpAddr, SocketAddr};

use axum::extract::ConnectInfo;
use axum::http::{Extensions, HeaderMap, HeaderName};

use super::client_tls::TlsCertificate;
use crate::ids::CertificateHash;
use crate::mdm::client_certificate::decode;
use crate::network::Network;

/// What is believed, of whom.
#[derive(Debug, Default)]
pub struct Proxies {
    /// Where proxies are.
    pub networks: Vec<Network>,
    /// Any peer is a proxy as far as client addresses go; only where no network is named.
    pub behind_proxy: bool,
    /// The header in which a proxy passes the client's certificate on.
    pub certificate_header: Option<HeaderName>,
}

impl Proxies {
    /// Whether this peer is one of the proxies.
    fn are_at(&self, peer: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(peer))
    }

    /// Whether this peer may pass on what others send.
    pub(super) fn may_be_at(&self, peer: IpAddr) -> bool {
        if self.networks.is_empty() {
            self.behind_proxy
        } else {
            self.are_at(peer)
        }
    }

    /// The client's address: the peer, or what the proxy in front appended to X-Forwarded-For.
    pub fn client(
        &self,
        peer: Option<&ConnectInfo<SocketAddr>>,
        headers: &HeaderMap,
    ) -> Option<IpAddr> {
        let peer = peer.map(|ConnectInfo(peer)| peer.ip());
        let believed = peer.is_some_and(|peer| self.may_be_at(peer));
        let forwarded = headers.get_all("x-forwarded-for").iter().next_back();
        if believed
            && let Some(value) = forwarded.and_then(|value| value.to_str().ok())
            && let Some(last) = value.rsplit(',').next()
            && let Ok(client) = last.trim().parse::<IpAddr>()
        {
            return Some(client.to_canonical());
        }
        peer
    }

    /// The certificate whose key the client proved to have: in the TLS handshake here, or in that
    /// of a proxy. The header of anybody else is as if it were not there, and a certificate that a
    /// proxy shows of its own says nothing of a Mac.
    ///
    /// # Refusals
    /// What a proxy passed on is no certificate, or the header came twice: a proxy that adds its own
    /// and leaves the client's cannot be believed. The text is for the operator.
    pub fn certificate(
        &self,
        extensions: &Extensions,
        headers: &HeaderMap,
    ) -> Result<Option<CertificateHash>, String> {
        let peer = extensions.get::<ConnectInfo<SocketAddr>>();
        if !peer.is_some_and(|ConnectInfo(peer)| self.are_at(peer.ip())) {
            return Ok(extensions.get::<TlsCertificate>().map(|shown| shown.0));
        }
        let Some(name) = &self.certificate_header else {
            return Ok(None);
        };
        let mut values = headers.get_all(name).iter();
        let Some(value) = values.next() else {
            return Ok(None);
        };
        if values.next().is_some() {
            return Err(format!("{name} came twice"));
        }
        match decode(value.as_bytes()) {
            Ok(certificate) => Ok(certificate.map(|certificate| certificate.hash())),
            Err(unreadable) => Err(format!("{name}: {unreadable}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;
    use crate::pki::read_certificates;

    const FORWARDED: &str = "198.51.100.9, 203.0.113.7";
    const NAME: HeaderName = HeaderName::from_static("client-cert");

    fn at(peer: &str) -> ConnectInfo<SocketAddr> {
        ConnectInfo(SocketAddr::new(peer.parse().expect("an address"), 1))
    }

    fn proxies() -> Proxies {
        Proxies {
            networks: vec![Network::try_from("10.1.0.0/16".to_owned()).expect("a network")],
            behind_proxy: true,
            certificate_header: Some(NAME),
        }
    }

    #[test]
    fn what_a_client_says_of_itself_counts_only_behind_a_proxy() {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", HeaderValue::from_static(FORWARDED));
        let seen = |proxies: &Proxies, peer: &str| {
            let client = proxies.client(Some(&at(peer)), &headers);
            client.map(|client| client.to_string()).expect("a client")
        };
        let direct = Proxies::default();
        let anybody = Proxies {
            behind_proxy: true,
            ..Proxies::default()
        };
        assert_eq!(seen(&direct, "192.0.2.1"), "192.0.2.1");
        assert_eq!(seen(&anybody, "192.0.2.1"), "203.0.113.7");
        // Where the proxies are named, nobody else is one.
        assert_eq!(seen(&proxies(), "192.0.2.1"), "192.0.2.1");
        assert_eq!(seen(&proxies(), "10.1.2.3"), "203.0.113.7");
    }

    #[test]
    fn a_certificate_is_taken_from_the_handshake_or_from_a_proxy_and_from_nobody_else() {
        let file = include_bytes!("../../tests/fixtures/mdm/sim-device-identity.pem");
        let passed_on = read_certificates(file).expect("PEM").remove(0).hash();
        let headers = include_str!("../../tests/fixtures/mdm/proxy-cert-headers.txt");
        let value = headers
            .lines()
            .find_map(|line| line.strip_prefix("Client-Cert: "));
        let value = HeaderValue::from_static(value.expect("a value"));
        let shown = CertificateHash::of(b"shown in the handshake");

        let seen = |proxies: &Proxies, peer: &str, values: &[&HeaderValue]| {
            let mut extensions = Extensions::new();
            extensions.insert(at(peer));
            extensions.insert(TlsCertificate(shown));
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(NAME, (*value).clone());
            }
            proxies.certificate(&extensions, &headers)
        };
        let (proxy, stranger) = ("10.1.2.3", "192.0.2.1");
        assert_eq!(seen(&proxies(), proxy, &[&value]), Ok(Some(passed_on)));
        assert_eq!(seen(&proxies(), proxy, &[]), Ok(None));
        assert_eq!(
            seen(&proxies(), proxy, &[&HeaderValue::from_static("")]),
            Ok(None)
        );
        assert_eq!(seen(&proxies(), stranger, &[&value]), Ok(Some(shown)));
        assert_eq!(seen(&proxies(), stranger, &[]), Ok(Some(shown)));
        let unnamed = Proxies {
            certificate_header: None,
            ..proxies()
        };
        assert_eq!(seen(&unnamed, proxy, &[&value]), Ok(None));
        // Client addresses are believed of anybody there, certificates are not.
        let anybody = Proxies {
            networks: Vec::new(),
            ..proxies()
        };
        assert_eq!(seen(&anybody, proxy, &[&value]), Ok(Some(shown)));

        let twice = seen(&proxies(), proxy, &[&value, &value]).expect_err("refused");
        assert!(twice.contains("twice"), "{twice}");
        let none = HeaderValue::from_static("CN=a Mac");
        assert!(seen(&proxies(), proxy, &[&none]).is_err());
    }
}
