use auth::mail::Mailer;
use auth::password::{Reason, judge};
use auth::reset_password::{ResetPasswordResult, decide, is_pending};
use auth::scram::{StageKey, Verifier};
use auth::settings::Settings;
use auth::user::RESET_TOKEN;
use auth::{Function, event};

use crate::aws::Aws;
use crate::change_password::notified;
use crate::outcome::{Code, Failure, Reply};
use crate::post::Post;
use crate::runtime::{Call, Handler};
use crate::store::Store;

/// Calls: Query (again after 300 ms if it finds nothing), GetItem; for an acceptable password UpdateItem, SendEmail (the
/// notice).
pub(crate) struct ResetPassword {
    store: Store,
    post: Post,
    key: StageKey,
    settings: Settings,
}

impl Handler for ResetPassword {
    const FUNCTION: Function = Function::ResetPassword;

    fn new(settings: Settings, aws: &Aws) -> Result<Self, Failure> {
        Ok(ResetPassword {
            store: Store::new(aws, settings.users_table.clone()),
            post: Post::new(aws, settings.sender.clone()),
            key: StageKey::parse(&settings.challenge_key).ok_or(Failure::Fault(Code::FaultSettings))?,
            settings,
        })
    }

    async fn handle(&self, call: &Call) -> Result<Reply, Failure> {
        let event = event::ResetPassword::parse(&call.event)?;
        let refuse = |reasons| Reply::refused(&ResetPasswordResult::refused(reasons));
        let expired = vec![Reason::LinkExpired];
        let Some(token) = event.reset_token else { return refuse(expired) };
        let found = self.store.find_by_token(RESET_TOKEN, &token.hash()).await?;
        let Some(user) = found.filter(|user| is_pending(user, &token, call.now)) else { return refuse(expired) };

        let limits = &self.settings.limits;
        let password = match judge(&event.password, &user.email, limits) {
            Ok(password) => password,
            Err(reasons) => return refuse(reasons),
        };
        let new = Verifier::derive(&self.key, &user.email, &password, limits.iterations);
        let Some(user) = self.store.change(user, |user| decide(user, &token, &new, call.now)).await? else {
            return refuse(expired);
        };
        let notice = Mailer { site_url: &self.settings.site_url, now: call.now }.password_changed(&user.email);
        let code = notified(&self.post, &notice).await;
        Reply::new(&ResetPasswordResult::changed(), code)
    }
}
