//! `attestd-sim demo`: a server, Apple's doubles and a fleet on this machine, and what becomes of
//! them: most Macs are honest, four are not, each in its own way. In the end anybody checks what was said.

mod checks;
mod sessions;
mod table;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use attestd_sim::provider::Provider;
use attestd_sim::{Coordinator, CoordinatorOptions, Fleet, Lie, MacEvent, MacSpec};
use clap::Args;
use serde_json::{Value, json};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::TryRecvError;

use self::checks::Checks;
use self::sessions::{Session, Sessions};
use self::table::{Row, Table};
use crate::server::Server;

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// The server's binary.
    #[arg(long, value_name = "FILE", default_value = "target/debug/attestd")]
    attestd: PathBuf,
    /// The second verifier, which checks what the demo published in the end.
    #[arg(long, value_name = "FILE", default_value = "docs/verify/response.py")]
    verifier: PathBuf,
    /// How many Macs. The last four lie, or are in a bad state; with fewer than five, fewer are.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u16).range(1..=500))]
    macs: u16,
    /// Print one JSON summary at the end instead of a table.
    #[arg(long)]
    json: bool,
    /// Keep everything up until Ctrl-C.
    #[arg(long)]
    stay: bool,
    /// Where to keep the demo's files; a temporary folder when not given.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
}

/// How long all Macs together may take to get their verdicts.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long the Macs may take to tell of their last step.
const TELLING: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// What a Mac is, and so what must be said of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Character {
    Honest,
    SipOffButClaimsOn,
    ReducedSecurity,
    RelaysAnotherMac,
    SignsWithWrongIdentity,
}

impl Character {
    fn of(index: usize, count: usize) -> Self {
        let liars = [
            Self::SipOffButClaimsOn,
            Self::ReducedSecurity,
            Self::RelaysAnotherMac,
            Self::SignsWithWrongIdentity,
        ];
        let honest = count.saturating_sub(liars.len()).max(1);
        index
            .checked_sub(honest)
            .and_then(|liar| liars.get(liar))
            .copied()
            .unwrap_or(Self::Honest)
    }

    fn spec(self) -> Result<MacSpec> {
        let spec = MacSpec::random()?;
        Ok(match self {
            Self::Honest => spec,
            Self::SipOffButClaimsOn => spec.lying(Lie::SipOffButClaimsOn),
            Self::ReducedSecurity => spec.with_reduced_security(),
            Self::RelaysAnotherMac => {
                let other = MacSpec::random()?.attested_state();
                spec.lying(Lie::RelaysAnotherMac(Box::new(other)))
            }
            Self::SignsWithWrongIdentity => spec.lying(Lie::SignsWithWrongIdentity(None)),
        })
    }

    /// In the table.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Honest => "honest",
            Self::SipOffButClaimsOn => "SIP off, claims on",
            Self::ReducedSecurity => "Reduced Security",
            Self::RelaysAnotherMac => "relays another Mac",
            Self::SignsWithWrongIdentity => "foreign signature",
        }
    }

    /// The verdict it deserves and the first reason for it.
    pub(crate) fn deserves(self) -> (&'static str, &'static str) {
        match self {
            Self::Honest => ("affirming", "provider_not_bound"),
            Self::SipOffButClaimsOn => ("contraindicated", "sip_disabled"),
            Self::ReducedSecurity => ("contraindicated", "secure_boot_reduced"),
            Self::RelaysAnotherMac => ("contraindicated", "serial_mismatch"),
            Self::SignsWithWrongIdentity => ("unknown", "identity_mismatch"),
        }
    }

    fn is_satisfied(self, verdict: &str, reasons: &[String]) -> bool {
        let (deserved, first) = self.deserves();
        let conflict = reasons.iter().any(|reason| reason == "evidence_conflict");
        verdict == deserved
            && reasons.first().is_some_and(|reason| reason == first)
            && (self != Self::SipOffButClaimsOn || conflict)
    }
}

