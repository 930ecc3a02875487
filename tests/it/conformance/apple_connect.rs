//! Apple, "Sending MDM commands to a device" and "Handling NotNow status responses"; the schema
//! `mdm/commands`.

use attestd_sim::mac::messages::{error_chain, idle as idle_body, status_reply};
use attestd_sim::mac::security_info;
use attestd_sim::plist_xml::dictionary;
use attestd_sim::{Mac, Signing};
use plist::{Dictionary, Value};

use super::silent_mac;
use crate::harness::public_side::{refused, told};
use crate::harness::scene::Scene;
use crate::harness::talk::{Asked, acknowledgment, answer, idle, report, say};

const A_USER: &str = "5F0E1D2C-3B4A-4958-8776-655443322110";

/// The same message on the user channel.
fn of_a_user(mut body: Dictionary, user: &str) -> Dictionary {
    body.extend(dictionary([
        ("UserID", user.into()),
        ("UserShortName", "sim".into()),
    ]));
    body
}

async fn nothing_comes(mac: &Mac, body: &Dictionary) {
    let reply = say(mac, body).await;
    assert_eq!((reply.status, reply.body.len()), (200, 0), "{body:?}");
}

journey! {
    /// A command is answered with 200 and a property list, the end of a session with 200 and no
    /// octet at all: an empty property list would be a command.
    async fn a_session_ends_with_an_empty_body(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(1);
        let mac = silent_mac(&scene).await;
        let reply = say(&mac, &idle_body(&mac.spec())).await;
        assert_eq!(reply.content_type(), "application/xml; charset=UTF-8");
        let asked = Asked::read(&reply).expect("a command");
        let next = report(&mac, &asked).await.expect("the next command");
        assert_ne!(next.uuid, asked.uuid);
        assert_eq!(answer(&mac, &next, "Error").await, None);
        nothing_comes(&mac, &idle_body(&mac.spec())).await;
    }
}

journey! {
    /// The user channel "connects separately"; SIP, Secure Boot and FileVault are keys of the device
    /// channel only (`information.security.yaml`, `userchannel: false`).
    async fn no_user_is_given_a_command_or_answers_one(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(1);
        let mac = silent_mac(&scene).await;
        let spec = mac.spec();
        for user in [A_USER, "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF", ""] {
            nothing_comes(&mac, &of_a_user(idle_body(&spec), user)).await;
        }
        let mut account_driven = idle_body(&spec);
        account_driven.insert("EnrollmentUserID".to_owned(), A_USER.into());
        nothing_comes(&mac, &account_driven).await;

        let asked = idle(&mac).await.expect("a command");
        let before = scene.kept(&mac).await;
        let lie = security_info(&spec.clone().with_sip_off());
        let lie = acknowledgment(&mac, &asked.uuid, "SecurityInfo", lie);
        nothing_comes(&mac, &of_a_user(lie, A_USER)).await;
        for status in ["Error", "NotNow", "CommandFormatError"] {
            let said = status_reply(&spec, &asked.uuid, status);
            nothing_comes(&mac, &of_a_user(said, A_USER)).await;
        }
        assert_eq!(scene.kept(&mac).await, before);
        assert!(report(&mac, &asked).await.is_some());
        assert_eq!(scene.api.posture(&spec.serial).await["claims"]["sip"]["value"], true);
    }
}

journey! {
    /// "Handling NotNow": the device polls by itself only if NotNow was the last it said, so the
    /// session ends there, and the command comes again in the next one.
    async fn not_now_ends_the_session_and_the_command_comes_again(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(1);
        let mac = silent_mac(&scene).await;
        for _ in 0..3 {
            let asked = idle(&mac).await.expect("a command");
            assert_eq!(asked.kind, "SecurityInfo");
            assert_eq!(answer(&mac, &asked, "NotNow").await, None);
        }
        let asked = idle(&mac).await.expect("a command");
        assert!(report(&mac, &asked).await.is_some());
    }
}

