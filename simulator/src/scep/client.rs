//! The client over HTTP: GetCACert, GetCACaps, PKIOperation.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use openssl::pkey::{PKey, Private};
use reqwest::Url;

use super::ScepError;
use super::capabilities::{Authority, Capabilities};
use super::message::{self, CertRep, PkiMessage};
use crate::certs::Identity;
use crate::clock::Clock;
use crate::csr::Subject;
use crate::keys;

/// The settings of a SCEP payload (apple-protocol 1.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScepSettings {
    pub url: String,
    /// Sent as `message` in GetCACert.
    pub name: Option<String>,
    pub challenge: Option<String>,
    pub subject: Subject,
    pub key_size: u32,
    /// 1 signing, 4 encryption, 5 both, 0 unsaid.
    pub key_usage: i64,
    pub ca_fingerprint: Option<Vec<u8>>,
    /// How often PENDING is asked again.
    pub retries: u32,
    pub retry_delay: Duration,
}

impl Default for ScepSettings {
    /// Apple's defaults.
    fn default() -> Self {
        Self {
            url: String::new(),
            name: None,
            challenge: None,
            subject: Vec::new(),
            key_size: 1024,
            key_usage: 0,
            ca_fingerprint: None,
            retries: 3,
            retry_delay: Duration::from_secs(10),
        }
    }
}

/// One run of the protocol. Each step is public, so that tests can stop between them.
#[derive(Debug)]
pub struct ScepClient<'a> {
    pub http: &'a reqwest::Client,
    pub settings: &'a ScepSettings,
    pub clock: &'a Clock,
}

impl ScepClient<'_> {
    /// The whole way from a key to an identity.
    pub async fn identity(&self, key: PKey<Private>) -> Result<Identity, ScepError> {
        let authority = self.authority().await?;
        if let Some(expected) = &self.settings.ca_fingerprint
            && !authority.matches_fingerprint(expected)?
        {
            return Err(ScepError::FingerprintDiffers);
        }
        let capabilities = self.capabilities().await?;
        let temporary =
            Identity::self_signed_with(key, &keys::random_uuid()?, self.clock.now_ms())?;
        let now = self.clock.now_seconds();
        let request = message::pkcs_req(&temporary, self.settings, &authority, capabilities, now)?;
        let mut reply = self.operation(&request, capabilities).await?;
        let mut retries = self.settings.retries;
        loop {
            match message::read_cert_rep(&reply, &authority.signer, &temporary)? {
                CertRep::Issued(certificate) => {
                    return Ok(Identity {
                        key: temporary.key,
                        certificate: *certificate,
                    });
                }
                CertRep::Refused(fail_info) => return Err(ScepError::Refused { fail_info }),
                CertRep::Pending if retries == 0 => return Err(ScepError::StillPending),
                CertRep::Pending => {
                    retries -= 1;
                    tokio::time::sleep(self.settings.retry_delay).await;
                    let now = self.clock.now_seconds();
                    let poll = message::get_cert_initial(
                        &temporary,
                        self.settings,
                        &authority,
                        capabilities,
                        now,
                    )?;
                    reply = self.operation(&poll, capabilities).await?;
                }
            }
        }
    }

    /// A further identity, asked for with the one it renews.
    pub async fn renew(
        &self,
        renewed: &Identity,
        key: PKey<Private>,
    ) -> Result<Identity, ScepError> {
        let authority = self.authority().await?;
        let capabilities = self.capabilities().await?;
        let now = self.clock.now_seconds();
        let request =
            message::renewal_req(renewed, &key, self.settings, &authority, capabilities, now)?;
        let reply = self.operation(&request, capabilities).await?;
        match message::read_cert_rep_for(&reply, &authority.signer, renewed, &key)? {
            CertRep::Issued(certificate) => Ok(Identity {
                key,
                certificate: *certificate,
            }),
            CertRep::Refused(fail_info) => Err(ScepError::Refused { fail_info }),
            CertRep::Pending => Err(ScepError::StillPending),
        }
    }

    /// GetCACert.
    pub async fn authority(&self) -> Result<Authority, ScepError> {
        let mut url = self.operation_url("GetCACert")?;
        if let Some(name) = &self.settings.name {
            url.query_pairs_mut().append_pair("message", name);
        }
        let (content_type, body) = self.fetch("GetCACert", self.http.get(url)).await?;
        Authority::from_answer(&content_type, &body)
    }

    /// GetCACaps.
    pub async fn capabilities(&self) -> Result<Capabilities, ScepError> {
        Ok(Capabilities::from_text(&self.capabilities_text().await?))
    }

    /// Whether GetCACaps names Renewal, which no other keyword implies (RFC 8894 3.5.2).
    pub async fn offers_renewal(&self) -> Result<bool, ScepError> {
        let text = self.capabilities_text().await?;
        Ok(text.split('\n').any(|line| line == "Renewal"))
    }

    async fn capabilities_text(&self) -> Result<String, ScepError> {
        let url = self.operation_url("GetCACaps")?;
        let (_, body) = self.fetch("GetCACaps", self.http.get(url)).await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// PKIOperation, by POST where the server can, else by GET with base64.
    pub async fn operation(
        &self,
        message: &PkiMessage,
        capabilities: Capabilities,
    ) -> Result<Bytes, ScepError> {
        let mut url = self.operation_url("PKIOperation")?;
        let request = if capabilities.post {
            self.http
                .post(url)
                .header(http::header::CONTENT_TYPE, "application/x-pki-message")
                .body(message.der.clone())
        } else {
            url.query_pairs_mut()
                .append_pair("message", &STANDARD.encode(&message.der));
            self.http.get(url)
        };
        Ok(self.fetch("PKIOperation", request).await?.1)
    }

    fn operation_url(&self, operation: &str) -> Result<Url, ScepError> {
        let mut url = Url::parse(&self.settings.url).map_err(|_| ScepError::BadUrl)?;
        url.query_pairs_mut().append_pair("operation", operation);
        Ok(url)
    }

    async fn fetch(
        &self,
        operation: &'static str,
        request: reqwest::RequestBuilder,
    ) -> Result<(String, Bytes), ScepError> {
        let response = request.send().await?;
        let status = response.status().as_u16();
        if status != 200 {
            return Err(ScepError::NotOk { operation, status });
        }
        let content_type = response.headers().get(http::header::CONTENT_TYPE);
        let content_type = content_type
            .and_then(|kind| kind.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        Ok((content_type, response.bytes().await?))
    }
}
