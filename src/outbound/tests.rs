use std::sync::Mutex;

use attestd_sim::certs::Issuer;
use attestd_sim::keys::KeyKind;
use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio_rustls::TlsAcceptor;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

/// A name that leads to something else each time it is looked up.
#[derive(Debug, Default)]
struct Fickle {
    leads_to: Mutex<Vec<Vec<SocketAddr>>>,
    asked: AtomicUsize,
}

impl Names for Fickle {
    fn look_up<'a>(&'a self, _: &'a str, _: u16) -> Addresses<'a> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mut leads_to = self.leads_to.lock().expect("no panic");
        let next = if leads_to.is_empty() {
            Vec::new()
        } else {
            leads_to.remove(0)
        };
        Box::pin(async move { Ok(next) })
    }
}

/// A machine of one's own, which answers each connection with these bytes, and says what it heard.
struct Peer {
    address: SocketAddr,
    heard: tokio::sync::mpsc::UnboundedReceiver<String>,
}

impl Peer {
    async fn answering(answer: &'static [u8]) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = socket.local_addr().expect("an address");
        let (told, heard) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = socket.accept().await {
                let told = told.clone();
                tokio::spawn(async move {
                    let mut buffer = vec![0; 4096];
                    while let Ok(read) = stream.read(&mut buffer).await {
                        if read == 0 {
                            break;
                        }
                        let _ = told.send(String::from_utf8_lossy(&buffer[..read]).into_owned());
                        if stream.write_all(answer).await.is_err() {
                            break;
                        }
                    }
                });
            }
        });
        Self { address, heard }
    }
}

fn outbound(names: Arc<dyn Names>, deadline: Duration) -> Outbound {
    let usual = Outbound::new().expect("TLS");
    Outbound {
        names,
        deadline,
        ..usual
    }
}

fn line(names: Arc<Fickle>, url: &str, allow_private: bool) -> Line {
    let target = Target::parse(url, true).expect("a target");
    let reach = Reach {
        allow_private,
        root: None,
    };
    outbound(names, Duration::from_secs(2))
        .line(target, &reach)
        .expect("a line")
}

async fn post(line: &mut Line) -> Result<u16, Fault> {
    let body = Bytes::from_static(b"{}");
    let answer = line.post(&HeaderMap::new(), &body).await?;
    Ok(answer.status)
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn addresses_that_are_not_public_are_refused_however_they_are_written() {
    let peer = Peer::answering(OK).await;
    let port = peer.address.port();
    for host in [
        "127.0.0.1",
        "10.0.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "0.0.0.0",
        "[::1]",
        "[::]",
        "[fe80::1]",
        "[fd00::1]",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]",
    ] {
        let mut line = line(Arc::default(), &format!("http://{host}:{port}/"), false);
        assert_eq!(post(&mut line).await, Err(Fault::NotPublic), "{host}");
    }
    // Spellings that only a resolver understands, and names of this machine.
    for host in ["127.1", "2130706433", "0x7f000001", "localhost"] {
        let Ok(target) = Target::parse(&format!("http://{host}:{port}/"), true) else {
            assert_ne!(host, "localhost");
            continue;
        };
        let outbound = Outbound::new().expect("TLS");
        let mut line = outbound.line(target, &Reach::default()).expect("a line");
        let refused = post(&mut line).await;
        let is_refused = matches!(refused, Err(Fault::NotPublic | Fault::Unresolved));
        assert!(is_refused, "{host}: {refused:?}");
    }
    let mut heard = peer.heard;
    assert!(heard.try_recv().is_err(), "somebody was connected to");
}

