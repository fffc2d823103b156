//! The two ports. On the API port all services share one endpoint: a call belongs to the service that its credential
//! scope names, an unsigned one to the service that its target, path or body names. Here a call gets its principal, and
//! an error the shape of its protocol.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, CONTENT_TYPE, HOST, ORIGIN,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::serve::ListenerExt;
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::call::{Call, Principal};
use crate::error::AwsError;
use crate::sigv4::{self, Authorization, Rejected};
use crate::{Cloud, CloudError};
use crate::{cognito, dynamodb, lambda, logs, mailbox, s3, ses, sts};

/// Lambda takes 6 MB; the service itself is exact about it.
const LARGEST_BODY: usize = 7 * 1024 * 1024;
const LARGEST_OBJECT: usize = 64 * 1024 * 1024;
/// How long open calls may take to end when the cloud does.
const FAREWELL: Duration = Duration::from_secs(2);

const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");
const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");
const EXPOSED: &str = "x-amzn-RequestId,x-amzn-ErrorType,x-amz-function-error,x-amz-log-result,\
                       x-amz-executed-version,x-amzn-trace-id";

/// Serves both ports until `shutdown` is ready; then ends the functions' processes.
pub(crate) async fn serve(
    cloud: Arc<Cloud>,
    api: TcpListener,
    site: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), CloudError> {
    dynamodb::start_sweeping(&cloud);
    logs::start(&cloud);
    lambda::start(&cloud);
    let (stop, stopped) = watch::channel(());
    let api = listen(api, Router::new().fallback(api_port).with_state(cloud.clone()), stopped.clone());
    let site = listen(site, Router::new().fallback(site_port).with_state(cloud.clone()), stopped);
    let serving = async { tokio::try_join!(api, site) };
    tokio::pin!(serving);
    let served = tokio::select! {
        served = &mut serving => served.map(drop),
        () = shutdown => {
            drop(stop);
            // Whoever is not done by then is cut off, as by a process that ends.
            let ended = tokio::time::timeout(FAREWELL, serving).await;
            ended.unwrap_or(Ok(((), ()))).map(drop)
        }
    };
    cloud.lambda.shutdown().await;
    cloud.logs.flush().await;
    served.map_err(CloudError::Network)
}

async fn listen(listener: TcpListener, router: Router, mut stopped: watch::Receiver<()>) -> std::io::Result<()> {
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
    });
    axum::serve(listener, router)
        .with_graceful_shutdown(async move {
            // An error means that the sender is gone: that is the signal.
            let _ = stopped.changed().await;
        })
        .await
}

async fn site_port(State(cloud): State<Arc<Cloud>>, request: Request) -> Response {
    if let Some(refusal) = refuse_host(request.headers()) {
        return refusal;
    }
    s3::site(&cloud, request.method(), request.uri(), request.headers())
}

async fn api_port(State(cloud): State<Arc<Cloud>>, request: Request) -> Response {
    if let Some(refusal) = refuse_host(request.headers()) {
        return refusal;
    }
    // In a task of its own: a panic ends one call and not its connection, and a call goes on when its caller hangs up.
    tokio::spawn(answer(cloud, request)).await.unwrap_or_else(|error| {
        tracing::error!(%error, "a call failed");
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    })
}

/// A page of another site may have its own name resolve to 127.0.0.1 (DNS rebinding): its calls carry that name.
fn refuse_host(headers: &HeaderMap) -> Option<Response> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().unwrap_or_default(),
        _ => {
            let text = "a request needs one Host header\n";
            return Some((StatusCode::BAD_REQUEST, text).into_response());
        }
    };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
        _ => host,
    };
    if matches!(name, "127.0.0.1" | "localhost" | "[::1]") {
        return None;
    }
    let text = "this port answers only under 127.0.0.1 or localhost\n";
    Some((StatusCode::MISDIRECTED_REQUEST, text).into_response())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Service {
    DynamoDb,
    Lambda,
    Logs,
    Cognito,
    Ses,
    Sts,
    S3,
}

