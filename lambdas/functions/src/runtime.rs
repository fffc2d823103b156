//! The run loop of a function, over the official client of the Lambda Runtime API.
//!
//! `lambda_runtime::run` would parse the client context, which any caller can choose, and end the process when that is
//! not of its own shape (`Context::new`, called in the loop and before any layer). So the loop is ours, and drops that
//! header before the context is made. Events reach handlers as raw bytes, and no error text of theirs gets out.
//!
//! <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>

use std::future::{Future, poll_fn};
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::process::ExitCode;
use std::task::Poll;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use auth::settings::Settings;
use auth::{Function, Seconds};
use http::{HeaderMap, HeaderValue, Method, Request};
use lambda_runtime::{Context, Diagnostic};
use lambda_runtime_api_client::body::Body;
use lambda_runtime_api_client::{BoxError, PooledClient, build_request};
use serde::Serialize;
use tokio::time::{Instant, sleep_until};

use crate::aws::Aws;
use crate::outcome::{Code, Failure, Reply};

/// One function of the service.
pub(crate) trait Handler: Sized {
    const FUNCTION: Function;

    /// Makes what all calls share: once, at cold start.
    fn new(settings: Settings, aws: &Aws) -> Result<Self, Failure>;

    async fn handle(&self, call: &Call) -> Result<Reply, Failure>;

    /// How long after the start of a call an answer comes at the soonest, refusals and bad requests apart: those depend
    /// on nothing but the event.
    fn answer_after(&self) -> Duration {
        Duration::ZERO
    }
}

/// One invocation.
pub(crate) struct Call {
    pub(crate) event: Vec<u8>,
    pub(crate) context: Context,
    pub(crate) now: Seconds,
}

/// Serves a function until the process is ended.
pub(crate) fn run<H: Handler>() -> ExitCode {
    // The message of a panic may hold what a log may not: the code that is logged instead must do.
    std::panic::set_hook(Box::new(|_| ()));
    let served = catch_unwind(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(serve::<H>())
    });
    if served.is_err() {
        log::<H>(None, Code::FaultPanic, None);
    }
    // Reached only when the Runtime API is gone or the function can't start.
    ExitCode::FAILURE
}

async fn serve<H: Handler>() -> Result<(), BoxError> {
    let api = PooledClient::builder().build();
    let handler = match start::<H>() {
        Ok(handler) => handler,
        Err(failure) => return post(&api, "/2018-06-01/runtime/init/error", &failed(failure), None).await,
    };
    loop {
        let next = build_request().uri("/2018-06-01/runtime/invocation/next").body(Body::empty())?;
        let (parts, event) = api.call(next).await?.into_parts();
        let started = Instant::now();
        let event = Body::new(event).collect().await?.to_bytes().to_vec();

        let context = context(parts.headers.clone())?;
        let path = format!("/2018-06-01/runtime/invocation/{}", context.request_id);
        let call = Call { event, context, now: now() };
        let outcome = catch_panic(handler.handle(&call)).await.unwrap_or(Err(Failure::Fault(Code::FaultPanic)));

        let code = outcome.as_ref().map_or_else(|failure| failure.code(), |reply| reply.code);
        let answer_at = started + handler.answer_after();
        // Asked first, since even a sleep that is over before it starts waits for the timer's next millisecond.
        if !matches!(code, Code::Refused | Code::BadRequest) && Instant::now() < answer_at {
            sleep_until(answer_at).await;
        }
        // Before the answer, which may be the last that the process does for a while.
        log::<H>(Some(&call.context.request_id), code, None);
        // Echoed, so that the service can tell the answer to an invocation that timed out from that to the next.
        let invocation_id = parts.headers.get("lambda-runtime-invocation-id");
        // An answer that is not taken (it came too late) concerns that call alone.
        let _ = match outcome {
            Ok(reply) => post(&api, &format!("{path}/response"), &reply.json, invocation_id).await,
            Err(failure) => post(&api, &format!("{path}/error"), &failed(failure), invocation_id).await,
        };
    }
}

fn start<H: Handler>() -> Result<H, Failure> {
    let lookup = |name: &str| std::env::var(name).ok();
    let settings = Settings::from_env(H::FUNCTION, lookup).map_err(|missing| {
        log::<H>(None, Code::FaultSettings, Some(missing.0));
        Failure::Fault(Code::FaultSettings)
    })?;
    Aws::from_env(lookup).and_then(|aws| H::new(settings, &aws)).inspect_err(|failure| {
        log::<H>(None, failure.code(), None);
    })
}

