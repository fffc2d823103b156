//! Through a real executable (`examples/probe.rs`) that does what its event says.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::*;
use crate::declared::LogGroup;
use crate::events::Event;
use crate::test_cloud::{self, ACCOUNT, REGION, TestCloud, member, session};

const FUNCTION: &str = "arn:aws:lambda:eu-west-1:000000000000:function:probe";

struct Reply {
    status: StatusCode,
    error: Option<String>,
    body: Value,
    tail: String,
}

struct World(TestCloud);

impl World {
    /// A cloud with the function `probe`, whose role may write its log.
    fn new() -> Self {
        let world = Self(TestCloud::new());
        let log = format!("arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/lambda/probe:*");
        let statements = json!([{
            "Effect": "Allow", "Action": ["logs:CreateLogStream", "logs:PutLogEvents"], "Resource": log,
        }]);
        world.0.role("probe", &statements);
        let group = LogGroup { name: "/aws/lambda/probe".to_owned(), retention_days: Some(1) };
        world.0.cloud.put_log_group(group).expect("a log group");
        world.put(|_| {});
        world
    }

    /// Declares the function again, with a change.
    fn put(&self, change: impl FnOnce(&mut Function)) {
        let executable = probe();
        let bytes = std::fs::read(&executable).expect("the probe");
        let hash = Sha256::digest(&bytes);
        let mut function = Function {
            name: "probe".to_owned(),
            role_arn: format!("arn:aws:iam::{ACCOUNT}:role/probe"),
            memory_mb: 128,
            timeout_seconds: 5,
            environment: BTreeMap::from([("SETTING".to_owned(), "1".to_owned())]),
            log_group: "/aws/lambda/probe".to_owned(),
            reserved_concurrency: None,
            code_sha256: hash.iter().map(|byte| format!("{byte:02x}")).collect(),
            asynchronous: Asynchronous { maximum_retry_attempts: 0, maximum_event_age_seconds: 60 },
        };
        change(&mut function);
        self.0.cloud.put_function(function, &executable).expect("a function");
    }

    async fn call(&self, principal: Principal, named: &str, headers: &[(&str, &str)], event: &[u8]) -> Reply {
        let uri = format!("/2015-03-31/functions/{named}");
        let call = test_cloud::call(principal, Method::POST, &uri, headers, event);
        match handle(&self.0.cloud, call).await {
            Err(error) => Reply {
                status: error.status,
                error: Some(error.code.to_owned()),
                body: error.message.into(),
                tail: String::new(),
            },
            Ok(response) => {
                let header = |name: &str| text(response.headers(), name).expect("ASCII").map(str::to_owned);
                let tail = BASE64_STANDARD.decode(header("x-amz-log-result").unwrap_or_default()).expect("base64");
                let (status, error) = (response.status(), header("x-amz-function-error"));
                let body = test_cloud::body(response).await;
                Reply {
                    status,
                    error,
                    body: serde_json::from_slice(&body).unwrap_or_default(),
                    tail: String::from_utf8(tail).expect("UTF-8"),
                }
            }
        }
    }

    async fn invoke(&self, event: Value) -> Reply {
        let tail = [("x-amz-log-type", "Tail")];
        self.call(Principal::Admin, "probe/invocations", &tail, event.to_string().as_bytes()).await
    }

    async fn pid(&self) -> u64 {
        let reply = self.invoke(json!({"do": "pid"})).await;
        reply.body.as_u64().unwrap_or_else(|| panic!("{}", reply.body))
    }
}

fn probe() -> PathBuf {
    let test = std::env::current_exe().expect("this test");
    test.ancestors().nth(2).expect("the target folder").join("examples/probe")
}

#[tokio::test]
async fn a_process_is_started_once_and_serves_many_calls() {
    let world = World::new();
    let first = world.invoke(json!({"do": "pid"})).await;
    assert_eq!((first.status, &first.error), (StatusCode::OK, &None), "{}", first.body);
    assert!(first.tail.contains("Init Duration"), "{}", first.tail);
    let second = world.invoke(json!({"do": "pid"})).await;
    assert_eq!(first.body, second.body);
    assert!(!second.tail.contains("Init Duration"), "{}", second.tail);
    if cfg!(target_os = "linux") {
        assert!(!second.tail.contains("Max Memory Used: 0 MB"), "{}", second.tail);
    }
}