/// How a service tells its errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Json(&'static str),
    Rest,
    Query(&'static str),
    S3,
}

impl Service {
    fn of_scope(name: &str) -> Option<Self> {
        Some(match name {
            "dynamodb" => Self::DynamoDb,
            "lambda" => Self::Lambda,
            "logs" => Self::Logs,
            "cognito-identity" => Self::Cognito,
            "ses" => Self::Ses,
            "sts" => Self::Sts,
            "s3" => Self::S3,
            _ => return None,
        })
    }

    /// For calls without a signature.
    fn guess(method: &Method, uri: &Uri, headers: &HeaderMap) -> Self {
        let text = |name| {
            let value = headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
            value.unwrap_or_default()
        };
        let target = text(HeaderName::from_static("x-amz-target"));
        match target.split(['.', '_']).next() {
            Some("AWSCognitoIdentityService") => return Self::Cognito,
            Some("DynamoDB") => return Self::DynamoDb,
            Some("Logs") => return Self::Logs,
            _ => {}
        }
        if is_rest(uri) {
            return Self::Lambda;
        }
        let form = text(CONTENT_TYPE).starts_with("application/x-www-form-urlencoded");
        if *method == Method::POST && uri.path() == "/" {
            return if form { Self::Ses } else { Self::DynamoDb };
        }
        Self::S3
    }

    fn protocol(self) -> Protocol {
        match self {
            Self::DynamoDb => Protocol::Json("application/x-amz-json-1.0"),
            Self::Logs | Self::Cognito => Protocol::Json("application/x-amz-json-1.1"),
            Self::Lambda => Protocol::Rest,
            Self::Ses => Protocol::Query(ses::NAMESPACE),
            Self::Sts => Protocol::Query(sts::NAMESPACE),
            Self::S3 => Protocol::S3,
        }
    }
}

/// Lambda's paths begin with the date of its API's version.
fn is_rest(uri: &Uri) -> bool {
    let bytes = uri.path().as_bytes();
    bytes.len() > 11 && bytes.starts_with(b"/20") && bytes[5] == b'-' && bytes[8] == b'-' && bytes[11] == b'/'
}

async fn answer(cloud: Arc<Cloud>, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    // Debug output of a library must not show them.
    for name in ["authorization", "x-amz-security-token"] {
        if let Some(value) = parts.headers.get_mut(name) {
            value.set_sensitive(true);
        }
    }
    let with_origin = parts.headers.contains_key(ORIGIN);
    let signed = parts.headers.contains_key("authorization");
    if !signed && mailbox::is_path(parts.uri.path()) {
        return mailbox::serve(&cloud, &parts.method, &parts.uri, &parts.headers);
    }
    if parts.method == Method::OPTIONS && with_origin {
        return preflight(&parts.uri, &parts.headers);
    }
    let request_id = crate::credentials::uuid();
    let authorization = Authorization::of(&parts.headers);
    let mut service = Service::guess(&parts.method, &parts.uri, &parts.headers);
    let mut known = true;
    if let Ok(Some(authorization)) = &authorization {
        match Service::of_scope(&authorization.service) {
            Some(scoped) => service = scoped,
            None => known = false,
        }
    }
    let outcome = if known {
        serve_call(&cloud, service, authorization, parts, body, &request_id).await
    } else {
        Err(AwsError::bad_request(
            "UnknownOperationException",
            "the credential scope names a service that the local cloud does not have",
        ))
    };
    let mut response = outcome.unwrap_or_else(|error| render(service.protocol(), &error, &request_id));
    if service != Service::S3 {
        complete(response.headers_mut(), &request_id, with_origin);
    }
    response
}

