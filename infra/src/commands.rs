//! The commands, from their arguments to what they print.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use auth::settings::Limits;
use clap::{Args, Parser, Subcommand};
use pulumi::{Context, Monitor};
use serde_json::{Value as Json, json};

use crate::aws::{self, Declare as _};
use crate::control::{Client, Reply, Request};
use crate::embedded::{Embedded, Kind, Listener, State, Step};
use crate::policies::Policies;
use crate::program::{Endpoints, Parts, Stage};
use crate::serve::{self, Access};
use crate::site::Site;
use crate::stage::{Folder, Ports, Project, Settings, Target};
use crate::terminal::{LiveLog, Style, say, show_step, styled};
use crate::{packaging, program};

/// An authentication service that you own: sign-up, login and recovery as six Lambda functions.
///
/// Exit codes: 0 done, 1 failed (the message names the next step), 2 wrong arguments.
#[derive(Parser)]
#[command(name = "portcullis", bin_name = "cargo", version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Commands,
}

#[derive(Subcommand)]
enum Commands {
    /// Build everything, put the stage up, and show its live log until Ctrl-C
    ///
    /// Creates what is new, changes what differs, deletes what is gone, and leaves the rest alone. A stage that runs
    /// already is changed in place, while it runs.
    Up {
        #[command(flatten)]
        stage: StageName,
        /// Leave the stage running in the background and return
        #[arg(long)]
        detach: bool,
        #[command(flatten)]
        functions: FunctionsFolder,
    },
    /// Show what `up` would do, without doing it
    Preview {
        #[command(flatten)]
        stage: StageName,
        #[command(flatten)]
        functions: FunctionsFolder,
    },
    /// Delete the stage and everything in it, after asking
    Down {
        #[command(flatten)]
        stage: StageName,
        /// Don't ask (a stage with users needs --confirm all the same)
        #[arg(long)]
        yes: bool,
        /// The stage's name once more: needed when users would be deleted with it
        #[arg(long, value_name = "NAME")]
        confirm: Option<String>,
    },
    /// Show the addresses and names of the stage
    Outputs {
        #[command(flatten)]
        stage: StageName,
        /// As one JSON object
        #[arg(long)]
        json: bool,
        /// Also the administrator's key and the mailbox's address (whoever has them may do everything)
        #[arg(long)]
        show_secrets: bool,
    },
    /// Make another stage
    Stage {
        #[command(subcommand)]
        command: StageCommands,
    },
    /// Hold a stage: what `up` starts in the background
    #[command(hide = true)]
    Serve {
        #[command(flatten)]
        stage: StageName,
        /// End when standard input ends
        #[arg(long)]
        attached: bool,
    },
}

#[derive(Subcommand)]
enum StageCommands {
    /// Write the settings file of a new stage (infra/Pulumi.NAME.yaml)
    New {
        /// 1 to 20 small letters, digits and hyphens, a letter first
        name: String,
        /// The address that mails come from
        #[arg(long, default_value = "portcullis@example.com")]
        sender: String,
        /// The region, which goes into names and signatures
        #[arg(long, default_value = "eu-west-1")]
        region: String,
    },
}

#[derive(Args)]
struct StageName {
    /// Which stage
    #[arg(long = "stage", value_name = "NAME", default_value = "local")]
    name: String,
}

