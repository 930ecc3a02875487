//! What APNs' answer to a push means, whose fault it is, and what follows.
//!
//! Sources: Apple, *Handling notification responses from APNs*; apple-protocol section 9.2.

use std::fmt;

use serde::Deserialize;

use crate::time::Timestamp;

/// Real answers have about 50 bytes.
pub const MAX_BODY: usize = 4096;

/// How a push ended. Every status and body, and every way of getting none, is one of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushOutcome {
    /// APNs took it. Not: the Mac got it. Only the Mac connecting says that.
    Accepted,
    /// APNs does not know this token here: malformed, or of the other environment.
    TokenRefused,
    /// The token belongs to another topic. From one Mac: it gave a foreign token, which any Mac can, so
    /// this alone must not stop the others. From several: the certificate is the wrong one.
    TokenForeign,
    /// The token ended, at the time given. No proof that the Mac was unenrolled.
    TokenDead { since: Option<Timestamp> },
    /// Too many pushes to this token.
    Throttled,
    /// The certificate does not fit the topic. Says nothing about any Mac.
    TopicFault(ApnsReason),
    /// The certificate is not accepted. Says nothing about any Mac.
    CertificateFault(CertificateFault),
    /// Not sent, or not answered, for a cause that passes.
    RetryLater(Passing),
    /// We sent what APNs does not understand, or it answered what we do not.
    OurFault { status: u16, reason: ApnsReason },
}

/// How APNs, or we in its place, refused a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateFault {
    /// APNs answered 403.
    Refused(ApnsReason),
    /// APNs ended the TLS handshake over it (revoked, expired, unknown).
    Handshake,
    /// No certificate is installed for the topic.
    Absent,
    /// Certificate, key and TLS do not fit together; nothing was sent.
    Unusable,
}

/// A cause that passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passing {
    /// APNs has trouble of its own: this status, 5xx.
    Answered(u16),
    /// APNs is ending the connection this was sent on (`Shutdown`, `IdleTimeout`).
    ConnectionEnding,
    /// The connection failed, repeatedly.
    Disconnected,
    /// No connection could be made.
    Unreachable,
    /// The server that answered is not APNs: its certificate does not lead to a trusted root.
    UntrustedServer,
    /// No answer in time. It may have been delivered; a second push does no harm.
    Deadline,
    /// The topic is on hold after a certificate or topic fault.
    OnHold,
}

/// Whom an outcome points at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Blame {
    Nobody,
    /// The push token of one Mac.
    Token,
    /// The push certificate, so the operator.
    Certificate,
    Us,
    /// APNs, or the network on the way to it.
    Apple,
}

/// What is to be done after a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Duty {
    /// Wait for the Mac to connect.
    Wait,
    /// Send no push to this Mac until its next TokenUpdate. Keep its enrollment.
    AwaitTokenUpdate,
    /// The answer is about an older token: push again with the one at hand.
    PushAgain,
    /// Leave this token alone for minutes, longer each time, and keep the enrollment.
    BackOff,
    /// Send nothing with this certificate and tell the operator. Leave the Macs as they are.
    StopTopic,
    /// Try again later, longer each time.
    Retry,
    /// Do not repeat it as it is; tell the operator.
    Report,
}

macro_rules! reasons {
    ($($name:ident),* $(,)?) => {
        /// The reasons APNs gives.
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[expect(missing_docs, reason = "the names are APNs' own")]
        pub enum ApnsReason {
            $($name,)*
            /// One that is not on Apple's list, cut to what is safe to log.
            Unlisted(String),
            /// The body named none.
            Unnamed,
        }

        impl ApnsReason {
            /// Reads the name.
            fn parse(name: &str) -> Self {
                match name {
                    $(stringify!($name) => Self::$name,)*
                    _ => Self::Unlisted(
                        name.chars().filter(char::is_ascii_alphanumeric).take(40).collect(),
                    ),
                }
            }

            #[cfg(test)]
            const LISTED: &[Self] = &[$(Self::$name),*];

            /// The name as APNs spells it; empty when it gave none.
            pub fn name(&self) -> &str {
                match self {
                    $(Self::$name => stringify!($name),)*
                    Self::Unlisted(name) => name,
                    Self::Unnamed => "",
                }
            }
        }
    };
}

