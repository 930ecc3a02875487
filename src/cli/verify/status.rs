//! `attestd verify status`.

use std::path::PathBuf;

use clap::Args;
use serde::Deserialize;
use serde_json::json;

use super::security_info::refused;
use super::{Answer, Unreadable, input};
use crate::ids::sha256;
use crate::json::members;
use crate::provider::{Malformed, Status};
use crate::reason::Reason;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// {"input": {…}, "canonical": "…", "sha256": "…"}: the values of a status, and what another
    /// writer made of them.
    #[arg(long, value_name = "FILE.json")]
    vector: PathBuf,
    /// One line of JSON instead of an indented object.
    #[arg(long)]
    pub(super) json: bool,
}

/// What a vector says.
struct Vector {
    status: Status,
    canonical: String,
    sha256: String,
}

pub(super) fn run(arguments: &Arguments) -> Result<Answer, Unreadable> {
    let bytes = input::json(&arguments.vector)?;
    if bytes.len() > input::MAX_INPUT {
        let detail = "the input is larger than any status";
        return Ok(refused(Reason::RequestTooLarge, detail));
    }
    Ok(match Vector::read(&bytes) {
        Ok(vector) => compare(&vector),
        Err(malformed) => refused(malformed.reason(), malformed),
    })
}

impl Vector {
    fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let members = members(bytes).map_err(|_| Malformed::NotAnObject)?;
        let member = |name: &'static str| {
            let found = members.iter().find(|(known, _)| known == name);
            found.map(|(_, raw)| *raw).ok_or(Malformed::Missing(name))
        };
        let text = |name: &'static str| {
            String::deserialize(member(name)?).map_err(|_| Malformed::Form(name))
        };
        Ok(Self {
            status: Status::read(member("input")?.get().as_bytes(), input::MAX_INPUT)?,
            canonical: text("canonical")?,
            sha256: text("sha256")?,
        })
    }
}

fn compare(vector: &Vector) -> Answer {
    let canonical = vector.status.canonical();
    let hash = hex::encode(sha256(canonical.as_bytes()));
    let mut answer = Answer::new(None);
    if canonical != vector.canonical {
        answer.refuse(
            &[Reason::CanonicalMismatch],
            "the canonical form of the input is another",
        );
    }
    if !hash.eq_ignore_ascii_case(&vector.sha256) {
        answer.refuse(
            &[Reason::CanonicalMismatch],
            "the hash of the canonical form is another",
        );
    }
    answer.member("canonical", json!(canonical));
    answer.member("sha256", json!(hash));
    answer
}
