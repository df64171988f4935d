//! The rules of the allocator, each as a short story.

use std::time::Duration;

use divvy_proto::demand::{Demand, DemandShape, Gang, Preference};
use divvy_proto::quota::Quota;
use divvy_proto::reservation::{Reservation, Reserved};
use divvy_proto::scheduler::Capability;
use divvy_proto::time::Timestamp;

use super::*;

struct Cluster {
    allocator: Allocator,
    now: Timestamp,
    /// What is on offer.
    offers: Vec<Grant>,
}

fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// So many of a shape that is named after what it needs.
fn shape(resources: &str, count: u32) -> DemandShape {
    DemandShape {
        name: resources.to_owned(),
        resources: resources.parse().unwrap(),
        ports: 0,
        count,
        constraint: None,
        preference: Preference::None,
    }
}

fn guarantee(amounts: &str) -> Quota {
    Quota { guarantee: amounts.parse().unwrap(), ..Quota::default() }
}

fn reserved(role: &str, resources: &str) -> Reserved {
    let reservation = Reservation {
        role: role.parse().unwrap(),
        principal: None,
        labels: Default::default(),
        fixed: false,
    };
    Reserved { stack: vec![reservation], resources: resources.parse().unwrap() }
}

impl Cluster {
    fn new() -> Self {
        Self { allocator: Allocator::new(), now: Timestamp(1_000_000), offers: Vec::new() }
    }

    fn agent(&mut self, resources: &str) -> AgentIx {
        self.agent_on("host", "", Charge::unreserved(resources.parse().unwrap()))
    }

    fn agent_on(&mut self, host: &str, attributes: &str, total: Charge) -> AgentIx {
        let nth = self.allocator.slots.len();
        let attributes: divvy_proto::Attributes = attributes.parse().unwrap();
        let facts = Facts { hostname: host.parse().unwrap(), attributes: attributes.into() };
        let agent = self.allocator.add_agent(format!("a1-{nth}").parse().unwrap(), facts);
        self.allocator.set_total(agent, total);
        self.allocator.set_standing(agent, true, true);
        agent
    }

    fn client(&mut self, framework: &str, role: &str) -> ClientIx {
        self.allocator.client(&framework.parse().unwrap(), &role.parse().unwrap())
    }

    /// A framework that takes anything.
    fn classic(&mut self, framework: &str, role: &str) -> ClientIx {
        let client = self.client(framework, role);
        self.allocator.set_wish(self.now, client, Wish::Anything);
        client
    }

    fn demand(&mut self, framework: &str, role: &str, shapes: Vec<DemandShape>) -> ClientIx {
        let client = self.client(framework, role);
        self.allocator.set_wish(self.now, client, Wish::Demand(Demand { shapes, gang: None }));
        client
    }

    fn gang(&mut self, framework: &str, shape: DemandShape, hold: u64) -> ClientIx {
        let client = self.client(framework, "*");
        let gang = Some(Gang { hold: secs(hold) });
        self.allocator.set_wish(self.now, client, Wish::Demand(Demand { shapes: vec![shape], gang }));
        client
    }

    fn quota(&mut self, role: &str, quota: Quota) {
        self.allocator.set_quota(&role.parse().unwrap(), Some(quota));
    }

    /// What a turn comes to: `framework: agent what`, with how many units of a demand.
    fn turn(&mut self) -> Vec<String> {
        let expected = self.allocator.clone().allocate_by_full_scan(self.now);
        let found = self.allocator.allocate(self.now);
        assert_eq!(found, expected);
        self.tell(found)
    }

    /// The same without the oracle, who asks everybody again after each offer.
    fn turn_among_many(&mut self) -> Vec<String> {
        let found = self.allocator.allocate(self.now);
        self.tell(found)
    }

