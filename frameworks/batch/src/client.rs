//! The REST API as its users see it: through the master, so that they need only the master's address.

use divvy_sdk::cli::{CliError, Context};
use divvy_sdk::spec::Format;
use reqwest::{Method, RequestBuilder};

use crate::api::DryRun;
use crate::planner::{JobStatus, JobSummary};

/// Asks the batch framework.
pub(crate) struct Client<'a> {
    context: &'a Context,
}

/// The master answers for the framework of this name below this path.
fn path(rest: &str) -> String {
    format!("/frameworks/{}/v1/jobs{rest}", crate::NAME)
}

impl<'a> Client<'a> {
    pub(crate) fn new(context: &'a Context) -> Self {
        Self { context }
    }

    pub(crate) async fn list(&self) -> Result<Vec<JobSummary>, CliError> {
        self.context.get(&path("")).await
    }

    pub(crate) async fn status(&self, id: &str) -> Result<JobStatus, CliError> {
        self.context.get(&path(&format!("/{id}"))).await
    }

    pub(crate) async fn summary(&self, id: &str) -> Result<JobSummary, CliError> {
        self.context.get(&path(&format!("/{id}?tasks=false"))).await
    }

    pub(crate) async fn submit(&self, text: String, format: Format) -> Result<JobStatus, CliError> {
        self.context.json(self.post(text, format, false)).await
    }

    pub(crate) async fn try_out(&self, text: String, format: Format) -> Result<DryRun, CliError> {
        self.context.json(self.post(text, format, true)).await
    }

    fn post(&self, text: String, format: Format, dry_run: bool) -> RequestBuilder {
        let kind = match format {
            Format::Toml => "application/toml",
            Format::Json => "application/json",
        };
        let path = path(&format!("?dry_run={dry_run}"));
        self.context.request(Method::POST, &path).header("content-type", kind).body(text)
    }

    pub(crate) async fn cancel(&self, id: &str) -> Result<JobStatus, CliError> {
        self.context.json(self.context.request(Method::POST, &path(&format!("/{id}/cancel")))).await
    }

    pub(crate) async fn remove(&self, id: &str) -> Result<(), CliError> {
        let request = self.context.request(Method::DELETE, &path(&format!("/{id}")));
        self.context.send(request).await.map(drop)
    }
}
