//! What is wanted back: replaced elsewhere first, and gone in time.

use divvy_sdk::TaskState;

use super::*;

#[test]
fn what_is_wanted_back_is_replaced_elsewhere_before_it_stops() {
    let mut world = running();
    world.drain(0, SECOND * 60);
    // Nothing but what happens and what the planner asks for wakes it.
    world.run(SECOND * 10);
    assert_eq!(world.summary(), (Running, DeploymentState::Succeeded, 3, 3, versions(&[(1, 3)])));
    assert!(world.tasks_on(0).is_empty(), "it is empty long before the deadline");
    let status = world.status_of("web").unwrap();
    assert_eq!((status.history.len(), world.kills.len()), (0, 1), "nothing has failed");
}

#[test]
fn an_agent_with_all_of_an_app_is_emptied_one_by_one() {
    let mut world = World::new(1);
    world.apply(app("v1"));
    world.run(SECOND * 10);
    world.add_machine();
    world.drain(0, SECOND * 60);
    // At each step of the way three are healthy: the world checks two, this story three.
    for _ in 0..300 {
        world.run(SECOND / 10);
        assert!(world.status_of("web").unwrap().healthy >= 3);
    }
    assert_eq!((world.tasks_on(0).len(), world.tasks_on(1).len()), (0, 3));
}

/// There is no other agent: it serves for as long as it may, and its endpoint is withdrawn before it is killed.
#[test]
fn what_cannot_be_replaced_serves_until_shortly_before_the_deadline() {
    let mut world = World::new(1);
    world.apply(AppSpec { instances: 1, ..app("v1") });
    world.run(SECOND * 10);
    world.drain(0, SECOND * 60);
    world.run(SECOND * 56);
    let status = world.status_of("web").unwrap();
    assert_eq!((status.healthy, status.endpoints.len()), (1, 1));
    world.run(SECOND * 2);
    let status = world.status_of("web").unwrap();
    assert_eq!((status.running, status.endpoints.len()), (1, 0));
    world.run(SECOND * 3);
    let status = world.status_of("web").unwrap();
    assert_eq!((status.running, status.history.len(), status.state), (0, 0, Degraded));
    assert!(world.tasks.values().all(|task| task.state() != TaskState::Running));
}

#[test]
fn where_no_surge_is_allowed_it_stops_first_if_the_others_suffice() {
    let mut world = World::new(3);
    let mut spec = app("v1");
    spec.update.max_surge = Amount::Count(0);
    world.apply(spec);
    world.run(SECOND * 10);
    world.drain(0, SECOND * 60);
    world.run(SECOND * 10);
    assert_eq!((world.status_of("web").unwrap().healthy, world.tasks_on(0).len()), (3, 0));
}

#[test]
fn what_the_kernel_takes_back_is_launched_again_at_once() {
    for reason in [Reason::Preempted, Reason::AgentDrained, Reason::Revoked] {
        let mut world = running();
        let first = world.tasks.keys().next().unwrap().clone();
        world.crash(&first, reason);
        world.run(SECOND / 1000);
        assert_eq!((world.planner.launched, world.demand.is_empty()), (4, true), "{reason}");
    }
}

#[test]
fn what_waits_is_asked_for_with_its_constraints_and_nothing_else() {
    let mut world = World::new(2);
    let mut spec = app("v1");
    spec.task.constraint = Some("zone == \"a\"".parse().unwrap());
    spec.task.constraints = vec![Constraint::Unique { attribute: "hostname".into() }];
    world.apply(spec);
    world.run(SECOND);
    let shape = &world.demand[&Default::default()].shapes[0];
    assert_eq!((shape.name.as_str(), shape.count, shape.ports), ("web", 3, 1));
    let constraint = shape.constraint.as_ref().unwrap().to_string();
    assert_eq!(constraint, "zone == \"a\"");
}