    fn tell(&mut self, found: Allocated) -> Vec<String> {
        assert_eq!(self.allocator.check(), Ok(()));
        let told = found.grants.iter().map(|grant| {
            let client = self.allocator.client_of(grant.client);
            let times = grant.demand.as_ref().map(|demand| format!("{}x ", demand.count)).unwrap_or_default();
            let revocable = if grant.charge.is_revocable() { " revocable" } else { "" };
            let agent = &self.allocator.slot(grant.agent).id;
            format!("{}: {agent} {times}{}{revocable}", client.framework, grant.charge.total())
        });
        let mut told: Vec<String> = told.collect();
        told.extend(found.notes.iter().map(|note| match note {
            Note::Held { agent, client, .. } => {
                format!(
                    "{} is kept for {}",
                    self.allocator.slot(*agent).id,
                    self.allocator.client_of(*client).framework
                )
            }
            Note::GangGathering { client, missing, .. } => {
                format!("{} gathers, {missing} missing", self.allocator.client_of(*client).framework)
            }
            Note::GangReleased { client, kept, .. } => {
                format!("{} releases {kept}", self.allocator.client_of(*client).framework)
            }
            Note::GangComplete { client, gang } => {
                format!("{} has gang {gang}", self.allocator.client_of(*client).framework)
            }
        }));
        self.offers.extend(found.grants);
        told
    }

    /// Everything that a framework was offered becomes tasks of just that size.
    fn accept(&mut self, client: ClientIx) {
        let (mine, others) = std::mem::take(&mut self.offers).into_iter().partition(|o| o.client == client);
        self.offers = others;
        let mine: Vec<Grant> = mine;
        for grant in mine {
            self.allocator.end_offer(&grant, grant.demand.as_ref().map_or(1, |demand| demand.count));
            self.allocator.hold(grant.agent, client, &grant.charge);
        }
    }

    fn decline(&mut self, client: ClientIx, refuse: u64) {
        let (mine, others) = std::mem::take(&mut self.offers).into_iter().partition(|o| o.client == client);
        self.offers = others;
        let mine: Vec<Grant> = mine;
        for grant in mine {
            self.allocator.end_offer(&grant, 0);
            self.allocator.refuse(grant.agent, client, grant.charge.total(), self.now + secs(refuse));
        }
    }

    fn use_up(&mut self, agent: AgentIx, client: ClientIx, resources: &str) {
        self.allocator.hold(agent, client, &Charge::unreserved(resources.parse().unwrap()));
    }

    fn free(&mut self, agent: AgentIx, client: ClientIx, resources: &str) {
        self.allocator.release(agent, client, &Charge::unreserved(resources.parse().unwrap()));
    }
}

/// Ghodsi et al., NSDI 2011, section 4.1.
#[test]
fn the_example_of_the_paper_by_demand() {
    let mut cluster = Cluster::new();
    cluster.agent("cpus=9;mem=18GiB");
    cluster.demand("a", "*", vec![shape("cpus=1;mem=4GiB", 100)]);
    cluster.demand("b", "*", vec![shape("cpus=3;mem=1GiB", 100)]);
    assert_eq!(cluster.turn(), ["a: a1-0 3x cpus=3;mem=12GiB", "b: a1-0 2x cpus=6;mem=2GiB"]);
}

#[test]
fn an_agent_is_offered_to_several_in_small_pieces_and_not_beyond_what_they_want() {
    let mut cluster = Cluster::new();
    cluster.agent("cpus=8;mem=8GiB;ports=[1-9]");
    cluster.demand("a", "*", vec![shape("cpus=1", 2), DemandShape { ports: 2, ..shape("cpus=2", 1) }]);
    cluster.demand("b", "*", vec![shape("mem=1GiB", 3)]);
    let classic = cluster.classic("c", "*");
    cluster.allocator.set_wish(cluster.now, classic, Wish::Nothing);
    assert_eq!(cluster.turn(), ["a: a1-0 2x cpus=2", "b: a1-0 3x mem=3GiB", "a: a1-0 1x cpus=2;ports=[1-2]"]);
    assert_eq!(cluster.turn(), Vec::<String>::new());
}

#[test]
fn a_demand_that_is_met_is_asked_no_more_and_one_that_is_declined_is_after_the_filter() {
    let mut cluster = Cluster::new();
    cluster.agent("cpus=8");
    let (a, b) = (
        cluster.demand("a", "*", vec![shape("cpus=1", 1)]),
        cluster.demand("b", "*", vec![shape("cpus=1", 1)]),
    );
    assert_eq!(cluster.turn(), ["a: a1-0 1x cpus=1", "b: a1-0 1x cpus=1"]);
    let wants =
        |cluster: &Cluster| [a, b].map(|c| cluster.allocator.tree.wants(cluster.allocator.client_of(c).node));
    assert_eq!(wants(&cluster), [false, false]);
    cluster.accept(a);
    cluster.decline(b, 5);
    assert_eq!((wants(&cluster), cluster.turn()), ([false, true], vec![]));
    assert_eq!(cluster.allocator.next_deadline(), Some(cluster.now + secs(5)));
    cluster.now = cluster.now + secs(5);
    assert_eq!(cluster.turn(), ["b: a1-0 1x cpus=1"]);
}

