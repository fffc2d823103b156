//! The mails: templates in `mails/`, filled here.

use std::fmt;

use time::OffsetDateTime;
use time::macros::format_description;

use crate::{Email, Seconds, Token};

/// A mail that is ready to be sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Mail {
    pub to: Email,
    pub subject: String,
    pub text: String,
    pub html: String,
}

/// The mailing side of a stage, at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Mailer<'a> {
    pub site_url: &'a str,
    /// When the mail was asked for: every mail says so.
    pub now: Seconds,
}

struct Template {
    subject: &'static str,
    text: &'static str,
    html: &'static str,
}

macro_rules! template {
    ($name:literal) => {
        Template {
            subject: include_str!(concat!("../mails/", $name, ".subject.txt")),
            text: include_str!(concat!("../mails/", $name, ".txt")),
            html: include_str!(concat!("../mails/", $name, ".html")),
        }
    };
}

impl Mailer<'_> {
    /// Asks to confirm the address.
    pub fn verification(&self, to: &Email, token: &Token, good_for: Seconds) -> Mail {
        let link = format!("{}/verify.html?token={}", self.site(), token.as_str());
        self.fill(template!("verification"), to, &link, good_for)
    }

    /// Tells the owner of an account that someone tried to sign up with its address.
    pub fn account_exists(&self, to: &Email) -> Mail {
        self.fill(template!("account_exists"), to, "", 0)
    }

    /// Lets the owner choose a new password.
    pub fn reset(&self, to: &Email, token: &Token, good_for: Seconds) -> Mail {
        let link = format!("{}/resetPassword.html?resetToken={}", self.site(), token.as_str());
        self.fill(template!("reset"), to, &link, good_for)
    }

    /// Tells the owner that the password was changed.
    pub fn password_changed(&self, to: &Email) -> Mail {
        self.fill(template!("password_changed"), to, "", 0)
    }

    fn site(&self) -> &str {
        self.site_url.trim_end_matches('/')
    }

    fn fill(&self, template: Template, to: &Email, link: &str, good_for: Seconds) -> Mail {
        let (asked_at, expires_at) = (in_words(self.now), in_words(self.now + good_for));
        let values =
            [("{{link}}", link), ("{{site}}", self.site()), ("{{askedAt}}", &asked_at), ("{{expiresAt}}", &expires_at)];
        let text = |text: &str| values.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value));
        let html =
            |text: &str| values.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, &escape(value)));
        Mail {
            to: to.clone(),
            subject: template.subject.trim_end().to_owned(),
            text: text(template.text),
            html: html(template.html),
        }
    }
}

/// `22 November 2026, 22:31 UTC`
fn in_words(at: Seconds) -> String {
    let format = format_description!("[day padding:none] [month repr:long] [year], [hour]:[minute] UTC");
    let at = i64::try_from(at).ok().and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
    at.and_then(|at| at.format(format).ok()).unwrap_or_default()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

/// A mail carries a token.
impl fmt::Debug for Mail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mail").field("subject", &self.subject).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAILER: Mailer<'_> = Mailer { site_url: "https://site.example/?a&b", now: 1_795_386_698 };

    fn all() -> [Mail; 4] {
        let to = Email::parse("ada@example.com").expect("an address");
        let token = Token::new([0; 32]);
        [
            MAILER.verification(&to, &token, 86_400),
            MAILER.account_exists(&to),
            MAILER.reset(&to, &token, 3600),
            MAILER.password_changed(&to),
        ]
    }

    #[test]
    fn each_mail_says_when_it_was_asked_for_and_what_to_do_if_it_was_not_you() {
        for mail in all() {
            for body in [&mail.text, &mail.html] {
                assert!(body.contains("22 November 2026, 22:31 UTC"), "{body}");
                assert!(body.contains("If it was not you"), "{body}");
            }
        }
    }

    #[test]
    fn no_placeholder_is_left_and_a_subject_is_one_line() {
        for mail in all() {
            assert!(!format!("{}{}{}", mail.subject, mail.text, mail.html).contains("{{"), "{mail:?}");
            assert!(!mail.subject.is_empty() && !mail.subject.contains('\n'));
        }
    }

    #[test]
    fn links_carry_the_token_as_the_parameter_of_their_page() {
        let token = "A".repeat(43);
        let [verification, _, reset, _] = all();
        assert!(verification.text.contains(&format!("/verify.html?token={token}\n")));
        assert!(reset.text.contains(&format!("/resetPassword.html?resetToken={token}\n")));
        assert!(verification.text.contains("until 23 November 2026, 22:31 UTC"));
        assert!(reset.text.contains("until 22 November 2026, 23:31 UTC"));
    }

    #[test]
    fn values_are_escaped_in_html_and_only_there() {
        for mail in all() {
            assert!(mail.html.contains("https://site.example/?a&amp;b") && !mail.html.contains("?a&b"));
            assert!(mail.text.contains("https://site.example/?a&b"));
        }
    }
}
