//! The page that shows the mails. They hold links that reset passwords, so the list is for whoever has the token only;
//! the page itself holds no secret.

use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use crate::store::Store;
use crate::{Cloud, CloudError, Event};

/// So many mails are kept, the newest.
const KEPT: u32 = 1000;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; \
                      img-src 'self' data:; frame-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// The mails, and the token that opens them.
pub(crate) struct Mailbox {
    token: String,
}

/// A mail as the mailbox lists it. Several addresses are separated by commas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Mail {
    pub(crate) to: String,
    pub(crate) from: String,
    pub(crate) subject: String,
    pub(crate) text: String,
    pub(crate) html: String,
    pub(crate) received_at: String,
}

impl Mailbox {
    /// Makes the token on the first start, and keeps it.
    pub(crate) fn load(store: &Store) -> Result<Self, CloudError> {
        store.with(|connection| {
            connection.execute_batch(
                "CREATE TABLE IF NOT EXISTS mails (number INTEGER PRIMARY KEY AUTOINCREMENT, json TEXT NOT NULL)",
            )
        })?;
        let token = crate::credentials::secret(store, "mailbox")?;
        Ok(Self { token: URL_SAFE_NO_PAD.encode(token) })
    }

    fn opens(&self, token: &str) -> bool {
        self.token.as_bytes().ct_eq(token.as_bytes()).into()
    }
}

/// The address of the page, with the token.
pub(crate) fn url(cloud: &Cloud) -> String {
    let (port, token) = (cloud.options.api_port, &cloud.mailbox.token);
    format!("http://127.0.0.1:{port}/mailbox?token={token}")
}

/// Keeps a mail. It is stored when this returns.
pub(crate) fn deliver(cloud: &Cloud, to: Vec<String>, mail: &Mail) -> Result<(), CloudError> {
    let json = serde_json::to_string(mail)?;
    cloud.store.with(|connection| {
        let transaction = connection.transaction()?;
        transaction.execute("INSERT INTO mails (json) VALUES (?1)", (json,))?;
        let newest = transaction.last_insert_rowid();
        transaction.execute("DELETE FROM mails WHERE number <= ?1", (newest - i64::from(KEPT),))?;
        transaction.commit()
    })?;
    cloud.events.write(&Event::Mail { time: mail.received_at.clone(), to, subject: mail.subject.clone() });
    Ok(())
}

/// All mails, the newest first.
pub(crate) fn mails(cloud: &Cloud) -> Result<Vec<Mail>, CloudError> {
    let rows: Vec<String> = cloud.store.with(|connection| {
        connection
            .prepare_cached("SELECT json FROM mails ORDER BY number DESC")?
            .query_map((), |row| row.get(0))?
            .collect()
    })?;
    let mails = rows.iter().map(|json| serde_json::from_str(json));
    Ok(mails.collect::<Result<_, _>>()?)
}

pub(crate) fn is_path(path: &str) -> bool {
    path == "/mailbox" || path.starts_with("/mailbox/")
}

/// The page and its parts, and with `Accept: application/json` the mails.
pub(crate) fn serve(cloud: &Arc<Cloud>, method: &Method, uri: &Uri, headers: &HeaderMap) -> Response {
    if method != Method::GET && method != Method::HEAD {
        return respond(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only GET\n");
    }
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    let json = accept.is_some_and(|accept| accept.contains("application/json"));
    match uri.path() {
        "/mailbox" if json => list(cloud, uri),
        "/mailbox" => respond(StatusCode::OK, "text/html; charset=utf-8", include_str!("../mailbox/mailbox.html")),
        "/mailbox/mailbox.css" => {
            respond(StatusCode::OK, "text/css; charset=utf-8", include_str!("../mailbox/mailbox.css"))
        }
        "/mailbox/mailbox.js" => {
            respond(StatusCode::OK, "text/javascript; charset=utf-8", include_str!("../mailbox/mailbox.js"))
        }
        _ => respond(StatusCode::NOT_FOUND, "text/plain", "not found\n"),
    }
}

fn list(cloud: &Cloud, uri: &Uri) -> Response {
    let query = uri.query().unwrap_or_default();
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    let token = pairs.find_map(|(name, value)| (name == "token").then_some(value));
    if !token.is_some_and(|token| cloud.mailbox.opens(&token)) {
        let body = r#"{"error":"the mailbox needs its token: take the address that `up` or `outputs` prints"}"#;
        return respond(StatusCode::UNAUTHORIZED, "application/json", body);
    }
    match mails(cloud).and_then(|mails| Ok(serde_json::to_string(&mails)?)) {
        Ok(body) => respond(StatusCode::OK, "application/json", body),
        Err(error) => {
            tracing::error!(%error, "cannot list the mails");
            let body = r#"{"error":"the mails cannot be read"}"#;
            respond(StatusCode::INTERNAL_SERVER_ERROR, "application/json", body)
        }
    }
}

fn respond(status: StatusCode, content_type: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers: [(HeaderName, &'static str); 5] = [
        (CONTENT_TYPE, content_type),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_token_opens_the_mailbox_and_it_is_kept() {
        let store = Store::open(std::path::Path::new(":memory:")).expect("a store in memory");
        let mailbox = Mailbox::load(&store).expect("a new token");
        let again = Mailbox::load(&store).expect("the same token");
        assert_eq!(mailbox.token, again.token);
        assert!(mailbox.opens(&again.token));
        for wrong in ["", "x", &mailbox.token[1..], &format!("{}x", mailbox.token)] {
            assert!(!mailbox.opens(wrong));
        }
    }
}
