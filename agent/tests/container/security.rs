//! What a container's processes may not do, whoever they are.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use divvy_agent::container::{ContainerSpec, LaunchError, Rights, UserName, VolumeBind};
use divvy_proto::container::{Capability, DeviceAccess, Rlimit};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::harness::Agent;
use crate::rootfs::Image;

pub(crate) fn tests() -> crate::Tests {
    vec![
        ("calls_that_reach_beyond_the_container_are_refused", calls),
        ("a_command_in_the_container_lives_behind_the_same_filter", filter_of_commands),
        ("root_has_the_capabilities_that_it_asks_for_and_no_other_user_has_any", capabilities),
        ("capabilities_beyond_the_default_need_the_operators_leave", capabilities_refused),
        ("limits_of_processes_are_those_asked_for_and_there_are_no_core_dumps", rlimits),
        ("limits_that_cannot_be_are_refused", rlimits_refused),
        ("groups_are_added_by_name_and_number", groups),
        ("a_program_that_belongs_to_root_gives_nobody_its_rights", setuid),
        ("root_in_a_user_namespace_is_nobody_outside", user_namespace),
        ("no_two_user_namespaces_share_an_id", two_user_namespaces),
        ("a_volume_in_a_user_namespace_keeps_its_ids_on_disk", user_namespace_volume),
        ("a_command_enters_the_user_namespace", user_namespace_command),
        ("an_image_in_a_user_namespace_belongs_to_its_root", user_namespace_image),
        ("devices_are_given_as_far_as_the_operator_allows", devices),
        ("no_device_can_be_made_or_found", devices_made),
    ]
}

fn root() -> UserName {
    UserName::new("root").expect("a user")
}

fn named<T: std::str::FromStr>(names: &[&str]) -> Vec<T> {
    names.iter().map(|name| name.parse().ok().expect("a name")).collect()
}

/// This binary, inside the container: makes system calls with arguments that are all zero or as given, and prints what came of
/// each.
pub(crate) fn call(calls: impl Iterator<Item = String>) {
    for call in calls {
        let mut words = call.split(',');
        let name = words.next().unwrap_or_default();
        let mut words = words.map(|word| word.parse::<libc::c_long>().expect("a number"));
        let mut word = || words.next().unwrap_or_default();
        // SAFETY: the arguments are numbers that no call takes for memory which it could write to.
        let result = unsafe { libc::syscall(word(), word(), word(), word(), word()) };
        let errno = nix::errno::Errno::last();
        println!("{name} {}", if result == -1 { format!("{errno:?}") } else { "done".to_owned() });
    }
}

/// As root, so that it is not for want of a right; with arguments that the kernel would answer otherwise without a filter.
fn calls(agent: &mut Agent) {
    let number = |name: &str, number: libc::c_long, rest: &str| format!("{name},{number}{rest}");
    let calls = [
        number("mount", libc::SYS_mount, ""),
        number("umount", libc::SYS_umount2, ""),
        number("pivot_root", libc::SYS_pivot_root, ""),
        number("unshare-user", libc::SYS_unshare, ",268435456"),
        number("clone-user", libc::SYS_clone, ",268435456"),
        number("clone3", libc::SYS_clone3, ""),
        number("setns", libc::SYS_setns, ",0"),
        number("keyctl", libc::SYS_keyctl, ",0,-3,1"),
        number("add_key", libc::SYS_add_key, ""),
        number("bpf", libc::SYS_bpf, ",-1"),
        number("perf_event_open", libc::SYS_perf_event_open, ""),
        number("io_uring_setup", libc::SYS_io_uring_setup, ""),
        number("userfaultfd", libc::SYS_userfaultfd, ""),
        number("open_by_handle_at", libc::SYS_open_by_handle_at, ""),
        number("init_module", libc::SYS_init_module, ""),
        number("kexec_load", libc::SYS_kexec_load, ""),
        number("reboot", libc::SYS_reboot, ""),
        number("swapoff", libc::SYS_swapoff, ""),
        number("settimeofday", libc::SYS_settimeofday, ""),
        number("socket-vsock", libc::SYS_socket, ",40,1"),
        number("not-yet", 600, ""),
        // What is outside has no pid inside; what is inside may be traced.
        number("ptrace-outside", libc::SYS_ptrace, &format!(",16,{}", std::process::id())),
        number("personality", libc::SYS_personality, ",4294967295"),
        number("getpid", libc::SYS_getpid, ""),
    ];
    let binary = std::env::current_exe().expect("this binary");
    let argv: Vec<_> = [binary.to_str().expect("a path of text"), "call"]
        .into_iter()
        .chain(calls.iter().map(String::as_str))
        .collect();
    let outcome = agent.run(&ContainerSpec { user: root(), ..agent.spec("web", &argv) });
    let expected = "mount EPERM\numount EPERM\npivot_root EPERM\nunshare-user EPERM\nclone-user EPERM\nclone3 ENOSYS\n\
                    setns EPERM\nkeyctl EPERM\nadd_key EPERM\nbpf EPERM\nperf_event_open EPERM\nio_uring_setup EPERM\n\
                    userfaultfd EPERM\nopen_by_handle_at EPERM\ninit_module EPERM\nkexec_load EPERM\nreboot EPERM\n\
                    swapoff EPERM\nsettimeofday EPERM\nsocket-vsock EPERM\nnot-yet ENOSYS\nptrace-outside ESRCH\n\
                    personality done\ngetpid done\n";
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), (expected, ""));
}

