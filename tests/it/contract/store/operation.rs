//! Push certificates, API tokens, refusals and facts.

use attestd::entropy::SeededEntropy;
use attestd::ids::{ApiTokenId, CertificateHash, DeviceId, PushCertificateId, SecretHash, Topic};
use attestd::push::Standing;
use attestd::push::canary::Canary;
use attestd::reason::Reason;
use attestd::secret::Secret;
use attestd::store::{ApiToken, PushCertificate, Refusal, StoreError};

use super::fixture::{Mac, later, now, topic};

fn push_certificate(number: u64, topic: Topic) -> PushCertificate {
    PushCertificate {
        push_certificate_id: PushCertificateId::new(now(), &SeededEntropy::new(number)),
        topic,
        standing: Standing::Active,
        chain: format!("-----BEGIN CERTIFICATE-----\n{number}\n-----END CERTIFICATE-----\n"),
        private_key: Secret::new(format!("canary-push-key-{number}").into_bytes()),
        sha256: CertificateHash::of(&number.to_be_bytes()),
        not_before: now(),
        not_after: later(86_400 * 365),
        installed_at: later(number),
        apple_account: Some("officer@example.org".to_owned()),
        activated_at: Some(later(number)),
        retired_at: None,
        untried_because: None,
        expiry_told: None,
        generation: 0,
    }
}

on_both! {
    async fn a_new_push_certificate_takes_the_place_of_the_old_one_of_its_topic(db: Database) {
        let elsewhere = Topic::parse("com.apple.mgmt.External.other").expect("well formed");
        let first = push_certificate(1, topic());
        let other = push_certificate(2, elsewhere.clone());
        let second = push_certificate(3, topic());
        let mut generations = Vec::new();
        for certificate in [&first, &other, &second] {
            let mut write = db.store.write().await.expect("begins");
            generations.push(write.push_certificate_generation().await.expect("answers"));
            write.install_push_certificate(certificate).await.expect("is new");
            write.commit().await.expect("commits");
        }
        assert_eq!(generations, [0, 1, 2]);

        let read = db.store.read().await.expect("begins");
        let numbered = |certificate: PushCertificate, generation| PushCertificate { generation, ..certificate };
        let (second, other) = (numbered(second, 3), numbered(other, 2));
        let active = read.active_push_certificate(&topic()).await.expect("answers");
        assert_eq!(active.as_ref(), Some(&second));
        let active = read.active_push_certificate(&elsewhere).await.expect("answers");
        assert_eq!(active.as_ref(), Some(&other));
        let retired = PushCertificate {
            standing: Standing::Retired,
            retired_at: Some(second.installed_at),
            ..numbered(first, 1)
        };
        let all = read.push_certificates().await.expect("answers");
        assert_eq!(all, [second, other, retired]);
    }
}

on_both! {
    async fn a_staged_push_certificate_is_tried_comes_into_use_and_goes_again(db: Database) {
        let first = push_certificate(1, topic());
        let staged = PushCertificate {
            standing: Standing::Staged,
            activated_at: None,
            ..push_certificate(2, topic())
        };
        let (first_id, id) = (&first.push_certificate_id, &staged.push_certificate_id);
        let mut write = db.store.write().await.expect("begins");
        write.install_push_certificate(&first).await.expect("is new");
        write.install_push_certificate(&staged).await.expect("is new");
        let chosen = [1, 2].map(|number| Canary::ask(DeviceId::new(now(), &SeededEntropy::new(number)), now()));
        write.choose_canaries(id, &chosen).await.expect("are chosen");
        write.push_certificate_is_tried(id).await.expect("is tried");
        // One that is in use is not tried.
        write.push_certificate_is_tried(first_id).await.expect("nothing happens");
        write.commit().await.expect("commits");

        let read = db.store.read().await.expect("begins");
        assert_eq!(read.open_trials(later(1)).await.expect("answers"), []);
        let open = read.open_trials(now()).await.expect("answers");
        assert_eq!(open.len(), 2);
        let active = read.active_push_certificate(&topic()).await.expect("answers");
        assert_eq!(active.map(|one| one.push_certificate_id).as_ref(), Some(first_id));
        drop(read);

        let mut trial = open[0].clone();
        let mut write = db.store.write().await.expect("begins");
        let take = [(later(10), now()), (later(20), later(9)), (later(30), later(10))];
        let mut taken = Vec::new();
        for (until, at) in take {
            taken.push(write.take_trial(&trial, until, at).await.expect("answers"));
        }
        assert_eq!(taken, [true, false, true]);
        trial.canary.sent_at = Some(later(31));
        trial.canary.came_at = Some(later(32));
        write.note_trial(&trial).await.expect("is kept");
        assert!(!write.take_trial(&trial, later(90), later(60)).await.expect("answers"));
        // What was begun anew meanwhile is not written over.
        let mut stale = open[1].clone();
        stale.canary.asked_at = later(5);
        stale.canary.refused = Some("certificate_fault".to_owned());
        write.note_trial(&stale).await.expect("nothing happens");
        let canaries = write.canaries(id).await.expect("answers");
        assert_eq!(canaries, [trial.canary.clone(), open[1].canary.clone()]);

        let use_ = (id, &topic());
        write.take_push_certificate_into_use(use_, Standing::Retired, Some("in a hurry"), later(40)).await
            .expect("comes into use");
        let all = write.push_certificates().await.expect("answers");
        let seen: Vec<_> = all.iter()
            .map(|one| (one.standing, one.generation, one.activated_at, one.retired_at, one.untried_because.as_deref()))
            .collect();
        assert_eq!(seen, [
            (Standing::Active, 3, Some(later(40)), None, Some("in a hurry")),
            (Standing::Retired, 1, Some(later(1)), Some(later(40)), None),
        ]);
        assert_eq!(write.open_trials(now()).await.expect("answers"), []);
        let mut told = Vec::new();
        for days in [30, 30, 60, 14] {
            told.push(write.push_certificate_expiry_is_told(id, days).await.expect("answers"));
        }
        assert_eq!(told, [true, false, false, true]);

        let back = (first_id, &topic());
        write.take_push_certificate_into_use(back, Standing::Staged, None, later(50)).await
            .expect("comes back");
        write.forget_canaries(id).await.expect("are forgotten");
        assert_eq!(write.canaries(id).await.expect("answers"), []);
        let all = write.push_certificates().await.expect("answers");
        let seen: Vec<_> = all.iter().map(|one| (one.standing, one.generation, one.retired_at)).collect();
        assert_eq!(seen, [(Standing::Active, 4, None), (Standing::Staged, 3, None)]);
        let nobody = PushCertificateId::new(now(), &SeededEntropy::new(9));
        let none = write.take_push_certificate_into_use((&nobody, &topic()), Standing::Retired, None, now()).await;
        assert!(matches!(none, Err(StoreError::Conflict)));
    }
}

