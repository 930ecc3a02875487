//! `[telemetry]`: where traces of posture rounds are sent.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Traces; none unless a collector is named.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// Where a collector takes OTLP over HTTP: `https://host[:port]`, to which `/v1/traces` is added. Plain
    /// http and private addresses are allowed: it is an operator's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp_endpoint: Option<String>,
    /// A private root of its TLS, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp_root: Option<PathBuf>,
    /// A file (mode 0600) with a bearer token that it wants.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp_token_file: Option<PathBuf>,
}

impl Telemetry {
    pub(super) fn files(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        [&mut self.otlp_root, &mut self.otlp_token_file]
            .into_iter()
            .flatten()
    }
}
