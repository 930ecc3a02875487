//! An OpenID provider on this machine, by TLS: its metadata, its keys, and tokens that it signs. It can be out, change
//! its keys, or say that it is another.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use attestd_sim::certs::Issuer as Authority;
use attestd_sim::keys::KeyKind;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openssl::ec::{EcGroup, EcKey};
use openssl::ecdsa::EcdsaSig;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::sha::sha256;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::scene::Scene;

const PATH: &str = "/realms/fleet";
/// What it calls the internal API.
pub const AUDIENCE: &str = "attestd";

#[derive(Default)]
struct Inner {
    address: Mutex<String>,
    keys: Mutex<Vec<(Value, Option<PKey<Private>>)>>,
    says: Mutex<Option<String>>,
    out: AtomicBool,
    asked: AtomicUsize,
}

/// A running provider.
#[derive(Clone)]
pub struct Issuer {
    inner: Arc<Inner>,
    root: Vec<u8>,
}

/// Takes connections by TLS.
struct ByTls {
    socket: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for ByTls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok((tcp, from)) = self.socket.accept().await else {
                continue;
            };
            if let Ok(tls) = self.acceptor.accept(tcp).await {
                return (tls, from);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

impl Issuer {
    pub async fn start(now_ms: i64) -> Self {
        let authority = Authority::root("Provider", "Example", KeyKind::P256, now_ms);
        let authority = authority.expect("a root");
        let server = authority.loopback_server(now_ms).expect("a server");
        let chain = server.certificate_pem().expect("PEM");
        let key = server.key_pem().expect("PEM");
        let chain = CertificateDer::from_pem_slice(&chain).expect("a certificate");
        let key = PrivateKeyDer::from_pem_slice(&key).expect("a key");
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![chain], key)
            .expect("a certificate");
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = socket.local_addr().expect("an address");
        let inner = Arc::new(Inner::default());
        *inner.address.lock().expect("no panic") = format!("https://{address}{PATH}");
        let routes = Router::new()
            .route(
                &format!("{PATH}/.well-known/openid-configuration"),
                get(metadata),
            )
            .route("/keys", get(keys))
            .with_state(Arc::clone(&inner));
        let listener = ByTls {
            socket,
            acceptor: TlsAcceptor::from(Arc::new(config)),
        };
        tokio::spawn(async move { axum::serve(listener, routes).await });
        let root = authority.certificate_pem().expect("PEM");
        let started = Self { inner, root };
        started.has_keys(&["first"]);
        started
    }

    /// As its tokens name it.
    pub fn url(&self) -> String {
        self.inner.address.lock().expect("no panic").clone()
    }

    /// How a server is told to take its tokens.
    pub fn settings(&self, folder: &Path) -> String {
        let root = folder.join("provider.pem");
        std::fs::write(&root, &self.root).expect("written");
        format!(
            "[internal.oidc]\nissuer = \"{}\"\naudience = \"{AUDIENCE}\"\nrole_claim = \"groups\"\nroot = \"{}\"\n\
             allow_private = true\nroles = {{ viewers = \"viewer\", attestd-operators = \"operator\", \
             renewal = \"push_cert_officer\" }}\n",
            self.url(),
            root.display(),
        )
    }

    /// From now on it has other keys than before.
    pub fn has_keys(&self, names: &[&str]) {
        let made = names.iter().map(|kid| {
            let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("a curve");
            let key = PKey::from_ec_key(EcKey::generate(&group).expect("a key")).expect("a key");
            let spki = key.public_key_to_der().expect("DER");
            let (x, y) = spki[spki.len() - 64..].split_at(32);
            let jwk = json!({
                "kty": "EC", "crv": "P-256", "kid": kid, "use": "sig", "alg": "ES256",
                "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
            });
            (jwk, Some(key))
        });
        *self.inner.keys.lock().expect("no panic") = made.collect();
    }

    /// From now on it publishes these keys, which others have.
    pub fn publishes(&self, keys: &[Value]) {
        let keys = keys.iter().map(|jwk| (jwk.clone(), None));
        *self.inner.keys.lock().expect("no panic") = keys.collect();
    }

    /// From now on it answers 503, or as before.
    pub fn is_out(&self, out: bool) {
        self.inner.out.store(out, Ordering::SeqCst);
    }

    /// From now on its metadata name this issuer.
    pub fn says_it_is(&self, issuer: Option<&str>) {
        *self.inner.says.lock().expect("no panic") = issuer.map(str::to_owned);
    }

    /// How often it was asked for its metadata.
    pub fn asked(&self) -> usize {
        self.inner.asked.load(Ordering::SeqCst)
    }

    /// What it claims of somebody for an hour.
    pub fn claims(&self, scene: &Scene, subject: &str, groups: &[&str]) -> Value {
        let now = scene.now().seconds();
        json!({
            "iss": self.url(), "aud": AUDIENCE, "sub": subject, "exp": now + 3600, "iat": now,
            "groups": groups, "preferred_username": format!("{subject}@example.org"),
        })
    }

    /// A token by its key of this name.
    pub fn signs(&self, kid: &str, claims: &Value) -> String {
        let keys = self.inner.keys.lock().expect("no panic");
        let key = keys.iter().find(|(jwk, _)| jwk["kid"] == kid);
        let key = key.and_then(|(_, key)| key.as_ref()).expect("a key");
        let header = json!({ "alg": "ES256", "kid": kid, "typ": "at+jwt" });
        let parts = [&header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let signed = parts.join(".");
        let ec = key.ec_key().expect("EC");
        let signature = EcdsaSig::sign(&sha256(signed.as_bytes()), &ec).expect("signs");
        let number = |n: &openssl::bn::BigNumRef| n.to_vec_padded(32).expect("it fits");
        let signature = [number(signature.r()), number(signature.s())].concat();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// A token for somebody of these groups.
    pub fn token(&self, scene: &Scene, subject: &str, groups: &[&str]) -> String {
        let kid = self.inner.keys.lock().expect("no panic")[0].0["kid"].clone();
        let claims = self.claims(scene, subject, groups);
        self.signs(kid.as_str().expect("text"), &claims)
    }
}

async fn metadata(State(inner): State<Arc<Inner>>) -> Response {
    inner.asked.fetch_add(1, Ordering::SeqCst);
    if inner.out.load(Ordering::SeqCst) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let address = inner.address.lock().expect("no panic").clone();
    let base = address.strip_suffix(PATH).expect("its path");
    let says = inner.says.lock().expect("no panic").clone();
    let issuer = says.unwrap_or_else(|| address.clone());
    Json(json!({ "issuer": issuer, "jwks_uri": format!("{base}/keys") })).into_response()
}

async fn keys(State(inner): State<Arc<Inner>>) -> Response {
    let keys = inner.keys.lock().expect("no panic");
    let keys: Vec<_> = keys.iter().map(|(jwk, _)| jwk.clone()).collect();
    let control = [(header::CACHE_CONTROL, "public, max-age=3600")];
    (control, Json(json!({ "keys": keys }))).into_response()
}
