//! `GET /v1/enrollments/{progress_id}`: how far an enrolment is, as JSON, or as Server-Sent Events
//! for who asks for `text/event-stream`.
//!
//! Each event carries the whole answer, so that none that was missed is missing. `id` is a digest of
//! it: a client that comes back (Last-Event-ID) is not told what it knows, and told 204 when that
//! was the end, upon which browsers stop asking (HTML, 9.2.3).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::Json;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::description::Later;
use super::listener::SILENCE;
use super::problem::Problem;
use super::streams::{Full, Place};
use super::{Public, error, problem};
use crate::flows::follow_progress::{Follower, follow, follow_progress};
use crate::ids::sha256;
use crate::publication::progress_v1::ProgressV1;

/// Comments keep proxies from taking a quiet stream for a dead one.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(15);
/// Longest stream; the client comes back by itself.
const LONGEST: Duration = Duration::from_secs(10 * 60);
/// A client of HTTP/1 is silent while it listens, and would be cut off as idle (`http::idle`): it is
/// sent away in order before. In HTTP/2 it answers PING.
const LONGEST_OF_SILENT: Duration = SILENCE.saturating_sub(Duration::from_secs(10));
/// When a client comes back.
const RETRY: Duration = Duration::from_secs(2);

const NAME: &str = "progress";
pub(super) const LAST_EVENT_ID: &str = "last-event-id";

/// How far an enrolment is.
#[utoipa::path(
    get, path = "/v1/enrollments/{progress_id}", tag = "Enrolment",
    params(("progress_id" = String, Path), ("Last-Event-ID" = Option<String>, Header, description = "What a stream told last.")),
    responses(
        (status = 200, description = "How far it is; in the form that `Accept` names. Each event of a stream carries the whole.",
            content((ProgressV1 = "application/json"), (String = "text/event-stream"))),
        (status = 204, description = "The stream has told the end already."),
        (status = 404, response = Problem),
        (status = 429, response = Later),
    ),
)]
pub async fn progress(
    State(public): State<Public>,
    peer: Option<axum::Extension<ConnectInfo<SocketAddr>>>,
    version: Version,
    headers: HeaderMap,
    Path(progress_id): Path<String>,
) -> Response {
    if wants_events(&headers) {
        let client = public.enroll_limit.address(peer.as_deref(), &headers);
        let place = match public.streams.enter(client) {
            Ok(place) => place,
            Err(full) => return refused(full),
        };
        let known = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok());
        let longest = match version {
            Version::HTTP_2 => LONGEST,
            _ => LONGEST_OF_SILENT,
        };
        return match follow(&public.ctx, &progress_id).await {
            Ok(Some(follower)) => {
                let stop = public.stop.clone();
                begin(follower, known, place, stop, longest).await
            }
            Ok(None) => problem::not_found().await.into_response(),
            Err(failure) => error::to_internal(&failure),
        };
    }
    match follow_progress(&public.ctx, &progress_id).await {
        Ok(Some(progress)) => {
            let headers = [
                (header::CACHE_CONTROL, "no-store"),
                (header::VARY, "accept"),
            ];
            (headers, Json(progress)).into_response()
        }
        Ok(None) => problem::not_found().await.into_response(),
        Err(failure) => error::to_internal(&failure),
    }
}

/// No place: the answer is to be had later, or without a stream.
pub(super) fn refused(full: Full) -> Response {
    match full {
        Full::ForClient => Problem::too_many_streams().into_response(),
        Full::ForAll => Problem::busy().into_response(),
    }
}

fn wants_events(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|range| range.split(';').next())
        .any(|range| range.trim().eq_ignore_ascii_case("text/event-stream"))
}

/// What a stream holds on to.
struct Telling {
    follower: Follower,
    first: Option<ProgressV1>,
    ended: bool,
    stop: CancellationToken,
    until: Instant,
    _place: Place<IpAddr>,
}

/// Answers 204 to a client that has heard the end, and a stream to any other.
async fn begin(
    mut follower: Follower,
    known: Option<&str>,
    place: Place<IpAddr>,
    stop: CancellationToken,
    longest: Duration,
) -> Response {
    let first = match follower.next().await {
        Ok(Some(first)) => first,
        Ok(None) => return problem::not_found().await.into_response(),
        Err(failure) => return error::to_internal(&failure),
    };
    let is_known = id_of(&first).as_deref() == known && known.is_some();
    if is_known && first.ended {
        return StatusCode::NO_CONTENT.into_response();
    }
    let telling = Telling {
        follower,
        first: (!is_known).then_some(first),
        ended: false,
        stop,
        until: Instant::now() + longest,
        _place: place,
    };
    stream(unfold(telling, tell), HEARTBEAT)
}

