//! Logs and metrics: one set-up, one registry, one vocabulary.
//!
//! Never in either: nonces, push tokens, PushMagic, tickets, bearer tokens, private keys, message
//! bodies. Serial numbers and UDIDs appear cut.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{Log, LogFormat};
use crate::posture::Verdict;
use crate::reason::Reason;

/// Everything that is counted.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    messages: Family<MessageLabels, Counter>,
    refusals: Family<RefusalLabels, Counter>,
    pushes: Family<OutcomeLabels, Counter>,
    webhook_messages: Family<OutcomeLabels, Counter>,
    signals: Family<OutcomeLabels, Counter>,
    verdicts: Family<VerdictLabels, Counter>,
    requests: Family<RequestLabels, Counter>,
    /// Refusals that were counted and not kept.
    pub refusals_not_kept: Counter,
    /// Runs of a worker that failed.
    pub worker_failures: Counter,
    /// Seconds since 1970 at which the push certificate in use ends, of several the one that ends first; 0
    /// when there is none.
    pub push_certificate_not_after: Gauge,
    push_certificate_days_left: Family<TopicLabels, Gauge>,
    push_topic_stopped: Family<TopicLabels, Gauge>,
    identities_expired: Gauge,
    identities_expiring: Gauge,
    macs_waiting: Gauge,
    clock_believed: Gauge,
    audit_head: Gauge,
    feed_renewals: Counter,
    event_followers: Gauge,
    feed_entries: Counter,
    witness_answers: Family<OutcomeLabels, Counter>,
    log_size: Gauge,
    log_witnessed_size: Gauge,
    log_witnessed_at: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MessageLabels {
    surface: &'static str,
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    surface: &'static str,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TopicLabels {
    topic: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerdictLabels {
    verdict: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    listener: &'static str,
    status: u16,
}

impl Metrics {
    /// A registry with everything in it.
    pub fn new() -> Arc<Self> {
        let mut metrics = Self {
            registry: Registry::with_prefix("attestd"),
            messages: Family::default(),
            refusals: Family::default(),
            pushes: Family::default(),
            webhook_messages: Family::default(),
            signals: Family::default(),
            verdicts: Family::default(),
            requests: Family::default(),
            refusals_not_kept: Counter::<u64, AtomicU64>::default(),
            worker_failures: Counter::<u64, AtomicU64>::default(),
            push_certificate_not_after: Gauge::default(),
            push_certificate_days_left: Family::default(),
            push_topic_stopped: Family::default(),
            identities_expired: Gauge::default(),
            identities_expiring: Gauge::default(),
            macs_waiting: Gauge::default(),
            clock_believed: Gauge::default(),
            audit_head: Gauge::default(),
            feed_renewals: Counter::<u64, AtomicU64>::default(),
            event_followers: Gauge::default(),
            feed_entries: Counter::<u64, AtomicU64>::default(),
            witness_answers: Family::default(),
            log_size: Gauge::default(),
            log_witnessed_size: Gauge::default(),
            log_witnessed_at: Gauge::default(),
        };
        let registry = &mut metrics.registry;
        registry.register(
            "messages",
            "Messages taken, by surface and kind",
            metrics.messages.clone(),
        );
        registry.register(
            "refusals",
            "What was refused, by surface and reason",
            metrics.refusals.clone(),
        );
        registry.register(
            "pushes",
            "Pushes, by what APNs said",
            metrics.pushes.clone(),
        );
        registry.register(
            "webhook_messages",
            "Messages to webhooks, by what became of them",
            metrics.webhook_messages.clone(),
        );
        registry.register(
            "shared_signals",
            "Security event tokens, by what became of them",
            metrics.signals.clone(),
        );
        registry.register(
            "event_followers",
            "Streams of events that are open on this node",
            metrics.event_followers.clone(),
        );
        registry.register(
            "verdicts",
            "Verdicts reached with new evidence",
            metrics.verdicts.clone(),
        );
        registry.register(
            "http_requests",
            "HTTP requests answered, by listener and status",
            metrics.requests.clone(),
        );
        registry.register(
            "refusals_not_kept",
            "Refusals counted, but too many at once to be kept",
            metrics.refusals_not_kept.clone(),
        );
        registry.register(
            "worker_failures",
            "Runs of a background worker that failed",
            metrics.worker_failures.clone(),
        );
        registry.register(
            "push_certificate_not_after_seconds",
            "When the push certificate that ends first does, seconds since 1970; 0 without one",
            metrics.push_certificate_not_after.clone(),
        );
        registry.register(
            "push_certificate_days_left",
            "Whole days until the push certificate of a topic ends",
            metrics.push_certificate_days_left.clone(),
        );
        registry.register(
            "push_topic_stopped",
            "1 while no Mac of a topic is pushed, because its certificate expired or APNs refuses it",
            metrics.push_topic_stopped.clone(),
        );
        registry.register(
            "identities_expired",
            "Enrolled Macs that are not heard because their identity has expired",
            metrics.identities_expired.clone(),
        );
        registry.register(
            "identities_expiring",
            "Enrolled Macs whose identity expires within 60 days",
            metrics.identities_expiring.clone(),
        );
        registry.register(
            "macs_waiting",
            "Macs that wait for their turn to be woken",
            metrics.macs_waiting.clone(),
        );
        registry.register(
            "audit_head",
            "The number of the last entry of the audit log, as of the last look",
            metrics.audit_head.clone(),
        );
        registry.register(
            "clock_believed",
            "1 while the clock can be believed; otherwise nothing is said of trust",
            metrics.clock_believed.clone(),
        );
        registry.register(
            "feed_renewals",
            "How often the public feed was looked through, whoever asked for it how often",
            metrics.feed_renewals.clone(),
        );
        registry.register(
            "feed_entries_written",
            "Entries of the public feed that were written and compressed, because they were new or had changed",
            metrics.feed_entries.clone(),
        );
        registry.register(
            "log_witness_answers",
            "Heads of the transparency log shown to witnesses, by what became of them",
            metrics.witness_answers.clone(),
        );
        registry.register(
            "log_entries_published",
            "Entries of the transparency log under its newest head",
            metrics.log_size.clone(),
        );
        registry.register(
            "log_entries_witnessed",
            "Entries of the transparency log under the newest head that enough witnesses signed",
            metrics.log_witnessed_size.clone(),
        );
        registry.register(
            "log_witnessed_at_seconds",
            "When a witness signed last what made a head a witnessed one, seconds since 1970; 0 before",
            metrics.log_witnessed_at.clone(),
        );
        Arc::new(metrics)
    }

    /// The transparency log has so many entries.
    pub fn log_grew(&self, size: u64) {
        self.log_size.set(i64::try_from(size).unwrap_or(i64::MAX));
    }

    /// A head of so many entries is witnessed, as of so many seconds since 1970.
    pub fn log_witnessed(&self, at: i64, size: u64) {
        self.log_witnessed_at.set(at);
        self.log_witnessed_size
            .set(i64::try_from(size).unwrap_or(i64::MAX));
    }

    /// A witness was shown a head.
    pub fn witness_answered(&self, outcome: &'static str) {
        self.witness_answers
            .get_or_create(&OutcomeLabels { outcome })
            .inc();
    }

    /// The public feed was looked through, and so many entries of it had changed.
    pub fn feed_renewed(&self, written: u64) {
        self.feed_renewals.inc();
        self.feed_entries.inc_by(written);
    }

    /// The audit log ends with this entry.
    pub fn audit_head(&self, seq: i64) {
        self.audit_head.set(seq);
    }

    /// The clock was looked at.
    pub fn clock(&self, believed: bool) {
        self.clock_believed.set(i64::from(believed));
    }

    /// Identities were counted.
    pub fn identities(&self, expired: u64, expiring: u64) {
        let count = |number| i64::try_from(number).unwrap_or(i64::MAX);
        self.identities_expired.set(count(expired));
        self.identities_expiring.set(count(expiring));
    }

    /// So many Macs wait to be woken.
    pub fn macs_waiting(&self, count: usize) {
        self.macs_waiting
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// A message was taken.
    pub fn message(&self, surface: &'static str, kind: &'static str) {
        self.messages
            .get_or_create(&MessageLabels { surface, kind })
            .inc();
    }

    /// Something was refused.
    pub fn refused(&self, surface: &'static str, reason: Reason) {
        let reason = reason.code();
        self.refusals
            .get_or_create(&RefusalLabels { surface, reason })
            .inc();
    }

    /// A push ended.
    pub fn pushed(&self, outcome: &'static str) {
        self.pushes.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// A message to a webhook fared so.
    pub fn webhook_message(&self, outcome: &'static str) {
        self.webhook_messages
            .get_or_create(&OutcomeLabels { outcome })
            .inc();
    }

    /// A security event token fared so.
    pub fn signal(&self, outcome: &'static str) {
        self.signals.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// So many follow events.
    pub fn event_followers(&self, count: usize) {
        self.event_followers
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// The push certificate of a topic ends in so many days; `stopped` while nothing is pushed with it.
    pub fn push_certificate(&self, topic: &str, days_left: u64, stopped: bool) {
        let labels = TopicLabels {
            topic: topic.to_owned(),
        };
        let days_left = i64::try_from(days_left).unwrap_or(i64::MAX);
        self.push_certificate_days_left
            .get_or_create(&labels)
            .set(days_left);
        self.push_topic_stopped
            .get_or_create(&labels)
            .set(i64::from(stopped));
    }

    /// Evidence led to a verdict.
    pub fn verdict(&self, verdict: Verdict) {
        self.verdicts
            .get_or_create(&VerdictLabels {
                verdict: verdict.as_str(),
            })
            .inc();
    }

    /// A request was answered.
    pub fn answered(&self, listener: &'static str, status: u16) {
        self.requests
            .get_or_create(&RequestLabels { listener, status })
            .inc();
    }

    /// The text form Prometheus reads.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

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
