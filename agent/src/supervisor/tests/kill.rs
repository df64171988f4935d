//! Ends that somebody wanted.

use divvy_proto::Bytes;

use super::*;

#[test]
fn a_kill_is_sigterm_and_a_task_that_listens_is_killed_with_its_own_exit_code() {
    let mut bench = Bench::running(task("t"));
    assert_eq!(bench.hear(kill("t", None)), ["write t KILLING [\"KILLING\"]"]);
    assert_eq!(
        bench.written(),
        ["terminate i-1", "send t i-3 KILLING kill_requested pid 77: it has 3s to end"]
    );
    bench.hear(acknowledge("t", "i-3"));
    assert_eq!(bench.exits(ExitStatus::Code(0)), ["write t KILLED [\"KILLED\"]"]);
    assert_eq!(bench.written(), ["destroy i-1"]);
    assert_eq!(
        bench.feed(Input::Destroyed(container(1))),
        ["send t i-4 KILLED kill_requested pid 77 exit code 0: killed on request (exit code 0)"]
    );
}

#[test]
fn the_end_of_a_task_whose_framework_is_away_is_known_to_each_master_before_its_turn_comes() {
    let mut bench = Bench::running(task("t"));
    bench.hear(kill("t", None));
    bench.written();
    bench.exits(ExitStatus::Code(0));
    assert_eq!(bench.written(), ["destroy i-1"]);
    bench.link = LinkId(2);
    assert_eq!(bench.feed(Input::Connected(LinkId(2))), ["register a [\"t KILLING\"]"]);
    assert!(bench.feed(Input::Destroyed(container(1))).is_empty(), "nobody has registered it yet");
    let killing = "send t i-3 KILLING kill_requested pid 77: it has 3s to end";
    assert_eq!(bench.registered(1), [killing, "t has ended"]);
    assert_eq!(bench.pass(secs(10)), [killing], "and only that is repeated");

    bench.hear(acknowledge("t", "i-3"));
    assert_eq!(
        bench.written(),
        ["send t i-4 KILLED kill_requested pid 77 exit code 0: killed on request (exit code 0)"]
    );
}

#[test]
fn a_task_that_does_not_listen_loses_its_whole_container_when_the_grace_is_over() {
    let mut bench = Bench::running(TaskInfo { kill_grace: Some(secs(8)), ..task("t") });
    bench.hear(kill("t", None));
    bench.written();
    bench.hear(acknowledge("t", "i-3"));
    assert!(bench.pass(secs(7)).is_empty());
    assert_eq!(bench.pass(secs(1)), ["write t KILLED [\"KILLED\"]"]);
    assert!(bench.exits(ExitStatus::Signal(15)).is_empty(), "its end is on its way to disk already");
    assert_eq!(bench.written(), ["destroy i-1"]);
    assert_eq!(
        bench.feed(Input::Destroyed(container(1))),
        [
            "send t i-4 KILLED kill_requested pid 77 signal 9: killed on request; it did not end within 8s of SIGTERM"
        ]
    );
}

fn too_much(bench: &mut Bench) -> Vec<String> {
    let (limit, used) = (Bytes::mib(10), Bytes::mib(12));
    bench.feed(Input::DiskLimit { container: container(1), limit, used })
}

#[test]
fn a_task_that_writes_too_much_ends_at_once_with_its_limit_in_its_status() {
    let mut bench = Bench::running(task("t"));
    assert_eq!(too_much(&mut bench), ["write t KILLING [\"KILLING\"]"]);
    assert!(too_much(&mut bench).is_empty(), "once is enough");
    let why = "it wrote more than its limit of 10MiB on disk (found 12MiB)";
    assert_eq!(
        bench.written(),
        ["terminate i-1".to_owned(), format!("send t i-3 KILLING disk_limit pid 77: {why}")]
    );
    bench.hear(acknowledge("t", "i-3"));
    assert_eq!(bench.pass(secs(0)), ["write t FAILED [\"FAILED\"]"]);
    assert_eq!(bench.written(), ["destroy i-1"]);
    assert_eq!(
        bench.feed(Input::Destroyed(container(1))),
        [format!("send t i-4 FAILED disk_limit pid 77 signal 9: {why}")]
    );
    assert!(too_much(&mut bench).is_empty(), "nobody asks any more");
}

#[test]
fn a_task_that_is_to_end_and_writes_too_much_has_no_more_time_but_the_same_reason() {
    let mut bench = Bench::running(TaskInfo { kill_grace: Some(secs(60)), ..task("t") });
    bench.hear(kill("t", None));
    bench.written();
    bench.hear(acknowledge("t", "i-3"));
    assert_eq!(too_much(&mut bench), ["write t KILLING []"]);
    assert_eq!(bench.pass(secs(0)), ["write t KILLED [\"KILLED\"]"]);
}

#[test]
fn a_second_kill_can_only_be_less_patient() {
    let mut bench = Bench::running(task("t"));
    bench.hear(kill("t", Some(secs(60))));
    bench.written();
    bench.hear(acknowledge("t", "i-3"));
    assert!(bench.hear(kill("t", Some(secs(90)))).is_empty());
    assert_eq!(bench.hear(kill("t", Some(secs(5)))), ["write t KILLING []"]);
    bench.written();
    assert!(bench.pass(secs(4)).is_empty());
    assert_eq!(bench.pass(secs(1)), ["write t KILLED [\"KILLED\"]"]);
}

