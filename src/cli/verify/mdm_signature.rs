//! `attestd verify mdm-signature`.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::{Answer, Unreadable, input};
use crate::mdm::signature;
use crate::pki::chain::{ChainRefusal, Link};
use crate::pki::cms::{self, Refused, SignedData, SignedDataRefusal};
use crate::pki::{Certificate, ChainShape, Digest, KnownIntermediates, TrustAnchors, verify_chain};
use crate::reason::Reason;
use crate::time::Timestamp;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The request body, byte for byte.
    #[arg(long, value_name = "FILE")]
    body: PathBuf,
    /// The value of the Mdm-Signature header: base64.
    #[arg(long, value_name = "FILE.b64")]
    signature: PathBuf,
    /// The authority that must have issued the signer's certificate. Without it only the signature
    /// against the enclosed certificate is checked: "anchor": "none".
    #[arg(long, value_name = "PEM")]
    ca: Option<PathBuf>,
    /// The moment at which the certificates must be valid; now when not given.
    #[arg(long, value_name = "RFC3339", value_parser = input::time)]
    at: Option<Timestamp>,
    /// One line of JSON instead of an indented object.
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<Answer, Unreadable> {
    let body = input::bytes(&arguments.body)?;
    let header = input::bytes(&arguments.signature)?;
    let anchors = match &arguments.ca {
        None => None,
        Some(path) => Some(TrustAnchors::read(&input::bytes(path)?).map_err(|fault| {
            Unreadable(format!(
                "{} is no certificate authority: {fault}",
                path.display()
            ))
        })?),
    };
    let at = input::at(arguments.at);

    let mut answer = Answer::new(None);
    answer.member(
        "anchor",
        json!(if anchors.is_some() { "custom" } else { "none" }),
    );
    match examine(&header, &body, anchors.as_ref(), at, &mut answer) {
        Ok(()) => {}
        Err(refused) if refused.cause == SignedDataRefusal::NotCms => {
            return Err(Unreadable(
                "the signature is no base64 of a CMS message".to_owned(),
            ));
        }
        Err(refused) => {
            if let Some(signer) = &refused.signer {
                answer.member("signer", signer_member(&signer.certificate()));
            }
            if let Some(digest) = refused.digest {
                answer.member("digest", json!(digest_name(digest)));
            }
            answer.refuse(&[Reason::SignatureInvalid], refused.cause);
        }
    }
    Ok(answer)
}

fn examine(
    header: &[u8],
    body: &[u8],
    anchors: Option<&TrustAnchors>,
    at: Timestamp,
    answer: &mut Answer,
) -> Result<(), Refused> {
    let message = signature::decode(header)?;
    let der = cms::read(&message, signature::MAX_MESSAGE)?;
    let signed = SignedData::parse(&der)?;
    answer.member("signer", signer_member(signed.signer()));
    answer.member("digest", json!(digest_name(signed.digest())));
    if body.len() > input::MAX_INPUT {
        answer.refuse(
            &[Reason::RequestTooLarge],
            "the body is larger than any message",
        );
        return Ok(());
    }
    signed.require_detached()?;
    signed.verify(body)?;

    let signer = signed.signer();
    let expired = "the signer's certificate is not valid at this time";
    match anchors {
        Some(anchors) => {
            let known = KnownIntermediates::default();
            match verify_chain(signer, &[], anchors, at, ChainShape::Direct, &known) {
                Ok(_) => {}
                Err(ChainRefusal::Expired(Link::Leaf) | ChainRefusal::NotYetValid(Link::Leaf)) => {
                    answer.refuse(&[Reason::IdentityExpired], expired);
                }
                Err(refusal) => answer.refuse(&[refusal.reason()], refusal),
            }
        }
        None if !signer.is_valid_at(at) => answer.refuse(&[Reason::IdentityExpired], expired),
        None => {}
    }
    Ok(())
}

fn signer_member(signer: &Certificate<'_>) -> Value {
    json!({ "sha256": signer.hash(), "subject": signer.subject().to_string() })
}

fn digest_name(digest: Digest) -> &'static str {
    digest.name()
}
