//! Confirming an address with the token that was mailed to it.

use serde::Serialize;

use crate::user::User;
use crate::{Seconds, Token};

/// `{verified}`
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct VerifyUserResult {
    pub verified: bool,
}

/// The account as verified; `None` when the token was used or replaced, or ran out.
///
/// `expiresAt` goes together with `unverified`, so that TTL can never take a verified user.
pub fn decide(user: &User, token: &Token, now: Seconds) -> Option<User> {
    let pending = &user.unverified.as_ref()?.pending;
    pending.is(token, now).then(|| User { unverified: None, verified_at: Some(now), ..user.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::user::tests::{NOW, apply, unverified_user};

    const TOKEN: [u8; 32] = [1; 32];

    #[test]
    fn a_verification_removes_what_makes_an_account_unverified_and_its_ttl_in_one_write() {
        let user = unverified_user();
        let verified = decide(&user, &Token::new(TOKEN), NOW).expect("verified");
        let (write, _) = user.change(verified);
        assert_eq!(write.remove, ["expiresAt", "unverified", "unverifiedExpiresAt"]);
    }

    #[test]
    fn a_token_works_once() {
        let user = unverified_user();
        let decided = || decide(&user, &Token::new(TOKEN), NOW).expect("verified");
        let ((first, _), (second, _)) = (user.change(decided()), user.change(decided()));
        let verified = apply(Some(user.clone()), &first).expect("written");
        assert!(apply(Some(verified.clone()), &second).is_none());
        assert_eq!(decide(&verified, &Token::new(TOKEN), NOW), None);
    }

    #[test]
    fn another_or_an_old_token_does_not_verify() {
        assert_eq!(decide(&unverified_user(), &Token::new([2; 32]), NOW), None);
        assert_eq!(decide(&unverified_user(), &Token::new(TOKEN), NOW + 86_400), None);
    }
}
