//! One process of a function: started with its role's credentials, given one event after the other, ended when it
//! fails, takes too long, or is too old.

use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderValue};
use bytes::Bytes;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use super::output::{Output, now_ms};
use super::runtime_api::{self, Event, Failure, LARGEST_RESPONSE, Message};
use super::{Invocation, VERSION};
use crate::Cloud;
use crate::call::RoleSession;
use crate::declared::{Function, Role};
use crate::error::AwsError;
use crate::logs::Line;

/// What AWS gives a process to start.
const LONGEST_INIT: Duration = Duration::from_secs(10);
const CREDENTIALS_LAST: Duration = Duration::from_secs(12 * 60 * 60);
/// A process ends before its credentials do.
const OLDEST: Duration = Duration::from_secs(11 * 60 * 60);

pub(super) struct Process {
    pub(super) function: Arc<Function>,
    pub(super) session: RoleSession,
    pub(super) log_stream: String,
    /// When it last had nothing to do.
    pub(super) idle_since: Instant,
    started: Instant,
    is_started: bool,
    /// Until the first call tells of it.
    init: Option<Duration>,
    child: Child,
    memory_mb: u32,
    messages: mpsc::Receiver<Message>,
    /// The process waits for an event.
    next: Option<oneshot::Sender<Event>>,
    output: Arc<Output>,
    api: AbortHandle,
}

/// What came of one event.
pub(super) struct Ended {
    pub(super) payload: Bytes,
    pub(super) how: How,
    pub(super) duration: Duration,
    pub(super) init: Option<Duration>,
    pub(super) max_memory_mb: u32,
    /// Printed before the event was delivered.
    pub(super) earlier: Vec<Line>,
    pub(super) lines: Vec<Line>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    Good,
    /// The function reported an error, or returned too much; the process goes on.
    Unhandled,
    Timeout,
    Exit,
}

/// Why a process could not take an event.
pub(super) enum NotTaken {
    /// It was gone already; another one may take it.
    Gone,
    /// It can't start: the caller is told.
    Failed(Box<Ended>),
}

impl Process {
    /// Starts the function's executable, without waiting for it to be ready.
    pub(super) async fn start(cloud: &Cloud, function: Arc<Function>) -> Result<Self, AwsError> {
        let role_name = function.role_arn.rsplit('/').next().unwrap_or_default();
        let role = cloud.declared.get::<Role>(role_name);
        if !role.is_some_and(|role| cloud.trusts_service(&role, "lambda.amazonaws.com")) {
            return Err(AwsError::new(
                axum::http::StatusCode::FORBIDDEN,
                "AccessDeniedException",
                "The role defined for the function cannot be assumed by Lambda.",
            ));
        }
        let session =
            RoleSession { role_arn: function.role_arn.clone(), session_name: function.name.clone(), cognito: None };
        let log_stream = log_stream();
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(AwsError::internal)?;
        let port = listener.local_addr().map_err(AwsError::internal)?.port();
        let (output, stdout, stderr) = Output::open().map_err(AwsError::internal)?;
        let folder = cloud.lambda.code.folder(&function.code_sha256);

        let mut command = Command::new(folder.join("bootstrap"));
        command
            .env_clear()
            .envs(environment(cloud, &function, &session, &log_stream, port))
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .kill_on_drop(true);
        // Its own group: Ctrl-C at the terminal is for the cloud, which then ends its processes in order.
        command.process_group(0);
        let started = Instant::now();
        let child = spawn(&mut command).await.map_err(AwsError::internal)?;
        let (messages, api) = runtime_api::serve(listener, port);
        Ok(Self {
            function,
            session,
            log_stream,
            idle_since: started,
            started,
            is_started: false,
            init: None,
            child,
            memory_mb: 0,
            messages,
            next: None,
            output,
            api,
        })
    }

    /// Whether it may take another event, for the function as it is declared now.
    pub(super) fn is_usable(&mut self, function: &Function) -> bool {
        let same = Function { asynchronous: function.asynchronous, ..(*self.function).clone() } == *function;
        same && self.started.elapsed() < OLDEST && matches!(self.child.try_wait(), Ok(None))
    }

