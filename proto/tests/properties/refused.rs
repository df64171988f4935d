//! What no honest peer sends is refused, and the refusal names the field.

use divvy_proto::agent::AgentMessage;
use divvy_proto::convert::{call_id, limits};
use divvy_proto::pb::{self, call::Body, command::Command, operation::Operation};
use divvy_proto::scheduler::{Call, CallBody, Filters};
use divvy_proto::{Invalid, pb::health_check::Probe};

/// A task that is as it should be.
fn task() -> pb::TaskInfo {
    pb::TaskInfo {
        id: "t1".into(),
        name: "web".into(),
        command: Some(pb::Command { command: Some(Command::Shell("true".into())) }),
        resources: Some(pb::Resources {
            cpus_millis: 100,
            ports: vec![pb::Range { first: 31000, last: 31001 }],
            ..Default::default()
        }),
        ports: vec![pb::TaskPort { name: "http".into(), number: 31001, container: None }],
        ..Default::default()
    }
}

fn accept(tasks: Vec<pb::TaskInfo>) -> pb::Call {
    let operation = pb::Operation { operation: Some(Operation::Launch(pb::Launch { tasks })) };
    let accept = pb::Accept { offers: vec![7], operations: vec![operation], filters: None };
    pb::Call { id: "c1".into(), body: Some(Body::Accept(accept)) }
}

fn call(body: Body) -> Result<Call, Invalid> {
    pb::Call { id: "c1".into(), body: Some(body) }.try_into()
}

/// The field that is wrong with the second of two tasks.
fn wrong(change: impl FnOnce(&mut pb::TaskInfo)) -> String {
    let mut second = task();
    change(&mut second);
    let refused = Call::try_from(accept(vec![task(), second])).expect_err("is taken");
    let inner = refused.field.strip_prefix("accept.operations[0].launch[1].");
    inner.unwrap_or_else(|| panic!("{refused}")).to_owned()
}

fn resources(change: impl FnOnce(&mut pb::Resources)) -> String {
    wrong(|task| change(task.resources.as_mut().unwrap()))
}

fn custom(name: &str, millis: i64) -> String {
    resources(|r| r.custom_millis.extend([(name.to_owned(), millis)]))
}

#[test]
fn a_sound_task_is_taken() {
    let call = Call::try_from(accept(vec![task()])).unwrap();
    let CallBody::Accept { filters, operations, .. } = call.body else { panic!("{call:?}") };
    assert_eq!((filters, operations.len()), (Filters::default(), 1));
}

#[test]
fn a_refusal_names_field_value_and_expectation() {
    let mut bad = task();
    bad.resources.as_mut().unwrap().cpus_millis = -500;
    let refused = Call::try_from(accept(vec![task(), task(), bad])).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "accept.operations[0].launch[2].resources.cpus: \"-500\" is not valid: expected a number from 0 up"
    );
}

#[test]
fn wrong_amounts_are_named() {
    assert_eq!(resources(|r| r.mem_bytes = i64::MAX), "resources.mem");
    assert_eq!(resources(|r| r.gpus_millis = i64::MIN), "resources.gpus");
    assert_eq!(custom("cpus", 1), "resources.custom");
    assert_eq!(custom("Bad", 1), "resources.custom.resource");
    assert_eq!(custom("x", -1), "resources.custom.x");
    assert_eq!(resources(|r| r.ports.push(pb::Range { first: 9, last: 3 })), "resources.ports[1]");
    assert_eq!(resources(|r| r.ports.push(pb::Range { first: 0, last: 3 })), "resources.ports");
    assert_eq!(resources(|r| r.ports.push(pb::Range { first: 1, last: 65_536 })), "resources.ports");
    assert_eq!(resources(|r| r.ports.clear()), "ports[0].number");
    assert_eq!(wrong(|t| t.cpu_limit_millis = Some(0)), "cpu_limit");
    assert_eq!(wrong(|t| t.cpu_limit_millis = Some(-1)), "cpu_limit");
    assert_eq!(wrong(|t| t.pids_limit = Some(0)), "pids_limit");
}

