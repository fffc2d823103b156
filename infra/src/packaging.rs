//! What is built before a deployment: the functions' executables, and the site's one npm package.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::UNIX_EPOCH;

use anyhow::{Context as _, Result, bail};
use auth::Function;
use pulumi::Archive;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::provider::hex;
use crate::stage::Folder;

/// The six executables for this machine, with their hashes: built here, or taken from the folder `prebuilt`.
///
/// # Errors
/// When cargo is missing or the build fails (cargo has then told why), or an executable is missing.
pub(crate) fn functions(
    root: &Path,
    prebuilt: Option<&Path>,
    folder: Option<&Folder>,
) -> Result<BTreeMap<Function, Archive>> {
    let built = match prebuilt {
        Some(prebuilt) => executables_in(prebuilt)?,
        None => build(root)?,
    };
    let mut hashes = Hashes::load(folder);
    let mut packages = BTreeMap::new();
    for function in Function::ALL {
        let path = built.get(function.binary());
        let path = path.with_context(|| format!("there is no executable {}", function.binary()))?;
        let archive = Archive { path: path.clone(), sha256: hashes.of(path)? };
        packages.insert(function, archive);
    }
    hashes.save(folder)?;
    Ok(packages)
}

fn executables_in(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let folder = std::path::absolute(folder)?;
    let executables =
        Function::ALL.iter().map(|function| (function.binary().to_owned(), folder.join(function.binary())));
    Ok(executables.filter(|(_, path)| path.is_file()).collect())
}

/// Builds the executables; cargo shows its own progress.
fn build(root: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(root).args(["build", "--package", "functions", "--bins"]);
    command.arg("--message-format=json-render-diagnostics").stdin(Stdio::null()).stdout(Stdio::piped());
    // `cargo run` tells this program of itself; the build below must not see that, or it builds parts of itself anew.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"].iter().any(|start| name.starts_with(start)) {
            command.env_remove(name.as_ref());
        }
    }
    let mut build = command.spawn().context("cannot run cargo: install Rust from https://rustup.rs")?;
    let mut built: BTreeMap<String, PathBuf> = BTreeMap::new();
    for line in BufReader::new(build.stdout.take().context("cargo has no output")?).lines() {
        #[derive(Deserialize)]
        struct Message {
            executable: Option<PathBuf>,
        }
        let Ok(Message { executable: Some(path) }) = serde_json::from_str(&line?) else { continue };
        if let Some(name) = path.file_stem().and_then(|name| name.to_str()) {
            built.insert(name.to_owned(), path);
        }
    }
    if !build.wait()?.success() {
        bail!(
            "the functions could not be built: mend what the compiler names above, then run the command again. \
             Nothing was changed."
        );
    }
    Ok(built)
}

/// Installs what the site's `package-lock.json` names, when it isn't there yet.
pub(crate) fn site_packages(folder: &Path, say: impl FnOnce()) -> Result<()> {
    let modified = |path: &str| std::fs::metadata(folder.join(path)).and_then(|file| file.modified()).ok();
    let installed = modified("node_modules/.package-lock.json");
    if installed.is_some() && installed >= modified("package-lock.json") {
        return Ok(());
    }
    say();
    let output = Command::new("npm")
        .current_dir(folder)
        .args(["ci", "--no-audit", "--no-fund", "--loglevel=error"])
        .stdin(Stdio::null())
        .output()
        .context("cannot run npm: install Node.js with npm, then run the command again")?;
    if !output.status.success() {
        bail!("npm ci failed in {}:\n{}", folder.display(), String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(())
}

/// The hashes of files, kept so that an unchanged file of many megabytes isn't read again.
#[derive(Default, Serialize, Deserialize)]
struct Hashes(BTreeMap<PathBuf, Hash>);

#[derive(Serialize, Deserialize)]
struct Hash {
    length: u64,
    modified_ns: u128,
    sha256: String,
}

impl Hashes {
    const FILE: &str = "hashes.json";

    fn load(folder: Option<&Folder>) -> Self {
        folder.and_then(|folder| folder.read_json(Self::FILE).ok().flatten()).unwrap_or_default()
    }

    fn save(&self, folder: Option<&Folder>) -> Result<()> {
        match folder {
            // A file is only written when something in it is new.
            Some(folder) if folder.read_json::<Self>(Self::FILE).ok().flatten().is_none_or(|kept| !kept.same(self)) => {
                folder.write_json(Self::FILE, self)
            }
            _ => Ok(()),
        }
    }

    fn same(&self, other: &Self) -> bool {
        let hashes = |all: &Self| all.0.values().map(|hash| hash.sha256.clone()).collect::<Vec<_>>();
        hashes(self) == hashes(other)
    }

    fn of(&mut self, path: &Path) -> Result<String> {
        let context = || format!("cannot read {}", path.display());
        let file = std::fs::metadata(path).with_context(context)?;
        let modified_ns = file.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        if let Some(known) = self.0.get(path)
            && known.length == file.len()
            && known.modified_ns == modified_ns
        {
            return Ok(known.sha256.clone());
        }
        let mut reader = std::fs::File::open(path).with_context(context)?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            let length = reader.read(&mut buffer).with_context(context)?;
            if length == 0 {
                break;
            }
            hasher.update(&buffer[..length]);
        }
        let sha256 = hex(&hasher.finalize());
        self.0.insert(path.to_owned(), Hash { length: file.len(), modified_ns, sha256: sha256.clone() });
        Ok(sha256)
    }
}
