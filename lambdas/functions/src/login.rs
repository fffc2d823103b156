use auth::login::{LoginResult, True, attempt, challenge, logged_in};
use auth::scram::{ClientFinal, ClientFirst, StageKey};
use auth::settings::Settings;
use auth::{Function, event};

use crate::aws::Aws;
use crate::identity::Identities;
use crate::outcome::{Code, Failure, Reply};
use crate::runtime::{Call, Handler, random};
use crate::store::Store;

/// Calls for the first message: GetItem. For the final one: GetItem, UpdateItem; and only when it proves the password,
/// GetOpenIdTokenForDeveloperIdentity, UpdateItem. None for a challenge that is not ours or too old.
pub(crate) struct Login {
    store: Store,
    identities: Identities,
    key: StageKey,
    settings: Settings,
}

impl Handler for Login {
    const FUNCTION: Function = Function::Login;

    fn new(settings: Settings, aws: &Aws) -> Result<Self, Failure> {
        let (pool, provider) = (settings.identity_pool_id.clone(), settings.developer_provider.clone());
        Ok(Login {
            store: Store::new(aws, settings.users_table.clone()),
            identities: Identities::new(aws, pool, provider),
            key: StageKey::parse(&settings.challenge_key).ok_or(Failure::Fault(Code::FaultSettings))?,
            settings,
        })
    }

    async fn handle(&self, call: &Call) -> Result<Reply, Failure> {
        match event::Login::parse(&call.event)? {
            event::Login::First(first) => self.challenge(call, &first).await,
            event::Login::Final(last) => self.answer(call, &last).await,
        }
    }
}

impl Login {
    async fn challenge(&self, call: &Call, first: &ClientFirst) -> Result<Reply, Failure> {
        let user = self.store.find(first.email()).await?;
        let limits = &self.settings.limits;
        let server_first = challenge(user.as_ref(), first, &self.key, limits, call.now, random()?);
        Reply::ok(&LoginResult::Challenged { server_first })
    }

    async fn answer(&self, call: &Call, last: &ClientFinal) -> Result<Reply, Failure> {
        let limits = &self.settings.limits;
        let Some(challenge) = last.challenge(&self.key, call.now, limits.challenge_seconds) else {
            return Reply::refused(&LoginResult::refused());
        };
        let user = self.store.find(last.email()).await?;
        let attempt = attempt(user.as_ref(), last, &challenge, &self.key, limits, call.now);
        let is_counted = self.store.write(&attempt.write).await?;
        let proof = last.prove(&attempt.verifier);
        let (Some(user), Some(server_final), true) = (attempt.counted, proof, is_counted) else {
            return Reply::refused(&LoginResult::refused());
        };

        let identity = self.identities.of(&user.user_id, limits.session_seconds).await;
        // Also when Cognito fails: the attempt was right, and counts as failed until this is written.
        let identity_id = identity.as_ref().ok().map(|identity| identity.id.as_str());
        let stored = self.store.change(user, |user| logged_in(user, &attempt.verifier, identity_id)).await?;
        let identity = identity?;
        if stored.is_none() {
            return Reply::refused(&LoginResult::refused());
        }
        let (identity_id, token) = (identity.id, identity.token);
        Reply::ok(&LoginResult::LoggedIn { login: True, server_final, identity_id, token })
    }
}
