//! The interface of a coordinator that was written for MicroMDM.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Unusable;
use super::url::check_target;

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
        check_target(&self.webhook, self.allow_private, "micromdm")
            .map_err(|why| Unusable::MicroMdmWebhook { why })
    }

    /// Paths, which are relative to the configuration.
    pub(super) fn files(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let optional = [&mut self.webhook_token_file, &mut self.webhook_root];
        std::iter::once(&mut self.key_file).chain(optional.into_iter().flatten())
    }
}
