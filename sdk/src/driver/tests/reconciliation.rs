//! What the master is asked, and what its answers mean.

use super::*;

/// `t1` was RUNNING and `t2` had just been accepted when the process ended; now it is subscribed again.
fn after_restart() -> (World, Vec<Effect>) {
    let mut before = World::running();
    before.then(|_, mut offers| launch(&mut offers, "t2"));
    before.event(Event::Offers(vec![offer(2)]));
    let records: Vec<_> = ["t1", "t2"].map(|id| before.record(id)).into();
    let records = records.iter().map(|write| match write {
        Write::Put { key, value } => (key.as_str(), value.as_slice()),
        Write::Delete { .. } => unreachable!(),
    });
    let restored = Restored::from_records(records.chain([("framework/id", b"f1".as_slice())])).unwrap();
    let mut world = World::new(config(true), restored);
    world.tick();
    world.feed(Input::Connected);
    let effects = world.event(subscription());
    (world, effects)
}

#[test]
fn after_a_subscription_every_live_task_is_asked_for_until_it_is_answered() {
    let (mut world, effects) = after_restart();
    assert_eq!(effects, [send(2, ask(&["t1", "t2"])), send(3, ask(&[]))]);
    assert_eq!(world.event(Event::Update(answer("t1", TaskState::Running))), []);
    assert_eq!(world.skip_to_deadline(), (secs(5), vec![send(4, ask(&["t2"]))]));
    assert_eq!(world.skip_to_deadline(), (secs(10), vec![send(5, ask(&["t2"]))]));
    world.event(Event::Update(status("t2", TaskState::Starting, Some("u1"))));
    world.persisted(1);
    world.event(Event::Heartbeat);
    assert_eq!(world.after(secs(60)), []);
}

#[test]
fn a_task_that_the_master_does_not_know_is_gone_or_never_was() {
    let (mut world, _) = after_restart();
    let unknown = ["t1", "t2"].map(|id| Input::Event(Event::Update(answer(id, TaskState::Unknown))));
    let effects = world.feed_all(unknown);
    assert_eq!([world.state("t1"), world.state("t2")], [TaskState::Gone, TaskState::Dropped]);
    assert_eq!(effects, [persist(1, ["t1", "t2"].map(|id| world.record(id)))]);
    assert_eq!(world.driver.view().live(), 0);
}

#[test]
fn an_answer_does_not_replace_what_is_known_in_detail() {
    let mut world = World::running();
    let before = world.driver.view().clone();
    assert_eq!(world.event(Event::Update(answer("t1", TaskState::Running))), []);
    assert_eq!(*world.driver.view(), before);
}

#[test]
fn the_details_of_an_end_may_follow_the_answer() {
    let mut world = World::running();
    world.event(Event::Update(answer("t1", TaskState::Failed)));
    let detailed =
        TaskStatus { message: "exit code 3".into(), ..status("t1", TaskState::Failed, Some("u2")) };
    world.event(Event::Update(detailed));
    assert_eq!(world.task("t1").status.message, "exit code 3");
}

#[test]
fn everything_is_asked_for_again_from_time_to_time() {
    let (mut world, _) = after_restart();
    world.event(Event::Update(answer("t1", TaskState::Running)));
    world.event(Event::Update(answer("t2", TaskState::Unknown)));
    world.persisted(1);
    let mut asked = Vec::new();
    while asked.is_empty() {
        world.event(Event::Heartbeat);
        asked = world.after(HEARTBEAT);
    }
    assert_eq!(asked, [send(4, ask(&["t1"])), send(5, ask(&[]))]);
    assert_eq!(world.now, Timestamp(1_000_000) + secs(900));
}

#[test]
fn a_refused_kill_raises_the_question() {
    let mut world = World::running();
    world.then(|_, _| Actions {
        kills: vec![crate::Kill { task_id: task_id("t1"), grace: None }],
        ..Actions::none()
    });
    world.event(Event::Failure { agent_id: agent_id() });
    world.persisted(3);
    let refusal = divvy_proto::scheduler::Refusal::UnknownTask(task_id("t1"));
    world.event(Event::Reply { call_id: call_id(5), outcome: Outcome::Refused(refusal) });
    assert_eq!(world.skip_to_deadline(), (secs(0), vec![send(6, ask(&["t1"]))]));
}

#[test]
fn kills_outlive_the_process() {
    let mut before = World::running();
    before.then(|_, _| Actions {
        kills: vec![crate::Kill { task_id: task_id("t1"), grace: None }],
        ..Actions::none()
    });
    before.event(Event::Failure { agent_id: agent_id() });
    let restored =
        Restored { framework_id: FrameworkId::new("f1").ok(), tasks: vec![before.task("t1").clone()] };
    let mut world = World::new(config(true), restored);
    world.tick();
    world.feed(Input::Connected);
    assert_eq!(world.event(subscription())[0], send(2, kill("t1")));
}

#[test]
fn tasks_without_an_id_are_not_taken_for_a_new_framework() {
    let world = World::running();
    let Write::Put { key, value } = world.record("t1") else { unreachable!() };
    let error = Restored::from_records([(key.as_str(), value.as_slice())]).unwrap_err();
    assert_eq!(error.field, "framework/id");
}
