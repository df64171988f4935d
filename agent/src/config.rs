//! What an operator may set, as it stands on the command line.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use divvy_proto::attributes::Attributes;
use divvy_proto::ids::Hostname;
use divvy_proto::reservation::{Reservation, Reserved};
use divvy_proto::resources::{Dimension, Resources};
use divvy_proto::role::RolePath;
use divvy_proto::{Bytes, Invalid};

use crate::container::{Rights, UserName};
use crate::image::ImageOptions;
use crate::log::LogLimits;
use crate::network::NetworkConfig;

/// Everything that makes an agent. Two agents in one process share nothing but the machine.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// Holds checkpoints, containers and sandboxes; kept from one start to the next. One agent at a time may use it.
    pub work_dir: PathBuf,
    /// Where the master is.
    pub master: MasterAddress,
    /// The name under which the agent is known; its `hostname` attribute.
    pub hostname: Hostname,
    /// Where the agent's HTTP API listens. Port 0 takes any free one.
    pub listen: SocketAddr,
    /// The name or address at which others reach this machine; that of `listen` by default.
    pub advertise: Option<Hostname>,
    /// Resources that are stated; what is not stated is detected.
    pub resources: ResourceOverrides,
    /// What of its resources is set aside for roles, for as long as the command line says so.
    pub reserve: Vec<FixedReservation>,
    /// What may be used beyond its resources for as long as nobody needs it.
    pub revocable: Resources,
    /// What else the agent says of itself.
    pub attributes: Attributes,
    /// Who runs the tasks that do not say.
    pub default_user: UserName,
    /// The command that enters [`crate::shim::main`]: this program's path, then `shim`.
    pub shim: Vec<OsString>,
    /// Paths that no container may see, such as the work directories of other agents on this machine.
    pub hidden: Vec<PathBuf>,
    /// What of the machine's files tasks may mount: these, and all below them.
    pub allow_host_paths: Vec<PathBuf>,
    /// The files in it, root's alone, are the secrets that tasks may name.
    pub secrets_dir: Option<PathBuf>,
    /// The networks that tasks may ask for.
    pub network: NetworkConfig,
    /// What containers may be given beyond the default.
    pub rights: Rights,
    /// Where images come from, and when they go.
    pub images: ImageOptions,
    /// From SIGTERM to SIGKILL for tasks that do not say (Mesos: 3 s).
    pub kill_grace: Duration,
    /// Most processes and threads of tasks that do not say.
    pub pids_limit: u32,
    /// How much of tasks' logs is kept.
    pub logs: LogLimits,
    /// How long the sandbox of an ended task is kept (Mesos: a week).
    pub sandbox_retention: Duration,
    /// The most that downloaded artifacts may take for later tasks; nothing is kept if it is zero (Mesos: 2 GiB).
    pub fetch_cache_size: Bytes,
    /// How long a task waits for all of its artifacts.
    pub fetch_timeout: Duration,
    /// First pause before an unacknowledged update is sent again (Mesos: 10 s).
    pub retry_first: Duration,
    /// Longest pause before an unacknowledged update is sent again (Mesos: 10 min).
    pub retry_longest: Duration,
}

impl AgentConfig {
    /// An agent with the defaults of an operator who says only what must be said.
    ///
    /// # Errors
    /// None that an operator can cause: the default user's name is checked like any other.
    pub fn new(
        work_dir: impl Into<PathBuf>,
        master: MasterAddress,
        hostname: Hostname,
        listen: SocketAddr,
        shim: Vec<OsString>,
    ) -> Result<Self, Invalid> {
        Ok(Self {
            work_dir: work_dir.into(),
            master,
            hostname,
            listen,
            advertise: None,
            resources: ResourceOverrides::default(),
            reserve: Vec::new(),
            revocable: Resources::new(),
            attributes: Attributes::default(),
            default_user: UserName::new("nobody")?,
            shim,
            hidden: Vec::new(),
            allow_host_paths: Vec::new(),
            secrets_dir: None,
            network: NetworkConfig::default(),
            rights: Rights::default(),
            images: ImageOptions::default(),
            kill_grace: Duration::from_secs(3),
            pids_limit: 4096,
            logs: LogLimits::default(),
            sandbox_retention: Duration::from_secs(7 * 24 * 3600),
            fetch_cache_size: Bytes::mib(2048),
            fetch_timeout: Duration::from_secs(300),
            retry_first: Duration::from_secs(10),
            retry_longest: Duration::from_secs(600),
        })
    }
}

/// Where a master is: `http://10.0.0.1:5050`; without a scheme, http is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MasterAddress(String);

impl MasterAddress {
    /// The address as a URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MasterAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for MasterAddress {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid =
            || Invalid::new("master", text, "an address such as http://10.0.0.1:5050 or 10.0.0.1:5050");
        let rest = text.trim().strip_prefix("http://").unwrap_or(text.trim()).trim_end_matches('/');
        let (host, port) = rest.rsplit_once(':').ok_or_else(invalid)?;
        let stray = |c: char| c.is_whitespace() || matches!(c, '/' | '?' | '#' | '@');
        if host.is_empty() || host.contains(stray) || port.parse::<u16>().map_or(true, |port| port == 0) {
            return Err(invalid());
        }
        Ok(Self(format!("http://{host}:{port}")))
    }
}

