//! What is counted and measured. A label whose values are a closed list begins at zero with all of them,
//! so that the first event of a kind is an increase like any other; what does not begin so (refusals by
//! surface and reason, requests by status) has pairs nobody can list.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

use super::labels::{
    self, CauseLabels, CertificateLabels, KindLabels, MESSAGES, MessageLabels, OutcomeLabels,
    QuantileLabels, ReaderLabels, ReasonLabels, RefusalLabels, RequestLabels, StepLabels,
    TopicLabels, VerdictLabels, WorkerLabels,
};
use crate::enrollment::trace::Step;
use crate::oidc::Refused;
use crate::posture::Verdict;
use crate::reason::Reason;
use crate::time::Timestamp;
use crate::verification::Kind;

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
    certificates: Family<CertificateLabels, Gauge>,
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
    steps: Family<StepLabels, Histogram, fn() -> Histogram>,
    commands: Family<KindLabels, Histogram, fn() -> Histogram>,
    verdict_ages: Family<QuantileLabels, Gauge>,
    macs_asked_about: Gauge,
    outbox_lag: Family<ReaderLabels, Gauge>,
    standing_still: Family<CauseLabels, Gauge>,
    worker_silence: Family<WorkerLabels, Gauge>,
    watched_at: Gauge,
    spans: Family<OutcomeLabels, Counter>,
    issuer_answers: Family<OutcomeLabels, Counter>,
    bearers_refused: Family<ReasonLabels, Counter>,
}

/// From a second to a week: owners take a profile with them.
const STEPS: [f64; 11] = [
    1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 43_200.0, 86_400.0, 604_800.0,
];

/// From a Mac that is awake to the end of a command's life.
const COMMANDS: [f64; 9] = [0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1_800.0];

fn steps() -> Histogram {
    Histogram::new(STEPS)
}

fn commands() -> Histogram {
    Histogram::new(COMMANDS)
}

/// The metrics under way to the registry.
struct Registering(Registry);

impl Registering {
    fn one<M: Metric + Default + Clone>(&mut self, name: &str, help: &str) -> M {
        self.this(name, help, M::default())
    }

    fn this<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.0.register(name, help, metric.clone());
        metric
    }

    /// A family with one of each from the beginning.
    fn each<L, M>(&mut self, name: &str, help: &str, labels: Vec<L>) -> Family<L, M>
    where
        L: Clone + Eq + std::hash::Hash + std::fmt::Debug + EncodeLabelSet + Send + Sync + 'static,
        M: Default + Clone + std::fmt::Debug + EncodeMetric + Send + Sync + 'static,
        Family<L, M>: Metric + Default,
    {
        let family: Family<L, M> = self.one(name, help);
        for label in labels {
            drop(family.get_or_create(&label));
        }
        family
    }
}

