//! Releases of the provider software: written on the internal listener, read by anybody.
//!
//! The public side is answered from memory. It looks at the store once a second at most, whoever
//! asks how often, and fails rather than tell old news when the store cannot be read.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Mutex;

use super::asker::Asker;
use super::body::Received;
use super::conditional::{CONTENT_DIGEST, digest, is_unchanged};
use super::internal::{allowed, bearer, no_store};
use super::problem::Problem;
use super::{MAX_JSON, Public, error};
use crate::audit::Who;
use crate::flows::authorize::Act;
use crate::flows::release::{
    Done, ReleaseEntry, Which, register, registry, releases_since, revoke,
};
use crate::flows::{Context, Failure};
use crate::ids::sha256;
use crate::provider::release::{Registration, ReleaseRefusal, latest};
use crate::provider::{BinaryHash, Platform, Release, Version};
use crate::publication::release_v1::{ReleaseV1, ReleasesV1};
use crate::reason::Reason;

/// Its name in metrics, and where refusals are kept.
const SURFACE: &str = "release";

/// How old what is in memory may get.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How long others may keep what they were told (the coordinator's clients expect a minute).
const CACHE: HeaderValue = HeaderValue::from_static("public, max-age=60");

/// Registers a release. The same registration again is answered like the first; another one of the same
/// program, or one that was withdrawn, is a 409.
#[utoipa::path(
    post, path = "/internal/v1/releases", tag = "Releases",
    security(("token" = ["operator"]), ("release_key" = [])),
    request_body = Registration,
    responses((status = 200, description = "It is registered.", body = RegisteredV1), (status = 409, response = Problem)),
)]
pub async fn add(
    State(ctx): State<Arc<Context>>,
    asker: Asker,
    Received(body): Received<MAX_JSON>,
) -> Response {
    let who = match registrar(&ctx, &asker).await {
        Ok(who) => who,
        Err(refusal) => return refusal,
    };
    let registration = match body {
        Ok(body) => match Registration::parse(&body) {
            Ok(registration) => registration,
            Err(refusal) => return refused(&ctx, &refusal),
        },
        Err(reason) => return unread(&ctx, reason),
    };
    match register(&ctx.store, &registration, &who, ctx.clock.now()).await {
        Ok(Ok(Done { release, changed })) => no_store(RegisteredV1 {
            status: "release_registered",
            changed,
            release: ReleaseV1::new(&release),
        }),
        Ok(Err(refusal)) => refused(&ctx, &refusal),
        Err(failure) => error::to_internal(&failure),
    }
}

/// Whoever may register: an operator, or the bearer of the configured key.
async fn registrar(ctx: &Context, asker: &Asker) -> Result<Who, Response> {
    let key = ctx.settings.release_key.as_ref();
    if let (Some(key), Some(presented)) = (key, bearer(&asker.headers))
        && key.is(presented)
    {
        return Ok(Who::ReleaseKey);
    }
    operator(ctx, asker).await
}

async fn operator(ctx: &Context, asker: &Asker) -> Result<Who, Response> {
    Ok(allowed(ctx, asker, Act::Administer).await?.who())
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = ReleaseRegisteredV1)]
struct RegisteredV1<'a> {
    /// Always `release_registered`.
    status: &'static str,
    changed: bool,
    release: ReleaseV1<'a>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = ReleaseRevokedV1)]
struct RevokedV1<'a> {
    /// Always `release_revoked`.
    status: &'static str,
    changed: bool,
    releases: Vec<ReleaseV1<'a>>,
}

/// All releases, and what was done to them.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = ReleaseRegistryV1)]
struct RegistryV1<'a> {
    releases: Vec<ReleaseV1<'a>>,
    history: Vec<ReleaseEntry>,
}

/// Which program is withdrawn, by its hash or its version, and why.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ReleaseWithdrawal)]
struct Withdrawal {
    #[serde(default)]
    binary_hash: Option<BinaryHash>,
    #[serde(default)]
    version: Option<Version>,
    #[serde(default)]
    platform: Platform,
    /// It is published.
    reason: String,
}

