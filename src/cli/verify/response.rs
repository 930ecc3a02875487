//! `attestd verify response`.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::source::{Reach, Source};
use super::trust::Trusted;
use super::{Answer, Unreadable, input};
use crate::publication::bundle::{Finding, MAX_BUNDLE};
use crate::publication::feed::ProviderId;
use crate::publication::feed::reader::{Entry, Feed, MAX_FEED};
use crate::publication::reply::{
    Placed, Saved, examine_entry, examine_evidence, failed, not_listed,
};
use crate::publication::trust_headers::{MAX_HEADERS, TrustHeaders};
use crate::time::Timestamp;

/// The longest reply that is read.
const MAX_BODY: usize = 64 * 1024 * 1024;

#[derive(Debug, Args)]
#[command(after_help = "\
The reply is saved with curl --dump-header HEADERS --output BODY, without --compressed; of a streamed
one the trailers may be in HEADERS, and need not. Its key is looked up in the feed; from a feed that is
a URL the evidence of that provider comes from the same origin.

The signature binds the body to the key, and nothing else: not the request, so that an old reply to
another question verifies as well, not the time, not the other headers. docs/verify.md has the rules.

Example: attestd verify response --headers headers --body body --trust TRUST.json \\
           --feed https://mdm.example.org/v1/providers/attestation")]
pub(super) struct Arguments {
    /// The headers of the reply, as curl --dump-header saves them.
    #[arg(long, value_name = "FILE")]
    headers: PathBuf,
    /// Its body, byte for byte as it was sent.
    #[arg(long, value_name = "FILE")]
    body: PathBuf,
    /// The public feed.
    #[arg(long, value_name = "FILE|URL", value_parser = Source::parse)]
    feed: Source,
    /// The evidence bundle of the provider, where the feed is a file.
    #[arg(long, value_name = "FILE|URL", value_parser = Source::parse)]
    evidence: Option<Source>,
    #[command(flatten)]
    trust: Trusted,
    #[command(flatten)]
    reach: Reach,
    /// A claim that must be there and proved, such as key_named; may be given several times.
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
    let at = input::at(arguments.at);
    let headers = input::bytes_to(&arguments.headers, MAX_HEADERS)?;
    let body = input::bytes_to(&arguments.body, MAX_BODY)?;
    let feed = arguments.feed.json(&arguments.reach, MAX_FEED)?;
    let mut answer = Answer::judged(&trust, at);

    let findings = match TrustHeaders::read(&headers) {
        Err(refusal) => vec![failed("form", refusal.reason(), &refusal)],
        Ok(_) if body.len() > MAX_BODY => {
            let large = crate::reason::Reason::RequestTooLarge;
            vec![failed("form", large, &"longer than any reply")]
        }
        Ok(headers) => {
            answer.claims = Some(json!({
                "attested": headers.attested,
                "trust_level": headers.level,
                "provider_id": headers.provider_id,
                "se_public_key": headers.key,
            }));
            let saved = Saved {
                headers: &headers,
                body: &body,
            };
            let mut findings = saved.examine();
            let evidence;
            match Feed::read(&feed) {
                Err(refusal) => findings.push(not_listed(refusal.fault())),
                Ok(feed) => match saved.provider(&feed) {
                    Err(fault) => findings.push(not_listed(fault)),
                    Ok(entry) => {
                        findings.extend(examine_entry(entry, &trust, at));
                        let beside = beside(&arguments.feed, entry);
                        evidence = arguments.evidence.clone().or(beside);
                        if let Some(evidence) = &evidence {
                            let bytes = evidence.json(&arguments.reach, MAX_BUNDLE)?;
                            findings.extend(examine_evidence(&bytes, &saved, &trust, at));
                        }
                    }
                },
            }
            findings
        }
    };
    for Placed { place, finding } in &findings {
        answer.found(finding, &format!("{}: ", place.as_str()));
    }
    let all: Vec<&Finding> = findings.iter().map(|placed| &placed.finding).collect();
    answer.require(&arguments.require, all);
    answer.member("findings", json!(findings));
    Ok(answer)
}

/// Where the evidence about a provider is: not where the feed says, which may say anything.
fn beside(feed: &Source, entry: &Entry) -> Option<Source> {
    entry.evidence_url.as_ref()?;
    let id = ProviderId::parse(&entry.provider_id)?;
    feed.beside_feed(&format!("/v1/evidence/{id}"))
}
