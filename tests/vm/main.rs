//! The container suite on cgroup v2: in a virtual machine with a Debian cloud kernel, emulated in software, because a host has
//! one version of cgroups and this one may have the other. Its files are made from what was just built.
//!
//! Not here: the tests themselves, which are `agent/tests/container`.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail")]

mod files;
mod machine;
mod suite;

use std::sync::LazyLock;

use files::Files;
use machine::Told;
use suite::Suite;

/// What the tests' containers run, and what the agent runs to make them. What is not here is busybox's.
const PROGRAMS: &[&str] = &[
    "cat",
    "cut",
    "dash",
    "dd",
    "dmesg",
    "echo",
    "env",
    "expr",
    "find",
    "grep",
    "head",
    "hostname",
    "id",
    "ip6tables",
    "ip6tables-save",
    "iptables",
    "iptables-save",
    "kill",
    "ls",
    "mkdir",
    "mkfs.ext4",
    "mount",
    "printf",
    "pwd",
    "rm",
    "sed",
    "seq",
    "setsid",
    "sh",
    "sleep",
    "sort",
    "stat",
    "tail",
    "touch",
    "tr",
    "true",
    "umount",
    "uname",
    "wc",
];

/// Programs and libraries that are found by where they lie.
const DIRECTORIES: &[&str] = &["/usr/lib/cni", "/usr/lib/x86_64-linux-gnu/xtables"];

/// What the kernel needs beyond what is built into it.
const MODULES: &[&str] = &[
    "overlay",
    "loop",
    "veth",
    "bridge",
    "dummy",
    "nf_tables",
    "nft_compat",
    "nft_chain_nat",
    "xt_MASQUERADE",
    "xt_nat",
    "xt_comment",
    "xt_addrtype",
    "xt_multiport",
    "xt_mark",
    "xt_conntrack",
    "xt_tcpudp",
];

/// What the machine does, part by part. More threads than processors: the tests wait more than they compute.
const STORY: &str = r#"
suite() { /suite --color never --test-threads 4 "$@" >/dev/ttyS1; }
echo "== whole" >/dev/ttyS1
suite

# A part of the tree as systemd delegates it, with the controllers that every container needs.
cd /sys/fs/cgroup
echo "-cpuset -io" >cgroup.subtree_control
echo "+cpu +memory +pids" >cgroup.subtree_control
mkdir -p system.slice/divvy.service
echo "+cpu +memory +pids" >system.slice/cgroup.subtree_control
/suite delegate $PWD/system.slice/divvy.service
echo 0 >system.slice/divvy.service/cgroup.procs
echo "== delegated" >/dev/ttyS1
DIVVY_TEST_CGROUP=$PWD/system.slice/divvy.service suite --skip only_the_processors --skip networks:: \
    --skip security:: --skip rootfs:: --skip isolation:: --skip streams::
echo "== above" >/dev/ttyS1
for group in . system.slice; do
    echo "$group hands down $(cat $group/cgroup.subtree_control), has $(cd $group; echo */)" >/dev/ttyS1
done

# The same without one of those.
echo 0 >cgroup.procs
mkdir poor.slice
echo "+cpu +memory" >poor.slice/cgroup.subtree_control
mkdir poor.slice/divvy.service
/suite delegate $PWD/poor.slice/divvy.service
echo 0 >poor.slice/divvy.service/cgroup.procs
echo "== poor" >/dev/ttyS1
suite --exact launch::the_exit_code_is_the_programs
"#;

static SUITE: LazyLock<Suite> = LazyLock::new(Suite::find);

/// The machine runs once for all tests.
static MACHINE: LazyLock<Told> = LazyLock::new(|| {
    machine::run(&Files::of_a_host(PROGRAMS, DIRECTORIES, MODULES).with_suite(&SUITE).with_story(STORY))
});

#[test]
fn the_container_suite_passes_on_cgroup_v2() {
    let told: &Told = &MACHINE;
    let results = told.results("whole");
    let bad: Vec<_> = SUITE
        .tests()
        .map(|test| (results.get(&test).map_or("has not come to its end", String::as_str).to_owned(), test))
        .filter(|(result, _)| result != "ok")
        .collect();
    assert_eq!(bad, [], "{told}");
}

#[test]
fn a_delegated_subtree_is_enough_and_nothing_above_it_is_touched() {
    let told: &Told = &MACHINE;
    let results = told.results("delegated");
    let bad: Vec<_> = results.iter().filter(|(_, result)| *result != "ok").collect();
    assert!(bad.is_empty() && results.len() > 30, "{bad:?} of {}; {told}", results.len());
    let above: Vec<_> = told.part("above").collect();
    let expected = [
        ". hands down cpu memory pids, has system.slice/",
        "system.slice hands down cpu memory pids, has divvy.service/",
    ];
    assert_eq!(above, expected);
}

#[test]
fn a_missing_controller_is_named() {
    let told: &Told = &MACHINE;
    let results: Vec<_> = told.results("poor").into_values().collect();
    let missing = "poor.slice/divvy.service has no controller pids";
    assert!(results == ["FAILED"] && told.console.contains(missing), "{results:?}; {told}");
}
