//! The numbers that DESIGN.md holds, measured: see `scripts/bench --help`. Nothing here asserts a time.

#[expect(dead_code, reason = "the tests use the rest of it")]
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use auth::login::{attempt, challenge, logged_in};
use auth::password::Password;
use auth::scram::{StageKey, Verifier};
use auth::settings::{Limits, Settings};
use auth::user::{EMAIL, Pending, RESET_TOKEN, UNVERIFIED, Unverified, User, Value};
use auth::{Email, Function, Seconds, Token, event};
use aws_sdk_dynamodb::types::AttributeValue;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::IntoResponse;
use axum::{Router, routing};
use serde_json::{Value as Json, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto::ring};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use world::{Exchange, NEW_PASSWORD, PASSWORD, World};

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let is_quick = arguments.iter().any(|argument| argument == "--quick");
    let arm64 = arguments.iter().find_map(|argument| argument.strip_prefix("--arm64=")).map(PathBuf::from);

    let mut table = Table::default();
    table.part("the functions", functions(is_quick)).await;
    table.part("the CPU of a login", async { login_cpu() }).await;
    table.part("PBKDF2", pbkdf2(is_quick)).await;
    table.part("the packages", async move { packages(arm64.as_deref()) }).await;
    table.part("a stage", stage(is_quick)).await;
    table.print();
    if table.has_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

#[derive(Default)]
struct Table {
    rows: Vec<Row>,
    has_failed: bool,
}

struct Row {
    what: String,
    figure: String,
    limit: String,
    verdict: &'static str,
}

impl Row {
    /// A figure and what DESIGN.md allows; the unit stands behind both.
    fn new(what: impl Into<String>, figure: f64, unit: &str, limit: Option<f64>) -> Row {
        let written = |number: f64| match number {
            number if number >= 100.0 || number.fract() == 0.0 => format!("{number:.0} {unit}"),
            number if number >= 10.0 => format!("{number:.1} {unit}"),
            number => format!("{number:.2} {unit}"),
        };
        Row {
            what: what.into(),
            figure: written(figure),
            limit: limit.map_or("-".to_owned(), |limit| format!("{limit} {unit}").trim_end().to_owned()),
            verdict: limit.map_or("", |limit| if figure <= limit { "ok" } else { "over" }),
        }
    }

    fn not_measured(what: impl Into<String>, why: &str) -> Row {
        Row { what: what.into(), figure: "not measured".to_owned(), limit: why.to_owned(), verdict: "" }
    }
}

impl Table {
    /// A part that fails leaves the others alone.
    async fn part(&mut self, what: &'static str, measure: impl Future<Output = Vec<Row>> + Send + 'static) {
        say(&format!("measuring {what}"));
        match tokio::spawn(measure).await {
            Ok(rows) => self.rows.extend(rows),
            Err(_) => {
                self.has_failed = true;
                self.rows.push(Row::not_measured(what, "failed: see above"));
            }
        }
    }

    fn print(&self) {
        let longest = |column: fn(&Row) -> &str| self.rows.iter().map(|row| column(row).len()).max().unwrap_or(0);
        let (what, figure) = (longest(|row| &row.what), longest(|row| &row.figure));
        let limit = longest(|row| &row.limit);
        let mut lines = format!("\n{:what$}  {:>figure$}  {:limit$}\n", "what", "figure", "at most");
        for row in &self.rows {
            let line = format!("{:what$}  {:>figure$}  {:limit$}  {}", row.what, row.figure, row.limit, row.verdict);
            lines.push_str(line.trim_end());
            lines.push('\n');
        }
        let _ = std::io::stdout().write_all(lines.as_bytes());
    }
}

fn say(progress: &str) {
    let _ = writeln!(std::io::stderr(), "== {progress}");
}

// The functions as processes: a Runtime API on one side, AWS behind TLS on the other.

/// One way through a function.
struct Case {
    what: &'static str,
    function: Function,
    event: fn(&Accounts) -> Json,
    /// What the reply of the whole way holds.
    answer: &'static str,
    warm_calls: usize,
}

