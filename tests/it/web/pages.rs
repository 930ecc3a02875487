//! The pages by a plain client: what they say, how they are guarded, and what they answer to
//! mistakes and to malice.

use std::time::Duration;

use attestd::enrollment::outline::RIGHTS;
use attestd::ids::CommandUuid;
use attestd::mdm::Command;
use plist::Value;
use reqwest::redirect::Policy;
use reqwest::{Client, Method};

use crate::flows::issue_by_scep::scene_challenge;
use crate::harness::public_side::Answer;
use crate::harness::scene::Scene;

const FORM: &str = "application/x-www-form-urlencoded";

async fn get(scene: &Scene, path: &str) -> Answer {
    scene.answer(scene.anybody(Method::GET, path)).await
}

/// Sends the form as a browser does, and does not follow where it leads.
async fn submit(scene: &Scene, form: &str) -> Answer {
    let client = Client::builder().no_proxy().redirect(Policy::none());
    let request = client.build().expect("a client").post(scene.url("/enroll"));
    let request = request.header("content-type", FORM).body(form.to_owned());
    scene.answer(request).await
}

/// The page that the form leads to: its address, which ends in a claim.
async fn offered(scene: &Scene, form: &str) -> String {
    let answer = submit(scene, form).await;
    assert_eq!(answer.status, 303, "{}", answer.text());
    answer.header("location").to_owned()
}

fn is_guarded(answer: &Answer) {
    let policy = answer.header("content-security-policy");
    for part in [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.contains(part), "{part}: {policy}");
    }
    assert!(
        !policy.contains("unsafe") && !policy.contains("http"),
        "{policy}"
    );
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert_eq!(answer.header("referrer-policy"), "no-referrer");
    assert_eq!(answer.header("set-cookie"), "");
}

/// A page for people, with nothing in it that the policy would refuse or that names elsewhere.
fn is_page(answer: &Answer, status: u16) -> String {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
    assert_eq!(answer.header("cache-control"), "no-store");
    is_guarded(answer);
    let html = answer.text();
    for forbidden in [
        "style=\"",
        "<style",
        " onclick",
        "<script>",
        "src=\"http",
        "href=\"http",
    ] {
        assert!(!html.contains(forbidden), "{forbidden}: {html}");
    }
    assert!(html.contains("<main id=\"content\"") && html.contains("<html lang=\"en\">"));
    html
}

fn strings(value: &Value) -> Vec<String> {
    let items = value.as_array().expect("an array").iter();
    items
        .map(|item| item.as_string().expect("text").to_owned())
        .collect()
}

journey! {
    async fn the_page_says_exactly_what_is_installed_and_asked(backend: Backend) {
        let scene = Scene::new(backend).await;
        let html = is_page(&get(&scene, "/enroll").await, 200);
        let text = html.replace("&#34;", "\"").replace("&#60;", "<").replace("&#62;", ">");

        // The profile that is shown is the one that is delivered, but for its secret.
        let (_, shown) = text.split_once("<pre tabindex=\"0\">").expect("the profile");
        let (shown, _) = shown.split_once("</pre>").expect("its end");
        let mut shown = Value::from_reader(std::io::Cursor::new(shown.replace("&#38;", "&")))
            .expect("a property list");
        let delivered = scene.deliver("{}").await;
        let challenge = scene_challenge(&scene, &delivered.profile);
        assert!(!html.contains(&challenge));
        let payloads = payloads(&mut shown);
        let kinds: Vec<_> = payloads
            .iter()
            .map(|payload| payload["PayloadType"].as_string().expect("a type").to_owned())
            .collect();
        for kind in &kinds {
            assert!(html.contains(&format!("<code>{kind}</code>")), "{kind}");
        }
        let whole = std::str::from_utf8(cms_content(&delivered.profile)).expect("text").to_owned();
        let shown_challenge = "(a secret made for one Mac, good once and for an hour)";
        assert_eq!(
            Value::from_reader(std::io::Cursor::new(whole.replace(&challenge, shown_challenge)))
                .expect("a property list"),
            shown,
        );

        // Every right, with whether it is granted.
        for right in RIGHTS {
            let class = if right.is_asked_for() { "yes" } else { "no" };
            let row = format!(
                "<tr class=\"{class}\"><td>{} <code>{}</code></td><td>{class}</td>",
                right.allows, right.bit
            );
            assert!(html.contains(&row), "{row}");
        }
        assert!(html.contains("<strong>1041</strong>"));

        // Every command the server can build, with everything it asks for.
        let uuid = CommandUuid::parse("00000001-0000-4000-8000-000000000001").expect("valid");
        let (_, asked) = html.split_once("id=\"asked\"").expect("commands");
        let (asked, _) = asked.split_once("</section>").expect("their end");
        let mut told = 0;
        for command in Command::EACH {
            let sent = plist::from_bytes::<Value>(&command.encode(&uuid)).expect("a command");
            let sent = sent.as_dictionary().expect("a dictionary")["Command"].clone();
            let sent = sent.as_dictionary().expect("a dictionary");
            let name = sent["RequestType"].as_string().expect("a type");
            assert!(asked.contains(&format!("<dt><code>{name}</code></dt>")), "{name}");
            for query in sent.get("Queries").map(strings).unwrap_or_default() {
                assert!(asked.contains(&format!("<li><code>{query}</code></li>")), "{query}");
            }
            told += 1;
        }
        assert_eq!(asked.matches("<dt>").count(), told, "no others are told of");
    }
}

