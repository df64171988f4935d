//! What commands share that run until they are told to stop.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use divvy_proto::role::RolePath;
use divvy_store::{Embedded, Store};

use super::{CliError, Context, print_line};
use crate::Scheduler;
use crate::hosted::{self, HostConfig};

/// Options of a command that runs a framework as a process of its own. Where state is kept by default is the command's to say:
/// `#[command(mut_arg("data_dir", |arg| arg.default_value("/var/lib/divvy/mine")))]`.
#[derive(Debug, Clone, clap::Args)]
pub struct ServeArgs {
    /// Address of the REST API, which the master passes requests on to. Any free port by default.
    #[arg(long, env = "DIVVY_LISTEN", default_value = "127.0.0.1:0", value_name = "HOST:PORT")]
    pub listen: SocketAddr,
    /// Base address at which the master reaches the REST API, where it differs from --listen.
    #[arg(long, env = "DIVVY_ADVERTISE", value_name = "URL")]
    pub advertise: Option<String>,
    /// Where state is kept.
    #[arg(long, env = "DIVVY_DATA_DIR", default_value = ".", value_name = "DIR")]
    pub data_dir: PathBuf,
    /// The roles whose resources are used, joined by commas; the first is for what names none.
    #[arg(
        long,
        env = "DIVVY_ROLES",
        default_value = "*",
        alias = "role",
        value_delimiter = ',',
        value_name = "ROLE,..."
    )]
    pub roles: Vec<RolePath>,
    /// Listen beyond this machine although nothing is encrypted or authenticated yet.
    #[arg(long, env = "DIVVY_INSECURE")]
    pub insecure: bool,
}

impl ServeArgs {
    /// Runs a framework of this name until it ends or the process is told to, and says where it is.
    ///
    /// # Errors
    /// The options cannot be followed, or the framework did not begin or has ended by itself.
    pub async fn run<S: Scheduler>(
        self,
        name: &str,
        context: &Context,
        start: impl AsyncFnOnce(HostConfig) -> Result<hosted::Running<S>, hosted::Error>,
    ) -> Result<(), CliError> {
        refuse_beyond_loopback(self.listen, self.insecure)?;
        let config = HostConfig {
            listen: self.listen,
            url: self.advertise,
            roles: self.roles,
            ..HostConfig::new(name, context.master.clone(), open_store(&self.data_dir)?)
        };
        let stop = stop_signal()?;
        let mut running = start(config).await.map_err(CliError::failed)?;
        print_line(&format!("{name:<11} http://{}", running.addr()));
        print_line("ready");
        tokio::select! {
            ended = running.done() => return ended.map_err(CliError::failed),
            () = stop => {}
        }
        running.shutdown().await;
        Ok(())
    }
}

/// A server that others on the network can reach is one that its owner has asked for.
///
/// # Errors
/// `listen` is not a loopback address, and `insecure` was not said.
pub fn refuse_beyond_loopback(listen: SocketAddr, insecure: bool) -> Result<(), CliError> {
    if listen.ip().is_loopback() || insecure {
        return Ok(());
    }
    Err(CliError::Usage(format!(
        "--listen {listen} reaches beyond this machine, and nothing is encrypted or authenticated yet: listen on 127.0.0.1, or say \
         --insecure"
    )))
}

/// Comes true when the process is told to end: SIGINT or SIGTERM. They are watched from this call on.
///
/// # Errors
/// The system does not let signals be watched.
pub fn stop_signal() -> Result<impl Future<Output = ()>, CliError> {
    use tokio::signal::unix::{SignalKind, signal};
    let watch = |kind| signal(kind).map_err(|error| cannot("watch for signals", &error));
    let (mut interrupt, mut terminate) = (watch(SignalKind::interrupt())?, watch(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Opens the embedded store in a folder, which is made if it is not there.
///
/// # Errors
/// The folder or the file cannot be made or read, or another process has it open.
pub fn open_store(dir: &Path) -> Result<Arc<dyn Store>, CliError> {
    std::fs::create_dir_all(dir).map_err(|error| cannot(&format!("make {}", dir.display()), &error))?;
    Ok(Arc::new(Embedded::open(dir.join("state.redb")).map_err(CliError::failed)?))
}

fn cannot(what: &str, error: &dyn Display) -> CliError {
    CliError::Failed(format!("cannot {what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_says_so_listens_beyond_the_machine() {
        let refused =
            |listen: &str, insecure| refuse_beyond_loopback(listen.parse().unwrap(), insecure).is_err();
        let cases = [("127.0.0.1:0", false), ("[::1]:0", false), ("0.0.0.0:0", true), ("0.0.0.0:0", false)];
        assert_eq!(cases.map(|(listen, insecure)| refused(listen, insecure)), [false, false, false, true]);
    }

    #[test]
    fn a_command_says_where_its_state_is_kept() {
        #[derive(clap::Parser)]
        enum Command {
            #[command(mut_arg("data_dir", |arg| arg.default_value("/var/lib/mine")))]
            Serve(ServeArgs),
        }
        let Command::Serve(options) = <Command as clap::Parser>::parse_from(["mine", "serve"]);
        assert_eq!(options.data_dir, Path::new("/var/lib/mine"));
    }
}
