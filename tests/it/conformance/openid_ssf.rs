//! The OpenID conformance suite's checks of a transmitter (plans `openid-ssf-transmitter-test-plan` and
//! `openid-ssf-transmitter-caep-test-plan`), restated: module by module, check by check.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::receiver::Receiver;
use crate::harness::scene::Scene;
use crate::harness::signals::{
    COMPLIANCE, POLL, PUSH, SIGNALS, SignalsClient, VERIFICATION, claims, judge, part, quiet_mac,
    sharing, signed_by,
};

async fn well_known(scene: &Scene, name: &str) -> Value {
    let path = format!("/.well-known/{name}");
    let answer = scene.answer(scene.anybody(Method::GET, &path)).await;
    assert_eq!(answer.status, 200, "{path}");
    answer.json()
}

/// The checks that the suite makes of every token: `OIDSSF…CheckSecurityEventToken`.
async fn check_token(scene: &Scene, token: &str, stream: &Value) -> Value {
    let (header, claims) = (part(token, 0), part(token, 1));
    assert_eq!(header["typ"], "secevent+jwt");
    assert_eq!(header["alg"], "RS256");
    assert_eq!(header.get("crit"), None);
    for forbidden in ["sub", "exp"] {
        assert_eq!(claims.get(forbidden), None, "{forbidden}");
    }
    assert_eq!(claims["iss"], stream["iss"]);
    assert_eq!(claims["aud"], stream["aud"]);
    assert!(claims["jti"].as_str().is_some_and(|jti| !jti.is_empty()));
    let iat = claims["iat"].as_i64().expect("an integer");
    assert!(iat <= scene.now().seconds(), "iat lies ahead");
    assert_eq!(
        claims["events"].as_object().map(serde_json::Map::len),
        Some(1)
    );
    assert!(claims["sub_id"]["format"].is_string());
    let metadata = well_known(scene, "ssf-configuration").await;
    let keys = metadata["jwks_uri"].as_str().expect("a URL");
    let keys = keys
        .strip_prefix(scene.base_url.as_str())
        .expect("the issuer's");
    let keys = scene.answer(scene.anybody(Method::GET, keys)).await.json();
    let bits = signed_by(token, &keys).expect("a signature by a published key");
    assert!(bits >= 2048, "{bits}");
    claims
}

fn first_token(polled: &Value) -> String {
    let mut sets = polled["sets"].as_object().expect("sets").values();
    let token = sets.next().and_then(Value::as_str).expect("a token");
    token.to_owned()
}

fn with_id(stream: &Value, rest: Value) -> Value {
    let mut body = rest;
    body["stream_id"] = stream["stream_id"].clone();
    body
}

journey! {
    async fn metadata_names_the_issuer_the_keys_and_every_endpoint(backend: Backend) {
        let scene = sharing(backend).await;
        let metadata = well_known(&scene, "ssf-configuration").await;
        assert_eq!(metadata["spec_version"], "1_0");
        assert_eq!(metadata["issuer"], scene.base_url, "the issuer is the URL that was asked at");
        assert_eq!(metadata["jwks_uri"], format!("{}/.well-known/jwks.json", scene.base_url));
        assert_eq!(metadata["delivery_methods_supported"], json!([PUSH, POLL]));
        for (name, path) in [
            ("configuration_endpoint", "/ssf/stream"), ("status_endpoint", "/ssf/status"),
            ("add_subject_endpoint", "/ssf/subjects:add"), ("remove_subject_endpoint", "/ssf/subjects:remove"),
            ("verification_endpoint", "/ssf/verify"),
        ] {
            assert_eq!(metadata[name], format!("{SIGNALS}{path}"), "{name}");
        }
        assert_eq!(metadata["authorization_schemes"], json!([{ "spec_urn": "urn:ietf:rfc:6749" }]));
        assert_eq!((&metadata["default_subjects"], &metadata["critical_subject_members"]), (&json!("ALL"), &json!(["tenant"])));
        let oauth = well_known(&scene, "oauth-authorization-server").await;
        assert_eq!((&oauth["issuer"], &oauth["token_endpoint"]), (&json!(scene.base_url), &json!(format!("{SIGNALS}/ssf/token"))));
        assert!(oauth["grant_types_supported"].as_array().expect("a list").contains(&json!("client_credentials")));
    }
}

