//! The outbox.

use std::time::Duration;

use super::fixture::{Mac, event};
use crate::harness::database::Database;

on_both! {
    async fn events_are_read_in_pages_in_the_order_of_their_numbers(db: Database) {
        let mac = Mac::enroll(1, &db.store).await;
        let mut appended = db.store.events_appended();
        appended.mark_unchanged();
        let mut write = db.store.write().await.expect("begins");
        for name in ["one", "two", "three"] {
            write.append_event(mac.device_id(), &event(name)).await.expect("is appended");
        }
        assert_eq!(db.store.events_after(0, 10).await.expect("answers"), []);
        write.commit().await.expect("commits");
        assert!(appended.has_changed().expect("is open"));

        let first = db.store.events_after(0, 2).await.expect("answers");
        let names: Vec<_> = first.iter().map(|it| it.event.name.as_str()).collect();
        assert_eq!(names, ["one", "two"]);
        let rest = db.store.events_after(first[1].seq, 10).await.expect("answers");
        assert_eq!(rest[0].event, event("three"));
        assert_eq!(rest[0].seq, db.store.newest_event().await.expect("answers"));
        assert_eq!(db.store.events_after(rest[0].seq, 10).await.expect("answers"), []);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgresql_an_event_that_is_committed_late_is_waited_for() {
    let db = Database::postgresql().await;
    let slow = Mac::enroll(1, &db.store).await;
    let quick = Mac::enroll(2, &db.store).await;
    let mut late = db.store.write().await.expect("begins");
    late.append_event(slow.device_id(), &event("numbered first"))
        .await
        .expect("is appended");
    let mut early = db.store.write().await.expect("begins");
    early
        .append_event(quick.device_id(), &event("numbered second"))
        .await
        .expect("is appended");
    early.commit().await.expect("commits");

    let reader = db.store.clone();
    let mut reading = tokio::spawn(async move { reader.events_after(0, 10).await });
    let too_soon = tokio::time::timeout(Duration::from_millis(200), &mut reading).await;
    assert!(too_soon.is_err(), "the first event is not committed yet");
    late.commit().await.expect("commits");
    let events = reading.await.expect("ends").expect("answers");
    let names: Vec<_> = events.iter().map(|it| it.event.name.as_str()).collect();
    assert_eq!(names, ["numbered first", "numbered second"]);
}
