//! Where the settings ask for two, one person proposes which push certificate Macs are woken with, and another
//! confirms it.

use std::time::Duration;

use attestd::audit::Who;
use attestd::flows::rotate_push_certificate::activate;
use attestd::ids::PushCertificateId;
use serde_json::{Value, json};

use super::administer_push_certificates::{ALL, is_refused, posts, told, words};
use crate::harness::internal_api::InternalApi;
use crate::harness::issuer::Issuer;
use crate::harness::push_officer::{PushOfficer, quiet_mac, takes_into_use, was_pushed_by};
use crate::harness::scene::Scene;

const TWO: &str = "[push_certificates]\nactivation = \"two_persons\"\n\
                   [verification]\npatience = \"10d\"\npushes_per_hour = 60\n";

fn officer_of(scene: &Scene) -> InternalApi {
    scene.api.with_token(scene.token("push_cert_officer"))
}

/// Proposes, and says under which name.
async fn proposed(api: &InternalApi, path: &str, body: Value) -> String {
    let (status, proposal) = posts(api, path, body).await;
    assert_eq!(status, 202, "{proposal}");
    let id = proposal["push_proposal_id"].as_str().expect("an id");
    id.to_owned()
}

fn confirmation(proposal: &str) -> String {
    format!("/proposals/{proposal}/confirm")
}

async fn in_use(api: &InternalApi) -> String {
    let listed = api.json(ALL).await;
    let all = listed["push_certificates"].as_array().expect("a list");
    let active = all.iter().find(|one| one["active"] == true);
    let active = active.expect("one in use");
    active["push_certificate_id"]
        .as_str()
        .expect("an id")
        .to_owned()
}

journey! {
    async fn what_one_person_proposes_another_confirms(backend: Backend) {
        let scene = Scene::configured(backend, TWO).await;
        let officer = PushOfficer(&scene);
        let (ann, bob) = (officer_of(&scene), officer_of(&scene));
        let former = in_use(&ann).await;
        let renewed = officer.renewed();
        let id = officer.has_installed(&renewed, &[]).await;
        // What cannot be done cannot be proposed.
        is_refused(&ann, &format!("/{id}/activate"), json!({}), "not_tried").await;
        is_refused(&ann, "/rollback", json!({}), "no_former").await;

        let untried = json!({ "without_canary": "the old one was revoked" });
        let proposal = proposed(&ann, &format!("/{id}/activate"), untried).await;
        assert_eq!(in_use(&ann).await, former);
        let listed = scene.api.with_token(scene.token("viewer")).json(ALL).await;
        let open = &listed["proposals"][0];
        assert_eq!((&open["push_proposal_id"], &open["change"], &open["push_certificate_id"], &open["untried_because"]),
            (&json!(proposal), &json!("activate"), &json!(id), &json!("the old one was revoked")));
        is_refused(&ann, &confirmation(&proposal), json!({}), "same_person").await;
        for role in ["operator", "viewer", "auditor", "coordinator"] {
            let other = scene.api.with_token(scene.token(role));
            for what in ["confirm", "withdraw"] {
                assert_eq!(posts(&other, &format!("/proposals/{proposal}/{what}"), json!({})).await.0, 403, "{role}");
            }
        }
        assert_eq!(in_use(&ann).await, former);
        let (status, taken) = posts(&bob, &confirmation(&proposal), json!({})).await;
        assert_eq!((status, &taken["push_certificate_id"], &taken["untried_because"]),
            (200, &json!(id), &json!("the old one was revoked")), "{taken}");
        assert_eq!(posts(&bob, &confirmation(&proposal), json!({})).await.0, 404);
        assert_eq!(bob.json(ALL).await["proposals"], json!([]));
        takes_into_use(&scene, &renewed).await;
        let mac = quiet_mac(&scene).await;
        assert!(was_pushed_by(&scene, &mac, &renewed));

        // Both stand in the audit log.
        let entries = told(&scene, &id);
        assert_eq!(words(&entries), ["push_certificate.install", "push_certificate.propose", "push_certificate.activate"]);
        let (by, confirmed) = (&entries[1]["who"]["id"], &entries[2]);
        assert_ne!(by, &confirmed["who"]["id"]);
        let author = confirmed["after"]["proposed_by"].as_str().expect("an author");
        assert!(author.contains(by.as_str().expect("an id")), "{author}");
        assert_eq!(confirmed["after"]["proposal"], proposal.as_str());

        // The way back takes two, as well.
        let proposal = proposed(&bob, "/rollback", json!({})).await;
        assert_eq!(in_use(&bob).await, id);
        is_refused(&bob, &confirmation(&proposal), json!({}), "same_person").await;
        assert_eq!(posts(&ann, &confirmation(&proposal), json!({})).await.0, 200);
        assert_eq!(in_use(&bob).await, former);
    }
}

journey! {
    /// However many tokens the provider gave them.
    async fn whom_a_provider_vouches_for_is_one_person(backend: Backend) {
        let mut scene = Scene::configured(backend, TWO).await;
        let issuer = Issuer::start(scene.now().millis()).await;
        let settings = issuer.settings(scene.home.path());
        scene.reached_inside(&settings).await;
        let officer = |subject, more: &[&str]| {
            let groups = [&["renewal"], more].concat();
            scene.api.with_token(issuer.token(&scene, subject, &groups))
        };
        let (ann, again, bob) = (officer("ann", &[]), officer("ann", &["staff"]), officer("bob", &[]));
        assert_ne!(ann.token, again.token);
        let id = PushOfficer(&scene).has_installed(&PushOfficer(&scene).renewed(), &[]).await;
        let untried = json!({ "without_canary": "a test" });
        let proposal = proposed(&ann, &format!("/{id}/activate"), untried).await;
        is_refused(&again, &confirmation(&proposal), json!({}), "same_person").await;
        assert_eq!(posts(&bob, &confirmation(&proposal), json!({})).await.0, 200);
        let entries = told(&scene, &id);
        let by = |at: usize| (entries[at]["who"]["kind"].clone(), entries[at]["who"]["subject"].clone());
        assert_eq!((by(1), by(2)), ((json!("oidc"), json!("ann")), (json!("oidc"), json!("bob"))));
    }
}