#[tokio::test]
async fn a_name_that_leads_elsewhere_after_it_was_checked_is_not_asked_again() {
    let mut peer = Peer::answering(OK).await;
    let names = Arc::new(Fickle::default());
    // A public address, which is checked, and this machine, where a second look-up would lead.
    let public = SocketAddr::from(([192, 31, 196, 1], 9));
    *names.leads_to.lock().expect("no panic") = vec![vec![public], vec![peer.address]];
    let mut rebound = line(Arc::clone(&names), "http://rebind.example.org/", false);
    // What is checked is what is connected to; no test knocks there.
    assert_eq!(rebound.addresses().await, Ok(vec![public]));
    // The second time it is checked as the first.
    assert_eq!(post(&mut rebound).await, Err(Fault::NotPublic));
    assert!(peer.heard.try_recv().is_err());

    // One of several is enough to refuse all.
    *names.leads_to.lock().expect("no panic") = vec![vec![public, peer.address]];
    assert_eq!(post(&mut rebound).await, Err(Fault::NotPublic));
    assert_eq!(
        post(&mut rebound).await,
        Err(Fault::Unresolved),
        "it leads nowhere any more"
    );

    // What is allowed is reached, at the address that was looked up, under its own name.
    *names.leads_to.lock().expect("no panic") = vec![vec![peer.address]];
    let mut allowed = line(
        Arc::clone(&names),
        "http://inside.example.org/hook?a=b",
        true,
    );
    let asked = names.asked.load(Ordering::SeqCst);
    assert_eq!(post(&mut allowed).await, Ok(200));
    assert_eq!(post(&mut allowed).await, Ok(200));
    assert_eq!(
        names.asked.load(Ordering::SeqCst),
        asked + 1,
        "the connection was kept"
    );
    let heard = peer.heard.recv().await.expect("a request");
    assert!(heard.starts_with("POST /hook?a=b HTTP/1.1\r\n"), "{heard}");
    assert!(heard.contains("host: inside.example.org\r\n"), "{heard}");
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_not_a_way() {
    let elsewhere = Peer::answering(OK).await;
    let text = format!(
        "HTTP/1.1 307 Temporary Redirect\r\nLocation: http://{}/\r\nContent-Length: 0\r\n\r\n",
        elsewhere.address
    );
    let peer = Peer::answering(text.leak().as_bytes()).await;
    let mut line = line(Arc::default(), &format!("http://{}/", peer.address), true);
    assert_eq!(post(&mut line).await, Ok(307));
    let mut heard = elsewhere.heard;
    assert!(heard.try_recv().is_err());
}

#[tokio::test]
async fn who_hangs_trickles_or_never_ends_is_given_up_in_time() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let silent = silent
        .local_addr()
        .map(|address| (silent, address))
        .expect("an address");
    let began = std::time::Instant::now();
    let mut hangs = line(Arc::default(), &format!("http://{}/", silent.1), true);
    assert_eq!(post(&mut hangs).await, Err(Fault::TimedOut));
    // TLS is spoken to nobody who does not answer.
    let mut hangs = line(Arc::default(), &format!("https://{}/", silent.1), true);
    assert_eq!(post(&mut hangs).await, Err(Fault::TimedOut));
    // The status is an answer, though its body never comes.
    let peer = Peer::answering(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").await;
    let mut half = line(Arc::default(), &format!("http://{}/", peer.address), true);
    assert_eq!(post(&mut half).await, Ok(200));
    assert!(began.elapsed() < Duration::from_secs(9));
}

#[tokio::test]
async fn what_is_no_http_or_too_long_is_bounded() {
    let peer = Peer::answering(b"SSH-2.0-OpenSSH_9.2\r\n\r\n\r\n").await;
    let mut other = line(Arc::default(), &format!("http://{}/", peer.address), true);
    assert_eq!(post(&mut other).await, Err(Fault::Disconnected));

    let head = format!(
        "HTTP/1.1 200 OK\r\nX-Long: {}\r\n\r\n",
        "x".repeat(2 * HEAD)
    );
    let peer = Peer::answering(head.leak().as_bytes()).await;
    let mut long = line(Arc::default(), &format!("http://{}/", peer.address), true);
    assert_eq!(post(&mut long).await, Err(Fault::Disconnected));

    let body = format!(
        "HTTP/1.1 500 No\r\nContent-Length: {}\r\n\r\n{}",
        1 << 20,
        "x".repeat(1 << 20)
    );
    let peer = Peer::answering(body.leak().as_bytes()).await;
    let mut long = line(Arc::default(), &format!("http://{}/", peer.address), true);
    let answer = long
        .post(&HeaderMap::new(), &Bytes::new())
        .await
        .expect("an answer");
    assert_eq!((answer.status, answer.body.len()), (500, 0));
    assert!(long.open.is_none(), "its connection is given up");

    // Nobody is there, or somebody who hangs up.
    let gone = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = gone.local_addr().expect("an address");
    drop(gone);
    let mut nobody = line(Arc::default(), &format!("http://{address}/"), true);
    assert_eq!(post(&mut nobody).await, Err(Fault::Unreachable));
}

/// A receiver of somebody's own, that speaks TLS under this authority.
async fn tls_peer(issuer: &Issuer, now_ms: i64) -> SocketAddr {
    let identity = issuer.loopback_server(now_ms).expect("a certificate");
    let certificate = identity.certificate_pem().expect("PEM");
    let certificate = CertificateDer::from_pem_slice(&certificate).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(&identity.key_pem().expect("PEM")).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a certificate and its key");
    let tls = TlsAcceptor::from(Arc::new(config));
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = socket.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = socket.accept().await {
            let Ok(mut stream) = tls.accept(stream).await else {
                continue;
            };
            let mut buffer = vec![0; 4096];
            if stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                let _ = stream.write_all(OK).await;
            }
        }
    });
    address
}

#[tokio::test]
async fn only_the_roots_that_were_named_vouch_for_a_receiver() {
    let now_ms = crate::time::Clock::now(&crate::time::SystemClock).millis();
    let root = |name| Issuer::root(name, "Simulated", KeyKind::P256, now_ms).expect("a root");
    let (named, other) = (root("named"), root("other"));
    let address = tls_peer(&named, now_ms).await;
    let pem = |issuer: &Issuer| Some(issuer.certificate_pem().expect("PEM"));
    for (root, host, expected) in [
        (pem(&named), "127.0.0.1", Ok(200)),
        (pem(&named), "localhost", Ok(200)),
        (pem(&other), "127.0.0.1", Err(Fault::Untrusted)),
        (None, "127.0.0.1", Err(Fault::Untrusted)),
        // Its certificate is for another name.
        (pem(&named), "hooks.example.org", Err(Fault::Untrusted)),
    ] {
        let url = format!("https://{host}:{}/", address.port());
        let target = Target::parse(&url, false).expect("a target");
        let reach = Reach {
            allow_private: true,
            root,
        };
        let names = Fickle {
            leads_to: Mutex::new(vec![vec![address]]),
            ..Fickle::default()
        };
        let outbound = outbound(Arc::new(names), Duration::from_secs(5));
        let mut line = outbound.line(target, &reach).expect("a line");
        assert_eq!(post(&mut line).await, expected, "{host}");
    }
    for bad in [
        &b""[..],
        b"no certificate",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        assert!(check_root(bad).is_err());
    }
}
