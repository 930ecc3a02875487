//! Reading a request's body: limited, and refused in a way the client gets to see.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use http_body_util::BodyExt as _;

use crate::reason::Reason;

/// A body of at most `MAX` octets, or why there is none: `request_too_large`, or
/// `request_malformed` for one that broke off.
///
/// Of a body that is too large, as much again is read and thrown away: a client is still sending
/// then, and would meet a broken connection in place of the answer.
#[derive(Debug)]
pub struct Received<const MAX: usize>(pub Result<Bytes, Reason>);

impl<const MAX: usize, S: Send + Sync> FromRequest<S> for Received<MAX> {
    type Rejection = Infallible;

    async fn from_request(request: Request, _: &S) -> Result<Self, Infallible> {
        Ok(Self(read(request.into_body(), MAX).await))
    }
}

async fn read(mut body: Body, max: usize) -> Result<Bytes, Reason> {
    let mut kept = Vec::new();
    let mut length = 0_usize;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Reason::RequestMalformed)?;
        let Some(data) = frame.data_ref() else { continue };
        length = length.saturating_add(data.len());
        if length <= max {
            kept.extend_from_slice(data);
        } else if length > max.saturating_mul(2) {
            break;
        }
    }
    if length > max { Err(Reason::RequestTooLarge) } else { Ok(kept.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_pieces(pieces: &[&'static str]) -> Body {
        let pieces: Vec<_> = pieces.iter().map(|piece| Ok::<_, Infallible>(*piece)).collect();
        Body::from_stream(futures_util::stream::iter(pieces))
    }

    #[tokio::test]
    async fn a_body_is_whole_or_refused() {
        assert_eq!(read(in_pieces(&[]), 4).await, Ok(Bytes::new()));
        assert_eq!(read(in_pieces(&["ab", "cd"]), 4).await, Ok(Bytes::from("abcd")));
        for large in [&["abcde"][..], &["ab", "cde"], &["abcd", "efgh", "ijkl", "mnop"]] {
            assert_eq!(read(in_pieces(large), 4).await, Err(Reason::RequestTooLarge));
        }
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_not_taken_for_a_short_one() {
        let pieces = [Ok("ab"), Err(std::io::Error::other("gone"))];
        let body = Body::from_stream(futures_util::stream::iter(pieces));
        assert_eq!(read(body, 4).await, Err(Reason::RequestMalformed));
    }
}
