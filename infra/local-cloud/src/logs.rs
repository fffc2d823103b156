//! CloudWatch Logs: what the functions print is written as their roles, and read through the API.

mod storage;

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::http::{HeaderMap, Method, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use crate::call::{Call, ConditionKeys, Principal, RoleSession};
use crate::declared::LogGroup;
use crate::error::AwsError;
use crate::store::Store;
use crate::{Cloud, CloudError};
use storage::{Page, Range};

pub(crate) use storage::Line;

/// Answers one request of the protocol awsJson1.1.
pub(crate) async fn handle(cloud: &Arc<Cloud>, call: Call) -> Result<Response, AwsError> {
    let target = call.headers.get("x-amz-target");
    let operation = target
        .and_then(|target| target.to_str().ok())
        .and_then(|target| target.strip_prefix("Logs_20140328."))
        .unwrap_or_default()
        .to_owned();
    let request: Value = serde_json::from_slice(&call.body)
        .ok()
        .filter(Value::is_object)
        .ok_or_else(|| AwsError::bad_request("SerializationException", ""))?;
    let answer = match operation.as_str() {
        "DescribeLogGroups" => describe_log_groups(cloud, &call, &request),
        "DescribeLogStreams" => describe_log_streams(cloud, &call, &request),
        "CreateLogStream" => create_log_stream(cloud, &call, &request),
        "PutLogEvents" => put_log_events(cloud, &call, &request),
        "FilterLogEvents" => {
            cloud.logs.flush().await;
            filter_log_events(cloud, &call, &request)
        }
        "GetLogEvents" => {
            cloud.logs.flush().await;
            get_log_events(cloud, &call, &request)
        }
        _ => Err(AwsError::bad_request("UnknownOperationException", "")),
    }?;
    let content_type = [(header::CONTENT_TYPE, "application/x-amz-json-1.1")];
    Ok((content_type, answer.to_string()).into_response())
}

/// Writes lines of a function as its role: off the caller's path, in the order of the calls. What the role may not
/// write is lost, as on AWS, and a denied decision tells of it.
pub(crate) fn write_as(
    cloud: &Arc<Cloud>,
    request_id: &str,
    session: &RoleSession,
    group: &str,
    stream: &str,
    lines: Vec<Line>,
) {
    let batch = Batch {
        request_id: request_id.to_owned(),
        session: session.clone(),
        group: group.to_owned(),
        stream: stream.to_owned(),
        lines,
    };
    let queue = cloud.logs.queue.get_or_init(|| start_writer(cloud));
    if queue.try_send(Work::Batch(batch)).is_err() {
        tracing::warn!(group, stream, "log lines come faster than they can be written; some are lost");
    }
}

/// Keeps retention and the cap on what logs may take, until the cloud is gone.
pub(crate) fn start(cloud: &Arc<Cloud>) {
    let cloud = Arc::downgrade(cloud);
    tokio::spawn(async move {
        let mut times = tokio::time::interval(Duration::from_secs(600));
        loop {
            times.tick().await;
            let Some(cloud) = cloud.upgrade() else { return };
            let swept = tokio::task::spawn_blocking(move || {
                let groups = cloud.declared.all::<LogGroup>();
                storage::sweep(&cloud.store, &groups, storage::now_ms())
            });
            if let Ok(Err(error)) = swept.await {
                tracing::error!(%error, "cannot delete expired logs");
            }
        }
    });
}

/// The way into the logs of the functions.
pub(crate) struct Journal {
    queue: OnceLock<mpsc::Sender<Work>>,
}

impl Journal {
    pub(crate) fn open(store: &Store) -> Result<Self, CloudError> {
        storage::make_tables(store)?;
        Ok(Self { queue: OnceLock::new() })
    }

    /// Waits until everything handed over so far has been written, five seconds at most.
    pub(crate) async fn flush(&self) {
        let Some(queue) = self.queue.get() else { return };
        let (done, written) = oneshot::channel();
        let flushed = async {
            if queue.send(Work::Flush(done)).await.is_ok() {
                written.await.ok();
            }
        };
        if tokio::time::timeout(Duration::from_secs(5), flushed).await.is_err() {
            tracing::warn!("the logs of the functions are not all written");
        }
    }
}

enum Work {
    Batch(Batch),
    Flush(oneshot::Sender<()>),
}

struct Batch {
    request_id: String,
    session: RoleSession,
    group: String,
    stream: String,
    lines: Vec<Line>,
}

fn start_writer(cloud: &Arc<Cloud>) -> mpsc::Sender<Work> {
    let (queue, mut work) = mpsc::channel(1024);
    let cloud = Arc::downgrade(cloud);
    tokio::spawn(async move {
        // A role is asked once whether it may make a stream; one that may not is asked again with its next lines.
        let mut streams = HashSet::<String>::new();
        while let Some(next) = work.recv().await {
            match next {
                Work::Flush(done) => _ = done.send(()),
                Work::Batch(batch) => {
                    let Some(cloud) = cloud.upgrade() else { return };
                    let exists = streams.contains(&batch.stream);
                    let stream = batch.stream.clone();
                    let written = tokio::task::spawn_blocking(move || cloud.write_batch(batch, exists));
                    if let Ok(true) = written.await {
                        if streams.len() > 4096 {
                            streams.clear();
                        }
                        streams.insert(stream);
                    }
                }
            }
        }
    });
    queue
}

impl Cloud {
    /// Makes or changes a log group.
    ///
    /// # Errors
    /// [`CloudError`] when the store fails.
    pub fn put_log_group(&self, group: LogGroup) -> Result<(), CloudError> {
        self.declared.put(&self.store, group)
    }

    /// Deletes a log group with all that was logged; one that is not there counts as deleted.
    ///
    /// # Errors
    /// [`CloudError`] when the store fails.
    pub fn delete_log_group(&self, name: &str) -> Result<(), CloudError> {
        storage::delete_group(&self.store, name)?;
        self.declared.delete::<LogGroup>(&self.store, name)
    }

    /// The log group as it was declared last.
    pub fn get_log_group(&self, name: &str) -> Option<Arc<LogGroup>> {
        self.declared.get(name)
    }

    /// Writes one batch as the role of its session; returns whether the role has the stream.
    fn write_batch(&self, batch: Batch, exists: bool) -> bool {
        let call = Call {
            principal: Principal::Role(batch.session),
            request_id: batch.request_id,
            method: Method::POST,
            uri: Uri::from_static("/"),
            headers: HeaderMap::new(),
            body: Bytes::new(),
        };
        let resource = self.stream_arn(&batch.group, &batch.stream);
        let allowed = |action| self.authorize(&call, action, &resource, ConditionKeys::new()).is_ok();
        let exists = exists || allowed("logs:CreateLogStream");
        if exists && allowed("logs:PutLogEvents") && self.get_log_group(&batch.group).is_some() {
            let written = storage::append(&self.store, &batch.group, &batch.stream, &batch.lines);
            if let Err(error) = written {
                tracing::error!(%error, "cannot write a function's log");
            }
        }
        exists
    }

    fn stream_arn(&self, group: &str, stream: &str) -> String {
        format!("{}:log-stream:{stream}", self.group_arn(group))
    }

    fn group_arn(&self, group: &str) -> String {
        let (region, account) = (&self.options.region, &self.options.account);
        format!("arn:aws:logs:{region}:{account}:log-group:{group}")
    }

    /// The group that a request names, by name or by ARN.
    fn group_named(&self, request: &Value) -> Result<String, AwsError> {
        let named = text(request, "logGroupName")?;
        let named = match named {
            Some(name) => name,
            None => text(request, "logGroupIdentifier")?.ok_or_else(|| invalid("logGroupName is required"))?,
        };
        let own = self.group_arn("");
        let name = named.strip_prefix(own.as_str()).unwrap_or(&named);
        let name = name.strip_suffix(":*").unwrap_or(name);
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-/.#".contains(c);
        if name.is_empty() || name.len() > 512 || !name.chars().all(plain) {
            return Err(invalid("logGroupName is not a name of a log group"));
        }
        Ok(name.to_owned())
    }

    fn existing_group(&self, name: &str) -> Result<Arc<LogGroup>, AwsError> {
        self.get_log_group(name).ok_or_else(|| {
            AwsError::bad_request("ResourceNotFoundException", "The specified log group does not exist.")
        })
    }
}

fn describe_log_groups(cloud: &Cloud, call: &Call, request: &Value) -> Result<Value, AwsError> {
    let resource = cloud.group_arn("*");
    cloud.authorize(call, "logs:DescribeLogGroups", &resource, ConditionKeys::new())?;
    let prefix = text(request, "logGroupNamePrefix")?.unwrap_or_default();
    let pattern = text(request, "logGroupNamePattern")?.unwrap_or_default();
    let groups = cloud.declared.all::<LogGroup>();
    let described: Vec<Value> = groups
        .iter()
        .filter(|group| group.name.starts_with(&prefix) && group.name.contains(&pattern))
        .map(|group| {
            let arn = cloud.group_arn(&group.name);
            let mut described = json!({
                "logGroupName": group.name,
                "arn": format!("{arn}:*"),
                "logGroupArn": arn,
                "logGroupClass": "STANDARD",
                "metricFilterCount": 0,
                "storedBytes": 0,
                "creationTime": 0,
            });
            if let Some(days) = group.retention_days {
                described["retentionInDays"] = days.into();
            }
            described
        })
        .collect();
    Ok(json!({"logGroups": described}))
}

fn describe_log_streams(cloud: &Cloud, call: &Call, request: &Value) -> Result<Value, AwsError> {
    let group = cloud.group_named(request)?;
    let resource = cloud.stream_arn(&group, "");
    cloud.authorize(call, "logs:DescribeLogStreams", &resource, ConditionKeys::new())?;
    cloud.existing_group(&group)?;
    let prefix = text(request, "logStreamNamePrefix")?.unwrap_or_default();
    let by_time = text(request, "orderBy")?.as_deref() == Some("LastEventTime");
    let descending = request["descending"].as_bool().unwrap_or(false);
    let limit = limit(request, 50)?;
    let mut streams = storage::streams(&cloud.store, &group).map_err(AwsError::internal)?;
    streams.retain(|stream| stream.name.starts_with(&prefix));
    if by_time {
        streams.sort_by_key(|stream| stream.last_ms);
    }
    if descending {
        streams.reverse();
    }
    let skipped: usize = token(request)?.map_or(Ok(0), |token| token.parse().map_err(|_| bad_token()))?;
    let more = streams.len() > skipped + limit;
    let described: Vec<Value> = streams
        .iter()
        .skip(skipped)
        .take(limit)
        .map(|stream| {
            json!({
                "logStreamName": stream.name,
                "arn": cloud.stream_arn(&group, &stream.name),
                "creationTime": stream.created_ms,
                "firstEventTimestamp": stream.first_ms,
                "lastEventTimestamp": stream.last_ms,
                "lastIngestionTime": stream.last_ms,
                "storedBytes": 0,
            })
        })
        .collect();
    let mut answer = json!({"logStreams": described});
    if more {
        answer["nextToken"] = (skipped + limit).to_string().into();
    }
    Ok(answer)
}

fn create_log_stream(cloud: &Cloud, call: &Call, request: &Value) -> Result<Value, AwsError> {
    let (group, stream) = (cloud.group_named(request)?, stream_named(request)?);
    let resource = cloud.stream_arn(&group, &stream);
    cloud.authorize(call, "logs:CreateLogStream", &resource, ConditionKeys::new())?;
    cloud.existing_group(&group)?;
    let made = storage::create_stream(&cloud.store, &group, &stream).map_err(AwsError::internal)?;
    if !made {
        return Err(AwsError::bad_request("ResourceAlreadyExistsException", "The specified log stream already exists"));
    }
    Ok(json!({}))
}

fn put_log_events(cloud: &Cloud, call: &Call, request: &Value) -> Result<Value, AwsError> {
    let (group, stream) = (cloud.group_named(request)?, stream_named(request)?);
    let resource = cloud.stream_arn(&group, &stream);
    cloud.authorize(call, "logs:PutLogEvents", &resource, ConditionKeys::new())?;
    cloud.existing_group(&group)?;
    if !storage::has_stream(&cloud.store, &group, &stream).map_err(AwsError::internal)? {
        return Err(AwsError::bad_request("ResourceNotFoundException", "The specified log stream does not exist."));
    }
    let events = request["logEvents"].as_array().filter(|events| !events.is_empty());
    let events = events.ok_or_else(|| invalid("logEvents must hold at least one event"))?;
    let lines: Option<Vec<Line>> = events
        .iter()
        .map(|event| Some(Line { time_ms: event["timestamp"].as_i64()?, text: event["message"].as_str()?.to_owned() }))
        .collect();
    let lines = lines.ok_or_else(|| invalid("Each event needs a timestamp and a message"))?;
    if lines.len() > 10_000 || lines.windows(2).any(|pair| pair[0].time_ms > pair[1].time_ms) {
        return Err(invalid(
            "Log events in a single PutLogEvents request must be in chronological order, at most 10000.",
        ));
    }
    storage::append(&cloud.store, &group, &stream, &lines).map_err(AwsError::internal)?;
    Ok(json!({"nextSequenceToken": "0"}))
}

fn filter_log_events(cloud: &Cloud, call: &Call, request: &Value) -> Result<Value, AwsError> {
    let group = cloud.group_named(request)?;
    let resource = cloud.stream_arn(&group, "");
    cloud.authorize(call, "logs:FilterLogEvents", &resource, ConditionKeys::new())?;
    cloud.existing_group(&group)?;
    let pattern = Pattern::parse(&text(request, "filterPattern")?.unwrap_or_default())?;
    let streams: Vec<String> = request["logStreamNames"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|name| Some(name.as_str()?.to_owned()))
        .collect();
    let prefix = text(request, "logStreamNamePrefix")?.unwrap_or_default();
    let limit = limit(request, 10_000)?;
    let mut range = range(request);
    if let Some(token) = token(request)? {
        range.after = Some(position(&token)?);
    }
    let mut found = Vec::new();
    let mut next = None;
    'pages: loop {
        let page = Page { range, newest_first: false, limit: 5000 };
        let events = storage::read(&cloud.store, &group, None, page).map_err(AwsError::internal)?;
        if events.is_empty() {
            break;
        }
        for event in &events {
            if found.len() == limit {
                next = range.after;
                break 'pages;
            }
            range.after = Some((event.time_ms, event.id));
            let of_stream =
                (streams.is_empty() || streams.contains(&event.stream)) && event.stream.starts_with(&prefix);
            if of_stream && pattern.matches(&event.message) {
                found.push(json!({
                    "eventId": format!("{:056}", event.id),
                    "logStreamName": event.stream,
                    "timestamp": event.time_ms,
                    "ingestionTime": event.ingested_ms,
                    "message": event.message,
                }));
            }
        }
    }
    let mut answer = json!({"events": found, "searchedLogStreams": []});
    if let Some((time, id)) = next {
        answer["nextToken"] = format!("{time}:{id}").into();
    }
    Ok(answer)
}

