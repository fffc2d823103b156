//! Tables as declared: made, changed in place where DynamoDB can, and deleted.

use std::sync::Arc;

use dynoxide::DynoxideError;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::unreadable;
use crate::declared::Table;
use crate::{Cloud, CloudError};

impl Cloud {
    /// Makes the table, or changes what can be changed in place: indexes, expiry, recovery, protection, billing.
    ///
    /// # Errors
    /// [`CloudError::Declaration`] when the definition is not DynamoDB's, or asks for another key of an existing table
    /// or index: DynamoDB can't change those.
    pub fn put_table(&self, table: Table) -> Result<(), CloudError> {
        let mut wanted = table.definition.clone();
        if wanted.get("TableName").is_some_and(|name| name != table.name.as_str()) {
            return Err(refused(&table.name, "its definition names another table"));
        }
        if !wanted.is_object() {
            return Err(refused(&table.name, "its definition is not a JSON object"));
        }
        wanted["TableName"] = table.name.as_str().into();
        match self.description(&table.name)? {
            None => {
                let request = read(&table.name, &wanted)?;
                let created = self.dynamodb.database.create_table(request);
                created.map_err(|error| refused(&table.name, error))?;
            }
            Some(present) => self.change_table(&table.name, &present, &wanted)?,
        }
        self.set_expiry(&table.name, table.ttl_attribute.as_deref())?;
        self.declared.put(&self.store, table)
    }

    /// Deletes the table and its items; one that is not there counts as deleted.
    ///
    /// # Errors
    /// [`CloudError::Declaration`] while its deletion protection is on.
    pub fn delete_table(&self, name: &str) -> Result<(), CloudError> {
        if self.get_table(name).is_some_and(|table| table.deletion_protection) {
            return Err(refused(name, "its deletion protection is on"));
        }
        if self.description(name)?.is_some() {
            let request = read(name, &json!({"TableName": name}))?;
            self.dynamodb.database.delete_table(request).map_err(failed)?;
        }
        self.declared.delete::<Table>(&self.store, name)
    }

    /// The table as it was declared last.
    pub fn get_table(&self, name: &str) -> Option<Arc<Table>> {
        self.declared.get(name)
    }

    /// How many items the table holds; none when there is no such table.
    ///
    /// # Errors
    /// [`CloudError::Tables`] when the database fails.
    pub fn count_items(&self, table: &str) -> Result<u64, CloudError> {
        let all = self.dynamodb.database.table_stats().map_err(failed)?;
        let found = all.iter().find(|stats| stats.table_name == table);
        Ok(found.map_or(0, |stats| u64::try_from(stats.item_count).unwrap_or(0)))
    }

    /// The engine's own description of a table.
    fn description(&self, name: &str) -> Result<Option<Value>, CloudError> {
        let request = read(name, &json!({"TableName": name}))?;
        match self.dynamodb.database.describe_table(request) {
            Ok(description) => Ok(serde_json::to_value(description)?.get("Table").cloned()),
            Err(DynoxideError::ResourceNotFoundException(_)) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    fn change_table(&self, name: &str, present: &Value, wanted: &Value) -> Result<(), CloudError> {
        if !same_key(present, wanted) {
            return Err(refused(name, "its key can't be changed; delete it first, or use another name"));
        }
        let mut updates = Vec::new();
        for index in indexes(present) {
            let kept = indexes(wanted).find(|other| other["IndexName"] == index["IndexName"]);
            match kept {
                None => updates.push(json!({"Delete": {"IndexName": index["IndexName"]}})),
                Some(other) if !same_key(index, other) || !same_projection(index, other) => {
                    return Err(refused(
                        name,
                        format!("its index {} can't be changed; give the new one another name", index["IndexName"]),
                    ));
                }
                Some(_) => {}
            }
        }
        for index in indexes(wanted) {
            if !indexes(present).any(|other| other["IndexName"] == index["IndexName"]) {
                updates.push(json!({"Create": index}));
            }
        }
        // DynamoDB, and so the engine, changes one index at a time.
        for update in updates {
            let request = json!({
                "TableName": name,
                "AttributeDefinitions": wanted["AttributeDefinitions"],
                "GlobalSecondaryIndexUpdates": [update],
            });
            let updated = self.dynamodb.database.update_table(read(name, &request)?);
            updated.map_err(|error| refused(name, error))?;
        }
        let billing = |table: &Value| {
            let mode = table["BillingMode"].as_str();
            let mode = mode.or_else(|| table.pointer("/BillingModeSummary/BillingMode")?.as_str());
            mode.unwrap_or("PROVISIONED").to_owned()
        };
        if billing(present) != billing(wanted) {
            let mut request = json!({"TableName": name, "BillingMode": billing(wanted)});
            if let Some(throughput) = wanted.get("ProvisionedThroughput") {
                request["ProvisionedThroughput"] = throughput.clone();
            }
            let updated = self.dynamodb.database.update_table(read(name, &request)?);
            updated.map_err(|error| refused(name, error))?;
        }
        Ok(())
    }

    fn set_expiry(&self, name: &str, attribute: Option<&str>) -> Result<(), CloudError> {
        let database = &self.dynamodb.database;
        let request = read(name, &json!({"TableName": name}))?;
        let described = database.describe_time_to_live(request).map_err(failed)?;
        let described = serde_json::to_value(described)?;
        let present = described.pointer("/TimeToLiveDescription/AttributeName").and_then(Value::as_str);
        if present == attribute {
            return Ok(());
        }
        // Another attribute needs the present one off first.
        for (attribute, enabled) in [(present, false), (attribute, true)] {
            if let Some(attribute) = attribute {
                let request = json!({"TableName": name, "TimeToLiveSpecification": {
                    "AttributeName": attribute, "Enabled": enabled,
                }});
                let updated = database.update_time_to_live(read(name, &request)?);
                updated.map_err(|error| refused(name, error))?;
            }
        }
        Ok(())
    }
}

fn indexes(table: &Value) -> impl Iterator<Item = &Value> {
    let indexes = table["GlobalSecondaryIndexes"].as_array();
    indexes.into_iter().flatten()
}

fn same_key(one: &Value, other: &Value) -> bool {
    let parts = |table: &Value| -> Vec<(Value, Value)> {
        let schema = table["KeySchema"].as_array();
        let elements = schema.into_iter().flatten();
        elements.map(|element| (element["AttributeName"].clone(), element["KeyType"].clone())).collect()
    };
    parts(one) == parts(other)
}

fn same_projection(one: &Value, other: &Value) -> bool {
    let parts = |index: &Value| {
        let projection = &index["Projection"];
        let mut attributes: Vec<String> = projection["NonKeyAttributes"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|name| Some(name.as_str()?.to_owned()))
            .collect();
        attributes.sort();
        (projection["ProjectionType"].clone(), attributes)
    };
    parts(one) == parts(other)
}

fn read<Request: DeserializeOwned>(name: &str, request: &Value) -> Result<Request, CloudError> {
    serde_json::from_str(&request.to_string()).map_err(|error| refused(name, unreadable(error)))
}

fn refused(name: &str, reason: impl std::fmt::Display) -> CloudError {
    CloudError::Declaration(format!("The table {name} can't be as declared: {reason}."))
}

fn failed(error: DynoxideError) -> CloudError {
    CloudError::Tables(error.to_string())
}
