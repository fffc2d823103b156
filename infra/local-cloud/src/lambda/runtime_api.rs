//! The Lambda Runtime API of one process: it asks for the next event here, and posts what came of it.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::serve::ListenerExt;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

/// What AWS lets a function return.
pub(super) const LARGEST_RESPONSE: usize = 6_291_556;
/// A larger body is read on up to here, so that its sender can finish and go on.
const LARGEST_READ: usize = 64 * 1024 * 1024;

/// What the process says.
pub(super) enum Message {
    /// Give me the next event.
    Next(oneshot::Sender<Event>),
    /// This came of the event with that request id.
    Done { request_id: String, result: Result<Bytes, Failure>, accepted: oneshot::Sender<bool> },
    /// It can't start.
    InitError(Bytes),
}

pub(super) enum Failure {
    /// The function says that it failed, in the JSON shape of Lambda's errors.
    Reported(Bytes),
    /// The response has more bytes than may be returned.
    TooLarge(usize),
}

/// An event with the headers that it is delivered with.
pub(super) struct Event {
    pub(super) headers: HeaderMap,
    pub(super) payload: Bytes,
}

#[derive(Clone)]
struct Api {
    /// The only Host that is answered: pages in a browser can't pretend it.
    host: Arc<str>,
    messages: mpsc::Sender<Message>,
}

/// Serves the API on `listener` until the handle is used.
pub(super) fn serve(listener: TcpListener, port: u16) -> (mpsc::Receiver<Message>, AbortHandle) {
    let (messages, received) = mpsc::channel(8);
    let api = Api { host: format!("127.0.0.1:{port}").into(), messages };
    let router = Router::new().fallback(answer).with_state(api);
    let listener = listener.tap_io(|connection| {
        connection.set_nodelay(true).ok();
    });
    let task = tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::warn!(%error, "the Runtime API of a process ended");
        }
    });
    (received, task.abort_handle())
}

async fn answer(State(api): State<Api>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let host = parts.headers.get(header::HOST);
    if host.is_none_or(|host| host.as_bytes() != api.host.as_bytes()) || parts.headers.contains_key(header::ORIGIN) {
        return refuse(StatusCode::FORBIDDEN, "Forbidden", "This port is for one process only.");
    }
    let path = parts.uri.path().strip_prefix("/2018-06-01/runtime/");
    let steps: Vec<&str> = path.unwrap_or_default().split('/').collect();
    match (&parts.method, steps.as_slice()) {
        (&Method::GET, ["invocation", "next"]) => next(&api).await,
        (&Method::POST, ["invocation", request_id, "response"]) => {
            let Ok((body, length)) = read(body).await else {
                return broken();
            };
            let result = if length > LARGEST_RESPONSE { Err(Failure::TooLarge(length)) } else { Ok(body) };
            done(&api, request_id, result).await
        }
        (&Method::POST, ["invocation", request_id, "error"]) => {
            let Ok((body, _)) = read(body).await else {
                return broken();
            };
            done(&api, request_id, Err(Failure::Reported(body))).await
        }
        (&Method::POST, ["init", "error"]) => {
            let Ok((body, _)) = read(body).await else {
                return broken();
            };
            api.messages.send(Message::InitError(body)).await.ok();
            accepted()
        }
        _ => refuse(StatusCode::NOT_FOUND, "NotFound", "The Runtime API has no such path."),
    }
}

async fn next(api: &Api) -> Response {
    let (deliver, delivered) = oneshot::channel();
    if api.messages.send(Message::Next(deliver)).await.is_err() {
        return ended();
    }
    // Waits as long as it takes: an idle process has nothing else to do.
    let Ok(event) = delivered.await else {
        return ended();
    };
    let mut response = Response::new(Body::from(event.payload));
    *response.headers_mut() = event.headers;
    response
}

async fn done(api: &Api, request_id: &str, result: Result<Bytes, Failure>) -> Response {
    let (accept, was_accepted) = oneshot::channel();
    let too_large = matches!(result, Err(Failure::TooLarge(_)));
    let message = Message::Done { request_id: request_id.to_owned(), result, accepted: accept };
    if api.messages.send(message).await.is_err() {
        return ended();
    }
    match was_accepted.await {
        Ok(true) if too_large => refuse(
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestEntityTooLarge",
            "Exceeded maximum allowed payload size (6291556 bytes).",
        ),
        Ok(true) => accepted(),
        _ => refuse(StatusCode::BAD_REQUEST, "InvalidRequestID", "Invalid request ID"),
    }
}

/// The body, as far as it may be returned, and its whole length.
async fn read(mut body: Body) -> Result<(Bytes, usize), axum::Error> {
    let mut kept = BytesMut::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            length += data.len();
            if length <= LARGEST_RESPONSE {
                kept.extend_from_slice(&data);
            }
            if length > LARGEST_READ {
                break;
            }
        }
    }
    Ok((kept.freeze(), length))
}

fn accepted() -> Response {
    (StatusCode::ACCEPTED, axum::Json(json!({"status": "OK"}))).into_response()
}

fn broken() -> Response {
    refuse(StatusCode::BAD_REQUEST, "BadRequest", "The body broke off.")
}

fn ended() -> Response {
    refuse(StatusCode::GONE, "Gone", "This process is being ended.")
}

fn refuse(status: StatusCode, kind: &str, message: &str) -> Response {
    (status, axum::Json(json!({"errorType": kind, "errorMessage": message}))).into_response()
}
