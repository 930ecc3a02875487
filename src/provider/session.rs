//! A provider session: one process of the provider software, as the coordinator knows it.
//!
//! It is registered with a blob, stays alive by challenges, and ends. Which Mac it belongs to, and
//! how far that is proved, is not decided here: a session only claims.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::blob::{Blob, SignedBlob, Terms};
use super::challenge::VerifiedAnswer;
use super::encryption_key::EncryptionKey;
use super::liveness::Liveness;
use super::se_key::{SePoint, SePublicKey};
use super::version::Version;
use crate::ids::{BindingId, DeviceId, SerialNumber, SessionId, sha256, transcript};
use crate::reason::Reason;
use crate::time::Timestamp;

/// The longest time for which an ended session can be taken up again (the clamp of the coordinator's
/// own rule for gaps in a connection).
pub const LONGEST_GAP: Duration = Duration::from_secs(120);

/// Rivals that a session remembers to have been told of; more sessions than one Mac ever has.
const MOST_RIVALS: usize = 16;

/// What a coordinator registers. Nothing of it is verified.
#[derive(Debug, Clone)]
pub struct Registration {
    pub key: SePublicKey,
    pub encryption_key: EncryptionKey,
    pub provider_version: Option<Version>,
    /// Whose session it is, by the coordinator's word.
    pub account: Option<String>,
    pub claimed_serial: Option<SerialNumber>,
    /// The blob, byte for byte as the provider signed it.
    pub blob: Vec<u8>,
    /// Over the blob: base64 of DER.
    pub signature: String,
}

/// A registration with what its blob is worth.
#[derive(Debug, Clone)]
pub struct Judged {
    registration: Registration,
    reasons: Vec<Reason>,
    said: Option<Said>,
    negatives: Vec<Reason>,
}

/// What a blob said that its key did sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    pub serial: Option<SerialNumber>,
    pub binary_hash: Option<String>,
    pub os_version: String,
    pub signed_at: Timestamp,
    /// Signed for this session's encryption key, at a time that fits: it is no copy of another
    /// session's blob.
    pub by_this_process: bool,
}

/// One session.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Session {
    pub session_id: SessionId,
    /// Names the registration: another key is another binding.
    pub binding_id: BindingId,
    pub key: SePublicKey,
    pub encryption_key: EncryptionKey,
    pub provider_version: Option<Version>,
    pub account: Option<String>,
    /// Which Mac it says it runs on; `None` when coordinator and blob say different things.
    pub claimed_serial: Option<SerialNumber>,
    /// Why the blob is not good, definite negatives first; empty when it is.
    pub blob_reasons: Vec<Reason>,
    pub said: Option<Said>,
    /// A program other than the blob's, by a later answer of the provider's.
    pub runs_instead: Option<String>,
    /// The Mac it is about.
    pub device_id: Option<DeviceId>,
    pub liveness: Liveness,
    pub began_at: Timestamp,
    /// Since when it has answered its challenges without a gap.
    #[serde(default)]
    pub unbroken_since: Option<Timestamp>,
    pub ended: Option<Ended>,
    /// The hash of everything that was registered.
    registration: String,
    /// Keys of other sessions that claim the same Mac and were told of.
    rivals: Vec<String>,
}

/// The end of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    pub at: Timestamp,
    /// Until when the same process can take it up again.
    pub resumable_until: Option<Timestamp>,
}

/// What a registration did to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registered {
    /// The same as before.
    Same,
    /// It had ended, and the same process goes on.
    Resumed,
    /// The same process says something new.
    Renewed,
    /// Another process, or another key.
    Replaced,
}

/// The session is of another account, and a session does not change hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the session belongs to another account")]
pub struct OtherAccount;

