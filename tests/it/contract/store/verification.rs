//! Verifications.

use attestd::ids::sha256;
use attestd::store::StoreError;
use attestd::verification::{CommandState, State};

use super::fixture::{Mac, later, now};

on_both! {
    async fn a_mac_has_at_most_one_open_verification(db: Database) {
        let mac = Mac::enroll(1, &db.store).await;
        let mut first = mac.verification(1);
        let second = mac.verification(2);
        let mut write = db.store.write().await.expect("begins");
        write.save_verification(&first).await.expect("is saved");
        write.commit().await.expect("commits");

        let mut write = db.store.write().await.expect("begins");
        let saved = write.save_verification(&second).await;
        assert!(matches!(saved, Err(StoreError::Conflict)), "{saved:?}");
        drop(write);

        first.cancel(State::Superseded, later(3));
        let mut write = db.store.write().await.expect("begins");
        write.save_verification(&first).await.expect("is saved");
        write.save_verification(&second).await.expect("is the only open one");
        let open = write.open_verification(mac.device_id()).await.expect("answers");
        assert_eq!(open.as_ref(), Some(&second));
        let all = write.verifications_of(mac.device_id(), 10).await.expect("answers");
        assert_eq!(all.len(), 2);
        let stored = write.verification(&first.verification_id).await.expect("answers");
        assert_eq!(stored, Some(first));
    }
}

on_both! {
    async fn a_request_is_remembered_under_its_key(db: Database) {
        let mac = Mac::enroll(1, &db.store).await;
        let verification = mac.verification(1);
        let hash = sha256(b"the request");
        let id = &verification.verification_id;
        let mut write = db.store.write().await.expect("begins");
        write.save_verification(&verification).await.expect("is saved");
        write.remember_request("key", hash, id, now()).await.expect("is new");
        write.remember_request("joined", hash, id, now()).await.expect("is new");
        for key in ["key", "joined"] {
            let found = write.request(key).await.expect("answers");
            assert_eq!(found, Some((hash, id.clone())));
        }
        assert_eq!(write.request("another").await.expect("answers"), None);
        let again = write.remember_request("key", hash, id, now()).await;
        assert!(matches!(again, Err(StoreError::Conflict)), "{again:?}");
    }
}

on_both! {
    async fn a_new_enrollment_forgets_what_was_asked_before(db: Database) {
        let mac = Mac::enroll(1, &db.store).await;
        let verification = mac.verification(1);
        let out = mac.command(1, &verification);
        let mut answered = mac.command(2, &verification);
        answered.state = CommandState::Answered;
        answered.concluded_at = Some(later(5));
        let mut write = db.store.write().await.expect("begins");
        write.save_verification(&verification).await.expect("is saved");
        write.save_command(&out).await.expect("is saved");
        write.save_command(&answered).await.expect("is saved");
        let forgotten = write.forget_queue(mac.device_id(), State::Superseded, later(10)).await;
        assert_eq!(forgotten.expect("answers"), Some(verification.verification_id.clone()));
        write.commit().await.expect("commits");

        let read = db.store.read().await.expect("begins");
        assert_eq!(read.open_verification(mac.device_id()).await.expect("answers"), None);
        let ended = read.verification(&verification.verification_id).await.expect("answers");
        assert_eq!(ended.expect("is there").state(), State::Superseded);
        let out = read.command(&out.command_uuid).await.expect("answers").expect("is there");
        assert_eq!(out.state, CommandState::Superseded);
        assert_eq!(out.concluded_at, Some(later(10)));
        let kept = read.command(&answered.command_uuid).await.expect("answers");
        assert_eq!(kept, Some(answered));
        drop(read);

        let mut write = db.store.write().await.expect("begins");
        let nothing = write.forget_queue(mac.device_id(), State::Superseded, later(11)).await;
        assert_eq!(nothing.expect("answers"), None);
    }
}
