//! Whole rounds with one Mac, without store or network: what is asked, what is learnt, what is said.

mod beacon;
mod chains;
mod promised;
mod rounds;

use std::sync::Arc;
use std::time::Duration;

use attestd_sim::apple::{AttestationAuthority, AttestedState, BootPolicy};
use attestd_sim::keys::{self, KeyKind};

use super::conclude::{Answer, Content, Decision, Judge, decide};
use crate::attestation::freshness::{Beacon, Minted};
use crate::attestation::{Anchors, Evidence, Freshness, Refusal, VerifiedEvidence, verify};
use crate::enrollment::{IdentityKind, State};
use crate::entropy::SeededEntropy;
use crate::ids::{CertificateHash, CommandUuid, DeviceId, SerialNumber, Udid, VerificationId};
use crate::mdm::device_information::QueryResponses;
use crate::mdm::report::Status;
use crate::mdm::security_info::{SecureBootLevel, SecurityInfo};
use crate::pki::KnownIntermediates;
use crate::posture::policy::{Policy, STRICT};
use crate::posture::{Posture, Verdict};
use crate::publication::event;
use crate::reason::Reason;
use crate::store::{Changes, Exchange};
use crate::time::Timestamp;
use crate::verification::agenda::Rules;
use crate::verification::{
    Agenda, Command, Kind, MAX_ATTEMPTS, Priority, Progress, Request, State as Outcome,
    Verification,
};

/// One Mac and what a store would keep of it.
struct Table {
    now: Timestamp,
    entropy: Arc<SeededEntropy>,
    apple: AttestationAuthority,
    device_id: DeviceId,
    identity: CertificateHash,
    state: State,
    verification: Verification,
    posture: Option<Posture>,
    commands: Vec<Command>,
    ledger: Vec<Minted>,
    contends: bool,
    proved: bool,
    relays: bool,
    beacon: Option<Arc<Beacon>>,
    enrolled_at: Timestamp,
    /// Of the last decision.
    changes: Changes,
}

impl Table {
    fn new() -> Self {
        let now = Timestamp::from_seconds(1_790_847_007);
        let entropy = Arc::new(SeededEntropy::new(9));
        let device_id = DeviceId::new(now, entropy.as_ref());
        let mut table = Self {
            now,
            apple: AttestationAuthority::new().expect("OpenSSL"),
            identity: CertificateHash::of(b"the Mac's identity"),
            state: State::Enrolled,
            verification: attempt(&device_id, &entropy, now),
            posture: None,
            commands: Vec::new(),
            ledger: Vec::new(),
            contends: false,
            proved: false,
            relays: false,
            beacon: None,
            enrolled_at: now,
            changes: Changes::default(),
            device_id,
            entropy,
        };
        table.pass(1);
        table
    }

    fn pass(&mut self, seconds: u64) {
        self.now = self.now.plus(Duration::from_secs(seconds));
    }

    fn ask_again(&mut self) {
        self.verification = attempt(&self.device_id, &self.entropy, self.now);
    }

    /// One message: load, decide, keep.
    fn exchange(&mut self, command_uuid: Option<&CommandUuid>, answer: Option<Answer>) -> Decision {
        let command = self
            .commands
            .iter()
            .find(|one| Some(&one.command_uuid) == command_uuid);
        let code = answer.as_ref().and_then(Answer::freshness_code);
        let exchange = Exchange {
            device_id: self.device_id.clone(),
            udid: Udid::parse("5B0C1D2E-7F3A-5C41-9A6D-0E1F2A3B4C5D").expect("a UDID"),
            serial: SerialNumber::parse("SIMQ4T2W7P").ok(),
            ticket_id: None,
            state: self.state,
            identity: self.identity,
            identity_kind: IdentityKind::Scep,
            identity_ends: self.now.plus(Duration::from_secs(365 * 86_400)),
            contends: self.contends,
            proved: self.proved,
            undisputed: !self.contends && !self.proved,
            verification: Some(self.verification.clone()),
            command: command.cloned(),
            posture: self.posture.clone(),
            // Nothing is asked here but by the attempt at hand.
            agenda: Agenda::new(self.device_id.clone(), self.enrolled_at),
            asked: self
                .ledger
                .iter()
                .find(|minted| Some(&minted.inputs.command_uuid) == command_uuid)
                .cloned(),
            ledger: self
                .ledger
                .iter()
                .find(|minted| Some(minted.nonce) == code)
                .cloned(),
        };
        let judge = Judge {
            policy: Arc::new(Policy::parse(STRICT).expect("shipped")),
            server_id: "mdm.example".into(),
            entropy: self.entropy.clone(),
            rules: Arc::new(Rules::usual()),
            relays: self.relays,
            traces: false,
            beacon: self.beacon.clone(),
            now: self.now,
        };
        let (changes, decision) = decide(exchange, answer, &judge);
        for command in &changes.commands {
            self.commands
                .retain(|kept| kept.command_uuid != command.command_uuid);
            self.commands.push(command.clone());
        }
        self.ledger.extend(changes.minted.iter().cloned());
        self.proved |= changes.proved_at.is_some();
        self.verification = changes
            .verification
            .clone()
            .unwrap_or(self.verification.clone());
        self.posture = changes.posture.clone().or(self.posture.take());
        self.changes = changes;
        decision
    }

