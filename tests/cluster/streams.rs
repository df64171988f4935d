//! Commands, logs, use and files of tasks, all by the master's address; and what hostile tasks, pages and readers can do to them.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use divvy_proto::api;
use serde_json::Value;

use crate::harness::{Cluster, Part, is_alive, job_file};

const TASK: &str = "talk-1.0.1";

/// A cluster with one agent and one task, which runs this.
fn with_task(name: &'static str, shell: &str) -> Cluster {
    let cluster = Cluster::start(name, 1);
    let file = cluster.file("talk.toml", &job_file("talk", "", shell, "mem = \"32MiB\""));
    cluster.divvy(&["batch", "submit", &file]).ok();
    cluster.wait_until("the task runs", || cluster.running().contains_key(TASK));
    cluster
}

/// A `divvy` that is talked to while it runs.
fn divvy(cluster: &Cluster, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_divvy"));
    command.arg(format!("--master={}", cluster.master())).args(arguments).env_remove("DIVVY_OUTPUT");
    command
}

#[test]
fn exec_is_as_if_one_sat_there() {
    let cluster = with_task("exec", "while [ ! -e go ]; do sleep 0.05; done");
    let exec = |command: &[&str]| {
        let ran = cluster.divvy(&[&["exec", TASK, "--"], command].concat());
        (ran.code, ran.stdout)
    };
    assert_eq!(exec(&["sh", "-c", "echo hi; echo no >&2; exit 7"]), (7, "hi\n".to_owned()));
    let codes = [&["nosuch"][..], &["/etc/passwd"], &["sh", "-c", "kill -9 $$"]].map(|line| exec(line).0);
    assert_eq!(codes, [127, 126, 137]);

    pipes(&cluster);
    has_a_terminal(&cluster);
    ends_with_its_client(&cluster);

    cluster.touch(TASK, "go");
    cluster.wait_until("the task has ended", || cluster.running().is_empty());
    let ran = cluster.divvy(&["exec", TASK, "--", "true"]);
    assert!(ran.code == 125 && ran.stderr.contains("kept until"), "{ran}");
    let ran = cluster.divvy(&["exec", "nobody", "--", "true"]);
    assert!(ran.code == 125 && ran.stderr.contains("divvy tasks --all"), "{ran}");
}