#[derive(Args)]
struct FunctionsFolder {
    /// Take the functions' executables from this folder instead of building them
    #[arg(long = "functions", value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

pub(crate) fn run(arguments: Arguments) -> Result<()> {
    let project = Project::find()?;
    match arguments.command {
        Commands::Up { stage, detach, functions } => up(&project, &stage.name, detach, functions.folder.as_deref()),
        Commands::Preview { stage, functions } => preview(&project, &stage.name, functions.folder.as_deref()),
        Commands::Down { stage, yes, confirm } => down(&project, &stage.name, yes, confirm.as_deref()),
        Commands::Outputs { stage, json, show_secrets } => outputs(&project, &stage.name, json, show_secrets),
        Commands::Stage { command: StageCommands::New { name, sender, region } } => {
            let settings =
                Settings { target: Target::Local, sender, protect: false, limits: Limits::default(), region };
            let path = project.new_stage(&name, &settings)?;
            say(format!("wrote {}", path.display()));
            say(format!("Next: cargo up --stage {name}"));
            Ok(())
        }
        Commands::Serve { stage, attached } => {
            let settings = project.settings(&stage.name)?;
            serve::run(&project.folder(&stage.name), &stage.name, &settings.region, attached)
        }
    }
}

fn up(project: &Project, name: &str, detach: bool, prebuilt: Option<&Path>) -> Result<()> {
    let begun = Instant::now();
    let settings = project.settings(name)?;
    let folder = project.folder(name);
    folder.open(name)?;
    let lock = folder.lock(name)?;
    let parts = build(project, prebuilt, Some(&folder))?;
    let state = State::load(&folder)?;
    unchanged_for_users(name, &settings, &state)?;
    let (client, started) = connect_or_start(&folder, name, !detach)?;
    let ports = client.serving.ports;
    let stage = local_stage(name, &settings, ports, folder.challenge_key()?);
    let counts = Counts::default();
    let monitor = Arc::new(Embedded::new(name, &folder, Some(client), state, counts.listener(true)));
    let done = deploy(Arc::clone(&monitor), &stage, &parts).and_then(|()| monitor.delete_gone());
    drop(monitor);
    if let Err(error) = done {
        if started.is_some() {
            stop(&folder)?;
        }
        return Err(error
            .context("the stage is not complete; mend the cause and run `cargo up` again, which goes on from here"));
    }
    say(format!("{} in {:.1} s", counts.summary(true), begun.elapsed().as_secs_f64()));
    drop(lock);
    show_addresses(&folder, name, ports)?;
    match started {
        Some(started) if !detach => follow(&folder, name, started),
        Some(_) => {
            say("The stage runs in the background.");
            Ok(())
        }
        None => {
            say("The stage was running already, and goes on.");
            Ok(())
        }
    }
}

fn preview(project: &Project, name: &str, prebuilt: Option<&Path>) -> Result<()> {
    let settings = project.settings(name)?;
    let folder = project.folder(name);
    let known = folder.exists() && folder.check(name)?;
    let parts = build(project, prebuilt, known.then_some(&folder))?;
    let (state, ports) = if known { (State::load(&folder)?, folder.ports()?) } else { (State::default(), None) };
    unchanged_for_users(name, &settings, &state)?;
    // Neither made nor kept by a preview: a stage that is not there yet gets its key and its ports from `up`.
    let key = if state.resources.is_empty() { String::new() } else { folder.challenge_key()? };
    let stage = local_stage(name, &settings, ports.unwrap_or(Ports { api: 4566, site: 8080 }), key);
    let counts = Counts::default();
    let monitor = Arc::new(Embedded::new(name, &folder, None, state, counts.listener(false)));
    deploy(Arc::clone(&monitor), &stage, &parts).and_then(|()| monitor.delete_gone())?;
    say(format!("{}; nothing was changed", counts.summary(false)));
    Ok(())
}

fn down(project: &Project, name: &str, yes: bool, confirm: Option<&str>) -> Result<()> {
    project.settings(name)?;
    let folder = project.folder(name);
    if !folder.exists() || !folder.check(name)? {
        say(format!("Stage {name} is not up: there is nothing to delete."));
        return Ok(());
    }
    let lock = folder.lock(name)?;
    let state = State::load(&folder)?;
    if let Some(kept) = state.resources.values().find(|deployed| deployed.protect) {
        bail!(
            "stage {name} is protected, and with it {} {}. Remove portcullis:protect from infra/Pulumi.{name}.yaml, \
             run `cargo up --stage {name}`, then take it down.",
            kept.type_token,
            kept.name
        );
    }
    say(format!("Stage {name}, all of it, would be deleted:"));
    for urn in state.deletion_order(|_| true) {
        let deployed = &state.resources[&urn];
        say(format!("  {:<60} {}", deployed.type_token, deployed.name));
    }
    let (mut client, started) = connect_or_start(&folder, name, false)?;
    let users = count_users(&mut client, &state)?;
    let agreed = if users > 0 {
        say(format!("Its table holds {users} records of users, which would be lost."));
        let typed = match confirm {
            Some(typed) => typed.to_owned(),
            None if yes => bail!("stage {name} has users: add --confirm {name} to delete them too"),
            None => ask("Type the stage's name to delete it: ")?,
        };
        typed == name
    } else {
        yes || confirm == Some(name) || ask("Delete it? [y/N] ")?.eq_ignore_ascii_case("y")
    };
    if !agreed {
        if started.is_some() {
            stop(&folder)?;
        }
        bail!("nothing was deleted");
    }
    let counts = Counts::default();
    let monitor = Embedded::new(name, &folder, Some(client), state, counts.listener(true));
    monitor.delete_all()?;
    drop(monitor);
    stop(&folder)?;
    drop(lock);
    std::fs::remove_dir_all(&folder.path).with_context(|| format!("cannot delete {}", folder.path.display()))?;
    say(format!("{}. Stage {name} is gone.", counts.summary(true)));
    Ok(())
}

fn outputs(project: &Project, name: &str, as_json: bool, show_secrets: bool) -> Result<()> {
    project.settings(name)?;
    let folder = project.folder(name);
    let known = folder.exists() && folder.check(name)?;
    let state = if known { State::load(&folder)? } else { State::default() };
    let Some(ports) = folder.ports()?.filter(|_| !state.outputs.is_empty()) else {
        bail!("stage {name} is not up. Next: cargo up --stage {name}");
    };
    let mut outputs = state.outputs;
    outputs.insert("stage".into(), name.into());
    outputs.insert("target".into(), "local".into());
    outputs.insert("endpointUrl".into(), endpoint(ports).into());
    if show_secrets {
        let access: Access = folder.read_json(serve::ACCESS_FILE)?.context("the stage was never served")?;
        outputs.insert("admin".into(), json!(access.admin));
        outputs.insert("mailboxUrl".into(), access.mailbox_url.into());
    }
    if as_json {
        say(serde_json::to_string_pretty(&outputs)?);
        return Ok(());
    }
    for (key, value) in &outputs {
        match value {
            Json::Object(fields) => {
                for (field, value) in fields {
                    say(format!("{:<34} {}", format!("{key}.{field}"), value.as_str().unwrap_or_default()));
                }
            }
            value => say(format!("{key:<34} {}", value.as_str().unwrap_or_default())),
        }
    }
    Ok(())
}

/// Reads and builds what the program needs.
fn build(project: &Project, prebuilt: Option<&Path>, folder: Option<&Folder>) -> Result<Parts> {
    let policies = Policies::read(&project.root.join("policies"))?;
    say(styled(Style::Bold, "Functions"));
    let packages = packaging::functions(&project.root, prebuilt, folder)?;
    let pages = project.root.join("static-site");
    packaging::site_packages(&pages, || say("Installing the site's package (npm ci)"))?;
    let site = Site::read(&pages)?;
    say(styled(Style::Bold, "Resources"));
    Ok(Parts { policies, site, packages })
}

fn local_stage(name: &str, settings: &Settings, ports: Ports, challenge_key: String) -> Stage {
    let Target::Local = settings.target;
    Stage {
        name: name.to_owned(),
        region: settings.region.clone(),
        sender: settings.sender.clone(),
        protect: settings.protect,
        site_url: Some(format!("http://127.0.0.1:{}", ports.site)),
        endpoints: Endpoints { lambda: endpoint(ports), cognito_identity: endpoint(ports) },
        challenge_key,
        limits: settings.limits,
    }
}

fn endpoint(ports: Ports) -> String {
    format!("http://127.0.0.1:{}", ports.api)
}

/// A region is in the name of everything that a stage has, and every stored verifier was made with the stage's
/// iterations, as the challenges for unknown addresses are: neither can be changed under its users.
fn unchanged_for_users(name: &str, settings: &Settings, state: &State) -> Result<()> {
    let region = state.outputs.get("region").and_then(Json::as_str);
    let functions = state.resources.values().filter(|deployed| deployed.type_token == aws::Function::TOKEN);
    let mut iterations = functions.filter_map(|function| {
        function.inputs.get("environment")?["variables"]["PORTCULLIS_ITERATIONS"].as_str().map(str::to_owned)
    });
    let same = [
        ("aws:region", region.map(str::to_owned), settings.region.clone()),
        ("portcullis:limits iterations", iterations.next(), settings.limits.iterations.to_string()),
    ];
    for (setting, deployed, now) in same {
        if let Some(deployed) = deployed.filter(|deployed| *deployed != now) {
            bail!(
                "stage {name} has {deployed} for {setting}, and its settings say {now}. Set it back, or take the stage \
                 down first: its users would be lost."
            );
        }
    }
    Ok(())
}

/// Runs the program against the monitor.
fn deploy(monitor: Arc<impl Monitor>, stage: &Stage, parts: &Parts) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let finished = runtime.block_on(async {
        let context = Context::new(monitor);
        program::program(&context, stage, parts);
        context.finish().await
    });
    let Err(errors) = finished else {
        return Ok(());
    };
    let messages: Vec<String> = errors.into_iter().map(|error| error.0).collect();
    bail!(messages.join("\n       "))
}

