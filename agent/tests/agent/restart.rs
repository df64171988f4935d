//! Agents come and go; tasks stay.

use std::fs;
use std::time::Duration;

use divvy_agent::KillTasks;
use divvy_proto::task::{ExitStatus, Reason, TaskState};

use crate::Tests;
use crate::harness::{World, shell};

pub(crate) fn tests() -> Tests {
    vec![
        ("tasks_outlive_the_agent", tasks_outlive_the_agent),
        ("tasks_outlive_a_crash", tasks_outlive_a_crash),
        (
            "no_end_is_lost_when_the_agent_is_killed_at_any_instruction",
            no_end_is_lost_when_the_agent_is_killed,
        ),
        ("a_spoilt_checkpoint_costs_only_its_own_task", a_spoilt_checkpoint_costs_only_its_own_task),
        ("a_lost_connection_is_made_anew", a_lost_connection_is_made_anew),
        ("an_agent_that_is_gone_comes_back_as_another", an_agent_that_is_gone_comes_back_as_another),
        ("one_agent_to_a_work_directory", one_agent_to_a_work_directory),
    ]
}

const UNTIL_STOPPED: &str = "while [ ! -e stop ]; do sleep 0.02; done; exit 7";

fn outlives(world: &mut World, end: fn(&mut World)) {
    let stays = world.run(shell("stays", UNTIL_STOPPED));
    world.run(shell("ends", UNTIL_STOPPED));
    end(world);
    fs::write(world.sandbox("ends").join("stop"), "").unwrap();
    world.start();
    let ends = world.end_of("ends");
    assert_eq!((ends.state, ends.container.exit), (TaskState::Failed, Some(ExitStatus::Code(7))));
    let pid = stays.container.pid.unwrap();
    assert!(fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap().contains("stop"), "it runs on");
    assert_eq!(world.registered_tasks().len(), 2);
    fs::write(world.sandbox("stays").join("stop"), "").unwrap();
    assert_eq!(world.end_of("stays").container.exit, Some(ExitStatus::Code(7)));
}

fn tasks_outlive_the_agent(world: &mut World) {
    outlives(world, |world| world.stop(KillTasks::No));
}

fn tasks_outlive_a_crash(world: &mut World) {
    outlives(world, World::crash);
}

/// The agent is a process and dies by SIGKILL, a little later in each round. Whatever the master has heard of a task then, it
/// hears of its end too: the task's own, or that it never started.
fn no_end_is_lost_when_the_agent_is_killed(world: &mut World) {
    world.stop(KillTasks::No);
    let tasks: Vec<String> = (0..16).flat_map(|round| (0..3).map(move |n| format!("t{round}-{n}"))).collect();
    for (round, tasks) in tasks.chunks(3).enumerate() {
        let mut agent = world.start_process();
        tasks.iter().for_each(|task| world.launch(shell(task, "sleep 0.03; exit 4")));
        std::thread::sleep(Duration::from_millis(6 * round as u64));
        agent.kill().unwrap();
        agent.wait().unwrap();
    }
    world.start();
    for task in tasks.iter().filter(|task| !world.statuses(task).is_empty()) {
        let end = world.end_of(task);
        match (end.state, end.reason) {
            (TaskState::Failed, Reason::CommandExited) => {
                assert_eq!(end.container.exit, Some(ExitStatus::Code(4)), "{task}");
            }
            (TaskState::Dropped, Reason::AgentRestarted) => {}
            _ => panic!("{end:?}"),
        }
        let states = world.states(task);
        assert!(states.is_sorted(), "{task} went back: {states:?}");
    }
    world.eventually("nothing is left to tell", |world| world.checkpoints().is_empty());
}

fn a_spoilt_checkpoint_costs_only_its_own_task(world: &mut World) {
    world.run(shell("spoilt", UNTIL_STOPPED));
    let [spoilt] = &world.checkpoints()[..] else { panic!("one checkpoint expected") };
    let whole = world.run(shell("whole", UNTIL_STOPPED));
    world.stop(KillTasks::No);
    let mut content = fs::read(spoilt).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    fs::write(spoilt, content).unwrap();
    world.start();
    assert_eq!(world.registered_tasks(), [("whole".to_owned(), TaskState::Running)]);
    assert!(spoilt.with_extension("json.corrupt").exists(), "it is kept for people");
    fs::write(world.sandbox("whole").join("stop"), "").unwrap();
    assert_eq!(world.end_of("whole").container.pid, whole.container.pid);
    world.eventually("the container of the spoilt one is destroyed", |world| {
        fs::read_dir(world.work_dir().join("containers")).unwrap().count() == 0
    });
}

fn a_lost_connection_is_made_anew(world: &mut World) {
    world.run(shell("t", UNTIL_STOPPED));
    let before = world.registrations();
    world.cut_connection();
    world.eventually("the agent comes back", |world| world.registrations() > before);
    assert_eq!(world.registered_tasks(), [("t".to_owned(), TaskState::Running)]);
    world.kill("t");
    let end = world.end_of("t");
    assert_eq!((end.state, end.reason), (TaskState::Killed, Reason::KillRequested));
}

/// Its tasks end and nobody is told; the new agent takes new ones.
fn an_agent_that_is_gone_comes_back_as_another(world: &mut World) {
    let task = world.run(shell("old", UNTIL_STOPPED));
    world.cut_connection();
    world.eventually("the agent registers again", |world| world.registrations() == 2);
    assert_eq!(world.registered_as().map(|id| id.to_string()), Some("a1".to_owned()));
    world.declare_gone();
    world.eventually("the agent registers as a new one", |world| world.registrations() == 3);
    assert_eq!((world.registered_as(), world.registered_tasks()), (None, Vec::new()));
    let process = format!("/proc/{}", task.container.pid.unwrap());
    world.eventually("the old task has ended", |_| !std::path::Path::new(&process).exists());
    assert!(!world.states("old").contains(&TaskState::Killed), "nobody waits for that");
    world.run(shell("new", UNTIL_STOPPED));
}

fn one_agent_to_a_work_directory(world: &mut World) {
    assert!(world.try_another().contains("another agent uses the work directory"));
}
