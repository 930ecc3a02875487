//! Spans as OpenTelemetry's protocol writes them (OTLP 1, `ExportTraceServiceRequest` in protobuf).

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span as Written};
use prost::Message as _;

use super::traces::Span;
use crate::time::Timestamp;

/// The body of a request with these spans, of the service of this name.
pub fn body(spans: &[Span], server_id: &str) -> Vec<u8> {
    let resource = Resource {
        attributes: vec![
            text("service.name", "attestd"),
            text("service.namespace", server_id),
            text("service.version", env!("CARGO_PKG_VERSION")),
        ],
        ..Resource::default()
    };
    let scope = InstrumentationScope {
        name: "attestd".to_owned(),
        ..InstrumentationScope::default()
    };
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource),
            scope_spans: vec![ScopeSpans {
                scope: Some(scope),
                spans: spans.iter().map(written).collect(),
                schema_url: String::new(),
            }],
            schema_url: String::new(),
        }],
    };
    request.encode_to_vec()
}

fn written(span: &Span) -> Written {
    let fields = span.fields.iter();
    Written {
        trace_id: span.trace.0.to_vec(),
        span_id: span.id.0.to_vec(),
        parent_span_id: span.parent.map(|it| it.0.to_vec()).unwrap_or_default(),
        name: span.name.to_owned(),
        kind: SpanKind::Internal.into(),
        start_time_unix_nano: nanoseconds(span.from),
        end_time_unix_nano: nanoseconds(span.to),
        attributes: fields.map(|(name, value)| text(name, value)).collect(),
        ..Written::default()
    }
}

fn nanoseconds(time: Timestamp) -> u64 {
    let millis = u64::try_from(time.millis()).unwrap_or_default();
    millis.saturating_mul(1_000_000)
}

fn text(key: &str, value: &str) -> KeyValue {
    let value = Value::StringValue(value.to_owned());
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}