#[test]
fn wrong_parts_of_a_task_are_named() {
    let port = |name: &str, number| pb::TaskPort { name: name.into(), number, container: None };
    assert_eq!(wrong(|t| t.id = "a/b".into()), "id");
    assert_eq!(wrong(|t| t.name.clear()), "name");
    assert_eq!(wrong(|t| t.command = None), "command");
    assert_eq!(wrong(|t| t.command = Some(pb::Command { command: None })), "command");
    assert_eq!(
        wrong(|t| t.command.as_mut().unwrap().command = Some(Command::Shell(" ".into()))),
        "command.shell"
    );
    assert_eq!(
        wrong(|t| t.command.as_mut().unwrap().command = Some(Command::Exec(pb::Exec { argv: vec![] }))),
        "command.exec"
    );
    assert_eq!(wrong(|t| t.resources = None), "resources");
    assert_eq!(wrong(|t| t.ports.push(port("http", 31000))), "ports[1]");
    assert_eq!(wrong(|t| t.ports.push(port("more", 31001))), "ports[1]");
    assert_eq!(wrong(|t| t.ports.push(port("more", 31002))), "ports[1].number");
    assert_eq!(wrong(|t| t.ports.push(port("more", 70000))), "ports[1].number");
    assert_eq!(wrong(|t| drop(t.env.insert("A=B".into(), String::new()))), "env");
    assert_eq!(wrong(|t| drop(t.env.insert("A".into(), "\0".into()))), "env");
    assert_eq!(wrong(|t| drop(t.env.insert("A".into(), "x".repeat(limits::COMMAND_AND_ENV)))), "command");
    assert_eq!(wrong(|t| t.user = Some(String::new())), "user");
    assert_eq!(wrong(|t| drop(t.labels.insert("a".into(), "x".repeat(limits::LABEL_BYTES)))), "labels");
    assert_eq!(wrong(|t| t.kill_grace_ms = Some(u64::MAX)), "kill_grace");
}

#[test]
fn wrong_artifacts_and_checks_are_named() {
    let artifact = |uri: &str, path: Option<&str>| pb::Artifact {
        uri: uri.into(),
        path: path.map(Into::into),
        ..Default::default()
    };
    assert_eq!(wrong(|t| t.artifacts.push(artifact("ftp://x", None))), "artifacts[0].uri");
    assert_eq!(wrong(|t| t.artifacts.push(artifact("https://x/y", None))), "artifacts[0].sha256");
    assert_eq!(wrong(|t| t.artifacts.push(artifact("/a", Some("../b")))), "artifacts[0].path");
    assert_eq!(wrong(|t| t.artifacts.push(artifact("/a", Some("/b")))), "artifacts[0].path");

    let check = pb::HealthCheck {
        probe: Some(Probe::Http(pb::HttpProbe { port: 80, path: "/".into() })),
        interval_ms: 1,
        timeout_ms: 1,
        grace_ms: 0,
        failures: 1,
    };
    let tcp = |port| Some(Probe::Tcp(pb::TcpProbe { port }));
    let http = |path: &str| Some(Probe::Http(pb::HttpProbe { port: 80, path: path.into() }));
    let with = |change: &dyn Fn(&mut pb::HealthCheck)| {
        let mut check = check.clone();
        change(&mut check);
        wrong(|t| t.health.push(check))
    };
    assert_eq!(with(&|c| c.probe = None), "health[0].probe");
    assert_eq!(with(&|c| c.probe = tcp(0)), "health[0].tcp.port");
    assert_eq!(with(&|c| c.probe = http("/ HTTP/1.1\r\nX: y")), "health[0].http.path");
    assert_eq!(with(&|c| c.interval_ms = 0), "health[0].interval");
    assert_eq!(with(&|c| c.timeout_ms = 0), "health[0].timeout");
    assert_eq!(with(&|c| c.failures = 0), "health[0].failures");
}

