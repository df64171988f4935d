//! Updates, acknowledgements, kills.

use super::*;

#[test]
fn an_update_is_acknowledged_when_it_was_seen_and_stored() {
    let mut world = World::durable();
    world.then(|_, mut offers| launch(&mut offers, "t1"));
    world.event(Event::Offers(vec![offer(1)]));
    world.persisted(1);
    let called = world.driver.scheduler().called;
    let effects = world.event(Event::Update(status("t1", TaskState::Running, Some("u1"))));
    assert_eq!(effects, [persist(2, [world.record("t1")])]);
    assert_eq!(world.driver.scheduler().called, called + 1);
    assert_eq!(world.task("t1").running_since, Some(world.now));
    assert_eq!(world.persisted(2), [send(4, acknowledge("t1", "u1"))]);
}

#[test]
fn a_repeated_update_is_acknowledged_again_and_changes_nothing() {
    let mut world = World::running();
    let before = world.driver.view().clone();
    let again = Event::Update(status("t1", TaskState::Running, Some("u1")));
    assert_eq!(world.event(again), [send(5, acknowledge("t1", "u1"))]);
    assert_eq!(*world.driver.view(), before);
}

#[test]
fn a_repetition_does_not_overtake_the_store() {
    let mut world = World::running();
    world.event(Event::Update(status("t1", TaskState::Finished, Some("u2"))));
    let again = Event::Update(status("t1", TaskState::Finished, Some("u2")));
    assert_eq!(world.event(again), []);
    let calls = [5, 6].map(|number| send(number, acknowledge("t1", "u2")));
    assert_eq!(world.persisted(3), calls);
}

#[test]
fn an_older_update_does_not_move_a_task_backwards() {
    let mut world = World::running();
    let late = Event::Update(status("t1", TaskState::Starting, Some("u0")));
    assert_eq!(world.event(late), [send(5, acknowledge("t1", "u0"))]);
    assert_eq!(world.state("t1"), TaskState::Running);
}

#[test]
fn a_change_of_health_is_news() {
    let mut world = World::running();
    let sick = TaskStatus { healthy: Some(false), ..status("t1", TaskState::Running, Some("u2")) };
    let effects = world.event(Event::Update(sick));
    assert_eq!(effects, [persist(3, [world.record("t1")])]);
    assert_eq!(world.task("t1").status.healthy, Some(false));
}

#[test]
fn an_unreachable_task_may_come_back() {
    let mut world = World::running();
    let lost = TaskStatus { source: Source::Master, ..status("t1", TaskState::Unreachable, None) };
    world.event(Event::Update(lost));
    assert!(world.task("t1").is_live());
    world.event(Event::Update(status("t1", TaskState::Running, Some("u2"))));
    assert_eq!(world.state("t1"), TaskState::Running);
}

#[test]
fn the_end_stays_until_it_is_forgotten_together_with_what_the_scheduler_keeps() {
    let mut world = World::running();
    let effects = world.event(Event::Update(status("t1", TaskState::Finished, Some("u2"))));
    assert_eq!(effects, [persist(3, [world.record("t1")])]);
    world.then(|_, _| {
        let mut actions = Actions::none();
        actions.put("jobs/1", b"done".to_vec());
        actions.forget(task_id("t1"));
        actions
    });
    let done = Write::Put { key: "jobs/1".into(), value: b"done".to_vec() };
    let forgotten = Write::Delete { key: "framework/tasks/t1".into() };
    assert_eq!(world.event(Event::Failure { agent_id: agent_id() }), [persist(4, [done, forgotten])]);
    assert_eq!(world.driver.view().tasks().count(), 0);
}

#[test]
fn accounted_for_and_forgotten_in_the_turn_of_its_end_leaves_one_commit_and_then_the_acknowledgement() {
    let mut world = World::running();
    world.then(|view, _| {
        let mut actions = Actions::none();
        view.tasks().filter(|task| !task.is_live()).for_each(|task| actions.forget(task.id().clone()));
        actions.put("jobs/1", b"done".to_vec());
        actions
    });
    let effects = world.event(Event::Update(status("t1", TaskState::Finished, Some("u2"))));
    let done = Write::Put { key: "jobs/1".into(), value: b"done".to_vec() };
    let forgotten = Write::Delete { key: "framework/tasks/t1".into() };
    assert_eq!(effects, [persist(3, [done, forgotten])]);
    assert_eq!(world.persisted(3), [send(5, acknowledge("t1", "u2"))]);
    let again = Event::Update(status("t1", TaskState::Finished, Some("u2")));
    assert_eq!(world.event(again), [send(6, acknowledge("t1", "u2"))]);
}

