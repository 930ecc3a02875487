//! Secrets are not in the database in clear, and damage is reported by place.

use attestd::audit::Who;
use attestd::entropy::SeededEntropy;
use attestd::flows::receiver;
use attestd::flows::webhook::{Wanted, add};
use attestd::ids::{
    CertificateHash, PushCertificateId, PushRequestId, ReceiverName, StreamId, WebhookName,
};
use attestd::publication::delivery::Course;
use attestd::publication::shared_signals::access::Scope;
use attestd::publication::shared_signals::stream::{Delivery, Status, Stream, Wishes};
use attestd::publication::webhook::SigningSecret;
use attestd::push::Standing;
use attestd::secret::Secret;
use attestd::store::{PushCertificate, PushRequest, SignalStream, StoreError};
use sea_orm::{ConnectionTrait, Statement};

use super::fixture::{Mac, later, now, topic};
use crate::harness::database::Database;

/// A webhook's.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Everything that is stored, as one heap of bytes.
async fn everything(db: &Database) -> Vec<u8> {
    let Some(folder) = db.folder() else {
        let connection = db.plain().await;
        let mut heap = Vec::new();
        for table in [
            "enrollments",
            "push_certificates",
            "push_requests",
            "webhooks",
            "signal_receivers",
            "signal_streams",
        ] {
            let sql = format!("SELECT CAST(t AS TEXT) FROM {table} t");
            let select = Statement::from_string(connection.get_database_backend(), sql);
            for row in connection.query_all_raw(select).await.expect("answers") {
                let text: String = row.try_get_by_index(0).expect("text");
                // Bytes are written as hexadecimal digits after \x.
                heap.extend(text.split("\\x").skip(1).flat_map(|part| {
                    let digits = part.bytes().take_while(u8::is_ascii_hexdigit).count();
                    hex::decode(&part[..digits & !1]).expect("digits")
                }));
                heap.extend(text.into_bytes());
            }
        }
        return heap;
    };
    let files = std::fs::read_dir(folder).expect("a folder");
    files
        .flat_map(|file| std::fs::read(file.expect("a file").path()).expect("reads"))
        .collect()
}

