//! IAM documents and what they decide: pure, so that a policy can be judged without a running cloud.
//!
//! `iam-rs` evaluates actions, resources and most conditions. What it gets wrong is settled here, before and after it:
//! - Variables are resolved here. A statement whose variable has no value does not apply (as on AWS), and an Allow whose
//!   variable has a value with `*`, `?` or `$` does not either. `iam-rs` would make of the first an empty string, of the
//!   second a wildcard, and would leave variables in conditions alone.
//! - `*`, `?` and `$` in the *request* are replaced by private characters, so that only the policy's own act as wildcards.
//! - ARN conditions are compared part by part, and ArnEquals knows wildcards like ArnLike.
//! - Bool conditions are compared as text, so that a key may come as text or be compared by StringEquals too.
//! - Principals are matched here: one statement may name several kinds, and a federated one matches only whole.
//! - Trust documents have no Resource: they get `*`.

use std::collections::{BTreeMap, HashMap, HashSet};

use iam_rs::{
    Arn, ConditionBlock, ConditionValue, Context, ContextValue, EvaluationOptions, IAMAction, IAMEffect, IAMOperator,
    IAMPolicy, IAMRequest, IAMResource, IAMStatement, OperatorType, PolicyEvaluator, Principal as IamPrincipal,
    PrincipalId,
};
use serde_json::{Map, Value};

use crate::CloudError;

/// A document, read once.
#[derive(Debug)]
pub struct Document {
    statements: Vec<Statement>,
    /// The statements without variables, ready to be asked (their places in `statements`, in the same order).
    fixed: PolicyEvaluator,
    fixed_places: Vec<usize>,
}

/// What a document is attached to: it decides which elements a statement has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Attached to a role: no Principal.
    Identity,
    /// Attached to a resource (a bucket): Principal and Resource.
    Resource,
    /// Who may take a role: Principal, no Resource.
    Trust,
}

/// Who asks. Documents of [`Kind::Identity`] are always those of the caller; the others say whom they mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Principal<'a> {
    /// A session of a role: the role's ARN and the session's.
    Role { role: &'a str, session: &'a str },
    /// A service of AWS, e.g. `lambda.amazonaws.com`.
    Service(&'a str),
    /// An identity provider, e.g. `cognito-identity.amazonaws.com`.
    Federated(&'a str),
    /// Nobody in particular: an unsigned call.
    Anonymous,
}

/// One question: may this principal do that?
#[derive(Debug, Clone)]
pub struct Request<'a> {
    pub principal: Principal<'a>,
    /// e.g. `dynamodb:GetItem`
    pub action: &'a str,
    /// An ARN, or `*` for an action that knows no resources.
    pub resource: &'a str,
    /// Condition keys; several values make a multivalued key, none is the same as no key.
    pub keys: BTreeMap<String, Vec<String>>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    /// A Deny matched (or a document could not be evaluated): no other document can allow it.
    pub explicit_deny: bool,
    /// The statement that decided, or why nothing allowed it.
    pub why: String,
}

/// Decides by AWS's rules: a matching Deny wins, then a matching Allow; otherwise the answer is no.
pub fn decide<'d>(documents: impl IntoIterator<Item = &'d Document>, request: &Request<'_>) -> Decision {
    let question = match Question::of(request) {
        Ok(question) => question,
        Err(why) => return Decision::denied(why),
    };
    let mut allow = None;
    for document in documents {
        match document.ask(&question) {
            Ok(Answer::Deny(statement)) => {
                return Decision::denied(format!("denied by {}", statement.label));
            }
            Ok(Answer::Allow(statement)) => allow = allow.or(Some(statement)),
            Ok(Answer::Silent) => {}
            // A document that can't be evaluated might hold a Deny.
            Err(why) => return Decision::denied(why),
        }
    }
    match allow {
        Some(statement) => {
            Decision { allowed: true, explicit_deny: false, why: format!("allowed by {}", statement.label) }
        }
        None => Decision { allowed: false, explicit_deny: false, why: "no statement allows it".to_owned() },
    }
}

