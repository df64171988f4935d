//! The agent, or a shim, dies by SIGKILL at each step of a task's life in turn. The next agent finds what is half done: the
//! task has an end with the true reason, and nothing is left.

use std::process::Child;

use divvy_agent::KillTasks;
use divvy_agent::container::STEPS;
use divvy_proto::container::{ContainerInfo, Network};
use divvy_proto::task::{Reason, TaskInfo, TaskState};

use crate::Tests;
use crate::harness::{World, shell};
use crate::leaks::census;

pub(crate) fn tests() -> Tests {
    vec![
        ("an_agent_killed_at_any_step_of_a_launch_leaves_nothing", launching),
        ("an_agent_killed_at_any_step_of_an_end_leaves_nothing", ending),
        ("a_shim_killed_at_any_step_leaves_nothing", shim),
        ("an_agent_killed_at_any_step_of_a_launch_leaves_no_network", launching_in_a_network),
        ("an_agent_killed_at_any_step_of_an_end_leaves_no_network", ending_in_a_network),
        ("a_shim_killed_at_any_step_leaves_no_network", shim_in_a_network),
    ]
}

/// How a task ends whose agent died at this step.
type End = (TaskState, Reason);

const NOT_STARTED: End = (TaskState::Dropped, Reason::AgentRestarted);
const KILLED: End = (TaskState::Killed, Reason::KillRequested);

/// Here the shim is on its own: it has started the program by the time when the next agent looks, or not.
const RACE: &str = "shim started";

type Maker = fn(&str) -> TaskInfo;

const UNTIL_STOPPED: &str = "while [ ! -e stop ]; do sleep 0.02; done";

fn plain(task: &str) -> TaskInfo {
    shell(task, UNTIL_STOPPED)
}

fn networked(task: &str) -> TaskInfo {
    let network = Network::Named("bridge".parse().unwrap());
    TaskInfo {
        container: Some(Box::new(ContainerInfo { network, ..ContainerInfo::default() })),
        ..plain(task)
    }
}

fn launching(world: &mut World) {
    launches(world, plain);
}

fn launching_in_a_network(world: &mut World) {
    launches(world, networked);
}

fn ending(world: &mut World) {
    ends(world, plain);
}

fn ending_in_a_network(world: &mut World) {
    ends(world, networked);
}

fn shim(world: &mut World) {
    shims(world, plain);
}

fn shim_in_a_network(world: &mut World) {
    shims(world, networked);
}

fn launches(world: &mut World, task: Maker) {
    let isolators = (0..STEPS).map(|number| (format!("prepared {number}"), NOT_STARTED));
    let others = [
        ("checkpoint drafted", NOT_STARTED),
        ("checkpoint made", NOT_STARTED),
        ("checkpoint appended", KILLED),
        ("record made", NOT_STARTED),
        ("plan written", NOT_STARTED),
        (RACE, KILLED),
        ("program started", KILLED),
    ];
    let steps = isolators.chain(others.map(|(step, end)| (step.to_owned(), end)));
    each(world, task, steps, |world, agent, task| {
        world.launch(task);
        world.eventually("the agent dies", |_| dead(agent));
    });
}

fn ends(world: &mut World, task: Maker) {
    let isolators = (0..STEPS).map(|number| format!("cleaned {number}"));
    let others = ["container told to end", "shim ended", "processes killed", "record removed"];
    let steps = isolators.chain(others.map(str::to_owned)).map(|step| (step, KILLED));
    each(world, task, steps, |world, agent, task| {
        let id = task.id.to_string();
        world.run(task);
        world.kill(&id);
        world.eventually("the agent dies", |_| dead(agent));
    });
}

fn shims(world: &mut World, task: Maker) {
    let steps = [
        ("shim: socket made", (TaskState::Failed, Reason::LaunchFailed)),
        ("shim: program executed", (TaskState::Failed, Reason::LaunchFailed)),
        ("shim: start noted", (TaskState::Failed, Reason::LaunchFailed)),
        ("shim: program ended", KILLED),
        ("shim: end noted", KILLED),
    ];
    each(world, task, steps.map(|(step, end)| (step.to_owned(), end)), |world, agent, task| {
        let id = task.id.to_string();
        world.launch(task);
        let known =
            |world: &World| world.states(&id).last().is_some_and(|state| *state >= TaskState::Running);
        world.eventually("the task starts or not", known);
        world.kill(&id);
        world.end_of(&id);
        agent.kill().unwrap();
    });
}

/// For each step: an agent lives through `life` and is dead after it, a new one follows; then the end and the count.
fn each(
    world: &mut World,
    maker: Maker,
    steps: impl IntoIterator<Item = (String, End)>,
    life: impl Fn(&mut World, &mut Child, TaskInfo),
) {
    let mut wrong = Vec::new();
    // The first container makes what all share.
    world.run(maker("first"));
    world.kill("first");
    world.end_of("first");
    settles(world);
    let before = census(world);
    world.stop(KillTasks::No);
    for (step, expected) in steps {
        let task = step.replace([' ', ':'], "-");
        let mut agent = world.start_process_to_die_at(&step);
        life(world, &mut agent, maker(&task));
        agent.wait().unwrap();
        world.start();
        let end = end_of(world, &task);
        if end.is_some_and(|end| end != expected && !(step == RACE && end == NOT_STARTED)) {
            wrong.push((step.clone(), end));
        }
        settles(world);
        let left: Vec<_> = census(world).into_iter().filter(|item| !before.contains(item)).collect();
        assert_eq!(left, Vec::<String>::new(), "left behind after {step}");
        world.stop(KillTasks::No);
    }
    assert_eq!(wrong, [], "these ends are not the true ones");
}

fn settles(world: &World) {
    world.eventually("the container is gone", |world| {
        world.containers() == 0 && world.checkpoints().is_empty()
    });
    world.eventually("what was thrown away is removed", |world| world.thrown_away() == 0);
}

/// How a task ends that is killed if it still runs. None if the launch was lost with the agent before anybody heard of it.
fn end_of(world: &World, task: &str) -> Option<End> {
    let known = world.registered_tasks().into_iter().find(|(id, _)| id == task);
    if known.is_none() && world.statuses(task).is_empty() {
        return None;
    }
    if known.is_some_and(|(_, state)| !state.is_terminal()) {
        world.kill(task);
    }
    let end = world.end_of(task);
    Some((end.state, end.reason))
}

fn dead(agent: &mut Child) -> bool {
    agent.try_wait().unwrap().is_some()
}
