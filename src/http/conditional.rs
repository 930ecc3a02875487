//! What a client has already, and in which coding it takes the rest (RFC 9110).

use axum::http::{HeaderMap, HeaderValue, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Names a body by its SHA-256 (RFC 9530): whoever keeps it keeps what it was sent as.
pub const CONTENT_DIGEST: &str = "content-digest";

/// What [`CONTENT_DIGEST`] says of a body with this hash.
pub fn digest(sha256: &[u8; 32]) -> HeaderValue {
    let text = format!("sha-256=:{}:", STANDARD.encode(sha256));
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""))
}

/// Whether `If-None-Match` names this entity tag, which has its quotation marks. Compared weakly
/// (section 13.1.2).
pub fn is_unchanged(headers: &HeaderMap, tag: &[u8]) -> bool {
    headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|candidate| candidate.trim().trim_start_matches("W/"))
        .any(|candidate| candidate == "*" || candidate.as_bytes() == tag)
}

/// Whether `Accept-Encoding` takes gzip (section 12.5.3): it, or anything, is named, and not with a
/// weight of nothing. What is said of gzip itself goes before what is said of anything.
pub fn takes_gzip(headers: &HeaderMap) -> bool {
    let (mut gzip, mut anything) = (None, false);
    let codings = headers
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    for coding in codings {
        let mut parts = coding.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let weight = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
        // `0`, `0.`, `0.000`
        let is_taken =
            weight.is_none_or(|weight| weight.bytes().any(|byte| matches!(byte, b'1'..=b'9')));
        if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") {
            gzip = Some(gzip.unwrap_or(false) || is_taken);
        } else if name == "*" {
            anything = is_taken;
        }
    }
    gzip.unwrap_or(anything)
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(name: HeaderName, values: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name.clone(), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_tag_that_is_named_in_any_way_is_known() {
        for (values, known) in [
            (&["\"a\""][..], true),
            (&["W/\"a\""], true),
            (&["\"b\", \"a\""], true),
            (&["\"b\"", "\"a\""], true),
            (&["*"], true),
            (&["\"b\""], false),
            (&["a"], false),
            (&["\"a-gzip\""], false),
            (&[], false),
        ] {
            let headers = headers(header::IF_NONE_MATCH, values);
            assert_eq!(is_unchanged(&headers, b"\"a\""), known, "{values:?}");
        }
    }

    #[test]
    fn gzip_is_sent_to_who_takes_it() {
        for (values, takes) in [
            (&["gzip"][..], true),
            (&["deflate, GZIP;q=0.5"], true),
            (&["br", "x-gzip"], true),
            (&["*"], true),
            (&["*;q=0, gzip"], true),
            (&["gzip;q=0"], false),
            (&["gzip; q=0.000, *"], false),
            (&["identity"], false),
            (&["*;q=0"], false),
            (&[""], false),
            (&[], false),
        ] {
            let headers = headers(header::ACCEPT_ENCODING, values);
            assert_eq!(takes_gzip(&headers), takes, "{values:?}");
        }
    }
}
