//! Layers: zips of files that functions find below `/opt`, published once and used by many.

mod of_function;

use serde_json::{Value, json};

use super::change::{self, Change, now_ms};
use super::fields::{Fields, unfit};
use super::list::page;
use super::upload::take;
use super::{Answer, Request, view};
use crate::api::error::ApiError;
use crate::api::{Api, End};
use crate::function::name::{BadLayer, LayerName};
use crate::function::record::{LayerRecord, LayerVersionRecord};
use crate::function::store::Part;
use crate::limits::{DESCRIPTION_MAX, LAYER_RUNTIMES_MAX, LICENSE_MAX, LIST_PAGE_MAX};
pub use of_function::put_in;

const NAME_PATTERN: &str = "satisfy regular expression pattern: (arn:[a-zA-Z0-9-]+:lambda:\
                            [a-zA-Z0-9-]+:\\d{12}:layer:[a-zA-Z0-9-_]+)|[a-zA-Z0-9-_]+";
const ARN_PATTERN: &str = "satisfy regular expression pattern: arn:[a-zA-Z0-9-]+:lambda:\
                           [a-zA-Z0-9-]+:\\d{12}:layer:[a-zA-Z0-9-_]+:[0-9]+";

/// What layers may say that they are for.
const ARCHITECTURES: [&str; 4] = ["x86_64", "arm64", "armv7", "riscv64"];

fn missing() -> ApiError {
    ApiError::not_found("The resource you requested does not exist.")
}

/// The layer that the path names.
pub fn name(request: &Request<'_>) -> Result<String, ApiError> {
    let text = &request.operation.name;
    match request.home().parse_layer(text) {
        Ok(LayerName { name, version: None }) => Ok(name.to_owned()),
        Ok(_) | Err(BadLayer::Malformed) => {
            Err(unfit("layerName", text, format_args!("{NAME_PATTERN}")))
        }
        Err(BadLayer::OtherRegion | BadLayer::OtherAccount) => Err(missing()),
    }
}

/// The number of a version that the path has.
pub fn number(request: &Request<'_>) -> Result<u32, ApiError> {
    let text = &request.operation.part;
    match text.parse::<i64>() {
        Ok(number) if number < 1 => {
            Err(ApiError::invalid_parameter("Layer Version Cannot be less than 1."))
        }
        // There is none with such a number.
        Ok(number) => Ok(u32::try_from(number).unwrap_or(u32::MAX)),
        Err(_) => Err(ApiError::serialization(format!("{text} can not be converted to a Long"))),
    }
}

/// A version's record, if there is one.
pub fn find(api: &Api, name: &str, number: u32) -> Result<Option<LayerVersionRecord>, ApiError> {
    api.store.layer_version(name, number).map_err(|error| change::disk(name, &error))
}

/// What may change of a layer.
pub fn read(api: &Api, name: &str) -> Result<LayerRecord, ApiError> {
    let record = api.store.record(Part::Layers, name);
    Ok(record.map_err(|error| change::disk(name, &error))?.unwrap_or_default())
}

/// `PublishLayerVersion`
pub async fn publish(request: &mut Request<'_>) -> Result<Answer, End> {
    let api = request.api;
    let name = name(request)?;
    let (upload, _) = request.upload().await?;
    let _change = api.change().await?;
    let (fields, code) = take(api, upload, "Content").await?;
    let content = fields.object("Content")?.ok_or_else(|| fields.missing("Content"))?;
    super::configure::check_possible(&content)?;
    let code = code.ok_or_else(|| {
        ApiError::invalid_parameter("Please provide a source for the layer's content.")
    })?;
    let version = LayerVersionRecord {
        code,
        description: fields.text("Description", 0..=DESCRIPTION_MAX)?.unwrap_or("").to_owned(),
        created_ms: now_ms(),
        compatible_runtimes: runtimes(&fields)?,
        compatible_architectures: architectures(&fields)?,
        license_info: fields.text("LicenseInfo", 0..=LICENSE_MAX)?.map(str::to_owned),
    };
    let mut record = read(api, &name)?;
    let number = record.next_version;
    record.next_version = number.checked_add(1).ok_or_else(|| {
        ApiError::invalid_parameter("There are no numbers left for another version.")
    })?;
    let change = Change::publish(api, Part::Layers, &name, &record, (number, &version))?;
    change.perform(api).await?;
    if is_awaited(api, &name, number) {
        (api.reload)();
    }
    Ok(Answer::new(201, whole(request, &name, number, &version)))
}