fn outcomes(listed: &[&'static str]) -> Vec<OutcomeLabels> {
    let labels = listed.iter().map(|outcome| OutcomeLabels { outcome });
    labels.collect()
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn seconds(span: Duration) -> i64 {
    whole(span.as_secs())
}

impl Metrics {
    /// A registry with everything in it.
    pub fn new() -> Arc<Self> {
        let mut to = Registering(Registry::with_prefix("attestd"));
        let steps = Family::<StepLabels, Histogram, fn() -> Histogram>::new_with_constructor(steps);
        for step in Step::ALL {
            let step = step.as_str();
            drop(steps.get_or_create(&StepLabels { step }));
        }
        let commands =
            Family::<KindLabels, Histogram, fn() -> Histogram>::new_with_constructor(commands);
        for kind in [Kind::SecurityInfo, Kind::Mda] {
            let kind = kind.as_str();
            drop(commands.get_or_create(&KindLabels { kind }));
        }
        let messages = MESSAGES
            .iter()
            .flat_map(|(surface, kinds)| kinds.iter().map(|kind| MessageLabels { surface, kind }));
        let metrics = Self {
            messages: to.each(
                "messages",
                "Messages taken, by surface and kind",
                messages.collect(),
            ),
            refusals: to.one("refusals", "What was refused, by surface and reason"),
            pushes: to.each(
                "pushes",
                "Pushes, by what APNs said",
                outcomes(&labels::PUSHES),
            ),
            webhook_messages: to.each(
                "webhook_messages",
                "Messages to webhooks, by what became of them",
                outcomes(&labels::WEBHOOK_MESSAGES),
            ),
            signals: to.each(
                "shared_signals",
                "Security event tokens, by what became of them",
                outcomes(&labels::SIGNALS),
            ),
            event_followers: to.one(
                "event_followers",
                "Streams of events that are open on this node",
            ),
            verdicts: to.each(
                "verdicts",
                "Verdicts reached with new evidence",
                labels::VERDICTS
                    .iter()
                    .map(|verdict| VerdictLabels {
                        verdict: verdict.as_str(),
                    })
                    .collect(),
            ),
            requests: to.one(
                "http_requests",
                "HTTP requests answered, by listener and status",
            ),
            refusals_not_kept: to.this(
                "refusals_not_kept",
                "Refusals counted, but too many at once to be kept",
                Counter::<u64, AtomicU64>::default(),
            ),
            worker_failures: to.this(
                "worker_failures",
                "Runs of a background worker that failed",
                Counter::<u64, AtomicU64>::default(),
            ),
            push_certificate_not_after: to.one(
                "push_certificate_not_after_seconds",
                "When the push certificate that ends first does, seconds since 1970; 0 without one",
            ),
            push_certificate_days_left: to.one(
                "push_certificate_days_left",
                "Whole days until the push certificate of a topic ends",
            ),
            push_topic_stopped: to.one(
                "push_topic_stopped",
                "1 while no Mac of a topic is pushed, because its certificate expired or APNs refuses it",
            ),
            certificates: to.one(
                "certificate_not_after_seconds",
                "When the other certificates that this node works with end, seconds since 1970",
            ),
            identities_expired: to.one(
                "identities_expired",
                "Enrolled Macs that are not heard because their identity has expired",
            ),
            identities_expiring: to.one(
                "identities_expiring",
                "Enrolled Macs whose identity expires within 60 days",
            ),
            macs_waiting: to.one(
                "macs_waiting",
                "Macs that wait for their turn to be woken",
            ),
            audit_head: to.one(
                "audit_head",
                "The number of the last entry of the audit log, as of the last look",
            ),
            clock_believed: to.one(
                "clock_believed",
                "1 while the clock can be believed; otherwise nothing is said of trust",
            ),
            feed_renewals: to.one(
                "feed_renewals",
                "How often the public feed was looked through, whoever asked for it how often",
            ),
            feed_entries: to.one(
                "feed_entries_written",
                "Entries of the public feed that were written and compressed, because they were new or had changed",
            ),
            witness_answers: to.each(
                "log_witness_answers",
                "Heads of the transparency log shown to witnesses, by what became of them",
                outcomes(labels::WITNESS_ANSWERS),
            ),
            log_size: to.one(
                "log_entries_published",
                "Entries of the transparency log under its newest head",
            ),
            log_witnessed_size: to.one(
                "log_entries_witnessed",
                "Entries of the transparency log under the newest head that enough witnesses signed",
            ),
            log_witnessed_at: to.one(
                "log_witnessed_at_seconds",
                "When a witness signed last what made a head a witnessed one, seconds since 1970; 0 before",
            ),
            steps: to.this(
                "enrolment_step_seconds",
                "From the profile to each step of an enrolment, of those that came to a good verdict; verdict is the time to trust",
                steps,
            ),
            commands: to.this(
                "command_age_seconds",
                "How long a Mac took to answer what it was handed, by kind",
                commands,
            ),
            verdict_ages: to.each(
                "verdict_age_seconds",
                "How long ago the good verdicts were reached of the Macs that coordinators ask this node about; 1 is the oldest",
                labels::QUANTILES
                    .iter()
                    .map(|(quantile, _)| QuantileLabels { quantile })
                    .collect(),
            ),
            macs_asked_about: to.one(
                "macs_asked_about",
                "Macs of a good verdict that coordinators ask this node about",
            ),
            outbox_lag: to.each(
                "outbox_lag_seconds",
                "How old the first event is that those who are told of events were not told of",
                labels::READERS
                    .iter()
                    .map(|reader| ReaderLabels { reader })
                    .collect(),
            ),
            standing_still: to.each(
                "standing_still",
                "1 while something that must move does not, by cause",
                crate::verification::standstill::Standstill::ALL
                    .iter()
                    .map(|cause| CauseLabels {
                        cause: cause.as_str(),
                    })
                    .collect(),
            ),
            worker_silence: to.one(
                "worker_silence_seconds",
                "How long ago background work came to the end of a run last",
            ),
            watched_at: to.one(
                "watched_at_seconds",
                "When it was looked last whether everything moves, seconds since 1970",
            ),
            spans: to.each(
                "trace_spans",
                "Spans of traces, by what became of them",
                outcomes(&labels::SPANS),
            ),
            issuer_answers: to.each(
                "issuer_answers",
                "Answers of the OpenID provider, asked for its keys",
                outcomes(labels::ISSUER_ANSWERS),
            ),
            bearers_refused: to.each(
                "bearers_refused",
                "Access tokens of the OpenID provider that let nobody in, by the reason",
                Refused::ALL
                    .map(|refused| ReasonLabels {
                        reason: refused.as_str(),
                    })
                    .to_vec(),
            ),
            registry: Registry::default(),
        };
        Arc::new(Self {
            registry: to.0,
            ..metrics
        })
    }

    /// A certificate that this node works with ends then.
    pub fn certificate(&self, certificate: &'static str, not_after: Timestamp) {
        debug_assert!(labels::CERTIFICATES.contains(&certificate), "{certificate}");
        self.certificates
            .get_or_create(&CertificateLabels { certificate })
            .set(not_after.seconds());
    }

    /// An enrolment came to this step so long after its profile was handed out.
    pub fn step(&self, step: Step, after: Duration) {
        let step = step.as_str();
        self.steps
            .get_or_create(&StepLabels { step })
            .observe(after.as_secs_f64());
    }

    /// A Mac answered what it was handed so long before.
    pub fn command_answered(&self, kind: Kind, after: Duration) {
        let kind = kind.as_str();
        self.commands
            .get_or_create(&KindLabels { kind })
            .observe(after.as_secs_f64());
    }

    /// How old the verdicts are of the Macs that are asked about.
    pub fn verdict_ages(&self, mut ages: Vec<Duration>) {
        ages.sort_unstable();
        self.macs_asked_about
            .set(i64::try_from(ages.len()).unwrap_or(i64::MAX));
        for (quantile, percent) in labels::QUANTILES {
            let rank = (ages.len() * percent).div_ceil(100);
            let age = ages.get(rank.saturating_sub(1)).copied();
            self.verdict_ages
                .get_or_create(&QuantileLabels { quantile })
                .set(seconds(age.unwrap_or_default()));
        }
    }

    /// Those who are told of events this way have not been told of one that is so old.
    pub fn outbox_lag(&self, reader: &'static str, lag: Duration) {
        debug_assert!(labels::READERS.contains(&reader), "{reader}");
        self.outbox_lag
            .get_or_create(&ReaderLabels { reader })
            .set(seconds(lag));
    }

    /// Something stands still, or does not.
    pub fn stands_still(&self, cause: &'static str, stands: bool) {
        self.standing_still
            .get_or_create(&CauseLabels { cause })
            .set(i64::from(stands));
    }

    /// A worker came to the end of a run last so long ago.
    pub fn worker_silent(&self, worker: &'static str, silence: Duration) {
        self.worker_silence
            .get_or_create(&WorkerLabels { worker })
            .set(seconds(silence));
    }

    /// So many spans of traces fared so.
    pub fn spans(&self, outcome: &'static str, count: u64) {
        debug_assert!(labels::SPANS.contains(&outcome), "{outcome}");
        self.spans
            .get_or_create(&OutcomeLabels { outcome })
            .inc_by(count);
    }

    /// The OpenID provider was asked for its keys.
    pub fn issuer_asked(&self, outcome: &'static str) {
        debug_assert!(labels::ISSUER_ANSWERS.contains(&outcome), "{outcome}");
        self.issuer_answers
            .get_or_create(&OutcomeLabels { outcome })
            .inc();
    }

    /// An access token let nobody in.
    pub fn bearer_refused(&self, refused: Refused) {
        let reason = refused.as_str();
        self.bearers_refused
            .get_or_create(&ReasonLabels { reason })
            .inc();
    }

    /// It was looked whether everything moves.
    pub fn watched(&self, at: Timestamp) {
        self.watched_at.set(at.seconds());
    }

    /// The transparency log has so many entries.
    pub fn log_grew(&self, size: u64) {
        self.log_size.set(whole(size));
    }

    /// A head of so many entries is witnessed, as of so many seconds since 1970.
    pub fn log_witnessed(&self, at: i64, size: u64) {
        self.log_witnessed_at.set(at);
        self.log_witnessed_size.set(whole(size));
    }

    /// A witness was shown a head.
    pub fn witness_answered(&self, outcome: &'static str) {
        debug_assert!(labels::WITNESS_ANSWERS.contains(&outcome), "{outcome}");
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
        self.identities_expired.set(whole(expired));
        self.identities_expiring.set(whole(expiring));
    }

    /// So many Macs wait to be woken.
    pub fn macs_waiting(&self, count: usize) {
        self.macs_waiting
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// A message was taken.
    pub fn message(&self, surface: &'static str, kind: &'static str) {
        debug_assert!(
            MESSAGES
                .iter()
                .any(|(of, kinds)| *of == surface && kinds.contains(&kind)),
            "{surface} {kind}"
        );
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
        debug_assert!(labels::PUSHES.contains(&outcome), "{outcome}");
        self.pushes.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// A message to a webhook fared so.
    pub fn webhook_message(&self, outcome: &'static str) {
        debug_assert!(labels::WEBHOOK_MESSAGES.contains(&outcome), "{outcome}");
        self.webhook_messages
            .get_or_create(&OutcomeLabels { outcome })
            .inc();
    }

    /// A security event token fared so.
    pub fn signal(&self, outcome: &'static str) {
        debug_assert!(labels::SIGNALS.contains(&outcome), "{outcome}");
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
        self.push_certificate_days_left
            .get_or_create(&labels)
            .set(whole(days_left));
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
