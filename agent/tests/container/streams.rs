//! Commands that somebody is attached to, and logs.

use std::fs;

use divvy_agent::container::{Attached, ContainerSpec};
use divvy_proto::exec::{ExecEnd, ExecStart, Frames, FromCommand, ToCommand, WINDOW, WindowSize};
use divvy_proto::task::ExitStatus;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::Tests;
use crate::harness::{Agent, eventually};

pub(crate) fn tests() -> Tests {
    vec![
        ("a_command_has_its_streams_and_its_exit_code", a_command_has_its_streams_and_its_exit_code),
        ("what_cannot_be_run_is_told_by_its_kind", what_cannot_be_run_is_told_by_its_kind),
        ("stdin_comes_as_the_command_takes_it", stdin_comes_as_the_command_takes_it),
        ("a_signal_passes_a_command_that_does_not_read", a_signal_passes_a_command_that_does_not_read),
        ("a_terminal_has_a_name_a_size_and_control_c", a_terminal_has_a_name_a_size_and_control_c),
        ("a_session_ends_when_nobody_is_there", a_session_ends_when_nobody_is_there),
        ("what_a_command_leaves_behind_holds_up_nothing", what_a_command_leaves_behind_holds_up_nothing),
        ("a_flood_is_rotated_and_its_end_is_whole", a_flood_is_rotated_and_its_end_is_whole),
        ("a_task_may_open_its_streams_and_not_its_past", a_task_may_open_its_streams_and_not_its_past),
        ("what_a_task_puts_in_the_way_of_its_log_goes", what_a_task_puts_in_the_way_of_its_log_goes),
    ]
}

/// The client's end of a command.
struct Line {
    attached: Attached,
    frames: Frames,
    stdout: String,
    stderr: String,
    /// How much of stdin the command has taken.
    taken: usize,
    end: Option<ExecEnd>,
}

/// What was printed where, and how it ended.
type Whole = (String, String, ExecEnd);

impl Line {
    async fn say(&mut self, word: ToCommand) {
        self.attached.input.write_all(&word.encode()).await.expect("somebody who hears");
    }

    async fn hear(&mut self) {
        let mut buffer = vec![0; 4096];
        let count = self.attached.output.read(&mut buffer).await.expect("a line");
        assert!(count > 0, "it broke off after {:?}", self.stdout);
        self.frames.push(buffer.get(..count).unwrap_or_default());
        while let Some(frame) = self.frames.take().expect("a frame") {
            match FromCommand::decode(&frame).expect("a word") {
                FromCommand::Stdout(bytes) => self.stdout += &String::from_utf8_lossy(&bytes),
                FromCommand::Stderr(bytes) => self.stderr += &String::from_utf8_lossy(&bytes),
                FromCommand::Taken(count) => self.taken += count as usize,
                FromCommand::End(end) => self.end = Some(end),
            }
        }
    }

    async fn until(&mut self, text: &str) {
        while !self.stdout.contains(text) {
            self.hear().await;
        }
    }

    async fn whole(mut self) -> Whole {
        loop {
            if let Some(end) = self.end.take() {
                return (self.stdout, self.stderr, end);
            }
            self.hear().await;
        }
    }
}

fn start(argv: &[&str]) -> ExecStart {
    ExecStart {
        argv: argv.iter().map(|text| (*text).to_owned()).collect(),
        stdin: true,
        ..ExecStart::default()
    }
}

fn shell(line: &str) -> ExecStart {
    start(&["/bin/sh", "-c", line])
}

fn talk<T, F: Future<Output = T>>(
    agent: &Agent,
    spec: &ContainerSpec,
    start: ExecStart,
    talk: impl FnOnce(Line) -> F,
) -> T {
    agent.attach(spec, start, |attached| {
        let (stdout, stderr) = (String::new(), String::new());
        talk(Line { attached, frames: Frames::default(), stdout, stderr, taken: 0, end: None })
    })
}