reasons! {
    BadCertificate, BadCertificateEnvironment, BadCollapseId, BadDeviceToken, BadEnvironmentKeyInToken,
    BadExpirationDate, BadMessageId, BadPath, BadPriority, BadTopic, DeviceTokenNotForTopic,
    DuplicateHeaders, ExpiredProviderToken, ExpiredToken, Forbidden, IdleTimeout, InternalServerError,
    InvalidProviderToken, InvalidPushType, MethodNotAllowed, MissingDeviceToken, MissingProviderToken,
    MissingTopic, PayloadEmpty, PayloadTooLarge, ServiceUnavailable, Shutdown,
    TooManyProviderTokenUpdates, TooManyRequests, TopicDisallowed, Unregistered, UnrelatedKeyIdInToken,
}

impl fmt::Display for ApnsReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The body of an answer other than 200. Members beyond these are not read.
#[derive(Deserialize)]
struct Body {
    reason: String,
    /// Milliseconds since 1970; with 410 only.
    timestamp: Option<i64>,
}

impl PushOutcome {
    /// Reads APNs' answer. Total: a body that is no JSON, or larger than [`MAX_BODY`], names no reason.
    pub fn read(status: u16, body: &[u8]) -> Self {
        let body = (body.len() <= MAX_BODY)
            .then(|| serde_json::from_slice::<Body>(body).ok())
            .flatten();
        let since = body
            .as_ref()
            .and_then(|body| body.timestamp)
            .filter(|millis| *millis > 0)
            .map(Timestamp::from_millis);
        let reason = body.map_or(ApnsReason::Unnamed, |body| ApnsReason::parse(&body.reason));
        match (status, reason) {
            (200, _) => Self::Accepted,
            (410, _) => Self::TokenDead { since },
            (429, _) => Self::Throttled,
            (400, ApnsReason::BadDeviceToken) => Self::TokenRefused,
            (400 | 503, ApnsReason::IdleTimeout | ApnsReason::Shutdown) => {
                Self::RetryLater(Passing::ConnectionEnding)
            }
            (500..=599, _) => Self::RetryLater(Passing::Answered(status)),
            (400, ApnsReason::DeviceTokenNotForTopic) => Self::TokenForeign,
            (
                400 | 403,
                reason @ (ApnsReason::MissingTopic
                | ApnsReason::BadTopic
                | ApnsReason::TopicDisallowed),
            ) => Self::TopicFault(reason),
            (403, reason)
            | (
                400,
                reason @ (ApnsReason::BadCertificate | ApnsReason::BadCertificateEnvironment),
            ) => Self::CertificateFault(CertificateFault::Refused(reason)),
            (status, reason) => Self::OurFault { status, reason },
        }
    }

