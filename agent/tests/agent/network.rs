//! Networks of tasks, and the checks that are made inside them.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use divvy_agent::NetworkConfig;
use divvy_proto::container::ContainerInfo;
use divvy_proto::task::{HealthCheck, Probe, Reason, TaskInfo, TaskPort, TaskState};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::Tests;
use crate::harness::{World, shell};

pub(crate) fn tests() -> Tests {
    vec![
        ("a_task_has_an_address_a_port_and_a_check_inside", a_task_has_an_address_a_port_and_a_check_inside),
        ("a_network_that_is_not_to_be_had_fails_the_task", a_network_that_is_not_to_be_had_fails_the_task),
        ("an_https_check_asks_for_no_certificate", an_https_check_asks_for_no_certificate),
        ("a_grpc_check_wants_to_hear_serving", a_grpc_check_wants_to_hear_serving),
    ]
}

/// A bridge and addresses that no other test has.
pub(crate) fn config(work_dir: &Path) -> NetworkConfig {
    let mut hasher = DefaultHasher::new();
    work_dir.hash(&mut hasher);
    let [first, second, third, ..] = hasher.finish().to_be_bytes();
    NetworkConfig {
        config_dir: work_dir.join("networks"),
        bridge: format!("da{first:02x}{second:02x}{third:02x}"),
        subnets: vec![format!("10.{}.{second}.0/24", 100 + first % 100).parse().unwrap()],
        leases: work_dir.with_file_name("leases"),
        ..NetworkConfig::default()
    }
}

/// The bridge itself, which the agent takes along, and leases.
pub(crate) fn left_behind(config: &NetworkConfig) -> Vec<String> {
    let bridge = Path::new("/sys/class/net").join(&config.bridge);
    let leases = fs::read_dir(config.leases.join("bridge")).into_iter().flatten().flatten();
    let leases = leases.map(|entry| entry.path()).filter(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name != "lock" && !name.starts_with("last_reserved")
    });
    let bridge = bridge.exists().then_some(bridge);
    bridge.into_iter().chain(leases).map(|path| path.display().to_string()).collect()
}

fn check(probe: Probe) -> HealthCheck {
    HealthCheck {
        probe,
        interval: Duration::from_millis(50),
        timeout: Duration::from_secs(5),
        grace: Duration::from_secs(10),
        failures: 2,
    }
}

