//! `PUT /mdm/checkin` and `PUT /mdm/connect`: both take both kinds of message, told apart by their
//! Content-Type, because CheckInURL defaults to ServerURL (Apple `com.apple.mdm.yaml`).

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::{Public, body, error};
use crate::flows::identify::Proof;
use crate::flows::{Context, check_in, connect};
use crate::ids::CertificateHash;
use crate::mdm::{CHECK_IN, REPORT, signature};
use crate::reason::Reason;

/// As in Apple's examples.
const PLIST: &str = "application/xml; charset=UTF-8";

/// Largest message. The largest honest reply, an attestation, has about 13 KB; the firewall's list
/// of applications in a SecurityInfo may make one of 100 KB.
const MAX_BODY: usize = 512 * 1024;

pub async fn message(State(public): State<Public>, request: Request) -> Response {
    let Public { ctx, proxies, .. } = public;
    let (head, body) = request.into_parts();
    let shown = proxies.certificate(&head.extensions, &head.headers);
    // Nothing of a body is kept for whoever does not even claim to be a Mac.
    let (kind, proof) = match claimed(&head.headers, shown) {
        Ok(claimed) => claimed,
        Err(Unclaimed {
            surface,
            reason,
            detail,
        }) => {
            let refused = turned_away(&ctx, surface, reason, detail);
            body::discard(body).await;
            return refused;
        }
    };
    let body = match body::read(body, MAX_BODY).await {
        Ok(body) => body,
        Err(reason) => return turned_away(&ctx, kind.surface(), reason, "body"),
    };
    let body = body.octets();
    match kind {
        Kind::CheckIn => match check_in::check_in(&ctx, proof, body).await {
            Ok(reply) => check_in_reply(reply),
            Err(failure) => error::to_mac(&failure),
        },
        Kind::Report => match connect::connect(&ctx, proof, body).await {
            Ok(connect::Reply::Command(command)) => property_list(command),
            Ok(connect::Reply::Done) => StatusCode::OK.into_response(),
            Ok(connect::Reply::Refused(reason)) => error::refused_to_mac(reason),
            Err(failure) => error::to_mac(&failure),
        },
    }
}

/// Why headers are not those of a Mac's message.
#[derive(Debug, PartialEq, Eq)]
struct Unclaimed {
    surface: &'static str,
    reason: Reason,
    detail: String,
}

/// The kind of a message and what it brings to prove its speaker: its one signature, the
/// certificate `shown` by its connection, or both.
fn claimed(
    headers: &HeaderMap,
    shown: Result<Option<CertificateHash>, String>,
) -> Result<(Kind, Proof<'_>), Unclaimed> {
    let unclaimed = |surface, reason, detail: &str| Unclaimed {
        surface,
        reason,
        detail: detail.to_owned(),
    };
    let kind = Kind::of(headers)
        .ok_or_else(|| unclaimed("mdm", Reason::MessageUnsupported, "content type"))?;
    let surface = kind.surface();
    let invalid = |detail| unclaimed(surface, Reason::SignatureInvalid, detail);
    let mut encodings = headers.get_all(header::CONTENT_ENCODING).iter();
    if encodings.any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        // The signature is over the body as the Mac had it, and nothing is unpacked for anybody.
        return Err(unclaimed(surface, Reason::BodyEncoded, "content encoding"));
    }
    let certificate = shown.map_err(|detail| Unclaimed {
        surface,
        reason: Reason::RequestMalformed,
        detail,
    })?;
    let mut signatures = headers.get_all(signature::HEADER).iter();
    let signature = signatures.next().map(HeaderValue::as_bytes);
    if signature.is_none() && certificate.is_none() {
        return Err(invalid("no Mdm-Signature"));
    }
    if signatures.next().is_some() {
        // Whoever stands in front may have looked at the other one.
        return Err(invalid("more than one Mdm-Signature"));
    }
    if signature.is_some_and(|signature| signature.len() > signature::MAX_HEADER) {
        return Err(invalid("a Mdm-Signature that is too large"));
    }
    let proof = Proof {
        signature,
        certificate,
    };
    Ok((kind, proof))
}

