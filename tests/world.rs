//! A stage of its own for each test, and the verbs of the service through the official AWS SDK.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use aws_sdk_cloudwatchlogs as logs;
use aws_sdk_cognitoidentity as cognito;
use aws_sdk_dynamodb as dynamodb;
use aws_sdk_lambda as lambda;
use aws_sdk_ses as ses;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value as Json, json};
use sha2::{Digest as _, Sha256};

/// What every test's stage is called; each has its own home.
pub(crate) const STAGE: &str = "test";

/// A password that the policy takes.
pub(crate) const PASSWORD: &str = "seven green herons wade";
pub(crate) const NEW_PASSWORD: &str = "a lantern on the quiet pier";

/// Runs the command line of a stage that has its own home.
pub(crate) struct Shell {
    home: tempfile::TempDir,
    /// The folder that commands run in: this project, or a copy that the test may change.
    project: PathBuf,
    functions: PathBuf,
}

impl Shell {
    /// A home with the settings of one stage that is not up yet.
    pub(crate) fn new() -> Self {
        let shell = Self {
            home: tempfile::tempdir().expect("a temporary folder"),
            project: root().to_owned(),
            functions: built().functions.clone(),
        };
        let made = shell.run(&["stage", "new", STAGE]);
        assert!(made.status.success(), "{}", text(&made));
        shell
    }

    /// The same with copies of the policies, the pages and the functions' executables, which the test may change.
    pub(crate) fn with_own_project() -> Self {
        let mut shell = Self::new();
        let project = shell.home().join("project");
        copy(&root().join("policies"), &project.join("policies"));
        copy(&root().join("static-site"), &project.join("static-site"));
        std::fs::create_dir(project.join("infra")).expect("a folder");
        std::fs::copy(root().join("infra/Pulumi.yaml"), project.join("infra/Pulumi.yaml")).expect("a file");
        let functions = project.join("functions");
        std::fs::create_dir(&functions).expect("a folder");
        for function in auth::Function::ALL {
            let file = function.binary();
            std::fs::copy(built().functions.join(file), functions.join(file)).expect("an executable");
        }
        (shell.project, shell.functions) = (project, functions);
        shell
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// A file of the test's own project.
    pub(crate) fn project_file(&self, path: &str) -> PathBuf {
        self.project.join(path)
    }

    /// The folder of the stage's state.
    pub(crate) fn folder(&self) -> PathBuf {
        self.home().join(STAGE)
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.building();
        command.args(arguments);
        if matches!(arguments.first(), Some(&"up" | &"preview")) {
            command.arg("--functions").arg(&self.functions);
        }
        command
    }

    /// The command line without arguments, and without prebuilt functions: it builds those of its project.
    pub(crate) fn building(&self) -> Command {
        let mut command = Command::new(&built().program);
        command.stdin(Stdio::null()).current_dir(&self.project);
        command.env("PORTCULLIS_HOME", self.home()).env("PORTCULLIS_SETTINGS", self.home());
        command.env("PORTCULLIS_PORTS", "random");
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the command line runs")
    }

    /// Runs a command on the stage, demands that it succeeds, and tells what it printed.
    pub(crate) fn succeeds(&self, arguments: &[&str]) -> String {
        let output = self.on_stage(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
        text(&output)
    }

    /// Runs a command on the stage, demands that it fails with exit code 1, and tells what it printed.
    pub(crate) fn fails(&self, arguments: &[&str]) -> String {
        let output = self.on_stage(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", text(&output));
        text(&output)
    }

    fn on_stage(&self, arguments: &[&str]) -> Output {
        let (command, rest) = arguments.split_first().expect("a command");
        let mut all = vec![*command, "--stage", STAGE];
        all.extend(rest);
        self.run(&all)
    }

    /// Puts the stage up, or brings it up to date.
    pub(crate) fn up(&self) -> String {
        self.succeeds(&["up", "--detach"])
    }

    /// The stage's outputs, with its secrets.
    pub(crate) fn outputs(&self) -> Json {
        serde_json::from_str(&self.succeeds(&["outputs", "--json", "--show-secrets"])).expect("outputs are JSON")
    }

    /// The process that serves the stage.
    pub(crate) fn pid(&self) -> u32 {
        let serving = std::fs::read(self.folder().join("serving.json")).expect("the stage is served");
        let serving: Json = serde_json::from_slice(&serving).expect("JSON");
        serving["pid"].as_u64().and_then(|pid| pid.try_into().ok()).expect("a process id")
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).expect("a file");
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        if self.folder().exists() {
            let _ = self.run(&["down", "--stage", STAGE, "--yes", "--confirm", STAGE]);
        }
        // What `down` could not end must not outlive the test.
        if let Ok(serving) = std::fs::read(self.folder().join("serving.json"))
            && let Ok(serving) = serde_json::from_slice::<Json>(&serving)
        {
            let pid = serving["pid"].to_string();
            let _ = Command::new("kill").args(["-9", &pid]).output();
        }
    }
}

/// Ends a process at once.
pub(crate) fn kill(pid: u32) {
    let killed = Command::new("kill").args(["-9", &pid.to_string()]).status().expect("kill runs");
    assert!(killed.success());
}

/// Whether a process has ended; one that nobody has waited for yet has no command line any more.
pub(crate) fn has_ended(pid: u32) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default().is_empty()
}

/// Both streams of a finished command.
pub(crate) fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

/// What the tests run, built once: the command line, and the folder of the functions' executables.
struct Built {
    program: PathBuf,
    functions: PathBuf,
}

fn built() -> &'static Built {
    static BUILT: OnceLock<Built> = OnceLock::new();
    BUILT.get_or_init(|| {
        let functions = executable(&["--package", "functions", "--bins"]);
        Built {
            program: executable(&["--package", "infra"]),
            functions: functions.parent().expect("a folder").to_owned(),
        }
    })
}

