//! Functions: created, shown, listed, updated, deleted.

use std::rc::Rc;

use serde_json::{Value, json};

use super::change::{self, CHANGE_IT, Change, apply, check_revision, no_folder, now_ms, revision};
use super::fields::Fields;
use super::list::page;
use super::upload::take;
use super::view::{self, Stage, View, show_latest};
use super::{Answer, Named, Request, configure, layers, versions};
use crate::api::error::ApiError;
use crate::api::{Api, End};
use crate::function::record::{CodeRecord, FunctionRecord, LATEST, VersionRecord};
use crate::function::store::Part;
use crate::host::catalog::{Function, Source};
use crate::limits::{DESCRIPTION_MAX, LIST_PAGE_MAX};

/// `CreateFunction`
pub async fn create(request: &mut Request<'_>) -> Result<Answer, End> {
    let api = request.api;
    let (upload, caller) = request.upload().await?;
    let _change = api.change().await?;
    let (fields, code) = take(api, upload, "Code").await?;
    let given = fields.needed("FunctionName", 1..=140)?;
    let named = Named::parse(request.home(), given, None)?;
    let name = named.name.as_str();
    caller.may(&request.operation.action(), Some(name))?;
    if named.qualifier.is_some() {
        return Err(fields
            .unfit("FunctionName", given, format_args!("be a function's name"))
            .into());
    }
    if api.host.catalog.borrow().function(name).is_some() {
        return Err(ApiError::conflict(format!("Function already exist: {name}")).into());
    }
    let configuration = configure::apply(&fields, request.home(), name, None)?;
    if let Some(code) = fields.object("Code")? {
        configure::check_possible(&code)?;
    }
    let code = code
        .ok_or_else(|| ApiError::invalid_parameter("Please provide a source for function code."))?;
    let tags = fields.map("Tags")?.unwrap_or_default();
    super::tags::check(&tags)?;
    // What a folder of this name left behind is kept: versions are never numbered twice.
    let kept = api.store.record::<FunctionRecord>(Part::Functions, name);
    let kept = kept.map_err(|error| change::disk(name, &error))?;
    let mut record = FunctionRecord { tags, ..kept.unwrap_or_default() };
    let latest = VersionRecord {
        code,
        opt: None,
        configuration: Some(configuration),
        description: fields.text("Description", 0..=DESCRIPTION_MAX)?.unwrap_or("").to_owned(),
        modified_ms: now_ms(),
        revision_id: revision(api),
    };
    let publishes = fields.boolean("Publish")? == Some(true);
    let latest = layers::put_in(api, name, &fields, latest, None).await?;
    let new = NewLatest { name, stage: Stage::Creating, publishes };
    Ok(Answer::new(201, new.perform(api, &mut record, latest).await?))
}

/// `UpdateFunctionCode`
pub async fn update_code(request: &mut Request<'_>) -> Result<Answer, End> {
    let api = request.api;
    let name = request.bare_function()?;
    if request.is_proven() {
        change::read(api, &name)?;
        no_folder(api, &name, CHANGE_IT)?;
    }
    let (upload, _) = request.upload().await?;
    let _change = api.change().await?;
    let (fields, code) = take(api, upload, "").await?;
    no_folder(api, &name, CHANGE_IT)?;
    let mut record = change::read(api, &name)?;
    let before = view::latest(api, &name, &record)?;
    check_revision(fields.text("RevisionId", 0..=128)?, &before.revision_id)?;
    configure::check_possible(&fields)?;
    let code = code
        .ok_or_else(|| ApiError::invalid_parameter("Please provide a source for function code."))?;
    configure::architecture(&fields)?;
    let latest = VersionRecord { code, ..next(api, &before) };
    // Layers and code share a limit, and the code is another.
    let latest = layers::put_in(api, &name, &fields, latest, Some(&before)).await?;
    let publishes = fields.boolean("Publish")? == Some(true);
    let new = NewLatest { name: &name, stage: Stage::Updating, publishes };
    if fields.boolean("DryRun")? == Some(true) {
        new.load(api, &record, &latest)?;
        let shown = VersionRecord { revision_id: before.revision_id, ..latest };
        return Ok(Answer::new(200, show_latest(api, &name, None, &shown)?));
    }
    Ok(Answer::new(200, new.perform(api, &mut record, latest).await?))
}