#[test]
fn wrong_calls_are_named() {
    let refused = |body: Body| call(body).expect_err("is taken").field;
    let framework = |roles: &[&str]| pb::FrameworkInfo {
        name: "web".into(),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        ..Default::default()
    };
    let subscribe = |roles: &[&str]| {
        refused(Body::Subscribe(pb::Subscribe { framework: Some(framework(roles)), suppressed: vec![] }))
    };
    assert_eq!(subscribe(&[]), "subscribe.framework.roles");
    assert_eq!(subscribe(&["a", "b", "a"]), "subscribe.framework.roles[2]");
    assert_eq!(subscribe(&["a", "b/"]), "subscribe.framework.roles[1]");
    assert_eq!(refused(Body::Subscribe(pb::Subscribe::default())), "subscribe.framework");
    let decline =
        |offers: &[u64]| refused(Body::Decline(pb::Decline { offers: offers.to_vec(), filters: None }));
    assert_eq!(decline(&[]), "decline.offers");
    assert_eq!(decline(&[1, 2, 1]), "decline.offers[2]");
    assert_eq!(refused(Body::Revive(pb::Revive { roles: vec!["*".into(), "*".into()] })), "revive.roles[1]");
    assert_eq!(refused(Body::Kill(pb::Kill::default())), "kill.task_id");
    let reconcile = pb::ReconcileTask { task_id: "t".into(), agent_id: Some(String::new()) };
    assert_eq!(
        refused(Body::Reconcile(pb::Reconcile { tasks: vec![reconcile] })),
        "reconcile.tasks[0].agent_id"
    );
    let data = vec![0; limits::DATA + 1];
    assert_eq!(
        refused(Body::Message(pb::TaskMessage { agent_id: "a".into(), task_id: "t".into(), data })),
        "message.data"
    );
    assert_eq!(Call::try_from(pb::Call { id: "c1".into(), body: None }).unwrap_err().field, "body");
    assert_eq!(Call::try_from(pb::Call::default()).unwrap_err().field, "id");
}

#[test]
fn wrong_demands_are_named() {
    let cores = || Some(pb::Resources { cpus_millis: 1, ..Default::default() });
    let shape = |name: &str| pb::DemandShape { name: name.into(), resources: cores(), ..Default::default() };
    let demand = |shapes, hold_ms| {
        let gang = Some(pb::Gang { hold_ms });
        call(Body::Demand(pb::Demand { role: "eng".into(), shapes, gang })).map(drop)
    };
    let wrong = |change: &dyn Fn(&mut pb::DemandShape)| {
        let mut second = shape("b");
        change(&mut second);
        demand(vec![shape("a"), second], 0).expect_err("is taken").field
    };
    assert_eq!(demand(vec![shape("a"), shape("b")], 3_600_000), Ok(()), "a count of none is fine");
    assert_eq!(demand(vec![], 3_600_001).unwrap_err().field, "demand.gang.hold");
    assert_eq!(demand(vec![shape("a"); limits::SHAPES + 1], 0).unwrap_err().field, "demand.shapes");
    assert_eq!(wrong(&|s| s.name = "a".into()), "demand.shapes[1]");
    assert_eq!(wrong(&|s| s.name.clear()), "demand.shapes[1].name");
    assert_eq!(wrong(&|s| s.name = "x".repeat(limits::SHAPE_NAME + 1)), "demand.shapes[1].name");
    assert_eq!(wrong(&|s| s.resources = Some(pb::Resources::default())), "demand.shapes[1].resources");
    assert_eq!(wrong(&|s| s.ports = 65_536), "demand.shapes[1].ports");
    assert_eq!(wrong(&|s| s.constraint = Some("rack ~= r1".into())), "demand.shapes[1].constraint");
    assert_eq!(
        wrong(&|s| s.preference = Some(pb::demand_shape::Preference::Spread(String::new()))),
        "demand.shapes[1].spread"
    );
}

