//! What receivers may say of their streams, and what comes of it.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::poll::PollRequest;
use super::stream::{About, Delivery, Request, Status, Stream, Wishes};
use super::subject::Subject;
use super::{DEVICE_COMPLIANCE_CHANGE, Malformed, POLL, PUSH, Transmitter};
use crate::entropy::SeededEntropy;
use crate::ids::{ReceiverId, StreamId};
use crate::secret::Secret;
use crate::time::Timestamp;

fn transmitter() -> Transmitter {
    Transmitter {
        issuer: "https://mdm.example.org".to_owned(),
        url: "https://inside.example.org".to_owned(),
        tenant: None,
    }
}

fn stream(wishes: Wishes) -> Stream {
    let (now, entropy) = (Timestamp::from_seconds(1), SeededEntropy::new(1));
    Stream {
        stream_id: StreamId::new(now, &entropy),
        receiver_id: ReceiverId::new(now, &entropy),
        audience: "https://receiver.example.org".to_owned(),
        wishes,
        status: Status::Enabled,
        reason: None,
        verified_at: None,
        created_at: now,
    }
}

fn read(value: &Value) -> Result<Request, Malformed> {
    Request::read(value.to_string().as_bytes())
}

fn polled() -> Wishes {
    Wishes {
        delivery: Delivery::Poll,
        events_requested: vec![DEVICE_COMPLIANCE_CHANGE.to_owned()],
        description: None,
    }
}

#[test]
fn who_wishes_for_nothing_polls_and_is_told_nothing() {
    let request = read(&json!({})).expect("read");
    let made = stream(request.whole());
    assert_eq!(made.wishes.delivery, Delivery::Poll);
    let shown = json!(made.configuration(&transmitter()));
    assert_eq!(shown["events_delivered"], json!([]));
    assert!(!made.wants(DEVICE_COMPLIANCE_CHANGE));
}

#[test]
fn the_secret_of_a_receiver_is_not_told_back() {
    let push = json!({ "delivery": {
        "method": PUSH, "endpoint_url": "https://receiver.example.org/", "authorization_header": "canary",
    } });
    let made = stream(read(&push).expect("read").whole());
    let shown = json!(made.configuration(&transmitter())).to_string();
    assert!(
        !shown.contains("canary") && !format!("{made:?}").contains("canary"),
        "{shown}"
    );
}

#[test]
fn a_header_goes_on_to_the_same_endpoint_and_to_no_other() {
    let push = |endpoint: &str, header: Option<&str>| {
        let mut delivery = json!({ "method": PUSH, "endpoint_url": endpoint });
        if let Some(header) = header {
            delivery["authorization_header"] = json!(header);
        }
        read(&json!({ "delivery": delivery }))
            .expect("read")
            .whole()
    };
    let header_of = |wishes: Wishes| match wishes.delivery {
        Delivery::Push { authorization, .. } => authorization.map(|text| text.expose().clone()),
        Delivery::Poll => None,
    };
    let before = push("https://a.example.org/", Some("theirs"));
    for (endpoint, header, expected) in [
        ("https://a.example.org/", None, Some("theirs")),
        ("https://a.example.org/", Some("new"), Some("new")),
        ("https://b.example.org/", None, None),
    ] {
        let after = push(endpoint, header).with_header_of(&before);
        assert_eq!(header_of(after).as_deref(), expected, "{endpoint}");
    }
    assert_eq!(polled().with_header_of(&before), polled());
}

#[test]
fn what_is_the_transmitters_to_say_is_not_said_otherwise() {
    let (made, transmitter) = (stream(polled()), transmitter());
    for (name, value) in [
        ("iss", json!("https://other.example.org")),
        ("aud", json!([made.audience])),
        ("events_supported", json!([])),
        ("events_delivered", json!([])),
        ("min_verification_interval", json!(11)),
        ("inactivity_timeout", json!(1)),
        (
            "delivery",
            json!({ "method": POLL, "endpoint_url": "https://other.example.org/" }),
        ),
    ] {
        let request = read(&json!({ name: value })).expect("read");
        let refused = request.agrees(&made, &transmitter).expect_err(name);
        assert!(refused.to_string().contains("transmitter"), "{refused}");
    }
}