impl Registration {
    /// Verifies the blob over its exact bytes, and judges what it says.
    pub fn judge(self, now: Timestamp) -> Judged {
        let signed =
            Blob::parse(&self.blob).and_then(|blob| blob.verify(&self.key, &self.signature));
        let signed = match signed {
            Ok(signed) => signed,
            Err(refusal) => {
                return Judged {
                    reasons: vec![refusal.reason()],
                    said: None,
                    negatives: Vec::new(),
                    registration: self,
                };
            }
        };
        let version = self.provider_version.as_ref();
        let by_this_process = signed.names(&self.encryption_key) && signed.is_timely(version, now);
        // Blobs are published. An old one that was bad then must not count anew, whatever version
        // its sender claims.
        let negatives = match by_this_process && signed.is_timely(None, now) {
            true => signed.negatives(),
            false => Vec::new(),
        };
        let said = Said::of(&signed, by_this_process);
        let terms = Terms {
            encryption_key: &self.encryption_key,
            provider_version: version,
            now,
        };
        let mut reasons = match signed.accept(&terms) {
            Ok(_) => Vec::new(),
            Err(refused) => refused.reasons,
        };
        if contradict(self.claimed_serial.as_ref(), said.serial.as_ref()) {
            reasons.push(Reason::SerialMismatch);
        }
        Judged {
            registration: self,
            reasons,
            said: Some(said),
            negatives,
        }
    }

    fn digest(&self) -> String {
        let version = self.provider_version.as_ref().map(Version::as_str);
        let (account, serial) = (self.account.as_deref(), self.claimed_serial.as_ref());
        // What may be absent is told from what is empty by a field of its own.
        let given = |is_there: bool| -> &[u8] { if is_there { b"1" } else { b"0" } };
        let fields: &[&[u8]] = &[
            b"attestd provider registration",
            self.key.text().as_bytes(),
            self.encryption_key.as_str().as_bytes(),
            version.unwrap_or_default().as_bytes(),
            given(account.is_some()),
            account.unwrap_or_default().as_bytes(),
            serial
                .map(SerialNumber::as_str)
                .unwrap_or_default()
                .as_bytes(),
            &self.blob,
            self.signature.as_bytes(),
        ];
        hex::encode(sha256(&transcript(fields)))
    }
}

fn contradict(one: Option<&SerialNumber>, other: Option<&SerialNumber>) -> bool {
    matches!((one, other), (Some(one), Some(other)) if one != other)
}

impl Said {
    fn of(blob: &SignedBlob, by_this_process: bool) -> Self {
        let report = blob.report();
        Self {
            serial: report.serial.clone(),
            binary_hash: report.binary_hash.clone(),
            os_version: report.os_version.clone(),
            signed_at: report.timestamp,
            by_this_process,
        }
    }
}

impl Judged {
    /// What was registered.
    pub fn registration(&self) -> &Registration {
        &self.registration
    }

    /// What the provider says against its own Mac, just now: `sip_disabled`, `secure_boot_off`.
    pub fn negatives(&self) -> &[Reason] {
        &self.negatives
    }

    /// The serial number that is claimed; none where coordinator and blob say different things.
    pub fn claimed_serial(&self) -> Option<SerialNumber> {
        let theirs = self.registration.claimed_serial.as_ref();
        let own = self.said.as_ref().and_then(|said| said.serial.as_ref());
        match contradict(theirs, own) {
            true => None,
            false => theirs.or(own).cloned(),
        }
    }
}

impl Session {
    /// A session nobody knew.
    pub fn begin(
        session_id: SessionId,
        binding_id: BindingId,
        judged: Judged,
        now: Timestamp,
    ) -> Self {
        let registration = judged.registration.digest();
        Self {
            session_id,
            binding_id,
            claimed_serial: judged.claimed_serial(),
            key: judged.registration.key,
            encryption_key: judged.registration.encryption_key,
            provider_version: judged.registration.provider_version,
            account: judged.registration.account,
            blob_reasons: judged.reasons,
            said: judged.said,
            runs_instead: None,
            device_id: None,
            liveness: Liveness::begin(now),
            began_at: now,
            unbroken_since: None,
            ended: None,
            registration,
            rivals: Vec::new(),
        }
    }

    /// The session is registered again. `binding_id` is used if it is another process, or another
    /// key, by then.
    ///
    /// # Errors
    /// While it lives, or can be taken up again, it is of one account.
    pub fn register(
        &mut self,
        binding_id: BindingId,
        judged: Judged,
        now: Timestamp,
    ) -> Result<Registered, OtherAccount> {
        let is_known = self.is_known(now);
        if is_known && self.account != judged.registration.account {
            return Err(OtherAccount);
        }
        let goes_on = is_known && self.is_of(&judged.registration);
        let is_same = self.registration == judged.registration.digest();
        if goes_on && is_same {
            let resumed = self.ended.take().is_some();
            return Ok(if resumed {
                Registered::Resumed
            } else {
                Registered::Same
            });
        }
        let new = Self::begin(self.session_id.clone(), binding_id, judged, now);
        let former = std::mem::replace(self, new);
        self.rivals = former.rivals;
        if !goes_on {
            return Ok(Registered::Replaced);
        }
        self.binding_id = former.binding_id;
        self.liveness = former.liveness;
        self.runs_instead = former.runs_instead;
        self.began_at = former.began_at;
        self.unbroken_since = former.unbroken_since;
        Ok(Registered::Renewed)
    }

