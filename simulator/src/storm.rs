//! `attestd-sim storm`: a whole fleet comes all at once, twice, to a server of default settings.
//!
//! First every Mac enrolls while Apple's push service is out, so that all wait for their first proof
//! when pushes flow again. Then a release: every provider ends and comes back at the same moment.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use attestd_sim::apns::Fault;
use attestd_sim::{Fleet, MacSpec, Provider, World};
use clap::Args;
use futures_util::{StreamExt as _, TryStreamExt as _};
use serde_json::{Value, json};

use crate::server::Server;

#[derive(Debug, Args)]
pub(crate) struct StormArgs {
    /// The server's binary. An optimized one: the figures are about it.
    #[arg(long, value_name = "FILE", default_value = "target/release/attestd")]
    attestd: PathBuf,
    /// How many Macs.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    macs: u16,
    /// Print one JSON summary at the end instead of text.
    #[arg(long)]
    json: bool,
}

/// 99 of 100 Macs have their first proof this soon after pushes flow.
const FIRST_PROOF: Duration = Duration::from_secs(90);
/// How long is waited for what never comes.
const PATIENCE: Duration = Duration::from_secs(600);
/// The budget of one Mac within an hour, by the server's default.
const PUSHES_PER_HOUR: usize = 2;
/// `verification.queue` of the server's default.
const QUEUE: u64 = 4096;
/// Macs that enroll, and questions that are asked, at the same time.
const AT_ONCE: usize = 64;
/// Providers that come back at the same time.
const RECONNECT_AT_ONCE: usize = 512;

/// One Mac's provider, and what the server says of it.
#[derive(Debug)]
struct Session {
    serial: String,
    provider: Provider,
    binding: Value,
}

impl Session {
    fn id(&self, round: &str) -> String {
        format!("{round}-{}", self.serial)
    }

    fn path(&self, round: &str) -> String {
        format!("/internal/v1/bindings/{}", self.id(round))
    }

    /// Registers, is challenged and answers: what a coordinator does with whoever connects.
    async fn connect(mut self, server: &Server, round: &str) -> Result<Self> {
        let request = self.provider.binding_request(None)?;
        server.api.put(&self.path(round), &request).await?;
        server
            .api
            .challenge(&self.id(round), &self.provider)
            .await?;
        self.binding = server.api.get(&self.path(round)).await?;
        Ok(self)
    }

    fn is_hardware(&self) -> bool {
        self.binding["trust_level"] == json!("hardware")
    }

    fn is_routable(&self) -> bool {
        self.binding["routable"] == json!(true)
    }
}

/// What was seen.
#[derive(Debug, Default)]
struct Seen {
    enrolled_in: Duration,
    /// From when pushes flowed until each Mac was affirmed, the shortest first.
    first_proofs: Vec<Duration>,
    reconnected_in: Duration,
    routable: usize,
    /// Those that were not of the level they had.
    fallen: usize,
    /// Accepted by the push service, for the Mac that had most.
    most_pushes: usize,
    deepest_queue: u64,
}

pub(crate) async fn run(args: StormArgs) -> Result<()> {
    let temporary = tempfile::tempdir().context("making a temporary folder")?;
    let (world, server) = Server::with_world(&args.attestd, temporary.path(), None).await?;
    let count = usize::from(args.macs);
    let mut seen = Seen::default();
    let tell = |text: String| match args.json {
        true => Ok(()),
        false => crate::line(&text),
    };

    tell(format!(
        "{count} Macs enroll while Apple's push service is out …"
    ))?;
    world
        .apns()
        .break_down(Some(Fault::Answer(503, "ServiceUnavailable")));
    let (fleet, sessions) = enroll(&world, &server, count, &mut seen).await?;
    tell(format!(
        "enrolled in {:.1} s. Pushes flow …",
        seen.enrolled_in.as_secs_f64()
    ))?;
    world.apns().break_down(None);
    await_proofs(&server, &sessions, &mut seen).await?;

    tell("every provider connects …".to_owned())?;
    let sessions = connect_all(&server, sessions, "first", AT_ONCE).await?;
    let routable = sessions
        .iter()
        .filter(|session| session.is_routable())
        .count();
    ensure!(
        routable == count,
        "{routable} of {count} are routable before the release"
    );
    tell("a release: every provider ends, and comes back at once …".to_owned())?;
    let began = Instant::now();
    let sessions = reconnect_all(&server, sessions).await?;
    seen.reconnected_in = began.elapsed();
    seen.routable = sessions
        .iter()
        .filter(|session| session.is_routable())
        .count();
    seen.fallen = sessions
        .iter()
        .filter(|session| !session.is_hardware())
        .count();
    seen.deepest_queue = queue_depth(&server).await?.max(seen.deepest_queue);
    seen.most_pushes = most_pushes(&world, &fleet);
    server.stop().await?;
    report(&args, &seen)
}

async fn enroll(
    world: &World,
    server: &Server,
    count: usize,
    seen: &mut Seen,
) -> Result<(Fleet, Vec<Session>)> {
    let (mut specs, mut sessions) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let mut spec = MacSpec::random()?;
        let provider = Provider::new(&spec.serial, world.clock())?;
        sessions.push(Session {
            serial: spec.serial.clone(),
            provider: provider.clone(),
            binding: Value::Null,
        });
        spec.provider = Some(Box::new(provider));
        specs.push(spec);
    }
    let began = Instant::now();
    let fleet = Fleet::enroll_all(world, specs, AT_ONCE, &server.base_url).await?;
    seen.enrolled_in = began.elapsed();
    ensure!(
        fleet.living() == count,
        "only {} of {count} Macs enrolled",
        fleet.living()
    );
    Ok((fleet, sessions))
}

