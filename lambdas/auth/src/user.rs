//! An item of the users table as a value, and the conditional writes that change it.

use std::collections::BTreeMap;

use crate::scram::{UsedChallenges, Verifier};
use crate::throttle::{LoginThrottle, MailLog};
use crate::{Email, Seconds, Token, TokenHash};

/// How long a sign-up that is never verified is kept.
const FORGOTTEN_AFTER: Seconds = 7 * 24 * 60 * 60;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub email: Email,
    /// The developer user identifier that Cognito knows; never changes.
    pub user_id: String,
    pub password: Verifier,
    pub unverified: Option<Unverified>,
    pub reset_token: Option<Pending>,
    pub login: LoginThrottle,
    pub used_challenges: UsedChallenges,
    pub verification_mails: MailLog,
    pub account_exists_mails: MailLog,
    pub reset_mails: MailLog,
    /// Of Cognito, known from the first login on.
    pub identity_id: Option<String>,
    pub created_at: Seconds,
    pub verified_at: Option<Seconds>,
    pub password_changed_at: Option<Seconds>,
    /// Counts the writes: each is conditional on the version that it was decided over.
    pub(crate) version: u64,
}

/// A token that was mailed and not yet used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    token: TokenHash,
    expires_at: Seconds,
}

impl Pending {
    pub fn new(token: &Token, expires_at: Seconds) -> Pending {
        Pending { token: token.hash(), expires_at }
    }

    pub fn is(&self, token: &Token, now: Seconds) -> bool {
        self.token == token.hash() && now < self.expires_at
    }
}

/// What an account has until its address is confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unverified {
    pub pending: Pending,
    /// When DynamoDB may delete the item (its TTL attribute `expiresAt`).
    forgotten_at: Seconds,
}

impl Unverified {
    pub fn new(token: &Token, now: Seconds, good_for: Seconds) -> Unverified {
        Unverified { pending: Pending::new(token, now + good_for), forgotten_at: now + FORGOTTEN_AFTER }
    }
}

/// The value of an attribute: DynamoDB's S, N, or L of N.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Text(String),
    Number(u64),
    Numbers(Vec<u64>),
}

/// The hash key of the table, and of both indexes the name of their key attribute.
pub const EMAIL: &str = "email";
pub const VERSION: &str = "version";
pub const UNVERIFIED: &str = "unverified";
pub const RESET_TOKEN: &str = "resetToken";