#[tokio::test]
async fn the_tail_holds_the_lines_of_this_call_and_no_other() {
    let world = World::new();
    for at in 0..20 {
        let reply = world.invoke(json!({"do": "print", "lines": [format!("first {at}"), "zweite Zeile ß"]})).await;
        let lines: Vec<&str> = reply.tail.lines().collect();
        assert_eq!(lines.len(), 5, "{}", reply.tail);
        assert!(lines[0].starts_with("START RequestId: 0000") && lines[0].ends_with(" Version: $LATEST"));
        assert_eq!(lines[1..3], [format!("first {at}").as_str(), "zweite Zeile ß"]);
        assert!(lines[3].starts_with("END RequestId: ") && lines[4].starts_with("REPORT RequestId: "));
    }
    let long = world.invoke(json!({"do": "print", "lines": vec!["x".repeat(1000); 500]})).await;
    assert_eq!(long.tail.len(), 4096);
}

#[tokio::test]
async fn whatever_a_function_does_the_next_call_works() {
    let world = World::new();
    world.put(|function| function.timeout_seconds = 1);
    let pid = world.pid().await;

    let failed = world.invoke(json!({"do": "error"})).await;
    assert_eq!(failed.error.as_deref(), Some("Unhandled"));
    assert_eq!(failed.body["errorMessage"], "as asked");
    let panicked = world.invoke(json!({"do": "panic"})).await;
    assert_eq!(panicked.error.as_deref(), Some("Unhandled"));
    let large = world.invoke(json!({"do": "big", "bytes": 6_291_557})).await;
    assert_eq!(large.error.as_deref(), Some("Unhandled"));
    assert_eq!(large.body["errorType"], "Function.ResponseSizeTooLarge");
    assert_eq!(world.pid().await, pid, "none of these ended the process");
    let largest = world.invoke(json!({"do": "big", "bytes": 6_291_554})).await;
    assert_eq!(largest.error, None);

    let exited = world.invoke(json!({"do": "exit", "code": 3})).await;
    assert_eq!(exited.error.as_deref(), Some("Unhandled"));
    assert_eq!(exited.body["errorType"], "Runtime.ExitError");
    let message = exited.body["errorMessage"].as_str().unwrap_or_default();
    assert!(message.ends_with("Error: Runtime exited with error: exit status 3"), "{message}");
    let second = world.pid().await;
    assert_ne!(second, pid);

    let slow = world.invoke(json!({"do": "sleep", "ms": 5000})).await;
    assert_eq!(slow.body["errorType"], "Sandbox.Timedout");
    let message = slow.body["errorMessage"].as_str().unwrap_or_default();
    assert!(message.ends_with("Error: Task timed out after 1.00 seconds"), "{message}");
    assert!(slow.tail.contains("Status: timeout"));
    assert_ne!(world.pid().await, second);

    let errors: Vec<Option<String>> = world
        .0
        .events()
        .into_iter()
        .filter_map(|event| match event {
            Event::Invocation { error, .. } => Some(error),
            _ => None,
        })
        .filter(Option::is_some)
        .collect();
    assert_eq!(
        errors.into_iter().flatten().collect::<Vec<_>>(),
        ["Unhandled", "Unhandled", "Unhandled", "Exit", "Timeout"]
    );
}

#[tokio::test]
async fn a_process_that_dies_while_idle_or_at_its_start_is_replaced() {
    let world = World::new();
    let pid = world.pid().await;
    std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().expect("kill");
    // A signal takes its time; an event given to a process that dies with it is not given to another one.
    let state = || {
        let ps = std::process::Command::new("ps").args(["-o", "stat=", "-p", &pid.to_string()]).output();
        String::from_utf8(ps.expect("ps").stdout).expect("ASCII")
    };
    while !matches!(state().trim_start().bytes().next(), None | Some(b'Z')) {}
    assert_ne!(world.pid().await, pid);

    world.put(|function| _ = function.environment.insert("PROBE_INIT".to_owned(), "exit".to_owned()));
    let reply = world.invoke(json!({"do": "pid"})).await;
    assert_eq!(reply.body["errorType"], "Runtime.ExitError", "{}", reply.body);
    world.put(|_| {});
    world.pid().await;
}