impl Decision {
    fn denied(why: String) -> Self {
        Self { allowed: false, explicit_deny: true, why }
    }
}

#[derive(Debug)]
struct Statement {
    /// For people: "statement ReadOwnItems of users.json".
    label: String,
    effect: IAMEffect,
    principals: Principals,
    action: IAMAction,
    not_action: bool,
    resources: Vec<Template>,
    not_resource: bool,
    conditions: Vec<Condition>,
    arn_conditions: Vec<Condition>,
}

#[derive(Debug)]
enum Principals {
    /// The document is attached to the caller.
    Implied,
    Everyone,
    These {
        aws: Vec<String>,
        service: Vec<String>,
        federated: Vec<String>,
    },
}

#[derive(Debug)]
struct Condition {
    operator: IAMOperator,
    key: String,
    values: Vec<Template>,
}

/// A text of a policy with its variables.
#[derive(Debug)]
struct Template(Vec<Piece>);

#[derive(Debug)]
enum Piece {
    Text(String),
    Variable { key: String, default: Option<String> },
}

enum Answer<'a> {
    Allow(&'a Statement),
    Deny(&'a Statement),
    Silent,
}

impl Document {
    /// Reads a document, and refuses what AWS would refuse. `name` is for messages: the policy's or its file's.
    ///
    /// # Errors
    /// [`CloudError::Declaration`] says which part makes no sense.
    pub fn parse(name: &str, kind: Kind, document: &Value) -> Result<Self, CloudError> {
        Self::read(name, kind, document)
            .map_err(|problem| CloudError::Declaration(format!("the IAM document {name} is not valid: {problem}")))
    }

    /// What Cognito lets the guests of an identity pool do at most in the enhanced flow, whatever their role says: its
    /// inline session policy together with the managed one, AmazonCognitoUnAuthedIdentitiesSessionPolicy.
    /// (Cognito's developer guide, "IAM roles", and AWS's managed policy reference.)
    ///
    /// # Panics
    /// Never: the document is part of this crate and tested.
    pub fn guest_session_policy() -> &'static Self {
        static POLICY: std::sync::OnceLock<Document> = std::sync::OnceLock::new();
        POLICY.get_or_init(|| {
            let document = serde_json::from_str(include_str!("guest-session-policy.json"));
            document
                .map_err(CloudError::from)
                .and_then(|document| Self::parse("Cognito's session policy for guests", Kind::Identity, &document))
                .unwrap_or_else(|error| unreachable!("{error}"))
        })
    }

    /// Whether some statement allows something to everybody without a condition: what S3 calls a public policy.
    pub(crate) fn is_public(&self) -> bool {
        self.statements.iter().any(|statement| {
            let everyone = match &statement.principals {
                Principals::Everyone => true,
                Principals::These { aws, .. } => aws.iter().any(|principal| principal == "*"),
                Principals::Implied => false,
            };
            everyone
                && statement.effect == IAMEffect::Allow
                && statement.conditions.is_empty()
                && statement.arn_conditions.is_empty()
        })
    }

    fn read(name: &str, kind: Kind, document: &Value) -> Result<Self, String> {
        let document = document.as_object().ok_or("it must be a JSON object")?;
        only(document, &["Version", "Id", "Statement"])?;
        let variables = match document.get("Version").and_then(Value::as_str) {
            Some("2012-10-17") => true,
            // The old language has no variables.
            Some("2008-10-17") => false,
            _ => return Err("Version must be \"2012-10-17\" (or \"2008-10-17\")".into()),
        };
        let statements = match document.get("Statement") {
            Some(Value::Array(statements)) => statements.iter().collect(),
            Some(statement @ Value::Object(_)) => vec![statement],
            _ => return Err("Statement must be a list of statements".into()),
        };
        if statements.is_empty() {
            return Err("Statement must not be empty".into());
        }
        let mut sids = HashSet::new();
        let mut read = Vec::with_capacity(statements.len());
        for (index, statement) in statements.into_iter().enumerate() {
            let place = match statement.get("Sid").and_then(Value::as_str) {
                Some(sid) if !sid.is_empty() => {
                    if !sids.insert(sid) {
                        return Err(format!("the Sid {sid} appears twice"));
                    }
                    sid.to_owned()
                }
                _ => (index + 1).to_string(),
            };
            let statement = Statement::read(kind, variables, statement)
                .map_err(|problem| format!("statement {place}: {problem}"))?;
            read.push(Statement { label: format!("statement {place} of {name}"), ..statement });
        }
        Ok(Self::prepare(read))
    }

    fn prepare(statements: Vec<Statement>) -> Self {
        let nothing = Context::new();
        let mut policy = IAMPolicy::new();
        let mut fixed_places = Vec::new();
        for (place, statement) in statements.iter().enumerate() {
            if !statement.has_variables()
                && let Some(filled) = statement.fill(&nothing)
            {
                policy.statement.push(filled);
                fixed_places.push(place);
            }
        }
        Self { fixed: evaluator(policy), fixed_places, statements }
    }

    fn ask(&self, question: &Question<'_>) -> Result<Answer<'_>, String> {
        let mut allow = None;
        let fixed = matches(&self.fixed, question, &self.fixed_places)?;
        let mut policy = IAMPolicy::new();
        let mut places = Vec::new();
        for (place, statement) in self.statements.iter().enumerate() {
            if statement.has_variables()
                && let Some(filled) = statement.fill(&question.iam.context)
            {
                policy.statement.push(filled);
                places.push(place);
            }
        }
        let filled = if places.is_empty() { Vec::new() } else { matches(&evaluator(policy), question, &places)? };
        for place in fixed.into_iter().chain(filled) {
            let statement = &self.statements[place];
            if !statement.principals.include(question.principal)
                || !statement.arn_conditions_hold(&question.iam.context)
            {
                continue;
            }
            match statement.effect {
                IAMEffect::Deny => return Ok(Answer::Deny(statement)),
                IAMEffect::Allow => allow = allow.or(Some(statement)),
            }
        }
        Ok(allow.map_or(Answer::Silent, Answer::Allow))
    }
}

fn evaluator(policy: IAMPolicy) -> PolicyEvaluator {
    PolicyEvaluator::with_policies(vec![policy]).with_options(EvaluationOptions {
        stop_on_explicit_deny: false,
        collect_match_details: true,
        ..EvaluationOptions::default()
    })
}

/// The places of the statements that match, as far as `iam-rs` decides.
fn matches(evaluator: &PolicyEvaluator, question: &Question<'_>, places: &[usize]) -> Result<Vec<usize>, String> {
    if places.is_empty() {
        return Ok(Vec::new());
    }
    let result =
        evaluator.evaluate(&question.iam).map_err(|error| format!("the documents cannot be evaluated: {error}"))?;
    if result.statement_details.len() != places.len() {
        return Err("the documents cannot be evaluated whole".to_owned());
    }
    let details = result.statement_details.iter().zip(places);
    Ok(details.filter(|(detail, _)| detail.conditions_satisfied).map(|(_, place)| *place).collect())
}

/// A request in the terms of `iam-rs`.
struct Question<'a> {
    principal: Principal<'a>,
    iam: IAMRequest,
}

