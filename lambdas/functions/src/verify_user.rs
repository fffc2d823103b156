use auth::settings::Settings;
use auth::user::UNVERIFIED;
use auth::verify_user::{VerifyUserResult, decide};
use auth::{Function, event};

use crate::aws::Aws;
use crate::outcome::{Failure, Reply};
use crate::runtime::{Call, Handler};
use crate::store::Store;

/// Calls: Query (again after 300 ms if it finds nothing), GetItem, UpdateItem.
pub(crate) struct VerifyUser {
    store: Store,
}

impl Handler for VerifyUser {
    const FUNCTION: Function = Function::VerifyUser;

    fn new(settings: Settings, aws: &Aws) -> Result<Self, Failure> {
        Ok(VerifyUser { store: Store::new(aws, settings.users_table) })
    }

    async fn handle(&self, call: &Call) -> Result<Reply, Failure> {
        let refused = VerifyUserResult { verified: false };
        let Some(token) = event::VerifyUser::parse(&call.event)?.token else { return Reply::refused(&refused) };
        let Some(user) = self.store.find_by_token(UNVERIFIED, &token.hash()).await? else {
            return Reply::refused(&refused);
        };
        match self.store.change(user, |user| decide(user, &token, call.now)).await? {
            Some(_) => Reply::ok(&VerifyUserResult { verified: true }),
            None => Reply::refused(&refused),
        }
    }
}