fn get_log_events(cloud: &Cloud, call: &Call, request: &Value) -> Result<Value, AwsError> {
    let (group, stream) = (cloud.group_named(request)?, stream_named(request)?);
    let resource = cloud.stream_arn(&group, &stream);
    cloud.authorize(call, "logs:GetLogEvents", &resource, ConditionKeys::new())?;
    cloud.existing_group(&group)?;
    if !storage::has_stream(&cloud.store, &group, &stream).map_err(AwsError::internal)? {
        return Err(AwsError::bad_request("ResourceNotFoundException", "The specified log stream does not exist."));
    }
    let mut range = range(request);
    let mut newest_first = !request["startFromHead"].as_bool().unwrap_or(false);
    let token = token(request)?;
    match token.as_deref().map(|token| token.split_at_checked(2)) {
        None => {}
        Some(Some(("f/", token))) => {
            range.after = Some(position(token)?);
            newest_first = false;
        }
        Some(Some(("b/", token))) => {
            range.before = Some(position(token)?);
            newest_first = true;
        }
        Some(_) => return Err(bad_token()),
    }
    let limit = limit(request, 10_000)?;
    let page = Page { range, newest_first, limit };
    let mut events = storage::read(&cloud.store, &group, Some(&stream), page).map_err(AwsError::internal)?;
    if newest_first {
        events.reverse();
    }
    // At the end of a stream the same token comes back, as on AWS: that is how clients know.
    let place = |event: Option<&storage::Stored>, end: Option<(i64, i64)>| {
        let (time, id) = event.map(|event| (event.time_ms, event.id)).or(end).unwrap_or((0, 0));
        format!("{time}:{id}")
    };
    let end = range.after.or(range.before);
    Ok(json!({
        "nextForwardToken": format!("f/{}", place(events.last(), end)),
        "nextBackwardToken": format!("b/{}", place(events.first(), end)),
        "events": events.iter().map(|event| json!({
            "timestamp": event.time_ms,
            "ingestionTime": event.ingested_ms,
            "message": event.message,
        })).collect::<Vec<_>>(),
    }))
}

