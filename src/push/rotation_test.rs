use super::*;
use crate::entropy::SeededEntropy;

const PUSH: &[u8] = include_bytes!("../../tests/fixtures/apns/sim-push-certificate.pem");

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(1_800_000_000 + seconds)
}

fn candidate() -> PushCertificate {
    PushCertificate::read(PUSH).expect("a push certificate")
}

fn other_topic() -> Topic {
    Topic::parse("com.apple.mgmt.External.other").expect("a topic")
}

/// One that was installed at this second, valid a day less than the candidate.
fn held(number: u8, topic: &Topic, standing: Standing) -> Held {
    let installed_at = at(i64::from(number));
    Held {
        push_certificate_id: PushCertificateId::new(
            installed_at,
            &SeededEntropy::new(u64::from(number)),
        ),
        topic: topic.clone(),
        standing,
        sha256: CertificateHash::of(&[number]),
        not_before: at(-1),
        not_after: candidate()
            .not_after()
            .minus(std::time::Duration::from_secs(86_400)),
        installed_at,
        retired_at: (standing == Standing::Retired).then_some(installed_at),
    }
}

fn canary(number: u64, came: bool) -> Canary {
    let device_id = DeviceId::new(at(0), &SeededEntropy::new(number));
    Canary {
        sent_at: Some(at(1)),
        came_at: came.then(|| at(2)),
        ..Canary::ask(device_id, at(0))
    }
}

#[test]
fn the_first_of_a_topic_is_in_use_at_once_and_a_renewal_is_staged() {
    let candidate = candidate();
    let topic = candidate.topic();
    assert_eq!(place(&candidate, &[], false), Ok(Standing::Active));
    let renewed = [held(1, topic, Standing::Active)];
    assert_eq!(place(&candidate, &renewed, false), Ok(Standing::Staged));
}

#[test]
fn another_topic_is_taken_only_as_a_new_fleet_and_only_where_it_is_one() {
    let candidate = candidate();
    let fleet = [held(1, &other_topic(), Standing::Active)];
    assert_eq!(
        place(&candidate, &fleet, false),
        Err(Misplaced::OtherTopic(vec![other_topic()]))
    );
    assert_eq!(place(&candidate, &fleet, true), Ok(Standing::Active));
    let both = [
        held(1, &other_topic(), Standing::Active),
        held(2, candidate.topic(), Standing::Active),
    ];
    assert_eq!(place(&candidate, &both, true), Err(Misplaced::NotNew));
    assert_eq!(place(&candidate, &both, false), Ok(Standing::Staged));
}

#[test]
fn one_that_is_here_or_ends_no_later_is_not_kept() {
    let candidate = candidate();
    let mut active = held(1, candidate.topic(), Standing::Active);
    active.not_after = candidate.not_after();
    assert_eq!(
        place(&candidate, &[active.clone()], false),
        Err(Misplaced::NoLonger(candidate.not_after()))
    );
    active.sha256 = candidate.hash();
    active.standing = Standing::Retired;
    assert_eq!(
        place(&candidate, &[active.clone()], false),
        Err(Misplaced::Known(
            active.push_certificate_id,
            Standing::Retired
        ))
    );
}

#[test]
fn it_is_taken_into_use_when_all_who_were_chosen_came() {
    let topic = other_topic();
    let mut next = held(2, &topic, Standing::Canary);
    next.not_after = at(100_000_000);
    let all = [held(1, &topic, Standing::Active), next.clone()];
    let may = |canaries: &[Canary], untried| may_be_activated(&next, &all, canaries, untried);
    assert_eq!(may(&[], false), Err(NotReady::NotTried));
    assert_eq!(may(&[], true), Ok(()));
    let (first, second) = (canary(1, true), canary(2, false));
    assert_eq!(may(std::slice::from_ref(&first), false), Ok(()));
    assert_eq!(
        may(&[first.clone(), second.clone()], false),
        Err(NotReady::NotCome(vec![second.device_id.clone()]))
    );
    let mut refused = second;
    refused.refused = Some("certificate_fault".to_owned());
    assert!(may(&[first, refused], false).is_err());
}

#[test]
fn neither_the_active_nor_a_retired_one_nor_one_that_ends_earlier_is_taken_into_use() {
    let topic = other_topic();
    for (standing, refusal) in [
        (Standing::Active, NotReady::Active),
        (Standing::Retired, NotReady::Retired),
    ] {
        let one = held(1, &topic, standing);
        assert_eq!(may_be_tried(&one), Err(refusal.clone()));
        assert_eq!(
            may_be_activated(&one, std::slice::from_ref(&one), &[], true),
            Err(refusal)
        );
    }
    let one = held(2, &topic, Standing::Staged);
    let all = [held(1, &topic, Standing::Active), one.clone()];
    assert_eq!(
        may_be_activated(&one, &all, &[], true),
        Err(NotReady::NoLonger(one.not_after))
    );
}

#[test]
fn the_way_back_leads_to_the_one_that_was_in_use_last_while_it_is_valid() {
    let topic = other_topic();
    let newer = held(9, &topic, Standing::Active);
    assert_eq!(way_back(&topic, &[], at(0)), Err(NoWayBack::NothingActive));
    assert_eq!(
        way_back(&topic, std::slice::from_ref(&newer), at(0)),
        Err(NoWayBack::NoFormer)
    );
    let mut former = held(1, &topic, Standing::Retired);
    former.retired_at = Some(at(50));
    let all = [
        newer.clone(),
        held(8, &topic, Standing::Retired),
        former.clone(),
    ];
    let expected = WayBack {
        newer: &newer,
        former: &former,
    };
    assert_eq!(way_back(&topic, &all, former.not_after), Ok(expected));
    let late = former.not_after.plus(std::time::Duration::from_millis(1));
    assert_eq!(
        way_back(&topic, &all, late),
        Err(NoWayBack::Expired(former.not_after))
    );
}

#[test]
fn macs_enrol_in_the_fleet_that_was_begun_last_whatever_is_renewed() {
    let (old, new) = (candidate().topic().clone(), other_topic());
    assert_eq!(enrolling(&[]), None);
    let all = [
        held(1, &old, Standing::Retired),
        held(2, &new, Standing::Active),
        held(3, &old, Standing::Active),
    ];
    assert_eq!(enrolling(&all), Some(&new));
    assert_eq!(enrolling(&all[..1]), None);
}