journey! {
    async fn stream_control_happy_path(backend: Backend) {
        let scene = sharing(backend).await;
        let client = SignalsClient::new(&scene, "suite", &[]).await;
        let none = client.ask(Method::GET, "/ssf/stream").await;
        assert_eq!((none.status, none.body), (200, json!([])));

        let wanted = json!({
            "delivery": { "method": PUSH, "endpoint_url": "https://suite.example.org/push", "authorization_header": "secret" },
            "events_requested": [COMPLIANCE, "https://example.org/unknown"], "description": "a test",
        });
        let made = client.send(Method::POST, "/ssf/stream", &wanted).await;
        assert_eq!((made.status, made.kind.as_str()), (201, "application/json"));
        let stream = made.body;
        let id = stream["stream_id"].as_str().expect("an id").to_owned();
        let expected = json!({
            "stream_id": id, "iss": scene.base_url, "aud": client.audience,
            "delivery": { "method": PUSH, "endpoint_url": "https://suite.example.org/push" },
            "events_supported": [COMPLIANCE], "events_requested": [COMPLIANCE, "https://example.org/unknown"],
            "events_delivered": [COMPLIANCE], "min_verification_interval": 10, "description": "a test",
        });
        assert_eq!(stream, expected);
        let one = format!("/ssf/stream?stream_id={id}");
        let read = client.ask(Method::GET, &one).await;
        assert_eq!((read.status, &read.body), (200, &stream));
        let all = client.ask(Method::GET, "/ssf/stream").await;
        assert_eq!((all.status, all.body), (200, json!([stream])));

        // Update: what is not said stays.
        let updated = client.send(Method::PATCH, "/ssf/stream", &with_id(&stream, json!({ "description": "another" }))).await;
        let mut expected = stream.clone();
        expected["description"] = json!("another");
        assert_eq!((updated.status, &updated.body), (200, &expected));
        // What is read can be written back: the transmitter's own members agree.
        let replaced = client.send(Method::PUT, "/ssf/stream", &expected).await;
        assert_eq!((replaced.status, &replaced.body), (200, &expected));
        // Replace: what is not said is gone, and without a delivery it is polled.
        let replaced = client.send(Method::PUT, "/ssf/stream", &with_id(&stream, json!({ "events_requested": [COMPLIANCE] }))).await;
        assert_eq!(replaced.status, 200);
        assert_eq!(replaced.body["delivery"], json!({ "method": POLL, "endpoint_url": format!("{SIGNALS}/ssf/poll/{id}") }));
        assert_eq!(replaced.body.get("description"), None);

        let status = format!("/ssf/status?stream_id={id}");
        let read = client.ask(Method::GET, &status).await;
        assert_eq!((read.status, read.body), (200, json!({ "stream_id": id, "status": "enabled" })));
        for word in ["paused", "disabled", "enabled"] {
            let set = client.set_status(&stream, word).await;
            assert_eq!((set.status, set.body), (200, json!({ "stream_id": id, "status": word, "reason": "so" })));
            assert_eq!(client.ask(Method::GET, &status).await.body["status"], word);
        }
        // Subjects: every format that the profile wants is taken.
        for subject in [
            json!({ "format": "email", "email": "someone@example.org" }),
            json!({ "format": "iss_sub", "iss": "https://idp.example.org", "sub": "1" }),
            json!({ "format": "opaque", "id": "1" }),
        ] {
            let added = client.send(Method::POST, "/ssf/subjects:add", &with_id(&stream, json!({ "subject": subject, "verified": true }))).await;
            assert_eq!((added.status, added.body), (200, Value::Null));
            let removed = client.send(Method::POST, "/ssf/subjects:remove", &with_id(&stream, json!({ "subject": subject }))).await;
            assert_eq!(removed.status, 204);
        }
        assert_eq!(client.ask(Method::DELETE, &one).await.status, 204);
        assert_eq!(client.ask(Method::GET, &one).await.status, 404);
        assert_eq!(client.ask(Method::GET, "/ssf/stream").await.body, json!([]));
    }
}

