//! `GET /internal/v1/events`: what happens, as Server-Sent Events, from a cursor on.
//!
//! Each stream is a task that takes what the outlet has (`flows::follow_events`) and hands it to its
//! connection, one piece at a time: a client that does not read holds one piece, and nobody up.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::unfold;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};

use super::asker::Asker;
use super::description::Later;
use super::internal::allowed;
use super::problem::Problem;
use super::progress::{HEARTBEAT, LAST_EVENT_ID, refused};
use super::streams::Place;
use super::{Internal, error};
use crate::flows::authorize::{Act, Standing, authorize};
use crate::flows::follow_events::{Follower, Next, follow};
use crate::flows::{Context, Failure};
use crate::ids::{DeviceId, SecretHash};
use crate::publication::event_stream::{self, Lapse, Wanted};

/// Longest stream; the client comes back by itself.
pub const LONGEST: Duration = Duration::from_secs(60 * 60);
/// Streams open at a time, and those of one token.
pub const MOST: (usize, usize) = (512, 64);
/// How often it is asked whether whoever listens still may.
const MAY_STILL: Duration = Duration::from_secs(1);

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Question {
    /// A cursor.
    after: Option<String>,
    /// Names of events, with commas between them.
    events: Option<String>,
    device_id: Option<String>,
}

impl Question {
    fn wanted(&self) -> Result<Wanted, String> {
        let device_id = self.device_id.as_deref().map(DeviceId::parse).transpose();
        let device_id = device_id.map_err(|fault| fault.to_string())?;
        Wanted::new(self.events.as_deref(), device_id)
            .map_err(|name| format!("events: there is no event {name:?}"))
    }
}

/// What happens, from a cursor on, as Server-Sent Events.
#[utoipa::path(
    get, path = "/internal/v1/events", tag = "Events",
    security(("token" = ["coordinator", "operator", "auditor"])),
    params(Question, ("Last-Event-ID" = Option<String>, Header, description = "The cursor where the reader was; goes before `after`.")),
    responses(
        (status = 200, description = "Server-Sent Events: `id` is a cursor, `event` a name, `data` a JSON object.", body = String, content_type = "text/event-stream"),
        (status = 429, response = Later),
    ),
)]
pub async fn events(
    State(internal): State<Internal>,
    asker: Asker,
    question: Result<Query<Question>, QueryRejection>,
) -> Response {
    let ctx = &internal.ctx;
    if let Err(refusal) = allowed(ctx, &asker, Act::ReadDevices).await {
        return refusal;
    }
    let question = match question {
        Ok(Query(question)) => question,
        Err(rejection) => return Problem::invalid_request(rejection.body_text()).into_response(),
    };
    let wanted = match question.wanted() {
        Ok(wanted) => wanted,
        Err(detail) => return Problem::invalid_request(detail).into_response(),
    };
    let listener = asker.key();
    let place = match internal.streams.enter(Some(listener)) {
        Ok(place) => place,
        Err(full) => return refused(full),
    };
    // A client that comes back says where it was; that is newer than the address it asks at.
    let known = asker
        .headers
        .get(LAST_EVENT_ID)
        .map(|id| id.to_str().unwrap_or("?"));
    let after = known.or(question.after.as_deref());
    let (follower, beginning) = match follow(ctx, after, wanted).await {
        Ok(begun) => begun,
        Err(failure) => return error::to_internal(&failure),
    };
    let mut opening = event_stream::opening(beginning.cursor);
    if let Some(lapse) = beginning.lapse {
        opening.push_str(&event_stream::reset(lapse, beginning.cursor));
    }
    let (pieces, taken) = mpsc::channel(1);
    let telling = Telling {
        pieces,
        heartbeat: HEARTBEAT,
        _place: place,
    };
    let ends = ends(internal.clone(), asker);
    tokio::spawn(telling.until(ends, follower, opening));
    answer(taken)
}

/// When a stream ends that goes on well: the server stops, the listener may not listen any more, it was long
/// enough.
async fn ends(internal: Internal, asker: Asker) {
    tokio::select! {
        () = internal.stop.cancelled() => {}
        () = withdrawn(&internal.ctx, &asker) => {}
        () = sleep(LONGEST) => {}
    }
}

async fn withdrawn(ctx: &Context, asker: &Asker) {
    loop {
        sleep(MAY_STILL).await;
        match authorize(ctx, asker.shown(), Act::ReadDevices).await {
            Ok(Standing::Allowed(_)) => {}
            Ok(_) => return,
            // Nobody can tell: the client comes back, and is told so.
            Err(failure) => return failure.log(),
        }
    }
}

fn answer(taken: mpsc::Receiver<Bytes>) -> Response {
    let pieces = unfold(taken, |mut taken| async {
        let piece = taken.recv().await?;
        Some((Ok::<_, Infallible>(piece), taken))
    });
    // The last is what nginx calls the wish not to be buffered.
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    let headers = headers.map(|(name, value)| (name, HeaderValue::from_static(value)));
    (headers, Body::from_stream(pieces)).into_response()
}

/// What is followed, as a stream needs it.
trait Source {
    async fn next(&mut self) -> Result<Next, Failure>;
    /// Up to where everything was told, or is not wanted.
    fn cursor(&self) -> Arc<AtomicI64>;
}

impl Source for Follower {
    async fn next(&mut self) -> Result<Next, Failure> {
        Self::next(self).await
    }

    fn cursor(&self) -> Arc<AtomicI64> {
        Self::cursor(self)
    }
}

/// What a stream holds on to.
struct Telling {
    pieces: mpsc::Sender<Bytes>,
    heartbeat: Duration,
    _place: Place<SecretHash>,
}

