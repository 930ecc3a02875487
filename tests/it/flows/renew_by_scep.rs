//! A Mac renews its identity with the one it has, and others try to.

use std::time::Duration;

use attestd_sim::mac::messages::{authenticate, idle, token_update};
use attestd_sim::scep::{ScepClient, ScepError, ScepSettings};
use attestd_sim::{Identity, Mac, MacSpec, Signing};
use openssl::pkey::{PKey, Private};

use crate::harness::keys::rsa;
use crate::harness::public_side::{accepted, refused, told};
use crate::harness::scene::Scene;

const BAD_REQUEST: &str = "2";
const DAY: Duration = Duration::from_secs(86_400);

/// Asks for a certificate for `key` with the identity `renewed`, without any ticket.
async fn renew(
    scene: &Scene,
    renewed: &Identity,
    key: PKey<Private>,
) -> Result<Identity, ScepError> {
    let http = reqwest::Client::builder().no_proxy().build();
    let settings = ScepSettings {
        url: scene.url("/scep"),
        ..ScepSettings::default()
    };
    let client = ScepClient {
        http: &http.expect("a client"),
        settings: &settings,
        clock: scene.world.clock(),
    };
    client.renew(renewed, key).await
}

#[track_caller]
fn assert_refused(outcome: &Result<Identity, ScepError>) {
    assert!(
        matches!(outcome, Err(ScepError::Refused { fail_info }) if fail_info == BAD_REQUEST),
        "{outcome:?}"
    );
}

/// How the server answers an Idle that is signed by this identity.
async fn heard(mac: &Mac, identity: &Identity) -> (u16, String) {
    told(
        mac.connect_with(&idle(&mac.spec()), Signing::By(identity))
            .await,
    )
}

fn der(identity: &Identity) -> Vec<u8> {
    identity.certificate.to_der().expect("DER")
}

journey! {
    async fn a_renewed_identity_speaks_for_its_mac_from_its_first_word(backend: Backend) {
        let scene = Scene::new(backend).await;
        let (mac, life) = scene.living_mac(MacSpec::random().expect("a Mac")).await;
        let serial = mac.serial();
        let before = scene.api.verdict(&serial, "affirming").await;
        drop(life);
        let old = mac.identity().expect("an identity");
        let shown = scene.api.device(&serial).await.expect("a device")["identity"].clone();

        let next = renew(&scene, &old, rsa(10)).await.expect("renewed");
        let subject = |identity: &Identity| {
            let name = identity.certificate.subject_name().to_der();
            name.expect("DER")
        };
        assert_eq!(subject(&next), subject(&old), "the same Mac");
        // The answer was lost: the same request gets the same certificate.
        let again = renew(&scene, &old, rsa(10)).await.expect("renewed");
        assert_eq!(der(&again), der(&next));

        // Until it speaks, the old one does, and nothing is different.
        assert_eq!(heard(&mac, &old).await, accepted());
        let device = scene.api.device(&serial).await.expect("a device");
        assert_eq!(device["identity"], shown);
        // What it signs in the name of another Mac is not its first word.
        let other = MacSpec::random().expect("a Mac");
        let stray = told(mac.connect_with(&idle(&other), Signing::By(&next)).await);
        assert_eq!(stray, refused("not_enrolled"));
        assert_eq!(heard(&mac, &old).await, accepted());

        assert_eq!(heard(&mac, &next).await, accepted());
        assert_eq!(heard(&mac, &old).await, refused("not_enrolled"));
        assert_eq!(heard(&mac, &next).await, accepted());
        let device = scene.api.device(&serial).await.expect("a device");
        assert_ne!(device["identity"]["sha256"], shown["sha256"]);
        let after = scene.api.posture(&serial).await;
        assert_eq!((&after["verdict"], &after["revision"]), (&before["verdict"], &before["revision"]));
        assert_eq!(after["device_id"], before["device_id"]);
        // The one that was renewed renews nothing more; the one that speaks does.
        assert_refused(&renew(&scene, &old, rsa(11)).await);
        assert_eq!(scene.refusals("scep", "identity_mismatch").await, 1);
        renew(&scene, &next, rsa(11)).await.expect("renewed");
    }
}

