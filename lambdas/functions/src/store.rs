//! The users table.

use std::collections::HashMap;
use std::time::Duration;

use auth::throttle::{BUDGET_KEY, budget_hour};
use auth::user::{EMAIL, Expected, User, VERSION, Value, Write};
use auth::{Email, Seconds, TokenHash};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValuesOnConditionCheckFailure};

use crate::aws::Aws;
use crate::outcome::{Code, Failure};

pub(crate) struct Store {
    client: Client,
    table: String,
}

type Item = HashMap<String, AttributeValue>;

const FAULT: Failure = Failure::Fault(Code::FaultDynamodb);

/// How often a change is decided anew over an item that somebody else has changed in the meantime.
const ATTEMPTS: usize = 3;

impl Store {
    pub(crate) fn new(aws: &Aws, table: String) -> Store {
        Store { client: Client::new(&aws.config), table }
    }

    /// One GetItem.
    pub(crate) async fn find(&self, email: &Email) -> Result<Option<User>, Failure> {
        let get = self.client.get_item().table_name(&self.table).key(EMAIL, text(email.as_str())).consistent_read(true);
        let item = get.send().await.map_err(|_| FAULT)?.item;
        item.map(|item| {
            User::from_attributes(|name| item.get(name).and_then(to_value)).map_err(|_| Failure::Fault(Code::FaultItem))
        })
        .transpose()
    }

    /// The user of a link: a Query of the index of that name, then a GetItem. The index is eventually consistent, so a
    /// miss is tried once more before it counts.
    pub(crate) async fn find_by_token(&self, index: &str, token: &TokenHash) -> Result<Option<User>, Failure> {
        let found = match self.look_up(index, token).await? {
            None => {
                tokio::time::sleep(Duration::from_millis(300)).await;
                self.look_up(index, token).await?
            }
            found => found,
        };
        match found {
            Some(email) => self.find(&email).await,
            None => Ok(None),
        }
    }

    async fn look_up(&self, index: &str, token: &TokenHash) -> Result<Option<Email>, Failure> {
        let query = self.client.query().table_name(&self.table).index_name(index).limit(1);
        let query = query
            .key_condition_expression("#token = :token")
            .expression_attribute_names("#token", index)
            .expression_attribute_values(":token", text(token.as_str()));
        let found = query.send().await.map_err(|_| FAULT)?;
        let email = found.items().first().and_then(|item| item.get(EMAIL)?.as_s().ok());
        Ok(email.and_then(|email| Email::parse(email).ok()))
    }

    /// One conditional UpdateItem. Answers whether it happened.
    pub(crate) async fn write(&self, write: &Write) -> Result<bool, Failure> {
        let update = self.update(write.email.as_str());
        let update = match write.expected {
            Expected::Absent => update.condition_expression("attribute_not_exists(email)"),
            Expected::Never => update.condition_expression("attribute_exists(email) AND attribute_not_exists(email)"),
            Expected::Version(version) => update
                .condition_expression("#expected = :expected")
                .expression_attribute_names("#expected", VERSION)
                .expression_attribute_values(":expected", number(version)),
        };
        Ok(applied(with_changes(update, write)).await? == Applied::Yes)
    }

    /// Changes a user as `decide` says, over fresh reads when others change it too. `None` when `decide` refuses, or when
    /// the item is not left alone for long enough.
    pub(crate) async fn change(
        &self,
        user: User,
        decide: impl Fn(&User) -> Option<User>,
    ) -> Result<Option<User>, Failure> {
        let mut current = user;
        for _ in 0..ATTEMPTS {
            let Some(next) = decide(&current) else { return Ok(None) };
            let (write, next) = current.change(next);
            if self.write(&write).await? {
                return Ok(Some(next));
            }
            match self.find(&current.email).await? {
                Some(user) => current = user,
                None => return Ok(None),
            }
        }
        Err(FAULT)
    }

