//! Lambda: functions are real executables under the Runtime API, one process for each concurrent execution.

mod code;
mod output;
mod pool;
mod process;
mod runtime_api;

use std::path::Path;
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::call::{Call, CognitoIdentity, ConditionKeys, Principal};
use crate::declared::{Asynchronous, Function};
use crate::error::AwsError;
use crate::{Cloud, CloudError};

pub(crate) use pool::{Pool, start};

/// The only version that there is.
const VERSION: &str = "$LATEST";
/// What a request may carry, and an asynchronous one.
const LARGEST_PAYLOAD: usize = 6 * 1024 * 1024;
const LARGEST_EVENT: usize = 1024 * 1024;
/// Of the header, still encoded.
const LARGEST_CLIENT_CONTEXT: usize = 3583;

/// Answers one call of the REST API.
pub(crate) async fn handle(cloud: &Arc<Cloud>, call: Call) -> Result<Response, AwsError> {
    let path = call.uri.path().to_owned();
    let path = path.strip_prefix("/2015-03-31/functions").unwrap_or_default();
    let steps: Vec<&str> = path.split('/').skip(1).collect();
    match (&call.method, steps.as_slice()) {
        (&Method::POST, [named, "invocations"]) => invoke(cloud, &call, named).await,
        (&Method::GET, [] | [""]) => list_functions(cloud, &call),
        (&Method::GET, [named]) => {
            let function = existing(cloud, &call, named, "lambda:GetFunction")?;
            let code = json!({"RepositoryType": "S3"});
            let configuration = configuration(cloud, &function);
            Ok(respond(&json!({"Configuration": configuration, "Code": code})))
        }
        (&Method::GET, [named, "configuration"]) => {
            let function = existing(cloud, &call, named, "lambda:GetFunctionConfiguration")?;
            Ok(respond(&configuration(cloud, &function)))
        }
        _ => Err(AwsError::new(StatusCode::NOT_FOUND, "UnknownOperationException", "")),
    }
}

/// One call of a function, as its process is told of it.
#[derive(Debug, Clone)]
struct Invocation {
    request_id: String,
    /// The function as the caller named it.
    arn: String,
    payload: Bytes,
    /// JSON in ASCII.
    client_context: Option<String>,
    identity: Option<CognitoIdentity>,
}

async fn invoke(cloud: &Arc<Cloud>, call: &Call, named: &str) -> Result<Response, AwsError> {
    let target = Target::of(cloud, call, named)?;
    cloud.authorize(call, "lambda:InvokeFunction", &target.arn, ConditionKeys::new())?;
    let function = target.existing(cloud)?;

    let header = |name: &str| text(&call.headers, name);
    let tail = match header("x-amz-log-type")? {
        None | Some("None") => false,
        Some("Tail") => true,
        Some(other) => {
            return Err(invalid("logType", other, "Member must satisfy enum value set: [None, Tail]"));
        }
    };
    let kind = header("x-amz-invocation-type")?.unwrap_or("RequestResponse");
    let largest = match kind {
        "RequestResponse" | "DryRun" => LARGEST_PAYLOAD,
        "Event" => LARGEST_EVENT,
        other => {
            return Err(AwsError::bad_request(
                "InvalidParameterValueException",
                format!("The invocation type {other} is not one of RequestResponse, Event and DryRun."),
            ));
        }
    };
    let payload = if call.body.is_empty() { Bytes::from_static(b"{}") } else { call.body.clone() };
    if payload.len() > largest {
        return Err(AwsError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestTooLargeException",
            format!("Request must be smaller than {largest} bytes for the InvokeFunction operation"),
        ));
    }
    if !is_json(&payload) {
        return Err(AwsError::bad_request(
            "InvalidRequestContentException",
            "Could not parse request body into json: the payload is not a JSON document in UTF-8",
        ));
    }
    let client_context = header("x-amz-client-context")?.map(client_context).transpose()?;
    let invocation = Invocation {
        request_id: call.request_id.clone(),
        arn: target.arn,
        payload,
        client_context,
        identity: match &call.principal {
            Principal::Role(session) => session.cognito.clone(),
            Principal::Admin | Principal::Anonymous => None,
        },
    };
    match kind {
        "DryRun" => Ok(StatusCode::NO_CONTENT.into_response()),
        "Event" => {
            pool::queue(cloud, &function, invocation)?;
            Ok(StatusCode::ACCEPTED.into_response())
        }
        _ => {
            let outcome = pool::invoke(cloud, &function.name, invocation).await?;
            let mut response = outcome.payload.into_response();
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.insert("x-amz-executed-version", HeaderValue::from_static(VERSION));
            if outcome.failed {
                headers.insert("x-amz-function-error", HeaderValue::from_static("Unhandled"));
            }
            if tail {
                let log = HeaderValue::from_str(&BASE64_STANDARD.encode(outcome.log_tail));
                headers.insert("x-amz-log-result", log.map_err(AwsError::internal)?);
            }
            Ok(response)
        }
    }
}

