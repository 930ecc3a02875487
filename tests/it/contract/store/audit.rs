//! The audit log: an entry is there if what it tells of was committed, and the chain is one whoever writes.

use attestd::audit::{Chain, Entry, Fault, Head, Verb, Who};
use attestd::flows::read_audit::check;
use attestd::store::Store;
use sea_orm::ConnectionTrait;

use super::fixture::now;

fn entry(subject: &'static str) -> Entry {
    Entry::new(&Who::Service, Verb::PolicyUse, subject, now())
}

async fn record(store: &Store, fact: &str, subject: &'static str) {
    let mut tx = store.write().await.expect("begins");
    tx.set_fact(fact, subject).await.expect("is stated");
    tx.record(entry(subject));
    tx.commit().await.expect("commits");
}

async fn head(store: &Store) -> Head {
    store
        .read()
        .await
        .expect("reads")
        .audit_head()
        .await
        .expect("answers")
}

on_both! {
    async fn an_entry_is_kept_with_what_it_tells_of_and_never_without(db: Database) {
        assert_eq!(head(&db.store).await, Head::BEGINNING);
        record(&db.store, "a", "first").await;
        let one = head(&db.store).await;
        assert_eq!(one.seq, 1);

        let mut dropped = db.store.write().await.expect("begins");
        dropped.record(entry("never"));
        drop(dropped);
        assert_eq!(head(&db.store).await, one);

        let mut two = db.store.write().await.expect("begins");
        two.record(entry("second"));
        two.record(entry("third"));
        two.commit().await.expect("commits");
        let tx = db.store.read().await.expect("reads");
        let links = tx.audit_after(0, None, 10).await.expect("answers");
        let subjects: Vec<_> = links
            .iter()
            .map(|link| Entry::read(&link.text).expect("readable").1.subject)
            .collect();
        assert_eq!(subjects, ["first", "second", "third"]);
        let of_one = tx.audit_after(0, Some("second"), 10).await.expect("answers");
        assert_eq!(of_one, links[1..2]);
        let latest = tx.audit_before(None, None, 2).await.expect("answers");
        assert_eq!(latest, [links[2].clone(), links[1].clone()]);
        let mut chain = Chain::from_the_beginning(None);
        assert!(links.iter().all(|link| chain.follow(link).is_ok()));
    }
}

// Two nodes on a PostgreSQL; a server and a command beside it on SQLite.
on_both! {
    async fn two_processes_that_write_at_once_make_one_chain(db: Database) {
        const EACH: usize = 20;
        let beside = db.beside().await;
        let write = async |store: &Store, fact: &'static str| {
            for _ in 0..EACH {
                record(store, fact, fact).await;
            }
        };
        tokio::join!(
            write(&db.store, "here"),
            write(&beside, "there"),
            write(&db.store, "here too"),
        );
        let whole = check(&db.store, None).await.expect("is read").expect("is whole");
        assert_eq!(whole.seq, i64::try_from(3 * EACH).expect("few"));
        assert_eq!(whole, head(&beside).await);
    }
}

on_both! {
    async fn whatever_is_done_to_the_table_is_found(db: Database) {
        for subject in ["a", "b", "c"] {
            record(&db.store, "fact", subject).await;
        }
        let remembered = head(&db.store).await;
        let sane = check(&db.store, Some(remembered)).await.expect("is read");
        assert_eq!(sane, Ok(remembered));
        let plain = db.plain().await;
        let (after, found) = (1, 3);
        let (last, was) = (2, 3);
        for (change, undo, fault) in [
            (
                "UPDATE audit SET entry = REPLACE(entry, '\"b\"', '\"x\"') WHERE seq = 2",
                "UPDATE audit SET entry = REPLACE(entry, '\"x\"', '\"b\"') WHERE seq = 2",
                Fault::Changed(2),
            ),
            (
                "UPDATE audit SET seq = 9 WHERE seq = 2",
                "UPDATE audit SET seq = 2 WHERE seq = 9",
                Fault::Gap { after, found },
            ),
            (
                "UPDATE audit SET seq = 9 WHERE seq = 1",
                "UPDATE audit SET seq = 1 WHERE seq = 9",
                Fault::WrongBeginning(2),
            ),
        ] {
            plain.execute_unprepared(change).await.expect("changes");
            let judged = check(&db.store, None).await.expect("is read");
            assert_eq!(judged, Err(fault), "{change}");
            plain.execute_unprepared(undo).await.expect("changes");
        }
        plain
            .execute_unprepared("DELETE FROM audit WHERE seq = 3")
            .await
            .expect("is cut off");
        assert!(check(&db.store, None).await.expect("is read").is_ok());
        let judged = check(&db.store, Some(remembered)).await.expect("is read");
        assert_eq!(judged, Err(Fault::Truncated { last, remembered: was }));
        // Whoever writes on after a cut cannot make it good.
        record(&db.store, "fact", "d").await;
        let judged = check(&db.store, Some(remembered)).await.expect("is read");
        assert_eq!(judged, Err(Fault::OtherHistory(3)));
    }
}
