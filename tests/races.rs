//! Two at once: exactly one wins, and the record is right.

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
async fn parallel_guesses_do_not_pass_the_throttle() {
    let world = World::new().await;
    let email = "ada@example.com";
    world.verified_user(email).await;
    let guest = world.guest().await;
    let mut guesses = tokio::task::JoinSet::new();
    let world = std::sync::Arc::new(world);
    for guess in 0..12 {
        let (world, guest) = (std::sync::Arc::clone(&world), guest.clone());
        guesses.spawn(async move {
            let event = world.client_first(&guest, email).await.client_final(&format!("a wrong guess number {guess}"));
            world.invoke(&guest, "login", &event).await.expect("a reply")
        });
    }
    while let Some(reply) = guesses.join_next().await {
        assert_eq!(reply.expect("a reply"), json!({"login": false}));
    }
    assert!(world.log_in(email, PASSWORD).await.is_none(), "now even the right password has to wait");
}
