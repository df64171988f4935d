//! What whoever runs the cluster types: quotas and weights, reservations and volumes, drains and maintenance, and why
//! something waits. The tables are compared as they are printed: scripts and manuals quote them.

use serde_json::{Value, json};

use crate::harness::{Cluster, app_file};

/// A command that must succeed: what it prints, without the spaces at the ends of lines.
fn prints(cluster: &Cluster, arguments: &[&str], expected: &[&str]) {
    let printed = cluster.divvy(arguments).ok();
    let lines: Vec<String> =
        printed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(lines, expected, "divvy {arguments:?}");
}

/// A command that must fail with this code and say this.
fn fails(cluster: &Cluster, arguments: &[&str], code: i32, words: &str) {
    let ran = cluster.divvy(arguments);
    assert!(
        ran.code == code && ran.stderr.contains(words),
        "divvy {arguments:?}: expected {code} {words:?}, {ran}"
    );
}

#[test]
fn whoever_runs_the_cluster_divides_it_empties_agents_and_asks_why() {
    let cluster = Cluster::start("operating", 2);
    divides_it(&cluster);
    sets_resources_aside(&cluster);
    empties_an_agent(&cluster);
    plans_maintenance(&cluster);
    asks_why(&cluster);
}

fn divides_it(cluster: &Cluster) {
    cluster.divvy(&["quota", "set", "eng", "--guarantee", "cpus=2;mem=1GiB", "--limit", "cpus=4"]).ok();
    cluster
        .divvy(&["quota", "set", "eng/ads", "--guarantee", "cpus=1", "--shape", "cpus=0.5", "--no-preempt"])
        .ok();
    let done: Value = cluster.json(&["weights", "set", "eng", "2.5"]);
    assert_eq!(done, json!({ "done": true, "role": "eng", "weight": 2.5 }));
    let quotas = [
        "ROLE GUARANTEE LIMIT CONSUMED SHAPE PREEMPTIBLE",
        "eng cpus=2;mem=1GiB cpus=4 - - yes",
        "eng/ads cpus=1 - - cpus=0.5 no",
    ];
    prints(cluster, &["quota"], &quotas);
    prints(cluster, &["quota", "get", "eng/ads"], &[quotas[0], quotas[2]]);
    prints(cluster, &["weights", "get"], &["ROLE WEIGHT", "eng 2.5"]);
    let refused = "the roles below eng would be promised cpus=3 (eng/ads 1, eng/web 2), more than eng's own guarantee of 2";
    fails(cluster, &["quota", "set", "eng/web", "--guarantee", "cpus=2"], 1, refused);
    let refused = "cpus=22 (eng 2, ops 20) would be promised in all, more than the cluster's cpus=8";
    fails(cluster, &["quota", "set", "ops", "--guarantee", "cpus=20"], 1, refused);
    cluster.divvy(&["quota", "set", "ops", "--guarantee", "cpus=20", "--force"]).ok();
    fails(
        cluster,
        &["quota", "set", "a", "--guarantee", "cpus=2", "--limit", "cpus=1"],
        2,
        "at most the limit, 1",
    );
    fails(cluster, &["quota", "rm", "nobody"], 1, "a quota of nobody is not known here");
    fails(cluster, &["weights", "set", "a", "0"], 2, "a number from 0.001 to 1000000");
    for role in ["eng/ads", "eng", "ops"] {
        cluster.divvy(&["quota", "rm", role]).ok();
    }
    cluster.divvy(&["weights", "rm", "eng"]).ok();
    prints(cluster, &["quota"], &["none"]);
    prints(cluster, &["weights"], &["none"]);
}

fn sets_resources_aside(cluster: &Cluster) {
    let marks = ["--label", "team=storage", "--principal", "ops"];
    cluster.divvy(&[&["reserve", "agent-1", "db", "cpus=1;disk=3GiB"][..], &marks].concat()).ok();
    cluster.divvy(&["volumes", "create", "agent-1", "db", "data", "1GiB", "--label", "team=storage"]).ok();
    cluster.divvy(&["volumes", "grow", "agent-1", "data", "1GiB"]).ok();
    let reserved: Value = cluster.json(&["reservations"]);
    let resources = &reserved[0]["reserved"]["resources"];
    let found = (&reserved[0]["hostname"], &reserved[0]["role"], (&resources["cpus"], &resources["disk"]));
    let resources = (&Value::from(1), &Value::from(1_u64 << 30));
    assert_eq!(found, (&Value::from("agent-1"), &Value::from("db"), resources), "{reserved:#}");
    let volumes: Value = cluster.json(&["volumes"]);
    assert_eq!((&volumes[0]["id"], &volumes[0]["size"]), (&Value::from("data"), &Value::from(2_u64 << 30)));

    fails(cluster, &["reserve", "agent-1", "db", "cpus=100"], 1, "cpus");
    fails(cluster, &["reserve", "agent-9", "db", "cpus=1"], 2, "no agent has the id or the hostname agent-9");
    fails(cluster, &["reserve", "agent-1", "*", "cpus=1"], 2, "a role other than `*`");
    fails(cluster, &["unreserve", "agent-1", "*", "cpus=1"], 2, "a role other than `*`");
    fails(cluster, &["unreserve", "agent-1", "db", "cpus=9223372036854775"], 2, "a smaller number");
    fails(cluster, &["volumes", "grow", "agent-1", "data", "0"], 2, "more than nothing");
    fails(cluster, &["volumes", "shrink", "agent-1", "data", "2GiB"], 2, "less than the volume's 2GiB");
    cluster.divvy(&["volumes", "rm", "agent-1", "data"]).ok();
    cluster.divvy(&["unreserve", "agent-1", "db", "cpus=1;disk=3GiB", "--label", "team=storage"]).ok();
    prints(cluster, &["reservations"], &["none"]);
    prints(cluster, &["volumes", "ls"], &["none"]);
}

