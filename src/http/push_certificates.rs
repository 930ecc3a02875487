//! `/internal/v1/push-certificates`, for who looks after the yearly push certificate. No private key ever comes or
//! goes this way: keys are made here, and stay.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Internal;
use super::asker::Asker;
use super::error;
use super::internal::{allowed, no_store};
use super::problem::Problem;
use super::revocations::{Note, noted};
use crate::audit::Who;
use crate::flows::approve_push_certificate::{Order, Ordered, activate, roll_back};
use crate::flows::authorize::Act;
use crate::flows::push_certificate_refusal::NotDone;
use crate::flows::read_push_certificates::{described, list, one, requested};
use crate::flows::rotate_push_certificate::{Offer, OfferedKey, install};
use crate::flows::try_push_certificate::{begin, chosen};
use crate::flows::{
    Context, approve_push_certificate, discard_push_certificate, request_push_certificate,
};
use crate::ids::{PushCertificateId, PushProposalId, PushRequestId, Topic};
use crate::push::view::{
    CanaryV1, PushCertificateDetailsV1, PushCertificateV1, PushCertificatesV1, PushProposalV1,
    PushRequestV1,
};
use crate::push::words::{common_name, note};

/// What every PEM of a private key has.
const PRIVATE_KEY: &str = "PRIVATE KEY-----";

/// All of them.
pub(super) fn routes() -> OpenApiRouter<Internal> {
    OpenApiRouter::new()
        .routes(routes!(read_all, stage))
        .routes(routes!(read_one))
        .routes(routes!(ask))
        .routes(routes!(discard_request))
        .routes(routes!(have_tried))
        .routes(routes!(take_into_use))
        .routes(routes!(take_back))
        .routes(routes!(discard))
        .routes(routes!(confirm))
        .routes(routes!(withdraw))
}

/// Every push certificate, where each is in its life, and the requests that no certificate came for yet.
#[utoipa::path(
    get, path = "/internal/v1/push-certificates", tag = "Push certificates",
    security(("token" = ["operator", "auditor", "viewer", "push_cert_officer"])),
    responses((status = 200, description = "All of them.", body = PushCertificatesV1)),
)]
async fn read_all(State(ctx): State<Arc<Context>>, asker: Asker) -> Response {
    if let Err(refusal) = allowed(&ctx, &asker, Act::ReadPushCertificates).await {
        return refusal;
    }
    match list(&ctx.store, ctx.clock.now()).await {
        Ok(listed) => no_store(listed),
        Err(failure) => error::to_internal(&failure),
    }
}

/// One of them, and the Macs that try it.
#[utoipa::path(
    get, path = "/internal/v1/push-certificates/{push_certificate_id}", tag = "Push certificates",
    security(("token" = ["operator", "auditor", "viewer", "push_cert_officer"])),
    params(("push_certificate_id" = PushCertificateId, Path)),
    responses((status = 200, description = "It.", body = PushCertificateDetailsV1), (status = 404, response = Problem)),
)]
async fn read_one(
    State(ctx): State<Arc<Context>>,
    asker: Asker,
    Path(id): Path<String>,
) -> Response {
    if let Err(refusal) = allowed(&ctx, &asker, Act::ReadPushCertificates).await {
        return refusal;
    }
    let Ok(id) = PushCertificateId::parse(&id) else {
        return Problem::push_certificate_not_found().into_response();
    };
    match one(&ctx.store, &id, ctx.clock.now()).await {
        Ok(Some(details)) => no_store(details),
        Ok(None) => Problem::push_certificate_not_found().into_response(),
        Err(failure) => error::to_internal(&failure),
    }
}

/// A push certificate that is wanted.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = PushCertificateWish)]
struct Wish {
    /// The name in the request, for people: the certificate will have names of Apple's. `attestd` when not given.
    common_name: Option<String>,
    /// The Apple Account it will be made under; kept with the certificate.
    apple_account: Option<String>,
}

/// Asks for a push certificate: the key is made here, and the answer has the request that a vendor signs.
#[utoipa::path(
    post, path = "/internal/v1/push-certificates/requests", tag = "Push certificates",
    security(("token" = ["push_cert_officer"])),
    request_body = Option<Wish>,
    responses((status = 201, description = "The request.", body = PushRequestV1)),
)]
async fn ask(
    State(ctx): State<Arc<Context>>,
    asker: Asker,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let (wish, who) = match asked::<Wish>(&ctx, &asker, body).await {
        Ok(asked) => asked,
        Err(refusal) => return refusal,
    };
    let name = wish.common_name.as_deref().unwrap_or("attestd");
    let words = common_name(name).and_then(|name| Ok((name, optional(wish.apple_account)?)));
    let (name, account) = match words {
        Ok(words) => words,
        Err(detail) => return Problem::invalid_request(detail).into_response(),
    };
    let (entropy, now) = (ctx.entropy.as_ref(), ctx.clock.now());
    let made =
        request_push_certificate::request(&ctx.store, entropy, &name, account, &who, now).await;
    match made {
        Ok(made) => (StatusCode::CREATED, no_store(requested(made))).into_response(),
        Err(why) => not_done(why),
    }
}

