//! What containers are connected to, with the real plugins.

#![allow(clippy::indexing_slicing, reason = "a test that finds nothing there has failed")]

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use divvy_agent::NetworkConfig;
use divvy_agent::container::{ContainerSpec, ContainerState, LaunchError, PortMap};
use divvy_proto::container::Network;

use crate::Tests;
use crate::harness::{Agent, eventually};

pub(crate) fn tests() -> Tests {
    vec![
        ("without_a_network_there_is_only_loopback", without_a_network_there_is_only_loopback),
        ("a_bridge_gives_an_address_and_takes_it_back", a_bridge_gives_an_address_and_takes_it_back),
        ("a_port_of_the_host_leads_inside", a_port_of_the_host_leads_inside),
        ("containers_of_one_network_reach_each_other", containers_of_one_network_reach_each_other),
        ("names_are_found", names_are_found),
        ("both_families_of_addresses", both_families_of_addresses),
        ("a_configured_network_is_used_by_name", a_configured_network_is_used_by_name),
        ("what_is_missing_is_named", what_is_missing_is_named),
        ("an_attachment_outlives_the_agent_and_not_the_container", an_attachment_outlives_the_agent),
        ("a_killed_shim_leaves_no_network", a_killed_shim_leaves_no_network),
        ("a_launch_that_fails_later_leaves_no_network", a_launch_that_fails_later_leaves_no_network),
        ("a_plugin_that_fails_leaves_no_network", a_plugin_that_fails_leaves_no_network),
        ("an_interrupted_attachment_is_undone", an_interrupted_attachment_is_undone),
        ("another_containers_network_is_joined", another_containers_network_is_joined),
        ("no_container_keeps_the_network_of_another", no_container_keeps_the_network_of_another),
    ]
}

/// Of test number `number` of this process.
pub(crate) fn config(work: &Path, number: u32) -> NetworkConfig {
    let process = std::process::id() % 200;
    NetworkConfig {
        config_dir: work.join("networks"),
        bridge: format!("dt{process}-{number}"),
        subnets: vec![format!("10.{process}.{}.0/24", number % 256).parse().expect("a subnet")],
        leases: work.join("leases"),
        ..NetworkConfig::default()
    }
}

/// Interfaces, leases and rules of a bridge.
pub(crate) fn left_behind(config: &NetworkConfig) -> Vec<String> {
    let entries = |directory: &Path| {
        let names = fs::read_dir(directory).into_iter().flatten().flatten();
        names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect::<Vec<_>>()
    };
    let ports = entries(&Path::new("/sys/class/net").join(&config.bridge).join("brif"));
    let leases = entries(&config.leases.join("bridge"));
    let leases = leases.into_iter().filter(|name| name != "lock" && !name.starts_with("last_reserved"));
    let mut left: Vec<_> = ports.into_iter().map(|port| format!("interface {port}")).collect();
    left.extend(leases.map(|lease| format!("lease {lease}")));
    for (tool, subnet) in ["iptables-save", "ip6tables-save"].into_iter().zip(&config.subnets) {
        let rules = std::process::Command::new(tool).output().map(|output| output.stdout).unwrap_or_default();
        let text = subnet.to_string();
        let prefix = text.split("0/").next().unwrap_or(&text);
        let rules = String::from_utf8_lossy(&rules);
        left.extend(rules.lines().filter(|rule| rule.contains(prefix)).map(|rule| format!("rule {rule}")));
    }
    left
}

fn connected(spec: ContainerSpec, network: &str) -> ContainerSpec {
    ContainerSpec { network: network.parse::<Network>().expect("a network"), ..spec }
}

fn without_a_network_there_is_only_loopback(agent: &mut Agent) {
    let line = "ls /sys/class/net; cat /sys/class/net/lo/carrier; timeout 20 busybox nc -l -p 7 -e echo hello & \
                for i in $(seq 100); do busybox nc 127.0.0.1 7 </dev/null 2>/dev/null && break; sleep 0.1; done; wait";
    let outcome = agent.run(&connected(agent.shell(line), "none"));
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("lo\n1\nhello\n", ""));
}

fn a_bridge_gives_an_address_and_takes_it_back(agent: &mut Agent) {
    let spec =
        connected(agent.shell("busybox ip -4 -o addr show eth0 > at; mv at ready; sleep 1000"), "bridge");
    let started = agent.start_container(&spec);
    let [address] = started.addresses[..] else { panic!("{:?}", started.addresses) };
    eventually("it is ready", || spec.sandbox.join("ready").exists());
    let seen = fs::read_to_string(spec.sandbox.join("ready")).expect("a file");
    assert!(seen.contains(&format!("inet {address}/24")), "{seen}");
    let running = ContainerState::Running { pid: started.pid, addresses: started.addresses };
    assert_eq!(agent.state(&spec), running);
    let inside = agent.exec(&spec, "ls /sys/class/net", Duration::from_secs(10)).expect("an answer");
    assert!(inside.output.contains("eth0"), "{inside:?}");
    assert_eq!(left_behind(&agent.network).iter().filter(|left| left.starts_with("lease")).count(), 1);
    agent.destroy(&spec);
    assert_eq!(left_behind(&agent.network), [""; 0]);
}

