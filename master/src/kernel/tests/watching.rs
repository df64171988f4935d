//! What those who watch are told.

use divvy_proto::api::Change;
use divvy_proto::task::TaskState;

use crate::kernel::testing::*;
use crate::kernel::*;

fn names(cluster: &mut Cluster) -> Vec<String> {
    let show = |change: Change| match change {
        Change::Snapshot(_) => "snapshot".to_owned(),
        Change::Agent(agent) => format!("{} {:?}", agent.id, agent.state),
        Change::Framework(framework) => format!("{} holds {}", framework.id, framework.resources),
        Change::Task(task) => format!("{} {}", task.id, task.state),
        Change::TaskRemoved { id, .. } => format!("{id} removed"),
        Change::Status(_) => "status".to_owned(),
        Change::Role(role) => format!("role {}", role.path),
        Change::Decision(decision) => format!("decided {:?}", decision.what),
    };
    cluster.changes.drain(..).map(show).collect()
}

#[test]
fn each_object_that_changed_is_told_once_a_turn_with_the_totals_at_the_end() {
    let mut cluster = Cluster::new();
    let agent = cluster.agent("cpus=4;mem=8GiB");
    let app = cluster.framework("app");
    cluster.forget();
    cluster.launch(app, &[("t1", "cpus=1;mem=1GiB"), ("t2", "cpus=1;mem=1GiB")]);
    assert_eq!(
        names(&mut cluster),
        ["a1-0 Active", "f1-0 holds cpus=4;mem=8GiB", "t1 STAGING", "t2 STAGING", "status"]
    );
    cluster.report(agent, "t1", TaskState::Running);
    assert_eq!(names(&mut cluster), ["f1-0 holds cpus=4;mem=8GiB", "t1 RUNNING", "status"]);
    cluster.feed(Input::Tick);
    assert_eq!(names(&mut cluster), Vec::<String>::new());
}

#[test]
fn only_so_many_ended_tasks_are_listed() {
    let mut cluster = Cluster::with(Config { ended_tasks_kept: 1, ..Config::default() });
    let agent = cluster.agent("cpus=4;mem=8GiB");
    let app = cluster.framework("app");
    cluster.launch(app, &[("t1", "cpus=1;mem=1GiB"), ("t2", "cpus=1;mem=1GiB")]);
    for task in ["t1", "t2"] {
        let update = cluster.report(agent, task, TaskState::Finished);
        cluster.forget();
        cluster.acknowledge(app, agent, task, &update);
    }
    assert_eq!(
        names(&mut cluster),
        ["a1-0 Active", "f1-0 holds cpus=4;mem=8GiB", "t1 removed", "t2 FINISHED", "status"]
    );
    let listed: Vec<_> = cluster.kernel.tasks().into_iter().map(|task| task.id.to_string()).collect();
    assert_eq!(listed, ["t2"]);
}

#[test]
fn the_totals_add_up() {
    let mut cluster = Cluster::new();
    let agent = cluster.agent("cpus=4;mem=8GiB;ports=[1-9]");
    cluster.agent("cpus=2;mem=4GiB;ports=[1-9]");
    let app = cluster.framework("app");
    let offer = cluster.held(app)[0];
    cluster.accept(app, vec![offer], &[("t1", "cpus=1;mem=1GiB;ports=[7]")], NO_FILTER);
    cluster.advance(secs(5));
    let status = cluster.kernel.status(cluster.now);
    assert_eq!(status.resources.total, "cpus=6;mem=12GiB".parse().unwrap());
    assert_eq!(status.resources.used, "cpus=1;mem=1GiB".parse().unwrap());
    assert_eq!(status.resources.offered, "cpus=5;mem=11GiB".parse().unwrap());
    assert_eq!((status.uptime, status.tasks), (5, [(TaskState::Staging, 1)].into()));
    let (framework, task) = (cluster.framework_id(app), "t1".parse().unwrap());
    let location = cluster.kernel.task_location(&framework, &task);
    assert_eq!(location, Some((cluster.agent_id(agent), "http://host-0:5051".to_owned())));
}
