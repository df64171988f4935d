//! What the container sees as its files. Without an image, the host's root, read-only with everything mounted in it, except for
//! - its sandbox: writable, at the path that it has on the host;
//! - `/tmp` and `/var/tmp`: its own, on disk, gone with the container;
//! - `/run` and the agents' directories: empty.
//!
//! With an image, the image's layers under an upper one of its own, gone with the container, and the sandbox at
//! [`SANDBOX`](crate::container::SANDBOX). With both:
//! - `/proc`: that of its own pid namespace, without what the OCI runtimes hide;
//! - `/sys`: read-only, of its own network, with its own cgroups;
//! - `/dev`: the harmless devices, own pseudo-terminals, own shared memory;
//! - its volumes, mounts and secrets: each where the task wants it.
//!
//! All mounts are made in the container's own mount namespace, so the host never has one to remove.

mod binds;
mod host;
mod kernel;
mod mounts;
mod overlay;
mod place;
mod secrets;

use std::fs;
use std::path::{Component, Path, PathBuf};

use divvy_proto::container::Network;
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{chdir, pivot_root};
use serde::{Deserialize, Serialize};

use super::{Host, Isolator, step, step_on};
use crate::container::plan::{Plan, Record};
use crate::container::{ContainerSpec, LaunchError, Root, SANDBOX};

pub(crate) use binds::ShownFile;
use binds::{Bind, Scene};
use host::HostRoot;
use mounts::{bind, make_harmless, make_read_only};
use overlay::Overlay;
use place::{Ground, Kind, Links};
use secrets::Secrets;

/// Where the container's files come from.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Layout {
    /// An empty directory, to become the container's root.
    root: PathBuf,
    base: Option<Base>,
    /// The sandbox, without symbolic links.
    sandbox: PathBuf,
    /// Where the container sees it.
    seen_sandbox: PathBuf,
    binds: Vec<Bind>,
    secrets: Secrets,
    /// Files that the agent shows to the container, read-only: those of its network. Whoever prepares before this isolator
    /// does adds his.
    #[serde(default)]
    pub(crate) shown: Vec<ShownFile>,
    /// Where the program starts.
    #[serde(default)]
    pub(crate) start: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
enum Base {
    Host(HostRoot),
    Image(Overlay),
}

pub(super) struct Rootfs;

impl Isolator for Rootfs {
    fn check(&self, host: &Host, spec: &ContainerSpec) -> Result<(), LaunchError> {
        if let Some(workdir) = &spec.workdir {
            let value = workdir.display().to_string();
            plain(workdir).map_err(|why| LaunchError::Spec { field: "workdir".to_owned(), value, why })?;
        }
        if !spec.mounts.is_empty() {
            binds::check(&host.config, &host::hidden(host), spec)?;
        }
        secrets::check(&host.config, spec)
    }

    fn prepare(&self, host: &Host, record: &Record, plan: &mut Plan) -> Result<(), LaunchError> {
        let root = record.root();
        fs::create_dir(&root).map_err(step_on("create", &root))?;
        let spec = &plan.spec;
        let sandbox = fs::canonicalize(&spec.sandbox).map_err(step_on("find the sandbox", &spec.sandbox))?;
        let (base, seen_sandbox) = match &spec.root {
            Root::Host => (Base::Host(HostRoot::prepare(host, record)?), sandbox.clone()),
            Root::Image { layers } => {
                (Base::Image(Overlay::prepare(record, layers)?), PathBuf::from(SANDBOX))
            }
        };
        let mut shown = std::mem::take(&mut plan.layout.shown);
        shown.extend(resolver(spec, &shown));
        plan.layout = Layout {
            root,
            base: Some(base),
            sandbox,
            binds: binds::all(spec, &shown)?,
            secrets: Secrets::prepare(&host.config, record, spec)?,
            shown,
            start: spec.workdir.clone().unwrap_or_else(|| seen_sandbox.clone()),
            seen_sandbox,
        };
        Ok(())
    }

    fn isolate(&self, plan: &Plan) -> Result<(), LaunchError> {
        // What is made for mounts is open to all, whatever the agent was started with.
        umask(Mode::from_bits_truncate(0o022));
        let layout = &plan.layout;
        layout.secrets.load(&plan.identity)?;
        match &layout.base {
            Some(Base::Host(base)) => of_host(plan, base)?,
            Some(Base::Image(overlay)) => of_image(plan, overlay)?,
            None => return Err(step("set up the container's files")("its plan does not say where they are")),
        }
        pivot(&layout.root)
    }
}

fn plain(path: &Path) -> Result<(), String> {
    let fits = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::RootDir);
    match path.is_absolute() && path.components().all(fits) {
        true => Ok(()),
        false => Err(format!("{} is not an absolute path without ..", path.display())),
    }
}