/// `UpdateFunctionConfiguration`
pub async fn update_configuration(request: &mut Request<'_>) -> Result<Answer, End> {
    let api = request.api;
    let name = request.bare_function()?;
    change::read(api, &name)?;
    let fields = request.fields()?;
    let _change = api.change().await?;
    no_folder(api, &name, CHANGE_IT)?;
    let mut record = change::read(api, &name)?;
    let before = view::latest(api, &name, &record)?;
    check_revision(fields.text("RevisionId", 0..=128)?, &before.revision_id)?;
    if before.configuration.is_none() {
        return Err(ApiError::conflict(format!(
            "function {name} was pushed with its function.toml: push it again"
        ))
        .into());
    }
    let home = request.home();
    let changed = configure::apply(&fields, home, &name, before.configuration.as_ref())?;
    let mut latest = VersionRecord { configuration: Some(changed), ..next(api, &before) };
    if let Some(description) = fields.text("Description", 0..=DESCRIPTION_MAX)? {
        latest.description = description.to_owned();
    }
    let latest = layers::put_in(api, &name, &fields, latest, Some(&before)).await?;
    let new = NewLatest { name: &name, stage: Stage::Updating, publishes: false };
    Ok(Answer::new(200, new.perform(api, &mut record, latest).await?))
}

/// A copy of a version that is going to differ.
fn next(api: &Api, before: &VersionRecord) -> VersionRecord {
    VersionRecord { modified_ms: now_ms(), revision_id: revision(api), ..before.clone() }
}

/// A new `$LATEST` on its way into force.
pub struct NewLatest<'a> {
    /// Whose.
    pub name: &'a str,
    /// What the answer calls it.
    pub stage: Stage,
    /// It is published as well.
    pub publishes: bool,
}

impl NewLatest<'_> {
    /// The function as it would be. What is wrong with it is Lambda's error.
    pub fn load(
        &self,
        api: &Rc<Api>,
        record: &FunctionRecord,
        latest: &VersionRecord,
    ) -> Result<Function, ApiError> {
        let record = FunctionRecord { latest: Some(latest.clone()), ..record.clone() };
        let opt = latest.opt.as_ref().map(|digest| api.store.layers(digest));
        let home = (&*api.store.code(&latest.code.digest), opt);
        let function = api.host.load(self.name, Source::Pushed, home, Some(&record));
        match &function.state {
            Ok(_) => Ok(function),
            Err(issues) => Err(ApiError::invalid_parameter(issues.join("; "))),
        }
    }

    /// Brings it to the disk, then puts it in force. The answer shows it on its way: it is there
    /// when the answer is, under another revision id as on Lambda.
    pub async fn perform(
        &self,
        api: &Rc<Api>,
        record: &mut FunctionRecord,
        latest: VersionRecord,
    ) -> Result<Value, ApiError> {
        let function = self.load(api, record, &latest)?;
        let settled = VersionRecord { revision_id: revision(api), ..latest.clone() };
        let before = record.latest.replace(settled.clone());
        let published = match self.publishes {
            true => versions::next(api, self.name, record, &settled, None)?,
            false => None,
        };
        let kept = match published {
            Some((number, version)) => {
                Change::publish(api, Part::Functions, self.name, record, (number, &version))?
            }
            None => Change::keep(api, Part::Functions, self.name, record)?,
        };
        kept.perform(api).await?;
        api.host.install(function);
        api.host.provision(&api.store, self.name);
        if before.is_some() {
            // Its code and layers may be nobody's.
            api.host.has_unused();
        }
        let number = self.publishes.then(|| record.next_version.saturating_sub(1).to_string());
        let label = number.as_deref().unwrap_or(LATEST);
        let view =
            View { name: self.name, qualifier: None, label, record: &latest, stage: self.stage };
        view.show(api)
    }
}

/// `GetFunction`
pub fn get(request: &Request<'_>) -> Result<Answer, ApiError> {
    let named = request.function()?;
    let (record, version, label) = find(request.api, &named)?;
    let configuration = show(request.api, &named, &version, &label)?;
    let location = match &version.code {
        CodeRecord { zip: Some(sha256), .. } => sha256,
        CodeRecord { digest, zip: None, .. } => digest,
    };
    let mut body = json!({
        "Configuration": configuration,
        "Code": {
            "RepositoryType": "S3",
            "Location": format!("{}/code/{location}", request.url()),
        },
    });
    if !record.tags.is_empty() {
        body["Tags"] = json!(record.tags);
    }
    let reserved = super::concurrency::reserved(request.api, &named.name);
    if let Some(reserved) = reserved {
        body["Concurrency"] = json!({ "ReservedConcurrentExecutions": reserved });
    }
    Ok(Answer::new(200, body))
}

/// `GetFunctionConfiguration`
pub fn get_configuration(request: &Request<'_>) -> Result<Answer, ApiError> {
    let named = request.function()?;
    let (_, version, label) = find(request.api, &named)?;
    Ok(Answer::new(200, show(request.api, &named, &version, &label)?))
}

