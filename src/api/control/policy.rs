//! Policies: statements about who else may invoke a function, or use a layer.

use serde_json::{Map, Value, json};

use super::change::{self, apply, revision};
use super::fields::{Fields, unfit};
use super::functions::find;
use super::{Answer, Named, Request, layers};
use crate::api::Api;
use crate::api::error::ApiError;
use crate::function::record::{LATEST, Policy};
use crate::limits::POLICY_BYTES_MAX;

/// Where the API tells a policy's revision, by what the policy is of.
const OF_FUNCTION: &str = "GetPolicy";
const OF_LAYER: &str = "GetLayerVersionPolicy";

/// `AddPermission`
pub fn add(request: &Request<'_>) -> Result<Answer, ApiError> {
    let api = request.api;
    let named = target(request)?;
    if named.qualifier.as_deref() == Some(LATEST) {
        let message = "We currently do not support adding policies for $LATEST.";
        return Err(ApiError::invalid_parameter(message));
    }
    let fields = request.fields()?;
    let arn = request.home().arn(&named.name, named.qualifier.as_deref()).to_string();
    let statement = of_function(&fields, &arn)?;
    let given = fields.text("RevisionId", 0..=128)?;
    let (mut record, version, _) = find(api, &named)?;
    let policy = record.policies.entry(key(&named)).or_default();
    // Who has read no policy has read the function.
    let present = Some(&policy.revision_id).filter(|id| !id.is_empty());
    check(given, present.unwrap_or(&version.revision_id), OF_FUNCTION)?;
    insert(policy, statement.clone(), revision(api))?;
    let body = json!({ "Statement": statement.to_string() });
    Ok(Answer::new(201, body).once(apply(api, &named.name, &record)?))
}

/// `RemovePermission`
pub fn remove(request: &Request<'_>) -> Result<Answer, ApiError> {
    let api = request.api;
    let named = target(request)?;
    let given = request.operation.parameter("RevisionId");
    let (mut record, ..) = find(api, &named)?;
    let key = key(&named);
    let policy = record.policies.get_mut(&key).ok_or_else(no_policy)?;
    withdraw(policy, &request.operation.part, (given.as_deref(), OF_FUNCTION), revision(api))?;
    if policy.statements.is_empty() {
        record.policies.remove(&key);
    }
    Ok(Answer::empty().once(apply(api, &named.name, &record)?))
}

/// `GetPolicy`
pub fn get(request: &Request<'_>) -> Result<Answer, ApiError> {
    let named = target(request)?;
    let (record, ..) = find(request.api, &named)?;
    let missing = || ApiError::not_found("The resource you requested does not exist.");
    let policy = record.policies.get(&key(&named)).ok_or_else(missing)?;
    Ok(Answer::new(200, show(policy)))
}

/// `AddLayerVersionPermission`
pub fn add_to_layer(request: &Request<'_>) -> Result<Answer, ApiError> {
    let api = request.api;
    let (name, number) = (layers::name(request)?, layers::number(request)?);
    let fields = request.fields()?;
    let given = request.operation.parameter("RevisionId");
    let arn = request.home().layer_arn(&name, Some(&number.to_string()));
    let statement = of_layer(&fields, &arn)?;
    known(api, &name, number, &arn)?;
    let mut record = layers::read(api, &name)?;
    let policy = record.policies.entry(number).or_default();
    check(given.as_deref(), &policy.revision_id, OF_LAYER)?;
    let revision = revision(api);
    insert(policy, statement.clone(), revision.clone())?;
    let body = json!({ "Statement": statement.to_string(), "RevisionId": revision });
    Ok(Answer::new(201, body).once(layers::keep(api, &name, &record)?))
}

/// `RemoveLayerVersionPermission`
pub fn remove_from_layer(request: &Request<'_>) -> Result<Answer, ApiError> {
    let api = request.api;
    let (name, number) = (layers::name(request)?, layers::number(request)?);
    let given = request.operation.parameter("RevisionId");
    let arn = request.home().layer_arn(&name, Some(&number.to_string()));
    known(api, &name, number, &arn)?;
    let mut record = layers::read(api, &name)?;
    let policy = record.policies.get_mut(&number).ok_or_else(no_policy)?;
    withdraw(policy, &request.operation.detail, (given.as_deref(), OF_LAYER), revision(api))?;
    if policy.statements.is_empty() {
        record.policies.remove(&number);
    }
    Ok(Answer::empty().once(layers::keep(api, &name, &record)?))
}

