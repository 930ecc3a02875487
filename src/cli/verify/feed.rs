//! `attestd verify feed`.

use clap::Args;
use serde_json::json;

use super::source::{Reach, Source};
use super::trust::Trusted;
use super::{Answer, Unreadable, input};
use crate::publication::bundle::Finding;
use crate::publication::feed::examine::examine;
use crate::publication::feed::reader::MAX_FEED;
use crate::time::Timestamp;

#[derive(Debug, Args)]
#[command(after_help = "\
For each provider each claim of the feed is told with how far it holds: proved and by whom, asserted and
by whom, or failed and why. Whether Apple named the key of a provider is proved by its evidence bundle
(attestd verify bundle). docs/verify.md has the rules.

Example: attestd verify feed https://mdm.example.org/v1/providers/attestation")]
pub(super) struct Arguments {
    /// The feed, or the part of it that is about one provider; - is standard input.
    #[arg(value_name = "FILE|URL", value_parser = Source::parse)]
    source: Source,
    #[command(flatten)]
    trust: Trusted,
    #[command(flatten)]
    reach: Reach,
    /// The moment at which everything is judged; now when not given.
    #[arg(long, value_name = "RFC3339", value_parser = input::time)]
    at: Option<Timestamp>,
    /// One line of JSON instead of an indented object.
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<Answer, Unreadable> {
    let trust = arguments.trust.read()?;
    let bytes = arguments.source.json(&arguments.reach, MAX_FEED)?;
    let at = input::at(arguments.at);
    let mut answer = Answer::judged(&trust, at);
    match examine(&bytes, &trust, at) {
        Ok(providers) => {
            for provider in &providers {
                let of = format!("{}: ", provider.provider_id);
                for finding in &provider.findings {
                    answer.found(finding, &of);
                }
            }
            answer.member("providers", json!(providers));
        }
        Err(refusal) => {
            let finding = Finding {
                claim: "form",
                standing: refusal.fault().into(),
            };
            answer.found(&finding, "");
            answer.member("findings", json!([finding]));
        }
    }
    Ok(answer)
}
