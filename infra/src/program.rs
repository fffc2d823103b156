//! The program: what a stage consists of, top to bottom a bill of materials. It is pure: what it needs to read was
//! read before, and what it declares goes to whichever monitor the context has.

use std::collections::BTreeMap;

use auth::Function;
use auth::settings::{Limits, Settings};
use pulumi::{Archive, Context, In, Output, Resource, Value};

use crate::aws::{self, Declare as _};
use crate::policies::{Placeholders, Policies};
use crate::site::Site;

/// What the program is told about the stage.
pub(crate) struct Stage {
    pub(crate) name: String,
    pub(crate) region: String,
    /// The address that mails come from.
    pub(crate) sender: String,
    /// Whether `down` keeps what holds users.
    pub(crate) protect: bool,
    /// Where the site is reached, without a slash at the end; `None`: at the bucket's own HTTPS address.
    pub(crate) site_url: Option<String>,
    /// The endpoints of Lambda and Cognito Identity that the site's pages call.
    pub(crate) endpoints: Endpoints,
    /// 32 random bytes in base64url, made once for the stage.
    pub(crate) challenge_key: String,
    pub(crate) limits: Limits,
}

pub(crate) struct Endpoints {
    pub(crate) lambda: String,
    pub(crate) cognito_identity: String,
}

/// What was read from the project before the program runs.
pub(crate) struct Parts {
    pub(crate) policies: Policies,
    pub(crate) site: Site,
    /// The executable of each function.
    pub(crate) packages: BTreeMap<Function, Archive>,
}

pub(crate) fn program(context: &Context, stage: &Stage, parts: &Parts) {
    let (bucket, site_url) = site_bucket(context, stage);
    let users = users_table(context, stage);
    let sender = aws::EmailIdentity { email: stage.sender.as_str().into() };
    sender.declare(context, "sender");
    let pool = identity_pool(context, stage);

    let mut known = Placeholders::new();
    known.set("usersTableArn", users.text("arn"));
    known.set("identityPoolId", pool.id());
    known.set("identityPoolArn", pool.text("arn"));
    known.set("siteBucketArn", bucket.text("arn"));
    known.set("sender", stage.sender.as_str());
    known.set("region", stage.region.as_str());
    known.set("account", users.text("arn").map(|arn| arn.split(':').nth(4).unwrap_or_default().to_owned()));

    let guest = role(context, stage, "guest", parts.policies.fill("trust/guest.json", &known));
    let member = role(context, stage, "member", parts.policies.fill("trust/member.json", &known));
    let roles = BTreeMap::from([
        ("unauthenticated".to_owned(), guest.text("arn").into()),
        ("authenticated".to_owned(), member.text("arn").into()),
    ]);
    let attachment = aws::IdentityPoolRoleAttachment { identity_pool_id: pool.id().into(), roles: roles.into() };
    attachment.declare(context, "roles");

    let settings = Settings::<Output<String>> {
        users_table: users.text("name"),
        identity_pool_id: pool.id(),
        developer_provider: developer_provider(stage).into(),
        sender: stage.sender.as_str().into(),
        site_url: site_url.clone(),
        challenge_key: Output::secret(stage.challenge_key.clone()),
        limits: stage.limits,
    };
    let mut names = BTreeMap::new();
    for (function, package) in &parts.packages {
        let declared = lambda(context, stage, *function, package, &settings, &parts.policies, &known);
        known.set(&format!("{}Arn", function.name()), declared.text("arn"));
        names.insert(function.name().to_owned(), declared.text("name"));
    }
    role_policy(context, "guest", &guest, parts.policies.fill("guest.json", &known));
    role_policy(context, "member", &member, parts.policies.fill("member.json", &known));

    let public = parts.policies.fill("site.json", &known);
    let pages = site_policy(context, &bucket, public);
    parts.site.declare(context, stage, &bucket, &pages, pool.id(), &names);

    context.export("region", Output::known(stage.region.clone()));
    context.export("siteUrl", site_url);
    context.export("identityPoolId", pool.id());
    context.export("developerProvider", Output::known(developer_provider(stage)));
    context.export("usersTable", users.text("name"));
    context.export("siteBucket", bucket.id());
    context.export("sender", Output::known(stage.sender.clone()));
    context.export("guestRoleArn", guest.text("arn"));
    context.export("memberRoleArn", member.text("arn"));
    context.export("functions", object(names));
}

