//! The planner's promises as short stories.

mod demand;
mod histories;
mod world;

use std::collections::BTreeSet;

use super::*;
use demand::shape;
use divvy_proto::role::RolePath;
use world::{Fate, World, id, job};

fn ids<const N: usize>(ids: [&str; N]) -> BTreeSet<String> {
    ids.map(str::to_owned).into()
}

#[test]
fn a_job_of_three_runs_three_indexes_and_succeeds() {
    let mut world = World::new(&["cpus=4;mem=1GiB"]);
    assert_eq!(world.submit("id = 'a'\ncount = 3"), Ok(1));
    assert_eq!(world.live(), ids(["a-1.0.1", "a-1.1.1", "a-1.2.1"]));
    assert_eq!(world.summary("a"), "running p0 r3 s0 f0 c0");
    assert!(!world.wants_offers(), "nothing is left to launch");
    for index in 0..3 {
        world.end("a", index, Fate::Succeeds);
    }
    assert_eq!(world.summary("a"), "succeeded p0 r0 s3 f0 c0");
    assert_eq!((world.tasks.len(), world.wake_at), (0, None));
}

#[test]
fn one_offer_is_filled_with_as_many_tasks_as_fit() {
    let mut world = World::new(&["cpus=1;mem=1GiB", "cpus=0.25;mem=1GiB"]);
    world.submit("id = 'a'\ncount = 100").unwrap();
    assert_eq!(world.summary("a"), "running p88 r12 s0 f0 c0");
    assert!(world.wants_offers());
}

#[test]
fn a_failure_is_tried_again_after_a_wait_that_doubles_and_then_fails_the_job() {
    let mut world = World::new(&["cpus=4;mem=1GiB"]);
    world.submit("id = 'a'\nretries = 2").unwrap();
    world.end("a", 0, Fate::Exits(1));
    assert_eq!(world.summary("a"), "running p1 r0 s0 f0 c0");
    assert_eq!(world.status("a").summary.waiting, ["index 0 tries again in 10 s after exit code 1"]);
    world.pass(9);
    assert_eq!((world.live(), world.wants_offers()), (ids([]), false));
    world.pass(1);
    assert_eq!(world.live(), ids(["a-1.0.2"]));
    world.end("a", 0, Fate::OutOfMemory);
    assert_eq!(
        world.status("a").summary.waiting,
        ["index 0 tries again in 20 s after used more than 32MiB of memory"]
    );
    world.pass(20);
    world.end("a", 0, Fate::Exits(3));
    assert_eq!(world.summary("a"), "failed p0 r0 s0 f1 c0");
    let status = world.status("a");
    assert_eq!(status.summary.reason.as_deref(), Some("index 0 failed 3 times, the last time: exit code 3"));
    let tries: Vec<(u32, Outcome)> =
        status.tasks[0].tries.iter().map(|ended| (ended.attempt, ended.outcome)).collect();
    assert_eq!(tries, [(1, Outcome::Failed), (2, Outcome::Failed), (3, Outcome::Failed)]);
}

#[test]
fn offers_are_asked_for_again_when_the_wait_is_over() {
    let mut world = World::new(&["cpus=4;mem=1GiB"]);
    world.submit("id = 'a'\nretries = 1").unwrap();
    world.end("a", 0, Fate::Exits(1));
    assert!(!world.wants_offers());
    world.revived = false;
    world.pass(10);
    assert_eq!((world.live(), world.revived), (ids(["a-1.0.2"]), true));
}

#[test]
fn what_the_cluster_does_to_a_task_uses_up_no_retry_but_has_a_bound() {
    let mut world = World::new(&["cpus=4;mem=1GiB"]);
    world.submit("id = 'a'").unwrap();
    for fate in [Fate::Dropped, Fate::AgentRestarts, Fate::KilledByOperator].into_iter().cycle().take(19) {
        world.end("a", 0, fate);
        assert_eq!(world.summary("a"), "running p1 r0 s0 f0 c0");
        world.pass(60);
    }
    world.end("a", 0, Fate::Dropped);
    assert_eq!(world.summary("a"), "failed p0 r0 s0 f1 c0");
    assert_eq!(
        world.status("a").summary.reason.as_deref(),
        Some("index 0 was lost 20 times, the last time: DROPPED: offer_gone")
    );
}

