//! Asynchronous invocation: how often it is tried, for how long, and where its results go.
//!
//! A function, its versions and its aliases each have a configuration of their own, or none:
//! nothing is inherited.

use serde_json::{Value, json};

use super::change::{self, apply, now_ms};
use super::concurrency::no_folder_says;
use super::fields::Fields;
use super::list::page;
use super::{Answer, Named, Request, view};
use crate::api::Api;
use crate::api::error::ApiError;
use crate::function::config::Async;
use crate::function::name::{Home, is_name};
use crate::function::record::{EventInvoke, FunctionRecord, LATEST};
use crate::function::trigger::is_topic;
use crate::limits::{DESTINATION_MAX, LIST_PAGE_MAX};

/// `PutFunctionEventInvokeConfig`: what is not said holds no more.
pub fn put(request: &Request<'_>) -> Result<Answer, ApiError> {
    set(request, true)
}

/// `UpdateFunctionEventInvokeConfig`: what is not said stays as it is.
pub fn update(request: &Request<'_>) -> Result<Answer, ApiError> {
    set(request, false)
}

fn set(request: &Request<'_>, replaces: bool) -> Result<Answer, ApiError> {
    let api = request.api;
    let named = request.function()?;
    let fields = request.fields()?;
    let given = given(&fields)?;
    let mut record = function(api, &named)?;
    let qualifier = qualifier(&named);
    if qualifier == LATEST {
        no_folder_says(api, &named.name, "[async]")?;
    }
    let before = match replaces {
        true => EventInvoke::default(),
        false => find(api, &named, &record)?,
    };
    check_destination(api, &named.name, given.on_success.as_deref(), false)?;
    check_destination(api, &named.name, given.on_failure.as_deref(), true)?;
    let config = merge(before, given);
    record.event_invoke.insert(qualifier.to_owned(), config.clone());
    Ok(Answer::new(200, show(request.home(), &named.name, qualifier, &config)).once(apply(
        api,
        &named.name,
        &record,
    )?))
}

/// `GetFunctionEventInvokeConfig`
pub fn get(request: &Request<'_>) -> Result<Answer, ApiError> {
    let api = request.api;
    let named = request.function()?;
    let record = change::read(api, &named.name).map_err(|_| none(api, &named))?;
    let config = find(api, &named, &record)?;
    Ok(Answer::new(200, show(request.home(), &named.name, qualifier(&named), &config)))
}

/// `DeleteFunctionEventInvokeConfig`
pub fn delete(request: &Request<'_>) -> Result<Answer, ApiError> {
    let api = request.api;
    let named = request.function()?;
    let mut record = change::read(api, &named.name).map_err(|_| none(api, &named))?;
    if qualifier(&named) == LATEST {
        no_folder_says(api, &named.name, "[async]")?;
    }
    record.event_invoke.remove(qualifier(&named)).ok_or_else(|| none(api, &named))?;
    Ok(Answer::empty().once(apply(api, &named.name, &record)?))
}

/// `ListFunctionEventInvokeConfigs`
pub fn list(request: &Request<'_>) -> Result<Answer, ApiError> {
    let api = request.api;
    let name = request.bare_function()?;
    let named = Named { name, qualifier: None };
    let mut record = function(api, &named)?;
    if let Some(own) = of_toml(api, &named.name, &record)? {
        record.event_invoke.insert(LATEST.to_owned(), own);
    }
    let items = record.event_invoke.iter().map(|(of, config)| (of.clone(), (of, config)));
    let page = page(request, items, LIST_PAGE_MAX)?;
    let page = page.map(|(of, config)| show(request.home(), &named.name, of, config));
    Ok(Answer::new(200, page.into_value("FunctionEventInvokeConfigs")))
}

fn qualifier(named: &Named) -> &str {
    named.qualifier.as_deref().unwrap_or(LATEST)
}

/// What is kept of a function that has the version or alias which is named.
fn function(api: &Api, named: &Named) -> Result<FunctionRecord, ApiError> {
    let missing = |_| ApiError::not_found("The function doesn't exist.");
    let record = change::read(api, &named.name).map_err(missing)?;
    if let Some(number) = change::version_of(api, &record, named).map_err(missing)? {
        change::read_version(api, &named.name, number).map_err(missing)?;
    }
    Ok(record)
}

/// The configuration that is in force for what is named.
fn find(api: &Api, named: &Named, record: &FunctionRecord) -> Result<EventInvoke, ApiError> {
    let qualifier = qualifier(named);
    let own = match qualifier {
        LATEST => of_toml(api, &named.name, record)?,
        _ => None,
    };
    own.or_else(|| record.event_invoke.get(qualifier).cloned()).ok_or_else(|| none(api, named))
}