#[test]
fn a_newcomer_among_two_hundred_who_decline_everything_has_what_fits_in_the_same_turn() {
    let mut cluster = Cluster::new();
    let agents: Vec<AgentIx> = (0..3).map(|_| cluster.agent("cpus=4;mem=4GiB")).collect();
    let greedy: Vec<ClientIx> =
        (0..200).map(|nth| cluster.classic(&format!("greedy-{nth:03}"), "*")).collect();
    for _ in 0..200 {
        cluster.turn_among_many();
        greedy.iter().for_each(|client| cluster.decline(*client, 3600));
    }
    assert_eq!(cluster.turn_among_many(), Vec::<String>::new());
    cluster.use_up(agents[0], greedy[0], "cpus=4");
    cluster.demand("new", "*", vec![shape("cpus=3;mem=1GiB", 2)]);
    assert_eq!(cluster.turn_among_many(), ["new: a1-1 1x cpus=3;mem=1GiB", "new: a1-2 1x cpus=3;mem=1GiB"]);
}

#[test]
fn a_role_below_its_guarantee_goes_before_one_with_a_smaller_share() {
    let mut cluster = Cluster::new();
    let agent = cluster.agent("cpus=10;mem=10GiB");
    let prod = cluster.demand("prod", "prod", vec![shape("cpus=1", 9)]);
    cluster.use_up(agent, prod, "cpus=4");
    cluster.demand("dev", "dev", vec![shape("cpus=1", 9)]);
    cluster.quota("prod", guarantee("cpus=7"));
    assert_eq!(cluster.turn(), ["prod: a1-0 3x cpus=3", "dev: a1-0 3x cpus=3"]);
}

#[test]
fn what_is_offered_is_cut_to_the_limit_of_the_role_and_of_those_above() {
    let mut cluster = Cluster::new();
    let agent = cluster.agent("cpus=8;mem=8GiB;ports=[1-9]");
    let limit = |amounts: &str| Quota { limit: amounts.parse().unwrap(), ..Quota::default() };
    cluster.quota("eng", limit("cpus=5;ports=3"));
    cluster.quota("eng/ads", limit("mem=2GiB"));
    let ads = cluster.classic("ads", "eng/ads");
    cluster.use_up(agent, ads, "cpus=1;mem=1GiB;ports=[9]");
    assert_eq!(cluster.turn(), ["ads: a1-0 cpus=4;mem=1GiB;ports=[1-2]"]);
    cluster.accept(ads);
    assert_eq!(cluster.turn(), Vec::<String>::new());
    cluster.free(agent, ads, "cpus=1;mem=1GiB;ports=[9]");
    assert_eq!(cluster.turn(), ["ads: a1-0 cpus=1;mem=1GiB;ports=[3]"]);

    cluster.demand("web", "eng", vec![shape("cpus=1", 5)]);
    cluster.decline(ads, 3600);
    assert_eq!(cluster.turn(), ["web: a1-0 1x cpus=1"]);
    let (role, beyond) = ("eng".parse().unwrap(), "cpus=2".parse().unwrap());
    let over = cluster.allocator.check_role_limit(&role, &beyond).unwrap_err();
    assert_eq!((over.role.as_str(), over.shortage.to_string()), ("eng", "needs cpus=2, has 1".to_owned()));
}

#[test]
fn what_guarantees_lack_is_left_free_and_given_once_it_is_no_longer_owed() {
    let mut cluster = Cluster::new();
    cluster.agent("cpus=8;mem=8GiB");
    cluster.quota("prod", guarantee("cpus=6"));
    let dev = cluster.classic("dev", "dev");
    assert_eq!(cluster.turn(), ["dev: a1-0 cpus=2;mem=8GiB"]);
    cluster.accept(dev);
    assert_eq!(cluster.turn(), Vec::<String>::new());
    cluster.quota("prod", guarantee("cpus=1"));
    assert_eq!(cluster.turn(), ["dev: a1-0 cpus=5"]);
    cluster.decline(dev, 3600);
    cluster.demand("prod", "prod", vec![shape("cpus=1", 1)]);
    assert_eq!(cluster.turn(), ["prod: a1-0 1x cpus=1"]);
}