#[test]
fn a_task_that_can_never_run_fails_at_once() {
    let mut world = World::new(&["cpus=4;mem=1GiB"]);
    world.submit("id = 'a'\nretries = 5").unwrap();
    world.end("a", 0, Fate::Invalid);
    assert_eq!(
        world.status("a").summary.reason.as_deref(),
        Some("index 0 cannot run: no user nobody-of-that-name")
    );
}

#[test]
fn a_try_that_takes_too_long_is_killed_and_counts_as_failed_even_after_a_restart() {
    let mut world = World::new(&["cpus=4;mem=1GiB"]);
    world.submit("id = 'a'\ntimeout = '30s'").unwrap();
    let task = world.task("a", 0);
    world.pass(100);
    world.runs(&task);
    world.turn();
    assert_eq!(world.wake_at, Some(world.now + Duration::from_secs(30)), "time counts from RUNNING");
    world.pass(30);
    assert!(world.tasks[&task].killing);
    world.restart();
    world.turn();
    world.kills_are_done();
    world.turn();
    assert_eq!(world.summary("a"), "failed p0 r0 s0 f1 c0");
    let status = world.status("a");
    assert_eq!(status.summary.reason.as_deref(), Some("index 0 failed: timeout after 30s"));
    assert_eq!(status.tasks[0].reason, "timeout");
}

#[test]
fn a_success_that_beats_the_kill_is_a_success() {
    let mut world = World::new(&["cpus=4;mem=1GiB"]);
    world.submit("id = 'a'\ntimeout = '30s'").unwrap();
    let task = world.task("a", 0);
    world.runs(&task);
    world.pass(30);
    world.end("a", 0, Fate::Succeeds);
    assert_eq!(world.summary("a"), "succeeded p0 r0 s1 f0 c0");
}

#[test]
fn the_first_index_that_fails_ends_the_job_and_kills_what_runs() {
    let mut world = World::new(&["cpus=0.2;mem=1GiB"]);
    world.submit("id = 'a'\ncount = 5").unwrap();
    world.end("a", 1, Fate::Exits(1));
    assert_eq!(world.summary("a"), "running p3 r1 s0 f1 c0");
    assert!(world.tasks[&world.task("a", 0)].killing);
    world.kills_are_done();
    world.turn();
    assert_eq!(world.summary("a"), "failed p0 r0 s0 f1 c4");
}

#[test]
fn without_fail_fast_the_others_run_to_their_end() {
    let mut world = World::new(&["cpus=0.1;mem=1GiB"]);
    world.submit("id = 'a'\ncount = 3\nfail_fast = false").unwrap();
    world.end("a", 0, Fate::Exits(1));
    world.end("a", 1, Fate::Succeeds);
    assert_eq!(world.summary("a"), "running p0 r1 s1 f1 c0");
    world.end("a", 2, Fate::Succeeds);
    assert_eq!(world.summary("a"), "failed p0 r0 s2 f1 c0");
}

#[test]
fn cancel_kills_what_runs_starts_nothing_and_ends_when_all_have_ended() {
    let mut world = World::new(&["cpus=0.2;mem=1GiB"]);
    world.submit("id = 'a'\ncount = 5\nretries = 3").unwrap();
    world.cancel("a").unwrap();
    assert_eq!(world.summary("a"), "running p3 r2 s0 f0 c0");
    world.restart();
    world.kills_are_done();
    world.turn();
    assert_eq!(world.summary("a"), "cancelled p0 r0 s0 f0 c5");
    assert_eq!(world.launched.len(), 2);
    assert_eq!(world.cancel("a"), Err(Refusal::Ended(id("a"), JobState::Cancelled)));
}

#[test]
fn cancelling_a_job_that_waits_ends_it_at_once() {
    let mut world = World::new(&[]);
    world.submit("id = 'a'").unwrap();
    world.cancel("a").unwrap();
    assert_eq!(world.summary("a"), "cancelled p0 r0 s0 f0 c1");
}

