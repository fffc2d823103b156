//! [`Monitor`]: what resources are registered with.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;

use crate::Value;

/// `urn:pulumi:STACK::PROJECT::TYPE::NAME`.
pub type Urn = String;

/// A resource could not be registered, or the engine is gone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);

/// A resource that a program declares, its inputs resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct Registration {
    /// Where the program declared it: 0, 1, 2, …
    pub order: usize,
    /// `PACKAGE:MODULE:TYPE`
    pub type_token: String,
    /// Unique among its type in the program.
    pub name: String,
    /// The properties, an object without absent ones.
    pub inputs: BTreeMap<String, Value>,
    /// For each property, the resources that its value came from.
    pub property_dependencies: BTreeMap<String, BTreeSet<Urn>>,
    pub options: ResourceOptions,
}

impl Registration {
    /// All resources that this one needs.
    pub fn dependencies(&self) -> BTreeSet<Urn> {
        let mut all: BTreeSet<Urn> = self.options.depends_on.iter().cloned().collect();
        all.extend(self.property_dependencies.values().flatten().cloned());
        all
    }
}

/// Pulumi's resource options, as far as they are used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResourceOptions {
    /// Registered only after these.
    pub depends_on: Vec<Urn>,
    /// Neither deleted nor replaced while set.
    pub protect: bool,
}

/// What a registration came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Registered {
    pub urn: Urn,
    /// `None`: not known before the deployment is carried out.
    pub id: Option<String>,
    /// The resource's properties; one that is missing is unknown in a preview.
    pub outputs: BTreeMap<String, Value>,
}

type Reply<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// An engine, or what stands for one. Calls may run at the same time.
pub trait Monitor: Send + Sync + 'static {
    /// Registers a resource: creates it, updates it, or finds that nothing is to do.
    fn register(&self, registration: Registration) -> Reply<'_, Registered>;

    /// Tells the outputs of the whole stack, once everything is registered.
    fn register_stack_outputs(&self, outputs: BTreeMap<String, Value>) -> Reply<'_, ()>;
}
