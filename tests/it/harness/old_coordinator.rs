//! The historic coordinator's MDM client, restated: what it sends, what it reads, and how it reads it
//! (coordinator-and-standards A.7).

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::receiver::{Received, Receiver};
use super::scene::{Backend, Scene};

/// What both sides were given.
pub const KEY: &str = "8c0f6e1d5b2a49738c0f6e1d5b2a4973";
pub const TOKEN: &str = "hook-7d31c5b2a4973e8f6e1d5b2a49730a";

/// A coordinator, with the address at which it takes answers.
pub struct OldCoordinator {
    client: Client,
    pub url: String,
    pub key: String,
    pub receiver: Receiver,
    folder: TempDir,
}

impl OldCoordinator {
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, secret) in [("key", KEY), ("token", TOKEN)] {
            let path = folder.path().join(name);
            std::fs::write(&path, format!("{secret}\n")).expect("written");
            let only_mine = std::fs::Permissions::from_mode(0o600);
            std::fs::set_permissions(&path, only_mine).expect("set");
        }
        Self {
            client: Client::new(),
            url: String::new(),
            key: KEY.to_owned(),
            receiver: Receiver::start().await,
            folder,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The table of the configuration, telling answers to this address.
    pub fn table_with(&self, webhook: &str, allow_private: bool) -> String {
        format!(
            "[micromdm]\nkey_file = \"{}\"\nwebhook_token_file = \"{}\"\nwebhook = \"{webhook}\"\n\
             allow_private = {allow_private}\n",
            self.file("key").display(),
            self.file("token").display(),
        )
    }

    pub fn table(&self) -> String {
        let webhook = format!("http://{}/v1/mdm/webhook", self.receiver.address);
        self.table_with(&webhook, true)
    }

    /// A server that is set up for it, and the coordinator that points there.
    pub async fn with_server(backend: Backend, tables: &str) -> (Self, Scene) {
        let mut this = Self::new().await;
        let scene = Scene::configured(backend, &format!("{}{tables}", this.table())).await;
        this.points_at(&scene);
        (this, scene)
    }

    /// EIGENINFERENCE_MDM_URL.
    pub fn points_at(&mut self, scene: &Scene) {
        self.url = format!("{}/micromdm", scene.api.url);
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client
            .request(method, format!("{}{path}", self.url))
            .basic_auth("micromdm", Some(&self.key))
    }

    /// LookupDevice: anything but 200 is an error; the list is filtered by the exact serial.
    pub async fn look_up(&self, serial: &str) -> Option<Value> {
        let body = json!({ "serial_number": serial });
        let answer = self.request(Method::POST, "/v1/devices").json(&body);
        let answer = answer.send().await.expect("an answer");
        assert_eq!(answer.status(), 200);
        let found: Value = answer.json().await.expect("JSON");
        let devices = found["devices"].as_array().expect("a list").clone();
        devices.into_iter().find(|it| it["serial_number"] == serial)
    }

    /// SendSecurityInfoCommand, or what takes its place.
    pub async fn command(&self, body: &Value) -> (u16, Value) {
        read(self.request(Method::POST, "/v1/commands").json(body)).await
    }

    pub async fn security_info(&self, udid: &str) -> String {
        let body = json!({ "udid": udid, "request_type": "SecurityInfo" });
        let (status, answer) = self.command(&body).await;
        assert_eq!(status, 201, "{answer}");
        let name = answer["payload"]["command_uuid"].as_str().expect("a name");
        name.to_owned()
    }

    /// SendDeviceAttestationWithNonce, without the push after it.
    pub async fn attest(&self, udid: &str, name: &str, nonce: Option<&[u8]>) -> (u16, Value) {
        self.raw(udid, attestation(name, nonce)).await
    }

    pub async fn raw(&self, udid: &str, body: String) -> (u16, Value) {
        let request = self.request(Method::POST, &format!("/v1/commands/{udid}"));
        read(request.header("Content-Type", "application/xml").body(body)).await
    }

    pub async fn push(&self, udid: &str) -> Response {
        let request = self.request(Method::GET, &format!("/push/{udid}"));
        request.send().await.expect("an answer")
    }

    /// The one message about this command, once it is there.
    pub async fn told(&self, name: &str) -> Told {
        super::inside::eventually(name, || async { !self.all_told(name).is_empty() }).await;
        let mut told = self.all_told(name);
        assert_eq!(told.len(), 1, "told once");
        told.remove(0)
    }

    /// Every message about this command so far.
    pub fn all_told(&self, name: &str) -> Vec<Told> {
        let told = self.receiver.received().into_iter().map(Told);
        told.filter(|told| told.event()["command_uuid"] == name)
            .collect()
    }
}