/// Withdraws a release, or every release of a version. No DELETE: a withdrawal has a reason, and nothing is deleted.
#[utoipa::path(
    post, path = "/internal/v1/releases/revoke", tag = "Releases",
    security(("token" = ["operator"])),
    request_body = Withdrawal,
    responses((status = 200, description = "It is withdrawn.", body = RevokedV1), (status = 404, response = Problem), (status = 409, response = Problem)),
)]
pub async fn withdraw(
    State(ctx): State<Arc<Context>>,
    asker: Asker,
    Received(body): Received<MAX_JSON>,
) -> Response {
    let who = match operator(&ctx, &asker).await {
        Ok(who) => who,
        Err(refusal) => return refusal,
    };
    let body = match body {
        Ok(body) => body,
        Err(reason) => return unread(&ctx, reason),
    };
    let (which, withdrawal) = match which(&body) {
        Ok(asked) => asked,
        Err(detail) => {
            error::count(&ctx, SURFACE, Reason::RequestMalformed, "body");
            return Problem::invalid_request(detail).into_response();
        }
    };
    let Withdrawal {
        platform, reason, ..
    } = &withdrawal;
    let now = ctx.clock.now();
    match revoke(&ctx.store, &which, platform, reason, &who, now).await {
        Ok(Ok(withdrawn)) => no_store(RevokedV1 {
            status: "release_revoked",
            changed: withdrawn.iter().any(|done| done.changed),
            releases: withdrawn
                .iter()
                .map(|done| ReleaseV1::new(&done.release))
                .collect(),
        }),
        Ok(Err(refusal)) => refused(&ctx, &refusal),
        Err(failure) => error::to_internal(&failure),
    }
}

fn which(body: &[u8]) -> Result<(Which, Withdrawal), String> {
    // Derived readers take a JSON array for an object.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err("the body must be a JSON object".to_owned());
    }
    let asked: Withdrawal = serde_json::from_slice(body).map_err(|fault| fault.to_string())?;
    let which = match (asked.binary_hash, asked.version.clone()) {
        (Some(hash), None) => Which::Hash(hash),
        (None, Some(version)) => Which::Version(version),
        _ => return Err("give binary_hash or version".to_owned()),
    };
    Ok((which, asked))
}

/// Every release, and who did what to it and why.
#[utoipa::path(
    get, path = "/internal/v1/releases", tag = "Releases",
    security(("token" = ["coordinator", "operator", "auditor", "viewer"])),
    responses((status = 200, description = "The registry.", body = RegistryV1)),
)]
pub async fn read(State(ctx): State<Arc<Context>>, asker: Asker) -> Response {
    if let Err(refusal) = allowed(&ctx, &asker, Act::ReadStatus).await {
        return refusal;
    }
    match registry(&ctx.store).await {
        Ok(registry) => no_store(RegistryV1 {
            releases: registry.releases.iter().map(ReleaseV1::new).collect(),
            history: registry.history,
        }),
        Err(failure) => error::to_internal(&failure),
    }
}

fn unread(ctx: &Context, reason: Reason) -> Response {
    error::count(ctx, SURFACE, reason, "body");
    match reason {
        Reason::RequestTooLarge => Problem::request_too_large("64 KiB").into_response(),
        _ => Problem::invalid_request("the request broke off").into_response(),
    }
}

fn refused(ctx: &Context, refusal: &ReleaseRefusal) -> Response {
    error::count(ctx, SURFACE, refusal.reason(), refusal);
    let problem = match refusal {
        ReleaseRefusal::Malformed(_) | ReleaseRefusal::NoReason => {
            Problem::invalid_request(refusal)
        }
        ReleaseRefusal::Contradiction => Problem::release_differs()
            .detail("what was registered stands; a program that was built anew has another hash"),
        ReleaseRefusal::Revoked => Problem::release_revoked()
            .detail("a withdrawal is for good; a corrected program has another hash"),
        ReleaseRefusal::Unknown => Problem::release_not_found(),
    };
    problem.reason(refusal.reason()).into_response()
}

/// The registry as the public reads it, in memory.
#[derive(Debug, Default)]
pub struct Catalogue(Mutex<Option<Kept>>);

#[derive(Debug)]
struct Kept {
    generation: i64,
    looked_at: Instant,
    told: Arc<Told>,
}

/// What is told, ready to be sent.
#[derive(Debug)]
struct Told {
    list: Document,
    latest: HashMap<Platform, Document>,
    /// Of each program what the list says of it.
    of: HashMap<BinaryHash, Document>,
}

#[derive(Debug, Clone)]
struct Document {
    body: Bytes,
    sha256: [u8; 32],
    tag: HeaderValue,
}

impl Catalogue {
    async fn told(&self, ctx: &Context) -> Result<Arc<Told>, Failure> {
        // Who finds it old looks; everybody else waits for that, so that the store is asked once.
        let mut kept = self.0.lock().await;
        if let Some(kept) = kept.as_ref()
            && kept.looked_at.elapsed() < LOOK_AGAIN
        {
            return Ok(Arc::clone(&kept.told));
        }
        let looked_at = Instant::now();
        let known = kept.as_ref().map(|kept| kept.generation);
        let found = releases_since(&ctx.store, known).await?;
        let renewed = match (found, kept.take()) {
            (Some((generation, releases)), _) => Kept {
                generation,
                looked_at,
                told: Arc::new(Told::of(&releases)),
            },
            (None, Some(same)) => Kept { looked_at, ..same },
            (None, None) => {
                return Err(Failure::Inconsistent(
                    "a registry that nobody read is known",
                ));
            }
        };
        let told = Arc::clone(&renewed.told);
        *kept = Some(renewed);
        Ok(told)
    }
}

