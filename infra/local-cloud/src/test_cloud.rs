//! A cloud of its own for one test, called as the gateway would call it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use axum::response::Response;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::call::{Call, CognitoIdentity, Principal, RoleSession};
use crate::declared::Role;
use crate::{Cloud, Event, Options};

pub(crate) const REGION: &str = "eu-west-1";
pub(crate) const ACCOUNT: &str = "000000000000";

pub(crate) struct TestCloud {
    pub(crate) cloud: Arc<Cloud>,
    folder: PathBuf,
}

impl TestCloud {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("local-cloud-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        let cloud = Cloud::open(Options {
            folder: folder.clone(),
            region: REGION.to_owned(),
            account: ACCOUNT.to_owned(),
            api_port: 1,
            site_port: 2,
        });
        Self { cloud: cloud.expect("a cloud"), folder }
    }

    /// Declares a role that Lambda may take, with one policy of the given statements.
    pub(crate) fn role(&self, name: &str, statements: &Value) -> String {
        let trust = json!({"Version": "2012-10-17", "Statement": [{
            "Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole",
        }]});
        let policies = Default::default();
        let role = Role { name: name.to_owned(), trust, policies, max_session_seconds: 3600 };
        self.cloud.put_role(role).expect("a role");
        let policy = json!({"Version": "2012-10-17", "Statement": statements});
        self.cloud.put_role_policy(name, "main", policy).expect("a policy");
        format!("arn:aws:iam::{ACCOUNT}:role/{name}")
    }

    /// What the events file holds by now.
    pub(crate) fn events(&self) -> Vec<Event> {
        let text = std::fs::read_to_string(self.cloud.events_file()).expect("events");
        text.lines().map(|line| serde_json::from_str(line).expect("an event")).collect()
    }

    /// The decisions as `principal action resource allowed`.
    pub(crate) fn decisions(&self) -> Vec<(String, String, bool)> {
        let events = self.events().into_iter();
        events
            .filter_map(|event| match event {
                Event::Decision { action, resource, allowed, .. } => Some((action, resource, allowed)),
                _ => None,
            })
            .collect()
    }
}

impl Drop for TestCloud {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

pub(crate) fn session(role: &str) -> RoleSession {
    RoleSession {
        role_arn: format!("arn:aws:iam::{ACCOUNT}:role/{role}"),
        session_name: "test".to_owned(),
        cognito: None,
    }
}

pub(crate) fn member(role: &str) -> Principal {
    let cognito = CognitoIdentity {
        identity_id: format!("{REGION}:00000000-0000-4000-8000-000000000001"),
        pool_id: format!("{REGION}:00000000-0000-4000-8000-000000000002"),
        guest: false,
    };
    Principal::Role(RoleSession { cognito: Some(cognito), ..session(role) })
}

pub(crate) fn call(principal: Principal, method: Method, uri: &str, headers: &[(&str, &str)], body: &[u8]) -> Call {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a header's name");
        map.insert(name, HeaderValue::from_str(value).expect("a header's value"));
    }
    Call {
        principal,
        request_id: format!("00000000-0000-4000-8000-{:012}", NEXT.fetch_add(1, Ordering::Relaxed)),
        method,
        uri: uri.parse::<Uri>().expect("a URI"),
        headers: map,
        body: Bytes::copy_from_slice(body),
    }
}

pub(crate) async fn body(response: Response) -> Bytes {
    axum::body::to_bytes(response.into_body(), usize::MAX).await.expect("a body")
}

pub(crate) async fn json_body(response: Response) -> Value {
    serde_json::from_slice(&body(response).await).expect("JSON")
}