    /// Whether the registration is by the process and the key that this session is of.
    pub fn is_of(&self, registration: &Registration) -> bool {
        self.encryption_key == registration.encryption_key
            && self.key.text() == registration.key.text()
    }

    /// Whether nothing in the registration is new, so that it need not be judged again.
    pub fn is_registered_by(&self, registration: &Registration) -> bool {
        self.ended.is_none() && self.registration == registration.digest()
    }

    /// When it was heard of last: it answered, or it began; registered again, it had been signed for.
    pub fn heard_at(&self) -> Timestamp {
        let signed_at = self.said.as_ref().map(|said| said.signed_at);
        let heard_at = self.liveness.last_good_at().max(signed_at);
        heard_at.map_or(self.began_at, |at| at.max(self.began_at))
    }

    /// What everything that was registered hashes to: another registration, another text.
    pub fn registered_as(&self) -> &str {
        &self.registration
    }

    /// It ended; it can be taken up again for so long, at most [`LONGEST_GAP`]. False when it had
    /// ended before.
    pub fn end(&mut self, resumable_for: Option<Duration>, now: Timestamp) -> bool {
        if self.ended.is_some() {
            return false;
        }
        self.ended = Some(Ended {
            at: now,
            resumable_until: resumable_for
                .filter(|span| !span.is_zero())
                .map(|span| now.plus(span.min(LONGEST_GAP))),
        });
        true
    }

    /// Whether it has not ended.
    pub fn is_live(&self) -> bool {
        self.ended.is_none()
    }

    /// Whether it lives, or can be taken up again.
    pub fn is_known(&self, now: Timestamp) -> bool {
        self.ended
            .is_none_or(|ended| ended.resumable_until.is_some_and(|until| now < until))
    }

    /// Whether the key itself has spoken for this session, and not only somebody who saw its words:
    /// without that nothing joins the key to a Mac.
    pub fn has_spoken(&self) -> bool {
        self.said.as_ref().is_some_and(|said| said.by_this_process)
    }

    /// Takes in what an answer says besides being there.
    pub fn hear(&mut self, answer: &VerifiedAnswer) {
        let stated = answer.status().binary_hash.as_ref();
        if let Some(stated) = stated.filter(|hash| !hash.is_empty()) {
            let registered = self
                .said
                .as_ref()
                .and_then(|said| said.binary_hash.as_ref());
            self.runs_instead = (Some(stated) != registered).then(|| stated.clone());
        }
    }

    /// A good answer was received at `heard_at`, the one before it at `before`. More than `gap` between
    /// the two, and nobody knows what happened meanwhile.
    pub fn goes_on(&mut self, before: Option<Timestamp>, gap: Duration, heard_at: Timestamp) {
        let is_unbroken = before.is_some_and(|before| heard_at.since(before) <= gap);
        self.unbroken_since = self
            .unbroken_since
            .filter(|_| is_unbroken)
            .or(Some(heard_at));
    }

    /// The hashes of every program it was said to run: all must be released. `None` where the blob
    /// names none.
    pub fn binaries(&self) -> impl Iterator<Item = Option<&str>> {
        let registered = self
            .said
            .as_ref()
            .and_then(|said| said.binary_hash.as_deref());
        let instead = self.runs_instead.as_deref().map(Some);
        std::iter::once(registered).chain(instead)
    }

    /// Whether its Mac was restarted since `former`, as far as words of the provider show it: macOS
    /// has another version.
    pub fn shows_restart_since(&self, former: &Self) -> bool {
        match (&former.said, &self.said) {
            (Some(former), Some(said)) => former.os_version != said.os_version,
            _ => false,
        }
    }

    /// Remembers another key that claims the same Mac. False when that was known.
    pub fn meets(&mut self, rival: SePoint) -> bool {
        let rival = rival.to_string();
        if self.rivals.contains(&rival) {
            return false;
        }
        if self.rivals.len() >= MOST_RIVALS {
            self.rivals.remove(0);
        }
        self.rivals.push(rival);
        true
    }
}
