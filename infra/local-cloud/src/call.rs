//! One call as a service sees it: verified, with its principal, not yet authorised.

use std::collections::BTreeMap;

use axum::http::{HeaderMap, Method, Uri};
use bytes::Bytes;

/// Who calls, established by the signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Principal {
    /// No signature at all (S3 reads of public objects, Cognito's unsigned operations).
    Anonymous,
    /// The administrator's key: allowed everything.
    Admin,
    /// Temporary credentials of a role.
    Role(RoleSession),
}

/// A session of a role: what STS would say of the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RoleSession {
    /// `arn:aws:iam::ACCOUNT:role/NAME`
    pub(crate) role_arn: String,
    /// The last part of `arn:aws:sts::ACCOUNT:assumed-role/NAME/SESSION`.
    pub(crate) session_name: String,
    /// Set for credentials that Cognito gave out.
    pub(crate) cognito: Option<CognitoIdentity>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CognitoIdentity {
    pub(crate) identity_id: String,
    pub(crate) pool_id: String,
    /// Guests are also bound by Cognito's own session policy.
    pub(crate) guest: bool,
}

/// A verified call.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) principal: Principal,
    pub(crate) request_id: String,
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Condition keys of one request (`dynamodb:Attributes`, `ses:FromAddress`, …): several values make a multivalued key.
pub(crate) type ConditionKeys = BTreeMap<String, Vec<String>>;
