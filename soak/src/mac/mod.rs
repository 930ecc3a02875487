//! One Mac: what it is, what state it is really in, and what it does with what it is sent.

mod answer;
mod enroll;
mod habits;
mod provider;
mod session;

use attestd::ids::DeviceId;
use attestd_sim::apns::Inbox;
use attestd_sim::apple::AttestationClient;
use attestd_sim::cms::{SignatureDigest, SignatureStyle, mdm_signature};
use attestd_sim::plist_xml::{PlistStyle, write};
use attestd_sim::{Identity, MacSpec};
use futures_util::FutureExt as _;
use plist::{Dictionary, Value};

use self::answer::{Answer, Asked};
pub use self::habits::{Habit, Power, Urge};
use self::provider::account;
pub use self::provider::{Software, Spoke};
pub use self::session::{Came, GoesOn};
use crate::judge::Judge;
use crate::random::Chance;
use crate::record::Tally;
use crate::time::{Ms, START};

/// How it got its identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// By ACME, its key attested; its ticket names a provider key.
    Attested,
    /// From a former server, its key in software.
    Adopted,
}

/// A Mac.
#[derive(Debug)]
pub struct Mac {
    pub index: usize,
    pub origin: Origin,
    pub habit: Habit,
    pub chance: Chance,
    /// How many times as much happens to it as usual.
    pub eventful: u64,
    /// The truth.
    pub spec: MacSpec,
    pub power: Power,
    pub judge: Judge,
    pub tally: Tally,
    line: Option<Line>,
    /// The client inside macOS, with Apple's cache.
    apple: AttestationClient,
    /// What that cache holds.
    minted: Option<Minted>,
    /// A result the server has not acknowledged.
    unsent: Option<Answer>,
    /// An attestation that is being made.
    working: Option<Asked>,
    /// NotNow was its last word.
    auto_poll: bool,
    /// Its SecurityInfo, until its state changes.
    report: Option<String>,
    /// Since when nothing kept it from being woken and heard.
    pub reachable_since: Option<Ms>,
    pub readdressed_at: Option<Ms>,
    /// How often it started.
    starts: u32,
    /// The provider's software, where it runs.
    pub software: Option<Box<Software>>,
}

/// Its enrollment, as it sees it.
#[derive(Debug, Clone)]
struct Line {
    device_id: DeviceId,
    topic: String,
    identity: Identity,
    token: Vec<u8>,
    magic: String,
    inbox: Inbox,
    /// The first message of every session, and its signature: the same bytes each time.
    idle: (Vec<u8>, String),
}

/// What the leaf in Apple's cache says.
#[derive(Debug, Clone)]
struct Minted {
    nonce: Vec<u8>,
    secure: bool,
    ends_at: Ms,
}

impl Mac {
    /// The Mac with this number, not enrolled.
    pub fn new(index: usize, seed: u64, eventful: u64) -> anyhow::Result<Self> {
        let stream = u64::try_from(index)?;
        let mut chance = Chance::new(seed, stream + 1);
        let mut spec = MacSpec::with_serial(&format!("SOAK{index:06}"))?;
        spec.udid = uuid_text(chance.bytes());
        spec.provisioning_udid = format!("00006040-{}", hex::encode_upper(chance.bytes::<8>()));
        let (origin, habit) = (Origin::of(index), Habit::of(index));
        Ok(Self {
            index,
            origin,
            habit,
            chance,
            eventful,
            spec,
            power: Power::Awake,
            judge: Judge::default(),
            tally: Tally::default(),
            line: None,
            apple: AttestationClient::default(),
            minted: None,
            unsent: None,
            working: None,
            auto_poll: false,
            report: None,
            reachable_since: None,
            readdressed_at: None,
            starts: 0,
            software: None,
        })
    }

    /// How the server names it.
    pub fn device_id(&self) -> Option<&DeviceId> {
        self.line.as_ref().map(|line| &line.device_id)
    }

    /// Its push token.
    pub fn token(&self) -> Option<&[u8]> {
        self.line.as_ref().map(|line| line.token.as_slice())
    }

    /// Whether SIP is on and the boot policy full, in truth.
    pub fn is_secure(&self) -> bool {
        self.spec.boot == attestd_sim::apple::BootPolicy::default()
    }

    /// Takes a notification that reached it; false when there is none, or it sleeps.
    pub fn hears_a_push(&self) -> bool {
        let Some(line) = &self.line else { return false };
        let delivered = line.inbox.next().now_or_never().flatten();
        delivered.is_some_and(|delivered| delivered.magic == line.magic)
    }

    fn listen(&self, listening: bool) {
        if let Some(line) = &self.line {
            if listening {
                line.inbox.wake();
            } else {
                line.inbox.sleep();
            }
        }
    }
}

impl Origin {
    /// One in eight came from a former server.
    fn of(index: usize) -> Self {
        if index % 8 == 5 {
            Self::Adopted
        } else {
            Self::Attested
        }
    }
}

/// What macOS writes for a message.
fn written(body: Dictionary) -> anyhow::Result<Vec<u8>> {
    Ok(write(&Value::Dictionary(body), PlistStyle::CoreFoundation)?)
}

/// The header that signs it.
fn signed(identity: &Identity, body: &[u8]) -> anyhow::Result<String> {
    let style = SignatureStyle {
        digest: SignatureDigest::Sha256,
        ..SignatureStyle::default()
    };
    Ok(mdm_signature(identity, body, &style)?)
}

/// A version 4 UUID of these bytes, in upper case as Apple writes them.
fn uuid_text(mut bytes: [u8; 16]) -> String {
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let text = hex::encode_upper(bytes);
    let parts = [
        &text[..8],
        &text[8..12],
        &text[12..16],
        &text[16..20],
        &text[20..],
    ];
    parts.join("-")
}

/// When the Mac with this number enrols: the fleet joins over half a day.
pub fn enrols_at(index: usize, macs: usize) -> Ms {
    let index = Ms::try_from(index).unwrap_or(0);
    let macs = Ms::try_from(macs).unwrap_or(1).max(1);
    crate::time::beat(START + 12 * crate::time::HOUR * index / macs)
}
