//! Roles and decisions. [`Cloud::authorize`] is the one place which decides about a call; [`decide`] is what it decides
//! by, and needs no cloud.

mod policy;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use axum::http::StatusCode;
use serde_json::Value;
use time::OffsetDateTime;

pub use policy::{Decision, Document, Kind, Principal, Request, decide};

use crate::call::{Call, CognitoIdentity, ConditionKeys, Principal as Caller, RoleSession};
use crate::declared::{IdentityPool, Role};
use crate::error::AwsError;
use crate::{Cloud, CloudError, Event};

/// Cognito's name as a provider of identities, and the prefix of its condition keys.
pub(crate) const COGNITO: &str = "cognito-identity.amazonaws.com";

/// A role's documents, read once for each version of the role.
#[derive(Default)]
pub(crate) struct Documents(RwLock<HashMap<String, Known>>);

type Known = (Arc<Role>, Arc<Compiled>);

pub(crate) struct Compiled {
    policies: Vec<Document>,
    trust: Document,
}

impl Cloud {
    /// Decides whether the caller may do `action` on `resource`, and writes the decision down. Every service asks before
    /// it looks anything up, once for each action and resource.
    pub(crate) fn authorize(
        &self,
        call: &Call,
        action: &str,
        resource: &str,
        keys: ConditionKeys,
    ) -> Result<(), AwsError> {
        self.authorize_with(call, action, resource, keys, None)
    }

    /// The same for a resource with a document of its own (a bucket policy): either may allow, each may deny.
    pub(crate) fn authorize_with(
        &self,
        call: &Call,
        action: &str,
        resource: &str,
        mut keys: ConditionKeys,
        resource_document: Option<&Document>,
    ) -> Result<(), AwsError> {
        self.add_global_keys(&mut keys, &call.principal);
        let decision = match &call.principal {
            Caller::Admin => {
                Decision { allowed: true, explicit_deny: false, why: "the administrator may do everything".to_owned() }
            }
            Caller::Anonymous => {
                decide(resource_document, &Request { principal: Principal::Anonymous, action, resource, keys })
            }
            Caller::Role(session) => self.decide_for_role(session, action, resource, keys, resource_document),
        };
        let principal = self.name_of(&call.principal);
        self.events.write(&Event::Decision {
            time: crate::events::now(),
            request_id: call.request_id.clone(),
            principal: principal.clone(),
            action: action.to_owned(),
            resource: resource.to_owned(),
            allowed: decision.allowed,
            why: decision.why.clone(),
        });
        if decision.allowed {
            return Ok(());
        }
        let reason = if decision.explicit_deny {
            "with an explicit deny in an identity-based policy".to_owned()
        } else {
            format!("because no identity-based policy allows the {action} action")
        };
        Err(AwsError::new(
            StatusCode::FORBIDDEN,
            "AccessDeniedException",
            format!("User: {principal} is not authorized to perform: {action} on resource: {resource} {reason}"),
        ))
    }

    fn decide_for_role(
        &self,
        session: &RoleSession,
        action: &str,
        resource: &str,
        keys: ConditionKeys,
        resource_document: Option<&Document>,
    ) -> Decision {
        let nothing = |why: String| Decision { allowed: false, explicit_deny: true, why };
        let Some(role) = self.role_of(&session.role_arn) else {
            return nothing("the role is gone".to_owned());
        };
        let documents = match self.compiled(&role) {
            Ok(documents) => documents,
            Err(error) => return nothing(error.to_string()),
        };
        let session_arn = self.session_arn(session);
        let request = Request {
            principal: Principal::Role { role: &session.role_arn, session: &session_arn },
            action,
            resource,
            keys,
        };
        let mut decision = decide(documents.policies.iter().chain(resource_document), &request);
        if decision.allowed && session.cognito.as_ref().is_some_and(|it| it.guest) {
            let bound = decide([Document::guest_session_policy()], &request);
            if !bound.allowed {
                decision =
                    Decision { why: "Cognito's session policy for guests does not allow it".to_owned(), ..bound };
            }
        }
        if decision.why == "no statement allows it" {
            decision.why = format!("no statement of the role {} allows it", role.name);
        }
        decision
    }

