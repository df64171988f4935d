//! Stories of apps, on virtual time. The bounds are checked by the world at every step of every story.

mod drain;
mod effects;
mod property;
mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use divvy_sdk::proto::task::Reason;
use divvy_sdk::{Constraint, Scheduler};

use self::world::{Behaviour, GOOD, World, app, id};
use super::spec::{Amount, AppSpec, Floor};
use super::{Planner, Refusal};
use crate::api_types::AppState::{Degraded, Deploying, Failed, Running};
use crate::api_types::{ChangeKind, DeploymentState};

const SECOND: Duration = Duration::from_secs(1);
const CRASHES: Behaviour = Behaviour { start: 100, healthy: None, crash: Some(200) };
const NEVER_HEALTHY: Behaviour = Behaviour { start: 100, healthy: None, crash: None };

fn versions(counts: &[(u32, usize)]) -> BTreeMap<u32, usize> {
    counts.iter().copied().collect()
}

/// Three agents, and the app `web` at version 1, running `v1` three times.
fn running() -> World {
    let mut world = World::new(3);
    assert_eq!(world.apply(app("v1")), ChangeKind::Created);
    world.run(SECOND * 10);
    assert_eq!(world.summary(), (Running, DeploymentState::Succeeded, 3, 3, versions(&[(1, 3)])));
    world
}

#[test]
fn a_new_app_gets_its_instances_spread_over_the_agents_and_is_published() {
    let world = running();
    let status = world.status_of("web").unwrap();
    let tasks: Vec<(&str, u32, &str)> =
        status.tasks.iter().map(|t| (t.id.as_str(), t.instance, t.hostname.as_str())).collect();
    let expected =
        vec![("web.1.0-1", 0, "agent-1"), ("web.1.1-2", 1, "agent-2"), ("web.1.2-3", 2, "agent-3")];
    assert_eq!(tasks, expected);
    let addresses: Vec<&str> = status.endpoints.iter().map(|e| e.address.as_str()).collect();
    assert_eq!(addresses, vec!["127.0.0.1:31000"; 3]);
}

#[test]
fn nothing_is_done_and_no_offers_are_wanted_when_all_is_well() {
    let mut world = running();
    let view = world.view();
    let actions = world.planner.reconcile(&view, Vec::new());
    let mut expected = divvy_sdk::Actions::none();
    expected.want_nothing();
    assert_eq!(actions, expected);
}

#[test]
fn a_task_that_ends_is_replaced_after_a_second_and_the_next_ones_later() {
    let mut world = running();
    world.behave("v1", CRASHES);
    let first = world.tasks.keys().next().unwrap().clone();
    world.crash(&first, Reason::CommandExited);
    world.run(Duration::from_millis(100));
    let status = world.status_of("web").unwrap();
    assert_eq!((status.state, status.healthy, status.running), (Degraded, 2, 2));
    assert_eq!(status.reason.as_deref(), Some("restarting in 1s after exit code 1 (web.1.0-1)"));
    world.run(SECOND * 20);
    // Tries at 1, 3.3, 7.6 and 15.9 s.
    assert_eq!(world.planner.launched, 3 + 4);
    assert_eq!(world.status_of("web").unwrap().history.len(), 1 + 4);
}

#[test]
fn the_fault_of_an_agent_is_no_reason_to_back_off() {
    let mut world = running();
    let first = world.tasks.keys().next().unwrap().clone();
    world.crash(&first, Reason::AgentRestarted);
    world.run(Duration::from_millis(1));
    assert_eq!(world.planner.launched, 4);
}

#[test]
fn an_update_replaces_all_instances_in_batches() {
    let mut world = running();
    assert_eq!(world.apply(app("v2")), ChangeKind::Updated);
    world.run(SECOND);
    let (state, ..) = world.summary();
    assert_eq!(state, Deploying);
    world.run(SECOND * 30);
    assert_eq!(world.summary(), (Running, DeploymentState::Succeeded, 3, 3, versions(&[(2, 3)])));
    assert_eq!(world.kills.len(), 3, "each old instance is stopped once, and nothing else");
}

