//! Through `handle`, with callers who may do little.

use axum::http::Method;

use super::*;
use crate::call::Principal;
use crate::test_cloud::{self, ACCOUNT, REGION, TestCloud, session};

const TABLE: &str = "arn:aws:dynamodb:eu-west-1:000000000000:table/things";

fn things() -> Table {
    Table {
        name: "things".to_owned(),
        definition: json!({
            "AttributeDefinitions": [
                {"AttributeName": "id", "AttributeType": "S"},
                {"AttributeName": "token", "AttributeType": "S"},
            ],
            "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
            "BillingMode": "PAY_PER_REQUEST",
            "GlobalSecondaryIndexes": [{
                "IndexName": "token",
                "KeySchema": [{"AttributeName": "token", "KeyType": "HASH"}],
                "Projection": {"ProjectionType": "KEYS_ONLY"},
            }],
        }),
        ttl_attribute: Some("expiresAt".to_owned()),
        point_in_time_recovery: true,
        deletion_protection: false,
    }
}

fn world() -> TestCloud {
    let world = TestCloud::new();
    world.cloud.put_table(things()).expect("a table");
    world
}

async fn ask(world: &TestCloud, principal: Principal, operation: &str, request: Value) -> (u16, Value) {
    let target = format!("DynamoDB_20120810.{operation}");
    let headers = [("x-amz-target", target.as_str())];
    let call = test_cloud::call(principal, Method::POST, "/", &headers, request.to_string().as_bytes());
    match handle(&world.cloud, call).await {
        Ok(response) => (response.status().as_u16(), test_cloud::json_body(response).await),
        Err(error) => (error.status.as_u16(), json!({"__type": error.code, "message": error.message})),
    }
}

async fn admin(world: &TestCloud, operation: &str, request: Value) -> (u16, Value) {
    ask(world, Principal::Admin, operation, request).await
}

fn key(id: &str) -> Value {
    json!({"id": {"S": id}})
}

fn kind(answer: &Value) -> &str {
    answer["__type"].as_str().unwrap_or_default().rsplit('#').next().unwrap_or_default()
}