#[test]
fn a_kill_before_the_start_means_that_there_is_none() {
    let mut bench = Bench::new();
    bench.hear(launch(task("t")));
    bench.written();
    assert_eq!(bench.hear(kill("t", None)), ["cancel i-1", "write t KILLED [\"STARTING\", \"KILLED\"]"]);
    assert!(bench.feed(Input::Prepared { container: container(1), image: None }).is_empty(), "too late");
    assert_eq!(bench.written(), ["destroy i-1"]);
    assert_eq!(bench.feed(Input::Destroyed(container(1))), ["t has ended"]);
    assert_eq!(bench.hear(acknowledge("t", "i-1")), ["write t KILLED [\"KILLED\"]"]);
    assert_eq!(
        bench.written(),
        ["send t i-2 KILLED killed_during_launch: it was killed before it was started"]
    );
}

#[test]
fn a_kill_during_the_launch_waits_for_it_and_then_removes_the_container() {
    let mut bench = Bench::new();
    bench.hear(launch(task("t")));
    bench.written();
    bench.hear(acknowledge("t", "i-1"));
    bench.feed(Input::Prepared { container: container(1), image: None });
    assert_eq!(bench.hear(kill("t", None)), ["write t STARTING []"]);
    assert!(bench.written().is_empty());
    assert_eq!(
        bench.feed(Input::Launched { container: container(1), pid: 77, addresses: Vec::new() }),
        ["write t KILLED [\"KILLED\"]"]
    );
    assert_eq!(bench.written(), ["destroy i-1"]);
    assert_eq!(
        bench.feed(Input::Destroyed(container(1))),
        ["send t i-2 KILLED killed_during_launch pid 77: it was killed before it was started"]
    );
}

#[test]
fn a_kill_of_a_task_that_is_not_here_is_answered() {
    let mut bench = Bench::new();
    assert_eq!(
        bench.hear(kill("t", None)),
        ["send t - DROPPED reconciliation: the agent does not know this task"]
    );
}

#[test]
fn a_framework_that_is_shut_down_loses_its_tasks_and_nobody_waits_for_its_acknowledgements() {
    let mut bench = Bench::running(task("t"));
    bench.hear(MasterMessage::Launch {
        framework_id: framework("other"),
        framework_name: "other".to_owned(),
        task: task("t"),
        allocation: divvy_proto::reservation::Allocation::default(),
    });
    bench.written();
    let shutdown = MasterMessage::ShutdownFramework { framework_id: framework("f") };
    assert_eq!(bench.hear(shutdown), ["write t KILLING []"]);
    assert_eq!(bench.written(), ["terminate i-1"]);
    assert_eq!(bench.exits(ExitStatus::Signal(15)), ["write t KILLED []"]);
    assert_eq!(bench.written(), ["destroy i-1"]);
    assert_eq!(
        bench.feed(Input::Destroyed(container(1))),
        [
            "send t i-5 KILLED framework_removed pid 77 signal 15: killed: its framework was torn down (signal 15)",
            "forget i-1",
        ]
    );
    assert_eq!(bench.core.known_tasks().map(|key| key.framework_id.as_str()).collect::<Vec<_>>(), ["other"]);
}

#[test]
fn what_a_shut_down_framework_has_not_acknowledged_is_forgotten() {
    let mut bench = Bench::running(task("t"));
    bench.exits(ExitStatus::Code(0));
    bench.written();
    bench.feed(Input::Destroyed(container(1)));
    let shutdown = MasterMessage::ShutdownFramework { framework_id: framework("f") };
    assert_eq!(bench.hear(shutdown), ["forget i-1"]);
}

#[test]
fn an_agent_that_leaves_nothing_behind_kills_everything_and_takes_nothing() {
    let mut bench = Bench::running(TaskInfo { kill_grace: Some(secs(600)), ..task("t") });
    assert_eq!(bench.feed(Input::KillAll { grace: secs(5) }), ["write t KILLING [\"KILLING\"]"]);
    bench.hear(launch(task("u")));
    assert_eq!(
        bench.written(),
        [
            "terminate i-1",
            "send t i-3 KILLING kill_requested pid 77: it has 5s to end",
            "send u i-4 DROPPED agent_disconnected: the agent shuts down and takes no more tasks",
        ]
    );
    bench.exits(ExitStatus::Signal(15));
    bench.written();
    assert_eq!(bench.core.live_tasks().len(), 1);
    bench.feed(Input::Destroyed(container(1)));
    assert!(bench.core.live_tasks().is_empty());
}

#[test]
fn a_launch_on_what_a_killed_task_still_holds_waits_until_that_is_gone() {
    let large = |id: &str| TaskInfo { resources: "cpus=3;mem=64MiB".parse().unwrap(), ..task(id) };
    let mut bench = Bench::running(large("t"));
    bench.hear(MasterMessage::ShutdownFramework { framework_id: framework("f") });
    bench.written();
    bench.hear(launch(large("u")));
    assert_eq!(
        bench.written(),
        ["send u i-4 STARTING command_exited: it waits for the end of a task whose resources it is to have"]
    );
    bench.hear(launch(large("v")));
    assert_eq!(bench.written().len(), 1);
    assert!(
        bench.records[2].latest.message.starts_with("asks for cpus=3;mem=64MiB where cpus=1"),
        "u has it"
    );
    bench.exits(ExitStatus::Code(0));
    bench.written();
    let effects = bench.feed(Input::Destroyed(container(1)));
    assert_eq!(effects[1..], ["forget i-1", "prepare i-2 for u as nobody with 0 artifacts"]);
}
