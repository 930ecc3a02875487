//! The end of the demo: what anybody can do with the public feed and a reply, done with the commands that
//! are shown, by both verifiers and by openssl.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use attestd_sim::{Coordinator, World};
use openssl::sha::sha256;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::server::Server;

/// What the public page asks, to be sent somewhere else.
const ASKED: &str = r#"-H "Authorization: Bearer $DARKBLOOM_API_KEY" \
    -H "Content-Type: application/json" \
    -d '{"model":"mlx-community/gemma-4-26b-a4b-it-8bit","messages":[{"role":"user","content":"Hello"}]}'"#;

/// The same, to be streamed.
const STREAMED: &str =
    r#"-d '{"model":"any","stream":true,"messages":[{"role":"user","content":"Hello"}]}'"#;

/// Reads one header of a saved reply.
const VALUE: &str = "value() { grep -i \"^$1:\" headers | tr -d '\\r' | cut -d' ' -f2-; }";

/// A command as it is shown and run, and how it must end.
#[derive(Debug)]
struct Check {
    line: String,
    /// Its exit status, where all is well.
    wanted: i32,
    /// What of it is found in what it says.
    says: &'static str,
    status: Option<i32>,
}

/// What was checked.
#[derive(Debug)]
pub(crate) struct Checks {
    origin: String,
    folder: PathBuf,
    done: Vec<Check>,
}

impl Checks {
    /// Checks the feed and one reply of the coordinator, with the verifier in Python that is given.
    pub(crate) async fn run(
        world: &World,
        server: &Server,
        coordinator: &Coordinator,
        verifier: &Path,
        folder: &Path,
    ) -> Result<Self> {
        let folder = std::path::absolute(folder.join("checks"))?;
        std::fs::create_dir_all(&folder)?;
        let root = world.apple().root_pem()?;
        let der = openssl::x509::X509::from_pem(root.as_ref())?.to_der()?;
        // What is trusted is the reader's to say. Here it is the simulated Apple, and this server.
        let log = Command::new("curl")
            .args(["-sf", &format!("{}/log/verifier-key", coordinator.url())])
            .output();
        let log = String::from_utf8(log.await.context("running curl")?.stdout)?;
        let trust = json!({
            "mda_root_sha256": hex::encode(sha256(&der)), "mda_root_pem_file": "root.pem",
            "jwks_file": "keys.json", "issuer": server.base_url,
            "log_vkey": log.trim_end(), "witness_quorum": 0,
        });
        std::fs::write(folder.join("root.pem"), root)?;
        std::fs::write(folder.join("trust.json"), format!("{trust:#}\n"))?;
        settled(server, coordinator).await?;
        let watcher = verifier.with_file_name("log.py");
        let watcher = format!("/usr/bin/python3 -B {}", path(&watcher)?);
        let (attestd, verifier) = (path(&server.attestd)?, path(verifier)?);
        let origin = coordinator.url();
        let feed = format!("{origin}/v1/providers/attestation");
        let saved = "--headers headers --body body";
        let streamed = "--headers stream.headers --body stream";
        let python = format!("/usr/bin/python3 -B {verifier}");
        let (verified, refused) = ("\"verdict\": \"verified\"", "\"verdict\": \"refused\"");
        let lines = [
            (
                format!("curl -sf {origin}/.well-known/jwks-history.json -o keys.json"),
                0,
                "",
            ),
            (
                format!(
                    "curl -sf --dump-header headers --output body {origin}/v1/chat/completions \\\n    {ASKED}"
                ),
                0,
                "",
            ),
            (
                format!(
                    "{VALUE}\n  value x-se-public-key | base64 -d > key.der; value x-se-signature | base64 -d > body.sig\n  \
                     openssl dgst -sha256 -keyform DER -verify key.der -signature body.sig body"
                ),
                0,
                "Verified OK",
            ),
            (
                format!("{attestd} verify feed {feed} --trust trust.json"),
                0,
                verified,
            ),
            (
                format!("{python} feed {feed} --trust trust.json"),
                0,
                verified,
            ),
            (
                format!(
                    "{attestd} verify response {saved} --feed {feed} --trust trust.json --require key_named"
                ),
                0,
                verified,
            ),
            (
                format!("{python} response {saved} --feed {feed} --trust trust.json"),
                0,
                verified,
            ),
            (
                format!(
                    "curl -sfN -H 'TE: trailers' --dump-header stream.headers --output stream \\\n    \
                     {origin}/v1/chat/completions {STREAMED}"
                ),
                0,
                "",
            ),
            (
                format!("{attestd} verify response {streamed} --feed {feed} --trust trust.json"),
                0,
                verified,
            ),
            (
                format!("{python} response {streamed} --feed {feed} --trust trust.json"),
                0,
                verified,
            ),
            (
                format!(
                    "{watcher} {origin}/log --vkey '{}' --state seen.checkpoint",
                    log.trim_end()
                ),
                0,
                verified,
            ),
            (
                format!(
                    "sed 's/Hello/Hallo/' body > changed; {attestd} verify response --headers headers --body changed \\\n    \
                     --feed {feed} --trust trust.json"
                ),
                1,
                refused,
            ),
        ];
        let mut done = Vec::new();
        for (line, wanted, says) in lines {
            let mut shell = Command::new("sh");
            let shell = shell.arg("-c").arg(&line).current_dir(&folder);
            let ended = shell.stdin(Stdio::null()).output().await;
            let ended = ended.context("running a shell")?;
            let is_said = String::from_utf8_lossy(&ended.stdout).contains(says);
            done.push(Check {
                line,
                wanted,
                says,
                status: ended.status.code().filter(|_| is_said),
            });
        }
        Ok(Self {
            origin,
            folder,
            done,
        })
    }

