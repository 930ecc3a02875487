//! A provider's reply as the coordinator sends it on: every byte as it came, under the headers that say who
//! made it. Whole, the signature is among the headers; streamed, it comes when it is known, at the end.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::sha::sha256;
use openssl::sign::Verifier;
use serde_json::{Value, json};

use super::Dispatched;
use super::serve::Body;
use crate::provider::Completion;

const SIGNATURE: HeaderName = HeaderName::from_static("x-se-signature");
const HASH: HeaderName = HeaderName::from_static("x-response-hash");
const DONE: &str = "data: [DONE]\n\n";

/// `None` where the signature is not by the key that the headers name: that is no reply of this provider.
pub(super) fn reply(
    dispatched: &Dispatched,
    completion: Completion,
    is_streamed: bool,
) -> Option<Response<Body>> {
    let covered = completion.covered();
    let headers = &dispatched.headers;
    if !verifies(
        headers["x-se-public-key"].as_str()?,
        &covered,
        &completion.signature,
    ) {
        return None;
    }
    let hash = format!("sha256:{}", hex::encode(sha256(&covered)));
    let mut proof = HeaderMap::new();
    proof.insert(
        SIGNATURE,
        HeaderValue::from_str(&completion.signature).ok()?,
    );
    proof.insert(HASH, HeaderValue::from_str(&hash).ok()?);

    let mut response = match is_streamed {
        false => {
            let mut whole = Response::new(Full::new(Bytes::from(covered)).boxed());
            whole.headers_mut().extend(proof);
            content(&mut whole, "application/json");
            whole
        }
        true => {
            let seal = json!({ "choices": [], "se_signature": completion.signature, "response_hash": hash });
            let end = format!("data: {seal}\n\n{DONE}").into_bytes();
            let parts = completion.parts.into_iter().chain([end]);
            let frames = parts.map(|part| Frame::data(Bytes::from(part)));
            let frames = frames.chain([Frame::trailers(proof)]).map(Ok);
            let mut streamed = Response::new(StreamBody::new(stream::iter(frames)).boxed());
            content(&mut streamed, "text/event-stream");
            let named = HeaderValue::from_static("x-se-signature, x-response-hash");
            streamed.headers_mut().insert(header::TRAILER, named);
            streamed
        }
    };
    for (name, value) in headers.as_object()? {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        let value = HeaderValue::from_str(value.as_str()?).ok()?;
        response.headers_mut().insert(name, value);
    }
    Some(response)
}

fn content(response: &mut Response<Body>, kind: &'static str) {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

/// Whether this key (base64 of its SubjectPublicKeyInfo) signed the bytes.
fn verifies(key: &str, covered: &[u8], signature: &str) -> bool {
    let verified = || {
        let key = PKey::public_key_from_der(&STANDARD.decode(key).ok()?).ok()?;
        let signature = STANDARD.decode(signature).ok()?;
        let mut verifier = Verifier::new(MessageDigest::sha256(), &key).ok()?;
        verifier.verify_oneshot(&signature, covered).ok()
    };
    verified().unwrap_or(false)
}

/// An error in the form that clients of such services read. It is nobody's reply, and says so.
pub(super) fn refusal(status: http::StatusCode, kind: &str, message: &str) -> Response<Body> {
    let error: Value = json!({ "error": { "message": message, "type": kind, "code": kind } });
    let mut response = Response::new(Full::new(Bytes::from(error.to_string())).boxed());
    *response.status_mut() = status;
    content(&mut response, "application/json");
    let nobody = HeaderValue::from_static("false");
    response.headers_mut().insert("x-provider-attested", nobody);
    response
}