    /// Runs one event, once the process has started.
    pub(super) async fn take(&mut self, invocation: &Invocation) -> Result<Ended, NotTaken> {
        if !self.is_started {
            self.init(&invocation.request_id).await?;
        }
        self.invoke(invocation).await
    }

    /// Waits until a process that was just started asks for its first event.
    async fn init(&mut self, request_id: &str) -> Result<(), NotTaken> {
        let ready = async {
            tokio::select! {
                biased;
                message = self.messages.recv() => Ready::Said(message),
                status = self.child.wait() => Ready::Exited(status.ok()),
            }
        };
        let (payload, how) = match tokio::time::timeout(LONGEST_INIT, ready).await {
            Ok(Ready::Said(Some(Message::Next(next)))) => {
                self.next = Some(next);
                self.is_started = true;
                self.init = Some(self.started.elapsed());
                return Ok(());
            }
            Ok(Ready::Said(Some(Message::InitError(body)))) => (reported(body), How::Exit),
            Ok(Ready::Said(_)) => (exited(request_id, None), How::Exit),
            Ok(Ready::Exited(status)) => (exited(request_id, status), How::Exit),
            Err(_) => (
                error(
                    "Sandbox.Timedout",
                    &format!("RequestId: {request_id} Error: Init timed out after 10.00 seconds"),
                ),
                How::Timeout,
            ),
        };
        self.init = Some(self.started.elapsed());
        self.end().await;
        Err(NotTaken::Failed(Box::new(Ended {
            payload,
            how,
            duration: self.started.elapsed(),
            init: self.init.take(),
            max_memory_mb: self.memory_mb,
            earlier: Vec::new(),
            lines: self.output.take(),
        })))
    }

    /// Gives the event to the process and waits for what comes of it, the function's timeout at most.
    async fn invoke(&mut self, invocation: &Invocation) -> Result<Ended, NotTaken> {
        let earlier = self.output.take();
        // A process that was idle may have died, or be about to ask: neither has seen the event.
        let next = match self.next.take() {
            Some(next) => next,
            None => self.wait_for_next().await.ok_or(NotTaken::Gone)?,
        };
        let limit = Duration::from_secs(self.function.timeout_seconds.into());
        let begun = Instant::now();
        let event = Event { headers: self.headers(invocation, limit), payload: invocation.payload.clone() };
        if next.send(event).is_err() {
            return Err(NotTaken::Gone);
        }
        let (payload, how) = self.result(&invocation.request_id, begun + limit).await;
        let duration = begun.elapsed();
        self.memory_mb = self.memory_mb.max(peak_memory_mb(self.child.id()));
        if matches!(how, How::Timeout | How::Exit) {
            self.end().await;
        }
        self.idle_since = Instant::now();
        Ok(Ended {
            payload,
            how,
            duration,
            init: self.init.take(),
            max_memory_mb: self.memory_mb,
            earlier,
            lines: self.output.take(),
        })
    }

    /// Kills the process, as AWS does with one that has no extensions, and waits until it is gone.
    pub(super) async fn end(&mut self) {
        self.memory_mb = self.memory_mb.max(peak_memory_mb(self.child.id()));
        match tokio::time::timeout(Duration::from_secs(2), self.child.kill()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a process was gone before it could be ended"),
            Err(_) => tracing::warn!(function = self.function.name, "a process does not end"),
        }
        self.api.abort();
    }

    async fn wait_for_next(&mut self) -> Option<oneshot::Sender<Event>> {
        let ready = async {
            tokio::select! {
                biased;
                message = self.messages.recv() => Ready::Said(message),
                status = self.child.wait() => Ready::Exited(status.ok()),
            }
        };
        match tokio::time::timeout(Duration::from_secs(2), ready).await {
            Ok(Ready::Said(Some(Message::Next(next)))) => Some(next),
            _ => None,
        }
    }

