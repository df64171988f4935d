//! An agent's runtime with the verbs that the stories are told in.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use divvy_agent::NetworkConfig;
use divvy_agent::container::{
    Attached, ContainerId, ContainerSpec, ContainerState, ExecResult, Exited, LaunchError, LogLimits, Rights,
    Runtime, RuntimeConfig, RuntimeError, Started, StopSignal, UserName,
};
use divvy_proto::api::Usage;
use divvy_proto::task::ExitStatus;
use divvy_proto::{Bytes, Cpus, Hostname};

/// Whatever does not happen within this does not happen, not even on an emulated processor.
const DEADLINE: Duration = Duration::from_secs(60);

/// A runtime with directories and cgroups of its own.
pub(crate) struct Agent {
    runtime: Option<(tokio::runtime::Runtime, Runtime)>,
    work: tempfile::TempDir,
    /// What the operator has allowed tasks to mount.
    shared: tempfile::TempDir,
    cgroup_parent: String,
    /// A bridge and addresses that no other test has.
    pub(crate) network: NetworkConfig,
    rights: Rights,
}

/// What a container left in its sandbox, and how it ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) status: Option<ExitStatus>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Agent {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let work = tempfile::Builder::new()
            .prefix("divvy-")
            .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
            .expect("a directory");
        let shared = tempfile::tempdir().expect("a directory");
        let cgroup_parent = format!("divvy-test/{}-{number}", std::process::id());
        let network = crate::networks::config(work.path(), number);
        let mut agent =
            Self { runtime: None, work, network, shared, cgroup_parent, rights: Rights::default() };
        agent.start();
        agent
    }

    fn start(&mut self) {
        let tokio = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("tokio");
        let runtime = Runtime::new(RuntimeConfig {
            state_dir: self.state_dir(),
            cgroup_parent: self.cgroup_parent.clone(),
            shim: vec![
                std::env::current_exe().expect("this binary").into_os_string(),
                OsString::from("shim"),
            ],
            hidden: vec![],
            network: self.network.clone(),
            logs: LogLimits { max_size: 64 << 10, max_files: 3 },
            allow_host_paths: vec![self.shared.path().to_owned()],
            secrets_dir: Some(self.work.path().join("secrets")),
            rights: self.rights.clone(),
        });
        self.runtime = Some((tokio, runtime.expect("a host that can run containers")));
    }

    /// Nothing of the agent runs, as after `kill -9`; then `meanwhile` happens; then there is a new one.
    pub(crate) fn restart(&mut self, meanwhile: impl FnOnce(&Self)) {
        self.runtime = None;
        meanwhile(self);
        self.start();
    }

    /// The operator starts the agent anew, and has it give containers more.
    pub(crate) fn allow(&mut self, rights: Rights) {
        self.rights = rights;
        self.restart(|_| {});
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.work.path().join("containers")
    }

    /// Below this directory, tasks may mount the host's files.
    pub(crate) fn shared(&self) -> PathBuf {
        self.shared.path().canonicalize().expect("a directory")
    }

    pub(crate) fn work_dir(&self) -> &Path {
        self.work.path()
    }

    /// A container `web` that runs a line of shell as nobody.
    pub(crate) fn shell(&self, line: &str) -> ContainerSpec {
        self.spec("web", &["/bin/sh", "-c", line])
    }

    pub(crate) fn spec(&self, id: &str, argv: &[&str]) -> ContainerSpec {
        let sandbox = self.work.path().join("sandboxes").join(id);
        fs::create_dir_all(&sandbox).expect("a sandbox");
        let env = [("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), ("MARK", self.mark()), ("SECRET", "hunter2")];
        let id = ContainerId::new(id).expect("an id");
        let hostname = Hostname::new(id.as_str().get(..63).unwrap_or(id.as_str())).expect("a name");
        let user = UserName::new("nobody").expect("a user");
        ContainerSpec {
            argv: argv.iter().map(|text| (*text).to_owned()).collect(),
            env: BTreeMap::from(env.map(|(name, value)| (name.to_owned(), value.to_owned()))),
            cpus: "0.1".parse::<Cpus>().expect("cpus"),
            ..ContainerSpec::plain(id, hostname, sandbox, user, (Bytes::mib(64), 64))
        }
    }

    /// What everything that belongs to this agent has in its environment or command line.
    fn mark(&self) -> &str {
        self.work.path().to_str().expect("a path of text")
    }

    fn runtime(&self) -> (&tokio::runtime::Runtime, &Runtime) {
        let (tokio, runtime) = self.runtime.as_ref().expect("a started agent");
        (tokio, runtime)
    }

    fn block_on<T>(&self, what: &str, work: impl Future<Output = T>) -> T {
        let (tokio, _) = self.runtime();
        tokio
            .block_on(async { tokio::time::timeout(DEADLINE, work).await })
            .unwrap_or_else(|_| panic!("{what} takes forever"))
    }

    pub(crate) fn start_container(&self, spec: &ContainerSpec) -> Started {
        self.block_on("launch", self.runtime().1.launch(spec)).expect("a container that starts")
    }

    pub(crate) fn try_launch(&self, spec: &ContainerSpec) -> Result<u32, LaunchError> {
        self.block_on("launch", self.runtime().1.launch(spec)).map(|started| started.pid)
    }

    pub(crate) fn launch(&self, spec: &ContainerSpec) -> u32 {
        self.try_launch(spec).expect("a container that starts")
    }

    /// Launches, and waits until the program has made the file `ready` in its sandbox.
    pub(crate) fn launch_until_ready(&self, spec: &ContainerSpec) -> u32 {
        let pid = self.launch(spec);
        eventually("the program is ready", || spec.sandbox.join("ready").exists());
        pid
    }

    pub(crate) fn wait(&self, spec: &ContainerSpec) -> Exited {
        self.block_on("wait", self.runtime().1.wait(&spec.id)).expect("an end")
    }

    pub(crate) fn state(&self, spec: &ContainerSpec) -> ContainerState {
        self.block_on("state", self.runtime().1.state(&spec.id)).expect("a state")
    }

    pub(crate) fn signal(&self, spec: &ContainerSpec, signal: &str) {
        let signal = signal.parse::<StopSignal>().expect("a signal");
        self.block_on("signal", self.runtime().1.signal(&spec.id, signal)).expect("a signal");
    }

    pub(crate) fn usage(&self, spec: &ContainerSpec) -> Usage {
        self.block_on("usage", self.runtime().1.usage(&spec.id)).expect("the usage")
    }

    pub(crate) fn update(&self, spec: &ContainerSpec) {
        self.block_on("update", self.runtime().1.update(spec)).expect("new limits");
    }

    pub(crate) fn destroy(&self, spec: &ContainerSpec) {
        self.block_on("destroy", self.runtime().1.destroy(&spec.id)).expect("an end");
    }

    pub(crate) fn exec(
        &self,
        spec: &ContainerSpec,
        line: &str,
        timeout: Duration,
    ) -> Result<ExecResult, RuntimeError> {
        let argv = ["/bin/sh", "-c", line].map(str::to_owned);
        self.block_on("exec", self.runtime().1.exec(&spec.id, &argv, timeout))
    }

    /// Runs a command that somebody is attached to, who then talks.
    pub(crate) fn attach<T, F: Future<Output = T>>(
        &self,
        spec: &ContainerSpec,
        start: divvy_proto::exec::ExecStart,
        talk: impl FnOnce(Attached) -> F,
    ) -> T {
        let (_, runtime) = self.runtime();
        let talk = async { talk(runtime.attach(&spec.id, start).await.expect("a command")).await };
        self.block_on("a command that somebody is attached to", talk)
    }

    pub(crate) fn list(&self) -> Vec<String> {
        let ids = self.block_on("list", self.runtime().1.list()).expect("a list");
        ids.iter().map(ToString::to_string).collect()
    }

    /// Waits for one container while destroying it.
    pub(crate) fn wait_and_destroy(&self, spec: &ContainerSpec) -> Exited {
        let (_, runtime) = self.runtime();
        let both = async { tokio::join!(runtime.wait(&spec.id), runtime.destroy(&spec.id)) };
        let (exited, destroyed) = self.block_on("wait and destroy", both);
        destroyed.expect("an end");
        exited.expect("an end")
    }

    /// From launch to end.
    pub(crate) fn run(&self, spec: &ContainerSpec) -> Outcome {
        self.launch(spec);
        let exited = self.wait(spec);
        self.destroy(spec);
        let log = |name| fs::read_to_string(spec.sandbox.join(name)).expect("a log");
        Outcome { status: exited.status, stdout: log("stdout"), stderr: log("stderr") }
    }

    /// What a line of shell prints that ends well.
    pub(crate) fn output(&self, line: &str) -> String {
        let outcome = self.run(&self.shell(line));
        assert_eq!(
            (outcome.status, outcome.stderr.as_str()),
            (Some(ExitStatus::Code(0)), ""),
            "{}",
            outcome.stdout
        );
        outcome.stdout
    }

    /// A file of the container's cgroup, from whichever tree has it.
    pub(crate) fn cgroup_file(&self, spec: &ContainerSpec, name: &str) -> String {
        let group = Path::new(&self.cgroup_parent).join(spec.id.as_str());
        let mut trees = cgroup_trees().into_iter().map(|tree| tree.join(&group).join(name));
        let file = trees.find(|file| file.exists()).unwrap_or_else(|| panic!("no {name}"));
        fs::read_to_string(file).expect("a file of the kernel")
    }

    /// Makes the cgroups of a container that does not exist, as a launch does that is interrupted.
    pub(crate) fn make_cgroups(&self, id: &str) {
        let trees = cgroup_trees().into_iter().filter(|tree| tree.join(&self.cgroup_parent).exists());
        trees.for_each(|tree| fs::create_dir(tree.join(&self.cgroup_parent).join(id)).expect("a cgroup"));
    }

    pub(crate) fn put_into_cgroup(&self, spec: &ContainerSpec, pid: u32) {
        let group = Path::new(&self.cgroup_parent).join(spec.id.as_str()).join("cgroup.procs");
        let files = cgroup_trees().into_iter().map(|tree| tree.join(&group)).filter(|file| file.exists());
        files.for_each(|file| fs::write(file, pid.to_string()).expect("a cgroup that takes processes"));
    }

    pub(crate) fn kill_shim(&self) {
        let shim = self.signal_shim("KILL");
        eventually("the shim is gone", || !alive(shim));
    }

    pub(crate) fn signal_shim(&self, signal: &str) -> u32 {
        let shim = self.shim();
        send(signal, shim);
        shim
    }

    fn shim(&self) -> u32 {
        let ours = format!("shim run {}", self.mark());
        let shims: Vec<_> = processes().filter(|pid| command_line(*pid).contains(&ours)).collect();
        let [shim] = shims[..] else { panic!("one shim expected, not {shims:?}") };
        shim
    }

    /// Kills the parent of the only shim.
    pub(crate) fn kill_nursery(&self) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.shim())).expect("a shim");
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("a parent");
        let nursery: u32 = parent.trim().parse().expect("a pid");
        assert!(command_line(nursery).contains("shim nursery"), "{}", command_line(nursery));
        send("KILL", nursery);
        eventually("the nursery is gone", || !alive(nursery));
    }

    pub(crate) fn shim_shows(&self, text: &str) -> bool {
        let shims = processes().filter(|pid| command_line(*pid).contains("shim run"));
        shims.into_iter().any(|pid| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            command_line(pid).contains(text) || String::from_utf8_lossy(&environment).contains(text)
        })
    }

    pub(crate) fn destroy_all(&mut self) {
        if self.runtime.is_none() {
            self.start();
        }
        let (_, runtime) = self.runtime();
        self.block_on("destroy all", async {
            for id in runtime.list().await.expect("a list") {
                runtime.destroy(&id).await.expect("an end");
            }
        });
    }

    /// The agent leaves for good; what it leaves all the same.
    pub(crate) fn retire(&self) -> Vec<String> {
        self.block_on("retire", self.runtime().1.retire()).expect("an end");
        let parents = cgroup_trees().into_iter().map(|tree| tree.join(&self.cgroup_parent));
        parents
            .filter(|parent| parent.exists())
            .map(|parent| format!("cgroup {}", parent.display()))
            .collect()
    }

    /// The count: processes, mounts, cgroups, networks and state.
    pub(crate) fn left_behind(&self) -> Vec<String> {
        let mut left: Vec<_> = processes()
            .filter(|pid| self.owns(*pid))
            .map(|pid| format!("process {pid}: {}", command_line(pid)))
            .collect();
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        left.extend(
            mounts.lines().filter(|line| line.contains(self.mark())).map(|line| format!("mount {line}")),
        );
        for parent in cgroup_trees()
            .into_iter()
            .map(|tree| tree.join(&self.cgroup_parent))
            .filter(|parent| parent.exists())
        {
            left.extend(directories(&parent).into_iter().map(|group| format!("cgroup {}", group.display())));
        }
        left.extend(crate::networks::left_behind(&self.network));
        left.extend(
            directories(&self.state_dir()).into_iter().map(|state| format!("state {}", state.display())),
        );
        left
    }

    /// How many processes of this agent's containers have this command line.
    pub(crate) fn count(&self, command: &str) -> usize {
        processes().filter(|pid| self.owns(*pid) && command_line(*pid).trim() == command).count()
    }

    fn owns(&self, pid: u32) -> bool {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        command_line(pid).contains(self.mark()) || String::from_utf8_lossy(&environment).contains(self.mark())
    }
}

/// Waits for a condition. The only place that looks twice, and not so often that nothing else gets on.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn send(signal: &str, pid: u32) {
    let status = std::process::Command::new("/bin/kill").args(["-s", signal, &pid.to_string()]).status();
    assert!(status.expect("kill").success());
}

pub(crate) fn alive(pid: u32) -> bool {
    // A zombie has no command line.
    !command_line(pid).is_empty()
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn command_line(pid: u32) -> String {
    let text = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&text).replace('\0', " ")
}

fn directories(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// Marks a cgroup as systemd does that it delegates (systemd: `Delegate=yes`).
pub(crate) fn delegate(group: &Path) {
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(group, "trusted.delegate", b"1", flags).expect("a cgroup of version 2");
}

pub(crate) fn cgroup_v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// The roots of all cgroup trees: `/sys/fs/cgroup` itself where that is version 2, else what is mounted below it. The part
/// that has been delegated, if a test has had that done.
fn cgroup_trees() -> Vec<PathBuf> {
    let root =
        std::env::var_os("DIVVY_TEST_CGROUP").map_or_else(|| PathBuf::from("/sys/fs/cgroup"), PathBuf::from);
    if root.join("cgroup.controllers").exists() { vec![root] } else { directories(&root) }
}
