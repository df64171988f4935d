//! What a container may use, held against it.

use std::time::{Duration, Instant};

use divvy_agent::container::{ContainerSpec, Exited, Oom};
use divvy_proto::Bytes;
use divvy_proto::task::ExitStatus;

use crate::harness::{Agent, eventually};

pub(crate) fn tests() -> crate::Tests {
    vec![
        ("memory_beyond_the_limit_kills_with_limit_and_peak", memory),
        ("a_child_killed_for_memory_is_told_too", memory_of_child),
        ("the_cpu_quota_holds", cpu_quota),
        ("a_fork_bomb_is_bounded_and_destroyed", fork_bomb),
        ("usage_is_what_was_used", usage),
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