journey! {
    async fn stream_control_error_400_for_a_body_that_cannot_be_read(backend: Backend) {
        let scene = sharing(backend).await;
        let client = SignalsClient::new(&scene, "suite", &[]).await;
        let before = ["", "{", "[]", "{\"events_requested\":[1]}", "{\"delivery\":\"push\"}", "{\"description\":\"a\",\"description\":\"b\"}"];
        for broken in before {
            let request = client.request(Method::POST, "/ssf/stream").body(broken);
            assert_eq!(request.send().await.expect("an answer").status(), 400, "{broken}");
        }
        let stream = client.stream(None).await;
        for (method, path) in [
            (Method::PATCH, "/ssf/stream"), (Method::PUT, "/ssf/stream"), (Method::POST, "/ssf/status"),
            (Method::POST, "/ssf/subjects:add"), (Method::POST, "/ssf/subjects:remove"), (Method::POST, "/ssf/verify"),
        ] {
            for broken in ["", "{", "[]", "{}", "{\"stream_id\":7}"] {
                let request = client.request(method.clone(), path).body(broken);
                assert_eq!(request.send().await.expect("an answer").status(), 400, "{method} {path} {broken}");
            }
        }
        for (path, rest) in [
            ("/ssf/status", json!({ "status": "on" })), ("/ssf/status", json!({})),
            ("/ssf/subjects:add", json!({})), ("/ssf/subjects:add", json!({ "subject": { "format": "none" } })),
            ("/ssf/verify", json!({ "state": 7 })),
        ] {
            assert_eq!(client.send(Method::POST, path, &with_id(&stream, rest)).await.status, 400, "{path}");
        }
        assert_eq!(client.ask(Method::GET, "/ssf/status").await.status, 400);
        assert_eq!(client.ask(Method::DELETE, "/ssf/stream").await.status, 400);
    }
}

/// Every call of a receiver.
fn calls(stream: &Value) -> Vec<(Method, String, Value)> {
    let id = stream["stream_id"].as_str().expect("an id");
    let subject = json!({ "format": "opaque", "id": "1" });
    vec![
        (
            Method::GET,
            format!("/ssf/stream?stream_id={id}"),
            Value::Null,
        ),
        (
            Method::PATCH,
            "/ssf/stream".to_owned(),
            with_id(stream, json!({})),
        ),
        (
            Method::PUT,
            "/ssf/stream".to_owned(),
            with_id(stream, json!({})),
        ),
        (
            Method::GET,
            format!("/ssf/status?stream_id={id}"),
            Value::Null,
        ),
        (
            Method::POST,
            "/ssf/status".to_owned(),
            with_id(stream, json!({ "status": "enabled" })),
        ),
        (
            Method::POST,
            "/ssf/subjects:add".to_owned(),
            with_id(stream, json!({ "subject": subject })),
        ),
        (
            Method::POST,
            "/ssf/subjects:remove".to_owned(),
            with_id(stream, json!({ "subject": subject })),
        ),
        (
            Method::POST,
            "/ssf/verify".to_owned(),
            with_id(stream, json!({})),
        ),
        (
            Method::POST,
            format!("/ssf/poll/{id}"),
            json!({ "maxEvents": 0 }),
        ),
        (
            Method::DELETE,
            format!("/ssf/stream?stream_id={id}"),
            Value::Null,
        ),
    ]
}

