//! One message as one durable step.

use attestd::attestation::freshness::Scheme;
use attestd::enrollment::IdentityKind;
use attestd::enrollment::trace::{Entry, Step};
use attestd::store::{Changes, Store, StoreError};
use attestd::verification::{Command, CommandState, Kind, State};
use sea_orm::{ConnectionTrait, Statement};

use super::fixture::{Mac, event, later};
use crate::harness::database::Database;

/// Raises the Mac's posture by one revision and tells so.
async fn raise(store: &Store, mac: &Mac) -> Result<Option<u64>, StoreError> {
    let mac = mac.clone();
    store
        .exchange(&mac.device_id().clone(), None, None, move |exchange| {
            let revision = exchange.posture.map_or(0, |posture| posture.revision) + 1;
            let changes = Changes {
                posture: Some(mac.posture(revision)),
                events: vec![event(&format!("revision {revision}"))],
                ..Changes::default()
            };
            (changes, revision)
        })
        .await
}

on_both! {
    async fn there_is_no_exchange_with_an_unknown_mac(db: Database) {
        let answer = db
            .store
            .exchange(Mac::new(1).device_id(), None, None, |_| (Changes::default(), ()))
            .await;
        assert!(matches!(answer, Ok(None)), "{answer:?}");
    }
}

on_both! {
    async fn a_decision_sees_everything_and_all_it_changes_is_kept(db: Database) {
        let mac = Mac::enroll(1, &db.store).await;
        let verification = mac.verification(1);
        let command = mac.command(1, &verification);
        let minted = mac.minted(&command.command_uuid);
        let evidence = mac.evidence(&command.command_uuid, b"reply");
        let changes = Changes {
            commands: vec![command.clone()],
            verification: Some(verification.clone()),
            posture: Some(mac.posture(1)),
            minted: vec![minted.clone()],
            evidence: vec![evidence.clone()],
            steps: vec![Entry::done(Step::SecurityInfo, later(4))],
            events: vec![event("first"), event("second")],
            proved_at: Some(later(5)),
            ..Changes::default()
        };
        let first = db
            .store
            .exchange(mac.device_id(), None, None, move |exchange| (changes, exchange))
            .await
            .expect("is kept")
            .expect("is known");
        assert_eq!(first.udid, mac.enrollment.udid);
        assert_eq!(first.serial, mac.enrollment.serial);
        assert_eq!(first.ticket_id, mac.enrollment.ticket_id);
        assert_eq!(first.se_public_key.as_deref(), Some("se-key-1"));
        assert_eq!(first.identity, mac.identity.certificate);
        assert_eq!(first.identity_kind, IdentityKind::Scep);
        assert_eq!((first.verification, first.posture), (None, None));
        assert_eq!(first.identity_ends, mac.identity.not_after);
        assert_eq!((first.contends, first.proved), (false, false));

        let second = db
            .store
            .exchange(
                mac.device_id(),
                Some(&command.command_uuid),
                Some(minted.nonce),
                |exchange| (Changes::default(), exchange),
            )
            .await
            .expect("is kept")
            .expect("is known");
        assert_eq!(second.verification.as_ref(), Some(&verification));
        assert_eq!(second.command.as_ref(), Some(&command));
        assert_eq!(second.posture, Some(mac.posture(1)));
        assert_eq!(second.asked.as_ref(), Some(&minted));
        assert_eq!(second.ledger.as_ref(), Some(&minted));
        assert!(second.proved);

        let read = db.store.read().await.expect("begins");
        let stored = read.command(&command.command_uuid).await.expect("answers");
        assert_eq!(stored.as_ref(), Some(&command));
        assert_eq!(read.minted_for(&command.command_uuid).await.expect("answers"), Some(minted));
        assert_eq!(
            read.evidence(evidence.evidence_id).await.expect("answers"),
            Some(evidence)
        );
        let steps = read.steps(&mac.ticket.ticket_id).await.expect("answers");
        assert_eq!(steps, [Entry::done(Step::SecurityInfo, later(4))]);
        let events = db.store.events_after(0, 10).await.expect("answers");
        let names: Vec<_> = events.iter().map(|it| it.event.name.as_str()).collect();
        assert_eq!(names, ["first", "second"]);
    }
}

