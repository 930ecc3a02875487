//! A server that answers as APNs does, or as a test wants it to.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode};
use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509Builder, X509NameBuilder};
use rustls::RootCertStore;
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::push::{AcceptedPushCertificate, PushCertificate};
use crate::secret::Secret;
use crate::time::Timestamp;

/// One authority that certifies the server and the pushers.
pub struct Authority {
    key: PKey<Private>,
    certificate: X509,
}

/// What the server saw of one push.
#[derive(Debug, Clone)]
pub struct Seen {
    pub connection: usize,
    pub method: Method,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// SHA-256 of the client certificate.
    pub certificate: [u8; 32],
}

/// How the server answers one push.
pub struct Reply {
    pub status: u16,
    pub body: &'static str,
    pub after: Duration,
}

/// How the server treats its connections.
#[derive(Clone)]
pub struct Manner {
    pub streams: u32,
    /// Ends a connection in good order after so many pushes.
    pub goaway_after: Option<usize>,
    /// Cuts a connection without a word after so many pushes.
    pub cut_after: Option<usize>,
    /// Refuses every so many-th stream unprocessed.
    pub refuse_every: Option<usize>,
}

pub struct Double {
    pub port: u16,
    pub seen: Arc<Mutex<Vec<Seen>>>,
    pub connections: Arc<AtomicUsize>,
    /// Whether client certificates are refused, as APNs refuses a revoked one.
    pub distrusts: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

type Answer = dyn Fn(&Seen) -> Reply + Send + Sync;

impl Reply {
    pub fn ok() -> Self {
        Self::with(200, "")
    }

    pub fn with(status: u16, body: &'static str) -> Self {
        Self {
            status,
            body,
            after: Duration::ZERO,
        }
    }
}

impl Default for Manner {
    fn default() -> Self {
        Self {
            streams: 1000,
            goaway_after: None,
            cut_after: None,
            refuse_every: None,
        }
    }
}

impl Authority {
    pub fn new() -> Self {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("a group");
        let key = PKey::from_ec_key(EcKey::generate(&group).expect("a key")).expect("a key");
        // Another name each, so that a stranger's certificate is unknown rather than badly signed.
        let name = hex::encode(crate::entropy::draw::<8>(
            &crate::entropy::OsEntropy::default(),
        ));
        let certificate = issue(&[("CN", &name)], &key, None, None);
        Self { key, certificate }
    }

    pub fn pem(&self) -> Vec<u8> {
        self.certificate.to_pem().expect("pem")
    }

    /// A push certificate for `topic`, with its key in PKCS #8.
    pub fn pusher(&self, topic: &str) -> (AcceptedPushCertificate, Secret<Vec<u8>>) {
        let key = PKey::from_rsa(Rsa::generate(2048).expect("a key")).expect("a key");
        let subject = [("UID", topic), ("CN", "APSP:test")];
        let pem = issue(&subject, &key, Some(self), None)
            .to_pem()
            .expect("pem");
        let spki = key.public_key_to_der().expect("der");
        let certificate = PushCertificate::read(&pem).expect("a push certificate");
        let now = certificate.not_before().plus(Duration::from_secs(60));
        let accepted = certificate.accept(&spki, now).expect("accepted");
        (
            accepted,
            Secret::new(key.private_key_to_pkcs8().expect("der")),
        )
    }

    fn server(&self) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("a group");
        let key = PKey::from_ec_key(EcKey::generate(&group).expect("a key")).expect("a key");
        let certificate = issue(&[("CN", "server")], &key, Some(self), Some("127.0.0.1"));
        let key = PrivatePkcs8KeyDer::from(key.private_key_to_pkcs8().expect("der"));
        (certificate.to_der().expect("der").into(), key.into())
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots
            .add(self.certificate.to_der().expect("der").into())
            .expect("a root");
        Arc::new(roots)
    }
}

fn issue(
    subject: &[(&str, &str)],
    key: &PKey<Private>,
    issuer: Option<&Authority>,
    address: Option<&str>,
) -> X509 {
    let mut name = X509NameBuilder::new().expect("a name");
    for (field, value) in subject {
        name.append_entry_by_text(field, value).expect("set");
    }
    let name = name.build();
    let mut builder = X509Builder::new().expect("a builder");
    builder.set_version(2).expect("set");
    let mut serial = BigNum::new().expect("a number");
    serial
        .rand(64, openssl::bn::MsbOption::ONE, false)
        .expect("random");
    builder
        .set_serial_number(&serial.to_asn1_integer().expect("a number"))
        .expect("set");
    builder.set_subject_name(&name).expect("set");
    builder
        .set_issuer_name(issuer.map_or(&name, |issuer| issuer.certificate.subject_name()))
        .expect("set");
    builder.set_pubkey(key).expect("set");
    let day = |days| Asn1Time::days_from_now(days).expect("a time");
    builder.set_not_before(&day(0)).expect("set");
    builder.set_not_after(&day(30)).expect("set");
    if issuer.is_none() {
        let ca = BasicConstraints::new()
            .critical()
            .ca()
            .build()
            .expect("built");
        builder.append_extension(ca).expect("set");
    }
    if let Some(address) = address {
        let context = builder.x509v3_context(None, None);
        let names = SubjectAlternativeName::new()
            .ip(address)
            .build(&context)
            .expect("built");
        builder.append_extension(names).expect("set");
    }
    builder
        .sign(
            issuer.map_or(key, |issuer| &issuer.key),
            MessageDigest::sha256(),
        )
        .expect("signed");
    builder.build()
}

