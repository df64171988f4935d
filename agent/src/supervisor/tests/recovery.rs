//! What becomes of tasks when the agent's process is another one.

use super::*;
use crate::container::ContainerState;

/// The record of task `t` as a crash finds it when it runs.
fn record() -> TaskRecord {
    Bench::running(task("t")).records.pop().unwrap()
}

/// A new process finds these.
pub(super) fn recover(record: TaskRecord, state: ContainerState) -> (Bench, Vec<String>) {
    let mut bench = Bench::blank();
    let containers = vec![record.container.clone()];
    let recovered = Recovered { tasks: vec![(record, state)], containers, ..Recovered::default() };
    let mut effects = bench.feed(Input::Recovered(recovered));
    effects.extend(bench.written());
    (bench, effects)
}

#[test]
fn a_container_that_runs_is_watched_again() {
    let (bench, effects) = recover(record(), ContainerState::Running { pid: 77, addresses: Vec::new() });
    assert_eq!(effects, ["watch i-1"]);
    assert_eq!(bench.core.live_tasks().len(), 1);
}

#[test]
fn one_that_ended_meanwhile_is_reported_with_its_status() {
    let (_, effects) = recover(record(), ContainerState::Exited(exited(ExitStatus::Code(5))));
    assert_eq!(effects, ["write t FAILED [\"RUNNING\", \"FAILED\"]", "destroy i-1"]);
}

#[test]
fn one_that_ran_and_left_no_trace_is_lost() {
    let (bench, _) = recover(record(), ContainerState::Absent);
    let latest = &bench.records[0].latest;
    assert_eq!(
        show_status(latest),
        "t i-1 FAILED status_lost pid 77: its container ended and nobody can tell how"
    );
}

#[test]
fn a_launch_that_was_cut_short_is_dropped_or_goes_on() {
    let mut bench = Bench::new();
    bench.hear(launch(task("t")));
    let started = bench.records.pop().unwrap();
    let (cut, _) = recover(started.clone(), ContainerState::Absent);
    assert_eq!(
        show_status(&cut.records[0].latest),
        "t i-1 DROPPED agent_restarted: the agent was restarted before the task was started"
    );
    let (_, effects) = recover(started, ContainerState::Running { pid: 78, addresses: Vec::new() });
    assert_eq!(effects, ["write t RUNNING [\"STARTING\", \"RUNNING\"]", "watch i-1"]);
}

#[test]
fn a_reboot_ends_what_ran() {
    let other = TaskRecord { boot_id: "boot-0".to_owned(), ..record() };
    let (bench, effects) = recover(other, ContainerState::Absent);
    assert_eq!(effects, ["write t FAILED [\"RUNNING\", \"FAILED\"]", "destroy i-1"]);
    assert_eq!(
        show_status(&bench.records[0].latest),
        "t i-1 FAILED agent_restarted pid 77: the machine was rebooted"
    );
}

#[test]
fn a_kill_goes_on_where_it_was() {
    let mut bench = Bench::running(task("t"));
    bench.hear(kill("t", None));
    let (mut bench, effects) =
        recover(bench.records.pop().unwrap(), ContainerState::Running { pid: 77, addresses: Vec::new() });
    assert_eq!(effects, ["watch i-1", "terminate i-1"]);
    assert_eq!(bench.pass(secs(3)), ["write t KILLED [\"KILLING\", \"KILLED\"]"]);
}

#[test]
fn an_end_that_was_written_down_is_final_and_is_told() {
    let mut bench = Bench::running(task("t"));
    bench.exits(ExitStatus::Code(0));
    let (mut bench, effects) = recover(bench.records.pop().unwrap(), ContainerState::Absent);
    assert_eq!(effects, ["destroy i-1"]);
    bench.feed(Input::Connected(LinkId(1)));
    bench.registered(1);
    assert_eq!(
        bench.feed(Input::Destroyed(container(1))),
        ["send t i-3 FINISHED command_exited pid 77 exit code 0: exit code 0"]
    );
}

#[test]
fn containers_that_belong_to_no_task_are_destroyed() {
    let mut bench = Bench::blank();
    let recovered = Recovered { containers: vec![container(8), container(9)], ..Recovered::default() };
    assert_eq!(bench.feed(Input::Recovered(recovered)), ["destroy i-8", "destroy i-9"]);
}

#[test]
fn an_acknowledgement_from_before_the_crash_does_not_forget_a_task_whose_container_may_be_there() {
    let mut bench = Bench::running(task("t"));
    bench.exits(ExitStatus::Code(0));
    let (mut bench, _) = recover(bench.records.pop().unwrap(), ContainerState::Absent);
    bench.feed(Input::Connected(LinkId(1)));
    bench.registered(1);
    assert!(bench.hear(acknowledge("t", "i-3")).is_empty());
    assert_eq!(bench.core.known_tasks().count(), 1);
}