#[test]
fn an_endpoint_is_withdrawn_a_drain_time_before_its_task_is_told_to_stop() {
    let mut world = running();
    world.command(|planner, now| planner.scale(&id("web"), 2, now));
    world.look();
    let status = world.status_of("web").unwrap();
    assert_eq!((status.endpoints.len(), status.running, world.kills.len()), (2, 3, 0));
    world.run(Duration::from_millis(999));
    assert_eq!(world.kills.len(), 0);
    world.run(Duration::from_millis(1));
    assert_eq!(world.kills.len(), 1);
}

#[test]
fn a_version_that_crashes_stops_the_update_and_the_old_one_serves_on() {
    let mut world = running();
    world.behave("v2", CRASHES);
    world.apply(app("v2"));
    world.run(SECOND * 30);
    assert_eq!(world.summary(), (Failed, DeploymentState::Failed, 3, 3, versions(&[(1, 3)])));
    let reason = world.status_of("web").unwrap().deployment.reason.unwrap();
    assert!(reason.starts_with("tasks of version 2 failed 3 times on end; the last: web.2."), "{reason}");
    assert!(reason.ends_with("exit code 1; version 1 runs on"), "{reason}");
    let launched = world.planner.launched;
    world.run(SECOND * 3600);
    assert_eq!(world.planner.launched, launched, "a failed version is not tried on");
}

#[test]
fn a_version_that_never_gets_healthy_fails_at_the_progress_deadline() {
    let mut world = running();
    world.behave("v2", NEVER_HEALTHY);
    let mut spec = app("v2");
    spec.update.progress_deadline = SECOND * 60;
    world.apply(spec);
    world.run(SECOND * 59);
    assert_eq!(world.summary().0, Deploying);
    world.run(SECOND * 20);
    assert_eq!(world.summary(), (Failed, DeploymentState::Failed, 3, 3, versions(&[(1, 3)])));
    let reason = world.status_of("web").unwrap().reason.unwrap();
    assert_eq!(reason, "version 2 got no further for 1m (progress_deadline); version 1 runs on");
}

#[test]
fn going_back_after_a_failed_update_restarts_nothing_that_still_runs() {
    let mut world = running();
    world.behave("v2", CRASHES);
    world.apply(app("v2"));
    world.run(SECOND * 30);
    let (launched, kills) = (world.planner.launched, world.kills.len());
    assert_eq!(world.apply(app("v1")), ChangeKind::Updated);
    world.run(SECOND * 10);
    assert_eq!(world.summary(), (Running, DeploymentState::Succeeded, 3, 3, versions(&[(1, 3)])));
    assert_eq!((world.planner.launched, world.kills.len()), (launched, kills));
    assert_eq!(world.status_of("web").unwrap().version, 3);
}

#[test]
fn applying_a_failed_version_again_tries_it_again() {
    let mut world = running();
    world.behave("v2", CRASHES);
    world.apply(app("v2"));
    world.run(SECOND * 30);
    world.behave("v2", GOOD);
    assert_eq!(world.apply(app("v2")), ChangeKind::Retried);
    world.run(SECOND * 30);
    assert_eq!(world.summary(), (Running, DeploymentState::Succeeded, 3, 3, versions(&[(2, 3)])));
}

#[test]
fn a_first_version_that_fails_is_tried_on() {
    let mut world = World::new(1);
    world.behave("v1", CRASHES);
    world.apply(app("v1"));
    world.run(SECOND * 30);
    assert_eq!(world.summary().0, Failed);
    world.behave("v1", GOOD);
    world.run(SECOND * 60);
    assert_eq!(world.summary(), (Running, DeploymentState::Succeeded, 3, 3, versions(&[(1, 3)])));
}

#[test]
fn the_latest_of_several_updates_wins() {
    let mut world = running();
    world.apply(app("v2"));
    world.run(SECOND * 3);
    world.apply(app("v3"));
    world.run(SECOND * 40);
    assert_eq!(world.summary(), (Running, DeploymentState::Succeeded, 3, 3, versions(&[(3, 3)])));
}