const CASES: [Case; 7] = [
    Case {
        what: "createUser",
        function: Function::CreateUser,
        event: |_| json!({"email": "stranger@example.com", "password": PASSWORD}),
        answer: r#"{"created":true}"#,
        warm_calls: 10,
    },
    Case {
        what: "verifyUser",
        function: Function::VerifyUser,
        event: |accounts| json!({"token": accounts.verification.as_str()}),
        answer: r#"{"verified":true}"#,
        warm_calls: 200,
    },
    Case {
        what: "login, clientFirst",
        function: Function::Login,
        event: |accounts| accounts.exchange().client_first(),
        answer: r#"{"serverFirst":"r="#,
        warm_calls: 200,
    },
    Case {
        what: "login, clientFinal",
        function: Function::Login,
        event: |accounts| accounts.exchange().client_final(PASSWORD),
        answer: r#"{"login":true"#,
        warm_calls: 200,
    },
    Case {
        what: "changePassword",
        function: Function::ChangePassword,
        event: |_| json!({"email": OWNER, "oldPassword": PASSWORD, "newPassword": NEW_PASSWORD}),
        answer: r#"{"changed":true}"#,
        warm_calls: 5,
    },
    Case {
        what: "lostPassword",
        function: Function::LostPassword,
        event: |_| json!({"email": OWNER}),
        answer: r#"{"sent":true}"#,
        warm_calls: 200,
    },
    Case {
        what: "resetPassword",
        function: Function::ResetPassword,
        event: |accounts| json!({"resetToken": accounts.reset.as_str(), "password": NEW_PASSWORD}),
        answer: r#"{"changed":true}"#,
        warm_calls: 10,
    },
];

async fn functions(is_quick: bool) -> Vec<Row> {
    let aws = Aws::start().await;
    let mut rows = Vec::new();
    for case in &CASES {
        say(case.what);
        let (processes, warm_calls) = if is_quick { (3, case.warm_calls.min(20)) } else { (9, case.warm_calls) };
        let (mut first, mut warm, mut peak, mut cpu) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for _ in 0..processes {
            let mut process = Process::start(case.function, &aws, Limits::default().iterations).await;
            process.call(case, &aws.accounts).await;
            first.push(milliseconds(process.replied - process.started));
            let cpu_before = process.cpu();
            for _ in 0..warm_calls {
                warm.push(milliseconds(process.call(case, &aws.accounts).await));
            }
            cpu.push(milliseconds(process.cpu() - cpu_before) / warm_calls as f64);
            peak.push(process.peak_mib());
        }
        let of = |what: &str| format!("{}: {what}", case.what);
        let is_login = case.function == Function::Login;
        let peak_limit = if is_login { Some(10.0) } else { is_judging(case.function).then_some(24.0) };
        let first_limit = (case.what == "login, clientFirst").then_some(6.0);
        rows.push(Row::new(of("init + first call"), median(first), "ms", first_limit));
        rows.push(Row::new(of("warm p50"), median(warm), "ms", None));
        rows.push(Row::new(of("CPU of a warm call, the SDK and TLS too"), median(cpu), "ms", None));
        rows.push(Row::new(of("peak memory"), median(peak), "MiB", peak_limit));
    }
    rows
}

fn is_judging(function: Function) -> bool {
    matches!(function, Function::CreateUser | Function::ChangePassword | Function::ResetPassword)
}

/// A function's process, and the Runtime API that it asks for its invocations.
struct Process {
    child: Child,
    started: Instant,
    /// When the last reply came.
    replied: Instant,
    events: mpsc::Sender<Vec<u8>>,
    replies: mpsc::Receiver<Reply>,
    server: JoinHandle<()>,
}

/// What a function posted, when, and when it had been given its event.
struct Reply {
    given: Instant,
    replied: Instant,
    path: String,
    body: String,
}

/// What the handlers of the Runtime API share.
struct Invocations {
    events: Mutex<mpsc::Receiver<Vec<u8>>>,
    given: Mutex<Instant>,
    replies: mpsc::Sender<Reply>,
}

