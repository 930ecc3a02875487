//! The run: what happens when, one instant after the other, on a clock that stands still meanwhile.
//!
//! What happens to different Macs in the same instant happens at the same time, as at a real server;
//! what one Mac does is decided by its own chance alone. So the same seed gives the same run.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::sync::Arc;

use anyhow::Context as _;
use attestd::flows::{remove_old, sweep};
use attestd::time::Timestamp;
use attestd_sim::apns::Fault as PushFault;
use attestd_sim::{Authorities, Clock, WorldOptions};
use futures_util::{StreamExt as _, stream};

use crate::act::{Did, act};
use crate::checks::{self, Fault, Place};
use crate::house::{Estate, House};
use crate::judge::Verdict;
use crate::mac::{GoesOn, Mac, Origin, Power, Software, Urge, enrols_at};
use crate::plan::{Outcome, Plan, Progress};
use crate::random::Chance;
use crate::record::{Ages, Log, hour};
use crate::schedule;
use crate::time::{DAY, HOUR, MINUTE, Ms, SECOND, START, beat, whole_second};

/// Macs whose sessions run at the same time.
const AT_ONCE: usize = 64;
const TOPIC: &str = "com.apple.mgmt.External.50a50a50-0000-4000-8000-000000000001";
/// How many times as much happens to a Mac that has a provider's session.
const EVENTFUL: u64 = 4;
/// A run ends with its first faults: later ones mostly follow from them.
const FAULTS: usize = 20;

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum What {
    Sweep,
    /// The next second of pushes.
    Wake,
    Minute,
    Hour,
    /// APNs breaks down, or works again.
    Outage(bool),
    /// The server is killed.
    Kill,
    Start,
    Enrol(usize),
    Live(usize),
    Readdress(usize),
    Attested(usize),
    Connect(usize),
    /// Its evidence ends, unless there is newer.
    Expiry(usize),
    /// Its software and the coordinator have something to say to each other.
    Speak(usize),
    /// Its session can be routed to no longer, unless something came.
    Doubt(usize),
}

/// The world under way.
#[derive(Debug)]
pub struct World {
    plan: Plan,
    sim: attestd_sim::World,
    clock: Clock,
    estate: Estate,
    house: Option<House>,
    macs: Vec<Option<Box<Mac>>>,
    /// Whose expiry is waited for, and whose session's doubt.
    expiries: Vec<bool>,
    doubts: Vec<bool>,
    /// When the next sweep is.
    sweep_at: Option<Ms>,
    by_token: HashMap<String, usize>,
    queue: BinaryHeap<Reverse<(Ms, u64, What)>>,
    entries: u64,
    now: Ms,
    chance: Chance,
    log: Log,
    outcome: Outcome,
    pushes: usize,
    outage: bool,
    /// Since when neither APNs nor the server was down.
    clear_since: Ms,
}

impl World {
    /// Everything there is before the first Mac enrols.
    pub async fn new(plan: Plan) -> anyhow::Result<Self> {
        let clock = Clock::fixed(START);
        let options = WorldOptions {
            authorities: Some(Authorities::new(Some(TOPIC), START)?),
            clock: clock.clone(),
            ..WorldOptions::default()
        };
        let sim = attestd_sim::World::start(options).await?;
        let estate = Estate::new(&sim, &plan)?;
        let house = estate.start(0).await?;
        let macs = (0..plan.macs)
            .map(|index| Ok(Some(Box::new(Mac::new(index, plan.seed, plan.eventful)?))));
        let mut world = Self {
            sim,
            clock,
            estate,
            house: Some(house),
            macs: macs.collect::<anyhow::Result<_>>()?,
            expiries: vec![false; plan.macs],
            doubts: vec![false; plan.macs],
            sweep_at: None,
            by_token: HashMap::new(),
            queue: BinaryHeap::new(),
            entries: 0,
            now: START,
            chance: Chance::new(plan.seed, 0),
            log: Log::new(plan.log.as_deref())?,
            outcome: Outcome {
                macs: Vec::new(),
                hours: Vec::new(),
                ages: Ages::default(),
                faults: Vec::new(),
                passed_over: 0,
                log_hash: String::new(),
                log_lines: 0,
                restarts: 0,
                outages: 0,
                sweeps: 0,
                ended_at: START,
            },
            pushes: 0,
            outage: false,
            clear_since: START,
            plan,
        };
        world.at(START + MINUTE, What::Minute);
        world.at(START + HOUR, What::Hour);
        let often = world.often();
        let kill = world.chance.between(DAY / often, 4 * DAY / often);
        world.at(beat(START + kill), What::Kill);
        let outage = world.chance.between(DAY / often, 5 * DAY / often);
        world.at(beat(START + outage), What::Outage(true));
        for index in 0..world.plan.macs {
            world.at(enrols_at(index, world.plan.macs), What::Enrol(index));
        }
        for index in 0..world.plan.sessions.min(world.plan.macs) {
            world.equip(index)?;
        }
        Ok(world)
    }

