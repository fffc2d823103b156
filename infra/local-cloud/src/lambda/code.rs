//! The executables of the functions: copied in, so that a build may go on while a stage runs.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::process::random_hex;
use crate::CloudError;

/// A folder per executable, named by its hash.
pub(super) struct Code {
    pub(super) root: PathBuf,
}

impl Code {
    pub(super) fn folder(&self, sha256: &str) -> PathBuf {
        self.root.join(sha256)
    }

    /// Copies the executable to its place, whole or not at all.
    pub(super) fn keep(&self, executable: &Path, sha256: &str) -> Result<(), CloudError> {
        let fails = |source| CloudError::File { path: executable.to_owned(), source };
        if sha256.len() != 64 || !sha256.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(CloudError::Declaration(format!("{sha256} is not a SHA-256 in lower-case hex.")));
        }
        let folder = self.folder(sha256);
        if folder.join("bootstrap").exists() {
            return Ok(());
        }
        let unfinished = self.root.join(format!(".{sha256}.{}", random_hex::<8>()));
        std::fs::create_dir(&unfinished).map_err(fails)?;
        let copied = (|| {
            let mut from = std::fs::File::open(executable)?;
            let mut options = std::fs::OpenOptions::new();
            let mut to = options.write(true).create_new(true).mode(0o500).open(unfinished.join("bootstrap"))?;
            let mut hash = Sha256::new();
            let mut buffer = vec![0; 256 * 1024];
            loop {
                let length = from.read(&mut buffer)?;
                if length == 0 {
                    break;
                }
                hash.update(&buffer[..length]);
                to.write_all(&buffer[..length])?;
            }
            to.sync_all()?;
            Ok(hash.finalize())
        })();
        let placed = copied.map_err(fails).and_then(|found| {
            let found: String = found.iter().map(|byte| format!("{byte:02x}")).collect();
            if found != sha256 {
                return Err(CloudError::Declaration(format!(
                    "{} has the SHA-256 {found}, but {sha256} was declared. Build and declare it again.",
                    executable.display()
                )));
            }
            std::fs::rename(&unfinished, &folder)
                .and_then(|()| std::fs::File::open(&self.root)?.sync_all())
                .map_err(fails)
        });
        if placed.is_err() {
            std::fs::remove_dir_all(&unfinished).ok();
        }
        placed
    }

    /// Removes every executable that is not `used`, and what a killed copy left.
    pub(super) fn keep_only(&self, used: &BTreeSet<String>) {
        for entry in std::fs::read_dir(&self.root).into_iter().flatten().flatten() {
            if !used.contains(entry.file_name().to_string_lossy().as_ref()) {
                std::fs::remove_dir_all(entry.path()).ok();
            }
        }
    }
}
