//! Apple's device-management schema, `mdm/checkin`: what a server does with each message.

use attestd_sim::mac::messages::{
    authenticate, check_out, set_bootstrap_token, token_update, user_token_update,
};
use attestd_sim::plist_xml::dictionary;
use attestd_sim::{MacSpec, Signing};
use plist::{Dictionary, Value};
use reqwest::Method;
use serde_json::json;

use super::{pushes, silent_mac};
use crate::flows::check_in::{Newcomer, bare};
use crate::harness::inside::eventually;
use crate::harness::public_side::{accepted, refused, told};
use crate::harness::scene::Scene;
use crate::harness::talk::idle;

const RIGHTS: i64 = 1041;
const A_USER: &str = "5F0E1D2C-3B4A-4958-8776-655443322110";
/// How a Mac says that nobody in particular is meant (`tokenupdate.yaml`, UserID).
const NO_USER: &str = "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF";

/// A message of the user channel.
fn of_a_user(kind: &str, spec: &MacSpec, user: &str) -> Dictionary {
    let mut body = bare(kind, spec);
    body.extend(dictionary([
        ("UserID", user.into()),
        ("UserShortName", "sim".into()),
    ]));
    body
}

/// What becomes of a request to verify the Mac with this serial number.
async fn verification_status(scene: &Scene, serial: &str) -> u16 {
    let body = json!({ "device_id": scene.api.device_id(serial).await });
    let request = scene
        .api
        .request(Method::POST, "/internal/v1/verifications")
        .json(&body);
    request.send().await.expect("an answer").status().as_u16()
}

journey! {
    /// authenticate.yaml: "On success, the server needs to respond with a `200 OK` status. Don't
    /// assume that the device has installed the MDM payload at this time".
    async fn authenticate_begins_an_enrollment_and_completes_none(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(1);
        let mac = Newcomer::new(&scene).await;
        let (spec, topic) = (mac.spec(), scene.world.topic());
        let hello = authenticate(&spec, topic, RIGHTS);
        // A Mac that did not hear the answer says it again.
        for _ in 0..2 {
            assert_eq!(mac.says(&scene, &hello).await, accepted());
            let device = scene.api.device(&spec.serial).await.expect("a device");
            assert_eq!((&device["enrollment_state"], &device["enrolled"]), (&json!("pending"), &json!(false)));
            assert_eq!(verification_status(&scene, &spec.serial).await, 409);
        }
        assert!(scene.world.apns().seen().is_empty());
    }
}

journey! {
    /// tokenupdate.yaml: "The server needs to send push messages to the device only after receiving
    /// the first `TokenUpdate` message", and: "If different, the server needs to update its record
    /// for the device to the new values in the message." It is no new enrollment.
    async fn token_update_completes_the_enrollment_and_moves_the_address(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(1);
        let mac = silent_mac(&scene).await;
        assert_eq!(pushes(&scene, &mac), 1);
        let asked = idle(&mac).await.expect("a command");
        let before = scene.kept(&mac).await;
        let topic = scene.world.topic();
        let _inbox = scene.world.apns().register(&[5; 32], topic);
        let update = token_update(&mac.spec(), topic, &[5; 32], "another magic");
        assert_eq!(told(mac.check_in(&update, Signing::Own).await), accepted());
        eventually("the new address is pushed to", async || {
            scene.world.apns().seen_for(&[5; 32]).len() == 1
        }).await;
        let magic = String::from_utf8_lossy(&scene.world.apns().seen_for(&[5; 32])[0].body).into_owned();
        assert!(magic.contains("another magic"), "{magic}");
        let after = scene.kept(&mac).await;
        assert_eq!((after.posture, after.events), (before.posture, before.events));
        // The queue is what it was: the answer to the question still counts.
        assert!(crate::harness::talk::report(&mac, &asked).await.is_some());
    }
}

