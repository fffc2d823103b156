//! The embedded monitor: registers a program's resources straight into the local cloud, and knows what is new, changed,
//! unchanged and gone by comparing declared inputs with those of the last time.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use pulumi::{Error, Monitor, Registered, Registration, Urn, Value};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};
use sha2::{Digest as _, Sha256};

use crate::control::{Client, Reply, Request};
use crate::provider;
use crate::stage::Folder;

/// The file of [`State`] in the stage's folder.
const FILE: &str = "state.json";

/// In the JSON of an archive: where its file lies. Only the serving process is told, the state keeps the hash alone.
pub(crate) const ARCHIVE_PATH: &str = "path";

/// What was deployed, as far as it is known to have been.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) resources: BTreeMap<Urn, Deployed>,
    #[serde(default)]
    pub(crate) outputs: BTreeMap<String, Json>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Deployed {
    #[serde(rename = "type")]
    pub(crate) type_token: String,
    pub(crate) name: String,
    pub(crate) id: String,
    /// Secrets as fingerprints, archives as hashes.
    pub(crate) inputs: BTreeMap<String, Json>,
    pub(crate) outputs: BTreeMap<String, Json>,
    pub(crate) dependencies: BTreeSet<Urn>,
    #[serde(default)]
    pub(crate) protect: bool,
    /// Set while a change is under way: whoever finds it carries the change out again.
    #[serde(default)]
    pub(crate) pending: bool,
}

impl State {
    pub(crate) fn load(folder: &Folder) -> Result<Self> {
        Ok(folder.read_json(FILE)?.unwrap_or_default())
    }

    /// After each step; the last word, on the disk, comes with the outputs.
    fn save(&self, folder: &Folder) -> Result<()> {
        folder.write_json_soon(FILE, self)
    }

    /// The resources in the order in which they must be deleted: dependents first.
    pub(crate) fn deletion_order(&self, which: impl Fn(&Urn) -> bool) -> Vec<Urn> {
        let mut left: BTreeSet<&Urn> = self.resources.keys().filter(|urn| which(urn)).collect();
        let mut order = Vec::with_capacity(left.len());
        while !left.is_empty() {
            let needed: BTreeSet<&Urn> = left.iter().flat_map(|urn| &self.resources[*urn].dependencies).collect();
            let mut free: Vec<&Urn> = left.iter().copied().filter(|urn| !needed.contains(urn)).collect();
            if free.is_empty() {
                // A circle can't come from a program; a damaged state must not hold us for ever.
                free = left.iter().copied().collect();
            }
            for urn in free {
                left.remove(urn);
                order.push(urn.clone());
            }
        }
        order
    }
}

/// What becomes of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Kind {
    Created,
    Updated,
    Replaced,
    Deleted,
    Unchanged,
}

/// One step of a deployment, done or foreseen.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) kind: Kind,
    pub(crate) type_token: String,
    pub(crate) name: String,
    /// The properties that differ.
    pub(crate) properties: Vec<String>,
    pub(crate) took: Duration,
}

/// Whoever wants to hear of each step at once.
pub(crate) type Listener = Box<dyn Fn(&Step) + Send + Sync>;

/// Registers into the local cloud through `client`, or only foresees what would be done when there is none.
pub(crate) struct Embedded {
    stage: String,
    folder: Folder,
    listener: Listener,
    work: Mutex<Work>,
}

struct Work {
    client: Option<Client>,
    state: State,
    seen: BTreeSet<Urn>,
    /// Whether anything was done.
    changed: bool,
}

impl Embedded {
    pub(crate) fn new(stage: &str, folder: &Folder, client: Option<Client>, state: State, listener: Listener) -> Self {
        let work = Mutex::new(Work { client, state, seen: BTreeSet::new(), changed: false });
        Self { stage: stage.to_owned(), folder: folder.clone(), listener, work }
    }

    /// Deletes what the program no longer declares; call it only after the whole program was registered.
    pub(crate) fn delete_gone(&self) -> Result<()> {
        let work = &mut *self.work();
        let gone = work.state.deletion_order(|urn| !work.seen.contains(urn));
        for urn in gone {
            let begun = Instant::now();
            let deployed = work.state.resources[&urn].clone();
            if deployed.protect {
                bail!(
                    "{} {} is protected: it stays, although the program no longer has it",
                    deployed.type_token,
                    deployed.name
                );
            }
            if let Some(client) = &mut work.client {
                delete(client, &deployed)?;
                work.state.resources.remove(&urn);
                work.state.save(&self.folder)?;
            }
            (self.listener)(&deployed.step(Kind::Deleted, begun));
        }
        Ok(())
    }

    /// Deletes everything, dependents first.
    pub(crate) fn delete_all(&self) -> Result<()> {
        self.work().seen.clear();
        self.delete_gone()
    }