/// Builds, and tells one of the executables.
fn executable(what: &[&str]) -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--message-format=json"]).args(what).current_dir(root()).stderr(Stdio::inherit());
    // `cargo test` tells this program of itself; a build that saw it would build parts of itself anew.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"].iter().any(|start| name.starts_with(start)) {
            cargo.env_remove(name.as_ref());
        }
    }
    let built = cargo.output().expect("cargo runs");
    assert!(built.status.success(), "{what:?} does not build");
    let messages = String::from_utf8(built.stdout).expect("cargo writes UTF-8");
    let executable = messages.lines().rev().find_map(|line| {
        let message: Json = serde_json::from_str(line).ok()?;
        message["executable"].as_str().map(PathBuf::from)
    });
    executable.expect("cargo names the executable")
}

/// Credentials, as Cognito gives them out or as the administrator has them.
pub(crate) type Credentials = aws_credential_types::Credentials;

/// A mail as the mailbox tells it.
#[derive(Debug, Clone)]
pub(crate) struct Mail {
    pub(crate) to: String,
    pub(crate) from: String,
    pub(crate) subject: String,
    pub(crate) text: String,
    pub(crate) html: String,
}

impl Mail {
    /// The value of the query parameter in the mail's link.
    pub(crate) fn token(&self, parameter: &str) -> String {
        let (_, rest) = self.text.split_once(&format!("?{parameter}=")).expect("the mail has a link");
        let token: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')).collect();
        token
    }
}

/// Who is logged in.
#[derive(Clone)]
pub(crate) struct Member {
    pub(crate) email: String,
    pub(crate) identity_id: String,
    pub(crate) token: String,
    pub(crate) credentials: Credentials,
}

/// A client of a service of the SDK: their configurations are alike, but of as many types as there are services.
macro_rules! client {
    ($service:ident, $world:expr, $credentials:expr) => {{
        let config = $service::Config::builder()
            .behavior_version($service::config::BehaviorVersion::latest())
            .region($service::config::Region::new($world.output("region").to_owned()))
            .endpoint_url($world.output("endpointUrl"))
            .retry_config($service::config::retry::RetryConfig::disabled())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .credentials_provider($credentials.clone());
        $service::Client::from_conf(config.build())
    }};
}

/// A stage that is up.
pub(crate) struct World {
    pub(crate) outputs: Json,
    pub(crate) shell: Shell,
}

impl World {
    /// Puts a new stage up.
    pub(crate) async fn new() -> Self {
        Self::of(Shell::new).await
    }

    /// Puts the stage of the shell up.
    pub(crate) async fn of(shell: fn() -> Shell) -> Self {
        tokio::task::spawn_blocking(move || {
            let shell = shell();
            shell.up();
            Self { outputs: shell.outputs(), shell }
        })
        .await
        .expect("the stage is put up")
    }

    pub(crate) fn output(&self, name: &str) -> &str {
        self.outputs[name].as_str().expect("an output that is a text")
    }

    pub(crate) fn function(&self, name: &str) -> &str {
        self.outputs["functions"][name].as_str().expect("a function's deployed name")
    }

    pub(crate) fn admin(&self) -> Credentials {
        let admin = |key: &str| self.outputs["admin"][key].as_str().expect("the administrator's key").to_owned();
        Credentials::new(admin("accessKeyId"), admin("secretAccessKey"), None, None, "admin")
    }

    // The SDK's clients.

    pub(crate) fn lambda(&self, credentials: &Credentials) -> lambda::Client {
        client!(lambda, self, credentials)
    }

    pub(crate) fn dynamodb(&self, credentials: &Credentials) -> dynamodb::Client {
        client!(dynamodb, self, credentials)
    }

