//! The pages, as a person meets them: in a real browser, against a stage of their own.

mod browser;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value as Json, json};
use thirtyfour::Key;

use crate::world::{NEW_PASSWORD, PASSWORD, World};
use browser::{Browser, Screen};

const EMAIL: &str = "ada.lovelace@example.com";
const THIRD_PASSWORD: &str = "nine otters under the bridge";

#[tokio::test]
async fn the_whole_story_goes_well_on_a_desktop() {
    the_whole_story(Screen::Desktop).await;
}

#[tokio::test]
async fn the_whole_story_goes_well_on_a_phone() {
    the_whole_story(Screen::Phone).await;
}

async fn the_whole_story(screen: Screen) {
    let world = World::new().await;
    let browser = Browser::open(&world, screen).await;

    browser.visit("index.html").await;
    browser.look_around("index").await;
    browser.press("Create an account").await;
    browser.look_around("signUp").await;
    browser.sign_up(EMAIL, PASSWORD).await;
    browser.look_around("signUp-done").await;

    let mailbox = browser.open_mailbox().await;
    browser.look_around("mailbox").await;
    browser.open_mail(&mailbox, "Confirm").await;
    browser.look_around("mailbox-mail").await;
    browser.follow_the_mails_link().await;
    browser.look_around("verify").await;
    assert_eq!(browser.submit().await, "done");
    browser.look_around("verify-done").await;

    browser.press("Log in").await;
    browser.look_around("login").await;
    browser.log_in(EMAIL, PASSWORD).await;
    assert_eq!(browser.text(".who").await, EMAIL);
    assert!(browser.text("time.ends").await.contains(", in 8 h"), "a session lasts eight hours");
    browser.look_around("login-done").await;

    browser.press("Change password").await;
    browser.look_around("changePassword").await;
    browser.change_password(PASSWORD, NEW_PASSWORD).await;
    browser.look_around("changePassword-done").await;
    browser.press("Back to your session").await;
    assert_eq!(browser.text(".who").await, EMAIL);
    browser.press("Log out").await;
    assert_eq!(browser.message().await, "You are logged out.");
    browser.look_around("login-out").await;

    browser.press("Lost your password?").await;
    browser.look_around("lostPassword").await;
    browser.ask_for_a_reset(EMAIL).await;
    browser.look_around("lostPassword-done").await;
    browser.open_mail(&mailbox, "new password").await;
    browser.look_around("mailbox-reset").await;
    browser.follow_the_mails_link().await;
    browser.look_around("resetPassword").await;
    assert_eq!(browser.set_password(THIRD_PASSWORD).await, "done");
    browser.look_around("resetPassword-done").await;

    browser.press("Log in").await;
    browser.log_in(EMAIL, THIRD_PASSWORD).await;
    assert_eq!(browser.text(".who").await, EMAIL);
    browser.has_a_clean_console().await;
}

#[tokio::test]
async fn opening_a_link_changes_nothing_until_its_button_is_pressed() {
    let world = World::new().await;
    let browser = Browser::open(&world, Screen::Desktop).await;

    world.create_user(EMAIL, PASSWORD).await;
    let token = world.newest_mail(EMAIL).token("token");
    let before = world.item(EMAIL).await;
    browser.visit(&format!("verify.html?token={token}")).await;
    assert_eq!(browser.address().await, "verify.html", "the token leaves the address bar");
    assert_eq!(browser.run("return document.referrer").await, "");
    browser.reload().await;
    assert_eq!(world.item(EMAIL).await, before, "nothing is changed");
    assert!(invocations(&world, "verifyUser").is_empty(), "nothing is called");
    assert_eq!(browser.submit().await, "done", "a reload keeps the token");
    assert_eq!(invocations(&world, "verifyUser").len(), 1);
    assert!(!world.item(EMAIL).await.expect("the user").contains_key("unverified"));

    world.lost_password(EMAIL).await;
    let token = world.newest_mail(EMAIL).token("resetToken");
    let before = world.item(EMAIL).await;
    browser.visit(&format!("resetPassword.html?resetToken={token}")).await;
    assert_eq!(browser.address().await, "resetPassword.html", "the token leaves the address bar");
    assert_eq!(world.item(EMAIL).await, before, "nothing is changed");
    assert!(invocations(&world, "resetPassword").is_empty(), "nothing is called");
    assert_eq!(browser.set_password(NEW_PASSWORD).await, "done");
    assert_eq!(invocations(&world, "resetPassword").len(), 1);
    assert!(!world.item(EMAIL).await.expect("the user").contains_key("resetToken"));
    browser.has_a_clean_console().await;
}