    fn idle(&mut self) -> Decision {
        self.exchange(None, None)
    }

    fn answer(&mut self, command_uuid: &CommandUuid, status: Status, content: Content) -> Decision {
        let identity = self.identity;
        self.answer_by(identity, command_uuid, status, content)
    }

    fn answer_by(
        &mut self,
        identity: CertificateHash,
        command_uuid: &CommandUuid,
        status: Status,
        content: Content,
    ) -> Decision {
        let body = format!("{content:?}").into_bytes();
        let signature = Some(b"CMS".to_vec());
        let answer = Answer {
            status,
            content,
            body,
            signature,
            identity,
            sealed: self.relays.then(|| b"sealed".to_vec()),
        };
        self.exchange(Some(command_uuid), Some(answer))
    }

    fn acknowledge(&mut self, content: Content) -> Decision {
        let asked = self.asked();
        self.answer(&asked, Status::Acknowledged(asked.clone()), content)
    }

    /// The last command handed over.
    fn asked(&self) -> CommandUuid {
        self.commands
            .last()
            .expect("a command")
            .command_uuid
            .clone()
    }

    fn nonce(&self) -> [u8; 32] {
        self.ledger.last().expect("a nonce").nonce
    }

    fn chain(&self, nonce: Option<&[u8]>, serial: &str) -> Content {
        let verified = self.evidence(nonce, serial, &self.apple).map(Box::new);
        Content::Attestation {
            queried: QueryResponses::default(),
            verified,
        }
    }

    /// A chain by `issuer`, judged by this world's root.
    fn evidence(
        &self,
        nonce: Option<&[u8]>,
        serial: &str,
        issuer: &AttestationAuthority,
    ) -> Result<VerifiedEvidence, Refusal> {
        let state = AttestedState {
            serial: serial.into(),
            provisioning_udid: "00006040-001A2B3C4D5E801C".into(),
            software_update_device_id: "J773sAP".into(),
            os_version: "26.6.2".into(),
            sepos_version: "26.6".into(),
            llb_version: "26.6".into(),
            boot: BootPolicy::default(),
        };
        let key = keys::generate(KeyKind::P384).expect("OpenSSL");
        let issued = issuer
            .attest(&state, &key, nonce, self.now.millis())
            .expect("OpenSSL");
        let root = self.apple.root_pem().expect("OpenSSL");
        let anchors = Anchors::custom(&root).expect("an authority");
        let evidence = Evidence {
            certificates: vec![issued.leaf, issued.intermediate],
        };
        verify(
            &evidence,
            &anchors,
            &KnownIntermediates::default(),
            self.now,
        )
    }

    /// A round in which everything is as it should be.
    fn good_round(&mut self) -> [u8; 32] {
        self.idle();
        self.acknowledge(good());
        let nonce = self.nonce();
        self.acknowledge(self.chain(Some(&nonce), "SIMQ4T2W7P"));
        nonce
    }

    fn verdict(&self) -> Option<Verdict> {
        self.posture.as_ref().map(|posture| posture.verdict)
    }

    fn progress(&self, kind: Kind) -> (Progress, Option<Reason>) {
        let part = self.verification.part(kind).expect("asked for");
        (part.progress, part.reason)
    }

    fn events(&self) -> Vec<&str> {
        self.changes
            .events
            .iter()
            .map(|event| event.name.as_str())
            .collect()
    }
}

fn attempt(device_id: &DeviceId, entropy: &SeededEntropy, now: Timestamp) -> Verification {
    let request = Request {
        kinds: vec![Kind::SecurityInfo, Kind::Mda],
        priority: Priority::First,
        occasion: "enrolled".into(),
        patience: Duration::from_secs(3_600),
    };
    Verification::start(
        VerificationId::new(now, entropy),
        device_id.clone(),
        &request,
        now,
    )
}

fn report(sip: bool) -> Content {
    let facts = SecurityInfo {
        sip_enabled: Some(sip),
        secure_boot: Some(SecureBootLevel::Full),
        filevault_enabled: Some(true),
        ..SecurityInfo::default()
    };
    Content::SecurityInfo {
        facts,
        kept: b"kept".to_vec(),
    }
}

fn good() -> Content {
    report(true)
}

fn holds(decision: &Decision, text: &str) -> bool {
    let command = decision.command.clone().unwrap_or_default();
    String::from_utf8(command).expect("XML").contains(text)
}
