//! A small MDM server for the simulator's own tests: enough SCEP and MDM to answer a Mac, and
//! OpenSSL to check what the Mac sends. Not a model of how a server should be.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use openssl::hash::MessageDigest;
use openssl::pkcs7::{Pkcs7, Pkcs7Flags};
use openssl::stack::Stack;
use openssl::symm::Cipher;
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::{X509, X509Req};
use plist::{Dictionary, Value};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::certs::{self, Issuer};
use crate::clock::{Clock, DAY_MS};
use crate::cms::{self, SignatureDigest};
use crate::der::{self, sequence, tag, tlv};
use crate::keys::KeyKind;
use crate::plist_xml::{PlistStyle, dictionary, write};
use crate::tls;

/// How the SCEP side behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum ScepMode {
    #[default]
    Issue,
    PendingOnce,
    Refuse,
    /// The reply is signed by somebody else.
    Foreign,
    /// HTTP 500.
    Broken,
}

/// One message a Mac sent.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) body: Bytes,
    /// The signer's certificate, where the signature was right over exactly this body.
    pub(crate) signer: Option<Vec<u8>>,
}

impl Seen {
    pub(crate) fn plist(&self) -> Dictionary {
        plist::from_bytes::<Value>(&self.body)
            .unwrap()
            .into_dictionary()
            .unwrap()
    }

