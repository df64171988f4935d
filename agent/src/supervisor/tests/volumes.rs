//! Persistent volumes, and out of what a task was given what it holds.

use divvy_proto::ids::VolumeId;
use divvy_proto::reservation::{Reservation, Reserved, Volume, VolumeMount};
use divvy_proto::scheduler::StreamError;
use divvy_proto::task::AgentTask;

use super::*;

fn volumes(ids: &[&str]) -> MasterMessage {
    let volume = |id: &&str| Volume {
        id: VolumeId::new(id).unwrap(),
        size: divvy_proto::Bytes::mib(64),
        stack: Vec::new(),
        principal: None,
        created: Timestamp(0),
    };
    MasterMessage::Volumes(ids.iter().map(volume).collect())
}

fn mounting(volume: &str, path: &str) -> TaskInfo {
    let mount = VolumeMount { id: VolumeId::new(volume).unwrap(), path: path.to_owned(), read_only: false };
    TaskInfo { volumes: vec![mount], ..task("t") }
}

#[test]
fn a_task_starts_with_its_volumes_or_says_which_is_missing() {
    let mut bench = Bench::new();
    assert_eq!(bench.hear(volumes(&["data"])), ["volumes {data}"]);
    bench.hear(launch(mounting("data", "db")));
    bench.written();
    let mut effects = Vec::new();
    bench.core.handle(bench.now, Input::Prepared { container: container(1), image: None }, &mut effects);
    let [Effect::Launch(spec)] = &effects[..] else { panic!("{effects:?}") };
    let [bind] = &spec.volumes[..] else { panic!("{spec:?}") };
    let paths = (bind.source.to_str().unwrap(), bind.target.to_str().unwrap());
    assert_eq!(paths, ("/work/volumes/data", "/work/sandboxes/f/t/db"));

    let mut bench = Bench::new();
    bench.hear(volumes(&["data"]));
    bench.hear(volumes(&[]));
    assert_eq!(bench.hear(launch(mounting("data", "db"))), ["write t FAILED [\"FAILED\"]"]);
    assert_eq!(bench.written(), ["send t i-1 FAILED launch_failed: volume data is not on this agent"]);
}

#[test]
fn volumes_that_were_found_count_before_a_master_names_them() {
    let mut bench = Bench::blank();
    let volumes = [VolumeId::new("data").unwrap()].into();
    bench.feed(Input::Recovered(Recovered { volumes, ..Recovered::default() }));
    bench.feed(Input::Connected(LinkId(1)));
    bench.registered(1);
    assert_eq!(bench.hear(launch(mounting("data", "/srv"))), ["write t STARTING [\"STARTING\"]"]);
}

#[test]
fn an_agent_that_was_declared_gone_sets_the_data_aside_until_it_is_somebody_else() {
    let mut bench = Bench::new();
    bench.hear(volumes(&["data"]));
    assert_eq!(
        bench.hear(MasterMessage::Error(StreamError::Gone)),
        ["set volumes of a aside", "hang up: the agent was declared gone"]
    );
    bench.link = LinkId(2);
    bench.feed(Input::Connected(LinkId(2)));
    bench.registered(1);
    bench.hear(launch(mounting("data", "db")));
    assert_eq!(bench.written(), ["send t i-1 FAILED launch_failed: volume data is not on this agent"]);
}

#[test]
fn a_volume_is_not_mounted_just_anywhere() {
    for path in ["", "/", ".", "../x", "/proc/1", "/dev", "/sys/fs"] {
        let mut bench = Bench::new();
        bench.hear(volumes(&["data"]));
        let effects = bench.hear(launch(mounting("data", path)));
        assert_eq!(effects, ["write t ERROR [\"ERROR\"]"], "{path}");
    }
}

#[test]
fn what_a_task_was_given_is_kept_and_reported() {
    let reservation =
        Reservation { role: "eng".parse().unwrap(), principal: None, labels: [].into(), fixed: true };
    let reserved = Reserved { stack: vec![reservation], resources: "cpus=1".parse().unwrap() };
    let allocation =
        Allocation { role: Some("eng/ads".parse().unwrap()), reserved: vec![reserved], revocable: false };
    let mut bench = Bench::new();
    bench.hear(launch_from(task("t"), allocation.clone()));
    bench.written();
    let mut effects = Vec::new();
    bench.core.handle(bench.now, Input::Connected(LinkId(2)), &mut effects);
    let reported = effects.into_iter().find_map(|effect| match effect {
        Effect::Send { message: AgentMessage::Register { tasks, .. }, .. } => Some(tasks),
        _ => None,
    });
    let reported: Vec<AgentTask> = reported.unwrap();
    assert_eq!(reported[0].allocation, allocation);

    // A record of an agent that knew nothing of this.
    let mut record = serde_json::to_value(&bench.records[0]).unwrap();
    record.as_object_mut().unwrap().remove("allocation");
    let record: TaskRecord = serde_json::from_value(record).unwrap();
    assert_eq!(record.allocation, Allocation::default());
}

#[test]
fn revocable_resources_are_counted_apart() {
    let revocable = || Allocation { revocable: true, ..Allocation::default() };
    let mut bench = Bench::new();
    bench.hear(launch_from(task("t"), revocable()));
    let whole = TaskInfo { resources: "cpus=4;mem=1GiB".parse().unwrap(), ..task("u") };
    assert_eq!(bench.hear(launch(whole)), ["write u STARTING [\"STARTING\"]"]);
    assert_eq!(bench.hear(launch_from(task("v"), revocable())), ["write v ERROR [\"ERROR\"]"]);
}
