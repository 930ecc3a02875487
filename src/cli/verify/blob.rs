//! `attestd verify blob`.

use std::path::PathBuf;

use clap::Args;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::security_info::refused;
use super::{Answer, Unreadable, input};
use crate::json::{members, respelled};
use crate::provider::{Blob, EncryptionKey, Malformed, NotAnEncryptionKey, SignedBlob, Version};
use crate::reason::Reason;
use crate::time::Timestamp;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// {"attestation": …, "signature": "…"} as the provider sends it, or the whole register frame; a
    /// frame's public_key must be the blob's encryptionPublicKey.
    #[arg(value_name = "FILE.json")]
    file: PathBuf,
    /// The moment at which the blob must be timely; none is asked for when not given.
    #[arg(long, value_name = "RFC3339", value_parser = input::time)]
    at: Option<Timestamp>,
    /// One line of JSON instead of an indented object.
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<Answer, Unreadable> {
    let bytes = input::json(&arguments.file)?;
    if bytes.len() > input::MAX_INPUT {
        let detail = "the input is larger than any registration";
        return Ok(refused(Reason::RequestTooLarge, detail));
    }
    Ok(match Registration::read(&bytes) {
        Ok(registration) => examine(&registration, arguments.at),
        Err(malformed) => refused(malformed.reason(), malformed),
    })
}

/// What a provider sends, with the values it does not sign.
struct Registration<'a> {
    attestation: &'a RawValue,
    signature: String,
    /// The session's `K`, where the frame is there.
    public_key: Option<String>,
    version: Option<Version>,
}

impl<'a> Registration<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let outer = Outer::read(bytes)?;
        let attestation = outer.member("attestation")?;
        // In a frame the pair stands inside, under the name that the blob has in the pair.
        let inner = Outer::read(attestation.get().as_bytes())?;
        let inner = inner.optional("attestation").map(|_| inner);
        let pair = inner.as_ref().unwrap_or(&outer);
        let public_key = outer.optional_text("public_key")?;
        let version = outer.optional_text("version")?;
        Ok(Self {
            attestation: pair.member("attestation")?,
            signature: pair
                .optional_text("signature")?
                .ok_or(Malformed::Missing("signature"))?,
            public_key,
            // One that is none is judged like a new one.
            version: version.and_then(|text| Version::parse(&text).ok()),
        })
    }
}

struct Outer<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Outer<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let members = members(bytes).map_err(|_| Malformed::NotAnObject)?;
        let known = ["attestation", "signature", "public_key", "version"];
        let mut respelled = members
            .iter()
            .filter_map(|(name, _)| respelled(name, &known));
        match respelled.next() {
            Some(known) => Err(Malformed::Respelled(known)),
            None => Ok(Self(members)),
        }
    }

    fn optional(&self, name: &str) -> Option<&'a RawValue> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| *value)
    }

    fn member(&self, name: &'static str) -> Result<&'a RawValue, Malformed> {
        self.optional(name).ok_or(Malformed::Missing(name))
    }

    fn optional_text(&self, name: &'static str) -> Result<Option<String>, Malformed> {
        match self.optional(name) {
            None => Ok(None),
            Some(value) => Option::<String>::deserialize(value).map_err(|_| Malformed::Form(name)),
        }
    }
}

fn examine(registration: &Registration<'_>, at: Option<Timestamp>) -> Answer {
    let blob = match Blob::parse(registration.attestation.get().as_bytes()) {
        Ok(blob) => blob,
        Err(refusal) => return refused(refusal.reason(), refusal),
    };
    let mut answer = Answer::new(Some(json!(blob.unverified_report())));
    let key = blob.unverified_report().se_public_key.clone();
    match blob.verify(&key, &registration.signature) {
        Ok(signed) => compare(&mut answer, registration, &signed, at),
        Err(refusal) => answer.refuse(&[refusal.reason()], refusal),
    }
    answer
}

/// What the caller asks to match.
fn compare(
    answer: &mut Answer,
    registration: &Registration<'_>,
    signed: &SignedBlob,
    at: Option<Timestamp>,
) {
    match registration.public_key.as_deref().map(EncryptionKey::parse) {
        None => {}
        Some(Ok(key)) if signed.names(&key) => {}
        Some(Ok(_)) => answer.refuse(
            &[Reason::KeyMismatch],
            "the blob names another encryption key than the frame",
        ),
        Some(Err(refusal @ NotAnEncryptionKey)) => answer.refuse(&[refusal.reason()], refusal),
    }
    if at.is_some_and(|at| !signed.is_timely(registration.version.as_ref(), at)) {
        answer.refuse(
            &[Reason::TimestampOutOfWindow],
            "the blob is too old, or of a time that lies ahead",
        );
    }
}
