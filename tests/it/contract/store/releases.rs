//! The registry of releases, and requests for profiles that are granted once.

use attestd::provider::Release;
use attestd::provider::release::Registration;
use attestd::reason::Reason;
use attestd::store::{ReleaseAction, ReleaseEntry, StoreError};

use super::fixture::{event, later, now};

fn release(byte: u8, platform: &str) -> Release {
    let hash = hex::encode([byte; 32]);
    let body = format!(
        "{{\"version\":\"1.0.{byte}\",\"binary_hash\":\"{hash}\",\"platform\":\"{platform}\"}}"
    );
    let registration = Registration::parse(body.as_bytes()).expect("well formed");
    let registered = registration.register(None, later(u64::from(byte)));
    registered.expect("is possible").expect("is new")
}

fn entry(release: &Release, action: ReleaseAction) -> ReleaseEntry {
    ReleaseEntry {
        seq: 0,
        at: now(),
        action,
        binary_hash: release.binary_hash,
        platform: release.platform.clone(),
        version: release.version.clone(),
        who: "somebody".to_owned(),
        why: "'; DROP TABLE releases".to_owned(),
    }
}

on_both! {
    async fn a_program_stands_once_per_platform_and_is_withdrawn_once(db: Database) {
        let (mac, linux) = (release(1, "macos-arm64"), release(1, "linux-x86-64"));
        for release in [&mac, &linux] {
            let mut write = db.store.write().await.expect("begins");
            write.insert_release(release).await.expect("is new");
            write.commit().await.expect("commits");
        }
        let mut write = db.store.write().await.expect("begins");
        let again = write.insert_release(&mac).await;
        assert!(matches!(again, Err(StoreError::Conflict)), "{again:?}");
        drop(write);

        let mut withdrawn = mac.clone();
        withdrawn.revoke("a story", later(50)).expect("a reason");
        let mut write = db.store.write().await.expect("begins");
        write.withdraw_release(&withdrawn).await.expect("stands");
        write.commit().await.expect("commits");
        let mut write = db.store.write().await.expect("begins");
        let again = write.withdraw_release(&withdrawn).await;
        assert!(matches!(again, Err(StoreError::Conflict)), "{again:?}");
        drop(write);

        let read = db.store.read().await.expect("begins");
        let standing = async |release: &Release| {
            read.glimpse().release_standing(&release.binary_hash, &release.platform).await.expect("answers")
        };
        assert_eq!(standing(&mac).await, Err(Reason::ReleaseRevoked));
        assert_eq!(standing(&linux).await, Ok(()));
        assert_eq!(standing(&release(2, "macos-arm64")).await, Err(Reason::ReleaseUnknown));
        let known = read.release(&mac.binary_hash, &mac.platform).await.expect("answers");
        assert_eq!(known.as_ref(), Some(&withdrawn));
        assert_eq!(read.releases().await.expect("answers"), [linux, withdrawn]);
    }
}

on_both! {
    async fn what_was_done_to_releases_is_numbered_and_kept(db: Database) {
        let release = release(1, "macos-arm64");
        let mut generations = Vec::new();
        for action in [ReleaseAction::Registered, ReleaseAction::Revoked] {
            let mut write = db.store.write().await.expect("begins");
            generations.push(write.release_generation().await.expect("answers"));
            write.record_release(&entry(&release, action)).await.expect("is kept");
            write.append_event_about(None, &event("release.changed")).await.expect("is appended");
            write.commit().await.expect("commits");
        }
        let read = db.store.read().await.expect("begins");
        generations.push(read.release_generation().await.expect("answers"));
        assert!(generations[0] == 0 && generations.is_sorted() && generations[1] < generations[2]);
        let history = read.release_history().await.expect("answers");
        let done: Vec<_> = history.iter().map(|entry| (entry.action, entry.why.as_str())).collect();
        let why = "'; DROP TABLE releases";
        assert_eq!(done, [(ReleaseAction::Registered, why), (ReleaseAction::Revoked, why)]);
        let events = db.store.events_after(0, 10).await.expect("answers");
        assert!(events.len() == 2 && events.iter().all(|event| event.device_id.is_none()));
    }
}
