//! People whom an OpenID provider vouches for use the internal API by its access tokens, and do what the provider says
//! they may.

use std::time::Duration;

use attestd::flows::follow_issuer::{OUTAGE, PAUSE};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::sign_result::asked_of_others;
use crate::harness::inside::eventually;
use crate::harness::internal_api::InternalApi;
use crate::harness::issuer::Issuer;
use crate::harness::scene::{Backend as Kind, Scene, attestd};

const STATUS: &str = "/internal/v1/status";
const AUDIT: &str = "/internal/v1/audit?limit=1000";
/// As the provider of the harness says.
const FRESH: Duration = Duration::from_secs(3600);

async fn vouched(backend: Kind) -> (Scene, Issuer) {
    let mut scene = Scene::new(backend).await;
    let issuer = Issuer::start(scene.now().millis()).await;
    let settings = issuer.settings(scene.home.path());
    scene.reached_inside(&settings).await;
    (scene, issuer)
}

/// Status, challenge and problem of a refused request.
async fn refused(api: &InternalApi, path: &str) -> (u16, String, Value) {
    let answer = api.get(path).await;
    let status = answer.status().as_u16();
    let challenge = answer.headers().get("www-authenticate");
    let challenge = challenge
        .map_or("", |it| it.to_str().expect("text"))
        .to_owned();
    (status, challenge, answer.json().await.expect("a problem"))
}

async fn status(scene: &Scene, token: &str) -> StatusCode {
    scene
        .api
        .with_token(token.to_owned())
        .get(STATUS)
        .await
        .status()
}

async fn fetched(scene: &Scene) -> u64 {
    scene
        .counted("attestd_issuer_answers_total", &["\"fetched\""])
        .await
}

async fn counted(scene: &Scene, reason: &str) -> u64 {
    let label = format!("reason=\"{reason}\"");
    scene
        .counted("attestd_bearers_refused_total", &[&label])
        .await
}

journey! {
    async fn somebody_may_do_what_the_provider_says_they_are(backend: Backend) {
        let (scene, issuer) = vouched(backend).await;
        let bearer = |groups: &[&str]| scene.api.with_token(issuer.token(&scene, "ann", groups));
        let viewer = bearer(&["viewers", "staff"]);
        assert!(viewer.get(STATUS).await.status().is_success());
        let (code, challenge, problem) = refused(&viewer, AUDIT).await;
        assert_eq!((code, &*challenge), (403, "Bearer error=\"insufficient_scope\""), "{problem}");
        // Of several roles, any; of values that are nothing here, none.
        let both = bearer(&["viewers", "attestd-operators"]);
        assert!(both.get(AUDIT).await.status().is_success());
        assert_eq!(refused(&bearer(&["staff"]), STATUS).await.0, 403);
        assert_eq!(refused(&bearer(&[]), STATUS).await.0, 403);

        // What they change, the audit log tells of them, and of nobody's token.
        let accept = both.request(Method::POST, "/internal/v1/clock/accept");
        let accepted = accept.json(&json!({ "reason": "looked at it" })).send().await.expect("an answer");
        assert!(accepted.status().is_success());
        let log = both.json(AUDIT).await;
        let last = log["entries"].as_array().and_then(|all| all.last()).expect("an entry");
        assert_eq!(last["entry"]["who"], json!({
            "kind": "oidc", "issuer": issuer.url(), "subject": "ann", "name": "ann@example.org",
        }));
        assert!(!log.to_string().contains(&both.token));

        // Tokens of our own are what they were.
        assert!(scene.api.get(STATUS).await.status().is_success());
        assert_eq!(refused(&scene.api.with_token("att_wrong".to_owned()), STATUS).await.0, 401);
    }
}

journey! {
    async fn a_token_that_is_not_for_here_lets_nobody_in(backend: Backend) {
        let (scene, issuer) = vouched(backend).await;
        let claims = issuer.claims(&scene, "ann", &["viewers"]);
        let good = issuer.signs("first", &claims);
        assert!(status(&scene, &good).await.is_success());
        let now = scene.now().seconds();
        for (name, value, reason) in [
            ("iss", json!("https://other.example.org"), "issuer"),
            ("aud", json!("other"), "audience"),
            ("exp", json!(now - 1), "expired"),
            ("nbf", json!(now + 600), "not_yet"),
            ("sub", json!(7), "claims"),
            ("nonce", json!("of an ID token"), "not_for_access"),
        ] {
            let mut changed = claims.clone();
            changed[name] = value;
            let token = issuer.signs("first", &changed);
            let before = counted(&scene, reason).await;
            let (code, challenge, problem) = refused(&scene.api.with_token(token), STATUS).await;
            assert_eq!((code, &*challenge), (401, "Bearer error=\"invalid_token\""), "{problem}");
            assert_eq!(problem["type"], "/problems/unauthorized");
            assert_eq!(counted(&scene, reason).await, before + 1, "{reason}");
        }
        // Remembered or not, a token ends when it ends; and a changed one was never seen.
        let (signed, signature) = good.rsplit_once('.').expect("a signature");
        let first = if signature.starts_with('A') { 'B' } else { 'A' };
        let forged = format!("{signed}.{first}{}", &signature[1..]);
        assert_eq!(status(&scene, &forged).await, 401);
        scene.pass(Duration::from_secs(3599));
        assert!(status(&scene, &good).await.is_success());
        scene.pass(Duration::from_secs(2));
        assert_eq!(status(&scene, &good).await, 401);
    }
}