#[test]
fn a_lost_agent_is_waited_for_then_replaced_and_its_late_success_counts() {
    let mut world = World::new(&["cpus=0.1;mem=1GiB", "cpus=0.1;mem=1GiB"]);
    world.submit("id = 'a'").unwrap();
    world.runs(&world.task("a", 0));
    world.agent_is_lost(1);
    world.pass(59);
    assert_eq!(
        world.status("a").summary.waiting,
        ["index 0: agent agent-1 does not answer; another try may start in 1 s"]
    );
    assert_eq!(world.live(), ids(["a-1.0.1"]));
    world.pass(1);
    assert_eq!(world.live(), ids(["a-1.0.1", "a-1.0.2"]));
    let old = "a-1.0.1".parse().unwrap();
    world.ends(&old, Fate::Succeeds);
    world.turn();
    assert_eq!(world.summary("a"), "succeeded p0 r0 s1 f0 c0");
    assert!(world.tasks[&world.task("a", 0)].killing, "the other try is not needed any more");
    world.kills_are_done();
    world.turn();
    let status = world.status("a");
    assert_eq!((status.tasks[0].attempt, status.tasks[0].state), (1, divvy_proto::TaskState::Finished));
    assert_eq!(status.tasks[0].tries[1].outcome, Outcome::Superseded);
}

#[test]
fn a_lost_agent_that_returns_in_time_changes_nothing() {
    let mut world = World::new(&["cpus=0.1;mem=1GiB", "cpus=0.1;mem=1GiB"]);
    world.submit("id = 'a'").unwrap();
    world.agent_is_lost(1);
    world.pass(59);
    world.agent_returns(1);
    world.pass(10);
    assert_eq!(world.launched.len(), 1);
    world.end("a", 0, Fate::Succeeds);
    assert_eq!(world.summary("a"), "succeeded p0 r0 s1 f0 c0");
}

#[test]
fn a_lost_try_that_returns_beside_its_replacement_is_killed_and_uses_up_nothing() {
    let mut world = World::new(&["cpus=0.1;mem=1GiB", "cpus=0.1;mem=1GiB"]);
    world.submit("id = 'a'").unwrap();
    world.agent_is_lost(1);
    world.pass(60);
    world.agent_returns(1);
    world.turn();
    world.kills_are_done();
    world.turn();
    assert_eq!(world.live(), ids(["a-1.0.2"]));
    assert_eq!(world.summary("a"), "running p0 r1 s0 f0 c0");
}

#[test]
fn a_job_ends_though_an_agent_with_a_try_never_returns() {
    let mut world = World::new(&["cpus=0.1;mem=1GiB", "cpus=0.1;mem=1GiB"]);
    world.submit("id = 'a'\ncount = 2").unwrap();
    world.agent_is_lost(1);
    world.turn();
    world.cancel("a").unwrap();
    world.kills_are_done();
    world.turn();
    assert_eq!(world.summary("a"), "cancelled p0 r0 s0 f0 c2");
    world.agent_returns(1);
    world.turn();
    assert!(world.tasks[&world.task("a", 0)].killing);
}

#[test]
fn parallelism_is_held() {
    let mut world = World::new(&["cpus=4;mem=1GiB"]);
    world.submit("id = 'a'\ncount = 5\nparallelism = 2").unwrap();
    assert_eq!(world.summary("a"), "running p3 r2 s0 f0 c0");
    assert_eq!(world.status("a").summary.waiting, ["3 indexes wait: parallelism = 2 is reached"]);
    assert!(!world.wants_offers());
    world.end("a", 0, Fate::Succeeds);
    world.turn();
    assert_eq!(world.summary("a"), "running p2 r2 s1 f0 c0");
}

#[test]
fn the_job_with_the_fewest_running_tasks_gets_the_next_place() {
    let mut world = World::new(&["cpus=1;mem=1GiB"]);
    world.submit("id = 'big'\ncount = 50").unwrap();
    world.submit("id = 'small'\ncount = 2").unwrap();
    for index in 0..2 {
        world.end("big", index, Fate::Succeeds);
    }
    assert_eq!(world.summary("small"), "running p0 r2 s0 f0 c0");
    assert_eq!(world.summary("big"), "running p40 r8 s2 f0 c0");
}

