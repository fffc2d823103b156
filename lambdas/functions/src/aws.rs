//! What the clients of the AWS services share: one HTTP client, credentials and region from the environment.
//!
//! Without `aws-config`, with ring and with Amazon's own root certificates alone, a cold start takes a tenth of what the
//! SDK's defaults take; `scripts/bench` holds it there.

use std::time::Duration;

use auth::settings::MissingSetting;
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::config::{BehaviorVersion, Region, SharedHttpClient};
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use aws_types::SdkConfig;

use crate::outcome::{Code, Failure};

/// The roots that the certificates of all AWS endpoints lead to (<https://www.amazontrust.com/repository/>).
const AMAZON_TRUST_SERVICES: &[u8] = include_bytes!("../certificates/amazon-trust-services.pem");

pub(crate) struct Aws {
    pub(crate) config: SdkConfig,
}

impl Aws {
    /// The variables are Lambda's own, but for two that the official SDKs know too: `AWS_ENDPOINT_URL`, and
    /// `AWS_CA_BUNDLE`, a file of further root certificates.
    pub(crate) fn from_env(lookup: impl Fn(&str) -> Option<String>) -> Result<Aws, Failure> {
        let must = |name| lookup(name).ok_or(MissingSetting(name)).map_err(|_| Failure::Fault(Code::FaultSettings));
        let credentials = Credentials::from_keys(
            must("AWS_ACCESS_KEY_ID")?,
            must("AWS_SECRET_ACCESS_KEY")?,
            lookup("AWS_SESSION_TOKEN"),
        );
        let endpoint_url = lookup("AWS_ENDPOINT_URL");
        // Within the ten seconds that a function has, all retries included.
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(Duration::from_secs(1))
            .operation_attempt_timeout(Duration::from_secs(2))
            .operation_timeout(Duration::from_secs(4))
            .build();
        let mut config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(must("AWS_REGION")?))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .http_client(http_client(endpoint_url.as_deref(), lookup("AWS_CA_BUNDLE").as_deref())?)
            .timeout_config(timeouts)
            .retry_config(RetryConfig::standard().with_max_attempts(3));
        config.set_endpoint_url(endpoint_url);
        Ok(Aws { config: config.build() })
    }
}

fn http_client(endpoint_url: Option<&str>, ca_bundle: Option<&str>) -> Result<SharedHttpClient, Failure> {
    let builder = aws_smithy_http_client::Builder::new();
    if endpoint_url.is_some_and(|url| url.starts_with("http://")) {
        return Ok(builder.build_http());
    }
    let mut roots = TrustStore::empty().with_pem_certificate(AMAZON_TRUST_SERVICES);
    if let Some(path) = ca_bundle {
        roots.add_pem_certificate(std::fs::read(path).map_err(|_| Failure::Fault(Code::FaultSettings))?);
    }
    let tls = TlsContext::builder().with_trust_store(roots).build();
    let tls = tls.map_err(|_| Failure::Fault(Code::FaultSettings))?;
    Ok(builder.tls_provider(Provider::Rustls(CryptoMode::Ring)).tls_context(tls).build_https())
}
