//! `attestd push-cert`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::json;

use super::store::with_desk;
use super::{Configured, output};
use crate::flows::rotate_push_certificate::install;
use crate::store::{PushCertificate, Standing};
use crate::time::Timestamp;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Install a push certificate from identity.apple.com/pushcert. Running servers take it into
    /// use within seconds. A certificate with another topic than the fleet's is refused.
    Install {
        #[command(flatten)]
        configured: Configured,
        /// The certificate, PEM.
        #[arg(long, value_name = "FILE")]
        certificate: PathBuf,
        /// Its private key, PEM, not encrypted; kept sealed from then on.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        #[arg(long)]
        json: bool,
    },
    /// Show the push certificates and how long they last.
    Status {
        #[command(flatten)]
        configured: Configured,
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    match &arguments.what {
        What::Install {
            configured,
            certificate,
            key,
            json,
        } => {
            let read = |path: &PathBuf| {
                std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))
            };
            let (certificate, key) = (read(certificate)?, read(key)?);
            with_desk(configured, async |desk| {
                let entropy = desk.entropy.as_ref();
                let installed = install(&desk.store, entropy, &certificate, &key, desk.now).await?;
                let object = describe(&installed, desk.now);
                output::result(
                    *json,
                    &object,
                    &[
                        format!("installed for topic {}", installed.topic),
                        format!(
                            "valid until {} ({} days); renew it in time, under the same Apple Account",
                            installed.not_after,
                            days_left(&installed, desk.now)
                        ),
                    ],
                );
                Ok(())
            })
        }
        What::Status { configured, json } => with_desk(configured, async |desk| {
            let certificates = desk.store.read().await?.push_certificates().await?;
            let list: Vec<_> = certificates
                .iter()
                .map(|certificate| describe(certificate, desk.now))
                .collect();
            let mut lines: Vec<_> = certificates
                .iter()
                .map(|certificate| {
                    format!(
                        "{} {} until {} ({} days left), installed {}",
                        certificate.standing.as_str(),
                        certificate.topic,
                        certificate.not_after,
                        days_left(certificate, desk.now),
                        certificate.installed_at
                    )
                })
                .collect();
            if lines.is_empty() {
                lines.push("no push certificate is installed: no Mac can enrol or be woken".into());
            }
            output::result(*json, &json!({ "push_certificates": list }), &lines);
            Ok(())
        }),
    }
}

fn days_left(certificate: &PushCertificate, now: Timestamp) -> u64 {
    certificate.not_after.since(now).as_secs() / 86_400
}

fn describe(certificate: &PushCertificate, now: Timestamp) -> serde_json::Value {
    json!({
        "push_certificate_id": certificate.push_certificate_id,
        "topic": certificate.topic,
        "state": certificate.standing.as_str(),
        "active": certificate.standing == Standing::Active,
        "sha256": certificate.sha256,
        "not_before": certificate.not_before,
        "not_after": certificate.not_after,
        "days_left": days_left(certificate, now),
        "installed_at": certificate.installed_at,
    })
}
