//! Changes: read what is kept, make a changed copy, bring it to the disk, put it in force.

use std::rc::Rc;

use serde::Serialize;

use super::Named;
use super::upload::Incoming;
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

/// A change that is decided, and still to be brought to the disk and put in force.
pub struct Change {
    /// Written beside what they replace, and gone with this unless a helper has taken them.
    staged: Vec<Incoming>,
    steps: Vec<Step>,
}

enum Step {
    /// A helper brings something to the disk.
    Helper(Vec<String>),
    /// It comes into force.
    Force(Force),
}

type Force = Box<dyn FnOnce(&Rc<Api>)>;

impl Change {
    /// Keeps the record of a function or a layer.
    pub fn keep(
        api: &Api,
        part: Part,
        name: &str,
        record: &impl Serialize,
    ) -> Result<Change, ApiError> {
        let mut change = Change { staged: Vec::new(), steps: Vec::new() };
        let mut words = words(api, "commit", part, name);
        words.push(change.stage(api, name, record)?);
        change.steps.push(Step::Helper(words));
        Ok(change)
    }

    /// The same with a new version, which is there before the record says so.
    pub fn publish(
        api: &Api,
        part: Part,
        name: &str,
        record: &impl Serialize,
        (number, version): (u32, &impl Serialize),
    ) -> Result<Change, ApiError> {
        let mut change = Change { staged: Vec::new(), steps: Vec::new() };
        let mut words = words(api, "commit", part, name);
        words.push(change.stage(api, name, record)?);
        words.extend([number.to_string(), change.stage(api, name, version)?]);
        change.steps.push(Step::Helper(words));
        Ok(change)
    }

    /// Forgets a function, or a version of a function or a layer.
    pub fn forget(api: &Api, part: Part, name: &str, version: Option<&str>) -> Change {
        let mut words = words(api, "forget", part, name);
        words.extend(version.map(str::to_owned));
        Change { staged: Vec::new(), steps: vec![Step::Helper(words)] }
    }

    fn stage(
        &mut self,
        api: &Api,
        name: &str,
        record: &impl Serialize,
    ) -> Result<String, ApiError> {
        let staged = api.store.stage(api.host.random(), record);
        let staged =
            staged.map_err(|error| ApiError::service(500, format!("keep {name}: {error}")))?;
        let path = staged.display().to_string();
        self.staged.push(staged.into());
        Ok(path)
    }

    /// This, and then the other one.
    pub fn and(mut self, other: Change) -> Change {
        self.staged.extend(other.staged);
        self.steps.extend(other.steps);
        self
    }

    /// This, which then comes into force so.
    pub fn then(mut self, force: impl FnOnce(&Rc<Api>) + 'static) -> Change {
        self.steps.push(Step::Force(Box::new(force)));
        self
    }

    /// Makes it. Only for who has the turn to change functions.
    pub async fn perform(self, api: &Rc<Api>) -> Result<(), ApiError> {
        for step in self.steps {
            match step {
                Step::Helper(words) => {
                    let words: Vec<&str> = words.iter().map(String::as_str).collect();
                    let done = api.host.helper(&words).await;
                    done.map_err(|error| ApiError::service(500, error))?;
                }
                Step::Force(force) => force(api),
            }
        }
        Ok(())
    }
}

/// What a helper is told first.
fn words(api: &Api, verb: &str, part: Part, name: &str) -> Vec<String> {
    let data = api.store.data().display().to_string();
    [verb, &data, part.directory(), name].map(str::to_owned).into()
}

/// Keeps a function's record, and puts in force what it sets besides versions.
pub fn apply(api: &Api, name: &str, record: &FunctionRecord) -> Result<Change, ApiError> {
    let (of, controls) = (name.to_owned(), Controls::of(record));
    let kept = Change::keep(api, Part::Functions, name, record)?;
    Ok(kept.then(move |api| api.host.control(&api.store, &of, controls)))
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
