//! Which process runs a call: one that is warm, most recently used first, or a new one, within the limits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::code::Code;
use super::output::now_ms;
use super::process::{Ended, How, NotTaken, Process};
use super::{Invocation, VERSION};
use crate::declared::Function;
use crate::error::AwsError;
use crate::events::{self, Event};
use crate::logs::{self, Line};
use crate::{Cloud, CloudError, Options};

/// An account on AWS may run 1000 at once; a laptop should not start so many processes. So a call waits for its turn
/// first, and is told to slow down only when the turn does not come.
const LARGEST: usize = 40;
const LONGEST_WAIT: Duration = Duration::from_secs(10);
const LONGEST_IDLE: Duration = Duration::from_secs(5 * 60);
/// Asynchronous calls that wait or run. They are lost when the cloud ends.
const LONGEST_QUEUE: usize = 1000;
/// What running calls get to finish when the cloud ends.
const LAST_CALLS: Duration = Duration::from_secs(3);

/// What a caller gets.
pub(super) struct Outcome {
    pub(super) payload: Bytes,
    pub(super) failed: bool,
    /// The last 4 KB of the call's log.
    pub(super) log_tail: Vec<u8>,
}

pub(crate) struct Pool {
    pub(super) code: Code,
    turns: Arc<Semaphore>,
    state: Mutex<State>,
    /// Turns true when calls that still run must end.
    stop: watch::Sender<bool>,
    /// Held while code comes or goes, so that none goes between being copied and being declared.
    changing: Mutex<()>,
}

#[derive(Default)]
struct State {
    /// The most recently used last.
    idle: Vec<Process>,
    /// How many calls of a function run.
    running: BTreeMap<String, usize>,
    /// How many processes run this code, or are about to.
    used_code: BTreeMap<String, usize>,
    queued: usize,
    closed: bool,
}

/// Runs one call to its end, whether the caller waits for it or not.
pub(super) async fn invoke(cloud: &Arc<Cloud>, name: &str, invocation: Invocation) -> Result<Outcome, AwsError> {
    let turn = Turn::take(cloud, name).await?;
    let (reply, replied) = oneshot::channel();
    tokio::spawn(turn.run(invocation, reply));
    replied.await.map_err(AwsError::internal)?
}

/// Takes an asynchronous call: it runs as soon as it can, is tried again when it fails, and is dropped when too old.
pub(super) fn queue(cloud: &Arc<Cloud>, function: &Function, invocation: Invocation) -> Result<(), AwsError> {
    {
        let mut state = cloud.lambda.state();
        if state.queued >= LONGEST_QUEUE {
            return Err(throttled());
        }
        state.queued += 1;
    }
    let (cloud, name, rules) = (cloud.clone(), function.name.clone(), function.asynchronous);
    tokio::spawn(async move {
        let oldest = Instant::now() + Duration::from_secs(rules.maximum_event_age_seconds.into());
        let (mut failures, mut refusals) = (0, 0);
        loop {
            let pause = match invoke(&cloud, &name, invocation.clone()).await {
                Ok(outcome) if !outcome.failed => break,
                Ok(_) => {
                    failures += 1;
                    if failures > rules.maximum_retry_attempts {
                        break;
                    }
                    Duration::from_secs(60 * u64::from(failures))
                }
                Err(error) if error.status == StatusCode::NOT_FOUND => break,
                // Throttled, or the function can't be started at present.
                Err(_) => {
                    refusals += 1;
                    Duration::from_secs(1 << refusals.min(5))
                }
            };
            if Instant::now() + pause > oldest || cloud.lambda.state().closed {
                tracing::info!(function = name, "an asynchronous call was given up");
                break;
            }
            tokio::time::sleep(pause).await;
        }
        cloud.lambda.state().queued -= 1;
    });
    Ok(())
}

