//! Bytes to types and back; no rules.
//!
//! Two listeners, never mixed: [`public`] for Macs and the world, [`internal()`] for coordinator
//! and operators. Layers, outside in: panic to 500, count, deadline, route. Bodies are limited where they
//! are read, so that each route refuses a larger one in its own shape.

pub mod acme;
pub mod asker;
pub mod audit;
pub mod bindings;
pub mod body;
pub mod challenges;
pub mod client_tls;
pub mod clock;
pub mod conditional;
pub mod description;
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
pub mod micromdm;
pub mod postures;
pub mod problem;
pub mod progress;
pub mod proxies;
pub mod push_certificates;
pub mod releases;
pub mod results;
pub mod revocations;
pub mod scep;
pub mod shared_signals;
pub mod streams;
pub mod tickets;
pub mod trust_headers;
pub mod verifications;

use std::any::Any;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRef, Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, put};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::description::Elsewhere;
use self::problem::Problem;
use crate::flows::Context;
use crate::flows::publish_feed::Feed;
use crate::ids::{ReceiverId, SecretHash};

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
    pub log_limit: Arc<limit::PerClient>,
    pub downloads: Arc<streams::Streams<IpAddr>>,
}

/// What the routes of the internal listener need besides the flows.
#[derive(Debug, Clone)]
pub struct Internal {
    pub ctx: Arc<Context>,
    /// By the token of who listens.
    pub streams: Arc<streams::Streams<SecretHash>>,
    /// Receivers of shared signals that wait for a token.
    pub polls: Arc<streams::Streams<ReceiverId>>,
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
            polls: Arc::new(streams::Streams::new(
                shared_signals::MOST_POLLS,
                shared_signals::POLLS_OF_ONE,
            )),
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
    let (described, elsewhere) = public_routes();
    let (described, _) = described.split_for_parts();
    let routes = described.merge(elsewhere.into_routes()).merge(pages);
    finish(routes.with_state(state), ctx, "public", DEADLINE)
}

/// Its routes, but for the pages: those that are described, and the others.
pub fn public_routes() -> (OpenApiRouter<Public>, Elsewhere<Public>) {
    let described = OpenApiRouter::new()
        .routes(routes!(enroll::enroll))
        .routes(routes!(enroll_signed::enroll))
        .routes(routes!(progress::progress))
        .routes(routes!(feed::whole))
        .routes(routes!(feed::about_one))
        .routes(routes!(releases::list))
        .routes(routes!(releases::newest))
        .routes(routes!(releases::of))
        .routes(routes!(evidence::bundle))
        .routes(routes!(results::policy))
        .routes(routes!(results::jwks))
        .routes(routes!(results::jwks_history))
        .routes(routes!(shared_signals::ssf_configuration))
        .routes(routes!(shared_signals::oauth_configuration))
        .routes(routes!(description::public));
    let elsewhere = Elsewhere::new()
        .route("/log/checkpoint", LOG, get(log::checkpoint))
        .route("/log/verifier-key", LOG, get(log::verifier_key))
        .route("/log/tile/{*path}", LOG, get(log::tile))
        .route("/mdm/checkin", MDM, put(mdm::message))
        .route("/mdm/connect", MDM, put(mdm::message))
        // Where Macs that NanoMDM enrolled send everything: an adopted fleet keeps its URLs.
        .route("/mdm", MDM, put(mdm::message))
        .route("/acme/{secret}/{*path}", ACME, any(acme::acme))
        .route("/scep", SCEP, get(scep::get).post(scep::post))
        .route("/healthz", TEXT, get(health::healthz));
    (described, elsewhere)
}

const LOG: &str = "C2SP tlog-tiles: signed notes and octets";
const MDM: &str = "Apple's device management protocol: property lists";
const ACME: &str = "RFC 8555: JSON in signed envelopes, described by the standard";
const SCEP: &str = "RFC 8894: DER";
const TEXT: &str = "plain text, for who watches the process";

/// What coordinator and operators reach.
pub fn internal(state: Internal) -> Router {
    let ctx = Arc::clone(&state.ctx);
    let (described, elsewhere) = internal_routes(ctx.settings.relay.is_some());
    let (described, _) = described.split_for_parts();
    let routes = described
        .merge(elsewhere.into_routes())
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
        // Kept where the body is read, so that what is too large is told as a problem too.
        .layer(DefaultBodyLimit::max(MAX_JSON));
    // Long polls wait up to MAX_WAIT before they answer.
    let deadline = DEADLINE + verifications::MAX_WAIT;
    finish(routes.with_state(state), ctx, "internal", deadline)
}

