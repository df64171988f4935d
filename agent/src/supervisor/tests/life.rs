//! From launch to forgotten.

use super::*;

#[test]
fn a_task_goes_from_launch_to_forgotten_with_each_step_on_disk_before_it_is_taken() {
    let mut bench = Bench::new();
    assert_eq!(bench.hear(launch(task("t"))), ["write t STARTING [\"STARTING\"]"]);
    assert_eq!(
        bench.written(),
        [
            "prepare i-1 for t as nobody with 0 artifacts",
            "send t i-1 STARTING command_exited: the container is being prepared",
        ]
    );
    assert_eq!(
        bench.feed(Input::Prepared { container: container(1), image: None }),
        ["start i-1 [\"/bin/server\"] in /work/sandboxes/f/t"]
    );
    assert!(bench.hear(acknowledge("t", "i-1")).is_empty());
    assert_eq!(
        bench.feed(Input::Launched { container: container(1), pid: 77, addresses: Vec::new() }),
        ["write t RUNNING [\"RUNNING\"]", "watch i-1"]
    );
    assert_eq!(bench.written(), ["send t i-2 RUNNING command_exited pid 77: the process runs as 77"]);
    assert!(bench.hear(acknowledge("t", "i-2")).is_empty());
    assert_eq!(bench.exits(ExitStatus::Code(0)), ["write t FINISHED [\"FINISHED\"]"]);
    assert_eq!(bench.written(), ["destroy i-1"]);
    assert_eq!(
        bench.feed(Input::Destroyed(container(1))),
        ["send t i-3 FINISHED command_exited pid 77 exit code 0: exit code 0"]
    );
    assert_eq!(bench.hear(acknowledge("t", "i-3")), ["forget i-1"]);
    assert_eq!(bench.core.known_tasks().count(), 0);
}

#[test]
fn only_the_first_unacknowledged_update_is_in_flight_and_it_is_repeated_ever_more_slowly() {
    let mut bench = Bench::new();
    bench.hear(launch(task("t")));
    bench.written();
    bench.feed(Input::Prepared { container: container(1), image: None });
    bench.feed(Input::Launched { container: container(1), pid: 77, addresses: Vec::new() });
    assert!(bench.written().is_empty(), "STARTING is still in flight");
    let again = ["send t i-1 STARTING command_exited: the container is being prepared"];
    for pause in [10, 20, 40, 60, 60] {
        bench.hear(MasterMessage::Ping);
        assert!(bench.pass(secs(pause - 1)).is_empty());
        assert_eq!(bench.pass(secs(1)), again);
    }
    assert!(bench.hear(acknowledge("t", "i-2")).is_empty(), "RUNNING was not sent yet");
    assert_eq!(bench.hear(acknowledge("t", "i-1")), ["write t RUNNING [\"RUNNING\"]"]);
    assert_eq!(bench.written(), ["send t i-2 RUNNING command_exited pid 77: the process runs as 77"]);
}

#[test]
fn a_failure_says_how_and_memory_says_how_much() {
    let failed = |exited: Exited| {
        let mut bench = Bench::running(task("t"));
        bench.feed(Input::Exited { container: container(1), exited });
        bench.written();
        bench.feed(Input::Destroyed(container(1)))
    };
    assert_eq!(
        failed(exited(ExitStatus::Code(3))),
        ["send t i-3 FAILED command_exited pid 77 exit code 3: exit code 3"]
    );
    let oom = Some(Oom { limit: "32MiB".parse().unwrap(), peak: "33MiB".parse().unwrap() });
    assert_eq!(
        failed(Exited { oom, ..exited(ExitStatus::Signal(9)) }),
        [
            "send t i-3 FAILED out_of_memory pid 77 signal 9: it used more memory than its limit of 32MiB (at most 33MiB)"
        ]
    );
    assert_eq!(
        failed(Exited { status: None, oom: None, at: Timestamp(0) }),
        ["send t i-3 FAILED status_lost pid 77: its container ended and nobody can tell how"]
    );
}