    /// How many times as often as usual the server is killed and pushes fail.
    fn often(&self) -> Ms {
        Ms::try_from(self.plan.eventful.clamp(1, 4)).unwrap_or(1)
    }

    /// Has the provider's software run on a Mac, and more happen to it.
    fn equip(&mut self, index: usize) -> anyhow::Result<()> {
        let mac = self.macs[index].as_mut().context("a Mac that is away")?;
        let software = Software::new(index, &mac.spec.serial, &self.clock)?;
        mac.software = Some(Box::new(software));
        mac.eventful *= EVENTFUL;
        let first = enrols_at(index, self.plan.macs) + mac.chance.between(MINUTE, 3 * HOUR);
        self.at(whole_second(first), What::Speak(index));
        Ok(())
    }

    fn at(&mut self, at: Ms, what: What) {
        self.entries += 1;
        self.queue
            .push(Reverse((at.max(self.now), self.entries, what)));
    }

    /// Runs to the end, or to the first faults. `each_day` is told when a day is over.
    pub async fn run(
        mut self,
        mut each_day: impl FnMut(i64, &Progress),
    ) -> anyhow::Result<Outcome> {
        let end = START + self.plan.days * DAY;
        let mut day = 1;
        while let Some(Reverse((at, _, _))) = self.queue.peek()
            && *at <= end
            && self.outcome.faults.len() < FAULTS
        {
            let at = *at;
            self.clock.advance(at - self.now);
            self.estate.clock.set(Timestamp::from_millis(at));
            self.now = at;
            self.instant()
                .await
                .with_context(|| crate::time::told(at))?;
            while at >= START + day * DAY {
                each_day(day, &self.progress());
                day += 1;
            }
        }
        self.outcome.ended_at = self.now;
        self.outcome.log_hash = self.log.digest();
        self.outcome.log_lines = self.log.lines;
        let macs = std::mem::take(&mut self.macs);
        self.outcome.macs = macs.into_iter().flatten().map(|mac| *mac).collect();
        Ok(self.outcome)
    }

    fn found(&mut self, faults: impl IntoIterator<Item = Fault>) {
        for fault in faults {
            if self.plan.without.iter().any(|rule| rule == fault.rule) {
                self.outcome.passed_over += 1;
            } else {
                self.outcome.faults.push(fault);
            }
        }
    }

    fn progress(&self) -> Progress {
        let macs = self.macs.iter().flatten();
        Progress {
            rounds: macs.map(|mac| mac.tally.rounds).sum(),
            hour: self.outcome.hours.last().copied().unwrap_or_default(),
        }
    }