async fn serve_call(
    cloud: &Arc<Cloud>,
    service: Service,
    authorization: Result<Option<Authorization>, Rejected>,
    parts: Parts,
    body: Body,
    request_id: &str,
) -> Result<Response, AwsError> {
    let refused = |rejected| refusal(service, rejected);
    let largest = match service {
        Service::S3 => LARGEST_OBJECT,
        _ => LARGEST_BODY,
    };
    let body = axum::body::to_bytes(body, largest).await;
    let body = body.map_err(|error| unreadable(service, &error))?;
    let verified = match authorization.map_err(refused)? {
        Some(authorization) => {
            let request =
                sigv4::Request { method: &parts.method, uri: &parts.uri, headers: &parts.headers, body: &body };
            let (region, now) = (&cloud.options.region, OffsetDateTime::now_utc());
            let verified = authorization.verify(&request, &cloud.credentials, region, now);
            Some(verified.map_err(refused)?)
        }
        None => None,
    };
    if service == Service::S3 {
        return Ok(s3::serve(cloud, verified, request_id.to_owned(), parts, body).await);
    }
    let principal = match verified {
        Some(verified) => verified.principal,
        // Cognito has operations for everybody, and refuses unsigned calls of the others itself.
        None if service == Service::Cognito => Principal::Anonymous,
        None => return Err(refused(Rejected::Missing)),
    };
    let call = Call {
        principal,
        request_id: request_id.to_owned(),
        method: parts.method,
        uri: parts.uri,
        headers: parts.headers,
        body,
    };
    match service {
        Service::DynamoDb => dynamodb::handle(cloud, call).await,
        Service::Lambda => lambda::handle(cloud, call).await,
        Service::Logs => logs::handle(cloud, call).await,
        Service::Cognito => cognito::handle(cloud, call).await,
        Service::Ses => ses::handle(cloud, call).await,
        Service::Sts => sts::handle(cloud, call).await,
        Service::S3 => unreachable!("answered above"),
    }
}

/// What every response of a service carries.
fn complete(headers: &mut HeaderMap, request_id: &str, with_origin: bool) {
    if !headers.contains_key(REQUEST_ID)
        && let Ok(id) = HeaderValue::from_str(request_id)
    {
        headers.insert(REQUEST_ID, id);
    }
    if with_origin {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    }
}

/// AWS's services let every origin call them: what counts is the signature. S3 asks its bucket, and none here has rules.
fn preflight(uri: &Uri, headers: &HeaderMap) -> Response {
    let Some(method) = headers.get(ACCESS_CONTROL_REQUEST_METHOD) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    if uri.path() != "/" && !is_rest(uri) {
        let text = "CORSResponse: CORS is not enabled for this bucket.";
        return s3::error(StatusCode::FORBIDDEN, "AccessForbidden", text, "");
    }
    let mut response = StatusCode::OK.into_response();
    let answer = response.headers_mut();
    answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    answer.insert(ACCESS_CONTROL_ALLOW_METHODS, method.clone());
    if let Some(names) = headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
    }
    answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    answer.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("172800"));
    response
}

/// The body did not come whole: too long, or broken off.
fn unreadable(service: Service, error: &axum::Error) -> AwsError {
    let source = std::error::Error::source(error);
    if source.is_some_and(|source| source.is::<http_body_util::LengthLimitError>()) {
        return too_large(service);
    }
    let code = match service.protocol() {
        Protocol::S3 => "IncompleteBody",
        _ => "SerializationException",
    };
    AwsError::bad_request(code, "the body did not come whole")
}

fn too_large(service: Service) -> AwsError {
    let status = StatusCode::PAYLOAD_TOO_LARGE;
    match service {
        Service::Lambda => AwsError::new(
            status,
            "RequestTooLargeException",
            "Request must be smaller than 6291456 bytes for the InvokeFunction operation",
        ),
        Service::S3 => AwsError::new(
            StatusCode::BAD_REQUEST,
            "EntityTooLarge",
            "Your proposed upload exceeds the maximum allowed size",
        ),
        _ => AwsError::new(status, "RequestEntityTooLargeException", "Request size exceeds the maximum allowed"),
    }
}

