//! `divvy dev`: a whole cluster in one process, on loopback and the embedded store.
//!
//! Not here: anything that a cluster of several processes would not have. The parts meet over sockets, as always.

use std::path::Path;

use divvy_agent::{Agent, AgentConfig, KillTasks, MasterAddress};
use divvy_master::{Master, MasterConfig};
use divvy_proto::ids::Hostname;
use divvy_proto::{Bytes, Cpus, RangeSet, Resources, RolePath};
use divvy_sdk::cli::{CliError, open_store, print_line, stop_signal};
use divvy_sdk::hosted::HostConfig;

use crate::cli;
use crate::serve::{failed, shim};

/// Ports that the agents share out: below those that the system gives to outgoing connections.
const PORTS: (u32, u32) = (20_000, 31_999);

/// Everything that runs so far.
#[derive(Default)]
struct Cluster {
    master: Option<divvy_master::Running>,
    agents: Vec<divvy_agent::Running>,
    service: Option<divvy_service::Running>,
    batch: Option<divvy_batch::Running>,
}

pub(crate) async fn run(options: cli::Dev) -> Result<(), CliError> {
    if !options.listen.ip().is_loopback() {
        return Err(CliError::Usage(format!(
            "--listen {} reaches beyond this machine, and `divvy dev` is for this machine only: listen on 127.0.0.1, or run the \
             parts apart (`divvy master --help`)",
            options.listen
        )));
    }
    let stop = stop_signal()?;
    let mut cluster = Cluster::default();
    let ended = tokio::select! {
        ended = cluster.run(&options) => ended,
        () = stop => Ok(()),
    };
    eprintln!("divvy: stopping; tasks are killed");
    cluster.shutdown().await.and(ended)
}

impl Cluster {
    /// Starts everything, and returns when any part has ended by itself.
    async fn run(&mut self, options: &cli::Dev) -> Result<(), CliError> {
        let store = open_store(&options.data_dir)?;
        let data_dir =
            options.data_dir.canonicalize().map_err(|error| failed("cannot find the data folder")(&error))?;
        let mut config = MasterConfig::new(options.listen, store.clone());
        options.kernel.apply(&mut config.kernel);
        let master = Master::start(config).await.map_err(CliError::failed)?;
        let master = self.master.insert(master);
        print_line(&format!("master      http://{0}  (API and dashboard)", master.addr()));
        let address = master.addr().to_string().parse::<MasterAddress>().map_err(CliError::failed)?;
        for number in 1..=options.agents {
            let config = agent_config(number, options.agents, &address, &data_dir)?;
            let agent = Agent::start(config).await.map_err(CliError::failed)?;
            print_line(&format!("agent-{number:<6}http://{}", agent.http_addr()));
            self.agents.push(agent);
        }
        let named = options.roles.iter().filter(|role| **role != RolePath::default()).cloned();
        let roles: Vec<RolePath> = std::iter::once(RolePath::default()).chain(named).collect();
        let config = |name| HostConfig {
            roles: roles.clone(),
            ..HostConfig::new(name, address.as_str(), store.clone())
        };
        let service = divvy_service::serve(config(divvy_service::NAME)).await.map_err(CliError::failed)?;
        print_line(&format!("service     http://{}", service.addr()));
        let service = self.service.insert(service);
        let batch = divvy_batch::serve(config(divvy_batch::NAME)).await.map_err(CliError::failed)?;
        print_line(&format!("batch       http://{}", batch.addr()));
        let batch = self.batch.insert(batch);
        print_line(&format!("data        {}", data_dir.display()));
        print_line("ready");
        let agents = self.agents.iter_mut().map(|agent| Box::pin(agent.done()));
        tokio::select! {
            ended = master.done() => ended.map_err(CliError::failed),
            ended = service.done() => ended.map_err(CliError::failed),
            ended = batch.done() => ended.map_err(CliError::failed),
            _ = futures::future::select_all(agents) => Err(CliError::failed("an agent has ended by itself; its log says why")),
        }
    }
}

/// One of `count` agents: an even share of the machine, and ports of its own, as all share the loopback address.
fn agent_config(
    number: u16,
    count: u16,
    master: &MasterAddress,
    data_dir: &Path,
) -> Result<AgentConfig, CliError> {
    let usage = |error: divvy_proto::Invalid| CliError::Usage(error.to_string());
    let machine = divvy_agent::machine_resources(data_dir).map_err(CliError::failed)?;
    let share = share_of(&machine, number, count).map_err(usage)?;
    let hostname = Hostname::new(format!("agent-{number}")).map_err(usage)?;
    let listen = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let work_dir = data_dir.join("agents").join(hostname.as_str());
    let mut config = AgentConfig::new(work_dir, master.clone(), hostname, listen, shim()?).map_err(usage)?;
    config.resources = share.to_string().parse().map_err(usage)?;
    config.hidden = vec![data_dir.to_owned()];
    Ok(config)
}

/// The `number`th of `count` even shares of a machine.
fn share_of(machine: &Resources, number: u16, count: u16) -> Result<Resources, divvy_proto::Invalid> {
    let (number, count) = (u32::from(number), u32::from(count));
    let size = ((PORTS.1 - PORTS.0 + 1) / count).min(1000);
    let first = PORTS.0 + (number - 1) * size;
    // Whole mebibytes, so that the numbers can be read.
    let mebibytes = |bytes: Bytes| Bytes::from_bytes((bytes.bytes() / i64::from(count)) >> 20 << 20);
    Ok(Resources::new()
        .with_cpus(Cpus::from_millis(machine.cpus().millis() / i64::from(count))?)
        .with_mem(mebibytes(machine.mem())?)
        .with_disk(mebibytes(machine.disk())?)
        .with_ports(RangeSet::range(first, first + size - 1)))
}

impl Cluster {
    /// Frameworks first, so that nothing is started again; then tasks, agents and the master. Nothing stays but files.
    async fn shutdown(self) -> Result<(), CliError> {
        if let Some(service) = self.service {
            service.shutdown().await;
        }
        if let Some(batch) = self.batch {
            batch.shutdown().await;
        }
        futures::future::join_all(self.agents.into_iter().map(|agent| agent.shutdown(KillTasks::Yes))).await;
        let Some(mut master) = self.master else { return Ok(()) };
        master.shutdown();
        master.done().await.map_err(CliError::failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_share_a_machine_evenly_and_no_port_twice() {
        let machine: Resources = "cpus=2;mem=24GiB;disk=100GiB;ports=[31000-32000]".parse().unwrap();
        let shares: Vec<String> = (1..=3).map(|n| share_of(&machine, n, 3).unwrap().to_string()).collect();
        assert_eq!(
            shares,
            [
                "cpus=0.666;mem=8GiB;disk=34133MiB;ports=[20000-20999]",
                "cpus=0.666;mem=8GiB;disk=34133MiB;ports=[21000-21999]",
                "cpus=0.666;mem=8GiB;disk=34133MiB;ports=[22000-22999]",
            ]
        );
    }
}
