//! DynamoDB: the tables live in an embedded engine; this module authorises every request against the attributes and
//! keys that it touches, runs it, and answers as AWS does.

mod access;
mod declare;

use std::sync::Arc;
use std::time::Duration;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use dynoxide::{Database, DynoxideError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::call::Call;
use crate::declared::Table;
use crate::error::AwsError;
use crate::{Cloud, CloudError, Options};

/// Answers one request of the protocol awsJson1.0.
pub(crate) async fn handle(cloud: &Arc<Cloud>, call: Call) -> Result<Response, AwsError> {
    let target = call.headers.get("x-amz-target");
    let operation = target
        .and_then(|target| target.to_str().ok())
        .and_then(|target| target.strip_prefix("DynamoDB_20120810."))
        .and_then(Operation::named)
        .ok_or_else(|| AwsError::bad_request("UnknownOperationException", ""))?;
    let mut request: Value = serde_json::from_slice(&call.body)
        .ok()
        .filter(Value::is_object)
        .ok_or_else(|| AwsError::bad_request("SerializationException", ""))?;

    // What is authorised and what runs is one and the same value: a second reading of the body could differ.
    let accesses = access::of(cloud, operation, &mut request)?;
    for access in &accesses {
        cloud.authorize(&call, access.action, &access.resource, access.keys.clone())?;
    }
    if accesses.iter().any(|access| access.foreign) {
        return Err(AwsError::bad_request("ResourceNotFoundException", "Requested resource not found"));
    }

    let cloud = cloud.clone();
    let answer =
        tokio::task::spawn_blocking(move || cloud.answer(operation, &request)).await.map_err(AwsError::internal)?;
    match answer {
        Ok(body) => Ok(respond(StatusCode::OK, body)),
        Err(Refusal::Aws(error)) => Err(error),
        // The engine writes AWS's own shape, with the item of a failed condition or the reasons of a transaction.
        Err(Refusal::Engine(error)) => {
            if error.status_code() >= 500 {
                return Err(AwsError::internal(error));
            }
            Ok(respond(StatusCode::BAD_REQUEST, error.to_json()))
        }
    }
}

/// Deletes expired items once a minute, until the cloud is gone.
pub(crate) fn start_sweeping(cloud: &Arc<Cloud>) {
    let cloud = Arc::downgrade(cloud);
    tokio::spawn(async move {
        let mut minutes = tokio::time::interval(Duration::from_secs(60));
        loop {
            minutes.tick().await;
            let Some(cloud) = cloud.upgrade() else { return };
            let swept = tokio::task::spawn_blocking(move || cloud.dynamodb.database.sweep_ttl()).await;
            if let Ok(Err(error)) = swept {
                tracing::error!(%error, "cannot delete expired items");
            }
        }
    });
}

/// The tables and their items.
pub(crate) struct Tables {
    database: Database,
}

impl Tables {
    pub(crate) fn open(options: &Options) -> Result<Self, CloudError> {
        let path = options.folder.join("dynamodb.sqlite");
        let database = Database::new(&path.to_string_lossy())
            .map_err(|error| CloudError::Tables(format!("cannot open {}: {error}", path.display())))?;
        Ok(Self { database })
    }
}

/// The operations that are answered. What changes a table's definition is authorised, then refused: tables are declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    GetItem,
    PutItem,
    UpdateItem,
    DeleteItem,
    Query,
    Scan,
    BatchGetItem,
    BatchWriteItem,
    TransactGetItems,
    TransactWriteItems,
    DescribeTable,
    ListTables,
    DescribeTimeToLive,
    DescribeContinuousBackups,
    Declaration(&'static str),
}

impl Operation {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "GetItem" => Self::GetItem,
            "PutItem" => Self::PutItem,
            "UpdateItem" => Self::UpdateItem,
            "DeleteItem" => Self::DeleteItem,
            "Query" => Self::Query,
            "Scan" => Self::Scan,
            "BatchGetItem" => Self::BatchGetItem,
            "BatchWriteItem" => Self::BatchWriteItem,
            "TransactGetItems" => Self::TransactGetItems,
            "TransactWriteItems" => Self::TransactWriteItems,
            "DescribeTable" => Self::DescribeTable,
            "ListTables" => Self::ListTables,
            "DescribeTimeToLive" => Self::DescribeTimeToLive,
            "DescribeContinuousBackups" => Self::DescribeContinuousBackups,
            "CreateTable" => Self::Declaration("dynamodb:CreateTable"),
            "DeleteTable" => Self::Declaration("dynamodb:DeleteTable"),
            "UpdateTable" => Self::Declaration("dynamodb:UpdateTable"),
            "UpdateTimeToLive" => Self::Declaration("dynamodb:UpdateTimeToLive"),
            "UpdateContinuousBackups" => Self::Declaration("dynamodb:UpdateContinuousBackups"),
            _ => return None,
        })
    }
}

enum Refusal {
    Aws(AwsError),
    Engine(DynoxideError),
}

impl From<DynoxideError> for Refusal {
    fn from(error: DynoxideError) -> Self {
        Self::Engine(error)
    }
}