/// Serves a page on port 80, which nobody but root may take where the network is the host's.
const SERVE: &str = "echo hello > index.html; touch ready; exec busybox httpd -f -p 80 -h .";

fn root(spec: ContainerSpec) -> ContainerSpec {
    ContainerSpec { user: "root".parse().expect("a user"), ..spec }
}

fn page(host: &str, port: u16) -> String {
    let mut page = String::new();
    eventually("the page is served", || {
        let url = format!("http://{host}:{port}/index.html");
        let got = std::process::Command::new("busybox").args(["wget", "-q", "-O", "-", &url]).output();
        let got = got.expect("busybox");
        page = String::from_utf8_lossy(&got.stdout).into_owned();
        got.status.success()
    });
    page
}

fn a_port_of_the_host_leads_inside(agent: &mut Agent) {
    let host = free_port();
    let port_maps = vec![PortMap { host, container: 80 }];
    let spec = ContainerSpec { port_maps, ..root(connected(agent.shell(SERVE), "bridge")) };
    let started = agent.start_container(&spec);
    let address = started.addresses[0].to_string();
    assert_eq!([page("127.0.0.1", host), page(&address, 80)], ["hello\n", "hello\n"]);
    agent.destroy(&spec);
    assert_eq!(left_behind(&agent.network), [""; 0]);
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

fn containers_of_one_network_reach_each_other(agent: &mut Agent) {
    let server = root(connected(agent.shell(SERVE), "bridge"));
    let address = agent.start_container(&server).addresses[0];
    eventually("it is ready", || server.sandbox.join("ready").exists());
    let line = format!(
        "for i in $(seq 50); do busybox wget -q -O - http://{address}/index.html && break; sleep 0.1; done"
    );
    let client = connected(agent.spec("client", &["/bin/sh", "-c", &line]), "bridge");
    assert_eq!(agent.run(&client).stdout, "hello\n");
}

fn names_are_found(agent: &mut Agent) {
    let line = "busybox ip -4 -o addr show eth0 | sed 's/.*inet //; s,/.*,,' > own; \
                grep -qxF \"$(cat own)\tweb\" /etc/hosts && grep -c localhost /etc/hosts; \
                grep -E '^nameserver (127|::1)' /etc/resolv.conf; { echo x >> /etc/hosts; } 2>/dev/null || echo read-only";
    let outcome = agent.run(&root(connected(agent.shell(line), "bridge")));
    assert_eq!(outcome.stdout, "2\nread-only\n", "{}", outcome.stderr);
}

fn both_families_of_addresses(agent: &mut Agent) {
    if !Path::new("/proc/net/if_inet6").exists() {
        return; // the host has no IPv6
    }
    let number = format!("fd00:{:x}::/64", std::process::id() % 0xffff);
    agent.network.subnets.push(number.parse().expect("a subnet"));
    agent.restart(|_| {});
    let spec = connected(agent.shell("sleep 1000"), "bridge");
    let families: Vec<_> = agent.start_container(&spec).addresses.iter().map(IpAddr::is_ipv6).collect();
    assert_eq!(families, [false, true]);
    agent.destroy(&spec);
    assert_eq!(left_behind(&agent.network), [""; 0]);
}

/// A point-to-point network from a configuration of its own.
fn configure(agent: &Agent, name: &str, plugin: &str) {
    let text = format!(
        r#"{{"cniVersion": "0.4.0", "name": "{name}", "plugins": [{{"type": "{plugin}", "ipMasq": true,
            "ipam": {{"type": "host-local", "subnet": "{}", "dataDir": "{}"}}}}]}}"#,
        agent.network.subnets[0],
        agent.network.leases.display()
    );
    fs::create_dir_all(&agent.network.config_dir).expect("a directory");
    fs::write(agent.network.config_dir.join(format!("{name}.conflist")), text).expect("a file");
}

fn a_configured_network_is_used_by_name(agent: &mut Agent) {
    configure(agent, "lan", "ptp");
    let spec = connected(agent.shell("ls /sys/class/net"), "lan");
    assert_eq!(agent.run(&spec).stdout, "eth0\nlo\n");
    let port_maps = vec![PortMap { host: 8080, container: 80 }];
    let refused = agent.try_launch(&ContainerSpec { port_maps, ..spec }).expect_err("no ports");
    assert!(refused.to_string().contains("none of its plugins maps ports"), "{refused}");
}

