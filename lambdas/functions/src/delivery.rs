//! A write, and the mail that belongs to it, for an address that may or may not have an account.

use auth::mail::Mail;
use auth::user::Write;
use auth::{Email, Seconds};

use crate::outcome::{Code, Failure};
use crate::post::Post;
use crate::store::Store;

/// Takes the mail out of the stage's budget, writes, then mails. Answers the code for the log.
///
/// For every address, whatever was decided: UpdateItem (budget), UpdateItem (user), SendEmail. Where nothing may be
/// written or mailed, the updates are ones whose condition never holds, and the mail is to nobody.
///
/// A mail that SES does not take is not logged: the one to nobody is never taken, and a log that told them apart would
/// tell who has an account. That SES can't be reached or denies the function is logged for both.
pub(crate) async fn deliver(
    store: &Store,
    post: &Post,
    email: &Email,
    decided: Option<(Write, Mail)>,
    per_hour: u64,
    now: Seconds,
) -> Result<Code, Failure> {
    let is_affordable = store.take_from_budget(now, per_hour, decided.is_some()).await?;
    let (write, mail) = match decided.filter(|_| is_affordable) {
        Some((write, mail)) => (write, Some(mail)),
        None => (Write::decoy(email), None),
    };
    let is_written = store.write(&write).await?;
    match post.send(mail.as_ref().filter(|_| is_written)).await {
        Ok(_) => Ok(Code::Ok),
        // What was written stands, and the answer is the same: the owner asks again.
        Err(failure) => Ok(failure.code()),
    }
}