/// The process that was started for this command; attached, it ends when its standard input is closed.
struct Started(Child);

/// Connects to the process that serves the stage, or starts it; one of another build is replaced.
fn connect_or_start(folder: &Folder, name: &str, attached: bool) -> Result<(Client, Option<Started>)> {
    if let Some(client) = Client::connect(folder)? {
        if client.serving.build == serve::build()? {
            return Ok((client, None));
        }
        say("Portcullis itself was rebuilt: restarting the stage's process");
        drop(client);
        stop(folder)?;
    }
    let log = folder.file("serve.log");
    let output = std::fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["serve", "--stage", name]);
    if attached {
        command.arg("--attached").stdin(Stdio::piped());
    } else {
        command.stdin(Stdio::null());
    }
    command.stdout(output.try_clone()?).stderr(output);
    // Ctrl-C is for this command, which then ends the other process in good order.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command.spawn().context("cannot start the stage's process")?;
    let begun = Instant::now();
    loop {
        if let Some(client) = Client::connect(folder)?
            && client.serving.pid == child.id()
        {
            return Ok((client, Some(Started(child))));
        }
        if child.try_wait()?.is_some() {
            let told = std::fs::read_to_string(&log).unwrap_or_default();
            bail!("{}", told.trim().trim_start_matches("error: "));
        }
        if begun.elapsed() > Duration::from_secs(30) {
            let _ = child.kill();
            bail!("the stage's process does not answer; its log is {}", log.display());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Ends the process that serves the stage, and waits until it is gone.
fn stop(folder: &Folder) -> Result<()> {
    if let Some(mut client) = Client::connect(folder)? {
        client.ask(&Request::Stop)?;
    }
    let lock = std::fs::File::options().write(true).open(folder.file("serve.lock"));
    let Ok(lock) = lock else { return Ok(()) };
    let begun = Instant::now();
    while lock.try_lock().is_err() {
        if begun.elapsed() > Duration::from_secs(15) {
            bail!("the stage's process does not end; its log is {}", folder.file("serve.log").display());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Shows the live log until Ctrl-C, then ends the stage's process.
fn follow(folder: &Folder, name: &str, mut started: Started) -> Result<()> {
    say(format!("{} (Ctrl-C stops the stage; its users and mails stay)", styled(Style::Bold, "Live log")));
    let events = folder.file("cloud").join("events.jsonl");
    let mut log = LiveLog::open(&events);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let interrupted = runtime.block_on(async {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let mut silent = 0;
        loop {
            tokio::select! {
                interrupted = tokio::signal::ctrl_c() => break interrupted.map(|()| true),
                _ = terminate.recv() => break Ok(true),
                () = tokio::time::sleep(Duration::from_millis(200)) => {}
            }
            let _ = log.show_new(&events);
            // Another command may have taken the stage down, or restarted its process.
            silent = if alive(folder) { 0 } else { silent + 1 };
            if silent > 15 {
                break Ok(false);
            }
        }
    })?;
    if !interrupted {
        bail!("the process of stage {name} has ended; its log is {}", folder.file("serve.log").display());
    }
    say("Stopping");
    stop(folder)?;
    started.0.wait()?;
    say(format!("Stage {name} has stopped."));
    Ok(())
}

/// Whether a process holds the stage.
fn alive(folder: &Folder) -> bool {
    let lock = std::fs::File::options().write(true).open(folder.file("serve.lock"));
    lock.is_ok_and(|lock| lock.try_lock().is_err())
}

fn count_users(client: &mut Client, state: &State) -> Result<u64> {
    let mut users = 0;
    for table in state.resources.values().filter(|deployed| deployed.type_token == aws::Table::TOKEN) {
        if let Reply::Count { count } = client.ask(&Request::CountItems { table: table.id.clone() })? {
            users += count;
        }
    }
    Ok(users)
}

fn ask(question: &str) -> Result<String> {
    if !std::io::stdin().is_terminal() {
        bail!("this needs an answer: run it in a terminal, or see --help for the flags that scripts use");
    }
    let mut output = std::io::stdout();
    write!(output, "{question}")?;
    output.flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(answer.trim().to_owned())
}

fn show_addresses(folder: &Folder, name: &str, ports: Ports) -> Result<()> {
    let access: Access = folder.read_json(serve::ACCESS_FILE)?.context("the stage was never served")?;
    let flag = if name == "local" { String::new() } else { format!(" --stage {name}") };
    say("");
    say(format!("  {}     http://127.0.0.1:{}/index.html", styled(Style::Bold, "Site"), ports.site));
    say(format!("  {}  {}", styled(Style::Bold, "Mailbox"), access.mailbox_url));
    say(format!("  {}     cargo outputs{flag}   cargo preview{flag}   cargo down{flag}", styled(Style::Bold, "Next")));
    say("");
    Ok(())
}

/// Shows steps as they come, and counts them.
#[derive(Default, Clone)]
struct Counts(Arc<Mutex<BTreeMap<Kind, usize>>>);

impl Counts {
    fn listener(&self, done: bool) -> Listener {
        let counts = self.clone();
        Box::new(move |step: &Step| {
            show_step(step, done);
            *counts.0.lock().unwrap_or_else(PoisonError::into_inner).entry(step.kind).or_default() += 1;
        })
    }

    fn summary(&self, done: bool) -> String {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.keys().all(|kind| *kind == Kind::Unchanged) {
            return format!("Nothing to do: {} unchanged", counts.get(&Kind::Unchanged).unwrap_or(&0));
        }
        let words = [
            (Kind::Created, "created", "to create"),
            (Kind::Updated, "changed", "to change"),
            (Kind::Replaced, "replaced", "to replace"),
            (Kind::Deleted, "deleted", "to delete"),
            (Kind::Unchanged, "unchanged", "unchanged"),
        ];
        let told = words.iter().filter_map(|(kind, past, future)| {
            Some(format!("{} {}", counts.get(kind)?, if done { past } else { future }))
        });
        told.collect::<Vec<_>>().join(", ")
    }
}
