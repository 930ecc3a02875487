//! Who speaks with a certificate, and that memory follows what is committed.

use std::sync::Arc;

use attestd::enrollment::trace::{Entry, Step};
use attestd::enrollment::{Authenticated, State};
use attestd::ids::CertificateHash;
use attestd::reason::Reason;
use attestd::store::{Changes, Known, Speaker, Store, StoreError, Watched};
use attestd::verification::Kind;

use super::fixture::{Mac, identity, later, now};
use crate::harness::database::{Database, sealer};

async fn speaker(store: &Store, certificate: CertificateHash) -> Option<Arc<Speaker>> {
    match store.identify(certificate).await.expect("answers") {
        Some(Known::Bound(speaker)) => Some(speaker),
        Some(Known::Issued(_)) | None => None,
    }
}

on_both! {
    async fn a_certificate_is_unknown_then_issued_then_speaks_for_its_mac(db: Database) {
        let mac = Mac::new(1);
        let certificate = mac.identity.certificate;
        assert_eq!(db.store.identify(certificate).await.expect("answers"), None);

        let mut write = db.store.write().await.expect("begins");
        write.insert_ticket(&mac.ticket).await.expect("is new");
        write.insert_identity(&mac.identity).await.expect("is new");
        write.commit().await.expect("commits");
        let known = db.store.identify(certificate).await.expect("answers");
        assert_eq!(known, Some(Known::Issued(Box::new(mac.identity.clone()))));

        let mut write = db.store.write().await.expect("begins");
        assert!(write.bind(certificate, mac.device_id()).await.expect("answers"));
        write.save_enrollment(&mac.enrollment).await.expect("is saved");
        drop(write);
        assert!(speaker(&db.store, certificate).await.is_none(), "nothing was committed");

        let mut write = db.store.write().await.expect("begins");
        assert!(write.bind(certificate, mac.device_id()).await.expect("answers"));
        write.save_enrollment(&mac.enrollment).await.expect("is saved");
        write.commit().await.expect("commits");
        let speaker = speaker(&db.store, certificate).await.expect("speaks");
        assert_eq!(speaker.device_id, mac.enrollment.device_id);
        assert_eq!(speaker.udid, mac.enrollment.udid);
        assert_eq!(speaker.state, State::Enrolled);
        assert_eq!(speaker.ticket_id, mac.enrollment.ticket_id);
        // Nothing is known of it: it is asked when it comes.
        assert_eq!((speaker.revoked_at, speaker.owes_from), (None, Some(now())));
    }
}

on_both! {
    async fn a_new_identity_takes_the_word_from_the_old_one(db: Database) {
        let mac = Mac::enroll(1, &db.store).await;
        let old = mac.identity.certificate;
        let next = identity(2, Some(&mac.ticket));
        let mut write = db.store.write().await.expect("begins");
        write.insert_identity(&next).await.expect("is new");
        assert!(write.bind(next.certificate, mac.device_id()).await.expect("answers"));
        let again = Authenticated {
            serial: mac.enrollment.serial.clone(),
            identity: next.certificate,
            ticket_id: mac.enrollment.ticket_id.clone(),
            topic: mac.enrollment.topic.clone(),
            hardware: mac.enrollment.hardware.clone(),
        };
        let enrollment = mac
            .enrollment
            .clone()
            .authenticated(mac.enrollment.udid.clone(), &again, later(9));
        write.save_enrollment(&enrollment).await.expect("is saved");
        write.commit().await.expect("commits");

        assert!(speaker(&db.store, old).await.is_none());
        let known = db.store.identify(old).await.expect("answers");
        assert!(matches!(known, Some(Known::Issued(_))), "{known:?}");
        let speaker = speaker(&db.store, next.certificate).await.expect("speaks");
        assert_eq!(speaker.state, State::Pending);
    }
}

on_both! {
    async fn a_withdrawn_identity_is_seen_as_such_at_once(db: Database) {
        let mac = Mac::enroll(1, &db.store).await;
        let mut write = db.store.write().await.expect("begins");
        assert!(write.revoke_identity(mac.identity.certificate, later(7)).await.expect("answers"));
        assert!(!write.revoke_identity(mac.identity.certificate, later(8)).await.expect("answers"));
        write.commit().await.expect("commits");
        let speaker = speaker(&db.store, mac.identity.certificate).await.expect("speaks");
        assert_eq!(speaker.revoked_at, Some(later(7)));
    }
}

