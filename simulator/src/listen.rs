//! `attestd-sim listen`: how soon everybody who listens to a server's events hears of what happens, while
//! its providers are challenged and answer as fast as they can.
//!
//! What is timed begins before the request that makes the event is sent, so that it is more than the time
//! from commit to listener, and ends where the listener has read the event.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use attestd_sim::{Fleet, MacSpec, Provider, World};
use clap::Args;
use serde_json::json;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use crate::server::Server;
use crate::storm::quantile;

#[derive(Debug, Args)]
pub(crate) struct ListenArgs {
    /// The server's binary. An optimized one: the figures are about it.
    #[arg(long, value_name = "FILE", default_value = "target/release/attestd")]
    attestd: PathBuf,
    /// A PostgreSQL for the server, empty, as `[database] url`; without it an embedded SQLite.
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    /// How many listen.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u16).range(1..=500))]
    listeners: u16,
    /// How many events are timed.
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u16).range(2..=10_000))]
    events: u16,
    /// Print one JSON summary at the end instead of text.
    #[arg(long)]
    json: bool,
}

/// 99 of 100 times somebody hears of something this soon.
const SOON: Duration = Duration::from_secs(1);
/// Streams one token may have open, by the server's rule, less some.
const OF_ONE_TOKEN: usize = 60;
/// Macs whose providers are challenged meanwhile.
const MACS: usize = 32;
/// Challenges under way at a time.
const CHALLENGES: usize = 8;
/// Between two events that are timed.
const BEAT: Duration = Duration::from_millis(40);
/// How long the last event is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Somebody heard that this happened to this session.
#[derive(Debug)]
struct Heard {
    what: String,
    at: Instant,
}

pub(crate) async fn run(args: ListenArgs) -> Result<()> {
    let temporary = tempfile::tempdir().context("making a temporary folder")?;
    let (world, server) = Server::with_world(
        &args.attestd,
        temporary.path(),
        args.database_url.as_deref(),
    )
    .await?;
    let server = Arc::new(server);
    let (_fleet, providers) = enroll(&world, &server).await?;

    let (heard, mut hearing) = unbounded_channel();
    let mut listeners = JoinSet::new();
    let mut listener = server.api.clone();
    let count = usize::from(args.listeners);
    for number in 0..count {
        if number % OF_ONE_TOKEN == 0 {
            listener = server.another().await?;
        }
        let stream = listener.events(None).await?;
        listeners.spawn(listen(stream, heard.clone()));
    }
    drop(heard);

    let load = Load::start(&server, &providers);
    let sent = tell(&server, &world, usize::from(args.events)).await?;
    let (mut delays, mut missing) = (Vec::new(), sent.len() * count);
    let until = tokio::time::Instant::now() + PATIENCE;
    while missing > 0 {
        let next = tokio::time::timeout_at(until, hearing.recv()).await;
        let Ok(Some(Heard { what, at })) = next else {
            break;
        };
        if let Some(sent) = sent.get(&what) {
            delays.push(at.saturating_duration_since(*sent));
            missing -= 1;
        }
    }
    let challenges = load.stop().await?;
    server.stop().await?;
    listeners.abort_all();
    delays.sort();
    report(&args, &delays, missing, challenges)
}

async fn enroll(world: &World, server: &Server) -> Result<(Fleet, Vec<Provider>)> {
    let (mut specs, mut providers) = (Vec::new(), Vec::new());
    for _ in 0..MACS {
        let mut spec = MacSpec::random()?;
        let provider = Provider::new(&spec.serial, world.clock())?;
        providers.push(provider.clone());
        spec.provider = Some(Box::new(provider));
        specs.push(spec);
    }
    let fleet = Fleet::enroll_all(world, specs, 16, &server.base_url).await?;
    for (number, provider) in providers.iter().enumerate() {
        let request = provider.binding_request(None)?;
        server.api.put(&path(&busy(number)), &request).await?;
    }
    Ok((fleet, providers))
}

fn busy(number: usize) -> String {
    format!("busy-{number}")
}

fn path(session: &str) -> String {
    format!("/internal/v1/bindings/{session}")
}

/// Providers that are challenged without a pause.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    workers: JoinSet<Result<()>>,
}

