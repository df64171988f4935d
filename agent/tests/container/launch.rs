//! Starting, running to an end, and not starting at all.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Duration;

use divvy_agent::container::{
    ContainerId, ContainerSpec, ContainerState, ExecResult, LaunchError, RuntimeError, UserName,
};
use divvy_proto::Bytes;
use divvy_proto::task::ExitStatus;

use crate::harness::{Agent, Outcome, alive, eventually};

pub(crate) fn tests() -> crate::Tests {
    vec![
        ("the_exit_code_is_the_programs", exit_codes),
        ("output_goes_to_files_in_the_sandbox", logs),
        ("the_program_is_found_in_the_path_of_its_environment", path),
        ("an_id_of_200_bytes_is_no_trouble", long_id),
        ("what_cannot_be_executed_is_named", bad_programs),
        ("an_unknown_user_is_named", unknown_user),
        ("memory_that_suffices_for_nothing_is_refused", no_memory),
        ("a_log_that_is_a_trap_is_refused", log_trap),
        ("a_second_container_of_a_name_is_refused_and_the_first_lives_on", twice),
        ("a_command_runs_inside", exec),
        ("a_command_that_takes_too_long_is_killed_with_its_group", exec_timeout),
        ("a_command_that_does_not_exist_is_named", exec_missing),
        ("secrets_do_not_show_in_the_shims_command_line_or_environment", secrets),
    ]
}

fn exit_codes(agent: &mut Agent) {
    let statuses = [0, 1, 7, 255].map(|code| agent.run(&agent.shell(&format!("exit {code}"))).status);
    assert_eq!(statuses, [0, 1, 7, 255].map(|code| Some(ExitStatus::Code(code))));
}

fn logs(agent: &mut Agent) {
    let spec = agent.shell("echo out; echo err >&2; read line || echo no input");
    let expected = |times| Outcome {
        status: Some(ExitStatus::Code(0)),
        stdout: "out\nno input\n".repeat(times),
        stderr: "err\n".repeat(times),
    };
    assert_eq!(agent.run(&spec), expected(1));
    assert_eq!(agent.run(&spec), expected(2), "a second try in the same sandbox appends");
}

fn path(agent: &mut Agent) {
    assert_eq!(agent.run(&agent.spec("web", &["printf", "%s-%s", "a", "b c"])).stdout, "a-b c");
}

fn long_id(agent: &mut Agent) {
    let outcome = agent.run(&agent.spec(&"x".repeat(200), &["/bin/sh", "-c", "hostname"]));
    assert_eq!(outcome.stdout, format!("{}\n", "x".repeat(63)));
}

/// The error of a launch, after which nothing may be left.
fn refusal(agent: &Agent, spec: &ContainerSpec) -> String {
    let error = agent.try_launch(spec).expect_err("a refusal");
    assert_eq!(agent.left_behind(), Vec::<String>::new());
    error.to_string()
}

fn bad_programs(agent: &mut Agent) {
    let spec = agent.shell("");
    let file = |name: &str, text: &str, mode| {
        let path = spec.sandbox.join(name);
        fs::write(&path, text).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
    };
    file("plain", "#!/bin/sh\n", 0o644);
    file("orphan", "#!/bin/no-such-shell\n", 0o755);
    file("noise", "\x01\x02\x03", 0o755);
    let programs = ["/bin/no-such", "./plain", "./orphan", "./noise", "/etc", "no-such-program"];
    let refusals = programs.map(|program| refusal(agent, &agent.spec("web", &[program])));
    assert_eq!(
        refusals,
        [
            "cannot run /bin/no-such: /bin/no-such: no such file in the container",
            "cannot run ./plain: ./plain is not executable by user nobody",
            "cannot run ./orphan: ./orphan exists, but the interpreter or loader that it names does not",
            "cannot run ./noise: ./noise is neither a binary for this machine nor a script that begins with #!",
            "cannot run /etc: /etc is a directory",
            "cannot run no-such-program: no such program in the container's PATH, /usr/sbin:/usr/bin:/sbin:/bin",
        ]
    );
}

fn unknown_user(agent: &mut Agent) {
    let user = UserName::new("nobody-of-that-name").expect("a name");
    let spec = ContainerSpec { user, ..agent.shell("exit 0") };
    assert_eq!(refusal(agent, &spec), "user nobody-of-that-name does not exist on this host");
}

fn no_memory(agent: &mut Agent) {
    let spec = ContainerSpec { memory: Bytes::mib(1), ..agent.shell("exit 0") };
    assert_eq!(
        refusal(agent, &spec),
        "memory 1MiB is not possible: a container needs at least 2MiB to be set up in"
    );
}

fn log_trap(agent: &mut Agent) {
    let spec = agent.shell("exit 0");
    symlink("/etc/passwd", spec.sandbox.join("stdout")).expect("a link");
    let error = refusal(agent, &spec);
    assert!(error.starts_with("cannot open the logs in the sandbox: "), "{error}");
}

fn twice(agent: &mut Agent) {
    let spec = agent.spec("web", &["sleep", "1000"]);
    let pid = agent.launch(&spec);
    let again = agent.try_launch(&spec);
    assert_eq!(again, Err(LaunchError::Exists(ContainerId::new("web").expect("an id"))));
    assert_eq!(agent.state(&spec), ContainerState::Running { pid, addresses: Vec::new() });
}

fn exec(agent: &mut Agent) {
    let spec = agent.shell("echo $$ > ready; exec sleep 1000");
    agent.launch_until_ready(&spec);
    let line = "cat ready; hostname; id -un; grep NoNewPrivs /proc/self/status; pwd -P; echo $SECRET; exit 3";
    let result = agent.exec(&spec, line, Duration::from_secs(10)).expect("a result");
    let output = format!("1\nweb\nnobody\nNoNewPrivs:\t1\n{}\nhunter2\n", spec.sandbox.display());
    assert_eq!(result, ExecResult { status: ExitStatus::Code(3), output });
}

fn exec_timeout(agent: &mut Agent) {
    let spec = agent.spec("web", &["sleep", "1000"]);
    let pid = agent.launch(&spec);
    let result = agent.exec(&spec, "sleep 2000 & touch ready; sleep 2000", Duration::from_secs(3));
    assert!(matches!(result, Err(RuntimeError::ExecTimeout(_))), "{result:?}");
    eventually("the command and its children are dead", || agent.count("sleep 2000") == 0);
    assert_eq!((spec.sandbox.join("ready").exists(), alive(pid)), (true, true));
}

fn exec_missing(agent: &mut Agent) {
    let spec = agent.spec("web", &["sleep", "1000"]);
    agent.launch(&spec);
    let result = agent.exec(&spec, "exec /bin/no-such 2>&1", Duration::from_secs(10)).expect("a shell");
    assert_eq!(result.status, ExitStatus::Code(127));
    agent.destroy(&spec);
    let result = agent.exec(&spec, "true", Duration::from_secs(10));
    assert!(matches!(result, Err(RuntimeError::NotRunning(_))), "{result:?}");
}

fn secrets(agent: &mut Agent) {
    let spec = agent.spec("web", &["sleep", "1000"]);
    agent.launch(&spec);
    let state = agent.state_dir().display().to_string();
    assert_eq!((agent.shim_shows("hunter2"), agent.shim_shows(&state)), (false, true));
}
