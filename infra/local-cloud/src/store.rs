//! What must survive a restart or `kill -9`, in one SQLite file. Each service keeps its own tables in it.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rusqlite::Connection;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::CloudError;

pub(crate) struct Store {
    connection: Mutex<Connection>,
}

impl Store {
    /// Opens the file, or makes it.
    pub(crate) fn open(path: &Path) -> Result<Self, CloudError> {
        let connection = Connection::open(path)?;
        // WAL with NORMAL: a killed process loses nothing that was committed; a power cut may lose the last moments,
        // but never the file.
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS documents (
                 kind TEXT NOT NULL, name TEXT NOT NULL, json TEXT NOT NULL, PRIMARY KEY (kind, name)
             ) WITHOUT ROWID",
        )?;
        Ok(Self { connection: Mutex::new(connection) })
    }

    /// Runs `work` on the connection. Keep it short: calls wait for each other.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>) -> Result<T, CloudError> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(work(&mut connection)?)
    }

    /// Writes a document, replacing one of the same kind and name.
    pub(crate) fn put<T: Serialize>(&self, kind: &str, name: &str, document: &T) -> Result<(), CloudError> {
        let json = serde_json::to_string(document)?;
        self.with(|connection| {
            connection
                .prepare_cached("INSERT OR REPLACE INTO documents VALUES (?1, ?2, ?3)")?
                .execute((kind, name, json))
        })?;
        Ok(())
    }

    pub(crate) fn get<T: DeserializeOwned>(&self, kind: &str, name: &str) -> Result<Option<T>, CloudError> {
        use rusqlite::OptionalExtension;
        let json: Option<String> = self.with(|connection| {
            connection
                .prepare_cached("SELECT json FROM documents WHERE kind = ?1 AND name = ?2")?
                .query_row((kind, name), |row| row.get(0))
                .optional()
        })?;
        Ok(json.as_deref().map(serde_json::from_str).transpose()?)
    }

    /// All documents of a kind, by name.
    pub(crate) fn all<T: DeserializeOwned>(&self, kind: &str) -> Result<Vec<(String, T)>, CloudError> {
        let rows: Vec<(String, String)> = self.with(|connection| {
            connection
                .prepare_cached("SELECT name, json FROM documents WHERE kind = ?1 ORDER BY name")?
                .query_map((kind,), |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect()
        })?;
        rows.into_iter().map(|(name, json)| Ok((name, serde_json::from_str(&json)?))).collect()
    }

    /// Deletes a document; one that is not there counts as deleted.
    pub(crate) fn delete(&self, kind: &str, name: &str) -> Result<(), CloudError> {
        self.with(|connection| {
            connection.prepare_cached("DELETE FROM documents WHERE kind = ?1 AND name = ?2")?.execute((kind, name))
        })?;
        Ok(())
    }
}
