//! The IAM documents of the folder `policies/`, with named placeholders `{{name}}` that the program fills.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use pulumi::Output;

/// Every document that the program uses, by its path below `policies/`.
const DOCUMENTS: [&str; 12] = [
    "createUser.json",
    "verifyUser.json",
    "login.json",
    "changePassword.json",
    "lostPassword.json",
    "resetPassword.json",
    "guest.json",
    "member.json",
    "site.json",
    "trust/function.json",
    "trust/guest.json",
    "trust/member.json",
];

/// What a document may ask for.
const PLACEHOLDERS: [&str; 14] = [
    "usersTableArn",
    "identityPoolId",
    "identityPoolArn",
    "siteBucketArn",
    "sender",
    "region",
    "account",
    "logGroupArn",
    "createUserArn",
    "verifyUserArn",
    "loginArn",
    "changePasswordArn",
    "lostPasswordArn",
    "resetPasswordArn",
];

pub(crate) struct Policies {
    documents: BTreeMap<&'static str, String>,
}

/// Values for placeholders, as far as they are declared yet.
#[derive(Clone, Default)]
pub(crate) struct Placeholders(BTreeMap<String, Output<String>>);

impl Placeholders {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn set(&mut self, name: &str, value: impl Into<Output<String>>) {
        self.0.insert(name.to_owned(), value.into());
    }
}

impl Policies {
    /// Reads the documents of `folder`.
    ///
    /// # Errors
    /// Names the file, and the line where there is one, of a document that is missing, is not JSON, is not a policy, or
    /// has a placeholder that nobody fills.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let mut documents = BTreeMap::new();
        for name in DOCUMENTS {
            let path = folder.join(name);
            let text =
                std::fs::read_to_string(&path).with_context(|| format!("cannot read the policy {}", path.display()))?;
            check(&text).with_context(|| format!("{} is not a policy", path.display()))?;
            documents.insert(name, text);
        }
        Ok(Self { documents })
    }

    /// The document with its placeholders filled, as compact JSON.
    pub(crate) fn fill(&self, name: &str, known: &Placeholders) -> Output<String> {
        let text = self.documents.get(name).cloned().unwrap_or_default();
        let mut used: Vec<String> = placeholders(&text).map(|(_, name)| name.to_owned()).collect();
        used.sort();
        used.dedup();
        let values = used.iter().map(|name| {
            // One that is not declared yet would be a mistake of the program: unknown for ever, which no monitor accepts.
            known.0.get(name).cloned().unwrap_or_else(Output::unknown)
        });
        Output::all(values.collect()).map(move |values| {
            let mut filled = text.clone();
            for (name, value) in used.iter().zip(values) {
                let quoted = serde_json::Value::from(value).to_string();
                filled = filled.replace(&format!("{{{{{name}}}}}"), quoted.trim_matches('"'));
            }
            serde_json::from_str::<serde_json::Value>(&filled).map_or(filled, |json| json.to_string())
        })
    }
}

fn check(text: &str) -> Result<()> {
    for (line, name) in placeholders(text) {
        if !PLACEHOLDERS.contains(&name) {
            bail!("line {line}: unknown placeholder {{{{{name}}}}}; known are {}", PLACEHOLDERS.join(", "));
        }
    }
    let document: serde_json::Value = serde_json::from_str(text)?;
    if document["Version"] != "2012-10-17" {
        bail!("\"Version\" must be \"2012-10-17\"");
    }
    if !document["Statement"].is_array() {
        bail!("\"Statement\" must be a list");
    }
    Ok(())
}

/// The placeholders of a text with their lines.
fn placeholders(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().flat_map(|(line, text)| {
        let names = text.split("{{").skip(1);
        names.filter_map(move |rest| Some((line + 1, rest.split_once("}}")?.0)))
    })
}
