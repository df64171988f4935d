//! Health checks: what is told of them, and when they kill.

use divvy_proto::container::ContainerInfo;
use divvy_proto::task::{HealthCheck, Probe, TaskPort};

use super::*;

fn checked() -> TaskInfo {
    let probe = Probe::Http { port: 31000, path: "/".to_owned() };
    let check = HealthCheck { probe, interval: secs(1), timeout: secs(1), grace: secs(10), failures: 3 };
    TaskInfo { health: vec![check], ..task("t") }
}

fn probed(bench: &mut Bench, passes: bool) -> Vec<String> {
    let result = if passes { Ok(()) } else { Err("the answer was 500".to_owned()) };
    let mut effects = bench.feed(Input::Health { container: container(1), check: 0, result });
    effects.extend(bench.written());
    effects
}

#[test]
fn a_change_of_health_is_told_and_only_a_change() {
    let mut bench = Bench::running(checked());
    assert_eq!(
        probed(&mut bench, true),
        [
            "write t RUNNING [\"RUNNING\"]",
            "send t i-3 RUNNING health_changed healthy pid 77: all health checks pass",
        ]
    );
    bench.hear(acknowledge("t", "i-3"));
    assert!(probed(&mut bench, true).is_empty());
    assert_eq!(
        probed(&mut bench, false),
        [
            "write t RUNNING [\"RUNNING\"]",
            "send t i-4 RUNNING health_changed unhealthy pid 77: a health check fails: the answer was 500",
        ]
    );
}

#[test]
fn failures_count_once_the_grace_is_over_and_enough_of_them_kill() {
    let mut bench = Bench::running(checked());
    for _ in 0..9 {
        assert!(probed(&mut bench, false).is_empty(), "it may still start up");
    }
    bench.pass(secs(10));
    probed(&mut bench, false);
    bench.hear(acknowledge("t", "i-3"));
    assert!(probed(&mut bench, false).is_empty());
    let why = "the http check of port 31000, path /, failed 3 times on end: the answer was 500";
    assert_eq!(
        probed(&mut bench, false),
        [
            "stop probing i-1".to_owned(),
            "write t KILLING [\"KILLING\"]".to_owned(),
            "terminate i-1".to_owned(),
            format!("send t i-4 KILLING unhealthy unhealthy pid 77: {why}"),
        ]
    );
    bench.hear(acknowledge("t", "i-4"));
    bench.exits(ExitStatus::Signal(15));
    bench.written();
    assert_eq!(
        bench.feed(Input::Destroyed(container(1))),
        [format!("send t i-5 FAILED unhealthy unhealthy pid 77 signal 15: killed: {why} (signal 15)")]
    );
}

#[test]
fn a_check_asks_for_the_port_on_which_the_task_listens() {
    let port = |name: &str, number, container| TaskPort { name: name.to_owned(), number, container };
    let probes = [
        Probe::Http { port: 31000, path: "/".to_owned() },
        Probe::Https { port: 31000, path: "/".to_owned() },
        Probe::Grpc { port: 31000, service: String::new() },
        Probe::Tcp { port: 31000 },
        Probe::Tcp { port: 31001 },
        Probe::Tcp { port: 9 },
    ];
    let check = |probe| HealthCheck { probe, ..checked().health.remove(0) };
    let info = |network: &str| TaskInfo {
        ports: vec![port("web", 31000, Some(80)), port("raw", 31001, None)],
        health: probes.clone().map(check).to_vec(),
        container: Some(Box::new(ContainerInfo {
            network: network.parse().unwrap(),
            ..ContainerInfo::default()
        })),
        ..task("t")
    };
    let asked = |network: &str| {
        let checks = crate::supervisor::environment::checks(&info(network));
        checks
            .into_iter()
            .map(|check| match check.probe {
                Probe::Http { port, .. } | Probe::Https { port, .. } | Probe::Grpc { port, .. } => port,
                Probe::Tcp { port } => port,
                Probe::Command(_) => 0,
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(asked("bridge"), [80, 80, 80, 80, 31001, 9]);
    assert_eq!(asked("host"), [31000, 31000, 31000, 31000, 31001, 9]);
}

#[test]
fn a_port_inside_wants_a_network_to_be_inside_of() {
    let mut bench = Bench::new();
    let info = TaskInfo {
        resources: "cpus=1;mem=64MiB;ports=[31000]".parse().unwrap(),
        ports: vec![TaskPort { name: "web".to_owned(), number: 31000, container: Some(80) }],
        ..task("t")
    };
    let mut effects = bench.hear(launch(info));
    effects.extend(bench.written());
    let expected = "task.ports.container";
    assert!(effects.concat().contains(expected), "{effects:?}");
    assert!(!effects.concat().contains("prepare"), "{effects:?}");
}

#[test]
fn an_agent_that_comes_back_does_not_give_grace_again() {
    let mut bench = Bench::running(checked());
    probed(&mut bench, true);
    bench.hear(acknowledge("t", "i-3"));
    probed(&mut bench, false);
    let state = crate::container::ContainerState::Running { pid: 77, addresses: Vec::new() };
    let (mut next, _) = super::recovery::recover(bench.records.pop().unwrap(), state);
    for _ in 0..2 {
        assert!(!probed(&mut next, false).concat().contains("KILLING"), "two failures are not enough");
    }
    assert!(probed(&mut next, false).concat().contains("KILLING"), "the third is");
}

#[test]
fn the_first_success_ends_the_grace() {
    let mut bench = Bench::running(checked());
    probed(&mut bench, true);
    bench.hear(acknowledge("t", "i-3"));
    assert_eq!(probed(&mut bench, false).len(), 2, "told at once");
}

#[test]
fn health_that_changes_while_nobody_listens_does_not_pile_up() {
    let mut bench = Bench::running(checked());
    for _ in 0..10 {
        probed(&mut bench, true);
        probed(&mut bench, false);
    }
    let states: Vec<_> = bench.records[0].unacknowledged.iter().map(|status| status.healthy).collect();
    assert_eq!(states, [Some(true), Some(false)]);
}

#[test]
fn probes_end_with_the_task() {
    let mut bench = Bench::running(checked());
    assert_eq!(bench.exits(ExitStatus::Code(1)), ["stop probing i-1", "write t FAILED [\"FAILED\"]"]);
}
