//! The command line of the simulator.

mod demo;
mod listen;
mod server;
mod storm;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use attestd_sim::apns::{PushBudget, PushSeen};
use attestd_sim::{
    Fleet, FleetPlan, IdentityKind, Lie, Mac, MacKind, MacSpec, MacStep, World, WorldFiles,
    WorldOptions,
};
use clap::{Args, Parser, Subcommand, ValueEnum};
use serde_json::json;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

/// The outside world of an MDM server: virtual Macs, Apple's push service, Apple's attestation.
///
/// Everything speaks the real protocols over the wire, under certificate authorities that call
/// themselves SIMULATED. Configure the server under test with the files a world writes:
///
///   apns-root.pem          root of the push service's TLS certificate
///   push-cert.pem, push-key.pem   the MDM push certificate; its UID is the topic
///   attestation-root.pem   the root to pin instead of Apple's
///   adopted-ca.pem         a former server's device CA, for servers that adopt its Macs
#[derive(Debug, Parser)]
#[command(name = "attestd-sim", version, verbatim_doc_comment)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start Apple's doubles, write their files, and tell what servers push.
    ///
    /// Push tokens live in the process of their Macs: a world alone knows none and answers 400
    /// BadDeviceToken. To run Macs, use `macs --with-world`.
    ///
    /// Example: attestd-sim world --dir ./world --apns-port 2197
    World(WorldArgs),
    /// Enroll Macs at a server and let them answer it.
    ///
    /// Each Mac asks POST {server}/v1/enroll for a profile, saying its serial number, macOS version
    /// and hardware (and only the serial number where the server refuses more), installs it (an
    /// identity by ACME or SCEP as the profile says, Authenticate, TokenUpdate), waits for pushes
    /// and answers commands.
    ///
    /// Example: attestd-sim macs --server https://mdm.example.org --count 3 --poll 30
    ///
    /// Example: attestd-sim macs --with-world ./world --server https://localhost:8443
    /// --trust server-root.pem --count 12 --liars --json
    ///
    /// Example: attestd-sim macs --with-world ./world --server https://localhost:8443
    /// --trust server-root.pem --count 4 --kind apple-silicon,intel,virtual-machine,macos-13
    Macs(MacsArgs),
    /// Show a whole posture round on this machine: a server, Apple's doubles and twelve Macs, four
    /// of which must not be trusted. Exit status 0 only if each got the verdict it deserves.
    ///
    /// Example: attestd-sim demo --attestd target/debug/attestd --macs 12
    Demo(demo::DemoArgs),
    /// Let a whole fleet come at once, twice, to a server of default settings: all Macs enroll while
    /// Apple's push service is out, and every provider starts anew after a release. Exit status 0
    /// only if each Mac was proved in time, none lost its level, and every limit was kept.
    ///
    /// Example: attestd-sim storm --attestd target/release/attestd --macs 2000
    Storm(storm::StormArgs),
    /// Many listen to a server's events while providers are challenged, and it is measured how soon each
    /// hears of what happens. Nothing leaves this machine.
    ///
    /// Example: attestd-sim listen --attestd target/release/attestd --listeners 300
    Listen(listen::ListenArgs),
}

#[derive(Debug, Args)]
struct WorldArgs {
    /// Keep the authorities here, and write the server's files here. The same folder is the same
    /// world again.
    #[arg(long)]
    dir: PathBuf,
    #[command(flatten)]
    apns: ApnsArgs,
}

#[derive(Debug, Args)]
struct ApnsArgs {
    /// Loopback port of the push service; 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    apns_port: u16,
    /// Topic of the push certificate, com.apple.mgmt.External.<uuid>; by default the folder's, or a
    /// new one.
    #[arg(long)]
    topic: Option<String>,
    /// Answer 429 to more than so many pushes per token and hour. Apple publishes no number.
    #[arg(long)]
    pushes_per_hour: Option<usize>,
}

