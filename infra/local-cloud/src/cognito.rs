//! Cognito Identity: identity pools with guests and with users whom a developer's own service knows.

use std::sync::{Arc, Once};
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::Response;
use hmac::{Hmac, KeyInit, Mac};
use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::signature::{self, Signer, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rusqlite::OptionalExtension;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::Sha512;
use time::OffsetDateTime;

use crate::call::{Call, CognitoIdentity, ConditionKeys, Principal, RoleSession};
use crate::declared::IdentityPool;
use crate::error::AwsError;
use crate::iam::COGNITO;
use crate::store::Store;
use crate::{Cloud, CloudError};

const CONTENT_TYPE: &str = "application/x-amz-json-1.1";
const ISSUER: &str = "https://cognito-identity.amazonaws.com";
/// Cognito's enhanced flow gives credentials for an hour.
const LIFETIME: Duration = Duration::from_secs(3600);
const LONGEST_TOKEN: i64 = 86_400;

type Reply = Result<Value, AwsError>;

#[expect(clippy::unused_async, reason = "the shape that all services share")]
pub(crate) async fn handle(cloud: &Arc<Cloud>, call: Call) -> Result<Response, AwsError> {
    let target = call.headers.get("x-amz-target").and_then(|target| target.to_str().ok());
    let operation = target.and_then(|target| target.strip_prefix("AWSCognitoIdentityService."));
    let reply = match operation.unwrap_or_default() {
        "GetId" => get_id(cloud, input(&call)?),
        "GetCredentialsForIdentity" => get_credentials(cloud, input(&call)?),
        "GetOpenIdToken" => get_open_id_token(cloud, input(&call)?),
        // From here on, calls must be signed.
        "GetOpenIdTokenForDeveloperIdentity" => developer_token(cloud, &call, input(&call)?),
        "LookupDeveloperIdentity" => lookup_developer(cloud, &call, input(&call)?),
        "DescribeIdentityPool" => describe_pool(cloud, &call, input(&call)?),
        "GetIdentityPoolRoles" => get_roles(cloud, &call, input(&call)?),
        "ListIdentityPools" => list_pools(cloud, &call),
        _ => Err(AwsError::bad_request(
            "UnknownOperationException",
            "the local cloud does not have this operation of Cognito Identity",
        )),
    }?;
    Ok(crate::gateway::json(CONTENT_TYPE, &reply))
}

type Logins = std::collections::BTreeMap<String, String>;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GetId {
    identity_pool_id: String,
    #[serde(default)]
    logins: Option<Logins>,
}

fn get_id(cloud: &Cloud, input: GetId) -> Reply {
    let pool = cloud.pool(&input.identity_pool_id)?;
    if let Some(logins) = input.logins.filter(|logins| !logins.is_empty()) {
        let problem = if logins.contains_key(COGNITO) {
            "Invalid login token. Can't pass in a Cognito token."
        } else {
            "Token is not from a supported provider of this identity pool."
        };
        return Err(not_authorized(problem));
    }
    guests_allowed(&pool)?;
    let identity_id = cloud.new_identity(&pool.id, None)?;
    Ok(json!({"IdentityId": identity_id}))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GetCredentials {
    identity_id: String,
    #[serde(default)]
    logins: Option<Logins>,
    #[serde(default)]
    custom_role_arn: Option<String>,
}

fn get_credentials(cloud: &Cloud, input: GetCredentials) -> Reply {
    if input.custom_role_arn.is_some() {
        return Err(invalid("CustomRoleArn is for SAML and role claims, which this pool has not"));
    }
    let (identity, pool) = cloud.identity(&input.identity_id)?;
    let amr = proven(cloud, &identity, &pool, input.logins.as_ref())?.amr;
    let guest = amr[0] != "authenticated";
    let role_arn = if guest { &pool.unauthenticated_role } else { &pool.authenticated_role };
    let misconfigured = || {
        AwsError::bad_request(
            "InvalidIdentityPoolConfigurationException",
            "Invalid identity pool configuration. Check assigned IAM roles for this pool.",
        )
    };
    let role_arn = role_arn.as_ref().ok_or_else(misconfigured)?;
    let role = cloud.role_of(role_arn).ok_or_else(misconfigured)?;
    if !cloud.trusts_web_identity(&role, &pool.id, &identity.id, amr) {
        return Err(misconfigured());
    }
    let session = RoleSession {
        role_arn: role_arn.clone(),
        session_name: "CognitoIdentityCredentials".to_owned(),
        cognito: Some(CognitoIdentity { identity_id: identity.id.clone(), pool_id: pool.id.clone(), guest }),
    };
    let issued = cloud.credentials.issue(&session, LIFETIME);
    Ok(json!({
        "IdentityId": identity.id,
        "Credentials": {
            "AccessKeyId": issued.access_key_id,
            "SecretKey": issued.secret_access_key,
            "SessionToken": issued.session_token,
            "Expiration": issued.expires_at.unix_timestamp(),
        },
    }))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GetOpenIdToken {
    identity_id: String,
    #[serde(default)]
    logins: Option<Logins>,
}

fn get_open_id_token(cloud: &Cloud, input: GetOpenIdToken) -> Reply {
    let (identity, pool) = cloud.identity(&input.identity_id)?;
    if !pool.allow_classic_flow {
        let problem = "Basic (classic) flow is not enabled, please use enhanced flow.";
        return Err(invalid(problem));
    }
    let proof = proven(cloud, &identity, &pool, input.logins.as_ref())?;
    // A token made from a token does not outlive it.
    let expires = proof.expires.min(now() + 600);
    let token = cloud.tokens.sign(&identity.id, &pool.id, proof.amr, expires)?;
    Ok(json!({"IdentityId": identity.id, "Token": token}))
}

/// How an identity proved itself: `amr` is never empty.
struct Proof {
    amr: Vec<String>,
    expires: i64,
}

fn proven(cloud: &Cloud, identity: &Identity, pool: &IdentityPool, logins: Option<&Logins>) -> Result<Proof, AwsError> {
    let Some(logins) = logins.filter(|logins| !logins.is_empty()) else {
        if identity.authenticated {
            let problem = format!("Access to Identity '{}' is forbidden.", identity.id);
            return Err(not_authorized(&problem));
        }
        guests_allowed(pool)?;
        return Ok(Proof { amr: vec!["unauthenticated".to_owned()], expires: i64::MAX });
    };
    let token = match logins.get(COGNITO) {
        Some(token) if logins.len() == 1 => token,
        _ => {
            let problem = "Token is not from a supported provider of this identity pool.";
            return Err(not_authorized(problem));
        }
    };
    let claims = cloud.tokens.verify(token, now())?;
    let of_this = claims.sub == identity.id && claims.aud == pool.id;
    if !of_this || claims.amr.first().map(String::as_str) != Some("authenticated") {
        return Err(not_authorized("Invalid login token."));
    }
    Ok(Proof { amr: claims.amr, expires: claims.exp })
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DeveloperToken {
    identity_pool_id: String,
    #[serde(default)]
    identity_id: Option<String>,
    logins: Logins,
    #[serde(default)]
    token_duration: Option<i64>,
}

fn developer_token(cloud: &Cloud, call: &Call, input: DeveloperToken) -> Reply {
    let action = "cognito-identity:GetOpenIdTokenForDeveloperIdentity";
    cloud.authorize_pool(call, action, &input.identity_pool_id)?;
    let pool = cloud.pool(&input.identity_pool_id)?;
    let duration = input.token_duration.unwrap_or(900);
    if !(1..=LONGEST_TOKEN).contains(&duration) {
        return Err(invalid("TokenDuration must be between 1 and 86400 seconds"));
    }
    let provider = pool.developer_provider.as_deref().unwrap_or_default();
    let mut logins = input.logins.iter();
    let user = match (logins.next(), logins.next()) {
        (Some((name, user)), None) if !provider.is_empty() && name == provider => user,
        _ => {
            let problem = "Logins must hold one user of the developer provider of this identity pool";
            return Err(invalid(problem));
        }
    };
    if user.is_empty() || user.len() > 1024 || user.chars().any(char::is_control) {
        return Err(invalid("a developer user identifier has 1 to 1024 characters"));
    }
    let identity_id = cloud.developer_identity(&pool.id, user, input.identity_id.as_deref())?;
    let region = &cloud.options.region;
    let amr = vec!["authenticated".to_owned(), provider.to_owned(), format!("{provider}:{region}:{}:{user}", pool.id)];
    let token = cloud.tokens.sign(&identity_id, &pool.id, amr, now() + duration)?;
    Ok(json!({"IdentityId": identity_id, "Token": token}))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct LookupDeveloper {
    identity_pool_id: String,
    #[serde(default)]
    identity_id: Option<String>,
    #[serde(default)]
    developer_user_identifier: Option<String>,
}

fn lookup_developer(cloud: &Cloud, call: &Call, input: LookupDeveloper) -> Reply {
    let action = "cognito-identity:LookupDeveloperIdentity";
    cloud.authorize_pool(call, action, &input.identity_pool_id)?;
    let pool = cloud.pool(&input.identity_pool_id)?;
    let identity_id = match (input.identity_id, &input.developer_user_identifier) {
        (Some(identity_id), user) => {
            let of_user = match user {
                Some(user) => cloud.identity_of_user(&pool.id, user)?,
                None => None,
            };
            if user.is_some() && of_user.as_ref() != Some(&identity_id) {
                let problem = "Logins don't match. Please include at least one valid login for this identity.";
                return Err(AwsError::bad_request("ResourceConflictException", problem));
            }
            identity_id
        }
        (None, Some(user)) => {
            cloud.identity_of_user(&pool.id, user)?.ok_or_else(|| not_found("Developer user not found"))?
        }
        (None, None) => return Err(invalid("one of IdentityId and DeveloperUserIdentifier is needed")),
    };
    let (identity, found) = cloud.identity(&identity_id)?;
    if found.id != pool.id {
        return Err(not_found(&format!("Identity '{identity_id}' not found.")));
    }
    let users = cloud.users_of(&identity.id).map_err(AwsError::internal)?;
    Ok(json!({"IdentityId": identity.id, "DeveloperUserIdentifierList": users}))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OnePool {
    identity_pool_id: String,
}

fn describe_pool(cloud: &Cloud, call: &Call, input: OnePool) -> Reply {
    let action = "cognito-identity:DescribeIdentityPool";
    cloud.authorize_pool(call, action, &input.identity_pool_id)?;
    let pool = cloud.pool(&input.identity_pool_id)?;
    Ok(json!({
        "IdentityPoolId": pool.id,
        "IdentityPoolName": pool.name,
        "AllowUnauthenticatedIdentities": pool.allow_unauthenticated,
        "AllowClassicFlow": pool.allow_classic_flow,
        "DeveloperProviderName": pool.developer_provider,
        "IdentityPoolTags": {},
    }))
}

fn get_roles(cloud: &Cloud, call: &Call, input: OnePool) -> Reply {
    let action = "cognito-identity:GetIdentityPoolRoles";
    cloud.authorize_pool(call, action, &input.identity_pool_id)?;
    let pool = cloud.pool(&input.identity_pool_id)?;
    let mut roles = serde_json::Map::new();
    let both = [("unauthenticated", &pool.unauthenticated_role), ("authenticated", &pool.authenticated_role)];
    for (name, role) in both {
        if let Some(role) = role {
            roles.insert(name.to_owned(), json!(role));
        }
    }
    Ok(json!({"IdentityPoolId": pool.id, "Roles": roles}))
}

fn list_pools(cloud: &Cloud, call: &Call) -> Reply {
    signed(call)?;
    let action = "cognito-identity:ListIdentityPools";
    cloud.authorize(call, action, "*", ConditionKeys::new())?;
    let pools = cloud.declared.all::<IdentityPool>();
    let pools = pools.iter().map(|pool| json!({"IdentityPoolId": pool.id, "IdentityPoolName": pool.name}));
    Ok(json!({"IdentityPools": pools.collect::<Vec<_>>()}))
}

/// An identity as it is stored.
struct Identity {
    id: String,
    pool_id: String,
    /// A developer user stands behind it: it is no guest's any more.
    authenticated: bool,
}

impl Cloud {
    fn authorize_pool(&self, call: &Call, action: &str, pool_id: &str) -> Result<(), AwsError> {
        signed(call)?;
        let (region, account) = (&self.options.region, &self.options.account);
        let resource = format!("arn:aws:cognito-identity:{region}:{account}:identitypool/{pool_id}");
        self.authorize(call, action, &resource, ConditionKeys::new())
    }

    fn pool(&self, id: &str) -> Result<Arc<IdentityPool>, AwsError> {
        let form =
            |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let formed = id.len() <= 55 && id.split_once(':').is_some_and(|(region, uuid)| form(region) && form(uuid));
        if !formed {
            return Err(invalid(
                "Value at 'identityPoolId' failed to satisfy constraint: Member must satisfy regular expression \
                 pattern: [\\w-]+:[0-9a-f-]+",
            ));
        }
        let missing = || not_found(&format!("IdentityPool '{id}' not found."));
        self.declared.get(id).ok_or_else(missing)
    }

    fn identity(&self, id: &str) -> Result<(Identity, Arc<IdentityPool>), AwsError> {
        let missing = || {
            let id: String = id.chars().filter(|letter| !letter.is_control()).take(55).collect();
            not_found(&format!("Identity '{id}' not found."))
        };
        let found = self.store.with(|connection| {
            connection
                .prepare_cached(
                    "SELECT pool, EXISTS (SELECT 1 FROM developer_users WHERE identity = id)
                     FROM identities WHERE id = ?1",
                )?
                .query_row((id,), |row| {
                    Ok(Identity { id: id.to_owned(), pool_id: row.get(0)?, authenticated: row.get(1)? })
                })
                .optional()
        });
        let identity = found.map_err(AwsError::internal)?.ok_or_else(missing)?;
        let pool = self.declared.get(&identity.pool_id).ok_or_else(missing)?;
        Ok((identity, pool))
    }

    fn new_identity(&self, pool_id: &str, user: Option<&str>) -> Result<String, AwsError> {
        let id = format!("{}:{}", self.options.region, crate::credentials::uuid());
        let written = self.store.with(|connection| {
            let transaction = connection.transaction()?;
            transaction.execute("INSERT INTO identities VALUES (?1, ?2)", (&id, pool_id))?;
            if let Some(user) = user {
                transaction.execute("INSERT INTO developer_users VALUES (?1, ?2, ?3)", (pool_id, user, &id))?;
            }
            transaction.commit()
        });
        written.map_err(AwsError::internal)?;
        Ok(id)
    }

    /// The identity of a developer user: the same for ever, made on the first call, or the given one from now on.
    fn developer_identity(&self, pool_id: &str, user: &str, wanted: Option<&str>) -> Result<String, AwsError> {
        let known = self.identity_of_user(pool_id, user)?;
        let Some(wanted) = wanted else {
            if let Some(known) = known {
                return Ok(known);
            }
            // Two first calls at once: the second finds what the first has made.
            return self
                .new_identity(pool_id, Some(user))
                .or_else(|error| self.identity_of_user(pool_id, user)?.ok_or(error));
        };
        let (identity, pool) = self.identity(wanted)?;
        if pool.id != pool_id {
            return Err(not_found(&format!("Identity '{}' not found.", identity.id)));
        }
        match known {
            Some(known) if known == identity.id => Ok(known),
            Some(_) => Err(AwsError::bad_request(
                "DeveloperUserAlreadyRegisteredException",
                "The developer user is already registered with another identity.",
            )),
            None => {
                let linked = self.store.with(|connection| {
                    connection.execute("INSERT INTO developer_users VALUES (?1, ?2, ?3)", (pool_id, user, &identity.id))
                });
                linked.map_err(AwsError::internal)?;
                Ok(identity.id)
            }
        }
    }

    fn identity_of_user(&self, pool_id: &str, user: &str) -> Result<Option<String>, AwsError> {
        let found = self.store.with(|connection| {
            connection
                .prepare_cached("SELECT identity FROM developer_users WHERE pool = ?1 AND user = ?2")?
                .query_row((pool_id, user), |row| row.get(0))
                .optional()
        });
        found.map_err(AwsError::internal)
    }

    fn users_of(&self, identity_id: &str) -> Result<Vec<String>, CloudError> {
        self.store.with(|connection| {
            connection
                .prepare_cached("SELECT user FROM developer_users WHERE identity = ?1 ORDER BY user")?
                .query_map((identity_id,), |row| row.get(0))?
                .collect()
        })
    }

    /// Makes the pool of that name, or updates it; a pool keeps its id and its identities.
    ///
    /// # Errors
    /// [`CloudError::Declaration`] when a name is not valid, or the developer provider's name would change.
    pub fn put_identity_pool(
        &self,
        name: &str,
        developer_provider: Option<&str>,
        allow_unauthenticated: bool,
        allow_classic_flow: bool,
    ) -> Result<IdentityPool, CloudError> {
        crate::iam::check_name("identity pool", name, 128, " +=,.@-_")?;
        if let Some(provider) = developer_provider {
            crate::iam::check_name("developer provider", provider, 128, ".-_")?;
        }
        let pools = self.declared.all::<IdentityPool>();
        let present = pools.iter().find(|pool| pool.name == name);
        let mut pool = match present {
            Some(present) => (**present).clone(),
            None => IdentityPool {
                id: format!("{}:{}", self.options.region, crate::credentials::uuid()),
                name: name.to_owned(),
                developer_provider: None,
                allow_unauthenticated,
                allow_classic_flow,
                unauthenticated_role: None,
                authenticated_role: None,
            },
        };
        let provider = developer_provider.map(str::to_owned);
        if pool.developer_provider.is_some() && pool.developer_provider != provider {
            return Err(CloudError::Declaration(format!(
                "the developer provider of the identity pool {name} can't be changed: its identities would be lost"
            )));
        }
        pool.developer_provider = provider;
        pool.allow_unauthenticated = allow_unauthenticated;
        pool.allow_classic_flow = allow_classic_flow;
        self.declared.put(&self.store, pool.clone())?;
        Ok(pool)
    }

    /// Gives the pool its roles, by ARN.
    ///
    /// # Errors
    /// [`CloudError::Declaration`] when there is no such pool.
    pub fn attach_roles(
        &self,
        pool_id: &str,
        unauthenticated: Option<&str>,
        authenticated: Option<&str>,
    ) -> Result<(), CloudError> {
        let Some(pool) = self.declared.get::<IdentityPool>(pool_id) else {
            let problem = format!("there is no identity pool {pool_id}");
            return Err(CloudError::Declaration(problem));
        };
        let mut pool = (*pool).clone();
        pool.unauthenticated_role = unauthenticated.map(str::to_owned);
        pool.authenticated_role = authenticated.map(str::to_owned);
        self.declared.put(&self.store, pool)
    }

    /// Takes the roles away from a pool; one that is not there has none.
    ///
    /// # Errors
    /// [`CloudError`] when it can't be kept.
    pub fn detach_roles(&self, pool_id: &str) -> Result<(), CloudError> {
        match self.declared.get::<IdentityPool>(pool_id) {
            Some(_) => self.attach_roles(pool_id, None, None),
            None => Ok(()),
        }
    }

    /// Deletes a pool with all its identities; one that is not there counts as deleted.
    ///
    /// # Errors
    /// [`CloudError`] when it can't be kept.
    pub fn delete_identity_pool(&self, id: &str) -> Result<(), CloudError> {
        self.declared.delete::<IdentityPool>(&self.store, id)?;
        self.store.with(|connection| {
            let transaction = connection.transaction()?;
            transaction.execute("DELETE FROM developer_users WHERE pool = ?1", (id,))?;
            transaction.execute("DELETE FROM identities WHERE pool = ?1", (id,))?;
            transaction.commit()
        })
    }

    /// The pool as it is declared now.
    pub fn get_identity_pool(&self, id: &str) -> Option<Arc<IdentityPool>> {
        self.declared.get(id)
    }
}

/// Makes and checks the pool's tokens. AWS signs them with RS512; nobody but this cloud reads these, and so a MAC with a
/// key of its own does, without the weight of RSA.
pub(crate) struct Tokens {
    encoding: EncodingKey,
    decoding: DecodingKey,
}

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    amr: Vec<String>,
    iat: i64,
    exp: i64,
}

impl Tokens {
    /// Makes the key on the first start, and keeps it.
    pub(crate) fn load(store: &Store) -> Result<Self, CloudError> {
        store.with(|connection| {
            connection.execute_batch(
                "CREATE TABLE IF NOT EXISTS identities (id TEXT PRIMARY KEY, pool TEXT NOT NULL) WITHOUT ROWID;
                 CREATE TABLE IF NOT EXISTS developer_users (
                     pool TEXT NOT NULL, user TEXT NOT NULL, identity TEXT NOT NULL, PRIMARY KEY (pool, user)
                 ) WITHOUT ROWID;
                 CREATE INDEX IF NOT EXISTS developer_users_by_identity ON developer_users (identity)",
            )
        })?;
        static PROVIDER: CryptoProvider = CryptoProvider {
            signer_factory: |_, key| Ok(Box::new(Hs512::of(key.as_bytes())?)),
            verifier_factory: |_, key| Ok(Box::new(Hs512::of(key.try_get_as_bytes()?)?)),
            key_utils: KeyUtils::new_unimplemented(),
        };
        static INSTALLED: Once = Once::new();
        INSTALLED.call_once(|| {
            // Fails only if the process has one already, which then serves as well.
            let _ = PROVIDER.install_default();
        });
        let key = crate::credentials::secret(store, "cognito-tokens")?;
        Ok(Self { encoding: EncodingKey::from_secret(&key), decoding: DecodingKey::from_secret(&key) })
    }

    fn sign(&self, identity_id: &str, pool_id: &str, amr: Vec<String>, expires: i64) -> Result<String, AwsError> {
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: pool_id.to_owned(),
            sub: identity_id.to_owned(),
            amr,
            iat: now(),
            exp: expires,
        };
        let header = Header::new(Algorithm::HS512);
        jsonwebtoken::encode(&header, &claims, &self.encoding).map_err(AwsError::internal)
    }

    fn verify(&self, token: &str, now: i64) -> Result<Claims, AwsError> {
        let mut validation = Validation::new(Algorithm::HS512);
        validation.set_issuer(&[ISSUER]);
        // Expiry and audience are compared by the caller's clock and pool.
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let token = jsonwebtoken::decode::<Claims>(token, &self.decoding, &validation);
        let claims = token
            .map_err(|_| not_authorized("Invalid login token. Not a valid OpenId Connect identity token."))?
            .claims;
        if claims.exp <= now {
            let problem = format!("Invalid login token. Token expired: {now} >= {}", claims.exp);
            return Err(not_authorized(&problem));
        }
        Ok(claims)
    }
}

struct Hs512(Hmac<Sha512>);

impl Hs512 {
    fn of(key: &[u8]) -> jsonwebtoken::errors::Result<Self> {
        let mac = Hmac::new_from_slice(key).map_err(|_| ErrorKind::InvalidKeyFormat)?;
        Ok(Self(mac))
    }
}

impl Signer<Vec<u8>> for Hs512 {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, signature::Error> {
        let mac = self.0.clone().chain_update(message);
        Ok(mac.finalize().into_bytes().to_vec())
    }
}

impl Verifier<Vec<u8>> for Hs512 {
    fn verify(&self, message: &[u8], tag: &Vec<u8>) -> Result<(), signature::Error> {
        let mac = self.0.clone().chain_update(message);
        mac.verify_slice(tag).map_err(|_| signature::Error::new())
    }
}

impl JwtSigner for Hs512 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS512
    }
}

impl JwtVerifier for Hs512 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS512
    }
}

