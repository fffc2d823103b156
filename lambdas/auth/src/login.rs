//! Logging in by proving that the password is known.

use serde::Serialize;

use crate::Seconds;
use crate::scram::{Challenge, ClientFinal, ClientFirst, StageKey, Verifier};
use crate::settings::Limits;
use crate::throttle::LoginThrottle;
use crate::user::{User, Write};

/// `{serverFirst}`, or `{login: true, serverFinal, identityId, token}`, or `{login: false}`.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum LoginResult {
    #[serde(rename_all = "camelCase")]
    Challenged {
        server_first: String,
    },
    #[serde(rename_all = "camelCase")]
    LoggedIn {
        login: True,
        server_final: String,
        identity_id: String,
        token: String,
    },
    Refused {
        login: False,
    },
}

impl LoginResult {
    pub fn refused() -> LoginResult {
        LoginResult::Refused { login: False }
    }
}

/// Always `true`.
#[derive(Clone, Copy, Debug)]
pub struct True;
/// Always `false`.
#[derive(Clone, Copy, Debug)]
pub struct False;

impl Serialize for True {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bool(true)
    }
}

impl Serialize for False {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bool(false)
    }
}

/// The challenge for anybody who asks.
pub fn challenge(
    user: Option<&User>,
    first: &ClientFirst,
    key: &StageKey,
    limits: &Limits,
    now: Seconds,
    random: [u8; 16],
) -> String {
    match user {
        Some(user) => first.challenge(key, &user.password, now, random),
        None => first.challenge(key, &Verifier::decoy(key, first.email(), limits.iterations), now, random),
    }
}

/// An answer to a challenge, before the proof in it is compared.
pub struct Attempt {
    /// Counts the attempt and burns the challenge. When it does not happen, the attempt fails whatever it proves; and it
    /// never happens for unknown, unverified and throttled accounts and burned challenges.
    pub write: Write,
    /// What the proof is compared with.
    pub verifier: Verifier,
    /// The account once the write has happened.
    pub counted: Option<User>,
}

pub fn attempt(
    user: Option<&User>,
    last: &ClientFinal,
    challenge: &Challenge,
    key: &StageKey,
    limits: &Limits,
    now: Seconds,
) -> Attempt {
    let may = |user: &&User| user.is_verified() && user.login.allows(now) && !user.used_challenges.contains(challenge);
    match user.filter(may) {
        Some(user) => {
            let (write, counted) = user.change(User {
                login: user.login.counted(now),
                used_challenges: user.used_challenges.with(challenge, now, limits.challenge_seconds),
                ..user.clone()
            });
            Attempt { write, verifier: user.password.clone(), counted: Some(counted) }
        }
        None => Attempt {
            write: Write::decoy(last.email()),
            verifier: Verifier::decoy(key, last.email(), limits.iterations),
            counted: None,
        },
    }
}

/// The account after a proof that fits: failures are forgiven, and the identity that Cognito gave is kept. `None` when
/// the password has been changed in the meantime.
pub fn logged_in(user: &User, proven: &Verifier, identity_id: Option<&str>) -> Option<User> {
    let identity_id = identity_id.map(str::to_owned).or_else(|| user.identity_id.clone());
    let next = User { login: LoginThrottle::default(), identity_id, ..user.clone() };
    (user.password == *proven).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Email;
    use crate::user::Expected;
    use crate::user::tests::{NOW, apply, email, key, unverified_user, verified_user};
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;

    fn first(email: &Email) -> ClientFirst {
        ClientFirst::parse(&format!("n,,n={},r=0123456789abcdefghij", email.as_str())).expect("a message")
    }

    /// An answer whose proof does not matter here.
    fn answer(random: [u8; 16]) -> (ClientFinal, Challenge) {
        let server_first = challenge(None, &first(&email()), &key(), &Limits::default(), NOW, random);
        let nonce = server_first[2..].split(',').next().expect("a nonce");
        let text = format!("c=biws,r={nonce},p={}", BASE64_STANDARD.encode([0; 32]));
        let last = ClientFinal::parse(first(&email()), &text).expect("a message");
        let challenge = last.challenge(&key(), NOW, 60).expect("fresh");
        (last, challenge)
    }

    fn attempted(user: Option<&User>, random: [u8; 16], now: Seconds) -> Attempt {
        let (last, challenge) = answer(random);
        attempt(user, &last, &challenge, &key(), &Limits::default(), now)
    }

    #[test]
    fn the_challenge_is_the_same_for_known_unverified_and_unknown_addresses() {
        let limits = Limits { iterations: 1, ..Limits::default() };
        let challenge = |user: Option<&User>| challenge(user, &first(&email()), &key(), &limits, NOW, [5; 16]);
        assert_eq!(challenge(None), challenge(Some(&verified_user())));
        assert_eq!(challenge(None), challenge(Some(&unverified_user())));
    }

    #[test]
    fn an_attempt_is_counted_and_its_challenge_burned_before_the_proof_is_compared() {
        let user = verified_user();
        let attempt = attempted(Some(&user), [5; 16], NOW);
        let counted = apply(Some(user), &attempt.write).expect("written");
        assert_eq!(counted.login, LoginThrottle::default().counted(NOW));
        assert!(counted.used_challenges.contains(&answer([5; 16]).1));
        assert_eq!(attempt.counted, Some(counted));
    }

    #[test]
    fn of_two_answers_to_one_challenge_one_counts() {
        let user = verified_user();
        let (one, other) = (attempted(Some(&user), [5; 16], NOW), attempted(Some(&user), [5; 16], NOW));
        let after = apply(Some(user), &one.write).expect("written");
        assert!(apply(Some(after.clone()), &other.write).is_none());
        assert_eq!(attempted(Some(&after), [5; 16], NOW).write.expected, Expected::Never);
    }

    #[test]
    fn nothing_is_written_for_unknown_unverified_and_throttled_accounts() {
        let login = (0..5).fold(LoginThrottle::default(), |login, _| login.counted(NOW));
        let throttled = User { login, ..verified_user() };
        for user in [None, Some(&unverified_user()), Some(&throttled)] {
            let attempt = attempted(user, [5; 16], NOW);
            assert_eq!(attempt.write, Write::decoy(&email()));
            assert_eq!(answer([5; 16]).0.prove(&attempt.verifier), None);
        }
        assert!(attempted(Some(&throttled), [5; 16], NOW + 1).counted.is_some());
    }

    #[test]
    fn a_proof_that_fits_forgives_failures_and_keeps_the_identity() {
        let user = User { login: LoginThrottle::default().counted(NOW), ..verified_user() };
        let after = logged_in(&user, &user.password, Some("eu-west-1:1")).expect("logged in");
        assert_eq!((after.login, after.identity_id.as_deref()), (LoginThrottle::default(), Some("eu-west-1:1")));
        let without = logged_in(&after, &user.password, None).expect("logged in");
        assert_eq!(without.identity_id, after.identity_id);
    }

    #[test]
    fn the_three_results_have_their_shapes() {
        let json = |result: LoginResult| serde_json::to_string(&result).expect("JSON");
        assert_eq!(json(LoginResult::Challenged { server_first: "r=".into() }), r#"{"serverFirst":"r="}"#);
        assert_eq!(json(LoginResult::refused()), r#"{"login":false}"#);
        let logged_in = LoginResult::LoggedIn {
            login: True,
            server_final: "v=".into(),
            identity_id: "i".into(),
            token: "t".into(),
        };
        assert_eq!(json(logged_in), r#"{"login":true,"serverFinal":"v=","identityId":"i","token":"t"}"#);
    }
}
