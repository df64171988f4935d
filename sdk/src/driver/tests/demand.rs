//! Demand, gangs, inverse offers, operations, and calls that are to be made later.

use divvy_proto::demand::{Demand, DemandShape, Gang, OfferedDemand, Preference};
use divvy_proto::resources::Resources;
use divvy_proto::scheduler::{InverseOffer, InverseReason, Refusal};

use super::*;
use crate::Accept;

fn any() -> RolePath {
    RolePath::default()
}

fn shape(name: &str, count: u32) -> DemandShape {
    DemandShape {
        name: name.into(),
        resources: "cpus=1".parse().unwrap(),
        ports: 0,
        count,
        constraint: None,
        preference: Preference::None,
    }
}

/// `[("web", 3)]` is wanted.
fn wanting(wanted: &[(&str, u32)]) -> Actions {
    let mut actions = Actions::none();
    actions.want_nothing();
    wanted.iter().for_each(|(name, count)| actions.want(&any(), shape(name, *count)));
    actions
}

fn demand(wanted: &[(&str, u32)]) -> CallBody {
    let shapes = wanted.iter().map(|(name, count)| shape(name, *count)).collect();
    CallBody::Demand { role: any(), demand: Demand { shapes, gang: None } }
}

fn offer_for(id: u64, shape: &str, count: u32) -> OfferInfo {
    OfferInfo { demand: Some(OfferedDemand { shape: shape.into(), count, gang: None }), ..offer(id) }
}

fn news() -> Event {
    Event::Failure { agent_id: agent_id() }
}

fn refused(number: u64, refusal: Refusal) -> Event {
    Event::Reply { call_id: call_id(number), outcome: Outcome::Refused(refusal) }
}

#[test]
fn a_demand_is_told_when_it_is_new_and_only_then() {
    let mut world = World::subscribed();
    let mut want = |wanted: &'static [(&str, u32)]| {
        world.then(move |_, _| wanting(wanted));
        world.event(news())
    };
    assert_eq!(want(&[("web", 3)]), [send(3, demand(&[("web", 3)]))]);
    assert_eq!(want(&[("web", 3), ("batch", 0)]), []);
    assert_eq!(want(&[("web", 2)]), [send(4, demand(&[("web", 2)]))]);
    assert_eq!(want(&[]), [send(5, demand(&[]))]);
    assert_eq!(want(&[]), []);
    // Nothing is said of it: unchanged.
    assert_eq!(world.event(news()), []);
}

#[test]
fn what_is_launched_on_an_offer_is_counted_off_by_both_sides() {
    let mut world = World::subscribed();
    world.then(|_, _| wanting(&[("web", 2)]));
    world.event(news());
    world
        .then(|_, mut offers| Actions { demand: wanting(&[("web", 1)]).demand, ..launch(&mut offers, "t1") });
    let effects = world.event(Event::Offers(vec![offer_for(1, "web", 2)]));
    assert_eq!(effects, [send(4, accept(1, &[world.task("t1")]))]);
    // The master takes back what it could not do, and no longer counts it off.
    world.then(|view, _| {
        assert_eq!(view.live(), 0);
        wanting(&[("web", 2)])
    });
    let gone = refused(4, Refusal::OfferGone(OfferId(1)));
    assert_eq!(world.event(gone), [send(5, demand(&[("web", 2)]))]);
}

#[test]
fn a_framework_with_demand_subscribes_quietly_and_says_it_all_again() {
    let mut world = World::new(config(false), Restored::default());
    world.then(|_, _| wanting(&[("web", 3)]));
    world.tick();
    let framework = FrameworkInfo { id: None, ..info() };
    let subscribe = CallBody::Subscribe { framework, suppressed: vec![any()] };
    assert_eq!(world.feed(Input::Connected), [send(1, subscribe)]);
    assert_eq!(world.event(subscription()), [send(2, ask(&[])), send(3, demand(&[("web", 3)]))]);
    world.feed(Input::Disconnected);
    world.skip_to_deadline();
    world.feed(Input::Connected);
    assert_eq!(world.event(subscription()), [send(5, ask(&[])), send(6, demand(&[("web", 3)]))]);
}

#[test]
fn a_demand_that_is_revived_is_told_again_at_most_once_a_second() {
    let mut world = World::subscribed();
    let mut revive = |wait| {
        world.now = world.now + wait;
        world.then(|_, _| Actions { revive: true, ..wanting(&[("web", 1)]) });
        world.event(news())
    };
    assert_eq!(revive(secs(0)), [send(3, demand(&[("web", 1)]))]);
    assert_eq!(revive(Duration::from_millis(100)), []);
    assert_eq!(world.skip_to_deadline(), (Duration::from_millis(900), vec![send(4, demand(&[("web", 1)]))]));
}

/// Offers 1 and 2 are of two agents and one gang.
fn gang() -> Event {
    let demand = Some(OfferedDemand { shape: "mpi".into(), count: 1, gang: Some(9) });
    let second = AgentId::new("a2").unwrap();
    let offers = [offer(1), OfferInfo { agent_id: second, ..offer(2) }]
        .map(|offer| OfferInfo { demand: demand.clone(), ..offer });
    Event::Offers(offers.to_vec())
}