#[derive(Debug, Args)]
struct MacsArgs {
    /// Base URL of the server under test.
    #[arg(long)]
    server: String,
    /// How many Macs.
    #[arg(long, default_value_t = 1)]
    count: usize,
    /// Start the world of this folder in the same process (see `world`), so that the server
    /// configured with its files can push. Without it the world is a passing one whose push service
    /// no server knows: use --poll.
    #[arg(long, value_name = "DIR")]
    with_world: Option<PathBuf>,
    /// Each Mac also connects by itself this often, for servers that cannot push.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    poll: Option<u64>,
    #[command(flatten)]
    apns: ApnsArgs,
    /// What the Macs are, in turn, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KIND")]
    kind: Vec<MacKind>,
    /// Ask the server for this kind of identity; by default it chooses.
    #[arg(long, value_enum)]
    identity: Option<IdentityKind>,
    /// Deceive the ACME server, all Macs alike; the name says what is wrong.
    #[arg(long, value_enum, conflicts_with = "liars")]
    acme_lie: Option<AcmeLie>,
    /// Mix in Macs a server must not trust: SIP off and denied, Reduced Security, another Mac's
    /// attestation, a foreign signature. Four of each six.
    #[arg(long)]
    liars: bool,
    /// Attestations take 2 to 20 seconds, as Apple's do.
    #[arg(long)]
    real_latency: bool,
    /// Trust the roots in this PEM file for the server's TLS, instead of the system's.
    #[arg(long, value_name = "PEM")]
    trust: Vec<PathBuf>,
    /// Accept http URLs to this machine. Real Macs never do.
    #[arg(long)]
    allow_http_loopback: bool,
    /// Stop after so many seconds; by default at Ctrl-C.
    #[arg(long = "for", value_name = "SECONDS")]
    seconds: Option<u64>,
    /// One JSON object per event.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum AcmeLie {
    /// Another Mac's genuine statement, for the right token and key
    Mac,
    /// A statement for another token
    Token,
    /// One key in the statement, another in the certificate request
    Key,
}

