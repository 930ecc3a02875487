//! Sections 7.1 and 7.2: resources, their states, nonces.

use std::collections::BTreeSet;
use std::time::Duration;

use attestd_sim::acme::ChallengeAnswer;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Client, assert_problem, body, header, links, p384, scene};
use crate::flows::issue_by_acme::{chain, csr};

journey! {
    /// 7.1: "The "index" link relation is present on all resources other than the directory". "The
    /// "up" link relation is used with challenge resources to indicate the authorization resource".
    /// 7.1.1: "If the ACME server does not implement pre-authorization [...], it MUST omit the
    /// "newAuthz" field of the directory."
    async fn section_7_1_the_directory_leads_to_what_there_is(backend: Backend) {
        let (scene, http, _) = scene(backend).await;
        let mut client = Client::new(&scene, &http, "{}").await;
        let index = client.url("directory");
        let answer = client.get(&index).await;
        assert!(links(&answer, "index").is_empty());
        assert_eq!(header(&answer, "content-type"), "application/json");
        let urls = ["new-nonce", "new-account", "new-order"].map(|path| client.url(path));
        let listed = json!({ "newNonce": urls[0], "newAccount": urls[1], "newOrder": urls[2] });
        assert_eq!(body(&answer), listed);
        // What is not listed is not there either.
        for path in ["new-authz", "revoke-cert", "key-change"] {
            let url = client.url(path);
            assert_problem(&client.post(&url, "{}").await, 404, "malformed");
        }
        let order = client.new_order().await;
        let challenge = client.challenge(&order).await;
        let account = client.run.account_url().to_owned();
        let nonce = client.url("new-nonce");
        for url in [&nonce, &account, &order.url, &order.authorization, &challenge.url] {
            let answer = client.get(url).await;
            assert_eq!(links(&answer, "index"), [&*index], "{url}");
            let up = if *url == challenge.url { vec![order.authorization.clone()] } else { vec![] };
            assert_eq!(links(&answer, "up"), up, "{url}");
        }
    }
}

journey! {
    /// 7.1.2: "orders (required, string)". 7.1.2.1: "a JSON object whose "orders" field is an array
    /// of URLs". "The server SHOULD include pending orders and SHOULD NOT include orders that are
    /// invalid".
    async fn section_7_1_2_an_account_lists_its_orders(backend: Backend) {
        let (scene, http, _) = scene(backend).await;
        let mut client = Client::new(&scene, &http, "{}").await;
        let account = client.run.account_url().to_owned();
        let view = body(&client.get(&account).await);
        assert_eq!(view, json!({ "status": "valid", "orders": format!("{account}/orders") }));
        let orders = format!("{account}/orders");
        assert_eq!(body(&client.get(&orders).await), json!({ "orders": [] }));
        let (first, second) = (client.new_order().await, client.new_order().await);
        assert_eq!(body(&client.get(&orders).await), json!({ "orders": [first.url, second.url] }));
        let failed = client.challenge(&first).await;
        let answer = ChallengeAnswer::Failed("none".to_owned()).payload();
        assert_problem(&client.post(&failed.url, &answer).await, 403, "badAttestationStatement");
        assert_eq!(body(&client.get(&orders).await), json!({ "orders": [second.url] }));
        // Of another account nothing is listed, and nothing shown.
        let mut other = client.another(&http).await;
        assert_problem(&other.get(&orders).await, 403, "unauthorized");
        assert_problem(&other.get(&account).await, 403, "unauthorized");
    }
}

