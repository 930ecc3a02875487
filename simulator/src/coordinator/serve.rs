//! The coordinator's own HTTP: completions, and what is public, on one origin.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::reply::{refusal, reply};
use super::{CoordinatorError, Shared};

pub(super) type Body = BoxBody<Bytes, Infallible>;

/// The longest request for a completion.
const LONGEST: usize = 1024 * 1024;
/// How long a client may take for the head of its request.
const HEAD: Duration = Duration::from_secs(10);

/// What anybody may read without being anybody; all of it is the server's.
const PUBLIC: [&str; 7] = [
    "/v1/providers/",
    "/v1/evidence/",
    "/log/",
    "/v1/policies/",
    "/v1/releases",
    "/.well-known/jwks.json",
    "/.well-known/jwks-history.json",
];

/// Headers that are passed on to the server, and back from it: the bytes stay as they are.
const THERE: [HeaderName; 2] = [header::IF_NONE_MATCH, header::ACCEPT_ENCODING];
const BACK: [HeaderName; 7] = [
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::ETAG,
    header::CACHE_CONTROL,
    header::VARY,
    header::RETRY_AFTER,
    HeaderName::from_static("content-digest"),
];

/// The way to the server's public side.
#[derive(Debug)]
pub(super) struct Public {
    client: reqwest::Client,
    url: String,
}

impl Public {
    pub(super) fn new(url: &str, root: Option<&[u8]>) -> Result<Self, CoordinatorError> {
        let none = reqwest::redirect::Policy::none();
        let mut client = reqwest::Client::builder().no_proxy().redirect(none);
        if let Some(root) = root {
            client = client.tls_certs_only([reqwest::Certificate::from_pem(root)?]);
        }
        Ok(Self {
            client: client.timeout(Duration::from_secs(30)).build()?,
            url: url.to_owned(),
        })
    }

    async fn pass_on(
        &self,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<Response<Body>, reqwest::Error> {
        let mut request = self.client.get(format!("{}{path}", self.url));
        for name in THERE {
            if let Some(value) = headers.get(&name) {
                request = request.header(name, value.clone());
            }
        }
        let answer = request.send().await?;
        let (status, mut told) = (answer.status(), answer.headers().clone());
        let mut response = Response::new(Full::new(answer.bytes().await?).boxed());
        *response.status_mut() = status;
        for name in BACK {
            if let Some(value) = told.remove(&name) {
                response.headers_mut().insert(name, value);
            }
        }
        Ok(response)
    }
}

pub(super) async fn listen(shared: Arc<Shared>, listener: TcpListener, stop: CancellationToken) {
    loop {
        match listener.accept().await {
            Ok((connection, _)) => {
                let served = serve(Arc::clone(&shared), connection);
                let stop = stop.clone();
                tokio::spawn(async move { stop.run_until_cancelled_owned(served).await });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve(shared: Arc<Shared>, connection: TcpStream) {
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(answer(&shared, request).await) }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    let http1 = &mut builder.http1();
    http1.timer(TokioTimer::new()).header_read_timeout(HEAD);
    if let Err(error) = builder
        .serve_connection(TokioIo::new(connection), service)
        .await
    {
        tracing::debug!(%error, "a connection ended early");
    }
}

async fn answer(shared: &Shared, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path();
    let is_public = PUBLIC.iter().any(|public| path.starts_with(public));
    let is_read = [Method::GET, Method::HEAD].contains(request.method());
    match path {
        "/v1/chat/completions" if request.method() == Method::POST => {
            complete(shared, request).await
        }
        _ if is_public && is_read => {
            let path = request
                .uri()
                .path_and_query()
                .map_or(path, |path| path.as_str());
            let passed = shared.public.pass_on(path, request.headers()).await;
            passed.unwrap_or_else(|error| {
                tracing::warn!(%error, "what is public cannot be had");
                refusal(
                    StatusCode::BAD_GATEWAY,
                    "bad_gateway",
                    "The server did not answer.",
                )
            })
        }
        "/v1/chat/completions" => refused(StatusCode::METHOD_NOT_ALLOWED, "POST a request."),
        _ if is_public => refused(StatusCode::METHOD_NOT_ALLOWED, "GET it."),
        _ => refused(StatusCode::NOT_FOUND, "There is nothing here."),
    }
}

fn refused(status: StatusCode, message: &str) -> Response<Body> {
    refusal(status, "invalid_request_error", message)
}

/// One request for a completion, whoever asks: accounts are not what is shown here.
async fn complete(shared: &Shared, request: Request<Incoming>) -> Response<Body> {
    let body = match Limited::new(request.into_body(), LONGEST).collect().await {
        Ok(body) => body.to_bytes(),
        Err(fault) if fault.is::<http_body_util::LengthLimitError>() => {
            return refused(StatusCode::PAYLOAD_TOO_LARGE, "The request is too large.");
        }
        Err(_) => return refused(StatusCode::BAD_REQUEST, "The request broke off."),
    };
    let asked: Value = match serde_json::from_slice(&body) {
        Ok(asked) => asked,
        Err(fault) => return refused(StatusCode::BAD_REQUEST, &format!("No JSON: {fault}.")),
    };
    let has_messages = asked["messages"]
        .as_array()
        .is_some_and(|messages| !messages.is_empty());
    let is_streamed = match asked.get("stream") {
        None | Some(Value::Null) => Some(false),
        Some(stream) => stream.as_bool(),
    };
    let Some(is_streamed) = is_streamed.filter(|_| asked["model"].is_string() && has_messages)
    else {
        return refused(
            StatusCode::BAD_REQUEST,
            "model, messages or stream is not as it must be.",
        );
    };
    let Some(dispatched) = shared.dispatch() else {
        let mut response = refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            "no_provider",
            "No provider may be sent a request now.",
        );
        let later = http::HeaderValue::from_static("5");
        response.headers_mut().insert(header::RETRY_AFTER, later);
        return response;
    };
    let asked = match is_streamed {
        true => asked,
        // One word for both ways not to ask for it.
        false => with(asked, "stream", json!(false)),
    };
    let replied = dispatched.provider.complete(&asked).ok();
    let replied = replied.and_then(|completion| reply(&dispatched, completion, is_streamed));
    replied.unwrap_or_else(|| {
        let unsigned = "The provider's reply is not signed by its key.";
        refusal(StatusCode::BAD_GATEWAY, "bad_gateway", unsigned)
    })
}

fn with(mut object: Value, name: &str, value: Value) -> Value {
    object[name] = value;
    object
}
