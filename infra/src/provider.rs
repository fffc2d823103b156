//! The resource types of pulumi-aws, as far as the program uses them, on the local cloud. Creating and updating are the
//! same call, and both may be repeated: a deployment that was killed just goes on.

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use local_cloud::{Cloud, NewObject, declared};
use serde_json::{Value as Json, json};
use sha2::{Digest as _, Sha256};

use crate::aws::{self, Declare as _};
use crate::embedded::ARCHIVE_PATH;

/// The properties that can't be changed in place: a change replaces the resource.
pub(crate) fn replaced_by(type_token: &str) -> &'static [&'static str] {
    match type_token {
        aws::Bucket::TOKEN => &["bucketPrefix"],
        aws::BucketPublicAccessBlock::TOKEN
        | aws::BucketServerSideEncryptionConfiguration::TOKEN
        | aws::BucketPolicy::TOKEN => &["bucket"],
        aws::BucketObject::TOKEN => &["bucket", "key"],
        aws::Table::TOKEN => &["name", "hashKey"],
        aws::EmailIdentity::TOKEN => &["email"],
        aws::IdentityPool::TOKEN => &["developerProviderName", "identityPoolName"],
        aws::IdentityPoolRoleAttachment::TOKEN => &["identityPoolId"],
        aws::Role::TOKEN | aws::LogGroup::TOKEN | aws::Function::TOKEN => &["name"],
        aws::RolePolicy::TOKEN => &["name", "role"],
        aws::FunctionEventInvokeConfig::TOKEN => &["functionName"],
        _ => &[],
    }
}

/// Whether users would be lost with the resource.
pub(crate) fn holds_users(type_token: &str) -> bool {
    matches!(type_token, aws::Table::TOKEN | aws::IdentityPool::TOKEN)
}