impl Told {
    fn of(releases: &[Release]) -> Self {
        let platforms = releases.iter().map(|release| &release.platform);
        let latest = platforms.filter_map(|platform| {
            let release = latest(releases, platform)?;
            Some((platform.clone(), Document::of(&ReleaseV1::new(release))))
        });
        // One program may be released for several platforms.
        let mut of: HashMap<BinaryHash, Vec<Release>> = HashMap::new();
        for release in releases {
            of.entry(release.binary_hash)
                .or_default()
                .push(release.clone());
        }
        let of = of.into_iter();
        let of = of.map(|(hash, releases)| (hash, Document::of(&ReleasesV1::new(&releases))));
        Self {
            latest: latest.collect(),
            of: of.collect(),
            list: Document::of(&ReleasesV1::new(releases)),
        }
    }
}

impl Document {
    fn of(told: &impl serde::Serialize) -> Self {
        let body = Bytes::from(json!(told).to_string());
        let sha256 = sha256(&body);
        let tag = format!("\"{}\"", hex::encode(&sha256[..16]));
        Self {
            body,
            sha256,
            tag: HeaderValue::from_str(&tag).unwrap_or(HeaderValue::from_static("\"\"")),
        }
    }

    fn answer(&self, headers: &HeaderMap) -> Response {
        let unchanged = is_unchanged(headers, self.tag.as_bytes());
        let mut response = if unchanged {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            let json = HeaderValue::from_static("application/json");
            let mut whole = ([(header::CONTENT_TYPE, json)], self.body.clone()).into_response();
            whole
                .headers_mut()
                .insert(CONTENT_DIGEST, digest(&self.sha256));
            whole
        };
        let headers = response.headers_mut();
        headers.insert(header::ETAG, self.tag.clone());
        headers.insert(header::CACHE_CONTROL, CACHE);
        response
    }
}

/// Every release that was ever registered, withdrawn ones among them.
#[utoipa::path(
    get, path = "/v1/releases", tag = "Releases",
    responses(
        (status = 200, description = "As of now.", body = ReleasesV1, headers(("ETag" = String), ("Cache-Control" = String), ("Content-Digest" = String))),
        (status = 304, description = "As it was."),
    ),
)]
pub async fn list(State(public): State<Public>, headers: HeaderMap) -> Response {
    match public.releases.told(&public.ctx).await {
        Ok(told) => told.list.answer(&headers),
        Err(failure) => error::to_internal(&failure),
    }
}

/// What is known of one program, as the list has it. Not for ever: whoever keeps it must hear when it is
/// withdrawn.
#[utoipa::path(
    get, path = "/v1/releases/{binary_hash}", tag = "Releases",
    params(("binary_hash" = BinaryHash, Path)),
    responses(
        (status = 200, description = "As of now.", body = ReleasesV1, headers(("ETag" = String), ("Cache-Control" = String), ("Content-Digest" = String))),
        (status = 304, description = "As it was."),
        (status = 404, response = Problem),
    ),
)]
pub async fn of(
    State(public): State<Public>,
    headers: HeaderMap,
    Path(binary_hash): Path<String>,
) -> Response {
    match public.releases.told(&public.ctx).await {
        Ok(told) => {
            let of = BinaryHash::parse(&binary_hash).and_then(|hash| told.of.get(&hash));
            match of {
                Some(releases) => releases.answer(&headers),
                None => Problem::release_not_found().into_response(),
            }
        }
        Err(failure) => error::to_internal(&failure),
    }
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    /// `macos-arm64` where it is not said.
    platform: Option<String>,
}

/// The newest release of a platform that is neither withdrawn nor a pre-release. Other parameters are passed
/// over: installers of all ages ask.
#[utoipa::path(
    get, path = "/v1/releases/latest", tag = "Releases",
    params(Wanted),
    responses(
        (status = 200, description = "As of now.", body = ReleaseV1, headers(("ETag" = String), ("Cache-Control" = String), ("Content-Digest" = String))),
        (status = 304, description = "As it was."),
        (status = 404, response = Problem),
    ),
)]
pub async fn newest(
    State(public): State<Public>,
    headers: HeaderMap,
    query: Result<Query<Wanted>, QueryRejection>,
) -> Response {
    let platform = match query {
        Ok(Query(Wanted { platform: None })) => Some(Platform::default()),
        Ok(Query(Wanted {
            platform: Some(text),
        })) => Platform::parse(&text),
        Err(rejection) => return Problem::invalid_request(rejection.body_text()).into_response(),
    };
    let Some(platform) = platform else {
        return Problem::invalid_request("platform is a name such as macos-arm64").into_response();
    };
    match public.releases.told(&public.ctx).await {
        Ok(told) => match told.latest.get(&platform) {
            Some(release) => release.answer(&headers),
            None => Problem::release_not_found().into_response(),
        },
        Err(failure) => error::to_internal(&failure),
    }
}
