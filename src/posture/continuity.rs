//! Boot continuity: what was proved of a Mac stays true while one process of its provider lives.
//!
//! SIP, boot policy and kernel extension policy change only through recoveryOS, so only across a
//! restart, and no process survives one. A process is known by its encryption key `K`, which each
//! makes anew, and lives as long as its challenges are answered without a gap. Where the policy
//! switches this on, a SecurityInfo reading that was made in the life of a process stays fresh for
//! that life, up to the time at which it expires anyway; a new process makes it stale, not void
//! (coordinator-and-standards C.3). So a reconnect of the same process needs no push, and a release
//! makes nobody's evidence worthless (A.15).

use super::policy::{Lifetime, Rules};
use crate::time::Timestamp;

/// One process of the provider's software on the Mac.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// When its encryption key was first seen.
    pub began_at: Timestamp,
    /// When it last answered a challenge well; all its answers so far came without a gap.
    pub last_good_at: Timestamp,
}

impl Process {
    /// Until when it is known to live, if nothing more is heard of it.
    pub fn lives_until(&self, rules: &Rules) -> Timestamp {
        let challenge = &rules.challenge;
        self.last_good_at
            .plus(challenge.interval.0)
            .plus(challenge.answer_within.0)
            .plus(rules.boot_continuity.gap.0)
    }
}

/// Until when a SecurityInfo reading is fresh.
pub fn fresh_until(
    observed_at: Timestamp,
    process: Option<Process>,
    rules: &Rules,
    now: Timestamp,
) -> Timestamp {
    let lifetime: &Lifetime = &rules.security_info;
    let usual = observed_at.plus(lifetime.fresh_for.0);
    let Some(process) = process.filter(|_| rules.boot_continuity.enabled) else {
        return usual;
    };
    let lives_until = process.lives_until(rules);
    if now >= lives_until {
        usual
    } else if process.began_at > observed_at {
        usual.min(process.began_at)
    } else {
        usual
            .max(lives_until)
            .min(observed_at.plus(lifetime.usable_for.0))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::policy::{Policy, STRICT};
    use super::*;

    fn at(minutes: u64) -> Timestamp {
        Timestamp::from_millis(1_790_847_007_000).plus(Duration::from_secs(60 * minutes))
    }

    fn rules(enabled: bool) -> Rules {
        let mut rules = Policy::parse(STRICT).expect("shipped").rules;
        rules.boot_continuity.enabled = enabled;
        rules
    }

    fn process(began_at: u64, last_good_at: u64) -> Option<Process> {
        Some(Process {
            began_at: at(began_at),
            last_good_at: at(last_good_at),
        })
    }

    #[test]
    fn while_a_process_lives_its_macs_evidence_stays_fresh_and_a_new_one_makes_it_stale() {
        // Observed at minute 100; fresh for 120, usable for 1440; a process is known to live for
        // seven minutes after an answer.
        let rows = [
            ("no process", None, 500, 220),
            ("one that lives on", process(50, 500), 501, 507),
            ("young evidence needs no help", process(50, 110), 111, 220),
            ("not beyond the ceiling", process(50, 1_535), 1_536, 1_540),
            ("one that fell silent", process(50, 300), 307, 220),
            ("one that began later", process(150, 160), 161, 150),
            (
                "one that began later and fell silent",
                process(150, 160),
                400,
                220,
            ),
        ];
        for (what, process, now, expected) in rows {
            let found = fresh_until(at(100), process, &rules(true), at(now));
            assert_eq!(found, at(expected), "{what}");
            let off = fresh_until(at(100), process, &rules(false), at(now));
            assert_eq!(off, at(220), "{what}, switched off");
        }
    }
}
