//! What an allocation costs: the pure kernel in this process, by its public interface, so that what is measured is what ships:
//! the call or message, the allocation, the offers with all that a framework is told, and the changes for those who watch.
//!
//! The scenarios are those of Apache Mesos's allocator benchmarks; what it needs, on another machine of the same kind, stands
//! beside. The floor is measured here, in the same run. `cargo bench --bench allocator`, with `-- --quick`, with
//! `-- --only NAME`, `--agents MOST` or `--frameworks MOST` for a part of it, or with `-- --compare FILE.json` to see it beside earlier figures.

#![allow(unreachable_pub, missing_docs, reason = "a bench's modules are its own")]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]
#![allow(clippy::indexing_slicing, reason = "a bench may stop where it is wrong")]

mod classic;
mod cluster;
#[path = "../common/mod.rs"]
#[allow(unused_imports, reason = "this bench starts no process and opens no stream")]
mod common;
mod cycle;
mod explain;
mod figures;
mod floor;
mod latency;
mod many;
mod memory;
mod mesos;
mod quota;
mod tasks;

use anyhow::{Context, Result};
use divvy_proto::resources::Resources;

use common::{Conditions, Mode, write_json};
use cycle::Roles;
use figures::{Book, size};

fn resources(text: &str) -> Result<Resources> {
    text.parse().with_context(|| text.to_owned())
}

fn main() -> Result<()> {
    let mode = common::mode();
    if mode == Mode::List {
        return Ok(());
    }
    let mut conditions = Conditions::note(mode);
    let mut book = Book::default();
    measure(&mut book, mode)?;
    book.print();
    if let Some(file) = option("--compare") {
        let text = std::fs::read_to_string(&file).with_context(|| file.clone())?;
        let before: serde_json::Value = serde_json::from_str(&text).with_context(|| file.clone())?;
        book.compare(&serde_json::from_value(before["allocator"].clone()).with_context(|| file.clone())?);
    }
    conditions.finish();
    write_json("allocator", mode, &serde_json::json!({ "conditions": conditions, "allocator": book }))
}

fn option(name: &str) -> Option<String> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.nth(1)
}

/// All scenarios whose name begins with what `--only` says.
fn measure(book: &mut Book, mode: Mode) -> Result<()> {
    let only = option("--only").unwrap_or_default();
    let is_wanted = |scenario: &str| scenario.starts_with(&only);
    if is_wanted("Cycle") {
        cycles(book, mode)?;
    }
    if is_wanted("Freed") {
        for (agents, frameworks) in sizes(mode, &[1000]) {
            latency::freed(book, size(agents, frameworks, frameworks.min(100)), mode.pick(20_000, 20))?;
        }
    }
    if is_wanted("Memory") {
        for (agents, frameworks) in sizes(mode, &[1000]) {
            latency::memory(book, size(agents, frameworks, frameworks.min(100)))?;
        }
    }
    if is_wanted("One") {
        for (agents, frameworks) in sizes(mode, &[1, 1000]) {
            latency::one_framework(book, size(agents, frameworks, frameworks.min(100)), mode.pick(500, 5))?;
        }
        for (agents, frameworks) in sizes(mode, &[5]) {
            let size = size(agents, frameworks, frameworks);
            latency::one_framework_in_a_free_cluster(book, size, mode.pick(20, 2))?;
        }
    }
    if is_wanted("Quota") {
        quotas(book, mode)?;
    }
    if is_wanted("Multi") {
        many::with_demand(book, mode.pick(1, 20))?;
        many::classic(book, mode.pick(1, 20))?;
    }
    if is_wanted("Explain") {
        for (agents, _) in sizes(mode, &[1]) {
            explain::measure(book, size(agents, 2, 1), mode.pick(20, 2))?;
        }
    }
    if is_wanted("Upstream") {
        upstream(book, mode)?;
    }
    Ok(())
}

/// Numbers of agents, each with these numbers of frameworks.
fn sizes(mode: Mode, frameworks: &[usize]) -> Vec<(usize, usize)> {
    let mut agents = mode.pick(vec![1000, 10_000, 50_000, 100_000], vec![20]);
    agents.retain(|agents| *agents <= most("--agents"));
    let frameworks = frameworks.iter().filter(|frameworks| **frameworks <= most("--frameworks"));
    let frameworks: Vec<usize> = frameworks.map(|all| mode.pick(*all, (*all).min(5))).collect();
    agents.iter().flat_map(|agents| frameworks.iter().map(move |f| (*agents, *f))).collect()
}

/// A limit from the command line.
fn most(name: &str) -> usize {
    option(name).and_then(|most| most.parse().ok()).unwrap_or(usize::MAX)
}

fn cycles(book: &mut Book, mode: Mode) -> Result<()> {
    let repetitions = mode.pick(5, 2);
    let shapes =
        mode.pick(vec![(1, 1), (100, 1), (100, 100), (1000, 100), (1000, 1000)], vec![(1, 1), (6, 3)]);
    let few = |frameworks: &usize| *frameworks <= most("--frameworks");
    for (agents, _) in sizes(mode, &[1]) {
        for (frameworks, roles) in shapes.iter().filter(|(frameworks, _)| few(frameworks)) {
            cycle::measure(book, size(agents, *frameworks, *roles), Roles::Flat, repetitions)?;
        }
        if let Some((frameworks, roles)) = shapes.get(1 + mode.pick(2, 0)).filter(|(all, _)| few(all)) {
            cycle::measure(book, size(agents, *frameworks, *roles), Roles::Nested, repetitions)?;
        }
    }
    Ok(())
}

fn quotas(book: &mut Book, mode: Mode) -> Result<()> {
    for roles in mode.pick(vec![30, 300, 3000], vec![30]) {
        quota::large_and_small(book, size(roles, roles, roles))?;
    }
    for roles in mode.pick(vec![10, 100, 1000], vec![10]) {
        quota::none_and_some(book, size(2 * roles, 2 * roles, roles), false)?;
        quota::none_and_some(book, size(2 * roles, 2 * roles, roles), true)?;
    }
    Ok(())
}

fn upstream(book: &mut Book, mode: Mode) -> Result<()> {
    for (agents, frameworks) in sizes(mode, &[1, 1000]) {
        let size = size(agents, frameworks, 1);
        classic::add_and_update(book, size)?;
        classic::decline(book, size)?;
        if frameworks > 1 {
            classic::suppress(book, size)?;
        }
        classic::backlog(book, size)?;
    }
    // A million filters, in different proportions.
    for (agents, frameworks) in mode.pick(vec![(1000, 1000), (10_000, 100), (100_000, 10)], vec![(20, 5)]) {
        classic::idle(book, size(agents, frameworks, 1), mode.pick(10_000, 10))?;
    }
    Ok(())
}
