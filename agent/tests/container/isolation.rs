//! A container's boundary, seen from inside.

use std::fs;

use divvy_agent::container::{ContainerSpec, UserName};
use divvy_proto::task::ExitStatus;

use crate::harness::{Agent, Outcome};

pub(crate) fn tests() -> crate::Tests {
    vec![
        ("the_program_is_pid_1_and_sees_no_other_process", own_pids),
        ("the_host_name_is_its_own", own_hostname),
        ("tmp_is_its_own_and_gone_afterwards", own_tmp),
        ("the_hosts_files_are_read_only", read_only),
        ("only_harmless_devices_exist", devices),
        ("the_agents_directories_and_the_hosts_sockets_are_hidden", hidden),
        ("the_sandbox_belongs_to_the_user", sandbox),
        ("the_user_has_no_rights_and_cannot_get_any", no_rights),
        ("root_has_the_capabilities_that_docker_gives", root_rights),
        ("no_descriptor_is_inherited", descriptors),
        ("its_cgroup_is_its_root", own_cgroup),
        ("its_limits_are_where_programs_look_for_them", limits_inside),
        ("a_sandbox_below_tmp_is_seen_at_its_path", sandbox_in_tmp),
        ("signals_are_as_a_program_expects_them", default_signals),
    ]
}

fn own_pids(agent: &mut Agent) {
    assert_eq!(agent.output("echo $$; echo /proc/[0-9]*"), "1\n/proc/1\n");
}

fn own_hostname(agent: &mut Agent) {
    let host = nix::unistd::gethostname().expect("a name");
    assert_eq!(agent.output("hostname"), "web\n");
    assert_eq!(nix::unistd::gethostname().expect("a name"), host);
}

fn own_tmp(agent: &mut Agent) {
    let spec =
        agent.spec("first", &["/bin/sh", "-c", "ls -A /tmp; echo x > /tmp/divvy-x; cat /var/tmp/divvy-x"]);
    // A sandbox below /tmp is seen there, and nothing else.
    let way = spec.sandbox.strip_prefix("/tmp").ok().and_then(|below| below.iter().next());
    let way = way.map(|name| format!("{}\n", name.display())).unwrap_or_default();
    let outcome = agent.run(&spec);
    assert_eq!(
        (outcome.stdout, agent.output("ls -A /tmp; stat -c %a /tmp")),
        (format!("{way}x\n"), format!("{way}1777\n"))
    );
    assert!(!std::path::Path::new("/tmp/divvy-x").exists());
}

fn read_only(agent: &mut Agent) {
    let spec = agent
        .shell("for d in / /etc /usr /var /dev /run /sys /proc/sys/kernel/hostname; do ( : > $d/x ) ; done");
    let spec = ContainerSpec { user: UserName::new("root").expect("a user"), ..spec };
    let outcome = agent.run(&spec);
    let refused =
        outcome.stderr.lines().filter(|line| line.contains("Read-only") || line.contains("nonexistent"));
    assert_eq!(refused.count(), 8, "{}", outcome.stderr);
}

fn devices(agent: &mut Agent) {
    let expected =
        "fd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n";
    assert_eq!(
        agent.output("ls /dev; : > /dev/null; : > /dev/shm/x; head -c 1 /dev/urandom > /dev/zero"),
        expected
    );
}

fn hidden(agent: &mut Agent) {
    fs::write(agent.work_dir().join("checkpoint"), "secret").expect("a file");
    let list = format!("ls -A {}; ls -A /run", agent.work_dir().display());
    assert_eq!(agent.output(&list), "sandboxes\n");
}

fn sandbox(agent: &mut Agent) {
    let spec = agent.shell("stat -c %U . artifact; pwd -P; echo changed > artifact; echo new > made");
    fs::write(spec.sandbox.join("artifact"), "as fetched").expect("a file");
    let expected = format!("nobody\nnobody\n{}\n", spec.sandbox.display());
    assert_eq!(
        agent.run(&spec),
        Outcome { status: Some(ExitStatus::Code(0)), stdout: expected, stderr: String::new() }
    );
    let kept = ["artifact", "made"].map(|name| fs::read_to_string(spec.sandbox.join(name)).expect("a file"));
    assert_eq!(kept, ["changed\n", "new\n"]);
}

const RIGHTS: &str = "grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs)' /proc/self/status | tr '\\t' ' '";

fn no_rights(agent: &mut Agent) {
    let expected = "Uid: 65534 65534 65534 65534\nGid: 65534 65534 65534 65534\nGroups: 65534 \n\
                    CapInh: 0000000000000000\nCapPrm: 0000000000000000\nCapEff: 0000000000000000\n\
                    CapBnd: 00000000a80425fb\nCapAmb: 0000000000000000\nNoNewPrivs: 1\n";
    assert_eq!(agent.output(RIGHTS), expected);
}

fn root_rights(agent: &mut Agent) {
    let root = UserName::new("root").expect("a user");
    let line = "grep -E '^Cap' /proc/self/status | tr '\\t' ' '; mount -t tmpfs x /tmp 2>/dev/null || echo cannot mount";
    let outcome = agent.run(&ContainerSpec { user: root, ..agent.shell(line) });
    let expected = "CapInh: 0000000000000000\nCapPrm: 00000000a80425fb\nCapEff: 00000000a80425fb\n\
                    CapBnd: 00000000a80425fb\nCapAmb: 0000000000000000\ncannot mount\n";
    assert_eq!(outcome.stdout, expected);
}

fn descriptors(agent: &mut Agent) {
    assert_eq!(
        agent.output("for fd in $(seq 0 255); do [ -e /proc/1/fd/$fd ] && echo $fd; done; true"),
        "0\n1\n2\n"
    );
}

fn own_cgroup(agent: &mut Agent) {
    let seen = agent.output("grep -E ':(cpu|memory|pids|)(,.*)?:' /proc/self/cgroup | cut -d: -f3 | sort -u");
    assert_eq!(seen, "/\n");
}

fn default_signals(agent: &mut Agent) {
    let masks = agent.output("cat /proc/self/status");
    let masks =
        masks.lines().filter(|line| ["SigB", "SigI", "SigC"].iter().any(|name| line.starts_with(name)));
    assert!(
        masks.clone().all(|mask| mask.ends_with("\t0000000000000000")),
        "{:?}",
        masks.collect::<Vec<_>>()
    );
}

/// Version 1 has the file in a tree of its own, version 2 at the root.
fn limits_inside(agent: &mut Agent) {
    let seen =
        agent.output("cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes 2>/dev/null || cat memory.max");
    assert_eq!(seen, "67108864\n");
}

fn sandbox_in_tmp(agent: &mut Agent) {
    let directory = tempfile::tempdir_in("/tmp").expect("a directory");
    let spec = ContainerSpec {
        sandbox: directory.path().to_path_buf(),
        ..agent.shell("pwd -P; ls; ls -A /tmp | wc -l")
    };
    assert_eq!(agent.run(&spec).stdout, format!("{}\nstderr\nstdout\n1\n", directory.path().display()));
}