/// Ends processes that had nothing to do for long, until the cloud is gone.
pub(crate) fn start(cloud: &Arc<Cloud>) {
    cloud.lambda.clean(cloud);
    let cloud = Arc::downgrade(cloud);
    tokio::spawn(async move {
        let mut times = tokio::time::interval(Duration::from_secs(15));
        loop {
            times.tick().await;
            let Some(cloud) = cloud.upgrade() else { return };
            cloud.lambda.end_unusable(&cloud);
        }
    });
}

impl Pool {
    pub(crate) fn new(options: &Options) -> Result<Self, CloudError> {
        let root = options.folder.join("functions");
        std::fs::create_dir_all(&root).map_err(|source| CloudError::File { path: root.clone(), source })?;
        // As the environment of a process names it.
        let root = std::path::absolute(&root).unwrap_or(root);
        Ok(Self {
            code: Code { root },
            turns: Arc::new(Semaphore::new(LARGEST)),
            state: Mutex::default(),
            stop: watch::Sender::new(false),
            changing: Mutex::default(),
        })
    }

    /// Takes no more calls, lets those that run finish for a moment, then ends every process and waits for it.
    pub(crate) async fn shutdown(&self) {
        self.state().closed = true;
        let turns = u32::try_from(LARGEST).unwrap_or(u32::MAX);
        for wait in [LAST_CALLS, Duration::from_secs(2)] {
            if tokio::time::timeout(wait, self.turns.acquire_many(turns)).await.is_ok() {
                break;
            }
            tracing::warn!("functions that still run are ended");
            self.stop.send_replace(true);
        }
        let idle = std::mem::take(&mut self.state().idle);
        for mut process in idle {
            process.end().await;
        }
    }

    /// Runs `change` while no code is removed, then removes what no function and no process uses.
    pub(super) fn change_code(
        &self,
        cloud: &Cloud,
        change: impl FnOnce(&Code) -> Result<(), CloudError>,
    ) -> Result<(), CloudError> {
        let changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        change(&self.code)?;
        drop(changing);
        self.clean(cloud);
        Ok(())
    }

    /// Ends the idle processes of a function that changed. Running ones end after their call.
    pub(super) fn retire(&self, cloud: &Cloud, name: &str) {
        let function = cloud.declared.get::<Function>(name);
        let retired: Vec<Process> = {
            let mut state = self.state();
            let of_it = |process: &mut Process| {
                process.function.name == name && !function.as_ref().is_some_and(|function| process.is_usable(function))
            };
            state.idle.extract_if(.., of_it).collect()
        };
        self.end(cloud, retired);
    }

    fn end_unusable(&self, cloud: &Cloud) {
        let unusable: Vec<Process> = {
            let mut state = self.state();
            let ended = |process: &mut Process| {
                let function = cloud.declared.get::<Function>(&process.function.name);
                process.idle_since.elapsed() > LONGEST_IDLE
                    || !function.is_some_and(|function| process.is_usable(&function))
            };
            state.idle.extract_if(.., ended).collect()
        };
        self.end(cloud, unusable);
    }

    /// Dropping a process kills it; Tokio reaps it in the background.
    fn end(&self, cloud: &Cloud, processes: Vec<Process>) {
        if processes.is_empty() {
            return;
        }
        for process in &processes {
            self.state().release_code(&process.function.code_sha256);
        }
        drop(processes);
        self.clean(cloud);
    }

    fn clean(&self, cloud: &Cloud) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let state = self.state();
        let mut used: BTreeSet<String> = state.used_code.keys().cloned().collect();
        let declared = cloud.declared.all::<Function>();
        used.extend(declared.iter().map(|function| function.code_sha256.clone()));
        self.code.keep_only(&used);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn release_code(&mut self, sha256: &str) {
        if let Some(count) = self.used_code.get_mut(sha256) {
            *count -= 1;
            if *count == 0 {
                self.used_code.remove(sha256);
            }
        }
    }
}

/// Leave to run one call of a function.
struct Turn {
    cloud: Arc<Cloud>,
    name: String,
    permit: Option<OwnedSemaphorePermit>,
}