/// Filter patterns of plain terms: `a b` (all), `?a ?b` (any), `-a` (none), `"a phrase"`.
struct Pattern {
    all: Vec<String>,
    any: Vec<String>,
    none: Vec<String>,
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, AwsError> {
        let mut pattern = Self { all: vec![], any: vec![], none: vec![] };
        let mut rest = text.trim();
        if rest.starts_with(['{', '[', '%']) {
            return Err(invalid("Only filter patterns of plain terms are supported here"));
        }
        while !rest.is_empty() {
            let (terms, tail) = match rest.as_bytes()[0] {
                b'?' => (&mut pattern.any, &rest[1..]),
                b'-' => (&mut pattern.none, &rest[1..]),
                _ => (&mut pattern.all, rest),
            };
            let (term, after) = match tail.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"').ok_or_else(|| invalid("Invalid filter pattern"))?,
                None => tail.split_once(' ').unwrap_or((tail, "")),
            };
            terms.push(term.to_owned());
            rest = after.trim_start();
        }
        Ok(pattern)
    }

    fn matches(&self, message: &str) -> bool {
        let holds = |term: &String| message.contains(term.as_str());
        self.all.iter().all(holds)
            && (self.any.is_empty() || self.any.iter().any(holds))
            && !self.none.iter().any(holds)
    }
}

