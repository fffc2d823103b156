//! Choosing a new password with the token that was mailed.

use crate::scram::Verifier;
use crate::user::User;
use crate::{Seconds, Token};

pub use crate::change_password::ChangePasswordResult as ResetPasswordResult;

/// Whether the token is the one that this account waits for.
pub fn is_pending(user: &User, token: &Token, now: Seconds) -> bool {
    user.is_verified() && user.reset_token.as_ref().is_some_and(|pending| pending.is(token, now))
}

/// The account with the new password and without the token; `None` when that was used or replaced, or ran out.
pub fn decide(user: &User, token: &Token, new: &Verifier, now: Seconds) -> Option<User> {
    is_pending(user, token, now).then(|| user.with_password(new.clone(), now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::throttle::LoginThrottle;
    use crate::user::Pending;
    use crate::user::tests::{NOW, apply, unverified_user, verified_user, verifier};

    fn token() -> Token {
        Token::new([2; 32])
    }

    fn waiting_user() -> User {
        let login = (0..9).fold(LoginThrottle::default(), |login, _| login.counted(NOW));
        User { reset_token: Some(Pending::new(&token(), NOW + 3600)), login, ..verified_user() }
    }

    #[test]
    fn a_reset_changes_the_password_and_is_the_way_out_of_the_throttle() {
        let user = waiting_user();
        let next = decide(&user, &token(), &verifier("new"), NOW).expect("changed");
        let (write, next) = user.change(next);
        assert_eq!(apply(Some(user), &write), Some(next.clone()));
        assert!(next.login.allows(NOW) && next.password == verifier("new"));
    }

    #[test]
    fn a_reset_token_works_once_also_for_two_at_the_same_time() {
        let user = waiting_user();
        let write = |password| user.change(decide(&user, &token(), &verifier(password), NOW).expect("changed")).0;
        let (one, two) = (write("one"), write("two"));
        let after = apply(Some(user.clone()), &one).expect("written");
        assert!(apply(Some(after.clone()), &two).is_none());
        assert_eq!(decide(&after, &token(), &verifier("two"), NOW), None);
        assert_eq!(after.password, verifier("one"));
    }

    #[test]
    fn another_or_an_old_token_changes_nothing() {
        assert!(!is_pending(&waiting_user(), &Token::new([1; 32]), NOW));
        assert!(!is_pending(&waiting_user(), &token(), NOW + 3600));
        assert!(!is_pending(&verified_user(), &token(), NOW));
        // The token of a verification resets no password.
        assert!(!is_pending(&unverified_user(), &Token::new([1; 32]), NOW));
    }
}