/// Creates the resource, or brings it to `inputs`; tells its identifier and the properties that the provider computes.
///
/// # Errors
/// When the inputs make no sense to the local cloud, or it can't do its work.
pub(crate) fn apply(cloud: &Cloud, type_token: &str, inputs: &Json) -> Result<(String, Json)> {
    let arn =
        |service: &str, resource: &str| format!("arn:aws:{service}:{}:{}:{resource}", cloud.region(), cloud.account());
    Ok(match type_token {
        aws::Bucket::TOKEN => {
            // Stands for what the provider draws: the same for every try of this stage, another one for each stage.
            let unique = hex(&Sha256::digest(cloud.admin().access_key_id))[..12].to_owned();
            let name = format!("{}{unique}", text(inputs, "bucketPrefix")?);
            cloud.put_bucket(&name)?;
            let domain = format!("{name}.s3.{}.amazonaws.com", cloud.region());
            let outputs =
                json!({"bucket": name, "arn": format!("arn:aws:s3:::{name}"), "bucketRegionalDomainName": domain});
            (name, outputs)
        }
        aws::BucketPublicAccessBlock::TOKEN => {
            let bucket = text(inputs, "bucket")?;
            cloud.set_block_public_policy(bucket, inputs["blockPublicPolicy"].as_bool().unwrap_or(false))?;
            (bucket.to_owned(), json!({}))
        }
        aws::BucketServerSideEncryptionConfiguration::TOKEN => {
            let algorithm = &inputs["rules"][0]["applyServerSideEncryptionByDefault"]["sseAlgorithm"];
            if algorithm != "AES256" {
                bail!("a site's bucket needs AES256: anonymous reads fail with KMS");
            }
            (text(inputs, "bucket")?.to_owned(), json!({}))
        }
        aws::BucketPolicy::TOKEN => {
            let bucket = text(inputs, "bucket")?;
            cloud.put_bucket_policy(bucket, Some(document(inputs, "policy")?))?;
            (bucket.to_owned(), json!({}))
        }
        aws::BucketObject::TOKEN => {
            let (bucket, key) = (text(inputs, "bucket")?, text(inputs, "key")?);
            let object = cloud.put_object(NewObject {
                bucket: bucket.to_owned(),
                key: key.to_owned(),
                body: BASE64.decode(text(inputs, "contentBase64")?).context("contentBase64 is not base64")?,
                content_type: text(inputs, "contentType")?.to_owned(),
                content_encoding: inputs["contentEncoding"].as_str().map(str::to_owned),
                cache_control: inputs["cacheControl"].as_str().map(str::to_owned),
            })?;
            (format!("{bucket}/{key}"), json!({"etag": object.etag}))
        }
        aws::Table::TOKEN => {
            let name = text(inputs, "name")?;
            cloud.put_table(table(name, inputs)?)?;
            (name.to_owned(), json!({"name": name, "arn": arn("dynamodb", &format!("table/{name}"))}))
        }
        aws::EmailIdentity::TOKEN => {
            let email = text(inputs, "email")?;
            cloud.put_mail_identity(email)?;
            (email.to_owned(), json!({"arn": arn("ses", &format!("identity/{email}"))}))
        }
        aws::IdentityPool::TOKEN => {
            let pool = cloud.put_identity_pool(
                text(inputs, "identityPoolName")?,
                inputs["developerProviderName"].as_str(),
                inputs["allowUnauthenticatedIdentities"].as_bool().unwrap_or(false),
                inputs["allowClassicFlow"].as_bool().unwrap_or(false),
            )?;
            let outputs = json!({"arn": arn("cognito-identity", &format!("identitypool/{}", pool.id))});
            (pool.id, outputs)
        }
        aws::IdentityPoolRoleAttachment::TOKEN => {
            let pool = text(inputs, "identityPoolId")?;
            let role = |kind: &str| inputs["roles"][kind].as_str();
            cloud.attach_roles(pool, role("unauthenticated"), role("authenticated"))?;
            (pool.to_owned(), json!({}))
        }
        aws::Role::TOKEN => {
            let name = text(inputs, "name")?;
            cloud.put_role(declared::Role {
                name: name.to_owned(),
                trust: document(inputs, "assumeRolePolicy")?,
                policies: Default::default(),
                max_session_seconds: 3600,
            })?;
            let arn = format!("arn:aws:iam::{}:role/{name}", cloud.account());
            (name.to_owned(), json!({"name": name, "arn": arn}))
        }
        aws::RolePolicy::TOKEN => {
            let (role, name) = (text(inputs, "role")?, text(inputs, "name")?);
            cloud.put_role_policy(role, name, document(inputs, "policy")?)?;
            (format!("{role}:{name}"), json!({}))
        }
        aws::LogGroup::TOKEN => {
            let name = text(inputs, "name")?;
            let retention_days = inputs["retentionInDays"].as_u64().and_then(|days| u32::try_from(days).ok());
            cloud.put_log_group(declared::LogGroup { name: name.to_owned(), retention_days })?;
            (name.to_owned(), json!({"name": name, "arn": arn("logs", &format!("log-group:{name}"))}))
        }
        aws::Function::TOKEN => {
            let name = text(inputs, "name")?;
            let (function, executable) = function(name, inputs)?;
            cloud.put_function(function, executable.as_ref())?;
            (name.to_owned(), json!({"name": name, "arn": arn("lambda", &format!("function:{name}"))}))
        }
        aws::FunctionEventInvokeConfig::TOKEN => {
            let name = text(inputs, "functionName")?;
            let asynchronous = declared::Asynchronous {
                maximum_retry_attempts: number(inputs, "maximumRetryAttempts")?,
                maximum_event_age_seconds: number(inputs, "maximumEventAgeInSeconds")?,
            };
            cloud.set_asynchronous(name, Some(asynchronous))?;
            (name.to_owned(), json!({}))
        }
        _ => bail!("the local cloud has no resource of the type {type_token}"),
    })
}