    async fn result(&mut self, request_id: &str, deadline: Instant) -> (Bytes, How) {
        let deadline = tokio::time::sleep_until(deadline.into());
        tokio::pin!(deadline);
        let mut exit: Option<Option<ExitStatus>> = None;
        loop {
            let message = tokio::select! {
                biased;
                message = self.messages.recv() => message,
                status = self.child.wait(), if exit.is_none() => {
                    // What it posted just before it ended may still be on its way.
                    exit = Some(status.ok());
                    deadline.as_mut().reset((Instant::now() + Duration::from_millis(50)).into());
                    continue;
                }
                () = &mut deadline => match exit {
                    Some(status) => return (exited(request_id, status), How::Exit),
                    None => return (timed_out(request_id, &self.function), How::Timeout),
                },
            };
            match message {
                None => return (exited(request_id, None), How::Exit),
                Some(Message::InitError(body)) => return (reported(body), How::Exit),
                // The event is given once: whoever else asks on this port gets nothing.
                Some(Message::Next(_)) => {}
                Some(Message::Done { request_id: id, result, accepted }) => {
                    let mine = id == request_id;
                    accepted.send(mine).ok();
                    if !mine {
                        continue;
                    }
                    let how = match exit {
                        Some(_) if result.is_err() => How::Exit,
                        _ if result.is_err() => How::Unhandled,
                        _ => How::Good,
                    };
                    return match result {
                        Ok(payload) => (payload, how),
                        Err(Failure::Reported(body)) => (reported(body), how),
                        Err(Failure::TooLarge(length)) => {
                            let text = format!(
                                "Response payload size ({length} bytes) exceeded maximum allowed payload size ({LARGEST_RESPONSE} bytes)."
                            );
                            (error("Function.ResponseSizeTooLarge", &text), how)
                        }
                    };
                }
            }
        }
    }

    fn headers(&self, invocation: &Invocation, limit: Duration) -> HeaderMap {
        let deadline = now_ms() + i64::try_from(limit.as_millis()).unwrap_or(i64::MAX / 2);
        let identity = invocation.identity.as_ref().map(|identity| {
            json!({
                "cognitoIdentityId": identity.identity_id,
                "cognitoIdentityPoolId": identity.pool_id,
            })
            .to_string()
        });
        let values = [
            ("content-type", Some("application/json".to_owned())),
            ("lambda-runtime-aws-request-id", Some(invocation.request_id.clone())),
            ("lambda-runtime-deadline-ms", Some(deadline.to_string())),
            ("lambda-runtime-invoked-function-arn", Some(invocation.arn.clone())),
            ("lambda-runtime-trace-id", Some(trace_id())),
            ("lambda-runtime-client-context", invocation.client_context.clone()),
            // Empty when there is none: `{}` would not be understood.
            ("lambda-runtime-cognito-identity", Some(identity.unwrap_or_default())),
        ];
        let mut headers = HeaderMap::new();
        for (name, value) in values {
            if let Some(Ok(value)) = value.as_deref().map(HeaderValue::from_str) {
                headers.insert(name, value);
            }
        }
        headers
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.api.abort();
    }
}

enum Ready {
    Said(Option<Message>),
    Exited(Option<ExitStatus>),
}

