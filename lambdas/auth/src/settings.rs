//! What a stage tells its functions: one type writes the environment and reads it, so that names can't drift.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Function;
use Function::{ChangePassword, CreateUser, Login, LostPassword, ResetPassword};

/// The settings of a stage. `V` is `String` in a function, and may be an output that is not yet known in the program.
///
/// `from_env` leaves what its function does not need empty (texts) or at its default (numbers).
#[derive(Clone, Default)]
pub struct Settings<V = String> {
    pub users_table: V,
    pub identity_pool_id: V,
    pub developer_provider: V,
    /// The address that mails come from.
    pub sender: V,
    /// Where the site is, without a slash at the end.
    pub site_url: V,
    /// 32 random bytes in base64url without padding. Secret, and never to be changed: every salt depends on it.
    pub challenge_key: V,
    pub limits: Limits,
}

/// The numbers of a stage. In a settings file only those that differ are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Limits {
    /// Of PBKDF2. Fixed once the stage has users: those of unknown addresses would differ from theirs.
    pub iterations: u64,
    /// In code points.
    pub password_min_length: u64,
    /// In code points.
    pub password_max_length: u64,
    /// Of zxcvbn, 0 to 4.
    pub password_min_score: u64,
    /// How long a login lasts; Cognito takes at most 86,400.
    pub session_seconds: u64,
    pub verification_seconds: u64,
    pub reset_seconds: u64,
    pub challenge_seconds: u64,
    /// createUser and lostPassword answer no sooner than this after their start.
    pub answer_after_ms: u64,
    /// The budget of the whole stage, notices of a change apart.
    pub mails_per_hour: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            iterations: 600_000,
            password_min_length: 12,
            password_max_length: 256,
            password_min_score: 3,
            session_seconds: 8 * 60 * 60,
            verification_seconds: 24 * 60 * 60,
            reset_seconds: 60 * 60,
            challenge_seconds: 60,
            answer_after_ms: 1000,
            mails_per_hour: 200,
        }
    }
}

impl Limits {
    /// Whether the service can work with these numbers, and keep what it promises.
    pub fn check(&self) -> Result<(), &'static str> {
        let rules = [
            // OWASP Password Storage Cheat Sheet; the pages refuse a server that asks for less than 4096 (RFC 7677).
            ((4096..=10_000_000).contains(&self.iterations), "iterations must be 4096 to 10000000"),
            (self.password_min_length >= 8, "passwordMinLength must be 8 or more"),
            (
                (self.password_min_length..=1024).contains(&self.password_max_length),
                "passwordMaxLength must be passwordMinLength to 1024",
            ),
            (self.password_min_score <= 4, "passwordMinScore must be 0 to 4"),
            ((60..=86_400).contains(&self.session_seconds), "sessionSeconds must be 60 to 86400"),
            (self.verification_seconds >= 60, "verificationSeconds must be 60 or more"),
            (self.reset_seconds >= 60, "resetSeconds must be 60 or more"),
            ((10..=600).contains(&self.challenge_seconds), "challengeSeconds must be 10 to 600"),
            (self.answer_after_ms <= 5000, "answerAfterMs must be at most 5000"),
            (self.mails_per_hour >= 1, "mailsPerHour must be 1 or more"),
        ];
        rules.iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, wrong)| Err(wrong))
    }
}

