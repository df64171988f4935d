//! Images from every source, against the real thing: umoci and skopeo make them, Debian's docker-registry serves them.

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use divvy_proto::ContainerInfo;
use divvy_proto::api::AgentImage;
use divvy_proto::task::{self, Reason, TaskInfo, TaskState};

use crate::Tests;
use crate::harness::{World, shell};

pub(crate) fn tests() -> Tests {
    vec![
        ("a_task_runs_in_an_oci_layout_as_its_image_says", a_task_runs_in_an_oci_layout_as_its_image_says),
        ("a_registry_serves_many_tasks_with_one_download", a_registry_serves_many_tasks_with_one_download),
        ("archives_of_docker_are_images", archives_of_docker_are_images),
        ("a_damaged_image_leaves_nothing_but_a_reason", a_damaged_image_leaves_nothing_but_a_reason),
        ("what_runs_keeps_its_image_across_restarts", what_runs_keeps_its_image_across_restarts),
        ("what_an_agent_did_not_finish_is_removed", what_an_agent_did_not_finish_is_removed),
    ]
}

/// Runs a tool of the system.
fn tool(program: &str, args: &[&str]) {
    let done = Command::new(program).args(args).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(done.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// An OCI layout with two layers: a shell, and a file over it. Its program prints that file and who it is.
fn layout(world: &World) -> PathBuf {
    let (layout, work) = (world.beside().join("layout"), world.beside().join("work"));
    let (image, bundle) = (format!("{}:base", layout.display()), work.display().to_string());
    tool("umoci", &["init", "--layout", layout.to_str().unwrap()]);
    tool("umoci", &["new", "--image", &image]);
    tool("umoci", &["unpack", "--image", &image, &bundle]);
    let root = work.join("rootfs");
    for directory in ["bin", "tmp", "etc", "old"] {
        fs::create_dir(root.join(directory)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for name in ["sh", "cat", "id", "sleep", "ls", "pwd"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::write(root.join("old/file"), "from the lower layer").unwrap();
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\nweb:x:33:33:web:/:/bin/sh\n").unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\nweb:x:33:\n").unwrap();
    tool("umoci", &["repack", "--image", &image, &bundle]);
    fs::remove_dir_all(&work).unwrap();
    tool("umoci", &["unpack", "--image", &image, &bundle]);
    fs::remove_dir_all(root.join("old")).unwrap();
    fs::write(root.join("greeting"), "hello from the image").unwrap();
    let web = format!("{}:web", layout.display());
    tool("umoci", &["repack", "--image", &web, &bundle]);
    let line = "cat /greeting; echo; id -un; pwd; echo $FROM; ls -d /old /bin; exit 0";
    let program = ["--config.entrypoint", "/bin/sh", "--config.entrypoint", "-c", "--config.cmd", line];
    let rest = ["--config.user", "web", "--config.workingdir", "/tmp", "--config.env", "FROM=image"];
    tool("umoci", &[&["config", "--image", &web][..], &program, &rest].concat());
    layout
}

/// A task with an image, and its own program if there is one.
fn task(id: &str, image: &str, line: Option<&str>) -> TaskInfo {
    let mut info = shell(id, line.unwrap_or_default());
    if line.is_none() {
        info.command = task::Command::Image;
    }
    let container = ContainerInfo { image: Some(image.parse().unwrap()), ..ContainerInfo::default() };
    TaskInfo { container: Some(Box::new(container)), ..info }
}

fn images(world: &World) -> Vec<AgentImage> {
    serde_json::from_str(&world.get("/api/v1/images").1).unwrap()
}

fn post(world: &World, verb: &str, body: &str) -> (u16, String) {
    world.post(&format!("/api/v1/images/{verb}"), body)
}

/// Layers on the disk, and what is not finished.
fn on_disk(world: &World) -> (usize, usize) {
    let count = |name: &str, wanted: fn(&Path) -> bool| {
        let entries = fs::read_dir(world.work_dir().join("images").join(name)).unwrap().flatten();
        entries.filter(|entry| wanted(&entry.path())).count()
    };
    (count("layers", Path::is_dir), count("tmp", |_| true))
}

/// Debian's registry on a port of its own.
struct Registry {
    child: Child,
    port: u16,
}

impl Registry {
    fn start(world: &World) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (config, data) = (world.beside().join("registry.yml"), world.beside().join("registry"));
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n\
             http: {{addr: '127.0.0.1:{port}'}}\n",
            data.display()
        );
        fs::write(&config, text).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config).stdout(Stdio::null()).stderr(Stdio::null());
        let registry = Self { child: command.spawn().expect("docker-registry is installed"), port };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "the registry never listens");
            std::thread::sleep(Duration::from_millis(5));
        }
        registry
    }

    fn push(&self, layout: &Path, tag: &str, options: &[&str]) {
        let (from, to) = (format!("oci:{}:{tag}", layout.display()), self.skopeo(tag));
        tool(
            "skopeo",
            &[&["copy", "-q", "--insecure-policy", "--dest-tls-verify=false"], options, &[&from, &to]]
                .concat(),
        );
    }

    fn skopeo(&self, tag: &str) -> String {
        format!("docker://127.0.0.1:{}/team/app:{tag}", self.port)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

const SAID: &str = "hello from the image\nweb\n/tmp\nimage\n/bin\n";

fn a_task_runs_in_an_oci_layout_as_its_image_says(world: &mut World) {
    let name = format!("oci:{}:web", layout(world).display());
    let ended = world.ended(task("t", &name, None));
    assert_eq!(world.get("/api/v1/tasks/f/t/logs").1, SAID, "{ended:?}");
    let own =
        world.ended(task("own", &name, Some("echo mine > /tmp/x; cat /tmp/x; cat /old/file || echo gone")));
    assert_eq!(
        (own.state, world.get("/api/v1/tasks/f/own/logs").1),
        (TaskState::Finished, "mine\ngone\n".into())
    );
    let none = world.ended(task("none", &name.replace(":web", ":other"), None));
    assert_eq!((none.state, none.reason), (TaskState::Failed, Reason::ImageFailed));
    assert!(none.message.ends_with("does not have other, only base, web"), "{}", none.message);
    world.eventually("no container uses the image", |world| {
        images(world).iter().all(|image| image.used_by.is_empty())
    });
}

fn a_registry_serves_many_tasks_with_one_download(world: &mut World) {
    let layout = layout(world);
    let registry = Registry::start(world);
    registry.push(&layout, "web", &["--format", "v2s2"]);
    registry.push(&layout, "base", &["--dest-compress-format", "zstd", "--dest-compress"]);
    let name = registry.skopeo("web");
    for number in 0..4 {
        world.launch(task(&format!("t{number}"), &name, None));
    }
    for number in 0..4 {
        let ended = world.end_of(&format!("t{number}"));
        assert_eq!(world.get(&format!("/api/v1/tasks/f/t{number}/logs")).1, SAID, "{ended:?}");
    }
    assert_eq!(on_disk(world), (2, 0));
    let (status, words) = post(world, "pull", &format!(r#"{{"image":"{}"}}"#, registry.skopeo("base")));
    assert!(status == 200 && words.lines().last().unwrap().starts_with(r#"{"event":"done""#), "{words}");
    assert_eq!(on_disk(world), (2, 0), "both have the lower layer");
    let digest =
        images(world).iter().find(|image| image.names[0].to_string() == name).unwrap().digest.clone();
    drop(registry);
    let by_digest = name.replace(":web", &format!("@{digest}"));
    assert_eq!(world.ended(task("again", &name, None)).state, TaskState::Finished, "it is here");
    assert_eq!(world.ended(task("digest", &by_digest, None)).state, TaskState::Finished);
    let (_, words) = post(world, "pull", &format!(r#"{{"image":"{name}"}}"#));
    assert!(words.contains("does not answer"), "{words}");
}

fn archives_of_docker_are_images(world: &mut World) {
    let from = format!("oci:{}:web", layout(world).display());
    let archive = world.beside().join("image.tar");
    let to = format!("docker-archive:{}:local/app:1", archive.display());
    tool("skopeo", &["copy", "-q", "--insecure-policy", &from, &to]);
    world.ended(task("t", &to, None));
    assert_eq!(world.get("/api/v1/tasks/f/t/logs").1, SAID);
    let packed = fs::File::create(world.beside().join("image.tar.gz")).unwrap();
    let mut encoder = flate2::write::GzEncoder::new(packed, flate2::Compression::fast());
    encoder.write_all(&fs::read(&archive).unwrap()).unwrap();
    encoder.finish().unwrap();
    let packed = format!("docker-archive:{}.gz", archive.display());
    world.ended(task("gz", &packed, None));
    assert_eq!(world.get("/api/v1/tasks/f/gz/logs").1, SAID);
    assert_eq!((on_disk(world), images(world).len()), ((2, 0), 1), "it is one image with two names");
}

fn a_damaged_image_leaves_nothing_but_a_reason(world: &mut World) {
    let layout = layout(world);
    let mut blobs: Vec<_> =
        fs::read_dir(layout.join("blobs/sha256")).unwrap().flatten().map(|it| it.path()).collect();
    blobs.sort_by_key(|path| fs::metadata(path).unwrap().len());
    let largest = blobs.last().unwrap();
    let mut bytes = fs::read(largest).unwrap();
    let middle = bytes.len() - 9;
    bytes[middle] ^= 1;
    fs::write(largest, bytes).unwrap();
    let ended = world.ended(task("t", &format!("oci:{}:web", layout.display()), None));
    assert_eq!((ended.state, ended.reason), (TaskState::Failed, Reason::ImageFailed));
    assert!(ended.message.contains("layer"), "{}", ended.message);
    world.eventually("nothing unfinished is left", |world| on_disk(world).1 == 0);
    assert_eq!(images(world).len(), 0);
}

fn what_runs_keeps_its_image_across_restarts(world: &mut World) {
    let name = format!("oci:{}:web", layout(world).display());
    world.run(task("t", &name, Some("while :; do sleep 0.1; done")));
    let refuse = |world: &World| {
        let (status, why) = post(world, "remove", &format!(r#"{{"image":"{name}"}}"#));
        assert_eq!((status, why.contains("is used by")), (409, true), "{why}");
        assert_eq!(post(world, "gc", "{}"), (200, r#"{"removed":[],"freed":0}"#.to_owned()));
    };
    refuse(world);
    world.crash();
    world.start();
    refuse(world);
    world.kill("t");
    world.end_of("t");
    world.eventually("the image is free", |world| images(world)[0].used_by.is_empty());
    let (status, removed) = post(world, "gc", "{}");
    assert!(status == 200 && removed.starts_with(r#"{"removed":["sha256:"#), "{removed}");
    assert_eq!((on_disk(world), images(world).len()), ((0, 0), 0));
}

fn what_an_agent_did_not_finish_is_removed(world: &mut World) {
    let name = format!("oci:{}:web", layout(world).display());
    world.ended(task("t", &name, None));
    world.crash();
    let directory = world.work_dir().join("images");
    fs::create_dir_all(directory.join("tmp/layer-x/etc")).unwrap();
    fs::create_dir_all(directory.join("layers").join("0".repeat(32)).join("etc")).unwrap();
    fs::write(directory.join("manifests/broken.json"), "{").unwrap();
    fs::write(directory.join("pins/gone.1"), r#"{"image":"#).unwrap();
    world.start();
    assert_eq!((on_disk(world), images(world).len()), ((2, 0), 1));
    assert_eq!(world.ended(task("again", &name, None)).state, TaskState::Finished);
    assert_eq!(post(world, "gc", r#"{"unused_for":3600}"#), (200, r#"{"removed":[],"freed":0}"#.to_owned()));
    assert!(post(world, "remove", &format!(r#"{{"image":"{name}"}}"#)).1.contains("sha256:"));
    assert_eq!(on_disk(world), (0, 0));
}
