//! Arbitrary answers to operators. Strategies are boxed: by value they would be too large for a test's stack.

use divvy_proto::OfferId;
use divvy_proto::api::{
    Agent, AgentState, Change, Decision, Drain, Framework, FrameworkState, Offer, ResourceUse, Role,
    Snapshot, Status, Task, VolumeView, Window,
};
use divvy_proto::task::TaskPort;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option::of;
use proptest::prelude::*;

use crate::any::{attributes, duration, id, name, resources, role, text, time};
use crate::any_owned::{amounts, quota, reserved, volume};
use crate::any_task::{reason, state};

fn agent_state() -> impl Strategy<Value = AgentState> {
    use AgentState::{Active, Gone, Recovering, Suspected, Unreachable};
    prop::sample::select(vec![Active, Recovering, Suspected, Unreachable, Gone])
}

fn framework_state() -> impl Strategy<Value = FrameworkState> {
    use FrameworkState::{Active, Completed, Disconnected};
    prop::sample::select(vec![Active, Disconnected, Completed])
}

/// With few digits, as serde_json's floats are one off in the last now and then.
fn share() -> impl Strategy<Value = f64> {
    (0..=1000_u32).prop_map(|thousandths| f64::from(thousandths) / 1000.0)
}

fn resource_use() -> BoxedStrategy<ResourceUse> {
    (resources(), resources(), resources(), resources())
        .prop_map(|(total, used, offered, available)| ResourceUse { total, used, offered, available })
        .boxed()
}

fn drain() -> impl Strategy<Value = Drain> {
    (time(), of(time()), any::<bool>(), any::<bool>())
        .prop_map(|(since, deadline, then_gone, drained)| Drain { since, deadline, then_gone, drained })
}

fn window() -> impl Strategy<Value = Window> {
    (time(), duration(), text()).prop_map(|(start, duration, reason)| Window { start, duration, reason })
}

fn volume_views() -> BoxedStrategy<Vec<VolumeView>> {
    let view = (volume(), vec(text(), 0..2)).prop_map(|(volume, used_by)| VolumeView { volume, used_by });
    vec(view, 0..3).boxed()
}

pub(crate) fn agent() -> BoxedStrategy<Agent> {
    let what = (resource_use(), resource_use(), attributes(), reserved(), volume_views());
    let states = (agent_state(), any::<bool>(), of(drain()), of(window()), time());
    ((id(), id()), states, what, any::<usize>(), (text(), text(), text()))
        .prop_map(|((id, hostname), states, what, tasks, (address, url, version))| {
            let (state, deactivated, drain, maintenance, since) = states;
            let (resources, revocable, attributes, reserved, volumes) = what;
            Agent {
                id,
                hostname,
                state,
                resources,
                attributes,
                tasks,
                address,
                url,
                version,
                since,
                deactivated,
                drain,
                maintenance,
                reserved,
                volumes,
                revocable,
            }
        })
        .boxed()
}

pub(crate) fn framework() -> BoxedStrategy<Framework> {
    let roles = btree_set(role(), 0..4).prop_map(|roles| roles.into_iter().collect());
    let counts = (any::<usize>(), any::<usize>(), share());
    (id(), name(), roles, framework_state(), counts, resources(), of(name()), time())
        .prop_map(|(id, name, roles, state, (tasks, offers, dominant_share), resources, url, since)| {
            Framework { id, name, roles, state, tasks, offers, dominant_share, resources, url, since }
        })
        .boxed()
}

pub(crate) fn task() -> BoxedStrategy<Task> {
    let port = (name(), 1..=u16::MAX).prop_map(|(name, number)| TaskPort { name, number, container: None });
    let names = (id(), name(), name(), id(), id(), id());
    let times = (of(time()), time());
    let what = (any::<Option<bool>>(), vec(port, 0..3), resources(), any::<Option<u32>>());
    (names, state(), reason(), text(), of(name()), times, what)
        .prop_map(|(names, state, reason, message, sandbox, times, what)| {
            let (id, name, framework, framework_id, agent_id, hostname) = names;
            let (started_at, updated_at) = times;
            let (healthy, named_ports, resources, pid) = what;
            Task {
                id,
                name,
                framework,
                framework_id,
                agent_id,
                hostname,
                state,
                healthy,
                ports: resources.ports().clone(),
                named_ports,
                resources,
                pid,
                started_at,
                updated_at,
                reason,
                message,
                sandbox,
            }
        })
        .boxed()
}

pub(crate) fn offer() -> BoxedStrategy<Offer> {
    (any::<u64>(), id(), name(), role(), id(), id(), resources(), (time(), time()))
        .prop_map(
            |(number, framework_id, framework, role, agent_id, hostname, resources, (since, expires))| {
                Offer {
                    id: OfferId(number).to_string(),
                    number: OfferId(number),
                    framework_id,
                    framework,
                    role,
                    agent_id,
                    hostname,
                    resources,
                    since,
                    expires,
                }
            },
        )
        .boxed()
}

pub(crate) fn role_view() -> BoxedStrategy<Role> {
    let policy = (of(quota()), amounts(), resources(), amounts());
    (role(), any::<u32>(), share(), any::<usize>(), resources(), policy)
        .prop_map(|(path, weight, dominant_share, frameworks, resources, policy)| {
            let (quota, consumed, reserved, unmet) = policy;
            Role { path, weight, dominant_share, frameworks, resources, quota, consumed, reserved, unmet }
        })
        .boxed()
}

fn decision() -> BoxedStrategy<Decision> {
    let what = (1..=10_i32)
        .prop_map(|number| divvy_proto::pb::DecisionKind::try_from(number).unwrap().try_into().unwrap());
    let tasks = btree_set(id(), 0..3).prop_map(|tasks| tasks.into_iter().collect());
    (any::<u64>(), time(), what, (of(id()), of(role()), of(id())), tasks, resources(), text())
        .prop_map(|(index, time, what, (framework_id, role, agent_id), tasks, resources, why)| Decision {
            index,
            time,
            what,
            framework_id,
            role,
            agent_id,
            tasks,
            resources,
            why,
        })
        .boxed()
}

pub(crate) fn status() -> BoxedStrategy<Status> {
    let counts = (
        btree_map(agent_state(), any::<usize>(), 0..4),
        btree_map(framework_state(), any::<usize>(), 0..3),
        btree_map(state(), any::<usize>(), 0..5),
    );
    (text(), text(), any::<u32>(), any::<u64>(), counts, resource_use(), vec(text(), 0..3))
        .prop_map(|(leader, version, epoch, uptime, (agents, frameworks, tasks), resources, warnings)| {
            Status { leader, version, epoch, uptime, agents, frameworks, tasks, resources, warnings }
        })
        .boxed()
}

pub(crate) fn change() -> BoxedStrategy<Change> {
    let snapshot = (status(), vec(agent(), 0..3), vec(framework(), 0..3), vec(task(), 0..3))
        .prop_map(|(status, agents, frameworks, tasks)| Snapshot { status, agents, frameworks, tasks });
    prop_oneof![
        snapshot.prop_map(|snapshot| Change::Snapshot(Box::new(snapshot))),
        agent().prop_map(|agent| Change::Agent(Box::new(agent))),
        framework().prop_map(Change::Framework),
        task().prop_map(Change::Task),
        (id(), id()).prop_map(|(framework_id, id)| Change::TaskRemoved { framework_id, id }),
        status().prop_map(|status| Change::Status(Box::new(status))),
        role_view().prop_map(Change::Role),
        decision().prop_map(Change::Decision),
    ]
    .boxed()
}