#[test]
fn wrong_reservations_and_volumes_are_named() {
    let role = |role: &str| pb::Reservation { role: role.into(), ..Default::default() };
    let cores = || Some(pb::Resources { cpus_millis: 1, ..Default::default() });
    let refused = |operation: Operation| {
        let operations = vec![pb::Operation { operation: Some(operation) }];
        let refused = call(Body::Accept(pb::Accept { offers: vec![1], operations, filters: None }))
            .expect_err("is taken");
        refused.field.strip_prefix("accept.operations[0].").unwrap_or_default().to_owned()
    };
    let reserve = |refines: &[&str]| {
        let refines = refines.iter().map(|name| role(name)).collect();
        refused(Operation::Reserve(pb::Reserve { resources: cores(), refines, ..Default::default() }))
    };
    assert_eq!(reserve(&["*"]), "reserve.refines[0].role");
    assert_eq!(reserve(&["a/b", "a"]), "reserve.refines[1].role");
    assert_eq!(reserve(&["a", "a", "ab"]), "reserve.refines[2].role");
    assert_eq!(reserve(&["a"; limits::RESERVATION_STACK + 1]), "reserve.refines");
    let nothing = pb::Reserve { resources: Some(pb::Resources::default()), ..Default::default() };
    assert_eq!(refused(Operation::Reserve(nothing)), "reserve.resources");
    let unreserve = pb::Unreserve { resources: cores(), ..Default::default() };
    assert_eq!(refused(Operation::Unreserve(unreserve)), "unreserve.stack");
    let create = |volume_id: &str, size_bytes| {
        let stack = vec![role("a")];
        refused(Operation::Create(pb::CreateVolume {
            id: None,
            volume_id: volume_id.into(),
            size_bytes,
            stack,
        }))
    };
    assert_eq!(create("a/b", 1), "create.volume_id");
    assert_eq!(create("a", 0), "create.size");
    let by = |by_bytes| pb::ResizeVolume { id: None, volume_id: "v".into(), by_bytes };
    assert_eq!(refused(Operation::Grow(by(0))), "grow.by");
    assert_eq!(refused(Operation::Shrink(by(-1))), "shrink.by");
    assert_eq!(refused(Operation::LaunchOn(pb::LaunchOn::default())), "launch_on.agent_id");
    let empty = pb::LaunchOn { agent_id: "a1".into(), tasks: vec![] };
    assert_eq!(refused(Operation::LaunchOn(empty)), "launch_on.tasks");

    let mount = |id: &str, path: &str| pb::VolumeMount { id: id.into(), path: path.into(), read_only: false };
    assert_eq!(wrong(|t| t.volumes.push(mount("", "/data"))), "volumes[0].id");
    assert_eq!(wrong(|t| t.volumes.push(mount("v", ""))), "volumes[0].path");
    assert_eq!(wrong(|t| t.volumes.push(mount("v", "a/../../b"))), "volumes[0].path");
    assert_eq!(wrong(|t| t.volumes.extend([mount("v", "/a"), mount("w", "/a")])), "volumes[1]");
}

#[test]
fn an_agent_reserves_what_it_has_under_one_fixed_reservation() {
    let cores = |cpus_millis| Some(pb::Resources { cpus_millis, ..Default::default() });
    let role = |fixed| pb::Reservation { role: "a".into(), fixed, ..Default::default() };
    let register = |stack: Vec<pb::Reservation>, millis| {
        let reserved = vec![pb::Reserved { stack, resources: cores(millis) }; 2];
        let resources = cores(4000);
        let agent = Some(pb::AgentInfo { hostname: "m".into(), resources, reserved, ..Default::default() });
        let message = pb::agent_message::Message::Register(pb::Register { agent, tasks: vec![] });
        AgentMessage::try_from(pb::AgentMessage { message: Some(message) }).map(drop).map_err(|e| e.field)
    };
    assert_eq!(register(vec![role(true)], 2000), Ok(()));
    assert_eq!(register(vec![role(true)], 2001), Err("register.agent.reserved".to_owned()));
    assert_eq!(register(vec![role(false)], 1), Err("register.agent.reserved[0].stack".to_owned()));
    assert_eq!(register(vec![role(true); 2], 1), Err("register.agent.reserved[0].stack".to_owned()));
}

