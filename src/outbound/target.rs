//! Where a message is sent that somebody else asked for.

use std::fmt;

use http::Uri;
use http::uri::{Authority, PathAndQuery};
use rustls_pki_types::ServerName;

use crate::network::is_public;

/// An address that messages are posted to: `https://host[:port]/path?query`.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    is_tls: bool,
    host: ServerName<'static>,
    port: u16,
    authority: Authority,
    path: PathAndQuery,
}

/// Why an address is not posted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnusableTarget {
    #[error("a target is https://host[:port]/path, without user, password or fragment")]
    Malformed,
    #[error(
        "plain http can be read and changed on the way; it is for targets that may be private only"
    )]
    Insecure,
}

/// Longest address.
const LONGEST: usize = 2048;

impl Target {
    /// Reads an address. Plain http is for those that are allowed to be on a private network.
    ///
    /// # Errors
    /// [`UnusableTarget`].
    pub fn parse(url: &str, allow_private: bool) -> Result<Self, UnusableTarget> {
        use UnusableTarget::{Insecure, Malformed};
        // The URI reader drops fragments without a word.
        if url.len() > LONGEST || url.contains('#') {
            return Err(Malformed);
        }
        let uri: Uri = url.parse().map_err(|_| Malformed)?;
        let authority = uri.authority().ok_or(Malformed)?;
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(Malformed),
        };
        // What is left of the authority beside the host: nothing, or a port. The URI reader takes one
        // that is none for none.
        let usual = if is_tls { 443 } else { 80 };
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => usual,
            Some(port) => {
                let port = port.strip_prefix(':').and_then(|port| port.parse().ok());
                port.filter(|port| *port > 0).ok_or(Malformed)?
            }
            // A user stands before it.
            None => return Err(Malformed),
        };
        let host = authority.host();
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        let target = Self {
            is_tls,
            host: ServerName::try_from(host.to_owned()).map_err(|_| Malformed)?,
            port,
            authority: authority.clone(),
            path: uri
                .path_and_query()
                .cloned()
                .unwrap_or(PathAndQuery::from_static("/")),
        };
        if is_tls || allow_private {
            Ok(target)
        } else {
            Err(Insecure)
        }
    }

    /// Whether its host is written as an address that is not of the public Internet. What a name leads to
    /// is known only when it is asked for.
    pub fn is_private_address(&self) -> bool {
        let host = self.host.to_str();
        host.parse().is_ok_and(|address| !is_public(address))
    }

    /// Whether it is this machine by its name: what that leads to is not looked at.
    pub fn is_loopback(&self) -> bool {
        let (host, _) = self.address();
        let address = host.parse::<std::net::IpAddr>();
        address.map_or(host == "localhost", |address| address.is_loopback())
    }

    pub(super) fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// The name its certificate must bear.
    pub(super) fn host(&self) -> &ServerName<'static> {
        &self.host
    }

    /// What is looked up: a name, or an address as it is.
    pub(super) fn address(&self) -> (String, u16) {
        (self.host.to_str().into_owned(), self.port)
    }

    /// For the header `Host`.
    pub(super) fn authority(&self) -> &Authority {
        &self.authority
    }

    pub(super) fn path(&self) -> &PathAndQuery {
        &self.path
    }
}

/// Without path and query, where some keep secrets.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.origin())
    }
}

impl Target {
    /// Scheme, host and port: what may be shown and logged.
    pub fn origin(&self) -> String {
        let scheme = if self.is_tls { "https" } else { "http" };
        format!("{scheme}://{}", self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_an_https_address_and_nothing_else() {
        let target = Target::parse("https://hooks.example.org/a/b?c=d", false).expect("read");
        assert_eq!(target.address(), ("hooks.example.org".to_owned(), 443));
        assert_eq!(target.path().as_str(), "/a/b?c=d");
        assert_eq!(format!("{target:?}"), "https://hooks.example.org");
        let six = Target::parse("https://[2606:4700::1111]:8443", false).expect("read");
        assert_eq!(six.address(), ("2606:4700::1111".to_owned(), 8443));
        assert_eq!(six.path().as_str(), "/");
        for bad in [
            "",
            "hooks.example.org/a",
            "//hooks.example.org/a",
            "https://",
            "https:///a",
            "https://user@hooks.example.org/",
            "https://user:word@hooks.example.org/",
            "https://hooks.example.org:0/",
            "https://hooks.example.org:/",
            "https://hooks.example.org:65536/",
            "https://hooks.example.org/a#b",
            "https://hooks example.org/",
            "ftp://hooks.example.org/",
            "file:///etc/passwd",
            "https://[::1/",
            "https://[fe80::1%25eth0]/",
        ] {
            assert_eq!(
                Target::parse(bad, true).err(),
                Some(UnusableTarget::Malformed),
                "{bad}"
            );
        }
        let long = format!("https://hooks.example.org/{}", "x".repeat(LONGEST));
        assert!(Target::parse(&long, true).is_err());
    }

    #[test]
    fn plain_http_is_for_private_targets_only() {
        let url = "http://127.0.0.1:8080/hook";
        assert_eq!(
            Target::parse(url, false).err(),
            Some(UnusableTarget::Insecure)
        );
        let target = Target::parse(url, true).expect("allowed");
        assert!(!target.is_tls());
        assert_eq!(target.address(), ("127.0.0.1".to_owned(), 8080));
        assert!(target.is_private_address());
        for (url, is_private) in [
            ("https://[::ffff:10.0.0.1]/", true),
            ("https://[2606:4700::1111]/", false),
            ("https://localhost/", false),
        ] {
            let target = Target::parse(url, false).expect("read");
            assert_eq!(target.is_private_address(), is_private, "{url}");
        }
    }
}
