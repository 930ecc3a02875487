//! The description of the API (OpenAPI 3.1): made from the routes and the types they speak, one document for
//! each listener. What a handler does not say of itself, because it follows from the form of its request,
//! is added here.

mod answers;
mod elsewhere;

use std::sync::LazyLock;

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use utoipa::openapi::path::Operation;
use utoipa::openapi::request_body::RequestBody;
use utoipa::openapi::security::{
    ClientCredentials, Flow, HttpAuthScheme, HttpBuilder, OAuth2, Scopes, SecurityScheme,
};
use utoipa::openapi::tag::{Tag, TagBuilder};
use utoipa::openapi::{
    Components, ComponentsBuilder, InfoBuilder, LicenseBuilder, OpenApi, PathItem, RefOr, Schema,
};

pub use self::answers::{Later, Octets, Unauthorized};
pub use self::elsewhere::Elsewhere;

/// What the listener for Macs and the world answers in JSON.
pub static PUBLIC: LazyLock<String> = LazyLock::new(|| {
    let (routes, _) = super::public_routes();
    let mut document = routes.into_openapi();
    document.info = info("attestd, public", PUBLIC_IS);
    document.tags = Some(tags(PUBLIC_TAGS));
    written(document, ComponentsBuilder::new().build())
});

/// What the listener for coordinator and operators answers in JSON.
pub static INTERNAL: LazyLock<String> = LazyLock::new(|| {
    let (routes, _) = super::internal_routes(true);
    let mut document = routes.into_openapi();
    document.info = info("attestd, internal", INTERNAL_IS);
    document.tags = Some(tags(INTERNAL_TAGS));
    written(document, schemes())
});

const PUBLIC_IS: &str = "What anybody may ask: profiles, releases, the feed of providers, evidence, keys. Not JSON, and \
not described here: Apple's device management protocol, SCEP, ACME, the pages for people.";
const INTERNAL_IS: &str = "What coordinator, operators, auditors and receivers of shared signals ask. Never reachable \
from outside.";

const PUBLIC_TAGS: &[(&str, &str)] = &[
    (
        "Enrolment",
        "Profiles for Macs, and how far an enrolment is.",
    ),
    ("Releases", "Which programs of the provider there are."),
    (
        "Feed",
        "Which providers are connected, and what is believed of each.",
    ),
    ("Evidence", "What proves it."),
    ("Keys and policies", "What signed results are checked by."),
    ("Shared signals", "Where the streams of shared signals are."),
    ("Service", "The service itself."),
];
const INTERNAL_TAGS: &[(&str, &str)] = &[
    (
        "Macs",
        "Macs, what is believed of each, and trust withdrawn.",
    ),
    ("Verifications", "Fresh evidence, asked for."),
    (
        "Sessions",
        "Provider sessions: one process of the provider software each.",
    ),
    (
        "Challenges",
        "Whether the holder of a session's key is still there.",
    ),
    ("Events", "What happens, as it happens."),
    (
        "Releases",
        "Which programs of the provider may be routed to.",
    ),
    ("Enrolment", "Profiles for somebody the coordinator knows."),
    (
        "Push certificates",
        "The yearly certificate by which Macs are woken.",
    ),
    (
        "Shared signals",
        "Streams for receivers of OpenID Shared Signals.",
    ),
    (
        "MicroMDM",
        "The interface of a coordinator written for MicroMDM; off unless configured.",
    ),
    ("Service", "The service itself."),
];

fn info(title: &str, about: &str) -> utoipa::openapi::Info {
    let license = LicenseBuilder::new()
        .name(env!("CARGO_PKG_LICENSE"))
        .identifier(Some(env!("CARGO_PKG_LICENSE")));
    InfoBuilder::new()
        .title(title)
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(about))
        .license(Some(license.build()))
        .build()
}

fn tags(named: &[(&str, &str)]) -> Vec<Tag> {
    let tag = |(name, about): &(&str, &str)| {
        let tag = TagBuilder::new().name(*name).description(Some(*about));
        tag.build()
    };
    named.iter().map(tag).collect()
}

