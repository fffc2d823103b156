use std::time::Duration;

use auth::lost_password::{LostPasswordResult, decide};
use auth::mail::Mailer;
use auth::settings::Settings;
use auth::{Function, Token, event};

use crate::aws::Aws;
use crate::delivery::deliver;
use crate::outcome::{Failure, Reply};
use crate::post::Post;
use crate::runtime::{Call, Handler, random};
use crate::store::Store;

/// Calls, whoever has the address: GetItem, UpdateItem (budget), UpdateItem (user), SendEmail.
pub(crate) struct LostPassword {
    store: Store,
    post: Post,
    settings: Settings,
}

impl Handler for LostPassword {
    const FUNCTION: Function = Function::LostPassword;

    fn new(settings: Settings, aws: &Aws) -> Result<Self, Failure> {
        Ok(LostPassword {
            store: Store::new(aws, settings.users_table.clone()),
            post: Post::new(aws, settings.sender.clone()),
            settings,
        })
    }

    async fn handle(&self, call: &Call) -> Result<Reply, Failure> {
        let email = event::LostPassword::parse(&call.event)?.email;
        let limits = &self.settings.limits;
        let token = Token::new(random()?);
        let user = self.store.find(&email).await?;
        let mailer = Mailer { site_url: &self.settings.site_url, now: call.now };
        let decided = decide(user.as_ref(), &token, &mailer, limits);
        let code = deliver(&self.store, &self.post, &email, decided, limits.mails_per_hour, call.now).await?;
        Reply::new(&LostPasswordResult { sent: true }, code)
    }

    fn answer_after(&self) -> Duration {
        Duration::from_millis(self.settings.limits.answer_after_ms)
    }
}
