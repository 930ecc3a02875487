//! A person on a phone follows an enrolment to its end, in headless Chromium.

use attestd_sim::{Lie, MacSpec};

use super::stream::Listener;
use crate::harness::browser::Browser;
use crate::harness::scene::{Backend, Scene};

const ORGANIZATION: &str = "[enrollment]\norganization = \"Example Compute\"\n";

/// Nothing on the page is wider than the screen.
async fn fits(browser: &Browser) {
    let script = "return [document.documentElement.scrollWidth, window.innerWidth]";
    let widths = browser.evaluate(script).await;
    assert!(widths[0].as_u64() <= widths[1].as_u64(), "{widths}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_enrols_a_mac_and_watches_every_step_to_the_verdict() {
    let scene = Scene::configured(Backend::Sqlite, ORGANIZATION).await;
    let mac = scene.honest_mac();
    let browser = Browser::start().await;
    browser.prefer("light").await;

    browser.open(&scene.url("/enroll")).await;
    browser.shows("h1", "Enroll a Mac").await;
    fits(&browser).await;
    browser.picture("enroll-beginning").await;
    // A typing error first; what was typed stays in the field.
    browser.type_into("#serial", "short").await;
    browser.click("button").await;
    browser.shows("#fault", "no serial number").await;
    let complaints = browser.complaints().await;
    assert!(
        complaints.len() == 1 && complaints[0].contains("400 (Bad Request)"),
        "{complaints:?}"
    );
    browser.clear("#serial").await;
    browser
        .type_into("#serial", &format!(" {} ", mac.serial().to_lowercase()))
        .await;
    browser.click("button").await;

    browser.shows("#headline", "Step 1 of 8").await;
    fits(&browser).await;
    browser.click("#download a").await;
    let profile = browser
        .downloaded(&format!("Enroll-{}.mobileconfig", mac.serial()))
        .await;
    browser.shows("#headline", "Step 2 of 8").await;
    browser.shows("#step-identity", "Device Management").await;
    // Once fetched, the claim leaves the address; what is left can be kept and sent on.
    let address = browser.url().await;
    let progress_id = address
        .strip_prefix(&scene.url("/enroll/"))
        .expect("the page");
    assert_eq!(progress_id.len(), 22, "{address}");

    let installed = mac.read_profile(&profile).expect("a profile");
    let identity = mac.identity_for(&installed).await.expect("an identity");
    browser.shows("#step-identity .standing", "Done").await;
    browser.shows("#headline", "Step 3 of 8").await;
    mac.install_profile_with(&profile, identity)
        .await
        .expect("enrols");
    browser.shows("#step-enrolled .standing", "Done").await;
    browser.shows("#step-pushed .standing", "Done").await;
    browser
        .shows("#headline", "reports its security state")
        .await;
    browser.picture("enroll-halfway").await;

    let _life = mac.live();
    browser.shows("#headline", "Finished").await;
    browser.shows("#step-verdict .standing", "Good").await;
    assert_eq!(
        browser.text("#download a").await,
        None,
        "nothing to fetch any more"
    );
    fits(&browser).await;
    browser.picture("enroll-end").await;
    let background = "return getComputedStyle(document.body).backgroundColor";
    let light = browser.evaluate(background).await;
    browser.prefer("dark").await;
    assert_ne!(browser.evaluate(background).await, light);
    assert_eq!(browser.complaints().await, Vec::<String>::new());

    // Whoever comes later, by the address that was kept, sees the end.
    browser.reload().await;
    browser.shows("#headline", "Finished").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_script_the_page_reloads_itself_until_the_bad_end() {
    let scene = Scene::new(Backend::Sqlite).await;
    let spec = MacSpec::random()
        .expect("a Mac")
        .lying(Lie::SipOffButClaimsOn);
    let mac = scene.mac(spec);
    let browser = Browser::without_script().await;

    browser.open(&scene.url("/enroll")).await;
    browser.click("button").await;
    browser.shows("#headline", "Step 1 of 8").await;
    browser.click("#download a").await;
    let profile = browser.downloaded("Enroll.mobileconfig").await;
    // The address keeps the claim, as there is no script to take it away; so does the page.
    assert!(browser.url().await.len() > scene.url("/enroll/").len() + 22);

    mac.install_profile(&profile).await.expect("enrols");
    let _life = mac.live();
    browser
        .shows("#headline", "the verdict is against this Mac")
        .await;
    browser
        .shows("#step-verdict", "System Integrity Protection is off")
        .await;
    browser.shows("#step-verdict", "Next: you").await;
    browser.picture("enroll-refused").await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_that_gets_no_stream_looks_again_by_itself() {
    let scene = Scene::new(Backend::Sqlite).await.with_ready_keys(1);
    let mac = scene.honest_mac();
    let delivered = scene.deliver("{}").await;
    // All that this address may have are taken.
    let mut taken = Vec::new();
    for _ in 0..16 {
        taken.push(Listener::new(&scene, &delivered.progress_id).await);
    }
    let browser = Browser::start().await;
    let page = format!("/enroll/{}", delivered.progress_id);
    browser.open(&scene.url(&page)).await;
    browser.shows("#headline", "Step 2 of 8").await;
    let profile = mac.read_profile(&delivered.profile).expect("a profile");
    mac.identity_for(&profile).await.expect("an identity");
    browser.shows("#headline", "Step 3 of 8").await;
    let complaints = browser.complaints().await;
    assert!(
        complaints.len() == 1 && complaints[0].contains("429"),
        "{complaints:?}"
    );
    drop(taken);
}
