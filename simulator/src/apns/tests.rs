//! The push double over the wire: a client with a push certificate on HTTP/2.

use std::time::Duration;

use http::Version;
use reqwest::{Certificate, Client, Response};

use super::{Apns, ApnsOptions, Fault, PushAuthority, PushBudget, PushCertificate};
use crate::certs::{Identity, Issuer};
use crate::clock::{Clock, DAY_MS};
use crate::keys::KeyKind;

const TOKEN: [u8; 32] = [0xab; 32];

struct Service {
    apns: Apns,
    authority: PushAuthority,
    certificate: PushCertificate,
    clock: Clock,
}

impl Service {
    async fn start(options: ApnsOptions) -> Self {
        let now = Clock::system().now_ms();
        let clock = Clock::fixed(now);
        let root = Issuer::root("Push Root", "Test", KeyKind::P256, now).unwrap();
        let authority = PushAuthority::new(now).unwrap();
        let topic = PushAuthority::new_topic().unwrap();
        let certificate = authority.issue(&topic, now - DAY_MS).unwrap();
        let apns = Apns::start(&root, &authority, clock.clone(), options)
            .await
            .unwrap();
        Self {
            apns,
            authority,
            certificate,
            clock,
        }
    }

    fn client(&self, identity: Option<&Identity>) -> Client {
        let roots = Certificate::from_pem(self.apns.root_pem()).unwrap();
        let mut builder = Client::builder().tls_certs_only([roots]).no_proxy();
        if let Some(identity) = identity {
            let pem = [
                identity.key_pem().unwrap(),
                identity.certificate_pem().unwrap(),
            ]
            .concat();
            builder = builder.identity(reqwest::Identity::from_pem(&pem).unwrap());
        }
        builder.build().unwrap()
    }

    fn good_client(&self) -> Client {
        self.client(Some(&self.certificate.identity))
    }

    async fn push(&self, client: &Client, magic: &str) -> Response {
        self.try_push(client, magic).await.unwrap()
    }

    async fn try_push(&self, client: &Client, magic: &str) -> Result<Response, reqwest::Error> {
        client
            .post(format!(
                "{}/3/device/{}",
                self.apns.url(),
                hex::encode(TOKEN)
            ))
            .header("apns-topic", &self.certificate.topic)
            .header("apns-push-type", "mdm")
            .header(
                "apns-expiration",
                (self.clock.now_seconds() + 60).to_string(),
            )
            .body(serde_json::json!({ "mdm": magic }).to_string())
            .send()
            .await
    }
}