const BEHIND: &str = "grep -E '^(NoNewPrivs|Seccomp|CapBnd)' /proc/self/status | tr '\\t' ' '; ulimit -c";

fn filter_of_commands(agent: &mut Agent) {
    let spec = agent.shell("touch ready; sleep 1000");
    agent.launch_until_ready(&spec);
    let result = agent.exec(&spec, BEHIND, Duration::from_secs(10)).expect("a command that runs");
    let expected = "CapBnd: 00000000a80425fb\nNoNewPrivs: 1\nSeccomp: 2\nSeccomp_filters: 1\n0\n";
    assert_eq!(result.output, expected);
}

fn capabilities(agent: &mut Agent) {
    agent.allow(Rights { capabilities: named(&["NET_ADMIN"]), ..Rights::default() });
    let line = "grep -E '^Cap' /proc/self/status | tr '\\t' ' '";
    let asking = |user: &str| ContainerSpec {
        user: UserName::new(user).expect("a user"),
        add_capabilities: named(&["NET_ADMIN", "CHOWN"]),
        drop_capabilities: Capability::all().collect(),
        ..agent.spec(user, &["/bin/sh", "-c", line])
    };
    let [of_root, of_nobody] = ["root", "nobody"].map(|user| agent.run(&asking(user)).stdout);
    let told = |own, most| {
        format!(
            "CapInh: {0:016x}\nCapPrm: {own:016x}\nCapEff: {own:016x}\nCapBnd: {most:016x}\nCapAmb: {0:016x}\n",
            0
        )
    };
    assert_eq!((of_root, of_nobody), (told(0x1001, 0x1001), told(0, 0x1001)));
}

fn capabilities_refused(agent: &mut Agent) {
    let spec = ContainerSpec { add_capabilities: named(&["CHOWN", "SYS_ADMIN"]), ..agent.shell("true") };
    let error = agent.try_launch(&spec).expect_err("a refusal").to_string();
    assert_eq!(
        error,
        "capability SYS_ADMIN is not possible: this agent's operator has not allowed it (--allow-capability)"
    );
}

fn limit(kind: &str, soft: Option<u64>, hard: Option<u64>) -> Rlimit {
    Rlimit { kind: kind.parse().expect("a kind"), soft, hard }
}

fn rlimits(agent: &mut Agent) {
    let line = "ulimit -Sc; ulimit -Hc; ulimit -Sn; ulimit -Hn; ulimit -St; ulimit -Ht";
    let asked = vec![
        limit("nofile", Some(100), Some(200)),
        limit("cpu", Some(7), Some(8)),
        limit("core", None, None),
    ];
    let told = [("default", Vec::new()), ("asked", asked)].map(|(id, rlimits)| {
        let outcome = agent.run(&ContainerSpec { rlimits, ..agent.spec(id, &["/bin/sh", "-c", line]) });
        outcome.stdout.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ")
    });
    let (_, most) =
        nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).expect("a limit");
    let default = format!("0 0 1024 {} unlimited unlimited", most.min(524_288));
    assert_eq!(told, [default, "unlimited unlimited 100 200 7 8".to_owned()]);
}

fn rlimits_refused(agent: &mut Agent) {
    let refused = |rlimit| {
        let spec = ContainerSpec { rlimits: vec![rlimit], ..agent.shell("true") };
        agent.try_launch(&spec).expect_err("a refusal")
    };
    assert_eq!(
        refused(limit("nproc", Some(2), Some(1))).to_string(),
        "rlimit nproc 2 is not possible: the limit in force is above the highest one, 1"
    );
    // More files than the kernel lets anyone have open.
    let LaunchError::Step { what, why } = refused(limit("nofile", Some(5), None)) else {
        panic!("another error")
    };
    assert_eq!(
        (what.as_str(), why.as_str()),
        ("limit nofile to 5 and unlimited", "Operation not permitted (os error 1)")
    );
}