    /// Whether each ended as it must.
    pub(crate) fn are_right(&self) -> bool {
        self.done.iter().all(Check::is_right)
    }

    pub(crate) fn summary(&self) -> Value {
        let check = |check: &Check| json!({ "command": check.line, "satisfied": check.is_right() });
        let done: Vec<_> = self.done.iter().map(check).collect();
        json!({ "origin": self.origin, "satisfied": self.are_right(), "done": done })
    }

    /// For people: the lines that were run, and what came of each.
    pub(crate) fn text(&self) -> Result<String> {
        let (first, others) = self.done.split_first().context("no check")?;
        let mut text = format!(
            "The coordinator of the demo serves completions and the public feed on one origin. The two lines of the public \
             page, with another scheme, host and port (any key will do: it has no accounts):\n\n  \
             curl {origin}/v1/providers/attestation\n\n  curl -i {origin}/v1/chat/completions \\\n    {ASKED}\n\n\
             What these bring was checked just now, by two verifiers and openssl. By hand, in {folder} (--stay keeps it, \
             and everything up):\n\n  {}\n",
            first.line,
            origin = self.origin,
            folder = self.folder.display(),
        );
        for check in others {
            let came = match (check.is_right(), check.wanted) {
                (false, _) => "NOT as it must be",
                (true, 0) if check.says.is_empty() => "done",
                (true, 0) => "verified",
                (true, _) => "refused, as it must be: one letter is another",
            };
            text.push_str(&format!("  {}\n      # {came}\n", check.line));
        }
        text.push_str(
            "\nWhat each claim rests on, and what the signature does not bind (the request), is in docs/verify.md.\n",
        );
        Ok(text)
    }

    /// Fails where one did not end as it must.
    pub(crate) fn demand(&self) -> Result<()> {
        for check in &self.done {
            ensure!(check.is_right(), "not as it must be: {}", check.line);
        }
        Ok(())
    }
}

impl Check {
    fn is_right(&self) -> bool {
        self.status == Some(self.wanted)
    }
}

/// Waits, for a while, until the coordinator has heard what happened so far: what is in doubt is sent nothing.
async fn settled(server: &Server, coordinator: &Coordinator) -> Result<()> {
    let page = server.api.get("/internal/v1/postures?limit=1").await?;
    let cursor = page["cursor"].as_i64().unwrap_or_default();
    for _ in 0..100 {
        if coordinator.heard() >= cursor {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// For a shell.
fn path(path: &Path) -> Result<String> {
    let path = std::path::absolute(path)?;
    let text = path.to_str().context("a path that is no text")?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+".contains(&byte);
    Ok(match text.bytes().all(is_plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    })
}
