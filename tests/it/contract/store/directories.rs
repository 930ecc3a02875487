//! What happened under a ticket's ACME directory.

use attestd::acme::Directory;
use attestd::enrollment::ticket::Bounds;
use attestd::enrollment::{Protocol, Ticket};
use attestd::entropy::SeededEntropy;
use attestd::ids::SecretHash;
use attestd::store::{OpenDirectory, Store, StoreError};
use serde_json::json;

use super::fixture::now;

async fn ticket(store: &Store, number: u64) -> SecretHash {
    let bounds = Bounds {
        serial: None,
        account: None,
        se_public_key: None,
        protocol: Protocol::Acme,
    };
    let (ticket, _) = Ticket::issue(bounds, now(), &SeededEntropy::new(number));
    let mut write = store.write().await.expect("begins");
    write.insert_ticket(&ticket).await.expect("is kept");
    write.commit().await.expect("is kept");
    ticket.secret
}

async fn read(store: &Store, secret: SecretHash) -> OpenDirectory {
    let found = store.acme_directory(secret).await.expect("answers");
    found.expect("is there")
}

/// A directory in which this nonce was used.
fn used(nonce: &str) -> Directory {
    let kept = json!({ "accounts": {}, "orders": {}, "spent": [nonce] });
    serde_json::from_value(kept).expect("a directory")
}

on_both! {
    async fn of_two_who_change_a_directory_at_once_the_later_looks_again(db: Database) {
        let secret = ticket(&db.store, 1).await;
        let nobody = SecretHash::of(b"nobody's");
        assert!(db.store.acme_directory(nobody).await.expect("answers").is_none());
        let [mut first, mut second] = [read(&db.store, secret).await, read(&db.store, secret).await];
        assert_eq!(first.directory, Directory::default());
        first.directory = used("first");
        second.directory = used("second");
        db.store.save_acme_directory(first, None).await.expect("is kept");
        let late = db.store.save_acme_directory(second, None).await;
        assert!(matches!(late, Err(StoreError::Conflict)), "{late:?}");
        let mut again = read(&db.store, secret).await;
        assert_eq!(again.directory, used("first"));
        again.directory = used("second");
        db.store.save_acme_directory(again, None).await.expect("is kept");
        assert_eq!(read(&db.store, secret).await.directory, used("second"));
    }
}

on_both! {
    async fn more_directories_than_are_kept_at_hand_are_all_found(db: Database) {
        let mut secrets = Vec::new();
        for number in 0..520 {
            let secret = ticket(&db.store, number).await;
            let mut open = read(&db.store, secret).await;
            open.directory = used(&number.to_string());
            db.store.save_acme_directory(open, None).await.expect("is kept");
            secrets.push(secret);
        }
        for (number, secret) in secrets.into_iter().enumerate() {
            let found = read(&db.store, secret).await;
            assert_eq!(found.directory, used(&number.to_string()));
        }
    }
}
