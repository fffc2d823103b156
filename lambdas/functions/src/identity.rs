//! Identities of members, by Cognito.

use aws_sdk_cognitoidentity::Client;

use crate::aws::Aws;
use crate::outcome::{Code, Failure};

pub(crate) struct Identities {
    client: Client,
    pool: String,
    developer_provider: String,
}

/// A member's identity, and the token that a browser exchanges for credentials.
pub(crate) struct Identity {
    pub(crate) id: String,
    pub(crate) token: String,
}

impl Identities {
    pub(crate) fn new(aws: &Aws, pool: String, developer_provider: String) -> Identities {
        Identities { client: Client::new(&aws.config), pool, developer_provider }
    }

    /// One GetOpenIdTokenForDeveloperIdentity, without an IdentityId: the same user always gets the same identity.
    pub(crate) async fn of(&self, user_id: &str, good_for: u64) -> Result<Identity, Failure> {
        let fault = Failure::Fault(Code::FaultCognito);
        let got = self.client.get_open_id_token_for_developer_identity().identity_pool_id(&self.pool);
        let got = got.logins(&self.developer_provider, user_id).token_duration(good_for.try_into().unwrap_or(i64::MAX));
        let got = got.send().await.map_err(|_| fault)?;
        let (id, token) = got.identity_id.zip(got.token).ok_or(fault)?;
        Ok(Identity { id, token })
    }
}
