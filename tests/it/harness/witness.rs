//! A witness of a transparency log (C2SP `tlog-witness`), written apart from what the server knows of logs: it
//! keeps what it signed last, and signs only what grew out of it. It can be told to be out, or to lie.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use openssl::pkey::{Id, PKey, Private};
use openssl::sha::{Sha256, sha256};
use openssl::sign::{Signer, Verifier};
use tokio::net::TcpListener;

type Hash = [u8; 32];

/// How it behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    Honest,
    Out,
    Hangs,
    /// It signs another text.
    SignsSomethingElse,
    /// Somebody else signs in its name.
    Forged,
    /// Its clock is a day ahead.
    Ahead,
    /// It answers more than anybody reads.
    Endless,
    /// It says that it knows a longer log.
    KnowsMore,
    /// It sends whoever asks elsewhere.
    Redirects,
}

struct Inner {
    name: String,
    key: PKey<Private>,
    /// Verifier key of the log it knows.
    log: Mutex<Option<String>>,
    seen: Mutex<(u64, Hash)>,
    manner: Mutex<Manner>,
    /// Seconds since 1970.
    clock: Mutex<i64>,
    asked: Mutex<Vec<(u64, u64, u16)>>,
}

#[derive(Clone)]
pub struct Witness {
    inner: Arc<Inner>,
    address: SocketAddr,
}

impl Witness {
    /// One of this name, that knows no log yet.
    pub async fn start(name: &str, now: i64) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = socket.local_addr().expect("an address");
        let inner = Arc::new(Inner {
            name: name.to_owned(),
            key: key(sha256(name.as_bytes())),
            log: Mutex::default(),
            seen: Mutex::new((0, [0; 32])),
            manner: Mutex::new(Manner::Honest),
            clock: Mutex::new(now),
            asked: Mutex::default(),
        });
        let routes = Router::new()
            .route("/w/add-checkpoint", post(take))
            .with_state(Arc::clone(&inner));
        tokio::spawn(async move { axum::serve(socket, routes).await });
        Self { inner, address }
    }

    /// The table of settings that names it.
    pub fn settings(&self) -> String {
        format!(
            "[[transparency.witnesses]]\nurl = \"http://{}/w\"\nvkey = \"{}\"\nallow_private = true\n",
            self.address,
            self.vkey()
        )
    }

    pub fn vkey(&self) -> String {
        let public = self.inner.public();
        let id = hex::encode(id(&self.inner.name, &public));
        format!("{}+{id}+{}", self.inner.name, STANDARD.encode(public))
    }

    /// From now on it knows this log, by its verifier key.
    pub fn knows(&self, log: &str) {
        *self.inner.log.lock().expect("no panic") = Some(log.to_owned());
    }

    pub fn is(&self, manner: Manner) {
        *self.inner.manner.lock().expect("no panic") = manner;
    }

    pub fn set_clock(&self, seconds: i64) {
        *self.inner.clock.lock().expect("no panic") = seconds;
    }

    /// Old size and size of every head it was shown, and what it answered.
    pub fn asked(&self) -> Vec<(u64, u64, u16)> {
        self.inner.asked.lock().expect("no panic").clone()
    }

    /// It forgets what it was told, as one that was told by another node.
    pub fn has_seen(&self, size: u64, root: Hash) {
        *self.inner.seen.lock().expect("no panic") = (size, root);
    }

    /// How large the log was that it signed last.
    pub fn seen(&self) -> u64 {
        self.inner.seen.lock().expect("no panic").0
    }
}

impl Inner {
    /// Type and key, as the id covers them.
    fn public(&self) -> Vec<u8> {
        [&[4], &self.key.raw_public_key().expect("a key")[..]].concat()
    }

    fn sign(&self, key: &PKey<Private>, time: i64, text: &str) -> String {
        let message = format!("cosignature/v1\ntime {time}\n{text}");
        let mut signer = Signer::new_without_digest(key).expect("a signer");
        let signed = signer
            .sign_oneshot_to_vec(message.as_bytes())
            .expect("signed");
        let id = id(&self.name, &self.public());
        let all = [&id[..], &time.to_be_bytes(), &signed].concat();
        format!("\u{2014} {} {}\n", self.name, STANDARD.encode(all))
    }