#[test]
fn what_is_no_request_is_refused() {
    let long = "x".repeat(5000);
    for bad in [
        json!([]),
        json!({ "stream_id": 1 }),
        json!({ "description": null }),
        json!({ "description": long }),
        json!({ "events_requested": "all" }),
        json!({ "events_requested": [1] }),
        json!({ "events_requested": vec!["x"; 65] }),
        json!({ "Delivery": {} }),
        json!({ "delivery": null }),
        json!({ "delivery": {} }),
        json!({ "delivery": { "method": "urn:ietf:rfc:1" } }),
        json!({ "delivery": { "method": PUSH } }),
        json!({ "delivery": { "method": PUSH, "endpoint_url": long } }),
        json!({ "delivery": { "method": PUSH, "endpoint_url": "https://a/", "more": 1 } }),
        json!({ "delivery": { "method": PUSH, "endpoint_url": "https://a/", "authorization_header": "a\nb" } }),
        json!({ "delivery": { "method": POLL, "authorization_header": "a" } }),
    ] {
        assert!(read(&bad).is_err(), "{bad}");
    }
    assert!(read(&json!({ "a_later_version": true })).is_ok());
}

prop_compose! {
    fn wishes()(
        push in proptest::option::of("https://[a-z]{1,10}\\.example/[a-z]{0,10}"),
        events_requested in prop::collection::vec("[a-z:/.-]{0,30}", 0..5),
        asks: bool,
        description in proptest::option::of("[ -~]{1,40}"),
    ) -> Wishes {
        let mut events_requested = events_requested;
        if asks {
            events_requested.push(DEVICE_COMPLIANCE_CHANGE.to_owned());
        }
        let delivery = match push {
            None => Delivery::Poll,
            Some(endpoint) => Delivery::Push { endpoint: Secret::new(endpoint), authorization: None },
        };
        Wishes { delivery, events_requested, description }
    }
}

proptest! {
    #[test]
    fn what_is_read_can_be_written_back(before in wishes(), other in wishes()) {
        let (made, transmitter) = (stream(before.clone()), transmitter());
        let written = json!(made.configuration(&transmitter));
        let request = read(&written).expect("read");
        prop_assert_eq!(request.agrees(&made, &transmitter), Ok(()));
        prop_assert_eq!(request.whole(), before.clone());
        // Over what it was before it is the same, but for what an absent description leaves.
        let over = request.over(&other);
        let description = before.description.clone().or(other.description);
        prop_assert_eq!(over, Wishes { description, ..before.clone() });
        prop_assert_eq!(read(&json!({})).expect("read").over(&before), before);
    }

    #[test]
    fn no_bytes_from_a_receiver_make_a_reader_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        text in "[{}\\[\\]\",:a-z_0-9]{0,80}",
        name in prop::sample::select(vec![
            "delivery", "events_requested", "stream_id", "status", "subject", "state", "ack", "setErrs", "maxEvents",
        ]),
        value in prop::sample::select(vec![
            json!(null), json!(-1), json!(1e99), json!(""), json!([[]]), json!({ "format": "complex", "device": { "format": "iss_sub" } }),
            json!({ "method": PUSH, "endpoint_url": "" }), json!({ "a": { "err": "x" } }),
        ]),
    ) {
        let made = json!({ "stream_id": "s", name: value }).to_string();
        for body in [bytes.as_slice(), text.as_bytes(), made.as_bytes()] {
            let _ = Request::read(body);
            let _ = PollRequest::read(body);
            if let Ok(about) = About::read(body) {
                let _ = (about.status(), about.state(), about.subject());
            }
        }
        let _ = Subject::read(&value).map(|subject| subject.mac(&transmitter()));
    }
}
