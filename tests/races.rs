//! Two at once: exactly one wins, and the record is right.

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::json;

use crate::world::{NEW_PASSWORD, PASSWORD, World};

const OTHER_PASSWORD: &str = "wet gravel under slow wheels";

#[tokio::test]
async fn of_two_sign_ups_of_one_address_one_wins_whole() {
    let world = World::new().await;
    let email = "ada@example.com";
    let both = tokio::join!(world.create_user(email, PASSWORD), world.create_user(email, OTHER_PASSWORD));
    assert_eq!(both, (json!({"created": true}), json!({"created": true})), "nobody learns who was first");
    let mails = world.mails(email);
    assert_eq!(mails.len(), 1, "{mails:?}");
    assert_eq!(world.verify_user(&mails[0].token("token")).await, json!({"verified": true}));
    let logins = [world.log_in(email, PASSWORD).await.is_some(), world.log_in(email, OTHER_PASSWORD).await.is_some()];
    assert_eq!(logins.iter().filter(|login| **login).count(), 1, "one password, of the sign-up whose mail came");
}

#[tokio::test]
async fn of_two_uses_of_one_verification_token_one_verifies() {
    let world = World::new().await;
    assert_eq!(world.create_user("ada@example.com", PASSWORD).await, json!({"created": true}));
    let token = world.newest_mail("ada@example.com").token("token");
    let (one, other) = tokio::join!(world.verify_user(&token), world.verify_user(&token));
    let mut both = [one["verified"].as_bool(), other["verified"].as_bool()];
    both.sort();
    assert_eq!(both, [Some(false), Some(true)]);
    let item = world.item("ada@example.com").await.expect("the user");
    assert!(!item.contains_key("unverified") && !item.contains_key("expiresAt"), "{:?}", item.keys());
}

#[tokio::test]
async fn of_two_logins_with_one_challenge_one_succeeds() {
    let world = World::new().await;
    world.verified_user("ada@example.com").await;
    let guest = world.guest().await;
    let event = world.client_first(&guest, "ada@example.com").await.client_final(PASSWORD);
    let (one, other) = tokio::join!(world.invoke(&guest, "login", &event), world.invoke(&guest, "login", &event));
    let mut both = [one.expect("a reply")["login"].as_bool(), other.expect("a reply")["login"].as_bool()];
    both.sort();
    assert_eq!(both, [Some(false), Some(true)]);
    let later = world.invoke(&guest, "login", &event).await.expect("a reply");
    assert_eq!(later, json!({"login": false}), "and never again");
}

#[tokio::test]
async fn of_two_resets_with_one_token_one_changes_the_password() {
    let world = World::new().await;
    let email = "ada@example.com";
    world.verified_user(email).await;
    assert_eq!(world.lost_password(email).await, json!({"sent": true}));
    let token = world.newest_mail(email).token("resetToken");
    let (one, other) =
        tokio::join!(world.reset_password(&token, NEW_PASSWORD), world.reset_password(&token, OTHER_PASSWORD));
    let changed = [one["changed"] == true, other["changed"] == true];
    assert_eq!(changed.iter().filter(|changed| **changed).count(), 1, "{one} {other}");
    assert_eq!(world.log_in(email, NEW_PASSWORD).await.is_some(), changed[0]);
    assert_eq!(world.log_in(email, OTHER_PASSWORD).await.is_some(), changed[1]);
    assert!(world.log_in(email, PASSWORD).await.is_none());
}

#[tokio::test]
async fn a_throttled_login_fails_with_the_right_password_too_until_a_reset() {
    let world = World::new().await;
    let email = "ada@example.com";
    world.verified_user(email).await;
    let number = |number: u64| AttributeValue::N(number.to_string());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_secs();
    let update = world.dynamodb(&world.admin()).update_item().table_name(world.output("usersTable"));
    let update = update.key("email", AttributeValue::S(email.to_owned()));
    let update = update.update_expression("SET loginFailures = :failures, loginAllowedAt = :at");
    let update = update.expression_attribute_values(":failures", number(20));
    update.expression_attribute_values(":at", number(now + 900)).send().await.expect("UpdateItem");

    let logins = eight_logins(&world, email).await;
    assert!(logins.iter().all(|reply| *reply == json!({"login": false})), "{logins:?}");
    assert_eq!(world.item(email).await.expect("the user")["loginFailures"], number(20), "it was not even compared");
    world.lost_password(email).await;
    let token = world.newest_mail(email).token("resetToken");
    assert_eq!(world.reset_password(&token, NEW_PASSWORD).await, json!({"changed": true}));
    assert!(world.log_in(email, NEW_PASSWORD).await.is_some(), "a reset is the way out");
}

/// Eight logins at once with the right password, each with its own challenge.
async fn eight_logins(world: &World, email: &str) -> Vec<serde_json::Value> {
    let guest = world.guest().await;
    let mut events = Vec::new();
    for _ in 0..8 {
        events.push(world.client_first(&guest, email).await.client_final(PASSWORD));
    }
    let replies = events.iter().map(|event| world.invoke(&guest, "login", event));
    futures_util::future::join_all(replies).await.into_iter().map(|reply| reply.expect("login replies")).collect()
}
