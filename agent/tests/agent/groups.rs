//! Task groups, with real containers.

use std::fs;

use divvy_agent::KillTasks;
use divvy_proto::container::{ContainerInfo, GroupMember, Network, StopSignal};
use divvy_proto::task::{ExitStatus, Reason, TaskInfo, TaskState};

use crate::Tests;
use crate::harness::{World, shell};

pub(crate) fn tests() -> Tests {
    vec![
        ("a_group_shares_a_loopback_and_an_end", a_group_shares_a_loopback_and_an_end),
        ("a_helper_ends_alone_and_comes_again", a_helper_ends_alone_and_comes_again),
        ("what_cannot_start_takes_its_group_along", what_cannot_start_takes_its_group_along),
        ("a_group_outlives_its_agent", a_group_outlives_its_agent),
        ("a_task_is_asked_to_end_by_its_own_signal", a_task_is_asked_to_end_by_its_own_signal),
    ]
}

/// A task of the group `g` of two, on a network of their own.
fn member(id: &str, ends_alone: bool, line: &str) -> TaskInfo {
    let group = GroupMember { id: "g".parse().unwrap(), size: 2, ends_alone };
    let container = ContainerInfo { network: Network::None, group: Some(group), ..ContainerInfo::default() };
    TaskInfo { container: Some(Box::new(container)), ..shell(id, line) }
}

/// Greets whoever connects to its loopback.
const SERVER: &str = "exec busybox nc -ll -p 8080 -e echo hello";

/// Waits for the server and keeps what it says.
const CLIENT: &str = "until busybox nc 127.0.0.1 8080 </dev/null 2>/dev/null; do sleep 0.05; done";

fn said(world: &World, task: &str) -> String {
    fs::read_to_string(world.sandbox(task).join("stdout")).unwrap_or_default()
}

fn a_group_shares_a_loopback_and_an_end(world: &mut World) {
    world.launch(member("client", false, CLIENT));
    world.launch(member("server", false, SERVER));
    let end = world.end_of("client");
    assert_eq!((end.state, said(world, "client").as_str()), (TaskState::Finished, "hello\n"));
    let other = world.end_of("server");
    assert_eq!((other.state, other.reason), (TaskState::Killed, Reason::GroupEnded));
    assert!(other.message.contains("task client of its group ended: exit code 0"), "{}", other.message);
}

fn a_helper_ends_alone_and_comes_again(world: &mut World) {
    world.launch(member("main", false, SERVER));
    world.launch(member("helper", true, CLIENT));
    assert_eq!(world.end_of("helper").state, TaskState::Finished);
    assert_eq!(world.ended(member("helper-2", true, CLIENT)).state, TaskState::Finished);
    assert_eq!(said(world, "helper-2"), "hello\n");
    assert_eq!(world.states("main"), [TaskState::Starting, TaskState::Running]);
    world.kill("main");
    assert_eq!(world.end_of("main").state, TaskState::Killed);
}

fn what_cannot_start_takes_its_group_along(world: &mut World) {
    world.launch(member("fine", false, "sleep 1000"));
    world.launch(TaskInfo { user: Some("nosuchuser".to_owned()), ..member("wrong", false, "true") });
    let wrong = world.end_of("wrong");
    assert_eq!((wrong.state, wrong.reason), (TaskState::Failed, Reason::LaunchFailed));
    let fine = world.end_of("fine");
    assert_eq!(fine.reason, Reason::GroupEnded);
    assert!(fine.message.contains("task wrong of its group did not start: "), "{}", fine.message);
}

fn a_group_outlives_its_agent(world: &mut World) {
    world.launch(member("main", false, SERVER));
    world.launch(member("other", false, "sleep 1000"));
    world.until("main", TaskState::Running);
    world.until("other", TaskState::Running);
    world.stop(KillTasks::No);
    world.start();
    // Where it was: a task that comes now joins the network, and the end of one is that of all.
    assert_eq!(world.ended(member("late", true, CLIENT)).state, TaskState::Finished);
    world.kill("other");
    let main = world.end_of("main");
    assert_eq!((main.state, main.reason), (TaskState::Killed, Reason::GroupEnded));
}

fn a_task_is_asked_to_end_by_its_own_signal(world: &mut World) {
    let line = "trap 'exit 7' USR1; trap '' TERM; touch ready; while :; do sleep 0.05; done";
    let stop_signal: StopSignal = "SIGUSR1".parse().unwrap();
    let container = ContainerInfo { stop_signal: Some(stop_signal), ..ContainerInfo::default() };
    world.run(TaskInfo { container: Some(Box::new(container)), ..shell("t", line) });
    world.eventually("it listens", |world| world.sandbox("t").join("ready").exists());
    world.kill("t");
    let end = world.end_of("t");
    assert_eq!((end.state, end.container.exit), (TaskState::Killed, Some(ExitStatus::Code(7))));
}
