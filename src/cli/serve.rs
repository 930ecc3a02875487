//! `attestd serve`.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Configured, UNUSABLE_CONFIGURATION, output};
use crate::app::App;
use crate::config::Config;
use crate::telemetry::start_logging;

#[derive(Debug, Args)]
#[command(after_help = "\
Refuses to start on unknown settings, missing or weak secrets, and a base URL without https.
Stops on SIGTERM or Ctrl-C: requests in flight end, nothing acknowledged is lost.
Exit status: 0 stopped as asked, 1 could not start or go on, 64 unusable configuration.")]
pub(super) struct Arguments {
    #[command(flatten)]
    configured: Configured,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let Configured {
        config,
        insecure_http,
    } = &arguments.configured;
    let config = match Config::load(config, *insecure_http) {
        Ok(config) => config,
        Err(error) => {
            output::fault("serve", &error.into());
            return ExitCode::from(UNUSABLE_CONFIGURATION);
        }
    };
    output::exit("serve", serve(&config))
}

/// No core dump of what is in memory. One octet rather than none: for a program that takes dumps the limit
/// does not count, but at exactly 1 the kernel gives it none (Linux, `fs/coredump.c`), and a file of one octet it
/// does not begin.
fn leave_no_core_dump() -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Core);
    let none = limit.maximum.map_or(1, |most| most.min(1));
    let limit = Rlimit {
        current: Some(none),
        maximum: Some(none),
    };
    setrlimit(Resource::Core, limit).context("core dumps cannot be switched off")
}

/// As many open files as the system lets it have: the usual 1,024 are a tenth of the connections it takes, and
/// whoever holds those open would keep the database shut.
fn have_every_file_there_may_be() -> anyhow::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).context("the limit of open files cannot be raised")
}

fn serve(config: &Config) -> anyhow::Result<()> {
    leave_no_core_dump()?;
    have_every_file_there_may_be()?;
    start_logging(&config.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let app = App::start(config).await?;
        let (public, internal) = app.addresses()?;
        tracing::info!(%public, %internal, base_url = config.base_url, "serving");
        let stop = CancellationToken::new();
        let stopper = stop.clone();
        let signals = tokio::spawn(async move {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            tracing::info!("stopping");
            stopper.cancel();
        });
        app.serve(stop).await;
        signals.abort();
        tracing::info!("stopped");
        Ok(())
    })
}