fn none(api: &Api, named: &Named) -> ApiError {
    let arn = api.host.facts.home.arn(&named.name, Some(qualifier(named)));
    ApiError::not_found(format!("The function {arn} doesn't have an EventInvokeConfig"))
}

/// What `function.toml` says, unless the API has been told something else.
fn of_toml(
    api: &Api,
    name: &str,
    record: &FunctionRecord,
) -> Result<Option<EventInvoke>, ApiError> {
    if record.event_invoke.contains_key(LATEST) {
        return Ok(None);
    }
    let said = {
        let catalog = api.host.catalog.borrow();
        let version = catalog.function(name).and_then(|function| function.state.as_ref().ok());
        version.map(|version| version.config.asynchronous.clone())
    };
    let Some(said) = said.filter(|said| *said != Async::default()) else { return Ok(None) };
    Ok(Some(EventInvoke {
        retries: Some(said.retries.into()),
        max_age_s: Some(said.max_age_s),
        has_destinations: said.on_success.is_some() || said.on_failure.is_some(),
        on_success: said.on_success,
        on_failure: said.on_failure,
        modified_ms: view::latest(api, name, record)?.modified_ms,
    }))
}

/// What a request says.
fn given(fields: &Fields) -> Result<EventInvoke, ApiError> {
    let retries = fields.integer("MaximumRetryAttempts", 0..=2)?;
    let max_age_s = fields.integer("MaximumEventAgeInSeconds", 60..=21_600)?;
    let destinations = fields.object("DestinationConfig")?;
    if retries.is_none() && max_age_s.is_none() && destinations.is_none() {
        return Err(ApiError::invalid_parameter(
            "You must specify at least one of error handling or destination setting.",
        ));
    }
    let destination = |name: &str| {
        let object = destinations.as_ref().map(|fields| fields.object(name)).transpose()?;
        let Some(object) = object.flatten() else { return Ok(None) };
        let text = object.text("Destination", 0..=DESTINATION_MAX)?;
        Ok::<_, ApiError>(text.filter(|text| !text.is_empty()).map(str::to_owned))
    };
    Ok(EventInvoke {
        retries,
        max_age_s,
        on_success: destination("OnSuccess")?,
        on_failure: destination("OnFailure")?,
        has_destinations: destinations.is_some(),
        modified_ms: now_ms(),
    })
}

/// Destinations are one setting: both are given, or neither.
fn merge(before: EventInvoke, given: EventInvoke) -> EventInvoke {
    let (on_success, on_failure) = match given.has_destinations {
        true => (given.on_success, given.on_failure),
        false => (before.on_success, before.on_failure),
    };
    EventInvoke {
        retries: given.retries.or(before.retries),
        max_age_s: given.max_age_s.or(before.max_age_s),
        on_success,
        on_failure,
        has_destinations: given.has_destinations || before.has_destinations,
        modified_ms: given.modified_ms,
    }
}

/// Refuses a destination that is no place for records, or the function itself.
fn check_destination(
    api: &Api,
    own: &str,
    destination: Option<&str>,
    of_failures: bool,
) -> Result<(), ApiError> {
    let Some(destination) = destination else { return Ok(()) };
    let is_valid = match place(&api.host.facts.home, destination) {
        Some(Place::Function(name)) if name == own => {
            let message = "You can't specify the function as a destination for itself.";
            return Err(ApiError::invalid_parameter(message));
        }
        Some(Place::Function(name)) => api.host.catalog.borrow().function(name).is_some(),
        Some(Place::Bucket) => of_failures,
        Some(Place::Elsewhere) => true,
        None => false,
    };
    if is_valid {
        return Ok(());
    }
    Err(ApiError::invalid_parameter(format!("The destination ARN {destination} is invalid.")))
}

/// What a destination names.
#[derive(Debug, PartialEq, Eq)]
enum Place<'a> {
    /// A function of this server.
    Function(&'a str),
    /// A bucket, which takes failures only.
    Bucket,
    /// Whatever else takes records.
    Elsewhere,
}

