//! What is next for each Mac follows whatever is stored of it, and due Macs are shared.

use std::collections::BTreeSet;

use attestd::ids::DeviceId;
use attestd::store::{Changes, Store};
use attestd::time::Timestamp;
use attestd::verification::agenda::budget::LEASE;
use attestd::verification::agenda::{Cause, Rules};
use attestd::verification::{Kind, Priority};

use super::fixture::{Mac, later, now};
use crate::harness::database::Database;

/// When a Mac is due by what the store searches, after checking that this is what its agenda says.
async fn due(store: &Store, device_id: &DeviceId) -> Option<(Timestamp, Priority)> {
    let read = store.read().await.expect("begins");
    let agenda = read
        .agenda(device_id)
        .await
        .expect("answers")
        .expect("is there");
    let next = agenda.next(&Rules::usual());
    let due = read.due(device_id).await.expect("answers");
    assert_eq!(due.map(|(at, _)| at), next.due_at);
    assert_eq!(
        due.map(|(_, priority)| priority),
        next.due_at.map(|_| next.priority)
    );
    due
}

/// Those that are due, some at a time.
async fn walk(store: &Store, at: Timestamp, some: usize) -> Vec<DeviceId> {
    let mut walk = store.due(at);
    let mut found = Vec::new();
    loop {
        let next = walk.next(some, |_| false).await.expect("reads");
        assert!(next.len() <= some);
        if next.is_empty() {
            return found;
        }
        assert!(next.iter().all(|mac| mac.agenda.is_some()));
        found.extend(next.into_iter().map(|mac| mac.device_id));
    }
}

on_both! {
    async fn an_agenda_follows_whatever_is_stored_of_its_mac(db: Database) {
        let mac = Mac::enroll(1, &db.store).await;
        let id = mac.device_id();
        assert_eq!(due(&db.store, id).await, Some((now(), Priority::First)));

        // An attempt, in a transaction and in an exchange.
        let mut verification = mac.verification(1);
        let mut write = db.store.write().await.expect("begins");
        write.save_verification(&verification).await.expect("is saved");
        write.commit().await.expect("commits");
        let agenda = db.store.read().await.expect("begins").agenda(id).await;
        assert!(agenda.expect("answers").expect("is there").ripe(&Rules::usual(), now()).is_empty());
        verification.settle(None, later(90));
        let changes = Changes { verification: Some(verification), ..Changes::default() };
        db.store.exchange(id, None, None, move |_| (changes, ())).await.expect("is kept");
        let (after_silence, _) = due(&db.store, id).await.expect("is due");
        assert!(after_silence > later(90 + 15 * 60));

        // What was done for it.
        let mut write = db.store.write().await.expect("begins");
        let mut agenda = write.agenda(id).await.expect("answers").expect("is there");
        agenda.bring_forward(&[Kind::SecurityInfo], Cause::Restarted, later(100));
        write.keep_agenda(agenda);
        write.commit().await.expect("commits");
        due(&db.store, id).await;
        let forward = |review: attestd::store::Review| {
            let mut agenda = review.agenda;
            agenda.readdressed(later(110));
            (Changes { agenda: Some(agenda), ..Changes::default() }, ())
        };
        assert_eq!(db.store.review(id, forward).await.expect("is kept"), Some(()));
        due(&db.store, id).await;

        // What is believed: revoked, and given back.
        for revoked in [true, false] {
            let mut posture = mac.posture(2 + u64::from(!revoked));
            if revoked {
                posture.revoke(later(120));
            }
            let mut write = db.store.write().await.expect("begins");
            write.save_posture(&posture).await.expect("is saved");
            write.commit().await.expect("commits");
            assert_eq!(due(&db.store, id).await.is_none(), revoked);
        }

        // It leaves.
        let mut left = mac.enrollment.clone();
        left.check_out(later(130));
        let mut write = db.store.write().await.expect("begins");
        write.save_enrollment(&left).await.expect("is saved");
        write.commit().await.expect("commits");
        assert_eq!(due(&db.store, id).await, None);
        assert_eq!(walk(&db.store, later(1_000_000), 10).await, []);
    }
}

