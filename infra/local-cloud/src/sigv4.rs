//! Signature Version 4, from the side that verifies: the request is signed again with AWS's own signer, over exactly the
//! headers that the caller names, and the two signatures are compared in constant time.

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials as SigningCredentials;
use aws_sigv4::http_request::{
    PercentEncodingMode, SignableBody, SignableRequest, SigningSettings, UriPathNormalizationMode,
};
use aws_sigv4::sign::v4;
use axum::http::{HeaderMap, Method, Uri};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use time::{OffsetDateTime, PrimitiveDateTime};

use crate::call::Principal;
use crate::credentials::{Credentials, Refused, hex};

/// AWS's tolerance for clocks that differ.
const SKEW: Duration = Duration::from_secs(15 * 60);

/// The Authorization header, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Authorization {
    pub(crate) access_key_id: String,
    /// `YYYYMMDD`
    pub(crate) date: String,
    pub(crate) region: String,
    pub(crate) service: String,
    signed_headers: Vec<String>,
    signature: String,
}

/// Why a call is not believed. Each protocol has its own code for it (see the gateway).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rejected {
    /// No signature where one is needed.
    Missing,
    /// The header or a part of it can't be read, or must be there and is not.
    Malformed(String),
    /// The key or its session token stands for nobody.
    UnknownKey,
    ExpiredToken,
    /// The clocks differ too much.
    Skewed(String),
    /// Signed with something else, or changed on the way.
    Mismatch(&'static str),
    /// The body is not the one that the caller declared (`x-amz-content-sha256`).
    Body,
}

/// What the verification reads of a request.
pub(crate) struct Request<'a> {
    pub(crate) method: &'a Method,
    pub(crate) uri: &'a Uri,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: &'a [u8],
}

/// Who made a call, and the secret that proves it (S3's chunk signatures need it once more).
pub(crate) struct Verified {
    pub(crate) principal: Principal,
    pub(crate) secret_access_key: String,
}

const DIFFERS: &str = "The request signature we calculated does not match the signature you provided. Check your AWS \
                       Secret Access Key and signing method. Consult the service documentation for details.";