fn empties_an_agent(cluster: &Cluster) {
    let app = cluster.file("web.toml", &app_file("web", 4, "exec sleep 100000", ""));
    cluster.divvy(&["service", "apply", &app, "--wait"]).ok();
    let drained = cluster.divvy(&["drain", "agent-2", "--deadline", "3s", "--wait"]);
    assert!(drained.code == 0 && drained.stderr.contains("is drained"), "{drained}");
    let agents = || -> Value { cluster.json(&["agents"]) };
    let seen = agents();
    assert_eq!(
        (&seen[1]["tasks"], &seen[1]["drain"]["drained"]),
        (&Value::from(0), &Value::from(true)),
        "{seen:#}"
    );
    assert!(
        cluster
            .divvy(&["agents"])
            .ok()
            .lines()
            .any(|line| line.contains("agent-2") && line.contains("drained"))
    );
    cluster.wait_until("the app runs on the other agent", || {
        cluster.app("web").is_some_and(|web| web.running == 4)
    });
    let decisions: Value = cluster.json(&["decisions"]);
    let kinds: Vec<&str> =
        decisions.as_array().expect("a list").iter().filter_map(|d| d["what"].as_str()).collect();
    assert!(kinds.contains(&"draining") && kinds.contains(&"drained"), "{kinds:?}");

    let done: Value = cluster.json(&["reactivate", "agent-2"]);
    assert_eq!((&done["done"], &done["hostname"]), (&json!(true), &json!("agent-2")), "{done:#}");
    cluster.divvy(&["deactivate", "agent-1"]).ok();
    let seen = agents();
    let standing = |nth: usize| (seen[nth]["deactivated"].as_bool(), seen[nth]["drain"].is_null());
    assert_eq!([standing(0), standing(1)], [(Some(true), true), (Some(false), true)]);
    cluster.divvy(&["reactivate", "agent-1"]).ok();
    fails(cluster, &["drain", "agent-9"], 2, "see `divvy agents`");
}

fn plans_maintenance(cluster: &Cluster) {
    let id = cluster.identities().remove("agent-1").expect("the agent");
    let schedule = "[[windows]]\nagents = [\"agent-1\"]\n\
                    window = { start = \"2999-01-01T02:00:00Z\", duration = \"2h\", reason = \"new disks\" }\n";
    cluster.divvy(&["maintenance", "set", &cluster.file("schedule.toml", schedule)]).ok();
    let line = format!("{id} 2999-01-01T02:00:00.000Z 2h new disks");
    prints(cluster, &["maintenance"], &["AGENTS START DURATION REASON", &line]);
    let again = cluster.divvy(&["maintenance", "get", "-o", "json"]).ok();
    cluster.divvy(&["maintenance", "set", &cluster.file("schedule.json", &again)]).ok();
    cluster.divvy(&["maintenance", "rm"]).ok();
    prints(cluster, &["maintenance", "get"], &["none"]);
    let wrong = cluster.file("wrong.json", "[{\"agents\": []}]");
    fails(cluster, &["maintenance", "set", &wrong], 2, "missing field `window`");
}

fn asks_why(cluster: &Cluster) {
    let large =
        cluster.file("large.toml", &app_file("large", 1, "true", "").replace("cpus = 0.1", "cpus = 64"));
    cluster.divvy(&["service", "apply", &large]).ok();
    let why: Value = cluster.json(&["explain", "framework", "service"]);
    assert!(why["summary"].as_str().is_some_and(|text| !text.is_empty()), "{why:#}");
    assert_eq!(why["funnels"][0]["agents"], 2, "{why:#}");
    let shown = cluster.divvy(&["explain", "role", "*"]).ok();
    assert!(shown.contains("2  ████████████████████████  agents"), "{shown}");
    fails(cluster, &["explain", "framework", "nobody"], 1, "framework nobody is not known here");
    let task: Value = cluster.json(&["explain", "task", "web.1.0"]);
    assert!(task["summary"].as_str().is_some_and(|text| text.contains("web.1.0")), "{task:#}");
}