impl<'a> Question<'a> {
    fn of(request: &Request<'a>) -> Result<Self, String> {
        let resource = match request.resource {
            // Only the pattern `*` means actions without resources: no other pattern names this service.
            "*" => "arn:none:none:::none".to_owned(),
            resource => literal(resource),
        };
        let resource = Arn::parse(&resource).map_err(|error| format!("{} is not an ARN: {error}", request.resource))?;
        let mut context = Context::new();
        for (key, values) in &request.keys {
            let value = match &values[..] {
                [] => continue,
                [value] => ContextValue::String(literal(value)),
                values => ContextValue::StringList(values.iter().map(|value| literal(value)).collect()),
            };
            context.insert(key.clone(), value);
        }
        // Principals are matched by this module; `iam-rs` only asks for one of valid form.
        let principal = IamPrincipal::Aws(PrincipalId::String("000000000000".to_owned()));
        Ok(Self {
            principal: request.principal,
            iam: IAMRequest::new_with_context(principal, request.action, resource, context),
        })
    }
}

impl Statement {
    fn read(kind: Kind, variables: bool, statement: &Value) -> Result<Self, String> {
        let statement = statement.as_object().ok_or("it must be a JSON object")?;
        let mut known = vec!["Sid", "Effect", "Action", "NotAction", "Condition"];
        if kind != Kind::Identity {
            known.push("Principal");
        }
        if kind != Kind::Trust {
            known.extend(["Resource", "NotResource"]);
        }
        only(statement, &known)?;
        if let Some(sid) = statement.get("Sid") {
            let sid = sid.as_str().ok_or("Sid must be a string")?;
            if !sid.chars().all(|letter| letter.is_ascii_alphanumeric()) && kind == Kind::Identity {
                return Err("a Sid holds only letters and digits".into());
            }
        }
        let effect = match statement.get("Effect").and_then(Value::as_str) {
            Some("Allow") => IAMEffect::Allow,
            Some("Deny") => IAMEffect::Deny,
            _ => return Err("Effect must be \"Allow\" or \"Deny\"".into()),
        };
        let (actions, not_action) = either(statement, "Action", "NotAction")?;
        for action in &actions {
            let fine = action == "*"
                || action.split_once(':').is_some_and(|(service, name)| {
                    let plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
                    !service.is_empty() && service.chars().all(plain) && !name.is_empty() && !name.contains([':', ' '])
                });
            if !fine {
                return Err(format!("the action {action:?} must have the form service:Name"));
            }
        }
        let (resources, not_resource) = if kind == Kind::Trust {
            (vec!["*".to_owned()], false)
        } else {
            either(statement, "Resource", "NotResource")?
        };
        let resources = resources.iter().map(|resource| {
            check_resource(resource)?;
            Template::read(resource, variables, Wildcards::Active)
        });
        let mut read = Self {
            label: String::new(),
            effect,
            principals: Principals::read(kind, statement.get("Principal"))?,
            action: IAMAction::Multiple(actions),
            not_action,
            resources: resources.collect::<Result<_, _>>()?,
            not_resource,
            conditions: Vec::new(),
            arn_conditions: Vec::new(),
        };
        if let Some(conditions) = statement.get("Condition") {
            let conditions = conditions.as_object().ok_or("Condition must be an object")?;
            read.read_conditions(conditions, variables)?;
        }
        Ok(read)
    }