journey! {
    async fn of_two_renewals_the_first_that_speaks_stays(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(1);
        let mac = scene.honest_mac();
        mac.enroll(&scene.base_url).await.expect("enrols");
        let old = mac.identity().expect("an identity");
        let one = renew(&scene, &old, rsa(10)).await.expect("renewed");
        let other = renew(&scene, &old, rsa(11)).await.expect("renewed");
        // A check-in is a first word as good as any.
        let (token, magic) = mac.push_address().expect("an address");
        let update = token_update(&mac.spec(), scene.world.topic(), &token, &magic);
        assert_eq!(told(mac.check_in(&update, Signing::By(&other)).await), accepted());
        for late in [&one, &old] {
            assert_eq!(heard(&mac, late).await, refused("not_enrolled"));
        }
        let hello = authenticate(&mac.spec(), scene.world.topic(), 1041);
        assert_eq!(told(mac.check_in(&hello, Signing::By(&one)).await), refused("identity_mismatch"));
        // The Mac installs its profile again, with the renewed identity: the same Mac.
        assert_eq!(told(mac.check_in(&hello, Signing::By(&other)).await), accepted());
        let found = scene.api.json(&format!("/internal/v1/devices?serial_number={}", mac.serial())).await;
        assert_eq!(found["devices"].as_array().map(Vec::len), Some(1));
        assert_eq!(found["devices"][0]["enrollment_state"], "pending");
    }
}

journey! {
    async fn nobody_renews_but_who_speaks_for_a_mac_now(backend: Backend) {
        let scene = Scene::configured(backend, "[enrollment]\nidentity_lifetime = \"30d\"\n").await;
        let mac = scene.honest_mac();
        mac.enroll(&scene.base_url).await.expect("enrols");
        let own = mac.identity().expect("an identity");
        let now = scene.now().millis();
        let self_made = Identity::self_signed_with(rsa(5), &mac.serial(), now).expect("made");
        let foreign = Identity::from_foreign_ca(&mac.serial(), attestd_sim::keys::KeyKind::Rsa2048, now);
        for stranger in [&self_made, &foreign.expect("made")] {
            let before = scene.refusals("scep", "identity_unknown").await;
            assert_refused(&renew(&scene, stranger, rsa(10)).await);
            assert_eq!(scene.refusals("scep", "identity_unknown").await, before + 1);
        }
        // Issued, and never bound to a Mac.
        let idle_mac = scene.honest_mac();
        let profile = scene.deliver("{}").await.profile;
        let profile = idle_mac.read_profile(&profile).expect("a profile");
        let unbound = idle_mac.identity_for(&profile).await.expect("an identity");
        assert_refused(&renew(&scene, &unbound, rsa(10)).await);
        assert_eq!(scene.refusals("scep", "identity_mismatch").await, 1);
        // A weak key is refused and costs nothing.
        let small = PKey::from_rsa(openssl::rsa::Rsa::generate(1024).expect("a key")).expect("a key");
        let weak = renew(&scene, &own, small).await;
        assert!(matches!(&weak, Err(ScepError::Refused { fail_info }) if fail_info == "0"), "{weak:?}");

        scene.pass(29 * DAY);
        let next = renew(&scene, &own, rsa(10)).await.expect("in time");
        scene.pass(2 * DAY);
        assert_refused(&renew(&scene, &own, rsa(11)).await);
        assert_eq!(scene.refusals("scep", "identity_expired").await, 1);
        assert_eq!(heard(&mac, &own).await, refused("identity_expired"));
        // Renewed in time, it is heard although the old one has ended meanwhile.
        assert_eq!(heard(&mac, &next).await, accepted());

        mac.remove_profile().await.expect("removed");
        let gone = told(mac.signed_put(
            &scene.url("/mdm/checkin"), attestd_sim::mac::CHECK_IN,
            &attestd_sim::plist_xml::write(
                &plist::Value::Dictionary(attestd_sim::mac::messages::check_out(&mac.spec(), scene.world.topic())),
                attestd_sim::plist_xml::PlistStyle::CoreFoundation,
            ).expect("written"),
            Signing::By(&next),
        ).await);
        assert_eq!(gone, accepted());
        assert_refused(&renew(&scene, &next, rsa(11)).await);
        assert_eq!(scene.refusals("scep", "not_enrolled").await, 1);
    }
}

journey! {
    async fn capabilities_offer_renewal(backend: Backend) {
        let scene = Scene::new(backend).await;
        let answer = scene.answer(scene.anybody(reqwest::Method::GET, "/scep?operation=GetCACaps")).await;
        let words = String::from_utf8(answer.body).expect("text");
        assert!(words.split('\n').any(|word| word == "Renewal"), "{words}");
    }
}
