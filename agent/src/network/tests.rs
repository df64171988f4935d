//! Networks without a kernel: configurations, subnets, and what plugins answer.

use std::net::IpAddr;

use divvy_proto::Hostname;
use divvy_proto::ids::NetworkName;
use serde_json::json;

use super::{Conflist, NetworkConfig, Resolver, Subnet, hosts, resolv_conf};
use crate::container::PortMap;

/// The networks of a directory with these files.
fn networks(files: &[(&str, &str)]) -> (tempfile::TempDir, NetworkConfig) {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    let config_dir = directory.path().to_path_buf();
    (directory, NetworkConfig { config_dir, ..NetworkConfig::default() })
}

fn found(config: &NetworkConfig, name: &str) -> Result<Conflist, String> {
    config.find(&NetworkName::new(name).unwrap()).map_err(|error| error.to_string())
}

#[test]
fn a_network_is_found_by_its_name_in_the_first_file_that_has_it() {
    let (_directory, config) = networks(&[
        ("20-later.conf", r#"{"cniVersion": "0.4.0", "name": "lan", "type": "ptp"}"#),
        (
            "10-lan.conflist",
            r#"{"cniVersion": "1.0.0", "name": "lan", "plugins": [{"type": "macvlan", "ipam": {"type": "dhcp"}}]}"#,
        ),
        ("10-lan.conflist.bak", r#"{"name": "backup", "plugins": []}"#),
        ("30-broken.conf", "{"),
        ("40-new.conf", r#"{"cniVersion": "2.0.0", "name": "new", "type": "ptp"}"#),
        ("50-evil.conf", r#"{"cniVersion": "1.0.0", "name": "evil", "type": "../../bin/sh"}"#),
    ]);
    assert_eq!(found(&config, "lan").unwrap().programs(), ["macvlan", "dhcp"]);
    assert_eq!(found(&config, "bridge").unwrap().programs(), ["bridge", "host-local", "portmap"]);
    for (name, why) in [
        ("backup", "there is none of that name"),
        ("other", "30-broken.conf: EOF"),
        ("new", "cniVersion \"2.0.0\" is none of"),
        ("evil", "is not the name of a program"),
    ] {
        let error = found(&config, name).unwrap_err();
        assert!(error.contains(why), "{name}: {error}");
    }
}

#[test]
fn each_plugin_is_told_its_part_the_ports_and_what_there_is() {
    let (_directory, config) = networks(&[]);
    let subnets = ["10.9.0.0/24", "fd00:9::/64"].map(|text| text.parse::<Subnet>().unwrap()).to_vec();
    let network = found(&NetworkConfig { subnets, ..config }, "bridge").unwrap();
    let before = json!({ "ips": [{ "address": "10.9.0.2/24" }] });
    let ports = [PortMap { host: 8080, container: 80 }];
    let told: Vec<_> = network.told(&ports).map(|(plugin, told)| (plugin, told(Some(&before)))).collect();
    let bridge = json!({
        "cniVersion": "1.0.0", "name": "bridge", "type": "bridge", "bridge": "divvy0", "isGateway": true,
        "ipMasq": true, "hairpinMode": true, "prevResult": before,
        "ipam": {
            "type": "host-local", "dataDir": "/run/divvy/leases",
            "ranges": [[{ "subnet": "10.9.0.0/24" }], [{ "subnet": "fd00:9::/64" }]],
            "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
        },
    });
    let portmap = json!({
        "cniVersion": "1.0.0", "name": "bridge", "type": "portmap", "prevResult": before,
        "capabilities": { "portMappings": true },
        "runtimeConfig": { "portMappings": [
            { "hostPort": 8080, "containerPort": 80, "protocol": "tcp" },
            { "hostPort": 8080, "containerPort": 80, "protocol": "udp" },
        ] },
    });
    assert_eq!(told, [("bridge", bridge), ("portmap", portmap)]);
}

#[test]
fn a_subnet_has_room_for_containers() {
    let parse = |text: &str| text.parse::<Subnet>().map(|subnet| subnet.to_string()).ok();
    assert_eq!(parse("172.26.64.0/20"), Some("172.26.64.0/20".to_owned()));
    assert_eq!(parse("fd00::/64"), Some("fd00::/64".to_owned()));
    for bad in ["", "10.0.0.0", "10.0.0.0/30", "10.0.0.0/4", "10.0.0/24", "fd00::/128", "x/24", "10.0.0.0/x"]
    {
        assert_eq!(parse(bad), None, "{bad}");
    }
}

#[test]
fn a_container_is_told_only_resolvers_that_it_reaches() {
    let host =
        "search lan\nnameserver 127.0.0.53\nnameserver ::1\nnameserver 10.0.0.1\nnameserver fe80::1%eth0\n";
    let kept = "search lan\nnameserver 10.0.0.1\nnameserver fe80::1%eth0\n";
    assert_eq!(resolv_conf(&Resolver::default(), host), kept);
    let own = Resolver {
        nameservers: vec!["10.9.0.1".to_owned()],
        domain: None,
        search: vec!["a".to_owned(), "b".to_owned()],
        options: vec!["ndots:2".to_owned()],
    };
    assert_eq!(resolv_conf(&own, host), "nameserver 10.9.0.1\nsearch a b\noptions ndots:2\n");
}

#[test]
fn a_container_knows_itself_by_each_of_its_addresses() {
    let name = Hostname::new("web-1").unwrap();
    let addresses = ["10.9.0.2", "fd00:9::2"].map(|text| text.parse::<IpAddr>().unwrap());
    let text = hosts(&name, &addresses);
    assert!(text.starts_with("127.0.0.1\tlocalhost\n"), "{text}");
    assert!(text.ends_with("\n10.9.0.2\tweb-1\nfd00:9::2\tweb-1\n"), "{text}");
    assert!(hosts(&name, &[]).ends_with("\n127.0.1.1\tweb-1\n"));
}
