//! `attestd check-config`.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::{Configured, UNUSABLE_CONFIGURATION, output};
use crate::app::{database_url, master_key, policy, relaying, release_key, witnesses};
use crate::config::Config;

#[derive(Debug, Args)]
#[command(after_help = "Exit status: 0 usable, 64 not usable.")]
pub(super) struct Arguments {
    #[command(flatten)]
    configured: Configured,
    /// One JSON object instead of TOML.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    match check(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::fault("check-config", &error);
            ExitCode::from(UNUSABLE_CONFIGURATION)
        }
    }
}

fn check(arguments: &Arguments) -> anyhow::Result<()> {
    let Configured {
        config,
        insecure_http,
    } = &arguments.configured;
    let config = Config::load(config, *insecure_http)?;
    // Read to see that they are there and strong; never shown.
    master_key(&config)?;
    release_key(&config)?;
    relaying(&config)?;
    witnesses(&config)?;
    let database = without_password(&database_url(&config)?);
    let policy = policy(&config)?;
    if arguments.json {
        let view = json!({
            "configuration": config,
            "database": database,
            "policy_id": policy.id,
            "policy_waives": policy.waives(),
            "payload_identifier": config.payload_identifier(),
            "master_key": "[secret]",
        });
        output::line(view.to_string());
    } else {
        output::line(toml::to_string_pretty(&config)?);
        output::line(format!("# database: {database}"));
        output::line(format!("# policy: {}", policy.id));
        if !policy.waives().is_empty() {
            output::line(format!(
                "# it does not demand: {}",
                policy.waives().join(", ")
            ));
        }
        output::line(format!(
            "# payload identifiers begin with: {}",
            config.payload_identifier()
        ));
        output::line("# master key: found, not shown");
    }
    Ok(())
}

fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return "[unreadable]".to_owned();
    };
    match rest.split_once('@') {
        Some((user, rest)) => {
            let user = user.split(':').next().unwrap_or_default();
            format!(
                "{scheme}://{user}@{}",
                rest.split('?').next().unwrap_or_default()
            )
        }
        None => format!("{scheme}://{}", rest.split('?').next().unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_shown() {
        let shown = without_password("postgres://attestd:canary@db:5432/attestd?password=canary");
        assert_eq!(shown, "postgres://attestd@db:5432/attestd");
    }
}
