//! Bad input and broken functions: a clear refusal, nothing written, and the next call works.

use aws_sdk_lambda::types::InvocationType;
use serde_json::{Value as Json, json};

use crate::world::{PASSWORD, World, eventually};

#[tokio::test]
async fn events_of_the_wrong_shape_are_bad_requests_and_write_nothing() {
    let world = World::new().await;
    let guest = world.guest().await;
    let long = "x".repeat(100_000);
    let events: Vec<(&str, Json)> = vec![
        ("createUser", json!(null)),
        ("createUser", json!([])),
        ("createUser", json!("text")),
        ("createUser", json!({})),
        ("createUser", json!({"email": "ada@example.com"})),
        ("createUser", json!({"email": 1, "password": PASSWORD})),
        ("createUser", json!({"email": "ada@example.com", "password": PASSWORD, "admin": true})),
        ("createUser", json!({"email": long, "password": PASSWORD})),
        ("createUser", json!({"email": "ada@example.com", "password": long})),
        ("verifyUser", json!({})),
        ("verifyUser", json!({"token": 5})),
        ("login", json!({})),
        ("login", json!({"clientFirst": "n,,"})),
        ("login", json!({"clientFirst": "p=tls-unique,,n=ada@example.com,r=abcdefghijklmnopqrst"})),
        ("login", json!({"clientFirst": "n,a=admin,n=ada@example.com,r=abcdefghijklmnopqrst"})),
        ("login", json!({"clientFirst": "n,,m=x,n=ada@example.com,r=abcdefghijklmnopqrst"})),
        ("login", json!({"clientFirst": long})),
        ("login", json!({"clientFinal": "c=biws,r=x,p=x"})),
        ("lostPassword", json!({"email": ["ada@example.com"]})),
        ("resetPassword", json!({"password": PASSWORD})),
        ("resetPassword", json!({"resetToken": {}, "password": PASSWORD})),
    ];
    for (function, event) in events {
        let reply = world.invoke(&guest, function, &event).await;
        let refused = match &reply {
            // A refusal is a value where the form was right, e.g. an address that is none.
            Ok(value) => value["created"] == false || value["verified"] == false || value["changed"] == false,
            Err(error) => error.contains("BadRequest"),
        };
        let shown: String = event.to_string().chars().take(100).collect();
        assert!(refused, "{function} {shown}: {reply:?}");
        let told = format!("{reply:?}");
        assert!(!told.contains("serde") && !told.contains("expected") && !told.contains("column"), "{told}");
    }
    for garbage in ["", "{", "\u{0}", "[[[[", "{\"email\": \"a"] {
        let refused = world.invoke_bytes(&guest, "createUser", garbage.as_bytes().to_vec()).await;
        assert!(refused.is_err(), "{garbage:?}");
    }
    let items =
        world.dynamodb(&world.admin()).scan().table_name(world.output("usersTable")).send().await.expect("Scan");
    assert_eq!(items.count(), 0, "nothing was written");
    assert!(world.mails("ada@example.com").is_empty());
}

#[tokio::test]
async fn malformed_addresses_and_weak_passwords_are_refused_with_reasons() {
    let world = World::new().await;
    for (email, password) in [
        ("ada", PASSWORD),
        ("ada@", PASSWORD),
        ("@example.com", PASSWORD),
        ("ada@example.com\r\nBcc: eve@example.com", PASSWORD),
        ("ada@example.com", "short"),
        ("ada@example.com", "password1234"),
        ("ada.lovelace.1815@example.com", "ada.lovelace.1815"),
    ] {
        let refused = world.create_user(email, password).await;
        assert_eq!(refused["created"], false, "{email} {password}");
        assert!(!refused["reasons"].as_array().expect("reasons").is_empty(), "{refused}");
    }
    assert_eq!(world.create_user("  Ada@Example.COM ", PASSWORD).await, json!({"created": true}));
    assert!(world.item("ada@example.com").await.is_some(), "stored in lower case");
}

#[tokio::test]
async fn garbage_tokens_are_refused() {
    let world = World::new().await;
    for token in ["", "x", "../../etc/passwd", "\u{1F600}", &"A".repeat(43), &"A".repeat(5000)] {
        let verified = world.invoke(&world.guest().await, "verifyUser", &json!({"token": token})).await;
        assert!(verified.as_ref().map_or(true, |reply| reply["verified"] == false), "{verified:?}");
        let event = json!({"resetToken": token, "password": PASSWORD});
        let reset = world.invoke(&world.guest().await, "resetPassword", &event).await;
        assert!(reset.as_ref().map_or(true, |reply| reply["changed"] == false), "{reset:?}");
    }
}