/// Throws away a request that nothing came of, and its key.
#[utoipa::path(
    post, path = "/internal/v1/push-certificates/requests/{push_request_id}/discard", tag = "Push certificates",
    security(("token" = ["push_cert_officer"])),
    params(("push_request_id" = PushRequestId, Path)),
    request_body = Option<Note>,
    responses((status = 204, description = "It is gone."), (status = 404, response = Problem)),
)]
async fn discard_request(
    State(ctx): State<Arc<Context>>,
    asker: Asker,
    Path(id): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let noted = noted(&ctx, &asker, Act::ChangePushCertificates, body).await;
    let (why, who) = match noted {
        Ok(noted) => noted,
        Err(refusal) => return refusal,
    };
    let Ok(id) = PushRequestId::parse(&id) else {
        return Problem::push_certificate_not_found().into_response();
    };
    let (store, now) = (&ctx.store, ctx.clock.now());
    match discard_push_certificate::discard_request(store, &id, &why, &who, now).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(why) => not_done(why),
    }
}

/// What came from Apple's portal.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PushCertificateFromApple)]
struct FromApple {
    /// PEM, with or without those that lead upwards; for a key that a request was made for here.
    certificate: String,
    /// The Apple Account it is renewed under; else that of the request, or of the one before.
    #[serde(default)]
    apple_account: Option<String>,
}

/// Keeps a push certificate that was requested here. One that renews another is staged; the first of all is in use
/// at once. A topic that is new beside another is taken by `attestd push-cert install --new-fleet` only.
#[utoipa::path(
    post, path = "/internal/v1/push-certificates", tag = "Push certificates",
    security(("token" = ["push_cert_officer"])),
    request_body = FromApple,
    responses((status = 201, description = "It is kept.", body = PushCertificateV1), (status = 409, response = Problem)),
)]
async fn stage(
    State(ctx): State<Arc<Context>>,
    asker: Asker,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let (brought, who) = match asked::<FromApple>(&ctx, &asker, body).await {
        Ok(asked) => asked,
        Err(refusal) => return refusal,
    };
    if brought.certificate.contains(PRIVATE_KEY) {
        let detail = "there is a private key in it, which is not kept, and which somebody may have seen on its way: \
             request a certificate here (its key is made here and stays), or install this one beside the \
             database, with `attestd push-cert install --key`";
        return Problem::push_certificate_refused("private_key_sent")
            .detail(detail)
            .into_response();
    }
    let apple_account = match optional(brought.apple_account) {
        Ok(account) => account,
        Err(detail) => return Problem::invalid_request(detail).into_response(),
    };
    let offer = Offer {
        certificate: brought.certificate.as_bytes(),
        key: OfferedKey::Requested,
        apple_account,
        new_fleet: false,
        apples: ctx.settings.apples_apns,
    };
    let (entropy, now) = (ctx.entropy.as_ref(), ctx.clock.now());
    match install(&ctx.store, entropy, offer, &who, now).await {
        Ok(kept) => (StatusCode::CREATED, no_store(described(kept, now))).into_response(),
        Err(why) => not_done(why),
    }
}

/// Macs that are to try a certificate.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CanaryChoice)]
struct Choice {
    /// Serial numbers, or device ids: 1 to 100 Macs that are awake.
    devices: Vec<String>,
}

/// The Macs that try a certificate.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct CanariesV1 {
    push_certificate_id: PushCertificateId,
    canaries: Vec<CanaryV1>,
}