    fn read_conditions(&mut self, conditions: &Map<String, Value>, variables: bool) -> Result<(), String> {
        for (name, keys) in conditions {
            // Bool is compared as text: see the head of this file.
            let renamed = match name.split_once("Bool") {
                Some((before, after)) => format!("{before}StringEqualsIgnoreCase{after}"),
                None => name.clone(),
            };
            let operator: IAMOperator =
                renamed.parse().map_err(|_| format!("the condition operator {name} is not known"))?;
            let category = || operator.category();
            let like = category() == OperatorType::Arn || renamed.contains("Like");
            let wildcards = if like { Wildcards::Active } else { Wildcards::Text };
            let keys = keys.as_object().ok_or_else(|| format!("{name} must be an object of condition keys"))?;
            for (key, values) in keys {
                let values =
                    texts(values).ok_or_else(|| format!("{name} of {key} must be a text or a list of texts"))?;
                if values.is_empty() {
                    return Err(format!("{name} of {key} has no value"));
                }
                for value in &values {
                    check_condition_value(name, &category(), value)
                        .map_err(|problem| format!("{name} of {key}: {problem}"))?;
                }
                let condition = Condition {
                    operator: operator.clone(),
                    key: key.clone(),
                    values: values
                        .iter()
                        .map(|value| Template::read(value, variables, wildcards))
                        .collect::<Result<_, _>>()?,
                };
                let place =
                    if category() == OperatorType::Arn { &mut self.arn_conditions } else { &mut self.conditions };
                let twice =
                    place.iter().any(|it: &Condition| it.operator == operator && it.key.eq_ignore_ascii_case(key));
                if twice {
                    return Err(format!("{name} of {key} appears twice"));
                }
                place.push(condition);
            }
        }
        Ok(())
    }

