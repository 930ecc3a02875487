//! The soak: a fleet lives for ninety simulated days, in process, and an all-knowing judge looks at
//! the server after every event.
//!
//! The server is the real one without its listeners: its flows, its store, its push client, on a
//! clock that is moved by hand. The Macs, APNs and Apple are the simulator's. The judge is written
//! from the rules and shares no code with what it judges.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line: results on standard output, progress on standard error"
)]

mod act;
mod checks;
mod cluster;
mod house;
mod judge;
mod liveness;
mod mac;
mod plan;
mod plot;
mod random;
mod record;
mod report;
mod schedule;
mod time;
mod trim;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, bail};
use attestd::posture::policy::STRICT;
use clap::Parser;

use crate::plan::Plan;
use crate::time::{Ms, SECOND};
use crate::world::World;

const MACS: usize = 2000;
const MACS_ON_POSTGRESQL: usize = 100;
const DAYS: i64 = 90;
const SESSIONS: usize = 50;
/// Macs, days and sessions of the short form, and how many times as much happens in it to each: longer
/// than Apple's seven days.
const SHORT: (usize, i64, usize, u64) = (50, 9, 12, 8);

/// Runs a simulated fleet against the server's flows, and checks after every event that what is
/// published is what the evidence allows.
#[derive(Debug, Parser)]
#[command(
    name = "soak",
    after_help = "\
The same seed gives the same run: compare the hash of the log. Exit status: 0 when every check held,
1 when one did not; the faults are printed with the seed that shows them again.

What it cannot show: real APNs throttling, Apple's real answers, differences between versions of
macOS."
)]
struct Arguments {
    /// How many Macs; 2000 unless told.
    #[arg(long)]
    macs: Option<usize>,
    /// How many simulated days.
    #[arg(long, default_value_t = DAYS)]
    days: i64,
    /// Everything that is left to chance follows from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Fewer Macs, fewer days, more events: some minutes.
    #[arg(long, conflicts_with_all = ["macs", "days", "eventful", "sessions"])]
    short: bool,
    /// How many times as often as usual Macs restart, are updated, enrol again, and have SIP and
    /// FileVault switched.
    #[arg(long, default_value_t = 1)]
    eventful: u64,
    /// How many Macs have a provider's session, which runs for hours of the day and is challenged every
    /// five minutes meanwhile.
    #[arg(long, default_value_t = SESSIONS)]
    sessions: usize,
    /// Simulated seconds from one sweep to the next.
    #[arg(long, default_value_t = 20)]
    sweep: i64,
    /// On a PostgreSQL cluster made for the run, with 100 Macs unless told otherwise; without it on
    /// an embedded database in memory, or in the temporary folder.
    #[arg(long)]
    postgres: bool,
    /// Counts the breaches of this rule and goes on (verdict, usable_until, revision, newer_evidence,
    /// push_budget, apple_window, dark, heard, session): to look at a fault beyond its first effect.
    #[arg(long, value_name = "RULE")]
    without: Vec<String>,
    /// Where the plot goes.
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// Where the log of events goes, line by line.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
}

fn main() -> ExitCode {
    let run = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(soak(Arguments::parse()))
    };
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn soak(arguments: Arguments) -> anyhow::Result<bool> {
    let usual = if arguments.postgres {
        MACS_ON_POSTGRESQL
    } else {
        MACS
    };
    let (macs, days, sessions, eventful) = match (arguments.short, arguments.macs) {
        (true, _) => SHORT,
        (false, macs) => (
            macs.unwrap_or(usual),
            arguments.days,
            arguments.sessions,
            arguments.eventful,
        ),
    };
    if macs == 0 || days < 1 || arguments.sweep < 1 {
        bail!("--macs, --days and --sweep are at least 1");
    }
    // An embedded database flushes with every commit: where memory is, that costs nothing.
    let memory = std::path::Path::new("/dev/shm");
    let folder = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    };
    let folder = folder.context("no temporary folder")?;
    let cluster = match arguments.postgres {
        true => Some(cluster::Cluster::start()?),
        false => None,
    };
    let plan = Plan {
        macs,
        days,
        seed: arguments.seed,
        eventful,
        sessions,
        sweep: arguments.sweep * SECOND,
        database: match &cluster {
            Some(cluster) => cluster.url(),
            None => house::sqlite(folder.path()),
        },
        policy: STRICT.to_owned(),
        pushes_an_hour: 2,
        log: arguments.log.clone(),
        without: arguments.without.clone(),
    };
    eprintln!("{macs} Macs, {days} days, seed {}", arguments.seed);
    let began = Instant::now();
    let outcome = World::new(plan)
        .await?
        .run(|day, progress| {
            let spent = began.elapsed().as_secs_f64();
            let whole = spent / share(day, days);
            eprintln!(
                "day {day}: {} rounds, {:.0} a second; {} of {macs} affirming; {spent:.0} s of about {whole:.0} s",
                progress.rounds,
                per(progress.rounds, spent),
                progress.hour.affirming,
            );
        })
        .await?;
    let took = began.elapsed();
    let cpu = cpu_seconds()?;
    let kept = match arguments.postgres {
        true => None,
        false => Some(size_of(folder.path())?),
    };
    if let Some(path) = &arguments.plot {
        std::fs::write(path, plot::svg(&outcome))
            .with_context(|| format!("{} cannot be written", path.display()))?;
    }
    println!("{}", report::table(&outcome, (took, cpu), kept));
    for fault in &outcome.faults {
        println!("FAULT {fault}");
    }
    if outcome.passed_over > 0 {
        println!("Passed over: {} breaches", outcome.passed_over);
    }
    if outcome.faults.is_empty() {
        println!("Every check held. seed {}", arguments.seed);
    } else {
        println!(
            "Again: --macs {macs} --days {days} --sessions {sessions} --eventful {eventful} --seed {} --sweep {}{}",
            arguments.seed,
            arguments.sweep,
            if arguments.postgres {
                " --postgres"
            } else {
                ""
            }
        );
    }
    Ok(outcome.faults.is_empty())
}

