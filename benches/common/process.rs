//! A part of Divvy as a process of its own, and what the kernel says of it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a process may take to end after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(20);

/// The kernel counts processor time in hundredths of a second for its readers, on every architecture (USER_HZ).
const TICK_MS: u64 = 10;

/// A server. Killed when dropped.
pub struct Divvy {
    child: Child,
    /// Where it listens: `http://127.0.0.1:41234`.
    pub url: String,
    /// Open, so that a late line of it is no error.
    _stdout: BufReader<ChildStdout>,
}

impl Divvy {
    /// Starts the `divvy` of the bench's profile and waits until it says `ready`. Its log goes to `dir`.
    pub fn start(arguments: &[&str], dir: &Path) -> Result<Self> {
        Self::start_program(Path::new(env!("CARGO_BIN_EXE_divvy")), arguments, dir)
    }

    /// Starts any program that prints its address as the second word of a line, and then `ready`.
    pub fn start_program(program: &Path, arguments: &[&str], dir: &Path) -> Result<Self> {
        let name = arguments.first().copied().unwrap_or_default().trim_start_matches('-');
        let log = dir.join(format!("{name}.log"));
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(File::create(&log).context("cannot make a log")?).env("RUST_LOG", "warn");
        // A user's settings have no business in a measurement.
        for (setting, _) in std::env::vars_os() {
            if setting.to_string_lossy().starts_with("DIVVY_") {
                command.env_remove(setting);
            }
        }
        let mut child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let mut stdout = BufReader::new(child.stdout.take().context("no standard output")?);
        let url = ready(&mut stdout);
        let Some(url) = url else {
            let _ = child.kill();
            let _ = child.wait();
            bail!("{name} has not started: {}", fs::read_to_string(&log).unwrap_or_default());
        };
        Ok(Self { child, url, _stdout: stdout })
    }

    /// Processor time that it has used so far, and with that of all children that it has waited for.
    pub fn cpu(&self) -> Result<(Duration, Duration)> {
        Self::cpu_of(self.child.id())
    }

    /// Processor time that a process has used so far, and with that of all children that it has waited for.
    pub fn cpu_of(pid: u32) -> Result<(Duration, Duration)> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name is in parentheses and may hold anything; utime is the twelfth field after it.
        let (_, rest) = stat.rsplit_once(") ").context("no name in stat")?;
        let ticks: Vec<u64> = rest.split(' ').skip(11).take(4).map(str::parse).collect::<Result<_, _>>()?;
        let [user, system, children_user, children_system] = *ticks else { bail!("stat is short: {stat}") };
        let time = |ticks: u64| Duration::from_millis(ticks * TICK_MS);
        let own = user + system;
        Ok((time(own), time(own + children_user + children_system)))
    }

    /// The processes that it has started and not waited for.
    pub fn children(&self) -> Result<Vec<u32>> {
        let mut children = Vec::new();
        for thread in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            // A thread may have ended meanwhile.
            let text = fs::read_to_string(thread?.path().join("children")).unwrap_or_default();
            children.extend(text.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
        Ok(children)
    }

    /// Resident memory in KiB, now and at most.
    pub fn memory(&self) -> Result<(u64, u64)> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let field = |name: &str| -> Result<u64> {
            let line =
                status.lines().find_map(|line| line.strip_prefix(name)).context("a field is missing")?;
            Ok(line.trim().trim_end_matches(" kB").parse()?)
        };
        Ok((field("VmRSS:")?, field("VmHWM:")?))
    }

    /// Asks it to end and waits for that.
    pub fn stop(mut self) -> Result<()> {
        kill(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGTERM)?;
        let end = Instant::now() + PATIENCE;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > end {
                bail!("a process does not end within {PATIENCE:?} after SIGTERM");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Divvy {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The address that was printed before `ready`; none if the process ended first.
fn ready(stdout: &mut BufReader<ChildStdout>) -> Option<String> {
    let mut url = None;
    loop {
        let mut line = String::new();
        if stdout.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "ready" => return url,
            other => url = other.split_whitespace().nth(1).map(str::to_owned).or(url),
        }
    }
}
