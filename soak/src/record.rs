//! What is kept of a run: for each Mac, for each hour, and a hash of everything that happened.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;

use openssl::sha::Sha256;

use crate::checks::{Published, PublishedSession};
use crate::judge::{Question, Verdict};
use crate::mac::Mac;
use crate::time::{DAY, HOUR, Ms, START};

/// What is counted of one Mac.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Answers that counted.
    pub rounds: u64,
    pub reports_asked: u64,
    pub chains_asked: u64,
    /// Of the last hour, oldest first.
    pub pushes: Vec<Ms>,
    /// By day of the run.
    pub pushes_of_day: Vec<u32>,
    /// SIP is off since then, and the Mac was good when it came up.
    pub exposed_since: Option<Ms>,
    /// How long it was good after that, each time.
    pub exposures: Vec<Ms>,
    /// As last published.
    pub published: Option<Published>,
    /// Since when SIP is off.
    off_since: Option<Ms>,
    /// Requests were routed to its session after that, and still are.
    is_routed: bool,
    /// How long after SIP went off that ended, each time.
    pub routed: Vec<Ms>,
    /// Answers to challenges, good or not, and challenges without one.
    pub challenges: u64,
    /// How often what was said between its software and the coordinator.
    pub said: BTreeMap<&'static str, u32>,
    /// As last published of its session.
    pub session: PublishedSession,
}

impl Tally {
    pub fn asked(&mut self, question: Question) {
        match question {
            Question::Report => self.reports_asked += 1,
            Question::Chain => self.chains_asked += 1,
        }
    }

    /// APNs took a push.
    pub fn pushed(&mut self, now: Ms) {
        self.pushes.retain(|at| now - at < HOUR);
        self.pushes.push(now);
        let day = usize::try_from((now - START) / DAY).unwrap_or(0);
        if self.pushes_of_day.len() <= day {
            self.pushes_of_day.resize(day + 1, 0);
        }
        self.pushes_of_day[day] += 1;
    }

    /// The Mac comes up with the other state of SIP.
    pub fn switched_sip(&mut self, was_secure: bool, now: Ms) {
        let good = self.published.is_some_and(|seen| seen.verdict.is_good());
        self.exposed_since = (was_secure && good).then_some(now);
        self.off_since = was_secure.then_some(now);
        self.is_routed = was_secure && self.session.routable;
    }

    /// The server was looked at.
    pub fn saw(&mut self, seen: Published, now: Ms) {
        if !seen.verdict.is_good()
            && let Some(since) = self.exposed_since.take()
        {
            self.exposures.push(now - since);
        }
        self.published = Some(seen);
    }

    /// Its session was looked at.
    pub fn saw_session(&mut self, seen: PublishedSession, now: Ms) {
        if let Some(since) = self.off_since {
            if self.is_routed && !seen.routable {
                self.routed.push(now - since);
            }
            self.is_routed = seen.routable;
        }
        self.session = seen;
    }
}

/// The fleet at one hour.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hour {
    pub at: Ms,
    pub affirming: usize,
    pub warning: usize,
    pub contraindicated: usize,
    pub unknown: usize,
    /// Pushes APNs took since the hour before.
    pub pushes: usize,
    /// Minutes since the last SecurityInfo of Macs that could be reached: half of them, and all but
    /// one in a hundred.
    pub report_p50: Ms,
    pub report_p99: Ms,
    /// Age of the chain of Macs that could be reached.
    pub chain_p50: Ms,
    pub chain_p99: Ms,
    /// Push outage, or the server was down.
    pub trouble: bool,
}

/// Ages of evidence, each hour, of every Mac.
#[derive(Debug, Default)]
pub struct Ages {
    pub reports: Spread,
    pub chains: Spread,
}

/// Values of which only percentiles are wanted: counted by minute, so that millions cost nothing.
#[derive(Debug, Default)]
pub struct Spread {
    minutes: Vec<u64>,
    count: u64,
}

