//! The table at the end of a run.

use std::time::Duration;

use comfy_table::{Table, presets};

use crate::judge::Verdict;
use crate::mac::Origin;
use crate::plan::Outcome;
use crate::record::Spread;
use crate::time::{DAY, HOUR, MINUTE, Ms, START};

/// What a run showed, in figures.
///
/// `cpu` is in seconds, `kept` is the size of the embedded database, in bytes.
pub fn table(outcome: &Outcome, (took, cpu): (Duration, f64), kept: Option<u64>) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["", "p50", "p99", "most"]);
    let days = (outcome.ended_at - START) / DAY;
    let mut pushes: Vec<Ms> = outcome
        .macs
        .iter()
        .flat_map(|mac| {
            let whole = usize::try_from(days).unwrap_or(0);
            let counted = mac.tally.pushes_of_day.iter().copied();
            counted.chain(std::iter::repeat(0)).take(whole)
        })
        .map(Ms::from)
        .collect();
    pushes.sort_unstable();
    table.add_row(row("pushes per Mac per day", &pushes, |count| {
        count.to_string()
    }));
    spread(
        &mut table,
        "age of SecurityInfo, Macs within reach",
        &outcome.ages.reports,
    );
    spread(
        &mut table,
        "age of the attestation, Macs within reach",
        &outcome.ages.chains,
    );
    let mut exposures: Vec<Ms> = outcome
        .macs
        .iter()
        .flat_map(|mac| mac.tally.exposures.iter().copied())
        .collect();
    exposures.sort_unstable();
    table.add_row(row("SIP off to not affirming", &exposures, span));

    let mut routed: Vec<Ms> = outcome
        .macs
        .iter()
        .flat_map(|mac| mac.tally.routed.iter().copied())
        .collect();
    routed.sort_unstable();
    table.add_row(row(
        "SIP off to not routable, of those routed to",
        &routed,
        span,
    ));
    let sum = |count: fn(&crate::mac::Mac) -> u64| outcome.macs.iter().map(count).sum::<u64>();
    let rounds = sum(|mac| mac.tally.rounds);
    let of = |wanted| {
        outcome
            .macs
            .iter()
            .filter(|mac| mac.origin == wanted)
            .count()
    };
    let now = outcome.ended_at;
    let at_the_end = |verdict| {
        let macs = outcome.macs.iter();
        macs.filter(|mac| mac.judge.allows(now).verdict == verdict)
            .count()
    };
    let seconds = took.as_secs_f64();
    let kept = kept.map_or_else(
        || "PostgreSQL".to_owned(),
        |kept| {
            let each = kept / rounds.max(1);
            format!(
                "{} MB, {each} bytes for each answer that counted",
                kept >> 20
            )
        },
    );
    format!(
        "{table}\n\
         Macs                 {} attested, {} with keys in software\n\
         answers that counted {rounds}; asked {} SecurityInfo, {} attestations\n\
         at the end           {} affirming, {} warning, {} contraindicated, {} unknown\n\
         SIP switched off     {} times seen; {} times with requests routed there\n\
         challenges           {}, to {} sessions\n\
         troubles             {} push outages, {} server restarts\n\
         database             {kept}\n\
         log                  {} lines, SHA-256 {}\n\
         run time             {seconds:.1} s, {cpu:.1} s of processor time, for {days} days: {:.0} rounds a second, {} sweeps",
        of(Origin::Attested),
        of(Origin::Adopted),
        sum(|mac| mac.tally.reports_asked),
        sum(|mac| mac.tally.chains_asked),
        at_the_end(Verdict::Affirming),
        at_the_end(Verdict::Warning),
        at_the_end(Verdict::Contraindicated),
        at_the_end(Verdict::Unknown),
        exposures.len(),
        routed.len(),
        sum(|mac| mac.tally.challenges),
        outcome
            .macs
            .iter()
            .filter(|mac| mac.software.is_some())
            .count(),
        outcome.outages,
        outcome.restarts,
        outcome.log_lines,
        outcome.log_hash,
        crate::per(rounds, seconds),
        outcome.sweeps,
    )
}

fn row(name: &str, sorted: &[Ms], word: fn(Ms) -> String) -> [String; 4] {
    let at = |per_hundred: usize| {
        let last = sorted.len().saturating_sub(1);
        let value = sorted.get(last * per_hundred / 100).copied();
        value.map_or_else(|| "-".to_owned(), word)
    };
    [name.to_owned(), at(50), at(99), at(100)]
}

fn spread(table: &mut Table, name: &str, ages: &Spread) {
    let word = |age: Option<Ms>| age.map_or_else(|| "-".to_owned(), span);
    table.add_row([
        name.to_owned(),
        word(ages.percentile(500)),
        word(ages.percentile(990)),
        word(ages.max()),
    ]);
}

/// A span as people say it.
pub fn span(span: Ms) -> String {
    let (days, hours, minutes) = (span / DAY, span % DAY / HOUR, span % HOUR / MINUTE);
    match (days, hours) {
        (0, 0) => format!("{minutes} min"),
        (0, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}
