//! Spans of posture rounds leave for a collector. It is asked once: what it does not take is dropped and
//! counted, and nobody waits for it but the worker.

#![cfg(feature = "otel")]

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};

use super::Context;
use crate::outbound::{Line, Outbound, Reach, Target, UnusableRoot};
use crate::secret::Secret;
use crate::telemetry::otlp;
use crate::telemetry::traces::{Leaving, Span};

/// A collector that spans are sent to.
#[derive(Debug)]
pub struct Collector {
    line: Line,
    token: Option<Secret<String>>,
    leaving: Leaving,
    /// It did not take the last ones: said once in the log.
    is_out: bool,
}

impl Collector {
    /// The way to a collector.
    ///
    /// # Errors
    /// A root that cannot be used.
    pub fn new(
        outbound: &Outbound,
        target: Target,
        root: Option<Vec<u8>>,
        token: Option<Secret<String>>,
        leaving: Leaving,
    ) -> Result<Self, UnusableRoot> {
        // An operator's own: mostly on this machine, or beside it.
        let reach = Reach {
            allow_private: true,
            root,
        };
        Ok(Self {
            line: outbound.line(target, &reach)?,
            token,
            leaving,
            is_out: false,
        })
    }

    /// The next spans that are to leave; empty when there will be no more.
    pub async fn next(&mut self) -> Vec<Span> {
        self.leaving.take().await
    }

    /// Those that are left when the service stops.
    pub fn last(&mut self) -> Vec<Span> {
        self.leaving.take_last()
    }
}

/// Sends some spans, once.
pub async fn send(ctx: &Context, collector: &mut Collector, spans: &[Span]) {
    if spans.is_empty() {
        return;
    }
    let body = Bytes::from(otlp::body(spans, &ctx.settings.server_id));
    let headers = headers(collector.token.as_ref());
    let sent = match collector.line.post(&headers, &body).await {
        Ok(answer) if (200..300).contains(&answer.status) => Ok(()),
        Ok(answer) => Err(format!("answered {}", answer.status)),
        Err(fault) => Err(fault.as_str().to_owned()),
    };
    let count = u64::try_from(spans.len()).unwrap_or(u64::MAX);
    let outcome = if sent.is_ok() { "sent" } else { "not_taken" };
    ctx.metrics.spans(outcome, count);
    match sent {
        Ok(()) if collector.is_out => tracing::info!("traces are taken again"),
        Err(why) if !collector.is_out => tracing::warn!(why, "traces are not taken, and dropped"),
        _ => {}
    }
    collector.is_out = outcome != "sent";
}

fn headers(token: Option<&Secret<String>>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let protobuf = HeaderValue::from_static("application/x-protobuf");
    headers.insert(header::CONTENT_TYPE, protobuf);
    let bearer = token.map(|token| format!("Bearer {}", token.expose()));
    if let Some(Ok(mut bearer)) = bearer.map(|text| HeaderValue::from_str(&text)) {
        bearer.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, bearer);
    }
    headers
}