on_both! {
    async fn nothing_that_was_rolled_back_is_followed(db: Database) {
        let mac = Mac::enroll(1, &db.store).await;
        let before = due(&db.store, mac.device_id()).await;
        let mut write = db.store.write().await.expect("begins");
        write.save_verification(&mac.verification(1)).await.expect("is saved");
        drop(write);
        assert_eq!(due(&db.store, mac.device_id()).await, before);
    }
}

on_both! {
    async fn the_most_urgent_come_first_each_once(db: Database) {
        let mut macs = Vec::new();
        for number in 1..=7 {
            macs.push(Mac::enroll(number, &db.store).await);
        }
        // One whose attempt renews what is known, and the others are new.
        let mut refresh = macs[0].verification(1);
        refresh.priority = Priority::Refresh;
        let mut write = db.store.write().await.expect("begins");
        write.save_verification(&refresh).await.expect("is saved");
        write.commit().await.expect("commits");

        let found = walk(&db.store, later(1), 2).await;
        assert_eq!(found[6], *macs[0].device_id());
        let all: BTreeSet<_> = found.iter().collect();
        assert_eq!((found.len(), all.len()), (7, 7));
    }
}

/// A database that is this server's alone has no marks: its queue says who waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite_those_that_wait_already_are_passed_over() {
    let db = Database::sqlite().await;
    let waiting = Mac::enroll(1, &db.store).await;
    let next = Mac::enroll(2, &db.store).await;
    let waits = |mac: &DeviceId| mac == waiting.device_id();
    let mut walk = db.store.due(later(1));
    let found = walk.next(1, waits).await.expect("reads");
    assert_eq!(found[0].device_id, *next.device_id());
    assert!(walk.next(1, waits).await.expect("reads").is_empty());
    let mut walk = db.store.due(later(1));
    assert!(walk.next(0, waits).await.expect("reads").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgresql_a_dead_nodes_macs_are_free_again() {
    let db = Database::postgresql().await;
    for number in 1..=3 {
        Mac::enroll(number, &db.store).await;
    }
    assert_eq!(walk(&db.store, later(1), 2).await.len(), 3);
    let lease = later(1).plus(LEASE);
    let until = lease.minus(std::time::Duration::from_millis(1));
    assert_eq!(walk(&db.store, until, 2).await, []);
    assert_eq!(walk(&db.store, lease, 2).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgresql_two_nodes_take_each_mac_once() {
    let db = Database::postgresql().await;
    let other = db.beside().await;
    for number in 1..=60 {
        Mac::enroll(number, &db.store).await;
    }
    let (first, second) = tokio::join!(walk(&db.store, later(1), 7), walk(&other, later(1), 7));
    let all: BTreeSet<_> = first.iter().chain(&second).collect();
    assert_eq!((first.len() + second.len(), all.len()), (60, 60));
}

on_both! {
    async fn whoever_dies_while_looking_changes_nothing(db: Database) {
        let macs = [Mac::enroll(1, &db.store).await, Mac::enroll(2, &db.store).await];
        let before = due(&db.store, macs[0].device_id()).await;
        let last = macs[1].device_id().clone();
        let devices = macs.iter().map(|mac| mac.device_id().clone()).collect();
        let died = db.store.review_all(devices, move |review| -> (Changes, ()) {
            assert!(review.device_id != last, "a decision that panics");
            let mut agenda = review.agenda;
            agenda.stands(false, now());
            (Changes { agenda: Some(agenda), ..Changes::default() }, ())
        }).await;
        assert!(died.is_err());
        assert_eq!(due(&db.store, macs[0].device_id()).await, before);
    }
}
