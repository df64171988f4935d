//! The files that a container sees: images as overlays, mounts, secrets.

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use divvy_agent::container::{ContainerSpec, Root, UserName, VolumeBind};
use divvy_proto::Bytes;
use divvy_proto::container::{Mount, SecretFile};
use divvy_proto::ids::{SecretName, VolumeId};
use divvy_proto::task::ExitStatus;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::harness::{Agent, Outcome};

pub(crate) fn tests() -> crate::Tests {
    vec![
        ("an_image_is_all_that_is_seen_of_files", image),
        ("what_an_image_is_written_is_gone_with_the_container", private_upper),
        ("whiteouts_and_opaque_directories_hide_what_is_below", whiteouts),
        ("sixty_layers_are_no_trouble", many_layers),
        ("a_read_only_image_cannot_be_written_but_its_sandbox_can", read_only),
        ("an_images_users_are_its_own", users),
        ("a_working_directory_is_made_in_an_image", workdir),
        ("no_link_of_an_image_leads_out_of_it", hostile_links),
        ("a_link_in_place_of_proc_is_refused", hostile_proc),
        ("the_kernels_files_are_masked_and_read_only", masked),
        ("an_image_without_layers_or_with_a_lost_one_is_refused", no_layers),
        ("shared_memory_has_its_size", shm),
        ("volumes_are_seen_in_an_image", volumes),
        ("host_paths_are_seen_where_they_are_allowed", host_paths),
        ("host_paths_are_refused_elsewhere", refused_paths),
        ("a_file_system_in_memory_has_its_size", tmpfs),
        ("a_part_of_the_sandbox_is_seen_elsewhere", sandbox_part),
        ("no_link_in_the_sandbox_leads_a_mount_out_of_it", sandbox_links),
        ("nothing_is_mounted_over_what_is_the_kernels", kernels_places),
        ("secrets_are_files_in_memory_for_the_user_alone", secrets),
        ("secrets_are_on_no_disk", secrets_on_disk),
        ("a_secret_that_is_not_there_is_refused", missing_secrets),
    ]
}

/// A directory with layers of an image; the lowest has a shell.
pub(crate) struct Image<'a> {
    agent: &'a Agent,
    layers: Vec<PathBuf>,
    runs: Cell<u32>,
}

impl<'a> Image<'a> {
    pub(crate) fn new(agent: &'a Agent) -> Self {
        let image = Self { agent, layers: Vec::new(), runs: Cell::new(0) }.layer();
        let bin = image.top().join("bin");
        fs::create_dir(&bin).expect("a directory");
        fs::copy("/usr/bin/busybox", bin.join("busybox")).expect("busybox-static");
        for name in [
            "sh", "cat", "df", "grep", "head", "id", "ls", "mkdir", "pwd", "rm", "sleep", "stat", "tail",
            "touch", "wc",
        ] {
            symlink("busybox", bin.join(name)).expect("a link");
        }
        image.file("etc/passwd", "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n")
    }

    fn layer(mut self) -> Self {
        let layer = self.agent.work_dir().join("layers").join(self.layers.len().to_string());
        fs::create_dir_all(&layer).expect("a directory");
        self.layers.push(layer);
        self
    }

    fn top(&self) -> &Path {
        self.layers.last().expect("a layer")
    }

    fn file(self, path: &str, text: &str) -> Self {
        let path = self.top().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, text).expect("a file");
        self
    }

    fn link(self, path: &str, target: impl AsRef<Path>) -> Self {
        symlink(target, self.top().join(path)).expect("a link");
        self
    }

    fn whiteout(self, path: &str) -> Self {
        let path = self.top().join(path);
        mknod(&path, SFlag::S_IFCHR, Mode::empty(), makedev(0, 0)).expect("a whiteout");
        self
    }

    fn opaque(self, path: &str) -> Self {
        let path = self.top().join(path);
        fs::create_dir(&path).expect("a directory");
        rustix::fs::lsetxattr(path, "trusted.overlay.opaque", b"y", rustix::fs::XattrFlags::empty())
            .expect("an opaque directory");
        self
    }

    /// A line of shell in it, as root, in a sandbox of its own.
    pub(crate) fn shell(&self, line: &str) -> ContainerSpec {
        let user = UserName::new("root").expect("a user");
        let root = Root::Image { layers: self.layers.clone() };
        let number = self.runs.get() + 1;
        self.runs.set(number);
        let spec = self.agent.spec(&format!("run-{number}"), &["/bin/sh", "-c", line]);
        ContainerSpec { root, user, ..spec }
    }

    fn output(&self, line: &str) -> String {
        good(self.agent.run(&self.shell(line)))
    }
}

