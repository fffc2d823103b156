//! One flow keeps one name through every layer, so that searching the name walks the house.

use auth::Function;

use crate::world::root;

#[test]
fn each_flow_has_its_page_function_handler_decision_policy_and_test() {
    let tests: String = ["flows.rs", "races.rs"].map(|file| read(&format!("tests/{file}"))).concat();
    for function in Function::ALL {
        let (name, binary) = (function.name(), function.binary());
        let rust = binary.replace('-', "_");
        // As in the seed: the page signUp calls createUser, the page verify calls verifyUser.
        let page = match function {
            Function::CreateUser => "signUp",
            Function::VerifyUser => "verify",
            _ => name,
        };
        let script = read(&format!("static-site/{page}.js"));
        assert!(script.contains(name), "{page}.js calls {name}");
        assert!(read(&format!("static-site/{page}.html")).contains(&format!("{page}.js")), "{page}.html");
        assert!(read(&format!("lambdas/functions/src/bin/{binary}.rs")).lines().count() <= 8, "{binary}.rs is short");
        assert!(!read(&format!("lambdas/functions/src/{rust}.rs")).is_empty());
        assert!(!read(&format!("lambdas/auth/src/{rust}.rs")).is_empty());
        assert!(read(&format!("policies/{name}.json")).contains("Statement"));
        assert!(tests.contains(&rust) || tests.contains(name), "a test of {name}");
    }
}

#[test]
fn layers_keep_to_themselves() {
    let below = |folder: &str| {
        let mut sources = String::new();
        let mut folders = vec![root().join(folder)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    sources += &std::fs::read_to_string(path).expect("a source");
                }
            }
        }
        sources
    };
    let local_cloud = below("infra/local-cloud/src");
    for function in Function::ALL.map(Function::name).into_iter().filter(|name| *name != "login") {
        assert!(!local_cloud.contains(function), "the local cloud knows no function by name: {function}");
    }
    assert!(!local_cloud.contains("pulumi"), "the local cloud knows no Pulumi");
    assert!(!below("infra/pulumi/src").contains("aws:"), "the Pulumi SDK has no AWS type in it");
    let auth = below("lambdas/auth/src");
    for forbidden in ["std::env", "SystemTime", "async fn", "getrandom", "aws_sdk", "std::net", "std::fs"] {
        assert!(!auth.contains(forbidden), "the domain does no I/O: {forbidden}");
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}
