//! The pages of the public listener, for people: templates, and a little script of our own origin.
//!
//! Everything works without the script: pages that show something live reload themselves then. With
//! it, whatever is live is fetched again as the same page when the stream of events says that
//! something happened, so there is one renderer, and one that escapes. Nothing here authorises
//! anything, no cookie is set, and no other origin is named.

mod asset;
mod enroll;
mod progress;
mod reply;
mod words;

use axum::Router;
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware;
use axum::response::Response;
use axum::routing::get;

use crate::http::Public;

/// The routes of the pages.
pub fn pages() -> Router<Public> {
    Router::new()
        .route("/enroll", get(enroll::page).post(enroll::submit))
        .route("/enroll/{progress_id}", get(progress::page))
        .route(
            "/enroll/{progress_id}/{claim}",
            get(progress::page_with_claim),
        )
        .route(
            "/enroll/{progress_id}/{claim}/profile",
            get(progress::profile),
        )
        .route("/assets/{name}", get(asset::asset))
        .layer(middleware::map_response(guarded))
}

/// What a browser may do with what comes from here: nothing but this origin's own style, script,
/// pictures, form and stream.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     connect-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

async fn guarded(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // The address of a page may carry a claim to a profile.
        (header::REFERRER_POLICY, "no-referrer"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
