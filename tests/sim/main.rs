//! The simulation: the shipped kernel, supervisors, drivers and planners on virtual time, with crashes, cut connections, partitions
//! and reboots. A seed decides everything; each failure prints the command that replays it.
//!
//! A history has two parts: first everything goes wrong for a while, then faults stop and the cluster must heal. Invariants
//! are checked after every step ([`invariants`]).
//!
//! Not here: sockets, disks, processes. `tests/cluster` has those.

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
mod framework;
mod invariants;
mod master;
mod script;
mod wire;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};

use world::{Plant, World};

/// So many histories are tried unless DIVVY_SEEDS says otherwise.
const SEEDS: u64 = 1000;

/// A history from its seed; what broke, if anything did.
fn run(seed: u64, plant: Plant) -> Result<World, String> {
    let mut world = World::new(seed, plant);
    let steps = script::script(&mut world.rng());
    world.live_through(steps)?;
    world.heal()?;
    Ok(world)
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
                if let Err(broken) = run(seed, plant) {
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
    let tell = from_env("DIVVY_SEED").is_some();
    let mut world = World::new(seed, Plant::None);
    world.tell = tell;
    let steps = script::script(&mut world.rng());
    let end = world.live_through(steps).and_then(|()| world.heal());
    assert_eq!(end, Ok(()), "seed {seed}");
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let trace = |seed| run(seed, Plant::None).map(|world| world.trace());
    assert_eq!(trace(7), trace(7));
    assert_ne!(trace(7), trace(8));
}

/// The simulation has teeth: a framework's store that says "durable" too early makes it forget, after a crash, what it has
/// finished or who it is.
#[test]
fn a_store_that_lies_is_caught() {
    let (_, broken) = first_failure(200, Plant::LyingStore).expect("a history in which the lie comes out");
    assert!(broken.contains("runs again") || broken.contains("run for nobody"), "{broken}");
}

/// The simulation has teeth: terminal updates that are lost for good leave tasks that never end.
#[test]
fn lost_terminal_updates_are_caught() {
    let (_, broken) = first_failure(20, Plant::LoseTerminalUpdates).expect("a history that cannot heal");
    assert!(broken.contains("not healed"), "{broken}");
}
