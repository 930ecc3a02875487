//! Tables for one Mac, and sequences of whatever may happen to it.

use proptest::prelude::*;

use super::*;
use crate::attestation::Freshness;
use crate::entropy::SeededEntropy;
use crate::ids::{CertificateHash, CommandUuid, EvidenceId};
use crate::mdm::security_info::SecurityInfo;
use crate::posture::Reported;
use crate::posture::policy::{Policy, STRICT};
use crate::verification::Request;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// One Mac and everything that an agenda follows, as a store would keep it.
struct World {
    now: Timestamp,
    entropy: SeededEntropy,
    rules: Rules,
    agenda: Agenda,
    posture: Posture,
    open: Option<Verification>,
    /// Since the last time the Mac's address changed nothing is known of pushes that APNs took.
    pushes: Vec<Timestamp>,
    /// Hand-overs of the attestation's question.
    asked_apple: Vec<Timestamp>,
    /// When Apple last made a statement for us.
    minted_at: Option<Timestamp>,
    readdressed: Vec<Timestamp>,
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_seconds(1_790_847_007).plus(Duration::from_secs(seconds))
}

fn enrolled(number: u64) -> World {
    let entropy = SeededEntropy::new(number);
    let device_id = DeviceId::new(at(0), &entropy);
    let mut agenda = Agenda::new(device_id.clone(), at(0));
    agenda.stands(true, at(0));
    World {
        now: at(0),
        entropy,
        rules: Rules::usual(),
        agenda,
        posture: Posture::unknown(device_id, at(0)),
        open: None,
        pushes: Vec::new(),
        asked_apple: Vec::new(),
        minted_at: None,
        readdressed: Vec::new(),
    }
}

impl World {
    fn pass(&mut self, span: Duration) {
        self.now = self.now.plus(span);
    }

    fn next(&self) -> Next {
        self.agenda.next(&self.rules)
    }

    fn due_in(&self) -> Duration {
        self.next().due_at.expect("something is due").since(self.now)
    }

    fn start(&mut self, kinds: &[Kind], priority: Priority) {
        let request = Request {
            kinds: kinds.to_vec(),
            priority,
            occasion: String::new(),
            patience: self.rules.patience,
        };
        let open = match self.open.take() {
            Some(mut open) => {
                open.join(&request, self.now);
                open
            }
            None => Verification::start(
                VerificationId::new(self.now, &self.entropy),
                self.agenda.device_id.clone(),
                &request,
                self.now,
            ),
        };
        self.keep(open);
    }

    fn keep(&mut self, open: Verification) {
        self.agenda.attempts(&open);
        self.open = (!open.is_finished()).then_some(open);
    }

    /// What the sweep does: everything that is due, and the push if APNs takes it.
    fn sweep(&mut self, apns: Result<(), Reason>) {
        for round in 0.. {
            assert!(round < 10, "there is no end to what is due");
            match self.agenda.step(&self.rules, self.now) {
                Step::Nothing => break,
                Step::Expire => {
                    let mut open = self.open.take().expect("an attempt");
                    open.settle(None, self.now);
                    self.keep(open);
                }
                Step::Ask(kinds, priority) => {
                    assert!(!kinds.is_empty());
                    self.start(&kinds, priority);
                }
                Step::Wake(_) => {
                    assert!(self.wake(false, apns), "what is planned can be done");
                }
            }
        }
        let due_at = self.next().due_at;
        assert!(due_at.is_none_or(|at| at > self.now), "{:?}", self.agenda);
    }

    fn wake(&mut self, asked: bool, apns: Result<(), Reason>) -> bool {
        if !self.agenda.begin_push(asked, &self.rules, self.now) {
            return false;
        }
        let mut open = self.open.take().expect("something is owed");
        match apns {
            Ok(()) => {
                self.agenda.pushed();
                self.pushes.push(self.now);
                open.pushed(self.now);
            }
            Err(reason) => {
                self.agenda.not_pushed(reason, false, self.now);
                open.not_pushed(reason, None, self.now);
            }
        }
        self.keep(open);
        true
    }