/// Looks at every Mac that is not affirmed yet, again and again.
async fn await_proofs(server: &Server, sessions: &[Session], seen: &mut Seen) -> Result<()> {
    let began = Instant::now();
    let mut waiting = Vec::new();
    for session in sessions {
        let path = format!("/internal/v1/devices?serial_number={}", session.serial);
        let found = server.api.get(&path).await?;
        let device_id = found["devices"][0]["device_id"]
            .as_str()
            .context("no such Mac")?;
        waiting.push(format!("/internal/v1/devices/{device_id}/posture"));
    }
    while !waiting.is_empty() {
        ensure!(
            began.elapsed() < PATIENCE,
            "{} Macs were never proved",
            waiting.len()
        );
        seen.deepest_queue = seen.deepest_queue.max(queue_depth(server).await?);
        let looked: Vec<(String, Value)> = futures_util::stream::iter(waiting)
            .map(|path| async move { server.api.get(&path).await.map(|posture| (path, posture)) })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        let now = began.elapsed();
        waiting = Vec::new();
        for (path, posture) in looked {
            if posture["verdict"] == json!("affirming") {
                seen.first_proofs.push(now);
            } else {
                waiting.push(path);
            }
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    Ok(())
}

async fn connect_all(
    server: &Server,
    sessions: Vec<Session>,
    round: &str,
    at_once: usize,
) -> Result<Vec<Session>> {
    futures_util::stream::iter(sessions)
        .map(|session| session.connect(server, round))
        .buffer_unordered(at_once)
        .try_collect()
        .await
}

/// The coordinator lost them all, and all are back with another process.
async fn reconnect_all(server: &Server, mut sessions: Vec<Session>) -> Result<Vec<Session>> {
    let ended: Vec<()> = futures_util::stream::iter(&sessions)
        .map(|session| async move { server.api.delete(&session.path("first")).await })
        .buffer_unordered(RECONNECT_AT_ONCE)
        .try_collect()
        .await?;
    ensure!(ended.len() == sessions.len(), "not every session ended");
    for session in &mut sessions {
        session.provider.restart()?;
    }
    connect_all(server, sessions, "second", RECONNECT_AT_ONCE).await
}

async fn queue_depth(server: &Server) -> Result<u64> {
    let status = server.api.get("/internal/v1/status").await?;
    status["queue"]["depth"]
        .as_u64()
        .context("the status has no depth of the queue")
}

fn most_pushes(world: &World, fleet: &Fleet) -> usize {
    let addresses = fleet.macs.iter().filter_map(|mac| mac.push_address());
    let accepted = addresses.map(|(token, _)| {
        let seen = world.apns().seen_for(&token);
        seen.iter().filter(|push| push.status == 200).count()
    });
    accepted.max().unwrap_or_default()
}

/// The share of 1,000 that is at most so long.
pub(crate) fn quantile(sorted: &[Duration], per_mille: usize) -> Duration {
    let last = sorted.len().saturating_sub(1);
    let place = (sorted.len() * per_mille).div_ceil(1_000).saturating_sub(1);
    sorted.get(place.min(last)).copied().unwrap_or_default()
}

fn report(args: &StormArgs, seen: &Seen) -> Result<()> {
    let [median, p99, longest] =
        [500, 990, 1_000].map(|per_mille| quantile(&seen.first_proofs, per_mille));
    let in_time = p99 <= FIRST_PROOF;
    let stayed = seen.fallen == 0 && seen.routable == usize::from(args.macs);
    let within = seen.most_pushes <= PUSHES_PER_HOUR && seen.deepest_queue <= QUEUE;
    if args.json {
        crate::say(&json!({
            "macs": args.macs,
            "satisfied": in_time && stayed && within,
            "enrolled_s": seen.enrolled_in.as_secs_f64(),
            "first_proof_s": {
                "p50": median.as_secs_f64(), "p99": p99.as_secs_f64(), "max": longest.as_secs_f64(),
            },
            "reconnected_s": seen.reconnected_in.as_secs_f64(),
            "routable": seen.routable,
            "lost_hardware": seen.fallen,
            "most_pushes_of_a_mac": seen.most_pushes,
            "deepest_queue": seen.deepest_queue,
        }))?;
    } else {
        crate::line(&format!(
            "\nfirst proofs after pushes flowed: p50 {:.1} s, p99 {:.1} s, all {:.1} s (p99 within {} s)\n\
             reconnected, challenged and answered: {} routable after {:.1} s, {} lost `hardware`\n\
             pushes of the Mac that had most: {} (at most {PUSHES_PER_HOUR}); deepest queue seen: {} (at most {QUEUE})",
            median.as_secs_f64(),
            p99.as_secs_f64(),
            longest.as_secs_f64(),
            FIRST_PROOF.as_secs(),
            seen.routable,
            seen.reconnected_in.as_secs_f64(),
            seen.fallen,
            seen.most_pushes,
            seen.deepest_queue,
        ))?;
    }
    ensure!(in_time, "first proofs came too late");
    ensure!(stayed, "not every Mac came back as it was");
    ensure!(within, "a limit was not kept");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_those_that_were_seen() {
        let seconds: Vec<_> = (1..=200).map(Duration::from_secs).collect();
        assert_eq!(quantile(&seconds, 500), Duration::from_secs(100));
        assert_eq!(quantile(&seconds, 990), Duration::from_secs(198));
        assert_eq!(quantile(&seconds, 1_000), Duration::from_secs(200));
        assert_eq!(quantile(&seconds[..1], 990), Duration::from_secs(1));
        assert_eq!(quantile(&[], 990), Duration::ZERO);
    }
}
