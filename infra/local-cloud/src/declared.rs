//! What was declared: the resources of an environment, as AWS's control plane would hold them. Every `put` is
//! idempotent, so that a deployment killed at any point can be repeated.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::CloudError;
use crate::store::Store;

/// An IAM role with its trust document and inline policies (name → document).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Role {
    pub name: String,
    pub trust: Value,
    #[serde(default)]
    pub policies: BTreeMap<String, Value>,
    /// Seconds that a session may last; 3600 unless said otherwise.
    pub max_session_seconds: u32,
}

/// A DynamoDB table: `definition` is the body of the CreateTable request, without the parts below.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Table {
    pub name: String,
    pub definition: Value,
    pub ttl_attribute: Option<String>,
    pub point_in_time_recovery: bool,
    pub deletion_protection: bool,
}

/// A Lambda function. Its code is the file that [`crate::Cloud::put_function`] was given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Function {
    pub name: String,
    pub role_arn: String,
    pub memory_mb: u32,
    pub timeout_seconds: u32,
    pub environment: BTreeMap<String, String>,
    pub log_group: String,
    /// At most so many concurrent executions, when set.
    pub reserved_concurrency: Option<u32>,
    /// Hex SHA-256 of the executable.
    pub code_sha256: String,
    /// For calls of the type Event.
    pub asynchronous: Asynchronous,
}

/// What happens to asynchronous invocations that fail or wait (AWS's defaults: 2 retries, 6 hours).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asynchronous {
    pub maximum_retry_attempts: u32,
    pub maximum_event_age_seconds: u32,
}

impl Default for Asynchronous {
    fn default() -> Self {
        Self { maximum_retry_attempts: 2, maximum_event_age_seconds: 21_600 }
    }
}

/// A Cognito identity pool with one developer provider.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IdentityPool {
    /// `REGION:UUID`, given by the cloud.
    pub id: String,
    pub name: String,
    pub developer_provider: Option<String>,
    pub allow_unauthenticated: bool,
    pub allow_classic_flow: bool,
    /// ARNs of the roles, once attached.
    pub unauthenticated_role: Option<String>,
    pub authenticated_role: Option<String>,
}

/// An S3 bucket. A bucket policy that makes it public works only while `block_public_policy` is off.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bucket {
    pub name: String,
    pub policy: Option<Value>,
    pub block_public_policy: bool,
}

/// An object, with the headers that it is served with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Object {
    pub bucket: String,
    pub key: String,
    pub content_type: String,
    pub content_encoding: Option<String>,
    pub cache_control: Option<String>,
    /// Hex MD5 of the body, without quotes, as S3 computes it.
    pub etag: String,
    pub last_modified: String,
    pub size: u64,
}

/// An address that SES may send from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MailIdentity {
    pub address: String,
}

/// A CloudWatch log group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogGroup {
    pub name: String,
    /// `None`: for ever.
    pub retention_days: Option<u32>,
}

/// A kind of declared resource, kept as a document of the store under its name.
pub(crate) trait Resource: Clone + Serialize + DeserializeOwned {
    const KIND: &'static str;
    /// What it is found by, unique among its kind.
    fn key(&self) -> &str;
    fn shelf(declared: &Declared) -> &Shelf<Self>;
}

/// Resources of one kind, by name. Readers get a shared snapshot of one entry.
pub(crate) struct Shelf<T>(RwLock<BTreeMap<String, Arc<T>>>);

/// Everything declared, in memory, written through to the store.
pub(crate) struct Declared {
    roles: Shelf<Role>,
    tables: Shelf<Table>,
    functions: Shelf<Function>,
    identity_pools: Shelf<IdentityPool>,
    buckets: Shelf<Bucket>,
    mail_identities: Shelf<MailIdentity>,
    log_groups: Shelf<LogGroup>,
}

macro_rules! resource {
    ($type:ident, $kind:literal, $field:ident, $key:ident) => {
        impl Resource for $type {
            const KIND: &'static str = $kind;
            fn key(&self) -> &str {
                &self.$key
            }
            fn shelf(declared: &Declared) -> &Shelf<Self> {
                &declared.$field
            }
        }
    };
}
resource!(Role, "role", roles, name);
resource!(Table, "table", tables, name);
resource!(Function, "function", functions, name);
resource!(IdentityPool, "identity-pool", identity_pools, id);
resource!(Bucket, "bucket", buckets, name);
resource!(MailIdentity, "mail-identity", mail_identities, address);
resource!(LogGroup, "log-group", log_groups, name);

impl Declared {
    pub(crate) fn load(store: &Store) -> Result<Self, CloudError> {
        Ok(Self {
            roles: Shelf::load(store)?,
            tables: Shelf::load(store)?,
            functions: Shelf::load(store)?,
            identity_pools: Shelf::load(store)?,
            buckets: Shelf::load(store)?,
            mail_identities: Shelf::load(store)?,
            log_groups: Shelf::load(store)?,
        })
    }

    /// The resource of that name, as it is now.
    pub(crate) fn get<T: Resource>(&self, name: &str) -> Option<Arc<T>> {
        T::shelf(self).read().get(name).cloned()
    }

    /// All resources of the kind, by name.
    pub(crate) fn all<T: Resource>(&self) -> Vec<Arc<T>> {
        T::shelf(self).read().values().cloned().collect()
    }

    /// Writes to the store first: what readers see has been kept.
    pub(crate) fn put<T: Resource>(&self, store: &Store, resource: T) -> Result<(), CloudError> {
        let mut shelf = T::shelf(self).0.write().unwrap_or_else(PoisonError::into_inner);
        store.put(T::KIND, resource.key(), &resource)?;
        shelf.insert(resource.key().to_owned(), Arc::new(resource));
        Ok(())
    }

    /// A resource that is not there counts as deleted.
    pub(crate) fn delete<T: Resource>(&self, store: &Store, name: &str) -> Result<(), CloudError> {
        let mut shelf = T::shelf(self).0.write().unwrap_or_else(PoisonError::into_inner);
        store.delete(T::KIND, name)?;
        shelf.remove(name);
        Ok(())
    }
}

impl<T: Resource> Shelf<T> {
    fn load(store: &Store) -> Result<Self, CloudError> {
        let entries = store.all::<T>(T::KIND)?.into_iter();
        Ok(Self(RwLock::new(entries.map(|(name, entry)| (name, Arc::new(entry))).collect())))
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<String, Arc<T>>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}
