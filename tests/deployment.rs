//! `up`, `preview`, `outputs` and `down`, as a developer and a script use them.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::world::{PASSWORD, Shell, World, has_ended, kill, text};

#[test]
fn a_second_up_has_nothing_to_do() {
    let shell = Shell::new();
    let first = shell.up();
    assert!(first.contains("created") && first.contains("/index.html") && first.contains("/mailbox?token="), "{first}");
    let second = shell.up();
    assert!(second.contains("Nothing to do"), "{second}");
}

#[test]
fn preview_tells_what_up_then_does() {
    let shell = Shell::with_own_project();
    let preview = shell.succeeds(&["preview"]);
    assert!(!shell.folder().exists(), "a preview makes nothing");
    let up = shell.up();
    assert_eq!(foreseen(&preview), done(&up), "of a new stage");

    let page = shell.project_file("static-site/index.html");
    let changed = std::fs::read_to_string(&page).expect("a page").replace("</body>", "<!-- changed --></body>");
    std::fs::write(&page, changed).expect("a page");
    std::fs::write(shell.project_file("static-site/robots.txt"), "User-agent: *\n").expect("a new page");
    std::fs::remove_file(shell.project_file("static-site/verify.html")).expect("a page that goes");
    let policy = shell.project_file("policies/guest.json");
    let renamed = std::fs::read_to_string(&policy).expect("a policy").replacen("\"Sid\": \"", "\"Sid\": \"Changed", 1);
    std::fs::write(&policy, renamed).expect("a policy");
    change_login(&shell);

    let preview = shell.succeeds(&["preview"]);
    let expected = [
        "change lambda Function login",
        "change iam RolePolicy guest",
        "change s3 BucketObjectv2 index.html",
        "create s3 BucketObjectv2 robots.txt",
        "delete s3 BucketObjectv2 verify.html",
    ];
    let mut expected: Vec<String> = expected.map(str::to_owned).to_vec();
    expected.sort();
    assert_eq!(foreseen(&preview), expected, "{preview}");
    assert_eq!(foreseen(&shell.succeeds(&["preview"])), expected, "a preview changes nothing");
    assert_eq!(done(&shell.up()), expected);
    assert!(shell.succeeds(&["preview"]).contains("Nothing to do"));
    assert!(shell.up().contains("Nothing to do"));
}

/// Gives the function login another executable, which does the same.
fn change_login(shell: &Shell) {
    let function = shell.project_file("functions/login");
    let mut code = std::fs::read(&function).expect("an executable");
    code.extend(b"changed");
    std::fs::write(&function, code).expect("an executable");
}

/// The lines of a preview that foresee a change, in short.
fn foreseen(printed: &str) -> Vec<String> {
    steps(printed, |word| ["create", "change", "replace", "delete"].contains(&word).then(|| word.to_owned()))
}

/// The lines of an `up` that tell of a change, in the words of a preview.
fn done(printed: &str) -> Vec<String> {
    steps(printed, |word| {
        ["created", "changed", "replaced", "deleted"].contains(&word).then(|| word.trim_end_matches('d').to_owned())
    })
}

fn steps(printed: &str, word: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let lines = printed.lines().filter(|line| line.starts_with("  ")).filter_map(|line| {
        let parts: Vec<&str> = line.split_whitespace().collect();
        Some(format!("{} {}", word(parts.first()?)?, parts.get(1..4)?.join(" ")))
    });
    let mut lines: Vec<String> = lines.collect();
    lines.sort();
    lines
}

#[tokio::test]
async fn users_survive_a_changed_function_a_restart_and_another_up() {
    let world = World::of(Shell::with_own_project).await;
    world.verified_user("ada@example.com").await;
    let shell = &world.shell;
    let pid = shell.pid();
    change_login(shell);
    assert_eq!(done(&shell.up()), ["change lambda Function login"]);
    assert_eq!(shell.pid(), pid, "in place, while the stage runs");
    assert!(world.log_in("ada@example.com", PASSWORD).await.is_some());

    kill(pid);
    shell.up();
    assert_eq!(shell.outputs()["siteUrl"], world.outputs["siteUrl"], "the ports are kept");
    assert!(world.log_in("ada@example.com", PASSWORD).await.is_some());
}

#[test]
fn down_leaves_nothing_behind() {
    let shell = Shell::new();
    shell.up();
    let pid = shell.pid();
    let down = shell.succeeds(&["down", "--yes"]);
    assert!(down.contains("is gone"), "{down}");
    assert!(!shell.folder().exists());
    assert!(has_ended(pid));
    assert!(shell.succeeds(&["down", "--yes"]).contains("nothing to delete"));
}

