//! Arbitrary tasks, and what is said of them.

use divvy_proto::task::{
    AgentTask, Artifact, Command, ContainerStatus, ExitStatus, HealthCheck, Probe, Reason, Source, TaskPort,
};
use divvy_proto::{Cpus, RangeSet, TaskInfo, TaskState, TaskStatus};
use proptest::collection::{btree_map, vec};
use proptest::option::of;
use proptest::prelude::*;

use crate::any::{duration, id, labels, name, resources, some_time, text, time};
use crate::any_container::{container_info, digest};
use crate::any_owned::{allocation, bytes, mounts};

/// By number, as prost has them.
pub(crate) fn state() -> impl Strategy<Value = TaskState> {
    (1..=12_i32).prop_map(|number| divvy_proto::pb::TaskState::try_from(number).unwrap().try_into().unwrap())
}

pub(crate) fn reason() -> impl Strategy<Value = Reason> {
    (1..=25_i32).prop_map(|number| divvy_proto::pb::Reason::try_from(number).unwrap().try_into().unwrap())
}

fn container() -> impl Strategy<Value = ContainerStatus> {
    let exit =
        prop_oneof![any::<i32>().prop_map(ExitStatus::Code), any::<i32>().prop_map(ExitStatus::Signal)];
    let disk = (vec(any::<std::net::IpAddr>(), 0..3), of(bytes()), of(digest()));
    (of(any::<u32>()), of(exit), of(bytes()), of(bytes()), of(name()), disk).prop_map(
        |(pid, exit, memory_limit, memory_peak, sandbox, (addresses, disk_limit, image))| ContainerStatus {
            pid,
            exit,
            memory_limit,
            memory_peak,
            sandbox,
            addresses,
            disk_limit,
            image,
        },
    )
}

pub(crate) fn task_status() -> impl Strategy<Value = TaskStatus> {
    let source = prop_oneof![Just(Source::Master), Just(Source::Agent)];
    let ids = (id(), of(id()), of(id()));
    (ids, state(), reason(), source, text(), time(), any::<Option<bool>>(), container()).prop_map(
        |((task_id, agent_id, update_id), state, reason, source, message, time, healthy, container)| {
            TaskStatus {
                task_id,
                agent_id,
                state,
                reason,
                source,
                message,
                time,
                update_id,
                healthy,
                container,
            }
        },
    )
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        "[a-z $;é\n]{0,12}x".prop_map(Command::Shell),
        ("/?[a-z]{1,5}", vec(text(), 0..3)).prop_map(|(program, mut arguments)| {
            arguments.iter_mut().for_each(|argument| *argument = argument.replace('\0', ""));
            arguments.insert(0, program);
            Command::Exec(arguments)
        }),
    ]
}

fn artifact() -> impl Strategy<Value = Artifact> {
    let place = prop_oneof![
        ("(file:///|/)[a-z]{1,5}", of("[0-9a-f]{64}")),
        ("https?://h/[a-z]{1,5}", "[0-9a-f]{64}".prop_map(Some)),
    ];
    (place, of("[a-z]{1,3}(/[a-z.]{1,3}x){0,2}"), any::<bool>(), any::<bool>()).prop_map(
        |((uri, sha256), path, extract, executable)| Artifact { uri, sha256, path, extract, executable },
    )
}

fn health() -> impl Strategy<Value = HealthCheck> {
    let probe = prop_oneof![
        (1..=u16::MAX, "/[a-z?=&]{0,8}").prop_map(|(port, path)| Probe::Http { port, path }),
        (1..=u16::MAX).prop_map(|port| Probe::Tcp { port }),
        (1..=u16::MAX, "/[a-z?=&]{0,8}").prop_map(|(port, path)| Probe::Https { port, path }),
        (1..=u16::MAX, "[a-z.]{0,8}").prop_map(|(port, service)| Probe::Grpc { port, service }),
        command().prop_map(Probe::Command),
    ];
    (probe, some_time(), some_time(), duration(), 1..=u32::MAX).prop_map(
        |(probe, interval, timeout, grace, failures)| HealthCheck {
            probe,
            interval,
            timeout,
            grace,
            failures,
        },
    )
}

pub(crate) fn task_info() -> impl Strategy<Value = TaskInfo> {
    let named_ports = btree_map("[a-z]{1,4}", 1..=u16::MAX, 0..4).prop_map(|named| {
        let mut seen = std::collections::BTreeSet::new();
        let ports = named.into_iter().map(|(name, number)| TaskPort { name, number, container: Some(8080) });
        ports.filter(|port| seen.insert(port.number)).collect::<Vec<_>>()
    });
    let env = btree_map("[A-Z_]{1,6}", "[^\0]{0,9}", 0..4);
    let caps =
        (of((1..=i64::MAX >> 4).prop_map(|millis| Cpus::from_millis(millis).unwrap())), of(1..=u32::MAX));
    let files = (vec(artifact(), 0..3), vec(health(), 0..3));
    (
        id(),
        name(),
        command(),
        resources(),
        named_ports,
        env,
        caps,
        (of(name()), files, of(duration()), labels(), any::<i32>(), mounts(), of(container_info())),
    )
        .prop_map(|(id, name, command, resources, ports, env, (cpu_limit, pids_limit), rest)| {
            let (user, (artifacts, health), kill_grace, labels, priority, volumes, container) = rest;
            let own =
                RangeSet::from_ranges(ports.iter().map(|port| (port.number.into(), port.number.into())));
            let resources = resources.clone().with_ports(resources.ports().union(&own));
            TaskInfo {
                id,
                name,
                command,
                resources,
                cpu_limit,
                pids_limit,
                ports,
                env,
                user,
                artifacts,
                health,
                kill_grace,
                labels,
                priority,
                volumes,
                container,
            }
        })
}

pub(crate) fn agent_task() -> impl Strategy<Value = AgentTask> {
    (id(), task_info(), allocation(), task_status()).prop_map(|(framework_id, info, allocation, status)| {
        let status = TaskStatus { task_id: info.id.clone(), ..status };
        AgentTask { framework_id, info, allocation, status }
    })
}