/// What an agent of an earlier version says is taken, and means the same.
#[test]
fn what_is_new_may_be_absent() {
    let status =
        pb::TaskStatus { task_id: "t1".into(), state: 3, reason: 1, source: 2, ..Default::default() };
    let old = pb::AgentTask {
        framework_id: "f1".into(),
        info: Some(task()),
        status: Some(status),
        allocation: None,
    };
    let new = divvy_proto::task::AgentTask::try_from(old).unwrap();
    assert_eq!(
        (new.allocation, new.info.priority, new.info.volumes.len()),
        (divvy_proto::Allocation::default(), 0, 0)
    );
}

#[test]
fn too_many_tasks_are_refused_however_they_are_spread() {
    let launch = |count: usize| pb::Operation {
        operation: Some(Operation::Launch(pb::Launch { tasks: vec![task(); count] })),
    };
    let half = limits::TASKS_PER_ACCEPT / 2;
    let accept = |operations| call(Body::Accept(pb::Accept { offers: vec![1], operations, filters: None }));
    assert!(accept(vec![launch(half), launch(half)]).is_ok());
    assert_eq!(accept(vec![launch(half), launch(half + 1)]).unwrap_err().field, "accept.operations.launch");
}

#[test]
fn a_refused_call_still_has_its_id() {
    let call = accept(vec![pb::TaskInfo::default()]);
    assert_eq!(call_id(&call).unwrap().as_str(), "c1");
    assert!(Call::try_from(call).is_err());
}

#[test]
fn a_refusal_of_offers_is_at_most_a_year_and_five_seconds_if_nothing_is_said() {
    assert_eq!(Filters::from(pb::Filters { refuse_ms: Some(u64::MAX) }).refuse, limits::REFUSE);
    assert_eq!(Filters::from(pb::Filters { refuse_ms: None }), Filters::default());
    assert!(Filters::from(pb::Filters { refuse_ms: Some(0) }).refuse.is_zero());
}

#[test]
fn unknown_values_of_enumerations_are_refused() {
    let status = pb::TaskStatus { task_id: "t".into(), state: 99, ..Default::default() };
    let update = |status| {
        divvy_proto::scheduler::Event::try_from(pb::Event { event: Some(pb::event::Event::Update(status)) })
    };
    assert_eq!(update(status.clone()).unwrap_err().field, "update.state");
    assert_eq!(update(pb::TaskStatus { state: 0, ..status.clone() }).unwrap_err().field, "update.state");
    assert_eq!(update(pb::TaskStatus { state: 3, ..status }).unwrap_err().field, "update.reason");
}

#[test]
fn text_for_people_is_cut_between_characters() {
    let error = divvy_proto::scheduler::StreamError::Refused("é".repeat(limits::TEXT));
    let wire = pb::StreamError::from(error);
    let Some(pb::stream_error::Error::Refused(text)) = &wire.error else { panic!("{wire:?}") };
    assert_eq!(text.len(), limits::TEXT);
    assert!(divvy_proto::scheduler::StreamError::try_from(wire).is_ok());
}

#[test]
fn the_wire_describes_itself() {
    let text = String::from_utf8_lossy(pb::FILE_DESCRIPTOR_SET);
    for name in ["divvy.v1", "Scheduler", "AgentMessage", "Operator"] {
        assert!(text.contains(name), "{name} is missing");
    }
}

/// Other versions and other languages read these bytes: what has a number keeps it.
#[test]
fn the_numbers_of_fields_stay() {
    use prost::Message;
    let kill = Body::Kill(pb::Kill { task_id: "t1".into(), grace_ms: Some(5000) });
    let call = pb::Call { id: "c1".into(), body: Some(kill) };
    assert_eq!(call.encode_to_vec(), b"\x0a\x02c1\x52\x07\x0a\x02t1\x10\x88\x27");

    let resources =
        pb::Resources { cpus_millis: 1, mem_bytes: 2, disk_bytes: 3, gpus_millis: 4, ..Default::default() };
    assert_eq!(resources.encode_to_vec(), [0x08, 1, 0x10, 2, 0x18, 3, 0x20, 4]);
}