pub(crate) async fn run(args: DemoArgs) -> Result<()> {
    let temporary = tempfile::tempdir().context("making a temporary folder")?;
    let folder = args
        .folder
        .clone()
        .unwrap_or_else(|| temporary.path().to_owned());
    let (world, server) = Server::with_world(&args.attestd, &folder, None).await?;
    let count = usize::from(args.macs);
    let characters: Vec<_> = (0..count)
        .map(|index| Character::of(index, count))
        .collect();
    let mut specs = characters
        .iter()
        .map(|one| one.spec())
        .collect::<Result<Vec<_>>>()?;
    let mut sessions = Vec::new();
    for (spec, character) in specs.iter_mut().zip(&characters) {
        let provider = Provider::new(&spec.serial, world.clock())?;
        sessions.push(Session::new(&spec.serial, *character, provider.clone()));
        spec.provider = Some(Box::new(provider));
    }
    let rows = specs
        .iter()
        .zip(&characters)
        .map(|(spec, one)| Row::new(&spec.serial, *one));
    let mut table = Table::new(rows.collect(), !args.json);
    let mut events = world.events();
    table.show()?;

    let enrolling = tokio::spawn({
        let (world, url) = (world.clone(), server.base_url.clone());
        async move { Fleet::enroll_all(&world, specs, 8, &url).await }
    });
    let started = Instant::now();
    while !table.is_satisfied() && started.elapsed() < PATIENCE && server.is_running() {
        tokio::time::sleep(LOOK_AGAIN).await;
        for row in table.unsettled() {
            if let Some(posture) = server.posture(&row.serial).await? {
                row.judged(&posture);
            }
        }
        follow(&mut events, &mut table);
        table.show()?;
    }
    let took = started.elapsed();
    let _fleet = enrolling.await.context("enrolling")??;
    // What the last Macs tell of themselves may come after the server's verdict.
    let told = Instant::now();
    while !table.is_told() && told.elapsed() < TELLING && server.is_running() {
        tokio::time::sleep(LOOK_AGAIN).await;
        follow(&mut events, &mut table);
    }
    // Every posture once more: what was right must have stayed right.
    for row in table.rows() {
        if let Some(posture) = server.posture(&row.serial).await? {
            row.judged(&posture);
        }
    }
    table.show_last()?;
    let coordinator = Coordinator::start(CoordinatorOptions {
        api: server.api.clone(),
        public_url: server.base_url.clone(),
        public_root: Some(server.tls_root.clone()),
        clock: world.clock().clone(),
        port: 0,
    })
    .await
    .context("starting the coordinator")?;
    let mut sessions = Sessions::open(&coordinator, sessions).await?;
    let routed_right = sessions.are_right();
    if !args.json {
        crate::line("\nEach Mac's provider software is registered and answers a challenge:\n")?;
        crate::line(&sessions.grid())?;
    }
    // While even the only Mac of a small demo is routed to.
    let checks = Checks::run(&world, &server, &coordinator, &args.verifier, &folder).await?;
    let switched = Instant::now();
    let (fallen, left) = sessions.switch_sip_off(&coordinator).await?;
    let left_after = switched.elapsed();
    let acts = Acts {
        sessions: sessions.summary(),
        fallen,
        left_after,
        satisfied: table.is_satisfied() && routed_right && left && checks.are_right(),
        checks,
    };
    finish(&args, &server, &table, &acts, took)?;
    if args.stay {
        if !args.json {
            crate::line("Everything stays up. Ctrl-C ends it.")?;
        }
        tokio::signal::ctrl_c()
            .await
            .context("waiting for Ctrl-C")?;
    }
    server.stop().await?;
    ensure!(
        table.is_satisfied(),
        "not every Mac got the verdict it deserves"
    );
    ensure!(
        routed_right,
        "not only honest Macs are routed to, or not all"
    );
    ensure!(left, "SIP went off, and routing did not follow as it must");
    acts.checks.demand()
}

fn follow(events: &mut Receiver<MacEvent>, table: &mut Table) {
    loop {
        match events.try_recv() {
            Ok(event) => table.happened(&event),
            Err(TryRecvError::Lagged(_)) => {}
            Err(TryRecvError::Empty | TryRecvError::Closed) => return,
        }
    }
}

/// What became of the provider sessions.
#[derive(Debug)]
struct Acts {
    sessions: Vec<Value>,
    /// The session whose Mac had SIP switched off.
    fallen: Value,
    left_after: Duration,
    /// What anybody can check of what was published.
    checks: Checks,
    /// Everything was as it must be, verdicts included.
    satisfied: bool,
}

fn finish(
    args: &DemoArgs,
    server: &Server,
    table: &Table,
    acts: &Acts,
    took: Duration,
) -> Result<()> {
    let example = table.example();
    if args.json {
        let summary: Value = json!({
            "satisfied": acts.satisfied,
            "seconds": took.as_secs_f64(),
            "base_url": server.base_url,
            "internal_url": server.internal_url,
            "macs": table.summary(),
            "sessions": acts.sessions,
            "checks": acts.checks.summary(),
            "sip_off": { "session": acts.fallen, "seconds": acts.left_after.as_secs_f64() },
        });
        return crate::say(&summary);
    }
    let verdict = if table.is_satisfied() {
        "Every Mac got the verdict it deserves"
    } else {
        "NOT every Mac got the verdict it deserves"
    };
    crate::line(&format!("\n{verdict}, after {:.1} s.", took.as_secs_f64()))?;
    crate::line(&format!(
        "On {} SIP is switched off, and its provider says so when it is challenged next: after {} ms \
         it is routed to no more ({}), and comes back only with a new attestation of Apple's.",
        acts.fallen["serial_number"].as_str().unwrap_or_default(),
        acts.left_after.as_millis(),
        acts.fallen["reasons"][0].as_str().unwrap_or_default(),
    ))?;
    crate::line("Apple and the Macs are simulated: the postures say \"anchor\": \"custom\".\n")?;
    crate::line(&acts.checks.text()?)?;
    crate::line("The same posture from the internal API (--stay keeps it up):\n")?;
    for command in server.curl_lines(example) {
        crate::line(&format!("  {command}"))?;
    }
    let page = format!("{}/enroll", server.base_url);
    crate::line(&format!(
        "\nThe enrollment page, under a certificate of the demo's own: {page}"
    ))?;
    Ok(())
}