    /// Everything that happens in this instant.
    async fn instant(&mut self) -> anyhow::Result<()> {
        let mut macs: BTreeMap<usize, Vec<What>> = BTreeMap::new();
        while let Some(Reverse((at, _, _))) = self.queue.peek()
            && *at == self.now
            && let Some(Reverse((_, _, what))) = self.queue.pop()
        {
            match what {
                What::Sweep => self.sweep().await?,
                // Done after everything else.
                What::Wake => {}
                What::Minute => self.minute().await?,
                What::Hour => self.hour().await?,
                What::Outage(begins) => self.outage(begins)?,
                What::Kill => self.kill()?,
                What::Start => self.start().await?,
                What::Live(index) => self.live(index)?,
                // Names are drawn in the order of events: these wait for each other.
                What::Enrol(index) => {
                    if self.enrol(index).await? {
                        macs.entry(index).or_default();
                    }
                }
                What::Readdress(index) => {
                    if self.readdress(index).await? {
                        macs.entry(index).or_default();
                    }
                }
                What::Attested(index)
                | What::Connect(index)
                | What::Expiry(index)
                | What::Speak(index)
                | What::Doubt(index) => {
                    macs.entry(index).or_default().push(what);
                }
            }
        }
        self.act(macs).await?;
        self.wake().await?;
        self.plan_sweep()
    }

    /// A sweep that finds nobody due changes nothing, so only those are run that find somebody.
    fn plan_sweep(&mut self) -> anyhow::Result<()> {
        let Some(house) = &self.house else {
            return Ok(());
        };
        let Some(due) = house.due_at()? else {
            return Ok(());
        };
        let at = self.sweep_after(due);
        if self.sweep_at.is_none_or(|planned| at < planned) {
            self.sweep_at = Some(at);
            self.at(at, What::Sweep);
        }
        Ok(())
    }

    /// The first sweep that finds who is due then.
    fn sweep_after(&self, due: Ms) -> Ms {
        let period = self.plan.sweep;
        let due = due.max(self.now + 1) - START;
        START + due + (-due).rem_euclid(period)
    }

    async fn sweep(&mut self) -> anyhow::Result<()> {
        // Planned once, and then again for somebody who is due before.
        if self.sweep_at.take_if(|at| *at <= self.now).is_none() {
            return Ok(());
        }
        if let Some(house) = &self.house {
            sweep::run_once(&house.ctx).await?;
            remove_old::run_once(&house.ctx).await?;
            self.outcome.sweeps += 1;
        }
        Ok(())
    }

    async fn minute(&mut self) -> anyhow::Result<()> {
        if let Some(house) = &self.house {
            schedule::keep_time(&house.ctx).await?;
        }
        self.at(self.now + MINUTE, What::Minute);
        Ok(())
    }

    async fn hour(&mut self) -> anyhow::Result<()> {
        if let Some(house) = &mut self.house {
            house.ctx.store.flush_seen().await?;
            schedule::record_refusals(house).await?;
        }
        self.at(self.now + HOUR, What::Hour);
        let trouble = self.outage || self.house.is_none();
        let macs = || self.macs.iter().flatten().map(AsRef::as_ref);
        let pushes = std::mem::take(&mut self.pushes);
        let hour = hour(macs(), &mut self.outcome.ages, self.now, pushes, trouble);
        let mut faults = Vec::new();
        for mac in macs().filter(|_| !trouble) {
            let place = Place {
                mac: mac.index,
                at: self.now,
            };
            let bad = mac.judge.allows(self.now).verdict == Verdict::Contraindicated;
            let since = mac
                .reachable_since
                .filter(|_| !bad && mac.power == Power::Awake);
            let since = since.map(|since| since.max(self.clear_since));
            let heard_at = mac.judge.report().map(|report| report.heard_at);
            faults.extend(checks::a_reachable_mac_is_kept_proved(
                place, since, heard_at,
            ));
        }
        self.outcome.hours.push(hour);
        self.found(faults);
        Ok(())
    }

    fn outage(&mut self, begins: bool) -> anyhow::Result<()> {
        let often = self.often();
        let fault = PushFault::Answer(503, "ServiceUnavailable");
        self.sim.apns().break_down(begins.then_some(fault));
        self.outage = begins;
        let next = if begins {
            self.outcome.outages += 1;
            self.chance.between(HOUR, 7 * HOUR)
        } else {
            self.clear_since = self.now;
            self.chance.between(3 * DAY / often, 9 * DAY / often)
        };
        self.at(beat(self.now + next), What::Outage(!begins));
        self.log.write(self.now, format_args!("outage {begins}"))
    }

