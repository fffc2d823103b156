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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Recorder;
    use std::future::Future;
    use std::pin::Pin;

    /// Refuses one resource and panics at another, as an engine might.
    struct Troubled(Recorder);

    impl Monitor for Troubled {
        fn register(
            &self,
            registration: Registration,
        ) -> Pin<Box<dyn Future<Output = Result<Registered, Error>> + Send + '_>> {
            match registration.name.as_str() {
                "refused" => Box::pin(async { Err(Error("refused".to_owned())) }),
                "panics" => Box::pin(async { panic!("lost") }),
                _ => self.0.register(registration),
            }
        }

        fn register_stack_outputs(
            &self,
            outputs: BTreeMap<String, Value>,
        ) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send + '_>> {
            self.0.register_stack_outputs(outputs)
        }
    }

    fn context() -> (Context, Arc<Troubled>) {
        let monitor = Arc::new(Troubled(Recorder::new("test", |_| BTreeMap::new())));
        (Context::new(Arc::clone(&monitor) as Arc<dyn Monitor>), monitor)
    }

    fn declare(context: &Context, name: &str, value: impl Into<crate::In<String>>) -> Resource {
        context.register("a:b:C", name, Input::fields([("value", value.into().into_input())]), Vec::new(), false)
    }

    fn recorded(monitor: &Troubled) -> Vec<String> {
        monitor.0.registrations().into_iter().map(|registration| registration.name).collect()
    }

    #[tokio::test]
    async fn values_flow_with_their_dependencies_and_secrets() {
        let (context, monitor) = context();
        let first = declare(&context, "first", Output::secret("hidden".to_owned()));
        declare(&context, "second", first.text("value").map(|value| format!("{value}!")));
        context.export("first", first.text("value"));
        let outputs = context.finish().await.expect("a good program");
        assert_eq!(outputs["first"].as_str(), Some("hidden"));
        let second = monitor.0.registrations().remove(1);
        assert_eq!(second.inputs["value"].as_str(), Some("hidden!"));
        let urn = "urn:pulumi:test::recorded::a:b:C::first".to_owned();
        assert_eq!(second.dependencies(), BTreeSet::from([urn]));
        assert!(matches!(&monitor.0.registrations()[0].inputs["value"], Value::Secret(_)));
    }

    #[tokio::test]
    async fn what_depends_on_a_refused_resource_is_not_registered_and_the_refusal_is_told_once() {
        let (context, monitor) = context();
        let refused = declare(&context, "refused", "x");
        declare(&context, "dependent", refused.text("value"));
        declare(&context, "independent", "y");
        assert_eq!(context.finish().await, Err(vec![Error("refused".to_owned())]));
        assert_eq!(recorded(&monitor), ["independent"]);
    }

    #[tokio::test]
    async fn a_lost_future_is_no_success() {
        let (context, _) = context();
        declare(&context, "panics", "x");
        assert!(context.finish().await.is_err());
    }

    #[tokio::test]
    async fn a_name_declared_twice_is_no_success() {
        let (context, _) = context();
        declare(&context, "same", "x");
        declare(&context, "same", "y");
        assert!(context.finish().await.is_err());
    }

    #[tokio::test]
    async fn an_unknown_stays_unknown_through_all_that_is_made_of_it() {
        let (context, monitor) = context();
        let unknown = Output::<String>::unknown().map(|value| value + "!");
        declare(&context, "first", Output::all(vec![unknown, "known".into()]).map(|all| all.concat()));
        context.finish().await.expect("a good program");
        assert_eq!(monitor.0.registrations()[0].inputs["value"], Value::Unknown);
    }

    #[tokio::test]
    async fn a_resource_waits_for_those_it_must_come_after() {
        let (context, monitor) = context();
        let first = declare(&context, "first", "x");
        context.register("a:b:C", "second", BTreeMap::new(), vec![first.ready()], true);
        context.finish().await.expect("a good program");
        let second = monitor.0.registrations().remove(1);
        assert_eq!(second.options.depends_on.len(), 1);
        assert!(second.options.protect);
    }
}
