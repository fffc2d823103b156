//! The local cloud on the wire: AWS's own answers to calls that are malformed, unsigned, wrongly signed, unknown or
//! forbidden; and it goes on serving.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use aws_sdk_ses::types::{Body, Content, Destination, Message};
use serde_json::{Value as Json, json};

use crate::world::{Credentials, World};

/// An HTTP client to which a refusal is an answer too.
fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).build().into()
}

/// Status, error code and body of an unsigned call.
fn unsigned(world: &World, headers: &[(&str, &str)], body: &str) -> (u16, String, String) {
    let mut request = agent().post(world.output("endpointUrl"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let reply = request.send(body).expect("an answer");
    let code = reply.headers().get("x-amzn-errortype").and_then(|code| code.to_str().ok()).unwrap_or_default();
    let (status, code) = (reply.status().as_u16(), code.to_owned());
    (status, code, reply.into_body().read_to_string().expect("a body"))
}

#[tokio::test]
async fn unsigned_calls_get_what_aws_answers() {
    let world = World::new().await;
    let json = ("content-type", "application/x-amz-json-1.0");
    let (status, _, body) = unsigned(&world, &[json, ("x-amz-target", "DynamoDB_20120810.ListTables")], "{}");
    assert_eq!(status, 400);
    assert!(body.contains("MissingAuthenticationTokenException"), "{body}");
    let form = ("content-type", "application/x-www-form-urlencoded");
    let (status, _, body) = unsigned(&world, &[form], "Action=SendEmail&Version=2010-12-01");
    assert_eq!(status, 403);
    assert!(body.contains("<Code>MissingAuthenticationToken</Code>"), "{body}");

    let cognito = |operation: &'static str| [json, ("x-amz-target", operation)];
    let (status, _, body) = unsigned(&world, &cognito("AWSCognitoIdentityService.NoSuchThing"), "{}");
    assert_eq!(status, 400, "{body}");
    let pool = json!({"IdentityPoolId": "eu-west-1:00000000-0000-0000-0000-000000000000"}).to_string();
    let (_, _, body) = unsigned(&world, &cognito("AWSCognitoIdentityService.GetId"), &pool);
    assert!(body.contains("ResourceNotFoundException"), "{body}");
    for garbage in ["", "{", "[]", "null", "\u{0}"] {
        let (status, _, _) = unsigned(&world, &cognito("AWSCognitoIdentityService.GetId"), garbage);
        assert_eq!(status, 400, "{garbage:?}");
    }
}

#[tokio::test]
async fn wrongly_signed_calls_are_refused_with_the_codes_that_sdks_know() {
    let world = World::new().await;
    let admin = world.admin();
    let with = |key: &str, secret: &str| Credentials::new(key, secret, None, None, "test");
    let wrong_secret = with(admin.access_key_id(), "wrong");
    let unknown_key = with("AKIAIOSFODNN7EXAMPLE", "wrong");
    for (credentials, code) in
        [(&wrong_secret, "InvalidSignatureException"), (&unknown_key, "UnrecognizedClientException")]
    {
        let refused = world.dynamodb(credentials).list_tables().send().await.expect_err("refused");
        assert!(format!("{:?}", refused.into_service_error()).contains(code), "{code}");
        let refused = world.lambda(credentials).list_functions().send().await.expect_err("refused");
        assert!(format!("{:?}", refused.into_service_error()).contains(code), "{code}");
    }
    let refused = world.ses(&wrong_secret).get_send_quota().send().await.expect_err("refused");
    assert!(format!("{:?}", refused.into_service_error()).contains("SignatureDoesNotMatch"));
    assert!(world.dynamodb(&admin).list_tables().send().await.is_ok(), "and it goes on serving");
}

#[tokio::test]
async fn mail_goes_out_only_from_the_declared_sender() {
    let world = World::new().await;
    let content = |text: &str| Content::builder().data(text).build().expect("content");
    let send = |from: &str| {
        let message = Message::builder().subject(content("Hello")).body(Body::builder().text(content("-")).build());
        let to = Destination::builder().to_addresses("ada@example.com").build();
        world.ses(&world.admin()).send_email().source(from).destination(to).message(message.build()).send()
    };
    let refused = send("eve@example.com").await.expect_err("refused");
    assert!(refused.into_service_error().is_message_rejected());
    send(world.output("sender")).await.expect("taken");
    assert_eq!(world.mails("ada@example.com").len(), 1);
}

#[tokio::test]
async fn broken_http_and_foreign_hosts_are_turned_away() {
    let world = World::new().await;
    for url in ["endpointUrl", "siteUrl"] {
        let address = world.output(url).strip_prefix("http://").expect("loopback");
        let ask = |request: &str| {
            let mut stream = TcpStream::connect(address).expect("it listens");
            stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
            stream.write_all(request.as_bytes()).expect("sent");
            if request.is_empty() {
                stream.shutdown(std::net::Shutdown::Write).expect("closed");
            }
            let mut answer = String::new();
            let _ = stream.read_to_string(&mut answer);
            answer
        };
        for broken in
            ["", "\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n"]
        {
            assert!(!ask(broken).contains(" 200 "), "{broken:?}");
        }
        let foreign = ask("GET /index.html HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n");
        assert!(foreign.starts_with("HTTP/1.1 421"), "{foreign}");
    }
    let page = ureq::get(format!("{}/index.html", world.output("siteUrl"))).call().expect("it goes on serving");
    let header = |name: &str| page.headers().get(name).map(|value| value.to_str().expect("text").to_owned());
    assert_eq!(header("content-type").as_deref(), Some("text/html; charset=utf-8"));
    assert_eq!(header("content-encoding").as_deref(), Some("gzip"));
    assert_eq!(header("cache-control").as_deref(), Some("no-cache"));
    assert!(header("etag").is_some() && header("content-security-policy").is_none(), "as S3 answers");
}

#[tokio::test]
async fn the_site_serves_its_pages_and_nothing_else() {
    let world = World::new().await;
    let agent = agent();
    for path in [
        "/",
        "/nothing.html",
        "/package.json",
        "/node_modules/aws4fetch/package.json",
        "/../state.json",
        "/%2e%2e/stage.json",
    ] {
        let reply = agent.get(format!("{}{path}", world.output("siteUrl"))).call().expect("an answer");
        assert_eq!(reply.status().as_u16(), 403, "{path}");
        let body = reply.into_body().read_to_string().expect("a body");
        assert!(body.contains("<Code>AccessDenied</Code>"), "{body}");
    }
    let put = agent.put(format!("{}/index.html", world.output("siteUrl"))).send("mine").expect("an answer");
    assert!(put.status().is_client_error(), "{}", put.status());
}

#[tokio::test]
async fn the_mailbox_needs_its_token() {
    let world = World::new().await;
    world.create_user("ada@example.com", crate::world::PASSWORD).await;
    let agent = agent();
    let (bare, _) = world.output("mailboxUrl").split_once('?').expect("a token");
    for url in [bare.to_owned(), format!("{bare}?token="), format!("{bare}?token=wrong")] {
        let reply = agent.get(url).header("Accept", "application/json").call().expect("an answer");
        assert_eq!(reply.status().as_u16(), 401);
        assert!(!reply.into_body().read_to_string().expect("a body").contains("ada@example.com"));
    }
}

#[tokio::test]
async fn a_request_signed_by_curl_is_understood() {
    let world = World::new().await;
    let admin = world.admin();
    let call = |secret: &str| {
        let curl = Command::new("curl")
            .args(["--silent", "--aws-sigv4", &format!("aws:amz:{}:dynamodb", world.output("region"))])
            .args(["--user", &format!("{}:{secret}", admin.access_key_id())])
            .args(["--header", "X-Amz-Target: DynamoDB_20120810.ListTables"])
            .args(["--header", "Content-Type: application/x-amz-json-1.0", "--data", "{}", world.output("endpointUrl")])
            .output()
            .expect("curl runs");
        serde_json::from_slice::<Json>(&curl.stdout).expect("JSON")
    };
    assert_eq!(call(admin.secret_access_key())["TableNames"], json!([world.output("usersTable")]));
    assert_eq!(call("wrong")["__type"], "InvalidSignatureException");
}