    /// Without a word: what was in memory is lost.
    fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(house) = self.house.take() {
            self.outcome.restarts = house.times + 1;
        }
        let down = self.chance.between(20 * SECOND, 25 * MINUTE);
        self.at(beat(self.now + down), What::Start);
        self.log.write(self.now, format_args!("killed"))
    }

    async fn start(&mut self) -> anyhow::Result<()> {
        if let Some(file) = self.plan.database.strip_prefix("sqlite://") {
            crate::trim::trim(std::path::Path::new(file), self.now)?;
        }
        let house = self.estate.start(self.outcome.restarts).await?;
        schedule::keep_time(&house.ctx).await?;
        self.house = Some(house);
        self.clear_since = self.now;
        let often = self.often();
        let up = self.chance.between(2 * DAY / often, 6 * DAY / often);
        self.at(beat(self.now + up), What::Kill);
        self.log.write(self.now, format_args!("started"))
    }

    fn live(&mut self, index: usize) -> anyhow::Result<()> {
        let mac = self.macs[index].as_mut().context("a Mac that is away")?;
        let (next, urges) = mac.live(self.now);
        let power = mac.power;
        for urge in urges {
            match urge {
                Urge::Connect(at) => self.at(at, What::Connect(index)),
                Urge::Readdress(at) => self.at(at, What::Readdress(index)),
                Urge::Reenrol(at) => self.at(at, What::Enrol(index)),
            }
        }
        self.at(next, What::Live(index));
        self.log.write(self.now, format_args!("{index} {power:?}"))
    }

    /// False when it has to wait.
    async fn enrol(&mut self, index: usize) -> anyhow::Result<bool> {
        let mac = self.macs[index].as_mut().context("a Mac that is away")?;
        let (first, now) = (mac.device_id().is_none(), self.now);
        let again = mac.origin == crate::mac::Origin::Attested && mac.power == Power::Awake;
        if !first && !again {
            return Ok(false);
        }
        let Some(house) = &self.house else {
            self.at(now + 30 * MINUTE, What::Enrol(index));
            return Ok(false);
        };
        let former = mac.token().map(hex::encode);
        mac.enrol(&house.ctx, &self.sim, now)
            .await
            .with_context(|| format!("Mac {index} enrols"))?;
        mac.reachable_since = Some(now);
        self.address(index, former);
        if first {
            self.at(now + MINUTE, What::Live(index));
        }
        self.log.write(now, format_args!("{index} enrols"))?;
        Ok(true)
    }

    async fn readdress(&mut self, index: usize) -> anyhow::Result<bool> {
        let mac = self.macs[index].as_mut().context("a Mac that is away")?;
        if mac.power != Power::Awake {
            return Ok(false);
        }
        let Some(house) = &self.house else {
            self.at(self.now + 5 * MINUTE, What::Readdress(index));
            return Ok(false);
        };
        let former = mac.token().map(hex::encode);
        mac.readdress(&house.ctx, &self.sim, self.now).await?;
        self.address(index, former);
        self.log
            .write(self.now, format_args!("{index} has another address"))?;
        Ok(true)
    }

    fn address(&mut self, index: usize, former: Option<String>) {
        if let Some(former) = former {
            self.by_token.remove(&former);
        }
        let mac = self.macs[index].as_ref();
        let token = mac.and_then(|mac| mac.token());
        if let Some(token) = token.map(hex::encode) {
            self.by_token.insert(token, index);
        }
    }

    /// Lets these Macs do what they do now, each in its order, all at the same time, and looks at
    /// what is published of each afterwards.
    async fn act(&mut self, macs: BTreeMap<usize, Vec<What>>) -> anyhow::Result<()> {
        let ctx = self.house.as_ref().map(|house| Arc::clone(&house.ctx));
        let now = self.now;
        let mut away = Vec::new();
        for (index, whats) in macs {
            let mac = self.macs[index].take().context("a Mac that is away")?;
            if whats.iter().any(|what| matches!(what, What::Expiry(_))) {
                self.expiries[index] = false;
            }
            if whats.iter().any(|what| matches!(what, What::Doubt(_))) {
                self.doubts[index] = false;
            }
            away.push((mac, whats));
        }
        let mut acting = stream::iter(away)
            .map(|(mac, whats)| {
                let (ctx, sim) = (ctx.clone(), self.sim.clone());
                tokio::spawn(act(mac, whats, ctx, sim, now))
            })
            .buffered(AT_ONCE);
        let mut done = Vec::new();
        while let Some(did) = acting.next().await {
            done.push(did??);
        }
        drop(acting);
        for did in done {
            self.note(did)?;
        }
        Ok(())
    }

    fn note(&mut self, did: Did) -> anyhow::Result<()> {
        let Did {
            mut mac,
            came,
            spoke,
            faults,
            seen,
        } = did;
        let (index, now) = (mac.index, self.now);
        self.found(faults);
        for came in came {
            match came.goes_on_at {
                Some((at, GoesOn::Attested)) => self.at(at, What::Attested(index)),
                Some((at, GoesOn::Again)) => self.at(at, What::Connect(index)),
                None => {}
            }
            self.found(came.faults);
            if !came.words.is_empty() {
                let words = came.words.join(", ");
                self.log.write(now, format_args!("{index} {words}"))?;
            }
        }
        if let Some(seen) = seen {
            let until = seen.until.map(|until| until - START);
            let (verdict, revision) = (seen.verdict.word(), seen.revision);
            self.log
                .write(now, format_args!("{index} {verdict} {until:?} {revision}"))?;
        }
        if let Some(spoke) = spoke {
            *mac.tally.said.entry(spoke.word).or_default() += 1;
            self.at(spoke.next_at, What::Speak(index));
            let (word, seen) = (spoke.word, &mac.tally.session);
            let until = seen.until.map(|until| until - START);
            self.log.write(
                now,
                format_args!("{index} {word} {} {} {until:?}", seen.level, seen.bound),
            )?;
        }
        let session = mac.software.as_ref().map(|software| {
            let attested = mac.origin == Origin::Attested;
            software.judge.allows(&mac.judge, attested, now)
        });
        if let Some(until) = session.and_then(|session| session.routable_until)
            && !self.doubts[index]
        {
            self.doubts[index] = true;
            let last = until - 1;
            self.at(if now < last { last } else { until }, What::Doubt(index));
        }
        // Looked at in the last millisecond and in the first one after it.
        if let Some(until) = mac.judge.allows(now).until
            && !self.expiries[index]
        {
            self.expiries[index] = true;
            let last = until - 1;
            self.at(if now < last { last } else { until }, What::Expiry(index));
        }
        self.macs[index] = Some(mac);
        Ok(())
    }

    /// Sends the pushes that are wanted, and has the Macs hear of them.
    async fn wake(&mut self) -> anyhow::Result<()> {
        if let Some(house) = &self.house
            && let Some(at) = schedule::wake_all(&house.ctx).await?
        {
            self.at(at, What::Wake);
        }
        let mut taken = BTreeMap::new();
        for push in self.sim.apns().take_seen() {
            if push.status == 200
                && let Some(index) = self.by_token.get(&push.token)
            {
                *taken.entry(*index).or_insert(0_usize) += 1;
            }
        }
        let (now, mut faults) = (self.now, Vec::new());
        for (index, count) in taken {
            let mac = self.macs[index].as_mut().context("a Mac that is away")?;
            let place = Place {
                mac: index,
                at: now,
            };
            for _ in 0..count {
                self.pushes += 1;
                mac.tally.pushed(now);
                faults.extend(checks::pushes_stay_within_the_budget(
                    place,
                    &mac.tally.pushes,
                    mac.readdressed_at,
                ));
            }
            let heard = mac.hears_a_push();
            let lost = heard && mac.chance.per_million(10_000);
            if lost {
                mac.reachable_since = mac.reachable_since.map(|_| now);
            }
            if heard && !lost {
                let soon = mac.chance.between(SECOND, 5 * SECOND);
                self.at(beat(now + soon), What::Connect(index));
            }
            self.log
                .write(now, format_args!("{index} pushed {count} {heard} {lost}"))?;
        }
        self.found(faults);
        Ok(())
    }
}