impl Authorization {
    /// The header of a signed request; `None` if it carries none.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Option<Self>, Rejected> {
        let mut values = headers.get_all("authorization").iter();
        let Some(value) = values.next() else {
            return Ok(None);
        };
        if values.next().is_some() {
            return Err(malformed("more than one Authorization header"));
        }
        let value = value.to_str().map_err(|_| malformed("the Authorization header is not ASCII"))?;
        let parts = value
            .strip_prefix("AWS4-HMAC-SHA256")
            .filter(|rest| rest.starts_with([' ', '\t']))
            .ok_or_else(|| malformed("Authorization must use AWS4-HMAC-SHA256"))?;
        let (mut credential, mut signed_headers, mut signature) = (None, None, None);
        for part in parts.split(',') {
            let (name, value) =
                part.trim().split_once('=').ok_or_else(|| malformed("Authorization holds a part without '='"))?;
            let place = match name {
                "Credential" => &mut credential,
                "SignedHeaders" => &mut signed_headers,
                "Signature" => &mut signature,
                _ => return Err(malformed("Authorization holds an unknown part")),
            };
            if place.replace(value).is_some() {
                return Err(malformed("Authorization holds a part twice"));
            }
        }
        let credential = credential.ok_or_else(|| malformed("Authorization requires 'Credential'"))?;
        let [access_key_id, date, region, service, "aws4_request"] = credential.split('/').collect::<Vec<_>>()[..]
        else {
            return Err(malformed("Credential must be KEY/YYYYMMDD/REGION/SERVICE/aws4_request"));
        };
        let signed_headers = signed_headers.ok_or_else(|| malformed("Authorization requires 'SignedHeaders'"))?;
        let signature = signature.ok_or_else(|| malformed("Authorization requires 'Signature'"))?;
        Ok(Some(Self {
            access_key_id: access_key_id.to_owned(),
            date: date.to_owned(),
            region: region.to_owned(),
            service: service.to_owned(),
            signed_headers: signed_headers.split(';').map(str::to_owned).collect(),
            signature: signature.to_owned(),
        }))
    }

    /// Verifies `request` against this header, as of `now`.
    pub(crate) fn verify(
        &self,
        request: &Request<'_>,
        credentials: &Credentials,
        region: &str,
        now: OffsetDateTime,
    ) -> Result<Verified, Rejected> {
        let headers = request.headers;
        self.covers(headers)?;
        let amz_date =
            single(headers, "x-amz-date")?.ok_or_else(|| malformed("a signed request requires X-Amz-Date"))?;
        let signed_at =
            instant(amz_date).ok_or_else(|| malformed("X-Amz-Date must have the form YYYYMMDD'T'HHMMSS'Z'"))?;
        if !amz_date.starts_with(&self.date) || self.date.len() != 8 {
            return Err(Rejected::Mismatch(
                "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP",
            ));
        }
        if self.region != region {
            return Err(Rejected::Mismatch("Credential should be scoped to a valid region."));
        }
        if (now - signed_at).unsigned_abs() > SKEW {
            let problem = if signed_at < now { "Signature expired" } else { "Signature not yet current" };
            return Err(Rejected::Skewed(format!(
                "{problem}: the request was signed at {amz_date}, more than 15 minutes from now"
            )));
        }
        let token = single(headers, "x-amz-security-token")?;
        let found = credentials.lookup(&self.access_key_id, token, now).map_err(|refused| match refused {
            Refused::Unknown => Rejected::UnknownKey,
            Refused::Expired => Rejected::ExpiredToken,
        })?;
        let expected = self.sign_again(request, &found.secret_access_key, token, signed_at)?;
        if !bool::from(expected.as_bytes().ct_eq(self.signature.as_bytes())) {
            return Err(Rejected::Mismatch(DIFFERS));
        }
        Ok(Verified { principal: found.principal, secret_access_key: found.secret_access_key })
    }

    /// What is not signed could be changed on the way: host and every `x-amz-*` header must be, and none may appear twice.
    fn covers(&self, headers: &HeaderMap) -> Result<(), Rejected> {
        let signed = |name: &str| self.signed_headers.iter().any(|it| it == name);
        if !signed("host") {
            return Err(malformed("'Host' must be a signed header"));
        }
        for name in headers.keys() {
            let name = name.as_str();
            if name.starts_with("x-amz-") && !signed(name) {
                return Err(malformed(&format!("'{name}' must be a signed header")));
            }
        }
        for name in &self.signed_headers {
            if single(headers, name)?.is_none() {
                return Err(malformed(&format!("the signed header '{name}' is missing")));
            }
        }
        Ok(())
    }

    fn sign_again(
        &self,
        request: &Request<'_>,
        secret: &str,
        token: Option<&str>,
        signed_at: OffsetDateTime,
    ) -> Result<String, Rejected> {
        let mut settings = SigningSettings::default();
        // The caller says which headers are signed; nothing is left out of them.
        settings.excluded_headers = None;
        if self.service == "s3" {
            settings.percent_encoding_mode = PercentEncodingMode::Single;
            settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        }
        let identity =
            SigningCredentials::new(&self.access_key_id, secret, token.map(str::to_owned), None, "local-cloud").into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(&self.service)
            .time(SystemTime::from(signed_at))
            .settings(settings)
            .build()
            .map_err(|_| malformed("the credential scope is incomplete"))?
            .into();
        let mut signed = Vec::with_capacity(self.signed_headers.len());
        for name in &self.signed_headers {
            if let Some(value) = single(request.headers, name)? {
                signed.push((name.as_str(), value));
            }
        }
        let body = SignableBody::Precomputed(self.payload(request)?);
        let target = request.uri.path_and_query().map_or("/", |target| target.as_str());
        let signable = SignableRequest::new(request.method.as_str(), target, signed.into_iter(), body)
            .map_err(|_| malformed("the request cannot be brought into its canonical form"))?;
        let output = aws_sigv4::http_request::sign(signable, &parameters)
            .map_err(|_| malformed("the request cannot be brought into its canonical form"))?;
        Ok(output.signature().to_owned())
    }

    /// The hash of the body as it goes into the signature. Only S3 lets the caller replace it by a word.
    fn payload(&self, request: &Request<'_>) -> Result<String, Rejected> {
        let declared = single(request.headers, "x-amz-content-sha256")?;
        let actual = || hex(&Sha256::digest(request.body));
        match declared {
            None if self.service == "s3" => {
                Err(malformed("Missing required header for this request: x-amz-content-sha256"))
            }
            Some(word @ ("UNSIGNED-PAYLOAD" | "STREAMING-UNSIGNED-PAYLOAD-TRAILER")) if self.service == "s3" => {
                Ok(word.to_owned())
            }
            Some(word) if self.service == "s3" && word.starts_with("STREAMING-AWS4-HMAC-SHA256") => Ok(word.to_owned()),
            Some(declared) => {
                let actual = actual();
                if !declared.eq_ignore_ascii_case(&actual) {
                    return Err(Rejected::Body);
                }
                Ok(actual)
            }
            None => Ok(actual()),
        }
    }
}