fn good(outcome: Outcome) -> String {
    assert_eq!((outcome.status, outcome.stderr.as_str()), (Some(ExitStatus::Code(0)), ""));
    outcome.stdout
}

fn refusal(agent: &Agent, spec: &ContainerSpec) -> String {
    let error = agent.try_launch(spec).expect_err("a refusal");
    assert_eq!(agent.left_behind(), Vec::<String>::new());
    error.to_string()
}

fn image(agent: &mut Agent) {
    let image = Image::new(agent).file("etc/os", "mine\n");
    assert_eq!(image.output("ls /; cat /etc/os"), "bin\ndev\netc\nmnt\nproc\nsys\nmine\n");
    let spec = image.shell("pwd; echo x > made; stat -c %u .; echo $$; id -u");
    assert_eq!(good(agent.run(&spec)), "/mnt/sandbox\n0\n1\n0\n");
    assert_eq!(fs::read_to_string(spec.sandbox.join("made")).expect("a file"), "x\n");
    let mounts = image.output("cat /proc/self/mountinfo");
    assert!(
        !mounts.lines().any(|mount| mount.contains(" / /home ") || mount.contains("/layers/")),
        "{mounts}"
    );
}

fn private_upper(agent: &mut Agent) {
    let image = Image::new(agent).file("etc/os", "mine\n").file("data/keep", "kept\n");
    let line = "cat /etc/os; echo changed > /etc/os; rm -r /data; mkdir /data; ls /data; cat /etc/os";
    assert_eq!(image.output(line), "mine\nchanged\n");
    assert_eq!(image.output("cat /etc/os /data/keep"), "mine\nkept\n");
    assert_eq!(fs::read_to_string(image.top().join("data/keep")).expect("a file"), "kept\n");
}

fn whiteouts(agent: &mut Agent) {
    let image = Image::new(agent).file("gone", "").file("stays", "").file("dir/low", "");
    let image = image.layer().whiteout("gone").opaque("dir").file("dir/high", "");
    assert_eq!(image.output("ls -d /gone /stays /dir/* 2>/dev/null; true"), "/dir/high\n/stays\n");
}

fn many_layers(agent: &mut Agent) {
    let image = (0..60).fold(Image::new(agent), |image, number| {
        image.layer().file(&format!("all/{number}"), "").file("last", &format!("{number}\n"))
    });
    assert_eq!(image.output("ls /all | wc -l; cat /last"), "60\n59\n");
}

fn read_only(agent: &mut Agent) {
    let image = Image::new(agent);
    let line = "for d in / /etc /bin /dev /sys /proc/sys/kernel/hostname; do ( : > $d/x ) 2>&1 | grep -c -E 'Read-only|nonexistent'; done; echo x > x; echo x > /dev/shm/x";
    let spec = ContainerSpec { read_only: true, ..image.shell(line) };
    assert_eq!(agent.run(&spec).stdout, "1\n".repeat(6));
    assert!(spec.sandbox.join("x").exists());
}

fn users(agent: &mut Agent) {
    let image = Image::new(agent)
        .file("etc/passwd", "app:x:1234:77::/home/app:/bin/sh\n")
        .file("etc/group", "app:x:77:\naudio:x:29:app\n");
    let user = UserName::new("app").expect("a name");
    let spec = ContainerSpec { user, ..image.shell("id -u; id -g; id -G; echo $HOME; stat -c %u .") };
    assert_eq!(good(agent.run(&spec)), "1234\n77\n77 29\n/home/app\n1234\n");
    let user = UserName::new("no-such-user").expect("a name");
    let error = refusal(agent, &ContainerSpec { user, ..spec });
    assert_eq!(error, "user no-such-user is not possible: the image's /etc/passwd does not have it");
}