journey! {
    async fn stream_control_error_401_for_a_bad_token(backend: Backend) {
        let scene = sharing(backend).await;
        let mut client = SignalsClient::new(&scene, "suite", &[]).await;
        let stream = client.stream(None).await;
        let good = client.token.clone();
        for bad in ["", "nonsense", &format!("{good}x"), &good[1..]] {
            bad.clone_into(&mut client.token);
            for (method, path, body) in calls(&stream) {
                let answer = client.send(method.clone(), &path, &body).await;
                assert_eq!((answer.status, answer.challenge.as_str()), (401, "Bearer"), "{method} {path} {bad:?}");
            }
            assert_eq!(client.send(Method::POST, "/ssf/stream", &json!({})).await.status, 401);
        }
        // The token counts in the header only.
        let by_query = client.ask(Method::GET, &format!("/ssf/stream?access_token={good}")).await;
        assert_eq!(by_query.status, 401);
        // A token that may only read changes nothing: 403.
        let granted = client.grant(&[("grant_type", "client_credentials"), ("scope", "ssf.read")]).await;
        assert_eq!((granted.status, &granted.body["scope"]), (200, &json!("ssf.read")));
        granted.body["access_token"].as_str().expect("a token").clone_into(&mut client.token);
        for (method, path, body) in calls(&stream) {
            let status = client.send(method.clone(), &path, &body).await.status;
            let reads = method == Method::GET || path.starts_with("/ssf/poll");
            assert_eq!(status, if reads { 200 } else { 403 }, "{method} {path}");
        }
    }
}

journey! {
    async fn stream_control_error_404_for_an_unknown_stream(backend: Backend) {
        let scene = sharing(backend).await;
        let client = SignalsClient::new(&scene, "suite", &[]).await;
        client.stream(None).await;
        for unknown in ["unknown", "str_01J8ZZZZZZZZZZZZZZZZZZZZZZ"] {
            for (method, path, body) in calls(&json!({ "stream_id": unknown })) {
                let answer = client.send(method.clone(), &path, &body).await;
                assert_eq!((answer.status, answer.kind.as_str()), (404, "application/problem+json"), "{method} {path}");
            }
        }
    }
}

journey! {
    async fn stream_control_a_second_stream_is_409(backend: Backend) {
        let scene = sharing(backend).await;
        let client = SignalsClient::new(&scene, "suite", &[]).await;
        let stream = client.stream(None).await;
        let again = client.send(Method::POST, "/ssf/stream", &json!({ "events_requested": [COMPLIANCE] })).await;
        assert_eq!(again.status, 409);
        assert_eq!(client.ask(Method::GET, "/ssf/stream").await.body, json!([stream]));
    }
}

journey! {
    async fn stream_verification_push(backend: Backend) {
        let scene = sharing(backend).await;
        let client = SignalsClient::new(&scene, "suite", &["--allow-private"]).await;
        let receiver = Receiver::start().await;
        receiver.reply(|_| crate::harness::receiver::Reply::Status(202));
        let stream = client.stream(Some(&receiver.url())).await;
        assert_eq!(client.verify(&stream, Some("a state of the receiver's")).await, 204);
        let message = receiver.count(1).await.remove(0);
        assert_eq!(message.header("content-type"), "application/secevent+jwt");
        assert_eq!(message.header("accept"), "application/json");
        assert_eq!(message.header("authorization"), "Bearer theirs");
        let token = String::from_utf8(message.raw).expect("text");
        let claims = check_token(&scene, &token, &stream).await;
        assert_eq!(claims["events"][VERIFICATION]["state"], "a state of the receiver's");
        assert_eq!(claims["sub_id"], json!({ "format": "opaque", "id": stream["stream_id"] }));
        // Within min_verification_interval: 429.
        assert_eq!(client.verify(&stream, None).await, 429);
        // Who writes back what was read, which does not show the header, keeps it.
        assert_eq!(client.send(Method::PUT, "/ssf/stream", &stream).await.body, stream);
        scene.pass(std::time::Duration::from_secs(10));
        assert_eq!(client.verify(&stream, None).await, 204);
        assert_eq!(receiver.count(2).await[1].header("authorization"), "Bearer theirs");
    }
}

