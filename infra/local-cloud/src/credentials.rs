//! Keys of callers: the administrator's, and temporary ones of roles. A temporary key needs no record: its session token
//! carries the session under the cloud's own MAC, and its secret is derived from the token, so that sessions outlive
//! `kill -9` and issuing one writes nothing.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use time::OffsetDateTime;

use crate::CloudError;
use crate::call::{CognitoIdentity, Principal, RoleSession};
use crate::store::Store;

/// An access key that does not expire.
#[derive(Clone, Serialize, Deserialize)]
pub struct AccessKey {
    pub access_key_id: String,
    pub secret_access_key: String,
}

impl std::fmt::Debug for AccessKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "AccessKey({})", self.access_key_id)
    }
}

/// What STS gives out for a session.
#[derive(Clone)]
pub(crate) struct TemporaryCredentials {
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: String,
    pub(crate) session_token: String,
    pub(crate) expires_at: OffsetDateTime,
}

/// A key found for a caller: the secret to check the signature with, and whom it stands for.
pub(crate) struct Found {
    pub(crate) secret_access_key: String,
    pub(crate) principal: Principal,
}

/// Why a key stands for nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// No such key, a forged token, or none where one is needed: AWS does not tell these apart either.
    Unknown,
    Expired,
}

pub(crate) struct Credentials {
    admin: AccessKey,
    master: [u8; 32],
}

impl Credentials {
    /// Makes the keys on the first start, and keeps them.
    pub(crate) fn load(store: &Store) -> Result<Self, CloudError> {
        let admin = match store.get("secret", "admin")? {
            Some(admin) => admin,
            None => {
                let admin = AccessKey {
                    access_key_id: format!("AKIA{}", key_id(&random::<16>())),
                    secret_access_key: URL_SAFE_NO_PAD.encode(random::<30>()),
                };
                store.put("secret", "admin", &admin)?;
                admin
            }
        };
        Ok(Self { admin, master: secret(store, "sessions")? })
    }

    pub(crate) fn admin(&self) -> AccessKey {
        self.admin.clone()
    }

    /// Credentials of a role's session, good from now for `lifetime`.
    pub(crate) fn issue(&self, session: &RoleSession, lifetime: Duration) -> TemporaryCredentials {
        let access_key_id = format!("ASIA{}", key_id(&random::<16>()));
        let expires_at = OffsetDateTime::now_utc() + lifetime;
        let claims = Claims {
            key: access_key_id.clone(),
            role: session.role_arn.clone(),
            session: session.session_name.clone(),
            expires: expires_at.unix_timestamp(),
            identity: session.cognito.as_ref().map(|it| (it.identity_id.clone(), it.pool_id.clone(), it.guest)),
        };
        let mut token = serde_json::to_vec(&claims).unwrap_or_default();
        let tag = self.mac(b"token", &token).finalize().into_bytes();
        let secret_access_key = self.secret_of(&token);
        token.extend_from_slice(&tag);
        TemporaryCredentials {
            access_key_id,
            secret_access_key,
            session_token: URL_SAFE_NO_PAD.encode(token),
            expires_at,
        }
    }

    /// The secret and the principal of a key, as it stands at `now`.
    pub(crate) fn lookup(
        &self,
        access_key_id: &str,
        session_token: Option<&str>,
        now: OffsetDateTime,
    ) -> Result<Found, Refused> {
        let Some(session_token) = session_token else {
            // Access key ids are public; only their secrets are compared in constant time.
            if access_key_id != self.admin.access_key_id {
                return Err(Refused::Unknown);
            }
            return Ok(Found { secret_access_key: self.admin.secret_access_key.clone(), principal: Principal::Admin });
        };
        let token = URL_SAFE_NO_PAD.decode(session_token).map_err(|_| Refused::Unknown)?;
        let (claims, tag) = token.split_last_chunk::<32>().ok_or(Refused::Unknown)?;
        self.mac(b"token", claims).verify_slice(tag).map_err(|_| Refused::Unknown)?;
        let secret_access_key = self.secret_of(claims);
        let claims: Claims = serde_json::from_slice(claims).map_err(|_| Refused::Unknown)?;
        if claims.key != access_key_id {
            return Err(Refused::Unknown);
        }
        if claims.expires <= now.unix_timestamp() {
            return Err(Refused::Expired);
        }
        Ok(Found {
            secret_access_key,
            principal: Principal::Role(RoleSession {
                role_arn: claims.role,
                session_name: claims.session,
                cognito: claims.identity.map(|(identity_id, pool_id, guest)| CognitoIdentity {
                    identity_id,
                    pool_id,
                    guest,
                }),
            }),
        })
    }