#[tokio::test]
async fn a_process_sees_its_own_environment_only() {
    let world = World::new();
    let reply = world.invoke(json!({"do": "env"})).await;
    let names: Vec<&str> = reply.body.as_object().expect("names").keys().map(String::as_str).collect();
    let expected = [
        "AWS_ACCESS_KEY_ID",
        "AWS_DEFAULT_REGION",
        "AWS_ENDPOINT_URL",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
        "AWS_LAMBDA_FUNCTION_NAME",
        "AWS_LAMBDA_FUNCTION_VERSION",
        "AWS_LAMBDA_INITIALIZATION_TYPE",
        "AWS_LAMBDA_LOG_GROUP_NAME",
        "AWS_LAMBDA_LOG_STREAM_NAME",
        "AWS_LAMBDA_RUNTIME_API",
        "AWS_REGION",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "LAMBDA_RUNTIME_DIR",
        "LAMBDA_TASK_ROOT",
        "LANG",
        "PATH",
        "SETTING",
        "TZ",
        "_HANDLER",
    ];
    let unexpected: Vec<&&str> =
        names.iter().filter(|name| !expected.contains(name) && **name != "_X_AMZN_TRACE_ID").collect();
    assert!(unexpected.is_empty(), "{unexpected:?}");
    assert!(expected.iter().all(|name| names.contains(name)), "{names:?}");
}

#[tokio::test]
async fn the_identity_and_the_client_context_of_the_caller_arrive() {
    let world = World::new();
    let statements = json!([{"Effect": "Allow", "Action": "lambda:InvokeFunction", "Resource": FUNCTION}]);
    world.0.role("member", &statements);
    let event = json!({"do": "context"}).to_string();
    let reply = world.call(member("member"), "probe/invocations", &[], event.as_bytes()).await;
    assert_eq!(
        reply.body["identity"]["identityPoolId"], "eu-west-1:00000000-0000-4000-8000-000000000002",
        "{}",
        reply.body
    );
    assert_eq!(reply.body["arn"], FUNCTION);
    let role = Principal::Role(session("member"));
    let reply = world.call(role, "probe/invocations", &[], event.as_bytes()).await;
    assert_eq!((reply.error, &reply.body["identity"]), (None, &Value::Null));

    let context = BASE64_STANDARD.encode("{\"custom\": {\"k\": \"ü\\n🦀\"}}");
    let headers = [("x-amz-client-context", context.as_str())];
    let reply = world.call(Principal::Admin, "probe/invocations", &headers, event.as_bytes()).await;
    assert_eq!(reply.body["custom"]["k"], "ü\n🦀", "{}", reply.body);

    let hostile = BASE64_STANDARD.encode("{\"custom\": {\"k\": [1]}}");
    let headers = [("x-amz-client-context", hostile.as_str())];
    world.call(Principal::Admin, "probe/invocations", &headers, event.as_bytes()).await;
    world.pid().await;
    let long = BASE64_STANDARD.encode(format!("{{\"custom\": {{\"k\": \"{}\"}}}}", "x".repeat(3000)));
    for context in ["not base64", &BASE64_STANDARD.encode("[1]"), &BASE64_STANDARD.encode("{"), &long] {
        let headers = [("x-amz-client-context", context)];
        let reply = world.call(Principal::Admin, "probe/invocations", &headers, event.as_bytes()).await;
        assert_eq!((reply.status.as_u16(), reply.error.as_deref()), (400, Some("InvalidRequestContentException")));
    }
}