on_both! {
    async fn a_late_answer_finds_the_finished_verification_unless_another_is_open(db: Database) {
        let mac = Mac::enroll(1, &db.store).await;
        let mut finished = mac.verification(1);
        let command = mac.command(1, &finished);
        finished.cancel(State::TimedOut, later(100));
        let open = mac.verification(2);
        let mut write = db.store.write().await.expect("begins");
        write.save_verification(&finished).await.expect("is saved");
        write.save_command(&command).await.expect("is saved");
        write.commit().await.expect("commits");
        let about = async || {
            let uuid = Some(&command.command_uuid);
            let decide = |exchange: attestd::store::Exchange| (Changes::default(), exchange);
            let exchange = db.store.exchange(mac.device_id(), uuid, None, decide).await;
            exchange.expect("is kept").expect("is known").verification
        };
        assert_eq!(about().await.as_ref(), Some(&finished));

        let mut write = db.store.write().await.expect("begins");
        write.save_verification(&open).await.expect("is saved");
        write.commit().await.expect("commits");
        assert_eq!(about().await, Some(open));
    }
}

on_both! {
    async fn another_macs_command_and_nonce_are_not_shown(db: Database) {
        let mac = Mac::enroll(1, &db.store).await;
        let other = Mac::enroll(2, &db.store).await;
        let verification = other.verification(1);
        let command = other.command(1, &verification);
        let minted = other.minted(&command.command_uuid);
        let mut write = db.store.write().await.expect("begins");
        write.save_verification(&verification).await.expect("is saved");
        write.save_command(&command).await.expect("is saved");
        write.record_nonce(&minted).await.expect("is recorded");
        write.commit().await.expect("commits");
        let uuid = Some(&command.command_uuid);
        let exchange = db
            .store
            .exchange(mac.device_id(), uuid, Some(minted.nonce), |it| (Changes::default(), it))
            .await
            .expect("is kept")
            .expect("is known");
        assert_eq!((exchange.command, exchange.asked, exchange.ledger), (None, None, None));
        assert_eq!(exchange.verification, None);
    }
}

on_both! {
    async fn a_decision_about_another_mac_is_refused_whole(db: Database) {
        let mac = Mac::enroll(1, &db.store).await;
        let other = Mac::enroll(2, &db.store).await;
        let changes = Changes {
            posture: Some(other.posture(1)),
            events: vec![event("never")],
            ..Changes::default()
        };
        let answer = db.store.exchange(mac.device_id(), None, None, |_| (changes, ())).await;
        assert!(matches!(answer, Err(StoreError::Conflict)), "{answer:?}");
        assert_eq!(db.store.events_after(0, 10).await.expect("answers"), []);
    }
}

on_both! {
    async fn a_panic_in_a_decision_is_its_own_failure(db: Database) {
        let mac = Mac::enroll(1, &db.store).await;
        let answer = db
            .store
            .exchange(mac.device_id(), None, None, |exchange| -> (Changes, ()) {
                assert!(exchange.posture.is_some(), "a decision that panics");
                (Changes::default(), ())
            })
            .await;
        assert!(matches!(answer, Err(StoreError::DecisionPanicked)), "{answer:?}");
        assert_eq!(raise(&db.store, &mac).await.expect("goes on"), Some(1));
        db.store.ping().await.expect("runs");
    }
}

