//! Section 6: message transport.

use std::time::Duration;

use attestd_sim::acme::Named;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::header::RETRY_AFTER;
use serde_json::{Value, json};

use super::{Client, assert_problem, body, p384, scene};
use crate::flows::issue_by_acme::csr;

journey! {
    /// "Encoded values that include trailing '=' characters MUST be rejected as improperly encoded."
    async fn section_6_1_padded_base64_is_refused(backend: Backend) {
        let (scene, http, mac) = scene(backend).await;
        let mut client = Client::new(&scene, &http, "{}").await;
        let url = client.url("new-order");
        for member in ["protected", "payload", "signature"] {
            let (account, nonce) = (Named::Account(client.run.account_url()), client.run.nonce());
            let signed = client.run.account().sign(account, nonce, &url, "{}").expect("signed");
            let mut jws: Value = serde_json::from_slice(&signed).expect("JSON");
            jws[member] = json!(format!("{}=", jws[member].as_str().expect("text")));
            let answer = client.send(&url, jws.to_string().into_bytes()).await;
            assert_problem(&answer, 400, "malformed");
        }
        let key = p384();
        let order = client.ready(&scene, &mac, &key).await;
        let padded = json!({ "csr": format!("{}=", URL_SAFE_NO_PAD.encode(csr(&key))) });
        assert_problem(&client.post(&order.finalize, &padded.to_string()).await, 400, "malformed");
    }
}

journey! {
    /// "The "jwk" and "kid" fields are mutually exclusive. Servers MUST reject requests that contain
    /// both." "For all other requests, the request is signed using an existing account".
    async fn section_6_2_a_request_names_its_signer_in_one_way(backend: Backend) {
        let (scene, http, _) = scene(backend).await;
        let mut client = Client::new(&scene, &http, "{}").await;
        let url = client.url("new-order");
        let jwk = client.run.account().jwk();
        let mut both = client.header(&url);
        both["jwk"] = jwk.clone();
        assert_problem(&client.under(&both, &url, "{}").await, 400, "malformed");
        let mut neither = client.header(&url);
        neither.as_object_mut().expect("an object").remove("kid");
        assert_problem(&client.under(&neither, &url, "{}").await, 400, "malformed");
        // newOrder by key, newAccount by account.
        neither["jwk"] = jwk;
        neither["nonce"] = json!(client.run.nonce());
        assert_problem(&client.under(&neither, &url, "{}").await, 400, "malformed");
        let account = client.url("new-account");
        assert_problem(&client.post(&account, "{}").await, 400, "malformed");
        let mut nobody = client.header(&url);
        nobody["kid"] = json!(client.url("acct/7"));
        assert_problem(&client.under(&nobody, &url, "{}").await, 400, "accountDoesNotExist");
    }
}

journey! {
    /// "The problem document returned with the error MUST include an "algorithms" field with an array
    /// of supported "alg" values." "This field MUST NOT contain "none" or a Message Authentication
    /// Code".
    async fn section_6_2_other_algorithms_are_told_which_is_taken(backend: Backend) {
        let (scene, http, _) = scene(backend).await;
        let mut client = Client::new(&scene, &http, "{}").await;
        let url = client.url("new-order");
        for algorithm in ["none", "HS256", "RS256", "ES384", "EdDSA", "es256"] {
            let mut header = client.header(&url);
            header["alg"] = json!(algorithm);
            let answer = client.under(&header, &url, "{}").await;
            assert_problem(&answer, 400, "badSignatureAlgorithm");
            assert_eq!(answer.json().expect("JSON")["algorithms"], json!(["ES256"]));
        }
    }
}

journey! {
    /// "If a request does not meet this requirement, then the server MUST return a response with
    /// status code 415".
    async fn section_6_2_the_content_type_is_jose_json(backend: Backend) {
        let (scene, http, _) = scene(backend).await;
        let client = Client::new(&scene, &http, "{}").await;
        let url = client.url("new-order");
        let (account, nonce) = (Named::Account(client.run.account_url()), client.run.nonce());
        let signed = client.run.account().sign(account, nonce, &url, "{}").expect("signed");
        for kind in ["application/json", "application/jose", "text/plain"] {
            let asked = http.post(&url).header("content-type", kind).body(signed.clone());
            let answer = asked.send().await.expect("an answer");
            assert_eq!(answer.status().as_u16(), 415, "{kind}");
            assert!(answer.headers().contains_key("replay-nonce"));
        }
        // The content type is the first thing looked at: the nonce is not spent.
        let mut client = client;
        assert_problem(&client.send(&url, signed).await, 400, "malformed");
    }
}