impl Process {
    async fn start(function: Function, aws: &Aws, iterations: u64) -> Process {
        let (events, events_here) = mpsc::channel(1);
        let (replies_here, replies) = mpsc::channel(1);
        let started = Instant::now();
        let invocations =
            Invocations { events: Mutex::new(events_here), given: Mutex::new(started), replies: replies_here };
        let api = Router::new()
            .route("/2018-06-01/runtime/invocation/next", routing::get(next))
            .fallback(reply)
            .with_state(Arc::new(invocations));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let server = tokio::spawn(async move { axum::serve(listener, api).await.expect("the Runtime API serves") });

        // Without the floor under createUser and lostPassword, which would hide their time.
        let limits = Limits { iterations, answer_after_ms: 0, ..Limits::default() };
        let settings = Settings {
            users_table: "users".to_owned(),
            identity_pool_id: POOL.to_owned(),
            developer_provider: "login.bench".to_owned(),
            sender: "portcullis@example.com".to_owned(),
            site_url: "https://site.example".to_owned(),
            challenge_key: CHALLENGE_KEY.to_owned(),
            limits,
        };
        let mut command = Command::new(executables().join(function.binary()));
        command.env_clear().envs(settings.to_env(function)).stdin(Stdio::null()).stdout(Stdio::null());
        command.env("AWS_LAMBDA_RUNTIME_API", address.to_string());
        command.env("AWS_LAMBDA_FUNCTION_NAME", function.name()).env("AWS_REGION", "eu-west-1");
        command.env("AWS_ACCESS_KEY_ID", "ASIAEXAMPLE").env("AWS_SECRET_ACCESS_KEY", "secret");
        command.env("AWS_SESSION_TOKEN", "t".repeat(800));
        command.env("AWS_ENDPOINT_URL", &aws.url).env("AWS_CA_BUNDLE", aws.certificate.path());
        let started = Instant::now();
        let child = command.spawn().expect("the function's executable runs: scripts/bench builds it");
        Process { child, started, replied: started, events, replies, server }
    }

    /// From the moment in which the function is given the event.
    async fn call(&mut self, case: &Case, accounts: &Accounts) -> Duration {
        let event = (case.event)(accounts).to_string().into_bytes();
        self.events.send(event).await.expect("the Runtime API serves");
        let reply = tokio::time::timeout(Duration::from_secs(10), self.replies.recv()).await;
        let reply = reply.expect("the function replies in time").expect("the Runtime API serves");
        let is_answer = reply.path.ends_with("/response") && reply.body.starts_with(case.answer);
        assert!(is_answer, "{}: {} {}", case.what, reply.path, reply.body);
        self.replied = reply.replied;
        reply.replied - reply.given
    }

    fn peak_mib(&self) -> f64 {
        let status = self.proc_file("status");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux tells the peak");
        peak.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1024.0
    }

    /// Of the main thread, on which everything runs but the look-up of names.
    fn cpu(&self) -> Duration {
        let nanoseconds = self.proc_file("schedstat");
        Duration::from_nanos(nanoseconds.split(' ').next().and_then(|ns| ns.parse().ok()).expect("a number"))
    }

    fn proc_file(&self, name: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{name}", self.child.id())).expect("the process runs")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.server.abort();
    }
}

async fn next(State(invocations): State<Arc<Invocations>>) -> Result<impl IntoResponse, StatusCode> {
    // No more come once the bench is about to end the process.
    let event = invocations.events.lock().await.recv().await.ok_or(StatusCode::GONE)?;
    let identity = json!({"cognitoIdentityId": IDENTITY, "cognitoIdentityPoolId": POOL}).to_string();
    let deadline = SystemTime::now() + Duration::from_secs(10);
    let deadline = deadline.duration_since(UNIX_EPOCH).expect("after 1970").as_millis().to_string();
    let headers = [
        ("lambda-runtime-aws-request-id", "8476a536-e9f4-11e8-9739-2dfe598c3fcd".to_owned()),
        ("lambda-runtime-deadline-ms", deadline),
        ("lambda-runtime-invoked-function-arn", "arn:aws:lambda:eu-west-1:123456789012:function:f".to_owned()),
        ("lambda-runtime-cognito-identity", identity),
    ];
    *invocations.given.lock().await = Instant::now();
    Ok((headers, event))
}

async fn reply(State(invocations): State<Arc<Invocations>>, uri: Uri, body: String) {
    let (replied, given) = (Instant::now(), *invocations.given.lock().await);
    let reply = Reply { given, replied, path: uri.path().to_owned(), body };
    invocations.replies.send(reply).await.expect("the bench waits for a reply");
}

const POOL: &str = "eu-west-1:11111111-2222-3333-4444-555555555555";
const IDENTITY: &str = "eu-west-1:66666666-7777-8888-9999-000000000000";
const CHALLENGE_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
/// Has a password as createUser stores it.
const OWNER: &str = "owner@example.com";
/// Has a password of one iteration, so that this side of a login is fast. The function's side is the same.
const MEMBER: &str = "member@example.com";
const NEWCOMER: &str = "newcomer@example.com";

