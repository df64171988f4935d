//! What others answer through this master, so that a user needs to reach only one address: an agent's logs, files and usage
//! of its tasks, and a framework's own REST API. Bodies are streamed both ways, never collected.

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::Response;
use divvy_proto::api::{self, AgentState, FrameworkState};
use divvy_proto::ids::{AgentId, FrameworkId, TaskId};
use futures::{StreamExt, TryStreamExt};
use serde::Deserialize;

use super::extract::{Asked, At};
use super::failure::Failure;
use crate::shell::api::Api;

/// How long a connection to an agent or a framework may take.
const CONNECT: Duration = Duration::from_secs(5);

/// How long the other side may take to begin its answer. Its end may take forever: logs are followed.
const ANSWER: Duration = Duration::from_secs(60);

/// A client that goes where it is told and nowhere else: no redirects, no proxies from the environment.
pub(in crate::shell) fn client() -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .connect_timeout(CONNECT)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
}

/// Where a task ran, as whoever asks remembers it.
#[derive(Debug, Deserialize)]
pub(super) struct Remembered {
    agent: Option<AgentId>,
}

/// `GET /api/v1/tasks/{framework_id}/{task_id}/…`: the same path and query, asked of the task's agent. The kernel forgets tasks
/// that have ended long before their agent removes what they wrote; then it is `?agent=` that says where to ask.
pub(super) async fn task(
    State(api): State<Api>,
    At((framework_id, task_id, _)): At<(FrameworkId, TaskId, String)>,
    Asked(remembered): Asked<Remembered>,
    request: Request,
) -> Result<Response, Failure> {
    ask_agent(&api, framework_id, task_id, remembered, request).await
}

/// `POST /api/v1/tasks/{framework_id}/{task_id}/exec`: a command in a task's container. Both bodies go on for as long as it does.
pub(super) async fn exec(
    State(api): State<Api>,
    At((framework_id, task_id)): At<(FrameworkId, TaskId)>,
    Asked(remembered): Asked<Remembered>,
    request: Request,
) -> Result<Response, Failure> {
    ask_agent(&api, framework_id, task_id, remembered, request).await
}

/// `GET /api/v1/agents/{id}/usage`: what all tasks of an agent use.
pub(super) async fn usage(
    State(api): State<Api>,
    At(id): At<AgentId>,
    request: Request,
) -> Result<Response, Failure> {
    let wanted = id.clone();
    let agent = api.kernel.query(move |kernel, _| kernel.agent(&wanted)).await?;
    let agent = agent.ok_or_else(|| Failure::not_found(format_args!("agent {id}")))?;
    let target = target(&agent.url, "/api/v1/usage")?;
    forward(&api, target, request).await.map_err(|why| why.into_failure(&describe(&agent)))
}

async fn ask_agent(
    api: &Api,
    framework_id: FrameworkId,
    task_id: TaskId,
    remembered: Remembered,
    request: Request,
) -> Result<Response, Failure> {
    let wanted = (framework_id.clone(), task_id.clone());
    let found = api.kernel.query(move |kernel, _| {
        let known = kernel.task(&wanted.0, &wanted.1).map(|task| task.agent_id);
        let agent_id = known.or(remembered.agent)?;
        Some((kernel.agent(&agent_id), agent_id))
    });
    let (agent, agent_id) =
        found.await?.ok_or_else(|| Failure::not_found(format_args!("task {framework_id}/{task_id}")))?;
    let agent = agent.ok_or_else(|| {
        Failure::gateway(format!("the agent of task {task_id}, {agent_id}, is no longer known"))
    })?;
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let target = target(&agent.url, &path)?;
    forward(api, target, request).await.map_err(|why| why.into_failure(&describe(&agent)))
}

/// `/api/v1/agents/{id}/images…`: what the agent itself answers below `/api/v1/images`.
pub(super) async fn images(
    State(api): State<Api>,
    At(ids): At<Vec<(String, String)>>,
    request: Request,
) -> Result<Response, Failure> {
    let named = |name: &str| ids.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str());
    let id =
        AgentId::new(named("id").unwrap_or_default()).map_err(|error| Failure::bad(error.to_string()))?;
    let wanted = id.clone();
    let agent = api.kernel.query(move |kernel, _| kernel.agent(&wanted)).await?;
    let agent = agent.ok_or_else(|| Failure::not_found(format_args!("agent {id}")))?;
    let path = named("verb").map_or_else(String::new, |verb| format!("/{verb}"));
    let target = target(&agent.url, &format!("/api/v1/images{path}"))?;
    forward(&api, target, request).await.map_err(|why| why.into_failure(&describe(&agent)))
}