fn list_functions(cloud: &Cloud, call: &Call) -> Result<Response, AwsError> {
    cloud.authorize(call, "lambda:ListFunctions", "*", ConditionKeys::new())?;
    let functions = cloud.declared.all::<Function>();
    let functions: Vec<Value> = functions.iter().map(|function| configuration(cloud, function)).collect();
    Ok(respond(&json!({"Functions": functions})))
}

/// The function that a call names, once it is authorised.
fn existing(cloud: &Cloud, call: &Call, named: &str, action: &str) -> Result<Arc<Function>, AwsError> {
    let target = Target::of(cloud, call, named)?;
    cloud.authorize(call, action, &target.arn, ConditionKeys::new())?;
    target.existing(cloud)
}

fn configuration(cloud: &Cloud, function: &Function) -> Value {
    let bytes: Vec<u8> = (0..function.code_sha256.len() / 2)
        .filter_map(|at| u8::from_str_radix(function.code_sha256.get(2 * at..2 * at + 2)?, 16).ok())
        .collect();
    json!({
        "FunctionName": function.name,
        "FunctionArn": own_arn(cloud, &function.name),
        "Runtime": "provided.al2023",
        "Role": function.role_arn,
        "Handler": "bootstrap",
        "CodeSha256": BASE64_STANDARD.encode(bytes),
        "Timeout": function.timeout_seconds,
        "MemorySize": function.memory_mb,
        "Version": VERSION,
        "Environment": {"Variables": function.environment},
        "TracingConfig": {"Mode": "PassThrough"},
        "State": "Active",
        "LastUpdateStatus": "Successful",
        "PackageType": "Zip",
        "LoggingConfig": {"LogFormat": "Text", "LogGroup": function.log_group},
    })
}

/// A function as a call names it: by name, part of an ARN or ARN, each with a qualifier or without.
struct Target {
    /// What is authorised: with the qualifier, when there is one.
    arn: String,
    /// The function and its qualifier, unless they are of another account or region.
    own: Option<(String, Option<String>)>,
}

impl Target {
    fn of(cloud: &Cloud, call: &Call, named: &str) -> Result<Self, AwsError> {
        let unreadable = || invalid("functionName", named, "Member must be a name or an ARN of a function");
        let decoded = percent_decoded(named).ok_or_else(unreadable)?;
        let parts: Vec<&str> = decoded.split(':').collect();
        let (region, account) = (cloud.options.region.as_str(), cloud.options.account.as_str());
        let (place, name, within) = match parts.as_slice() {
            ["arn", "aws", "lambda", region, account, "function", name] => ((*region, *account), *name, None),
            ["arn", "aws", "lambda", region, account, "function", name, qualifier] => {
                ((*region, *account), *name, Some(*qualifier))
            }
            [account, "function", name] => ((region, *account), *name, None),
            [account, "function", name, qualifier] => ((region, *account), *name, Some(*qualifier)),
            [name] => ((region, account), *name, None),
            [name, qualifier] => ((region, account), *name, Some(*qualifier)),
            _ => return Err(unreadable()),
        };
        let word = |text: &str, more: &str, longest: usize| {
            let plain = |c: char| c.is_ascii_alphanumeric() || more.contains(c);
            (1..=longest).contains(&text.len()) && text.chars().all(plain)
        };
        if !word(name, "-_", 64) || !word(place.0, "-", 32) || !word(place.1, "", 12) {
            return Err(unreadable());
        }
        let query = call.uri.query().unwrap_or_default();
        let mut asked: Option<String> = None;
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            if key == "Qualifier" && asked.replace(value.clone().into_owned()).is_some() {
                return Err(invalid("qualifier", &value, "Member must be given once"));
            }
        }
        let qualifier = match (within, asked.as_deref()) {
            (Some(within), Some(asked)) if within != asked => {
                return Err(AwsError::bad_request(
                    "InvalidParameterValueException",
                    "The derived qualifier from the function name does not match the specified qualifier.",
                ));
            }
            (within, asked) => within.or(asked),
        };
        if let Some(qualifier) = qualifier
            && !word(qualifier, "-_$", 128)
        {
            return Err(invalid(
                "qualifier",
                qualifier,
                "Member must satisfy regular expression pattern: [a-zA-Z0-9$_-]+",
            ));
        }
        let suffix = qualifier.map(|qualifier| format!(":{qualifier}")).unwrap_or_default();
        Ok(Self {
            arn: format!("arn:aws:lambda:{}:{}:function:{name}{suffix}", place.0, place.1),
            own: (place == (region, account)).then(|| (name.to_owned(), qualifier.map(str::to_owned))),
        })
    }

    fn existing(&self, cloud: &Cloud) -> Result<Arc<Function>, AwsError> {
        let found = match &self.own {
            Some((name, None)) => cloud.declared.get::<Function>(name),
            Some((name, Some(qualifier))) if qualifier == VERSION => cloud.declared.get::<Function>(name),
            _ => None,
        };
        found.ok_or_else(|| {
            AwsError::new(
                StatusCode::NOT_FOUND,
                "ResourceNotFoundException",
                format!("Function not found: {}", self.arn),
            )
        })
    }
}

