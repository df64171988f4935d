//! Tasks that share network, ipc and fate.

use divvy_proto::container::{ContainerInfo, GroupMember, Network};
use divvy_proto::task::Reason;

use super::*;
use crate::container::ContainerState;

/// A task of the group `g`, which has this size.
pub(super) fn member(id: &str, size: u32) -> TaskInfo {
    of_group(id, GroupMember { id: "g".parse().unwrap(), size, ends_alone: false })
}

/// One that ends alone.
pub(super) fn helper(id: &str, size: u32) -> TaskInfo {
    of_group(id, GroupMember { id: "g".parse().unwrap(), size, ends_alone: true })
}

fn of_group(id: &str, group: GroupMember) -> TaskInfo {
    let network: Network = "bridge".parse().unwrap();
    TaskInfo {
        container: Some(Box::new(ContainerInfo { network, group: Some(group), ..ContainerInfo::default() })),
        ..task(id)
    }
}

impl Bench {
    fn prepared(&mut self, n: u32) -> Vec<String> {
        self.feed(Input::Prepared { container: container(n), image: None })
    }

    fn started(&mut self, n: u32) -> Vec<String> {
        self.feed(Input::Launched { container: container(n), pid: 70 + n, addresses: Vec::new() })
    }

    fn exit_of(&mut self, n: u32, code: i32) -> Vec<String> {
        self.feed(Input::Exited { container: container(n), exited: exited(ExitStatus::Code(code)) })
    }

    fn destroyed(&mut self, n: u32) -> Vec<String> {
        self.feed(Input::Destroyed(container(n)))
    }

    /// The tasks are here and prepared.
    fn with_all(infos: &[TaskInfo]) -> Self {
        let mut bench = Self::new();
        for info in infos {
            bench.hear(launch(info.clone()));
        }
        bench.written();
        for n in 1..=u32::try_from(infos.len()).unwrap() {
            bench.prepared(n);
        }
        bench
    }

    /// The tasks run, and what was said of them so far is acknowledged.
    fn with_group(infos: &[TaskInfo]) -> Self {
        let mut bench = Self::with_all(infos);
        let count = u32::try_from(infos.len()).unwrap();
        for n in 1..=count {
            bench.started(n);
        }
        bench.written();
        for (info, n) in infos.iter().zip(1..) {
            bench.hear(acknowledge(info.id.as_str(), &format!("i-{n}")));
        }
        bench.written();
        for (info, n) in infos.iter().zip(count + 1..) {
            bench.hear(acknowledge(info.id.as_str(), &format!("i-{n}")));
        }
        bench
    }

    fn latest(&self, task: &str) -> String {
        let record = self.records.iter().find(|record| record.info.id.as_str() == task).unwrap();
        show_status(&record.latest)
    }
}

#[test]
fn nobody_starts_before_all_are_there_and_the_first_goes_ahead() {
    let mut bench = Bench::new();
    let port = |number, container| TaskPort { name: "http".to_owned(), number, container: Some(container) };
    let with_port = |info: TaskInfo, port: TaskPort| TaskInfo {
        resources: format!("cpus=1;mem=64MiB;ports=[{}]", port.number).parse().unwrap(),
        ports: vec![port],
        ..info
    };
    bench.hear(launch(with_port(member("b", 2), port(31001, 81))));
    bench.written();
    assert!(bench.prepared(1).is_empty(), "a is not there");
    bench.hear(launch(with_port(member("a", 2), port(31000, 80))));
    bench.written();
    assert_eq!(
        bench.prepared(2),
        ["start i-2 [\"/bin/server\"] in /work/sandboxes/f/a port 31000:80 port 31001:81"]
    );
    assert_eq!(
        bench.started(2),
        [
            "write a RUNNING [\"STARTING\", \"RUNNING\"]",
            "watch i-2",
            "start i-1 [\"/bin/server\"] in /work/sandboxes/f/b with the network of i-2",
        ]
    );
    assert_eq!(bench.started(1), ["write b RUNNING [\"STARTING\", \"RUNNING\"]", "watch i-1"]);
}