impl Load {
    fn start(server: &Arc<Server>, providers: &[Provider]) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let mut workers = JoinSet::new();
        for first in 0..CHALLENGES {
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            let server = Arc::clone(server);
            let mine: Vec<_> = providers.iter().cloned().enumerate().skip(first).collect();
            workers.spawn(async move {
                let mut turns = mine.iter().step_by(CHALLENGES).cycle();
                while !stop.load(Ordering::Relaxed) {
                    let (number, provider) = turns.next().context("a provider")?;
                    server.api.challenge(&busy(*number), provider).await?;
                    AtomicU64::fetch_add(&done, 1, Ordering::Relaxed);
                }
                Ok(())
            });
        }
        Self {
            stop,
            done,
            workers,
        }
    }

    /// How many challenges were answered.
    async fn stop(mut self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.workers.join_next().await {
            ended??;
        }
        Ok(self.done.load(Ordering::Relaxed))
    }
}

/// Sessions begin and end, one after the other; each is an event. When each request was sent.
async fn tell(server: &Server, world: &World, count: usize) -> Result<HashMap<String, Instant>> {
    let provider = Provider::new(&MacSpec::random()?.serial, world.clock())?;
    let request = provider.binding_request(None)?;
    let mut sent = HashMap::new();
    let mut beat = tokio::time::interval(BEAT);
    for number in 0..count.div_ceil(2) {
        let session = format!("told-{number}");
        beat.tick().await;
        sent.insert(format!("{session} began"), Instant::now());
        server.api.put(&path(&session), &request).await?;
        beat.tick().await;
        sent.insert(format!("{session} ended"), Instant::now());
        server.api.delete(&path(&session)).await?;
    }
    Ok(sent)
}

async fn listen(mut stream: reqwest::Response, heard: UnboundedSender<Heard>) -> Result<()> {
    let mut text = String::new();
    while let Some(chunk) = stream.chunk().await? {
        let at = Instant::now();
        text.push_str(std::str::from_utf8(&chunk)?);
        while let Some((block, rest)) = text.split_once("\n\n") {
            if let Some(what) = told(block) {
                let _ = heard.send(Heard { what, at });
            }
            text = rest.to_owned();
        }
    }
    Ok(())
}

/// The session that is timed, and what happened to it.
fn told(block: &str) -> Option<String> {
    let data = block.lines().find_map(|line| line.strip_prefix("data: "))?;
    // Cheaper than reading all of it, hundreds of times for each event.
    let member = |name: &str| data.split_once(name)?.1.split('"').next();
    let session = member("\"session\":\"")?;
    let change = member("\"change\":\"")?;
    session
        .starts_with("told-")
        .then(|| format!("{session} {change}"))
}

fn report(args: &ListenArgs, delays: &[Duration], missing: usize, challenges: u64) -> Result<()> {
    let [median, p99, longest] = [500, 990, 1_000].map(|per_mille| quantile(delays, per_mille));
    let in_time = p99 <= SOON;
    let milliseconds = |span: Duration| span.as_secs_f64() * 1e3;
    if args.json {
        crate::say(&json!({
            "listeners": args.listeners,
            "satisfied": in_time && missing == 0,
            "heard": delays.len(),
            "missing": missing,
            "challenges": challenges,
            "ms": {
                "p50": milliseconds(median), "p99": milliseconds(p99), "max": milliseconds(longest),
            },
        }))?;
    } else {
        crate::line(&format!(
            "{} listeners, {} times something was heard, {missing} times not, while {challenges} challenges were answered\n\
             from before the request to the listener: p50 {:.0} ms, p99 {:.0} ms, longest {:.0} ms (p99 within {} ms)",
            args.listeners,
            delays.len(),
            milliseconds(median),
            milliseconds(p99),
            milliseconds(longest),
            SOON.as_millis(),
        ))?;
    }
    ensure!(missing == 0, "somebody missed something");
    ensure!(in_time, "events were heard too late");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_timed_is_told_from_the_rest() {
        let block = |session: &str| {
            format!(
                "id: 7\nevent: binding.changed\ndata: {{\"session\":\"{session}\",\"binding_id\":\"bnd_1\",\
                 \"device_id\":null,\"change\":\"ended\"}}"
            )
        };
        assert_eq!(told(&block("told-3")).as_deref(), Some("told-3 ended"));
        assert_eq!(told(&block("busy-3")), None);
        assert_eq!(told(": still here"), None);
        assert_eq!(told("id: 9"), None);
    }
}