    /// Whom it points at.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Accepted => Blame::Nobody,
            Self::TokenRefused | Self::TokenDead { .. } | Self::Throttled => Blame::Token,
            Self::TokenForeign
            | Self::TopicFault(_)
            | Self::CertificateFault(_)
            | Self::RetryLater(Passing::OnHold) => Blame::Certificate,
            Self::RetryLater(_) => Blame::Apple,
            Self::OurFault { .. } => Blame::Us,
        }
    }

    /// What is to be done about a push to a token that the Mac gave us at `token_from`. A token that
    /// ended before that was another one (trap 30 of apple-protocol section 13).
    pub fn duty(&self, token_from: Timestamp) -> Duty {
        match self {
            Self::Accepted => Duty::Wait,
            Self::TokenDead { since: Some(since) } if *since < token_from => Duty::PushAgain,
            Self::TokenRefused | Self::TokenDead { .. } => Duty::AwaitTokenUpdate,
            Self::Throttled | Self::TokenForeign => Duty::BackOff,
            Self::TopicFault(_) | Self::CertificateFault(_) => Duty::StopTopic,
            Self::RetryLater(_) => Duty::Retry,
            Self::OurFault { .. } => Duty::Report,
        }
    }

    /// Whether it says that nothing can be sent with this certificate, to any Mac.
    pub fn stops_topic(&self) -> bool {
        matches!(self, Self::TopicFault(_) | Self::CertificateFault(_))
    }

    /// A stable name for metrics and logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::TokenRefused => "token_refused",
            Self::TokenForeign => "token_foreign",
            Self::TokenDead { .. } => "token_dead",
            Self::Throttled => "throttled",
            Self::TopicFault(_) => "topic_fault",
            Self::CertificateFault(_) => "certificate_fault",
            Self::RetryLater(_) => "retry_later",
            Self::OurFault { .. } => "our_fault",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(status: u16, reason: &str) -> PushOutcome {
        PushOutcome::read(status, format!(r#"{{"reason":"{reason}"}}"#).as_bytes())
    }

    #[test]
    fn every_row_of_the_table_has_its_duty() {
        let now = Timestamp::from_seconds(1_800_000_000);
        let rows: &[(u16, &[&str], Duty, Blame)] = &[
            (
                400,
                &["BadDeviceToken"],
                Duty::AwaitTokenUpdate,
                Blame::Token,
            ),
            (
                400,
                &["MissingTopic", "BadTopic", "TopicDisallowed"],
                Duty::StopTopic,
                Blame::Certificate,
            ),
            (
                400,
                &[
                    "PayloadEmpty",
                    "BadExpirationDate",
                    "BadPriority",
                    "BadMessageId",
                    "BadCollapseId",
                    "DuplicateHeaders",
                    "InvalidPushType",
                ],
                Duty::Report,
                Blame::Us,
            ),
            (400, &["IdleTimeout"], Duty::Retry, Blame::Apple),
            (
                400,
                &["DeviceTokenNotForTopic"],
                Duty::BackOff,
                Blame::Certificate,
            ),
            (
                403,
                &[
                    "BadCertificate",
                    "BadCertificateEnvironment",
                    "Forbidden",
                    "New",
                ],
                Duty::StopTopic,
                Blame::Certificate,
            ),
            (404, &["BadPath"], Duty::Report, Blame::Us),
            (405, &["MethodNotAllowed"], Duty::Report, Blame::Us),
            (
                410,
                &["Unregistered", "ExpiredToken"],
                Duty::AwaitTokenUpdate,
                Blame::Token,
            ),
            (413, &["PayloadTooLarge"], Duty::Report, Blame::Us),
            (429, &["TooManyRequests"], Duty::BackOff, Blame::Token),
            (500, &["InternalServerError"], Duty::Retry, Blame::Apple),
            (
                503,
                &["ServiceUnavailable", "Shutdown"],
                Duty::Retry,
                Blame::Apple,
            ),
            (302, &["Moved"], Duty::Report, Blame::Us),
        ];
        for (status, reasons, duty, blame) in rows {
            for reason in *reasons {
                let outcome = read(*status, reason);
                assert_eq!(
                    (outcome.duty(now), outcome.blame()),
                    (*duty, *blame),
                    "{status} {reason}"
                );
            }
        }
        assert_eq!(PushOutcome::read(200, b"").duty(now), Duty::Wait);
    }

    #[test]
    fn a_token_that_ended_before_ours_was_given_is_another_one() {
        let ended = PushOutcome::read(
            410,
            br#"{"reason":"Unregistered","timestamp":1800000000000}"#,
        );
        let at = |seconds: i64| Timestamp::from_seconds(1_800_000_000 + seconds);
        assert_eq!(ended, PushOutcome::TokenDead { since: Some(at(0)) });
        assert_eq!(ended.duty(at(1)), Duty::PushAgain);
        assert_eq!(ended.duty(at(0)), Duty::AwaitTokenUpdate);
        assert_eq!(ended.duty(at(-1)), Duty::AwaitTokenUpdate);
        for untimed in [
            r#"{"reason":"Unregistered"}"#,
            r#"{"reason":"Unregistered","timestamp":-1}"#,
            "gone",
        ] {
            let outcome = PushOutcome::read(410, untimed.as_bytes());
            assert_eq!(outcome, PushOutcome::TokenDead { since: None });
        }
    }

    #[test]
    fn only_a_token_level_answer_blames_a_token() {
        for status in 100..=599 {
            for reason in ApnsReason::LISTED {
                let blamed = read(status, reason.name()).blame() == Blame::Token;
                let may = matches!(status, 410 | 429)
                    || (status == 400 && *reason == ApnsReason::BadDeviceToken);
                assert_eq!(blamed, may, "{status} {reason}");
            }
        }
    }

    #[test]
    fn reasons_are_read_by_their_names_and_strangers_are_cut() {
        for reason in ApnsReason::LISTED {
            assert_eq!(ApnsReason::parse(reason.name()), *reason);
        }
        let hostile = format!("x\u{1b}[31m\n{}", "y".repeat(100));
        let ApnsReason::Unlisted(name) = ApnsReason::parse(&hostile) else {
            panic!("not on the list")
        };
        assert!(name.len() == 40 && name.bytes().all(|b| b.is_ascii_alphanumeric()));
    }

    proptest! {
        #[test]
        fn any_answer_is_read(status in any::<u16>(), body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let outcome = PushOutcome::read(status, &body);
            prop_assert_eq!(outcome == PushOutcome::Accepted, status == 200);
        }
    }
}
