//! What a container may use, held against it.

use std::time::{Duration, Instant};

use divvy_agent::container::{ContainerSpec, Exited, LaunchError, Oom};
use divvy_proto::task::ExitStatus;
use divvy_proto::{Bytes, RangeSet};

use crate::harness::{Agent, cgroup_v2, eventually};

pub(crate) fn tests() -> crate::Tests {
    vec![
        ("memory_beyond_the_limit_kills_with_limit_and_peak", memory),
        ("a_child_killed_for_memory_is_told_too", memory_of_child),
        ("the_cpu_quota_holds", cpu_quota),
        ("a_fork_bomb_is_bounded_and_destroyed", fork_bomb),
        ("usage_is_what_was_used", usage),
        ("only_the_processors_that_it_may_use", processors),
        ("processors_that_do_not_exist_are_refused", no_such_processors),
        ("memory_that_slows_down_is_set_or_refused", memory_high),
        ("what_it_reads_and_waits_for_is_counted", statistics),
        ("limits_of_a_running_container_change", update),
    ]
}

fn memory(agent: &mut Agent) {
    let spec = ContainerSpec { memory: Bytes::mib(16), ..agent.spec("web", &["tail", "/dev/zero"]) };
    agent.launch(&spec);
    let Exited { status, oom, .. } = agent.wait(&spec);
    assert_eq!(
        (status, oom),
        (Some(ExitStatus::Signal(9)), Some(Oom { limit: Bytes::mib(16), peak: Bytes::mib(16) }))
    );
}

fn memory_of_child(agent: &mut Agent) {
    let spec = ContainerSpec { memory: Bytes::mib(16), ..agent.shell("tail /dev/zero; exit 4") };
    agent.launch(&spec);
    let Exited { status, oom, .. } = agent.wait(&spec);
    assert_eq!((status, oom.map(|oom| oom.limit)), (Some(ExitStatus::Code(4)), Some(Bytes::mib(16))));
}

/// However fast or slow the host is: so much processor time takes at least so long. The limit is low enough to be reached on
/// a host that has much else to do.
fn cpu_quota(agent: &mut Agent) {
    let spec = ContainerSpec {
        cpus: "4".parse().expect("cpus"),
        cpu_limit: "0.05".parse().ok(),
        ..agent.shell("while :; do :; done")
    };
    let start = Instant::now();
    agent.launch(&spec);
    eventually("100 ms of processor time are used", || agent.usage(&spec).cpu_usec >= 100_000);
    // 20 periods, of which the first may have begun before, and the last is not waited out.
    assert!(start.elapsed() >= Duration::from_millis(1800), "{:?}", start.elapsed());
    eventually("it is throttled", || {
        let statistics = agent.cgroup_file(&spec, "cpu.stat");
        statistics.lines().any(|line| line.starts_with("nr_throttled ") && line != "nr_throttled 0")
    });
}

fn fork_bomb(agent: &mut Agent) {
    let spec = ContainerSpec { pids: 20, ..agent.shell("bomb() { bomb | bomb & }; bomb; exec sleep 1000") };
    agent.launch(&spec);
    let refused = || {
        agent.cgroup_file(&spec, "pids.events").trim().strip_prefix("max ").is_some_and(|count| count != "0")
    };
    eventually("a fork is refused", refused);
    assert!(agent.usage(&spec).pids <= 20);
    agent.destroy(&spec);
    assert_eq!(agent.left_behind(), Vec::<String>::new());
}

fn usage(agent: &mut Agent) {
    let spec = agent.shell("head -c 8000000 /dev/zero > /dev/shm/x; sleep 1000 & touch ready; wait");
    agent.launch_until_ready(&spec);
    eventually("only the shell and sleep are left", || agent.usage(&spec).pids == 2);
    let usage = agent.usage(&spec);
    assert!(usage.memory > 8_000_000 && usage.memory_peak >= usage.memory && usage.cpu_usec > 0, "{usage:?}");
}

fn update(agent: &mut Agent) {
    let spec = agent.spec("web", &["sleep", "1000"]);
    agent.launch(&spec);
    let limits = |agent: &Agent| agent.cgroup_file(&spec, "pids.max");
    let before = limits(agent);
    for memory in [128, 32] {
        agent.update(&ContainerSpec {
            memory: Bytes::mib(memory),
            pids: 7,
            cpu_limit: "0.5".parse().ok(),
            ..spec.clone()
        });
    }
    assert_eq!((before.as_str(), limits(agent).as_str()), ("64\n", "7\n"));
}

fn processors(agent: &mut Agent) {
    let line = "grep Cpus_allowed_list /proc/self/status | tr -d '[:space:]'";
    let outcome = agent.run(&ContainerSpec { cpuset: Some(RangeSet::range(0, 0)), ..agent.shell(line) });
    assert_eq!(outcome.stdout, "Cpus_allowed_list:0", "{outcome:?}");
}

fn no_such_processors(agent: &mut Agent) {
    let spec = ContainerSpec { cpuset: Some(RangeSet::range(0, 4095)), ..agent.shell("true") };
    let refused = agent.try_launch(&spec).expect_err("a refusal");
    assert!(
        matches!(&refused, LaunchError::Spec { field, value, .. } if field == "cpuset" && value == "0-4095"),
        "{refused}"
    );
    assert_eq!(agent.left_behind(), Vec::<String>::new());
}

fn memory_high(agent: &mut Agent) {
    let spec = ContainerSpec { memory_high: Some(Bytes::mib(8)), ..agent.spec("web", &["sleep", "1000"]) };
    match agent.try_launch(&spec) {
        Ok(_) => assert_eq!(agent.cgroup_file(&spec, "memory.high"), "8388608\n"),
        Err(LaunchError::Spec { field, .. }) => {
            assert_eq!((field.as_str(), cgroup_v2()), ("memory_high", false))
        }
        Err(other) => panic!("{other}"),
    }
}

fn statistics(agent: &mut Agent) {
    let spec = ContainerSpec { cpu_limit: "0.02".parse().ok(), ..agent.shell("while :; do :; done") };
    agent.launch(&spec);
    let waited = |agent: &Agent| agent.usage(&spec).pressure.map(|pressure| pressure.cpu_usec);
    match cgroup_v2() {
        true => eventually("it waits for its processor", || waited(agent).is_some_and(|usec| usec > 10_000)),
        false => assert_eq!((waited(agent), agent.usage(&spec).io_read.is_some()), (None, true)),
    }
}
