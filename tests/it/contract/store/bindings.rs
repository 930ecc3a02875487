//! Provider sessions, and the memory that answers for them.

use std::sync::Arc;
use std::time::Duration;

use attestd::entropy::SeededEntropy;
use attestd::ids::{BindingId, ChallengeId, SecretHash, SerialNumber, SessionId};
use attestd::provider::{Challenge, EncryptionKey, Registration, SePublicKey, Session};
use attestd::reason::Reason;
use attestd::store::{Glance, IssuedChallenge, Store, StoreError};
use attestd::time::Timestamp;
use attestd_sim::{Clock, Provider};
use serde_json::json;

use super::fixture::{Mac, event, later, now};
use crate::harness::database::Database;

/// A session that claims the Mac of this number.
fn session(name: &str, number: u64) -> Session {
    let serial = format!("SIMTEST{number:05}");
    let provider = Provider::new(&serial, &Clock::fixed(now().millis())).expect("a provider");
    let (blob, signature) = provider.blob().expect("a blob");
    let registration = Registration {
        key: SePublicKey::parse(&provider.public_key().expect("a key")).expect("a key"),
        encryption_key: EncryptionKey::parse(provider.encryption_key()).expect("a key"),
        provider_version: None,
        account: Some(format!("account-{number}")),
        claimed_serial: SerialNumber::parse(&serial).ok(),
        blob: blob.into_bytes(),
        signature,
    };
    let seed = number * 100 + u64::try_from(name.len()).expect("short");
    let binding_id = BindingId::new(now(), &SeededEntropy::new(seed));
    Session::begin(id(name), binding_id, registration.judge(now()), now())
}

fn id(name: &str) -> SessionId {
    SessionId::parse(name).expect("a session")
}

async fn begun(store: &Store, session: &Session) {
    let mut write = store.write().await.expect("begins");
    let document = json!({ "of": session.session_id });
    write
        .insert_session(session, &document)
        .await
        .expect("is new");
    write.commit().await.expect("commits");
}

async fn saved(store: &Store, session: &Session) {
    let mut write = store.write().await.expect("begins");
    write.session(&session.session_id).await.expect("is locked");
    write.save_session(session).await.expect("is saved");
    write.commit().await.expect("commits");
}

/// Fills the memory of a store with a session, as whoever is asked for it does.
fn remembers(store: &Store, session: &Session) {
    store.board().begin().keep(&Glance {
        session: Arc::new(session.clone()),
        mac: None,
        release: Err(Reason::ReleaseUnknown),
    });
}

fn finds(store: &Store, name: &str) -> bool {
    store.board().glance(&id(name)).is_some()
}

on_both! {
    async fn a_session_is_found_by_what_it_claims_until_it_ends(db: Database) {
        let mac = Mac::enroll(1, &db.store).await;
        let mut one = session("one", 1);
        let other = session("other", 1);
        begun(&db.store, &one).await;
        begun(&db.store, &other).await;
        one.device_id = Some(mac.device_id().clone());
        saved(&db.store, &one).await;
        let names = |found: Vec<Session>| -> Vec<String> {
            let mut names: Vec<_> = found.iter().map(|it| it.session_id.to_string()).collect();
            names.sort();
            names
        };
        let read = db.store.read().await.expect("begins");
        let serial = one.claimed_serial.clone().expect("it claims one");
        assert_eq!(names(read.sessions_claiming(&serial).await.expect("answers")), ["one", "other"]);
        assert_eq!(names(read.glimpse().sessions_of(mac.device_id()).await.expect("answers")), ["one"]);
        assert_eq!(names(read.sessions_of_key(other.key.point()).await.expect("answers")), ["other"]);
        let kept = read.registration(&id("one")).await.expect("answers");
        assert_eq!(kept, Some(json!({ "of": "one" })));
        drop(read);

        assert!(one.end(None, later(5)));
        saved(&db.store, &one).await;
        let read = db.store.read().await.expect("begins");
        assert_eq!(names(read.sessions_claiming(&serial).await.expect("answers")), ["other"]);
        let former = read.former_session(mac.device_id(), &id("new")).await.expect("answers");
        assert_eq!(former.expect("it ended").session_id, id("one"));
        assert!(read.silent(later(1), 9).await.expect("answers").contains(&id("other")));
        drop(read);
        let mut write = db.store.write().await.expect("begins");
        assert!(matches!(write.insert_session(&other, &json!({})).await, Err(StoreError::Conflict)));
        drop(write);
        let mut write = db.store.write().await.expect("begins");
        write.forget_sessions(later(6)).await.expect("forgets");
        write.commit().await.expect("commits");
        let read = db.store.read().await.expect("begins");
        assert!(read.session(&id("one")).await.expect("answers").is_none());
        assert!(read.session(&id("other")).await.expect("answers").is_some());
    }
}

