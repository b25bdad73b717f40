//! Aliases: names for versions, to be moved from one to the next.

use serde_json::{Value, json};

use super::change::{self, apply, check_revision, revision};
use super::fields::{Fields, unfit};
use super::list::page;
use super::{Answer, Request};
use crate::api::Api;
use crate::api::error::ApiError;
use crate::function::record::{AliasRecord, FunctionRecord, LATEST, Route, is_alias};
use crate::limits::{DESCRIPTION_MAX, LIST_PAGE_MAX};

/// `CreateAlias`
pub fn create(request: &Request<'_>) -> Result<Answer, ApiError> {
    let api = request.api;
    let function = request.bare_function()?;
    let fields = request.fields()?;
    let mut record = change::read(api, &function)?;
    let name = fields.needed("Name", 1..=128)?;
    if !is_alias(name) {
        let demand =
            format_args!("satisfy regular expression pattern: (?!^[0-9]+$)([a-zA-Z0-9-_]+)");
        return Err(fields.unfit("Name", name, demand));
    }
    if record.aliases.contains_key(name) {
        let arn = request.home().arn(&function, Some(name));
        return Err(ApiError::conflict(format!("Alias already exists: {arn}")));
    }
    fields.needed("FunctionVersion", 1..=1024)?;
    let route = route(api, &function, &record, &fields, None)?;
    let alias = AliasRecord {
        route,
        description: fields.text("Description", 0..=DESCRIPTION_MAX)?.unwrap_or("").to_owned(),
        revision_id: revision(api),
    };
    record.aliases.insert(name.to_owned(), alias.clone());
    Ok(Answer::new(201, show(api, &function, name, &alias)).once(apply(api, &function, &record)?))
}

/// `UpdateAlias`
pub fn update(request: &Request<'_>) -> Result<Answer, ApiError> {
    let api = request.api;
    let function = request.bare_function()?;
    let fields = request.fields()?;
    let mut record = change::read(api, &function)?;
    let name = request.operation.part.clone();
    let before = find(api, &function, &record, &name)?;
    check_revision(fields.text("RevisionId", 0..=128)?, &before.revision_id)?;
    let route = route(api, &function, &record, &fields, Some(&before.route))?;
    let description = fields.text("Description", 0..=DESCRIPTION_MAX)?;
    let alias = AliasRecord {
        route,
        description: description.unwrap_or(&before.description).to_owned(),
        revision_id: revision(api),
    };
    super::concurrency::check_move(&record, &name, &alias.route)?;
    record.aliases.insert(name.clone(), alias.clone());
    Ok(Answer::new(200, show(api, &function, &name, &alias)).once(apply(api, &function, &record)?))
}

/// `GetAlias`
pub fn get(request: &Request<'_>) -> Result<Answer, ApiError> {
    let function = request.bare_function()?;
    let record = change::read(request.api, &function)?;
    let name = &request.operation.part;
    let alias = find(request.api, &function, &record, name)?;
    Ok(Answer::new(200, show(request.api, &function, name, &alias)))
}

/// `DeleteAlias`, which is content if there is none.
pub fn delete(request: &Request<'_>) -> Result<Answer, ApiError> {
    let api = request.api;
    let function = request.bare_function()?;
    let mut record = change::read(api, &function)?;
    let name = &request.operation.part;
    if record.aliases.remove(name).is_some() {
        record.provisioned_concurrency.remove(name);
        record.event_invoke.remove(name);
        record.urls.remove(name);
        record.policies.remove(name);
        return Ok(Answer::empty().once(apply(api, &function, &record)?));
    }
    Ok(Answer::empty())
}

/// `ListAliases`
pub fn list(request: &Request<'_>) -> Result<Answer, ApiError> {
    let api = request.api;
    let function = request.bare_function()?;
    let record = change::read(api, &function)?;
    let version = request.operation.parameter("FunctionVersion");
    let wanted =
        |alias: &AliasRecord| version.as_ref().is_none_or(|version| alias.route.leads_to(version));
    let aliases = record.aliases.iter().filter(|(_, alias)| wanted(alias));
    let items = aliases.map(|(name, alias)| (name.clone(), (name, alias)));
    let page = page(request, items, LIST_PAGE_MAX)?;
    let page = page.map(|(name, alias)| show(api, &function, name, alias));
    Ok(Answer::new(200, page.into_value("Aliases")))
}

/// The alias of this name.
pub fn find(
    api: &Api,
    function: &str,
    record: &FunctionRecord,
    name: &str,
) -> Result<AliasRecord, ApiError> {
    record.aliases.get(name).cloned().ok_or_else(|| {
        let arn = api.host.facts.home.arn(function, Some(name));
        ApiError::not_found(format!("Cannot find alias arn: {arn}"))
    })
}

/// Where a request wants an alias to lead. What it does not say stays as it was.
fn route(
    api: &Api,
    function: &str,
    record: &FunctionRecord,
    fields: &Fields,
    before: Option<&Route>,
) -> Result<Route, ApiError> {
    let version = fields.text("FunctionVersion", 1..=1024)?;
    let version = version.or(before.map(|before| &*before.function_version)).unwrap_or(LATEST);
    let additional = match fields.object("RoutingConfig")? {
        None => before.and_then(|before| before.additional.clone()),
        Some(routing) => weights(&routing)?,
    };
    let route = Route { function_version: version.to_owned(), additional };
    route.check().map_err(ApiError::invalid_parameter)?;
    for label in [Some(version), route.additional.as_ref().map(|(label, _)| &**label)] {
        let Some(label) = label.filter(|label| *label != LATEST) else { continue };
        let number = label.parse::<u32>();
        let number = number.map_err(|_| {
            unfit(
                "functionVersion",
                label,
                format_args!("satisfy regular expression pattern: (\\$LATEST|[0-9]+)"),
            )
        })?;
        if number >= record.next_version {
            return Err(change::not_found(api, function, Some(label)));
        }
        change::read_version(api, function, number)?;
    }
    Ok(route)
}

fn weights(routing: &Fields) -> Result<Option<(String, f64)>, ApiError> {
    let Some(weights) = routing.value("AdditionalVersionWeights") else { return Ok(None) };
    let bad = |value: &Value| {
        unfit(
            "routingConfig.additionalVersionWeights",
            value,
            format_args!("be a version's number with a weight"),
        )
    };
    let weights = weights.as_object().ok_or_else(|| bad(weights))?;
    let mut pairs = weights.iter();
    let Some((version, weight)) = pairs.next() else { return Ok(None) };
    if pairs.next().is_some() {
        return Err(ApiError::invalid_parameter(
            "Number of items in AdditionalVersionWeights cannot be greater than 1",
        ));
    }
    let weight = weight.as_f64().ok_or_else(|| bad(weight))?;
    Ok(Some((version.clone(), weight)))
}

fn show(api: &Api, function: &str, name: &str, alias: &AliasRecord) -> Value {
    let mut value = json!({
        "AliasArn": api.host.facts.home.arn(function, Some(name)).to_string(),
        "Name": name,
        "FunctionVersion": alias.route.function_version,
        "Description": alias.description,
        "RevisionId": alias.revision_id,
    });
    if let Some((version, weight)) = &alias.route.additional {
        value["RoutingConfig"] = json!({ "AdditionalVersionWeights": { version: weight } });
    }
    value
}
