//! The process that holds a local stage: the local cloud, and the control connection over which commands declare
//! resources.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use local_cloud::{Cloud, Options};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::sync::Notify;

use crate::control::{self, Reply, Request, Serving};
use crate::provider;
use crate::stage::{Folder, Ports};

/// The account of every local cloud.
const ACCOUNT: &str = "000000000000";

/// What opens a stage: its administrator's key and its mailbox.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Access {
    pub(crate) admin: BTreeMap<String, String>,
    pub(crate) mailbox_url: String,
}

/// The file that holds [`Access`].
pub(crate) const ACCESS_FILE: &str = "access.json";

/// Serves the stage until it is asked to stop, or, when `attached`, until standard input ends: then the command that
/// started it is gone.
pub(crate) fn run(folder: &Folder, stage: &str, region: &str, attached: bool) -> Result<()> {
    if !folder.check(stage)? {
        bail!("stage {stage} was never put up: run `cargo up --stage {stage}`");
    }
    // To the process's log. Only what goes wrong: debug lines of the libraries would hold what no log may.
    tracing_subscriber::fmt().with_max_level(tracing_subscriber::filter::LevelFilter::WARN).with_ansi(false).init();
    let lock = std::fs::File::create(folder.file("serve.lock")).context("cannot write into the stage's folder")?;
    hold(&lock).with_context(|| format!("stage {stage} is served already by another process"))?;
    let (api, site) = folder.bind_ports()?;
    let ports = Ports { api: api.local_addr()?.port(), site: site.local_addr()?.port() };
    let options = Options {
        folder: folder.file("cloud"),
        region: region.to_owned(),
        account: ACCOUNT.to_owned(),
        api_port: ports.api,
        site_port: ports.site,
    };
    std::fs::create_dir_all(&options.folder).context("cannot make the local cloud's folder")?;
    let cloud = Cloud::open(options).context(
        "the stage's data cannot be opened. Bring the folder back from a copy, or take the stage down and put it up anew",
    )?;
    let admin = cloud.admin();
    let access = Access {
        admin: BTreeMap::from([
            ("accessKeyId".to_owned(), admin.access_key_id),
            ("secretAccessKey".to_owned(), admin.secret_access_key),
        ]),
        mailbox_url: cloud.mailbox_url(),
    };
    folder.write_json(ACCESS_FILE, &access)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(folder, cloud, api, site, ports, attached))?;
    // A process that was started later must not lose its own file.
    let _ = std::fs::remove_file(folder.file(control::FILE));
    // Whoever waits for the lock waits for the end of this process, not only of this function.
    std::mem::forget(lock);
    Ok(())
}

/// Takes the lock that is held for as long as this process lives, however it ends.
fn hold(lock: &std::fs::File) -> Result<()> {
    let begun = Instant::now();
    while let Err(error) = lock.try_lock() {
        // A command that only looks whether the stage is served holds it for a moment.
        if begun.elapsed() > Duration::from_secs(1) {
            return Err(error.into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

async fn serve(
    folder: &Folder,
    cloud: Arc<Cloud>,
    api: TcpListener,
    site: TcpListener,
    ports: Ports,
    attached: bool,
) -> Result<()> {
    let control = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    let mut token = [0; 32];
    getrandom::fill(&mut token).map_err(|error| anyhow::anyhow!("no random numbers: {error}"))?;
    let token = BASE64URL.encode(token);
    let serving = Serving {
        pid: std::process::id(),
        port: control.local_addr()?.port(),
        token: token.clone(),
        build: build()?,
        ports,
    };
    let stop = Arc::new(Notify::new());
    tokio::spawn(accept(control, Arc::clone(&cloud), token, Arc::clone(&stop)));
    if attached {
        let stop = Arc::clone(&stop);
        // A thread and not a task: the end of the runtime would wait for a read that is under way.
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
            stop.notify_one();
        });
    }
    let listener = |listener: TcpListener| {
        listener.set_nonblocking(true)?;
        tokio::net::TcpListener::from_std(listener)
    };
    let (api, site) = (listener(api)?, listener(site)?);
    folder.write_json(control::FILE, &serving)?;
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let stopped = async move {
        tokio::select! {
            () = stop.notified() => {}
            _ = terminate.recv() => {}
        }
    };
    cloud.serve(api, site, stopped).await?;
    Ok(())
}

/// Which build this is: commands of another build replace the serving process.
pub(crate) fn build() -> Result<String> {
    let path = std::env::current_exe().context("cannot find this program's own file")?;
    let file = std::fs::metadata(&path).context("cannot find this program's own file")?;
    let modified = file.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Ok(format!("{}-{}", file.len(), modified.as_nanos()))
}

async fn accept(listener: tokio::net::TcpListener, cloud: Arc<Cloud>, token: String, stop: Arc<Notify>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (cloud, token, stop) = (Arc::clone(&cloud), token.clone(), Arc::clone(&stop));
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            let (reader, mut writer) = stream.into_split();
            let mut lines = BufReader::new(reader).lines();
            let hash = |text: &str| Sha256::digest(text.as_bytes());
            // Compared as hashes, so that the time says nothing of the token.
            if !matches!(lines.next_line().await, Ok(Some(line)) if hash(&line) == hash(&token)) {
                return;
            }
            while let Ok(Some(line)) = lines.next_line().await {
                let cloud = Arc::clone(&cloud);
                let request = serde_json::from_str::<Request>(&line);
                let ends = matches!(request, Ok(Request::Stop));
                let reply = match request {
                    Ok(request) => tokio::task::spawn_blocking(move || answer(&cloud, request)).await,
                    Err(error) => Ok(Reply::Failed { message: format!("not understood: {error}") }),
                };
                let reply = reply.unwrap_or_else(|_| Reply::Failed { message: "the local cloud failed".to_owned() });
                let mut text = serde_json::to_string(&reply).unwrap_or_default();
                text.push('\n');
                if writer.write_all(text.as_bytes()).await.is_err() {
                    return;
                }
                if ends {
                    stop.notify_one();
                }
            }
        });
    }
}

fn answer(cloud: &Cloud, request: Request) -> Reply {
    let outcome = match request {
        Request::Ping | Request::Stop => Ok(Reply::Done),
        Request::Apply { type_token, inputs } => {
            provider::apply(cloud, &type_token, &inputs).map(|(id, outputs)| Reply::Applied { id, outputs })
        }
        Request::Delete { type_token, id, inputs } => {
            provider::delete(cloud, &type_token, &id, &inputs).map(|()| Reply::Done)
        }
        Request::CountItems { table } => {
            cloud.count_items(&table).map(|count| Reply::Count { count }).map_err(anyhow::Error::from)
        }
    };
    outcome.unwrap_or_else(|error| Reply::Failed { message: format!("{error:#}") })
}