on_both! {
    async fn a_challenge_is_concluded_once_and_late_ones_are_found(db: Database) {
        let mut session = session("one", 1);
        begun(&db.store, &session).await;
        let rules = attestd::provider::liveness::Rules::default();
        let challenge = Challenge::mint([7; 32], now());
        session.liveness.issue(challenge.clone(), &rules, now()).expect("none is outstanding");
        saved(&db.store, &session).await;
        let issued = IssuedChallenge {
            challenge_id: ChallengeId::new(now(), &SeededEntropy::new(3)),
            session_id: id("one"),
            challenge,
            outcome: None,
        };
        let mut write = db.store.write().await.expect("begins");
        write.insert_challenge(&issued).await.expect("is kept");
        write.commit().await.expect("commits");
        let late = |now: Timestamp| {
            let store = db.store.clone();
            async move { store.read().await.expect("begins").unanswered(now, 9).await.expect("answers") }
        };
        assert!(late(later(30)).await.is_empty());
        assert_eq!(late(later(31)).await, [id("one")]);
        let conclude = |outcome: &'static str| {
            let (store, challenge_id) = (db.store.clone(), issued.challenge_id.clone());
            async move {
                let mut write = store.write().await.expect("begins");
                write.conclude_challenge(&challenge_id, &json!(outcome), later(2)).await?;
                write.commit().await
            }
        };
        conclude("good").await.expect("the first");
        assert!(matches!(conclude("bad").await, Err(StoreError::Conflict)));
        let read = db.store.read().await.expect("begins");
        let kept = read.challenge(&issued.challenge_id).await.expect("answers").expect("kept");
        assert_eq!((kept.outcome, kept.challenge.nonce()), (Some(json!("good")), issued.challenge.nonce()));
    }
}

on_both! {
    async fn an_event_need_not_be_about_a_mac(db: Database) {
        let mut write = db.store.write().await.expect("begins");
        write.append_event_about(None, &event("challenge.due")).await.expect("is appended");
        write.commit().await.expect("commits");
        let told = db.store.events_after(0, 9).await.expect("answers");
        assert_eq!((told.len(), &told[0].device_id), (1, &None));
    }
}

on_both! {
    async fn memory_forgets_what_a_commit_changes_before_it_is_answered(db: Database) {
        db.store.follow_changes().await.expect("follows");
        let mac = Mac::enroll(1, &db.store).await;
        let mut one = session("one", 1);
        begun(&db.store, &one).await;
        let (fill, early) = (db.store.board().begin(), one.clone());
        remembers(&db.store, &one);
        assert!(finds(&db.store, "one"));
        one.device_id = Some(mac.device_id().clone());
        saved(&db.store, &one).await;
        assert!(!finds(&db.store, "one"));
        // Whoever read it before the change does not bring it back.
        fill.keep(&Glance { session: Arc::new(early), mac: None, release: Ok(()) });
        assert!(!finds(&db.store, "one"));
        // A change that is not committed is none.
        let without = session("two", 2);
        begun(&db.store, &without).await;
        remembers(&db.store, &without);
        let mut write = db.store.write().await.expect("begins");
        write.save_session(&without).await.expect("is saved");
        drop(write);
        assert!(finds(&db.store, "two"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgresql_a_server_forgets_what_another_changed_and_trusts_no_memory_it_cannot_follow()
{
    let db = Database::postgresql().await;
    let (here, there) = (db.store.clone(), db.beside().await);
    let mut one = session("one", 1);
    begun(&here, &one).await;
    // Before the log was read for the first time nothing is found, and nothing kept is used.
    remembers(&there, &one);
    assert!(!finds(&there, "one"));
    there.follow_changes().await.expect("follows");
    assert!(!finds(&there, "one"));
    remembers(&there, &one);
    assert!(finds(&there, "one"));

    assert!(one.end(None, later(1)));
    saved(&here, &one).await;
    there.follow_changes().await.expect("follows");
    assert!(!finds(&there, "one"), "another server changed it");
    there.follow_changes().await.expect("follows");
    remembers(&there, &one);
    assert!(finds(&there, "one"));

    // A change that is numbered earlier and committed later is not missed.
    let (two, three) = (session("two", 2), session("three", 3));
    begun(&here, &two).await;
    begun(&here, &three).await;
    there.follow_changes().await.expect("follows");
    remembers(&there, &two);
    remembers(&there, &three);
    let mut slow = here.write().await.expect("begins");
    slow.save_session(&two).await.expect("is saved");
    let committed = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(200)).await;
        slow.commit().await.expect("commits");
    });
    saved(&here, &three).await;
    there.follow_changes().await.expect("follows");
    assert!(!finds(&there, "three"));
    committed.await.expect("is committed");
    there.follow_changes().await.expect("follows");
    assert!(!finds(&there, "two"));

    // A token that is withdrawn there is none here, either.
    let secret = SecretHash::of(b"a token");
    assert!(
        there
            .api_token(secret, now())
            .await
            .expect("answers")
            .is_none()
    );

    // Long without the log, long without memory.
    remembers(&there, &one);
    assert!(finds(&there, "one"));
    tokio::time::sleep(Duration::from_millis(2100)).await;
    assert!(!finds(&there, "one"));
}