#[test]
fn another_number_of_instances_is_not_another_version() {
    let mut world = running();
    world.command(|planner, now| planner.scale(&id("web"), 5, now));
    assert_eq!(world.summary().0, Deploying);
    world.run(SECOND * 10);
    assert_eq!(world.summary(), (Running, DeploymentState::Succeeded, 5, 5, versions(&[(1, 5)])));
    let less = AppSpec { instances: 1, ..app("v1") };
    assert_eq!(world.apply(less), ChangeKind::Scaled);
    world.run(SECOND * 10);
    assert_eq!(world.summary(), (Running, DeploymentState::Succeeded, 1, 1, versions(&[(1, 1)])));
    assert_eq!(world.status_of("web").unwrap().tasks[0].id.as_str(), "web.1.0-1", "the oldest stays");
}

#[test]
fn a_restart_replaces_all_instances_by_the_same() {
    let mut world = running();
    world.command(|planner, now| planner.restart(&id("web"), now));
    world.run(SECOND * 30);
    assert_eq!(world.summary(), (Running, DeploymentState::Succeeded, 3, 3, versions(&[(2, 3)])));
}

#[test]
fn a_removed_app_drains_and_is_gone_with_its_record() {
    let mut world = running();
    world.command(|planner, now| planner.remove(&id("web"), now));
    world.look();
    assert_eq!(world.status_of("web").unwrap().endpoints, Vec::new());
    world.run(SECOND * 5);
    assert_eq!((world.status_of("web"), world.tasks.len()), (None, 0));
    assert_eq!(world.store.keys().collect::<Vec<_>>(), vec!["launched"]);
}

#[test]
fn an_app_that_comes_again_never_uses_a_task_id_again() {
    let mut world = running();
    world.command(|planner, now| planner.remove(&id("web"), now));
    world.run(SECOND * 5);
    world.restart_planner();
    world.apply(app("v1"));
    world.run(SECOND * 10);
    assert_eq!(world.status_of("web").unwrap().tasks[0].id.as_str(), "web.1.0-4");
}

#[test]
fn tasks_out_of_reach_are_replaced_and_end_when_they_return() {
    let mut world = running();
    world.reach(0, false);
    world.run(SECOND * 10);
    let status = world.status_of("web").unwrap();
    assert_eq!((status.state, status.healthy, status.tasks.len()), (Running, 3, 4));
    world.reach(0, true);
    world.run(SECOND * 10);
    let tasks: Vec<String> = world.status_of("web").unwrap().tasks.iter().map(|t| t.id.to_string()).collect();
    assert_eq!(tasks, vec!["web.1.0-4", "web.1.1-2", "web.1.2-3"]);
}

#[test]
fn tasks_out_of_reach_can_be_waited_for() {
    let mut world = World::new(3);
    world.apply(AppSpec { replace_unreachable_after: SECOND * 60, ..app("v1") });
    world.run(SECOND * 10);
    world.reach(0, false);
    world.run(SECOND * 59);
    assert_eq!(world.planner.launched, 3);
    world.run(SECOND * 2);
    assert_eq!(world.planner.launched, 4);
}

#[test]
fn a_planner_that_restarts_in_the_middle_of_an_update_finishes_it() {
    let mut world = running();
    world.apply(app("v2"));
    for _ in 0..20 {
        world.run(Duration::from_millis(900));
        world.restart_planner();
    }
    world.run(SECOND * 30);
    assert_eq!(world.summary(), (Running, DeploymentState::Succeeded, 3, 3, versions(&[(2, 3)])));
    assert_eq!(world.kills.len(), 3);
}

#[test]
fn an_update_needs_no_spare_room_where_one_may_be_missing() {
    let mut world = World::new(3);
    let unique = |program| {
        let mut spec = app(program);
        spec.task.constraints.push(Constraint::Unique { attribute: "hostname".to_owned() });
        spec.update.floor = Some(Floor::MaxUnavailable(Amount::Count(1)));
        spec
    };
    world.apply(unique("v1"));
    world.run(SECOND * 10);
    world.apply(unique("v2"));
    world.run(SECOND * 40);
    assert_eq!(world.summary(), (Running, DeploymentState::Succeeded, 3, 3, versions(&[(2, 3)])));
}