    pub(crate) fn logs(&self, credentials: &Credentials) -> logs::Client {
        client!(logs, self, credentials)
    }

    pub(crate) fn ses(&self, credentials: &Credentials) -> ses::Client {
        client!(ses, self, credentials)
    }

    pub(crate) fn cognito(&self) -> cognito::Client {
        client!(cognito, self, &self.admin())
    }

    // Credentials of the enhanced flow.

    pub(crate) async fn guest(&self) -> Credentials {
        let cognito = self.cognito();
        let identity = cognito.get_id().identity_pool_id(self.output("identityPoolId")).send().await.expect("GetId");
        self.credentials(identity.identity_id().expect("an identity"), None).await.expect("guests are let in")
    }

    pub(crate) async fn credentials(&self, identity_id: &str, token: Option<&str>) -> Result<Credentials, String> {
        let mut request = self.cognito().get_credentials_for_identity().identity_id(identity_id);
        if let Some(token) = token {
            request = request.logins("cognito-identity.amazonaws.com", token);
        }
        let reply = request.send().await.map_err(|error| format!("{:?}", error.into_service_error()))?;
        let given = reply.credentials().expect("credentials");
        let text = |value: Option<&str>| value.expect("a part of the credentials").to_owned();
        let (key, secret) = (text(given.access_key_id()), text(given.secret_key()));
        Ok(Credentials::new(key, secret, Some(text(given.session_token())), None, "cognito"))
    }

    // The service's functions.

    /// Invokes a function with any payload; a function's own error is `Err` with its JSON.
    pub(crate) async fn invoke(&self, caller: &Credentials, function: &str, event: &Json) -> Result<Json, String> {
        self.invoke_bytes(caller, function, event.to_string().into_bytes()).await
    }

    pub(crate) async fn invoke_bytes(
        &self,
        caller: &Credentials,
        function: &str,
        event: Vec<u8>,
    ) -> Result<Json, String> {
        let request = self.lambda(caller).invoke().function_name(self.function(function));
        let reply = request.payload(lambda::primitives::Blob::new(event)).send().await;
        let reply = reply.map_err(|error| format!("{:?}", error.into_service_error()))?;
        let payload = reply.payload().map(|blob| blob.as_ref().to_vec()).unwrap_or_default();
        match reply.function_error() {
            None => Ok(serde_json::from_slice(&payload).expect("a reply is JSON")),
            Some(_) => Err(String::from_utf8_lossy(&payload).into_owned()),
        }
    }

    pub(crate) async fn create_user(&self, email: &str, password: &str) -> Json {
        let event = json!({"email": email, "password": password});
        self.invoke(&self.guest().await, "createUser", &event).await.expect("createUser replies")
    }

    pub(crate) async fn verify_user(&self, token: &str) -> Json {
        self.invoke(&self.guest().await, "verifyUser", &json!({"token": token})).await.expect("verifyUser replies")
    }

    pub(crate) async fn lost_password(&self, email: &str) -> Json {
        let event = json!({"email": email});
        self.invoke(&self.guest().await, "lostPassword", &event).await.expect("lostPassword replies")
    }

    pub(crate) async fn reset_password(&self, token: &str, password: &str) -> Json {
        let event = json!({"resetToken": token, "password": password});
        self.invoke(&self.guest().await, "resetPassword", &event).await.expect("resetPassword replies")
    }

    pub(crate) async fn change_password(&self, member: &Member, old: &str, new: &str) -> Result<Json, String> {
        let event = json!({"email": member.email, "oldPassword": old, "newPassword": new});
        self.invoke(&member.credentials, "changePassword", &event).await
    }

    /// A user who has signed up and confirmed the address.
    pub(crate) async fn verified_user(&self, email: &str) {
        assert_eq!(self.create_user(email, PASSWORD).await, json!({"created": true}));
        let token = self.newest_mail(email).token("token");
        assert_eq!(self.verify_user(&token).await, json!({"verified": true}));
    }

    /// Logs in as the page does; `None` when the answer is `{login: false}`.
    pub(crate) async fn log_in(&self, email: &str, password: &str) -> Option<Member> {
        let guest = self.guest().await;
        let exchange = self.client_first(&guest, email).await;
        let event = exchange.client_final(password);
        let reply = self.invoke(&guest, "login", &event).await.expect("login replies");
        if reply == json!({"login": false}) {
            return None;
        }
        assert_eq!(reply["login"], true);
        assert_eq!(
            reply["serverFinal"].as_str(),
            Some(exchange.server_final(password).as_str()),
            "the server proved itself"
        );
        let text = |key: &str| reply[key].as_str().expect("a text").to_owned();
        let (identity_id, token) = (text("identityId"), text("token"));
        let credentials = self.credentials(&identity_id, Some(&token)).await.expect("a member's credentials");
        Some(Member { email: email.to_owned(), identity_id, token, credentials })
    }

