//! A headless Chromium, driven as the WebDriver standard says (W3C WebDriver 2), on the screen of a
//! phone.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::{Client, Method};
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long a page may take to show what is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// The member that holds an element's name (section 12.1).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser with one page; ended when dropped.
#[derive(Debug)]
pub struct Browser {
    driver: Child,
    client: Client,
    session: String,
    folder: TempDir,
}

impl Browser {
    /// Starts a browser with a screen of 375 by 812 points.
    ///
    /// # Panics
    /// When there is none: then nothing can be said of the pages.
    pub async fn start() -> Self {
        Self::with_settings(json!({})).await
    }

    /// As [`Browser::start`], set by its user to run no script anywhere.
    pub async fn without_script() -> Self {
        const BLOCKED: u8 = 2;
        let setting = "profile.managed_default_content_settings.javascript";
        Self::with_settings(json!({ setting: BLOCKED })).await
    }

    async fn with_settings(settings: Value) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            // A group of its own, so that the browser can be ended with its driver.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver runs: `./dev test` installs chromium and chromium-driver");
        let mut lines = BufReader::new(driver.stdout.take().expect("piped")).lines();
        let port = loop {
            let line = lines.next().and_then(Result::ok).expect("a port");
            if let Some((_, port)) = line.split_once("started successfully on port ") {
                break port.trim_end_matches('.').to_owned();
            }
        };
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));

        let mut browser = Self {
            driver,
            client: Client::builder().no_proxy().build().expect("a client"),
            session: format!("http://127.0.0.1:{port}/session"),
            folder,
        };
        let profile = browser.folder.path().join("profile");
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
            "--lang=en-US",
            &format!("--user-data-dir={}", profile.display()),
        ];
        let options = json!({ "alwaysMatch": {
            "goog:chromeOptions": { "args": arguments, "prefs": settings },
            "goog:loggingPrefs": { "browser": "ALL" },
        }});
        let made = browser
            .send(Method::POST, "", &json!({ "capabilities": options }))
            .await;
        let id = made["sessionId"].as_str().expect("a session");
        browser.session = format!("{}/{id}", browser.session);
        let screen = json!({ "width": 375, "height": 812, "deviceScaleFactor": 2, "mobile": true });
        browser
            .devtools("Emulation.setDeviceMetricsOverride", screen)
            .await;
        let downloads = json!({ "behavior": "allow", "downloadPath": browser.downloads() });
        browser
            .devtools("Browser.setDownloadBehavior", downloads)
            .await;
        browser
    }

    /// Whether pages are to be dark.
    pub async fn prefer(&self, scheme: &str) {
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.devtools(
            "Emulation.setEmulatedMedia",
            json!({ "features": [feature] }),
        )
        .await;
    }

    pub async fn open(&self, url: &str) {
        self.send(Method::POST, "/url", &json!({ "url": url }))
            .await;
    }

    pub async fn reload(&self) {
        self.send(Method::POST, "/refresh", &json!({})).await;
    }

    pub async fn url(&self) -> String {
        let url = self.send(Method::GET, "/url", &Value::Null).await;
        url.as_str().expect("a URL").to_owned()
    }

    /// Clicks the first element that a CSS selector finds.
    pub async fn click(&self, selector: &str) {
        let element = self.find(selector).await.expect(selector);
        self.send(
            Method::POST,
            &format!("/element/{element}/click"),
            &json!({}),
        )
        .await;
    }

    /// Empties a field.
    pub async fn clear(&self, selector: &str) {
        let element = self.find(selector).await.expect(selector);
        self.send(
            Method::POST,
            &format!("/element/{element}/clear"),
            &json!({}),
        )
        .await;
    }

    /// Types into a field.
    pub async fn type_into(&self, selector: &str, text: &str) {
        let element = self.find(selector).await.expect(selector);
        let path = format!("/element/{element}/value");
        self.send(Method::POST, &path, &json!({ "text": text }))
            .await;
    }

    /// The text a person sees there; `None` when there is no such element.
    pub async fn text(&self, selector: &str) -> Option<String> {
        let element = self.find(selector).await?;
        let path = format!("/element/{element}/text");
        // A page may have changed in between.
        let text = self.try_send(Method::GET, &path, &Value::Null).await.ok()?;
        text.as_str().map(str::to_owned)
    }

    /// Waits until an element's text contains this.
    ///
    /// # Panics
    /// When it never does; with what it says instead.
    pub async fn shows(&self, selector: &str, wanted: &str) {
        let until = Instant::now() + PATIENCE;
        loop {
            let text = self.text(selector).await;
            if text.as_ref().is_some_and(|text| text.contains(wanted)) {
                return;
            }
            assert!(
                Instant::now() < until,
                "{selector} says {text:?}, not {wanted:?}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What a script of the test's own makes of the page.
    pub async fn evaluate(&self, script: &str) -> Value {
        let body = json!({ "script": script, "args": [] });
        self.send(Method::POST, "/execute/sync", &body).await
    }

    /// The bytes of a file that was downloaded, once it is there.
    pub async fn downloaded(&self, name: &str) -> Vec<u8> {
        let path = self.downloads().join(name);
        let until = Instant::now() + PATIENCE;
        loop {
            // It has another name until it is complete.
            if let Ok(bytes) = std::fs::read(&path)
                && !bytes.is_empty()
            {
                return bytes;
            }
            assert!(Instant::now() < until, "{} never came", path.display());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What the browser complained of: refused styles and scripts, failed requests, faults in
    /// scripts.
    pub async fn complaints(&self) -> Vec<String> {
        let entries = self
            .send(Method::POST, "/se/log", &json!({ "type": "browser" }))
            .await;
        let entries = entries.as_array().expect("a log");
        entries
            .iter()
            .filter(|entry| entry["level"] != "INFO" && entry["level"] != "DEBUG")
            .map(|entry| entry["message"].to_string())
            .collect()
    }

    /// Keeps a picture of the screen, if `ATTESTD_SCREENSHOTS` names a folder for them.
    pub async fn picture(&self, name: &str) {
        use base64::Engine as _;

        let Some(folder) = std::env::var_os("ATTESTD_SCREENSHOTS").map(PathBuf::from) else {
            return;
        };
        let png = self.send(Method::GET, "/screenshot", &Value::Null).await;
        let png = base64::engine::general_purpose::STANDARD
            .decode(png.as_str().expect("a picture"))
            .expect("base64");
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join(format!("{name}.png")), png).expect("written");
    }

    fn downloads(&self) -> PathBuf {
        self.folder.path().join("downloads")
    }

    async fn find(&self, selector: &str) -> Option<String> {
        let body = json!({ "using": "css selector", "value": selector });
        let found = self.try_send(Method::POST, "/element", &body).await.ok()?;
        found[ELEMENT].as_str().map(str::to_owned)
    }

    async fn devtools(&self, command: &str, parameters: Value) {
        let body = json!({ "cmd": command, "params": parameters });
        self.send(Method::POST, "/goog/cdp/execute", &body).await;
    }

    async fn send(&self, method: Method, path: &str, body: &Value) -> Value {
        self.try_send(method, path, body).await.expect(path)
    }

    async fn try_send(&self, method: Method, path: &str, body: &Value) -> Result<Value, String> {
        let url = format!("{}{path}", self.session);
        let mut request = self.client.request(method, url);
        if !body.is_null() {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|error| error.to_string())?;
        let is_success = response.status().is_success();
        let mut answer: Value = response.json().await.map_err(|error| error.to_string())?;
        let value = answer["value"].take();
        if is_success {
            Ok(value)
        } else {
            Err(value.to_string())
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The group: the driver does not take its browser with it when it is killed.
        let group = format!("-{}", self.driver.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.driver.wait();
    }
}
