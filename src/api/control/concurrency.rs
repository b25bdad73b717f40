//! Concurrency: what of the slot table is a function's own, and which workers are kept ready.

use serde_json::{Value, json};

use super::change::{self, apply, now_ms};
use super::list::page;
use super::{Answer, Named, Request, view};
use crate::api::Api;
use crate::api::error::ApiError;
use crate::function::config::Runtime;
use crate::function::record::{FunctionRecord, LATEST, Provisioned, Route};
use crate::host::catalog::{Function, Source};
use crate::limits::LIST_PAGE_MAX;
use crate::pool::{Hold, State};

/// What of the table must stay without reservation: a tenth, and one slot at least. On Lambda it is
/// a hundred of a thousand.
pub fn unreserved_least(slots: u16) -> u16 {
    (slots / 10).max(1)
}

/// Slots of the table.
pub fn slots(api: &Api) -> u16 {
    api.host.look(|pool| u16::try_from(pool.view().len()).unwrap_or(u16::MAX))
}

/// A function's reservation, wherever it was made.
pub fn reserved(api: &Api, name: &str) -> Option<u16> {
    reservation(api.host.catalog.borrow().function(name)?)
}

fn reservation(function: &Function) -> Option<u16> {
    let own = function.state.as_ref().ok().and_then(|version| version.reserved.get());
    function.controls.reserved.or(own)
}

/// What functions but `name` have taken out of the table: reservations, and workers kept ready by
/// those that have none.
pub fn taken(api: &Api, but: &str) -> u16 {
    let catalog = api.host.catalog.borrow();
    let of = |function: &Function| match reservation(function) {
        Some(reserved) => reserved,
        None => total(function.controls.provisioned.iter().map(|(_, n)| *n)),
    };
    total(catalog.functions().iter().filter(|function| *function.name != *but).map(of))
}

fn total(numbers: impl Iterator<Item = u16>) -> u16 {
    numbers.fold(0, u16::saturating_add)
}

/// `PutFunctionConcurrency`
pub fn put(request: &Request<'_>) -> Result<Answer, ApiError> {
    let api = request.api;
    let name = request.bare_function()?;
    let fields = request.fields()?;
    let wanted = fields.integer("ReservedConcurrentExecutions", 0..=u32::MAX)?;
    let wanted = wanted.ok_or_else(|| fields.missing("ReservedConcurrentExecutions"))?;
    let mut record = change::read(api, &name)?;
    no_folder_says(api, &name, "reserved_concurrency")?;
    let provisioned = total(record.provisioned_concurrency.values().map(|p| p.requested));
    if wanted < u32::from(provisioned) {
        return Err(ApiError::untyped_parameter(format!(
            " ReservedConcurrentExecutions  {wanted} should not be lower than function's total \
             provisioned concurrency [{provisioned}]."
        )));
    }
    let slots = slots(api);
    let least = unreserved_least(slots);
    let most = slots.saturating_sub(taken(api, &name)).saturating_sub(least);
    let Some(reserved) = u16::try_from(wanted).ok().filter(|wanted| *wanted <= most) else {
        return Err(ApiError::invalid_parameter(format!(
            "Specified ReservedConcurrentExecutions for function decreases account's \
             UnreservedConcurrentExecution below its minimum value of [{least}]."
        )));
    };
    record.reserved_concurrency = Some(reserved);
    let body = json!({ "ReservedConcurrentExecutions": reserved });
    Ok(Answer::new(200, body).once(apply(api, &name, &record)?))
}

/// `GetFunctionConcurrency`
pub fn get(request: &Request<'_>) -> Result<Answer, ApiError> {
    let name = request.bare_function()?;
    change::read(request.api, &name)?;
    let body = match reserved(request.api, &name) {
        Some(reserved) => json!({ "ReservedConcurrentExecutions": reserved }),
        None => json!({}),
    };
    Ok(Answer::new(200, body))
}

/// `DeleteFunctionConcurrency`
pub fn delete(request: &Request<'_>) -> Result<Answer, ApiError> {
    let api = request.api;
    let name = request.bare_function()?;
    let mut record = change::read(api, &name)?;
    no_folder_says(api, &name, "reserved_concurrency")?;
    record.reserved_concurrency = None;
    Ok(Answer::empty().once(apply(api, &name, &record)?))
}

/// What `function.toml` can say of a folder is not said over the API.
pub fn no_folder_says(api: &Api, name: &str, key: &str) -> Result<(), ApiError> {
    match api.host.catalog.borrow().function(name).map(|function| &function.source) {
        Some(Source::Folder(path)) => Err(ApiError::conflict(format!(
            "function {name} is the folder {}: set {key} in its function.toml",
            path.display()
        ))),
        Some(Source::Pushed) | None => Ok(()),
    }
}

