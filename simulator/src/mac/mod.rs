//! Virtual Macs: they install a profile, check in, wait for pushes and answer commands as macOS
//! does, or lie in one of the ways a real one could (apple-protocol 12).

mod adopted;
mod device_information;
mod enroll;
mod events;
mod execute;
mod identity;
mod identity_payload;
mod kind;
pub mod messages;
mod profile;
mod replace;
mod security_info;
mod session;
mod spec;
mod wire;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, broadcast};

pub use adopted::FormerEnrollment;
pub use device_information::{ATTESTATION, query_responses};
pub use events::{Exchange, MacEvent, MacStep};
pub use identity_payload::{IdentityKind, IdentityPayload};
pub use kind::MacKind;
pub use profile::{EnrollmentProfile, MdmPayload, ProfileError};
pub use security_info::security_info;
pub use session::{Life, Session};
pub use spec::{Lie, MacSpec, ReducedSecurityForm};
pub use wire::{CHECK_IN, CONNECT, Reply, Wire};

use crate::apns::Inbox;
use crate::apple::{AttestationClient, Chain};
use crate::certs::Identity;
use crate::clock::Clock;
use crate::cms::SignatureStyle;
use crate::world::World;

/// Why a Mac did not get through.
#[derive(Debug, thiserror::Error)]
pub enum MacError {
    #[error("{step} was answered with status {}", reply.status)]
    Refused {
        step: &'static str,
        reply: Box<Reply>,
    },
    #[error("the server cannot be reached")]
    Unreachable(#[from] reqwest::Error),
    #[error("{0:?} is not a URL")]
    BadUrl(String),
    #[error("too many redirects")]
    TooManyRedirects,
    #[error("a profile has content type application/x-apple-aspen-config, not {0:?}")]
    NotAProfile(String),
    #[error("the profile cannot be installed")]
    Profile(#[from] ProfileError),
    #[error("no identity by SCEP")]
    Scep(#[from] crate::scep::ScepError),
    #[error("no identity by ACME")]
    Acme(#[from] crate::acme::AcmeError),
    #[error("the Mac is not enrolled")]
    NotEnrolled,
    #[error("the server sent what is not a command")]
    NotACommand,
    /// As [`MacSpec::aborts_after_authenticate`] demands.
    #[error("the installation was rolled back after Authenticate, as planned")]
    RolledBack,
    /// A [`Loss`] that was asked for.
    #[error("the connection was lost, as planned")]
    Lost,
    #[error("the work was cancelled")]
    Cancelled,
    #[error("the message cannot be written")]
    Unwritable(#[from] crate::plist_xml::PlistWriteError),
    #[error("cryptography failed")]
    Crypto(#[from] openssl::error::ErrorStack),
}

impl MacError {
    /// The error with its causes in one line.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }

    /// The server's reply, where it was a refusal.
    pub fn reply(&self) -> Option<&Reply> {
        match self {
            Self::Refused { reply, .. } => Some(reply),
            _ => None,
        }
    }
}

/// Who signs a message sent by hand.
#[derive(Debug, Clone, Copy)]
pub enum Signing<'a> {
    /// The Mac's own identity, in its own style.
    Own,
    /// Another identity, in the Mac's style.
    By(&'a Identity),
    ByInStyle(&'a Identity, &'a SignatureStyle),
    /// This Mdm-Signature header, whatever it is.
    Header(&'a str),
    Unsigned,
}

/// A connection lost around one result (apple-protocol 12.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// After executing, before the server got the result.
    BeforeSending,
    /// The server got the result, the Mac did not get the answer: the result comes twice.
    AfterSending,
}

/// A virtual Mac. Clones are the same Mac.
#[derive(Debug, Clone)]
pub struct Mac {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    world: World,
    spec: Mutex<MacSpec>,
    state: Mutex<State>,
    record: Mutex<Vec<Exchange>>,
    events: broadcast::Sender<MacEvent>,
    /// One session at a time.
    session: tokio::sync::Mutex<()>,
    /// Something changed that a living Mac must look at.
    poke: Notify,
}

#[derive(Debug, Default)]
struct State {
    enrolled: Option<Arc<Enrolled>>,
    attestation: AttestationClient,
    unsent: Option<Unsent>,
    power_nap: bool,
    auto_poll: bool,
    losses: VecDeque<Loss>,
    first_chain: Option<Chain>,
    first_statement: Option<identity::Statement>,
    first_results: HashMap<String, Vec<u8>>,
    impostor: Option<Identity>,
}

/// An installed enrollment.
#[derive(Debug, Clone)]
struct Enrolled {
    profile: EnrollmentProfile,
    identity: Identity,
    /// How it was got; none where it came from elsewhere.
    identity_kind: Option<IdentityKind>,
    wire: Wire,
    token: Vec<u8>,
    magic: String,
    inbox: Option<Inbox>,
}

/// A result the server has not acknowledged.
#[derive(Debug, Clone)]
struct Unsent {
    command_uuid: String,
    request_type: String,
    status: &'static str,
    body: Vec<u8>,
    signature: Option<String>,
}

impl Mac {
    /// A Mac in this world, not enrolled.
    pub fn new(spec: MacSpec, world: &World) -> Self {
        Self {
            inner: Arc::new(Inner {
                world: world.clone(),
                spec: Mutex::new(spec),
                state: Mutex::default(),
                record: Mutex::default(),
                events: broadcast::channel(1024).0,
                session: tokio::sync::Mutex::default(),
                poke: Notify::new(),
            }),
        }
    }

    /// What it is at present.
    pub fn spec(&self) -> MacSpec {
        lock(&self.inner.spec).clone()
    }

    /// Changes what it is: the user turns SIP off, an update comes, it starts to lie.
    pub fn change(&self, change: impl FnOnce(&mut MacSpec)) {
        change(&mut lock(&self.inner.spec));
    }

    /// The serial number.
    pub fn serial(&self) -> String {
        lock(&self.inner.spec).serial.clone()
    }

    /// The hardware UUID.
    pub fn udid(&self) -> String {
        lock(&self.inner.spec).udid.clone()
    }

    /// Whether an enrollment profile is installed.
    pub fn is_enrolled(&self) -> bool {
        self.state().enrolled.is_some()
    }

    /// The identity it signs with.
    pub fn identity(&self) -> Option<Identity> {
        self.state()
            .enrolled
            .as_ref()
            .map(|enrolled| enrolled.identity.clone())
    }

    /// The protocol that identity was got by; none where it came from elsewhere.
    pub fn identity_kind(&self) -> Option<IdentityKind> {
        self.state().enrolled.as_ref()?.identity_kind
    }

    /// The profile it is enrolled by.
    pub fn profile(&self) -> Option<EnrollmentProfile> {
        self.state()
            .enrolled
            .as_ref()
            .map(|enrolled| enrolled.profile.clone())
    }

    /// Its push token and PushMagic.
    pub fn push_address(&self) -> Option<(Vec<u8>, String)> {
        self.state()
            .enrolled
            .as_ref()
            .map(|enrolled| (enrolled.token.clone(), enrolled.magic.clone()))
    }

    /// What it was asked and what it answered, oldest first.
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.record().clone()
    }

    /// What it does, from now on.
    pub fn events(&self) -> broadcast::Receiver<MacEvent> {
        self.inner.events.subscribe()
    }

    /// Falls asleep: pushes wait at the push service.
    pub fn sleep(&self) {
        if let Ok(Some(inbox)) = self.enrolled().map(|enrolled| enrolled.inbox.clone()) {
            inbox.sleep();
        }
    }

    /// Wakes up: the newest waiting push arrives.
    pub fn wake(&self) {
        if let Ok(Some(inbox)) = self.enrolled().map(|enrolled| enrolled.inbox.clone()) {
            inbox.wake();
        }
    }

    /// Power Nap on battery: posture commands are answered NotNow. When it ends, a living Mac polls
    /// by itself if NotNow was the last thing it said.
    pub fn power_nap(&self, napping: bool) {
        self.state().power_nap = napping;
        self.inner.poke.notify_one();
    }

    /// Loses the connection around the next result.
    pub fn lose(&self, loss: Loss) {
        self.state().losses.push_back(loss);
    }

    fn clock(&self) -> Clock {
        self.inner
            .world
            .clock()
            .skewed_by(self.spec().clock_skew_ms)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.inner.state)
    }

    fn record(&self) -> MutexGuard<'_, Vec<Exchange>> {
        lock(&self.inner.record)
    }

    fn enrolled(&self) -> Result<Arc<Enrolled>, MacError> {
        self.state().enrolled.clone().ok_or(MacError::NotEnrolled)
    }

    fn tell(&self, step: MacStep) {
        let event = MacEvent {
            at_ms: self.inner.world.clock().now_ms(),
            serial: self.serial(),
            step,
        };
        // Nobody listening is no failure.
        let _ = self.inner.events.send(event.clone());
        self.inner.world.publish(event);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod identity_tests;
#[cfg(test)]
mod lie_tests;
#[cfg(test)]
mod tests;
