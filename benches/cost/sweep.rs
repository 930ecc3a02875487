//! What planning costs when a whole fleet is due at once: one run of the sweep, in this process, on
//! SQLite, with nothing else to do.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use attestd::app::App;
use attestd::config::Config;
use attestd::entropy::{SeededEntropy, draw};
use attestd::flows::sweep;
use attestd::ids::DeviceId;
use attestd::time::{Clock as _, ManualClock, SystemClock, Timestamp};
use attestd::verification::Agenda;
use rusqlite::{Connection, params};

use super::report::Report;
use super::server::{attestd, free_port, per};

/// A hundredth of the fleet, a tenth, all of it: what one Mac costs must not grow with the others.
pub async fn run(report: &mut Report, macs: usize) {
    for macs in [macs / 100, macs / 10, macs] {
        of(report, macs).await;
    }
}

async fn of(report: &mut Report, macs: usize) {
    let home = tempfile::tempdir().expect("a folder");
    let config = prepare(home.path());
    let clock = Arc::new(ManualClock::at(SystemClock.now()));
    // Makes the database.
    drop(App::start_at(&config, clock.clone()).await.expect("starts"));
    eprintln!("{macs} Macs …");
    enroll(&config.data_dir.join("attestd.db"), macs, clock.now());
    let before = resident_kilobytes();
    let app = App::start_at(&config, clock).await.expect("starts");
    let ctx = app.context();
    let known = resident_kilobytes() - before;
    eprintln!("planning …");
    let (before, began) = (cpu(), Instant::now());
    sweep::run_once(&ctx).await.expect("sweeps");
    let cost = cpu() - before;
    assert_eq!(ctx.wakeups.waiting(), macs, "every Mac is to be woken");
    eprintln!("{:?} of CPU, {:?} by the clock", cost, began.elapsed());
    report.figure(
        &format!("sweep, for each of {macs} due Macs, SQLite"),
        per(cost, macs),
    );
    let (before, again) = (cpu(), 5);
    let resident = resident_kilobytes();
    for _ in 0..again {
        sweep::run_once(&ctx).await.expect("sweeps");
    }
    let walked = per(cpu() - before, again * macs);
    report.figure(
        "the same, for each of them while all wait to be woken",
        walked,
    );
    report.figure("memory to know them, kB", known);
    report.figure(
        "memory that five more sweeps kept, kB",
        resident_kilobytes() - resident,
    );
}

fn prepare(home: &Path) -> Config {
    let folder = home.join("server");
    let path = folder.to_str().expect("UTF-8");
    let base_url = format!("http://127.0.0.1:{}", free_port());
    attestd(&["init", path, "--base-url", &base_url, "--insecure-http"]);
    let file = folder.join("bench.toml");
    let text = format!(
        "base_url = \"{base_url}\"\n[public]\nlisten = \"127.0.0.1:0\"\n\
         [internal]\nlisten = \"127.0.0.1:0\"\n[verification]\nqueue = 1000000\n\
         [apns]\npushes_per_second = 20000\n[log]\nlevel = \"warn\"\n"
    );
    std::fs::write(&file, text).expect("a configuration");
    Config::load(&file, true).expect("a configuration")
}

/// Macs whose last readings are an hour and a half old: all are due.
fn enroll(database: &Path, macs: usize, now: Timestamp) {
    let entropy = SeededEntropy::new(1);
    let mut connection = Connection::open(database).expect("opens");
    let tx = connection.transaction().expect("begins");
    let since = now.minus(Duration::from_secs(90 * 60));
    for number in 0..macs {
        let device_id = DeviceId::new(since, &entropy);
        let certificate: [u8; 32] = draw(&entropy);
        let mut agenda = Agenda::new(device_id.clone(), since);
        agenda.stands(true, since);
        let body = serde_json::to_string(&agenda).expect("JSON");
        let ends = now.plus(Duration::from_secs(365 * 86_400)).millis();
        tx.prepare_cached(
            "INSERT INTO identities (certificate, der, kind, device_id, issued_at, not_before, \
             not_after) VALUES ($1, $2, 'scep', $3, $4, $4, $5)",
        )
        .and_then(|mut insert| {
            insert.execute(params![
                certificate,
                [0_u8],
                device_id.as_str(),
                since.millis(),
                ends
            ])
        })
        .expect("an identity");
        tx.prepare_cached(
            "INSERT INTO enrollments (device_id, udid, serial, state, identity, topic, hardware, \
             authenticated_at) VALUES ($1, $2, $3, 'enrolled', $4, 'bench', '{}', $5)",
        )
        .and_then(|mut insert| {
            let udid = format!("5B0C1D2E-7F3A-5C41-9A6D-{number:012X}");
            let serial = format!("BENCH{number:07}");
            insert.execute(params![
                device_id.as_str(),
                udid,
                serial,
                certificate,
                since.millis()
            ])
        })
        .expect("an enrollment");
        tx.prepare_cached(
            "INSERT INTO agendas (device_id, priority, due_at, owes_from, body) \
             VALUES ($1, 0, $2, $2, $3)",
        )
        .and_then(|mut insert| insert.execute(params![device_id.as_str(), since.millis(), body]))
        .expect("an agenda");
    }
    tx.commit().expect("commits");
}

/// CPU time of every thread of this process.
fn cpu() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").expect("threads");
    let nanoseconds = tasks
        .filter_map(|task| {
            let stat = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            stat.split(' ').next()?.parse::<u64>().ok()
        })
        .sum();
    Duration::from_nanos(nanoseconds)
}

/// Memory of this process.
fn resident_kilobytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("this process");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.and_then(|text| text.parse().ok()).expect("a number")
}