impl Cloud {
    /// Makes or changes a function; its code is copied from `executable`. Calls that run end as they began, later ones
    /// run the new code with the new settings. What [`Cloud::set_asynchronous`] set on a present function stays.
    ///
    /// # Errors
    /// [`CloudError::Declaration`] when the executable is not the declared one, or a setting makes no sense.
    pub fn put_function(&self, mut function: Function, executable: &Path) -> Result<(), CloudError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        if !(1..=64).contains(&function.name.len()) || !function.name.chars().all(plain) {
            return Err(CloudError::Declaration(format!("{:?} is not a name of a function.", function.name)));
        }
        if !(1..=900).contains(&function.timeout_seconds) || !(128..=10_240).contains(&function.memory_mb) {
            return Err(CloudError::Declaration(format!(
                "{}: a timeout is 1 to 900 seconds, a memory size 128 to 10240 MB.",
                function.name
            )));
        }
        if let Some(present) = self.get_function(&function.name) {
            function.asynchronous = present.asynchronous;
        }
        let name = function.name.clone();
        self.lambda.change_code(self, |code| {
            code.keep(executable, &function.code_sha256)?;
            self.declared.put(&self.store, function)
        })?;
        self.lambda.retire(self, &name);
        Ok(())
    }

    /// Says what happens to asynchronous calls of a function; `None` is AWS's default.
    ///
    /// # Errors
    /// [`CloudError::Declaration`] when there is no such function.
    pub fn set_asynchronous(&self, function: &str, asynchronous: Option<Asynchronous>) -> Result<(), CloudError> {
        match (self.get_function(function), asynchronous) {
            (Some(present), asynchronous) => {
                let asynchronous = asynchronous.unwrap_or_default();
                self.declared.put(&self.store, Function { asynchronous, ..(*present).clone() })
            }
            (None, None) => Ok(()),
            (None, Some(_)) => Err(CloudError::Declaration(format!("There is no function {function}."))),
        }
    }

    /// Deletes a function; one that is not there counts as deleted.
    ///
    /// # Errors
    /// [`CloudError`] when the store fails.
    pub fn delete_function(&self, name: &str) -> Result<(), CloudError> {
        self.lambda.change_code(self, |_| self.declared.delete::<Function>(&self.store, name))?;
        self.lambda.retire(self, name);
        Ok(())
    }

    /// The function as it was declared last.
    pub fn get_function(&self, name: &str) -> Option<Arc<Function>> {
        self.declared.get(name)
    }
}

fn own_arn(cloud: &Cloud, name: &str) -> String {
    format!("arn:aws:lambda:{}:{}:function:{name}", cloud.options.region, cloud.options.account)
}

/// The JSON object that a client sends along, in ASCII: the process gets it in a header.
fn client_context(header: &str) -> Result<String, AwsError> {
    let refused = |message| AwsError::bad_request("InvalidRequestContentException", message);
    if header.len() > LARGEST_CLIENT_CONTEXT {
        return Err(refused("Client context must be at most 3583 bytes."));
    }
    let value = BASE64_STANDARD
        .decode(header)
        .ok()
        .and_then(|json| serde_json::from_slice::<Value>(&json).ok())
        .filter(Value::is_object)
        .ok_or_else(|| refused("Client context must be a valid Base64-encoded JSON object."))?;
    let mut ascii = String::new();
    for c in value.to_string().chars() {
        if c.is_ascii() && c != '\u{7f}' {
            ascii.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                ascii.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    Ok(ascii)
}

fn is_json(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, AwsError> {
    let value = headers.get(name).map(HeaderValue::to_str).transpose();
    value.map_err(|_| AwsError::bad_request("InvalidParameterValueException", format!("{name} is not ASCII")))
}

fn invalid(member: &str, value: &str, constraint: &str) -> AwsError {
    AwsError::bad_request(
        "ValidationException",
        format!(
            "1 validation error detected: Value '{value}' at '{member}' failed to satisfy constraint: {constraint}"
        ),
    )
}

fn respond(body: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

#[cfg(test)]
mod tests;
