//! A Mac joins, changes its address, and leaves; and others try to in its name.

use attestd::enrollment::ticket::Bounds;
use attestd_sim::mac::messages::{
    authenticate, check_out, idle, set_bootstrap_token, token_update, user_token_update,
};
use attestd_sim::plist_xml::dictionary;
use attestd_sim::{Identity, Mac, MacError, MacSpec, Reply, Signing};
use plist::{Dictionary, Value};
use serde_json::json;

use crate::harness::public_side::{Delivered, accepted, refused, told};
use crate::harness::scene::Scene;

/// The rights of the profile.
const RIGHTS: i64 = 1041;

/// The content type of check-ins.
const CHECK_IN: &str = "application/x-apple-aspen-mdm-checkin";

/// A Mac with an identity and nothing else yet: what a profile gives before Authenticate.
pub struct Newcomer {
    pub mac: Mac,
    pub identity: Identity,
    pub progress_id: String,
}

impl Newcomer {
    /// With a ticket for its own serial number.
    pub async fn new(scene: &Scene) -> Self {
        let mac = scene.honest_mac();
        let delivered = scene.deliver_for(&mac.serial()).await;
        Self::with(mac, delivered).await
    }

    pub async fn with(
        mac: Mac,
        Delivered {
            profile,
            progress_id,
        }: Delivered,
    ) -> Self {
        let profile = mac.read_profile(&profile).expect("a profile");
        let identity = mac.identity_for(&profile).await.expect("an identity");
        Self {
            mac,
            identity,
            progress_id,
        }
    }

    pub fn spec(&self) -> MacSpec {
        self.mac.spec()
    }

    pub async fn says(&self, scene: &Scene, body: &Dictionary) -> (u16, String) {
        told(self.sends(scene, body).await)
    }

    pub async fn sends(&self, scene: &Scene, body: &Dictionary) -> Result<Reply, MacError> {
        let mut bytes = Vec::new();
        Value::Dictionary(body.clone())
            .to_writer_xml(&mut bytes)
            .expect("written");
        let url = scene.url("/mdm/checkin");
        self.mac
            .signed_put(&url, CHECK_IN, &bytes, Signing::By(&self.identity))
            .await
    }

    /// Authenticate and TokenUpdate with this token.
    pub async fn joins(&self, scene: &Scene, token: &[u8]) {
        let topic = scene.world.topic();
        let _inbox = scene.world.apns().register(token, topic);
        let hello = authenticate(&self.spec(), topic, RIGHTS);
        assert_eq!(self.says(scene, &hello).await, accepted());
        let update = token_update(&self.spec(), topic, token, "magic");
        assert_eq!(self.says(scene, &update).await, accepted());
    }

    /// What the server keeps as this Mac's bootstrap token.
    pub async fn bootstrap_token(&self, scene: &Scene) -> Option<Vec<u8>> {
        let reply = self
            .sends(scene, &bare("GetBootstrapToken", &self.spec()))
            .await;
        let reply = reply.expect("an answer");
        assert_eq!(reply.status, 200);
        if reply.body.is_empty() {
            return None;
        }
        let body = reply
            .plist()
            .and_then(Value::into_dictionary)
            .expect("a dictionary");
        Some(body["BootstrapToken"].as_data().expect("data").to_vec())
    }
}

/// A message with nothing in it but its type and sender.
pub fn bare(kind: &str, spec: &MacSpec) -> Dictionary {
    dictionary([
        ("MessageType", kind.into()),
        ("UDID", spec.udid.as_str().into()),
    ])
}

/// The same with further members.
fn with<const N: usize>(mut body: Dictionary, more: [(&str, Value); N]) -> Dictionary {
    body.extend(dictionary(more));
    body
}

/// Says `body` and asserts that it is refused for `reason`, and counted.
async fn assert_refused(scene: &Scene, who: &Newcomer, body: &Dictionary, reason: &str) {
    let before = scene.refusals("check_in", reason).await;
    assert_eq!(who.says(scene, body).await, refused(reason), "{body:?}");
    assert_eq!(
        scene.refusals("check_in", reason).await,
        before + 1,
        "{body:?}"
    );
}