impl Double {
    pub async fn start(
        authority: &Authority,
        manner: Manner,
        answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = |trusted: &Authority| {
            let verifier =
                WebPkiClientVerifier::builder_with_provider(trusted.roots(), Arc::clone(&provider))
                    .build()
                    .expect("a verifier");
            let (certificate, key) = authority.server();
            let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
                .with_safe_default_protocol_versions()
                .expect("versions")
                .with_client_cert_verifier(verifier)
                .with_single_cert(vec![certificate], key)
                .expect("a certificate");
            config.alpn_protocols = vec![b"h2".to_vec()];
            TlsAcceptor::from(Arc::new(config))
        };
        let (trusting, distrusting) = (config(authority), config(&Authority::new()));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(AtomicUsize::new(0));
        let distrusts = Arc::new(AtomicBool::new(false));
        let answer: Arc<Answer> = Arc::new(answer);
        let task = tokio::spawn({
            let (seen, connections) = (Arc::clone(&seen), Arc::clone(&connections));
            let distrusts = Arc::clone(&distrusts);
            async move {
                while let Ok((tcp, _)) = listener.accept().await {
                    let connection = connections.fetch_add(1, Ordering::SeqCst) + 1;
                    let acceptor = if distrusts.load(Ordering::SeqCst) {
                        distrusting.clone()
                    } else {
                        trusting.clone()
                    };
                    let serving = Serving {
                        connection,
                        manner: manner.clone(),
                        answer: Arc::clone(&answer),
                        seen: Arc::clone(&seen),
                    };
                    tokio::spawn(serving.serve(acceptor, tcp));
                }
            }
        });
        Self {
            port,
            seen,
            connections,
            distrusts,
            task,
        }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("not poisoned").clone()
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Clone)]
struct Serving {
    connection: usize,
    manner: Manner,
    answer: Arc<Answer>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Serving {
    async fn serve(self, acceptor: TlsAcceptor, tcp: TcpStream) {
        tcp.set_nodelay(true).expect("set");
        let Ok(tls) = acceptor.accept(tcp).await else {
            return;
        };
        let certificate = tls
            .get_ref()
            .1
            .peer_certificates()
            .map(|chain| crate::ids::sha256(&chain[0]))
            .expect("the client has a certificate");
        let mut http = h2::server::Builder::new()
            .max_concurrent_streams(self.manner.streams)
            .handshake::<_, Bytes>(tls)
            .await
            .expect("HTTP/2");
        let mut pushes = 0;
        while let Some(accepted) = http.accept().await {
            let Ok((request, mut respond)) = accepted else {
                return;
            };
            pushes += 1;
            if self
                .manner
                .refuse_every
                .is_some_and(|every| pushes % every == 0)
            {
                respond.send_reset(h2::Reason::REFUSED_STREAM);
                continue;
            }
            tokio::spawn(self.clone().answer(certificate, request, respond));
            if self.manner.cut_after == Some(pushes) {
                return;
            }
            if self.manner.goaway_after == Some(pushes) {
                http.graceful_shutdown();
            }
        }
    }

    async fn answer(
        self,
        certificate: [u8; 32],
        request: http::Request<h2::RecvStream>,
        mut respond: h2::server::SendResponse<Bytes>,
    ) {
        let (head, mut stream) = request.into_parts();
        let mut body = Vec::new();
        while let Some(Ok(piece)) = stream.data().await {
            body.extend_from_slice(&piece);
        }
        let seen = Seen {
            connection: self.connection,
            method: head.method,
            path: head.uri.path().to_owned(),
            headers: head.headers,
            body: body.into(),
            certificate,
        };
        let reply = (self.answer)(&seen);
        tokio::time::sleep(reply.after).await;
        let id = seen.headers["apns-id"].clone();
        self.seen.lock().expect("not poisoned").push(seen);
        let response = Response::builder()
            .status(StatusCode::from_u16(reply.status).expect("a status"))
            .header("apns-id", id)
            .body(())
            .expect("a response");
        // The client may have gone.
        if let Ok(mut stream) = respond.send_response(response, reply.body.is_empty())
            && !reply.body.is_empty()
        {
            drop(stream.send_data(Bytes::from_static(reply.body.as_bytes()), true));
        }
    }
}

/// A time within the dates of everything issued here.
pub fn now() -> Timestamp {
    Timestamp::from_seconds(1_800_000_000)
}