fn groups(agent: &mut Agent) {
    let told = |id, group: Option<&str>, groups: &[&str]| {
        let groups = groups.iter().map(|&group| group.to_owned()).collect();
        let plain = agent.spec(id, &["/bin/sh", "-c", "id -g; id -G"]);
        agent.run(&ContainerSpec { group: group.map(str::to_owned), groups, ..plain }).stdout
    };
    assert_eq!(told("added", None, &["daemon", "4242"]), "65534\n65534 1 4242\n");
    assert_eq!(told("main", Some("daemon"), &[]), "1\n1\n");
    let spec = ContainerSpec { groups: vec!["no-such-group".to_owned()], ..agent.shell("true") };
    let error = agent.try_launch(&spec).expect_err("a refusal").to_string();
    assert_eq!(error, "group no-such-group is not possible: this host does not have it");
}

fn setuid(agent: &mut Agent) {
    // Containers see where this binary is.
    let beside = std::env::current_exe().expect("this binary");
    let directory = tempfile::tempdir_in(beside.parent().expect("a directory")).expect("a directory");
    let everyone = |mode| fs::Permissions::from_mode(mode);
    fs::set_permissions(directory.path(), everyone(0o755)).expect("a mode");
    let program = directory.path().join("id");
    fs::copy("/usr/bin/id", &program).expect("a copy");
    fs::set_permissions(&program, everyone(0o4755)).expect("a mode");
    assert_eq!(agent.output(&format!("{} -u", program.display())), "65534\n");
}

fn apart(agent: &Agent, id: &str, user: &str, line: &str) -> ContainerSpec {
    let user = UserName::new(user).expect("a user");
    ContainerSpec { user, user_namespace: true, ..agent.spec(id, &["/bin/sh", "-c", line]) }
}

/// The owner of a file, on the host.
fn owner(path: &Path) -> u32 {
    fs::metadata(path).expect("a file").uid()
}

/// The first id of a container's user namespace, as the host sees it.
fn first_id(pid: u32) -> u32 {
    let map = fs::read_to_string(format!("/proc/{pid}/uid_map")).expect("a map");
    let words: Vec<u32> = map.split_whitespace().map(|word| word.parse().expect("a number")).collect();
    let [0, first, 65_536] = words[..] else { panic!("{map}") };
    first
}

fn user_namespace(agent: &mut Agent) {
    let line = "id -u; id -g; stat -c %u . /etc/passwd; grep CapEff /proc/self/status; \
                mount -t tmpfs x /tmp 2>/dev/null || echo cannot mount; cat /proc/1/root/etc/shadow 2>/dev/null; \
                touch mine /tmp/mine; chown 7:8 mine; touch ready; sleep 1000";
    let spec = apart(agent, "web", "root", line);
    let pid = agent.launch_until_ready(&spec);
    let first = first_id(pid);
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a status");
    let uid = status.lines().find(|line| line.starts_with("Uid:")).map(str::to_owned);
    assert!(first >= 1_000_000);
    assert_eq!(uid, Some(format!("Uid:\t{first}\t{first}\t{first}\t{first}")));
    let on_disk = ["ready", "mine"].map(|name| owner(&spec.sandbox.join(name)));
    assert_eq!(on_disk, [first, first + 7]);
    agent.destroy(&spec);
    let stdout = fs::read_to_string(spec.sandbox.join("stdout")).expect("a log");
    assert_eq!(stdout, "0\n0\n0\n65534\nCapEff:\t00000000a80425fb\ncannot mount\n");
    let claimed = fs::read_link(format!("/run/divvy/subids/{first}"));
    assert!(
        claimed.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound),
        "the ids are given back"
    );
}

fn two_user_namespaces(agent: &mut Agent) {
    let specs = ["one", "two"].map(|id| apart(agent, id, "nobody", "touch ready; sleep 1000"));
    let [one, two] = [&specs[0], &specs[1]].map(|spec| first_id(agent.launch_until_ready(spec)));
    assert!(one.abs_diff(two) >= 65_536, "{one} and {two}");
    assert_eq!(owner(&specs[1].sandbox.join("ready")), two + 65_534);
}