#[tokio::test]
async fn a_used_link_says_so() {
    let world = World::new().await;
    let browser = Browser::open(&world, Screen::Desktop).await;
    let used = "This link has been used already, or it has expired.";

    world.create_user(EMAIL, PASSWORD).await;
    let token = world.newest_mail(EMAIL).token("token");
    for state in ["done", "refused"] {
        browser.visit(&format!("verify.html?token={token}")).await;
        assert_eq!(browser.submit().await, state);
    }
    assert_eq!(browser.message().await, used);
    browser.look_around("verify-refused").await;

    world.lost_password(EMAIL).await;
    let token = world.newest_mail(EMAIL).token("resetToken");
    for (password, state) in [(NEW_PASSWORD, "done"), (THIRD_PASSWORD, "refused")] {
        browser.visit(&format!("resetPassword.html?resetToken={token}")).await;
        assert_eq!(browser.set_password(password).await, state);
    }
    assert_eq!(browser.message().await, used);
    assert!(world.log_in(EMAIL, NEW_PASSWORD).await.is_some(), "the second use changed nothing");

    for page in ["verify", "resetPassword"] {
        browser.visit(&format!("{page}.html")).await;
        assert_eq!(browser.state().await, "out", "{page} without a link");
        browser.look_around(&format!("{page}-out")).await;
    }
    browser.has_a_clean_console().await;
}

#[tokio::test]
async fn a_refused_sign_up_shows_why() {
    let world = World::new().await;
    let browser = Browser::open(&world, Screen::Phone).await;
    browser.visit("signUp.html").await;
    let cases = [
        ("", PASSWORD, "email", "Enter an address like name@example.com."),
        ("nonsense", PASSWORD, "email", "Enter an address like name@example.com."),
        (EMAIL, "", "password", "Enter a password."),
        (EMAIL, "short", "password", "Use at least 12 characters."),
        (EMAIL, "password1234", "password", "This is too easy to guess. Try a few unrelated words."),
        (EMAIL, EMAIL, "password", "Leave your email address out of it."),
    ];
    for (email, password, field, text) in cases {
        browser.fill("email", email).await;
        browser.fill("password", password).await;
        assert_eq!(browser.submit().await, "refused", "{email:?} {password:?}");
        let refusal = browser.text(&format!("#{field}-refusal")).await;
        assert!(refusal.contains(text), "{email:?} {password:?}: {refusal}");
        assert_eq!(focused(&browser).await, field, "it can be corrected at once");
        assert_eq!(
            browser.run("return [...document.querySelectorAll('[aria-invalid]')].map(({ id }) => id)").await,
            json!([field])
        );
    }
    browser.look_around("signUp-refused").await;
    assert!(world.item(EMAIL).await.is_none(), "nothing is stored");
    assert!(world.mails(EMAIL).is_empty(), "nothing is mailed");

    browser.sign_up(EMAIL, PASSWORD).await;
    browser.has_a_clean_console().await;
}

#[tokio::test]
async fn a_wrong_password_is_refused_and_nothing_more_is_said() {
    let world = World::new().await;
    world.verified_user(EMAIL).await;
    world.create_user("unverified@example.com", PASSWORD).await;
    let browser = Browser::open(&world, Screen::Desktop).await;
    browser.visit("login.html").await;
    let tries = [(EMAIL, NEW_PASSWORD), ("nobody@example.com", NEW_PASSWORD), ("unverified@example.com", PASSWORD)];
    for (email, password) in tries {
        assert_eq!(browser.try_to_log_in(email, password).await, "refused", "{email}");
        let shown = browser.text("main").await;
        assert!(shown.contains("Wrong email or password, or the address is not confirmed yet."), "{shown}");
        assert_eq!(browser.run("return document.querySelectorAll('[aria-invalid]').length").await, 0);
        assert!(!shown.contains(email), "the address is not repeated: {shown}");
        assert!(!browser.stored().await.contains("member"), "nobody is logged in");
    }
    browser.look_around("login-refused").await;
    browser.log_in(EMAIL, PASSWORD).await;
    browser.has_a_clean_console().await;
}

#[tokio::test]
async fn changing_the_password_without_a_session_points_to_login() {
    let world = World::new().await;
    let browser = Browser::open(&world, Screen::Desktop).await;
    browser.visit("changePassword.html").await;
    assert_eq!(browser.state().await, "out");
    assert_eq!(browser.text(".why").await, "Only you may change your password, so log in first.");
    browser.look_around("changePassword-out").await;
    browser.press("Log in").await;
    assert_eq!(browser.address().await, "login.html");
    browser.has_a_clean_console().await;
}