on_both! {
    async fn an_api_token_is_found_by_its_hash_until_and_after_it_is_withdrawn(db: Database) {
        let token = ApiToken {
            api_token_id: ApiTokenId::new(now(), &SeededEntropy::new(1)),
            secret: SecretHash::of(b"secret"),
            role: "coordinator".to_owned(),
            label: "routing".to_owned(),
            created_at: now(),
            expires_at: Some(later(1_000)),
            revoked_at: None,
            last_used_at: None,
        };
        let mut write = db.store.write().await.expect("begins");
        write.insert_api_token(&token).await.expect("is new");
        let found = write.api_token_by_secret(token.secret).await.expect("answers");
        assert_eq!(found.as_ref(), Some(&token));
        let none = write.api_token_by_secret(SecretHash::of(b"other")).await.expect("answers");
        assert_eq!(none, None);
        assert!(write.revoke_api_token(&token.api_token_id, later(5)).await.expect("answers"));
        assert!(!write.revoke_api_token(&token.api_token_id, later(6)).await.expect("answers"));
        let listed = write.api_tokens().await.expect("answers");
        assert_eq!(listed, [ApiToken { revoked_at: Some(later(5)), ..token.clone() }]);
        let again = write.insert_api_token(&token).await;
        assert!(matches!(again, Err(StoreError::Conflict)), "{again:?}");
    }
}

on_both! {
    async fn the_same_refusal_within_a_minute_is_one_line(db: Database) {
        let mac = Mac::enroll(1, &db.store).await;
        let about = Some(mac.device_id().clone());
        let refusal = |reason, at| Refusal::once(about.clone(), reason, "connect", "detail", at);
        let mut write = db.store.write().await.expect("begins");
        for at in [0, 30, 59, 61] {
            let refusal = refusal(Reason::SignatureInvalid, later(at));
            write.record_refusal(&refusal).await.expect("is recorded");
        }
        let other = refusal(Reason::RequestMalformed, later(62));
        write.record_refusal(&other).await.expect("is recorded");
        let nobody = Refusal::once(None, Reason::SignatureInvalid, "connect", "detail", later(3));
        write.record_refusal(&nobody).await.expect("is recorded");
        write.commit().await.expect("commits");

        let read = db.store.read().await.expect("begins");
        let lines = read.refusals_of(mac.device_id(), now(), 10).await.expect("answers");
        let counts: Vec<_> = lines.iter().map(|line| (line.reason, line.at, line.count)).collect();
        assert_eq!(
            counts,
            [
                (Reason::RequestMalformed, later(62), 1),
                (Reason::SignatureInvalid, later(61), 1),
                (Reason::SignatureInvalid, later(0), 3),
            ]
        );
        assert_eq!(lines[2].last_at, later(59));
        let recent = read.refusals_of(mac.device_id(), later(60), 10).await.expect("answers");
        assert_eq!(recent.len(), 2);
        let totals = read.refusal_counts(now()).await.expect("answers");
        assert_eq!(totals, [(Reason::SignatureInvalid, 5), (Reason::RequestMalformed, 1)]);
    }
}

on_both! {
    async fn a_fact_about_the_service_is_restated_in_place(db: Database) {
        let mut write = db.store.write().await.expect("begins");
        assert_eq!(write.fact("server_id").await.expect("answers"), None);
        write.set_fact("server_id", "one").await.expect("is kept");
        write.set_fact("server_id", "two").await.expect("is kept");
        assert_eq!(write.fact("server_id").await.expect("answers").as_deref(), Some("two"));
    }
}

on_both! {
    async fn the_store_says_how_it_is(db: Database) {
        db.store.ping().await.expect("answers");
        assert!(db.store.schema_is_current().await.expect("answers"));
        assert_eq!(db.store.backend() == "sqlite", db.url.starts_with("sqlite"));
    }
}