on_both! {
    async fn what_is_owed_to_a_mac_follows_every_commit(db: Database) {
        let mac = Mac::enroll(1, &db.store).await;
        let certificate = mac.identity.certificate;
        let owes = async || speaker(&db.store, certificate).await.expect("speaks").owes_from;
        assert_eq!(owes().await, Some(now()));

        let mut verification = mac.verification(1);
        for kind in [Kind::SecurityInfo, Kind::Mda] {
            verification.defer(kind, Reason::AwaitingBinding, later(60));
        }
        let mut write = db.store.write().await.expect("begins");
        write.save_verification(&verification).await.expect("is saved");
        write.commit().await.expect("commits");
        assert_eq!(owes().await, Some(later(60)));

        verification.recall(Kind::Mda);
        let changes = Changes { verification: Some(verification.clone()), ..Changes::default() };
        db.store
            .exchange(mac.device_id(), None, None, move |_| (changes, ()))
            .await
            .expect("is kept");
        assert_eq!(owes().await, Some(now()));

        let mut enrollment = mac.enrollment.clone();
        enrollment.check_out(later(5));
        let mut write = db.store.write().await.expect("begins");
        write.save_enrollment(&enrollment).await.expect("is saved");
        write.commit().await.expect("commits");
        assert_eq!(owes().await, None);
    }
}

on_both! {
    async fn whoever_waits_for_a_mac_is_told_of_a_commit(db: Database) {
        let mac = Mac::enroll(1, &db.store).await;
        let other = Mac::enroll(2, &db.store).await;
        let mut watch = db.store.watch(Watched::Device(mac.device_id()));
        let mut quiet = db.store.watch(Watched::Device(other.device_id()));
        let mut write = db.store.write().await.expect("begins");
        write.save_verification(&mac.verification(1)).await.expect("is saved");
        write.commit().await.expect("commits");
        watch.changed().await;
        let unrelated = tokio::time::timeout(std::time::Duration::ZERO, quiet.changed()).await;
        assert!(unrelated.is_err());
    }
}

on_both! {
    async fn whoever_follows_an_enrolment_is_told_of_its_steps(db: Database) {
        let mac = Mac::enroll(1, &db.store).await;
        let other = Mac::enroll(2, &db.store).await;
        let mut watch = db.store.watch(Watched::Steps(&mac.ticket.ticket_id));
        let mut quiet = db.store.watch(Watched::Steps(&other.ticket.ticket_id));
        let mut write = db.store.write().await.expect("begins");
        let pushed = Entry::done(Step::Pushed, later(1));
        write.put_step(&mac.ticket.ticket_id, &pushed).await.expect("is put");
        write.commit().await.expect("commits");
        watch.changed().await;

        let steps = vec![Entry::done(Step::SecurityInfo, later(2))];
        let changes = Changes { steps, ..Changes::default() };
        db.store
            .exchange(mac.device_id(), None, None, move |_| (changes, ()))
            .await
            .expect("is kept");
        watch.changed().await;
        let unrelated = tokio::time::timeout(std::time::Duration::ZERO, quiet.changed()).await;
        assert!(unrelated.is_err());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_server_is_kept_off_a_sqlite_database_until_the_first_ends() {
    let db = Database::sqlite().await;
    let second = Store::open_exclusive(&db.url, sealer()).await;
    assert!(matches!(second, Err(StoreError::InUse(_))), "{second:?}");
    let Database { url, store, .. } = &db;
    let url = url.clone();
    let mac = Mac::enroll(1, store).await;
    let folder = db.keep_folder();
    let second = Store::open_exclusive(&url, sealer())
        .await
        .expect("the lock is free");
    let speaker = speaker(&second, mac.identity.certificate).await;
    assert!(speaker.is_some(), "the roster is read at opening");
    drop((second, folder));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_the_server_of_a_sqlite_database_no_mac_is_touched() {
    let db = Database::sqlite().await;
    let mac = Mac::enroll(1, &db.store).await;
    let beside = db.beside().await;
    let mut write = beside.write().await.expect("begins");
    write
        .save_verification(&mac.verification(1))
        .await
        .expect("is saved");
    let committed = write.commit().await;
    assert!(
        matches!(committed, Err(StoreError::NotTheOwner)),
        "{committed:?}"
    );
    let exchanged = beside
        .exchange(mac.device_id(), None, None, |_| (Changes::default(), ()))
        .await;
    assert!(
        matches!(exchanged, Err(StoreError::NotTheOwner)),
        "{exchanged:?}"
    );

    let read = db.store.read().await.expect("begins");
    assert_eq!(
        read.open_verification(mac.device_id())
            .await
            .expect("answers"),
        None
    );

    let mut write = beside.write().await.expect("begins");
    write
        .set_fact("from", "the command line")
        .await
        .expect("is kept");
    write
        .commit()
        .await
        .expect("what is about no Mac may be written");
}
