//! Sections 7.3 to 8, and the device-attest draft: accounts, orders, challenges, certificates.

use attestd_sim::acme::{AccountKey, ChallengeAnswer, attestation_object};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openssl::x509::X509;
use reqwest::header::LOCATION;
use serde_json::{Value, json};

use super::{Client, assert_problem, body, header, links, p384, scene};
use crate::flows::issue_by_acme::{chain, csr};

fn wish(csr: &[u8]) -> String {
    json!({ "csr": URL_SAFE_NO_PAD.encode(csr) }).to_string()
}

journey! {
    /// "The server returns this account object in a 201 (Created) response, with the account URL in a
    /// Location header field." "The server MUST ignore any values provided in the "orders" fields
    /// [...], as well as any other fields that it does not recognize." 7.3.4: "If the CA does not
    /// verify the binding, then it MUST NOT reflect the "externalAccountBinding" field".
    async fn section_7_3_an_account_is_what_the_server_says_it_is(backend: Backend) {
        let (scene, http, _) = scene(backend).await;
        let mut client = Client::new(&scene, &http, "{}").await;
        let key = AccountKey::generate().expect("a key");
        let wishes = json!({
            "contact": ["mailto:owner@example.org"],
            "termsOfServiceAgreed": true,
            "orders": "https://example.org/orders",
            "status": "revoked",
            "externalAccountBinding": { "protected": "e30", "payload": "e30", "signature": "AA" },
            "favourite": "blue",
        });
        let answer = client.new_account(&key, &wishes).await;
        assert_eq!(answer.status, 201);
        let url = answer.header(&LOCATION).expect("a URL").to_owned();
        assert_eq!(body(&answer), json!({
            "status": "valid",
            "contact": ["mailto:owner@example.org"],
            "orders": format!("{url}/orders"),
        }));
    }
}

journey! {
    /// "it MUST return an error of type "unsupportedContact"". "a supported scheme but an invalid
    /// value, then the server MUST return an error of type "invalidContact"".
    async fn section_7_3_contacts_are_looked_at(backend: Backend) {
        let (scene, http, _) = scene(backend).await;
        let mut client = Client::new(&scene, &http, "{}").await;
        let key = AccountKey::generate().expect("a key");
        for (contact, problem) in [
            ("tel:+3110", "unsupportedContact"),
            ("mailto:a@example.org?subject=hello", "invalidContact"),
            ("mailto:a@example.org,b@example.org", "invalidContact"),
            ("mailto:nobody", "invalidContact"),
        ] {
            let answer = client.new_account(&key, &json!({ "contact": [contact] })).await;
            assert_problem(&answer, 400, problem);
        }
        let none = client.new_account(&key, &json!({ "onlyReturnExisting": true })).await;
        assert_problem(&none, 400, "accountDoesNotExist");
    }
}

journey! {
    /// "it MUST return a response with status code 200 (OK) and provide the URL of that account in
    /// the Location header field. [...] any fields in the request object MUST be ignored."
    async fn section_7_3_1_a_key_leads_to_its_account_unchanged(backend: Backend) {
        let (scene, http, _) = scene(backend).await;
        let mut client = Client::new(&scene, &http, "{}").await;
        let account = client.run.account_url().to_owned();
        let before = body(&client.get(&account).await);
        let key = client.run.account().clone();
        for wishes in [
            json!({ "contact": ["mailto:other@example.org"] }),
            json!({ "contact": ["tel:+3110"] }),
            json!({ "onlyReturnExisting": true }),
        ] {
            let answer = client.new_account(&key, &wishes).await;
            assert_eq!((answer.status, answer.header(&LOCATION)), (200, Some(&*account)));
            assert_eq!(body(&answer), before);
        }
    }
}

