//! What can be set about APNs.

use std::time::Duration;

use http::Uri;
use http::uri::Authority;
use rustls_pki_types::ServerName;

use super::ApnsError;

/// Settings of the client. [`ApnsSettings::default`] is what Apple's own servers need.
#[derive(Debug, Clone)]
pub struct ApnsSettings {
    /// Where APNs is.
    pub endpoint: Endpoint,
    /// Root certificates (PEM) that are trusted in place of the public ones: a double's.
    pub extra_roots: Option<Vec<u8>>,
    /// How long one push may take, with all its attempts.
    pub deadline: Duration,
    /// How long opening one connection may take.
    pub connect_deadline: Duration,
    /// How often one push is sent at most.
    pub attempts: u32,
    /// Connections per topic at most. A second one is opened only when the first is full.
    pub connections: usize,
    /// Pushes under way on one connection at most; below APNs' own limit, which is about 1,000 and is
    /// followed when it is lower.
    pub streams: usize,
    /// Idle time after which a connection is asked whether it lives. Apple asks for no more than one
    /// PING a minute or so.
    pub ping_interval: Duration,
    /// How long the answer to that may take.
    pub ping_deadline: Duration,
    /// The first wait after a connection failed; it doubles up to `reconnect_max`.
    pub reconnect_min: Duration,
    pub reconnect_max: Duration,
    /// How long a topic is first held after a fault of its certificate; it doubles up to `hold_max`.
    pub hold_min: Duration,
    pub hold_max: Duration,
}

/// The address of APNs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    authority: Authority,
    host: ServerName<'static>,
    port: u16,
}

impl Default for ApnsSettings {
    fn default() -> Self {
        Self {
            endpoint: Endpoint::apple(),
            extra_roots: None,
            deadline: Duration::from_secs(20),
            connect_deadline: Duration::from_secs(10),
            attempts: 5,
            connections: 4,
            streams: 900,
            ping_interval: Duration::from_mins(1),
            ping_deadline: Duration::from_secs(20),
            reconnect_min: Duration::from_millis(500),
            reconnect_max: Duration::from_mins(2),
            hold_min: Duration::from_mins(5),
            hold_max: Duration::from_hours(1),
        }
    }
}

impl Endpoint {
    /// Apple's production servers. There is no other for MDM.
    pub fn apple() -> Self {
        Self::parse("https://api.push.apple.com").expect("an https URL without a path")
    }

    /// Reads `https://host` or `https://host:port`.
    ///
    /// # Errors
    /// [`ApnsError::Endpoint`].
    pub fn parse(url: &str) -> Result<Self, ApnsError> {
        let uri: Uri = url.parse().map_err(|_| ApnsError::Endpoint)?;
        let authority = uri.authority().ok_or(ApnsError::Endpoint)?;
        let bare = uri.path() == "/" && uri.query().is_none() && !authority.as_str().contains('@');
        if uri.scheme_str() != Some("https") || !bare {
            return Err(ApnsError::Endpoint);
        }
        let host = authority.host();
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        Ok(Self {
            host: ServerName::try_from(host.to_owned()).map_err(|_| ApnsError::Endpoint)?,
            port: authority.port_u16().unwrap_or(443),
            authority: authority.clone(),
        })
    }

    /// `host` or `host:port`, for `:authority`.
    pub(super) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The name its certificate must bear.
    pub(super) fn host(&self) -> &ServerName<'static> {
        &self.host
    }

    /// What to connect to.
    pub(super) fn address(&self) -> (String, u16) {
        (self.host.to_str().into_owned(), self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_https_and_nothing_but_host_and_port() {
        assert_eq!(
            Endpoint::apple().address(),
            ("api.push.apple.com".into(), 443)
        );
        let other = Endpoint::parse("https://api.push.apple.com:2197").expect("read");
        assert_eq!(other.address().1, 2197);
        assert_eq!(
            Endpoint::parse("https://[::1]:8443")
                .expect("read")
                .address(),
            ("::1".into(), 8443)
        );
        for bad in [
            "http://api.push.apple.com",
            "api.push.apple.com",
            "https://",
            "https://user@host",
            "https://host/3/device",
            "https://host?x",
            "https://ho st",
            "",
        ] {
            assert!(Endpoint::parse(bad).is_err(), "{bad}");
        }
    }
}
