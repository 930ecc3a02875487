//! What happens to a Mac, and when: sleep, Power Nap, restarts, updates, SIP switched off and on.

use super::Mac;
use crate::time::{DAY, HOUR, MINUTE, Ms, beat};

/// What it is used as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Habit {
    /// Never sleeps.
    Server,
    /// Sleeps at night.
    Desk,
    /// Sleeps whenever its lid is closed, naps on battery, is away for days.
    Laptop,
}

/// Whether it can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    Awake,
    /// Power Nap on battery: it connects, and answers NotNow.
    Nap,
    Asleep,
    Down(Errand),
}

/// Why it is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Errand {
    Restart,
    Update,
    /// In recoveryOS: the other state of SIP and boot policy from now on.
    SwitchSip,
}

/// What follows from a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urge {
    /// It opens a session at this time.
    Connect(Ms),
    /// It has another push address, and tells it at this time.
    Readdress(Ms),
    /// Its owner removes the profile and enrols it again.
    Reenrol(Ms),
}

impl Habit {
    /// Six in ten are servers, three stand on desks, one is carried about.
    pub fn of(index: usize) -> Self {
        match index % 10 {
            0..6 => Self::Server,
            6..9 => Self::Desk,
            _ => Self::Laptop,
        }
    }
}

impl Mac {
    /// Its life goes on: the present state of power is over. Returns when the next one is, and what
    /// else comes of it.
    pub fn live(&mut self, now: Ms) -> (Ms, Vec<Urge>) {
        let mut urges = Vec::new();
        let span = match self.power {
            Power::Awake => self.leave_desk(now, &mut urges),
            Power::Asleep if self.habit == Habit::Laptop && self.chance.per_million(400_000) => {
                self.enter(Power::Nap, now, &mut urges);
                self.chance.between(30_000, 12 * MINUTE)
            }
            Power::Nap if self.chance.per_million(500_000) => {
                self.enter(Power::Asleep, now, &mut urges);
                self.chance.between(10 * MINUTE, 2 * HOUR)
            }
            Power::Asleep | Power::Nap => self.wake_up(now, &mut urges),
            Power::Down(errand) => {
                self.come_up(errand, now, &mut urges);
                self.wake_up(now, &mut urges)
            }
        };
        (beat(now + span), urges)
    }

    fn wake_up(&mut self, now: Ms, urges: &mut Vec<Urge>) -> Ms {
        self.enter(Power::Awake, now, urges);
        match self.habit {
            Habit::Server => self.chance.between(8 * HOUR, 48 * HOUR),
            Habit::Desk => self.chance.between(10 * HOUR, 16 * HOUR),
            Habit::Laptop => self.chance.between(20 * MINUTE, 6 * HOUR),
        }
    }

    fn leave_desk(&mut self, now: Ms, urges: &mut Vec<Urge>) -> Ms {
        // Of a million times that it ends being awake: a server does some 80 times in ninety days, a
        // laptop three times as often.
        let part = if self.habit == Habit::Laptop { 3 } else { 1 };
        let often = |times: u64| times * self.eventful / part;
        let switch_sip = if self.is_secure() {
            often(8_000)
        } else {
            600_000
        };
        let toggles = if self.spec.filevault {
            often(2_000)
        } else {
            700_000
        };
        let (restarts, updates, reenrols) = (often(40_000), often(30_000), often(6_000));
        let errands = [
            (Errand::SwitchSip, switch_sip, 3 * MINUTE, 15 * MINUTE),
            (Errand::Update, updates, 15 * MINUTE, 45 * MINUTE),
            (Errand::Restart, restarts, 2 * MINUTE, 5 * MINUTE),
        ];
        for (errand, times, least, most) in errands {
            if self.chance.per_million(times) {
                self.enter(Power::Down(errand), now, urges);
                return self.chance.between(least, most);
            }
        }
        if self.chance.per_million(toggles) {
            self.spec.filevault = !self.spec.filevault;
            self.report = None;
        }
        if self.chance.per_million(reenrols) {
            urges.push(Urge::Reenrol(beat(
                now + self.chance.between(MINUTE, 20 * MINUTE),
            )));
            return self.wake_up(now, urges);
        }
        match self.habit {
            Habit::Server => self.wake_up(now, urges),
            Habit::Desk => {
                self.enter(Power::Asleep, now, urges);
                self.chance.between(7 * HOUR, 12 * HOUR)
            }
            Habit::Laptop => {
                self.enter(Power::Asleep, now, urges);
                if self.chance.per_million(10_000) {
                    self.chance.between(DAY, 16 * DAY)
                } else {
                    self.chance.between(10 * MINUTE, 10 * HOUR)
                }
            }
        }
    }

    fn enter(&mut self, power: Power, now: Ms, urges: &mut Vec<Urge>) {
        let before = std::mem::replace(&mut self.power, power);
        match power {
            Power::Awake | Power::Nap => {
                self.listen(true);
                let soon = beat(now + self.chance.between(1_000, 10_000));
                let polls = power == Power::Awake && std::mem::take(&mut self.auto_poll);
                if self.hears_a_push() || polls || self.unsent.is_some() {
                    urges.push(Urge::Connect(soon));
                }
                if power == Power::Awake && before != Power::Awake {
                    self.reachable_since = Some(now);
                }
            }
            Power::Asleep | Power::Down(_) => {
                self.listen(false);
                // What was being made is made when it wakes, if it wakes.
                self.working = None;
                self.reachable_since = None;
            }
        }
    }

    fn come_up(&mut self, errand: Errand, now: Ms, urges: &mut Vec<Urge>) {
        self.unsent = None;
        self.auto_poll = false;
        self.starts += 1;
        let soon = beat(now + self.chance.between(20_000, 2 * MINUTE));
        match errand {
            Errand::Restart => {}
            Errand::Update => {
                let (major, minor) = self.spec.os_version.split_once('.').unwrap_or(("26", "6"));
                let minor: u32 = minor
                    .split('.')
                    .next()
                    .and_then(|n| n.parse().ok())
                    .unwrap_or(0);
                self.spec.os_version = format!("{major}.{}", minor + 1);
                if self.chance.per_million(300_000) {
                    urges.push(Urge::Readdress(soon));
                }
            }
            Errand::SwitchSip => {
                // SIP off on Apple silicon implies a permissive policy (apple-protocol 4).
                let secure = self.is_secure();
                self.spec.boot = attestd_sim::apple::BootPolicy {
                    sip_enabled: !secure,
                    secure_boot: if secure {
                        attestd_sim::apple::SecureBoot::Permissive
                    } else {
                        attestd_sim::apple::SecureBoot::Full
                    },
                    third_party_kexts: false,
                };
                self.report = None;
                self.tally.switched_sip(secure, now);
            }
        }
        if self.chance.per_million(500_000) {
            urges.push(Urge::Connect(soon));
        }
    }
}
