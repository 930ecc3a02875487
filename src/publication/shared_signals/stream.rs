//! A stream: what its receiver wants of it, and what it is (SSF 1.0 section 8.1).

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::member::{LONGEST, Malformed, object, text, texts};
use super::{DEVICE_COMPLIANCE_CHANGE, POLL, PUSH, Transmitter};
use crate::ids::{ReceiverId, StreamId};
use crate::secret::Secret;
use crate::time::Timestamp;

/// What a stream can tell of, besides what it tells of itself.
pub const SUPPORTED: [&str; 1] = [DEVICE_COMPLIANCE_CHANGE];

/// Seconds between two questions whether the stream works.
pub const MIN_VERIFICATION_INTERVAL: u64 = 10;

/// Events that a receiver may ask for, known or not.
const MOST_EVENTS: usize = 64;
/// Longest `authorization_header` and address.
const LONGEST_HEADER: usize = 4096;
const LONGEST_URL: usize = 2048;

/// How tokens get to the receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// It asks for them.
    Poll,
    Push {
        endpoint: Secret<String>,
        /// The header `Authorization` of each message.
        authorization: Option<Secret<String>>,
    },
}

/// Whether tokens are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = StreamStatus)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Enabled,
    /// They are kept until it is enabled.
    Paused,
    /// They are not kept.
    Disabled,
}

/// What the receiver chooses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wishes {
    pub delivery: Delivery,
    pub events_requested: Vec<String>,
    pub description: Option<String>,
}

impl Wishes {
    /// The same with the header of `before`, where tokens go on to the same endpoint and no other header is
    /// named: nobody who writes back what was read, which does not show it, loses it.
    #[must_use]
    pub fn with_header_of(mut self, before: &Self) -> Self {
        if let (
            Delivery::Push {
                endpoint,
                authorization: authorization @ None,
            },
            Delivery::Push {
                endpoint: same,
                authorization: known,
            },
        ) = (&mut self.delivery, &before.delivery)
            && endpoint == same
        {
            authorization.clone_from(known);
        }
        self
    }
}

/// A stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    pub stream_id: StreamId,
    pub receiver_id: ReceiverId,
    /// Whom its tokens are for.
    pub audience: String,
    pub wishes: Wishes,
    pub status: Status,
    /// Why it is so, in the words of whoever made it so.
    pub reason: Option<String>,
    /// When it was last asked whether it works.
    pub verified_at: Option<Timestamp>,
    pub created_at: Timestamp,
}

/// A stream as its receiver reads it (SSF 1.0 section 8.1.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = StreamConfiguration)]
pub struct Configuration {
    stream_id: StreamId,
    iss: String,
    aud: String,
    delivery: DeliveryShown,
    events_supported: [&'static str; 1],
    events_requested: Vec<String>,
    events_delivered: Vec<&'static str>,
    min_verification_interval: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
}

/// How tokens get to the receiver, without the header that pushes carry.
#[derive(Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = StreamDelivery)]
struct DeliveryShown {
    method: &'static str,
    endpoint_url: String,
}

impl fmt::Debug for DeliveryShown {
    /// The address may have a secret of the receiver's in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("DeliveryShown");
        shown.field("method", &self.method).finish_non_exhaustive()
    }
}

/// Whether tokens are sent, and why not (SSF 1.0 section 8.1.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = StreamStatusShown)]
pub struct StatusShown {
    stream_id: StreamId,
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// A request that makes, changes or replaces a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// As it was written: what names no stream is not found.
    pub stream_id: Option<String>,
    delivery: Option<Delivery>,
    events_requested: Option<Vec<String>>,
    description: Option<String>,
    /// Members that are the transmitter's to say.
    said: Map<String, Value>,
    poll_endpoint: Option<String>,
}

const KNOWN: [&str; 10] = [
    "stream_id",
    "iss",
    "aud",
    "delivery",
    "events_supported",
    "events_requested",
    "events_delivered",
    "min_verification_interval",
    "inactivity_timeout",
    "description",
];
const OF_TRANSMITTER: [&str; 6] = [
    "iss",
    "aud",
    "events_supported",
    "events_delivered",
    "min_verification_interval",
    "inactivity_timeout",
];
const OF_DELIVERY: [&str; 3] = ["method", "endpoint_url", "authorization_header"];

impl Request {
    /// Reads a request.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn read(body: &[u8]) -> Result<Self, Malformed> {
        let members = object(body, &KNOWN)?;
        let (delivery, poll_endpoint) = match members.get("delivery") {
            None => (None, None),
            Some(delivery) => {
                let (delivery, endpoint) = read_delivery(delivery)?;
                (Some(delivery), endpoint)
            }
        };
        let said = OF_TRANSMITTER
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), members.get(*name)?.clone())));
        Ok(Self {
            stream_id: text(&members, "stream_id", LONGEST)?,
            delivery,
            events_requested: texts(&members, "events_requested", MOST_EVENTS)?,
            description: text(&members, "description", LONGEST)?,
            said: said.collect(),
            poll_endpoint,
        })
    }

    /// What a new stream, or one that is replaced, is to be: what is not said is not wished for.
    pub fn whole(&self) -> Wishes {
        Wishes {
            delivery: self.delivery.clone().unwrap_or(Delivery::Poll),
            events_requested: self.events_requested.clone().unwrap_or_default(),
            description: self.description.clone(),
        }
    }

    /// What a stream is to be after a change: what is not said stays.
    pub fn over(&self, before: &Wishes) -> Wishes {
        let or = |new: &Option<String>, old: &Option<String>| new.clone().or_else(|| old.clone());
        Wishes {
            delivery: self
                .delivery
                .clone()
                .unwrap_or_else(|| before.delivery.clone()),
            events_requested: self
                .events_requested
                .clone()
                .unwrap_or_else(|| before.events_requested.clone()),
            description: or(&self.description, &before.description),
        }
    }

    /// Whether what it says on the transmitter's behalf is so. A token for another audience would be
    /// another's to use.
    ///
    /// # Errors
    /// [`Malformed`], with the member that is otherwise.
    pub fn agrees(&self, stream: &Stream, transmitter: &Transmitter) -> Result<(), Malformed> {
        let is = json!(stream.configuration(transmitter));
        let other = |name: &str| Malformed(format!("{name} is the transmitter's to choose"));
        for (name, value) in &self.said {
            if is.get(name) != Some(value) {
                return Err(other(name));
            }
        }
        match &self.poll_endpoint {
            Some(endpoint) if *endpoint != stream.poll_endpoint(transmitter) => {
                Err(other("endpoint_url of a stream that is polled"))
            }
            _ => Ok(()),
        }
    }
}

