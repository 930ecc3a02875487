//! Who stands, who contends, who holds a serial number, and that a certificate follows.

use std::sync::Arc;

use attestd::enrollment::{Enrollment, State};
use attestd::ids::DeviceId;
use attestd::store::{Changes, Known, Speaker, Store, StoreError};

use super::fixture::{Mac, later};

async fn speaker(store: &Store, mac: &Mac) -> Option<Arc<Speaker>> {
    match store
        .identify(mac.identity.certificate)
        .await
        .expect("answers")
    {
        Some(Known::Bound(speaker)) => Some(speaker),
        Some(Known::Issued(_)) | None => None,
    }
}

async fn save(store: &Store, enrollment: &Enrollment) -> Result<(), StoreError> {
    let mut write = store.write().await.expect("begins");
    write.save_enrollment(enrollment).await?;
    write.commit().await
}

/// A holder, and a Mac that claims both its names and contends.
async fn contended(store: &Store) -> (Mac, Mac) {
    let mut holder = Mac::enroll(1, store).await;
    holder.enrollment.held_since = Some(later(3));
    save(store, &holder.enrollment).await.expect("is saved");
    let mut contender = Mac::enroll(2, store).await;
    contender.enrollment = Enrollment {
        udid: holder.enrollment.udid.clone(),
        serial: holder.enrollment.serial.clone(),
        contends_with: Some(holder.device_id().clone()),
        ..contender.enrollment
    };
    save(store, &contender.enrollment).await.expect("is saved");
    (holder, contender)
}

on_both! {
    async fn a_contender_has_both_names_and_only_one_stands_under_them(db: Database) {
        let (holder, contender) = contended(&db.store).await;
        let (udid, serial) = (&holder.enrollment.udid, holder.enrollment.serial.clone().expect("one"));
        let both = [holder.enrollment.clone(), contender.enrollment.clone()];
        let read = db.store.read().await.expect("begins");
        assert_eq!(read.enrollment_by_udid(udid).await.expect("answers").as_ref(), Some(&both[0]));
        assert_eq!(read.enrollments_by_udid(udid).await.expect("answers"), both);
        assert_eq!(read.enrollments_by_serial(&serial).await.expect("answers"), both);
        assert_eq!(read.holder(&serial).await.expect("answers").as_ref(), Some(&both[0]));
        drop(read);
        assert_eq!(speaker(&db.store, &holder).await.expect("speaks").contends_with, None);
        let speaks = speaker(&db.store, &contender).await.expect("speaks, too");
        assert_eq!(speaks.contends_with.as_ref(), Some(holder.device_id()));

        let stands = Enrollment { contends_with: None, ..contender.enrollment.clone() };
        let saved = save(&db.store, &stands).await;
        assert!(matches!(saved, Err(StoreError::Conflict)), "{saved:?}");
        let holds = Enrollment { held_since: Some(later(9)), ..contender.enrollment };
        let saved = save(&db.store, &holds).await;
        assert!(matches!(saved, Err(StoreError::Conflict)), "{saved:?}");
    }
}

on_both! {
    async fn who_was_proved_is_found_until_it_is_settled(db: Database) {
        let (_, contender) = contended(&db.store).await;
        let unsettled = async || {
            db.store.read().await.expect("begins").unsettled(10).await.expect("answers")
        };
        assert_eq!(unsettled().await, Vec::<DeviceId>::new());
        let proved = Changes { proved_at: Some(later(8)), ..Changes::default() };
        let kept = db.store.exchange(contender.device_id(), None, None, move |_| (proved, ())).await;
        kept.expect("is kept");
        assert_eq!(unsettled().await, [contender.device_id().clone()]);
    }
}

on_both! {
    async fn a_proof_settles_who_holds_a_serial_only_where_nobody_disputes_it(db: Database) {
        let prove = async |mac: &Mac, at| {
            let device_id = mac.device_id().clone();
            let proved = Changes { proved_at: Some(at), holds: true, ..Changes::default() };
            let told = db.store.exchange(&device_id, None, None, move |exchange| {
                (proved, exchange.undisputed)
            });
            let undisputed = told.await.expect("is kept").expect("is known");
            let read = db.store.read().await.expect("begins");
            let enrollment = read.enrollment(&device_id).await.expect("answers").expect("is known");
            assert_eq!(enrollment.proved_at, Some(at));
            (undisputed, enrollment.held_since)
        };
        let alone = Mac::enroll(1, &db.store).await;
        assert_eq!(prove(&alone, later(5)).await, (true, Some(later(5))));
        let before = Enrollment { proved_at: None, held_since: Some(later(5)), ..alone.enrollment.clone() };
        save(&db.store, &before).await.expect("is saved");
        assert_eq!(prove(&alone, later(9)).await, (true, Some(later(5))), "it held it before");

        let (first, other) = (Mac::enroll(2, &db.store).await, Mac::enroll(3, &db.store).await);
        let claims = Enrollment { serial: first.enrollment.serial.clone(), ..other.enrollment.clone() };
        save(&db.store, &claims).await.expect("is saved");
        assert_eq!(prove(&first, later(5)).await, (false, None), "whatever was decided");

        let nameless = Mac::enroll(4, &db.store).await;
        let nameless_now = Enrollment { serial: None, ..nameless.enrollment.clone() };
        save(&db.store, &nameless_now).await.expect("is saved");
        assert_eq!(prove(&nameless, later(5)).await, (false, None));
    }
}

