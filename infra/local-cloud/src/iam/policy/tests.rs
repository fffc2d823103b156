//! AWS's documented rules of evaluation, one fact a test.

use super::*;
use serde_json::json;

const FUNCTION: &str = "arn:aws:lambda:eu-west-1:123456789012:function:login";
const TABLE: &str = "arn:aws:dynamodb:eu-west-1:123456789012:table/users";

fn document(statements: Value) -> Document {
    let document = json!({"Version": "2012-10-17", "Statement": statements});
    Document::parse("test.json", Kind::Identity, &document).unwrap_or_else(|error| panic!("{error}"))
}

fn refused(statement: Value) -> String {
    let document = json!({"Version": "2012-10-17", "Statement": [statement]});
    match Document::parse("test.json", Kind::Identity, &document) {
        Ok(_) => panic!("accepted: {document}"),
        Err(error) => error.to_string(),
    }
}

fn ask(document: &Document, action: &str, resource: &str, keys: &[(&str, &[&str])]) -> Decision {
    let owned = |values: &[&str]| values.iter().map(|&value| value.to_owned()).collect();
    let keys = keys.iter().map(|(key, values)| ((*key).to_owned(), owned(values)));
    let request = Request {
        principal: Principal::Role {
            role: "arn:aws:iam::123456789012:role/reader",
            session: "arn:aws:sts::123456789012:assumed-role/reader/s",
        },
        action,
        resource,
        keys: keys.collect(),
    };
    decide([document], &request)
}

fn allows(statements: Value, action: &str, resource: &str, keys: &[(&str, &[&str])]) -> bool {
    ask(&document(statements), action, resource, keys).allowed
}

/// A statement that allows everything under one condition.
fn allow_if(condition: Value) -> Value {
    json!([{"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": condition}])
}

/// Whether the condition holds for a request with these keys.
fn holds(condition: Value, keys: &[(&str, &[&str])]) -> bool {
    let allowed = allows(allow_if(condition.clone()), "s3:GetObject", "arn:aws:s3:::b/k", keys);
    // A Deny under the same condition must agree.
    let deny = json!([
        {"Effect": "Allow", "Action": "*", "Resource": "*"},
        {"Effect": "Deny", "Action": "*", "Resource": "*", "Condition": condition},
    ]);
    let denied = ask(&document(deny), "s3:GetObject", "arn:aws:s3:::b/k", keys).explicit_deny;
    assert_eq!(allowed, denied);
    allowed
}

#[test]
fn nothing_is_allowed_by_default() {
    let silent = json!([{"Effect": "Allow", "Action": "s3:PutObject", "Resource": "*"}]);
    let decision = ask(&document(silent), "s3:GetObject", "arn:aws:s3:::b/k", &[]);
    assert_eq!((decision.allowed, decision.explicit_deny), (false, false));
    let nobody = decide(
        [],
        &Request {
            principal: Principal::Anonymous,
            action: "s3:GetObject",
            resource: "arn:aws:s3:::b/k",
            keys: BTreeMap::new(),
        },
    );
    assert!(!nobody.allowed);
}