on_both! {
    async fn no_secret_is_stored_in_clear(db: Database) {
        let mac = Mac::enroll(1, &db.store).await;
        let certificate = PushCertificate {
            push_certificate_id: PushCertificateId::new(now(), &SeededEntropy::new(1)),
            topic: topic(),
            standing: Standing::Active,
            chain: "visible-chain".to_owned(),
            private_key: Secret::new(b"canary-push-key".to_vec()),
            sha256: CertificateHash::of(b"leaf"),
            not_before: now(),
            not_after: later(1),
            installed_at: now(),
            apple_account: None,
            activated_at: Some(now()),
            retired_at: None,
            untried_because: None,
            expiry_told: None,
            generation: 0,
        };
        let token = Secret::new(b"canary-bootstrap".to_vec());
        let mut write = db.store.write().await.expect("begins");
        write.install_push_certificate(&certificate).await.expect("is new");
        let request = PushRequest {
            push_request_id: PushRequestId::new(now(), &SeededEntropy::new(1)),
            apple_account: None,
            spki: b"visible-spki".to_vec(),
            csr: b"visible-csr".to_vec(),
            private_key: Secret::new(b"canary-request-key".to_vec()),
            requested_at: now(),
        };
        write.insert_push_request(&request).await.expect("is kept");
        assert_eq!(write.push_request_for(b"visible-spki").await.expect("answers"), Some(request));
        assert_eq!(write.push_request_for(b"other").await.expect("answers"), None);
        write.set_bootstrap_token(mac.device_id(), Some(&token)).await.expect("is kept");
        write.commit().await.expect("commits");
        let hook = Wanted {
            name: WebhookName::parse("visible-hook").expect("a name"),
            url: Secret::new("https://hooks.example.org/canary".to_owned()),
            events: None,
            allow_private: false,
            root: None,
            secret: Some(SigningSecret::parse(SECRET).expect("a secret")),
        };
        let entropy = SeededEntropy::new(2);
        add(&db.store, hook, &entropy, &Who::Service, now()).await.expect("answers").expect("is added");
        let read = db.store.read().await.expect("begins");
        let kept = read.webhooks().await.expect("opens");
        assert_eq!(kept[0].secret.text().expose(), SECRET);
        assert!(!format!("{kept:?}").contains("canary"), "{kept:?}");
        drop(read);

        let wanted = receiver::Wanted {
            name: ReceiverName::parse("visible-receiver").expect("a name"),
            audience: "https://visible.example.org".to_owned(),
            scope: Scope::ALL,
            allow_private: false,
            root: None,
        };
        let added = receiver::add(&db.store, wanted, &entropy, &Who::Service, now()).await.expect("answers");
        let (receiver, shown_once) = added.expect("is added");
        let stream = Stream {
            stream_id: StreamId::new(now(), &entropy),
            receiver_id: receiver.receiver_id.clone(),
            audience: receiver.audience.clone(),
            wishes: Wishes {
                delivery: Delivery::Push {
                    endpoint: Secret::new("https://signals.example.org/canary".to_owned()),
                    authorization: Some(Secret::new("Bearer canary".to_owned())),
                },
                events_requested: Vec::new(),
                description: None,
            },
            status: Status::Enabled,
            reason: None,
            verified_at: None,
            created_at: now(),
        };
        let held = SignalStream {
            stream,
            course: Course::default(),
            taken_until: now(),
            revision: 0,
        };
        let mut write = db.store.write().await.expect("begins");
        write.insert_signal_stream(&held).await.expect("is new");
        let again = write.signal_stream_of(&receiver.receiver_id).await.expect("opens");
        assert_eq!(again.as_ref(), Some(&held));
        assert!(!format!("{again:?}").contains("canary"), "{again:?}");
        write.commit().await.expect("commits");

        let heap = everything(&db).await;
        let holds = |text: &str| heap.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(holds("visible-chain") && holds("visible-hook"), "the search finds what is in clear");
        assert!(holds("visible-receiver") && !holds(shown_once.expose()));
        assert!(!holds("canary") && !holds(&SECRET[6..]), "a secret is stored in clear");
    }
}

on_both! {
    async fn a_sealed_value_moved_to_another_mac_does_not_open(db: Database) {
        let mac = Mac::enroll(1, &db.store).await;
        let other = Mac::enroll(2, &db.store).await;
        let behind = db.plain().await;
        let update = format!(
            "UPDATE enrollments SET push_sealed = (SELECT push_sealed FROM enrollments \
             WHERE device_id = '{}') WHERE device_id = '{}'",
            mac.device_id(),
            other.device_id()
        );
        behind.execute_unprepared(&update).await.expect("is changed");
        let read = db.store.read().await.expect("begins");
        let outcome = read.enrollment(other.device_id()).await;
        let Err(StoreError::Unsealable { table, id, .. }) = outcome else {
            unreachable!("{outcome:?}");
        };
        assert_eq!((table, id.as_str()), ("enrollments", other.device_id().as_str()));
    }
}

on_both! {
    async fn a_row_that_says_nonsense_is_named(db: Database) {
        let mac = Mac::enroll(1, &db.store).await;
        let behind = db.plain().await;
        behind
            .execute_unprepared("UPDATE tickets SET serial = 'no serial'")
            .await
            .expect("is changed");
        let read = db.store.read().await.expect("begins");
        let outcome = read.ticket(&mac.ticket.ticket_id).await;
        let Err(StoreError::Inconsistent { table, id }) = outcome else {
            unreachable!("{outcome:?}");
        };
        assert_eq!((table, id.as_str()), ("tickets", mac.ticket.ticket_id.as_str()));
    }
}
