//! A real Chromium, and the verbs of whoever sits in front of it.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use thirtyfour::prelude::*;
use thirtyfour::{ChromeCapabilities, WindowHandle};

use crate::world::{NEW_PASSWORD, PASSWORD, World};

/// Width and height of what the page is shown in.
#[derive(Debug, Clone, Copy)]
pub(super) enum Screen {
    Desktop,
    Phone,
}

impl Screen {
    fn width(self) -> i64 {
        match self {
            Self::Desktop => 1280,
            Self::Phone => 360,
        }
    }

    fn metrics(self) -> Json {
        let phone = matches!(self, Self::Phone);
        json!({"width": self.width(), "height": 800, "pixelRatio": 1, "mobile": phone, "touch": phone})
    }
}

/// A request that a page made.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) url: String,
    pub(super) body: String,
    /// All that was sent, as JSON.
    pub(super) whole: String,
}

/// A browser with a profile of its own. Dropped, it ends.
pub(super) struct Browser {
    pub(super) driver: WebDriver,
    chromedriver: Chromedriver,
    _profile: tempfile::TempDir,
    screen: Screen,
    site: String,
    api: String,
    mailbox: String,
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Left alone, the client would end the session with a request that the blocked runtime can't send.
        let _ = self.driver.clone().leak();
        let session = format!("{}/session/{}", self.chromedriver.url(), self.driver.session_id());
        let request = ureq::delete(&session).config().timeout_global(Some(Duration::from_secs(10))).build();
        if request.call().is_err()
            && let Some(chromium) = self.driver.capabilities().get("goog:processID")
        {
            let _ = Command::new("kill").args(["-9", &chromium.to_string()]).output();
        }
    }
}

/// The process that drives a browser.
struct Chromedriver {
    process: Child,
    port: u16,
}

