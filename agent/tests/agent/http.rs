//! The agent's own HTTP API.

use divvy_proto::api::Usage;
use divvy_proto::task::TaskState;

use crate::Tests;
use crate::harness::{World, shell};

pub(crate) fn tests() -> Tests {
    vec![
        ("logs_can_be_followed_to_their_end", logs_can_be_followed_to_their_end),
        ("logs_are_there_after_the_end", logs_are_there_after_the_end),
        ("no_path_leads_out_of_a_sandbox", no_path_leads_out_of_a_sandbox),
        ("use_and_metrics_are_live", use_and_metrics_are_live),
    ]
}

fn logs_can_be_followed_to_their_end(world: &mut World) {
    world.launch(shell("t", "for i in 1 2 3 4 5; do echo line $i; sleep 0.1; done; echo bad >&2"));
    world.until("t", TaskState::Starting);
    let all = "line 1\nline 2\nline 3\nline 4\nline 5\n".to_owned();
    assert_eq!(world.get("/api/v1/tasks/f/t/logs?follow=true"), (200, all));
    assert_eq!(world.get("/api/v1/tasks/f/t/logs?follow=true&stream=stderr"), (200, "bad\n".to_owned()));
}

fn logs_are_there_after_the_end(world: &mut World) {
    world.ended(shell("t", "seq 1 100"));
    assert_eq!(world.get("/api/v1/tasks/f/t/logs?tail=2"), (200, "99\n100\n".to_owned()));
    assert_eq!(world.get("/api/v1/tasks/f/t/logs?offset=288"), (200, "100\n".to_owned()));
    assert_eq!(world.get("/api/v1/tasks/f/t/logs?stream=stdin").0, 400);
    assert_eq!(world.get("/api/v1/tasks/f/t/logs?tail=2&offset=3").0, 400);
    assert_eq!(world.get("/api/v1/tasks/f/other/logs").0, 404);
    assert_eq!(world.get("/api/v1/tasks/f/..%2Ft/logs").0, 400);
}

fn no_path_leads_out_of_a_sandbox(world: &mut World) {
    let line = "mkdir -p sub; echo hi >sub/file; ln -s file sub/near; ln -s /etc/shadow sub/far; ln -s ../../../.. sub/up; \
                rm stderr; ln -s /etc/shadow stderr; mkfifo sub/pipe";
    assert_eq!(world.ended(shell("t", line)).state, TaskState::Finished);
    let files = |path: &str| world.get(&format!("/api/v1/tasks/f/t/files{path}"));
    let (status, listing) = files("?path=sub");
    let listing: Vec<serde_json::Value> = serde_json::from_str(&listing).unwrap();
    let listing: Vec<_> =
        listing.iter().map(|entry| (entry["name"].as_str(), entry["kind"].as_str())).collect();
    let expected = [("far", "link"), ("file", "file"), ("near", "link"), ("pipe", "other"), ("up", "link")];
    assert_eq!((status, listing), (200, expected.map(|(name, kind)| (Some(name), Some(kind))).to_vec()));
    assert_eq!(files("/content?path=sub/file"), (200, "hi\n".to_owned()));
    assert_eq!(files("/content?path=/sub/near"), (200, "hi\n".to_owned()));
    for bad in ["sub/far", "sub/up/lock", "../../../lock", "sub/pipe", "sub"] {
        assert_eq!(files(&format!("/content?path={bad}")).0, 400, "{bad}");
    }
    assert_eq!(files("?path=sub/up").0, 400);
    assert_eq!(files("/content?path=nothing").0, 404);
    assert_eq!(world.get("/api/v1/tasks/f/t/logs?stream=stderr").0, 400, "a log is not a link");
}

fn use_and_metrics_are_live(world: &mut World) {
    world.run(shell("t", "while :; do sleep 0.05; done"));
    let (status, usage) = world.get("/api/v1/tasks/f/t/usage");
    let usage: Usage = serde_json::from_str(&usage).unwrap();
    assert!(status == 200 && usage.pids >= 1 && usage.memory > 0, "{usage:?}");
    let (_, metrics) = world.get("/metrics");
    assert!(
        metrics.contains("\ndivvy_agent_containers 1\n") && metrics.contains("\ndivvy_agent_registered 1\n")
    );
    assert_eq!(world.get("/health"), (200, "ok\n".to_owned()));
    world.kill("t");
    world.end_of("t");
    assert_eq!(world.get("/api/v1/tasks/f/t/usage").0, 409, "it has ended");
}