fn workdir(agent: &mut Agent) {
    let image = Image::new(agent).link("work", "/srv/place");
    let at = |path: &str| ContainerSpec { workdir: Some(path.into()), ..image.shell("pwd -P") };
    assert_eq!(good(agent.run(&at("/app/deep"))), "/app/deep\n");
    let spec = ContainerSpec { read_only: true, ..at("/srv/new") };
    assert!(good(agent.run(&spec)).ends_with("/srv/new\n"));
    let error = refusal(agent, &at("/app/../x"));
    assert_eq!(error, "workdir /app/../x is not possible: /app/../x is not an absolute path without ..");
}

/// What the image has in place of the directories at which something is mounted or made.
fn hostile_links(agent: &mut Agent) {
    let outside = agent.work_dir().join("outside");
    fs::create_dir(&outside).expect("a directory");
    let up = Path::new("../../../../../../../../../../..").join(outside.strip_prefix("/").expect("a path"));
    let image = Image::new(agent).link("mnt", &outside).link("up", &up);
    fs::create_dir_all(image.top().join(outside.strip_prefix("/").expect("a path"))).expect("a directory");
    let spec = ContainerSpec {
        mounts: vec![Mount::Tmpfs { path: "/up/deep/er".to_owned(), size: Bytes::mib(1) }],
        workdir: Some("/up/work".into()),
        ..image.shell("pwd -P; echo x > /mnt/sandbox/x; ls -d /up/deep/er")
    };
    assert_eq!(good(agent.run(&spec)), format!("{}/work\n/up/deep/er\n", outside.display()));
    assert_eq!(fs::read_dir(&outside).expect("a directory").count(), 0);
    assert!(spec.sandbox.join("x").exists());
}

fn hostile_proc(agent: &mut Agent) {
    for name in ["proc", "sys", "dev"] {
        let image = Image::new(agent).link(name, "/etc");
        let error = refusal(agent, &image.shell("true"));
        assert!(error.ends_with("a part of the path is a symbolic link"), "{error}");
        fs::remove_dir_all(agent.work_dir().join("layers")).expect("an end");
    }
    let image = Image::new(agent).link("data", "/proc/self");
    let mounts = vec![Mount::Tmpfs { path: "/data/attr".to_owned(), size: Bytes::mib(1) }];
    let error = refusal(agent, &ContainerSpec { mounts, ..image.shell("true") });
    assert_eq!(error, "nothing can be mounted at /data/attr: it is below /proc or /sys");
}

const MASKED: &str = "for f in /proc/kcore /proc/keys /proc/timer_list; do [ -e $f ] && head -c 1 $f; done; \
                      ls -A /sys/firmware 2>/dev/null; for f in /proc/sysrq-trigger /proc/sys/kernel/panic \
                      /sys/kernel/uevent_helper /sys/power/state; do [ -e $f ] && (echo x > $f) 2>&1 | grep -v Read-only; done; true";

fn masked(agent: &mut Agent) {
    let root = UserName::new("root").expect("a user");
    assert_eq!(Image::new(agent).output(MASKED), "");
    let seen = agent.run(&ContainerSpec { user: root, ..agent.spec("host", &["/bin/sh", "-c", MASKED]) });
    assert_eq!(seen.stdout, "");
}

fn no_layers(agent: &mut Agent) {
    let mut image = Image::new(agent);
    image.layers.push("/no/such/layer".into());
    let error = refusal(agent, &image.shell("true"));
    assert!(error.starts_with("cannot find the image's layer /no/such/layer"), "{error}");
    image.layers.clear();
    assert_eq!(refusal(agent, &image.shell("true")), "cannot put the image together: it has no layers");
}

fn shm(agent: &mut Agent) {
    let image = Image::new(agent);
    let line = "set -- $(df -k /dev/shm | tail -n 1); echo $2";
    assert_eq!(image.output(line).trim(), "65536");
    let spec = ContainerSpec { shm: Some(Bytes::mib(2)), ..image.shell(line) };
    assert_eq!(good(agent.run(&spec)).trim(), "2048");
}

fn volumes(agent: &mut Agent) {
    let image = Image::new(agent);
    let source = agent.work_dir().join("volume");
    fs::create_dir(&source).expect("a directory");
    let bind = |target: &str, read_only| VolumeBind {
        id: VolumeId::new("data").expect("an id"),
        source: source.clone(),
        target: target.into(),
        read_only,
    };
    let volumes = vec![bind("/var/lib/data", false), bind("/mnt/sandbox/data", true)];
    let line = "echo kept > /var/lib/data/note; cat data/note; (echo x > data/note) 2>&1 | grep -c Read-only";
    assert_eq!(good(agent.run(&ContainerSpec { volumes, ..image.shell(line) })), "kept\n1\n");
    assert_eq!(fs::read_to_string(source.join("note")).expect("a file"), "kept\n");
}

