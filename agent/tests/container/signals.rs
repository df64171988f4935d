//! Telling a container to end, and making it.

use divvy_agent::container::{ContainerState, Exited};
use divvy_proto::task::ExitStatus;

use crate::harness::{Agent, alive, eventually};

pub(crate) fn tests() -> crate::Tests {
    vec![
        ("sigterm_ends_a_program_that_does_nothing_about_it", default_action),
        ("any_signal_that_ends_is_reported_as_itself", other_signal),
        ("a_handler_is_honoured", handler),
        ("an_ignored_signal_is_ignored", ignored),
        ("a_signal_to_what_has_ended_is_no_error", late),
        ("destroy_ends_daemons_and_those_with_own_sessions", daemons),
        ("destroy_ends_what_somebody_put_into_the_cgroup", strangers),
        ("a_shim_that_hangs_does_not_stop_destroy", hanging_shim),
        ("destroy_tells_whoever_waits", destroyed_while_waiting),
        ("destroy_twice_is_once", idempotent),
    ]
}

fn default_action(agent: &mut Agent) {
    let spec = agent.spec("web", &["sleep", "1000"]);
    agent.launch(&spec);
    agent.signal(&spec, "SIGTERM");
    let Exited { status, oom, .. } = agent.wait(&spec);
    assert_eq!((status, oom), (Some(ExitStatus::Signal(15)), None));
}

fn other_signal(agent: &mut Agent) {
    let spec = agent.spec("web", &["sleep", "1000"]);
    agent.launch(&spec);
    agent.signal(&spec, "SIGWINCH");
    agent.signal(&spec, "SIGUSR1");
    assert_eq!(agent.wait(&spec).status, Some(ExitStatus::Signal(10)));
}

fn handler(agent: &mut Agent) {
    let spec = agent.shell("trap 'echo bye; exit 3' TERM; touch ready; sleep 1000 & wait");
    agent.launch_until_ready(&spec);
    agent.signal(&spec, "SIGTERM");
    assert_eq!(agent.wait(&spec).status, Some(ExitStatus::Code(3)));
    assert_eq!(std::fs::read_to_string(spec.sandbox.join("stdout")).expect("a log"), "bye\n");
}

fn ignored(agent: &mut Agent) {
    let spec = agent.shell("trap '' TERM; trap 'touch usr1' USR1; touch ready; while :; do sleep 0.01; done");
    let pid = agent.launch_until_ready(&spec);
    agent.signal(&spec, "SIGTERM");
    agent.signal(&spec, "SIGUSR1");
    eventually("the later signal arrives", || spec.sandbox.join("usr1").exists());
    assert_eq!(agent.state(&spec), ContainerState::Running { pid, addresses: Vec::new() });
}

fn late(agent: &mut Agent) {
    let spec = agent.shell("exit 5");
    agent.launch(&spec);
    agent.wait(&spec);
    agent.signal(&spec, "SIGTERM");
    assert_eq!(agent.wait(&spec).status, Some(ExitStatus::Code(5)));
}

fn daemons(agent: &mut Agent) {
    let spec = agent.shell("setsid sleep 2000 & (setsid setsid sleep 2000 &); (trap '' TERM HUP; sleep 2000 &); touch ready; sleep 2000");
    let pid = agent.launch_until_ready(&spec);
    eventually("all of them run", || agent.usage(&spec).pids >= 5);
    agent.destroy(&spec);
    assert_eq!((alive(pid), agent.left_behind()), (false, vec![]));
}

fn destroyed_while_waiting(agent: &mut Agent) {
    let spec = agent.spec("web", &["sleep", "1000"]);
    agent.launch(&spec);
    assert_eq!(agent.wait_and_destroy(&spec).status, Some(ExitStatus::Signal(9)));
}

fn idempotent(agent: &mut Agent) {
    let spec = agent.spec("web", &["sleep", "1000"]);
    agent.launch(&spec);
    agent.destroy(&spec);
    agent.destroy(&spec);
    assert_eq!((agent.state(&spec), agent.list()), (ContainerState::Absent, vec![]));
}

fn strangers(agent: &mut Agent) {
    let spec = agent.spec("web", &["sleep", "1000"]);
    agent.launch(&spec);
    let mut stranger = std::process::Command::new("sleep").arg("3000").spawn().expect("a process");
    agent.put_into_cgroup(&spec, stranger.id());
    agent.destroy(&spec);
    eventually("the stranger is dead", || stranger.try_wait().is_ok_and(|status| status.is_some()));
}

fn hanging_shim(agent: &mut Agent) {
    let spec = agent.spec("web", &["sleep", "1000"]);
    let pid = agent.launch(&spec);
    agent.signal_shim("STOP");
    agent.destroy(&spec);
    assert_eq!((alive(pid), agent.left_behind()), (false, vec![]));
}
