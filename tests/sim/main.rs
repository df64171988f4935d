//! The simulation: the shipped kernel, supervisors, drivers and planners on virtual time, with crashes, cut connections, partitions,
//! reboots and lost machines, stores that stall, clocks that err, takeovers and operators. A seed decides everything; each failure
//! prints the command that replays it.
//!
//! A history has two parts: first everything goes wrong for a while ([`trouble`]), then faults stop and the cluster must heal.
//! Invariants are checked after every step ([`invariants`]). In some histories nothing goes wrong: there, updates must keep their
//! bounds at every moment ([`bounds`]).
//!
//! Not here: sockets, disks, processes; `tests/cluster` has those. Nor messages that come twice or out of order: a stream over TCP
//! has none, and what is said again on a new stream comes of the cuts.

#![allow(unreachable_pub, missing_docs, reason = "a test's modules are its own")]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::panic,
    reason = "a test may fail"
)]
#![allow(clippy::unit_arg, reason = "arms of one match, most of which can fail")]

mod agent;
mod bounds;
mod clock;
mod crowd;
mod framework;
mod invariants;
mod ledger;
mod master;
mod operator;
mod orders;
mod promises;
mod room;
mod script;
mod trouble;
mod wire;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};

use world::{Plant, Telling, World};

/// So many histories are tried unless DIVVY_SEEDS says otherwise.
const SEEDS: u64 = 1000;

/// A history from its seed; what broke, if anything did.
fn run(seed: u64, plant: Plant, telling: Telling) -> Result<World, String> {
    // A core that panics has failed like any other, and its seed must be told.
    let history = std::panic::catch_unwind(|| {
        let mut world = World::new(seed, plant, telling);
        world.live_through_trouble()?;
        world.heal()?;
        Ok(world)
    });
    history.unwrap_or_else(|_| Err("a core panicked; how stands above".to_owned()))
}

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Runs `seeds` on all processors; the failure of the smallest failing seed.
fn first_failure(seeds: u64, plant: Plant) -> Option<(u64, String)> {
    let next = AtomicU64::new(0);
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let failures = std::thread::scope(|scope| {
        let search = || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds {
                    return None;
                }
                if let Err(broken) = run(seed, plant, Telling::Nothing) {
                    next.store(seeds, Ordering::Relaxed);
                    return Some((seed, broken));
                }
            }
        };
        let threads: Vec<_> = (0..processors).map(|_| scope.spawn(search)).collect();
        threads.into_iter().map(|thread| thread.join().expect("a history does not panic")).collect::<Vec<_>>()
    });
    failures.into_iter().flatten().min_by_key(|(seed, _)| *seed)
}

#[test]
fn a_thousand_histories_keep_every_invariant_and_heal() {
    let seeds = from_env("DIVVY_SEEDS").unwrap_or(SEEDS);
    if let Some((seed, broken)) = first_failure(seeds, Plant::None) {
        panic!(
            "seed {seed}: {broken}\nreplay: DIVVY_SEED={seed} cargo test --test sim -- --nocapture one_history"
        );
    }
}

/// `DIVVY_SEED=42 cargo test --test sim -- --nocapture one_history` prints every step of one history.
#[test]
fn one_history_can_be_replayed() {
    let seed = from_env("DIVVY_SEED").unwrap_or(0);
    let telling = if from_env("DIVVY_SEED").is_some() { Telling::Printed } else { Telling::Nothing };
    assert_eq!(run(seed, Plant::None, telling).err(), None, "seed {seed}");
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let trace = |seed| run(seed, Plant::None, Telling::Traced).map(|world| world.trace());
    assert_eq!(trace(7), trace(7));
    assert_ne!(trace(7), trace(8));
}

/// The simulation has teeth: some of these histories break in just this way.
fn is_caught(plant: Plant, as_one_of: &[&str], seeds: u64) {
    let (seed, broken) = first_failure(seeds, plant).expect("a history in which it comes out");
    assert!(as_one_of.iter().any(|text| broken.contains(text)), "seed {seed}: {broken}");
}

/// A framework's store that says "durable" too early makes it forget, after a crash, what it has finished or who it is.
#[test]
fn a_store_that_lies_is_caught() {
    is_caught(Plant::LyingStore, &["runs again", "run for nobody"], 200);
}

#[test]
fn lost_terminal_updates_are_caught() {
    is_caught(Plant::LoseTerminalUpdates, &["not healed"], 20);
}

#[test]
fn a_disk_that_lies_is_caught() {
    is_caught(Plant::LyingDisk, &["before its launch is on disk"], 20);
}

#[test]
fn an_agent_that_forgets_its_containers_is_caught() {
    is_caught(Plant::Amnesia, &["runs more than it has", "run for nobody"], 50);
}

#[test]
fn an_update_beyond_its_bounds_is_caught() {
    is_caught(Plant::LooseBounds, &["are published"], 200);
}

/// Limits hold for all that a role and those below it use.
#[test]
fn a_limit_that_is_not_checked_on_the_role_above_is_caught() {
    is_caught(Plant::NoLimits, &["more than its limit"], 200);
}

/// A role gets what it was promised, whoever has to give it back.
#[test]
fn guarantees_that_are_not_kept_are_caught() {
    is_caught(Plant::NoGuarantees, &["of its guarantee"], 300);
}

#[test]
fn used_task_ids_that_are_forgotten_are_caught() {
    is_caught(Plant::ForgetfulRegistry, &["is used up"], 200);
}

#[test]
fn volumes_that_agents_do_not_make_are_caught() {
    is_caught(Plant::NoVolumes, &["has the volumes"], 50);
}

#[test]
fn a_gang_that_is_launched_by_half_is_caught() {
    is_caught(Plant::HalfAGang, &["of a gang of"], 100);
}

#[test]
fn deadlines_that_pass_without_a_kill_are_caught() {
    is_caught(Plant::NoForce, &["is overdue", "is to be empty"], 100);
}

#[test]
fn an_inverse_offer_that_is_never_rescinded_is_caught() {
    is_caught(Plant::DeafToRescinds, &["believes in it"], 100);
}

#[test]
fn a_gang_that_keeps_others_waiting_is_caught() {
    is_caught(Plant::GreedyGangs, &["waits; there is room"], 300);
}

#[test]
fn charges_that_a_failover_loses_are_caught() {
    is_caught(Plant::NoAllocations, &["is charged with"], 200);
}
