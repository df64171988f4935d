//! nginx serves real files while it is replaced under load, to clients that follow the published endpoints.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::thread::JoinHandle;

use divvy_proto::Timestamp;
use divvy_proto::api::Task;
use divvy_proto::task::TaskState;
use divvy_service::api_types::{AppState, AppStatus, DeploymentState, Endpoints};

use crate::harness::{Cluster, get};

const INSTANCES: u32 = 4;
const CLIENTS: usize = 3;
/// What the clients ask for, from a directory that every Debian has.
const FILE: &str = "/usr/share/common-licenses/GPL-2";

/// nginx in the foreground, with all that it writes in the sandbox. `answer` is what it serves at `/`.
fn nginx(answer: &str) -> String {
    format!(
        r#"id = "site"
instances = {INSTANCES}
[update]
max_unavailable = 1
max_surge = 1
min_healthy_time = "500ms"
drain = "1s"
[task]
shell = '''
cat > nginx.conf <<END
daemon off; worker_processes 1; pid $DIVVY_SANDBOX/nginx.pid; error_log stderr notice;
events {{ worker_connections 256; }}
http {{
  access_log off; client_body_temp_path $DIVVY_SANDBOX/t1; proxy_temp_path $DIVVY_SANDBOX/t2;
  fastcgi_temp_path $DIVVY_SANDBOX/t3; uwsgi_temp_path $DIVVY_SANDBOX/t4; scgi_temp_path $DIVVY_SANDBOX/t5;
  server {{
    listen $HOST:$PORT_HTTP; root /usr/share/common-licenses; default_type text/plain;
    location = / {{ {answer} }}
  }}
}}
END
exec /usr/sbin/nginx -e stderr -c "$DIVVY_SANDBOX/nginx.conf"
'''
cpus = 0.1
mem = "64MiB"
ports = [{{ name = "http" }}]
health = [{{ http = {{ port = "http", path = "/" }}, interval = "250ms", timeout = "5s", grace = "30s", failures = 3 }}]
"#
    )
}

/// What watchers and clients have seen.
#[derive(Default)]
struct Seen {
    /// Where to send requests now.
    endpoints: RwLock<Vec<String>>,
    /// Tasks that were published, and when they were withdrawn if they were.
    published: Mutex<BTreeMap<String, Option<Timestamp>>>,
    /// When a task was told to stop, as its agent says.
    stopped: Mutex<BTreeMap<String, Timestamp>>,
    /// How many were healthy, at each change.
    healthy: Mutex<Vec<u32>>,
    answers: AtomicUsize,
    lost: Mutex<Vec<String>>,
    enough: AtomicBool,
}

/// Threads that watch and ask until they are told that it is enough.
struct Watchers {
    seen: Arc<Seen>,
    clients: Vec<JoinHandle<()>>,
}

impl Watchers {
    fn start(cluster: &Cluster) -> Self {
        let seen = Arc::new(Seen::default());
        // Watchers end with their streams, which end with the cluster.
        for (path, watch) in [
            ("/frameworks/service/v1/apps/site/endpoints", see_endpoints as fn(&Seen, &str)),
            ("/frameworks/service/v1/apps/site/events", see_health),
            ("/api/v1/events", see_stops),
        ] {
            let (events, seen) = (cluster.events(path), seen.clone());
            std::thread::spawn(move || events.for_each(|(_, data)| watch(&seen, &data)));
        }
        cluster.wait_until("the endpoints are known", || !seen.endpoints.read().expect("a lock").is_empty());
        let whole = Arc::new(std::fs::read_to_string(FILE).expect("a file of Debian's"));
        let client = |number| {
            let (seen, whole) = (seen.clone(), whole.clone());
            std::thread::spawn(move || ask(&seen, number, &whole))
        };
        let clients = (0..CLIENTS).map(client).collect();
        Self { seen, clients }
    }

    fn stop(self) -> Arc<Seen> {
        self.seen.enough.store(true, Ordering::Relaxed);
        self.clients.into_iter().for_each(|client| client.join().expect("a client that does not panic"));
        self.seen
    }
}

fn see_endpoints(seen: &Seen, data: &str) {
    let now = Timestamp::wall_clock();
    let Ok(Endpoints { endpoints, .. }) = serde_json::from_str(data) else { return };
    let mut published = seen.published.lock().expect("a lock");
    for withdrawn in published.values_mut() {
        withdrawn.get_or_insert(now);
    }
    published.extend(endpoints.iter().map(|endpoint| (endpoint.task.to_string(), None)));
    *seen.endpoints.write().expect("a lock") =
        endpoints.into_iter().map(|endpoint| endpoint.address).collect();
}

fn see_health(seen: &Seen, data: &str) {
    if let Ok(app) = serde_json::from_str::<AppStatus>(data) {
        seen.healthy.lock().expect("a lock").push(app.healthy);
    }
}

fn see_stops(seen: &Seen, data: &str) {
    let Ok(task) = serde_json::from_str::<Task>(data) else { return };
    if matches!(task.state, TaskState::Killing | TaskState::Killed) {
        let mut stopped = seen.stopped.lock().expect("a lock");
        stopped.entry(task.id.to_string()).or_insert(task.updated_at);
    }
}

