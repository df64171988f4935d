//! Connecting, subscribing, losing the connection, ending.

use divvy_proto::scheduler::Refusal;

use super::*;

fn subscribe(id: Option<&str>) -> CallBody {
    let id = id.map(|id| FrameworkId::new(id).unwrap());
    CallBody::Subscribe { framework: FrameworkInfo { id, ..info() }, suppressed: Vec::new() }
}

#[test]
fn a_new_framework_connects_subscribes_and_stores_its_id() {
    let mut world = World::new(config(true), Restored::default());
    assert_eq!(world.driver.next_deadline(), Some(Timestamp(0)));
    assert_eq!(world.tick(), [Effect::Connect]);
    assert_eq!(world.feed(Input::Connected), [send(1, subscribe(None))]);
    assert!(!world.driver.view().connected());

    let id = Write::Put { key: "framework/id".into(), value: b"f1".to_vec() };
    assert_eq!(world.event(subscription()), [persist(1, [id])]);
    assert!(world.driver.view().connected());
    assert_eq!(world.persisted(1), [send(2, ask(&[]))]);
}

#[test]
fn a_known_framework_comes_back_under_its_id() {
    let restored = Restored { framework_id: FrameworkId::new("f1").ok(), tasks: Vec::new() };
    let mut world = World::new(config(true), restored);
    world.tick();
    assert_eq!(world.feed(Input::Connected), [send(1, subscribe(Some("f1")))]);
    assert_eq!(world.event(subscription()), [send(2, ask(&[]))]);
}

#[test]
fn a_master_that_is_not_there_is_tried_again_ever_less_often() {
    let mut world = World::new(config(false), Restored::default());
    world.tick();
    for longest in [250, 500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000] {
        assert_eq!(world.feed(Input::Disconnected), []);
        let (waited, effects) = world.skip_to_deadline();
        assert_eq!(effects, [Effect::Connect]);
        assert!(
            (longest / 2..=longest).contains(&divvy_proto::time::millis(waited)),
            "{waited:?} of {longest}"
        );
    }
}

#[test]
fn the_wait_begins_anew_after_a_subscription() {
    let mut world = World::subscribed();
    world.feed(Input::Disconnected);
    assert!(!world.driver.view().connected());
    let (waited, effects) = world.skip_to_deadline();
    assert_eq!(effects, [Effect::Connect]);
    assert!(waited <= Duration::from_millis(250));
    assert_eq!(world.feed(Input::Connected), [send(3, subscribe(Some("f1")))]);
}

#[test]
fn a_master_that_does_not_answer_subscribe_is_given_up() {
    let mut world = World::new(config(false), Restored::default());
    world.tick();
    world.feed(Input::Connected);
    assert_eq!(world.skip_to_deadline(), (secs(15), vec![Effect::Disconnect]));
    assert_eq!(world.skip_to_deadline().1, [Effect::Connect]);
}

#[test]
fn five_missed_heartbeats_end_a_connection() {
    let mut world = World::subscribed();
    assert_eq!(world.after(4 * HEARTBEAT), []);
    assert_eq!(world.event(Event::Heartbeat), []);
    assert_eq!(world.after(5 * HEARTBEAT - secs(1)), []);
    assert_eq!(world.after(secs(1)), [Effect::Disconnect]);
}

#[test]
fn a_deposed_master_is_left() {
    let mut world = World::subscribed();
    world.event(Event::Error(StreamError::TooSlow(9)));
    world.skip_to_deadline();
    world.feed(Input::Connected);
    let Event::Subscribed { framework_id, heartbeat, .. } = subscription() else { unreachable!() };
    let old = Event::Subscribed { framework_id, epoch: Epoch(0), heartbeat };
    assert_eq!(world.event(old), [Effect::Disconnect]);
    assert!(!world.driver.view().connected());
}

#[test]
fn the_last_words_of_a_stream_that_was_left_do_not_count() {
    let mut world = World::subscribed();
    world.after(5 * HEARTBEAT);
    assert_eq!(world.event(Event::Error(StreamError::TakenOver)), []);
    assert_eq!(world.driver.stopped(), None);
}

#[test]
fn what_comes_before_the_subscription_does_not_count() {
    let mut world = World::new(config(false), Restored::default());
    world.tick();
    world.feed(Input::Connected);
    assert_eq!(world.event(Event::Offers(vec![offer(1)])), []);
}

#[test]
fn another_process_with_the_same_id_ends_this_one() {
    for error in [StreamError::TakenOver, StreamError::TornDown, StreamError::Refused("no".into())] {
        let mut world = World::running();
        assert_eq!(
            world.event(Event::Error(error.clone())),
            [Effect::Disconnect, Effect::Stop(error.clone())]
        );
        assert_eq!(world.driver.stopped(), Some(&error));
        assert_eq!(world.driver.next_deadline(), None);
        assert_eq!(world.feed_all([Input::Tick, Input::Event(Event::Offers(vec![offer(2)]))]), []);
    }
}

#[test]
fn a_refused_subscription_is_not_tried_again() {
    let mut world = World::new(config(false), Restored::default());
    world.tick();
    world.feed(Input::Connected);
    let refusal = Refusal::UnknownFramework(FrameworkId::new("f1").unwrap());
    let error = StreamError::Refused(refusal.to_string());
    let reply = Event::Reply { call_id: call_id(1), outcome: Outcome::Refused(refusal) };
    assert_eq!(world.event(reply), [Effect::Disconnect, Effect::Stop(error)]);
}

#[test]
fn an_id_that_was_retired_meanwhile_is_given_up_with_its_tasks() {
    let mut world = World::running();
    world.feed(Input::Disconnected);
    world.skip_to_deadline();
    world.feed(Input::Connected);
    let effects = world.event(Event::Error(StreamError::TornDown));
    assert_eq!(world.state("t1"), TaskState::Gone);
    let given_up = Write::Delete { key: "framework/id".into() };
    assert_eq!(effects, [persist(3, [given_up, world.record("t1")]), Effect::Disconnect]);
    world.skip_to_deadline();
    assert_eq!(world.feed(Input::Connected), [send(6, subscribe(None))]);
}

#[test]
fn a_teardown_waits_for_the_master_and_leaves_nothing_stored() {
    let mut world = World::running();
    world.feed(Input::Disconnected);
    assert_eq!(world.feed(Input::Teardown), []);
    world.skip_to_deadline();
    world.feed(Input::Connected);
    assert_eq!(world.event(subscription())[0], send(6, CallBody::Teardown));
    let deleted = ["framework/tasks/t1", "framework/id"].map(|key| Write::Delete { key: key.into() });
    assert_eq!(
        world.event(accepted(6)),
        [persist(3, deleted), Effect::Disconnect, Effect::Stop(StreamError::TornDown)]
    );
}
