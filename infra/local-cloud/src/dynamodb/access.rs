//! What a request touches: the actions and resources that it needs, with the condition keys of fine-grained access
//! control. Where a request can be read in two ways, more counts as touched, so that a doubt denies.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::Operation;
use crate::Cloud;
use crate::call::ConditionKeys;
use crate::declared::Table;
use crate::error::AwsError;

/// One decision to ask for.
#[derive(Debug)]
pub(super) struct Access {
    pub(super) action: &'static str,
    pub(super) resource: String,
    pub(super) keys: ConditionKeys,
    /// The table was named by an ARN of another account or region: there is nothing behind it.
    pub(super) foreign: bool,
}

/// The decisions that `request` needs. Tables named by their ARN are renamed in place to what the engine knows.
pub(super) fn of(cloud: &Cloud, operation: Operation, request: &mut Value) -> Result<Vec<Access>, AwsError> {
    let action = match operation {
        Operation::GetItem => "dynamodb:GetItem",
        Operation::PutItem => "dynamodb:PutItem",
        Operation::UpdateItem => "dynamodb:UpdateItem",
        Operation::DeleteItem => "dynamodb:DeleteItem",
        Operation::Query => "dynamodb:Query",
        Operation::Scan => "dynamodb:Scan",
        Operation::BatchGetItem => return batch(cloud, "dynamodb:BatchGetItem", request),
        Operation::BatchWriteItem => return batch(cloud, "dynamodb:BatchWriteItem", request),
        Operation::TransactGetItems => return transaction(cloud, "TransactGetItems", request),
        Operation::TransactWriteItems => return transaction(cloud, "TransactWriteItems", request),
        Operation::DescribeTable => "dynamodb:DescribeTable",
        Operation::DescribeTimeToLive => "dynamodb:DescribeTimeToLive",
        Operation::DescribeContinuousBackups => "dynamodb:DescribeContinuousBackups",
        Operation::Declaration(action) => action,
        Operation::ListTables => {
            return Ok(vec![Access {
                action: "dynamodb:ListTables",
                resource: "*".to_owned(),
                keys: ConditionKeys::new(),
                foreign: false,
            }]);
        }
    };
    Ok(vec![on_one_table(cloud, action, request)?])
}

/// A request (or a member of a transaction) that names its table in `TableName`.
fn on_one_table(cloud: &Cloud, action: &'static str, request: &mut Value) -> Result<Access, AwsError> {
    let named = match request.get("TableName") {
        None | Some(Value::Null) => "",
        Some(name) => name.as_str().ok_or_else(misshapen)?,
    };
    let place = Place::of(cloud, named);
    if let Some(name) = place.renamed(named) {
        request["TableName"] = name.into();
    }
    let index = match request.get("IndexName") {
        None | Some(Value::Null) => None,
        Some(index) => Some(index.as_str().ok_or_else(misshapen)?.to_owned()),
    };
    let table = cloud.declared.get::<Table>(&place.name);
    let hash = hash_attributes(table.as_deref(), index.as_deref());
    let reads = matches!(action, "dynamodb:GetItem" | "dynamodb:Query" | "dynamodb:Scan");
    let writes = matches!(action, "dynamodb:PutItem" | "dynamodb:UpdateItem" | "dynamodb:DeleteItem");

    let mut touched = Touched::default();
    touched.by(request, &hash);
    if action == "dynamodb:Query" && !hash.is_empty() && touched.leading.is_empty() {
        // A query always has a partition key; one that can't be found must not pass for "no key".
        touched.leading.insert(String::new());
    }
    let mut keys = touched.keys();
    if reads {
        let select = selected(request, index.is_some());
        keys.insert("dynamodb:Select".to_owned(), vec![select]);
    }
    if writes {
        let returned = request["ReturnValues"].as_str().unwrap_or("NONE");
        keys.insert("dynamodb:ReturnValues".to_owned(), vec![returned.to_owned()]);
    }
    insert_consumed_capacity(&mut keys, request);
    let resource = match index {
        Some(index) if reads => format!("{}/index/{index}", place.arn),
        _ => place.arn,
    };
    Ok(Access { action, resource, keys, foreign: place.foreign })
}