/// Launches one task on each offer, all or none.
fn together(offers: Vec<Offer>) -> Actions {
    let each = offers.into_iter().zip(["t1", "t2"]).map(|(mut offer, id)| {
        offer.take(task_id(id), &TaskSpec::shell("true")).unwrap();
        offer.accept()
    });
    Actions::from_iter([Accept::together(each)])
}

#[test]
fn a_gang_is_launched_in_one_call() {
    let mut world = World::subscribed();
    world.then(|_, _| {
        let mut actions = Actions::none();
        actions.want_together(&any(), [shape("mpi", 2)], secs(30));
        actions
    });
    let wanted = Demand { shapes: vec![shape("mpi", 2)], gang: Some(Gang { hold: secs(30) }) };
    assert_eq!(world.event(news()), [send(3, CallBody::Demand { role: any(), demand: wanted })]);
    world.then(|_, offers| Actions { demand: wanting(&[]).demand, ..together(offers) });
    let effects = world.event(gang());
    let on = |agent: &str, task: &str| Operation::LaunchOn {
        agent_id: AgentId::new(agent).unwrap(),
        tasks: vec![world.task(task).info.clone()],
    };
    let accept = CallBody::Accept {
        offers: vec![OfferId(1), OfferId(2)],
        operations: vec![on("a1", "t1"), on("a2", "t2")],
        filters: Filters::default(),
    };
    assert_eq!(effects, [send(4, accept)]);
}

#[test]
fn a_gang_that_is_refused_is_over_for_all_its_tasks() {
    let mut world = World::subscribed();
    world.then(|_, offers| together(offers));
    world.event(gang());
    let invalid = divvy_proto::Invalid::new("accept.operations[1].launch_on.tasks[0].user", "x", "a user");
    world.event(refused(3, invalid.into()));
    assert_eq!(["t1", "t2"].map(|id| world.state(id)), [TaskState::Dropped, TaskState::Error]);
}

#[test]
fn a_gang_with_a_task_that_was_launched_before_is_not_launched_in_part() {
    let mut world = World::running();
    world.then(|_, offers| together(offers));
    assert_eq!(world.event(gang()), [send(5, decline([1, 2]))]);
}

#[test]
fn what_is_wanted_back_is_in_the_view_until_it_is_not_and_accepted_once() {
    let mut world = World::running();
    let wanted_back = InverseOffer {
        id: InverseOfferId(4),
        agent_id: agent_id(),
        hostname: Hostname::new("host-1").unwrap(),
        tasks: vec![task_id("t1")],
        resources: Resources::new(),
        deadline: Some(Timestamp(2_000_000)),
        reason: InverseReason::Maintenance,
    };
    let yes = |view: &View, _: Vec<Offer>| {
        let mut actions = Actions::none();
        view.inverse_offers().for_each(|offer| actions.accept_inverse(offer.id));
        actions
    };
    world.then(yes);
    let effects = world.event(Event::InverseOffers(vec![wanted_back]));
    assert_eq!(effects, [send(5, CallBody::AcceptInverse { offers: vec![InverseOfferId(4)] })]);
    assert!(world.driver.view().wanted_back(&task_id("t1")).is_some());
    world.then(yes);
    assert_eq!(world.event(news()), []);
    world.event(Event::RescindInverse(InverseOfferId(4)));
    assert_eq!(world.driver.view().inverse_offers().count(), 0);
}

#[test]
fn operations_leave_before_launches_and_what_became_of_them_is_seen() {
    let mut world = World::subscribed();
    let id = || OperationId::new("reserve-1").unwrap();
    world.then(move |_, mut offers| {
        let mut offer = offers.remove(0);
        offer.reserve(&"cpus=1".parse().unwrap()).unwrap();
        offer.tracked(id());
        Actions::from_iter([offer.accept()])
    });
    let reserve = Operation::Reserve {
        id: Some(id()),
        resources: "cpus=1".parse().unwrap(),
        refines: Vec::new(),
        labels: BTreeMap::new(),
    };
    let accept =
        CallBody::Accept { offers: vec![OfferId(1)], operations: vec![reserve], filters: Filters::default() };
    assert_eq!(world.event(Event::Offers(vec![offer(1)])), [send(3, accept)]);
    world.event(accepted(3));
    assert_eq!(world.driver.view().operation(&id()), None);
    world.event(Event::OperationUpdate { operation_id: id(), outcome: Outcome::Accepted });
    assert_eq!(world.driver.view().operation(&id()), Some(&Outcome::Accepted));
}

#[test]
fn what_the_master_wants_to_be_asked_later_is_asked_later_and_nothing_overtakes_it() {
    let mut world = World::subscribed();
    world.then(|_, mut offers| launch(&mut offers, "t1"));
    world.event(Event::Offers(vec![offer(1)]));
    let later = |milliseconds| Refusal::Later { retry_after: Duration::from_millis(milliseconds) };
    assert_eq!(world.event(refused(3, later(200))), []);
    world.then(|_, _| {
        let mut actions = Actions::none();
        actions.kill(task_id("t1"));
        actions
    });
    assert_eq!(world.event(news()), []);
    let (wait, effects) = world.skip_to_deadline();
    assert_eq!(wait, Duration::from_millis(200));
    assert_eq!(effects, [send(4, accept(1, &[world.task("t1")])), send(5, kill("t1"))]);
}
