//! `attestd release`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use comfy_table::Table;
use serde_json::json;

use super::input::whole;
use super::store::with_desk;
use super::{Configured, output};
use crate::flows::release::{Which, register, registry, revoke};
use crate::provider::release::{MAX_REGISTRATION, Registration};
use crate::provider::{BinaryHash, Platform, Version};
use crate::publication::release_v1::ReleaseV1;

#[derive(Debug, Args)]
#[command(after_help = "\
Works beside a running server, which takes a change into account at once. The history keeps who did
what, and everything that was ever registered is public at GET /v1/releases.")]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Register a program: sessions that run it may be routed to.
    Add {
        #[command(flatten)]
        configured: Configured,
        /// A registration as POST /internal/v1/releases takes it (JSON; - is standard input).
        #[arg(long, value_name = "FILE", conflicts_with_all = ["binary_hash", "version", "url"])]
        file: Option<PathBuf>,
        /// SHA-256 of the program, 64 lower-case hexadecimal digits.
        #[arg(long, value_name = "HEX", required_unless_present = "file")]
        binary_hash: Option<String>,
        /// Its semantic version.
        #[arg(long, required_unless_present = "file")]
        version: Option<String>,
        /// What it runs on.
        #[arg(long, default_value_t, value_parser = platform, conflicts_with = "file")]
        platform: Platform,
        /// Where it is downloaded from, https.
        #[arg(long)]
        url: Option<String>,
        #[arg(long)]
        json: bool,
    },
    /// Withdraw a program for good: sessions that run it are not routed to from now on. Nothing else
    /// changes for their Macs.
    Revoke {
        #[command(flatten)]
        configured: Configured,
        /// The program's SHA-256, or a version: every program of it.
        #[arg(value_name = "HASH|VERSION")]
        which: String,
        /// What it runs on.
        #[arg(long, default_value_t, value_parser = platform)]
        platform: Platform,
        /// Why, in your words. It is published.
        #[arg(long)]
        reason: String,
        #[arg(long)]
        json: bool,
    },
    /// List all releases, withdrawn ones among them, and what was done to them.
    List {
        #[command(flatten)]
        configured: Configured,
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    match &arguments.what {
        What::Add {
            configured,
            file,
            binary_hash,
            version,
            platform,
            url,
            json,
        } => {
            let body = match file {
                Some(path) => whole(path, MAX_REGISTRATION)?,
                None => json!({
                    "binary_hash": binary_hash, "version": version, "platform": platform, "url": url,
                })
                .to_string()
                .into_bytes(),
            };
            add(configured, &Registration::parse(&body)?, *json)
        }
        What::Revoke {
            configured,
            which,
            platform,
            reason,
            json,
        } => with_desk(configured, async |desk| {
            let which = named(which)?;
            let done = revoke(&desk.store, &which, platform, reason, &desk.who, desk.now).await??;
            let lines: Vec<_> = done
                .iter()
                .map(|done| {
                    let release = &done.release;
                    let what = if done.changed {
                        "is withdrawn"
                    } else {
                        "was withdrawn before"
                    };
                    format!("{} {} {what}", release.version, release.binary_hash)
                })
                .collect();
            let releases: Vec<_> = done
                .iter()
                .map(|done| ReleaseV1::new(&done.release))
                .collect();
            let object = json!({
                "status": "release_revoked",
                "changed": done.iter().any(|done| done.changed),
                "releases": releases,
            });
            output::result(*json, &object, &lines);
            Ok(())
        }),
        What::List { configured, json } => list(configured, *json),
    }
}

fn add(configured: &Configured, registration: &Registration, json: bool) -> anyhow::Result<()> {
    with_desk(configured, async |desk| {
        let done = register(&desk.store, registration, &desk.who, desk.now).await??;
        let release = &done.release;
        let what = if done.changed {
            "is registered"
        } else {
            "was registered before"
        };
        let object = json!({
            "status": "release_registered",
            "changed": done.changed,
            "release": ReleaseV1::new(release),
        });
        let line = format!(
            "{} for {} {what}: {}",
            release.version, release.platform, release.binary_hash
        );
        output::result(json, &object, &[line]);
        Ok(())
    })
}

fn list(configured: &Configured, json: bool) -> anyhow::Result<()> {
    with_desk(configured, async |desk| {
        let registry = registry(&desk.store).await?;
        if json {
            let releases: Vec<_> = registry.releases.iter().map(ReleaseV1::new).collect();
            let object = json!({ "releases": releases, "history": registry.history });
            output::line(object.to_string());
            return Ok(());
        }
        let mut table = Table::new();
        table.set_header([
            "version",
            "platform",
            "binary hash",
            "registered",
            "standing",
        ]);
        for release in &registry.releases {
            let standing = match &release.revoked {
                None => "active".to_owned(),
                Some(revoked) => format!("revoked {}: {}", revoked.at, revoked.reason),
            };
            table.add_row([
                release.version.to_string(),
                release.platform.to_string(),
                release.binary_hash.to_string(),
                release.registered_at.to_string(),
                standing,
            ]);
        }
        output::line(table.to_string());
        for entry in &registry.history {
            output::line(format!(
                "{} {} {} by {}{}{}",
                entry.at,
                entry.version,
                entry.action.as_str(),
                entry.who,
                if entry.why.is_empty() { "" } else { ": " },
                entry.why
            ));
        }
        Ok(())
    })
}

fn named(text: &str) -> anyhow::Result<Which> {
    if let Some(hash) = BinaryHash::parse(text) {
        return Ok(Which::Hash(hash));
    }
    Version::parse(text).map(Which::Version).with_context(|| {
        format!("{text} is neither 64 lower-case hexadecimal digits nor a version")
    })
}

fn platform(text: &str) -> Result<Platform, String> {
    Platform::parse(text).ok_or_else(|| "a platform is a name such as macos-arm64".to_owned())
}