/// `PutProvisionedConcurrencyConfig`
pub fn put_provisioned(request: &Request<'_>) -> Result<Answer, ApiError> {
    let api = request.api;
    let named = request.function()?;
    let fields = request.fields()?;
    let wanted = fields.integer("ProvisionedConcurrentExecutions", 1..=u32::MAX)?;
    let wanted = wanted.ok_or_else(|| fields.missing("ProvisionedConcurrentExecutions"))?;
    let mut record = change::read(api, &named.name)?;
    let qualifier = qualifier(&named)?;
    if qualifier == LATEST {
        return Err(ApiError::invalid_parameter(
            "Provisioned Concurrency Configs cannot be applied to unpublished function versions.",
        ));
    }
    let number = number(api, &record, &named)?.ok_or_else(|| {
        ApiError::invalid_parameter("Alias with $LATEST cannot have provisioned concurrency.")
    })?;
    check_shared(&record, qualifier, number)?;
    let requested = check_room(api, &named.name, &record, qualifier, wanted)?;
    let version = change::read_version(api, &named.name, number)?;
    if Runtime::parse(&view::configuration(api, &named.name, &version)?.runtime)
        == Some(Runtime::Exec)
    {
        let why = "exec starts one process for each invocation: none can be kept ready";
        return Err(ApiError::invalid_parameter(why));
    }
    let provisioned = Provisioned { requested, modified_ms: now_ms() };
    record.provisioned_concurrency.insert(qualifier.to_owned(), provisioned.clone());
    // What cannot be brought in at all shows as failed.
    if let Ok(Some(version)) = api.host.published(&api.store, &named.name, number) {
        let sum = total(record.provisioned_concurrency.values().map(|p| p.requested));
        let checked = api.host.check_memory(&named.name, &version.config, sum);
        checked.map_err(ApiError::invalid_parameter)?;
    }
    let shown = show(&provisioned, Status { ready: 0, failed: false });
    Ok(Answer::new(202, shown).once(apply(api, &named.name, &record)?))
}

/// A configuration belongs to a version or to an alias of it, but not to both.
fn check_shared(record: &FunctionRecord, qualifier: &str, number: u32) -> Result<(), ApiError> {
    let label = number.to_string();
    let is_alias = record.aliases.contains_key(qualifier);
    if is_alias && record.provisioned_concurrency.contains_key(&label) {
        return Err(ApiError::conflict(
            "Alias can't be used for Provisioned Concurrency configuration on an already \
             Provisioned version",
        ));
    }
    let others = record.provisioned_concurrency.keys().filter(|other| *other != qualifier);
    let mut routes = others.filter_map(|other| record.aliases.get(other));
    if routes.any(|alias| alias.route.leads_to(&label)) {
        return Err(ApiError::conflict(if is_alias {
            "Alias can't be used for Provisioned Concurrency configuration on an already \
             Provisioned version"
        } else {
            "Version is pointed by a Provisioned Concurrency alias"
        }));
    }
    Ok(())
}

