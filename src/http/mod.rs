//! Bytes to types and back; no rules.
//!
//! Two listeners, never mixed: [`public`] for Macs and the world, [`internal()`] for coordinator
//! and operators. Layers, outside in: panic to 500, count, deadline, route. Bodies are limited where they
//! are read, so that each route refuses a larger one in its own shape.

pub mod acme;
pub mod bindings;
pub mod body;
pub mod challenges;
pub mod client_tls;
pub mod clock;
pub mod conditional;
pub mod enroll;
pub mod enroll_signed;
pub mod error;
pub mod events;
pub mod evidence;
pub mod feed;
pub mod health;
pub mod idle;
pub mod internal;
pub mod limit;
pub mod listener;
pub mod log;
pub mod mdm;
pub mod postures;
pub mod problem;
pub mod progress;
pub mod proxies;
pub mod releases;
pub mod results;
pub mod revocations;
pub mod scep;
pub mod streams;
pub mod tickets;
pub mod trust_headers;
pub mod verifications;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRef, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{any, get, post, put};
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::timeout::TimeoutLayer;

use crate::flows::Context;
use crate::flows::publish_feed::Feed;
use crate::ids::SecretHash;

/// Macs wait up to a minute for an answer; nothing honest takes longer than this.
const DEADLINE: Duration = Duration::from_secs(30);

/// Largest body of a JSON request.
const MAX_JSON: usize = 64 * 1024;

/// What the routes of the public listener need besides the flows.
#[derive(Debug, Clone)]
pub struct Public {
    pub ctx: Arc<Context>,
    pub enroll_limit: Arc<limit::PerClient>,
    pub scep_limit: Arc<limit::PerClient>,
    pub acme_limit: Arc<limit::PerClient>,
    pub streams: Arc<streams::Streams<IpAddr>>,
    /// Ends the streams, which would end by themselves much later than requests do.
    pub stop: CancellationToken,
    pub proxies: Arc<proxies::Proxies>,
    pub releases: Arc<releases::Catalogue>,
    pub feed: Arc<Feed>,
    pub feed_limit: Arc<limit::PerClient>,
    pub downloads: Arc<streams::Streams<IpAddr>>,
}

/// What the routes of the internal listener need besides the flows.
#[derive(Debug, Clone)]
pub struct Internal {
    pub ctx: Arc<Context>,
    /// By the token of who listens.
    pub streams: Arc<streams::Streams<SecretHash>>,
    /// As in [`Public`].
    pub stop: CancellationToken,
}

impl Internal {
    /// With as many streams as may be; `stop` ends them.
    pub fn new(ctx: Arc<Context>, stop: CancellationToken) -> Self {
        let (all, of_one) = events::MOST;
        Self {
            ctx,
            streams: Arc::new(streams::Streams::new(all, of_one)),
            stop,
        }
    }
}

impl FromRef<Internal> for Arc<Context> {
    fn from_ref(internal: &Internal) -> Self {
        Self::clone(&internal.ctx)
    }
}

/// What Macs and the world reach; `pages` are for people.
pub fn public(state: Public, pages: Router<Public>) -> Router {
    let ctx = Arc::clone(&state.ctx);
    let routes = Router::new()
        .route("/v1/enroll", post(enroll::enroll))
        .route("/v2/enroll", post(enroll_signed::enroll))
        .route("/v1/enrollments/{progress_id}", get(progress::progress))
        .route("/v1/providers/attestation", get(feed::whole))
        .route(
            "/v1/providers/{provider_id}/attestation",
            get(feed::about_one),
        )
        .route("/v1/releases", get(releases::list))
        .route("/v1/releases/latest", get(releases::newest))
        .route("/v1/releases/{binary_hash}", get(releases::of))
        .route("/v1/evidence/{provider_id}", get(evidence::bundle))
        .route("/v1/policies/{sha256}", get(results::policy))
        .route("/.well-known/jwks.json", get(results::jwks))
        .route("/.well-known/jwks-history.json", get(results::jwks_history))
        .route("/log/checkpoint", get(log::checkpoint))
        .route("/log/verifier-key", get(log::verifier_key))
        .route("/log/tile/{*path}", get(log::tile))
        .route("/mdm/checkin", put(mdm::message))
        .route("/mdm/connect", put(mdm::message))
        .route("/acme/{secret}/{*path}", any(acme::acme))
        // Where Macs that NanoMDM enrolled send everything: an adopted fleet keeps its URLs.
        .route("/mdm", put(mdm::message))
        .route("/scep", get(scep::get).post(scep::post))
        .route("/healthz", get(health::healthz))
        .merge(pages);
    finish(routes.with_state(state), ctx, "public", DEADLINE)
}

/// What coordinator and operators reach.
pub fn internal(state: Internal) -> Router {
    let ctx = Arc::clone(&state.ctx);
    let routes = Router::new()
        .route("/internal/v1/devices", get(internal::devices))
        .route("/internal/v1/devices/{device_id}", get(internal::device))
        .route(
            "/internal/v1/devices/{device_id}/posture",
            get(postures::posture),
        )
        .route(
            "/internal/v1/devices/{device_id}/trust-headers",
            get(trust_headers::read),
        )
        .route(
            "/internal/v1/devices/{device_id}/revoke",
            post(revocations::withdraw),
        )
        .route(
            "/internal/v1/devices/{device_id}/restore",
            post(revocations::give_back),
        )
        .route(
            "/internal/v1/bindings/{session}",
            put(bindings::put)
                .get(bindings::get)
                .delete(bindings::delete),
        )
        .route(
            "/internal/v1/bindings/{session}/approve",
            post(bindings::approve),
        )
        .route("/internal/v1/challenges", post(challenges::start))
        .route(
            "/internal/v1/challenges/{challenge_id}/response",
            post(challenges::respond),
        )
        .route("/internal/v1/verifications", post(verifications::start))
        .route(
            "/internal/v1/verifications/{verification_id}",
            get(verifications::read),
        )
        .route(
            "/internal/v1/releases",
            get(releases::read).post(releases::add),
        )
        .route("/internal/v1/postures", get(postures::list))
        .route("/internal/v1/events", get(events::events))
        .route("/internal/v1/releases/revoke", post(releases::withdraw))
        .route("/internal/v1/tickets", post(tickets::issue))
        .route("/internal/v1/status", get(internal::status))
        .route("/internal/v1/clock/accept", post(clock::accept))
        .route("/metrics", get(health::metrics))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
        // Kept where the body is read, so that what is too large is told as a problem too.
        .layer(DefaultBodyLimit::max(MAX_JSON));
    // Long polls wait up to MAX_WAIT before they answer.
    let deadline = DEADLINE + verifications::MAX_WAIT;
    finish(routes.with_state(state), ctx, "internal", deadline)
}

/// Who is not done in time, the client with its body or the service, ends with 503: a Mac tries
/// again.
fn deadline(within: Duration) -> TimeoutLayer {
    TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, within)
}

fn finish(routes: Router, ctx: Arc<Context>, listener: &'static str, deadline: Duration) -> Router {
    let count = move |State(ctx): State<Arc<Context>>, request: Request, next: Next| async move {
        let response: Response = next.run(request).await;
        ctx.metrics.answered(listener, response.status().as_u16());
        response
    };
    routes
        .layer(self::deadline(deadline))
        .layer(middleware::from_fn_with_state(ctx, count))
        .layer(CatchPanicLayer::new())
}