#[tokio::test]
async fn a_failed_condition_returns_the_item_that_was_asked_for() {
    let world = world();
    let put = json!({
        "TableName": "things", "Item": {"id": {"S": "a"}, "count": {"N": "1"}},
        "ConditionExpression": "attribute_not_exists(id)", "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    });
    assert_eq!(admin(&world, "PutItem", put.clone()).await, (200, json!({})));
    let (status, answer) = admin(&world, "PutItem", put).await;
    assert_eq!((status, kind(&answer)), (400, "ConditionalCheckFailedException"));
    assert_eq!(answer["Item"]["count"]["N"], "1");
    let (_, answer) = admin(&world, "GetItem", json!({"TableName": TABLE, "Key": key("a")})).await;
    assert_eq!(answer["Item"]["count"]["N"], "1", "a table may be named by its ARN");
    assert_eq!(world.cloud.count_items("things").expect("a count"), 1);

    let update = json!({"Update": {
        "TableName": "things", "Key": key("a"), "UpdateExpression": "SET #c = :c",
        "ConditionExpression": "#c = :c", "ExpressionAttributeNames": {"#c": "count"},
        "ExpressionAttributeValues": {":c": {"N": "2"}},
    }});
    let (status, answer) = admin(&world, "TransactWriteItems", json!({"TransactItems": [update]})).await;
    assert_eq!((status, kind(&answer)), (400, "TransactionCanceledException"));
    assert_eq!(answer["CancellationReasons"][0]["Code"], "ConditionalCheckFailed");
}

#[tokio::test]
async fn a_sparse_index_finds_an_item_while_it_has_the_attribute() {
    let world = world();
    let item = json!({"id": {"S": "a"}, "token": {"S": "t"}});
    admin(&world, "PutItem", json!({"TableName": "things", "Item": item})).await;
    let role = json!([{"Effect": "Allow", "Action": "dynamodb:Query", "Resource": format!("{TABLE}/index/token"),
        "Condition": {"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": ["t"]}}}]);
    world.role("reader", &role);
    let query = |value: &str| {
        json!({
            "TableName": "things", "IndexName": "token", "KeyConditionExpression": "#t = :t",
            "ExpressionAttributeNames": {"#t": "token"}, "ExpressionAttributeValues": {":t": {"S": value}},
        })
    };
    let reader = || Principal::Role(session("reader"));
    let (status, answer) = ask(&world, reader(), "Query", query("t")).await;
    assert_eq!((status, &answer["Items"][0]), (200, &item), "{answer}");
    let (_, answer) = ask(&world, reader(), "Query", query("other")).await;
    assert_eq!(kind(&answer), "AccessDeniedException");
    let mut whole = query("t");
    whole.as_object_mut().expect("an object").remove("IndexName");
    assert_eq!(kind(&ask(&world, reader(), "Query", whole).await.1), "AccessDeniedException");

    let remove = json!({"TableName": "things", "Key": key("a"), "UpdateExpression": "REMOVE token"});
    // A reserved word: the engine refuses it as DynamoDB does.
    assert_eq!(kind(&admin(&world, "UpdateItem", remove).await.1), "ValidationException");
    let remove = json!({"TableName": "things", "Key": key("a"), "UpdateExpression": "REMOVE #t",
        "ExpressionAttributeNames": {"#t": "token"}});
    assert_eq!(admin(&world, "UpdateItem", remove).await.0, 200);
    assert_eq!(ask(&world, reader(), "Query", query("t")).await.1["Count"], 0);
}

#[tokio::test]
async fn attributes_that_a_policy_does_not_name_are_out_of_reach() {
    let world = world();
    let condition = json!({
        "ForAllValues:StringEquals": {"dynamodb:Attributes": ["id", "name"]},
        "StringEqualsIfExists": {
            "dynamodb:Select": "SPECIFIC_ATTRIBUTES", "dynamodb:ReturnValues": ["NONE", "UPDATED_OLD", "UPDATED_NEW"],
        },
    });
    let actions = json!([
        "dynamodb:GetItem",
        "dynamodb:UpdateItem",
        "dynamodb:PutItem",
        "dynamodb:BatchGetItem",
        "dynamodb:BatchWriteItem"
    ]);
    world.role("limited", &json!([{"Effect": "Allow", "Action": actions, "Resource": TABLE, "Condition": condition}]));
    for (granted, operation, request) in [
        (
            true,
            "GetItem",
            json!({"Key": key("a"), "ProjectionExpression": "id, #n", "ExpressionAttributeNames": {"#n": "name"}}),
        ),
        (false, "GetItem", json!({"Key": key("a")})),
        (false, "GetItem", json!({"Key": key("a"), "ProjectionExpression": "id, secret.part"})),
        (false, "GetItem", json!({"Key": key("a"), "AttributesToGet": ["secret"]})),
        (true, "PutItem", json!({"Item": {"id": {"S": "a"}, "name": {"S": "n"}}})),
        (false, "PutItem", json!({"Item": {"id": {"S": "a"}, "secret": {"S": "n"}}})),
        (false, "PutItem", json!({"Item": key("a"), "ConditionExpression": "attribute_exists(secret)"})),
        (false, "PutItem", json!({"Item": key("a"), "Expected": {"secret": {"Exists": false}}})),
        (false, "PutItem", json!({"Item": key("a"), "ReturnValues": "ALL_OLD"})),
        (
            false,
            "UpdateItem",
            json!({"Key": key("a"), "UpdateExpression": "SET #n = secret", "ExpressionAttributeNames": {"#n": "name"}}),
        ),
        (
            true,
            "UpdateItem",
            json!({"Key": key("a"), "UpdateExpression": "SET #n = :s", "ExpressionAttributeNames": {"#n": "name"}, "ExpressionAttributeValues": {":s": {"S": "m"}}}),
        ),
        (true, "BatchWriteItem", json!({"RequestItems": {"things": [{"DeleteRequest": {"Key": key("a")}}]}})),
        (
            false,
            "BatchWriteItem",
            json!({"RequestItems": {TABLE: [{"PutRequest": {"Item": {"id": {"S": "a"}, "secret": {"S": "x"}}}}]}}),
        ),
        (true, "BatchGetItem", json!({"RequestItems": {"things": {"Keys": [key("a")], "ProjectionExpression": "id"}}})),
        (false, "BatchGetItem", json!({"RequestItems": {"things": {"Keys": [key("a")]}}})),
    ] {
        let mut request = request;
        if !operation.starts_with("Batch") {
            request["TableName"] = "things".into();
        }
        let (status, answer) = ask(&world, Principal::Role(session("limited")), operation, request.clone()).await;
        let denied = kind(&answer) == "AccessDeniedException";
        assert_eq!(denied, !granted, "{operation} {request} {answer}");
        assert!(denied || status == 200, "{operation} {request} {answer}");
    }
}

#[tokio::test]
async fn a_transaction_needs_the_action_of_each_item() {
    let world = world();
    let actions = json!(["dynamodb:PutItem", "dynamodb:ConditionCheckItem"]);
    let condition = json!({"StringEquals": {"dynamodb:EnclosingOperation": "TransactWriteItems"}});
    world.role("writer", &json!([{"Effect": "Allow", "Action": actions, "Resource": TABLE, "Condition": condition}]));
    let put = json!({"Put": {"TableName": "things", "Item": key("a")}});
    let check = json!({"ConditionCheck": {"TableName": "things", "Key": key("b"), "ConditionExpression": "attribute_not_exists(id)"}});
    let delete = json!({"Delete": {"TableName": "things", "Key": key("c")}});
    let writer = || Principal::Role(session("writer"));
    let (status, answer) = ask(&world, writer(), "TransactWriteItems", json!({"TransactItems": [put, check]})).await;
    assert_eq!(status, 200, "{answer}");
    let (_, answer) = ask(&world, writer(), "TransactWriteItems", json!({"TransactItems": [put, delete]})).await;
    assert_eq!(kind(&answer), "AccessDeniedException");
    let (_, answer) = ask(&world, writer(), "PutItem", json!({"TableName": "things", "Item": key("d")})).await;
    assert_eq!(kind(&answer), "AccessDeniedException", "not outside a transaction");
    assert_eq!(world.cloud.count_items("things").expect("a count"), 1);
    let decided: Vec<String> = world.decisions().into_iter().map(|(action, ..)| action).collect();
    assert_eq!(decided[..2], ["dynamodb:PutItem", "dynamodb:ConditionCheckItem"]);
}

#[tokio::test]
async fn who_may_nothing_learns_nothing() {
    let world = world();
    world.role("nobody", &json!([{"Effect": "Deny", "Action": "*", "Resource": "*"}]));
    for (operation, request) in [
        ("GetItem", json!({"TableName": "absent", "Key": key("a")})),
        ("GetItem", json!({"Key": key("a")})),
        ("BatchGetItem", json!({})),
        ("TransactWriteItems", json!({"TransactItems": []})),
        ("DescribeTable", json!({"TableName": "things"})),
        ("ListTables", json!({})),
        ("DeleteTable", json!({"TableName": "things"})),
    ] {
        let (_, answer) = ask(&world, Principal::Role(session("nobody")), operation, request).await;
        assert_eq!(kind(&answer), "AccessDeniedException", "{operation}");
    }
}

#[tokio::test]
async fn malformed_requests_get_the_errors_of_aws() {
    let world = world();
    for (operation, request, code) in [
        ("GetItem", json!([]), "SerializationException"),
        ("GetItem", json!({"TableName": 1, "Key": key("a")}), "SerializationException"),
        ("GetItem", json!({"TableName": "things"}), "ValidationException"),
        ("GetItem", json!({"TableName": "things", "Key": {"id": {"S": 5}}}), "SerializationException"),
        ("GetItem", json!({"TableName": "things", "Key": {"id": {}}}), "ValidationException"),
        ("GetItem", json!({"TableName": "absent", "Key": key("a")}), "ResourceNotFoundException"),
        (
            "GetItem",
            json!({"TableName": "arn:aws:dynamodb:us-east-1:1:table/things", "Key": key("a")}),
            "ResourceNotFoundException",
        ),
        ("PutItem", json!({"TableName": "things", "Item": {"id": {"S": ""}}}), "ValidationException"),
        ("TransactWriteItems", json!({"TransactItems": [1]}), "SerializationException"),
        ("BatchWriteItem", json!({"RequestItems": {"things": [], TABLE: []}}), "ValidationException"),
        ("ExecuteStatement", json!({"Statement": "SELECT * FROM things"}), "UnknownOperationException"),
    ] {
        let (status, answer) = admin(&world, operation, request.clone()).await;
        assert_eq!((status, kind(&answer)), (400, code), "{operation} {request} {answer}");
    }
}

#[tokio::test]
async fn a_description_names_this_account_and_what_was_declared() {
    let world = world();
    let (_, answer) = admin(&world, "DescribeTable", json!({"TableName": "things"})).await;
    assert_eq!(answer["Table"]["TableArn"], TABLE);
    assert_eq!(answer["Table"]["GlobalSecondaryIndexes"][0]["IndexArn"], format!("{TABLE}/index/token"));
    assert!(!answer.to_string().contains("dynoxide"), "{answer}");
    let (_, answer) = admin(&world, "DescribeTimeToLive", json!({"TableName": "things"})).await;
    assert_eq!(answer["TimeToLiveDescription"]["AttributeName"], "expiresAt");
    let (_, answer) = admin(&world, "DescribeContinuousBackups", json!({"TableName": "things"})).await;
    let recovery = "/ContinuousBackupsDescription/PointInTimeRecoveryDescription/PointInTimeRecoveryStatus";
    assert_eq!(answer.pointer(recovery), Some(&"ENABLED".into()));
    assert_eq!(admin(&world, "ListTables", json!({})).await.1["TableNames"], json!(["things"]));
    assert_eq!((REGION, ACCOUNT), ("eu-west-1", "000000000000"));
}

#[tokio::test]
async fn a_table_changes_in_place_and_keeps_its_items() {
    let world = world();
    admin(&world, "PutItem", json!({"TableName": "things", "Item": {"id": {"S": "a"}, "hue": {"S": "o"}}})).await;
    world.cloud.put_table(things()).expect("nothing to do");
    let mut table = things();
    table.ttl_attribute = Some("endsAt".to_owned());
    table.deletion_protection = true;
    table.definition["AttributeDefinitions"][1]["AttributeName"] = "hue".into();
    table.definition["GlobalSecondaryIndexes"] = json!([{
        "IndexName": "hue",
        "KeySchema": [{"AttributeName": "hue", "KeyType": "HASH"}],
        "Projection": {"ProjectionType": "ALL"},
    }]);
    world.cloud.put_table(table.clone()).expect("a change");
    world.cloud.put_table(table.clone()).expect("nothing to do");
    let query = json!({
        "TableName": "things", "IndexName": "hue", "KeyConditionExpression": "hue = :o",
        "ExpressionAttributeValues": {":o": {"S": "o"}},
    });
    let (_, answer) = admin(&world, "Query", query).await;
    assert_eq!(answer["Count"], 1, "{answer}");
    let (_, answer) = admin(&world, "DescribeTimeToLive", json!({"TableName": "things"})).await;
    assert_eq!(answer["TimeToLiveDescription"]["AttributeName"], "endsAt");

    let mut other_key = table.clone();
    other_key.definition["KeySchema"][0]["AttributeName"] = "hue".into();
    assert!(matches!(world.cloud.put_table(other_key), Err(CloudError::Declaration(_))));
    assert!(matches!(world.cloud.delete_table("things"), Err(CloudError::Declaration(_))));
    table.deletion_protection = false;
    world.cloud.put_table(table).expect("a change");
    world.cloud.delete_table("things").expect("a deletion");
    world.cloud.delete_table("things").expect("nothing to do");
    assert_eq!(world.cloud.count_items("things").expect("a count"), 0);
}