journey! {
    /// 7.1.3: "This field is REQUIRED for objects with "pending" or "valid" in the status field."
    /// "The server MUST NOT change the contents of either array after they are created." 7.1.4: "For
    /// valid authorizations, the challenge that was validated." 7.1.5, 8: type, url, status, token.
    async fn section_7_1_3_to_7_1_5_objects_have_their_members(backend: Backend) {
        let (scene, http, mac) = scene(backend).await;
        let mut client = Client::new(&scene, &http, &format!("{{\"serial_number\":\"{}\"}}", mac.serial())).await;
        let key = p384();
        let order = client.new_order().await;
        let identifier = json!({ "type": "permanent-identifier", "value": mac.serial() });
        let mut expected = json!({
            "status": "pending",
            "identifiers": [identifier],
            "authorizations": [order.authorization],
            "finalize": order.finalize,
        });
        let mut view = body(&client.get(&order.url).await);
        let expires = view["expires"].take();
        expected["expires"] = Value::Null;
        assert_eq!(view, expected);
        let ends = time::OffsetDateTime::parse(
            expires.as_str().expect("a time"),
            &time::format_description::well_known::Rfc3339,
        );
        let left = ends.expect("RFC 3339").unix_timestamp() - scene.now().seconds();
        assert!((1..=3600).contains(&left), "as long as the profile: {left}");

        let authorization = body(&client.get(&order.authorization).await);
        let challenge = &authorization["challenges"][0];
        let (url, token) = (challenge["url"].as_str().expect("a URL"), challenge["token"].as_str());
        assert_eq!(authorization, json!({
            "status": "pending",
            "identifier": identifier,
            "expires": expires,
            "challenges": [{ "type": "device-attest-01", "url": url, "status": "pending", "token": token }],
        }));
        let shown = body(&client.get(url).await);
        assert_eq!(shown, *challenge);

        let answer = ChallengeAnswer::Attested(chain(&scene, &mac, &key, token.expect("a token")));
        let answered = client.post(url, &answer.payload()).await;
        let mut valid = body(&answered);
        assert!(valid["validated"].take().is_string());
        assert_eq!(valid, json!({
            "type": "device-attest-01", "url": url, "status": "valid", "token": token, "validated": null,
        }));
        let authorization = body(&client.get(&order.authorization).await);
        assert_eq!((&authorization["status"], &authorization["expires"]), (&json!("valid"), &expires));
        client.run.finalize(&order, &csr(&key)).await.expect("issued");
        let view = body(&client.get(&order.url).await);
        assert_eq!(view["expires"], expires);
        assert_eq!(view["identifiers"], expected["identifiers"]);
        assert_eq!(view["authorizations"], expected["authorizations"]);
        assert!(view["certificate"].is_string());
    }
}

journey! {
    /// "Once all of the authorizations listed in the order object are in the "valid" state, the order
    /// transitions to the "ready" state." "The order also moves to the "invalid" state if it expires".
    async fn section_7_1_6_statuses_change_as_drawn(backend: Backend) {
        let (scene, http, mac) = scene(backend).await;
        let mut client = Client::new(&scene, &http, "{}").await;
        let key = p384();
        let (failing, late) = (client.new_order().await, client.new_order().await);
        assert_eq!(client.statuses(&failing).await, ["pending"; 3]);
        let failed = client.challenge(&failing).await;
        let answer = ChallengeAnswer::Failed("none".to_owned()).payload();
        assert_problem(&client.post(&failed.url, &answer).await, 403, "badAttestationStatement");
        assert_eq!(client.statuses(&failing).await, ["invalid"; 3]);
        let order = client.ready(&scene, &mac, &key).await;
        assert_eq!(client.statuses(&order).await, ["ready", "valid", "valid"]);
        client.run.finalize(&order, &csr(&key)).await.expect("issued");
        assert_eq!(client.statuses(&order).await, ["valid"; 3]);
        scene.pass(Duration::from_secs(60 * 60));
        // The nonce is as old as the order by now: this brings another.
        client.get(&order.url).await;
        assert_eq!(client.statuses(&late).await, ["invalid"; 3]);
        assert_eq!(client.statuses(&order).await, ["valid"; 3], "what was issued stays");
    }
}

journey! {
    /// "The server's response MUST include a Replay-Nonce header field containing a fresh nonce and
    /// SHOULD have status code 200 (OK)." "The server MUST include a Cache-Control header field with
    /// the "no-store" directive".
    async fn section_7_2_nonces_are_fresh_and_not_kept_on_the_way(backend: Backend) {
        let (scene, http, _) = scene(backend).await;
        let client = Client::new(&scene, &http, "{}").await;
        let mut seen = BTreeSet::new();
        for (method, status) in [(Method::HEAD, 200), (Method::GET, 204), (Method::HEAD, 200)] {
            let asked = http.request(method, client.url("new-nonce"));
            let answer = asked.send().await.expect("an answer");
            assert_eq!(answer.status().as_u16(), status);
            assert_eq!(answer.headers()["cache-control"], "no-store");
            let nonce = answer.headers()["replay-nonce"].to_str().expect("text").to_owned();
            assert!(URL_SAFE_NO_PAD.decode(&nonce).is_ok());
            assert!(seen.insert(nonce), "a fresh one");
            assert!(answer.bytes().await.expect("a body").is_empty());
        }
    }
}
