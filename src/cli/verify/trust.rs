//! What the caller trusts, from a file of theirs: evidence brings none of it along.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Deserialize;

use super::{Unreadable, input};
use crate::attestation::Anchor;
use crate::json;
use crate::publication::bundle::trust::{LogTrust, Trust, TrustedKey};

#[derive(Debug, Args)]
pub(super) struct Trusted {
    /// What you trust: keys of the service, its base URL, a root other than Apple's, a log.
    #[arg(long, value_name = "TRUST.json")]
    trust: Option<PathBuf>,
}

impl Trusted {
    pub(super) fn read(&self) -> Result<Trust, Unreadable> {
        trust(self.trust.as_deref())
    }
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