/// A setting that the environment lacks, or holds in a form that can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the environment variable {0} is missing or unreadable")]
pub struct MissingSetting(pub &'static str);

enum Field<'a, V> {
    Text(&'a mut V),
    Number(&'a mut u64),
}

const ALL: &[Function] = &Function::ALL;
const MAILING: &[Function] = &[CreateUser, ChangePassword, LostPassword, ResetPassword];
const JUDGING: &[Function] = &[CreateUser, ChangePassword, ResetPassword];
const PROVING: &[Function] = &[CreateUser, Login, ChangePassword, ResetPassword];
const KNOWING_MEMBERS: &[Function] = &[Login, ChangePassword];
const ASKED_BY_STRANGERS: &[Function] = &[CreateUser, LostPassword];

impl<V> Settings<V> {
    /// Every setting: its name in the environment, its place here, and the functions that get it.
    fn fields(&mut self) -> [(&'static str, Field<'_, V>, &'static [Function]); 16] {
        use Field::{Number, Text};
        let limits = &mut self.limits;
        [
            ("PORTCULLIS_USERS_TABLE", Text(&mut self.users_table), ALL),
            ("PORTCULLIS_IDENTITY_POOL_ID", Text(&mut self.identity_pool_id), KNOWING_MEMBERS),
            ("PORTCULLIS_DEVELOPER_PROVIDER", Text(&mut self.developer_provider), &[Login]),
            ("PORTCULLIS_SENDER", Text(&mut self.sender), MAILING),
            ("PORTCULLIS_SITE_URL", Text(&mut self.site_url), MAILING),
            ("PORTCULLIS_CHALLENGE_KEY", Text(&mut self.challenge_key), PROVING),
            ("PORTCULLIS_ITERATIONS", Number(&mut limits.iterations), PROVING),
            ("PORTCULLIS_PASSWORD_MIN_LENGTH", Number(&mut limits.password_min_length), JUDGING),
            ("PORTCULLIS_PASSWORD_MAX_LENGTH", Number(&mut limits.password_max_length), JUDGING),
            ("PORTCULLIS_PASSWORD_MIN_SCORE", Number(&mut limits.password_min_score), JUDGING),
            ("PORTCULLIS_SESSION_SECONDS", Number(&mut limits.session_seconds), &[Login]),
            ("PORTCULLIS_VERIFICATION_SECONDS", Number(&mut limits.verification_seconds), ASKED_BY_STRANGERS),
            ("PORTCULLIS_RESET_SECONDS", Number(&mut limits.reset_seconds), &[LostPassword]),
            ("PORTCULLIS_CHALLENGE_SECONDS", Number(&mut limits.challenge_seconds), &[Login]),
            ("PORTCULLIS_ANSWER_AFTER_MS", Number(&mut limits.answer_after_ms), ASKED_BY_STRANGERS),
            ("PORTCULLIS_MAILS_PER_HOUR", Number(&mut limits.mails_per_hour), ASKED_BY_STRANGERS),
        ]
    }
}

impl<V: Clone + From<String>> Settings<V> {
    /// The environment of a function: what it needs, and nothing else.
    pub fn to_env(&self, function: Function) -> BTreeMap<&'static str, V> {
        let mut settings = self.clone();
        let fields = settings.fields().into_iter();
        fields
            .filter(|(_, _, functions)| functions.contains(&function))
            .map(|(name, field, _)| match field {
                Field::Text(text) => (name, text.clone()),
                Field::Number(number) => (name, V::from(number.to_string())),
            })
            .collect()
    }
}

impl Settings {
    /// Reads what `to_env` wrote for this function.
    pub fn from_env(function: Function, lookup: impl Fn(&str) -> Option<String>) -> Result<Settings, MissingSetting> {
        let mut settings = Settings::default();
        for (name, field, functions) in settings.fields() {
            if !functions.contains(&function) {
                continue;
            }
            let value = lookup(name).filter(|value| !value.is_empty()).ok_or(MissingSetting(name))?;
            match field {
                Field::Text(text) => *text = value,
                Field::Number(number) => *number = value.parse().map_err(|_| MissingSetting(name))?,
            }
        }
        Ok(settings)
    }
}

impl<V: fmt::Debug> fmt::Debug for Settings<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("users_table", &self.users_table)
            .field("identity_pool_id", &self.identity_pool_id)
            .field("developer_provider", &self.developer_provider)
            .field("sender", &self.sender)
            .field("site_url", &self.site_url)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            users_table: "users".into(),
            identity_pool_id: "pool".into(),
            developer_provider: "login.portcullis".into(),
            sender: "sender@example.com".into(),
            site_url: "https://example.com".into(),
            challenge_key: "a secret".into(),
            limits: Limits { session_seconds: 60, ..Limits::default() },
        }
    }

    #[test]
    fn a_function_reads_what_the_program_wrote() {
        for function in Function::ALL {
            let env = settings().to_env(function);
            let read = Settings::from_env(function, |name| env.get(name).cloned()).expect("complete");
            assert_eq!(read.to_env(function), env);
        }
    }

    #[test]
    fn the_challenge_key_goes_only_where_passwords_are_proven_or_stored() {
        let with_key = Function::ALL.map(|f| settings().to_env(f).contains_key("PORTCULLIS_CHALLENGE_KEY"));
        assert_eq!(with_key, [true, false, true, true, false, true]);
    }

    #[test]
    fn a_missing_or_unreadable_setting_is_named() {
        for (name, value) in [("PORTCULLIS_SENDER", ""), ("PORTCULLIS_RESET_SECONDS", "soon")] {
            let mut env = settings().to_env(Function::LostPassword);
            env.insert(name, value.into());
            let read = Settings::from_env(Function::LostPassword, |name| env.get(name).cloned());
            assert_eq!(read.expect_err("unreadable"), MissingSetting(name));
        }
    }

    #[test]
    fn debug_does_not_show_the_challenge_key() {
        assert!(!format!("{:?}", settings()).contains("a secret"));
    }
}