journey! {
    /// "The server MUST ignore any updates to the "orders" field, [...] the "status" field (except as
    /// allowed by Section 7.3.6), or any other fields it does not recognize."
    async fn section_7_3_2_contacts_change_and_nothing_else(backend: Backend) {
        let (scene, http, _) = scene(backend).await;
        let mut client = Client::new(&scene, &http, "{}").await;
        let account = client.run.account_url().to_owned();
        let changed = json!({ "contact": ["mailto:a@example.org"], "orders": "x", "status": "revoked" });
        let shown = body(&client.post(&account, &changed.to_string()).await);
        let expected = json!({
            "status": "valid",
            "contact": ["mailto:a@example.org"],
            "orders": format!("{account}/orders"),
        });
        assert_eq!(shown, expected);
        assert_eq!(body(&client.get(&account).await), expected);
    }
}

journey! {
    /// "If a server receives a POST or POST-as-GET from a deactivated account, it MUST return an error
    /// response with status code 401 (Unauthorized)". "The server SHOULD cancel any pending
    /// operations". "Servers SHOULD NOT revoke certificates issued by the deactivated account".
    async fn section_7_3_6_a_deactivated_account_is_refused_and_its_identity_stays(backend: Backend) {
        let (scene, http, mac) = scene(backend).await;
        let profile = scene.deliver("{}").await.profile;
        let read = mac.read_profile(&profile).expect("a profile");
        let acme = read.identity.acme().expect("ACME");
        let mut client = Client::at(&http, &acme.directory_url, acme.client_identifier.clone()).await;
        let mut other = client.another(&http).await;
        let key = p384();
        let order = client.ready(&scene, &mac, &key).await;
        let account = client.run.account_url().to_owned();
        // Not by somebody else.
        let end = json!({ "status": "deactivated" }).to_string();
        assert_problem(&other.post(&account, &end).await, 403, "unauthorized");
        assert_eq!(body(&client.post(&account, &end).await)["status"], "deactivated");
        for (url, payload) in [
            (&account, ""),
            (&order.url, ""),
            (&order.authorization, ""),
            (&order.finalize, &*wish(&csr(&key))),
            (&client.url("new-order"), "{}"),
        ] {
            assert_problem(&client.post(url, payload).await, 401, "unauthorized");
        }
        let own = client.run.account().clone();
        for wishes in [json!({}), json!({ "onlyReturnExisting": true })] {
            assert_problem(&client.new_account(&own, &wishes).await, 401, "unauthorized");
        }

        // The ticket is still good, for another account; and an identity outlives its account.
        let order = other.ready(&scene, &mac, &key).await;
        other.run.finalize(&order, &csr(&key)).await.expect("issued");
        let url = other.run.order(&order).await.expect("valid");
        let certificate = other.run.certificate(&url, &key).await.expect("a certificate");
        let account = other.run.account_url().to_owned();
        assert_eq!(other.post(&account, &end).await.status, 200);
        let identity = attestd_sim::Identity { certificate, key };
        mac.install_profile_with(&profile, identity).await.expect("enrols");
    }
}

journey! {
    /// "The server MUST return an error if it cannot fulfill the request as specified". "it responds
    /// with a 201 (Created) response. The body of this response is an order object reflecting the
    /// client's request".
    async fn section_7_4_an_order_is_taken_as_asked_or_not_at_all(backend: Backend) {
        let (scene, http, mac) = scene(backend).await;
        let mut client = Client::new(&scene, &http, "{}").await;
        let url = client.url("new-order");
        let of = |kind: &str, value: &str| json!({ "type": kind, "value": value });
        let own = of("permanent-identifier", &client.identifier);
        for (asked, status, problem) in [
            (json!({ "identifiers": [of("dns", "example.org")] }), 400, "unsupportedIdentifier"),
            (json!({ "identifiers": [of("hardware-module", "A/1.2.3")] }), 400, "unsupportedIdentifier"),
            (json!({ "identifiers": [of("permanent-identifier", &mac.serial())] }), 403, "rejectedIdentifier"),
            (json!({ "identifiers": [own, own] }), 403, "rejectedIdentifier"),
            (json!({ "identifiers": [own], "notAfter": "2040-01-01T00:00:00Z" }), 400, "malformed"),
            (json!({ "identifiers": [own], "notBefore": "2020-01-01T00:00:00Z" }), 400, "malformed"),
            (json!({ "identifiers": [] }), 400, "malformed"),
            (json!({ "identifiers": ["x"] }), 400, "malformed"),
            (json!([]), 400, "malformed"),
        ] {
            assert_problem(&client.post(&url, &asked.to_string()).await, status, problem);
        }
        let answer = client.post(&url, &json!({ "identifiers": [own] }).to_string()).await;
        assert_eq!(answer.status, 201);
        let order = answer.header(&LOCATION).expect("a URL").to_owned();
        let view = body(&answer);
        assert_eq!((&view["status"], &view["identifiers"]), (&json!("pending"), &json!([own])));
        assert_eq!(body(&client.get(&order).await), view);
    }
}