    /// Whether the role's trust document lets the service take it.
    pub(crate) fn trusts_service(&self, role: &Role, service: &str) -> bool {
        let mut keys = ConditionKeys::new();
        let region = vec![self.options.region.clone()];
        keys.insert("aws:RequestedRegion".to_owned(), region);
        keys.insert("aws:SourceAccount".to_owned(), vec![self.options.account.clone()]);
        self.trusts(role, Principal::Service(service), "sts:AssumeRole", keys)
    }

    /// Whether the role's trust document lets an identity of the pool take it.
    pub(crate) fn trusts_web_identity(&self, role: &Role, pool_id: &str, identity_id: &str, amr: Vec<String>) -> bool {
        let mut keys = ConditionKeys::new();
        keys.insert(format!("{COGNITO}:aud"), vec![pool_id.to_owned()]);
        keys.insert(format!("{COGNITO}:sub"), vec![identity_id.to_owned()]);
        keys.insert(format!("{COGNITO}:amr"), amr);
        let action = "sts:AssumeRoleWithWebIdentity";
        self.trusts(role, Principal::Federated(COGNITO), action, keys)
    }

    fn trusts(&self, role: &Role, principal: Principal<'_>, action: &str, keys: ConditionKeys) -> bool {
        let role_arn = self.role_arn(&role.name);
        let role = Arc::new(role.clone());
        let decision = match self.compiled(&role) {
            Ok(documents) => {
                let request = Request { principal, action, resource: &role_arn, keys };
                decide([&documents.trust], &request)
            }
            Err(error) => Decision { allowed: false, explicit_deny: true, why: error.to_string() },
        };
        if !decision.allowed {
            let name = match principal {
                Principal::Service(name) | Principal::Federated(name) => name,
                _ => "anonymous",
            };
            self.events.write(&Event::Decision {
                time: crate::events::now(),
                request_id: crate::credentials::uuid(),
                principal: name.to_owned(),
                action: action.to_owned(),
                resource: role_arn.clone(),
                allowed: false,
                why: decision.why,
            });
        }
        decision.allowed
    }