/// The bytes that the Go client makes of a name and a nonce.
pub fn attestation(name: &str, nonce: Option<&[u8]>) -> String {
    let nonce = nonce.map_or(String::new(), |nonce| {
        let nonce = STANDARD.encode(nonce);
        format!("\n\t\t<key>DeviceAttestationNonce</key>\n\t\t<data>{nonce}</data>")
    });
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST \
         1.0//EN\" \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n<plist version=\"1.0\">\n\
         <dict>\n\t<key>Command</key>\n\t<dict>\n\t\t<key>RequestType</key>\n\t\t\
         <string>DeviceInformation</string>\n\t\t<key>Queries</key>\n\t\t<array>\n\t\t\t\
         <string>DevicePropertiesAttestation</string>\n\t\t</array>{nonce}\n\t</dict>\n\t\
         <key>CommandUUID</key>\n\t<string>{name}</string>\n</dict>\n</plist>"
    )
}

async fn read(request: RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.expect("an answer");
    let status = answer.status().as_u16();
    (status, answer.json().await.expect("JSON"))
}

/// A message at the webhook.
#[derive(Debug, Clone)]
pub struct Told(pub Received);

impl Told {
    pub fn event(&self) -> &Value {
        assert_eq!(self.0.body["topic"], "mdm.Connect");
        &self.0.body["acknowledge_event"]
    }

    /// The Mac's own bytes.
    pub fn reply(&self) -> Vec<u8> {
        let payload = self.event()["raw_payload"].as_str().expect("base64");
        STANDARD.decode(payload).expect("base64")
    }

    fn text(&self) -> String {
        String::from_utf8(self.reply()).expect("text")
    }

    /// As it finds the name in the reply: letter by letter.
    pub fn names(&self, name: &str) -> bool {
        let text = self.text();
        let after = text.split("<key>CommandUUID</key>").nth(1).expect("a name");
        let after = after.split("<string>").nth(1).expect("a text");
        after.split("</string>").next() == Some(name)
    }

    /// As it reads SIP and Secure Boot, by searching for text.
    pub fn sip_and_secure_boot(&self) -> (bool, String) {
        let text = self.text();
        let sip = text.contains("<key>SystemIntegrityProtectionEnabled</key>\n\t\t<true/>");
        let level = text
            .split("<key>SecureBootLevel</key>")
            .nth(1)
            .unwrap_or_default();
        let level = level.split("<string>").nth(1).unwrap_or_default();
        (
            sip,
            level
                .split("</string>")
                .next()
                .unwrap_or_default()
                .to_owned(),
        )
    }

    /// As it reads the chain, leaf first, by searching for text.
    pub fn chain(&self) -> Vec<Vec<u8>> {
        let text = self.text();
        let after = text.split("<key>DevicePropertiesAttestation</key>").nth(1);
        let array = after
            .and_then(|after| after.split("<array>").nth(1))
            .expect("a chain");
        let array = array.split("</array>").next().unwrap_or_default();
        let certificates = array.split("<data>").skip(1).map(|certificate| {
            let data = certificate.split("</data>").next().unwrap_or_default();
            let data: String = data.split_whitespace().collect();
            STANDARD.decode(data).expect("base64")
        });
        certificates.collect()
    }

    /// Whether the leaf repeats this nonce.
    pub fn repeats(&self, nonce: &[u8]) -> bool {
        self.chain()[0]
            .windows(nonce.len())
            .any(|window| window == nonce)
    }
}
