//! The filter on system calls that every container's processes live behind: the calls that Docker's default profile allows, and
//! no others.
//!
//! It is compiled anew for each process that needs it, which takes some microseconds; so there is nothing to keep or to hand over.

mod calls;
mod program;

use calls::{ALWAYS, CLONE, CLONE3, Call, LAST, NONE, PERSONALITY, SOCKET, WITH_CAPABILITY};
use program::{Condition, Machine, Table, Verdict, compile};

use super::capabilities::{Capabilities, SYS_ADMIN};
use crate::container::LaunchError;
use crate::container::isolators::step;
use crate::container::sys;

/// A compiled filter.
pub(super) struct Filter(Vec<libc::sock_filter>);

impl Filter {
    /// For processes that have no more than these capabilities.
    pub(super) fn of(capabilities: Capabilities) -> Result<Self, LaunchError> {
        let tables: Vec<_> = machines().iter().map(|machine| table(*machine, capabilities)).collect();
        match tables.is_empty() {
            true => Err(step("filter system calls")("there is no filter for machines of this kind")),
            false => Ok(Self(compile(&tables))),
        }
    }

    /// Puts the calling process behind it, for good. It must have no_new_privs.
    pub(super) fn install(&self) -> Result<(), LaunchError> {
        sys::install_filter(&self.0).map_err(step("filter system calls"))
    }
}

/// The machine that this is compiled for, and the older one whose programs it runs.
fn machines() -> &'static [Machine] {
    match std::env::consts::ARCH {
        "x86_64" => &[Machine::X86_64, Machine::X86],
        "aarch64" => &[Machine::Aarch64],
        _ => &[],
    }
}

/// Flags of clone that make namespaces: cgroup, uts, ipc, user, pid, net and mount.
const NEW_NAMESPACES: u32 = 0x7e02_0000;

/// Families of addresses, from and to: without those of hypervisors (vsock), of the kernel's ciphers (alg), and of networks that
/// are no more.
const FAMILIES: &[(u32, u32)] =
    &[(0, 11), (13, 18), (21, 22), (24, 24), (26, 33), (35, 36), (39, 39), (41, 45)];

/// Linux, Linux with 32-bit addresses or of release 2.6, both, and the question which it is.
const PERSONALITIES: &[(u32, u32)] =
    &[(0, 0), (8, 8), (0x2_0000, 0x2_0000), (0x2_0008, 0x2_0008), (u32::MAX, u32::MAX)];

/// What a process with these capabilities may call.
fn table(machine: Machine, capabilities: Capabilities) -> Table {
    let mut calls = Vec::with_capacity(ALWAYS.len() + 64);
    let mut judge = |call: &Call, verdict| match number(machine, call) {
        NONE => {}
        number => calls.push((u32::from(number), verdict)),
    };
    ALWAYS.iter().for_each(|call| judge(call, Verdict::Allow));
    judge(&SOCKET, Verdict::If(Condition::Within(FAMILIES)));
    judge(&PERSONALITY, Verdict::If(Condition::Within(PERSONALITIES)));
    if capabilities.contain(SYS_ADMIN) {
        judge(&CLONE, Verdict::Allow);
        judge(&CLONE3, Verdict::Allow);
    } else {
        judge(&CLONE, Verdict::If(Condition::Without(NEW_NAMESPACES)));
        // The C library then takes clone.
        judge(&CLONE3, Verdict::Refuse(libc::ENOSYS));
    }
    let held = WITH_CAPABILITY.iter().filter(|(capability, _)| capabilities.contain(*capability));
    held.flat_map(|(_, calls)| *calls).for_each(|call| judge(call, Verdict::Allow));
    // A call that several capabilities open is there several times.
    calls.sort_unstable_by_key(|(number, _)| *number);
    calls.dedup();
    Table { machine, calls, last: LAST }
}