on_both! {
    async fn a_contradiction_takes_nobody_else_down(db: Database) {
        let mac = Mac::enroll(1, &db.store).await;
        let good = Mac::enroll(2, &db.store).await;
        let mut write = db.store.write().await.expect("begins");
        write.save_verification(&mac.verification(1)).await.expect("is saved");
        write.commit().await.expect("commits");
        let second = Changes {
            verification: Some(mac.verification(2)),
            events: vec![event("never")],
            ..Changes::default()
        };
        let (bad, fine) = tokio::join!(
            db.store.exchange(mac.device_id(), None, None, |_| (second, ())),
            raise(&db.store, &good),
        );
        assert!(matches!(bad, Err(StoreError::Conflict)), "{bad:?}");
        assert_eq!(fine.expect("is kept"), Some(1));
        let events = db.store.events_after(0, 10).await.expect("answers");
        assert_eq!(events.len(), 1, "only the good one was told");
    }
}

on_both! {
    async fn the_same_evidence_twice_is_one_row(db: Database) {
        let mac = Mac::enroll(1, &db.store).await;
        let command = mac.command(1, &mac.verification(1));
        let evidence = mac.evidence(&command.command_uuid, b"reply");
        let mut again = evidence.clone();
        again.received_at = later(500);
        for evidence in [evidence.clone(), again] {
            let changes = Changes { evidence: vec![evidence], ..Changes::default() };
            db.store
                .exchange(mac.device_id(), None, None, move |_| (changes, ()))
                .await
                .expect("is kept");
        }
        let read = db.store.read().await.expect("begins");
        let stored = read.evidence_of(mac.device_id(), 10).await.expect("answers");
        assert_eq!(stored, [evidence], "the first stands");
    }
}

on_both! {
    async fn a_posture_never_goes_back(db: Database) {
        let mac = Mac::enroll(1, &db.store).await;
        for revision in 1..=3 {
            assert_eq!(raise(&db.store, &mac).await.expect("is kept"), Some(revision));
        }
        let changes = Changes { posture: Some(mac.posture(2)), ..Changes::default() };
        let answer = db.store.exchange(mac.device_id(), None, None, |_| (changes, ())).await;
        assert!(matches!(answer, Err(StoreError::Conflict)), "{answer:?}");
        let read = db.store.read().await.expect("begins");
        let page = read.posture_history(mac.device_id(), Some(3), 10).await.expect("answers");
        assert_eq!(page, [mac.posture(2), mac.posture(1)]);
        assert_eq!(read.postures(None, 10).await.expect("answers"), [mac.posture(3)]);
    }
}

on_both! {
    async fn a_constant_nonce_is_as_old_as_its_first_hand_over(db: Database) {
        let mac = Mac::enroll(1, &db.store).await;
        let verification = mac.verification(1);
        let handed_over = |number: u64, at| {
            let command = mac.command(number, &verification);
            let mut minted = mac.minted(&command.command_uuid);
            minted.scheme = Scheme::LegacySeSha256;
            minted.nonce = [7; 32];
            minted.inputs.minted_at = at;
            minted
        };
        let (late, early) = (handed_over(1, later(900)), handed_over(2, later(100)));
        let changes = Changes { minted: vec![late, early.clone()], ..Changes::default() };
        let nonce = Some([7; 32]);
        let exchange = |changes| db.store.exchange(mac.device_id(), None, nonce, |it| (changes, it));
        exchange(changes).await.expect("is kept");
        let found = exchange(Changes::default()).await.expect("is kept").expect("is known");
        assert_eq!(found.ledger.as_ref(), Some(&early));
        let read = db.store.read().await.expect("begins");
        let entry = read.ledger_entry(mac.device_id(), [7; 32]).await.expect("answers");
        assert_eq!(entry, Some(early));
    }
}