journey! {
    async fn every_check_in_is_answered_as_apple_says(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(1);
        let mac = Newcomer::new(&scene).await;
        let (spec, topic) = (mac.spec(), scene.world.topic());

        // TokenUpdate before Authenticate is refused, and is no Authenticate in disguise.
        let update = token_update(&spec, topic, &[7; 32], "magic");
        assert_refused(&scene, &mac, &update, "not_enrolled").await;
        assert_refused(&scene, &mac, &update, "not_enrolled").await;
        assert!(scene.api.device(&spec.serial).await.is_none());

        let unknown_topic = "com.apple.mgmt.External.00000000-0000-4000-8000-000000000000";
        let elsewhere = authenticate(&spec, unknown_topic, RIGHTS);
        assert_refused(&scene, &mac, &elsewhere, "request_malformed").await;
        let hello = authenticate(&spec, topic, RIGHTS);
        assert_eq!(mac.says(&scene, &hello).await, accepted());
        let device = scene.api.device(&spec.serial).await.expect("a device");
        assert_eq!((&device["enrollment_state"], &device["enrolled"]), (&json!("pending"), &json!(false)));

        // The bootstrap token may come before TokenUpdate.
        assert_eq!(mac.bootstrap_token(&scene).await, None);
        let escrow = set_bootstrap_token(&spec, b"hello world");
        assert_eq!(mac.says(&scene, &escrow).await, accepted());
        assert_eq!(mac.bootstrap_token(&scene).await.as_deref(), Some(&b"hello world"[..]));

        let _inbox = scene.world.apns().register(&[7; 32], topic);
        assert_eq!(mac.says(&scene, &update).await, accepted());
        let device = scene.api.device(&spec.serial).await.expect("a device");
        assert_eq!((&device["enrollment_state"], &device["push"]["state"]), (&json!("enrolled"), &json!("ok")));
        // Duplicates are normal; an address at which nobody could wake it is not.
        assert_eq!(mac.says(&scene, &update).await, accepted());
        let nowhere = token_update(&spec, unknown_topic, &[7; 32], "magic");
        assert_refused(&scene, &mac, &nowhere, "request_malformed").await;

        let erase = bare("SetBootstrapToken", &spec);
        assert_eq!(mac.says(&scene, &erase).await, accepted());
        assert_eq!(mac.bootstrap_token(&scene).await, None);

        let user = [("UserID", Value::from("5B0C1D2E-7F3A-5C41-9A6D-0E1F2A3B4C5D"))];
        let user_login = with(bare("UserAuthenticate", &spec), user.clone());
        assert_eq!(mac.says(&scene, &user_login).await, (410, String::new()));
        for endpoint in ["tokens", "declaration-items", "status"] {
            let declared = [("Endpoint", Value::from(endpoint))];
            let declared = with(bare("DeclarativeManagement", &spec), declared);
            assert_eq!(mac.says(&scene, &declared).await, (404, String::new()));
        }
        let token = [("TokenServiceType", Value::from("com.apple.maid"))];
        let token = with(bare("GetToken", &spec), token);
        assert_refused(&scene, &mac, &token, "message_unsupported").await;
        for kind in ["ReturnToService", "authenticate", ""] {
            assert_refused(&scene, &mac, &bare(kind, &spec), "message_unsupported").await;
        }
        let of_a_user = with(bare("CheckOut", &spec), user);
        assert_refused(&scene, &mac, &of_a_user, "message_unsupported").await;
        let account_driven = dictionary([
            ("MessageType", "Authenticate".into()),
            ("Topic", topic.into()),
            ("EnrollmentID", "account-driven".into()),
        ]);
        assert_refused(&scene, &mac, &account_driven, "message_unsupported").await;

        let goodbye = check_out(&spec, topic);
        assert_eq!(mac.says(&scene, &goodbye).await, accepted());
        assert_eq!(mac.says(&scene, &goodbye).await, accepted());
        let device = scene.api.device(&spec.serial).await.expect("a device");
        assert_eq!((&device["enrollment_state"], &device["push"]["state"]), (&json!("checked_out"), &json!("none")));
        for body in [&update, &escrow, &bare("GetBootstrapToken", &spec)] {
            assert_refused(&scene, &mac, body, "not_enrolled").await;
        }
    }
}

