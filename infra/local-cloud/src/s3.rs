//! S3: buckets and objects. On the API port `s3s` speaks the protocol, in path style; on the site port the first bucket
//! is served under an origin of its own, as its virtual-host address would be. Objects lie in the store under their key,
//! which is never a path of the file system.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use axum::body::Body;
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_MATCH,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE, LAST_MODIFIED, RANGE, SERVER,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::response::Response;
use bytes::Bytes;
use rusqlite::OptionalExtension;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::crypto::{Checksum, Md5};
use s3s::dto;
use s3s::path::S3Path;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};
use serde_json::Value;
use time::{OffsetDateTime, PrimitiveDateTime};

use crate::call::{Call, ConditionKeys, Principal};
use crate::credentials::{Refused, hex};
use crate::declared::{Bucket, Object};
use crate::error::AwsError;
use crate::iam::{Document, Kind};
use crate::sigv4::Verified;
use crate::store::Store;
use crate::{Cloud, CloudError};

/// An object to be stored, with the headers that it is served with.
#[derive(Debug, Clone)]
pub struct NewObject {
    pub bucket: String,
    pub key: String,
    pub body: Vec<u8>,
    pub content_type: String,
    pub content_encoding: Option<String>,
    pub cache_control: Option<String>,
}

/// The objects' table in the store, and the buckets' policies, each read once.
pub(crate) struct Objects {
    policies: RwLock<HashMap<String, Known>>,
}

type Known = (Arc<Bucket>, Option<Arc<Document>>);

impl Objects {
    pub(crate) fn load(store: &Store) -> Result<Self, CloudError> {
        store.with(|connection| {
            connection.execute_batch(
                "CREATE TABLE IF NOT EXISTS objects (
                     bucket TEXT NOT NULL, key TEXT NOT NULL, json TEXT NOT NULL, body BLOB NOT NULL,
                     PRIMARY KEY (bucket, key)
                 )",
            )
        })?;
        Ok(Self { policies: RwLock::default() })
    }
}

/// Answers the site port: anonymous reads of the first bucket, a key for a path.
pub(crate) fn site(cloud: &Arc<Cloud>, method: &Method, uri: &Uri, headers: &HeaderMap) -> Response {
    let call = anonymous(method, uri);
    let request_id = call.request_id.clone();
    let respond = |error: &AwsError| {
        let mut response = self::error(error.status, error.code, &error.message, &request_id);
        if method == Method::HEAD {
            *response.body_mut() = Body::empty();
        }
        response
    };
    match site_read(cloud, &call, headers) {
        Ok((object, body)) => {
            object_response(&object, body, method, headers, &request_id).unwrap_or_else(|error| respond(&error))
        }
        Err(error) => respond(&error),
    }
}

fn site_read(cloud: &Cloud, call: &Call, headers: &HeaderMap) -> Result<(Object, Vec<u8>), AwsError> {
    if call.method != Method::GET && call.method != Method::HEAD {
        return Err(match call.method {
            Method::OPTIONS => AwsError::new(
                StatusCode::FORBIDDEN,
                "AccessForbidden",
                "CORSResponse: CORS is not enabled for this bucket.",
            ),
            Method::PUT | Method::DELETE => denied(),
            _ => AwsError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "MethodNotAllowed",
                "The specified method is not allowed against this resource.",
            ),
        });
    }
    if headers.contains_key("authorization") {
        return Err(AwsError::bad_request(
            "InvalidRequest",
            "the site port serves anonymous reads only: signed calls go to the API port",
        ));
    }
    let bucket = cloud.declared.all::<Bucket>().into_iter().next();
    let bucket = bucket.ok_or_else(no_such_bucket)?;
    let key = percent_decode(call.uri.path().trim_start_matches('/'));
    match key {
        // S3 has no index page at its REST address: this is a call of ListObjects.
        Some(key) if key.is_empty() => {
            cloud.authorize_s3(call, "s3:ListBucket", &bucket.name, None)?;
            Err(AwsError::new(
                StatusCode::NOT_IMPLEMENTED,
                "NotImplemented",
                "the site port serves objects only: lists are on the API port",
            ))
        }
        Some(key) => cloud.read_object(call, &bucket.name, &key),
        None => Err(AwsError::bad_request("InvalidURI", "Couldn't parse the specified URI.")),
    }
}

