//! What the service's work costs, as ratios to one bare RSA-2048 verification of OpenSSL measured
//! in the same run (R). Run by `./dev bench`; goals in docs/performance.md.

#![expect(
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a program for people, which stops at the first thing that does not work"
)]

mod fleet;
mod flood;
mod issuance;
mod primitives;
mod provider;
mod report;
mod routing;
mod server;
mod sweep;

use self::report::Report;

fn main() {
    // `cargo bench` passes `--bench`; `cargo test --benches` does not and must not measure.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let (macs, issued, due) = (
        setting("ATTESTD_BENCH_MACS", 1000),
        setting("ATTESTD_BENCH_ISSUED", 2000),
        setting("ATTESTD_BENCH_DUE", 100_000),
    );
    // Without a name, everything; the yardstick is measured in any case.
    let named: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let wanted = |part: &str| named.is_empty() || named.iter().any(|name| name == part);
    let mut report = Report::default();
    let yardstick = primitives::run(&mut report);
    provider::run(&mut report);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        if wanted("requests") {
            server::run(&mut report, yardstick, macs).await;
        }
        for issuance in [issuance::ACME, issuance::SCEP] {
            if wanted(issuance.part) {
                issuance.run(&mut report, yardstick, issued).await;
            }
        }
        if wanted("flood") {
            flood::run(&mut report).await;
        }
        if wanted("sweep") {
            sweep::run(&mut report, due).await;
        }
    });
    report.print();
}

fn setting(name: &str, otherwise: usize) -> usize {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(otherwise)
}