/// A task that was given port `number`, and listens on `inside`.
fn task(number: u16, inside: Option<u16>, network: &str, probe: Probe, line: &str) -> TaskInfo {
    let network = network.parse().unwrap();
    TaskInfo {
        resources: format!("cpus=0.1;mem=64MiB;ports=[{number}]").parse().unwrap(),
        ports: vec![TaskPort { name: "http".to_owned(), number, container: inside }],
        health: vec![check(probe)],
        container: Some(Box::new(ContainerInfo { network, ..ContainerInfo::default() })),
        ..shell("t", line)
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The server listens on its loopback only: who asks it is inside.
fn a_task_has_an_address_a_port_and_a_check_inside(world: &mut World) {
    let number = free_port();
    let probe = Probe::Http { port: number, path: "/page".to_owned() };
    let line = "echo hello > page; busybox httpd -p 127.0.0.1:$PORT_HTTP -h .; \
                busybox httpd -p $(busybox ip -4 -o addr show eth0 | sed 's/.*inet //; s,/.*,,'):$PORT_HTTP -h .; exec sleep 1000";
    let running = world.run(task(number, Some(80), "bridge", probe, line));
    let addresses = running.container.addresses;
    assert_eq!(addresses.len(), 1, "{addresses:?}");
    world.status("t", "is healthy", |status| status.healthy == Some(true));
    let page = || {
        let url = format!("http://127.0.0.1:{number}/page");
        let got =
            std::process::Command::new("busybox").args(["wget", "-q", "-O", "-", &url]).output().unwrap();
        got.stdout == b"hello\n"
    };
    world.eventually("the port leads inside", |_| page());
    world.crash();
    world.start();
    assert!(page(), "the port leads inside still");
    fs::remove_file(world.sandbox("t").join("page")).unwrap();
    let end = world.end_of("t");
    assert_eq!((end.state, end.reason), (TaskState::Failed, Reason::Unhealthy));
    assert!(end.message.contains("failed 2 times on end: the answer was 404"), "{}", end.message);
    assert_eq!(end.container.addresses, addresses);
}

fn a_network_that_is_not_to_be_had_fails_the_task(world: &mut World) {
    let number = free_port();
    let end = world.ended(task(number, None, "office", Probe::Tcp { port: number }, "true"));
    assert_eq!((end.state, end.reason), (TaskState::Failed, Reason::LaunchFailed));
    assert!(end.message.contains("network office: there is none of that name"), "{}", end.message);
}

/// A certificate of `somebody.else`, by itself, and its key.
fn somebody_elses() -> (CertificateDer<'static>, PrivatePkcs8KeyDer<'static>) {
    let made = tempfile::tempdir().unwrap();
    let openssl = |arguments: &str| {
        let arguments = arguments.split(' ');
        let done = std::process::Command::new("openssl").args(arguments).current_dir(made.path()).output();
        assert!(done.as_ref().is_ok_and(|done| done.status.success()), "{done:?}");
    };
    openssl(
        "req -x509 -newkey rsa:2048 -nodes -subj /CN=somebody.else -keyout key.pem -outform DER -out cert",
    );
    openssl("pkcs8 -topk8 -nocrypt -in key.pem -outform DER -out key");
    let read = |name: &str| fs::read(made.path().join(name)).unwrap();
    (CertificateDer::from(read("cert")), PrivatePkcs8KeyDer::from(read("key")))
}

fn an_https_check_asks_for_no_certificate(world: &mut World) {
    let (certificate, key) = somebody_elses();
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let server = server.with_no_client_auth().with_single_cert(vec![certificate], key.into()).unwrap();
    let number = world.serve(move |stream| {
        let acceptor = TlsAcceptor::from(Arc::new(server.clone()));
        async move {
            let mut stream = acceptor.accept(stream).await.unwrap();
            let mut request = [0; 1024];
            let read = stream.read(&mut request).await.unwrap();
            assert!(request[..read].starts_with(b"GET /health HTTP/1.1\r\n"));
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    let probe = Probe::Https { port: number, path: "/health".to_owned() };
    world.run(task(number, None, "host", probe, "sleep 1000"));
    world.status("t", "is healthy", |status| status.healthy == Some(true));
}

const SERVING: u8 = 1;
const NOT_SERVING: u8 = 2;

fn a_grpc_check_wants_to_hear_serving(world: &mut World) {
    let status = Arc::new(AtomicU8::new(SERVING));
    let seen = status.clone();
    let number = world.serve(move |stream| {
        let seen = seen.clone();
        async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                let head =
                    http::Response::builder().header("content-type", "application/grpc").body(()).unwrap();
                let mut body = respond.send_response(head, false).unwrap();
                let frame = [0, 0, 0, 0, 2, 8, seen.load(Ordering::Relaxed)];
                body.send_data(Bytes::copy_from_slice(&frame), false).unwrap();
                body.send_trailers(
                    [("grpc-status".parse().unwrap(), "0".parse().unwrap())].into_iter().collect(),
                )
                .unwrap();
            }
        }
    });
    let probe = Probe::Grpc { port: number, service: "web".to_owned() };
    world.run(task(number, None, "host", probe, "sleep 1000"));
    world.status("t", "is healthy", |status| status.healthy == Some(true));
    status.store(NOT_SERVING, Ordering::Relaxed);
    let end = world.end_of("t");
    assert_eq!((end.state, end.reason), (TaskState::Failed, Reason::Unhealthy));
    let expected = "service web, failed 2 times on end: the answer was NOT_SERVING";
    assert!(end.message.contains(expected), "{}", end.message);
}

impl World {
    /// Answers connections to a port of the host.
    fn serve<F: Future<Output = ()> + Send + 'static>(
        &self,
        answer: impl Fn(tokio::net::TcpStream) -> F + Send + 'static,
    ) -> u16 {
        let _guard = self.tokio.enter();
        let listener = self.tokio.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let number = listener.local_addr().unwrap().port();
        self.tokio.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream));
            }
        });
        number
    }
}
