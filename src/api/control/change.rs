//! Changes: read what is kept, make a changed copy, bring it to the disk, put it in force.

use std::rc::Rc;

use serde::Serialize;

use super::Named;
use crate::api::Api;
use crate::api::error::ApiError;
use crate::function::name::is_built_in;
use crate::function::record::{FunctionRecord, LATEST, VersionRecord};
use crate::function::store::Part;
use crate::host::catalog::{Controls, Source};
use crate::io::Clock;

/// What is kept of a function, to be changed.
pub fn read(api: &Api, name: &str) -> Result<FunctionRecord, ApiError> {
    if api.host.catalog.borrow().function(name).is_none() {
        return Err(not_found(api, name, None));
    }
    let record = api.store.record(Part::Functions, name);
    // A folder that nothing else was said of has none.
    Ok(record.map_err(|error| disk(name, &error))?.unwrap_or_default())
}

/// A published version's record; 404 if there is none.
pub fn read_version(api: &Api, name: &str, number: u32) -> Result<VersionRecord, ApiError> {
    let record = api.store.version(Part::Functions, name, number);
    let record = record.map_err(|error| disk(name, &error))?;
    record.ok_or_else(|| not_found(api, name, Some(&number.to_string())))
}

/// Lambda's error for a function, version or alias that is not there.
pub fn not_found(api: &Api, name: &str, qualifier: Option<&str>) -> ApiError {
    let arn = api.host.facts.home.arn(name, qualifier);
    ApiError::not_found(format!("Function not found: {arn}"))
}

/// What went wrong with the disk.
pub fn disk(name: &str, error: &std::io::Error) -> ApiError {
    ApiError::service(500, format!("read what is kept of {name}: {error}"))
}

/// Brings a changed record to the disk, with a new version if there is one. Only for who holds the
/// changes.
pub async fn commit(
    api: &Rc<Api>,
    name: &str,
    record: &FunctionRecord,
    version: Option<(u32, &VersionRecord)>,
) -> Result<(), ApiError> {
    keep(api, Part::Functions, name, record, version).await
}

/// The same of functions and layers.
pub async fn keep(
    api: &Rc<Api>,
    part: Part,
    name: &str,
    record: &impl Serialize,
    version: Option<(u32, &impl Serialize)>,
) -> Result<(), ApiError> {
    let number = version.map(|(number, _)| number.to_string());
    let fail = |error: std::io::Error| ApiError::service(500, format!("keep {name}: {error}"));
    let staged = api.store.stage(api.host.random(), record).map_err(fail)?;
    let staged = super::upload::Incoming::from(staged);
    let version = match version {
        Some((_, version)) => {
            let staged = api.store.stage(api.host.random(), version).map_err(fail)?;
            Some(super::upload::Incoming::from(staged))
        }
        None => None,
    };
    let text = |staged: &super::upload::Incoming| staged.path().display().to_string();
    let (data, part) = (api.store.data().display().to_string(), part.directory());
    let (record, version) = (text(&staged), version.as_ref().map(text));
    let mut arguments = vec!["commit", &data, part, name, &record];
    if let (Some(number), Some(version)) = (&number, &version) {
        arguments.extend([number.as_str(), version.as_str()]);
    }
    let committed = api.host.helper(&arguments).await;
    committed.map(drop).map_err(|error| ApiError::service(500, error))
}

/// Brings a changed record to the disk, and what it sets besides versions in force.
pub async fn apply(api: &Rc<Api>, name: &str, record: &FunctionRecord) -> Result<(), ApiError> {
    commit(api, name, record, None).await?;
    api.host.control(&api.store, name, Controls::of(record));
    Ok(())
}

/// What is built into the server is neither shown nor changed.
pub fn no_built_in(name: &str) -> Result<(), ApiError> {
    match is_built_in(name) {
        true => Err(ApiError::conflict(format!(
            "function {name} is built into the server: it can be invoked, and nothing else"
        ))),
        false => Ok(()),
    }
}

/// A function that is a folder is neither pushed nor removed; `instead` says what to do.
pub fn no_folder(api: &Api, name: &str, instead: &str) -> Result<(), ApiError> {
    match api.host.catalog.borrow().function(name).map(|function| &function.source) {
        Some(Source::Folder(path)) => Err(ApiError::conflict(format!(
            "function {name} is the folder {}: {instead}",
            path.display()
        ))),
        Some(Source::Pushed) | None => Ok(()),
    }
}

/// What to do with a folder instead of changing the function over the API.
pub const CHANGE_IT: &str = "change it there";

/// A new revision id.
pub fn revision(api: &Api) -> String {
    api.host.request_id().to_string()
}

/// Refuses a change that was made with an older state in mind.
pub fn check_revision(given: Option<&str>, present: &str) -> Result<(), ApiError> {
    match given {
        Some(given) if given != present => Err(ApiError::precondition()),
        Some(_) | None => Ok(()),
    }
}

/// Milliseconds of Unix time.
pub fn now_ms() -> u64 {
    Clock::unix_ms()
}

/// The version that a function's qualifier leads to: a number, or none for `$LATEST`. An alias with
/// two ends leads to its first.
pub fn version_of(
    api: &Api,
    record: &FunctionRecord,
    named: &Named,
) -> Result<Option<u32>, ApiError> {
    let Some(qualifier) = named.qualifier.as_deref().filter(|q| *q != LATEST) else {
        return Ok(None);
    };
    let label = record.aliases.get(qualifier).map(|alias| &*alias.route.function_version);
    let label = label.unwrap_or(qualifier);
    if label == LATEST {
        return Ok(None);
    }
    let number = label.parse().ok().filter(|number| *number < record.next_version);
    number.map(Some).ok_or_else(|| not_found(api, &named.name, Some(qualifier)))
}