/// How whoever asks is known.
fn schemes() -> Components {
    let http = |scheme, about: &str| {
        let scheme = HttpBuilder::new().scheme(scheme).description(Some(about));
        SecurityScheme::Http(scheme.build())
    };
    let scopes = Scopes::from_iter([
        ("ssf.read", "See the stream, and take its tokens."),
        ("ssf.manage", "Change the stream."),
    ]);
    let receivers = Flow::ClientCredentials(ClientCredentials::new("/ssf/token", scopes));
    ComponentsBuilder::new()
        .security_scheme("token", http(HttpAuthScheme::Bearer, TOKEN))
        .security_scheme("release_key", http(HttpAuthScheme::Bearer, RELEASE_KEY))
        .security_scheme("client", http(HttpAuthScheme::Basic, CLIENT))
        .security_scheme("micromdm", http(HttpAuthScheme::Basic, MICROMDM))
        .security_scheme("receiver", SecurityScheme::OAuth2(OAuth2::new([receivers])))
        .build()
}

const TOKEN: &str = "A token that `attestd token create --role …` made. A requirement lists the roles that will do. \
Or an access token (RFC 9068) of the OpenID provider that the settings name, whose bearer has one of these roles there.";
const RELEASE_KEY: &str =
    "The key in `releases.key_file`: registers releases, and does nothing else.";
const CLIENT: &str =
    "Id and secret of a receiver (`attestd receiver add`); they may stand in the form instead.";
const MICROMDM: &str = "The user `micromdm`, and the key in `micromdm.key_file`.";

fn written(mut document: OpenApi, mut components: Components) -> String {
    answers::add(&mut components);
    let found = document.components.take().unwrap_or_default();
    components.schemas.extend(found.schemas);
    document.components = Some(components);
    for (path, item) in &mut document.paths.paths {
        for (method, operation) in operations(item) {
            complete(path, method, operation);
        }
    }
    // Nothing in it has a key that is no text. Links of Rust's documentation lead nowhere here.
    let text = document.to_pretty_json().unwrap_or_default();
    let mut text = text.replace("[`", "`").replace("`]", "`");
    text.push('\n');
    text
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (&'static str, &mut Operation)> {
    let all = [
        ("get", &mut item.get),
        ("put", &mut item.put),
        ("post", &mut item.post),
        ("patch", &mut item.patch),
        ("delete", &mut item.delete),
    ];
    let each = all.into_iter();
    each.filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

/// Adds what follows from the form of a request, where the handler says nothing else of it.
fn complete(path: &str, method: &str, operation: &mut Operation) {
    let place = path.split(|c: char| !c.is_ascii_alphanumeric());
    let place = place.filter(|word| !word.is_empty());
    let id: Vec<_> = std::iter::once(method).chain(place).collect();
    operation.operation_id = Some(id.join("_"));
    let mut follows = vec![("500", "Problem"), ("503", "Later")];
    if operation.security.is_some() {
        follows.extend([("401", "Unauthorized"), ("403", "Problem")]);
    }
    if operation.parameters.is_some() || operation.request_body.is_some() {
        follows.push(("400", "Problem"));
    }
    if operation.request_body.is_some() {
        follows.push(("413", "Problem"));
    }
    if let Some(RefOr::T(body)) = &mut operation.request_body {
        may_be_absent(body);
    }
    for (status, answer) in follows {
        let answer = utoipa::openapi::Ref::from_response_name(answer);
        let answers = &mut operation.responses.responses;
        answers.entry(status.to_owned()).or_insert(answer.into());
    }
}

/// A body that may be absent is not for that `null`, as `Option` has it.
fn may_be_absent(body: &mut RequestBody) {
    for content in body.content.values_mut() {
        if let RefOr::T(content) = content
            && let Some(RefOr::T(Schema::OneOf(either))) = &content.schema
            && let Some(something @ RefOr::Ref(_)) = either.items.first()
        {
            content.schema = Some(something.clone());
        }
    }
}

/// The description of the public listener.
#[utoipa::path(get, path = "/openapi.json", tag = "Service",
    responses((status = 200, description = "This document.", body = serde_json::Value)))]
pub async fn public() -> Response {
    answer(&PUBLIC)
}

/// The description of the internal listener. It says what every copy of the program says, so it is no secret.
#[utoipa::path(get, path = "/internal/v1/openapi.json", tag = "Service",
    responses((status = 200, description = "This document.", body = serde_json::Value)))]
pub async fn internal() -> Response {
    answer(&INTERNAL)
}

fn answer(document: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "public, max-age=300"),
    ];
    let headers = headers.map(|(name, value)| (name, HeaderValue::from_static(value)));
    (headers, document).into_response()
}