impl Cloud {
    /// Authorises and reads an object: the one way to an object's body.
    fn read_object(&self, call: &Call, bucket: &str, key: &str) -> Result<(Object, Vec<u8>), AwsError> {
        self.authorize_s3(call, "s3:GetObject", bucket, Some(key))?;
        let found = self.find_object(bucket, key).map_err(AwsError::internal)?;
        match found {
            Some(found) => Ok(found),
            // Whether a key exists is told only to those who may list.
            None => {
                self.authorize_s3(call, "s3:ListBucket", bucket, None)?;
                existing(self, bucket)?;
                Err(AwsError::new(StatusCode::NOT_FOUND, "NoSuchKey", "The specified key does not exist."))
            }
        }
    }

    fn authorize_s3(&self, call: &Call, action: &str, bucket: &str, key: Option<&str>) -> Result<(), AwsError> {
        let resource = match (bucket, key) {
            ("", _) => "*".to_owned(),
            (bucket, None) => format!("arn:aws:s3:::{bucket}"),
            (bucket, Some(key)) => format!("arn:aws:s3:::{bucket}/{key}"),
        };
        let mut keys = ConditionKeys::new();
        if action == "s3:ListBucket" {
            let query = call.uri.query().unwrap_or_default();
            for (name, value) in form_urlencoded::parse(query.as_bytes()) {
                if matches!(&*name, "prefix" | "delimiter" | "max-keys") {
                    keys.insert(format!("s3:{name}"), vec![value.into_owned()]);
                }
            }
        }
        let policy = self.bucket_policy(bucket);
        self.authorize_with(call, action, &resource, keys, policy.as_deref()).map_err(|error| match call.principal {
            Principal::Anonymous => denied(),
            _ => AwsError { code: "AccessDenied", ..error },
        })
    }

