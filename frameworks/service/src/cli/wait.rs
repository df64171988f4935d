//! Waiting for a deployment, with a line on stderr for each change.

use std::time::Duration;

use divvy_sdk::cli::{CliError, Context, Output, wait_within};
use futures::StreamExt;

use super::{addresses, show};
use crate::api_types::{AppStatus, DeploymentState};
use crate::client::{AppEvent, Client};

/// After a stream that broke off: the framework or the master may be restarting.
const RETRY: Duration = Duration::from_millis(500);

/// Waits until the deployment of `version` has ended. Ends with the app's endpoints.
pub(super) async fn until_deployed(
    context: &Context,
    id: &str,
    version: u32,
    timeout: Duration,
) -> Result<(), CliError> {
    let mut last = String::new();
    let look = |event: AppEvent| match event {
        AppEvent::Gone => Some(Err(CliError::Failed(format!("{id} has been removed meanwhile")))),
        AppEvent::Status(status) if status.version != version => {
            let other = status.version;
            Some(Err(CliError::Failed(format!("version {version} of {id} was replaced by version {other}"))))
        }
        AppEvent::Status(status) => {
            let line = progress(&status);
            if line != last {
                context.progress(&line);
                last = line;
            }
            (status.deployment.state != DeploymentState::Running).then_some(Ok(*status))
        }
    };
    let status = follow(context, id, timeout, look).await?;
    if context.output == Output::Json {
        context.print(&status, show::status)?;
    }
    if status.deployment.state == DeploymentState::Failed {
        let reason = status.deployment.reason.unwrap_or_default();
        return Err(CliError::Failed(format!("the deployment of {id} failed: {reason}")));
    }
    if context.output == Output::Table {
        context.print(&status.endpoints, |endpoints| addresses(endpoints))?;
    }
    Ok(())
}

/// Waits until the app is no more.
pub(super) async fn until_gone(context: &Context, id: &str, timeout: Duration) -> Result<(), CliError> {
    let mut last = usize::MAX;
    let look = |event: AppEvent| match event {
        AppEvent::Gone => Some(Ok(())),
        AppEvent::Status(status) => {
            if status.tasks.len() != last {
                last = status.tasks.len();
                context.progress(format_args!("{id}: {last} tasks left"));
            }
            None
        }
    };
    let done = follow(context, id, timeout, look).await;
    // It may have been gone before it could be followed.
    if done.is_err() && Client::new(context).list().await?.iter().all(|app| app.id != id) {
        return Ok(());
    }
    done
}

fn progress(status: &AppStatus) -> String {
    let (deployment, why) = (&status.deployment, status.reason.as_ref());
    let why = why.map(|why| format!("; {why}")).unwrap_or_default();
    let old = match deployment.outdated {
        0 => String::new(),
        old => format!(", {old} of earlier versions"),
    };
    format!(
        "{}: {} of {} instances of version {} healthy{old}{why}",
        status.id, deployment.updated, status.instances, status.version
    )
}

/// Shows every event to `look` until it has an answer or the time is over. A stream that breaks off is begun again.
async fn follow<T>(
    context: &Context,
    id: &str,
    timeout: Duration,
    mut look: impl FnMut(AppEvent) -> Option<Result<T, CliError>>,
) -> Result<T, CliError> {
    let client = Client::new(context);
    let (mut connected, mut trouble) = (false, String::new());
    let watch = async {
        loop {
            match client.events(id).await {
                Ok(mut events) => {
                    connected = true;
                    while let Some(event) = events.next().await {
                        if let Some(answer) = look(event) {
                            return answer;
                        }
                    }
                }
                // What was there a moment ago is likely to come back.
                Err(CliError::Unreachable(reason)) if connected => {
                    if reason != trouble {
                        context.progress(&reason);
                        trouble = reason;
                    }
                }
                Err(error) => return Err(error),
            }
            tokio::time::sleep(RETRY).await;
        }
    };
    let late =
        |limit| format!("{id} was not done within {limit}; it goes on, see `divvy service status {id}`");
    wait_within(Some(timeout), watch, late).await
}