/// The context of an invocation, without what a caller could have chosen.
fn context(mut headers: HeaderMap) -> Result<Context, BoxError> {
    headers.remove("lambda-runtime-client-context");
    let request_id = headers.get("lambda-runtime-aws-request-id").ok_or("an invocation without an id")?;
    let request_id = request_id.to_str()?.to_owned();
    let config = std::sync::Arc::default();
    Context::new(&request_id, std::sync::Arc::clone(&config), &headers).or_else(|_| {
        // No identity is better than no answer.
        headers.remove("lambda-runtime-cognito-identity");
        Context::new(&request_id, config, &headers)
    })
}

fn failed(failure: Failure) -> Vec<u8> {
    serde_json::to_vec(&Diagnostic::from(failure)).unwrap_or_default()
}

async fn post(
    api: &PooledClient,
    path: &str,
    json: &[u8],
    invocation_id: Option<&HeaderValue>,
) -> Result<(), BoxError> {
    let mut request: Request<Body> = build_request().method(Method::POST).uri(path).body(Body::from(json.to_vec()))?;
    let headers = request.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    if path.ends_with("/error") {
        headers.insert("lambda-runtime-function-error-type", HeaderValue::from_static("Unhandled"));
    }
    if let Some(id) = invocation_id {
        headers.insert("lambda-runtime-invocation-id", id.clone());
    }
    let response = api.call(request).await?;
    // Read to its end, so that the connection can be used again.
    Body::new(response.into_body()).collect().await?;
    Ok(())
}

/// `None` when the future panics.
async fn catch_panic<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(poll) => poll.map(Some),
        Err(_) => Poll::Ready(None),
    })
    .await
}

/// One line of JSON on standard output.
fn log<H: Handler>(request_id: Option<&str>, code: Code, setting: Option<&str>) {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Line<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        request_id: Option<&'a str>,
        function: &'static str,
        code: Code,
        #[serde(skip_serializing_if = "Option::is_none")]
        setting: Option<&'a str>,
    }
    let line = Line { request_id, function: H::FUNCTION.name(), code, setting };
    let line = serde_json::to_string(&line).unwrap_or_default();
    // In one write, so that it stays one line; nothing can be done about a log that is gone.
    let _ = std::io::stdout().lock().write_all(format!("{line}\n").as_bytes());
}

fn now() -> Seconds {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

pub(crate) fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| Failure::Fault(Code::FaultRandomness))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &[u8])]) -> HeaderMap {
        let fixed = [("lambda-runtime-aws-request-id", b"id".as_slice()), ("lambda-runtime-deadline-ms", b"1")];
        let all = fixed.iter().chain(pairs);
        all.map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_bytes(value).expect("valid")))
            .collect()
    }

    #[test]
    fn a_client_context_of_any_content_is_passed_over() {
        for hostile in ["{}", "null", "[", "{\"client\":1}", "é", "{\"custom\":{\"a\":{}}}"] {
            let context =
                context(headers(&[("lambda-runtime-client-context", hostile.as_bytes())])).expect("a context");
            assert_eq!((context.request_id.as_str(), context.client_context), ("id", None), "{hostile}");
        }
    }

    #[test]
    fn an_identity_is_read_and_one_of_another_shape_is_none() {
        let identity = |json: &str| {
            let headers = headers(&[("lambda-runtime-cognito-identity", json.as_bytes())]);
            context(headers).expect("a context").identity.map(|identity| identity.identity_id)
        };
        let sound = r#"{"cognitoIdentityId":"eu-west-1:1","cognitoIdentityPoolId":"eu-west-1:2"}"#;
        assert_eq!(identity(sound).as_deref(), Some("eu-west-1:1"));
        for other in ["", "{}", "null", "[1]", "é"] {
            assert_eq!(identity(other), None, "{other}");
        }
    }

    #[tokio::test]
    async fn a_panic_is_caught_before_and_after_an_await() {
        assert_eq!(catch_panic(async { 1 }).await, Some(1));
        let later = async {
            tokio::task::yield_now().await;
            panic!("secret")
        };
        assert_eq!(catch_panic::<_>(later).await, None::<()>);
    }
}
