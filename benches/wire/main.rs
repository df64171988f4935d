//! What the kernel does over the wire: a real master as a process of its own, 1,000 simulated agents with a connection each,
//! and frameworks on the raw stream. How many registrations, offers, accepts, updates and whole lives of tasks a second;
//! how long from the end of a task to the next offer of what it held; and what that costs the master.
//!
//! The floor, in the same run and in turn: a server of the same library that answers each message on as many streams and
//! does nothing else. `cargo bench --bench wire`, or with `-- --quick`.

#![allow(unreachable_pub, missing_docs, reason = "a bench's modules are its own")]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]

mod agents;
#[path = "../common/mod.rs"]
mod common;
mod counters;
mod echo;
mod frameworks;
mod phases;
mod summary;

use anyhow::{Context, Result};

use common::{Conditions, Divvy, Mode, write_json};

/// How much of everything.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct Scale {
    pub agents: usize,
    pub frameworks: usize,
    /// Rounds of all phases.
    pub rounds: usize,
    /// Milliseconds that a phase runs before it is measured, and while it is.
    pub warm_ms: u64,
    pub measured_ms: u64,
    /// Times that one thing at a time is done.
    pub samples: usize,
}

const FULL: Scale =
    Scale { agents: 1000, frameworks: 5, rounds: 3, warm_ms: 1000, measured_ms: 4000, samples: 300 };
const QUICK: Scale =
    Scale { agents: 50, frameworks: 2, rounds: 1, warm_ms: 100, measured_ms: 500, samples: 30 };

fn main() -> Result<()> {
    if std::env::args().nth(1).as_deref() == Some(echo::ARGUMENT) {
        return runtime()?.block_on(echo::serve());
    }
    let mode = common::mode();
    if mode == Mode::List {
        return Ok(());
    }
    let scale = mode.pick(FULL, QUICK);
    let mut conditions = Conditions::note(mode);
    let dir = tempfile::Builder::new().prefix("divvy-bench-").tempdir()?;
    let data = format!("--data-dir={}", dir.path().join("master").display());
    let arguments = ["master", "--listen=127.0.0.1:0", &data, "--offer-timeout=1h"];
    let master = Divvy::start(&arguments, dir.path())?;
    let program = std::env::current_exe().context("this program's file")?;
    let echo = Divvy::start_program(&program, &[echo::ARGUMENT], dir.path())?;
    let figures = runtime()?.block_on(phases::all(&master, &echo, scale))?;
    master.stop()?;
    let summary = summary::Summary::of(figures, scale)?;
    summary.print();
    conditions.finish();
    write_json(
        "wire",
        mode,
        &serde_json::json!({ "conditions": conditions, "scale": scale, "wire": summary }),
    )
}

/// As the master has it: one thread for each core.
fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}