    fn work(&self) -> std::sync::MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register_now(&self, registration: Registration) -> Result<Registered> {
        let begun = Instant::now();
        let urn = format!("urn:pulumi:{}::portcullis::{}::{}", self.stage, registration.type_token, registration.name);
        let work = &mut *self.work();
        work.seen.insert(urn.clone());
        let inputs: BTreeMap<String, Json> =
            registration.inputs.iter().map(|(key, value)| (key.clone(), stored(value))).collect();
        let before = work.state.resources.get(&urn).cloned();
        let properties = before.as_ref().map_or_else(Vec::new, |before| differing(&before.inputs, &inputs));
        let replaced_by = provider::replaced_by(&registration.type_token);
        let kind = match &before {
            None => Kind::Created,
            Some(before) if properties.is_empty() && !before.pending => Kind::Unchanged,
            Some(_) if properties.iter().any(|property| replaced_by.contains(&property.as_str())) => Kind::Replaced,
            Some(_) => Kind::Updated,
        };
        if kind == Kind::Replaced && (registration.options.protect || provider::holds_users(&registration.type_token)) {
            bail!(
                "{} \"{}\" would have to be replaced, because {} changed, and its users would be lost. Undo that \
                 change, or take the stage down first.",
                registration.type_token,
                registration.name,
                properties.join(", ")
            );
        }
        let mut deployed = Deployed {
            type_token: registration.type_token.clone(),
            name: registration.name.clone(),
            id: String::new(),
            inputs,
            outputs: BTreeMap::new(),
            dependencies: registration.dependencies(),
            protect: registration.options.protect,
            pending: true,
        };
        let step = Step { properties, ..deployed.step(kind, begun) };
        let registered = match (&mut work.client, before) {
            (_, Some(before)) if kind == Kind::Unchanged => {
                // What is no property of the resource may still differ.
                let same = before.dependencies == deployed.dependencies && before.protect == deployed.protect;
                (deployed.id, deployed.outputs, deployed.pending) = (before.id, before.outputs, false);
                let registered = deployed.registered(&urn);
                if !same && work.client.is_some() {
                    work.state.resources.insert(urn, deployed);
                    work.state.save(&self.folder)?;
                }
                registered
            }
            (None, before) => {
                let before = before.filter(|_| kind == Kind::Updated);
                foreseen(&urn, &registration, before.as_ref())
            }
            (Some(client), before) => {
                if let Some(before) = before {
                    if kind == Kind::Replaced {
                        delete(client, &before)?;
                    }
                    (deployed.id, deployed.outputs) = (before.id, before.outputs);
                }
                if registration.inputs.values().any(Value::has_unknown) {
                    bail!("the program gives {} \"{}\" a value that nothing will tell", step.type_token, step.name);
                }
                work.changed = true;
                // Written before and after: a deployment that is killed in between finds its way on.
                work.state.resources.insert(urn.clone(), deployed.clone());
                work.state.save(&self.folder)?;
                let inputs = registration.inputs.iter().map(|(key, value)| (key.clone(), plain(value)));
                let request = Request::Apply {
                    type_token: registration.type_token.clone(),
                    inputs: Json::Object(inputs.collect()),
                };
                let Reply::Applied { id, outputs } = client.ask(&request)? else {
                    bail!("the local cloud answered something else than was asked");
                };
                let Json::Object(outputs) = outputs else {
                    bail!("the local cloud answered something else than was asked");
                };
                (deployed.id, deployed.outputs, deployed.pending) = (id, outputs.into_iter().collect(), false);
                let registered = deployed.registered(&urn);
                work.state.resources.insert(urn, deployed);
                work.state.save(&self.folder)?;
                registered
            }
        };
        (self.listener)(&Step { took: begun.elapsed(), ..step });
        Ok(registered)
    }

    fn outputs_now(&self, outputs: &BTreeMap<String, Value>) -> Result<()> {
        let work = &mut *self.work();
        let outputs: BTreeMap<String, Json> =
            outputs.iter().map(|(name, value)| (name.clone(), stored(value))).collect();
        if work.client.is_some() && (work.changed || work.state.outputs != outputs) {
            work.state.outputs = outputs;
            self.folder.write_json(FILE, &work.state)?;
        }
        Ok(())
    }
}

impl Monitor for Embedded {
    fn register(
        &self,
        registration: Registration,
    ) -> Pin<Box<dyn Future<Output = Result<Registered, Error>> + Send + '_>> {
        Box::pin(async move {
            let what = format!("{} \"{}\"", registration.type_token, registration.name);
            self.register_now(registration).map_err(|error| Error(format!("{what}: {error:#}")))
        })
    }

    fn register_stack_outputs(
        &self,
        outputs: BTreeMap<String, Value>,
    ) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send + '_>> {
        Box::pin(async move { self.outputs_now(&outputs).map_err(|error| Error(format!("{error:#}"))) })
    }
}

impl Deployed {
    fn registered(&self, urn: &Urn) -> Registered {
        let outputs = self.outputs.iter().map(|(key, value)| (key.clone(), Value::from(value.clone())));
        Registered { urn: urn.clone(), id: Some(self.id.clone()), outputs: outputs.collect() }
    }