impl Telling {
    async fn until(self, ends: impl Future<Output = ()>, source: impl Source, opening: String) {
        tokio::select! {
            () = ends => {}
            () = self.pieces.closed() => {}
            () = self.tell(source, opening) => {}
        }
    }

    async fn tell(&self, mut source: impl Source, opening: String) {
        let cursor = source.cursor();
        let mut told = cursor.load(Ordering::Relaxed);
        if self.pieces.send(opening.into()).await.is_err() {
            return;
        }
        let mut beat = interval_at(Instant::now() + self.heartbeat, self.heartbeat);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let piece = {
                let next = source.next();
                tokio::pin!(next);
                tokio::select! {
                    biased;
                    next = &mut next => Some(next),
                    _ = beat.tick() => None,
                }
            };
            let cursor = cursor.load(Ordering::Relaxed);
            let (piece, goes_on) = match piece {
                None if cursor != told => (event_stream::mark(cursor).into(), true),
                None => (event_stream::HEARTBEAT.into(), true),
                Some(Ok(Next::Events(events))) => (events, true),
                Some(Ok(Next::TooSlow(cursor))) => {
                    let reset = event_stream::reset(Lapse::TooSlow, cursor);
                    (reset.into(), false)
                }
                Some(Ok(Next::Deaf)) => return,
                Some(Err(failure)) => return failure.log(),
            };
            told = cursor;
            if self.pieces.send(piece).await.is_err() || !goes_on {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::super::streams::Streams;
    use super::*;

    /// What a stream is fed with, and where that ends up to be told.
    struct Script {
        next: Vec<Next>,
        cursor: Arc<AtomicI64>,
        skips_to: Option<i64>,
    }

    impl Source for Script {
        async fn next(&mut self) -> Result<Next, Failure> {
            if !self.next.is_empty() {
                return Ok(self.next.remove(0));
            }
            if let Some(seq) = self.skips_to.take() {
                self.cursor.store(seq, Ordering::Relaxed);
            }
            pending().await
        }

        fn cursor(&self) -> Arc<AtomicI64> {
            Arc::clone(&self.cursor)
        }
    }

    fn telling(heartbeat: Duration) -> (Telling, mpsc::Receiver<Bytes>) {
        let streams = Arc::new(Streams::new(1, 1));
        let place = streams.enter(None).expect("a place");
        let (pieces, taken) = mpsc::channel(1);
        let telling = Telling {
            pieces,
            heartbeat,
            _place: place,
        };
        (telling, taken)
    }

    fn script(next: Vec<Next>, skips_to: Option<i64>) -> Script {
        Script {
            next,
            cursor: Arc::new(AtomicI64::new(4)),
            skips_to,
        }
    }

    const SOON: Duration = Duration::from_millis(5);
    const NEVER: Duration = Duration::from_secs(600);

    async fn text(taken: &mut mpsc::Receiver<Bytes>) -> Option<String> {
        let piece = taken.recv().await?;
        Some(String::from_utf8(piece.to_vec()).expect("text"))
    }

    #[tokio::test]
    async fn a_quiet_stream_has_a_heartbeat_and_says_how_far_it_is() {
        let (telling, mut taken) = telling(SOON);
        let source = script(Vec::new(), Some(9));
        tokio::spawn(telling.until(pending(), source, "opening".to_owned()));
        assert_eq!(text(&mut taken).await.as_deref(), Some("opening"));
        // Events came that this reader does not want: it need not read them again.
        assert_eq!(text(&mut taken).await.as_deref(), Some("id: 9\n\n"));
        for _ in 0..2 {
            assert_eq!(text(&mut taken).await.as_deref(), Some(": still here\n\n"));
        }
    }

    #[tokio::test]
    async fn who_was_too_slow_is_told_so_and_no_more() {
        let (telling, mut taken) = telling(NEVER);
        let next = vec![Next::Events("a".into()), Next::TooSlow(7)];
        tokio::spawn(telling.until(pending(), script(next, None), String::new()));
        assert_eq!(text(&mut taken).await.as_deref(), Some(""));
        assert_eq!(text(&mut taken).await.as_deref(), Some("a"));
        let reset = text(&mut taken).await.expect("a reset");
        assert!(reset.starts_with("id: 7\nevent: reset\n"), "{reset}");
        assert_eq!(text(&mut taken).await, None);
    }

    #[tokio::test]
    async fn who_reads_nothing_holds_one_piece_and_the_stream_ends_all_the_same() {
        let (ending, mut taken) = telling(NEVER);
        let next = (0..1000).map(|_| Next::Events("a".into())).collect();
        let end = async {
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
        };
        ending
            .until(end, script(next, None), "opening".to_owned())
            .await;
        assert_eq!(text(&mut taken).await.as_deref(), Some("opening"));
        assert_eq!(text(&mut taken).await, None, "one piece was waiting");

        let (telling, taken) = telling(NEVER);
        drop(taken);
        // Whoever went away is noticed, whatever there is to tell.
        telling
            .until(pending(), script(Vec::new(), None), String::new())
            .await;
    }

    #[tokio::test]
    async fn an_answer_is_an_event_stream_that_nobody_keeps() {
        let (telling, taken) = telling(NEVER);
        telling
            .until(ready(()), script(Vec::new(), None), String::new())
            .await;
        let response = answer(taken);
        let headers = response.headers();
        assert_eq!(headers[header::CONTENT_TYPE], "text/event-stream");
        assert_eq!(headers[header::CACHE_CONTROL], "no-store");
        assert_eq!(headers["x-accel-buffering"], "no");
    }
}
