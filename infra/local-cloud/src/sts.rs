//! STS, as far as asking who one is.

use std::sync::Arc;

use axum::response::Response;

use crate::Cloud;
use crate::call::{Call, Principal};
use crate::error::AwsError;
use crate::gateway::{query, xml};

pub(crate) const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";

#[expect(clippy::unused_async, reason = "the shape that all services share")]
pub(crate) async fn handle(cloud: &Arc<Cloud>, call: Call) -> Result<Response, AwsError> {
    let mut fields = form_urlencoded::parse(&call.body);
    let operation = fields.find_map(|(name, value)| (name == "Action").then_some(value));
    match operation.as_deref() {
        // AWS needs no permission for it either: whoever has a key may know whose it is.
        Some("GetCallerIdentity") => Ok(caller_identity(cloud, &call)),
        Some(operation) => Err(unknown_action(operation)),
        None => Err(unknown_action("")),
    }
}

fn caller_identity(cloud: &Cloud, call: &Call) -> Response {
    let account = &cloud.options.account;
    let (arn, user_id) = match &call.principal {
        Principal::Role(session) => (cloud.session_arn(session), crate::iam::user_id(session)),
        _ => (format!("arn:aws:iam::{account}:root"), account.clone()),
    };
    let (arn, user_id) = (xml(&arn), xml(&user_id));
    let content = format!("<Arn>{arn}</Arn><UserId>{user_id}</UserId><Account>{account}</Account>");
    query(NAMESPACE, "GetCallerIdentity", &content, &call.request_id)
}

/// As every query protocol says it.
pub(crate) fn unknown_action(operation: &str) -> AwsError {
    let operation: String = operation.chars().take(64).collect();
    AwsError::bad_request(
        "InvalidAction",
        format!("Could not find operation {operation}: the local cloud does not have it"),
    )
}
