//! Plugins as processes: started with a configuration, waited for, and understood.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::NetworkError;
use crate::container::{ended_within, pidfd_open};

/// The longest that a plugin may take; one that asks a DHCP server is the slowest.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where plugins find `iptables` and the like.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The interface in the container.
const INTERFACE: &str = "eth0";

/// What a plugin is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Add,
    Del,
}

/// For whom plugins work.
pub(super) struct Errand<'a> {
    /// Names the container among all of the machine.
    pub(super) id: &'a str,
    /// Its network namespace, while there is one.
    pub(super) namespace: Option<&'a Path>,
    /// Where plugins are looked for.
    pub(super) directories: &'a [PathBuf],
    /// Takes what plugins log. It is locked, and each plugin holds the lock as long as it runs, also if the agent dies.
    pub(super) log: &'a File,
}

/// Where a plugin's program is.
pub(super) fn find(directories: &[PathBuf], plugin: &str) -> Result<PathBuf, NetworkError> {
    let mut candidates = directories.iter().map(|directory| directory.join(plugin));
    candidates.find(|candidate| candidate.is_file()).ok_or_else(|| {
        let directories: Vec<_> = directories.iter().map(|path| path.display().to_string()).collect();
        NetworkError::NoPlugin { plugin: plugin.to_owned(), directories: directories.join(", ") }
    })
}

impl Errand<'_> {
    /// Runs a plugin to its end, and answers with its result; `Null` if it has none.
    pub(super) fn run(&self, verb: Verb, plugin: &str, told: &Value) -> Result<Value, NetworkError> {
        let failed = |what: String| NetworkError::Plugin { plugin: plugin.to_owned(), what };
        let program = find(self.directories, plugin)?;
        let (succeeded, output) = self
            .run_program(verb, &program, told)
            .map_err(|error| failed(format!("cannot be run: {error}")))?;
        if !succeeded {
            return Err(failed(why(verb, &output)));
        }
        if output.trim_ascii().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&output)
            .map_err(|error| failed(format!("has a result that is no JSON: {error}")))
    }

    /// Files instead of pipes: nobody waits for anybody but for the end.
    fn run_program(&self, verb: Verb, program: &Path, told: &Value) -> io::Result<(bool, Vec<u8>)> {
        let (mut stdin, mut stdout) = (tempfile::tempfile()?, tempfile::tempfile()?);
        stdin.write_all(&serde_json::to_vec(told)?)?;
        stdin.seek(SeekFrom::Start(0))?;
        let path = std::env::join_paths(self.directories).map_err(io::Error::other)?;
        let mut child = Command::new(program)
            .env_clear()
            .env("PATH", PATH)
            .env("CNI_COMMAND", if verb == Verb::Add { "ADD" } else { "DEL" })
            .env("CNI_CONTAINERID", self.id)
            .env("CNI_NETNS", self.namespace.unwrap_or(Path::new("")))
            .env("CNI_IFNAME", INTERFACE)
            .env("CNI_PATH", path)
            .stdin(stdin)
            .stdout(stdout.try_clone()?)
            .stderr(Stdio::from(self.log.try_clone()?))
            .spawn()?;
        let ended = match pidfd_open(child.id()) {
            Ok(Some(pidfd)) => ended_within(&pidfd, PATIENCE),
            other => other.map(|_| true),
        };
        if !ended.as_ref().is_ok_and(|ended| *ended) {
            child.kill()?;
            child.wait()?;
            return Err(ended.err().unwrap_or_else(|| io::ErrorKind::TimedOut.into()));
        }
        let status = child.wait()?;
        let mut output = Vec::new();
        stdout.seek(SeekFrom::Start(0))?;
        stdout.read_to_end(&mut output)?;
        Ok((status.success(), output))
    }
}

/// A plugin's error, as the specification has it.
#[derive(Debug, Deserialize)]
struct Failure {
    #[serde(default)]
    msg: String,
    #[serde(default)]
    details: String,
}

fn why(verb: Verb, output: &[u8]) -> String {
    let what = if verb == Verb::Add { "does not attach it" } else { "does not detach it" };
    match serde_json::from_slice::<Failure>(output) {
        Ok(Failure { msg, details }) if details.is_empty() => format!("{what}: {msg}"),
        Ok(Failure { msg, details }) => format!("{what}: {msg} ({details})"),
        Err(_) => format!("{what}, and does not say why"),
    }
}
