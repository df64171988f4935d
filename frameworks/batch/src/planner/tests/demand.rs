//! What the planner asks for, gangs, and what is taken back.

use std::time::Duration;

use divvy_proto::Timestamp;
use divvy_proto::demand::{Demand, DemandShape, Gang, Preference};
use divvy_proto::ids::{AgentId, Hostname, InverseOfferId};
use divvy_proto::resources::Resources;
use divvy_proto::scheduler::{InverseOffer, InverseReason};
use divvy_proto::task::{Reason, TaskState};

use super::*;

/// As the tasks of these tests are.
pub(super) fn shape(job: &str, count: u32) -> DemandShape {
    DemandShape {
        name: job.into(),
        resources: "cpus=0.1;mem=32MiB".parse().unwrap(),
        ports: 0,
        count,
        constraint: None,
        preference: Preference::Pack,
    }
}

/// What is wanted, in short: `a=3 b=1`, a gang with its hold.
fn wants(world: &World) -> String {
    let demand = |(role, demand): (&RolePath, &Demand)| {
        let shapes = demand.shapes.iter().map(|shape| format!("{}={}", shape.name, shape.count));
        let gang = demand.gang.as_ref().map(|Gang { hold }| format!("gang {}s", hold.as_secs()));
        let words: Vec<String> = shapes.chain(gang).collect();
        format!("{role}: {}", words.join(" "))
    };
    world.demand.iter().map(demand).collect::<Vec<_>>().join("; ")
}

#[test]
fn what_waits_is_asked_for_by_job_the_one_with_the_fewest_tasks_first() {
    let mut world = World::new(&["cpus=0.3;mem=1GiB"]);
    world.submit("id = 'a'\ncount = 5\nparallelism = 4").unwrap();
    world.submit("id = 'b'\ncount = 2").unwrap();
    assert_eq!(wants(&world), "*: b=2 a=1");
    world.end("a", 0, Fate::Succeeds);
    assert_eq!(wants(&world), "*: b=1 a=2");
    world.cancel("b").unwrap();
    world.cancel("a").unwrap();
    assert_eq!(wants(&world), "");
}

#[test]
fn a_gang_waits_until_all_of_it_fits_and_starts_as_one() {
    let mut world = World::new(&["cpus=0.3;mem=1GiB", "cpus=0.2;mem=1GiB"]);
    world.submit("id = 'gang'\ncount = 5\ngang = true\ngang_hold = '20s'").unwrap();
    assert_eq!(world.summary("gang"), "running p0 r5 s0 f0 c0");
    world.submit("id = 'late'\ncount = 2\ngang = true").unwrap();
    assert_eq!(wants(&world), "*: late=2 gang 30s");
    world.end("gang", 0, Fate::Succeeds);
    assert_eq!(world.summary("late"), "pending p2 r0 s0 f0 c0");
    world.end("gang", 1, Fate::Succeeds);
    world.turn();
    assert_eq!(world.summary("late"), "running p0 r2 s0 f0 c0");
}

#[test]
fn a_gang_and_other_jobs_of_a_role_take_turns() {
    let mut world = World::new(&["cpus=0.1;mem=1GiB"]);
    world.now = Timestamp(0);
    world.submit("id = 'holds'").unwrap();
    world.submit("id = 'gang'\ncount = 2\ngang = true\ngang_hold = '5s'").unwrap();
    world.submit("id = 'other'").unwrap();
    assert_eq!((wants(&world).as_str(), world.wake_at), ("*: gang=2 gang 5s", Some(Timestamp(10_000))));
    world.pass(10);
    assert_eq!((wants(&world).as_str(), world.wake_at), ("*: other=1", Some(Timestamp(20_000))));
    world.pass(10);
    assert_eq!(wants(&world), "*: gang=2 gang 5s");
}

fn wanted_back(world: &World, job: &str, deadline: u64) -> InverseOffer {
    InverseOffer {
        id: InverseOfferId(1),
        agent_id: AgentId::new("a1-1").unwrap(),
        hostname: Hostname::new("agent-1").unwrap(),
        tasks: vec![world.task(job, 0)],
        resources: Resources::new(),
        deadline: Some(world.now + Duration::from_secs(deadline)),
        reason: InverseReason::Maintenance,
    }
}

#[test]
fn what_is_wanted_back_is_killed_and_tried_again_at_once_however_often() {
    let mut world = World::new(&["cpus=0.1;mem=1GiB"]);
    world.submit("id = 'a'").unwrap();
    for round in 1..=(MAX_LOST + 2) {
        world.wanted_back = vec![wanted_back(&world, "a", 60)];
        world.turn();
        world.restart(); // what it was killed for is known to the next process
        world.kills_are_done();
        world.wanted_back.clear();
        world.turn();
        assert_eq!(world.live(), ids([&format!("a-1.0.{}", round + 1)]));
    }
    let tries = &world.status("a").tasks[0].tries;
    assert!(tries.iter().all(|ended| ended.outcome == Outcome::TakenBack));
    assert_eq!(tries.last().unwrap().state, TaskState::Killed);
}

#[test]
fn what_the_kernel_took_back_counts_for_nothing() {
    for reason in [Reason::Preempted, Reason::AgentDrained, Reason::Revoked] {
        let mut world = World::new(&["cpus=0.1;mem=1GiB"]);
        world.submit("id = 'a'").unwrap();
        let task = world.task("a", 0);
        world.ends(&task, Fate::KilledByKernel(reason));
        world.turn();
        assert_eq!(world.live(), ids(["a-1.0.2"]), "{reason}");
    }
}

#[test]
fn jobs_of_different_roles_are_asked_for_in_their_roles() {
    let role = |text: &str| text.parse::<RolePath>().unwrap();
    let roles = [role("eng"), role("ads")];
    let mut planner = Planner::new();
    for (text, at) in [("id = 'a'", 1), ("id = 'b'\nrole = 'ads'", 2)] {
        planner.submit(job(text), Timestamp(at)).unwrap();
    }
    let view = View::of(Timestamp(3), [], []).with_roles(roles);
    let demand = planner.reconcile(&view, Vec::new()).demand.unwrap();
    let of = |text: &str| demand[&role(text)].shapes.clone();
    assert_eq!((of("eng"), of("ads")), (vec![shape("a", 1)], vec![shape("b", 1)]));
    assert!(view.check_role(Some(&role("web"))).unwrap_err().to_string().contains("eng, ads"));
}
