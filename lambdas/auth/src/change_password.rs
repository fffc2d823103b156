//! Changing the password, as the member whose it is.

use serde::Serialize;

use crate::Seconds;
use crate::password::Reason;
use crate::scram::Verifier;
use crate::user::{User, Write};

/// `{changed: true}` or `{changed: false, reasons}`; resetPassword answers the same.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct ChangePasswordResult {
    pub changed: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<Reason>,
}

impl ChangePasswordResult {
    pub fn changed() -> ChangePasswordResult {
        ChangePasswordResult { changed: true, reasons: Vec::new() }
    }

    pub fn refused(reasons: Vec<Reason>) -> ChangePasswordResult {
        ChangePasswordResult { changed: false, reasons }
    }
}

/// The Cognito identity in the context of a call.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    pub identity_id: &'a str,
    pub identity_pool_id: &'a str,
}

/// The account, when it is the caller's: of this pool, and the identity that login stored. An unknown address and
/// another's account are refused alike, before the old password is looked at.
pub fn of_caller(user: Option<User>, caller: Option<Caller<'_>>, pool: &str) -> Result<User, Reason> {
    let caller = caller.filter(|caller| !caller.identity_id.is_empty() && !pool.is_empty());
    let caller = caller.filter(|caller| caller.identity_pool_id == pool);
    let is_theirs = |user: &User| caller.is_some_and(|caller| user.identity_id.as_deref() == Some(caller.identity_id));
    user.filter(is_theirs).filter(User::is_verified).ok_or(Reason::NotYours)
}

/// Counts an attempt at the old password, before that is compared; a throttled one is refused like a wrong one.
pub fn attempt(user: &User, now: Seconds) -> Result<(Write, User), Reason> {
    if !user.login.allows(now) {
        return Err(Reason::WrongPassword);
    }
    Ok(user.change(User { login: user.login.counted(now), ..user.clone() }))
}

/// The account with the new password; `None` when the old one has been changed in the meantime.
pub fn decide(user: &User, old: &Verifier, new: &Verifier, now: Seconds) -> Option<User> {
    (user.password == *old).then(|| user.with_password(new.clone(), now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Token;
    use crate::throttle::LoginThrottle;
    use crate::user::Pending;
    use crate::user::tests::{NOW, apply, unverified_user, verified_user, verifier};

    const POOL: &str = "eu-west-1:pool";

    fn member() -> User {
        User { identity_id: Some("eu-west-1:ada".into()), ..verified_user() }
    }

    fn caller<'a>(identity_id: &'a str, identity_pool_id: &'a str) -> Option<Caller<'a>> {
        Some(Caller { identity_id, identity_pool_id })
    }

    #[test]
    fn a_member_may_change_their_own_account() {
        assert_eq!(of_caller(Some(member()), caller("eu-west-1:ada", POOL), POOL), Ok(member()));
    }

    #[test]
    fn nobody_else_may() {
        let refused = Err(Reason::NotYours);
        assert_eq!(of_caller(Some(member()), caller("eu-west-1:eve", POOL), POOL), refused);
        assert_eq!(of_caller(Some(member()), caller("eu-west-1:ada", "eu-west-1:other"), POOL), refused);
        assert_eq!(of_caller(Some(member()), caller("", POOL), POOL), refused);
        assert_eq!(of_caller(Some(member()), None, POOL), refused);
        assert_eq!(of_caller(None, caller("eu-west-1:ada", POOL), POOL), refused);
        assert_eq!(of_caller(Some(member()), caller("eu-west-1:ada", ""), ""), refused);
    }

    #[test]
    fn an_account_that_never_logged_in_is_nobodys() {
        for user in [verified_user(), unverified_user()] {
            assert_eq!(of_caller(Some(user.clone()), caller("", POOL), POOL), Err(Reason::NotYours));
            assert_eq!(of_caller(Some(user), caller("eu-west-1:ada", POOL), POOL), Err(Reason::NotYours));
        }
    }

    #[test]
    fn attempts_at_the_old_password_count_as_failed_logins() {
        let mut user = member();
        for _ in 0..5 {
            let (write, _) = attempt(&user, NOW).expect("free");
            user = apply(Some(user), &write).expect("written");
        }
        assert_eq!(attempt(&user, NOW), Err(Reason::WrongPassword));
        assert!(attempt(&user, NOW + 1).is_ok());
    }

    #[test]
    fn a_change_forgives_failures_and_ends_a_pending_reset() {
        let user = User {
            login: LoginThrottle::default().counted(NOW),
            reset_token: Some(Pending::new(&Token::new([2; 32]), NOW + 3600)),
            ..member()
        };
        let next = decide(&user, &user.password, &verifier("new"), NOW).expect("changed");
        assert_eq!((next.login, next.reset_token.is_none()), (LoginThrottle::default(), true));
        assert_eq!(next.password, verifier("new"));
        assert_eq!(next.identity_id, user.identity_id);
    }

    #[test]
    fn a_password_that_was_changed_in_the_meantime_is_not_changed_again() {
        assert_eq!(decide(&member(), &verifier("old"), &verifier("new"), NOW), None);
    }
}