    fn compiled(&self, role: &Arc<Role>) -> Result<Arc<Compiled>, CloudError> {
        let known = |entry: &&Known| Arc::ptr_eq(&entry.0, role) || entry.0 == *role;
        let read = self.documents.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, compiled)) = read.get(&role.name).filter(known) {
            return Ok(compiled.clone());
        }
        drop(read);
        let compiled = Arc::new(Compiled::of(role)?);
        let mut write = self.documents.0.write().unwrap_or_else(PoisonError::into_inner);
        write.insert(role.name.clone(), (role.clone(), compiled.clone()));
        Ok(compiled)
    }

    fn add_global_keys(&self, keys: &mut ConditionKeys, caller: &Caller) {
        let now = OffsetDateTime::now_utc();
        let mut add = |key: &str, values: Vec<String>| {
            keys.insert(key.to_owned(), values);
        };
        add("aws:CurrentTime", vec![crate::events::now()]);
        add("aws:EpochTime", vec![now.unix_timestamp().to_string()]);
        add("aws:RequestedRegion", vec![self.options.region.clone()]);
        // All ports are on loopback. It stands for AWS's HTTPS endpoints: nothing can listen on the way.
        add("aws:SourceIp", vec!["127.0.0.1".to_owned()]);
        add("aws:SecureTransport", vec!["true".to_owned()]);
        let Caller::Role(session) = caller else {
            return;
        };
        add("aws:PrincipalArn", vec![session.role_arn.clone()]);
        add("aws:PrincipalAccount", vec![self.options.account.clone()]);
        add("aws:PrincipalType", vec!["AssumedRole".to_owned()]);
        add("aws:userid", vec![user_id(session)]);
        if let Some(identity) = &session.cognito {
            add("aws:FederatedProvider", vec![COGNITO.to_owned()]);
            add(&format!("{COGNITO}:aud"), vec![identity.pool_id.clone()]);
            add(&format!("{COGNITO}:sub"), vec![identity.identity_id.clone()]);
            add(&format!("{COGNITO}:amr"), self.amr_of(identity));
        }
    }

    /// How the identity proved itself, as far as a session tells.
    fn amr_of(&self, identity: &CognitoIdentity) -> Vec<String> {
        if identity.guest {
            return vec!["unauthenticated".to_owned()];
        }
        let pool = self.declared.get::<IdentityPool>(&identity.pool_id);
        let provider = pool.and_then(|pool| pool.developer_provider.clone());
        let mut amr = vec!["authenticated".to_owned()];
        amr.extend(provider);
        amr
    }

    pub(crate) fn role_arn(&self, name: &str) -> String {
        format!("arn:aws:iam::{}:role/{name}", self.options.account)
    }

    /// The role that an ARN names, if it is of this account.
    pub(crate) fn role_of(&self, arn: &str) -> Option<Arc<Role>> {
        let name = arn.rsplit('/').next()?;
        let role = self.declared.get::<Role>(name)?;
        (self.role_arn(name) == arn).then_some(role)
    }

    /// `arn:aws:sts::ACCOUNT:assumed-role/NAME/SESSION`
    pub(crate) fn session_arn(&self, session: &RoleSession) -> String {
        let role = session.role_arn.rsplit('/').next().unwrap_or_default();
        let (account, name) = (&self.options.account, &session.session_name);
        format!("arn:aws:sts::{account}:assumed-role/{role}/{name}")
    }

    /// The caller as the events name it.
    pub(crate) fn name_of(&self, caller: &Caller) -> String {
        match caller {
            Caller::Anonymous => "anonymous".to_owned(),
            Caller::Admin => "admin".to_owned(),
            Caller::Role(session) => self.session_arn(session),
        }
    }

    /// Creates the role, or updates its trust document and its session's length. The inline policies of a role that is
    /// there are kept: see [`Cloud::put_role_policy`].
    ///
    /// # Errors
    /// [`CloudError::Declaration`] when a document is not valid.
    pub fn put_role(&self, mut role: Role) -> Result<(), CloudError> {
        check_name("role", &role.name, 64, "+=,.@-_")?;
        if !(3600..=43_200).contains(&role.max_session_seconds) {
            let problem = "a role's session lasts between 3600 and 43200 seconds";
            return Err(CloudError::Declaration(problem.to_owned()));
        }
        if let Some(present) = self.declared.get::<Role>(&role.name) {
            role.policies.clone_from(&present.policies);
        }
        Compiled::of(&role)?;
        self.declared.put(&self.store, role)
    }

    /// Writes one inline policy of a role.
    ///
    /// # Errors
    /// [`CloudError::Declaration`] when there is no such role, or the document is not valid.
    pub fn put_role_policy(&self, role: &str, policy_name: &str, document: Value) -> Result<(), CloudError> {
        check_name("policy", policy_name, 128, "+=,.@-_")?;
        let Some(present) = self.declared.get::<Role>(role) else {
            return Err(CloudError::Declaration(format!(
                "there is no role {role} to attach the policy {policy_name} to"
            )));
        };
        let mut role = (*present).clone();
        role.policies.insert(policy_name.to_owned(), document);
        Compiled::of(&role)?;
        self.declared.put(&self.store, role)
    }

    /// Takes an inline policy away; one that is not there counts as deleted.
    ///
    /// # Errors
    /// [`CloudError`] when it can't be kept.
    pub fn delete_role_policy(&self, role: &str, policy_name: &str) -> Result<(), CloudError> {
        let Some(present) = self.declared.get::<Role>(role) else {
            return Ok(());
        };
        let mut role = (*present).clone();
        role.policies.remove(policy_name);
        self.declared.put(&self.store, role)
    }

    /// Deletes a role with its inline policies; one that is not there counts as deleted.
    ///
    /// # Errors
    /// [`CloudError`] when it can't be kept.
    pub fn delete_role(&self, name: &str) -> Result<(), CloudError> {
        self.declared.delete::<Role>(&self.store, name)?;
        let mut documents = self.documents.0.write().unwrap_or_else(PoisonError::into_inner);
        documents.remove(name);
        Ok(())
    }

    /// The role as it is declared now.
    pub fn get_role(&self, name: &str) -> Option<Arc<Role>> {
        self.declared.get(name)
    }
}

