//! A CNI network's configuration (specification 0.3.0 to 1.0.0): what is read, and what each plugin is told.
//!
//! Not here: files' places, and plugins' programs.

use std::net::IpAddr;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::NetworkConfig;
use crate::container::PortMap;

/// What the agent and Debian's plugins both speak.
const VERSIONS: [&str; 4] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0"];

/// The capability of a plugin to map ports of the host.
const PORT_MAPPINGS: &str = "portMappings";

/// A network: plugins, each of which adds to what the one before it made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Conflist {
    /// By which tasks ask for it.
    pub(crate) name: String,
    #[serde(rename = "cniVersion", default)]
    version: String,
    plugins: Vec<Map<String, Value>>,
}

/// What a network says of name resolution.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Resolver {
    pub(crate) nameservers: Vec<String>,
    pub(crate) domain: Option<String>,
    pub(crate) search: Vec<String>,
    pub(crate) options: Vec<String>,
}

impl Conflist {
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read(path).map_err(|error| error.to_string())?;
        let value: Map<String, Value> = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
        Self::parse(value).map_err(|error| error.to_string())
    }

    /// A list of plugins, or a single one, which is a list of one.
    pub(super) fn parse(value: Map<String, Value>) -> Result<Self, serde_json::Error> {
        if value.contains_key("plugins") {
            return serde_json::from_value(Value::Object(value));
        }
        let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(Self { name: text("name"), version: text("cniVersion"), plugins: vec![value] })
    }

    /// Refuses what no plugin could be told.
    pub(super) fn checked(self) -> Result<Self, String> {
        if !VERSIONS.contains(&self.version.as_str()) {
            return Err(format!("cniVersion {:?} is none of {}", self.version, VERSIONS.join(", ")));
        }
        if self.plugins.is_empty() {
            return Err("it has no plugins".to_owned());
        }
        let plain = |kind: &str| !kind.is_empty() && !kind.contains('/') && !kind.starts_with('.');
        match self.programs().into_iter().find(|kind| !plain(kind)) {
            Some(kind) => Err(format!("the type {kind:?} of a plugin is not the name of a program")),
            None => Ok(self),
        }
    }

    /// The network that exists without configuration.
    pub(super) fn bridge(config: &NetworkConfig) -> Self {
        let ranges: Vec<_> =
            config.subnets.iter().map(|subnet| json!([{ "subnet": subnet.to_string() }])).collect();
        let default = |subnet: &super::Subnet| if subnet.is_ipv6() { "::/0" } else { "0.0.0.0/0" };
        let routes: Vec<_> = config.subnets.iter().map(|subnet| json!({ "dst": default(subnet) })).collect();
        let bridge = json!({
            "type": "bridge",
            "bridge": config.bridge,
            "isGateway": true,
            "ipMasq": true,
            // So that a container reaches its own port by way of the host, too.
            "hairpinMode": true,
            "ipam": { "type": "host-local", "dataDir": config.leases, "ranges": ranges, "routes": routes },
        });
        let portmap = json!({ "type": "portmap", "capabilities": { PORT_MAPPINGS: true } });
        let plugins = [bridge, portmap].into_iter().filter_map(|plugin| plugin.as_object().cloned());
        Self { name: super::BRIDGE.to_owned(), version: "1.0.0".to_owned(), plugins: plugins.collect() }
    }

    /// The programs that it needs, in the order of the plugins; those for addresses come after those that call them.
    pub(super) fn programs(&self) -> Vec<&str> {
        let mut programs = Vec::new();
        for plugin in &self.plugins {
            programs.push(text(plugin, "type").unwrap_or_default());
            programs.extend(plugin.get("ipam").and_then(|ipam| ipam.get("type")).and_then(Value::as_str));
        }
        programs
    }

    /// Whether a plugin of it maps ports.
    pub(super) fn maps_ports(&self) -> bool {
        self.plugins.iter().any(|plugin| has_capability(plugin, PORT_MAPPINGS))
    }

    /// What each plugin is started as and told: its own part, with the network's name, what ports are to be mapped and what
    /// there is already.
    pub(super) fn told<'a>(
        &'a self,
        port_maps: &'a [PortMap],
    ) -> impl DoubleEndedIterator<Item = (&'a str, impl Fn(Option<&Value>) -> Value + 'a)> {
        self.plugins.iter().map(move |plugin| {
            let told = move |previous: Option<&Value>| {
                let mut told = plugin.clone();
                told.insert("cniVersion".to_owned(), self.version.clone().into());
                told.insert("name".to_owned(), self.name.clone().into());
                if has_capability(plugin, PORT_MAPPINGS) {
                    let mappings = mappings(port_maps);
                    told.insert("runtimeConfig".to_owned(), json!({ PORT_MAPPINGS: mappings }));
                }
                if let Some(previous) = previous {
                    told.insert("prevResult".to_owned(), previous.clone());
                }
                Value::Object(told)
            };
            (text(plugin, "type").unwrap_or_default(), told)
        })
    }
}

fn text<'a>(plugin: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    plugin.get(key).and_then(Value::as_str)
}

fn has_capability(plugin: &Map<String, Value>, name: &str) -> bool {
    let capabilities = plugin.get("capabilities");
    capabilities.and_then(|all| all.get(name)).and_then(Value::as_bool).unwrap_or_default()
}

/// Nobody says whether a port is for TCP or UDP: it is for both.
fn mappings(port_maps: &[PortMap]) -> Vec<Value> {
    let both = |map: &PortMap| {
        let PortMap { host, container } = *map;
        ["tcp", "udp"]
            .map(|protocol| json!({ "hostPort": host, "containerPort": container, "protocol": protocol }))
    };
    port_maps.iter().flat_map(both).collect()
}

/// The addresses in a plugin's result, without their prefixes.
pub(super) fn addresses(result: &Value) -> Vec<IpAddr> {
    let all = result.get("ips").and_then(Value::as_array).into_iter().flatten();
    all.filter_map(|ip| ip.get("address")?.as_str()?.split('/').next()?.parse().ok()).collect()
}

/// What a plugin's result says of name resolution.
pub(super) fn resolver(result: &Value) -> Resolver {
    result.get("dns").and_then(|dns| serde_json::from_value(dns.clone()).ok()).unwrap_or_default()
}
