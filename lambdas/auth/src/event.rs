//! The events of the functions, parsed from raw bytes: exactly these fields, of bounded length, in a JSON object.

use serde::{Deserialize, Deserializer};

use crate::scram::{ClientFinal, ClientFirst};
use crate::{Email, Token};

/// An event of another shape than the function takes. Says no more, since what it says reaches callers and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("The event does not have the shape that this function takes.")]
pub struct BadRequest;

const LONGEST_EVENT: usize = 16 * 1024;
const LONGEST_EMAIL: usize = 512;
const LONGEST_PASSWORD: usize = 4096;
const LONGEST_TOKEN: usize = 128;
const LONGEST_MESSAGE: usize = 1024;

/// `{email, password}`: as typed, since an unacceptable one is a refusal with reasons.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateUser {
    pub email: String,
    pub password: String,
}

impl CreateUser {
    pub fn parse(event: &[u8]) -> Result<CreateUser, BadRequest> {
        let event: CreateUser = object(event)?;
        bounded(&event.email, LONGEST_EMAIL)?;
        bounded(&event.password, LONGEST_PASSWORD)?;
        Ok(event)
    }
}

/// `{token}`: `None` when it can't be a token, such as one that lost its end.
pub struct VerifyUser {
    pub token: Option<Token>,
}

impl VerifyUser {
    pub fn parse(event: &[u8]) -> Result<VerifyUser, BadRequest> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Event {
            token: String,
        }
        let Event { token } = object(event)?;
        bounded(&token, LONGEST_TOKEN)?;
        Ok(VerifyUser { token: Token::parse(&token) })
    }
}

/// `{clientFirst}` or `{clientFirst, clientFinal}`.
pub enum Login {
    First(ClientFirst),
    Final(Box<ClientFinal>),
}

impl Login {
    pub fn parse(event: &[u8]) -> Result<Login, BadRequest> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields, rename_all = "camelCase")]
        struct Event {
            client_first: String,
            #[serde(default, deserialize_with = "present")]
            client_final: Option<String>,
        }
        let event: Event = object(event)?;
        bounded(&event.client_first, LONGEST_MESSAGE)?;
        let first = ClientFirst::parse(&event.client_first).map_err(|_| BadRequest)?;
        let Some(client_final) = event.client_final else { return Ok(Login::First(first)) };
        bounded(&client_final, LONGEST_MESSAGE)?;
        let last = ClientFinal::parse(first, &client_final).map_err(|_| BadRequest)?;
        Ok(Login::Final(Box::new(last)))
    }
}

/// `{email, oldPassword, newPassword}`.
pub struct ChangePassword {
    pub email: Email,
    pub old_password: String,
    pub new_password: String,
}

impl ChangePassword {
    pub fn parse(event: &[u8]) -> Result<ChangePassword, BadRequest> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields, rename_all = "camelCase")]
        struct Event {
            email: String,
            old_password: String,
            new_password: String,
        }
        let Event { email, old_password, new_password } = object(event)?;
        bounded(&old_password, LONGEST_PASSWORD)?;
        bounded(&new_password, LONGEST_PASSWORD)?;
        Ok(ChangePassword { email: address(&email)?, old_password, new_password })
    }
}

/// `{email}`.
pub struct LostPassword {
    pub email: Email,
}

impl LostPassword {
    pub fn parse(event: &[u8]) -> Result<LostPassword, BadRequest> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Event {
            email: String,
        }
        let Event { email } = object(event)?;
        Ok(LostPassword { email: address(&email)? })
    }
}

/// `{resetToken, password}`: `None` when it can't be a token.
pub struct ResetPassword {
    pub reset_token: Option<Token>,
    pub password: String,
}

