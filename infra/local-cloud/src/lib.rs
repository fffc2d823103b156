//! The AWS services that an authentication service needs, on one machine and in one process, over the real wire
//! protocols. Every signed call is verified (SigV4) and authorised against the declared IAM documents, denied by
//! default and before anything is looked up.
//!
//! This crate knows no function, page or policy by name, and nothing of Pulumi: a caller declares resources
//! ([`declared`]) on a [`Cloud`] and serves it.

mod call;
mod cognito;
mod credentials;
pub mod declared;
mod dynamodb;
mod error;
mod events;
mod gateway;
pub mod iam;
mod lambda;
mod logs;
mod mailbox;
mod s3;
mod ses;
mod sigv4;
mod store;
mod sts;
#[cfg(test)]
mod test_cloud;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use credentials::AccessKey;
pub use error::CloudError;
pub use events::Event;
pub use s3::NewObject;

/// Where a cloud lives and what it calls itself.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder that holds everything; made by the caller, readable by its owner only.
    pub folder: PathBuf,
    /// For ARNs and credential scopes, e.g. `eu-west-1`.
    pub region: String,
    /// Twelve digits, for ARNs.
    pub account: String,
    /// The port of the API endpoint on 127.0.0.1: functions get `AWS_ENDPOINT_URL` from it.
    pub api_port: u16,
    /// The port of the site's own origin on 127.0.0.1.
    pub site_port: u16,
}

/// One whole environment: what was declared, what was stored, and the processes of its functions.
pub struct Cloud {
    pub(crate) options: Options,
    pub(crate) store: store::Store,
    pub(crate) declared: declared::Declared,
    pub(crate) events: events::Events,
    pub(crate) credentials: credentials::Credentials,
    pub(crate) dynamodb: dynamodb::Tables,
    pub(crate) lambda: lambda::Pool,
    pub(crate) logs: logs::Journal,
    /// Compiled policy and trust documents.
    pub(crate) documents: iam::Documents,
    pub(crate) tokens: cognito::Tokens,
    pub(crate) mailbox: mailbox::Mailbox,
    pub(crate) objects: s3::Objects,
}

impl Cloud {
    /// Opens the folder of `options`, and brings back all that was acknowledged before.
    ///
    /// # Errors
    /// [`CloudError`] when the folder can't be read or written, or holds something else than a cloud.
    pub fn open(options: Options) -> Result<Arc<Self>, CloudError> {
        let store = store::Store::open(&options.folder.join("cloud.sqlite"))?;
        let declared = declared::Declared::load(&store)?;
        let events = events::Events::open(&options.folder.join("events.jsonl"))?;
        let credentials = credentials::Credentials::load(&store)?;
        let dynamodb = dynamodb::Tables::open(&options)?;
        let lambda = lambda::Pool::new(&options)?;
        let logs = logs::Journal::open(&store)?;
        let tokens = cognito::Tokens::load(&store)?;
        let mailbox = mailbox::Mailbox::load(&store)?;
        let objects = s3::Objects::load(&store)?;
        Ok(Arc::new(Self {
            documents: iam::Documents::default(),
            tokens,
            mailbox,
            objects,
            options,
            store,
            declared,
            events,
            credentials,
            dynamodb,
            lambda,
            logs,
        }))
    }

    /// Serves the API port and the site port until `shutdown` is ready; then ends the functions' processes.
    ///
    /// # Errors
    /// [`CloudError`] when a listener fails for good.
    pub async fn serve(
        self: Arc<Self>,
        api: tokio::net::TcpListener,
        site: tokio::net::TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), CloudError> {
        gateway::serve(self, api, site, shutdown).await
    }

    /// The region that this cloud stands for.
    pub fn region(&self) -> &str {
        &self.options.region
    }

    /// The account that this cloud stands for.
    pub fn account(&self) -> &str {
        &self.options.account
    }

    /// The administrator's key of this cloud: may do everything, made once and kept.
    pub fn admin(&self) -> AccessKey {
        self.credentials.admin()
    }

    /// The address of the mailbox page, with the token that opens it.
    pub fn mailbox_url(&self) -> String {
        mailbox::url(self)
    }

    /// The file to which every decision, invocation and mail is written, one JSON object a line (see [`Event`]).
    pub fn events_file(&self) -> &Path {
        self.events.file()
    }
}