    /// Takes one mail out of the hour's budget of the stage, by one UpdateItem (and one more at each turn of the hour).
    /// Answers whether there was one.
    ///
    /// When no mail is `wanted`, the same calls are made and nothing is taken.
    pub(crate) async fn take_from_budget(&self, now: Seconds, per_hour: u64, wanted: bool) -> Result<bool, Failure> {
        let hour = budget_hour(now);
        let budget = || {
            self.update(BUDGET_KEY)
                .expression_attribute_names("#hour", "hour")
                .expression_attribute_names("#sent", "sent")
                .expression_attribute_values(":hour", number(hour))
                .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
        };
        for _ in 0..ATTEMPTS {
            let take = budget()
                .update_expression("SET #hour = :hour, #sent = if_not_exists(#sent, :none) + :one")
                .expression_attribute_values(":none", number(0))
                .expression_attribute_values(":one", number(1));
            let take = if wanted {
                take.condition_expression("attribute_not_exists(#hour) OR (#hour = :hour AND #sent < :most)")
                    .expression_attribute_values(":most", number(per_hour))
            } else {
                take.condition_expression("#hour = :hour AND #sent < :none")
            };
            let counted_hour = match applied(take).await? {
                Applied::Yes => return Ok(true),
                Applied::No(item) => item.and_then(|item| item.get("hour")?.as_n().ok()?.parse::<u64>().ok()),
            };
            if counted_hour.is_none_or(|counted| counted >= hour) {
                return Ok(false);
            }
            let turn = budget()
                .update_expression("SET #hour = :hour, #sent = :sent")
                .condition_expression("#hour < :hour")
                .expression_attribute_values(":sent", number(u64::from(wanted)));
            if applied(turn).await? == Applied::Yes {
                return Ok(wanted);
            }
        }
        Ok(false)
    }

    fn update(&self, key: &str) -> UpdateItemFluentBuilder {
        self.client.update_item().table_name(&self.table).key(EMAIL, text(key))
    }
}

#[derive(PartialEq)]
enum Applied {
    Yes,
    /// The condition did not hold; with the item, where the update asked for it.
    No(Option<Item>),
}

async fn applied(update: UpdateItemFluentBuilder) -> Result<Applied, Failure> {
    match update.send().await {
        Ok(_) => Ok(Applied::Yes),
        Err(error) => match error.into_service_error() {
            error if error.is_conditional_check_failed_exception() => Ok(Applied::No(old_item(error))),
            _ => Err(FAULT),
        },
    }
}

fn old_item(error: aws_sdk_dynamodb::operation::update_item::UpdateItemError) -> Option<Item> {
    use aws_sdk_dynamodb::operation::update_item::UpdateItemError::ConditionalCheckFailedException;
    match error {
        ConditionalCheckFailedException(exception) => exception.item,
        _ => None,
    }
}

fn with_changes(mut update: UpdateItemFluentBuilder, write: &Write) -> UpdateItemFluentBuilder {
    let (mut set, mut remove) = (Vec::new(), Vec::new());
    for (i, (name, value)) in write.set.iter().enumerate() {
        set.push(format!("#s{i} = :s{i}"));
        update = update.expression_attribute_names(format!("#s{i}"), *name);
        update = update.expression_attribute_values(format!(":s{i}"), to_attribute(value));
    }
    for (i, name) in write.remove.iter().enumerate() {
        remove.push(format!("#r{i}"));
        update = update.expression_attribute_names(format!("#r{i}"), *name);
    }
    // Every write sets the version at least.
    let mut expression = format!("SET {}", set.join(", "));
    if !remove.is_empty() {
        expression.push_str(&format!(" REMOVE {}", remove.join(", ")));
    }
    update.update_expression(expression)
}

fn to_attribute(value: &Value) -> AttributeValue {
    match value {
        Value::Text(value) => text(value),
        Value::Number(value) => number(*value),
        Value::Numbers(values) => AttributeValue::L(values.iter().copied().map(number).collect()),
    }
}

fn to_value(attribute: &AttributeValue) -> Option<Value> {
    let number = |attribute: &AttributeValue| attribute.as_n().ok()?.parse().ok();
    match attribute {
        AttributeValue::S(value) => Some(Value::Text(value.clone())),
        AttributeValue::N(_) => number(attribute).map(Value::Number),
        AttributeValue::L(values) => values.iter().map(number).collect::<Option<_>>().map(Value::Numbers),
        _ => None,
    }
}

fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

fn number(number: u64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}