    fn has_variables(&self) -> bool {
        // ARN conditions too: a missing value must drop the statement.
        let conditions = self.conditions.iter().chain(&self.arn_conditions);
        let values = conditions.flat_map(|condition| &condition.values);
        let mut templates = self.resources.iter().chain(values);
        templates.any(Template::has_variables)
    }

    /// The statement as `iam-rs` takes it, with its variables resolved; `None` when one of them keeps it from applying.
    fn fill(&self, context: &Context) -> Option<IAMStatement> {
        let mut resources = Vec::with_capacity(self.resources.len());
        for resource in &self.resources {
            resources.push(resource.fill(context, self.effect)?);
        }
        let resources = Some(IAMResource::Multiple(resources));
        let mut conditions: HashMap<IAMOperator, HashMap<String, ConditionValue>> = HashMap::new();
        for condition in &self.conditions {
            let mut values = Vec::with_capacity(condition.values.len());
            for value in &condition.values {
                values.push(value.fill(context, self.effect)?);
            }
            let keys = conditions.entry(condition.operator.clone()).or_default();
            keys.insert(condition.key.clone(), ConditionValue::StringList(values));
        }
        for value in self.arn_conditions.iter().flat_map(|it| &it.values) {
            value.fill(context, self.effect)?;
        }
        let mut statement = IAMStatement::new(self.effect);
        let action = Some(self.action.clone());
        if self.not_action {
            statement.not_action = action;
        } else {
            statement.action = action;
        }
        if self.not_resource {
            statement.not_resource = resources;
        } else {
            statement.resource = resources;
        }
        if !conditions.is_empty() {
            statement.condition = Some(ConditionBlock { conditions });
        }
        Some(statement)
    }

    fn arn_conditions_hold(&self, context: &Context) -> bool {
        self.arn_conditions.iter().all(|condition| condition.arn_holds(context, self.effect))
    }
}

impl Condition {
    fn arn_holds(&self, context: &Context, effect: IAMEffect) -> bool {
        let operator = self.operator.to_string();
        let negated = self.operator.is_negated_operator();
        let values: &[String] = match context.get(&self.key) {
            Some(ContextValue::String(value)) => std::slice::from_ref(value),
            Some(ContextValue::StringList(values)) => values,
            _ => &[],
        };
        let patterns: Vec<String> = self.values.iter().filter_map(|pattern| pattern.fill(context, effect)).collect();
        let satisfied = |value: &String| negated != patterns.iter().any(|pattern| arn_like(value, pattern));
        if operator.starts_with("ForAllValues:") {
            values.iter().all(satisfied)
        } else if operator.starts_with("ForAnyValue:") {
            values.iter().any(satisfied)
        } else if values.is_empty() {
            negated || self.operator.is_if_exists_operator()
        } else if negated {
            values.iter().all(satisfied)
        } else {
            values.iter().any(satisfied)
        }
    }
}