fn sleeper(agent: &Agent) -> ContainerSpec {
    let spec = agent.spec("web", &["/bin/sleep", "1000"]);
    agent.launch(&spec);
    spec
}

fn code(code: i32) -> ExecEnd {
    ExecEnd::Ended(ExitStatus::Code(code))
}

fn a_command_has_its_streams_and_its_exit_code(agent: &mut Agent) {
    let spec = sleeper(agent);
    let env = [("WHO".to_owned(), "me".to_owned())].into();
    let start = ExecStart { env, ..shell("echo out $WHO $MARK; echo err >&2; id -un; exit 7") };
    let whole = talk(agent, &spec, start, Line::whole);
    let mark = agent.work_dir().display();
    assert_eq!(whole, (format!("out me {mark}\nnobody\n"), "err\n".to_owned(), code(7)));
    agent.destroy(&spec);
}

fn what_cannot_be_run_is_told_by_its_kind(agent: &mut Agent) {
    let spec = sleeper(agent);
    let end = |argv: &[&str]| talk(agent, &spec, start(argv), Line::whole).2.code();
    let codes = [
        end(&["nosuch"]),
        end(&["/no/such"]),
        end(&["/etc/passwd"]),
        end(&["/etc"]),
        end(&["/bin/sh", "-c", "kill -9 $$"]),
    ];
    assert_eq!(codes, [127, 127, 126, 126, 137]);
    agent.destroy(&spec);
}

fn stdin_comes_as_the_command_takes_it(agent: &mut Agent) {
    let spec = sleeper(agent);
    let text = "0123456789abcdef".repeat(WINDOW / 16);
    let sent = text.clone();
    let whole = talk(agent, &spec, start(&["/bin/cat"]), |mut line| async move {
        for _ in 0..4 {
            let before = line.taken;
            for piece in sent.as_bytes().chunks(WINDOW / 4) {
                line.say(ToCommand::Stdin(piece.to_vec())).await;
            }
            while line.taken < before + WINDOW {
                line.hear().await;
            }
        }
        line.say(ToCommand::StdinEnd).await;
        line.whole().await
    });
    assert_eq!(whole, (text.repeat(4), String::new(), code(0)));
    agent.destroy(&spec);
}

fn a_signal_passes_a_command_that_does_not_read(agent: &mut Agent) {
    let spec = sleeper(agent);
    let line = "exec 2>/dev/null; trap 'echo caught; exit 3' USR1; echo ready; while :; do sleep 0.01; done";
    let whole = talk(agent, &spec, shell(line), |mut line| async move {
        // More than a pipe takes: the rest waits at the helper.
        line.until("ready").await;
        line.say(ToCommand::Stdin(vec![b'x'; WINDOW / 2])).await;
        line.say(ToCommand::Stdin(vec![b'x'; WINDOW / 2])).await;
        line.say(ToCommand::Signal(10)).await;
        line.whole().await
    });
    assert_eq!(whole, ("ready\ncaught\n".to_owned(), String::new(), code(3)));
    agent.destroy(&spec);
}

fn a_terminal_has_a_name_a_size_and_control_c(agent: &mut Agent) {
    let spec = sleeper(agent);
    let size = |rows, cols| WindowSize { rows, cols };
    let line = "tty; stty size; trap 'stty size' WINCH; trap 'echo interrupted; exit 9' INT; \
                echo >/dev/tty ready; while :; do sleep 0.01; done";
    let start = ExecStart { tty: Some(size(24, 80)), ..shell(line) };
    let (stdout, stderr, end) = talk(agent, &spec, start, |mut line| async move {
        line.until("ready").await;
        line.say(ToCommand::Resize(size(40, 132))).await;
        line.until("40 132").await;
        line.say(ToCommand::Stdin(b"\x03".to_vec())).await;
        line.whole().await
    });
    let said = stdout.replace('\r', "");
    assert_eq!(said, "/dev/pts/0\n24 80\nready\n40 132\n^Cinterrupted\n");
    assert_eq!((stderr, end), (String::new(), code(9)));
    agent.destroy(&spec);
}

