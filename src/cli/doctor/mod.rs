//! `attestd doctor`.

mod finding;
mod here;
mod stored;

use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use comfy_table::Table;
use serde_json::json;

use self::finding::{Findings, Standing};
use super::{Configured, UNUSABLE_CONFIGURATION, output};
use crate::app::{master_key, policy, settings};
use crate::config::Config;
use crate::entropy::OsEntropy;
use crate::keys::MasterSeal;
use crate::time::{Clock as _, SystemClock, Timestamp};

/// The exit status where something will not work for ever.
const WARNING: u8 = 3;

/// Look whether the service can work on this machine, and say what is to be done where it cannot: its
/// configuration, keys, TLS certificate as Macs judge it, disk, database, clock, push certificates, and the
/// way to APNs. Nothing is changed, and a server may run meanwhile.
#[derive(Debug, Args)]
#[command(after_help = "\
Each check has seconds only. What cannot be looked at is said to be `not checked`, with the reason.

Exit status: 0 nothing is wrong; 3 something needs to be done soon; 1 something is wrong; 64 unusable
configuration.")]
pub(super) struct Doctor {
    #[command(flatten)]
    configured: Configured,
    /// Judge certificates at this time instead of now.
    #[arg(long, value_name = "RFC3339", value_parser = time)]
    at: Option<Timestamp>,
    #[arg(long)]
    json: bool,
}

impl Doctor {
    pub(super) fn run(&self) -> ExitCode {
        let mut findings = Findings::default();
        let now = self.at.unwrap_or_else(|| SystemClock.now());
        let usable = self.examine(&mut findings, now);
        self.tell(&findings);
        match (usable, findings.worst()) {
            (false, _) => ExitCode::from(UNUSABLE_CONFIGURATION),
            (_, Standing::Fault) => ExitCode::FAILURE,
            (_, Standing::Warning) => ExitCode::from(WARNING),
            (_, Standing::Ok | Standing::NotChecked) => ExitCode::SUCCESS,
        }
    }

    /// False where the configuration is of no use, so that nothing else can be looked at.
    fn examine(&self, findings: &mut Findings, now: Timestamp) -> bool {
        let Configured {
            config,
            insecure_http,
        } = &self.configured;
        let read = Config::load(config, *insecure_http)
            .map_err(anyhow::Error::from)
            .and_then(|config| {
                let policy = policy(&config)?;
                settings(&config, &policy)?;
                Ok((config, policy))
            });
        let config = match read {
            Ok((config, policy)) => {
                findings.ok("configuration", format!("usable, policy {}", policy.id));
                config
            }
            Err(error) => {
                let todo = "change it; `attestd check-config` shows how it is understood";
                findings.fault("configuration", format!("{error:#}"), todo);
                return false;
            }
        };
        let seal = match master_key(&config) {
            Ok(key) => {
                findings.ok("master_key", "found");
                Some(Arc::new(MasterSeal::new(
                    &key,
                    Arc::new(OsEntropy::default()),
                )))
            }
            Err(error) => {
                let todo = "give it the file that the service was made with, mode 0600";
                findings.fault("master_key", format!("{error:#}"), todo);
                None
            }
        };
        here::disk(&config, findings);
        here::keys(&config, seal.as_ref(), findings, now);
        here::tls(&config, findings, now);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        match runtime {
            Ok(runtime) => runtime.block_on(async {
                here::apns(&config, findings).await;
                here::issuer(&config, findings).await;
                stored::examine(&config, seal, findings, now).await;
            }),
            Err(error) => {
                let todo = "see what limits this process has";
                findings.fault("process", format!("{error}"), todo);
            }
        }
        true
    }

    fn tell(&self, findings: &Findings) {
        let worst = findings.worst();
        if self.json {
            let object = json!({ "worst": worst, "checks": findings.0 });
            output::line(object.to_string());
            return;
        }
        let mut table = Table::new();
        table.set_header(["check", "how it stands", "what", "do"]);
        for finding in &findings.0 {
            table.add_row([
                finding.check,
                finding.standing.as_str(),
                &finding.found,
                &finding.todo,
            ]);
        }
        output::line(table.to_string());
    }
}

/// Whole days from one time to another.
fn days(from: Timestamp, to: Timestamp) -> u64 {
    to.since(from).as_secs() / (24 * 60 * 60)
}

fn time(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text).map_err(|error| error.to_string())
}
