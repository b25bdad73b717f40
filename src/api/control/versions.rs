//! Published versions: numbered copies of `$LATEST` that never change.

use std::rc::Rc;

use serde_json::Value;

use super::change::{self, Change, check_revision, not_found, now_ms, revision};
use super::list::page;
use super::view::{self, Stage, View, show_latest};
use super::{Answer, Request};
use crate::api::Api;
use crate::api::error::ApiError;
use crate::function::record::{FunctionRecord, LATEST, VersionRecord};
use crate::function::store::Part;
use crate::limits::{DESCRIPTION_MAX, LIST_PAGE_MAX};

/// `PublishVersion`
pub fn publish(request: &Request<'_>) -> Result<Answer, ApiError> {
    let api = request.api;
    let name = request.bare_function()?;
    change::read(api, &name)?;
    let fields = request.fields()?;
    super::configure::check_possible(&fields)?;
    let mut record = change::read(api, &name)?;
    let latest = view::latest(api, &name, &record)?;
    check_revision(fields.text("RevisionId", 0..=128)?, &latest.revision_id)?;
    let present = view::sha256(&latest.code);
    if let Some(wanted) = fields.text("CodeSha256", 0..=128)?.filter(|wanted| *wanted != present) {
        return Err(ApiError::invalid_parameter(format!(
            "CodeSHA256 ({wanted}) is different from current CodeSHA256 in $LATEST ({present}). \
             Please try again with the CodeSHA256 in $LATEST."
        )));
    }
    let description = fields.text("Description", 0..=DESCRIPTION_MAX)?;
    let new = next(api, &name, &mut record, &latest, description)?;
    let Some((number, version)) = new else {
        // Nothing has changed: the last version is what was wanted.
        let (number, version) =
            last(api, &name, &record)?.ok_or_else(|| not_found(api, &name, None))?;
        return Ok(Answer::new(201, show(api, &name, number, &version)?));
    };
    let change = Change::publish(api, Part::Functions, &name, &record, (number, &version))?;
    Ok(Answer::new(201, show(api, &name, number, &version)?).once(change))
}

/// The next version of a function, which the record counts then; none if it would be the same as
/// the last one.
pub fn next(
    api: &Rc<Api>,
    name: &str,
    record: &mut FunctionRecord,
    latest: &VersionRecord,
    description: Option<&str>,
) -> Result<Option<(u32, VersionRecord)>, ApiError> {
    let is_same = |(_, last): (u32, VersionRecord)| {
        (last.code.digest, last.code.zip, last.opt, last.configuration)
            == (
                latest.code.digest.clone(),
                latest.code.zip.clone(),
                latest.opt.clone(),
                latest.configuration.clone(),
            )
    };
    if last(api, name, record)?.is_some_and(is_same) {
        return Ok(None);
    }
    let number = record.next_version;
    record.next_version = number.checked_add(1).ok_or_else(|| {
        ApiError::invalid_parameter("There are no numbers left for another version.")
    })?;
    let version = VersionRecord {
        description: description.unwrap_or(&latest.description).to_owned(),
        modified_ms: now_ms(),
        revision_id: revision(api),
        ..latest.clone()
    };
    Ok(Some((number, version)))
}

/// The published version with the highest number.
fn last(
    api: &Api,
    name: &str,
    record: &FunctionRecord,
) -> Result<Option<(u32, VersionRecord)>, ApiError> {
    let Some(number) = numbers(api, name, record)?.pop() else { return Ok(None) };
    change::read_version(api, name, number).map(|version| Some((number, version)))
}

/// The numbers of a function's published versions, in order.
pub fn numbers(api: &Api, name: &str, record: &FunctionRecord) -> Result<Vec<u32>, ApiError> {
    let numbers = api.store.versions(Part::Functions, name, record.next_version);
    numbers.map_err(|error| change::disk(name, &error))
}

fn show(api: &Api, name: &str, number: u32, record: &VersionRecord) -> Result<Value, ApiError> {
    let label = number.to_string();
    View { name, qualifier: Some(&label), label: &label, record, stage: Stage::Active }.show(api)
}

/// `ListVersionsByFunction`
pub fn list(request: &Request<'_>) -> Result<Answer, ApiError> {
    let api = request.api;
    let name = request.bare_function()?;
    let record = change::read(api, &name)?;
    let latest = view::latest(api, &name, &record)?;
    let numbers = numbers(api, &name, &record)?;
    let keyed = numbers.into_iter().map(|number| (format!("{number:010}"), Some(number)));
    let items = std::iter::once((String::new(), None)).chain(keyed);
    let page = page(request, items, LIST_PAGE_MAX)?.map(|number| match number {
        None => show_latest(api, &name, Some(LATEST), &latest),
        Some(number) => show(api, &name, number, &change::read_version(api, &name, number)?),
    });
    Ok(Answer::new(200, page.transpose()?.into_value("Versions")))
}

/// Refuses to delete what an alias leads to.
pub fn check_unused(
    api: &Api,
    name: &str,
    record: &FunctionRecord,
    label: &str,
) -> Result<(), ApiError> {
    let home = &api.host.facts.home;
    let leads =
        |(_, alias): &(&String, &crate::function::record::AliasRecord)| alias.route.leads_to(label);
    let arns: Vec<String> = record
        .aliases
        .iter()
        .filter(leads)
        .map(|(alias, _)| home.arn(name, Some(alias)).to_string())
        .collect();
    if arns.is_empty() {
        return Ok(());
    }
    let arns = arns.join(", ");
    Err(ApiError::conflict(format!(
        "Version {label} is pointed to by the following aliases: [{arns}]. Please remove the \
         aliases before deleting the version."
    )))
}