/// An item that this program did not write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an item of the users table lacks {0} or holds it in another form")]
pub struct CorruptItem(&'static str);

impl User {
    pub fn new(email: Email, user_id: [u8; 16], password: Verifier, unverified: Unverified, now: Seconds) -> User {
        User {
            email,
            user_id: user_id.iter().map(|byte| format!("{byte:02x}")).collect(),
            password,
            unverified: Some(unverified),
            reset_token: None,
            login: LoginThrottle::default(),
            used_challenges: UsedChallenges::default(),
            verification_mails: MailLog::default(),
            account_exists_mails: MailLog::default(),
            reset_mails: MailLog::default(),
            identity_id: None,
            created_at: now,
            verified_at: None,
            password_changed_at: None,
            version: 1,
        }
    }

    pub fn is_verified(&self) -> bool {
        self.unverified.is_none()
    }

    /// With another password, which ends pending resets and forgives failed logins.
    pub(crate) fn with_password(&self, password: Verifier, now: Seconds) -> User {
        User {
            password,
            reset_token: None,
            login: LoginThrottle::default(),
            password_changed_at: Some(now),
            ..self.clone()
        }
    }

    /// Writes an account where there is none.
    pub fn create(self) -> Write {
        Write { email: self.email.clone(), expected: Expected::Absent, remove: Vec::new(), set: self.attributes() }
    }

    /// Changes this account to `next`, provided that it is still as it was read. Answers the write, and the account as
    /// it is after that.
    pub fn change(&self, next: User) -> (Write, User) {
        let next = User { version: self.version + 1, ..next };
        let (old, mut set) = (self.attributes(), next.attributes());
        let remove = old.keys().copied().filter(|name| !set.contains_key(name)).collect();
        set.retain(|name, value| old.get(name) != Some(value));
        (Write { email: self.email.clone(), expected: Expected::Version(self.version), set, remove }, next)
    }

    /// All attributes but the key.
    fn attributes(&self) -> BTreeMap<&'static str, Value> {
        let text = |text: &str| Some(Value::Text(text.to_owned()));
        let number = |number: Seconds| Some(Value::Number(number));
        let mails = |log: &MailLog| (!log.0.is_empty()).then(|| Value::Numbers(log.0.clone()));
        let unverified = self.unverified.as_ref();
        let reset = self.reset_token.as_ref();
        [
            (VERSION, number(self.version)),
            ("userId", text(&self.user_id)),
            ("password", text(&self.password.to_text())),
            (UNVERIFIED, unverified.and_then(|unverified| text(unverified.pending.token.as_str()))),
            ("unverifiedExpiresAt", unverified.and_then(|unverified| number(unverified.pending.expires_at))),
            ("expiresAt", unverified.and_then(|unverified| number(unverified.forgotten_at))),
            (RESET_TOKEN, reset.and_then(|reset| text(reset.token.as_str()))),
            ("resetTokenExpiresAt", reset.and_then(|reset| number(reset.expires_at))),
            ("loginFailures", number(self.login.failures)),
            ("loginAllowedAt", number(self.login.allowed_at)),
            ("usedChallenges", self.used_challenges.to_text().map(Value::Text)),
            ("verificationMails", mails(&self.verification_mails)),
            ("accountExistsMails", mails(&self.account_exists_mails)),
            ("resetMails", mails(&self.reset_mails)),
            ("identityId", self.identity_id.as_deref().and_then(text)),
            ("createdAt", number(self.created_at)),
            ("verifiedAt", self.verified_at.and_then(number)),
            ("passwordChangedAt", self.password_changed_at.and_then(number)),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
    }

    /// Reads an item; attributes that are not ours are passed over.
    pub fn from_attributes(get: impl Fn(&str) -> Option<Value>) -> Result<User, CorruptItem> {
        let text = |name| match get(name) {
            Some(Value::Text(text)) => Ok(Some(text)),
            None => Ok(None),
            Some(_) => Err(CorruptItem(name)),
        };
        let number = |name| match get(name) {
            Some(Value::Number(number)) => Ok(Some(number)),
            None => Ok(None),
            Some(_) => Err(CorruptItem(name)),
        };
        let mails = |name| match get(name) {
            Some(Value::Numbers(sent)) => Ok(MailLog(sent)),
            None => Ok(MailLog::default()),
            Some(_) => Err(CorruptItem(name)),
        };
        let pending = |token_name, expires_name| -> Result<Option<Pending>, CorruptItem> {
            let Some(token) = text(token_name)? else { return Ok(None) };
            let expires_at = number(expires_name)?.ok_or(CorruptItem(expires_name))?;
            Ok(Some(Pending { token: TokenHash::stored(&token), expires_at }))
        };
        let must = |name: &'static str| move || CorruptItem(name);

        let unverified = match pending(UNVERIFIED, "unverifiedExpiresAt")? {
            None => None,
            Some(pending) => {
                let forgotten_at = number("expiresAt")?.ok_or_else(must("expiresAt"))?;
                Some(Unverified { pending, forgotten_at })
            }
        };
        Ok(User {
            email: text(EMAIL)?.and_then(|email| Email::parse(&email).ok()).ok_or_else(must(EMAIL))?,
            user_id: text("userId")?.ok_or_else(must("userId"))?,
            password: text("password")?.and_then(|text| Verifier::parse(&text)).ok_or_else(must("password"))?,
            unverified,
            reset_token: pending(RESET_TOKEN, "resetTokenExpiresAt")?,
            login: LoginThrottle {
                failures: number("loginFailures")?.unwrap_or_default(),
                allowed_at: number("loginAllowedAt")?.unwrap_or_default(),
            },
            used_challenges: text("usedChallenges")?.map(|text| UsedChallenges::stored(&text)).unwrap_or_default(),
            verification_mails: mails("verificationMails")?,
            account_exists_mails: mails("accountExistsMails")?,
            reset_mails: mails("resetMails")?,
            identity_id: text("identityId")?,
            created_at: number("createdAt")?.unwrap_or_default(),
            verified_at: number("verifiedAt")?,
            password_changed_at: number("passwordChangedAt")?,
            version: number(VERSION)?.ok_or_else(must(VERSION))?,
        })
    }
}

/// One update of one item, which happens whole or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    pub email: Email,
    pub expected: Expected,
    pub set: BTreeMap<&'static str, Value>,
    pub remove: Vec<&'static str>,
}

/// What must hold of the item for a write to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    Absent,
    Version(u64),
    /// A decoy: looks like a write from outside, and never happens.
    Never,
}

