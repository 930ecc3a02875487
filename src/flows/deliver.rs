//! How messages get to a receiver, whatever they say: those about one Mac one after the other, those about
//! others beside them, and no more once it is not reached. Webhooks and streams of shared signals are
//! delivered so; the course of each ([`delivery`](crate::publication::delivery)) says what follows.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{HeaderMap, HeaderValue, header};

use super::{Context, Failure};
use crate::ids::DeviceId;
use crate::outbound::{Answer, Fault, Line, Reach, Target};
use crate::publication::delivery::{Course, Outcome};
use crate::time::Timestamp;

/// Messages that are looked at in one round: one that is refused holds up no more than these.
pub(super) const PAGE: usize = 256;
/// Connections to one receiver.
const LANES: usize = 8;
/// After so long a round begins no more messages. With the deadline of one it ends well within [`TAKEN`].
const ROUND: Duration = Duration::from_secs(20);
/// How long others leave a receiver to whoever took it.
pub(super) const TAKEN: Duration = Duration::from_secs(60);

/// Whether another node is at it. A server that has its database to itself only finds what it left
/// behind itself; and nobody takes one for longer than a clock that was wrong says.
pub(super) fn is_taken(ctx: &Context, until: Timestamp, now: Timestamp) -> bool {
    !ctx.store.is_ours_alone() && now < until && until.since(now) <= TAKEN
}

/// Something that is sent.
pub(super) trait Message: Sync + 'static {
    /// Its number among those to this receiver.
    fn seq(&self) -> i64;

    /// The Mac it is about; what is about none is in an order of its own.
    fn device_id(&self) -> Option<&DeviceId>;
}

/// What is to be sent now, by Mac, each lane in its order.
pub(super) fn lanes<'a, M: Message>(
    course: &Course,
    messages: impl Iterator<Item = &'a M>,
    now: Timestamp,
) -> Vec<Vec<&'a M>> {
    let mut lanes: BTreeMap<Option<&DeviceId>, Vec<&M>> = BTreeMap::new();
    for message in messages.filter(|message| !course.is_settled(message.seq())) {
        lanes.entry(message.device_id()).or_default().push(message);
    }
    // Nothing overtakes what waits to be tried again.
    lanes.retain(|_, lane| {
        lane.first()
            .is_some_and(|message| course.is_due(message.seq(), now))
    });
    let mut lanes: Vec<_> = lanes.into_values().collect();
    lanes.sort_by_key(|lane| lane.first().map(|message| message.seq()));
    lanes
}

/// How a kind of message is written, and what answers to it mean.
pub(super) trait Manner<M>: Sync {
    /// The message as it leaves; none for what cannot be written.
    fn write(&self, message: &M) -> Option<(HeaderMap, Bytes)>;

    /// What was answered.
    fn judge(&self, answer: &Answer) -> Outcome;

    /// For the metrics.
    fn count(&self, outcome: &'static str);
}

/// The messages of a round on their way.
pub(super) struct Sending<'a, M, W> {
    ctx: &'a Context,
    manner: &'a W,
    target: Target,
    reach: Reach,
    began: Instant,
    /// The receiver was not reached: nothing more is sent.
    is_over: AtomicBool,
    outcomes: Mutex<BTreeMap<i64, Outcome>>,
    _of: std::marker::PhantomData<fn(&M)>,
}

impl<'a, M: Message, W: Manner<M>> Sending<'a, M, W> {
    /// A round to this address.
    ///
    /// # Errors
    /// An address that could not be one when it was kept.
    pub(super) fn new(
        ctx: &'a Context,
        manner: &'a W,
        url: &str,
        allow_private: bool,
        root: Option<&str>,
    ) -> Result<Self, Failure> {
        Ok(Self {
            ctx,
            manner,
            target: Target::parse(url, allow_private)
                .map_err(|_| Failure::Inconsistent("a receiver without a usable address"))?,
            reach: Reach {
                allow_private,
                root: root.map(|root| root.as_bytes().to_vec()),
            },
            began: Instant::now(),
            is_over: AtomicBool::new(false),
            outcomes: Mutex::default(),
            _of: std::marker::PhantomData,
        })
    }

    /// Sends lanes beside one another; how each message fared that was sent.
    pub(super) async fn send(self, lanes: Vec<Vec<&M>>) -> BTreeMap<i64, Outcome> {
        let lanes = futures_util::stream::iter(lanes);
        lanes
            .for_each_concurrent(LANES, |lane| self.send_lane(lane))
            .await;
        self.outcomes
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
    }

    async fn send_lane(&self, lane: Vec<&M>) {
        let outcomes = self.send_in_order(lane.into_iter()).await;
        let mut all = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend(outcomes);
    }

    /// Sends until one is not delivered.
    pub(super) async fn send_in_order(
        &self,
        messages: impl Iterator<Item = &M>,
    ) -> BTreeMap<i64, Outcome> {
        let mut outcomes = BTreeMap::new();
        let mut line = None;
        for message in messages {
            let is_late = self.began.elapsed() > ROUND;
            if is_late || self.is_over.load(Ordering::Relaxed) {
                break;
            }
            let outcome = self.send_one(&mut line, message).await;
            let goes_on = outcome == Outcome::Delivered;
            self.manner.count(match &outcome {
                Outcome::Delivered => "delivered",
                Outcome::Refused(_) => "refused",
                Outcome::Unreached(_) => "unreached",
            });
            if matches!(outcome, Outcome::Unreached(_)) {
                self.is_over.store(true, Ordering::Relaxed);
            }
            outcomes.insert(message.seq(), outcome);
            if !goes_on {
                break;
            }
        }
        outcomes
    }

    async fn send_one(&self, line: &mut Option<Line>, message: &M) -> Outcome {
        let Some((mut headers, body)) = self.manner.write(message) else {
            return Outcome::Refused("cannot be written".to_owned());
        };
        let agent = HeaderValue::from_static(concat!("attestd/", env!("CARGO_PKG_VERSION")));
        headers.insert(header::USER_AGENT, agent);
        let line = match line {
            Some(line) => line,
            None => match self.ctx.outbound.line(self.target.clone(), &self.reach) {
                Ok(new) => line.insert(new),
                Err(_) => return Outcome::Unreached(Fault::Untrusted.as_str().to_owned()),
            },
        };
        match line.post(&headers, &body).await {
            Ok(answer) => self.manner.judge(&answer),
            Err(fault) => Outcome::Unreached(fault.as_str().to_owned()),
        }
    }
}

/// What a status says: taken, not this one, or not now.
pub(super) fn judged(status: u16) -> Outcome {
    let said = format!("answered {status}");
    match status {
        200..=299 => Outcome::Delivered,
        408 | 429 | 500..=599 => Outcome::Unreached(said),
        _ => Outcome::Refused(said),
    }
}
