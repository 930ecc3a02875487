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

mod checks;
mod house;
mod judge;
mod mac;
mod plot;
mod random;
mod record;
mod report;
mod schedule;
mod time;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, bail};
use clap::Parser;

use crate::time::{Ms, SECOND};
use crate::world::{Plan, World};

/// Runs a simulated fleet against the server's flows, and checks after every event that what is
/// published is what the evidence allows.
#[derive(Debug, Parser)]
#[command(name = "soak", after_help = "\
The same seed gives the same run: compare the hash of the log. Exit status: 0 when every check held,
1 when one did not; the faults are printed with the seed that shows them again.

What it cannot show: real APNs throttling, Apple's real answers, differences between versions of
macOS.")]
struct Arguments {
    /// How many Macs.
    #[arg(long, default_value_t = 2000)]
    macs: usize,
    /// How many simulated days.
    #[arg(long, default_value_t = 90)]
    days: i64,
    /// Everything that is left to chance follows from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The form that is part of every check: fewer Macs, fewer days.
    #[arg(long, conflicts_with_all = ["macs", "days"])]
    short: bool,
    /// Simulated seconds from one sweep to the next.
    #[arg(long, default_value_t = 20)]
    sweep: i64,
    /// An empty database elsewhere, such as postgres://…; otherwise an embedded one in memory, or
    /// in the temporary folder.
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// Counts the breaches of this rule and goes on (verdict, usable_until, revision, newer_evidence,
    /// push_budget, apple_window, dark, heard): to look at a fault beyond its first effect.
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
        tokio::runtime::Builder::new_multi_thread()
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

async fn soak(mut arguments: Arguments) -> anyhow::Result<bool> {
    if arguments.short {
        (arguments.macs, arguments.days) = (60, 15);
    }
    if arguments.macs == 0 || arguments.days < 1 || arguments.sweep < 1 {
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
    let plan = Plan {
        macs: arguments.macs,
        days: arguments.days,
        seed: arguments.seed,
        sweep: arguments.sweep * SECOND,
        database: match &arguments.database {
            Some(url) => url.clone(),
            None => house::sqlite(folder.path()),
        },
        log: arguments.log.clone(),
        without: arguments.without.clone(),
    };
    let (macs, days) = (arguments.macs, arguments.days);
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
    if let Some(path) = &arguments.plot {
        std::fs::write(path, plot::svg(&outcome))
            .with_context(|| format!("{} cannot be written", path.display()))?;
    }
    println!("{}", report::table(&outcome, took));
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
            "Again: --macs {macs} --days {days} --seed {} --sweep {}",
            arguments.seed, arguments.sweep
        );
    }
    Ok(outcome.faults.is_empty())
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

    async fn run(seed: u64) -> world::Outcome {
        let folder = tempfile::tempdir().expect("a folder");
        let plan = Plan {
            macs: 8,
            days: 2,
            seed,
            sweep: 60 * SECOND,
            database: house::sqlite(folder.path()),
            log: None,
            without: Vec::new(),
        };
        let world = World::new(plan).await.expect("a world");
        world.run(|_, _| {}).await.expect("a run")
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_same_seed_is_the_same_run_and_another_is_another() {
        let (first, second, other) = (run(3).await, run(3).await, run(4).await);
        assert_eq!(first.faults, []);
        assert!(first.log_lines > 100, "{}", first.log_lines);
        assert_eq!(first.log_hash, second.log_hash);
        assert_ne!(first.log_hash, other.log_hash);
    }
}
