//! Tickets, identities, enrollments and steps.

use std::time::Duration;

use attestd::enrollment::trace::{Entry, Standing, Step};
use attestd::enrollment::{PushAddress, State};
use attestd::reason::Reason;
use attestd::secret::Secret;
use attestd::store::{Changes, StoreError};

use super::fixture::{Mac, identity, later, now, push_address};

on_both! {
    async fn of_two_who_redeem_a_ticket_at_once_one_wins(db: Database) {
        let mut ticket = Mac::new(1).ticket;
        ticket.used_at = None;
        let mut write = db.store.write().await.expect("begins");
        write.insert_ticket(&ticket).await.expect("is new");
        write.commit().await.expect("commits");

        let attempt = || {
            let (store, ticket_id) = (db.store.clone(), ticket.ticket_id.clone());
            tokio::spawn(async move {
                let mut write = store.write().await.expect("begins");
                let won = write.redeem(&ticket_id, later(5)).await.expect("answers");
                write.commit().await.expect("commits");
                won
            })
        };
        let (one, other) = (attempt(), attempt());
        let wins = [one.await.expect("ends"), other.await.expect("ends")];
        assert_eq!(wins.iter().filter(|won| **won).count(), 1);

        let read = db.store.read().await.expect("begins");
        let stored = read.ticket(&ticket.ticket_id).await.expect("answers");
        assert_eq!(stored.expect("is there").used_at, Some(later(5)));
    }
}

on_both! {
    async fn a_ticket_is_found_by_each_of_its_names_and_not_redeemed_late(db: Database) {
        let mut ticket = Mac::new(1).ticket;
        ticket.used_at = None;
        let mut write = db.store.write().await.expect("begins");
        write.insert_ticket(&ticket).await.expect("is new");
        assert!(!write.redeem(&ticket.ticket_id, ticket.expires_at).await.expect("answers"));
        let found = [
            write.ticket(&ticket.ticket_id).await.expect("answers"),
            write.ticket_by_secret(ticket.secret).await.expect("answers"),
            write.ticket_by_progress_id(&ticket.progress_id).await.expect("answers"),
        ];
        for found in found {
            assert_eq!(found.as_ref(), Some(&ticket));
        }
        assert_eq!(write.ticket_by_progress_id("another").await.expect("answers"), None);
        assert!(matches!(write.insert_ticket(&ticket).await, Err(StoreError::Conflict)));
    }
}

on_both! {
    async fn what_is_not_committed_is_not_kept(db: Database) {
        let mac = Mac::new(1);
        let mut write = db.store.write().await.expect("begins");
        write.insert_ticket(&mac.ticket).await.expect("is new");
        assert!(write.ticket(&mac.ticket.ticket_id).await.expect("answers").is_some());
        drop(write);

        let mut write = db.store.write().await.expect("begins");
        assert_eq!(write.ticket(&mac.ticket.ticket_id).await.expect("answers"), None);
        write.insert_ticket(&mac.ticket).await.expect("is new still");
    }
}

on_both! {
    async fn a_mac_reads_back_as_it_was_saved(db: Database) {
        let mac = Mac::enroll(1, &db.store).await;
        let other = Mac::enroll(2, &db.store).await;
        let expected = Some(mac.enrollment.clone());
        let serial = mac.enrollment.serial.clone().expect("has one");

        let read = db.store.read().await.expect("begins");
        assert_eq!(read.enrollment(mac.device_id()).await.expect("answers"), expected);
        assert_eq!(read.enrollment_by_udid(&mac.enrollment.udid).await.expect("answers"), expected);
        assert_eq!(
            read.enrollments_by_serial(&serial).await.expect("answers"),
            std::slice::from_ref(&mac.enrollment)
        );
        let mut everybody = vec![mac.enrollment.clone(), other.enrollment];
        everybody.sort_by(|a, b| a.device_id.cmp(&b.device_id));
        assert_eq!(read.enrollments(None, 10).await.expect("answers"), everybody);
        let first = &everybody[0].device_id;
        assert_eq!(
            read.enrollments(Some(first), 10).await.expect("answers"),
            everybody[1..]
        );
        drop(read);

        let mut left = mac.enrollment;
        left.check_out(later(60));
        let mut write = db.store.write().await.expect("begins");
        write.save_enrollment(&left).await.expect("is saved");
        write.commit().await.expect("commits");
        let read = db.store.read().await.expect("begins");
        let stored = read.enrollment(&left.device_id).await.expect("answers");
        assert_eq!(stored, Some(left));
    }
}

