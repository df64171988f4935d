//! What becomes of tasks.

use std::fs;
use std::io::Write;
use std::time::Duration;

use divvy_agent::KillTasks;
use divvy_proto::task::{
    Artifact, Command, ExitStatus, HealthCheck, Probe, Reason, TaskInfo, TaskPort, TaskState,
};
use sha2::{Digest, Sha256};

use crate::Tests;
use crate::harness::{World, shell};

pub(crate) fn tests() -> Tests {
    vec![
        ("a_task_runs_ends_and_is_forgotten", a_task_runs_ends_and_is_forgotten),
        ("a_task_knows_who_it_is", a_task_knows_who_it_is),
        ("a_kill_is_polite_first", a_kill_is_polite_first),
        ("too_much_memory_is_told_with_its_limit", too_much_memory_is_told_with_its_limit),
        ("too_much_on_disk_is_told_with_its_limit", too_much_on_disk_is_told_with_its_limit),
        ("no_task_runs_twice", no_task_runs_twice),
        ("an_agent_that_goes_for_good_takes_all_with_it", an_agent_that_goes_for_good_takes_all_with_it),
        ("what_cannot_start_says_why", what_cannot_start_says_why),
        ("artifacts_are_fetched_checked_and_unpacked", artifacts_are_fetched_checked_and_unpacked),
        ("artifacts_that_are_not_to_be_had_fail_the_task", artifacts_that_are_not_to_be_had_fail_the_task),
        ("health_is_told_and_kills", health_is_told_and_kills),
        ("http_and_tcp_checks_reach_the_task", http_and_tcp_checks_reach_the_task),
    ]
}

fn a_task_runs_ends_and_is_forgotten(world: &mut World) {
    let end = world.ended(shell("t", "exit 3"));
    assert_eq!((end.state, end.reason), (TaskState::Failed, Reason::CommandExited));
    assert_eq!((end.container.exit, end.message.as_str()), (Some(ExitStatus::Code(3)), "exit code 3"));
    assert_eq!(world.states("t"), [TaskState::Starting, TaskState::Running, TaskState::Failed]);
    world.eventually("its checkpoint is removed", |world| world.checkpoints().is_empty());
    assert!(world.sandbox("t").join("stdout").exists(), "its sandbox is kept");
}

fn a_task_knows_who_it_is(world: &mut World) {
    let line = "echo $DIVVY_TASK_ID $DIVVY_FRAMEWORK_ID $DIVVY_AGENT_ID $HOST; pwd; echo $DIVVY_SANDBOX; hostname; id -un";
    assert_eq!(world.ended(shell("web.1", line)).state, TaskState::Finished);
    let sandbox = world.sandbox("web.1").canonicalize().unwrap();
    let expected = format!("web.1 f a1 127.0.0.1\n{0}\n{0}\nweb-1\nnobody\n", sandbox.display());
    assert_eq!(fs::read_to_string(sandbox.join("stdout")).unwrap(), expected);
}

fn a_kill_is_polite_first(world: &mut World) {
    world.run(shell("polite", "trap 'exit 5' TERM; touch ready; while :; do sleep 0.05; done"));
    world.run(shell("deaf", "trap '' TERM; touch ready; while :; do sleep 0.05; done"));
    world.eventually("both listen", |world| {
        ["polite", "deaf"].iter().all(|task| world.sandbox(task).join("ready").exists())
    });
    world.kill("polite");
    world.kill("deaf");
    let polite = world.end_of("polite");
    assert_eq!((polite.state, polite.container.exit), (TaskState::Killed, Some(ExitStatus::Code(5))));
    let deaf = world.end_of("deaf");
    assert_eq!((deaf.state, deaf.container.exit), (TaskState::Killed, Some(ExitStatus::Signal(9))));
    assert_eq!(deaf.message, "killed on request; it did not end within 1s of SIGTERM");
    world.kill("deaf");
    assert_eq!(world.until("deaf", TaskState::Dropped).reason, Reason::Reconciliation);
}

