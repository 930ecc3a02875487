//! A Mac and what belongs to it, made from a number.

use std::time::Duration;

use attestd::attestation::NonceInputs;
use attestd::attestation::freshness::Minted;
use attestd::enrollment::ticket::Bounds;
use attestd::enrollment::{
    Enrollment, Hardware, Identity, IdentityKind, Protocol, PushAddress, State, Ticket,
};
use attestd::entropy::SeededEntropy;
use attestd::ids::{
    CertificateHash, CommandUuid, DeviceId, EvidenceId, SerialNumber, Topic, Udid, VerificationId,
};
use attestd::posture::{Posture, Verdict};
use attestd::secret::Secret;
use attestd::store::{Event, Evidence, Store};
use attestd::time::Timestamp;
use attestd::verification::{Command, CommandState, Kind, Priority, Request, Verification};

pub fn now() -> Timestamp {
    Timestamp::from_millis(1_790_000_000_000)
}

pub fn later(seconds: u64) -> Timestamp {
    now().plus(Duration::from_secs(seconds))
}

/// A Mac that came in by a ticket.
#[derive(Debug, Clone)]
pub struct Mac {
    pub ticket: Ticket,
    pub identity: Identity,
    pub enrollment: Enrollment,
}

impl Mac {
    pub fn new(number: u64) -> Self {
        let entropy = SeededEntropy::new(number);
        let serial = SerialNumber::parse(&format!("SIMTEST{number:05}")).expect("well formed");
        let bounds = Bounds {
            serial: Some(serial.clone()),
            account: Some(format!("account-{number}")),
            se_public_key: Some(format!("se-key-{number}")),
            protocol: Protocol::Scep,
        };
        let (mut ticket, _) = Ticket::issue(bounds, now(), &entropy);
        ticket.used_at = Some(later(1));
        let identity = identity(number, Some(&ticket));
        let enrollment = Enrollment {
            device_id: DeviceId::new(now(), &entropy),
            udid: Udid::parse(&format!("5B0C1D2E-7F3A-5C41-9A6D-{number:012X}"))
                .expect("well formed"),
            serial: Some(serial),
            state: State::Enrolled,
            identity: identity.certificate,
            ticket_id: Some(ticket.ticket_id.clone()),
            topic: topic(),
            push: Some(push_address(number)),
            hardware: Hardware {
                model: Some("Mac16,11".to_owned()),
                ..Hardware::default()
            },
            authenticated_at: now(),
            enrolled_at: Some(later(2)),
            checked_out_at: None,
            contends_with: None,
            held_since: None,
            proved_at: None,
        };
        Self {
            ticket,
            identity,
            enrollment,
        }
    }

    pub fn device_id(&self) -> &DeviceId {
        &self.enrollment.device_id
    }

    /// Stores all of it.
    pub async fn enroll(number: u64, store: &Store) -> Self {
        let mac = Self::new(number);
        let mut write = store.write().await.expect("begins");
        write.insert_ticket(&mac.ticket).await.expect("is new");
        write.insert_identity(&mac.identity).await.expect("is new");
        assert!(
            write
                .bind(mac.identity.certificate, mac.device_id())
                .await
                .expect("answers")
        );
        write
            .save_enrollment(&mac.enrollment)
            .await
            .expect("is saved");
        write.commit().await.expect("commits");
        mac
    }

    pub fn verification(&self, number: u64) -> Verification {
        let request = Request {
            kinds: vec![Kind::SecurityInfo, Kind::Mda],
            priority: Priority::First,
            occasion: "enrolled".to_owned(),
            patience: Duration::from_secs(90),
        };
        let id = VerificationId::new(now(), &SeededEntropy::new(9_000 + number));
        Verification::start(id, self.device_id().clone(), &request, now())
    }

    pub fn command(&self, number: u64, verification: &Verification) -> Command {
        Command {
            command_uuid: CommandUuid::new(&SeededEntropy::new(5_000 + number)),
            device_id: self.device_id().clone(),
            verification_id: verification.verification_id.clone(),
            kind: Kind::Mda,
            identity: self.identity.certificate,
            state: CommandState::Outstanding,
            handed_over_at: later(3),
            concluded_at: None,
        }
    }

    pub fn minted(&self, command_uuid: &CommandUuid) -> Minted {
        let inputs = NonceInputs {
            server_id: "test.example".to_owned(),
            device_id: self.device_id().clone(),
            command_uuid: command_uuid.clone(),
            minted_at: later(3),
            se_public_key: String::new(),
            beacon: None,
        };
        inputs.mint()
    }

    pub fn posture(&self, revision: u64) -> Posture {
        Posture {
            revision,
            verdict: Verdict::Affirming,
            ..Posture::unknown(self.device_id().clone(), later(revision))
        }
    }

    pub fn evidence(&self, command_uuid: &CommandUuid, reply: &[u8]) -> Evidence {
        Evidence {
            evidence_id: EvidenceId::of(reply),
            device_id: self.device_id().clone(),
            command_uuid: command_uuid.clone(),
            kind: Kind::Mda,
            received_at: later(4),
            stored: reply.to_vec(),
            signature: Some(vec![0x30, 0x80]),
            raw: true,
        }
    }
}

pub fn identity(number: u64, ticket: Option<&Ticket>) -> Identity {
    let der = format!("certificate {number}").into_bytes();
    Identity {
        certificate: CertificateHash::of(&der),
        der,
        kind: IdentityKind::Scep,
        ticket_id: ticket.map(|ticket| ticket.ticket_id.clone()),
        serial: ticket.and_then(|ticket| ticket.serial.clone()),
        device_id: None,
        issued_at: now(),
        not_before: now(),
        not_after: later(86_400 * 365),
        revoked_at: None,
        transaction_id: Some(format!("transaction {number}")),
        renews: None,
    }
}

pub fn topic() -> Topic {
    Topic::parse("com.apple.mgmt.External.0f0e0d0c").expect("well formed")
}

pub fn push_address(number: u64) -> PushAddress {
    PushAddress {
        token: Secret::new(format!("canary-push-token-{number:06}-00000000").into_bytes()),
        magic: Secret::new(format!("canary-push-magic-{number}")),
        updated_at: later(2),
        dead_since: None,
    }
}

pub fn event(name: &str) -> Event {
    Event {
        name: name.to_owned(),
        at: now(),
        body: serde_json::json!({ "name": name }),
    }
}
