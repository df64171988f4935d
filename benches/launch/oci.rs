//! Peers: OCI runtimes with their own default bundle (`runc spec`), but for the command and the terminal.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::json;
use tempfile::TempDir;

use crate::floor::run;
use crate::subject::{Parallel, Sample, Subject, on_threads};

/// `runc` or `crun`.
pub struct Runtime {
    program: &'static str,
    version: String,
    /// Runs [`crate::COMMAND`].
    ends: PathBuf,
    /// Runs until it is killed.
    stays: PathBuf,
    dir: TempDir,
    count: AtomicUsize,
}

impl Runtime {
    /// Makes bundles for a runtime, and tries it.
    ///
    /// # Errors
    /// It is not installed, or does not work here; why.
    pub fn find(program: &'static str) -> Result<Self> {
        let version = version_of(program).context("not installed")?;
        let dir = tempfile::Builder::new().prefix("divvy-bench-").tempdir()?;
        let rootfs = dir.path().join("rootfs");
        make_rootfs(&rootfs)?;
        let [ends, stays] = ["ends", "stays"].map(|name| dir.path().join(name));
        make_bundle(program, &ends, &rootfs, &crate::COMMAND)?;
        make_bundle(program, &stays, &rootfs, &["/bin/busybox", "sleep", "600"])?;
        let version = version.trim_start_matches(program).trim_start_matches(" version").trim().to_owned();
        let runtime = Self { program, version, ends, stays, dir, count: AtomicUsize::new(0) };
        let tried = runtime.command(&["run", "--bundle"]).arg(&runtime.ends).arg(runtime.next()).output()?;
        if !tried.status.success() {
            bail!("does not work here: {}", String::from_utf8_lossy(&tried.stderr).trim());
        }
        Ok(runtime)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.program);
        // Its own place for state: nobody else's containers are near.
        command.arg("--root").arg(self.dir.path().join("state")).args(arguments);
        command
    }

    fn next(&self) -> String {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        format!("divvy-bench-{}-{count}", std::process::id())
    }

    /// Start, run, exit, remove.
    fn run(&self) -> Result<()> {
        run(self.command(&["run", "--bundle"]).arg(&self.ends).arg(self.next()))
    }
}

impl Subject for Runtime {
    fn name(&self) -> String {
        format!("{} run, default bundle ({})", self.program, self.version)
    }

    fn sample(&mut self) -> Result<Sample> {
        let (id, begun) = (self.next(), Instant::now());
        let started = run(self.command(&["run", "--detach", "--bundle"]).arg(&self.stays).arg(&id));
        let running = Some(begun.elapsed());
        let removed = run(&mut self.command(&["delete", "--force", &id]));
        started.and(removed)?;
        let begun = Instant::now();
        self.run()?;
        Ok(Sample { running, ended: begun.elapsed() })
    }

    fn parallel(&mut self, count: usize, width: usize) -> Result<Parallel> {
        on_threads(count, width, || self.run())
    }
}

/// The first line that a program prints about its version; none if it is not installed.
fn version_of(program: &str) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).lines().next()?.to_owned())
}

/// A root file system with busybox and, unless it is static, the libraries that it needs.
fn make_rootfs(rootfs: &Path) -> Result<()> {
    let listed = Command::new("ldd").arg("/bin/busybox").output();
    let listed =
        listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let libraries =
        listed.split_whitespace().filter(|word| word.starts_with('/') && Path::new(word).exists());
    for file in ["/bin/busybox"].into_iter().chain(libraries) {
        let target = rootfs.join(file.trim_start_matches('/'));
        fs::create_dir_all(target.parent().context("a file without a directory")?)?;
        fs::copy(file, &target).with_context(|| format!("cannot copy {file}"))?;
    }
    for mount_point in ["proc", "dev", "sys"] {
        fs::create_dir_all(rootfs.join(mount_point))?;
    }
    Ok(())
}

fn make_bundle(program: &str, bundle: &Path, rootfs: &Path, argv: &[&str]) -> Result<()> {
    fs::create_dir_all(bundle)?;
    let spec = Command::new(program).arg("spec").current_dir(bundle).output()?;
    if !spec.status.success() {
        bail!("{program} spec: {}", String::from_utf8_lossy(&spec.stderr));
    }
    let path = bundle.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path)?)?;
    let mut set = |pointer: &str, value| -> Result<()> {
        let place = config.pointer_mut(pointer);
        *place.with_context(|| format!("{program} spec has no {pointer}"))? = value;
        Ok(())
    };
    set("/process/terminal", json!(false))?;
    set("/process/args", json!(argv))?;
    set("/root/path", json!(rootfs))?;
    Ok(fs::write(&path, serde_json::to_vec(&config)?)?)
}