/// What a message says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    CheckIn,
    Report,
}

impl Kind {
    /// By the media type; parameters such as a charset occur and say nothing.
    fn of(headers: &HeaderMap) -> Option<Self> {
        let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        let kind = kind.split(';').next()?.trim();
        if kind.eq_ignore_ascii_case(CHECK_IN) {
            Some(Self::CheckIn)
        } else if kind.eq_ignore_ascii_case(REPORT) {
            Some(Self::Report)
        } else {
            None
        }
    }

    fn surface(self) -> &'static str {
        match self {
            Self::CheckIn => check_in::SURFACE,
            Self::Report => connect::SURFACE,
        }
    }
}

fn turned_away(
    ctx: &Context,
    surface: &'static str,
    reason: Reason,
    detail: impl ToString,
) -> Response {
    error::count(ctx, surface, reason, detail);
    error::refused_to_mac(reason)
}

fn check_in_reply(reply: check_in::Reply) -> Response {
    match reply {
        check_in::Reply::Empty => StatusCode::OK.into_response(),
        check_in::Reply::Plist(bytes) => property_list(bytes),
        check_in::Reply::UserDeclined => StatusCode::GONE.into_response(),
        check_in::Reply::NotOffered => StatusCode::NOT_FOUND.into_response(),
        check_in::Reply::Refused(reason) => error::refused_to_mac(reason),
    }
}

fn property_list(bytes: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, PLIST)], bytes).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(kind: &'static str, signatures: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        for signature in signatures {
            headers.append(signature::HEADER, signature.parse().expect("a value"));
        }
        headers
    }

    #[test]
    fn headers_alone_tell_who_does_not_claim_to_be_a_mac() {
        let longest = "A".repeat(signature::MAX_HEADER);
        let longer = "A".repeat(signature::MAX_HEADER + 1);
        for (kind, signatures, refused) in [
            (REPORT, &["AAAA"][..], None),
            (CHECK_IN, &["AAAA"], None),
            (REPORT, &[longest.as_str()], None),
            ("text/xml", &["AAAA"], Some(Reason::MessageUnsupported)),
            ("text/xml", &[], Some(Reason::MessageUnsupported)),
            (CHECK_IN, &[], Some(Reason::SignatureInvalid)),
            (CHECK_IN, &["AAAA", "AAAA"], Some(Reason::SignatureInvalid)),
            (REPORT, &[longer.as_str()], Some(Reason::SignatureInvalid)),
        ] {
            let headers = headers(kind, signatures);
            let reason = |shown| {
                claimed(&headers, shown)
                    .err()
                    .map(|unclaimed| unclaimed.reason)
            };
            assert_eq!(reason(Ok(None)), refused, "{kind} {}", signatures.len());
            // A certificate stands in for a signature that is not there, not for one that is bad.
            let certificate = CertificateHash::of(b"shown");
            let instead = refused.filter(|_| kind == "text/xml" || !signatures.is_empty());
            assert_eq!(reason(Ok(Some(certificate))), instead);
            let unreadable = refused.filter(|_| kind == "text/xml");
            let unreadable = unreadable.or(Some(Reason::RequestMalformed));
            assert_eq!(reason(Err("unreadable".to_owned())), unreadable);
        }
    }

    #[test]
    fn a_body_that_says_it_is_encoded_is_not_taken() {
        for (encodings, refused) in [
            (&["gzip"][..], true),
            (&["deflate"], true),
            (&["br"], true),
            (&["identity, gzip"], true),
            (&["identity", "gzip"], true),
            (&[""], true),
            (&["identity"], false),
            (&["Identity"], false),
            (&[], false),
        ] {
            let mut headers = headers(REPORT, &["AAAA"]);
            for encoding in encodings {
                headers.append(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
            }
            let reason = claimed(&headers, Ok(None))
                .err()
                .map(|unclaimed| unclaimed.reason);
            assert_eq!(
                reason,
                refused.then_some(Reason::BodyEncoded),
                "{encodings:?}"
            );
        }
    }
}
