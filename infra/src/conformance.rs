//! The program's resources against the published provider: a TypeScript program made of the recorded registrations must
//! compile against the npm package `@pulumi/aws`. A wrong token, property or type fails here, and not on AWS.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use pulumi::{Registration, Value};
use serde_json::Value as Json;

use crate::program::tests::registrations;

#[tokio::test]
async fn every_resource_is_one_of_the_published_provider() {
    let all = registrations(true).await;
    let checked = check("program", &all);
    assert_eq!(checked, Ok(()));
}

#[tokio::test]
async fn a_wrong_token_property_or_type_is_found() {
    let all = registrations(false).await;
    let spoilt: [fn(&mut Registration); 4] = [
        |registration| registration.type_token = "aws:dynamodb/table:Tables".to_owned(),
        |registration| drop(registration.inputs.insert("hashKeys".to_owned(), "email".into())),
        |registration| drop(registration.inputs.insert("billingMode".to_owned(), Value::Bool(true))),
        |registration| {
            let index = BTreeMap::from([("nam".to_owned(), Value::from("unverified"))]);
            let indexes = Value::List(vec![Value::Object(index)]);
            registration.inputs.insert("globalSecondaryIndexes".to_owned(), indexes);
        },
    ];
    for (number, spoil) in spoilt.into_iter().enumerate() {
        let mut table = all.iter().find(|registration| registration.name == "users").expect("the table").clone();
        spoil(&mut table);
        assert!(check(&format!("spoilt-{number}"), &[table]).is_err(), "{number}");
    }
}

/// Compiles the registrations as a TypeScript program, then asks the package itself for the tokens.
fn check(name: &str, registrations: &[Registration]) -> Result<(), String> {
    let (mut imports, mut uses) = (BTreeMap::new(), String::new());
    for registration in registrations {
        let token = registration.type_token.as_str();
        let (path, class) = token.strip_prefix("aws:").and_then(|token| token.rsplit_once(':')).expect("a token");
        imports.insert(format!("import {{ {class} }} from \"@pulumi/aws/{path}\";\n"), (path, class, token));
        let inputs: Vec<String> = registration
            .inputs
            .iter()
            .map(|(key, value)| format!("{}: {}", Json::from(key.as_str()), literal(value)))
            .collect();
        uses += &format!("new {class}({}, {{ {} }});\n", Json::from(registration.name.as_str()), inputs.join(", "));
    }
    let folder = packages();
    let file = folder.join(format!("generated-{name}.ts"));
    let head = "import * as pulumi from \"@pulumi/pulumi\";\n";
    let source = format!("{head}{}{uses}", imports.keys().cloned().collect::<String>());
    std::fs::write(&file, source).expect("the generated program is written");
    let compiled = node(
        &folder,
        &[
            "node_modules/typescript/bin/tsc",
            "--noEmit",
            "--strict",
            "--skipLibCheck",
            "--module",
            "nodenext",
            "--moduleResolution",
            "nodenext",
            "--target",
            "es2022",
            file.to_str().expect("UTF-8"),
        ],
    );
    std::fs::remove_file(&file).expect("the generated program is there");
    compiled?;
    let tokens = imports.values().map(|(path, class, token)| {
        format!("if (require('@pulumi/aws/{path}').{class}.__pulumiType !== '{token}') throw new Error('{token}');")
    });
    node(&folder, &["--eval", &tokens.collect::<String>()])
}

fn node(folder: &Path, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("node").current_dir(folder).args(arguments).output().expect("node runs");
    let told = [output.stdout, output.stderr].concat();
    output.status.success().then_some(()).ok_or_else(|| String::from_utf8_lossy(&told).into_owned())
}

/// The folder with the packages, installed once as its lock file says.
fn packages() -> PathBuf {
    static INSTALLED: std::sync::Once = std::sync::Once::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance");
    INSTALLED.call_once(|| {
        if !folder.join("node_modules/.package-lock.json").is_file() {
            let arguments = ["ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"];
            let installed = Command::new("npm").current_dir(&folder).args(arguments).status().expect("npm runs");
            assert!(installed.success(), "npm ci");
        }
    });
    folder
}

fn literal(value: &Value) -> String {
    match value {
        Value::Null => "undefined".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => Json::from(text.as_str()).to_string(),
        Value::List(values) => format!("[{}]", values.iter().map(literal).collect::<Vec<_>>().join(", ")),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(key, value)| format!("{}: {}", Json::from(key.as_str()), literal(value)));
            format!("{{ {} }}", fields.collect::<Vec<_>>().join(", "))
        }
        Value::Archive(_) => "new pulumi.asset.FileArchive(\"bootstrap\")".to_owned(),
        Value::Secret(value) => format!("pulumi.secret({})", literal(value)),
        Value::Unknown => panic!("a recorder knows every value"),
    }
}