journey! {
    /// "A request to finalize an order will result in an error [...] If the order indicated does not
    /// have status "ready"". "the problem document returned by the server SHOULD use error code
    /// "badCSR"". "the server SHOULD leave the order in the "ready" state".
    async fn section_7_4_a_refused_csr_leaves_the_order_ready(backend: Backend) {
        let (scene, http, mac) = scene(backend).await;
        let mut client = Client::new(&scene, &http, "{}").await;
        let key = p384();
        let early = client.new_order().await;
        assert_problem(&client.post(&early.finalize, &wish(&csr(&key))).await, 403, "orderNotReady");
        let order = client.ready(&scene, &mac, &key).await;
        let mut unsigned = csr(&key);
        *unsigned.last_mut().expect("bytes") ^= 1;
        for (refused, problem) in [
            (wish(&csr(&p384())), "badCSR"),
            (wish(&unsigned), "badCSR"),
            (wish(b"no request"), "badCSR"),
            ("{}".to_owned(), "malformed"),
        ] {
            assert_problem(&client.post(&order.finalize, &refused).await, 400, problem);
            assert_eq!(client.statuses(&order).await, ["ready", "valid", "valid"]);
        }
        let answer = client.post(&order.finalize, &wish(&csr(&key))).await;
        assert_eq!((answer.status, answer.header(&LOCATION)), (200, Some(&*order.url)));
        assert_eq!(body(&answer)["status"], "valid");
        assert_problem(&client.post(&order.finalize, &wish(&csr(&key))).await, 403, "orderNotReady");
    }
}

journey! {
    /// "The default format of the certificate is application/pem-certificate-chain". "A certificate
    /// resource represents a single, immutable certificate." 9.1: each certificate certifies the one
    /// before it.
    async fn section_7_4_2_a_certificate_comes_with_its_issuer_and_never_changes(backend: Backend) {
        let (scene, http, mac) = scene(backend).await;
        let mut client = Client::new(&scene, &http, "{}").await;
        let mut other = client.another(&http).await;
        let key = p384();
        let order = client.ready(&scene, &mac, &key).await;
        assert_problem(&client.get(&client.url("cert/1")).await, 404, "malformed");
        client.run.finalize(&order, &csr(&key)).await.expect("issued");
        let url = client.run.order(&order).await.expect("valid");
        let answer = client.get(&url).await;
        assert_eq!(answer.status, 200);
        assert_eq!(header(&answer, "content-type"), "application/pem-certificate-chain");
        assert_eq!(links(&answer, "index"), [client.url("directory")]);
        let chain = X509::stack_from_pem(&answer.body).expect("PEM");
        assert_eq!(chain.len(), 2);
        assert!(chain[0].public_key().expect("a key").public_eq(&key));
        assert!(chain[0].verify(&chain[1].public_key().expect("a key")).expect("verified"));
        assert_eq!(client.get(&url).await.body, answer.body);
        assert_problem(&other.get(&url).await, 403, "unauthorized");
    }
}

