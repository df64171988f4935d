//! A machine is lost and found again.

use std::collections::BTreeSet;

use divvy_proto::api::{Agent, AgentState};
use divvy_proto::task::TaskState;
use divvy_service::api_types::{AppState, AppStatus};

use crate::harness::{Cluster, Part, app_file};

fn state_of(cluster: &Cluster, hostname: &str) -> Option<AgentState> {
    let agents: Vec<Agent> = cluster.try_get("/api/v1/agents")?;
    agents.into_iter().find(|agent| agent.hostname.as_str() == hostname).map(|agent| agent.state)
}

fn hosts(app: &AppStatus) -> Vec<String> {
    let running = app.tasks.iter().filter(|task| task.state == TaskState::Running);
    running.map(|task| task.hostname.to_string()).collect()
}

#[test]
fn instances_of_a_lost_machine_are_replaced_and_it_may_return() {
    let mut cluster = Cluster::start("agent-lost", 2);
    let spread = "constraints = [{ attribute = \"hostname\", spread = true }]";
    let file = cluster.file("spread.toml", &app_file("spread", 4, "exec sleep 100000", spread));
    cluster.divvy(&["service", "apply", &file, "--wait"]).ok();
    let app = cluster.app("spread").expect("the app");
    assert_eq!(hosts(&app).into_iter().collect::<BTreeSet<_>>().len(), 2);

    cluster.power_off(2);
    cluster.wait_until("the machine is said to be unreachable", || {
        state_of(&cluster, "agent-2") == Some(AgentState::Unreachable)
    });
    cluster.wait_until("its instances run elsewhere", || {
        cluster.app("spread").is_some_and(|app| app.healthy == 4 && hosts(&app) == ["agent-1"; 4])
    });
    let elsewhere = cluster.running();
    let table = cluster.divvy(&["agents"]).ok();
    assert!(table.lines().any(|line| line.contains("agent-2") && line.contains("unreachable")), "{table}");

    cluster.restart(Part::Agent(2));
    cluster.wait_until("the machine is back", || state_of(&cluster, "agent-2") == Some(AgentState::Active));
    cluster.wait_until("what was lost has ended, and four run", || {
        let live = cluster.tasks().into_iter().filter(|task| !task.state.is_terminal()).count();
        live == 4
            && cluster.app("spread").is_some_and(|app| app.state == AppState::Running && app.tasks.len() == 4)
    });
    assert_eq!(cluster.running(), elsewhere, "no instance is stopped without need");
}
