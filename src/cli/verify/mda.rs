//! `attestd verify mda`.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::input::{self, Nonce};
use super::{Answer, Unreadable};
use crate::attestation::{Anchors, Evidence, Statement, verify};
use crate::pki::KnownIntermediates;
use crate::reason::Reason;
use crate::time::Timestamp;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The leaf certificate, or the whole chain leaf first.
    #[arg(value_name = "LEAF.pem")]
    leaf: PathBuf,
    /// The intermediate certificate that issued the leaf.
    #[arg(value_name = "SUBCA.pem")]
    intermediate: Option<PathBuf>,
    #[command(flatten)]
    pub(super) options: Options,
}

/// What may be demanded of an attestation.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// A root certificate instead of Apple's pinned one; the answer says "anchor": "custom".
    #[arg(long, value_name = "PEM")]
    pub(super) root: Option<PathBuf>,
    /// The nonce the statement must have been made for; another or none refuses.
    #[arg(long, value_name = "HEX", value_parser = input::nonce)]
    pub(super) nonce: Option<Nonce>,
    /// The serial number the statement must be about; another or none refuses.
    #[arg(long, value_name = "SERIAL")]
    pub(super) serial: Option<String>,
    /// The moment at which the certificates must be valid; now when not given.
    #[arg(long, value_name = "RFC3339", value_parser = input::time)]
    pub(super) at: Option<Timestamp>,
    /// One line of JSON instead of an indented object.
    #[arg(long)]
    pub(super) json: bool,
}

impl Options {
    /// How long the freshness code is when it is raw: as the demanded nonce, or as ours are.
    fn nonce_length(&self) -> usize {
        self.nonce.as_ref().map_or(32, |nonce| nonce.0.len())
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<Answer, Unreadable> {
    let anchors = input::anchors(arguments.options.root.as_deref())?;
    let mut certificates = Vec::new();
    let mut broken = None;
    for path in std::iter::once(&arguments.leaf).chain(&arguments.intermediate) {
        match input::certificates(path)? {
            // What follows an unreadable leaf must not be taken for the leaf.
            Ok(_) if broken.is_some() => {}
            Ok(found) => certificates.extend(found.iter().map(|found| found.as_der().to_vec())),
            Err(fault) => broken = broken.or(Some(format!("{}: {fault}", path.display()))),
        }
    }
    let evidence = Evidence { certificates };
    Ok(match broken {
        None => judge(&evidence, &anchors, &arguments.options),
        Some(detail) => {
            let mut answer = Answer::new(unverified(&evidence, &arguments.options));
            answer.member("anchor", json!(anchors.kind()));
            answer.refuse(&[Reason::ChainInvalid], detail);
            answer
        }
    })
}

/// Verifies a chain and what was demanded of it.
pub(super) fn judge(evidence: &Evidence, anchors: &Anchors, options: &Options) -> Answer {
    let at = input::at(options.at);
    let mut answer = match verify(evidence, anchors, &KnownIntermediates::default(), at) {
        Err(refusal) => {
            let mut answer = Answer::new(unverified(evidence, options));
            answer.refuse(&[refusal.reason()], refusal);
            answer
        }
        Ok(verified) => {
            let code = verified.freshness_code(options.nonce_length());
            let mut answer = Answer::new(Some(claims(verified.statement(), code)));
            answer
                .verified_members
                .insert("not_before".into(), json!(verified.not_before()));
            answer
                .verified_members
                .insert("not_after".into(), json!(verified.not_after()));
            if let Some(nonce) = &options.nonce {
                match code {
                    Some(code) if code == nonce.0 => {}
                    Some(_) => answer.refuse(
                        &[Reason::NonceUnrecognized],
                        "the freshness code is not the nonce that was demanded",
                    ),
                    None => answer.refuse(
                        &[Reason::FieldMissing, Reason::NonceUnrecognized],
                        "the leaf has no freshness code",
                    ),
                }
            }
            if let Some(serial) = &options.serial {
                match &verified.statement().serial {
                    Some(stated) if stated.as_str() == serial => {}
                    Some(_) => answer.refuse(
                        &[Reason::SerialMismatch],
                        "the statement is about another serial number",
                    ),
                    None => answer.refuse(
                        &[Reason::FieldMissing, Reason::SerialMismatch],
                        "the leaf states no serial number",
                    ),
                }
            }
            answer
        }
    };
    answer.member("anchor", json!(anchors.kind()));
    answer
}

fn unverified(evidence: &Evidence, options: &Options) -> Option<Value> {
    let (statement, code) = evidence.unverified_statement(options.nonce_length())?;
    Some(claims(&statement, code.as_deref()))
}

/// What a leaf says, in the words of the answer.
pub(super) fn claims(statement: &Statement, freshness: Option<&[u8]>) -> Value {
    let mut claims = json!(statement);
    claims["freshness"] = json!(freshness.map(hex::encode));
    claims
}
