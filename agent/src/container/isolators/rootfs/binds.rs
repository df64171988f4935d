//! What a container sees beside its root: volumes, host paths, parts of its sandbox, file systems in memory, secrets.
//!
//! Whether it may is decided in the agent, before anything is made; here it is mounted, in the container's own namespace.

use std::path::{Path, PathBuf};

use divvy_proto::Bytes;
use divvy_proto::container::Mount;
use divvy_proto::ids::{SecretName, VolumeId};
use nix::mount::MsFlags;
use serde::{Deserialize, Serialize};

use super::mounts::{HARMLESS, bind, make_harmless, make_read_only, mount_at};
use super::place::{Found, Ground, Kind, Links};
use super::secrets::Secrets;
use crate::container::{ContainerSpec, LaunchError, RuntimeConfig, VolumeBind};

/// Something at a place.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Bind {
    target: PathBuf,
    what: What,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum What {
    Volume { id: VolumeId, source: PathBuf, read_only: bool },
    Host { source: PathBuf, read_only: bool },
    Tmpfs { size: Bytes },
    Sandbox { source: PathBuf, read_only: bool },
    File { source: PathBuf },
    Secret { name: SecretName },
}

/// A file that the agent shows to the container, read-only.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ShownFile {
    /// On the host.
    pub(crate) source: PathBuf,
    /// In the container.
    pub(crate) target: PathBuf,
}

/// Where things are mounted, and where they come from.
pub(super) struct Scene {
    /// The container's root.
    pub(super) root: Ground,
    /// Where directories may be made; everywhere if absent.
    pub(super) makeable: Option<Vec<PathBuf>>,
    /// The sandbox on the host.
    pub(super) sandbox: PathBuf,
    /// Whose the sandbox is.
    pub(super) owner: (u32, u32),
    pub(super) secrets: Secrets,
}

/// All that a container is to see, the upper ones first: what is mounted later may lie in what was mounted before.
///
/// # Errors
/// A source is not there.
pub(super) fn all(spec: &ContainerSpec, shown: &[ShownFile]) -> Result<Vec<Bind>, LaunchError> {
    let mut all = spec.volumes.iter().map(volume).collect::<Result<Vec<_>, _>>()?;
    for mount in &spec.mounts {
        all.push(self::mount(mount)?);
    }
    all.extend(
        shown.iter().map(|file| Bind {
            target: file.target.clone(),
            what: What::File { source: file.source.clone() },
        }),
    );
    all.extend(spec.secrets.iter().map(|secret| Bind {
        target: super::secrets::target(secret),
        what: What::Secret { name: secret.name.clone() },
    }));
    all.sort_by_key(|bind| bind.target.components().count());
    Ok(all)
}

/// The volume with its directory as the host knows it.
fn volume(volume: &VolumeBind) -> Result<Bind, LaunchError> {
    let source = std::fs::canonicalize(&volume.source).map_err(|error| LaunchError::Volume {
        id: volume.id.clone(),
        path: volume.target.clone(),
        why: error.to_string(),
    })?;
    let what = What::Volume { id: volume.id.clone(), source, read_only: volume.read_only };
    Ok(Bind { target: volume.target.clone(), what })
}

fn mount(mount: &Mount) -> Result<Bind, LaunchError> {
    let what = match mount {
        Mount::Host { source, read_only, .. } => {
            let found = std::fs::canonicalize(source).map_err(|error| no_mount(mount, error))?;
            What::Host { source: found, read_only: *read_only }
        }
        Mount::Tmpfs { size, .. } => What::Tmpfs { size: *size },
        Mount::Sandbox { source, read_only, .. } => {
            What::Sandbox { source: PathBuf::from(source), read_only: *read_only }
        }
    };
    Ok(Bind { target: PathBuf::from(mount.path()), what })
}

fn no_mount(mount: &Mount, why: impl std::fmt::Display) -> LaunchError {
    LaunchError::Mount { path: PathBuf::from(mount.path()), why: why.to_string() }
}

/// Whether a task may have what it asks for.
///
/// # Errors
/// A path is not plain, or a host path is not allowed; says how it could be.
pub(super) fn check(
    config: &RuntimeConfig,
    hidden: &[PathBuf],
    spec: &ContainerSpec,
) -> Result<(), LaunchError> {
    for mount in &spec.mounts {
        let target = Path::new(mount.path());
        super::check_target(target).map_err(|why| no_mount(mount, why))?;
        match mount {
            Mount::Host { source, .. } => {
                allowed(config, hidden, Path::new(source)).map_err(|why| no_mount(mount, why))?;
            }
            Mount::Sandbox { source, .. } if Path::new(source).is_absolute() => {
                return Err(no_mount(mount, format!("{source} is not a path below the sandbox")));
            }
            Mount::Tmpfs { .. } | Mount::Sandbox { .. } => {}
        }
    }
    Ok(())
}

