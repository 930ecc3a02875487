//! A collector of traces that speaks OTLP over HTTP, on this machine.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::net::TcpListener;

/// A span as it arrived.
#[derive(Debug, Clone, PartialEq)]
pub struct Collected {
    pub trace: Vec<u8>,
    pub id: Vec<u8>,
    pub parent: Vec<u8>,
    pub name: String,
    pub from_ms: u64,
    pub to_ms: u64,
    pub fields: BTreeMap<String, String>,
}

#[derive(Default)]
struct Inner {
    bodies: Mutex<Vec<(HeaderMap, Bytes)>>,
    status: Mutex<u16>,
}

/// A running collector; it takes everything until it is told otherwise.
pub struct Collector {
    inner: Arc<Inner>,
    address: SocketAddr,
}

impl Collector {
    pub async fn start() -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = socket.local_addr().expect("an address");
        let inner = Arc::new(Inner::default());
        *inner.status.lock().expect("no panic") = 200;
        let take = async |State(inner): State<Arc<Inner>>, headers: HeaderMap, body: Bytes| {
            let status = *inner.status.lock().expect("no panic");
            inner.bodies.lock().expect("no panic").push((headers, body));
            StatusCode::from_u16(status).expect("a status")
        };
        let routes = Router::new()
            .route("/otlp/v1/traces", post(take))
            .with_state(Arc::clone(&inner));
        tokio::spawn(async move { axum::serve(socket, routes).await });
        Self { inner, address }
    }

    /// The table of a server's settings that names it.
    pub fn table(&self) -> String {
        format!(
            "[telemetry]\notlp_endpoint = \"http://{}/otlp\"\n",
            self.address
        )
    }

    /// From now on this is answered.
    pub fn answers(&self, status: u16) {
        *self.inner.status.lock().expect("no panic") = status;
    }

    /// What arrived, as it arrived.
    pub fn bodies(&self) -> Vec<(HeaderMap, Bytes)> {
        self.inner.bodies.lock().expect("no panic").clone()
    }

    /// Every span that arrived.
    pub fn spans(&self) -> Vec<Collected> {
        let mut spans = Vec::new();
        for (_, body) in self.bodies() {
            let request = ExportTraceServiceRequest::decode(body).expect("protobuf");
            for resource in request.resource_spans {
                let of = resource.resource.expect("a resource").attributes;
                assert_eq!(read(&of)["service.name"], "attestd");
                let scopes = resource.scope_spans.into_iter();
                spans.extend(scopes.flat_map(|it| it.spans).map(collected));
            }
        }
        spans
    }
}

fn collected(span: Span) -> Collected {
    assert_eq!((span.trace_id.len(), span.span_id.len()), (16, 8));
    Collected {
        trace: span.trace_id,
        id: span.span_id,
        parent: span.parent_span_id,
        name: span.name,
        from_ms: span.start_time_unix_nano / 1_000_000,
        to_ms: span.end_time_unix_nano / 1_000_000,
        fields: read(&span.attributes),
    }
}

fn read(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |it: &KeyValue| match it.value.as_ref().and_then(|it| it.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        other => unreachable!("{other:?}"),
    };
    let attributes = attributes.iter();
    attributes.map(|it| (it.key.clone(), text(it))).collect()
}
