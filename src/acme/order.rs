//! An order with its one authorization and its one challenge: one state, seen three ways.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::attested::AttestedKey;
use super::refusal::{Problem, Refusal};
use super::reply::document;
use super::route::Route;
use super::token::TokenInputs;
use crate::time::Timestamp;

/// The only type of identifier, of the device-attest draft.
pub(super) const IDENTIFIER_TYPE: &str = "permanent-identifier";

/// The only type of challenge.
const CHALLENGE_TYPE: &str = "device-attest-01";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Order {
    /// The account it belongs to.
    pub(super) account: u32,
    pub(super) identifier: String,
    pub(super) token: String,
    pub(super) inputs: TokenInputs,
    pub(super) created_at: Timestamp,
    expires_at: Timestamp,
    pub(super) state: State,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub(super) enum State {
    /// The challenge waits for its answer.
    Pending,
    /// The challenge is valid, and the order can be finalized.
    Ready { attested: Box<AttestedKey> },
    /// There is a certificate: PEM, the device's first.
    Valid {
        validated_at: Timestamp,
        chain: String,
    },
    /// Over, without a certificate.
    Invalid {
        /// Set when it was not the challenge that failed.
        validated_at: Option<Timestamp>,
        failure: Failure,
    },
}

/// Why an order came to nothing, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failure {
    problem: Problem,
    status: u16,
    detail: String,
}

impl From<&Refusal> for Failure {
    fn from(refusal: &Refusal) -> Self {
        let (problem, status) = refusal.problem();
        Self {
            problem,
            status,
            detail: refusal.to_string(),
        }
    }
}

impl Failure {
    fn view(&self) -> Value {
        document(self.problem, self.status, &self.detail)
    }
}

impl Order {
    pub(super) fn new(
        account: u32,
        identifier: &str,
        inputs: TokenInputs,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Self {
        Self {
            account,
            identifier: identifier.to_owned(),
            token: inputs.token(),
            inputs,
            created_at: now,
            expires_at,
            state: State::Pending,
        }
    }

    /// RFC 8555 section 7.1.6: an order that is not valid in time is invalid.
    pub(super) fn has_expired(&self, now: Timestamp) -> bool {
        now >= self.expires_at && self.is_open()
    }

    /// Whether it has not come to its end.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Pending | State::Ready { .. })
    }

    /// The order's status.
    pub(super) fn status(&self, now: Timestamp) -> &'static str {
        match &self.state {
            _ if self.has_expired(now) => "invalid",
            State::Pending => "pending",
            State::Ready { .. } => "ready",
            State::Valid { .. } => "valid",
            State::Invalid { .. } => "invalid",
        }
    }

    /// Ends it.
    pub(super) fn fail(&mut self, refusal: &Refusal) {
        self.state = State::Invalid {
            validated_at: self.validated_at(),
            failure: Failure::from(refusal),
        };
    }

    fn validated_at(&self) -> Option<Timestamp> {
        match &self.state {
            State::Pending => None,
            State::Ready { attested } => Some(attested.verified_at),
            State::Valid { validated_at, .. } => Some(*validated_at),
            State::Invalid { validated_at, .. } => *validated_at,
        }
    }

    fn failure(&self) -> Option<&Failure> {
        match &self.state {
            State::Invalid { failure, .. } => Some(failure),
            State::Pending | State::Ready { .. } | State::Valid { .. } => None,
        }
    }

    /// RFC 8555 section 7.1.3.
    pub(super) fn view(&self, number: u32, base: &str, now: Timestamp) -> Value {
        let mut view = json!({
            "status": self.status(now),
            "expires": self.expires(),
            "identifiers": [self.identifier()],
            "authorizations": [Route::Authorization(number).url(base)],
            "finalize": Route::Finalize(number).url(base),
        });
        if let State::Valid { .. } = self.state {
            view["certificate"] = json!(Route::Certificate(number).url(base));
        }
        if let Some(failure) = self.failure() {
            view["error"] = failure.view();
        }
        view
    }

    /// RFC 8555 section 7.1.4.
    pub(super) fn authorization(&self, number: u32, base: &str, now: Timestamp) -> Value {
        let status = match self.validated_at() {
            Some(_) if self.has_expired(now) => "expired",
            Some(_) => "valid",
            None => self.status(now),
        };
        json!({
            "status": status,
            "expires": self.expires(),
            "identifier": self.identifier(),
            "challenges": [self.challenge(number, base, now)],
        })
    }

    /// RFC 8555 section 8 and the device-attest draft.
    pub(super) fn challenge(&self, number: u32, base: &str, now: Timestamp) -> Value {
        let validated_at = self.validated_at();
        let mut view = json!({
            "type": CHALLENGE_TYPE,
            "url": Route::Challenge(number).url(base),
            "status": if validated_at.is_some() { "valid" } else { self.status(now) },
            "token": self.token,
        });
        match (validated_at, self.failure()) {
            (Some(at), _) => view["validated"] = json!(whole_seconds(at)),
            (None, Some(failure)) => view["error"] = failure.view(),
            (None, None) => {}
        }
        view
    }

    fn identifier(&self) -> Value {
        json!({ "type": IDENTIFIER_TYPE, "value": self.identifier })
    }

    fn expires(&self) -> Timestamp {
        whole_seconds(self.expires_at)
    }
}

/// As every example of RFC 8555 and every reader of RFC 3339 has it.
fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_seconds(time.seconds())
}