impl Chromedriver {
    /// Starts one on a free port, which it chooses and tells.
    fn start() -> Self {
        let process = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver runs; scripts/test installs it");
        let mut started = Self { process, port: 0 };
        let lines = BufReader::new(started.process.stdout.take().expect("its output")).lines();
        let port = lines.map_while(Result::ok).find_map(|line| {
            let (_, port) = line.split_once("successfully on port ")?;
            port.trim_end_matches('.').parse().ok()
        });
        started.port = port.expect("chromedriver tells its port");
        started
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Chromedriver {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Browser {
    pub(super) async fn open(world: &World, screen: Screen) -> Self {
        let profile = tempfile::tempdir().expect("a temporary folder");
        let chromedriver = Chromedriver::start();
        let driver = WebDriver::new(chromedriver.url(), capabilities(&profile, screen)).await.expect("Chromium starts");
        Self {
            driver,
            chromedriver,
            _profile: profile,
            screen,
            site: world.output("siteUrl").to_owned(),
            api: world.output("endpointUrl").to_owned(),
            mailbox: world.output("mailboxUrl").to_owned(),
        }
    }

    // Going about.

    pub(super) async fn visit(&self, page: &str) {
        self.driver.goto(format!("{}/{page}", self.site)).await.expect("the page is there");
    }

    /// Presses the visible link or button with this label.
    pub(super) async fn press(&self, label: &str) {
        let path = format!("//*[self::a or self::button][normalize-space()='{label}']");
        let found = self.driver.query(By::XPath(&path)).and_displayed().first().await;
        found.unwrap_or_else(|error| panic!("{label}: {error}")).click().await.expect("it can be pressed");
    }

    pub(super) async fn reload(&self) {
        self.driver.refresh().await.expect("the page reloads");
    }

    /// The part of the address after the site's.
    pub(super) async fn address(&self) -> String {
        let address = self.driver.current_url().await.expect("an address").to_string();
        address.strip_prefix(&self.site).unwrap_or(&address).trim_start_matches('/').to_owned()
    }

    // Forms.

    pub(super) async fn fill(&self, field: &str, text: &str) {
        let field = self.driver.find(By::Id(field)).await.expect("the field");
        field.clear().await.expect("the field can be cleared");
        field.send_keys(text).await.expect("the field can be filled");
    }

    /// Presses the form's button, and tells the state that the page comes to.
    pub(super) async fn submit(&self) -> String {
        let button = self.driver.find(By::Css("form [type=submit]")).await.expect("the button");
        button.click().await.expect("the button can be pressed");
        self.settles().await
    }

    /// The state once nothing is being worked on.
    pub(super) async fn settles(&self) -> String {
        let begun = Instant::now();
        loop {
            let state = self.state().await;
            if state != "working" {
                return state;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "the page works on and on");
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    pub(super) async fn state(&self) -> String {
        let state = self.run("return document.querySelector('main').dataset.state").await;
        state.as_str().expect("a page has a state").to_owned()
    }

    pub(super) async fn message(&self) -> String {
        self.text(".message[role=status]").await
    }

    /// The visible text.
    pub(super) async fn text(&self, selector: &str) -> String {
        self.driver.find(By::Css(selector)).await.expect("an element").text().await.expect("a text")
    }

    // The flows, as far as they end well.

    pub(super) async fn sign_up(&self, email: &str, password: &str) {
        self.fill("email", email).await;
        self.fill("password", password).await;
        assert_eq!(self.submit().await, "done", "{}", self.message().await);
        assert_eq!(self.text(".mailedTo").await, email);
    }

    pub(super) async fn log_in(&self, email: &str, password: &str) {
        assert_eq!(self.try_to_log_in(email, password).await, "done", "{}", self.message().await);
    }

    pub(super) async fn try_to_log_in(&self, email: &str, password: &str) -> String {
        self.fill("email", email).await;
        self.fill("password", password).await;
        self.submit().await
    }

    pub(super) async fn change_password(&self, old: &str, new: &str) {
        self.fill("oldPassword", old).await;
        self.fill("newPassword", new).await;
        assert_eq!(self.submit().await, "done", "{}", self.message().await);
    }

    pub(super) async fn ask_for_a_reset(&self, email: &str) {
        self.fill("email", email).await;
        assert_eq!(self.submit().await, "done", "{}", self.message().await);
        assert_eq!(self.text(".mailedTo").await, email);
    }

    pub(super) async fn set_password(&self, password: &str) -> String {
        self.fill("password", password).await;
        self.submit().await
    }

    // The mailbox.

    /// Opens the mailbox in a tab of its own.
    pub(super) async fn open_mailbox(&self) -> WindowHandle {
        let tab = self.driver.new_tab().await.expect("a tab");
        self.driver.switch_to_window(tab.clone()).await.expect("the tab");
        self.driver.goto(&self.mailbox).await.expect("the mailbox");
        let address = self.driver.current_url().await.expect("an address");
        assert_eq!(address.query(), None, "the mailbox's token leaves the address bar");
        tab
    }

    /// Opens the mail with this subject in the mailbox.
    pub(super) async fn open_mail(&self, mailbox: &WindowHandle, subject: &str) {
        self.driver.switch_to_window(mailbox.clone()).await.expect("the mailbox");
        let back = self.driver.find(By::Css(".back")).await.expect("a button");
        if back.is_displayed().await.expect("visible or not") {
            back.click().await.expect("back to the list, on a phone");
        }
        let entry =
            self.driver.query(By::Css("body[data-state=mails] .mails button.entry")).with_text(includes(subject));
        entry.first().await.expect("the mail comes").click().await.expect("the mail opens");
        assert!(self.text("#subject").await.contains(subject));
    }

    /// Follows the link of the open mail, into the tab that it opens.
    pub(super) async fn follow_the_mails_link(&self) {
        let before = self.driver.windows().await.expect("tabs");
        let frame = self.driver.find(By::Css("iframe.html")).await.expect("the mail");
        frame.enter_frame().await.expect("the mail's content");
        self.driver
            .query(By::Css("a[href*='?']"))
            .and_displayed()
            .first()
            .await
            .expect("a link")
            .click()
            .await
            .expect("it opens");
        self.driver.enter_default_frame().await.expect("the mailbox");
        let begun = Instant::now();
        let tab = loop {
            let tabs = self.driver.windows().await.expect("tabs");
            if let Some(new) = tabs.into_iter().find(|tab| !before.contains(tab)) {
                break new;
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "the link opens a tab");
        };
        self.driver.switch_to_window(tab).await.expect("the new tab");
        self.driver.query(By::Css("main[data-state]")).first().await.expect("a page of the site");
        while self.run("return document.readyState").await != "complete" {
            assert!(begun.elapsed() < Duration::from_secs(10), "the page loads");
        }
    }

    // What must hold wherever they look.

    /// Demands of the page as it is now: nothing sticks out, nothing broke the policy, nothing came from elsewhere, and
    /// no password is stored. With `PORTCULLIS_SCREENSHOTS=FOLDER` it leaves pictures, light and dark, to look at.
    pub(super) async fn look_around(&self, name: &str) {
        let width = self.screen.width();
        let [wide, shown] = ["scroll", "client"].map(|of| format!("return document.scrollingElement.{of}Width"));
        let (wide, shown) = (self.run(&wide).await.as_i64(), self.run(&shown).await.as_i64());
        assert!(wide <= shown && shown <= Some(width), "{name} scrolls sideways: {wide:?} in {shown:?}");
        let sticking_out = "return [...document.querySelectorAll('body *')].filter((e) => {
            const { left, right, width } = e.getBoundingClientRect();
            return width && e.checkVisibility({ visibilityProperty: true }) && (left < 0 || right > arguments[0] + 0.5);
        }).map((e) => e.outerHTML.slice(0, 120))";
        assert_eq!(self.run_with(sticking_out, vec![json!(width)]).await, json!([]), "{name}: these stick out");
        assert_eq!(self.policy_violations().await, json!([]), "{name} keeps to its policy");
        self.loaded_only_from_the_stage(name).await;
        let stored = self.stored().await;
        assert!(!stored.contains(PASSWORD) && !stored.contains(NEW_PASSWORD), "{name} stores no password");
        if let Some(folder) = std::env::var_os("PORTCULLIS_SCREENSHOTS") {
            self.take_pictures(&std::path::PathBuf::from(folder), name).await;
        }
    }

    /// What broke the page's content security policy, also before anybody asked.
    pub(super) async fn policy_violations(&self) -> Json {
        let script = "const done = arguments[0];
            const observer = new ReportingObserver(() => {}, { types: ['csp-violation'], buffered: true });
            observer.observe();
            const violations = observer.takeRecords().map(({ body }) => `${body.effectiveDirective}: ${body.blockedURL}`);
            setTimeout(() => done(violations));";
        self.driver.execute_async(script, vec![]).await.expect("the script runs").json().clone()
    }

    async fn loaded_only_from_the_stage(&self, name: &str) {
        let loaded = self.run("return performance.getEntriesByType('resource').map(({ name }) => name)").await;
        for resource in loaded.as_array().expect("a list") {
            let resource = resource.as_str().expect("an address");
            assert!(self.is_of_the_stage(resource), "{name} loaded {resource}");
        }
    }

    pub(super) fn is_of_the_stage(&self, address: &str) -> bool {
        let of = |origin: &str| address.strip_prefix(origin).is_some_and(|rest| rest.starts_with('/'));
        of(&self.site) || of(&self.api) || address.starts_with("data:")
    }

    /// All that the page's storages hold.
    pub(super) async fn stored(&self) -> String {
        let stored =
            self.run("return JSON.stringify([{ ...sessionStorage }, { ...localStorage }, document.cookie])").await;
        stored.as_str().expect("a text").to_owned()
    }

    /// Demands that no console of any tab has an error or a warning, a refused load included.
    pub(super) async fn has_a_clean_console(&self) {
        assert_eq!(self.complaints().await, [""; 0]);
    }

    /// The errors and warnings in the consoles of all tabs since the last time this was asked.
    pub(super) async fn complaints(&self) -> Vec<String> {
        let log = self.driver.browser_log().await.expect("the console's log");
        let bad = log.into_iter().filter(|entry| matches!(entry.level.as_str(), "SEVERE" | "WARNING"));
        bad.map(|entry| entry.message).collect()
    }

    /// The requests that all tabs have made since the last time this was asked.
    pub(super) async fn requests(&self) -> Vec<Request> {
        let log = self.driver.get_log("performance").await.expect("the log of requests");
        let events = log.iter().map(|entry| serde_json::from_str::<Json>(&entry.message).expect("an event is JSON"));
        let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
        let sent = events.map(|event| event["message"].clone()).filter(|event| {
            // The browser's own pages, such as that of a new tab, load something too.
            let by_a_page = text(&event["params"]["documentURL"]).starts_with("http");
            event["method"] == "Network.requestWillBeSent" && by_a_page
        });
        sent.map(|event| {
            let request = &event["params"]["request"];
            Request { url: text(&request["url"]), body: text(&request["postData"]), whole: request.to_string() }
        })
        .collect()
    }

    pub(super) async fn run(&self, script: &str) -> Json {
        self.run_with(script, vec![]).await
    }

    async fn run_with(&self, script: &str, arguments: Vec<Json>) -> Json {
        self.driver.execute(script, arguments).await.expect("the script runs").json().clone()
    }

    async fn take_pictures(&self, folder: &std::path::Path, name: &str) {
        // The gate and the buttons come to rest.
        tokio::time::sleep(Duration::from_millis(900)).await;
        for scheme in ["light", "dark"] {
            let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
            self.driver.cdp().send_raw("Emulation.setEmulatedMedia", media).await.expect("a colour scheme");
            let file = folder.join(format!("{name}-{:?}-{scheme}.png", self.screen).to_lowercase());
            self.driver.screenshot(&file).await.expect("a picture");
        }
        let as_it_was = json!({"features": []});
        self.driver.cdp().send_raw("Emulation.setEmulatedMedia", as_it_was).await.expect("no colour scheme");
    }
}

fn includes(text: &str) -> impl Fn(&str) -> bool + Send + Sync + Clone + 'static {
    let text = text.to_owned();
    move |whole| whole.contains(&text)
}

fn capabilities(profile: &tempfile::TempDir, screen: Screen) -> ChromeCapabilities {
    let mut capabilities = DesiredCapabilities::chrome();
    let profile = format!("--user-data-dir={}", profile.path().display());
    let quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"];
    let bare = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage"];
    for argument in quiet.iter().chain(&bare).chain([&profile.as_str()]) {
        capabilities.add_arg(argument).expect("an argument");
    }
    let metrics = json!({"deviceMetrics": screen.metrics()});
    capabilities.add_experimental_option("mobileEmulation", metrics).expect("an option");
    capabilities.set("goog:loggingPrefs", json!({"browser": "ALL", "performance": "ALL"})).expect("an option");
    capabilities
}
