//! Offers, launches, declines, and whether offers are wanted.

use divvy_proto::Invalid;
use divvy_proto::resources::Shortage;
use divvy_proto::scheduler::Refusal;

use super::*;

#[test]
fn a_launch_is_durable_before_the_accept_leaves() {
    let mut world = World::durable();
    world.then(|_, mut offers| {
        let mut actions = launch(&mut offers, "t1");
        actions.put("apps/web", b"1".to_vec());
        actions
    });
    let effects = world.event(Event::Offers(vec![offer(1), offer(2)]));
    let own = Write::Put { key: "apps/web".into(), value: b"1".to_vec() };
    assert_eq!(effects, [persist(1, [own, world.record("t1")])]);
    assert_eq!(world.state("t1"), TaskState::Staging);
    assert_eq!(world.persisted(1), [send(3, accept(1, &[world.task("t1")])), send(4, decline([2]))]);
    assert_eq!(world.event(accepted(3)), []);
}

#[test]
fn without_a_store_nothing_waits() {
    let mut world = World::subscribed();
    world.then(|_, mut offers| launch(&mut offers, "t1"));
    let effects = world.event(Event::Offers(vec![offer(1)]));
    assert_eq!(effects, [send(3, accept(1, &[world.task("t1")]))]);
}

#[test]
fn what_is_not_used_is_declined_for_as_long_as_the_scheduler_says() {
    let mut world = World::subscribed();
    world.then(|_, _| Actions { refuse: Some(secs(60)), ..Actions::none() });
    let filters = Filters { refuse: secs(60) };
    let declined = CallBody::Decline { offers: vec![OfferId(1)], filters };
    assert_eq!(world.event(Event::Offers(vec![offer(1)])), [send(3, declined)]);
}

#[test]
fn a_rescinded_offer_is_not_shown() {
    let mut world = World::subscribed();
    let inputs = [Event::Offers(vec![offer(1), offer(2)]), Event::Rescind(OfferId(1))].map(Input::Event);
    assert_eq!(world.feed_all(inputs), [send(3, decline([2]))]);
}

#[test]
fn an_offer_is_good_for_one_call_only() {
    let mut world = World::subscribed();
    let (keep, kept) = std::sync::mpsc::channel();
    world.then(move |_, mut offers| {
        keep.send(offers.remove(0)).unwrap();
        Actions::none()
    });
    assert_eq!(world.event(Event::Offers(vec![offer(1)])), [send(3, decline([1]))]);
    world.then(move |_, _| launch(&mut vec![kept.recv().unwrap()], "t1"));
    assert_eq!(world.event(Event::Failure { agent_id: agent_id() }), []);
    assert_eq!(world.driver.view().live(), 0);
}

#[test]
fn a_task_id_is_good_for_one_launch_only() {
    let mut world = World::running();
    world.then(|_, mut offers| launch(&mut offers, "t1"));
    assert_eq!(world.event(Event::Offers(vec![offer(2)])), [send(5, decline([2]))]);
    assert_eq!(world.state("t1"), TaskState::Running);
}

/// What becomes of `t1` and `t2`, launched in one Accept that is refused, and what is done about it.
fn after_refusal(refusal: Refusal) -> ([(TaskState, String); 2], Vec<Effect>) {
    let mut world = World::subscribed();
    world.then(|_, mut offers| {
        let mut offer = offers.remove(0);
        for id in ["t1", "t2"] {
            offer.take(task_id(id), &TaskSpec::shell("true")).unwrap();
        }
        Actions::from_iter([offer.accept()])
    });
    world.event(Event::Offers(vec![offer(1)]));
    let reply = Event::Reply { call_id: call_id(3), outcome: Outcome::Refused(refusal) };
    let effects = world.event(reply);
    (["t1", "t2"].map(|id| (world.state(id), world.task(id).status.message.clone())), effects)
}

#[test]
fn a_refused_accept_ends_its_tasks_with_the_reason() {
    use TaskState::{Dropped, Error};
    let gone = Refusal::OfferGone(OfferId(1));
    let shortage = Shortage { dimension: "cpus".into(), wanted: "1".into(), available: "0".into() };
    let short = Refusal::NotEnough { task_id: task_id("t2"), shortage };
    let invalid = Refusal::Invalid(Invalid::new("accept.operations[0].launch[1].user", "x", "a user"));
    // The kernel takes back the offers of a call that it refuses; of one that it never saw it knows nothing.
    for (refusal, states, effects) in [
        (gone, [Dropped, Dropped], vec![]),
        (short, [Dropped, Error], vec![]),
        (invalid, [Dropped, Error], vec![send(4, decline([1]))]),
    ] {
        let text = refusal.to_string();
        assert_eq!(after_refusal(refusal), (states.map(|state| (state, text.clone())), effects));
    }
}

#[test]
fn a_launch_that_has_not_left_when_the_connection_ends_is_dropped() {
    let mut world = World::durable();
    world.then(|_, mut offers| launch(&mut offers, "t1"));
    world.event(Event::Offers(vec![offer(1)]));
    let effects = world.feed(Input::Disconnected);
    assert_eq!(world.state("t1"), TaskState::Dropped);
    assert_eq!(effects, [persist(2, [world.record("t1")])]);
    assert_eq!(world.feed_all([1, 2].map(|token| Input::Persisted(PersistToken(token)))), []);
}

#[test]
fn suppress_and_revive_follow_what_is_wanted() {
    let mut world = World::subscribed();
    let mut wants = |wanted| {
        world.then(move |_, _| Actions::none().needs_offers(wanted));
        world.event(Event::Failure { agent_id: agent_id() })
    };
    let roles = Vec::new;
    assert_eq!(wants(true), []);
    assert_eq!(wants(false), [send(3, CallBody::Suppress { roles: roles() })]);
    assert_eq!(wants(false), []);
    assert_eq!(wants(true), [send(4, CallBody::Revive { roles: roles() })]);
    assert_eq!(wants(true), []);
}

#[test]
fn a_subscription_says_whether_offers_are_wanted() {
    let mut world = World::subscribed();
    world.feed(Input::Disconnected);
    let mut effects = Vec::new();
    world.driver.apply(world.now, |_, _| ((), Actions::none().needs_offers(false)), &mut effects);
    assert_eq!(effects, []);
    world.skip_to_deadline();
    let framework = FrameworkInfo { id: FrameworkId::new("f1").ok(), ..info() };
    let suppressed = vec![RolePath::default()];
    assert_eq!(world.feed(Input::Connected), [send(3, CallBody::Subscribe { framework, suppressed })]);
    assert_eq!(world.event(subscription()), [send(4, ask(&[]))]);
}

#[test]
fn revives_keep_a_distance() {
    let mut world = World::subscribed();
    let mut revive = |wait| {
        world.now = world.now + wait;
        world.then(|_, _| Actions { revive: true, ..Actions::none() });
        world.event(Event::Failure { agent_id: agent_id() })
    };
    let call = || CallBody::Revive { roles: Vec::new() };
    assert_eq!(revive(secs(0)), [send(3, call())]);
    assert_eq!(revive(Duration::from_millis(100)), []);
    assert_eq!(revive(Duration::from_millis(100)), []);
    assert_eq!(world.skip_to_deadline(), (Duration::from_millis(800), vec![send(4, call())]));
}