journey! {
    /// 7.5.1: "The server MUST ignore any fields in the response object that are not specified as
    /// response fields for this type of challenge. The server provides a 200 (OK) response with the
    /// updated challenge object as its body." 7.5: "The authorization object is implicitly tied to
    /// the account key".
    async fn section_7_5_1_a_challenge_is_answered_once_by_its_account(backend: Backend) {
        let (scene, http, mac) = scene(backend).await;
        let mut client = Client::new(&scene, &http, "{}").await;
        let mut other = client.another(&http).await;
        let key = p384();
        let order = client.new_order().await;
        let challenge = client.challenge(&order).await;
        let answer = ChallengeAnswer::Attested(chain(&scene, &mac, &key, &challenge.token)).payload();
        assert_problem(&other.post(&challenge.url, &answer).await, 403, "unauthorized");
        assert_eq!(client.statuses(&order).await, ["pending"; 3]);
        // Looking is not answering.
        assert_eq!(body(&client.get(&challenge.url).await)["status"], "pending");
        let mut more: Value = serde_json::from_str(&answer).expect("JSON");
        more["keyAuthorization"] = json!("x");
        let first = body(&client.post(&challenge.url, &more.to_string()).await);
        assert_eq!(first["status"], "valid");
        assert!(first.get("keyAuthorization").is_none());
        // Whatever is said later changes nothing any more.
        let late = ChallengeAnswer::Failed("changed my mind".to_owned()).payload();
        assert_eq!(body(&client.post(&challenge.url, &late).await), first);
        // 7.5.2 is refused: there is nothing to give up.
        let end = json!({ "status": "deactivated" }).to_string();
        assert_problem(&client.post(&order.authorization, &end).await, 400, "malformed");
        assert_eq!(client.statuses(&order).await, ["ready", "valid", "valid"]);
    }
}

journey! {
    /// The device-attest draft, "Device Attestation Challenge": "If any of the steps fail, then the
    /// Server MUST respond to the Client with a `badAttestationStatement` error and set the status of
    /// the challenge object to `invalid`. The Server MUST provide the reason [...] in the `detail`
    /// field".
    async fn device_attest_a_statement_that_fails_ends_its_order(backend: Backend) {
        let (scene, http, mac) = scene(backend).await;
        let bound = format!("{{\"serial_number\":\"{}\"}}", mac.serial());
        let mut client = Client::new(&scene, &http, &bound).await;
        let (key, stranger) = (p384(), scene.honest_mac());
        let mut told = Vec::new();
        for case in 0..6 {
            let order = client.new_order().await;
            let challenge = client.challenge(&order).await;
            let good = chain(&scene, &mac, &key, &challenge.token);
            let object = match case {
                0 => attestation_object(&[]),
                1 => attestation_object(&[&good.leaf]),
                2 => attestation_object(&[&good.leaf, &good.leaf]),
                3 => b"no CBOR".to_vec(),
                4 => {
                    let other = chain(&scene, &mac, &key, "another token");
                    attestation_object(&[&other.leaf, &other.intermediate])
                }
                _ => {
                    let other = chain(&scene, &stranger, &key, &challenge.token);
                    attestation_object(&[&other.leaf, &other.intermediate])
                }
            };
            let answer = json!({ "attObj": URL_SAFE_NO_PAD.encode(object) }).to_string();
            let answer = client.post(&challenge.url, &answer).await;
            assert_problem(&answer, 403, "badAttestationStatement");
            assert_eq!(links(&answer, "up"), [&*order.authorization]);
            let problem = answer.json().expect("JSON");
            assert_eq!(client.statuses(&order).await, ["invalid"; 3], "{case}");
            // 8: "A challenge object with an error MUST have status equal to "invalid"."
            assert_eq!(body(&client.get(&challenge.url).await)["error"], problem);
            assert_eq!(body(&client.get(&order.url).await)["error"], problem);
            let retry = ChallengeAnswer::Attested(good).payload();
            assert_eq!(body(&client.post(&challenge.url, &retry).await)["status"], "invalid");
            assert_problem(&client.post(&order.finalize, &wish(&csr(&key))).await, 403, "orderNotReady");
            told.push(problem["detail"].clone());
        }
        told.dedup();
        assert!(told.len() >= 5, "each says what it was: {told:?}");
    }
}