/// BatchGetItem and BatchWriteItem: one decision for each table.
fn batch(cloud: &Cloud, action: &'static str, request: &mut Value) -> Result<Vec<Access>, AwsError> {
    let mut capacity = ConditionKeys::new();
    insert_consumed_capacity(&mut capacity, request);
    let tables = match request.get_mut("RequestItems") {
        None | Some(Value::Null) => return Ok(vec![nowhere(cloud, action)]),
        Some(tables) => tables.as_object_mut().ok_or_else(misshapen)?,
    };
    if tables.is_empty() {
        return Ok(vec![nowhere(cloud, action)]);
    }
    let mut accesses = Vec::new();
    let mut renamed = Map::new();
    for (named, part) in std::mem::take(tables) {
        let place = Place::of(cloud, &named);
        let table = cloud.declared.get::<Table>(&place.name);
        let hash = hash_attributes(table.as_deref(), None);
        let mut touched = Touched::default();
        let mut keys = capacity.clone();
        if action == "dynamodb:BatchGetItem" {
            touched.by(&part, &hash);
            for key in list(part.get("Keys"))? {
                touched.item(Some(key), &hash);
            }
            keys.insert("dynamodb:Select".to_owned(), vec![selected(&part, false)]);
        } else {
            for write in list(Some(&part))? {
                touched.item(write.pointer("/PutRequest/Item"), &hash);
                touched.item(write.pointer("/DeleteRequest/Key"), &hash);
            }
        }
        keys.extend(touched.keys());
        if renamed.insert(place.name.clone(), part).is_some() {
            return Err(AwsError::bad_request(
                "ValidationException",
                "The request names a table by its name and by its ARN",
            ));
        }
        accesses.push(Access { action, resource: place.arn, keys, foreign: place.foreign });
    }
    request["RequestItems"] = renamed.into();
    Ok(accesses)
}