#[test]
fn an_end_ends_all_and_the_network_goes_last() {
    let mut bench = Bench::with_group(&[member("a", 2), member("b", 2)]);
    assert_eq!(
        bench.exit_of(1, 3),
        ["write a FAILED [\"FAILED\"]", "write b KILLING [\"KILLING\"]"],
        "and what they are told is on disk first"
    );
    assert_eq!(
        bench.written(),
        ["terminate i-2", "send b i-6 KILLING group_ended pid 72: task a of its group ended: exit code 3"],
        "the container of a stays for the network of b"
    );
    bench.hear(acknowledge("b", "i-6"));
    assert_eq!(bench.exit_of(2, 0), ["write b KILLED [\"KILLED\"]"]);
    assert_eq!(bench.written(), ["destroy i-2"]);
    assert_eq!(
        bench.destroyed(2),
        [
            "send b i-7 KILLED group_ended pid 72 exit code 0: \
             killed: task a of its group ended: exit code 3 (exit code 0)",
            "destroy i-1",
        ]
    );
    assert_eq!(bench.destroyed(1), ["send a i-5 FAILED command_exited pid 71 exit code 3: exit code 3"]);
}

#[test]
fn a_kill_of_one_is_a_kill_of_all_at_once() {
    let mut bench = Bench::with_group(&[member("a", 2), member("b", 2)]);
    assert_eq!(
        bench.hear(kill("b", None)),
        ["write b KILLING [\"KILLING\"]", "write a KILLING [\"KILLING\"]"]
    );
    bench.written();
    assert_eq!(bench.latest("a"), "a i-6 KILLING group_ended pid 71: task b of its group is killed");
    assert_eq!(
        bench.pass(secs(3)),
        ["write a KILLED [\"KILLING\", \"KILLED\"]", "write b KILLED [\"KILLING\", \"KILLED\"]"]
    );
    assert_eq!(bench.written(), ["destroy i-2"]);
}

#[test]
fn who_ends_alone_is_missed_by_nobody_and_may_come_again() {
    let mut bench = Bench::with_group(&[member("a", 2), helper("b", 2)]);
    assert_eq!(bench.exit_of(2, 1), ["write b FAILED [\"FAILED\"]"]);
    assert_eq!(bench.written(), ["destroy i-2"]);
    bench.destroyed(2);
    bench.hear(launch(helper("c", 2)));
    bench.written();
    assert_eq!(
        bench.prepared(3),
        ["start i-3 [\"/bin/server\"] in /work/sandboxes/f/c with the network of i-1"]
    );
    bench.started(3);
    assert_eq!(
        bench.exit_of(1, 0),
        ["write a FINISHED [\"FINISHED\"]", "write c KILLING [\"STARTING\", \"RUNNING\", \"KILLING\"]"]
    );
}

#[test]
fn what_cannot_be_prepared_or_started_takes_all_with_it() {
    let mut bench = Bench::new();
    bench.hear(launch(member("a", 3)));
    bench.hear(launch(helper("b", 3)));
    bench.hear(launch(member("c", 3)));
    bench.written();
    bench.prepared(1);
    let (reason, message) = (Reason::ImageFailed, "no such image".to_owned());
    assert_eq!(
        bench.feed(Input::PrepareFailed { container: container(2), reason, message }),
        [
            "write b FAILED [\"STARTING\", \"FAILED\"]",
            "write a FAILED [\"STARTING\", \"FAILED\"]",
            "cancel i-3",
            "write c FAILED [\"STARTING\", \"FAILED\"]",
        ]
    );
    assert_eq!(bench.latest("b"), "b i-4 FAILED image_failed: no such image");
    assert_eq!(
        bench.latest("a"),
        "a i-5 FAILED group_ended: task b of its group did not start: no such image"
    );
    assert_eq!(bench.written(), ["destroy i-2", "destroy i-3"], "b and c are gone before a");
    assert_eq!(bench.destroyed(2), ["b has ended"]);
    assert_eq!(bench.destroyed(3), ["c has ended", "destroy i-1"]);

    let mut bench = Bench::with_all(&[member("a", 2), member("b", 2)]);
    assert_eq!(
        bench.feed(Input::LaunchFailed { container: container(1), message: "no room".to_owned() }),
        ["write a FAILED [\"STARTING\", \"FAILED\"]", "write b FAILED [\"STARTING\", \"FAILED\"]"]
    );

    let mut bench = Bench::with_all(&[member("a", 2), member("b", 2)]);
    bench.started(1);
    assert_eq!(
        bench.feed(Input::LaunchFailed { container: container(2), message: "no room".to_owned() }),
        [
            "write b FAILED [\"STARTING\", \"FAILED\"]",
            "write a KILLING [\"STARTING\", \"RUNNING\", \"KILLING\"]",
        ]
    );
}