/// Has chosen Macs pushed with a staged certificate. Whoever was chosen before is forgotten; how far it is, the
/// certificate says.
#[utoipa::path(
    post, path = "/internal/v1/push-certificates/{push_certificate_id}/canary", tag = "Push certificates",
    security(("token" = ["push_cert_officer"])),
    params(("push_certificate_id" = PushCertificateId, Path)),
    request_body = Choice,
    responses(
        (status = 202, description = "They will be pushed.", body = CanariesV1),
        (status = 404, response = Problem), (status = 409, response = Problem),
    ),
)]
async fn have_tried(
    State(ctx): State<Arc<Context>>,
    asker: Asker,
    Path(id): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let (choice, who) = match asked::<Choice>(&ctx, &asker, body).await {
        Ok(asked) => asked,
        Err(refusal) => return refusal,
    };
    let Ok(id) = PushCertificateId::parse(&id) else {
        return Problem::push_certificate_not_found().into_response();
    };
    let (store, now) = (&ctx.store, ctx.clock.now());
    let begun = match chosen(store, &choice.devices).await {
        Ok(macs) => begin(store, &id, &macs, &who, now).await,
        Err(why) => Err(why),
    };
    match begun {
        Ok(canaries) => {
            let canaries = CanariesV1 {
                push_certificate_id: id,
                canaries: canaries.iter().map(CanaryV1::from).collect(),
            };
            (StatusCode::ACCEPTED, no_store(canaries)).into_response()
        }
        Err(why) => not_done(why),
    }
}

/// How a certificate is taken into use.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = PushCertificateActivation)]
struct Activation {
    /// Do so although not all Macs that try it have come, for this reason.
    without_canary: Option<String>,
}

/// Has all Macs of its topic pushed with a certificate, on every node, within seconds: at once, or when another
/// person confirms it, as the settings say.
#[utoipa::path(
    post, path = "/internal/v1/push-certificates/{push_certificate_id}/activate", tag = "Push certificates",
    security(("token" = ["push_cert_officer"])),
    params(("push_certificate_id" = PushCertificateId, Path)),
    request_body = Option<Activation>,
    responses(
        (status = 200, description = "It is in use.", body = PushCertificateV1),
        (status = 202, description = "Another person is to confirm it.", body = PushProposalV1),
        (status = 404, response = Problem), (status = 409, response = Problem),
    ),
)]
async fn take_into_use(
    State(ctx): State<Arc<Context>>,
    asker: Asker,
    Path(id): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let (activation, who) = match asked::<Activation>(&ctx, &asker, body).await {
        Ok(asked) => asked,
        Err(refusal) => return refusal,
    };
    let because = match optional(activation.without_canary) {
        Ok(because) => because,
        Err(detail) => return Problem::invalid_request(detail).into_response(),
    };
    let Ok(id) = PushCertificateId::parse(&id) else {
        return Problem::push_certificate_not_found().into_response();
    };
    ordered(
        &ctx,
        activate(order(&ctx, &who), &id, because.as_deref()).await,
    )
}

/// What is taken back.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = PushCertificateRollback)]
struct Rollback {
    /// Of which topic, where there are several.
    topic: Option<String>,
}

/// Has the certificate back that was in use before, while it is valid. The present one is staged. As with
/// activation, another person may have to confirm it.
#[utoipa::path(
    post, path = "/internal/v1/push-certificates/rollback", tag = "Push certificates",
    security(("token" = ["push_cert_officer"])),
    request_body = Option<Rollback>,
    responses(
        (status = 200, description = "In use again.", body = PushCertificateV1),
        (status = 202, description = "Another person is to confirm it.", body = PushProposalV1),
        (status = 409, response = Problem),
    ),
)]
async fn take_back(
    State(ctx): State<Arc<Context>>,
    asker: Asker,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let (rollback, who) = match asked::<Rollback>(&ctx, &asker, body).await {
        Ok(asked) => asked,
        Err(refusal) => return refusal,
    };
    let topic = match rollback.topic.as_deref().map(Topic::parse).transpose() {
        Ok(topic) => topic,
        Err(fault) => return Problem::invalid_request(fault).into_response(),
    };
    ordered(&ctx, roll_back(order(&ctx, &who), topic.as_ref()).await)
}

/// Throws away a certificate that is not in use and was not the one before, and its key.
#[utoipa::path(
    post, path = "/internal/v1/push-certificates/{push_certificate_id}/discard", tag = "Push certificates",
    security(("token" = ["push_cert_officer"])),
    params(("push_certificate_id" = PushCertificateId, Path)),
    request_body = Option<Note>,
    responses(
        (status = 204, description = "It is gone."),
        (status = 404, response = Problem), (status = 409, response = Problem),
    ),
)]
async fn discard(
    State(ctx): State<Arc<Context>>,
    asker: Asker,
    Path(id): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let noted = noted(&ctx, &asker, Act::ChangePushCertificates, body).await;
    let (why, who) = match noted {
        Ok(noted) => noted,
        Err(refusal) => return refusal,
    };
    let Ok(id) = PushCertificateId::parse(&id) else {
        return Problem::push_certificate_not_found().into_response();
    };
    let (store, now) = (&ctx.store, ctx.clock.now());
    match discard_push_certificate::discard(store, &id, &why, &who, now).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(why) => not_done(why),
    }
}