    fn secret_of(&self, claims: &[u8]) -> String {
        let bytes = self.mac(b"secret", claims).finalize().into_bytes();
        URL_SAFE_NO_PAD.encode(&bytes[..30])
    }

    fn mac(&self, label: &[u8], message: &[u8]) -> Hmac<Sha256> {
        // A key of 32 bytes: HMAC takes any length.
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.master)
            .unwrap_or_else(|_| unreachable!("HMAC takes keys of any length"));
        mac.update(label);
        mac.update(b"\0");
        mac.update(message);
        mac
    }
}

/// What a session token says. Short names: the token travels with every call.
#[derive(Serialize, Deserialize)]
struct Claims {
    #[serde(rename = "k")]
    key: String,
    #[serde(rename = "r")]
    role: String,
    #[serde(rename = "s")]
    session: String,
    #[serde(rename = "e")]
    expires: i64,
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
    identity: Option<(String, String, bool)>,
}

/// A secret of 32 bytes, made on first use and kept in the store.
pub(crate) fn secret(store: &Store, name: &str) -> Result<[u8; 32], CloudError> {
    if let Some(kept) = store.get("secret", name)? {
        return Ok(kept);
    }
    let made = random::<32>();
    store.put("secret", name, &made)?;
    Ok(made)
}

/// Random bytes of the operating system.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // Without randomness nothing here is safe: better no service than a guessable key.
    getrandom::fill(&mut bytes).unwrap_or_else(|error| panic!("no random numbers: {error}"));
    bytes
}

/// A random (version 4) UUID.
pub(crate) fn uuid() -> String {
    let mut bytes = random::<16>();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = hex(&bytes);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The letters of access key ids (base 32).
fn key_id(bytes: &[u8; 16]) -> String {
    const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    bytes.iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials() -> Credentials {
        let store = Store::open(std::path::Path::new(":memory:")).expect("a store in memory");
        Credentials::load(&store).expect("new keys")
    }

    fn session() -> RoleSession {
        RoleSession {
            role_arn: "arn:aws:iam::000000000000:role/reader".into(),
            session_name: "reading".into(),
            cognito: Some(CognitoIdentity {
                identity_id: "eu-west-1:1".into(),
                pool_id: "eu-west-1:2".into(),
                guest: true,
            }),
        }
    }

    #[test]
    fn a_session_is_found_again_with_its_secret() {
        let credentials = credentials();
        let issued = credentials.issue(&session(), Duration::from_secs(900));
        let found = credentials
            .lookup(&issued.access_key_id, Some(&issued.session_token), OffsetDateTime::now_utc())
            .unwrap_or_else(|refused| panic!("{refused:?}"));
        assert_eq!(found.secret_access_key, issued.secret_access_key);
        assert_eq!(found.principal, Principal::Role(session()));
    }

    #[test]
    fn a_session_ends_with_its_lifetime() {
        let credentials = credentials();
        let issued = credentials.issue(&session(), Duration::from_secs(900));
        let later = OffsetDateTime::now_utc() + Duration::from_secs(901);
        let refused = credentials.lookup(&issued.access_key_id, Some(&issued.session_token), later).err();
        assert_eq!(refused, Some(Refused::Expired));
    }

    #[test]
    fn forged_borrowed_or_missing_tokens_stand_for_nobody() {
        let credentials = credentials();
        let now = OffsetDateTime::now_utc();
        let issued = credentials.issue(&session(), Duration::from_secs(900));
        let other = credentials.issue(&session(), Duration::from_secs(900));
        let mut forged = URL_SAFE_NO_PAD.decode(&issued.session_token).expect("base64");
        forged[10] ^= 1;
        let forged = URL_SAFE_NO_PAD.encode(forged);
        let key = issued.access_key_id.as_str();
        for token in [None, Some(""), Some("%"), Some(&*forged), Some(&*other.session_token)] {
            assert_eq!(credentials.lookup(key, token, now).err(), Some(Refused::Unknown));
        }
        let elsewhere = self::credentials();
        let refused = elsewhere.lookup(key, Some(&issued.session_token), now).err();
        assert_eq!(refused, Some(Refused::Unknown));
    }
}