fn input<T: DeserializeOwned>(call: &Call) -> Result<T, AwsError> {
    // What serde would say may quote the caller's input: its own text is enough.
    let body: Value = serde_json::from_slice(&call.body)
        .map_err(|_| AwsError::bad_request("SerializationException", "the body is not a JSON object"))?;
    serde_json::from_value(body).map_err(|_| invalid("a required field is missing, or a field has the wrong type"))
}

fn signed(call: &Call) -> Result<(), AwsError> {
    if call.principal == Principal::Anonymous {
        return Err(crate::gateway::missing_token());
    }
    Ok(())
}

fn guests_allowed(pool: &IdentityPool) -> Result<(), AwsError> {
    if pool.allow_unauthenticated {
        return Ok(());
    }
    let problem = "Unauthenticated access is not supported for this identity pool.";
    Err(not_authorized(problem))
}

fn now() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}

fn invalid(problem: &str) -> AwsError {
    AwsError::bad_request("InvalidParameterException", problem)
}

fn not_found(problem: &str) -> AwsError {
    AwsError::new(StatusCode::BAD_REQUEST, "ResourceNotFoundException", problem)
}

fn not_authorized(problem: &str) -> AwsError {
    AwsError::bad_request("NotAuthorizedException", problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> Tokens {
        let store = Store::open(std::path::Path::new(":memory:")).expect("a store in memory");
        Tokens::load(&store).expect("a new key")
    }

    fn token(tokens: &Tokens, seconds: i64) -> String {
        let amr = vec!["authenticated".to_owned()];
        tokens.sign("r:identity", "r:pool", amr, now() + seconds).expect("a token")
    }

    #[test]
    fn a_token_says_who_it_is_for_until_it_expires() {
        let tokens = tokens();
        let token = token(&tokens, 60);
        let claims = tokens.verify(&token, now()).expect("good");
        assert_eq!((claims.sub.as_str(), claims.aud.as_str()), ("r:identity", "r:pool"));
        assert!(tokens.verify(&token, now() + 59).is_ok());
        let expired = tokens.verify(&token, now() + 61).expect_err("expired");
        assert_eq!(expired.code, "NotAuthorizedException");
        assert!(expired.message.contains("expired"));
    }

    #[test]
    fn forged_tokens_are_refused() {
        let tokens = tokens();
        let good = token(&tokens, 60);
        let parts: Vec<&str> = good.split('.').collect();
        let none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0";
        let elsewhere = token(&self::tokens(), 60);
        for forged in [
            elsewhere,
            String::new(),
            "a.b.c".into(),
            format!("{}.{}.", parts[0], parts[1]),
            format!("{none}.{}.", parts[1]),
            format!("{none}.{}.{}", parts[1], parts[2]),
            format!("{}.{}x.{}", parts[0], parts[1], parts[2]),
        ] {
            let refused = tokens.verify(&forged, now()).expect_err("forged");
            assert_eq!(refused.code, "NotAuthorizedException", "{forged}");
        }
    }
}
