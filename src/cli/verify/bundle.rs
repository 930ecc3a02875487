//! `attestd verify bundle`.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Deserialize;
use serde_json::json;

use super::{Answer, Unreadable, input};
use crate::attestation::{Anchor, Anchors};
use crate::json;
use crate::publication::bundle::trust::{LogTrust, Trust, TrustedKey};
use crate::publication::bundle::{Standing, examine};
use crate::reason::Reason;
use crate::time::Timestamp;

#[derive(Debug, Args)]
#[command(after_help = "\
Each claim of the bundle is told with how far it holds: proved and by whom, asserted and by whom, or
failed and why. What the bundle has no part for is not claimed. docs/verify.md has the rules, and a
second program, in Python, that must find the same.")]
pub(super) struct Arguments {
    /// The bundle; - is standard input: curl -s URL | attestd verify bundle - --trust TRUST.json
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What you trust: keys of the service, its base URL, a root other than Apple's, a log.
    #[arg(long, value_name = "TRUST.json")]
    trust: Option<PathBuf>,
    /// A claim that must be there and proved, such as apple_posture; may be given several times.
    #[arg(long, value_name = "CLAIM")]
    require: Vec<String>,
    /// The moment at which everything is judged; now when not given.
    #[arg(long, value_name = "RFC3339", value_parser = input::time)]
    at: Option<Timestamp>,
    /// One line of JSON instead of an indented object.
    #[arg(long)]
    pub(super) json: bool,
}

/// The trust file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct TrustFile {
    mda_root_sha256: Option<String>,
    mda_root_pem_file: Option<PathBuf>,
    jwks_file: Option<PathBuf>,
    jwks: Option<serde_json::Value>,
    issuer: Option<String>,
    log_vkey: Option<String>,
    #[serde(default)]
    witness_vkeys: Vec<String>,
    witness_quorum: Option<usize>,
}

pub(super) fn run(arguments: &Arguments) -> Result<Answer, Unreadable> {
    let trust = trust(arguments.trust.as_deref())?;
    let bytes = input::json(&arguments.file)?;
    let at = input::at(arguments.at);
    let findings = examine(&bytes, &trust, at);
    let mut answer = Answer::new(None);
    let anchor = trust.anchors.as_ref().map(Anchors::kind);
    answer.member("anchor", json!(anchor));
    answer.member("at", json!(at));
    for finding in &findings {
        if let Standing::Failed { reason, detail } = &finding.standing {
            answer.refuse(&[*reason], format!("{}: {detail}", finding.claim));
        }
    }
    for wanted in &arguments.require {
        let found = findings.iter().find(|finding| finding.claim == wanted);
        if !found.is_some_and(|found| matches!(found.standing, Standing::Proved { .. })) {
            answer.refuse(&[Reason::FieldMissing], format!("{wanted} is not proved"));
        }
    }
    answer.member("findings", json!(findings));
    Ok(answer)
}

fn trust(path: Option<&Path>) -> Result<Trust, Unreadable> {
    let Some(path) = path else {
        return assemble(TrustFile::default(), Path::new("."));
    };
    let unreadable =
        |fault: &dyn ToString| Unreadable(format!("{}: {}", path.display(), fault.to_string()));
    let members = json::object(&input::json(path)?).map_err(|fault| unreadable(&fault))?;
    let file = serde_json::from_value(members.into()).map_err(|fault| unreadable(&fault))?;
    assemble(file, path.parent().unwrap_or(Path::new(".")))
}

fn assemble(file: TrustFile, folder: &Path) -> Result<Trust, Unreadable> {
    let anchors = match &file.mda_root_pem_file {
        None => input::anchors(None)?,
        Some(root) => input::anchors(Some(&folder.join(root)))?,
    };
    let anchors = match file.mda_root_sha256.as_deref() {
        Some(hash) => Some(anchors).filter(|anchors| anchors.are(hash)),
        None => Some(anchors).filter(|anchors| anchors.kind() == Anchor::Apple),
    };
    let keys = match (file.jwks, &file.jwks_file) {
        (Some(keys), _) => Some(keys),
        (None, Some(path)) => {
            let path = folder.join(path);
            let keys = json::object(&input::json(&path)?)
                .map_err(|fault| Unreadable(format!("{}: {fault}", path.display())))?;
            Some(keys.into())
        }
        (None, None) => None,
    };
    let keys = keys.as_ref().and_then(|set| set.get("keys")?.as_array());
    // RFC 7517 section 5: keys that are not understood are passed over.
    let keys = keys.into_iter().flatten();
    let keys = keys
        .filter_map(|key| TrustedKey::deserialize(key).ok())
        .collect();
    Ok(Trust {
        anchors,
        keys,
        issuer: file.issuer,
        // None that has to be said, if it is to be enough.
        log: file
            .log_vkey
            .zip(file.witness_quorum)
            .map(|(log, quorum)| LogTrust {
                log,
                witnesses: file.witness_vkeys,
                quorum,
            }),
    })
}
