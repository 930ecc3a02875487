//! Messages that two readers may end in different places, and bodies that are more than they seem.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use openssl::ssl::{SslConnector, SslMethod};
use openssl::x509::X509;
use reqwest::Method;

use crate::harness::reverse_proxy::{Front, Kind, ReverseProxy};
use crate::harness::scene::{Backend, Scene, free_port};

/// What is hidden in a body, to be taken for the next request: nothing else asks for this.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: localhost\r\nX: ";

/// A request around a hidden one. The body is whole by each of the two ways to read it.
struct Doubtful {
    what: &'static str,
    head: &'static [&'static str],
    /// Before the hidden request.
    end: &'static str,
}

/// RFC 9112 sections 2.2, 5.1, 6.1, 6.3 and 7.1, and what has smuggled requests elsewhere.
const DOUBTFUL: [Doubtful; 11] = [
    Doubtful {
        what: "a length, and chunks",
        head: &["Content-Length: {length}", "Transfer-Encoding: chunked"],
        end: "0\r\n\r\n",
    },
    Doubtful {
        what: "chunks, and a length",
        head: &["Transfer-Encoding: chunked", "Content-Length: {length}"],
        end: "0\r\n\r\n",
    },
    Doubtful {
        what: "two lengths",
        head: &["Content-Length: 0", "Content-Length: {length}"],
        end: "",
    },
    Doubtful {
        what: "two lengths in one",
        head: &["Content-Length: 0, {length}"],
        end: "",
    },
    Doubtful {
        what: "a length with a sign",
        head: &["Content-Length: +0"],
        end: "",
    },
    Doubtful {
        what: "a name that ends in a space",
        head: &["Transfer-Encoding : chunked", "Content-Length: {length}"],
        end: "0\r\n\r\n",
    },
    Doubtful {
        what: "a coding nobody knows",
        head: &["Transfer-Encoding: xchunked", "Content-Length: {length}"],
        end: "0\r\n\r\n",
    },
    Doubtful {
        what: "chunks that are not the last coding",
        head: &[
            "Transfer-Encoding: chunked, identity",
            "Content-Length: {length}",
        ],
        end: "0\r\n\r\n",
    },
    Doubtful {
        what: "a header that goes on in the next line",
        head: &[
            "X: y\r\n Transfer-Encoding: chunked",
            "Content-Length: {length}",
        ],
        end: "0\r\n\r\n",
    },
    Doubtful {
        what: "a carriage return within a line",
        head: &[
            "X: y\rTransfer-Encoding: chunked",
            "Content-Length: {length}",
        ],
        end: "0\r\n\r\n",
    },
    Doubtful {
        what: "a chunk whose length overflows",
        head: &["Transfer-Encoding: chunked"],
        end: "fffffffffffffffff0\r\n\r\n",
    },
];

impl Doubtful {
    /// The request; the end of the hidden one, for whoever believes in it; and one that ends the connection.
    fn message(&self) -> Vec<u8> {
        let body = format!("{}{HIDDEN}", self.end);
        let head = self.head.join("\r\n");
        let head = head.replace("{length}", &body.len().to_string());
        let request =
            format!("POST /v1/enroll HTTP/1.1\r\nHost: localhost\r\n{head}\r\n\r\n{body}\r\n\r\n");
        [request.as_bytes(), PLAIN].concat()
    }
}

/// A plain request, as everybody's.
const PLAIN: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// Everything that is answered to these bytes until the connection ends or nothing comes any more.
fn answers(mut stream: impl Read + Write, said: &[u8]) -> String {
    // Whoever is cut off while it speaks has its answer all the same.
    let _ = stream.write_all(said).and_then(|()| stream.flush());
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut piece) {
        answer.extend_from_slice(&piece[..read]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

fn connects(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("connects");
    // Longer than the server waits for the end of a request.
    let patience = Some(Duration::from_secs(45));
    stream.set_read_timeout(patience).expect("set");
    stream
}

fn is_to_the_hidden_one(answers: &str) -> bool {
    answers.contains("HTTP/1.1 404 ")
}

journey! {
    async fn what_ends_in_two_places_is_one_request_at_most(backend: Backend) {
        let scene = Scene::new(backend).await;
        let port = scene.public_port();
        let asked = tokio::task::spawn_blocking(move || {
            for doubtful in &DOUBTFUL {
                let got = answers(connects(port), &doubtful.message());
                assert!(!is_to_the_hidden_one(&got), "{}: {got}", doubtful.what);
            }
            // It would be seen.
            let plain = [HIDDEN.as_bytes(), b"\r\n\r\n", PLAIN].concat();
            assert!(is_to_the_hidden_one(&answers(connects(port), &plain)));
        });
        asked.await.expect("asked");
    }
}

/// Through a proxy that keeps connections to the server for everybody: after each doubtful message the next
/// of others are answered as theirs.
async fn nobody_gets_anothers_answer(kind: Kind, backend: Backend) {
    let port = free_port();
    let said = "behind_proxy = true\ntrusted_proxies = [\"127.0.0.1\"]\n";
    let scene = Scene::behind(backend, port, said).await;
    let server = scene.home.path().join("server");
    let front = Front {
        port,
        behind: scene.public_port(),
        server: &server,
    };
    let proxy = ReverseProxy::start(kind, &front);
    let root = scene.tls_root.clone().expect("TLS");
    let asked = tokio::task::spawn_blocking(move || {
        let mut connector = SslConnector::builder(SslMethod::tls()).expect("a client");
        let root = X509::from_pem(&root).expect("a root");
        connector.cert_store_mut().add_cert(root).expect("added");
        let connector = connector.build();
        let says = |said: &[u8]| {
            let stream = connector.connect("localhost", connects(port));
            answers(stream.expect("TLS"), said)
        };
        for doubtful in &DOUBTFUL {
            says(&doubtful.message());
            for _ in 0..4 {
                let plain = says(PLAIN);
                assert!(
                    plain.starts_with("HTTP/1.1 200 "),
                    "{}: {plain}",
                    doubtful.what
                );
            }
        }
    });
    asked.await.expect("asked");
    drop(proxy);
}

journey! {
    async fn through_nginx_nobody_gets_anothers_answer(backend: Backend) {
        nobody_gets_anothers_answer(Kind::Nginx, backend).await;
    }
}

journey! {
    async fn through_caddy_nobody_gets_anothers_answer(backend: Backend) {
        nobody_gets_anothers_answer(Kind::Caddy, backend).await;
    }
}

journey! {
    async fn what_is_compressed_is_not_inflated(backend: Backend) {
        let scene = Scene::new(backend).await;
        // 8 MiB of spaces, that are as good as nothing in JSON and XML, around what would be taken.
        let mut packed = GzEncoder::new(Vec::new(), Compression::best());
        packed.write_all(b"{}").expect("packed");
        packed.write_all(&vec![b' '; 8 << 20]).expect("packed");
        let packed = packed.finish().expect("packed");
        assert!(packed.len() < 32 << 10);
        for (path, method) in [("/v1/enroll", Method::POST), ("/mdm/checkin", Method::PUT), ("/scep?operation=PKIOperation", Method::POST)] {
            let request = scene.anybody(method, path).header("content-encoding", "gzip");
            let answer = scene.answer(request.body(packed.clone())).await;
            assert_eq!(answer.status, 400, "{path}: {}", answer.text());
        }
    }
}
