//! The REST API as its users see it: through the master, so that they need only the master's address.

use divvy_sdk::cli::{CliError, Context};
use divvy_sdk::spec::Format;
use futures::{Stream, StreamExt};
use reqwest::Method;

use crate::api_types::{AppStatus, Change, Endpoints, Scale};

/// Asks the service framework.
pub(crate) struct Client<'a> {
    context: &'a Context,
}

/// What a stream of an app's events says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AppEvent {
    /// Where it stands now.
    Status(Box<AppStatus>),
    /// It has been removed.
    Gone,
}

/// The master answers for the framework of this name below this path.
fn path(rest: &str) -> String {
    format!("/frameworks/{}/v1/apps{rest}", crate::NAME)
}

impl<'a> Client<'a> {
    pub(crate) fn new(context: &'a Context) -> Self {
        Self { context }
    }

    pub(crate) async fn list(&self) -> Result<Vec<AppStatus>, CliError> {
        self.context.get(&path("")).await
    }

    pub(crate) async fn status(&self, id: &str) -> Result<AppStatus, CliError> {
        self.context.get(&path(&format!("/{id}"))).await
    }

    pub(crate) async fn apply(
        &self,
        id: &str,
        text: String,
        format: Format,
        dry_run: bool,
    ) -> Result<Change, CliError> {
        let kind = match format {
            Format::Toml => "application/toml",
            Format::Json => "application/json",
        };
        let path = path(&format!("/{id}?dry_run={dry_run}"));
        let request = self.context.request(Method::PUT, &path).header("content-type", kind).body(text);
        self.context.json(request).await
    }

    pub(crate) async fn scale(&self, id: &str, instances: u32) -> Result<AppStatus, CliError> {
        let request = self.context.request(Method::POST, &path(&format!("/{id}/scale")));
        self.context.json(request.json(&Scale { instances })).await
    }

    pub(crate) async fn restart(&self, id: &str) -> Result<AppStatus, CliError> {
        self.context.json(self.context.request(Method::POST, &path(&format!("/{id}/restart")))).await
    }

    pub(crate) async fn remove(&self, id: &str) -> Result<(), CliError> {
        let request = self.context.request(Method::DELETE, &path(&format!("/{id}")));
        self.context.send(request).await.map(drop)
    }

    pub(crate) async fn endpoints(&self, id: &str) -> Result<Endpoints, CliError> {
        self.context.get(&path(&format!("/{id}/endpoints"))).await
    }

    /// Where the app stands, from now on. Ends when the connection does.
    pub(crate) async fn events(
        &self,
        id: &str,
    ) -> Result<impl Stream<Item = AppEvent> + Unpin + use<>, CliError> {
        let stream = self.stream(&format!("/{id}/events")).await?;
        Ok(Box::pin(stream.filter_map(|(name, data)| async move {
            match name.as_str() {
                "gone" => Some(AppEvent::Gone),
                _ => serde_json::from_str(&data).ok().map(AppEvent::Status),
            }
        })))
    }

    /// The app's endpoints, from now on, as the JSON of [`Endpoints`]. Ends when the connection does.
    pub(crate) async fn follow_endpoints(
        &self,
        id: &str,
    ) -> Result<impl Stream<Item = String> + Unpin + use<>, CliError> {
        let stream = self.stream(&format!("/{id}/endpoints")).await?;
        let endpoints = |(name, data): (String, String)| async move { (name == "endpoints").then_some(data) };
        Ok(Box::pin(stream.filter_map(endpoints)))
    }

    async fn stream(&self, rest: &str) -> Result<impl Stream<Item = (String, String)> + use<>, CliError> {
        let request = self.context.request(Method::GET, &path(rest)).header("accept", "text/event-stream");
        let bytes = self.context.send(request).await?.bytes_stream();
        let start = (Box::pin(bytes), EventBuffer::default());
        Ok(futures::stream::unfold(start, |(mut bytes, mut buffer)| async move {
            loop {
                if let Some(event) = buffer.next() {
                    return Some((event, (bytes, buffer)));
                }
                buffer.push(&bytes.next().await?.ok()?);
            }
        }))
    }
}

/// Cuts a stream of bytes into server-sent events: name and data.
#[derive(Debug, Default)]
struct EventBuffer(Vec<u8>);

impl EventBuffer {
    fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The next event that is there whole. Comments are passed over.
    fn next(&mut self) -> Option<(String, String)> {
        loop {
            let end = self.0.windows(2).position(|pair| pair == b"\n\n")?;
            let block: Vec<u8> = self.0.drain(..end + 2).collect();
            let block = String::from_utf8_lossy(&block);
            let field = |name: &str| {
                let values = block.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
                values.map(|value| value.strip_prefix(' ').unwrap_or(value)).collect::<Vec<_>>().join("\n")
            };
            let (name, data) = (field("event"), field("data"));
            if !data.is_empty() {
                return Some((name, data));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_cut_from_bytes_however_they_arrive() {
        let text = ": keep-alive\n\nevent: status\ndata: {\"a\":1}\n\nevent: gone\ndata: {}\n\nevent: half";
        let mut buffer = EventBuffer::default();
        let mut events = Vec::new();
        for byte in text.bytes() {
            buffer.push(&[byte]);
            events.extend(std::iter::from_fn(|| buffer.next()));
        }
        let pair = |name: &str, data: &str| (name.to_owned(), data.to_owned());
        assert_eq!(events, vec![pair("status", "{\"a\":1}"), pair("gone", "{}")]);
    }
}
