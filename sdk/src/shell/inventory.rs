//! Follows all agents of the cluster, for placement and for explaining why something waits.

use std::time::Duration;

use divvy_proto::api::Change;
use divvy_proto::convert::limits::MESSAGE_BYTES;
use divvy_proto::pb::operator_client::OperatorClient;
use divvy_proto::pb::{WatchKind, WatchRequest};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Endpoint;
use tracing::debug;

use super::stream::cause;
use super::{Message, seed};
use crate::driver::Input;

/// Longest wait before watching again.
const RETRY: Duration = Duration::from_secs(5);

/// Watches until the handle is dropped.
pub(super) fn spawn<S: Send + 'static>(
    master: Endpoint,
    messages: mpsc::Sender<Message<S>>,
) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut random = SmallRng::seed_from_u64(seed());
        let mut wait = RETRY / 16;
        loop {
            match watch(&master, &messages).await {
                Ok(()) => return,
                Err(Broken { why, useful }) => {
                    debug!(why, "watching the agents ended");
                    wait = if useful { RETRY / 16 } else { (wait * 2).min(RETRY) };
                }
            }
            tokio::time::sleep(wait.mul_f64(random.random_range(0.5..=1.0))).await;
        }
    }))
}

/// A watch that ended, and whether it had brought anything.
struct Broken {
    why: String,
    useful: bool,
}

/// Returns when nobody listens any more.
async fn watch<S>(master: &Endpoint, messages: &mpsc::Sender<Message<S>>) -> Result<(), Broken> {
    let mut useful = false;
    let broken = |why: String, useful| Broken { why, useful };
    let channel = master.connect().await.map_err(|error| broken(cause(&error), useful))?;
    let mut client = OperatorClient::new(channel).max_decoding_message_size(MESSAGE_BYTES);
    let request = WatchRequest { kinds: vec![WatchKind::Agents.into()], since: None };
    let changes = client.watch(request).await;
    let mut changes = changes.map_err(|status| broken(status.message().to_owned(), useful))?.into_inner();
    loop {
        let change = changes.message().await.map_err(|status| broken(status.message().to_owned(), useful))?;
        let Some(change) = change else { return Err(broken("the stream ended".to_owned(), useful)) };
        let input = match Change::try_from(change) {
            Ok(Change::Snapshot(snapshot)) => Input::Agents(snapshot.agents),
            Ok(Change::Agent(agent)) => Input::Agent(*agent),
            Ok(_) => continue,
            Err(invalid) => return Err(broken(invalid.to_string(), useful)),
        };
        useful = true;
        if messages.send(Message::Input(input)).await.is_err() {
            return Ok(());
        }
    }
}
