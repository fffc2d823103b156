//! Errors of the cloud itself, and errors as AWS tells them to a caller.

use axum::http::StatusCode;

/// The cloud can't do its work: its folder, its database or a port failed, or a declaration makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum CloudError {
    #[error("{0}")]
    Declaration(String),
    #[error("cannot use {path}: {source}")]
    File { path: std::path::PathBuf, source: std::io::Error },
    #[error("the local cloud's database failed: {0}")]
    Database(#[from] rusqlite::Error),
    #[error("the local cloud holds a record that it cannot read: {0}")]
    Record(#[from] serde_json::Error),
    #[error("a connection failed: {0}")]
    Network(std::io::Error),
    #[error("{0}")]
    Tables(String),
}

/// What a caller is told: AWS's own code, status and message. The gateway renders it in the protocol of the service
/// (JSON with `x-amzn-errortype`, query XML, or S3 XML).
#[derive(Debug, Clone)]
pub(crate) struct AwsError {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

impl AwsError {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    /// 400 with the given code.
    pub(crate) fn bad_request(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// 500: ours, never the caller's. The cause goes to the log, not to the caller.
    pub(crate) fn internal(cause: impl std::fmt::Display) -> Self {
        tracing::error!(%cause, "internal failure");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalFailure",
            "The request processing has failed because of an unknown error, exception or failure.",
        )
    }
}
