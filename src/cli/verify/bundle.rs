//! `attestd verify bundle`.

use clap::Args;
use serde_json::json;

use super::source::{Reach, Source};
use super::trust::Trusted;
use super::{Answer, Unreadable, input};
use crate::publication::bundle::{MAX_BUNDLE, examine};
use crate::time::Timestamp;

#[derive(Debug, Args)]
#[command(after_help = "\
Each claim of the bundle is told with how far it holds: proved and by whom, asserted and by whom, or
failed and why. What the bundle has no part for is not claimed. docs/verify.md has the rules, and a
second program, in Python, that must find the same.")]
pub(super) struct Arguments {
    /// The bundle; - is standard input.
    #[arg(value_name = "FILE|URL", value_parser = Source::parse)]
    source: Source,
    #[command(flatten)]
    trust: Trusted,
    #[command(flatten)]
    reach: Reach,
    /// A claim that must be there and proved, such as apple_posture; may be given several times.
    #[arg(long, value_name = "CLAIM")]
    require: Vec<String>,
    /// The moment at which everything is judged; now when not given.
    #[arg(long, value_name = "RFC3339", value_parser = input::time)]
    at: Option<Timestamp>,
    /// One line of JSON instead of an indented object.
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<Answer, Unreadable> {
    let trust = arguments.trust.read()?;
    let bytes = arguments.source.json(&arguments.reach, MAX_BUNDLE)?;
    let at = input::at(arguments.at);
    let findings = examine(&bytes, &trust, at);
    let mut answer = Answer::judged(&trust, at);
    for finding in &findings {
        answer.found(finding, "");
    }
    answer.require(&arguments.require, &findings);
    answer.member("findings", json!(findings));
    Ok(answer)
}
