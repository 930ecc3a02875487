//! The outbox.

use std::time::Duration;

use attestd::audit::Who;
use attestd::entropy::SeededEntropy;
use attestd::flows::webhook::{Wanted, add};
use attestd::ids::WebhookName;
use attestd::secret::Secret;
use attestd::store::DeadLetter;

use super::fixture::{Mac, event, later, now};
use crate::harness::database::Database;

on_both! {
    async fn events_are_removed_from_the_oldest_on_once_every_webhook_was_told(db: Database) {
        let mac = Mac::enroll(1, &db.store).await;
        let tell = async |name: &str| {
            let mut write = db.store.write().await.expect("begins");
            write.append_event(mac.device_id(), &event(name)).await.expect("is appended");
            write.commit().await.expect("commits");
        };
        let forget = async |limit| {
            let mut write = db.store.write().await.expect("begins");
            let more = write.forget_events(later(1), limit).await.expect("removes");
            write.commit().await.expect("commits");
            more
        };
        let left = async || {
            let left = db.store.events_after(0, 10).await.expect("answers");
            left.into_iter().map(|it| it.event.name).collect::<Vec<_>>()
        };
        for name in ["one", "two", "three"] {
            tell(name).await;
        }
        assert!(forget(1).await, "there is more");
        assert_eq!(left().await, ["two", "three"]);
        let hook = Wanted {
            name: WebhookName::parse("hook").expect("a name"),
            url: Secret::new("https://hooks.example.org/".to_owned()),
            events: None,
            allow_private: false,
            root: None,
            secret: None,
        };
        let entropy = SeededEntropy::new(1);
        let hook = add(&db.store, hook, &entropy, &Who::Service, now()).await.expect("answers").expect("is added");
        let told = db.store.newest_event().await.expect("answers");
        assert_eq!(hook.course.cursor, told);
        tell("four").await;
        assert!(!forget(10).await);
        assert_eq!(left().await, ["four"], "the webhook was not told of it");
        assert_eq!(db.store.events_removed_up_to().await.expect("answers"), told);
        assert_eq!(db.store.settled_event().await.expect("answers"), told + 1);

        // It takes what was given up of it along.
        let letter = DeadLetter {
            event: db.store.events_after(told, 1).await.expect("answers").remove(0),
            why: "answered 400".to_owned(),
            given_up_at: now(),
            replay_since: None,
        };
        let mut write = db.store.write().await.expect("begins");
        write.keep_dead_letter(&hook.webhook_id, &letter).await.expect("is kept");
        assert_eq!(write.dead_letters(&hook.webhook_id, false, 9).await.expect("answers"), [letter]);
        assert_eq!(write.dead_letters(&hook.webhook_id, true, 9).await.expect("answers"), []);
        assert!(write.remove_webhook(&hook.name).await.expect("is removed"));
        assert_eq!(write.dead_letter_count(&hook.webhook_id).await.expect("answers"), 0);
        assert!(!write.remove_webhook(&hook.name).await.expect("is no more"));
        // As webhooks do, signals hold back what they were not made of, and no longer than they are made.
        write.begin_signals(told).await.expect("begins");
        write.commit().await.expect("commits");
        assert!(!forget(10).await);
        assert_eq!(left().await, ["four"], "no signal was made of it");
        let mut write = db.store.write().await.expect("begins");
        assert_eq!(write.signals_made_up_to().await.expect("answers"), Some(told));
        write.end_signals().await.expect("ends");
        write.commit().await.expect("commits");
        assert!(!forget(10).await);
        assert_eq!(left().await, Vec::<String>::new());
        // No number is given again, and whoever has read everything goes on.
        assert_eq!(db.store.settled_event().await.expect("answers"), told + 1);
        assert_eq!(db.store.event_page(told + 1, 10).await.expect("answers").events, []);
        tell("five").await;
        let five = db.store.event_page(told + 1, 10).await.expect("answers");
        assert_eq!((five.events.len(), five.up_to), (1, told + 2));
    }
}

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