fn number(machine: Machine, (_, x86_64, x86, aarch64): &Call) -> u16 {
    match machine {
        Machine::X86_64 => *x86_64,
        Machine::X86 => *x86,
        Machine::Aarch64 => *aarch64,
    }
}

#[cfg(test)]
mod tests {
    use super::program::run;
    use super::*;

    const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;
    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const EPERM: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs();
    const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs();

    fn judged(capabilities: Capabilities, machine: u32, number: u32, argument: u32) -> u32 {
        let tables = [Machine::X86_64, Machine::X86].map(|machine| table(machine, capabilities));
        run(&compile(&tables), machine, number, argument)
    }

    #[test]
    fn the_default_is_that_of_docker() {
        let native = |number, argument| {
            judged(Capabilities::DEFAULT, Machine::X86_64.audit_number(), number, argument)
        };
        let told = [
            (0, 0),            // read
            (165, 0),          // mount
            (272, 0),          // unshare
            (250, 0),          // keyctl
            (321, 0),          // bpf
            (425, 0),          // io_uring_setup
            (161, 0),          // chroot, with the default capabilities
            (101, 0),          // ptrace
            (56, 0x11),        // clone, SIGCHLD
            (56, 0x1000_0000), // clone, CLONE_NEWUSER
            (435, 0),          // clone3
            (41, 2),           // socket, AF_INET
            (41, 40),          // socket, AF_VSOCK
            (135, 0),          // personality
            (135, 0x4_0000),   // personality, ADDR_NO_RANDOMIZE
            (468, 0),          // not looked at yet
            (0x4000_0000, 0),  // x32's read
        ];
        assert_eq!(
            told.map(|(number, argument)| native(number, argument)),
            [
                ALLOW, EPERM, EPERM, EPERM, EPERM, EPERM, ALLOW, ALLOW, ALLOW, EPERM, ENOSYS, ALLOW, EPERM,
                ALLOW, EPERM, ENOSYS, ENOSYS
            ]
        );
    }

    #[test]
    fn each_machine_has_its_own_numbers() {
        let told = [
            (Machine::X86.audit_number(), 3),     // read
            (Machine::X86.audit_number(), 21),    // mount
            (Machine::X86_64.audit_number(), 21), // access
            (Machine::Aarch64.audit_number(), 0),
        ];
        let told = told.map(|(machine, number)| judged(Capabilities::DEFAULT, machine, number, 0));
        assert_eq!(told, [ALLOW, EPERM, ALLOW, KILL]);
    }

    #[test]
    fn a_capability_opens_the_calls_that_need_it() {
        let administrator = Capabilities::DEFAULT.with(SYS_ADMIN);
        let told = [(165, 0), (272, 0), (56, 0x1000_0000), (435, 0), (304, 0), (250, 0)];
        let told = told.map(|(number, argument)| {
            judged(administrator, Machine::X86_64.audit_number(), number, argument)
        });
        assert_eq!(told, [ALLOW, ALLOW, ALLOW, ALLOW, EPERM, EPERM]);
    }

    /// Numbers of this machine's C library, where it has the call under the same name.
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn numbers_are_the_kernels() {
        let known = [
            ("accept4", libc::SYS_accept4),
            ("bpf", libc::SYS_bpf),
            ("clone", libc::SYS_clone),
            ("futex_waitv", libc::SYS_futex_waitv),
            ("mount_setattr", libc::SYS_mount_setattr),
            ("openat2", libc::SYS_openat2),
            ("rseq", libc::SYS_rseq),
            ("socket", libc::SYS_socket),
            ("writev", libc::SYS_writev),
        ];
        let all: Vec<_> = ALWAYS
            .iter()
            .chain(WITH_CAPABILITY.iter().flat_map(|(_, calls)| *calls))
            .chain([&CLONE, &SOCKET])
            .collect();
        for (name, number) in known {
            let call = all.iter().find(|call| call.0 == name).map(|call| i64::from(call.1));
            assert_eq!(call, Some(number), "{name}");
        }
    }
}