#[tokio::test]
async fn a_stage_with_users_goes_only_when_its_name_is_given() {
    let world = World::new().await;
    assert_eq!(world.create_user("ada@example.com", PASSWORD).await, json!({"created": true}));
    let refused = world.shell.fails(&["down", "--yes"]);
    assert!(refused.contains("--confirm test"), "{refused}");
    world.shell.fails(&["down", "--confirm", "other"]);
    assert!(world.item("ada@example.com").await.is_some(), "nothing was deleted");
    world.shell.succeeds(&["down", "--confirm", "test"]);
    assert!(!world.shell.folder().exists());
}

#[test]
fn an_up_that_was_killed_goes_on() {
    let shell = Shell::new();
    for milliseconds in [60, 120, 200, 300, 420] {
        let mut up =
            shell.command(&["up", "--stage", "test", "--detach"]).stdout(Stdio::null()).spawn().expect("it starts");
        std::thread::sleep(Duration::from_millis(milliseconds));
        let _ = up.kill();
        let _ = up.wait();
    }
    shell.up();
    assert!(shell.up().contains("Nothing to do"));
}

#[test]
fn one_command_at_a_time_changes_a_stage() {
    let shell = Shell::new();
    shell.up();
    let lock = std::fs::File::options().write(true).open(shell.folder().join("up.lock")).expect("the lock");
    lock.lock().expect("locked");
    assert!(shell.fails(&["up", "--detach"]).contains("another command"));
    assert!(shell.fails(&["down", "--yes"]).contains("another command"));
    drop(lock);
    shell.up();
}

#[test]
fn a_stage_without_settings_is_refused_with_the_way_to_make_it() {
    let shell = Shell::new();
    for command in ["up", "preview", "down", "outputs"] {
        let refused = shell.run(&[command, "--stage", "nowhere"]);
        assert_eq!(refused.status.code(), Some(1));
        assert!(text(&refused).contains("stage new nowhere"), "{}", text(&refused));
    }
    assert_eq!(shell.run(&["up", "--no-such-flag"]).status.code(), Some(2));
    let exists = shell.run(&["stage", "new", "test"]);
    assert!(text(&exists).contains("exists already"), "{}", text(&exists));
    let bad = shell.run(&["stage", "new", "../evil"]);
    assert!(text(&bad).contains("can't be the name of a stage"), "{}", text(&bad));
}

#[test]
fn a_foreign_or_damaged_state_folder_is_left_alone() {
    let shell = Shell::new();
    std::fs::create_dir(shell.folder()).expect("a folder");
    std::fs::write(shell.folder().join("thesis.txt"), "mine").expect("a file");
    assert!(shell.fails(&["up", "--detach"]).contains("something else"));
    assert_eq!(std::fs::read_to_string(shell.folder().join("thesis.txt")).expect("still there"), "mine");
    std::fs::remove_dir_all(shell.folder()).expect("away with it");

    shell.up();
    shell.succeeds(&["down", "--yes"]);
    shell.up();
    for file in ["stage.json", "state.json", "secrets.json"] {
        let path = shell.folder().join(file);
        let whole = std::fs::read(&path).expect("a file of the state");
        std::fs::write(&path, &whole[..whole.len() / 2]).expect("damaged");
        let refused = shell.fails(&["up", "--detach"]);
        assert!(refused.contains("damaged"), "{file}: {refused}");
        std::fs::write(&path, whole).expect("mended");
    }
    assert!(shell.up().contains("Nothing to do"));
}

#[test]
fn a_busy_port_is_named() {
    let shell = Shell::new();
    shell.up();
    let site = shell.outputs()["siteUrl"].as_str().expect("an address").to_owned();
    let port: u16 = site.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    kill(shell.pid());
    let taken = loop {
        // The killed process may hold it a moment longer.
        if let Ok(listener) = std::net::TcpListener::bind(("127.0.0.1", port)) {
            break listener;
        }
    };
    let refused = shell.fails(&["up", "--detach"]);
    assert!(refused.contains(&format!("port {port}")) && refused.contains("ports.json"), "{refused}");
    drop(taken);
    assert!(shell.up().contains("Nothing to do"));
}