    fn step(&self, kind: Kind, begun: Instant) -> Step {
        Step {
            kind,
            type_token: self.type_token.clone(),
            name: self.name.clone(),
            properties: Vec::new(),
            took: begun.elapsed(),
        }
    }
}

fn delete(client: &mut Client, deployed: &Deployed) -> Result<()> {
    // The last change may have been cut off before it told the identifier: the inputs say which one it is.
    let id = if deployed.id.is_empty() { guessed_id(deployed) } else { deployed.id.clone() };
    let inputs: Map<String, Json> = deployed.inputs.clone().into_iter().collect();
    let request = Request::Delete { type_token: deployed.type_token.clone(), id, inputs: Json::Object(inputs) };
    client.ask(&request).map(|_| ())
}

/// The name that the resource was to have.
fn guessed_id(deployed: &Deployed) -> String {
    let names = ["name", "bucket", "email", "functionName", "identityPoolId"];
    let name = names.iter().find_map(|name| deployed.inputs.get(*name)?.as_str());
    name.unwrap_or(&deployed.name).to_owned()
}

/// What a preview can tell of a resource that is not created or updated yet.
fn foreseen(urn: &Urn, registration: &Registration, before: Option<&Deployed>) -> Registered {
    let known = registration.inputs.iter().filter(|(_, value)| !value.has_unknown());
    let mut outputs: BTreeMap<String, Value> = known.map(|(key, value)| (key.clone(), value.clone())).collect();
    let mut id = None;
    if let Some(before) = before {
        // An update in place keeps identifier, name and ARN.
        outputs.extend(before.outputs.iter().map(|(key, value)| (key.clone(), Value::from(value.clone()))));
        id = Some(before.id.clone());
    }
    Registered { urn: urn.clone(), id, outputs }
}

fn differing(before: &BTreeMap<String, Json>, now: &BTreeMap<String, Json>) -> Vec<String> {
    let keys: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    keys.into_iter().filter(|key| before.get(*key) != now.get(*key)).cloned().collect()
}

/// The value as it may be written down: no secret, and no path, which may differ for the same archive.
fn stored(value: &Value) -> Json {
    json(value, &|value| match value {
        Value::Secret(secret) => {
            // Pulumi's own mark of a secret. The fingerprint tells whether it changed; 32 random bytes can't be guessed
            // from it.
            let text = plain(secret).to_string();
            Some(json!({
                "4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270",
                "sha256": provider::hex(&Sha256::digest(text)),
            }))
        }
        Value::Archive(archive) => Some(json!({"hash": archive.sha256})),
        Value::Unknown => Some(json!({"unknown": true})),
        _ => None,
    })
}

/// The value as the local cloud needs it, over the control connection.
fn plain(value: &Value) -> Json {
    json(value, &|value| match value {
        Value::Secret(secret) => Some(plain(secret)),
        Value::Archive(archive) => Some(json!({"hash": archive.sha256, ARCHIVE_PATH: archive.path})),
        _ => None,
    })
}

fn json(value: &Value, special: &dyn Fn(&Value) -> Option<Json>) -> Json {
    if let Some(json) = special(value) {
        return json;
    }
    match value {
        Value::Bool(value) => Json::Bool(*value),
        Value::Number(number) => value.as_u32().map_or_else(|| json!(number), Json::from),
        Value::String(text) => Json::from(text.as_str()),
        Value::List(values) => Json::Array(values.iter().map(|value| json(value, special)).collect()),
        Value::Object(fields) => {
            Json::Object(fields.iter().map(|(key, value)| (key.clone(), json(value, special))).collect())
        }
        Value::Null | Value::Unknown | Value::Secret(_) | Value::Archive(_) => Json::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployed(dependencies: &[&str]) -> Deployed {
        Deployed {
            type_token: "a:b:C".to_owned(),
            name: "name".to_owned(),
            id: "id".to_owned(),
            inputs: BTreeMap::new(),
            outputs: BTreeMap::new(),
            dependencies: dependencies.iter().map(|urn| (*urn).to_owned()).collect(),
            protect: false,
            pending: false,
        }
    }

    #[test]
    fn dependents_are_deleted_first() {
        let resources = [("role", deployed(&[])), ("function", deployed(&["role"])), ("page", deployed(&["function"]))];
        let resources = resources.map(|(urn, deployed)| (urn.to_owned(), deployed)).into_iter().collect();
        let state = State { resources, outputs: BTreeMap::new() };
        assert_eq!(state.deletion_order(|_| true), ["page", "function", "role"]);
        assert_eq!(state.deletion_order(|urn| urn != "function"), ["page", "role"]);
    }

    #[test]
    fn a_secret_is_written_down_as_a_fingerprint_that_tells_a_change() {
        let secret = |text: &str| stored(&Value::List(vec![Value::Secret(Box::new(Value::from(text)))]));
        assert!(!secret("hidden").to_string().contains("hidden"));
        assert_eq!(secret("hidden"), secret("hidden"));
        assert_ne!(secret("hidden"), secret("other"));
        assert!(plain(&Value::Secret(Box::new(Value::from("hidden")))) == "hidden", "the local cloud gets it");
    }
}