/// Who is in the table behind the TLS stub.
struct Accounts {
    key: StageKey,
    owner: User,
    member: User,
    newcomer: User,
    reset: Token,
    verification: Token,
}

impl Accounts {
    fn new() -> Accounts {
        let key = StageKey::parse(CHALLENGE_KEY).expect("a key");
        let (reset, verification) = (Token::new([1; 32]), Token::new([2; 32]));
        let account = |email: &str, iterations| {
            let email = Email::parse(email).expect("an address");
            let password = Password::prepare(PASSWORD).expect("a password");
            let verifier = Verifier::derive(&key, &email, &password, iterations);
            let unverified = Unverified::new(&verification, now(), 24 * 60 * 60);
            let mut user = User::new(email, [7; 16], verifier, unverified, now());
            user.identity_id = Some(IDENTITY.to_owned());
            user
        };
        let newcomer = account(NEWCOMER, Limits::default().iterations);
        let (mut owner, mut member) = (account(OWNER, Limits::default().iterations), account(MEMBER, 1));
        owner.unverified = None;
        owner.reset_token = Some(Pending::new(&reset, now() + 60 * 60));
        member.unverified = None;
        Accounts { key, owner, member, newcomer, reset, verification }
    }

    /// A login of the member between its two calls.
    fn exchange(&self) -> Exchange {
        let client_first_bare = format!("n={MEMBER},r=rOprNGfwEbeRWgbNEkqO");
        let random = std::array::from_fn(|i| i as u8);
        let event = json!({"clientFirst": format!("n,,{client_first_bare}")}).to_string();
        let Ok(event::Login::First(first)) = event::Login::parse(event.as_bytes()) else { panic!("a first message") };
        let server_first = challenge(Some(&self.member), &first, &self.key, &Limits::default(), now(), random);
        Exchange { client_first_bare, server_first }
    }
}

impl Exchange {
    fn client_first(&self) -> Json {
        json!({"clientFirst": format!("n,,{}", self.client_first_bare)})
    }
}

/// Answers as DynamoDB, SES and Cognito do, over TLS.
struct Aws {
    url: String,
    /// In PEM.
    certificate: tempfile::NamedTempFile,
    accounts: Arc<Accounts>,
    server: JoinHandle<()>,
}

