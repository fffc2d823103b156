//! [`Context`]: what a program declares its resources on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinSet;

use crate::output::Resolved;
use crate::{Error, Failed, Input, Monitor, Output, Registered, Registration, ResourceOptions, Urn, Value};

/// Collects what a program declares. Resources are registered in parallel as far as their inputs allow, and
/// [`Context::finish`] waits for all of them, so that none can be forgotten.
pub struct Context {
    monitor: Arc<dyn Monitor>,
    declared: Mutex<Declared>,
}

#[derive(Default)]
struct Declared {
    count: usize,
    names: BTreeSet<(String, String)>,
    registrations: JoinSet<Result<(), Error>>,
    outputs: BTreeMap<String, Output<Value>>,
    mistakes: Vec<Error>,
}

/// A declared resource.
#[derive(Clone)]
pub struct Resource {
    registered: Output<Arc<Registered>>,
}

impl Resource {
    /// The provider's identifier, e.g. a bucket's name.
    pub fn id(&self) -> Output<String> {
        self.registered.filter_map(|registered| registered.id.clone())
    }

    /// A property of the resource that holds a text.
    pub fn text(&self, property: &'static str) -> Output<String> {
        self.registered.filter_map(move |registered| {
            let value = registered.outputs.get(property)?;
            value.as_str().map(str::to_owned)
        })
    }

    /// Ready when the resource is; for `after` of [`Context::register`].
    pub fn ready(&self) -> Output<Urn> {
        self.registered.map(|registered| registered.urn.clone())
    }
}

impl Context {
    /// Must be used inside a tokio runtime.
    pub fn new(monitor: Arc<dyn Monitor>) -> Self {
        Self { monitor, declared: Mutex::default() }
    }

    /// Declares a resource; `after` names those that must come first although no input says so.
    pub fn register(
        &self,
        type_token: &'static str,
        name: &str,
        inputs: BTreeMap<String, Input>,
        after: Vec<Output<Urn>>,
        protect: bool,
    ) -> Resource {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let monitor = Arc::clone(&self.monitor);
        let name = name.to_owned();
        let mut declared = self.declared();
        let order = declared.count;
        declared.count += 1;
        if !declared.names.insert((type_token.to_owned(), name.clone())) {
            let mistake = format!("the program declares {type_token} \"{name}\" twice");
            declared.mistakes.push(Error(mistake));
        }
        declared.registrations.spawn(async move {
            let resolved = resolve(order, type_token, name, inputs, after, protect).await;
            // A dependency failed and said so: nothing is registered, and whoever depends on this one fails too.
            let Ok(registration) = resolved else {
                return Ok(());
            };
            let registered = monitor.register(registration).await?;
            // The program may have dropped the resource: nobody waits then.
            let _ = sender.send(Arc::new(registered));
            Ok(())
        });
        drop(declared);
        Resource {
            registered: Output::future(async move {
                let registered = receiver.await.map_err(|_| Failed)?;
                let dependencies = BTreeSet::from([registered.urn.clone()]);
                Ok(Resolved { value: Some(registered), secret: false, dependencies })
            }),
        }
    }

    /// Declares an output of the whole stack.
    pub fn export(&self, name: &str, value: Output<impl Into<Value> + Clone + Send + Sync + 'static>) {
        let value = value.map(Into::into);
        self.declared().outputs.insert(name.to_owned(), value);
    }

    /// Waits for every registration and tells the stack's outputs.
    ///
    /// # Errors
    /// Every failure: of a registration, of the program (a panic, a name declared twice), of the engine. A program of
    /// which one future failed or was lost has not succeeded.
    pub async fn finish(self) -> Result<BTreeMap<String, Value>, Vec<Error>> {
        let declared = self.declared.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut errors = declared.mistakes;
        let mut registrations = declared.registrations;
        while let Some(ended) = registrations.join_next().await {
            match ended {
                Ok(Ok(())) => {}
                Ok(Err(error)) => errors.push(error),
                Err(lost) => errors.push(Error(format!("the program failed: {lost}"))),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let mut outputs = BTreeMap::new();
        for (name, output) in declared.outputs {
            let mut ignored = BTreeSet::new();
            let value = Input::Output(output).resolve(&mut ignored).await;
            let value = value.map_err(|Failed| vec![Error(format!("output {name} failed"))])?;
            outputs.insert(name, value);
        }
        let told = self.monitor.register_stack_outputs(outputs.clone()).await;
        told.map(|()| outputs).map_err(|error| vec![error])
    }

    fn declared(&self) -> std::sync::MutexGuard<'_, Declared> {
        self.declared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn resolve(
    order: usize,
    type_token: &'static str,
    name: String,
    properties: BTreeMap<String, Input>,
    after: Vec<Output<Urn>>,
    protect: bool,
) -> Result<Registration, Failed> {
    let mut options = ResourceOptions { protect, ..ResourceOptions::default() };
    for output in after {
        options.depends_on.extend(output.resolve().await?.value);
    }
    let mut inputs = BTreeMap::new();
    let mut property_dependencies = BTreeMap::new();
    for (key, input) in properties {
        let mut dependencies = BTreeSet::new();
        inputs.insert(key.clone(), input.resolve(&mut dependencies).await?);
        if !dependencies.is_empty() {
            property_dependencies.insert(key, dependencies);
        }
    }
    Ok(Registration { order, type_token: type_token.to_owned(), name, inputs, property_dependencies, options })
}
