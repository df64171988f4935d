//! Tasks that mean harm: the agent and their neighbours go on, nothing of them stays, and what happened is told. Fork bombs and
//! memory bombs are with the limits, daemons and ignored signals with the signals.

use std::fs;

use divvy_agent::container::{ContainerSpec, ContainerState, Exited};
use divvy_proto::Bytes;
use divvy_proto::task::ExitStatus;

use crate::harness::{Agent, alive, eventually};

pub(crate) fn tests() -> crate::Tests {
    vec![
        ("a_kill_of_everybody_reaches_nobody_else", kill_everybody),
        ("a_full_dev_shm_is_its_own", full_shm),
        ("a_memory_bomb_in_dev_shm_is_charged_to_it", shm_beyond_memory),
        ("a_flood_of_logs_is_bounded_and_ends", log_flood),
        ("a_bomb_that_forks_for_ever_ends", quick_fork_bomb),
        ("threads_that_leave_their_session_and_ignore_all_signals_end", stubborn),
    ]
}

/// A container beside the hostile one, which is as it was afterwards.
fn with_neighbour(agent: &mut Agent, story: impl FnOnce(&mut Agent)) {
    let neighbour = agent.spec("neighbour", &["sleep", "1000"]);
    let pid = agent.launch(&neighbour);
    story(agent);
    assert!(alive(pid));
    assert!(matches!(agent.state(&neighbour), ContainerState::Running { pid: now, .. } if now == pid));
    agent.signal(&neighbour, "SIGTERM");
    assert_eq!(agent.wait(&neighbour).status, Some(ExitStatus::Signal(15)));
}

fn as_root(spec: ContainerSpec) -> ContainerSpec {
    ContainerSpec { user: "root".parse().expect("a user"), ..spec }
}

fn kill_everybody(agent: &mut Agent) {
    with_neighbour(agent, |agent| {
        let outcome = agent.run(&as_root(agent.shell("sleep 2000 & kill -9 -1; wait; echo alone; exit 3")));
        assert_eq!((outcome.status, outcome.stdout.as_str()), (Some(ExitStatus::Code(3)), "alone\n"));
    });
}

fn full_shm(agent: &mut Agent) {
    with_neighbour(agent, |agent| {
        let line = "head -c 100000000 /dev/zero > /dev/shm/x 2>&1; echo $?; stat -c %s /dev/shm/x";
        let (memory, shm) = (Bytes::mib(256), Some(Bytes::mib(32)));
        let outcome = agent.run(&ContainerSpec { memory, shm, ..agent.shell(line) });
        assert_eq!((outcome.status, outcome.stdout.as_str()), (Some(ExitStatus::Code(0)), "1\n33554432\n"));
    });
}

fn shm_beyond_memory(agent: &mut Agent) {
    with_neighbour(agent, |agent| {
        let shm = Some(Bytes::mib(64));
        let spec = ContainerSpec {
            memory: Bytes::mib(16),
            shm,
            ..agent.shell("exec head -c 60000000 /dev/zero > /dev/shm/x")
        };
        agent.launch(&spec);
        let Exited { status, oom, .. } = agent.wait(&spec);
        assert_eq!((status, oom.map(|oom| oom.limit)), (Some(ExitStatus::Signal(9)), Some(Bytes::mib(16))));
    });
}

fn log_flood(agent: &mut Agent) {
    with_neighbour(agent, |agent| {
        let spec = agent.shell("touch ready; exec yes divvy");
        agent.launch_until_ready(&spec);
        let logged = || {
            let entries = fs::read_dir(&spec.sandbox).expect("a sandbox").flatten();
            entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum::<u64>()
        };
        eventually("more is written than is kept", || agent.usage(&spec).cpu_usec > 100_000);
        // The harness keeps three files of 64 KiB of each stream; what is being written may go a little beyond.
        assert!(logged() < 1_000_000, "{} bytes of logs", logged());
        agent.destroy(&spec);
    });
    assert_eq!(agent.list(), ["neighbour"]);
}

fn quick_fork_bomb(agent: &mut Agent) {
    with_neighbour(agent, |agent| {
        let bomb = "bomb() { while :; do (bomb &) 2>/dev/null; done; }; touch ready; bomb";
        let spec = ContainerSpec { pids: 60, ..as_root(agent.shell(bomb)) };
        let pid = agent.launch_until_ready(&spec);
        eventually("it has all that it may have", || agent.usage(&spec).pids >= 50);
        agent.destroy(&spec);
        assert_eq!((alive(pid), agent.count("sleep 2000")), (false, 0));
    });
}

fn stubborn(agent: &mut Agent) {
    with_neighbour(agent, |agent| {
        let one = "trap '' TERM INT HUP QUIT; sleep 2000 & while :; do wait; done";
        let line = format!("for n in 1 2 3 4; do setsid sh -c \"{one}\" & done; touch ready; {one}");
        let spec = agent.shell(&line);
        agent.launch_until_ready(&spec);
        eventually("all of them run", || agent.usage(&spec).pids >= 10);
        agent.signal(&spec, "SIGTERM");
        agent.destroy(&spec);
        assert_eq!(agent.count("sleep 2000"), 0);
    });
}