on_both! {
    async fn a_nonce_of_a_former_enrollment_is_no_entry_of_the_present_one(db: Database) {
        let mac = Mac::enroll(1, &db.store).await;
        let verification = mac.verification(1);
        let command = mac.command(1, &verification);
        let mut minted = mac.minted(&command.command_uuid);
        minted.inputs.minted_at = later(10);
        let nonce = Some(minted.nonce);
        let changes = Changes { minted: vec![minted.clone()], ..Changes::default() };
        let exchange = |changes| db.store.exchange(mac.device_id(), None, nonce, |it| (changes, it));
        exchange(changes).await.expect("is kept");
        let found = exchange(Changes::default()).await.expect("is kept").expect("is known");
        assert_eq!(found.ledger, Some(minted));

        let mut again = mac.enrollment.clone();
        again.authenticated_at = later(11);
        let mut write = db.store.write().await.expect("begins");
        write.save_enrollment(&again).await.expect("is saved");
        write.commit().await.expect("commits");
        let found = exchange(Changes::default()).await.expect("is kept").expect("is known");
        assert_eq!(found.ledger, None);
    }
}

on_both! {
    async fn at_most_one_question_of_a_kind_is_out(db: Database) {
        let mac = Mac::enroll(1, &db.store).await;
        let verification = mac.verification(1);
        let (lost, next) = (mac.command(1, &verification), mac.command(2, &verification));
        let hand_over = async |command: &Command| {
            let changes = Changes {
                verification: Some(verification.clone()),
                commands: vec![command.clone()],
                ..Changes::default()
            };
            let answer = db.store.exchange(mac.device_id(), None, None, |_| (changes, ())).await;
            answer.expect("is kept").expect("is known");
        };
        hand_over(&lost).await;
        hand_over(&next).await;
        let read = db.store.read().await.expect("begins");
        let state = async |command: &Command| {
            let stored = read.command(&command.command_uuid).await.expect("answers");
            stored.expect("is stored").state
        };
        assert_eq!(state(&lost).await, CommandState::Superseded);
        assert_eq!(state(&next).await, CommandState::Outstanding);
    }
}

on_both! {
    async fn whoever_is_answered_finds_it_committed(db: Database) {
        let mac = Mac::enroll(1, &db.store).await;
        let behind = db.plain().await;
        for round in 1..=20 {
            let revision = raise(&db.store, &mac).await.expect("is kept").expect("is known");
            assert_eq!(revision, round);
            let sql = "SELECT revision FROM postures";
            let select = Statement::from_string(behind.get_database_backend(), sql);
            let row = behind.query_one_raw(select).await.expect("answers").expect("is there");
            let stored: i64 = row.try_get_by_index(0).expect("a number");
            assert_eq!(stored.unsigned_abs(), revision);
        }
    }
}

on_both! {
    async fn two_writers_and_a_hundred_exchanges_at_once_lose_nothing(db: Database) {
        const MACS: u64 = 10;
        const EACH: u64 = 10;
        let mut macs = Vec::new();
        for number in 0..MACS {
            macs.push(Mac::enroll(number, &db.store).await);
        }
        let mut tasks = Vec::new();
        for mac in macs.iter().flat_map(|mac| std::iter::repeat_n(mac, 10)) {
            let (store, mac) = (db.store.clone(), mac.clone());
            tasks.push(tokio::spawn(async move {
                raise(&store, &mac).await.expect("is kept");
            }));
        }
        for writer in 0..2 {
            let (store, macs) = (db.store.clone(), macs.clone());
            tasks.push(tokio::spawn(async move {
                for mac in macs {
                    let mut write = store.write().await.expect("begins");
                    let posture = write.posture(mac.device_id()).await.expect("answers");
                    let revision = posture.map_or(0, |posture| posture.revision) + 1;
                    write.save_posture(&mac.posture(revision)).await.expect("is saved");
                    let told = event(&format!("revision {revision}"));
                    write.append_event(mac.device_id(), &told).await.expect("is appended");
                    write.commit().await.unwrap_or_else(|error| {
                        unreachable!("writer {writer} cannot commit: {error}")
                    });
                }
            }));
        }
        for task in tasks {
            task.await.expect("ends well");
        }

        let events = db.store.events_after(0, 1_000).await.expect("answers");
        assert!(events.windows(2).all(|pair| pair[0].seq < pair[1].seq));
        let read = db.store.read().await.expect("begins");
        for mac in &macs {
            let posture = read.posture(mac.device_id()).await.expect("answers");
            assert_eq!(posture.expect("is there").revision, EACH + 2);
            let history = read.posture_history(mac.device_id(), None, 100).await.expect("answers");
            assert_eq!(history.len(), 12, "every revision is kept");
            let told: Vec<_> = events
                .iter()
                .filter(|it| &it.device_id == mac.device_id())
                .map(|it| it.event.name.clone())
                .collect();
            let in_order: Vec<_> = (1..=EACH + 2).map(|it| format!("revision {it}")).collect();
            assert_eq!(told, in_order, "the events of a Mac are in the order of its revisions");
        }
    }
}