journey! {
    /// "Except for the cases described in this section, if the server receives a GET request, it MUST
    /// return an error with status code 405 (Method Not Allowed) and type "malformed"." "The server
    /// MUST allow GET requests for the directory and newNonce resources [...], in addition to
    /// POST-as-GET requests for these resources."
    async fn section_6_3_resources_are_read_by_post_as_get(backend: Backend) {
        let (scene, http, mac) = scene(backend).await;
        let mut client = Client::new(&scene, &http, "{}").await;
        let key = p384();
        let order = client.ready(&scene, &mac, &key).await;
        client.run.finalize(&order, &csr(&key)).await.expect("issued");
        let certificate = client.run.order(&order).await.expect("valid");
        let account = client.run.account_url().to_owned();
        let challenge = body(&client.get(&order.authorization).await)["challenges"][0]["url"].clone();
        let challenge = challenge.as_str().expect("a URL").to_owned();
        let orders = format!("{account}/orders");
        for url in [&order.url, &order.authorization, &challenge, &certificate, &account, &orders] {
            assert_eq!(client.get(url).await.status, 200, "{url}");
            let answer = http.get(url).send().await.expect("an answer");
            assert_eq!(answer.status().as_u16(), 405, "{url}");
            let problem: Value = answer.json().await.expect("JSON");
            assert_eq!(problem["type"], "urn:ietf:params:acme:error:malformed");
        }
        for (path, status) in [("directory", 200), ("new-nonce", 204)] {
            let url = client.url(path);
            assert_eq!(client.get(&url).await.status, status);
            assert_eq!(http.get(&url).send().await.expect("an answer").status().as_u16(), status);
        }
        // Who reads must be somebody who may: another account of the same profile may not.
        let fresh = Client::new(&scene, &http, "{}").await;
        let mut other = fresh.another(&http).await;
        let mut owner = fresh;
        let order = owner.new_order().await;
        for url in [&order.url, &order.authorization] {
            assert_problem(&other.get(url).await, 403, "unauthorized");
        }
    }
}

journey! {
    /// "the server MUST compare the "url" header parameter to the request URL. If the two do not
    /// match, then the server MUST reject the request as unauthorized."
    async fn section_6_4_a_request_counts_where_it_was_meant_for(backend: Backend) {
        let (scene, http, _) = scene(backend).await;
        let mut client = Client::new(&scene, &http, "{}").await;
        let order = client.new_order().await;
        let elsewhere = Client::new(&scene, &http, "{}").await.url("order/1");
        let other_spelling = order.url.replace("http://", "HTTP://");
        for said in [&order.authorization, &elsewhere, &other_spelling, &format!("{}?", order.url)] {
            let header = client.header(said);
            assert_problem(&client.under(&header, &order.url, "").await, 401, "unauthorized");
        }
        let mut nothing = client.header(&order.url);
        nothing.as_object_mut().expect("an object").remove("url");
        assert_problem(&client.under(&nothing, &order.url, "").await, 400, "malformed");
    }
}

journey! {
    /// "Once a nonce value has appeared in an ACME request, the server MUST consider it invalid". "An
    /// error response with the "badNonce" error type MUST include a Replay-Nonce header field with a
    /// fresh nonce that the server will accept in a retry of the original query".
    async fn section_6_5_a_nonce_is_ours_and_good_once(backend: Backend) {
        let (scene, http, _) = scene(backend).await;
        let mut client = Client::new(&scene, &http, "{}").await;
        let other = Client::new(&scene, &http, "{}").await;
        let url = client.run.account_url().to_owned();
        let used = client.run.nonce().to_owned();
        assert_eq!(client.get(&url).await.status, 200);
        for nonce in [Some(&used), Some(&other.run.nonce().to_owned()), Some(&"bm8".to_owned()), None] {
            let mut header = client.header(&url);
            header["nonce"] = json!(nonce);
            if nonce.is_none() {
                header.as_object_mut().expect("an object").remove("nonce");
            }
            assert_problem(&client.under(&header, &url, "").await, 400, "badNonce");
            assert_eq!(client.get(&url).await.status, 200, "with the nonce of the refusal");
        }
        // 6.5.2: "not valid according to this encoding, then the verifier MUST reject the JWS as
        // malformed".
        let mut header = client.header(&url);
        header["nonce"] = json!("a+b/c=");
        assert_problem(&client.under(&header, &url, "").await, 400, "malformed");
        // A nonce that nobody used ends all the same.
        scene.pass(Duration::from_secs(62 * 60));
        assert_problem(&client.get(&url).await, 400, "badNonce");
        assert_eq!(client.get(&url).await.status, 200);
    }
}

journey! {
    /// "Once a nonce value has appeared in an ACME request, the server MUST consider it invalid": a
    /// restart of the server makes none good again. A client that waited meanwhile goes on.
    async fn section_6_5_a_nonce_stays_used_across_a_restart(backend: Backend) {
        let (mut scene, http, _) = scene(backend).await;
        let mut client = Client::new(&scene, &http, "{}").await;
        let mut waiting = Client::new(&scene, &http, "{}").await;
        let account = client.run.account_url().to_owned();
        let mut sent = Vec::new();
        for payload in ["", "{}"] {
            let header = client.header(&account);
            assert_eq!(client.under(&header, &account, payload).await.status, 200);
            sent.push((header, payload));
        }
        scene.stop().await;
        scene.start().await;
        for (header, payload) in &sent {
            let again = client.under(header, &account, payload).await;
            assert_problem(&again, 400, "badNonce");
        }
        assert_eq!(client.get(&account).await.status, 200);
        waiting.new_order().await;
    }
}

journey! {
    /// "Once the rate limit is exceeded, the server MUST respond with an error with the type
    /// "urn:ietf:params:acme:error:rateLimited". Additionally, the server SHOULD send a Retry-After
    /// header field".
    async fn section_6_6_who_asks_too_often_is_told_when_to_come_back(backend: Backend) {
        let (mut scene, http, _) = scene(backend).await;
        scene.stop().await;
        let settings = std::fs::read_to_string(scene.config()).expect("settings");
        let settings = settings.replace("acme_per_minute = 100000", "acme_per_minute = 4");
        std::fs::write(scene.config(), settings).expect("written");
        scene.start().await;
        let mut client = Client::new(&scene, &http, "{}").await;
        let url = client.url("directory");
        assert_eq!(client.get(&url).await.status, 200);
        let answer = client.get(&url).await;
        assert_problem(&answer, 429, "rateLimited");
        assert_eq!(answer.header(&RETRY_AFTER), Some("60"));
    }
}