journey! {
    async fn a_provider_of_other_hands_signs_by_every_algorithm_of_the_list(backend: Backend) {
        let mut scene = Scene::new(backend).await;
        let issuer = Issuer::start(scene.now().millis()).await;
        let claims = issuer.claims(&scene, "bob", &["viewers"]);
        let made = asked_of_others("sign_access_token.py", &json!({ "claims": claims })).await.expect("signed");
        issuer.publishes(made["keys"].as_array().expect("keys"));
        let settings = issuer.settings(scene.home.path());
        scene.reached_inside(&settings).await;
        let tokens = made["tokens"].as_object().expect("tokens");
        assert_eq!(tokens.len(), 5);
        for (alg, token) in tokens {
            let token = token.as_str().expect("text");
            assert!(status(&scene, token).await.is_success(), "{alg}");
        }
    }
}

journey! {
    async fn keys_follow_the_provider_and_no_flood_makes_it_asked_more_than_once(backend: Backend) {
        let (scene, issuer) = vouched(backend).await;
        let old = issuer.token(&scene, "ann", &["viewers"]);
        assert!(status(&scene, &old).await.is_success());
        assert_eq!((issuer.asked(), fetched(&scene).await), (1, 1));

        // It was asked just now: whoever names another key is refused, and nothing is asked.
        issuer.has_keys(&["second"]);
        let new = issuer.token(&scene, "ann", &["viewers"]);
        assert_eq!(status(&scene, &new).await, 401);
        assert!(status(&scene, &old).await.is_success());
        // A while later it may be; nobody waits for it, and a hundred are as good as one.
        scene.pass(PAUSE);
        let flood = (0..100).map(|n| {
            let mut claims = issuer.claims(&scene, "mallory", &["viewers"]);
            claims["n"] = json!(n);
            let token = issuer.signs("second", &claims);
            let (_, rest) = token.split_once('.').expect("three parts");
            let header = r#"{"alg":"ES256","kid":"nobody's"}"#;
            let header = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, header);
            format!("{header}.{rest}")
        });
        for token in flood.collect::<Vec<_>>() {
            assert!([401, 503].contains(&status(&scene, &token).await.as_u16()));
        }
        eventually("the new key is known", || async { status(&scene, &new).await.is_success() }).await;
        assert_eq!((issuer.asked(), fetched(&scene).await), (2, 2));
        // The old key was withdrawn: what it signed is not remembered either.
        assert_eq!(status(&scene, &old).await, 401);
        // Without anybody's asking they are fetched again when they are old.
        scene.pass(FRESH);
        eventually("they are fetched again", || async { fetched(&scene).await == 3 }).await;
    }
}

journey! {
    async fn while_the_provider_is_out_its_last_keys_are_used_for_a_day(backend: Backend) {
        let (scene, issuer) = vouched(backend).await;
        let lasting = |span: Duration| {
            let mut claims = issuer.claims(&scene, "ann", &["viewers"]);
            claims["exp"] = json!(scene.now().plus(span).seconds());
            issuer.signs("first", &claims)
        };
        let token = lasting(OUTAGE * 2);
        assert!(status(&scene, &token).await.is_success());
        issuer.is_out(true);
        scene.pass(FRESH);
        eventually("it is asked", || async { issuer.asked() >= 2 }).await;
        assert!(status(&scene, &token).await.is_success() && status(&scene, &lasting(OUTAGE)).await.is_success());
        // Then nobody can tell: the token may be good, and its bearer had better keep it. It is not judged at all.
        scene.pass(OUTAGE);
        let (code, challenge, problem) = refused(&scene.api.with_token(token.clone()), STATUS).await;
        assert_eq!((code, &*challenge, &problem["type"]), (503, "", &json!("/problems/issuer-unavailable")));
        assert!(scene.api.get(STATUS).await.status().is_success(), "a token of ours is");
        // Whoever answers in its name is not believed; once it is back, it is.
        issuer.says_it_is(Some("https://other.example.org"));
        issuer.is_out(false);
        let before = issuer.asked();
        scene.pass(PAUSE);
        eventually("it is asked", || async { issuer.asked() > before }).await;
        assert_eq!(status(&scene, &token).await, 503);
        issuer.says_it_is(None);
        scene.pass(PAUSE);
        eventually("it is back", || async { status(&scene, &token).await.is_success() }).await;
    }
}

journey! {
    async fn the_doctor_says_whether_the_provider_has_keys(backend: Backend) {
        let (scene, issuer) = vouched(backend).await;
        let check = || async {
            let config = scene.config().display().to_string();
            let said = tokio::task::spawn_blocking(move || {
                attestd(&["doctor", "--json", "--insecure-http", "--config", &config])
            });
            let said = said.await.expect("ends").stdout;
            let said: Value = serde_json::from_slice(&said).expect("JSON");
            let checks = said["checks"].as_array().expect("checks");
            checks.iter().find(|check| check["check"] == "oidc").cloned().expect("a check")
        };
        let found = check().await;
        assert_eq!(found["standing"], "ok", "{found}");
        assert!(found["found"].as_str().is_some_and(|found| found.contains(&issuer.url())), "{found}");
        issuer.is_out(true);
        let found = check().await;
        assert_eq!(found["standing"], "fault", "{found}");
        assert!(found["found"].as_str().is_some_and(|found| found.contains("503")), "{found}");
    }
}
