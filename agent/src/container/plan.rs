//! What the agent hands to the shim, and the files by which both remember a container: its *record*, one directory per
//! container below the runtime's state directory.
//!
//! Not here: the sandbox, which belongs to the task and outlives the container.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::cgroup;
use super::isolators::{network, rootfs, security, userns};
use super::spec::{ContainerSpec, Exited};
use crate::disk::Bin;
use crate::log::LogLimits;
use crate::network::Attachment;

/// A container, worked out: what was asked for, and what each isolator made of it. The shim needs nothing else.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// What was asked for.
    pub(crate) spec: ContainerSpec,
    /// The cgroup below each hierarchy's root.
    pub(crate) group: cgroup::Group,
    /// The way into it.
    pub(crate) entrance: cgroup::Entrance,
    /// What it is connected to.
    #[serde(default)]
    pub(crate) network: network::Wiring,
    /// What the container sees as its files.
    pub(crate) layout: rootfs::Layout,
    /// Whom the program runs as, on the host.
    pub(crate) identity: security::Identity,
    /// Where its ids are others than on the host.
    #[serde(default)]
    pub(crate) userns: Option<userns::UserNamespace>,
    /// How much of its logs is kept.
    #[serde(default)]
    pub(crate) logs: LogLimits,
    /// Where its stdout and stderr go: made by the shim, for its child.
    #[serde(skip)]
    pub(crate) pipes: Option<LogPipes>,
}

/// The container's ends of the pipes that its logs come from.
#[derive(Debug)]
pub(crate) struct LogPipes {
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// The shim's note that the program has been executed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Running {
    /// The first process as the host sees it.
    pub(crate) pid: u32,
    /// The shim itself.
    pub(crate) shim: u32,
    /// When it started, in clock ticks since boot: another process of that pid is not it.
    pub(crate) shim_start: Option<u64>,
    /// The boot that it belongs to: after the next one, the pid means nothing.
    pub(crate) boot: String,
}

/// A container's directory. It exists before anything of the container does, and goes after everything of it has gone.
#[derive(Debug, Clone)]
pub(crate) struct Record(PathBuf);

impl Record {
    pub(crate) fn at(directory: PathBuf) -> Self {
        Self(directory)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Makes the directory, which must not exist. Only root may look into it: plans hold environments.
    pub(crate) fn create(&self) -> io::Result<()> {
        fs::DirBuilder::new().mode(0o700).create(&self.0)
    }

    /// Where the container's root is put together, in its own mount namespace: for the host this is an empty directory.
    pub(crate) fn root(&self) -> PathBuf {
        self.0.join("root")
    }

    /// What the container sees as `/tmp` and `/var/tmp`.
    pub(crate) fn tmp(&self) -> PathBuf {
        self.0.join("tmp")
    }

    /// What the container writes to its image's files.
    pub(crate) fn upper(&self) -> PathBuf {
        self.0.join("upper")
    }

    /// What the kernel needs beside that.
    pub(crate) fn work(&self) -> PathBuf {
        self.0.join("work")
    }

    /// Where the container's secrets are put together, in its own mount namespace: for the host this is an empty directory.
    pub(crate) fn secrets(&self) -> PathBuf {
        self.0.join("secrets")
    }

    /// The shim's socket, by a path that is short enough for a socket address however deep the directory lies. It is good
    /// for as long as the returned handle is.
    pub(crate) fn socket(&self) -> io::Result<(File, PathBuf)> {
        let directory =
            OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | libc::O_PATH).open(&self.0)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}/socket", directory.as_raw_fd()));
        Ok((directory, path))
    }

    pub(crate) fn plan(&self) -> io::Result<Option<Plan>> {
        read(&self.0.join("plan.json"))
    }

    pub(crate) fn write_plan(&self, plan: &Plan) -> io::Result<()> {
        write(&self.0.join("plan.json"), plan)
    }

    pub(crate) fn running(&self) -> io::Result<Option<Running>> {
        read(&self.0.join("running.json"))
    }

    pub(crate) fn write_running(&self, running: &Running) -> io::Result<()> {
        write(&self.0.join("running.json"), running)
    }

    /// What ties the container to a network, written down before it does.
    pub(crate) fn attachment(&self) -> io::Result<Option<Attachment>> {
        read(&self.0.join("network.json"))
    }

    pub(crate) fn write_attachment(&self, attachment: &Attachment) -> io::Result<()> {
        write(&self.0.join("network.json"), attachment)
    }

    /// Keeps the container's network namespace until it has been detached.
    pub(crate) fn network_pin(&self) -> PathBuf {
        self.0.join("netns")
    }

    /// What the network's plugins log.
    pub(crate) fn network_log(&self) -> PathBuf {
        self.0.join("network.log")
    }

    pub(crate) fn exited(&self) -> io::Result<Option<Exited>> {
        read(&self.0.join("exited.json"))
    }

    /// It survives the shim and the agent, not the loss of power: that ends all containers, and whoever needs to know how one
    /// ended before has it from the agent's checkpoint.
    pub(crate) fn write_exited(&self, exited: &Exited) -> io::Result<()> {
        write(&self.0.join("exited.json"), exited)
    }

    /// Removes the directory with all that is in it.
    pub(crate) fn remove(&self, bin: &Bin) -> io::Result<()> {
        bin.throw(&self.0)
    }
}

/// Replaces a file as a whole: readers find all of it or nothing, whenever its writer dies.
fn write(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let draft = path.with_extension("draft");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    fs::rename(&draft, path)
}

/// What a file says; `None` if there is none, or if it is not whole. Then it is set aside: what is known of the container is
/// what it would be without the file, and it can still be destroyed.
fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let text = match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    match serde_json::from_slice(&text) {
        Ok(value) => Ok(Some(value)),
        Err(why) => {
            let aside = path.with_extension("json.corrupt");
            tracing::error!("{} is not whole ({why}); it is kept as {}", path.display(), aside.display());
            fs::rename(path, aside)?;
            Ok(None)
        }
    }
}

/// Names this boot of the machine.
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use divvy_proto::Timestamp;
    use divvy_proto::task::ExitStatus;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// They were written once, and a disk has changed them since.
        #[test]
        fn notes_that_are_not_whole_are_set_aside(bytes: Vec<u8>, cut in 0_usize..1000) {
            let directory = tempfile::tempdir().expect("a directory");
            let record = Record::at(directory.path().to_owned());
            let exited = Exited { status: Some(ExitStatus::Code(3)), oom: None, at: Timestamp(5) };
            record.write_exited(&exited).expect("a note");
            prop_assert_eq!(record.exited().expect("a note"), Some(exited));
            let path = |name: &str| directory.path().join(name);
            let mut whole = fs::read(path("exited.json")).expect("a note");
            whole.truncate(cut % whole.len());
            for (name, content) in [("exited.json", &whole), ("running.json", &bytes), ("plan.json", &bytes)] {
                fs::write(path(name), content).expect("a note");
            }
            let read = (record.exited().expect("none"), record.running().expect("none"), record.plan().expect("none").is_some());
            prop_assert_eq!(read, (None, None, false));
            prop_assert_eq!(fs::read(path("running.json.corrupt")).expect("it is kept"), bytes);
            let bin = Bin::beside(directory.path()).expect("a bin");
            record.remove(&bin).expect("an end");
        }
    }
}
