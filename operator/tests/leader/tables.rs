//! What one operator decides, case by case.

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use transfer_operator::leader::{
    Moment, Timing,
    decide::{Decision, Election, Loss},
};

const ME: &str = "me";

fn timing() -> Timing {
    Timing::of(Duration::from_secs(15))
}

fn at(seconds: u64) -> Moment {
    Moment(Duration::from_secs(1_000 + seconds))
}

fn lease(version: &str, holder: &str, renewed: i64) -> Lease {
    Lease {
        metadata: ObjectMeta { resource_version: Some(version.into()), ..ObjectMeta::default() },
        spec: Some(LeaseSpec {
            holder_identity: Some(holder.into()),
            lease_duration_seconds: Some(15),
            lease_transitions: Some(3),
            // Years away from any clock here: it must not matter.
            renew_time: Some(MicroTime(jiff::Timestamp::from_second(renewed).unwrap())),
            ..LeaseSpec::default()
        }),
    }
}

fn saw(found: Option<Lease>, now: Moment) -> Election {
    let mut election = Election::new(ME.into(), timing());
    election.saw(found, now);
    election
}

/// One that acquired the Lease, as version 7, in a write that began at 0 s.
fn leader() -> Election {
    let mut election = saw(None, at(0));
    election.wrote(lease("7", ME, 1), at(0));
    election
}

fn acquire(version: &str) -> Decision {
    Decision::Acquire { version: version.into(), transitions: 4 }
}

fn renew(version: &str) -> Decision {
    Decision::Renew { version: version.into() }
}

#[test]
fn the_times_are_those_of_kubernetes_controllers() {
    let seconds =
        [timing().lease, timing().deadline, timing().renew, timing().retry].map(|time| time.as_secs());
    assert_eq!(seconds, [15, 10, 5, 2]);
}

#[test]
fn one_that_stands_by() {
    assert_eq!(Election::new(ME.into(), timing()).decide(at(0)), Decision::Look);
    let cases = [
        ("no Lease", None, 0, Decision::Create),
        ("nobody's", Some(lease("5", "", 1)), 0, acquire("5")),
        ("another's, just seen", Some(lease("5", "other", 1)), 0, Decision::Wait(at(15))),
        ("another's, unchanged for nearly as long", Some(lease("5", "other", 1)), 14, Decision::Wait(at(15))),
        ("another's, unchanged for its duration", Some(lease("5", "other", 1)), 15, acquire("5")),
        ("ours, by a write whose answer was lost", Some(lease("5", ME, 1)), 0, renew("5")),
    ];
    for (case, found, later, expected) in cases {
        assert_eq!(saw(found, at(0)).decide(at(later)), expected, "{case}");
    }
}

#[test]
fn only_what_the_holder_changes_is_a_sign_of_its_life() {
    let mut election = saw(Some(lease("5", "other", 1)), at(0));
    election.saw(Some(lease("6", "other", 1)), at(10));
    assert_eq!(election.decide(at(15)), acquire("6"), "a label was edited");
    election.saw(Some(lease("7", "other", 2)), at(14));
    assert_eq!(election.decide(at(15)), Decision::Wait(at(29)), "renewed");
    election.saw(Some(lease("8", "third", 2)), at(20));
    assert_eq!(election.decide(at(29)), Decision::Wait(at(35)), "taken by a third one");
}

#[test]
fn a_longer_duration_of_another_release_is_respected_and_an_absurd_one_is_not() {
    for (written, lasts) in [(1, 15), (30, 30), (1_000_000, 60), (-1, 15)] {
        let mut found = lease("5", "other", 1);
        found.spec.as_mut().unwrap().lease_duration_seconds = Some(written);
        assert_eq!(saw(Some(found), at(0)).decide(at(0)), Decision::Wait(at(lasts)), "{written}");
    }
}

#[test]
fn one_that_leads() {
    assert_eq!(leader().decide(at(9)), renew("7"));
    assert_eq!(leader().decide(at(10)), Decision::Lost(Loss::Late(Duration::from_secs(10))));
    let cases = [
        ("a label was edited", Some(lease("8", ME, 1)), renew("8")),
        ("taken", Some(lease("8", "other", 2)), Decision::Lost(Loss::Taken("other".into()))),
        ("cleared", Some(lease("8", "", 1)), Decision::Lost(Loss::Taken(String::new()))),
        ("deleted", None, Decision::Lost(Loss::Deleted)),
    ];
    for (case, found, expected) in cases {
        let mut election = leader();
        election.doubt();
        assert_eq!(election.decide(at(6)), Decision::Look, "{case}");
        election.saw(found, at(6));
        assert_eq!(election.decide(at(6)), expected, "{case}");
    }
    let mut renewed = leader();
    renewed.wrote(lease("8", ME, 2), at(5));
    assert_eq!(renewed.decide(at(14)), renew("8"));
    assert_eq!(renewed.decide(at(15)), Decision::Lost(Loss::Late(Duration::from_secs(10))));
}

#[test]
fn when_to_come_back() {
    assert_eq!(leader().next(at(0)), at(5), "to renew");
    let mut doubtful = leader();
    doubtful.doubt();
    assert_eq!(doubtful.next(at(5)), at(7), "after a failure");
    assert_eq!(doubtful.next(at(9)), at(10), "in time to end");
    let other = saw(Some(lease("5", "other", 1)), at(0));
    assert_eq!(other.next(at(0)), at(2));
    assert_eq!(other.next(at(14)), at(15), "as soon as it is free");
    assert_eq!(saw(None, at(0)).next(at(0)), at(2), "a write that was refused");
}