journey! {
    /// tokenupdate.yaml: UserShortName "indicates that the token is for the user channel".
    async fn the_user_channel_has_an_address_of_its_own(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(2);
        let mac = Newcomer::new(&scene).await;
        let (spec, topic) = (mac.spec(), scene.world.topic());
        let hello = authenticate(&spec, topic, RIGHTS);
        assert_eq!(mac.says(&scene, &hello).await, accepted());
        // Before the device channel has one, it enrols nobody.
        for user in [A_USER, NO_USER] {
            let update = user_token_update(&spec, topic, &[9; 32], "of a user", user);
            assert_eq!(mac.says(&scene, &update).await, accepted());
        }
        let device = scene.api.device(&spec.serial).await.expect("a device");
        assert_eq!((&device["enrollment_state"], &device["push"]["state"]), (&json!("pending"), &json!("none")));

        let _inbox = scene.world.apns().register(&[4; 32], topic);
        let update = token_update(&spec, topic, &[4; 32], "of the Mac");
        assert_eq!(mac.says(&scene, &update).await, accepted());
        let device = scene.api.device(&spec.serial).await;
        for user in [A_USER, NO_USER] {
            let update = user_token_update(&spec, topic, &[9; 32], "of a user", user);
            assert_eq!(mac.says(&scene, &update).await, accepted());
        }
        assert_eq!(scene.api.device(&spec.serial).await, device);
        eventually("the Mac is pushed to", async || {
            !scene.world.apns().seen_for(&[4; 32]).is_empty()
        }).await;
        assert!(scene.world.apns().seen_for(&[9; 32]).is_empty());

        // Nobody but the device speaks of the device.
        for kind in ["Authenticate", "CheckOut", "SetBootstrapToken", "GetBootstrapToken"] {
            let mut body = of_a_user(kind, &spec, A_USER);
            body.insert("Topic".to_owned(), topic.into());
            body.insert("BootstrapToken".to_owned(), Value::Data(b"of a user".to_vec()));
            assert_eq!(mac.says(&scene, &body).await, refused("message_unsupported"), "{kind}");
        }
        assert_eq!(mac.bootstrap_token(&scene).await, None);
        let device = scene.api.device(&spec.serial).await.expect("a device");
        assert_eq!(device["enrolled"], true);
    }
}

journey! {
    /// checkout.yaml: "On success, the server needs to respond with a `200 OK` status." Nobody is
    /// pushed to any more, and only Authenticate leads back.
    async fn check_out_ends_it_and_no_push_follows(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(1);
        let mac = silent_mac(&scene).await;
        let (spec, topic) = (mac.spec(), scene.world.topic());
        assert!(idle(&mac).await.is_some());
        let goodbye = check_out(&spec, topic);
        for _ in 0..2 {
            assert_eq!(told(mac.check_in(&goodbye, Signing::Own).await), accepted());
        }
        assert_eq!(verification_status(&scene, &spec.serial).await, 409);
        let device_id = scene.device_id(&mac).await;
        attestd::flows::wake::wake(scene.ctx(), &device_id).await.expect("decides");
        scene.sweep().await;
        assert_eq!(pushes(&scene, &mac), 1);
        assert_eq!(idle(&mac).await, None);
        let (token, magic) = mac.push_address().expect("an address");
        let update = token_update(&spec, topic, &token, &magic);
        assert_eq!(told(mac.check_in(&update, Signing::Own).await), refused("not_enrolled"));
        let posture = scene.api.posture(&spec.serial).await;
        assert_eq!((&posture["verdict"], &posture["reasons"][0]), (&json!("unknown"), &json!("not_enrolled")));
    }
}

journey! {
    /// setbootstraptoken.yaml: "If this field is missing or zero length, the server needs to remove
    /// the bootstrap token for this device." getbootstraptoken.yaml: "If a bootstrap token isn't
    /// available, the server returns a success response". The profile does not announce the
    /// capability; a Mac whose former server did sends it all the same.
    async fn a_bootstrap_token_is_kept_given_back_and_removed(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(1);
        let mac = Newcomer::new(&scene).await;
        let (spec, topic) = (mac.spec(), scene.world.topic());
        let hello = authenticate(&spec, topic, RIGHTS);
        assert_eq!(mac.says(&scene, &hello).await, accepted());
        assert_eq!(mac.bootstrap_token(&scene).await, None);
        // Before TokenUpdate, as in Setup Assistant.
        let mut empty = bare("SetBootstrapToken", &spec);
        empty.insert("BootstrapToken".to_owned(), Value::Data(Vec::new()));
        for erase in [bare("SetBootstrapToken", &spec), empty] {
            let escrow = set_bootstrap_token(&spec, b"escrow");
            assert_eq!(mac.says(&scene, &escrow).await, accepted());
            assert_eq!(mac.bootstrap_token(&scene).await.as_deref(), Some(&b"escrow"[..]));
            assert_eq!(mac.says(&scene, &erase).await, accepted());
            assert_eq!(mac.bootstrap_token(&scene).await, None);
        }
        let escrow = set_bootstrap_token(&spec, b"escrow");
        assert_eq!(mac.says(&scene, &escrow).await, accepted());
        mac.joins(&scene, &[3; 32]).await;
        assert_eq!(mac.bootstrap_token(&scene).await, None, "Authenticate begins anew");
        let profile = scene.deliver("{}").await.profile;
        let profile = mac.mac.read_profile(&profile).expect("a profile");
        assert!(!profile.mdm.declares("com.apple.mdm.bootstraptoken"));
    }
}

