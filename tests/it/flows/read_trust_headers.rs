//! The coordinator says in its replies which provider made them, and whoever saved one checks it.

use std::process::Command;
use std::time::Duration;

use attestd::ids::sha256;
use attestd::publication::trust_headers::TrustHeaders;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::plane::{OWNER, Plane};

const BODY: &[u8] =
    br#"{"id":"chatcmpl-1","choices":[{"message":{"role":"assistant","content":"Hello."}}]}"#;

/// What is told of the Mac; status and answer.
async fn told(plane: &Plane, device_id: &str, query: &str) -> (u16, Value) {
    let path = format!("/internal/v1/devices/{device_id}/trust-headers{query}");
    plane.scene.api.ask(Method::GET, &path, &Value::Null).await
}

fn lines(headers: &Value) -> String {
    let headers = headers.as_object().expect("an object").iter();
    headers
        .map(|(name, value)| format!("{name}: {}\r\n", value.as_str().expect("a text")))
        .collect()
}

journey! {
    async fn a_saved_reply_is_checked_with_openssl_by_the_headers_it_came_with(backend: Backend) {
        let plane = Plane::new(backend).await;
        let (scene, api) = (&plane.scene, &plane.scene.api);
        let (mac, life) = plane.mac_of(Some(OWNER)).await;
        let device_id = api.device_id(&mac.serial()).await;
        let nobody = json!({ "x-provider-attested": "false" });
        let (status, before) = told(&plane, &device_id, "").await;
        assert_eq!((status, &before["headers"], &before["session"]), (200, &nobody, &Value::Null));

        let provider = plane.provider_on(&mac);
        api.bound("s", &provider, Some(OWNER)).await;
        plane.once("s", "hardware", |it| it["trust_level"] == "hardware").await;
        let (_, unasked) = told(&plane, &device_id, "").await;
        assert_eq!((&unasked["headers"]["x-provider-attested"], &unasked["headers"]["x-provider-trust-level"]),
            (&json!("false"), &json!("hardware")), "trusted, and not answered for");
        api.challenge("s", &provider).await;
        drop(life);

        let (_, answer) = told(&plane, &device_id, "").await;
        let binding = api.binding("s").await;
        assert_eq!((&answer["session"], &answer["routable_until"]), (&json!("s"), &binding["routable_until"]));
        let headers = &answer["headers"];
        let key = provider.public_key().expect("a key");
        for (name, value) in [
            ("x-provider-attested", "true"), ("x-provider-trust-level", "hardware"), ("x-provider-encrypted", "true"),
            ("x-provider-chip", "Apple M4 Max"), ("x-provider-model", "Mac16,5"), ("x-provider-secure-enclave", "true"),
            ("x-provider-mda-verified", "true"), ("x-attestation-se-public-key", &key),
            ("x-provider-verification", r#"{"app_attest":{"state":"unsupported"},"legacy":{"state":"verified"}}"#),
            ("x-provider-authorization-method", "legacy"),
        ] {
            assert_eq!(headers[name], value, "{name}");
        }
        // Neither what only the provider can make, nor whose Mac it is.
        assert_eq!(headers.as_object().expect("an object").len(), 12, "{headers:#}");
        assert!(!answer.to_string().contains(&mac.serial()));
        // Anybody finds the provider in the feed.
        let id = headers["x-provider-id"].as_str().expect("an id");
        let feed = scene.answer(scene.anybody(Method::GET, &format!("/v1/providers/{id}/attestation"))).await;
        assert_eq!(feed.json()["providers"][0]["se_public_key"], json!(key));

        // The provider signs its reply, the coordinator sends it with all of these.
        let signature = provider.sign(BODY).expect("signed");
        let hash = hex::encode(sha256(BODY));
        let saved = format!("HTTP/1.1 200 OK\r\n{}x-se-signature: {signature}\r\nx-response-hash: sha256:{hash}\r\n\r\n",
            lines(headers));
        let read = TrustHeaders::read(saved.as_bytes()).expect("headers");
        assert!(read.attested && read.verify(BODY).is_ok());
        assert!(read.verify(b"Something else.").is_err());
        let folder = scene.home.path();
        for (name, text) in [("key.der", headers["x-se-public-key"].as_str().expect("a key")), ("body.sig", &signature)] {
            std::fs::write(folder.join(name), STANDARD.decode(text).expect("base64")).expect("written");
        }
        std::fs::write(folder.join("body"), BODY).expect("written");
        let checked = Command::new("openssl").current_dir(folder)
            .args(["dgst", "-sha256", "-keyform", "DER", "-verify", "key.der", "-signature", "body.sig", "body"])
            .output().expect("openssl runs");
        assert_eq!(String::from_utf8_lossy(&checked.stdout).trim(), "Verified OK", "{checked:?}");
    }
}

journey! {
    async fn headers_say_what_is_so_when_the_request_is_sent(backend: Backend) {
        let plane = Plane::new(backend).await;
        let (scene, api) = (&plane.scene, &plane.scene.api);
        let (mac, life) = plane.mac_of(Some(OWNER)).await;
        let device_id = api.device_id(&mac.serial()).await;
        let provider = plane.provider_on(&mac);
        api.bound("s", &provider, Some(OWNER)).await;
        plane.once("s", "hardware", |it| it["trust_level"] == "hardware").await;
        api.challenge("s", &provider).await;
        drop(life);
        // Another's session is told of when it is asked for, and not as the Mac's.
        let stranger = plane.provider_on(&mac);
        api.bound("stranger", &stranger, Some("acct-stranger")).await;
        let (_, answer) = told(&plane, &device_id, "?session=stranger").await;
        let headers = &answer["headers"];
        assert_eq!((&headers["x-provider-attested"], &headers["x-provider-trust-level"]), (&json!("false"), &json!("self_signed")));
        assert_eq!((headers.get("x-provider-mda-verified"), &headers["x-provider-authorization-method"]), (None, &json!("none")));
        assert_eq!(headers["x-attestation-se-public-key"], json!(stranger.public_key().expect("a key")));
        let (_, named) = told(&plane, &device_id, "?session=s").await;
        assert_eq!((named["headers"].clone(), &named["session"]), (told(&plane, &device_id, "").await.1["headers"].clone(), &json!("s")));

        for (device, query, status, problem) in [
            (device_id.as_str(), "?session=unknown", 404, "binding-not-found"),
            (&device_id, "?session=no/name", 400, "invalid-request"),
            (&device_id, "?of=s", 400, "invalid-request"),
            ("dev_01J8Z0000000000000000000AA", "", 404, "device-not-found"),
            ("none", "", 404, "device-not-found"),
        ] {
            let (told, answer) = told(&plane, device, query).await;
            assert_eq!((told, &answer["type"]), (status, &json!(format!("/problems/{problem}"))), "{device}{query}");
        }
        let path = format!("/internal/v1/devices/{device_id}/trust-headers");
        for (role, status) in [("auditor", 200), ("operator", 200), ("viewer", 403)] {
            let api = api.with_token(scene.token(role));
            assert_eq!(api.get(&path).await.status(), status, "{role}");
        }

        // An answer is as old as it says: the next one is judged anew.
        let mut liar = provider.clone();
        liar.truth.sip_enabled = false;
        api.challenge("s", &liar).await;
        let (_, bad) = told(&plane, &device_id, "?session=s").await;
        assert_eq!((&bad["headers"]["x-provider-attested"], &bad["headers"]["x-provider-trust-level"]),
            (&json!("false"), &json!("self_signed")));
        assert_eq!(bad["routable_until"], Value::Null);
        // A blob that is no longer good: no level, and no header for it.
        liar.restart().expect("restarts");
        api.bound("s", &liar, Some(OWNER)).await;
        let (_, none) = told(&plane, &device_id, "?session=s").await;
        assert_eq!((none["headers"].get("x-provider-trust-level"), &none["headers"]["x-provider-attested"]), (None, &json!("false")));

        let now = scene.now();
        scene.set_clock(now.minus(Duration::from_secs(3_600)));
        let (status, answer) = told(&plane, &device_id, "").await;
        assert_eq!((status, &answer["type"]), (503, &json!("/problems/service-degraded")));
    }
}