fn user_namespace_volume(agent: &mut Agent) {
    let volume = agent.work_dir().join("volume");
    fs::create_dir(&volume).expect("a volume");
    let plain = apart(agent, "web", "nobody", "stat -c %u data; echo x > data/file; stat -c %u data/file");
    let bind = VolumeBind {
        id: "v1".parse().expect("an id"),
        source: volume.clone(),
        target: plain.sandbox.join("data"),
        read_only: false,
    };
    let outcome = agent.run(&ContainerSpec { volumes: vec![bind], ..plain });
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("65534\n65534\n", ""));
    assert_eq!([owner(&volume), owner(&volume.join("file"))], [65_534; 2]);
}

fn user_namespace_command(agent: &mut Agent) {
    let spec = apart(agent, "web", "root", "touch ready; sleep 1000");
    agent.launch_until_ready(&spec);
    let line = "id -u; cat /proc/self/uid_map | wc -l; [ /proc/self/ns/user -ef /proc/1/ns/user ] && echo the same; touch made";
    let result = agent.exec(&spec, line, Duration::from_secs(10)).expect("a command that runs");
    assert_eq!(result.output, "0\n1\nthe same\n");
    assert_eq!(owner(&spec.sandbox.join("made")), owner(&spec.sandbox.join("ready")));
}

/// A copy of `/dev/zero` on the host, which goes with it.
struct Device(String);

impl Device {
    fn new(name: &str) -> Self {
        let path = format!("/dev/divvy-{name}-{}", std::process::id());
        mknod(path.as_str(), SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(1, 5))
            .expect("a device");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("a mode");
        Self(path)
    }

    fn to(&self, write: bool) -> Vec<DeviceAccess> {
        vec![DeviceAccess { path: self.0.clone(), write }]
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn devices(agent: &mut Agent) {
    let device = Device::new("zero");
    let using = |agent: &Agent, id: &str, write| {
        let line = format!("head -c 3 {0} | wc -c; echo x > {0} && echo written", device.0);
        ContainerSpec { devices: device.to(write), user: root(), ..agent.spec(id, &["/bin/sh", "-c", &line]) }
    };
    let error = agent.try_launch(&using(agent, "early", false)).expect_err("a refusal").to_string();
    let expected = "is not possible: this agent's operator has not allowed it";
    assert_eq!(error, format!("device {0} {expected} (--allow-device {0})", device.0));
    let rule = |text: String| Rights { devices: vec![text.parse().expect("a rule")], ..Rights::default() };
    agent.allow(rule(device.0.clone()));
    let error = agent.try_launch(&using(agent, "greedy", true)).expect_err("a refusal").to_string();
    assert_eq!(error, format!("device {0} {expected} (--allow-device {0}:rw)", device.0));
    let read = agent.run(&using(agent, "read", false));
    assert_eq!(read.stdout, "3\n");
    assert!(read.stderr.contains("Operation not permitted"), "{}", read.stderr);
    agent.allow(rule(format!("{}:rw", device.0)));
    assert_eq!(agent.run(&using(agent, "write", true)).stdout, "3\nwritten\n");
}

/// Root may make nodes, as in Docker, but nowhere are they devices; and those that lie about on the host are none, either.
fn devices_made(agent: &mut Agent) {
    let beside = std::env::current_exe().expect("this binary");
    let directory = tempfile::tempdir_in(beside.parent().expect("a directory")).expect("a directory");
    let found = directory.path().join("zero");
    mknod(&found, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(1, 5)).expect("a device");
    let line = format!(
        "for d in . /tmp /dev/shm; do mknod $d/zero c 1 5; head -c 1 $d/zero; done; head -c 1 {}",
        found.display()
    );
    let outcome = agent.run(&ContainerSpec { user: root(), ..agent.shell(&line) });
    assert_eq!(
        (outcome.stdout.as_str(), outcome.stderr.matches("Permission denied").count()),
        ("", 4),
        "{}",
        outcome.stderr
    );
}

fn user_namespace_image(agent: &mut Agent) {
    let image = Image::new(agent);
    let line = "stat -c %u:%g / /bin/sh /mnt/sandbox /tmp 2>&1; echo x > /bin/made && rm /bin/ls && stat -c %u /bin/made; \
                mkdir -p /etc/new && id -u; cat /proc/sys/kernel/hostname > /etc/passwd && cat /etc/passwd";
    let spec = ContainerSpec { user_namespace: true, ..image.shell(line) };
    let outcome = agent.run(&spec);
    let expected = "0:0\n0:0\n0:0\nstat: can't stat '/tmp': No such file or directory\n0\n0\nrun-1\n";
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), (expected, ""));
    let layer = agent.work_dir().join("layers/0");
    assert_eq!((owner(&layer.join("bin")), layer.join("bin/ls").exists()), (0, true));
}
