//! The host's root, read-only, with what a container must not see covered.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::mount::MsFlags;
use serde::{Deserialize, Serialize};

use super::super::{Host, step_on};
use super::join;
use super::mounts::{bind, make_harmless, make_read_only, tmpfs};
use crate::container::LaunchError;
use crate::container::plan::Record;

/// What differs from what the host has.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct HostRoot {
    /// What is `/tmp` and `/var/tmp`.
    tmp: PathBuf,
    /// Directories that are found empty.
    hidden: Vec<PathBuf>,
    /// A file below `/run` that must stay: what `/etc/resolv.conf` points to.
    resolver: Option<PathBuf>,
}

impl HostRoot {
    pub(super) fn prepare(host: &Host, record: &Record) -> Result<Self, LaunchError> {
        let tmp = record.tmp();
        fs::create_dir(&tmp).map_err(step_on("create", &tmp))?;
        fs::set_permissions(&tmp, fs::Permissions::from_mode(0o1777))
            .map_err(step_on("open to all", &tmp))?;
        let resolver = fs::canonicalize("/etc/resolv.conf").ok().filter(|path| path.starts_with("/run"));
        Ok(Self { tmp, hidden: hidden(host), resolver })
    }

    pub(super) fn mount(&self, root: &Path) -> Result<(), LaunchError> {
        bind(Path::new("/"), root, MsFlags::MS_REC)?;
        // The host may have device nodes anywhere, and programs that belong to root.
        make_harmless(root, true)?;
        make_read_only(root, true)
    }

    /// Covers what is not to be seen, and answers with what must be made read-only once the places of mounts exist in it.
    pub(super) fn cover(&self, root: &Path) -> Result<Vec<PathBuf>, LaunchError> {
        self.temporary(root)?;
        let mut sealed = self.hide(root)?;
        sealed.extend(self.run(root)?);
        Ok(sealed)
    }

    /// `/tmp` and `/var/tmp`. `/var/tmp` is left alone where it is a link.
    fn temporary(&self, root: &Path) -> Result<(), LaunchError> {
        for path in ["/tmp", "/var/tmp"] {
            let target = join(root, Path::new(path));
            if fs::symlink_metadata(&target).is_ok_and(|metadata| metadata.is_dir()) {
                bind(&self.tmp, &target, MsFlags::empty())?;
                make_harmless(&target, false)?;
            }
        }
        Ok(())
    }

    fn hide(&self, root: &Path) -> Result<Vec<PathBuf>, LaunchError> {
        let mut covered = Vec::new();
        for path in &self.hidden {
            let target = join(root, path);
            // It is not there if it lies in something that has been replaced or hidden already.
            if target.is_dir() {
                tmpfs(&target, "mode=755,size=1m")?;
                covered.push(target);
            }
        }
        Ok(covered)
    }

    /// The host's `/run` is full of sockets of its services, and read-only does not keep anyone from connecting.
    fn run(&self, root: &Path) -> Result<Option<PathBuf>, LaunchError> {
        let target = join(root, Path::new("/run"));
        if !target.is_dir() {
            return Ok(None);
        }
        tmpfs(&target, "mode=755,size=1m")?;
        if let Some(resolver) = &self.resolver {
            let place = join(root, resolver);
            place.parent().map_or(Ok(()), fs::create_dir_all).map_err(step_on("create", &place))?;
            fs::File::create(&place).map_err(step_on("create", &place))?;
            bind(resolver, &place, MsFlags::empty())?;
            make_read_only(&place, false)?;
        }
        Ok(Some(target))
    }
}

/// The directories that no container may see. The shallow ones first: what lies in a hidden directory needs no hiding.
pub(super) fn hidden(host: &Host) -> Vec<PathBuf> {
    let config = &host.config;
    let work_dir = config.state_dir.parent().unwrap_or(&config.state_dir);
    let secrets = config.secrets_dir.as_deref();
    let paths = config.hidden.iter().map(PathBuf::as_path).chain([work_dir]).chain(secrets);
    let mut hidden: Vec<_> = paths.filter_map(|path| fs::canonicalize(path).ok()).collect();
    hidden.sort();
    hidden
}
