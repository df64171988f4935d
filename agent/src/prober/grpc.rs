//! One question of the gRPC health protocol, `grpc.health.v1.Health/Check`, over HTTP/2 without TLS.

use std::pin::pin;

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderMap, Request};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};

/// The longest answer that is read. An honest one has seven bytes.
const LONGEST: usize = 1024;
/// Before each message: whether it is compressed, and its length.
const PREFIX: usize = 5;

#[derive(Clone, PartialEq, Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// Asks whether a service, or the whole server, serves.
pub(super) async fn check(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    host: &str,
    service: &str,
) -> Result<(), String> {
    let (sender, connection) = h2::client::handshake(stream).await.map_err(broken)?;
    let mut answer = pin!(ask(sender, host, service));
    tokio::select! {
        answer = &mut answer => answer,
        // What has come before the end of the connection counts.
        _ = connection => answer.await,
    }
}

fn broken(error: h2::Error) -> String {
    format!("no answer over HTTP/2: {error}")
}

async fn ask(sender: SendRequest<Bytes>, host: &str, service: &str) -> Result<(), String> {
    let request = Request::post(format!("http://{host}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .map_err(|error| error.to_string())?;
    let mut sender = sender.ready().await.map_err(broken)?;
    let (answer, mut body) = sender.send_request(request, false).map_err(broken)?;
    body.send_data(framed(&HealthCheckRequest { service: service.to_owned() }), true).map_err(broken)?;
    let (head, mut body) = answer.await.map_err(broken)?.into_parts();
    if !head.status.is_success() {
        return Err(format!("the answer was {}", head.status));
    }
    let mut message = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data.map_err(broken)?;
        body.flow_control().release_capacity(data.len()).map_err(broken)?;
        message.extend_from_slice(&data);
        if message.len() > LONGEST {
            return Err("the answer is longer than the protocol allows".to_owned());
        }
    }
    let trailers = body.trailers().await.map_err(broken)?;
    judge(&head.headers, trailers.as_ref(), &message)
}

fn framed(message: &impl Message) -> Bytes {
    let body = message.encode_to_vec();
    let mut frame = BytesMut::with_capacity(PREFIX + body.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(body.len()).unwrap_or(u32::MAX));
    frame.put_slice(&body);
    frame.freeze()
}

/// An answer without a body has its status among the headers.
fn judge(headers: &HeaderMap, trailers: Option<&HeaderMap>, message: &[u8]) -> Result<(), String> {
    let field = |name| {
        let of = |headers: &HeaderMap| headers.get(name)?.to_str().ok().map(ToOwned::to_owned);
        trailers.and_then(of).or_else(|| of(headers))
    };
    match field("grpc-status").as_deref() {
        Some("0") => {}
        Some("5") => return Err("the server does not know the service".to_owned()),
        Some("12") => return Err("the server has no health service (grpc.health.v1.Health)".to_owned()),
        Some(status) => {
            let why = field("grpc-message").unwrap_or_default();
            return Err(format!("the answer was status {status} {why}").trim_end().to_owned());
        }
        None => return Err("the answer is not gRPC".to_owned()),
    }
    let answer = message.get(PREFIX..).map(HealthCheckResponse::decode);
    match answer {
        Some(Ok(HealthCheckResponse { status: 1 })) => Ok(()),
        Some(Ok(HealthCheckResponse { status: 2 })) => Err("the answer was NOT_SERVING".to_owned()),
        Some(Ok(HealthCheckResponse { status: 3 })) => Err("the answer was SERVICE_UNKNOWN".to_owned()),
        Some(Ok(HealthCheckResponse { .. })) => Err("the answer was UNKNOWN".to_owned()),
        _ => Err("the answer is not of the health protocol".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| ((*name).parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn only_serving_is_healthy() {
        let (ok, none) = (headers(&[("grpc-status", "0")]), HeaderMap::new());
        let frame = |status| framed(&HealthCheckResponse { status });
        assert_eq!(judge(&none, Some(&ok), &frame(1)), Ok(()));
        let judged = [
            judge(&none, Some(&ok), &frame(2)),
            judge(&none, Some(&ok), &frame(0)),
            judge(&none, Some(&ok), b"x"),
            judge(&none, None, &frame(1)),
            judge(&headers(&[("grpc-status", "12")]), None, &[]),
            judge(&headers(&[("grpc-status", "14"), ("grpc-message", "later")]), None, &[]),
        ];
        let expected = [
            "the answer was NOT_SERVING",
            "the answer was UNKNOWN",
            "the answer is not of the health protocol",
            "the answer is not gRPC",
            "the server has no health service (grpc.health.v1.Health)",
            "the answer was status 14 later",
        ];
        assert_eq!(judged, expected.map(|text| Err(text.to_owned())));
    }
}