/// A call that is not believed, in the words of its protocol.
pub(crate) fn missing_token() -> AwsError {
    AwsError::new(StatusCode::FORBIDDEN, "MissingAuthenticationTokenException", "Missing Authentication Token")
}

fn refusal(service: Service, rejected: Rejected) -> AwsError {
    const INVALID_TOKEN: &str = "The security token included in the request is invalid.";
    const EXPIRED: &str = "The security token included in the request is expired";
    let forbidden = |code, message: &str| AwsError::new(StatusCode::FORBIDDEN, code, message);
    let bad = |code, message: &str| AwsError::bad_request(code, message);
    match service.protocol() {
        Protocol::Json(_) | Protocol::Rest => match rejected {
            Rejected::Missing => missing_token(),
            Rejected::Malformed(problem) => bad("IncompleteSignatureException", &problem),
            Rejected::UnknownKey => forbidden("UnrecognizedClientException", INVALID_TOKEN),
            Rejected::ExpiredToken => forbidden("ExpiredTokenException", EXPIRED),
            Rejected::Skewed(problem) => forbidden("InvalidSignatureException", &problem),
            Rejected::Mismatch(problem) => forbidden("InvalidSignatureException", problem),
            Rejected::Body => forbidden(
                "InvalidSignatureException",
                "The value passed in as x-amz-content-sha256 does not match the payload",
            ),
        },
        Protocol::Query(_) => match rejected {
            Rejected::Missing => forbidden("MissingAuthenticationToken", "Request is missing Authentication Token"),
            Rejected::Malformed(problem) => bad("IncompleteSignature", &problem),
            Rejected::UnknownKey => forbidden("InvalidClientTokenId", INVALID_TOKEN),
            Rejected::ExpiredToken => forbidden("ExpiredToken", EXPIRED),
            Rejected::Skewed(problem) => forbidden("SignatureDoesNotMatch", &problem),
            Rejected::Mismatch(problem) => forbidden("SignatureDoesNotMatch", problem),
            Rejected::Body => forbidden(
                "SignatureDoesNotMatch",
                "The value passed in as x-amz-content-sha256 does not match the payload",
            ),
        },
        Protocol::S3 => match rejected {
            Rejected::Missing => forbidden("AccessDenied", "Access Denied"),
            Rejected::Malformed(problem) => bad("AuthorizationHeaderMalformed", &problem),
            Rejected::UnknownKey => {
                forbidden("InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.")
            }
            Rejected::ExpiredToken => bad("ExpiredToken", "The provided token has expired."),
            Rejected::Skewed(_) => forbidden(
                "RequestTimeTooSkewed",
                "The difference between the request time and the current time is too large.",
            ),
            Rejected::Mismatch(problem) => forbidden("SignatureDoesNotMatch", problem),
            Rejected::Body => bad(
                "XAmzContentSHA256Mismatch",
                "The provided 'x-amz-content-sha256' header does not match what was computed.",
            ),
        },
    }
}

fn render(protocol: Protocol, error: &AwsError, request_id: &str) -> Response {
    let fault = error.status.is_server_error();
    match protocol {
        Protocol::Json(content_type) => {
            // These services tell refusals with 400, whatever the cause.
            let status = match error.status {
                StatusCode::FORBIDDEN => StatusCode::BAD_REQUEST,
                status => status,
            };
            let body = serde_json::json!({"__type": error.code, "message": error.message});
            reply(status, content_type, body.to_string(), Some(error.code))
        }
        Protocol::Rest => {
            let kind = if fault { "Service" } else { "User" };
            let body = serde_json::json!({"Type": kind, "Message": error.message});
            reply(error.status, "application/json", body.to_string(), Some(error.code))
        }
        Protocol::Query(namespace) => {
            let kind = if fault { "Receiver" } else { "Sender" };
            let code = match error.code {
                "AccessDeniedException" => "AccessDenied",
                code => code,
            };
            let body = format!(
                "<ErrorResponse xmlns=\"{namespace}\"><Error><Type>{kind}</Type><Code>{code}</Code><Message>{}</Message>\
                 </Error><RequestId>{request_id}</RequestId></ErrorResponse>",
                xml(&error.message)
            );
            reply(error.status, "text/xml", body, None)
        }
        Protocol::S3 => s3::error(error.status, error.code, &error.message, request_id),
    }
}

