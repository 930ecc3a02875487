//! Whatever may happen to a Mac, in any order.

use proptest::prelude::*;

use super::*;

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
            prop_assert!(due_in <= 7 * DAY + 10 * MINUTE, "{:?}", due_in);
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
