//! A stage on disk: its settings (`infra/Pulumi.<stage>.yaml`) and the folder that holds its state.

use std::fs::File;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use auth::settings::Limits;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use serde::{Deserialize, Serialize};

/// The project on disk.
#[derive(Debug, Clone)]
pub(crate) struct Project {
    /// The folder with the workspace's Cargo.toml.
    pub(crate) root: PathBuf,
    /// Where settings files lie.
    settings: PathBuf,
    /// Where stages keep their state.
    home: PathBuf,
}

impl Project {
    /// Finds the project from the present folder upwards, otherwise where this program was built.
    pub(crate) fn find() -> Result<Self> {
        let is_root = |folder: &Path| folder.join("infra/Pulumi.yaml").is_file();
        let here = std::env::current_dir().context("cannot tell the present folder")?;
        let built = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
        let root = here.ancestors().chain(built).find(|folder| is_root(folder));
        let root = root.context("no Portcullis project here: change into the folder of your clone")?.to_owned();
        let folder = |variable: &str| std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
        let settings = folder("PORTCULLIS_SETTINGS").unwrap_or_else(|| root.join("infra"));
        let home = folder("PORTCULLIS_HOME").unwrap_or_else(|| root.join(".portcullis"));
        Ok(Self { root, settings, home: std::path::absolute(home).context("PORTCULLIS_HOME is no path")? })
    }

    fn settings_file(&self, stage: &str) -> PathBuf {
        self.settings.join(format!("Pulumi.{stage}.yaml"))
    }

    /// Writes the settings file of a new stage, and tells where.
    pub(crate) fn new_stage(&self, name: &str, settings: &Settings) -> Result<PathBuf> {
        check_name(name)?;
        settings.check()?;
        let path = self.settings_file(name);
        let text = serde_saphyr::to_string(&SettingsFile { config: settings.clone() })?;
        let mut file = match File::create_new(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                bail!("stage {name} exists already: {} was left as it is", path.display())
            }
            Err(error) => return Err(error).with_context(|| format!("cannot write {}", path.display())),
        };
        file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Reads the settings of a stage.
    pub(crate) fn settings(&self, name: &str) -> Result<Settings> {
        check_name(name)?;
        let path = self.settings_file(name);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                bail!("there is no stage {name}. To make it: cargo run -p infra -- stage new {name}")
            }
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let file: SettingsFile = serde_saphyr::from_str(&text)
            .map_err(|error| anyhow::anyhow!("{error}"))
            .with_context(|| format!("{} cannot be understood", path.display()))?;
        file.config.check().with_context(|| format!("{} cannot be used", path.display()))?;
        Ok(file.config)
    }

    pub(crate) fn folder(&self, stage: &str) -> Folder {
        Folder { path: self.home.join(stage) }
    }
}

/// The settings of a stage, in the form of Pulumi's own stack settings file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SettingsFile {
    config: Settings,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    #[serde(rename = "portcullis:target")]
    pub(crate) target: Target,
    /// The address that mails come from.
    #[serde(rename = "portcullis:sender")]
    pub(crate) sender: String,
    /// Whether `down` keeps what holds users.
    #[serde(rename = "portcullis:protect", default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) protect: bool,
    /// What differs from the service's own limits, e.g. `sessionSeconds: 3600`.
    #[serde(rename = "portcullis:limits", default, skip_serializing_if = "is_default")]
    pub(crate) limits: Limits,
    #[serde(rename = "aws:region")]
    pub(crate) region: String,
}

fn is_default(limits: &Limits) -> bool {
    *limits == Limits::default()
}

/// Where a stage lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Target {
    /// The local cloud.
    Local,
}

impl Settings {
    fn check(&self) -> Result<()> {
        if auth::Email::parse(&self.sender).is_err() {
            bail!("portcullis:sender must be a mail address, for example portcullis@example.com");
        }
        self.limits.check().map_err(|wrong| anyhow::anyhow!("portcullis:limits: {wrong}"))?;
        let region = self.region.as_bytes();
        let fits = region.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-');
        if region.is_empty() || region.len() > 32 || !fits {
            bail!("aws:region must be the name of a region, for example eu-west-1");
        }
        Ok(())
    }
}

