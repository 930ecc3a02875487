//! `attestd verify acme`.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::{Answer, Unreadable, input, mda};
use crate::acme::{
    AttestationObject, StatementRefusal, answers, attested_key, csr_reason, is_attested, is_cbor,
};
use crate::attestation::{Anchors, VerifiedEvidence};
use crate::pki::{
    CertificateRequest, KnownIntermediates, LegacyDigest, PkiError, PublicKey, read_request,
};
use crate::reason::Reason;
use crate::time::Timestamp;

/// How long the freshness code is: SHA-256 of the token.
const CODE: usize = 32;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The attestation object of a device-attest-01 challenge, as CBOR.
    #[arg(long, value_name = "FILE.cbor")]
    att_obj: PathBuf,
    /// The challenge's token, as text.
    #[arg(long, value_name = "TOKEN", allow_hyphen_values = true)]
    token: String,
    /// The certificate request of the order, DER or PEM; its key must be the attested one.
    #[arg(long, value_name = "FILE.der")]
    csr: PathBuf,
    /// The identifier that was ordered: the serial number the statement must be about; another or
    /// none refuses.
    #[arg(long, value_name = "SERIAL", allow_hyphen_values = true)]
    identifier: Option<String>,
    /// A root certificate instead of Apple's pinned one; the answer says "anchor": "custom".
    #[arg(long, value_name = "PEM")]
    root: Option<PathBuf>,
    /// The moment at which the certificates must be valid; now when not given.
    #[arg(long, value_name = "RFC3339", value_parser = input::time)]
    at: Option<Timestamp>,
    /// One line of JSON instead of an indented object.
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<Answer, Unreadable> {
    let anchors = input::anchors(arguments.root.as_deref())?;
    let object = input::bytes(&arguments.att_obj)?;
    if !is_cbor(&object) {
        let path = arguments.att_obj.display();
        return Err(Unreadable(format!("{path} is not CBOR")));
    }
    let csr = match read_request(&input::bytes(&arguments.csr)?) {
        Err(PkiError::NotARequest) => {
            let path = arguments.csr.display();
            return Err(Unreadable(format!(
                "{path} is no certificate request, PEM or DER"
            )));
        }
        other => other,
    };
    let request = match &csr {
        Ok(der) => CertificateRequest::parse(der, LegacyDigest::Refused),
        Err(fault) => Err(*fault),
    };
    let mut answer = judge(&object, &request, &anchors, arguments);
    if let Err(fault) = &request {
        answer.refuse(&[csr_reason(*fault)], format!("the request: {fault}"));
    }
    answer.member("anchor", json!(anchors.kind()));
    Ok(answer)
}

/// Judges the statement, and the request as far as it depends on it.
fn judge(
    object: &[u8],
    request: &Result<CertificateRequest<'_>, PkiError>,
    anchors: &Anchors,
    arguments: &Arguments,
) -> Answer {
    let object = match AttestationObject::parse(object) {
        Ok(object) => object,
        Err(refusal) => {
            let mut answer = Answer::new(None);
            answer.refuse(&refusal.reasons(), refusal);
            return answer;
        }
    };
    let at = input::at(arguments.at);
    let verified = match object.verify(anchors, &KnownIntermediates::default(), at) {
        Ok(verified) => verified,
        Err(refusal) => {
            let unverified = object.evidence().unverified_statement(CODE);
            let claims = unverified.map(|(said, code)| mda::claims(&said, code.as_deref()));
            let mut answer = Answer::new(claims);
            answer.refuse(&refusal.reasons(), refusal);
            return answer;
        }
    };
    let claims = mda::claims(verified.statement(), verified.freshness_code(CODE));
    let mut answer = Answer::new(Some(claims));
    for (name, time) in [
        ("not_before", verified.not_before()),
        ("not_after", verified.not_after()),
    ] {
        answer.verified_members.insert(name.into(), json!(time));
    }
    if let Err(refusal) = answers(&verified, &arguments.token) {
        answer.refuse(&refusal.reasons(), refusal);
    }
    if let Err(refusal) = is_about(&verified, arguments.identifier.as_deref()) {
        answer.refuse(&refusal.reasons(), refusal);
    }
    match (attested_key(&verified), request) {
        (Err(refusal), _) => answer.refuse(&refusal.reasons(), refusal),
        (Ok(attested), Ok(request)) => compare(&mut answer, request, &attested),
        (Ok(_), Err(_)) => {}
    }
    answer
}

fn is_about(verified: &VerifiedEvidence, identifier: Option<&str>) -> Result<(), StatementRefusal> {
    match (identifier, &verified.statement().serial) {
        (None, _) => Ok(()),
        (Some(_), None) => Err(StatementRefusal::SerialAbsent),
        (Some(demanded), Some(stated)) if stated.as_str() == demanded => Ok(()),
        (Some(_), Some(_)) => Err(StatementRefusal::SerialOther),
    }
}

fn compare(answer: &mut Answer, request: &CertificateRequest<'_>, attested: &PublicKey<'_>) {
    if !is_attested(&request.public_key(), attested) {
        answer.refuse(
            &[Reason::KeyMismatch],
            "the key in the request is not the attested key",
        );
    }
}