    /// The bucket's policy, unless it is public and public policies are blocked.
    fn bucket_policy(&self, name: &str) -> Option<Arc<Document>> {
        let bucket = self.declared.get::<Bucket>(name)?;
        let policies = &self.objects.policies;
        let read = policies.read().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, policy)) = read.get(name)
            && Arc::ptr_eq(known, &bucket)
        {
            return policy.clone();
        }
        drop(read);
        let policy = bucket.policy.as_ref().and_then(|policy| {
            let policy = Document::parse(&policy_name(name), Kind::Resource, policy);
            // It was valid when it was declared; if it is not any more, it allows nothing.
            policy.inspect_err(|error| tracing::error!(%error, "unreadable bucket policy")).ok()
        });
        let policy = policy.filter(|policy| !(bucket.block_public_policy && policy.is_public())).map(Arc::new);
        let mut write = policies.write().unwrap_or_else(PoisonError::into_inner);
        write.insert(name.to_owned(), (bucket, policy.clone()));
        policy
    }

    fn find_object(&self, bucket: &str, key: &str) -> Result<Option<(Object, Vec<u8>)>, CloudError> {
        let found: Option<(String, Vec<u8>)> = self.store.with(|connection| {
            connection
                .prepare_cached("SELECT json, body FROM objects WHERE bucket = ?1 AND key = ?2")?
                .query_row((bucket, key), |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()
        })?;
        Ok(match found {
            Some((json, body)) => Some((serde_json::from_str(&json)?, body)),
            None => None,
        })
    }

    /// Makes a bucket; one that is there stays as it is.
    ///
    /// # Errors
    /// [`CloudError::Declaration`] when S3 would refuse the name.
    pub fn put_bucket(&self, name: &str) -> Result<(), CloudError> {
        let fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let ends = name.starts_with('-') || name.ends_with('-');
        if !(3..=63).contains(&name.len()) || !name.bytes().all(fine) || ends {
            return Err(CloudError::Declaration(format!(
                "{name:?} is not a name for a bucket: 3 to 63 lower-case letters, digits and hyphens"
            )));
        }
        if self.declared.get::<Bucket>(name).is_some() {
            return Ok(());
        }
        let bucket = Bucket {
            name: name.to_owned(),
            policy: None,
            // As of every new bucket since April 2023.
            block_public_policy: true,
        };
        self.declared.put(&self.store, bucket)
    }

    /// Blocks or admits public policies of the bucket.
    ///
    /// # Errors
    /// [`CloudError::Declaration`] when there is no such bucket.
    pub fn set_block_public_policy(&self, bucket: &str, block: bool) -> Result<(), CloudError> {
        let mut changed = (*self.bucket(bucket)?).clone();
        changed.block_public_policy = block;
        self.declared.put(&self.store, changed)
    }

    /// Writes the bucket's policy, or takes it away.
    ///
    /// # Errors
    /// [`CloudError::Declaration`] when there is no such bucket, the policy is not valid, or it is public while public
    /// policies are blocked.
    pub fn put_bucket_policy(&self, bucket: &str, policy: Option<Value>) -> Result<(), CloudError> {
        let mut changed = (*self.bucket(bucket)?).clone();
        if let Some(policy) = &policy {
            let document = Document::parse(&policy_name(bucket), Kind::Resource, policy)?;
            if changed.block_public_policy && document.is_public() {
                return Err(CloudError::Declaration(format!(
                    "the policy makes the bucket {bucket} public, and its public access block forbids that"
                )));
            }
        }
        changed.policy = policy;
        self.declared.put(&self.store, changed)
    }

    /// Stores an object, replacing one of the same key.
    ///
    /// # Errors
    /// [`CloudError::Declaration`] when there is no such bucket, or a part can't be served.
    pub fn put_object(&self, new: NewObject) -> Result<Object, CloudError> {
        self.bucket(&new.bucket)?;
        if new.key.is_empty() || new.key.len() > 1024 {
            let problem = "an object's key has 1 to 1024 bytes";
            return Err(CloudError::Declaration(problem.to_owned()));
        }
        let texts = [Some(&new.content_type), new.content_encoding.as_ref(), new.cache_control.as_ref()];
        if let Some(text) = texts.into_iter().flatten().find(|it| HeaderValue::from_str(it).is_err()) {
            return Err(CloudError::Declaration(format!("{text:?} can't be a header of the object {}", new.key)));
        }
        let object = Object {
            etag: hex(&Md5::checksum(&new.body)),
            size: new.body.len() as u64,
            last_modified: http_date(OffsetDateTime::now_utc()),
            bucket: new.bucket,
            key: new.key,
            content_type: new.content_type,
            content_encoding: new.content_encoding,
            cache_control: new.cache_control,
        };
        let json = serde_json::to_string(&object)?;
        self.store.with(|connection| {
            connection.prepare_cached("INSERT OR REPLACE INTO objects VALUES (?1, ?2, ?3, ?4)")?.execute((
                &object.bucket,
                &object.key,
                json,
                new.body,
            ))
        })?;
        Ok(object)
    }

    /// Deletes an object; one that is not there counts as deleted.
    ///
    /// # Errors
    /// [`CloudError`] when it can't be kept.
    pub fn delete_object(&self, bucket: &str, key: &str) -> Result<(), CloudError> {
        self.store.with(|connection| {
            connection.prepare_cached("DELETE FROM objects WHERE bucket = ?1 AND key = ?2")?.execute((bucket, key))
        })?;
        Ok(())
    }

    /// Deletes an empty bucket; one that is not there counts as deleted.
    ///
    /// # Errors
    /// [`CloudError::Declaration`] while it holds objects.
    pub fn delete_bucket(&self, name: &str) -> Result<(), CloudError> {
        if !self.list_objects(name)?.is_empty() {
            return Err(CloudError::Declaration(format!("the bucket {name} is not empty: delete its objects first")));
        }
        self.declared.delete::<Bucket>(&self.store, name)
    }

    /// The bucket as it is declared now.
    pub fn get_bucket(&self, name: &str) -> Option<Arc<Bucket>> {
        self.declared.get(name)
    }

    /// What is known of an object, without its body.
    ///
    /// # Errors
    /// [`CloudError`] when the store can't be read.
    pub fn get_object_head(&self, bucket: &str, key: &str) -> Result<Option<Object>, CloudError> {
        let json: Option<String> = self.store.with(|connection| {
            connection
                .prepare_cached("SELECT json FROM objects WHERE bucket = ?1 AND key = ?2")?
                .query_row((bucket, key), |row| row.get(0))
                .optional()
        })?;
        Ok(json.as_deref().map(serde_json::from_str).transpose()?)
    }

    /// All objects of a bucket, by key.
    ///
    /// # Errors
    /// [`CloudError`] when the store can't be read.
    pub fn list_objects(&self, bucket: &str) -> Result<Vec<Object>, CloudError> {
        let rows: Vec<String> = self.store.with(|connection| {
            connection
                .prepare_cached("SELECT json FROM objects WHERE bucket = ?1 ORDER BY key")?
                .query_map((bucket,), |row| row.get(0))?
                .collect()
        })?;
        let objects = rows.iter().map(|json| serde_json::from_str(json));
        Ok(objects.collect::<Result<_, _>>()?)
    }

    fn bucket(&self, name: &str) -> Result<Arc<Bucket>, CloudError> {
        let missing = || CloudError::Declaration(format!("there is no bucket {name}"));
        self.declared.get(name).ok_or_else(missing)
    }
}

