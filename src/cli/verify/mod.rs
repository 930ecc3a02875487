//! `attestd verify`: what evidence says, and whether it is genuine, without a server.
//!
//! `verdict` is about form, authenticity and what the caller asked to match, never about good or bad
//! posture: a genuine statement that SIP is off is `verified`. Judging is the policy's.
//!
//! Exit status: 0 `verified`; 1 `refused`; 2 only when a file cannot be opened, the arguments are
//! wrong, or the outer input is not its format at all.

mod acme;
mod blob;
mod bundle;
mod device_information;
mod feed;
mod input;
mod mda;
mod mdm_signature;
mod response;
mod security_info;
mod source;
mod status;
mod trust;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use crate::attestation::Anchors;
use crate::publication::bundle::trust::Trust;
use crate::publication::bundle::{Finding, Standing};
use crate::reason::Reason;
use crate::time::Timestamp;

#[derive(Debug, Args)]
#[command(after_help = "\
Exit status: 0 verified, 1 refused, 2 unreadable input or wrong arguments.
The verdict is about form, authenticity and what you asked to match; a genuine statement that a Mac
is in a bad state is verified. FILE may be - for standard input; PEM and DER are both read.")]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// A Managed Device Attestation chain: what Apple states of a Mac.
    Mda(mda::Arguments),
    /// A SecurityInfo reply: whether it is well formed, and what it reports.
    SecurityInfo(security_info::Arguments),
    /// A DeviceInformation reply with its attestation chain.
    DeviceInformation(device_information::Arguments),
    /// An Mdm-Signature header over a body.
    MdmSignature(mdm_signature::Arguments),
    /// An ACME attestation object with the request that is to be certified.
    Acme(acme::Arguments),
    /// A provider's attestation blob, as it is sent with a registration.
    Blob(blob::Arguments),
    /// An evidence bundle: each claim of it, and who proves it.
    Bundle(bundle::Arguments),
    /// The public feed: for each provider each claim, and who proves it.
    Feed(feed::Arguments),
    /// A saved reply: who signed it, and what is proved of that key, down to Apple's root.
    Response(response::Arguments),
    /// The canonical status of a provider, against what another writer made of the same values.
    Status(status::Arguments),
}

/// The result of looking at readable input.
struct Answer {
    refused: Vec<Reason>,
    /// For a person: what exactly is wrong.
    detail: Option<String>,
    /// What was read; believed only when nothing is refused.
    claims: Option<Value>,
    /// Further members, in every answer.
    members: Map<String, Value>,
    /// Further members that are only true of verified input.
    verified_members: Map<String, Value>,
}

/// The input could not be looked at.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Unreadable(String);

impl Answer {
    fn new(claims: Option<Value>) -> Self {
        Self {
            refused: Vec::new(),
            detail: None,
            claims,
            members: Map::new(),
            verified_members: Map::new(),
        }
    }

    fn refuse(&mut self, reasons: &[Reason], detail: impl ToString) {
        for reason in reasons {
            if !self.refused.contains(reason) {
                self.refused.push(*reason);
            }
        }
        self.detail.get_or_insert_with(|| detail.to_string());
    }

    /// An answer about claims, as of `at`, with whose root they may lead to.
    fn judged(trust: &Trust, at: Timestamp) -> Self {
        let mut answer = Self::new(None);
        answer.member("anchor", json!(trust.anchors.as_ref().map(Anchors::kind)));
        answer.member("at", json!(at));
        answer
    }

    /// A claim that failed refuses the whole; `of` is what it is about, if there are several.
    fn found(&mut self, finding: &Finding, of: &str) {
        if let Standing::Failed { reason, detail } = &finding.standing {
            self.refuse(&[*reason], format!("{of}{}: {detail}", finding.claim));
        }
    }

    /// Refuses where one of these claims is not proved.
    fn require<'a>(
        &mut self,
        wanted: &[String],
        findings: impl IntoIterator<Item = &'a Finding> + Clone,
    ) {
        for wanted in wanted {
            let mut of_it = findings.clone().into_iter();
            let is_proved = of_it.any(|finding| {
                finding.claim == wanted && matches!(finding.standing, Standing::Proved { .. })
            });
            if !is_proved {
                self.refuse(&[Reason::FieldMissing], format!("{wanted} is not proved"));
            }
        }
    }

    fn member(&mut self, name: &str, value: Value) {
        self.members.insert(name.to_owned(), value);
    }

    fn into_json(self) -> (Value, bool) {
        let verified = self.refused.is_empty();
        let mut object = Map::new();
        object.insert(
            "verdict".into(),
            json!(if verified { "verified" } else { "refused" }),
        );
        object.insert("reasons".into(), json!(self.refused));
        if let Some(detail) = self.detail {
            object.insert("detail".into(), json!(detail));
        }
        object.extend(self.members);
        if let Some(claims) = self.claims {
            object.insert(
                if verified {
                    "claims"
                } else {
                    "unverified_claims"
                }
                .into(),
                claims,
            );
        }
        if verified {
            object.extend(self.verified_members);
        }
        (Value::Object(object), verified)
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the one place that tells a person about unreadable input"
)]
pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let (answer, compact) = match &arguments.what {
        What::Mda(arguments) => (mda::run(arguments), arguments.options.json),
        What::SecurityInfo(arguments) => (security_info::run(arguments), arguments.json),
        What::DeviceInformation(arguments) => {
            (device_information::run(arguments), arguments.options.json)
        }
        What::MdmSignature(arguments) => (mdm_signature::run(arguments), arguments.json),
        What::Acme(arguments) => (acme::run(arguments), arguments.json),
        What::Blob(arguments) => (blob::run(arguments), arguments.json),
        What::Bundle(arguments) => (bundle::run(arguments), arguments.json),
        What::Feed(arguments) => (feed::run(arguments), arguments.json),
        What::Response(arguments) => (response::run(arguments), arguments.json),
        What::Status(arguments) => (status::run(arguments), arguments.json),
    };
    match answer {
        Ok(answer) => {
            let (object, verified) = answer.into_json();
            let text = if compact {
                object.to_string()
            } else {
                format!("{object:#}")
            };
            // A reader that went away has seen what it wanted; the exit status still says it.
            let _ = writeln!(std::io::stdout(), "{text}");
            if verified {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(unreadable) => {
            eprintln!("attestd verify: {unreadable}");
            ExitCode::from(2)
        }
    }
}