/// Everything that the process sees of its surroundings; nothing of the developer's own environment gets through.
fn environment(
    cloud: &Cloud,
    function: &Function,
    session: &RoleSession,
    log_stream: &str,
    runtime_port: u16,
) -> Vec<(String, String)> {
    let options = &cloud.options;
    let credentials = cloud.credentials.issue(session, CREDENTIALS_LAST);
    let folder = cloud.lambda.code.folder(&function.code_sha256);
    let folder = folder.to_string_lossy();
    let endpoint = format!("http://127.0.0.1:{}", options.api_port);
    let memory = function.memory_mb.to_string();
    let runtime_api = format!("127.0.0.1:{runtime_port}");
    // A function's own settings may replace the first ones; the last ones are reserved.
    let replaceable = [
        ("PATH", "/usr/local/bin:/usr/bin:/bin"),
        ("TZ", ":UTC"),
        ("LANG", "en_US.UTF-8"),
        ("AWS_ENDPOINT_URL", &endpoint),
    ];
    let reserved = [
        ("_HANDLER", "bootstrap"),
        ("AWS_REGION", &options.region),
        ("AWS_DEFAULT_REGION", &options.region),
        ("AWS_ACCESS_KEY_ID", &credentials.access_key_id),
        ("AWS_SECRET_ACCESS_KEY", &credentials.secret_access_key),
        ("AWS_SESSION_TOKEN", &credentials.session_token),
        ("AWS_LAMBDA_RUNTIME_API", &runtime_api),
        ("AWS_LAMBDA_FUNCTION_NAME", &function.name),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", &memory),
        ("AWS_LAMBDA_FUNCTION_VERSION", VERSION),
        ("AWS_LAMBDA_LOG_GROUP_NAME", &function.log_group),
        ("AWS_LAMBDA_LOG_STREAM_NAME", log_stream),
        ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand"),
        ("LAMBDA_TASK_ROOT", &folder),
        ("LAMBDA_RUNTIME_DIR", &folder),
    ];
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let declared = function.environment.clone().into_iter();
    let replaceable = replaceable.iter().map(own);
    replaceable.chain(declared).chain(reserved.iter().map(own)).collect()
}

/// A file that was just written can be "busy" for a moment: another thread's fork still holds it open.
async fn spawn(command: &mut Command) -> std::io::Result<Child> {
    let mut tries = 0;
    loop {
        match command.spawn() {
            Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy && tries < 100 => {
                tries += 1;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            result => return result,
        }
    }
}

/// The most memory that the process ever held, where the system tells.
fn peak_memory_mb(pid: Option<u32>) -> u32 {
    let status = pid.and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/status")).ok());
    let peak = status.as_deref().and_then(|status| {
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u32>().ok()
    });
    peak.map_or(0, |kib| kib.div_ceil(1024))
}

/// `2026/11/22/[$LATEST]0123…`
fn log_stream() -> String {
    let now = time::OffsetDateTime::now_utc();
    let (year, month, day) = (now.year(), u8::from(now.month()), now.day());
    format!("{year:04}/{month:02}/{day:02}/[{VERSION}]{}", random_hex::<16>())
}

fn trace_id() -> String {
    let seconds = now_ms() / 1000;
    format!("Root=1-{seconds:08x}-{};Parent={};Sampled=0", random_hex::<12>(), random_hex::<8>())
}

pub(super) fn random_hex<const N: usize>() -> String {
    let mut bytes = [0; N];
    // Only names are made of it: without randomness they would repeat, which harms nobody.
    getrandom::fill(&mut bytes).ok();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn timed_out(request_id: &str, function: &Function) -> Bytes {
    let seconds = f64::from(function.timeout_seconds);
    error("Sandbox.Timedout", &format!("RequestId: {request_id} Error: Task timed out after {seconds:.2} seconds"))
}

fn exited(request_id: &str, status: Option<ExitStatus>) -> Bytes {
    let reason = match status {
        Some(status) if !status.success() => format!("Runtime exited with error: {}", worded(status)),
        _ => "Runtime exited without providing a reason".to_owned(),
    };
    error("Runtime.ExitError", &format!("RequestId: {request_id} Error: {reason}"))
}

/// As Go words it, which Lambda is written in.
fn worded(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(9)) => "signal: killed".to_owned(),
        (None, Some(6)) => "signal: aborted".to_owned(),
        (None, Some(11)) => "signal: segmentation fault".to_owned(),
        (None, signal) => format!("signal: {}", signal.unwrap_or_default()),
    }
}

/// An error as a process reported it; one that is not JSON or too large is replaced.
fn reported(body: Bytes) -> Bytes {
    if body.len() <= LARGEST_RESPONSE && super::is_json(&body) {
        return body;
    }
    error("Runtime.Unknown", "The function failed without a readable reason")
}

fn error(kind: &str, message: &str) -> Bytes {
    json!({"errorType": kind, "errorMessage": message}).to_string().into()
}