/// The object as S3 sends it: with its own headers, and no others than S3's.
fn object_response(
    object: &Object,
    body: Vec<u8>,
    method: &Method,
    asked: &HeaderMap,
    request_id: &str,
) -> Result<Response, AwsError> {
    let etag = format!("\"{}\"", object.etag);
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    sign_off(headers, request_id);
    let mut set = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    set(ETAG, &etag);
    set(LAST_MODIFIED, &object.last_modified);
    if let Some(cache_control) = &object.cache_control {
        set(CACHE_CONTROL, cache_control);
    }
    match precondition(asked, &etag, &object.last_modified) {
        Precondition::Holds => {}
        Precondition::NotModified => {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return Ok(response);
        }
        Precondition::Failed => {
            return Err(AwsError::new(
                StatusCode::PRECONDITION_FAILED,
                "PreconditionFailed",
                "At least one of the pre-conditions you specified did not hold",
            ));
        }
    }
    set(ACCEPT_RANGES, "bytes");
    set(CONTENT_TYPE, &object.content_type);
    if let Some(encoding) = &object.content_encoding {
        set(CONTENT_ENCODING, encoding);
    }
    let range = asked.get(RANGE).and_then(|range| range.to_str().ok());
    let range = range.and_then(|range| dto::Range::parse(range).ok());
    let mut body = Bytes::from(body);
    let mut status = StatusCode::OK;
    if let Some(range) = range {
        let size = body.len() as u64;
        let within = range.check(size).map_err(|_| {
            AwsError::new(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange", "The requested range is not satisfiable")
        })?;
        status = StatusCode::PARTIAL_CONTENT;
        set(CONTENT_RANGE, &format!("bytes {}-{}/{size}", within.start, within.end - 1));
        let at = |place: u64| usize::try_from(place).unwrap_or(usize::MAX);
        body = body.slice(at(within.start)..at(within.end));
    }
    set(CONTENT_LENGTH, &body.len().to_string());
    *response.status_mut() = status;
    if method != Method::HEAD {
        *response.body_mut() = Body::from(body);
    }
    Ok(response)
}

enum Precondition {
    Holds,
    NotModified,
    Failed,
}

fn precondition(asked: &HeaderMap, etag: &str, last_modified: &str) -> Precondition {
    let text = |name: HeaderName| asked.get(name).and_then(|value| value.to_str().ok());
    let names_it = |list: &str| {
        let mut tags = list.split(',').map(str::trim);
        tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
    };
    let changed_since = |date: &str| Some(parse_http_date(last_modified)? > parse_http_date(date)?);
    if let Some(list) = text(IF_MATCH) {
        if !names_it(list) {
            return Precondition::Failed;
        }
    } else if text(IF_UNMODIFIED_SINCE).and_then(changed_since) == Some(true) {
        return Precondition::Failed;
    }
    if let Some(list) = text(IF_NONE_MATCH) {
        if names_it(list) {
            return Precondition::NotModified;
        }
    } else if text(IF_MODIFIED_SINCE).and_then(changed_since) == Some(false) {
        return Precondition::NotModified;
    }
    Precondition::Holds
}

/// An error in S3's own XML.
pub(crate) fn error(status: StatusCode, code: &str, message: &str, request_id: &str) -> Response {
    let code = match code {
        "InternalFailure" => "InternalError",
        "AccessDeniedException" => "AccessDenied",
        code => code,
    };
    let message = crate::gateway::xml(message);
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message>\
         <RequestId>{request_id}</RequestId><HostId>{request_id}</HostId></Error>"
    );
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    sign_off(headers, request_id);
    response
}

fn sign_off(headers: &mut HeaderMap, request_id: &str) {
    headers.insert(SERVER, HeaderValue::from_static("AmazonS3"));
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert("x-amz-request-id", id.clone());
        headers.insert("x-amz-id-2", id);
    }
}

fn denied() -> AwsError {
    AwsError::new(StatusCode::FORBIDDEN, "AccessDenied", "Access Denied")
}

fn no_such_bucket() -> AwsError {
    AwsError::new(StatusCode::NOT_FOUND, "NoSuchBucket", "The specified bucket does not exist")
}

fn anonymous(method: &Method, uri: &Uri) -> Call {
    Call {
        principal: Principal::Anonymous,
        request_id: crate::credentials::uuid(),
        method: method.clone(),
        uri: uri.clone(),
        headers: HeaderMap::new(),
        body: Bytes::new(),
    }
}

