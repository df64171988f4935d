//! The container suite: real containers on this host's cgroups, each test with a runtime of its own, and after each a count of
//! what is left. It needs root. The binary is its own shim, so nothing else has to be built.

#![allow(clippy::expect_used, clippy::panic, reason = "this is a test, although it brings its own harness")]

mod harness;
mod hostile;
mod isolation;
mod launch;
mod limits;
mod networks;
mod recovery;
mod rootfs;
mod security;
mod signals;
mod streams;

use libtest_mimic::{Arguments, Failed, Trial};

use harness::Agent;

type Tests = Vec<(&'static str, fn(&mut Agent))>;

fn main() {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|word| word == "shim") {
        divvy_agent::shim::main(args);
    }
    if std::env::args().nth(1).is_some_and(|word| word == "call") {
        return security::call(std::env::args().skip(2));
    }
    if std::env::args().nth(1).is_some_and(|word| word == "delegate") {
        return harness::delegate(std::env::args().nth(2).expect("a cgroup").as_ref());
    }
    let arguments = Arguments::from_args();
    if !arguments.list && !nix::unistd::geteuid().is_root() {
        eprintln!("the container suite makes cgroups and namespaces: run it as root");
        std::process::exit(1);
    }
    let suites = [
        ("launch", launch::tests()),
        ("isolation", isolation::tests()),
        ("limits", limits::tests()),
        ("security", security::tests()),
        ("networks", networks::tests()),
        ("signals", signals::tests()),
        ("streams", streams::tests()),
        ("hostile", hostile::tests()),
        ("recovery", recovery::tests()),
        ("rootfs", rootfs::tests()),
    ];
    let trials = suites.into_iter().flat_map(|(suite, tests)| {
        tests.into_iter().map(move |(name, test)| Trial::test(format!("{suite}::{name}"), move || run(test)))
    });
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

/// A story, then the count. A story that panics is told with the count, too.
fn run(test: fn(&mut Agent)) -> Result<(), Failed> {
    let mut agent = Agent::new();
    let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(&mut agent)));
    agent.destroy_all();
    let mut left = agent.left_behind();
    left.extend(agent.retire());
    match told {
        Err(panic) => std::panic::resume_unwind(panic),
        Ok(()) if left.is_empty() => Ok(()),
        Ok(()) => Err(format!("left behind: {left:#?}").into()),
    }
}