fn payloads(profile: &mut Value) -> Vec<plist::Dictionary> {
    let top = profile.as_dictionary_mut().expect("a dictionary");
    let payloads = top["PayloadContent"].as_array().expect("payloads").iter();
    payloads
        .map(|payload| payload.as_dictionary().expect("a payload").clone())
        .collect()
}

/// The property list inside a signed profile, found by its own beginning and end.
fn cms_content(signed: &[u8]) -> &[u8] {
    let find = |what: &[u8]| signed.windows(what.len()).position(|part| part == what);
    let (from, end) = (
        find(b"<?xml").expect("a beginning"),
        find(b"</plist>").expect("an end"),
    );
    &signed[from..end + "</plist>".len()]
}

journey! {
    async fn the_form_leads_to_a_page_that_offers_one_profile_for_a_while(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(1);
        let mac = scene.honest_mac();
        let form = format!("serial_number=+{}&identity=automatic", mac.serial().to_lowercase());
        let page = offered(&scene, &form).await;
        let html = is_page(&get(&scene, &page).await, 200);
        assert!(html.contains(&format!("href=\"{page}/profile\"")), "{html}");
        assert!(html.contains("Step 1 of 8") && html.contains("http-equiv=\"refresh\""));

        // By the progress id alone, the steps and nothing else.
        let (progress, claim) = page.rsplit_once('/').expect("a claim");
        let bare = is_page(&get(&scene, progress).await, 200);
        assert!(!bare.contains("/profile") && bare.contains("Step 1 of 8"));

        let first = get(&scene, &format!("{page}/profile")).await;
        assert_eq!(first.status, 200);
        is_guarded(&first);
        assert_eq!(first.header("content-type"), "application/x-apple-aspen-config");
        let name = format!("attachment; filename=\"Enroll-{}.mobileconfig\"", mac.serial());
        assert_eq!(first.header("content-disposition"), name);
        let second = get(&scene, &format!("{page}/profile")).await;
        let secret = |answer: &Answer| scene_challenge(&scene, &answer.body);
        assert_eq!(secret(&first), secret(&second), "one ticket, however often it is fetched");

        // A claim is good for its own ticket only, and only as it was made.
        let other = offered(&scene, "").await;
        let (other, _) = other.rsplit_once('/').expect("a claim");
        let changed = format!("{}A", &claim[..claim.len() - 1]);
        let before = scene.refusals("enroll_page", "ticket_unknown").await;
        for wrong in [
            format!("{other}/{claim}/profile"),
            format!("{progress}/{changed}x/profile"),
            format!("{progress}/AAAA/profile"),
            format!("{progress}/%00/profile"),
            format!("/enroll/AAAAAAAAAAAAAAAAAAAAAA/{claim}/profile"),
        ] {
            is_page(&get(&scene, &wrong).await, 404);
        }
        assert_eq!(scene.refusals("enroll_page", "ticket_unknown").await, before + 5);

        mac.install_profile(&second.body).await.expect("enrols");
        let html = is_page(&get(&scene, &format!("{page}/profile")).await, 410);
        assert!(html.contains("already used"));
        let html = is_page(&get(&scene, &page).await, 200);
        assert!(!html.contains("/profile"), "the button is gone");
    }
}

journey! {
    async fn a_profile_that_waited_too_long_is_made_again_and_not_handed_out(backend: Backend) {
        let scene = Scene::new(backend).await;
        let page = offered(&scene, "").await;
        scene.pass(Duration::from_secs(599));
        assert_eq!(get(&scene, &format!("{page}/profile")).await.status, 200);
        scene.pass(Duration::from_secs(1));
        let html = is_page(&get(&scene, &format!("{page}/profile")).await, 410);
        assert!(html.contains("href=\"/enroll\""), "there is a way on");
        assert_eq!(scene.refusals("enroll_page", "ticket_expired").await, 1);
        // The steps stay, after the ticket too.
        scene.pass(Duration::from_secs(3000));
        let html = is_page(&get(&scene, &page).await, 200);
        assert!(html.contains("not installed") && html.contains("ticket_expired"));
        assert!(!html.contains("http-equiv=\"refresh\""), "nothing more comes");
    }
}