    pub(crate) fn text(&self, key: &str) -> String {
        self.plist()
            .get(key)
            .and_then(Value::as_string)
            .unwrap_or_default()
            .to_owned()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Stage {
    pub(crate) scep: ScepMode,
    /// GetCACaps leaves Renewal out.
    pub(crate) hides_renewal: bool,
    /// The SCEP messages, oldest first.
    pub(crate) scep_seen: Vec<Bytes>,
    /// Directory and ClientIdentifier of an ACME payload, in place of SCEP's.
    pub(crate) acme: Option<(String, String)>,
    /// What asked for a profile, oldest first.
    pub(crate) enroll_seen: Vec<serde_json::Value>,
    /// Refuses every member of that but the serial number.
    pub(crate) knows_only_serials: bool,
    pub(crate) access_rights: i64,
    pub(crate) capabilities: Vec<&'static str>,
    /// Commands to hand over, oldest first.
    pub(crate) commands: VecDeque<Dictionary>,
    /// Answers to the next messages instead of the normal ones.
    pub(crate) forced: VecDeque<(u16, &'static str)>,
    pub(crate) seen: Vec<Seen>,
    /// The request that waits for GetCertInitial.
    pending: Option<Vec<u8>>,
}

#[derive(Debug, Clone)]
pub(crate) struct Rehearsal {
    pub(crate) url: String,
    pub(crate) root_pem: Vec<u8>,
    pub(crate) device_ca: Issuer,
    topic: String,
    stage: Arc<Mutex<Stage>>,
}

impl Rehearsal {
    pub(crate) async fn start(topic: &str) -> Self {
        let now = Clock::system().now_ms();
        let root = Issuer::root("Server Root", "Test", KeyKind::P256, now).unwrap();
        let device_ca = Issuer::root("Device CA", "Test", KeyKind::Rsa2048, now).unwrap();
        let identity = root.loopback_server(now).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![tls::der(&identity.certificate).unwrap()],
                tls::private_key(&identity).unwrap(),
            )
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!(
            "https://localhost:{}",
            listener.local_addr().unwrap().port()
        );
        let stage = Stage {
            access_rights: 1041,
            ..Stage::default()
        };
        let rehearsal = Self {
            url,
            root_pem: root.certificate_pem().unwrap(),
            device_ca,
            topic: topic.to_owned(),
            stage: Arc::new(Mutex::new(stage)),
        };
        let server = rehearsal.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, server) = (acceptor.clone(), server.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let service = service_fn(move |request| {
                        let server = server.clone();
                        async move { Ok::<_, Infallible>(server.answer(request).await) }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        rehearsal
    }

    pub(crate) fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap()
    }

    /// The messages of one path, oldest first.
    pub(crate) fn seen(&self, path: &str) -> Vec<Seen> {
        self.stage()
            .seen
            .iter()
            .filter(|seen| seen.path == path)
            .cloned()
            .collect()
    }

    pub(crate) fn command(&self, uuid: &str, command: Dictionary) {
        let whole = dictionary([
            ("CommandUUID", uuid.into()),
            ("Command", Value::Dictionary(command)),
        ]);
        self.stage().commands.push_back(whole);
    }

    pub(crate) fn ask(&self, uuid: &str, request_type: &str) {
        self.command(uuid, dictionary([("RequestType", request_type.into())]));
    }

    pub(crate) fn ask_attestation(&self, uuid: &str, nonce: Value) {
        let queries = [
            "SerialNumber",
            "ProvisioningUDID",
            "DevicePropertiesAttestation",
        ];
        self.command(
            uuid,
            dictionary([
                ("RequestType", "DeviceInformation".into()),
                ("Queries", Value::Array(queries.map(Value::from).to_vec())),
                ("DeviceAttestationNonce", nonce),
            ]),
        );
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let path = parts.uri.path().to_owned();
        let (status, content_type, content) = match path.as_str() {
            "/v1/enroll" => self.enroll(&body),
            "/scep" => self.scep(parts.uri.query().unwrap_or_default(), &body),
            "/mdm/checkin" | "/mdm/connect" => {
                let signature = parts
                    .headers
                    .get("Mdm-Signature")
                    .map(|header| STANDARD.decode(header).unwrap());
                let signer = signature.and_then(|signature| signer_of(&signature, &body));
                self.stage().seen.push(Seen {
                    path: path.clone(),
                    body,
                    signer,
                });
                self.mdm(&path)
            }
            "/moved" => (301, "/mdm/connect", Vec::new()),
            "/downgrade" => (307, "http://localhost:1/mdm/connect", Vec::new()),
            _ => (404, "text/plain", Vec::new()),
        };
        let name = if (300..400).contains(&status) {
            "Location"
        } else {
            "Content-Type"
        };
        let mut response = Response::builder().status(status);
        if !content_type.is_empty() {
            response = response.header(name, content_type);
        }
        response.body(Full::new(content.into())).unwrap()
    }

    fn enroll(&self, body: &[u8]) -> (u16, &'static str, Vec<u8>) {
        let asked: serde_json::Value = serde_json::from_slice(body).unwrap();
        let members = asked.as_object().unwrap().len();
        let mut stage = self.stage();
        stage.enroll_seen.push(asked);
        if stage.knows_only_serials && members > 1 {
            return (400, "application/json", Vec::new());
        }
        drop(stage);
        (200, "application/x-apple-aspen-config", self.profile())
    }

    fn mdm(&self, path: &str) -> (u16, &'static str, Vec<u8>) {
        let mut stage = self.stage();
        if let Some((status, body)) = stage.forced.pop_front() {
            return (status, "application/json", body.into());
        }
        if path == "/mdm/connect"
            && let Some(command) = stage.commands.pop_front()
        {
            return (
                200,
                "application/xml",
                write(&Value::Dictionary(command), PlistStyle::CoreFoundation).unwrap(),
            );
        }
        (200, "", Vec::new())
    }

    pub(crate) fn profile(&self) -> Vec<u8> {
        let acme = self.stage().acme.clone();
        let (rights, capabilities) = {
            let stage = self.stage();
            (
                stage.access_rights,
                stage
                    .capabilities
                    .iter()
                    .map(|name| Value::from(*name))
                    .collect(),
            )
        };
        let uuid = "0A1B2C3D-0001-4000-8000-000000000001";
        let head = |kind: &str, uuid: &str| {
            dictionary([
                ("PayloadType", kind.into()),
                ("PayloadIdentifier", format!("test.{kind}").into()),
                ("PayloadUUID", uuid.into()),
                ("PayloadVersion", 1.into()),
            ])
        };
        let mut identity = head("com.apple.security.scep", uuid);
        let subject = Value::Array(vec![Value::Array(vec![Value::Array(vec![
            "CN".into(),
            "Mac %SerialNumber%".into(),
        ])])]);
        identity.insert(
            "PayloadContent".into(),
            Value::Dictionary(dictionary([
                ("URL", format!("{}/scep", self.url).into()),
                ("Challenge", "one-time".into()),
                ("Keysize", 2048.into()),
                ("Key Usage", 5.into()),
                ("RetryDelay", 0.into()),
                ("Subject", subject.clone()),
            ])),
        );
        if let Some((directory, identifier)) = acme {
            identity = head("com.apple.security.acme", uuid);
            identity.extend(dictionary([
                ("Attest", true.into()),
                ("ClientIdentifier", identifier.into()),
                ("DirectoryURL", directory.into()),
                ("HardwareBound", true.into()),
                ("KeySize", 384.into()),
                ("KeyType", "ECSECPrimeRandom".into()),
                ("Subject", subject),
                ("UsageFlags", 1.into()),
            ]));
        }
        let mut mdm = head("com.apple.mdm", "0A1B2C3D-0002-4000-8000-000000000002");
        mdm.extend(dictionary([
            ("AccessRights", rights.into()),
            ("CheckInURL", format!("{}/mdm/checkin", self.url).into()),
            ("CheckOutWhenRemoved", true.into()),
            ("IdentityCertificateUUID", uuid.into()),
            ("ServerCapabilities", Value::Array(capabilities)),
            ("ServerURL", format!("{}/mdm/connect", self.url).into()),
            ("SignMessage", true.into()),
            ("Topic", self.topic.as_str().into()),
        ]));
        let mut top = head("Configuration", "0A1B2C3D-0005-4000-8000-000000000005");
        top.insert(
            "PayloadContent".into(),
            Value::Array(vec![Value::Dictionary(identity), Value::Dictionary(mdm)]),
        );
        write(&Value::Dictionary(top), PlistStyle::CoreFoundation).unwrap()
    }

    fn scep(&self, query: &str, body: &[u8]) -> (u16, &'static str, Vec<u8>) {
        let ca = &self.device_ca.identity;
        if query.contains("operation=GetCACert") {
            return (
                200,
                "application/x-x509-ca-cert",
                ca.certificate.to_der().unwrap(),
            );
        }
        if query.contains("operation=GetCACaps") {
            let renewal = if self.stage().hides_renewal {
                ""
            } else {
                "Renewal\n"
            };
            let words = format!("{renewal}SHA-256\nAES\nPOSTPKIOperation");
            return (200, "text/plain", words.into_bytes());
        }
        self.stage().scep_seen.push(Bytes::copy_from_slice(body));
        let mode = self.stage().scep;
        let reply = match mode {
            ScepMode::Broken => return (500, "text/plain", Vec::new()),
            ScepMode::PendingOnce => {
                self.stage().scep = ScepMode::Issue;
                // The CSR comes only once; the poll has none, so it is remembered here.
                self.stage().pending = Some(body.to_vec());
                self.cert_rep("3", None, &self.device_ca)
            }
            ScepMode::Refuse => self.cert_rep("2", None, &self.device_ca),
            ScepMode::Foreign => {
                let now = Clock::system().now_ms();
                let other = Issuer::root("Device CA", "Test", KeyKind::Rsa2048, now).unwrap();
                self.cert_rep("0", Some(self.issue(body)), &other)
            }
            ScepMode::Issue => {
                let pending = self.stage().pending.take();
                let request = pending.unwrap_or_else(|| body.to_vec());
                self.cert_rep("0", Some(self.issue(&request)), &self.device_ca)
            }
        };
        (200, "application/x-pki-message", reply)
    }

    /// Checks and opens a request; gives the envelope with the issued certificate.
    fn issue(&self, body: &[u8]) -> Vec<u8> {
        let ca = &self.device_ca.identity;
        let message = Pkcs7::from_der(body).unwrap();
        let temporary = message
            .signed()
            .unwrap()
            .certificates()
            .unwrap()
            .get(0)
            .unwrap()
            .to_owned();
        let mut signers = Stack::new().unwrap();
        signers.push(temporary.clone()).unwrap();
        let store = X509StoreBuilder::new().unwrap().build();
        let mut content = Vec::new();
        message
            .verify(
                &signers,
                &store,
                None,
                Some(&mut content),
                Pkcs7Flags::NOVERIFY | Pkcs7Flags::BINARY,
            )
            .unwrap();
        let enveloped = Pkcs7::from_der(&content).unwrap();
        let csr = enveloped
            .decrypt(&ca.key, &ca.certificate, Pkcs7Flags::BINARY)
            .unwrap();
        let csr = X509Req::from_der(&csr).unwrap();
        let public = csr.public_key().unwrap();
        assert!(csr.verify(&public).unwrap());
        let now = Clock::system().now_ms();
        let issuer = ca.certificate.subject_name();
        let mut builder = certs::begin(
            csr.subject_name(),
            issuer,
            &public,
            now - DAY_MS,
            now + DAY_MS,
        )
        .unwrap();
        builder.sign(&ca.key, MessageDigest::sha256()).unwrap();
        let issued = tlv(tag::CONTEXT_0, &builder.build().to_der().unwrap());
        let data = sequence(&[&der::oid(cms::ID_DATA).unwrap()]);
        let degenerate = sequence(&[
            &der::small_integer(1),
            &tlv(tag::SET, &[]),
            &data,
            &issued,
            &tlv(tag::SET, &[]),
        ]);
        let degenerate = sequence(&[
            &der::oid(cms::ID_SIGNED_DATA).unwrap(),
            &tlv(tag::CONTEXT_0, &degenerate),
        ]);
        let mut to = Stack::new().unwrap();
        to.push(temporary).unwrap();
        Pkcs7::encrypt(&to, &degenerate, Cipher::aes_128_cbc(), Pkcs7Flags::BINARY)
            .unwrap()
            .to_der()
            .unwrap()
    }

    fn cert_rep(&self, status: &str, content: Option<Vec<u8>>, signer: &Issuer) -> Vec<u8> {
        let digest = SignatureDigest::Sha256;
        let inner = content.clone().unwrap_or_default();
        let text = |value: &str| tlv(tag::PRINTABLE_STRING, value.as_bytes());
        let attributes = vec![
            cms::attribute(
                cms::ATTRIBUTE_CONTENT_TYPE,
                &der::oid(cms::ID_DATA).unwrap(),
            )
            .unwrap(),
            cms::attribute(
                cms::ATTRIBUTE_MESSAGE_DIGEST,
                &cms::digest_octets(digest, &inner).unwrap(),
            )
            .unwrap(),
            cms::attribute("2.16.840.1.113733.1.9.2", &text("3")).unwrap(),
            cms::attribute("2.16.840.1.113733.1.9.3", &text(status)).unwrap(),
            cms::attribute("2.16.840.1.113733.1.9.4", &text("2")).unwrap(),
        ];
        let algorithm = cms::signature_algorithm(&signer.identity.key, digest, false).unwrap();
        let info = cms::signer_info(
            &signer.identity,
            &inner,
            digest,
            Some(attributes),
            &algorithm,
        )
        .unwrap();
        let mut encapsulated = der::oid(cms::ID_DATA).unwrap();
        if let Some(content) = content {
            encapsulated.extend(tlv(tag::CONTEXT_0, &tlv(tag::OCTET_STRING, &content)));
        }
        let signed = sequence(&[
            &der::small_integer(1),
            &tlv(tag::SET, &digest.algorithm().unwrap()),
            &tlv(tag::SEQUENCE, &encapsulated),
            &tlv(tag::SET, &info),
        ]);
        sequence(&[
            &der::oid(cms::ID_SIGNED_DATA).unwrap(),
            &tlv(tag::CONTEXT_0, &signed),
        ])
    }
}

/// The certificate in a detached signature that is right over `body`.
fn signer_of(signature: &[u8], body: &[u8]) -> Option<Vec<u8>> {
    let message = Pkcs7::from_der(signature).ok()?;
    let none = Stack::<X509>::new().unwrap();
    let store = X509StoreBuilder::new().unwrap().build();
    let mut out = Vec::new();
    message
        .verify(
            &none,
            &store,
            Some(body),
            Some(&mut out),
            Pkcs7Flags::NOVERIFY | Pkcs7Flags::BINARY,
        )
        .ok()?;
    Some(message.signed()?.certificates()?.get(0)?.to_der().unwrap())
}

/// Waits until `condition` holds; fails after five seconds.
pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..500 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never happened: {what}");
}
