//! Persistent volumes: what one task writes, the next one reads.

use std::fs;

use divvy_agent::KillTasks;
use divvy_proto::ids::VolumeId;
use divvy_proto::reservation::VolumeMount;
use divvy_proto::task::{ExitStatus, Reason, TaskInfo, TaskState};

use crate::Tests;
use crate::harness::{World, shell};

pub(crate) fn tests() -> Tests {
    vec![
        ("what_one_task_writes_the_next_one_reads", what_one_task_writes_the_next_one_reads),
        ("volumes_outlive_the_agent", volumes_outlive_the_agent),
        ("a_volume_that_is_not_named_any_more_is_gone", a_volume_that_is_not_named_any_more_is_gone),
        ("a_read_only_volume_cannot_be_written", a_read_only_volume_cannot_be_written),
        ("a_volume_may_be_at_an_absolute_path", a_volume_may_be_at_an_absolute_path),
        ("no_link_leads_a_volume_astray", no_link_leads_a_volume_astray),
    ]
}

fn with(path: &str, task: TaskInfo) -> TaskInfo {
    let id = VolumeId::new("data").unwrap();
    TaskInfo { volumes: vec![VolumeMount { id, path: path.to_owned(), read_only: false }], ..task }
}

fn assert_finished(world: &World, task: TaskInfo) {
    let id = task.id.to_string();
    let end = world.ended(task);
    let stderr = fs::read_to_string(world.sandbox(&id).join("stderr")).unwrap_or_default();
    assert_eq!((end.state, stderr.as_str()), (TaskState::Finished, ""), "{}", end.message);
}

fn what_one_task_writes_the_next_one_reads(world: &mut World) {
    world.volumes(&["data"]);
    assert_finished(world, with("db/files", shell("writes", "echo kept > db/files/note")));
    assert_finished(world, with("other", shell("reads", "grep kept other/note && echo more >> other/note")));
    let kept = fs::read_to_string(world.work_dir().join("volumes/data/note")).unwrap();
    assert_eq!(kept, "kept\nmore\n");
    assert_eq!(fs::read_dir(world.sandbox("reads").join("other")).unwrap().count(), 0, "no mount is left");
}

fn volumes_outlive_the_agent(world: &mut World) {
    world.volumes(&["data"]);
    assert_finished(world, with("db", shell("writes", "echo kept > db/note")));
    let holder = "touch ready; while [ ! -e stop ]; do sleep 0.02; done; cat db/note";
    world.run(with("db", shell("holds", holder)));
    world.crash();
    world.start();
    // No master has named it since: it is there all the same.
    assert_finished(world, with("db", shell("reads", "grep kept db/note")));
    world.volumes(&["data"]);
    world.stop(KillTasks::No);
    world.start();
    fs::write(world.sandbox("holds").join("stop"), "").unwrap();
    assert_eq!(world.end_of("holds").container.exit, Some(ExitStatus::Code(0)));
    assert_eq!(fs::read_to_string(world.sandbox("holds").join("stdout")).unwrap(), "kept\n");
}

fn a_volume_that_is_not_named_any_more_is_gone(world: &mut World) {
    world.volumes(&["data", "other"]);
    assert_finished(
        world,
        with("db", shell("writes", "mkdir db/deep; echo lost > db/deep/note; ln -s /etc db/link")),
    );
    world.volumes(&["other"]);
    world.eventually("its directory and what was in it are gone", |world| {
        !world.work_dir().join("volumes/data").exists()
            && fs::read_dir(world.work_dir().join("removed-volumes")).unwrap().count() == 0
    });
    assert!(world.work_dir().join("volumes/other").exists());
    let end = world.ended(with("db", shell("late", "true")));
    assert_eq!(
        (end.state, end.reason, end.message.as_str()),
        (TaskState::Failed, Reason::LaunchFailed, "volume data is not on this agent")
    );
    world.volumes(&["data"]);
    assert_finished(world, with("db", shell("anew", "test -z \"$(ls db)\"")));
}

fn a_read_only_volume_cannot_be_written(world: &mut World) {
    world.volumes(&["data"]);
    assert_finished(world, with("db", shell("writes", "echo kept > db/note")));
    let mut reads = with("db", shell("reads", "cat db/note && ! (echo x > db/other) 2>/dev/null"));
    reads.volumes[0].read_only = true;
    assert_finished(world, reads);
}

fn a_volume_may_be_at_an_absolute_path(world: &mut World) {
    world.volumes(&["data"]);
    assert_finished(world, with("/srv", shell("writes", "echo kept > /srv/note")));
    assert_finished(world, with("/tmp/made/here", shell("reads", "grep kept /tmp/made/here/note")));
    assert!(!std::path::Path::new("/srv/note").exists());
    let end = world.ended(with("/no/such/place", shell("nowhere", "true")));
    assert_eq!((end.state, end.reason), (TaskState::Failed, Reason::LaunchFailed));
    assert!(end.message.contains("volume data cannot be mounted at /no/such/place"), "{}", end.message);
}

/// The sandbox is filled before the volume is mounted: what was fetched may try to lead the mount out of it.
fn no_link_leads_a_volume_astray(world: &mut World) {
    world.permit_reading();
    let archive = world.beside().join("links.tar");
    let beside = world.beside().join("elsewhere");
    std::os::unix::fs::symlink(&beside, world.beside().join("link")).unwrap();
    let mut tar = std::process::Command::new("tar");
    tar.arg("-cf").arg(&archive).arg("-C").arg(world.beside()).arg("link");
    assert!(tar.status().unwrap().success());
    fs::create_dir(&beside).unwrap();
    world.volumes(&["data"]);
    let mut task = with("link/made", shell("astray", "true"));
    task.artifacts = vec![divvy_proto::task::Artifact {
        uri: archive.display().to_string(),
        sha256: None,
        path: None,
        extract: true,
        executable: false,
    }];
    let end = world.ended(task);
    assert!(end.message.contains("a part of the path is a symbolic link"), "{end:?}");
    assert_eq!(fs::read_dir(&beside).unwrap().count(), 0, "{}", end.message);
}