#[test]
fn a_live_task_cannot_be_forgotten() {
    let mut world = World::running();
    world.then(|_, _| Actions { forget: vec![task_id("t1")], ..Actions::none() });
    assert_eq!(world.event(Event::Failure { agent_id: agent_id() }), []);
    assert_eq!(world.state("t1"), TaskState::Running);
}

#[test]
fn a_kill_is_repeated_until_the_end_is_known() {
    let mut world = World::running();
    world.then(|_, _| Actions {
        kills: vec![crate::Kill { task_id: task_id("t1"), grace: None }],
        ..Actions::none()
    });
    let effects = world.event(Event::Failure { agent_id: agent_id() });
    assert!(world.task("t1").killing);
    assert_eq!(effects, [persist(3, [world.record("t1")])]);
    assert_eq!(world.persisted(3), [send(5, kill("t1"))]);
    assert_eq!(world.after(secs(4)), []);
    assert_eq!(world.after(secs(1)), [send(6, kill("t1"))]);
    assert_eq!(world.after(secs(9)), []);
    assert_eq!(world.after(secs(1)), [send(7, kill("t1"))]);
    world.event(Event::Heartbeat);

    world.event(Event::Update(status("t1", TaskState::Killed, Some("u2"))));
    assert!(!world.task("t1").killing);
    assert_eq!(world.persisted(4), [send(8, acknowledge("t1", "u2"))]);
    assert_eq!(world.after(secs(60)), []);
}

#[test]
fn a_scheduler_may_ask_for_the_same_kill_each_time() {
    let mut world = World::running();
    for expected in [1, 0, 0] {
        world.then(|_, _| Actions {
            kills: vec![crate::Kill { task_id: task_id("t1"), grace: None }],
            ..Actions::none()
        });
        let effects = world.event(Event::Failure { agent_id: agent_id() });
        assert_eq!(effects.len(), expected);
    }
}

#[test]
fn a_task_that_nobody_knows_is_killed() {
    let mut world = World::durable();
    let stray = Event::Update(status("old", TaskState::Running, Some("u1")));
    assert_eq!(world.event(stray), [send(3, kill("old")), send(4, acknowledge("old", "u1"))]);
    assert_eq!(world.after(secs(5)), [send(5, kill("old"))]);
    let end = Event::Update(status("old", TaskState::Killed, Some("u2")));
    assert_eq!(world.event(end), [send(6, acknowledge("old", "u2"))]);
    assert_eq!(world.after(secs(60)), []);
}

#[test]
fn a_task_that_counts_as_gone_and_comes_back_is_killed() {
    let mut world = World::running();
    world.event(Event::Update(status("t1", TaskState::Gone, None)));
    world.persisted(3);
    let back = Event::Update(status("t1", TaskState::Running, Some("u2")));
    assert_eq!(world.event(back), [send(5, kill("t1")), send(6, acknowledge("t1", "u2"))]);
    assert_eq!(world.state("t1"), TaskState::Gone);
}

#[test]
fn of_ended_tasks_the_latest_are_kept() {
    let mut world = World::up(Config { ended_tasks_kept: 2, ..config(false) }, Restored::default());
    for (time, id) in ["t1", "t2", "t3"].into_iter().enumerate() {
        world.then(|_, mut offers| launch(&mut offers, id));
        world.event(Event::Offers(vec![offer(time as u64)]));
        let end = TaskStatus { time: Timestamp(time as u64), ..status(id, TaskState::Finished, None) };
        world.event(Event::Update(end));
    }
    let kept: Vec<_> = world.driver.view().tasks().map(|task| task.id().to_string()).collect();
    assert_eq!(kept, ["t2", "t3"]);
}
