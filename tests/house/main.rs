//! The rules of the house that no compiler holds: who may know whom, and that the cores are pure.
//!
//! Not here: what the parts do.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Who may know whom (design, "The house"): there are no other arrows. Features that are off by default count.
const ARROWS: [(&str, &[&str]); 7] = [
    ("divvy-proto", &[]),
    ("divvy-store", &[]),
    ("divvy-sdk", &["divvy-proto", "divvy-store"]),
    ("divvy-master", &["divvy-proto", "divvy-store"]),
    ("divvy-agent", &["divvy-proto"]),
    ("divvy-service", &["divvy-proto", "divvy-sdk", "divvy-store"]),
    ("divvy-batch", &["divvy-proto", "divvy-sdk", "divvy-store"]),
];

/// The parts that decide. Each denies for itself what clippy.toml bans.
const CORES: [&str; 5] = [
    "master/src/kernel",
    "agent/src/supervisor",
    "sdk/src/driver",
    "frameworks/service/src/planner",
    "frameworks/batch/src/planner",
];

const DENY: &str = "#![deny(clippy::disallowed_methods, clippy::disallowed_types)]";

/// What clippy's list of calls cannot see: whole crates and keywords that a core has no use for.
const IMPURE: &[&str] = &[
    "tokio",
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "std::env",
    "async fn",
    ".await;",
    ".await?",
    "wall_clock",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every arrow between crates of the house, as cargo sees them; tests of a crate may know more.
fn arrows() -> BTreeSet<(String, String)> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .expect("cargo metadata runs");
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let packages = metadata["packages"].as_array().expect("a list of packages");
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    packages
        .iter()
        .flat_map(|package| {
            let dependencies = package["dependencies"].as_array().expect("a list of dependencies");
            dependencies
                .iter()
                .filter(|dependency| dependency["kind"].is_null())
                .map(|dependency| (text(&package["name"]), text(&dependency["name"])))
        })
        .filter(|(from, to)| from != "divvy" && to.starts_with("divvy"))
        .collect()
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .flat_map(|path| match path.is_dir() {
            true => rust_files(&path),
            false if path.extension().is_some_and(|ending| ending == "rs") => vec![path],
            false => Vec::new(),
        })
        .collect()
}

/// Lines of code in which something impure stands, comments aside.
fn impurities(code: &str) -> Vec<&str> {
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.filter(|line| IMPURE.iter().any(|word| line.contains(word))).collect()
}

#[test]
fn crates_know_only_whom_the_design_lets_them_know() {
    let allowed: BTreeSet<(String, String)> = ARROWS
        .iter()
        .flat_map(|(from, to)| to.iter().map(move |to| ((*from).to_owned(), (*to).to_owned())))
        .collect();
    let stray: Vec<_> = arrows().difference(&allowed).cloned().collect();
    assert_eq!(stray, [], "arrows that the design does not draw");
}

#[test]
fn every_core_is_held_pure() {
    let unheld: Vec<&str> = CORES
        .into_iter()
        .filter(|core| {
            !std::fs::read_to_string(root().join(core).join("mod.rs")).is_ok_and(|code| code.contains(DENY))
        })
        .collect();
    assert_eq!(unheld, [] as [&str; 0], "cores whose mod.rs does not open with {DENY}");
    let impure: Vec<String> = CORES
        .iter()
        .flat_map(|core| rust_files(&root().join(core)))
        .flat_map(|file| {
            let code = std::fs::read_to_string(&file).expect("a readable file");
            impurities(&code)
                .into_iter()
                .map(|line| format!("{}: {}", file.display(), line.trim()))
                .collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(impure, [] as [&str; 0], "a core has no clock, no I/O and no async");
}

#[test]
fn the_purity_check_sees_what_it_should() {
    let code = "// tokio is fine here\nlet x = std::fs::read(p);\nlet y = 1;";
    assert_eq!(impurities(code), ["let x = std::fs::read(p);"]);
}

#[test]
fn every_module_says_what_it_is() {
    let folders = [
        "src",
        "proto/src",
        "store/src",
        "sdk/src",
        "master/src",
        "agent/src",
        "frameworks/service/src",
        "frameworks/batch/src",
    ];
    let silent: Vec<PathBuf> = folders
        .iter()
        .flat_map(|folder| rust_files(&root().join(folder)))
        .filter(|file| !std::fs::read_to_string(file).is_ok_and(|code| code.starts_with("//!")))
        .collect();
    assert_eq!(silent, [] as [PathBuf; 0], "files that do not open with `//!`");
}