fn policy_name(bucket: &str) -> String {
    format!("policy of the bucket {bucket}")
}

/// The bytes of a path, if they are UTF-8.
fn percent_decode(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let (digits, after) = rest.split_first_chunk::<2>()?;
        let digits = std::str::from_utf8(digits).ok()?;
        if digits.starts_with('+') {
            return None;
        }
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

fn http_date(moment: OffsetDateTime) -> String {
    let format = time::macros::format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    moment.format(format).unwrap_or_default()
}

fn parse_http_date(text: &str) -> Option<OffsetDateTime> {
    let format = time::macros::format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    PrimitiveDateTime::parse(text, format).ok().map(PrimitiveDateTime::assume_utc)
}

// ---------------------------------------------------------------------------------------------------------------------
// The API port, through s3s.

/// What `s3s` asks back for during one call.
struct Current {
    cloud: Arc<Cloud>,
    call: Call,
    /// The key that the caller named, with its secret.
    key: Option<(String, String)>,
}

tokio::task_local! {
    static CURRENT: Current;
}

/// Answers a call on the API port. A header signature is verified already; a presigned one `s3s` verifies.
pub(crate) async fn serve(
    cloud: &Arc<Cloud>,
    verified: Option<Verified>,
    request_id: String,
    parts: Parts,
    body: Bytes,
) -> Response {
    static SERVICE: OnceLock<S3Service> = OnceLock::new();
    let service = SERVICE.get_or_init(|| {
        let mut builder = S3ServiceBuilder::new(Backend);
        builder.set_auth(Auth);
        builder.set_access(Access);
        builder.build()
    });
    let mut call = anonymous(&parts.method, &parts.uri);
    call.request_id.clone_from(&request_id);
    let key = match verified {
        Some(verified) => {
            call.principal = verified.principal;
            let id = crate::sigv4::Authorization::of(&parts.headers).ok().flatten();
            id.map(|id| (id.access_key_id, verified.secret_access_key))
        }
        None => match presigner(cloud, &parts.uri) {
            Ok(Some((id, verified))) => {
                call.principal = verified.principal;
                Some((id, verified.secret_access_key))
            }
            Ok(None) => None,
            Err(Refused::Unknown) => {
                let text = "The AWS Access Key Id you provided does not exist in our records.";
                return error(StatusCode::FORBIDDEN, "InvalidAccessKeyId", text, &request_id);
            }
            Err(Refused::Expired) => {
                let text = "The provided token has expired.";
                return error(StatusCode::BAD_REQUEST, "ExpiredToken", text, &request_id);
            }
        },
    };
    let current = Current { cloud: cloud.clone(), call, key };
    let request = axum::http::Request::from_parts(parts, s3s::Body::from(body));
    match CURRENT.scope(current, service.call(request)).await {
        Ok(response) => {
            let mut response = response.map(Body::new);
            sign_off(response.headers_mut(), &request_id);
            response
        }
        Err(failure) => {
            let failure = AwsError::internal(format!("{failure:?}"));
            error(failure.status, failure.code, &failure.message, &request_id)
        }
    }
}

/// The key of a presigned call, found by the query.
fn presigner(cloud: &Cloud, uri: &Uri) -> Result<Option<(String, Verified)>, Refused> {
    let query = uri.query().unwrap_or_default();
    let parameter = |wanted: &str| {
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        pairs.find_map(|(name, value)| name.eq_ignore_ascii_case(wanted).then_some(value))
    };
    let Some(credential) = parameter("X-Amz-Credential") else {
        return Ok(None);
    };
    let id = credential.split('/').next().unwrap_or_default().to_owned();
    let token = parameter("X-Amz-Security-Token");
    let now = OffsetDateTime::now_utc();
    let found = cloud.credentials.lookup(&id, token.as_deref(), now)?;
    let verified = Verified { principal: found.principal, secret_access_key: found.secret_access_key };
    Ok(Some((id, verified)))
}

struct Auth;

#[async_trait::async_trait]
impl S3Auth for Auth {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        CURRENT.with(|current| match &current.key {
            Some((id, secret)) if id == access_key => Ok(secret.clone().into()),
            _ => Err(s3_error!(InvalidAccessKeyId)),
        })
    }
}

struct Access;

