//! Schemas of requests that are read member by member, because a standard says what to do about each.

use utoipa::openapi::schema::{AdditionalProperties, ArrayBuilder, ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::poll::PollRequest;
use super::stream::{About, Request, Status};

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

fn closed(about: &str) -> ObjectBuilder {
    let members = AdditionalProperties::FreeForm(false);
    let object = ObjectBuilder::new().description(Some(about));
    object.additional_properties(Some(members))
}

impl ToSchema for Request {
    fn name() -> std::borrow::Cow<'static, str> {
        "StreamRequest".into()
    }
}

impl PartialSchema for Request {
    fn schema() -> RefOr<Schema> {
        let delivery = closed("By push (RFC 8935) or by poll (RFC 8936).")
            .property(
                "method",
                text().enum_values(Some([super::PUSH, super::POLL])),
            )
            .property("endpoint_url", text())
            .property("authorization_header", text())
            .required("method");
        let texts = || ArrayBuilder::new().items(text());
        let number = || ObjectBuilder::new().schema_type(Type::Integer);
        closed("A stream as its receiver wishes it; what the transmitter says may be repeated, and not changed.")
            .property("stream_id", text())
            .property("iss", text())
            .property("aud", text())
            .property("delivery", delivery)
            .property("events_supported", texts())
            .property("events_requested", texts())
            .property("events_delivered", texts())
            .property("min_verification_interval", number())
            .property("inactivity_timeout", number())
            .property("description", text())
            .into()
    }
}

impl ToSchema for About {
    fn name() -> std::borrow::Cow<'static, str> {
        "StreamQuestion".into()
    }
}

impl PartialSchema for About {
    fn schema() -> RefOr<Schema> {
        let subject = ObjectBuilder::new()
            .schema_type(Type::Object)
            .description(Some("A subject identifier (RFC 9493)."));
        closed("A question about one stream; which of the members counts, the path says.")
            .property("stream_id", text())
            .property("status", Status::schema())
            .property("reason", text())
            .property("subject", subject)
            .property("verified", ObjectBuilder::new().schema_type(Type::Boolean))
            .property("state", text())
            .required("stream_id")
            .into()
    }
}

impl ToSchema for PollRequest {}

impl PartialSchema for PollRequest {
    fn schema() -> RefOr<Schema> {
        let most = ObjectBuilder::new().schema_type(Type::Integer);
        let error = ObjectBuilder::new()
            .property("err", text())
            .property("description", text())
            .required("err");
        let errors = ObjectBuilder::new()
            .schema_type(Type::Object)
            .additional_properties(Some(Schema::from(error)));
        closed("What a receiver asks for, and tells (RFC 8936 section 2.2).")
            .property("maxEvents", most.minimum(Some(0)))
            .property(
                "returnImmediately",
                ObjectBuilder::new().schema_type(Type::Boolean),
            )
            .property("ack", ArrayBuilder::new().items(text()))
            .property("setErrs", errors)
            .into()
    }
}