#[tokio::test]
async fn the_session_is_shown_and_survives_a_reload() {
    let world = World::new().await;
    world.verified_user(EMAIL).await;
    let browser = Browser::open(&world, Screen::Desktop).await;
    browser.visit("login.html").await;
    browser.log_in(" Ada.Lovelace@Example.COM ", PASSWORD).await;
    for _ in 0..2 {
        assert_eq!(browser.state().await, "done");
        assert_eq!(browser.text(".who").await, EMAIL);
        let hours =
            browser.run("return (Date.parse(document.querySelector('.ends').dateTime) - Date.now()) / 3.6e6").await;
        let hours = hours.as_f64().expect("a number");
        assert!((7.9..=8.0).contains(&hours), "{hours}");
        browser.reload().await;
    }
    browser.has_a_clean_console().await;
}

#[tokio::test]
async fn logging_out_drops_the_credentials() {
    let world = World::new().await;
    world.verified_user(EMAIL).await;
    let browser = Browser::open(&world, Screen::Desktop).await;
    browser.visit("login.html").await;
    browser.log_in(EMAIL, PASSWORD).await;
    browser.press("Change password").await;
    assert_eq!(browser.state().await, "ready");
    assert!(browser.stored().await.contains("token"));

    browser.press("Log out").await;
    assert_eq!(browser.state().await, "out");
    let stored = browser.run("return [Object.keys(sessionStorage), JSON.parse(sessionStorage.portcullis)]").await;
    let pool = world.output("identityPoolId");
    assert_eq!(stored, json!([["portcullis"], {"identityPoolId": pool}]));

    browser.visit("changePassword.html").await;
    assert_eq!(browser.state().await, "out", "no session any more");
    browser.driver.back().await.expect("back");
    assert_eq!(browser.address().await, "login.html");
    assert_eq!(browser.state().await, "ready", "the back button brings no session back");
    browser.has_a_clean_console().await;
}

#[tokio::test]
async fn the_credentials_are_renewed_before_they_expire() {
    let world = World::new().await;
    world.verified_user(EMAIL).await;
    let browser = Browser::open(&world, Screen::Desktop).await;
    browser.visit("login.html").await;
    browser.log_in(EMAIL, PASSWORD).await;
    browser.visit("changePassword.html").await;
    browser.change_password(PASSWORD, NEW_PASSWORD).await;
    let key = "return JSON.parse(sessionStorage.portcullis).member.credentials.accessKeyId";
    let first = browser.run(key).await;
    browser
        .run(
            "const people = JSON.parse(sessionStorage.portcullis);
             people.member.credentials.expiresAt = Date.now() + 60_000;
             sessionStorage.portcullis = JSON.stringify(people);",
        )
        .await;
    browser.reload().await;
    browser.change_password(NEW_PASSWORD, THIRD_PASSWORD).await;
    assert_ne!(browser.run(key).await, first);
    browser.has_a_clean_console().await;
}

#[tokio::test]
async fn login_keeps_the_password_in_the_browser() {
    let world = World::new().await;
    world.verified_user(EMAIL).await;
    let browser = Browser::open(&world, Screen::Desktop).await;
    browser.visit("login.html").await;
    browser.log_in(EMAIL, PASSWORD).await;

    let requests = browser.requests().await;
    let events: Vec<Json> = requests
        .iter()
        .filter(|request| request.url.contains("login/invocations"))
        .filter_map(|request| serde_json::from_str(&request.body).ok())
        .collect();
    assert_eq!(events.len(), 2, "{requests:?}");
    assert!(events[0].get("clientFirst").is_some() && events[1].get("clientFinal").is_some(), "{events:?}");
    for event in &events {
        assert!(event.as_object().expect("an event").keys().all(|key| key.starts_with("client")), "{event}");
    }
    for form in [PASSWORD.to_owned(), BASE64.encode(PASSWORD), PASSWORD.replace(' ', "%20"), PASSWORD.replace(' ', "+")]
    {
        for request in &requests {
            assert!(!request.whole.contains(&form), "{request:?}");
        }
        assert!(!browser.stored().await.contains(&form));
    }
    assert_eq!(browser.run("return [...document.forms[0].elements].map(({ value }) => value).join('')").await, "");
}

const PAGES: [&str; 7] = ["index", "signUp", "verify", "login", "changePassword", "lostPassword", "resetPassword"];