/// Resources as the operator states them: `cpus=4;mem=8GiB;ports=[31000-32000]`. A name that is given counts, even if it is
/// given as 0; a name that is not given is detected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResourceOverrides {
    stated: Resources,
    names: BTreeSet<String>,
}

impl ResourceOverrides {
    /// What is stated, and the rest as it was detected.
    ///
    /// # Errors
    /// None: what is stated and what is detected are valid already.
    pub fn over(&self, detected: &Resources) -> Result<Resources, Invalid> {
        let mut resources = self.stated.clone();
        for dimension in Dimension::ALL.into_iter().filter(|d| !self.names.contains(d.name())) {
            resources = resources.with_scalar(dimension.name(), detected.scalar(dimension))?;
        }
        match self.names.contains("ports") {
            true => Ok(resources),
            false => Ok(resources.with_ports(detected.ports().clone())),
        }
    }
}

impl FromStr for ResourceOverrides {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let stated: Resources = text.parse()?;
        let names = text.split(';').filter_map(|part| part.split_once('='));
        Ok(Self { stated, names: names.map(|(name, _)| name.trim().to_owned()).collect() })
    }
}

/// Resources that the operator sets aside for a role: `eng/ads:cpus=2;mem=1GiB`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixedReservation {
    /// For whom.
    pub role: RolePath,
    /// How much.
    pub resources: Resources,
}

impl FromStr for FixedReservation {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let expected = "a role, a colon and resources, such as eng/ads:cpus=2;mem=1GiB";
        let invalid = || Invalid::new("reserve", text, expected);
        let (role, resources) = text.rsplit_once(':').ok_or_else(invalid)?;
        let role: RolePath = role.trim().parse().map_err(|error: Invalid| error.within("reserve"))?;
        let resources: Resources = resources.parse().map_err(|error: Invalid| error.within("reserve"))?;
        match role == RolePath::default() || resources.is_empty() {
            true => Err(Invalid::new("reserve", text, "something, for a role other than *")),
            false => Ok(Self { role, resources }),
        }
    }
}

/// The reservations as the master is told of them.
///
/// # Errors
/// A role is named twice, or the agent does not have so much.
pub(crate) fn reserved(reserve: &[FixedReservation], all: &Resources) -> Result<Vec<Reserved>, Invalid> {
    let mut rest = all.clone();
    let mut reserved: Vec<Reserved> = Vec::new();
    for FixedReservation { role, resources } in reserve {
        if reserved.iter().any(|other| other.owner() == Some(role)) {
            return Err(Invalid::new("reserve", role, "each role once"));
        }
        rest = rest.checked_sub(resources).ok_or_else(|| {
            let shortage = rest.shortage(resources).map(|shortage| format!(": {shortage}"));
            let expected = format!("no more than the agent has left{}", shortage.unwrap_or_default());
            Invalid::new("reserve", format!("{role}:{resources}"), expected)
        })?;
        let reservation = Reservation { role: role.clone(), principal: None, labels: [].into(), fixed: true };
        reserved.push(Reserved { stack: vec![reservation], resources: resources.clone() });
    }
    Ok(reserved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stated_wins_even_as_nothing_and_the_rest_is_detected() {
        let detected: Resources = "cpus=8;mem=16GiB;disk=100GiB;ports=[31000-32000]".parse().unwrap();
        let stated: ResourceOverrides = "cpus=2; ports=[]; licenses=3".parse().unwrap();
        let both: Resources = "cpus=2;mem=16GiB;disk=100GiB;licenses=3".parse().unwrap();
        assert_eq!(stated.over(&detected), Ok(both));
    }

    #[test]
    fn a_fixed_reservation_is_for_a_role_and_within_what_there_is() {
        let all: Resources = "cpus=4;mem=4GiB".parse().unwrap();
        let told = |texts: &[&str]| {
            let parsed: Result<Vec<FixedReservation>, Invalid> =
                texts.iter().map(|text| text.parse()).collect();
            let told = parsed.and_then(|parsed| reserved(&parsed, &all));
            told.map(|all| all.iter().map(|one| one.resources.to_string()).collect::<Vec<_>>().join(" + "))
                .map_err(|error| error.to_string())
        };
        assert_eq!(told(&["eng:cpus=2;mem=1GiB", "eng/ads:cpus=2"]), Ok("cpus=2;mem=1GiB + cpus=2".into()));
        for (bad, reason) in [
            (&["eng"][..], "reserve"),
            (&["*:cpus=1"], "other than *"),
            (&["eng:"], "something"),
            (&["a//b:cpus=1"], "reserve.role"),
            (&["a:cpus=x"], "reserve."),
            (&["a:cpus=1", "a:mem=1GiB"], "each role once"),
            (&["a:cpus=3", "b:cpus=2"], "needs cpus=2, has 1"),
        ] {
            let error = told(bad).unwrap_err();
            assert!(error.contains(reason), "{bad:?}: {error}");
        }
    }

    #[test]
    fn a_master_address_is_a_host_and_a_port() {
        let parse = |text: &str| text.parse::<MasterAddress>().map(|address| address.0).ok();
        assert_eq!(parse("10.0.0.1:5050"), Some("http://10.0.0.1:5050".to_owned()));
        assert_eq!(parse("http://[::1]:5050/"), Some("http://[::1]:5050".to_owned()));
        for bad in ["", "master", "host:", "host:0", "host:70000", "http://a/b:5050", ":5050", "https://h:1"]
        {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