on_both! {
    async fn a_udid_and_a_certificate_belong_to_one_mac(db: Database) {
        let mac = Mac::enroll(1, &db.store).await;
        let mut thief = Mac::new(2);
        let mut write = db.store.write().await.expect("begins");
        assert!(
            !write.bind(mac.identity.certificate, thief.device_id()).await.expect("answers"),
            "a bound certificate stays where it is"
        );
        assert!(write.bind(mac.identity.certificate, mac.device_id()).await.expect("answers"));
        write.insert_ticket(&thief.ticket).await.expect("is new");
        write.insert_identity(&thief.identity).await.expect("is new");
        write.commit().await.expect("commits");

        let own = thief.enrollment.identity;
        thief.enrollment.identity = mac.identity.certificate;
        let mut write = db.store.write().await.expect("begins");
        let saved = write.save_enrollment(&thief.enrollment).await;
        assert!(matches!(saved, Err(StoreError::Conflict)), "{saved:?}");
        drop(write);

        thief.enrollment.identity = own;
        thief.enrollment.udid = mac.enrollment.udid.clone();
        let mut write = db.store.write().await.expect("begins");
        let saved = write.save_enrollment(&thief.enrollment).await;
        assert!(matches!(saved, Err(StoreError::Conflict)), "{saved:?}");
    }
}

on_both! {
    async fn a_repeated_scep_request_finds_the_same_identity(db: Database) {
        let mac = Mac::enroll(1, &db.store).await;
        let mut write = db.store.write().await.expect("begins");
        let found = write
            .identity_of_transaction(&mac.ticket.ticket_id, "transaction 1")
            .await
            .expect("answers")
            .expect("is there");
        assert_eq!(found.certificate, mac.identity.certificate);
        assert_eq!(found.device_id.as_ref(), Some(mac.device_id()));
        let mut second = identity(77, Some(&mac.ticket));
        second.transaction_id = Some("transaction 1".to_owned());
        let inserted = write.insert_identity(&second).await;
        assert!(matches!(inserted, Err(StoreError::Conflict)), "{inserted:?}");
    }
}

on_both! {
    async fn requests_of_one_name_are_found_together_the_newest_first(db: Database) {
        let mut write = db.store.write().await.expect("begins");
        let named = |number: u64, name: &str| {
            let mut identity = identity(number, None);
            identity.transaction_id = Some(name.to_owned());
            identity.issued_at = identity.issued_at.plus(Duration::from_secs(number));
            identity
        };
        for (number, name) in [(1, "chosen"), (3, "chosen"), (2, "chosen"), (4, "Chosen"), (5, "chose")] {
            write.insert_identity(&named(number, name)).await.expect("recorded");
        }
        for (limit, newest_first) in [(64, &[3, 2, 1][..]), (2, &[3, 2]), (0, &[])] {
            let found = write.identities_of_transaction("chosen", limit).await.expect("answers");
            let found: Vec<_> = found.iter().map(|one| one.certificate).collect();
            let expected: Vec<_> =
                newest_first.iter().map(|number| named(*number, "chosen").certificate).collect();
            assert_eq!(found, expected, "{limit}");
        }
        let none = write.identities_of_transaction("", 64).await.expect("answers");
        assert!(none.is_empty());
    }
}