async fn tell(mut telling: Telling) -> Option<(ProgressV1, Telling)> {
    if telling.ended {
        return None;
    }
    let progress = match telling.first.take() {
        Some(first) => first,
        None => tokio::select! {
            next = telling.follower.next() => match next {
                Ok(next) => next?,
                Err(failure) => {
                    failure.log();
                    return None;
                }
            },
            () = telling.stop.cancelled() => return None,
            () = sleep_until(telling.until) => return None,
        },
    };
    telling.ended = progress.ended;
    Some((progress, telling))
}

fn stream(told: impl Stream<Item = ProgressV1> + Send + 'static, heartbeat: Duration) -> Response {
    use futures_util::StreamExt as _;

    let events = told.map(|progress| {
        let event = Event::default().event(NAME).retry(RETRY);
        let event = event.id(id_of(&progress).unwrap_or_default());
        event.json_data(&progress)
    });
    let kept_alive = KeepAlive::new().interval(heartbeat).text("still here");
    // The second is what nginx calls the wish not to be buffered.
    let headers = [
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("x-accel-buffering"), "no"),
        (header::VARY, "accept"),
    ];
    let headers = headers.map(|(name, value)| (name, HeaderValue::from_static(value)));
    (headers, Sse::new(events).keep_alive(kept_alive)).into_response()
}

/// The name of an answer: what is the same has the same.
fn id_of(progress: &ProgressV1) -> Option<String> {
    let json = serde_json::to_vec(progress).ok()?;
    Some(hex::encode(&sha256(&json)[..8]))
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;
    use futures_util::stream;

    use super::*;
    use crate::enrollment::Ticket;
    use crate::enrollment::ticket::Bounds;
    use crate::enrollment::trace::{Entry, Step};
    use crate::entropy::SeededEntropy;
    use crate::time::Timestamp;

    fn progress(entries: &[Entry]) -> ProgressV1 {
        let now = Timestamp::from_seconds(1_790_847_007);
        let (ticket, _) = Ticket::issue(Bounds::default(), now, &SeededEntropy::new(1));
        ProgressV1::new(&ticket, entries, now)
    }

    #[tokio::test]
    async fn every_event_is_the_whole_answer_under_a_name_of_its_own() {
        let done = Entry::done(Step::Profile, Timestamp::from_seconds(1_790_847_008));
        let told = [progress(&[]), progress(&[done])];
        let response = super::stream(stream::iter(told.clone()), Duration::from_secs(9));
        assert_eq!(
            response.headers()[header::CONTENT_TYPE],
            "text/event-stream"
        );
        let body = axum::body::to_bytes(response.into_body(), 65_536).await;
        let text = String::from_utf8(body.expect("ends").to_vec()).expect("text");
        let data: Vec<_> = text
            .lines()
            .filter_map(|l| l.strip_prefix("data: "))
            .collect();
        let whole = told
            .each_ref()
            .map(|p| serde_json::to_string(p).expect("JSON"));
        assert_eq!(data, whole);
        let mut ids: Vec<_> = text.lines().filter(|l| l.starts_with("id: ")).collect();
        ids.dedup();
        assert_eq!(ids.len(), 2);
        assert_eq!(text.matches("event: progress\n").count(), 2);
    }

    #[tokio::test]
    async fn a_quiet_stream_has_a_heartbeat() {
        let response = super::stream(stream::pending(), Duration::from_millis(5));
        let mut body = response.into_body().into_data_stream();
        for _ in 0..2 {
            let beat = body.next().await.expect("goes on").expect("arrives");
            assert_eq!(&beat[..], b": still here\n\n");
        }
    }

    #[test]
    fn who_gets_no_stream_is_told_when_to_come_back() {
        for (full, status) in [(Full::ForClient, 429), (Full::ForAll, 503)] {
            let response = refused(full);
            assert_eq!(response.status(), status);
            assert_eq!(response.headers()[header::RETRY_AFTER], "5");
        }
    }

    #[test]
    fn json_is_the_default() {
        let wants = |accept: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in accept {
                headers.append(header::ACCEPT, value.parse().expect("value"));
            }
            wants_events(&headers)
        };
        for json in [
            &[][..],
            &["*/*"],
            &["application/json"],
            &["text/event-streams"],
        ] {
            assert!(!wants(json), "{json:?}");
        }
        for events in [
            &["text/event-stream"][..],
            &["application/json, Text/Event-Stream;q=0.9"],
            &["application/json", "text/event-stream"],
        ] {
            assert!(wants(events), "{events:?}");
        }
    }
}