/// `/frameworks/{name}/…`: the rest of the path, asked of the framework's own REST API.
pub(super) async fn framework(State(api): State<Api>, request: Request) -> Result<Response, Failure> {
    let (name, rest) = split(request.uri())?;
    let found = api.kernel.query(|kernel, _| kernel.frameworks()).await?;
    let url = url_of(chosen(found, &name), &name)?;
    let target = target(&url, &rest)?;
    forward(&api, target, request)
        .await
        .map_err(|why| why.into_failure(&format!("framework {name} at {url}")))
}

/// Where a framework's API is, or why it cannot be asked.
fn url_of(framework: Option<api::Framework>, name: &str) -> Result<String, Failure> {
    let Some(framework) = framework else {
        let hint = match name {
            "service" | "batch" => format!("start it with `divvy {name} serve`"),
            _ => "see `divvy frameworks`".to_owned(),
        };
        return Err(Failure::gateway(format!("no framework named {name} is known: {hint}")));
    };
    let (id, since) = (&framework.id, framework.since);
    match (framework.state, framework.url) {
        (FrameworkState::Active, Some(url)) => Ok(url),
        (FrameworkState::Active, None) => {
            Err(Failure::gateway(format!("framework {name} ({id}) has no REST API")))
        }
        (FrameworkState::Disconnected, _) => Err(Failure::gateway(format!(
            "framework {name} ({id}) is not connected since {since}: its tasks run on, but its API does not answer until \
             it is started again"
        ))),
        (FrameworkState::Completed, _) => {
            Err(Failure::gateway(format!("framework {name} ({id}) was torn down at {since}")))
        }
    }
}

/// The framework of this name or id; of several, the one that is connected.
fn chosen(frameworks: Vec<api::Framework>, name: &str) -> Option<api::Framework> {
    frameworks
        .into_iter()
        .filter(|framework| framework.name == name || framework.id.as_str() == name)
        .min_by_key(|framework| (framework.state, std::cmp::Reverse(framework.since)))
}

/// `/frameworks/{name}/rest?query` in two, the rest as it was written.
fn split(uri: &Uri) -> Result<(String, String), Failure> {
    let path = uri.path_and_query().map_or("", |path| path.as_str());
    let parts = path.strip_prefix("/frameworks/").and_then(|rest| rest.split_once('/'));
    let (name, rest) = parts.ok_or_else(|| Failure::not_found(path))?;
    Ok((name.to_owned(), format!("/{rest}")))
}

fn describe(agent: &api::Agent) -> String {
    let state = match agent.state {
        AgentState::Active => "",
        AgentState::Recovering => " (it has not come back since this master started)",
        AgentState::Suspected | AgentState::Unreachable => " (it does not answer the master either)",
        AgentState::Gone => " (it was declared gone)",
    };
    format!("agent {} at {}{state}", agent.hostname, agent.url)
}

/// The address of `path` below `base`. A path that would climb out of what it stands below is refused: URLs are normalised
/// when they are parsed, and the check of this master would then have been of another path than the one that is asked for.
fn target(base: &str, path: &str) -> Result<reqwest::Url, Failure> {
    let only_path = path.split('?').next().unwrap_or_default();
    if only_path.split(['/', '\\']).any(is_dots) {
        return Err(Failure::bad(format!("path {only_path:?} is not valid: expected no `.` or `..` in it")));
    }
    let text = format!("{}{path}", base.trim_end_matches('/'));
    match reqwest::Url::parse(&text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(url),
        Ok(_) => Err(Failure::gateway(format!("{base:?} is not an http or https address"))),
        Err(error) => Err(Failure::gateway(format!("{base:?} is not an address: {error}"))),
    }
}

fn is_dots(segment: &str) -> bool {
    matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..")
}

/// Why the other side did not answer.
enum NoAnswer {
    Failed(reqwest::Error),
    TimedOut,
}