/// Processor time of this process so far, in seconds: what the run costs, however busy the machine
/// is.
fn cpu_seconds() -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let mut fields = after_name.split_whitespace().skip(11);
    let mut ticks = || fields.next().and_then(|field| field.parse::<f64>().ok());
    let (user, system) = (ticks(), ticks());
    // Linux counts in hundredths for every program (proc(5), USER_HZ).
    Ok((user.unwrap_or(0.0) + system.unwrap_or(0.0)) / 100.0)
}

/// Bytes of all files in a folder.
fn size_of(folder: &std::path::Path) -> anyhow::Result<u64> {
    let mut size = 0;
    for entry in std::fs::read_dir(folder)? {
        size += entry?.metadata()?.len();
    }
    Ok(size)
}

#[expect(clippy::cast_precision_loss, reason = "days are few")]
fn share(day: Ms, days: Ms) -> f64 {
    day as f64 / days as f64
}

#[expect(clippy::cast_precision_loss, reason = "for people to read")]
fn per(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds.max(0.001)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(folder: &std::path::Path, macs: usize, seed: u64) -> Plan {
        Plan {
            macs,
            days: 1,
            seed,
            eventful: 20,
            sessions: 2,
            sweep: 60 * SECOND,
            database: house::sqlite(folder),
            policy: STRICT.to_owned(),
            pushes_an_hour: 2,
            log: None,
            without: Vec::new(),
        }
    }

    async fn run(change: impl FnOnce(&mut Plan)) -> plan::Outcome {
        let folder = tempfile::tempdir().expect("a folder");
        let mut plan = plan(folder.path(), 6, 3);
        change(&mut plan);
        let world = World::new(plan).await.expect("a world");
        world.run(|_, _| {}).await.expect("a run")
    }

    /// The short form that is part of every check: few Macs, few days, and all that can happen.
    #[tokio::test]
    async fn a_small_fleet_with_sessions_lives_through_days_of_trouble() {
        let outcome = run(|plan| {
            plan.macs = 10;
            plan.sessions = 8;
            plan.days = 2;
            plan.seed = 1;
            plan.eventful = 8;
        })
        .await;
        assert_eq!(outcome.faults, []);
        assert!(outcome.restarts > 0 && outcome.outages > 0, "{outcome:?}");
        let count = |of: fn(&mac::Mac) -> usize| outcome.macs.iter().map(of).sum::<usize>();
        assert!(count(|mac| mac.tally.exposures.len()) > 1);
        assert!(
            count(|mac| mac.tally.routed.len()) > 0,
            "SIP went off unseen by nobody"
        );
        let said = |word: &str| {
            let all = outcome.macs.iter();
            all.filter_map(|mac| mac.tally.said.get(word)).sum::<u32>()
        };
        for word in [
            "good",
            "admits",
            "forged",
            "missed",
            "given up",
            "is cut off",
            "resumes",
            "another key",
            "another process",
            "ends",
        ] {
            assert!(said(word) > 0, "nothing {word}");
        }
    }

    #[tokio::test]
    async fn the_same_seed_is_the_same_run_and_another_is_another() {
        let (first, second) = (run(|_| {}).await, run(|_| {}).await);
        let other = run(|plan| plan.seed = 4).await;
        assert_eq!(first.faults, []);
        assert!(first.log_lines > 100, "{}", first.log_lines);
        assert_eq!(first.log_hash, second.log_hash);
        assert_ne!(first.log_hash, other.log_hash);
    }

    #[tokio::test]
    async fn a_server_that_trusts_an_hour_too_long_is_found_out() {
        let lenient = STRICT.replace("usable_for = \"24h\"", "usable_for = \"25h\"");
        assert_ne!(lenient, STRICT);
        let outcome = run(|plan| plan.policy = lenient).await;
        let rules: Vec<_> = outcome.faults.iter().map(|fault| fault.rule).collect();
        assert!(rules.contains(&"usable_until"), "{rules:?}");
    }

    #[tokio::test]
    async fn a_server_that_pushes_too_often_is_found_out() {
        let outcome = run(|plan| {
            plan.macs = 10;
            plan.pushes_an_hour = 4;
        })
        .await;
        let rules: Vec<_> = outcome.faults.iter().map(|fault| fault.rule).collect();
        assert!(rules.contains(&"push_budget"), "{rules:?}");
    }
}
