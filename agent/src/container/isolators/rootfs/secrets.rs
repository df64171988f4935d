//! Secrets: files of the operator's directory, copied into memory that only the container sees.
//!
//! What is in them is read by the container's first process alone, on its way in: no plan, log or disk ever has it.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use divvy_proto::container::SecretFile;
use divvy_proto::ids::SecretName;
use nix::mount::{MsFlags, mount};
use serde::{Deserialize, Serialize};

use super::super::security::Identity;
use super::super::{step, step_on};
use super::mounts::HARMLESS;
use super::place::{Found, Ground, Kind, Links};
use crate::container::plan::Record;

use crate::container::{ContainerSpec, LaunchError, RuntimeConfig};

/// The largest secret: twice what Docker takes.
const LARGEST: u64 = 1 << 20;

/// Where a container's secrets come from, and where they are put together.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Secrets {
    /// The operator's files.
    sources: Vec<(SecretName, PathBuf)>,
    /// An empty directory on the host, which a file system in memory covers in the container's namespace.
    directory: PathBuf,
}

/// Where the container sees a secret.
pub(super) fn target(secret: &SecretFile) -> PathBuf {
    let usual = || Path::new("/run/secrets").join(secret.name.as_str());
    secret.path.as_ref().map_or_else(usual, PathBuf::from)
}

fn refused(name: &SecretName, why: impl Into<String>) -> LaunchError {
    LaunchError::Secret { name: name.clone(), why: why.into() }
}

/// Whether the secrets that a task wants are there.
///
/// # Errors
/// Says which is not, and what the operator can do.
pub(super) fn check(config: &RuntimeConfig, spec: &ContainerSpec) -> Result<(), LaunchError> {
    for secret in &spec.secrets {
        let name = &secret.name;
        super::check_target(&target(secret)).map_err(|why| refused(name, why))?;
        look(&source(config, name)?).map_err(|why| refused(name, why))?;
    }
    Ok(())
}

fn source(config: &RuntimeConfig, name: &SecretName) -> Result<PathBuf, LaunchError> {
    let directory = config.secrets_dir.as_ref();
    let directory = directory
        .ok_or_else(|| refused(name, "this agent has no secrets; its operator can name a --secrets-dir"))?;
    Ok(directory.join(name.as_str()))
}

/// A secret that others can read is none, and is likely a mistake.
fn look(path: &Path) -> Result<(), String> {
    let metadata = fs::symlink_metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let problem = if !metadata.is_file() {
        "is not a file"
    } else if metadata.uid() != 0 || metadata.mode() & 0o077 != 0 {
        "can be read by others than root; give it to root with mode 0600"
    } else if metadata.len() > LARGEST {
        "is larger than 1 MiB"
    } else {
        return Ok(());
    };
    Err(format!("{} {problem}", path.display()))
}

impl Secrets {
    pub(super) fn prepare(
        config: &RuntimeConfig,
        record: &Record,
        spec: &ContainerSpec,
    ) -> Result<Self, LaunchError> {
        if spec.secrets.is_empty() {
            return Ok(Self::default());
        }
        let directory = record.secrets();
        fs::create_dir(&directory).map_err(step_on("create", &directory))?;
        let source = |secret: &SecretFile| -> Result<_, LaunchError> {
            Ok((secret.name.clone(), source(config, &secret.name)?))
        };
        Ok(Self { sources: spec.secrets.iter().map(source).collect::<Result<_, _>>()?, directory })
    }

    /// Copies them into memory that is never swapped out, where the kernel can promise that (Linux 6.4).
    pub(super) fn load(&self, identity: &Identity) -> Result<(), LaunchError> {
        if self.sources.is_empty() {
            return Ok(());
        }
        let options = format!("mode=700,size={}", (self.sources.len() as u64 + 1) * (LARGEST + 4096));
        let memory = |options: &str| {
            let flags = HARMLESS | MsFlags::MS_NOEXEC;
            mount(Some("secrets"), &self.directory, Some("tmpfs"), flags, Some(options))
        };
        memory(&format!("{options},noswap"))
            .or_else(|_| memory(&options))
            .map_err(step("make memory for the secrets"))?;
        for (name, source) in &self.sources {
            self.copy(name, source, identity).map_err(|why| refused(name, why))?;
        }
        Ok(())
    }

    fn copy(&self, name: &SecretName, source: &Path, identity: &Identity) -> Result<(), String> {
        let own = self.directory.join(name.as_str());
        if own.exists() {
            return Ok(()); // it is wanted at two places
        }
        look(source)?;
        let mut content = Vec::new();
        let opened =
            OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(source);
        let read = opened.and_then(|file| file.take(LARGEST).read_to_end(&mut content));
        read.map_err(|error| format!("{}: {error}", source.display()))?;
        let write = |mut file: File| {
            file.write_all(&content)?;
            fchown(&file, Some(identity.uid), Some(identity.gid))
        };
        let made = OpenOptions::new().write(true).create_new(true).mode(0o400).open(&own);
        made.and_then(write).map_err(|error| error.to_string())
    }

    pub(super) fn file(&self, name: &SecretName) -> Result<Found, String> {
        let ground = Ground::open(&self.directory, Links::Refused).map_err(|error| error.to_string())?;
        ground.find(Path::new(name.as_str()), Kind::File)
    }
}
