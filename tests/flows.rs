//! Every flow, through the official SDK against a stage of its own.

use serde_json::json;

use crate::world::{NEW_PASSWORD, PASSWORD, World};

#[tokio::test]
async fn a_user_signs_up_verifies_and_logs_in() {
    let world = World::new().await;
    let email = "ada@example.com";
    assert_eq!(world.create_user(email, PASSWORD).await, json!({"created": true}));
    assert!(world.log_in(email, PASSWORD).await.is_none(), "not before the address is confirmed");

    let mail = world.newest_mail(email);
    assert_eq!(mail.from, world.output("sender"));
    assert!(mail.html.contains("verify.html?token="), "{}", mail.html);
    assert!(!mail.subject.is_empty());
    assert_eq!(world.verify_user(&mail.token("token")).await, json!({"verified": true}));

    let member = world.log_in(email, PASSWORD).await.expect("the right password");
    assert!(world.log_in(email, NEW_PASSWORD).await.is_none(), "a wrong password");
    let again = world.log_in(email, PASSWORD).await.expect("the right password");
    assert_eq!(again.identity_id, member.identity_id, "the same user is the same identity");
}

#[tokio::test]
async fn a_verification_token_works_once() {
    let world = World::new().await;
    assert_eq!(world.create_user("ada@example.com", PASSWORD).await, json!({"created": true}));
    let token = world.newest_mail("ada@example.com").token("token");
    assert_eq!(world.verify_user(&token).await, json!({"verified": true}));
    assert_eq!(world.verify_user(&token).await, json!({"verified": false}));
}

#[tokio::test]
async fn a_member_changes_the_password() {
    let world = World::new().await;
    let email = "ada@example.com";
    world.verified_user(email).await;
    let member = world.log_in(email, PASSWORD).await.expect("logged in");
    let refused = world.change_password(&member, NEW_PASSWORD, "another good old password").await.expect("a reply");
    assert_eq!(refused["changed"], false, "the old password was wrong");
    let changed = world.change_password(&member, PASSWORD, NEW_PASSWORD).await.expect("a reply");
    assert_eq!(changed, json!({"changed": true}));
    assert!(world.log_in(email, PASSWORD).await.is_none());
    assert!(world.log_in(email, NEW_PASSWORD).await.is_some());
    assert!(world.newest_mail(email).subject.to_lowercase().contains("password"), "the owner is told");
}

#[tokio::test]
async fn a_lost_password_is_reset_by_mail() {
    let world = World::new().await;
    let email = "ada@example.com";
    world.verified_user(email).await;
    assert_eq!(world.lost_password(email).await, json!({"sent": true}));
    let token = world.newest_mail(email).token("resetToken");
    let weak = world.reset_password(&token, "short").await;
    assert_eq!(weak["changed"], false);
    assert_eq!(
        world.reset_password(&token, NEW_PASSWORD).await,
        json!({"changed": true}),
        "a refusal used no token up"
    );
    assert_eq!(world.reset_password(&token, PASSWORD).await["changed"], false, "a reset token works once");
    assert!(world.log_in(email, PASSWORD).await.is_none());
    assert!(world.log_in(email, NEW_PASSWORD).await.is_some());
}

#[tokio::test]
async fn a_guest_cannot_invoke_change_password() {
    let world = World::new().await;
    world.verified_user("ada@example.com").await;
    let event = json!({"email": "ada@example.com", "oldPassword": PASSWORD, "newPassword": NEW_PASSWORD});
    let denied = world.invoke(&world.guest().await, "changePassword", &event).await.expect_err("a guest is denied");
    assert!(denied.contains("AccessDenied"), "{denied}");
    assert!(world.log_in("ada@example.com", PASSWORD).await.is_some(), "nothing changed");
}

#[tokio::test]
async fn a_member_cannot_change_another_members_password() {
    let world = World::new().await;
    world.verified_user("ada@example.com").await;
    world.verified_user("bob@example.com").await;
    let mut ada = world.log_in("ada@example.com", PASSWORD).await.expect("logged in");
    assert!(world.log_in("bob@example.com", PASSWORD).await.is_some());
    ada.email = "bob@example.com".to_owned();
    let refused = world.change_password(&ada, PASSWORD, NEW_PASSWORD).await;
    assert!(refused.as_ref().map_or(true, |reply| reply["changed"] == false), "{refused:?}");
    assert!(world.log_in("bob@example.com", PASSWORD).await.is_some(), "nothing changed");
}