/// The only value of a header: two of one name are two requests in one.
fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Rejected> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(malformed(&format!("more than one header '{name}'")));
    }
    value.to_str().map(Some).map_err(|_| malformed(&format!("the header '{name}' is not ASCII")))
}

fn instant(amz_date: &str) -> Option<OffsetDateTime> {
    let format = time::macros::format_description!("[year][month][day]T[hour][minute][second]Z");
    PrimitiveDateTime::parse(amz_date, format).ok().map(PrimitiveDateTime::assume_utc)
}

fn malformed(problem: &str) -> Rejected {
    Rejected::Malformed(problem.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::RoleSession;
    use crate::store::Store;

    /// A request signed by AWS's signer, as a client would.
    struct Signed {
        method: Method,
        uri: Uri,
        headers: HeaderMap,
        body: Vec<u8>,
    }

    const REGION: &str = "eu-west-1";

    fn credentials() -> Credentials {
        let store = Store::open(std::path::Path::new(":memory:")).expect("a store in memory");
        Credentials::load(&store).expect("new keys")
    }

    fn sign(key: &str, secret: &str, token: Option<&str>, time: OffsetDateTime) -> Signed {
        let body = br#"{"TableName":"users"}"#.to_vec();
        let mut headers = HeaderMap::new();
        headers.insert("host", "127.0.0.1:4566".parse().expect("a value"));
        headers.insert("x-amz-target", "DynamoDB_20120810.GetItem".parse().expect("a value"));
        let identity = SigningCredentials::new(key, secret, token.map(str::to_owned), None, "test").into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(REGION)
            .name("dynamodb")
            .time(time.into())
            .settings(SigningSettings::default())
            .build()
            .expect("complete")
            .into();
        let signable = SignableRequest::new(
            "POST",
            "/path%3Awith/escapes?b=2&a=1",
            headers.iter().map(|(name, value)| (name.as_str(), value.to_str().expect("ASCII"))),
            SignableBody::Bytes(&body),
        )
        .expect("signable");
        let (instructions, _) = aws_sigv4::http_request::sign(signable, &parameters).expect("signed").into_parts();
        let added: Vec<_> = instructions.headers().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        for (name, value) in added {
            let name: axum::http::HeaderName = name.parse().expect("a name");
            headers.insert(name, value.parse().expect("a value"));
        }
        Signed { method: Method::POST, uri: Uri::from_static("/path%3Awith/escapes?b=2&a=1"), headers, body }
    }

    fn by_admin(credentials: &Credentials) -> Signed {
        let admin = credentials.admin();
        sign(&admin.access_key_id, &admin.secret_access_key, None, OffsetDateTime::now_utc())
    }

    fn verify(credentials: &Credentials, signed: &Signed) -> Result<Principal, Rejected> {
        let request =
            Request { method: &signed.method, uri: &signed.uri, headers: &signed.headers, body: &signed.body };
        Authorization::of(&signed.headers)?
            .ok_or(Rejected::Missing)?
            .verify(&request, credentials, REGION, OffsetDateTime::now_utc())
            .map(|verified| verified.principal)
    }

    fn by_role(credentials: &Credentials) -> (Signed, Principal) {
        let session = RoleSession {
            role_arn: "arn:aws:iam::000000000000:role/reader".into(),
            session_name: "reading".into(),
            cognito: None,
        };
        let issued = credentials.issue(&session, Duration::from_secs(900));
        let signed = sign(
            &issued.access_key_id,
            &issued.secret_access_key,
            Some(&issued.session_token),
            OffsetDateTime::now_utc(),
        );
        (signed, Principal::Role(session))
    }

    #[test]
    fn a_good_signature_names_its_principal() {
        let credentials = credentials();
        let admin = by_admin(&credentials);
        assert_eq!(verify(&credentials, &admin), Ok(Principal::Admin));
        let (signed, role) = by_role(&credentials);
        assert_eq!(verify(&credentials, &signed), Ok(role));
    }

    #[test]
    fn no_signature_is_missing() {
        let credentials = credentials();
        let mut signed = by_admin(&credentials);
        signed.headers.remove("authorization");
        assert_eq!(verify(&credentials, &signed), Err(Rejected::Missing));
    }

    #[test]
    fn a_tampered_request_does_not_match() {
        let credentials = credentials();
        let tampering: [fn(&mut Signed); 5] = [
            |it| it.body.push(b' '),
            |it| it.method = Method::PUT,
            |it| it.uri = Uri::from_static("/other?b=2&a=1"),
            |it| it.uri = Uri::from_static("/path%3Awith/escapes?b=2&a=3"),
            |it| {
                let target = "DynamoDB_20120810.PutItem".parse().expect("a value");
                it.headers.insert("x-amz-target", target);
            },
        ];
        for tamper in tampering {
            let mut signed = by_admin(&credentials);
            tamper(&mut signed);
            assert_eq!(verify(&credentials, &signed), Err(Rejected::Mismatch(DIFFERS)));
        }
    }

    #[test]
    fn a_wrong_secret_does_not_match() {
        let credentials = credentials();
        let admin = credentials.admin();
        let signed = sign(&admin.access_key_id, "guess", None, OffsetDateTime::now_utc());
        assert_eq!(verify(&credentials, &signed), Err(Rejected::Mismatch(DIFFERS)));
    }

    #[test]
    fn an_unknown_key_stands_for_nobody() {
        let credentials = credentials();
        let signed = sign("AKIAUNKNOWN", "guess", None, OffsetDateTime::now_utc());
        assert_eq!(verify(&credentials, &signed), Err(Rejected::UnknownKey));
    }

    #[test]
    fn a_temporary_key_needs_its_token() {
        let credentials = credentials();
        let (mut signed, _) = by_role(&credentials);
        signed.headers.remove("x-amz-security-token");
        assert!(matches!(verify(&credentials, &signed), Err(Rejected::Malformed(_))));
        let session = RoleSession {
            role_arn: "arn:aws:iam::000000000000:role/reader".into(),
            session_name: "reading".into(),
            cognito: None,
        };
        let issued = credentials.issue(&session, Duration::from_secs(900));
        let now = OffsetDateTime::now_utc();
        let without = sign(&issued.access_key_id, &issued.secret_access_key, None, now);
        assert_eq!(verify(&credentials, &without), Err(Rejected::UnknownKey));
        let admin = credentials.admin();
        let (key, secret) = (&admin.access_key_id, &admin.secret_access_key);
        let with = sign(key, secret, Some("made-up"), now);
        assert_eq!(verify(&credentials, &with), Err(Rejected::UnknownKey));
    }

    #[test]
    fn clocks_may_differ_by_a_quarter_of_an_hour() {
        let credentials = credentials();
        let admin = credentials.admin();
        let at = |minutes: i64| {
            let time = OffsetDateTime::now_utc() + time::Duration::minutes(minutes);
            let signed = sign(&admin.access_key_id, &admin.secret_access_key, None, time);
            verify(&credentials, &signed)
        };
        assert_eq!(at(-14), Ok(Principal::Admin));
        assert_eq!(at(14), Ok(Principal::Admin));
        assert!(matches!(at(-16), Err(Rejected::Skewed(_))));
        assert!(matches!(at(16), Err(Rejected::Skewed(_))));
    }

    #[test]
    fn headers_that_are_doubled_or_not_signed_are_refused() {
        let credentials = credentials();
        for name in ["x-amz-target", "x-amz-date", "host", "authorization"] {
            let mut signed = by_admin(&credentials);
            let value = signed.headers[name].clone();
            signed.headers.append(axum::http::HeaderName::from_static(name), value);
            assert!(matches!(verify(&credentials, &signed), Err(Rejected::Malformed(_))), "{name}");
        }
        let mut signed = by_admin(&credentials);
        let value = "Tail".parse().expect("a value");
        signed.headers.insert("x-amz-log-type", value);
        assert!(matches!(verify(&credentials, &signed), Err(Rejected::Malformed(_))));
    }

    #[test]
    fn only_s3_may_leave_the_body_unsigned() {
        let credentials = credentials();
        let mut signed = by_admin(&credentials);
        let unsigned = "UNSIGNED-PAYLOAD".parse().expect("a value");
        signed.headers.insert("x-amz-content-sha256", unsigned);
        let authorization = signed.headers["authorization"].to_str().expect("ASCII");
        let names = "host;x-amz-content-sha256;";
        let authorization = authorization.replace("host;", names).parse().expect("a value");
        signed.headers.insert("authorization", authorization);
        assert_eq!(verify(&credentials, &signed), Err(Rejected::Body));
    }

    #[test]
    fn another_region_is_another_cloud() {
        let credentials = credentials();
        let mut signed = by_admin(&credentials);
        let authorization = signed.headers["authorization"].to_str().expect("ASCII");
        let authorization = authorization.replace(REGION, "us-east-1").parse().expect("a value");
        signed.headers.insert("authorization", authorization);
        assert!(matches!(verify(&credentials, &signed), Err(Rejected::Mismatch(_))));
    }

    #[test]
    fn garbage_in_the_header_is_refused_without_panic() {
        for garbage in [
            "",
            " ",
            "Bearer x",
            "AWS4-HMAC-SHA256",
            "AWS4-HMAC-SHA256 ",
            "AWS4-HMAC-SHA256 Credential",
            "AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host, Signature=0",
            "AWS4-HMAC-SHA256 Credential=////aws4_request, SignedHeaders=;;;host, Signature=",
            "AWS4-HMAC-SHA256 Credential=a/b/c/d/aws4_request, Credential=a/b/c/d/aws4_request",
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("authorization", garbage.parse().expect("a value"));
            let (method, uri) = (Method::GET, Uri::from_static("/"));
            let request = Request { method: &method, uri: &uri, headers: &headers, body: b"" };
            let verified = Authorization::of(&headers).and_then(|header| {
                let header = header.ok_or(Rejected::Missing)?;
                header.verify(&request, &credentials(), REGION, OffsetDateTime::now_utc())
            });
            assert!(matches!(verified, Err(Rejected::Malformed(_))), "{garbage}");
        }
    }
}