on_both! {
    async fn the_latest_word_on_a_step_stands(db: Database) {
        let mac = Mac::enroll(1, &db.store).await;
        let ticket_id = &mac.ticket.ticket_id;
        let refused = Entry {
            step: Step::Pushed,
            standing: Standing::Refused,
            at: later(20),
            reason: Some(Reason::PushTokenInvalid),
        };
        let mut write = db.store.write().await.expect("begins");
        write.put_step(ticket_id, &refused).await.expect("is kept");
        for at in [10, 5] {
            write
                .put_step(ticket_id, &Entry::done(Step::Pushed, later(at)))
                .await
                .expect("is passed over");
        }
        write
            .put_step(ticket_id, &Entry::done(Step::Profile, later(1)))
            .await
            .expect("is kept");
        let steps = write.steps(ticket_id).await.expect("answers");
        assert_eq!(steps, [Entry::done(Step::Profile, later(1)), refused]);
    }
}

on_both! {
    async fn a_dead_push_token_does_not_darken_the_next_one(db: Database) {
        let mac = Mac::enroll(1, &db.store).await;
        let tried = later(2);
        let dies = async |at| {
            let changes = Changes { push_dead: Some((tried, at)), ..Changes::default() };
            let noted = db.store.review(mac.device_id(), move |_| (changes, ())).await;
            assert_eq!(noted.expect("is kept"), Some(()));
        };
        dies(later(30)).await;
        dies(later(31)).await;
        let mut write = db.store.write().await.expect("begins");
        let stored = write.enrollment(mac.device_id()).await.expect("answers").expect("is there");
        let dead_since = stored.push.as_ref().and_then(|push| push.dead_since);
        assert_eq!(dead_since, Some(later(30)));
        assert_eq!(stored.state, State::Enrolled, "the enrollment goes on");

        let renewed = PushAddress { updated_at: later(40), ..push_address(8) };
        let mut enrollment = stored;
        enrollment.token_update(enrollment.topic.clone(), renewed, later(40));
        write.save_enrollment(&enrollment).await.expect("is saved");
        write.commit().await.expect("commits");
        dies(later(41)).await;
        let read = db.store.read().await.expect("begins");
        let stored = read.enrollment(mac.device_id()).await.expect("answers");
        assert_eq!(stored, Some(enrollment));
    }
}

on_both! {
    async fn a_bootstrap_token_outlives_a_new_enrollment_until_it_is_forgotten(db: Database) {
        let mac = Mac::enroll(1, &db.store).await;
        let token = Secret::new(b"canary-bootstrap".to_vec());
        let mut write = db.store.write().await.expect("begins");
        assert_eq!(write.bootstrap_token(mac.device_id()).await.expect("answers"), None);
        assert!(write.set_bootstrap_token(mac.device_id(), Some(&token)).await.expect("answers"));
        write.save_enrollment(&mac.enrollment).await.expect("is saved");
        let stored = write.bootstrap_token(mac.device_id()).await.expect("answers");
        assert_eq!(stored, Some(token));
        assert!(write.set_bootstrap_token(mac.device_id(), None).await.expect("answers"));
        assert_eq!(write.bootstrap_token(mac.device_id()).await.expect("answers"), None);
        let stranger = Mac::new(9);
        let kept = write.set_bootstrap_token(stranger.device_id(), None).await;
        assert!(!kept.expect("answers"), "a Mac that is not there has no token");
    }
}

on_both! {
    async fn when_a_mac_was_last_heard_is_known_before_and_after_it_is_written(db: Database) {
        let mac = Mac::enroll(1, &db.store).await;
        let silent = Mac::enroll(2, &db.store).await;
        db.store.seen(mac.device_id(), later(50));
        db.store.seen(mac.device_id(), later(40));
        db.store.seen(Mac::new(9).device_id(), later(40));
        for written in [false, true] {
            if written {
                db.store.flush_seen().await.expect("is written");
            }
            let read = db.store.read().await.expect("begins");
            let last = read.last_seen(mac.device_id()).await.expect("answers");
            assert_eq!(last, Some(later(50)), "written: {written}");
            assert_eq!(read.last_seen(silent.device_id()).await.expect("answers"), None);
        }
        let other_node = db.beside().await;
        let read = other_node.read().await.expect("begins");
        assert_eq!(read.last_seen(mac.device_id()).await.expect("answers"), Some(later(50)));
        assert!(now() < later(50));
    }
}