/// Does what another person proposed. Whoever proposed it cannot: a person is a token, or a user of the machine.
#[utoipa::path(
    post, path = "/internal/v1/push-certificates/proposals/{push_proposal_id}/confirm", tag = "Push certificates",
    security(("token" = ["push_cert_officer"])),
    params(("push_proposal_id" = PushProposalId, Path)),
    responses(
        (status = 200, description = "In use.", body = PushCertificateV1),
        (status = 404, response = Problem), (status = 409, response = Problem),
    ),
)]
async fn confirm(
    State(ctx): State<Arc<Context>>,
    asker: Asker,
    Path(id): Path<String>,
) -> Response {
    let who = match allowed(&ctx, &asker, Act::ChangePushCertificates).await {
        Ok(caller) => caller.who(),
        Err(refusal) => return refusal,
    };
    let Ok(id) = PushProposalId::parse(&id) else {
        return Problem::push_certificate_not_found().into_response();
    };
    let now = ctx.clock.now();
    match approve_push_certificate::confirm(&ctx.store, &id, &who, now).await {
        Ok(taken) => no_store(described(taken, now)),
        Err(why) => not_done(why),
    }
}

/// Takes a proposal away, one's own or another's.
#[utoipa::path(
    post, path = "/internal/v1/push-certificates/proposals/{push_proposal_id}/withdraw", tag = "Push certificates",
    security(("token" = ["push_cert_officer"])),
    params(("push_proposal_id" = PushProposalId, Path)),
    responses((status = 204, description = "Nobody can confirm it any more."), (status = 404, response = Problem)),
)]
async fn withdraw(
    State(ctx): State<Arc<Context>>,
    asker: Asker,
    Path(id): Path<String>,
) -> Response {
    let who = match allowed(&ctx, &asker, Act::ChangePushCertificates).await {
        Ok(caller) => caller.who(),
        Err(refusal) => return refusal,
    };
    let Ok(id) = PushProposalId::parse(&id) else {
        return Problem::push_certificate_not_found().into_response();
    };
    let (store, now) = (&ctx.store, ctx.clock.now());
    match approve_push_certificate::withdraw(store, &id, &who, now).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(why) => not_done(why),
    }
}

fn order<'a>(ctx: &'a Context, who: &'a Who) -> Order<'a> {
    Order {
        store: &ctx.store,
        entropy: ctx.entropy.as_ref(),
        approval: ctx.settings.approval,
        who,
        now: ctx.clock.now(),
    }
}

fn ordered(ctx: &Context, outcome: Result<Ordered, impl Into<NotDone>>) -> Response {
    match outcome {
        Ok(Ordered::Done(taken)) => no_store(described(*taken, ctx.clock.now())),
        Ok(Ordered::Proposed(proposal)) => {
            let proposal = PushProposalV1::from(*proposal);
            (StatusCode::ACCEPTED, no_store(proposal)).into_response()
        }
        Err(why) => not_done(why),
    }
}

/// What an officer asks for, and who that is.
async fn asked<T: DeserializeOwned>(
    ctx: &Context,
    asker: &Asker,
    body: Result<Bytes, BytesRejection>,
) -> Result<(T, Who), Response> {
    let who = allowed(ctx, asker, Act::ChangePushCertificates)
        .await?
        .who();
    let Ok(body) = body else {
        return Err(Problem::request_too_large("64 KiB").into_response());
    };
    let body = if body.is_empty() { &b"{}"[..] } else { &body };
    // Derived readers take a JSON array for an object.
    let read = match body.trim_ascii_start().first() {
        Some(b'{') => serde_json::from_slice(body).map_err(|fault| fault.to_string()),
        _ => Err("the body must be a JSON object".to_owned()),
    };
    match read {
        Ok(asked) => Ok((asked, who)),
        Err(detail) => Err(Problem::invalid_request(detail).into_response()),
    }
}

fn optional(text: Option<String>) -> Result<Option<String>, String> {
    text.as_deref().map(note).transpose()
}

fn not_done(why: impl Into<NotDone>) -> Response {
    match why.into() {
        NotDone::NotFound(detail) => Problem::push_certificate_not_found()
            .detail(detail)
            .into_response(),
        NotDone::Refused { code, detail } => Problem::push_certificate_refused(code)
            .detail(detail)
            .into_response(),
        NotDone::Failed(failure) => error::to_internal(&failure),
    }
}
