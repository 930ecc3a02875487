//! `GET /v1/providers/attestation`, for anybody.
//!
//! The answer is in memory, compressed and named; a request costs the sending of it. Of answers under
//! way there are so many, and so many of one client, because each keeps what it was given alive.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use axum::Extension;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{ConnectInfo, Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::body::{Frame, SizeHint};

use super::conditional::{is_unchanged, takes_gzip};
use super::description::Later;
use super::problem::Problem;
use super::streams::{Full, Place};
use super::{Public, error};
use crate::flows::publish_feed::{Document, KEPT_BY_OTHERS, Part};
use crate::publication::feed::{FeedV1, ProviderId};

pub(super) type Peer = Option<Extension<ConnectInfo<SocketAddr>>>;

/// Every provider that is connected, and what is believed of each.
#[utoipa::path(
    get, path = "/v1/providers/attestation", tag = "Feed",
    responses(
        (status = 200, description = "As of now, compressed for who takes gzip.", body = FeedV1, headers(("ETag" = String), ("Cache-Control" = String))),
        (status = 304, description = "As it was."),
        (status = 429, response = Later),
    ),
)]
pub async fn whole(State(public): State<Public>, peer: Peer, headers: HeaderMap) -> Response {
    let document = match read(&public, &peer, &headers).await {
        Ok(document) => document,
        Err(refusal) => return refusal,
    };
    match takes_gzip(&headers) {
        true => answer(&public, &peer, &headers, document.packed(), Some("gzip")),
        false => answer(&public, &peer, &headers, document.plain(), None),
    }
}

/// The same of one provider.
#[utoipa::path(
    get, path = "/v1/providers/{provider_id}/attestation", tag = "Feed",
    params(("provider_id" = ProviderId, Path)),
    responses(
        (status = 200, description = "As of now, compressed for who takes gzip.", body = FeedV1, headers(("ETag" = String), ("Cache-Control" = String))),
        (status = 304, description = "As it was."),
        (status = 404, response = Problem),
        (status = 429, response = Later),
    ),
)]
pub async fn about_one(
    State(public): State<Public>,
    peer: Peer,
    headers: HeaderMap,
    Path(provider_id): Path<String>,
) -> Response {
    let document = match read(&public, &peer, &headers).await {
        Ok(document) => document,
        Err(refusal) => return refusal,
    };
    let part = ProviderId::parse(&provider_id).and_then(|known| document.about(&known));
    match part {
        Some(part) => answer(&public, &peer, &headers, &part, None),
        None => Problem::provider_not_found().into_response(),
    }
}

pub(super) async fn read(
    public: &Public,
    peer: &Peer,
    headers: &HeaderMap,
) -> Result<Arc<Document>, Response> {
    if !public.feed_limit.allows(peer.as_deref(), headers) {
        return Err(Problem::too_often().into_response());
    }
    let read = public.feed.read(&public.ctx).await;
    read.map_err(|failure| error::to_internal(&failure))
}

fn answer(
    public: &Public,
    peer: &Peer,
    headers: &HeaderMap,
    part: &Part,
    coding: Option<&'static str>,
) -> Response {
    let tag = format!("\"{}\"", part.tag);
    let mut response = if is_unchanged(headers, tag.as_bytes()) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let client = public.feed_limit.address(peer.as_deref(), headers);
        let place = match public.downloads.enter(client) {
            Ok(place) => place,
            Err(Full::ForClient) => return Problem::too_often().into_response(),
            Err(Full::ForAll) => return Problem::downloads_full().into_response(),
        };
        let json = HeaderValue::from_static("application/json");
        let body = Body::new(Download {
            pieces: Arc::clone(&part.pieces),
            next: 0,
            left: part.length,
            _place: place,
        });
        let mut response = ([(header::CONTENT_TYPE, json)], body).into_response();
        if let Some(coding) = coding {
            let coding = HeaderValue::from_static(coding);
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_ENCODING, coding);
        }
        response
    };
    let headers = response.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    let cache = format!("public, max-age={}", KEPT_BY_OTHERS.as_secs());
    if let Ok(cache) = HeaderValue::from_str(&cache) {
        headers.insert(header::CACHE_CONTROL, cache);
    }
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    // Pages of others read it in the browser, as they did the historic coordinator's.
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_ORIGIN,
        HeaderValue::from_static("*"),
    );
    response
}

/// Pieces on their way; nothing is copied for one client.
struct Download {
    pieces: Arc<[Bytes]>,
    next: usize,
    left: u64,
    _place: Place<IpAddr>,
}

impl HttpBody for Download {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(piece) = self.pieces.get(self.next).cloned() else {
            return Poll::Ready(None);
        };
        self.next += 1;
        let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
        self.left = self.left.saturating_sub(length);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.next >= self.pieces.len()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