fn host(source: &Path, path: &str, read_only: bool) -> Mount {
    Mount::Host { source: source.display().to_string(), path: path.to_owned(), read_only }
}

fn host_paths(agent: &mut Agent) {
    let shared = agent.shared();
    fs::create_dir(shared.join("dir")).expect("a directory");
    fs::set_permissions(shared.join("dir"), fs::Permissions::from_mode(0o777)).expect("a mode");
    fs::write(shared.join("file"), "a file\n").expect("a file");
    let mounts = vec![
        host(&shared.join("dir"), "/srv/deep/dir", false),
        host(&shared, "/srv/all", true),
        host(&shared.join("file"), "/etc/file", true),
    ];
    let line = "echo x > /srv/deep/dir/made; cat /srv/all/dir/made /etc/file; (echo x > /srv/all/dir/y) 2>&1 | grep -c Read-only";
    let spec = ContainerSpec { mounts, ..Image::new(agent).shell(line) };
    assert_eq!(good(agent.run(&spec)), "x\na file\n1\n");
    let mounts = vec![host(&shared.join("dir"), "/tmp/dir", false)];
    let spec = agent.spec("hosts", &["/bin/sh", "-c", "cat /tmp/dir/made; echo y > /tmp/dir/other"]);
    assert_eq!(good(agent.run(&ContainerSpec { mounts, ..spec })), "x\n");
    assert_eq!(fs::read_to_string(shared.join("dir/other")).expect("a file"), "y\n");
}

fn refused_paths(agent: &mut Agent) {
    let shared = agent.shared();
    symlink("/etc", shared.join("way")).expect("a link");
    let refused = |source: &Path| {
        let mounts = vec![host(source, "/tmp/x", true)];
        refusal(agent, &ContainerSpec { mounts, ..agent.shell("true") })
    };
    for source in [Path::new("/etc"), &shared.join("way"), &shared.join("..")] {
        let expected = format!(
            "nothing can be mounted at /tmp/x: host path {} is not allowed on this agent; \
             its operator can allow it with --allow-host-path",
            source.display()
        );
        assert_eq!(refused(source), expected);
    }
    for source in [agent.work_dir(), &agent.state_dir(), Path::new("/")] {
        assert!(refused(source).contains("which is the agent's own"), "{}", source.display());
    }
    assert!(refused(&shared.join("no-such")).contains("No such file"));
}

fn tmpfs(agent: &mut Agent) {
    let mounts = vec![Mount::Tmpfs { path: "/var/cache".to_owned(), size: Bytes::mib(3) }];
    let line =
        "set -- $(df -k /var/cache | tail -n 1); echo $2; stat -c %a /var/cache; echo x > /var/cache/x";
    let image = Image::new(agent);
    assert_eq!(good(agent.run(&ContainerSpec { mounts, ..image.shell(line) })), "3072\n1777\n");
}

fn part(source: &str, path: &str, read_only: bool) -> Mount {
    Mount::Sandbox { source: source.to_owned(), path: path.to_owned(), read_only }
}

fn sandbox_part(agent: &mut Agent) {
    let user = UserName::new("nobody").expect("a user");
    let mounts = vec![part("data/own", "/var/data", false), part("conf", "/etc/conf", true)];
    let line =
        "echo x > /var/data/made; cat data/own/made /etc/conf; (echo y > /etc/conf) 2>&1 | grep -c Read-only";
    let spec = ContainerSpec { mounts, user, ..Image::new(agent).shell(line) };
    fs::write(spec.sandbox.join("conf"), "as fetched\n").expect("a file");
    assert_eq!(good(agent.run(&spec)), "x\nas fetched\n1\n");
}

