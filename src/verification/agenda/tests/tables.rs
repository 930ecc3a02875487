//! What is next after what happened to a Mac.

use super::*;
use crate::posture::policy::{Policy, STRICT};

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
        assert!(
            (25..100).contains(&share),
            "{share} of 500 in tenth {tenth}"
        );
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
    // Apple's clock, the Mac's and ours: rather late than early.
    assert_eq!(eligible_at, at(0).plus(7 * DAY + 10 * MINUTE));
    world
        .agenda
        .bring_forward(&[Kind::Mda], Cause::KeyChanged, world.now);
    let mut sessions = 0;
    while world.now < eligible_at {
        world.pass(HOUR);
        world.sweep(Ok(()));
        world.session(|_| Said::Good);
        sessions += 1;
    }
    assert!(sessions > 100);
    // From then on by the next push or connection.
    assert_eq!(world.asked_apple, [at(0), world.now]);
    assert!(world.now.since(eligible_at) < HOUR);
}

#[test]
fn each_way_of_failing_has_its_pause_and_a_refresh_waits_longer_than_a_first_proof() {
    let minutes = |from: u64, to: u64| (from * MINUTE.as_secs(), to * MINUTE.as_secs());
    // SecurityInfo of a Mac nothing is known of, and of one whose last reading still counts.
    for (how, first, refresh) in [
        (
            Said::Error,
            [
                minutes(2, 4),
                minutes(6, 12),
                minutes(15, 30),
                minutes(15, 30),
            ],
            [
                minutes(15, 30),
                minutes(30, 60),
                minutes(60, 120),
                minutes(60, 120),
            ],
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
                let agenda = &world.agenda;
                let pause = agenda
                    .security_info
                    .wish(
                        Kind::SecurityInfo,
                        &agenda.device_id,
                        &world.rules.security_info,
                        agenda.since,
                    )
                    .ask_at
                    .since(world.now);
                let seconds = pause.as_secs();
                assert!(
                    (from..=to).contains(&seconds),
                    "{how:?} {is_known}: {from} to {to}, not {seconds}"
                );
                world.pass(pause);
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
fn an_answer_that_comes_after_its_attempt_ends_the_silence_too() {
    for number in 0..20 {
        let mut world = known(number);
        let until = world.now.plus(DAY);
        // It sleeps until an attempt has just been given up.
        while world.now < until || world.open.is_some() {
            world.pass(world.due_in());
            world.sweep(Ok(()));
        }
        world.pass(MINUTE);
        world.learn(Kind::SecurityInfo, Said::Good);
        world.agenda.believes(&world.posture);
        let lifetime = world.rules.security_info.clone();
        let latest = lifetime.ask_again.0 + lifetime.spread.0;
        assert!(world.due_in() <= latest, "{number}: {:?}", world.due_in());
    }
}

#[test]
fn a_mac_that_was_silent_while_nobody_served_is_asked_again_within_the_hour() {
    let mut later = 0;
    for number in 0..20 {
        let mut world = known(number);
        let until = world.now.plus(DAY);
        while world.now < until || world.open.is_some() {
            world.pass(world.due_in());
            world.sweep(Ok(()));
        }
        let before = world.due_in();
        let (rules, now) = (world.rules.clone(), world.now);
        let changed = world.agenda.was_unheard(&rules, now);
        assert_eq!(changed, world.due_in() < before, "{number}");
        assert!(
            world.due_in() <= HOUR.min(before),
            "{number}: {:?}",
            world.due_in()
        );
        later += u32::from(before > HOUR);
        // Once is enough: others may say it, too.
        assert!(
            !world.agenda.was_unheard(&rules, now.plus(MINUTE)),
            "{number}"
        );
    }
    assert!(later > 10, "{later}");
}

#[test]
fn a_silence_goes_on_where_it_was_while_its_attempt_is_open() {
    let mut world = known(3);
    let until = world.now.plus(DAY);
    while world.now < until || world.open.is_none() {
        world.pass(world.due_in());
        world.sweep(Ok(()));
    }
    let (rules, now) = (world.rules.clone(), world.now);
    assert!(world.agenda.was_unheard(&rules, now));
    while world.open.is_some() {
        world.pass(world.due_in());
        world.sweep(Ok(()));
    }
    // As after a first silence.
    assert!(world.due_in() <= HOUR, "{:?}", world.due_in());
}

#[test]
fn whoever_could_not_answer_or_was_not_silent_is_asked_when_it_was_to_be() {
    for said in [Said::NotNow, Said::Good] {
        let mut world = known(5);
        world.pass(world.due_in());
        world.sweep(Ok(()));
        world.session(|_| said);
        let before = world.agenda.clone();
        let (rules, now) = (world.rules.clone(), world.now);
        assert!(!world.agenda.was_unheard(&rules, now));
        assert_eq!(world.agenda, before);
    }
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

#[test]
fn an_outage_of_apns_is_not_held_against_a_mac_that_misses_one_push_after_it() {
    // Whenever in an attempt it ends.
    for outage in 300..480 {
        let mut world = known(outage);
        for _ in 0..outage {
            world.pass(MINUTE);
            world.sweep(Err(Reason::ServiceDegraded));
        }
        // Pushes get through again, and this Mac hears none.
        let before = world.pushes.len();
        while world.pushes.len() < before + 2 {
            world.pass(MINUTE);
            world.sweep(Ok(()));
        }
        let pause = world.pushes[before + 1].since(world.pushes[before]);
        assert!(pause <= 2 * HOUR + MINUTE, "{outage}: {pause:?}");
    }
}
