//! The machine: QEMU, two serial lines, and a deadline.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fmt, fs};

use crate::files::{self, Files};

/// Whatever does not happen within this does not happen. On an idle machine it takes a tenth of that.
const DEADLINE: Duration = Duration::from_secs(900);

/// What the machine said.
pub(crate) struct Told {
    /// The kernel, and all that the tests write to stderr.
    pub(crate) console: String,
    /// What the suite writes to stdout.
    report: String,
}

impl Told {
    /// The lines of one part of the story.
    pub(crate) fn part(&self, name: &str) -> impl Iterator<Item = &str> {
        let from_there = self.report.lines().skip_while(move |line| line.strip_prefix("== ") != Some(name));
        from_there.skip(1).take_while(|line| !line.starts_with("== "))
    }

    /// Every test that has come to an end in one part of the story, and to which.
    pub(crate) fn results(&self, part: &str) -> BTreeMap<String, String> {
        let lines = self.part(part).filter_map(|line| line.trim().strip_prefix("test "));
        let ends = lines.filter_map(|line| line.rsplit_once(" ... "));
        ends.map(|(test, end)| (test.trim().to_owned(), end.to_owned())).collect()
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the machine's report:\n{}\nits console:\n{}", self.report, self.console)
    }
}

/// Runs the machine until it turns itself off.
pub(crate) fn run(files: &Files) -> Told {
    let directory = tempfile::tempdir().expect("a directory");
    let [initramfs, console, report] =
        ["initramfs", "console", "report"].map(|name| directory.path().join(name));
    fs::write(&initramfs, files.archive()).expect("room for the machine's files");
    let kernel = format!("/boot/vmlinuz-{}", files::release());
    let mut machine = Command::new("qemu-system-x86_64");
    machine.args(["-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "2048"]);
    machine
        .args(["-nodefaults", "-display", "none", "-no-reboot", "-kernel", &kernel])
        .arg("-initrd")
        .arg(&initramfs);
    machine.args(["-append", "console=ttyS0 quiet panic=-1 rdinit=/init"]);
    for line in [&console, &report] {
        machine.arg("-serial").arg(format!("file:{}", line.display()));
    }
    let child = machine.stdin(Stdio::null()).spawn().expect("no QEMU: apt-get install qemu-system-x86");
    let in_time = ends_in_time(child);
    let read = |path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).replace('\r', "");
    let told = Told { console: read(&console), report: read(&report) };
    assert!(in_time, "the machine runs for more than {DEADLINE:?}; {told}");
    told
}

fn ends_in_time(mut machine: Child) -> bool {
    let deadline = Instant::now() + DEADLINE;
    while Instant::now() < deadline {
        if machine.try_wait().expect("the state of a child").is_some() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    machine.kill().expect("a machine that can be turned off");
    machine.wait().expect("the end of a child");
    false
}