impl Turn {
    async fn take(cloud: &Arc<Cloud>, name: &str) -> Result<Self, AwsError> {
        let wait = cloud.lambda.turns.clone().acquire_owned();
        let permit = match tokio::time::timeout(LONGEST_WAIT, wait).await {
            Ok(Ok(permit)) => permit,
            _ => return Err(throttled()),
        };
        let mut state = cloud.lambda.state();
        if state.closed {
            return Err(stopping());
        }
        let most = cloud.declared.get::<Function>(name).and_then(|function| function.reserved_concurrency);
        let running = state.running.entry(name.to_owned()).or_default();
        if most.is_some_and(|most| *running >= most as usize) {
            return Err(throttled());
        }
        *running += 1;
        drop(state);
        Ok(Self { cloud: cloud.clone(), name: name.to_owned(), permit: Some(permit) })
    }

    async fn run(mut self, invocation: Invocation, reply: oneshot::Sender<Result<Outcome, AwsError>>) {
        // A warm process may turn out to be gone before it saw the event; a new one then takes it.
        for fresh in [false, true] {
            let mut process = match self.process(fresh).await {
                Ok(process) => process,
                Err(error) => {
                    drop(self);
                    _ = reply.send(Err(error));
                    return;
                }
            };
            let mut stop = self.cloud.lambda.stop.subscribe();
            let stopped = async { _ = stop.wait_for(|stop| *stop).await };
            let taken = tokio::select! {
                taken = process.take(&invocation) => taken,
                () = stopped => {
                    process.end().await;
                    drop(self);
                    _ = reply.send(Err(stopping()));
                    return;
                }
            };
            let ended = match taken {
                Ok(ended) => ended,
                Err(NotTaken::Failed(ended)) => *ended,
                Err(NotTaken::Gone) => {
                    self.cloud.lambda.end(&self.cloud, vec![process]);
                    continue;
                }
            };
            let record = Record::of(&invocation, &process.function, &ended);
            let (session, group) = (process.session.clone(), process.function.log_group.clone());
            let stream = process.log_stream.clone();
            let cloud = self.cloud.clone();
            // First the process, then the turn, then the reply: a caller who calls again at once finds it warm.
            self.give_back(process, ended.how);
            let permit = self.permit.take();
            drop(self);
            _ = reply.send(Ok(Outcome {
                payload: ended.payload,
                failed: ended.how != How::Good,
                log_tail: record.tail,
            }));
            cloud.events.write(&record.event);
            logs::write_as(&cloud, &invocation.request_id, &session, &group, &stream, record.lines);
            // Whoever stops the cloud waits for this, and so for the log.
            drop(permit);
            return;
        }
        drop(self);
        _ = reply.send(Err(AwsError::internal("a process that was just started is gone")));
    }

    /// A warm process, or one that is being started.
    async fn process(&self, fresh: bool) -> Result<Process, AwsError> {
        let pool = &self.cloud.lambda;
        let mut gone = Vec::new();
        let (function, warm) = {
            let mut state = pool.state();
            let function = self.cloud.declared.get::<Function>(&self.name);
            let function = function.ok_or_else(|| {
                AwsError::new(
                    StatusCode::NOT_FOUND,
                    "ResourceNotFoundException",
                    format!("Function not found: {}", super::own_arn(&self.cloud, &self.name)),
                )
            })?;
            let mut warm = None;
            while !fresh && warm.is_none() {
                let Some(at) = state.idle.iter().rposition(|process| process.function.name == self.name) else {
                    break;
                };
                let mut process = state.idle.remove(at);
                if process.is_usable(&function) {
                    warm = Some(process);
                } else {
                    gone.push(process);
                }
            }
            if warm.is_none() {
                *state.used_code.entry(function.code_sha256.clone()).or_default() += 1;
                let running: usize = state.running.values().sum();
                if running + state.idle.len() > LARGEST && !state.idle.is_empty() {
                    gone.push(state.idle.remove(0));
                }
            }
            (function, warm)
        };
        pool.end(&self.cloud, gone);
        if let Some(warm) = warm {
            return Ok(warm);
        }
        let started = Process::start(&self.cloud, function.clone()).await;
        if started.is_err() {
            pool.state().release_code(&function.code_sha256);
        }
        started
    }