on_both! {
    async fn everybody_else_who_claims_a_serial_contends_with_its_holder(db: Database) {
        let mac = Mac::enroll(1, &db.store).await;
        let other = Mac::enroll(2, &db.store).await;
        let serial = mac.enrollment.serial.clone().expect("has one");
        let claims = Enrollment { serial: Some(serial.clone()), ..other.enrollment.clone() };
        save(&db.store, &claims).await.expect("is saved");
        let mut write = db.store.write().await.expect("begins");
        write.make_contend(&serial, mac.device_id()).await.expect("is kept");
        write.commit().await.expect("commits");
        let speaks = speaker(&db.store, &other).await.expect("speaks");
        assert_eq!(speaks.contends_with.as_ref(), Some(mac.device_id()));
        assert_eq!(speaker(&db.store, &mac).await.expect("speaks").contends_with, None);
    }
}

on_both! {
    async fn a_certificate_follows_its_mac_to_the_place_it_took(db: Database) {
        let (holder, mut contender) = contended(&db.store).await;
        let minted = contender.minted(&contender.command(1, &contender.verification(1)).command_uuid);
        let mut write = db.store.write().await.expect("begins");
        write.record_nonce(&minted).await.expect("is kept");
        let successor = holder.enrollment.clone().taken_over_by(&contender.enrollment);
        contender.enrollment.supersede();
        write.save_enrollment(&contender.enrollment).await.expect("is saved");
        write.save_enrollment(&successor).await.expect("is saved");
        write.hand_on(contender.device_id(), holder.device_id()).await.expect("is kept");
        write.commit().await.expect("commits");

        let speaks = speaker(&db.store, &contender).await.expect("speaks");
        assert_eq!((&speaks.device_id, speaks.state), (holder.device_id(), State::Enrolled));
        assert_eq!(speaks.contends_with, None);
        assert!(speaker(&db.store, &holder).await.is_none());
        let read = db.store.read().await.expect("begins");
        let serial = successor.serial.clone().expect("one");
        assert_eq!(read.enrollments_by_serial(&serial).await.expect("answers"), [successor]);
        let entry = read.ledger_entry(holder.device_id(), minted.nonce).await.expect("answers");
        assert_eq!(entry.as_ref(), Some(&minted));
        drop(read);
        // Handed over before it was this Mac, and known all the same once it is proved.
        let ledger = async || {
            let loaded = db.store.exchange(holder.device_id(), None, Some(minted.nonce), |exchange| {
                (Changes::default(), exchange)
            });
            loaded.await.expect("is kept").expect("is known").ledger
        };
        assert_eq!(ledger().await, Some(minted.clone()));
    }
}

on_both! {
    async fn a_nonce_of_before_the_enrollment_counts_only_on_a_proved_channel(db: Database) {
        let mac = Mac::enroll(1, &db.store).await;
        let minted = mac.minted(&mac.command(1, &mac.verification(1)).command_uuid);
        let mut write = db.store.write().await.expect("begins");
        write.record_nonce(&minted).await.expect("is kept");
        let again = Enrollment { authenticated_at: later(60), ..mac.enrollment.clone() };
        write.save_enrollment(&again).await.expect("is saved");
        write.commit().await.expect("commits");
        let ledger = async || {
            let loaded = db.store.exchange(mac.device_id(), None, Some(minted.nonce), |exchange| {
                (Changes::default(), exchange)
            });
            loaded.await.expect("is kept").expect("is known").ledger
        };
        assert_eq!(ledger().await, None);
        let proved = Enrollment { proved_at: Some(later(61)), ..again };
        save(&db.store, &proved).await.expect("is saved");
        assert_eq!(ledger().await, Some(minted.clone()));
    }
}