/// True if a function was refused for want of this version.
fn is_awaited(api: &Api, name: &str, number: u32) -> bool {
    let complaint = format!("layers: {name}:{number} ");
    let catalog = api.host.catalog.borrow();
    let mut refused =
        catalog.functions().iter().filter_map(|function| function.state.as_ref().err());
    refused.any(|issues| issues.iter().any(|issue| issue.contains(&complaint)))
}

fn runtimes(fields: &Fields) -> Result<Vec<String>, ApiError> {
    let list = fields.texts("CompatibleRuntimes")?.unwrap_or_default();
    if list.len() > LAYER_RUNTIMES_MAX {
        let demand = format_args!("have length less than or equal to {LAYER_RUNTIMES_MAX}");
        return Err(fields.unfit("CompatibleRuntimes", format!("[{}]", list.join(", ")), demand));
    }
    // A layer for runtimes that no board has is as good as any: nothing comes of it.
    if let Some(odd) = list.iter().find(|runtime| !(1..=128).contains(&runtime.chars().count())) {
        return Err(fields.unfit("CompatibleRuntimes", odd, format_args!("be a runtime's name")));
    }
    Ok(list)
}

fn architectures(fields: &Fields) -> Result<Vec<String>, ApiError> {
    let list = fields.texts("CompatibleArchitectures")?.unwrap_or_default();
    if list.iter().any(|one| !ARCHITECTURES.contains(&one.as_str())) {
        let set = ARCHITECTURES.join(", ");
        let demand = format_args!("satisfy enum value set: [{set}]");
        let value = format!("[{}]", list.join(", "));
        return Err(fields.unfit("CompatibleArchitectures", value, demand));
    }
    if list.len() > ARCHITECTURES.len() {
        let demand = format_args!("have length less than or equal to {}", ARCHITECTURES.len());
        return Err(fields.unfit(
            "CompatibleArchitectures",
            format!("[{}]", list.join(", ")),
            demand,
        ));
    }
    Ok(list)
}

/// `GetLayerVersion`
pub fn get(request: &Request<'_>) -> Result<Answer, ApiError> {
    let (name, number) = (name(request)?, number(request)?);
    let version = find(request.api, &name, number)?.ok_or_else(missing)?;
    Ok(Answer::new(200, whole(request, &name, number, &version)))
}

/// `GetLayerVersionByArn`
pub fn get_by_arn(request: &Request<'_>) -> Result<Answer, ApiError> {
    let arn = request.operation.parameter("Arn").unwrap_or_default();
    match request.home().parse_layer(&arn) {
        Ok(LayerName { name, version: Some(number) }) => {
            let version = find(request.api, name, number)?.ok_or_else(missing)?;
            Ok(Answer::new(200, whole(request, name, number, &version)))
        }
        Ok(_) | Err(BadLayer::Malformed) => Err(unfit("arn", &arn, format_args!("{ARN_PATTERN}"))),
        Err(BadLayer::OtherRegion | BadLayer::OtherAccount) => Err(missing()),
    }
}

/// `ListLayers`
pub fn list(request: &Request<'_>) -> Result<Answer, ApiError> {
    let api = request.api;
    let names = api.store.names(Part::Layers);
    let mut items = Vec::new();
    for name in names.map_err(|error| ApiError::service(500, format!("read layers: {error}")))? {
        if let Some((number, version)) = matching(request, &name, 1)?.pop() {
            items.push((name.clone(), (name, number, version)));
        }
    }
    let page = page(request, items, LIST_PAGE_MAX)?.map(|(name, number, version)| {
        json!({
            "LayerName": name,
            "LayerArn": request.home().layer_arn(&name, None),
            "LatestMatchingVersion": item(request, &name, number, &version),
        })
    });
    Ok(Answer::new(200, page.into_value("Layers")))
}

