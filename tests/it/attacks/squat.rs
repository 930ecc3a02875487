//! Somebody enrols under the serial number of a Mac that is not here yet.

use attestd_sim::{Lie, MacSpec};
use serde_json::{Value, json};

use super::{enroll_in_software, reasons, routed};
use crate::harness::plane::{OWNER, Plane};

journey! {
    async fn a_squatted_serial_number_is_worth_nothing_and_is_its_macs_when_it_comes(backend: Backend) {
        let plane = Plane::new(backend).await;
        let (scene, api) = (&plane.scene, &plane.scene.api);
        let mac = scene.honest_mac();
        // The squatter is a Mac of its own, which Apple attests under its own number.
        let own = MacSpec::random().expect("a Mac");
        let relayed = Lie::RelaysAnotherMac(Box::new(own.attested_state()));
        let squatter = scene.mac(MacSpec { udid: own.udid, ..mac.spec() }.lying(relayed));
        enroll_in_software(&plane, &squatter, Some("acct-squatter")).await;
        let life = squatter.live();
        let stranger = plane.provider_on(&mac);
        api.bound("squatter", &stranger, Some("acct-squatter")).await;
        let bound = plane.once("squatter", "found out", |it| reasons(it)[0] == "serial_mismatch").await;
        assert_eq!(bound["trust_level"], "self_signed");
        assert_eq!(api.device(&mac.serial()).await.expect("known")["serial_held_since"], Value::Null);
        drop(life);

        // The owner comes, is not kept waiting, and inherits nothing.
        plane.enroll(&mac, Some(OWNER), None).await;
        let life = mac.live();
        let binding = routed(&plane, "owner", &plane.provider_on(&mac)).await;
        assert_eq!((&binding["routable"], &binding["se_key_bound"]), (&json!(true), &json!("bound")));
        assert_eq!(api.device(&mac.serial()).await.expect("known")["udid"], mac.udid());
        drop(life);
        // The squatter goes on speaking of itself only.
        let told_to = api.challenge("squatter", &stranger).await;
        assert_eq!((&told_to["outcome"], &told_to["routable"]), (&json!("good"), &json!(false)));
        let squatted = api.binding("squatter").await;
        assert_eq!((&squatted["trust_level"], reasons(&squatted)[0]), (&json!("self_signed"), "serial_mismatch"));
        assert_ne!(squatted["device_id"], binding["device_id"]);
        assert_eq!(api.binding("owner").await["routable"], true);
    }
}