#[async_trait::async_trait]
impl S3Access for Access {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        // Without a verified signature the caller is nobody, whatever key the request names.
        let signed = context.credentials().is_some();
        let (bucket, key) = match context.s3_path() {
            S3Path::Root => ("", None),
            S3Path::Bucket { bucket } => (&**bucket, None),
            S3Path::Object { bucket, key } => (&**bucket, Some(&**key)),
        };
        let action = match context.s3_op().name() {
            // Authorised where it is read, like the site's.
            "GetObject" | "HeadObject" => return as_caller(signed, |_, _| Ok(())),
            "PutObject" => "s3:PutObject",
            "DeleteObject" => "s3:DeleteObject",
            "ListObjects" | "ListObjectsV2" | "HeadBucket" => "s3:ListBucket",
            "GetBucketLocation" => "s3:GetBucketLocation",
            "ListBuckets" => "s3:ListAllMyBuckets",
            _ => {
                return Err(s3_error!(NotImplemented, "the local cloud does not have this operation"));
            }
        };
        as_caller(signed, |cloud, call| cloud.authorize_s3(call, action, bucket, key))
    }
}

fn as_caller<T>(signed: bool, work: impl FnOnce(&Cloud, &Call) -> Result<T, AwsError>) -> S3Result<T> {
    CURRENT.with(|current| {
        if !signed && current.call.principal != Principal::Anonymous {
            return Err(s3_error!(AccessDenied));
        }
        work(&current.cloud, &current.call).map_err(to_s3)
    })
}

/// In the methods of the backend: access has been checked.
fn work<T>(work: impl FnOnce(&Cloud, &Call) -> Result<T, AwsError>) -> S3Result<T> {
    CURRENT.with(|current| work(&current.cloud, &current.call).map_err(to_s3))
}

fn to_s3(error: AwsError) -> S3Error {
    let code = S3ErrorCode::from_bytes(error.code.as_bytes());
    let mut s3 = S3Error::with_message(code.unwrap_or(S3ErrorCode::InternalError), error.message);
    s3.set_status_code(error.status);
    CURRENT.with(|current| s3.set_request_id(current.call.request_id.clone()));
    s3
}

struct Backend;