#[test]
fn what_cannot_be_placed_says_why_and_fails_at_the_deadline() {
    let mut world = World::new(3);
    let mut spec = app("v1");
    spec.task.cpus = "64".parse().unwrap();
    world.apply(spec);
    world.run(SECOND);
    let waiting = world.status_of("web").unwrap().waiting.unwrap();
    assert_eq!(waiting, "3 to launch: needs cpus=64: the largest of 3 agents has 1");
    world.run(SECOND * 601);
    let status = world.status_of("web").unwrap();
    let reason = "version 1 got no further for 10m (progress_deadline): 3 to launch: needs cpus=64: the largest \
                  of 3 agents has 1; it is tried on";
    assert_eq!((status.state, status.reason.as_deref()), (Failed, Some(reason)));
}

#[test]
fn a_hungry_app_does_not_starve_another() {
    let mut world = World::new(1);
    world.apply(AppSpec { instances: 50, ..app("hungry") });
    let small = AppSpec { id: id("small"), instances: 3, ..app("v1") };
    world.apply(small);
    world.run(SECOND * 10);
    let healthy = |app| world.status_of(app).unwrap().healthy;
    assert_eq!((healthy("web"), healthy("small")), (7, 3), "the agent has room for ten");
}

#[test]
fn commands_that_make_no_sense_change_nothing() {
    let mut world = running();
    let now = world.now;
    let mut stuck = app("v2");
    stuck.update.floor = Some(Floor::MinHealthy(Amount::Percent(100)));
    stuck.update.max_surge = Amount::Count(0);
    let stored = world.store.clone();
    let planner = &mut world.planner;
    let refusals = [
        planner.apply(stuck, None, false, now).unwrap_err().to_string(),
        planner.apply(app("v2"), Some(7), false, now).unwrap_err().to_string(),
        planner.scale(&id("db"), 1, now).unwrap_err().to_string(),
        planner.scale(&id("web"), 60_000, now).unwrap_err().to_string(),
    ];
    let expected = [
        "update.max_surge: \"0\" is not valid: expected at least 1, as all 3 instances must stay healthy and could \
         not be replaced",
        "app \"web\" is at version 1, not 7; look at it again before changing it",
        "there is no app \"db\"; `divvy service ls` shows those that there are",
        "instances: \"60000\" is not valid: expected at most 50000",
    ];
    assert_eq!(refusals, expected);
    world.run(SECOND);
    assert_eq!((world.store, world.kills.len()), (stored, 0));
}

#[test]
fn a_dry_run_says_what_would_change_and_changes_nothing() {
    let mut world = running();
    let (stored, now) = (world.store.clone(), world.now);
    let spec = AppSpec { instances: 4, ..app("v2") };
    let (change, actions) = world.planner.apply(spec, Some(1), true, now).unwrap();
    assert_eq!(
        (change.change, change.version, change.peak, change.differences),
        (
            ChangeKind::Updated,
            2,
            5,
            vec!["instances: 3 → 4".to_owned(), "task.command.shell: \"v1\" → \"v2\"".to_owned()]
        )
    );
    assert_eq!((actions, world.store.clone()), (divvy_sdk::Actions::none(), stored));
    assert_eq!(world.status_of("web").unwrap().version, 1);
}

#[test]
fn a_record_that_is_damaged_is_named() {
    let error = Planner::restore([("apps/web", b"{".as_slice())]).unwrap_err();
    assert!(error.to_string().starts_with("restore apps/web: EOF"), "{error}");
}

#[test]
fn tasks_of_an_app_that_is_no_more_are_ended() {
    let mut world = running();
    world.reach(0, false);
    world.look();
    world.command(|planner, now| planner.remove(&id("web"), now));
    world.run(SECOND * 10);
    assert_eq!(world.status_of("web"), None);
    world.reach(0, true);
    world.run(SECOND * 10);
    assert_eq!(world.tasks.len(), 0);
    assert!(matches!(world.planner.remove(&id("web"), world.now), Err(Refusal::NotFound(_))));
}
