//! A Mac's HTTP: PUT with its signature, redirects followed but never remembered (apple-protocol
//! 2.1, 2.9, 11).

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_TYPE, LOCATION};
use plist::Value;
use reqwest::{Certificate, Client, Method, Url};

use super::MacError;
use crate::apple::version_at_least;
use crate::certs::Identity;

/// The content type of check-ins.
pub const CHECK_IN: &str = "application/x-apple-aspen-mdm-checkin";
/// The content type of the command channel.
pub const CONNECT: &str = "application/x-apple-aspen-mdm";

const MAX_REDIRECTS: usize = 5;

/// What a server answered.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    /// A 2xx.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The Content-Type header, or nothing.
    pub fn content_type(&self) -> &str {
        self.headers
            .get(CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok())
            .unwrap_or_default()
    }

    /// The body as a property list.
    pub fn plist(&self) -> Option<Value> {
        plist::from_bytes(&self.body).ok()
    }

    /// The body as JSON.
    pub fn json(&self) -> Option<serde_json::Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// Whether a Mac of this version removes its enrollment on this: 401, or, from macOS 14, 403
    /// with Apple's code as plist or JSON (apple-protocol 2.9, the worst case of 12.12).
    pub fn unenrolls(&self, os_version: &str) -> Option<&'static str> {
        const CODE: &str = "com.apple.unrecognized.device";
        match self.status {
            401 => Some("the server answered 401"),
            403 if version_at_least(os_version, 14, 0) => {
                let in_plist = self
                    .plist()
                    .and_then(|body| Some(body.as_dictionary()?.get("code")?.as_string()? == CODE));
                let in_json = self
                    .json()
                    .and_then(|body| Some(body.get("code")?.as_str()? == CODE));
                let said = in_plist.or(in_json).unwrap_or(false);
                said.then_some("the server answered 403 com.apple.unrecognized.device")
            }
            _ => None,
        }
    }
}

/// The connections of one Mac.
#[derive(Debug, Clone)]
pub struct Wire {
    client: Client,
}

impl Wire {
    /// Trusts these roots (PEM bundles and DER), or the system's where there are none. The identity
    /// is offered where the server asks for a client certificate.
    pub fn new(
        pem: &[Vec<u8>],
        der: &[Vec<u8>],
        identity: Option<&Identity>,
    ) -> Result<Self, MacError> {
        let mut roots = Vec::new();
        for bundle in pem {
            roots.extend(Certificate::from_pem_bundle(bundle)?);
        }
        for root in der {
            roots.push(Certificate::from_der(root)?);
        }
        let mut builder = Client::builder()
            .user_agent("MDM/1.0")
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(Duration::from_secs(10))
            .timeout(Duration::from_secs(60));
        if !roots.is_empty() {
            builder = builder.tls_certs_only(roots);
        }
        if let Some(identity) = identity {
            let pem = [identity.key_pem()?, identity.certificate_pem()?].concat();
            builder = builder.identity(reqwest::Identity::from_pem(&pem)?);
        }
        Ok(Self {
            client: builder.build()?,
        })
    }

    /// The client itself, for other protocols of the same Mac.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Sends one message and follows redirects from its own URL each time.
    pub async fn put(
        &self,
        url: &str,
        content_type: &str,
        body: &[u8],
        signature: Option<&str>,
    ) -> Result<Reply, MacError> {
        let mut url = Url::parse(url).map_err(|_| MacError::BadUrl(url.to_owned()))?;
        for _ in 0..=MAX_REDIRECTS {
            let mut request = self
                .client
                .request(Method::PUT, url.clone())
                .header(CONTENT_TYPE, content_type)
                .body(body.to_vec());
            if let Some(signature) = signature {
                request = request.header("Mdm-Signature", signature);
            }
            let reply = read(request.send().await?).await?;
            let onward = matches!(reply.status, 301 | 302 | 307 | 308)
                .then(|| reply.headers.get(LOCATION)?.to_str().ok())
                .flatten();
            match onward {
                None => return Ok(reply),
                Some(next) => {
                    let next = url
                        .join(next)
                        .map_err(|_| MacError::BadUrl(next.to_owned()))?;
                    // App Transport Security lets nothing lead from TLS to plain HTTP.
                    if url.scheme() == "https" && next.scheme() != "https" {
                        return Err(MacError::BadUrl(next.to_string()));
                    }
                    url = next;
                }
            }
        }
        Err(MacError::TooManyRedirects)
    }

    /// POSTs JSON: what the enrollment page of a server does for the user.
    pub async fn post_json(&self, url: &str, body: &serde_json::Value) -> Result<Reply, MacError> {
        read(self.client.post(url).json(body).send().await?).await
    }
}

async fn read(response: reqwest::Response) -> Result<Reply, MacError> {
    let status = response.status().as_u16();
    let headers = response.headers().clone();
    Ok(Reply {
        status,
        headers,
        body: response.bytes().await?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_401_and_apples_403_remove_the_enrollment() {
        let reply = |status, body: &'static str| Reply {
            status,
            headers: HeaderMap::new(),
            body: body.into(),
        };
        let plist = "<plist version=\"1.0\"><dict><key>code</key><string>com.apple.unrecognized.device</string></dict></plist>";
        for (reply, expected) in [
            (reply(401, ""), true),
            (reply(403, plist), true),
            (
                reply(403, r#"{"code":"com.apple.unrecognized.device"}"#),
                true,
            ),
            (reply(403, "Forbidden"), false),
            (
                reply(403, r#"{"code":"com.apple.well-known.failed"}"#),
                false,
            ),
            (reply(500, plist), false),
        ] {
            assert_eq!(reply.unenrolls("13.7").is_some(), reply.status == 401);
            assert_eq!(reply.unenrolls("26.6").is_some(), expected, "{reply:?}");
        }
    }
}
