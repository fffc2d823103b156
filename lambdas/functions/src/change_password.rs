use auth::change_password::{Caller, ChangePasswordResult, attempt, decide, of_caller};
use auth::mail::Mailer;
use auth::password::{Password, Reason, judge};
use auth::scram::{StageKey, Verifier};
use auth::settings::Settings;
use auth::{Function, event};

use crate::aws::Aws;
use crate::outcome::{Code, Failure, Reply};
use crate::post::{Post, Posted};
use crate::runtime::{Call, Handler};
use crate::store::Store;

/// Calls: GetItem; for the caller's own account and an acceptable new password UpdateItem (counts the attempt); and when
/// the old password is right UpdateItem, SendEmail (the notice).
pub(crate) struct ChangePassword {
    store: Store,
    post: Post,
    key: StageKey,
    settings: Settings,
}

impl Handler for ChangePassword {
    const FUNCTION: Function = Function::ChangePassword;

    fn new(settings: Settings, aws: &Aws) -> Result<Self, Failure> {
        Ok(ChangePassword {
            store: Store::new(aws, settings.users_table.clone()),
            post: Post::new(aws, settings.sender.clone()),
            key: StageKey::parse(&settings.challenge_key).ok_or(Failure::Fault(Code::FaultSettings))?,
            settings,
        })
    }

    async fn handle(&self, call: &Call) -> Result<Reply, Failure> {
        let event = event::ChangePassword::parse(&call.event)?;
        let refuse = |reasons| Reply::refused(&ChangePasswordResult::refused(reasons));
        let caller = call.context.identity.as_ref().map(|identity| Caller {
            identity_id: &identity.identity_id,
            identity_pool_id: &identity.identity_pool_id,
        });
        let found = self.store.find(&event.email).await?;
        let user = match of_caller(found, caller, &self.settings.identity_pool_id) {
            Ok(user) => user,
            Err(reason) => return refuse(vec![reason]),
        };
        let limits = &self.settings.limits;
        let new = match judge(&event.new_password, &user.email, limits) {
            Ok(password) => password,
            Err(reasons) => return refuse(reasons),
        };
        let wrong_password = vec![Reason::WrongPassword];
        let Some(old) = Password::prepare(&event.old_password) else { return refuse(wrong_password) };
        let (write, user) = match attempt(&user, call.now) {
            Ok(counted) => counted,
            Err(reason) => return refuse(vec![reason]),
        };
        if !self.store.write(&write).await? || !user.password.fits(&old) {
            return refuse(wrong_password);
        }

        let proven = user.password.clone();
        let new = Verifier::derive(&self.key, &user.email, &new, limits.iterations);
        let Some(user) = self.store.change(user, |user| decide(user, &proven, &new, call.now)).await? else {
            return refuse(wrong_password);
        };
        let notice = Mailer { site_url: &self.settings.site_url, now: call.now }.password_changed(&user.email);
        let code = notified(&self.post, &notice).await;
        Reply::new(&ChangePasswordResult::changed(), code)
    }
}

/// Sends the notice of a change. The change stands when that fails, and only the log says so.
pub(crate) async fn notified(post: &Post, notice: &auth::mail::Mail) -> Code {
    match post.send(Some(notice)).await {
        Ok(Posted::Taken) => Code::Ok,
        Ok(Posted::Refused) | Err(_) => Code::FaultSes,
    }
}
