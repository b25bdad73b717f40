//! Tags: names and values of the user's own. Those that begin with `hob:` set what Lambda's API has
//! no parameter for.

use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::json;

use super::change::{self, Change, apply};
use super::fields::unfit;
use super::{Answer, Named, Request};
use crate::api::error::ApiError;
use crate::api::{Api, route};
use crate::function::config::{FunctionConfig, Runtime};
use crate::function::record::{FunctionRecord, TAG_PREFIX};
use crate::function::store::Part;
use crate::host::catalog::Source;
use crate::limits::TAGS_MAX;

/// Checks tags: how many, how long, and what those of the server's own say.
pub fn check(tags: &BTreeMap<String, String>) -> Result<(), ApiError> {
    if tags.len() > TAGS_MAX {
        return Err(ApiError::invalid_parameter("Number of tags exceeds resource tag limit."));
    }
    for (name, value) in tags {
        if name.is_empty() || name.chars().count() > 128 || name.starts_with("aws:") {
            let demand = format_args!("be 1 to 128 characters that do not begin with aws:");
            return Err(unfit("tags", name, demand));
        }
        if value.chars().count() > 256 {
            let demand = format_args!("have length less than or equal to 256");
            return Err(unfit("tags", value, demand));
        }
        if let Some(key) = name.strip_prefix(TAG_PREFIX) {
            let mut probe = FunctionConfig::new(Runtime::Native, "probe");
            probe.set(key, value).map_err(|allowed| {
                ApiError::invalid_parameter(format!("tag {name} is {value:?}, allowed: {allowed}"))
            })?;
        }
    }
    Ok(())
}

/// `TagResource`
pub fn tag(request: &Request<'_>) -> Result<Answer, ApiError> {
    let api = request.api;
    let name = function(request)?;
    let fields = request.fields()?;
    let tags = fields.map("Tags")?.ok_or_else(|| fields.missing("Tags"))?;
    let mut record = change::read(api, &name)?;
    let before = record.tags.clone();
    record.tags.extend(tags);
    check(&record.tags)?;
    put(api, &name, &record, &before)
}

/// `UntagResource`
pub fn untag(request: &Request<'_>) -> Result<Answer, ApiError> {
    let api = request.api;
    let name = function(request)?;
    let keys = route::parameters(&request.operation.query).filter(|(n, _)| n == "tagKeys");
    let keys: Vec<String> = keys.map(|(_, key)| key).collect();
    let mut record = change::read(api, &name)?;
    let before = record.tags.clone();
    record.tags.retain(|tag, _| !keys.contains(tag));
    put(api, &name, &record, &before)
}

/// `ListTags`
pub fn list(request: &Request<'_>) -> Result<Answer, ApiError> {
    let name = function(request)?;
    let record = change::read(request.api, &name)?;
    Ok(Answer::new(200, json!({ "Tags": record.tags })))
}

/// Keeps the tags; if those of the server's own have changed, the function is another from here on.
fn put(
    api: &Rc<Api>,
    name: &str,
    record: &FunctionRecord,
    before: &BTreeMap<String, String>,
) -> Result<Answer, ApiError> {
    let own = |tags: &BTreeMap<String, String>| -> Vec<(String, String)> {
        let own = tags.iter().filter(|(name, _)| name.starts_with(TAG_PREFIX));
        own.map(|(name, value)| (name.clone(), value.clone())).collect()
    };
    let source = api.host.catalog.borrow().function(name).map(|function| function.source.clone());
    let latest = record.latest.as_ref().filter(|_| source == Some(Source::Pushed));
    let change = match latest.filter(|_| own(&record.tags) != own(before)) {
        Some(latest) => {
            let opt = latest.opt.as_ref().map(|digest| api.store.layers(digest));
            let home = (&*api.store.code(&latest.code.digest), opt);
            let function = api.host.load(name, Source::Pushed, home, Some(record));
            if let Err(issues) = &function.state {
                return Err(ApiError::invalid_parameter(issues.join("; ")));
            }
            let of = name.to_owned();
            Change::keep(api, Part::Functions, name, record)?.then(move |api| {
                api.host.install(function);
                api.host.provision(&api.store, &of);
            })
        }
        None => apply(api, name, record)?,
    };
    Ok(Answer::empty().once(change))
}

/// The function whose ARN the path has.
fn function(request: &Request<'_>) -> Result<String, ApiError> {
    let arn = &request.operation.name;
    if !arn.starts_with("arn:") {
        let demand = format_args!(
            "satisfy regular expression pattern: arn:(aws[a-zA-Z-]*):lambda:.*:.*:function:.*"
        );
        return Err(unfit("resource", arn, demand));
    }
    let Named { name, qualifier } = Named::parse(request.home(), arn, None)?;
    match qualifier {
        None => Ok(name),
        Some(_) => Err(ApiError::invalid_parameter(
            "Tags on function aliases and versions are not supported. Please specify a function \
             ARN.",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_checked_before_they_are_kept() {
        let tags = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
        };
        assert!(check(&tags(&[("team", ""), ("hob:queue_wait_ms", "0")])).is_ok());
        for (bad, part) in [
            (tags(&[("", "x")]), "at 'tags'"),
            (tags(&[("aws:x", "x")]), "at 'tags'"),
            (tags(&[("x", &"v".repeat(257))]), "less than or equal to 256"),
            (tags(&[("hob:queue_wait_ms", "soon")]), "allowed: 0..900000"),
            (tags(&[("hob:speed", "1")]), "allowed: the names hob:queue_wait_ms"),
        ] {
            let refused = check(&bad).expect_err(part);
            assert!(refused.message.contains(part), "{}", refused.message);
        }
        let many: BTreeMap<String, String> =
            (0..=TAGS_MAX).map(|n| (n.to_string(), String::new())).collect();
        assert!(check(&many).is_err());
    }
}