/// The bucket of the site and the address of its pages.
fn site_bucket(context: &Context, stage: &Stage) -> (Resource, Output<String>) {
    let bucket = aws::Bucket {
        bucket_prefix: format!("portcullis-{}-site-", stage.name).into(),
        // The pages can be uploaded again at any time: nothing is lost with them.
        force_destroy: true.into(),
    };
    let bucket = bucket.declare(context, "site");
    let rule = aws::EncryptionRule {
        // Anonymous reads fail with KMS, so it is S3's own key.
        default: aws::EncryptionDefault { algorithm: "AES256".into() }.into(),
    };
    let encryption =
        aws::BucketServerSideEncryptionConfiguration { bucket: bucket.id().into(), rules: vec![rule].into() };
    encryption.declare(context, "site");
    let own = bucket.text("bucketRegionalDomainName").map(|domain| format!("https://{domain}"));
    let site_url = stage.site_url.as_ref().map_or(own, |url| url.as_str().into());
    (bucket, site_url)
}

/// Lets everybody read the pages, and only read.
fn site_policy(context: &Context, bucket: &Resource, document: Output<String>) -> Resource {
    let access = aws::BucketPublicAccessBlock {
        bucket: bucket.id().into(),
        block_public_acls: true.into(),
        ignore_public_acls: true.into(),
        block_public_policy: false.into(),
        restrict_public_buckets: false.into(),
    };
    let access = access.declare(context, "site");
    let policy = aws::BucketPolicy { bucket: bucket.id().into(), policy: document.into() };
    // S3 refuses a public policy until the block is lifted.
    policy.declare_with(context, "site", vec![access.ready()], false)
}