journey! {
    /// userauthenticate.yaml: "If the server isn't going to manage the user, it returns a `410`
    /// status code to the initial `UserAuthenticate` request."
    async fn user_authenticate_is_declined(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(1);
        let mac = silent_mac(&scene).await;
        let mut second = of_a_user("UserAuthenticate", &mac.spec(), A_USER);
        second.insert("DigestResponse".to_owned(), "0123".into());
        for body in [of_a_user("UserAuthenticate", &mac.spec(), A_USER), second] {
            let answer = told(mac.check_in(&body, Signing::Own).await);
            assert_eq!(answer, (410, String::new()));
        }
    }
}

journey! {
    /// gettoken.yaml: "If the server doesn't recognize the service type, it needs to return a `400`
    /// HTTP response status." There is no service type here.
    async fn no_token_is_given(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(1);
        let mac = silent_mac(&scene).await;
        for service in ["com.apple.maid", "com.apple.watch.pairing", "unheard.of"] {
            for mut body in [bare("GetToken", &mac.spec()), of_a_user("GetToken", &mac.spec(), A_USER)] {
                body.insert("TokenServiceType".to_owned(), service.into());
                let answer = told(mac.check_in(&body, Signing::Own).await);
                assert_eq!(answer, refused("message_unsupported"), "{service}");
            }
        }
    }
}

journey! {
    /// declarativemanagement.yaml: sent once the server has issued the command of that name, which
    /// this one cannot. Nothing is there to declare, on either channel.
    async fn nothing_is_declared(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(1);
        let mac = silent_mac(&scene).await;
        for endpoint in ["tokens", "declaration-items", "status", "declaration/activation/x"] {
            for mut body in [
                bare("DeclarativeManagement", &mac.spec()),
                of_a_user("DeclarativeManagement", &mac.spec(), A_USER),
            ] {
                body.insert("Endpoint".to_owned(), endpoint.into());
                body.insert("Data".to_owned(), Value::Data(b"{}".to_vec()));
                let answer = told(mac.check_in(&body, Signing::Own).await);
                assert_eq!(answer, (404, String::new()), "{endpoint}");
            }
        }
    }
}

journey! {
    /// What nobody knows is refused by 400. Never by 401, which once made Macs remove their
    /// enrollment, nor by 403 (`errors/unrecognized-device.yaml`), which does.
    async fn a_message_of_an_unknown_type_is_refused_and_removes_no_enrollment(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(1);
        let mac = silent_mac(&scene).await;
        for kind in ["ReturnToService", "authenticate", "TokenUpdate ", "", "\u{1F34E}"] {
            let answer = told(mac.check_in(&bare(kind, &mac.spec()), Signing::Own).await);
            assert_eq!(answer, refused("message_unsupported"), "{kind}");
        }
        let mut typeless = bare("x", &mac.spec());
        typeless.remove("MessageType");
        let answer = told(mac.check_in(&typeless, Signing::Own).await);
        assert_eq!(answer, refused("request_malformed"));
        assert!(mac.is_enrolled());
        assert!(idle(&mac).await.is_some());
    }
}

journey! {
    /// com.apple.mdm.yaml: CheckInURL defaults to ServerURL, so that either takes either.
    async fn both_urls_take_both_kinds_of_message(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(1);
        let mac = silent_mac(&scene).await;
        let write = |body: Dictionary| {
            let mut bytes = Vec::new();
            Value::Dictionary(body).to_writer_xml(&mut bytes).expect("written");
            bytes
        };
        let (token, magic) = mac.push_address().expect("an address");
        let update = write(token_update(&mac.spec(), scene.world.topic(), &token, &magic));
        let idle = write(attestd_sim::mac::messages::idle(&mac.spec()));
        for path in ["/mdm/checkin", "/mdm/connect"] {
            let url = scene.url(path);
            let kind = "application/x-apple-aspen-mdm-checkin";
            let answer = mac.signed_put(&url, kind, &update, Signing::Own).await;
            assert_eq!(told(answer), accepted(), "{path}");
            let kind = "application/x-apple-aspen-mdm";
            let answer = mac.signed_put(&url, kind, &idle, Signing::Own).await.expect("an answer");
            assert_eq!(answer.status, 200, "{path}");
            assert!(!answer.body.is_empty(), "{path}");
        }
    }
}