async fn reason(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let body: serde_json::Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    (status, body["reason"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_push_reaches_the_mac_and_is_remembered() {
    let service = Service::start(ApnsOptions::default()).await;
    let inbox = service.apns.register(&TOKEN, &service.certificate.topic);
    let response = service.push(&service.good_client(), "MAGIC").await;
    assert_eq!(
        (response.status().as_u16(), response.version()),
        (200, Version::HTTP_2)
    );
    let id = response.headers()["apns-id"].to_str().unwrap().to_owned();
    let delivered = inbox.next().await.unwrap();
    assert_eq!((delivered.magic.as_str(), delivered.apns_id), ("MAGIC", id));
    let seen = service.apns.seen_for(&TOKEN);
    assert_eq!(
        (seen.len(), seen[0].status, service.apns.connections()),
        (1, 200, 1)
    );
    assert_eq!(seen[0].headers["apns-push-type"], "mdm");
}

#[tokio::test]
async fn tokens_are_unknown_or_dead_or_of_another_topic() {
    let service = Service::start(ApnsOptions::default()).await;
    let client = service.good_client();
    let unknown = service.push(&client, "M").await;
    assert_eq!(reason(unknown).await, (400, "BadDeviceToken".into()));
    service
        .apns
        .register(&TOKEN, "com.apple.mgmt.External.another");
    let foreign = service.push(&client, "M").await;
    assert_eq!(
        reason(foreign).await,
        (400, "DeviceTokenNotForTopic".into())
    );
    service.apns.register(&TOKEN, &service.certificate.topic);
    service.apns.unregister(&TOKEN);
    let dead = service.push(&client, "M").await;
    assert_eq!(dead.status().as_u16(), 410);
    let body: serde_json::Value = serde_json::from_str(&dead.text().await.unwrap()).unwrap();
    assert_eq!(
        body,
        serde_json::json!({ "reason": "Unregistered", "timestamp": service.clock.now_ms() })
    );
}

#[tokio::test]
async fn only_push_certificates_of_its_authority_get_in() {
    let service = Service::start(ApnsOptions::default()).await;
    service.apns.register(&TOKEN, &service.certificate.topic);
    let foreign =
        Identity::from_foreign_ca("nobody", KeyKind::Rsa2048, service.clock.now_ms()).unwrap();
    for client in [service.client(None), service.client(Some(&foreign))] {
        assert!(
            service.try_push(&client, "M").await.is_err(),
            "the handshake fails"
        );
    }
    assert!(service.apns.seen().is_empty());
}

#[tokio::test]
async fn expired_and_revoked_certificates_are_answered_403() {
    let service = Service::start(ApnsOptions::default()).await;
    service.apns.register(&TOKEN, &service.certificate.topic);
    let old = service
        .authority
        .issue(
            &service.certificate.topic,
            service.clock.now_ms() - 400 * DAY_MS,
        )
        .unwrap();
    let expired = service
        .push(&service.client(Some(&old.identity)), "M")
        .await;
    assert_eq!(reason(expired).await, (403, "BadCertificate".into()));
    service
        .apns
        .revoke(&service.certificate.identity.certificate)
        .unwrap();
    let revoked = service.push(&service.good_client(), "M").await;
    assert_eq!(reason(revoked).await, (403, "BadCertificate".into()));
}

#[tokio::test]
async fn faults_come_in_line_and_those_of_a_token_first() {
    let service = Service::start(ApnsOptions::default()).await;
    service.apns.register(&TOKEN, &service.certificate.topic);
    let client = service.good_client();
    service.apns.inject(Fault::Answer(503, "Shutdown"));
    service
        .apns
        .inject_for(&TOKEN, Fault::Answer(429, "TooManyRequests"));
    let mut told = Vec::new();
    for _ in 0..2 {
        told.push(reason(service.push(&client, "M").await).await.1);
    }
    assert_eq!(told, ["TooManyRequests", "Shutdown"]);
    service.apns.inject(Fault::DropConnection);
    assert!(service.try_push(&client, "M").await.is_err());
    assert_eq!(service.push(&client, "M").await.status(), 200);
    assert_eq!(service.apns.connections(), 2);
}

#[tokio::test]
async fn go_away_ends_connections_but_no_push() {
    let service = Service::start(ApnsOptions::default()).await;
    service.apns.register(&TOKEN, &service.certificate.topic);
    service.apns.go_away_after(Some(2));
    let client = service.good_client();
    let mut pushes = 0;
    // When the client learns of a GOAWAY is its own affair; that no push is lost is not.
    while service.apns.connections() < 3 {
        assert_eq!(service.push(&client, "M").await.status(), 200);
        pushes += 1;
        assert!(pushes < 1_000, "the connections never ended");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(service.apns.seen().len(), pushes);
}

#[tokio::test]
async fn a_budget_is_per_token_and_window() {
    let budget = PushBudget {
        count: 2,
        window_ms: 60_000,
    };
    let service = Service::start(ApnsOptions {
        budget: Some(budget),
        ..ApnsOptions::default()
    })
    .await;
    service.apns.register(&TOKEN, &service.certificate.topic);
    let client = service.good_client();
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(service.push(&client, "M").await.status().as_u16());
    }
    service.clock.advance(60_001);
    statuses.push(service.push(&client, "M").await.status().as_u16());
    assert_eq!(statuses, [200, 200, 429, 200]);
}
