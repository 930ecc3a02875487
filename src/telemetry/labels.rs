//! Labels, and the closed lists of their values. A word that is counted and not listed fails in tests.

use prometheus_client::encoding::EncodeLabelSet;

use crate::posture::Verdict;

macro_rules! label {
    ($name:ident { $($member:ident: $kind:ty),* }) => {
        #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
        pub(super) struct $name {
            $(pub(super) $member: $kind,)*
        }
    };
}

label!(MessageLabels {
    surface: &'static str,
    kind: &'static str
});
label!(RefusalLabels {
    surface: &'static str,
    reason: &'static str
});
label!(OutcomeLabels {
    outcome: &'static str
});
label!(ReasonLabels {
    reason: &'static str
});
label!(TopicLabels { topic: String });
label!(CertificateLabels {
    certificate: &'static str
});
label!(VerdictLabels {
    verdict: &'static str
});
label!(RequestLabels {
    listener: &'static str,
    status: u16
});
label!(StepLabels { step: &'static str });
label!(KindLabels { kind: &'static str });
label!(QuantileLabels {
    quantile: &'static str
});
label!(ReaderLabels {
    reader: &'static str
});
label!(CauseLabels { cause: &'static str });
label!(WorkerLabels {
    worker: &'static str
});

/// What each surface takes from Macs.
pub(super) const MESSAGES: [(&str, &[&str]); 3] = [
    (
        "connect",
        &[
            "Idle",
            "Acknowledged",
            "Error",
            "CommandFormatError",
            "NotNow",
            "foreign",
        ],
    ),
    (
        "check_in",
        &[
            "Authenticate",
            "TokenUpdate",
            "CheckOut",
            "SetBootstrapToken",
            "GetBootstrapToken",
            "UserAuthenticate",
            "DeclarativeManagement",
            "GetToken",
        ],
    ),
    ("scep", &["PKCSReq", "RenewalReq", "GetCertInitial"]),
];

/// How pushes end.
pub(super) const PUSHES: [&str; 10] = [
    "accepted",
    "token_refused",
    "token_foreign",
    "token_dead",
    "throttled",
    "topic_fault",
    "certificate_fault",
    "retry_later",
    "our_fault",
    "no_address",
];

/// How messages to webhooks end, those of an old coordinator among them.
pub(super) const WEBHOOK_MESSAGES: [&str; 7] = [
    "delivered",
    "refused",
    "unreached",
    "given_up",
    "relayed",
    "relay_put_off",
    "relay_given_up",
];

/// What became of the spans of traces.
pub(super) const SPANS: [&str; 3] = ["sent", "not_taken", "queue_full"];

/// How security event tokens end.
pub(super) const SIGNALS: [&str; 4] = ["delivered", "refused", "unreached", "given_up"];

/// How the OpenID provider answers, asked for its keys.
pub(super) const ISSUER_ANSWERS: &[&str] = &[
    "fetched",
    "target",
    "unresolved",
    "address_not_public",
    "unreachable",
    "untrusted",
    "timed_out",
    "disconnected",
    "too_large",
    "status",
    "metadata",
    "key_set",
    "root",
];

pub(super) const VERDICTS: [Verdict; 4] = [
    Verdict::Affirming,
    Verdict::Warning,
    Verdict::Contraindicated,
    Verdict::Unknown,
];

/// The shares of Macs whose verdict is younger, in percent.
pub(super) const QUANTILES: [(&str, usize); 3] = [("0.5", 50), ("0.99", 99), ("1", 100)];

/// How others are told of events.
pub(super) const READERS: [&str; 3] = ["webhooks", "shared_signals", "event_streams"];

/// What this node works with besides the push certificates.
pub(super) const CERTIFICATES: [&str; 5] = [
    "device_ca",
    "registration_authority",
    "profile_signer",
    "public_tls",
    "internal_tls",
];

/// How heads of the log fare with witnesses: signed, or why not.
pub(super) const WITNESS_ANSWERS: &[&str] = &[
    "cosigned",
    "moves_on",
    "unresolved",
    "address_not_public",
    "unreachable",
    "untrusted",
    "timed_out",
    "disconnected",
    "too_large",
    "unknown_log",
    "unknown_key",
    "inconsistent",
    "other_tree",
    "knows_more",
    "unsigned",
    "ahead",
    "malformed",
];