fn a_session_ends_when_nobody_is_there(agent: &mut Agent) {
    let spec = sleeper(agent);
    for tty in [None, Some(WindowSize { rows: 24, cols: 80 })] {
        let line = "trap '' HUP TERM; sleep 4242 & sleep 4243 & echo ready; wait; wait";
        talk(agent, &spec, ExecStart { tty, ..shell(line) }, |mut line| async move {
            line.until("ready").await;
        });
        let left = || agent.count("sleep 4242") + agent.count("sleep 4243");
        eventually("the session has ended", || left() == 0);
    }
    assert_eq!(agent.count("/bin/sleep 1000"), 1, "the task runs on");
    agent.destroy(&spec);
}

fn what_a_command_leaves_behind_holds_up_nothing(agent: &mut Agent) {
    let spec = sleeper(agent);
    let whole = talk(agent, &spec, shell("sleep 4244 & echo done"), Line::whole);
    assert_eq!(whole, ("done\n".to_owned(), String::new(), code(0)));
    eventually("what it left behind goes on", || agent.count("sleep 4244") == 1);
    agent.destroy(&spec);
}

/// The log as it lies in the sandbox, oldest first; and the number of its files.
fn log(spec: &ContainerSpec, name: &str) -> (String, usize) {
    let entries = fs::read_dir(&spec.sandbox).expect("a sandbox").flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut rotated: Vec<String> = names.filter(|other| other.starts_with(&format!("{name}."))).collect();
    rotated.sort();
    rotated.push(name.to_owned());
    let read = |name: &String| fs::read_to_string(spec.sandbox.join(name)).expect("a log");
    (rotated.iter().map(read).collect(), rotated.len())
}

fn a_flood_is_rotated_and_its_end_is_whole(agent: &mut Agent) {
    let spec = agent.shell("seq 1 200000; echo the end >&2");
    agent.launch(&spec);
    agent.wait(&spec);
    agent.destroy(&spec);
    let all: String = (1..=200_000).map(|n| format!("{n}\n")).collect();
    let (kept, files) = log(&spec, "stdout");
    assert!(all.ends_with(&kept), "{} bytes are not the end of it", kept.len());
    assert!((128 << 10..=192 << 10).contains(&kept.len()), "{} bytes", kept.len());
    assert_eq!((files, log(&spec, "stderr")), (3, ("the end\n".to_owned(), 1)));
}

fn a_task_may_open_its_streams_and_not_its_past(agent: &mut Agent) {
    let line = "echo one > /dev/stdout; echo two > /dev/stderr; (: > stdout) 2>/dev/null || echo refused";
    let outcome = agent.run(&agent.shell(line));
    assert_eq!(outcome.status, Some(ExitStatus::Code(0)), "{outcome:?}");
    assert!(outcome.stdout.starts_with("one\n") && outcome.stdout.ends_with("refused\n"), "{outcome:?}");
    assert!(outcome.stderr.starts_with("two\n"), "{outcome:?}");
}

fn what_a_task_puts_in_the_way_of_its_log_goes(agent: &mut Agent) {
    let spec = agent.shell(
        "rm -f stdout; ln -s /etc/passwd stdout; ln -s /etc/passwd .stdout.times; seq 1 200000; touch ready; exec sleep 1000",
    );
    agent.launch_until_ready(&spec);
    eventually("it is written again", || {
        fs::symlink_metadata(spec.sandbox.join("stdout")).is_ok_and(|metadata| metadata.is_file())
    });
    agent.destroy(&spec);
    let passwd = fs::read_to_string("/etc/passwd").expect("a file");
    assert!(passwd.starts_with("root:"), "{passwd}");
}
