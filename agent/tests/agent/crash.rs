//! The agent, or a shim, dies by SIGKILL at each step of a task's life in turn. The next agent finds what is half done: the
//! task has an end with the true reason, and nothing is left.

use std::process::Child;

use divvy_agent::KillTasks;
use divvy_agent::container::STEPS;
use divvy_proto::task::{Reason, TaskState};

use crate::Tests;
use crate::harness::{World, shell};
use crate::leaks::census;

pub(crate) fn tests() -> Tests {
    vec![
        ("an_agent_killed_at_any_step_of_a_launch_leaves_nothing", launching),
        ("an_agent_killed_at_any_step_of_an_end_leaves_nothing", ending),
        ("a_shim_killed_at_any_step_leaves_nothing", shim),
    ]
}

/// How a task ends whose agent died at this step.
type End = (TaskState, Reason);

const NOT_STARTED: End = (TaskState::Dropped, Reason::AgentRestarted);
const KILLED: End = (TaskState::Killed, Reason::KillRequested);

const UNTIL_STOPPED: &str = "while [ ! -e stop ]; do sleep 0.02; done";

fn launching(world: &mut World) {
    let isolators = (0..STEPS).map(|number| (format!("prepared {number}"), NOT_STARTED));
    let others = [
        ("checkpoint drafted", NOT_STARTED),
        ("checkpoint replaced", NOT_STARTED),
        ("checkpoint synced", NOT_STARTED),
        ("record made", NOT_STARTED),
        ("plan written", NOT_STARTED),
        ("shim started", KILLED),
        ("program started", KILLED),
    ];
    let steps = isolators.chain(others.map(|(step, end)| (step.to_owned(), end)));
    each(world, steps, |world, agent, task| {
        world.launch(shell(task, UNTIL_STOPPED));
        world.eventually("the agent dies", |_| dead(agent));
    });
}

fn ending(world: &mut World) {
    let isolators = (0..STEPS).map(|number| format!("cleaned {number}"));
    let others = ["container told to end", "shim ended", "processes killed", "record removed"];
    let steps = isolators.chain(others.map(str::to_owned)).map(|step| (step, KILLED));
    each(world, steps, |world, agent, task| {
        world.run(shell(task, UNTIL_STOPPED));
        world.kill(task);
        world.eventually("the agent dies", |_| dead(agent));
    });
}

fn shim(world: &mut World) {
    let steps = [
        ("shim: socket made", (TaskState::Failed, Reason::LaunchFailed)),
        ("shim: program executed", (TaskState::Failed, Reason::LaunchFailed)),
        ("shim: start noted", (TaskState::Failed, Reason::LaunchFailed)),
        ("shim: program ended", KILLED),
        ("shim: end noted", KILLED),
    ];
    each(world, steps.map(|(step, end)| (step.to_owned(), end)), |world, agent, task| {
        world.launch(shell(task, UNTIL_STOPPED));
        let known =
            |world: &World| world.states(task).last().is_some_and(|state| *state >= TaskState::Running);
        world.eventually("the task starts or not", known);
        world.kill(task);
        world.end_of(task);
        agent.kill().unwrap();
    });
}

/// For each step: an agent lives through `life` and is dead after it, a new one follows; then the end and the count.
fn each(
    world: &mut World,
    steps: impl IntoIterator<Item = (String, End)>,
    life: impl Fn(&mut World, &mut Child, &str),
) {
    let mut wrong = Vec::new();
    // The first container makes what all share.
    world.run(shell("first", UNTIL_STOPPED));
    world.kill("first");
    world.end_of("first");
    world.eventually("the container is gone", |world| {
        world.containers() == 0 && world.checkpoints().is_empty()
    });
    let before = census(world);
    world.stop(KillTasks::No);
    for (step, expected) in steps {
        let task = step.replace([' ', ':'], "-");
        let mut agent = world.start_process_to_die_at(&step);
        life(world, &mut agent, &task);
        agent.wait().unwrap();
        world.start();
        let end = end_of(world, &task);
        if end.is_some_and(|end| end != expected) {
            wrong.push((step.clone(), end));
        }
        world.eventually("the container is gone", |world| {
            world.containers() == 0 && world.checkpoints().is_empty()
        });
        let left: Vec<_> = census(world).into_iter().filter(|item| !before.contains(item)).collect();
        assert_eq!(left, Vec::<String>::new(), "left behind after {step}");
        world.stop(KillTasks::No);
    }
    assert_eq!(wrong, [], "these ends are not the true ones");
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
