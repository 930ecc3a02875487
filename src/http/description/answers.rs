//! Refusals, described once: problem details (RFC 9457), with the headers that go with a status.

use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{Components, ContentBuilder, HeaderBuilder, Ref, RefOr, Response};
use utoipa::{PartialSchema, ToResponse, ToSchema};

use crate::http::problem::{Details, Problem};
use crate::reason::Reason;

/// A problem that says how one is let in.
#[derive(Debug, Clone, Copy)]
pub struct Unauthorized;

/// A problem that passes.
#[derive(Debug, Clone, Copy)]
pub struct Later;

/// Octets that are no text.
#[derive(Debug, Clone, Copy)]
pub struct Octets;

impl ToSchema for Octets {}

impl PartialSchema for Octets {
    fn schema() -> RefOr<utoipa::openapi::Schema> {
        let octets = ObjectBuilder::new().schema_type(Type::String);
        let binary = SchemaFormat::KnownFormat(KnownFormat::Binary);
        octets.format(Some(binary)).into()
    }
}

fn problem(about: &str) -> ResponseBuilder {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(Details::name())));
    ResponseBuilder::new()
        .description(about)
        .content("application/problem+json", content.build())
}

fn header(
    schema: impl Into<RefOr<utoipa::openapi::Schema>>,
    about: &str,
) -> utoipa::openapi::Header {
    let header = HeaderBuilder::new().schema(Some(schema));
    header.description(Some(about)).build()
}

impl<'r> ToResponse<'r> for Problem {
    fn response() -> (&'r str, RefOr<Response>) {
        (
            "Problem",
            problem("Why not: its `type` is stable.").build().into(),
        )
    }
}

impl<'r> ToResponse<'r> for Unauthorized {
    fn response() -> (&'r str, RefOr<Response>) {
        let scheme = header(String::schema(), "How one is let in.");
        let answer = problem("Who asks is not known.").header("WWW-Authenticate", scheme);
        ("Unauthorized", answer.build().into())
    }
}

impl<'r> ToResponse<'r> for Later {
    fn response() -> (&'r str, RefOr<Response>) {
        let wait = header(u32::schema(), "Seconds.");
        let answer = problem("Not now; ask again.").header("Retry-After", wait);
        ("Later", answer.build().into())
    }
}

/// Puts them among the components, with what they are made of.
pub fn add(components: &mut Components) {
    let answers = [
        Problem::response(),
        Unauthorized::response(),
        Later::response(),
    ];
    for (name, answer) in answers {
        components.responses.insert(name.to_owned(), answer);
    }
    for (name, schema) in [
        (Details::name(), Details::schema()),
        (Reason::name(), Reason::schema()),
    ] {
        components.schemas.insert(name.into_owned(), schema);
    }
}