#[test]
fn what_cannot_be_fetched_or_started_fails_with_the_reason() {
    let mut bench = Bench::new();
    bench.hear(launch(task("t")));
    bench.written();
    bench.hear(acknowledge("t", "i-1"));
    bench.feed(Input::Prepared { container: container(1), image: None });
    let message = "cannot run /bin/server: no such file".to_owned();
    assert_eq!(
        bench.feed(Input::LaunchFailed { container: container(1), message }),
        ["write t FAILED [\"FAILED\"]"]
    );
    assert_eq!(bench.written(), ["destroy i-1"]);
    assert_eq!(
        bench.feed(Input::Destroyed(container(1))),
        ["send t i-2 FAILED launch_failed: cannot run /bin/server: no such file"]
    );
}

#[test]
fn a_task_that_does_not_fit_or_makes_no_sense_is_an_error_and_starts_nothing() {
    let refused = |info: TaskInfo| {
        let mut bench =
            Bench::running(TaskInfo { resources: "cpus=3;mem=64MiB".parse().unwrap(), ..task("t") });
        let asked = bench.hear(launch(info));
        (asked, bench.written())
    };
    let write = vec!["write u ERROR [\"ERROR\"]".to_owned()];
    let said = |why: &str| vec![format!("send u i-3 ERROR task_invalid: {why}")];
    let large = TaskInfo { resources: "cpus=2;mem=64MiB".parse().unwrap(), ..task("u") };
    let why = "asks for cpus=2;mem=64MiB where cpus=1;mem=960MiB;ports=[31000-31009] is free";
    assert_eq!(refused(large), (write.clone(), said(why)));
    let empty = TaskInfo { command: Command::Exec(vec![]), ..task("u") };
    let why = "task.command: \"\" is not valid: expected a program to execute";
    assert_eq!(refused(empty), (write.clone(), said(why)));
    let stray = TaskInfo {
        ports: vec![TaskPort { name: "http".to_owned(), number: 80, container: None }],
        ..task("u")
    };
    let why = "task.ports: \"80\" is not valid: expected one of the ports in task.resources, []";
    assert_eq!(refused(stray), (write, said(why)));
}

#[test]
fn a_second_launch_of_a_task_only_repeats_how_it_is() {
    let mut bench = Bench::running(task("t"));
    assert_eq!(
        bench.hear(launch(task("t"))),
        ["send t - RUNNING command_exited pid 77: the process runs as 77"]
    );
}

#[test]
fn a_container_knows_who_it_is_and_which_ports_it_has() {
    let mut bench = Bench::new();
    let info = TaskInfo {
        resources: "cpus=1;mem=64MiB;ports=[31003,31007]".parse().unwrap(),
        ports: [("http", 31007), ("admin-ui", 31003)]
            .map(|(name, number)| TaskPort { name: name.to_owned(), number, container: None })
            .to_vec(),
        env: [("PATH", "/opt"), ("DIVVY_TASK_ID", "forged"), ("GREETING", "hi")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        user: Some("www-data".to_owned()),
        ..task("web.1")
    };
    bench.hear(launch(info));
    bench.written();
    let mut effects = Vec::new();
    bench.core.handle(bench.now, Input::Prepared { container: container(1), image: None }, &mut effects);
    let Some(Effect::Launch(spec)) = effects.pop() else { panic!("{effects:?}") };
    let env = [
        ("DIVVY_AGENT_ID", "a"),
        ("DIVVY_FRAMEWORK_ID", "f"),
        ("DIVVY_SANDBOX", "/work/sandboxes/f/web.1"),
        ("DIVVY_TASK_ID", "web.1"),
        ("GREETING", "hi"),
        ("HOME", "/work/sandboxes/f/web.1"),
        ("HOST", "10.0.0.7"),
        ("PATH", "/opt"),
        ("PORT0", "31007"),
        ("PORT1", "31003"),
        ("PORT_ADMIN_UI", "31003"),
        ("PORT_HTTP", "31007"),
    ];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let (hostname, user) = (Hostname::new("web-1").unwrap(), UserName::new("www-data").unwrap());
    let sandbox = PathBuf::from("/work/sandboxes/f/web.1");
    let limits = ("64MiB".parse().unwrap(), 100);
    let expected = crate::container::ContainerSpec {
        argv: vec!["/bin/server".to_owned()],
        env,
        cpus: "1".parse().unwrap(),
        ..crate::container::ContainerSpec::plain(container(1), hostname, sandbox, user, limits)
    };
    assert_eq!(spec, expected);
}