journey! {
    async fn stream_verification_push_without_an_authorization_header(backend: Backend) {
        let scene = sharing(backend).await;
        let client = SignalsClient::new(&scene, "suite", &["--allow-private"]).await;
        let receiver = Receiver::start().await;
        let wanted = json!({ "delivery": { "method": PUSH, "endpoint_url": receiver.url() }, "events_requested": [COMPLIANCE] });
        let stream = client.send(Method::POST, "/ssf/stream", &wanted).await.body;
        assert_eq!(client.verify(&stream, None).await, 204);
        let message = receiver.count(1).await.remove(0);
        assert_eq!(message.headers.get("authorization"), None);
        let token = String::from_utf8(message.raw).expect("text");
        let claims = check_token(&scene, &token, &stream).await;
        assert_eq!(claims["events"][VERIFICATION], json!({}), "no state was given, and none comes back");
    }
}

journey! {
    async fn stream_verification_poll_only(backend: Backend) {
        let scene = sharing(backend).await;
        let client = SignalsClient::new(&scene, "suite", &[]).await;
        let stream = client.stream(None).await;
        let empty = client.poll(&stream, &json!({ "returnImmediately": true })).await;
        assert_eq!(empty, json!({ "sets": {} }));
        assert_eq!(client.verify(&stream, Some("s")).await, 204);
        let polled = client.poll(&stream, &json!({ "maxEvents": 16, "returnImmediately": true })).await;
        let claims = check_token(&scene, &first_token(&polled), &stream).await;
        assert_eq!(claims["events"][VERIFICATION]["state"], "s");
        assert_eq!(polled["sets"].as_object().expect("sets").keys().next(), claims["jti"].as_str().map(str::to_owned).as_ref());
        // What is not acknowledged comes again, under its name.
        let again = client.poll(&stream, &json!({ "returnImmediately": true })).await;
        assert_eq!(again["sets"], polled["sets"]);
    }
}

journey! {
    async fn stream_verification_poll_and_acknowledge(backend: Backend) {
        let scene = sharing(backend).await;
        let client = SignalsClient::new(&scene, "suite", &[]).await;
        let stream = client.stream(None).await;
        for state in ["one", "two", "three"] {
            assert_eq!(client.verify(&stream, Some(state)).await, 204);
            scene.pass(std::time::Duration::from_secs(10));
        }
        let states = |polled: &Value| -> Vec<String> {
            claims(polled).iter().map(|it| it["events"][VERIFICATION]["state"].as_str().expect("a state").to_owned()).collect()
        };
        let first = client.poll(&stream, &json!({ "maxEvents": 1, "returnImmediately": true })).await;
        assert_eq!((states(&first), &first["moreAvailable"]), (vec!["one".to_owned()], &json!(true)));
        let jti = first["sets"].as_object().expect("sets").keys().next().expect("one").clone();
        // One request acknowledges and asks on.
        let next = client.poll(&stream, &json!({ "ack": [jti], "returnImmediately": true })).await;
        assert_eq!((states(&next), next.get("moreAvailable")), (vec!["two".to_owned(), "three".to_owned()], None));
        // One is not taken: it does not come again either.
        let names: Vec<_> = next["sets"].as_object().expect("sets").keys().cloned().collect();
        let told = json!({ "ack": [names[0]], "setErrs": { names[1].clone(): { "err": "invalid_audience", "description": "not mine" } }, "returnImmediately": true });
        assert_eq!(client.poll(&stream, &told).await, json!({ "sets": {} }));
    }
}