journey! {
    /// "Error" carries an ErrorChain whose codes are no contract, "CommandFormatError" says that the
    /// command was malformed: neither is asked again unchanged, and neither is held against the Mac.
    async fn an_error_ends_its_command_only(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(1);
        let mac = silent_mac(&scene).await;
        let asked = idle(&mac).await.expect("a command");
        let mut body = status_reply(&mac.spec(), &asked.uuid, "Error");
        body.insert("ErrorChain".to_owned(), error_chain(12021, "unknown command"));
        let next = Asked::read(&say(&mac, &body).await).expect("the other command");
        assert_eq!(next.kind, "DeviceInformation");
        assert_eq!(answer(&mac, &next, "CommandFormatError").await, None);
        assert_eq!(idle(&mac).await, None);
        assert_eq!(scene.refused("command_error").await, 2);
        assert_eq!(scene.api.posture(&mac.serial()).await["verdict"], "unknown");
    }
}

journey! {
    /// A result is sent again until it is taken by a 2xx: the same one twice is normal, and counts
    /// once.
    async fn the_same_result_again_is_taken_and_changes_nothing(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(1);
        let mac = silent_mac(&scene).await;
        mac.connect().await.expect("a session");
        let before = scene.kept(&mac).await;
        for exchange in mac.exchanges() {
            for _ in 0..2 {
                let reply = mac.replay(&exchange).await.expect("an answer");
                assert_eq!((reply.status, reply.body.len()), (200, 0));
            }
        }
        assert_eq!(scene.kept(&mac).await, before);
        assert_eq!(scene.refused("answer_unsolicited").await, 4);
    }
}

journey! {
    /// A result for a command that is not this Mac's, or nobody's, is taken (or it would come for
    /// ever), counted, and not looked into. Also that of a former server, whatever it named its
    /// commands.
    async fn a_result_nobody_asked_for_is_taken_and_not_looked_into(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(2);
        let (mac, other) = (silent_mac(&scene).await, silent_mac(&scene).await);
        mac.connect().await.expect("a session");
        let foreign = idle(&other).await.expect("a command");
        let before = (scene.kept(&mac).await, scene.kept(&other).await);
        let lie = mac.spec().with_sip_off();
        let names = ["00000001-0000-4000-8000-000000000001", &foreign.uuid, "CMD1", "0", "\u{1F34E}"];
        for name in names {
            let body = acknowledgment(&mac, name, "SecurityInfo", security_info(&lie));
            nothing_comes(&mac, &body).await;
            for status in ["Error", "NotNow", "CommandFormatError"] {
                nothing_comes(&mac, &status_reply(&mac.spec(), name, status)).await;
            }
        }
        assert_eq!(scene.refused("answer_unsolicited").await, 4 * names.len() as u64);
        assert_eq!((scene.kept(&mac).await, scene.kept(&other).await), before);
        assert!(report(&other, &foreign).await.is_some());
        // Without any name it is no result.
        for name in [None, Some("")] {
            let mut body = status_reply(&mac.spec(), "x", "Acknowledged");
            body.remove("CommandUUID");
            body.extend(name.map(|name| ("CommandUUID".to_owned(), Value::from(name))));
            let answer = told(mac.connect_with(&body, Signing::Own).await);
            assert_eq!(answer, refused("request_malformed"));
        }
    }
}

journey! {
    /// Five words are a Status. Another may mean anything; the Mac says it again once this service
    /// has learned it.
    async fn a_status_nobody_knows_is_refused(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(1);
        let mac = silent_mac(&scene).await;
        let asked = idle(&mac).await.expect("a command");
        let before = scene.kept(&mac).await;
        for status in ["Done", "idle", "acknowledged", ""] {
            let mut body = acknowledgment(&mac, &asked.uuid, "SecurityInfo", security_info(&mac.spec()));
            body.insert("Status".to_owned(), status.into());
            let answer = told(mac.connect_with(&body, Signing::Own).await);
            assert_eq!(answer, refused("message_unsupported"), "{status}");
        }
        assert_eq!(scene.refusals("connect", "message_unsupported").await, 4);
        assert_eq!(scene.kept(&mac).await, before);
        assert!(report(&mac, &asked).await.is_some());
    }
}