impl NoAnswer {
    fn into_failure(self, whom: &str) -> Failure {
        match self {
            Self::Failed(error) => Failure::gateway(format!("{whom} did not answer: {}", innermost(&error))),
            Self::TimedOut => Failure::new(
                StatusCode::GATEWAY_TIMEOUT,
                format!("{whom} did not begin to answer within {}", humantime::format_duration(ANSWER)),
            ),
        }
    }
}

/// The cause that says most: reqwest's own text repeats the address and hides "connection refused" at the bottom.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// What others answer is data. Opened in a browser, a page that a task has written into its sandbox must not be one of this
/// master's own, from which it could kill tasks and submit jobs: this gives it an origin of its own, and no scripts.
const SANDBOX: &str = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:";

async fn forward(api: &Api, target: reqwest::Url, request: Request) -> Result<Response, NoAnswer> {
    let (parts, body) = request.into_parts();
    let has_body = parts.headers.contains_key(header::CONTENT_LENGTH)
        || parts.headers.contains_key(header::TRANSFER_ENCODING)
        || !http_body_is_empty(&body);
    let mut headers = end_to_end(&parts.headers);
    // The guard has looked at these; a framework refuses what comes from a page itself.
    for seen in [header::ORIGIN, HeaderName::from_static("sec-fetch-site")] {
        headers.remove(seen);
    }
    let mut outgoing = api.proxy.request(parts.method, target).headers(headers);
    if has_body {
        outgoing = outgoing.body(reqwest::Body::wrap_stream(body.into_data_stream()));
    }
    let answer = tokio::time::timeout(ANSWER, outgoing.send()).await.map_err(|_| NoAnswer::TimedOut)?;
    let answer = answer.map_err(NoAnswer::Failed)?;
    let (status, headers) = (answer.status(), end_to_end(answer.headers()));
    // When this master stops, the answer breaks off rather than ends: whoever follows a log must not take it for all.
    let stops = api.stop.clone();
    let broken = futures::stream::once(async move { stops.is_cancelled() })
        .filter_map(async |stops| stops.then(|| Err(io::Error::other("the master stops"))));
    let stream = answer.bytes_stream().map_err(io::Error::other);
    let stream = stream.take_until(api.stop.clone().cancelled_owned()).chain(broken);
    let mut response = Response::new(Body::from_stream(stream));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(SANDBOX));
    Ok(response)
}

fn http_body_is_empty(body: &Body) -> bool {
    use axum::body::HttpBody;
    body.is_end_stream()
}

/// Headers that concern one connection only (RFC 9110, 7.6.1), and the host, which the client sets itself.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    header::HOST,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let named: Vec<String> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    let passes = |name: &HeaderName| {
        !HOP_BY_HOP.contains(name) && name != "keep-alive" && !named.iter().any(|one| one == name.as_str())
    };
    headers
        .iter()
        .filter(|(name, _)| passes(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_stays_below_its_base() {
        let ok = |base, path| target(base, path).map(String::from);
        assert_eq!(ok("http://a:1/", "/x/y?z=.."), Ok("http://a:1/x/y?z=..".to_owned()));
        assert_eq!(ok("http://a:1/v1", "/x%2Fy..z"), Ok("http://a:1/v1/x%2Fy..z".to_owned()));
        for path in ["/x/../y", "/x/%2e%2E/y", "/.", "/x/.%2e", "/x\\..\\y"] {
            let error = format!("path {path:?} is not valid: expected no `.` or `..` in it");
            assert_eq!(ok("http://a:1", path), Err(Failure::bad(error)));
        }
        assert!(ok("file:///etc", "/passwd").is_err());
        assert!(ok("", "/x").is_err());
    }

    #[test]
    fn headers_of_one_connection_do_not_pass() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Mine"),
            ("x-mine", "1"),
            ("keep-alive", "2"),
            ("host", "here"),
            ("range", "bytes=0-"),
        ] {
            headers.insert(HeaderName::from_static(name), value.parse().unwrap());
        }
        let passed: Vec<_> = end_to_end(&headers).keys().map(ToString::to_string).collect();
        assert_eq!(passed, ["range"]);
    }

    #[test]
    fn a_frameworks_path_is_taken_as_it_was_written() {
        let uri: Uri = "/frameworks/service/api/v1/apps/a%2Fb?x=1%20".parse().unwrap();
        assert_eq!(split(&uri), Ok(("service".to_owned(), "/api/v1/apps/a%2Fb?x=1%20".to_owned())));
    }
}
