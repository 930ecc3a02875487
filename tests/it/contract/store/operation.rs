//! Push certificates, API tokens, refusals and facts.

use attestd::entropy::SeededEntropy;
use attestd::ids::{ApiTokenId, CertificateHash, PushCertificateId, SecretHash, Topic};
use attestd::reason::Reason;
use attestd::secret::Secret;
use attestd::store::{ApiToken, PushCertificate, Refusal, Standing, StoreError};

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
        let active = read.active_push_certificate(&topic()).await.expect("answers");
        assert_eq!(active.as_ref(), Some(&second));
        let active = read.active_push_certificate(&elsewhere).await.expect("answers");
        assert_eq!(active.as_ref(), Some(&other));
        let retired = PushCertificate { standing: Standing::Retired, ..first };
        let all = read.push_certificates().await.expect("answers");
        assert_eq!(all, [second, other, retired]);
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
