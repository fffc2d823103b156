//! The pages of `static-site/` as objects of the site's bucket: gzipped, since S3 doesn't compress, and with what only
//! the stage knows filled in.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use pulumi::{Context, Output, Resource};

use crate::aws::{self, Declare as _};
use crate::program::Stage;

/// The signing library, from the npm registry, under the name that the modules import.
const AWS4FETCH: (&str, &str) = ("node_modules/aws4fetch/dist/aws4fetch.esm.js", "aws4fetch.js");

pub(crate) struct Site {
    files: BTreeMap<String, Vec<u8>>,
}

impl Site {
    /// Reads the pages, modules, styles and icons of `folder`; `npm ci` must have run there.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let read = |path: &Path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        let mut files = BTreeMap::new();
        let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                bail!("{} has a name that is not UTF-8: rename it", path.display());
            };
            if path.is_file() && content_type(name).is_some() {
                files.insert(name.to_owned(), read(&path)?);
            }
        }
        let (package, module) = AWS4FETCH;
        files.insert(module.to_owned(), read(&folder.join(package))?);
        Ok(Self { files })
    }

    #[cfg(test)]
    pub(crate) fn of(files: impl IntoIterator<Item = (String, Vec<u8>)>) -> Self {
        Self { files: files.into_iter().collect() }
    }

    /// Declares an object for each file, and `config.json`, which tells the pages what to call.
    pub(crate) fn declare(
        &self,
        context: &Context,
        stage: &Stage,
        bucket: &Resource,
        policy: &Resource,
        identity_pool_id: Output<String>,
        functions: &BTreeMap<String, Output<String>>,
    ) {
        let endpoints = &stage.endpoints;
        let mut sources = vec![endpoints.lambda.as_str(), endpoints.cognito_identity.as_str()];
        sources.dedup();
        let known = [
            // In a page's Content-Security-Policy: the origins that it may call.
            ("{{connectSources}}", sources.join(" ")),
            ("{{passwordMinLength}}", stage.limits.password_min_length.to_string()),
            ("{{passwordMaxLength}}", stage.limits.password_max_length.to_string()),
        ];
        for (name, body) in &self.files {
            let filled = match std::str::from_utf8(body) {
                Ok(text) => {
                    let text = if name.ends_with(".js") { without_comments(text) } else { text.to_owned() };
                    known.iter().fold(text, |text, (name, value)| text.replace(name, value)).into()
                }
                Err(_) => body.clone(),
            };
            let object = aws::BucketObject {
                content_base64: packed(&filled).into(),
                // Names carry no hash, so a browser asks each time; an unchanged file costs a 304.
                ..object(bucket, name, "no-cache")
            };
            object.declare(context, name);
        }
        let config = config(stage, identity_pool_id, functions).map(|json| packed(json.as_bytes()));
        let object = aws::BucketObject { content_base64: config.into(), ..object(bucket, "config.json", "no-store") };
        // Last of all: pages that can be read find everything else in place.
        object.declare_with(context, "config.json", vec![policy.ready()], false);
    }
}

fn object(bucket: &Resource, name: &str, cache_control: &str) -> aws::BucketObject {
    aws::BucketObject {
        bucket: bucket.id().into(),
        key: name.into(),
        content_type: content_type(name).unwrap_or("application/octet-stream").into(),
        content_encoding: "gzip".into(),
        cache_control: cache_control.into(),
        ..aws::BucketObject::default()
    }
}

fn config(
    stage: &Stage,
    identity_pool_id: Output<String>,
    functions: &BTreeMap<String, Output<String>>,
) -> Output<String> {
    let names: Vec<String> = functions.keys().cloned().collect();
    let mut values = vec![identity_pool_id];
    values.extend(functions.values().cloned());
    let fixed = serde_json::json!({
        "stage": stage.name,
        "region": stage.region,
        "endpoints": {
            "lambda": stage.endpoints.lambda,
            "cognitoIdentity": stage.endpoints.cognito_identity,
        },
    });
    Output::all(values).map(move |mut values| {
        let mut config = fixed.clone();
        config["identityPoolId"] = values.remove(0).into();
        for (name, deployed) in names.iter().zip(values) {
            config["functions"][name] = deployed.into();
        }
        config.to_string()
    })
}

/// A module without its lines of comment, which would be a tenth of a page's weight. Empty lines stay in their place, so
/// that a browser's line numbers are those of the source.
fn without_comments(module: &str) -> String {
    let lines = module.lines().map(|line| if line.trim_start().starts_with("//") { "" } else { line });
    lines.collect::<Vec<_>>().join("\n")
}

/// gzip without a time stamp, so that equal files give equal objects; in base64, as the provider takes it.
fn packed(body: &[u8]) -> String {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let packed = encoder.write_all(body).and_then(|()| encoder.finish());
    BASE64.encode(packed.unwrap_or_default())
}

/// The types of what a site is made of; anything else in the folder is not uploaded.
fn content_type(name: &str) -> Option<&'static str> {
    let (_, extension) = name.rsplit_once('.')?;
    if matches!(name, "package.json" | "package-lock.json") || name.starts_with('.') {
        return None;
    }
    match extension {
        "html" => Some("text/html; charset=utf-8"),
        "js" => Some("text/javascript; charset=utf-8"),
        "css" => Some("text/css; charset=utf-8"),
        "svg" => Some("image/svg+xml"),
        "json" => Some("application/json"),
        "txt" => Some("text/plain; charset=utf-8"),
        "png" => Some("image/png"),
        "ico" => Some("image/x-icon"),
        "webmanifest" => Some("application/manifest+json"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_loses_its_lines_of_comment_and_keeps_its_line_numbers() {
        let module = "// Why.\nconst a = 'https://x'; // kept\n  // Why.\nconst b = 1;\n";
        assert_eq!(without_comments(module), "\nconst a = 'https://x'; // kept\n\nconst b = 1;");
    }
}
