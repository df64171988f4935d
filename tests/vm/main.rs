//! The container suite on cgroup v2: in a virtual machine with a Debian cloud kernel, emulated in software, because a host has
//! one version of cgroups and this one may have the other. Its files are made from what was just built.
//!
//! Not here: the tests themselves, which are `agent/tests/container`.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail")]

mod files;
mod machine;
mod suite;

use std::collections::BTreeMap;

use files::Files;
use suite::Suite;

/// What the tests' containers run, and what the agent runs to make them. What is not here is busybox's.
const PROGRAMS: &[&str] = &[
    "cat", "cut", "dash", "dd", "dmesg", "echo", "env", "expr", "find", "grep", "head", "hostname", "id",
    "kill", "ls", "mkdir", "mount", "printf", "pwd", "rm", "sed", "seq", "setsid", "sh", "sleep", "sort",
    "stat", "tail", "touch", "tr", "true", "umount", "uname", "wc",
];

/// What the kernel needs beyond what is built into it.
const MODULES: &[&str] = &["overlay", "loop", "veth", "bridge"];

/// What the machine does. More threads than processors: the tests wait more than they compute.
const STORY: &str = "/suite --color never --test-threads 4 >/dev/ttyS1";

#[test]
fn the_container_suite_passes_on_cgroup_v2() {
    let suite = Suite::find();
    let files = Files::of_a_host(PROGRAMS, MODULES).with_suite(&suite).with_story(STORY);
    let told = machine::run(&files);
    let results = told.results();
    let bad: BTreeMap<String, &str> = suite
        .tests()
        .map(|test| (results.get(&test).map_or("has not come to its end", String::as_str), test))
        .filter(|(result, _)| *result != "ok")
        .map(|(result, test)| (test, result))
        .collect();
    assert_eq!(bad, BTreeMap::new(), "{}\nthe console:\n{}", told.report, told.console);
}
