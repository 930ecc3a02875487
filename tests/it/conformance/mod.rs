//! What the documents say, sentence by sentence. `docs/conformance.md` lists them.
//!
//! The quotations are short and stand for their section.

mod apple_check_in;
mod apple_connect;
mod foreign_clients;
mod nanomdm_e2e;
mod openid_ssf;
mod rfc8555;
mod rfc8894;

use attestd_sim::Mac;

use crate::harness::inside::eventually;
use crate::harness::scene::Scene;

/// A Mac that enrolled, was woken once, and says nothing by itself: it owes two answers.
async fn silent_mac(scene: &Scene) -> Mac {
    let mac = scene.honest_mac();
    mac.enroll(&scene.base_url).await.expect("enrols");
    // What is kept stands still from here on.
    eventually("the push is written down", async || {
        let kept = scene.kept(&mac).await;
        kept.verifications[0].last_pushed_at().is_some()
    })
    .await;
    mac
}

/// How often a Mac was pushed to at its present address.
fn pushes(scene: &Scene, mac: &Mac) -> usize {
    let (token, _) = mac.push_address().expect("an address");
    scene.world.apns().seen_for(&token).len()
}