    /// Status and body for a request that is honestly judged.
    fn judge(&self, request: &str) -> (u16, String) {
        let no = |status| (status, String::new());
        let Some((head, note)) = request.split_once("\n\n") else {
            return no(400);
        };
        let mut lines = head.lines();
        let old = lines.next().and_then(|line| line.strip_prefix("old "));
        let Some(old) = old.and_then(|old| old.parse::<u64>().ok()) else {
            return no(400);
        };
        let Some(proof) = lines.map(hash).collect::<Option<Vec<_>>>() else {
            return no(400);
        };
        let (text, signatures) = note.split_once("\n\n").expect("a note");
        let text = format!("{text}\n");
        let mut lines = text.lines();
        let origin = lines.next().expect("an origin");
        let size: u64 = lines.next().and_then(|it| it.parse().ok()).expect("a size");
        let root = lines.next().and_then(hash).expect("a root");
        let log = self.log.lock().expect("no panic").clone();
        let Some(log) = log.filter(|log| log.split('+').next() == Some(origin)) else {
            return no(404);
        };
        if !is_signed(&log, &text, signatures) {
            return no(403);
        }
        let mut seen = self.seen.lock().expect("no panic");
        if old > size {
            return no(400);
        }
        if old != seen.0 || (old == size && root != seen.1) {
            return (409, format!("{}\n", seen.0));
        }
        if old > 0 && old < size {
            let mut proof = proof.iter();
            let found = roots(old, size, Some(seen.1), &mut proof);
            if found != Some((seen.1, root)) || proof.next().is_some() {
                return no(422);
            }
        } else if !proof.is_empty() {
            return no(422);
        }
        *seen = (size, root);
        let time = *self.clock.lock().expect("no panic");
        (200, self.sign(&self.key, time, &text))
    }
}

async fn take(State(inner): State<Arc<Inner>>, request: String) -> Response {
    let manner = *inner.manner.lock().expect("no panic");
    let time = *inner.clock.lock().expect("no panic");
    let text = request.split_once("\n\n").map_or("", |(_, note)| note);
    let text = text.split_once("\n\n").map_or("", |(text, _)| text);
    let text = format!("{text}\n");
    let (status, body) = match manner {
        Manner::Honest => inner.judge(&request),
        Manner::Out => (503, String::new()),
        Manner::Hangs => {
            tokio::time::sleep(Duration::from_secs(600)).await;
            (200, String::new())
        }
        Manner::SignsSomethingElse => (200, inner.sign(&inner.key, time, "another\n1\nroot\n")),
        Manner::Forged => (200, inner.sign(&key([9; 32]), time, &text)),
        Manner::Ahead => (200, inner.sign(&inner.key, time + 86_400, &text)),
        Manner::Endless => (200, "x".repeat(1 << 20)),
        Manner::KnowsMore => (409, "1000000\n".to_owned()),
        Manner::Redirects => (302, String::new()),
    };
    let number =
        |line: Option<&str>| line.and_then(|it| it.trim_start_matches("old ").parse().ok());
    let asked = (
        number(request.lines().next()).unwrap_or_default(),
        number(text.lines().nth(1)).unwrap_or_default(),
        status,
    );
    inner.asked.lock().expect("no panic").push(asked);
    let kind = if status == 409 {
        "text/x.tlog.size"
    } else {
        "text/plain"
    };
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::LOCATION, "http://127.0.0.1:1/"),
    ];
    (
        StatusCode::from_u16(status).expect("a status"),
        headers,
        body,
    )
        .into_response()
}

fn key(seed: [u8; 32]) -> PKey<Private> {
    PKey::private_key_from_raw_bytes(&seed, Id::ED25519).expect("a key")
}

fn id(name: &str, key: &[u8]) -> [u8; 4] {
    let hash = sha256(&[name.as_bytes(), b"\n", key].concat());
    [hash[0], hash[1], hash[2], hash[3]]
}

fn hash(text: &str) -> Option<Hash> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

fn is_signed(vkey: &str, text: &str, signatures: &str) -> bool {
    let mut parts = vkey.splitn(3, '+');
    let (name, _, key) = (parts.next(), parts.next(), parts.next().expect("a key"));
    let key = STANDARD.decode(key).expect("base64");
    let id = id(name.expect("a name"), &key);
    let key = PKey::public_key_from_raw_bytes(&key[1..], Id::ED25519).expect("a key");
    let lines = signatures.lines().filter_map(|line| line.rsplit_once(' '));
    let mut found = lines.filter_map(|(_, it)| STANDARD.decode(it).ok());
    found.any(|it| {
        let mut verifier = Verifier::new_without_digest(&key).expect("a verifier");
        let signed = it.strip_prefix(&id);
        signed.is_some_and(|it| {
            verifier
                .verify_oneshot(it, text.as_bytes())
                .unwrap_or(false)
        })
    })
}

fn node(left: &Hash, right: &Hash) -> Hash {
    let mut hash = Sha256::new();
    hash.update(&[1]);
    hash.update(left);
    hash.update(right);
    hash.finish()
}

/// The two roots that a proof leads to (RFC 6962 section 2.1.2, as it is written).
fn roots<'a>(
    old: u64,
    size: u64,
    known: Option<Hash>,
    proof: &mut impl Iterator<Item = &'a Hash>,
) -> Option<(Hash, Hash)> {
    if old == size {
        let same = match known {
            Some(known) => known,
            None => *proof.next()?,
        };
        return Some((same, same));
    }
    let half = 1 << (size - 1).ilog2();
    if old <= half {
        let (before, now) = roots(old, half, known, proof)?;
        Some((before, node(&now, proof.next()?)))
    } else {
        let (before, now) = roots(old - half, size - half, None, proof)?;
        let left = proof.next()?;
        Some((node(left, &before), node(left, &now)))
    }
}