fn sandbox_links(agent: &mut Agent) {
    let outside = agent.shared();
    let spec = agent.shell("true");
    symlink(&outside, spec.sandbox.join("way")).expect("a link");
    for source in ["way", "way/made"] {
        let mounts = vec![part(source, "/tmp/x", false)];
        let error = refusal(agent, &ContainerSpec { mounts, ..spec.clone() });
        assert_eq!(error, "nothing can be mounted at /tmp/x: a part of the path is a symbolic link");
    }
    let mounts = vec![part("../web", "/tmp/x", false)];
    let error = refusal(agent, &ContainerSpec { mounts, ..spec.clone() });
    assert_eq!(error, "nothing can be mounted at /tmp/x: the path is not plain");
    assert_eq!(fs::read_dir(&outside).expect("a directory").count(), 0);
}

fn kernels_places(agent: &mut Agent) {
    for path in ["/", "/proc/self", "/sys", "/dev/shm", "/etc/../proc", "relative"] {
        let mounts = vec![Mount::Tmpfs { path: path.to_owned(), size: Bytes::mib(1) }];
        refusal(agent, &ContainerSpec { mounts, ..agent.shell("true") });
    }
}

fn secret(name: &str, path: Option<&str>) -> SecretFile {
    SecretFile { name: SecretName::new(name).expect("a name"), path: path.map(str::to_owned) }
}

fn put_secret(agent: &Agent, name: &str, text: &str, mode: u32) {
    let directory = agent.work_dir().join("secrets");
    fs::create_dir_all(&directory).expect("a directory");
    fs::write(directory.join(name), text).expect("a file");
    fs::set_permissions(directory.join(name), fs::Permissions::from_mode(mode)).expect("a mode");
}

fn secrets(agent: &mut Agent) {
    put_secret(agent, "password", "swordfish\n", 0o600);
    put_secret(agent, "token", "xyzzy\n", 0o400);
    let user = UserName::new("nobody").expect("a user");
    let secrets = vec![secret("password", None), secret("token", Some("/etc/app/token"))];
    let line = "cat /run/secrets/password /etc/app/token; stat -c '%a %u' /run/secrets/password; \
                (echo x > /etc/app/token) 2>&1 | grep -c -E 'Read-only|denied'; grep -c ' /etc/app/token .* tmpfs ' /proc/self/mountinfo";
    let spec = ContainerSpec { secrets: secrets.clone(), user, ..Image::new(agent).shell(line) };
    assert_eq!(good(agent.run(&spec)), "swordfish\nxyzzy\n400 65534\n1\n1\n");
    let spec = ContainerSpec {
        secrets: vec![secret("password", None)],
        ..agent.spec("host", &["cat", "/run/secrets/password"])
    };
    assert_eq!(good(agent.run(&spec)), "swordfish\n");
    // The directory itself is nobody's, not even root's in a container with the host's files.
    let list = format!("ls -A {}", agent.work_dir().display());
    let root = UserName::new("root").expect("a user");
    let spec = ContainerSpec { user: root, ..agent.spec("other", &["/bin/sh", "-c", &list]) };
    assert_eq!(good(agent.run(&spec)), "sandboxes\n");
}

/// Everything below the agent's directory but the operator's own file.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("a directory").flatten();
    entries
        .flat_map(|entry| match entry.file_type().expect("a type").is_dir() {
            true => files(&entry.path()),
            false => vec![entry.path()],
        })
        .collect()
}

fn secrets_on_disk(agent: &mut Agent) {
    put_secret(agent, "password", "swordfish\n", 0o600);
    let secrets = vec![secret("password", None)];
    let spec = ContainerSpec { secrets, ..Image::new(agent).shell("touch ready; sleep 1000") };
    agent.launch_until_ready(&spec);
    let has = |path: &PathBuf| {
        fs::read(path).is_ok_and(|text| String::from_utf8_lossy(&text).contains("swordfish"))
    };
    let telling: Vec<_> = files(agent.work_dir()).into_iter().filter(has).collect();
    assert_eq!(telling, [agent.work_dir().join("secrets/password")]);
    assert!(!agent.shim_shows("swordfish"));
}

fn missing_secrets(agent: &mut Agent) {
    put_secret(agent, "open", "x", 0o644);
    fs::create_dir(agent.work_dir().join("secrets/directory")).expect("a directory");
    let refused = |name: &str| {
        let secrets = vec![secret(name, None)];
        refusal(agent, &ContainerSpec { secrets, ..agent.shell("true") })
    };
    assert!(refused("missing").starts_with("secret missing: "));
    assert!(refused("open").ends_with("can be read by others than root; give it to root with mode 0600"));
    assert!(refused("directory").ends_with("is not a file"));
}