fn read_delivery(value: &Value) -> Result<(Delivery, Option<String>), Malformed> {
    let wrong = |what: &str| Malformed(format!("delivery {what}"));
    let members = value.as_object().ok_or_else(|| wrong("is an object"))?;
    if let Some(name) = members
        .keys()
        .find(|name| !OF_DELIVERY.contains(&name.as_str()))
    {
        return Err(wrong(&format!("has no member {name:?}")));
    }
    let endpoint = text(members, "endpoint_url", LONGEST_URL)?;
    let header = text(members, "authorization_header", LONGEST_HEADER)?;
    match members.get("method").and_then(Value::as_str) {
        Some(PUSH) => {
            let printable = |text: &String| text.bytes().all(|b| (0x20..0x7f).contains(&b));
            if header.as_ref().is_some_and(|header| !printable(header)) {
                return Err(wrong(
                    "authorization_header is one line of printable characters",
                ));
            }
            let endpoint = endpoint.ok_or_else(|| wrong("by push has an endpoint_url"))?;
            let push = Delivery::Push {
                endpoint: Secret::new(endpoint),
                authorization: header.map(Secret::new),
            };
            Ok((push, None))
        }
        Some(POLL) if header.is_none() => Ok((Delivery::Poll, endpoint)),
        Some(POLL) => Err(wrong("by poll has no authorization_header")),
        _ => Err(wrong(&format!("method is {PUSH} or {POLL}"))),
    }
}

impl Stream {
    /// What it is, as its receiver reads it. The header that pushes carry is the receiver's secret, and
    /// is not told back.
    pub fn configuration(&self, transmitter: &Transmitter) -> Configuration {
        let (method, endpoint_url) = match &self.wishes.delivery {
            Delivery::Poll => (POLL, self.poll_endpoint(transmitter)),
            Delivery::Push { endpoint, .. } => (PUSH, endpoint.expose().clone()),
        };
        Configuration {
            stream_id: self.stream_id.clone(),
            iss: transmitter.issuer.clone(),
            aud: self.audience.clone(),
            delivery: DeliveryShown {
                method,
                endpoint_url,
            },
            events_supported: SUPPORTED,
            events_requested: self.wishes.events_requested.clone(),
            events_delivered: self.delivers(),
            min_verification_interval: MIN_VERIFICATION_INTERVAL,
            description: self.wishes.description.clone(),
        }
    }

    /// The answer about its status.
    pub fn status(&self) -> StatusShown {
        StatusShown {
            stream_id: self.stream_id.clone(),
            status: self.status,
            reason: self.reason.clone(),
        }
    }

    /// Whether this event is asked for.
    pub fn wants(&self, event: &str) -> bool {
        self.wishes.events_requested.iter().any(|it| it == event)
    }

    fn delivers(&self) -> Vec<&'static str> {
        let mut supported = SUPPORTED.to_vec();
        supported.retain(|event| self.wants(event));
        supported
    }

    fn poll_endpoint(&self, transmitter: &Transmitter) -> String {
        transmitter.endpoint(&format!("/ssf/poll/{}", self.stream_id))
    }
}

/// A request about one stream: its status, a subject, a verification.
#[derive(Debug, Clone, PartialEq)]
pub struct About {
    /// As it was written: what names no stream is not found.
    pub stream_id: String,
    members: Map<String, Value>,
}

impl About {
    /// Reads a request with a `stream_id`.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn read(body: &[u8]) -> Result<Self, Malformed> {
        const KNOWN: [&str; 6] = [
            "stream_id",
            "status",
            "reason",
            "subject",
            "verified",
            "state",
        ];
        let members = object(body, &KNOWN)?;
        let stream_id = text(&members, "stream_id", LONGEST)?;
        Ok(Self {
            stream_id: stream_id.ok_or_else(|| Malformed("stream_id is missing".to_owned()))?,
            members,
        })
    }

    /// The status that is asked for, and why.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn status(&self) -> Result<(Status, Option<String>), Malformed> {
        let status = self.members.get("status").cloned().unwrap_or_default();
        let status = serde_json::from_value(status)
            .map_err(|_| Malformed("status is enabled, paused or disabled".to_owned()))?;
        Ok((status, text(&self.members, "reason", LONGEST)?))
    }

    /// The subject that is named.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn subject(&self) -> Result<super::subject::Subject, Malformed> {
        if let Some(verified) = self.members.get("verified").filter(|it| !it.is_boolean()) {
            return Err(Malformed(format!(
                "verified is true or false, not {verified}"
            )));
        }
        let missing = || Malformed("subject is missing".to_owned());
        super::subject::Subject::read(self.members.get("subject").ok_or_else(missing)?)
    }

    /// What a verification is to bring back.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn state(&self) -> Result<Option<String>, Malformed> {
        text(&self.members, "state", LONGEST)
    }
}
