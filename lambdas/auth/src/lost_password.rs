//! Asking for a link to choose a new password.

use serde::Serialize;

use crate::Token;
use crate::mail::{Mail, Mailer};
use crate::settings::Limits;
use crate::user::{Pending, Unverified, User, Write};

/// `{sent: true}`, whatever happened.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct LostPasswordResult {
    pub sent: bool,
}

/// What to write and to mail once it is written; `None` for strangers, and where a throttle forbids the mail.
///
/// An account that was never verified gets the link that verifies it.
pub fn decide(user: Option<&User>, token: &Token, mailer: &Mailer<'_>, limits: &Limits) -> Option<(Write, Mail)> {
    let (user, now) = (user?, mailer.now);
    if user.is_verified() {
        user.reset_mails.allows(now).then(|| {
            let next = User {
                reset_token: Some(Pending::new(token, now + limits.reset_seconds)),
                reset_mails: user.reset_mails.with(now),
                ..user.clone()
            };
            (user.change(next).0, mailer.reset(&user.email, token, limits.reset_seconds))
        })
    } else {
        user.verification_mails.allows(now).then(|| {
            let next = User {
                unverified: Some(Unverified::new(token, now, limits.verification_seconds)),
                verification_mails: user.verification_mails.with(now),
                ..user.clone()
            };
            (user.change(next).0, mailer.verification(&user.email, token, limits.verification_seconds))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Seconds;
    use crate::user::tests::{NOW, apply, unverified_user, verified_user};

    fn decided(user: Option<&User>, random: u8, now: Seconds) -> Option<(Write, Mail)> {
        let mailer = Mailer { site_url: "https://site.example", now };
        decide(user, &Token::new([random; 32]), &mailer, &Limits::default())
    }

    #[test]
    fn a_member_gets_a_link_that_is_good_for_an_hour() {
        let user = verified_user();
        let (write, mail) = decided(Some(&user), 5, NOW).expect("sent");
        let user = apply(Some(user), &write).expect("written");
        let pending = user.reset_token.expect("pending");
        assert!(pending.is(&Token::new([5; 32]), NOW + 3599) && !pending.is(&Token::new([5; 32]), NOW + 3600));
        assert!(mail.text.contains("resetPassword.html?resetToken="));
    }

    #[test]
    fn a_new_request_replaces_the_old_token() {
        let user = verified_user();
        let (write, _) = decided(Some(&user), 5, NOW).expect("sent");
        let user = apply(Some(user), &write).expect("written");
        assert!(decided(Some(&user), 6, NOW + 59).is_none());
        let (write, _) = decided(Some(&user), 6, NOW + 60).expect("sent");
        let user = apply(Some(user), &write).expect("written");
        let pending = user.reset_token.expect("pending");
        assert!(pending.is(&Token::new([6; 32]), NOW + 60) && !pending.is(&Token::new([5; 32]), NOW + 60));
    }

    #[test]
    fn an_unverified_account_gets_the_verification_mail_and_keeps_its_password() {
        let user = unverified_user();
        let (write, mail) = decided(Some(&user), 5, NOW).expect("sent");
        let after = apply(Some(user.clone()), &write).expect("written");
        assert!(mail.text.contains("verify.html?token="));
        assert_eq!((after.password, after.reset_token), (user.password, None));
        assert!(after.unverified.is_some_and(|u| u.pending.is(&Token::new([5; 32]), NOW)));
    }

    #[test]
    fn strangers_get_nothing() {
        assert!(decided(None, 5, NOW).is_none());
    }
}
