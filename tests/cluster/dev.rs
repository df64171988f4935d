//! `divvy dev`: a whole cluster in one process, which leaves nothing but files.

use std::path::Path;
use std::time::Duration;

use divvy_service::api_types::AppStatus;

use crate::harness::{
    Footprint, Ports, Process, SOON, app_file, is_alive, run, show_log_of_failure, wait_until,
};

/// How long a user waits for the end of everything; a task may take 3 s of grace.
const PROMPTLY: Duration = Duration::from_secs(20);

/// `divvy dev` with two agents in one directory.
struct Dev {
    dir: tempfile::TempDir,
    ports: Ports,
}

impl Dev {
    fn start(&self) -> Process {
        let (listen, data) =
            (format!("--listen={}", self.master()), format!("--data-dir={}", self.data().display()));
        let mut process =
            Process::start(&["dev", &listen, "--agents=2", &data], &self.dir.path().join("dev.log"));
        process.wait_until_ready();
        process
    }

    fn master(&self) -> String {
        format!("127.0.0.1:{}", self.ports.master())
    }

    fn data(&self) -> std::path::PathBuf {
        self.dir.path().join("data")
    }

    /// Runs a command that must succeed.
    fn divvy(&self, arguments: &[&str]) -> String {
        let master = format!("--master={}", self.master());
        let binary = Path::new(env!("CARGO_BIN_EXE_divvy"));
        run(binary, &[&[master.as_str()], arguments].concat(), &self.dir.path().join("cli")).ok()
    }

    fn web(&self) -> AppStatus {
        serde_json::from_str(&self.divvy(&["service", "status", "web", "-o", "json"])).expect("an app")
    }

    fn footprint(&self) -> Footprint {
        let mut footprint = Footprint::of_dir(self.dir.path());
        for agent in ["agent-1", "agent-2"] {
            footprint.add_agent(&self.data().join("agents").join(agent), agent);
        }
        footprint
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        show_log_of_failure("dev", "dev", &self.dir.path().join("dev.log"));
        self.footprint().remove();
    }
}

#[test]
fn divvy_dev_leaves_nothing_but_files_and_finds_its_apps_again() {
    let dir = tempfile::Builder::new().prefix("divvy-cluster-").tempdir().expect("a temporary directory");
    let dev = Dev { dir, ports: Ports::take() };
    // Without ports: those of any other `divvy dev` on this machine are the same.
    let file = dev.dir.path().join("web.toml");
    std::fs::write(&file, app_file("web", 3, "exec sleep 100000", "")).expect("a file");
    let file = file.to_str().expect("a path in UTF-8");

    let mut process = dev.start();
    dev.divvy(&["service", "apply", file, "--wait"]);
    let pids: Vec<u32> = dev.web().tasks.iter().filter_map(|task| task.pid).collect();
    assert_eq!((pids.len(), dev.footprint().cgroups().is_empty()), (3, false));

    let status = process.terminate(PROMPTLY);
    assert_eq!(status.code(), Some(0), "{}", process.output());
    let alive: Vec<u32> =
        pids.into_iter().filter(|pid| is_alive(i32::try_from(*pid).expect("a pid"))).collect();
    assert_eq!((dev.footprint().list(), alive), (Vec::<String>::new(), Vec::<u32>::new()));

    let mut process = dev.start();
    wait_until("the app comes back by itself", SOON, || dev.web().healthy == 3);
    assert_eq!(process.terminate(PROMPTLY).code(), Some(0), "{}", process.output());
    assert_eq!(dev.footprint().list(), Vec::<String>::new());
}