/// The table of the users, with the two sparse indexes that find the user of a link.
fn users_table(context: &Context, stage: &Stage) -> Resource {
    let keys = ["email", "unverified", "resetToken"];
    let index = |name: &str| aws::GlobalSecondaryIndex {
        name: name.into(),
        key_schemas: vec![aws::KeySchema { attribute_name: name.into(), key_type: "HASH".into() }].into(),
        projection_type: "KEYS_ONLY".into(),
    };
    let table = aws::Table {
        name: stage.resource_name("users").into(),
        billing_mode: "PAY_PER_REQUEST".into(),
        hash_key: "email".into(),
        attributes: keys
            .map(|key| aws::TableAttribute { name: key.into(), r#type: "S".into() })
            .into_iter()
            .collect::<Vec<_>>()
            .into(),
        global_secondary_indexes: vec![index("unverified"), index("resetToken")].into(),
        ttl: aws::TimeToLive { attribute_name: "expiresAt".into(), enabled: true.into() }.into(),
        point_in_time_recovery: aws::PointInTimeRecovery { enabled: true.into() }.into(),
        server_side_encryption: aws::ServerSideEncryption { enabled: true.into() }.into(),
        deletion_protection_enabled: stage.protect.into(),
    };
    table.declare_with(context, "users", Vec::new(), stage.protect)
}

fn identity_pool(context: &Context, stage: &Stage) -> Resource {
    let pool = aws::IdentityPool {
        identity_pool_name: stage.resource_name("identities").into(),
        developer_provider_name: developer_provider(stage).into(),
        allow_unauthenticated_identities: true.into(),
        // The basic flow would give guests credentials without Cognito's own session policy.
        allow_classic_flow: false.into(),
    };
    pool.declare_with(context, "identities", Vec::new(), stage.protect)
}

/// How Cognito names our login; it can't be changed once the pool exists.
fn developer_provider(stage: &Stage) -> String {
    format!("login.portcullis.{}", stage.name)
}

/// One function: its log group, its role with its policy, its code, and what becomes of asynchronous calls.
fn lambda(
    context: &Context,
    stage: &Stage,
    function: Function,
    package: &Archive,
    settings: &Settings<Output<String>>,
    policies: &Policies,
    known: &Placeholders,
) -> Resource {
    let name = function.name();
    let log_group = aws::LogGroup {
        name: format!("/aws/lambda/{}", stage.resource_name(name)).into(),
        retention_in_days: 30.into(),
    };
    let log_group = log_group.declare(context, name);
    let role = role(context, stage, name, policies.fill("trust/function.json", known));
    let mut own = known.clone();
    own.set("logGroupArn", log_group.text("arn"));
    let policy = role_policy(context, name, &role, policies.fill(&format!("{name}.json"), &own));
    let variables = settings.to_env(function).into_iter();
    let variables: BTreeMap<String, In<String>> =
        variables.map(|(key, value)| (key.to_owned(), value.into())).collect();
    let declared = aws::Function {
        name: stage.resource_name(name).into(),
        role: role.text("arn").into(),
        runtime: "provided.al2023".into(),
        handler: "bootstrap".into(),
        architectures: vec!["arm64".to_owned()].into(),
        // A function that derives a verifier gets the memory that comes with a full vCPU, the others the least.
        memory_size: if derives_verifiers(function) { 1769 } else { 128 }.into(),
        timeout: 10.into(),
        code: package.clone().into(),
        environment: aws::FunctionEnvironment { variables: variables.into() }.into(),
        logging_config: aws::LoggingConfig { log_format: "Text".into(), log_group: log_group.text("name").into() }
            .into(),
    };
    // A function that is invoked before its policy is there would fail.
    let declared = declared.declare_with(context, name, vec![policy.ready()], false);
    let asynchronous = aws::FunctionEventInvokeConfig {
        function_name: declared.text("name").into(),
        maximum_retry_attempts: 0.into(),
        maximum_event_age_in_seconds: 60.into(),
    };
    asynchronous.declare(context, name);
    declared
}

fn derives_verifiers(function: Function) -> bool {
    matches!(function, Function::CreateUser | Function::ChangePassword | Function::ResetPassword)
}

fn role(context: &Context, stage: &Stage, name: &str, trust: Output<String>) -> Resource {
    aws::Role { name: stage.resource_name(name).into(), assume_role_policy: trust.into() }.declare(context, name)
}

fn role_policy(context: &Context, name: &str, role: &Resource, document: Output<String>) -> Resource {
    aws::RolePolicy { name: name.into(), role: role.text("name").into(), policy: document.into() }
        .declare(context, name)
}

fn object(fields: BTreeMap<String, Output<String>>) -> Output<Value> {
    let (keys, values): (Vec<_>, Vec<_>) = fields.into_iter().unzip();
    Output::all(values)
        .map(move |values| Value::Object(keys.iter().cloned().zip(values.into_iter().map(Value::from)).collect()))
}

impl Stage {
    /// Names carry the stage, so that stages of one account never meet.
    pub(crate) fn resource_name(&self, name: &str) -> String {
        format!("portcullis-{}-{name}", self.name)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use pulumi::{Recorder, Registration};
    use serde_json::{Value as Json, json};

    use super::*;

    /// What the provider would compute, as far as the program reads it.
    fn computed(registration: &Registration) -> BTreeMap<String, Value> {
        let arn = format!("arn:aws:{}:eu-west-1:000000000000:{}", registration.type_token, registration.name);
        BTreeMap::from([
            ("arn".to_owned(), arn.into()),
            ("bucketRegionalDomainName".to_owned(), "site.s3.eu-west-1.amazonaws.com".into()),
        ])
    }

    /// The registrations of the program, with the real policies.
    pub(crate) async fn registrations(protect: bool) -> Vec<Registration> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
        let archive = Archive { path: "bootstrap".into(), sha256: "0".repeat(64) };
        let parts = Parts {
            policies: Policies::read(&root.join("policies")).expect("the policies"),
            site: Site::of([("index.html".to_owned(), b"<p>{{connectSources}}".to_vec())]),
            packages: Function::ALL.map(|function| (function, archive.clone())).into(),
        };
        let stage = Stage {
            name: "test".to_owned(),
            region: "eu-west-1".to_owned(),
            sender: "portcullis@example.com".to_owned(),
            protect,
            site_url: None,
            endpoints: Endpoints {
                lambda: "https://lambda".to_owned(),
                cognito_identity: "https://cognito".to_owned(),
            },
            challenge_key: "a secret".to_owned(),
            limits: Limits::default(),
        };
        let recorder = Arc::new(Recorder::new("test", computed));
        let context = Context::new(Arc::clone(&recorder) as Arc<dyn pulumi::Monitor>);
        program(&context, &stage, &parts);
        context.finish().await.expect("the program is good");
        recorder.registrations()
    }

    fn document(registration: &Registration, property: &str) -> Json {
        serde_json::from_str(registration.inputs[property].as_str().expect("a text")).expect("JSON")
    }

    fn of_type<'a>(all: &'a [Registration], kind: &str) -> Vec<&'a Registration> {
        all.iter().filter(|registration| registration.type_token.ends_with(kind)).collect()
    }

    fn named<'a>(all: &'a [Registration], kind: &str, name: &str) -> &'a Registration {
        let found = of_type(all, kind).into_iter().find(|registration| registration.name == name);
        found.unwrap_or_else(|| panic!("no {kind} {name}"))
    }

    #[tokio::test]
    async fn change_password_is_granted_to_members_alone() {
        let all = registrations(false).await;
        let change_password = "arn:aws:aws:lambda/function:Function:eu-west-1:000000000000:changePassword";
        for policy in of_type(&all, "RolePolicy") {
            let grants = document(policy, "policy").to_string();
            assert_eq!(grants.contains(change_password), policy.name == "member", "{}", policy.name);
            let invokes = grants.contains("lambda:");
            assert_eq!(invokes, matches!(policy.name.as_str(), "guest" | "member"), "{}", policy.name);
            assert!(!grants.contains("\"*\""), "{} has a wildcard: {grants}", policy.name);
        }
        let policies = of_type(&all, "BucketPolicy");
        assert!(policies.iter().all(|policy| !document(policy, "policy").to_string().contains("lambda")));
    }

    #[tokio::test]
    async fn guests_and_members_are_attached_the_right_way_round() {
        let all = registrations(false).await;
        let roles = &named(&all, "IdentityPoolRoleAttachment", "roles").inputs["roles"];
        for (kind, role) in [("unauthenticated", "guest"), ("authenticated", "member")] {
            assert!(roles.get(kind).and_then(Value::as_str).expect("a role").ends_with(role));
            let trust = document(named(&all, ":Role", role), "assumeRolePolicy");
            let condition = &trust["Statement"][0]["Condition"];
            assert_eq!(condition["ForAnyValue:StringLike"]["cognito-identity.amazonaws.com:amr"], kind);
            assert_eq!(condition["StringEquals"]["cognito-identity.amazonaws.com:aud"], "identities-id");
        }
    }

    #[tokio::test]
    async fn only_functions_that_need_the_challenge_key_get_it_and_it_stays_secret() {
        let all = registrations(false).await;
        for function in of_type(&all, ":Function") {
            let variables = function.inputs["environment"].get("variables").expect("an environment");
            let key = variables.get("PORTCULLIS_CHALLENGE_KEY");
            assert_eq!(key.is_none(), matches!(function.name.as_str(), "verifyUser" | "lostPassword"));
            assert!(key.is_none_or(|key| matches!(key, Value::Secret(_))), "{}", function.name);
        }
    }

    #[tokio::test]
    async fn a_protected_stage_protects_what_holds_users() {
        for protect in [false, true] {
            let all = registrations(protect).await;
            let protected = all.iter().filter(|registration| registration.options.protect);
            let names: Vec<&str> = protected.map(|registration| registration.name.as_str()).collect();
            assert_eq!(names, if protect { vec!["users", "identities"] } else { vec![] });
            assert_eq!(named(&all, ":Table", "users").inputs["deletionProtectionEnabled"], Value::Bool(protect));
        }
    }

    #[tokio::test]
    async fn each_function_has_its_log_group_role_policy_and_no_retries() {
        let all = registrations(false).await;
        for function in Function::ALL.map(Function::name) {
            for kind in [":LogGroup", ":Role", ":RolePolicy", ":Function", ":FunctionEventInvokeConfig"] {
                named(&all, kind, function);
            }
            let asynchronous = named(&all, ":FunctionEventInvokeConfig", function);
            assert_eq!(asynchronous.inputs["maximumRetryAttempts"], Value::from(0));
            assert_eq!(asynchronous.inputs["maximumEventAgeInSeconds"], Value::from(60));
        }
    }

    #[tokio::test]
    async fn pages_are_told_what_they_may_call() {
        use base64::Engine as _;
        use std::io::Read as _;
        let all = registrations(false).await;
        let body = |name: &str| {
            let content = named(&all, ":BucketObjectv2", name).inputs["contentBase64"].as_str().expect("a body");
            let packed = base64::engine::general_purpose::STANDARD.decode(content).expect("base64");
            let mut text = String::new();
            flate2::read::GzDecoder::new(&*packed).read_to_string(&mut text).expect("gzip");
            text
        };
        assert_eq!(body("index.html"), "<p>https://lambda https://cognito");
        let config: Json = serde_json::from_str(&body("config.json")).expect("JSON");
        assert_eq!(config["functions"]["createUser"], "portcullis-test-createUser");
        assert_eq!(config["identityPoolId"], "identities-id");
        assert_eq!(config["endpoints"], json!({"lambda": "https://lambda", "cognitoIdentity": "https://cognito"}));
    }
}