impl Cloud {
    /// Runs an authorised request. Blocks: the engine is SQLite.
    fn answer(&self, operation: Operation, request: &Value) -> Result<String, Refusal> {
        let database = &self.dynamodb.database;
        let table_name = request["TableName"].as_str().unwrap_or_default();
        let answered = match operation {
            Operation::GetItem => run(request, |request| database.get_item(request)),
            Operation::PutItem => run(request, |request| database.put_item(request)),
            Operation::UpdateItem => run(request, |request| database.update_item(request)),
            Operation::DeleteItem => run(request, |request| database.delete_item(request)),
            Operation::Query => run(request, |request| database.query(request)),
            Operation::Scan => run(request, |request| database.scan(request)),
            Operation::BatchGetItem => run(request, |request| database.batch_get_item(request)),
            Operation::BatchWriteItem => run(request, |request| database.batch_write_item(request)),
            Operation::TransactGetItems => run(request, |request| database.transact_get_items(request)),
            Operation::TransactWriteItems => run(request, |request| database.transact_write_items(request)),
            Operation::ListTables => run(request, |request| database.list_tables(request)),
            Operation::DescribeTimeToLive => run(request, |request| database.describe_time_to_live(request)),
            Operation::DescribeTable => {
                let text = run(request, |request| database.describe_table(request))?;
                let declared = self.declared.get::<Table>(table_name);
                Ok(self.with_own_arns(&text, declared.as_deref()))
            }
            Operation::DescribeContinuousBackups => {
                return self.describe_continuous_backups(table_name);
            }
            Operation::Declaration(action) => {
                return Err(Refusal::Aws(AwsError::bad_request(
                    "ValidationException",
                    format!(
                        "{action}: the tables of a local stage are declared by its program; change it and run `cargo up`"
                    ),
                )));
            }
        };
        answered.map_err(|error| Refusal::Engine(enveloped(operation, error)))
    }

    /// The engine calls region and account by fixed names. Descriptions hold no user's data, so text is replaced.
    fn with_own_arns(&self, description: &str, declared: Option<&Table>) -> String {
        let Options { region, account, .. } = &self.options;
        let text = description
            .replace("arn:aws:dynamodb:dynoxide:000000000000:", &format!("arn:aws:dynamodb:{region}:{account}:"));
        let Ok(mut value) = serde_json::from_str::<Value>(&text) else {
            return text;
        };
        if let (Some(table), Some(declared)) = (value.get_mut("Table"), declared) {
            table["DeletionProtectionEnabled"] = declared.deletion_protection.into();
        }
        value.to_string()
    }

    fn describe_continuous_backups(&self, table_name: &str) -> Result<String, Refusal> {
        let table = self.declared.get::<Table>(table_name).ok_or_else(|| {
            Refusal::Aws(AwsError::bad_request("TableNotFoundException", format!("Table not found: {table_name}")))
        })?;
        let recovery = if table.point_in_time_recovery { "ENABLED" } else { "DISABLED" };
        Ok(json!({"ContinuousBackupsDescription": {
            "ContinuousBackupsStatus": "ENABLED",
            "PointInTimeRecoveryDescription": {"PointInTimeRecoveryStatus": recovery},
        }})
        .to_string())
    }
}

fn run<Request: DeserializeOwned, Answer: Serialize>(
    request: &Value,
    operation: impl FnOnce(Request) -> dynoxide::Result<Answer>,
) -> dynoxide::Result<String> {
    let request = serde_json::from_str(&request.to_string()).map_err(unreadable)?;
    let answer = operation(request)?;
    serde_json::to_string(&answer).map_err(|error| DynoxideError::InternalServerError(error.to_string()))
}

/// The engine's types mark the class of error that a misshapen request gets at the start of serde's message.
fn unreadable(error: serde_json::Error) -> DynoxideError {
    let text = error.to_string();
    let at = text.rfind(" at line ").unwrap_or(text.len());
    let message = text[..at].to_owned();
    type Class = fn(String) -> DynoxideError;
    let marked: [(&str, Class); 5] = [
        ("SERIALIZATION_AS_READ:", DynoxideError::SerializationException),
        ("SERIALIZATION:", DynoxideError::SerializationException),
        ("VALIDATION_AS_READ:", DynoxideError::ValidationException),
        ("VALIDATION_REQUEST:", DynoxideError::EnvelopedValidation),
        ("VALIDATION:", DynoxideError::ValidationException),
    ];
    for (mark, class) in marked {
        if let Some(message) = message.strip_prefix(mark) {
            return class(message.to_owned());
        }
    }
    if message.contains("empty AttributeValue") {
        return DynoxideError::ValidationException(
            "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes".to_owned(),
        );
    }
    let validation = ["missing field", "unknown variant", "invalid type: null"];
    if validation.iter().any(|sign| message.contains(sign)) || message.contains("Supplied AttributeValue") {
        return DynoxideError::ValidationException(message);
    }
    let found = message.strip_prefix("invalid type: ").unwrap_or_default();
    let wanted = if message.ends_with("a string") { "String" } else { "the expected type" };
    DynoxideError::SerializationException(match found.split(' ').next() {
        Some("integer" | "floating") => format!("NUMBER_VALUE cannot be converted to {wanted}"),
        Some("boolean") => format!("BOOLEAN cannot be converted to {wanted}"),
        Some("string") => format!("STRING_VALUE cannot be converted to {wanted}"),
        Some("map" | "sequence") => "Start of structure or map found where not expected.".to_owned(),
        _ => "Unexpected value found where not expected.".to_owned(),
    })
}

/// Three operations put an envelope around what their request's validation says.
fn enveloped(operation: Operation, error: DynoxideError) -> DynoxideError {
    const ENVELOPE: &str = "1 validation error detected: ";
    match error {
        DynoxideError::EnvelopedValidation(message)
            if matches!(operation, Operation::PutItem | Operation::UpdateItem | Operation::DeleteItem)
                && !message.starts_with(ENVELOPE) =>
        {
            DynoxideError::ValidationException(format!("{ENVELOPE}{message}"))
        }
        DynoxideError::EnvelopedValidation(message) => DynoxideError::ValidationException(message),
        error => error,
    }
}

fn respond(status: StatusCode, body: String) -> Response {
    (status, [(header::CONTENT_TYPE, "application/x-amz-json-1.0")], body).into_response()
}

#[cfg(test)]
mod tests;