#[test]
fn who_is_refused_takes_all_with_it() {
    let mut bench = Bench::new();
    bench.hear(launch(member("a", 2)));
    bench.written();
    let large = TaskInfo { resources: "cpus=64;mem=64MiB".parse().unwrap(), ..member("b", 2) };
    assert_eq!(
        bench.hear(launch(large)),
        ["write b ERROR [\"ERROR\"]", "cancel i-1", "write a FAILED [\"STARTING\", \"FAILED\"]"]
    );
    assert_eq!(
        bench.latest("a"),
        "a i-3 FAILED group_ended: task b of its group did not start: asks for cpus=64;mem=64MiB where \
         cpus=3;mem=960MiB;ports=[31000-31009] is free"
    );
}

#[test]
fn nobody_waits_for_ever_for_the_others() {
    let mut bench = Bench::new();
    bench.hear(launch(member("a", 2)));
    bench.written();
    bench.hear(acknowledge("a", "i-1"));
    bench.prepared(1);
    assert!(bench.pass(secs(59)).is_empty());
    assert_eq!(bench.pass(secs(1)), ["write a FAILED [\"FAILED\"]"]);
    assert_eq!(
        bench.latest("a"),
        "a i-2 FAILED group_ended: the other tasks of its group did not come within 1m"
    );
}

/// A new process finds what the bench's records say, each container in this state.
fn restarted(before: Bench, states: &[ContainerState]) -> (Bench, Vec<String>) {
    let mut bench = Bench::blank();
    let mut records = before.records;
    records.sort_by_key(|record| record.container.clone());
    let containers = records.iter().map(|record| record.container.clone()).collect();
    let tasks = records.into_iter().zip(states.iter().cloned()).collect();
    let mut effects = bench.feed(Input::Recovered(Recovered { tasks, containers, ..Recovered::default() }));
    effects.extend(bench.written());
    (bench, effects)
}

fn running(pid: u32) -> ContainerState {
    ContainerState::Running { pid, addresses: Vec::new() }
}

#[test]
fn a_restart_of_the_agent_changes_nothing_for_a_group_that_runs() {
    let bench = Bench::with_group(&[member("a", 2), member("b", 2)]);
    let (mut bench, effects) = restarted(bench, &[running(71), running(72)]);
    assert_eq!(effects, ["watch i-1", "watch i-2"]);
    assert_eq!(
        bench.exit_of(2, 0),
        ["write b FINISHED [\"RUNNING\", \"FINISHED\"]", "write a KILLING [\"RUNNING\", \"KILLING\"]"]
    );
}

#[test]
fn what_a_crash_has_cut_short_ends_with_all() {
    // The lead runs and nobody has joined it.
    let bench = Bench::with_all(&[member("a", 2), member("b", 2)]);
    let (_, effects) = restarted(bench, &[running(71), ContainerState::Absent]);
    assert_eq!(
        effects,
        [
            "write a RUNNING [\"STARTING\", \"RUNNING\"]",
            "watch i-1",
            "write b DROPPED [\"STARTING\", \"DROPPED\"]",
            "write a KILLING [\"STARTING\", \"RUNNING\", \"KILLING\"]",
            "destroy i-2",
            "terminate i-1",
        ]
    );
    // One has ended while the agent was away.
    let bench = Bench::with_group(&[member("a", 2), member("b", 2)]);
    let states = [ContainerState::Exited(exited(ExitStatus::Code(0))), running(72)];
    let (_, effects) = restarted(bench, &states);
    assert_eq!(
        effects,
        [
            "write a FINISHED [\"RUNNING\", \"FINISHED\"]",
            "watch i-2",
            "write b KILLING [\"RUNNING\", \"KILLING\"]",
            "terminate i-2",
        ]
    );
}

#[test]
fn an_end_that_was_written_down_is_finished_after_those_of_the_others() {
    let mut bench = Bench::with_group(&[member("a", 2), member("b", 2)]);
    bench.exit_of(1, 0);
    let ended = ContainerState::Exited(exited(ExitStatus::Code(0)));
    let (mut bench, effects) = restarted(bench, &[ended.clone(), ended]);
    assert_eq!(effects, ["write b KILLED [\"KILLING\", \"KILLED\"]", "destroy i-2"]);
    assert_eq!(bench.destroyed(2), ["destroy i-1"]);
}