/// More than all buffers on the way hold, there and back.
fn pipes(cluster: &Cluster) {
    let sent: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[n as usize % 3]).collect();
    let mut child = divvy(cluster, &["exec", "-i", TASK, "--", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("divvy");
    let (mut stdin, bytes) = (child.stdin.take().expect("a pipe"), sent.clone());
    let writer = std::thread::spawn(move || stdin.write_all(&bytes).expect("a reader"));
    let mut back = Vec::new();
    child.stdout.take().expect("a pipe").read_to_end(&mut back).expect("bytes");
    writer.join().expect("a writer");
    assert_eq!((back == sent, child.wait().expect("an end").code()), (true, Some(0)));
}

fn has_a_terminal(cluster: &Cluster) {
    let line = format!(
        "{} --master={} exec -it {TASK} -- sh -c 'tty; stty size; exit 5'",
        env!("CARGO_BIN_EXE_divvy"),
        cluster.master()
    );
    let mut script = Command::new("script")
        .args(["-qec", &format!("stty rows 33 cols 99; {line}; echo code $?; stty -a"), "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script");
    // At the end of its input `script` would type an end of file, whenever that is.
    let stdin = script.stdin.take();
    let output = script.wait_with_output().expect("an end");
    drop(stdin);
    let said = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    assert!(said.contains("/dev/pts/0\n33 99\ncode 5\n"), "{said}");
    assert!(said.contains(" icanon") && said.contains(" echo "), "the terminal is as before: {said}");
}

fn ends_with_its_client(cluster: &Cluster) {
    let mut child = divvy(cluster, &["exec", TASK, "--", "sh", "-c", "echo $$; exec sleep 4251"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("divvy");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    let [pid] = sleepers("4251")[..] else { panic!("it does not run") };
    child.kill().expect("a process");
    child.wait().expect("an end");
    cluster.wait_until("the command has ended with its client", || !is_alive(pid));
}

/// Processes that are `sleep` of just so long.
fn sleepers(time: &str) -> Vec<i32> {
    let pids = fs::read_dir("/proc").expect("/proc").flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let wanted = format!("sleep\0{time}\0");
    pids.filter(|pid| fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line == wanted))
        .collect()
}

#[test]
fn a_foreign_page_runs_nothing() {
    let cluster = with_task("foreign", "sleep 1000");
    let tasks = cluster.tasks();
    let task = tasks.first().expect("a task");
    let path = format!("/api/v1/tasks/{}/{}/exec", task.framework_id, task.id);
    let agents: Vec<api::Agent> = cluster.try_get("/api/v1/agents").expect("agents");
    let agent = agents.first().expect("an agent").url.trim_start_matches("http://").to_owned();
    let kind = "Content-Type: application/vnd.divvy.exec\r\n";
    let status = |address: &str, headers: &str| {
        let mut stream = TcpStream::connect(address).expect("a server");
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n{headers}\r\n"
        );
        stream.write_all(request.as_bytes()).expect("a request");
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).expect("an answer");
        line.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    let evil = format!("{kind}Origin: http://evil.example\r\n");
    let (master, text) = (cluster.master(), "Content-Type: text/plain\r\n");
    let seen = [(&master, evil.as_str()), (&agent, &evil), (&master, text), (&agent, text), (&agent, kind)];
    let seen = seen.map(|(address, headers)| status(address, headers));
    assert_eq!(seen, ["403", "403", "415", "415", "400"]);
}

#[test]
fn who_stops_reading_fills_nobody() {
    let mut cluster = with_task("stalled", "sleep 1000");
    let memory = |cluster: &Cluster| [Part::Master, Part::Agent(1)].map(|part| resident(cluster.pid(part)));
    let before = memory(&cluster);
    let mut child: Child = divvy(&cluster, &["exec", TASK, "--", "sh", "-c", "exec cat /dev/zero"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("divvy");
    let cat = cluster.wait_for("the command runs", || find("cat\0/dev/zero\0"));
    let mut last = (0, 0);
    cluster.wait_until("the command waits for its reader", || {
        let written = written(cat);
        last = if written == last.0 && written > 0 { (written, last.1 + 1) } else { (written, 0) };
        last.1 > 20
    });
    let after = memory(&cluster);
    let grown = [after[0].saturating_sub(before[0]), after[1].saturating_sub(before[1])];
    assert!(grown.iter().all(|grown| *grown < 32 << 10), "KiB: {before:?} became {after:?}");
    child.kill().expect("a process");
    child.wait().expect("an end");
    cluster.wait_until("the command has ended", || !is_alive(cat));
    assert!(cluster.is_running(Part::Agent(1)) && cluster.is_running(Part::Master));
}

fn find(command: &str) -> Option<i32> {
    let pids = fs::read_dir("/proc").ok()?.flatten();
    let mut pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.find(|pid| fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line == command))
}

/// How many bytes a process has written.
fn written(pid: i32) -> u64 {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    io.lines().find_map(|line| line.strip_prefix("wchar: ")?.parse().ok()).unwrap_or_default()
}

/// Memory that a process has, in KiB.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
fn a_followed_log_goes_on_over_rotations_and_a_killed_agent() {
    // 22 MB: more than two files of the default size.
    let shell = "seq 1 1000000; while [ ! -e go ]; do sleep 0.05; done; seq 1000001 3000000";
    let mut cluster = with_task("follow-on", shell);
    let (out, err) = (cluster.path("followed"), cluster.path("followed.err"));
    let mut reader = divvy(&cluster, &["logs", "-f", TASK])
        .stdout(File::create(&out).expect("a file"))
        .stderr(File::create(&err).expect("a file"))
        .spawn()
        .expect("divvy");
    let size = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
    cluster.wait_until("the first part is read", || size(&out) == 6_888_896);
    cluster.kill9(Part::Agent(1));
    cluster.wait_until("the reader knows", || size(&err) > 0);
    cluster.touch(TASK, "go");
    cluster.restart(Part::Agent(1));
    cluster.wait_until("the reader ends by itself", || reader.try_wait().expect("a child").is_some());
    let lines = BufReader::new(File::open(&out).expect("a file")).lines();
    let wrong = lines.zip(1..).find(|(line, n)| line.as_ref().ok() != Some(&n.to_string()));
    assert_eq!((wrong.map(|(_, n)| n), size(&out)), (None, 22_888_896), "{:?}", fs::read_to_string(&err));

    let tail = cluster.divvy(&["logs", TASK, "--tail", "2"]).ok();
    assert_eq!(tail, "2999999\n3000000\n");
    let [all, none] =
        ["1h", "2100-01-01T00:00:00Z"].map(|time| cluster.divvy(&["logs", TASK, "--since", time]).ok());
    assert_eq!((all.len(), none.len()), (22_888_896, 0));
}

#[test]
fn what_lies_in_a_sandbox_is_shown_and_nothing_else() {
    let shell = "mkdir -p d/e; echo inner > d/e/f; ln -s /etc/passwd evil; ln -s ../../.. up; ln -s d/e/f good; \
                 mkfifo pipe; echo ok; touch ready; sleep 1000";
    let cluster = with_task("files", shell);
    cluster.wait_until("the files are there", || cluster.sandboxes()[TASK].join("ready").exists());
    let names: Value = cluster.json(&["files", "ls", TASK]);
    let names: Vec<&str> =
        names.as_array().expect("a list").iter().filter_map(|e| e["name"].as_str()).collect();
    assert!(
        ["d", "evil", "good", "pipe", "stdout", "up"].iter().all(|name| names.contains(name)),
        "{names:?}"
    );
    let cat = |path: &str| {
        let ran = cluster.divvy(&["files", "cat", TASK, path]);
        (ran.code, ran.stdout)
    };
    assert_eq!(["d/e/f", "/good"].map(cat), ["inner\n", "inner\n"].map(|text| (0, text.to_owned())));
    for path in [
        "evil",
        "up/etc/passwd",
        "../../../etc/passwd",
        "pipe",
        "d",
        "d/../../x",
        "/proc/self/root/etc/passwd",
    ] {
        let (code, shown) = cat(path);
        assert!(code != 0 && shown.is_empty(), "{path}: {shown}");
    }
    let copy = cluster.path("copy");
    let to = copy.to_str().expect("a path");
    cluster.divvy(&["files", "get", TASK, ".", to]).ok();
    assert_eq!(fs::read_to_string(copy.join("d/e/f")).expect("a file"), "inner\n");
    assert_eq!(fs::read_link(copy.join("evil")).expect("a link"), Path::new("/etc/passwd"));
    assert!(!copy.join("pipe").exists());
    cluster.divvy(&["files", "get", TASK, "good", &format!("{to}/one")]).ok();
    assert_eq!(fs::read_to_string(copy.join("one")).expect("a file"), "inner\n");

    let stats: Value = cluster.json(&["stats", "--once"]);
    let of = |stats: &Value| {
        (stats[0]["task_id"].clone(), stats[0]["memory_limit"].clone(), stats[0]["cpu"].is_f64())
    };
    assert_eq!(of(&stats), (TASK.into(), (32 << 20).into(), true), "{stats:#}");
    let one: Value = cluster.json(&["stats", TASK, "--once"]);
    assert_eq!(of(&one), of(&stats));
    let shown = cluster.divvy(&["stats", "--once"]).ok();
    assert!(shown.contains("HOSTNAME") && shown.contains("/ 32MiB"), "{shown}");
}