#[test]
fn a_function_that_does_not_compile_changes_nothing() {
    let shell = Shell::with_own_project();
    shell.up();
    let manifest = "[package]\nname = \"functions\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[[bin]]\nname = \"login\"\npath = \"login.rs\"\n[workspace]\n";
    std::fs::write(shell.project_file("Cargo.toml"), manifest).expect("a manifest");
    std::fs::write(shell.project_file("login.rs"), "fn main() { broken }").expect("a source");
    let refused = shell.building().args(["up", "--stage", "test", "--detach"]).output().expect("it runs");
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused).contains("Nothing was changed"), "{}", text(&refused));
    assert!(shell.up().contains("Nothing to do"));
}

#[test]
fn a_policy_that_is_none_is_refused_by_name_before_anything_happens() {
    let shell = Shell::with_own_project();
    let policy = shell.project_file("policies/login.json");
    let good = std::fs::read_to_string(&policy).expect("a policy");
    for (bad, told) in [
        (good.replace("{{usersTableArn}}", "{{usersTabelArn}}"), "usersTabelArn"),
        (good.replacen('{', "", 1), "login.json"),
        ("{\"Version\": \"2012-10-17\", \"Statement\": {}}".to_owned(), "Statement"),
    ] {
        std::fs::write(&policy, bad).expect("a policy");
        let refused = shell.fails(&["up", "--detach"]);
        assert!(refused.contains("login.json") && refused.contains(told), "{refused}");
    }
}

#[test]
fn only_the_owner_can_read_a_stages_folder_and_no_secret_lies_in_its_state() {
    let shell = Shell::new();
    let printed = shell.up();
    let mode = |path: &str| std::fs::metadata(shell.folder().join(path)).expect("a file").permissions().mode() & 0o777;
    assert_eq!(mode(""), 0o700);
    for file in ["state.json", "secrets.json", "access.json", "serving.json"] {
        assert_eq!(mode(file), 0o600, "{file}");
    }
    let read = |file: &str| std::fs::read_to_string(shell.folder().join(file)).expect("a file");
    let secrets: serde_json::Value = serde_json::from_str(&read("secrets.json")).expect("JSON");
    let key = secrets["challengeKey"].as_str().expect("a key");
    let outputs = shell.succeeds(&["outputs", "--json", "--show-secrets"]);
    for text in [&read("state.json"), &read("serve.log"), &read("cloud/events.jsonl"), &printed, &outputs] {
        assert!(!text.contains(key));
    }
    let plain = shell.succeeds(&["outputs", "--json"]);
    assert!(!plain.contains("secretAccessKey") && !plain.contains("mailbox"), "{plain}");
}

