//! Many Macs whose requests are prepared beforehand, so that sending costs next to nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use attestd_sim::certs::Identity;
use attestd_sim::cms::{SignatureStyle, mdm_signature};
use attestd_sim::keys::{KeyKind, generate};
use attestd_sim::mac::{IdentityKind, messages, query_responses, security_info};
use attestd_sim::plist_xml::{PlistStyle, write};
use attestd_sim::{Mac, MacSpec, World};
use futures_util::StreamExt as _;
use openssl::pkey::{PKey, Private};
use plist::{Dictionary, Value};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Distinct RSA keys in the fleet; certificates are distinct for every Mac.
const KEYS: usize = 8;

/// One request, byte for byte, of the Mac with this number.
#[derive(Debug, Clone)]
pub struct Prepared {
    mac: usize,
    request: Arc<Vec<u8>>,
}

impl Prepared {
    /// A request of nobody in particular.
    pub fn plain(request: Vec<u8>) -> Self {
        Self {
            mac: 0,
            request: Arc::new(request),
        }
    }
}

struct Enrolled {
    spec: MacSpec,
    identity: Identity,
    attested_key: PKey<Private>,
    idle: Arc<Vec<u8>>,
}

pub struct Fleet(Vec<Enrolled>);

impl Fleet {
    pub async fn enroll(world: &World, base_url: &str, count: usize, by: IdentityKind) -> Self {
        let keys: Vec<_> = (0..KEYS)
            .map(|_| generate(KeyKind::Rsa2048).expect("a key"))
            .collect();
        for index in 0..count {
            world.keys().add(keys[index % KEYS].clone());
        }
        let macs: Vec<Mac> = (0..count)
            .map(|_| {
                let mut spec = MacSpec::random().expect("a Mac");
                spec.allow_http_loopback = true;
                spec.asks_for = Some(by);
                Mac::new(spec, world)
            })
            .collect();
        futures_util::stream::iter(&macs)
            .for_each_concurrent(16, |mac| async move {
                mac.enroll(base_url).await.expect("enrols");
            })
            .await;
        let attested_key = generate(KeyKind::P384).expect("a key");
        let enrolled = macs.iter().map(|mac| {
            let (spec, identity) = (mac.spec(), mac.identity().expect("an identity"));
            let idle = request(&identity, &messages::idle(&spec));
            let attested_key = attested_key.clone();
            Enrolled {
                spec,
                identity,
                attested_key,
                idle: Arc::new(idle),
            }
        });
        Self(enrolled.collect())
    }

    pub fn serials(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|mac| mac.spec.serial.as_str())
    }

    pub fn idles(&self) -> Vec<Prepared> {
        let prepare = |(mac, enrolled): (usize, &Enrolled)| Prepared {
            mac,
            request: Arc::clone(&enrolled.idle),
        };
        self.0.iter().enumerate().map(prepare).collect()
    }

    /// The answers to `commands`, one per Mac, in the order of the Macs.
    pub fn answers(&self, world: &World, commands: &[Vec<u8>]) -> Vec<Prepared> {
        assert_eq!(commands.len(), self.0.len());
        let answer = |(mac, (enrolled, command)): (usize, (&Enrolled, &Vec<u8>))| {
            let body = enrolled.answer(world, command);
            Prepared {
                mac,
                request: Arc::new(request(&enrolled.identity, &body)),
            }
        };
        self.0
            .iter()
            .zip(commands)
            .enumerate()
            .map(answer)
            .collect()
    }

    /// Of any one of them.
    pub fn first_serial(&self) -> &str {
        &self.0[0].spec.serial
    }

    /// Sends all requests over `at_once` connections; the bodies of the replies in their order.
    pub async fn send(
        &self,
        server: SocketAddr,
        requests: &[Prepared],
        at_once: usize,
    ) -> Vec<Vec<u8>> {
        let requests: Arc<Vec<Prepared>> = Arc::new(requests.to_vec());
        let next = Arc::new(AtomicUsize::new(0));
        let workers: Vec<_> = (0..at_once)
            .map(|_| {
                let (requests, next) = (Arc::clone(&requests), Arc::clone(&next));
                tokio::spawn(async move {
                    let mut stream = TcpStream::connect(server).await.expect("connects");
                    stream.set_nodelay(true).expect("a socket option");
                    let mut replies = Vec::new();
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        let Some(request) = requests.get(index) else {
                            return replies;
                        };
                        stream.write_all(&request.request).await.expect("sent");
                        let body = read_reply(&mut stream).await;
                        replies.push((index, request.mac, body));
                    }
                })
            })
            .collect();
        let mut replies = vec![Vec::new(); requests.len()];
        for worker in workers {
            for (index, _, body) in worker.await.expect("sends") {
                replies[index] = body;
            }
        }
        replies
    }
}

impl Enrolled {
    fn answer(&self, world: &World, command: &[u8]) -> Dictionary {
        let command = Value::from_reader(std::io::Cursor::new(command)).expect("a command");
        let command = command.as_dictionary().expect("a dictionary");
        let uuid = command["CommandUUID"].as_string().expect("a name");
        let asked = command["Command"].as_dictionary().expect("a command");
        let mut reply = messages::status_reply(&self.spec, uuid, "Acknowledged");
        if asked["RequestType"].as_string() == Some("SecurityInfo") {
            let info = security_info(&self.spec);
            reply.insert("SecurityInfo".to_owned(), Value::Dictionary(info));
            return reply;
        }
        let nonce = asked["DeviceAttestationNonce"].as_data().expect("a nonce");
        let state = self.spec.attested_state();
        let now_ms = world.clock().now_ms();
        let chain = world
            .apple()
            .attest(&state, &self.attested_key, Some(nonce), now_ms)
            .expect("a chain");
        let queries = asked["Queries"].as_array().expect("queries");
        let queries = queries.iter().filter_map(Value::as_string);
        let mut responses = query_responses(&self.spec, queries, 1041);
        let certificates = [chain.leaf, chain.intermediate].map(Value::Data).to_vec();
        responses.insert(
            "DevicePropertiesAttestation".to_owned(),
            Value::Array(certificates),
        );
        reply.insert("QueryResponses".to_owned(), Value::Dictionary(responses));
        reply
    }
}

fn request(identity: &Identity, body: &Dictionary) -> Vec<u8> {
    let body = write(&Value::Dictionary(body.clone()), PlistStyle::default()).expect("a body");
    let signature = mdm_signature(identity, &body, &SignatureStyle::default()).expect("signed");
    let mut request = format!(
        "PUT /mdm/connect HTTP/1.1\r\nHost: localhost\r\nUser-Agent: MDM/1.0\r\n\
         Content-Type: application/x-apple-aspen-mdm; charset=UTF-8\r\n\
         Mdm-Signature: {signature}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(&body);
    request
}

/// The body of one reply.
async fn read_reply(stream: &mut TcpStream) -> Vec<u8> {
    let mut buffer = Vec::with_capacity(2048);
    loop {
        let read = stream.read_buf(&mut buffer).await.expect("an answer");
        assert!(read > 0, "the server hung up");
        let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else {
            continue;
        };
        let head = std::str::from_utf8(&buffer[..end]).expect("a head");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let length = head
            .lines()
            .find_map(|line| {
                line.to_ascii_lowercase()
                    .strip_prefix("content-length: ")
                    .map(str::to_owned)
            })
            .map_or(0, |text| text.parse::<usize>().expect("a length"));
        if buffer.len() >= end + 4 + length {
            return buffer.split_off(end + 4);
        }
    }
}