    fn give_back(&self, mut process: Process, how: How) {
        let pool = &self.cloud.lambda;
        let lives = matches!(how, How::Good | How::Unhandled);
        let mut state = pool.state();
        let function = self.cloud.declared.get::<Function>(&self.name);
        if lives && !state.closed && function.is_some_and(|function| process.is_usable(&function)) {
            state.idle.push(process);
        } else {
            drop(state);
            pool.end(&self.cloud, vec![process]);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.cloud.lambda.state();
        if let Some(running) = state.running.get_mut(&self.name) {
            *running -= 1;
            if *running == 0 {
                state.running.remove(&self.name);
            }
        }
    }
}

/// What is told of a call: to its log, to a caller who asks for the tail, and to the events.
struct Record {
    lines: Vec<Line>,
    tail: Vec<u8>,
    event: Event,
}

impl Record {
    fn of(invocation: &Invocation, function: &Function, ended: &Ended) -> Self {
        let request_id = &invocation.request_id;
        let duration_ms = ended.duration.as_secs_f64() * 1000.0;
        let init_ms = ended.init.map(|init| init.as_secs_f64() * 1000.0);
        let end_ms = now_ms();
        let begin_ms = end_ms - i64::try_from(ended.duration.as_millis()).unwrap_or(0);
        let line = |time_ms, text: String| Line { time_ms, text };

        let mut own = vec![line(begin_ms, format!("START RequestId: {request_id} Version: {VERSION}"))];
        own.extend(ended.lines.iter().cloned());
        let (status, error) = match ended.how {
            How::Good => ("", None),
            How::Unhandled => ("", Some("Unhandled")),
            How::Timeout => ("\tStatus: timeout", Some("Timeout")),
            How::Exit => ("\tStatus: error\tError Type: Runtime.ExitError", Some("Exit")),
        };
        if ended.how == How::Timeout {
            let seconds = f64::from(function.timeout_seconds);
            let text = format!("{} {request_id} Task timed out after {seconds:.2} seconds", events::now());
            own.push(line(end_ms, text));
        }
        own.push(line(end_ms, format!("END RequestId: {request_id}")));
        let billed = (duration_ms + init_ms.unwrap_or(0.0)).ceil();
        let init = init_ms.map(|init| format!("\tInit Duration: {init:.2} ms")).unwrap_or_default();
        own.push(line(
            end_ms,
            format!(
                "REPORT RequestId: {request_id}\tDuration: {duration_ms:.2} ms\tBilled Duration: {billed:.0} ms\tMemory Size: {} MB\tMax Memory Used: {} MB{init}{status}",
                function.memory_mb, ended.max_memory_mb
            ),
        ));

        let whole: String = own.iter().flat_map(|line| [line.text.as_str(), "\n"]).collect();
        let tail = whole.as_bytes()[whole.len().saturating_sub(4096)..].to_vec();
        let mut lines = ended.earlier.clone();
        lines.extend(own);
        let event = Event::Invocation {
            time: events::now(),
            request_id: request_id.clone(),
            function: function.name.clone(),
            duration_ms,
            init_ms,
            memory_size_mb: function.memory_mb,
            max_memory_used_mb: ended.max_memory_mb,
            error: error.map(str::to_owned),
        };
        Self { lines, tail, event }
    }
}

fn throttled() -> AwsError {
    AwsError::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequestsException", "Rate Exceeded.")
}

fn stopping() -> AwsError {
    AwsError::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceException", "The local cloud is being stopped.")
}