fn allowed(config: &RuntimeConfig, hidden: &[PathBuf], source: &Path) -> Result<(), String> {
    let path = source.display();
    // The real one: a link in an allowed directory does not lead out of it.
    let real = std::fs::canonicalize(source).map_err(|error| format!("host path {path}: {error}"))?;
    if let Some(secret) = hidden.iter().find(|hidden| real.starts_with(hidden) || hidden.starts_with(&real)) {
        return Err(format!("host path {path} would show {}, which is the agent's own", secret.display()));
    }
    let roots = config.allow_host_paths.iter().filter_map(|root| std::fs::canonicalize(root).ok());
    match roots.into_iter().any(|root| real.starts_with(root)) {
        true => Ok(()),
        false => Err(format!(
            "host path {path} is not allowed on this agent; its operator can allow it with --allow-host-path"
        )),
    }
}

impl Bind {
    /// Mounts it.
    pub(super) fn mount(&self, scene: &Scene) -> Result<(), LaunchError> {
        self.put(scene).map_err(|why| match &self.what {
            What::Volume { id, .. } => LaunchError::Volume { id: id.clone(), path: self.target.clone(), why },
            What::Secret { name } => LaunchError::Secret { name: name.clone(), why },
            _ => LaunchError::Mount { path: self.target.clone(), why },
        })
    }

    fn put(&self, scene: &Scene) -> Result<(), String> {
        match &self.what {
            What::Volume { source, read_only, .. } => self.show(scene, &on_host(source)?, *read_only),
            What::Host { source, read_only } => self.show(scene, &on_host(source)?, *read_only),
            What::File { source } => self.show(scene, &on_host(source)?, true),
            What::Secret { name } => self.show(scene, &scene.secrets.file(name)?, true),
            What::Sandbox { source, read_only } => {
                self.show(scene, &scene.below_sandbox(source)?, *read_only)
            }
            What::Tmpfs { size } => {
                let place = scene.place(&self.target, Kind::Directory)?;
                let options = format!("mode=1777,size={}", size.as_u64());
                let flags = HARMLESS | MsFlags::MS_NOEXEC;
                mount_at(Some(Path::new("tmpfs")), &place.path(), Some("tmpfs"), flags, Some(&options))
                    .map_err(words)
            }
        }
    }

    fn show(&self, scene: &Scene, source: &Found, read_only: bool) -> Result<(), String> {
        let kind = Kind::of(source)?;
        let place = scene.place(&self.target, kind)?;
        bind(&source.path(), &place.path(), MsFlags::MS_REC).map_err(words)?;
        // What is there now is the mount.
        let mounted = scene.root.find(&self.target, kind)?;
        make_harmless(&mounted.path(), true).map_err(words)?;
        if read_only { make_read_only(&mounted.path(), true).map_err(words) } else { Ok(()) }
    }
}

/// A file of the host by its real path: whoever has made a link of a part of it since is refused.
fn on_host(source: &Path) -> Result<Found, String> {
    let host = Ground::open(Path::new("/"), Links::Refused).map_err(|error| error.to_string())?;
    host.find_any(source)
}

fn words(error: LaunchError) -> String {
    match error {
        LaunchError::Step { why, .. } => why,
        error => error.to_string(),
    }
}

impl Scene {
    /// Where something is to be mounted. Nothing is made in the files of the host.
    fn place(&self, target: &Path, kind: Kind) -> Result<Found, String> {
        let makeable = |roots: &Vec<PathBuf>| roots.iter().any(|root| target.starts_with(root));
        if self.makeable.as_ref().is_none_or(makeable) {
            return self.root.find_or_make(target, kind);
        }
        self.root.find(target, kind).map_err(|why| match why.as_str() {
            super::place::MISSING => {
                "there is no such file on this machine; below the sandbox, /tmp and /run it is made"
                    .to_owned()
            }
            _ => why,
        })
    }

    /// A file of the sandbox, or a directory that is made there, the user's.
    fn below_sandbox(&self, source: &Path) -> Result<Found, String> {
        let sandbox = Ground::open(&self.sandbox, Links::Refused).map_err(|error| error.to_string())?;
        let sandbox = sandbox.owned_by(self.owner);
        match sandbox.find_any(source) {
            Err(why) if why == super::place::MISSING => sandbox.find_or_make(source, Kind::Directory),
            other => other,
        }
    }
}