impl Aws {
    async fn start() -> Aws {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let mut certificate = tempfile::NamedTempFile::new().expect("a file");
        certificate.write_all(made.cert.pem().as_bytes()).expect("a file is written");
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let config = ServerConfig::builder_with_provider(ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .expect("ring knows TLS")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("the certificate fits its key");
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let url = format!("https://localhost:{}", listener.local_addr().expect("an address").port());
        let listener = Tls { listener, acceptor: TlsAcceptor::from(Arc::new(config)) };

        let accounts = Arc::new(Accounts::new());
        let services = Router::new().fallback(answer).with_state(Arc::clone(&accounts));
        let server = tokio::spawn(async move { axum::serve(listener, services).await.expect("the stub serves") });
        Aws { url, certificate, accounts, server }
    }
}

impl Drop for Aws {
    fn drop(&mut self) {
        self.server.abort();
    }
}

struct Tls {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok((stream, address)) = self.listener.accept().await else { continue };
            let _ = stream.set_nodelay(true);
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

async fn answer(State(accounts): State<Arc<Accounts>>, headers: HeaderMap, body: String) -> impl IntoResponse {
    let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default();
    let json = match target.rsplit('.').next() {
        Some("GetItem") => {
            let request: Json = serde_json::from_str(&body).expect("JSON");
            let users = [&accounts.owner, &accounts.member, &accounts.newcomer];
            let user = users.into_iter().find(|user| request["Key"][EMAIL]["S"] == user.email.as_str());
            user.map_or(json!({}), |user| json!({"Item": item(user)}))
        }
        Some("Query") if body.contains(UNVERIFIED) => json!({"Count": 1, "Items": [{EMAIL: {"S": NEWCOMER}}]}),
        Some("Query") if body.contains(RESET_TOKEN) => json!({"Count": 1, "Items": [{EMAIL: {"S": OWNER}}]}),
        Some("UpdateItem") => json!({}),
        Some("GetOpenIdTokenForDeveloperIdentity") => json!({"IdentityId": IDENTITY, "Token": "t".repeat(900)}),
        _ => return ([("content-type", "text/xml")], MAIL_TAKEN.to_owned()),
    };
    ([("content-type", "application/x-amz-json-1.0")], json.to_string())
}

const MAIL_TAKEN: &str = "<SendEmailResponse xmlns=\"http://ses.amazonaws.com/doc/2010-12-01/\"><SendEmailResult>\
    <MessageId>0102</MessageId></SendEmailResult><ResponseMetadata><RequestId>1</RequestId></ResponseMetadata>\
    </SendEmailResponse>";

/// An account as DynamoDB writes it.
fn item(user: &User) -> Json {
    let number = |number: &u64| json!({"N": number.to_string()});
    let attribute = |value: &Value| match value {
        Value::Text(text) => json!({"S": text}),
        Value::Number(value) => number(value),
        Value::Numbers(values) => json!({"L": values.iter().map(number).collect::<Vec<_>>()}),
    };
    let attributes = user.clone().create().set;
    let mut item: BTreeMap<&str, Json> = attributes.iter().map(|(name, value)| (*name, attribute(value))).collect();
    item.insert(EMAIL, json!({"S": user.email.as_str()}));
    json!(item)
}

// What is computed.

/// Both calls of a login without the calls to AWS.
fn login_cpu() -> Vec<Row> {
    let accounts = Accounts::new();
    let (key, limits) = (&accounts.key, Limits::default());
    let exchange = accounts.exchange();
    let first = exchange.client_first().to_string();
    let last = exchange.client_final(PASSWORD).to_string();
    let mut attributes = accounts.member.clone().create().set;
    attributes.insert(EMAIL, Value::Text(MEMBER.to_owned()));
    let user = || User::from_attributes(|name| attributes.get(name).cloned()).expect("an account");

    let both = || {
        let Ok(event::Login::First(first)) = event::Login::parse(first.as_bytes()) else { panic!("a first message") };
        std::hint::black_box(challenge(Some(&user()), &first, key, &limits, now(), [0; 16]));

        let Ok(event::Login::Final(last)) = event::Login::parse(last.as_bytes()) else { panic!("a final message") };
        let challenge = last.challenge(key, now(), limits.challenge_seconds).expect("a fresh challenge");
        let attempt = attempt(Some(&user()), &last, &challenge, key, &limits, now());
        std::hint::black_box(last.prove(&attempt.verifier).expect("a proof"));
        let counted = attempt.counted.expect("a counted attempt");
        let next = logged_in(&counted, &attempt.verifier, Some(IDENTITY)).expect("a login");
        std::hint::black_box(counted.change(next));
    };
    let times = (0..1000).map(|_| microseconds(timed(both))).collect();
    vec![Row::new("login: our own CPU, both calls", median(times), "µs", Some(1000.0))]
}

/// In the packaged function: what a sign-up takes longer with 600,000 iterations than with one.
async fn pbkdf2(is_quick: bool) -> Vec<Row> {
    let aws = Aws::start().await;
    let [sign_up, ..] = &CASES;
    let iterations = Limits::default().iterations;
    let mut slow = Process::start(sign_up.function, &aws, iterations).await;
    let mut fast = Process::start(sign_up.function, &aws, 1).await;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    // In turns, so that what else the machine does slows down both.
    for round in 0..if is_quick { 6 } else { 16 } {
        let derived = slow.call(sign_up, &aws.accounts).await.saturating_sub(fast.call(sign_up, &aws.accounts).await);
        let peer = openssl(iterations).zip(openssl(1)).map(|(slow, fast)| slow.saturating_sub(fast));
        // The first calls connect.
        if round > 0 {
            ours.push(milliseconds(derived));
            theirs.extend(peer.map(milliseconds));
        }
    }
    let ours = median(ours);
    let mut rows = vec![Row::new("PBKDF2, 600,000 iterations: createUser", ours, "ms", None)];
    if theirs.is_empty() {
        rows.push(Row::not_measured("PBKDF2, 600,000 iterations: OpenSSL", "there is no openssl"));
    } else {
        let theirs = median(theirs);
        rows.push(Row::new("PBKDF2, 600,000 iterations: openssl kdf", theirs, "ms", None));
        rows.push(Row::new("PBKDF2, ours to OpenSSL's", ours / theirs, "x", Some(0.8)));
    }
    rows
}

fn openssl(iterations: u64) -> Option<Duration> {
    let mut command = Command::new("openssl");
    command.args(["kdf", "-keylen", "32", "-kdfopt", "digest:SHA256", "-kdfopt", "salt:0123456789abcdef"]);
    command.arg("-kdfopt").arg(format!("pass:{PASSWORD}")).arg("-kdfopt").arg(format!("iter:{iterations}"));
    command.arg("PBKDF2").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let begun = Instant::now();
    command.status().ok().filter(|status| status.success()).map(|_| begun.elapsed())
}

// What is packaged.

/// `arm64` is where `cargo lambda` put its packages.
fn packages(arm64: Option<&Path>) -> Vec<Row> {
    let mut rows = Vec::new();
    for function in Function::ALL {
        let executable = std::fs::read(executables().join(function.binary())).expect("scripts/bench builds it");
        rows.push(Row::new(format!("{}: executable", function.name()), kilobytes(executable.len()), "kB", None));
        let zip = kilobytes(zip_size(&executable));
        rows.push(Row::new(format!("{}: package, this machine's", function.name()), zip, "kB", None));

        let what = format!("{}: package, arm64", function.name());
        let limit = if is_judging(function) { 4000.0 } else { 2500.0 };
        let limit = (is_judging(function) || function == Function::Login).then_some(limit);
        let Some(arm64) = arm64 else { continue };
        match std::fs::metadata(arm64.join(function.binary()).join("bootstrap.zip")) {
            Ok(zip) => rows.push(Row::new(what, zip.len() as f64 / 1000.0, "kB", limit)),
            Err(_) => rows.push(Row::not_measured(what, "cargo lambda made none")),
        }
    }
    if arm64.is_none() {
        rows.push(Row::not_measured("packages, arm64", "not built: see above"));
    }
    rows
}

/// Of a zip that holds the executable as `bootstrap`.
fn zip_size(executable: &[u8]) -> usize {
    let mut deflated = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    deflated.write_all(executable).expect("memory");
    // The three records of a zip with one entry, and its name twice.
    deflated.finish().expect("memory").len() + 30 + 46 + 22 + 2 * "bootstrap".len()
}

// A stage as `cargo up` puts it up: everything in the dev profile.

async fn stage(is_quick: bool) -> Vec<Row> {
    let world = Arc::new(World::new().await);
    let rounds = |full: usize| if is_quick { full / 5 } else { full };
    let mut rows = Vec::new();

    say("an up with nothing to do");
    let again = Arc::clone(&world);
    let up = move || (0..5).map(|_| milliseconds(timed(|| again.shell.up()))).collect();
    let up = tokio::task::spawn_blocking(up).await.expect("up succeeds");
    rows.push(Row::new("up of an unchanged stage, cargo's check apart", median(up), "ms", Some(300.0)));

    say("pages");
    let fetching = Arc::clone(&world);
    rows.extend(tokio::task::spawn_blocking(move || pages(&fetching)).await.expect("pages are served"));

    say("the local cloud");
    let dynamodb = world.dynamodb(&world.admin());
    let (mut gets, mut puts) = (Vec::new(), Vec::new());
    for _ in 0..rounds(500) + 1 {
        let key = AttributeValue::S("bench@example.com".to_owned());
        let put = dynamodb.put_item().table_name(world.output("usersTable")).item(EMAIL, key.clone());
        puts.push(microseconds(timed_async(async { put.send().await.expect("PutItem") }).await));
        let get = dynamodb.get_item().table_name(world.output("usersTable")).key(EMAIL, key);
        gets.push(microseconds(timed_async(async { get.send().await.expect("GetItem") }).await));
    }
    rows.push(Row::new("local cloud: GetItem, with SigV4 and IAM", median(gets), "µs", None));
    rows.push(Row::new("local cloud: PutItem, with SigV4 and IAM", median(puts), "µs", None));

    world.verified_user(MEMBER).await;
    let guest = world.guest().await;
    let mut logins = Vec::new();
    for _ in 0..rounds(10) + 1 {
        let begun = Instant::now();
        let exchange = world.client_first(&guest, MEMBER).await;
        let challenged = begun.elapsed();
        // The browser's part of the work.
        let event = exchange.client_final(PASSWORD);
        let begun = Instant::now();
        world.invoke(&guest, "login", &event).await.expect("login replies");
        logins.push(milliseconds(challenged + begun.elapsed()));
    }
    rows.push(Row::new("local cloud: login, both calls, the derivation apart", median(logins), "ms", None));
    rows
}

/// Each page with everything that it loads, as it is sent: compressed.
fn pages(world: &World) -> Vec<Row> {
    let site = world.output("siteUrl").trim_end_matches("/index.html").trim_end_matches('/');
    let ours = [site, world.output("endpointUrl").trim_end_matches('/')];
    let mut rows = Vec::new();
    let mut foreign = BTreeSet::new();
    let mut pages: Vec<PathBuf> = std::fs::read_dir(world::root().join("static-site"))
        .expect("the site's folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "html"))
        .collect();
    pages.sort();
    for page in pages {
        let page = page.file_name().and_then(|name| name.to_str()).expect("a name");
        let (mut bytes, mut loaded) = (0, BTreeSet::new());
        let mut to_load = vec![page.to_owned()];
        while let Some(path) = to_load.pop() {
            if !loaded.insert(path.clone()) {
                continue;
            }
            let (size, text) = fetch(&format!("{site}/{path}"));
            bytes += size;
            for reference in references(&path, &text) {
                match reference.split_once("//") {
                    None => to_load.push(reference.trim_start_matches("./").trim_start_matches('/').to_owned()),
                    Some(_) if ours.iter().any(|origin| reference.starts_with(origin)) => (),
                    Some(_) => drop(foreign.insert(reference)),
                }
            }
        }
        let what = format!("{page}: weight with all {} that it loads", loaded.len() - 1);
        rows.push(Row::new(what, kilobytes(bytes), "kB", Some(15.0)));
    }
    for origin in &foreign {
        say(&format!("another origin: {origin}"));
    }
    rows.push(Row::new("other origins that pages name", foreign.len() as f64, "", Some(0.0)));
    rows
}

/// The length of an object as it is sent, and its text.
fn fetch(url: &str) -> (usize, String) {
    let response = ureq::get(url).header("Accept-Encoding", "gzip").call().expect("the site answers");
    let is_gzipped = response.headers().get("content-encoding").is_some_and(|encoding| encoding == "gzip");
    let sent = response.into_body().read_to_vec().expect("an object");
    let mut text = Vec::new();
    if is_gzipped {
        flate2::read::GzDecoder::new(sent.as_slice()).read_to_end(&mut text).expect("gzip");
    } else {
        text.clone_from(&sent);
    }
    (sent.len(), String::from_utf8(text).expect("UTF-8"))
}

/// What a browser loads because of a file, and the origins that its policy lets it connect to.
fn references(path: &str, text: &str) -> Vec<String> {
    let quoted = |text: &str| text.split(['"', '\'']).nth(1).map(str::to_owned);
    let after = |key: &'static str| text.match_indices(key).filter_map(move |(at, _)| quoted(&text[at..]));
    match path.rsplit('.').next() {
        Some("html") => {
            let elements = text.split('<').filter(|element| !element.starts_with("a ")).collect::<Vec<_>>();
            let loaded = |key: &str| {
                let values = elements.iter().filter_map(|element| element.split_once(key));
                values.filter_map(|(_, value)| value.split('"').next().map(str::to_owned)).collect::<Vec<_>>()
            };
            let policy = loaded(" content=\"default-src").join(" ");
            let allowed = policy.split([' ', ';']).filter(|source| source.contains("//")).map(str::to_owned);
            [loaded(" src=\""), loaded(" href=\""), allowed.collect()].concat()
        }
        Some("js") => {
            let configuration = text.contains("'config.json'").then(|| "config.json".to_owned());
            after(" from ").chain(after("import(")).chain(after("import '")).chain(configuration).collect()
        }
        Some("css") => text.split("url(").skip(1).filter_map(|url| Some(url.split(')').next()?.to_owned())).collect(),
        _ => Vec::new(),
    }
}

// Small change.

/// Where the release build of this program and of the functions lies.
fn executables() -> PathBuf {
    let this = std::env::current_exe().expect("this program's path");
    this.ancestors().nth(2).expect("the folder of the profile").to_owned()
}

fn now() -> Seconds {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

fn timed<T>(work: impl FnOnce() -> T) -> Duration {
    let begun = Instant::now();
    std::hint::black_box(work());
    begun.elapsed()
}

async fn timed_async<T>(work: impl Future<Output = T>) -> Duration {
    let begun = Instant::now();
    work.await;
    begun.elapsed()
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn microseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn kilobytes(bytes: usize) -> f64 {
    bytes as f64 / 1000.0
}
