//! The interface of a coordinator that was written for MicroMDM.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Unusable;
use crate::network::is_public;

/// Whose calls are answered as MicroMDM answered them, and where answers of Macs are told.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MicroMdm {
    /// A file of the coordinator's API key, mode 0600, at least 32 characters: the password of the user
    /// `micromdm`.
    pub key_file: PathBuf,
    /// Where the coordinator takes answers, `https://host[:port]/path`.
    pub webhook: String,
    /// A file of the token that the webhook is presented with, as `X-Webhook-Token`. Absent: none.
    pub webhook_token_file: Option<PathBuf>,
    /// A root for the webhook's certificate instead of the public ones, PEM.
    pub webhook_root: Option<PathBuf>,
    /// The webhook may be on a private network or on this machine, and may then be plain http.
    #[serde(default)]
    pub allow_private: bool,
}

impl MicroMdm {
    pub(super) fn check(&self) -> Result<(), Unusable> {
        let url = &self.webhook;
        let refused = |why| Err(Unusable::MicroMdmWebhook { why });
        let Some((scheme, rest)) = url.split_once("://") else {
            return refused("it must be https://host[:port]/path, without user or fragment");
        };
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        if authority.is_empty() || authority.contains('@') || url.contains('#') {
            return refused("it must be https://host[:port]/path, without user or fragment");
        }
        if scheme != "https" && (scheme != "http" || !self.allow_private) {
            return refused(
                "plain http is for targets that may be private: micromdm.allow_private",
            );
        }
        // A name is judged by what it leads to, whenever it is looked up.
        let host = match authority.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => authority.split(':').next().unwrap_or_default(),
        };
        let address = host.parse::<IpAddr>();
        if !self.allow_private && address.is_ok_and(|address| !is_public(address)) {
            return refused("its address is not of the public Internet: micromdm.allow_private");
        }
        Ok(())
    }

    /// Paths, which are relative to the configuration.
    pub(super) fn files(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let optional = [&mut self.webhook_token_file, &mut self.webhook_root];
        std::iter::once(&mut self.key_file).chain(optional.into_iter().flatten())
    }
}
