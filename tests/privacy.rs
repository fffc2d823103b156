//! Nobody learns who has an account: not from replies, not from the log of a call, not from what the function does.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use aws_sdk_lambda::types::LogType;
use base64::Engine as _;
use serde_json::{Value as Json, json};

use crate::world::{Credentials, Exchange, PASSWORD, World};

/// What a caller, and whoever watches the stage, sees of one call.
#[derive(Debug, PartialEq)]
struct Seen {
    reply: String,
    tail: String,
    /// What the function did, as the decision log has it.
    actions: Vec<String>,
}

const UNKNOWN: &str = "nobody@example.com";
const KNOWN: &str = "known@example.com";
const UNVERIFIED: &str = "unverified@example.com";
const THROTTLED: &str = "throttled@example.com";

#[tokio::test]
async fn login_looks_the_same_for_every_address() {
    let world = peopled().await;
    let guest = world.guest().await;
    let mut seen = Vec::new();
    for email in [UNKNOWN, KNOWN, UNVERIFIED, THROTTLED] {
        let exchange = world.client_first(&guest, email).await;
        let first = json!({"clientFirst": format!("n,,{}", exchange.client_first_bare)});
        // Nonce and salt differ for each address anyway: only their form is compared.
        let challenged = Seen { reply: form(&exchange), ..see(&world, &guest, "login", &first).await };
        let salt = world.client_first(&guest, email).await.attribute('s').to_owned();
        assert_eq!(salt, exchange.attribute('s'), "an address keeps its salt");
        let refused = see(&world, &guest, "login", &exchange.client_final("this is not the password")).await;
        assert_eq!(refused.reply, json!({"login": false}).to_string());
        seen.push((email, (challenged, refused)));
    }
    all_equal(seen);
}

#[tokio::test]
async fn sign_up_looks_the_same_for_every_address() {
    let world = peopled().await;
    looks_the_same(&world, "createUser", |email| json!({"email": email, "password": PASSWORD})).await;
}

#[tokio::test]
async fn a_lost_password_looks_the_same_for_every_address() {
    let world = peopled().await;
    looks_the_same(&world, "lostPassword", |email| json!({"email": email})).await;
    assert!(world.mails(UNKNOWN).is_empty(), "strangers get nothing");
}

#[tokio::test]
async fn a_functions_log_holds_its_request_function_and_code_and_nothing_else() {
    let world = peopled().await;
    let member = world.log_in(KNOWN, PASSWORD).await.expect("logged in");
    let changed = world.change_password(&member, PASSWORD, crate::world::NEW_PASSWORD).await;
    assert_eq!(changed, Ok(json!({"changed": true})));
    let logs = world.logs(&world.admin());
    for function in ["createUser", "verifyUser", "login", "changePassword", "lostPassword"] {
        let group = format!("/aws/lambda/{}", world.function(function));
        let mut messages = Vec::new();
        // Logs are written after the reply.
        for _ in 0..100 {
            let events = logs.filter_log_events().log_group_name(&group).send().await.expect("FilterLogEvents");
            messages = events.events().iter().filter_map(|event| event.message().map(str::to_owned)).collect();
            if messages.iter().any(|message| message.starts_with('{')) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let own: Vec<&String> = messages.iter().filter(|message| message.starts_with('{')).collect();
        assert!(!own.is_empty(), "{group}: {messages:?}");
        for line in own {
            let line: Json = serde_json::from_str(line).expect("JSON");
            let keys: BTreeSet<&str> = line.as_object().expect("an object").keys().map(String::as_str).collect();
            assert_eq!(keys, BTreeSet::from(["code", "function", "requestId"]), "{line}");
            assert_eq!(line["function"], function);
        }
        let all = messages.concat();
        assert!(
            !all.contains('@') && !all.contains(PASSWORD) && !all.contains("SCRAM") && !all.contains("arn:"),
            "{all}"
        );
    }
}

/// A stage with a known, an unverified and a throttled address; all mails of the latter were just sent.
async fn peopled() -> World {
    let world = World::new().await;
    world.verified_user(KNOWN).await;
    world.verified_user(THROTTLED).await;
    assert_eq!(world.create_user(UNVERIFIED, PASSWORD).await, json!({"created": true}));
    for _ in 0..2 {
        world.lost_password(THROTTLED).await;
        world.create_user(THROTTLED, PASSWORD).await;
    }
    for _ in 0..7 {
        assert!(world.log_in(THROTTLED, "this is not the password").await.is_none());
    }
    world
}

async fn looks_the_same(world: &World, function: &str, event: impl Fn(&str) -> Json) {
    let guest = world.guest().await;
    let mut seen = Vec::new();
    for email in [UNKNOWN, KNOWN, UNVERIFIED, THROTTLED] {
        let begun = Instant::now();
        let call = see(world, &guest, function, &event(email)).await;
        assert!(begun.elapsed() >= Duration::from_secs(1), "no answer before the fixed time");
        seen.push((email, call));
    }
    all_equal(seen);
}

fn all_equal<T: PartialEq + std::fmt::Debug>(seen: Vec<(&str, T)>) {
    let (_, first) = &seen[0];
    for (email, other) in &seen[1..] {
        assert_eq!(first, other, "{UNKNOWN} and {email}");
    }
}

async fn see(world: &World, caller: &Credentials, function: &str, event: &Json) -> Seen {
    let role = format!("/portcullis-test-{function}/");
    let own = |world: &World| {
        let decisions = world.decisions().into_iter().filter(|decision| {
            let principal = decision["principal"].as_str().expect("a principal");
            principal.contains(&role) && !decision["action"].as_str().expect("an action").starts_with("logs:")
        });
        decisions.collect::<Vec<_>>()
    };
    let before = own(world).len();
    let request = world.lambda(caller).invoke().function_name(world.function(function)).log_type(LogType::Tail);
    let reply =
        request.payload(aws_sdk_lambda::primitives::Blob::new(event.to_string())).send().await.expect("a reply");
    assert_eq!(reply.function_error(), None);
    let tail = base64::engine::general_purpose::STANDARD.decode(reply.log_result().expect("a tail")).expect("base64");
    let payload = reply.payload().expect("a payload").as_ref().to_vec();
    let actions = own(world).split_off(before).into_iter().map(|decision| {
        assert_eq!(decision["allowed"], true, "{decision}");
        format!("{} on {}", decision["action"], decision["resource"])
    });
    Seen {
        reply: String::from_utf8(payload).expect("UTF-8"),
        tail: plain(&String::from_utf8(tail).expect("UTF-8")),
        actions: actions.collect(),
    }
}

/// A log tail without what differs from call to call: request ids, times, sizes, and whether the process was new.
fn plain(tail: &str) -> String {
    let tail = tail.split("Init Duration").next().unwrap_or_default();
    tail.chars()
        .map(|c| if c.is_ascii_digit() || matches!(c, 'a'..='f' | '.') { '#' } else { c })
        .collect::<String>()
        .split('#')
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("#")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

fn form(exchange: &Exchange) -> String {
    let nonce = exchange.attribute('r').strip_prefix(exchange.client_first_bare.split_once("r=").expect("a nonce").1);
    format!(
        "nonce +{} salt {} iterations {}",
        nonce.expect("the client's nonce comes first").len(),
        exchange.attribute('s').len(),
        exchange.attribute('i')
    )
}