/// The same when an alias moves.
pub fn check_move(record: &FunctionRecord, alias: &str, to: &Route) -> Result<(), ApiError> {
    match to.function_version.parse() {
        Ok(number) if record.provisioned_concurrency.contains_key(alias) => {
            check_shared(record, alias, number)
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

fn check_room(
    api: &Api,
    name: &str,
    record: &FunctionRecord,
    qualifier: &str,
    wanted: u32,
) -> Result<u16, ApiError> {
    let others = record.provisioned_concurrency.iter().filter(|(other, _)| *other != qualifier);
    let others = total(others.map(|(_, provisioned)| provisioned.requested));
    let sum = wanted.saturating_add(u32::from(others));
    let slots = slots(api);
    if let Some(reserved) = reserved(api, name) {
        if sum > u32::from(reserved) {
            return Err(ApiError::invalid_parameter(
                "Requested Provisioned Concurrency should not be greater than the \
                 reservedConcurrentExecution for function",
            ));
        }
    } else {
        let left = slots.saturating_sub(taken(api, name));
        let least = unreserved_least(slots);
        if sum > u32::from(left) {
            return Err(ApiError::invalid_parameter(format!(
                "Specified ConcurrentExecutions for function is greater than account's unreserved \
                 concurrency [{left}]."
            )));
        }
        if sum > u32::from(left.saturating_sub(least)) {
            return Err(ApiError::invalid_parameter(format!(
                "Specified ConcurrentExecutions for function decreases account's \
                 UnreservedConcurrentExecution below its minimum value of [{least}]."
            )));
        }
    }
    Ok(u16::try_from(wanted).unwrap_or(slots))
}

/// `GetProvisionedConcurrencyConfig`
pub fn get_provisioned(request: &Request<'_>) -> Result<Answer, ApiError> {
    let (api, named, record) = provisioned_function(request)?;
    let provisioned = record.provisioned_concurrency.get(qualifier(&named)?);
    let provisioned = provisioned.ok_or_else(ApiError::no_provisioned)?;
    let number = number(api, &record, &named)?.ok_or_else(ApiError::no_provisioned)?;
    let status = status(api, &named.name, number);
    Ok(Answer::new(200, show(provisioned, status)))
}

/// `DeleteProvisionedConcurrencyConfig`
pub fn delete_provisioned(request: &Request<'_>) -> Result<Answer, ApiError> {
    let (api, named, mut record) = provisioned_function(request)?;
    if record.provisioned_concurrency.remove(qualifier(&named)?).is_some() {
        return Ok(Answer::empty().once(apply(api, &named.name, &record)?));
    }
    Ok(Answer::empty())
}

/// `ListProvisionedConcurrencyConfigs`
pub fn list_provisioned(request: &Request<'_>) -> Result<Answer, ApiError> {
    let api = request.api;
    let name = request.bare_function()?;
    let record = change::read(api, &name)?;
    let items = record.provisioned_concurrency.iter();
    let items = items.map(|(qualifier, provisioned)| (qualifier.clone(), (qualifier, provisioned)));
    let page = page(request, items, LIST_PAGE_MAX)?.map(|(qualifier, provisioned)| {
        let named = Named { name: name.clone(), qualifier: Some(qualifier.clone()) };
        let number = number(api, &record, &named)?;
        let status = number.map(|number| status(api, &name, number)).unwrap_or_default();
        let mut value = show(provisioned, status);
        value["FunctionArn"] =
            request.home().arn(&name, Some(qualifier.as_str())).to_string().into();
        Ok::<_, ApiError>(value)
    });
    let page = page.transpose()?.into_value("ProvisionedConcurrencyConfigs");
    Ok(Answer::new(200, page))
}

fn provisioned_function<'a>(
    request: &Request<'a>,
) -> Result<(&'a std::rc::Rc<Api>, Named, FunctionRecord), ApiError> {
    let named = request.function()?;
    let record = change::read(request.api, &named.name)?;
    if qualifier(&named)? == LATEST {
        return Err(ApiError::invalid_parameter(
            "The function resource provided must be an alias or a published version.",
        ));
    }
    number(request.api, &record, &named)?;
    Ok((request.api, named, record))
}

fn qualifier(named: &Named) -> Result<&str, ApiError> {
    named
        .qualifier
        .as_deref()
        .ok_or_else(|| super::fields::unfit("qualifier", "null", format_args!("not be null")))
}

/// The version that a qualifier leads to, which is there.
fn number(api: &Api, record: &FunctionRecord, named: &Named) -> Result<Option<u32>, ApiError> {
    let qualifier = qualifier(named)?;
    if qualifier.parse::<u32>().is_err() && qualifier != LATEST {
        super::aliases::find(api, &named.name, record, qualifier)?;
    }
    change::version_of(api, record, named)
}

/// How far workers that are to be kept ready are.
#[derive(Clone, Copy, Default)]
struct Status {
    ready: u16,
    failed: bool,
}

fn status(api: &Api, name: &str, number: u32) -> Status {
    let catalog = api.host.catalog.borrow();
    let version =
        catalog.function(name).and_then(|function| function.published(&number.to_string()));
    // One that could not be brought in: the operator's log says why.
    let Some(version) = version else { return Status { ready: 0, failed: true } };
    api.host.look(|pool| {
        let is_ready = |state: &State| match *state {
            State::Idle { version: of, provisioned, .. }
            | State::Busy { version: of, provisioned, .. } => of == version.id && provisioned,
            State::Free | State::Starting { .. } | State::Stopping { .. } => false,
        };
        let ready = pool.view().iter().filter(|slot| is_ready(&slot.state)).count();
        let hold = pool.version(version.id).map(|version| version.hold);
        Status {
            ready: u16::try_from(ready).unwrap_or(u16::MAX),
            failed: matches!(hold, Some(Hold::Failing(_))),
        }
    })
}

fn show(provisioned: &Provisioned, Status { ready, failed }: Status) -> Value {
    let requested = provisioned.requested;
    let ready = ready.min(requested);
    let status = match (ready == requested, failed) {
        (true, _) => "READY",
        (false, true) => "FAILED",
        (false, false) => "IN_PROGRESS",
    };
    let mut value = json!({
        "RequestedProvisionedConcurrentExecutions": requested,
        "AvailableProvisionedConcurrentExecutions": ready,
        "AllocatedProvisionedConcurrentExecutions": ready,
        "Status": status,
        "LastModified": view::timestamp(provisioned.modified_ms),
    });
    if status == "FAILED" {
        value["StatusReason"] = "FUNCTION_ERROR_INIT_FAILURE".into();
    }
    value
}