impl Spread {
    pub fn add(&mut self, value: Ms) {
        let minute = usize::try_from(value / crate::time::MINUTE).unwrap_or(0);
        if self.minutes.len() <= minute {
            self.minutes.resize(minute + 1, 0);
        }
        self.minutes[minute] += 1;
        self.count += 1;
    }

    /// The value that `per_thousand` of all do not exceed, to the minute; `None` without any.
    pub fn percentile(&self, per_thousand: u64) -> Option<Ms> {
        let wanted = (self.count * per_thousand).div_ceil(1000).max(1);
        let mut seen = 0;
        let minute = self.minutes.iter().position(|count| {
            seen += count;
            seen >= wanted
        })?;
        Some(Ms::try_from(minute).unwrap_or(0) * crate::time::MINUTE)
    }

    pub fn max(&self) -> Option<Ms> {
        self.percentile(1000)
    }
}

/// A hash of what happened, and the text of it where a file was named.
#[derive(Default)]
pub struct Log {
    hash: Sha256,
    file: Option<std::io::BufWriter<std::fs::File>>,
    line: String,
    pub lines: u64,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log")
            .field("lines", &self.lines)
            .finish_non_exhaustive()
    }
}

impl Log {
    pub fn new(file: Option<&std::path::Path>) -> anyhow::Result<Self> {
        Ok(Self {
            file: match file {
                Some(path) => Some(std::io::BufWriter::new(std::fs::File::create(path)?)),
                None => None,
            },
            ..Self::default()
        })
    }

    /// Only what a run is, never a name drawn by chance or a time of this machine.
    pub fn write(&mut self, at: Ms, what: std::fmt::Arguments<'_>) -> anyhow::Result<()> {
        self.line.clear();
        writeln!(self.line, "{} {what}", at - START)?;
        self.hash.update(self.line.as_bytes());
        if let Some(file) = &mut self.file {
            file.write_all(self.line.as_bytes())?;
        }
        self.lines += 1;
        Ok(())
    }

    /// The hash of everything so far.
    pub fn digest(&self) -> String {
        hex::encode(self.hash.clone().finish())
    }
}

/// Looks at the whole fleet.
pub fn hour<'a>(
    macs: impl Iterator<Item = &'a Mac>,
    ages: &mut Ages,
    now: Ms,
    pushes: usize,
    trouble: bool,
) -> Hour {
    let mut hour = Hour {
        at: now,
        pushes,
        trouble,
        ..Hour::default()
    };
    let (mut reports, mut chains) = (Vec::new(), Vec::new());
    for mac in macs.filter(|mac| mac.device_id().is_some()) {
        match mac.judge.allows(now).verdict {
            Verdict::Affirming => hour.affirming += 1,
            Verdict::Warning => hour.warning += 1,
            Verdict::Contraindicated => hour.contraindicated += 1,
            Verdict::Unknown => hour.unknown += 1,
        }
        let report = mac.judge.report().map(|report| now - report.heard_at);
        let chain = mac.judge.chain().map(|chain| now - chain.minted_at);
        if mac.reachable_since.is_some() {
            reports.extend(report);
            chains.extend(chain);
            if let Some(age) = report {
                ages.reports.add(age);
            }
            if let Some(age) = chain {
                ages.chains.add(age);
            }
        }
    }
    reports.sort_unstable();
    chains.sort_unstable();
    let share = |sorted: &[Ms], per_hundred: usize| {
        let last = sorted.len().saturating_sub(1);
        sorted.get(last * per_hundred / 100).copied().unwrap_or(0)
    };
    (hour.report_p50, hour.report_p99) = (share(&reports, 50), share(&reports, 99));
    (hour.chain_p50, hour.chain_p99) = (share(&chains, 50), share(&chains, 99));
    hour
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::MINUTE;

    #[test]
    fn percentiles_are_those_of_the_values() {
        let mut spread = Spread::default();
        assert_eq!(spread.max(), None);
        for minute in 0..1000 {
            spread.add(minute * MINUTE + 1);
        }
        assert_eq!(spread.percentile(500), Some(499 * MINUTE));
        assert_eq!(spread.percentile(990), Some(989 * MINUTE));
        assert_eq!(spread.max(), Some(999 * MINUTE));
    }
}
