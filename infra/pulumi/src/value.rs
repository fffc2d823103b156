//! Property values: what a resource is declared with ([`Input`], [`In`]) and what they come to ([`Value`]).

use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;
use std::path::PathBuf;

use crate::{Failed, Output, Urn};

/// A property value as an engine sees it.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Number(f64),
    String(String),
    List(Vec<Value>),
    Object(BTreeMap<String, Value>),
    Archive(Archive),
    /// Not known before the deployment is carried out.
    Unknown,
    /// Must not be shown or stored in plain text.
    Secret(Box<Value>),
}

/// Files that are uploaded as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archive {
    /// A zip file, or the single file that the archive is made of.
    pub path: PathBuf,
    /// Hex SHA-256 of the file: tells whether it changed.
    pub sha256: String,
}

impl Value {
    /// The value below `key`, when this is an object that has one.
    pub fn get(&self, key: &str) -> Option<&Value> {
        match self {
            Value::Object(fields) => fields.get(key),
            Value::Secret(value) => value.get(key),
            _ => None,
        }
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            Value::Secret(value) => value.as_str(),
            _ => None,
        }
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    pub fn as_u32(&self) -> Option<u32> {
        match self {
            Value::Number(number) if (0.0..=f64::from(u32::MAX)).contains(number) =>
            {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "the range was just checked"
                )]
                Some(*number as u32)
            }
            _ => None,
        }
    }

    pub fn as_list(&self) -> &[Value] {
        match self {
            Value::List(values) => values,
            Value::Secret(value) => value.as_list(),
            _ => &[],
        }
    }

    pub fn as_object(&self) -> Option<&BTreeMap<String, Value>> {
        match self {
            Value::Object(fields) => Some(fields),
            Value::Secret(value) => value.as_object(),
            _ => None,
        }
    }

    /// Whether an unknown is anywhere in it.
    pub fn has_unknown(&self) -> bool {
        match self {
            Value::Unknown => true,
            Value::List(values) => values.iter().any(Value::has_unknown),
            Value::Object(fields) => fields.values().any(Value::has_unknown),
            Value::Secret(value) => value.has_unknown(),
            _ => false,
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::String(text.to_owned())
    }
}
impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::String(text)
    }
}
impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Value::Bool(value)
    }
}
impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Value::Number(f64::from(number))
    }
}
impl From<Archive> for Value {
    fn from(archive: Archive) -> Self {
        Value::Archive(archive)
    }
}
impl From<serde_json::Value> for Value {
    fn from(json: serde_json::Value) -> Self {
        match json {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(value) => Value::Bool(value),
            serde_json::Value::Number(number) => Value::Number(number.as_f64().unwrap_or(f64::NAN)),
            serde_json::Value::String(text) => Value::String(text),
            serde_json::Value::Array(values) => Value::List(values.into_iter().map(Value::from).collect()),
            serde_json::Value::Object(fields) => {
                Value::Object(fields.into_iter().map(|(key, value)| (key, Value::from(value))).collect())
            }
        }
    }
}

/// What a program gives for a property.
#[derive(Clone)]
pub enum Input {
    /// The property is not set.
    Absent,
    Value(Value),
    List(Vec<Input>),
    Object(BTreeMap<String, Input>),
    Output(Output<Value>),
}

impl Input {
    /// The fields that are set, as a resource or a nested object takes them.
    pub fn fields<'a>(fields: impl IntoIterator<Item = (&'a str, Input)>) -> BTreeMap<String, Input> {
        fields
            .into_iter()
            .filter(|(_, input)| !matches!(input, Input::Absent))
            .map(|(key, input)| (key.to_owned(), input))
            .collect()
    }

    /// Waits for every output in it; adds what it depends on to `dependencies`.
    pub(crate) async fn resolve(self, dependencies: &mut BTreeSet<Urn>) -> Result<Value, Failed> {
        match self {
            Input::Absent => Ok(Value::Null),
            Input::Value(value) => Ok(value),
            Input::List(inputs) => {
                let mut values = Vec::with_capacity(inputs.len());
                for input in inputs {
                    values.push(Box::pin(input.resolve(dependencies)).await?);
                }
                Ok(Value::List(values))
            }
            Input::Object(inputs) => {
                let mut fields = BTreeMap::new();
                for (key, input) in inputs {
                    fields.insert(key, Box::pin(input.resolve(dependencies)).await?);
                }
                Ok(Value::Object(fields))
            }
            Input::Output(output) => {
                let resolved = output.resolve().await?;
                dependencies.extend(resolved.dependencies);
                let value = resolved.value.unwrap_or(Value::Unknown);
                Ok(if resolved.secret { Value::Secret(Box::new(value)) } else { value })
            }
        }
    }
}

/// A typed [`Input`]: takes a `T`, an [`Output`] of it, or nothing.
pub struct In<T> {
    input: Input,
    of: PhantomData<fn() -> T>,
}

impl<T> In<T> {
    pub fn into_input(self) -> Input {
        self.input
    }

    fn new(input: Input) -> Self {
        Self { input, of: PhantomData }
    }
}

impl<T> Default for In<T> {
    fn default() -> Self {
        Self::new(Input::Absent)
    }
}

impl<T: Into<Value>> From<T> for In<T> {
    fn from(value: T) -> Self {
        Self::new(Input::Value(value.into()))
    }
}

impl<T: Into<Value>> From<Option<T>> for In<T> {
    fn from(value: Option<T>) -> Self {
        value.map_or_else(Self::default, Self::from)
    }
}

impl From<&str> for In<String> {
    fn from(text: &str) -> Self {
        Self::from(text.to_owned())
    }
}

impl<T: Into<Value> + Clone + Send + Sync + 'static> From<Output<T>> for In<T> {
    fn from(output: Output<T>) -> Self {
        Self::new(Input::Output(output.map(Into::into)))
    }
}

impl<T: Into<Value> + Clone + Send + Sync + 'static> From<&Output<T>> for In<T> {
    fn from(output: &Output<T>) -> Self {
        Self::from(output.clone())
    }
}

impl<T: Into<In<T>>> From<Vec<T>> for In<Vec<T>> {
    fn from(values: Vec<T>) -> Self {
        Self::new(Input::List(values.into_iter().map(|value| value.into().into_input()).collect()))
    }
}

/// A map with keys known now, such as a function's environment.
impl<T> From<BTreeMap<String, In<T>>> for In<BTreeMap<String, T>> {
    fn from(fields: BTreeMap<String, In<T>>) -> Self {
        Self::new(Input::Object(fields.into_iter().map(|(key, value)| (key, value.into_input())).collect()))
    }
}

/// For the structs of nested properties.
impl<T> From<Input> for In<T> {
    fn from(input: Input) -> Self {
        Self::new(input)
    }
}