    /// The first half of a login.
    pub(crate) async fn client_first(&self, caller: &Credentials, email: &str) -> Exchange {
        let client_first_bare = format!("n={email},r={}", random_text());
        let event = json!({"clientFirst": format!("n,,{client_first_bare}")});
        let reply = self.invoke(caller, "login", &event).await.expect("login replies");
        let server_first = reply["serverFirst"].as_str().expect("a challenge").to_owned();
        Exchange { client_first_bare, server_first }
    }

    // The mailbox.

    /// All mails to an address, newest first.
    pub(crate) fn mails(&self, to: &str) -> Vec<Mail> {
        self.all_mails().into_iter().filter(|mail| mail.to == to).collect()
    }

    pub(crate) fn all_mails(&self) -> Vec<Mail> {
        let request = ureq::get(self.output("mailboxUrl")).header("Accept", "application/json");
        let list = request.call().expect("the mailbox answers").into_body().read_to_string().expect("a list");
        let list: Vec<Json> = serde_json::from_str(&list).expect("the mailbox answers JSON");
        let mails = list.iter().map(|mail| {
            let text = |key: &str| mail[key].as_str().unwrap_or_default().to_owned();
            assert!(!text("receivedAt").is_empty());
            Mail {
                to: text("to"),
                from: text("from"),
                subject: text("subject"),
                text: text("text"),
                html: text("html"),
            }
        });
        mails.collect()
    }

    pub(crate) fn newest_mail(&self, to: &str) -> Mail {
        self.mails(to).into_iter().next().expect("a mail has come")
    }

    // What the stage wrote down.

    /// Every decision so far, oldest first.
    pub(crate) fn decisions(&self) -> Vec<Json> {
        self.events("decision")
    }

    pub(crate) fn events(&self, kind: &str) -> Vec<Json> {
        let events = std::fs::read_to_string(self.shell.folder().join("cloud/events.jsonl")).expect("events");
        let events = events.lines().filter_map(|line| serde_json::from_str::<Json>(line).ok());
        events.filter(|event| event["event"] == kind).collect()
    }

    /// The item of a user as it is stored.
    pub(crate) async fn item(
        &self,
        email: &str,
    ) -> Option<std::collections::HashMap<String, dynamodb::types::AttributeValue>> {
        let key = dynamodb::types::AttributeValue::S(email.to_owned());
        let get = self.dynamodb(&self.admin()).get_item().table_name(self.output("usersTable"));
        get.key("email", key).consistent_read(true).send().await.expect("GetItem").item
    }
}

/// A login between its two calls: SCRAM-SHA-256 (RFC 5802, RFC 7677) from the client's side.
#[derive(Clone)]
pub(crate) struct Exchange {
    pub(crate) client_first_bare: String,
    pub(crate) server_first: String,
}

impl Exchange {
    pub(crate) fn client_final(&self, password: &str) -> Json {
        let client_key = hmac(&self.salted(password), b"Client Key");
        let stored_key = Sha256::digest(client_key);
        let signature = hmac(&stored_key, self.auth_message().as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(signature).map(|(key, signature)| key ^ signature).collect();
        let client_final = format!("{},p={}", self.client_final_without_proof(), BASE64.encode(proof));
        json!({"clientFirst": format!("n,,{}", self.client_first_bare), "clientFinal": client_final})
    }

    pub(crate) fn server_final(&self, password: &str) -> String {
        let server_key = hmac(&self.salted(password), b"Server Key");
        format!("v={}", BASE64.encode(hmac(&server_key, self.auth_message().as_bytes())))
    }

    pub(crate) fn attribute(&self, name: char) -> &str {
        let mut parts = self.server_first.split(',');
        parts.find_map(|part| part.strip_prefix(&format!("{name}="))).expect("an attribute of server-first")
    }

    fn client_final_without_proof(&self) -> String {
        format!("c=biws,r={}", self.attribute('r'))
    }

    fn auth_message(&self) -> String {
        format!("{},{},{}", self.client_first_bare, self.server_first, self.client_final_without_proof())
    }

    fn salted(&self, password: &str) -> [u8; 32] {
        let salt = BASE64.decode(self.attribute('s')).expect("a salt");
        let iterations = self.attribute('i').parse().expect("iterations");
        let mut salted = [0; 32];
        // Not the crate that the functions use: a second opinion on theirs.
        ring::pbkdf2::derive(ring::pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, password.as_bytes(), &mut salted);
        salted
    }
}

fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

pub(crate) fn random_text() -> String {
    let mut bytes = [0; 18];
    getrandom::fill(&mut bytes).expect("random numbers");
    BASE64.encode(bytes).replace(',', "")
}

/// Waits until `done` tells something, for at most 20 seconds.
pub(crate) async fn eventually<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{what} did not come");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
