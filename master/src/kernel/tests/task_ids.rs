//! A task id is never free again for its framework, whoever remembers it: the agent while the task lives, the registry from
//! before the agent may forget it.

use divvy_proto::ids::TaskId;
use divvy_proto::task::TaskState;

use crate::kernel::testing::*;
use crate::kernel::*;
use crate::story;

/// A task that has ended and waits to be acknowledged.
fn ended(id: &str) -> (Cluster, AgentHandle, FrameworkHandle, divvy_proto::UpdateId) {
    let mut cluster = Cluster::new();
    let agent = cluster.agent("cpus=4;mem=8GiB");
    let app = cluster.framework("app");
    cluster.launch(app, &[(id, "cpus=1;mem=1GiB")]);
    let update = cluster.report(agent, id, TaskState::Finished);
    cluster.forget();
    (cluster, agent, app, update)
}

#[test]
fn an_agent_may_forget_a_task_once_its_id_is_durable() {
    let (mut cluster, agent, app, update) = ended("t1");
    cluster.store_is_slow = true;
    cluster.acknowledge(app, agent, "t1", &update);
    story!(cluster, "persist f1-0 used t[1]");
    // The agent repeats the update meanwhile, and its framework the acknowledgement.
    let status = cluster.frameworks[0].updates.last().cloned().unwrap();
    let framework_id = cluster.framework_id(app);
    cluster.agent_says(agent, divvy_proto::agent::AgentMessage::Update { framework_id, status });
    cluster.acknowledge(app, agent, "t1", &update);
    story!(cluster, "app < t1 is FINISHED: command_exited (u1)", "persist f1-0 used t[1]");
    cluster.settle_store();
    story!(cluster, "agent 0 < acknowledge u1 of t1", "agent 0 < acknowledge u1 of t1");
    assert_eq!(cluster.agents_tasks(agent), []);
    // From here on there is nothing to write.
    cluster.acknowledge(app, agent, "t1", &update);
    story!(cluster, "agent 0 < acknowledge u1 of t1");
}

#[test]
fn a_master_that_ends_before_the_id_is_durable_finds_the_task_with_its_agent() {
    let (mut cluster, agent, app, update) = ended("t1");
    cluster.store_is_slow = true;
    cluster.acknowledge(app, agent, "t1", &update);
    cluster.store_is_slow = false;
    cluster.fail_over_and_return();
    cluster.forget();
    cluster.launch(app, &[("t1", "cpus=1;mem=1GiB")]);
    cluster.acknowledge(app, agent, "t1", &update);
    story!(
        cluster,
        "app < c5 refused: task id t1 has been used before",
        "app < offers o2-2 of a1-0: cpus=4;mem=8GiB",
        "persist f1-0 used t[1]",
        "agent 0 < acknowledge u1 of t1",
    );
}

#[test]
fn the_next_master_knows_the_ids_that_nobody_else_does() {
    let (mut cluster, agent, app, update) = ended("t1");
    cluster.acknowledge(app, agent, "t1", &update);
    cluster.launch(app, &[("some-uuid-0f", "cpus=1;mem=1GiB"), ("t7", "cpus=1;mem=1GiB")]);
    let update = cluster.report(agent, "some-uuid-0f", TaskState::Failed);
    cluster.acknowledge(app, agent, "some-uuid-0f", &update);
    for _ in 0..2 {
        cluster.fail_over_and_return();
        cluster.forget();
        for id in ["t1", "some-uuid-0f", "t7"] {
            cluster.launch(app, &[(id, "cpus=1;mem=1GiB")]);
        }
        let refused =
            cluster.story().into_iter().filter_map(|line| Some(line.split_once("refused: ")?.1.to_owned()));
        let expected = ["t1", "some-uuid-0f", "t7"].map(|id| format!("task id {id} has been used before"));
        assert_eq!(refused.collect::<Vec<_>>(), expected);
    }
    cluster.launch(app, &[("t2", "cpus=1;mem=1GiB")]);
    assert_eq!(cluster.kernel.tasks().len(), 2);
}

#[test]
fn ids_of_one_turn_are_one_write() {
    let mut cluster = Cluster::new();
    let agent = cluster.agent("cpus=8;mem=8GiB");
    let app = cluster.framework("app");
    let ids: Vec<String> = (3..8).map(|n| format!("t{n}")).collect();
    let tasks: Vec<_> = ids.iter().map(|id| (id.as_str(), "cpus=1;mem=1GiB")).collect();
    cluster.launch(app, &tasks);
    cluster.decline(app, secs(1_000_000));
    cluster.forget();
    // An agent that comes back without any of its tasks.
    cluster.lose_tasks(agent);
    cluster.disconnect(agent);
    cluster.connect(agent);
    let persisted = cluster.story().into_iter().filter(|line| line.starts_with("persist"));
    assert_eq!(persisted.collect::<Vec<_>>(), ["persist f1-0 used t[3-7]"]);
}