/// What a container's own `/proc`, `/dev` and `/sys` are, no mount replaces.
const OWN: [&str; 3] = ["/proc", "/dev", "/sys"];

fn check_target(path: &Path) -> Result<(), String> {
    plain(path)?;
    if path == Path::new("/") || OWN.iter().any(|own| path.starts_with(own)) {
        return Err(
            "nothing can be mounted there: it is the root itself, or below /proc, /dev or /sys".to_owned()
        );
    }
    Ok(())
}

/// The host's network is of no use to an image without the host's names, unless somebody has shown it others.
fn resolver(spec: &ContainerSpec, shown: &[ShownFile]) -> Vec<ShownFile> {
    if spec.root == Root::Host || spec.network != Network::Host {
        return Vec::new();
    }
    let missing = |target: &&str| !shown.iter().any(|file| file.target == Path::new(target));
    let files = ["/etc/resolv.conf", "/etc/hosts"].into_iter().filter(missing);
    let real =
        |target| Some(ShownFile { source: fs::canonicalize(target).ok()?, target: PathBuf::from(target) });
    files.filter_map(real).collect()
}

fn of_host(plan: &Plan, base: &HostRoot) -> Result<(), LaunchError> {
    let layout = &plan.layout;
    let inside = |path: &str| join(&layout.root, Path::new(path));
    base.mount(&layout.root)?;
    kernel::proc(&inside("/proc"), Path::new("/dev/null"))?;
    kernel::sys(&inside("/sys"), Path::new("/dev/null"))?;
    kernel::dev(&inside("/dev"), &plan.spec.devices, plan.spec.shm)?;
    let sealed = base.cover(&layout.root)?;
    let target = join(&layout.root, &layout.seen_sandbox);
    fs::create_dir_all(&target).map_err(step_on("create", &target))?;
    bind(&layout.sandbox, &target, MsFlags::empty())?;
    make_harmless(&target, false)?;
    let own =
        ["/tmp", "/var/tmp", "/run"].map(PathBuf::from).into_iter().chain([layout.seen_sandbox.clone()]);
    let scene = scene(plan, Links::Refused, Some(own.collect()))?;
    layout.binds.iter().try_for_each(|bind| bind.mount(&scene))?;
    sealed.iter().try_for_each(|directory| make_read_only(directory, false))
}

/// The image is somebody's: no path in it is used before the kernel has found where it leads.
fn of_image(plan: &Plan, overlay: &Overlay) -> Result<(), LaunchError> {
    let layout = &plan.layout;
    overlay.mount(&layout.root)?;
    let own = Ground::open(&layout.root, Links::Refused).map_err(step_on("open", &layout.root))?;
    let made = |ground: &Ground, path: &Path| {
        ground.find_or_make(path, Kind::Directory).map_err(step_on("make a place in the image for", path))
    };
    for path in OWN {
        made(&own, Path::new(path))?;
    }
    let inside = |path: &str| join(&layout.root, Path::new(path));
    kernel::proc(&inside("/proc"), Path::new("/dev/null"))?;
    kernel::sys(&inside("/sys"), Path::new("/dev/null"))?;
    kernel::dev(&inside("/dev"), &plan.spec.devices, plan.spec.shm)?;
    let scene = scene(plan, Links::Inside, None)?;
    let sandbox = made(&scene.root, &layout.seen_sandbox)?;
    bind(&layout.sandbox, &sandbox.path(), MsFlags::empty())?;
    // What is there now is the mount.
    let sandbox = made(&scene.root, &layout.seen_sandbox)?;
    make_harmless(&sandbox.path(), false)?;
    layout.binds.iter().try_for_each(|bind| bind.mount(&scene))?;
    made(&scene.root, &layout.start)?;
    if plan.spec.read_only { make_read_only(&layout.root, false) } else { Ok(()) }
}

fn scene(plan: &Plan, links: Links, makeable: Option<Vec<PathBuf>>) -> Result<Scene, LaunchError> {
    let layout = &plan.layout;
    Ok(Scene {
        root: Ground::open(&layout.root, links).map_err(step_on("open", &layout.root))?,
        makeable,
        sandbox: layout.sandbox.clone(),
        owner: (plan.identity.uid, plan.identity.gid),
        secrets: layout.secrets.clone(),
    })
}

fn join(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// Makes `root` the root, and forgets the old one.
fn pivot(root: &Path) -> Result<(), LaunchError> {
    chdir(root).map_err(step_on("enter", root))?;
    pivot_root(".", ".").map_err(|errno| match errno {
        nix::errno::Errno::EINVAL => step("change the root")(
            "the host's root is an initial ramdisk; it must be left by switch_root first",
        ),
        errno => step("change the root")(errno.desc()),
    })?;
    umount2(".", MntFlags::MNT_DETACH).map_err(step("let go of the old root"))?;
    chdir("/").map_err(step("enter the new root"))
}
