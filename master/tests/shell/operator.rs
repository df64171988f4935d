//! The operator service over gRPC: the answers of the JSON API, with types and codes.

use divvy_proto::api;
use divvy_proto::pb::operator_client::OperatorClient;
use divvy_proto::pb::{self, WatchKind};
use tonic::Code;

use crate::harness::{Cluster, agent_info, running_task, within};

#[tokio::test]
async fn it_lists_what_the_json_api_lists() {
    let cluster = Cluster::start().await;
    let (_agent, framework) = running_task(&cluster, agent_info("agent-1"), "t1").await;
    let mut operator = OperatorClient::new(cluster.channel().await);
    let request = pb::ListTasksRequest { framework_id: Some(framework.id.to_string()), agent_id: None };
    let listed = within("tasks", operator.list_tasks(request)).await.unwrap().into_inner().tasks;
    let listed: Vec<_> = listed.into_iter().map(|task| api::Task::try_from(task).unwrap()).collect();
    assert_eq!(listed, cluster.get::<Vec<api::Task>>("/api/v1/tasks").await);

    let listed = within("agents", operator.list_agents(pb::ListAgentsRequest {})).await.unwrap();
    let listed = listed.into_inner().agents.into_iter().map(|agent| api::Agent::try_from(agent).unwrap());
    assert_eq!(listed.collect::<Vec<_>>(), cluster.get::<Vec<api::Agent>>("/api/v1/agents").await);

    let status = within("status", operator.get_status(pb::GetStatusRequest {})).await.unwrap();
    let status = api::Status::try_from(status.into_inner().status.unwrap()).unwrap();
    assert_eq!(status.leader, cluster.master.address());
}

#[tokio::test]
async fn it_refuses_with_a_code_and_a_reason() {
    let cluster = Cluster::start().await;
    let mut operator = OperatorClient::new(cluster.channel().await);
    let kill = |framework: &str, grace_ms| pb::KillTaskRequest {
        framework_id: framework.to_owned(),
        task_id: "t1".to_owned(),
        grace_ms,
    };
    let cases = [
        (kill("f9-9", None), Code::NotFound, "task f9-9/t1 is not known here"),
        (kill("a/b", None), Code::InvalidArgument, "framework_id: \"a/b\" is not valid"),
        (kill("f9-9", Some(1)), Code::Unimplemented, "grace_ms is not supported yet"),
    ];
    for (request, code, reason) in cases {
        let refused = within("an answer", operator.kill_task(request)).await.unwrap_err();
        assert!(refused.code() == code && refused.message().starts_with(reason), "{refused:?}");
    }
    let request = pb::WatchRequest { kinds: vec![WatchKind::Unspecified.into()], since: None };
    let refused = within("an answer", operator.watch(request)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}
