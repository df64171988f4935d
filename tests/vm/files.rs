//! The machine's files: an initramfs, a cpio archive in the "newc" format (Linux: `early-userspace/buffer-format.rst`).

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::suite::Suite;

/// Files by their path without the slash in front; so directories come before what is in them.
#[derive(Default)]
pub(crate) struct Files(BTreeMap<PathBuf, File>);

enum File {
    Directory(u32),
    Regular(u32, Vec<u8>),
    Link(PathBuf),
}

impl Files {
    /// What a small Debian has: these programs and directories, users, and modules of the kernel that is booted.
    pub(crate) fn of_a_host(programs: &[&str], directories: &[&str], modules: &[&str]) -> Self {
        let mut files = Self::default();
        for name in ["bin", "sbin", "lib", "lib64"] {
            match fs::read_link(Path::new("/").join(name)) {
                Ok(target) => files.add(name, File::Link(target)),
                Err(_) => files.directory(name, 0o755),
            }
        }
        for name in [
            "usr/sbin", "proc", "sys", "dev", "run", "root", "newroot", "mnt", "home", "opt", "srv",
            "var/lib",
        ] {
            files.directory(name, 0o755);
        }
        files.directory("tmp", 0o1777);
        files.directory("var/tmp", 0o1777);
        let etc = [
            "passwd",
            "group",
            "nsswitch.conf",
            "hosts",
            "subuid",
            "subgid",
            "protocols",
            "services",
            "mke2fs.conf",
        ];
        for path in etc.map(|name| Path::new("/etc").join(name)).iter().filter(|path| path.exists()) {
            files.copy(path);
        }
        for directory in directories {
            let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{directory}: {error}"));
            entries.flatten().for_each(|entry| files.program(&entry.path()));
        }
        for program in programs {
            let directories = ["/usr/bin", "/usr/sbin"].map(|directory| Path::new(directory).join(program));
            let path = directories.iter().find(|path| path.exists());
            files.program(path.unwrap_or_else(|| panic!("this host has no {program}")));
        }
        files.program(Path::new("/usr/bin/busybox"));
        files.modules(modules);
        files.add("init", File::Regular(0o755, include_bytes!("init").to_vec()));
        files
    }

    /// The suite as `/suite`, with the directory that it works in.
    pub(crate) fn with_suite(mut self, suite: &Suite) -> Self {
        let stripped = tempfile::NamedTempFile::new().expect("a file");
        let strip = Command::new("strip").arg("-o").arg(stripped.path()).arg(&suite.path).status();
        assert!(strip.is_ok_and(|status| status.success()), "strip cannot be run: install binutils");
        self.libraries(&suite.path);
        self.add("suite", File::Regular(0o755, fs::read(stripped.path()).expect("the suite")));
        let directory = suite.directory();
        self.directory(directory.strip_prefix("/").expect("an absolute path"), 0o755);
        self.add("disk-at", File::Regular(0o644, directory.into_os_string().into_encoded_bytes()));
        self
    }

    /// What the machine does once it is up: a script in shell.
    pub(crate) fn with_story(mut self, story: &str) -> Self {
        self.add("story", File::Regular(0o644, story.into()));
        self
    }

    fn add(&mut self, path: impl AsRef<Path>, file: File) {
        let path = path.as_ref();
        if let Some(parent) =
            path.parent().filter(|parent| !self.0.contains_key(*parent) && parent.as_os_str() != "")
        {
            self.add(parent, File::Directory(0o755));
        }
        self.0.insert(path.to_owned(), file);
    }

    fn directory(&mut self, path: impl AsRef<Path>, mode: u32) {
        self.add(path, File::Directory(mode));
    }

    /// A file of this host at the place where it really lies, whatever links lead to it.
    fn copy(&mut self, path: &Path) {
        let place = path.parent().and_then(|parent| parent.canonicalize().ok()).expect("a directory");
        let place = place.join(path.file_name().expect("a name"));
        let mode = fs::metadata(path).expect("a file").permissions().mode() & 0o7777;
        let content = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        self.add(place.strip_prefix("/").expect("an absolute path"), File::Regular(mode, content));
    }

    fn program(&mut self, path: &Path) {
        self.copy(path);
        self.libraries(path);
    }

    /// What a program is linked to, as its loader says.
    fn libraries(&mut self, program: &Path) {
        let output = Command::new("ldd").arg(program).output().expect("ldd runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let libraries = text.split_whitespace().filter(|word| word.starts_with('/') && !word.ends_with(':'));
        libraries.for_each(|library| self.copy(Path::new(library)));
    }

    /// Kernel modules with those that they need, and a list of them for `modprobe`.
    fn modules(&mut self, names: &[&str]) {
        let directory = Path::new("/usr/lib/modules").join(release());
        let needs = fs::read_to_string(directory.join("modules.dep")).expect("the kernel's list of modules");
        for name in names {
            let wanted = format!("/{name}.ko");
            let line =
                needs.lines().find(|line| line.split(':').next().is_some_and(|file| file.ends_with(&wanted)));
            let line = line.unwrap_or_else(|| panic!("the kernel has no module {name}"));
            line.split([':', ' '])
                .filter(|file| !file.is_empty())
                .for_each(|file| self.copy(&directory.join(file)));
        }
        self.copy(&directory.join("modules.dep"));
        self.add("modules", File::Regular(0o644, names.join(" ").into()));
    }

    /// The archive.
    pub(crate) fn archive(&self) -> Vec<u8> {
        let mut archive = Vec::new();
        for (number, (path, file)) in self.0.iter().enumerate() {
            let name = path.to_str().expect("a path of text");
            match file {
                File::Directory(mode) => entry(&mut archive, number, name, 0o040_000 | mode, &[]),
                File::Regular(mode, content) => entry(&mut archive, number, name, 0o100_000 | mode, content),
                File::Link(to) => {
                    entry(
                        &mut archive,
                        number,
                        name,
                        0o120_777,
                        to.to_str().expect("a path of text").as_bytes(),
                    );
                }
            }
        }
        entry(&mut archive, 0, "TRAILER!!!", 0, &[]);
        archive
    }
}

fn entry(archive: &mut Vec<u8>, number: usize, name: &str, mode: u32, content: &[u8]) {
    let (size, name_size) = (content.len(), name.len() + 1);
    // inode, mode, uid, gid, links, mtime, size, device (major, minor), special file (major, minor), name's size, checksum
    let header = format!(
        "070701{number:08x}{mode:08x}{0:08x}{0:08x}{1:08x}{0:08x}{size:08x}{0:08x}{0:08x}{0:08x}{0:08x}{name_size:08x}{0:08x}",
        0, 1
    );
    archive.extend(header.as_bytes());
    archive.extend(name.as_bytes());
    archive.push(0);
    archive.resize(archive.len().next_multiple_of(4), 0);
    archive.extend(content);
    archive.resize(archive.len().next_multiple_of(4), 0);
}

/// The newest of the cloud kernels that are installed here: `6.1.0-56-cloud-amd64`.
pub(crate) fn release() -> String {
    let entries = fs::read_dir("/boot").into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let releases = names.filter_map(|name| name.strip_prefix("vmlinuz-").map(str::to_owned));
    let newest = releases.filter(|release| release.contains("-cloud-")).max();
    newest.expect("no cloud kernel in /boot: apt-get install linux-image-cloud-amd64")
}
