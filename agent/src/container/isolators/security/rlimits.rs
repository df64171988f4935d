//! Limits of each process: what is asked for, no core dumps, and a number of open files that does not depend on the agent's.

use divvy_proto::container::Rlimit;
use nix::sys::resource::{Resource, getrlimit};

use crate::container::LaunchError;
use crate::container::isolators::step;
use crate::container::spec::ContainerSpec;
use crate::container::sys;

/// Open files: what `select` can take, and as many as a program may ask for (systemd's defaults).
const FILES: (u64, u64) = (1024, 524_288);

/// A limit below none in force is a contradiction.
pub(super) fn check(spec: &ContainerSpec) -> Result<(), LaunchError> {
    let infinite = |limit: Option<u64>| limit.unwrap_or(libc::RLIM_INFINITY);
    let wrong = spec.rlimits.iter().find(|limit| infinite(limit.soft) > infinite(limit.hard));
    wrong.map_or(Ok(()), |limit| {
        Err(LaunchError::Spec {
            field: format!("rlimit {}", limit.kind),
            value: words(limit.soft),
            why: format!("the limit in force is above the highest one, {}", words(limit.hard)),
        })
    })
}

fn words(limit: Option<u64>) -> String {
    limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string())
}

/// Takes the limits on: what the spec does not name is set first to what it should be.
pub(super) fn apply(spec: &ContainerSpec) -> Result<(), LaunchError> {
    let named = |kind: u32| spec.rlimits.iter().any(|limit| u32::from(limit.kind.number()) == kind);
    // A dump may hold secrets, and goes wherever the host says.
    if !named(libc::RLIMIT_CORE) {
        set("core", libc::RLIMIT_CORE, 0, 0)?;
    }
    if !named(libc::RLIMIT_NOFILE) {
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).map_err(step("read the limit on open files"))?;
        set("nofile", libc::RLIMIT_NOFILE, FILES.0.min(most), FILES.1.min(most))?;
    }
    spec.rlimits.iter().try_for_each(|Rlimit { kind, soft, hard }| {
        let (soft, hard) = (soft.unwrap_or(libc::RLIM_INFINITY), hard.unwrap_or(libc::RLIM_INFINITY));
        set(&kind.to_string(), kind.number().into(), soft, hard)
    })
}

fn set(name: &str, kind: u32, soft: u64, hard: u64) -> Result<(), LaunchError> {
    let infinite = |limit| Some(limit).filter(|limit| *limit != libc::RLIM_INFINITY);
    let what = format!("limit {name} to {} and {}", words(infinite(soft)), words(infinite(hard)));
    sys::set_rlimit(kind, soft, hard).map_err(step(what))
}