journey! {
    async fn what_is_typed_stays_text(backend: Backend) {
        let scene = Scene::new(backend).await;
        for hostile in [
            "\"><script>alert(1)</script>",
            "' autofocus onfocus='alert(1)",
            "{{7*7}}</textarea><img src=x onerror=alert(1)>",
        ] {
            let form = form_of(hostile);
            let html = is_page(&submit(&scene, &form).await, 400);
            assert!(!html.contains("<script>alert") && !html.contains("<img src=x"), "{html}");
            assert!(!html.contains("onfocus='") && !html.contains("\"><script"), "{html}");
            assert!(html.contains("alert(1)"), "what was typed is still there to be mended");
            assert!(html.contains("role=\"alert\"") && html.contains("aria-invalid=\"true\""));
        }
        assert_eq!(scene.refusals("enroll_page", "request_malformed").await, 3);
    }
}

/// A form with this serial number, every octet escaped.
fn form_of(serial: &str) -> String {
    let escaped: String = serial
        .bytes()
        .map(|octet| format!("%{octet:02X}"))
        .collect();
    format!("serial_number={escaped}")
}

journey! {
    async fn mistakes_are_answered_with_pages_that_say_what_to_do(backend: Backend) {
        let mut scene = Scene::new(backend).await;
        for unknown in ["AAAAAAAAAAAAAAAAAAAAAA", "x", "%00", "..%2f..%2fmetrics"] {
            for path in [format!("/enroll/{unknown}"), format!("/enroll/{unknown}/y")] {
                let html = is_page(&get(&scene, &path).await, 404);
                assert!(html.contains("Start again"), "{path}");
            }
        }
        assert_eq!(get(&scene, "/assets/../attestd.toml").await.status, 404);
        is_page(&get(&scene, "/assets/page.js").await, 404);
        for body in ["identity=other", "serial_number=A&serial_number=B", "challenge=micromdm"] {
            is_page(&submit(&scene, body).await, 400);
        }
        is_page(&submit(&scene, &"A".repeat(5000)).await, 413);

        // Looking costs nothing and is told in the same way.
        let page = offered(&scene, "").await;
        for path in ["/enroll", &page, "/assets/page.css"] {
            let head = scene.answer(scene.anybody(Method::HEAD, path)).await;
            assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
            is_guarded(&head);
        }

        scene.stop().await;
        let settings = std::fs::read_to_string(scene.config()).expect("settings");
        let settings = settings.replace("enroll_per_minute = 100000", "enroll_per_minute = 2");
        std::fs::write(scene.config(), settings).expect("written");
        scene.start().await;
        let page = offered(&scene, "").await;
        assert_eq!(get(&scene, &format!("{page}/profile")).await.status, 200);
        for answer in [submit(&scene, "").await, get(&scene, &format!("{page}/profile")).await] {
            assert_eq!(answer.header("retry-after"), "60");
            assert!(is_page(&answer, 429).contains("Wait a minute"));
        }
        // One budget, whichever way profiles are asked for.
        assert_eq!(scene.ask_for_profile("{}").await.status, 429);
        is_page(&get(&scene, &page).await, 200);
    }
}

journey! {
    async fn without_a_push_certificate_people_are_told_that_it_is_not_open(backend: Backend) {
        let scene = Scene::without_push_certificate(backend).await;
        let html = is_page(&get(&scene, "/enroll").await, 200);
        assert!(html.contains("not open yet") && !html.contains("<form"));
        let answer = submit(&scene, "").await;
        assert_eq!(answer.header("retry-after"), "30");
        assert!(is_page(&answer, 503).contains("push certificate"));
    }
}

journey! {
    async fn assets_are_sent_once(backend: Backend) {
        let scene = Scene::new(backend).await;
        for (path, kind) in [
            ("/assets/page.css", "text/css; charset=utf-8"),
            ("/assets/progress.js", "text/javascript; charset=utf-8"),
            ("/assets/icon.svg", "image/svg+xml"),
        ] {
            let first = get(&scene, path).await;
            assert_eq!((first.status, first.header("content-type")), (200, kind));
            is_guarded(&first);
            let tag = first.header("etag").to_owned();
            let again = scene.anybody(Method::GET, path).header("if-none-match", &tag);
            let again = scene.answer(again).await;
            assert_eq!((again.status, again.body.len()), (304, 0), "{path}");
            let other = scene.anybody(Method::GET, path).header("if-none-match", "\"other\"");
            assert_eq!(scene.answer(other).await.status, 200);
        }
    }
}
