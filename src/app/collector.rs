//! Who collects traces, as the settings name it.

use anyhow::Context as _;

use super::read;
use crate::config::Telemetry;
use crate::flows::export_traces::Collector;
use crate::keys::BearerKey;
use crate::outbound::{Outbound, Target};
use crate::secret::Secret;
use crate::telemetry::traces::Leaving;

/// Where OTLP over HTTP takes traces, below its endpoint.
const PATH: &str = "/v1/traces";

/// The way to a collector.
///
/// # Errors
/// An address that is none; a file that cannot be read, or must not be used.
pub(super) fn collector(
    settings: &Telemetry,
    endpoint: &str,
    outbound: &Outbound,
    leaving: Leaving,
) -> anyhow::Result<Collector> {
    let url = format!("{}{PATH}", endpoint.trim_end_matches('/'));
    let target = Target::parse(&url, true).context("telemetry.otlp_endpoint")?;
    let root = settings.otlp_root.as_deref().map(read).transpose()?;
    let token = match &settings.otlp_token_file {
        None => None,
        Some(path) => {
            // Presented, and so kept as it is; but one that is weak is none.
            BearerKey::read(path).context("telemetry.otlp_token_file")?;
            let text = String::from_utf8(read(path)?).context("telemetry.otlp_token_file")?;
            Some(Secret::new(text.trim().to_owned()))
        }
    };
    Collector::new(outbound, target, root, token, leaving).context("telemetry.otlp_root")
}