#[test]
fn a_task_that_was_given_up_is_killed_when_it_returns_to_the_next_master() {
    let (mut cluster, agent, app, _) = ended("t1");
    cluster.launch(app, &[("t2", "cpus=1;mem=1GiB")]);
    cluster.report(agent, "t2", TaskState::Running);
    let kept = cluster.agents[0].tasks.clone();
    cluster.lose_tasks(agent);
    cluster.connect(agent);
    cluster.agents[0].tasks = kept;
    cluster.fail_over();
    cluster.forget();
    cluster.connect(agent);
    story!(cluster, "persist f1-0 disconnected", "agent 0 < registered as a1-0", "agent 0 < kill f1-0/t2",);
}

#[test]
fn a_framework_that_is_torn_down_needs_no_ids() {
    let (mut cluster, _, app, _) = ended("t1");
    cluster.call(app, divvy_proto::scheduler::CallBody::Teardown);
    story!(
        cluster,
        "persist f1-0 retired",
        "app < c3 accepted",
        "app closed: the framework was torn down",
        "agent 0 < shut down f1-0",
    );
}

#[test]
fn those_that_ended_longest_ago_are_forgotten_once_no_agent_may_run_their_tasks() {
    let mut cluster = Cluster::with(Config { retired_kept: 1, ..Config::default() });
    let agent = cluster.agent("cpus=4;mem=8GiB");
    let apps = ["a", "b", "c"].map(|name| cluster.framework(name));
    cluster.disconnect(agent);
    for app in apps {
        cluster.advance(secs(1));
        cluster.call(app, divvy_proto::scheduler::CallBody::Teardown);
    }
    assert_eq!(cluster.kernel.frameworks().len(), 3);
    cluster.connect(agent);
    let last = cluster.framework("last");
    cluster.forget();
    cluster.call(last, divvy_proto::scheduler::CallBody::Teardown);
    story!(
        cluster,
        "persist f1-3 retired",
        "last < c8 accepted",
        "last closed: the framework was torn down",
        "persist f1-0 forgotten, f1-1 forgotten, f1-2 forgotten",
    );
    let agents = [cluster.agent("cpus=1"), cluster.agent("cpus=1")];
    for agent in agents {
        let id = cluster.agent_id(agent);
        cluster.advance(secs(1));
        cluster.operator(OperatorRequest::MarkGone(id));
    }
    assert_eq!(cluster.kernel.agents().len(), 2);
    assert_eq!(cluster.check_registry(), Ok(()));
    cluster.fail_over();
    assert_eq!((cluster.kernel.agents().len(), cluster.kernel.frameworks().len()), (2, 1));
}

#[test]
fn no_record_grows_without_end_however_ids_are_made() {
    let mut used = task_ids::UsedIds::default();
    let id = |text: String| text.parse::<TaskId>().unwrap();
    let long = "x".repeat(200);
    let ids =
        (0..3000).flat_map(|n| [format!("t{}", 2 * n), format!("{n}-{n}"), format!("{long}{n}")]).map(id);
    let ids: Vec<TaskId> = ids.collect();
    let buckets: std::collections::BTreeSet<_> = ids.iter().map(|id| used.insert(id)).collect();
    assert!(ids.iter().all(|id| used.contains(id)));
    assert!(!used.contains(&id("t1".to_owned())));
    let texts = buckets.iter().filter(|bucket| matches!(bucket, TaskIdBucket::Numbered(_)));
    assert_eq!(texts.count(), 256);
    let most = buckets.iter().map(|bucket| match used.part(bucket) {
        UsedTaskIds::Numbers(ranges) => ranges.len(),
        UsedTaskIds::Hashes(hashes) => hashes.len(),
    });
    assert_eq!(most.max(), Some(1024));
    // What fills a gap needs no room.
    assert_eq!(used.insert(&id("t1".to_owned())), TaskIdBucket::Numbered("t".to_owned()));
}

proptest::proptest! {
    /// Against a plain set of texts: what was inserted is used, what was not is not, and the registry's records make the same
    /// set again.
    #[test]
    fn used_ids_are_a_set(ids in proptest::collection::vec("[a-c]{0,2}0{0,2}[0-9]{0,3}x?", 1..200)) {
        let ids: Vec<TaskId> = ids.iter().filter_map(|id| id.parse().ok()).collect();
        let (half, rest) = ids.split_at(ids.len() / 2);
        let mut used = task_ids::UsedIds::default();
        let mut records = std::collections::BTreeMap::new();
        for id in half {
            let bucket = used.insert(id);
            let part = used.part(&bucket);
            records.insert(bucket, part);
        }
        let mut recovered = task_ids::UsedIds::default();
        records.into_iter().for_each(|(bucket, ids)| recovered.recover(bucket, ids));
        proptest::prop_assert_eq!(&recovered, &used);
        for id in ids.iter().chain(rest) {
            proptest::prop_assert_eq!(used.contains(id), half.contains(id), "{}", id);
        }
    }
}
