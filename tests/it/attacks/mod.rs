//! Attacks on trust, each told to its end: what the attacker does, and how far it gets.
//!
//! Eight are to be withstood; docs/threat-model.md lists them in this order with all their tests.
//!
//! | attack | here, or where a flow is all it takes |
//! | --- | --- |
//! | a stranger binds to a copied serial number | `flows::bind_provider` |
//! | a clean Mac's chain is relayed through a program that is no Mac | [`relay`] |
//! | SIP off, the client patched, the old chain shown again | [`replay`] |
//! | a new enrollment, to wash a negative | [`wash`] |
//! | a free serial number is squatted | [`squat`] |
//! | two Macs of one owner | `flows::bind_provider` |
//! | a saved nonce of a former enrollment | [`saved_nonce`] |
//! | a challenge is answered by another key | `flows::challenge` |

mod relay;
mod replay;
mod saved_nonce;
mod squat;
mod wash;

use attestd::enrollment::Protocol;
use attestd::enrollment::ticket::Bounds;
use attestd::ids::SerialNumber;
use attestd_sim::keys::{KeyKind, generate};
use attestd_sim::{Mac, Provider};
use serde_json::Value;

use crate::harness::plane::{OWNER, Plane};
use crate::harness::talk::Asked;

/// Enrols a Mac by a key in software, where the ticket is of this account.
async fn enroll_in_software(plane: &Plane, mac: &Mac, account: Option<&str>) {
    let bounds = Bounds {
        serial: Some(SerialNumber::parse(&mac.serial()).expect("a serial number")),
        account: account.map(str::to_owned),
        se_public_key: None,
        protocol: Protocol::Scep,
    };
    let profile = plane.scene.deliver_within(bounds).await;
    mac.install_profile(&profile).await.expect("enrols");
}

/// Registers a session, waits until its Mac is trusted, and has it answer.
async fn routed(plane: &Plane, session: &str, provider: &Provider) -> Value {
    let api = &plane.scene.api;
    api.bound(session, provider, Some(OWNER)).await;
    plane
        .once(session, "hardware", |it| it["trust_level"] == "hardware")
        .await;
    api.challenge(session, provider).await;
    api.binding(session).await
}

/// The session, registered and answered for as well as it can be.
async fn answered(plane: &Plane, session: &str, provider: &Provider) -> Value {
    let api = &plane.scene.api;
    api.bound(session, provider, Some(OWNER)).await;
    assert_eq!(api.challenge(session, provider).await["outcome"], "good");
    api.binding(session).await
}

/// Why something is not better than it is.
fn reasons(answer: &Value) -> Vec<&str> {
    let reasons = answer["reasons"].as_array().expect("a list");
    reasons.iter().filter_map(Value::as_str).collect()
}

/// The chain Apple makes of a Mac as it is now, for this question.
fn genuine_chain(plane: &Plane, mac: &Mac, asked: &Asked) -> [Vec<u8>; 2] {
    let key = generate(KeyKind::P384).expect("a key");
    let (apple, now) = (plane.scene.world.apple(), plane.scene.now().millis());
    let made = apple.attest(
        &mac.spec().attested_state(),
        &key,
        asked.nonce.as_deref(),
        now,
    );
    let made = made.expect("a chain");
    [made.leaf, made.intermediate]
}
