//! Traces of posture rounds: what became of one, through processes and minutes, as spans of one trace.
//!
//! A span is put into a bounded queue and forgotten by whoever made it. Nothing here waits for a
//! collector; what it cannot take is dropped, and counted. A span holds names of ours and words of closed
//! lists, and nothing that a Mac or a caller said.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use super::Metrics;
use crate::ids::{DeviceId, VerificationId};
use crate::time::Timestamp;
use crate::verification::Verification;
use crate::verification::trace::{SpanId, TraceId};

/// Spans that wait to leave at most.
const QUEUE: usize = 4096;
/// Spans that leave together at most.
const BATCH: usize = 512;
/// How long the first of them waits for others.
const GATHER: Duration = Duration::from_secs(1);

/// The span of the round itself.
pub const ROUND: &str = "posture_round";

/// A part of a round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    pub trace: TraceId,
    pub id: SpanId,
    /// None of the round itself.
    pub parent: Option<SpanId>,
    /// The flow.
    pub name: &'static str,
    pub from: Timestamp,
    pub to: Timestamp,
    /// By the names that logs use, too.
    pub fields: Vec<(&'static str, String)>,
}

impl Span {
    /// A part of a round; `which` tells those of one name apart that begin at once.
    pub fn new(
        verification_id: &VerificationId,
        device_id: &DeviceId,
        name: &'static str,
        which: &str,
        (from, to): (Timestamp, Timestamp),
    ) -> Self {
        Self {
            trace: TraceId::of(verification_id),
            id: SpanId::of_part(verification_id, name, which, from),
            parent: Some(SpanId::of_round(verification_id)),
            name,
            from,
            to: to.max(from),
            fields: vec![
                ("verification.id", verification_id.to_string()),
                ("device.id", device_id.to_string()),
            ],
        }
    }

    /// The round itself, once it is over.
    pub fn of_round(round: &Verification) -> Option<Self> {
        let finished = round.finished.as_ref()?;
        let id = &round.verification_id;
        let span = (round.created_at, finished.at);
        let mut span = Self::new(id, &round.device_id, ROUND, "", span);
        (span.id, span.parent) = (SpanId::of_round(id), None);
        let reasons: Vec<_> = finished.reasons.iter().map(|it| it.code()).collect();
        Some(
            span.with("state", word(&finished.state))
                .with("priority", word(&round.priority))
                .with("reasons", reasons.join(" ")),
        )
    }

    /// With something to be said of it.
    #[must_use]
    pub fn with(mut self, field: &'static str, value: impl Into<String>) -> Self {
        self.fields.push((field, value.into()));
        self
    }

    /// As a part of this part.
    #[must_use]
    pub fn within(mut self, parent: &Self) -> Self {
        self.parent = Some(parent.id);
        self
    }
}

/// The published word of a value that has one.
fn word(value: &impl serde::Serialize) -> String {
    let value = serde_json::to_value(value).ok();
    let word = value.as_ref().and_then(serde_json::Value::as_str);
    word.unwrap_or_default().to_owned()
}

/// Where spans are put.
#[derive(Debug)]
pub struct Traces {
    queue: mpsc::Sender<Span>,
    metrics: Arc<Metrics>,
}

/// Where they wait to leave.
#[derive(Debug)]
pub struct Leaving {
    queue: mpsc::Receiver<Span>,
    /// Those that leave next. Kept here, so that whoever stops waiting for others loses none.
    batch: Vec<Span>,
}

impl Traces {
    /// A queue, and its end.
    pub fn new(metrics: &Arc<Metrics>) -> (Self, Leaving) {
        let (queue, leaving) = mpsc::channel(QUEUE);
        let traces = Self {
            queue,
            metrics: Arc::clone(metrics),
        };
        let leaving = Leaving {
            queue: leaving,
            batch: Vec::new(),
        };
        (traces, leaving)
    }

    /// Puts a span into the queue, if there is room.
    pub fn record(&self, span: Span) {
        if self.queue.try_send(span).is_err() {
            self.metrics.spans("queue_full", 1);
        }
    }
}

impl Leaving {
    /// Some spans, as soon as there are any; empty when there will be no more.
    pub async fn take(&mut self) -> Vec<Span> {
        let Self { queue, batch } = self;
        if batch.is_empty() {
            queue.recv_many(batch, BATCH).await;
        }
        let more = async {
            while !batch.is_empty() && batch.len() < BATCH {
                let room = BATCH - batch.len();
                if queue.recv_many(batch, room).await == 0 {
                    break;
                }
            }
        };
        // What came is in the batch, whether or not others do.
        let _ = timeout(GATHER, more).await;
        std::mem::take(batch)
    }

    /// What there is, and nothing after it: the service stops.
    pub fn take_last(&mut self) -> Vec<Span> {
        self.queue.close();
        let mut last = std::mem::take(&mut self.batch);
        last.extend(std::iter::from_fn(|| self.queue.try_recv().ok()));
        last
    }
}