/// `GetLayerVersionPolicy`
pub fn get_of_layer(request: &Request<'_>) -> Result<Answer, ApiError> {
    let (name, number) = (layers::name(request)?, layers::number(request)?);
    let arn = request.home().layer_arn(&name, Some(&number.to_string()));
    known(request.api, &name, number, &arn)?;
    let record = layers::read(request.api, &name)?;
    let policy = record.policies.get(&number).ok_or_else(no_policy)?;
    Ok(Answer::new(200, show(policy)))
}

/// The function, version or alias that a policy is of.
fn target(request: &Request<'_>) -> Result<Named, ApiError> {
    let named = request.function()?;
    change::read(request.api, &named.name)?;
    Ok(named)
}

/// Under which its policy is kept: that of the function itself stands under `$LATEST`.
fn key(named: &Named) -> String {
    named.qualifier.clone().unwrap_or_else(|| LATEST.to_owned())
}

fn known(api: &Api, name: &str, number: u32, arn: &str) -> Result<(), ApiError> {
    let missing = || ApiError::not_found(format!("Layer version {arn} does not exist."));
    layers::find(api, name, number)?.map(drop).ok_or_else(missing)
}

fn no_policy() -> ApiError {
    ApiError::not_found("No policy is associated with the given resource.")
}

fn check(given: Option<&str>, present: &str, operation: &str) -> Result<(), ApiError> {
    match given {
        Some(given) if given != present => Err(ApiError::policy_precondition(operation)),
        Some(_) | None => Ok(()),
    }
}

fn show(policy: &Policy) -> Value {
    json!({ "Policy": whole(policy), "RevisionId": policy.revision_id })
}

/// A policy as one text.
fn whole(policy: &Policy) -> String {
    let statements = &policy.statements;
    json!({ "Version": "2012-10-17", "Id": "default", "Statement": statements }).to_string()
}

fn has_sid(statement: &Value, sid: &str) -> bool {
    statement["Sid"] == sid
}

/// Adds a statement.
fn insert(policy: &mut Policy, statement: Value, revision: String) -> Result<(), ApiError> {
    let sid = statement["Sid"].as_str().unwrap_or_default();
    if policy.statements.iter().any(|other| has_sid(other, sid)) {
        return Err(ApiError::conflict(format!(
            "The statement id ({sid}) provided already exists. Please provide a new statement id, \
             or remove the existing statement."
        )));
    }
    policy.statements.push(statement);
    policy.revision_id = revision;
    let bytes = whole(policy).len();
    if bytes > POLICY_BYTES_MAX {
        return Err(ApiError::policy_too_long(bytes, POLICY_BYTES_MAX));
    }
    Ok(())
}

/// Takes a statement out.
fn withdraw(
    policy: &mut Policy,
    sid: &str,
    (given, operation): (Option<&str>, &str),
    revision: String,
) -> Result<(), ApiError> {
    let before = policy.statements.len();
    policy.statements.retain(|statement| !has_sid(statement, sid));
    if policy.statements.len() == before {
        let message = format!("Statement {sid} is not found in resource policy.");
        return Err(ApiError::not_found(message));
    }
    check(given, &policy.revision_id, operation)?;
    policy.revision_id = revision;
    Ok(())
}