fn what_is_missing_is_named(agent: &mut Agent) {
    let refusal = |agent: &Agent, network: &str| {
        let error = agent.try_launch(&connected(agent.shell("true"), network)).expect_err("a refusal");
        let LaunchError::Network { why, .. } = error else { panic!("{error}") };
        why
    };
    assert!(refusal(agent, "office").contains("there is none of that name in"));
    agent.network.plugin_dirs = vec![agent.work_dir().to_owned()];
    agent.restart(|_| {});
    let why = refusal(agent, "bridge");
    assert!(why.contains("apt-get install containernetworking-plugins"), "{why}");
    let port_maps = vec![PortMap { host: 8080, container: 80 }];
    let refused =
        agent.try_launch(&ContainerSpec { port_maps, ..agent.shell("true") }).expect_err("a refusal");
    assert!(refused.to_string().contains("ports lead only to a container with a network"), "{refused}");
}

fn an_attachment_outlives_the_agent(agent: &mut Agent) {
    let spec = connected(agent.shell("sleep 1000"), "bridge");
    let started = agent.start_container(&spec);
    agent.restart(|_| {});
    let running = ContainerState::Running { pid: started.pid, addresses: started.addresses };
    assert_eq!(agent.state(&spec), running);
    agent.destroy(&spec);
    agent.destroy(&spec);
    assert_eq!(left_behind(&agent.network), [""; 0]);
}

fn a_killed_shim_leaves_no_network(agent: &mut Agent) {
    let port_maps = vec![PortMap { host: free_port(), container: 80 }];
    let spec = ContainerSpec { port_maps, ..connected(agent.shell("sleep 1000"), "bridge") };
    agent.launch(&spec);
    agent.kill_shim();
    agent.wait(&spec);
    agent.destroy(&spec);
    assert_eq!(left_behind(&agent.network), [""; 0]);
}

fn a_launch_that_fails_later_leaves_no_network(agent: &mut Agent) {
    let spec = connected(agent.spec("web", &["/no/such/program"]), "bridge");
    agent.try_launch(&spec).expect_err("no program");
    assert_eq!(left_behind(&agent.network), [""; 0]);
}

fn a_plugin_that_fails_leaves_no_network(agent: &mut Agent) {
    configure(agent, "lan", "host-device");
    let error = agent.try_launch(&connected(agent.shell("true"), "lan")).expect_err("no device");
    assert!(error.to_string().contains("the CNI plugin `host-device` does not attach it: "), "{error}");
}

/// As if the agent had been killed after a plugin had done its work, and before that was written down.
fn an_interrupted_attachment_is_undone(agent: &mut Agent) {
    let spec = connected(agent.shell("sleep 1000"), "bridge");
    agent.launch(&spec);
    let record = agent.state_dir().join("web/network.json");
    agent.restart(|_| {
        let text = fs::read(&record).expect("an attachment");
        let mut attachment: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        attachment["result"] = serde_json::Value::Null;
        fs::write(&record, attachment.to_string()).expect("a file");
    });
    agent.kill_shim();
    agent.destroy(&spec);
    assert_eq!(left_behind(&agent.network), [""; 0]);
}

fn another_containers_network_is_joined(agent: &mut Agent) {
    let first = root(connected(agent.shell(SERVE), "bridge"));
    let address = agent.start_container(&first).addresses[0];
    eventually("it is ready", || first.sandbox.join("ready").exists());
    let line = format!(
        "for i in $(seq 50); do busybox wget -q -O - http://127.0.0.1/index.html && break; sleep 0.1; done; \
         readlink /proc/self/ns/ipc; grep -c '^{address}' /etc/hosts"
    );
    let second = agent.spec("second", &["/bin/sh", "-c", &line]);
    let second = ContainerSpec { joins: Some(first.id.clone()), ..second };
    let ipc = agent.exec(&first, "readlink /proc/self/ns/ipc", Duration::from_secs(10)).expect("an answer");
    assert_eq!(agent.run(&second).stdout, format!("hello\n{}1\n", ipc.output));
    agent.destroy(&first);
    let refused = agent.try_launch(&second).expect_err("nobody to join");
    assert!(refused.to_string().contains("join the network of container web: it does not run"), "{refused}");
}

fn no_container_keeps_the_network_of_another(agent: &mut Agent) {
    let first = connected(agent.shell("sleep 1000"), "bridge");
    agent.launch(&first);
    let second = agent.spec("second", &["/bin/sleep", "1000"]);
    let pid = agent.launch(&second);
    agent.destroy(&first);
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).expect("mounts");
    let kept = agent.state_dir().join("web/netns").display().to_string();
    assert!(!mounts.contains(&kept), "{mounts}");
}
