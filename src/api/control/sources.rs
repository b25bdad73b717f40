//! Event source mappings: there are none. The queues and streams that Lambda reads from are not on
//! a board, and what a board has instead is said in `function.toml`.

use serde_json::json;

use super::change;
use super::fields::{Fields, unfit};
use super::list::page;
use super::{Answer, Named, Request};
use crate::api::error::ApiError;
use crate::limits::LIST_PAGE_MAX;

/// What to do instead.
const INSTEAD: &str = "let [[trigger]] in its function.toml say what invokes a function: schedule, \
                       mqtt, files or serial";

/// `CreateEventSourceMapping`
pub fn create(request: &Request<'_>) -> Result<Answer, ApiError> {
    let api = request.api;
    let fields = request.fields()?;
    let given = fields.needed("FunctionName", 1..=256)?;
    let named = Named::parse(request.home(), given, None)?;
    let record = change::read(api, &named.name)?;
    change::version_of(api, &record, &named)?;
    let source = source(&fields)?;
    Err(ApiError::invalid_parameter(format!("There is no {source} on this server: {INSTEAD}.")))
}

/// `GetEventSourceMapping`, `UpdateEventSourceMapping` and `DeleteEventSourceMapping`: whichever is
/// meant is not there.
pub fn missing(_: &Request<'_>) -> Result<Answer, ApiError> {
    Err(ApiError::not_found("The resource you requested does not exist."))
}

/// `ListEventSourceMappings`
pub fn list(request: &Request<'_>) -> Result<Answer, ApiError> {
    if let Some(arn) = request.operation.parameter("EventSourceArn")
        && service(&arn).is_none()
    {
        return Err(no_arn("eventSourceArn", &arn));
    }
    if let Some(given) = request.operation.parameter("FunctionName") {
        let named = Named::parse(request.home(), &given, None)?;
        let record = change::read(request.api, &named.name)?;
        change::version_of(request.api, &record, &named)?;
    }
    let page = page(request, [], LIST_PAGE_MAX)?.map(|()| json!({}));
    Ok(Answer::new(200, page.into_value("EventSourceMappings")))
}

/// What a mapping would read from, in words.
fn source(fields: &Fields) -> Result<&'static str, ApiError> {
    if fields.object("SelfManagedEventSource")?.is_some() {
        return Ok("reader for Kafka");
    }
    let Some(arn) = fields.text("EventSourceArn", 0..=10_000)? else {
        return Err(ApiError::invalid_parameter("Unrecognized event source."));
    };
    match service(arn) {
        Some("sqs") => Ok("SQS queue"),
        Some("kinesis") => Ok("Kinesis stream"),
        Some("dynamodb") => Ok("DynamoDB stream"),
        Some("kafka") => Ok("Kafka cluster"),
        Some("mq") => Ok("Amazon MQ broker"),
        Some("rds" | "docdb" | "docdb-elastic") => Ok("DocumentDB cluster"),
        Some(_) => Err(ApiError::invalid_parameter("Unrecognized event source.")),
        None => Err(no_arn("eventSourceArn", arn)),
    }
}

/// The service of an ARN.
fn service(arn: &str) -> Option<&str> {
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    match parts[..] {
        ["arn", partition, service, _, _, resource]
            if partition.starts_with("aws") && !service.is_empty() && !resource.is_empty() =>
        {
            Some(service)
        }
        _ => None,
    }
}

fn no_arn(name: &str, text: &str) -> ApiError {
    let pattern = "arn:(aws[a-zA-Z0-9-]*):([a-zA-Z0-9\\-])+:([a-z]{2}(-gov)?-[a-z]+-\\d{1})?:\
                   (\\d{12})?:(.*)";
    unfit(name, text, format_args!("satisfy regular expression pattern: {pattern}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_named_in_words() {
        let say = |text: &str| {
            let said = source(&Fields::parse(text.as_bytes()).expect("JSON")).map(str::to_owned);
            said.unwrap_or_else(|refused| refused.message.to_string())
        };
        let region = "us-east-1:000000000000";
        for (kind, name, said) in [
            ("sqs", "q", "SQS queue"),
            ("kinesis", "stream/s", "Kinesis stream"),
            ("dynamodb", "table/t/stream/s", "DynamoDB stream"),
            ("kafka", "cluster/c/1", "Kafka cluster"),
            ("mq", "broker:b", "Amazon MQ broker"),
            ("rds", "cluster:c", "DocumentDB cluster"),
            ("s3", "bucket", "Unrecognized event source."),
        ] {
            let arn = format!("{{\"EventSourceArn\":\"arn:aws:{kind}:{region}:{name}\"}}");
            assert_eq!(say(&arn), said);
        }
        assert_eq!(say("{\"SelfManagedEventSource\":{}}"), "reader for Kafka");
        assert_eq!(say("{}"), "Unrecognized event source.");
        assert!(say("{\"EventSourceArn\":\"arn:aws:sqs\"}").contains("'eventSourceArn' failed"));
    }
}