    /// The Mac connects, and is asked what is owed and what is ripe: which kind comes first.
    fn connect(&mut self) -> Option<Kind> {
        let owes_from = self.next().owes_from;
        let ripe = self.agenda.ripe(&self.rules, self.now);
        if !ripe.is_empty() {
            let priority = self.agenda.priority(&ripe, &self.rules);
            self.start(&ripe, priority);
        }
        let kind = self.open.as_ref().and_then(|open| open.next(None, self.now));
        assert_eq!(
            kind.is_some(),
            owes_from.is_some_and(|from| from <= self.now),
            "what memory says of a Mac that connects is what happens"
        );
        let kind = kind?;
        let mut open = self.open.take().expect("an attempt");
        let name = CommandUuid::new(&self.entropy);
        let handed_over = open.hand_over(kind, name.clone());
        if handed_over {
            if kind == Kind::Mda {
                self.asked_apple.push(self.now);
            }
            self.agenda.talks(&self.command(&open, kind, name, CommandState::Outstanding));
        } else {
            open.settle(None, self.now);
        }
        self.keep(open);
        handed_over.then_some(kind)
    }

    fn command(
        &self,
        open: &Verification,
        kind: Kind,
        command_uuid: CommandUuid,
        state: CommandState,
    ) -> Command {
        Command {
            command_uuid,
            device_id: self.agenda.device_id.clone(),
            verification_id: open.verification_id.clone(),
            kind,
            identity: CertificateHash::of(b"the Mac"),
            state,
            handed_over_at: self.now,
            concluded_at: None,
        }
    }

    /// The Mac connects and answers everything; each kind as `how` says.
    fn session(&mut self, how: impl Fn(Kind) -> Said) -> usize {
        let mut answers = 0;
        while let Some(kind) = self.connect() {
            answers += 1;
            let said = how(kind);
            let mut open = self.open.take().expect("an attempt");
            let name = CommandUuid::new(&self.entropy);
            self.agenda.talks(&self.command(&open, kind, name, CommandState::Answered));
            match said {
                Said::Good | Said::Negative => {
                    open.answered(kind, None);
                    self.learn(kind, said);
                    self.agenda.believes(&self.posture);
                }
                Said::Error => open.failed(kind, Reason::CommandError),
                Said::Nothing => open.failed(kind, Reason::AttestationUnavailable),
                Said::NotNow => open.not_now(kind),
            }
            open.settle(None, self.now);
            self.keep(open);
            if said == Said::NotNow || answers > 5 {
                break;
            }
        }
        answers
    }

