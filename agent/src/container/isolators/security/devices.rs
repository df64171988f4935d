//! Devices: only those that the operator allows. Each is mounted into the container's `/dev`; no other mount of a container lets a
//! device be used, so one that its root makes, or finds, is of no use to it. What is to be read only is kept from being written to
//! by the devices controller of version 1, or a program at the cgroup of version 2: a read-only mount does not do that.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use nix::sys::stat::{major, minor};

use crate::container::isolators::{Host, step, step_on};
use crate::container::plan::Plan;
use crate::container::spec::{ContainerId, ContainerSpec};
use crate::container::{LaunchError, Rights, cgroup, sys};

/// Refuses what the operator has not allowed, and what is no device.
pub(super) fn check(spec: &ContainerSpec, rights: &Rights) -> Result<(), LaunchError> {
    let refuse = |path: &str, why: String| {
        Err(LaunchError::Spec { field: "device".to_owned(), value: path.to_owned(), why })
    };
    for access in &spec.devices {
        let path = &access.path;
        if !rights.allow(access) {
            let flag = if access.write { format!("{path}:rw") } else { path.clone() };
            return refuse(path, format!("this agent's operator has not allowed it (--allow-device {flag})"));
        }
        match fs::symlink_metadata(path) {
            Ok(metadata) if is_device(&metadata) => {}
            Ok(_) => return refuse(path, "it is not a device on this machine".to_owned()),
            Err(error) => return refuse(path, error.to_string()),
        }
    }
    Ok(())
}

fn is_device(metadata: &fs::Metadata) -> bool {
    metadata.file_type().is_char_device() || metadata.file_type().is_block_device()
}

/// Keeps the container's processes from writing to devices that they may only read.
pub(super) fn prepare(host: &Host, plan: &mut Plan) -> Result<(), LaunchError> {
    let read_only = plan.spec.devices.iter().filter(|access| !access.write);
    let devices = read_only.map(|access| device(Path::new(&access.path))).collect::<Result<Vec<_>, _>>()?;
    if devices.is_empty() {
        return Ok(());
    }
    match (&plan.entrance.clone_into, tree()) {
        (Some(group), _) => {
            let group_file = fs::File::open(group).map_err(step_on("open", group))?;
            sys::attach_device_program(&group_file, &program(&devices))
                .map_err(step_on("attach the program for devices to", group))
        }
        (None, Some(tree)) => {
            let group = tree.join(name(host, &plan.spec.id));
            fs::create_dir(&group).map_err(step_on("create", &group))?;
            let file = group.join("devices.deny");
            for Device { block, major, minor } in devices {
                let kind = if block { 'b' } else { 'c' };
                fs::write(&file, format!("{kind} {major}:{minor} wm")).map_err(step_on("write to", &file))?;
            }
            plan.entrance.join.push(group.join("tasks"));
            Ok(())
        }
        (None, None) => Err(LaunchError::Spec {
            field: "device".to_owned(),
            value: plan.spec.devices.first().map(|access| access.path.clone()).unwrap_or_default(),
            why: "without the devices controller nothing keeps a container from writing to it; ask for write"
                .to_owned(),
        }),
    }
}

/// Removes the group of the devices controller, if there is one.
pub(super) fn cleanup(host: &Host, id: &ContainerId) -> io::Result<()> {
    let Some(tree) = tree() else { return Ok(()) };
    match fs::remove_dir(tree.join(name(host, id))) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Where version 1's controller is mounted.
fn tree() -> Option<&'static Path> {
    static TREE: OnceLock<Option<PathBuf>> = OnceLock::new();
    TREE.get_or_init(cgroup::devices_tree).as_deref()
}