impl ResetPassword {
    pub fn parse(event: &[u8]) -> Result<ResetPassword, BadRequest> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields, rename_all = "camelCase")]
        struct Event {
            reset_token: String,
            password: String,
        }
        let Event { reset_token, password } = object(event)?;
        bounded(&reset_token, LONGEST_TOKEN)?;
        bounded(&password, LONGEST_PASSWORD)?;
        Ok(ResetPassword { reset_token: Token::parse(&reset_token), password })
    }
}

fn object<'de, T: Deserialize<'de>>(event: &'de [u8]) -> Result<T, BadRequest> {
    // serde would take an array of the values for a struct as well.
    let is_object = event.trim_ascii_start().first() == Some(&b'{');
    if !is_object || event.len() > LONGEST_EVENT {
        return Err(BadRequest);
    }
    serde_json::from_slice(event).map_err(|_| BadRequest)
}

fn bounded(text: &str, longest: usize) -> Result<(), BadRequest> {
    if text.len() <= longest { Ok(()) } else { Err(BadRequest) }
}

fn address(text: &str) -> Result<Email, BadRequest> {
    bounded(text, LONGEST_EMAIL)?;
    Email::parse(text).map_err(|_| BadRequest)
}

/// A field that may be left out, and may not be null.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    String::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_of_the_right_shape_is_taken() {
        assert!(CreateUser::parse(br#" {"email": "x", "password": "y"} "#).is_ok());
        assert!(VerifyUser::parse(br#"{"token":"x"}"#).is_ok_and(|event| event.token.is_none()));
        assert!(LostPassword::parse(br#"{"email":" Ada@example.com"}"#).is_ok());
        assert!(ResetPassword::parse(br#"{"resetToken":"x","password":""}"#).is_ok());
        assert!(ChangePassword::parse(br#"{"email":"a@b.cd","oldPassword":"","newPassword":""}"#).is_ok());
        let first = br#"{"clientFirst":"n,,n=ada@example.com,r=0123456789abcdefghij"}"#;
        assert!(matches!(Login::parse(first), Ok(Login::First(_))));
    }

    #[test]
    fn any_other_shape_is_a_bad_request() {
        let long = format!(r#"{{"email":"{}","password":""}}"#, "a".repeat(513));
        let huge = format!(r#"{{"email":"a","password":"b"{}}}"#, " ".repeat(LONGEST_EVENT));
        for event in [
            "",
            "null",
            "{}",
            "[]",
            "1",
            "\"\"",
            "{",
            "not JSON",
            r#"["a","b"]"#,
            r#"{"email":"a"}"#,
            r#"{"email":"a","password":1}"#,
            r#"{"email":null,"password":"b"}"#,
            r#"{"email":"a","password":"b","x":1}"#,
            r#"{"email":"a","email":"a","password":"b"}"#,
            r#"{"email":"a","password":"b"} x"#,
            r#"{"email":"a","password":"\ud800"}"#,
            r#"{"Email":"a","password":"b"}"#,
            &long,
            &huge,
        ] {
            assert!(CreateUser::parse(event.as_bytes()).is_err(), "{event}");
        }
        assert!(CreateUser::parse(b"{\"email\":\"\xff\",\"password\":\"\"}").is_err());
    }

    #[test]
    fn login_takes_no_null_and_no_final_message_that_does_not_answer_the_first() {
        let first = r#""clientFirst":"n,,n=ada@example.com,r=0123456789abcdefghij""#;
        for last in ["null", "\"\"", "\"c=biws,r=x,p=AA==\"", "{}"] {
            assert!(Login::parse(format!("{{{first},\"clientFinal\":{last}}}").as_bytes()).is_err(), "{last}");
        }
        assert!(Login::parse(br#"{"clientFinal":"x"}"#).is_err());
    }

    #[test]
    fn a_malformed_address_is_a_bad_request_where_no_reasons_are_given() {
        assert!(LostPassword::parse(br#"{"email":"ada"}"#).is_err());
        assert!(ChangePassword::parse(br#"{"email":"ada","oldPassword":"","newPassword":""}"#).is_err());
    }
}
