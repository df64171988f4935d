//! What a new agent finds.

use std::fs;

use divvy_agent::container::{ContainerState, Exited};
use divvy_proto::task::ExitStatus;

use crate::harness::{Agent, alive, eventually};

pub(crate) fn tests() -> crate::Tests {
    vec![
        ("a_running_container_is_found_and_obeys", running),
        ("what_ended_meanwhile_has_its_status", ended_meanwhile),
        ("without_its_shim_a_container_is_dead_and_nobody_knows_how", shim_killed),
        ("a_killed_nursery_takes_no_container_with_it_and_is_followed_by_another", nursery_killed),
        ("after_a_reboot_there_is_no_container", rebooted),
        ("what_an_interrupted_launch_left_is_listed_and_destroyed", half_made),
        ("notes_that_a_disk_has_changed_cost_the_status_and_no_more", broken_notes),
        ("a_status_can_be_asked_for_again_and_again", again_and_again),
    ]
}

fn running(agent: &mut Agent) {
    let spec = agent.spec("web", &["sleep", "1000"]);
    let pid = agent.launch(&spec);
    agent.restart(|_| assert!(alive(pid)));
    assert_eq!(
        (agent.state(&spec), agent.list()),
        (ContainerState::Running { pid, addresses: Vec::new() }, vec!["web".to_owned()])
    );
    agent.signal(&spec, "SIGTERM");
    assert_eq!(agent.wait(&spec).status, Some(ExitStatus::Signal(15)));
}

fn ended_meanwhile(agent: &mut Agent) {
    let spec = agent.shell("touch ready; until [ -e go ]; do sleep 0.01; done; exit 9");
    let pid = agent.launch_until_ready(&spec);
    agent.restart(|_| {
        fs::write(spec.sandbox.join("go"), "").expect("a file");
        eventually("the container ends", || !alive(pid));
    });
    let exited = agent.wait(&spec);
    assert_eq!((exited.status, exited.oom), (Some(ExitStatus::Code(9)), None));
    assert_eq!(agent.state(&spec), ContainerState::Exited(exited));
}

fn shim_killed(agent: &mut Agent) {
    let spec = agent.spec("web", &["sleep", "1000"]);
    let pid = agent.launch(&spec);
    agent.kill_shim();
    eventually("the container dies with it", || !alive(pid));
    let Exited { status, oom, .. } = agent.wait(&spec);
    assert_eq!((status, oom), (None, None));
    assert!(matches!(agent.state(&spec), ContainerState::Exited(Exited { status: None, .. })));
}

fn nursery_killed(agent: &mut Agent) {
    let spec = agent.spec("web", &["sleep", "1000"]);
    let pid = agent.launch(&spec);
    agent.kill_nursery();
    let next = agent.run(&agent.spec("next", &["echo", "born"])).stdout;
    assert_eq!(
        (next.as_str(), agent.state(&spec)),
        ("born\n", ContainerState::Running { pid, addresses: Vec::new() })
    );
    agent.signal(&spec, "SIGTERM");
    assert_eq!(agent.wait(&spec).status, Some(ExitStatus::Signal(15)));
}

fn rebooted(agent: &mut Agent) {
    let spec = agent.spec("web", &["sleep", "1000"]);
    let pid = agent.launch(&spec);
    agent.kill_shim();
    eventually("the container dies with it", || !alive(pid));
    let note = agent.state_dir().join("web/running.json");
    let text = fs::read_to_string(&note).expect("a note");
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("a boot");
    fs::write(&note, text.replace(boot.trim(), "an-earlier-boot")).expect("a note");
    assert_eq!((agent.state(&spec), agent.list()), (ContainerState::Absent, vec!["web".to_owned()]));
}

fn half_made(agent: &mut Agent) {
    let spec = agent.shell("exit 0");
    agent.run(&spec);
    agent.make_cgroups("orphan");
    fs::create_dir(agent.state_dir().join("unborn")).expect("a directory");
    fs::write(agent.state_dir().join("unborn/plan.draft"), "{").expect("a file");
    assert_eq!(agent.list(), ["orphan", "unborn"]);
    agent.destroy(&agent.spec("orphan", &["true"]));
    agent.destroy(&agent.spec("unborn", &["true"]));
    assert_eq!((agent.list(), agent.left_behind()), (vec![], vec![]));
}

fn again_and_again(agent: &mut Agent) {
    let spec = agent.shell("exit 6");
    agent.launch(&spec);
    let first = agent.wait(&spec);
    let second = agent.wait(&spec);
    agent.restart(|_| {});
    assert_eq!((first, second), (second, agent.wait(&spec)));
}

fn broken_notes(agent: &mut Agent) {
    let spec = agent.shell("exit 6");
    agent.launch(&spec);
    agent.wait(&spec);
    let note = |name: &str| agent.state_dir().join("web").join(name);
    let [exited, running, plan] = ["exited.json", "running.json", "plan.json"].map(note);
    fs::write(&exited, "{\"status\":").expect("a note");
    agent.restart(|_| {});
    assert_eq!((agent.wait(&spec).status, exited.with_extension("json.corrupt").exists()), (None, true));
    fs::write(&running, [0xff, 0xfe]).expect("a note");
    fs::write(&plan, "[]").expect("a note");
    agent.restart(|_| {});
    assert_eq!((agent.state(&spec), agent.list()), (ContainerState::Absent, vec!["web".to_owned()]));
    agent.destroy(&spec);
    assert_eq!(agent.left_behind(), Vec::<String>::new());
}
