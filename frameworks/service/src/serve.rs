//! Runs the planner against a master, and the REST API beside it.

use divvy_sdk::hosted::{Error, HostConfig};

use crate::api::router;
use crate::planner::Planner;

/// The framework's name, unless it is given another: the master answers its REST API under `/frameworks/service/`.
pub const NAME: &str = "service";

/// A service framework that runs.
pub type Running = divvy_sdk::hosted::Running<Planner>;

/// Starts the service framework.
///
/// # Errors
/// The address is taken, the store cannot be read, or the framework cannot start. That the master is not there yet is no error.
pub async fn serve(config: HostConfig) -> Result<Running, Error> {
    let restore = |records: Vec<(String, Vec<u8>)>| {
        Planner::restore(records.iter().map(|(key, value)| (key.as_str(), value.as_slice())))
    };
    config.start(restore, router).await
}