/// Deletes the resource; one that is not there counts as deleted.
///
/// # Errors
/// When the local cloud refuses, e.g. a protected table.
pub(crate) fn delete(cloud: &Cloud, type_token: &str, id: &str, inputs: &Json) -> Result<()> {
    match type_token {
        aws::Bucket::TOKEN => cloud.delete_bucket(id)?,
        aws::BucketPublicAccessBlock::TOKEN => {
            if cloud.get_bucket(id).is_some() {
                cloud.put_bucket_policy(id, None)?;
                cloud.set_block_public_policy(id, true)?;
            }
        }
        aws::BucketServerSideEncryptionConfiguration::TOKEN => {}
        aws::BucketPolicy::TOKEN => {
            if cloud.get_bucket(id).is_some() {
                cloud.put_bucket_policy(id, None)?;
            }
        }
        aws::BucketObject::TOKEN => cloud.delete_object(text(inputs, "bucket")?, text(inputs, "key")?)?,
        aws::Table::TOKEN => cloud.delete_table(id)?,
        aws::EmailIdentity::TOKEN => cloud.delete_mail_identity(id)?,
        aws::IdentityPool::TOKEN => cloud.delete_identity_pool(id)?,
        aws::IdentityPoolRoleAttachment::TOKEN => cloud.detach_roles(id)?,
        aws::Role::TOKEN => cloud.delete_role(id)?,
        aws::RolePolicy::TOKEN => cloud.delete_role_policy(text(inputs, "role")?, text(inputs, "name")?)?,
        aws::LogGroup::TOKEN => cloud.delete_log_group(id)?,
        aws::Function::TOKEN => cloud.delete_function(id)?,
        aws::FunctionEventInvokeConfig::TOKEN => cloud.set_asynchronous(id, None)?,
        _ => bail!("the local cloud has no resource of the type {type_token}"),
    }
    Ok(())
}

/// The table as DynamoDB's CreateTable takes it.
fn table(name: &str, inputs: &Json) -> Result<declared::Table> {
    let attributes = inputs["attributes"].as_array().into_iter().flatten();
    let attributes: Vec<Json> = attributes
        .map(|attribute| json!({"AttributeName": attribute["name"], "AttributeType": attribute["type"]}))
        .collect();
    let indexes = inputs["globalSecondaryIndexes"].as_array().into_iter().flatten();
    let indexes: Vec<Json> = indexes
        .map(|index| {
            let keys = index["keySchemas"].as_array().into_iter().flatten();
            let keys: Vec<Json> =
                keys.map(|key| json!({"AttributeName": key["attributeName"], "KeyType": key["keyType"]})).collect();
            let projection = json!({"ProjectionType": index["projectionType"]});
            json!({"IndexName": index["name"], "KeySchema": keys, "Projection": projection})
        })
        .collect();
    let ttl = &inputs["ttl"];
    Ok(declared::Table {
        name: name.to_owned(),
        definition: json!({
            "TableName": name,
            "BillingMode": inputs["billingMode"],
            "KeySchema": [{"AttributeName": text(inputs, "hashKey")?, "KeyType": "HASH"}],
            "AttributeDefinitions": attributes,
            "GlobalSecondaryIndexes": indexes,
        }),
        ttl_attribute: ttl["attributeName"].as_str().filter(|_| ttl["enabled"] == true).map(str::to_owned),
        point_in_time_recovery: inputs["pointInTimeRecovery"]["enabled"] == true,
        deletion_protection: inputs["deletionProtectionEnabled"] == true,
    })
}

/// The function, and the file that is its code.
fn function<'a>(name: &str, inputs: &'a Json) -> Result<(declared::Function, &'a str)> {
    let variables = inputs["environment"]["variables"].as_object().into_iter().flatten();
    let function = declared::Function {
        name: name.to_owned(),
        role_arn: text(inputs, "role")?.to_owned(),
        memory_mb: number(inputs, "memorySize")?,
        timeout_seconds: number(inputs, "timeout")?,
        environment: variables.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect(),
        log_group: text(&inputs["loggingConfig"], "logGroup")?.to_owned(),
        reserved_concurrency: None,
        code_sha256: text(&inputs["code"], "hash")?.to_owned(),
        // Declared by a resource of its own; the local cloud keeps what that one said.
        asynchronous: declared::Asynchronous::default(),
    };
    Ok((function, text(&inputs["code"], ARCHIVE_PATH)?))
}

fn text<'a>(inputs: &'a Json, property: &str) -> Result<&'a str> {
    inputs[property].as_str().with_context(|| format!("the property {property} is missing or no text"))
}

fn number(inputs: &Json, property: &str) -> Result<u32> {
    let number = inputs[property].as_u64().and_then(|number| u32::try_from(number).ok());
    number.with_context(|| format!("the property {property} is missing or no whole number"))
}

fn document(inputs: &Json, property: &str) -> Result<Json> {
    serde_json::from_str(text(inputs, property)?).with_context(|| format!("the property {property} is not JSON"))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
