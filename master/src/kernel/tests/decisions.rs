//! What is remembered of decisions, and who is told.

use divvy_proto::api::{Change, DecisionKind};
use divvy_proto::ids::Epoch;

use crate::kernel::allocator::Stage;
use crate::kernel::decisions::{Decided, Decisions, Offered};
use crate::kernel::testing::*;
use crate::kernel::*;

fn drained(why: &str) -> Decided {
    Decided { role: Some("eng/ads".parse().unwrap()), ..Decided::new(DecisionKind::Drained, why) }
}

fn offered(share: u32) -> Offered {
    Offered {
        framework: "f1-0".parse().unwrap(),
        role: "eng/web".parse().unwrap(),
        agent: "a1-0".parse().unwrap(),
        stage: Stage::Fair,
        share,
        count: 2,
        revocable: false,
        scalars: [4000, 1 << 30, 0, 0],
        ports: 3,
    }
}

fn indices(decisions: &Decisions, wanted: &DecisionFilter) -> Vec<u64> {
    decisions.list(wanted).into_iter().map(|decision| decision.index & 0xff_ffff_ffff).collect()
}

#[test]
fn only_the_latest_are_kept_and_each_is_found_by_what_it_is_about() {
    let mut decisions = Decisions::new(Epoch(2), 4);
    for nth in 0..3 {
        decisions.offered(START, offered(nth));
        decisions.decide(START, drained("it is empty"));
    }
    let all = DecisionFilter::default();
    assert_eq!(indices(&decisions, &all), [3, 4, 5, 6]);
    let role = |role: &str| Some(role.parse().unwrap());
    assert_eq!(indices(&decisions, &DecisionFilter { role: role("eng/ads"), ..all.clone() }), [4, 6]);
    assert_eq!(
        indices(&decisions, &DecisionFilter { role: role("eng"), limit: Some(3), ..all.clone() }),
        [4, 5, 6]
    );
    assert_eq!(indices(&decisions, &DecisionFilter { since: (2 << 40) + 5, ..all.clone() }), [6]);
    assert_eq!(indices(&decisions, &DecisionFilter { since: (1 << 40) + 99, ..all.clone() }), [3, 4, 5, 6]);
    assert_eq!(indices(&decisions, &DecisionFilter { without_offers: true, ..all.clone() }), [4, 6]);
    let framework = Some("f1-0".parse().unwrap());
    assert_eq!(indices(&decisions, &DecisionFilter { framework, ..all }), [3, 5]);
}

#[test]
fn an_offer_is_told_in_words_only_when_somebody_reads_it() {
    let mut decisions = Decisions::new(Epoch(1), 4);
    decisions.offered(START, offered(123_456));
    let shown = decisions.list(&DecisionFilter::default()).remove(0);
    assert_eq!(shown.resources, "cpus=4;mem=1GiB".parse().unwrap());
    assert_eq!(
        shown.why,
        "first in fair order of those that can use it, at a share of 12.35%: 2 of what it demands, with 3 ports"
    );
}

#[test]
fn those_who_watch_are_told_of_every_decision_but_offers() {
    let mut cluster = Cluster::new();
    cluster.agent("cpus=4;mem=8GiB");
    cluster.framework("app");
    cluster.changes.clear();
    cluster.kernel.decide(cluster.now, drained("it is empty"));
    cluster.feed(Input::Tick);
    let told = cluster.changes.iter().filter_map(|change| match change {
        Change::Decision(decision) => Some(decision.why.as_str()),
        _ => None,
    });
    assert_eq!(told.collect::<Vec<_>>(), ["it is empty"]);
}
