//! Task groups come to one agent in one operation, all or none.

use divvy_proto::container::{ContainerInfo, GroupMember, Network};
use divvy_proto::scheduler::Operation;
use divvy_proto::task::{TaskInfo, TaskState};

use crate::kernel::testing::*;
use crate::story;

const SMALL: &str = "cpus=1;mem=1GiB";

/// A task of the group `g` of two.
fn member(id: &str) -> TaskInfo {
    changed(task(id, SMALL), |_| {})
}

/// One that ends alone.
fn helper(id: &str) -> TaskInfo {
    changed(task(id, SMALL), |group| group.ends_alone = true)
}

fn changed(task: TaskInfo, change: impl FnOnce(&mut GroupMember)) -> TaskInfo {
    let mut group = GroupMember { id: "g".parse().unwrap(), size: 2, ends_alone: false };
    change(&mut group);
    TaskInfo {
        container: Some(Box::new(ContainerInfo { group: Some(group), ..ContainerInfo::default() })),
        ..task
    }
}

fn on_bridge(mut task: TaskInfo) -> TaskInfo {
    if let Some(container) = &mut task.container {
        container.network = "bridge".parse::<Network>().unwrap();
    }
    task
}

/// Why these operations, in one call, are refused.
fn refused(operations: Vec<Operation>) -> String {
    let mut cluster = Cluster::new();
    cluster.agent("cpus=4;mem=8GiB");
    let app = cluster.framework("app");
    cluster.forget();
    cluster.accept_with(app, operations);
    assert_eq!(cluster.kernel.tasks(), Vec::new(), "all or none");
    cluster.story().first().cloned().unwrap_or_default()
}

#[test]
fn a_group_is_launched_together() {
    let mut cluster = Cluster::new();
    cluster.agent("cpus=4;mem=8GiB");
    let app = cluster.framework("app");
    cluster.forget();
    cluster.accept_with(app, vec![Operation::LaunchGroup(vec![member("a"), helper("b")])]);
    story!(
        cluster,
        "app < c2 accepted",
        "agent 0 < launch f1-0/a",
        "agent 0 < launch f1-0/b",
        "app < offers o1-2 of a1-0: cpus=2;mem=6GiB",
    );
}

#[test]
fn half_a_group_is_none() {
    let launch = |tasks: Vec<TaskInfo>| Operation::Launch(tasks);
    let at = "app < c2 refused: accept.operations[0].launch";
    let alone = "is not valid: expected all 2 tasks of group g in one operation, not 1";
    assert_eq!(refused(vec![launch(vec![member("a")])]), format!("{at}[0].container.group: \"g\" {alone}"));
    assert_eq!(
        refused(vec![launch(vec![member("a")]), launch(vec![member("b")])]),
        format!("{at}[0].container.group: \"g\" {alone}")
    );
    let other = changed(task("b", SMALL), |group| group.size = 3);
    assert_eq!(
        refused(vec![launch(vec![member("a"), other])]),
        format!(
            "{at}[1].container.group.size: \"3\" is not valid: expected the size that all of the group name"
        )
    );
    assert_eq!(
        refused(vec![launch(vec![member("a"), on_bridge(member("b"))])]),
        format!(
            "{at}[1].container.network: \"bridge\" is not valid: expected the network of the others of the group, host"
        )
    );
    assert_eq!(
        refused(vec![launch(vec![helper("a"), helper("b")])]),
        format!(
            "{at}[0].container.group.ends_alone: \"true\" is not valid: expected false for at least one of the group"
        )
    );
    let large = TaskInfo { resources: "cpus=4;mem=1GiB".parse().unwrap(), ..member("b") };
    assert_eq!(
        refused(vec![launch(vec![member("a"), large])]),
        "app < c2 refused: task b: needs cpus=4, has 3"
    );
}

#[test]
fn who_ends_alone_may_come_again_while_the_group_runs() {
    let mut cluster = Cluster::new();
    let agent = cluster.agent("cpus=4;mem=8GiB");
    let app = cluster.framework("app");
    cluster.accept_with(app, vec![Operation::Launch(vec![member("a"), helper("b")])]);
    cluster.report(agent, "a", TaskState::Running);
    cluster.report(agent, "b", TaskState::Failed);
    cluster.forget();
    cluster.accept_with(app, vec![Operation::Launch(vec![member("c")])]);
    cluster.accept_with(app, vec![Operation::Launch(vec![helper("d")])]);
    let story = cluster.story();
    assert!(story[0].contains("expected true for a task that joins a group which runs"), "{story:?}");
    assert!(story.contains(&"agent 0 < launch f1-0/d".to_owned()), "{story:?}");
}

#[test]
fn a_volume_is_shared_within_a_group_only() {
    let launched = |tasks: Vec<TaskInfo>| {
        let mut cluster = Cluster::new();
        cluster.agent("cpus=4;mem=8GiB;disk=10GiB");
        let app = cluster.framework_in("app", &["eng"]);
        cluster.forget();
        let with_volume = |task: TaskInfo| TaskInfo { volumes: task_with("x", SMALL, "v").volumes, ..task };
        let launch = Operation::Launch(tasks.into_iter().map(with_volume).collect());
        let make = [reserve("", "disk=4GiB", &[]), create("", "v", "3GiB", &["eng"])];
        cluster.accept_with(app, make.into_iter().chain([launch]).collect());
        cluster.kernel.tasks().len()
    };
    assert_eq!(launched(vec![member("a"), helper("b")]), 2);
    assert_eq!(launched(vec![task("a", SMALL), task("b", SMALL)]), 0);
    let of_other = changed(task("c", SMALL), |group| (group.id, group.size) = ("h".parse().unwrap(), 1));
    assert_eq!(launched(vec![member("a"), helper("b"), of_other]), 0);
}