#[tokio::test]
async fn a_hostile_client_context_ends_no_process() {
    let world = World::new().await;
    let lambda = world.lambda(&world.guest().await);
    use base64::Engine as _;
    let contexts = [
        "{}",
        "{\"client\": 5}",
        "{\"custom\": {\"a\": []}}",
        "{\"client\": {\"x\": \"\u{e9}\\u0000\"}}",
        "{\"env\": null}",
    ];
    for context in contexts {
        let context = base64::engine::general_purpose::STANDARD.encode(context);
        let request = lambda.invoke().function_name(world.function("verifyUser")).client_context(context);
        let reply = request.payload(aws_sdk_lambda::primitives::Blob::new("{\"token\": \"x\"}")).send().await;
        let reply = reply.expect("a reply");
        assert_eq!(reply.function_error(), None, "{:?}", reply.payload());
    }
    let starts = world.events("invocation").iter().filter(|call| !call["initMs"].is_null()).count();
    assert_eq!(starts, 1, "one process served all of them");
    for bad in ["not base64!", "bm90IGpzb24=", "W10=", "bnVsbA=="] {
        let request = lambda.invoke().function_name(world.function("verifyUser")).client_context(bad);
        assert!(request.send().await.is_err(), "{bad}");
    }
    assert_eq!(world.verify_user("x").await, json!({"verified": false}));
}

#[tokio::test]
async fn invocation_types_are_those_of_lambda() {
    let world = World::new().await;
    let lambda = world.lambda(&world.guest().await);
    let invoke = |kind: InvocationType| {
        let request = lambda.invoke().function_name(world.function("lostPassword")).invocation_type(kind);
        request.payload(aws_sdk_lambda::primitives::Blob::new("{\"email\": \"ada@example.com\"}")).send()
    };
    assert_eq!(invoke(InvocationType::DryRun).await.expect("allowed").status_code(), 204);
    assert!(world.events("invocation").is_empty(), "a dry run runs nothing");
    assert_eq!(invoke(InvocationType::Event).await.expect("accepted").status_code(), 202);
    eventually("the asynchronous call", || (world.events("invocation").len() == 1).then_some(())).await;
    let unknown = invoke(InvocationType::from("Sideways")).await.expect_err("unknown");
    assert!(format!("{:?}", unknown.into_service_error()).contains("InvalidParameterValue"));
    let denied =
        lambda.invoke().function_name(world.function("changePassword")).invocation_type(InvocationType::DryRun);
    assert!(denied.send().await.is_err(), "a dry run is authorised too");
    assert_eq!(world.verify_user("x").await, json!({"verified": false}));
}

#[tokio::test]
async fn a_qualified_call_needs_a_qualified_grant_and_what_is_not_there_is_not_told_to_the_unauthorised() {
    let world = World::new().await;
    let guest = world.lambda(&world.guest().await);
    let name = world.function("verifyUser");
    let request = guest.invoke().function_name(name).qualifier("$LATEST").send().await.expect_err("not granted");
    assert!(format!("{:?}", request.into_service_error()).contains("AccessDenied"));
    for missing in ["portcullis-test-nothing", &format!("{name}:1")] {
        let request = guest.invoke().function_name(missing).send().await.expect_err("not granted");
        assert!(format!("{:?}", request.into_service_error()).contains("AccessDenied"));
    }
    let admin = world.lambda(&world.admin()).invoke().function_name("portcullis-test-nothing").send().await;
    assert!(admin.expect_err("not there").into_service_error().is_resource_not_found_exception());
}

#[tokio::test]
async fn a_guests_credentials_open_nothing_else() {
    let world = World::new().await;
    world.verified_user("ada@example.com").await;
    let guest = world.guest().await;
    let table = world.output("usersTable");
    let scan = world.dynamodb(&guest).scan().table_name(table).send().await.expect_err("denied");
    assert!(format!("{:?}", scan.into_service_error()).contains("AccessDenied"));
    let member = world.log_in("ada@example.com", PASSWORD).await.expect("logged in");
    let scan = world.dynamodb(&member.credentials).scan().table_name(table).send().await.expect_err("denied");
    assert!(format!("{:?}", scan.into_service_error()).contains("AccessDenied"));
    assert!(world.credentials(&member.identity_id, None).await.is_err(), "an identity alone is no login");
    assert!(world.credentials(&member.identity_id, Some("e30.e30.e30")).await.is_err(), "nor is a forged token");
    let other = world.cognito().get_id().identity_pool_id(world.output("identityPoolId")).send().await.expect("GetId");
    let other = other.identity_id().expect("an identity");
    assert!(world.credentials(other, Some(&member.token)).await.is_err(), "nor is a token of another identity");
    let (key, secret) = (guest.access_key_id(), guest.secret_access_key());
    let untokened = world.lambda(&aws_credential_types::Credentials::new(key, secret, None, None, "test"));
    assert!(
        untokened.invoke().function_name(world.function("verifyUser")).send().await.is_err(),
        "a session needs its token"
    );
}