    fn learn(&mut self, kind: Kind, said: Said) {
        match kind {
            Kind::SecurityInfo => {
                let facts = SecurityInfo {
                    sip_enabled: Some(said == Said::Good),
                    ..SecurityInfo::default()
                };
                let reading = Reported {
                    facts,
                    evidence_id: EvidenceId::of(b"said"),
                    asked_at: self.now,
                    observed_at: self.now,
                    channel: crate::posture::Channel::Software,
                };
                self.posture.report(reading, self.now);
            }
            Kind::Mda => {
                // Apple makes a new one only when the last is seven days old.
                let fresh = self
                    .minted_at
                    .is_none_or(|at| self.now.since(at) >= APPLE_WINDOW);
                if fresh {
                    self.minted_at = Some(self.now);
                }
                let minted_at = self.minted_at.expect("made");
                let se_public_key = String::new();
                let freshness = if fresh {
                    Freshness::Fresh {
                        minted_at,
                        se_public_key,
                    }
                } else {
                    Freshness::CachedKnown {
                        minted_at,
                        se_public_key,
                    }
                };
                let reading = Attested {
                    occasion: Occasion::Mda,
                    facts: crate::attestation::Statement::default(),
                    freshness,
                    evidence_id: EvidenceId::of(b"stated"),
                    observed_at: self.now,
                    not_after: self.now.plus(90 * DAY),
                };
                self.posture.attest(reading, self.now);
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Good,
    Negative,
    Error,
    /// The attestation is left out.
    Nothing,
    NotNow,
}

/// A Mac that answered everything.
fn known(number: u64) -> World {
    let mut world = enrolled(number);
    world.sweep(Ok(()));
    assert_eq!(world.session(|_| Said::Good), 2);
    world
}

#[test]
fn the_usual_rules_are_those_of_the_shipped_policy() {
    let policy = Policy::parse(STRICT).expect("shipped");
    assert_eq!(Rules::new(&policy, 2, HOUR), Rules::usual());
}

#[test]
fn a_new_mac_is_asked_everything_at_once_by_one_push() {
    let mut world = enrolled(1);
    assert_eq!(
        world.agenda.step(&world.rules, world.now),
        Step::Ask(vec![Kind::SecurityInfo, Kind::Mda], Priority::First)
    );
    world.sweep(Ok(()));
    assert_eq!(world.pushes, [at(0)]);
    assert_eq!(world.session(|_| Said::Good), 2);
}

#[test]
fn what_is_known_is_renewed_ahead_of_time_each_mac_at_a_time_of_its_own() {
    let mut due = Vec::new();
    for number in 0..500 {
        let world = known(number);
        let next = world.next();
        assert_eq!(next.priority, Priority::Refresh);
        due.push(world.due_in());
        let ripe_in = next.owes_from.expect("ripe").since(world.now);
        let quarter = (world.due_in() - ripe_in).as_secs() - world.due_in().as_secs() / 4;
        assert!(quarter <= 1, "{quarter}");
    }
    due.sort();
    assert!(due[0] >= 48 * MINUTE && due[499] <= 72 * MINUTE);
    // Evenly: no tenth of the spread has twice its share.
    for tenth in 0..10_u32 {
        let from = 48 * MINUTE + tenth * 24 * MINUTE / 10;
        let to = from + 24 * MINUTE / 10;
        let share = due.iter().filter(|at| (from..to).contains(*at)).count();
        assert!((25..100).contains(&share), "{share} of 500 in tenth {tenth}");
    }
}

#[test]
fn a_mac_that_comes_by_itself_shortly_before_is_not_woken() {
    let mut world = known(3);
    let (due_in, ripe_at) = (world.due_in(), world.next().owes_from.expect("ripe"));
    world.pass(due_in / 2);
    assert_eq!(world.session(|_| Said::Good), 0);
    world.pass(ripe_at.since(world.now));
    assert_eq!(world.session(|_| Said::Good), 1);
    world.pass(due_in / 4);
    world.sweep(Ok(()));
    assert_eq!(world.pushes.len(), 1);
}

#[test]
fn the_seven_days_of_apple_are_waited_for_whoever_asks() {
    let mut world = known(4);
    let eligible_at = world.agenda.eligible_at().expect("known");
    assert_eq!(eligible_at, at(0).plus(7 * DAY));
    world.agenda.bring_forward(&[Kind::Mda], Cause::KeyChanged, world.now);
    let mut sessions = 0;
    while world.now < eligible_at {
        world.pass(HOUR);
        world.sweep(Ok(()));
        world.session(|_| Said::Good);
        sessions += 1;
    }
    assert!(sessions > 100);
    // At once from then on, by the next push or connection.
    assert_eq!(world.asked_apple, [at(0), eligible_at]);
}

#[test]
fn each_way_of_failing_has_its_pause_and_a_refresh_waits_longer_than_a_first_proof() {
    let minutes = |from: u64, to: u64| (from * MINUTE.as_secs(), to * MINUTE.as_secs());
    // SecurityInfo of a Mac nothing is known of, and of one whose last reading still counts.
    for (how, first, refresh) in [
        (
            Said::Error,
            [minutes(2, 4), minutes(6, 12), minutes(15, 30), minutes(15, 30)],
            [minutes(15, 30), minutes(30, 60), minutes(60, 120), minutes(60, 120)],
        ),
        (Said::NotNow, [minutes(30, 60); 4], [minutes(30, 60); 4]),
    ] {
        for (pauses, is_known) in [(first, false), (refresh, true)] {
            let mut world = if is_known { known(5) } else { enrolled(5) };
            world.rules.pushes_per_hour = 60;
            if is_known {
                let due_in = world.due_in();
                world.pass(due_in);
            }
            for (from, to) in pauses {
                world.sweep(Ok(()));
                let says = |kind| match kind {
                    Kind::SecurityInfo => how,
                    Kind::Mda => Said::Good,
                };
                world.session(says);
                // An attempt that was answered NotNow is open until its time is over.
                while world.open.is_some() {
                    world.pass(world.due_in());
                    world.sweep(Ok(()));
                    if world.open.is_some() {
                        world.session(says);
                    }
                }
                let pause = world.due_in().as_secs();
                assert!(
                    (from..=to).contains(&pause),
                    "{how:?} {is_known}: {from} to {to}, not {pause}"
                );
                world.pass(world.due_in());
            }
        }
    }
}

#[test]
fn an_attestation_that_is_left_out_is_tried_again_after_hours() {
    let mut world = enrolled(6);
    for (from, to) in [(1, 2), (3, 6), (12, 24), (12, 24)] {
        // SecurityInfo goes on by its own clock meanwhile.
        let before = world.asked_apple.len();
        let failed_at = world.now;
        while world.asked_apple.len() == before {
            world.sweep(Ok(()));
            world.session(|kind| match kind {
                Kind::SecurityInfo => Said::Good,
                Kind::Mda => Said::Nothing,
            });
            if world.asked_apple.len() == before {
                world.pass(world.due_in());
            }
        }
        if before > 0 {
            let pause = world.now.since(failed_at);
            assert!(pause >= HOUR && pause <= 25 * HOUR, "{pause:?}");
        }
        let clock = world.agenda.mda.wish(
            Kind::Mda,
            &world.agenda.device_id,
            &world.rules.mda,
            world.agenda.since,
        );
        let pause = clock.ask_at.since(world.now).as_secs();
        assert!((from * 3600..=to * 3600).contains(&pause), "{pause}");
    }
}

#[test]
fn a_silent_mac_is_woken_again_within_its_budget_then_less_and_less() {
    let mut world = known(7);
    let mut per_day = Vec::new();
    for _ in 0..3 {
        let before = world.pushes.len();
        let until = world.now.plus(DAY);
        while world.now < until {
            world.pass(world.due_in().min(until.since(world.now)));
            world.sweep(Ok(()));
        }
        per_day.push(world.pushes.len() - before);
    }
    assert!(per_day[0] > per_day[1] && per_day[1] <= 16, "{per_day:?}");
    // As soon as it comes it is asked.
    assert!(world.session(|_| Said::Good) >= 1);
    assert!(world.due_in() >= 48 * MINUTE);
}

#[test]
fn a_negative_reading_is_confirmed_once_and_not_asked_for_in_a_loop() {
    let mut world = known(8);
    world.rules.pushes_per_hour = 60;
    world.pass(world.due_in());
    world.sweep(Ok(()));
    world.session(|_| Said::Negative);
    assert_eq!(world.due_in(), CONFIRM_AFTER);
    assert_eq!(world.next().priority, Priority::Expired);
    world.pass(CONFIRM_AFTER);
    world.sweep(Ok(()));
    world.session(|_| Said::Negative);
    assert!(world.due_in() >= 48 * MINUTE, "{:?}", world.due_in());
    // Once it is as it should be again, the next negative is confirmed again.
    world.pass(world.due_in());
    world.sweep(Ok(()));
    world.session(|_| Said::Good);
    world.pass(world.due_in());
    world.sweep(Ok(()));
    world.session(|_| Said::Negative);
    assert_eq!(world.due_in(), CONFIRM_AFTER);
}

#[test]
fn an_event_that_may_change_the_mac_brings_the_next_question_forward() {
    for cause in [Cause::SystemChanged, Cause::Restarted, Cause::KeyChanged] {
        let mut world = known(9);
        world.pass(5 * MINUTE);
        let both = [Kind::SecurityInfo, Kind::Mda];
        world.agenda.bring_forward(&both, cause, world.now);
        assert_eq!(
            (world.due_in(), world.next().priority),
            (Duration::ZERO, Priority::Expired)
        );
        world.sweep(Ok(()));
        assert_eq!(world.session(|_| Said::Good), 1);
        assert!(world.due_in() >= 48 * MINUTE);
    }
}

#[test]
fn a_new_enrollment_begins_anew_and_its_pushes_still_count() {
    let mut world = known(10);
    world.pass(5 * MINUTE);
    world.agenda.stands(false, world.now);
    assert_eq!(world.next().due_at, None);
    world.agenda.stands(true, world.now);
    assert_eq!(world.agenda.eligible_at(), None);
    assert_eq!(world.next().priority, Priority::First);
    world.posture = Posture::unknown(world.agenda.device_id.clone(), world.now);
    world.minted_at = None;
    world.sweep(Ok(()));
    assert_eq!(world.session(|_| Said::Good), 2);
    assert_eq!(world.pushes.len(), 2);
    assert!(world.agenda.held(&world.rules, world.now).is_some());
}

#[test]
fn of_a_mac_that_left_or_was_revoked_nothing_is_asked() {
    let mut world = known(11);
    world.posture.revoke(world.now);
    world.agenda.believes(&world.posture);
    assert_eq!((world.next().due_at, world.next().owes_from), (None, None));
    world.posture.restore();
    world.agenda.believes(&world.posture);
    assert!(world.next().due_at.is_some());
    world.agenda.stands(false, at(0));
    assert_eq!((world.next().due_at, world.next().owes_from), (None, None));
}

#[test]
fn whoever_is_in_a_session_is_not_woken() {
    let mut world = known(12);
    world.pass(world.due_in() - MINUTE);
    // Asked in a session of its own, and busy with it.
    assert_eq!(world.connect(), Some(Kind::SecurityInfo));
    world.sweep(Ok(()));
    assert_eq!(world.pushes.len(), 1);
    world.pass(budget::LEASE);
    world.sweep(Ok(()));
    assert_eq!(world.pushes.len(), 2);
}

#[derive(Debug, Clone)]
enum Happens {
    Passes(u64),
    Sweep(Option<Reason>),
    Session(u8),
    Connects,
    BringForward(bool, bool),
    Asked,
    Readdressed,
}

fn happenings() -> impl Strategy<Value = Vec<Happens>> {
    let one = prop_oneof![
        4 => (0_u64..7_200).prop_map(Happens::Passes),
        1 => (0_u64..400_000).prop_map(Happens::Passes),
        4 => Just(Happens::Sweep(None)),
        1 => Just(Happens::Sweep(Some(Reason::PushThrottled))),
        1 => Just(Happens::Sweep(Some(Reason::ServiceDegraded))),
        4 => any::<u8>().prop_map(Happens::Session),
        1 => Just(Happens::Connects),
        1 => any::<(bool, bool)>().prop_map(|(sooner, all)| Happens::BringForward(sooner, all)),
        2 => Just(Happens::Asked),
        1 => Just(Happens::Readdressed),
    ];
    proptest::collection::vec(one, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever happens in whatever order: budget, seven days and due times hold.
    #[test]
    fn no_sequence_of_events_breaks_a_budget_or_forgets_a_mac(
        number in 0_u64..1_000, happens in happenings(),
    ) {
        let mut world = enrolled(number);
        for one in happens {
            match one {
                Happens::Passes(seconds) => world.pass(Duration::from_secs(seconds)),
                Happens::Sweep(refused) => world.sweep(refused.map_or(Ok(()), Err)),
                Happens::Session(how) => {
                    world.session(|kind| match (how % 8, kind) {
                        (0, Kind::SecurityInfo) => Said::Negative,
                        (1, _) => Said::Error,
                        (2, _) => Said::NotNow,
                        (3, Kind::Mda) => Said::Nothing,
                        _ => Said::Good,
                    });
                }
                Happens::Connects => { world.connect(); }
                Happens::BringForward(mda, restarted) => {
                    let kinds = if mda { &[Kind::SecurityInfo, Kind::Mda][..] } else { &[Kind::SecurityInfo] };
                    let cause = if restarted { Cause::Restarted } else { Cause::KeyChanged };
                    world.agenda.bring_forward(kinds, cause, world.now);
                }
                Happens::Asked => {
                    world.start(&[Kind::SecurityInfo], Priority::Refresh);
                    world.wake(true, Ok(()));
                }
                Happens::Readdressed => {
                    world.agenda.readdressed(world.now);
                    world.readdressed.push(world.now);
                }
            }
            // An agenda is the same once it was stored and read.
            let stored = serde_json::to_string(&world.agenda).expect("JSON");
            prop_assert_eq!(&serde_json::from_str::<Agenda>(&stored).expect("an agenda"), &world.agenda);
            // Something is always due: something is owed, or evidence will expire.
            let next = world.next();
            prop_assert!(next.due_at.is_some() && next.owes_from.is_some());
            // Not later than the longest pause, and evidence never runs out unasked, unless asking
            // has failed.
            let due_in = next.due_at.expect("due").since(world.now);
            prop_assert!(due_in <= 7 * DAY, "{:?}", due_in);
        }
        for (index, at) in world.pushes.iter().enumerate() {
            let hour = world.pushes[index..].iter()
                .take_while(|later| later.since(*at) < HOUR).count();
            let extra = world.readdressed.iter().any(|moved| {
                *moved <= at.plus(HOUR) && at.since(*moved) < 2 * HOUR
            });
            prop_assert!(hour <= 2 + usize::from(extra), "{} pushes in the hour from {}", hour, at);
        }
        // Of two questions to Apple with a new statement between them, seven days lie between.
        if let Some(minted_at) = world.minted_at {
            let early = world.asked_apple.iter()
                .any(|asked| *asked > minted_at && asked.since(minted_at) < APPLE_WINDOW);
            prop_assert!(!early);
        }
    }
}