#[tokio::test]
async fn stages_side_by_side_share_nothing() {
    let (one, other) = (World::new().await, World::new().await);
    assert_ne!(one.output("endpointUrl"), other.output("endpointUrl"));
    assert_ne!(one.output("identityPoolId"), other.output("identityPoolId"));
    one.verified_user("ada@example.com").await;
    assert!(other.item("ada@example.com").await.is_none());
    assert!(other.mails("ada@example.com").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn up_in_the_foreground_shows_a_live_log_and_ctrl_c_stops_the_stage() {
    let shell = Shell::new();
    let mut up = shell.command(&["up", "--stage", "test"]).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut lines = BufReader::new(up.stdout.take().expect("its output")).lines();
    let mut until = |wanted: &str| {
        let line = lines.by_ref().map(|line| line.expect("UTF-8")).find(|line| line.contains(wanted));
        line.unwrap_or_else(|| panic!("no line with {wanted}"))
    };
    until("Live log");
    let world = World { outputs: shell.outputs(), shell };
    assert_eq!(world.create_user("ada@example.com", PASSWORD).await, json!({"created": true}));
    assert!(world.invoke(&world.guest().await, "changePassword", &json!({})).await.is_err());
    assert!(until("mail").contains("ada@example.com"));
    let call = until("portcullis-test-createUser");
    assert!(call.contains(" ms ") && call.contains(" MB"), "{call}");
    assert!(until("denied").contains("lambda:InvokeFunction"));

    // Another command works on the stage while it is shown, and does not take it over.
    assert!(world.shell.up().contains("Nothing to do"));
    let pid = world.shell.pid();
    let interrupted = Command::new("kill").args(["-INT", &up.id().to_string()]).status().expect("kill runs");
    assert!(interrupted.success());
    assert!(up.wait().expect("it ends").success());
    assert!(has_ended(pid), "the stage has stopped");
    assert!(world.shell.up().contains("Nothing to do"), "and its state stays");
    assert!(world.item("ada@example.com").await.is_some());
}

#[test]
fn a_stage_in_the_foreground_ends_with_a_killed_command() {
    let shell = Shell::new();
    let mut up = shell.command(&["up", "--stage", "test"]).stdout(Stdio::piped()).spawn().expect("it starts");
    let lines = BufReader::new(up.stdout.take().expect("its output")).lines();
    assert!(lines.map(|line| line.expect("UTF-8")).any(|line| line.contains("Live log")));
    let pid = shell.pid();
    kill(up.id());
    up.wait().expect("it ends");
    let begun = Instant::now();
    while !has_ended(pid) {
        assert!(begun.elapsed() < Duration::from_secs(20), "the stage goes on without its command");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_missing_npm_is_named() {
    let shell = Shell::with_own_project();
    std::fs::remove_dir_all(shell.project_file("static-site/node_modules")).expect("a folder");
    let up = shell.command(&["up", "--stage", "test", "--detach"]).env("PATH", "").output().expect("it runs");
    assert_eq!(up.status.code(), Some(1));
    assert!(text(&up).contains("install Node.js with npm"), "{}", text(&up));
    assert!(!shell.folder().join("state.json").exists(), "nothing was deployed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_has_its_own_limits() {
    let shell = Shell::new();
    let settings = shell.home().join("Pulumi.test.yaml");
    let plain = std::fs::read_to_string(&settings).expect("settings");
    for (limit, told) in [("passwordMinLength: 3", "8 or more"), ("sessionSecs: 60", "sessionSecs")] {
        std::fs::write(&settings, format!("{plain}  portcullis:limits:\n    {limit}\n")).expect("settings");
        let refused = shell.fails(&["up", "--detach"]);
        assert!(refused.contains("Pulumi.test.yaml") && refused.contains(told), "{refused}");
    }
    std::fs::write(&settings, format!("{plain}  portcullis:limits:\n    passwordMinLength: 30\n")).expect("settings");
    shell.up();
    let world = World { outputs: shell.outputs(), shell };
    let refused = world.create_user("ada@example.com", PASSWORD).await;
    assert_eq!(refused, json!({"created": false, "reasons": ["tooShort"]}));
    let page = format!("{}/signUp.html", world.output("siteUrl"));
    let page = ureq::get(page).call().expect("a page").into_body().read_to_vec().expect("a body");
    let mut html = String::new();
    flate2::read::GzDecoder::new(&*page).read_to_string(&mut html).expect("gzip");
    assert!(html.contains("At least 30 characters") && !html.contains("{{"), "{html}");

    std::fs::write(world.shell.home().join("Pulumi.test.yaml"), plain).expect("settings");
    world.shell.up();
    assert_eq!(world.create_user("ada@example.com", PASSWORD).await, json!({"created": true}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_sender_replaces_the_mail_identity_and_keeps_the_users() {
    let world = World::new().await;
    world.verified_user("ada@example.com").await;
    let settings = world.shell.home().join("Pulumi.test.yaml");
    let plain = std::fs::read_to_string(&settings).expect("settings");
    std::fs::write(&settings, plain.replace("portcullis@example.com", "post@example.org")).expect("settings");
    let preview = foreseen(&world.shell.succeeds(&["preview"]));
    assert!(preview.contains(&"replace ses EmailIdentity sender".to_owned()), "{preview:?}");
    assert_eq!(done(&world.shell.up()), preview);
    world.lost_password("ada@example.com").await;
    assert_eq!(world.newest_mail("ada@example.com").from, "post@example.org");
    assert!(world.log_in("ada@example.com", PASSWORD).await.is_some());

    let (region, iterations) = (plain.replace("eu-west-1", "us-east-1"), "  portcullis:limits: {iterations: 700000}\n");
    for (changed, told) in [(region, "has eu-west-1"), (format!("{plain}{iterations}"), "has 600000")] {
        std::fs::write(&settings, changed).expect("settings");
        for command in [&["preview"][..], &["up", "--detach"]] {
            let refused = world.shell.fails(command);
            assert!(refused.contains(told), "{refused}");
        }
    }
}

#[test]
fn a_stage_takes_no_port_that_another_one_keeps() {
    let shell = Shell::new();
    let other = shell.home().join("other");
    std::fs::create_dir(&other).expect("a folder");
    std::fs::write(other.join("ports.json"), "{\"api\": 4566, \"site\": 8080}").expect("a file");
    let up = shell.command(&["up", "--stage", "test", "--detach"]).env("PORTCULLIS_PORTS", "").output();
    assert!(up.expect("it runs").status.success());
    let outputs = shell.outputs();
    assert_ne!(outputs["endpointUrl"], "http://127.0.0.1:4566");
    assert_ne!(outputs["siteUrl"], "http://127.0.0.1:8080");
}