/// `ListLayerVersions`: the newest first.
pub fn list_versions(request: &Request<'_>) -> Result<Answer, ApiError> {
    let name = name(request)?;
    let versions = matching(request, &name, usize::MAX)?;
    let key = |number: u32| format!("{:010}", u32::MAX - number);
    let items = versions.into_iter().map(|(number, version)| (key(number), (number, version)));
    let page = page(request, items, LIST_PAGE_MAX)?;
    let page = page.map(|(number, version)| item(request, &name, number, &version));
    Ok(Answer::new(200, page.into_value("LayerVersions")))
}

/// The newest versions of a layer that are for what the request asks for, at most so many.
fn matching(
    request: &Request<'_>,
    name: &str,
    most: usize,
) -> Result<Vec<(u32, LayerVersionRecord)>, ApiError> {
    let runtime = request.operation.parameter("CompatibleRuntime");
    let architecture = request.operation.parameter("CompatibleArchitecture");
    let is_for = |list: &[String], wanted: &Option<String>| {
        wanted.as_ref().is_none_or(|wanted| list.contains(wanted))
    };
    let mut found = Vec::new();
    let numbers = request.api.store.layer_versions(name);
    for number in numbers.map_err(|error| change::disk(name, &error))?.into_iter().rev() {
        if let Some(version) = find(request.api, name, number)?
            && is_for(&version.compatible_runtimes, &runtime)
            && is_for(&version.compatible_architectures, &architecture)
        {
            found.push((number, version));
            if found.len() == most {
                break;
            }
        }
    }
    Ok(found)
}

/// `DeleteLayerVersion`, which is content if there is none. Functions keep what they have of it.
pub fn delete(request: &Request<'_>) -> Result<Answer, ApiError> {
    let api = request.api;
    let (name, number) = (name(request)?, number(request)?);
    if find(api, &name, number)?.is_none() {
        return Ok(Answer::empty());
    }
    let forgotten = Change::forget(api, Part::Layers, &name, Some(&number.to_string()));
    let forgotten = forgotten.then(|api| api.host.has_unused());
    let mut record = read(api, &name)?;
    let change = match record.policies.remove(&number) {
        Some(_) => keep(api, &name, &record)?.and(forgotten),
        None => forgotten,
    };
    Ok(Answer::empty().once(change))
}

/// Keeps what may change of a layer.
pub fn keep(api: &Api, name: &str, record: &LayerRecord) -> Result<Change, ApiError> {
    Change::keep(api, Part::Layers, name, record)
}

/// A version as lists have it.
fn item(request: &Request<'_>, name: &str, number: u32, version: &LayerVersionRecord) -> Value {
    let mut value = json!({
        "LayerVersionArn": request.home().layer_arn(name, Some(&number.to_string())),
        "Version": number,
        "Description": version.description,
        "CreatedDate": view::timestamp(version.created_ms),
    });
    if !version.compatible_runtimes.is_empty() {
        value["CompatibleRuntimes"] = json!(version.compatible_runtimes);
    }
    if !version.compatible_architectures.is_empty() {
        value["CompatibleArchitectures"] = json!(version.compatible_architectures);
    }
    if let Some(license) = &version.license_info {
        value["LicenseInfo"] = json!(license);
    }
    value
}

/// A version by itself.
fn whole(request: &Request<'_>, name: &str, number: u32, version: &LayerVersionRecord) -> Value {
    let mut value = item(request, name, number, version);
    let zip = version.code.zip.as_deref().unwrap_or(&version.code.digest);
    value["LayerArn"] = request.home().layer_arn(name, None).into();
    value["Content"] = json!({
        "Location": format!("{}/code/{zip}", request.url()),
        "CodeSha256": view::sha256(&version.code),
        "CodeSize": version.code.size,
    });
    value
}

/// Bytes of the zips of all layer versions.
pub fn total_size(api: &Api) -> Result<u64, ApiError> {
    let disk = |error| ApiError::service(500, format!("read layers: {error}"));
    let mut size = 0;
    for name in api.store.names(Part::Layers).map_err(disk)? {
        for number in api.store.layer_versions(&name).map_err(disk)? {
            size += find(api, &name, number)?.map_or(0, |version| version.code.size);
        }
    }
    Ok(size)
}