#[test]
fn a_child_that_is_owed_something_is_protected_from_its_siblings() {
    let mut cluster = Cluster::new();
    cluster.agent("cpus=4;mem=4GiB");
    cluster.quota("eng", guarantee("cpus=4"));
    cluster.quota("eng/ads", guarantee("cpus=3"));
    cluster.demand("web", "eng/web", vec![shape("cpus=1", 9)]);
    assert_eq!(cluster.turn(), ["web: a1-0 1x cpus=1"]);
    cluster.demand("ads", "eng/ads", vec![shape("cpus=3", 1)]);
    assert_eq!(cluster.turn(), ["ads: a1-0 1x cpus=3"]);
}

#[test]
fn headroom_is_kept_in_pieces_in_which_the_shape_fits() {
    let mut cluster = Cluster::new();
    cluster.agent("cpus=4;mem=4GiB");
    cluster.agent("cpus=4;mem=4GiB");
    cluster.quota("prod", Quota { shape: Some("cpus=4".parse().unwrap()), ..guarantee("cpus=4") });
    let dev = cluster.demand(
        "dev",
        "dev",
        vec![DemandShape { preference: Preference::Spread("hostname".to_owned()), ..shape("cpus=1", 8) }],
    );
    assert_eq!(cluster.turn(), ["dev: a1-0 4x cpus=4"]);
    cluster.decline(dev, 0);
    cluster.allocator.set_wish(cluster.now, dev, Wish::Nothing);
    // The largest shape that the role wants does as well.
    cluster.quota("prod", guarantee("cpus=3"));
    cluster.demand(
        "prod",
        "prod",
        vec![DemandShape { constraint: Some(r#"rack == "r9""#.parse().unwrap()), ..shape("cpus=3", 1) }],
    );
    cluster.classic("any", "dev");
    assert_eq!(cluster.turn(), ["any: a1-0 cpus=4;mem=4GiB", "any: a1-1 cpus=1;mem=4GiB"]);
}

#[test]
fn what_is_reserved_goes_to_its_role_and_those_below_first_and_beyond_all_limits() {
    let mut cluster = Cluster::new();
    let total = Charge::unreserved("cpus=2;mem=2GiB".parse().unwrap());
    let total = total.with_reserved([reserved("eng", "cpus=3;mem=1GiB")]).unwrap();
    cluster.agent_on("host", "", total);
    cluster.quota("eng", Quota { limit: "cpus=3".parse().unwrap(), ..Quota::default() });
    let ops = cluster.demand("ops", "ops", vec![shape("cpus=1", 9)]);
    cluster.demand("ads", "eng/ads", vec![shape("cpus=2", 2)]);
    assert_eq!(cluster.turn(), ["ops: a1-0 2x cpus=2", "ads: a1-0 1x cpus=2"]);
    assert_eq!(cluster.allocator.reserved_for(&"eng".parse().unwrap()).to_string(), "cpus=3;mem=1GiB");
    cluster.accept(ops);
    let all = &cluster.allocator.slot(AgentIx(0)).available;
    assert_eq!(all.total().to_string(), "cpus=1;mem=3GiB");
}

#[test]
fn what_is_reserved_counts_for_the_share_of_its_role_held_or_not() {
    let mut cluster = Cluster::new();
    let total = Charge::unreserved("cpus=4".parse().unwrap());
    cluster.agent_on("host", "", total.with_reserved([reserved("eng", "cpus=4")]).unwrap());
    let eng = cluster.demand("eng", "eng", vec![shape("cpus=1", 4)]);
    cluster.demand("ops", "ops", vec![shape("cpus=1", 4)]);
    assert_eq!(cluster.turn(), ["ops: a1-0 4x cpus=4", "eng: a1-0 4x cpus=4"]);
    cluster.accept(eng);
    let role = cluster.allocator.held_by_role(&"eng".parse().unwrap());
    assert_eq!(role.to_resources().to_string(), "cpus=4");
}

#[test]
fn what_can_be_taken_back_is_offered_by_itself_to_those_who_can_deal_with_it() {
    let mut cluster = Cluster::new();
    let total =
        Charge { revocable: "cpus=4".parse().unwrap(), ..Charge::unreserved("cpus=1".parse().unwrap()) };
    cluster.agent_on("host", "", total);
    cluster.demand("strict", "*", vec![shape("cpus=2", 1)]);
    let able = [Capability::Revocable].into();
    cluster.allocator.set_capabilities(&"able".parse().unwrap(), &able);
    cluster.demand("able", "*", vec![shape("cpus=1", 3)]);
    assert_eq!(cluster.turn(), ["able: a1-0 1x cpus=1", "able: a1-0 2x cpus=2 revocable"]);
    cluster.allocator.set_capabilities(&"any".parse().unwrap(), &able);
    cluster.classic("any", "*");
    assert_eq!(cluster.turn(), ["any: a1-0 cpus=2 revocable"]);
}

#[test]
fn constraints_and_preferences_choose_the_agent() {
    let mut cluster = Cluster::new();
    let total = |cpus: u32| Charge::unreserved(format!("cpus={cpus}").parse().unwrap());
    cluster.agent_on("h0", "rack=r1", total(8));
    cluster.agent_on("h1", "rack=r1", total(4));
    cluster.agent_on("h2", "rack=r2", total(8));
    let other = cluster.client("other", "*");
    cluster.use_up(AgentIx(2), other, "cpus=5");
    let on = |preference| DemandShape { preference, ..shape("cpus=1", 3) };
    let spread = cluster.demand("spread", "*", vec![on(Preference::Spread("rack".to_owned()))]);
    assert_eq!(cluster.turn(), ["spread: a1-0 2x cpus=2", "spread: a1-2 1x cpus=1"]);
    cluster.accept(spread);
    let pack = cluster.demand("pack", "*", vec![on(Preference::Pack)]);
    assert_eq!(cluster.turn(), ["pack: a1-2 2x cpus=2", "pack: a1-0 1x cpus=1"]);
    cluster.accept(pack);
    let constraint = Some(r#"hostname == "h1" || !exists(rack)"#.parse().unwrap());
    cluster.demand("pinned", "*", vec![DemandShape { constraint, ..shape("cpus=3", 2) }]);
    assert_eq!(cluster.turn(), ["pinned: a1-1 1x cpus=3"]);
}

#[test]
fn one_that_has_waited_long_is_not_passed_over_by_later_ones_of_its_role() {
    let mut cluster = Cluster::new();
    let agent = cluster.agent("cpus=4");
    let others: Vec<ClientIx> = (0..4).map(|nth| cluster.client(&format!("small-{nth}"), "*")).collect();
    others.iter().for_each(|client| cluster.use_up(agent, *client, "cpus=1"));
    cluster.demand("large", "*", vec![shape("cpus=2", 1)]);
    cluster.now = cluster.now + secs(10);
    cluster.demand("late", "*", vec![shape("cpus=1", 1)]);
    cluster.demand("elsewhere", "ops", vec![shape("cpus=1", 1)]);
    assert_eq!(cluster.turn(), Vec::<String>::new());
    assert_eq!(cluster.allocator.next_deadline(), Some(cluster.now + secs(20)));
    cluster.now = cluster.now + secs(20);
    assert_eq!(cluster.turn(), ["a1-0 is kept for large"]);
    cluster.free(agent, others[0], "cpus=1");
    // Another role is not held up.
    assert_eq!(cluster.turn(), ["elsewhere: a1-0 1x cpus=1"]);
    cluster.free(agent, others[1], "cpus=1");
    assert_eq!(cluster.turn(), Vec::<String>::new());
    cluster.free(agent, others[2], "cpus=1");
    assert_eq!(cluster.turn(), ["large: a1-0 1x cpus=2"]);
    cluster.free(agent, others[3], "cpus=1");
    assert_eq!(cluster.turn(), ["late: a1-0 1x cpus=1"]);
}

#[test]
fn a_gang_is_offered_whole_or_not_at_all() {
    let mut cluster = Cluster::new();
    cluster.agent("cpus=4");
    cluster.gang("gang", shape("cpus=3", 2), 10);
    // There are not enough agents for it, so nothing is kept for it, either.
    assert_eq!(cluster.turn(), Vec::<String>::new());
    cluster.agent("cpus=4");
    assert_eq!(cluster.turn(), ["gang: a1-0 1x cpus=3", "gang: a1-1 1x cpus=3", "gang has gang 1"]);
    let gangs: Vec<_> = cluster.offers.iter().map(|grant| grant.demand.as_ref().unwrap().gang).collect();
    assert_eq!(gangs, [Some(1), Some(1)]);
}

#[test]
fn a_gang_gathers_what_becomes_free_and_gives_it_back_when_its_time_is_up() {
    let mut cluster = Cluster::new();
    let agents = [cluster.agent("cpus=4"), cluster.agent("cpus=4")];
    let other = cluster.client("other", "*");
    agents.iter().for_each(|agent| cluster.use_up(*agent, other, "cpus=4"));
    cluster.gang("gang", shape("cpus=3", 2), 10);
    cluster.free(agents[0], other, "cpus=4");
    assert_eq!(cluster.turn(), ["gang gathers, 1 missing"]);
    cluster.demand("small", "*", vec![shape("cpus=3", 1)]);
    assert_eq!(cluster.turn(), Vec::<String>::new());
    cluster.now = cluster.now + secs(10);
    assert_eq!(cluster.turn(), ["small: a1-0 1x cpus=3", "gang releases 1"]);
    cluster.free(agents[1], other, "cpus=4");
    // It waits as long as it held, and then gathers again.
    assert_eq!(cluster.turn(), Vec::<String>::new());
    cluster.now = cluster.allocator.next_deadline().unwrap();
    assert_eq!(cluster.turn(), ["gang gathers, 1 missing"]);
}

#[test]
fn two_gangs_that_each_could_hold_what_the_other_lacks_are_served_one_after_the_other() {
    let mut cluster = Cluster::new();
    let agents: Vec<AgentIx> = (0..4).map(|_| cluster.agent("cpus=1")).collect();
    let other = cluster.client("other", "*");
    agents.iter().for_each(|agent| cluster.use_up(*agent, other, "cpus=1"));
    let one = cluster.gang("one", shape("cpus=1", 3), 1000);
    cluster.now = cluster.now + secs(1);
    cluster.gang("two", shape("cpus=1", 3), 1000);
    let mut told = Vec::new();
    for agent in &agents {
        cluster.free(*agent, other, "cpus=1");
        told.extend(cluster.turn().into_iter().filter(|line| !line.contains(':')));
    }
    assert_eq!(told, ["one gathers, 2 missing", "one has gang 1", "two gathers, 2 missing"]);
    cluster.decline(one, 3600);
    let told: Vec<_> = cluster.turn().into_iter().filter(|line| !line.contains(':')).collect();
    assert_eq!(told, ["two has gang 2"]);
}

#[test]
fn a_gang_that_gathers_nothing_lets_another_gather_when_its_time_is_up() {
    let mut cluster = Cluster::new();
    let agents = [cluster.agent("cpus=1"), cluster.agent("cpus=1"), cluster.agent("mem=1GiB")];
    let other = cluster.client("other", "*");
    agents[..2].iter().for_each(|agent| cluster.use_up(*agent, other, "cpus=1"));
    cluster.use_up(agents[2], other, "mem=1GiB");
    cluster.gang("first", shape("mem=600MiB", 1), 10);
    cluster.now = cluster.now + secs(1);
    cluster.gang("second", shape("cpus=1", 2), 10);
    assert_eq!(cluster.turn(), Vec::<String>::new());
    cluster.free(agents[0], other, "cpus=1");
    assert_eq!(cluster.turn(), Vec::<String>::new());
    cluster.now = cluster.allocator.next_deadline().unwrap();
    assert_eq!(cluster.turn(), ["second gathers, 1 missing"]);
    cluster.free(agents[1], other, "cpus=1");
    assert_eq!(cluster.turn(), ["second: a1-0 1x cpus=1", "second: a1-1 1x cpus=1", "second has gang 1"]);
}

#[test]
fn what_one_gang_gives_back_is_there_for_others_before_the_next_gathers() {
    let mut cluster = Cluster::new();
    let agents = [cluster.agent("cpus=1"), cluster.agent("cpus=1")];
    let other = cluster.client("other", "*");
    cluster.use_up(agents[1], other, "cpus=1");
    cluster.gang("one", shape("cpus=1", 2), 4);
    cluster.gang("two", shape("cpus=1", 2), 4);
    assert_eq!(cluster.turn(), ["one gathers, 1 missing"]);
    cluster.demand("small", "*", vec![shape("cpus=1", 1)]);
    assert_eq!(cluster.turn(), Vec::<String>::new());
    cluster.now = cluster.allocator.next_deadline().unwrap();
    assert_eq!(cluster.turn(), ["small: a1-0 1x cpus=1", "one releases 1"]);
    cluster.free(agents[1], other, "cpus=1");
    cluster.now = cluster.allocator.next_deadline().unwrap();
    assert_eq!(cluster.turn(), ["two gathers, 1 missing"]);
}

#[test]
fn a_gang_that_does_not_gather_is_placed_on_what_was_free_before_as_well() {
    let mut cluster = Cluster::new();
    let agents = [cluster.agent("cpus=1"), cluster.agent("cpus=1"), cluster.agent("mem=1GiB")];
    let other = cluster.client("other", "*");
    cluster.use_up(agents[1], other, "cpus=1");
    cluster.use_up(agents[2], other, "mem=1GiB");
    cluster.gang("first", shape("mem=600MiB", 1), 1000);
    cluster.now = cluster.now + secs(1);
    cluster.gang("second", shape("cpus=1", 2), 1000);
    assert_eq!(cluster.turn(), Vec::<String>::new());
    cluster.free(agents[1], other, "cpus=1");
    assert_eq!(cluster.turn(), ["second: a1-0 1x cpus=1", "second: a1-1 1x cpus=1", "second has gang 1"]);
}

#[test]
fn gangs_that_headroom_stops_half_way_do_not_wake_each_other() {
    let mut cluster = Cluster::new();
    (0..3).for_each(|_| {
        cluster.agent("cpus=4");
    });
    let memory = cluster.agent("mem=1GiB");
    let other = cluster.client("other", "*");
    cluster.use_up(memory, other, "mem=1GiB");
    cluster.quota("prod", Quota { shape: Some("cpus=4".parse().unwrap()), ..guarantee("cpus=8") });
    cluster.gang("gatherer", shape("mem=600MiB", 1), 1000);
    cluster.now = cluster.now + secs(1);
    cluster.gang("one", shape("cpus=3", 2), 1000);
    cluster.gang("two", shape("cpus=3", 2), 1000);
    assert_eq!(cluster.turn(), Vec::<String>::new());
    cluster.quota("prod", Quota { shape: Some("cpus=4".parse().unwrap()), ..guarantee("cpus=4") });
    assert_eq!(cluster.turn(), ["one: a1-0 1x cpus=3", "one: a1-1 1x cpus=3", "one has gang 1"]);
}

#[test]
fn a_demand_that_is_stated_again_has_waited_since_it_was_first() {
    let mut cluster = Cluster::new();
    cluster.agent("cpus=1");
    let client = cluster.demand("app", "*", vec![shape("cpus=4", 1)]);
    let since = cluster.allocator.wish_view(client).unwrap().waiting_since;
    cluster.now = cluster.now + secs(20);
    cluster.demand("app", "*", vec![shape("cpus=2", 1), shape("cpus=4", 3)]);
    assert_eq!(cluster.allocator.wish_view(client).unwrap().waiting_since, since);
    cluster.demand("app", "*", vec![shape("cpus=2", 1)]);
    assert_eq!(cluster.allocator.wish_view(client).unwrap().waiting_since, Some(cluster.now));
}

#[test]
fn places_of_what_is_removed_are_given_to_others() {
    let mut cluster = Cluster::new();
    for nth in 0..50 {
        let agent = cluster.agent("cpus=4;mem=4GiB");
        let client = cluster.classic(&format!("f1-{nth}"), &format!("role-{nth}/below"));
        let id = cluster.allocator.slot(agent).id.clone();
        assert_eq!(cluster.turn(), [format!("f1-{nth}: {id} cpus=4;mem=4GiB")]);
        cluster.decline(client, 3600);
        cluster.allocator.remove_framework(&format!("f1-{nth}").parse().unwrap());
        cluster.allocator.remove_agent(agent);
        assert_eq!(cluster.turn(), Vec::<String>::new());
    }
    let allocator = &cluster.allocator;
    assert_eq!((allocator.slots.len(), allocator.clients.len(), allocator.tree.nodes.len()), (1, 1, 5));
}
