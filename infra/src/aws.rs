//! Typed resources of the provider pulumi-aws 7.x, with only the properties that are used. Tokens and property names
//! are the published ones: <https://www.pulumi.com/registry/packages/aws/api-docs/>.

use std::collections::BTreeMap;

use pulumi::{Archive, Context, In, Input, Output, Resource, Urn};

/// A typed resource of the provider.
pub(crate) trait Declare: Sized {
    const TOKEN: &'static str;

    /// The properties that are set, under their published names.
    fn inputs(self) -> BTreeMap<String, Input>;

    fn declare(self, context: &Context, name: &str) -> Resource {
        self.declare_with(context, name, Vec::new(), false)
    }

    /// `after`: resources that must be there first although no property says so.
    fn declare_with(self, context: &Context, name: &str, after: Vec<Output<Urn>>, protect: bool) -> Resource {
        context.register(Self::TOKEN, name, self.inputs(), after, protect)
    }
}

/// Declares a resource type: the struct of its inputs, and its token.
macro_rules! resource {
    ($(#[$doc:meta])* $name:ident, $token:literal { $($field:ident: $type:ty = $property:literal,)* }) => {
        $(#[$doc])*
        #[derive(Default)]
        pub(crate) struct $name {
            $(pub(crate) $field: In<$type>,)*
        }
        impl Declare for $name {
            const TOKEN: &'static str = $token;

            fn inputs(self) -> BTreeMap<String, Input> {
                Input::fields([$(($property, self.$field.into_input()),)*])
            }
        }
    };
}

/// Declares the struct of a nested property.
macro_rules! nested {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty = $property:literal,)* }) => {
        $(#[$doc])*
        #[derive(Default)]
        pub(crate) struct $name {
            $(pub(crate) $field: In<$type>,)*
        }
        impl From<$name> for In<$name> {
            fn from(nested: $name) -> Self {
                Input::Object(Input::fields([$(($property, nested.$field.into_input()),)*])).into()
            }
        }
    };
}

resource! {
    /// An S3 bucket; the provider completes the prefix to a name that is free in all of AWS.
    Bucket, "aws:s3/bucket:Bucket" {
        bucket_prefix: String = "bucketPrefix",
        force_destroy: bool = "forceDestroy",
    }
}
resource! {
    /// S3's guard against public buckets.
    BucketPublicAccessBlock, "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock" {
        bucket: String = "bucket",
        block_public_acls: bool = "blockPublicAcls",
        ignore_public_acls: bool = "ignorePublicAcls",
        block_public_policy: bool = "blockPublicPolicy",
        restrict_public_buckets: bool = "restrictPublicBuckets",
    }
}
resource! {
    BucketServerSideEncryptionConfiguration,
    "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration" {
        bucket: String = "bucket",
        rules: Vec<EncryptionRule> = "rules",
    }
}
nested! { EncryptionRule { default: EncryptionDefault = "applyServerSideEncryptionByDefault", } }
nested! { EncryptionDefault { algorithm: String = "sseAlgorithm", } }
resource! {
    BucketPolicy, "aws:s3/bucketPolicy:BucketPolicy" {
        bucket: String = "bucket",
        policy: String = "policy",
    }
}
resource! {
    /// An object whose body is given in base64, here always gzip.
    BucketObject, "aws:s3/bucketObjectv2:BucketObjectv2" {
        bucket: String = "bucket",
        key: String = "key",
        content_base64: String = "contentBase64",
        content_type: String = "contentType",
        content_encoding: String = "contentEncoding",
        cache_control: String = "cacheControl",
    }
}
resource! {
    Table, "aws:dynamodb/table:Table" {
        name: String = "name",
        billing_mode: String = "billingMode",
        hash_key: String = "hashKey",
        attributes: Vec<TableAttribute> = "attributes",
        global_secondary_indexes: Vec<GlobalSecondaryIndex> = "globalSecondaryIndexes",
        ttl: TimeToLive = "ttl",
        point_in_time_recovery: PointInTimeRecovery = "pointInTimeRecovery",
        server_side_encryption: ServerSideEncryption = "serverSideEncryption",
        deletion_protection_enabled: bool = "deletionProtectionEnabled",
    }
}
nested! { TableAttribute { name: String = "name", r#type: String = "type", } }
nested! {
    GlobalSecondaryIndex {
        name: String = "name",
        key_schemas: Vec<KeySchema> = "keySchemas",
        projection_type: String = "projectionType",
    }
}
nested! { KeySchema { attribute_name: String = "attributeName", key_type: String = "keyType", } }
nested! { TimeToLive { attribute_name: String = "attributeName", enabled: bool = "enabled", } }
nested! { PointInTimeRecovery { enabled: bool = "enabled", } }
nested! { ServerSideEncryption { enabled: bool = "enabled", } }
resource! {
    /// An address that SES may send from, once its owner has pressed the link that AWS mails.
    EmailIdentity, "aws:ses/emailIdentity:EmailIdentity" {
        email: String = "email",
    }
}
resource! {
    IdentityPool, "aws:cognito/identityPool:IdentityPool" {
        identity_pool_name: String = "identityPoolName",
        developer_provider_name: String = "developerProviderName",
        allow_unauthenticated_identities: bool = "allowUnauthenticatedIdentities",
        allow_classic_flow: bool = "allowClassicFlow",
    }
}
resource! {
    IdentityPoolRoleAttachment, "aws:cognito/identityPoolRoleAttachment:IdentityPoolRoleAttachment" {
        identity_pool_id: String = "identityPoolId",
        roles: BTreeMap<String, String> = "roles",
    }
}
resource! {
    Role, "aws:iam/role:Role" {
        name: String = "name",
        assume_role_policy: String = "assumeRolePolicy",
    }
}
resource! {
    RolePolicy, "aws:iam/rolePolicy:RolePolicy" {
        name: String = "name",
        role: String = "role",
        policy: String = "policy",
    }
}
resource! {
    LogGroup, "aws:cloudwatch/logGroup:LogGroup" {
        name: String = "name",
        retention_in_days: u32 = "retentionInDays",
    }
}
resource! {
    Function, "aws:lambda/function:Function" {
        name: String = "name",
        role: String = "role",
        runtime: String = "runtime",
        handler: String = "handler",
        architectures: Vec<String> = "architectures",
        memory_size: u32 = "memorySize",
        timeout: u32 = "timeout",
        code: Archive = "code",
        environment: FunctionEnvironment = "environment",
        logging_config: LoggingConfig = "loggingConfig",
    }
}
nested! { FunctionEnvironment { variables: BTreeMap<String, String> = "variables", } }
nested! { LoggingConfig { log_format: String = "logFormat", log_group: String = "logGroup", } }
resource! {
    /// What happens to asynchronous invocations.
    FunctionEventInvokeConfig, "aws:lambda/functionEventInvokeConfig:FunctionEventInvokeConfig" {
        function_name: String = "functionName",
        maximum_retry_attempts: u32 = "maximumRetryAttempts",
        maximum_event_age_in_seconds: u32 = "maximumEventAgeInSeconds",
    }
}