/// What a request says about who may invoke the function with this ARN.
fn of_function(fields: &Fields, arn: &str) -> Result<Value, ApiError> {
    let action = fields.needed("Action", 0..=10_000)?;
    let is_action = action == "*"
        || action.strip_prefix("lambda:").is_some_and(|name| {
            name == "*" || (!name.is_empty() && name.bytes().all(|b| b.is_ascii_alphabetic()))
        });
    if !is_action {
        let demand =
            format_args!("satisfy regular expression pattern: (lambda:[*]|lambda:[a-zA-Z]+|[*])");
        return Err(unfit("action", action, demand));
    }
    let url_auth = fields.choice("FunctionUrlAuthType", &["NONE", "AWS_IAM"])?;
    if url_auth.is_some() && action != "lambda:InvokeFunctionUrl" {
        return Err(ApiError::invalid_parameter(
            "FunctionUrlAuthType is only supported for lambda:InvokeFunctionUrl action",
        ));
    }
    let via_url = fields.boolean("InvokedViaFunctionUrl")?.map(|via| via.to_string());
    let conditions = [
        ("ArnLike", "AWS:SourceArn", fields.text("SourceArn", 0..=10_000)?),
        ("StringEquals", "AWS:SourceAccount", fields.text("SourceAccount", 0..=12)?),
        ("StringEquals", "lambda:EventSourceToken", fields.text("EventSourceToken", 0..=256)?),
        ("StringEquals", "lambda:FunctionUrlAuthType", url_auth),
        ("StringEquals", "aws:PrincipalOrgID", fields.text("PrincipalOrgID", 12..=34)?),
        ("Bool", "lambda:InvokedViaFunctionUrl", via_url.as_deref()),
    ];
    let principal = principal(fields.needed("Principal", 0..=2048)?)?;
    statement(fields, principal, action, arn, &conditions)
}

/// What a request says about who may use the layer version with this ARN.
fn of_layer(fields: &Fields, arn: &str) -> Result<Value, ApiError> {
    const ACTION: &str = "lambda:GetLayerVersion";
    let action = fields.needed("Action", 0..=22)?;
    if action != ACTION {
        let demand = format_args!("satisfy regular expression pattern: {ACTION}");
        return Err(unfit("action", action, demand));
    }
    let organization = fields.text("OrganizationId", 0..=34)?;
    let text = fields.needed("Principal", 0..=10_000)?;
    let principal = principal(text)?;
    if principal.get("Service").is_some() {
        let demand = format_args!(
            "satisfy regular expression pattern: \\d{{12}}|\\*|arn:(aws[a-zA-Z-]*):iam::\\d{{12}}:root"
        );
        return Err(unfit("principal", text, demand));
    }
    let conditions = [("StringEquals", "aws:PrincipalOrgID", organization)];
    statement(fields, principal, ACTION, arn, &conditions)
}

/// Whom a text means: everybody, an account, or a service.
fn principal(text: &str) -> Result<Value, ApiError> {
    let is_service = || {
        let letters = |b: u8| b.is_ascii_alphanumeric() || b"-.".contains(&b);
        text.contains('.') && text.bytes().all(letters)
    };
    if text == "*" {
        Ok("*".into())
    } else if text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit()) {
        Ok(json!({ "AWS": format!("arn:aws:iam::{text}:root") }))
    } else if text.starts_with("arn:") {
        Ok(json!({ "AWS": text }))
    } else if is_service() {
        Ok(json!({ "Service": text }))
    } else {
        let message =
            "The provided principal was invalid. Please check the principal and try again.";
        Err(ApiError::invalid_parameter(message))
    }
}

