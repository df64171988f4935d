//! How long one container takes from Accept to RUNNING and to its end, and how many a second one agent runs: real master,
//! real agent, and a framework on the raw stream. Beside it, in the same run and in turn, the same static command by
//! `runc run` and `crun run`, and the floor: what the kernel takes for a process, and for one in new namespaces.
//!
//! Needs root. `cargo bench --bench launch`, or with `-- --quick`.

#![allow(unreachable_pub, missing_docs, reason = "a bench's modules are its own")]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]

#[path = "../common/mod.rs"]
mod common;
mod divvy;
mod floor;
mod oci;
mod subject;
mod summary;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::mount::{MsFlags, mount, umount};
use nix::sched::{CloneFlags, unshare};

use common::{Conditions, Mode, write_json};
use subject::{Figures, Subject};

/// What every subject runs. Static and on the host as in the peers' bundle, so that no loader differs.
const COMMAND: [&str; 2] = ["/bin/busybox", "true"];

/// How many containers at a time in the second half of a round.
const WIDTH: usize = 8;

/// After this, no further round is begun.
const BUDGET: Duration = Duration::from_secs(80);

fn main() -> Result<()> {
    let mode = common::mode();
    if mode == Mode::List {
        return Ok(());
    }
    ensure!(nix::unistd::Uid::effective().is_root(), "containers need root: run this bench as root");
    ensure!(std::path::Path::new(COMMAND[0]).exists(), "{} is missing: apt-get install busybox", COMMAND[0]);
    hide_second_tree()?;
    let mut conditions = Conditions::note(mode);
    let mut subjects: Vec<Box<dyn Subject>> = vec![
        Box::new(floor::ForkExec),
        Box::new(floor::Clone),
        Box::new(floor::Unshare),
        Box::new(floor::DurableWrite(tempfile::Builder::new().prefix("divvy-bench-").tempdir()?)),
        Box::new(divvy::Cluster::start(summary::DIVVY, &std::env::temp_dir())?),
    ];
    // What is synced costs nothing there: the difference is the disk's part.
    let memory = std::path::Path::new("/dev/shm");
    if memory.is_dir() {
        subjects.push(Box::new(divvy::Cluster::start("divvy, state on tmpfs", memory)?));
    }
    let mut missing = Vec::new();
    for runtime in ["crun", "runc"] {
        match oci::Runtime::find(runtime) {
            Ok(found) => subjects.push(Box::new(found)),
            Err(why) => missing.push(format!("{runtime} is not measured: {why}")),
        }
    }
    let figures = measure(&mut subjects, mode);
    // Whatever came of it, nothing is left behind.
    let finished: Vec<Result<()>> = subjects.into_iter().map(|subject| subject.finish()).collect();
    let summary = summary::Summary::of(figures?)?;
    finished.into_iter().collect::<Result<()>>()?;
    summary.print(&missing);
    conditions.finish();
    write_json(
        "launch",
        mode,
        &serde_json::json!({ "conditions": conditions, "missing": missing, "launch": summary }),
    )
}

/// crun refuses a machine with cgroups of version 1 that has a tree of version 2 with controllers beside them. Here and in
/// all that is started from here, for every subject alike, that tree is not mounted; the rest of the machine keeps it.
fn hide_second_tree() -> Result<()> {
    let tree = "/sys/fs/cgroup/unified";
    if std::path::Path::new(tree).join("cgroup.controllers").exists() {
        let nothing: Option<&str> = None;
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?;
        umount(tree)?;
        println!("{tree} is not mounted for this bench, because crun refuses to run beside it");
    }
    Ok(())
}

/// Measures all subjects in turn, again and again, so that what disturbs hits all alike.
fn measure(subjects: &mut [Box<dyn Subject>], mode: Mode) -> Result<Vec<Figures>> {
    let (rounds, samples, parallel) = mode.pick((8, 10, 40), (1, 3, 8));
    let mut figures: Vec<Figures> = subjects.iter().map(|subject| Figures::of(subject.name())).collect();
    for subject in subjects.iter_mut() {
        subject.sample()?; // the first is slower for all: files are read, cgroups made
    }
    let begun = Instant::now();
    for round in 0..rounds {
        if begun.elapsed() > BUDGET {
            eprintln!("out of time after {round} of {rounds} rounds");
            break;
        }
        for (subject, figures) in subjects.iter_mut().zip(&mut figures) {
            for _ in 0..samples {
                figures.add(subject.sample()?);
            }
        }
        for (subject, figures) in subjects.iter_mut().zip(&mut figures) {
            figures.add_parallel(subject.parallel(parallel, WIDTH)?);
        }
    }
    Ok(figures)
}