/// One request after the other, to each endpoint in turn.
fn ask(seen: &Seen, number: usize, whole: &str) {
    let mut turn = number;
    while !seen.enough.load(Ordering::Relaxed) {
        let address = {
            let endpoints = seen.endpoints.read().expect("a lock");
            endpoints.get(turn % endpoints.len().max(1)).cloned()
        };
        turn += 1;
        let Some(address) = address else { continue };
        match get(&address, "/GPL-2") {
            Ok(answer) if answer.status == 200 && answer.body == whole => {
                seen.answers.fetch_add(1, Ordering::Relaxed);
            }
            other => seen
                .lost
                .lock()
                .expect("a lock")
                .push(format!("{address}: {:?}", other.map(|answer| answer.status))),
        }
    }
}

#[test]
fn nginx_is_replaced_under_load_and_no_request_is_lost() {
    assert!(Path::new("/usr/sbin/nginx").exists(), "nginx is missing: apt-get install nginx-light");
    let cluster = Cluster::start("rolling", 2);
    let file = |version: &str, answer: &str| cluster.file(&format!("{version}.toml"), &nginx(answer));
    let (first, second) = (file("first", "return 200 first;"), file("second", "return 200 second;"));
    let broken = file("broken", "no_such_directive;");
    cluster.divvy(&["service", "apply", &first, "--wait"]).ok();

    let watchers = Watchers::start(&cluster);
    cluster.divvy(&["service", "apply", &second, "--wait"]).ok();
    let app = cluster.app("site").expect("the app");
    assert_eq!((app.state, app.version, app.healthy), (AppState::Running, 2, INSTANCES));
    failing_version_is_given_up(&cluster, &broken);
    let seen = watchers.stop();

    assert_eq!(*seen.lost.lock().expect("a lock"), Vec::<String>::new());
    assert!(seen.answers.load(Ordering::Relaxed) > 100, "hardly a load");
    let healthy = seen.healthy.lock().expect("a lock");
    assert!(healthy.iter().all(|healthy| *healthy >= INSTANCES - 1), "{healthy:?}");
    let (published, stopped) = (seen.published.lock().expect("a lock"), seen.stopped.lock().expect("a lock"));
    let old: Vec<_> = stopped.iter().filter(|(task, _)| task.starts_with("site.1.")).collect();
    assert_eq!(old.len(), INSTANCES as usize);
    for (task, stopped) in old {
        let withdrawn = published.get(task).copied().flatten();
        assert!(
            withdrawn.is_some_and(|at| at < *stopped),
            "{task}: withdrawn {withdrawn:?}, stopped {stopped:?}"
        );
    }
}

#[test]
fn an_agent_is_drained_under_load_and_no_request_is_lost() {
    let cluster = Cluster::start("drain", 2);
    let site = cluster.file("site.toml", &nginx("return 200 site;"));
    cluster.divvy(&["service", "apply", &site, "--wait"]).ok();
    let on_the_first = || {
        let app = cluster.app("site").expect("the app");
        app.tasks.iter().filter(|task| task.hostname.as_str() == "agent-1").count()
    };
    assert_eq!(on_the_first(), 2);

    let watchers = Watchers::start(&cluster);
    cluster.divvy(&["drain", "agent-1", "--deadline", "50s", "--wait"]).ok();
    let seen = watchers.stop();

    assert_eq!((on_the_first(), cluster.app("site").expect("the app").healthy), (0, INSTANCES));
    assert_eq!(*seen.lost.lock().expect("a lock"), Vec::<String>::new());
    assert!(seen.answers.load(Ordering::Relaxed) > 100, "hardly a load");
    // Each was replaced on the other agent before it stopped.
    let healthy = seen.healthy.lock().expect("a lock");
    assert!(healthy.iter().all(|healthy| *healthy >= INSTANCES), "{healthy:?}");
}

/// A version that does not even start: the deployment ends with a reason, and what ran before goes on.
fn failing_version_is_given_up(cluster: &Cluster, file: &str) {
    let before = cluster.app("site").expect("the app");
    let ran = cluster.divvy(&["service", "apply", file, "--wait"]);
    assert_eq!(ran.code, 1, "{ran}");
    let app = cluster.app("site").expect("the app");
    assert_eq!((app.state, app.deployment.state), (AppState::Failed, DeploymentState::Failed), "{app:#?}");
    let reason = app.deployment.reason.clone().unwrap_or_default();
    assert!(!reason.is_empty() && ran.stderr.contains(&reason), "{reason}: {ran}");
    let kept = app.endpoints.iter().filter(|endpoint| before.endpoints.contains(endpoint)).count();
    assert!(kept + 1 >= before.endpoints.len(), "{app:#?}");
    let bodies: Vec<String> =
        app.endpoints.iter().map(|e| get(&e.address, "/").expect("an answer").body).collect();
    assert!(bodies.iter().all(|body| body == "second"), "{bodies:?}");
}