impl AcmeLie {
    fn lie(self) -> Result<Lie> {
        Ok(match self {
            Self::Mac => {
                let other = MacSpec::random()?.attested_state();
                Lie::EnrollsWithAnothersStatement(Box::new(other))
            }
            Self::Token => Lie::AttestsAnotherToken,
            Self::Key => Lie::FinalizesWithAnotherKey,
        })
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter =
        tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let outcome = match CommandLine::parse().command {
        Command::World(args) => run_world(args).await,
        Command::Macs(args) => run_macs(args).await,
        Command::Demo(args) => demo::run(args).await,
        Command::Storm(args) => storm::run(args).await,
        Command::Listen(args) => listen::run(args).await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where standard error is closed, the exit status still tells.
            let _ = writeln!(std::io::stderr(), "attestd-sim: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run_world(args: WorldArgs) -> Result<()> {
    let world = start(&args.dir, args.apns).await?;
    say(&started(&world, &args.dir))?;
    let mut pushes = world.apns().watch();
    loop {
        tokio::select! {
            stop = tokio::signal::ctrl_c() => return stop.context("waiting for Ctrl-C"),
            push = next(&mut pushes) => match push {
                Some(push) => say(&push_line(&push))?,
                None => return Ok(()),
            },
        }
    }
}

async fn run_macs(args: MacsArgs) -> Result<()> {
    let passing = tempfile::tempdir().context("making a temporary folder")?;
    let folder = args.with_world.as_deref().unwrap_or(passing.path());
    let world = start(folder, args.apns).await?;
    for path in &args.trust {
        world.trust(&std::fs::read(path).with_context(|| format!("reading {}", path.display()))?);
    }
    if args.json {
        say(&started(&world, folder))?;
    }
    let mut events = world.events();
    let as_json = args.json;
    let printer = tokio::spawn(async move {
        while let Some(event) = next(&mut events).await {
            let said = if as_json {
                say(&json!(event))
            } else {
                tell(&event.serial, &event.step)
            };
            if said.is_err() {
                // Nobody reads any more.
                return;
            }
        }
    });
    let plan = FleetPlan {
        count: args.count,
        kinds: args.kind,
        asks_for: args.identity,
        lie: args.acme_lie.map(AcmeLie::lie).transpose()?,
        liars: args.liars,
        real_latency: args.real_latency,
        allow_http_loopback: args.allow_http_loopback,
        ..FleetPlan::default()
    };
    let fleet = Fleet::enroll(&world, &plan, &args.server).await?;
    let polls: Vec<_> = match args.poll {
        None => Vec::new(),
        Some(seconds) => {
            let macs = fleet.macs.iter().cloned();
            macs.map(|mac| tokio::spawn(poll(mac, Duration::from_secs(seconds))))
                .collect()
        }
    };
    let deadline = async {
        match args.seconds {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        stop = tokio::signal::ctrl_c() => stop.context("waiting for Ctrl-C")?,
        () = deadline => (),
    }
    polls.iter().for_each(tokio::task::JoinHandle::abort);
    printer.abort();
    let summary = fleet.summary();
    if as_json {
        say(&json!({ "step": "summary", "summary": summary }))?;
    } else {
        line(&format!(
            "{} Macs, {} enrolled; {} commands, {} replies acknowledged",
            summary.macs, summary.enrolled, summary.asked, summary.acknowledged
        ))?;
    }
    anyhow::ensure!(
        fleet.living() == args.count,
        "{} of {} Macs did not enroll",
        args.count - fleet.living(),
        args.count
    );
    Ok(())
}

/// Connects again and again; a session that fails has said why as an event.
async fn poll(mac: Mac, every: Duration) {
    while mac.is_enrolled() {
        let _ = mac.connect().await;
        tokio::time::sleep(every).await;
    }
}

async fn start(folder: &Path, args: ApnsArgs) -> Result<World> {
    let options = WorldOptions {
        topic: args.topic,
        apns_port: args.apns_port,
        push_budget: args.pushes_per_hour.map(|count| PushBudget {
            count,
            window_ms: 3_600_000,
        }),
        folder: Some(folder.to_owned()),
        ..WorldOptions::default()
    };
    World::start(options)
        .await
        .with_context(|| format!("starting the world in {}", folder.display()))
}

/// The next of a stream of broadcasts, over gaps; `None` at its end.
async fn next<T: Clone>(from: &mut Receiver<T>) -> Option<T> {
    loop {
        match from.recv().await {
            Ok(item) => return Some(item),
            Err(RecvError::Lagged(missed)) => {
                tracing::warn!(missed, "events were too many to print")
            }
            Err(RecvError::Closed) => return None,
        }
    }
}

fn started(world: &World, folder: &Path) -> serde_json::Value {
    let files = WorldFiles::within(folder);
    json!({
        "step": "world_started",
        "apns_url": world.apns().url(),
        "topic": world.topic(),
        "apns_root": files.apns_root,
        "push_certificate": files.push_certificate,
        "push_key": files.push_key,
        "attestation_root": files.attestation_root,
        "adopted_ca": files.adopted_ca,
    })
}

fn push_line(push: &PushSeen) -> serde_json::Value {
    json!({ "step": "push", "at_ms": push.at_ms, "token": push.token, "status": push.status })
}

/// One event for people.
fn tell(serial: &str, step: &MacStep) -> Result<()> {
    let text = match step {
        MacStep::ProfileReceived { signed: true } => "got a signed profile".to_owned(),
        MacStep::ProfileReceived { signed: false } => "got a profile that is not signed".to_owned(),
        MacStep::IdentityIssued { certificate, kind } => {
            let from = match kind {
                Some(kind) => format!("by {}", kind.name()),
                None => "of a former server".to_owned(),
            };
            let short = certificate.get(..16).unwrap_or(certificate);
            format!("got identity {short} {from}")
        }
        MacStep::Authenticated => "was let in".to_owned(),
        MacStep::Enrolled => "is enrolled".to_owned(),
        MacStep::EnrollmentFailed { why } => format!("did NOT enroll: {why}"),
        MacStep::Pushed => "was pushed".to_owned(),
        MacStep::PushIgnored => "ignored a push with a foreign PushMagic".to_owned(),
        MacStep::Asked { request_type, .. } => format!("was asked for {request_type}"),
        MacStep::Answered {
            request_type,
            status,
            ..
        } => format!("answered {request_type}: {status}"),
        MacStep::SessionEnded { answered } => format!("ended a session after {answered} answers"),
        MacStep::SessionFailed { why } => format!("lost its session: {why}"),
        MacStep::Unenrolled { why } => format!("is no longer enrolled: {why}"),
    };
    line(&format!("{serial} {text}"))
}

fn say(value: &serde_json::Value) -> Result<()> {
    line(&value.to_string())
}

fn line(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")
        .and_then(|()| out.flush())
        .context("writing to standard output")
}