fn range(request: &Value) -> Range {
    Range {
        start_ms: request["startTime"].as_i64().unwrap_or(0),
        end_ms: request["endTime"].as_i64().unwrap_or(i64::MAX),
        after: None,
        before: None,
    }
}

fn position(token: &str) -> Result<(i64, i64), AwsError> {
    let parsed = token.split_once(':').and_then(|(time, id)| Some((time.parse().ok()?, id.parse().ok()?)));
    parsed.ok_or_else(bad_token)
}

fn token(request: &Value) -> Result<Option<String>, AwsError> {
    text(request, "nextToken")
}

fn limit(request: &Value, most: usize) -> Result<usize, AwsError> {
    match &request["limit"] {
        Value::Null => Ok(most),
        value => value
            .as_u64()
            .and_then(|limit| usize::try_from(limit).ok())
            .filter(|limit| (1..=most).contains(limit))
            .ok_or_else(|| invalid("limit is out of range")),
    }
}

fn stream_named(request: &Value) -> Result<String, AwsError> {
    text(request, "logStreamName")?
        .filter(|name| (1..=512).contains(&name.len()) && !name.contains([':', '*']))
        .ok_or_else(|| invalid("logStreamName is not a name of a log stream"))
}

fn text(request: &Value, member: &str) -> Result<Option<String>, AwsError> {
    match &request[member] {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.clone())),
        _ => Err(AwsError::bad_request("SerializationException", format!("{member} must be a string"))),
    }
}

fn invalid(message: &str) -> AwsError {
    AwsError::bad_request("InvalidParameterException", message)
}

fn bad_token() -> AwsError {
    invalid("The specified nextToken is invalid.")
}