#[test]
fn a_job_says_why_it_waits() {
    let mut world = World::new(&["cpus=4;mem=16MiB"]);
    world.submit("id = 'a'\ncount = 2").unwrap();
    assert_eq!(world.summary("a"), "pending p2 r0 s0 f0 c0");
    let waiting = world.status("a").summary.waiting;
    assert_eq!(waiting, ["2 indexes wait: needs mem=32MiB: the only agent, agent-1, has 16MiB"]);
}

#[test]
fn a_name_can_be_used_again_once_its_job_has_ended_and_no_task_id_ever_is() {
    let mut world = World::new(&["cpus=4;mem=1GiB"]);
    world.submit("id = 'a'").unwrap();
    assert_eq!(world.submit("id = 'a'"), Err(Refusal::NotEnded(id("a"))));
    world.end("a", 0, Fate::Succeeds);
    assert_eq!(world.submit("id = 'a'"), Ok(2));
    assert_eq!(world.live(), ids(["a-2.0.1"]));
    let history: Vec<(u64, JobState)> =
        world.status("a").history.iter().map(|run| (run.run, run.state)).collect();
    assert_eq!(history, [(1, JobState::Succeeded)]);
    world.end("a", 0, Fate::Succeeds);
    world.remove("a").unwrap();
    assert_eq!(world.store.keys().collect::<Vec<_>>(), ["next_run"]);
    world.restart();
    assert_eq!(world.submit("id = 'a'"), Ok(3));
}

#[test]
fn a_removed_job_leaves_no_task_behind() {
    let mut world = World::new(&["cpus=4;mem=1GiB"]);
    world.submit("id = 'a'").unwrap();
    assert_eq!(world.remove("a"), Err(Refusal::NotEnded(id("a"))));
    world.agent_is_lost(1);
    world.cancel("a").unwrap();
    world.remove("a").unwrap();
    world.agent_returns(1);
    world.turn();
    world.kills_are_done();
    world.turn();
    assert_eq!(world.tasks.len(), 0);
}

#[test]
fn all_effects_of_an_end_and_a_start_are_one_commit() {
    let mut world = World::new(&["cpus=0.1;mem=1GiB"]);
    world.submit("id = 'a'\ncount = 2").unwrap();
    let first = world.task("a", 0);
    world.ends(&first, Fate::Succeeds);
    let view = world.view();
    let actions = world.planner.reconcile(&view, Vec::new());
    let keys: Vec<String> = actions.writes.iter().map(written).collect();
    assert_eq!(keys, ["index/a/1/0"]);
    assert_eq!(Actions { writes: Vec::new(), ..actions }, {
        let mut expected = Actions::none();
        expected.forget(first);
        expected.want(&RolePath::default(), shape("a", 1));
        expected
    });
}

fn written(write: &divvy_sdk::Write) -> String {
    match write {
        divvy_sdk::Write::Put { key, .. } | divvy_sdk::Write::Delete { key } => key.clone(),
    }
}

#[test]
fn a_record_that_cannot_be_read_stops_the_start_rather_than_being_guessed() {
    let stored = [("index/a/1/0".to_owned(), b"{".to_vec())];
    let error = Planner::restore(stored).unwrap_err().to_string();
    assert!(error.starts_with("stored record index/a/1/0 cannot be read"), "{error}");
}

#[test]
fn the_thousandth_job_makes_the_oldest_that_has_ended_go() {
    let mut world = World::new(&[]);
    for number in 0..MAX_JOBS {
        let (_, actions) = world.planner.submit(job(&format!("id = 'a{number}'")), world.now).unwrap();
        world.commit(actions);
    }
    assert_eq!(world.submit("id = 'one-more'"), Err(Refusal::Full));
    world.cancel("a3").unwrap();
    world.submit("id = 'one-more'").unwrap();
    assert_eq!(world.planner.summary(&id("a3"), &world.view()), None);
}

#[test]
fn a_reconcile_of_a_hundred_thousand_indexes_looks_at_those_that_live() {
    let mut world = World::new(&["cpus=40;mem=1TiB"]);
    world.submit("id = 'a'\ncount = 100000").unwrap();
    assert_eq!(world.summary("a"), "running p99600 r400 s0 f0 c0");
    for _ in 0..5 {
        for task in world.able() {
            world.ends(&task, Fate::Succeeds);
        }
        world.turn();
        world.turn();
    }
    assert_eq!(world.summary("a"), "running p97600 r400 s2000 f0 c0");
}