#[async_trait::async_trait]
impl S3 for Backend {
    async fn get_object(&self, request: S3Request<dto::GetObjectInput>) -> S3Result<S3Response<dto::GetObjectOutput>> {
        let (bucket, key) = (&request.input.bucket, &request.input.key);
        let (object, body) = work(|cloud, call| cloud.read_object(call, bucket, key))?;
        let mut response = conditional(&object, body, &request.method, &request.headers)?;
        let status = response.status();
        let text = |name: HeaderName| {
            let value = response.headers().get(name)?;
            value.to_str().ok().map(str::to_owned)
        };
        let output = dto::GetObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            cache_control: object.cache_control.clone(),
            content_encoding: object.content_encoding.clone(),
            content_length: text(CONTENT_LENGTH).and_then(|length| length.parse().ok()),
            content_range: text(CONTENT_RANGE),
            content_type: Some(object.content_type.clone()),
            e_tag: Some(dto::ETag::Strong(object.etag.clone())),
            last_modified: timestamp(&object),
            body: {
                let body = std::mem::take(response.body_mut());
                Some(dto::StreamingBlob::from(s3s::Body::http_body_unsync(body)))
            },
            ..Default::default()
        };
        Ok(S3Response::with_status(output, status))
    }

    async fn head_object(
        &self,
        request: S3Request<dto::HeadObjectInput>,
    ) -> S3Result<S3Response<dto::HeadObjectOutput>> {
        let (bucket, key) = (&request.input.bucket, &request.input.key);
        let (object, body) = work(|cloud, call| cloud.read_object(call, bucket, key))?;
        conditional(&object, body, &request.method, &request.headers)?;
        Ok(S3Response::new(dto::HeadObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            cache_control: object.cache_control.clone(),
            content_encoding: object.content_encoding.clone(),
            content_length: i64::try_from(object.size).ok(),
            content_type: Some(object.content_type.clone()),
            e_tag: Some(dto::ETag::Strong(object.etag.clone())),
            last_modified: timestamp(&object),
            ..Default::default()
        }))
    }

    async fn put_object(&self, request: S3Request<dto::PutObjectInput>) -> S3Result<S3Response<dto::PutObjectOutput>> {
        let input = request.input;
        let mut body = Vec::new();
        if let Some(stream) = input.body {
            let read = axum::body::to_bytes(Body::from_stream(stream), usize::MAX).await;
            // A chunk's signature or a checksum in the trailer that does not match ends up here.
            body = read.map_err(|error| s3_error!(InvalidRequest, "the body can't be read: {error}"))?.to_vec();
        }
        let object = work(|cloud, _| {
            existing(cloud, &input.bucket)?;
            let new = NewObject {
                bucket: input.bucket,
                key: input.key,
                body,
                content_type: input.content_type.unwrap_or_else(|| "binary/octet-stream".to_owned()),
                // `aws-chunked` tells of the upload's own framing, and is gone with it.
                content_encoding: input.content_encoding.and_then(|encoding| {
                    let names = encoding.split(',').map(str::trim);
                    let names: Vec<_> = names.filter(|name| *name != "aws-chunked").collect();
                    (!names.is_empty()).then(|| names.join(","))
                }),
                cache_control: input.cache_control,
            };
            cloud.put_object(new).map_err(AwsError::internal)
        })?;
        Ok(S3Response::new(dto::PutObjectOutput { e_tag: Some(dto::ETag::Strong(object.etag)), ..Default::default() }))
    }

    async fn delete_object(
        &self,
        request: S3Request<dto::DeleteObjectInput>,
    ) -> S3Result<S3Response<dto::DeleteObjectOutput>> {
        work(|cloud, _| {
            let input = &request.input;
            existing(cloud, &input.bucket)?;
            cloud.delete_object(&input.bucket, &input.key).map_err(AwsError::internal)
        })?;
        Ok(S3Response::new(dto::DeleteObjectOutput::default()))
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<dto::ListObjectsV2Input>,
    ) -> S3Result<S3Response<dto::ListObjectsV2Output>> {
        let input = request.input;
        let objects = work(|cloud, _| {
            existing(cloud, &input.bucket)?;
            cloud.list_objects(&input.bucket).map_err(AwsError::internal)
        })?;
        let prefix = input.prefix.clone().unwrap_or_default();
        let delimiter = input.delimiter.clone().unwrap_or_default();
        let after = input.continuation_token.clone().or(input.start_after.clone());
        let after = after.unwrap_or_default();
        let most = usize::try_from(input.max_keys.unwrap_or(1000).clamp(0, 1000)).unwrap_or(1000);
        let (mut contents, mut prefixes) = (Vec::new(), Vec::<String>::new());
        let (mut last, mut truncated) = (String::new(), false);
        for object in objects {
            if object.key <= after || !object.key.starts_with(&prefix) {
                continue;
            }
            let rest = &object.key[prefix.len()..];
            let folder = match rest.find(&delimiter) {
                Some(end) if !delimiter.is_empty() => Some(format!("{prefix}{}", &rest[..end + delimiter.len()])),
                _ => None,
            };
            // A page that ended inside a folder has named the folder.
            if folder.as_ref().is_some_and(|it| prefixes.contains(it) || after.starts_with(it)) {
                last = object.key;
                continue;
            }
            if contents.len() + prefixes.len() == most {
                truncated = true;
                break;
            }
            last.clone_from(&object.key);
            match folder {
                Some(folder) => prefixes.push(folder),
                None => contents.push(dto::Object {
                    e_tag: Some(dto::ETag::Strong(object.etag.clone())),
                    last_modified: timestamp(&object),
                    size: i64::try_from(object.size).ok(),
                    key: Some(object.key),
                    ..Default::default()
                }),
            }
        }
        let count = i32::try_from(contents.len() + prefixes.len()).ok();
        let folders = prefixes.into_iter();
        let folders = folders.map(|prefix| dto::CommonPrefix { prefix: Some(prefix) });
        Ok(S3Response::new(dto::ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: Some(prefix),
            delimiter: input.delimiter,
            max_keys: i32::try_from(most).ok(),
            key_count: count,
            is_truncated: Some(truncated),
            continuation_token: input.continuation_token,
            next_continuation_token: (truncated && most > 0).then_some(last),
            contents: Some(contents),
            common_prefixes: Some(folders.collect()),
            ..Default::default()
        }))
    }

    async fn head_bucket(
        &self,
        request: S3Request<dto::HeadBucketInput>,
    ) -> S3Result<S3Response<dto::HeadBucketOutput>> {
        work(|cloud, _| existing(cloud, &request.input.bucket))?;
        Ok(S3Response::new(dto::HeadBucketOutput::default()))
    }

    async fn get_bucket_location(
        &self,
        request: S3Request<dto::GetBucketLocationInput>,
    ) -> S3Result<S3Response<dto::GetBucketLocationOutput>> {
        let region = work(|cloud, _| {
            existing(cloud, &request.input.bucket)?;
            Ok(cloud.options.region.clone())
        })?;
        Ok(S3Response::new(dto::GetBucketLocationOutput { location_constraint: Some(region.into()) }))
    }

    async fn list_buckets(
        &self,
        _request: S3Request<dto::ListBucketsInput>,
    ) -> S3Result<S3Response<dto::ListBucketsOutput>> {
        let buckets = work(|cloud, _| Ok(cloud.declared.all::<Bucket>()))?;
        let buckets =
            buckets.iter().map(|bucket| dto::Bucket { name: Some(bucket.name.clone()), ..Default::default() });
        Ok(S3Response::new(dto::ListBucketsOutput { buckets: Some(buckets.collect()), ..Default::default() }))
    }
}

