//! All effects of single looks, as they are handed to the driver.

use std::collections::BTreeMap;

use divvy_sdk::proto::RolePath;
use divvy_sdk::proto::demand::{Demand, DemandShape, Preference};
use divvy_sdk::proto::task::Reason;
use divvy_sdk::{Actions, Scheduler, Write};

use super::SECOND;
use super::world::{World, app, id};
use crate::planner::spec::AppSpec;

/// Everything in some actions but the text of app records, which would drown the rest.
fn shown(mut actions: Actions) -> Actions {
    for write in &mut actions.writes {
        if let Write::Put { key, value } = write
            && key.starts_with("apps/")
        {
            *value = Vec::new();
        }
    }
    actions
}

fn one_instance() -> AppSpec {
    AppSpec { instances: 1, ..app("v1") }
}

/// So many more of the app's tasks.
fn wanting(count: u32) -> Option<BTreeMap<RolePath, Demand>> {
    let shape = DemandShape {
        name: "web".into(),
        resources: "cpus=0.1;mem=32MiB".parse().unwrap(),
        ports: 1,
        count,
        constraint: None,
        preference: Preference::Spread("hostname".into()),
    };
    let mut actions = Actions::none();
    actions.want_nothing();
    actions.want(&RolePath::default(), shape);
    actions.demand
}

#[test]
fn a_new_app_wants_offers_and_asks_again_at_its_deadline() {
    let mut world = World::new(1);
    world.apply(one_instance());
    let expected = Actions {
        wake_at: Some(world.now + SECOND * 600),
        demand: wanting(1),
        revive: true,
        ..Actions::none()
    };
    assert_eq!(world.planner.reconcile(&world.view(), Vec::new()), expected);
    // Nothing has changed since: filters need not be dropped again.
    let expected = Actions { revive: false, ..expected };
    assert_eq!(world.planner.reconcile(&world.view(), Vec::new()), expected);
}

#[test]
fn an_offer_is_used_and_the_counter_behind_task_ids_is_written() {
    let mut world = World::new(1);
    world.apply(one_instance());
    let (view, offers) = (world.view(), world.make_offers());
    insta::assert_debug_snapshot!(shown(world.planner.reconcile(&view, offers)));
}

#[test]
fn an_ended_task_is_accounted_for_and_forgotten_in_one() {
    let mut world = World::new(1);
    world.apply(one_instance());
    world.run(SECOND * 10);
    let task = world.tasks.keys().next().unwrap().clone();
    world.crash(&task, Reason::OutOfMemory);
    let actions = world.planner.reconcile(&world.view(), Vec::new());
    let expected = Actions {
        writes: vec![Write::Put { key: "apps/web".to_owned(), value: Vec::new() }],
        forget: vec![task],
        wake_at: Some(world.now + SECOND),
        demand: wanting(0),
        ..Actions::none()
    };
    assert_eq!(shown(actions), expected);
}

#[test]
fn an_instance_too_many_is_withdrawn_first_and_killed_after_the_drain_time() {
    let mut world = World::new(1);
    world.apply(one_instance());
    world.run(SECOND * 10);
    let task = world.tasks.keys().next().unwrap().clone();
    world.command(|planner, now| planner.scale(&id("web"), 0, now));
    let withdrawn = Actions {
        // How far the deployment is.
        writes: vec![Write::Put { key: "apps/web".to_owned(), value: Vec::new() }],
        wake_at: Some(world.now + SECOND),
        demand: wanting(0),
        ..Actions::none()
    };
    assert_eq!(shown(world.planner.reconcile(&world.view(), Vec::new())), withdrawn);
    assert_eq!(world.planner.endpoints(&id("web"), &world.view()), Some(Vec::new()));
    world.now = world.now + SECOND;
    let mut killed = Actions { wake_at: Some(world.now + SECOND * 599), ..Actions::none() };
    killed.kill(task);
    killed.want_nothing();
    assert_eq!(world.planner.reconcile(&world.view(), Vec::new()), killed);
}