#[tokio::test]
async fn pages_load_from_the_stage_alone() {
    let world = World::new().await;
    let browser = Browser::open(&world, Screen::Desktop).await;
    for page in PAGES {
        browser.visit(&format!("{page}.html?token=x&resetToken=x")).await;
        let requests = browser.requests().await;
        assert!(requests.len() >= 3, "{page}: {requests:?}");
        for request in requests {
            assert!(browser.is_of_the_stage(&request.url), "{page} loads {}", request.url);
        }
    }
    browser.has_a_clean_console().await;
}

#[tokio::test]
async fn pages_may_reach_nothing_but_the_stage() {
    let world = World::new().await;
    let browser = Browser::open(&world, Screen::Desktop).await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a listener that does not wait");
    let elsewhere = format!("http://{}", listener.local_addr().expect("its address"));
    for page in PAGES {
        browser.visit(&format!("{page}.html")).await;
        assert_eq!(browser.policy_violations().await, json!([]), "{page}");
        browser
            .run(&format!(
                "fetch('{elsewhere}/word').catch(() => {{}});
                 document.body.append(Object.assign(new Image(), {{ src: '{elsewhere}/pixel' }}));
                 const style = {{ rel: 'stylesheet', href: '{elsewhere}/style' }};
                 document.head.append(Object.assign(document.createElement('link'), style));"
            ))
            .await;
        let violations = browser.policy_violations().await.to_string();
        for directive in ["connect-src", "img-src", "style-src"] {
            assert!(violations.contains(directive), "{page}: {violations}");
        }
        let complaints = browser.complaints().await;
        assert!(complaints.iter().any(|text| text.contains("Content Security Policy")), "{page}: {complaints:?}");
        let reached = listener.accept().expect_err("nobody comes").kind();
        assert_eq!(reached, std::io::ErrorKind::WouldBlock, "{page}");
    }
}

#[tokio::test]
async fn the_keyboard_is_enough_to_sign_up() {
    let world = World::new().await;
    let browser = Browser::open(&world, Screen::Desktop).await;
    browser.visit("signUp.html").await;
    let keys = async |keys: &str| browser.driver.action_chain().send_keys(keys).perform().await.expect("keys");
    let (tab, enter): (char, char) = (Key::Tab.into(), Key::Enter.into());
    let (tab, enter) = (tab.to_string(), enter.to_string());
    for stop in ["Portcullis", "Log in", "Sign up", "email"] {
        keys(&tab).await;
        assert_eq!(focused(&browser).await, stop);
    }
    keys(EMAIL).await;
    keys(&tab).await;
    assert_eq!(focused(&browser).await, "password");
    keys(PASSWORD).await;
    for stop in ["Show the password", "Create account", "Log in"] {
        keys(&tab).await;
        assert_eq!(focused(&browser).await, stop);
    }
    let shift: char = Key::Shift.into();
    let back = async || {
        let chain = browser.driver.action_chain().key_down(shift).send_keys(&tab).key_up(shift);
        chain.perform().await.expect("keys");
    };
    for _ in 0..3 {
        back().await;
    }
    assert_eq!(focused(&browser).await, "password");
    keys(&enter).await;
    assert_eq!(browser.settles().await, "done");
    assert_eq!(focused(&browser).await, "Check your mail", "what came of it is where the keyboard is");
    assert_eq!(world.mails(EMAIL).len(), 1);
    browser.has_a_clean_console().await;
}

#[tokio::test]
async fn a_page_says_when_it_is_offline() {
    let world = World::new().await;
    let browser = Browser::open(&world, Screen::Desktop).await;
    let network = async |offline: bool| {
        let conditions = json!({"offline": offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1});
        browser.driver.cdp().send_raw("Network.emulateNetworkConditions", conditions).await.expect("conditions");
    };
    browser.visit("lostPassword.html").await;
    network(true).await;
    browser.fill("email", EMAIL).await;
    assert_eq!(browser.submit().await, "offline");
    assert_eq!(browser.message().await, "You are offline. Try again in a moment.");
    browser.look_around("lostPassword-offline").await;
    network(false).await;
    assert_eq!(browser.submit().await, "done", "what was entered is still there");
}

/// What the keyboard is at: an id, else what a screen reader calls it.
async fn focused(browser: &Browser) -> String {
    let name = "const { id, ariaLabel, textContent } = document.activeElement;
        return id || ariaLabel || textContent.trim();";
    browser.run(name).await.as_str().expect("a name").to_owned()
}

/// The decisions about calls of a function.
fn invocations(world: &World, function: &str) -> Vec<Json> {
    let name = world.function(function);
    let of = |decision: &Json| decision["resource"].as_str().is_some_and(|resource| resource.ends_with(name));
    world.decisions().into_iter().filter(of).collect()
}
