//! The agent's suite: a whole agent with real containers, against a master that only pretends. Needs root, as containers do.
//! The binary is its own shim.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests say so for themselves; clippy does not see that a binary without the usual harness is one"
)]

mod crash;
mod groups;
mod harness;
mod http;
mod images;
mod leaks;
mod life;
mod network;
mod restart;
mod volumes;

use libtest_mimic::{Arguments, Failed, Trial};

use harness::World;

type Tests = Vec<(&'static str, fn(&mut World))>;

fn main() {
    let mut args = std::env::args_os().skip(1);
    match args.next() {
        Some(word) if word == "shim" => divvy_agent::shim::main(args),
        Some(word) if word == "serve" => return harness::serve(args),
        _ => {}
    }
    let arguments = Arguments::from_args();
    if !arguments.list && !nix::unistd::geteuid().is_root() {
        eprintln!("the agent's suite makes cgroups and namespaces: run it as root");
        std::process::exit(1);
    }
    let suites = [
        ("life", life::tests()),
        ("groups", groups::tests()),
        ("http", http::tests()),
        ("images", images::tests()),
        ("network", network::tests()),
        ("restart", restart::tests()),
        ("crash", crash::tests()),
        ("volumes", volumes::tests()),
    ];
    let trials = suites.into_iter().flat_map(|(suite, tests)| {
        tests.into_iter().map(move |(name, test)| Trial::test(format!("{suite}::{name}"), move || run(test)))
    });
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

/// A story, then the count of what its agent leaves behind when it is told to leave nothing.
fn run(test: fn(&mut World)) -> Result<(), Failed> {
    let mut world = World::new();
    let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(&mut world)));
    world.leave_nothing();
    let left = world.left_behind();
    match told {
        Err(panic) => std::panic::resume_unwind(panic),
        Ok(()) if left.is_empty() => Ok(()),
        Ok(()) => Err(format!("left behind: {left:#?}").into()),
    }
}
