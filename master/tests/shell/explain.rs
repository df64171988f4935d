//! Why something waits, what is wanted and what was decided, as the JSON API answers it.

use divvy_proto::api::{Decision, DecisionKind, DemandView, Explanation};
use divvy_proto::demand::{Demand, DemandShape, Preference};
use divvy_proto::scheduler::{CallBody, Outcome};

use crate::harness::{Cluster, Framework, agent_info, framework_info, running_task};

/// A framework that wants more than there is.
async fn greedy(cluster: &Cluster, name: &str) -> Framework {
    let mut framework = Framework::subscribe(cluster, framework_info(name)).await;
    let shape = DemandShape {
        name: "front".to_owned(),
        resources: "cpus=64;mem=1GiB".parse().unwrap(),
        ports: 0,
        count: 3,
        constraint: None,
        preference: Preference::None,
    };
    let demand = Demand { shapes: vec![shape], gang: None };
    let call = framework.call(CallBody::Demand { role: "*".parse().unwrap(), demand }).await;
    assert_eq!(framework.outcome(&call).await, Outcome::Accepted);
    framework
}

async fn summary(cluster: &Cluster, query: &str) -> String {
    cluster.get::<Explanation>(&format!("/api/v1/explain?{query}")).await.summary
}

#[tokio::test]
async fn whoever_waits_is_explained_by_name_id_shape_role_and_task() {
    let cluster = Cluster::start().await;
    let (_agent, owner) = running_task(&cluster, agent_info("agent-1"), "first-task").await;
    let framework = greedy(&cluster, "greedy").await;
    let expected = "greedy in * wants 3 more of front <64 cpus, 1GiB mem>";
    for query in [
        "framework=greedy".to_owned(),
        format!("framework={}", framework.id),
        "framework=greedy&demand=front".to_owned(),
        "framework=greedy&demand=front&role=*".to_owned(),
        "role=*".to_owned(),
    ] {
        let summary = summary(&cluster, &query).await;
        assert!(summary.starts_with(expected), "{query}: {summary}");
    }
    let about_task = summary(&cluster, "task=first").await;
    assert!(about_task.starts_with("first-task is RUNNING on agent-1"), "{about_task}");
    let unknown = summary(&cluster, &format!("framework={}&task=later", owner.id)).await;
    assert!(unknown.contains("has launched no task later"), "{unknown}");

    let demands: Vec<DemandView> = cluster.get("/api/v1/demands?role=*&framework=greedy").await;
    assert_eq!((demands.len(), demands[0].demand.shapes[0].count), (1, 3));
    assert_eq!(cluster.get::<Vec<DemandView>>("/api/v1/demands?role=eng").await, []);
}

#[tokio::test]
async fn a_question_that_has_no_answer_says_what_to_ask_instead() {
    let cluster = Cluster::start().await;
    let _first = greedy(&cluster, "twin").await;
    let _second = greedy(&cluster, "twin").await;
    let cases = [
        ("", 400, "ask with one of `role`, `framework`"),
        ("role=*&framework=twin", 409, "twin fits 2 frameworks"),
        ("framework=nobody", 404, "framework nobody is not known here"),
        ("role=eng", 404, "role eng is not known here"),
        ("task=t9", 404, "task t9 is not known here"),
        ("role=a//b", 400, "role"),
        ("pod=p1", 400, "pod"),
    ];
    for (query, status, says) in cases {
        let refused =
            cluster.refusal(cluster.http.get(cluster.url(&format!("/api/v1/explain?{query}")))).await;
        assert!(refused.0 == status && refused.1.contains(says), "{query}: {refused:?}");
    }
}

#[tokio::test]
async fn what_was_decided_is_listed() {
    let cluster = Cluster::start().await;
    let (agent, framework) = running_task(&cluster, agent_info("agent-1"), "t1").await;
    let offered: Vec<Decision> = cluster.get(&format!("/api/v1/decisions?framework={}", framework.id)).await;
    let first = offered.first().unwrap();
    assert_eq!((first.what, first.agent_id.as_ref()), (DecisionKind::Offered, Some(&agent.id)));
    assert!(first.why.starts_with("first in fair order"), "{}", first.why);

    let later: Vec<Decision> = cluster.get(&format!("/api/v1/decisions?since={}", first.index)).await;
    assert_eq!(later, offered[1..]);
    assert_eq!(cluster.get::<Vec<Decision>>("/api/v1/decisions?role=eng").await, []);
    assert_eq!(cluster.get::<Vec<Decision>>("/api/v1/decisions?offers=false").await, []);
}