journey! {
    async fn the_users_address_does_not_replace_the_macs(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(1);
        let mac = scene.honest_mac();
        mac.enroll(&scene.base_url).await.expect("enrols");
        let (token, _) = mac.push_address().expect("an address");
        let user = user_token_update(&mac.spec(), scene.world.topic(), &[9; 32], "other", "A-USER");
        assert_eq!(told(mac.check_in(&user, Signing::Own).await), accepted());
        // The Mac is reached where it was before.
        let _life = mac.live();
        scene.api.verdict(&mac.serial(), "affirming").await;
        assert!(!scene.world.apns().seen_for(&token).is_empty());
        assert!(scene.world.apns().seen_for(&[9; 32]).is_empty());
    }
}

journey! {
    async fn nobody_speaks_for_a_mac_but_its_own_identity(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(3);
        let mallory = Newcomer::new(&scene).await;
        // Apple has attested Alice's serial number: before, nobody could tell whose it is.
        let (alice, life) = scene.living_mac(MacSpec::random().expect("a Mac")).await;
        scene.api.verdict(&alice.serial(), "affirming").await;
        drop(life);
        let (topic, as_alice) = (scene.world.topic(), alice.spec());
        let before = scene.api.device(&as_alice.serial).await;

        // An identity that speaks for nobody yet.
        for body in [
            token_update(&as_alice, topic, &[6; 32], "evil"),
            set_bootstrap_token(&as_alice, b"evil"),
            bare("GetBootstrapToken", &as_alice),
            check_out(&as_alice, topic),
        ] {
            assert_refused(&scene, &mallory, &body, "not_enrolled").await;
        }
        // Under Alice's UDID with the serial number of its own ticket, with Alice's, and with none.
        let own = MacSpec { serial: mallory.mac.serial(), ..as_alice.clone() };
        let hello = authenticate(&own, topic, RIGHTS);
        assert_refused(&scene, &mallory, &hello, "serial_mismatch").await;
        let hello = authenticate(&as_alice, topic, RIGHTS);
        assert_refused(&scene, &mallory, &hello, "serial_mismatch").await;
        let mut anonymous = hello;
        anonymous.remove("SerialNumber");
        assert_refused(&scene, &mallory, &anonymous, "serial_mismatch").await;
        // Its owner reads why nothing comes of it, and what to do.
        let step = scene.step(&mallory.progress_id, "authenticated").await;
        assert_eq!((&step["standing"], &step["reason"]), (&json!("refused"), &json!("serial_mismatch")));
        assert!(step["remedy"].as_str().is_some_and(|remedy| remedy.contains("profile of its own")));
        // With a ticket that is bound to no serial number it cannot be told by that, but by Alice's.
        let open = Newcomer::with(scene.honest_mac(), scene.deliver("{}").await).await;
        let own = MacSpec { serial: open.mac.serial(), ..as_alice.clone() };
        assert_refused(&scene, &open, &authenticate(&own, topic, RIGHTS), "serial_mismatch").await;

        // An identity that speaks for another Mac.
        mallory.joins(&scene, &[2; 32]).await;
        for body in [
            token_update(&as_alice, topic, &[6; 32], "evil"),
            set_bootstrap_token(&as_alice, b"evil"),
            check_out(&as_alice, topic),
            authenticate(&own_serial(&mallory, &as_alice), topic, RIGHTS),
        ] {
            assert_refused(&scene, &mallory, &body, "identity_mismatch").await;
        }
        // One certificate for a second Mac that nobody knows.
        let second = MacSpec { serial: mallory.mac.serial(), ..MacSpec::random().expect("a Mac") };
        let hello = authenticate(&second, topic, RIGHTS);
        assert_refused(&scene, &mallory, &hello, "identity_mismatch").await;

        assert_eq!(scene.api.device(&as_alice.serial).await, before);
        let escrow = alice.check_in(&bare("GetBootstrapToken", &as_alice), Signing::Own).await;
        assert_eq!(told(escrow), accepted());
        let update = token_update(&as_alice, topic, &[1; 32], "magic");
        assert_eq!(told(alice.check_in(&update, Signing::Own).await), accepted());
    }
}