#[tokio::test]
async fn a_qualified_call_needs_a_qualified_grant() {
    let world = World::new();
    world.0.role("bare", &json!([{"Effect": "Allow", "Action": "lambda:InvokeFunction", "Resource": FUNCTION}]));
    let qualified = format!("{FUNCTION}:$LATEST");
    world.0.role("qualified", &json!([{"Effect": "Allow", "Action": "lambda:InvokeFunction", "Resource": qualified}]));
    let arn = FUNCTION.replace(':', "%3A");
    for (named, with_qualifier) in [
        ("probe/invocations", false),
        (&format!("{arn}/invocations"), false),
        ("000000000000:function:probe/invocations", false),
        ("probe:$LATEST/invocations", true),
        ("probe%3A%24LATEST/invocations", true),
        ("probe/invocations?Qualifier=$LATEST", true),
        ("probe/invocations?Qualifier=%24LATEST", true),
        (&format!("{arn}:$LATEST/invocations"), true),
    ] {
        for (role, granted) in [("bare", !with_qualifier), ("qualified", with_qualifier)] {
            let reply = world.call(Principal::Role(session(role)), named, &[], b"{\"do\": \"pid\"}").await;
            let expected = if granted { 200 } else { 403 };
            assert_eq!(reply.status.as_u16(), expected, "{role} {named} {}", reply.body);
        }
    }
    for (named, expected) in [
        ("probe:v1/invocations", "ResourceNotFoundException"),
        ("absent/invocations", "ResourceNotFoundException"),
        ("probe:a/invocations?Qualifier=b", "InvalidParameterValueException"),
        ("pro*be/invocations", "ValidationException"),
        ("arn%3Aaws%3Alambda%3Aus-east-1%3A000000000000%3Afunction%3Aprobe/invocations", "ResourceNotFoundException"),
    ] {
        let reply = world.call(Principal::Admin, named, &[], b"{}").await;
        assert_eq!(reply.error.as_deref(), Some(expected), "{named}");
    }
    // Who may not call is not told what exists.
    let reply = world.call(Principal::Role(session("bare")), "absent/invocations", &[], b"{}").await;
    assert_eq!(reply.status.as_u16(), 403);
}