on_both! {
    async fn an_exchange_waits_for_the_writer_and_sees_what_it_wrote(db: Database) {
        let mac = Mac::enroll(1, &db.store).await;
        let mut write = db.store.write().await.expect("begins");
        assert_eq!(write.posture(mac.device_id()).await.expect("answers"), None);
        write.save_posture(&mac.posture(1)).await.expect("is saved");
        let waiting: Vec<_> = (0..20)
            .map(|_| {
                let (store, mac) = (db.store.clone(), mac.clone());
                tokio::spawn(async move { raise(&store, &mac).await })
            })
            .collect();
        tokio::task::yield_now().await;
        assert!(waiting.iter().all(|task| !task.is_finished()));
        write.commit().await.expect("commits");
        let mut revisions = Vec::new();
        for task in waiting {
            revisions.push(task.await.expect("ends").expect("is kept").expect("is known"));
        }
        revisions.sort_unstable();
        assert!(revisions.into_iter().eq(2..=21), "each saw the one before");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgresql_two_nodes_lose_nothing_of_one_mac() {
    let db = Database::postgresql().await;
    let mac = Mac::enroll(1, &db.store).await;
    let other_node = db.beside().await;
    let tasks: Vec<_> = (0..40)
        .map(|turn| {
            let node = if turn % 2 == 0 {
                &db.store
            } else {
                &other_node
            };
            let (node, mac) = (node.clone(), mac.clone());
            tokio::spawn(async move { raise(&node, &mac).await })
        })
        .collect();
    for task in tasks {
        task.await.expect("ends").expect("is kept");
    }
    let read = other_node.read().await.expect("begins");
    let posture = read.posture(mac.device_id()).await.expect("answers");
    assert_eq!(posture.expect("is there").revision, 40);
}

on_both! {
    async fn a_command_changes_its_state_and_nothing_else(db: Database) {
        let mac = Mac::enroll(1, &db.store).await;
        let verification = mac.verification(1);
        let command = mac.command(1, &verification);
        let mut concluded = command.clone();
        concluded.state = CommandState::Answered;
        concluded.concluded_at = Some(later(9));
        concluded.kind = Kind::SecurityInfo;
        let mut write = db.store.write().await.expect("begins");
        write.save_verification(&verification).await.expect("is saved");
        write.save_command(&command).await.expect("is saved");
        let outstanding = write.outstanding_commands(mac.device_id()).await.expect("answers");
        assert_eq!(outstanding, std::slice::from_ref(&command));
        write.save_command(&concluded).await.expect("is saved");
        let stored = write.command(&command.command_uuid).await.expect("answers");
        let stored = stored.expect("is there");
        assert_eq!(stored.state, CommandState::Answered);
        assert_eq!((stored.kind, stored.concluded_at), (Kind::Mda, Some(later(9))));
        assert_eq!(write.outstanding_commands(mac.device_id()).await.expect("answers"), []);
    }
}