fn statement(
    fields: &Fields,
    principal: Value,
    action: &str,
    arn: &str,
    conditions: &[(&str, &str, Option<&str>)],
) -> Result<Value, ApiError> {
    let sid = fields.needed("StatementId", 1..=100)?;
    if !sid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
        let demand = format_args!("satisfy regular expression pattern: ([a-zA-Z0-9-_]+)");
        return Err(unfit("statementId", sid, demand));
    }
    let mut statement = json!({
        "Sid": sid,
        "Effect": "Allow",
        "Principal": principal,
        "Action": action,
        "Resource": arn,
    });
    let mut condition = Map::new();
    for (operator, key, value) in conditions {
        if let Some(value) = value {
            let operands = condition.entry(*operator).or_insert_with(|| json!({}));
            operands[*key] = (*value).into();
        }
    }
    if !condition.is_empty() {
        statement["Condition"] = condition.into();
    }
    Ok(statement)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Value, ApiError> {
        of_function(&Fields::parse(text.as_bytes()).expect("JSON"), "arn:f:live")
    }

    #[test]
    fn statements_are_as_lambda_writes_them() {
        let said = r#"{"StatementId":"s3","Action":"lambda:InvokeFunction",
            "Principal":"s3.amazonaws.com","SourceArn":"arn:aws:s3:::b","SourceAccount":"1",
            "EventSourceToken":"t","PrincipalOrgID":"o-1234567890"}"#;
        let expected = json!({
            "Sid": "s3", "Effect": "Allow", "Principal": {"Service": "s3.amazonaws.com"},
            "Action": "lambda:InvokeFunction", "Resource": "arn:f:live",
            "Condition": {
                "ArnLike": {"AWS:SourceArn": "arn:aws:s3:::b"},
                "StringEquals": {
                    "AWS:SourceAccount": "1", "lambda:EventSourceToken": "t",
                    "aws:PrincipalOrgID": "o-1234567890",
                },
            },
        });
        assert_eq!(of(said), Ok(expected));
        let url = r#"{"StatementId":"u","Action":"lambda:InvokeFunctionUrl","Principal":"*",
            "FunctionUrlAuthType":"NONE","InvokedViaFunctionUrl":true}"#;
        let statement = of(url).expect("valid");
        assert_eq!(statement["Principal"], "*");
        let condition = json!({
            "StringEquals": {"lambda:FunctionUrlAuthType": "NONE"},
            "Bool": {"lambda:InvokedViaFunctionUrl": "true"},
        });
        assert_eq!(statement["Condition"], condition);
        let account = json!({"AWS": "arn:aws:iam::123456789012:root"});
        assert_eq!(principal("123456789012"), Ok(account.clone()));
        assert_eq!(principal("arn:aws:iam::123456789012:root"), Ok(account));
    }

    #[test]
    fn what_is_no_statement_is_refused() {
        let all = |action: &str, principal: &str, sid: &str, more: &str| {
            format!(
                r#"{{"StatementId":"{sid}","Action":"{action}","Principal":"{principal}"{more}}}"#
            )
        };
        let url_auth = r#","FunctionUrlAuthType":"NONE""#;
        for (text, part) in [
            (all("s3:Get", "*", "s", ""), "at 'action'"),
            (all("lambda:", "*", "s", ""), "at 'action'"),
            (all("lambda:Invoke", "somebody", "s", ""), "principal was invalid"),
            (all("lambda:Invoke", "*", "a b", ""), "at 'statementId'"),
            (all("lambda:Invoke", "*", "s", url_auth), "FunctionUrlAuthType is only"),
            ("{}".to_owned(), "at 'action'"),
        ] {
            let refused = of(&text).expect_err(&text);
            assert!(refused.message.contains(part), "{text}: {}", refused.message);
        }
    }

    #[test]
    fn a_policy_grows_to_its_limit_and_no_name_comes_twice() {
        let mut policy = Policy::default();
        let statement = |n: usize| json!({ "Sid": n.to_string(), "Resource": "x".repeat(5000) });
        for n in 0..4 {
            insert(&mut policy, statement(n), format!("r{n}")).expect("room");
        }
        let twice = insert(&mut policy.clone(), statement(3), "r".into()).expect_err("twice");
        assert_eq!((twice.status, twice.name), (409, "ResourceConflictException"));
        let long = insert(&mut policy.clone(), statement(4), "r".into()).expect_err("too long");
        assert_eq!(long.name, "PolicyLengthExceededException");
        let stale = (Some("r0"), OF_FUNCTION);
        let refused = withdraw(&mut policy.clone(), "1", stale, "r".into()).expect_err("stale");
        assert_eq!(refused.status, 412);
        withdraw(&mut policy, "1", (Some("r3"), OF_FUNCTION), "r".into()).expect("there");
        let gone = withdraw(&mut policy, "1", (None, OF_FUNCTION), "r".into()).expect_err("gone");
        assert_eq!(gone.message, "Statement 1 is not found in resource policy.");
        assert_eq!((policy.statements.len(), &*policy.revision_id), (3, "r"));
    }
}