#[tokio::test]
async fn requests_that_make_no_sense_are_refused_as_on_aws() {
    let world = World::new();
    for (headers, body, status, code) in [
        (&[("x-amz-invocation-type", "Sometimes")][..], &b"{}"[..], 400, "InvalidParameterValueException"),
        (&[("x-amz-log-type", "Head")], b"{}", 400, "ValidationException"),
        (&[], b"{", 400, "InvalidRequestContentException"),
        (&[], b"\"\xff\"", 400, "InvalidRequestContentException"),
        (&[], &[b'1'; LARGEST_PAYLOAD + 1], 413, "RequestTooLargeException"),
        (&[("x-amz-invocation-type", "Event")], &[b'1'; LARGEST_EVENT + 1], 413, "RequestTooLargeException"),
    ] {
        let reply = world.call(Principal::Admin, "probe/invocations", headers, body).await;
        assert_eq!((reply.status.as_u16(), reply.error.as_deref()), (status, Some(code)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_calls_have_a_process_each_within_the_limit() {
    let world = World::new();
    let slow = || world.invoke(json!({"do": "sleep", "ms": 300}));
    let (a, b, c) = tokio::join!(slow(), slow(), slow());
    let mut pids = [a.body.as_u64(), b.body.as_u64(), c.body.as_u64()];
    pids.sort_unstable();
    assert!(pids[0].is_some() && pids[0] < pids[1] && pids[1] < pids[2], "{pids:?}");

    world.put(|function| function.reserved_concurrency = Some(1));
    let (a, b) = tokio::join!(slow(), slow());
    let mut statuses = [a.status.as_u16(), b.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 429]);
    for _ in 0..20 {
        world.pid().await;
    }
}

#[tokio::test]
async fn events_run_later_and_dry_runs_never() {
    let world = World::new();
    let file = std::env::temp_dir().join(format!("probe-{}", std::process::id()));
    let event = json!({"do": "touch", "file": file}).to_string();
    let dry = [("x-amz-invocation-type", "DryRun")];
    let reply = world.call(Principal::Admin, "probe/invocations", &dry, event.as_bytes()).await;
    assert_eq!(reply.status, StatusCode::NO_CONTENT);
    assert!(!file.exists());
    let later = [("x-amz-invocation-type", "Event")];
    let reply = world.call(Principal::Admin, "probe/invocations", &later, event.as_bytes()).await;
    assert_eq!(reply.status, StatusCode::ACCEPTED);
    for _ in 0..500 {
        if file.exists() {
            std::fs::remove_file(file).expect("the file");
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the event never ran");
}

#[tokio::test]
async fn a_change_replaces_the_processes_and_unused_code_goes() {
    let world = World::new();
    let pid = world.pid().await;
    world.put(|_| {});
    assert_eq!(world.pid().await, pid, "nothing changed");
    let asynchronous = Asynchronous { maximum_retry_attempts: 1, maximum_event_age_seconds: 61 };
    world.0.cloud.set_asynchronous("probe", Some(asynchronous)).expect("a change");
    world.put(|_| {});
    assert_eq!(world.0.cloud.get_function("probe").map(|function| function.asynchronous), Some(asynchronous));
    assert_eq!(world.pid().await, pid, "a rule for events is nothing to a process");
    world.put(|function| _ = function.environment.insert("SETTING".to_owned(), "2".to_owned()));
    assert_ne!(world.pid().await, pid);

    let code = || std::fs::read_dir(&world.0.cloud.lambda.code.root).expect("a folder").count();
    let changed = std::env::temp_dir().join(format!("probe-changed-{}", std::process::id()));
    let mut bytes = std::fs::read(probe()).expect("the probe");
    bytes.push(0);
    std::fs::write(&changed, &bytes).expect("a file");
    let mut function = (*world.0.cloud.get_function("probe").expect("a function")).clone();
    let before = function.code_sha256.clone();
    function.code_sha256 = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(world.0.cloud.put_function(function.clone(), &probe()).is_err(), "not the declared code");
    assert_eq!(world.0.cloud.get_function("probe").map(|present| present.code_sha256.clone()), Some(before));
    world.0.cloud.put_function(function, &changed).expect("a change");
    assert_eq!(code(), 1);
    world.pid().await;
    world.0.cloud.delete_function("probe").expect("a deletion");
    assert_eq!(code(), 0);
    let reply = world.invoke(json!({"do": "pid"})).await;
    assert_eq!(reply.error.as_deref(), Some("ResourceNotFoundException"));
    std::fs::remove_file(changed).expect("the file");
}

#[tokio::test]
async fn the_log_is_written_as_the_role_of_the_function() {
    let world = World::new();
    world.invoke(json!({"do": "print", "lines": ["hello from the probe"]})).await;
    let read = async || {
        let request = json!({"logGroupName": "/aws/lambda/probe", "filterPattern": "probe -REPORT"}).to_string();
        let headers = [("x-amz-target", "Logs_20140328.FilterLogEvents")];
        let call = test_cloud::call(Principal::Admin, Method::POST, "/", &headers, request.as_bytes());
        test_cloud::json_body(crate::logs::handle(&world.0.cloud, call).await.expect("a reply")).await
    };
    let found = read().await;
    assert_eq!(found["events"].as_array().map(Vec::len), Some(1), "{found}");
    assert_eq!(found["events"][0]["message"], "hello from the probe");
    let decisions = world.0.decisions();
    let of = |action: &str| decisions.iter().filter(|(found, _, allowed)| found == action && *allowed).count();
    assert_eq!((of("logs:CreateLogStream"), of("logs:PutLogEvents")), (1, 1));

    world.0.role("probe", &json!([{"Effect": "Deny", "Action": "logs:*", "Resource": "*"}]));
    world.invoke(json!({"do": "print", "lines": ["a lost probe"]})).await;
    assert_eq!(read().await["events"].as_array().map(Vec::len), Some(1));
    assert!(world.0.decisions().iter().any(|(action, _, allowed)| action == "logs:PutLogEvents" && !allowed));
}

#[tokio::test]
async fn a_role_that_lambda_may_not_take_starts_nothing() {
    let world = World::new();
    world.put(|function| function.role_arn = format!("arn:aws:iam::{ACCOUNT}:role/absent"));
    let reply = world.invoke(json!({"do": "pid"})).await;
    assert_eq!(reply.error.as_deref(), Some("AccessDeniedException"), "{}", reply.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_process_outlives_the_cloud() {
    let world = World::new();
    let idle = world.pid().await;
    let cloud = world.0.cloud.clone();
    let running = tokio::spawn(async move {
        let event = json!({"do": "sleep", "ms": 60_000}).to_string();
        let call = test_cloud::call(
            Principal::Admin,
            Method::POST,
            "/2015-03-31/functions/probe/invocations",
            &[],
            event.as_bytes(),
        );
        handle(&cloud, call).await.map(|response| response.status())
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    world.put(|function| function.timeout_seconds = 900);
    world.0.cloud.lambda.shutdown().await;
    let ended = running.await.expect("a task");
    assert!(ended.is_err_and(|error| error.code == "ServiceException"));
    let alive = std::process::Command::new("kill").args(["-0", &idle.to_string()]).output().expect("kill");
    assert!(!alive.status.success());
}
