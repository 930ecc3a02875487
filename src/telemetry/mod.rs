//! Logs and metrics: one set-up, one registry, one vocabulary.
//!
//! Never in either: nonces, push tokens, PushMagic, tickets, bearer tokens, private keys, message
//! bodies. Serial numbers and UDIDs appear cut.

mod labels;
mod metrics;
#[cfg(test)]
mod metrics_test;
#[cfg(feature = "otel")]
pub mod otlp;
pub mod traces;

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

pub use self::metrics::Metrics;
use crate::config::{Log, LogFormat};

/// Sets up logging to standard error, once per process.
///
/// # Errors
/// A filter that cannot be read, or logging that was set up before.
pub fn start_logging(log: &Log) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&log.level)?;
    let registry = tracing_subscriber::registry().with(filter);
    // Escape sequences are for people at a terminal, not for journals and files.
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match log.format {
        LogFormat::Text => registry.with(layer.with_target(false)).try_init()?,
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init()?,
    }
    Ok(())
}
