use serde::Serialize;

/// How a call ended, as its log line says. No code tells a known address from an unknown one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Code {
    Ok,
    /// The caller was told no, by a result.
    Refused,
    BadRequest,
    FaultDynamodb,
    /// An item of the users table is not as this program writes them.
    FaultItem,
    FaultSes,
    FaultCognito,
    /// The environment lacks a setting, or holds it in a form that can't be read.
    FaultSettings,
    FaultRandomness,
    FaultPanic,
}

/// A result for the caller, with the code for the log.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) json: Vec<u8>,
    pub(crate) code: Code,
}

impl Reply {
    pub(crate) fn new(result: &impl Serialize, code: Code) -> Result<Reply, Failure> {
        let json = serde_json::to_vec(result).map_err(|_| Failure::Fault(Code::FaultPanic))?;
        Ok(Reply { json, code })
    }

    pub(crate) fn ok(result: &impl Serialize) -> Result<Reply, Failure> {
        Reply::new(result, Code::Ok)
    }

    pub(crate) fn refused(result: &impl Serialize) -> Result<Reply, Failure> {
        Reply::new(result, Code::Refused)
    }
}

/// Why there is no result. The cause of a fault is dropped where it arises: it could hold what a log may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    BadRequest,
    Fault(Code),
}

impl Failure {
    pub(crate) fn code(self) -> Code {
        match self {
            Failure::BadRequest => Code::BadRequest,
            Failure::Fault(code) => code,
        }
    }
}

impl From<auth::BadRequest> for Failure {
    fn from(_: auth::BadRequest) -> Failure {
        Failure::BadRequest
    }
}

impl From<Failure> for lambda_runtime::Diagnostic {
    fn from(failure: Failure) -> Self {
        let (error_type, error_message) = match failure {
            Failure::BadRequest => ("BadRequest", auth::BadRequest.to_string()),
            Failure::Fault(_) => ("InternalError", "The service had a problem. Try again.".to_owned()),
        };
        lambda_runtime::Diagnostic { error_type: error_type.to_owned(), error_message }
    }
}