/// A group at the top of the tree: so there is nothing above it to be removed.
fn name(host: &Host, id: &ContainerId) -> String {
    format!("{}-{id}", host.config.cgroup_parent.trim_matches('/').replace('/', "-"))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Device {
    block: bool,
    major: u32,
    minor: u32,
}

fn device(path: &Path) -> Result<Device, LaunchError> {
    let metadata = fs::symlink_metadata(path).map_err(step_on("look at the device", path))?;
    let number = |part: u64| u32::try_from(part).map_err(step("tell the device's number"));
    Ok(Device {
        block: metadata.file_type().is_block_device(),
        major: number(major(metadata.rdev()))?,
        minor: number(minor(metadata.rdev()))?,
    })
}

/// An instruction of the kernel's extended BPF.
const fn instruction(code: u8, registers: u8, offset: i16, value: u32) -> u64 {
    let [low, high] = offset.to_le_bytes();
    let [a, b, c, d] = value.to_le_bytes();
    u64::from_ne_bytes([code, registers, low, high, a, b, c, d])
}

/// A program that refuses to write to, or to make, these devices. It gets the kind of the device with the access in the upper half,
/// then its major and its minor number.
fn program(devices: &[Device]) -> Vec<u64> {
    const LOAD: u8 = 0x61;
    const COPY: u8 = 0xbf;
    const SET: u8 = 0xb7;
    const AND: u8 = 0x57;
    const JUMP: u8 = 0x05;
    const JUMP_UNLESS_EQUAL: u8 = 0x55;
    const JUMP_IF_ANY: u8 = 0x45;
    const EXIT: u8 = 0x95;
    /// `BPF_DEVCG_ACC_MKNOD | BPF_DEVCG_ACC_WRITE`.
    const CHANGES: u32 = (1 | 4) << 16;
    let mut program = vec![
        instruction(LOAD, 0x12, 0, 0), // r2: access and kind
        instruction(LOAD, 0x13, 4, 0), // r3: major
        instruction(LOAD, 0x14, 8, 0), // r4: minor
    ];
    for Device { block, major, minor } in devices {
        program.extend([
            instruction(COPY, 0x25, 0, 0), // r5 = r2
            instruction(AND, 0x05, 0, 0xffff),
            instruction(JUMP_UNLESS_EQUAL, 0x05, 6, if *block { 1 } else { 2 }),
            instruction(JUMP_UNLESS_EQUAL, 0x03, 5, *major),
            instruction(JUMP_UNLESS_EQUAL, 0x04, 4, *minor),
            instruction(JUMP_IF_ANY, 0x02, 1, CHANGES),
            instruction(JUMP, 0x00, 2, 0),
            instruction(SET, 0x00, 0, 0),
            instruction(EXIT, 0x00, 0, 0),
        ]);
    }
    program.extend([instruction(SET, 0x00, 0, 1), instruction(EXIT, 0x00, 0, 0)]);
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would do with the few instructions there are.
    fn run(program: &[u64], block: bool, access: u32, major: u32, minor: u32) -> u32 {
        let context = [access << 16 | if block { 1 } else { 2 }, major, minor];
        let mut registers = [0_u32; 6];
        let mut at = 0_usize;
        loop {
            let [code, pair, low, high, rest @ ..] = program[at].to_ne_bytes();
            let (to, from) = (usize::from(pair & 15), usize::from(pair >> 4));
            let (offset, value) = (usize::from(u16::from_le_bytes([low, high])), u32::from_le_bytes(rest));
            at += 1;
            match code {
                0x61 => registers[to] = context[offset / 4],
                0xbf => registers[to] = registers[from],
                0xb7 => registers[to] = value,
                0x57 => registers[to] &= value,
                0x05 => at += offset,
                0x55 if registers[to] != value => at += offset,
                0x45 if registers[to] & value != 0 => at += offset,
                0x95 => return registers[0],
                _ => {}
            }
        }
    }

    #[test]
    fn only_changes_of_these_devices_are_refused() {
        let fuse = Device { block: false, major: 10, minor: 229 };
        let disk = Device { block: true, major: 8, minor: 0 };
        let program = program(&[fuse, disk]);
        const MAKE: u32 = 1;
        const READ: u32 = 2;
        const WRITE: u32 = 4;
        let told = [
            (false, READ, 10, 229),
            (false, WRITE, 10, 229),
            (false, READ | WRITE, 10, 229),
            (false, MAKE, 10, 229),
            (true, WRITE, 10, 229),
            (true, WRITE, 8, 0),
            (true, READ, 8, 0),
            (false, WRITE, 10, 228),
            (false, WRITE, 1, 3),
        ];
        let told = told.map(|(block, access, major, minor)| run(&program, block, access, major, minor));
        assert_eq!(told, [1, 0, 0, 0, 1, 0, 1, 1, 1]);
    }
}