fn place<'a>(home: &Home, destination: &'a str) -> Option<Place<'a>> {
    if let Some(name) = destination.strip_prefix("function:") {
        return is_name(name).then_some(Place::Function(name));
    }
    if let Some(topic) = destination.strip_prefix("mqtt:") {
        return is_topic(topic, false).then_some(Place::Elsewhere);
    }
    for scheme in ["http://", "https://"] {
        if let Some(rest) = destination.strip_prefix(scheme) {
            let visible = destination.bytes().all(|b| b.is_ascii_graphic());
            return (visible && !rest.is_empty()).then_some(Place::Elsewhere);
        }
    }
    let mut parts = destination.splitn(6, ':');
    let (arn, partition, service) = (parts.next()?, parts.next()?, parts.next()?);
    let (_region, _account, resource) = (parts.next()?, parts.next()?, parts.next()?);
    if arn != "arn" || !partition.starts_with("aws") || resource.is_empty() {
        return None;
    }
    match service {
        "lambda" => home.parse(destination, None).ok().map(|found| Place::Function(found.name)),
        "sqs" | "sns" | "events" => Some(Place::Elsewhere),
        "s3" => Some(Place::Bucket),
        _ => None,
    }
}

fn show(home: &Home, name: &str, qualifier: &str, config: &EventInvoke) -> Value {
    // A number with fractions, unlike all other times of this API.
    let modified = std::time::Duration::from_millis(config.modified_ms).as_secs_f64();
    let mut value = json!({
        "LastModified": modified,
        "FunctionArn": home.arn(name, Some(qualifier)).to_string(),
    });
    if let Some(retries) = config.retries {
        value["MaximumRetryAttempts"] = retries.into();
    }
    if let Some(seconds) = config.max_age_s {
        value["MaximumEventAgeInSeconds"] = seconds.into();
    }
    if config.has_destinations {
        let destination = |text: &Option<String>| match text {
            Some(text) => json!({ "Destination": text }),
            None => json!({}),
        };
        value["DestinationConfig"] = json!({
            "OnSuccess": destination(&config.on_success),
            "OnFailure": destination(&config.on_failure),
        });
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> Home {
        Home { region: "us-east-1".into(), account: "000000000000".into() }
    }

    #[test]
    fn destinations_are_told_apart() {
        for (text, expected) in [
            ("arn:aws:lambda:us-east-1:000000000000:function:f", Some(Place::Function("f"))),
            ("arn:aws:lambda:us-east-1:000000000000:function:f:live", Some(Place::Function("f"))),
            ("function:f", Some(Place::Function("f"))),
            ("arn:aws:sqs:us-east-1:000000000000:queue", Some(Place::Elsewhere)),
            ("arn:aws:sns:us-east-1:000000000000:topic", Some(Place::Elsewhere)),
            ("arn:aws:events:us-east-1:000000000000:event-bus/b", Some(Place::Elsewhere)),
            ("arn:aws:s3:::bucket", Some(Place::Bucket)),
            ("https://example.com/done", Some(Place::Elsewhere)),
            ("mqtt:alerts/orders", Some(Place::Elsewhere)),
            ("arn:aws:lambda:eu-west-1:000000000000:function:f", None),
            ("arn:aws:lambda:us-east-1:000000000000:layer:f", None),
            ("arn:aws:dynamodb:us-east-1:000000000000:table/t", None),
            ("arn:aws:sqs:us-east-1:000000000000:", None),
            ("arn:aws:sqs", None),
            ("function:a b", None),
            ("mqtt:alerts/#", None),
            ("http://", None),
            ("http://a b", None),
            ("f", None),
        ] {
            assert_eq!(place(&home(), text), expected, "{text}");
        }
    }

    #[test]
    fn what_was_never_set_is_absent() {
        let given = |text: &str| given(&Fields::parse(text.as_bytes()).expect("JSON"));
        assert!(given("{}").is_err_and(|refused| refused.message.contains("at least one of")));
        let mut first = given(r#"{"MaximumRetryAttempts":0}"#).expect("valid");
        first.modified_ms = 1_573_686_021_479;
        let arn = "arn:aws:lambda:us-east-1:000000000000:function:f:$LATEST";
        let shown = show(&home(), "f", LATEST, &first);
        let text = r#""LastModified":1573686021.479"#;
        assert!(shown.to_string().contains(text), "{shown}");
        let mut expected = json!({"LastModified": 1573686021.479, "FunctionArn": arn});
        expected["MaximumRetryAttempts"] = 0.into();
        assert_eq!(shown, expected);
        let second = given(r#"{"DestinationConfig":{"OnFailure":{"Destination":"x"}}}"#);
        let mut both = merge(first, second.expect("valid"));
        both.modified_ms = 1_573_686_021_479;
        expected["DestinationConfig"] = json!({"OnSuccess":{},"OnFailure":{"Destination":"x"}});
        assert_eq!(show(&home(), "f", LATEST, &both), expected);
        let third = merge(both, given(r#"{"DestinationConfig":{}}"#).expect("valid"));
        assert_eq!((third.on_failure, third.has_destinations), (None, true));
    }
}