#[test]
fn an_explicit_deny_wins_wherever_it_stands() {
    let allow = json!({"Sid": "Yes", "Effect": "Allow", "Action": "s3:*", "Resource": "*"});
    let deny = json!({"Sid": "No", "Effect": "Deny", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::b/*"});
    for statements in [json!([allow, deny]), json!([deny, allow])] {
        let decision = ask(&document(statements), "s3:GetObject", "arn:aws:s3:::b/k", &[]);
        assert!(!decision.allowed && decision.explicit_deny);
        assert_eq!(decision.why, "denied by statement No of test.json");
    }
    let (allow, deny) = (document(json!([allow])), document(json!([deny])));
    let request = Request {
        principal: Principal::Anonymous,
        action: "s3:GetObject",
        resource: "arn:aws:s3:::b/k",
        keys: BTreeMap::new(),
    };
    assert!(decide([&allow, &deny], &request).explicit_deny);
    assert!(decide([&deny, &allow], &request).explicit_deny);
}

#[test]
fn the_answer_names_the_statement() {
    let statements = json!([
        {"Sid": "Other", "Effect": "Allow", "Action": "s3:*", "Resource": "*"},
        {"Effect": "Allow", "Action": "lambda:InvokeFunction", "Resource": FUNCTION},
    ]);
    let decision = ask(&document(statements), "lambda:InvokeFunction", FUNCTION, &[]);
    assert_eq!(decision.why, "allowed by statement 2 of test.json");
}

#[test]
fn actions_know_no_case_and_have_wildcards() {
    let allowed = |pattern: &str, action: &str| {
        allows(json!([{"Effect": "Allow", "Action": pattern, "Resource": "*"}]), action, TABLE, &[])
    };
    assert!(allowed("dynamodb:GetItem", "dynamodb:GetItem"));
    assert!(allowed("DynamoDB:getitem", "dynamodb:GetItem"));
    assert!(allowed("dynamodb:*Item", "dynamodb:GetItem"));
    assert!(allowed("dynamodb:?etItem", "dynamodb:GetItem"));
    assert!(allowed("*", "dynamodb:GetItem"));
    assert!(!allowed("dynamodb:Get", "dynamodb:GetItem"));
    assert!(!allowed("dynamodb:GetItem", "dynamodb:GetItems"));
    assert!(!allowed("s3:*", "dynamodb:GetItem"));
}

#[test]
fn not_action_means_all_others() {
    let statements = json!([{"Effect": "Allow", "NotAction": ["iam:*", "s3:PutObject"], "Resource": "*"}]);
    assert!(allows(statements.clone(), "s3:GetObject", "arn:aws:s3:::b/k", &[]));
    assert!(!allows(statements.clone(), "s3:PutObject", "arn:aws:s3:::b/k", &[]));
    assert!(!allows(statements, "IAM:CreateRole", "arn:aws:iam::123456789012:role/x", &[]));
}

#[test]
fn not_resource_means_all_others() {
    let statements = json!([{"Effect": "Allow", "Action": "s3:*", "NotResource": ["arn:aws:s3:::b/secret/*"]}]);
    assert!(allows(statements.clone(), "s3:GetObject", "arn:aws:s3:::b/open", &[]));
    assert!(!allows(statements, "s3:GetObject", "arn:aws:s3:::b/secret/k", &[]));
    let deny = json!([
        {"Effect": "Allow", "Action": "*", "Resource": "*"},
        {"Effect": "Deny", "Action": "s3:*", "NotResource": "arn:aws:s3:::b/open"},
    ]);
    assert!(allows(deny.clone(), "s3:GetObject", "arn:aws:s3:::b/open", &[]));
    assert!(!allows(deny, "s3:GetObject", "arn:aws:s3:::b/k", &[]));
}

#[test]
fn an_unqualified_function_does_not_grant_a_qualified_call() {
    let exact = json!([{"Effect": "Allow", "Action": "lambda:InvokeFunction", "Resource": FUNCTION}]);
    assert!(allows(exact.clone(), "lambda:InvokeFunction", FUNCTION, &[]));
    for qualifier in ["$LATEST", "prod", "1"] {
        let qualified = format!("{FUNCTION}:{qualifier}");
        assert!(!allows(exact.clone(), "lambda:InvokeFunction", &qualified, &[]));
    }
    let any = json!([{"Effect": "Allow", "Action": "lambda:InvokeFunction", "Resource": format!("{FUNCTION}:*")}]);
    assert!(allows(any.clone(), "lambda:InvokeFunction", &format!("{FUNCTION}:$LATEST"), &[]));
    assert!(!allows(any, "lambda:InvokeFunction", FUNCTION, &[]));
}

#[test]
fn resources_know_case_and_have_wildcards() {
    let allowed = |pattern: &str, resource: &str| {
        allows(json!([{"Effect": "Allow", "Action": "*", "Resource": pattern}]), "dynamodb:Query", resource, &[])
    };
    assert!(allowed("arn:aws:dynamodb:*:123456789012:table/users", TABLE));
    assert!(allowed("arn:aws:dynamodb:eu-west-?:*:table/*", &format!("{TABLE}/index/resetToken")));
    assert!(!allowed(TABLE, &format!("{TABLE}/index/resetToken")));
    assert!(!allowed("arn:aws:dynamodb:eu-west-1:123456789012:table/Users", TABLE));
    assert!(!allowed("arn:aws:s3:::*", TABLE));
    assert!(!allowed("arn:aws:dynamodb:us-east-1:123456789012:table/users", TABLE));
}

#[test]
fn an_action_without_resources_needs_the_star() {
    let only = |pattern: &str| json!([{"Effect": "Allow", "Action": "ses:GetSendQuota", "Resource": pattern}]);
    assert!(allows(only("*"), "ses:GetSendQuota", "*", &[]));
    assert!(!allows(only("arn:aws:ses:*:*:*"), "ses:GetSendQuota", "*", &[]));
    assert!(!allows(only("arn:*:ses:*:*:*"), "ses:GetSendQuota", "*", &[]));
}

#[test]
fn wildcards_in_the_request_are_only_letters() {
    let exact = json!([{"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::b/k"}]);
    assert!(!allows(exact, "s3:GetObject", "arn:aws:s3:::b/*", &[]));
    let star = json!([{"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::b/${*}"}]);
    assert!(allows(star.clone(), "s3:GetObject", "arn:aws:s3:::b/*", &[]));
    assert!(!allows(star, "s3:GetObject", "arn:aws:s3:::b/k", &[]));
    let odd = json!([{"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::b/${?}${$}"}]);
    assert!(allows(odd.clone(), "s3:GetObject", "arn:aws:s3:::b/?$", &[]));
    assert!(!allows(odd, "s3:GetObject", "arn:aws:s3:::b/a$", &[]));
}

#[test]
fn variables_take_their_value_from_the_request() {
    let own = json!([{"Effect": "Allow", "Action": "s3:*",
        "Resource": "arn:aws:s3:::b/${cognito-identity.amazonaws.com:sub}/*"}]);
    let sub = "cognito-identity.amazonaws.com:sub";
    let get = |resource: &str, values: &[&str]| allows(own.clone(), "s3:GetObject", resource, &[(sub, values)]);
    assert!(get("arn:aws:s3:::b/me/k", &["me"]));
    assert!(!get("arn:aws:s3:::b/you/k", &["me"]));
    // No value, an empty key, several values, or wildcards: the statement does not apply.
    assert!(!get("arn:aws:s3:::b//k", &[]));
    assert!(!get("arn:aws:s3:::b/me/k", &["me", "you"]));
    for wild in ["*", "m?", "m*", "$"] {
        assert!(!get("arn:aws:s3:::b/me/k", &[wild]));
        assert!(!get(&format!("arn:aws:s3:::b/{wild}/k"), &[wild]));
    }
}

#[test]
fn variable_names_know_no_case() {
    let own = json!([{"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::b/${AWS:UserName}"}]);
    assert!(allows(own, "s3:GetObject", "arn:aws:s3:::b/ann", &[("aws:username", &["ann"])]));
}

#[test]
fn variables_may_have_a_default() {
    let own =
        json!([{"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::b/${aws:PrincipalTag/team, 'all'}"}]);
    assert!(allows(own.clone(), "s3:GetObject", "arn:aws:s3:::b/all", &[]));
    assert!(allows(own, "s3:GetObject", "arn:aws:s3:::b/red", &[("aws:PrincipalTag/team", &["red"])]));
}

#[test]
fn variables_work_in_conditions() {
    let condition =
        json!({"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": ["${cognito-identity.amazonaws.com:sub}"]}});
    let sub = ("cognito-identity.amazonaws.com:sub", &["me"][..]);
    let allowed = |keys: &[(&str, &[&str])]| allows(allow_if(condition.clone()), "dynamodb:GetItem", TABLE, keys);
    assert!(allowed(&[sub, ("dynamodb:LeadingKeys", &["me"])]));
    assert!(!allowed(&[sub, ("dynamodb:LeadingKeys", &["you"])]));
    assert!(!allowed(&[sub, ("dynamodb:LeadingKeys", &["me", "you"])]));
    // Without a value the statement does not apply, though ForAllValues alone would hold for no values.
    assert!(!allowed(&[]));
}

#[test]
fn a_deny_whose_variable_has_no_value_does_not_apply() {
    let statements = json!([
        {"Effect": "Allow", "Action": "*", "Resource": "*"},
        {"Effect": "Deny", "Action": "*", "Resource": "arn:aws:s3:::b/${aws:username}"},
    ]);
    assert!(allows(statements.clone(), "s3:GetObject", "arn:aws:s3:::b/ann", &[]));
    assert!(!allows(statements.clone(), "s3:GetObject", "arn:aws:s3:::b/ann", &[("aws:username", &["ann"])]));
    // Wildcards in the value do not switch a Deny off.
    assert!(!allows(statements, "s3:GetObject", "arn:aws:s3:::b/a*", &[("aws:username", &["a*"])]));
}

#[test]
fn the_old_language_has_no_variables() {
    let document = json!({"Version": "2008-10-17", "Statement": [
        {"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::b/${aws:username}"}]});
    let document = Document::parse("old", Kind::Identity, &document).expect("valid");
    let keys = [("aws:username", &["ann"][..])];
    assert!(!ask(&document, "s3:GetObject", "arn:aws:s3:::b/ann", &keys).allowed);
    assert!(ask(&document, "s3:GetObject", "arn:aws:s3:::b/${aws:username}", &keys).allowed);
}

#[test]
fn string_equals_compares_letters_and_alternatives() {
    let condition = json!({"StringEquals": {"ses:FromAddress": ["a@b", "c@d"]}});
    assert!(holds(condition.clone(), &[("ses:FromAddress", &["c@d"])]));
    assert!(holds(condition.clone(), &[("SES:fromaddress", &["a@b"])]));
    assert!(!holds(condition.clone(), &[("ses:FromAddress", &["C@d"])]));
    assert!(!holds(condition, &[]));
    let star = json!({"StringEquals": {"ses:FromAddress": "*"}});
    assert!(!holds(star.clone(), &[("ses:FromAddress", &["a@b"])]));
    assert!(holds(star, &[("ses:FromAddress", &["*"])]));
    let any_case = json!({"StringEqualsIgnoreCase": {"ses:FromAddress": "A@B"}});
    assert!(holds(any_case, &[("ses:FromAddress", &["a@b"])]));
}

#[test]
fn string_not_equals_holds_without_the_key_and_needs_all_to_differ() {
    let condition = json!({"StringNotEquals": {"aws:RequestedRegion": ["eu-west-1", "eu-west-2"]}});
    assert!(holds(condition.clone(), &[("aws:RequestedRegion", &["us-east-1"])]));
    assert!(!holds(condition.clone(), &[("aws:RequestedRegion", &["eu-west-2"])]));
    assert!(holds(condition, &[]));
}

#[test]
fn string_like_has_wildcards() {
    let condition = json!({"StringLike": {"s3:prefix": ["home/*", "a?c"]}});
    assert!(holds(condition.clone(), &[("s3:prefix", &["home/x/y"])]));
    assert!(holds(condition.clone(), &[("s3:prefix", &["abc"])]));
    assert!(!holds(condition.clone(), &[("s3:prefix", &["ac"])]));
    assert!(!holds(condition.clone(), &[("s3:prefix", &["*"])]));
    assert!(!holds(condition, &[]));
    let not = json!({"StringNotLike": {"s3:prefix": "home/*"}});
    assert!(!holds(not.clone(), &[("s3:prefix", &["home/"])]));
    assert!(holds(not, &[]));
}

#[test]
fn all_conditions_must_hold() {
    let condition = json!({
        "StringEquals": {"a:x": "1", "a:y": "2"},
        "StringLike": {"a:z": "*"},
    });
    assert!(holds(condition.clone(), &[("a:x", &["1"]), ("a:y", &["2"]), ("a:z", &["3"])]));
    assert!(!holds(condition.clone(), &[("a:x", &["1"]), ("a:y", &["0"]), ("a:z", &["3"])]));
    assert!(!holds(condition, &[("a:x", &["1"]), ("a:y", &["2"])]));
}

#[test]
fn for_any_value_needs_one() {
    let condition = json!({"ForAnyValue:StringLike": {"cognito-identity.amazonaws.com:amr": "authenticated"}});
    let amr = "cognito-identity.amazonaws.com:amr";
    assert!(holds(condition.clone(), &[(amr, &["authenticated", "login.app"])]));
    assert!(holds(condition.clone(), &[(amr, &["authenticated"])]));
    assert!(!holds(condition.clone(), &[(amr, &["unauthenticated"])]));
    assert!(!holds(condition.clone(), &[(amr, &[])]));
    assert!(!holds(condition, &[]));
}

#[test]
fn for_all_values_needs_all_and_holds_for_none() {
    let condition = json!({"ForAllValues:StringEquals": {"dynamodb:Attributes": ["email", "password"]}});
    let attributes = "dynamodb:Attributes";
    assert!(holds(condition.clone(), &[(attributes, &["email"])]));
    assert!(holds(condition.clone(), &[(attributes, &["email", "password"])]));
    assert!(!holds(condition.clone(), &[(attributes, &["email", "identityId"])]));
    assert!(holds(condition.clone(), &[(attributes, &[])]));
    assert!(holds(condition, &[]));
    let not = json!({"ForAllValues:StringNotEquals": {"dynamodb:Attributes": ["password"]}});
    assert!(holds(not.clone(), &[(attributes, &["email", "identityId"])]));
    assert!(!holds(not, &[(attributes, &["email", "password"])]));
}

#[test]
fn null_asks_whether_a_key_is_there() {
    let absent = json!({"Null": {"aws:TokenIssueTime": "true"}});
    assert!(holds(absent.clone(), &[]));
    assert!(holds(absent.clone(), &[("aws:TokenIssueTime", &[])]));
    assert!(!holds(absent, &[("aws:TokenIssueTime", &["x"])]));
    let present = json!({"Null": {"aws:TokenIssueTime": false}});
    assert!(holds(present.clone(), &[("aws:TokenIssueTime", &["x"])]));
    assert!(!holds(present, &[]));
}

#[test]
fn if_exists_holds_without_the_key() {
    let condition = json!({"StringEqualsIfExists": {"ses:FromDisplayName": "Us"}});
    assert!(holds(condition.clone(), &[]));
    assert!(holds(condition.clone(), &[("ses:FromDisplayName", &["Us"])]));
    assert!(!holds(condition, &[("ses:FromDisplayName", &["Them"])]));
    let arn = json!({"ArnLikeIfExists": {"aws:SourceArn": "arn:aws:s3:::b"}});
    assert!(holds(arn.clone(), &[]));
    assert!(!holds(arn, &[("aws:SourceArn", &["arn:aws:s3:::c"])]));
}

#[test]
fn bool_compares_truth() {
    for value in [json!("true"), json!(true), json!("True")] {
        let condition = json!({"Bool": {"aws:SecureTransport": value}});
        assert!(holds(condition.clone(), &[("aws:SecureTransport", &["true"])]));
        assert!(!holds(condition.clone(), &[("aws:SecureTransport", &["false"])]));
        assert!(!holds(condition, &[]));
    }
    let if_exists = json!({"BoolIfExists": {"aws:MultiFactorAuthPresent": "false"}});
    assert!(holds(if_exists, &[]));
    let all = json!({"ForAllValues:Bool": {"a:b": "true"}});
    assert!(!holds(all, &[("a:b", &["true", "false"])]));
}

#[test]
fn numbers_dates_and_addresses_compare_as_such() {
    assert!(holds(json!({"NumericLessThanEquals": {"s3:max-keys": "10"}}), &[("s3:max-keys", &["9"])]));
    assert!(!holds(json!({"NumericLessThanEquals": {"s3:max-keys": 10}}), &[("s3:max-keys", &["11"])]));
    let until = json!({"DateLessThan": {"aws:CurrentTime": "2030-01-01T00:00:00Z"}});
    assert!(holds(until.clone(), &[("aws:CurrentTime", &["2029-12-31T23:59:59.123Z"])]));
    assert!(!holds(until, &[("aws:CurrentTime", &["2030-01-01T00:00:00.000Z"])]));
    let epoch = json!({"DateGreaterThan": {"aws:EpochTime": "1700000000"}});
    assert!(holds(epoch, &[("aws:EpochTime", &["1700000001"])]));
    let here = json!({"IpAddress": {"aws:SourceIp": ["10.0.0.0/8", "127.0.0.1"]}});
    assert!(holds(here.clone(), &[("aws:SourceIp", &["127.0.0.1"])]));
    assert!(holds(here.clone(), &[("aws:SourceIp", &["10.1.2.3"])]));
    assert!(!holds(here, &[("aws:SourceIp", &["11.0.0.1"])]));
    assert!(holds(json!({"NotIpAddress": {"aws:SourceIp": "10.0.0.0/8"}}), &[("aws:SourceIp", &["127.0.0.1"])]));
}

#[test]
fn arns_compare_part_by_part() {
    for operator in ["ArnLike", "ArnEquals"] {
        let condition = json!({operator: {"aws:PrincipalArn": "arn:aws:iam::*:role/app-*"}});
        let principal = "aws:PrincipalArn";
        assert!(holds(condition.clone(), &[(principal, &["arn:aws:iam::123456789012:role/app-x"])]));
        assert!(!holds(condition.clone(), &[(principal, &["arn:aws:iam::123456789012:role/other"])]));
        // One `*` can't stand for `1:user/x:role`.
        assert!(!holds(condition.clone(), &[(principal, &["arn:aws:iam::1:user/x:role/app-x"])]));
        assert!(!holds(condition, &[]));
    }
    let not = json!({"ArnNotEquals": {"aws:PrincipalArn": "arn:aws:iam::123456789012:role/*"}});
    assert!(holds(not.clone(), &[]));
    assert!(!holds(not, &[("aws:PrincipalArn", &["arn:aws:iam::123456789012:role/x"])]));
    let any = json!({"ForAnyValue:ArnLike": {"a:b": "arn:aws:s3:::x*"}});
    assert!(holds(any.clone(), &[("a:b", &["arn:aws:s3:::y", "arn:aws:s3:::xy"])]));
    assert!(!holds(any, &[]));
}

#[test]
fn trust_documents_match_whole_principals_and_need_no_resource() {
    let trust = |principal: Value| {
        let document = json!({"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"}]});
        Document::parse("trust", Kind::Trust, &document).unwrap_or_else(|error| panic!("{error}"))
    };
    let may = |document: &Document, principal: Principal<'_>| {
        let resource = "arn:aws:iam::123456789012:role/x";
        decide([document], &Request { principal, action: "sts:AssumeRole", resource, keys: BTreeMap::new() }).allowed
    };
    let lambda = trust(json!({"Service": ["lambda.amazonaws.com"], "Federated": "cognito"}));
    assert!(may(&lambda, Principal::Service("lambda.amazonaws.com")));
    assert!(!may(&lambda, Principal::Service("ec2.amazonaws.com")));
    assert!(may(&lambda, Principal::Federated("cognito")));
    assert!(!may(&lambda, Principal::Federated("cognito-identity.amazonaws.com")));
    assert!(!may(&lambda, Principal::Anonymous));
    let account = trust(json!({"AWS": "arn:aws:iam::123456789012:root"}));
    let role = "arn:aws:iam::123456789012:role/reader";
    assert!(may(&account, Principal::Role { role, session: "" }));
    assert!(!may(&account, Principal::Anonymous));
    assert!(!may(&account, Principal::Service("lambda.amazonaws.com")));
    assert!(may(&trust(json!("*")), Principal::Anonymous));
}

#[test]
fn a_resource_document_for_everybody_lets_anyone_read() {
    let policy = |principal: Value| {
        let document = json!({"Version": "2012-10-17", "Statement": [{"Sid": "Read",
            "Effect": "Allow", "Principal": principal, "Action": "s3:GetObject", "Resource": "arn:aws:s3:::b/*"}]});
        Document::parse("bucket", Kind::Resource, &document).unwrap_or_else(|error| panic!("{error}"))
    };
    let read = |document: &Document, action: &str| {
        let (principal, resource) = (Principal::Anonymous, "arn:aws:s3:::b/index.html");
        decide([document], &Request { principal, action, resource, keys: BTreeMap::new() }).allowed
    };
    for everybody in [json!("*"), json!({"AWS": "*"})] {
        let policy = policy(everybody);
        assert!(policy.is_public());
        assert!(read(&policy, "s3:GetObject"));
        assert!(!read(&policy, "s3:PutObject"));
    }
    let one = policy(json!({"AWS": "arn:aws:iam::123456789012:role/reader"}));
    assert!(!one.is_public());
    assert!(!read(&one, "s3:GetObject"));
}

#[test]
fn guests_are_bound_by_cognitos_own_policy() {
    let allowed = |action: &str| ask(Document::guest_session_policy(), action, "*", &[]).allowed;
    assert!(allowed("lambda:InvokeFunction"));
    assert!(allowed("dynamodb:GetItem"));
    assert!(!allowed("iam:CreateUser"));
    assert!(!allowed("sts:AssumeRole"));
    assert!(!allowed("secretsmanager:GetSecretValue"));
}

#[test]
fn what_aws_would_refuse_is_refused() {
    let base = json!({"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"});
    let with = |name: &str, value: Value| {
        let mut statement = base.clone();
        statement[name] = value;
        refused(statement)
    };
    assert!(with("Effect", json!("allow")).contains("Effect"));
    assert!(with("Action", json!("GetObject")).contains("service:Name"));
    assert!(with("Action", json!([])).contains("Action"));
    assert!(with("NotAction", json!("s3:*")).contains("Action"));
    assert!(with("Resource", json!("users")).contains("ARN"));
    assert!(with("Resource", json!("arn:aws:*:::x")).contains("service"));
    assert!(with("Resource", json!("arn:aws:s3:::${aws:username")).contains("}"));
    assert!(with("Principal", json!("*")).contains("Principal"));
    assert!(with("Ressource", json!("*")).contains("Ressource"));
    assert!(with("Sid", json!("with space")).contains("Sid"));
    assert!(with("Condition", json!({"StringEqual": {"a:b": "c"}})).contains("StringEqual"));
    assert!(with("Condition", json!({"StringEquals": {"a:b": []}})).contains("no value"));
    assert!(with("Condition", json!({"StringEquals": {"a:b": {}}})).contains("list"));
    assert!(with("Condition", json!({"NumericEquals": {"a:b": "many"}})).contains("many"));
    assert!(with("Condition", json!({"Bool": {"a:b": "maybe"}})).contains("maybe"));
    assert!(with("Condition", json!({"Null": {"a:b": "1"}})).contains("value"));
    assert!(with("Condition", json!({"DateLessThan": {"a:b": "soon"}})).contains("soon"));
    assert!(with("Condition", json!({"IpAddress": {"a:b": "10.0.0.0/33"}})).contains("33"));
    assert!(with("Condition", json!({"StringEquals": {"a:b": "c", "A:B": "d"}})).contains("twice"));
    for document in [
        json!({"Statement": [base]}),
        json!({"Version": "2024-01-01", "Statement": [base]}),
        json!({"Version": "2012-10-17", "Statement": []}),
        json!({"Version": "2012-10-17"}),
        json!([]),
        json!({"Version": "2012-10-17", "Statement": [base], "Extra": 1}),
    ] {
        assert!(Document::parse("test", Kind::Identity, &document).is_err(), "{document}");
    }
}

#[test]
fn a_decision_takes_microseconds() {
    let role = document(json!([
        {"Effect": "Allow", "Action": ["dynamodb:GetItem", "dynamodb:UpdateItem"], "Resource": TABLE,
         "Condition": {"ForAllValues:StringEquals": {"dynamodb:Attributes": ["email", "password"]}}},
        {"Effect": "Allow", "Action": "lambda:InvokeFunction", "Resource": FUNCTION},
        {"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::b/${aws:userid}/*"},
    ]));
    let started = std::time::Instant::now();
    for _ in 0..1000 {
        assert!(
            ask(&role, "dynamodb:GetItem", TABLE, &[("dynamodb:Attributes", &["email"]), ("aws:userid", &["x"])])
                .allowed
        );
    }
    // Far above what it takes even unoptimised, so that only a blunder fails here.
    assert!(started.elapsed().as_millis() < 1000, "{:?} for 1000", started.elapsed());
}