fn reply(status: StatusCode, content_type: &'static str, body: String, code: Option<&'static str>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Some(code) = code {
        headers.insert(ERROR_TYPE, HeaderValue::from_static(code));
    }
    response
}

/// A good answer in JSON.
pub(crate) fn json(content_type: &'static str, body: &serde_json::Value) -> Response {
    reply(StatusCode::OK, content_type, body.to_string(), None)
}

/// A good answer of a query protocol: `content` is XML already.
pub(crate) fn query(namespace: &str, operation: &str, content: &str, request_id: &str) -> Response {
    let body = format!(
        "<{operation}Response xmlns=\"{namespace}\"><{operation}Result>{content}</{operation}Result>\
         <ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata></{operation}Response>"
    );
    reply(StatusCode::OK, "text/xml", body, None)
}

/// Text as XML takes it; characters that XML can't hold are left out.
pub(crate) fn xml(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\t' | '\n' | '\r' => escaped.push(letter),
            letter if letter.is_control() => {}
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(hosts: &[&str]) -> Option<StatusCode> {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, host.parse().expect("a value"));
        }
        refuse_host(&headers).map(|refusal| refusal.status())
    }

    #[test]
    fn only_names_of_this_machine_are_answered() {
        for own in ["127.0.0.1", "127.0.0.1:4566", "localhost", "localhost:80", "[::1]", "[::1]:80"] {
            assert_eq!(hosts(&[own]), None, "{own}");
        }
        for foreign in
            ["evil.example", "127.0.0.1.evil.example:80", "a.localhost", "localhost.", "", "127.0.0.1:x", "[::1"]
        {
            assert_eq!(hosts(&[foreign]), Some(StatusCode::MISDIRECTED_REQUEST), "{foreign}");
        }
        assert_eq!(hosts(&[]), Some(StatusCode::BAD_REQUEST));
        assert_eq!(hosts(&["127.0.0.1", "127.0.0.1"]), Some(StatusCode::BAD_REQUEST));
    }

    #[test]
    fn an_unsigned_call_is_refused_in_the_words_of_its_service() {
        let guess = |method: Method, path: &'static str, name: &'static str, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            Service::guess(&method, &Uri::from_static(path), &headers)
        };
        let target = "x-amz-target";
        assert_eq!(guess(Method::POST, "/", target, "AWSCognitoIdentityService.GetId"), Service::Cognito);
        assert_eq!(guess(Method::POST, "/", target, "DynamoDB_20120810.GetItem"), Service::DynamoDb);
        assert_eq!(guess(Method::POST, "/", target, "Logs_20140328.PutLogEvents"), Service::Logs);
        let form = "application/x-www-form-urlencoded; charset=utf-8";
        assert_eq!(guess(Method::POST, "/", "content-type", form), Service::Ses);
        let invoke = "/2015-03-31/functions/login/invocations";
        assert_eq!(guess(Method::POST, invoke, "accept", "*/*"), Service::Lambda);
        assert_eq!(guess(Method::GET, "/bucket/key", "accept", "*/*"), Service::S3);
        assert_eq!(guess(Method::GET, "/2015", "accept", "*/*"), Service::S3);
    }

    #[test]
    fn text_can_not_break_out_of_xml() {
        assert_eq!(xml("<a href=\"x\">&\u{0}</a>"), "&lt;a href=&quot;x&quot;&gt;&amp;&lt;/a&gt;");
    }
}
