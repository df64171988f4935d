//! Which of root's rights a container's root has.

use divvy_proto::container::Capability;

use crate::container::LaunchError;
use crate::container::isolators::step;
use crate::container::spec::ContainerSpec;
use crate::container::sys;

/// A set of capabilities, by their numbers: capabilities(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Capabilities(u64);

pub(super) const SYS_ADMIN: u32 = 21;

impl Capabilities {
    /// Docker's: CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, NET_RAW, SYS_CHROOT,
    /// MKNOD, AUDIT_WRITE, SETFCAP.
    pub(super) const DEFAULT: Self = Self(bits(&[0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31]));

    pub(super) const NONE: Self = Self(0);

    /// The default without those that are dropped, and with those that are added: as in Docker, an addition wins.
    pub(super) fn of(spec: &ContainerSpec) -> Self {
        let mask = |all: &[Capability]| all.iter().fold(0, |mask, one| mask | 1_u64 << one.number());
        Self(Self::DEFAULT.0 & !mask(&spec.drop_capabilities) | mask(&spec.add_capabilities))
    }

    pub(super) const fn contain(self, number: u32) -> bool {
        self.0 >> number & 1 == 1
    }

    #[cfg(test)]
    pub(super) const fn with(self, number: u32) -> Self {
        Self(self.0 | 1 << number)
    }

    /// Nothing that the process executes can ever have more.
    pub(super) fn bound(self) -> Result<(), LaunchError> {
        for capability in (0..64).filter(|number| !self.contain(*number)) {
            match sys::prctl(libc::PR_CAPBSET_DROP, capability.into()) {
                // The kernel does not have so many.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
                other => other.map_err(step(format!("drop capability {capability}")))?,
            }
        }
        Ok(())
    }

    /// The process itself has no more. For anyone but root the kernel has emptied its sets by then.
    pub(super) fn limit(self) -> Result<(), LaunchError> {
        sys::limit_capabilities(self.0).map_err(step("drop capabilities"))
    }
}

const fn bits(numbers: &[u32]) -> u64 {
    match numbers {
        [] => 0,
        [first, rest @ ..] => (1 << *first) | bits(rest),
    }
}

/// Refuses what is added beyond the default and the operator has not allowed, or the agent does not have itself.
pub(super) fn check(spec: &ContainerSpec, allowed: &[Capability]) -> Result<(), LaunchError> {
    let default = |one: &Capability| Capabilities::DEFAULT.contain(one.number().into());
    let refused = spec.add_capabilities.iter().find(|one| !default(one) && !allowed.contains(one));
    match refused {
        Some(one) => Err(no(*one, "this agent's operator has not allowed it (--allow-capability)")),
        None => check_own(spec),
    }
}

/// In a user namespace root has all of them, for what belongs to the namespace.
fn check_own(spec: &ContainerSpec) -> Result<(), LaunchError> {
    if spec.add_capabilities.is_empty() || spec.user_namespace {
        return Ok(());
    }
    let own = Capabilities(sys::own_capabilities().map_err(step("look at the agent's capabilities"))?);
    let lacking = spec.add_capabilities.iter().find(|one| !own.contain(one.number().into()));
    lacking.map_or(Ok(()), |one| Err(no(*one, "the agent itself does not have it")))
}

fn no(capability: Capability, why: &str) -> LaunchError {
    LaunchError::Spec { field: "capability".to_owned(), value: capability.to_string(), why: why.to_owned() }
}
