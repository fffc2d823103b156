//! Signing up.

use serde::Serialize;

use crate::event;
use crate::mail::{Mail, Mailer};
use crate::password::{Password, Reason, judge};
use crate::scram::Verifier;
use crate::settings::Limits;
use crate::user::{Unverified, User, Write};
use crate::{Email, Token};

/// `{created: true}`, whether or not the address was free, or `{created: false, reasons}`.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct CreateUserResult {
    pub created: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<Reason>,
}

/// What can be said of the event without a look at the table.
pub fn accept(event: &event::CreateUser, limits: &Limits) -> Result<(Email, Password), Vec<Reason>> {
    let email = Email::parse(&event.email).map_err(|_| vec![Reason::InvalidEmail])?;
    let password = judge(&event.password, &email, limits)?;
    Ok((email, password))
}

/// What is made for a sign-up in any case, so that no case takes longer.
pub struct SignUp {
    pub email: Email,
    pub verifier: Verifier,
    pub token: Token,
    pub user_id: [u8; 16],
}

/// What to write and to mail once it is written; `None` where a throttle forbids the mail, so that the link of the last
/// one stays valid.
pub fn decide(known: Option<&User>, sign_up: SignUp, mailer: &Mailer<'_>, limits: &Limits) -> Option<(Write, Mail)> {
    let now = mailer.now;
    let SignUp { email, verifier, token, user_id } = sign_up;
    let unverified = Unverified::new(&token, now, limits.verification_seconds);
    let mail = || mailer.verification(&email, &token, limits.verification_seconds);
    match known {
        None => {
            let mail = mail();
            let user = User::new(email, user_id, verifier, unverified, now);
            let verification_mails = user.verification_mails.with(now);
            Some((User { verification_mails, ..user }.create(), mail))
        }
        Some(user) if !user.is_verified() => user.verification_mails.allows(now).then(|| {
            let verification_mails = user.verification_mails.with(now);
            let replaced =
                User { unverified: Some(unverified), verification_mails, ..user.with_password(verifier, now) };
            (user.change(User { password_changed_at: None, ..replaced }).0, mail())
        }),
        Some(user) => user.account_exists_mails.allows(now).then(|| {
            let account_exists_mails = user.account_exists_mails.with(now);
            (user.change(User { account_exists_mails, ..user.clone() }).0, mailer.account_exists(&email))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Seconds;
    use crate::user::tests::{NOW, apply, email, unverified_user, verified_user, verifier};

    const NEW_TOKEN: [u8; 32] = [9; 32];

    fn decided(known: Option<&User>, now: Seconds) -> Option<(Write, Mail)> {
        let sign_up = SignUp {
            email: email(),
            verifier: verifier("another password"),
            token: Token::new(NEW_TOKEN),
            user_id: [4; 16],
        };
        decide(known, sign_up, &Mailer { site_url: "https://site.example", now }, &Limits::default())
    }

    #[test]
    fn a_new_address_gets_an_unverified_account_and_a_link() {
        let (write, mail) = decided(None, NOW).expect("written");
        let user = apply(None, &write).expect("created");
        let unverified = user.unverified.expect("unverified");
        assert!(unverified.pending.is(&Token::new(NEW_TOKEN), NOW + 86_399));
        assert!(!unverified.pending.is(&Token::new(NEW_TOKEN), NOW + 86_400));
        assert!(mail.text.contains(Token::new(NEW_TOKEN).as_str()));
    }

    #[test]
    fn an_unverified_address_gets_verifier_and_token_replaced_together_and_keeps_its_user() {
        let before = unverified_user();
        let (write, mail) = decided(Some(&before), NOW + 60).expect("written");
        let after = apply(Some(before.clone()), &write).expect("changed");
        assert_eq!(after.password, verifier("another password"));
        assert_eq!(after.user_id, before.user_id);
        assert!(after.unverified.is_some_and(|u| u.pending.is(&Token::new(NEW_TOKEN), NOW + 60)));
        assert!(mail.text.contains("verify.html"));
    }

    #[test]
    fn where_the_throttle_forbids_the_mail_nothing_is_written() {
        let (write, _) = decided(None, NOW).expect("written");
        let user = apply(None, &write).expect("created");
        assert!(decided(Some(&user), NOW + 59).is_none());
        assert!(decided(Some(&user), NOW + 60).is_some());
    }

    #[test]
    fn a_taken_address_keeps_its_account_and_its_owner_is_told() {
        let before = verified_user();
        let (write, mail) = decided(Some(&before), NOW).expect("written");
        let after = apply(Some(before.clone()), &write).expect("changed");
        assert_eq!(after.password, before.password);
        assert!(after.is_verified());
        assert_eq!(mail.subject, "You already have an account");
        assert!(decided(Some(&after), NOW + 1).is_none());
    }

    #[test]
    fn an_unacceptable_address_or_password_is_refused_without_a_look_at_the_table() {
        let refused = |email: &str, password: &str| {
            let event = event::CreateUser { email: email.into(), password: password.into() };
            accept(&event, &Limits::default()).map(|_| ()).expect_err("refused")
        };
        assert_eq!(refused("ada", "violet tram scarf monsoon"), [Reason::InvalidEmail]);
        assert_eq!(refused("ada@example.com", "short"), [Reason::TooShort]);
    }
}