fn existing(cloud: &Cloud, bucket: &str) -> Result<(), AwsError> {
    match cloud.declared.get::<Bucket>(bucket) {
        Some(_) => Ok(()),
        None => Err(no_such_bucket()),
    }
}

/// The response as the site would send it; what is not a success becomes an error of `s3s`.
fn conditional(object: &Object, body: Vec<u8>, method: &Method, headers: &HeaderMap) -> S3Result<Response> {
    let response = object_response(object, body, method, headers, "").map_err(to_s3)?;
    if response.status() == StatusCode::NOT_MODIFIED {
        let mut unchanged = S3Error::new(S3ErrorCode::NotModified);
        unchanged.set_status_code(StatusCode::NOT_MODIFIED);
        return Err(unchanged);
    }
    Ok(response)
}

fn timestamp(object: &Object) -> Option<dto::Timestamp> {
    parse_http_date(&object.last_modified).map(dto::Timestamp::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_decoded_once_and_garbage_is_refused() {
        assert_eq!(percent_decode("a%20b+c%2541").as_deref(), Some("a b+c%41"));
        assert_eq!(percent_decode("%C3%BC").as_deref(), Some("ü"));
        for garbage in ["%", "%4", "%zz", "%+1", "%ff"] {
            assert_eq!(percent_decode(garbage), None, "{garbage}");
        }
    }

    fn answer(asked: &[(HeaderName, &'static str)]) -> StatusCode {
        let object = Object {
            bucket: "b".into(),
            key: "k".into(),
            content_type: "text/plain".into(),
            content_encoding: None,
            cache_control: None,
            etag: "1".into(),
            last_modified: "Sun, 22 Nov 2026 10:00:00 GMT".into(),
            size: 4,
        };
        let mut headers = HeaderMap::new();
        for (name, value) in asked {
            headers.insert(name, HeaderValue::from_static(value));
        }
        match object_response(&object, b"body".to_vec(), &Method::GET, &headers, "id") {
            Ok(response) => response.status(),
            Err(error) => error.status,
        }
    }

    #[test]
    fn conditions_and_ranges_are_honoured() {
        let (earlier, later) = ("Sun, 22 Nov 2026 09:00:00 GMT", "Sun, 22 Nov 2026 11:00:00 GMT");
        assert_eq!(answer(&[]), StatusCode::OK);
        assert_eq!(answer(&[(IF_NONE_MATCH, "\"1\"")]), StatusCode::NOT_MODIFIED);
        assert_eq!(answer(&[(IF_NONE_MATCH, "\"0\", W/\"1\"")]), StatusCode::NOT_MODIFIED);
        assert_eq!(answer(&[(IF_NONE_MATCH, "\"0\""), (IF_MODIFIED_SINCE, later)]), StatusCode::OK);
        assert_eq!(answer(&[(IF_MODIFIED_SINCE, later)]), StatusCode::NOT_MODIFIED);
        assert_eq!(answer(&[(IF_MODIFIED_SINCE, earlier)]), StatusCode::OK);
        assert_eq!(answer(&[(IF_MODIFIED_SINCE, "nonsense")]), StatusCode::OK);
        assert_eq!(answer(&[(IF_MATCH, "\"0\"")]), StatusCode::PRECONDITION_FAILED);
        assert_eq!(answer(&[(IF_UNMODIFIED_SINCE, earlier)]), StatusCode::PRECONDITION_FAILED);
        assert_eq!(answer(&[(RANGE, "bytes=1-2")]), StatusCode::PARTIAL_CONTENT);
        assert_eq!(answer(&[(RANGE, "bytes=-2")]), StatusCode::PARTIAL_CONTENT);
        assert_eq!(answer(&[(RANGE, "bytes=9-")]), StatusCode::RANGE_NOT_SATISFIABLE);
        assert_eq!(answer(&[(RANGE, "nonsense")]), StatusCode::OK);
    }
}