impl Compiled {
    fn of(role: &Role) -> Result<Self, CloudError> {
        let read = |(name, document): (&String, &Value)| Document::parse(name, Kind::Identity, document);
        let trust = format!("trust of {}", role.name);
        Ok(Self {
            policies: role.policies.iter().map(read).collect::<Result<_, _>>()?,
            trust: Document::parse(&trust, Kind::Trust, &role.trust)?,
        })
    }
}

/// `AROA…:SESSION`: the role's unique id, made from its ARN, since only its name identifies it here.
pub(crate) fn user_id(session: &RoleSession) -> String {
    use sha2::{Digest, Sha256};
    let digest = crate::credentials::hex(&Sha256::digest(&session.role_arn)).to_uppercase();
    format!("AROA{}:{}", &digest[..17], session.session_name)
}

/// Names that could not stand in an ARN are refused where they are declared.
pub(crate) fn check_name(kind: &str, name: &str, longest: usize, also: &str) -> Result<(), CloudError> {
    let fine = |letter: char| letter.is_ascii_alphanumeric() || also.contains(letter);
    if name.is_empty() || name.len() > longest || !name.chars().all(fine) {
        return Err(CloudError::Declaration(format!(
            "{name:?} is not a name for a {kind}: 1 to {longest} letters, digits or {also}"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;
    use serde_json::json;

    /// A cloud in a folder of its own, which goes with it.
    struct World {
        cloud: Arc<Cloud>,
        folder: std::path::PathBuf,
    }

    impl Drop for World {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }

    impl World {
        fn new() -> Self {
            let name = format!("local-cloud-iam-{}", crate::credentials::uuid());
            let folder = std::env::temp_dir().join(name);
            std::fs::create_dir_all(&folder).expect("a folder");
            let options = Options {
                folder: folder.clone(),
                region: "eu-west-1".to_owned(),
                account: "000000000000".to_owned(),
                api_port: 1,
                site_port: 2,
            };
            let cloud = Cloud::open(options).expect("a new cloud");
            Self { cloud, folder }
        }

        fn put_role(&self, action: &str) {
            let trust = json!({"Version": "2012-10-17", "Statement": [{
                "Effect": "Allow", "Action": "sts:AssumeRoleWithWebIdentity",
                "Principal": {"Federated": COGNITO},
                "Condition": {
                    "StringEquals": {"cognito-identity.amazonaws.com:aud": "eu-west-1:pool"},
                    "ForAnyValue:StringLike": {"cognito-identity.amazonaws.com:amr": "authenticated"},
                },
            }]});
            let role = Role {
                name: "r".to_owned(),
                trust,
                policies: std::collections::BTreeMap::new(),
                max_session_seconds: 3600,
            };
            self.cloud.put_role(role).expect("a role");
            let policy = json!({"Version": "2012-10-17", "Statement": [
                {"Sid": "All", "Effect": "Allow", "Action": action, "Resource": "*"}]});
            let put = self.cloud.put_role_policy("r", "all", policy);
            put.expect("a policy");
        }

        fn allows(&self, action: &str, cognito: Option<bool>) -> bool {
            let session = RoleSession {
                role_arn: "arn:aws:iam::000000000000:role/r".to_owned(),
                session_name: "s".to_owned(),
                cognito: cognito.map(|guest| CognitoIdentity {
                    identity_id: "eu-west-1:me".to_owned(),
                    pool_id: "eu-west-1:pool".to_owned(),
                    guest,
                }),
            };
            let call = Call {
                principal: Caller::Role(session),
                request_id: "id".to_owned(),
                method: axum::http::Method::POST,
                uri: axum::http::Uri::from_static("/"),
                headers: axum::http::HeaderMap::new(),
                body: bytes::Bytes::new(),
            };
            let resource = "arn:aws:s3:::b";
            let decided = self.cloud.authorize(&call, action, resource, ConditionKeys::new());
            decided.is_ok()
        }

        fn last_event(&self) -> Value {
            let text = std::fs::read_to_string(self.cloud.events_file()).expect("events");
            serde_json::from_str(text.lines().last().expect("an event")).expect("JSON")
        }
    }

    #[test]
    fn a_guest_may_do_what_role_and_session_policy_both_allow() {
        let world = World::new();
        world.put_role("*");
        for (action, guest, allowed) in [
            ("s3:ListBucket", Some(true), true),
            ("kms:CreateKey", Some(true), false),
            ("kms:CreateKey", Some(false), true),
            ("kms:CreateKey", None, true),
        ] {
            assert_eq!(world.allows(action, guest), allowed, "{action} {guest:?}");
        }
    }

    #[test]
    fn a_change_of_a_role_counts_at_once_and_each_decision_is_written_down() {
        let world = World::new();
        assert!(!world.allows("s3:ListBucket", None));
        world.put_role("s3:*");
        assert!(world.allows("s3:ListBucket", None));
        let event = world.last_event();
        assert_eq!(event["event"], "decision");
        assert_eq!(event["allowed"], true);
        assert_eq!(event["action"], "s3:ListBucket");
        assert_eq!(event["why"], "allowed by statement All of all");
        let principal = "arn:aws:sts::000000000000:assumed-role/r/s";
        assert_eq!(event["principal"], principal);
        world.put_role("dynamodb:*");
        assert!(!world.allows("s3:ListBucket", None));
        assert_eq!(world.last_event()["why"], "no statement of the role r allows it");
        world.cloud.delete_role_policy("r", "all").expect("deleted");
        assert!(!world.allows("dynamodb:Scan", None));
        world.cloud.delete_role("r").expect("deleted");
        assert!(!world.allows("dynamodb:Scan", None));
    }

    #[test]
    fn trust_is_evaluated_with_pool_and_proof() {
        let world = World::new();
        world.put_role("*");
        let role = world.cloud.get_role("r").expect("declared");
        let trusts = |pool: &str, proof: &str| {
            let amr = vec![proof.to_owned(), "login.app".to_owned()];
            world.cloud.trusts_web_identity(&role, pool, "eu-west-1:me", amr)
        };
        assert!(trusts("eu-west-1:pool", "authenticated"));
        assert!(!trusts("eu-west-1:pool", "unauthenticated"));
        assert!(!trusts("eu-west-1:other", "authenticated"));
        assert!(!world.cloud.trusts_service(&role, "lambda.amazonaws.com"));
    }

    #[test]
    fn put_role_keeps_its_policies_and_nonsense_is_refused() {
        let world = World::new();
        world.put_role("s3:*");
        let mut role = (*world.cloud.get_role("r").expect("declared")).clone();
        role.policies.clear();
        world.cloud.put_role(role.clone()).expect("updated");
        assert!(world.allows("s3:ListBucket", None));
        role.trust = json!({"Version": "2012-10-17", "Statement": []});
        assert!(world.cloud.put_role(role).is_err());
        let document = json!({"Version": "2012-10-17"});
        assert!(world.cloud.put_role_policy("r", "bad", document.clone()).is_err());
        assert!(world.cloud.put_role_policy("nobody", "p", document).is_err());
        assert!(world.allows("s3:ListBucket", None));
    }
}