/// What is kept of a function and of the version that its qualifier leads to, and that one's label.
pub fn find(api: &Api, named: &Named) -> Result<(FunctionRecord, VersionRecord, String), ApiError> {
    let record = change::read(api, &named.name)?;
    let (version, label) = match change::version_of(api, &record, named)? {
        None => (view::latest(api, &named.name, &record)?, LATEST.to_owned()),
        Some(number) => (change::read_version(api, &named.name, number)?, number.to_string()),
    };
    Ok((record, version, label))
}

fn show(api: &Api, named: &Named, record: &VersionRecord, label: &str) -> Result<Value, ApiError> {
    let (name, qualifier) = (&*named.name, named.qualifier.as_deref());
    View { name, qualifier, label, record, stage: Stage::Active }.show(api)
}

/// `ListFunctions`
pub fn list(request: &Request<'_>) -> Result<Answer, ApiError> {
    let api = request.api;
    let all = match request.operation.parameter("FunctionVersion").as_deref() {
        None => false,
        Some("ALL") => true,
        Some(other) => {
            let demand = format_args!("satisfy enum value set: [ALL]");
            return Err(super::fields::unfit("functionVersion", other, demand));
        }
    };
    let names: Vec<Rc<str>> = {
        let catalog = api.host.catalog.borrow();
        let is_there = |f: &&Function| f.state.is_ok() || f.source == Source::Pushed;
        catalog.functions().iter().filter(is_there).map(|f| Rc::clone(&f.name)).collect()
    };
    let mut items = Vec::new();
    for name in &names {
        items.push((format!("{name}:"), (name, None)));
        if all {
            let next = change::read(api, name)?.next_version;
            let numbers = api.store.versions(Part::Functions, name, next);
            for number in numbers.map_err(|error| change::disk(name, &error))? {
                items.push((format!("{name}:{number:010}"), (name, Some(number))));
            }
        }
    }
    // Records are read for what is on the page, and no others.
    let page = page(request, items, LIST_PAGE_MAX)?.map(|(name, number)| {
        let named = Named {
            name: name.to_string(),
            qualifier: number.map(|n| n.to_string()).or(all.then(|| LATEST.to_owned())),
        };
        let (_, version, label) = find(api, &named)?;
        show(api, &named, &version, &label)
    });
    Ok(Answer::new(200, page.transpose()?.into_value("Functions")))
}

/// `DeleteFunction`
pub fn delete(request: &Request<'_>) -> Result<Answer, ApiError> {
    let api = request.api;
    let named = request.function()?;
    let name = &named.name;
    let record = change::read(api, name)?;
    let Some(qualifier) = &named.qualifier else {
        no_folder(api, name, "remove the folder")?;
        let of = name.clone();
        let change = Change::forget(api, Part::Functions, name, None).then(move |api| {
            api.host.remove(&of);
            api.host.has_unused();
        });
        return Ok(Answer::empty().once(change));
    };
    if qualifier == LATEST {
        let message = "$LATEST version cannot be deleted without deleting the function.";
        return Err(ApiError::invalid_parameter(message));
    }
    let Ok(number) = qualifier.parse::<u32>() else {
        let message = "Deletion of functions via alias is not supported.";
        return Err(ApiError::invalid_parameter(message));
    };
    change::read_version(api, name, number)?;
    versions::check_unused(api, name, &record, qualifier)?;
    let mut record = record;
    record.provisioned_concurrency.remove(qualifier);
    record.event_invoke.remove(qualifier);
    record.policies.remove(qualifier);
    let of = name.clone();
    let forgotten = Change::forget(api, Part::Functions, name, Some(qualifier));
    let change = apply(api, name, &record)?.and(forgotten).then(move |api| {
        api.host.unpublish(&of, number);
        api.host.has_unused();
    });
    Ok(Answer::empty().once(change))
}

/// Makes code that was pushed with its `function.toml` a function's `$LATEST`.
pub async fn push(api: &Rc<Api>, name: &str, code: CodeRecord) -> Result<(), ApiError> {
    let kept = api.store.record::<FunctionRecord>(Part::Functions, name);
    let mut record = kept.map_err(|error| change::disk(name, &error))?.unwrap_or_default();
    let latest = VersionRecord {
        code,
        opt: None,
        configuration: None,
        description: String::new(),
        modified_ms: now_ms(),
        revision_id: revision(api),
    };
    let before = record.latest.clone();
    let latest = layers::put_in(api, name, &Fields::none(), latest, before.as_ref()).await?;
    let new = NewLatest { name, stage: Stage::Updating, publishes: false };
    new.perform(api, &mut record, latest).await.map(drop)
}
