use std::time::Duration;

use auth::create_user::{CreateUserResult, SignUp, accept, decide};
use auth::mail::Mailer;
use auth::scram::{StageKey, Verifier};
use auth::settings::Settings;
use auth::{Function, Token, event};

use crate::aws::Aws;
use crate::delivery::deliver;
use crate::outcome::{Code, Failure, Reply};
use crate::post::Post;
use crate::runtime::{Call, Handler, random};
use crate::store::Store;

/// Calls for an acceptable event, whoever has the address: GetItem, UpdateItem (budget), UpdateItem (user), SendEmail.
pub(crate) struct CreateUser {
    store: Store,
    post: Post,
    key: StageKey,
    settings: Settings,
}

impl Handler for CreateUser {
    const FUNCTION: Function = Function::CreateUser;

    fn new(settings: Settings, aws: &Aws) -> Result<Self, Failure> {
        Ok(CreateUser {
            store: Store::new(aws, settings.users_table.clone()),
            post: Post::new(aws, settings.sender.clone()),
            key: StageKey::parse(&settings.challenge_key).ok_or(Failure::Fault(Code::FaultSettings))?,
            settings,
        })
    }

    async fn handle(&self, call: &Call) -> Result<Reply, Failure> {
        let event = event::CreateUser::parse(&call.event)?;
        let limits = &self.settings.limits;
        let (email, password) = match accept(&event, limits) {
            Ok(accepted) => accepted,
            Err(reasons) => return Reply::refused(&CreateUserResult { created: false, reasons }),
        };
        let sign_up = SignUp {
            verifier: Verifier::derive(&self.key, &email, &password, limits.iterations),
            token: Token::new(random()?),
            user_id: random()?,
            email: email.clone(),
        };
        let known = self.store.find(&email).await?;
        let mailer = Mailer { site_url: &self.settings.site_url, now: call.now };
        let decided = decide(known.as_ref(), sign_up, &mailer, limits);
        let code = deliver(&self.store, &self.post, &email, decided, limits.mails_per_hour, call.now).await?;
        Reply::new(&CreateUserResult { created: true, reasons: Vec::new() }, code)
    }

    fn answer_after(&self) -> Duration {
        Duration::from_millis(self.settings.limits.answer_after_ms)
    }
}