journey! {
    async fn a_user_of_the_machine_is_a_person_too(backend: Backend) {
        let scene = Scene::configured(backend, TWO).await;
        let officer = PushOfficer(&scene);
        let ann = officer_of(&scene);
        let former = in_use(&ann).await;
        let id = officer.has_installed(&officer.renewed(), &[]).await;
        let untried = ["activate", &id, "--without-canary", "a test"];
        let said = officer.says(&[&untried[..], &["--json"]].concat()).await.json();
        let proposal = said["push_proposal_id"].as_str().expect("a proposal").to_owned();
        assert!(said["proposed_by"].as_str().expect("an author").starts_with("command line ("), "{said}");
        officer.says(&["confirm", &proposal]).await.refused(&["for another person"]);
        assert!(officer.says(&["list"]).await.text().contains(&proposal));
        assert_eq!(posts(&ann, &confirmation(&proposal), json!({})).await.0, 200);
        assert_eq!(in_use(&ann).await, id);

        // And the other way round.
        let proposal = proposed(&ann, "/rollback", json!({})).await;
        let said = officer.says(&["confirm", &proposal, "--json"]).await.json();
        assert_eq!(said["push_certificate_id"], former.as_str());
        let said = officer.says(&untried).await.text();
        assert!(said.contains("nothing is changed yet") && said.contains("push-cert confirm ppr_"), "{said}");
        let open = ann.json(ALL).await["proposals"][0]["push_proposal_id"].as_str().expect("one").to_owned();
        assert_eq!(officer.says(&["withdraw", &open, "--json"]).await.json()["withdrawn"], open.as_str());
        officer.says(&["withdraw", &open]).await.refused(&["no open proposal"]);
    }
}

journey! {
    async fn a_proposal_is_good_for_a_while_and_for_what_was_proposed(backend: Backend) {
        let scene = Scene::configured(backend, TWO).await;
        let officer = PushOfficer(&scene);
        let (ann, bob) = (officer_of(&scene), officer_of(&scene));
        let former = in_use(&ann).await;
        let first = officer.has_installed(&officer.issued_for(scene.world.topic(), 12), &[]).await;
        let second = officer.has_installed(&officer.issued_for(scene.world.topic(), 6), &[]).await;
        let untried = json!({ "without_canary": "a test" });
        let activation = |id: &str| format!("/{id}/activate");

        // From the portal before the time is over, because commands have a clock of their own.
        let third = officer.issued_for(scene.world.topic(), 2);

        // Its time is over.
        let late = proposed(&ann, &activation(&first), untried.clone()).await;
        scene.pass(Duration::from_secs(24 * 60 * 60));
        is_refused(&bob, &confirmation(&late), json!({}), "too_late").await;
        assert_eq!(ann.json(ALL).await["proposals"], json!([]));

        // It was withdrawn, or another took its place, or what it is about is gone.
        let unwanted = proposed(&ann, &activation(&first), untried.clone()).await;
        assert_eq!(posts(&bob, &format!("/proposals/{unwanted}/withdraw"), json!({})).await.0, 204);
        assert_eq!(posts(&bob, &format!("/proposals/{unwanted}/withdraw"), json!({})).await.0, 404);
        let withdrawn = told(&scene, &first).pop().expect("an entry");
        assert_eq!((&withdrawn["what"], &withdrawn["before"]["proposal"]), (&json!("push_certificate.withdraw"), &json!(unwanted)));
        let replaced = proposed(&ann, &activation(&first), untried.clone()).await;
        let gone = proposed(&bob, &activation(&second), untried.clone()).await;
        assert_eq!(posts(&ann, &format!("/{second}/discard"), json!({})).await.0, 204);
        for proposal in [&unwanted, &replaced, &gone, &"x".to_owned()] {
            for person in [&ann, &bob] {
                assert_eq!(posts(person, &confirmation(proposal), json!({})).await.0, 404, "{proposal}");
            }
        }

        // What would be done now is not what was proposed.
        let proposal = proposed(&ann, &activation(&first), untried.clone()).await;
        assert_eq!(posts(&bob, &confirmation(&proposal), json!({})).await.0, 200);
        let back = proposed(&ann, "/rollback", json!({})).await;
        let third = officer.has_installed(&third, &[]).await;
        let third = PushCertificateId::parse(&third).expect("an id");
        let store = &scene.ctx().store;
        activate(store, &third, Some("a test"), &Who::Service, scene.now()).await.expect("in use");
        is_refused(&bob, &confirmation(&back), json!({}), "changed").await;
        assert_eq!(in_use(&ann).await, third.as_str());
        assert_ne!(third.as_str(), former);
        let again = proposed(&bob, "/rollback", json!({})).await;
        assert_eq!(posts(&ann, &confirmation(&again), json!({})).await.0, 200);
        assert_eq!(in_use(&ann).await, first);
    }
}