/// The UDID of `as_whom` with the serial number of the ticket of `who`.
fn own_serial(who: &Newcomer, as_whom: &MacSpec) -> MacSpec {
    MacSpec {
        serial: who.mac.serial(),
        ..as_whom.clone()
    }
}

journey! {
    async fn a_mac_that_enrols_again_begins_anew_and_keeps_its_history(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(2);
        // A ticket of the same account speaks for the Mac; who else may take its place, and when, is
        // told in `take_over`.
        let mac = scene.honest_mac();
        let enroll = async || {
            let bounds = Bounds { account: Some("alice".to_owned()), ..Bounds::default() };
            mac.install_profile(&scene.deliver_within(bounds).await).await.expect("enrols");
        };
        enroll().await;
        let (former, serial) = (mac.identity().expect("an identity"), mac.serial());
        let escrow = set_bootstrap_token(&mac.spec(), b"former");
        assert_eq!(told(mac.check_in(&escrow, Signing::Own).await), accepted());
        let life = mac.live();
        let posture = scene.api.verdict(&serial, "affirming").await;
        let answered = ended_verification(&scene, &serial).await;
        drop(life);

        // A question that the former enrollment has not answered.
        let open = scene.api.verify(&serial, &["security_info"]).await;
        enroll().await;
        let device_id = scene.api.device_id(&serial).await;
        assert_eq!(posture["device_id"], device_id.as_str());
        let again = scene.api.posture(&serial).await;
        assert_eq!(again["verdict"], "unknown");
        assert_eq!(again["claims"], json!({}));
        assert!(again["revision"].as_u64() > posture["revision"].as_u64());
        for (former, state) in [(&open, "superseded"), (&answered, "answered")] {
            let verification_id = former["verification_id"].as_str().expect("an id");
            let path = format!("/internal/v1/verifications/{verification_id}");
            let now = scene.api.json(&path).await;
            assert_eq!(now["state"], state, "{now:#}");
        }

        let none = told(mac.check_in(&bare("GetBootstrapToken", &mac.spec()), Signing::Own).await);
        assert_eq!(none, accepted());
        // The former identity is not heard any more.
        let topic = scene.world.topic();
        let update = token_update(&mac.spec(), topic, &[6; 32], "evil");
        let answer = told(mac.check_in(&update, Signing::By(&former)).await);
        assert_eq!(answer, refused("not_enrolled"));
        let answer = told(mac.connect_with(&idle(&mac.spec()), Signing::By(&former)).await);
        assert_eq!(answer, refused("not_enrolled"));

        let _life = mac.live();
        scene.api.verdict(&serial, "affirming").await;
    }
}

/// A verification that was asked for and came to its end.
async fn ended_verification(scene: &Scene, serial: &str) -> serde_json::Value {
    let started = scene.api.verify(serial, &["security_info"]).await;
    let id = started["verification_id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let path = format!("/internal/v1/verifications/{id}");
    let request = scene
        .api
        .request(reqwest::Method::GET, &path)
        .header("prefer", "wait=20");
    let ended: serde_json::Value = request
        .send()
        .await
        .expect("an answer")
        .json()
        .await
        .expect("JSON");
    assert!(!ended["finished_at"].is_null(), "{ended:#}");
    ended
}

journey! {
    async fn a_mac_that_left_is_not_woken_and_not_trusted(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(1);
        let (mac, life) = scene.living_mac(MacSpec::random().expect("a Mac")).await;
        let (serial, token) = (mac.serial(), mac.push_address().expect("an address").0);
        scene.api.verdict(&serial, "affirming").await;
        let pushes = scene.world.apns().seen_for(&token).len();
        let answer = mac.remove_profile().await.expect("removed").expect("an answer");
        assert_eq!(answer.status, 200);

        let posture = scene.api.posture(&serial).await;
        assert_eq!((&posture["verdict"], &posture["enrolled"]), (&json!("unknown"), &json!(false)));
        assert_eq!(posture["reasons"][0], "not_enrolled");
        let body = json!({ "device_id": scene.api.device_id(&serial).await });
        let verify = scene.api.request(reqwest::Method::POST, "/internal/v1/verifications");
        let answer = verify.json(&body).send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), 409);
        assert_eq!(scene.world.apns().seen_for(&token).len(), pushes);
        drop(life);
    }
}