/// Transactions: one decision for each item, on the action that the item stands for.
fn transaction(cloud: &Cloud, enclosing: &str, request: &mut Value) -> Result<Vec<Access>, AwsError> {
    let (kinds, empty): (&[(&str, &'static str)], _) = match enclosing {
        "TransactGetItems" => (&[("Get", "dynamodb:GetItem")], "dynamodb:GetItem"),
        _ => (
            &[
                ("Put", "dynamodb:PutItem"),
                ("Update", "dynamodb:UpdateItem"),
                ("Delete", "dynamodb:DeleteItem"),
                ("ConditionCheck", "dynamodb:ConditionCheckItem"),
            ],
            "dynamodb:PutItem",
        ),
    };
    let mut capacity = ConditionKeys::new();
    insert_consumed_capacity(&mut capacity, request);
    let items = match request.get_mut("TransactItems") {
        None | Some(Value::Null) => return Ok(vec![nowhere(cloud, empty)]),
        Some(items) => items.as_array_mut().ok_or_else(misshapen)?,
    };
    let mut accesses = Vec::new();
    for item in items {
        let item = item.as_object_mut().ok_or_else(misshapen)?;
        for (kind, action) in kinds {
            let Some(part) = item.get_mut(*kind).filter(|part| !part.is_null()) else {
                continue;
            };
            if !part.is_object() {
                return Err(misshapen());
            }
            let mut access = on_one_table(cloud, action, part)?;
            access.keys.extend(capacity.clone());
            access.keys.insert("dynamodb:EnclosingOperation".to_owned(), vec![enclosing.to_owned()]);
            // A transaction returns no values.
            access.keys.remove("dynamodb:ReturnValues");
            accesses.push(access);
        }
    }
    if accesses.is_empty() {
        accesses.push(nowhere(cloud, empty));
    }
    Ok(accesses)
}

/// A table as a request names it.
struct Place {
    name: String,
    arn: String,
    foreign: bool,
}

impl Place {
    fn of(cloud: &Cloud, named: &str) -> Self {
        let own = format!("arn:aws:dynamodb:{}:{}:table/", cloud.options.region, cloud.options.account);
        let foreign = named.starts_with("arn:") && !named.starts_with(&own);
        let name = named.strip_prefix(&own).unwrap_or(named);
        Self { name: name.to_owned(), arn: if foreign { named.to_owned() } else { format!("{own}{name}") }, foreign }
    }

    fn renamed(&self, named: &str) -> Option<&str> {
        (self.name != named).then_some(self.name.as_str())
    }
}

/// For a request that names no table at all: denied unless the caller may act on any, then told what is missing.
fn nowhere(cloud: &Cloud, action: &'static str) -> Access {
    Access { action, resource: Place::of(cloud, "").arn, keys: ConditionKeys::new(), foreign: false }
}

/// The partition key of the table or of one of its indexes. From the declaration, so in memory.
fn hash_attributes(table: Option<&Table>, index: Option<&str>) -> Vec<String> {
    let Some(table) = table else { return Vec::new() };
    let schema = match index {
        None => table.definition.get("KeySchema"),
        Some(index) => ["GlobalSecondaryIndexes", "LocalSecondaryIndexes"]
            .iter()
            .filter_map(|kind| table.definition.get(kind)?.as_array())
            .flatten()
            .find(|candidate| candidate["IndexName"] == index)
            .and_then(|index| index.get("KeySchema")),
    };
    let elements = schema.and_then(Value::as_array).into_iter().flatten();
    elements
        .filter(|element| element["KeyType"] == "HASH")
        .filter_map(|element| Some(element["AttributeName"].as_str()?.to_owned()))
        .collect()
}

/// Attributes and partition keys that a request touches.
#[derive(Default)]
struct Touched {
    attributes: BTreeSet<String>,
    leading: BTreeSet<String>,
}

impl Touched {
    /// Reads every member of a request that can name an attribute, those of the legacy parameters too.
    fn by(&mut self, request: &Value, hash: &[String]) {
        self.item(request.get("Key"), hash);
        self.item(request.get("Item"), hash);
        let names = request.get("ExpressionAttributeNames");
        for member in [
            "KeyConditionExpression",
            "FilterExpression",
            "ProjectionExpression",
            "ConditionExpression",
            "UpdateExpression",
        ] {
            if let Some(expression) = request.get(member).and_then(Value::as_str) {
                self.attributes.extend(attributes_in(expression, names));
            }
        }
        for member in ["Expected", "AttributeUpdates", "KeyConditions", "QueryFilter", "ScanFilter"] {
            let conditions = request.get(member).and_then(Value::as_object);
            self.attributes.extend(conditions.into_iter().flatten().map(|(name, _)| name.clone()));
        }
        let listed = request.get("AttributesToGet").and_then(Value::as_array);
        self.attributes.extend(listed.into_iter().flatten().filter_map(|name| Some(name.as_str()?.to_owned())));
        if let Some(expression) = request.get("KeyConditionExpression").and_then(Value::as_str) {
            let values = request.get("ExpressionAttributeValues");
            for placeholder in equated(expression, names, hash) {
                let value = values.and_then(|values| values.get(&placeholder));
                self.leading.extend(value.and_then(scalar));
            }
        }
        for name in hash {
            let condition = request.get("KeyConditions").and_then(|all| all.get(name));
            let values = condition.and_then(|condition| condition.get("AttributeValueList"));
            let values = values.and_then(Value::as_array).into_iter().flatten();
            self.leading.extend(values.filter_map(scalar));
        }
    }

    /// All attributes of an item or a key, and its partition key's value.
    fn item(&mut self, item: Option<&Value>, hash: &[String]) {
        let Some(item) = item.and_then(Value::as_object) else {
            return;
        };
        self.attributes.extend(item.keys().cloned());
        self.leading.extend(hash.iter().filter_map(|name| scalar(item.get(name)?)));
    }

    fn keys(self) -> ConditionKeys {
        let mut keys = ConditionKeys::new();
        for (key, values) in [("dynamodb:Attributes", self.attributes), ("dynamodb:LeadingKeys", self.leading)] {
            if !values.is_empty() {
                keys.insert(key.to_owned(), values.into_iter().collect());
            }
        }
        keys
    }
}

/// What a read returns: as said, or by what follows from the rest of the request.
fn selected(request: &Value, index: bool) -> String {
    let explicit = request.get("Select").and_then(Value::as_str);
    let named = ["ProjectionExpression", "AttributesToGet"]
        .iter()
        .any(|member| request.get(member).is_some_and(|value| !value.is_null()));
    match explicit {
        Some(select) => select,
        None if named => "SPECIFIC_ATTRIBUTES",
        None if index => "ALL_PROJECTED_ATTRIBUTES",
        None => "ALL_ATTRIBUTES",
    }
    .to_owned()
}

fn insert_consumed_capacity(keys: &mut ConditionKeys, request: &Value) {
    if let Some(wanted) = request.get("ReturnConsumedCapacity").and_then(Value::as_str) {
        keys.insert("dynamodb:ReturnConsumedCapacity".to_owned(), vec![wanted.to_owned()]);
    }
}

/// A key's value as IAM compares it.
fn scalar(value: &Value) -> Option<String> {
    let members = value.as_object()?;
    ["S", "N", "B"].iter().find_map(|kind| members.get(*kind)?.as_str()).map(str::to_owned)
}

#[derive(Debug, PartialEq)]
enum Token<'a> {
    /// A bare word or a `#placeholder`.
    Word(&'a str),
    /// A `:placeholder`.
    Value(&'a str),
    Sign(char),
}

fn tokens(expression: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        let tail = &rest[first.len_utf8()..];
        if first.is_alphanumeric() || matches!(first, '_' | '#' | ':') {
            let length = tail.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(tail.len());
            let (word, after) = rest.split_at(first.len_utf8() + length);
            match first {
                ':' => tokens.push(Token::Value(word)),
                // The number of a list's element.
                '0'..='9' if word.chars().all(|c| c.is_ascii_digit()) => {}
                _ => tokens.push(Token::Word(word)),
            }
            rest = after;
        } else {
            if !first.is_whitespace() {
                tokens.push(Token::Sign(first));
            }
            rest = tail;
        }
    }
    tokens
}

fn resolved(word: &str, names: Option<&Value>) -> String {
    let name = names.and_then(|names| names.get(word)?.as_str());
    name.filter(|_| word.starts_with('#')).unwrap_or(word).to_owned()
}

/// The top-level attributes that an expression of any kind names.
fn attributes_in(expression: &str, names: Option<&Value>) -> BTreeSet<String> {
    // All of them are reserved words, so none can be an attribute without a placeholder.
    const KEYWORDS: [&str; 9] = ["AND", "OR", "NOT", "BETWEEN", "IN", "SET", "REMOVE", "ADD", "DELETE"];
    let tokens = tokens(expression);
    let mut attributes = BTreeSet::new();
    for (at, token) in tokens.iter().enumerate() {
        let Token::Word(word) = token else { continue };
        let nested = at > 0 && tokens[at - 1] == Token::Sign('.');
        let function = !word.starts_with('#') && tokens.get(at + 1) == Some(&Token::Sign('('));
        let keyword = KEYWORDS.iter().any(|keyword| keyword.eq_ignore_ascii_case(word));
        if !nested && !function && !keyword {
            attributes.insert(resolved(word, names));
        }
    }
    attributes
}

/// The value placeholders that a key condition sets equal to one of the attributes `hash`.
fn equated(expression: &str, names: Option<&Value>, hash: &[String]) -> Vec<String> {
    let mut tokens = tokens(expression);
    tokens.retain(|token| !matches!(token, Token::Sign('(' | ')')));
    tokens
        .windows(3)
        .filter_map(|window| match window {
            [Token::Word(word), Token::Sign('='), Token::Value(value)]
            | [Token::Value(value), Token::Sign('='), Token::Word(word)] => {
                hash.contains(&resolved(word, names)).then(|| (*value).to_owned())
            }
            _ => None,
        })
        .collect()
}

fn list(value: Option<&Value>) -> Result<&[Value], AwsError> {
    match value {
        None | Some(Value::Null) => Ok(&[]),
        Some(value) => Ok(value.as_array().ok_or_else(misshapen)?),
    }
}

fn misshapen() -> AwsError {
    AwsError::bad_request("SerializationException", "Start of structure or map found where not expected.")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn names(expression: &str, names: Value) -> Vec<String> {
        attributes_in(expression, Some(&names)).into_iter().collect()
    }

    #[test]
    fn expressions_name_their_top_level_attributes() {
        let found = names(
            "SET #p = :p, counts.#p[3].x = if_not_exists(counts, :zero), seen = list_append(seen, :l) REMOVE resetToken ADD hits :one",
            json!({"#p": "password"}),
        );
        assert_eq!(found, ["counts", "hits", "password", "resetToken", "seen"]);
        let found = names(
            "attribute_not_exists(#e) OR (size (a.b) > :n AND NOT contains(tags, :t) and x BETWEEN :a AND :b)",
            json!({"#e": "with.dot"}),
        );
        assert_eq!(found, ["a", "tags", "with.dot", "x"]);
        assert_eq!(names("#unknown, b[0], b[1].c", json!({})), ["#unknown", "b"]);
    }

    #[test]
    fn the_partition_key_of_a_query_is_found_wherever_it_stands() {
        let hash = ["email".to_owned()];
        let names = json!({"#e": "email"});
        for expression in ["email = :e", "#e=:e AND begins_with(x, :x)", "x > :x AND (#e = :e)", ":e = email"] {
            assert_eq!(equated(expression, Some(&names), &hash), [":e"], "{expression}");
        }
        assert!(equated("other = :e", Some(&names), &hash).is_empty());
    }
}
