//! An image's layers under an upper one that is the container's own.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::unistd::chdir;
use serde::{Deserialize, Serialize};

use super::super::{step, step_on};
use crate::container::LaunchError;
use crate::container::plan::Record;

/// The directories of an overlay.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Overlay {
    /// The lowest first.
    layers: Vec<PathBuf>,
    upper: PathBuf,
    /// The kernel's own, on the file system of the upper one.
    work: PathBuf,
}

impl Overlay {
    pub(super) fn prepare(record: &Record, layers: &[PathBuf]) -> Result<Self, LaunchError> {
        if layers.is_empty() {
            return Err(step("put the image together")("it has no layers"));
        }
        for layer in layers {
            let metadata = fs::metadata(layer).map_err(step_on("find the image's layer", layer))?;
            if !metadata.is_dir() {
                return Err(step_on("find the image's layer", layer)("it is not a directory"));
            }
        }
        let (upper, work) = (record.upper(), record.work());
        for directory in [&upper, &work] {
            fs::create_dir(directory).map_err(step_on("create", directory))?;
        }
        // The root directory of the container has its mode.
        fs::set_permissions(&upper, fs::Permissions::from_mode(0o755))
            .map_err(step_on("open to all", &upper))?;
        Ok(Self { layers: layers.to_vec(), upper, work })
    }

    /// Mounts it. The options of a mount are at most a page, so that each directory is told by the number of its descriptor.
    pub(super) fn mount(&self, target: &Path) -> Result<(), LaunchError> {
        let layers = self.layers.iter().rev().map(|layer| handle(layer)).collect::<Result<Vec<_>, _>>()?;
        let (upper, work) = (handle(&self.upper)?, handle(&self.work)?);
        let lower: Vec<_> = layers.iter().map(|layer| layer.as_raw_fd().to_string()).collect();
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.join(":"),
            upper.as_raw_fd(),
            work.as_raw_fd()
        );
        chdir("/proc/self/fd").map_err(step("enter /proc/self/fd"))?;
        // Nothing of the upper layer outlives the container, let alone the machine's next crash: it need not be synchronized
        // (Linux 5.10).
        let mounted = match overlay(target, &format!("{options},{CLOSED},volatile")) {
            Err(Errno::EINVAL) => overlay(target, &format!("{options},{CLOSED}")),
            other => other,
        };
        chdir("/").map_err(step("leave /proc/self/fd"))?;
        mounted.map_err(|errno| self.why(errno))
    }

    fn why(&self, errno: Errno) -> LaunchError {
        let failed = step(format!("mount the image's {} layers", self.layers.len()));
        match errno {
            Errno::ENODEV => failed("this kernel has no overlay file system; load the module overlay"),
            Errno::EINVAL => failed(&format!(
                "the file system of {} cannot be written to through an overlay; give the agent a --work-dir on ext4, xfs or tmpfs",
                self.upper.display()
            )),
            errno => failed(errno.desc()),
        }
    }
}

/// Layers come from strangers: what they say of other files' places is not followed.
const CLOSED: &str = "redirect_dir=nofollow,metacopy=off,index=off";

/// The device nodes that an image, or root in it, could have made are no devices: those in `/dev` are mounted.
fn overlay(target: &Path, options: &str) -> nix::Result<()> {
    mount(Some("overlay"), target, Some("overlay"), MsFlags::MS_NODEV, Some(options))
}

fn handle(directory: &Path) -> Result<File, LaunchError> {
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(directory);
    opened.map_err(step_on("open", directory))
}