journey! {
    async fn stream_verification_acknowledge_only(backend: Backend) {
        let scene = sharing(backend).await;
        let client = SignalsClient::new(&scene, "suite", &[]).await;
        let stream = client.stream(None).await;
        client.verify(&stream, Some("s")).await;
        let polled = client.poll(&stream, &json!({ "returnImmediately": true })).await;
        let names: Vec<_> = polled["sets"].as_object().expect("sets").keys().collect();
        // maxEvents 0 brings nothing, and does not wait for anything.
        let only = client.poll(&stream, &json!({ "maxEvents": 0 })).await;
        assert_eq!((&only["sets"], &only["moreAvailable"]), (&json!({}), &json!(true)));
        let ack = client.poll(&stream, &json!({ "ack": names, "maxEvents": 0 })).await;
        assert_eq!(ack, json!({ "sets": {} }));
        assert_eq!(client.waiting(&stream).await, [Value::Null; 0]);
    }
}

journey! {
    async fn caep_interoperability_device_compliance_change(backend: Backend) {
        let scene = sharing(backend).await;
        let client = SignalsClient::new(&scene, "suite", &[]).await;
        let stream = client.stream(None).await;
        let mac = quiet_mac(&scene).await;
        judge(&scene, &mac, "affirming", "contraindicated", "sip_disabled").await;
        let polled = client.poll(&stream, &json!({})).await;
        let claims = check_token(&scene, &first_token(&polled), &stream).await;
        let event = &claims["events"][COMPLIANCE];
        assert_eq!((&event["previous_status"], &event["current_status"]), (&json!("compliant"), &json!("not-compliant")));
        assert!(event["event_timestamp"].is_i64());
        assert!(["admin", "user", "policy", "system"].contains(&event["initiating_entity"].as_str().expect("a word")));
        for reason in ["reason_admin", "reason_user"] {
            let texts = event[reason].as_object().expect(reason);
            assert!(!texts.is_empty() && texts.values().all(|text| text.as_str().is_some_and(|text| !text.is_empty())), "{event}");
        }
        let subject = &claims["sub_id"];
        assert_eq!((&subject["format"], &subject["device"]["format"]), (&json!("complex"), &json!("iss_sub")));
        assert_eq!((&subject["device"]["iss"], &subject["tenant"]), (&json!(scene.base_url), &json!({ "format": "opaque", "id": "test-fleet" })));
        assert!(claims["txn"].is_string());
    }
}

journey! {
    async fn caep_interoperability_client_credentials(backend: Backend) {
        let scene = sharing(backend).await;
        let mut client = SignalsClient::new(&scene, "suite", &[]).await;
        const GRANT: (&str, &str) = ("grant_type", "client_credentials");
        let granted = client.grant(&[GRANT, ("scope", "ssf.manage ssf.read"), ("unknown", "ignored")]).await;
        assert_eq!((granted.status, granted.kind.as_str()), (200, "application/json"));
        let life = granted.body["expires_in"].as_u64().expect("seconds");
        assert!((1..=3600).contains(&life), "no longer than an hour: {life}");
        assert_eq!(granted.body["scope"], "ssf.read ssf.manage");
        for (form, error) in [
            (&[][..], "invalid_request"), (&[GRANT, GRANT], "invalid_request"),
            (&[("grant_type", "password")], "unsupported_grant_type"), (&[GRANT, ("scope", "openid")], "invalid_scope"),
        ] {
            let refused = client.grant(form).await;
            assert_eq!((refused.status, &refused.body["error"]), (400, &json!(error)), "{form:?}");
        }
        let secret = std::mem::replace(&mut client.secret, "another".to_owned());
        let refused = client.grant(&[GRANT]).await;
        assert_eq!((refused.status, &refused.body["error"]), (401, &json!("invalid_client")));
        assert!(refused.challenge.starts_with("Basic"), "{refused:?}");
        client.secret = secret;
        client.id = "rcv_01J8ZZZZZZZZZZZZZZZZZZZZZZ".to_owned();
        assert_eq!(client.grant(&[GRANT]).await.status, 401);
    }
}