fn too_much_memory_is_told_with_its_limit(world: &mut World) {
    let end = world.ended(shell("t", "exec tail /dev/zero"));
    assert_eq!((end.state, end.reason), (TaskState::Failed, Reason::OutOfMemory));
    assert_eq!(end.container.memory_limit, Some("32MiB".parse().unwrap()));
    assert!(end.message.starts_with("it used more memory than its limit of 32MiB"), "{}", end.message);
}

/// In its sandbox and in its own `/tmp` together. Its logs count, too.
fn too_much_on_disk_is_told_with_its_limit(world: &mut World) {
    let line = "head -c 3M /dev/zero > part; head -c 3M /dev/zero > /tmp/part; touch ready; while :; do sleep 0.05; done";
    let limited = |id: &str, disk: &str| {
        let task = shell(id, line);
        let resources = format!("{};disk={disk}", task.resources).parse().unwrap();
        TaskInfo { resources, ..task }
    };
    world.run(limited("modest", "8MiB"));
    let end = world.ended(limited("greedy", "4MiB"));
    assert_eq!((end.state, end.reason), (TaskState::Failed, Reason::DiskLimit));
    assert_eq!(end.container.disk_limit, Some(divvy_proto::Bytes::mib(4)));
    assert!(
        end.message.starts_with("it wrote more than its limit of 4MiB on disk (found 6"),
        "{}",
        end.message
    );
    world.kill("modest");
    assert_eq!(world.end_of("modest").reason, Reason::KillRequested);
}

fn no_task_runs_twice(world: &mut World) {
    world.ended(shell("t", "echo once"));
    world.eventually("it is forgotten", |world| world.checkpoints().is_empty());
    world.launch(shell("t", "echo twice"));
    let second = world.status("t", "is refused", |status| status.state == TaskState::Failed);
    assert!(second.message.starts_with("task t has run here before"), "{}", second.message);
    assert_eq!(fs::read_to_string(world.sandbox("t").join("stdout")).unwrap(), "once\n");
}

/// The count of what is left comes after every story.
fn an_agent_that_goes_for_good_takes_all_with_it(world: &mut World) {
    world.run(shell("polite", "sleep 1000"));
    world.run(shell("deaf", "trap '' TERM; while :; do sleep 0.05; done"));
    world.run(shell("parent", "sleep 1000 & setsid sleep 1000 & wait"));
    world.stop(KillTasks::Yes);
    let left = world.left_behind();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(world.end_of("polite").state, TaskState::Killed);
}

fn what_cannot_start_says_why(world: &mut World) {
    let command = Command::Exec(vec!["/no/such/program".to_owned()]);
    let end = world.ended(TaskInfo { command, ..shell("missing", "") });
    assert_eq!((end.state, end.reason), (TaskState::Failed, Reason::LaunchFailed));
    assert!(end.message.contains("/no/such/program"), "{}", end.message);
    let end = world.ended(TaskInfo { user: Some("nosuchuser".to_owned()), ..shell("user", "true") });
    assert!(end.message.contains("user nosuchuser does not exist"), "{}", end.message);
    let end =
        world.ended(TaskInfo { resources: "cpus=64;mem=32MiB".parse().unwrap(), ..shell("large", "true") });
    assert_eq!((end.state, end.reason), (TaskState::Error, Reason::TaskInvalid));
}

fn artifact(uri: impl Into<String>) -> Artifact {
    Artifact { uri: uri.into(), sha256: None, path: None, extract: false, executable: false }
}

fn artifacts_are_fetched_checked_and_unpacked(world: &mut World) {
    let script = world.beside().join("run.sh");
    fs::write(&script, "#!/bin/sh\ncat data/inner/file\n").unwrap();
    let archive = world.beside().join("data.tar.gz");
    let gzip =
        flate2::write::GzEncoder::new(fs::File::create(&archive).unwrap(), flate2::Compression::fast());
    let mut tar = tar::Builder::new(gzip);
    let mut header = tar::Header::new_gnu();
    header.set_size(6);
    header.set_mode(0o644);
    tar.append_data(&mut header, "inner/file", "inside".as_bytes()).unwrap();
    tar.into_inner().unwrap().finish().unwrap().flush().unwrap();
    let digest = Sha256::digest(fs::read(&archive).unwrap());
    let sha256 = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let archive = Artifact {
        sha256: Some(sha256),
        path: Some("data".to_owned()),
        extract: true,
        ..artifact(format!("file://{}", archive.display()))
    };
    let script = Artifact { executable: true, ..artifact(script.to_str().unwrap()) };
    world.permit_reading();
    let end = world.ended(TaskInfo { artifacts: vec![script, archive], ..shell("t", "exec ./run.sh") });
    assert_eq!((end.state, end.message.as_str()), (TaskState::Finished, "exit code 0"));
    assert_eq!(fs::read_to_string(world.sandbox("t").join("stdout")).unwrap(), "inside");
}