/// Each of the six parts for itself: a `*` in one can't reach into the next.
fn arn_like(value: &str, pattern: &str) -> bool {
    if pattern == "*" {
        return true;
    }
    let (mut values, mut patterns) = (value.splitn(6, ':'), pattern.splitn(6, ':'));
    loop {
        match (values.next(), patterns.next()) {
            (Some(value), Some(pattern)) if Arn::wildcard_match(value, pattern) => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

impl Principals {
    fn read(kind: Kind, principal: Option<&Value>) -> Result<Self, String> {
        let kinds = match principal {
            None if kind == Kind::Identity => return Ok(Self::Implied),
            Some(Value::String(everyone)) if everyone == "*" => return Ok(Self::Everyone),
            Some(Value::Object(kinds)) if !kinds.is_empty() => kinds,
            _ => return Err("Principal must be \"*\" or an object like {\"Service\": …}".into()),
        };
        only(kinds, &["AWS", "Service", "Federated"])?;
        let of = |name: &str| match kinds.get(name) {
            None => Ok(Vec::new()),
            Some(value) => texts(value).ok_or_else(|| format!("the principal {name} must be a text or a list")),
        };
        Ok(Self::These { aws: of("AWS")?, service: of("Service")?, federated: of("Federated")? })
    }

    fn include(&self, principal: Principal<'_>) -> bool {
        let (aws, services, providers) = match self {
            Self::Implied | Self::Everyone => return true,
            Self::These { aws, service, federated } => (aws, service, federated),
        };
        let has = |list: &[String], name: &str| list.iter().any(|it| it == name);
        match principal {
            Principal::Service(name) => has(services, name),
            Principal::Federated(name) => has(providers, name),
            Principal::Anonymous => has(aws, "*"),
            Principal::Role { role, session } => aws.iter().any(|it| {
                let account = role.split(':').nth(4).unwrap_or_default();
                it == "*"
                    || it == role
                    || it == session
                    || it == account
                    || it.strip_prefix("arn:aws:iam::").and_then(|it| it.strip_suffix(":root")) == Some(account)
            }),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wildcards {
    /// `*` and `?` stand for other characters.
    Active,
    /// They stand for themselves.
    Text,
}

impl Template {
    fn read(text: &str, variables: bool, wildcards: Wildcards) -> Result<Self, String> {
        let plain = |text: &str| match wildcards {
            Wildcards::Active => text.replace('$', LITERAL[2].1),
            Wildcards::Text => literal(text),
        };
        let mut pieces = Vec::new();
        let mut rest = text;
        while variables && let Some((before, after)) = rest.split_once("${") {
            let (variable, after) =
                after.split_once('}').ok_or_else(|| format!("{text:?} has a \"${{\" without \"}}\""))?;
            pieces.push(Piece::Text(plain(before)));
            pieces.push(match variable {
                // The language's own escapes.
                "*" | "?" | "$" => Piece::Text(literal(variable)),
                _ => {
                    Piece::variable(variable).ok_or_else(|| format!("the variable \"${{{variable}}}\" is not valid"))?
                }
            });
            rest = after;
        }
        pieces.push(Piece::Text(plain(rest)));
        Ok(Self(pieces))
    }

    fn has_variables(&self) -> bool {
        let variable = |piece: &Piece| matches!(piece, Piece::Variable { .. });
        self.0.iter().any(variable)
    }

    /// The text with its variables resolved; `None` when one has no value, or one that an Allow must not use.
    fn fill(&self, context: &Context, effect: IAMEffect) -> Option<String> {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(piece) => text.push_str(piece),
                Piece::Variable { key, default } => {
                    let value = match (context.get(key), default) {
                        (Some(ContextValue::String(value)), _) => value.clone(),
                        // A multivalued key is no variable.
                        (Some(_), _) | (None, None) => return None,
                        (None, Some(default)) => literal(default),
                    };
                    // The request's wildcards are literal here already. A Deny keeps them as text; an Allow is safer
                    // without.
                    if effect == IAMEffect::Allow && LITERAL.iter().any(|(_, it)| value.contains(it)) {
                        return None;
                    }
                    text.push_str(&value);
                }
            }
        }
        Some(text)
    }
}

impl Piece {
    fn variable(text: &str) -> Option<Self> {
        let (key, default) = match text.split_once(',') {
            None => (text, None),
            Some((key, default)) => {
                let default = default.trim().strip_prefix('\'')?.strip_suffix('\'')?;
                (key, Some(default.to_owned()))
            }
        };
        let key = key.trim();
        let fine = |letter: char| !letter.is_whitespace() && !"*?${'".contains(letter);
        (!key.is_empty() && key.chars().all(fine)).then(|| Self::Variable { key: key.to_owned(), default })
    }
}

/// Stand-ins, from Unicode's private use area, for characters that mean something in a pattern.
const LITERAL: [(char, &str); 3] = [('*', "\u{f8f0}"), ('?', "\u{f8f1}"), ('$', "\u{f8f2}")];

/// `text` as something that a pattern can only match letter by letter.
fn literal(text: &str) -> String {
    LITERAL.iter().fold(text.to_owned(), |text, (from, to)| text.replace(*from, to))
}

fn check_resource(resource: &str) -> Result<(), String> {
    if resource == "*" {
        return Ok(());
    }
    let mut parts = resource.splitn(6, ':');
    let (arn, _partition, service) = (parts.next(), parts.next(), parts.next());
    if arn != Some("arn") || parts.count() != 3 {
        return Err(format!("the resource {resource:?} must be an ARN or \"*\""));
    }
    if service.is_none_or(|service| service.is_empty() || service.contains(['*', '?', '$'])) {
        return Err(format!("the resource {resource:?} must name its service"));
    }
    Ok(())
}

/// What would otherwise fail at each evaluation.
fn check_condition_value(name: &str, category: &OperatorType, value: &str) -> Result<(), String> {
    let fine = value.contains("${")
        || match category {
            OperatorType::Numeric => value.parse::<f64>().is_ok(),
            OperatorType::Null => matches!(value, "true" | "false"),
            OperatorType::Date => {
                let format = &time::format_description::well_known::Rfc3339;
                value.parse::<f64>().is_ok() || time::OffsetDateTime::parse(value, format).is_ok()
            }
            OperatorType::IpAddress => {
                let (address, bits) = value.split_once('/').unwrap_or((value, "0"));
                let largest = if address.contains(':') { 128 } else { 32 };
                address.parse::<std::net::IpAddr>().is_ok() && bits.parse::<u8>().is_ok_and(|bits| bits <= largest)
            }
            _ if name.contains("Bool") => value.eq_ignore_ascii_case("true") || value.eq_ignore_ascii_case("false"),
            _ => true,
        };
    if fine { Ok(()) } else { Err(format!("{value:?} is not a value for it")) }
}

fn only(object: &Map<String, Value>, known: &[&str]) -> Result<(), String> {
    match object.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(format!("the element {key:?} does not belong there")),
        None => Ok(()),
    }
}

/// The texts of one of two elements, and whether it was the second.
fn either(statement: &Map<String, Value>, element: &str, not: &str) -> Result<(Vec<String>, bool), String> {
    let (value, negated) = match (statement.get(element), statement.get(not)) {
        (Some(value), None) => (value, false),
        (None, Some(value)) => (value, true),
        _ => return Err(format!("it needs one of {element} and {not}")),
    };
    let texts = texts(value).filter(|texts| !texts.is_empty());
    let texts = texts.ok_or_else(|| format!("{element} must be a text or a list of texts"))?;
    Ok((texts, negated))
}

/// A scalar or a list of scalars, as texts.
fn texts(value: &Value) -> Option<Vec<String>> {
    let scalar = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        _ => None,
    };
    match value {
        Value::Array(values) => values.iter().map(scalar).collect(),
        value => scalar(value).map(|text| vec![text]),
    }
}

#[cfg(test)]
mod tests;
