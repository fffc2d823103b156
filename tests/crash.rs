//! `kill -9` at any moment loses nothing that was acknowledged.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_ses::types::{Body, Content, Destination, Message};
use serde_json::json;

use crate::world::{PASSWORD, World, kill};

/// What a client was told is done.
#[derive(Default)]
struct Acknowledged {
    users: Vec<String>,
    items: Vec<String>,
    mails: Vec<String>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_killed_at_20_moments_under_load_loses_nothing_acknowledged() {
    let world = Arc::new(World::new().await);
    world.verified_user("ada@example.com").await;
    let acknowledged = Arc::new(Mutex::new(Acknowledged::default()));
    // A sign-up takes more than a second: on a slow machine few are done before a kill, and then there are more of those.
    let enough = |acknowledged: &Acknowledged| {
        acknowledged.users.len() >= 3 && acknowledged.items.len() >= 50 && acknowledged.mails.len() >= 20
    };
    for round in 0..80 {
        if round >= 20 && enough(&acknowledged.lock().expect("nobody panicked")) {
            break;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let load = [
            tokio::spawn(sign_ups(Arc::clone(&world), Arc::clone(&acknowledged), Arc::clone(&stop), round)),
            tokio::spawn(items(Arc::clone(&world), Arc::clone(&acknowledged), Arc::clone(&stop), round)),
            tokio::spawn(mails(Arc::clone(&world), Arc::clone(&acknowledged), Arc::clone(&stop), round)),
        ];
        let mut random = [0; 2];
        getrandom::fill(&mut random).expect("random numbers");
        tokio::time::sleep(Duration::from_millis(u64::from(u16::from_le_bytes(random)) % 2000)).await;
        kill(world.shell.pid());
        stop.store(true, Ordering::Relaxed);
        for task in load {
            task.await.expect("the load ends by itself");
        }
        let up = world.shell.up();
        assert!(up.contains("Nothing to do"), "every resource is there: {up}");
    }
    let acknowledged = std::mem::take(&mut *acknowledged.lock().expect("nobody panicked"));
    assert!(enough(&acknowledged), "the load was acknowledged");
    let mailed: Vec<String> = world.all_mails().into_iter().map(|mail| mail.to).collect();
    for email in &acknowledged.users {
        let item = world.item(email).await.expect("an acknowledged user");
        assert!(item.contains_key("password") && item.contains_key("unverified"), "{email} is whole");
        assert!(mailed.contains(email), "{email} got the mail");
    }
    for key in &acknowledged.items {
        assert!(world.item(key).await.is_some(), "{key}");
    }
    for to in &acknowledged.mails {
        assert!(mailed.contains(to), "{to}");
    }
    assert!(world.log_in("ada@example.com", PASSWORD).await.is_some());
}

async fn sign_ups(world: Arc<World>, acknowledged: Arc<Mutex<Acknowledged>>, stop: Arc<AtomicBool>, round: u32) {
    let guest = world.guest().await;
    for number in 0.. {
        let email = format!("user-{round}-{number}@example.com");
        let event = json!({"email": email, "password": PASSWORD});
        let reply = world.invoke(&guest, "createUser", &event).await;
        if stop.load(Ordering::Relaxed) || reply.is_err() {
            return;
        }
        acknowledged.lock().expect("nobody panicked").users.push(email);
    }
}

async fn items(world: Arc<World>, acknowledged: Arc<Mutex<Acknowledged>>, stop: Arc<AtomicBool>, round: u32) {
    let client = world.dynamodb(&world.admin());
    for number in 0.. {
        let key = format!("item-{round}-{number}");
        let put = client.put_item().table_name(world.output("usersTable"));
        let put = put.item("email", AttributeValue::S(key.clone())).send().await;
        if stop.load(Ordering::Relaxed) || put.is_err() {
            return;
        }
        acknowledged.lock().expect("nobody panicked").items.push(key);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn mails(world: Arc<World>, acknowledged: Arc<Mutex<Acknowledged>>, stop: Arc<AtomicBool>, round: u32) {
    let client = world.ses(&world.admin());
    let content = |text: &str| Content::builder().data(text).build().expect("content");
    for number in 0.. {
        let to = format!("mail-{round}-{number}@example.com");
        let message = Message::builder().subject(content("Load")).body(Body::builder().text(content("-")).build());
        let send = client.send_email().source(world.output("sender")).message(message.build());
        let sent = send.destination(Destination::builder().to_addresses(&to).build()).send().await;
        if stop.load(Ordering::Relaxed) || sent.is_err() {
            return;
        }
        acknowledged.lock().expect("nobody panicked").mails.push(to);
        // The mailbox keeps the last thousand.
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
}