impl Write {
    /// For an address that nothing may be written for, so that it costs the same calls as one where something is.
    pub fn decoy(email: &Email) -> Write {
        let set = BTreeMap::from([(VERSION, Value::Number(0))]);
        Write { email: email.clone(), expected: Expected::Never, set, remove: Vec::new() }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::password::Password;
    use crate::scram::StageKey;

    pub(crate) const NOW: Seconds = 1_800_000_000;

    pub(crate) fn email() -> Email {
        Email::parse("ada@example.com").expect("an address")
    }

    pub(crate) fn key() -> StageKey {
        StageKey::parse("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").expect("a key")
    }

    pub(crate) fn verifier(password: &str) -> Verifier {
        let password = Password::prepare(password).expect("a password");
        // The decisions look at a verifier, not into it: the real count is kept where the derivation is tested.
        Verifier::derive(&key(), &email(), &password, 1)
    }

    pub(crate) fn unverified_user() -> User {
        let unverified = Unverified::new(&Token::new([1; 32]), NOW, 86_400);
        User::new(email(), [3; 16], verifier("violet tram scarf monsoon"), unverified, NOW)
    }

    pub(crate) fn verified_user() -> User {
        User { unverified: None, verified_at: Some(NOW), ..unverified_user() }
    }

    /// The table: applies a write to an item as DynamoDB would.
    pub(crate) fn apply(item: Option<User>, write: &Write) -> Option<User> {
        let matches = match (write.expected, &item) {
            (Expected::Absent, None) => true,
            (Expected::Version(version), Some(user)) => user.version == version,
            _ => false,
        };
        if !matches {
            return None;
        }
        let mut attributes = item.map(|user| user.attributes()).unwrap_or_default();
        attributes.extend(write.set.clone());
        attributes.retain(|name, _| !write.remove.contains(name));
        let read = |name: &str| match name {
            EMAIL => Some(Value::Text(write.email.as_str().to_owned())),
            name => attributes.get(name).cloned(),
        };
        Some(User::from_attributes(read).expect("a sound item"))
    }

    fn full_user() -> User {
        User {
            reset_token: Some(Pending::new(&Token::new([2; 32]), NOW + 3600)),
            login: LoginThrottle { failures: 7, allowed_at: NOW + 4 },
            used_challenges: UsedChallenges::stored("1800000000.abc"),
            reset_mails: MailLog(vec![NOW - 5, NOW]),
            identity_id: Some("eu-west-1:1".into()),
            password_changed_at: Some(NOW),
            ..verified_user()
        }
    }

    #[test]
    fn an_account_is_read_as_it_was_written() {
        for user in [unverified_user(), verified_user(), full_user()] {
            assert_eq!(apply(None, &user.clone().create()), Some(user));
        }
    }

    #[test]
    fn a_change_writes_only_what_differs() {
        let user = full_user();
        let (write, next) = user.change(user.with_password(verifier("other"), NOW + 9));
        assert_eq!(write.expected, Expected::Version(1));
        assert_eq!(write.remove, [RESET_TOKEN, "resetTokenExpiresAt"]);
        let set: Vec<_> = write.set.keys().copied().collect();
        assert_eq!(set, ["loginAllowedAt", "loginFailures", "password", "passwordChangedAt", "version"]);
        assert_eq!(apply(Some(user), &write), Some(next));
    }

    #[test]
    fn of_two_changes_decided_over_the_same_item_one_wins() {
        let user = full_user();
        let (first, _) = user.change(user.with_password(verifier("one"), NOW));
        let (second, _) = user.change(user.with_password(verifier("two"), NOW));
        let after_first = apply(Some(user), &first).expect("written");
        assert_eq!(apply(Some(after_first), &second), None);
    }

    #[test]
    fn of_two_sign_ups_of_a_new_address_one_wins() {
        let user = apply(None, &unverified_user().create()).expect("written");
        assert!(apply(Some(user), &unverified_user().create()).is_none());
    }

    #[test]
    fn a_decoy_never_happens() {
        assert!(apply(None, &Write::decoy(&email())).is_none());
        assert!(apply(Some(full_user()), &Write::decoy(&email())).is_none());
    }

    #[test]
    fn an_item_that_is_not_ours_is_refused_and_not_guessed_at() {
        let attributes = full_user().attributes();
        for broken in ["userId", "password", VERSION, "resetTokenExpiresAt"] {
            let read = |name: &str| match name {
                EMAIL => Some(Value::Text("ada@example.com".into())),
                name if name == broken => None,
                name => attributes.get(name).cloned(),
            };
            assert_eq!(User::from_attributes(read), Err(CorruptItem(broken)));
        }
    }
}
