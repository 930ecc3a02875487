//! Inputs that are a file, or are asked for over HTTP.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{Unreadable, input};
use crate::outbound::{self, Outbound, Target};

/// The caller chose the address: how long it may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// A file, or a URL.
#[derive(Debug, Clone)]
pub(super) enum Source {
    File(PathBuf),
    Url(String),
}

/// How URLs are reached.
#[derive(Debug, Args)]
pub(super) struct Reach {
    /// The roots that a URL's TLS certificate must lead to, instead of the public ones.
    #[arg(long, value_name = "PEM")]
    tls_root: Option<PathBuf>,
}

impl Source {
    /// For clap.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if !text.starts_with("http://") && !text.starts_with("https://") {
            return Ok(Self::File(text.into()));
        }
        let target = Target::parse(text, true).map_err(|fault| fault.to_string())?;
        // What nobody signed is the word of whoever is asked: that must be who it is.
        if text.starts_with("http://") && !target.is_loopback() {
            return Err("plain http is for this machine only".to_owned());
        }
        Ok(Self::Url(text.to_owned()))
    }

    /// What the same origin has about another thing, by a path of the service; `None` of a file, and of
    /// a URL that is no feed's.
    pub(super) fn beside_feed(&self, path: &str) -> Option<Self> {
        let Self::Url(url) = self else { return None };
        let (base, _) = url.split_once("/v1/providers/")?;
        Some(Self::Url(format!("{base}{path}")))
    }

    /// What is there, if it begins as JSON does: of more than `most` bytes enough to refuse it.
    pub(super) fn json(&self, reach: &Reach, most: usize) -> Result<Vec<u8>, Unreadable> {
        match self {
            Self::File(path) => {
                let bytes = input::bytes_to(path, most)?;
                input::begins_as_json(bytes, &path.display())
            }
            Self::Url(url) => input::begins_as_json(fetch(url, reach, most)?, url),
        }
    }
}

fn fetch(url: &str, reach: &Reach, most: usize) -> Result<Vec<u8>, Unreadable> {
    let unreadable = |fault: &dyn ToString| Unreadable(format!("{url}: {}", fault.to_string()));
    let target = Target::parse(url, true).map_err(|fault| unreadable(&fault))?;
    let root = reach.tls_root.as_deref().map(input::bytes).transpose()?;
    let reach = outbound::Reach {
        allow_private: true,
        root,
    };
    let line = Outbound::new().and_then(|outbound| outbound.line(target, &reach));
    let line = line.map_err(|fault| unreadable(&fault))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|fault| unreadable(&fault))?;
    let answer = runtime.block_on(line.get(most, DEADLINE));
    let answer = answer.map_err(|fault| unreadable(&fault))?;
    match answer.status {
        200 => Ok(answer.body.into()),
        // Not followed, wherever it points.
        status => Err(unreadable(&format!("answered with {status}"))),
    }
}