/// Its routes: those that are described, and the others. Where nothing is relayed, nothing of that is there.
pub fn internal_routes(relays: bool) -> (OpenApiRouter<Internal>, Elsewhere<Internal>) {
    let described = OpenApiRouter::new()
        .routes(routes!(internal::devices))
        .routes(routes!(internal::device))
        .routes(routes!(postures::posture))
        .routes(routes!(trust_headers::read))
        .routes(routes!(revocations::withdraw))
        .routes(routes!(revocations::give_back))
        .routes(routes!(bindings::put, bindings::get, bindings::delete))
        .routes(routes!(bindings::approve))
        .routes(routes!(challenges::start))
        .routes(routes!(challenges::respond))
        .routes(routes!(verifications::start))
        .routes(routes!(verifications::read))
        .routes(routes!(releases::read, releases::add))
        .routes(routes!(releases::withdraw))
        .routes(routes!(postures::list))
        .routes(routes!(events::events))
        .routes(routes!(tickets::issue))
        .routes(routes!(internal::status))
        .routes(routes!(audit::read))
        .merge(push_certificates::routes())
        .routes(routes!(clock::accept))
        .routes(routes!(description::internal))
        .merge(shared_signals::routes());
    let described = match relays {
        true => described.merge(micromdm::routes()),
        false => described,
    };
    let elsewhere = Elsewhere::new()
        .route("/metrics", "OpenMetrics text", get(health::metrics))
        .route("/healthz", TEXT, get(health::healthz))
        .route("/readyz", TEXT, get(health::readyz));
    (described, elsewhere)
}

/// Who is not done in time, the client with its body or the service, ends with 503: a Mac tries
/// again.
fn in_time(routes: Router, within: Duration) -> Router {
    let limit = move |request: Request, next: Next| async move {
        match timeout(within, next.run(request)).await {
            Ok(answer) => answer,
            Err(_) => Problem::too_late().into_response(),
        }
    };
    routes.layer(middleware::from_fn(limit))
}

/// Whoever is in front may have read the end of a chunked message elsewhere, by a length that it states
/// too: then what follows on the connection is no request of the same client. hyper hides whether one was
/// stated, so the connection ends with the answer (RFC 9112 section 6.1).
async fn end_what_is_framed_doubtfully(request: Request, next: Next) -> Response {
    let is_chunked = request.headers().contains_key(header::TRANSFER_ENCODING);
    let mut answer = next.run(request).await;
    if is_chunked {
        let close = HeaderValue::from_static("close");
        answer.headers_mut().insert(header::CONNECTION, close);
    }
    answer
}

/// A fault of the program ends one request, and is told as any other fault.
fn panicked(what: Box<dyn Any + Send>) -> Response {
    let text = what.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| what.downcast_ref::<&str>().copied());
    tracing::error!(
        detail = text.unwrap_or("no text"),
        "a request met a fault of the program"
    );
    Problem::internal().into_response()
}

fn finish(routes: Router, ctx: Arc<Context>, listener: &'static str, deadline: Duration) -> Router {
    let count = move |State(ctx): State<Arc<Context>>, request: Request, next: Next| async move {
        let response: Response = next.run(request).await;
        ctx.metrics.answered(listener, response.status().as_u16());
        response
    };
    in_time(routes, deadline)
        .layer(middleware::from_fn(end_what_is_framed_doubtfully))
        .layer(middleware::from_fn_with_state(ctx, count))
        .layer(CatchPanicLayer::custom(panicked))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn a_fault_of_the_program_is_a_problem_like_any_other() {
        let fault = async || "words".parse::<u8>().expect("a fault").to_string();
        let routes = Router::new()
            .route("/", get(fault))
            .layer(CatchPanicLayer::custom(panicked));
        let answer = routes.oneshot(Request::new(Body::empty())).await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.status(), 500);
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        let body = answer.into_body().collect().await.expect("a body");
        let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
        assert!(
            body.contains("/problems/internal") && !body.contains("InvalidDigit"),
            "{body}"
        );
    }
}
