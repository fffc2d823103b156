//! [`Output`]: a value that a resource will have, with what Pulumi tracks beside it.

use std::collections::BTreeSet;

use pulumi_gestalt_model as model;

use crate::Urn;

/// A resource that this value depends on could not be registered; the failure itself was reported where it happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failed;

/// A value of the future: may be unknown (in a preview), secret, and depends on resources.
///
/// The dependencies, secrets and unknowns are those of `pulumi_gestalt_model`; failure, which it lacks, is added here,
/// so that what depends on a failed resource is never registered.
pub struct Output<T>(model::Output<Result<T, Failed>>);

/// An [`Output`] once it is there.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved<T> {
    /// `None`: unknown until the deployment is carried out.
    pub value: Option<T>,
    pub secret: bool,
    pub dependencies: BTreeSet<Urn>,
}

impl<T> Clone for Output<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Clone + Send + Sync + 'static> Output<T> {
    /// A value that is known now.
    pub fn known(value: T) -> Self {
        Self(model::Output::new(Ok(value)))
    }

    /// A value that is known now and must not be shown.
    pub fn secret(value: T) -> Self {
        Self(model::Output::new_secret(Ok(value)))
    }

    /// A value that only a deployment can tell.
    pub fn unknown() -> Self {
        Self(model::Output::new_nothing())
    }

    /// What `future` will be.
    pub(crate) fn future(future: impl Future<Output = Result<Resolved<T>, Failed>> + Send + 'static) -> Self {
        Self(model::Output::from_resolved_future(async move {
            match future.await {
                Ok(resolved) => model::ResolvedOutput {
                    value: resolved.value.map(Ok),
                    secret: resolved.secret,
                    dependencies: resolved.dependencies.into_iter().collect(),
                },
                Err(Failed) => {
                    model::ResolvedOutput { value: Some(Err(Failed)), secret: false, dependencies: Default::default() }
                }
            }
        }))
    }

    /// The value changed by `change`; unknown stays unknown, secret stays secret.
    pub fn map<U: Clone + Send + Sync + 'static>(&self, change: impl Fn(T) -> U + Send + Sync + 'static) -> Output<U> {
        Output(self.0.map(move |value| value.map(&change)))
    }

    /// The value changed by `change`, which may tell that it is not known yet.
    pub fn filter_map<U: Clone + Send + Sync + 'static>(
        &self,
        change: impl Fn(T) -> Option<U> + Send + Sync + 'static,
    ) -> Output<U> {
        Output(self.0.and_then(move |value| match value.map(&change) {
            Ok(Some(value)) => model::Output::new(Ok(value)),
            Ok(None) => model::Output::new_nothing(),
            Err(Failed) => model::Output::new(Err(Failed)),
        }))
    }

    /// All the values together: unknown when one is, secret when one is.
    pub fn all(outputs: Vec<Output<T>>) -> Output<Vec<T>> {
        Output::future(async move {
            let mut all = Resolved { value: Some(Vec::new()), secret: false, dependencies: BTreeSet::new() };
            for output in outputs {
                let one = output.resolve().await?;
                all.value = all.value.zip(one.value).map(|(mut values, value)| {
                    values.push(value);
                    values
                });
                all.secret |= one.secret;
                all.dependencies.extend(one.dependencies);
            }
            Ok(all)
        })
    }

    /// Waits for the value.
    ///
    /// # Errors
    /// [`Failed`] when a resource that it depends on could not be registered.
    pub async fn resolve(&self) -> Result<Resolved<T>, Failed> {
        let resolved = self.0.resolve().await;
        Ok(Resolved {
            value: resolved.value.transpose()?,
            secret: resolved.secret,
            dependencies: resolved.dependencies.into_iter().collect(),
        })
    }
}

impl From<String> for Output<String> {
    fn from(value: String) -> Self {
        Self::known(value)
    }
}

impl From<&str> for Output<String> {
    fn from(value: &str) -> Self {
        Self::known(value.to_owned())
    }
}