fn artifacts_that_are_not_to_be_had_fail_the_task(world: &mut World) {
    let failed = |id: &str, artifact: Artifact| {
        let end = world.ended(TaskInfo { artifacts: vec![artifact], ..shell(id, "true") });
        assert_eq!((end.state, end.reason), (TaskState::Failed, Reason::FetchFailed), "{}", end.message);
        end.message
    };
    assert!(failed("missing", artifact("/no/such/file")).contains("No such file"));
    let secret = failed("secret", artifact("/etc/shadow"));
    assert!(secret.contains("as the task's user") && secret.contains("Permission denied"), "{secret}");
    let wrong = Artifact { sha256: Some("0".repeat(64)), ..artifact("/etc/hostname") };
    assert!(failed("wrong", wrong).contains("its SHA-256 is"));
    let refused = Artifact { sha256: Some("0".repeat(64)), ..artifact("http://127.0.0.1:1/x") };
    assert!(failed("refused", refused).contains("refused"));
}

fn health_is_told_and_kills(world: &mut World) {
    let check = HealthCheck {
        probe: Probe::Command(Command::Shell("test -e well || { echo I feel bad; exit 1; }".to_owned())),
        interval: Duration::from_millis(100),
        timeout: Duration::from_secs(5),
        grace: Duration::ZERO,
        failures: 3,
    };
    let line = "touch well; while :; do sleep 0.05; done";
    world.run(TaskInfo { health: vec![check], ..shell("t", line) });
    world.status("t", "is healthy", |status| status.healthy == Some(true));
    fs::remove_file(world.sandbox("t").join("well")).unwrap();
    let end = world.end_of("t");
    assert_eq!((end.state, end.reason), (TaskState::Failed, Reason::Unhealthy));
    assert!(end.message.contains("failed 3 times on end: exit code 1: I feel bad"), "{}", end.message);
}

/// A web server that every Debian can run. It feels as well as the file `sick` lets it.
const SERVER: &str = r#"exec perl -MIO::Socket::INET -e '
    my $server = IO::Socket::INET->new(LocalAddr => $ENV{HOST}, LocalPort => $ENV{PORT_HTTP}, Listen => 9, ReuseAddr => 1);
    while (my $client = $server->accept) {
        my $status = -e "sick" ? "500 Sick" : "200 Well";
        my $line = <$client>;
        print $client "HTTP/1.0 $status\r\nContent-Length: 0\r\n\r\n" if defined $line;
        close $client;
    }'"#;

fn http_and_tcp_checks_reach_the_task(world: &mut World) {
    let number = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let check = |probe| HealthCheck {
        probe,
        interval: Duration::from_millis(50),
        timeout: Duration::from_secs(5),
        grace: Duration::from_secs(10),
        failures: 2,
    };
    let path = "/health".to_owned();
    world.run(TaskInfo {
        resources: format!("cpus=0.1;mem=64MiB;ports=[{number}]").parse().unwrap(),
        ports: vec![TaskPort { name: "http".to_owned(), number, container: None }],
        health: vec![check(Probe::Http { port: number, path }), check(Probe::Tcp { port: number })],
        ..shell("t", SERVER)
    });
    world.status("t", "is healthy", |status| status.healthy == Some(true));
    fs::write(world.sandbox("t").join("sick"), "").unwrap();
    let end = world.end_of("t");
    assert_eq!((end.state, end.reason, end.healthy), (TaskState::Failed, Reason::Unhealthy, Some(false)));
    assert!(
        end.message.contains("path /health, failed 2 times on end: the answer was 500"),
        "{}",
        end.message
    );
}
