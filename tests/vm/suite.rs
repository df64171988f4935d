//! The suite's binary.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

/// A test binary that needs nothing but root and a kernel.
pub(crate) struct Suite {
    pub(crate) path: PathBuf,
}

impl Suite {
    /// The one that lies beside this test's binary, as it does when all tests are built together; else cargo builds it.
    pub(crate) fn find() -> Self {
        let this = std::env::current_exe().expect("this binary");
        let beside = newest_in(this.parent().expect("a directory"));
        let fresh = |(path, built): (PathBuf, SystemTime)| (built >= newest_source()).then_some(path);
        Self { path: beside.and_then(fresh).unwrap_or_else(build) }
    }

    /// The names of its tests.
    pub(crate) fn tests(&self) -> impl Iterator<Item = String> {
        let output =
            Command::new(&self.path).args(["--list", "--format", "terse"]).output().expect("the suite runs");
        let text = String::from_utf8(output.stdout).expect("a list of names");
        let names: Vec<String> =
            text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect();
        assert!(!names.is_empty(), "{} has no tests", self.path.display());
        names.into_iter()
    }

    /// Where its tests keep their files: a path that is compiled into it.
    pub(crate) fn directory(&self) -> PathBuf {
        PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
    }
}

fn newest_in(directory: &Path) -> Option<(PathBuf, SystemTime)> {
    let entries = std::fs::read_dir(directory).expect("the directory of this binary").flatten();
    let suites = entries.filter(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name.starts_with("container-") && !name.contains('.')
    });
    suites
        .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?.modified().ok()?)))
        .max_by_key(|(_, built)| *built)
}

/// When what the suite is made from was last changed.
fn newest_source() -> SystemTime {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut directories =
        ["agent/src", "agent/tests/container", "proto"].map(|name| root.join(name)).to_vec();
    let mut newest = SystemTime::UNIX_EPOCH;
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).expect("a directory of sources").flatten() {
            let metadata = entry.metadata().expect("a source");
            match metadata.is_dir() {
                true => directories.push(entry.path()),
                false => newest = newest.max(metadata.modified().expect("a time")),
            }
        }
    }
    newest
}

fn build() -> PathBuf {
    let output = Command::new(env!("CARGO"))
        .args(["test", "-p", "divvy-agent", "--test", "container", "--no-run", "--message-format", "json"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let messages = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut built = messages.filter(|message| message["target"]["name"] == "container");
    let path = built.find_map(|message| message["executable"].as_str().map(PathBuf::from));
    path.expect("cargo names what it has built")
}