/// Stage names go into the names of resources, so they are short and plain.
fn check_name(name: &str) -> Result<()> {
    let bytes = name.as_bytes();
    let plain = bytes.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-');
    if bytes.is_empty() || bytes.len() > 20 || !plain || !bytes[0].is_ascii_lowercase() || name.ends_with('-') {
        bail!(
            "\"{name}\" can't be the name of a stage: take 1 to 20 small letters, digits and hyphens, a letter first"
        );
    }
    Ok(())
}

/// The folder of a stage's state; only its owner may read it.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
}

/// Held while a command changes a stage.
pub(crate) struct Lock {
    _file: File,
}

/// The ports of a stage, chosen once and then kept, since links in mails name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ports {
    pub(crate) api: u16,
    pub(crate) site: u16,
}

/// What makes a folder ours.
#[derive(Serialize, Deserialize)]
struct Marker {
    project: String,
    stage: String,
    version: u32,
}

const VERSION: u32 = 1;

impl Folder {
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(crate) fn exists(&self) -> bool {
        self.path.exists()
    }

    /// Makes the folder, or checks that it is the one of this stage.
    pub(crate) fn open(&self, stage: &str) -> Result<()> {
        let path = self.path.display();
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&self.path).with_context(|| format!("cannot make the folder {path}"))?;
        #[cfg(unix)]
        std::fs::set_permissions(&self.path, std::os::unix::fs::PermissionsExt::from_mode(0o700))
            .with_context(|| format!("cannot make {path} readable by its owner only"))?;
        if self.check(stage)? {
            return Ok(());
        }
        let marker = Marker { project: "portcullis".into(), stage: stage.into(), version: VERSION };
        self.write_json("stage.json", &marker)
    }

    /// Whether the folder holds the state of this stage (`false`: nothing yet).
    ///
    /// # Errors
    /// When it holds something else.
    pub(crate) fn check(&self, stage: &str) -> Result<bool> {
        let path = self.path.display();
        let next_step = "Move it away, or name another place in PORTCULLIS_HOME";
        let marker = match self.read_json::<Marker>("stage.json") {
            Ok(Some(marker)) => marker,
            Ok(None) => {
                let mut entries = std::fs::read_dir(&self.path).into_iter().flatten().flatten();
                if entries.any(|entry| !entry.file_name().to_string_lossy().ends_with(".lock")) {
                    bail!("{path} holds something else than the state of a stage. {next_step}.");
                }
                return Ok(false);
            }
            Err(error) => return Err(error.context(format!("the state in {path} is damaged. {next_step}"))),
        };
        if marker.project != "portcullis" || marker.stage != stage {
            bail!("{path} holds the state of {} {}, not of stage {stage}. {next_step}.", marker.project, marker.stage);
        }
        if marker.version != VERSION {
            bail!(
                "{path} was written by another version of Portcullis (format {}, here {VERSION}). {next_step}.",
                marker.version
            );
        }
        Ok(true)
    }

    /// One command at a time may change a stage.
    pub(crate) fn lock(&self, stage: &str) -> Result<Lock> {
        let path = self.file("up.lock");
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { _file: file }),
            Err(std::fs::TryLockError::WouldBlock) => {
                bail!("another command is changing stage {stage} right now. Wait until it has ended, then try again.")
            }
            Err(std::fs::TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot lock {}", path.display()))
            }
        }
    }

    /// The key for salts and challenges, made once for the stage: 32 random bytes in base64url.
    pub(crate) fn challenge_key(&self) -> Result<String> {
        const FILE: &str = "secrets.json";
        #[derive(Serialize, Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Secrets {
            challenge_key: String,
        }
        let kept = self.read_json::<Secrets>(FILE).map_err(|_| {
            // The cause would quote the file.
            anyhow::anyhow!("{} is damaged: bring it back from a copy", self.file(FILE).display())
        })?;
        if let Some(secrets) = kept {
            return Ok(secrets.challenge_key);
        }
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no random numbers: {error}"))?;
        let secrets = Secrets { challenge_key: BASE64URL.encode(bytes) };
        self.write_json(FILE, &secrets)?;
        Ok(secrets.challenge_key)
    }

    pub(crate) fn ports(&self) -> Result<Option<Ports>> {
        self.read_json("ports.json")
    }

    /// Binds the ports of the stage: those it has, otherwise 4566 and 8080 when free, otherwise free ones.
    pub(crate) fn bind_ports(&self) -> Result<(TcpListener, TcpListener)> {
        let bind = |port| TcpListener::bind(("127.0.0.1", port));
        if let Some(ports) = self.ports()? {
            let kept = |port, what| {
                bind(port).with_context(|| {
                    format!(
                        "port {port}, which this stage uses for its {what}, is taken by another program. End that \
                         program; or delete {} so that the stage takes another port (links in mails that were sent \
                         before will then lead nowhere)",
                        self.file("ports.json").display()
                    )
                })
            };
            return Ok((kept(ports.api, "AWS endpoint")?, kept(ports.site, "site")?));
        }
        let (api, site) = (self.bind_free(4566)?, self.bind_free(8080)?);
        self.write_json("ports.json", &Ports { api: api.local_addr()?.port(), site: site.local_addr()?.port() })?;
        Ok((api, site))
    }

    /// Binds the wanted port, unless somebody else has it or another stage keeps it; then a free one, below those that
    /// systems give to outgoing connections, which could have it when the stage starts again.
    fn bind_free(&self, wanted: u16) -> Result<TcpListener> {
        let mut kept = Vec::new();
        for stage in self.path.parent().and_then(|home| std::fs::read_dir(home).ok()).into_iter().flatten().flatten() {
            let ports = Self { path: stage.path() }.ports().ok().flatten();
            kept.extend(ports.into_iter().flat_map(|ports| [ports.api, ports.site]));
        }
        // For tests, which put up and kill many stages at once: none shall get what another one had a moment ago.
        let wanted = (std::env::var_os("PORTCULLIS_PORTS").is_none_or(|ports| ports != "random")).then_some(wanted);
        let random = std::iter::repeat_with(|| {
            let mut bytes = [0; 2];
            getrandom::fill(&mut bytes).map(|()| 20_000 + u16::from_le_bytes(bytes) % 12_000).unwrap_or_default()
        });
        let mut ports = wanted.into_iter().chain(random.take(1000)).filter(|port| !kept.contains(port));
        let bound = ports.find_map(|port| TcpListener::bind(("127.0.0.1", port)).ok());
        bound.context("no port is free on 127.0.0.1")
    }

    /// `None` when there is no such file.
    pub(crate) fn read_json<T: for<'a> Deserialize<'a>>(&self, name: &str) -> Result<Option<T>> {
        let path = self.file(name);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let value = serde_json::from_slice(&text);
        Ok(Some(value.with_context(|| format!("{} is damaged", path.display()))?))
    }

    /// Writes a file whole or not at all, readable by its owner only, and waits until it is on the disk.
    pub(crate) fn write_json(&self, name: &str, value: &impl Serialize) -> Result<()> {
        self.replace_json(name, value, true)
    }

    /// The same without waiting for the disk: safe against a killed process, and enough where the next step writes again.
    pub(crate) fn write_json_soon(&self, name: &str, value: &impl Serialize) -> Result<()> {
        self.replace_json(name, value, false)
    }

    fn replace_json(&self, name: &str, value: &impl Serialize, wait: bool) -> Result<()> {
        let path = self.file(name);
        let new = self.file(&format!("{name}.new"));
        let write = || -> std::io::Result<()> {
            let mut options = File::options();
            options.create(true).truncate(true).write(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let mut file = options.open(&new)?;
            file.write_all(&serde_json::to_vec_pretty(value)?)?;
            if wait {
                file.sync_all()?;
            }
            std::fs::rename(&new, &path)
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }
}
